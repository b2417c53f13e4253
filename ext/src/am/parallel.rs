//! Parallel scans: heap's shared state, and behind it who reads the cold rows.
//!
//! Hot blocks are shared among the participants by heap's code. The cold rows are one participant's:
//! that of whoever begins first, be it the leader or not.

use crate::am::heap;
use pgrx::{pg_guard, pg_sys};
use std::sync::atomic::{AtomicU64, Ordering};

pub fn install(routine: &mut pg_sys::TableAmRoutine) {
    routine.parallelscan_estimate = Some(estimate);
    routine.parallelscan_initialize = Some(initialize);
    routine.parallelscan_reinitialize = Some(reinitialize);
}

#[pg_guard]
unsafe extern "C-unwind" fn estimate(rel: pg_sys::Relation) -> pg_sys::Size {
    // SAFETY: a callback of heap with its argument.
    unsafe { (heap().parallelscan_estimate.unwrap_unchecked())(rel) + size_of::<AtomicU64>() }
}

#[pg_guard]
unsafe extern "C-unwind" fn initialize(
    rel: pg_sys::Relation,
    scan: pg_sys::ParallelTableScanDesc,
) -> pg_sys::Size {
    // SAFETY: as above; what `estimate` asked for is there.
    unsafe {
        let size = (heap().parallelscan_initialize.unwrap_unchecked())(rel, scan);
        claimed(rel, scan).store(0, Ordering::Relaxed);
        size + size_of::<AtomicU64>()
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn reinitialize(
    rel: pg_sys::Relation,
    scan: pg_sys::ParallelTableScanDesc,
) {
    // SAFETY: as above.
    unsafe {
        (heap().parallelscan_reinitialize.unwrap_unchecked())(rel, scan);
        claimed(rel, scan).store(0, Ordering::Relaxed);
    }
}

/// The word behind heap's state.
unsafe fn claimed<'a>(rel: pg_sys::Relation, scan: pg_sys::ParallelTableScanDesc) -> &'a AtomicU64 {
    // SAFETY: by contract; heap's size is a multiple of eight (MAXALIGN), as the address is.
    unsafe {
        let size = (heap().parallelscan_estimate.unwrap_unchecked())(rel);
        &*scan.cast::<u8>().add(size).cast::<AtomicU64>()
    }
}

/// Whether the cold rows are the caller's; it is told so once. Always, without other participants.
pub fn claim(rel: pg_sys::Relation, scan: pg_sys::ParallelTableScanDesc) -> bool {
    // SAFETY: the scan's shared state, made by `initialize`.
    scan.is_null() || unsafe { claimed(rel, scan).swap(1, Ordering::Relaxed) == 0 }
}
