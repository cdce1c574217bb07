//! Why a command did not do what was asked: one enum, one match to exit codes, one readable form on stderr.
//!
//! Guarantees that no text of a server reaches the terminal raw, and that every failure says what helps where that is known.

use std::io;

use super::document::Document;
use crate::table::escape;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file or a setting of ours cannot be used.
    #[error("{0}")]
    Setting(String),
    /// Nobody answers.
    #[error("cannot reach {server}: {why}; is drover running there? give its address with --server or DROVER_SERVER")]
    Unreachable { server: String, why: String },
    /// Something answers, and it is not drover.
    #[error("{server} does not answer as drover does: {what}; give drover's address with --server or DROVER_SERVER")]
    NotDrover { server: String, what: String },
    /// Nobody answered in time, or the connection broke, after a request that changes something was sent.
    #[error("{server} did not answer: {why}; whether it was done is not known, so look before you try again")]
    Unknown { server: String, why: String },
    /// The API refused.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// It was tried and did not work out.
    #[error("{0}")]
    Failed(String),
    /// The instance is not as well as it was asked to be.
    #[error("drover is {0}")]
    Unwell(String),
    /// What was printed could not be written.
    #[error("cannot write to the standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The process's exit code (the design, section 7; 69 and 78 are sysexits').
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            // Whoever read our output has enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Failed(_) | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Unwell(_) => 3,
            Self::Refused(refusal) => refusal.exit_code(),
            Self::Unreachable { .. } | Self::NotDrover { .. } | Self::Unknown { .. } => 69,
            Self::Setting(_) => 78,
        }
    }

    /// Whether the same question may be answered later. Something else that answers is a drover away behind its proxy where drover has answered before, else a wrong address.
    pub(super) fn may_pass(&self, has_answered: bool) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::NotDrover { .. } => has_answered,
            Self::Refused(refusal) => refusal.status.is_some_and(|status| status == 429 || status >= 500),
            _ => false,
        }
    }

    /// What went wrong, without what helps.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Unreachable { server, why } => format!("{server} does not answer: {why}"),
            Self::NotDrover { server, what } => format!("{server} does not answer as drover does: {what}"),
            other => other.to_string(),
        }
    }

    /// The same with what helps, when drover refused for the reason with this code.
    pub(super) fn advised(self, code: &str, advice: &'static str) -> Self {
        match self {
            Self::Refused(refusal) if refusal.code == code => Self::Refused(Box::new(Refusal { advice: Some(advice), ..*refusal })),
            other => other,
        }
    }

    /// What is told on stderr, over one line or several, with a line break at its end; empty where nothing is to be told.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => String::new(),
            Self::Refused(refusal) => refusal.message(),
            other => format!("drover: {}\n", escape(&other.to_string())),
        }
    }
}

/// A problem document, or what a dry run says would be one.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
#[error("{title}: {detail}")]
pub(super) struct Refusal {
    status: Option<u16>,
    code: String,
    title: String,
    detail: String,
    request_id: Option<String>,
    errors: Vec<PlaceError>,
    /// What helps at the command line.
    advice: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PlaceError {
    pointer: String,
    code: String,
    detail: String,
}

impl Refusal {
    /// Reads a problem; `None` when the document is none of drover's.
    pub(super) fn of_problem(status: u16, document: &Document) -> Option<Self> {
        let kind = document.text("type")?;
        if !kind.starts_with("urn:drover:problem:") {
            return None;
        }
        Some(Self {
            status: Some(status),
            code: document.cell("code"),
            title: document.cell("title"),
            detail: document.cell("detail"),
            request_id: document.text("request_id").map(str::to_owned),
            errors: errors_of(document),
            advice: (status == 401).then_some("give the token in a file, with --token-file or DROVER_TOKEN_FILE"),
        })
    }

    /// Reads what would be refused from a dry run's answer; `None` when it would be done.
    pub(super) fn of_dry_run(document: &Document) -> Option<Self> {
        if *document.at("valid") != Document::Flag(false) {
            return None;
        }
        let errors = errors_of(document);
        let first = errors.first();
        Some(Self {
            code: first.map(|error| error.code.clone()).unwrap_or_default(),
            title: "This would be refused".to_owned(),
            detail: first.map_or_else(|| "the server gave no reason".to_owned(), placed),
            errors,
            ..Self::default()
        })
    }

