//! Merge: puts settled marks into their files' lists of deleted rows, and drops files without a row:
//! those that are deleted as a whole, and those that have lost all rows one by one.
//!
//! A mark is settled when every snapshot sees it: nobody can come to change or lock the row any more,
//! so that its successor and its anchor are of no use. A file whose rows somebody has changed or
//! locked is left for later (STORAGE section 4).

use crate::catalog::data_file::{self, DataFile, FIRST_COLD_BLOCK, ROWS_PER_BLOCK};
use crate::catalog::file_mark::{self, FileMark};
use crate::catalog::storage::{self, Storage};
use crate::catalog::{anchor, garbage, intent, mark, publication};
use crate::flush::Relation;
use crate::pg::xids;
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
pub struct Settled {
    rows: Vec<(u64, pg_sys::ItemPointerData)>,
    files: Vec<FileMark>,
}

/// Finds out which deletions can be merged, and removes the index entries of their rows and of
/// flushes that were rolled back. The table is open and locked against other maintenance.
///
/// To remove entries from a page it waits until nobody holds a pin on it, which no deadlock detector
/// sees: whoever does may wait for anything that this transaction has changed or locked. So it has to
/// come before everything else; in a transaction that has changed something nothing is merged.
pub fn settle(rel: &Relation, storage: &Storage, eagerness: Eagerness) -> Settled {
    // SAFETY: the relation is open.
    let horizon = unsafe { pg_sys::GetOldestNonRemovableTransactionId(rel.0) };
    let mut rows = mark::settled(storage.id, horizon);
    rows.sort_unstable_by_key(|(row, _)| *row);
    let mut files = file_mark::list(storage.id, std::ptr::null_mut());
    // SAFETY: pure arithmetic.
    files.retain(|mark| unsafe { pg_sys::TransactionIdPrecedes(mark.xmin, horizon) });
    let settled = Settled { rows, files };
    let horizon = xids::full(horizon);
    let orphans = intent::entries_of_ended(storage.id);
    if !pg::has_indexes(rel.0) {
        // An index that is made from now on doesn't get any of these either.
        let old = orphans.into_iter().filter(|(_, by)| *by < horizon);
        old.for_each(|(orphan, _)| intent::forget(orphan));
        return settled;
    }
    if settled.rows.is_empty() && settled.files.is_empty() && orphans.is_empty() {
        return settled;
    }
    let (mut all, mut deleted) = (0, settled.rows.len() as u64);
    for file in data_file::files(storage.id, std::ptr::null_mut()) {
        all += file.rows.count();
        if file_mark::of_file(&settled.files, file.rows.start()).is_some() {
            deleted += file.live_rows();
        }
    }
    // Entries of rows in replaced files stay until every snapshot sees that these are: nothing is found before.
    let any_orphan = orphans.iter().any(|(_, by)| *by < horizon);
    let few = !any_orphan && deleted < all / FEW;
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
        return Settled::default();
    }
    // Before the marks are gone, which are the evidence.
    let rows = settled.rows.iter().map(|(row, _)| *row);
    let files = settled.files.iter().map(|mark| mark.rows.start);
    if indexes::remove_dead(rel.0, storage.id, rows, files) {
        for (orphan, _) in orphans {
            intent::forget(orphan);
        }
    }
    crash_point(CrashPoint::MergeSettled);
    settled
}

/// Puts settled deletions into their files' lists and drops files without a row.
pub fn fold(rel: &Relation, storage: &Storage, settled: &Settled) -> u64 {
    storage::incarnation(); // an error in a copy of a database
    let rows = &settled.rows;
    progress::phase(Phase::MergingDeletions, Some(rows.len() as u64));
    let mut merged = 0;
    for file in data_file::files(storage.id, std::ptr::null_mut()) {
        let first = rows.partition_point(|(row, _)| *row < file.rows.start());
        let last = rows.partition_point(|(row, _)| *row < file.rows.end());
        let whole = file_mark::of_file(&settled.files, file.rows.start());
        let left = file.live_rows() == 0;
        if (first == last && !left && whole.is_none()) || !lock_file(rel.0, &file) {
            continue;
        }
        if let Some(whole) = whole {
            if lock_publication(rel) {
                merged += file.live_rows();
                drop_deleted(storage, &file, whole);
            }
            continue;
        }
        let marks = &rows[first..last];
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
pub fn could_lock_file(rel: pg_sys::Relation, file: &DataFile) -> bool {
    let locked = lock_file(rel, file);
    if locked {
        unlock_file(rel, file);
    }
    locked
}

/// Whether nobody else has changed or locked a row of the file. Whoever wants to waits until the end
/// of this transaction.
pub fn lock_file(rel: pg_sys::Relation, file: &DataFile) -> bool {
    let block = lock_block(file);
    // SAFETY: the relation is open; the tag that `am::cold_dml` takes in share mode.
    unsafe { pg_sys::ConditionalLockPage(rel, block, pg_sys::ExclusiveLock as i32) }
}

/// Gives one [`lock_file`] back.
pub fn unlock_file(rel: pg_sys::Relation, file: &DataFile) {
    // SAFETY: a lock that was taken.
    unsafe { pg_sys::UnlockPage(rel, lock_block(file), pg_sys::ExclusiveLock as i32) };
}

/// Keeps the table from being published to the end of the transaction: a publication under way may
/// be about to refer to a file. False if one is; the file is dropped by a later merge.
pub fn lock_publication(rel: &Relation) -> bool {
    // SAFETY: the relation is open.
    publication::try_lock(unsafe { (*rel.0).rd_id })
}

/// Drops a file that is deleted as a whole. The mark of a single row of it may be of a later
/// transaction, which has ended before the whole file was deleted.
fn drop_deleted(storage: &Storage, file: &DataFile, whole: &FileMark) {
    drop_file(storage, file);
    file_mark::remove(whole);
    mark::remove_between(storage.id, &whole.rows);
    anchor::remove_between(storage.id, &whole.rows);
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
