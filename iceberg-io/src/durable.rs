//! Local files that survive a crash: created exclusively, and synced together with the directories that name them.
//!
//! Blocking; asynchronous callers go through `spawn_blocking` (see `store`).

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::Path;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};

/// Creates a file that must not exist yet, and whatever directories it lacks. The file's own directory entry is
/// durable only after [`sync_parent`].
pub(crate) fn create_new(path: &Path) -> Result<File> {
    let mut tries = 0;
    loop {
        create_directory(parent(path)?)?;
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => return Ok(file),
            // An empty directory may be removed between the two steps.
            Err(e) if e.kind() == IoErrorKind::NotFound && tries < 10 => tries += 1,
            Err(e) => {
                let message = format!("could not create file \"{}\"", path.display());
                return Err(Error::io(message, e));
            }
        }
    }
}

/// Creates, fills and syncs a new file. Its directory entry still needs [`sync_parent`].
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = create_new(path)?;
    let written = file
        .write_all(content)
        .map_err(|e| Error::io(format!("could not write file \"{}\"", path.display()), e))
        .and_then(|()| sync(&file, path));
    if written.is_err() {
        // The file is ours, and useless: the first error is the one to report.
        let _ = fs::remove_file(path);
    }
    written
}

/// Replaces a file's content atomically and durably, by renaming a synced temporary file over it.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".tmp-{}", Uuid::new_v4()));
    let temporary = Path::new(&name);
    write_new(temporary, content)?;
    if let Err(e) = fs::rename(temporary, path) {
        let _ = fs::remove_file(temporary);
        return Err(Error::io(
            format!(
                "could not rename \"{}\" to \"{}\"",
                temporary.display(),
                path.display()
            ),
            e,
        ));
    }
    sync_parent(path)
}

pub(crate) fn sync(file: &File, path: &Path) -> Result<()> {
    file.sync_all()
        .map_err(|e| Error::io(format!("could not fsync file \"{}\"", path.display()), e))
}

/// Makes the directory entry of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    sync_directory(parent(path)?)
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(|e| {
            Error::io(
                format!("could not fsync directory \"{}\"", directory.display()),
                e,
            )
        })
}

/// Creates a directory and its missing ancestors, each one synced into its parent.
fn create_directory(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = parent(directory)?;
    create_directory(above)?;
    match fs::create_dir(directory) {
        Ok(()) => {}
        // Someone else was faster.
        Err(e) if e.kind() == IoErrorKind::AlreadyExists => {}
        Err(e) => {
            return Err(Error::io(
                format!("could not create directory \"{}\"", directory.display()),
                e,
            ));
        }
    }
    sync_directory(above)
}

fn parent(path: &Path) -> Result<&Path> {
    path.parent()
        .filter(|parent| path.is_absolute() && !parent.as_os_str().is_empty())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("\"{}\" is not an absolute path", path.display()),
            )
        })
}
