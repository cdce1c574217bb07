//! The mirror: one loop that keeps the views equal to what etcd holds.
//!
//! Guarantees: level-triggered. A watch only brings changes sooner; what is in force after [`RELIST_EVERY`] is what a full linearizable read at one revision found, whatever the watch lost. A
//! stream is never polled after its first error, and a stream without a message for [`SILENCE`] counts as dead. Nothing that etcd does or fails to do ends the loop or empties a list. Decides
//! nothing about the content: that is [`state`](super::state).

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{Client, EventType, GetOptions, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use ulid::Ulid;

use super::Shared;
use super::client::{Answer, CallError, Etcd, Fate, Refusal};
use super::content::{FullRead, RawEntry};
use super::layout::{Layout, end_of};
use super::state::Verdict;
use crate::causes;

/// Watches of etcd may lose events (`tests/robustness/README.md` there lists six bugs), so everything is read again this often, plus up to a tenth.
const RELIST_EVERY: Duration = Duration::from_secs(60);
/// How often the server is asked to say something.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// A stream that says nothing for this long, while it is asked three times, is dead.
const SILENCE: Duration = Duration::from_secs(15);
/// The first list, or the last good one, is published within this time.
const FIRST_READ_WITHIN: Duration = Duration::from_secs(5);
/// A read of everything in pages; each page has its own, shorter time.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Changes are saved at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often an etcd with another past is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// A watch that lived this long was a good one.
const GOOD_LIFE: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// Entries of one page: some hundred bytes each, at most 1.5 MiB.
const PAGE: i64 = 500;

/// Why a round of reading and watching ended.
#[derive(Debug)]
enum End {
    /// All is well, and it is time to read again.
    Again,
    /// etcd has another past, and waits for a confirmation.
    Held,
    /// etcd could not be read.
    Unreadable,
    /// The watch broke.
    WatchBroke(String),
}

/// Runs until cancelled.
pub(super) async fn run(shared: &Shared, cancel: &CancellationToken) {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let end = tokio::select! {
            () = cancel.cancelled() => break,
            end = round(shared) => end,
        };
        let wait = match end {
            End::Again => {
                failures = 0;
                Duration::ZERO
            }
            End::Held => {
                failures = 0;
                LOOK_AGAIN
            }
            End::Unreadable => {
                failures += 1;
                backoff(failures, rand::random())
            }
            End::WatchBroke(why) => {
                info!(reason = why, "the watch on etcd broke, everything is read again");
                failures = if began.elapsed() < GOOD_LIFE { failures + 1 } else { 0 };
                backoff(failures, rand::random())
            }
        };
        tokio::select! {
            () = cancel.cancelled() => break,
            () = shared.wake.notified() => {}
            () = sleep(wait) => {}
        }
    }
    save(shared).await;
}

/// The wait after this many failures in a row: doubling, with half of it left to chance (`random` from 0 to 1). Pure.
fn backoff(failures: u32, random: f64) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let doubled = BACKOFF_FIRST.saturating_mul(1 << (failures - 1).min(10));
    doubled.min(BACKOFF_MAX).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// Reads everything and follows it until something ends that.
async fn round(shared: &Shared) -> End {
    let keys = shared.wanted_keys();
    let read = match read_within(shared, &keys).await {
        Ok(read) => read,
        Err(error) => {
            let problem = error.line();
            let is_news = shared.update(|state| {
                let was_ok = state.store_view().source.error.is_none();
                state.failed(&problem, Timestamp::now());
                was_ok
            });
            if is_news {
                warn!(error = problem, "etcd cannot be read, the last good lists stay in force");
            } else {
                debug!(error = problem, "etcd cannot be read");
            }
            return End::Unreadable;
        }
    };
    match shared.update(|state| state.take(&read, Timestamp::now())) {
        Verdict::Taken(warnings) => warn_about(&warnings),
        Verdict::Held { why, is_news } => {
            if is_news {
                warn!(reason = why, "etcd is not the one of before, the last good lists stay in force until someone confirms it");
            }
            return End::Held;
        }
    }
    save(shared).await;
    if read.identity.is_none() {
        write_identity(shared).await;
    }
    match timeout(READ_WITHIN, Watch::open(shared, &keys, read.revision + 1)).await {
        Ok(Ok(watch)) => follow(shared, watch, &keys).await,
        Ok(Err(error)) => End::WatchBroke(error.line()),
        Err(_) => End::WatchBroke("it could not be opened in time".to_owned()),
    }
}

