//! drover keeps Kafka topics flowing into Elasticsearch or OpenSearch.
pub mod dead_letters;
pub mod kafka;
pub mod sink;
pub mod status;
pub mod topic;
