//! `lake.garbage`: files and storages that are no longer part of any table, with the transaction
//! that said so. They are removed when no snapshot can need them (I2).

use crate::catalog::publication;
use crate::catalog::storage::{self, Storage};
use crate::pg::table::{Table, text_datum};
use pgrx::pg_sys;
use std::ffi::CStr;

const TABLE: &CStr = c"garbage";
/// The reason of a storage that is gone.
const DROPPED: &str = "dropped";

/// What to remove.
#[derive(Clone, Debug)]
pub struct Garbage {
    pub tid: pg_sys::ItemPointerData,
    pub storage: i64,
    /// A file, or a directory that ends in `/`, relative to the data directory.
    pub path: String,
    /// Whether the storage itself is gone.
    pub dropped: bool,
}

/// The whole directory of a dropped storage.
pub fn add_storage(storage: &Storage) {
    add(
        storage.id,
        &format!("{}/", storage.directory),
        DROPPED,
        None,
    );
}

/// The directory that a storage has left for another one, with what it has published there.
pub fn add_former_directory(storage: &Storage, publication: Option<i64>) {
    add(
        storage.id,
        &format!("{}/", storage.directory),
        "moved",
        publication,
    );
}

/// One file.
pub fn add_file(storage: i64, path: &str, reason: &str) {
    add(storage, path, reason, None);
}

/// A file that published snapshots refer to, with the number of the last one that does.
pub fn add_file_after(storage: i64, path: &str, reason: &str, publication: Option<i64>) {
    add(storage, path, reason, publication);
}

fn add(storage: i64, path: &str, reason: &str, publication: Option<i64>) {
    // SAFETY: in a transaction.
    let xid = unsafe { pg_sys::GetTopFullTransactionId().value };
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    Table::write(TABLE).insert(&[
        Some(storage.into()),
        Some(text_datum(path)),
        Some(text_datum(reason)),
        Some((xid as i64).into()),
        Some(now.into()),
        publication.map(pg_sys::Datum::from),
    ]);
}

/// The files and directories that wait to be removed.
pub fn paths() -> Vec<String> {
    let mut paths = vec![];
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        paths.extend(row.text(2));
        true
    });
    paths
}

/// Entries of transactions that every snapshot sees as committed.
pub fn removable() -> Vec<Garbage> {
    // SAFETY: in a transaction; a null relation asks for the horizon of shared catalogs, the oldest.
    let horizon = unsafe { pg_sys::GetOldestNonRemovableTransactionId(std::ptr::null_mut()) };
    let mut found = vec![];
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        let xid = pg_sys::TransactionId::from(row.int8(4) as u32);
        // With a storage that is gone, what it has published goes, too.
        let published = row.get(6).is_some_and(|last| {
            publication::find(row.int8(1)).is_some_and(|p| p.oldest <= last.value() as i64)
                && storage::exists(row.int8(1))
        });
        // SAFETY: pure arithmetic.
        if !published && unsafe { pg_sys::TransactionIdPrecedes(xid, horizon) } {
            found.push(Garbage {
                tid: row.tid,
                storage: row.int8(1),
                path: row.text(2).unwrap_or_default(),
                dropped: row.text(3).is_some_and(|reason| reason == DROPPED),
            });
        }
        true
    });
    found
}

/// Removes an entry that has been dealt with.
pub fn remove(entry: &Garbage) {
    Table::write(TABLE).delete(entry.tid);
}
