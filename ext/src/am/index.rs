//! Rows that an index leads to.
//!
//! Heap's code fetches hot ones. A cold one is looked up in the catalogs, then decoded, together
//! with the rows behind it if the scan seems to go on there. A scan that fetches many rows learns
//! once what its snapshot sees of the whole table.

use crate::am::{dirty, dml, heap, replaced, visible};
use crate::catalog::data_file::{self, DataFile};
use crate::catalog::locate::{self, At};
use crate::catalog::{mark, storage};
use crate::cold::point::ReadAhead;
use crate::pg::missing;
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;

pub fn install(routine: &mut pg_sys::TableAmRoutine) {
    routine.index_fetch_begin = Some(begin);
    routine.index_fetch_reset = Some(reset);
    routine.index_fetch_end = Some(end);
    routine.index_fetch_tuple = Some(fetch_tuple);
    routine.index_delete_tuples = Some(delete_tuples);
}

/// A bit of a slot's flags, none of `tuptable.h`'s, that asks for visibility without values: an
/// index-only scan takes them from the index. `hooks::executor` sets it.
pub const VISIBILITY_ONLY: u16 = 1 << 15;

/// Fetches by single look-ups before the whole table's files and marks are read.
const LOOKUPS: u32 = 16;

/// Our state of a fetch: begins as Postgres expects and carries heap's own.
#[repr(C)]
struct Fetch {
    base: pg_sys::IndexFetchTableData,
    hot: *mut pg_sys::IndexFetchTableData,
}

thread_local! {
    /// By the addresses of the fetches that have met cold rows. After an error they stay to the end of
    /// the transaction.
    static COLD: RefCell<HashMap<usize, Cold>> = RefCell::default();
}

/// The transaction has ended, and all fetches with it.
pub fn forget() {
    COLD.with_borrow_mut(HashMap::clear);
}

#[derive(Default)]
struct Cold {
    lookups: u32,
    view: Option<View>,
    ahead: ReadAhead,
}

/// What one MVCC snapshot sees.
struct View {
    snapshot: pg_sys::Snapshot,
    cid: pg_sys::CommandId,
    files: Vec<DataFile>,
}

