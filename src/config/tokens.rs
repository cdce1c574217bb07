//! The file with the API's tokens: who may do what. It holds hashes, never a token.
//!
//! Guarantees: every problem of the file is reported at once, with its place and remedy and without the value, which may be a token that was written where its hash belongs; a token has
//! one name, one role and one hash, and none of the names or hashes is given twice; comparing takes as long for a token that is known as for one that is not.
//! Owns the form of a token. Does not look at the file again: that is [`crate::api::tokens_file`]'s.

use std::fmt;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::reader::{Reader, Section};
use super::tree::{self, Node};
use super::{Environment, LoadError, Problem, base_of, read_regular_file};

/// Bytes of the file.
const MAX_BYTES: u64 = 1 << 20;
/// Tokens in the file; each request is compared with all of them.
const MAX_TOKENS: usize = 1000;
/// Characters of a name, which stands in the log and in the log of changes.
const MAX_NAME: usize = 64;
/// What changes are attributed to where there are no tokens.
const NOBODY: &str = "anonymous";
/// What a token begins with, so that scanners for leaked secrets find it.
const TOKEN_PREFIX: &str = "drover_";

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at everything.
    Read,
    /// Change things, too.
    Write,
}

impl Role {
    /// Both, the weaker one first.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    /// The role in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Whose token it is. Two are equal only when the token is the same, too.
#[derive(Clone, PartialEq, Eq)]
pub struct Holder {
    /// The token's name, the actor of what is done with it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    sha256: [u8; 32],
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// The tokens that are in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens(Vec<Holder>);

impl Tokens {
    /// Whose token this is. Every hash is compared to its end, in constant time.
    pub fn holder(&self, token: &[u8]) -> Option<&Holder> {
        let presented: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for holder in &self.0 {
            if bool::from(holder.sha256.ct_eq(&presented)) {
                found = Some(holder);
            }
        }
        found
    }

