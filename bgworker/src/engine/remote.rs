//! Bytes of data files: local ones are read here, those in a store by the worker that has their blocks.
//!
//! What a row group needs is asked for at once and ahead of its turn ([`Source::fetch`]); a reader
//! that needs something else asks for it then and there, which holds up its thread.

use super::error::{cancelled, internal};
use super::source::Source;
use super::stats::add;
use async_trait::async_trait;
use bytes::{Buf, Bytes};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use pg_lake_plan::message::{Fetch, Fetched, FileRef, Priority, WireError};
use pg_lake_plan::store::Store;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle as Runtime;

/// What is read at a time where the length isn't known.
const READ_BYTES: u64 = 64 << 10;

/// From so many bytes on it pays to read the disk cache's files here: less than that is soon copied.
const PLACES_BYTES_MIN: u64 = 512 << 10;

/// Reads data files that are in stores.
#[async_trait]
pub trait Fetcher: Send + Sync + std::fmt::Debug {
    /// The bytes of each range, and where they came from.
    async fn fetch(
        &self,
        stores: &[Store],
        request: Fetch,
    ) -> Result<(Vec<Bytes>, Fetched), WireError>;
}

/// How a scan reads files that are in stores.
#[derive(Clone, Debug, Default)]
pub(super) struct Remote {
    pub(super) fetcher: Option<Arc<dyn Fetcher>>,
    pub(super) stores: Arc<[Store]>,
    /// Nobody waits for the scan.
    pub(super) background: bool,
}

/// What bytes are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Footers and single pages.
    Lookup,
    /// A row group that is read now.
    Scan,
    /// One that is read soon.
    Ahead,
}

/// Bytes of a file that are at hand: where each part begins, ascending.
pub(super) type Parts = Vec<(u64, Bytes)>;

/// A data file that is open.
#[derive(Clone)]
pub(super) enum Handle {
    Local(Arc<File>),
    Remote(RemoteFile),
}

/// A file in a store.
#[derive(Clone)]
pub(super) struct RemoteFile {
    source: Arc<Source>,
    /// Index into [`Source::files`].
    file: usize,
    parts: Arc<Parts>,
    /// Parquet's errors don't keep theirs.
    failed: Arc<Mutex<Option<WireError>>>,
}

impl RemoteFile {
    pub(super) fn new(source: Arc<Source>, file: usize, parts: Parts) -> Self {
        RemoteFile {
            source,
            file,
            parts: Arc::new(parts),
            failed: Arc::default(),
        }
    }

    /// Why reading failed, if it did.
    pub(super) fn failure(&self) -> Option<WireError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.clone()
    }

    fn size(&self) -> u64 {
        self.source.files.get(self.file).map_or(0, |(_, f)| f.size)
    }

    /// What is at hand from `start` on.
    fn part(&self, start: u64) -> Option<Bytes> {
        let after = self.parts.partition_point(|(begin, _)| *begin <= start);
        let (begin, bytes) = self.parts.get(after.checked_sub(1)?)?;
        let offset = usize::try_from(start - begin).ok()?;
        (offset < bytes.len()).then(|| bytes.slice(offset..))
    }

    fn read(&self, start: u64, length: u64) -> Result<Bytes, ParquetError> {
        let wanted = usize::try_from(length)?;
        if let Some(part) = self.part(start)
            && part.len() >= wanted
        {
            return Ok(part.slice(..wanted));
        }
        let end = start.saturating_add(length);
        if end > self.size() {
            return Err(ParquetError::EOF("beyond the end of the file".to_owned()));
        }
        let range = start..end;
        let fetched = tokio::task::block_in_place(|| {
            let parts = self.source.fetch(self.file, vec![range], Use::Lookup);
            Runtime::current().block_on(parts)
        });
        let part = fetched.and_then(|parts| {
            let part = parts.into_iter().next();
            part.map(|(_, bytes)| bytes)
                .ok_or_else(|| internal("a range is missing"))
        });
        part.map_err(|error| {
            let text = error.message.clone();
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            ParquetError::General(text)
        })
    }
}

