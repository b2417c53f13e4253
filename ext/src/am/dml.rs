//! Single rows: fetch, insert, update, delete, lock.
//!
//! Heap's code does the work for hot rows, [`super::cold_dml`] for cold ones. A hot row that a flush
//! has moved since the statement's snapshot is followed to its new place.

use crate::am::cold_dml::{self, ColdRow};
use crate::am::{dirty, heap, replaced, visible};
use crate::catalog::{data_file, locate, mark, storage};
use crate::pg::missing;
use crate::{bulk, cold, copy_input, relation};
use pgrx::pg_sys::TM_Result;
use pgrx::{pg_guard, pg_sys};

pub fn install(routine: &mut pg_sys::TableAmRoutine) {
    routine.slot_callbacks = Some(slot_callbacks);
    routine.tuple_fetch_row_version = Some(fetch_row_version);
    routine.tuple_tid_valid = Some(tid_valid);
    routine.tuple_get_latest_tid = Some(get_latest_tid);
    routine.tuple_satisfies_snapshot = Some(satisfies_snapshot);
    routine.tuple_insert = Some(insert);
    routine.tuple_insert_speculative = Some(insert_speculative);
    routine.multi_insert = Some(multi_insert);
    routine.tuple_delete = Some(delete);
    routine.tuple_update = Some(update);
    routine.tuple_lock = Some(lock);
    routine.finish_bulk_insert = Some(finish_bulk_insert);
}

/// The row number of a cold TID.
pub fn cold_row(tid: pg_sys::ItemPointer) -> Option<u64> {
    // SAFETY: callers pass a valid item pointer. Plain field access, without a call.
    let (block, offset) = unsafe {
        (
            (u32::from((*tid).ip_blkid.bi_hi) << 16) | u32::from((*tid).ip_blkid.bi_lo),
            (*tid).ip_posid,
        )
    };
    data_file::row_of(block, offset)
}

/// The TID of a row number.
pub fn tid_of_row(row: u64) -> pg_sys::ItemPointerData {
    let (block, offset) = data_file::tid_of(row);
    let mut tid = pg_sys::ItemPointerData::default();
    // SAFETY: writes the fields.
    unsafe { pg_sys::ItemPointerSet(&mut tid, block, offset) };
    tid
}

/// COPY materialises each row before it hands it over. A virtual slot copies the values once, where
/// a heap slot forms a tuple that would have to be taken apart again for Parquet.
#[pg_guard]
unsafe extern "C-unwind" fn slot_callbacks(
    rel: pg_sys::Relation,
) -> *const pg_sys::TupleTableSlotOps {
    // Triggers and index checks fetch rows of the heap into slots of the same kind.
    // SAFETY: the relation is open.
    let plain = unsafe { (*rel).trigdesc.is_null() && !(*(*rel).rd_rel).relhasindex };
    if bulk::copy_runs() {
        copy_input::install(rel);
        if plain {
            return &raw const pg_sys::TTSOpsVirtual;
        }
    }
    // SAFETY: a callback of heap with its arguments.
    unsafe { (heap().slot_callbacks.unwrap_unchecked())(rel) }
}

/// After heap said that a hot row was deleted: the row number, if a flush has only moved it.
fn moved_to(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    result: TM_Result::Type,
    failure: *const pg_sys::TM_FailureData,
) -> Option<u64> {
    if result != TM_Result::TM_Deleted {
        return None;
    }
    // SAFETY: heap has filled it in for this result; the TID is a valid one.
    let (xmax, tid) = unsafe {
        (
            (*failure).xmax,
            (
                pg_sys::ItemPointerGetBlockNumberNoCheck(tid),
                pg_sys::ItemPointerGetOffsetNumberNoCheck(tid),
            ),
        )
    };
    locate::moved_to(storage::of_relation(relation)?.id, u32::from(xmax), tid)
}

/// A row that has moved counts as updated: the caller locks its latest version, which is the cold
/// row, and begins again with that. Where it can't, since its transaction keeps its snapshot, the cold
/// row is changed in place of the hot one.
fn updated_if_moved(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    result: TM_Result::Type,
    failure: *mut pg_sys::TM_FailureData,
) -> TM_Result::Type {
    match moved_to(relation, tid, result, failure) {
        None => result,
        Some(row) => {
            // SAFETY: the caller's.
            unsafe { (*failure).ctid = tid_of_row(row) };
            TM_Result::TM_Updated
        }
    }
}

