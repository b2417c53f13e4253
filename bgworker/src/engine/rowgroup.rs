//! Reads one morsel batch by batch: columns from the cache, the rest from Parquet.
//!
//! A row group is cut into windows of [`BATCH_ROWS`] rows, the same for cached chunks and for what
//! the reader yields. Columns that had to be decoded enter the cache when the row group has been
//! read to its end. A read of few rows goes to the pages that hold them and leaves the cache alone.

use super::BATCH_ROWS;
use super::adapt::adapt;
use super::cache::{ChunkKey, Chunks};
use super::error::from_arrow;
use super::remote::{Handle, Parts, is_remote};
use super::selection::{self, Selection};
use super::source::{Morsel, Source, SourceColumn};
use super::stats::add;
use super::values;
use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_execution::memory_pool::MemoryReservation;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use pg_lake_plan::ir::ColumnSource;
use pg_lake_plan::message::{FileRef, WireError};
use pg_lake_plan::types::LakeType;
use std::ops::Range;
use std::sync::Arc;

/// Fewer than one in that many rows wanted: read only their pages.
const SPARSE: u64 = 8;

/// Rows of a batch without columns.
const BARE_ROWS: u64 = 64 * BATCH_ROWS as u64;

/// Where a column of the scan comes from.
enum Slot {
    RowNumber,
    /// One value, `BATCH_ROWS` times.
    Constant(ArrayRef),
    Cached(Chunks),
    /// Index into [`RowGroupReader::reading`].
    Read(usize),
}

/// A column that is decoded.
struct Reading {
    root: usize,
    ty: LakeType,
    key: ChunkKey,
    /// The chunks so far, if they are to be cached.
    kept: Option<Vec<ArrayRef>>,
}

pub(super) struct RowGroupReader {
    source: Arc<Source>,
    file: usize,
    window: Range<u64>,
    next: u64,
    slots: Vec<Slot>,
    reading: Vec<Reading>,
    row_group: Option<(ArrowReaderMetadata, usize)>,
    /// Whether the morsel is a row group.
    is_row_group: bool,
    handle: Option<Handle>,
    reader: Option<ParquetRecordBatchReader>,
    /// The positions that `reader` yields, where it doesn't yield all.
    sparse: Option<Vec<u64>>,
    /// Memory of the chunks that are kept for the cache.
    reservation: MemoryReservation,
    /// Memory of what was fetched.
    fetched: Option<MemoryReservation>,
}

impl RowGroupReader {
    pub(super) fn open(
        source: Arc<Source>,
        morsel: Morsel,
        reservation: MemoryReservation,
    ) -> Result<Self, WireError> {
        let mut this = RowGroupReader {
            source,
            file: morsel.file,
            next: morsel.rows.start,
            window: morsel.rows,
            slots: vec![],
            reading: vec![],
            row_group: None,
            is_row_group: morsel.row_group.is_some(),
            handle: None,
            reader: None,
            sparse: None,
            reservation,
            fetched: None,
        };
        this.plan(morsel.row_group.as_ref())?;
        this.row_group = morsel.row_group;
        Ok(this)
    }

    /// Whether columns have to be decoded.
    pub(super) fn decodes(&self) -> bool {
        !self.reading.is_empty()
    }

    /// It is one of those that [`Counters`](super::stats::Counters) count.
    pub(super) fn is_row_group(&self) -> bool {
        self.is_row_group
    }