    /// Whether there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        self.code == "not-found"
    }

    fn exit_code(&self) -> u8 {
        match (self.status, self.code.as_str()) {
            (Some(404), _) | (None, "not-found") => 4,
            (Some(409 | 412), _) | (None, "topic-not-managed" | "task-not-restartable" | "payload-gone" | "precondition-failed") => 5,
            _ => 1,
        }
    }

    fn message(&self) -> String {
        let mut out = format!("drover: {}: {}\n", escape(&self.title), escape(&self.detail));
        // The detail of a problem with one place is that place's.
        let is_told = matches!(self.errors.as_slice(), [only] if placed(only) == self.detail);
        if !is_told {
            for error in &self.errors {
                out.push_str(&format!("  {} ({})\n", escape(&placed(error)), escape(&error.code)));
            }
        }
        if let Some(advice) = self.advice {
            out.push_str(&format!("  {advice}\n"));
        }
        let mut facts = vec![format!("code {}", self.code)];
        facts.extend(self.status.map(|status| format!("status {status}")));
        facts.extend(self.request_id.as_ref().map(|id| format!("request {id}")));
        out.push_str(&format!("  {}\n", escape(&facts.join(", "))));
        out
    }
}

fn placed(error: &PlaceError) -> String {
    if error.pointer.is_empty() { error.detail.clone() } else { format!("{}: {}", error.pointer, error.detail) }
}

fn errors_of(document: &Document) -> Vec<PlaceError> {
    let read = |error: &Document| PlaceError { pointer: error.cell("pointer"), code: error.cell("code"), detail: error.cell("detail") };
    document.items("errors").iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, errors: &str) -> Failure {
        let text = format!(
            r#"{{"type":"urn:drover:problem:x","title":"No\u001b[31m","status":{status},"detail":"/a: bad\nforged","code":"x","request_id":"R","errors":{errors}}}"#
        );
        let document = serde_json::from_str(&text).expect("JSON");
        Failure::Refused(Box::new(Refusal::of_problem(status, &document).expect("a problem")))
    }

    #[test]
    fn a_problem_is_told_once_and_cannot_forge_a_line() {
        let failure = problem(422, r#"[{"pointer":"/a","code":"invalid","detail":"bad\nforged"}]"#);
        assert_eq!(failure.message(), "drover: No\\u{1b}[31m: /a: bad\\nforged\n  code x, status 422, request R\n");
    }

    #[test]
    fn every_place_of_a_problem_is_told() {
        let failure = problem(422, r#"[{"pointer":"/a","code":"invalid","detail":"1"},{"pointer":"/b","code":"type","detail":"2"}]"#);
        assert_eq!(
            failure.message(),
            "drover: No\\u{1b}[31m: /a: bad\\nforged\n  /a: 1 (invalid)\n  /b: 2 (type)\n  code x, status 422, request R\n"
        );
    }

    #[test]
    fn statuses_have_the_exit_codes_of_the_design() {
        for (status, code) in [(400, 1), (401, 1), (404, 4), (409, 5), (412, 5), (422, 1), (503, 1), (504, 1)] {
            assert_eq!(problem(status, "[]").exit_code(), code, "{status}");
        }
    }

    #[test]
    fn a_foreign_error_is_no_problem_of_ours() {
        let document = serde_json::from_str(r#"{"error":"no such index","status":404}"#).expect("JSON");
        assert_eq!(Refusal::of_problem(404, &document), None);
    }

    #[test]
    fn a_dry_run_has_the_exit_code_of_what_it_foresees() {
        let of = |code: &str| {
            let text = format!(r#"{{"valid":false,"errors":[{{"pointer":"","code":"{code}","detail":"why"}}]}}"#);
            let document: Document = serde_json::from_str(&text).expect("JSON");
            Failure::Refused(Box::new(Refusal::of_dry_run(&document).expect("refused"))).exit_code()
        };
        assert_eq!(["not-found", "precondition-failed", "topic-not-managed", "invalid"].map(of), [4, 5, 5, 1]);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::Output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit_code(), failure.message()), (0, String::new()));
    }
}