/// Heap fetches into slots of its own kind only. EvalPlanQual has the slot of the scan, which is a
/// virtual one if that is ours.
fn fetch_hot(
    rel: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: a callback of heap with the arguments of ours; a slot of our own is dropped again.
    unsafe {
        let fetch = heap().tuple_fetch_row_version.unwrap_unchecked();
        let kind = &raw const pg_sys::TTSOpsBufferHeapTuple;
        if (*slot).tts_ops == kind {
            return fetch(rel, tid, snapshot, slot) && !replaced::hides(rel, snapshot, slot);
        }
        let own = pg_sys::MakeSingleTupleTableSlot((*rel).rd_att, kind);
        let found = fetch(rel, tid, snapshot, own) && !replaced::hides(rel, snapshot, own);
        if found {
            pg_sys::ExecCopySlot(slot, own);
            (*slot).tts_tid = (*own).tts_tid;
            (*slot).tts_tableOid = (*own).tts_tableOid;
        }
        pg_sys::ExecDropSingleTupleTableSlot(own);
        found
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn fetch_row_version(
    rel: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    let Some(row) = cold_row(tid) else {
        return fetch_hot(rel, tid, snapshot, slot);
    };
    let Some(storage) = storage::of_relation(rel) else {
        return false;
    };
    // SnapshotAny asks for a version that the caller knows to exist, deleted or not.
    // SAFETY: a snapshot of the caller.
    let any = unsafe { (*snapshot).snapshot_type } == pg_sys::SnapshotType::SNAPSHOT_ANY;
    if any {
        let found = cold::fetch(rel, &storage, row, slot);
        if found {
            show_deleter(storage.id, row, slot);
        }
        return found;
    }
    missing::predicate_lock(rel, tid_of_row(row), snapshot);
    visible::find(storage.id, row, snapshot).is_some() && cold::fetch(rel, &storage, row, slot)
}

/// Enters who has deleted a cold row, which a DELETE may return as system column `xmax`.
fn show_deleter(storage: i64, row: u64, slot: *mut pg_sys::TupleTableSlot) {
    let Some(mark) = mark::find(storage, row, &raw mut crate::pg::SNAPSHOT_SELF) else {
        return;
    };
    // SAFETY: slots of these kinds, which are filled, have a tuple of their own.
    unsafe {
        let kind = (*slot).tts_ops;
        if std::ptr::eq(kind, &raw const pg_sys::TTSOpsBufferHeapTuple)
            || std::ptr::eq(kind, &raw const pg_sys::TTSOpsHeapTuple)
        {
            let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
            let header = (*tuple).t_data;
            (*header).t_choice.t_heap.t_xmax = mark.xmin;
            (*header).t_infomask &= !(pg_sys::HEAP_XMAX_INVALID as u16);
        }
    }
}

/// A memory context for the values of one row.
pub fn row_context() -> pg_sys::MemoryContext {
    // SAFETY: a child of the current context.
    unsafe {
        pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"pg_lake row".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn tid_valid(
    scan: pg_sys::TableScanDesc,
    tid: pg_sys::ItemPointer,
) -> bool {
    if cold_row(tid).is_some() {
        return true; // whether there is such a row is found out when it is fetched
    }
    // SAFETY: the scan is one of ours.
    unsafe { (heap().tuple_tid_valid.unwrap_unchecked())(super::scan::hot(scan), tid) }
}

#[pg_guard]
unsafe extern "C-unwind" fn get_latest_tid(scan: pg_sys::TableScanDesc, tid: pg_sys::ItemPointer) {
    // SAFETY: the scan is one of ours.
    let (rel, snapshot) = unsafe { ((*scan).rs_rd, (*scan).rs_snapshot) };
    if let Some(row) = cold_row(tid) {
        let storage = storage::of_relation(rel);
        let Some(next) = storage
            .and_then(|s| mark::find(s.id, row, snapshot))
            .and_then(|m| m.successor)
            .filter(|next| !cold_dml::is_moved_partitions(next))
        else {
            return;
        };
        // SAFETY: the caller's.
        unsafe { *tid = next };
    }
    // SAFETY: as above; the TID is a hot one by now.
    unsafe { (heap().tuple_get_latest_tid.unwrap_unchecked())(super::scan::hot(scan), tid) }
}

#[pg_guard]
unsafe extern "C-unwind" fn satisfies_snapshot(
    rel: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    snapshot: pg_sys::Snapshot,
) -> bool {
    // SAFETY: the slot holds a row of the relation.
    unsafe {
        let tid = &raw mut (*slot).tts_tid;
        let Some(row) = cold_row(tid) else {
            return (heap().tuple_satisfies_snapshot.unwrap_unchecked())(rel, slot, snapshot)
                && !replaced::hides(rel, snapshot, slot);
        };
        visible::is_live(rel, row, snapshot) || visible::was_live(rel, row, snapshot)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn insert(
    rel: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    cid: pg_sys::CommandId,
    options: i32,
    bistate: *mut pg_sys::BulkInsertStateData,
) {
    if bulk::take(rel, slot, false) {
        return;
    }
    visible::prepare_if_indexed(rel);
    relation::check_row(rel, slot);
    // SAFETY: a callback of heap with its arguments; this frame owns nothing.
    unsafe { (heap().tuple_insert.unwrap_unchecked())(rel, slot, cid, options, bistate) }
}

#[pg_guard]
unsafe extern "C-unwind" fn insert_speculative(
    rel: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    cid: pg_sys::CommandId,
    options: i32,
    bistate: *mut pg_sys::BulkInsertStateData,
    token: u32,
) {
    visible::prepare_if_indexed(rel);
    relation::check_row(rel, slot);
    // SAFETY: as above.
    unsafe {
        (heap().tuple_insert_speculative.unwrap_unchecked())(
            rel, slot, cid, options, bistate, token,
        )
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn multi_insert(
    rel: pg_sys::Relation,
    slots: *mut *mut pg_sys::TupleTableSlot,
    nslots: i32,
    cid: pg_sys::CommandId,
    options: i32,
    bistate: *mut pg_sys::BulkInsertStateData,
) {
    visible::prepare_if_indexed(rel);
    // SAFETY: `slots` has `nslots` entries.
    unsafe {
        let hot = hot_rows(rel, slots, nslots, |slot| {
            relation::check_row(rel, slot);
            (heap().tuple_insert.unwrap_unchecked())(rel, slot, cid, options, bistate)
        });
        if hot > 0 {
            (heap().multi_insert.unwrap_unchecked())(rel, slots, hot, cid, options, bistate);
        }
    }
}

/// Offers rows to the bulk path and returns the number of those that stay hot, which are the first:
/// once one goes to Parquet, the ones after it do too, but for single ones that `keep` gets.
#[inline(never)]
unsafe fn hot_rows(
    rel: pg_sys::Relation,
    slots: *mut *mut pg_sys::TupleTableSlot,
    nslots: i32,
    keep: impl FnMut(*mut pg_sys::TupleTableSlot),
) -> i32 {
    let mut hot = 0;
    for i in 0..nslots {
        // SAFETY: by contract.
        let slot = unsafe { *slots.add(i as usize) };
        if bulk::take(rel, slot, true) {
            // SAFETY: as above.
            let rest = unsafe {
                std::slice::from_raw_parts(slots.add(i as usize + 1), (nslots - i - 1) as usize)
            };
            bulk::take_rest(rel, rest, keep);
            break;
        }
        relation::check_row(rel, slot);
        hot = i + 1;
    }
    hot
}

#[pg_guard]
#[allow(clippy::too_many_arguments)] // the callback's signature
unsafe extern "C-unwind" fn delete(
    rel: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    cid: pg_sys::CommandId,
    snapshot: pg_sys::Snapshot,
    crosscheck: pg_sys::Snapshot,
    wait: bool,
    tmfd: *mut pg_sys::TM_FailureData,
    changing_part: bool,
) -> pg_sys::TM_Result::Type {
    if let Some(row) = cold_row(tid) {
        let row = ColdRow::of(rel, row);
        // SAFETY: the caller's.
        let failure = unsafe { &mut *tmfd };
        return cold_dml::delete(&row, cid, crosscheck, wait, failure, changing_part);
    }
    // SAFETY: a callback of heap with its arguments.
    let result = unsafe {
        (heap().tuple_delete.unwrap_unchecked())(
            rel,
            tid,
            cid,
            snapshot,
            crosscheck,
            wait,
            tmfd,
            changing_part,
        )
    };
    if replaced::keeps_snapshot()
        && let Some(row) = moved_to(rel, tid, result, tmfd)
    {
        let row = ColdRow::of(rel, row);
        // SAFETY: the caller's.
        let failure = unsafe { &mut *tmfd };
        return cold_dml::delete(&row, cid, crosscheck, wait, failure, changing_part);
    }
    updated_if_moved(rel, tid, result, tmfd)
}

#[pg_guard]
#[allow(clippy::too_many_arguments)] // the callback's signature
unsafe extern "C-unwind" fn update(
    rel: pg_sys::Relation,
    otid: pg_sys::ItemPointer,
    slot: *mut pg_sys::TupleTableSlot,
    cid: pg_sys::CommandId,
    snapshot: pg_sys::Snapshot,
    crosscheck: pg_sys::Snapshot,
    wait: bool,
    tmfd: *mut pg_sys::TM_FailureData,
    lockmode: *mut pg_sys::LockTupleMode::Type,
    update_indexes: *mut pg_sys::TU_UpdateIndexes::Type,
) -> pg_sys::TM_Result::Type {
    visible::prepare_if_indexed(rel);
    relation::check_row(rel, slot);
    let update_cold = |row: u64| {
        let row = ColdRow::of(rel, row);
        // SAFETY: the caller's.
        unsafe {
            *update_indexes = pg_sys::TU_UpdateIndexes::TU_All;
            let (failure, mode) = (&mut *tmfd, &mut *lockmode);
            cold_dml::update(&row, slot, cid, crosscheck, wait, failure, mode)
        }
    };
    if let Some(row) = cold_row(otid) {
        return update_cold(row);
    }
    // SAFETY: as above.
    let result = unsafe {
        (heap().tuple_update.unwrap_unchecked())(
            rel,
            otid,
            slot,
            cid,
            snapshot,
            crosscheck,
            wait,
            tmfd,
            lockmode,
            update_indexes,
        )
    };
    if replaced::keeps_snapshot()
        && let Some(row) = moved_to(rel, otid, result, tmfd)
    {
        return update_cold(row);
    }
    updated_if_moved(rel, otid, result, tmfd)
}

/// `table_tuple_lock` of any row of a table.
#[pg_guard]
#[allow(clippy::too_many_arguments)] // the callback's signature
pub unsafe extern "C-unwind" fn lock(
    rel: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
    cid: pg_sys::CommandId,
    mode: pg_sys::LockTupleMode::Type,
    wait_policy: pg_sys::LockWaitPolicy::Type,
    flags: u8,
    tmfd: *mut pg_sys::TM_FailureData,
) -> pg_sys::TM_Result::Type {
    // SAFETY: the arguments of the callback.
    unsafe { dirty::complete_tid(tid, slot) };
    let lock_cold = |row: u64, tid: pg_sys::ItemPointer| {
        let row = ColdRow::of(rel, row);
        // SAFETY: the arguments of the callback.
        unsafe {
            let failure = &mut *tmfd;
            cold_dml::lock(
                &row,
                tid,
                snapshot,
                slot,
                cid,
                mode,
                wait_policy,
                flags,
                failure,
            )
        }
    };
    if let Some(row) = cold_row(tid) {
        return lock_cold(row, tid);
    }
    // SAFETY: as above.
    let result = unsafe {
        (heap().tuple_lock.unwrap_unchecked())(
            rel,
            tid,
            snapshot,
            slot,
            cid,
            mode,
            wait_policy,
            flags,
            tmfd,
        )
    };
    let Some(row) = moved_to(rel, tid, result, tmfd) else {
        return result;
    };
    if replaced::keeps_snapshot() {
        // The row is the same, and the caller knows it by its old TID.
        return lock_cold(row, &mut tid_of_row(row));
    }
    if u32::from(flags) & pg_sys::TUPLE_LOCK_FLAG_FIND_LAST_VERSION == 0 {
        return updated_if_moved(rel, tid, result, tmfd);
    }
    // SAFETY: the arguments of the callback.
    unsafe {
        *tid = tid_of_row(row);
        let result = lock_cold(row, tid);
        (*tmfd).traversed = true;
        result
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn finish_bulk_insert(rel: pg_sys::Relation, options: i32) {
    // SAFETY: the relation is open.
    bulk::finish_table(unsafe { (*rel).rd_id });
    if let Some(finish) = heap().finish_bulk_insert {
        // SAFETY: a callback of heap with its arguments.
        unsafe { finish(rel, options) }
    }
}