    /// The file, and the ranges of it that are going to be read, if it is in a store. A read of few rows
    /// finds out itself.
    pub(super) fn ranges(&self) -> Option<(usize, Vec<Range<u64>>)> {
        let (_, file) = self.source.files.get(self.file)?;
        if !is_remote(file) || self.sparse.is_some() {
            return None;
        }
        let (footer, row_group) = self.row_group.as_ref()?;
        let columns = footer.metadata().row_groups().get(*row_group)?.columns();
        let descriptor = footer.parquet_schema();
        let mut ranges: Vec<Range<u64>> = columns
            .iter()
            .enumerate()
            .filter(|(leaf, _)| {
                let root = descriptor.get_column_root_idx(*leaf);
                self.reading.iter().any(|reading| reading.root == root)
            })
            .map(|(_, chunk)| {
                let (start, length) = chunk.byte_range();
                start..start.saturating_add(length).min(file.size)
            })
            .filter(|range| range.start < range.end)
            .collect();
        ranges.sort_unstable_by_key(|range| range.start);
        // One range where they touch.
        ranges.dedup_by(|next, range| {
            let touches = next.start <= range.end;
            if touches {
                range.end = range.end.max(next.end);
            }
            touches
        });
        (!ranges.is_empty()).then_some((self.file, ranges))
    }

    /// Begins to read; `parts` of the file are at hand, and take `memory`.
    pub(super) fn begin(
        &mut self,
        parts: Parts,
        memory: Option<MemoryReservation>,
    ) -> Result<(), WireError> {
        self.fetched = memory;
        match self.row_group.take() {
            Some((footer, row_group)) if self.decodes() => self.start(&footer, row_group, parts),
            _ => Ok(()),
        }
    }

    fn file(&self) -> Result<(&Arc<str>, &FileRef), WireError> {
        match self.source.files.get(self.file) {
            Some((path, file)) => Ok((path, file)),
            None => Err(super::error::internal("a file is missing")),
        }
    }

    /// Decides where each column comes from.
    fn plan(&mut self, row_group: Option<&(ArrowReaderMetadata, usize)>) -> Result<(), WireError> {
        let source = self.source.clone();
        let mut decode = vec![];
        for (i, column) in source.columns.iter().enumerate() {
            let field = match column.source {
                ColumnSource::RowNumber => None,
                ColumnSource::Field(id) => {
                    row_group.and_then(|(footer, n)| Some((id, *n, source.root(footer, i)?)))
                }
            };
            let slot = match (&column.source, field) {
                (ColumnSource::RowNumber, _) => Slot::RowNumber,
                (ColumnSource::Field(_), None) => {
                    Slot::Constant(values::repeat(&column.missing, BATCH_ROWS)?)
                }
                (ColumnSource::Field(_), Some((id, row_group, root))) => {
                    let key = self.key(id, row_group, column)?;
                    match source.cache.get(&key) {
                        Some(chunks) => Slot::Cached(chunks),
                        None => {
                            // Its place is given below.
                            decode.push((i, root, key));
                            Slot::Read(usize::MAX)
                        }
                    }
                }
            };
            self.slots.push(slot);
        }
        if decode.is_empty() {
            let cached = self
                .slots
                .iter()
                .filter(|s| matches!(s, Slot::Cached(_)))
                .count();
            add(&source.counters.chunks_cached, cached);
            return Ok(());
        }
        self.choose_sparse()?;
        if self.sparse.is_some() {
            // The cached chunks don't line up with what the reader will yield.
            decode.clear();
            if let Some((footer, n)) = row_group {
                for (i, column) in source.columns.iter().enumerate() {
                    if let (ColumnSource::Field(id), Some(root)) =
                        (&column.source, source.root(footer, i))
                    {
                        decode.push((i, root, self.key(*id, *n, column)?));
                    }
                }
            }
        }
        for (i, root, key) in decode {
            let place = match self.reading.iter().position(|r| r.key == key) {
                Some(place) => place,
                None => {
                    self.reading.push(Reading {
                        root,
                        ty: key.ty.clone(),
                        key,
                        kept: None,
                    });
                    self.reading.len() - 1
                }
            };
            if let Some(slot) = self.slots.get_mut(i) {
                *slot = Slot::Read(place);
            }
        }
        let cached = self
            .slots
            .iter()
            .filter(|s| matches!(s, Slot::Cached(_)))
            .count();
        add(&source.counters.chunks_cached, cached);
        add(&source.counters.chunks_decoded, self.reading.len());
        Ok(())
    }

