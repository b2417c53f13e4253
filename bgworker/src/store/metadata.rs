//! Iceberg metadata files and delete files in a store.

use super::remote::{Created, NotCreated, Remote};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use object_store::{PutMode, UpdateVersion};
use pg_lake_crash::{CrashPoint, crash_point};
use pg_lake_iceberg::{Error, ErrorKind, Former, MetadataStore, NewFile, Result, Seen};
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::store::Protocol;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Files that are written at the same time.
const IN_FLIGHT: usize = 8;

/// A store as `iceberg-io` sees it.
#[derive(Clone, Debug)]
pub struct RemoteMetadata(pub Arc<Remote>);

#[async_trait]
impl MetadataStore for RemoteMetadata {
    async fn read(&self, location: &str) -> Result<Bytes> {
        self.0.get_all(location).await.map_err(to_iceberg)
    }

    /// `lake.store_timeout`
    fn patience(&self, _location: &str) -> Duration {
        self.0.timeout()
    }

    async fn look(&self, location: &str) -> Result<Option<Seen>> {
        let found = self.0.look(location).await.map_err(to_iceberg)?;
        Ok(
            found.map(|(content, UpdateVersion { e_tag, version })| Seen {
                content,
                e_tag,
                version,
            }),
        )
    }

    /// The last file, which refers to the others, is written once these are there.
    async fn create_all(&self, mut files: Vec<NewFile>) -> Result<()> {
        let last = files.pop();
        let mut written = vec![];
        let mut result = self.create_some(files, &mut written).await;
        if result.is_ok() {
            let last = last.into_iter().collect();
            result = self.create_some(last, &mut written).await;
        }
        if result.is_err() {
            // Those that can't be removed are found by the sweep.
            let _ = self.0.delete(&written).await;
        }
        result
    }

    async fn replace(&self, file: NewFile, former: Former<'_>, _attempt: &Uuid) -> Result<bool> {
        let mode = self.condition(former);
        let replaced = self.0.replace_if(&file.location, file.content, mode).await;
        replaced.map_err(to_iceberg)
    }

    async fn remove(&self, location: &str) -> Result<()> {
        let removed = self.0.delete(&[location.to_owned()]).await;
        removed.map(drop).map_err(to_iceberg)
    }
}

impl RemoteMetadata {
    /// What the store is to look at when it replaces an object.
    fn condition(&self, former: Former<'_>) -> PutMode {
        let store = self.0.store();
        match former {
            Former::Missing if store.conditional_put => PutMode::Create,
            Former::Seen(seen) if store.conditional_put => {
                let is_strong = |tag: &String| !tag.starts_with("W/");
                let can_tell = match store.protocol {
                    Protocol::Gcs => seen.version.is_some(),
                    Protocol::S3 | Protocol::Azure => seen.e_tag.as_ref().is_some_and(is_strong),
                };
                if !can_tell {
                    return PutMode::Overwrite;
                }
                PutMode::Update(UpdateVersion {
                    e_tag: seen.e_tag.clone(),
                    version: seen.version.clone(),
                })
            }
            _ => PutMode::Overwrite,
        }
    }

    /// Adds to `written` whatever may be there now. Does not stop at an error: what is under way then
    /// could come to be there later.
    async fn create_some(&self, files: Vec<NewFile>, written: &mut Vec<String>) -> Result<()> {
        let creating = stream::iter(files.into_iter().map(|file| async move {
            let created = self.0.create(&file.location, file.content.into()).await;
            crash_point(CrashPoint::MetadataSynced);
            (file.location, created)
        }));
        let mut creating = creating.buffer_unordered(IN_FLIGHT);
        let mut result = Ok(());
        while let Some((location, created)) = creating.next().await {
            match created {
                Ok(Created::Done) => written.push(location),
                Ok(Created::NameTaken) => {
                    let error = self.0.name_taken(&location);
                    let kind = ErrorKind::AlreadyExists;
                    result = Err(Error::new(kind, error.message.clone()).with_source(error));
                }
                Err(error) => {
                    let may_be_ours = matches!(error, NotCreated::Unclear(_));
                    let error = self.0.not_created(&location, error);
                    result = Err(to_iceberg(error));
                    written.extend(may_be_ours.then_some(location));
                }
            }
        }
        result
    }
}

/// Keeps the error as the source, for [`wire_error`].
pub fn to_iceberg(error: WireError) -> Error {
    let kind = match error.code {
        ErrorCode::MissingFile => ErrorKind::NotFound,
        ErrorCode::DataCorrupted => ErrorKind::Corrupt,
        ErrorCode::Unsupported => ErrorKind::Unsupported,
        ErrorCode::Internal => ErrorKind::Internal,
        _ => ErrorKind::Io,
    };
    // A store may be reached later, or grant later what it refuses now; there may be memory.
    let retryable = kind == ErrorKind::Io;
    Error::new(kind, error.message.clone())
        .with_source(error)
        .with_retryable(retryable)
}

