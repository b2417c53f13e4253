//! Rows of `lake.data_file` as they are. What makes no sense there is for the check to report, where a query
//! would fail.

use crate::pg::table::{Key, Row, Table};
use pg_lake_plan::layout::{Partition, SortField};
use pg_lake_plan::rows::RowNumbers;
use pgrx::pg_sys;
use serde::de::DeserializeOwned;
use std::ffi::CStr;
use std::ops::Range;

const TABLE: &CStr = c"data_file";
const BY_STORAGE: &CStr = c"data_file_pkey";

/// One file.
pub struct Entry {
    pub path: String,
    pub size: u64,
    pub row_count: u64,
    /// `None`: they can't be told.
    pub rows: Option<RowNumbers>,
    /// The list of deleted rows, as it is stored.
    pub deleted: Vec<u8>,
    /// What can't be read of it.
    pub damaged: Vec<&'static str>,
}

impl Entry {
    fn of(row: &Row<'_>) -> Entry {
        let (start, row_count) = (row.int8(2) as u64, row.int8(3) as u64);
        let rows = match row.bytes(12) {
            None => Some(RowNumbers::consecutive(start, row_count)),
            Some(runs) => RowNumbers::decode(start..row.int8(11) as u64, &runs),
        };
        let rows = rows.filter(|rows| rows.is_valid() && rows.count() == row_count);
        let mut damaged = vec![];
        let mut look = |column, is_damaged: bool| {
            if is_damaged {
                damaged.push(column);
            }
        };
        look("row numbers", rows.is_none());
        look("split offsets", is_damaged::<Vec<i64>>(row, 6));
        look("partition", is_damaged::<Partition>(row, 13));
        look("sort order", is_damaged::<Vec<SortField>>(row, 14));
        look(
            "record of who inserted its rows",
            is_damaged::<Vec<(u64, u32)>>(row, 15),
        );
        look("checksums", is_damaged::<Vec<u32>>(row, 16));
        Entry {
            path: row.text(4).unwrap_or_default(),
            size: row.int8(5) as u64,
            row_count,
            rows,
            deleted: row.bytes(7).unwrap_or_default(),
            damaged,
        }
    }
}

fn is_damaged<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> bool {
    row.bytes(column)
        .is_some_and(|bytes| pg_lake_plan::decode::<T>(&bytes).is_err())
}

/// The files of a storage that `snapshot` sees, in the order of their row numbers.
pub fn list(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<Entry> {
    let mut entries = vec![];
    let keys = [Key::int8(1, storage)];
    Table::read(TABLE).scan(Some(BY_STORAGE), &keys, snapshot, |row| {
        entries.push((row.int8(2), Entry::of(row)));
        true
    });
    entries.sort_by_key(|(start, _)| *start);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// The ranges of row numbers that any version of an entry has, whoever sees it.
pub fn ranges_of_any(storage: i64) -> Vec<Range<u64>> {
    let mut ranges = vec![];
    let keys = [Key::int8(1, storage)];
    let any = &raw mut crate::pg::SNAPSHOT_ANY;
    Table::read(TABLE).scan(Some(BY_STORAGE), &keys, any, |row| {
        let start = row.int8(2) as u64;
        let end = match row.get(11) {
            Some(end) => end.value() as u64,
            None => start.saturating_add(row.int8(3) as u64),
        };
        ranges.push(start..end);
        true
    });
    ranges
}