fn ours<'a>(scan: *mut pg_sys::IndexFetchTableData) -> &'a mut Fetch {
    // SAFETY: Postgres gives our callbacks only what `begin` made.
    unsafe { &mut *scan.cast::<Fetch>() }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(rel: pg_sys::Relation) -> *mut pg_sys::IndexFetchTableData {
    visible::prepare(rel);
    // SAFETY: a callback of heap; our state is palloc'd like heap's.
    unsafe {
        let fetch = pg_sys::palloc0(size_of::<Fetch>()).cast::<Fetch>();
        (*fetch).base.rel = rel;
        (*fetch).hot = (heap().index_fetch_begin.unwrap_unchecked())(rel);
        // An error may have left one at the same address.
        COLD.with_borrow_mut(|cold| cold.remove(&(fetch as usize)));
        fetch.cast()
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn reset(scan: *mut pg_sys::IndexFetchTableData) {
    // SAFETY: a callback of heap with its own state.
    unsafe { (heap().index_fetch_reset.unwrap_unchecked())(ours(scan).hot) }
}

#[pg_guard]
unsafe extern "C-unwind" fn end(scan: *mut pg_sys::IndexFetchTableData) {
    COLD.with_borrow_mut(|cold| cold.remove(&(scan as usize)));
    // SAFETY: `end` is called once.
    unsafe {
        (heap().index_fetch_end.unwrap_unchecked())(ours(scan).hot);
        pg_sys::pfree(scan.cast());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn fetch_tuple(
    scan: *mut pg_sys::IndexFetchTableData,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
    call_again: *mut bool,
    all_dead: *mut bool,
) -> bool {
    let this = ours(scan);
    let Some(row) = dml::cold_row(tid) else {
        // SAFETY: the caller's.
        let (entry, first) = unsafe { (*tid, !*call_again) };
        // SAFETY: a callback of heap with its arguments.
        let found = unsafe {
            (heap().index_fetch_tuple.unwrap_unchecked())(
                this.hot, tid, snapshot, slot, call_again, all_dead,
            )
        };
        if found && replaced::hides(this.base.rel, snapshot, slot) {
            return false;
        }
        // SAFETY: globals of this backend.
        if found && unsafe { pg_sys::XactIsoLevel } == pg_sys::XACT_SERIALIZABLE as i32 {
            note_moved(this.base.rel, snapshot, slot);
        }
        // SAFETY: heap has come to the end of the entry's versions.
        if !found
            && first
            && let Some(row) = unsafe { dirty::moved(this.hot, this.base.rel, entry, snapshot) }
        {
            return fetch_cold(scan as usize, this.base.rel, row, snapshot, slot);
        }
        return found;
    };
    // SAFETY: the caller's; a row has one version at its TID, and whether nobody sees it is a
    // question for maintenance.
    unsafe {
        *call_again = false;
        if !all_dead.is_null() {
            *all_dead = false;
        }
    }
    fetch_cold(scan as usize, this.base.rel, row, snapshot, slot)
}

/// A serializable transaction has read a hot row: if a flush has moved it meanwhile, it conflicts
/// with who has changed the row at its new place.
fn note_moved(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
) {
    // SAFETY: heap has stored a row of a buffer.
    let (tid, xmax, infomask) = unsafe {
        if (*snapshot).snapshot_type != pg_sys::SnapshotType::SNAPSHOT_MVCC
            || pg_sys::InterruptHoldoffCount > 0
        {
            return;
        }
        let header = (*(*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple).t_data;
        let tid = (*slot).tts_tid;
        (
            (
                pg_sys::ItemPointerGetBlockNumberNoCheck(&tid),
                pg_sys::ItemPointerGetOffsetNumberNoCheck(&tid),
            ),
            (*header).t_choice.t_heap.t_xmax,
            u32::from((*header).t_infomask),
        )
    };
    if infomask & (pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_LOCK_ONLY) != 0 {
        return;
    }
    if let Some(storage) = storage::of_relation(relation)
        && let Some(row) = locate::moved_to(storage.id, u32::from(xmax), tid)
    {
        mark::find(storage.id, row, snapshot);
    }
}

fn fetch_cold(
    fetch: usize,
    relation: pg_sys::Relation,
    row: u64,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    let Some(storage) = storage::of_relation(relation) else {
        return false;
    };
    missing::predicate_lock(relation, dml::tid_of_row(row), snapshot);
    // SAFETY: globals and arguments.
    let (held, wanted, kind) = unsafe {
        (
            pg_sys::InterruptHoldoffCount > 0,
            (*slot).tts_flags & VISIBILITY_ONLY == 0,
            (*snapshot).snapshot_type,
        )
    };
    // Under a lock on an index page nothing may be allocated that outlives it, and no worker asked.
    if held || kind == pg_sys::SnapshotType::SNAPSHOT_NON_VACUUMABLE {
        return visible::find(storage.id, row, snapshot).is_some();
    }
    // Taken out while it works: decoding may run other code that fetches rows.
    let mut cold = COLD.with_borrow_mut(|cold| cold.remove(&fetch).unwrap_or_default());
    let found = cold
        .find(storage.id, row, snapshot)
        .is_some_and(|at| !wanted || cold.ahead.fetch(relation, &at.holder(), row, row + 1, slot));
    COLD.with_borrow_mut(|all| all.insert(fetch, cold));
    found
}

impl Cold {
    fn find(&mut self, storage: i64, row: u64, snapshot: pg_sys::Snapshot) -> Option<At> {
        // SAFETY: a snapshot of the caller.
        let (kind, cid) = unsafe { ((*snapshot).snapshot_type, (*snapshot).curcid) };
        if kind != pg_sys::SnapshotType::SNAPSHOT_MVCC {
            return visible::find(storage, row, snapshot);
        }
        let known = |view: &View| view.snapshot == snapshot && view.cid == cid;
        if !self.view.as_ref().is_some_and(known) {
            self.lookups += 1;
            if self.lookups <= LOOKUPS {
                return visible::find(storage, row, snapshot);
            }
            let files = data_file::list(storage, snapshot);
            self.view = Some(View {
                snapshot,
                cid,
                files,
            });
        }
        let file = data_file::file_of(&self.view.as_ref()?.files, row)?;
        file.live(row).map(|_| file.at())
    }
}

/// Deletion of index entries whose rows are dead, asked for by an index that wants room. Entries of
/// cold rows are left to `lake.merge`: heap would read their blocks.
#[pg_guard]
unsafe extern "C-unwind" fn delete_tuples(
    rel: pg_sys::Relation,
    state: *mut pg_sys::TM_IndexDeleteOp,
) -> pg_sys::TransactionId {
    // SAFETY: the caller's; fewer entries than it gave are allowed.
    unsafe {
        let state = &mut *state;
        let entries = std::slice::from_raw_parts_mut(state.deltids, state.ndeltids as usize);
        let mut kept = 0;
        for i in 0..entries.len() {
            let mut tid = entries[i].tid;
            if dml::cold_row(&mut tid).is_none() {
                entries[kept] = entries[i];
                kept += 1;
            }
        }
        state.ndeltids = kept as i32;
        if kept == 0 {
            return pg_sys::InvalidTransactionId;
        }
        (heap().index_delete_tuples.unwrap_unchecked())(rel, state)
    }
}
