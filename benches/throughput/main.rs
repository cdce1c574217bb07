//! `make bench`, `make bench-tasks`, `make bench-peers`: what it costs to get records from a real Kafka to a `_bulk` endpoint that throws them away.
//!
//! Guarantees that no figure is printed before the number of documents and the sum of their hashes were compared with what the topic holds. Owns its servers, and the parts of `benches/README.md` between
//! markers. Does not judge: the targets stand in the tables, and nothing fails when one is missed, since a busy machine would fail it too.
//!
//! | to find | look in |
//! |---|---|
//! | what is run, and how long | [`options`] |
//! | what the topics hold | [`data`], [`checksum`] |
//! | where the records go | [`endpoint`] |
//! | who is measured, and how | [`contenders`], [`rungs`], [`peers`] |
//! | the tables | [`ladder`], [`latency`], [`restart`], [`tasks`], [`api`] |
//! | fresh records with times | [`probes`] |
//! | clients of the API's stream | [`streams`] |
//! | Markdown and plots | [`report`], [`plot`] |
//! | the machine, and how quiet it was | [`machine`] |

mod api;
mod checksum;
mod contenders;
mod data;
mod endpoint;
#[path = "../../tests/harness/mod.rs"]
mod harness;
mod ladder;
mod latency;
mod machine;
mod options;
mod peers;
mod plot;
mod probes;
mod report;
mod restart;
mod rungs;
mod streams;
mod tasks;

use endpoint::Endpoint;
use harness::kafka::Kafka;
use options::Options;
use tasks::Many;

/// The same allocator as drover's, for the rungs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(position) = arguments.iter().position(|argument| argument == "rung") {
        rungs::run(&arguments[position + 1..]);
        return;
    }
    if let Some(position) = arguments.iter().position(|argument| argument == api::BARE) {
        api::serve_bare(&arguments[position + 1..]);
        return;
    }
    // `cargo test --benches` runs this without `--bench`; then compiling is all that is wanted.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run it as make bench");
        return;
    }
    let options = Options::from_environment();
    let endpoint = Endpoint::start();
    if options.tables.iter().any(|table| !options::ON_MANY_TOPICS.contains(&table.as_str())) {
        let kafka = Kafka::start().unwrap_or_else(|reason| panic!("{reason}"));
        ladder::run(&options, &kafka, &endpoint);
        if options.wants("latency") {
            latency::run(&options, &kafka, &endpoint);
        }
        if options.wants("restart") {
            restart::run(&options, &kafka, &endpoint);
        }
    }
    if options.tables.iter().any(|table| options::ON_MANY_TOPICS.contains(&table.as_str())) {
        let many = Many::start(&options);
        if options.wants("tasks") {
            tasks::run(&options, &many, &endpoint);
        }
        if options.wants("api") {
            api::run(&options, &many, &endpoint);
        }
    }
}
