//! The lines of a replayable bulk file: action line, source line, in pairs.
//!
//! Guarantees that a folder's name is one legal part of a path whatever an action line says; that runs of items cover their segment exactly; and that a pair counts as whole only when both lines
//! end and the first one names an index and an id. Owns that rule, for cutting torn files and for reading them again. Does not parse sources: what is in them is for the server to judge.

use std::io::{self, BufRead, Read as _};
use std::ops::Range;

use memchr::{memchr, memmem};
use serde::Deserialize;

/// The longest line that is read: more than a Kafka record may have by default a hundred times over, and than any server takes.
const LONGEST_LINE: u64 = 256 << 20;
/// What stands before the id in an action line. The quotes cannot stand in a JSON string as they are, so this is no part of a name.
const BEFORE_ID: &[u8] = b",\"_id\":\"";

/// What an action line names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Action {
    /// The index.
    #[serde(rename = "_index")]
    pub(crate) index: String,
    /// The document's id.
    #[serde(rename = "_id")]
    pub(crate) id: String,
}

#[derive(Deserialize)]
struct ActionLine {
    #[serde(alias = "create")]
    index: Action,
}

/// Reads an action line, with or without its LF; `None` when it is none with an index and an id.
pub(crate) fn action(line: &[u8]) -> Option<Action> {
    serde_json::from_slice::<ActionLine>(line).ok().map(|line| line.index)
}

/// The action of an item, which is an action line and a source line.
pub(crate) fn action_of_item(item: &[u8]) -> Option<Action> {
    action(item.get(..memchr(b'\n', item)?)?)
}

/// The folder for an index: its name, which is folded already, made one visible part of a path if it were none.
pub(crate) fn folder(index: &str) -> String {
    let safe: String = index.chars().map(|c| if c == '/' || c == '\\' || c.is_control() { '_' } else { c }).collect();
    if safe.is_empty() || safe.starts_with('.') { format!("_{safe}") } else { safe }
}

/// Consecutive items of one segment that go to one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The folder.
    pub(super) folder: String,
    /// The number of the first item in its segment.
    pub(super) first: u32,
    /// How many items.
    pub(super) items: usize,
    /// Their bytes in the segment's body.
    pub(super) bytes: Range<usize>,
}

/// Divides a segment's items by folder; `None` when one of them is no action line and source line. `ends` describe `body`.
pub(super) fn runs(body: &[u8], ends: &[u32]) -> Option<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut head: &[u8] = b"";
    let mut start = 0;
    for (number, end) in (0_u32..).zip(ends) {
        let end = *end as usize;
        let item = body.get(start..end)?;
        // Items of a task differ after their index, so that one look at a line serves all that follow.
        let continued = runs.last_mut().filter(|_| !head.is_empty() && item.starts_with(head));
        match continued {
            Some(run) => {
                run.items += 1;
                run.bytes.end = end;
            }
            None => {
                let name = folder(&action_of_item(item)?.index);
                head = before_id(item);
                match runs.last_mut().filter(|run| run.folder == name) {
                    Some(run) => {
                        run.items += 1;
                        run.bytes.end = end;
                    }
                    None => runs.push(Run { folder: name, first: number, items: 1, bytes: start..end }),
                }
            }
        }
        start = end;
    }
    Some(runs)
}

/// An item's bytes up to its id, if they name its index; else nothing.
fn before_id(item: &[u8]) -> &[u8] {
    let line = memchr(b'\n', item).and_then(|end| item.get(..end)).unwrap_or_default();
    let head = memmem::find(line, BEFORE_ID).and_then(|at| line.get(..at + BEFORE_ID.len())).unwrap_or_default();
    if memmem::find(head, b"{\"_index\":\"").is_some() { head } else { b"" }
}

/// What [`Pairs::next`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A whole pair.
    Pair,
    /// The end, right after a whole pair.
    End,
    /// Something that is no whole pair: a torn tail, or a file that drover did not write.
    Broken,
}

/// Reads pairs one after the other.
#[derive(Debug)]
pub(crate) struct Pairs<R> {
    input: R,
    offset: u64,
    lines: u64,
}

impl<R: BufRead> Pairs<R> {
    /// Pairs from the beginning of a file.
    pub(crate) fn new(input: R) -> Self {
        Self { input, offset: 0, lines: 0 }
    }

    /// Where the last whole pair ends, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// How many lines there are up to there.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Appends the next whole pair to `into`, or nothing.
    pub(crate) fn next(&mut self, into: &mut Vec<u8>) -> io::Result<Step> {
        let start = into.len();
        let step = self.read_pair(into);
        if !matches!(step, Ok(Step::Pair)) {
            into.truncate(start);
        }
        step
    }

    fn read_pair(&mut self, into: &mut Vec<u8>) -> io::Result<Step> {
        let start = into.len();
        if self.read_line(into)? == 0 {
            return Ok(Step::End);
        }
        let middle = into.len();
        let is_action = into.get(start..).is_some_and(|line| line.ends_with(b"\n") && action(line).is_some());
        if !is_action {
            return Ok(Step::Broken);
        }
        self.read_line(into)?;
        let is_source = into.get(middle..).is_some_and(is_source);
        if !is_source {
            return Ok(Step::Broken);
        }
        self.offset += (into.len() - start) as u64;
        self.lines += 2;
        Ok(Step::Pair)
    }

