//! The second scan of CREATE INDEX CONCURRENTLY: entries for the hot rows that the first one missed.
//!
//! Heap's own code would check uniqueness by heap's own callbacks, which can't look at a cold row;
//! this is its loop (`heapam_index_validate_scan`) over heap's scan. Cold rows have nothing to add:
//! since the first scan the table has been locked against flush and merge, and rows of tables with
//! an index are never inserted as cold ones.

use crate::am::hot::HotScan;
use crate::am::{index_build, visible};
use crate::catalog::data_file::ROWS_PER_BLOCK;
use pgrx::{pg_guard, pg_sys};

/// `MaxHeapTuplesPerPage`.
const OFFSETS: usize = ROWS_PER_BLOCK as usize;

/// Where the sorted TIDs of the index stand.
struct Cursor {
    sorted: *mut pg_sys::Tuplesortstate,
    /// `None` before the first and after the last.
    at: Option<(u32, u16)>,
    ended: bool,
}

impl Cursor {
    /// The next TID, as `itemptr_decode` (catalog/index.h) does it.
    fn advance(&mut self) {
        let (mut value, mut isnull) = (pg_sys::Datum::null(), false);
        // SAFETY: the sort of the caller, whose datums are passed by value.
        let found = unsafe {
            pg_sys::tuplesort_getdatum(
                self.sorted,
                true,
                false,
                &mut value,
                &mut isnull,
                std::ptr::null_mut(),
            )
        };
        let encoded = value.value() as u64;
        self.at = found.then_some(((encoded >> 16) as u32, encoded as u16));
        self.ended = !found;
    }
}

/// Offsets of one page: the roots of its chains, and which roots have an entry.
struct Page {
    block: Option<u32>,
    roots: [pg_sys::OffsetNumber; OFFSETS],
    indexed: [bool; OFFSETS],
}

#[pg_guard]
pub unsafe extern "C-unwind" fn scan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    snapshot: pg_sys::Snapshot,
    state: *mut pg_sys::ValidateIndexState,
) {
    visible::prepare(table);
    // SAFETY: arguments of the callback; the executor state goes at the end, or with the transaction.
    unsafe {
        let executor = pg_sys::CreateExecutorState();
        let context = pg_sys::MakePerTupleExprContext(executor);
        let predicate = pg_sys::ExecPrepareQual((*info).ii_Predicate, executor);
        let mut cursor = Cursor {
            sorted: (*state).tuplesort,
            at: None,
            ended: false,
        };
        let mut page = Page {
            block: None,
            roots: [0; OFFSETS],
            indexed: [false; OFFSETS],
        };
        let mut values = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
        let mut nulls = [true; pg_sys::INDEX_MAX_KEYS as usize];
        let mut rows = HotScan::begin(table, snapshot);
        while let Some(slot) = rows.next() {
            crate::pg::check_for_interrupts();
            (*state).htups += 1.0;
            let root = page.root(slot);
            if !is_missing(&mut cursor, &mut page, root) {
                continue;
            }
            pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            (*context).ecxt_scantuple = slot;
            if !predicate.is_null() && !index_build::qualifies(predicate, context) {
                continue;
            }
            pg_sys::FormIndexDatum(
                info,
                slot,
                executor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            let mut tid = pg_sys::ItemPointerData::default();
            pg_sys::ItemPointerSet(&mut tid, root.0, root.1);
            // A row that is dead by now stands for its whole chain: it is checked as well.
            let check = if (*info).ii_Unique {
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES
            } else {
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO
            };
            pg_sys::index_insert(
                index,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                &mut tid,
                table,
                check,
                false,
                info,
            );
            (*state).tups_inserted += 1.0;
        }
        rows.end();
        pg_sys::FreeExecutorState(executor);
        // They may point into what was just freed.
        (*info).ii_ExpressionsState = std::ptr::null_mut();
        (*info).ii_PredicateState = std::ptr::null_mut();
    }
}

/// Moves the index's TIDs up to a root; whether the index doesn't have it.
fn is_missing(cursor: &mut Cursor, page: &mut Page, root: (u32, u16)) -> bool {
    while !cursor.ended && cursor.at.is_none_or(|at| at < root) {
        // Rows of a page come in their own order, not in that of their roots.
        if let Some((block, offset)) = cursor.at
            && page.block == Some(block)
            && let Some(indexed) = page.indexed.get_mut(usize::from(offset) - 1)
        {
            *indexed = true;
        }
        cursor.advance();
    }
    cursor.at.is_none_or(|at| at > root) && !page.indexed[usize::from(root.1) - 1]
}

impl Page {
    /// The TID of the chain that a row belongs to.
    ///
    /// # Safety
    /// The slot holds a row of the heap, whose page is pinned.
    unsafe fn root(&mut self, slot: *mut pg_sys::TupleTableSlot) -> (u32, u16) {
        // SAFETY: by contract.
        unsafe {
            let held = slot.cast::<pg_sys::BufferHeapTupleTableSlot>();
            let tid = (*slot).tts_tid;
            let block = pg_sys::ItemPointerGetBlockNumberNoCheck(&tid);
            let offset = pg_sys::ItemPointerGetOffsetNumberNoCheck(&tid);
            if self.block != Some(block) {
                let buffer = (*held).buffer;
                pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
                pg_sys::heap_get_root_tuples(
                    pg_sys::BufferGetPage(buffer),
                    self.roots.as_mut_ptr(),
                );
                pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
                self.indexed = [false; OFFSETS];
                self.block = Some(block);
            }
            let header = (*(*held).base.tuple).t_data;
            if u32::from((*header).t_infomask2) & pg_sys::HEAP_ONLY_TUPLE == 0 {
                return (block, offset);
            }
            match self.roots[usize::from(offset) - 1] {
                0 => crate::error::raise(
                    pgrx::PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                    &format!(
                        "failed to find parent tuple for heap-only tuple at ({block},{offset})"
                    ),
                    None,
                    None,
                ),
                root => (block, root),
            }
        }
    }
}
