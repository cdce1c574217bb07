//! The only unsafe code: what librdkafka can do and rdkafka's safe API cannot.
//!
//! Guarantees, as long as its callers are safe Rust: every message, queue, event and list that librdkafka hands out is destroyed exactly once; a queue ends before its client (it
//! owns a share of it); nothing that is borrowed from a message outlives it. Owns batch consumption from one own queue, the forwarding of partition
//! queues to it, the results of commits, the member's id, errors that name topic, partition and offset, leader epochs, `DescribeTopics` with topic UUIDs, and a setting of the mock cluster. Decides nothing.
//!
//! Contract of each call: `rdkafka.h` of librdkafka 2.12. What batches do inside a consumer group was probed: a batch call on the consumer's own queue without our rebalance handling would drop
//! the assignment, so batches come from a queue of ours only.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

/// A queue of ours that partition queues are forwarded to.
pub(super) struct OwnQueue<C: ConsumerContext + 'static> {
    queue: *mut sys::rd_kafka_queue_t,
    consumer: Arc<BaseConsumer<C>>,
}

impl<C: ConsumerContext + 'static> OwnQueue<C> {
    /// A new, empty queue of `consumer`'s client.
    pub(super) fn new(consumer: Arc<BaseConsumer<C>>) -> Self {
        // SAFETY: the client pointer is valid while `consumer` lives, which this value shares. rd_kafka_queue_new never returns null.
        let queue = unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Self { queue, consumer }
    }

    /// Adds partitions to the assignment, with their records coming to this queue.
    ///
    /// Forwarding is set twice. Before, because a partition that was never forwarded would send its first records to the consumer's queue. After, because the stop of a partition that was
    /// assigned until now is carried out by librdkafka's main thread some time after `incremental_unassign` has returned, and ends the forwarding (`rd_kafka_toppar_fetch_stop`), which the
    /// next start does not set again: records would gather where nobody reads, without an error. The main thread takes its work in order, so when `incremental_assign` has returned, the stop is done.
    pub(super) fn assign(&self, partitions: &TopicPartitionList) -> KafkaResult<()> {
        let deaf = (partitions.count() > 0 && is_deaf()).then(|| Self::new(self.consumer.clone()));
        let queue = deaf.as_ref().map_or(self.queue, |nobodys| nobodys.queue);
        let take_over_all = || partitions.elements().iter().for_each(|element| self.forward(element.topic(), element.partition(), queue));
        take_over_all();
        self.consumer.incremental_assign(partitions)?;
        take_over_all();
        Ok(())
    }

    /// Lets the records of one partition come to this queue instead of the consumer's; those that wait move over. Does nothing for a name with a NUL byte, which no topic has, or when
    /// the client cannot make the partition.
    pub(super) fn take_over(&self, topic: &str, partition: i32) {
        self.forward(topic, partition, self.queue);
    }

    /// `to` is a queue of this client.
    fn forward(&self, topic: &str, partition: i32, to: *mut sys::rd_kafka_queue_t) {
        let Ok(name) = CString::new(topic) else { return };
        // SAFETY: client, name and both queues are valid for the calls; the reference to the partition's queue is given back at once, forwarding keeps its own.
        unsafe {
            let source = sys::rd_kafka_queue_get_partition(self.consumer.client().native_ptr(), name.as_ptr(), partition);
            if source.is_null() {
                return;
            }
            sys::rd_kafka_queue_forward(source, to);
            sys::rd_kafka_queue_destroy(source);
        }
    }

    /// Waits up to `timeout` for `batch` to fill; it holds what came by then. What it held before is released.
    pub(super) fn consume(&self, timeout: Duration, batch: &mut Batch) {
        batch.release();
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is valid, `slots` has at least `limit` writable places, and librdkafka writes at most that many pointers and says how many.
        let count = unsafe { sys::rd_kafka_consume_batch_queue(self.queue, timeout_ms, batch.slots.as_mut_ptr(), batch.limit) };
        batch.filled = usize::try_from(count).unwrap_or(0).min(batch.limit);
    }
}

