//! One execution of one scan: hands out row groups to the partitions, opens and prunes files.

use super::cache::Cache;
use super::error::{cancelled, from_io};
use super::expr::Node;
use super::prune::{Bound, covers, prunable};
use super::selection;
use super::stats::{Counters, add};
use super::values;
use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use pg_lake_plan::ir::{ColumnSource, Scan};
use pg_lake_plan::message::{ErrorCode, FileRef, WireError};
use pg_lake_plan::types::LakeType;
use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// A column of the scan.
#[derive(Debug)]
pub(super) struct SourceColumn {
    pub(super) source: ColumnSource,
    pub(super) ty: LakeType,
    /// The value in files without the column, as an array of one row.
    pub(super) missing: ArrayRef,
}

/// What all partitions of a scan share.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) table: String,
    pub(super) schema: SchemaRef,
    pub(super) columns: Vec<SourceColumn>,
    pub(super) predicate: Option<Node>,
    pub(super) files: Vec<(Arc<str>, FileRef)>,
    pub(super) cache: Arc<Cache>,
    pub(super) counters: Arc<Counters>,
    pub(super) cancel: CancellationToken,
    bounds: Vec<Bound>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next_file: usize,
    ready: VecDeque<Morsel>,
}

/// A unit of work of one partition.
#[derive(Debug)]
pub(super) struct Morsel {
    /// Index into [`Source::files`].
    pub(super) file: usize,
    /// Positions in the file.
    pub(super) rows: Range<u64>,
    /// `None`: no column of the file is needed.
    pub(super) row_group: Option<(ArrowReaderMetadata, usize)>,
}

