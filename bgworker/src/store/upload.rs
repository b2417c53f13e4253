//! Large objects: sent in parts, from a file or from another object.

use super::backend::Backend;
use super::failure::Failure;
use super::remote::Remote;
use super::tries::{Pace, Tries};
use crate::runtime::blocking;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::multipart::PartId;
use object_store::path::Path as ObjectPath;
use object_store::{CopyMode, CopyOptions, MultipartId};
use pg_lake_plan::message::{ErrorCode, Priority, WireError};
use pg_lake_plan::store::{BLOCK_BYTES, Checksums, Protocol};
use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A part's size; whole blocks, so that each has its own checksums. Stores take 5 MiB at least.
const PART_BYTES_MIN: u64 = 8 << 20;
const PART_BYTES_MAX: u64 = 64 << 20;

/// Parts get larger above that number.
const PARTS_FEW: u64 = 128;

/// No store takes more.
const PARTS_MAX: u64 = 10_000;

/// Parts in memory at the same time.
const PARTS_IN_FLIGHT: usize = 4;

/// A store copies that much by itself in far less than a timeout. S3 takes 5 GiB at most.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// Where the bytes come from.
trait Source: Sync {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, WireError>>;
}

impl Remote {
    /// Creates an object from a file of `size` bytes, and returns its checksums
    /// ([`pg_lake_plan::store::Checksums`]). A large one is sent in parts, of which at most 256 MiB
    /// are in memory; each part has `lake.store_timeout`.
    ///
    /// A file that is shorter is `DataCorrupted`, a name that is taken `NameTaken` (see [`Remote::put`]). After an
    /// error or a cancel the parts are removed. Those of a worker that dies, or that gets no answer when it
    /// begins, are left to a lifecycle rule of the bucket.
    pub async fn put_file(
        &self,
        location: &str,
        path: &Path,
        size: u64,
        cancel: &CancellationToken,
    ) -> Result<Vec<u32>, WireError> {
        let path = path.to_owned();
        let source = blocking("opening a file", move || {
            let file = File::open(&path).map_err(|error| file_error(&path, &error))?;
            Ok(FileSource(Arc::new((file, path))))
        })
        .await?;
        self.put_from(location, &source, size, cancel).await
    }

    /// Creates an object with the content of `from`, which has `size` bytes and is in the same or another
    /// store; as [`Remote::put_file`] otherwise.
    pub async fn copy_from(
        &self,
        source: &Remote,
        from: &str,
        to: &str,
        size: u64,
        cancel: &CancellationToken,
    ) -> Result<Vec<u32>, WireError> {
        let source = ObjectSource {
            remote: source,
            from,
        };
        self.put_from(to, &source, size, cancel).await
    }

    /// Creates an object with the content of another one of the same store, `size` bytes. The store does it
    /// by itself if it can; then the object may come to be there even after an error or a cancel. Errors are
    /// those of [`Remote::put_file`].
    pub async fn copy(
        &self,
        from: &str,
        to: &str,
        size: u64,
        cancel: &CancellationToken,
    ) -> Result<(), WireError> {
        // Azure says that it has begun, not that it is done.
        let by_itself = self.store().protocol != Protocol::Azure && size <= COPY_BYTES_MAX;
        if by_itself {
            let copied = cancel.run_until_cancelled(self.copy_within(from, to, size));
            if copied.await.ok_or_else(cancelled)?? {
                return Ok(());
            }
        }
        self.copy_from(self, from, to, size, cancel).await.map(drop)
    }

    /// Has the store copy; `false` if it can't.
    async fn copy_within(&self, from: &str, to: &str, size: u64) -> Result<bool, WireError> {
        let (source, target) = (self.path(from)?, self.path(to)?);
        if self.size(to).await?.is_some() {
            return Err(self.name_taken(to));
        }
        let copy = || {
            let options = CopyOptions::new().with_mode(CopyMode::Overwrite);
            self.backend().copy_opts(&source, &target, options)
        };
        match self
            .retried(Priority::Background, Pace::Sending, copy)
            .await
        {
            Ok(()) => {}
            Err(failure) if failure.is_of_unsupported() => return Ok(false),
            Err(failure) => return Err(self.error("copy object", from, &failure)),
        }
        match self.size(to).await? {
            Some(copied) if copied == size => Ok(true),
            copied => {
                self.delete(&[to.to_owned()]).await?;
                Err(other_size(from, copied.unwrap_or_default(), size))
            }
        }
    }

    async fn put_from(
        &self,
        location: &str,
        source: &impl Source,
        size: u64,
        cancel: &CancellationToken,
    ) -> Result<Vec<u32>, WireError> {
        let work = async {
            if size <= PART_BYTES_MIN {
                let content = source.read(0..size).await?;
                let checksums = checksums(&content);
                self.put(location, content).await?;
                return Ok(checksums);
            }
            self.put_parts(location, source, size).await
        };
        let done = cancel.run_until_cancelled(work).await;
        done.unwrap_or_else(|| Err(cancelled()))
    }

