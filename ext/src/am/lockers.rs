//! Row locks that outlive an UPDATE of a cold row.
//!
//! An UPDATE that changes no key lets FOR KEY SHARE pass. Heap copies such locks from the old version
//! to the new one, so that a later DELETE meets them. The old version of a cold row is locked through
//! its anchor; here its locks are put on the hot successor (STORAGE section 4).

use crate::catalog::{anchor, mark};
use pgrx::pg_sys::{self, MultiXactMember, MultiXactStatus};
use std::cell::Cell;
use std::mem::size_of;

/// `XLOG_HEAP2_LOCK_UPDATED` and its record `xl_heap_lock_updated` (access/heapam_xlog.h), whose redo
/// leaves everything but xmax as it is.
const XLOG_HEAP2_LOCK_UPDATED: u8 = 0x60;
const XLHL_XMAX_IS_MULTI: u8 = 0x01;
const XLHL_XMAX_LOCK_ONLY: u8 = 0x02;
const XLHL_XMAX_EXCL_LOCK: u8 = 0x04;
const XLHL_XMAX_KEYSHR_LOCK: u8 = 0x08;
const XLHL_KEYS_UPDATED: u8 = 0x10;
const SIZE_OF_HEAP_LOCK: usize = 8;

thread_local! {
    /// The cold row that this transaction has locked last, before it changes it.
    static LOCKED: Cell<Option<(i64, u64)>> = const { Cell::new(None) };
}

/// Notes that a statement has locked a cold row.
pub fn remember(storage: i64, row: u64) {
    LOCKED.set(Some((storage, row)));
}

pub fn is_remembered(storage: i64, row: u64) -> bool {
    LOCKED.get() == Some((storage, row))
}

/// The (sub)transaction has ended.
pub fn forget() {
    LOCKED.set(None);
}

/// After an update of a cold row by this transaction: its anchor's other holders hold the successor
/// too. So does this one, if it had locked the row before: heap shows that in `xmax`, by which
/// `INSERT … ON CONFLICT DO UPDATE … RETURNING xmax = 0` tells updates from insertions.
pub fn inherit(
    relation: pg_sys::Relation,
    anchor: pg_sys::ItemPointerData,
    successor: pg_sys::ItemPointerData,
    locked_before: bool,
) {
    let Some(anchor) = anchor::state(anchor) else {
        return;
    };
    let mut members = live_lockers(&anchor);
    if locked_before {
        members.push(MultiXactMember {
            // SAFETY: in a transaction, which has an xid since it has locked the anchor.
            xid: unsafe { pg_sys::GetCurrentTransactionId() },
            status: MultiXactStatus::MultiXactStatusForKeyShare,
        });
    }
    if !members.is_empty() {
        // The successor is this transaction's own: nobody else holds it.
        add(relation, successor, &members);
    }
}

/// Lets the row in a slot, which was just inserted from it, show this transaction's lock: RETURNING
/// takes system columns from there.
///
/// # Safety
/// Heap has formed the slot's row.
pub unsafe fn show_own(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: by contract; a slot of another kind shows no system columns.
    unsafe {
        let ops = (*slot).tts_ops;
        let heap = ops == &raw const pg_sys::TTSOpsBufferHeapTuple
            || ops == &raw const pg_sys::TTSOpsHeapTuple;
        let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
        if !heap || tuple.is_null() {
            return;
        }
        let header = (*tuple).t_data;
        (*header).t_choice.t_heap.t_xmax = pg_sys::GetCurrentTransactionId();
        (*header).t_infomask &= !(pg_sys::HEAP_XMAX_INVALID as u16);
        (*header).t_infomask |=
            (pg_sys::HEAP_XMAX_LOCK_ONLY | pg_sys::HEAP_XMAX_KEYSHR_LOCK) as u16;
    }
}

