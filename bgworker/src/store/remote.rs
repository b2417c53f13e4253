//! The objects of one store.
//!
//! Each operation is tried again until it has taken `lake.store_timeout`, or a quarter more if it
//! has to look what came of it, and may be dropped at any time. Names are never used again, so that
//! an object is what was written under its name, or missing; only [`Remote::replace`] is for others.
//! That a store has acknowledged an object is not enough: what it says of the digest has to be right,
//! or the object is read back.

use super::backend::Backend;
use super::bandwidth::Bandwidth;
use super::credentials::Secret;
use super::digest::{Content, ETags, Md5, Verdict};
use super::failure::{Failure, Problem, is_missing, store_error};
use super::http::{Answer, with_digest};
use super::places::{Place, Places};
use super::registry::Settings;
use super::tries::{Pace, Tries};
use super::unfinished::Unfinished;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, PutMode, UpdateVersion};
use pg_lake_plan::message::{ErrorCode, Priority, WireError};
use pg_lake_plan::store::Store;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A request with a body of at most that many bytes is a quick one.
const QUICK_BYTES: usize = 1 << 20;

/// So often a whole object is received until its digest is right, or it is the same twice.
const READS_MAX: u32 = 5;

/// A store and what its requests may take.
///
/// Locations are URLs below [`Store::root`]; others are an `Internal` error. All operations report
/// `StoreUnavailable` if the store doesn't do it in time, `StoreDenied` if it may not be done, and
/// `InvalidConfiguration` if there is no such bucket. No error holds a secret.
pub struct Remote {
    store: Store,
    backend: Arc<dyn Backend>,
    /// Of objects, and of parts.
    e_tags: ETags,
    /// Of objects that came in parts.
    joined_e_tags: ETags,
    timeout: Duration,
    places: Places,
    bandwidth: Option<Bandwidth>,
    secrets: Vec<Secret>,
    unfinished: Option<Arc<Unfinished>>,
}

impl fmt::Debug for Remote {
    /// Not the client, which may show its credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.store.root()).finish()
    }
}

/// What came of creating an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// It is there, with the content that it was to have.
    Done,
    /// Another one has its name.
    NameTaken,
}

/// What is under a name.
enum Found {
    Nothing,
    Same,
    Other,
}

impl Remote {
    pub(super) fn new(
        store: Store,
        backend: Arc<dyn Backend>,
        settings: &Settings,
        secrets: Vec<Secret>,
    ) -> Remote {
        Remote {
            store,
            backend,
            e_tags: ETags::default(),
            joined_e_tags: ETags::default(),
            timeout: settings.timeout,
            places: Places::new(settings.connections),
            bandwidth: settings.bandwidth.map(Bandwidth::new),
            secrets,
            unfinished: None,
        }
    }

    /// Puts uploads in parts on record.
    pub(super) fn recording(self, unfinished: Option<Arc<Unfinished>>) -> Remote {
        Remote { unfinished, ..self }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The bytes of `range`, all of them. An object that ends before is `DataCorrupted`.
    pub async fn get(
        &self,
        location: &str,
        range: Range<u64>,
        priority: Priority,
    ) -> Result<Bytes, WireError> {
        let path = self.path(location)?;
        let length = range.end.saturating_sub(range.start);
        self.share(length, priority).await;
        let mut received = vec![];
        let mut tries = Tries::new(self, priority);
        loop {
            let attempt = self.receive(&path, &range, &mut received);
            if let ControlFlow::Break(result) = tries.attempt(Pace::Watched, attempt).await {
                return match result {
                    Ok(()) => Ok(received.into()),
                    Err(failure) => Err(self.error("read object", location, &failure)),
                };
            }
        }
    }

    /// All of an object: for small ones.
    pub async fn get_all(&self, location: &str) -> Result<Bytes, WireError> {
        let path = self.path(location)?;
        match self.get_whole(&path).await {
            Ok((content, _)) => Ok(content),
            Err(failure) => Err(self.error("read object", location, &failure)),
        }
    }

    /// An object that changes, with what tells it from later ones; `None` if it is missing.
    pub(super) async fn look(
        &self,
        location: &str,
    ) -> Result<Option<(Bytes, UpdateVersion)>, WireError> {
        let path = self.path(location)?;
        match self.get_whole(&path).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is_of_missing() => Ok(None),
            Err(failure) => Err(self.error("read object", location, &failure)),
        }
    }

