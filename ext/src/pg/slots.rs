//! Slots of rows that are values only (`TTSOpsVirtual`): what a node does to its own for each row, without the boundary
//! that pgrx puts around functions that may raise an error. These don't.

use pgrx::pg_sys;

/// `ExecClearTuple`
///
/// # Safety
/// A slot whose `clear` raises no error, as those of Postgres.
#[inline]
pub unsafe fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: by contract.
    unsafe {
        if let Some(clear) = (*slot).tts_ops.as_ref().and_then(|ops| ops.clear) {
            clear(slot);
        }
    }
}

/// `ExecStoreVirtualTuple` (execTuples.c)
///
/// # Safety
/// A virtual slot that is empty, all of whose values are set.
#[inline]
pub unsafe fn store_virtual(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: by contract.
    unsafe {
        (*slot).tts_flags &= !(pg_sys::TTS_FLAG_EMPTY as u16);
        (*slot).tts_nvalid = (*(*slot).tts_tupleDescriptor).natts as i16;
    }
}
