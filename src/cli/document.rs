//! What the API answers, as it was sent: a JSON document that keeps the order of its fields.
//!
//! Guarantees that what is printed as JSON or YAML says the same as the API's document, in its order, and holds no raw character that could drive a terminal: such characters are
//! written as escapes, which every reader of the format turns back. Reading a place that is not there gives nothing rather than an error, so that another version of drover can be asked.

use std::fmt;

use jiff::Timestamp;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;

use crate::table;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Document {
    Null,
    Flag(bool),
    Number(Number),
    Text(String),
    List(Vec<Document>),
    Object(Vec<(String, Document)>),
}

impl Document {
    /// The value at a path of field names joined by dots; itself at the empty path, `null` where there is none.
    pub(super) fn at(&self, path: &str) -> &Document {
        const NOTHING: &Document = &Document::Null;
        path.split('.').filter(|name| !name.is_empty()).fold(self, |value, name| match value {
            Self::Object(fields) => fields.iter().find(|(field, _)| field == name).map_or(NOTHING, |(_, inner)| inner),
            _ => NOTHING,
        })
    }

    /// The first of these fields that is not there; all of them are missing where it is no object.
    pub(super) fn lacks(&self, names: &'static [&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|name| !self.fields("").iter().any(|(field, _)| field == name))
    }

    /// The items of a list; none where it is something else.
    pub(super) fn items(&self, path: &str) -> &[Document] {
        match self.at(path) {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The fields of an object; none where it is something else.
    pub(super) fn fields(&self, path: &str) -> &[(String, Document)] {
        match self.at(path) {
            Self::Object(fields) => fields,
            _ => &[],
        }
    }

    /// A text; `None` where it is something else.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        match self.at(path) {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number; `None` where it is something else.
    pub(super) fn number(&self, path: &str) -> Option<i64> {
        match self.at(path) {
            Self::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    /// A cell of a table: texts and numbers as they are, lists and objects as JSON, nothing for `null`.
    pub(super) fn cell(&self, path: &str) -> String {
        match self.at(path) {
            Self::Null => String::new(),
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            other => serde_json::to_string(other).unwrap_or_default(),
        }
    }

    /// A cell with a time, to the second.
    pub(super) fn time(&self, path: &str) -> String {
        match self.text(path).map(|text| (text, text.parse::<Timestamp>())) {
            Some((_, Ok(time))) => format!("{time:.0}"),
            Some((text, Err(_))) => text.to_owned(),
            None => String::new(),
        }
    }

    /// A cell with a fraction, to one digit.
    pub(super) fn fraction(&self, path: &str) -> String {
        match self.at(path) {
            Self::Number(number) => number.as_f64().map(|value| format!("{value:.1}")).unwrap_or_default(),
            _ => String::new(),
        }
    }

    fn has_unsafe_name(&self) -> bool {
        match self {
            Self::List(items) => items.iter().any(Self::has_unsafe_name),
            Self::Object(fields) => fields.iter().any(|(name, value)| name.chars().any(table::is_unsafe) || value.has_unsafe_name()),
            _ => false,
        }
    }

    /// As JSON over several lines, with a line break at its end.
    pub(super) fn json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map(|text| escaped(&text) + "\n").map_err(|error| error.to_string())
    }

    /// As JSON on one line, with a line break at its end.
    pub(super) fn json_line(&self) -> Result<String, String> {
        serde_json::to_string(self).map(|text| escaped(&text) + "\n").map_err(|error| error.to_string())
    }

    /// As YAML, with a line break at its end. A document with a field name that the YAML writer would leave unsafe is written as JSON, which is YAML too.
    pub(super) fn yaml(&self) -> Result<String, String> {
        if self.has_unsafe_name() {
            return self.json();
        }
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        let mut text = String::new();
        serde_saphyr::to_fmt_writer_with_options(&mut text, &Yaml(self), options).map_err(|error| error.to_string())?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(escaped(&text))
    }
}

/// Writes the unsafe characters that a formatter left in its quoted texts as the escapes that JSON and YAML share. Line breaks are the formatter's own.
fn escaped(text: &str) -> String {
    if !text.chars().any(is_left_unsafe) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_left_unsafe(character) {
            // All of them are in the basic plane, so four digits do.
            out.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            out.push(character);
        }
    }
    out
}

fn is_left_unsafe(character: char) -> bool {
    character != '\n' && table::is_unsafe(character)
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(fields) => serializer.collect_map(fields.iter().map(|(name, value)| (name, value))),
        }
    }
}

/// A document on its way to YAML, where texts with unsafe characters have to be quoted before these can be escaped.
struct Yaml<'a>(&'a Document);

