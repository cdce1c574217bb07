//! Where drover's keys are in etcd. Pure.

use crate::topic::TopicName;

/// The keys under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// The prefix without a slash at its end.
    prefix: String,
}

/// What a key in the watched range is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A topic's entry.
    Topic(TopicName),
    /// A pause.
    Pause(TopicName),
    /// In one of our folders but not what belongs there; why.
    Misplaced(String),
    /// None of our business.
    Foreign,
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.trim_end_matches('/').to_owned() }
    }

    /// The folder of everything, such as `drover/`.
    pub(super) fn root(&self) -> String {
        format!("{}/", self.prefix)
    }

    pub(super) fn topics(&self) -> String {
        format!("{}/topics/", self.prefix)
    }

    pub(super) fn pauses(&self) -> String {
        format!("{}/pauses/", self.prefix)
    }

    pub(super) fn changes(&self) -> String {
        format!("{}/changes/", self.prefix)
    }

    pub(super) fn facts(&self, topic: &TopicName) -> String {
        format!("{}/facts/{topic}", self.prefix)
    }

    pub(super) fn topic(&self, topic: &TopicName) -> String {
        format!("{}{topic}", self.topics())
    }

    pub(super) fn pause(&self, topic: &TopicName) -> String {
        format!("{}{topic}", self.pauses())
    }

    pub(super) fn change(&self, id: &str) -> String {
        format!("{}{id}", self.changes())
    }

    /// A random text that is written once, so an etcd with another past is told apart even if its revisions have overtaken ours.
    pub(super) fn identity(&self) -> String {
        format!("{}/identity", self.prefix)
    }

    /// One range with the pauses and the topics (and what lies between), so that one watcher brings the events of one revision together.
    pub(super) fn watched(&self) -> (String, Vec<u8>) {
        (self.pauses(), end_of(&self.topics()))
    }

    /// What a key is.
    pub(super) fn place(&self, key: &[u8]) -> Place {
        if let Some(name) = key.strip_prefix(self.topics().as_bytes()) {
            return topic_name(name).map_or_else(Place::Misplaced, Place::Topic);
        }
        if let Some(name) = key.strip_prefix(self.pauses().as_bytes()) {
            return topic_name(name).map_or_else(Place::Misplaced, Place::Pause);
        }
        Place::Foreign
    }
}

fn topic_name(name: &[u8]) -> Result<TopicName, String> {
    let text = std::str::from_utf8(name).map_err(|_| "the name is not UTF-8".to_owned())?;
    TopicName::new(text).map_err(|error| error.to_string())
}

/// The end of the range of all keys that begin with `folder`, whose last byte is a slash.
pub(super) fn end_of(folder: &str) -> Vec<u8> {
    let mut end = folder.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        // '/' + 1
        *last = b'0';
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_at_the_wrong_depth_are_no_topics() {
        let layout = Layout::new("/team/drover");
        let name = TopicName::new("a").expect("legal");
        assert_eq!(layout.place(b"/team/drover/topics/a"), Place::Topic(name.clone()));
        assert_eq!(layout.place(b"/team/drover/pauses/a"), Place::Pause(name.clone()));
        for key in [
            &b"/team/drover/topics/"[..],
            b"/team/drover/topics/a/b",
            b"/team/drover/topics//a",
            b"/team/drover/topics/\xff",
            b"/team/drover/pauses/..",
        ] {
            assert!(matches!(layout.place(key), Place::Misplaced(_)), "{}", String::from_utf8_lossy(key));
        }
        for key in [&b"/team/drover/topics"[..], b"/team/drover/topicsX/a", b"/team/drover/facts/a", b"team/drover/topics/a"] {
            assert_eq!(layout.place(key), Place::Foreign);
        }
        assert_eq!(layout.place(layout.topic(&name).as_bytes()), Place::Topic(name));
    }

    #[test]
    fn the_watched_range_leaves_out_changes_facts_and_neighbours() {
        let layout = Layout::new("drover");
        let (from, to) = layout.watched();
        let is_watched = |key: &str| key.as_bytes() >= from.as_bytes() && key.as_bytes() < to.as_slice();
        assert!(is_watched("drover/pauses/a") && is_watched("drover/topics/~"));
        assert!(!is_watched("drover/changes/x") && !is_watched("drover/facts/x") && !is_watched("drover/identity"));
        assert!(!is_watched("drover/topics0") && !is_watched("drover2/topics/a"));
    }
}