/// After this transaction got FOR KEY SHARE of a cold row: if an update of it is in progress, the
/// successor gets the lock too.
pub fn join_update(relation: pg_sys::Relation, storage: i64, row: u64) -> Joined {
    let mut dirty = crate::pg::dirty_snapshot();
    let mark = mark::find(storage, row, &mut dirty);
    let Some(successor) = mark.and_then(|mark| mark.successor) else {
        return Joined::Done;
    };
    // SAFETY: in a transaction, which has an xid since it has locked the anchor.
    let me = MultiXactMember {
        xid: unsafe { pg_sys::GetCurrentTransactionId() },
        status: MultiXactStatus::MultiXactStatusForKeyShare,
    };
    add(relation, successor, &[me])
}

/// Whether a lock has reached the newest version of a row.
pub enum Joined {
    Done,
    /// The updating transaction has gone on to delete the row, to change its key or to lock it against
    /// that, and hasn't ended.
    Wait(pg_sys::TransactionId),
    /// It has ended, and the row is deleted or has another key.
    Gone,
}

/// What FOR KEY SHARE has to wait for.
fn excludes(member: &MultiXactMember) -> bool {
    let strong = matches!(
        member.status,
        MultiXactStatus::MultiXactStatusUpdate | MultiXactStatus::MultiXactStatusForUpdate
    );
    // SAFETY: an xid of a tuple that is not frozen.
    strong
        && unsafe {
            !pg_sys::TransactionIdIsCurrentTransactionId(member.xid)
                && pg_sys::TransactionIdIsInProgress(member.xid)
        }
}

fn live_lockers(anchor: &anchor::Anchor) -> Vec<MultiXactMember> {
    members_of(anchor.xmax, anchor.infomask, false)
        .into_iter()
        .filter(|member| {
            // SAFETY: xids of lockers that were live when the snapshot of the anchor was taken.
            unsafe {
                member.status <= MultiXactStatus::MultiXactStatusForUpdate
                    && !pg_sys::TransactionIdIsCurrentTransactionId(member.xid)
                    && pg_sys::TransactionIdIsInProgress(member.xid)
            }
        })
        .collect()
}

/// The holders that an xmax stands for.
fn members_of(
    xmax: pg_sys::TransactionId,
    infomask: u16,
    keys_updated: bool,
) -> Vec<MultiXactMember> {
    let mask = u32::from(infomask);
    if mask & pg_sys::HEAP_XMAX_INVALID != 0 || xmax == pg_sys::InvalidTransactionId {
        return vec![];
    }
    if mask & pg_sys::HEAP_XMAX_IS_MULTI != 0 {
        let only = mask & pg_sys::HEAP_XMAX_LOCK_ONLY != 0;
        let mut raw = std::ptr::null_mut();
        // SAFETY: a multixact of a tuple; the members are palloc'd.
        return unsafe {
            let n = pg_sys::GetMultiXactIdMembers(xmax, &mut raw, false, only);
            if n <= 0 {
                return vec![];
            }
            let members = std::slice::from_raw_parts(raw, n as usize).to_vec();
            pg_sys::pfree(raw.cast());
            members
        };
    }
    let share = pg_sys::HEAP_XMAX_KEYSHR_LOCK | pg_sys::HEAP_XMAX_EXCL_LOCK;
    let status = if mask & pg_sys::HEAP_XMAX_LOCK_ONLY == 0 {
        if keys_updated {
            MultiXactStatus::MultiXactStatusUpdate
        } else {
            MultiXactStatus::MultiXactStatusNoKeyUpdate
        }
    } else if mask & share == share {
        MultiXactStatus::MultiXactStatusForShare
    } else if mask & pg_sys::HEAP_XMAX_KEYSHR_LOCK != 0 {
        MultiXactStatus::MultiXactStatusForKeyShare
    } else if keys_updated {
        MultiXactStatus::MultiXactStatusForUpdate
    } else {
        MultiXactStatus::MultiXactStatusForNoKeyUpdate
    };
    vec![MultiXactMember { xid: xmax, status }]
}

