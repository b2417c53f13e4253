//! `version-hint.text`: the name of a table's current metadata, for readers that go by its directory.
//!
//! A publication doesn't write it: its caller does, once the pointer to the new metadata has moved.

use bytes::Bytes;
use pg_lake_crash::{CrashPoint, crash_point};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Former, MetadataStore, NewFile, Seen};
use crate::table;

/// A hint that changes so often between a look and a write is written whatever it says: who publishes has the table for himself.
const LOOKS_MAX: u32 = 4;

/// A hint that was set, with what it said before.
#[derive(Debug)]
pub struct VersionHint {
    location: String,
    content: Bytes,
    before: Option<Bytes>,
    attempt: Uuid,
}

impl VersionHint {
    /// Makes the hint beside metadata name them, unless it does already. `attempt` is unique to the call, or the commit id of
    /// the publication that it is about.
    ///
    /// Each write is one of a hint that was looked at, so that an attempt that was given up, and is done late, finds another
    /// one and does nothing, as far as the store can tell hints apart.
    pub async fn set(
        store: &dyn MetadataStore,
        metadata_location: &str,
        attempt: &Uuid,
    ) -> Result<VersionHint> {
        let location = location(metadata_location)?;
        let mut seen = store.look(&location).await?;
        let hint = VersionHint {
            location,
            content: Bytes::copy_from_slice(table::version_hint(metadata_location).as_bytes()),
            before: seen.as_ref().map(|seen| seen.content.clone()),
            attempt: *attempt,
        };
        for look in 1..=LOOKS_MAX {
            if hint.is_set(seen.as_ref()) {
                break;
            }
            let former = match look {
                LOOKS_MAX => Former::Anything,
                _ => seen.as_ref().into(),
            };
            if hint.replace(store, hint.content.clone(), former).await? {
                break;
            }
            seen = store.look(&hint.location).await?;
        }
        crash_point(CrashPoint::PublicationWritten);
        Ok(hint)
    }

    /// Sets it back to what it said before, unless somebody has set it since.
    pub async fn restore(self, store: &dyn MetadataStore) -> Result<()> {
        let seen = store.look(&self.location).await?;
        let Some(seen) = seen.filter(|seen| self.is_set(Some(seen))) else {
            return Ok(());
        };
        match &self.before {
            Some(before) => {
                let former = Former::Seen(&seen);
                self.replace(store, before.clone(), former).await.map(drop)
            }
            None => store.remove(&self.location).await,
        }
    }

    fn is_set(&self, seen: Option<&Seen>) -> bool {
        seen.is_some_and(|seen| seen.content == self.content)
    }

    async fn replace(
        &self,
        store: &dyn MetadataStore,
        content: Bytes,
        former: Former<'_>,
    ) -> Result<bool> {
        let file = NewFile {
            location: self.location.clone(),
            content,
        };
        store.replace(file, former, &self.attempt).await
    }
}

/// What the hint beside metadata says, if there is one.
pub(crate) async fn read(
    store: &dyn MetadataStore,
    metadata_location: &str,
) -> Result<Option<Bytes>> {
    let seen = store.look(&location(metadata_location)?).await?;
    Ok(seen.map(|seen| seen.content))
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
    use async_trait::async_trait;

    struct Unwritable;

    #[async_trait]
    impl MetadataStore for Unwritable {
        async fn read(&self, location: &str) -> Result<Bytes> {
            LocalStore.read(location).await
        }

        async fn create_all(&self, _files: Vec<NewFile>) -> Result<()> {
            panic!("nothing is to be written")
        }

        async fn replace(&self, _: NewFile, _: Former<'_>, _: &Uuid) -> Result<bool> {
            panic!("nothing is to be written")
        }

        async fn remove(&self, _location: &str) -> Result<()> {
            panic!("nothing is to be written")
        }
    }

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

        // What it says already is not written again.
        let attempt = Uuid::new_v4();
        VersionHint::set(&Unwritable, &metadata("00000-a"), &attempt)
            .await
            .unwrap();
        std::fs::remove_file(directory.path().join("version-hint.text")).unwrap();
        let third = set("00002-c").await;
        third.restore(&LocalStore).await.unwrap();
        assert_eq!(says(), None);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
