//! Errors on one line: what went wrong, and why, down to the last cause. For logs and for reasons that people read; each error's own `Display` says its own part only.

use std::error::Error;

/// The error and its causes, joined by colons.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
