//! One execution of one scan: hands out row groups to the partitions, opens and prunes files.

use super::cache::Cache;
use super::dynamic::{Filters, Sought};
use super::error::{cancelled, from_io, internal};
use super::expr::Node;
use super::prune::{Bound, covers, prunable};
use super::remote::{Handle, Parts, Remote, Use, is_remote};
use super::selection;
use super::stats::{Counters, add};
use super::values;
use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::Length;
use pg_lake_plan::ir::{ColumnSource, Scan};
use pg_lake_plan::message::{ErrorCode, FileRef, WireError};
use pg_lake_plan::types::LakeType;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What is read of a file's end, in the hope that its footer is there.
const FOOTER_BYTES: u64 = 256 << 10;

/// Files in stores whose footers are read at the same time.
const FOOTERS_AHEAD: usize = 8;

/// A column of the scan.
#[derive(Debug)]
pub(super) struct SourceColumn {
    pub(super) source: ColumnSource,
    pub(super) ty: LakeType,
    /// The value in files without the column, as an array of one row.
    pub(super) missing: ArrayRef,
}

/// A table's files, with their paths for the cache. Each step of a recursion scans them anew.
pub(super) type Files = Arc<[(Arc<str>, FileRef)]>;

pub(super) fn shared(files: Vec<FileRef>) -> Files {
    let files = files.into_iter();
    files
        .map(|file| (Arc::from(file.path.as_str()), file))
        .collect()
}

/// What all partitions of a scan share.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) table: String,
    /// Of the request's tables.
    pub(super) number: u32,
    pub(super) schema: SchemaRef,
    pub(super) columns: Vec<SourceColumn>,
    pub(super) predicate: Option<Node>,
    pub(super) files: Files,
    pub(super) cache: Arc<Cache>,
    pub(super) counters: Arc<Counters>,
    pub(super) cancel: CancellationToken,
    pub(super) remote: Remote,
    pub(super) filters: Filters,
    pub(super) bounds: Vec<Bound>,
    queue: Mutex<Queue>,
    /// Held by who reads Bloom filters from a store: those of several row groups are read together.
    pub(super) asking: Mutex<()>,
    ahead: std::sync::Mutex<Footers>,
}

