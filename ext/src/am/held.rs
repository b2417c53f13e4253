//! The files that this transaction keeps from being rewritten, so that each is asked for once. None of
//! them is deleted as a whole.

use std::cell::RefCell;
use std::ops::Range;

thread_local! {
    /// Storage and rows.
    static HELD: RefCell<Vec<(i64, Range<u64>)>> = const { RefCell::new(vec![]) };
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

/// The transaction has ended, a subtransaction has given its locks back, or files were deleted as a
/// whole.
pub fn forget() {
    HELD.with_borrow_mut(Vec::clear);
}
