//! `lake.intent`: a record of what is about to be written, made before the first byte.
//!
//! An aborted transaction's inserts vanish, so an intent is inserted frozen and flushed to WAL at
//! once: it survives abort and crash, and the sweeper finds what it announced (STORAGE section 2).

use crate::pg::table::{Table, relation_oid, text_datum};
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

/// An intent whose owner has ended, as the sweeper sees it.
pub struct Ended {
    pub tid: pg_sys::ItemPointerData,
    pub directory: String,
    pub prefix: String,
}

/// The intents whose transaction is no longer in progress.
pub fn ended() -> Vec<Ended> {
    let mut ended = vec![];
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        let owner = row.int8(2) as u64;
        // SAFETY: an xid of this cluster; one that is too old to be in progress answers false.
        let running =
            unsafe { pg_sys::TransactionIdIsInProgress(pg_sys::TransactionId::from(owner as u32)) };
        if !running {
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
