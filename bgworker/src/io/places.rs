//! Where the files of a request are: on local disks, or in the stores that it names.

use crate::client::Client;
use crate::store::{Opened, Remote, RemoteMetadata};
use async_trait::async_trait;
use bytes::Bytes;
use pg_lake_cache::Staging;
use pg_lake_iceberg::{Former, LocalStore, MetadataStore, NewFile, Seen};
use pg_lake_plan::message::{CachedObject, ErrorCode, Request, WireError};
use pg_lake_plan::store::is_remote;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use uuid::Uuid;

/// The stores of one request, and what goes with them.
#[derive(Clone)]
pub(crate) struct Places {
    opened: Arc<Opened>,
    /// `None`: its directory can't be used.
    staging: Option<Arc<Staging>>,
    client: Arc<Client>,
    /// Where uploads and removals run that nobody waits for.
    runtime: Handle,
}

impl Places {
    pub fn new(opened: Opened, staging: Option<Arc<Staging>>, client: Arc<Client>) -> Places {
        Places {
            opened: Arc::new(opened),
            staging,
            client,
            runtime: Handle::current(),
        }
    }

    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The store of a location; `None` if it is local.
    pub fn remote(&self, location: &str) -> Result<Option<Arc<Remote>>, WireError> {
        is_remote(location)
            .then(|| self.opened.find(location))
            .transpose()
    }

    /// A path for a file that is to be uploaded.
    pub fn stage(&self) -> Result<Staged, WireError> {
        match &self.staging {
            Some(staging) => Ok(Staged(staging.new_path(".parquet"))),
            None => Err(
                WireError::new(ErrorCode::Io, "files for object stores can't be staged")
                    .detail(
                        "The directory of the disk cache can't be used; the server log says why.",
                    )
                    .hint("Check lake.cache_dir."),
            ),
        }
    }

    /// Has a file that was uploaded put into the disk cache, if that can be done.
    pub async fn adopt(&self, object: CachedObject, staged: Staged) {
        let Some(path) = staged.path().to_str() else {
            return;
        };
        let path = path.to_owned();
        let adopted = match self.client.owner(&object.location) {
            Ok(owner) => {
                let request = Request::Adopt { object, path };
                self.client.call(owner, &[], request, &[], |_, _| ()).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = adopted {
            tracing::debug!(target: "pg_lake", "a file that was written is not in the cache: {error}");
        }
    }

    fn metadata(&self, location: &str) -> pg_lake_iceberg::Result<Box<dyn MetadataStore>> {
        match self.remote(location) {
            Ok(None) => Ok(Box::new(LocalStore)),
            Ok(Some(remote)) => Ok(Box::new(RemoteMetadata(remote))),
            Err(error) => Err(crate::store::to_iceberg(error)),
        }
    }
}

/// A local file that goes with this.
pub(crate) struct Staged(PathBuf);

impl Staged {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What stays is found when the next process of this worker starts.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[async_trait]
impl MetadataStore for Places {
    async fn read(&self, location: &str) -> pg_lake_iceberg::Result<Bytes> {
        self.metadata(location)?.read(location).await
    }

    fn patience(&self, location: &str) -> Duration {
        self.metadata(location)
            .map_or(Duration::ZERO, |store| store.patience(location))
    }

    async fn create_all(&self, files: Vec<NewFile>) -> pg_lake_iceberg::Result<()> {
        // All are in one table's directory.
        match files.first() {
            None => Ok(()),
            Some(first) => self.metadata(&first.location)?.create_all(files).await,
        }
    }

    async fn look(&self, location: &str) -> pg_lake_iceberg::Result<Option<Seen>> {
        self.metadata(location)?.look(location).await
    }

    async fn replace(
        &self,
        file: NewFile,
        former: Former<'_>,
        attempt: &Uuid,
    ) -> pg_lake_iceberg::Result<bool> {
        let store = self.metadata(&file.location)?;
        store.replace(file, former, attempt).await
    }

    async fn remove(&self, location: &str) -> pg_lake_iceberg::Result<()> {
        self.metadata(location)?.remove(location).await
    }
}