async fn read_within(shared: &Shared, keys: &[String]) -> Result<FullRead, CallError> {
    let within = if shared.is_ready() { READ_WITHIN } else { FIRST_READ_WITHIN };
    timeout(within, read_all(&shared.etcd, &shared.layout, keys)).await.unwrap_or_else(|_| Err(CallError::timed_out()))
}

/// Reads everything at one revision: the one of the first answer.
async fn read_all(etcd: &Etcd, layout: &Layout, keys: &[String]) -> Result<FullRead, CallError> {
    let first = etcd.get(layout.identity(), GetOptions::new()).await?;
    let (cluster_id, revision) = (first.header.cluster_id(), first.header.revision());
    let at = At { etcd, cluster_id, revision };
    let mut store = Vec::new();
    for folder in [layout.pauses(), layout.topics()] {
        at.read_folder(&folder, &mut store).await?;
    }
    let mut values = BTreeMap::new();
    for key in keys {
        let absent = RawEntry { key: key.clone().into_bytes(), value: None, revision: 0 };
        let answer = at.get(key.clone(), GetOptions::new()).await?;
        values.insert(key.clone(), answer.kvs.into_iter().next().map_or(absent, raw));
    }
    let identity = first.kvs.into_iter().next().map(|entry| entry.into_key_value().1);
    Ok(FullRead { cluster_id, revision, identity, store, keys: values })
}

/// Reads at one revision of one cluster.
struct At<'a> {
    etcd: &'a Etcd,
    cluster_id: u64,
    revision: i64,
}

impl At<'_> {
    async fn get(&self, key: impl Into<Vec<u8>>, options: GetOptions) -> Result<Answer, CallError> {
        let answer = self.etcd.get(key, options.with_revision(self.revision)).await?;
        if answer.header.cluster_id() == self.cluster_id {
            Ok(answer)
        } else {
            Err(CallError::nonsense("the endpoints belong to different clusters"))
        }
    }

    async fn read_folder(&self, folder: &str, into: &mut Vec<RawEntry>) -> Result<(), CallError> {
        let mut from = folder.as_bytes().to_vec();
        let mut limit = PAGE;
        loop {
            let options = GetOptions::new().with_range(end_of(folder)).with_limit(limit);
            let page = match self.get(from.clone(), options).await {
                Err(error) if error.fate == Fate::Refused(Refusal::AnswerTooLarge) && limit > 1 => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                page => page?,
            };
            let more = page.more;
            into.extend(page.kvs.into_iter().map(raw));
            match into.last() {
                Some(last) if more => {
                    from.clone_from(&last.key);
                    from.push(0);
                }
                _ => return Ok(()),
            }
        }
    }
}

fn raw(entry: etcd_client::KeyValue) -> RawEntry {
    let revision = entry.mod_revision();
    let (key, value) = entry.into_key_value();
    RawEntry { key, value: Some(value), revision }
}

/// Gives an etcd its identity, as well as it goes: a user that may only read, or a full disk, keep it without one.
async fn write_identity(shared: &Shared) {
    use etcd_client::{Compare, CompareOp, Txn, TxnOp};
    let identity = Ulid::new().to_string();
    let key = shared.layout.identity();
    let absent = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
    match shared.etcd.txn(Txn::new().when([absent]).and_then([TxnOp::put(key, identity.clone(), None)])).await {
        Ok(response) if response.succeeded() => shared.update(|state| state.identified(identity.into_bytes())),
        Ok(_) => debug!("another instance gave this etcd its identity, which the next read finds"),
        Err(error) => debug!(error = error.line(), "the identity could not be written"),
    }
}

/// One stream with a watcher for the store and one for each of the collector's keys.
struct Watch {
    requests: WatchRequestSender,
    messages: WatchResponseStream,
    /// Keeps the connection.
    _client: Client,
}

