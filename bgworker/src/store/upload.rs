//! Large objects: sent in parts, from a file or from another object.

use super::backend::Backend;
use super::digest::{Content, Md5, Verdict, joined};
use super::failure::{Failure, Problem, is_missing};
use super::http::{Answer, with_digest};
use super::remote::Remote;
use super::tries::{Pace, Tries};
use super::unfinished::OnRecord;
use crate::runtime::blocking;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::multipart::PartId;
use object_store::path::Path as ObjectPath;
use object_store::{CopyMode, CopyOptions, MultipartId};
use pg_lake_plan::message::{ErrorCode, Priority, WireError};
use pg_lake_plan::store::{BLOCK_BYTES, Protocol, Store, checksum};
use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};
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

/// Times that a part is sent whose entity tag is not that of its content; the second number counts if tags of this store
/// were digests until now.
const SENT_MAX: (u32, u32) = (2, 3);

/// Blocks that are read back at a time.
const BLOCKS_READ_BACK: usize = 8;

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
    /// error or a cancel the parts are removed; those of a worker that dies are by its next process.
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
    ///
    /// What is in the same bucket the store copies by itself if it can. Then there are no checksums, as nobody has seen the
    /// bytes, and the object may come to be there even after an error or a cancel.
    pub async fn copy_from(
        &self,
        source: &Remote,
        from: &str,
        to: &str,
        size: u64,
        cancel: &CancellationToken,
    ) -> Result<Option<Vec<u32>>, WireError> {
        if self.can_copy_from(source) && size <= COPY_BYTES_MAX {
            let copied = cancel.run_until_cancelled(self.copy_within(source, from, to, size));
            if copied.await.ok_or_else(cancelled)?? {
                return Ok(None);
            }
        }
        let source = ObjectSource {
            remote: source,
            from,
        };
        self.put_from(to, &source, size, cancel).await.map(Some)
    }

    /// Whether the other one's objects are in the same bucket, for the same credential.
    fn can_copy_from(&self, other: &Remote) -> bool {
        let own = self.store();
        let same_place = Store {
            prefix: own.prefix.clone(),
            conditional_put: own.conditional_put,
            ..other.store().clone()
        };
        // Azure says that it has begun, not that it is done.
        same_place == *own && own.protocol != Protocol::Azure
    }

    /// Has the store copy; `false` if it can't, or not rightly.
    async fn copy_within(
        &self,
        source: &Remote,
        from: &str,
        to: &str,
        size: u64,
    ) -> Result<bool, WireError> {
        let (original, target) = (source.path(from)?, self.path(to)?);
        if self.size(to).await?.is_some() {
            return Err(self.name_taken(to));
        }
        let copy = || {
            let options = CopyOptions::new().with_mode(CopyMode::Overwrite);
            self.backend().copy_opts(&original, &target, options)
        };
        match self
            .retried(Priority::Background, Pace::Sending, copy)
            .await
        {
            Ok(()) => {}
            Err(failure) if failure.is_transient() => {
                return Err(self.error("copy object", from, &failure));
            }
            // Whatever it has against it, reading and writing may go.
            Err(_) => return Ok(false),
        }
        if self.size(to).await? == Some(size) {
            return Ok(true);
        }
        self.delete(&[to.to_owned()]).await?;
        match source.size(from).await? {
            Some(found) if found != size => Err(other_size(from, found, size)),
            _ => Ok(false),
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
                let (content, checksums) = summed(source.read(0..size).await?).await?;
                self.put_content(location, content).await?;
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
        let mut upload = Upload {
            backend: self.backend().clone(),
            path,
            id,
            timeout: self.timeout(),
            on_record: None,
            finished: false,
        };
        upload.on_record = self.put_on_record(location, &upload.id).await;
        let ranges = (0..size.div_ceil(part_bytes)).map(|part| {
            let start = part * part_bytes;
            start..size.min(start + part_bytes)
        });
        // Entity tags of parts may be no digests.
        let doubt = AtomicBool::new(false);
        let (upload_ref, doubt_ref) = (&upload, &doubt);
        let sending = stream::iter(ranges.enumerate()).map(|(index, range)| {
            async move {
                let (content, checksums) = summed(source.read(range).await?).await?;
                let part = self.put_part(upload_ref, index, &content, doubt_ref).await;
                Ok::<_, WireError>((part.map_err(failed)?, content.md5, checksums))
            }
            .boxed()
        });
        let sent: Vec<(PartId, Md5, Vec<u32>)> =
            sending.buffered(PARTS_IN_FLIGHT).try_collect().await?;
        let digests: Vec<Md5> = sent.iter().map(|(_, md5, _)| *md5).collect();
        let (parts, checksums): (Vec<PartId>, Vec<Vec<u32>>) = sent
            .into_iter()
            .map(|(part, _, checksums)| (part, checksums))
            .unzip();
        let checksums = checksums.concat();
        let e_tag = self.finish(location, upload, parts, size).await?;
        let whole = Whole {
            size,
            checksums: &checksums,
            e_tag,
            expected: joined(&digests),
            doubt: doubt.into_inner(),
        };
        self.check_whole(location, &whole).await?;
        Ok(checksums)
    }

    /// As far as that can be done: what isn't on record is left to the bucket's own rules, if this process dies.
    async fn put_on_record(&self, location: &str, id: &MultipartId) -> Option<OnRecord> {
        // Azure drops the parts by itself.
        let records = self
            .unfinished()
            .filter(|_| self.store().protocol != Protocol::Azure)?;
        match records.record(self.store(), location, id).await {
            Ok(on_record) => Some(on_record),
            Err(error) => {
                let detail = error.detail.unwrap_or_default();
                tracing::warn!(target: "pg_lake", "{}: {detail}", error.message);
                None
            }
        }
    }

    /// Removes the parts of an upload. One that has come to its end is no error.
    pub(super) async fn abort(&self, location: &str, id: &MultipartId) -> Result<(), WireError> {
        let path = self.path(location)?;
        let abort = || self.backend().abort_multipart(&path, id);
        match self.retried(Priority::Background, Pace::Quick, abort).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_of_missing() => Ok(()),
            Err(failure) => Err(self.error("remove parts of object", location, &failure)),
        }
    }

    async fn put_part(
        &self,
        upload: &Upload,
        index: usize,
        content: &Content,
        doubt: &AtomicBool,
    ) -> Result<PartId, Failure> {
        self.share(content.bytes.len() as u64, Priority::Ahead)
            .await;
        let mut tries = Tries::new(self, Priority::Ahead);
        let mut differing = Differing::default();
        loop {
            let put = self.put_part_with(upload, index, content, doubt, &mut differing);
            let failure = match tries.attempt(Pace::Sending, put).await {
                ControlFlow::Continue(()) => continue,
                ControlFlow::Break(Ok(part)) => return Ok(part),
                ControlFlow::Break(Err(failure)) => failure,
            };
            // There was no time to find out more.
            let part = differing.last.ok_or(failure)?;
            doubt.store(true, Ordering::Relaxed);
            return Ok(part);
        }
    }

    /// Makes one attempt to send a part, which succeeds if the store has what was sent. What has another entity tag is
    /// sent again; if that makes no difference, `doubt` is left to whoever looks at the whole object.
    async fn put_part_with(
        &self,
        upload: &Upload,
        index: usize,
        content: &Content,
        doubt: &AtomicBool,
        differing: &mut Differing,
    ) -> object_store::Result<PartId> {
        let payload = content.bytes.clone().into();
        let backend = self.backend();
        let put = backend.put_part(&upload.path, &upload.id, index, payload);
        let part = with_digest(content.md5, put).await?;
        // Those of Azure are names that object_store has made up.
        let is_e_tag = self.store().protocol != Protocol::Azure;
        let e_tag = is_e_tag.then_some(part.content_id.as_str());
        let verdict = self.e_tags().judge(e_tag, &content.md5.to_string());
        if verdict != Verdict::Doubtful {
            return Ok(part);
        }
        differing.times += 1;
        let (few, many) = SENT_MAX;
        let times_max = if self.e_tags().are_digests() {
            many
        } else {
            few
        };
        if differing.times < times_max && !doubt.load(Ordering::Relaxed) {
            differing.last = Some(part);
            return Err(Problem::Altered.into());
        }
        doubt.store(true, Ordering::Relaxed);
        Ok(part)
    }

    /// Makes an object of the parts. Whatever the answer is, or if there is none, it may have been done:
    /// an object of that size under that name says so. Returns its entity tag, if the answer has one.
    async fn finish(
        &self,
        location: &str,
        mut upload: Upload,
        parts: Vec<PartId>,
        size: u64,
    ) -> Result<Option<String>, WireError> {
        let mut tries = Tries::new(self, Priority::Ahead);
        let e_tag = loop {
            let finish = self
                .backend()
                .complete_multipart(&upload.path, &upload.id, parts.clone());
            let failure = match tries.attempt(Pace::Sending, finish).await {
                ControlFlow::Continue(()) => continue,
                ControlFlow::Break(Ok(object)) => break object.e_tag,
                ControlFlow::Break(Err(failure)) => failure,
            };
            match timeout(tries.left_to_look(), self.size(location)).await {
                Ok(Ok(Some(found))) if found == size => break None,
                _ => return Err(self.error("write object", location, &failure)),
            }
        };
        upload.finished = true;
        Ok(e_tag)
    }

    /// Looks whether the object that was made of parts is what was sent. All of it is read back only if there is
    /// doubt.
    async fn check_whole(&self, location: &str, whole: &Whole<'_>) -> Result<(), WireError> {
        let e_tags = self.joined_e_tags();
        let verdict = e_tags.judge(whole.e_tag.as_deref(), &whole.expected);
        if verdict == Verdict::Right {
            return Ok(());
        }
        let mut is_right = self.size(location).await? == Some(whole.size);
        if is_right && (whole.doubt || verdict == Verdict::Doubtful) {
            // What comes back may be damaged, too.
            is_right =
                self.has_blocks(location, whole).await? || self.has_blocks(location, whole).await?;
            if is_right && whole.doubt {
                self.e_tags().found_opaque();
            }
            if is_right && verdict == Verdict::Doubtful {
                e_tags.found_opaque();
            }
        }
        if is_right {
            return Ok(());
        }
        let altered = Failure::new(Problem::Altered.into(), Answer::default());
        Err(self.error("write object", location, &altered))
    }

    /// Whether the blocks of an object have their checksums.
    async fn has_blocks(&self, location: &str, whole: &Whole<'_>) -> Result<bool, WireError> {
        let mut start = 0;
        for expected in whole.checksums.chunks(BLOCKS_READ_BACK) {
            let end = whole.size.min(start + expected.len() as u64 * BLOCK_BYTES);
            let content = self.get(location, start..end, Priority::Ahead).await?;
            let found = content.chunks(BLOCK_BYTES as usize).map(checksum);
            if !found.eq(expected.iter().copied()) {
                return Ok(false);
            }
            start = end;
        }
        Ok(true)
    }
}

