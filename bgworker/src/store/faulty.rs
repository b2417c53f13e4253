//! A store in memory that fails as it is told to.

use super::digest::{Md5, joined};
use super::registry::Settings;
use super::remote::Remote;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use pg_lake_plan::store::{Protocol, Store};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Put,
    Get,
    Head,
    List,
    Delete,
    Copy,
    Begin,
    Part,
    Finish,
    Abort,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// It isn't done, the connection breaks.
    Reset,
    /// It is done, the connection breaks before the answer.
    LostReply,
    /// There is never an answer.
    Hang,
    Denied,
    /// It is of no use to the store.
    Unsupported,
    /// What S3 answers if two writes cross.
    Conflict,
    /// So many bytes come, then the connection breaks.
    BreakAfter(usize),
    /// So many bytes come, and that is all.
    EndAfter(usize),
    /// So many bytes come, then nothing.
    StallAfter(usize),
    /// There is no connection, and it takes that long to see.
    Slow(Duration),
    /// It is done with a bit that is another one: of the content, or of the name of what is to be removed. Of an
    /// upload in parts the last one is left out.
    Flip,
    /// The same with a bit of the first byte.
    FlipFirst,
}

/// What entity tags are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tags {
    #[default]
    Numbers,
    Digests,
    /// They look like digests.
    Opaque,
}

impl Tags {
    fn of(self, content: &[u8]) -> Option<String> {
        let md5 = Md5::of(content);
        match self {
            Tags::Numbers => None,
            Tags::Digests => Some(format!("\"{md5}\"")),
            Tags::Opaque => Some(format!("\"{}\"", Md5::of(md5.to_string().as_bytes()))),
        }
    }

    fn of_parts(self, parts: &[Bytes]) -> Option<String> {
        let digests = |parts: &[Bytes]| parts.iter().map(|part| Md5::of(part)).collect::<Vec<_>>();
        match self {
            Tags::Numbers => None,
            Tags::Digests => Some(format!("\"{}\"", joined(&digests(parts)))),
            Tags::Opaque => Some(format!("\"{}-{}\"", Md5::of(b"opaque"), parts.len())),
        }
    }
}

type Parts = BTreeMap<usize, (PartId, Bytes)>;

#[derive(Debug, Default)]
pub(super) struct Faulty {
    inner: InMemory,
    ignores_conditions: bool,
    damages_names: bool,
    removing_takes: Duration,
    tags: Mutex<Tags>,
    faults: Mutex<HashMap<Op, VecDeque<Fault>>>,
    seen: Mutex<Vec<Op>>,
    uploads: Mutex<HashMap<MultipartId, Parts>>,
}

pub(super) fn store() -> Store {
    Store {
        protocol: Protocol::S3,
        bucket: "lake".into(),
        prefix: String::new(),
        account: None,
        region: None,
        endpoint: None,
        credential: None,
        conditional_put: true,
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        credentials_file: None,
        timeout: Duration::from_secs(2),
        connections: 4,
        bandwidth: None,
    }
}

/// A broken connection, as object_store tells it.
pub(super) fn reset() -> Error {
    let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    Error::Generic {
        store: "faulty",
        source: Box::new(HttpError::new(HttpErrorKind::Interrupted, reset)),
    }
}

impl Faulty {
    /// Takes `PutMode::Create` for `Overwrite`, as some stores do.
    pub fn ignoring_conditions() -> Faulty {
        Faulty {
            ignores_conditions: true,
            ..Faulty::default()
        }
    }

    /// What is to be removed has another name when it arrives.
    pub fn damaging_names() -> Faulty {
        Faulty {
            damages_names: true,
            ..Faulty::default()
        }
    }

    /// So long for each object.
    pub fn removing_in(time: Duration) -> Faulty {
        Faulty {
            removing_takes: time,
            ..Faulty::default()
        }
    }

    pub fn with_tags(tags: Tags) -> Faulty {
        Faulty {
            tags: Mutex::new(tags),
            ..Faulty::default()
        }
    }

    /// From now on.
    pub fn set_tags(&self, tags: Tags) {
        *self.tags.lock().expect("tags") = tags;
    }

    fn tags(&self) -> Tags {
        *self.tags.lock().expect("tags")
    }

