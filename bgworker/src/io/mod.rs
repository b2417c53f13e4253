//! Requests to an I/O worker: data files, Iceberg metadata, directories.
//!
//! * `write`: rows of a feed become Parquet files; `encoder` is its blocking half
//! * `publish`: a table's files become an Iceberg snapshot; its snapshots are read back
//! * `check`: what published metadata say
//! * `fetch`: bytes of data files for the engine, by way of the disk cache; `memory` bounds them
//! * `files`: removing, listing and copying files; `local` does it on local disks
//! * `places`: the stores of a request; `upload`: files on their way there
//! * `error`: what files and Iceberg report, as errors for the backend
//!
//! Operations on local files run on threads that may block.

mod check;
mod encoder;
mod error;
mod fetch;
mod files;
mod local;
mod memory;
mod new_files;
mod places;
mod publish;
mod upload;
mod write;

pub use new_files::NewFiles;
pub(crate) use publish::NewHint;

use crate::client::{Client, owner_of_shard};
use crate::store::{Settings, Stores, Unfinished};
use crate::transport::MessageReader;
use fetch::StoreBuffers;
use memory::ReadMemory;
use pg_lake_cache::{Cache, SHARDS, Staging};
use pg_lake_plan::message::{ErrorCode, Reply, Request, WireError};
use pg_lake_plan::store::{BLOCK_BYTES, Store};
use pg_lake_ring::WorkerSlot;
use places::Places;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// The bounds of a row group's size. The upper one is where larger row groups stop to pay.
const ROW_GROUP_BYTES_MIN: u64 = 1 << 20;
const ROW_GROUP_BYTES_MAX: u64 = 128 << 20;

/// The I/O role of a process.
pub struct Io {
    budget: Arc<Budget>,
    stores: Stores,
    cache: Arc<Cache>,
    buffers: StoreBuffers,
    memory: ReadMemory,
    staging: Option<Arc<Staging>>,
    client: Arc<Client>,
}

/// Where an I/O worker finds what it shares with the others, and what it may take.
#[derive(Clone, Debug)]
pub struct IoConfig {
    pub stores: Settings,
    /// Of the disk cache, and of files that wait to be uploaded.
    pub cache_directory: PathBuf,
    /// Bytes of all shards of the disk cache.
    pub cache_size: u64,
}

/// What is read from stores at the same time may take that much of a worker's memory.
fn read_memory(memory: u64) -> u64 {
    memory / 4
}

/// The shards of one of the workers, numbered from 1.
fn owned_shards(slot: u32, workers: u32) -> Vec<u32> {
    (0..SHARDS)
        .filter(|shard| owner_of_shard(*shard, workers) == slot)
        .collect()
}

/// The first worker also removes what is of workers that there are no more.
fn open_staging(directory: &Path, slot: u32, workers: u32) -> Option<Arc<Staging>> {
    let opened = Staging::open(directory, slot).and_then(|staging| {
        if slot == 1 {
            Staging::forget(directory, |owner| owner > workers)?;
        }
        Ok(staging)
    });
    match opened {
        Ok(staging) => Some(Arc::new(staging)),
        Err(error) => {
            let directory = directory.display();
            tracing::warn!(target: "pg_lake", "could not use cache directory \"{directory}\": {error}");
            None
        }
    }
}

fn open_unfinished(directory: &Path, slot: u32, workers: u32) -> Option<Arc<Unfinished>> {
    match Unfinished::open(directory, slot, workers) {
        Ok(unfinished) => Some(Arc::new(unfinished)),
        Err(error) => {
            let directory = directory.display();
            tracing::warn!(target: "pg_lake", "could not keep records of uploads in \"{directory}\": {error}");
            None
        }
    }
}

/// A reply, and what is undone unless it is delivered.
pub struct Answer {
    pub reply: Reply,
    /// The files that it tells the backend of.
    pub files: Option<NewFiles>,
    /// A version hint that was set.
    pub(crate) hint: Option<NewHint>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Answer {
            reply,
            files: None,
            hint: None,
        }
    }
}

impl Io {
    /// `memory`: bytes, half of which all encoders together may take, and a quarter what is read from stores. `workers`: the number of I/O workers. On a runtime.
    pub(crate) fn new(
        slot: WorkerSlot,
        workers: u32,
        memory: u64,
        config: &IoConfig,
        client: Arc<Client>,
    ) -> Io {
        let unfinished = open_unfinished(&config.cache_directory, slot.slot(), workers);
        let stores = Stores::new(config.stores.clone(), unfinished.clone());
        if let Some(unfinished) = unfinished {
            tokio::spawn(unfinished.settle(stores.clone()));
        }
        Io {
            budget: Arc::new(Budget {
                slot,
                limit: AtomicU64::new(memory),
                encoders: AtomicU64::new(0),
            }),
            stores,
            cache: Arc::new(Cache::open(pg_lake_cache::Config {
                directory: config.cache_directory.clone(),
                owned: owned_shards(slot.slot(), workers),
                limit: config.cache_size,
                block_bytes: BLOCK_BYTES,
            })),
            buffers: StoreBuffers::default(),
            memory: ReadMemory::new(read_memory(memory)),
            staging: open_staging(&config.cache_directory, slot.slot(), workers),
            client,
        }
    }

