//! Reads of few rows, without a plan.
//!
//! An index leads a backend to single rows, one request each: what a plan costs to build and to
//! drive would be most of the time. A row group that is asked for again and again is decoded once,
//! in the background, so that its rows come from the cache.

use super::Engine;
use super::error::internal;
use super::memory::{QueryPool, optional};
use super::remote::Use;
use super::rowgroup::RowGroupReader;
use super::source::{Morsel, Source, shared};
use super::stats::{Counters, add};
use super::validate::validate;
use crate::arrow_types::scan_schema;
use arrow::record_batch::RecordBatch;
use datafusion_execution::memory_pool::MemoryPool;
use pg_lake_plan::ir::{Plan, Scan};
use pg_lake_plan::message::{Execute, FileRef, ScanStats, TableInput, WireError};
use pg_lake_plan::store::Store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// The most rows that are read this way.
const ROWS_MAX: u64 = 4096;

/// After that many reads of a row group it is decoded whole, if the cache has room for it.
const WARM_AFTER: u32 = 16;

/// After that many it is if other columns have to go for it: what it costs must be little beside the reads.
const DISPLACE_AFTER: u32 = 8 * WARM_AFTER;

/// The part of the cache that it may displace.
const DISPLACED_MAX: usize = 4;

/// Row groups whose reads are counted.
const COUNTED_MAX: usize = 4096;

/// How often row groups were read.
#[derive(Debug, Default)]
pub(super) struct Heat {
    reads: Mutex<HashMap<(Arc<str>, usize), u32>>,
    /// One row group is decoded at a time.
    decoding: tokio::sync::Mutex<()>,
}

impl Heat {
    /// Counts a read; says whether the row group has just become worth decoding.
    fn count(&self, path: &Arc<str>, row_group: usize) -> Worth {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.len() >= COUNTED_MAX {
            reads.clear();
        }
        let n = reads.entry((path.clone(), row_group)).or_insert(0);
        *n += 1;
        if *n >= DISPLACE_AFTER {
            *n = 0;
            Worth::Displacing
        } else if n.is_multiple_of(WARM_AFTER) {
            Worth::Room
        } else {
            Worth::Nothing
        }
    }
}

/// What decoding a row group is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    Nothing,
    /// Free memory of the cache.
    Room,
    /// Memory of other columns.
    Displacing,
}

/// A read of few rows of files, batch by batch.
pub struct Few<'a> {
    engine: &'a Engine,
    request: &'a Execute,
    stores: &'a [Store],
    scan: &'a Scan,
    source: Arc<Source>,
    counters: Arc<Counters>,
    pool: Arc<dyn MemoryPool>,
    current: Option<Reading>,
}

/// The row group that is read.
struct Reading {
    reader: RowGroupReader,
    decodes: bool,
    /// File and row group.
    place: Option<(usize, usize)>,
}

impl Engine {
    /// Answers a request for chosen rows of files; `None` if it asks for more than that.
    ///
    /// It reads pages of at most [`ROWS_MAX`] rows on the calling thread.
    pub fn read_few<'a>(
        &'a self,
        request: &'a Execute,
        stores: &'a [Store],
        cancel: &CancellationToken,
    ) -> Option<Result<Few<'a>, WireError>> {
        let (Plan::Scan(scan), [table]) = (&request.fragment.root, request.tables.as_slice())
        else {
            return None;
        };
        let wanted = |file: &FileRef| {
            let ranges = file.ranges.as_ref()?;
            Some(
                ranges
                    .iter()
                    .map(|(start, end)| end.saturating_sub(*start))
                    .sum::<u64>(),
            )
        };
        let rows: u64 = table.files.iter().map(wanted).sum::<Option<u64>>()?;
        if scan.predicate.is_some() || table.feed.is_some() || rows > ROWS_MAX {
            return None;
        }
        Some(self.begin_few(request, stores, scan, table, cancel))
    }

    fn begin_few<'a>(
        &'a self,
        request: &'a Execute,
        stores: &'a [Store],
        scan: &'a Scan,
        table: &TableInput,
        cancel: &CancellationToken,
    ) -> Result<Few<'a>, WireError> {
        validate(request, 1)?;
        let counters = Arc::new(Counters::of_tables(request.tables.len()));
        let files = table.files.clone();
        let source = self.source_of_few(request, stores, scan, files, &counters, cancel)?;
        let pool = QueryPool::new(self.budget.clone(), request.memory_limit);
        Ok(Few {
            engine: self,
            request,
            stores,
            scan,
            source: Arc::new(source),
            counters,
            pool: Arc::new(pool),
            current: None,
        })
    }

    fn source_of_few(
        &self,
        request: &Execute,
        stores: &[Store],
        scan: &Scan,
        files: Vec<FileRef>,
        counters: &Arc<Counters>,
        cancel: &CancellationToken,
    ) -> Result<Source, WireError> {
        Source::new(
            scan,
            scan_schema(&scan.columns),
            None,
            vec![],
            shared(files),
            self.cache.clone(),
            counters.clone(),
            cancel.clone(),
            self.remote(request, stores.to_vec()),
        )
    }

    /// Decodes the columns of a row group into the cache.
    fn warm(&self, source: Arc<Source>, row_group: usize, worth: Worth) {
        let heat = self.heat.clone();
        let room = match worth {
            Worth::Displacing => self.cache.limit() / DISPLACED_MAX,
            _ => self.cache.free(),
        };
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(self.budget.clone(), 0));
        tokio::spawn(async move {
            let _one = heat.decoding.lock().await;
            // Whoever asks for the rows again hears of an error.
            if let Err(error) = decode(source, row_group, room, pool).await {
                tracing::debug!(target: "pg_lake", "a row group was not decoded: {error}");
            }
        });
    }
}

