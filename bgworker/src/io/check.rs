//! What published metadata say, for a comparison with the catalog and with the files.

use super::error::iceberg_error;
use super::places::Places;
use pg_lake_plan::message::{CheckedFile, CheckedTable, WireError};

/// Reads metadata and all manifests that they refer to.
pub(crate) async fn check(
    places: &Places,
    metadata_location: &str,
) -> Result<CheckedTable, WireError> {
    let table = pg_lake_iceberg::check_table(places, metadata_location)
        .await
        .map_err(|e| iceberg_error(&e, metadata_location))?;
    let data_files = table.data_files.into_iter().map(|file| CheckedFile {
        path: file.path,
        size: file.size_bytes,
        rows: file.row_count,
        deleted: file.deleted,
        delete_files: file.delete_files,
    });
    Ok(CheckedTable {
        table_uuid: table.uuid.into_bytes(),
        current_snapshot_id: table.current_snapshot_id,
        data_files: data_files.collect(),
        references: table.references,
        unreadable: table.unreadable,
        hint: table.hint,
    })
}
