//! Entries for the rows that are there when an index is made: hot rows by heap's code, then cold
//! ones from the files, of which only the columns that the index needs are read.

use crate::am::{ddl, dml, heap, parallel, scan, validate};
use crate::catalog::{data_file, file_mark, mark, replaced, storage};
use crate::cold::FullScan;
use crate::pg;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;
use pgrx::{PgList, pg_guard, pg_sys};
use std::collections::HashSet;
use std::ops::Range;

pub fn install(routine: &mut pg_sys::TableAmRoutine) {
    routine.index_build_range_scan = Some(build_range_scan);
    routine.index_validate_scan = Some(validate::scan);
}

#[pg_guard]
#[allow(clippy::too_many_arguments)] // the callback's signature
unsafe extern "C-unwind" fn build_range_scan(
    table_rel: pg_sys::Relation,
    index_rel: pg_sys::Relation,
    index_info: *mut pg_sys::IndexInfo,
    allow_sync: bool,
    anyvisible: bool,
    progress: bool,
    start_blockno: pg_sys::BlockNumber,
    numblocks: pg_sys::BlockNumber,
    callback: pg_sys::IndexBuildCallback,
    callback_state: *mut std::ffi::c_void,
    scan: pg_sys::TableScanDesc,
) -> f64 {
    let cold = ddl::has_cold_rows(table_rel);
    // SAFETY: arguments of the callback; heap's code ends the scan, as it is documented to.
    unsafe {
        // What a caller's own scan would see.
        let snapshot = if scan.is_null() {
            std::ptr::null_mut()
        } else {
            (*scan).rs_snapshot
        };
        let table = ddl::as_heap(table_rel);
        // In a parallel build one participant reads the cold rows.
        let cold = cold
            && start_blockno == 0
            && (scan.is_null() || parallel::claim(table_rel, (*scan).rs_parallel));
        let hot = if scan.is_null() {
            scan
        } else {
            let hot = scan::take_hot(scan);
            pg_sys::RelationDecrementReferenceCount((*hot).rs_rd);
            (*hot).rs_rd = table;
            pg_sys::RelationIncrementReferenceCount(table);
            hot
        };
        let mut rows = (heap().index_build_range_scan.unwrap_unchecked())(
            table,
            index_rel,
            index_info,
            allow_sync,
            anyvisible,
            progress,
            start_blockno,
            numblocks,
            callback,
            callback_state,
            hot,
        );
        // One over ranges of blocks gets hot rows only, and has others counted (`am::block_ranges`).
        if cold && (*(*index_rel).rd_indam).amsummarizing {
            if numblocks == pg_sys::InvalidBlockNumber {
                rows += cold_rows(table_rel) as f64;
            }
        } else if cold {
            rows += build_cold(table_rel, index_info, snapshot, |tid, build| {
                let Some(callback) = callback else { return };
                pg_guard_ffi_boundary(|| {
                    callback(
                        index_rel,
                        tid,
                        build.values.as_mut_ptr(),
                        build.nulls.as_mut_ptr(),
                        build.alive,
                        callback_state,
                    )
                });
            });
        }
        rows
    }
}

fn cold_rows(table: pg_sys::Relation) -> u64 {
    storage::of_relation(table).map_or(0, |storage| {
        data_file::totals(storage.id, std::ptr::null_mut()).0
    })
}

/// One row for the index.
struct Entry {
    values: [pg_sys::Datum; pg_sys::INDEX_MAX_KEYS as usize],
    nulls: [bool; pg_sys::INDEX_MAX_KEYS as usize],
    /// Whether it takes part in uniqueness.
    alive: bool,
}

/// Calls `add` for each cold row; returns the number of live ones.
unsafe fn build_cold(
    table: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    snapshot: pg_sys::Snapshot,
    mut add: impl FnMut(pg_sys::ItemPointer, &mut Entry),
) -> f64 {
    let Some(storage) = storage::of_relation(table) else {
        return 0.0;
    };
    // SAFETY: relations and index of the caller; all that is made here goes with the executor state.
    unsafe {
        let concurrent = (*info).ii_Concurrent
            || (!snapshot.is_null()
                && (*snapshot).snapshot_type == pg_sys::SnapshotType::SNAPSHOT_MVCC);
        let source = if concurrent {
            let own = if snapshot.is_null() {
                pg_sys::GetTransactionSnapshot()
            } else {
                snapshot
            };
            let own = pg_sys::RegisterSnapshot(own);
            let files = data_file::list(storage.id, own);
            pg_sys::UnregisterSnapshot(own);
            Source {
                files,
                dying: HashSet::new(),
                dying_files: vec![],
                storage: storage.id,
                clustered: vec![],
            }
        } else {
            Source::all(table, storage.id)
        };
        if source.files.is_empty() {
            return 0.0;
        }
        let state = pg_sys::CreateExecutorState();
        let context = pg_sys::MakePerTupleExprContext(state);
        let slot =
            pg_sys::MakeSingleTupleTableSlot((*table).rd_att, &raw const pg_sys::TTSOpsHeapTuple);
        (*context).ecxt_scantuple = slot;
        let predicate = pg_sys::ExecPrepareQual((*info).ii_Predicate, state);
        let refs: Vec<_> = source
            .files
            .iter()
            .map(data_file::DataFile::file_ref)
            .collect();
        let columns = columns(info);
        let mut scan =
            FullScan::start_columns(table, (*table).rd_att, &refs, |attnum| columns.has(attnum));
        let values = dml::row_context();
        let mut live = 0.0;
        let mut entry = Entry {
            values: [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize],
            nulls: [true; pg_sys::INDEX_MAX_KEYS as usize],
            alive: true,
        };
        while scan.next(table, slot, values) {
            pg::check_for_interrupts();
            pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            let mut tid = (*slot).tts_tid;
            let row = dml::cold_row(&mut tid).unwrap_or_default();
            entry.alive = !source.is_dying(row);
            live += f64::from(u8::from(entry.alive));
            if !predicate.is_null() && !qualifies(predicate, context) {
                continue;
            }
            pg_sys::FormIndexDatum(
                info,
                slot,
                state,
                entry.values.as_mut_ptr(),
                entry.nulls.as_mut_ptr(),
            );
            add(&mut tid, &mut entry);
            if let Some(old) = source.old_place(row) {
                entry.alive = false;
                add(&mut dml::tid_of_row(old), &mut entry);
            }
        }
        scan.stop();
        pg_sys::MemoryContextDelete(values);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::FreeExecutorState(state);
        // They may point into what was just freed, as heap's own build does it.
        (*info).ii_ExpressionsState = std::ptr::null_mut();
        (*info).ii_PredicateState = std::ptr::null_mut();
        live
    }
}

