//! `lake.garbage`: files and storages that are no longer part of any table, with the transaction
//! that said so. They are removed when no snapshot can need them (I2), neither of Postgres nor of what was
//! published, and outside readers have had the time to come to an end.

use crate::catalog::storage::{self, Storage};
use crate::catalog::{publication, replaced};
use crate::pg::table::{Row, Table, text_datum};
use crate::pg::xids;
use pgrx::pg_sys;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CStr;

const TABLE: &CStr = c"garbage";
const COLUMNS: usize = 7;
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
    /// Whether CLUSTER has put other files in its place.
    pub clustered: bool,
}

/// The whole directory of a dropped storage, with what it has published.
pub fn add_storage(storage: &Storage) {
    let last = publication::find(storage.id).map(|published| published.number);
    let path = format!("{}/", storage.directory);
    add(storage.id, &path, DROPPED, last, last.is_some());
}

/// The directory that a storage has left for another one, with what it has published there.
pub fn add_former_directory(storage: &Storage, publication: Option<i64>) {
    let path = format!("{}/", storage.directory);
    add(storage.id, &path, "moved", publication, false);
}

/// A file that no published snapshot refers to after the one of this number, which the metadata retain no
/// longer.
pub fn add_expired(storage: i64, path: &str, publication: i64) {
    add(storage, path, "expired", Some(publication), true);
}

/// The files of a storage that are garbage for a reason.
pub fn paths_because(storage: i64, reason: &str) -> HashSet<String> {
    let mut paths = HashSet::new();
    let now = &raw mut crate::pg::SNAPSHOT_SELF;
    Table::read(TABLE).scan(None, &[], now, |row| {
        if row.int8(1) == storage && row.text(3).is_some_and(|found| found == reason) {
            paths.extend(row.text(2));
        }
        true
    });
    paths
}

/// A file that published snapshots refer to, with the number of the last one that does.
pub fn add_file_after(storage: i64, path: &str, reason: &str, publication: Option<i64>) {
    add(storage, path, reason, publication, false);
}

fn add(storage: i64, path: &str, reason: &str, publication: Option<i64>, released: bool) {
    let now = now();
    Table::write(TABLE).insert(&[
        Some(storage.into()),
        Some(text_datum(path)),
        Some(text_datum(reason)),
        Some((xids::own() as i64).into()),
        Some(now.into()),
        publication.map(pg_sys::Datum::from),
        released.then(|| now.into()),
    ]);
}