    /// Where entity tags are digests, what was damaged on its way is received once more.
    async fn get_whole(&self, path: &Path) -> Result<(Bytes, UpdateVersion), Failure> {
        let receive = || self.receive_all(path);
        let mut doubtful = None;
        for _ in 0..READS_MAX {
            let (content, version) = self
                .retried(Priority::Interactive, Pace::Watched, receive)
                .await?;
            if let Some(bandwidth) = &self.bandwidth {
                bandwidth.charge(content.len() as u64);
            }
            let md5 = Md5::of(&content);
            let verdict = self
                .e_tags
                .judge(version.e_tag.as_deref(), &md5.to_string());
            if verdict != Verdict::Doubtful {
                return Ok((content.into(), version));
            }
            if doubtful == Some(md5) {
                self.e_tags.found_opaque();
                return Ok((content.into(), version));
            }
            doubtful = Some(md5);
        }
        Err(Failure::new(Problem::Damaged.into(), Answer::default()))
    }

    /// An object's size in bytes; `None` if it is missing.
    pub async fn size(&self, location: &str) -> Result<Option<u64>, WireError> {
        let path = self.path(location)?;
        let head = || async {
            let options = GetOptions {
                head: true,
                ..GetOptions::default()
            };
            let result = self.backend.get_opts(&path, options).await?;
            Ok(result.meta.size)
        };
        match self.retried(Priority::Interactive, Pace::Quick, head).await {
            Ok(size) => Ok(Some(size)),
            Err(failure) if failure.is_of_missing() => Ok(None),
            Err(failure) => Err(self.error("look for object", location, &failure)),
        }
    }

    /// Creates an object. That there is one with another content is `NameTaken` if the store has
    /// conditional writes, and goes unnoticed otherwise.
    pub async fn put(&self, location: &str, content: Bytes) -> Result<(), WireError> {
        self.put_content(location, content.into()).await
    }

    pub(super) async fn put_content(
        &self,
        location: &str,
        content: Content,
    ) -> Result<(), WireError> {
        match self.create(location, content).await {
            Ok(Created::Done) => Ok(()),
            Ok(Created::NameTaken) => Err(self.name_taken(location)),
            Err(error) => Err(self.not_created(location, error)),
        }
    }

    /// Creates an object or replaces it, atomically.
    pub async fn replace(&self, location: &str, content: Bytes) -> Result<(), WireError> {
        let path = self.path(location)?;
        let content = Content::from(content);
        self.share(content.bytes.len() as u64, Priority::Interactive)
            .await;
        self.write(&path, &content, PutMode::Overwrite)
            .await
            .map_err(|failure| self.error("write object", location, &failure))
    }

    /// The same if the store finds the object to be what it has to be, or can't tell; `false`: it isn't.
    pub(super) async fn replace_if(
        &self,
        location: &str,
        content: Bytes,
        mode: PutMode,
    ) -> Result<bool, WireError> {
        let path = self.path(location)?;
        let conditional = mode != PutMode::Overwrite;
        let content = Content::from(content);
        self.share(content.bytes.len() as u64, Priority::Interactive)
            .await;
        match self.write(&path, &content, mode).await {
            Ok(()) => Ok(true),
            // It may be ours: the answer to an attempt that succeeded can get lost.
            Err(failure)
                if conditional && (failure.is_of_existing() || failure.is_of_missing()) =>
            {
                let found = self.compare(location, &content.bytes).await?;
                Ok(matches!(found, Found::Same))
            }
            Err(failure) if conditional && failure.is_of_unsupported() => {
                self.replace(location, content.bytes).await.map(|()| true)
            }
            Err(failure) => Err(self.error("write object", location, &failure)),
        }
    }

    /// Writes an object until the store has what was sent, or refuses.
    async fn write(
        &self,
        path: &Path,
        content: &Content,
        mut mode: PutMode,
    ) -> Result<(), Failure> {
        let mut tries = Tries::new(self, Priority::Interactive);
        loop {
            let put = self.put_with(path, content, &mut mode);
            if let ControlFlow::Break(result) = tries.attempt(pace(content), put).await {
                return result;
            }
        }
    }

