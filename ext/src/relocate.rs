//! SET TABLESPACE: the files of a table follow its hot rows to another tablespace.
//!
//! The storage stays the same one, with its row numbers, marks and Iceberg table, and gets another
//! directory. A worker copies the data files there, under new names. Their rows in the catalog get
//! the new paths in this transaction, so that older snapshots go on to read the old files (I2). The
//! old directory, with all that was published there, is garbage from then on.

use crate::catalog::data_file;
use crate::catalog::storage::{self, Storage};
use crate::catalog::{garbage, intent, publication};
use crate::pg;
use crate::ring::call::ask;
use crate::sql::maintenance;
use pg_lake_plan::message::{CopyFile, Reply, Request};
use pgrx::pg_sys;
use std::collections::HashMap;

/// Moves what a table has beside its heap, which has been copied to `locator`. Nobody else has the table
/// open: the command holds its strongest lock.
pub fn relocate(rel: pg_sys::Relation, locator: &pg_sys::RelFileLocator) {
    let Some(former) = storage::of_relation(rel) else {
        return; // temporary and unlogged tables stay hot
    };
    let (_, directory) = storage::new_directory(locator); // an error in a copy of a database
    let moved = Storage {
        directory,
        ..former.clone()
    };
    let paths = copy_files(&moved);
    data_file::set_paths(moved.id, &paths);
    storage::set_place(moved.id, locator, &moved.directory);
    garbage::add_former_directory(&former, last_published_in(&former));
}

/// Copies the files that the catalog lists to the storage's directory; their new paths and checksums, by the numbers of
/// their first rows. What this leaves behind in a transaction that is rolled back is found by the
/// sweep of intents.
fn copy_files(storage: &Storage) -> HashMap<u64, (String, Vec<u32>)> {
    // Also without a file: the transaction may write others to the directory, and be rolled back.
    let intent = intent::announce(storage.id, &storage.data_directory(), "moved");
    let files = data_file::files(storage.id, std::ptr::null_mut());
    if files.is_empty() {
        return HashMap::new();
    }
    let paths: Vec<String> = (0..files.len())
        .map(|n| format!("{}/{}-{n}.parquet", intent.directory, intent.prefix))
        .collect();
    let copies = files.iter().zip(&paths).map(|(file, path)| CopyFile {
        from: pg::absolute(&file.path),
        to: pg::absolute(path),
        size: file.size,
        checksums: file.checksums.to_vec(),
    });
    let checksums = match ask(Request::CopyFiles {
        files: copies.collect(),
    }) {
        Reply::Copied(checksums) => checksums,
        other => maintenance::unexpected(&other),
    };
    files
        .iter()
        .map(|file| file.rows.start())
        .zip(paths.into_iter().zip(checksums))
        .collect()
}

/// The number of the last publication whose metadata are in the storage's directory. All that refer to
/// files there come before it: a directory is left once.
fn last_published_in(storage: &Storage) -> Option<i64> {
    let directory = format!("{}/", pg::published_location(&storage.directory));
    publication::find(storage.id)
        .filter(|last| last.metadata_location.starts_with(&directory))
        .map(|last| last.number)
}
