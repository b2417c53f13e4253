//! The batches that full scans have read last.
//!
//! UPDATE, triggers and row locks fetch by TID the row that a scan has just returned. Its batch is
//! kept for them, which saves a request for each row.

use super::{OwnedBatch, store};
use crate::relation::Info;
use crate::types::Space;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::rc::Rc;

/// Batches that are kept, as long as they take no more than `work_mem`.
const BATCHES_MAX: usize = 64;
/// Batches that are kept whatever they take, which is some megabytes each: a statement that changes
/// rows follows a scan by several threads.
const BATCHES_MIN: usize = 4;

/// Which columns of a batch make whole rows.
#[derive(Clone)]
pub struct Layout {
    /// For each of `Info::codecs`.
    columns: Rc<[usize]>,
    row_number: usize,
}

impl Layout {
    /// Of a batch with these attributes, −1 for the row number; `None` if some are missing.
    pub fn of(info: &Info, attnums: &[i16]) -> Option<Layout> {
        let at = |attnum: i16| attnums.iter().position(|a| *a == attnum);
        Some(Layout {
            columns: info
                .codecs
                .iter()
                .map(|codec| at(codec.attnum))
                .collect::<Option<_>>()?,
            row_number: at(pg_sys::SelfItemPointerAttributeNumber as i16)?,
        })
    }

    /// Of a full scan: all columns in their order, then the row number.
    pub fn full(info: &Info) -> Layout {
        Layout {
            columns: (0..info.codecs.len()).collect(),
            row_number: info.codecs.len(),
        }
    }
}

struct Recent {
    relid: pg_sys::Oid,
    info: Rc<Info>,
    batch: Rc<OwnedBatch>,
    layout: Layout,
    /// The least and the greatest row number; whether they ascend: a batch may come from two
    /// threads of the engine.
    first: u64,
    last: u64,
    ascending: bool,
    /// Where a row was found last: the next one is mostly behind it.
    found: usize,
}

thread_local! {
    static RECENT: RefCell<Vec<Recent>> = const { RefCell::new(vec![]) };
}

/// Keeps a batch of whole rows.
pub fn remember(
    relation: pg_sys::Relation,
    info: &Rc<Info>,
    batch: &Rc<OwnedBatch>,
    layout: &Layout,
) {
    // SAFETY: the relation is open.
    let relid = unsafe { (*relation).rd_id };
    let (mut first, mut last, mut ascending) = (u64::MAX, 0, true);
    for at in 0..batch.reader().rows {
        let row = batch.int8(layout.row_number, at) as u64;
        ascending &= at == 0 || last < row;
        first = first.min(row);
        last = last.max(row);
    }
    RECENT.with_borrow_mut(|recent| {
        // SAFETY: a setting, in kilobytes.
        let limit = unsafe { pg_sys::work_mem } as usize * 1024;
        let mut bytes: usize = recent.iter().map(|r| r.batch.size()).sum();
        while recent.len() >= BATCHES_MIN
            && (recent.len() >= BATCHES_MAX || bytes + batch.size() > limit)
        {
            bytes -= recent.remove(0).batch.size();
        }
        recent.push(Recent {
            relid,
            info: info.clone(),
            batch: batch.clone(),
            layout: layout.clone(),
            first,
            last,
            ascending,
            found: 0,
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
    let info = crate::relation::info_as(relation, desc);
    let found = RECENT.with_borrow_mut(|recent| {
        recent.iter_mut().rev().find_map(|r| {
            if r.relid != relid || !Rc::ptr_eq(&r.info, &info) {
                return None;
            }
            r.find(row)
                .map(|at| (r.batch.clone(), r.layout.clone(), at))
        })
    });
    let Some((batch, layout, at)) = found else {
        return false;
    };
    // SAFETY: the context is deleted below, or with its parent after an error; the slot gets a copy.
    unsafe {
        let context = crate::am::dml::row_context();
        let datum =
            |i: usize, codec: &_| batch.datum(layout.columns[i], at, codec, &Space::current());
        store(relation, desc, &info, row, datum, slot, context);
        pg_sys::ExecMaterializeSlot(slot);
        pg_sys::MemoryContextDelete(context);
    }
    true
}

impl Recent {
    fn find(&mut self, row: u64) -> Option<usize> {
        if row < self.first || row > self.last {
            return None;
        }
        let rows = self.batch.reader().rows;
        let number = |at: usize| self.batch.int8(self.layout.row_number, at) as u64;
        let found = if self.ascending {
            let (mut low, mut high) = (0, rows);
            while low < high {
                let middle = low.midpoint(high);
                if number(middle) < row {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            (low < rows && number(low) == row).then_some(low)?
        } else {
            let after = (self.found..rows).chain(0..self.found.min(rows));
            after.into_iter().find(|at| number(*at) == row)?
        };
        self.found = found;
        Some(found)
    }
}
