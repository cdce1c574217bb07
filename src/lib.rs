//! drover keeps Kafka topics flowing into Elasticsearch or OpenSearch.
pub mod topic;
