//! drover keeps a set of Kafka topics flowing into Elasticsearch or OpenSearch, with one supervised task per topic and partition and an HTTP control plane beside the
//! pipeline.
//!
//! The promise that judges every decision: every record of a managed topic is indexed, or is in the dead letters with the reason, or was skipped by a policy or a rewind
//! that someone named; nothing is committed before that is true; a restart, a rebalance or a crash repeats work but never a document.
//!
//! # The map
//!
//! ```text
//!  config.yaml ─▶ desired::file ──┐                       complete lists only
//!  etcd keys   ─▶ desired::etcd ──┤
//!  store       ─▶ desired::store ─┴▶ desired::merge ─▶ Desired ─▶ reconcile::plan(desired, actual) ─▶ Plan
//!      ▲ compare-and-swap: api                                                                         │
//!                                                                                                      │
//!                                                     consumer thread ◀─ subscribe, open, commit ──────┤
//!                                                       │ chunks, one mailbox per partition            ▼
//!                             supervisor ── spawn ──▶ partition task: format ─▶ segment ──▶ sink: bulk requests
//!                                │  joins, backoff,      ▲                                    │
//!                                │  watchdog             └── settled / rejected per record ◀──┘
//!                                ▼                             └─▶ watermark ─▶ committed by the consumer thread
//!                         Arc<Snapshot> ─▶ api, metrics
//! ```
//!
//! Down the tree goes complete desired state, never a delta. Up comes an immutable snapshot, never a lock.
//!
//! | to find | look in |
//! |---|---|
//! | what a configuration file may say, and what is said about a wrong one | [`config`] |
//! | names, specs, index templates, document ids, facts | [`topic`] |
//! | which topics are wanted, and which source wins | [`desired`] |
//! | how wanted becomes running | [`reconcile`] |
//! | how a crash is noticed, counted, backed off and restarted | [`supervisor`] |
//! | consuming, assignment, offsets, commits, topic ids | [`kafka`] |
//! | from a record to a document; when a record counts as settled | [`pipeline`] |
//! | bulk requests, what each answer means; files instead of a server | [`sink`] |
//! | records that nobody will take | [`dead_letters`] |
//! | sending them again | [`pipeline::redrive`] |
//! | states, health, reasons, the snapshot | [`status`] |
//! | what must never happen, looked for while it works | [`invariants`] |
//! | an error with its causes on one line | [`causes`] |
//! | the memory budget, and buffers that are used again | [`memory`] |
//! | a part's life on a thread of its own: the consumer, the API | `own_thread` |
//! | mistakes on purpose, by which the fault matrix proves its checker | `mutants` |
//! | the database file under the embedded store, the local dead letters and the restart ledger | `embedded` |
//! | the HTTP API, its problems and its OpenAPI document | [`api`] |
//! | aligned tables, and text from outside made harmless | `table` |
//! | the commands that talk to a server | [`cli`] |
//! | start order, stop order, wiring | [`app`] |
//! | the demo: a cluster in the process, records, what is shown | [`demo`] |
//!
//! Only [`app`] and [`supervisor`] start tasks; every long-running part is an `async fn run`. All of rdkafka ends in [`kafka`], and its `ffi` module is the only one
//! with unsafe code.

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub, rust_2018_idioms)]

pub mod api;
pub mod app;
pub mod causes;
pub mod cli;
pub mod config;
#[cfg(test)]
mod corpus;
pub mod dead_letters;
pub mod demo;
pub mod desired;
mod embedded;
pub mod invariants;
pub mod kafka;
pub mod memory;
mod mutants;
mod own_thread;
pub mod pipeline;
pub mod reconcile;
pub mod sink;
pub mod status;
pub mod supervisor;
mod table;
pub mod topic;
