//! A YAML document as a tree that keeps positions.
//!
//! Guarantees: every node knows its line and column (from 1); any bytes give a tree or a [`Problem`], never a panic and never more than [`MAX_NODES`] nodes or [`MAX_DEPTH`] levels, however
//! aliases multiply; keys are unique. Errors never quote the text around them, which may hold a password. Knows nothing of drover's fields.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::Problem;

/// Nodes of one document, with every alias counted as what it stands for: well above 100,000 topics, well below what an alias bomb makes.
const MAX_NODES: usize = 2_000_000;
/// Levels of nesting; a configuration needs four.
const MAX_DEPTH: usize = 64;
/// Bytes of one file.
pub(super) const MAX_BYTES: u64 = 16 << 20;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) value: Value,
}

/// What a node holds. Scalars keep their text; whether they were quoted decides if `null` or `true` mean themselves.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Whether the node says nothing: an empty value, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The kind of value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(super) fn problem(&self, path: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem { path: path.to_owned(), line: self.line, column: self.column, detail: detail.into(), remedy: remedy.into() }
    }
}

/// Parses the one document of a file. An empty file is an empty mapping.
pub(super) fn parse(bytes: &[u8]) -> Result<Node, Problem> {
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(whole_file(format!("the file has {} bytes", bytes.len()), format!("keep it below {MAX_BYTES} bytes")));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(whole_file("the file is UTF-16", "save it as UTF-8"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Problem { line: small(line), ..whole_file("the file is not valid UTF-8", "save it as UTF-8") }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(position) = text.find('\0') {
        let line = 1 + text[..position].matches('\n').count();
        return Err(Problem { line: small(line), ..whole_file("the file contains a NUL byte", "remove it; is this a text file?") });
    }
    Builder::default().build(text)
}

fn whole_file(detail: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem { path: String::new(), line: 1, column: 1, detail: detail.into(), remedy: remedy.into() }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A collection that is being filled.
enum Open {
    List { node: Node, anchor: usize, items: Vec<Node> },
    Map { node: Node, anchor: usize, entries: Vec<(Node, Node)>, key: Option<Node> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Extent)>,
    nodes: usize,
    root: Option<Node>,
}

impl Builder {
    fn build(mut self, text: &str) -> Result<Node, Problem> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| Problem {
                path: String::new(),
                line: small(error.marker().line()),
                column: small(error.marker().col() + 1),
                detail: format!("this is not YAML: {}", error.info()),
                remedy: "check the indentation, the quotes and the brackets on this line and the one above".to_owned(),
            })?;
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(at(&span, "a second document begins here", "keep one document in a file: remove the line with ---"));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    if tag.is_some() {
                        return Err(at(&span, "tags are not supported", "remove the tag (the word that begins with !)"));
                    }
                    let node = place(&span, Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain });
                    self.close(node, anchor, 1)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    self.enter(&span, tag.is_some())?;
                    self.open.push(Open::List { node: place(&span, Value::List(Vec::new())), anchor, items: Vec::new() });
                }
                Event::MappingStart(anchor, tag) => {
                    self.enter(&span, tag.is_some())?;
                    self.open.push(Open::Map { node: place(&span, Value::Map(Vec::new())), anchor, entries: Vec::new(), key: None });
                }
                Event::SequenceEnd | Event::MappingEnd => self.leave()?,
                Event::Alias(anchor) => {
                    let Some((target, extent)) = self.anchors.get(&anchor) else {
                        return Err(at(&span, "this alias names no anchor before it", "define the anchor (&name) above, outside of itself"));
                    };
                    let extent = *extent;
                    if self.open.len() + extent.levels > MAX_DEPTH {
                        return Err(at(&span, format!("more than {MAX_DEPTH} levels of nesting"), "a configuration needs four"));
                    }
                    // Counted before it is copied: the copy is what an alias bomb spends.
                    if self.nodes + extent.weight > MAX_NODES {
                        return Err(at(&span, format!("more than {MAX_NODES} values"), "do aliases multiply each other? write the values out"));
                    }
                    let target = target.clone();
                    let node = Node { line: small(span.start.line()), column: small(span.start.col() + 1), ..target };
                    self.close(node, 0, extent.weight)?;
                }
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(self.root.unwrap_or(Node { line: 1, column: 1, value: Value::Map(Vec::new()) }))
    }

    fn enter(&mut self, span: &Span, has_tag: bool) -> Result<(), Problem> {
        if has_tag {
            return Err(at(span, "tags are not supported", "remove the tag (the word that begins with !)"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(at(span, format!("more than {MAX_DEPTH} levels of nesting"), "a configuration needs four"));
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Problem> {
        match self.open.pop() {
            Some(Open::List { node, anchor, items }) => self.close(Node { value: Value::List(items), ..node }, anchor, 1),
            Some(Open::Map { node, anchor, entries, .. }) => {
                let entries = merge_keys(entries)?;
                self.close(Node { value: Value::Map(entries), ..node }, anchor, 1)
            }
            None => Ok(()),
        }
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node, anchor: usize, count: usize) -> Result<(), Problem> {
        // An anchored node is kept a second time, for its aliases.
        let extent = if anchor == 0 { Extent::default() } else { extent_of(&node) };
        self.nodes += count + extent.weight;
        if self.nodes > MAX_NODES {
            return Err(node.problem("", format!("more than {MAX_NODES} values"), "do aliases multiply each other? write the values out"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), extent));
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
        Ok(())
    }
}

/// What copying a tree costs.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    /// Its nodes, a long text counting as several.
    weight: usize,
    /// Lists and mappings inside each other.
    levels: usize,
}

/// Bytes of text that count as one node: about what a node itself takes.
const BYTES_PER_NODE: usize = 64;

/// Bounded by [`MAX_NODES`] and [`MAX_DEPTH`] through the tree's construction.
fn extent_of(node: &Node) -> Extent {
    let inside: Vec<Extent> = match &node.value {
        Value::Scalar { text, .. } => return Extent { weight: 1 + text.len() / BYTES_PER_NODE, levels: 0 },
        Value::List(items) => items.iter().map(extent_of).collect(),
        Value::Map(entries) => entries.iter().flat_map(|(key, value)| [extent_of(key), extent_of(value)]).collect(),
    };
    let weight = 1 + inside.iter().map(|extent| extent.weight).sum::<usize>();
    let levels = 1 + inside.iter().map(|extent| extent.levels).max().unwrap_or(0);
    Extent { weight, levels }
}

/// Checks that keys are scalars and unique, and folds `<<` in: a mapping's own keys win.
fn merge_keys(entries: Vec<(Node, Node)>) -> Result<Vec<(Node, Node)>, Problem> {
    let mut own: Vec<(Node, Node)> = Vec::with_capacity(entries.len());
    let mut merged: Vec<(Node, Node)> = Vec::new();
    let mut lines: HashMap<String, u32> = HashMap::new();
    for (key, value) in entries {
        let Some(text) = key.text().map(str::to_owned) else {
            return Err(key.problem("", "a key is a list or a mapping", "use a word as the key"));
        };
        if text == "<<" && matches!(&key.value, Value::Scalar { plain: true, .. }) {
            match value.value {
                Value::Map(other) => merged.extend(other),
                Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => {
                    for item in items {
                        if let Value::Map(other) = item.value {
                            merged.extend(other);
                        }
                    }
                }
                _ => return Err(key.problem("", "<< takes a mapping or a list of mappings", "give it an alias of a mapping")),
            }
            continue;
        }
        if let Some(first) = lines.insert(text.clone(), key.line) {
            return Err(key.problem(
                &printable(&text),
                format!("'{}' is given twice, first on line {first}", printable(&text)),
                "keep one of the two",
            ));
        }
        own.push((key, value));
    }
    for (key, value) in merged {
        let text = key.text().unwrap_or_default().to_owned();
        if let std::collections::hash_map::Entry::Vacant(vacant) = lines.entry(text) {
            vacant.insert(key.line);
            own.push((key, value));
        }
    }
    Ok(own)
}

/// A key from the file for a message: without control characters, not longer than a line, and only up to `:` or `=`, since `{password:secret}` without a space is one long key.
pub(super) fn printable(text: &str) -> String {
    let word = text.split([':', '=']).next().unwrap_or_default();
    let mut shown: String = word.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if word.len() < text.len() || word.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown
}

fn place(span: &Span, value: Value) -> Node {
    Node { line: small(span.start.line()), column: small(span.start.col() + 1), value }
}

fn at(span: &Span, detail: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem { path: String::new(), line: small(span.start.line()), column: small(span.start.col() + 1), detail: detail.into(), remedy: remedy.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let previous = level - 1;
            let aliases = vec![format!("*a{previous}"); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        let problem = parse(text.as_bytes()).expect_err("a bomb");
        assert!(problem.detail.contains("values"), "{problem:?}");
    }

    #[test]
    fn aliases_that_nest_or_repeat_a_long_text_are_refused() {
        let mut text = String::from("a0: &a0 [x]\n");
        for level in 1..2000 {
            text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert!(parse(text.as_bytes()).expect_err("nests too deep").detail.contains("levels"));

        let long = "x".repeat(1 << 20);
        let aliases = vec!["*long"; 100_000].join(", ");
        let problem = parse(format!("long: &long {long}\nall: [{aliases}]\n").as_bytes()).expect_err("too much text");
        assert!(problem.detail.contains("values"), "{problem:?}");
    }

    #[test]
    fn a_key_that_swallowed_its_value_is_shown_without_it() {
        assert_eq!((printable("password:hunter2"), printable("password=hunter2")), ("password…".to_owned(), "password…".to_owned()));
        assert_eq!((printable("loglevel"), printable("a\u{1b}b")), ("loglevel".to_owned(), "a\u{fffd}b".to_owned()));
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(parse("[".repeat(10_000).as_bytes()).is_err());
        let problem = parse(format!("a: {}1{}", "[".repeat(100), "]".repeat(100)).as_bytes()).expect_err("too deep");
        assert!(problem.detail.contains("levels"), "{problem:?}");
    }

    #[test]
    fn what_is_no_single_utf8_document_is_refused_with_its_line() {
        for (bytes, line) in [
            (&b"a: 1\na: 2\n"[..], 2),
            (b"a: 1\n---\nb: 2\n", 2),
            (b"a: !!binary abcd\n", 1),
            (b"a: 1\nb: \xff\n", 2),
            (b"\xff\xfea\0", 1),
            (b"a: 1\nb: x\0y\n", 2),
            (b"a: *nobody\n", 1),
            (b"a: &a [*a]\n", 1),
            (b"a:\n\t- b\n", 2),
            (b"[a, b]: c\n", 1),
        ] {
            let problem = parse(bytes).expect_err("refused");
            assert_eq!(problem.line, line, "{problem:?}");
        }
    }

    #[test]
    fn a_merged_mapping_yields_to_own_keys() {
        let node = parse(b"base: &base {a: 1, b: 2}\nown:\n  <<: *base\n  b: 3\n").expect("legal");
        let Value::Map(entries) = node.value else { panic!("a mapping") };
        let Value::Map(own) = &entries[1].1.value else { panic!("a mapping") };
        let pairs: Vec<_> = own.iter().map(|(key, value)| (key.text().unwrap_or_default(), value.text().unwrap_or_default())).collect();
        assert_eq!(pairs, [("b", "3"), ("a", "1")]);
    }

    #[test]
    fn a_byte_order_mark_and_carriage_returns_are_fine() {
        let node = parse("\u{feff}a: 1\r\nb: 2\r\n".as_bytes()).expect("legal");
        assert!(matches!(node.value, Value::Map(entries) if entries.len() == 2));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_yaml_like_text_panics(text in "[a-z:\\-\\[\\]{}&*!|>'\"# \\n]{0,200}") {
            let _ = parse(text.as_bytes());
        }
    }
}