/// Adds holders to a hot tuple and to the versions that its own transaction has made of it since.
fn add(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointerData,
    lockers: &[MultiXactMember],
) -> Joined {
    // SAFETY: reads and writes a tuple of the relation's heap under its buffer's lock, as
    // `heap_lock_updated_tuple_rec` (heapam.c) does; the change is logged before the lock ends.
    unsafe {
        pg_sys::MultiXactIdSetOldestMember();
        let mut next = tid;
        let mut updater = None;
        loop {
            if super::cold_dml::is_moved_partitions(&next) {
                return Joined::Done;
            }
            let buffer = pg_sys::ReadBuffer(relation, pg_sys::ItemPointerGetBlockNumber(&next));
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as i32);
            let page = pg_sys::BufferGetPage(buffer);
            let offset = pg_sys::ItemPointerGetOffsetNumber(&next);
            if offset > pg_sys::PageGetMaxOffsetNumber(page) {
                pg_sys::UnlockReleaseBuffer(buffer);
                return Joined::Done;
            }
            let item = pg_sys::PageGetItemId(page, offset);
            if (*item).lp_flags() != pg_sys::LP_NORMAL {
                pg_sys::UnlockReleaseBuffer(buffer);
                return Joined::Done;
            }
            let tuple = pg_sys::PageGetItem(page, item).cast::<pg_sys::HeapTupleHeaderData>();
            let keys = u32::from((*tuple).t_infomask2) & pg_sys::HEAP_KEYS_UPDATED != 0;
            let old = members_of((*tuple).t_choice.t_heap.t_xmax, (*tuple).t_infomask, keys);
            // An aborted version's place may be another row's by now.
            let xmin = pg_sys::htup::HeapTupleHeaderGetXmin(tuple);
            if updater.is_some_and(|updater| updater != xmin) {
                pg_sys::UnlockReleaseBuffer(buffer);
                return Joined::Done;
            }
            if let Some(other) = old.iter().find(|m| excludes(m)) {
                pg_sys::UnlockReleaseBuffer(buffer);
                return Joined::Wait(other.xid);
            }
            let rekeyed = old.iter().any(|m| {
                m.status == MultiXactStatus::MultiXactStatusUpdate
                    && pg_sys::TransactionIdDidCommit(m.xid)
            });
            if rekeyed {
                pg_sys::UnlockReleaseBuffer(buffer);
                return Joined::Gone;
            }
            updater = old
                .iter()
                .find(|m| m.status > MultiXactStatus::MultiXactStatusForUpdate)
                .map(|m| m.xid);
            set(buffer, page, offset, tuple, old, lockers);
            let here = next;
            next = (*tuple).t_ctid;
            pg_sys::UnlockReleaseBuffer(buffer);
            if updater.is_none() || pg_sys::ItemPointerEquals(&mut next, &mut { here }) {
                return Joined::Done;
            }
        }
    }
}

