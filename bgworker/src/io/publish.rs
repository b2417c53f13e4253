//! Publishing a table as an Iceberg snapshot, and reading its snapshots back.

use super::error::iceberg_error;
use super::new_files::RemoteFile;
use super::places::Places;
use super::{Answer, NewFiles};
use crate::arrow_types::table_schema;
use pg_lake_iceberg::{
    ColumnStats, Partition, PartitionField, PublishFile, PublishRequest, SortField, VersionHint,
};
use pg_lake_plan::layout;
use pg_lake_plan::message::{
    ErrorCode, Publish, PublishFile as WireFile, Published, Reply, SnapshotInfo, WireError,
};
use uuid::Uuid;

/// Makes the request's files the table's current snapshot. Not stopped by a cancel: it is short,
/// and cleans up only if it runs to its end. What it wrote goes if the reply isn't delivered: a sweep
/// may have looked for it already.
pub(crate) async fn publish(places: &Places, request: Publish) -> Result<Answer, WireError> {
    let place = request.location.clone();
    let request = to_iceberg(request)?;
    let published = pg_lake_iceberg::publish(places, request)
        .await
        .map_err(|e| iceberg_error(&e, &place))?;
    let mut files = NewFiles::default();
    for location in &published.new_files {
        match places.remote(location)? {
            Some(remote) => {
                let location = location.clone();
                files.add_remote(places, RemoteFile { remote, location });
            }
            None => {
                let path = pg_lake_iceberg::store::local_path(location);
                files.add(path.map_err(|e| iceberg_error(&e, &place))?);
            }
        }
    }
    let reply = Reply::Published(Published {
        metadata_location: published.metadata_location,
        snapshot_id: published.snapshot_id,
        sequence_number: published.sequence_number,
        unchanged: published.unchanged,
        removed: published.removed_files,
        damage: published.damage,
    });
    Ok(Answer {
        files: Some(files),
        ..reply.into()
    })
}

/// Makes the version hint name metadata. One that is provisional comes with the answer, to be set back if
/// that isn't delivered: a sweep may have set it back already when it is written.
pub(crate) async fn set_hint(
    places: &Places,
    metadata_location: &str,
    commit_id: [u8; 16],
    provisional: bool,
) -> Result<Answer, WireError> {
    let commit_id = Uuid::from_bytes(commit_id);
    let hint = VersionHint::set(places, metadata_location, &commit_id)
        .await
        .map_err(|e| iceberg_error(&e, metadata_location))?;
    Ok(Answer {
        hint: provisional.then(|| NewHint {
            hint,
            places: places.clone(),
        }),
        ..Reply::HintSet.into()
    })
}

/// A version hint that nobody has been told of yet.
pub(crate) struct NewHint {
    hint: VersionHint,
    places: Places,
}

impl NewHint {
    /// Sets it back. The sweep of intents does so later if this fails.
    pub async fn restore(self) {
        if let Err(error) = self.hint.restore(&self.places).await {
            tracing::debug!(target: "pg_lake", "a version hint was not set back: {error}");
        }
    }
}

/// The snapshots in a metadata file, oldest first.
pub(crate) async fn inspect(
    places: &Places,
    metadata_location: &str,
) -> Result<Vec<SnapshotInfo>, WireError> {
    let table = pg_lake_iceberg::read_table(places, metadata_location)
        .await
        .map_err(|e| iceberg_error(&e, metadata_location))?;
    let snapshots = table.snapshots.into_iter().map(|s| SnapshotInfo {
        id: s.id,
        parent: s.parent,
        sequence_number: s.sequence,
        timestamp_ms: s.timestamp_ms,
        operation: s.operation,
        summary: s.summary.into_iter().collect(),
    });
    Ok(snapshots.collect())
}

fn to_iceberg(request: Publish) -> Result<PublishRequest, WireError> {
    let files = request
        .files
        .into_iter()
        .map(publish_file)
        .collect::<Result<Vec<_>, WireError>>()?;
    Ok(PublishRequest {
        location: file_uri(&request.location),
        table_uuid: Uuid::from_bytes(request.table_uuid),
        format_version: request.format_version,
        schema: table_schema(&request.columns),
        partition_by: partition_fields(&request.partition_by),
        sort_by: sort_fields(&request.sort_by),
        properties: request.properties.into_iter().collect(),
        previous_metadata: request.previous_metadata,
        files,
        timestamp_ms: request.timestamp_ms,
        commit_id: Uuid::from_bytes(request.commit_id),
        keep_snapshots: request.keep_snapshots,
    })
}

fn publish_file(file: WireFile) -> Result<PublishFile, WireError> {
    let columns: Vec<ColumnStats> = pg_lake_plan::decode(&file.file.stats).map_err(|e| {
        let message = format!("malformed statistics of file \"{}\"", file.file.path);
        WireError::new(ErrorCode::DataCorrupted, message).detail(e.to_string())
    })?;
    Ok(PublishFile {
        path: file_uri(&file.file.path),
        size_bytes: file.file.size,
        row_count: file.file.rows,
        split_offsets: file.file.split_offsets,
        columns,
        partition: Partition {
            fields: partition_fields(&file.file.partition.fields),
            values: file
                .file
                .partition
                .values
                .iter()
                .map(|value| value.as_ref().map(layout::single_value))
                .collect(),
        },
        sort_order: sort_fields(&file.file.sort_order),
        hot_image: file.hot_image,
        deleted: file.deleted,
    })
}

fn partition_fields(fields: &[layout::PartitionField]) -> Vec<PartitionField> {
    fields
        .iter()
        .map(|field| PartitionField {
            source_id: field.source_id,
            transform: field.transform.to_string(),
        })
        .collect()
}

fn sort_fields(fields: &[layout::SortField]) -> Vec<SortField> {
    fields
        .iter()
        .map(|field| SortField {
            source_id: field.source_id,
            descending: field.descending,
            nulls_first: field.nulls_first,
        })
        .collect()
}

/// `/a/b` as other readers of the metadata want it; a location with a scheme stays.
fn file_uri(path: &str) -> String {
    if path.starts_with('/') {
        format!("file://{path}")
    } else {
        path.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_lake_plan::message::WrittenFile;
    use pg_lake_plan::types::Value;

    #[test]
    fn a_file_is_passed_on_with_its_deleted_rows() {
        let published = publish_file(WireFile {
            file: WrittenFile {
                path: "/lake/data/1.parquet".into(),
                size: 100,
                checksums: vec![],
                rows: 10,
                split_offsets: vec![4],
                stats: pg_lake_plan::encode(&Vec::<ColumnStats>::new()).expect("encoded"),
                partition: layout::Partition {
                    fields: vec![layout::PartitionField {
                        source_id: 3,
                        transform: layout::Transform::Bucket(16),
                    }],
                    values: vec![Some(Value::I32(7))],
                },
                sort_order: vec![],
            },
            hot_image: false,
            deleted: vec![3, 7],
        })
        .expect("a file");
        assert_eq!(published.path, "file:///lake/data/1.parquet");
        assert_eq!(published.deleted, [3, 7]);
        assert_eq!(published.partition.fields[0].transform, "bucket[16]");
        assert_eq!(published.partition.values, [Some(vec![7, 0, 0, 0])]);
    }
}