impl Source {
    /// Reads ranges of a file that is in a store; cancelled with the scan.
    pub(super) async fn fetch(
        &self,
        file: usize,
        ranges: Vec<Range<u64>>,
        purpose: Use,
    ) -> Result<Parts, WireError> {
        let (path, file) = match self.files.get(file) {
            Some((path, file)) => (path, file),
            None => return Err(internal("a file is missing")),
        };
        let Some(fetcher) = &self.remote.fetcher else {
            return Err(internal("this process can't read from stores"));
        };
        let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let request = Fetch {
            location: path.to_string(),
            size: file.size,
            checksums: file.checksums.clone(),
            ranges: ranges
                .iter()
                .map(|range| (range.start, range.end))
                .collect(),
            priority: match purpose {
                _ if self.remote.background => Priority::Background,
                Use::Lookup | Use::Scan => Priority::Interactive,
                Use::Ahead => Priority::Ahead,
            },
            scan: purpose != Use::Lookup,
            places: wanted >= PLACES_BYTES_MIN,
        };
        let (parts, fetched) = self
            .cancel
            .run_until_cancelled(fetcher.fetch(&self.remote.stores, request))
            .await
            .unwrap_or_else(|| Err(cancelled()))
            .map_err(|error| self.could_not(path, error))?;
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        add(&self.counters.bytes_disk_cache, bytes(fetched.from_cache));
        add(&self.counters.bytes_store, bytes(fetched.from_store));
        let mut parts: Parts = ranges.iter().map(|range| range.start).zip(parts).collect();
        parts.sort_unstable_by_key(|(start, _)| *start);
        Ok(parts)
    }

    /// Opens a file; `parts` are those of a file in a store that are at hand.
    pub(super) fn open_file(
        self: &Arc<Self>,
        index: usize,
        parts: Parts,
    ) -> Result<Handle, WireError> {
        let Some((path, file)) = self.files.get(index) else {
            return Err(internal("a file is missing"));
        };
        if is_remote(file) {
            return Ok(Handle::Remote(RemoteFile::new(self.clone(), index, parts)));
        }
        let file = File::open(&**path).map_err(|e| self.io(path, &e))?;
        Ok(Handle::Local(Arc::new(file)))
    }
}

pub(super) fn is_remote(file: &FileRef) -> bool {
    pg_lake_plan::store::is_remote(&file.path)
}

impl Length for Handle {
    fn len(&self) -> u64 {
        match self {
            Handle::Local(file) => Length::len(&**file),
            Handle::Remote(file) => file.size(),
        }
    }
}

impl ChunkReader for Handle {
    type T = ChunkRead;

    fn get_read(&self, start: u64) -> Result<ChunkRead, ParquetError> {
        Ok(match self {
            Handle::Local(file) => ChunkRead::Local(file.get_read(start)?),
            Handle::Remote(file) => ChunkRead::Remote {
                file: file.clone(),
                position: start,
                buffer: Bytes::new(),
            },
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self {
            Handle::Local(file) => file.get_bytes(start, length),
            Handle::Remote(file) => file.read(start, length as u64),
        }
    }
}

/// Reads on from somewhere in a file.
pub(super) enum ChunkRead {
    Local(BufReader<File>),
    Remote {
        file: RemoteFile,
        position: u64,
        buffer: Bytes,
    },
}

impl Read for ChunkRead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            ChunkRead::Local(file) => file.read(into),
            ChunkRead::Remote {
                file,
                position,
                buffer,
            } => {
                if buffer.is_empty() {
                    let left = file.size().saturating_sub(*position);
                    if left == 0 {
                        return Ok(0);
                    }
                    *buffer = match file.part(*position) {
                        Some(part) => part,
                        None => file
                            .read(*position, left.min(READ_BYTES))
                            .map_err(io::Error::other)?,
                    };
                    *position += buffer.len() as u64;
                }
                let length = buffer.len().min(into.len());
                buffer.copy_to_slice(into.get_mut(..length).unwrap_or_default());
                Ok(length)
            }
        }
    }
}
