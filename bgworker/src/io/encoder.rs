//! The blocking half of `Write`: batches into data files of about the wanted size, each of one partition.

use super::Usage;
use super::error::iceberg_error;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use pg_lake_iceberg::{Compression, DataFileWriter, WriteOptions};
use pg_lake_plan::layout::{Partition, PartitionField, SortField};
use pg_lake_plan::message::{
    Compression as WireCompression, ErrorCode, WireError, Write, WrittenFile,
};
use pg_lake_plan::types::Value;
use std::path::PathBuf;
use tokio::sync::OwnedSemaphorePermit;

/// What an encoder is told.
pub(crate) enum Job {
    /// Rows, with the place that they take in the channel.
    Rows(RecordBatch, OwnedSemaphorePermit),
    /// The partition of the rows that follow, with its place in the channel.
    Partition(Vec<Option<Value>>, OwnedSemaphorePermit),
    /// The feed has ended as it should. A channel that closes without this is an abort.
    Finish,
}

/// Files that nobody knows of yet: dropping this removes them.
#[derive(Debug, Default)]
pub struct NewFiles {
    paths: Vec<PathBuf>,
}

impl NewFiles {
    /// Takes charge of a file that was created.
    pub(super) fn add(&mut self, path: PathBuf) {
        self.paths.push(path);
    }

    /// From now on they are somebody else's.
    pub fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in &self.paths {
            // One that a failed writer has removed already is missing; what else stays is found by
            // the sweep of intents.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Writes one request's files.
pub(crate) struct Encoder {
    directory: PathBuf,
    prefix: String,
    schema: SchemaRef,
    compression: Compression,
    target_bytes: u64,
    partition_by: Vec<PartitionField>,
    sort_order: Vec<SortField>,
    /// Of the rows that come now; `None` before the first one of a partitioned table.
    partition: Option<Partition>,
    /// The file being written, and the memory that its row group may take.
    current: Option<(DataFileWriter, u64)>,
    written: Vec<WrittenFile>,
    files: NewFiles,
    usage: Usage,
}

impl Encoder {
    pub fn new(request: &Write, schema: SchemaRef, usage: Usage) -> Encoder {
        Encoder {
            directory: PathBuf::from(&request.directory),
            prefix: request.prefix.clone(),
            schema,
            compression: match request.compression {
                WireCompression::None => Compression::None,
                WireCompression::Snappy => Compression::Snappy,
                WireCompression::Zstd(level) => Compression::Zstd(level),
                WireCompression::Lz4 => Compression::Lz4,
                WireCompression::Gzip => Compression::Gzip,
            },
            target_bytes: request.target_file_size.max(1),
            partition: request.partition_by.is_empty().then(Partition::default),
            partition_by: request.partition_by.clone(),
            sort_order: request.sort_order.clone(),
            current: None,
            written: vec![],
            files: NewFiles::default(),
            usage,
        }
    }

    /// Writes a batch, and ends the file when it is large enough.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WireError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if self.partition.is_none() {
            return Err(protocol("rows of a partitioned table without a partition"));
        }
        let (mut writer, row_group_bytes) = match self.current.take() {
            Some(current) => current,
            None => self.create()?,
        };
        writer.write(batch).map_err(|e| self.error(&e))?;
        let size = writer.approximate_bytes();
        // What was flushed to the file is no longer in memory, but how much that is isn't told.
        self.usage.set(size.min(row_group_bytes));
        self.current = Some((writer, row_group_bytes));
        if size >= self.target_bytes {
            self.finish_file()
        } else {
            Ok(())
        }
    }

    /// Ends the file: the rows that follow are in another partition.
    pub fn begin_partition(&mut self, values: Vec<Option<Value>>) -> Result<(), WireError> {
        if values.len() != self.partition_by.len() {
            return Err(protocol("a partition has more or fewer values than fields"));
        }
        self.finish_file()?;
        self.partition = Some(Partition {
            fields: self.partition_by.clone(),
            values,
        });
        Ok(())
    }

    /// Ends the last file. All files are durable then.
    pub fn finish(mut self) -> Result<(Vec<WrittenFile>, NewFiles), WireError> {
        self.finish_file()?;
        Ok((
            std::mem::take(&mut self.written),
            std::mem::take(&mut self.files),
        ))
    }

    fn create(&mut self) -> Result<(DataFileWriter, u64), WireError> {
        let number = self.files.paths.len();
        let path = self
            .directory
            .join(format!("{}-{number}.parquet", self.prefix));
        // Asked anew for each file: other encoders may have come or gone.
        let row_group_bytes = self.usage.budget.row_group_bytes();
        let options = WriteOptions {
            compression: self.compression,
            row_group_bytes: usize::try_from(row_group_bytes).unwrap_or(usize::MAX),
            ..WriteOptions::default()
        };
        let writer = DataFileWriter::create(&path, self.schema.clone(), &options)
            .map_err(|e| self.error(&e))?;
        // Only now it is ours: a file that was there before is not to be removed.
        self.files.add(path);
        Ok((writer, row_group_bytes))
    }

    fn finish_file(&mut self) -> Result<(), WireError> {
        let Some((writer, _)) = self.current.take() else {
            return Ok(());
        };
        let file = writer.finish().map_err(|e| self.error(&e))?;
        self.usage.set(0);
        let stats = pg_lake_plan::encode(&file.columns).map_err(|e| {
            WireError::new(
                ErrorCode::Internal,
                "could not encode the statistics of a data file",
            )
            .detail(e.to_string())
        })?;
        self.written.push(WrittenFile {
            path: file.path.to_string_lossy().into_owned(),
            size: file.size_bytes,
            rows: file.row_count,
            split_offsets: file.split_offsets,
            stats,
            partition: self.partition.clone().unwrap_or_default(),
            sort_order: self.sort_order.clone(),
        });
        Ok(())
    }

    fn error(&self, error: &pg_lake_iceberg::Error) -> WireError {
        iceberg_error(error, &self.directory.to_string_lossy())
    }
}

fn protocol(message: &str) -> WireError {
    WireError::new(ErrorCode::Protocol, message)
}
