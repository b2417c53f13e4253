//! The engine's memory budget: one limit for all queries, one within it for each.

use datafusion_common::{DataFusionError, Result};
use datafusion_execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        }
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

/// Memory that a query can do without: it leaves as much as what can spill does.
pub(super) fn optional(name: &str) -> MemoryConsumer {
    MemoryConsumer::new(name).with_can_spill(true)
}

/// What can spill leaves an eighth to what can't: files are merged while others still fill what there is.
fn within(limit: usize, can_spill: bool) -> usize {
    match can_spill {
        true => limit - limit / 8,
        false => limit,
    }
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

    fn shrink(&self, _reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.budget.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let can_spill = reservation.consumer().can_spill();
        let refuse = |used: usize, limit: usize| {
            DataFusionError::ResourcesExhausted(format!(
                "{} needs {additional} more bytes; {used} of {limit} bytes are in use.",
                reservation.consumer().name(),
            ))
        };
        let own = within(self.limit, can_spill);
        let used = take(&self.used, additional, own).map_err(|u| refuse(u, self.limit))?;
        let limit = self.budget.limit.load(Ordering::Relaxed);
        if let Err(in_use) = take(&self.budget.used, additional, within(limit, can_spill)) {
            self.used.fetch_sub(additional, Ordering::Relaxed);
            return Err(refuse(in_use, limit));
        }
        self.peak.fetch_max(used + additional, Ordering::Relaxed);
        Ok(())
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
}
