//! The table of latency: how long a fresh record takes, while little happens and beside a backlog.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::contenders;
use crate::data::{self, DataSet, JSON_300, PARTITIONS};
use crate::endpoint::{Content, Endpoint};
use crate::harness::drover::Drover;
use crate::harness::elasticsearch::{Elasticsearch, Product};
use crate::harness::kafka::Kafka;
use crate::harness::wait::wait_until;
use crate::machine::Busy;
use crate::options::Options;
use crate::plot::{Bar, Panel};
use crate::probes::Probes;
use crate::report::{self, Section, Spread, Table};

/// Records a second of the trickle.
const TRICKLE: u32 = 10;
/// Records a second beside the backlog: enough of them within the seconds that it lasts.
const BESIDE_BACKLOG: u32 = 200;
/// The backlog; twice the main table's, so that it lasts.
const BACKLOG: DataSet = DataSet { topic: "backlog", records: 6_000_000, ..JSON_300 };
/// Between two looks at the index.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ENOUGH: Duration = Duration::from_secs(300);

/// One row's samples.
struct Row {
    name: &'static str,
    seconds: Vec<f64>,
    foreign: f64,
}

/// Runs the table.
pub fn run(options: &Options, kafka: &Kafka, endpoint: &Endpoint) {
    let rows = vec![
        trickle("10/s, as configured by default", "250ms", options, kafka, endpoint),
        trickle("10/s, `linger: 10ms`", "10ms", options, kafka, endpoint),
        beside_backlog("200/s beside a backlog of another topic", options, kafka, endpoint),
        searchable("10/s, until a search of Elasticsearch 8 finds it", options, kafka),
    ];
    let mut table = Table::new(&["records", "p50 ms", "p99 ms", "lowest ms", "highest ms", "samples"]);
    let mut panel = Panel { title: "Milliseconds until acknowledged: p50, the line from lowest to p99".to_owned(), decimals: 0, bars: Vec::new() };
    for row in &rows {
        let (half, most) = (quantile(&row.seconds, 0.5) * 1e3, quantile(&row.seconds, 0.99) * 1e3);
        let (lowest, highest) = (quantile(&row.seconds, 0.0) * 1e3, quantile(&row.seconds, 1.0) * 1e3);
        let texts = [half, most, lowest, highest].map(|value| format!("{value:.0}"));
        let mut cells = vec![row.name.to_owned()];
        cells.extend(texts);
        cells.push(row.seconds.len().to_string());
        table.row(cells);
        let value = Spread { median: half, lowest, highest: most };
        panel.bars.push(Bar { label: row.name.replace('`', ""), value, is_ours: true });
    }
    let notes = "From just before the producer is given the record to the moment when the answer to its bulk request has been written; in the last row to the first search, one every 20 ms, that finds it, with \
                 the index's refresh interval of 1 s. The backlog is the main table's data, read once and then rewound; counted are the records that were sent before it was read again.";
    let foreign = rows.iter().map(|row| row.foreign).fold(0.0, f64::max);
    report::publish(&Section { name: "latency", table, notes: notes.to_owned(), panels: vec![panel], foreign }, options);
}

/// The value that this share of the values does not pass.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = (share * (sorted.len() - 1) as f64).round() as usize;
    sorted[position]
}

fn config(kafka: &Kafka, url: &str, group: &str, linger: &str, topics: &[&str]) -> String {
    let topics: String = topics.iter().map(|topic| format!("  - {{topic: {topic}, format: json}}\n")).collect();
    let bootstrap = kafka.bootstrap();
    format!(
        "kafka: {{brokers: [\"{bootstrap}\"], group_id: {group}}}\nelasticsearch: {{urls: [\"{url}\"], bulk: {{linger: {linger}}}}}\ntopics:\n{topics}"
    )
}

fn trickle(name: &'static str, linger: &str, options: &Options, kafka: &Kafka, endpoint: &Endpoint) -> Row {
    let topic = format!("trickle-{linger}");
    kafka.create_topic(&topic, PARTITIONS);
    endpoint.reset(Content::Whole);
    let url = format!("http://{}", endpoint.address());
    let config = config(kafka, &url, &topic, linger, &[&topic]);
    let mut drover = Drover::launch_binary(&contenders::binary(), &config, &[("DROVER_LOG", "warn")]);
    drover.wait_ready();
    let probes = Probes::start(kafka, &topic, TRICKLE);
    probes.wait_flowing(endpoint);
    let busy = Busy::begin(kafka, &drover);
    let from = Instant::now();
    thread::sleep(options.pick(Duration::from_secs(60), Duration::from_secs(10)));
    let (to, foreign) = (Instant::now(), busy.foreign(kafka, &drover));
    let journey = probes.finish(endpoint);
    Row { name, seconds: journey.latencies(from, to), foreign }
}

