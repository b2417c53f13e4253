//! Whether a snapshot of any kind sees a cold row, found by its TID.
//!
//! Marks are read before files: a merge that commits in between has put the mark into the file's
//! list (STORAGE section 4). Index insertion asks here while it holds a lock on an index page, so
//! that nothing may wait then: [`prepare`] has locked what is opened.

use crate::catalog::locate::{self, At};
use crate::catalog::{mark, storage};
use crate::pg::table;
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    /// Whether this transaction holds the catalogs' locks.
    static PREPARED: Cell<bool> = const { Cell::new(false) };
}

/// Locks the catalogs and learns the table's storage, for a caller that is going to look at rows
/// under an index page's lock.
pub fn prepare(relation: pg_sys::Relation) {
    // SAFETY: a global of this backend.
    if unsafe { pg_sys::InterruptHoldoffCount } > 0 || !storage::pin(relation) {
        return;
    }
    if !PREPARED.replace(true) {
        for name in [
            c"data_file",
            c"data_file_pkey",
            c"row_mark",
            c"row_mark_row_idx",
            c"file_mark",
            c"file_mark_row_idx",
        ] {
            table::pin(name);
        }
    }
}

/// The same where rows are about to get index entries.
pub fn prepare_if_indexed(relation: pg_sys::Relation) {
    // SAFETY: the relation is open.
    if unsafe { (*(*relation).rd_rel).relhasindex } {
        prepare(relation);
    }
}

/// The transaction has ended, or a subtransaction has given its locks back.
pub fn forget() {
    PREPARED.set(false);
    table::unpin_all();
    storage::unpin_all();
}

/// The row's file if `snapshot` sees the row. A `SnapshotDirty` gets to know who is inserting or
/// deleting it, as `HeapTupleSatisfiesDirty` says.
pub fn find(storage: i64, row: u64, snapshot: pg_sys::Snapshot) -> Option<At> {
    use pg_sys::SnapshotType::{
        SNAPSHOT_ANY, SNAPSHOT_DIRTY, SNAPSHOT_NON_VACUUMABLE, SNAPSHOT_SELF,
    };
    // SAFETY: a snapshot of the caller.
    match unsafe { (*snapshot).snapshot_type } {
        SNAPSHOT_DIRTY => find_dirty(storage, row, snapshot),
        SNAPSHOT_ANY => locate::holding(storage, row),
        // Rows that are marked may still be seen by somebody.
        SNAPSHOT_NON_VACUUMABLE => locate::holding(storage, row).filter(|at| !at.deleted),
        kind => {
            if mark::find(storage, row, snapshot).is_some() {
                return None;
            }
            if kind == SNAPSHOT_SELF {
                return locate::holding(storage, row).filter(|at| !at.deleted);
            }
            locate::at(storage, row, snapshot).filter(|at| !at.deleted)
        }
    }
}

fn find_dirty(storage: i64, row: u64, snapshot: pg_sys::Snapshot) -> Option<At> {
    // SAFETY: a snapshot of the caller, which wants these fields to be set.
    unsafe {
        (*snapshot).xmin = pg_sys::InvalidTransactionId;
        (*snapshot).xmax = pg_sys::InvalidTransactionId;
        (*snapshot).speculativeToken = 0;
    }
    let deleting = match mark::find_dirty(storage, row) {
        mark::Dirty::Deleted => return None,
        mark::Dirty::InProgress(xid) => xid,
        mark::Dirty::None => pg_sys::InvalidTransactionId,
    };
    let (at, inserting) = locate::at_dirty(storage, row)?;
    if at.deleted {
        return None;
    }
    // SAFETY: as above.
    unsafe {
        (*snapshot).xmin = inserting;
        (*snapshot).xmax = deleting;
    }
    Some(at)
}

/// Whether a snapshot sees a cold row of a relation.
pub fn is_live(relation: pg_sys::Relation, row: u64, snapshot: pg_sys::Snapshot) -> bool {
    storage::of_relation(relation).is_some_and(|s| find(s.id, row, snapshot).is_some())
}

/// Whether the row was there for a snapshot that is older than the flush which moved it: a flush
/// takes only rows that every snapshot sees.
pub fn was_live(relation: pg_sys::Relation, row: u64, snapshot: pg_sys::Snapshot) -> bool {
    storage::of_relation(relation).is_some_and(|s| {
        mark::find(s.id, row, snapshot).is_none()
            && locate::holding(s.id, row).is_some_and(|at| at.flushed && !at.deleted)
    })
}