impl Few<'_> {
    /// The next rows; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, WireError> {
        loop {
            if let Some(reading) = &mut self.current {
                if let Some(batch) = reading.reader.next_batch()? {
                    self.counters.add_cold(self.source.number, batch.num_rows());
                    add(&self.counters.rows_out, batch.num_rows());
                    return Ok(Some(batch));
                }
                self.count()?;
                self.current = None;
            }
            let Some(morsel) = self.source.next_morsel().await? else {
                return Ok(None);
            };
            let place = morsel.place();
            let reservation = optional("LakeScan").register(&self.pool);
            let mut reader = RowGroupReader::open(self.source.clone(), morsel, reservation)?;
            let decodes = reader.decodes();
            reader.begin(vec![], None)?;
            self.current = Some(Reading {
                reader,
                decodes,
                place,
            });
        }
    }

    pub fn stats(&self) -> ScanStats {
        self.counters.snapshot()
    }

    /// A row group has been read that the cache doesn't have.
    fn count(&self) -> Result<(), WireError> {
        let engine = self.engine;
        if let Some(reading) = &self.current
            && let (true, Some((file, row_group))) = (reading.decodes, reading.place)
            && let Some((path, file)) = self.source.files.get(file)
            && let worth = engine.heat.count(path, row_group)
            && worth != Worth::Nothing
        {
            let mut whole = file.clone();
            whole.ranges = None;
            whole.deleted.clear();
            // It outlives the request.
            let source = engine.source_of_few(
                self.request,
                self.stores,
                self.scan,
                vec![whole],
                &Arc::default(),
                &CancellationToken::new(),
            )?;
            engine.warm(Arc::new(source), row_group, worth);
        }
        Ok(())
    }
}

/// Reads a row group to its end.
async fn decode(
    source: Arc<Source>,
    row_group: usize,
    room: usize,
    pool: Arc<dyn MemoryPool>,
) -> Result<(), WireError> {
    while let Some(morsel) = source.next_morsel().await? {
        if morsel.place() != Some((0, row_group)) || morsel.bytes() > room {
            continue;
        }
        let reservation = optional("LakeScan").register(&pool);
        let mut reader = RowGroupReader::open(source.clone(), morsel, reservation)?;
        let parts = match reader.ranges() {
            Some((file, ranges)) => source.fetch(file, ranges, Use::Ahead).await?,
            None => vec![],
        };
        let decoded = tokio::task::spawn_blocking(move || {
            reader.begin(parts, None)?;
            while reader.next_batch()?.is_some() {}
            Ok::<(), WireError>(())
        });
        decoded.await.map_err(|e| internal(&e.to_string()))??;
    }
    Ok(())
}

impl Morsel {
    /// File and row group.
    fn place(&self) -> Option<(usize, usize)> {
        self.row_group.as_ref().map(|(_, n)| (self.file, *n))
    }

    /// Bytes of its columns before compression.
    fn bytes(&self) -> usize {
        let bytes = self.row_group.as_ref().and_then(|(footer, n)| {
            let row_group = footer.metadata().row_groups().get(*n)?;
            usize::try_from(row_group.total_byte_size()).ok()
        });
        bytes.unwrap_or(usize::MAX)
    }
}
