//! `version-hint.text`: the name of a table's current metadata, for readers that go by its directory.
//!
//! A publication doesn't write it: its caller does, once the pointer to the new metadata has moved.

use bytes::Bytes;
use pg_lake_crash::{CrashPoint, crash_point};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{MetadataStore, NewFile};
use crate::table;

/// A hint that was set, with what it said before.
#[derive(Debug)]
pub struct VersionHint {
    location: String,
    content: Bytes,
    before: Option<Bytes>,
    attempt: Uuid,
}

impl VersionHint {
    /// Makes the hint beside metadata name them. `attempt` is unique to the call, or the commit id of the publication that
    /// it is about.
    pub async fn set(
        store: &dyn MetadataStore,
        metadata_location: &str,
        attempt: &Uuid,
    ) -> Result<VersionHint> {
        let hint = VersionHint {
            location: location(metadata_location)?,
            content: Bytes::copy_from_slice(table::version_hint(metadata_location).as_bytes()),
            before: read(store, metadata_location).await?,
            attempt: *attempt,
        };
        hint.replace(store, hint.content.clone()).await?;
        crash_point(CrashPoint::PublicationWritten);
        Ok(hint)
    }

    /// Sets it back to what it said before, unless somebody has set it since.
    pub async fn restore(self, store: &dyn MetadataStore) -> Result<()> {
        if read_at(store, &self.location).await?.as_ref() != Some(&self.content) {
            return Ok(());
        }
        match &self.before {
            Some(before) => self.replace(store, before.clone()).await,
            None => store.remove(&self.location).await,
        }
    }

    async fn replace(&self, store: &dyn MetadataStore, content: Bytes) -> Result<()> {
        let file = NewFile {
            location: self.location.clone(),
            content,
        };
        store.replace(file, &self.attempt).await
    }
}

/// What the hint beside metadata says, if there is one.
pub(crate) async fn read(
    store: &dyn MetadataStore,
    metadata_location: &str,
) -> Result<Option<Bytes>> {
    read_at(store, &location(metadata_location)?).await
}

async fn read_at(store: &dyn MetadataStore, location: &str) -> Result<Option<Bytes>> {
    match store.read(location).await {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn location(metadata_location: &str) -> Result<String> {
    let Some((directory, _)) = metadata_location.rsplit_once('/') else {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("\"{metadata_location}\" is not the location of a metadata file"),
        ));
    };
    Ok(format!("{directory}/version-hint.text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LocalStore;

    #[tokio::test]
    async fn a_hint_is_set_back_unless_it_was_set_since() {
        let directory = tempfile::tempdir().unwrap();
        let metadata =
            |name: &str| format!("file://{}/{name}.metadata.json", directory.path().display());
        let says = || std::fs::read_to_string(directory.path().join("version-hint.text")).ok();
        let set = async |name: &str| {
            VersionHint::set(&LocalStore, &metadata(name), &Uuid::new_v4())
                .await
                .unwrap()
        };

        let first = set("00000-a").await;
        assert_eq!(says().as_deref(), Some("00000-a"));
        let second = set("00001-b").await;
        assert_eq!(says().as_deref(), Some("00001-b"));
        // Not what it has said.
        first.restore(&LocalStore).await.unwrap();
        assert_eq!(says().as_deref(), Some("00001-b"));
        second.restore(&LocalStore).await.unwrap();
        assert_eq!(says().as_deref(), Some("00000-a"));

        std::fs::remove_file(directory.path().join("version-hint.text")).unwrap();
        let third = set("00002-c").await;
        third.restore(&LocalStore).await.unwrap();
        assert_eq!(says(), None);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
