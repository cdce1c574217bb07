//! The faults that tests inject into a task; nothing of it is in a build without the feature `failpoints`.

use crate::topic::TopicPartition;

/// `partition_task`: on each chunk, the `fail` crate's own actions, `return(TOPIC:N)` to panic in that task, `return(hang)` to wait for ever.
pub(super) async fn partition_task(key: &TopicPartition) {
    if hangs(key) {
        std::future::pending::<()>().await;
    }
}

#[cfg(feature = "failpoints")]
fn hangs(key: &TopicPartition) -> bool {
    fail::fail_point!("partition_task", |argument: Option<String>| {
        let argument = argument.unwrap_or_default();
        if argument == format!("{}:{}", key.topic, key.partition) {
            panic!("failpoint partition_task in {key}");
        }
        argument == "hang"
    });
    false
}

#[cfg(not(feature = "failpoints"))]
fn hangs(_key: &TopicPartition) -> bool {
    false
}