    async fn put_parts(
        &self,
        location: &str,
        source: &impl Source,
        size: u64,
    ) -> Result<Vec<u32>, WireError> {
        let path = self.path(location)?;
        let part_bytes = part_bytes(size).ok_or_else(|| too_large(location, size))?;
        // An upload in parts can't be made to fail for this.
        if self.size(location).await?.is_some() {
            return Err(self.name_taken(location));
        }
        let failed = |failure: Failure| self.error("write object", location, &failure);
        let begin = || self.backend().create_multipart(&path);
        let id = self
            .retried(Priority::Ahead, Pace::Quick, begin)
            .await
            .map_err(failed)?;
        let upload = Upload {
            backend: self.backend().clone(),
            path,
            id,
            timeout: self.timeout(),
            finished: false,
        };
        let ranges = (0..size.div_ceil(part_bytes)).map(|part| {
            let start = part * part_bytes;
            start..size.min(start + part_bytes)
        });
        let upload_ref = &upload;
        let sending = stream::iter(ranges.enumerate()).map(|(index, range)| {
            async move {
                let content = source.read(range).await?;
                let checksums = checksums(&content);
                let part = self.put_part(upload_ref, index, content).await;
                Ok::<_, WireError>((part.map_err(failed)?, checksums))
            }
            .boxed()
        });
        let sent: Vec<(PartId, Vec<u32>)> = sending.buffered(PARTS_IN_FLIGHT).try_collect().await?;
        let (parts, checksums): (Vec<PartId>, Vec<Vec<u32>>) = sent.into_iter().unzip();
        self.finish(location, upload, parts, size).await?;
        Ok(checksums.concat())
    }

    async fn put_part(
        &self,
        upload: &Upload,
        index: usize,
        content: Bytes,
    ) -> Result<PartId, Failure> {
        self.share(content.len() as u64, Priority::Ahead).await;
        let put = || {
            let payload = content.clone().into();
            let backend = self.backend();
            backend.put_part(&upload.path, &upload.id, index, payload)
        };
        self.retried(Priority::Ahead, Pace::Sending, put).await
    }

    /// Makes an object of the parts. Whatever the answer is, or if there is none, it may have been done:
    /// an object of that size under that name says so.
    async fn finish(
        &self,
        location: &str,
        mut upload: Upload,
        parts: Vec<PartId>,
        size: u64,
    ) -> Result<(), WireError> {
        let mut tries = Tries::new(self, Priority::Ahead);
        loop {
            let finish = self
                .backend()
                .complete_multipart(&upload.path, &upload.id, parts.clone());
            let failure = match tries.attempt(Pace::Sending, finish).await {
                ControlFlow::Continue(()) => continue,
                ControlFlow::Break(Ok(_)) => break,
                ControlFlow::Break(Err(failure)) => failure,
            };
            match timeout(tries.left_to_look(), self.size(location)).await {
                Ok(Ok(Some(found))) if found == size => break,
                _ => return Err(self.error("write object", location, &failure)),
            }
        }
        upload.finished = true;
        Ok(())
    }
}

/// Parts that are no object yet. Dropping this removes them, unless they have become one.
struct Upload {
    backend: Arc<dyn Backend>,
    path: ObjectPath,
    id: MultipartId,
    timeout: Duration,
    finished: bool,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let backend = self.backend.clone();
        let (path, id) = (self.path.clone(), self.id.clone());
        let limit = self.timeout;
        runtime.spawn(async move {
            let aborted = timeout(limit, backend.abort_multipart(&path, &id)).await;
            if !matches!(aborted, Ok(Ok(()))) {
                tracing::info!(target: "pg_lake", "parts of object \"{path}\" are left in the store");
            }
        });
    }
}

struct FileSource(Arc<(File, std::path::PathBuf)>);

impl Source for FileSource {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, WireError>> {
        let shared = self.0.clone();
        blocking("reading a file", move || {
            let (file, path) = &*shared;
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let mut content = vec![0; length];
            file.read_exact_at(&mut content, range.start)
                .map_err(|error| file_error(path, &error))?;
            Ok(content.into())
        })
        .boxed()
    }
}

struct ObjectSource<'a> {
    remote: &'a Remote,
    from: &'a str,
}

impl Source for ObjectSource<'_> {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, WireError>> {
        self.remote
            .get(self.from, range, Priority::Background)
            .boxed()
    }
}

/// `None` if there would be too many parts.
fn part_bytes(size: u64) -> Option<u64> {
    let wanted = size.div_ceil(PARTS_FEW).next_multiple_of(BLOCK_BYTES);
    let bytes = wanted.clamp(PART_BYTES_MIN, PART_BYTES_MAX);
    (size.div_ceil(bytes) <= PARTS_MAX).then_some(bytes)
}

fn checksums(content: &[u8]) -> Vec<u32> {
    let mut sums = Checksums::default();
    sums.update(content);
    sums.finish()
}

fn file_error(path: &Path, error: &io::Error) -> WireError {
    let code = match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::MissingFile,
        io::ErrorKind::UnexpectedEof => ErrorCode::DataCorrupted,
        _ => ErrorCode::Io,
    };
    WireError::new(
        code,
        format!("could not read file \"{}\": {error}", path.display()),
    )
}

fn other_size(location: &str, found: u64, expected: u64) -> WireError {
    WireError::new(
        ErrorCode::DataCorrupted,
        format!("object \"{location}\" has {found} bytes instead of {expected}"),
    )
}

fn too_large(location: &str, size: u64) -> WireError {
    WireError::new(
        ErrorCode::Unsupported,
        format!("{size} bytes are too much for object \"{location}\""),
    )
    .hint("Lower lake.target_file_size.")
}

fn cancelled() -> WireError {
    WireError::new(ErrorCode::Cancelled, "the upload was cancelled")
}
