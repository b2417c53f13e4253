//! Files that CLUSTER has replaced: in no list any more, but older snapshots see them, and their rows' index
//! entries stay as long as any does.

use crate::catalog::data_file::{BY_STORAGE, DataFile, TABLE};
use crate::catalog::garbage;
use crate::pg::table::{Key, Table};

/// Why they are garbage.
pub const REASON: &str = "clustered";

/// Files that are in no list any more, but that an older snapshot may see: CLUSTER has written the rows anew.
/// `files` are those that are listed now.
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
