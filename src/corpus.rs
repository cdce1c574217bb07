//! The corpus of bad input (`tests/corpus/KIND/`), for the tests beside the code that reads such input. Tests only.
//!
//! A case is `NAME.in`, the bytes as they are, or `NAME.gen`, a recipe for bytes that are too many to be kept, and beside it `NAME.expected.json`: what has to come of it, in the words of the test of
//! that kind. Guarantees that no file of a folder is left out of account: an input without an expectation, or the other way round, fails the test.
//!
//! The same cases are the seeds of the fuzz tests ([`fuzz`]), which change them in the ways that break parsers, for a few seconds in `cargo test` and for as long as one likes in
//! `make fuzz SECONDS=60`. Every run prints the seed that repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

/// Seconds of each fuzz test in a plain `cargo test`.
const SHORT_RUN: f64 = 2.0;
/// No mutation makes an input longer than this.
const LONGEST_INPUT: usize = 4 << 10;

/// One case.
pub(crate) struct Case {
    /// The file's name without its end.
    pub(crate) name: String,
    /// What the case is about: bytes, or the recipe that they are made from.
    pub(crate) input: Input,
    /// What has to come of it.
    pub(crate) expected: Value,
}

/// What a case is about.
pub(crate) enum Input {
    /// The bytes of `NAME.in`.
    Bytes(Vec<u8>),
    /// The JSON of `NAME.gen`.
    Recipe(Value),
}

impl Case {
    /// The input's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match &self.input {
            Input::Bytes(bytes) => bytes.clone(),
            Input::Recipe(recipe) => bytes_of(recipe),
        }
    }
}

/// All cases of a kind, by name.
pub(crate) fn cases(kind: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind);
    let mut inputs: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut expectations: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(&folder).expect("the folder of the corpus") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8").to_owned();
        let before = if let Some(name) = file.strip_suffix(".expected.json") {
            expectations.insert(name.to_owned(), path)
        } else if let Some(name) = file.strip_suffix(".in").or_else(|| file.strip_suffix(".gen")) {
            inputs.insert(name.to_owned(), path)
        } else {
            panic!("{}: neither NAME.in nor NAME.gen nor NAME.expected.json", path.display());
        };
        assert!(before.is_none(), "{file}: the case has two inputs");
    }
    let names = |paths: &BTreeMap<String, PathBuf>| paths.keys().cloned().collect::<BTreeSet<_>>();
    let alone: Vec<String> = names(&inputs).symmetric_difference(&names(&expectations)).cloned().collect();
    assert!(alone.is_empty(), "cases of {kind} that lack their input or their expectation: {alone:?}");
    assert!(!inputs.is_empty(), "no cases of {kind}");
    let case = |(name, path): (String, PathBuf)| {
        let expected = json(expectations.get(&name).expect("it is not alone"));
        let input = if path.extension().is_some_and(|end| end == "gen") {
            Input::Recipe(json(&path))
        } else {
            Input::Bytes(fs::read(&path).expect("a readable file"))
        };
        Case { name, input, expected }
    };
    inputs.into_iter().map(case).collect()
}

fn json(path: &Path) -> Value {
    let bytes = fs::read(path).expect("a readable file");
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The bytes of a recipe: a list of `{"text": "..."}` or `{"hex": "00ff"}`, each with a number of `times`.
pub(crate) fn bytes_of(recipe: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in recipe.as_array().expect("a list of pieces") {
        let once = match (piece["text"].as_str(), piece["hex"].as_str()) {
            (Some(text), None) => text.as_bytes().to_vec(),
            (None, Some(hex)) => hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("hex")).collect(),
            _ => panic!("neither text nor hex: {piece}"),
        };
        let times = piece["times"].as_u64().unwrap_or(1);
        bytes.extend(once.repeat(usize::try_from(times).expect("a number")));
    }
    bytes
}

/// Gives `check` inputs made from the seeds, until the time is over; with `DROVER_FUZZ_SECONDS` and `DROVER_FUZZ_SEED` another time and a run of before.
///
/// What `check` panics for is printed with the input, so that it can become a case of the corpus.
pub(crate) fn fuzz(target: &str, seeds: &[Vec<u8>], check: impl Fn(&[u8])) {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let seconds = variable("DROVER_FUZZ_SECONDS").map_or(SHORT_RUN, |text| text.parse().expect("DROVER_FUZZ_SECONDS is a number"));
    let seed: u64 = variable("DROVER_FUZZ_SEED").map_or_else(rand::random, |text| text.parse().expect("DROVER_FUZZ_SEED is a number"));
    println!("fuzz {target}: DROVER_FUZZ_SEED={seed} for {seconds} s");
    let mut chance = StdRng::seed_from_u64(seed);
    let seeds: Vec<&[u8]> = seeds.iter().map(|seed| seed.get(..LONGEST_INPUT).unwrap_or(seed)).collect();
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut inputs: u64 = 0;
    while Instant::now() < end {
        let input = mutated(&seeds, &mut chance);
        inputs += 1;
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&input))) else { continue };
        eprintln!("fuzz {target}: DROVER_FUZZ_SEED={seed}, input {inputs}, {} bytes: {:?}", input.len(), String::from_utf8_lossy(&input));
        eprintln!("in hex: {}", input.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        resume_unwind(panic);
    }
    assert!(inputs > 0, "no time for a single input");
    println!("fuzz {target}: {inputs} inputs");
}

/// Texts that parsers trip over.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\r\n",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"-0",
    b"1e400",
    b"18446744073709551616",
    b"{\"index\":{}}\n",
    b"\"error\":null",
    b"\"status\":200",
    b"\"errors\":false",
    b"&a",
    b"*a",
    b"<<: ",
    b"!!binary ",
    b"---\n",
    b"\t",
    b"${X}",
    b"{date:%Y}",
    b"file:",
];

/// A seed with one to six changes.
fn mutated(seeds: &[&[u8]], chance: &mut StdRng) -> Vec<u8> {
    let mut input = seeds[chance.random_range(0..seeds.len())].to_vec();
    for _ in 0..chance.random_range(1..=6) {
        let at = chance.random_range(0..=input.len());
        let end = (at + chance.random_range(0..32)).min(input.len());
        match chance.random_range(0..8) {
            0 if at < input.len() => input[at] ^= 1 << chance.random_range(0..8),
            1 if at < input.len() => input[at] = chance.random(),
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => {
                let again = input[at..end].repeat(chance.random_range(1..4));
                input.splice(at..at, again);
            }
            5 => {
                let other = seeds[chance.random_range(0..seeds.len())];
                let from = chance.random_range(0..=other.len());
                let to = (from + chance.random_range(0..64)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            _ => {
                let token = TOKENS[chance.random_range(0..TOKENS.len())];
                input.splice(at..at, token.iter().copied());
            }
        }
    }
    input.truncate(LONGEST_INPUT);
    input
}
