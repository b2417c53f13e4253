//! The memory of reads from stores: what was asked for together stays within a limit, the urgent go first, and find some
//! that others leave to them. A store that doesn't answer leaves some to the others, too.

use pg_lake_plan::message::Priority;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Every so many turns the least urgent goes first, so that it gets on.
const TURNS: u64 = 16;

/// The memory of all reads of a worker.
#[derive(Clone)]
pub(super) struct ReadMemory {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Bytes.
    limit: u64,
    used: u64,
    of_stores: HashMap<Arc<str>, u64>,
    turns: u64,
    interactive: VecDeque<Waiting>,
    ahead: VecDeque<Waiting>,
    background: VecDeque<Waiting>,
}

struct Waiting {
    store: Arc<str>,
    bytes: u64,
    priority: Priority,
    sender: oneshot::Sender<Share>,
}

/// Memory that a read has until this is dropped.
pub(super) struct Share {
    memory: ReadMemory,
    store: Arc<str>,
    bytes: u64,
}

/// Whether a read can have its memory now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Yes,
    /// Its store has its part already. Others needn't wait for that.
    StoreIsFull,
    No,
}

impl ReadMemory {
    pub fn new(limit: u64) -> ReadMemory {
        ReadMemory {
            state: Arc::new(Mutex::new(State {
                limit,
                used: 0,
                of_stores: HashMap::new(),
                turns: 0,
                interactive: VecDeque::new(),
                ahead: VecDeque::new(),
                background: VecDeque::new(),
            })),
        }
    }

    /// What one read may ask for to have a place beside a store that doesn't answer.
    pub fn of_one(&self) -> u64 {
        self.lock().limit / 4
    }

    /// In bytes. What is in use stays so.
    pub fn set_limit(&self, limit: u64) {
        self.lock().limit = limit;
        self.hand_out();
    }

    /// Waits for memory; may be dropped meanwhile. What is more than a store may have gets all of that.
    /// `None`: never.
    pub async fn take(&self, store: &str, bytes: u64, priority: Priority) -> Option<Share> {
        let (sender, receiver) = oneshot::channel();
        let waiting = Waiting {
            store: store.into(),
            bytes,
            priority,
            sender,
        };
        {
            let mut state = self.lock();
            match priority {
                Priority::Interactive => &mut state.interactive,
                Priority::Ahead => &mut state.ahead,
                Priority::Background => &mut state.background,
            }
            .push_back(waiting);
        }
        self.hand_out();
        receiver.await.ok()
    }

