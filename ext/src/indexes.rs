//! Index entries of cold rows: a flush makes them, a merge removes those of rows that are gone.
//!
//! A flush puts them beside those of the hot rows that it moves, without a check for uniqueness: the
//! rows were there before. Entries are removed on positive evidence only (STORAGE section 6): the
//! callers hold off every other flush and merge, and no statement inserts cold rows into a table
//! with an index, so that a row that no file has belonged to a flush that was rolled back.

use crate::am::{dml, index_build};
use crate::catalog::data_file::{self, DataFile};
use crate::catalog::{intent, replaced};
use crate::progress::{self, Phase};
use crate::sql::maintenance::as_owner;
use crate::{error, pg};
use pg_lake_crash::{CrashPoint, crash_point};
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::cell::Cell;
use std::collections::HashSet;

/// An open index, with what evaluates its columns.
struct Index {
    relation: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    predicate: *mut pg_sys::ExprState,
}

fn open(table: pg_sys::Relation, ready_only: bool) -> Vec<Index> {
    // SAFETY: the table is open and locked, so that its indexes stay.
    unsafe {
        let list = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(table));
        list.iter_oid()
            .map(|oid| pg_sys::index_open(oid, pg_sys::RowExclusiveLock as i32))
            .filter(|index| {
                let wanted = !ready_only || (*(**index).rd_index).indisready;
                if !wanted {
                    pg_sys::index_close(*index, pg_sys::NoLock as i32);
                }
                wanted
            })
            .map(|relation| Index {
                relation,
                info: pg_sys::BuildIndexInfo(relation),
                predicate: std::ptr::null_mut(),
            })
            .collect()
    }
}

fn close(indexes: Vec<Index>) {
    for index in indexes {
        // SAFETY: opened above; the lock is kept.
        unsafe { pg_sys::index_close(index.relation, pg_sys::NoLock as i32) }
    }
}

/// The index over ranges of blocks that keeps a table's rows hot: what is flushed falls out of it.
fn over_blocks(table: pg_sys::Relation) -> Option<String> {
    let indexes = open(table, false);
    let found = indexes
        .iter()
        // SAFETY: the index is open.
        .find(|index| unsafe { (*(*index.relation).rd_indam).amsummarizing })
        .map(|index| pg::relation_name(index.relation));
    close(indexes);
    found
}

/// Whether the table has an index over ranges of blocks.
pub fn over_block_ranges(table: pg_sys::Relation) -> bool {
    over_blocks(table).is_some()
}

/// Raises an error if it has one.
pub fn check(table: pg_sys::Relation) {
    if let Some(index) = over_blocks(table) {
        error::unsupported(
            &format!(
                "index \"{index}\" summarizes ranges of blocks, which cold rows of iceberg table \"{}\" don't have",
                pg::relation_name(table)
            ),
            "The bounds in each file do the work of a BRIN index; drop the index, or use another access method.",
        );
    }
}

/// Makes the entries of rows that this transaction has moved: hot rows in the order of a scan, with
/// their new row numbers.
pub fn insert(table: pg_sys::Relation, storage: i64, moved: &[((u32, u16), u64)]) {
    if moved.is_empty() || !pg::has_indexes(table) {
        return;
    }
    // SAFETY: the table is open.
    let relid = unsafe { (*table).rd_id };
    progress::phase(Phase::InsertingIndexEntries, Some(moved.len() as u64));
    // Entries outlive a rollback; then so does this, and the next merge removes them.
    let intent = intent::announce_entries(storage);
    as_owner(relid, || insert_as_owner(table, moved));
    crash_point(CrashPoint::EntriesInserted);
    intent::forget(intent);
}

fn insert_as_owner(table: pg_sys::Relation, moved: &[((u32, u16), u64)]) {
    let mut indexes = open(table, true);
    // SAFETY: the executor state lives until the end of this function, or of the transaction.
    let (state, context) = unsafe {
        let state = pg_sys::CreateExecutorState();
        (state, pg_sys::MakePerTupleExprContext(state))
    };
    for index in &mut indexes {
        // SAFETY: the index's own predicate.
        index.predicate = unsafe { pg_sys::ExecPrepareQual((*index.info).ii_Predicate, state) };
    }
    let mut next = moved.iter().peekable();
    let mut done = 0;
    // The rows are deleted by this very command, so that its snapshot still sees them.
    crate::am::hot::scan(table, crate::flush::active_snapshot(), |slot| {
        // SAFETY: the slot holds a row of the heap.
        let tid = unsafe { (*slot).tts_tid };
        // SAFETY: a valid item pointer.
        let tid = unsafe {
            (
                pg_sys::ItemPointerGetBlockNumberNoCheck(&tid),
                pg_sys::ItemPointerGetOffsetNumberNoCheck(&tid),
            )
        };
        if let Some((_, row)) = next.next_if(|(from, _)| *from == tid) {
            let mut new = dml::tid_of_row(*row);
            for index in &indexes {
                // SAFETY: all belong to the open table; a row's values live in the context.
                unsafe { index.insert(table, slot, &mut new, state, context) };
            }
            // SAFETY: as above.
            unsafe { pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory) };
            done += 1;
            progress::rows_done(done);
            crash_point(CrashPoint::EntriesInserting);
        }
        next.peek().is_some()
    });
    if next.peek().is_some() {
        error::raise(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "a row that was moved is not found again",
            None,
            None,
        );
    }
    for index in &indexes {
        // SAFETY: ends what the insertions have begun.
        unsafe { pg_sys::index_insert_cleanup(index.relation, index.info) };
    }
    // SAFETY: made above.
    unsafe { pg_sys::FreeExecutorState(state) };
    close(indexes);
}

