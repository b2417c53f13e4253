//! Bitmap heap scans: heap's code for blocks of hot rows, single fetches for cold ones.
//!
//! Postgres' node would prefetch the blocks of cold rows, which no file of the heap has:
//! `hooks::executor` keeps it from prefetching on our tables.

use crate::am::{heap, replaced, scan};
use crate::catalog::data_file::{FIRST_COLD_BLOCK, ROWS_PER_BLOCK};
use crate::cold::point::{Holder, ReadAhead};
use crate::pg::missing;
use pg_lake_plan::message::FileRef;
use pgrx::{pg_guard, pg_sys};

pub fn install(routine: &mut pg_sys::TableAmRoutine) {
    routine.scan_bitmap_next_block = Some(next_block);
    routine.scan_bitmap_next_tuple = Some(next_tuple);
}

/// Where a bitmap scan stands among cold rows.
#[derive(Default)]
pub struct State {
    /// Rows of the current block that are still to be returned, the last one first, and their file
    /// (an index into the scan's).
    rows: Vec<u64>,
    file: usize,
    ahead: ReadAhead,
}

#[pg_guard]
unsafe extern "C-unwind" fn next_block(
    scan: pg_sys::TableScanDesc,
    result: *mut pg_sys::TBMIterateResult,
) -> bool {
    // SAFETY: arguments of the callback.
    let (block, relation, snapshot) =
        unsafe { ((*result).blockno, (*scan).rs_rd, (*scan).rs_snapshot) };
    let Some(block) = block.checked_sub(FIRST_COLD_BLOCK) else {
        // SAFETY: a callback of heap with its arguments.
        return unsafe {
            (heap().scan_bitmap_next_block.unwrap_unchecked())(scan::hot(scan), result)
        };
    };
    let Some(cold) = scan::cold(scan) else {
        return false; // the scan's snapshot sees no file
    };
    let first = u64::from(block) * ROWS_PER_BLOCK;
    let state = &mut cold.bitmap;
    state.rows.clear();
    // A block belongs to one file.
    let after = cold.files.partition_point(|f| f.rows.start() <= first);
    let Some(index) = after.checked_sub(1) else {
        return false;
    };
    let file = &cold.files[index];
    if first >= file.rows.end() {
        return false;
    }
    state.file = index;
    // SAFETY: an exact result has that many offsets.
    unsafe {
        if (*result).ntuples >= 0 {
            let offsets = (*result).offsets.as_slice((*result).ntuples as usize);
            let rows = offsets.iter().map(|offset| first + u64::from(*offset) - 1);
            state.rows.extend(rows);
        } else {
            state.rows.extend(first..first + ROWS_PER_BLOCK);
        }
    }
    state.rows.retain(|row| sees(file, *row));
    state.rows.reverse();
    for row in &state.rows {
        missing::predicate_lock(relation, super::dml::tid_of_row(*row), snapshot);
    }
    !state.rows.is_empty()
}

/// Whether a row is in the file as the scan's snapshot sees it.
fn sees(file: &FileRef, row: u64) -> bool {
    file.rows
        .position(row)
        .is_some_and(|at| file.deleted.binary_search(&(at as u32)).is_err())
}

#[pg_guard]
unsafe extern "C-unwind" fn next_tuple(
    scan: pg_sys::TableScanDesc,
    result: *mut pg_sys::TBMIterateResult,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: arguments of the callback.
    let (block, relation) = unsafe { ((*result).blockno, (*scan).rs_rd) };
    if block < FIRST_COLD_BLOCK {
        loop {
            let next = heap().scan_bitmap_next_tuple;
            // SAFETY: a callback of heap with its arguments; the scan is open.
            let (found, snapshot) = unsafe {
                let found = (next.unwrap_unchecked())(scan::hot(scan), result, slot);
                (found, (*scan).rs_snapshot)
            };
            if !found || !replaced::hides(relation, snapshot, slot) {
                return found;
            }
        }
    }
    let Some(cold) = scan::cold(scan) else {
        return false;
    };
    let (state, files) = (&mut cold.bitmap, &cold.files);
    while let Some(row) = state.rows.pop() {
        let last = state.rows.first().map_or(row, |last| *last);
        if state.ahead.fetch(
            relation,
            &Holder::of(&files[state.file]),
            row,
            last + 1,
            slot,
        ) {
            return true;
        }
    }
    false
}