/// `ExecQual` in the context's memory for one row.
pub unsafe fn qualifies(
    predicate: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
) -> bool {
    // SAFETY: a prepared qualification and the context that it is evaluated in.
    unsafe {
        let old = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
        let passes = pg_sys::ExecQual(predicate, context);
        pg_sys::MemoryContextSwitchTo(old);
        passes
    }
}

/// What an index is built from.
struct Source {
    files: Vec<data_file::DataFile>,
    /// Rows that are deleted, but that an older snapshot may see.
    dying: HashSet<u64>,
    /// The same of whole files: their ranges of rows, ascending.
    dying_files: Vec<Range<u64>>,
    storage: i64,
    /// Where older snapshots see rows that CLUSTER has written anew. Only those that are not remembered are in `files`.
    clustered: Vec<data_file::DataFile>,
}

impl Source {
    /// All rows that anybody may see. Nobody else writes to the table while its index is built.
    fn all(table: pg_sys::Relation, storage: i64) -> Source {
        // SAFETY: the relation is open.
        let horizon = unsafe { pg_sys::GetOldestNonRemovableTransactionId(table) };
        // SAFETY: pure arithmetic.
        let is_settled = |xmin| unsafe { pg_sys::TransactionIdPrecedes(xmin, horizon) };
        let mut settled = vec![];
        let mut dying = HashSet::new();
        for (row, xmin) in mark::all(storage) {
            if is_settled(xmin) {
                settled.push(row);
            } else {
                dying.insert(row);
            }
        }
        let (gone, dying_files): (Vec<_>, Vec<_>) =
            file_mark::list(storage, &raw mut pg::SNAPSHOT_SELF)
                .into_iter()
                .partition(|mark| is_settled(mark.xmin));
        let mut files = data_file::files(storage, &raw mut pg::SNAPSHOT_SELF);
        let clustered = replaced::list(storage, &files);
        files.retain(|file| file_mark::of_file(&gone, file.rows.start()).is_none());
        data_file::add_marked(&mut files, settled);
        let mut dying_files: Vec<Range<u64>> =
            dying_files.into_iter().map(|mark| mark.rows).collect();
        let left = replaced::left(storage, &files, &clustered);
        if !left.is_empty() {
            dying_files.extend(left.iter().map(|f| f.rows.start()..f.rows.end()));
            dying_files.sort_unstable_by_key(|rows| rows.start);
            files.extend(left);
            files.sort_by_key(|file| file.rows.start());
        }
        Source {
            files,
            dying,
            dying_files,
            storage,
            clustered,
        }
    }

    /// Where an older snapshot sees a row.
    fn old_place(&self, row: u64) -> Option<u64> {
        if self.clustered.is_empty() {
            return None;
        }
        let old = replaced::old_place(self.storage, row)?;
        replaced::is_live(&self.clustered, old).then_some(old)
    }

    fn is_dying(&self, row: u64) -> bool {
        let after = self.dying_files.partition_point(|rows| rows.start <= row);
        let file = after.checked_sub(1).map(|at| &self.dying_files[at]);
        file.is_some_and(|rows| rows.contains(&row)) || self.dying.contains(&row)
    }
}

/// The columns of the table that an index needs.
struct Columns {
    whole: bool,
    attnums: HashSet<i16>,
}

impl Columns {
    fn has(&self, attnum: i16) -> bool {
        self.whole || self.attnums.contains(&attnum)
    }
}

unsafe fn columns(info: *mut pg_sys::IndexInfo) -> Columns {
    // SAFETY: the index's description; expressions refer to the table as variable 1.
    unsafe {
        let n = (*info).ii_NumIndexAttrs as usize;
        let mut attnums: HashSet<i16> = (&(*info).ii_IndexAttrNumbers)[..n]
            .iter()
            .copied()
            .collect();
        let mut used: *mut pg_sys::Bitmapset = std::ptr::null_mut();
        for list in [(*info).ii_Expressions, (*info).ii_Predicate] {
            for node in PgList::<pg_sys::Node>::from_pg(list).iter_ptr() {
                pg_sys::pull_varattnos(node, 1, &mut used);
            }
        }
        let mut member = -1;
        loop {
            member = pg_sys::bms_next_member(used, member);
            if member < 0 {
                break;
            }
            attnums.insert((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16);
        }
        Columns {
            // Attribute 0 of an index is an expression; of a variable it is the whole row.
            whole: !used.is_null()
                && pg_sys::bms_is_member(-pg_sys::FirstLowInvalidHeapAttributeNumber, used),
            attnums,
        }
    }
}