    /// As [`Remote::put`], but tells what may be there now.
    pub(super) async fn create(
        &self,
        location: &str,
        content: Content,
    ) -> Result<Created, NotCreated> {
        let mode = if self.store.conditional_put {
            PutMode::Create
        } else {
            PutMode::Overwrite
        };
        self.create_with(location, content, mode).await
    }

    pub(super) fn not_created(&self, location: &str, error: NotCreated) -> WireError {
        match error {
            NotCreated::Unclear(failure) => self.error("write object", location, &failure),
            NotCreated::NotOurs(error) => error,
        }
    }

    pub(super) async fn create_with(
        &self,
        location: &str,
        content: Content,
        mut mode: PutMode,
    ) -> Result<Created, NotCreated> {
        let path = self.path(location)?;
        self.share(content.bytes.len() as u64, Priority::Interactive)
            .await;
        let mut tries = Tries::new(self, Priority::Interactive);
        loop {
            let put = self.put_with(&path, &content, &mut mode);
            let failure = match tries.attempt(pace(&content), put).await {
                ControlFlow::Continue(()) => continue,
                ControlFlow::Break(Ok(())) => return Ok(Created::Done),
                ControlFlow::Break(Err(failure)) if failure.is_of_existing() => failure,
                ControlFlow::Break(Err(failure)) => return Err(failure.into()),
            };
            // It may be ours: the answer to an attempt that succeeded can get lost.
            let limit = tries.left_to_look();
            let Ok(found) = timeout(limit, self.compare(location, &content.bytes)).await else {
                let late = Failure::late(limit, Answer::default());
                let error = self.error("look for object", location, &late);
                return Err(NotCreated::NotOurs(error));
            };
            match found? {
                Found::Same => return Ok(Created::Done),
                Found::Other => return Ok(Created::NameTaken),
                // S3 says "conflict" if two requests for a name cross.
                Found::Nothing => {
                    if let ControlFlow::Break(failure) = tries.pause(failure).await {
                        return Err(failure.into());
                    }
                }
            }
        }
    }

    async fn compare(&self, location: &str, content: &Bytes) -> Result<Found, WireError> {
        let length = content.len() as u64;
        match self.size(location).await? {
            None => return Ok(Found::Nothing),
            Some(size) if size != length => return Ok(Found::Other),
            Some(_) => {}
        }
        let found = self.get(location, 0..length, Priority::Interactive).await?;
        Ok(if found == content {
            Found::Same
        } else {
            Found::Other
        })
    }

    /// Makes one attempt to write an object, which succeeds if the store has what was sent. What it has instead is
    /// ours: from then on, `mode` is to overwrite.
    async fn put_with(
        &self,
        path: &Path,
        content: &Content,
        mode: &mut PutMode,
    ) -> object_store::Result<()> {
        let payload = content.bytes.clone().into();
        let put = self.backend.put_opts(path, payload, mode.clone().into());
        let put = with_digest(content.md5, put).await?;
        let expected = content.md5.to_string();
        if self.e_tags.judge(put.e_tag.as_deref(), &expected) != Verdict::Doubtful {
            return Ok(());
        }
        *mode = PutMode::Overwrite;
        match self.receive_all(path).await {
            Ok((found, _)) if found == content.bytes => {
                self.e_tags.found_opaque();
                Ok(())
            }
            Err(error) if !is_missing(&error) => Err(error),
            _ => Err(Problem::Altered.into()),
        }
    }

