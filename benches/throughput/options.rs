//! What is run, from the environment.

use std::path::PathBuf;

/// What is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Small counts, and nothing is written into the repository.
    pub is_quick: bool,
    /// Names of tables.
    pub tables: Vec<String>,
    /// How often each contender runs.
    pub rounds: usize,
    /// Records of every topic, where not as the table says.
    pub records: Option<u64>,
    /// The folder of `README.md` and `plots`.
    pub out: PathBuf,
}

/// Tables of `make bench`, in their order.
pub const USUAL: [&str; 8] = ["main", "sizes", "compression", "formats", "gzip", "memory", "latency", "restart"];
/// Tables that are run when they are named.
pub const OTHERS: [&str; 3] = ["tasks", "api", "peers"];
/// Those of them that have a broker of their own, with a thousand topics.
pub const ON_MANY_TOPICS: [&str; 2] = ["tasks", "api"];

impl Options {
    /// `BENCH=quick`, `BENCH_TABLE=NAME,NAME`, `BENCH_ROUNDS`, `BENCH_RECORDS`, `BENCH_OUT`. Panics with the remedy when one is wrong.
    pub fn from_environment() -> Self {
        let is_quick = match text("BENCH").as_deref() {
            None => false,
            Some("quick") => true,
            Some(other) => panic!("BENCH={other}: write quick, or leave it out"),
        };
        let tables = match text("BENCH_TABLE") {
            None => USUAL.map(str::to_owned).to_vec(),
            Some(names) => names.split(',').map(str::to_owned).collect(),
        };
        for table in &tables {
            let is_known = USUAL.iter().chain(&OTHERS).any(|known| known == table);
            assert!(is_known, "BENCH_TABLE: there is no table {table}; there are {} {}", USUAL.join(" "), OTHERS.join(" "));
        }
        let quick_out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench");
        let out = if is_quick { quick_out } else { PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches") };
        Self {
            is_quick,
            tables,
            rounds: number("BENCH_ROUNDS").unwrap_or(if is_quick { 2 } else { 5 }) as usize,
            records: number("BENCH_RECORDS"),
            out: text("BENCH_OUT").map_or(out, PathBuf::from),
        }
    }

    /// Whether a table is wanted.
    pub fn wants(&self, table: &str) -> bool {
        self.tables.iter().any(|wanted| wanted == table)
    }

    /// Records of a topic that has `usual` in a whole run. A quick run reads a tenth.
    pub fn records(&self, usual: u64) -> u64 {
        self.records.unwrap_or(if self.is_quick { usual / 10 } else { usual })
    }

    /// The first of two numbers, or the second in a quick run.
    pub fn pick<T>(&self, whole: T, quick: T) -> T {
        if self.is_quick { quick } else { whole }
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Option<u64> {
    let value = text(name)?;
    let number = value.parse().unwrap_or_else(|_| panic!("{name}={value}: not a number"));
    assert!(number > 0, "{name}=0: nothing would be measured");
    Some(number)
}