/// Writes the old holders that still matter and the new ones into a tuple's xmax.
unsafe fn set(
    buffer: pg_sys::Buffer,
    page: pg_sys::Page,
    offset: pg_sys::OffsetNumber,
    tuple: *mut pg_sys::HeapTupleHeaderData,
    old: Vec<MultiXactMember>,
    lockers: &[MultiXactMember],
) {
    // SAFETY: by contract of `add`.
    unsafe {
        let mut members: Vec<MultiXactMember> = old
            .into_iter()
            .filter(|m| {
                m.status > MultiXactStatus::MultiXactStatusForUpdate
                    || pg_sys::TransactionIdIsCurrentTransactionId(m.xid)
                    || pg_sys::TransactionIdIsInProgress(m.xid)
            })
            .collect();
        members.extend_from_slice(lockers);
        // One holder once, with its strongest claim.
        members.sort_by_key(|m| (m.xid.into_inner(), std::cmp::Reverse(m.status)));
        members.dedup_by_key(|m| m.xid.into_inner());
        let update = members
            .iter()
            .find(|m| m.status > MultiXactStatus::MultiXactStatusForUpdate)
            .map(|m| m.status);
        let strongest = members.iter().map(|m| m.status).max().unwrap_or(0);
        // A single locker needs no multixact.
        let (xmax, mut bits, mut mask) = match members.as_slice() {
            [one] if update.is_none() => (one.xid, 0, 0),
            _ => (
                pg_sys::MultiXactIdCreateFromMembers(members.len() as i32, members.as_mut_ptr()),
                XLHL_XMAX_IS_MULTI,
                pg_sys::HEAP_XMAX_IS_MULTI,
            ),
        };
        // As GetMultiXactIdHintBits does.
        if update.is_none() {
            bits |= XLHL_XMAX_LOCK_ONLY;
            mask |= pg_sys::HEAP_XMAX_LOCK_ONLY;
        }
        match strongest {
            MultiXactStatus::MultiXactStatusForKeyShare => {
                bits |= XLHL_XMAX_KEYSHR_LOCK;
                mask |= pg_sys::HEAP_XMAX_KEYSHR_LOCK;
            }
            MultiXactStatus::MultiXactStatusForShare => {
                bits |= XLHL_XMAX_KEYSHR_LOCK | XLHL_XMAX_EXCL_LOCK;
                mask |= pg_sys::HEAP_XMAX_KEYSHR_LOCK | pg_sys::HEAP_XMAX_EXCL_LOCK;
            }
            _ => {
                bits |= XLHL_XMAX_EXCL_LOCK;
                mask |= pg_sys::HEAP_XMAX_EXCL_LOCK;
            }
        }
        let keys_updated = update == Some(MultiXactStatus::MultiXactStatusUpdate)
            || members
                .iter()
                .any(|m| m.status == MultiXactStatus::MultiXactStatusForUpdate);
        if keys_updated {
            bits |= XLHL_KEYS_UPDATED;
        }
        let all = pg_sys::HEAP_XMAX_COMMITTED
            | pg_sys::HEAP_XMAX_INVALID
            | pg_sys::HEAP_XMAX_IS_MULTI
            | pg_sys::HEAP_XMAX_LOCK_ONLY
            | pg_sys::HEAP_XMAX_KEYSHR_LOCK
            | pg_sys::HEAP_XMAX_EXCL_LOCK;

        pg_sys::CritSectionCount += 1;
        (*tuple).t_infomask = ((*tuple).t_infomask & !(all as u16)) | mask as u16;
        (*tuple).t_infomask2 &= !(pg_sys::HEAP_KEYS_UPDATED as u16);
        if keys_updated {
            (*tuple).t_infomask2 |= pg_sys::HEAP_KEYS_UPDATED as u16;
        }
        (*tuple).t_choice.t_heap.t_xmax = xmax;
        pg_sys::MarkBufferDirty(buffer);
        let mut record = [0u8; SIZE_OF_HEAP_LOCK];
        record[..4].copy_from_slice(&xmax.into_inner().to_ne_bytes());
        record[4..4 + size_of::<u16>()].copy_from_slice(&offset.to_ne_bytes());
        record[6] = bits;
        pg_sys::XLogBeginInsert();
        pg_sys::XLogRegisterBuffer(0, buffer, pg_sys::REGBUF_STANDARD as u8);
        pg_sys::XLogRegisterData(record.as_mut_ptr().cast(), record.len() as u32);
        let at = pg_sys::XLogInsert(pg_sys::RmgrIds::RM_HEAP2_ID as u8, XLOG_HEAP2_LOCK_UPDATED);
        pg_sys::PageSetLSN(page, at);
        pg_sys::CritSectionCount -= 1;
    }
}
