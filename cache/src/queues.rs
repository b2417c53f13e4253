//! Which block goes when room is needed: S3-FIFO (Yang et al., SOSP 2023).
//!
//! New blocks enter the *small* queue. One that reaches its end goes, unless it was used meanwhile: then it moves on to
//! the *main* queue, in which a block gets another round for each time it was used, three at most. While the small queue has more
//! than a tenth of the limit only its blocks go, so that a scan displaces what it read itself. Blocks that went from
//! the small queue are remembered; who comes back soon enters the main queue at once.
//!
//! Uses by scans don't count ([`Admission`]).

use crate::object::Admission;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The small queue's part of the limit.
const SMALL_PART: u64 = 10;
/// How many uses count.
pub(crate) const USED_MAX: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Small,
    Main,
}

/// A block's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) queue: Queue,
    number: u64,
}

/// A block: its object's location and its number.
pub(crate) type Name = (Arc<str>, u32);

#[derive(Debug, Default)]
struct Line {
    names: BTreeMap<u64, (Name, u64)>,
    bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Queues {
    small: Line,
    main: Line,
    ghosts: Ghosts,
    next: u64,
}

impl Queues {
    /// Where a new block belongs.
    pub(crate) fn admit(&mut self, location: &str, block: u32, admission: Admission) -> Queue {
        if admission == Admission::Normal && self.ghosts.take(hash(location, block)) {
            Queue::Main
        } else {
            Queue::Small
        }
    }

    pub(crate) fn push(&mut self, queue: Queue, name: Name, bytes: u64) -> Turn {
        let number = self.next;
        self.next += 1;
        let line = self.line(queue);
        line.names.insert(number, (name, bytes));
        line.bytes += bytes;
        Turn { queue, number }
    }

    pub(crate) fn remove(&mut self, turn: Turn) {
        let line = self.line(turn.queue);
        if let Some((_, bytes)) = line.names.remove(&turn.number) {
            line.bytes -= bytes;
        }
    }

    /// Takes the next block that may have to go off its queue, and says which queue that was. Who doesn't go is pushed again.
    pub(crate) fn pop(&mut self, capacity: u64) -> Option<(Queue, Name, u64)> {
        let small = self.small.bytes > capacity / SMALL_PART || self.main.names.is_empty();
        let queue = if small && !self.small.names.is_empty() {
            Queue::Small
        } else {
            Queue::Main
        };
        let line = self.line(queue);
        let (_, (name, bytes)) = line.names.pop_first()?;
        line.bytes -= bytes;
        Some((queue, name, bytes))
    }

    /// Remembers a block that went.
    pub(crate) fn bury(&mut self, location: &str, block: u32) {
        let most = self.small.names.len() + self.main.names.len();
        self.ghosts.add(hash(location, block), most);
    }

    fn line(&mut self, queue: Queue) -> &mut Line {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }
}

/// Hashes of the blocks that went last, as many as there are blocks.
#[derive(Debug, Default)]
struct Ghosts {
    order: VecDeque<u64>,
    known: HashSet<u64>,
}

impl Ghosts {
    fn add(&mut self, hash: u64, most: usize) {
        if self.known.insert(hash) {
            self.order.push_back(hash);
        }
        while self.order.len() > most.max(1) {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    fn take(&mut self, hash: u64) -> bool {
        // It stays in `order`: what is known is never more than that.
        self.known.remove(&hash)
    }
}

fn hash(location: &str, block: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (location, block).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> Name {
        (Arc::from("a"), number)
    }

    #[test]
    fn the_small_queue_goes_first_above_its_part() {
        let mut queues = Queues::default();
        queues.push(Queue::Main, name(1), 50);
        queues.push(Queue::Small, name(2), 10);
        let turn = queues.push(Queue::Small, name(3), 10);
        assert_eq!(queues.pop(100), Some((Queue::Small, name(2), 10)));
        assert_eq!(queues.pop(100), Some((Queue::Main, name(1), 50)));
        queues.remove(turn);
        queues.remove(turn);
        assert_eq!(queues.pop(100), None);
        assert_eq!((queues.small.bytes, queues.main.bytes), (0, 0));
    }

    #[test]
    fn who_comes_back_enters_the_main_queue() {
        let mut queues = Queues::default();
        for number in 0..4 {
            queues.push(Queue::Small, name(number), 1);
        }
        queues.bury("a", 10);
        assert_eq!(queues.admit("a", 10, Admission::Scan), Queue::Small);
        assert_eq!(queues.admit("a", 10, Admission::Normal), Queue::Main);
        assert_eq!(queues.admit("a", 10, Admission::Normal), Queue::Small);
        for number in 0..100 {
            queues.bury("b", number);
        }
        assert!(queues.ghosts.order.len() <= 4 && queues.ghosts.known.len() <= 4);
        assert_eq!(queues.admit("b", 0, Admission::Normal), Queue::Small);
        assert_eq!(queues.admit("b", 99, Admission::Normal), Queue::Main);
    }
}
