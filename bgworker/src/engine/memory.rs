//! The engine's memory budget: one limit for all queries, one within it for each.
//!
//! What spills gets the memory that it needs to go on, beyond the limits if need be:
//!
//! * Each sort and aggregation has [`ASSURED_BYTES`] in any case, enough for two batches, and a sort one batch, however
//!   large; a merge of what is sorted has all that is there beyond the limits.
//! * What one of them gives back to write it to a file it gets once more: DataFusion's aggregation frees its groups, and
//!   then asks for the memory to sort them.
//!
//! All that is at most a quarter of a limit, or [`BEYOND_LEAST`].

use super::handed::locked;
use datafusion_common::{DataFusionError, Result};
use datafusion_execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What a reservation of an operator that spills may have in any case.
const ASSURED_BYTES: usize = 4 << 20;

/// A merge that has less, or less than two files like the next one take, takes one more in any case.
const ASSURED_TO_MERGE: usize = 8 << 20;

/// What a merge of sorted partitions has in any case: of each a batch, and one more.
const ASSURED_TO_MERGE_PARTITIONS: usize = 16 << 20;

/// By so much a limit may be exceeded for it, if a quarter is less.
const BEYOND_LEAST: usize = 16 << 20;

/// Begins the names of memory that a query can do without.
const OPTIONAL: &str = "Optional";

/// Begin the names of DataFusion's operators that spill, or merge what was spilled.
const SPILLING: [&str; 3] = [
    "ExternalSorter",
    "GroupedHashAggregateStream",
    MERGING_PARTITIONS,
];

/// Begins the names of a sort's own merges.
const MERGING: &str = "ExternalSorterMerge";

/// Begins the names of those whose input is files: what they take is so much for each file, before they begin.
pub(super) const MERGING_FILES: &str = "ExternalSorterMergeFiles";

/// Begins the names of merges of sorted partitions.
const MERGING_PARTITIONS: &str = "SortPreservingMergeExec";

/// Begins the names of sorts, and of their merges.
const SORTING: &str = "ExternalSorter";

/// What all running queries share. Its limit can change while they run.
#[derive(Debug)]
pub(super) struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Budget {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
        }
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The pool of one query: bounded by its own limit and by the [`Budget`].
#[derive(Debug)]
pub(super) struct QueryPool {
    budget: Arc<Budget>,
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
    /// What operators that spill have given back since they last took some, by their consumers.
    given_back: Mutex<HashMap<usize, usize>>,
    /// What sorts have given back for their merges, which will take it, by partition; and the sum.
    owed: Mutex<HashMap<String, usize>>,
    owed_bytes: AtomicUsize,
}

impl QueryPool {
    /// `limit` 0: only the budget bounds the query.
    pub(super) fn new(budget: Arc<Budget>, limit: u64) -> Self {
        QueryPool {
            budget,
            limit: match usize::try_from(limit) {
                Ok(0) | Err(_) => usize::MAX,
                Ok(limit) => limit,
            },
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            given_back: Mutex::default(),
            owed: Mutex::default(),
            owed_bytes: AtomicUsize::new(0),
        }
    }

    /// Whether this much more is there for a reservation beyond the limits.
    fn is_assured(&self, reservation: &MemoryReservation, additional: usize) -> bool {
        let consumer = reservation.consumer();
        if !spills(consumer) {
            return false;
        }
        let given_back = locked(&self.given_back).remove(&consumer.id());
        match Role::of(consumer) {
            // Its sort, which can spill, has left it what it could: without the rest the query would end.
            Role::Merge => return true,
            // So it would if there were no room for the only batch.
            Role::Sort if reservation.size() == 0 => return true,
            Role::Sort | Role::Other => {}
        }
        let assured = match consumer.name().starts_with(MERGING_PARTITIONS) {
            true => ASSURED_TO_MERGE_PARTITIONS,
            false => ASSURED_BYTES,
        };
        let few = reservation.size().saturating_add(additional) <= assured;
        few || given_back.is_some_and(|bytes| additional <= bytes)
    }

