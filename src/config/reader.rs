//! Typed reading of tree nodes: every mistake becomes a [`Problem`] and reading goes on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::tree::{Node, Value, printable};
use super::{Environment, Problem, Secret};

/// Gathers problems and warnings while values are read.
pub(super) struct Reader<'a> {
    base: &'a Path,
    environment: Environment<'a>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// A mapping whose keys are taken one by one; what is left over is unknown.
pub(super) struct Section<'n> {
    pub(super) path: String,
    entries: &'n [(Node, Node)],
    taken: BTreeSet<&'static str>,
    taken_in_any_case: BTreeSet<&'static str>,
}

/// The place of a value and the value.
pub(super) type Placed<'n> = (String, &'n Node);

/// Bytes of a file that a value names with `file:`; a bundle of certificates has some hundred kilobytes.
const MAX_NAMED_FILE_BYTES: u64 = 1 << 20;

impl<'n> Section<'n> {
    /// The value of a key; `None` when it is absent or says nothing.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Placed<'n>> {
        self.taken.insert(key);
        let (_, node) = self.entries.iter().find(|(name, _)| name.text() == Some(key))?;
        if node.is_null() {
            return None;
        }
        Some((self.place_of(key), node))
    }

    /// The path of a key in this section.
    pub(super) fn place_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether a key is there and says something; does not take it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, value)| name.text() == Some(key) && !value.is_null())
    }

    /// All keys with their values, for a section whose keys are names of someone else.
    pub(super) fn entries(&self) -> &'n [(Node, Node)] {
        self.entries
    }

    /// Keys that nobody took, with their nodes.
    fn unknown(&self) -> impl Iterator<Item = (&'n str, &'n Node)> + '_ {
        self.entries.iter().filter_map(|(key, _)| Some((key.text()?, key))).filter(|(text, _)| !self.is_known(text))
    }

    fn is_known(&self, key: &str) -> bool {
        self.taken.contains(key) || self.taken_in_any_case.iter().any(|known| known.eq_ignore_ascii_case(key))
    }

    fn known(&self) -> Vec<&'static str> {
        self.taken.iter().chain(&self.taken_in_any_case).copied().collect()
    }

    fn empty(path: String) -> Self {
        Self { path, entries: &[], taken: BTreeSet::new(), taken_in_any_case: BTreeSet::new() }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(base: &'a Path, environment: Environment<'a>) -> Self {
        Self { base, environment, problems: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.problems, self.warnings)
    }

    pub(super) fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    pub(super) fn warning(&mut self, problem: Problem) {
        self.warnings.push(problem);
    }

    /// A path beside the configuration file.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// A node as a section.
    pub(super) fn section<'n>(&mut self, path: &str, node: &'n Node) -> Option<Section<'n>> {
        match &node.value {
            Value::Map(entries) => Some(Section { entries, ..Section::empty(path.to_owned()) }),
            _ if node.is_null() => Some(Section::empty(path.to_owned())),
            _ => {
                self.problem(node.problem(path, format!("this must be a mapping, not {}", node.kind()), "write it as key: value"));
                None
            }
        }
    }

    /// The section under a key; an empty one when it is absent or no mapping.
    pub(super) fn child<'n>(&mut self, parent: &mut Section<'n>, key: &'static str) -> Section<'n> {
        let given = parent.take(key).and_then(|(path, node)| self.section(&path, node));
        given.unwrap_or_else(|| Section::empty(parent.place_of(key)))
    }

    /// The value of a key whose letters may be in any case. Two spellings of one key are an error: which of them counts would be chance.
    pub(super) fn take_in_any_case<'n>(&mut self, section: &mut Section<'n>, key: &'static str) -> Option<Placed<'n>> {
        section.taken_in_any_case.insert(key);
        let mut spellings = section.entries.iter().filter(|(name, _)| name.text().is_some_and(|text| text.eq_ignore_ascii_case(key)));
        let (first, node) = spellings.next()?;
        let path = section.place_of(first.text().unwrap_or(key));
        for (twin, _) in spellings {
            let detail = format!("'{key}' is given twice, first on line {}; upper and lower case are the same here", first.line);
            self.problem(twin.problem(&path, detail, "keep one of the two"));
        }
        if node.is_null() { None } else { Some((path, node)) }
    }

    /// Reports the keys that nobody took as warnings.
    pub(super) fn ignore_unknown(&mut self, section: &Section<'_>) {
        for (key, node) in section.unknown() {
            let remedy = match nearest(key, &section.known()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => "remove it, nothing reads it".to_owned(),
            };
            let path = section.place_of(&printable(key));
            self.warning(node.problem(&path, format!("'{}' is not known here and is ignored", printable(key)), remedy));
        }
    }

    /// Reports the keys that nobody took as errors.
    pub(super) fn refuse_unknown(&mut self, section: &Section<'_>) {
        for (key, node) in section.unknown() {
            let known = section.known();
            let remedy = match nearest(key, &known) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let path = section.place_of(&printable(key));
            self.problem(node.problem(&path, format!("'{}' is not known here", printable(key)), remedy));
        }
    }

    /// The items of a list with their places.
    pub(super) fn list<'n>(&mut self, path: &str, node: &'n Node) -> Vec<Placed<'n>> {
        match &node.value {
            Value::List(items) => items.iter().enumerate().map(|(index, item)| (format!("{path}[{index}]"), item)).collect(),
            _ => {
                self.problem(node.problem(path, format!("this must be a list, not {}", node.kind()), "write it as [a, b] or one '- item' a line"));
                Vec::new()
            }
        }
    }

    /// A text, with `${ENV}` filled in, or the content of the file after `file:` without its last line break. What a variable holds is taken as it is, whatever it begins with.
    pub(super) fn text(&mut self, path: &str, node: &Node) -> Option<String> {
        let raw = self.raw(path, node)?;
        let text = match raw.strip_prefix("file:") {
            None => self.expand(path, node, raw)?,
            Some(name) => {
                let name = self.expand(path, node, name)?;
                self.content(path, node, &name)?
            }
        };
        if text.contains('\0') {
            self.problem(node.problem(path, "this contains a NUL character", "remove it"));
            return None;
        }
        Some(text)
    }

    /// A text that names something: neither empty nor with control characters, nor with white space at its ends.
    pub(super) fn name(&mut self, path: &str, node: &Node) -> Option<String> {
        let text = self.text(path, node)?;
        let mistake = if text.is_empty() {
            "this is empty"
        } else if text.chars().any(char::is_control) {
            "this contains control characters"
        } else if text.trim() != text {
            "this begins or ends with white space"
        } else {
            return Some(text);
        };
        self.problem(node.problem(path, mistake, "write one word or remove the key"));
        None
    }

    fn raw<'n>(&mut self, path: &str, node: &'n Node) -> Option<&'n str> {
        let raw = node.text().filter(|_| !node.is_null());
        if raw.is_none() {
            self.problem(node.problem(path, format!("this must be a single value, not {}", node.kind()), "write one value"));
        }
        raw
    }

    fn content(&mut self, path: &str, node: &Node, name: &str) -> Option<String> {
        let read = super::read_regular_file(&self.base.join(name), MAX_NAMED_FILE_BYTES);
        let mistake = match read.map(String::from_utf8) {
            Ok(Ok(content)) => return Some(content.trim_end_matches(['\r', '\n']).to_owned()),
            Ok(Err(_)) => "it is not valid UTF-8".to_owned(),
            Err(error) => error.to_string(),
        };
        let detail = format!("cannot read the file {}: {}", printable_line(name), printable_line(&mistake));
        self.problem(node.problem(path, detail, "name a readable file after 'file:', relative to the configuration"));
        None
    }

    fn expand(&mut self, path: &str, node: &Node, raw: &str) -> Option<String> {
        let mut out = String::with_capacity(raw.len());
        let mut rest = raw;
        while let Some((before, inside)) = rest.split_once("${") {
            out.push_str(before);
            let Some((name, after)) = inside.split_once('}') else {
                self.problem(node.problem(path, "'${' without '}'", "close the brace: ${NAME}"));
                return None;
            };
            if !is_variable_name(name) {
                // Not shown: it may be a password that happens to look like a reference.
                self.problem(node.problem(path, "what is between ${ and } is no name of an environment variable", TEXT_WITH_BRACE));
                return None;
            }
            let Some(value) = (self.environment)(name) else {
                let shown = printable(name);
                let remedy = if name == super::DEMO_BROKERS {
                    "this is the configuration of a demo, and `drover demo` sets it; for a run of your own write the addresses of your Kafka"
                        .to_owned()
                } else {
                    format!("set {shown}, or write the value")
                };
                self.problem(node.problem(path, format!("the environment variable {shown} is not set"), remedy));
                return None;
            };
            out.push_str(&value);
            rest = after;
        }
        out.push_str(rest);
        Some(out)
    }

    /// A text that is never shown; an empty one is a mistake, such as a variable that is set to nothing.
    pub(super) fn secret(&mut self, path: &str, node: &Node) -> Option<Secret> {
        let text = self.text(path, node)?;
        if text.is_empty() {
            self.problem(node.problem(path, "this is empty", "give it a value, or remove the key"));
            return None;
        }
        Some(Secret::new(text))
    }

    /// A path, relative to the configuration's folder unless it is absolute. It is only expanded: `file:` would mean the content of a file.
    pub(super) fn path(&mut self, path: &str, node: &Node) -> Option<PathBuf> {
        let raw = self.raw(path, node)?;
        let expanded = self.expand(path, node, raw)?;
        if expanded.is_empty() || expanded.contains('\0') {
            self.problem(node.problem(path, "this is not a path", "write one path, relative to this file or absolute"));
            return None;
        }
        Some(self.base.join(expanded))
    }

    /// The path of a file that can be opened. The content is not looked at.
    pub(super) fn file(&mut self, path: &str, node: &Node) -> Option<PathBuf> {
        self.readable(path, node, |file| super::open_regular_file(file).map(drop))
    }

    /// The path of a file or a folder that can be opened.
    pub(super) fn file_or_folder(&mut self, path: &str, node: &Node) -> Option<PathBuf> {
        let open = |file: &Path| if file.is_dir() { std::fs::read_dir(file).map(drop) } else { super::open_regular_file(file).map(drop) };
        self.readable(path, node, open)
    }

    fn readable(&mut self, path: &str, node: &Node, open: impl Fn(&Path) -> std::io::Result<()>) -> Option<PathBuf> {
        let file = self.path(path, node)?;
        let shown = file.to_string_lossy();
        if shown.contains("-----BEGIN") {
            // Not shown: it may be a private key.
            self.problem(node.problem(path, "this is the content of a PEM file, not its path", "write the content to a file and name it here"));
            return None;
        }
        if let Err(error) = open(&file) {
            let detail = format!("cannot read the file {}: {}", printable_line(&shown), printable_line(&error.to_string()));
            self.problem(node.problem(path, detail, "name a readable file, relative to the configuration or absolute"));
            return None;
        }
        Some(file)
    }

    pub(super) fn boolean(&mut self, path: &str, node: &Node) -> Option<bool> {
        match self.text(path, node)?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => {
                self.problem(node.problem(path, "this is neither true nor false", "write true or false"));
                None
            }
        }
    }

    /// A whole number between two bounds.
    pub(super) fn number(&mut self, path: &str, node: &Node, least: u64, most: u64) -> Option<u64> {
        let text = self.text(path, node)?;
        match text.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                self.problem(node.problem(path, "this is not a whole number in range", format!("write a number from {least} to {most}")));
                None
            }
        }
    }

    /// A duration: a number and `ms`, `s`, `m`, `h` or `d`.
    pub(super) fn duration(&mut self, path: &str, node: &Node, least: Duration, most: Duration) -> Option<Duration> {
        let text = self.text(path, node)?;
        match parse_duration(&text) {
            Some(duration) if (least..=most).contains(&duration) => Some(duration),
            Some(_) => {
                self.problem(node.problem(path, "this duration is out of range", format!("between {least:?} and {most:?}")));
                None
            }
            None => {
                self.problem(node.problem(path, "this is not a duration", "write a number with its unit: 250ms, 60s, 5m, 1h"));
                None
            }
        }
    }

    /// A size in bytes: a number, alone or with `KiB`, `MiB`, `GiB`, `KB`, `MB`, `GB`.
    pub(super) fn size(&mut self, path: &str, node: &Node, least: u64, most: u64) -> Option<u64> {
        let text = self.text(path, node)?;
        match parse_size(&text) {
            Some(size) if (least..=most).contains(&size) => Some(size),
            Some(_) => {
                self.problem(node.problem(path, "this size is out of range", format!("between {least} and {most} bytes")));
                None
            }
            None => {
                self.problem(node.problem(path, "this is not a size", "write bytes, or a number with its unit: 64KiB, 8MiB, 1GiB"));
                None
            }
        }
    }

    /// A value of a type that reads itself from a text and says in its error what it takes.
    pub(super) fn parsed<T: DeserializeOwned>(&mut self, path: &str, node: &Node, remedy: &str) -> Option<T> {
        let text = self.text(path, node)?;
        match serde_json::from_value(serde_json::Value::String(text)) {
            Ok(value) => Some(value),
            Err(error) => {
                // The error quotes the value, which may be quoted only when it stands in the file.
                let is_written_out = node.text().is_some_and(|raw| !raw.starts_with("file:") && !raw.contains("${"));
                let detail =
                    if is_written_out { printable_line(&error.to_string()) } else { "the value that this names is not allowed here".to_owned() };
                self.problem(node.problem(path, detail, remedy));
                None
            }
        }
    }
}