    fn key(
        &self,
        field: i32,
        row_group: usize,
        column: &SourceColumn,
    ) -> Result<ChunkKey, WireError> {
        let (path, file) = self.file()?;
        Ok(ChunkKey {
            path: path.clone(),
            size: file.size,
            row_group,
            field,
            ty: column.ty.clone(),
        })
    }

    fn choose_sparse(&mut self) -> Result<(), WireError> {
        let (_, file) = self.file()?;
        if file.ranges.is_none() {
            return Ok(());
        }
        let runs = selection::runs(file, self.window.clone());
        let wanted: u64 = runs.iter().map(|run| run.end - run.start).sum();
        if wanted * SPARSE < self.window.end - self.window.start {
            self.sparse = Some(runs.into_iter().flatten().collect());
        }
        Ok(())
    }

    /// Opens the Parquet reader for the columns that are decoded.
    fn start(
        &mut self,
        footer: &ArrowReaderMetadata,
        row_group: usize,
        parts: Parts,
    ) -> Result<(), WireError> {
        let source = self.source.clone();
        let handle = source.open_file(self.file, parts)?;
        self.handle = Some(handle.clone());
        let (path, file) = self.file()?;
        let descriptor = footer.parquet_schema();
        let roots = self.reading.iter().map(|r| r.root);
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(handle.clone(), footer.clone())
                .with_row_groups(vec![row_group])
                .with_projection(ProjectionMask::roots(descriptor, roots))
                .with_batch_size(BATCH_ROWS);
        let rows = self.window.end - self.window.start;
        let mut share = 1.0;
        if let Some(positions) = &self.sparse {
            let first = self.window.start;
            let runs = selection::runs(file, self.window.clone());
            let runs = runs
                .into_iter()
                .map(|run| (run.start - first) as usize..(run.end - first) as usize);
            builder = builder
                .with_row_selection(RowSelection::from_consecutive_ranges(runs, rows as usize));
            share = positions.len() as f64 / rows.max(1) as f64;
        }
        let reader = builder
            .build()
            .map_err(|e| source.parquet(&handle, path, &e))?;
        self.reader = Some(reader);
        let metadata = footer.metadata().row_groups().get(row_group);
        for reading in &mut self.reading {
            let leaves = (0..descriptor.num_columns())
                .filter(|&leaf| descriptor.get_column_root_idx(leaf) == reading.root);
            let (mut compressed, mut decoded) = (0i64, 0i64);
            for chunk in leaves.filter_map(|leaf| metadata?.columns().get(leaf)) {
                compressed = compressed.saturating_add(chunk.compressed_size());
                decoded = decoded.saturating_add(chunk.uncompressed_size());
            }
            add(
                &source.counters.bytes_read,
                (compressed.max(0) as f64 * share) as usize,
            );
            let width = reading.ty.fixed_width().unwrap_or(0);
            let decoded = usize::try_from(decoded)
                .unwrap_or(0)
                .max(width * rows as usize);
            if self.sparse.is_none() && source.cache.admits(decoded) {
                reading.kept = Some(vec![]);
            }
        }
        Ok(())
    }

    /// The next visible rows, before the predicate. `None`: the end.
    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>, WireError> {
        if self.sparse.is_some() {
            return self.next_sparse();
        }
        if self.reader.is_none()
            && let Some(run) = self.only_run()?
        {
            return self.next_of_run(run);
        }
        while self.next < self.window.end {
            let step = if self.slots.is_empty() {
                BARE_ROWS
            } else {
                BATCH_ROWS as u64
            };
            let window = self.next..self.window.end.min(self.next + step);
            let rows = (window.end - window.start) as usize;
            let decoded = self.decode(rows)?;
            let (_, file) = self.file()?;
            let selected = selection::select(file, window.clone());
            self.next = window.end;
            let batch = match selected {
                Selection::None => continue,
                Selection::All => self.assemble(window, rows, &decoded)?,
                Selection::Some(bits) if self.slots.is_empty() => {
                    self.batch(vec![], bits.count_set_bits())?
                }
                Selection::Some(bits) => {
                    let all = self.assemble(window, rows, &decoded)?;
                    filter_record_batch(&all, &BooleanArray::new(bits, None))
                        .map_err(|e| from_arrow(&e))?
                }
            };
            return Ok(Some(batch));
        }
        self.finish();
        Ok(None)
    }

