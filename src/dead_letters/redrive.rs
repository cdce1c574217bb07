//! The queue between who asks for redrives and the part that carries them out.
//!
//! Guarantees that asking never waits and that what was accepted is carried out in order, single letters before the rest of a long one. Bounded: an order of many letters is its filters, not
//! its letters. Survives nothing: after a restart of the process the letters are still there and the redrive is asked for again. Sends nothing.

use tokio::sync::mpsc;

use super::Query;

/// Single letters that wait.
const ONES: usize = 1000;
/// Orders of many letters that wait. An operator gives a few; a program that gives one for each letter should name its id.
const MANY: usize = 16;

/// A new queue: the end to ask at, and the end to take from.
pub fn queue() -> (RedriveQueue, RedriveOrders) {
    let (ones, ones_taken) = mpsc::channel(ONES);
    let (many, many_taken) = mpsc::channel(MANY);
    (RedriveQueue { ones, many }, RedriveOrders { ones: ones_taken, many: many_taken })
}

/// Where redrives are asked for. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct RedriveQueue {
    ones: mpsc::Sender<String>,
    many: mpsc::Sender<Query>,
}

/// Why an order was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many wait.
    #[error("too many redrives wait")]
    Busy,
    /// The instance stops.
    #[error("the instance is shutting down")]
    Stopping,
}

impl<T> From<mpsc::error::TrySendError<T>> for Refused {
    fn from(error: mpsc::error::TrySendError<T>) -> Self {
        match error {
            mpsc::error::TrySendError::Full(_) => Self::Busy,
            mpsc::error::TrySendError::Closed(_) => Self::Stopping,
        }
    }
}

impl RedriveQueue {
    /// Asks for the letter of this id.
    pub fn one(&self, id: String) -> Result<(), Refused> {
        Ok(self.ones.try_send(id)?)
    }

    /// Asks for every letter that matches; `after` and `limit` have no part in it.
    pub fn many(&self, query: Query) -> Result<(), Refused> {
        Ok(self.many.try_send(query)?)
    }
}

/// What was asked for.
#[derive(Debug)]
pub enum Order {
    /// One letter, by its id.
    One(String),
    /// Every letter that matches.
    Many(Query),
}

/// Where orders are taken.
#[derive(Debug)]
pub struct RedriveOrders {
    ones: mpsc::Receiver<String>,
    many: mpsc::Receiver<Query>,
}

impl RedriveOrders {
    /// The next order; `None` when nobody can ask any more. Cancel-safe.
    pub async fn next(&mut self) -> Option<Order> {
        tokio::select! {
            biased;
            Some(id) = self.ones.recv() => Some(Order::One(id)),
            Some(query) = self.many.recv() => Some(Order::Many(query)),
            else => None,
        }
    }

    /// A single letter that waits: it goes between two pages of a long order.
    pub fn waiting_one(&mut self) -> Option<String> {
        self.ones.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_single_letter_does_not_wait_for_a_long_order_and_a_flood_is_refused() {
        let (queue, mut orders) = queue();
        for _ in 0..MANY {
            queue.many(Query::default()).expect("room");
        }
        assert_eq!(queue.many(Query::default()), Err(Refused::Busy));
        queue.one("a:0:1".to_owned()).expect("room");
        assert!(matches!(orders.next().await, Some(Order::One(id)) if id == "a:0:1"));
        assert!(matches!(orders.next().await, Some(Order::Many(_))));
        queue.one("a:0:2".to_owned()).expect("room");
        assert_eq!(orders.waiting_one().as_deref(), Some("a:0:2"));
        assert_eq!(orders.waiting_one(), None);
        drop(orders);
        assert_eq!(queue.one("a:0:3".to_owned()), Err(Refused::Stopping));
        assert_eq!(queue.many(Query::default()), Err(Refused::Stopping));
    }

    #[tokio::test]
    async fn without_anyone_to_ask_there_is_no_next_order() {
        let (_, mut orders) = queue();
        assert!(orders.next().await.is_none());
    }
}
