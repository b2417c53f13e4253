//! The batches that full scans have read last.
//!
//! UPDATE, triggers and row locks fetch by TID the row that a scan has just returned. Its batch is
//! kept for them, which saves a request for each row.

use super::{OwnedBatch, store};
use crate::relation::Info;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::rc::Rc;

/// Batches are of some megabytes at most.
const BATCHES_MAX: usize = 4;

struct Recent {
    relid: pg_sys::Oid,
    natts: i32,
    info: Rc<Info>,
    batch: Rc<OwnedBatch>,
    /// Where a row was found last: the next one is mostly behind it.
    last: usize,
}

thread_local! {
    static RECENT: RefCell<Vec<Recent>> = const { RefCell::new(vec![]) };
}

/// Keeps a batch of a full scan, whose last column is the row number.
pub fn remember(
    relation: pg_sys::Relation,
    desc: pg_sys::TupleDesc,
    info: &Rc<Info>,
    batch: &Rc<OwnedBatch>,
) {
    // SAFETY: both are valid.
    let (relid, natts) = unsafe { ((*relation).rd_id, (*desc).natts) };
    RECENT.with_borrow_mut(|recent| {
        if recent.len() >= BATCHES_MAX {
            recent.remove(0);
        }
        recent.push(Recent {
            relid,
            natts,
            info: info.clone(),
            batch: batch.clone(),
            last: 0,
        });
    });
}

/// Forgets all batches: a transaction has ended, or a statement that read much.
pub fn forget() {
    RECENT.with_borrow_mut(Vec::clear);
}

/// Puts a row into a slot, if it is among those that were read last.
pub fn fetch(relation: pg_sys::Relation, row: u64, slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: both are valid.
    let (relid, desc) = unsafe { ((*relation).rd_id, (*slot).tts_tupleDescriptor) };
    // SAFETY: as above.
    let natts = unsafe { (*desc).natts };
    let info = crate::relation::info_as(relation, desc);
    let found = RECENT.with_borrow_mut(|recent| {
        recent.iter_mut().rev().find_map(|r| {
            if r.relid != relid || r.natts != natts || !Rc::ptr_eq(&r.info, &info) {
                return None;
            }
            r.find(row).map(|at| (r.info.clone(), r.batch.clone(), at))
        })
    });
    let Some((info, batch, at)) = found else {
        return false;
    };
    // SAFETY: the context is deleted below, or with its parent after an error; the slot gets a copy.
    unsafe {
        let context = crate::am::dml::row_context();
        let datum = |i: usize, codec: &_| batch.datum(i, at, codec);
        store(relation, desc, &info, row, datum, slot, context);
        pg_sys::ExecMaterializeSlot(slot);
        pg_sys::MemoryContextDelete(context);
    }
    true
}

impl Recent {
    fn find(&mut self, row: u64) -> Option<usize> {
        let column = self.info.codecs.len();
        let rows = self.batch.reader().rows;
        let number = |at: usize| self.batch.int8(column, at) as u64;
        let near = (self.last..rows).take(2).find(|at| number(*at) == row);
        // Within a batch row numbers ascend.
        let found = near.or_else(|| {
            let (mut low, mut high) = (0, rows);
            while low < high {
                let middle = low.midpoint(high);
                if number(middle) < row {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            (low < rows && number(low) == row).then_some(low)
        })?;
        self.last = found;
        Some(found)
    }
}
