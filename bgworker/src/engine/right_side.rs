//! What there is on the right side of a join whose result depends on nulls.

use std::sync::atomic::{AtomicBool, Ordering};

/// Noted of rows on their way into the join, and read when all of them have passed: of rows that the join gives, or of a left
/// side that it doesn't ask for before. That orders the accesses.
#[derive(Debug, Default)]
pub(super) struct RightSide {
    rows: AtomicBool,
    nulls: AtomicBool,
}

impl RightSide {
    /// So many rows come, with nulls among their keys or without.
    pub(super) fn note(&self, rows: usize, nulls: bool) {
        if rows > 0 {
            self.rows.store(true, Ordering::Relaxed);
        }
        if nulls {
            self.nulls.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn has_rows(&self) -> bool {
        self.rows.load(Ordering::Relaxed)
    }

    pub(super) fn has_nulls(&self) -> bool {
        self.nulls.load(Ordering::Relaxed)
    }
}
