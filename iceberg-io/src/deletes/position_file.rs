//! Position-delete files (format version 2): Parquet files of `(file_path, pos)`, here of one data file each.
//!
//! A file's name ends with a digest of its positions, by which the next publication knows it again without reading it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use iceberg::metadata_columns::{
    RESERVED_COL_NAME_DELETE_FILE_PATH, RESERVED_COL_NAME_DELETE_FILE_POS,
    RESERVED_FIELD_ID_DELETE_FILE_PATH, RESERVED_FIELD_ID_DELETE_FILE_POS,
};
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum};

use crate::data_file;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Placement;
use crate::parquet_file::{ParquetEncoder, WriteOptions};
use crate::schema::{Field, FieldType, TableSchema};
use crate::store::NewFile;

const NAME_END: &str = "-deletes.parquet";

/// Rows that are handed to the encoder at once.
const BATCH_ROWS: usize = 16_384;

/// The location of the file that holds `positions`; `stem` makes it unique.
pub(super) fn location(stem: &str, positions: &[u32]) -> String {
    format!("{stem}-{:08x}{NAME_END}", digest(positions))
}

/// Whether a file with this location and so many rows holds `positions`.
pub(super) fn holds(location: &str, rows: u64, positions: &[u32]) -> bool {
    rows == positions.len() as u64
        && location
            .strip_suffix(NAME_END)
            .and_then(|stem| stem.rsplit_once('-'))
            .and_then(|(_, digest)| u32::from_str_radix(digest, 16).ok())
            == Some(digest(positions))
}

fn digest(positions: &[u32]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for position in positions {
        hasher.update(&position.to_le_bytes());
    }
    hasher.finalize()
}

/// The file that says that `positions` of `data_file`, which ascend, are deleted, and its manifest entry, which is
/// where the data file's is.
pub(super) fn encode(
    location: String,
    data_file: &str,
    place: &Placement,
    positions: &[u32],
) -> Result<(NewFile, DataFile)> {
    let (Some(&first), Some(&last)) = (positions.first(), positions.last()) else {
        let message = format!("file \"{data_file}\" has no deleted rows");
        return Err(Error::new(ErrorKind::Internal, message));
    };
    let schema = schema().to_arrow()?;
    let mut content = Vec::new();
    let mut encoder = ParquetEncoder::new(&mut content, schema.clone(), &WriteOptions::default())?;
    for chunk in positions.chunks(BATCH_ROWS) {
        let paths = StringArray::from_iter_values(std::iter::repeat_n(data_file, chunk.len()));
        let rows = Int64Array::from_iter_values(chunk.iter().map(|&row| i64::from(row)));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(paths), Arc::new(rows)])
            .map_err(|e| {
                let message = "could not make a batch of position deletes";
                Error::new(ErrorKind::Internal, message).with_source(e)
            })?;
        encoder.write(&batch)?;
    }
    let encoded = encoder.finish()?;
    drop(encoder);

    let path_id = RESERVED_FIELD_ID_DELETE_FILE_PATH;
    let row_id = RESERVED_FIELD_ID_DELETE_FILE_POS;
    // Whole, however long the path is: readers take a file whose two path bounds are the same for one of that data
    // file, and shortened bounds would be the same for all data files.
    let path = Datum::string(data_file);
    let columns = &encoded.columns;
    let mut builder = DataFileBuilder::default();
    builder
        .content(DataContentType::PositionDeletes)
        .file_path(location.clone())
        .file_format(DataFileFormat::Parquet)
        .partition(place.partition.clone())
        .partition_spec_id(place.spec.spec_id())
        .record_count(encoded.row_count)
        .file_size_in_bytes(content.len() as u64)
        .column_sizes(
            columns
                .iter()
                .map(|c| (c.field_id, c.column_size))
                .collect(),
        )
        .value_counts(
            columns
                .iter()
                .map(|c| (c.field_id, c.value_count))
                .collect(),
        )
        .null_value_counts(columns.iter().map(|c| (c.field_id, c.null_count)).collect())
        .lower_bounds(HashMap::from([
            (path_id, path.clone()),
            (row_id, Datum::long(first)),
        ]))
        .upper_bounds(HashMap::from([
            (path_id, path),
            (row_id, Datum::long(last)),
        ]))
        .split_offsets(Some(encoded.split_offsets))
        .referenced_data_file(Some(data_file.to_string()));
    let entry = data_file::build(&builder)?;
    let file = NewFile {
        location,
        content: Bytes::from(content),
    };
    Ok((file, entry))
}

/// The columns that the spec prescribes.
fn schema() -> TableSchema {
    let field = |id, name: &str, ty| Field {
        id,
        name: name.to_string(),
        ty,
        required: true,
        doc: None,
    };
    TableSchema {
        schema_id: 0,
        fields: vec![
            field(
                RESERVED_FIELD_ID_DELETE_FILE_PATH,
                RESERVED_COL_NAME_DELETE_FILE_PATH,
                FieldType::String,
            ),
            field(
                RESERVED_FIELD_ID_DELETE_FILE_POS,
                RESERVED_COL_NAME_DELETE_FILE_POS,
                FieldType::Long,
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_positions_apart() {
        let location = location("file:///t/data/commit-00000", &[1, 5, 9]);
        // Digests outlive the release that wrote them: this one was made with zlib.
        assert_eq!(
            location,
            "file:///t/data/commit-00000-d598cbee-deletes.parquet"
        );
        assert!(holds(&location, 3, &[1, 5, 9]));
        assert!(!holds(&location, 3, &[1, 6, 9]));
        assert!(!holds(&location, 4, &[1, 5, 9]));
        assert!(!holds("file:///t/data/of-another-writer.parquet", 1, &[1]));
    }
}
