//! Makes the running set what is wanted: one pure plan, and the loop that applies it.
//!
//! Guarantees: [`plan`] is a function of complete states, never of what changed; applying a plan twice changes nothing; a topic that Kafka lacks or forbids is left out
//! of the subscription and so silences no other; a topic is subscribed only once its [`Facts`] are durable, so that every instance and every later run uses the same ids and
//! start offsets (a store that does not answer at the first start of all is the exception, where the facts follow from Kafka alone). Owns the look-ups of topics and the admission of new ones. Does not consume, does not index, restarts nothing: it hands complete sets to the consumer and
//! to the supervisor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::causes::chain;
use crate::desired::store::{StoreError, TopicStore};
use crate::desired::{Desired, DesiredTopic};
use crate::kafka::{ConsumerHandle, ConsumerView, Lookups, PartitionView, TopicLook, TopicPlan};
use crate::mutants;
use crate::pipeline::{PartitionSpec, PartitionWork};
use crate::status::{Reason, ReasonCode, Recreation};
use crate::supervisor::SupervisorHandle;
use crate::topic::{Facts, Format, Metadata, Start, TopicName, TopicPartition, TopicSpec};

/// How often topics are looked up when nothing else asks for it; a re-created topic is noticed no later.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// The same while a wanted topic is missing, forbidden or not yet admitted.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// Topics that are admitted at once: each takes a few answers of Kafka and the store, and thousands may wait at the first start.
const ADMITTED_AT_ONCE: usize = 8;

/// What is known of the world: an input of [`plan`].
#[derive(Debug, Clone, Default)]
pub struct Actual {
    /// What Kafka said of each wanted topic.
    pub looks: BTreeMap<TopicName, TopicLook>,
    /// The durable facts of admitted topics.
    pub facts: BTreeMap<TopicName, Arc<Facts>>,
    /// The partitions that this instance has.
    pub assigned: BTreeMap<TopicPartition, Assigned>,
    /// Topics whose facts the store does not have yet, because it does not answer.
    pub provisional: BTreeSet<TopicName>,
    /// Why topics that exist could not be admitted at the last try.
    pub refused: BTreeMap<TopicName, String>,
    /// Topics found to be re-created and not yet shown.
    pub recreations: BTreeMap<TopicName, Recreation>,
}

/// A partition that this instance has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The epoch of the assignment.
    pub epoch: u64,
    /// The UUID of the topic that the consumer reads it as.
    pub topic_id: Option<String>,
}

/// What has to run: complete sets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// The subscription.
    pub topics: BTreeMap<TopicName, TopicPlan>,
    /// The tasks.
    pub tasks: BTreeMap<TopicPartition, PartitionSpec>,
    /// Topics that exist but have no facts yet, or those of another incarnation of the topic.
    pub admit: Vec<TopicName>,
}

/// Decides what has to run from what is wanted and what is there.
pub fn plan(desired: &Desired, actual: &Actual) -> Plan {
    let mut plan = Plan::default();
    let mut specs: BTreeMap<&TopicName, (Arc<TopicSpec>, Arc<Facts>)> = BTreeMap::new();
    for (name, topic) in &desired.topics {
        let Some(TopicLook::Exists { topic_id, .. }) = actual.looks.get(name) else {
            continue;
        };
        let Some(facts) = actual.facts.get(name) else {
            plan.admit.push(name.clone());
            continue;
        };
        if topic_id.is_some() && *topic_id != facts.topic_id {
            plan.admit.push(name.clone());
            continue;
        }
        let spec = Arc::new(working_part(&topic.spec));
        plan.topics.insert(
            name.clone(),
            TopicPlan { topic_id: facts.topic_id.clone(), start_offsets: facts.start_offsets.clone(), headers: wants_headers(&spec) },
        );
        if topic.paused.is_none() {
            specs.insert(name, (spec, facts.clone()));
        }
    }
    for (partition, assigned) in &actual.assigned {
        let Some((spec, facts)) = specs.get(&partition.topic) else { continue };
        // Of a topic that was re-created nothing runs until the consumer reads the new one: a life under the new ids at the old watermark would move the partition once more.
        if assigned.topic_id == facts.topic_id {
            plan.tasks.insert(partition.clone(), PartitionSpec { epoch: assigned.epoch, topic: spec.clone(), facts: facts.clone() });
        }
    }
    plan
}

