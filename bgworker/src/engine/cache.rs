//! Decoded columns and Parquet footers, kept over queries.
//!
//! A column of a row group is kept as chunks of [`super::BATCH_ROWS`] rows, which scans slice into
//! batches without a copy. Files never change (invariant I2), so that path and size name their
//! contents. Locks are held for look-ups only, never while reading or decoding; two queries may
//! decode the same column at the same time. Eviction is CLOCK: an entry that was used since the
//! hand passed it gets another round.

use arrow::array::{Array, ArrayRef};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use pg_lake_plan::types::LakeType;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// The chunks of one column of one row group.
pub(super) type Chunks = Arc<Vec<ArrayRef>>;

/// Footers are kept for that many files.
const MAX_FOOTERS: usize = 4096;

/// One entry may take this fraction of the limit.
const LARGEST: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChunkKey {
    pub(super) path: Arc<str>,
    pub(super) size: u64,
    pub(super) row_group: usize,
    pub(super) field: i32,
    /// The same field can be read as another type after ALTER TABLE.
    pub(super) ty: LakeType,
}

#[derive(Debug)]
pub(super) struct Cache {
    columns: Mutex<Clock<ChunkKey, Chunks>>,
    footers: Mutex<Clock<(Arc<str>, u64), ArrowReaderMetadata>>,
}

impl Cache {
    /// `limit`: bytes of decoded columns; 0 keeps none.
    pub(super) fn new(limit: usize) -> Self {
        Cache {
            columns: Mutex::new(Clock::new(limit)),
            footers: Mutex::new(Clock::new(MAX_FOOTERS)),
        }
    }

    pub(super) fn set_limit(&self, limit: usize) {
        let mut columns = lock(&self.columns);
        columns.limit = limit;
        columns.shrink(0);
    }

    /// Bytes of the decoded columns.
    pub(super) fn used(&self) -> usize {
        lock(&self.columns).used
    }

    /// The most bytes of decoded columns.
    pub(super) fn limit(&self) -> usize {
        lock(&self.columns).limit
    }

    /// Bytes until the limit.
    pub(super) fn free(&self) -> usize {
        let columns = lock(&self.columns);
        columns.limit.saturating_sub(columns.used)
    }

    /// Whether a column of that many bytes would be kept.
    pub(super) fn admits(&self, bytes: usize) -> bool {
        bytes <= lock(&self.columns).limit / LARGEST
    }

    pub(super) fn get(&self, key: &ChunkKey) -> Option<Chunks> {
        lock(&self.columns).get(key)
    }

    pub(super) fn put(&self, key: ChunkKey, chunks: Vec<ArrayRef>) {
        let bytes: usize = chunks.iter().map(|c| c.get_array_memory_size()).sum();
        if self.admits(bytes) {
            lock(&self.columns).put(key, Arc::new(chunks), bytes);
        }
    }

    pub(super) fn footer(&self, path: &Arc<str>, size: u64) -> Option<ArrowReaderMetadata> {
        lock(&self.footers).get(&(path.clone(), size))
    }

    pub(super) fn put_footer(&self, path: Arc<str>, size: u64, footer: ArrowReaderMetadata) {
        lock(&self.footers).put((path, size), footer, 1);
    }
}

/// Nothing in here is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bounded map.
#[derive(Debug)]
struct Clock<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Every key once, in the order in which the hand reaches them.
    hand: VecDeque<K>,
    used: usize,
    limit: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: usize,
    referenced: bool,
}

impl<K: Clone + Eq + Hash, V: Clone> Clock<K, V> {
    fn new(limit: usize) -> Self {
        Clock {
            entries: HashMap::new(),
            hand: VecDeque::new(),
            used: 0,
            limit,
        }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        entry.referenced = true;
        Some(entry.value.clone())
    }

    fn put(&mut self, key: K, value: V, weight: usize) {
        if weight > self.limit || self.entries.contains_key(&key) {
            return;
        }
        self.shrink(weight);
        self.used += weight;
        self.hand.push_back(key.clone());
        let entry = Entry {
            value,
            weight,
            referenced: false,
        };
        self.entries.insert(key, entry);
    }

    /// Evicts until `room` fits.
    fn shrink(&mut self, room: usize) {
        while self.used + room > self.limit {
            let Some(key) = self.hand.pop_front() else {
                return;
            };
            match self.entries.get_mut(&key) {
                Some(entry) if entry.referenced => {
                    entry.referenced = false;
                    self.hand.push_back(key);
                }
                Some(entry) => {
                    self.used -= entry.weight;
                    self.entries.remove(&key);
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hand_spares_what_was_used() {
        let mut clock = Clock::new(3);
        for key in 0..3 {
            clock.put(key, key * 10, 1);
        }
        assert_eq!(clock.get(&0), Some(0));
        clock.put(3, 30, 1);
        assert_eq!(clock.get(&0), Some(0));
        assert_eq!(clock.get(&1), None);
        assert_eq!(clock.used, 3);
        clock.limit = 1;
        clock.shrink(0);
        assert_eq!(clock.used, 1);
    }

    #[test]
    fn what_exceeds_the_limit_is_not_kept() {
        let mut clock = Clock::new(3);
        clock.put("large", 1, 4);
        assert_eq!(clock.get(&"large"), None);
        assert_eq!(clock.used, 0);
    }
}
