//! The log of a drover that runs inside a test process, which has none.

use drover::api::LogLevel;

/// No log, and so no filter.
#[derive(Debug)]
pub struct NoLog;

impl LogLevel for NoLog {
    fn filter(&self) -> String {
        "off".to_owned()
    }

    fn set(&self, _: &str) -> Result<(), String> {
        Err("there is no log".to_owned())
    }
}
