//! What the tests share: real servers without containers, the program as a process, a producer that keeps a ledger, and the checker of drover's promise.
//!
//! Guarantees: every started process ends with the test process, however that one ends (a watchdog per folder); nothing is left in the temporary folder; waiting is always on a
//! condition with a deadline ([`wait::wait_until`]). Owns ports, folders and process ids. Does not decide what a test expects.
//!
//! | to find | look in |
//! |---|---|
//! | waiting | [`wait`] |
//! | folders, ports, processes, signals | [`process`] |
//! | one Kafka, one Elasticsearch, shared by the tests of a binary or held alone | [`servers`] |
//! | topics, offsets, reading back | [`kafka`] |
//! | a private CA and certificates | [`pki`] |
//! | producing with a ledger | [`producer`] |
//! | indices and documents | [`elasticsearch`] |
//! | an etcd of one's own, with one member or three, its faults and keys | [`etcd`] |
//! | cut, delayed, swallowed connections | [`proxy`] |
//! | a node of the sink with answers on demand | [`gate`] |
//! | a coordinator that refuses commits and heartbeats | [`coordinator`] |
//! | complete, single, commit-safe, right content | [`checker`] |
//! | the program under test, as a process | [`drover`] |
//! | the log of one that runs inside the test process | [`log`] |
#![allow(dead_code, reason = "each test target uses its own part")]

pub mod checker;
pub mod coordinator;
pub mod drover;
pub mod elasticsearch;
pub mod etcd;
pub mod gate;
pub mod http;
pub mod kafka;
pub mod log;
pub mod pki;
pub mod process;
pub mod producer;
pub mod proxy;
pub mod servers;
pub mod wait;
