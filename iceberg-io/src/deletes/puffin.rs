//! Puffin files of deletion vectors (format version 3): one blob for each data file.

use std::collections::HashMap;

use iceberg::io::FileIO;
use iceberg::metadata_columns::RESERVED_FIELD_ID_POS;
use iceberg::puffin::{
    Blob, CREATED_BY_PROPERTY, CompressionCodec, DELETION_VECTOR_V1, PuffinReader, PuffinWriter,
};
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat};

use crate::data_file;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Placement;
use crate::store::NewFile;

const CREATED_BY: &str = concat!("pg_lake ", env!("CARGO_PKG_VERSION"));

/// What the spec prescribes where a blob inherits its snapshot and sequence number.
const INHERITED: i64 = -1;

/// A deletion vector to be written.
pub(super) struct Vector {
    pub(super) data_file: String,
    /// Where the data file's entry is, and that of the vector.
    pub(super) place: Placement,
    /// How many rows are deleted.
    pub(super) cardinality: u64,
    pub(super) blob: Vec<u8>,
}

/// The file of these vectors, and a manifest entry for each.
pub(super) async fn encode(
    location: String,
    vectors: Vec<Vector>,
) -> Result<(NewFile, Vec<DataFile>)> {
    let memory = FileIO::new_with_memory();
    let output = memory.new_output(&location)?;
    let properties = HashMap::from([(CREATED_BY_PROPERTY.to_string(), CREATED_BY.to_string())]);
    let mut writer = PuffinWriter::new(&output, properties, false).await?;
    let mut written = Vec::with_capacity(vectors.len());
    for vector in vectors {
        let properties = HashMap::from([
            ("referenced-data-file".to_string(), vector.data_file.clone()),
            ("cardinality".to_string(), vector.cardinality.to_string()),
        ]);
        let blob = Blob::builder()
            .r#type(DELETION_VECTOR_V1.to_string())
            .fields(vec![RESERVED_FIELD_ID_POS])
            .snapshot_id(INHERITED)
            .sequence_number(INHERITED)
            .data(vector.blob)
            .properties(properties)
            .build();
        writer.add(blob, CompressionCodec::None).await?;
        written.push((vector.data_file, vector.place, vector.cardinality));
    }
    writer.close().await?;

    let input = output.to_input_file();
    let content = input.read().await?;
    // The writer keeps its offsets to itself; the footer that it wrote has them, in the order of the blobs.
    let reader = PuffinReader::new(input);
    let blobs = reader.file_metadata().await?.blobs();
    let entries = written
        .into_iter()
        .zip(blobs)
        .map(|((data_file, place, cardinality), blob)| {
            let mut builder = DataFileBuilder::default();
            builder
                .content(DataContentType::PositionDeletes)
                .file_path(location.clone())
                .file_format(DataFileFormat::Puffin)
                .partition(place.partition)
                .partition_spec_id(place.spec.spec_id())
                .record_count(cardinality)
                .file_size_in_bytes(content.len() as u64)
                .referenced_data_file(Some(data_file))
                .content_offset(Some(signed(blob.offset())?))
                .content_size_in_bytes(Some(signed(blob.length())?));
            data_file::build(&builder)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((NewFile { location, content }, entries))
}

fn signed(bytes: u64) -> Result<i64> {
    i64::try_from(bytes)
        .map_err(|e| Error::new(ErrorKind::Internal, "a Puffin file is too long").with_source(e))
}
