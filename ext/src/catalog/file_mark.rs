//! `lake.file_mark`: cold files of which a statement has deleted all rows at once.
//!
//! A file mark stands for a mark of every row of a file that has none of its own, and is as ordinary
//! a tuple of the deleting transaction. Whoever inserts one holds the file exclusively, so that no
//! other transaction in progress has changed or locked a row of it. A marked file is not compacted: a
//! mark and its file have the same range of rows, and no two marks that somebody sees overlap.

use crate::pg::table::{Key, Row, Table};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::ops::Range;

const TABLE: &CStr = c"file_mark";
const BY_ROW: &CStr = c"file_mark_row_idx";

/// The deletion of a file's rows.
#[derive(Clone, Debug)]
pub struct FileMark {
    /// The range of row numbers that the file stands for.
    pub rows: Range<u64>,
    pub xmin: pg_sys::TransactionId,
    pub tid: pg_sys::ItemPointerData,
}

impl FileMark {
    fn of(row: &Row<'_>) -> FileMark {
        FileMark {
            rows: row.int8(2) as u64..row.int8(3) as u64,
            xmin: row.xmin(),
            tid: row.tid,
        }
    }
}

/// The table; `None` if its file is empty: most databases have no file mark, and every look at a cold
/// row asks for one.
fn open() -> Option<Table> {
    let table = Table::read(TABLE);
    // SAFETY: the relation is open.
    let blocks = unsafe {
        pg_sys::RelationGetNumberOfBlocksInFork(table.relation(), pg_sys::ForkNumber::MAIN_FORKNUM)
    };
    (blocks > 0).then_some(table)
}

/// The marks that `snapshot` sees, in the order of their rows.
pub fn list(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<FileMark> {
    let mut marks = vec![];
    if let Some(table) = open() {
        let keys = [Key::int8(1, storage)];
        table.scan(Some(BY_ROW), &keys, snapshot, |row| {
            marks.push(FileMark::of(row));
            true
        });
    }
    marks.sort_unstable_by_key(|mark| mark.rows.start);
    marks
}

/// Calls `f` for the files that are deleted as of now, or are being deleted: then with the other
/// transaction that does it.
pub fn each_dirty(storage: i64, mut f: impl FnMut(Range<u64>, pg_sys::TransactionId)) {
    let mut snapshot = crate::pg::dirty_snapshot();
    let snapshot = &raw mut snapshot;
    if let Some(table) = open() {
        let keys = [Key::int8(1, storage)];
        table.scan(Some(BY_ROW), &keys, snapshot, |row| {
            // SAFETY: set for the mark that the scan stands on.
            f(FileMark::of(row).rows, unsafe { (*snapshot).xmin });
            true
        });
    }
}

/// What `f` makes of the mark of a row's file, if `snapshot` sees one.
fn covering<T>(
    storage: i64,
    row: u64,
    snapshot: pg_sys::Snapshot,
    f: impl Fn(&Row<'_>) -> T,
) -> Option<T> {
    let mut found = None;
    open()?.scan_down_from(BY_ROW, storage, row as i64, snapshot, |mark| {
        // Marks don't overlap: the next one ends before this one begins.
        if row < mark.int8(3) as u64 {
            found = Some(f(mark));
        }
        false
    });
    found
}

/// The mark of a row's file that `snapshot` sees.
pub fn find(storage: i64, row: u64, snapshot: pg_sys::Snapshot) -> Option<FileMark> {
    covering(storage, row, snapshot, FileMark::of)
}

/// Who has deleted a row's file, as of right now: `InvalidTransactionId` is this transaction or one that
/// has committed, another one is in progress.
pub fn find_dirty(storage: i64, row: u64) -> Option<pg_sys::TransactionId> {
    let mut snapshot = crate::pg::dirty_snapshot();
    let snapshot = &raw mut snapshot;
    // SAFETY: set for the mark that the scan stands on.
    covering(storage, row, snapshot, |_| unsafe { (*snapshot).xmin })
}

/// The command of this transaction that has marked a row's file.
pub fn cmin(storage: i64, row: u64) -> Option<pg_sys::CommandId> {
    let snapshot = &raw mut crate::pg::SNAPSHOT_SELF;
    covering(storage, row, snapshot, |mark| mark.cmin())
}

/// The one among `marks`, which are in the order of their rows, of the file that begins at a row.
pub fn of_file(marks: &[FileMark], row_start: u64) -> Option<&FileMark> {
    let at = marks.binary_search_by_key(&row_start, |mark| mark.rows.start);
    marks.get(at.ok()?)
}

/// Marks all rows of a file as deleted by a command. The caller holds the file exclusively.
pub fn insert(storage: i64, rows: Range<u64>, cid: pg_sys::CommandId) {
    Table::write(TABLE).insert_by(
        &[
            Some(storage.into()),
            Some((rows.start as i64).into()),
            Some((rows.end as i64).into()),
        ],
        cid,
    );
}

/// Removes the mark of a file that is gone.
pub fn remove(mark: &FileMark) {
    Table::write(TABLE).delete(mark.tid);
}
