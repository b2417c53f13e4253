//! Reads a published table back: its snapshots and its live data files. For `lake.snapshots` and for tests.

use std::collections::BTreeMap;

use iceberg::spec::ManifestContentType;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Result;
use crate::manifests;
use crate::store::MetadataStore;
use crate::table;

/// A table as its metadata describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSummary {
    pub uuid: Uuid,
    pub format_version: u8,
    pub location: String,
    pub current_snapshot_id: Option<i64>,
    /// Oldest first.
    pub snapshots: Vec<SnapshotSummary>,
    /// Of the current snapshot, in the order of its manifests.
    pub data_files: Vec<DataFileSummary>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSummary {
    pub id: i64,
    pub parent: Option<i64>,
    pub sequence: i64,
    pub timestamp_ms: i64,
    pub operation: String,
    pub summary: BTreeMap<String, String>,
}

/// A live data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFileSummary {
    pub path: String,
    pub row_count: u64,
    /// Set from format version 3 on.
    pub first_row_id: Option<i64>,
}

/// Reads a table of the local file system from its `metadata.json`.
pub async fn read_table(store: &dyn MetadataStore, metadata_path: &str) -> Result<TableSummary> {
    let metadata = table::parse(metadata_path, &store.read(metadata_path).await?)?;
    let mut data_files = Vec::new();
    if let Some(snapshot) = metadata.current_snapshot() {
        let mut loaded = manifests::load_manifests(store, snapshot).await?;
        loaded.retain(|manifest| manifest.entry.content == ManifestContentType::Data);
        for manifest in loaded {
            data_files.extend(manifest.live.iter().map(|live| DataFileSummary {
                path: live.file.file_path().to_string(),
                row_count: live.file.record_count(),
                first_row_id: live.file.first_row_id(),
            }));
        }
    }
    let mut snapshots: Vec<SnapshotSummary> = metadata
        .snapshots()
        .map(|snapshot| SnapshotSummary {
            id: snapshot.snapshot_id(),
            parent: snapshot.parent_snapshot_id(),
            sequence: snapshot.sequence_number(),
            timestamp_ms: snapshot.timestamp_ms(),
            operation: snapshot.summary().operation.as_str().to_string(),
            summary: snapshot
                .summary()
                .additional_properties
                .clone()
                .into_iter()
                .collect(),
        })
        .collect();
    snapshots.sort_by_key(|snapshot| snapshot.sequence);
    Ok(TableSummary {
        uuid: metadata.uuid(),
        format_version: metadata.format_version() as u8,
        location: metadata.location().to_string(),
        current_snapshot_id: metadata.current_snapshot_id(),
        snapshots,
        data_files,
    })
}