/// Footers that are on their way, by the files' indexes.
type Footers = BTreeMap<usize, JoinHandle<Result<ArrowReaderMetadata, WireError>>>;

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
        files: Files,
        cache: Arc<Cache>,
        counters: Arc<Counters>,
        cancel: CancellationToken,
        remote: Remote,
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
            number: scan.table,
            schema,
            columns,
            predicate,
            files,
            cache,
            counters,
            cancel,
            remote,
            filters: Filters::default(),
            bounds,
            queue: Mutex::new(Queue::default()),
            asking: Mutex::new(()),
            ahead: Default::default(),
        })
    }

    /// Rows that don't pass these filters need not come out.
    pub(super) fn with_filters(mut self, sought: Vec<Sought>) -> Self {
        let can_fail = self.predicate.as_ref().is_some_and(|node| node.can_fail);
        self.filters = Filters::new(sought, can_fail);
        self
    }

    /// The next work, or `None` when all has been handed out.
    pub(super) async fn next_morsel(self: &Arc<Self>) -> Result<Option<Morsel>, WireError> {
        // The lock is held while a footer is read: the other partitions could only wait for the
        // row groups that it tells about.
        let mut queue = self.queue.lock().await;
        loop {
            if self.cancel.is_cancelled() {
                return Err(cancelled());
            }
            if let Some(morsel) = queue.ready.pop_front() {
                if self.is_missed(&morsel) {
                    add(&self.counters.row_groups_pruned, 1);
                    continue;
                }
                return Ok(Some(morsel));
            }
            let index = queue.next_file;
            if index >= self.files.len() {
                return Ok(None);
            }
            queue.next_file += 1;
            add(&self.counters.files, 1);
            let ready = if self.filters.want_nothing() {
                vec![]
            } else {
                self.open(index).await?
            };
            if ready.is_empty() {
                add(&self.counters.files_pruned, 1);
            }
            queue.ready.extend(ready);
        }
    }

    /// Whether the filters have come to leave out a row group since its file was opened.
    fn is_missed(&self, morsel: &Morsel) -> bool {
        let Some((footer, number)) = &morsel.row_group else {
            return false;
        };
        let leaf = |column: usize| self.leaf(footer, column);
        let row_group = footer.metadata().row_groups().get(*number);
        row_group.is_some_and(|group| self.filters.miss(group, footer.schema(), leaf))
    }

    /// The row groups of a file that have to be read.
    async fn open(self: &Arc<Self>, index: usize) -> Result<Vec<Morsel>, WireError> {
        let Some((path, file)) = self.files.get(index) else {
            return Ok(vec![]);
        };
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
        let footer = self.footer(index).await?;
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
                || self.filters.miss(row_group, footer.schema(), leaf)
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
    pub(super) async fn covers(
        self: &Arc<Self>,
        index: usize,
        proof: &[Bound],
    ) -> Result<bool, WireError> {
        let footer = self.footer(index).await?;
        let Some((_, file)) = self.files.get(index) else {
            return Ok(false);
        };
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

    async fn footer(self: &Arc<Self>, index: usize) -> Result<ArrowReaderMetadata, WireError> {
        let Some((path, file)) = self.files.get(index) else {
            return Err(internal("a file is missing"));
        };
        let known = self.cache.footer(path, file.size);
        if is_remote(file) {
            let ahead = self.read_ahead(index, known.is_none());
            return match (known, ahead) {
                (Some(footer), _) => Ok(footer),
                (None, Some(task)) => task.await.map_err(|e| internal(&e.to_string()))?,
                (None, None) => self.clone().remote_footer(index).await,
            };
        }
        if let Some(footer) = known {
            return Ok(footer);
        }
        let footer = self.read_footer(index, vec![])?;
        self.cache
            .put_footer(path.clone(), file.size, footer.clone());
        Ok(footer)
    }

    /// Has the footers of files after this one read, and its own if that is wanted, which is returned. Files are
    /// asked about in their order.
    fn read_ahead(
        self: &Arc<Self>,
        index: usize,
        wanted: bool,
    ) -> Option<JoinHandle<Result<ArrowReaderMetadata, WireError>>> {
        let mut ahead = self.ahead();
        // What is left before it was in the cache.
        *ahead = ahead.split_off(&index);
        if !wanted && ahead.is_empty() {
            return None;
        }
        let is_missing = |i: &usize| {
            self.files.get(*i).is_some_and(|(path, file)| {
                is_remote(file) && self.cache.footer(path, file.size).is_none()
            })
        };
        let files = index..self.files.len();
        for i in files.filter(is_missing).take(FOOTERS_AHEAD) {
            let read = || tokio::spawn(self.clone().remote_footer(i));
            ahead.entry(i).or_insert_with(read);
        }
        ahead.remove(&index)
    }

    /// Nobody wants the next footers any more.
    pub(super) fn stop_reading_ahead(&self) {
        self.ahead().values().for_each(JoinHandle::abort);
    }

    fn ahead(&self) -> MutexGuard<'_, Footers> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn remote_footer(
        self: Arc<Self>,
        index: usize,
    ) -> Result<ArrowReaderMetadata, WireError> {
        let Some((path, file)) = self.files.get(index) else {
            return Err(internal("a file is missing"));
        };
        let end = file.size.saturating_sub(FOOTER_BYTES)..file.size;
        let parts = self.fetch(index, vec![end], Use::Lookup).await?;
        let source = self.clone();
        // It may ask for more.
        let read = tokio::task::spawn_blocking(move || {
            let footer = source.read_footer(index, parts.clone())?;
            source.keep_page_indexes(index, &footer, parts);
            Ok::<_, WireError>(footer)
        });
        let footer = read.await.map_err(|e| internal(&e.to_string()))??;
        self.cache
            .put_footer(path.clone(), file.size, footer.clone());
        Ok(footer)
    }

    fn read_footer(
        self: &Arc<Self>,
        index: usize,
        parts: Parts,
    ) -> Result<ArrowReaderMetadata, WireError> {
        let Some((path, file)) = self.files.get(index) else {
            return Err(internal("a file is missing"));
        };
        let handle = self.open_file(index, parts)?;
        let length = handle.len();
        if length != file.size {
            let found = format!("it has {length} bytes instead of {}", file.size);
            return Err(self.corrupted(path, &found));
        }
        // The types come from Parquet and not from what an Arrow writer left in the metadata. The
        // offset index lets point reads skip pages.
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
            .with_offset_index_policy(PageIndexPolicy::Optional);
        ArrowReaderMetadata::load(&handle, options).map_err(|e| self.parquet(&handle, path, &e))
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
    pub(super) fn leaf(
        &self,
        footer: &ArrowReaderMetadata,
        column: usize,
    ) -> Option<(usize, usize)> {
        let root = self.root(footer, column)?;
        let schema = footer.parquet_schema();
        if !schema.root_schema().get_fields().get(root)?.is_primitive() {
            return None;
        }
        let leaf = (0..schema.num_columns()).find(|&i| schema.get_column_root_idx(i) == root)?;
        Some((leaf, root))
    }

    /// "could not read data file …: …"
    pub(super) fn io(&self, path: &str, error: &std::io::Error) -> WireError {
        from_io(error, &self.could_not_read(path))
    }

    pub(super) fn corrupted(&self, path: &str, what: &str) -> WireError {
        let message = format!("{}: {what}", self.could_not_read(path));
        WireError::new(ErrorCode::DataCorrupted, message)
    }

    /// An error that says why a file couldn't be read.
    pub(super) fn could_not(&self, path: &str, error: WireError) -> WireError {
        let message = format!("{}: {}", self.could_not_read(path), error.message);
        WireError { message, ..error }
    }

    pub(super) fn parquet(&self, handle: &Handle, path: &str, error: &ParquetError) -> WireError {
        if let Handle::Remote(file) = handle
            && let Some(failure) = file.failure()
        {
            return failure;
        }
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
