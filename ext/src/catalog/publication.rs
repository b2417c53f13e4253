//! `lake.publication`: the Iceberg metadata that a storage has published last.

use crate::pg::table::{Key, Table, text_datum};
use pg_lake_plan::message::Published;
use pgrx::pg_sys;
use std::ffi::CStr;

const TABLE: &CStr = c"publication";
const BY_STORAGE: &CStr = c"publication_pkey";

/// The last publication of a storage.
#[derive(Clone, Debug)]
pub struct Publication {
    /// A `file://` URI.
    pub metadata_location: String,
}

pub fn find(storage: i64) -> Option<Publication> {
    let mut found = None;
    Table::read(TABLE).scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        std::ptr::null_mut(),
        |row| {
            found = Some(Publication {
                metadata_location: row.text(2).unwrap_or_default(),
            });
            false
        },
    );
    found
}

/// Moves the pointer to the new metadata.
pub fn set(storage: i64, published: &Published, hot_image: Option<&str>) {
    let table = Table::write(TABLE);
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    let row = |previous: Option<pg_sys::Datum>| {
        [
            Some(storage.into()),
            Some(text_datum(&published.metadata_location)),
            previous,
            Some(published.snapshot_id.into()),
            Some(now.into()),
            hot_image.map(text_datum),
        ]
    };
    let mut updated = false;
    table.scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        std::ptr::null_mut(),
        |old| {
            table.update(old.tid, &row(old.get(2)));
            updated = true;
            false
        },
    );
    if !updated {
        table.insert(&row(None));
    }
}
