//! `lake.data_file`: the cold files of each storage, and row numbers.
//!
//! A row number stands for a TID of a block number of 2^31 or more, with at most
//! [`ROWS_PER_BLOCK`] offsets a block. Numbers come from a sequence of blocks and are never used
//! again after an abort (STORAGE section 1).

use crate::catalog::locate::{self, At};
use crate::catalog::storage::Storage;
use crate::catalog::{file_mark, forward, mark};
use crate::error;
use crate::pg::table::{Key, Row, Table, bytea_datum, relation_oid, text_datum};
use crate::pg::xids;
use pg_lake_crash::{CrashPoint, crash_point};
use pg_lake_plan::layout::{Partition, SortField};
use pg_lake_plan::message::{FileRef, WrittenFile};
use pg_lake_plan::rows::RowNumbers;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::rc::Rc;

pub(super) const TABLE: &CStr = c"data_file";
pub(super) const BY_STORAGE: &CStr = c"data_file_pkey";
const COLUMNS: usize = 17;
/// The column that says who registered a file's rows.
pub const INSERTED: usize = 15;

/// `MaxHeapTuplesPerPage` of 8 kB pages: what bitmaps and TID stores accept.
pub const ROWS_PER_BLOCK: u64 = 291;
/// Block number of row 0.
pub const FIRST_COLD_BLOCK: u32 = 1 << 31;

/// One cold file as the catalog knows it.
#[derive(Clone, Debug)]
pub struct DataFile {
    pub rows: Rc<RowNumbers>,
    /// Relative to the data directory.
    pub path: String,
    pub size: u64,
    /// Of its blocks; none of a local file.
    pub checksums: Rc<[u32]>,
    /// Positions of deleted rows, ascending.
    pub deleted: Vec<u32>,
    /// Whether its rows were hot before.
    pub flushed: bool,
    /// Whether somebody may still look for one of them where it was.
    pub forwards: bool,
    /// The partition that its rows are in, encoded.
    pub partition: Vec<u8>,
    /// Who registered the rows: first row and transaction, ascending.
    pub inserted: Vec<(u64, u32)>,
}

impl DataFile {
    pub(super) fn of(row: &Row<'_>) -> DataFile {
        DataFile {
            rows: Rc::new(row_numbers(row)),
            path: row.text(4).unwrap_or_default(),
            size: row.int8(5) as u64,
            checksums: checksums(row),
            deleted: row.bytes(7).map(|b| positions(&b)).unwrap_or_default(),
            flushed: row.get(9).is_some(),
            forwards: row.get(10).is_some(),
            partition: row.bytes(13).unwrap_or_default(),
            inserted: decoded(row, INSERTED),
        }
    }

    pub fn file_ref(&self) -> FileRef {
        FileRef {
            path: crate::pg::absolute(&self.path),
            size: self.size,
            checksums: self.checksums.to_vec(),
            rows: (*self.rows).clone(),
            deleted: self.deleted.clone(),
            ranges: None,
        }
    }

    /// Where a row of it is that isn't deleted.
    pub fn at(&self) -> At {
        At {
            rows: self.rows.clone(),
            path: self.path.clone(),
            size: self.size,
            checksums: self.checksums.clone(),
            deleted: false,
            flushed: self.flushed,
        }
    }

    /// The position of a row; `None` if the file has no such row, or it is deleted.
    pub fn live(&self, row: u64) -> Option<u64> {
        let position = self.rows.position(row)?;
        let gone = self.deleted.binary_search(&(position as u32)).is_ok();
        (!gone).then_some(position)
    }

    /// How many of its rows aren't deleted.
    pub fn live_rows(&self) -> u64 {
        self.rows.count().saturating_sub(self.deleted.len() as u64)
    }
}

/// The numbers of a file's rows, as the catalog has them.
pub fn row_numbers(row: &Row<'_>) -> RowNumbers {
    let (start, count) = (row.int8(2) as u64, row.int8(3) as u64);
    let Some(bytes) = row.bytes(12) else {
        return RowNumbers::consecutive(start, count);
    };
    RowNumbers::decode(start..row.int8(11) as u64, &bytes).unwrap_or_else(|| damaged(row))
}

