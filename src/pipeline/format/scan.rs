//! One pass over a JSON object: is it one, and what is at its top level?
//!
//! Guarantees to accept exactly the objects of RFC 8259 that nest at most [`MAX_DEPTH`] deep, and never to allocate on objects whose top-level names have no escapes.
//! Does not check that strings are UTF-8: who needs that checks the whole first. `serde_json` with `IgnoredAny` gives the same verdict in the
//! same time (a test compares the verdicts), but has no depth limit there, and looking at the names would take a second pass.

use super::write::plain_length;

/// Levels of arrays and objects. As `serde_json`'s own limit; the servers' parsers end at 1000 (Jackson's `StreamReadConstraints`), their mappings at 20
/// (`index.mapping.depth.limit`).
const MAX_DEPTH: u32 = 128;

/// What was found in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ObjectFacts {
    /// It has no fields.
    pub(super) is_empty: bool,
    /// It has a field with the name that was asked for.
    pub(super) has_field: bool,
}

/// Reads `text` as one JSON object with nothing but white space around it; `None` when it is none. `field` is looked for at the top level.
pub(super) fn scan_object(text: &[u8], field: &str) -> Option<ObjectFacts> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.skip_white();
    scanner.take(b'{')?;
    let mut facts = ObjectFacts { is_empty: true, has_field: false };
    scanner.members(MAX_DEPTH - 1, |name| {
        facts.is_empty = false;
        facts.has_field |= names(name, field);
    })?;
    scanner.skip_white();
    scanner.rest().is_empty().then_some(facts)
}

