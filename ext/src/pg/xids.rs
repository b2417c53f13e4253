//! Transaction ids in 64 bits, as the catalogs keep them: those of 32 bits come again.

use super::epoch;
use pgrx::pg_sys;

/// This transaction's, which it gets if it has none yet.
pub fn own() -> u64 {
    // SAFETY: in a transaction.
    unsafe { pg_sys::GetTopFullTransactionId().value }
}

/// That of a transaction of which Postgres still has tuples that aren't frozen, or which is in progress.
pub fn full(xid: pg_sys::TransactionId) -> u64 {
    // SAFETY: reads a counter.
    let next = unsafe { pg_sys::ReadNextFullTransactionId().value };
    epoch::full(next, xid.into_inner())
}

/// Every snapshot sees the transactions before this one, as far as a relation's rows are concerned. Null:
/// those of any table.
pub fn horizon(relation: pg_sys::Relation) -> u64 {
    // SAFETY: in a transaction; the relation is open, or null.
    full(unsafe { pg_sys::GetOldestNonRemovableTransactionId(relation) })
}

/// Whether a transaction of this cluster is in progress.
pub fn is_in_progress(xid: u64) -> bool {
    let low = pg_sys::TransactionId::from_inner(xid as u32);
    // SAFETY: a look into shared memory; one that is too old to be in progress answers false.
    full(low) == xid && unsafe { pg_sys::TransactionIdIsInProgress(low) }
}
