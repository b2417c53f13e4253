//! Files that CLUSTER has replaced: in no list any more, but older snapshots see them, and their rows' index
//! entries stay as long as any does.
//!
//! The indexes that CLUSTER builds have entries for both places of a row. As long as its transaction knows which
//! belong together, a row is read once, and what an index computes of it is computed once.

use crate::catalog::data_file::{self, BY_STORAGE, DataFile, TABLE};
use crate::catalog::garbage;
use crate::pg::table::{Key, Table};
use std::cell::RefCell;

/// Rows whose old places are remembered, which bounds the memory for them.
pub const REMEMBERED_MAX: usize = 2_000_000;

/// The places of a row that CLUSTER has written anew.
#[derive(Clone, Copy)]
pub struct Moved {
    pub old: u64,
    pub new: u64,
}

thread_local! {
    /// Of the last CLUSTER of this transaction: the storage, and its rows by their new numbers. They stay right
    /// when it is rolled back: no row number comes again.
    static MOVED: RefCell<(i64, Vec<Moved>)> = const { RefCell::new((0, vec![])) };
}

/// Notes where the rows of a storage were before.
pub fn remember(storage: i64, mut moved: Vec<Moved>) {
    moved.sort_unstable_by_key(|row| row.new);
    MOVED.set((storage, moved));
}

/// The transaction has ended.
pub fn forget() {
    MOVED.set((0, vec![]));
}

/// The rows, by their new numbers, that are in files that are listed and were in some that are `replaced`.
pub fn moved(storage: i64, files: &[DataFile], replaced: &[DataFile]) -> Vec<Moved> {
    let is_in = |files: &[DataFile], row| {
        data_file::file_of(files, row).is_some_and(|file| file.live(row).is_some())
    };
    MOVED.with_borrow(|(of, moved)| {
        if *of != storage {
            return vec![];
        }
        moved
            .iter()
            .filter(|row| is_in(files, row.new) && is_in(replaced, row.old))
            .copied()
            .collect()
    })
}

/// Why they are garbage.
pub const REASON: &str = "clustered";

/// Files that are in no list any more, but that an older snapshot may see: CLUSTER has written the rows anew.
/// `files` are those that are listed now. Whoever reads the rows holds a lock on the table that writers wait for, as
/// index builds do: a sweep leaves the files alone then (`sweep::waste`).
pub fn list(storage: i64, files: &[DataFile]) -> Vec<DataFile> {
    let table = Table::read(TABLE);
    let mut snapshot = crate::pg::non_vacuumable_snapshot(table.relation());
    let mut found: Vec<DataFile> = vec![];
    table.scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        &raw mut snapshot,
        |row| {
            found.push(DataFile::of(row));
            true
        },
    );
    // Other versions of a file that is listed have its rows, and so have those that were compacted.
    found.retain(|file| {
        let before = files.partition_point(|listed| listed.rows.start() < file.rows.end());
        let last = before.checked_sub(1).and_then(|at| files.get(at));
        last.is_none_or(|listed| listed.rows.end() <= file.rows.start())
    });
    if found.is_empty() {
        return found;
    }
    // A merge drops files without a row that anybody sees.
    let clustered = garbage::paths_because(storage, REASON);
    found.retain(|file| clustered.contains(&file.path));
    // Of its versions the one from before it was merged, or the one after it was compacted: it has all rows.
    found.sort_by_key(|file| {
        (
            std::cmp::Reverse(file.rows.end() - file.rows.start()),
            file.deleted.len(),
        )
    });
    let mut kept: Vec<DataFile> = vec![];
    for file in found {
        let overlaps = |other: &DataFile| {
            other.rows.start() < file.rows.end() && file.rows.start() < other.rows.end()
        };
        if !kept.iter().any(overlaps) {
            kept.push(file);
        }
    }
    kept.sort_by_key(|file| file.rows.start());
    kept
}