/// What a change of one topic does to its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// They go on.
    Nothing,
    /// There are none, and they start.
    Start,
    /// They stop.
    Stop,
    /// They begin another life.
    Restart,
}

/// Compares what is wanted of a topic with what would be wanted, by the rules of [`plan`]; `None` is a topic that nothing names.
pub fn difference(before: Option<&DesiredTopic>, after: Option<&DesiredTopic>) -> Difference {
    let runs = |topic: Option<&DesiredTopic>| topic.filter(|topic| topic.paused.is_none()).map(|topic| working_part(&topic.spec));
    match (runs(before), runs(after)) {
        (None, None) => Difference::Nothing,
        (None, Some(_)) => Difference::Start,
        (Some(_), None) => Difference::Stop,
        (Some(old), Some(new)) if old == new => Difference::Nothing,
        (Some(_), Some(_)) => Difference::Restart,
    }
}

/// The spec without what tasks do not look at, so that changing a label restarts nothing.
fn working_part(spec: &TopicSpec) -> TopicSpec {
    TopicSpec { labels: BTreeMap::new(), start: Start::default(), ..spec.clone() }
}

/// Headers are copied only where a document can contain them.
fn wants_headers(spec: &TopicSpec) -> bool {
    match (spec.metadata, spec.format) {
        (Metadata::Off, _) | (_, Format::Classic) => false,
        (Metadata::On, _) => true,
        (Metadata::Auto, format) => matches!(format, Format::Text | Format::Auto),
    }
}

/// What the loop learned of the wanted topics, for the status.
#[derive(Debug, Clone, Default)]
pub struct TopicsView {
    /// Number of partitions of each topic that exists.
    pub partitions: BTreeMap<TopicName, i32>,
    /// The base of the document ids of each admitted topic; it changes when a topic was re-created.
    pub id_bases: BTreeMap<TopicName, String>,
    /// Topics that this process found to be re-created, also while it was not running; the newest time each.
    pub recreations: BTreeMap<TopicName, Recreation>,
    /// Why a wanted topic is not consumed.
    pub absent: BTreeMap<TopicName, Reason>,
    /// Why look-ups fail, when they do.
    pub trouble: Option<Reason>,
}

/// The loop and what it works on.
pub struct Reconciler {
    /// What is wanted.
    pub desired: watch::Receiver<Option<Arc<Desired>>>,
    /// Where facts are kept.
    pub store: Arc<dyn TopicStore>,
    /// Questions to Kafka.
    pub lookups: Lookups,
    /// Who subscribes.
    pub consumer: ConsumerHandle,
    /// Who runs the tasks.
    pub tasks: SupervisorHandle<PartitionWork>,
    /// What was learned, for the status.
    pub view: watch::Sender<Arc<TopicsView>>,
    /// The moment of the last turn of the loop, for liveness.
    pub beat: watch::Sender<Instant>,
}

