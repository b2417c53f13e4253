//! The files that this transaction keeps from being rewritten, so that each is asked for once. None of
//! them is deleted as a whole. And the TOAST table that it has locked last.

use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::ops::Range;

thread_local! {
    /// Storage and rows.
    static HELD: RefCell<Vec<(i64, Range<u64>)>> = const { RefCell::new(vec![]) };
    static TOAST: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
}

pub fn has(storage: i64, row: u64) -> bool {
    HELD.with_borrow(|held| {
        held.iter()
            .any(|(s, rows)| *s == storage && rows.contains(&row))
    })
}

pub fn add(storage: i64, rows: Range<u64>) {
    HELD.with_borrow_mut(|held| held.push((storage, rows)));
}

/// Whether a TOAST table is one to be locked; it counts as locked from now on.
pub fn is_new_toast(toast: pg_sys::Oid) -> bool {
    toast != pg_sys::InvalidOid && TOAST.replace(toast) != toast
}

/// The transaction has ended, a subtransaction has given its locks back, or files were deleted as a
/// whole.
pub fn forget() {
    HELD.with_borrow_mut(Vec::clear);
    TOAST.set(pg_sys::InvalidOid);
}
