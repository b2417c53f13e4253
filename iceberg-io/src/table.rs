//! `metadata.json`: reading the current one, beginning a new table's, and naming the next.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use iceberg::spec::{FormatVersion, MAIN_BRANCH, Schema, SnapshotReference, TableMetadata};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::store::MetadataStore;

/// The state that a publication builds on.
pub(crate) struct BaseTable {
    pub(crate) metadata: TableMetadata,
    /// Where the metadata were read from; `None` for a table that begins, or begins anew.
    pub(crate) location: Option<String>,
    /// The number in the next metadata's name.
    version: u64,
    /// Snapshots that tags and other branches hold.
    pub(crate) pinned: HashSet<i64>,
}

/// The part of the metadata that the library reads but doesn't show.
#[derive(Deserialize)]
struct References {
    #[serde(default)]
    refs: HashMap<String, SnapshotReference>,
}

impl BaseTable {
    pub(crate) async fn load(store: &dyn MetadataStore, location: &str) -> Result<Self> {
        let content = store.read(location).await?;
        let metadata = parse(location, &content)?;
        let references: References =
            serde_json::from_slice(&content).map_err(|e| corrupt(location, e))?;
        let pinned = references
            .refs
            .into_iter()
            .filter(|(name, _)| name != MAIN_BRANCH)
            .map(|(_, reference)| reference.snapshot_id)
            .collect();
        Ok(Self {
            metadata,
            location: Some(location.to_string()),
            version: version_of(location) + 1,
            pinned,
        })
    }

    /// A table without snapshots. Its numbers follow those of metadata that are `lost`: each publication makes one
    /// version and one snapshot. The library's builder would renumber the fields, so the metadata come from JSON, as if
    /// they had been read.
    pub(crate) fn create(
        format: FormatVersion,
        uuid: Uuid,
        location: &str,
        schema: &Schema,
        timestamp_ms: i64,
        lost: Option<&str>,
    ) -> Result<Self> {
        let version = lost.map_or(0, |lost| version_of(lost) + 1);
        let schema_json = serde_json::to_value(schema).map_err(|e| {
            Error::new(ErrorKind::Internal, "could not serialise a schema").with_source(e)
        })?;
        let mut metadata = json!({
            "format-version": format as u8,
            "table-uuid": uuid.to_string(),
            "location": location,
            "last-sequence-number": version,
            "last-updated-ms": timestamp_ms,
            "last-column-id": schema.highest_field_id(),
            "schemas": [schema_json],
            "current-schema-id": schema.schema_id(),
            "partition-specs": [{"spec-id": 0, "fields": []}],
            "default-spec-id": 0,
            "last-partition-id": 999,
            "sort-orders": [{"order-id": 0, "fields": []}],
            "default-sort-order-id": 0,
        });
        if format >= FormatVersion::V3 {
            metadata["next-row-id"] = json!(0);
        }
        let metadata = serde_json::from_value(metadata).map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "could not begin a table").with_source(e)
        })?;
        Ok(Self {
            metadata,
            location: None,
            version,
            pinned: HashSet::new(),
        })
    }

    /// The id that a schema has, or will get, in this table.
    pub(crate) fn schema_id_for(&self, schema: &Schema) -> i32 {
        let metadata = &self.metadata;
        let same = |known: &&iceberg::spec::SchemaRef| {
            known.as_struct() == schema.as_struct() && known.identifier_field_ids().len() == 0
        };
        match metadata.schemas_iter().find(same) {
            Some(known) => known.schema_id(),
            None => metadata
                .schemas_iter()
                .map(|known| known.schema_id())
                .max()
                .map_or(0, |highest| highest + 1),
        }
    }

    pub(crate) fn has_properties(&self, properties: &BTreeMap<String, String>) -> bool {
        let current = self.metadata.properties();
        current.len() == properties.len()
            && properties
                .iter()
                .all(|(key, value)| current.get(key) == Some(value))
    }

    /// The location of the next `metadata.json`: versions count up, the commit id keeps rivals apart.
    pub(crate) fn next_location(&self, table_location: &str, commit_id: &Uuid) -> String {
        let version = self.version;
        format!("{table_location}/metadata/{version:05}-{commit_id}.metadata.json")
    }
}

pub(crate) fn parse(location: &str, content: &Bytes) -> Result<TableMetadata> {
    serde_json::from_slice(content).map_err(|e| corrupt(location, e))
}

/// What `version-hint.text` holds for a metadata location: the file's name without `.metadata.json`.
pub(crate) fn version_hint(metadata_location: &str) -> &str {
    let name = metadata_location
        .rsplit('/')
        .next()
        .unwrap_or(metadata_location);
    name.strip_suffix(".metadata.json").unwrap_or(name)
}

/// The version in a metadata file's name; foreign names count as 0.
fn version_of(metadata_location: &str) -> u64 {
    let name = metadata_location.rsplit('/').next().unwrap_or_default();
    name.split(['-', '.'])
        .next()
        .and_then(|version| version.trim_start_matches('v').parse().ok())
        .unwrap_or(0)
}

fn corrupt(location: &str, e: serde_json::Error) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("could not parse table metadata \"{location}\""),
    )
    .with_source(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_names() {
        assert_eq!(
            version_of("file:///t/metadata/00041-6f0a.metadata.json"),
            41
        );
        assert_eq!(version_of("/t/metadata/v7.metadata.json"), 7);
        assert_eq!(version_of("/t/metadata/other.json"), 0);
        assert_eq!(
            version_hint("/t/metadata/00041-6f0a.metadata.json"),
            "00041-6f0a"
        );
    }
}
