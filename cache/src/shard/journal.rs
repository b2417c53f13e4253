//! Writing the index: changes are gathered for a second, then committed together by a thread that may block.
//!
//! An index that can't be written is removed, and its successor is told everything. Until there is one the shard goes on in memory.

use super::Shard;
use crate::index::{Index, OpenError};
use crate::lock;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long changes are gathered. What is younger when the process is killed is fetched again.
const COMMIT_DELAY: Duration = Duration::from_secs(1);
/// An index that couldn't be created isn't tried again for that long.
const PAUSE: Duration = Duration::from_secs(30);
/// Changes that are taken at one time, as the shard is locked for that.
const BATCH: usize = 256;

pub(super) enum Journal {
    Open(Index),
    /// There is no index on disk. It may be created again from then on.
    Lost(Instant),
    Closed,
}

/// A commit that is due, or not if this is dropped.
struct Due(Weak<Shard>);

impl Drop for Due {
    fn drop(&mut self) {
        if let Some(shard) = self.0.upgrade() {
            shard.commit_is_due.store(false, Ordering::Release);
        }
    }
}

impl Shard {
    pub(super) fn index_path(&self) -> PathBuf {
        self.path.join(super::open::INDEX)
    }

    /// Has the changes committed in a while. Outside a runtime they wait for the next one.
    pub(super) fn changed(self: &Arc<Self>) {
        if self.commit_is_due.swap(true, Ordering::AcqRel) {
            return;
        }
        let due = Due(Arc::downgrade(self));
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            tokio::time::sleep(COMMIT_DELAY).await;
            let Some(shard) = due.0.upgrade() else {
                return;
            };
            // Changes from here on are another commit's.
            drop(due);
            tokio::task::spawn_blocking(move || shard.commit());
        });
    }

    /// Commits all changes until now.
    pub(crate) fn commit(&self) {
        let mut journal = lock(&self.journal);
        if let Journal::Lost(retry) = &*journal
            && *retry <= Instant::now()
        {
            *journal = self.begin_anew();
        }
        let Journal::Open(index) = &*journal else {
            return;
        };
        if !lock(&self.state).directory.has_changes() {
            return;
        }
        let taken = || lock(&self.state).directory.take_changes(BATCH);
        if let Err(error) = index.commit(taken) {
            *journal = self.lose_index(&error, Instant::now());
        }
    }

    /// Creates an index again.
    fn begin_anew(&self) -> Journal {
        match Index::open(&self.index_path(), self.block_bytes) {
            Ok(index) => {
                lock(&self.state).directory.tell_everything();
                Journal::Open(index)
            }
            Err(OpenError::Busy) => Journal::Lost(Instant::now() + PAUSE),
            Err(OpenError::Damaged(error) | OpenError::Failed(error)) => {
                self.lose_index(&error, Instant::now() + PAUSE)
            }
        }
    }

    fn lose_index(&self, error: &str, retry: Instant) -> Journal {
        let path = self.index_path();
        tracing::warn!(
            "could not write \"{}\" of the disk cache: {error}",
            path.display()
        );
        lock(&self.state).directory.lose_index();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("could not remove \"{}\": {error}", path.display());
            }
            _ => {}
        }
        Journal::Lost(retry)
    }

    /// Commits, and writes nothing from then on, so that the next one to open the shard has it alone.
    pub(crate) fn close(&self) {
        let mut writable = self
            .writable
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *writable = false;
        drop(writable);
        self.commit();
        *lock(&self.journal) = Journal::Closed;
    }
}

#[cfg(test)]
impl Shard {
    /// As if the index couldn't be written.
    pub(super) fn break_index(&self) {
        let mut journal = lock(&self.journal);
        *journal = Journal::Closed;
        *journal = self.lose_index("a test", Instant::now());
    }
}
