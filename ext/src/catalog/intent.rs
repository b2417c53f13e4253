//! `lake.intent`: a record of what is about to be written, made before the first byte.
//!
//! An aborted transaction's inserts vanish, so an intent is inserted frozen and flushed to WAL at
//! once: it survives abort and crash, and the sweeper finds what it announced (STORAGE section 2).

use crate::catalog::storage;
use crate::pg::table::{Row, Table, relation_oid, text_datum};
use crate::pg::xids;
use pg_lake_crash::{CrashPoint, crash_point};
use pgrx::pg_sys;
use std::ffi::CStr;

const TABLE: &CStr = c"intent";

/// An announcement: files of this writer begin with `prefix` in `directory`.
#[derive(Clone, Debug)]
pub struct Intent {
    pub directory: String,
    pub prefix: String,
}

fn next_id() -> i64 {
    crate::pg::missing::nextval(relation_oid(c"intent_id_seq"))
}

fn insert(id: i64, storage: i64, directory: &str, prefix: &str) -> pg_sys::ItemPointerData {
    Table::write(TABLE).insert_frozen(&[
        Some(id.into()),
        Some((xids::own() as i64).into()),
        Some(storage.into()),
        Some(text_datum(directory)),
        Some(text_datum(prefix)),
        None,
    ])
}

/// Makes the record that was just written durable: files may be begun.
fn flush() {
    // SAFETY: a global of this backend.
    unsafe { pg_sys::XLogFlush(pg_sys::XactLastRecEnd) };
    crash_point(CrashPoint::IntentWritten);
}

/// Announces that this transaction writes files below `directory`. Durable on return.
pub fn announce(storage: i64, directory: &str, kind: &str) -> Intent {
    let id = next_id();
    let prefix = format!("{kind}-{id:08}");
    insert(id, storage, directory, &prefix);
    flush();
    Intent {
        directory: directory.to_owned(),
        prefix,
    }
}

/// How the prefix of an intent begins that is about a publication: its commit id follows, which all
/// files have in their names.
const PUBLICATION: &str = "publish-";

/// Announces that this transaction publishes a storage. Durable on return. It is forgotten by the same
/// transaction: what is left was rolled back.
pub fn announce_publication(
    storage_id: i64,
    directory: &str,
    commit_id: &[u8; 16],
) -> pg_sys::ItemPointerData {
    let prefix = format!("{PUBLICATION}{}", storage::uuid_text(commit_id));
    let intent = insert(next_id(), storage_id, directory, &prefix);
    flush();
    intent
}

/// The prefix of an intent that is about index entries and not about files.
const ENTRIES: &str = "entries";

/// Announces that this transaction makes index entries of cold rows. It is forgotten by the same
/// transaction: what is left was rolled back.
pub fn announce_entries(storage: i64) -> pg_sys::ItemPointerData {
    insert(next_id(), storage, "", ENTRIES)
}

/// The intents about index entries of a storage whose transactions, which are told as well, were rolled back, or have
/// replaced files.
pub fn entries_of_ended(storage: i64) -> Vec<(pg_sys::ItemPointerData, u64)> {
    let mut found = vec![];
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        if row.int8(3) == storage && is_ended(row) && is_about_entries(row) {
            found.push((row.tid, row.int8(2) as u64));
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
    !xids::is_in_progress(row.int8(2) as u64)
}

/// What a transaction has announced to write, whether it has ended or not.
pub struct Announced {
    pub directory: String,
    prefix: String,
}

impl Announced {
    /// Whether a file is one of those.
    pub fn covers(&self, path: &str) -> bool {
        let below = path.strip_prefix(&self.directory);
        let Some(name) = below.and_then(|path| path.strip_prefix('/')) else {
            return false;
        };
        match self.prefix.strip_prefix(PUBLICATION) {
            Some(commit_id) => name.contains(commit_id),
            None => name
                .strip_prefix(&self.prefix)
                .is_some_and(|rest| rest.starts_with('-')),
        }
    }
}

/// The intents about files that `snapshot` sees. One that has been dealt with is gone, as are its files.
pub fn announced(snapshot: pg_sys::Snapshot) -> Vec<Announced> {
    let mut found = vec![];
    Table::read(TABLE).scan(None, &[], snapshot, |row| {
        if !is_about_entries(row) {
            found.push(Announced {
                directory: row.text(4).unwrap_or_default(),
                prefix: row.text(5).unwrap_or_default(),
            });
        }
        true
    });
    found
}

/// An intent whose owner has ended, as the sweeper sees it.
pub struct Ended {
    pub tid: pg_sys::ItemPointerData,
    id: i64,
    owner: i64,
    pub storage: i64,
    pub directory: String,
    pub prefix: String,
    /// When a sweep was there before.
    swept: Option<pg_sys::TimestampTz>,
}

impl Ended {
    /// The commit id of a publication that was rolled back, if it is about one.
    pub fn publication(&self) -> Option<&str> {
        self.prefix.strip_prefix(PUBLICATION)
    }

    /// Whether there is something to do: at first, and again when requests that were given up before, which may be
    /// served within so many microseconds, have come to be there.
    pub fn is_due(&self, late_us: i64) -> bool {
        self.swept
            .is_none_or(|at| at.saturating_add(late_us) <= now())
    }

    pub fn was_swept(&self) -> bool {
        self.swept.is_some()
    }
}

fn now() -> pg_sys::TimestampTz {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The intents about files whose transaction is no longer in progress.
pub fn ended() -> Vec<Ended> {
    let mut ended = vec![];
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        if is_ended(row) && !is_about_entries(row) {
            ended.push(Ended {
                tid: row.tid,
                id: row.int8(1),
                owner: row.int8(2),
                storage: row.int8(3),
                directory: row.text(4).unwrap_or_default(),
                prefix: row.text(5).unwrap_or_default(),
                swept: row.get(6).map(|at| at.value() as pg_sys::TimestampTz),
            });
        }
        true
    });
    ended
}

/// The directories of all intents about files that no sweep has dealt with, also of transactions in progress.
pub fn directories() -> Vec<String> {
    let mut directories = vec![];
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        if !is_about_entries(row) && row.get(6).is_none() {
            directories.extend(row.text(4));
        }
        true
    });
    directories
}

/// Whether the transaction of an intent about a publication was rolled back: one that commits takes it
/// along, but may have ended after the intent was found. Looked at anew, what is left stays.
pub fn is_left(intent: &Ended) -> bool {
    let mut left = false;
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        left = row.text(5).is_some_and(|prefix| prefix == intent.prefix);
        !left
    });
    left
}

/// Notes that an intent has been dealt with as far as can be seen now.
pub fn note_swept(intent: &Ended) {
    let values = [
        Some(intent.id.into()),
        Some(intent.owner.into()),
        Some(intent.storage.into()),
        Some(text_datum(&intent.directory)),
        Some(text_datum(&intent.prefix)),
        Some(now().into()),
    ];
    Table::write(TABLE).update(intent.tid, &values);
}

/// Removes an intent that has been dealt with.
pub fn remove(intent: &Ended) {
    Table::write(TABLE).delete(intent.tid);
}