impl Serialize for Yaml<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Document::Null => serializer.serialize_none(),
            Document::Flag(flag) => serializer.serialize_bool(*flag),
            Document::Number(number) => yaml_number(number, serializer),
            Document::Text(text) if text.chars().any(table::is_unsafe) => serde_saphyr::DoubleQuoted(text.as_str()).serialize(serializer),
            Document::Text(text) => serializer.serialize_str(text),
            Document::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&Yaml(item))?;
                }
                list.end()
            }
            Document::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, &Yaml(value))?;
                }
                map.end()
            }
        }
    }
}

fn yaml_number<S: Serializer>(number: &Number, serializer: S) -> Result<S::Ok, S::Error> {
    if let Some(whole) = number.as_i64() {
        return serializer.serialize_i64(whole);
    }
    if let Some(whole) = number.as_u64() {
        return serializer.serialize_u64(whole);
    }
    number.as_f64().map_or_else(|| Err(S::Error::custom("a number that is none")), |fraction| serializer.serialize_f64(fraction))
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Document;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Document, E> {
        Ok(Document::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Document, E> {
        Ok(Document::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Document, E> {
        Ok(Document::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Document, E> {
        Number::from_f64(number).map(Document::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Document, E> {
        Ok(Document::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Document, E> {
        Ok(Document::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Document, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Document::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut fields: Vec<(String, Document)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Document>()? {
            if fields.iter().any(|(field, _)| *field == name) {
                return Err(A::Error::custom("a field that is there twice"));
            }
            fields.push((name, value));
        }
        Ok(Document::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Document {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn fields_keep_the_order_of_the_api_and_numbers_their_form() {
        let text = r#"{"b":1,"a":{"z":-2,"y":0.0,"big":18446744073709551615},"c":[null,true,"x"]}"#;
        assert_eq!(read(text).json_line().expect("text"), format!("{text}\n"));
        assert_eq!(read(text).yaml().expect("text"), "b: 1\na:\n  z: -2\n  \"y\": 0.0\n  big: 18446744073709551615\nc:\n- null\n- true\n- x\n");
    }

    #[test]
    fn a_place_that_is_not_there_is_an_empty_cell() {
        let document = read(r#"{"a": {"b": "x", "n": 7, "f": 1.25}, "t": "2026-01-31T00:00:00.5Z"}"#);
        let cells =
            [document.cell("a.b"), document.cell("a.n"), document.fraction("a.f"), document.cell("a.b.c"), document.cell("none"), document.time("t")];
        assert_eq!(cells, ["x", "7", "1.2", "", "", "2026-01-31T00:00:00Z"]);
    }

    #[test]
    fn a_text_cannot_end_its_quotes_or_drive_the_terminal() {
        let document = read(r#"{"k": "a\u001b[2J\u009b1m\nb: c\u202e\u200b\"", "s": "- x", "t": "true"}"#);
        for text in [document.json().expect("text"), document.json_line().expect("text"), document.yaml().expect("text")] {
            assert!(!text.chars().any(is_left_unsafe), "{text:?}");
        }
        assert_eq!(read(&document.json().expect("text")), document);
        assert_eq!(document.yaml().expect("text"), "k: \"a\\e[2J\\x9B1m\\nb: c\\u202e\\u200b\\\"\"\ns: \"- x\"\nt: \"true\"\n");
    }

    #[test]
    fn a_name_that_drives_the_terminal_is_escaped_in_yaml_too() {
        let document = read(r#"{"items": [{"k\u202e\u001b": 1}]}"#);
        let text = document.yaml().expect("text");
        assert!(!text.chars().any(is_left_unsafe), "{text:?}");
        assert_eq!(read(&text), document);
    }

    /// The scalars of a YAML text, in order.
    fn scalars(yaml: &str) -> Vec<String> {
        let events = saphyr_parser::Parser::new_from_str(yaml).map(|event| event.expect("YAML").0);
        let scalar = |event| match event {
            saphyr_parser::Event::Scalar(value, ..) => Some(value.into_owned()),
            _ => None,
        };
        events.filter_map(scalar).collect()
    }

    proptest! {
        #[test]
        fn no_text_is_changed_by_printing_it(text in any::<String>()) {
            let document = Document::Object(vec![("text".to_owned(), Document::Text(text))]);
            let printed = document.json().expect("text");
            prop_assert!(!printed.chars().any(is_left_unsafe));
            prop_assert_eq!(read(&printed), document.clone());
            let yaml = document.yaml().expect("text");
            prop_assert!(!yaml.chars().any(is_left_unsafe));
            prop_assert_eq!(scalars(&yaml), ["text".to_owned(), document.cell("text")]);
        }
    }
}