/// An object that was made of parts.
struct Whole<'a> {
    size: u64,
    checksums: &'a [u32],
    e_tag: Option<String>,
    /// The entity tag that it has where tags are digests.
    expected: String,
    /// Nothing but the object itself tells whether its parts are what was sent.
    doubt: bool,
}

/// A part that has got another entity tag than that of its content, each time that it was sent.
#[derive(Default)]
struct Differing {
    times: u32,
    last: Option<PartId>,
}

/// Parts that are no object yet. Dropping this removes them, unless they have become one.
struct Upload {
    backend: Arc<dyn Backend>,
    path: ObjectPath,
    id: MultipartId,
    timeout: Duration,
    on_record: Option<OnRecord>,
    finished: bool,
}

impl Drop for Upload {
    fn drop(&mut self) {
        let on_record = self.on_record.take();
        if self.finished {
            on_record.into_iter().for_each(OnRecord::forget);
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let backend = self.backend.clone();
        let (path, id) = (self.path.clone(), self.id.clone());
        let limit = self.timeout;
        runtime.spawn(async move {
            let abort = || async {
                match timeout(limit, backend.abort_multipart(&path, &id)).await {
                    Ok(Ok(())) => true,
                    Ok(Err(error)) => is_missing(&error),
                    Err(_) => false,
                }
            };
            abort().await;
            // A part that is under way may arrive after that. What is on record is aborted again.
            if on_record.is_none() {
                sleep(limit).await;
                if !abort().await {
                    tracing::info!(target: "pg_lake", "parts of object \"{path}\" are left in the store");
                }
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

/// The content and the checksums of its blocks.
async fn summed(bytes: Bytes) -> Result<(Content, Vec<u32>), WireError> {
    blocking("computing checksums", move || {
        Ok(Content::with_checksums(bytes))
    })
    .await
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
