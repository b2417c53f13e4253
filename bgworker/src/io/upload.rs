//! Data files on their way to a store: a staged file is uploaded while the next one is encoded.

use super::new_files::RemoteFile;
use super::places::{Places, Staged};
use super::{NewFiles, cancelled};
use crate::store::Remote;
use pg_lake_plan::message::{CachedObject, ErrorCode, WireError};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Files that wait for the store at the same time. They take space of the cache's disk.
const UPLOADS_MAX: usize = 2;

type Upload = JoinHandle<Result<Vec<u32>, WireError>>;

/// The uploads of one request. Dropping this stops them, and removes what they have created.
pub(super) struct Uploads {
    places: Places,
    cancel: CancellationToken,
    running: VecDeque<(RemoteFile, Upload)>,
    /// In the order in which they were begun, with the checksums of each one's blocks.
    finished: Vec<(RemoteFile, Vec<u32>)>,
}

impl Uploads {
    pub fn new(places: Places, cancel: CancellationToken) -> Uploads {
        Uploads {
            places,
            cancel,
            running: VecDeque::new(),
            finished: vec![],
        }
    }

    /// Begins to upload a file of `size` bytes. Waits for earlier ones where there are too many. Blocks.
    pub fn start(
        &mut self,
        remote: Arc<Remote>,
        location: String,
        staged: Staged,
        size: u64,
    ) -> Result<(), WireError> {
        while self.running.len() >= UPLOADS_MAX {
            self.finish_one()?;
        }
        let file = RemoteFile {
            remote: remote.clone(),
            location: location.clone(),
        };
        let (cancel, places) = (self.cancel.clone(), self.places.clone());
        let upload = self.places.runtime().spawn(async move {
            let checksums = remote
                .put_file(&location, staged.path(), size, &cancel)
                .await?;
            let object = CachedObject {
                location,
                size,
                checksums: checksums.clone(),
            };
            // What was just written is warm.
            places.adopt(object, staged).await;
            Ok(checksums)
        });
        self.running.push_back((file, upload));
        Ok(())
    }

    /// Waits for all, which are durable then, and gives them to `files`. Returns the checksums of each one's
    /// blocks. Blocks.
    pub fn finish(&mut self, files: &mut NewFiles) -> Result<Vec<Vec<u32>>, WireError> {
        while !self.running.is_empty() {
            self.finish_one()?;
        }
        let finished = std::mem::take(&mut self.finished);
        let checksums = finished.into_iter().map(|(file, checksums)| {
            files.add_remote(&self.places, file);
            checksums
        });
        Ok(checksums.collect())
    }

    fn finish_one(&mut self) -> Result<(), WireError> {
        let Some((_, upload)) = self.running.front_mut() else {
            return Ok(());
        };
        let waited = self
            .places
            .runtime()
            .block_on(self.cancel.run_until_cancelled(upload));
        let checksums = match waited {
            None => return Err(cancelled()),
            Some(Ok(checksums)) => checksums,
            Some(Err(e)) => Err(WireError::new(ErrorCode::Internal, e.to_string())),
        };
        let Some((file, _)) = self.running.pop_front() else {
            return Ok(());
        };
        match checksums {
            Ok(checksums) => self.finished.push((file, checksums)),
            Err(error) => {
                if error.code != ErrorCode::NameTaken {
                    self.finished.push((file, vec![]));
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        let running = std::mem::take(&mut self.running);
        let finished = std::mem::take(&mut self.finished);
        if running.is_empty() && finished.is_empty() {
            return;
        }
        running.iter().for_each(|(_, upload)| upload.abort());
        self.places.runtime().spawn(async move {
            for (file, upload) in running {
                file.remove_after(upload).await;
            }
            for (file, _) in finished {
                file.remove().await;
            }
        });
    }
}
