//! Where Iceberg metadata files and delete files live.
//!
//! The snapshot producer builds every file in memory and hands all of them over at once, so a store needs few operations
//! only: read, create durably, replace, remove. [`LocalStore`] serves `file://` locations and plain paths.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pg_lake_crash::{CrashPoint, crash_point};
use uuid::Uuid;

use crate::durable;
use crate::error::{Error, ErrorKind, Result};

/// A file to be created.
#[derive(Debug, Clone)]
pub struct NewFile {
    pub location: String,
    pub content: Bytes,
}

/// What a file had when it was looked at, and how its store tells that from what is written later, if it can.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub content: Bytes,
    pub e_tag: Option<String>,
    pub version: Option<String>,
}

/// What a file has to be for another one to take its place.
#[derive(Debug, Clone, Copy)]
pub enum Former<'a> {
    Anything,
    Missing,
    /// Not written since.
    Seen(&'a Seen),
}

impl<'a> From<Option<&'a Seen>> for Former<'a> {
    fn from(seen: Option<&'a Seen>) -> Self {
        seen.map_or(Former::Missing, Former::Seen)
    }
}

/// Storage of metadata files, addressed by the locations that Iceberg metadata holds.
#[async_trait]
pub trait MetadataStore: Send + Sync {
    async fn read(&self, location: &str) -> Result<Bytes>;

    /// How long a file that was written may be said to be missing. What isn't there after that is gone.
    fn patience(&self, _location: &str) -> Duration {
        Duration::ZERO
    }

    /// A file that changes, as it is now; `None` if it is missing.
    async fn look(&self, location: &str) -> Result<Option<Seen>> {
        match self.read(location).await {
            Ok(content) => Ok(Some(Seen {
                content,
                ..Seen::default()
            })),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Creates the files, in order. All of them are durable when this returns; none may exist before. After an error
    /// those already created have been removed, as far as that was possible.
    async fn create_all(&self, files: Vec<NewFile>) -> Result<()>;

    /// Creates or replaces one file, atomically and durably; `false`: the store says that it isn't what it has to be. A
    /// crash may leave another file whose name has the attempt's id.
    ///
    /// What is given up may be done later. A store that can tell does it only if the file is still what it has to be.
    async fn replace(&self, file: NewFile, former: Former<'_>, attempt: &Uuid) -> Result<bool>;

    /// Removes one file, durably; one that is missing is no error.
    async fn remove(&self, location: &str) -> Result<()>;
}

/// The local file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalStore;

#[async_trait]
impl MetadataStore for LocalStore {
    async fn read(&self, location: &str) -> Result<Bytes> {
        let path = local_path(location)?;
        blocking(move || {
            fs::read(&path)
                .map(Bytes::from)
                .map_err(|e| Error::io(format!("could not read file \"{}\"", path.display()), e))
        })
        .await
    }

    async fn create_all(&self, files: Vec<NewFile>) -> Result<()> {
        blocking(move || create_all(&files)).await
    }

    /// Whatever the file is.
    async fn replace(&self, file: NewFile, _former: Former<'_>, attempt: &Uuid) -> Result<bool> {
        let path = local_path(&file.location)?;
        let attempt = *attempt;
        blocking(move || durable::replace(&path, &file.content, &attempt)).await?;
        Ok(true)
    }

    async fn remove(&self, location: &str) -> Result<()> {
        let path = local_path(location)?;
        blocking(move || durable::remove(&path)).await
    }
}

fn create_all(files: &[NewFile]) -> Result<()> {
    let mut created = Vec::with_capacity(files.len());
    let result = files.iter().try_for_each(|file| -> Result<()> {
        let path = local_path(&file.location)?;
        durable::write_new(&path, &file.content)?;
        crash_point(CrashPoint::MetadataSynced);
        created.push(path);
        Ok(())
    });
    let result = result.and_then(|()| sync_directories(&created));
    if result.is_err() {
        for path in &created {
            let _ = fs::remove_file(path);
        }
    }
    result
}

/// Syncs each directory once, whatever number of the files it holds.
fn sync_directories(paths: &[PathBuf]) -> Result<()> {
    let mut synced: Vec<&Path> = Vec::new();
    for path in paths {
        let Some(directory) = path.parent() else {
            continue;
        };
        if !synced.contains(&directory) {
            durable::sync_parent(path)?;
            synced.push(directory);
        }
    }
    Ok(())
}

/// The path of a location: `file:///a/b`, `file:/a/b` or `/a/b`.
pub fn local_path(location: &str) -> Result<PathBuf> {
    let path = location
        .strip_prefix("file://")
        .or_else(|| location.strip_prefix("file:"))
        .unwrap_or(location);
    if !path.starts_with('/') {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("\"{location}\" is not a local file location"),
        ));
    }
    Ok(PathBuf::from(path))
}

/// Runs what reads, writes or takes its time on a thread that may block.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|e| {
        Error::new(ErrorKind::Internal, "a blocking operation was abandoned").with_source(e)
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &Path, name: &str, content: &'static [u8]) -> NewFile {
        NewFile {
            location: format!("file://{}/{name}", directory.display()),
            content: Bytes::from_static(content),
        }
    }

    #[tokio::test]
    async fn a_failed_batch_leaves_nothing_and_touches_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let kept = file(directory.path(), "a/kept", b"old");
        LocalStore.create_all(vec![kept.clone()]).await.unwrap();
        let batch = vec![
            file(directory.path(), "a/new", b"1"),
            file(directory.path(), "a/kept", b"2"),
        ];
        let error = LocalStore.create_all(batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(!directory.path().join("a/new").exists());
        assert_eq!(
            LocalStore.read(&kept.location).await.unwrap().as_ref(),
            b"old"
        );
    }

    #[tokio::test]
    async fn replace_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        for content in [b"1", b"2"] {
            let hint = file(directory.path(), "hint", content);
            let seen = LocalStore.look(&hint.location).await.unwrap();
            let former = Former::from(seen.as_ref());
            let replaced = LocalStore.replace(hint, former, &Uuid::new_v4()).await;
            assert!(replaced.unwrap());
        }
        assert_eq!(fs::read(directory.path().join("hint")).unwrap(), b"2");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_schemes_are_refused() {
        assert_eq!(local_path("file:///a/b").unwrap(), PathBuf::from("/a/b"));
        assert_eq!(local_path("/a/b").unwrap(), PathBuf::from("/a/b"));
        assert!(local_path("s3://bucket/a").is_err());
        assert!(local_path("relative").is_err());
    }
}