    /// Gives memory to those who wait for it, as far as there is some.
    fn hand_out(&self) {
        loop {
            let next = self.lock().next();
            let Some(Waiting {
                store,
                bytes,
                sender,
                ..
            }) = next
            else {
                return;
            };
            let share = Share {
                memory: self.clone(),
                store,
                bytes,
            };
            // Outside of the lock: a share that nobody takes is dropped here.
            drop(sender.send(share));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who gets memory now; it is counted.
    fn next(&mut self) -> Option<Waiting> {
        let (queue, at) = self.choose()?;
        let mut queues = self.queues();
        let mut waiting = queues.get_mut(queue)?.remove(at)?;
        waiting.bytes = waiting.bytes.min(self.of_store(waiting.priority));
        self.turns += 1;
        self.used += waiting.bytes;
        *self.of_stores.entry(waiting.store.clone()).or_default() += waiting.bytes;
        Some(waiting)
    }

    /// The queue, and the place in it.
    fn choose(&mut self) -> Option<(usize, usize)> {
        for queue in self.queues() {
            queue.retain(|waiting| !waiting.sender.is_closed());
        }
        let mut order = [0, 1, 2];
        let is_reversed = (self.turns + 1).is_multiple_of(TURNS);
        if is_reversed {
            order.reverse();
        }
        let queues = [&self.interactive, &self.ahead, &self.background];
        for number in order {
            let queue = queues.get(number)?;
            for (at, waiting) in queue.iter().enumerate() {
                // What is left to the urgent is not what one waits for whose turn it is: a store that doesn't answer may
                // have the rest, and the urgent wait, too.
                let of_all = match is_reversed {
                    true => self.limit,
                    false => self.of_all(waiting.priority),
                };
                match self.fit(waiting, of_all) {
                    Fit::Yes => return Some((number, at)),
                    Fit::StoreIsFull => {}
                    // Nobody overtakes who needs more.
                    Fit::No => return None,
                }
            }
        }
        None
    }

    fn fit(&self, waiting: &Waiting, of_all: u64) -> Fit {
        let most = self.of_store(waiting.priority);
        let bytes = waiting.bytes.min(most);
        let has = self.of_stores.get(&waiting.store).copied().unwrap_or(0);
        if has > 0 && has + bytes > most {
            return Fit::StoreIsFull;
        }
        // Alone it always fits, also if the limit was lowered.
        if self.used > 0 && self.used + bytes > of_all {
            return Fit::No;
        }
        Fit::Yes
    }

    /// What all may have for somebody to get more.
    fn of_all(&self, priority: Priority) -> u64 {
        match priority {
            Priority::Interactive => self.limit,
            Priority::Ahead | Priority::Background => self.limit / 4 * 3,
        }
    }

    /// The same of one store.
    fn of_store(&self, priority: Priority) -> u64 {
        match priority {
            Priority::Interactive => self.limit / 4 * 3,
            Priority::Ahead | Priority::Background => self.limit / 2,
        }
    }

    fn queues(&mut self) -> [&mut VecDeque<Waiting>; 3] {
        [&mut self.interactive, &mut self.ahead, &mut self.background]
    }

    fn give_back(&mut self, store: &Arc<str>, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
        if let Some(of_store) = self.of_stores.get_mut(store) {
            *of_store = of_store.saturating_sub(bytes);
            if *of_store == 0 {
                self.of_stores.remove(store);
            }
        }
    }
}

impl Share {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.lock().give_back(&self.store, self.bytes);
        self.memory.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::BoxFuture;

    const A: &str = "s3://a";
    const B: &str = "s3://b";

    /// Waits in the queue once this returns.
    fn waiting(
        memory: &ReadMemory,
        store: &'static str,
        bytes: u64,
        priority: Priority,
    ) -> BoxFuture<'static, Option<Share>> {
        let memory = memory.clone();
        let mut future = async move { memory.take(store, bytes, priority).await }.boxed();
        assert!((&mut future).now_or_never().is_none());
        future
    }

    fn take(memory: &ReadMemory, store: &str, bytes: u64) -> Share {
        let taken = memory.take(store, bytes, Priority::Interactive);
        let taken = taken.now_or_never();
        taken.flatten().expect("memory")
    }

    fn got(future: &mut BoxFuture<'static, Option<Share>>) -> Option<Share> {
        future.now_or_never().flatten()
    }

    #[test]
    fn the_urgent_go_first_and_all_stay_within_the_limit() {
        let memory = ReadMemory::new(100);
        let (first, second) = (take(&memory, A, 70), take(&memory, B, 30));
        let mut background = waiting(&memory, B, 15, Priority::Background);
        let mut ahead = waiting(&memory, A, 70, Priority::Ahead);
        let mut urgent = waiting(&memory, A, 60, Priority::Interactive);
        drop(second);
        assert!(got(&mut urgent).is_none(), "its store has 70");
        assert!(
            got(&mut background).is_none(),
            "30 are left, for the urgent"
        );
        drop(first);
        let urgent = got(&mut urgent).expect("the urgent one");
        assert!(got(&mut ahead).is_none());
        // Its store is full, the other one's is not.
        let background = got(&mut background).expect("the one of another store");
        assert_eq!(memory.lock().used, 75);
        drop(background);
        assert!(got(&mut ahead).is_none());
        drop(urgent);
        drop(got(&mut ahead).expect("the last one"));
        assert_eq!(memory.lock().used, 0);
        assert!(memory.lock().of_stores.is_empty());
    }

    #[test]
    fn a_store_that_does_not_answer_leaves_some_to_others() {
        let memory = ReadMemory::new(100);
        let stuck = [take(&memory, A, 40), take(&memory, A, 35)];
        let mut more = waiting(&memory, A, 1, Priority::Interactive);
        for _ in 0..3 {
            drop(take(&memory, B, 25));
        }
        assert!(got(&mut more).is_none());
        drop(stuck);
        assert!(got(&mut more).is_some());
    }

    /// Whose turn it is waits for what the others give back, not for the store.
    #[test]
    fn a_store_that_does_not_answer_keeps_no_turn() {
        let memory = ReadMemory::new(100);
        let _stuck = [take(&memory, A, 40), take(&memory, A, 35)];
        let mut background = waiting(&memory, B, 25, Priority::Background);
        for _ in 0..TURNS {
            if got(&mut background).is_some() {
                return;
            }
            drop(take(&memory, B, 25));
        }
        panic!("never served");
    }

    #[test]
    fn reading_ahead_leaves_some_to_the_urgent() {
        let memory = ReadMemory::new(100);
        let ahead = memory.take(A, 1000, Priority::Ahead).now_or_never();
        let ahead = ahead.flatten().expect("half of it");
        let mut more = waiting(&memory, A, 1, Priority::Ahead);
        let urgent = [take(&memory, A, 25), take(&memory, B, 25)];
        assert_eq!(memory.lock().used, 100);
        drop(urgent);
        assert!(got(&mut more).is_none());
        drop(ahead);
        assert!(got(&mut more).is_some());
    }

    #[test]
    fn what_is_large_gets_its_turn_and_is_not_overtaken() {
        let memory = ReadMemory::new(100);
        let small = take(&memory, A, 30);
        let mut large = waiting(&memory, B, 1000, Priority::Ahead);
        let mut next = waiting(&memory, "s3://c", 10, Priority::Ahead);
        assert!(got(&mut next).is_none());
        drop(small);
        let large = got(&mut large).expect("what a store may have");
        assert_eq!(memory.lock().used, 60);
        drop(got(&mut next).expect("there is room for both"));
        drop(large);
        memory.set_limit(10);
        let first = take(&memory, A, 100);
        let mut other = waiting(&memory, B, 100, Priority::Interactive);
        memory.set_limit(100);
        assert!(got(&mut other).is_some());
        drop(first);
    }

    #[test]
    fn who_no_longer_waits_takes_nothing() {
        let memory = ReadMemory::new(100);
        let first = take(&memory, A, 70);
        let gone = waiting(&memory, A, 70, Priority::Interactive);
        let mut served = waiting(&memory, A, 70, Priority::Background);
        let given_and_gone = waiting(&memory, A, 70, Priority::Interactive);
        drop(gone);
        drop(first);
        // It has been sent to the one that goes now.
        assert!(got(&mut served).is_none());
        drop(given_and_gone);
        drop(got(&mut served).expect("memory"));
        assert_eq!(memory.lock().used, 0);
    }

    #[test]
    fn the_least_urgent_get_on() {
        let memory = ReadMemory::new(100);
        let mut current = take(&memory, A, 75);
        let mut background = waiting(&memory, A, 75, Priority::Background);
        for _ in 0..TURNS {
            let mut urgent = waiting(&memory, A, 75, Priority::Interactive);
            drop(current);
            match got(&mut urgent) {
                Some(share) => current = share,
                None => {
                    assert!(got(&mut background).is_some());
                    return;
                }
            }
        }
        panic!("never served");
    }
}
