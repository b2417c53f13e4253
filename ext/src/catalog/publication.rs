//! `lake.publication`: the Iceberg metadata that a storage has published last.

use crate::pg::table::{Key, Row, Table, bytea_datum, text_datum};
use pg_lake_plan::message::Published;
use pg_lake_plan::store;
use pgrx::pg_sys;
use std::ffi::CStr;

const TABLE: &CStr = c"publication";
const BY_STORAGE: &CStr = c"publication_pkey";

/// The last publication of a storage.
#[derive(Clone, Debug)]
pub struct Publication {
    /// A `file://` URI, or the URL of an object.
    pub metadata_location: String,
    /// Of everything that the metadata depends on, the hot rows included.
    pub digest: i64,
    /// How many times the storage has been published.
    pub number: i64,
    /// The number of the oldest snapshot that the metadata retain.
    pub oldest: i64,
    /// The columns that partition specs in the metadata name.
    pub partitioned_by: Vec<i32>,
    pub snapshot_id: i64,
    /// What [`contents`] makes of the snapshot's data files.
    pub contents: i64,
}

impl Publication {
    /// Whether the metadata retain no more snapshots than `keep`.
    pub fn retains_at_most(&self, keep: u32) -> bool {
        self.number - self.oldest < i64::from(keep)
    }
}

/// Keeps a table from being published to the end of the transaction. Waits for a publication under way.
pub fn lock(relid: pg_sys::Oid) {
    // SAFETY: a heavyweight lock.
    unsafe {
        pg_sys::LockDatabaseObject(
            pg_sys::RelationRelationId,
            relid,
            0,
            pg_sys::ExclusiveLock as i32,
        );
    }
}

/// Keeps a table from being published to the end of the transaction; false if a publication is under
/// way. `publish` waits for the same lock.
pub fn try_lock(relid: pg_sys::Oid) -> bool {
    // SAFETY: a heavyweight lock.
    unsafe {
        pg_sys::ConditionalLockDatabaseObject(
            pg_sys::RelationRelationId,
            relid,
            0,
            pg_sys::ExclusiveLock as i32,
        )
    }
}

pub fn find(storage: i64) -> Option<Publication> {
    find_as_of(storage, std::ptr::null_mut())
}

/// The publication that `snapshot` sees. Null: the catalog snapshot.
pub fn find_as_of(storage: i64, snapshot: pg_sys::Snapshot) -> Option<Publication> {
    let mut found = None;
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        snapshot,
        |row| {
            found = Some(Publication {
                metadata_location: row.text(2).unwrap_or_default(),
                digest: row.int8(6),
                number: row.int8(7),
                oldest: row.int8(8),
                partitioned_by: sources(row),
                snapshot_id: row.int8(4),
                contents: row.int8(10),
            });
            false
        },
    );
    found
}

fn sources(row: &Row<'_>) -> Vec<i32> {
    let bytes = row.bytes(9).unwrap_or_default();
    pg_lake_plan::decode(&bytes).unwrap_or_default()
}

/// A published data file, as its snapshot has it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Content<'a> {
    /// An absolute path, or a URL.
    pub path: &'a str,
    pub size: u64,
    pub rows: u64,
    /// How many of the rows are deleted.
    pub deleted: u64,
}

/// What tells the data files of a snapshot from others, in whatever order they are: their number, and a
/// checksum.
pub fn contents(mut files: Vec<Content<'_>>) -> i64 {
    files.sort_unstable();
    let lines: String = files
        .iter()
        .map(|file| {
            let (path, size) = (file.path, file.size);
            format!("{path}\t{size}\t{}\t{}\n", file.rows, file.deleted)
        })
        .collect();
    let number = files.len() as i64;
    (number << 32) | i64::from(store::checksum(lines.as_bytes()))
}

/// Moves the pointer to the new metadata, which retain `keep` snapshots and have specs that name the
/// columns `partitioned_by` beside those of the metadata before. Returns the number of the oldest
/// snapshot that they retain.
pub fn set(
    storage: i64,
    published: &Published,
    digest: i64,
    keep: u32,
    partitioned_by: Vec<i32>,
    contents: i64,
) -> i64 {
    let table = Table::write(TABLE);
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    // Those that have expired before don't come back.
    let oldest_of = |number: i64, before: i64| before.max(number + 1 - i64::from(keep));
    let row = |previous: Option<pg_sys::Datum>, number: i64, oldest: i64, mut named: Vec<i32>| {
        named.extend(&partitioned_by);
        named.sort_unstable();
        named.dedup();
        [
            Some(storage.into()),
            Some(text_datum(&published.metadata_location)),
            previous,
            Some(published.snapshot_id.into()),
            Some(now.into()),
            Some(digest.into()),
            Some(number.into()),
            Some(oldest.into()),
            Some(bytea_datum(
                &pg_lake_plan::encode(&named).unwrap_or_default(),
            )),
            Some(contents.into()),
        ]
    };
    let mut oldest = None;
    table.scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        std::ptr::null_mut(),
        |old| {
            let number = old.int8(7) + 1;
            let retained = oldest_of(number, old.int8(8));
            table.update(old.tid, &row(old.get(2), number, retained, sources(old)));
            oldest = Some(retained);
            false
        },
    );
    oldest.unwrap_or_else(|| {
        table.insert(&row(None, 1, 1, vec![]));
        1
    })
}

/// The files of hot images that retained snapshots refer to.
pub fn hot_images(storage: i64, snapshot: pg_sys::Snapshot) -> Vec<String> {
    let mut paths = vec![];
    Table::read(c"hot_image").scan(
        Some(c"hot_image_pkey"),
        &[Key::int8(1, storage)],
        snapshot,
        |row| {
            paths.extend(row.text(2));
            true
        },
    );
    paths
}

/// Records the files of a publication's hot image and returns the ones that no retained snapshot can
/// refer to any more: each publication makes one snapshot, of which `keep` are retained. The files of
/// one image differ in the number at their names' ends; what is before it carries the number of an
/// intent, which ascends. The directory changes with the tablespace.
pub fn add_hot_image(storage: i64, paths: &[String], keep: usize) -> Vec<String> {
    let table = Table::write(c"hot_image");
    let mut known = vec![];
    table.scan(
        Some(c"hot_image_pkey"),
        &[Key::int8(1, storage)],
        std::ptr::null_mut(),
        |row| {
            known.push((row.text(2).unwrap_or_default(), row.tid));
            true
        },
    );
    for path in paths {
        table.insert(&[Some(storage.into()), Some(text_datum(path))]);
    }
    let image = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let image = name.rsplit_once('-').map_or(name, |(image, _)| image);
        (image.len(), image.to_owned())
    };
    known.sort_by_cached_key(|(path, _)| image(path));
    let mut images: Vec<_> = known.iter().map(|(path, _)| image(path)).collect();
    images.dedup();
    let expired = images.len().saturating_sub(keep);
    let Some(last) = images[..expired].last() else {
        return vec![];
    };
    known
        .into_iter()
        .take_while(|(path, _)| image(path) <= *last)
        .map(|(path, tid)| {
            table.delete(tid);
            path
        })
        .collect()
}
