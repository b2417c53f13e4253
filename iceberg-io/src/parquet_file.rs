//! Writes one Parquet data file from Arrow batches.
//!
//! [`ParquetEncoder`] encodes into any sink; [`DataFileWriter`] adds a local file that is created exclusively and made
//! durable. One writer writes one file: the caller rotates by `approximate_bytes`. Physical types follow from the Arrow
//! types as Iceberg prescribes (decimals up to 9 and 18 digits become INT32 and INT64, `arrow.uuid` becomes UUID).

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression as ParquetCompression, GzipLevel, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use pg_lake_crash::{CrashPoint, crash_point};
use serde::{Deserialize, Serialize};

use crate::bloom::BloomFilters;
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::stats::{ColumnStats, StatsCollector};

/// How pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// Level 1 to 22.
    Zstd(i32),
    Snappy,
    /// Parquet's `LZ4_RAW`; what it calls `LZ4` has a frame that readers disagree about.
    Lz4,
    /// Level 6.
    Gzip,
    None,
}

/// Layout of a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    pub compression: Compression,
    /// A row group ends at whichever limit comes first. The byte limit also bounds the encoder's memory.
    pub row_group_rows: usize,
    pub row_group_bytes: usize,
    pub page_rows: usize,
    pub page_bytes: usize,
    /// The field ids of columns that get a Bloom filter in each row group. Nested ones get none.
    pub bloom_filters: Vec<i32>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Zstd(1),
            row_group_rows: 262_144,
            row_group_bytes: 128 << 20,
            page_rows: 20_000,
            page_bytes: 1 << 20,
            bloom_filters: vec![],
        }
    }
}

/// What an encoder wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFile {
    pub size_bytes: u64,
    pub row_count: u64,
    /// Where the row groups begin, ascending.
    pub split_offsets: Vec<i64>,
    pub columns: Vec<ColumnStats>,
}

/// A finished data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub row_count: u64,
    /// Where the row groups begin, ascending.
    pub split_offsets: Vec<i64>,
    pub columns: Vec<ColumnStats>,
}

/// Encodes batches as Parquet into a sink and collects their statistics.
pub struct ParquetEncoder<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: SchemaRef,
    stats: StatsCollector,
    rows: u64,
    /// Of all Bloom filters, while a row group is written.
    filter_bytes: usize,
}

