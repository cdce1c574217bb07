//! The plain-text form: which form a client accepts, aligned tables, and the escaping of text from outside.
//!
//! Guarantees that a table's cell and a log's field hold no control character, line break or character that reorders its neighbours, whatever a topic, a server or a client
//! said. Tables are for people: upper-case header, two spaces between columns, `-` for what is not known.

use axum::http::{HeaderMap, header};

use super::ProblemCode;
use super::problem::ApiError;

/// The media type of tables and probes.
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// A form that an answer can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/json`.
    Json,
    /// `text/plain`.
    Text,
}

impl Form {
    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application", "json"),
            Self::Text => ("text", "plain"),
        }
    }
}

/// The form that the client likes best; the first offer without an `Accept`, 406 when it accepts none.
pub(super) fn negotiate(headers: &HeaderMap, offers: &[Form]) -> Result<Form, ApiError> {
    preferred(headers, offers).ok_or_else(|| {
        let names: Vec<String> = offers.iter().map(|form| format!("{}/{}", form.media_type().0, form.media_type().1)).collect();
        ApiError::new(ProblemCode::NotAcceptable, format!("this path answers with {}", names.join(" or ")))
    })
}

/// The form that the client likes best, by RFC 9110's rules: the most specific range decides an offer's weight; equal weights go by the order of the offers.
pub(super) fn preferred(headers: &HeaderMap, offers: &[Form]) -> Option<Form> {
    let values: Vec<&str> = headers.get_all(header::ACCEPT).iter().map(|value| value.to_str().unwrap_or("unreadable")).collect();
    let accept = values.join(",");
    if accept.trim().is_empty() {
        return offers.first().copied();
    }
    let mut best: Option<(u16, Form)> = None;
    for offer in offers {
        let weight = weight_of(&accept, *offer);
        if weight > 0 && best.is_none_or(|(highest, _)| weight > highest) {
            best = Some((weight, *offer));
        }
    }
    best.map(|(_, form)| form)
}

/// The weight, 0 to 1000, that an `Accept` gives to a form.
fn weight_of(accept: &str, form: Form) -> u16 {
    let (kind, subtype) = form.media_type();
    let mut best = (0u8, 0u16);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specificity = match media_range.split_once('/') {
            Some((range_kind, range_subtype)) if range_kind == kind && range_subtype == subtype => 3,
            Some((range_kind, "*")) if range_kind == kind => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let quality = parts.find_map(|parameter| parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))).map_or(1000, quality);
        if specificity > best.0 {
            best = (specificity, quality);
        }
    }
    best.1
}

/// A quality value in thousandths; what is none counts as not accepted.
fn quality(text: &str) -> u16 {
    match text.parse::<f32>() {
        // Between 0 and 1000, so the cast is exact.
        Ok(value) if (0.0..=1.0).contains(&value) => (value * 1000.0).round() as u16,
        _ => 0,
    }
}

/// `text` with every character escaped that could break a line, drive a terminal or reorder its neighbours.
pub(super) fn escape(text: &str) -> String {
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
pub(super) fn bounded(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", escape(text.get(..end).unwrap_or_default())),
        None => escape(text),
    }
}

/// `text` in at most `columns` characters once it is escaped, as a table does; a cut is marked.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let mut ends = Vec::new();
    let mut width = 0;
    for (start, character) in text.char_indices() {
        ends.push((start, width));
        width += if is_unsafe(character) { character.escape_default().count() } else { 1 };
        if width > columns {
            // The mark takes one column.
            let end = ends.iter().rev().find(|(_, before)| *before < columns).map_or(0, |(start, _)| *start);
            return format!("{}…", text.get(..end).unwrap_or_default());
        }
    }
    text.to_owned()
}

fn is_unsafe(character: char) -> bool {
    // Line separators, marks and overrides of direction, zero-width joiners' neighbours, the byte order mark.
    let is_invisible = matches!(character, '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    character.is_control() || is_invisible
}

/// Rows under a header, aligned.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|name| (*name).to_owned()).collect()] }
    }

    /// Adds a row; cells are escaped, an empty one becomes `-`.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { escape(&cell) };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0usize; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A cell for a value that may be unknown.
pub(super) fn cell<T: ToString>(value: Option<T>) -> String {
    value.map(|known| known.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn accepting(accept: &str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).expect("a header"));
        preferred(&headers, &[Form::Json, Form::Text])
    }

    #[test]
    fn a_client_gets_the_form_it_prefers() {
        for (accept, form) in [
            ("*/*", Some(Form::Json)),
            ("", Some(Form::Json)),
            ("text/plain", Some(Form::Text)),
            ("TEXT/PLAIN; charset=utf-8", Some(Form::Text)),
            ("text/*", Some(Form::Text)),
            ("text/plain;q=0.5, application/json;q=0.4", Some(Form::Text)),
            ("application/json;q=0, */*", Some(Form::Text)),
            ("*/*, application/json;q=0", Some(Form::Text)),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(Form::Json)),
            ("image/png", None),
            ("garbage", None),
            ("application/json;q=2", None),
            ("application/json;q=0", None),
        ] {
            assert_eq!(accepting(accept), form, "{accept}");
        }
    }

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
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(bounded("日志日志", 2), "日志…");
        assert_eq!(bounded("日志", 2), "日志");
    }

    proptest! {
        #[test]
        fn no_reason_widens_its_column(text in any::<String>(), columns in 1..100usize) {
            let shown = escape(&cut(&text, columns));
            prop_assert!(shown.chars().count() <= columns, "{shown:?}");
            prop_assert!(shown == escape(&text) || shown.ends_with('…'));
        }

        #[test]
        fn escaped_text_is_one_harmless_line(text in any::<String>()) {
            prop_assert!(!escape(&text).chars().any(is_unsafe));
        }

        #[test]
        fn no_accept_header_panics(accept in "[ -~]{0,60}") {
            let _ = accepting(&accept);
        }
    }
}