impl<C: ConsumerContext + 'static> Drop for OwnQueue<C> {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once, before the client (`consumer` is dropped after this).
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

/// The failpoint `deaf`: the records of the partitions that are assigned go to a queue that nobody reads, from the first one on.
fn is_deaf() -> bool {
    fail::fail_point!("deaf", |_| true);
    false
}

/// Messages that were consumed together; reused from one call to the next.
pub(super) struct Batch {
    slots: Vec<*mut sys::rd_kafka_message_t>,
    /// How many are taken at once; at most as many as there are slots.
    limit: usize,
    filled: usize,
}

impl Batch {
    /// A batch of at most `capacity` messages.
    pub(super) fn new(capacity: usize) -> Self {
        Self { slots: vec![ptr::null_mut(); capacity], limit: capacity, filled: 0 }
    }

    /// Takes at most this many messages from now on, but one at least and no more than its capacity.
    pub(super) fn limit_to(&mut self, messages: usize) {
        self.limit = messages.clamp(1, self.slots.len().max(1));
    }

    /// The number of messages.
    pub(super) fn len(&self) -> usize {
        self.filled
    }

    /// The messages in the order of the queue.
    pub(super) fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let filled = self.slots.get(..self.filled).unwrap_or_default();
        // SAFETY: the first `filled` places hold messages that are destroyed only by `release`, which needs the batch mutably.
        filled.iter().map(|message| Message { raw: unsafe { &**message } })
    }

    /// Whether it holds as many messages as it can, so that more may be there.
    pub(super) fn is_full(&self) -> bool {
        self.filled == self.limit
    }

    fn release(&mut self) {
        for message in self.slots.iter_mut().take(self.filled) {
            // SAFETY: a message that librdkafka handed to us, destroyed once: the place is cleared.
            unsafe { sys::rd_kafka_message_destroy(*message) };
            *message = ptr::null_mut();
        }
        self.filled = 0;
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.release();
    }
}

/// One consumed message: a record, or an error with its place.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    raw: &'a sys::rd_kafka_message_t,
}

impl<'a> Message<'a> {
    /// The error, if this is no record.
    pub(super) fn error(&self) -> Option<RDKafkaErrorCode> {
        (self.raw.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| self.raw.err.into())
    }

    /// The error's text.
    pub(super) fn error_text(&self) -> String {
        // SAFETY: the message is valid; the text is NUL-terminated and lives as long as the message.
        unsafe { text(sys::rd_kafka_message_errstr(self.raw)) }
    }

    /// Whether this message comes from the same partition as `other`: cheaper than comparing names.
    pub(super) fn same_partition(&self, other: &Message<'_>) -> bool {
        self.raw.rkt == other.raw.rkt && self.raw.partition == other.raw.partition
    }

    /// The topic's name; empty where an error has none.
    pub(super) fn topic(&self) -> &'a str {
        if self.raw.rkt.is_null() {
            return "";
        }
        // SAFETY: the message keeps its topic alive; the name is NUL-terminated and never changes.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.raw.rkt)) };
        name.to_str().unwrap_or_default()
    }

    /// The partition's number.
    pub(super) fn partition(&self) -> i32 {
        self.raw.partition
    }

    /// The record's offset, or the one that an error is about.
    pub(super) fn offset(&self) -> i64 {
        self.raw.offset
    }

    /// The leader epoch under which the record was written; negative where brokers tell none.
    pub(super) fn leader_epoch(&self) -> i32 {
        // SAFETY: the message is valid.
        unsafe { sys::rd_kafka_message_leader_epoch(self.raw) }
    }

    /// Bytes of key and value.
    pub(super) fn bytes(&self) -> usize {
        self.raw.key_len + self.raw.len
    }

    /// The value's bytes; `None` for a tombstone.
    pub(super) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: payload and length are the message's own and live as long as it does.
        unsafe { bytes(self.raw.payload, self.raw.len) }
    }

    /// The key's bytes; `None` for a null key.
    pub(super) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: key and length are the message's own and live as long as it does.
        unsafe { bytes(self.raw.key, self.raw.key_len) }
    }

    /// Milliseconds since 1970; negative where the record has none.
    pub(super) fn timestamp_ms(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid and `kind` is writable.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(self.raw, &mut kind) };
        if kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE { -1 } else { timestamp }
    }

    /// Name and value of each header; names that are not UTF-8 are shown with replacement characters. Parsing allocates inside librdkafka, so ask only where headers are wanted.
    pub(super) fn headers(&self) -> Headers<'a> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is valid; the list belongs to the message and lives as long as it does.
        let found = unsafe { sys::rd_kafka_message_headers(self.raw, &mut headers) };
        let is_there = found == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && !headers.is_null();
        Headers { list: if is_there { headers } else { ptr::null_mut() }, index: 0, message: std::marker::PhantomData }
    }
}