fn beside_backlog(name: &'static str, options: &Options, kafka: &Kafka, endpoint: &Endpoint) -> Row {
    let backlog = data::fill(kafka, BACKLOG, options.records(BACKLOG.records));
    kafka.create_topic("trickle-beside", PARTITIONS);
    endpoint.reset(Content::Whole);
    let url = format!("http://{}", endpoint.address());
    let config = config(kafka, &url, "trickle-beside", "250ms", &["trickle-beside", BACKLOG.topic]);
    let mut drover = Drover::launch_binary(&contenders::binary(), &config, &[("DROVER_LOG", "warn")]);
    drover.wait_for("the backlog has been read once", ENOUGH, |_| (endpoint.documents() >= backlog.records).then_some(()));
    drover.wait_caught_up(BACKLOG.topic, ENOUGH);
    endpoint.reset(Content::Whole);
    let probes = Probes::start(kafka, "trickle-beside", BESIDE_BACKLOG);
    probes.wait_flowing(endpoint);
    let busy = Busy::begin(kafka, &drover);
    drover.post(&format!("/api/v1/topics/{}/rewind", BACKLOG.topic), Some(&json!({"to": "earliest"}))).ok();
    let from = Instant::now();
    drover.wait_for("the backlog has been read again", ENOUGH, |_| (endpoint.documents() >= backlog.records).then_some(()));
    let (to, foreign) = (Instant::now(), busy.foreign(kafka, &drover));
    let journey = probes.finish(endpoint);
    Row { name, seconds: journey.latencies(from, to), foreign }
}

fn searchable(name: &'static str, options: &Options, kafka: &Kafka) -> Row {
    let elasticsearch = Elasticsearch::start(Product::Elasticsearch8).unwrap_or_else(|reason| panic!("{reason}"));
    let topic = "trickle-searched";
    kafka.create_topic(topic, PARTITIONS);
    // Without it the index would be refreshed only after the first search of half a minute.
    let body = json!({
        "settings": {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "1s"},
        "mappings": {"properties": {"probe": {"type": "long"}, "message": {"type": "text"}}}
    });
    elasticsearch.create_index(topic, &body);
    let config = config(kafka, &elasticsearch.url(), topic, "250ms", &[topic]);
    let mut drover = Drover::launch_binary(&contenders::binary(), &config, &[("DROVER_LOG", "warn")]);
    drover.wait_ready();
    let probes = Probes::start(kafka, topic, TRICKLE);
    let mut found = BTreeMap::new();
    wait_until("probes are found", ENOUGH, || {
        look(&elasticsearch, topic, &mut found);
        (found.len() >= PARTITIONS as usize).then_some(())
    });
    let from = Instant::now();
    let span = options.pick(Duration::from_secs(60), Duration::from_secs(10));
    while from.elapsed() < span {
        look(&elasticsearch, topic, &mut found);
        thread::sleep(LOOK_EVERY);
    }
    let to = Instant::now();
    let sent = probes.stop_sending();
    let deadline = Instant::now() + ENOUGH;
    while found.len() < sent.len() {
        assert!(Instant::now() < deadline, "only {} of {} probes are found", found.len(), sent.len());
        look(&elasticsearch, topic, &mut found);
        thread::sleep(LOOK_EVERY);
    }
    let in_span = sent.iter().enumerate().filter(|(_, sent)| (from..to).contains(*sent));
    let seconds = in_span.map(|(number, sent)| (found[&(number as u64)] - *sent).as_secs_f64()).collect();
    // Elasticsearch's own work cannot be told from others'; the rows before say how quiet the machine was.
    Row { name, seconds, foreign: 0.0 }
}

/// Notes the probes that a search finds now and did not find before.
fn look(elasticsearch: &Elasticsearch, index: &str, found: &mut BTreeMap<u64, Instant>) {
    let mut missing = 0;
    while found.contains_key(&missing) {
        missing += 1;
    }
    let query =
        json!({"size": 1000, "_source": false, "docvalue_fields": ["probe"], "sort": ["probe"], "query": {"range": {"probe": {"gte": missing}}}});
    let answer = elasticsearch.request("POST", &format!("/{index}/_search"), Some(&query)).ok().json();
    let now = Instant::now();
    for hit in answer["hits"]["hits"].as_array().expect("hits") {
        let probe = hit["fields"]["probe"][0].as_u64().expect("a probe's number");
        found.entry(probe).or_insert(now);
    }
}