    fn read_line(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        self.input.by_ref().take(LONGEST_LINE).read_until(b'\n', into)
    }
}

/// Whether a line can be a source: an object in braces, and ended.
fn is_source(line: &[u8]) -> bool {
    let object = line.trim_ascii();
    line.ends_with(b"\n") && object.starts_with(b"{") && object.ends_with(b"}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(index: &str, id: &str, source: &str) -> String {
        format!("{{\"index\":{{\"_index\":{},\"_id\":{}}}}}\n{source}\n", serde_json::json!(index), serde_json::json!(id))
    }

    fn segment(items: &[String]) -> (Vec<u8>, Vec<u32>) {
        let mut ends = Vec::new();
        let mut body = Vec::new();
        for item in items {
            body.extend_from_slice(item.as_bytes());
            ends.push(body.len() as u32);
        }
        (body, ends)
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_made_harmless() {
        for (index, expected) in
            [("orders", "orders"), ("..", "_.."), (".", "_."), ("", "_"), ("../x", "_.._x"), ("a/b", "a_b"), ("a\0b", "a_b"), (".lock", "_.lock")]
        {
            assert_eq!(folder(index), expected, "{index:?}");
        }
    }

    #[test]
    fn items_of_another_index_are_not_taken_for_the_ones_before() {
        let items = [item("a", "1", "{}"), item("a", "2", "{}"), item("ab", "3", "{}"), item("a", "4", "{}")];
        let (body, ends) = segment(&items);
        let found: Vec<(String, u32, usize)> = runs(&body, &ends).expect("legal").into_iter().map(|run| (run.folder, run.first, run.items)).collect();
        assert_eq!(found, [("a".to_owned(), 0, 2), ("ab".to_owned(), 2, 1), ("a".to_owned(), 3, 1)]);
    }

    #[test]
    fn an_index_named_after_the_id_is_still_found() {
        let lines =
            ["{\"create\":{\"_id\":\"1\",\"_index\":\"a\"}}\n{}\n".to_owned(), "{\"create\":{\"_id\":\"1\",\"_index\":\"b\"}}\n{}\n".to_owned()];
        let (body, ends) = segment(&lines);
        let folders: Vec<String> = runs(&body, &ends).expect("legal").into_iter().map(|run| run.folder).collect();
        assert_eq!(folders, ["a", "b"]);
    }

    #[test]
    fn a_segment_of_something_else_is_noticed() {
        assert_eq!(runs(b"{}\n{}\n", &[6]), None);
        assert_eq!(runs(b"no line", &[7]), None);
    }

    /// How the pairs of a text end, where the last whole one ends, and how many lines that is.
    fn walk(text: &[u8]) -> (Step, u64, u64) {
        let mut pairs = Pairs::new(text);
        let mut read = Vec::new();
        loop {
            match pairs.next(&mut read).expect("readable") {
                Step::Pair => {}
                end => {
                    assert_eq!(read.len() as u64, pairs.offset());
                    return (end, pairs.offset(), pairs.lines());
                }
            }
        }
    }

    #[test]
    fn what_is_no_pair_is_not_read_as_one() {
        let whole = item("a", "1", " {\"a\":\"\0\"} ");
        let length = whole.len() as u64;
        assert_eq!(walk(whole.as_bytes()), (Step::End, length, 2));
        for tail in [
            "x",
            "\n",
            "{}\n{}\n",
            "\0\0\0\0",
            "{\"index\":{\"_index\":\"a\",\"_id\":\"2\"}}\nnot an object\n",
            "{\"index\":{\"_index\":\"a\"}}\n{}\n",
        ] {
            assert_eq!(walk(format!("{whole}{tail}").as_bytes()), (Step::Broken, length, 2), "{tail:?}");
        }
    }

    proptest! {
        #[test]
        fn a_file_cut_anywhere_keeps_its_whole_pairs(ids in prop::collection::vec("[a-z]{1,9}", 1..9), cut in 0usize..600) {
            let items: Vec<String> = ids.iter().map(|id| item("orders", id, &format!("{{\"id\":\"{id}\"}}"))).collect();
            let (body, ends) = segment(&items);
            let cut = cut.min(body.len());
            let expected = ends.iter().map(|end| u64::from(*end)).rfind(|end| *end <= cut as u64).unwrap_or(0);
            let (step, offset, _) = walk(&body[..cut]);
            prop_assert_eq!(offset, expected);
            prop_assert_eq!(step == Step::End, expected == cut as u64);
        }

        #[test]
        fn runs_cover_every_item_once(indices in prop::collection::vec("[ab./\"]{1,2}", 1..20)) {
            let items: Vec<String> = indices.iter().enumerate().map(|(number, index)| item(index, &number.to_string(), "{}")).collect();
            let (body, ends) = segment(&items);
            let mut next = (0, 0);
            for run in runs(&body, &ends).expect("legal") {
                prop_assert_eq!((run.first as usize, run.bytes.start), next);
                for index in &indices[next.0..next.0 + run.items] {
                    prop_assert_eq!(&folder(index), &run.folder);
                }
                next = (next.0 + run.items, run.bytes.end);
            }
            prop_assert_eq!(next, (indices.len(), body.len()));
        }
    }
}