/// Iterator over a message's headers.
pub(super) struct Headers<'a> {
    list: *mut sys::rd_kafka_headers_t,
    index: usize,
    message: std::marker::PhantomData<&'a ()>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.list.is_null() {
            return None;
        }
        let mut name: *const c_char = ptr::null();
        let mut value: *const c_void = ptr::null();
        let mut length = 0;
        // SAFETY: the list is valid for 'a, and so are the parts that it points to; the out places are writable.
        unsafe {
            let found = sys::rd_kafka_header_get_all(self.list, self.index, &mut name, &mut value, &mut length);
            if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                return None;
            }
            self.index += 1;
            Some((CStr::from_ptr(name).to_bytes(), bytes(value.cast_mut(), length)))
        }
    }
}

/// A queue of ours for the results of commits. librdkafka tells the result of a commit only to whom the commit names; without a queue nobody learns of it.
pub(super) struct CommitQueue<C: ConsumerContext + 'static> {
    queue: *mut sys::rd_kafka_queue_t,
    consumer: Arc<BaseConsumer<C>>,
}

/// The result of one commit: the error of the whole, and topic, partition, offset and error of each entry.
pub(super) struct CommitResult {
    pub(super) error: Option<RDKafkaErrorCode>,
    pub(super) offsets: Vec<(String, i32, i64, Option<RDKafkaErrorCode>)>,
}

impl<C: ConsumerContext + 'static> CommitQueue<C> {
    /// A new, empty queue of `consumer`'s client.
    pub(super) fn new(consumer: Arc<BaseConsumer<C>>) -> Self {
        // SAFETY: as in `OwnQueue::new`.
        let queue = unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Self { queue, consumer }
    }

    /// Sends a commit; its result comes to this queue.
    pub(super) fn send(&self, offsets: &TopicPartitionList) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: client, list and queue are valid; librdkafka copies the list. Without a callback the result is an event on the queue.
        let error = unsafe { sys::rd_kafka_commit_queue(self.consumer.client().native_ptr(), offsets.ptr(), self.queue, None, ptr::null_mut()) };
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(error.into()) }
    }

    /// The next result, waited for at most `timeout`.
    pub(super) fn next(&self, timeout: Duration) -> Option<CommitResult> {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is valid; the event is destroyed after its content was copied; the list belongs to the event.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.queue, timeout_ms);
            if event.is_null() {
                return None;
            }
            let code = sys::rd_kafka_event_error(event);
            let error = (code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| code.into());
            let mut offsets = Vec::new();
            let list = sys::rd_kafka_event_topic_partition_list(event);
            if !list.is_null() {
                let count = usize::try_from((*list).cnt).unwrap_or(0);
                for index in 0..count {
                    let element = &*(*list).elems.add(index);
                    let failed = (element.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| element.err.into());
                    offsets.push((text(element.topic), element.partition, element.offset, failed));
                }
            }
            sys::rd_kafka_event_destroy(event);
            Some(CommitResult { error, offsets })
        }
    }
}

