//! Writing the pieces of a line straight into the body: JSON strings, decimal numbers, base64, times.
//!
//! Guarantees that what is written inside quotes is a legal JSON string without raw control characters, whatever bytes come in. Nothing here allocates besides
//! growing the output.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Bytes that one step of the search looks at; a multiple of every vector width, so that the compiler turns the step into a few vector instructions.
const STEP: usize = 32;
const MILLISECONDS_PER_DAY: i64 = 86_400_000;
const HEX: &[u8; 16] = b"0123456789abcdef";
/// `00` to `99`, one after the other: numbers are written two digits at a time.
const TWO_DIGITS: [[u8; 2]; 100] = two_digits();

/// Whether `byte` may stand in a JSON string only as an escape sequence (RFC 8259, section 7).
const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// How many bytes at the beginning of `bytes` may stand in a JSON string as they are.
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let stops = stops_in(u64::from_le_bytes(*word));
        if stops != 0 {
            return bytes.len() - rest.len() + stops.trailing_zeros() as usize / 8;
        }
        rest = after;
        // Most stretches between two stops are short, and longer steps would only be tried in vain.
        if bytes.len() - rest.len() == STEP {
            rest = skip_plain_steps(rest);
        }
    }
    let tail = rest.iter().position(|&byte| needs_escape(byte)).unwrap_or(rest.len());
    bytes.len() - rest.len() + tail
}

/// Skips whole steps without a stop. Without an early exit inside the step the compiler turns it into a few vector instructions.
fn skip_plain_steps(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let Some((step, after)) = rest.split_first_chunk::<STEP>() {
        if step.iter().fold(false, |found, &byte| found | needs_escape(byte)) {
            break;
        }
        rest = after;
    }
    rest
}

/// The highest bit of each byte of `word` that needs an escape, exact up to the lowest one found and undefined above it: a borrow only runs upwards.
/// The trick is "determine if a word has a byte less than n" of Sean Anderson's Bit Twiddling Hacks.
fn stops_in(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST_BITS: u64 = ONES << 7;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    (below(word, 0x20) | below(quote, 1) | below(backslash, 1)) & HIGHEST_BITS
}

/// Appends `text` as the inside of a JSON string.
pub(super) fn escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let (plain, stop) = rest.split_at(plain_length(rest));
        out.extend_from_slice(plain);
        let Some((&byte, after)) = stop.split_first() else { return };
        escape(out, byte);
        rest = after;
    }
}

