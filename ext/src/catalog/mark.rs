//! `lake.row_mark`: deleted cold rows, and where their successors are.
//!
//! A mark is an ordinary tuple of the transaction that deletes the row: it is visible to whom the
//! deletion is, and vanishes with an abort. At most one mark of a row is of a transaction that is
//! in progress or has committed, since whoever inserts one holds the row's anchor.
//!
//! Whoever asks for the mark of one row also hears of that of its file ([`file_mark`]); those who want
//! all marks of a storage ask for both.

use crate::catalog::file_mark;
use crate::pg::table::{Key, Table};
use pg_lake_crash::{CrashPoint, crash_point};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::ops::Range;

const TABLE: &CStr = c"row_mark";
const BY_ROW: &CStr = c"row_mark_row_idx";

/// The deletion of a cold row.
#[derive(Clone, Copy)]
pub struct Mark {
    /// The new version of an updated row, `None` for a deleted one. Heap's own sign for a row that
    /// moved to another partition is kept as it is.
    pub successor: Option<pg_sys::ItemPointerData>,
    /// Whether the successor has another key, or there is none.
    pub key_changed: bool,
    pub xmin: pg_sys::TransactionId,
    /// Where it is; `None`: the whole file is deleted.
    tid: Option<pg_sys::ItemPointerData>,
}