impl<C: ConsumerContext + 'static> Drop for CommitQueue<C> {
    fn drop(&mut self) {
        // SAFETY: as in `OwnQueue`.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

/// Whether the group's coordinator has given the member an id and not taken it back. Answered by librdkafka's main thread, which this waits for.
pub(super) fn has_member_id<C: ConsumerContext + 'static>(consumer: &BaseConsumer<C>) -> bool {
    // SAFETY: the client is valid; the text is null or ends in NUL, and is ours to free with librdkafka's allocator.
    unsafe {
        let client = consumer.client().native_ptr();
        let id = sys::rd_kafka_memberid(client);
        if id.is_null() {
            return false;
        }
        let is_set = *id != 0;
        sys::rd_kafka_mem_free(client, id.cast());
        is_set
    }
}

/// The metadata of each entry of a list of commits, as text; bytes that are no UTF-8, which other programs may have committed, are no metadata of ours and come back as a text that no topic id equals. (rdkafka's own
/// accessor panics on them.)
pub(super) fn commit_metadata(list: &TopicPartitionList) -> Vec<String> {
    // SAFETY: the list is valid and has `cnt` entries; metadata is null or has `metadata_size` bytes.
    unsafe {
        let raw = &*list.ptr();
        let count = usize::try_from(raw.cnt).unwrap_or(0);
        let mut texts = Vec::with_capacity(count);
        for index in 0..count {
            let element = &*raw.elems.add(index);
            let metadata = bytes(element.metadata, element.metadata_size).unwrap_or_default();
            texts.push(String::from_utf8_lossy(metadata).into_owned());
        }
        texts
    }
}

/// The leader epoch of each entry of a list; negative where it is not known.
pub(super) fn leader_epochs(list: &TopicPartitionList) -> Vec<i32> {
    // SAFETY: the list is valid and has `cnt` entries.
    unsafe {
        let raw = &*list.ptr();
        let count = usize::try_from(raw.cnt).unwrap_or(0);
        (0..count).map(|index| sys::rd_kafka_topic_partition_get_leader_epoch(raw.elems.add(index))).collect()
    }
}

/// Gives the entries of a list their leader epochs, in the order of the list; negative where it is not known.
pub(super) fn set_leader_epochs(list: &mut TopicPartitionList, epochs: &[i32]) {
    // SAFETY: the list is valid, ours alone, and has `cnt` entries.
    unsafe {
        let raw = &*list.ptr();
        let count = usize::try_from(raw.cnt).unwrap_or(0);
        for (index, epoch) in epochs.iter().take(count).enumerate() {
            sys::rd_kafka_topic_partition_set_leader_epoch(raw.elems.add(index), *epoch);
        }
    }
}

/// Why a question was not answered: code and text.
type Refusal = (RDKafkaErrorCode, String);

/// What `DescribeTopics` says of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// The topic's name.
    pub(super) name: String,
    /// The error, if the broker does not describe it.
    pub(super) error: Option<(RDKafkaErrorCode, String)>,
    /// The UUID as Kafka prints it; `None` where brokers have none (an all-zero id).
    pub(super) topic_id: Option<String>,
    /// Number of partitions.
    pub(super) partitions: i32,
}