/// Appends `text` as a JSON string with its quotes.
pub(super) fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// Appends `bytes` as the inside of a JSON string, with one U+FFFD for each byte that is not part of valid UTF-8.
///
/// This is how Go's `encoding/json` writes strings. `String::from_utf8_lossy` differs: it writes one U+FFFD for several bytes of a character cut short.
pub(super) fn escaped_lossy(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        escaped(out, chunk.valid());
        for _ in chunk.invalid() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

/// Appends `bytes` in base64 (RFC 4648, with padding) as a JSON string with its quotes.
pub(super) fn quoted_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    // The upper bound of the encoded length; `truncate` below takes back what was not needed.
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = out.get_mut(start..).and_then(|room| STANDARD.encode_slice(bytes, room).ok()).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

/// Appends `number` in decimal.
pub(super) fn decimal(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    // u64::MAX has 20 digits.
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    let mut rest = number.unsigned_abs();
    for pair in digits.rchunks_exact_mut(2) {
        pair.copy_from_slice(&two(rest % 100));
        first -= 2;
        rest /= 100;
        if rest == 0 {
            break;
        }
    }
    let written = digits.get(first..).unwrap_or_default();
    out.extend_from_slice(written.strip_prefix(b"0").filter(|tail| !tail.is_empty()).unwrap_or(written));
}

/// Whether there is an LF or a CR, looked for with vectors as wide as the processor has.
pub(super) fn has_line_ends(bytes: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', bytes).is_some()
}

/// Appends `bytes` with spaces in place of line ends: a line end would end the source line.
pub(super) fn without_line_ends(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.extend_from_slice(bytes);
    // Most values have none, and looking for them is cheaper than writing every byte again.
    if !has_line_ends(bytes) {
        return;
    }
    for byte in out.get_mut(start..).unwrap_or_default() {
        *byte = if matches!(*byte, b'\n' | b'\r') { b' ' } else { *byte };
    }
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Writes times as RFC 3339 in UTC with milliseconds. Records that follow each other are mostly of one day, so the day's text is kept.
#[derive(Debug)]
pub(super) struct TimeWriter {
    day: i64,
    /// `1970-01-01T`
    day_text: [u8; 11],
}

impl TimeWriter {
    pub(super) fn new() -> Self {
        Self { day: 0, day_text: *b"1970-01-01T" }
    }

    /// Appends the time, without quotes. Times after the year 9999, which RFC 3339 cannot say, must be sorted out with [`sayable`] before.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, timestamp_ms: i64) {
        let day = timestamp_ms.div_euclid(MILLISECONDS_PER_DAY);
        if day != self.day {
            self.day = day;
            self.day_text = day_text(timestamp_ms);
        }
        let in_day = timestamp_ms.rem_euclid(MILLISECONDS_PER_DAY).unsigned_abs();
        let (seconds, milliseconds) = (in_day / 1000, in_day % 1000);
        let [h1, h2] = two(seconds / 3600);
        let [m1, m2] = two(seconds / 60 % 60);
        let [s1, s2] = two(seconds % 60);
        let [_, f1] = two(milliseconds / 100);
        let [f2, f3] = two(milliseconds % 100);
        out.extend_from_slice(&self.day_text);
        out.extend_from_slice(&[h1, h2, b':', m1, m2, b':', s1, s2, b'.', f1, f2, f3, b'Z']);
    }
}

/// The timestamp if RFC 3339 can say it (years 0 to 9999; `jiff` ends there too). A producer may set any number, for example microseconds, and the index template treats
/// such a record as one without a time.
pub(super) fn sayable(timestamp_ms: Option<i64>) -> Option<i64> {
    timestamp_ms.filter(|&ms| ms >= 0 && Timestamp::from_millisecond(ms).is_ok())
}

fn day_text(timestamp_ms: i64) -> [u8; 11] {
    let date = Timestamp::from_millisecond(timestamp_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC).date();
    let year = u64::from(date.year().unsigned_abs());
    let [y1, y2] = two(year / 100);
    let [y3, y4] = two(year % 100);
    let [m1, m2] = two(u64::from(date.month().unsigned_abs()));
    let [d1, d2] = two(u64::from(date.day().unsigned_abs()));
    [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T']
}

/// The two digits of a number below 100.
fn two(number: u64) -> [u8; 2] {
    usize::try_from(number).ok().and_then(|index| TWO_DIGITS.get(index)).copied().unwrap_or(*b"00")
}

const fn two_digits() -> [[u8; 2]; 100] {
    let mut table = [[b'0'; 2]; 100];
    let mut number = 0;
    while number < 100 {
        table[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn every_control_character_is_escaped() {
        let all: String = (0u8..=0x7f).map(char::from).chain(['\u{80}', '\u{2028}', '\u{2029}', '\u{FFFF}', '😀']).collect();
        let json = written(|out| quoted(out, &all));
        assert!(json.bytes().all(|byte| byte >= 0x20));
        assert_eq!(serde_json::from_str::<String>(&json).expect("a JSON string"), all);
    }

    #[test]
    fn a_character_cut_short_gives_one_replacement_per_byte() {
        let replaced = |bytes: &[u8]| written(|out| escaped_lossy(out, bytes));
        assert_eq!(replaced(b"a\xe2\x82b"), "a\u{FFFD}\u{FFFD}b");
        assert_eq!(replaced(b"\xf0\x9f\x98"), "\u{FFFD}\u{FFFD}\u{FFFD}");
        assert_eq!(replaced(b"\xed\xa0\x80"), "\u{FFFD}\u{FFFD}\u{FFFD}");
        assert_eq!(replaced(b"\xc0\xaf\xff\""), "\u{FFFD}\u{FFFD}\u{FFFD}\\\"");
        assert_eq!(replaced("日".as_bytes()), "日");
    }

    #[test]
    fn numbers_at_the_edges_are_written_whole() {
        for number in [0, 1, 9, 10, 99, 100, 101, 999, 1000, i64::MAX, i64::MIN, -1, -10] {
            assert_eq!(written(|out| decimal(out, number)), number.to_string());
        }
    }

    #[test]
    fn times_that_rfc_3339_cannot_say_are_none() {
        assert_eq!(sayable(Some(1_767_225_600_000_000)), None);
        assert_eq!(sayable(Some(i64::MAX)), None);
        assert_eq!(sayable(Some(-1)), None);
        assert_eq!(sayable(Some(0)), Some(0));
    }

    proptest! {
        #[test]
        fn strings_are_as_serde_writes_them(text in any::<String>()) {
            prop_assert_eq!(written(|out| quoted(out, &text)), serde_json::to_string(&text).expect("a string"));
        }

        #[test]
        fn the_plain_run_ends_exactly_at_the_first_escape(bytes in prop::collection::vec(prop_oneof![8 => 0x20u8..=0x7f, 1 => any::<u8>()], 0..120)) {
            prop_assert_eq!(plain_length(&bytes), bytes.iter().position(|&byte| needs_escape(byte)).unwrap_or(bytes.len()));
        }

        #[test]
        fn numbers_are_as_std_writes_them(number in any::<i64>(), shift in 0..63) {
            let number = number >> shift;
            prop_assert_eq!(written(|out| decimal(out, number)), number.to_string());
        }

        #[test]
        fn base64_decodes_to_the_bytes(bytes in any::<Vec<u8>>()) {
            let text = written(|out| quoted_base64(out, &bytes));
            prop_assert_eq!(STANDARD.decode(text.trim_matches('"')).expect("base64"), bytes);
        }

        #[test]
        fn times_are_as_jiff_writes_them(times in prop::collection::vec(0i64..253_402_207_200_000, 1..5)) {
            let mut writer = TimeWriter::new();
            for time in times {
                prop_assert_eq!(sayable(Some(time)), Some(time));
                let expected = format!("{:.3}", Timestamp::from_millisecond(time).expect("in range"));
                prop_assert_eq!(written(|out| writer.write(out, time)), expected);
            }
        }
    }
}
