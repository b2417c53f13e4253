//! The state of the COPY FROM that is running, as far as it can be reached from a callback.

use pgrx::pg_sys;
use std::ffi::c_void;

// copy_state.c
unsafe extern "C" {
    fn lake_copy_relation(state: *mut c_void) -> pg_sys::Relation;
    fn lake_copy_input_functions(state: *mut c_void) -> *mut pg_sys::FmgrInfo;
}

// src/include/commands/copy.h; only compared.
unsafe extern "C-unwind" {
    fn CopyFromErrorCallback(arg: *mut c_void);
}

/// The input functions, one for each column, of a COPY of text into `relation` that has called us
/// directly: `CopyFrom` puts its state into the innermost error context.
pub fn input_functions<'a>(relation: pg_sys::Relation) -> Vec<&'a mut pg_sys::FmgrInfo> {
    // SAFETY: the stack is Postgres' own; a callback that is COPY's has COPY's state, which outlives
    // the caller. Its array has an entry for each attribute, filled for those that aren't dropped
    // (BeginCopyFrom in commands/copyfrom.c).
    unsafe {
        let context = pg_sys::error_context_stack;
        let copy = CopyFromErrorCallback as unsafe extern "C-unwind" fn(*mut c_void);
        if context.is_null() || (*context).callback.map(|c| c as usize) != Some(copy as usize) {
            return vec![];
        }
        let state = (*context).arg;
        let functions = lake_copy_input_functions(state);
        if functions.is_null() || !std::ptr::eq(lake_copy_relation(state), relation) {
            return vec![];
        }
        let desc = (*relation).rd_att;
        let attributes = std::slice::from_raw_parts((*desc).attrs.as_ptr(), (*desc).natts as usize);
        (0..attributes.len())
            .filter(|i| !attributes[*i].attisdropped)
            .map(|i| &mut *functions.add(i))
            .collect()
    }
}