    /// Appends to `received` what is missing of the range.
    async fn receive(
        &self,
        path: &Path,
        range: &Range<u64>,
        received: &mut Vec<u8>,
    ) -> object_store::Result<()> {
        let wanted = range.start.saturating_add(received.len() as u64)..range.end;
        if wanted.is_empty() {
            return Ok(());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(wanted.clone())),
            ..GetOptions::default()
        };
        let result = self.watched(self.backend.get_opts(path, options)).await??;
        if result.range.end < wanted.end {
            return Err(Problem::Short {
                size: result.meta.size,
                expected: wanted.end,
            }
            .into());
        }
        self.drain(result.into_stream(), range.end - range.start, received)
            .await
    }

    async fn receive_all(&self, path: &Path) -> object_store::Result<(Vec<u8>, UpdateVersion)> {
        let result = self
            .watched(self.backend.get_opts(path, GetOptions::default()))
            .await??;
        let expected = result.meta.size;
        let version = UpdateVersion {
            e_tag: result.meta.e_tag.clone(),
            version: result.meta.version.clone(),
        };
        let mut received = vec![];
        self.drain(result.into_stream(), expected, &mut received)
            .await?;
        Ok((received, version))
    }

    /// Receives the rest of a body, after which there are `expected` bytes.
    async fn drain(
        &self,
        mut body: BoxStream<'static, object_store::Result<Bytes>>,
        expected: u64,
        received: &mut Vec<u8>,
    ) -> object_store::Result<()> {
        let length = usize::try_from(expected).unwrap_or(usize::MAX);
        received
            .try_reserve_exact(length.saturating_sub(received.len()))
            .map_err(|_| Problem::NoMemory(expected))?;
        while let Some(chunk) = self.watched(body.next()).await? {
            let chunk = chunk?;
            if chunk.len() > length - received.len() {
                received.clear();
                return Err(Problem::TooLong { expected }.into());
            }
            received.extend_from_slice(&chunk);
        }
        if received.len() < length {
            let received = received.len() as u64;
            return Err(Problem::Truncated { received, expected }.into());
        }
        Ok(())
    }

    /// Waits for the next bytes, not too long.
    async fn watched<T>(&self, work: impl Future<Output = T>) -> object_store::Result<T> {
        let limit = self.timeout / 4;
        timeout(limit, work)
            .await
            .map_err(|_| Problem::Stalled(limit).into())
    }

    /// Repeats what may be repeated.
    pub(super) async fn retried<T, W>(
        &self,
        priority: Priority,
        pace: Pace,
        work: impl Fn() -> W,
    ) -> Result<T, Failure>
    where
        W: Future<Output = object_store::Result<T>>,
    {
        let mut tries = Tries::new(self, priority);
        loop {
            if let ControlFlow::Break(result) = tries.attempt(pace, work()).await {
                return result;
            }
        }
    }

    pub(super) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub(super) fn e_tags(&self) -> &ETags {
        &self.e_tags
    }

    pub(super) fn joined_e_tags(&self) -> &ETags {
        &self.joined_e_tags
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn unfinished(&self) -> Option<&Arc<Unfinished>> {
        self.unfinished.as_ref()
    }

    pub(super) async fn place(&self, priority: Priority) -> Place {
        self.places.acquire(priority).await
    }

    /// Waits for a share of the network.
    pub(super) async fn share(&self, bytes: u64, priority: Priority) {
        if let Some(bandwidth) = &self.bandwidth {
            bandwidth.take(bytes, priority).await;
        }
    }

    /// The key of a location.
    pub(super) fn path(&self, location: &str) -> Result<Path, WireError> {
        let key = self.store.key(location).filter(|key| !key.ends_with('/'));
        let path = key.and_then(|key| Path::parse(key).ok());
        path.ok_or_else(|| {
            let root = self.store.root();
            let message =
                format!("\"{location}\" is not the name of an object in store \"{root}\"");
            WireError::new(ErrorCode::Internal, message)
        })
    }

    /// `doing` is what could not be done to the object at `location`.
    pub(super) fn error(&self, doing: &str, location: &str, failure: &Failure) -> WireError {
        let doing = format!("{doing} \"{location}\"");
        store_error(&self.store, &doing, failure, &self.secrets)
    }

    pub(super) fn name_taken(&self, location: &str) -> WireError {
        WireError::new(
            ErrorCode::NameTaken,
            format!("object \"{location}\" already exists"),
        )
        .hint(format!(
            "Check that no other server writes to \"{}\": each needs a prefix of its own.",
            self.store.root()
        ))
    }
}

/// Why an object was not created.
#[derive(Debug)]
pub(super) enum NotCreated {
    /// It may come to be there all the same: the answer can be what failed.
    Unclear(Failure),
    /// What is there, if anything, isn't known to be ours.
    NotOurs(WireError),
}

impl From<Failure> for NotCreated {
    fn from(failure: Failure) -> NotCreated {
        NotCreated::Unclear(failure)
    }
}

impl From<WireError> for NotCreated {
    fn from(error: WireError) -> NotCreated {
        NotCreated::NotOurs(error)
    }
}

fn pace(content: &Content) -> Pace {
    if content.bytes.len() <= QUICK_BYTES {
        Pace::Quick
    } else {
        Pace::Sending
    }
}