impl Index {
    unsafe fn insert(
        &self,
        table: pg_sys::Relation,
        slot: *mut pg_sys::TupleTableSlot,
        tid: pg_sys::ItemPointer,
        state: *mut pg_sys::EState,
        context: *mut pg_sys::ExprContext,
    ) {
        let mut values = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
        let mut nulls = [true; pg_sys::INDEX_MAX_KEYS as usize];
        // SAFETY: by contract.
        unsafe {
            (*context).ecxt_scantuple = slot;
            if !self.predicate.is_null() && !index_build::qualifies(self.predicate, context) {
                return;
            }
            let old = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            pg_sys::FormIndexDatum(
                self.info,
                slot,
                state,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            pg_sys::index_insert(
                self.relation,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                tid,
                table,
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
                false,
                self.info,
            );
            // A session that checks an exclusion constraint right now may have passed by the new entry
            // and be about to find the old row deleted. As an inserter, after the entry is in.
            if !(*self.info).ii_ExclusionOps.is_null() {
                pg_sys::check_exclusion_constraint(
                    table,
                    self.relation,
                    self.info,
                    tid,
                    values.as_ptr(),
                    nulls.as_ptr(),
                    state,
                    false,
                );
            }
            pg_sys::MemoryContextSwitchTo(old);
        }
    }
}

/// What is known about the rows of a table when dead entries are removed.
struct Evidence {
    files: Vec<DataFile>,
    /// Rows whose deletion every snapshot sees.
    settled: HashSet<u64>,
    /// Entries of any row that have been looked at.
    entries: Cell<u64>,
    /// The same of whole files, by their first rows.
    gone: HashSet<u64>,
}

impl Evidence {
    fn is_dead(&self, row: u64) -> bool {
        match data_file::file_of(&self.files, row) {
            None => true,
            Some(file) => {
                self.settled.contains(&row)
                    || self.gone.contains(&file.rows.start())
                    || file.live(row).is_none()
            }
        }
    }
}

unsafe extern "C-unwind" fn is_dead(
    tid: pg_sys::ItemPointer,
    evidence: *mut std::ffi::c_void,
) -> bool {
    // SAFETY: what `remove_dead` passes on.
    let evidence = unsafe { &*evidence.cast::<Evidence>() };
    evidence.entries.set(evidence.entries.get() + 1);
    progress::rows_done(evidence.entries.get());
    dml::cold_row(tid).is_some_and(|row| evidence.is_dead(row))
}

/// Removes the entries of cold rows that nobody can see any more from all indexes of a table:
/// `settled` ones, those of files that begin at a row of `gone`, those in a file's list of deleted rows,
/// and those that no file has.
///
/// The caller holds off other maintenance of the table. False: rows of files that CLUSTER has replaced are
/// still seen, and keep their entries for now.
pub fn remove_dead(
    table: pg_sys::Relation,
    storage: i64,
    settled: impl Iterator<Item = u64>,
    gone: impl Iterator<Item = u64>,
) -> bool {
    // This transaction's own files as well, whichever command registered them.
    let mut files = data_file::files(storage, &raw mut pg::SNAPSHOT_SELF);
    let clustered = replaced::list(storage, &files);
    let all = clustered.is_empty();
    files.extend(clustered);
    files.sort_by_key(|file| file.rows.start());
    let mut evidence = Evidence {
        files,
        settled: settled.collect(),
        entries: Cell::new(0),
        gone: gone.collect(),
    };
    progress::phase(Phase::RemovingIndexEntries, None);
    // One whose CREATE INDEX CONCURRENTLY failed may not even have a first page.
    let indexes = open(table, true);
    for index in &indexes {
        // SAFETY: table and index are open; the callback's argument outlives the call.
        unsafe {
            let mut info = pg_sys::IndexVacuumInfo {
                index: index.relation,
                heaprel: table,
                analyze_only: false,
                report_progress: false,
                estimated_count: true,
                message_level: pg_sys::DEBUG2 as i32,
                num_heap_tuples: f64::from((*(*table).rd_rel).reltuples),
                strategy: pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_VACUUM),
            };
            pg_guard_ffi_boundary(|| {
                pg_sys::index_bulk_delete(
                    &mut info,
                    std::ptr::null_mut(),
                    Some(is_dead),
                    (&raw mut evidence).cast(),
                )
            });
        }
    }
    close(indexes);
    all
}