    /// Whether this holder's token is still in force, with the same name and role.
    pub fn has(&self, holder: &Holder) -> bool {
        self.0.contains(holder)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The tokens of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedTokens {
    /// The tokens.
    pub tokens: Tokens,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub content_hash: String,
}

/// Reads and validates a file.
pub fn load(path: &Path, environment: Environment<'_>) -> Result<LoadedTokens, LoadError> {
    let bytes = read_regular_file(path, MAX_BYTES).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
    let tokens = parse(&bytes, base_of(path), environment).map_err(|problems| LoadError::Invalid { path: path.to_owned(), problems })?;
    Ok(LoadedTokens { tokens, content_hash: hash(&bytes) })
}

/// Validates a file's bytes.
pub fn parse(bytes: &[u8], base: &Path, environment: Environment<'_>) -> Result<Tokens, Vec<Problem>> {
    let root = tree::parse(bytes).map_err(|problem| vec![problem])?;
    let mut reader = Reader::new(base, environment);
    let tokens = read(&mut reader, &root);
    let (mut problems, _) = reader.finish();
    problems.sort_by_key(|problem| (problem.line, problem.column));
    if problems.is_empty() { Ok(Tokens(tokens)) } else { Err(problems) }
}

/// SHA-256 in lower-case hexadecimal, as the file has it.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of a new token: 256 random bits.
pub fn token_of(random: [u8; 32]) -> String {
    use base64::Engine as _;
    format!("{TOKEN_PREFIX}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random))
}

/// A token's name, checked; the error says what is wrong.
pub fn checked_name(name: &str) -> Result<String, &'static str> {
    let is_plain = |character: char| character.is_alphanumeric() || matches!(character, '.' | '_' | '-' | '@' | '/' | ':');
    if name.is_empty() || name.chars().count() > MAX_NAME || !name.chars().all(is_plain) {
        return Err("a name has 1 to 64 letters, digits and . _ - @ / :");
    }
    if name == NOBODY {
        return Err("this name stands for requests without a token");
    }
    Ok(name.to_owned())
}

fn read(reader: &mut Reader<'_>, root: &Node) -> Vec<Holder> {
    let Some(mut top) = reader.section("", root) else { return Vec::new() };
    let place = top.take("tokens");
    reader.refuse_unknown(&top);
    let Some((path, node)) = place else {
        // A file that is being written is empty for a moment, which must not shut everybody out.
        reader.problem(root.problem(
            "tokens",
            "no tokens are named",
            "add tokens: [{name: NAME, role: read, sha256: HASH}], or tokens: [] to let nobody in",
        ));
        return Vec::new();
    };
    let items = reader.list(&path, node);
    if items.len() > MAX_TOKENS {
        reader.problem(node.problem(&path, format!("there are {} tokens", items.len()), format!("at most {MAX_TOKENS} are taken")));
        return Vec::new();
    }
    let mut tokens: Vec<Holder> = Vec::with_capacity(items.len());
    for (path, item) in items {
        let Some(mut section) = reader.section(&path, item) else { continue };
        let Some(holder) = token(reader, &mut section, item) else { continue };
        if tokens.iter().any(|known| known.name == holder.name) {
            reader.problem(item.problem(&section.place_of("name"), "this name is given twice", "give each token a name of its own"));
        }
        if tokens.iter().any(|known| known.sha256 == holder.sha256) {
            reader.problem(item.problem(&section.place_of("sha256"), "this token is given twice", "make a token for each name with `drover token`"));
        }
        tokens.push(holder);
    }
    tokens
}

fn token(reader: &mut Reader<'_>, section: &mut Section<'_>, item: &Node) -> Option<Holder> {
    let mut part = |reader: &mut Reader<'_>, key: &'static str, remedy: &str| {
        let taken = section.take(key);
        if taken.is_none() {
            reader.problem(item.problem(&section.place_of(key), "this is missing", remedy));
        }
        taken
    };
    let name = part(reader, "name", "write name: NAME, by which the log of changes knows who it was");
    let role = part(reader, "role", "write role: read or role: write");
    let hash = part(reader, "sha256", "write sha256: HASH, as `drover token` prints it");
    reader.refuse_unknown(section);
    let name = name.and_then(|(path, node)| {
        let text = reader.text(&path, node)?;
        checked_name(&text).map_err(|detail| reader.problem(node.problem(&path, detail, "write another name"))).ok()
    });
    let role = role.and_then(|(path, node)| {
        let text = reader.text(&path, node)?;
        let known = Role::ALL.into_iter().find(|role| role.as_str() == text);
        if known.is_none() {
            reader.problem(node.problem(&path, "there is no such role", "write read or write"));
        }
        known
    });
    let hash = hash.and_then(|(path, node)| {
        let text = reader.text(&path, node)?;
        let bytes = bytes_of(&text);
        if bytes.is_none() {
            // Not shown: it may be the token.
            let remedy = "write the 64 digits that `drover token` prints, or those of: printf %s \"$TOKEN\" | sha256sum";
            reader.problem(node.problem(&path, "this is no SHA-256 in hexadecimal; it must be the token's hash and never the token", remedy));
        }
        bytes
    });
    Some(Holder { name: name?, role: role?, sha256: hash? })
}

/// 32 bytes from 64 hexadecimal digits, in any case.
fn bytes_of(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "drover_hunter2";

    fn read_text(text: &str) -> Result<Tokens, Vec<Problem>> {
        parse(text.as_bytes(), Path::new("."), &|_| None)
    }

    fn entry(name: &str, role: &str, token: &str) -> String {
        format!("  - {{name: {name}, role: {role}, sha256: {}}}\n", hash(token.as_bytes()))
    }

    fn places(text: &str) -> Vec<String> {
        read_text(text).expect_err(text).into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let tokens = read_text(&format!("tokens:\n{}{}", entry("ci", "write", "one"), entry("grafana", "read", "two"))).expect("legal");
        let name = |token: &[u8]| tokens.holder(token).map(|holder| (holder.name.clone(), holder.role));
        assert_eq!(name(b"one"), Some(("ci".to_owned(), Role::Write)));
        assert_eq!(name(b"two"), Some(("grafana".to_owned(), Role::Read)));
        for wrong in [&b""[..], b"on", b"one ", b"ONE", hash(b"one").as_bytes(), b"ci"] {
            assert_eq!(name(wrong), None, "{wrong:?}");
        }
        let upper = format!("tokens: [{{name: ci, role: write, sha256: {}}}]", hash(b"one").to_uppercase());
        assert!(read_text(&upper).expect("legal").holder(b"one").is_some());
    }

    #[test]
    fn the_hashes_are_not_in_what_debug_shows() {
        let tokens = read_text(&format!("tokens:\n{}", entry("ci", "write", "one"))).expect("legal");
        let shown = format!("{tokens:?}");
        assert!(shown.contains("ci") && !shown.contains(&hash(b"one")) && !shown.contains("0x"), "{shown}");
    }

    #[test]
    fn an_empty_list_lets_nobody_in_and_an_empty_file_is_none() {
        assert!(read_text("tokens: []").expect("legal").is_empty());
        for text in ["", "\n", "tokens:", "tokens: null", "# tokens\n"] {
            assert_eq!(places(text), ["tokens"], "{text:?}");
        }
    }

    #[test]
    fn every_mistake_is_told_at_its_place_without_the_token() {
        let good = hash(b"x");
        for (text, expected) in [
            ("- name: a".to_owned(), vec![""]),
            ("tokens: {a: b}".to_owned(), vec!["tokens"]),
            ("tokens: [a]".to_owned(), vec!["tokens[0]"]),
            ("tokens: [{}]".to_owned(), vec!["tokens[0].name", "tokens[0].role", "tokens[0].sha256"]),
            (format!("tokens: [{{name: a, role: read, sha256: {SECRET}}}]"), vec!["tokens[0].sha256"]),
            (format!("tokens: [{{name: a, role: admin, sha256: {good}}}]"), vec!["tokens[0].role"]),
            (format!("tokens: [{{name: a, role: Read, sha256: {good}}}]"), vec!["tokens[0].role"]),
            (format!("tokens: [{{name: a, role: read, sha256: {good}0}}]"), vec!["tokens[0].sha256"]),
            (format!("tokens: [{{name: a, role: read, sha256: '+{}'}}]", &good[1..]), vec!["tokens[0].sha256"]),
            (format!("tokens: [{{name: 'a b', role: read, sha256: {good}}}]"), vec!["tokens[0].name"]),
            (format!("tokens: [{{name: \"a\\nb\", role: read, sha256: {good}}}]"), vec!["tokens[0].name"]),
            (format!("tokens: [{{name: {}, role: read, sha256: {good}}}]", "a".repeat(65)), vec!["tokens[0].name"]),
            (format!("tokens: [{{name: anonymous, role: read, sha256: {good}}}]"), vec!["tokens[0].name"]),
            (format!("tokens: [{{name: a, role: read, sha256: {good}, token: {SECRET}}}]"), vec!["tokens[0].token"]),
            (format!("tokens: []\ntoken: {SECRET}"), vec!["token"]),
            (format!("tokens:\n{}{}", entry("a", "read", "x"), entry("a", "write", "y")), vec!["tokens[1].name"]),
            (format!("tokens:\n{}{}", entry("a", "read", "x"), entry("b", "write", "x")), vec!["tokens[1].sha256"]),
        ] {
            assert_eq!(places(&text), expected, "{text}");
            let told = format!("{:?}", read_text(&text));
            assert!(!told.contains("hunter2") && !told.contains(&good), "{told}");
        }
    }

    #[test]
    fn more_tokens_than_a_request_should_be_compared_with_are_refused() {
        let many: String = (0..=MAX_TOKENS).map(|number| entry(&format!("t{number}"), "read", &number.to_string())).collect();
        assert_eq!(places(&format!("tokens:\n{many}")), ["tokens"]);
    }

    #[test]
    fn a_hash_may_come_from_the_environment() {
        let text = "tokens: [{name: ci, role: read, sha256: '${CI_HASH}'}]";
        let tokens = parse(text.as_bytes(), Path::new("."), &|name| (name == "CI_HASH").then(|| hash(b"one"))).expect("legal");
        assert!(tokens.holder(b"one").is_some());
    }

    proptest! {
        #[test]
        fn no_other_token_opens(known in "[ -~]{1,40}", other in "[ -~]{0,40}", random in any::<[u8; 32]>()) {
            let tokens = read_text(&format!("tokens:\n{}", entry("a", "read", &known))).expect("legal");
            prop_assert!(tokens.holder(known.as_bytes()).is_some());
            prop_assert_eq!(tokens.holder(other.as_bytes()).is_some(), known == other);
            let made = token_of(random);
            prop_assert!(made.len() == 50 && made.bytes().all(|byte| byte.is_ascii_graphic()));
        }

        #[test]
        fn no_file_panics(text in "(tokens|name|role|sha256|[-:{}\\[\\],'\" \n]|[a-f0-9]{64}|read|write){0,30}") {
            if let Err(problems) = read_text(&text) {
                prop_assert!(problems.iter().all(|problem| !problem.remedy.is_empty()) && !problems.is_empty());
            }
        }
    }
}
