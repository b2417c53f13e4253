//! Where a row is: its file, found by the row's number.
//!
//! The row of a file that is compacted is in the old file for older snapshots and in the new one for
//! the others; its number stays.

use crate::catalog::data_file::{INSERTED, checksums, decoded, row_numbers};
use crate::catalog::forward;
use crate::cold::point::Holder;
use crate::pg::table::{Key, Row, Table};
use crate::pg::xids;
use pg_lake_plan::rows::RowNumbers;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::CStr;
use std::ops::Range;
use std::rc::Rc;

const TABLE: &CStr = c"data_file";
const BY_STORAGE: &CStr = c"data_file_pkey";

/// Where a row is: its file, as one version of the catalog has it.
#[derive(Clone, Debug)]
pub struct At {
    pub rows: Rc<RowNumbers>,
    pub path: String,
    pub size: u64,
    /// Of the file's blocks; none of a local one.
    pub checksums: Rc<[u32]>,
    /// Whether the row is in the file's list of deleted rows.
    pub deleted: bool,
    /// Whether the file's rows were hot before.
    pub flushed: bool,
}

impl At {
    /// What a read of some of its rows wants to know.
    pub fn holder(&self) -> Holder<'_> {
        Holder {
            path: crate::pg::absolute(&self.path),
            size: self.size,
            checksums: self.checksums.clone(),
            rows: &self.rows,
        }
    }
}