    /// A remote with this as its store.
    pub fn remote(self: &Arc<Self>, store: Store, settings: &Settings) -> Remote {
        Remote::new(store, self.clone(), settings, vec![])
    }

    /// The next operations of that kind fail like that, in turn.
    pub fn fail(&self, op: Op, faults: &[Fault]) {
        let mut all = self.faults.lock().expect("faults");
        all.entry(op).or_default().extend(faults);
    }

    pub fn seen(&self, op: Op) -> usize {
        let seen = self.seen.lock().expect("operations");
        seen.iter().filter(|seen| **seen == op).count()
    }

    /// Uploads that have neither been finished nor aborted.
    pub fn uploads(&self) -> usize {
        self.uploads.lock().expect("uploads").len()
    }

    /// A part arrives of an upload that was aborted.
    pub fn late_part(&self, id: &str) {
        let mut uploads = self.uploads.lock().expect("uploads");
        uploads.entry(id.to_owned()).or_default();
    }

    /// What is under a key.
    pub async fn content(&self, key: &str) -> Option<Bytes> {
        let result = self.inner.get(&Path::from(key)).await.ok()?;
        result.bytes().await.ok()
    }

    pub async fn write(&self, key: &str, content: &[u8]) {
        let path = Path::from(key);
        let put = self.inner.put(&path, content.to_vec().into());
        put.await.expect("written");
    }

    /// What to do after the operation, unless it fails at once.
    async fn begin(&self, op: Op, path: &Path) -> Result<Option<Fault>> {
        self.seen.lock().expect("operations").push(op);
        let fault = {
            let mut faults = self.faults.lock().expect("faults");
            faults.get_mut(&op).and_then(VecDeque::pop_front)
        };
        let path = path.to_string();
        match fault {
            Some(Fault::Reset) => Err(reset()),
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                Err(reset())
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Denied) => Err(Error::PermissionDenied {
                path,
                source: "403".into(),
            }),
            Some(Fault::Unsupported) => Err(Error::NotImplemented {
                operation: path,
                implementer: "faulty".into(),
            }),
            Some(Fault::Conflict) => Err(Error::AlreadyExists {
                path,
                source: "409 ConditionalRequestConflict".into(),
            }),
            fault => Ok(fault),
        }
    }
}

/// What the store gets, or what comes of it.
fn arrived(fault: Option<Fault>, content: Bytes) -> Bytes {
    let mut content = content.to_vec();
    let flipped = match fault {
        Some(Fault::Flip) => Some(content.len() / 2),
        Some(Fault::FlipFirst) => Some(0),
        _ => None,
    };
    if let Some(byte) = flipped.and_then(|at| content.get_mut(at)) {
        *byte ^= 1;
    }
    content.into()
}

fn damaged(name: Path) -> Path {
    Path::from(format!("{name}~"))
}

