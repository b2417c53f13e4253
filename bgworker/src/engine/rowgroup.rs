//! Reads one morsel batch by batch: columns from the cache, the rest from Parquet.
//!
//! A row group is cut into windows of [`BATCH_ROWS`] rows, the same for cached chunks and for what
//! the reader yields, unless rows are wide: then it yields parts of these. Columns that had to be
//! decoded enter the cache when the row group has been read to its end. A read of few rows goes to
//! the pages that hold them, as does one whose condition leaves out many pages; neither puts anything
//! into the cache.

use super::BATCH_ROWS;
use super::adapt::adapt;
use super::cache::{ChunkKey, Chunks};
use super::error::from_arrow;
use super::picked::{Picked, gather};
use super::remote::{Handle, Parts};
use super::selection::{self, Selection};
use super::source::{Morsel, Source, SourceColumn};
use super::stats::add;
use super::values;
use super::wide::{rows_at_a_time, whole_chunks};
use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_execution::memory_pool::MemoryReservation;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
    RowSelectionPolicy,
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

impl Slot {
    fn cached_bytes(&self) -> usize {
        match self {
            Slot::Cached(chunks) => chunks.iter().map(|c| c.get_buffer_memory_size()).sum(),
            Slot::RowNumber | Slot::Constant(_) | Slot::Read(_) => 0,
        }
    }
}

/// A column that is decoded.
pub(super) struct Reading {
    pub(super) root: usize,
    pub(super) ty: LakeType,
    key: ChunkKey,
    /// The chunks so far, if they are to be cached.
    kept: Option<Vec<ArrayRef>>,
}

pub(super) struct RowGroupReader {
    pub(super) source: Arc<Source>,
    pub(super) file: usize,
    pub(super) window: Range<u64>,
    next: u64,
    /// Rows that are handed out at a time, and that the reader yields: `BATCH_ROWS` are a multiple.
    step: usize,
    slots: Vec<Slot>,
    pub(super) reading: Vec<Reading>,
    pub(super) row_group: Option<(ArrowReaderMetadata, usize)>,
    /// Whether the morsel is a row group.
    is_row_group: bool,
    handle: Option<Handle>,
    reader: Option<ParquetRecordBatchReader>,
    /// The rows that `reader` yields, where it doesn't yield all.
    pub(super) picked: Option<Picked>,
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
            step: BATCH_ROWS,
            slots: vec![],
            reading: vec![],
            row_group: None,
            is_row_group: morsel.row_group.is_some(),
            handle: None,
            reader: None,
            picked: None,
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

    /// No row of it is in a page that may have rows of use.
    pub(super) fn is_left_out(&self) -> bool {
        self.picked.as_ref().is_some_and(Picked::is_empty)
    }

    /// Begins to read; `parts` of the file are at hand, and take `memory`.
    pub(super) fn begin(
        &mut self,
        parts: Parts,
        memory: Option<MemoryReservation>,
    ) -> Result<(), WireError> {
        self.fetched = memory;
        match self.row_group.take() {
            Some((footer, row_group)) if self.decodes() && !self.is_left_out() => {
                self.start(&footer, row_group, parts)
            }
            _ => {
                self.step = self.few_if_wide(0)?;
                Ok(())
            }
        }
    }

    /// Rows that are handed out at a time, with columns that take so many bytes decoded, and those of the cache.
    fn few_if_wide(&self, decoded: usize) -> Result<usize, WireError> {
        let (_, file) = self.file()?;
        // A point read doesn't look at all chunks.
        let cached: usize = match file.ranges {
            Some(_) => 0,
            None => self.slots.iter().map(Slot::cached_bytes).sum(),
        };
        let rows = self.window.end - self.window.start;
        Ok(rows_at_a_time(decoded.saturating_add(cached), rows))
    }

