use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex as StdMutex;

use tokio::sync::watch;

use super::*;
use crate::dead_letters::local::LocalDeadLetters;
use crate::dead_letters::redrive::{RedriveQueue, queue};
use crate::dead_letters::suite::{at, letter, name, query, with_payload};
use crate::sink::{ParkCause, Rejection, SinkHealth};
use crate::status::ReasonCode;
use crate::topic::{Format, Tombstones};

/// What the sink says of the next segment.
enum Says {
    Settled,
    Rejects(Vec<u32>),
    Parks,
    /// The sink was started again.
    Loses,
    /// Nothing, for ever.
    Nothing,
}

struct Bench {
    _directory: tempfile::TempDir,
    store: Arc<LocalDeadLetters>,
    ask: RedriveQueue,
    redriver: Arc<Redriver>,
    says: Arc<StdMutex<VecDeque<Says>>>,
    sent: Arc<StdMutex<Vec<(String, bool)>>>,
    specs: Arc<StdMutex<BTreeMap<TopicName, Arc<TopicSpec>>>>,
    segments: StdMutex<Option<mpsc::Receiver<Segment>>>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Arc::new(LocalDeadLetters::open(&directory.path().join("letters.redb"), 1 << 30).expect("opens"));
        let (ask, orders) = queue();
        let (segments, taken) = mpsc::channel(1);
        let sink = SinkHandle::new(segments, watch::channel(SinkHealth::default()).1);
        let spec = TopicSpec { format: Format::Json, ..TopicSpec::default() };
        let specs = Arc::new(StdMutex::new(BTreeMap::from([(name("a"), Arc::new(spec.clone())), (name("b"), Arc::new(spec))])));
        let found = specs.clone();
        let spec_of: SpecOf = Arc::new(move |name| found.lock().expect("no panic").get(name).cloned());
        let redriver = Arc::new(Redriver::new(orders, store.clone(), sink, spec_of));
        Self { _directory: directory, store, ask, redriver, says: Arc::default(), sent: Arc::default(), specs, segments: StdMutex::new(Some(taken)) }
    }

    fn says(&self, says: impl IntoIterator<Item = Says>) {
        self.says.lock().expect("no panic").extend(says);
    }

    fn spec(&self, topic: &str, spec: TopicSpec) {
        self.specs.lock().expect("no panic").insert(name(topic), Arc::new(spec));
    }

    async fn put(&self, letters: &[DeadLetter]) {
        self.store.put(letters.to_vec()).await.expect("kept");
    }

    async fn letters(&self) -> Vec<DeadLetter> {
        self.store.list(query()).await.expect("lists")
    }

    fn bodies(&self) -> Vec<String> {
        self.sent.lock().expect("no panic").iter().map(|(body, _)| body.clone()).collect()
    }

    /// Runs the part beside a sink until what was asked for is done.
    async fn until_idle(&self) {
        let mut segments = self.segments.lock().expect("no panic").take().expect("one run at a time");
        let sink = async {
            let mut silent = Vec::new();
            while let Some(segment) = segments.recv().await {
                let body = String::from_utf8(segment.body.to_vec()).expect("text");
                self.sent.lock().expect("no panic").push((body, segment.alone));
                let says = self.says.lock().expect("no panic").pop_front().unwrap_or(Says::Settled);
                match says {
                    Says::Settled => segment.reply.send(Outcome::Settled { rejected: Vec::new(), retried: 0 }),
                    Says::Rejects(items) => {
                        let rejection = |item| Rejection {
                            item,
                            too_large: false,
                            error_type: "strict_dynamic_mapping_exception".to_owned(),
                            reason: "not allowed".to_owned(),
                            status: Some(400),
                        };
                        segment.reply.send(Outcome::Settled { rejected: items.into_iter().map(rejection).collect(), retried: 0 });
                    }
                    Says::Parks => {
                        let cause = ParkCause { code: ReasonCode::IndexClosed, message: "closed".to_owned(), remedy: "open it".to_owned() };
                        segment.reply.send(Outcome::Parked { cause, item: 0 });
                    }
                    Says::Loses => drop(segment),
                    Says::Nothing => silent.push(segment.reply),
                }
            }
        };
        let mut orders = self.redriver.orders.lock().await;
        let work = async {
            loop {
                let next = futures::FutureExt::now_or_never(orders.next());
                let Some(order) = next.flatten() else { return };
                match order {
                    Order::One(id) => self.redriver.one(&id).await,
                    Order::Many(query) => self.redriver.many(query, &mut orders).await,
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = sink => panic!("the sink ended"),
        }
        *self.segments.lock().expect("no panic") = Some(segments);
    }
}

fn json_letter(topic: &str, partition: i32, offset: i64) -> DeadLetter {
    with_payload(letter(topic, partition, offset), format!("{{\"n\":{offset}}}").as_bytes())
}

#[tokio::test]
async fn a_letter_that_is_indexed_now_is_gone_and_kept_its_id() {
    let bench = Bench::new();
    bench.put(&[json_letter("a", 3, 123), json_letter("a", 3, 124)]).await;
    bench.ask.one("base-a:3:123".to_owned()).expect("room");
    bench.ask.one("base-a:3:999".to_owned()).expect("room");
    bench.until_idle().await;
    assert_eq!(bench.bodies(), ["{\"index\":{\"_index\":\"a\",\"_id\":\"base-a:3:123\"}}\n{\"n\":123}\n"]);
    assert_eq!(bench.letters().await, [json_letter("a", 3, 124)]);
}

#[tokio::test]
async fn a_redrive_that_is_refused_again_keeps_the_letter_with_the_new_reason() {
    let bench = Bench::new();
    bench.put(&[json_letter("a", 0, 1), json_letter("a", 0, 2), json_letter("a", 0, 3)]).await;
    bench.says([Says::Rejects(vec![1])]);
    let before = Timestamp::now();
    bench.ask.many(Query::default()).expect("room");
    bench.until_idle().await;
    let left = bench.letters().await;
    assert_eq!(left.len(), 1, "{left:?}");
    let old = json_letter("a", 0, 2);
    assert_eq!((&left[0].id, &left[0].payload_base64, left[0].first_at, left[0].attempts), (&old.id, &old.payload_base64, at(100), 2));
    assert_eq!((left[0].error.kind.as_str(), left[0].cause, left[0].index.as_str()), ("strict_dynamic_mapping_exception", Cause::Rejected, "a"));
    let tried_at = left[0].redriven_at.expect("the time of the try");
    assert!(tried_at.as_millisecond() >= before.as_millisecond() && left[0].last_at == tried_at, "{left:?}");
}

#[tokio::test]
async fn todays_spec_decides_what_a_letter_becomes() {
    let bench = Bench::new();
    let tombstone = DeadLetter { payload_base64: None, payload_bytes: 0, cause: Cause::Tombstone, ..letter("a", 0, 1) };
    let no_json = with_payload(letter("b", 0, 1), b"plain");
    bench.put(&[tombstone.clone(), no_json]).await;
    bench.spec("a", TopicSpec { tombstones: Tombstones::DeadLetter, ..TopicSpec::default() });
    bench.ask.many(Query::default()).expect("room");
    bench.until_idle().await;
    let left = bench.letters().await;
    assert_eq!(left.iter().map(|letter| (letter.cause, letter.attempts)).collect::<Vec<_>>(), [(Cause::Tombstone, 2), (Cause::Format, 2)]);
    assert!(left.iter().all(|letter| letter.redriven_at.is_some()) && bench.bodies().is_empty());

    bench.spec("a", TopicSpec { tombstones: Tombstones::Skip, ..TopicSpec::default() });
    bench.spec("b", TopicSpec { format: Format::Text, ..TopicSpec::default() });
    bench.ask.many(Query::default()).expect("room");
    bench.until_idle().await;
    assert_eq!(bench.letters().await, []);
    assert!(bench.bodies()[0].contains("\"message\":\"plain\""), "{:?}", bench.bodies());
}

#[tokio::test]
async fn what_cannot_be_sent_stays_as_it_was_and_stops_no_other() {
    let bench = Bench::new();
    let unmanaged = json_letter("nobody", 0, 1);
    let gone = DeadLetter { payload_base64: None, truncated: true, ..json_letter("a", 0, 1) };
    let foreign = DeadLetter { id: "other".to_owned(), ..json_letter("a", 0, 2) };
    let no_base64 = DeadLetter { payload_base64: Some("%".to_owned()), ..json_letter("a", 0, 3) };
    bench.put(&[unmanaged.clone(), gone.clone(), foreign.clone(), no_base64.clone(), json_letter("a", 0, 4)]).await;
    bench.ask.many(Query::default()).expect("room");
    bench.until_idle().await;
    assert_eq!(bench.letters().await, [gone, foreign, no_base64, unmanaged]);
    assert_eq!(bench.bodies().len(), 1);
}

#[tokio::test]
async fn a_parked_index_fails_its_letters_only() {
    let bench = Bench::new();
    bench.put(&[json_letter("a", 0, 1), json_letter("a", 0, 2), json_letter("b", 0, 1)]).await;
    bench.says([Says::Parks, Says::Settled, Says::Parks, Says::Settled]);
    bench.ask.many(Query::default()).expect("room");
    bench.until_idle().await;
    let left = bench.letters().await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((left[0].offset, left[0].error.kind.as_str(), left[0].cause), (2, "index_closed", Cause::Rejected));
    assert!(left[0].redriven_at.is_some() && left[0].error.reason.contains("open it"));
    let alone: Vec<bool> = bench.sent.lock().expect("no panic").iter().map(|(_, alone)| *alone).collect();
    assert_eq!(alone, [false, true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_was_started_again_gets_the_letters_again() {
    let bench = Bench::new();
    bench.put(&[json_letter("a", 0, 1)]).await;
    bench.says([Says::Loses, Says::Loses]);
    bench.ask.many(Query::default()).expect("room");
    bench.until_idle().await;
    assert_eq!((bench.letters().await, bench.bodies().len()), (Vec::new(), 3));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_does_not_answer_ends_the_order_and_changes_no_letter() {
    let bench = Bench::new();
    let letters: Vec<DeadLetter> = (0..40).map(|offset| json_letter("a", 0, offset)).collect();
    bench.put(&letters).await;
    bench.says([Says::Nothing]);
    bench.ask.many(Query::default()).expect("room");
    bench.until_idle().await;
    assert_eq!((bench.letters().await, bench.bodies().len()), (letters, 1));
    // It can be asked for again.
    bench.ask.many(Query::default()).expect("room");
    bench.until_idle().await;
    assert_eq!(bench.letters().await, []);
}

#[tokio::test]
async fn a_thousand_letters_go_in_pages_by_filter_and_each_is_tried_once() {
    let bench = Bench::new();
    let of_type = |kind: &str, letter: DeadLetter| DeadLetter { error: LetterError { kind: kind.to_owned(), ..letter.error.clone() }, ..letter };
    let letters: Vec<DeadLetter> = (0..1000)
        .map(|number| {
            of_type(if number % 2 == 0 { "even" } else { "odd" }, json_letter(if number < 500 { "a" } else { "b" }, number % 3, i64::from(number)))
        })
        .collect();
    bench.put(&letters).await;
    bench.says([Says::Rejects(vec![0, 15])]);
    bench.ask.many(Query { error_type: Some("even".to_owned()), ..Query::default() }).expect("room");
    bench.until_idle().await;
    let left = bench.letters().await;
    let count = |kind: &str| left.iter().filter(|letter| letter.error.kind == kind).count();
    assert_eq!((count("odd"), count("even"), count("strict_dynamic_mapping_exception")), (500, 0, 2));
    let documents: usize = bench.bodies().iter().map(|body| body.lines().count() / 2).sum();
    assert_eq!(documents, 500);
    assert!(bench.bodies().len() < 20, "{} requests", bench.bodies().len());
}

#[tokio::test]
async fn a_letter_that_dies_again_during_its_redrive_stays() {
    let bench = Bench::new();
    bench.put(&[json_letter("a", 0, 1)]).await;
    let read = bench.store.get("base-a:0:1").await.expect("reads").expect("the letter");
    // Between the redrive's look and its end the record is read once more and refused.
    bench.put(&[DeadLetter { last_at: at(500), ..json_letter("a", 0, 1) }]).await;
    bench.redriver.keep(Verdicts { settled: vec![read], ..Verdicts::default() }).await;
    assert_eq!(bench.letters().await.iter().map(|letter| (letter.attempts, letter.last_at)).collect::<Vec<_>>(), [(2, at(500))]);
}

#[test]
fn a_page_of_large_letters_is_small() {
    assert_eq!(next_page(16, 16 * 100), LARGEST_PAGE);
    assert_eq!(next_page(16, 16 << 20), 8);
    assert_eq!(next_page(1, 100 << 20), 1);
    assert_eq!(next_page(0, 0), LARGEST_PAGE);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_letter_that_crashes_the_formatter_ends_no_other() {
    let _setting = fail::FailScenario::setup();
    fail::cfg("format_record", "return(poison-of-a-redrive)").expect("the failpoint");
    let bench = Bench::new();
    let poison = with_payload(letter("a", 0, 1), b"{\"x\":\"poison-of-a-redrive\"}");
    bench.put(&[poison, json_letter("a", 0, 2)]).await;
    bench.ask.many(Query::default()).expect("room");
    bench.until_idle().await;
    let left = bench.letters().await;
    assert_eq!(left.iter().map(|letter| (letter.offset, letter.cause)).collect::<Vec<_>>(), [(1, Cause::CrashLoop)]);
}
