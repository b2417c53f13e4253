//! Hot rows that this transaction has replaced at their new place.
//!
//! A transaction that keeps its snapshot goes on to see a row where it was before a flush. If it
//! changes the row, it changes the cold one, which its snapshot doesn't see; the hot one must not be
//! seen by its later commands either (STORAGE section 5). Nobody else needs to know: every snapshot
//! that sees the change sees the flush, too.

use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

struct Replaced {
    /// The command that did it, and its subtransaction.
    cid: pg_sys::CommandId,
    subxact: pg_sys::SubTransactionId,
}

type Place = (pg_sys::Oid, u32, u16);

thread_local! {
    static REPLACED: RefCell<HashMap<Place, Replaced>> = RefCell::default();
    static ANY: Cell<bool> = const { Cell::new(false) };
}

/// Whether this transaction keeps its snapshot.
pub fn keeps_snapshot() -> bool {
    // SAFETY: a global of this backend.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Notes that a command has changed the row that was at a hot TID.
pub fn add(relid: pg_sys::Oid, (block, offset): (u32, u16), cid: pg_sys::CommandId) {
    // SAFETY: in a transaction.
    let subxact = unsafe { pg_sys::GetCurrentSubTransactionId() };
    REPLACED.with_borrow_mut(|replaced| {
        replaced
            .entry((relid, block, offset))
            .or_insert(Replaced { cid, subxact });
    });
    ANY.set(true);
}

/// Whether any row was.
#[inline]
pub fn any() -> bool {
    ANY.get()
}

/// Whether a snapshot must not see the hot row that is in a slot.
#[inline]
pub fn hides(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    any() && looked_up(relation, snapshot, slot)
}

#[cold]
fn looked_up(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: all belong to a scan that stands on a row.
    let (place, kind, curcid) = unsafe {
        let tid = (*slot).tts_tid;
        (
            (
                (*relation).rd_id,
                pg_sys::ItemPointerGetBlockNumberNoCheck(&tid),
                pg_sys::ItemPointerGetOffsetNumberNoCheck(&tid),
            ),
            (*snapshot).snapshot_type,
            (*snapshot).curcid,
        )
    };
    kind == pg_sys::SnapshotType::SNAPSHOT_MVCC
        && REPLACED.with_borrow(|all| all.get(&place).is_some_and(|r| r.cid < curcid))
}

/// A subtransaction was rolled back, or (none) the transaction has ended.
pub fn forget(subxact: Option<pg_sys::SubTransactionId>) {
    REPLACED.with_borrow_mut(|replaced| {
        match subxact {
            Some(id) => replaced.retain(|_, r| r.subxact < id),
            None => replaced.clear(),
        }
        ANY.set(!replaced.is_empty());
    });
}
