//! Blocks that somebody is fetching right now, so that nobody else does.
//!
//! Who misses a block first leads: a task of its own fetches the block, and the reader waits for it like all others. So nothing happens
//! to them when that reader goes away. A task that panics drops its [`Lead`]s, by which those who wait see that they must
//! try themselves.

use crate::object::Admission;
use bytes::Bytes;
use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::sync::watch;

/// What became of a block.
pub(crate) type Outcome = Result<Bytes, Failure>;

#[derive(Clone)]
pub(crate) enum Failure {
    /// An error of the leader's [`crate::Origin`].
    Origin(Arc<dyn Any + Send + Sync>),
    Corrupt,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) location: Arc<str>,
    pub(crate) size: u64,
    pub(crate) block: u32,
}

#[derive(Default)]
pub(crate) struct Flights {
    flights: HashMap<Key, Flight>,
}

struct Flight {
    outcome: watch::Receiver<Option<Outcome>>,
    /// The read that leads.
    call: u64,
    admission: Arc<AtomicU8>,
}

/// A reader's end.
pub(crate) struct Wait {
    outcome: watch::Receiver<Option<Outcome>>,
    /// Whether it is the reader's own call that leads.
    pub(crate) own: bool,
}

/// The fetching task's end.
pub(crate) struct Lead {
    pub(crate) block: u32,
    outcome: watch::Sender<Option<Outcome>>,
    /// The most welcoming one of all who wait.
    admission: Arc<AtomicU8>,
}

impl Flights {
    /// Waits for a block, and leads if nobody does yet.
    pub(crate) fn join(
        &mut self,
        key: Key,
        admission: Admission,
        call: u64,
    ) -> (Wait, Option<Lead>) {
        if let Some(flight) = self.flights.get(&key) {
            flight
                .admission
                .fetch_min(admission as u8, Ordering::Relaxed);
            let wait = Wait {
                outcome: flight.outcome.clone(),
                own: flight.call == call,
            };
            return (wait, None);
        }
        let (sender, receiver) = watch::channel(None);
        let admission = Arc::new(AtomicU8::new(admission as u8));
        let lead = Lead {
            block: key.block,
            outcome: sender,
            admission: admission.clone(),
        };
        let flight = Flight {
            outcome: receiver.clone(),
            call,
            admission,
        };
        self.flights.insert(key, flight);
        let wait = Wait {
            outcome: receiver,
            own: true,
        };
        (wait, Some(lead))
    }

    /// Whoever wants the block from now on has to look for it again.
    pub(crate) fn end(&mut self, key: &Key, call: u64) {
        if self
            .flights
            .get(key)
            .is_some_and(|flight| flight.call == call)
        {
            self.flights.remove(key);
        }
    }

    /// The block is in the cache: it needn't be waited for any more.
    pub(crate) fn land(&mut self, key: &Key) {
        self.flights.remove(key);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }
}

impl Wait {
    /// `None`: the task is gone.
    pub(crate) async fn landed(mut self) -> Option<Outcome> {
        let outcome = self.outcome.wait_for(Option::is_some).await;
        outcome.ok().and_then(|outcome| outcome.clone())
    }
}

impl Lead {
    pub(crate) fn land(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    /// Whether somebody waits. It can only change from no to yes while the shard is not locked.
    pub(crate) fn is_wanted(&self) -> bool {
        // One receiver is the flight's own.
        self.outcome.receiver_count() > 1
    }

    pub(crate) fn admission(&self) -> Admission {
        Admission::from_code(self.admission.load(Ordering::Relaxed))
    }
}
