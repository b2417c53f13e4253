//! Who inserted a cold row, as the system column `xmin` shows it: the transaction that registered its
//! file.
//!
//! Clients compare `xmin` to find out whether a row was changed since they read it. A new version is of
//! another file, so that it never looks as the old one did.

use crate::catalog::{locate, storage};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Files that are remembered. Row numbers are never used again, and who registered a file doesn't
/// change.
const FILES_MAX: usize = 4096;

type Xid = pg_sys::TransactionId;

thread_local! {
    /// By first row: the row behind the last one, and who.
    static KNOWN: RefCell<BTreeMap<u64, (u64, Xid)>> = const { RefCell::new(BTreeMap::new()) };
    /// The file that was asked for last.
    static LAST: Cell<(u64, u64, Xid)> = const { Cell::new((0, 0, pg_sys::InvalidTransactionId)) };
}

/// The inserting transaction of a cold row.
pub fn xmin(relation: pg_sys::Relation, row: u64) -> Xid {
    let (first, end, xid) = LAST.get();
    if (first..end).contains(&row) {
        return xid;
    }
    let known = KNOWN.with_borrow(|known| {
        let (first, (end, xid)) = known.range(..=row).next_back()?;
        (row < *end).then_some((*first, *end, *xid))
    });
    let found = known.or_else(|| look_up(relation, row));
    match found {
        Some(file) => {
            LAST.set(file);
            file.2
        }
        // Its file is gone from the catalog, and with it whom anybody could compare.
        None => pg_sys::FrozenTransactionId,
    }
}

fn look_up(relation: pg_sys::Relation, row: u64) -> Option<(u64, u64, Xid)> {
    let storage = storage::of_relation(relation)?;
    let (rows, xid) = locate::registered(storage.id, row)?;
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= FILES_MAX {
            known.clear();
        }
        known.insert(rows.start, (rows.end, xid));
    });
    Some((rows.start, rows.end, xid))
}