fn now() -> pg_sys::TimestampTz {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
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

/// An entry as it is.
pub struct Discarded {
    pub storage: i64,
    pub path: String,
    /// Whether the storage itself is gone.
    pub dropped: bool,
    /// Whether metadata may still retain a snapshot that refers to it.
    pub published: bool,
}

/// All entries that `snapshot` sees.
pub fn list(snapshot: pg_sys::Snapshot) -> Vec<Discarded> {
    let mut found = vec![];
    Table::read(TABLE).scan(None, &[], snapshot, |row| {
        found.push(Discarded {
            storage: row.int8(1),
            path: row.text(2).unwrap_or_default(),
            dropped: row.text(3).is_some_and(|reason| reason == DROPPED),
            published: row.get(6).is_some() && row.get(7).is_none(),
        });
        true
    });
    found
}

/// Why an entry is still there.
#[derive(PartialEq)]
enum State {
    /// The table's metadata retain a snapshot that refers to it.
    Published,
    /// No metadata do, since the sweep that looks at it now.
    Released,
    /// They did before, and their readers have the time until then.
    Retained(pg_sys::TimestampTz),
    /// Nobody reads it but snapshots of Postgres that are older.
    Unneeded,
}

/// Looks at entries, all as of one moment.
struct Judge {
    now: pg_sys::TimestampTz,
    /// How long readers of what was published have, in microseconds.
    retention_us: i64,
    horizon: u64,
    /// The number of the oldest snapshot that a storage's metadata retain; `None`: there are none.
    oldest: HashMap<i64, Option<i64>>,
}

impl Judge {
    fn new(retention_us: i64) -> Judge {
        Judge {
            now: now(),
            retention_us,
            // A null relation asks for the horizon of shared catalogs, the oldest.
            horizon: xids::horizon(std::ptr::null_mut()),
            oldest: HashMap::new(),
        }
    }

    fn state(&mut self, row: &Row<'_>) -> State {
        // What was never published has no readers but Postgres.
        let Some(last) = row.get(6).map(|last| last.value() as i64) else {
            return State::Unneeded;
        };
        let until = match row.get(7) {
            Some(released) => (released.value() as i64).saturating_add(self.retention_us),
            None if self.retains(row.int8(1), last) => return State::Published,
            None if self.retention_us > 0 => return State::Released,
            None => self.now,
        };
        if self.now < until {
            State::Retained(until)
        } else {
            State::Unneeded
        }
    }

    /// Whether the metadata of a storage retain a snapshot. With a storage that is gone, what it has published
    /// goes, too.
    fn retains(&mut self, id: i64, snapshot: i64) -> bool {
        let oldest = *self.oldest.entry(id).or_insert_with(|| {
            let published = publication::find(id).filter(|_| storage::exists(id));
            published.map(|published| published.oldest)
        });
        oldest.is_some_and(|oldest| oldest <= snapshot)
    }

    /// Whether every snapshot of Postgres sees that it is garbage.
    fn is_settled(&self, row: &Row<'_>) -> bool {
        (row.int8(4) as u64) < self.horizon
    }
}

/// Notes of what published snapshots refer to no longer that they don't. The next command sees it.
pub fn release(retention_us: i64) {
    let mut judge = Judge::new(retention_us);
    let table = Table::write(TABLE);
    table.scan(None, &[], std::ptr::null_mut(), |row| {
        if judge.state(row) == State::Released {
            let mut values: Vec<_> = (1..=COLUMNS).map(|i| row.get(i)).collect();
            values[6] = Some(judge.now.into());
            table.update(row.tid, &values);
        }
        true
    });
    // SAFETY: in a transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// Up to `limit` entries that nobody needs any more, without those that are to be passed over.
pub fn removable(
    retention_us: i64,
    limit: usize,
    mut pass_over: impl FnMut(&Garbage) -> bool,
) -> Vec<Garbage> {
    let mut judge = Judge::new(retention_us);
    let mut found = vec![];
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        if judge.state(row) == State::Unneeded && judge.is_settled(row) {
            let reason = row.text(3).unwrap_or_default();
            let entry = Garbage {
                tid: row.tid,
                storage: row.int8(1),
                path: row.text(2).unwrap_or_default(),
                dropped: reason == DROPPED,
                clustered: reason == replaced::REASON,
            };
            if !pass_over(&entry) {
                found.push(entry);
            }
        }
        found.len() < limit
    });
    found
}

/// Removes an entry that has been dealt with.
pub fn remove(entry: &Garbage) {
    Table::write(TABLE).delete(entry.tid);
}

/// The entries of one reason.
#[derive(Default)]
pub struct Summary {
    pub entries: i64,
    /// Of the oldest one.
    pub since: Option<pg_sys::TimestampTz>,
    /// How many can be removed now.
    pub removable: i64,
    /// When the first one can be, as far as readers of what was published are concerned; `None`: the
    /// metadata retain snapshots that refer to all of them.
    pub removable_from: Option<pg_sys::TimestampTz>,
}

/// All entries, by their reasons.
pub fn summary(retention_us: i64) -> BTreeMap<String, Summary> {
    let mut judge = Judge::new(retention_us);
    let mut reasons: BTreeMap<String, Summary> = BTreeMap::new();
    let earlier = |known: Option<i64>, other: i64| Some(known.map_or(other, |at| at.min(other)));
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        let since = row.int8(5);
        let from = match judge.state(row) {
            State::Published => None,
            State::Released => Some(judge.now.saturating_add(retention_us)),
            State::Retained(until) => Some(until),
            State::Unneeded => match row.get(7) {
                Some(released) => Some((released.value() as i64).saturating_add(retention_us)),
                None => Some(since),
            },
        };
        let now = from.is_some_and(|from| from <= judge.now) && judge.is_settled(row);
        let reason = reasons.entry(row.text(3).unwrap_or_default()).or_default();
        reason.entries += 1;
        reason.since = earlier(reason.since, since);
        reason.removable += i64::from(now);
        reason.removable_from = from.map_or(reason.removable_from, |from| {
            earlier(reason.removable_from, from)
        });
        true
    });
    reasons
}