/// The error of a store among the causes, with its code, detail and hint.
pub fn wire_error(error: &Error) -> Option<&WireError> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<WireError>() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::{self, Fault, Faulty, Op};
    use pg_lake_plan::store::Store;

    fn file(name: &str, content: &'static [u8]) -> NewFile {
        NewFile {
            location: format!("s3://lake/t/metadata/{name}"),
            content: Bytes::from_static(content),
        }
    }

    fn metadata(faulty: &Arc<Faulty>) -> RemoteMetadata {
        let remote = faulty.remote(faulty::store(), &faulty::settings());
        RemoteMetadata(Arc::new(remote))
    }

    async fn listed(metadata: &RemoteMetadata) -> Vec<String> {
        let listed = metadata.0.list("s3://lake/t").await.expect("a list");
        let names = listed
            .iter()
            .filter_map(|(location, _)| location.rsplit('/').next());
        names.map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn files_are_created_and_replaced() {
        let faulty = Arc::new(Faulty::default());
        let metadata = metadata(&faulty);
        let files = vec![file("1", b"one"), file("2", b"two"), file("3", b"three")];
        faulty.fail(Op::Put, &[Fault::LostReply, Fault::Reset]);
        metadata.create_all(files).await.expect("created");
        assert_eq!(listed(&metadata).await, ["1", "2", "3"]);
        let hint = file("2", b"zwei");
        let attempt = Uuid::new_v4();
        let replaced = metadata
            .replace(hint.clone(), Former::Anything, &attempt)
            .await;
        assert!(replaced.expect("replaced"));
        let content = metadata.read(&hint.location).await.expect("read");
        assert_eq!(content, hint.content);
        metadata.create_all(vec![]).await.expect("nothing to do");
    }

    #[tokio::test]
    async fn a_write_that_comes_late_finds_another_hint() {
        let attempt = Uuid::new_v4();
        for conditional_put in [true, false] {
            let faulty = Arc::new(Faulty::default());
            let store = Store {
                conditional_put,
                ..faulty::store()
            };
            let metadata = RemoteMetadata(Arc::new(faulty.remote(store, &faulty::settings())));
            let first = file("hint", b"1");
            let write = async |content: &'static [u8], seen: Option<&Seen>| {
                let file = file("hint", content);
                let replaced = metadata.replace(file, seen.into(), &attempt).await;
                replaced.expect("an answer")
            };
            let look = || metadata.look(&first.location);
            assert!(look().await.expect("looked").is_none());
            assert!(write(b"1", None).await);
            let seen = look().await.expect("looked").expect("a hint");
            assert_eq!(seen.content, first.content);
            // The answer to the first attempt is lost.
            faulty.fail(Op::Put, &[Fault::LostReply]);
            assert!(write(b"2", Some(&seen)).await);
            assert_eq!(write(b"late", Some(&seen)).await, !conditional_put);
            assert_eq!(write(b"late", None).await, !conditional_put);
            let now = look().await.expect("looked").expect("a hint");
            assert_eq!(now.content == "2", conditional_put);
            // A store that can't do it is asked for less.
            faulty.fail(Op::Put, &[Fault::Unsupported]);
            let asked = write(b"3", Some(&now));
            assert!(!conditional_put || asked.await);
        }
    }

    #[tokio::test]
    async fn a_failed_batch_leaves_what_was_there() {
        let faulty = Arc::new(Faulty::default());
        let metadata = metadata(&faulty);
        metadata
            .create_all(vec![file("2", b"old")])
            .await
            .expect("created");
        let batch = vec![file("1", b"one"), file("2", b"new"), file("3", b"last")];
        let error = metadata.create_all(batch).await.expect_err("a taken name");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(wire_error(&error).is_some_and(|wire| wire.hint.is_some()));
        assert_eq!(listed(&metadata).await, ["2"]);
        let content = metadata.read(&file("2", b"").location).await;
        assert_eq!(content.expect("read"), Bytes::from_static(b"old"));
    }

    #[tokio::test]
    async fn the_last_file_is_not_begun_before_the_others_are_there() {
        let faulty = Arc::new(Faulty::default());
        let metadata = metadata(&faulty);
        faulty.fail(Op::Put, &[Fault::Denied]);
        let batch = vec![file("1", b"one"), file("2", b"two"), file("3", b"last")];
        let error = metadata.create_all(batch).await.expect_err("denied");
        assert_eq!(error.kind(), ErrorKind::Io);
        let wire = wire_error(&error).expect("the store's error");
        assert_eq!(wire.code, ErrorCode::StoreDenied);
        assert_eq!(faulty.seen(Op::Put), 2);
        assert_eq!(listed(&metadata).await, [""; 0]);
        let missing = metadata
            .read("s3://lake/t/missing")
            .await
            .expect_err("missing");
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(error.retryable() && !missing.retryable());
        let patience = metadata.patience("s3://lake/t/missing");
        assert_eq!(patience, faulty::settings().timeout);
    }
}