    /// A sort gives its batches back as they are sorted, and its merge takes them again, with their keys. Meanwhile no other
    /// sort may take what it needs.
    fn owe(&self, consumer: &MemoryConsumer, change: impl Fn(usize) -> usize) {
        let Some((_, partition)) = consumer.name().split_once('[') else {
            return;
        };
        let mut owed = locked(&self.owed);
        match change(owed.get(partition).copied().unwrap_or(0)) {
            0 => owed.remove(partition),
            bytes => owed.insert(partition.to_owned(), bytes),
        };
        self.owed_bytes
            .store(owed.values().sum(), Ordering::Relaxed);
    }

    fn try_take(
        &self,
        additional: usize,
        bound: impl Fn(usize) -> usize,
    ) -> std::result::Result<(), Full> {
        let used = take(&self.used, additional, bound(self.limit)).map_err(|used| Full {
            used,
            limit: self.limit,
        })?;
        let limit = self.budget.limit.load(Ordering::Relaxed);
        if let Err(in_use) = take(&self.budget.used, additional, bound(limit)) {
            self.used.fetch_sub(additional, Ordering::Relaxed);
            return Err(Full {
                used: in_use,
                limit,
            });
        }
        self.peak.fetch_max(used + additional, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed) as u64
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lake(used: {})", self.used.load(Ordering::Relaxed))
    }
}

/// Adds within a limit; `Err` is what was used already.
fn take(used: &AtomicUsize, additional: usize, limit: usize) -> std::result::Result<usize, usize> {
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        used.checked_add(additional).filter(|total| *total <= limit)
    })
}

/// A limit that has been reached.
struct Full {
    used: usize,
    limit: usize,
}

/// Memory that a query can do without: it leaves as much as what can spill does.
pub(super) fn optional(name: &str) -> MemoryConsumer {
    MemoryConsumer::new(format!("{OPTIONAL}{name}")).with_can_spill(true)
}

fn spills(consumer: &MemoryConsumer) -> bool {
    let name = consumer.name();
    SPILLING.iter().any(|spilling| name.starts_with(spilling))
}

/// What a reservation is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Sort,
    Merge,
    Other,
}

impl Role {
    fn of(consumer: &MemoryConsumer) -> Self {
        let name = consumer.name();
        if name.starts_with(MERGING) {
            Role::Merge
        } else if name.starts_with(SORTING) {
            Role::Sort
        } else {
            Role::Other
        }
    }
}

/// How much of a limit a reservation may use up.
#[derive(Clone, Copy)]
enum Share {
    All,
    /// What can spill leaves an eighth to what can't: sorted batches are merged while they fill what there is.
    Spilling,
    /// A sort leaves a quarter: its merge has the sorted batches and their keys at once, which may be as large as these.
    Sorting,
    /// One more file of a merge that has some leaves three quarters. Without it there is one merge more; what another sort
    /// lacks ends the query, as does what is lacking to merge partitions.
    MoreFiles,
}

impl Share {
    fn of(reservation: &MemoryReservation, additional: usize) -> Self {
        let consumer = reservation.consumer();
        let role = Role::of(consumer);
        if role == Role::Sort {
            return Share::Sorting;
        }
        if consumer.can_spill() {
            return Share::Spilling;
        }
        let has_two = reservation.size() >= ASSURED_TO_MERGE.max(additional.saturating_mul(2));
        match consumer.name().starts_with(MERGING_FILES) && has_two {
            true => Share::MoreFiles,
            false => Share::All,
        }
    }

    fn of_limit(self, limit: usize) -> usize {
        match self {
            Share::All => limit,
            Share::Spilling => limit - limit / 8,
            Share::Sorting => limit - limit / 4,
            Share::MoreFiles => limit / 4,
        }
    }
}

