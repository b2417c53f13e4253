//! Requests to an I/O worker: data files, Iceberg metadata, directories.
//!
//! * `write`: rows of a feed become Parquet files; `encoder` is its blocking half
//! * `publish`: a table's files become an Iceberg snapshot; its snapshots are read back
//! * `files`: removing, listing and copying files
//! * `error`: what files and Iceberg report, as errors for the backend
//!
//! All paths are local for now. File operations run on threads that may block.

mod encoder;
mod error;
mod files;
mod publish;
mod write;

pub use encoder::NewFiles;

use crate::transport::MessageReader;
use pg_lake_plan::message::{ErrorCode, Reply, Request, WireError};
use pg_lake_ring::WorkerSlot;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// The bounds of a row group's size. The upper one is where larger row groups stop to pay.
const ROW_GROUP_BYTES_MIN: u64 = 1 << 20;
const ROW_GROUP_BYTES_MAX: u64 = 128 << 20;

/// The I/O role of a process.
pub struct Io {
    budget: Arc<Budget>,
}

/// A reply, and the files that it tells the backend of: they are removed unless it is delivered.
pub struct Answer {
    pub reply: Reply,
    pub files: Option<NewFiles>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Answer { reply, files: None }
    }
}

impl Io {
    /// `memory`: bytes that all encoders together may take.
    pub fn new(slot: WorkerSlot, memory: u64) -> Io {
        Io {
            budget: Arc::new(Budget {
                slot,
                limit: AtomicU64::new(memory),
                encoders: AtomicU64::new(0),
            }),
        }
    }

    pub fn set_limit(&self, memory: u64) {
        self.budget.limit.store(memory, Ordering::Relaxed);
    }

    /// Serves a request whose feeds, if any, are given in its order.
    pub async fn serve(
        &self,
        request: Request,
        feeds: Vec<MessageReader>,
        cancel: &CancellationToken,
    ) -> Result<Answer, WireError> {
        match request {
            Request::Write(request) => {
                let feed = feeds.into_iter().next().ok_or_else(|| {
                    WireError::new(ErrorCode::Protocol, "a write request without a feed")
                })?;
                write::write(&self.budget, request, feed, cancel).await
            }
            Request::Publish(request) => publish::publish(request).await,
            Request::SetHint {
                metadata_location,
                commit_id,
            } => publish::set_hint(&metadata_location, commit_id)
                .await
                .map(|()| Reply::HintSet.into()),
            Request::Inspect { metadata_location } => publish::inspect(&metadata_location)
                .await
                .map(|s| Reply::Snapshots(s).into()),
            Request::RemoveFiles { paths } => {
                files::remove(paths).await.map(|n| Reply::Removed(n).into())
            }
            Request::ListFiles { directory } => {
                files::list(directory).await.map(|f| Reply::Files(f).into())
            }
            Request::CopyFiles { files } => {
                let copies = files::copy(files, cancel).await?;
                Ok(Answer {
                    reply: Reply::Copied,
                    files: Some(copies),
                })
            }
            Request::Ping => Ok(Reply::Pong.into()),
            Request::Execute(_) | Request::Covered(_) => Err(WireError::new(
                ErrorCode::Protocol,
                "a worker was sent a request for the engine",
            )),
        }
    }
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
