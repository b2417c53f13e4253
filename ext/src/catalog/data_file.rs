//! `lake.data_file`: the cold files of each storage, and row numbers.
//!
//! A row number stands for a TID of a block number of 2^31 or more, with at most
//! [`ROWS_PER_BLOCK`] offsets a block. Numbers come from a sequence of blocks and are never used
//! again after an abort (STORAGE section 1).

use crate::catalog::storage::Storage;
use crate::catalog::{forward, mark};
use crate::error;
use crate::pg::table::{Key, Row, Table, bytea_datum, relation_oid, text_datum};
use pg_lake_plan::message::{FileRef, WrittenFile};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;

const TABLE: &CStr = c"data_file";
const BY_STORAGE: &CStr = c"data_file_pkey";

/// `MaxHeapTuplesPerPage` of 8 kB pages: what bitmaps and TID stores accept.
pub const ROWS_PER_BLOCK: u64 = 291;
/// Block number of row 0.
pub const FIRST_COLD_BLOCK: u32 = 1 << 31;

/// One cold file as the catalog knows it.
#[derive(Clone, Debug)]
pub struct DataFile {
    pub row_start: u64,
    pub row_count: u64,
    /// Relative to the data directory.
    pub path: String,
    pub size: u64,
    /// Positions of deleted rows, ascending.
    pub deleted: Vec<u32>,
    /// Whether its rows were hot before.
    pub flushed: bool,
}

impl DataFile {
    pub fn file_ref(&self) -> FileRef {
        FileRef {
            path: crate::pg::absolute(&self.path),
            size: self.size,
            row_start: self.row_start,
            row_count: self.row_count,
            deleted: self.deleted.clone(),
            ranges: None,
        }
    }

    /// Where a row of it is that isn't deleted.
    pub fn at(&self) -> At {
        At {
            row_start: self.row_start,
            row_count: self.row_count,
            path: self.path.clone(),
            size: self.size,
            deleted: false,
            flushed: self.flushed,
        }
    }
}

/// The TID of a row number.
pub fn tid_of(row: u64) -> (u32, u16) {
    (
        FIRST_COLD_BLOCK + (row / ROWS_PER_BLOCK) as u32,
        (row % ROWS_PER_BLOCK) as u16 + 1,
    )
}

/// The row number of a cold TID.
pub fn row_of(block: u32, offset: u16) -> Option<u64> {
    let block = u64::from(block.checked_sub(FIRST_COLD_BLOCK)?);
    let position = u64::from(offset).checked_sub(1)?;
    (position < ROWS_PER_BLOCK).then_some(block * ROWS_PER_BLOCK + position)
}

fn positions(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks_exact(4)
        .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
        .collect()
}

/// The file that holds a row.
pub fn file_of(files: &[DataFile], row: u64) -> Option<&DataFile> {
    let after = files.partition_point(|f| f.row_start <= row);
    let file = files.get(after.checked_sub(1)?)?;
    (row < file.row_start + file.row_count).then_some(file)
}

