//! Requests about files, by their paths in the catalog.

use crate::pg;
use crate::progress;
use crate::ring::call::ask;
use crate::sql::maintenance::unexpected;
use pg_lake_plan::message::{Reply, Request};

/// What one request names at most.
const PATHS_PER_REQUEST: usize = 1000;

/// The files below a directory, in order, with their sizes; none if it is missing.
pub fn list(directory: &str) -> Vec<(String, u64)> {
    match ask(Request::ListFiles {
        directory: pg::absolute(directory),
    }) {
        Reply::Files(files) => files
            .into_iter()
            .map(|(path, size)| (pg::relative(&path), size))
            .collect(),
        other => unexpected(&other),
    }
}

/// The paths alone.
pub fn below(directory: &str) -> Vec<String> {
    list(directory).into_iter().map(|(path, _)| path).collect()
}

/// Removes files, and directories, whose paths end in `/`, if they are empty; returns how many files there
/// were. What can't be removed is an error after the others of its request.
pub fn remove(paths: &[String]) -> u64 {
    let mut removed = 0;
    for paths in paths.chunks(PATHS_PER_REQUEST) {
        pg::check_for_interrupts();
        let paths = paths.iter().map(|path| pg::absolute(path)).collect();
        match ask(Request::RemoveFiles { paths }) {
            Reply::Removed(files) => {
                progress::files_done(files, 0);
                removed += files;
            }
            other => unexpected(&other),
        }
    }
    removed
}