impl Watch {
    async fn open(shared: &Shared, keys: &[String], from: i64) -> Result<Self, CallError> {
        let (start, end) = shared.layout.watched();
        let options = WatchOptions::new().with_start_revision(from);
        let (client, stream) = shared.etcd.watch(start, options.clone().with_range(end)).await?;
        let (mut requests, messages) = stream.split();
        for key in keys {
            requests.watch(key.clone(), Some(options.clone())).await?;
        }
        Ok(Self { requests, messages, _client: client })
    }
}

async fn follow(shared: &Shared, mut watch: Watch, keys: &[String]) -> End {
    let mut file = shared.file.clone();
    let mut file_is_read = true;
    let relist = Instant::now() + RELIST_EVERY.mul_f64(1.0 + rand::random::<f64>() / 10.0);
    let mut silent_since = Instant::now();
    let mut progress = interval(PROGRESS_EVERY);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    progress.reset();
    let mut saves = interval(SAVE_EVERY);
    saves.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = sleep_until(relist) => return End::Again,
            () = sleep_until(silent_since + SILENCE) => return End::WatchBroke(format!("no message for {} s", SILENCE.as_secs())),
            () = shared.wake.notified() => return End::Again,
            changed = file.changed(), if file_is_read => {
                file_is_read = changed.is_ok();
                if shared.wanted_keys() != keys {
                    return End::Again;
                }
            }
            _ = progress.tick() => {
                if let Err(error) = watch.requests.request_progress().await {
                    return End::WatchBroke(CallError::from(error).line());
                }
            }
            _ = saves.tick() => save(shared).await,
            message = watch.messages.message() => {
                silent_since = Instant::now();
                let ended = match message {
                    Ok(Some(message)) => take_message(shared, &message).await,
                    Ok(None) => Some("the stream ended".to_owned()),
                    Err(error) => Some(CallError::from(error).line()),
                };
                if let Some(why) = ended {
                    return End::WatchBroke(why);
                }
            }
        }
    }
}

/// Takes a message in; why the stream is of no more use, if it is not.
async fn take_message(shared: &Shared, message: &WatchResponse) -> Option<String> {
    if message.compact_revision() > 0 {
        return Some(format!("the revisions up to {} were compacted", message.compact_revision()));
    }
    if message.canceled() {
        let reason = message.cancel_reason();
        if reason.contains("auth token") || reason.contains("permission denied") || reason.contains("auth store is old") {
            shared.etcd.renew_token().await;
        }
        return Some(format!("etcd ended a watcher: {}", super::collector::shown(reason)));
    }
    let now = Timestamp::now();
    if let Some(header) = message.header()
        && !shared.with_state(|state| state.header(header.cluster_id(), header.revision()))
    {
        return Some("the stream is another cluster's".to_owned());
    }
    let events: Vec<RawEntry> = message.events().iter().filter_map(event).collect();
    if !events.is_empty() {
        warn_about(&shared.update(|state| state.apply(&events, now)));
    }
    None
}

fn event(event: &etcd_client::Event) -> Option<RawEntry> {
    let entry = event.kv()?;
    let value = match event.event_type() {
        EventType::Put => Some(entry.value().to_vec()),
        EventType::Delete => None,
    };
    Some(RawEntry { key: entry.key().to_vec(), value, revision: entry.mod_revision() })
}

fn warn_about(warnings: &[String]) {
    for warning in warnings {
        warn!(detail = warning, "an entry in etcd is not as it should be");
    }
}

/// Saves what has changed since the last time. A cache that cannot be written costs the next start without etcd, nothing else.
async fn save(shared: &Shared) {
    let Some(saved) = shared.with_state(|state| state.unsaved()) else { return };
    if let Err(error) = shared.cache.save(saved).await {
        warn!(error = causes::chain(&error), "the last good lists of etcd could not be saved");
        shared.with_state(|state| state.save_again());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_to_the_limit_and_are_never_none_after_a_failure(failures in 1..u32::MAX, random in 0.0..1.0f64) {
            let wait = backoff(failures, random);
            prop_assert!(wait >= BACKOFF_FIRST / 2 && wait <= BACKOFF_MAX, "{wait:?}");
            prop_assert!(failures < 10 || wait >= BACKOFF_MAX / 2);
        }
    }

    #[test]
    fn the_first_break_of_a_good_watch_is_no_reason_to_wait() {
        assert_eq!(backoff(0, 0.9), Duration::ZERO);
    }
}
