//! Who goes first where a store may serve only so many requests at once.

use pg_lake_plan::message::Priority;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Every so many turns the least urgent goes first, so that it gets on.
const TURNS: u64 = 16;

/// A semaphore that serves `Interactive` before `Ahead` before `Background`, each in the order in
/// which they came.
#[derive(Clone, Debug)]
pub(super) struct Places {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Above 0 only while nobody waits.
    free: usize,
    turns: u64,
    interactive: VecDeque<oneshot::Sender<Place>>,
    ahead: VecDeque<oneshot::Sender<Place>>,
    background: VecDeque<oneshot::Sender<Place>>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// `None`: it was passed on.
    places: Option<Places>,
}

impl Places {
    pub fn new(places: usize) -> Places {
        Places {
            state: Arc::new(Mutex::new(State {
                free: places.max(1),
                turns: 0,
                interactive: VecDeque::new(),
                ahead: VecDeque::new(),
                background: VecDeque::new(),
            })),
        }
    }

    /// Waits for a place. May be dropped meanwhile.
    pub async fn acquire(&self, priority: Priority) -> Place {
        loop {
            let receiver = {
                let mut state = self.lock();
                if state.free > 0 {
                    state.free -= 1;
                    return self.place();
                }
                let (sender, receiver) = oneshot::channel();
                match priority {
                    Priority::Interactive => &mut state.interactive,
                    Priority::Ahead => &mut state.ahead,
                    Priority::Background => &mut state.background,
                }
                .push_back(sender);
                receiver
            };
            if let Ok(place) = receiver.await {
                return place;
            }
        }
    }

    fn place(&self) -> Place {
        Place {
            places: Some(self.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place to the next one who still wants it.
    fn release(&self) {
        loop {
            // Sending has to be outside of the lock: a place that isn't taken is dropped there.
            let next = {
                let mut state = self.lock();
                let next = state.next();
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            match next.map(|next| next.send(self.place())) {
                None | Some(Ok(())) => return,
                Some(Err(mut refused)) => refused.places = None,
            }
        }
    }
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        self.turns += 1;
        let mut queues = [&mut self.interactive, &mut self.ahead, &mut self.background];
        if self.turns.is_multiple_of(TURNS) {
            queues.reverse();
        }
        queues.into_iter().find_map(VecDeque::pop_front)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.places.take() {
            places.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::BoxFuture;

    /// Waits in the queue once this returns.
    fn waiting(places: &Places, priority: Priority) -> BoxFuture<'static, Place> {
        let places = places.clone();
        let mut future = async move { places.acquire(priority).await }.boxed();
        assert!((&mut future).now_or_never().is_none());
        future
    }

    fn got(future: &mut BoxFuture<'static, Place>) -> Option<Place> {
        future.now_or_never()
    }

    #[test]
    fn the_urgent_go_first() {
        let places = Places::new(1);
        let first = places.acquire(Priority::Background).now_or_never();
        let mut background = waiting(&places, Priority::Background);
        let mut ahead = waiting(&places, Priority::Ahead);
        let mut second = waiting(&places, Priority::Interactive);
        let mut third = waiting(&places, Priority::Interactive);
        drop(first.expect("a place"));
        assert!(got(&mut third).is_none());
        drop(got(&mut second).expect("the first of the urgent"));
        drop(got(&mut third).expect("the second"));
        assert!(got(&mut background).is_none());
        drop(got(&mut ahead).expect("then what is read ahead"));
        drop(got(&mut background).expect("then the rest"));
        assert!(places.acquire(Priority::Ahead).now_or_never().is_some());
    }

    #[test]
    fn who_no_longer_waits_takes_no_place() {
        let places = Places::new(1);
        let first = places.acquire(Priority::Ahead).now_or_never();
        let gone = waiting(&places, Priority::Interactive);
        let mut served = waiting(&places, Priority::Ahead);
        let given_and_gone = waiting(&places, Priority::Interactive);
        drop(gone);
        drop(first.expect("a place"));
        // It has been sent to the one that goes now.
        assert!(got(&mut served).is_none());
        drop(given_and_gone);
        drop(got(&mut served).expect("a place"));
        assert_eq!(places.lock().free, 1);
    }

    #[test]
    fn the_least_urgent_get_on() {
        let places = Places::new(1);
        let mut current = places
            .acquire(Priority::Ahead)
            .now_or_never()
            .expect("a place");
        let mut background = waiting(&places, Priority::Background);
        for turn in 1..=TURNS {
            let mut urgent = waiting(&places, Priority::Interactive);
            drop(current);
            match got(&mut urgent) {
                Some(place) => current = place,
                None => {
                    assert_eq!(turn, TURNS);
                    assert!(got(&mut background).is_some());
                    return;
                }
            }
        }
        panic!("never served");
    }
}
