//! Merge: puts settled marks into their files' lists of deleted rows, and drops files without a row.
//!
//! A mark is settled when every snapshot sees it: nobody can come to change or lock the row any more,
//! so that its successor and its anchor are of no use. A file whose rows somebody has changed or
//! locked is left for later (STORAGE section 4).

use crate::catalog::data_file::{self, DataFile, FIRST_COLD_BLOCK, ROWS_PER_BLOCK};
use crate::catalog::storage::{self, Storage};
use crate::catalog::{anchor, garbage, intent, mark, publication};
use crate::flush::Relation;
use crate::progress::{self, Command, Phase};
use crate::{indexes, pg};
use pg_lake_crash::{CrashPoint, crash_point};
use pgrx::pg_sys;

/// Merges the marks of a table; returns how many.
pub fn merge(relid: pg_sys::Oid) -> u64 {
    let rel = Relation::for_maintenance(relid, pg_sys::ShareUpdateExclusiveLock as i32);
    let Some(storage) = storage::of_relation(rel.0) else {
        return 0;
    };
    progress::report(Command::Merge, relid, || {
        let settled = settle(&rel, &storage, Eagerness::Always);
        fold(&rel, &storage, &settled)
    })
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

/// Deletions that every snapshot sees, in the order of their rows, and whose index entries are gone.
#[derive(Default)]
pub struct Settled(Vec<(u64, pg_sys::ItemPointerData)>);

/// Finds out which deletions can be merged, and removes the index entries of their rows and of
/// flushes that were rolled back. The table is open and locked against other maintenance.
///
/// To remove entries from a page it waits until nobody holds a pin on it, which no deadlock detector
/// sees: whoever does may wait for anything that this transaction has changed or locked. So it has to
/// come before everything else; in a transaction that has changed something nothing is merged.
pub fn settle(rel: &Relation, storage: &Storage, eagerness: Eagerness) -> Settled {
    // SAFETY: the relation is open.
    let horizon = unsafe { pg_sys::GetOldestNonRemovableTransactionId(rel.0) };
    let mut settled = mark::settled(storage.id, horizon);
    settled.sort_unstable_by_key(|(row, _)| *row);
    if !pg::has_indexes(rel.0) {
        return Settled(settled);
    }
    let orphans = intent::entries_of_ended(storage.id);
    if settled.is_empty() && orphans.is_empty() {
        return Settled(settled);
    }
    let rows: u64 = data_file::files(storage.id, std::ptr::null_mut())
        .iter()
        .map(|file| file.rows.count())
        .sum();
    let few = orphans.is_empty() && (settled.len() as u64) < rows / FEW;
    // SAFETY: globals of this backend; the relation is open.
    let busy = unsafe {
        pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId
            // A cursor of this session would keep its own page pinned.
            || (*rel.0).rd_refcnt > 1
    };
    if busy && eagerness == Eagerness::Always {
        crate::error::warn(
            &format!(
                "deletions of table \"{}\", which has indexes, are not merged now",
                pg::relation_name(rel.0)
            ),
            Some(
                "Its transaction has changed something before, or has a cursor open on the table.",
            ),
        );
    }
    if busy || (few && eagerness == Eagerness::IfCheap) {
        return Settled(vec![]);
    }
    // Before the marks are gone, which are the evidence.
    indexes::remove_dead(rel.0, storage.id, settled.iter().map(|(row, _)| *row));
    for orphan in orphans {
        intent::forget(orphan);
    }
    crash_point(CrashPoint::MergeSettled);
    Settled(settled)
}

/// Puts settled deletions into their files' lists and drops files without a row.
pub fn fold(rel: &Relation, storage: &Storage, settled: &Settled) -> u64 {
    storage::incarnation(); // an error in a copy of a database
    let settled = &settled.0;
    progress::phase(Phase::MergingDeletions, Some(settled.len() as u64));
    let mut merged = 0;
    for file in data_file::files(storage.id, std::ptr::null_mut()) {
        let first = settled.partition_point(|(row, _)| *row < file.rows.start());
        let last = settled.partition_point(|(row, _)| *row < file.rows.end());
        let left = file.live_rows() == 0;
        if (first == last && !left) || !lock_file(rel, &file) {
            continue;
        }
        let marks = &settled[first..last];
        let mut deleted = file.deleted.clone();
        let positions = marks.iter().filter_map(|(row, _)| file.rows.position(*row));
        deleted.extend(positions.map(|position| position as u32));
        deleted.sort_unstable();
        deleted.dedup();
        if deleted.len() as u64 == file.rows.count() && lock_publication(rel) {
            drop_file(storage, &file);
        } else if !marks.is_empty() {
            data_file::set_deleted(storage.id, file.rows.start(), &deleted);
        }
        for (row, tid) in marks {
            mark::remove(*tid);
            anchor::remove(storage.id, *row);
            merged += 1;
            progress::rows_done(merged);
        }
        crash_point(CrashPoint::MergeFolding);
        pg::check_for_interrupts();
    }
    crash_point(CrashPoint::MergeFolded);
    merged
}

fn lock_block(file: &DataFile) -> u32 {
    FIRST_COLD_BLOCK + (file.rows.start() / ROWS_PER_BLOCK) as u32
}

/// Whether nobody else has changed or locked a row of the file right now.
pub fn could_lock_file(rel: &Relation, file: &DataFile) -> bool {
    let locked = lock_file(rel, file);
    if locked {
        // SAFETY: the lock that was just taken.
        unsafe { pg_sys::UnlockPage(rel.0, lock_block(file), pg_sys::ExclusiveLock as i32) };
    }
    locked
}

/// Whether nobody else has changed or locked a row of the file. Whoever wants to waits until the end
/// of this transaction.
pub fn lock_file(rel: &Relation, file: &DataFile) -> bool {
    let block = lock_block(file);
    // SAFETY: the tag that `am::cold_dml` takes in share mode.
    unsafe { pg_sys::ConditionalLockPage(rel.0, block, pg_sys::ExclusiveLock as i32) }
}

/// Keeps the table from being published to the end of the transaction: a publication under way may
/// be about to refer to a file. False if one is; the file is dropped by a later merge.
pub fn lock_publication(rel: &Relation) -> bool {
    // SAFETY: the relation is open.
    publication::try_lock(unsafe { (*rel.0).rd_id })
}

/// The file goes when no snapshot needs it, neither of Postgres nor of what was published.
fn drop_file(storage: &Storage, file: &DataFile) {
    data_file::remove(storage.id, file.rows.start());
    discard(storage, file, "no live row");
}

/// Has a file removed that is in no list any more, when nothing refers to it.
pub fn discard(storage: &Storage, file: &DataFile, reason: &str) {
    let last = publication::find(storage.id).map(|published| published.number);
    garbage::add_file_after(storage.id, &file.path, reason, last);
}