/// The rows of a storage that `snapshot` sees as deleted one by one, in no order.
pub fn list(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<u64> {
    let mut rows = vec![];
    Table::read(TABLE).scan(Some(BY_ROW), &[Key::int8(1, storage)], snapshot, |row| {
        rows.push(row.int8(2) as u64);
        true
    });
    rows
}

/// Calls `f` for the rows that are deleted as of now, or are being deleted: then with the other transaction
/// that does it.
pub fn each_dirty(storage: i64, mut f: impl FnMut(u64, pg_sys::TransactionId)) {
    let mut snapshot = crate::pg::dirty_snapshot();
    let snapshot = &raw mut snapshot;
    Table::read(TABLE).scan(Some(BY_ROW), &[Key::int8(1, storage)], snapshot, |row| {
        // SAFETY: set for the row that the scan stands on.
        f(row.int8(2) as u64, unsafe { (*snapshot).xmin });
        true
    });
}

/// The deletions of single rows by this transaction and by those that have committed, with who made
/// them.
pub fn all(storage: i64) -> Vec<(u64, pg_sys::TransactionId)> {
    let mut rows = vec![];
    Table::read(TABLE).scan(
        Some(BY_ROW),
        &[Key::int8(1, storage)],
        &raw mut crate::pg::SNAPSHOT_SELF,
        |row| {
            rows.push((row.int8(2) as u64, row.xmin()));
            true
        },
    );
    rows
}

/// The mark of one row that `snapshot` sees. That of the row itself, which may have a successor, comes
/// before that of its file.
pub fn find(storage: i64, row: u64, snapshot: pg_sys::Snapshot) -> Option<Mark> {
    find_of_row(storage, row, snapshot).or_else(|| {
        let file = file_mark::find(storage, row, snapshot)?;
        Some(of_file(file.xmin))
    })
}

/// The mark of a row whose whole file is deleted, as things are now. It is final for whoever keeps
/// others from deleting the file.
pub fn find_if_file_deleted(storage: i64, row: u64) -> Option<Mark> {
    let snapshot = &raw mut crate::pg::SNAPSHOT_SELF;
    let file = file_mark::find(storage, row, snapshot)?;
    Some(find_of_row(storage, row, snapshot).unwrap_or_else(|| of_file(file.xmin)))
}

fn of_file(xmin: pg_sys::TransactionId) -> Mark {
    Mark {
        successor: None,
        key_changed: true,
        xmin,
        tid: None,
    }
}

/// The same as [`find`] of a row whose file isn't deleted.
pub fn find_of_row(storage: i64, row: u64, snapshot: pg_sys::Snapshot) -> Option<Mark> {
    let mut found = None;
    Table::read(TABLE).scan(
        Some(BY_ROW),
        &[Key::int8(1, storage), Key::int8(2, row as i64)],
        snapshot,
        |mark| {
            found = Some(Mark {
                // SAFETY: a `tid` datum points to an item pointer.
                successor: mark.get(3).map(|d| unsafe { *d.cast_mut_ptr() }),
                key_changed: mark.get(4).is_none_or(|d| d.value() as u8 != 0),
                xmin: mark.xmin(),
                tid: Some(mark.tid),
            });
            false
        },
    );
    found
}

/// What is known about a row's deletion beyond what has committed.
pub enum Dirty {
    None,
    /// Deleted by this transaction or by one that has committed.
    Deleted,
    /// Another transaction, still in progress, deletes it.
    InProgress(pg_sys::TransactionId),
}

/// The state of a row's deletion right now.
pub fn find_dirty(storage: i64, row: u64) -> Dirty {
    let mut snapshot = crate::pg::dirty_snapshot();
    let snapshot = &raw mut snapshot;
    let mut found = Dirty::None;
    Table::read(TABLE).scan(
        Some(BY_ROW),
        &[Key::int8(1, storage), Key::int8(2, row as i64)],
        snapshot,
        |_| {
            // SAFETY: set for the row that the scan stands on.
            let inserting = unsafe { (*snapshot).xmin };
            found = if inserting == pg_sys::InvalidTransactionId {
                Dirty::Deleted
            } else {
                Dirty::InProgress(inserting)
            };
            matches!(found, Dirty::InProgress(_))
        },
    );
    if matches!(found, Dirty::None) {
        found = match file_mark::find_dirty(storage, row) {
            None => Dirty::None,
            Some(deleting) if deleting == pg_sys::InvalidTransactionId => Dirty::Deleted,
            Some(deleting) => Dirty::InProgress(deleting),
        };
    }
    found
}

/// The marks of single rows that every snapshot sees, with where they are.
pub fn settled(
    storage: i64,
    horizon: pg_sys::TransactionId,
) -> Vec<(u64, pg_sys::ItemPointerData)> {
    let mut settled = vec![];
    Table::read(TABLE).scan(
        Some(BY_ROW),
        &[Key::int8(1, storage)],
        std::ptr::null_mut(),
        |row| {
            // SAFETY: pure arithmetic.
            if unsafe { pg_sys::TransactionIdPrecedes(row.xmin(), horizon) } {
                settled.push((row.int8(2) as u64, row.tid));
            }
            true
        },
    );
    settled
}

/// Removes a mark that has been merged.
pub fn remove(tid: pg_sys::ItemPointerData) {
    Table::write(TABLE).delete(tid);
}

/// Removes the marks of rows of a file that is gone.
pub fn remove_between(storage: i64, rows: &Range<u64>) {
    Table::write(TABLE).delete_between(BY_ROW, storage, rows);
}

/// The command that made a mark of this transaction.
pub fn cmin(storage: i64, row: u64, mark: &Mark) -> pg_sys::CommandId {
    let mut cmin = pg_sys::InvalidCommandId;
    let Some(tid) = mark.tid else {
        return file_mark::cmin(storage, row).unwrap_or(cmin);
    };
    Table::read(TABLE).scan(
        Some(BY_ROW),
        &[Key::int8(1, storage), Key::int8(2, row as i64)],
        &raw mut crate::pg::SNAPSHOT_SELF,
        |found| {
            if same(&found.tid, &tid) {
                cmin = found.cmin();
            }
            cmin == pg_sys::InvalidCommandId
        },
    );
    cmin
}

fn same(a: &pg_sys::ItemPointerData, b: &pg_sys::ItemPointerData) -> bool {
    (a.ip_blkid.bi_hi, a.ip_blkid.bi_lo, a.ip_posid)
        == (b.ip_blkid.bi_hi, b.ip_blkid.bi_lo, b.ip_posid)
}

/// Marks a row as deleted by a command. The caller holds its anchor.
pub fn insert(
    storage: i64,
    row: u64,
    successor: Option<&pg_sys::ItemPointerData>,
    key_changed: bool,
    cid: pg_sys::CommandId,
) {
    Table::write(TABLE).insert_by(
        &[
            Some(storage.into()),
            Some((row as i64).into()),
            successor.map(|tid| pg_sys::Datum::from(std::ptr::from_ref(tid))),
            Some(key_changed.into()),
        ],
        cid,
    );
    crash_point(CrashPoint::MarkInserted);
}
