//! Merge: puts settled marks into their files' lists of deleted rows, and drops files without a row.
//!
//! A mark is settled when every snapshot sees it: nobody can come to change or lock the row any more,
//! so that its successor and its anchor are of no use. A file whose rows somebody has changed or
//! locked is left for later (STORAGE section 4).

use crate::catalog::data_file::{self, DataFile, FIRST_COLD_BLOCK, ROWS_PER_BLOCK};
use crate::catalog::storage::{self, Storage};
use crate::catalog::{anchor, garbage, mark, publication};
use crate::flush::Relation;
use crate::{guc, indexes, pg};
use pgrx::pg_sys;

/// Merges the marks of a table; returns how many.
pub fn merge(relid: pg_sys::Oid) -> u64 {
    let rel = Relation::for_maintenance(relid, pg_sys::ShareUpdateExclusiveLock as i32);
    storage::of_relation(rel.0).map_or(0, |storage| merge_marks(&rel, &storage, Eagerness::Always))
}

/// Whether a merge is worth reading the table's indexes.
#[derive(PartialEq)]
pub enum Eagerness {
    Always,
    /// Not for a small part of the table's rows.
    IfCheap,
}

/// Fewer deletions than one in so many cold rows are left to a merge of its own.
const FEW: u64 = 50;

/// The same for a table that is open and locked against other maintenance.
pub fn merge_marks(rel: &Relation, storage: &Storage, eagerness: Eagerness) -> u64 {
    storage::incarnation(); // an error in a copy of a database
    // SAFETY: the relation is open.
    let horizon = unsafe { pg_sys::GetOldestNonRemovableTransactionId(rel.0) };
    let mut settled = mark::settled(storage.id, horizon);
    settled.sort_unstable_by_key(|(row, _)| *row);
    let files = data_file::files(storage.id, std::ptr::null_mut());
    if !settled.is_empty() && pg::has_indexes(rel.0) {
        let rows: u64 = files.iter().map(|file| file.row_count).sum();
        if eagerness == Eagerness::IfCheap && (settled.len() as u64) < rows / FEW {
            return 0;
        }
        // Before the marks are gone, which are the evidence.
        indexes::remove_dead(rel.0, storage.id, settled.iter().map(|(row, _)| *row));
    }
    let mut merged = 0;
    for file in files {
        let first = settled.partition_point(|(row, _)| *row < file.row_start);
        let last = settled.partition_point(|(row, _)| *row < file.row_start + file.row_count);
        let left = file.deleted.len() as u64 == file.row_count;
        if (first == last && !left) || !lock_file(rel, &file) {
            continue;
        }
        let marks = &settled[first..last];
        let mut deleted = file.deleted.clone();
        deleted.extend(marks.iter().map(|(row, _)| (row - file.row_start) as u32));
        deleted.sort_unstable();
        deleted.dedup();
        if deleted.len() as u64 == file.row_count && lock_publication(rel) {
            drop_file(storage, &file);
        } else if !marks.is_empty() {
            data_file::set_deleted(storage.id, file.row_start, &deleted);
        }
        for (row, tid) in marks {
            mark::remove(*tid);
            anchor::remove(storage.id, *row);
        }
        merged += marks.len() as u64;
        pg::check_for_interrupts();
    }
    merged
}

/// Whether nobody else has changed or locked a row of the file. Whoever wants to waits until the end
/// of this transaction.
fn lock_file(rel: &Relation, file: &DataFile) -> bool {
    let block = FIRST_COLD_BLOCK + (file.row_start / ROWS_PER_BLOCK) as u32;
    // SAFETY: the tag that `am::cold_dml` takes in share mode.
    unsafe { pg_sys::ConditionalLockPage(rel.0, block, pg_sys::ExclusiveLock as i32) }
}

/// Keeps the table from being published to the end of the transaction: a publication under way may
/// be about to refer to a file. False if one is; the file is dropped by a later merge.
fn lock_publication(rel: &Relation) -> bool {
    // SAFETY: the relation is open; the tag that `publish` takes.
    unsafe {
        pg_sys::ConditionalLockDatabaseObject(
            pg_sys::RelationRelationId,
            (*rel.0).rd_id,
            0,
            pg_sys::ExclusiveLock as i32,
        )
    }
}

/// The file goes when no snapshot needs it, neither of Postgres nor of what was published.
fn drop_file(storage: &Storage, file: &DataFile) {
    data_file::remove(storage.id, file.row_start);
    let last = publication::find(storage.id)
        .map(|published| (published.number, guc::keep_snapshots() as i32));
    garbage::add_file_after(storage.id, &file.path, "no live row", last);
}