impl Source {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        scan: &Scan,
        schema: SchemaRef,
        predicate: Option<Node>,
        bounds: Vec<Bound>,
        files: Vec<FileRef>,
        cache: Arc<Cache>,
        counters: Arc<Counters>,
        cancel: CancellationToken,
    ) -> Result<Self, WireError> {
        let mut columns = vec![];
        for column in &scan.columns {
            columns.push(SourceColumn {
                source: column.source.clone(),
                ty: column.ty.lake.clone(),
                missing: values::constant(&column.ty.lake, &column.missing)?,
            });
        }
        Ok(Source {
            table: scan.name.clone(),
            schema,
            columns,
            predicate,
            files: files
                .into_iter()
                .map(|file| (Arc::from(file.path.as_str()), file))
                .collect(),
            cache,
            counters,
            cancel,
            bounds,
            queue: Mutex::new(Queue::default()),
        })
    }

    /// The next work, or `None` when all has been handed out.
    pub(super) fn next_morsel(&self) -> Result<Option<Morsel>, WireError> {
        // The lock is held while a footer is read: the other partitions could only wait for the
        // row groups that it tells about.
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.cancel.is_cancelled() {
                return Err(cancelled());
            }
            if let Some(morsel) = queue.ready.pop_front() {
                return Ok(Some(morsel));
            }
            let index = queue.next_file;
            let Some((path, file)) = self.files.get(index) else {
                return Ok(None);
            };
            queue.next_file += 1;
            add(&self.counters.files, 1);
            let ready = self.open(index, path, file)?;
            if ready.is_empty() {
                add(&self.counters.files_pruned, 1);
            }
            queue.ready.extend(ready);
        }
    }

    /// The row groups of a file that have to be read.
    fn open(
        &self,
        index: usize,
        path: &Arc<str>,
        file: &FileRef,
    ) -> Result<Vec<Morsel>, WireError> {
        let whole = 0..file.rows.count();
        if selection::count(file, whole.clone()) == 0 {
            return Ok(vec![]);
        }
        let reads_file = |c: &SourceColumn| matches!(c.source, ColumnSource::Field(_));
        if !self.columns.iter().any(reads_file) {
            return Ok(vec![Morsel {
                file: index,
                rows: whole,
                row_group: None,
            }]);
        }
        let footer = self.footer(path, file)?;
        let metadata = footer.metadata();
        let mut morsels = vec![];
        let mut first = 0u64;
        for (i, row_group) in metadata.row_groups().iter().enumerate() {
            let rows = u64::try_from(row_group.num_rows())
                .map_err(|_| self.corrupted(path, "a row group has a negative number of rows"))?;
            let window = first..first.saturating_add(rows);
            first = window.end;
            add(&self.counters.row_groups, 1);
            let leaf = |column: usize| self.leaf(&footer, column);
            if window.end > file.rows.count()
                || selection::count(file, window.clone()) == 0
                || prunable(&self.bounds, row_group, footer.schema(), leaf)
            {
                add(&self.counters.row_groups_pruned, 1);
            } else {
                morsels.push(Morsel {
                    file: index,
                    rows: window,
                    row_group: Some((footer.clone(), i)),
                });
            }
        }
        if first != file.rows.count() {
            let found = format!("it has {first} rows instead of {}", file.rows.count());
            return Err(self.corrupted(path, &found));
        }
        Ok(morsels)
    }

    /// Whether every row of a file meets all conditions of a `prune::proof`, by its statistics.
    pub(super) fn covers(
        &self,
        path: &Arc<str>,
        file: &FileRef,
        proof: &[Bound],
    ) -> Result<bool, WireError> {
        let footer = self.footer(path, file)?;
        let row_groups = footer.metadata().row_groups();
        let rows: i64 = row_groups.iter().map(|group| group.num_rows()).sum();
        let leaf = |column: usize| self.leaf(&footer, column);
        Ok(
            u64::try_from(rows).is_ok_and(|rows| rows == file.rows.count())
                && row_groups
                    .iter()
                    .all(|group| covers(proof, group, footer.schema(), leaf)),
        )
    }

    fn footer(&self, path: &Arc<str>, file: &FileRef) -> Result<ArrowReaderMetadata, WireError> {
        if let Some(footer) = self.cache.footer(path, file.size) {
            return Ok(footer);
        }
        let handle = self.open_file(path)?;
        let length = handle.metadata().map_err(|e| self.io(path, &e))?.len();
        if length != file.size {
            let found = format!("it has {length} bytes instead of {}", file.size);
            return Err(self.corrupted(path, &found));
        }
        // The types come from Parquet and not from what an Arrow writer left in the metadata. The
        // offset index lets point reads skip pages.
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
            .with_offset_index_policy(PageIndexPolicy::Optional);
        let footer =
            ArrowReaderMetadata::load(&handle, options).map_err(|e| self.parquet(path, &e))?;
        self.cache
            .put_footer(path.clone(), file.size, footer.clone());
        Ok(footer)
    }

    /// The place among the file's fields of a scan column.
    pub(super) fn root(&self, footer: &ArrowReaderMetadata, column: usize) -> Option<usize> {
        let ColumnSource::Field(id) = self.columns.get(column)?.source else {
            return None;
        };
        footer
            .parquet_schema()
            .root_schema()
            .get_fields()
            .iter()
            .position(|field| {
                let info = field.get_basic_info();
                info.has_id() && info.id() == id
            })
    }

    /// Leaf and root of a scan column that isn't nested.
    fn leaf(&self, footer: &ArrowReaderMetadata, column: usize) -> Option<(usize, usize)> {
        let root = self.root(footer, column)?;
        let schema = footer.parquet_schema();
        if !schema.root_schema().get_fields().get(root)?.is_primitive() {
            return None;
        }
        let leaf = (0..schema.num_columns()).find(|&i| schema.get_column_root_idx(i) == root)?;
        Some((leaf, root))
    }

    pub(super) fn open_file(&self, path: &str) -> Result<File, WireError> {
        File::open(path).map_err(|e| self.io(path, &e))
    }

    /// "could not read data file …: …"
    pub(super) fn io(&self, path: &str, error: &std::io::Error) -> WireError {
        from_io(error, &self.could_not_read(path))
    }

    pub(super) fn corrupted(&self, path: &str, what: &str) -> WireError {
        let message = format!("{}: {what}", self.could_not_read(path));
        WireError::new(ErrorCode::DataCorrupted, message)
    }

    pub(super) fn parquet(&self, path: &str, error: &ParquetError) -> WireError {
        if let ParquetError::External(inner) = error
            && let Some(inner) = inner.downcast_ref::<std::io::Error>()
        {
            return self.io(path, inner);
        }
        self.corrupted(path, &error.to_string())
    }

    fn could_not_read(&self, path: &str) -> String {
        format!(
            "could not read data file \"{path}\" of table \"{}\"",
            self.table
        )
    }
}