    /// New settings, for what begins from now on. Where the cache is doesn't change.
    pub fn set_limits(&self, memory: u64, config: &IoConfig) {
        self.budget.limit.store(memory, Ordering::Relaxed);
        self.memory.set_limit(read_memory(memory));
        self.stores.set_settings(config.stores.clone());
        let (cache, size) = (self.cache.clone(), config.cache_size);
        // Waits for the disk.
        tokio::task::spawn_blocking(move || cache.set_limit(size));
    }

    /// Serves a request whose feeds, if any, are given in its order.
    pub async fn serve(
        &self,
        stores: &[Store],
        request: Request,
        feeds: Vec<MessageReader>,
        cancel: &CancellationToken,
    ) -> Result<Answer, WireError> {
        let places = Places::new(
            self.stores.open(stores),
            self.staging.clone(),
            self.client.clone(),
        );
        match request {
            Request::Write(request) => {
                let feed = feeds.into_iter().next().ok_or_else(|| {
                    WireError::new(ErrorCode::Protocol, "a write request without a feed")
                })?;
                write::write(&self.budget, &places, request, feed, cancel).await
            }
            Request::Publish(request) => publish::publish(&places, request).await,
            Request::CopyFiles { files } => {
                let (copies, checksums) = files::copy(&places, files, cancel).await?;
                Ok(Answer {
                    files: Some(copies),
                    ..Reply::Copied(checksums).into()
                })
            }
            request => cancel
                .run_until_cancelled(self.serve_simple(&places, request))
                .await
                .unwrap_or_else(|| Err(cancelled())),
        }
    }

    /// Requests that need nothing of a cancel but to end.
    async fn serve_simple(&self, places: &Places, request: Request) -> Result<Answer, WireError> {
        match request {
            Request::SetHint {
                metadata_location,
                commit_id,
                provisional,
            } => publish::set_hint(places, &metadata_location, commit_id, provisional).await,
            Request::Inspect { metadata_location } => publish::inspect(places, &metadata_location)
                .await
                .map(|s| Reply::Snapshots(s).into()),
            Request::CheckTable { metadata_location } => check::check(places, &metadata_location)
                .await
                .map(|table| Reply::Checked(table).into()),
            Request::RemoveFiles { paths } => {
                let removed = files::remove(places, paths).await?;
                Ok(Reply::Removed(removed).into())
            }
            Request::ListFiles { directory } => {
                let files = files::list(places, directory).await?;
                Ok(Reply::Files(files).into())
            }
            Request::Adopt { object, path } => {
                Ok(Reply::Adopted(self.adopt(object, &path).await).into())
            }
            Request::Warm(object) => {
                let warmed = self.warm(places, object).await?;
                Ok(Reply::Warmed(warmed).into())
            }
            Request::Evict { locations } => {
                let evicted = self.evict(locations).await?;
                Ok(Reply::Evicted(evicted).into())
            }
            Request::CacheStats { reset } => Ok(Reply::CacheStats(self.cache_stats(reset)).into()),
            Request::Probe { root } => match places.remote(&root)? {
                Some(remote) => {
                    let probed = crate::store::probe(&remote).await?;
                    Ok(Reply::Probed(probed).into())
                }
                None => Err(WireError::new(
                    ErrorCode::Protocol,
                    "only a store is probed",
                )),
            },
            Request::Ping => Ok(Reply::Pong.into()),
            _ => Err(WireError::new(
                ErrorCode::Protocol,
                "a worker was sent a request for another process",
            )),
        }
    }
}

fn cancelled() -> WireError {
    WireError::new(ErrorCode::Cancelled, "the request was cancelled")
}

/// The memory of all encoders of this process.
pub(crate) struct Budget {
    slot: WorkerSlot,
    limit: AtomicU64,
    encoders: AtomicU64,
}

impl Budget {
    /// Counts an encoder in, until the result is dropped.
    pub fn encoder(self: &Arc<Self>) -> Usage {
        self.encoders.fetch_add(1, Ordering::Relaxed);
        Usage {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// Bytes that a row group may take in memory: encoders that run now share half the limit, and
    /// one alone gets half of that.
    pub fn row_group_bytes(&self) -> u64 {
        let encoders = self.encoders.load(Ordering::Relaxed).max(2);
        let share = self.limit.load(Ordering::Relaxed) / 2 / encoders;
        share.clamp(ROW_GROUP_BYTES_MIN, ROW_GROUP_BYTES_MAX)
    }
}

/// What one encoder takes.
pub(crate) struct Usage {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Usage {
    pub fn set(&mut self, bytes: u64) {
        let counter = &self.budget.slot.counters().memory_bytes;
        counter.fetch_sub(self.bytes, Ordering::Relaxed);
        let now = counter.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.budget
            .slot
            .counters()
            .memory_peak
            .fetch_max(now, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.set(0);
        self.budget.encoders.fetch_sub(1, Ordering::Relaxed);
    }
}