/// The checksums of a file's blocks, as the catalog has them.
pub fn checksums(row: &Row<'_>) -> Rc<[u32]> {
    decoded::<Vec<u32>>(row, 16).into()
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

/// The file that a row belongs to, if it is there at all.
pub fn file_of(files: &[DataFile], row: u64) -> Option<&DataFile> {
    let after = files.partition_point(|f| f.rows.start() <= row);
    let file = files.get(after.checked_sub(1)?)?;
    file.rows.covers(row).then_some(file)
}

/// The files that `snapshot` sees, in the order of their row numbers, with all their rows that it
/// sees as deleted, and without those that are deleted as a whole. Null: the catalog snapshot.
pub fn list(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<DataFile> {
    // Marks first: a merge that commits in between has put them into the files (STORAGE section 4).
    let marked = mark::list(storage, snapshot);
    let deleted = file_mark::list(storage, snapshot);
    let mut files = files(storage, snapshot);
    files.retain(|file| file_mark::of_file(&deleted, file.rows.start()).is_none());
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
        while marked.next_if(|row| *row < file.rows.start()).is_some() {}
        let before = file.deleted.len();
        while let Some(row) = marked.next_if(|row| *row < file.rows.end()) {
            let position = file.rows.position(row);
            file.deleted
                .extend(position.map(|position| position as u32));
        }
        if before > 0 && file.deleted.len() > before {
            file.deleted.sort_unstable();
        }
        file.deleted.dedup();
    }
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

/// All files that `snapshot` sees, without the rows that are only marked as deleted.
pub fn files(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<DataFile> {
    let mut files = vec![];
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        snapshot,
        |row| {
            files.push(DataFile::of(row));
            true
        },
    );
    files.sort_by_key(|f| f.rows.start());
    files
}

/// The files as of now, also those that another transaction is registering: with that one. As of
/// [`at_dirty`], maintenance that changes or drops a file hides nothing.
pub fn list_dirty(storage: i64) -> Vec<(DataFile, pg_sys::TransactionId)> {
    let mut snapshot = crate::pg::dirty_snapshot();
    let snapshot = &raw mut snapshot;
    let mut found = vec![];
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        snapshot,
        |row| {
            // SAFETY: set for the version that the scan stands on.
            found.push((DataFile::of(row), unsafe { (*snapshot).xmin }));
            true
        },
    );
    let settled = locate::latest(|snapshot| files(storage, snapshot));
    found.extend(
        settled
            .into_iter()
            .map(|file| (file, pg_sys::InvalidTransactionId)),
    );
    let range = |file: &DataFile| (file.rows.start(), file.rows.end());
    found.sort_by_key(|(file, by)| (range(file), *by != pg_sys::InvalidTransactionId));
    found.dedup_by_key(|(file, _)| range(file));
    // One that a compaction in progress puts in the place of others has no rows but theirs.
    let settled: Vec<_> = found
        .iter()
        .filter(|(_, by)| *by == pg_sys::InvalidTransactionId)
        .map(|(file, _)| range(file))
        .collect();
    found.retain(|(file, by)| {
        let (start, end) = range(file);
        *by == pg_sys::InvalidTransactionId || !settled.iter().any(|(a, b)| *a < end && start < *b)
    });
    found
}

/// The files of [`list`] with everything that publication needs, and their deleted rows.
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
            let Some(deleted) = deleted.remove(&path) else {
                return true; // deleted as a whole
            };
            files.push((
                WrittenFile {
                    path,
                    size: row.int8(5) as u64,
                    checksums: checksums(row).to_vec(),
                    rows: row.int8(3) as u64,
                    split_offsets: pg_lake_plan::decode(&offsets).unwrap_or_default(),
                    stats: row.bytes(8).unwrap_or_default(),
                    partition: decoded(row, 13),
                    sort_order: decoded(row, 14),
                },
                deleted,
            ));
            true
        },
    );
    files.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    files
}

/// The columns that files of a storage are partitioned by.
pub fn partitioned_by(storage: i64) -> Vec<i32> {
    let mut columns = vec![];
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        &raw mut crate::pg::SNAPSHOT_SELF,
        |row| {
            let partition: Partition = decoded(row, 13);
            columns.extend(partition.fields.iter().map(|field| field.source_id));
            true
        },
    );
    columns
}

