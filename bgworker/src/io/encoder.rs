//! The blocking half of `Write`: batches into data files of about the wanted size, each of one partition.

use super::error::iceberg_error;
use super::places::{Places, Staged};
use super::upload::Uploads;
use super::{NewFiles, Usage};
use crate::store::Remote;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use pg_lake_iceberg::{Compression, DataFileWriter, WriteOptions};
use pg_lake_plan::layout::{Partition, PartitionField, SortField};
use pg_lake_plan::message::{
    Compression as WireCompression, ErrorCode, WireError, Write, WrittenFile,
};
use pg_lake_plan::types::Value;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// What an encoder is told.
pub(crate) enum Job {
    /// Rows, with the place that they take in the channel.
    Rows(RecordBatch, OwnedSemaphorePermit),
    /// The partition of the rows that follow, with its place in the channel.
    Partition(Vec<Option<Value>>, OwnedSemaphorePermit),
    /// The feed has ended as it should. A channel that closes without this is an abort.
    Finish,
}

/// A file that is being written.
struct Current {
    writer: DataFileWriter,
    location: String,
    /// Where it is until it is uploaded.
    staged: Option<Staged>,
    /// The memory that a row group of it may take.
    row_group_bytes: u64,
}

/// Writes one request's files.
pub(crate) struct Encoder {
    directory: String,
    prefix: String,
    schema: SchemaRef,
    compression: Compression,
    target_bytes: u64,
    partition_by: Vec<PartitionField>,
    sort_order: Vec<SortField>,
    bloom_filters: Vec<i32>,
    /// Of the rows that come now; `None` before the first one of a partitioned table.
    partition: Option<Partition>,
    current: Option<Current>,
    written: Vec<WrittenFile>,
    /// Files that have been given names.
    begun: usize,
    /// `None`: the directory is a local one.
    remote: Option<Arc<Remote>>,
    uploads: Uploads,
    files: NewFiles,
    places: Places,
    usage: Usage,
}

impl Encoder {
    pub fn new(
        request: &Write,
        schema: SchemaRef,
        usage: Usage,
        places: &Places,
        cancel: &CancellationToken,
    ) -> Result<Encoder, WireError> {
        Ok(Encoder {
            directory: request.directory.clone(),
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
            bloom_filters: request.bloom_filters.clone(),
            current: None,
            written: vec![],
            begun: 0,
            remote: places.remote(&request.directory)?,
            uploads: Uploads::new(places.clone(), cancel.clone()),
            files: NewFiles::default(),
            places: places.clone(),
            usage,
        })
    }

    /// Writes a batch, and ends the file when it is large enough.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WireError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if self.partition.is_none() {
            return Err(protocol("rows of a partitioned table without a partition"));
        }
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.create()?,
        };
        current.writer.write(batch).map_err(|e| self.error(&e))?;
        let size = current.writer.approximate_bytes();
        // What was flushed to the file is no longer in memory, but how much that is isn't told.
        let memory = size.saturating_add(current.writer.filter_bytes());
        self.usage.set(memory.min(current.row_group_bytes));
        self.current = Some(current);
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
        let checksums = self.uploads.finish(&mut self.files)?;
        for (file, checksums) in self.written.iter_mut().zip(checksums) {
            file.checksums = checksums;
        }
        Ok((
            std::mem::take(&mut self.written),
            std::mem::take(&mut self.files),
        ))
    }

    fn create(&mut self) -> Result<Current, WireError> {
        let number = self.begun;
        let location = format!("{}/{}-{number}.parquet", self.directory, self.prefix);
        let staged = match self.remote {
            Some(_) => Some(self.places.stage()?),
            None => None,
        };
        let path = match &staged {
            Some(staged) => staged.path().to_owned(),
            None => PathBuf::from(&location),
        };
        // Asked anew for each file: other encoders may have come or gone.
        let row_group_bytes = self.usage.budget.row_group_bytes();
        let options = WriteOptions {
            compression: self.compression,
            row_group_bytes: usize::try_from(row_group_bytes).unwrap_or(usize::MAX),
            bloom_filters: self.bloom_filters.clone(),
            ..WriteOptions::default()
        };
        let writer = DataFileWriter::create(&path, self.schema.clone(), &options)
            .map_err(|e| self.error(&e))?;
        // Only now it is ours: a file that was there before is not to be removed.
        self.begun += 1;
        if staged.is_none() {
            self.files.add(path);
        }
        Ok(Current {
            writer,
            location,
            staged,
            row_group_bytes,
        })
    }

    fn finish_file(&mut self) -> Result<(), WireError> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let file = current.writer.finish().map_err(|e| self.error(&e))?;
        self.usage.set(0);
        let stats = pg_lake_plan::encode(&file.columns).map_err(|e| {
            WireError::new(
                ErrorCode::Internal,
                "could not encode the statistics of a data file",
            )
            .detail(e.to_string())
        })?;
        if let (Some(remote), Some(staged)) = (&self.remote, current.staged) {
            let location = current.location.clone();
            self.uploads
                .start(remote.clone(), location, staged, file.size_bytes)?;
        }
        self.written.push(WrittenFile {
            path: current.location,
            size: file.size_bytes,
            // Of an uploaded one they come with the upload.
            checksums: vec![],
            rows: file.row_count,
            split_offsets: file.split_offsets,
            stats,
            partition: self.partition.clone().unwrap_or_default(),
            sort_order: self.sort_order.clone(),
        });
        Ok(())
    }

    fn error(&self, error: &pg_lake_iceberg::Error) -> WireError {
        let error = iceberg_error(error, &self.directory);
        // What is to be uploaded is written to the disk cache's directory, which only superusers are told.
        if self.remote.is_some() && error.code == ErrorCode::DiskFull {
            return error.hint(
                "Free space, or raise the quota, on the file system of lake.cache_dir, or lower lake.cache_size.",
            );
        }
        error
    }
}

fn protocol(message: &str) -> WireError {
    WireError::new(ErrorCode::Protocol, message)
}
