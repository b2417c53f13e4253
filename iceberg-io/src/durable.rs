//! Local files that survive a crash: created exclusively, and synced together with the directories that name them.
//!
//! Blocking; asynchronous callers go through `spawn_blocking` (see `store`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind as IoErrorKind, Read, Write};
use std::path::Path;

use pg_lake_crash::{CrashPoint, crash_point};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};

/// What is copied between two looks at whether to go on.
const COPY_BYTES: u64 = 16 << 20;

/// Creates a file that must not exist yet, and whatever directories it lacks. The file's own directory entry is
/// durable only after [`sync_parent`].
pub(crate) fn create_new(path: &Path) -> Result<File> {
    let create = || {
        create_directory(parent(path)?)?;
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|e| Error::io(format!("could not create file \"{}\"", path.display()), e))
    };
    let mut tries = 0;
    loop {
        match create() {
            // Empty directories may be removed between the steps.
            Err(e) if e.kind() == ErrorKind::NotFound && tries < 10 => tries += 1,
            result => return result,
        }
    }
}

/// Creates, fills and syncs a new file. Its directory entry still needs [`sync_parent`].
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = create_new(path)?;
    crash_point(CrashPoint::MetadataCreated);
    let written = file
        .write_all(content)
        .map_err(|e| Error::io(format!("could not write file \"{}\"", path.display()), e))
        .and_then(|()| {
            crash_point(CrashPoint::MetadataWritten);
            sync(&file, path)
        });
    if written.is_err() {
        // The file is ours, and useless: the first error is the one to report.
        let _ = fs::remove_file(path);
    }
    written
}

/// Copies a file of `size` bytes to a new one, durably. `stop` is asked every few megabytes whether to give up. After an
/// error nothing is left of the copy.
pub fn copy_file(from: &Path, to: &Path, size: u64, stop: &dyn Fn() -> bool) -> Result<()> {
    let mut source = File::open(from)
        .map_err(|e| Error::io(format!("could not open file \"{}\"", from.display()), e))?;
    let mut target = create_new(to)?;
    let copied = copy_content(&mut source, &mut target, stop)
        .map_err(|e| {
            let (from, to) = (from.display(), to.display());
            Error::io(format!("could not copy file \"{from}\" to \"{to}\""), e)
        })
        .and_then(|bytes| match bytes == size {
            true => sync(&target, to),
            false => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "file \"{}\" has {bytes} bytes instead of {size}",
                    from.display()
                ),
            )),
        })
        .and_then(|()| sync_parent(to));
    if copied.is_err() {
        // As in `write_new`.
        let _ = fs::remove_file(to);
    }
    copied
}

fn copy_content(source: &mut File, target: &mut File, stop: &dyn Fn() -> bool) -> io::Result<u64> {
    let mut copied = 0;
    loop {
        if stop() {
            return Err(io::Error::from(IoErrorKind::Interrupted));
        }
        let bytes = io::copy(&mut Read::take(&mut *source, COPY_BYTES), target)?;
        copied += bytes;
        if bytes < COPY_BYTES {
            return Ok(copied);
        }
    }
}

/// Replaces a file's content atomically and durably, by renaming a synced temporary file over it, whose name has the
/// attempt's id.
pub(crate) fn replace(path: &Path, content: &[u8], attempt: &Uuid) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".tmp-{attempt}"));
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
    crash_point(CrashPoint::HintRenamed);
    sync_parent(path)
}

/// Removes a file, durably; one that is missing is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(e) if e.kind() == IoErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(
            format!("could not remove file \"{}\"", path.display()),
            e,
        )),
    }
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
///
/// Nothing is ever put into a directory before that, by nobody: what has an entry needs no sync, and one that is empty may
/// be that of another process that is about to sync it, or was killed before.
fn create_directory(directory: &Path) -> Result<()> {
    let failed = |e| {
        Error::io(
            format!("could not create directory \"{}\"", directory.display()),
            e,
        )
    };
    match fs::read_dir(directory).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Ok(()),
        Ok(false) => return sync_directory(parent(directory)?),
        Err(e) if e.kind() == IoErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let above = parent(directory)?;
    create_directory(above)?;
    match fs::create_dir(directory) {
        Ok(()) => {}
        // Someone else was faster.
        Err(e) if e.kind() == IoErrorKind::AlreadyExists => {}
        Err(e) => return Err(failed(e)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_and_found() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/b/c");
        // Missing, there without an entry, and with one.
        for _ in 0..2 {
            create_directory(&directory).unwrap();
        }
        fs::write(directory.join("file"), b"").unwrap();
        create_directory(&directory).unwrap();

        let below_a_file = directory.join("file/d");
        let error = create_directory(&below_a_file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
    }

    #[test]
    fn a_copy_is_whole_or_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("from");
        let to = directory.path().join("new/data/to");
        fs::write(&from, b"rows").unwrap();
        let go_on = || false;

        let stopped = copy_file(&from, &to, 4, &|| true).unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Io);
        let short = copy_file(&from, &to, 5, &go_on).unwrap_err();
        assert_eq!(short.kind(), ErrorKind::Corrupt);
        let missing = copy_file(&directory.path().join("none"), &to, 4, &go_on).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(!to.exists());

        copy_file(&from, &to, 4, &go_on).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"rows");
        let again = copy_file(&from, &to, 4, &go_on).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"rows");
    }
}