/// The partition of one file and what its rows are sorted by.
pub fn layout_of(storage: i64, row_start: u64) -> (Partition, Vec<SortField>) {
    let mut layout = Default::default();
    one(storage, row_start, |_, row| {
        layout = (decoded(row, 13), decoded(row, 14));
    });
    layout
}

/// The first rows of the files that were written by other options, as this transaction sees them.
pub fn written_otherwise(storage: i64, options: &[u8]) -> HashSet<u64> {
    let mut found = HashSet::new();
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        &raw mut crate::pg::SNAPSHOT_SELF,
        |row| {
            if row.bytes(17).as_deref() != Some(options) {
                found.insert(row.int8(2) as u64);
            }
            true
        },
    );
    found
}

/// What a column has of a file: nothing where it is null.
pub fn decoded<T: serde::de::DeserializeOwned + Default>(row: &Row<'_>, column: usize) -> T {
    let Some(bytes) = row.bytes(column) else {
        return T::default();
    };
    pg_lake_plan::decode(&bytes).unwrap_or_else(|_| damaged(row))
}

fn damaged(row: &Row<'_>) -> ! {
    error::raise(
        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        "the catalog entry of a data file is damaged",
        Some(&format!(
            "The file is \"{}\".",
            row.text(4).unwrap_or_default()
        )),
        None,
    )
}

fn encoded<T: serde::Serialize>(value: &T, is_none: bool) -> Option<pg_sys::Datum> {
    let bytes = pg_lake_plan::encode(value).ok().filter(|_| !is_none)?;
    Some(bytea_datum(&bytes))
}

/// Number of live cold rows and bytes.
pub fn totals(storage: i64, snapshot: pg_sys::Snapshot) -> (u64, u64) {
    let files = list(storage, snapshot);
    let rows = files.iter().map(DataFile::live_rows);
    (rows.sum(), files.iter().map(|f| f.size).sum())
}

/// Drops the forwards of flushes that every snapshot sees: nobody can come by an old TID any more.
/// The next command sees it.
pub fn settle_forwards(relation: pg_sys::Relation, storage: i64) {
    let horizon = xids::horizon(relation);
    if forget_forwards_if(storage, |xid| xid < horizon) {
        // Predicate locks are on the old TIDs, and nobody can tell any more which rows they are.
        crate::pg::missing::coarsen_predicate_locks(relation);
    }
}

/// Drops all forwards: the heap is rewritten.
pub fn forget_all_forwards(storage: i64) {
    forget_forwards_if(storage, |_| true);
}