/// Asks the brokers for these topics and waits up to `timeout`; blocks the thread. Topics are never created by it.
pub(super) fn describe_topics<C: ConsumerContext>(client: &BaseConsumer<C>, names: &[&str], timeout: Duration) -> Result<Vec<Description>, Refusal> {
    let names: Vec<CString> = names.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let handle = client.client().native_ptr();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: every object made here is destroyed before the block ends; librdkafka copies names and options during the call; results are read before their event is destroyed.
    unsafe {
        let queue = sys::rd_kafka_queue_new(handle);
        let options = sys::rd_kafka_AdminOptions_new(handle, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        // An unset timeout only means librdkafka's default of 60 s; our own deadline below ends the wait.
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_DescribeTopics(handle, topics, options, queue);
        let result = await_answer(queue, timeout, sys::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT, read_description);
        sys::rd_kafka_TopicCollection_destroy(topics);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
        result
    }
}

/// Waits for what `read` takes from the answer's event; events of other types are dropped.
///
/// # Safety
/// `queue` must be valid, and `read` must take no longer-lived pointer from the event.
unsafe fn await_answer<T>(
    queue: *mut sys::rd_kafka_queue_t,
    timeout: Duration,
    kind: i32,
    read: unsafe fn(*mut sys::rd_kafka_event_t) -> T,
) -> Result<T, Refusal> {
    let deadline = Instant::now() + timeout + Duration::from_secs(1);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err((RDKafkaErrorCode::OperationTimedOut, "the brokers did not answer".to_owned()));
        }
        let left_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
        // SAFETY: the queue is valid; the event is destroyed after its content was copied.
        unsafe {
            let event = sys::rd_kafka_queue_poll(queue, left_ms);
            if event.is_null() {
                continue;
            }
            if sys::rd_kafka_event_type(event) != kind {
                sys::rd_kafka_event_destroy(event);
                continue;
            }
            let error = sys::rd_kafka_event_error(event);
            let answer = match error {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(read(event)),
                error => Err((error.into(), text(sys::rd_kafka_event_error_string(event)))),
            };
            sys::rd_kafka_event_destroy(event);
            return answer;
        }
    }
}

/// The last stable offset of each of these partitions, behind which no transaction is open, in one question; blocks the thread for up to `timeout`. Partitions without an answer are left out.
pub(super) fn stable_ends<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &TopicPartitionList,
    timeout: Duration,
) -> Result<Vec<(String, i32, i64)>, Refusal> {
    let mut query = partitions.clone();
    // -1 is both "latest" of ListOffsets and rdkafka's end.
    query.set_all_offsets(Offset::End).map_err(|error| (RDKafkaErrorCode::InvalidArgument, error.to_string()))?;
    let handle = client.client().native_ptr();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: every object made here is destroyed before the block ends; librdkafka copies list and options during the call; results are read before their event is destroyed.
    unsafe {
        let queue = sys::rd_kafka_queue_new(handle);
        let options = sys::rd_kafka_AdminOptions_new(handle, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        let level = sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED;
        let refused = sys::rd_kafka_AdminOptions_set_isolation_level(options, level);
        if !refused.is_null() {
            sys::rd_kafka_error_destroy(refused);
        }
        sys::rd_kafka_ListOffsets(handle, query.ptr(), options, queue);
        let answer = await_answer(queue, timeout, sys::RD_KAFKA_EVENT_LISTOFFSETS_RESULT, read_offsets);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
        answer
    }
}

/// # Safety
/// `event` must be a valid result of ListOffsets.
unsafe fn read_offsets(event: *mut sys::rd_kafka_event_t) -> Vec<(String, i32, i64)> {
    // SAFETY: everything that is read belongs to the event, which outlives this function.
    unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(event);
        let mut count = 0;
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &mut count);
        let mut offsets = Vec::with_capacity(count);
        for index in 0..count {
            let element = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(index));
            if element.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                offsets.push((text(element.topic), element.partition, element.offset));
            }
        }
        offsets
    }
}

/// # Safety
/// `event` must be a valid result of DescribeTopics.
unsafe fn read_description(event: *mut sys::rd_kafka_event_t) -> Vec<Description> {
    // SAFETY: everything that is read belongs to the event, which outlives this function.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let mut described = Vec::with_capacity(count);
        for index in 0..count {
            described.push(read_topic(*topics.add(index)));
        }
        described
    }
}

/// # Safety
/// `topic` must be valid.
unsafe fn read_topic(topic: *const sys::rd_kafka_TopicDescription_t) -> Description {
    // SAFETY: everything that is read belongs to the description.
    unsafe {
        let name = text(sys::rd_kafka_TopicDescription_name(topic));
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code = if error.is_null() { RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR } else { sys::rd_kafka_error_code(error) };
        let error = (code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| (code.into(), text(sys::rd_kafka_error_string(error))));
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let uuid = sys::rd_kafka_TopicDescription_topic_id(topic);
        let halves =
            if uuid.is_null() { (0, 0) } else { (sys::rd_kafka_Uuid_most_significant_bits(uuid), sys::rd_kafka_Uuid_least_significant_bits(uuid)) };
        Description { name, error, topic_id: uuid_text(halves.0, halves.1), partitions: i32::try_from(partitions).unwrap_or(i32::MAX) }
    }
}

