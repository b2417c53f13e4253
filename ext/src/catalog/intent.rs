//! `lake.intent`: a record of what is about to be written, made before the first byte.
//!
//! An aborted transaction's inserts vanish, so an intent is inserted frozen and flushed to WAL at
//! once: it survives abort and crash, and the sweeper finds what it announced (STORAGE section 2).

use crate::pg::table::{Row, Table, relation_oid, text_datum};
use pgrx::pg_sys;
use std::ffi::CStr;

const TABLE: &CStr = c"intent";

/// An announcement: files of this writer begin with `prefix` in `directory`.
#[derive(Clone, Debug)]
pub struct Intent {
    pub directory: String,
    pub prefix: String,
}

/// Announces that this transaction writes files below `directory`. Durable on return.
pub fn announce(storage: i64, directory: &str, kind: &str) -> Intent {
    // SAFETY: calls of a backend in a transaction.
    let (id, owner) = unsafe {
        (
            crate::pg::missing::nextval(relation_oid(c"intent_id_seq")),
            pg_sys::GetTopFullTransactionId().value,
        )
    };
    let prefix = format!("{kind}-{id:08}");
    Table::write(TABLE).insert_frozen(&[
        Some(id.into()),
        Some((owner as i64).into()),
        Some(storage.into()),
        Some(text_datum(directory)),
        Some(text_datum(&prefix)),
    ]);
    // SAFETY: the record that was just written.
    unsafe { pg_sys::XLogFlush(pg_sys::XactLastRecEnd) };
    Intent {
        directory: directory.to_owned(),
        prefix,
    }
}

/// The prefix of an intent that is about index entries and not about files.
const ENTRIES: &str = "entries";

/// Announces that this transaction makes index entries of cold rows. It is forgotten by the same
/// transaction: what is left was rolled back.
pub fn announce_entries(storage: i64) -> pg_sys::ItemPointerData {
    // SAFETY: calls of a backend in a transaction.
    let (id, owner) = unsafe {
        (
            crate::pg::missing::nextval(relation_oid(c"intent_id_seq")),
            pg_sys::GetTopFullTransactionId().value,
        )
    };
    Table::write(TABLE).insert_frozen(&[
        Some(id.into()),
        Some((owner as i64).into()),
        Some(storage.into()),
        Some(text_datum("")),
        Some(text_datum(ENTRIES)),
    ])
}

/// The intents about index entries of a storage whose transactions were rolled back.
pub fn entries_of_ended(storage: i64) -> Vec<pg_sys::ItemPointerData> {
    let mut found = vec![];
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        if row.int8(3) == storage && is_ended(row) && is_about_entries(row) {
            found.push(row.tid);
        }
        true
    });
    found
}

/// Removes an intent.
pub fn forget(intent: pg_sys::ItemPointerData) {
    Table::write(TABLE).delete(intent);
}

/// Removes the intents about index entries of storages that are gone.
pub fn forget_entries_without(exists: impl Fn(i64) -> bool) {
    let mut gone = vec![];
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        if is_about_entries(row) && is_ended(row) && !exists(row.int8(3)) {
            gone.push(row.tid);
        }
        true
    });
    gone.into_iter().for_each(forget);
}

fn is_about_entries(row: &Row<'_>) -> bool {
    row.text(5).is_some_and(|prefix| prefix == ENTRIES)
}

/// Whether the transaction of an intent is no longer in progress.
fn is_ended(row: &Row<'_>) -> bool {
    let owner = pg_sys::TransactionId::from(row.int8(2) as u32);
    // SAFETY: an xid of this cluster; one that is too old to be in progress answers false.
    unsafe { !pg_sys::TransactionIdIsInProgress(owner) }
}

/// An intent whose owner has ended, as the sweeper sees it.
pub struct Ended {
    pub tid: pg_sys::ItemPointerData,
    pub directory: String,
    pub prefix: String,
}

/// The intents about files whose transaction is no longer in progress.
pub fn ended() -> Vec<Ended> {
    let mut ended = vec![];
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        if is_ended(row) && !is_about_entries(row) {
            ended.push(Ended {
                tid: row.tid,
                directory: row.text(4).unwrap_or_default(),
                prefix: row.text(5).unwrap_or_default(),
            });
        }
        true
    });
    ended
}

/// Removes an intent that has been dealt with.
pub fn remove(intent: &Ended) {
    Table::write(TABLE).delete(intent.tid);
}