    /// The rows that are left, if they are consecutive ones that were asked for by number.
    fn only_run(&self) -> Result<Option<Range<u64>>, WireError> {
        let (_, file) = self.file()?;
        if file.ranges.is_none() {
            return Ok(None);
        }
        let mut runs = selection::runs(file, self.next..self.window.end);
        Ok(match (runs.pop(), runs.is_empty()) {
            (Some(run), true) => Some(run),
            _ => None,
        })
    }

    /// Slices of the cached chunks: a point read doesn't look at the rows around it.
    fn next_of_run(&mut self, run: Range<u64>) -> Result<Option<RecordBatch>, WireError> {
        let from = run.start - self.window.start;
        let (chunk, offset) = (from as usize / BATCH_ROWS, from as usize % BATCH_ROWS);
        let rows = ((run.end - run.start) as usize).min(BATCH_ROWS - offset);
        let (_, file) = self.file()?;
        let positions = run.start..run.start + rows as u64;
        let columns = self
            .slots
            .iter()
            .map(|slot| {
                let column: Option<ArrayRef> = match slot {
                    Slot::RowNumber => Some(row_numbers(file, positions.clone())),
                    Slot::Constant(value) => Some(value.slice(0, rows.min(value.len()))),
                    Slot::Cached(chunks) => chunks
                        .get(chunk)
                        .filter(|chunk| offset + rows <= chunk.len())
                        .map(|chunk| chunk.slice(offset, rows)),
                    Slot::Read(_) => None,
                };
                column.ok_or_else(|| super::error::internal("a column's chunk is missing"))
            })
            .collect::<Result<_, _>>()?;
        self.next = run.start + rows as u64;
        self.batch(columns, rows).map(Some)
    }

    /// The next rows of the columns that are read, in the order of `reading`.
    fn decode(&mut self, rows: usize) -> Result<Vec<ArrayRef>, WireError> {
        let Some(reader) = &mut self.reader else {
            return Ok(vec![]);
        };
        let next = reader.next();
        let (path, _) = self.file()?;
        let batch = match next {
            Some(Ok(batch)) if batch.num_rows() == rows => batch,
            Some(Ok(_)) | None => {
                return Err(self
                    .source
                    .corrupted(path, "a row group has fewer rows than it says"));
            }
            Some(Err(error)) => return Err(self.read_error(path, &error)),
        };
        let columns = self.adapted(&batch)?;
        for (reading, column) in self.reading.iter_mut().zip(&columns) {
            if let Some(kept) = &mut reading.kept {
                if self
                    .reservation
                    .try_grow(column.get_array_memory_size())
                    .is_ok()
                {
                    kept.push(column.clone());
                } else {
                    reading.kept = None;
                }
            }
        }
        Ok(columns)
    }

