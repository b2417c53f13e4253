//! `lake.anchor`: heap tuples that stand for cold rows in row locks.
//!
//! An anchor carries locks and nothing else; deletions are marks. It is inserted frozen, under a
//! short heavyweight lock of the cold row's TID, so that it survives its creator's abort and two
//! lockers always meet on the same tuple (STORAGE section 4).

use crate::am::dml::tid_of_row;
use crate::pg::table::{Key, Table};
use pg_lake_crash::{CrashPoint, crash_point};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::ops::Range;

const TABLE: &CStr = c"anchor";
const BY_ROW: &CStr = c"anchor_row_idx";

/// Who holds an anchor.
pub struct Anchor {
    /// Its xmax, and the infomask whose bits say what that is.
    pub xmax: pg_sys::TransactionId,
    pub infomask: u16,
}

fn find(table: &Table, storage: i64, row: u64) -> Option<pg_sys::ItemPointerData> {
    let mut found = None;
    table.scan(
        Some(BY_ROW),
        &[Key::int8(1, storage), Key::int8(2, row as i64)],
        &raw mut crate::pg::SNAPSHOT_SELF,
        |anchor| {
            found = Some(anchor.tid);
            false
        },
    );
    found
}

/// A locked anchor.
pub struct Locked {
    pub tid: pg_sys::ItemPointerData,
    /// It was made for this lock: nobody has locked or changed the row before, but for those whose marks
    /// have been merged.
    pub is_new: bool,
}

/// How an anchor is to be locked.
#[derive(Clone, Copy)]
struct How {
    mode: pg_sys::LockTupleMode::Type,
    policy: pg_sys::LockWaitPolicy::Type,
}

/// Locks the row's anchor, which is made if there is none. The heavyweight lock comes first: most rows
/// that are deleted have no anchor yet, and would be looked up twice. It covers the lock of a new anchor,
/// which waits for nobody: whoever comes next finds the row locked.
fn find_or_make(
    table: &Table,
    relation: pg_sys::Relation,
    storage: i64,
    row: u64,
    how: How,
) -> (Locked, pg_sys::TM_Result::Type) {
    let mut cold = tid_of_row(row);
    let lock = pg_sys::ExclusiveLock as i32;
    // SAFETY: lock and unlock of the same tag; an error in between releases it.
    unsafe {
        pg_sys::LockTuple(relation, &mut cold, lock);
        let found = find(table, storage, row);
        let is_new = found.is_none();
        let (tid, result) = match found {
            Some(tid) => {
                // It may be waited for.
                pg_sys::UnlockTuple(relation, &mut cold, lock);
                (tid, lock_tuple(table, tid, how))
            }
            None => {
                let tid = table.insert_frozen(&[Some(storage.into()), Some((row as i64).into())]);
                crash_point(CrashPoint::AnchorInserted);
                let result = lock_tuple(table, tid, how);
                pg_sys::UnlockTuple(relation, &mut cold, lock);
                (tid, result)
            }
        };
        (Locked { tid, is_new }, result)
    }
}

/// # Safety
/// A tuple of the open table.
unsafe fn lock_tuple(
    table: &Table,
    tid: pg_sys::ItemPointerData,
    how: How,
) -> pg_sys::TM_Result::Type {
    // SAFETY: by contract; the buffer is pinned by the call.
    unsafe {
        let mut tuple = pg_sys::HeapTupleData {
            t_self: tid,
            ..Default::default()
        };
        let mut buffer = pg_sys::InvalidBuffer as pg_sys::Buffer;
        let mut failure = pg_sys::TM_FailureData::default();
        let result = pg_sys::heap_lock_tuple(
            table.relation(),
            &mut tuple,
            pg_sys::GetCurrentCommandId(true),
            how.mode,
            how.policy,
            false,
            &mut buffer,
            &mut failure,
        );
        pg_sys::ReleaseBuffer(buffer);
        result
    }
}

/// The present holders of an anchor that this transaction holds; `None` if it is gone.
pub fn state(tid: pg_sys::ItemPointerData) -> Option<Anchor> {
    let table = Table::read(TABLE);
    // SAFETY: a tuple of the open table, read under its buffer's lock.
    unsafe {
        let buffer = pg_sys::ReadBuffer(table.relation(), pg_sys::ItemPointerGetBlockNumber(&tid));
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
        let page = pg_sys::BufferGetPage(buffer);
        let item = pg_sys::PageGetItemId(page, pg_sys::ItemPointerGetOffsetNumber(&tid));
        let anchor = ((*item).lp_flags() == pg_sys::LP_NORMAL).then(|| {
            let header = pg_sys::PageGetItem(page, item).cast::<pg_sys::HeapTupleHeaderData>();
            Anchor {
                xmax: (*header).t_choice.t_heap.t_xmax,
                infomask: (*header).t_infomask,
            }
        });
        pg_sys::UnlockReleaseBuffer(buffer);
        anchor
    }
}

/// The rows of a storage that have an anchor which `snapshot` sees, in no order.
pub fn list(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<u64> {
    let mut rows = vec![];
    Table::read(TABLE).scan(Some(BY_ROW), &[Key::int8(1, storage)], snapshot, |row| {
        rows.push(row.int8(2) as u64);
        true
    });
    rows
}

/// Removes the anchor of a row that nobody can lock any more.
pub fn remove(storage: i64, row: u64) {
    let table = Table::write(TABLE);
    if let Some(tid) = find(&table, storage, row) {
        table.delete(tid);
    }
}

/// The same for all rows of a file that is gone.
pub fn remove_between(storage: i64, rows: &Range<u64>) {
    Table::write(TABLE).delete_between(BY_ROW, storage, rows);
}

/// Locks a cold row of `relation` to the end of the transaction, as `heap_lock_tuple` locks a hot
/// one. `Err`: `TM_WouldBlock`, only where `policy` says not to wait.
pub fn lock(
    relation: pg_sys::Relation,
    storage: i64,
    row: u64,
    mode: pg_sys::LockTupleMode::Type,
    policy: pg_sys::LockWaitPolicy::Type,
) -> Result<Locked, pg_sys::TM_Result::Type> {
    let table = Table::write(TABLE);
    loop {
        let how = How { mode, policy };
        let (anchor, result) = find_or_make(&table, relation, storage, row, how);
        match result {
            pg_sys::TM_Result::TM_Ok => return Ok(anchor),
            pg_sys::TM_Result::TM_WouldBlock => return Err(result),
            // A merge has removed it in the meantime.
            _ => crate::pg::check_for_interrupts(),
        }
    }
}
