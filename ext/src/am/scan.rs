//! Scans: first the cold rows through the engine, then the hot ones by heap's code.
//!
//! A scan's cold files are read with the scan's own snapshot, so that hot and cold rows are of one
//! state (I1). A backward scan takes the opposite way.

use crate::am::cold_scan::Cold;
use crate::am::{dirty, dml, heap, parallel, replaced};
use crate::catalog::{data_file, storage};
use crate::error;
use crate::pg::missing;
use crate::whole;
use pg_lake_plan::message::FileRef;
use pgrx::{pg_guard, pg_sys};

pub fn install(routine: &mut pg_sys::TableAmRoutine) {
    routine.scan_begin = Some(begin);
    routine.scan_end = Some(end);
    routine.scan_rescan = Some(rescan);
    routine.scan_getnextslot = Some(getnextslot);
    routine.scan_set_tidrange = Some(set_tidrange);
    routine.scan_getnextslot_tidrange = Some(getnextslot_tidrange);
    routine.scan_sample_next_block = Some(sample_next_block);
    routine.scan_sample_next_tuple = Some(sample_next_tuple);
}

/// Our scan descriptor: begins as Postgres expects and carries heap's own.
#[repr(C)]
pub struct Scan {
    base: pg_sys::TableScanDescData,
    hot: pg_sys::TableScanDesc,
    /// Dropped by `end`, or leaked to the end of the query by an error.
    cold: *mut Cold,
}

/// Where a TABLESAMPLE scan stands among cold rows.
#[derive(Default)]
pub struct Sample {
    files: Vec<FileRef>,
    blocks: Vec<(usize, u64, u64)>,
    block: Option<usize>,
    next_block: usize,
    in_cold: bool,
}

fn ours<'a>(scan: pg_sys::TableScanDesc) -> &'a mut Scan {
    // SAFETY: Postgres gives our callbacks only descriptors that `begin` made.
    unsafe { &mut *scan.cast::<Scan>() }
}

/// Heap's descriptor of one of our scans.
pub fn hot(scan: pg_sys::TableScanDesc) -> pg_sys::TableScanDesc {
    ours(scan).hot
}

/// Bytes, rows … of the cold half; none while the table has no cold file.
pub fn cold<'a>(scan: pg_sys::TableScanDesc) -> Option<&'a mut Cold> {
    // SAFETY: made by `begin`.
    unsafe { ours(scan).cold.as_mut() }
}

/// The table's cold files as the scan's snapshot sees them.
fn cold_files(rel: pg_sys::Relation, snapshot: pg_sys::Snapshot) -> Vec<FileRef> {
    // SAFETY: a snapshot of the caller. Scans under other kinds of snapshot (index builds, vacuum)
    // are about heap tuples.
    let mvcc = !snapshot.is_null()
        && unsafe {
            matches!(
                (*snapshot).snapshot_type,
                pg_sys::SnapshotType::SNAPSHOT_MVCC | pg_sys::SnapshotType::SNAPSHOT_SELF
            )
        };
    if !mvcc {
        return vec![];
    }
    storage::of_relation(rel).map_or(vec![], |storage| {
        let mut files = data_file::list(storage.id, snapshot);
        whole::leave_out(rel, snapshot, &mut files);
        files.iter().map(data_file::DataFile::file_ref).collect()
    })
}