/// Whether the inside of a JSON string says `field`.
fn names(inside: &[u8], field: &str) -> bool {
    if !inside.contains(&b'\\') {
        return inside == field.as_bytes();
    }
    let quoted = [b"\"", inside, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).is_ok_and(|name| name == field)
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

/// Every method takes one piece of grammar off the front, or returns `None` where it is not there.
impl<'a> Scanner<'a> {
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// What is not read yet.
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn take_if(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    fn skip_white(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.next();
        }
    }

    /// The rest of an object after its `{`. `levels` is how many more levels may be opened inside.
    fn members(&mut self, levels: u32, mut on_name: impl FnMut(&'a [u8])) -> Option<()> {
        self.skip_white();
        if self.take_if(b'}') {
            return Some(());
        }
        loop {
            self.skip_white();
            self.take(b'"')?;
            on_name(self.string()?);
            self.skip_white();
            self.take(b':')?;
            self.value(levels)?;
            if self.ends(b'}')? {
                return Some(());
            }
        }
    }

    /// The rest of an array after its `[`.
    fn elements(&mut self, levels: u32) -> Option<()> {
        self.skip_white();
        if self.take_if(b']') {
            return Some(());
        }
        loop {
            self.value(levels)?;
            if self.ends(b']')? {
                return Some(());
            }
        }
    }

    /// Whether `close` follows; otherwise a comma has to.
    fn ends(&mut self, close: u8) -> Option<bool> {
        self.skip_white();
        match self.next()? {
            b',' => Some(false),
            byte => (byte == close).then_some(true),
        }
    }

    fn value(&mut self, levels: u32) -> Option<()> {
        self.skip_white();
        match self.next()? {
            b'"' => self.string().map(|_| ()),
            b'{' => self.members(levels.checked_sub(1)?, |_| ()),
            b'[' => self.elements(levels.checked_sub(1)?),
            b't' => self.word(b"rue"),
            b'f' => self.word(b"alse"),
            b'n' => self.word(b"ull"),
            b'-' => {
                let digit = self.next()?;
                self.number(digit)
            }
            digit => self.number(digit),
        }
    }

    fn word(&mut self, tail: &[u8]) -> Option<()> {
        self.at += tail.len();
        self.text.get(..self.at)?.ends_with(tail).then_some(())
    }

    /// A number whose first digit was taken.
    fn number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.take_if(b'.') {
            self.digits()?;
        }
        if self.take_if(b'e') || self.take_if(b'E') {
            let _signed = self.take_if(b'+') || self.take_if(b'-');
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        self.next()?.is_ascii_digit().then(|| self.skip_digits())
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.next();
        }
    }

    /// The inside of a string after its opening quote; the closing one is taken too.
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        loop {
            self.at += plain_length(self.rest());
            match self.next()? {
                b'"' => return self.text.get(start..self.at - 1),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.rest().first_chunk::<4>()?;
                self.at += digits.len();
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn facts(text: &str) -> Option<(bool, bool)> {
        scan_object(text.as_bytes(), "kafka").map(|facts| (facts.is_empty, facts.has_field))
    }

    /// The other parser's verdict: an object or not.
    fn serde_says(text: &str) -> bool {
        text.trim_start_matches([' ', '\n', '\t', '\r']).starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    #[test]
    fn only_the_top_level_counts() {
        assert_eq!(facts(" {} "), Some((true, false)));
        assert_eq!(facts(r#"{"a": {"kafka": 1}, "b": ["kafka"]}"#), Some((false, false)));
        assert_eq!(facts(r#"{"a": "kafka", "kafka": null}"#), Some((false, true)));
    }

    #[test]
    fn an_escaped_name_is_still_the_name() {
        assert_eq!(facts(r#"{"\u006bafka": 1}"#), Some((false, true)));
        assert_eq!(facts(r#"{"\u006bafk": 1, "\ud800": 2}"#), Some((false, false)));
    }

    #[test]
    fn what_is_no_single_object_is_refused() {
        let refused = [
            "",
            " ",
            "{",
            "}",
            "{}{}",
            "{} x",
            "[]",
            "1",
            "null",
            r#""{}""#,
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{a:1}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.1}"#,
            r#"{"a":1e}"#,
            r#"{"a":+1}"#,
            r#"{"a":-}"#,
            r#"{"a":NaN}"#,
            r#"{"a":tru}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[1 2]}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            r#"{"a":"\u12"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":"b}"#,
            "\u{feff}{}",
            r#"{"a":1]"#,
            r#"{"a":[1}"#,
        ];
        for text in refused {
            assert_eq!(facts(text), None, "{text}");
            assert!(!serde_says(text), "{text}");
        }
    }

    #[test]
    fn nesting_without_end_is_refused_before_the_stack_is() {
        let nested = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        assert!(facts(&nested(128)).is_some());
        assert_eq!(facts(&nested(129)), None);
        assert_eq!(facts(&format!("{{\"a\":{}", "[".repeat(1_000_000))), None);
    }

    /// Text that is often JSON and often just misses it.
    fn nearly_json() -> impl Strategy<Value = String> {
        let tokens = [
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"a\"",
            "\"kafka\"",
            "1",
            "-0.5e+3",
            "0",
            "true",
            "null",
            "\"\\u00e9\\n\"",
            " ",
            "\n",
            "\"",
            "\\",
            "é",
            "-",
            "e",
        ];
        let noise = prop::collection::vec(prop::sample::select(tokens.to_vec()), 0..12).prop_map(|parts| parts.concat());
        let inner = noise.clone();
        let field = ("[a-k\\\\\"é ]{0,6}", inner).prop_map(|(name, value)| format!("{}:{value}", serde_json::to_string(&name).expect("a string")));
        let object = prop::collection::vec(field, 0..3).prop_map(|fields| format!("{{{}}}", fields.join(",")));
        prop_oneof![noise, object]
    }

    fn json_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let name = prop_oneof![4 => any::<String>(), 1 => Just("kafka".to_owned())];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(name, inner, 0..4).prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_verdict_is_serdes(text in nearly_json()) {
            prop_assert_eq!(facts(&text).is_some(), serde_says(&text));
        }

        #[test]
        fn what_serde_writes_is_understood(value in json_value(), pretty in any::<bool>()) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let expected = value.as_object().map(|fields| (fields.is_empty(), fields.contains_key("kafka")));
            prop_assert_eq!(facts(&text), expected);
        }

        #[test]
        fn no_bytes_make_it_panic_or_lie(bytes in any::<Vec<u8>>()) {
            let object = [b"{\"a\":", &bytes[..], b"}"].concat();
            for text in [bytes, object] {
                let utf8_says = std::str::from_utf8(&text).ok().map(serde_says);
                prop_assert!(utf8_says.is_none_or(|verdict| verdict == scan_object(&text, "kafka").is_some()));
            }
        }
    }
}
