//! Counters that all partitions of a query add to.

use pg_lake_plan::message::ScanStats;
use pg_lake_ring::Progress;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) files: AtomicU64,
    pub(super) files_pruned: AtomicU64,
    pub(super) row_groups: AtomicU64,
    pub(super) row_groups_pruned: AtomicU64,
    /// Of these, by Bloom filters.
    pub(super) row_groups_filtered: AtomicU64,
    /// To their end.
    pub(super) row_groups_read: AtomicU64,
    /// Of the columns of row groups that weren't decoded whole, because some of these pages have no row of use.
    pub(super) pages: AtomicU64,
    pub(super) pages_pruned: AtomicU64,
    pub(super) rows_cold: AtomicU64,
    pub(super) rows_fed: AtomicU64,
    pub(super) rows_out: AtomicU64,
    /// By dynamic filters.
    pub(super) rows_skipped: AtomicU64,
    pub(super) chunks_cached: AtomicU64,
    pub(super) chunks_decoded: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_disk_cache: AtomicU64,
    pub(super) bytes_store: AtomicU64,
    /// The cold rows of each table.
    tables: Vec<AtomicU64>,
}

pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn of_tables(count: usize) -> Counters {
        Counters {
            tables: (0..count).map(|_| AtomicU64::new(0)).collect(),
            ..Counters::default()
        }
    }

    /// Cold rows that a scan has read, before its predicate.
    pub(super) fn add_cold(&self, table: u32, rows: usize) {
        add(&self.rows_cold, rows);
        if let Some(counter) = self.tables.get(table as usize) {
            add(counter, rows);
        }
    }

    /// What tells how far the scans are.
    pub(super) fn progress(&self) -> Progress {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            rows_read: get(&self.rows_cold) + get(&self.rows_fed),
            rows_cold: get(&self.rows_cold),
            row_groups: get(&self.row_groups),
            row_groups_done: get(&self.row_groups_pruned) + get(&self.row_groups_read),
            ..Progress::default()
        }
    }

    /// Everything but time, memory and operators.
    pub(super) fn snapshot(&self) -> ScanStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ScanStats {
            files: get(&self.files),
            files_pruned: get(&self.files_pruned),
            row_groups: get(&self.row_groups),
            row_groups_pruned: get(&self.row_groups_pruned),
            rows_cold: get(&self.rows_cold),
            rows_fed: get(&self.rows_fed),
            rows_out: get(&self.rows_out),
            rows_skipped: get(&self.rows_skipped),
            chunks_cached: get(&self.chunks_cached),
            chunks_decoded: get(&self.chunks_decoded),
            bytes_read: get(&self.bytes_read),
            bytes_disk_cache: get(&self.bytes_disk_cache),
            bytes_store: get(&self.bytes_store),
            pages: get(&self.pages),
            pages_pruned: get(&self.pages_pruned),
            row_groups_filtered: get(&self.row_groups_filtered),
            rows_of_tables: self.tables.iter().map(get).collect(),
            ..ScanStats::default()
        }
    }
}