impl Reconciler {
    /// Reconciles after each change and on a timer, until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut desired = self.desired.clone();
        let mut consumer = self.consumer.view();
        let mut actual = Actual::default();
        let mut look_at = Instant::now();
        let mut seen_surprises = 0;
        loop {
            self.beat.send_replace(Instant::now());
            let wanted = desired.borrow_and_update().clone();
            let (assigned, surprises) = {
                let view = consumer.borrow_and_update();
                (assigned_partitions(&view), view.surprises)
            };
            // At each assignment topics are looked up again: a re-created topic often shows as one.
            let new_assignment = assigned.iter().any(|(partition, now)| actual.assigned.get(partition) != Some(now));
            actual.assigned = assigned;
            if let Some(wanted) = wanted {
                let is_surprised = surprises > std::mem::replace(&mut seen_surprises, surprises);
                let all = new_assignment || is_surprised || Instant::now() >= look_at;
                let unknown: Vec<TopicName> = wanted.topics.keys().filter(|name| !actual.looks.contains_key(*name)).cloned().collect();
                if !new_assignment && !is_surprised {
                    // What is not wanted any more ends at once, also while Kafka does not answer.
                    self.apply(plan(&wanted, &actual));
                }
                if all || !unknown.is_empty() {
                    let names = if all { None } else { Some(unknown) };
                    let looked = tokio::select! {
                        () = cancel.cancelled() => return,
                        looked = self.look(&wanted, names, &mut actual) => looked,
                    };
                    let next = Instant::now() + looked;
                    // A look at a few topics puts off none of the others.
                    look_at = if all { next } else { look_at.min(next) };
                    self.apply(plan(&wanted, &actual));
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = desired.changed() => if changed.is_err() { return },
                changed = consumer.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(look_at) => {}
                // The heartbeat goes on while nothing happens.
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    fn apply(&self, plan: Plan) {
        self.consumer.subscribe(Arc::new(plan.topics));
        self.tasks.apply(plan.tasks);
    }

    /// Looks these topics up, or all that are wanted, and admits the new ones; answers when to look again.
    async fn look(&self, wanted: &Desired, names: Option<Vec<TopicName>>, actual: &mut Actual) -> Duration {
        let now = Timestamp::now();
        let asked = names.unwrap_or_else(|| wanted.topics.keys().cloned().collect());
        let mut view = TopicsView::clone(&self.view.borrow());
        match self.lookups.describe(asked).await {
            Ok(looks) => {
                // Where no topic is wanted, nobody was asked.
                if !looks.is_empty() {
                    self.consumer.note_look();
                }
                actual.looks.extend(looks);
                if view.trouble.take().is_some() {
                    info!("topics are looked up again");
                }
            }
            Err(error) => {
                // What was known stays in force: an unreachable broker is no missing topic.
                if view.trouble.is_none() {
                    warn!(error = %error, "topics cannot be looked up");
                } else {
                    debug!(error = %error, "topics cannot be looked up");
                }
                view.trouble = Some(kafka_unreachable(&error.to_string(), view.trouble.as_ref(), now));
                self.view.send_replace(Arc::new(view));
                return LOOK_AGAIN;
            }
        }
        let Actual { looks, facts, provisional, refused, .. } = actual;
        looks.retain(|name, _| wanted.topics.contains_key(name));
        facts.retain(|name, _| wanted.topics.contains_key(name));
        provisional.retain(|name| wanted.topics.contains_key(name));
        refused.retain(|name, _| wanted.topics.contains_key(name));
        self.admit_all(wanted, actual, now).await;
        let absent = absent_topics(actual, &view.absent, now);
        for (name, reason) in &absent {
            if !view.absent.contains_key(name) {
                warn!(topic = %name, code = reason.code.as_str(), message = reason.message, "topic is not consumed");
            }
        }
        view.absent = absent;
        view.partitions = actual
            .looks
            .iter()
            .filter_map(|(name, look)| match look {
                TopicLook::Exists { partitions, .. } => Some((name.clone(), *partitions)),
                _ => None,
            })
            .collect();
        view.recreations.append(&mut actual.recreations);
        view.id_bases = actual.facts.iter().map(|(name, facts)| (name.clone(), facts.id_base.clone())).collect();
        let waiting = !view.absent.is_empty() || !actual.provisional.is_empty() || !plan(wanted, actual).admit.is_empty();
        self.view.send_replace(Arc::new(view));
        if waiting { LOOK_AGAIN } else { LOOK_INTERVAL }
    }

    /// Admits every topic that has to be, a few at a time.
    async fn admit_all(&self, wanted: &Desired, actual: &mut Actual, now: Timestamp) {
        let mut names = plan(wanted, actual).admit;
        names.extend(actual.provisional.iter().cloned());
        let candidates = names.into_iter().filter_map(|name| {
            let TopicLook::Exists { topic_id, partitions } = actual.looks.get(&name)?.clone() else { return None };
            let start = wanted.topics.get(&name)?.spec.start;
            Some(Candidate { name, topic_id, partitions, start })
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let mut admissions = futures::stream::iter(candidates).map(|candidate| self.admit(candidate, now)).buffer_unordered(ADMITTED_AT_ONCE);
        while let Some((name, admitted)) = admissions.next().await {
            match admitted {
                Ok(admitted) => {
                    actual.refused.remove(&name);
                    if admitted.is_durable {
                        actual.provisional.remove(&name);
                    } else {
                        actual.provisional.insert(name.clone());
                    }
                    actual.recreations.extend(admitted.recreation.map(|recreation| (name.clone(), recreation)));
                    actual.facts.insert(name, Arc::new(admitted.facts));
                }
                Err(error) => {
                    debug!(topic = %name, error, "topic is not admitted yet");
                    actual.refused.insert(name, error);
                }
            }
        }
    }

    async fn admit(&self, candidate: Candidate, now: Timestamp) -> (TopicName, Result<Admitted, String>) {
        let admitted = self.find_facts(&candidate, now).await;
        (candidate.name, admitted)
    }

    /// Finds or makes the durable facts of a topic that exists.
    async fn find_facts(&self, candidate: &Candidate, now: Timestamp) -> Result<Admitted, String> {
        let name = &candidate.name;
        let known = match self.store.facts(name).await {
            Ok(known) => known,
            Err(error) => return self.provisional_facts(candidate, &error, now).await,
        };
        let topic_id = candidate.topic_id.as_deref();
        match judge(known, topic_id) {
            Verdict::Keep(facts) => Ok(Admitted { facts, is_durable: true, recreation: None }),
            Verdict::New => {
                let facts = self.new_facts(candidate, candidate.start, now).await?;
                info!(topic = %name, partitions = candidate.partitions, id_base = facts.id_base, "topic admitted");
                let facts = self.store.create_facts(name, facts).await.map_err(|error| chain(&error))?;
                Ok(Admitted { facts, is_durable: true, recreation: None })
            }
            Verdict::Recreated(old) => {
                let mut facts = self.new_facts(candidate, Start::Earliest, now).await?;
                if mutants::is_on(mutants::OLD_IDS_KEPT) {
                    facts.id_base.clone_from(&old.id_base);
                }
                warn!(topic = %name, old = old.id_base, new = facts.id_base, "topic was re-created, it is read from its beginning");
                let before = old.id_base.clone();
                let facts = self.store.replace_facts(name, old, facts).await.map_err(|error| chain(&error))?;
                let recreation = Some(Recreation { before, after: facts.id_base.clone(), at: now });
                Ok(Admitted { facts, is_durable: true, recreation })
            }
        }
    }

    /// Facts for a topic that the unreachable store may or may not know. They are what every instance would find, save for `start: latest`, which means the first start ever: that
    /// one waits for the store.
    async fn provisional_facts(&self, candidate: &Candidate, error: &StoreError, now: Timestamp) -> Result<Admitted, String> {
        if candidate.start == Start::Latest {
            return Err(format!("{}; where `start: latest` begins is kept there", chain(error)));
        }
        let facts = self.new_facts(candidate, candidate.start, now).await?;
        warn!(topic = %candidate.name, error = %chain(error), "topic runs on facts that are not stored yet");
        Ok(Admitted { facts, is_durable: false, recreation: None })
    }

    async fn new_facts(&self, candidate: &Candidate, start: Start, now: Timestamp) -> Result<Facts, String> {
        let start_offsets = self.lookups.offsets(&candidate.name, candidate.partitions, start).await.map_err(|error| chain(&error))?;
        Ok(new_facts(&candidate.name, candidate.topic_id.clone(), candidate.partitions, start_offsets, now))
    }
}

/// A topic that exists and has no facts here yet.
struct Candidate {
    name: TopicName,
    topic_id: Option<String>,
    partitions: i32,
    start: Start,
}

/// What admission found.
struct Admitted {
    facts: Facts,
    /// Whether the store has them.
    is_durable: bool,
    recreation: Option<Recreation>,
}

/// What the stored facts mean beside the topic's identity of today.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// The same topic.
    Keep(Facts),
    /// A topic that was never seen.
    New,
    /// The name is the same, the topic is another.
    Recreated(Facts),
}

fn judge(known: Option<Facts>, topic_id: Option<&str>) -> Verdict {
    let Some(facts) = known else { return Verdict::New };
    match (facts.topic_id.as_deref(), topic_id) {
        (Some(old), Some(new)) if old != new => Verdict::Recreated(facts),
        // Facts without an id, or brokers that do not tell one now, leave nothing to compare: the ids that documents have stay.
        _ => Verdict::Keep(facts),
    }
}

fn new_facts(name: &TopicName, topic_id: Option<String>, partitions: i32, start_offsets: BTreeMap<i32, i64>, now: Timestamp) -> Facts {
    let id_base = topic_id.clone().unwrap_or_else(|| name.to_string());
    Facts { topic_id, id_base, partitions, start_offsets, first_seen_at: now }
}

fn assigned_partitions(view: &ConsumerView) -> BTreeMap<TopicPartition, Assigned> {
    let assigned = |state: &PartitionView| Assigned { epoch: state.epoch, topic_id: state.topic_id.clone() };
    view.partitions.iter().map(|(partition, state)| (partition.clone(), assigned(state))).collect()
}

fn kafka_unreachable(error: &str, known: Option<&Reason>, now: Timestamp) -> Reason {
    Reason {
        code: ReasonCode::KafkaUnreachable,
        message: format!("Kafka does not answer: {error}"),
        remedy: "check that the brokers run and that kafka.brokers names them".to_owned(),
        since_at: known.map_or(now, |reason| reason.since_at),
    }
}

fn absent_topics(actual: &Actual, known: &BTreeMap<TopicName, Reason>, now: Timestamp) -> BTreeMap<TopicName, Reason> {
    let mut absent = BTreeMap::new();
    for (name, look) in &actual.looks {
        let (code, message, remedy) = match (look, actual.refused.get(name)) {
            (TopicLook::Exists { .. }, None) => continue,
            (TopicLook::Exists { .. }, Some(error)) => (
                ReasonCode::UnknownError,
                format!("the topic cannot begin yet: {error}"),
                "it is tried again by itself; if this lasts, look at Kafka, at the store of topics, and at the topic's `start`".to_owned(),
            ),
            (TopicLook::Missing, _) => (
                ReasonCode::TopicMissing,
                "Kafka has no topic of this name".to_owned(),
                "create the topic, or remove it here; it is picked up as soon as it exists".to_owned(),
            ),
            (TopicLook::Forbidden, _) => (
                ReasonCode::TopicForbidden,
                "Kafka does not let us read this topic".to_owned(),
                "allow drover's user to describe and read the topic".to_owned(),
            ),
            (TopicLook::Unknown(error), _) => (
                ReasonCode::KafkaUnreachable,
                format!("Kafka does not describe this topic: {error}"),
                "check the brokers; the topic is looked up again".to_owned(),
            ),
        };
        let since_at = known.get(name).filter(|reason| reason.code == code).map_or(now, |reason| reason.since_at);
        absent.insert(name.clone(), Reason { code, message, remedy, since_at });
    }
    absent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::merge::Inputs;
    use crate::desired::store::StoreView;
    use crate::status::Pause;
    use crate::topic::SpecFields;

    fn name(text: &str) -> TopicName {
        TopicName::new(text).expect("a legal name")
    }

    fn wanted(names: &[&str]) -> Desired {
        let topic = DesiredTopic {
            spec: Arc::new(TopicSpec::default()),
            origin: BTreeMap::new(),
            overrides: SpecFields::default(),
            sources: Vec::new(),
            paused: None,
        };
        let topics = names.iter().map(|text| (name(text), Arc::new(topic.clone()))).collect();
        Desired { revision: 1, topics, sources: Vec::new(), inputs: Inputs::new(SpecFields::default(), [], Arc::new(StoreView::unread("embedded"))) }
    }

    fn facts(topic_id: &str) -> Facts {
        new_facts(&name("t"), Some(topic_id.to_owned()), 1, BTreeMap::from([(0, 5)]), Timestamp::UNIX_EPOCH)
    }

    fn exists(topic_id: &str) -> TopicLook {
        TopicLook::Exists { topic_id: Some(topic_id.to_owned()), partitions: 1 }
    }

    fn actual() -> Actual {
        let mut actual = Actual::default();
        for topic in ["a", "b"] {
            actual.looks.insert(name(topic), exists("X"));
            actual.facts.insert(name(topic), Arc::new(facts("X")));
            actual.assigned.insert(TopicPartition::new(name(topic), 0), Assigned { epoch: 1, topic_id: Some("X".to_owned()) });
        }
        actual
    }

    #[test]
    fn a_missing_topic_silences_no_other() {
        let mut actual = actual();
        actual.looks.insert(name("gone"), TopicLook::Missing);
        let plan = plan(&wanted(&["a", "b", "gone"]), &actual);
        assert_eq!(plan.topics.keys().map(TopicName::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(plan.tasks.len(), 2);
        assert!(plan.admit.is_empty());
    }

    #[test]
    fn a_topic_that_cannot_be_admitted_says_why() {
        let mut actual = actual();
        actual.refused.insert(name("a"), "the store is away".to_owned());
        let absent = absent_topics(&actual, &BTreeMap::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(absent.keys().map(TopicName::as_str).collect::<Vec<_>>(), ["a"]);
        assert!(absent["a"].message.contains("the store is away") && !absent["a"].remedy.is_empty(), "{absent:?}");
    }

    #[test]
    fn a_topic_without_facts_is_not_subscribed() {
        let mut actual = actual();
        actual.facts.remove("a");
        let plan = plan(&wanted(&["a", "b"]), &actual);
        assert_eq!((plan.admit, plan.topics.contains_key("a"), plan.tasks.len()), (vec![name("a")], false, 1));
    }

    #[test]
    fn a_recreated_topic_runs_under_no_old_facts() {
        let mut actual = actual();
        actual.looks.insert(name("a"), exists("Y"));
        let plan = plan(&wanted(&["a", "b"]), &actual);
        assert_eq!((plan.admit, plan.tasks.len()), (vec![name("a")], 1));
        assert_eq!(judge(Some(facts("X")), Some("Y")), Verdict::Recreated(facts("X")));
        assert_eq!(judge(Some(facts("X")), None), Verdict::Keep(facts("X")));
    }

    #[test]
    fn nothing_runs_under_new_ids_while_the_consumer_reads_the_old_topic() {
        let mut actual = actual();
        actual.looks.insert(name("a"), exists("Y"));
        actual.facts.insert(name("a"), Arc::new(facts("Y")));
        let before = plan(&wanted(&["a", "b"]), &actual);
        assert_eq!((before.topics.len(), before.tasks.keys().map(|key| key.topic.as_str()).collect::<Vec<_>>()), (2, vec!["b"]));
        actual.assigned.insert(TopicPartition::new(name("a"), 0), Assigned { epoch: 2, topic_id: Some("Y".to_owned()) });
        assert_eq!(plan(&wanted(&["a", "b"]), &actual).tasks.len(), 2);
    }

    #[test]
    fn a_paused_topic_keeps_its_partitions_but_has_no_task() {
        let mut desired = wanted(&["a", "b"]);
        let pause = Pause { reason: None, actor: "me".to_owned(), since_at: Timestamp::UNIX_EPOCH, until_at: None };
        let paused = DesiredTopic { paused: Some(pause), ..DesiredTopic::clone(&desired.topics["a"]) };
        desired.topics.insert(name("a"), Arc::new(paused));
        let plan = plan(&desired, &actual());
        assert_eq!((plan.topics.len(), plan.tasks.len()), (2, 1));
    }

    #[test]
    fn a_changed_label_restarts_nothing() {
        let before = plan(&wanted(&["a"]), &actual());
        let mut desired = wanted(&["a"]);
        let spec = TopicSpec { labels: BTreeMap::from([("team".to_owned(), "x".to_owned())]), start: Start::Latest, ..TopicSpec::default() };
        let relabelled = DesiredTopic { spec: Arc::new(spec), ..DesiredTopic::clone(&desired.topics["a"]) };
        desired.topics.insert(name("a"), Arc::new(relabelled));
        assert_eq!(plan(&desired, &actual()), before);
    }

    #[test]
    fn a_preview_tells_a_label_from_a_change_that_restarts() {
        let topic = DesiredTopic::clone(&wanted(&["a"]).topics["a"]);
        let paused = DesiredTopic {
            paused: Some(Pause { reason: None, actor: "me".to_owned(), since_at: Timestamp::UNIX_EPOCH, until_at: None }),
            ..topic.clone()
        };
        let with = |spec: TopicSpec| DesiredTopic { spec: Arc::new(spec), ..topic.clone() };
        let labelled = with(TopicSpec { labels: BTreeMap::from([("team".to_owned(), "x".to_owned())]), ..TopicSpec::default() });
        let reformatted = with(TopicSpec { format: Format::Text, ..TopicSpec::default() });
        assert_eq!(difference(Some(&topic), Some(&labelled)), Difference::Nothing);
        assert_eq!(difference(Some(&topic), Some(&reformatted)), Difference::Restart);
        assert_eq!(difference(Some(&paused), Some(&reformatted)), Difference::Start);
        assert_eq!(difference(Some(&topic), Some(&paused)), Difference::Stop);
        assert_eq!(
            (difference(None, Some(&topic)), difference(Some(&topic), None), difference(None, Some(&paused))),
            (Difference::Start, Difference::Stop, Difference::Nothing)
        );
    }

    #[test]
    fn partitions_of_unwanted_topics_have_no_task() {
        let plan = plan(&wanted(&["b"]), &actual());
        assert_eq!(plan.tasks.keys().map(|partition| partition.topic.as_str()).collect::<Vec<_>>(), ["b"]);
    }
}
