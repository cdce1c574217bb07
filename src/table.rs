//! Aligned tables and the escaping of text from outside, for the API's plain-text form and for the command line. Pure.
//!
//! Guarantees that a cell holds no control character, line break or character that reorders its neighbours, whatever a topic, a server or a client said; that columns line up under
//! wide characters, counted as terminals do, character by character; that nothing is cut unless [`cut`] is asked to. Tables are for people: upper-case header, two spaces between
//! columns, `-` for what is not known.

use unicode_width::UnicodeWidthChar as _;

/// `text` with every character escaped that could break a line, drive a terminal or reorder its neighbours.
pub(crate) fn escape(text: &str) -> String {
    if !text.chars().any(is_unsafe) {
        return text.to_owned();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_unsafe(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// The first `limit` characters of `text`, escaped; a cut is marked.
pub(crate) fn bounded(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", escape(text.get(..end).unwrap_or_default())),
        None => escape(text),
    }
}

/// `text` in at most `columns` columns once it is escaped, as a table does; a cut is marked.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    let mut ends = Vec::new();
    let mut width = 0;
    for (start, character) in text.char_indices() {
        ends.push((start, width));
        width += if is_unsafe(character) { character.escape_default().count() } else { character.width().unwrap_or(0) };
        if width > columns {
            // The mark takes one column.
            let end = ends.iter().rev().find(|(_, before)| *before < columns).map_or(0, |(start, _)| *start);
            return format!("{}…", text.get(..end).unwrap_or_default());
        }
    }
    text.to_owned()
}

/// Whether a character could break a line, drive a terminal or reorder or hide its neighbours.
pub(crate) fn is_unsafe(character: char) -> bool {
    // Line separators, marks and overrides of direction, zero-width joiners' neighbours, the byte order mark.
    let is_invisible = matches!(character, '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    character.is_control() || is_invisible
}

/// Columns that a text without control characters takes.
fn width_of(text: &str) -> usize {
    text.chars().filter_map(|character| character.width()).sum()
}

/// Rows under a header, aligned.
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns of the widest cell so far, also of rows that were drained.
    widths: Vec<usize>,
    is_header_due: bool,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
        let widths = header.iter().map(|name| width_of(name)).collect();
        Self { header, rows: Vec::new(), widths, is_header_due: true }
    }

    /// Adds a row; cells are escaped, an empty one becomes `-`.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { escape(&cell) };
        let row: Vec<String> = cells.into_iter().map(shown).collect();
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(width_of(cell));
        }
        self.rows.push(row);
    }

    /// Makes columns at least so wide, for rows that come later.
    pub(crate) fn reserve(&mut self, columns: &[usize]) {
        for (width, least) in self.widths.iter_mut().zip(columns) {
            *width = (*width).max(*least);
        }
    }

    /// The whole table as text, each line with its line break.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        for cells in std::iter::once(&self.header).chain(&self.rows) {
            self.line(&mut out, cells, &|_, _| None);
        }
        out
    }

    /// The rows since the last call, the first time under the header. `style` gives the terminal's code for a cell of a column, if it is to have one.
    pub(crate) fn drain(&mut self, style: &dyn Fn(&str, &str) -> Option<&'static str>) -> String {
        let mut out = String::new();
        if self.is_header_due {
            self.line(&mut out, &self.header, &|_, _| None);
            self.is_header_due = false;
        }
        for row in &self.rows {
            self.line(&mut out, row, style);
        }
        self.rows.clear();
        out
    }

    fn line(&self, out: &mut String, cells: &[String], style: &dyn Fn(&str, &str) -> Option<&'static str>) {
        let mut pending = 0;
        for ((cell, width), column) in cells.iter().zip(&self.widths).zip(&self.header) {
            out.extend(std::iter::repeat_n(' ', pending));
            match style(column, cell) {
                Some(code) => out.push_str(&format!("\u{1b}[{code}m{cell}\u{1b}[0m")),
                None => out.push_str(cell),
            }
            pending = width.saturating_sub(width_of(cell)) + 2;
        }
        out.push('\n');
    }
}

/// A cell for a value that may be unknown.
pub(crate) fn cell<T: ToString>(value: Option<T>) -> String {
    value.map(|known| known.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_with_control_characters_cannot_forge_a_row() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["a\nFORGED  running\u{1b}[31m\u{202e}".to_owned(), String::new()]);
        let rendered = table.render();
        assert_eq!(rendered.lines().count(), 2);
        assert!(rendered.contains(r"a\nFORGED  running\u{1b}[31m\u{202e}"), "{rendered}");
        assert!(rendered.ends_with("  -\n"));
    }

    #[test]
    fn wide_characters_do_not_shift_the_next_column() {
        let mut table = Table::new(&["REASON", "N"]);
        table.row(["维护".to_owned(), "1".to_owned()]);
        table.row(["e\u{301}t\u{e9}".to_owned(), "2".to_owned()]);
        assert_eq!(table.render(), "REASON  N\n维护    1\ne\u{301}t\u{e9}     2\n");
    }

    #[test]
    fn colours_do_not_shift_the_next_column_and_the_header_comes_once() {
        let mut table = Table::new(&["STATE", "N"]);
        let red = |column: &str, cell: &str| (column == "STATE" && cell == "down").then_some("31");
        table.row(["down".to_owned(), "down".to_owned()]);
        assert_eq!(table.drain(&red), "STATE  N\n\u{1b}[31mdown\u{1b}[0m   down\n");
        table.row(["up".to_owned(), "2".to_owned()]);
        assert_eq!(table.drain(&red), "up     2\n");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(bounded("日志日志", 2), "日志…");
        assert_eq!(bounded("日志", 2), "日志");
        assert_eq!(cut("日志日志", 5), "日志…");
    }

    proptest! {
        #[test]
        fn no_reason_widens_its_column(text in any::<String>(), columns in 1..100usize) {
            let shown = escape(&cut(&text, columns));
            prop_assert!(width_of(&shown) <= columns, "{shown:?}");
            prop_assert!(shown == escape(&text) || shown.ends_with('…'));
        }

        #[test]
        fn escaped_text_is_one_harmless_line(text in any::<String>()) {
            prop_assert!(!escape(&text).chars().any(is_unsafe));
        }
    }
}
