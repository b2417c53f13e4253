//! The versions of a hot row that this transaction has made.

use pgrx::pg_sys;

/// The command that made the newest version, if this transaction did; follows the chain from a TID.
pub fn newest_own(
    relation: pg_sys::Relation,
    mut tid: pg_sys::ItemPointerData,
) -> Option<pg_sys::CommandId> {
    loop {
        // SAFETY: a tuple of the open table, read under its buffer's lock.
        let (next, made) = unsafe {
            let block = pg_sys::ItemPointerGetBlockNumber(&tid);
            let offset = pg_sys::ItemPointerGetOffsetNumber(&tid);
            let buffer = pg_sys::ReadBuffer(relation, block);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let page = pg_sys::BufferGetPage(buffer);
            let there = offset <= pg_sys::PageGetMaxOffsetNumber(page)
                && (*pg_sys::PageGetItemId(page, offset)).lp_flags() == pg_sys::LP_NORMAL;
            let found = there.then(|| {
                let item = pg_sys::PageGetItemId(page, offset);
                let header = pg_sys::PageGetItem(page, item).cast::<pg_sys::HeapTupleHeaderData>();
                let xmin = pg_sys::htup::HeapTupleHeaderGetXmin(header);
                let own = pg_sys::TransactionIdIsCurrentTransactionId(xmin);
                let made = own.then(|| pg_sys::HeapTupleHeaderGetCmin(header));
                ((*header).t_ctid, made)
            });
            pg_sys::UnlockReleaseBuffer(buffer);
            found?
        };
        // SAFETY: compares two item pointers.
        let last = unsafe { pg_sys::ItemPointerEquals(&mut { next }, &mut tid) };
        if last || super::cold_dml::is_moved_partitions(&next) {
            return made;
        }
        tid = next;
        crate::pg::check_for_interrupts();
    }
}
