//! Removing, listing and copying files of the local file system.

use super::error::{file_error, iceberg_error};
use crate::runtime::blocking;
use pg_lake_crash::{CrashPoint, crash_point};
use pg_lake_plan::message::{ErrorCode, WireError};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Removes files, durably; those that are missing are no error. Returns how many were there. A name
/// that ends in `/` is a table's directory, which goes if no file is left in it.
pub(super) async fn remove(paths: Vec<String>) -> Result<u64, WireError> {
    blocking("removing files", move || remove_now(&paths)).await
}

/// Removes a directory that has become empty, and those above it as far as the one that all tables of
/// a database share, so that DROP TABLESPACE finds nothing of ours. Writers make them again.
fn remove_empty(directory: &Path) -> bool {
    let is_shared = |directory: &Path| directory.file_name().is_some_and(|name| name == "lake");
    if !directory.ancestors().any(is_shared) {
        return false;
    }
    let mut removed = false;
    for directory in directory.ancestors() {
        // Fails where it isn't empty.
        if fs::remove_dir(directory).is_err() {
            break;
        }
        removed = true;
        // What is above is Postgres', also if another one is named like this.
        if is_shared(directory) {
            break;
        }
    }
    removed
}

fn remove_now(paths: &[String]) -> Result<u64, WireError> {
    let mut removed = 0;
    let mut directories = BTreeSet::new();
    let mut first_error = None;
    for name in paths {
        let path = local(name)?;
        if name.ends_with('/') {
            // A table's directory: what is left of it once its files are gone.
            for part in ["data", "metadata"] {
                let _ = fs::remove_dir(path.join(part));
            }
            remove_empty(&path);
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => {
                crash_point(CrashPoint::FileRemoved);
                removed += 1;
                directories.extend(path.parent().map(Path::to_path_buf));
            }
            Err(e) if is_missing(&e) => {}
            // The others are removed all the same: the backend asks again for all of them.
            Err(e) => {
                let message = format!("could not remove file \"{}\"", path.display());
                first_error.get_or_insert_with(|| file_error(message, &e, &path));
            }
        }
    }
    for directory in directories {
        if remove_empty(&directory) {
            continue;
        }
        match File::open(&directory).and_then(|handle| handle.sync_all()) {
            Err(e) if !is_missing(&e) => {
                let message = format!("could not fsync directory \"{}\"", directory.display());
                first_error.get_or_insert_with(|| file_error(message, &e, &directory));
            }
            _ => {}
        }
    }
    crash_point(CrashPoint::FilesRemoved);
    match first_error {
        None => Ok(removed),
        Some(error) => Err(error),
    }
}

/// The absolute paths of all files below a directory, sorted, with their sizes; none if it is missing.
/// Symbolic links are listed and not followed.
pub(super) async fn list(directory: String) -> Result<Vec<(String, u64)>, WireError> {
    blocking("listing files", move || list_now(&local(&directory)?)).await
}

fn list_now(root: &Path) -> Result<Vec<(String, u64)>, WireError> {
    let mut files = vec![];
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let failed = |e: io::Error| {
            let message = format!("could not read directory \"{}\"", directory.display());
            file_error(message, &e, &directory)
        };
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // Also one that was removed while we were on our way.
            Err(e) if is_missing(&e) => continue,
            Err(e) => return Err(failed(e)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            match entry.metadata() {
                Ok(found) if found.is_dir() => pending.push(entry.path()),
                Ok(found) => files.push((text(entry.path())?, found.len())),
                Err(e) if is_missing(&e) => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Copies a file, durably. A cancel stops it soon; nothing is left then, as after an error.
pub(super) async fn copy(
    from: PathBuf,
    to: PathBuf,
    size: u64,
    cancel: &CancellationToken,
) -> Result<(), WireError> {
    let cancel = cancel.clone();
    blocking("copying files", move || {
        pg_lake_iceberg::copy_file(&from, &to, size, &|| cancel.is_cancelled())
            .map_err(|e| iceberg_error(&e, &to.to_string_lossy()))
    })
    .await
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// A local path from a path or a `file:` location.
pub(super) fn local(name: &str) -> Result<PathBuf, WireError> {
    pg_lake_iceberg::store::local_path(name)
        .map_err(|e| WireError::new(ErrorCode::Internal, e.to_string()))
}

fn text(path: PathBuf) -> Result<String, WireError> {
    path.into_os_string().into_string().map_err(|name| {
        let message = format!("file name {name:?} is not valid UTF-8");
        WireError::new(ErrorCode::DataCorrupted, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_below_a_directory_are_listed_and_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir_all(root.join("a/b")).expect("directories");
        let paths: Vec<String> = ["a/1", "a/b/2", "3"]
            .iter()
            .map(|name| root.join(name).to_string_lossy().into_owned())
            .collect();
        for path in &paths {
            fs::write(path, b"x").expect("a file");
        }
        let mut expected: Vec<_> = paths.iter().map(|path| (path.clone(), 1)).collect();
        expected.sort_unstable();
        assert_eq!(list_now(root), Ok(expected));
        assert_eq!(remove_now(&paths), Ok(3));
        assert_eq!(remove_now(&paths), Ok(0));
        assert_eq!(list_now(root), Ok(vec![]));
        assert_eq!(list_now(&root.join("missing")), Ok(vec![]));
    }

    #[test]
    fn what_cannot_be_removed_is_an_error_after_the_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, b"x").expect("a file");
        let name = |path: &Path| path.to_string_lossy().into_owned();
        let error = remove_now(&[name(directory.path()), name(&file)]).expect_err("a directory");
        assert_eq!(error.code, ErrorCode::Io);
        assert!(!file.exists());
    }
}