fn forget_forwards_if(storage: i64, settled: impl Fn(u64) -> bool) -> bool {
    let mut any = false;
    let table = Table::write(TABLE);
    table.scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        std::ptr::null_mut(),
        |row| {
            if row.get(10).is_some() && row.get(9).is_some_and(|xid| settled(xid.value() as u64)) {
                let mut values: Vec<_> = (1..=COLUMNS).map(|i| row.get(i)).collect();
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
    Flush(pg_sys::TransactionId, &'a [(u32, u16)]),
}

/// What tells the lock of [`register`] from others of a table.
const REGISTRATION: u16 = 1;

/// Whether no transaction in progress has registered a file of a table. Whoever wants to waits until
/// the end of this one.
pub fn lock_registration(relid: pg_sys::Oid) -> bool {
    let mode = pg_sys::ExclusiveLock as i32;
    // SAFETY: a heavyweight lock of a tag of our own.
    unsafe {
        pg_sys::ConditionalLockDatabaseObject(pg_sys::RelationRelationId, relid, REGISTRATION, mode)
    }
}

/// Whether nobody has at the moment.
pub fn could_lock_registration(relid: pg_sys::Oid) -> bool {
    let locked = lock_registration(relid);
    if locked {
        let (class, mode) = (pg_sys::RelationRelationId, pg_sys::ExclusiveLock as i32);
        // SAFETY: the lock that was just taken.
        unsafe { pg_sys::UnlockDatabaseObject(class, relid, REGISTRATION, mode) };
    }
    locked
}

/// Registers files, which were written by certain options, with the current command id; returns their first rows' numbers.
pub fn register(
    storage: &Storage,
    files: &[WrittenFile],
    options: &[u8],
    origin: &Origin<'_>,
) -> Vec<u64> {
    crash_point(CrashPoint::RegisterBegin);
    // To the end of the transaction: these numbers, which others may be about to pass over, are in use.
    // SAFETY: as above.
    unsafe {
        let (class, mode) = (pg_sys::RelationRelationId, pg_sys::ShareLock as i32);
        pg_sys::LockDatabaseObject(class, storage.relid, REGISTRATION, mode);
        if !any(storage.id) {
            // Plans know whether there are cold rows.
            pg_sys::CacheInvalidateRelcacheByRelid(storage.relid);
        }
    }
    let storage = storage.id;
    let starts: Vec<u64> =
        crate::pg::as_extension_owner(|| files.iter().map(|file| reserve(file.rows)).collect());
    // Of the current subtransaction, as that of a heap tuple.
    // SAFETY: in a transaction.
    let by = unsafe { pg_sys::GetCurrentTransactionId() };
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
                (Some(xids::full(*xid)), Some(bytea_datum(&forward)))
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
            flush_xid.map(|xid| pg_sys::Datum::from(xid as i64)),
            forward,
            None,
            None,
            encoded(&file.partition, file.partition.fields.is_empty()),
            encoded(&file.sort_order, file.sort_order.is_empty()),
            encoded(&vec![(*start, u32::from(by))], false),
            encoded(&file.checksums, file.checksums.is_empty()),
            Some(bytea_datum(options)),
        ]);
    }
    crash_point(CrashPoint::RegisterEnd);
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
        let mut values: Vec<_> = (1..=COLUMNS).map(|i| row.get(i)).collect();
        values[6] = Some(bytea_datum(&bytes));
        table.update(row.tid, &values);
    });
}

/// Puts a file in the place of others, whose rows keep their numbers.
pub fn replace(
    storage: i64,
    old: &[DataFile],
    file: &WrittenFile,
    rows: &RowNumbers,
    options: &[u8],
) {
    for old in old {
        remove(storage, old.rows.start());
    }
    let inserted: Vec<(u64, u32)> = old.iter().flat_map(|old| old.inserted.clone()).collect();
    let offsets = pg_lake_plan::encode(&file.split_offsets).unwrap_or_default();
    let runs = rows.encode();
    Table::write(TABLE).insert(&[
        Some(storage.into()),
        Some((rows.start() as i64).into()),
        Some((rows.count() as i64).into()),
        Some(text_datum(&file.path)),
        Some((file.size as i64).into()),
        Some(bytea_datum(&offsets)),
        None,
        Some(bytea_datum(&file.stats)),
        None,
        None,
        runs.is_some().then(|| (rows.end() as i64).into()),
        runs.map(|runs| bytea_datum(&runs)),
        encoded(&file.partition, file.partition.fields.is_empty()),
        encoded(&file.sort_order, file.sort_order.is_empty()),
        encoded(&inserted, false),
        encoded(&file.checksums, file.checksums.is_empty()),
        Some(bytea_datum(options)),
    ]);
}

/// Removes one file from the catalog.
pub fn remove(storage: i64, row_start: u64) {
    one(storage, row_start, |table, row| table.delete(row.tid));
}

/// Gives files other paths, with the checksums of what is there, by the numbers of their first rows. Older snapshots go on to see the old
/// ones.
pub fn set_paths(storage: i64, paths: &HashMap<u64, (String, Vec<u32>)>) {
    let table = Table::write(TABLE);
    table.scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        std::ptr::null_mut(),
        |row| {
            if let Some((path, checksums)) = paths.get(&(row.int8(2) as u64)) {
                let mut values: Vec<_> = (1..=COLUMNS).map(|i| row.get(i)).collect();
                values[3] = Some(text_datum(path));
                values[15] = encoded(checksums, checksums.is_empty());
                table.update(row.tid, &values);
            }
            true
        },
    );
}
