//! Scans through indexes over ranges of blocks (BRIN) on tables with cold rows.
//!
//! Such an index summarizes blocks of the heap. Cold rows have none, and 2^31 blocks lie between hot
//! and cold TIDs, so that it knows hot rows only: a scan through it adds all blocks of cold rows to
//! what the index finds. As all that it finds they are lossy, so that the scan of the table checks each
//! of their rows, by the index's predicate as well.

use crate::catalog::{data_file, storage};
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;

type GetBitmap =
    unsafe extern "C-unwind" fn(pg_sys::IndexScanDesc, *mut pg_sys::TIDBitmap) -> pg_sys::int64;

thread_local! {
    /// The access methods' own functions, by the OIDs of their handlers.
    static OWN: RefCell<HashMap<pg_sys::Oid, GetBitmap>> = RefCell::default();
}

/// Has scans of an index return the blocks of cold rows, too. An index's entry in the relation cache
/// has its own copy of the access method's functions, which stays as long as the entry.
///
/// # Safety
/// The index is open.
pub unsafe fn fit(index: pg_sys::Relation) {
    // SAFETY: by contract.
    unsafe {
        let routine = (*index).rd_indam;
        if !(*routine).amsummarizing || !super::is_iceberg((*(*index).rd_index).indrelid) {
            return;
        }
        if let Some(own) = (*routine).amgetbitmap
            && !std::ptr::fn_addr_eq(own, get_bitmap as GetBitmap)
        {
            OWN.with_borrow_mut(|all| all.insert((*index).rd_amhandler, own));
            (*routine).amgetbitmap = Some(get_bitmap);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn get_bitmap(
    scan: pg_sys::IndexScanDesc,
    bitmap: *mut pg_sys::TIDBitmap,
) -> pg_sys::int64 {
    // SAFETY: arguments of the callback; the executor holds a lock on the table.
    unsafe {
        let index = (*scan).indexRelation;
        let own = OWN.with_borrow(|all| all.get(&(*index).rd_amhandler).copied());
        let hot = own.map_or(0, |own| own(scan, bitmap));
        hot + add_cold((*(*index).rd_index).indrelid, (*scan).xs_snapshot, bitmap)
    }
}

/// Adds the blocks of the files that the snapshot sees; returns the number of their rows.
unsafe fn add_cold(
    relid: pg_sys::Oid,
    snapshot: pg_sys::Snapshot,
    bitmap: *mut pg_sys::TIDBitmap,
) -> pg_sys::int64 {
    // SAFETY: by contract; closed at once.
    let storage = unsafe {
        let table = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        let storage = storage::of_relation(table);
        pg_sys::table_close(table, pg_sys::NoLock as i32);
        storage
    };
    let Some(storage) = storage else {
        return 0;
    };
    let mut rows = 0;
    for file in data_file::files(storage.id, snapshot) {
        let mut next = 0;
        for run in file.rows.runs(0..file.rows.count()) {
            let (first, _) = data_file::tid_of(run.start);
            let (last, _) = data_file::tid_of(run.end - 1);
            for block in first.max(next)..=last {
                // SAFETY: the scan's bitmap.
                unsafe { pg_sys::tbm_add_page(bitmap, block) };
            }
            next = last + 1;
        }
        rows += file.rows.count() as pg_sys::int64;
    }
    rows
}
