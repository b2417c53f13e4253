//! The heap half of a table, without its cold rows.

use crate::am::{heap, replaced};
use pgrx::pg_sys;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;

const SCAN_FLAGS: u32 = pg_sys::ScanOptions::SO_TYPE_SEQSCAN
    | pg_sys::ScanOptions::SO_ALLOW_STRAT
    | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;

/// A scan of the hot rows that a snapshot sees.
pub struct HotScan {
    scan: pg_sys::TableScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    relation: pg_sys::Relation,
}

impl HotScan {
    pub fn begin(relation: pg_sys::Relation, snapshot: pg_sys::Snapshot) -> HotScan {
        // SAFETY: heap's own callbacks on an open relation whose main fork is a heap.
        unsafe {
            pg_guard_ffi_boundary(|| HotScan {
                scan: (heap().scan_begin.unwrap_unchecked())(
                    relation,
                    snapshot,
                    0,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    SCAN_FLAGS,
                ),
                slot: pg_sys::MakeSingleTupleTableSlot(
                    (*relation).rd_att,
                    &raw const pg_sys::TTSOpsBufferHeapTuple,
                ),
                relation,
            })
        }
    }

    /// The next row, valid until the next call.
    pub fn next(&mut self) -> Option<*mut pg_sys::TupleTableSlot> {
        loop {
            let slot = self.step()?;
            // SAFETY: the scan is open.
            let snapshot = unsafe { (*self.scan).rs_snapshot };
            if !replaced::hides(self.relation, snapshot, slot) {
                return Some(slot);
            }
        }
    }

    fn step(&mut self) -> Option<*mut pg_sys::TupleTableSlot> {
        // SAFETY: between `begin` and `end`.
        let found = unsafe {
            pg_guard_ffi_boundary(|| {
                (heap().scan_getnextslot.unwrap_unchecked())(
                    self.scan,
                    pg_sys::ScanDirection::ForwardScanDirection,
                    self.slot,
                )
            })
        };
        if found {
            // SAFETY: the slot is ours.
            unsafe { (*self.slot).tts_tableOid = (*self.relation).rd_id };
            Some(self.slot)
        } else {
            None
        }
    }

    pub fn end(self) {
        // SAFETY: ends what `begin` began.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_guard_ffi_boundary(|| (heap().scan_end.unwrap_unchecked())(self.scan));
        }
    }
}

/// Calls `f` for each hot row that `snapshot` sees until it returns false. Statistics don't count
/// it, as they don't count VACUUM's reads.
pub fn scan(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    mut f: impl FnMut(*mut pg_sys::TupleTableSlot) -> bool,
) {
    // SAFETY: the relation is open; the counters are this backend's own.
    let before = unsafe { (*relation).pgstat_info.as_ref().map(|info| info.counts) };
    let mut scan = HotScan::begin(relation, snapshot);
    while let Some(slot) = scan.next() {
        if !f(slot) {
            break;
        }
    }
    scan.end();
    // SAFETY: as above.
    if let Some(info) = unsafe { (*relation).pgstat_info.as_mut() } {
        let before = before.unwrap_or_default();
        info.counts.numscans = before.numscans;
        info.counts.tuples_returned = before.tuples_returned;
        info.counts.tuples_fetched = before.tuples_fetched;
    }
}

/// Whether the table has a hot row, whoever inserted it.
pub fn any(relation: pg_sys::Relation) -> bool {
    let mut any = false;
    scan(relation, &raw mut crate::pg::SNAPSHOT_SELF, |_| {
        any = true;
        false
    });
    any
}

/// Deletes a hot row that moves, if it is unlocked and unchanged; false otherwise. In the statistics it
/// stays a live row.
pub fn delete_nowait(
    relation: pg_sys::Relation,
    (block, offset): (u32, u16),
    snapshot: pg_sys::Snapshot,
) -> bool {
    // SAFETY: heap's own callback with a TID of this relation's heap.
    unsafe {
        let mut tid = pg_sys::ItemPointerData::default();
        pg_sys::ItemPointerSet(&mut tid, block, offset);
        let mut failure = pg_sys::TM_FailureData::default();
        let cid = pg_sys::GetCurrentCommandId(true);
        let result = pg_guard_ffi_boundary(|| {
            (heap().tuple_delete.unwrap_unchecked())(
                relation,
                &mut tid,
                cid,
                snapshot,
                std::ptr::null_mut(),
                false,
                &mut failure,
                false,
            )
        });
        let deleted = result == pg_sys::TM_Result::TM_Ok;
        let info = (*relation).pgstat_info;
        if deleted && !info.is_null() && !(*info).trans.is_null() {
            (*(*info).trans).tuples_deleted -= 1;
        }
        deleted
    }
}

/// Autovacuum does nothing for fewer dead rows (`autovacuum_vacuum_threshold`).
const DEAD_ROWS_MIN: usize = 50;

/// Tells autovacuum what moved rows have left behind in the heap. Of few it hears by their insertions,
/// which it counts as well.
pub fn count_left(relation: pg_sys::Relation, rows: usize) {
    // SAFETY: the relation is open; the counters are this backend's own.
    if let Some(info) = unsafe { (*relation).pgstat_info.as_mut() }
        && rows >= DEAD_ROWS_MIN
    {
        info.counts.delta_dead_tuples += rows as i64;
    }
}

