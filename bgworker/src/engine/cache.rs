//! Decoded columns and Parquet footers, kept over queries.
//!
//! A column of a row group is kept as chunks of [`super::BATCH_ROWS`] rows, which scans slice into
//! batches without a copy. Indexes of pages and Bloom filters are in the same memory. Files never change (invariant
//! I2), so that path and size name their contents. Locks are held for look-ups only, never while reading or decoding; two queries may
//! decode the same column at the same time. Eviction is CLOCK: an entry that was used since the
//! hand passed it gets another round.

use super::bloom::Filter;
use super::pages::PageIndex;
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

/// The index of the pages of a column of a row group, or its Bloom filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct IndexKey {
    pub(super) path: Arc<str>,
    pub(super) size: u64,
    pub(super) row_group: usize,
    pub(super) leaf: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Chunks(ChunkKey),
    Pages(IndexKey),
    Filter(IndexKey),
}

#[derive(Clone, Debug)]
enum Kept {
    Chunks(Chunks),
    Pages(PageIndex),
    Filter(Filter),
}

/// An index takes so many times the bytes that it has in the file, and so many more, at most.
const INDEX_SCALE: usize = 8;
const INDEX_BYTES: usize = 512;

/// Row groups of which rows that were read by pages are counted.
const PAGED_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Cache {
    columns: Mutex<Clock<Key, Kept>>,
    /// Rows that were read by pages, of files and their row groups.
    paged: Mutex<HashMap<(Arc<str>, usize), u64>>,
    footers: Mutex<Clock<(Arc<str>, u64), ArrowReaderMetadata>>,
}

impl Cache {
    /// `limit`: bytes of decoded columns; 0 keeps none.
    pub(super) fn new(limit: usize) -> Self {
        Cache {
            columns: Mutex::new(Clock::new(limit)),
            paged: Mutex::default(),
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
        match lock(&self.columns).get(&Key::Chunks(key.clone()))? {
            Kept::Chunks(chunks) => Some(chunks),
            Kept::Pages(_) | Kept::Filter(_) => None,
        }
    }

    pub(super) fn put(&self, key: ChunkKey, chunks: Vec<ArrayRef>) {
        let bytes: usize = chunks.iter().map(|c| c.get_array_memory_size()).sum();
        if self.admits(bytes) {
            let kept = Kept::Chunks(Arc::new(chunks));
            lock(&self.columns).put(Key::Chunks(key), kept, bytes);
        }
    }

    pub(super) fn page_index(&self, key: &IndexKey) -> Option<PageIndex> {
        match lock(&self.columns).get(&Key::Pages(key.clone()))? {
            Kept::Pages(index) => Some(index),
            Kept::Chunks(_) | Kept::Filter(_) => None,
        }
    }

    /// `encoded`: the bytes that it has in the file.
    pub(super) fn put_page_index(&self, key: IndexKey, index: PageIndex, encoded: usize) {
        let bytes = encoded
            .saturating_mul(INDEX_SCALE)
            .saturating_add(INDEX_BYTES);
        if self.admits(bytes) {
            lock(&self.columns).put(Key::Pages(key), Kept::Pages(index), bytes);
        }
    }

    pub(super) fn filter(&self, key: &IndexKey) -> Option<Filter> {
        match lock(&self.columns).get(&Key::Filter(key.clone()))? {
            Kept::Filter(filter) => Some(filter),
            Kept::Chunks(_) | Kept::Pages(_) => None,
        }
    }

    /// `bytes`: what it has in the file, and about what it takes.
    pub(super) fn put_filter(&self, key: IndexKey, filter: Filter, bytes: usize) {
        let bytes = bytes.saturating_add(INDEX_BYTES);
        if self.admits(bytes) {
            lock(&self.columns).put(Key::Filter(key), Kept::Filter(filter), bytes);
        }
    }

    /// Whether some rows of a row group had better be read by pages, which keeps none of them. Once as many have been as it
    /// has, it is read whole, so that further queries find it here.
    pub(super) fn prefers_pages(
        &self,
        path: &Arc<str>,
        row_group: usize,
        some: u64,
        rows: u64,
    ) -> bool {
        let mut paged = lock(&self.paged);
        if paged.len() >= PAGED_MAX {
            paged.clear();
        }
        let read = paged.entry((path.clone(), row_group)).or_insert(0);
        *read = read.saturating_add(some);
        let is_worth = *read <= rows;
        if !is_worth {
            *read = 0;
        }
        is_worth
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
    use parquet::file::page_index::column_index::ColumnIndexMetaData;

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
    fn a_row_group_is_read_by_pages_until_that_was_as_much_as_the_whole() {
        let cache = Cache::new(0);
        let (one, other): (Arc<str>, Arc<str>) = (Arc::from("one"), Arc::from("other"));
        for _ in 0..2 {
            for _ in 0..3 {
                assert!(cache.prefers_pages(&one, 0, 30, 100));
            }
            assert!(!cache.prefers_pages(&one, 0, 30, 100));
        }
        assert!(cache.prefers_pages(&one, 1, 75, 100));
        assert!(cache.prefers_pages(&other, 0, 75, 100));
        for _ in 0..100 {
            assert!(cache.prefers_pages(&other, 0, 0, 100));
        }
    }

    #[test]
    fn indexes_of_pages_count_as_columns_do() {
        let cache = Cache::new(1 << 20);
        let key = |leaf: usize| IndexKey {
            path: Arc::from("file"),
            size: 1,
            row_group: 0,
            leaf,
        };
        let index = || Arc::new(ColumnIndexMetaData::NONE);
        cache.put_page_index(key(0), index(), 100);
        cache.put_page_index(key(1), index(), 1 << 20);
        assert!(cache.page_index(&key(0)).is_some());
        assert!(cache.page_index(&key(1)).is_none());
        assert_eq!(cache.used(), 100 * INDEX_SCALE + INDEX_BYTES);
        cache.set_limit(0);
        assert!(cache.page_index(&key(0)).is_none());
    }

    #[test]
    fn what_exceeds_the_limit_is_not_kept() {
        let mut clock = Clock::new(3);
        clock.put("large", 1, 4);
        assert_eq!(clock.get(&"large"), None);
        assert_eq!(clock.used, 0);
    }
}
