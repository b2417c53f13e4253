//! Single rows: fetch, insert, update, delete, lock.
//!
//! Heap's code does the work for hot rows. UPDATE, DELETE and row locks of cold rows raise
//! `feature_not_supported`.

use crate::am::heap;
use crate::catalog::{data_file, storage};
use crate::cold::{self, FullScan};
use crate::{bulk, error, pg, relation};
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

/// COPY materialises each row before it hands it over. A virtual slot copies the values once, where
/// a heap slot forms a tuple that would have to be taken apart again for Parquet.
#[pg_guard]
unsafe extern "C-unwind" fn slot_callbacks(
    rel: pg_sys::Relation,
) -> *const pg_sys::TupleTableSlotOps {
    // Triggers and index checks fetch rows of the heap into slots of the same kind.
    // SAFETY: the relation is open.
    let plain = unsafe { (*rel).trigdesc.is_null() && !(*(*rel).rd_rel).relhasindex };
    if plain && bulk::copy_runs() {
        return &raw const pg_sys::TTSOpsVirtual;
    }
    // SAFETY: a callback of heap with its arguments.
    unsafe { (heap().slot_callbacks.unwrap_unchecked())(rel) }
}

fn refuse(relation: pg_sys::Relation, what: &str) -> ! {
    error::unsupported(
        &format!(
            "cannot {what} a cold row of iceberg table \"{}\"",
            pg::relation_name(relation)
        ),
        "Only rows that have not been flushed to Parquet can be changed or locked.",
    )
}

/// After heap said that a row was deleted: was it only moved?
fn refuse_if_moved(
    relation: pg_sys::Relation,
    result: pg_sys::TM_Result::Type,
    failure: *const pg_sys::TM_FailureData,
    what: &str,
) {
    if result != pg_sys::TM_Result::TM_Deleted {
        return;
    }
    // SAFETY: heap has filled it in for this result.
    let xmax = unsafe { (*failure).xmax };
    if let Some(storage) = storage::of_relation(relation)
        && data_file::is_flush_of(storage.id, u32::from(xmax))
    {
        refuse(relation, what);
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
        // SAFETY: a callback of heap with its arguments.
        return unsafe {
            (heap().tuple_fetch_row_version.unwrap_unchecked())(rel, tid, snapshot, slot)
        };
    };
    let Some(storage) = storage::of_relation(rel) else {
        return false;
    };
    let files = cold::files_of_row(&data_file::list(storage.id, snapshot), row);
    if files.is_empty() {
        return false;
    }
    // SAFETY: the context is deleted below, or with its parent after an error.
    unsafe {
        let context = row_context();
        let mut scan = FullScan::start(rel, (*slot).tts_tupleDescriptor, &files);
        let found = scan.next(rel, slot, context);
        scan.stop();
        pg_sys::MemoryContextDelete(context);
        found
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
    if cold_row(tid).is_none() {
        // SAFETY: the scan is one of ours. A cold row is its own latest version.
        unsafe { (heap().tuple_get_latest_tid.unwrap_unchecked())(super::scan::hot(scan), tid) }
    }
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
            return (heap().tuple_satisfies_snapshot.unwrap_unchecked())(rel, slot, snapshot);
        };
        let Some(storage) = storage::of_relation(rel) else {
            return false;
        };
        cold::files_of_row(&data_file::list(storage.id, snapshot), row)
            .iter()
            .any(|f| {
                f.deleted
                    .binary_search(&((row - f.row_start) as u32))
                    .is_err()
            })
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
    // Tables with a unique index have hot rows only, so heap's speculative insertion is right.
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
    // SAFETY: `slots` has `nslots` entries.
    unsafe {
        let hot = hot_rows(rel, slots, nslots);
        if hot > 0 {
            (heap().multi_insert.unwrap_unchecked())(rel, slots, hot, cid, options, bistate);
        }
    }
}

/// Offers rows to the bulk path and returns the number of those that stay hot, which are the first:
/// once one goes to Parquet, the ones after it do too.
#[inline(never)]
unsafe fn hot_rows(
    rel: pg_sys::Relation,
    slots: *mut *mut pg_sys::TupleTableSlot,
    nslots: i32,
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
            bulk::take_rest(rel, rest);
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
    if cold_row(tid).is_some() {
        refuse(rel, "delete");
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
    refuse_if_moved(rel, result, tmfd, "delete");
    result
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
    if cold_row(otid).is_some() {
        refuse(rel, "update");
    }
    relation::check_row(rel, slot);
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
    refuse_if_moved(rel, result, tmfd, "update");
    result
}

#[pg_guard]
#[allow(clippy::too_many_arguments)] // the callback's signature
unsafe extern "C-unwind" fn lock(
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
    if cold_row(tid).is_some() {
        refuse(rel, "lock");
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
    refuse_if_moved(rel, result, tmfd, "lock");
    result
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