/// What helps when a value holds `${` itself.
const TEXT_WITH_BRACE: &str = "write ${NAME}; a text that contains '${' itself has to come from a file: file:PATH";

/// Whether a shell could set it.
fn is_variable_name(name: &str) -> bool {
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// An error text of a library on one line without control characters.
pub(super) fn printable_line(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A whole number with `ms`, `s`, `m` (`min`), `h` or `d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

pub(super) fn parse_size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The known word at most two edits away.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        let distance = edit_distance(&word, candidate);
        if distance <= 2 && distance < candidate.len() && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, to) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(usize::MAX);
            let best = (diagonal + usize::from(from != *to)).min(left + 1).min(above + 1);
            diagonal = above;
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            left = best;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_without_a_unit_is_refused() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
        for wrong in ["", "5", "s", "-5s", "1.5s", "5 weeks", "99999999999999999999s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_size_with_an_unknown_unit_is_refused() {
        assert_eq!((parse_size("64KiB"), parse_size("1048576"), parse_size("1GB")), (Some(65_536), Some(1 << 20), Some(1_000_000_000)));
        for wrong in ["", "KiB", "-1", "1.5MiB", "8 Mi", "1e3"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_misspelt_key_is_recognised() {
        assert_eq!(edit_distance("brokres", "brokers"), 2);
        assert_eq!(edit_distance("kafka", "kafka"), 0);
        assert_eq!(nearest("brokres", &["brokers", "group_id"]), Some("brokers"));
        assert_eq!(nearest("zzz", &["brokers", "group_id"]), None);
    }
}
