//! `lake.data_file`: the cold files of each storage, and row numbers.
//!
//! A row number stands for a TID of a block number of 2^31 or more, with at most
//! [`ROWS_PER_BLOCK`] offsets a block. Numbers come from a sequence of blocks and are never used
//! again after an abort (STORAGE section 1).

use crate::error;
use crate::pg::table::{Key, Table, bytea_datum, relation_oid, text_datum};
use pg_lake_plan::message::{FileRef, WrittenFile};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;

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
    pub deleted: Vec<u32>,
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

/// The files that `snapshot` sees, in the order of their row numbers. Null: the catalog snapshot.
pub fn list(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<DataFile> {
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
            });
            true
        },
    );
    files.sort_by_key(|f| f.row_start);
    files
}

/// A file with everything that publication needs.
pub fn list_written(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<(WrittenFile, Vec<u32>)> {
    let mut files = vec![];
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        snapshot,
        |row| {
            let offsets = row.bytes(6).unwrap_or_default();
            files.push((
                WrittenFile {
                    path: row.text(4).unwrap_or_default(),
                    size: row.int8(5) as u64,
                    rows: row.int8(3) as u64,
                    split_offsets: pg_lake_plan::decode(&offsets).unwrap_or_default(),
                    stats: row.bytes(8).unwrap_or_default(),
                },
                row.bytes(7).map(|b| positions(&b)).unwrap_or_default(),
            ));
            true
        },
    );
    files.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    files
}

/// Number of live cold rows and bytes.
pub fn totals(storage: i64, snapshot: pg_sys::Snapshot) -> (u64, u64) {
    let mut totals = (0, 0);
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        snapshot,
        |row| {
            let deleted = row
                .get(7)
                .map_or(0, |_| row.bytes(7).map_or(0, |b| b.len() / 4));
            totals.0 += (row.int8(3) as u64).saturating_sub(deleted as u64);
            totals.1 += row.int8(5) as u64;
            true
        },
    );
    totals
}

/// Whether a transaction moved rows of this storage to a file.
pub fn is_flush_of(storage: i64, xid: u32) -> bool {
    let mut found = false;
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        &raw mut crate::pg::SNAPSHOT_SELF,
        |row| {
            found |= row.get(9).is_some_and(|d| d.value() as u32 == xid);
            !found
        },
    );
    found
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

/// Registers files with the current command id. `deleted` belongs to the first file's start.
/// Returns the row number of each file.
pub fn register(
    storage: i64,
    files: &[WrittenFile],
    deleted: &[Vec<u32>],
    flush_xid: Option<u32>,
) -> Vec<u64> {
    let starts: Vec<u64> =
        crate::pg::as_extension_owner(|| files.iter().map(|file| reserve(file.rows)).collect());
    let table = Table::write(TABLE);
    for (i, (file, start)) in files.iter().zip(&starts).enumerate() {
        let offsets = pg_lake_plan::encode(&file.split_offsets).unwrap_or_default();
        let deleted: Vec<u8> = deleted
            .get(i)
            .into_iter()
            .flatten()
            .flat_map(|p| p.to_le_bytes())
            .collect();
        table.insert(&[
            Some(storage.into()),
            Some((*start as i64).into()),
            Some((file.rows as i64).into()),
            Some(text_datum(&file.path)),
            Some((file.size as i64).into()),
            Some(bytea_datum(&offsets)),
            (!deleted.is_empty()).then(|| bytea_datum(&deleted)),
            Some(bytea_datum(&file.stats)),
            flush_xid.map(|xid| pg_sys::Datum::from(i64::from(xid))),
        ]);
    }
    starts
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
