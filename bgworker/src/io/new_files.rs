//! Files that nobody knows of yet.

use super::places::Places;
use crate::store::Remote;
use pg_lake_plan::message::{ErrorCode, WireError};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// An object of a store.
pub(super) struct RemoteFile {
    pub(super) remote: Arc<Remote>,
    pub(super) location: String,
}

impl RemoteFile {
    /// Removes it, as far as that can be done now; the sweep of intents does the rest.
    pub(super) async fn remove(&self) {
        let location = std::slice::from_ref(&self.location);
        if let Err(error) = self.remote.delete(location).await {
            tracing::debug!(target: "pg_lake", "an object was left behind: {error}");
        }
    }

    /// The same after an upload that was given up. An object whose name was taken is somebody else's.
    pub(super) async fn remove_after<T>(&self, upload: JoinHandle<Result<T, WireError>>) {
        upload.abort();
        match upload.await {
            Ok(Err(error)) if error.code == ErrorCode::NameTaken => {}
            _ => self.remove().await,
        }
    }
}

/// Files that were created for a reply: dropping this removes them.
#[derive(Default)]
pub struct NewFiles {
    local: Vec<PathBuf>,
    remote: Vec<RemoteFile>,
    runtime: Option<Handle>,
}

impl NewFiles {
    /// Takes charge of a local file that was created.
    pub(super) fn add(&mut self, path: PathBuf) {
        self.local.push(path);
    }

    /// Takes charge of an object that was created, or may have been.
    pub(super) fn add_remote(&mut self, places: &Places, file: RemoteFile) {
        self.runtime = Some(places.runtime().clone());
        self.remote.push(file);
    }

    /// From now on they are somebody else's.
    pub fn keep(mut self) {
        self.local.clear();
        self.remote.clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        // One that a failed writer has removed already is missing; what else stays is found by the
        // sweep of intents.
        for path in &self.local {
            let _ = std::fs::remove_file(path);
        }
        let objects = std::mem::take(&mut self.remote);
        if let (Some(runtime), false) = (&self.runtime, objects.is_empty()) {
            runtime.spawn(async move {
                for object in objects {
                    object.remove().await;
                }
            });
        }
    }
}