/// A UUID as Kafka's own tools print it: URL-safe base64 without padding. librdkafka's `rd_kafka_Uuid_base64str` prints the standard alphabet, so the halves are encoded here. The all-zero id means none.
fn uuid_text(most: i64, least: i64) -> Option<String> {
    if most == 0 && least == 0 {
        return None;
    }
    let mut bytes = [0; 16];
    let (high, low) = bytes.split_at_mut(8);
    high.copy_from_slice(&most.to_be_bytes());
    low.copy_from_slice(&least.to_be_bytes());
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// # Safety
/// `pointer` must be null or point to `length` bytes that live for `'a`.
unsafe fn bytes<'a>(pointer: *mut c_void, length: usize) -> Option<&'a [u8]> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the caller's contract.
    Some(unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), length) })
}

/// # Safety
/// `pointer` must be null or a NUL-terminated text.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's contract.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// How long the first member of a group waits for others in the mock cluster that `client` owns; 3 s by default. Does nothing for a client without one.
pub(super) fn delay_the_first_join<C: ClientContext>(client: &Client<C>, milliseconds: i32) {
    // SAFETY: the client pointer is valid while `client` lives, and the cluster belongs to it; the call only stores a number under the cluster's own lock.
    unsafe {
        let cluster = sys::rd_kafka_handle_mock_cluster(client.native_ptr());
        if !cluster.is_null() {
            sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, milliseconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

    use super::*;

    #[test]
    fn a_topic_id_is_printed_as_kafka_prints_it() {
        // org.apache.kafka.common.Uuid uses Base64.getUrlEncoder().withoutPadding().
        assert_eq!(uuid_text(-1, -1).as_deref(), Some("_____________________w"));
        assert_eq!(uuid_text(0, 0), None);
        assert_eq!(uuid_text(0, 1).map(|id| id.len()), Some(22));
    }

    #[test]
    fn entries_of_a_list_keep_their_leader_epochs() {
        let mut list = TopicPartitionList::new();
        for partition in 0..3 {
            list.add_partition("orders", partition);
        }
        assert_eq!(leader_epochs(&list), [-1, -1, -1]);
        set_leader_epochs(&mut list, &[7, -1, 9, 11]);
        assert_eq!(leader_epochs(&list), [7, -1, 9]);
    }

    #[test]
    fn a_partition_that_is_assigned_again_at_once_keeps_coming() {
        const TOPIC: &str = "again";
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic(TOPIC, 1, 1).expect("a topic");
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", cluster.bootstrap_servers());
        let producer: BaseProducer = settings.create().expect("a producer");
        producer.send(BaseRecord::<(), str>::to(TOPIC).partition(0).payload("record")).expect("queued");
        producer.flush(Duration::from_secs(10)).expect("produced");

        let consumer: BaseConsumer = settings.set("group.id", "again").set("fetch.wait.max.ms", "10").create().expect("a consumer");
        let consumer = Arc::new(consumer);
        let queue = OwnQueue::new(consumer.clone());
        let mut start = TopicPartitionList::new();
        start.add_partition_offset(TOPIC, 0, Offset::Offset(0)).expect("an offset");
        queue.assign(&start).expect("assigned");
        let mut batch = Batch::new(10);
        for round in 0..300 {
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                queue.consume(Duration::from_millis(5), &mut batch);
                if batch.messages().any(|message| message.error().is_none()) {
                    break;
                }
                assert!(Instant::now() < deadline, "nothing came in round {round}");
            }
            consumer.incremental_unassign(&start).expect("unassigned");
            queue.assign(&start).expect("assigned again");
        }
    }
}
