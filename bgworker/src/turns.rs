//! Who may make a call to a worker: so many at the same time, and fewer about one store, so that a store which doesn't
//! answer leaves some to the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Stores whose calls are counted.
const STORES_MAX: usize = 64;

pub(crate) struct Turns {
    calls: usize,
    all: Arc<Semaphore>,
    stores: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A turn, until this is dropped.
pub(crate) struct Turn {
    _of_store: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
}

impl Turns {
    /// `calls`: at the same time.
    pub fn new(calls: usize) -> Turns {
        Turns {
            calls,
            all: Arc::new(Semaphore::new(calls)),
            stores: Mutex::default(),
        }
    }

    /// Waits for a turn. `store`: the root of the store that the call is about.
    pub async fn take(&self, store: Option<&str>) -> Result<Turn, AcquireError> {
        // While it waits for the one, it keeps nobody from the other.
        let of_store = match store {
            Some(root) => Some(self.of_store(root).acquire_owned().await?),
            None => None,
        };
        Ok(Turn {
            _of_store: of_store,
            _of_all: self.all.clone().acquire_owned().await?,
        })
    }

    /// A turn of a call about no store, if there is one now.
    pub fn try_take(&self) -> Option<Turn> {
        let of_all = self.all.clone().try_acquire_owned().ok()?;
        Some(Turn {
            _of_store: None,
            _of_all: of_all,
        })
    }

    fn of_store(&self, root: &str) -> Arc<Semaphore> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = stores.get(root) {
            return known.clone();
        }
        if stores.len() >= STORES_MAX {
            // Those under way don't count any more.
            stores.clear();
        }
        let calls = (self.calls * 3 / 4).max(1);
        let new = Arc::new(Semaphore::new(calls));
        stores.insert(root.to_owned(), new.clone());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_store_leaves_some_calls_to_others() {
        let turns = Turns::new(8);
        let take = |root| turns.take(root).now_or_never().and_then(Result::ok);
        let mut stuck: Vec<Turn> = (0..6).filter_map(|_| take(Some("s3://a"))).collect();
        assert_eq!(stuck.len(), 6);
        assert!(take(Some("s3://a")).is_none());
        let (other, none) = (take(Some("s3://b")), take(None));
        assert!(other.is_some() && none.is_some());
        assert!(take(Some("s3://b")).is_none() && turns.try_take().is_none());
        stuck.pop();
        assert!(take(Some("s3://a")).is_some());
        drop(other);
        assert!(turns.try_take().is_some());
    }

    #[test]
    fn there_is_always_one() {
        let turns = Turns::new(1);
        let taken = turns.take(Some("s3://a")).now_or_never();
        assert!(taken.is_some() && turns.try_take().is_none());
    }
}
