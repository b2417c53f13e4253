//! Files that a process writes locally before it uploads them.
//!
//! They are worth nothing once the process is gone: what they would become is only registered after the upload.

use crate::disk::create_private_directory;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// One process' directory for such files.
#[derive(Debug)]
pub struct Staging {
    directory: PathBuf,
    next: AtomicU64,
}

impl Staging {
    /// Empties `directory/staging/<owner>/`, or creates it. No other live process may be this owner.
    pub fn open(directory: &Path, owner: u32) -> io::Result<Staging> {
        let directory = directory.join("staging").join(owner.to_string());
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        create_private_directory(&directory)?;
        Ok(Staging {
            directory,
            next: AtomicU64::new(0),
        })
    }

    /// Removes what owners have left that there are no more.
    pub fn forget(directory: &Path, is_gone: impl Fn(u32) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(directory.join("staging"))? {
            let entry = entry?;
            let name = entry.file_name();
            let owner: Option<u32> = name.to_str().and_then(|name| name.parse().ok());
            if owner.is_some_and(&is_gone) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A path that wasn't given out before. There is no file yet; who creates one removes it, too.
    pub fn new_path(&self, suffix: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let suffix = suffix.replace('/', "_");
        self.directory
            .join(format!("{}-{number}{suffix}", std::process::id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_the_same_owner_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Staging::open(directory.path(), 1).expect("opened");
        let other = Staging::open(directory.path(), 2).expect("opened");
        let (left, kept) = (first.new_path(".parquet"), other.new_path(".parquet"));
        fs::write(&left, "x").expect("written");
        fs::write(&kept, "x").expect("written");
        fs::create_dir(first.new_path("")).expect("created");
        drop(first);

        let again = Staging::open(directory.path(), 1).expect("opened");
        assert_eq!(fs::read_dir(again.directory()).expect("listed").count(), 0);
        assert!(kept.exists() && !left.exists());
        let (a, b) = (again.new_path("/../x"), again.new_path("/../x"));
        assert_ne!(a, b);
        assert_eq!(a.parent(), Some(again.directory()));
        Staging::forget(directory.path(), |owner| owner > 1).expect("removed");
        assert!(again.directory().exists() && !other.directory().exists());
    }

    #[test]
    fn a_directory_that_cannot_be_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("staging"), "x").expect("written");
        assert!(Staging::open(directory.path(), 1).is_err());
    }
}