    pub(super) fn file(&self) -> Result<(&Arc<str>, &FileRef), WireError> {
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
        self.choose_few()?;
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

    fn choose_few(&mut self) -> Result<(), WireError> {
        let (_, file) = self.file()?;
        if file.ranges.is_none() {
            return Ok(());
        }
        let runs = selection::runs(file, self.window.clone());
        let wanted: u64 = runs.iter().map(|run| run.end - run.start).sum();
        if wanted * SPARSE < self.window.end - self.window.start {
            self.picked = Some(Picked::few(runs));
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
        let reading = self.reading.iter();
        let sizes: Vec<(usize, usize)> = reading
            .map(|reading| self.sizes(footer, row_group, reading))
            .collect();
        let rows = self.window.end - self.window.start;
        let decoded = sizes.iter().map(|(_, decoded)| *decoded);
        self.step = self.few_if_wide(decoded.fold(0, usize::saturating_add))?;
        let handle = source.open_file(self.file, parts)?;
        self.handle = Some(handle.clone());
        let (path, _) = self.file()?;
        let descriptor = footer.parquet_schema();
        let roots = self.reading.iter().map(|r| r.root);
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(handle.clone(), footer.clone())
                .with_row_groups(vec![row_group])
                .with_projection(ProjectionMask::roots(descriptor, roots))
                .with_batch_size(self.step);
        let mut share = 1.0;
        if let Some(picked) = &self.picked {
            builder = builder.with_row_selection(picked.selection(&self.window));
            if !picked.are_few() {
                // A mask over short runs would decode the pages between them, which weren't fetched.
                builder = builder.with_row_selection_policy(RowSelectionPolicy::Selectors);
            }
            share = picked.rows() as f64 / rows.max(1) as f64;
        }
        let reader = builder
            .build()
            .map_err(|e| source.parquet(&handle, path, &e))?;
        self.reader = Some(reader);
        for (reading, (compressed, decoded)) in self.reading.iter_mut().zip(sizes) {
            let read = (compressed as f64 * share) as usize;
            add(&source.counters.bytes_read, read);
            if self.picked.is_none() && source.cache.admits(decoded) {
                reading.kept = Some(vec![]);
            }
        }
        Ok(())
    }

    /// The next visible rows, before the predicate. `None`: the end.
    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>, WireError> {
        if self.picked.is_some() {
            return self.next_picked();
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
                self.step as u64
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
                    Slot::RowNumber => Some(row_numbers(file, std::slice::from_ref(&positions))),
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

    fn next_picked(&mut self) -> Result<Option<RecordBatch>, WireError> {
        loop {
            let (Some(reader), Some(picked)) = (&mut self.reader, &mut self.picked) else {
                return Ok(None);
            };
            let next = reader.next();
            let rows = match &next {
                Some(Ok(batch)) => batch.num_rows(),
                Some(Err(_)) | None => 0,
            };
            let (runs, is_end) = (picked.take(rows), picked.is_empty());
            let (path, _) = self.file()?;
            let batch = match next {
                None if is_end => {
                    self.finish();
                    return Ok(None);
                }
                None => {
                    let found = "a row group has fewer rows than it says";
                    return Err(self.source.corrupted(path, found));
                }
                Some(Ok(batch)) => batch,
                Some(Err(error)) => return Err(self.read_error(path, &error)),
            };
            let Some(runs) = runs else {
                return Err(self.source.corrupted(path, "more rows than were selected"));
            };
            if let Some(batch) = self.visible(&batch, &runs)? {
                return Ok(Some(batch));
            }
        }
    }

    /// The visible rows of a batch of rows at some positions; `None` if there are none.
    fn visible(
        &self,
        batch: &RecordBatch,
        runs: &[Range<u64>],
    ) -> Result<Option<RecordBatch>, WireError> {
        let (_, file) = self.file()?;
        let selected = match &self.picked {
            Some(picked) => picked.visible(file, runs),
            None => Selection::All,
        };
        if selected == Selection::None || runs.is_empty() {
            return Ok(None);
        }
        let (rows, decoded) = (batch.num_rows(), self.adapted(batch)?);
        let numbers = || row_numbers(file, runs);
        let cached = |chunks: &Chunks| gather(chunks, runs, self.window.start).map(Some);
        let columns = self.columns(rows, &decoded, numbers, cached)?;
        let all = self.batch(columns, rows)?;
        Ok(Some(match selected {
            Selection::Some(bits) => filter_record_batch(&all, &BooleanArray::new(bits, None))
                .map_err(|e| from_arrow(&e))?,
            Selection::All | Selection::None => all,
        }))
    }

    fn assemble(
        &self,
        window: Range<u64>,
        rows: usize,
        decoded: &[ArrayRef],
    ) -> Result<RecordBatch, WireError> {
        let (_, file) = self.file()?;
        let numbers = || row_numbers(file, std::slice::from_ref(&window));
        let from = (window.start - self.window.start) as usize;
        let (chunk, offset) = (from / BATCH_ROWS, from % BATCH_ROWS);
        let cached = |chunks: &Chunks| {
            let chunk = chunks.get(chunk);
            let chunk = chunk.filter(|chunk| offset + rows <= chunk.len());
            Ok(chunk.map(|chunk| chunk.slice(offset, rows)))
        };
        let columns = self.columns(rows, decoded, numbers, cached)?;
        self.batch(columns, rows)
    }

    fn columns(
        &self,
        rows: usize,
        decoded: &[ArrayRef],
        numbers: impl Fn() -> ArrayRef,
        cached: impl Fn(&Chunks) -> Result<Option<ArrayRef>, WireError>,
    ) -> Result<Vec<ArrayRef>, WireError> {
        self.slots
            .iter()
            .map(|slot| {
                let column = match slot {
                    Slot::RowNumber => Some(numbers()),
                    Slot::Constant(value) => Some(value.slice(0, rows.min(value.len()))),
                    Slot::Cached(chunks) => cached(chunks)?,
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
        for reading in reading {
            if let Some(kept) = reading.kept
                && let Some(chunks) = whole_chunks(kept, self.step)
            {
                self.source.cache.put(reading.key, chunks);
            }
        }
        self.reservation.free();
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
fn row_numbers(file: &FileRef, positions: &[Range<u64>]) -> ArrayRef {
    let runs = positions.iter().cloned();
    let numbers = runs.flat_map(|run| file.rows.runs(run)).flatten();
    Arc::new(Int64Array::from_iter_values(numbers.map(|row| row as i64)))
}
