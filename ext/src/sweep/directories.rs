//! This database's directories in tablespaces that are in stores. Postgres leaves one there, empty, when the last table has
//! gone. To other databases it says that there may be objects of this one, so that it goes with the last of these.

use crate::catalog::{garbage, intent, tablespace};
use crate::pg;
use pgrx::pg_sys;
use std::fs;
use std::path::Path;

pub fn remove() {
    for (oid, _) in tablespace::roots() {
        let directory = pg::data_directory().join(pg::database_directory(oid));
        if !is_empty(&directory) {
            continue;
        }
        // Postgres makes it again, but not for who has just seen it.
        tablespace::if_alone(oid, || {
            if is_empty(&directory) && !has_objects(oid) {
                let _ = fs::remove_dir(&directory);
            }
        });
    }
}

/// Not if it is missing.
fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

/// Whether objects in a tablespace wait to be removed, or may come to be there.
fn has_objects(oid: pg_sys::Oid) -> bool {
    let below = format!("pg_tblspc/{}/", oid.to_u32());
    let announced = intent::announced(std::ptr::null_mut());
    let announced = announced.into_iter().map(|intent| intent.directory);
    let mut paths = garbage::paths().into_iter().chain(announced);
    paths.any(|path| path.starts_with(&below))
}