fn end<T>(fault: Option<Fault>, done: T) -> Result<T> {
    match fault {
        Some(Fault::LostReply) => Err(reset()),
        _ => Ok(done),
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let fault = self.begin(Op::Put, path).await?;
        if self.ignores_conditions {
            options.mode = PutMode::Overwrite;
        }
        let content = arrived(fault, payload.into());
        let tag = self.tags().of(&content);
        let mut put = self.inner.put_opts(path, content.into(), options).await?;
        put.e_tag = tag.or(put.e_tag);
        end(fault, put)
    }

    async fn put_multipart_opts(
        &self,
        _path: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("parts have numbers")
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let op = if options.head { Op::Head } else { Op::Get };
        let fault = self.begin(op, path).await?;
        let whole = options.range.is_none() && !options.head;
        let mut result = self.inner.get_opts(path, options).await?;
        if whole {
            let (mut meta, range) = (result.meta.clone(), result.range.clone());
            let content = result.bytes().await?;
            meta.e_tag = self.tags().of(&content).or(meta.e_tag);
            let content = arrived(fault, content);
            result = GetResult {
                payload: GetResultPayload::Stream(stream::iter([Ok(content)]).boxed()),
                meta,
                range,
                attributes: Default::default(),
            };
        }
        let (bytes, rest) = match fault {
            None | Some(Fault::Flip | Fault::FlipFirst) => return Ok(result),
            Some(Fault::BreakAfter(bytes)) => (bytes, stream::iter([Err(reset())]).boxed()),
            Some(Fault::EndAfter(bytes)) => (bytes, stream::empty().boxed()),
            Some(Fault::StallAfter(bytes)) => (bytes, stream::pending().boxed()),
            Some(fault) => return end(Some(fault), result),
        };
        let (meta, range) = (result.meta.clone(), result.range.clone());
        let content = result.bytes().await?.slice(..bytes);
        result = GetResult {
            payload: GetResultPayload::Stream(stream::iter([Ok(content)]).chain(rest).boxed()),
            meta,
            range,
            attributes: Default::default(),
        };
        Ok(result)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, damages_names) = (self.inner.clone(), self.damages_names);
        let takes = self.removing_takes;
        let mut faults = self.faults.lock().expect("faults");
        let mut faults = faults.remove(&Op::Delete).unwrap_or_default();
        self.seen.lock().expect("operations").push(Op::Delete);
        paths
            .map(move |path| match faults.pop_front() {
                Some(Fault::Flip) => path.map(damaged),
                Some(_) => Err(reset()),
                None if damages_names => path.map(damaged),
                None => path,
            })
            .then(move |path| {
                let inner = inner.clone();
                async move {
                    let path = path?;
                    if !takes.is_zero() {
                        tokio::time::sleep(takes).await;
                    }
                    inner.head(&path).await?;
                    inner.delete(&path).await.map(|()| path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fault = self.begin(Op::Copy, from).await?;
        end(fault, self.inner.copy_opts(from, to, options).await?)
    }
}

#[async_trait]
impl MultipartStore for Faulty {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let fault = self.begin(Op::Begin, path).await?;
        let id = self.seen(Op::Begin).to_string();
        let mut uploads = self.uploads.lock().expect("uploads");
        uploads.insert(id.clone(), BTreeMap::new());
        end(fault, id)
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        let fault = self.begin(Op::Part, path).await?;
        let content = arrived(fault, data.into());
        let tag = self.tags().of(&content);
        let content_id = tag.unwrap_or_else(|| index.to_string());
        let part = PartId { content_id };
        let mut uploads = self.uploads.lock().expect("uploads");
        uploads
            .get_mut(id)
            .expect("an upload")
            .insert(index, (part.clone(), content));
        end(fault, part)
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let fault = self.begin(Op::Finish, path).await?;
        let upload = self.uploads.lock().expect("uploads").remove(id);
        let upload = upload.ok_or_else(|| Error::NotFound {
            path: path.to_string(),
            source: "NoSuchUpload".into(),
        })?;
        let (ids, mut content): (Vec<PartId>, Vec<Bytes>) = upload.into_values().unzip();
        let names = |parts: &[PartId]| -> Vec<String> {
            parts.iter().map(|part| part.content_id.clone()).collect()
        };
        assert_eq!(names(&ids), names(&parts));
        if let Some(Fault::Flip) = fault {
            content.pop();
        }
        let tag = self.tags().of_parts(&content);
        let put = self.inner.put(path, PutPayload::from_iter(content)).await;
        let mut put = put?;
        put.e_tag = tag.or(put.e_tag);
        end(fault, put)
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let fault = self.begin(Op::Abort, path).await?;
        self.uploads.lock().expect("uploads").remove(id);
        end(fault, ())
    }
}

#[async_trait]
impl PaginatedListStore for Faulty {
    /// Pages of two, in an order of their own.
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> Result<PaginatedListResult> {
        let fault = self.begin(Op::List, &Path::default()).await?;
        let all: Vec<Result<ObjectMeta>> = self.inner.list(None).collect().await;
        let mut all: Vec<ObjectMeta> = all.into_iter().collect::<Result<_>>()?;
        all.retain(|object| {
            object
                .location
                .as_ref()
                .starts_with(prefix.unwrap_or_default())
        });
        all.reverse();
        let start = options
            .page_token
            .map_or(0, |token| token.parse().expect("a number"));
        let next = start + 2;
        let page_token = (next < all.len()).then(|| next.to_string());
        let objects = all.into_iter().skip(start).take(2).collect();
        let result = ListResult {
            objects,
            common_prefixes: vec![],
        };
        end(fault, PaginatedListResult { result, page_token })
    }
}