/// The files that `snapshot` sees, in the order of their row numbers, with all their rows that it
/// sees as deleted. Null: the catalog snapshot.
pub fn list(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<DataFile> {
    // Marks first: a merge that commits in between has put them into the files (STORAGE section 4).
    let marked = mark::list(storage, snapshot);
    let mut files = files(storage, snapshot);
    if !marked.is_empty() {
        add_marked(&mut files, marked);
    }
    files
}

/// Adds rows that are marked as deleted to the files that hold them.
pub fn add_marked(files: &mut [DataFile], mut marked: Vec<u64>) {
    marked.sort_unstable();
    let mut marked = marked.into_iter().peekable();
    for file in files {
        while marked.next_if(|row| *row < file.row_start).is_some() {}
        let end = file.row_start + file.row_count;
        let before = file.deleted.len();
        while let Some(row) = marked.next_if(|row| *row < end) {
            file.deleted.push((row - file.row_start) as u32);
        }
        if before > 0 && file.deleted.len() > before {
            file.deleted.sort_unstable();
        }
        file.deleted.dedup();
    }
}

/// Where a row is: its file, as one version of the catalog has it.
#[derive(Clone, Debug)]
pub struct At {
    pub row_start: u64,
    pub row_count: u64,
    pub path: String,
    pub size: u64,
    /// Whether the row is in the file's list of deleted rows.
    pub deleted: bool,
    /// Whether the file's rows were hot before.
    pub flushed: bool,
}

impl At {
    /// The file with all its rows, deleted or not.
    pub fn file_ref(&self) -> FileRef {
        FileRef {
            path: crate::pg::absolute(&self.path),
            size: self.size,
            row_start: self.row_start,
            row_count: self.row_count,
            deleted: vec![],
            ranges: None,
        }
    }
}

/// Calls `f`, until it returns false, for the versions of the one file that may hold a row.
fn versions(
    storage: i64,
    row: u64,
    snapshot: pg_sys::Snapshot,
    mut f: impl FnMut(&Row<'_>, u64, u64) -> bool,
) {
    Table::read(TABLE).scan_down_from(BY_STORAGE, storage, row as i64, snapshot, |found| {
        let (start, count) = (found.int8(2) as u64, found.int8(3) as u64);
        // Ranges don't overlap: a file that begins at or before the row and ends before it is
        // followed by smaller ones only.
        row < start + count && f(found, start, count)
    });
}

fn at_of(found: &Row<'_>, start: u64, count: u64, row: u64) -> At {
    let position = (row - start) as u32;
    At {
        row_start: start,
        row_count: count,
        path: found.text(4).unwrap_or_default(),
        size: found.int8(5) as u64,
        deleted: is_deleted(found, position),
        flushed: found.get(9).is_some(),
    }
}

thread_local! {
    /// The lists of deleted rows that were looked at last, by the version of the file's tuple: a long
    /// one is not fetched for each row. Forgotten with the transaction.
    static LISTS: RefCell<Vec<(ListKey, Rc<[u8]>)>> = const { RefCell::new(vec![]) };
}

/// Where a tuple is, and who inserted it there.
type ListKey = (u32, u16, u32);

const LISTS_MAX: usize = 8;

/// The transaction has ended: places of tuples may be used again.
pub fn forget_lists() {
    LISTS.with_borrow_mut(Vec::clear);
}

/// Whether a version of a file has a position in its list of deleted rows.
fn is_deleted(found: &Row<'_>, position: u32) -> bool {
    if found.get(7).is_none() {
        return false;
    }
    // SAFETY: a valid item pointer.
    let key = unsafe {
        (
            pg_sys::ItemPointerGetBlockNumberNoCheck(&found.tid),
            pg_sys::ItemPointerGetOffsetNumberNoCheck(&found.tid),
            u32::from(found.xmin()),
        )
    };
    let known = LISTS.with_borrow(|lists| {
        let known = lists.iter().find(|(k, _)| *k == key);
        known.map(|(_, list)| list.clone())
    });
    let list = known.unwrap_or_else(|| {
        let list: Rc<[u8]> = found.bytes(7).unwrap_or_default().into();
        LISTS.with_borrow_mut(|lists| {
            if lists.len() >= LISTS_MAX {
                lists.remove(0);
            }
            lists.push((key, list.clone()));
        });
        list
    });
    contains(&list, position)
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
    versions(storage, row, snapshot, |found, start, count| {
        at = Some(at_of(found, start, count, row));
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
    versions(storage, row, snapshot, |found, start, count| {
        // SAFETY: set for the version that the scan stands on.
        let inserting = unsafe { (*snapshot).xmin };
        let settled = inserting == pg_sys::InvalidTransactionId;
        if settled || best.is_none() {
            best = Some((at_of(found, start, count, row), inserting));
        }
        !settled
    });
    best.or_else(|| {
        let at = latest(|snapshot| at(storage, row, snapshot))?;
        Some((at, pg_sys::InvalidTransactionId))
    })
}

/// Calls `f` with a new snapshot.
fn latest<T>(f: impl FnOnce(pg_sys::Snapshot) -> T) -> T {
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

/// Whether a snapshot sees a row's file.
pub fn is_visible(storage: i64, row: u64, snapshot: pg_sys::Snapshot) -> bool {
    at(storage, row, snapshot).is_some()
}

/// Whether any transaction, this one included, has registered a file.
pub fn any(storage: i64) -> bool {
    let mut any = false;
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        &raw mut crate::pg::SNAPSHOT_SELF,
        |_| {
            any = true;
            false
        },
    );
    any
}

/// The files that `snapshot` sees, without the rows that are only marked as deleted.
pub fn files(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<DataFile> {
    let mut files = vec![];
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        snapshot,
        |row| {
            files.push(DataFile {
                row_start: row.int8(2) as u64,
                row_count: row.int8(3) as u64,
                path: row.text(4).unwrap_or_default(),
                size: row.int8(5) as u64,
                deleted: row.bytes(7).map(|b| positions(&b)).unwrap_or_default(),
                flushed: row.get(9).is_some(),
            });
            true
        },
    );
    files.sort_by_key(|f| f.row_start);
    files
}

/// A file with everything that publication needs, and its deleted rows.
pub fn list_written(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<(WrittenFile, Vec<u32>)> {
    let mut deleted: HashMap<String, Vec<u32>> = list(storage, snapshot)
        .into_iter()
        .map(|file| (file.path, file.deleted))
        .collect();
    let mut files = vec![];
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        snapshot,
        |row| {
            let offsets = row.bytes(6).unwrap_or_default();
            let path = row.text(4).unwrap_or_default();
            let deleted = deleted.remove(&path).unwrap_or_default();
            files.push((
                WrittenFile {
                    path,
                    size: row.int8(5) as u64,
                    rows: row.int8(3) as u64,
                    split_offsets: pg_lake_plan::decode(&offsets).unwrap_or_default(),
                    stats: row.bytes(8).unwrap_or_default(),
                },
                deleted,
            ));
            true
        },
    );
    files.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    files
}

/// Number of live cold rows and bytes.
pub fn totals(storage: i64, snapshot: pg_sys::Snapshot) -> (u64, u64) {
    let files = list(storage, snapshot);
    let rows = files
        .iter()
        .map(|f| f.row_count.saturating_sub(f.deleted.len() as u64));
    (rows.sum(), files.iter().map(|f| f.size).sum())
}

/// Where a flush put a hot row: `xid` is the transaction that deleted it, `tid` where it was.
pub fn moved_to(storage: i64, xid: u32, tid: (u32, u16)) -> Option<u64> {
    let mut found = None;
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        &raw mut crate::pg::SNAPSHOT_SELF,
        |row| {
            if row.get(9).is_some_and(|d| d.value() as u32 == xid)
                && let Some(forward) = row.bytes(10)
            {
                found = forward::find(&forward, tid).map(|at| row.int8(2) as u64 + at);
            }
            found.is_none()
        },
    );
    found
}

/// Where a row was before it was flushed, as long as somebody may still see it there.
pub fn origin(storage: i64, row: u64) -> Option<(u32, u16)> {
    let mut origin = None;
    versions(
        storage,
        row,
        &raw mut crate::pg::SNAPSHOT_SELF,
        |found, start, _| {
            if let Some(forward) = found.bytes(10) {
                origin = forward::origin(&forward, row - start);
            }
            false
        },
    );
    origin
}

/// Drops the forwards of flushes that every snapshot sees: nobody can come by an old TID any more.
/// Returns whether there were any.
pub fn forget_forwards(storage: i64, horizon: pg_sys::TransactionId) -> bool {
    forget_forwards_if(storage, |xid| {
        // SAFETY: pure arithmetic.
        unsafe { pg_sys::TransactionIdPrecedes(xid, horizon) }
    })
}

/// Drops all forwards: the heap is rewritten.
pub fn forget_all_forwards(storage: i64) {
    forget_forwards_if(storage, |_| true);
}

fn forget_forwards_if(storage: i64, settled: impl Fn(pg_sys::TransactionId) -> bool) -> bool {
    let mut any = false;
    let table = Table::write(TABLE);
    table.scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        std::ptr::null_mut(),
        |row| {
            let flushed_by = |xid: pg_sys::Datum| pg_sys::TransactionId::from(xid.value() as u32);
            if row.get(10).is_some() && row.get(9).is_some_and(|xid| settled(flushed_by(xid))) {
                let mut values: Vec<_> = (1..=10).map(|i| row.get(i)).collect();
                values[9] = None;
                table.update(row.tid, &values);
                any = true;
            }
            true
        },
    );
    any
}

/// Reserves row numbers: the first of `rows` consecutive ones, at the start of a block.
fn reserve(rows: u64) -> u64 {
    let blocks = rows.div_ceil(ROWS_PER_BLOCK).max(1);
    let sequence = relation_oid(c"row_block_seq");
    let first = crate::pg::missing::take_values(sequence, blocks as i64) as u64;
    if first + blocks >= u64::from(u32::MAX - FIRST_COLD_BLOCK) {
        error::raise(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            "the row numbers of this database are used up",
            None,
            Some("Copy the iceberg tables to a new database."),
        );
    }
    first * ROWS_PER_BLOCK
}

/// Where the rows of files that are registered come from.
pub enum Origin<'a> {
    Load,
    /// The flushing transaction, and the rows' TIDs in the order of the files.
    Flush(u32, &'a [(u32, u16)]),
}

/// Registers files with the current command id; returns their first rows' numbers.
pub fn register(storage: &Storage, files: &[WrittenFile], origin: &Origin<'_>) -> Vec<u64> {
    let storage = storage.id;
    let starts: Vec<u64> =
        crate::pg::as_extension_owner(|| files.iter().map(|file| reserve(file.rows)).collect());
    let table = Table::write(TABLE);
    let mut first = 0;
    for (file, start) in files.iter().zip(&starts) {
        let offsets = pg_lake_plan::encode(&file.split_offsets).unwrap_or_default();
        let (flush_xid, forward) = match origin {
            Origin::Load => (None, None),
            Origin::Flush(xid, tids) => {
                let last = first + file.rows as usize;
                let forward = forward::encode(tids.get(first..last).unwrap_or_default());
                first = last;
                (Some(*xid), Some(bytea_datum(&forward)))
            }
        };
        table.insert(&[
            Some(storage.into()),
            Some((*start as i64).into()),
            Some((file.rows as i64).into()),
            Some(text_datum(&file.path)),
            Some((file.size as i64).into()),
            Some(bytea_datum(&offsets)),
            None,
            Some(bytea_datum(&file.stats)),
            flush_xid.map(|xid| pg_sys::Datum::from(i64::from(xid))),
            forward,
        ]);
    }
    starts
}

fn one(storage: i64, row_start: u64, f: impl FnOnce(&Table, &Row<'_>)) {
    let table = Table::write(TABLE);
    let mut f = Some(f);
    table.scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage), Key::int8(2, row_start as i64)],
        std::ptr::null_mut(),
        |row| {
            if let Some(f) = f.take() {
                f(&table, row);
            }
            false
        },
    );
}

/// Replaces the list of a file's deleted rows: positions, ascending.
pub fn set_deleted(storage: i64, row_start: u64, deleted: &[u32]) {
    let bytes: Vec<u8> = deleted.iter().flat_map(|p| p.to_le_bytes()).collect();
    one(storage, row_start, |table, row| {
        let mut values: Vec<_> = (1..=10).map(|i| row.get(i)).collect();
        values[6] = Some(bytea_datum(&bytes));
        table.update(row.tid, &values);
    });
}

/// Removes one file from the catalog.
pub fn remove(storage: i64, row_start: u64) {
    one(storage, row_start, |table, row| table.delete(row.tid));
}

/// Removes all files of a storage from the catalog, as TRUNCATE of a table that the same
/// transaction made does.
pub fn remove_all(storage: i64) {
    let table = Table::write(TABLE);
    table.scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        std::ptr::null_mut(),
        |row| {
            crate::catalog::garbage::add_file(
                storage,
                &row.text(4).unwrap_or_default(),
                "truncated",
            );
            table.delete(row.tid);
            true
        },
    );
}