/// For what is assured.
fn beyond(limit: usize) -> usize {
    limit.saturating_add((limit / 4).max(BEYOND_LEAST))
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "lake"
    }

    fn grow(&self, _reservation: &MemoryReservation, additional: usize) {
        self.budget.used.fetch_add(additional, Ordering::Relaxed);
        let used = self.used.fetch_add(additional, Ordering::Relaxed) + additional;
        self.peak.fetch_max(used, Ordering::Relaxed);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.budget.used.fetch_sub(shrink, Ordering::Relaxed);
        let consumer = reservation.consumer();
        if spills(consumer) {
            let mut given_back = locked(&self.given_back);
            *given_back.entry(consumer.id()).or_default() += shrink;
        }
        match Role::of(consumer) {
            Role::Sort => self.owe(consumer, |owed| owed.saturating_add(shrink)),
            Role::Merge => self.owe(consumer, |_| 0),
            Role::Other => {}
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if spills(consumer) {
            locked(&self.given_back).remove(&consumer.id());
        }
        if Role::of(consumer) != Role::Other {
            self.owe(consumer, |_| 0);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let consumer = reservation.consumer();
        // Also if it is not needed: it is for what comes next.
        let is_assured = self.is_assured(reservation, additional);
        let share = Share::of(reservation, additional);
        let role = Role::of(consumer);
        if role == Role::Sort {
            self.owe(consumer, |_| 0);
        }
        let owed = match share {
            Share::All => 0,
            Share::Sorting | Share::Spilling | Share::MoreFiles => {
                self.owed_bytes.load(Ordering::Relaxed)
            }
        };
        let taken = self.try_take(additional, |limit| {
            share.of_limit(limit).saturating_sub(owed)
        });
        let taken = match taken {
            Err(_) if is_assured && !matches!(share, Share::MoreFiles) => {
                self.try_take(additional, beyond)
            }
            taken => taken,
        };
        if role == Role::Merge && taken.is_ok() {
            self.owe(consumer, |owed| owed.saturating_sub(additional));
        }
        taken.map_err(|full| {
            let Full { used, limit } = full;
            DataFusionError::ResourcesExhausted(format!(
                "{} needs {additional} more bytes; {used} of {limit} bytes are in use.",
                consumer.name(),
            ))
        })
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit.min(self.budget.limit.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold() {
        let budget = Arc::new(Budget::new(100));
        let pool = Arc::new(QueryPool::new(budget.clone(), 60));
        let shared: Arc<dyn MemoryPool> = pool.clone();
        let first = MemoryConsumer::new("first").register(&shared);
        assert!(first.try_grow(50).is_ok());
        assert!(first.try_grow(11).is_err());
        let other: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(budget.clone(), 0));
        let second = MemoryConsumer::new("second").register(&other);
        assert!(second.try_grow(51).is_err());
        assert!(second.try_grow(50).is_ok());
        assert_eq!(budget.used(), 100);
        drop((first, second));
        assert_eq!(budget.used(), 0);
        assert_eq!(pool.peak(), 50);
    }

    #[test]
    fn what_can_spill_leaves_some_memory() {
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(Arc::new(Budget::new(800)), 400));
        let spills = MemoryConsumer::new("spills")
            .with_can_spill(true)
            .register(&pool);
        let stays = MemoryConsumer::new("stays").register(&pool);
        assert!(spills.try_grow(351).is_err());
        assert!(spills.try_grow(350).is_ok());
        assert!(stays.try_grow(50).is_ok());
        assert!(stays.try_grow(1).is_err());
    }

    #[test]
    fn what_spills_has_some_memory_in_any_case() {
        let limit = 64 << 20;
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(Arc::new(Budget::new(limit)), 0));
        let stays = MemoryConsumer::new("stays").register(&pool);
        stays.try_grow(limit).expect("all that there is");
        let sorter = MemoryConsumer::new("ExternalSorter[0]")
            .with_can_spill(true)
            .register(&pool);
        assert!(sorter.try_grow(ASSURED_BYTES).is_ok());
        assert!(sorter.try_grow(1).is_err());
        let merge = MemoryConsumer::new("ExternalSorterMerge[0]").register(&pool);
        assert!(merge.try_grow(ASSURED_TO_MERGE).is_ok());
        let mut others = vec![];
        while pool.reserved() < beyond(limit) {
            let other = MemoryConsumer::new("ExternalSorter[1]").register(&pool);
            other.try_grow(ASSURED_BYTES).expect("a quarter more");
            others.push(other);
        }
        let last = MemoryConsumer::new("ExternalSorter[2]").register(&pool);
        assert!(last.try_grow(1).is_err());
        let wanted = optional("LakeScan").register(&pool);
        assert!(wanted.try_grow(1).is_err());
    }

    #[test]
    fn all_queries_together_stay_within_what_is_assured() {
        let limit = 128 << 20;
        let budget = Arc::new(Budget::new(limit));
        let mut reservations = vec![];
        for _ in 0..64 {
            let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(budget.clone(), 0));
            for partition in 0..4 {
                let sorter = MemoryConsumer::new(format!("ExternalSorter[{partition}]"))
                    .with_can_spill(true)
                    .register(&pool);
                let _ = sorter.try_grow(ASSURED_BYTES);
                reservations.push(sorter);
            }
        }
        assert_eq!(budget.used(), beyond(limit));
        drop(reservations);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_given_back_to_be_spilled_is_there_to_sort_it() {
        let limit = 80 << 20;
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(Arc::new(Budget::new(limit)), 0));
        let aggregate = || {
            MemoryConsumer::new("GroupedHashAggregateStream[0] (a0)")
                .with_can_spill(true)
                .register(&pool)
        };
        let (one, other) = (aggregate(), aggregate());
        one.try_grow(20 << 20).expect("groups");
        other.try_grow(50 << 20).expect("groups");
        assert!(one.try_grow(1 << 20).is_err());
        one.shrink(20 << 20);
        other.try_grow(20 << 20).expect("what was given back");
        assert!(one.try_grow(10 << 20).is_ok());
        assert!(one.try_grow(10 << 20).is_err());
        // It isn't there without end.
        one.shrink(10 << 20);
        assert!(one.try_grow(1).is_ok());
        assert!(one.try_grow(9 << 20).is_err());
    }

    #[test]
    fn what_a_sort_gives_back_is_kept_for_its_merge() {
        let limit = 80 << 20;
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(Arc::new(Budget::new(limit)), 0));
        let sorter = |partition: usize| {
            MemoryConsumer::new(format!("ExternalSorter[{partition}]"))
                .with_can_spill(true)
                .register(&pool)
        };
        let (one, other) = (sorter(0), sorter(1));
        other.try_grow(10 << 20).expect("a few batches");
        one.try_grow(50 << 20).expect("all that there is for sorts");
        one.shrink(50 << 20);
        assert!(other.try_grow(1 << 20).is_err());
        let merge = MemoryConsumer::new("ExternalSorterMerge[0]").register(&pool);
        merge.try_grow(50 << 20).expect("sorted batches and keys");
        assert!(other.try_grow(1 << 20).is_err());
        merge.shrink(50 << 20);
        assert!(other.try_grow(50 << 20).is_ok());
    }
    #[test]
    fn a_merge_has_two_files_whatever_others_hold() {
        let limit = 64 << 20;
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(Arc::new(Budget::new(limit)), 0));
        let others = MemoryConsumer::new("others").register(&pool);
        others.try_grow(40 << 20).expect("more than half");
        let merge = MemoryConsumer::new(format!("{MERGING_FILES}[0]")).register(&pool);
        merge.try_grow(9 << 20).expect("one file");
        merge.try_grow(9 << 20).expect("another one");
        assert!(
            merge.try_grow(9 << 20).is_err(),
            "it can do without a third"
        );
        let of_batches = MemoryConsumer::new("ExternalSorterMerge[0]").register(&pool);
        of_batches.try_grow(12 << 20).expect("wide batches");
        of_batches.try_grow(5 << 20).expect("all of them");
    }
}
