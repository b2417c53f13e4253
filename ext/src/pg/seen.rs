//! Reads of our catalogs by SERIALIZABLE transactions.
//!
//! Predicate locks on the catalogs' pages would let transactions on different tables fail each
//! other. What a row of an iceberg table depends on is locked as that row; the catalogs are read
//! without predicate locks, and only the conflict with who has changed them is noted.

use crate::am::heap;
use crate::pg::missing;
use pgrx::pg_sys;

/// Whose rows a catalog scan returns.
pub struct Seen {
    relation: pg_sys::Relation,
    /// What the scan, which returns all versions, is filtered by; null for a scan that is left as it is.
    snapshot: pg_sys::Snapshot,
    /// Whether the caller reads rows of a table, and not the latest state for its own purposes.
    conflicts: bool,
}

impl Seen {
    /// `snapshot`: as of `Table::scan`.
    pub fn by(relation: pg_sys::Relation, snapshot: pg_sys::Snapshot) -> Seen {
        let left = Seen {
            relation,
            snapshot: std::ptr::null_mut(),
            conflicts: false,
        };
        // SAFETY: globals of this backend, an open relation, a snapshot of the caller.
        unsafe {
            if pg_sys::XactIsoLevel != pg_sys::XACT_SERIALIZABLE as i32 {
                return left;
            }
            let conflicts = !snapshot.is_null();
            if conflicts && (*snapshot).snapshot_type != pg_sys::SnapshotType::SNAPSHOT_MVCC {
                return left;
            }
            let wanted = if conflicts {
                snapshot
            } else {
                pg_sys::GetCatalogSnapshot((*relation).rd_id)
            };
            Seen {
                relation,
                snapshot: pg_sys::RegisterSnapshot(wanted),
                conflicts,
            }
        }
    }

    pub fn for_scan(&self, snapshot: pg_sys::Snapshot) -> pg_sys::Snapshot {
        if self.snapshot.is_null() {
            snapshot
        } else {
            &raw mut super::SNAPSHOT_ANY
        }
    }

    /// Whether a version that the scan returns is one that the caller's snapshot sees.
    ///
    /// # Safety
    /// The scan stands on the tuple.
    pub unsafe fn sees(&self, scan: pg_sys::SysScanDesc, tuple: pg_sys::HeapTuple) -> bool {
        if self.snapshot.is_null() {
            return true;
        }
        // SAFETY: by contract; a catalog's slots hold buffer tuples.
        unsafe {
            let slot = (*scan).slot;
            let satisfies = heap().tuple_satisfies_snapshot.unwrap_unchecked();
            let visible = satisfies(self.relation, slot, self.snapshot);
            if self.conflicts {
                let buffer = (*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).buffer;
                pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
                missing::conflict_out(visible, self.relation, tuple, buffer, self.snapshot);
                pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
            }
            visible
        }
    }

    /// The scan has ended. An error gives the snapshot back at abort.
    pub fn end(self) {
        if !self.snapshot.is_null() {
            // SAFETY: registered by `by`.
            unsafe { pg_sys::UnregisterSnapshot(self.snapshot) }
        }
    }
}
