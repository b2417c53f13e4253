//! Flush: moves settled hot rows to a Parquet file.
//!
//! Rows are encoded first; then one transaction deletes them from the heap and registers the file,
//! so that every snapshot sees each row once: an older one the heap tuple, a newer one the file
//! (I1). A row that changed in between stays hot and the file is written again without it.

use crate::am::hot;
use crate::catalog::data_file::{self, Origin};
use crate::catalog::storage::{self, Storage};
use crate::indexes;
use crate::merge::{self, Eagerness};
use crate::pg::{self, published};
use crate::progress::{self, Command, Phase};
use crate::relation::{self, Info};
use crate::sink::{Kind, Sink, Tid, Written};
use crate::{error, guc};
use pg_lake_crash::{CrashPoint, crash_point};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::collections::HashSet;
use std::rc::Rc;

/// Rows of one pass, which bounds the memory for their TIDs.
const ROWS_PER_PASS: usize = 4_000_000;

/// An open relation, closed with its lock kept.
pub struct Relation(pub pg_sys::Relation);

impl Relation {
    /// Opens an iceberg table on which the user may do maintenance.
    pub fn for_maintenance(relid: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> Relation {
        check_right(relid);
        Relation::open(relid, lock)
    }

    /// Opens an iceberg table; anything else is an error.
    pub fn open(relid: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> Relation {
        // What the statement has done before, maintenance too, comes first.
        // SAFETY: in a transaction; raises an error if the relation is gone.
        unsafe { pg_sys::CommandCounterIncrement() };
        // SAFETY: as above.
        let rel = Relation(unsafe { pg_sys::table_open(relid, lock) });
        // SAFETY: the relation is open.
        let kind = unsafe { (*(*rel.0).rd_rel).relkind } as u8;
        if kind == pg_sys::RELKIND_PARTITIONED_TABLE {
            error::raise(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                &format!("\"{}\" is a partitioned table", pg::relation_name(rel.0)),
                None,
                Some("Name its partitions, one by one."),
            );
        }
        if !crate::am::is_iceberg_relation(rel.0) {
            error::raise(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                &format!("\"{}\" is not an iceberg table", pg::relation_name(rel.0)),
                None,
                Some("Create it with USING iceberg."),
            );
        }
        rel
    }
}

/// Whether the user may do maintenance on an existing table.
pub fn is_allowed(relid: pg_sys::Oid) -> bool {
    // SAFETY: a permission check of the current user.
    unsafe {
        let user = pg_sys::GetUserId();
        pg_sys::object_ownercheck(pg_sys::RelationRelationId, relid, user)
            || pg_sys::pg_class_aclcheck(relid, user, pg_sys::ACL_MAINTAIN as pg_sys::AclMode)
                == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Raises an error if the user may not. Before the lock, which others would have to wait for.
pub fn check_right(relid: pg_sys::Oid) {
    // SAFETY: catalog look-ups.
    unsafe {
        let name = pg_sys::get_rel_name(relid);
        // One that is gone is found out when it is opened.
        if !name.is_null() && !is_allowed(relid) {
            pg_sys::aclcheck_error(
                pg_sys::AclResult::ACLCHECK_NOT_OWNER,
                pg_sys::ObjectType::OBJECT_TABLE,
                name,
            );
        }
    }
}

impl Drop for Relation {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by this value.
            unsafe { pg_sys::table_close(self.0, pg_sys::NoLock as i32) }
        }
    }
}

/// Flushes a table unless an index or a publication of logical replication keeps its rows hot, or it
/// is gone.
pub fn flush_if_possible(relid: pg_sys::Oid) -> u64 {
    // SAFETY: looked at under a lock that keeps the table, and closed with the lock kept.
    let possible = unsafe {
        let rel = pg_sys::try_relation_open(relid, pg_sys::ShareUpdateExclusiveLock as i32);
        !rel.is_null() && {
            let stays = indexes::over_block_ranges(rel) || published::stays_hot(rel);
            pg_sys::relation_close(rel, pg_sys::NoLock as i32);
            !stays
        }
    };
    if possible { flush(relid) } else { 0 }
}

/// The hot rows of a table, counted up to a limit.
pub fn hot_rows(relid: pg_sys::Oid, limit: u64) -> u64 {
    let mut rows = 0;
    // SAFETY: looked at under the caller's lock, which is kept.
    unsafe {
        let rel = pg_sys::try_relation_open(relid, pg_sys::NoLock as i32);
        if !rel.is_null() {
            hot::scan(rel, &raw mut pg::SNAPSHOT_SELF, |_| {
                rows += 1;
                rows < limit
            });
            pg_sys::relation_close(rel, pg_sys::NoLock as i32);
        }
    }
    rows
}

/// Raises an error if a publication of logical replication covers the table; otherwise none will
/// before the end of the transaction.
fn refuse_published(rel: pg_sys::Relation) {
    if let Some(publication) = published::keeps_hot(rel) {
        error::raise(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            &format!(
                "cannot flush iceberg table \"{}\", which publication {} covers",
                pg::relation_name(rel),
                published::publication_name(publication)
            ),
            Some("Changes of cold rows can't be decoded from WAL."),
            Some("Take the table out of the publication first."),
        );
    }
}

/// Moves the settled rows of a table; returns how many.
pub fn flush(relid: pg_sys::Oid) -> u64 {
    // Conflicts with itself, VACUUM and CREATE INDEX, not with reads or writes.
    let rel = Relation::for_maintenance(relid, pg_sys::ShareUpdateExclusiveLock as i32);
    let Some(storage) = storage::of_relation(rel.0) else {
        return 0; // temporary and unlogged tables stay hot
    };
    indexes::check(rel.0);
    refuse_published(rel.0);
    storage::incarnation(); // an error in a copy of a database
    progress::report(Command::Flush, relid, || move_settled(&rel, &storage))
}

fn move_settled(rel: &Relation, storage: &Storage) -> u64 {
    // What others have changed since a snapshot that is kept isn't changed once more: it would be seen
    // twice.
    let kept = crate::am::replaced::keeps_snapshot();
    let settled = if kept {
        merge::Settled::default()
    } else {
        merge::settle(rel, storage, Eagerness::IfCheap)
    };
    let info = relation::info(rel.0);
    let estimate = crate::am::estimate_hot_rows(rel.0);
    if !kept {
        data_file::settle_forwards(rel.0, storage.id);
    }
    let mut moved = 0;
    loop {
        // Each pass sees the deletes of the one before it, and keeps its snapshot for itself.
        // SAFETY: pushed and popped in pairs; an error pops it at abort.
        let n = unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushCopiedSnapshot(pg_sys::GetActiveSnapshot());
            pg_sys::UpdateActiveSnapshotCommandId();
            let n = pass(rel, storage, &info, estimate.saturating_sub(moved));
            pg_sys::PopActiveSnapshot();
            n
        };
        moved += n;
        if n < ROWS_PER_PASS as u64 {
            if !kept {
                merge::fold(rel, storage, &settled);
            }
            return moved;
        }
    }
}

/// Moves the next rows, of about `left` that are left.
fn pass(rel: &Relation, storage: &Storage, info: &Rc<Info>, left: u64) -> u64 {
    progress::phase(Phase::WritingRows, Some(left.min(ROWS_PER_PASS as u64)));
    let written = encode(rel, storage, info, None);
    if written.tids.is_empty() {
        return 0;
    }
    let mut tids = written.tids.clone();
    tids.sort_unstable();
    crash_point(CrashPoint::FlushEncoded);
    progress::phase(Phase::DeletingHotRows, Some(tids.len() as u64));
    let gone = delete(rel, &tids);
    crash_point(CrashPoint::FlushDeleted);
    let Written {
        files,
        tids,
        options,
    } = if gone.is_empty() {
        written
    } else {
        // The rows that are left are locked by the deletes above and can't change any more; the
        // first files were never registered and the sweeper removes them.
        let keep: HashSet<Tid> = tids.iter().copied().filter(|t| !gone.contains(t)).collect();
        if keep.is_empty() {
            return 0;
        }
        progress::phase(Phase::WritingRows, Some(keep.len() as u64));
        encode(rel, storage, info, Some(&keep))
    };
    progress::files_written(&files);
    progress::phase(Phase::RegisteringFiles, None);
    // SAFETY: in a transaction.
    let xid = unsafe { pg_sys::GetCurrentTransactionId() };
    let origin = Origin::Flush(xid, &tids);
    let starts = data_file::register(storage, &files, &options, &origin);
    let rows = files
        .iter()
        .zip(starts)
        .flat_map(|(file, start)| start..start + file.rows);
    let mut moved: Vec<(Tid, u64)> = tids.into_iter().zip(rows).collect();
    // Entries are made in the order of a scan of the heap, whatever the order of the files.
    moved.sort_unstable();
    indexes::insert(rel.0, storage.id, &moved);
    hot::count_left(rel.0, moved.len());
    moved.len() as u64
}

/// Writes the settled rows, or those of `only`.
fn encode(
    rel: &Relation,
    storage: &Storage,
    info: &Rc<Info>,
    only: Option<&HashSet<Tid>>,
) -> Written {
    // Rows that some snapshot may not see yet must not move (STORAGE section 5).
    // SAFETY: the relation is open.
    let horizon = unsafe { pg_sys::GetOldestNonRemovableTransactionId(rel.0) };
    let mut sink: Option<Sink> = None;
    let mut rows = 0;
    let in_order = guc::debug_flush();
    hot::scan(rel.0, active_snapshot(), |slot| {
        // SAFETY: heap's slots hold a buffer heap tuple while a scan is on it.
        let (tid, xmin) = unsafe {
            let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
            let tid = (*slot).tts_tid;
            (
                (
                    pg_sys::ItemPointerGetBlockNumber(&tid),
                    pg_sys::ItemPointerGetOffsetNumber(&tid),
                ),
                pg_sys::htup::HeapTupleHeaderGetXmin((*tuple).t_data),
            )
        };
        let wanted = match only {
            Some(only) => only.contains(&tid),
            // SAFETY: pure arithmetic.
            None => unsafe { pg_sys::TransactionIdPrecedes(xmin, horizon) },
        };
        let storable = wanted && relation::is_storable(info, slot);
        if storable {
            sink.get_or_insert_with(|| Sink::open(rel.0, storage, info.clone(), Kind::Flush))
                .push(slot);
            rows += 1;
            progress::rows_done(rows as u64);
        }
        // Scans give cold rows first: what comes behind a row that has to stay hot stays, too.
        let out_of_order = in_order && wanted && !storable;
        rows < ROWS_PER_PASS && !out_of_order
    });
    sink.map(Sink::finish).unwrap_or_default()
}

/// Deletes hot rows without waiting; returns those that were locked or changed.
fn delete(rel: &Relation, tids: &[Tid]) -> HashSet<Tid> {
    let mut gone = HashSet::new();
    for (i, tid) in tids.iter().enumerate() {
        if i % 1024 == 0 {
            pg::check_for_interrupts();
        }
        progress::rows_done(i as u64);
        if !hot::delete_nowait(rel.0, *tid, active_snapshot()) {
            gone.insert(*tid);
        }
        crash_point(CrashPoint::FlushDeleting);
    }
    gone
}

/// The snapshot of the statement that runs.
pub fn active_snapshot() -> pg_sys::Snapshot {
    // SAFETY: callers run inside a statement.
    unsafe { pg_sys::GetActiveSnapshot() }
}