impl<W: Write + Send> ParquetEncoder<W> {
    /// Every field of `schema`, nested ones included, must carry its id as `PARQUET:field_id`.
    pub fn new(sink: W, schema: SchemaRef, options: &WriteOptions) -> Result<Self> {
        let stats = StatsCollector::new(&schema)?;
        let filters = BloomFilters::new(
            &schema,
            &options.bloom_filters,
            options.row_group_rows,
            options.row_group_bytes,
        );
        let filter_bytes = filters.bytes();
        // The Arrow schema isn't embedded: the Parquet types say all of it.
        let options = ArrowWriterOptions::new()
            .with_properties(properties(options, filters)?)
            .with_skip_arrow_metadata(true)
            .with_schema_root("table".to_string());
        let writer = ArrowWriter::try_new_with_options(sink, schema.clone(), options)
            .map_err(|e| Error::parquet("could not begin a Parquet file", e))?;
        Ok(Self {
            writer,
            schema,
            stats,
            rows: 0,
            filter_bytes,
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.check(batch)?;
        self.stats.update(batch)?;
        self.writer
            .write(batch)
            .map_err(|e| Error::parquet("could not write to a Parquet file", e))?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes written plus an estimate of those still in memory.
    pub fn approximate_bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// Memory of Bloom filters, which [`Self::approximate_bytes`] are without.
    pub fn filter_bytes(&self) -> u64 {
        self.filter_bytes as u64
    }

    /// Ends the file; nothing can be written after this. The sink has been given all bytes, and been flushed.
    pub fn finish(&mut self) -> Result<EncodedFile> {
        let metadata = self
            .writer
            .finish()
            .map_err(|e| Error::parquet("could not end a Parquet file", e))?;
        Ok(EncodedFile {
            size_bytes: self.writer.bytes_written() as u64,
            row_count: self.rows,
            split_offsets: split_offsets(&metadata)?,
            columns: std::mem::take(&mut self.stats).finish(&metadata)?,
        })
    }

    pub fn sink(&self) -> &W {
        self.writer.inner()
    }

    /// The Parquet writer takes columns by position and trusts their types and nulls: a mismatch would be written as
    /// nonsense, not refused.
    fn check(&self, batch: &RecordBatch) -> Result<()> {
        let fields = self.schema.fields();
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
        if fields.len() != batch.num_columns() {
            return invalid(format!(
                "a batch has {} columns instead of {}",
                batch.num_columns(),
                fields.len()
            ));
        }
        for (field, array) in fields.iter().zip(batch.columns()) {
            if !field.data_type().equals_datatype(array.data_type()) {
                let (name, declared, found) = (field.name(), field.data_type(), array.data_type());
                return invalid(format!(
                    "column \"{name}\" of type {declared} arrived as {found}"
                ));
            }
            if !field.is_nullable() && array.null_count() > 0 {
                return invalid(format!(
                    "required column \"{}\" contains nulls",
                    field.name()
                ));
            }
        }
        Ok(())
    }
}

/// Writes a data file on the local file system.
pub struct DataFileWriter {
    path: PathBuf,
    encoder: ParquetEncoder<File>,
}

impl DataFileWriter {
    /// Creates the file, which must not exist, and the directories it lacks. `path` is absolute.
    pub fn create(path: &Path, schema: SchemaRef, options: &WriteOptions) -> Result<Self> {
        let file = durable::create_new(path)?;
        crash_point(CrashPoint::DataFileCreated);
        match ParquetEncoder::new(file, schema, options) {
            Ok(encoder) => Ok(Self {
                path: path.to_path_buf(),
                encoder,
            }),
            Err(e) => {
                let _ = fs::remove_file(path);
                Err(e)
            }
        }
    }

    /// Writes a batch. After an error the file is of no use: `abort` it.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.encoder.write(batch)
    }

    pub fn rows(&self) -> u64 {
        self.encoder.rows()
    }

    /// Bytes written plus an estimate of those still in memory: what to rotate by.
    pub fn approximate_bytes(&self) -> u64 {
        self.encoder.approximate_bytes()
    }

    /// Memory of Bloom filters beside that.
    pub fn filter_bytes(&self) -> u64 {
        self.encoder.filter_bytes()
    }

    /// Ends the file and makes it durable, directory included. After an error the file has been removed.
    pub fn finish(mut self) -> Result<WrittenFile> {
        match self.finish_durably() {
            Ok(EncodedFile {
                size_bytes,
                row_count,
                split_offsets,
                columns,
            }) => Ok(WrittenFile {
                path: self.path,
                size_bytes,
                row_count,
                split_offsets,
                columns,
            }),
            Err(e) => {
                let _ = self.abort();
                Err(e)
            }
        }
    }

    /// Removes the file.
    pub fn abort(self) -> Result<()> {
        let Self { path, encoder } = self;
        drop(encoder);
        fs::remove_file(&path)
            .map_err(|e| Error::io(format!("could not remove file \"{}\"", path.display()), e))
    }

    fn finish_durably(&mut self) -> Result<EncodedFile> {
        let file = self.encoder.finish()?;
        crash_point(CrashPoint::DataFileWritten);
        durable::sync(self.encoder.sink(), &self.path)?;
        crash_point(CrashPoint::DataFileSynced);
        durable::sync_parent(&self.path)?;
        crash_point(CrashPoint::DataFileDurable);
        Ok(file)
    }
}

fn properties(options: &WriteOptions, filters: BloomFilters) -> Result<WriterProperties> {
    let limits = [
        options.row_group_rows,
        options.row_group_bytes,
        options.page_rows,
        options.page_bytes,
    ];
    if limits.contains(&0) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "the limits of row groups and pages must be positive",
        ));
    }
    let compression = match options.compression {
        Compression::Zstd(level) => {
            ParquetCompression::ZSTD(ZstdLevel::try_new(level).map_err(|e| {
                Error::new(ErrorKind::InvalidInput, "invalid compression level").with_source(e)
            })?)
        }
        Compression::Snappy => ParquetCompression::SNAPPY,
        Compression::Lz4 => ParquetCompression::LZ4_RAW,
        Compression::Gzip => ParquetCompression::GZIP(GzipLevel::default()),
        Compression::None => ParquetCompression::UNCOMPRESSED,
    };
    // What filters take is left to them.
    let row_group_bytes = options.row_group_bytes.saturating_sub(filters.bytes());
    let builder = WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(true)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(options.row_group_rows))
        .set_max_row_group_bytes(Some(row_group_bytes.max(1)))
        .set_data_page_row_count_limit(options.page_rows)
        .set_data_page_size_limit(options.page_bytes);
    Ok(filters.add_to(builder).build())
}

/// A row group begins with its first column's first page.
fn split_offsets(metadata: &ParquetMetaData) -> Result<Vec<i64>> {
    metadata
        .row_groups()
        .iter()
        .filter_map(|row_group| row_group.columns().first())
        .map(|chunk| {
            let start = chunk
                .dictionary_page_offset()
                .unwrap_or_else(|| chunk.data_page_offset());
            match start {
                0.. => Ok(start),
                _ => Err(Error::new(
                    ErrorKind::Internal,
                    "a Parquet row group has a negative offset",
                )),
            }
        })
        .collect()
}