/// Calls `f`, until it returns false, for the versions of the one file that may hold a row.
fn versions(
    storage: i64,
    row: u64,
    snapshot: pg_sys::Snapshot,
    mut f: impl FnMut(&Row<'_>) -> bool,
) {
    Table::read(TABLE).scan_down_from(BY_STORAGE, storage, row as i64, snapshot, |found| {
        // Ranges don't overlap: a file that begins at or before the row and ends before it is
        // followed by smaller ones only.
        row < end_of(found) && f(found)
    });
}

/// The end of a file's range of row numbers.
fn end_of(found: &Row<'_>) -> u64 {
    match found.get(11) {
        Some(end) => end.value() as u64,
        None => found.int8(2) as u64 + found.int8(3) as u64,
    }
}

/// `None`: the row was left out when the file was made.
fn at_of(found: &Row<'_>, row: u64) -> Option<At> {
    let details = Details::of(found);
    let position = details.rows.position(row)? as u32;
    Some(At {
        path: found.text(4).unwrap_or_default(),
        size: found.int8(5) as u64,
        deleted: contains(&details.deleted, position),
        flushed: found.get(9).is_some(),
        checksums: details.checksums,
        rows: details.rows,
    })
}

/// What may be long in a file's tuple.
#[derive(Clone)]
struct Details {
    deleted: Rc<[u8]>,
    rows: Rc<RowNumbers>,
    checksums: Rc<[u32]>,
}

thread_local! {
    /// Those that were looked at last, by the version of the file's tuple: they are not fetched for
    /// each row. Forgotten with the transaction.
    static DETAILS: RefCell<Vec<(Version, Details)>> = const { RefCell::new(vec![]) };
}

/// Where a tuple is, and who inserted it there.
type Version = (u32, u16, u32);

/// Of all of them together, unless one alone is larger.
const DETAILS_BYTES: usize = 16 << 20;

/// The transaction has ended: places of tuples may be used again.
pub fn forget_details() {
    DETAILS.with_borrow_mut(Vec::clear);
}

impl Details {
    fn of(found: &Row<'_>) -> Details {
        let read = || Details {
            deleted: found.bytes(7).unwrap_or_default().into(),
            rows: Rc::new(row_numbers(found)),
            checksums: checksums(found),
        };
        if [7, 12, 16]
            .iter()
            .all(|&column| found.get(column).is_none())
        {
            return read();
        }
        // SAFETY: a valid item pointer.
        let version = unsafe {
            (
                pg_sys::ItemPointerGetBlockNumberNoCheck(&found.tid),
                pg_sys::ItemPointerGetOffsetNumberNoCheck(&found.tid),
                u32::from(found.raw_xmin()),
            )
        };
        let known = DETAILS.with_borrow_mut(|all| {
            let at = all.iter().position(|(v, _)| *v == version)?;
            // The one that was used last is at the end.
            all[at..].rotate_left(1);
            all.last().map(|(_, details)| details.clone())
        });
        known.unwrap_or_else(|| {
            let details = read();
            DETAILS.with_borrow_mut(|all| {
                let mut bytes: usize = all.iter().map(|(_, details)| details.bytes()).sum();
                while !all.is_empty() && bytes + details.bytes() > DETAILS_BYTES {
                    bytes -= all.remove(0).1.bytes();
                }
                all.push((version, details.clone()));
            });
            details
        })
    }

    fn bytes(&self) -> usize {
        self.deleted.len()
            + self.rows.bytes()
            + size_of_val(&*self.checksums)
            + size_of::<(Version, Details)>()
    }
}

/// Whether an encoded list of positions has one.
fn contains(list: &[u8], position: u32) -> bool {
    let (entries, _) = list.as_chunks::<4>();
    entries
        .binary_search_by_key(&position, |entry| u32::from_le_bytes(*entry))
        .is_ok()
}

/// The file of a row that `snapshot` sees.
pub fn at(storage: i64, row: u64, snapshot: pg_sys::Snapshot) -> Option<At> {
    let mut at = None;
    versions(storage, row, snapshot, |found| {
        at = at_of(found, row);
        false
    });
    at
}

/// The file that holds a row now, whoever registered it. A scan for the latest versions may miss one
/// that is being replaced; a snapshot can't.
pub fn holding(storage: i64, row: u64) -> Option<At> {
    at(storage, row, &raw mut crate::pg::SNAPSHOT_SELF)
        .or_else(|| latest(|snapshot| at(storage, row, snapshot)))
}

/// The same as a transaction in progress has it: with who is registering the file, if that is
/// another one. Maintenance that changes or drops a file says nothing about its rows.
pub fn at_dirty(storage: i64, row: u64) -> Option<(At, pg_sys::TransactionId)> {
    let mut snapshot = crate::pg::dirty_snapshot();
    let snapshot = &raw mut snapshot;
    let mut best: Option<(At, pg_sys::TransactionId)> = None;
    versions(storage, row, snapshot, |found| {
        // SAFETY: set for the version that the scan stands on.
        let inserting = unsafe { (*snapshot).xmin };
        let settled = inserting == pg_sys::InvalidTransactionId;
        if settled || best.is_none() {
            best = at_of(found, row).map(|at| (at, inserting));
        }
        !settled
    });
    best.or_else(|| {
        let at = latest(|snapshot| at(storage, row, snapshot))?;
        Some((at, pg_sys::InvalidTransactionId))
    })
}

/// Calls `f` with a new snapshot.
pub fn latest<T>(f: impl FnOnce(pg_sys::Snapshot) -> T) -> T {
    // SAFETY: registered and unregistered here; an error does so at abort.
    unsafe {
        // Participants of a parallel query can't take new ones.
        let latest = if pg_sys::IsInParallelMode() {
            pg_sys::GetActiveSnapshot()
        } else {
            pg_sys::GetLatestSnapshot()
        };
        let snapshot = pg_sys::RegisterSnapshot(latest);
        let result = f(snapshot);
        pg_sys::UnregisterSnapshot(snapshot);
        result
    }
}

/// The rows that were registered together with a row, and by whom; whatever became of their file since,
/// any version of it tells.
pub fn registered(storage: i64, row: u64) -> Option<(Range<u64>, pg_sys::TransactionId)> {
    let mut found = None;
    let any = &raw mut crate::pg::SNAPSHOT_ANY;
    Table::read(TABLE).scan_down_from(BY_STORAGE, storage, row as i64, any, |version| {
        // One that nobody sees any more may lie within the range of another one.
        if row >= end_of(version) {
            return true;
        }
        let inserted: Vec<(u64, u32)> = decoded(version, INSERTED);
        let after = inserted.partition_point(|(first, _)| *first <= row);
        if let Some((first, xid)) = after.checked_sub(1).map(|i| inserted[i]) {
            let end = inserted
                .get(after)
                .map_or(end_of(version), |(next, _)| *next);
            found = Some((first..end, pg_sys::TransactionId::from(xid)));
        }
        false
    });
    found
}

/// Which versions of the entries of a storage's files a snapshot sees: where they are.
pub fn entries(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<(u32, u16)> {
    let mut found = vec![];
    let files = [Key::int8(1, storage)];
    Table::read(TABLE).scan(Some(BY_STORAGE), &files, snapshot, |row| {
        // SAFETY: a valid item pointer.
        found.push(unsafe {
            (
                pg_sys::ItemPointerGetBlockNumberNoCheck(&row.tid),
                pg_sys::ItemPointerGetOffsetNumberNoCheck(&row.tid),
            )
        });
        true
    });
    found.sort_unstable();
    found
}

/// Whether a snapshot sees a row's file.
pub fn is_visible(storage: i64, row: u64, snapshot: pg_sys::Snapshot) -> bool {
    at(storage, row, snapshot).is_some()
}

/// Where a flush put a hot row: `xid` is the transaction that deleted it, `tid` where it was.
pub fn moved_to(storage: i64, xid: u32, tid: (u32, u16)) -> Option<u64> {
    let xid = xids::full(pg_sys::TransactionId::from_inner(xid));
    let look = |snapshot| {
        let mut found = None;
        let files = [Key::int8(1, storage)];
        Table::read(TABLE).scan(Some(BY_STORAGE), &files, snapshot, |row| {
            if row.get(9).is_some_and(|d| d.value() as u64 == xid)
                && let Some(forward) = row.bytes(10)
            {
                found = forward::find(&forward, tid).map(|at| row.int8(2) as u64 + at);
            }
            found.is_none()
        });
        found
    };
    look(&raw mut crate::pg::SNAPSHOT_SELF).or_else(|| latest(look))
}

/// Where a row was before it was flushed, as long as somebody may still see it there.
pub fn origin(storage: i64, row: u64) -> Option<(u32, u16)> {
    let mut origin = None;
    versions(storage, row, &raw mut crate::pg::SNAPSHOT_SELF, |found| {
        if let Some(forward) = found.bytes(10) {
            origin = forward::origin(&forward, row - found.int8(2) as u64);
        }
        false
    });
    origin
}