/// The cold half of a scan; none while the snapshot sees no cold file, and no other can come.
fn cold_half(rel: pg_sys::Relation, snapshot: pg_sys::Snapshot) -> Option<Cold> {
    if dirty::is_dirty(snapshot) {
        return storage::of_relation(rel).map(|storage| Cold::dirty(storage.id));
    }
    let files = cold_files(rel, snapshot);
    (!files.is_empty()).then(|| Cold::new(files))
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(
    rel: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    nkeys: i32,
    key: *mut pg_sys::ScanKeyData,
    pscan: pg_sys::ParallelTableScanDesc,
    flags: u32,
) -> pg_sys::TableScanDesc {
    // ANALYZE's scan has no snapshot; it reads the latest state.
    let analyze = flags & pg_sys::ScanOptions::SO_TYPE_ANALYZE != 0;
    let snapshot_for_files = if analyze {
        // ANALYZE counts all live rows, those among them that this backend hasn't reported yet.
        // SAFETY: the relation is open; the counters are this backend's own.
        if let Some(info) = unsafe { (*rel).pgstat_info.as_mut() } {
            info.counts.delta_live_tuples = 0;
        }
        // SAFETY: ANALYZE runs with an active snapshot.
        unsafe { pg_sys::GetActiveSnapshot() }
    } else {
        snapshot
    };
    let cold = cold_half(rel, snapshot_for_files);
    if nkeys > 0 && cold.as_ref().is_some_and(|cold| !cold.files.is_empty()) {
        error::unsupported(
            "scan keys are not supported on iceberg tables with cold rows",
            "Use a WHERE clause.",
        );
    }
    let cold = cold.map_or(std::ptr::null_mut(), |cold| Box::into_raw(Box::new(cold)));
    // SAFETY: `begin` of heap with its arguments; our descriptor is palloc'd like heap's.
    unsafe {
        let hot = (heap().scan_begin.unwrap_unchecked())(rel, snapshot, nkeys, key, pscan, flags);
        let scan = pg_sys::palloc0(size_of::<Scan>()).cast::<Scan>();
        (*scan).base = *hot;
        // Heap's descriptor owns the snapshot and the scan keys.
        (*scan).base.rs_flags &= !pg_sys::ScanOptions::SO_TEMP_SNAPSHOT;
        (*scan).hot = hot;
        (*scan).cold = cold;
        scan.cast()
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end(scan: pg_sys::TableScanDesc) {
    // SAFETY: `end` is called once.
    unsafe { (heap().scan_end.unwrap_unchecked())(take_hot(scan)) }
}

/// Ends a scan but for heap's part of it, which is returned.
pub fn take_hot(scan: pg_sys::TableScanDesc) -> pg_sys::TableScanDesc {
    let this = ours(scan);
    let hot = this.hot;
    // SAFETY: the scan isn't used any more.
    unsafe {
        if !this.cold.is_null() {
            let cold = Box::from_raw(this.cold);
            this.cold = std::ptr::null_mut();
            cold.end();
        }
        pg_sys::pfree(scan.cast());
    }
    hot
}

#[pg_guard]
unsafe extern "C-unwind" fn rescan(
    scan: pg_sys::TableScanDesc,
    key: *mut pg_sys::ScanKeyData,
    set_params: bool,
    allow_strat: bool,
    allow_sync: bool,
    allow_pagemode: bool,
) {
    if let Some(cold) = cold(scan) {
        cold.rescan();
    }
    // SAFETY: a callback of heap with its arguments.
    unsafe {
        (heap().scan_rescan.unwrap_unchecked())(
            hot(scan),
            key,
            set_params,
            allow_strat,
            allow_sync,
            allow_pagemode,
        )
    }
}

unsafe fn next_slot(
    scan: pg_sys::TableScanDesc,
    direction: pg_sys::ScanDirection::Type,
    slot: *mut pg_sys::TupleTableSlot,
    next_hot: unsafe extern "C-unwind" fn(
        pg_sys::TableScanDesc,
        pg_sys::ScanDirection::Type,
        *mut pg_sys::TupleTableSlot,
    ) -> bool,
) -> bool {
    let this = ours(scan);
    let (relation, snapshot) = (this.base.rs_rd, this.base.rs_snapshot);
    let hot = || loop {
        // SAFETY: a callback of heap with its arguments.
        if !unsafe { next_hot(this.hot, direction, slot) } {
            return false;
        }
        if !replaced::hides(relation, snapshot, slot) {
            return true;
        }
    };
    let Some(cold) = cold(scan) else {
        return hot();
    };
    if direction == pg_sys::ScanDirection::BackwardScanDirection {
        let found = (cold.is_behind() && hot()) || cold.previous(relation, slot);
        if !found {
            // A slot that isn't empty stands for the current row of a cursor.
            // SAFETY: the slot is the caller's.
            unsafe { pg_sys::ExecClearTuple(slot) };
        }
        return found;
    }
    // Cold rows are older: most come in the order in which they were inserted.
    if !cold.begun {
        cold.begun = true;
        if !parallel::claim(relation, this.base.rs_parallel) {
            cold.choose(vec![]);
        }
    }
    if cold.next(relation, slot) {
        tell(cold, slot, snapshot);
        return true;
    }
    if cold.dirty.is_none() {
        return hot();
    }
    next_dirty(cold, relation, snapshot, slot, hot)
}

/// A dirty snapshot hears who is inserting or deleting the row that was found.
fn tell(cold: &Cold, slot: *mut pg_sys::TupleTableSlot, snapshot: pg_sys::Snapshot) {
    if let Some(dirty) = &cold.dirty {
        // SAFETY: the slot holds a cold row.
        let row = unsafe { dml::cold_row(&raw mut (*slot).tts_tid) };
        dirty.tell(row.unwrap_or_default(), snapshot);
    }
}

/// After the cold rows of a scan under a dirty snapshot: the hot ones, then the rows of files that have
/// come meanwhile.
fn next_dirty(
    cold: &mut Cold,
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
    mut hot: impl FnMut() -> bool,
) -> bool {
    loop {
        let Some(dirty) = &mut cold.dirty else {
            return false;
        };
        // Heap's code would begin anew after the end.
        if !dirty.hot_passed {
            if hot() {
                return true;
            }
            dirty.hot_passed = true;
        }
        let files = dirty.more();
        if files.is_empty() {
            return false;
        }
        cold.choose(files);
        if cold.next(relation, slot) {
            tell(cold, slot, snapshot);
            return true;
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn getnextslot(
    scan: pg_sys::TableScanDesc,
    direction: pg_sys::ScanDirection::Type,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: arguments of the callback.
    unsafe {
        next_slot(
            scan,
            direction,
            slot,
            heap().scan_getnextslot.unwrap_unchecked(),
        )
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn set_tidrange(
    scan: pg_sys::TableScanDesc,
    mintid: pg_sys::ItemPointer,
    maxtid: pg_sys::ItemPointer,
) {
    // SAFETY: arguments of the callback.
    unsafe { (heap().scan_set_tidrange.unwrap_unchecked())(hot(scan), mintid, maxtid) }
    let this = ours(scan);
    if !this.cold.is_null() {
        // SAFETY: the relation of the scan is open; its files are read anew for the new range.
        unsafe {
            let snapshot = this.base.rs_snapshot;
            // Heap notes the rows of a TID range one by one.
            missing::predicate_lock_relation(this.base.rs_rd, snapshot);
            let files = cold_files(this.base.rs_rd, snapshot);
            let (first, last) = (position(mintid, false), position(maxtid, true));
            let cold = &mut *this.cold;
            cold.rescan();
            cold.choose(files);
            match (first, last) {
                (first, Some(last)) => cold.restrict(first.unwrap_or(0), last),
                (_, None) => cold.choose(vec![]),
            }
        }
    }
}

/// The row number at or after (`down`: at or before) a TID; `None`: before all cold rows.
fn position(tid: pg_sys::ItemPointer, down: bool) -> Option<u64> {
    // SAFETY: a valid item pointer; offsets out of a page's range are allowed here.
    let (block, offset) = unsafe {
        (
            pg_sys::ItemPointerGetBlockNumberNoCheck(tid),
            pg_sys::ItemPointerGetOffsetNumberNoCheck(tid),
        )
    };
    let block = u64::from(block.checked_sub(data_file::FIRST_COLD_BLOCK)?);
    let start = block * data_file::ROWS_PER_BLOCK;
    let offset = u64::from(offset);
    if down {
        if offset == 0 {
            start.checked_sub(1)
        } else {
            Some(start + (offset - 1).min(data_file::ROWS_PER_BLOCK - 1))
        }
    } else {
        Some(start + offset.saturating_sub(1).min(data_file::ROWS_PER_BLOCK))
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn getnextslot_tidrange(
    scan: pg_sys::TableScanDesc,
    direction: pg_sys::ScanDirection::Type,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: arguments of the callback.
    unsafe {
        next_slot(
            scan,
            direction,
            slot,
            heap().scan_getnextslot_tidrange.unwrap_unchecked(),
        )
    }
}

/// TABLESAMPLE: cold rows are sampled as if each block of row numbers were a block of the heap,
/// numbered after the heap's own.
#[pg_guard]
unsafe extern "C-unwind" fn sample_next_block(
    scan: pg_sys::TableScanDesc,
    state: *mut pg_sys::SampleScanState,
) -> bool {
    let this = ours(scan);
    let Some(cold) = cold(scan) else {
        // SAFETY: a callback of heap with its arguments.
        return unsafe { (heap().scan_sample_next_block.unwrap_unchecked())(this.hot, state) };
    };
    if !cold.sample.in_cold {
        // SAFETY: as above.
        if unsafe { (heap().scan_sample_next_block.unwrap_unchecked())(this.hot, state) } {
            return true;
        }
        cold.sample.in_cold = true;
        cold.sample.files = cold.files.clone();
        cold.sample.blocks = cold
            .files
            .iter()
            .enumerate()
            .flat_map(|(i, f)| {
                let count = f.rows.count();
                (0..count.div_ceil(data_file::ROWS_PER_BLOCK)).map(move |b| {
                    let first = b * data_file::ROWS_PER_BLOCK;
                    (i, first, (first + data_file::ROWS_PER_BLOCK).min(count))
                })
            })
            .collect();
    }
    let sample = &mut cold.sample;
    // SAFETY: the sample method's callback takes block numbers of any range.
    let chosen = unsafe {
        match (*(*state).tsmroutine).NextSampleBlock {
            None => (sample.next_block < sample.blocks.len()).then_some(sample.next_block),
            Some(next) => {
                let block = next(state, sample.blocks.len() as u32);
                ((block as usize) < sample.blocks.len()).then_some(block as usize)
            }
        }
    };
    sample.block = chosen;
    let Some(i) = chosen else {
        return false;
    };
    sample.next_block = i + 1;
    let (file, first, end) = sample.blocks[i];
    // The offsets that the method wants in this block.
    let mut wanted = vec![];
    // SAFETY: as above; an InvalidOffsetNumber ends the block.
    unsafe {
        if let Some(next) = (*(*state).tsmroutine).NextSampleTuple {
            loop {
                let offset = next(
                    state,
                    data_file::FIRST_COLD_BLOCK + i as u32,
                    (end - first) as u16,
                );
                if offset == 0 {
                    break;
                }
                wanted.push((first + u64::from(offset) - 1, first + u64::from(offset)));
            }
        }
    }
    let mut file = cold.sample.files[file].clone();
    let none = wanted.is_empty();
    file.ranges = Some(wanted);
    cold.choose(if none { vec![] } else { vec![file] });
    true
}

#[pg_guard]
unsafe extern "C-unwind" fn sample_next_tuple(
    scan: pg_sys::TableScanDesc,
    state: *mut pg_sys::SampleScanState,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    let this = ours(scan);
    match cold(scan) {
        Some(cold) if cold.sample.in_cold => cold.next(this.base.rs_rd, slot),
        _ => loop {
            let next = heap().scan_sample_next_tuple;
            // SAFETY: a callback of heap with its arguments.
            if !unsafe { (next.unwrap_unchecked())(this.hot, state, slot) } {
                return false;
            }
            if !replaced::hides(this.base.rs_rd, this.base.rs_snapshot, slot) {
                return true;
            }
        },
    }
}