    /// The reader yields columns in the file's order.
    fn adapted(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, WireError> {
        let mut roots: Vec<usize> = self.reading.iter().map(|r| r.root).collect();
        roots.sort_unstable();
        roots.dedup();
        let (path, _) = self.file()?;
        let mut columns = Vec::with_capacity(self.reading.len());
        for reading in &self.reading {
            let place = roots.partition_point(|&root| root < reading.root);
            let column = batch
                .columns()
                .get(place)
                .ok_or_else(|| self.source.corrupted(path, "a column is missing"))?;
            let column =
                adapt(column, &reading.ty).map_err(|e| self.source.corrupted(path, &e.message))?;
            columns.push(column);
        }
        Ok(columns)
    }

    fn next_sparse(&mut self) -> Result<Option<RecordBatch>, WireError> {
        let Some(reader) = &mut self.reader else {
            return Ok(None);
        };
        let next = reader.next();
        let (path, _) = self.file()?;
        let batch = match next {
            None => return Ok(None),
            Some(Ok(batch)) => batch,
            Some(Err(error)) => return Err(self.read_error(path, &error)),
        };
        let rows = batch.num_rows();
        let decoded = self.adapted(&batch)?;
        let positions: Vec<u64> = match &mut self.sparse {
            Some(positions) => positions.drain(..rows.min(positions.len())).collect(),
            None => vec![],
        };
        if positions.len() != rows {
            let (path, _) = self.file()?;
            return Err(self.source.corrupted(path, "more rows than were selected"));
        }
        let (_, file) = self.file()?;
        let numbers =
            Int64Array::from_iter_values(positions.iter().map(|&at| file.rows.row(at) as i64));
        let numbers: ArrayRef = Arc::new(numbers);
        let columns = self.columns(rows, &decoded, || numbers.clone(), None)?;
        self.batch(columns, rows).map(Some)
    }

    fn assemble(
        &self,
        window: Range<u64>,
        rows: usize,
        decoded: &[ArrayRef],
    ) -> Result<RecordBatch, WireError> {
        let (_, file) = self.file()?;
        let numbers = || row_numbers(file, window.clone());
        let chunk = (window.start - self.window.start) as usize / BATCH_ROWS;
        let columns = self.columns(rows, decoded, numbers, Some(chunk))?;
        self.batch(columns, rows)
    }

    fn columns(
        &self,
        rows: usize,
        decoded: &[ArrayRef],
        numbers: impl Fn() -> ArrayRef,
        chunk: Option<usize>,
    ) -> Result<Vec<ArrayRef>, WireError> {
        self.slots
            .iter()
            .map(|slot| {
                let column = match slot {
                    Slot::RowNumber => Some(numbers()),
                    Slot::Constant(value) => Some(value.slice(0, rows.min(value.len()))),
                    Slot::Cached(chunks) => chunk.and_then(|i| chunks.get(i).cloned()),
                    Slot::Read(place) => decoded.get(*place).cloned(),
                };
                column.ok_or_else(|| super::error::internal("a column's chunk is missing"))
            })
            .collect()
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, WireError> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.source.schema.clone(), columns, &options)
            .map_err(|e| from_arrow(&e))
    }

    /// All rows have been read: what was kept goes to the cache.
    fn finish(&mut self) {
        self.reader = None;
        self.handle = None;
        self.fetched = None;
        let reading = std::mem::take(&mut self.reading);
        self.slots.clear();
        self.reservation.free();
        for reading in reading {
            if let Some(kept) = reading.kept {
                self.source.cache.put(reading.key, kept);
            }
        }
    }

    fn read_error(&self, path: &str, error: &ArrowError) -> WireError {
        if let Some(Handle::Remote(file)) = &self.handle
            && let Some(failure) = file.failure()
        {
            return failure;
        }
        match (error, &self.handle) {
            (ArrowError::ExternalError(inner), Some(handle)) => match inner.downcast_ref() {
                Some(inner) => self.source.parquet(handle, path, inner),
                None => self.source.corrupted(path, &inner.to_string()),
            },
            (ArrowError::IoError(_, error), _) => self.source.io(path, error),
            (other, _) => self.source.corrupted(path, &other.to_string()),
        }
    }
}

/// The numbers of the rows at some positions of a file.
fn row_numbers(file: &FileRef, positions: Range<u64>) -> ArrayRef {
    let numbers = file.rows.runs(positions).flatten().map(|row| row as i64);
    Arc::new(Int64Array::from_iter_values(numbers))
}