/// Pages that [`estimate_rows`] looks at.
const SAMPLED_PAGES: u32 = 16;

/// About how many live rows the heap has, which has so many pages. Some are looked at: those whose rows a flush
/// has moved have none, but stay until VACUUM.
pub fn estimate_rows(relation: pg_sys::Relation, pages: pg_sys::BlockNumber) -> f64 {
    let Some(last) = pages.checked_sub(1) else {
        return 0.0;
    };
    let sampled = pages.min(SAMPLED_PAGES);
    let steps = u64::from(sampled - 1).max(1);
    let rows: u32 = (0..sampled)
        .map(|i| (u64::from(last) * u64::from(i) / steps) as u32)
        .map(|block| live_rows(relation, block))
        .sum();
    f64::from(rows) * f64::from(pages) / f64::from(sampled)
}

/// Rows of a page, which exists, that nobody has deleted.
fn live_rows(relation: pg_sys::Relation, block: pg_sys::BlockNumber) -> u32 {
    // SAFETY: a page of the open relation, read under its lock.
    unsafe {
        let buffer = pg_sys::ReadBuffer(relation, block);
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
        let page = pg_sys::BufferGetPage(buffer);
        let rows = (1..=pg_sys::PageGetMaxOffsetNumber(page))
            .filter(|offset| {
                let item = pg_sys::PageGetItemId(page, *offset);
                if (*item).lp_flags() != pg_sys::LP_NORMAL {
                    return false;
                }
                let mut tuple = pg_sys::HeapTupleData {
                    t_len: (*item).lp_len(),
                    t_self: pg_sys::ItemPointerData::default(),
                    t_tableOid: (*relation).rd_id,
                    t_data: pg_sys::PageGetItem(page, item).cast(),
                };
                pg_sys::ItemPointerSet(&mut tuple.t_self, block, *offset);
                let never = pg_sys::InvalidTransactionId;
                matches!(
                    pg_sys::HeapTupleSatisfiesVacuum(&mut tuple, never, buffer),
                    pg_sys::HTSV_Result::HEAPTUPLE_LIVE
                        | pg_sys::HTSV_Result::HEAPTUPLE_INSERT_IN_PROGRESS
                )
            })
            .count();
        pg_sys::UnlockReleaseBuffer(buffer);
        rows as u32
    }
}

/// Makes sure that the main fork has a block: ANALYZE scales its sample by blocks.
pub fn ensure_page(relation: pg_sys::Relation) {
    // SAFETY: the relation is open and locked for writing; the new page is empty, which heap
    // accepts everywhere, and it is logged before the buffer is released.
    unsafe {
        if pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM) > 0 {
            return;
        }
        let bmr = pg_sys::BufferManagerRelation {
            rel: relation,
            ..Default::default()
        };
        let buffer = pg_sys::ExtendBufferedRel(
            bmr,
            pg_sys::ForkNumber::MAIN_FORKNUM,
            std::ptr::null_mut(),
            pg_sys::ExtendBufferedFlags::EB_LOCK_FIRST,
        );
        let page = pg_sys::BufferGetPage(buffer);
        pg_sys::CritSectionCount += 1;
        pg_sys::PageInit(page, pg_sys::BLCKSZ as usize, 0);
        pg_sys::MarkBufferDirty(buffer);
        pg_sys::log_newpage_buffer(buffer, true);
        pg_sys::CritSectionCount -= 1;
        pg_sys::UnlockReleaseBuffer(buffer);
    }
}

/// Enters the first page into the visibility map if it is empty, as heap's VACUUM does with empty
/// pages (`lazy_scan_new_or_empty` in vacuumlazy.c): by this ANALYZE and the planner know that a table
/// without hot rows was vacuumed.
pub fn mark_empty_page(relation: pg_sys::Relation) {
    // SAFETY: the page exists and the relation is locked against other VACUUMs; bits of page and map are
    // set under the page's lock in one critical section.
    unsafe {
        let mut map = pg_sys::InvalidBuffer as pg_sys::Buffer;
        pg_sys::visibilitymap_pin(relation, 0, &mut map);
        let buffer = pg_sys::ReadBuffer(relation, 0);
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as i32);
        let page = pg_sys::BufferGetPage(buffer);
        // One that a crash has left without its first record looks empty, too.
        let header = &*page.cast::<pg_sys::PageHeaderData>();
        let logged =
            header.pd_upper != 0 && (header.pd_lsn.xlogid, header.pd_lsn.xrecoff) != (0, 0);
        if logged && pg_sys::PageIsEmpty(page) && !pg_sys::PageIsAllVisible(page) {
            pg_sys::CritSectionCount += 1;
            pg_sys::PageSetAllVisible(page);
            pg_sys::MarkBufferDirty(buffer);
            pg_sys::visibilitymap_set(
                relation,
                0,
                buffer,
                pg_sys::InvalidXLogRecPtr as u64,
                map,
                pg_sys::InvalidTransactionId,
                (pg_sys::VISIBILITYMAP_ALL_VISIBLE | pg_sys::VISIBILITYMAP_ALL_FROZEN) as u8,
            );
            pg_sys::CritSectionCount -= 1;
        }
        pg_sys::UnlockReleaseBuffer(buffer);
        pg_sys::ReleaseBuffer(map);
    }
}
