//! The scan as an operator of DataFusion.
//!
//! Its partitions share one queue of row groups; a feed is a partition of its own. Every batch is
//! a point where the task yields and cancellation is noticed.

use super::error::{cancelled, from_arrow, internal, raise};
use super::memory::optional;
use super::remote::{Parts, Use};
use super::rowgroup::RowGroupReader;
use super::source::{Morsel, Source};
use super::stats::add;
use super::{BATCH_ROWS, Feed};
use arrow::array::BooleanArray;
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::Result;
use datafusion_execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::{EquivalenceProperties, Partitioning};
use datafusion_physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion_physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;
use futures::stream;
use pg_lake_plan::message::{ErrorCode, WireError};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

pub(super) struct LakeScanExec {
    source: Arc<Source>,
    feed: Mutex<Option<Feed>>,
    /// Partitions that read files; a feed's partition comes after them.
    readers: usize,
    predicate: String,
    outputs: Option<Arc<[usize]>>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LakeScanExec {
    /// `predicate` is the text for EXPLAIN; `outputs` are the columns that come out, `None` for all.
    pub(super) fn new(
        source: Arc<Source>,
        feed: Option<Feed>,
        threads: usize,
        predicate: String,
        outputs: Option<Vec<usize>>,
    ) -> Result<Self, WireError> {
        let schema = match &outputs {
            None => source.schema.clone(),
            Some(outputs) => {
                let schema = source.schema.project(outputs);
                Arc::new(schema.map_err(|e| from_arrow(&e))?)
            }
        };
        let wanted: u64 = source
            .files
            .iter()
            .map(|(_, file)| super::selection::count(file, 0..file.rows.count()))
            .sum();
        let useful = wanted.div_ceil(4 * BATCH_ROWS as u64);
        let useful = usize::try_from(useful).unwrap_or(usize::MAX);
        let mut readers = useful.clamp(1, threads.max(1));
        if source.files.is_empty() && feed.is_some() {
            readers = 0;
        }
        let partitions = readers + usize::from(feed.is_some());
        source.filters.begin(partitions);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(LakeScanExec {
            source,
            feed: Mutex::new(feed),
            readers,
            predicate,
            outputs: outputs.map(Arc::from),
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl Drop for LakeScanExec {
    fn drop(&mut self) {
        self.source.stop_reading_ahead();
    }
}

impl fmt::Debug for LakeScanExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LakeScanExec({})", self.source.table)
    }
}

impl DisplayAs for LakeScanExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LakeScan: {}, files={}",
            self.source.table,
            self.source.files.len()
        )?;
        if !self.predicate.is_empty() {
            write!(f, ", predicate={}", self.predicate)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for LakeScanExec {
    fn name(&self) -> &str {
        "LakeScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let schema = self.schema.clone();
        let end = PartitionEnd(self.source.clone());
        if partition < self.readers {
            let partition = Partition {
                _end: end,
                source: self.source.clone(),
                outputs: self.outputs.clone(),
                current: None,
                ahead: VecDeque::new(),
                drained: false,
                pool: context.memory_pool().clone(),
                metrics,
            };
            let stream = stream::try_unfold(partition, |mut partition| async move {
                let next = partition.next().await.map_err(raise)?;
                Ok(next.map(|batch| (batch, partition)))
            });
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)));
        }
        let feed = self
            .feed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let fed = Fed {
            _end: end,
            source: self.source.clone(),
            outputs: self.outputs.clone(),
            feed,
            metrics,
        };
        let stream = stream::try_unfold(fed, |mut fed| async move {
            let next = fed.next().await.map_err(raise)?;
            Ok(next.map(|batch| (batch, fed)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The rows that pass the predicate and the filters; `None`: all.
fn selected(source: &Source, batch: &RecordBatch) -> Result<Option<BooleanBuffer>, WireError> {
    let (filters, counters) = (&source.filters, &source.counters);
    let Some(predicate) = &source.predicate else {
        return Ok(filters.rows(batch, None, false, counters));
    };
    if filters.are_after_predicate() {
        let pass = predicate.passing(batch)?;
        return Ok(filters.rows(batch, pass, false, counters));
    }
    let wanted = filters.rows(batch, None, true, counters);
    if wanted
        .as_ref()
        .is_some_and(|wanted| wanted.count_set_bits() == 0)
    {
        return Ok(wanted);
    }
    let pass = predicate.passing(batch)?;
    Ok(match (pass, wanted) {
        (Some(pass), Some(wanted)) => Some(&pass & &wanted),
        (pass, wanted) => pass.or(wanted),
    })
}

/// The selected rows, with the columns that come out; `None` if there are none.
fn passing(
    source: &Source,
    outputs: Option<&[usize]>,
    batch: RecordBatch,
) -> Result<Option<RecordBatch>, WireError> {
    let pass = selected(source, &batch)?;
    if pass.as_ref().is_some_and(|pass| pass.count_set_bits() == 0) {
        return Ok(None);
    }
    // Before rows are copied.
    let mut batch = match outputs {
        None => batch,
        Some(outputs) => batch.project(outputs).map_err(|e| from_arrow(&e))?,
    };
    if let Some(pass) = pass {
        let pass = BooleanArray::new(pass, None);
        batch = filter_record_batch(&batch, &pass).map_err(|e| from_arrow(&e))?;
    }
    if batch.num_rows() == 0 {
        return Ok(None);
    }
    add(&source.counters.rows_out, batch.num_rows());
    Ok(Some(batch))
}

/// Tells the scan's filters that a partition has ended, or isn't wanted any more.
struct PartitionEnd(Arc<Source>);

impl Drop for PartitionEnd {
    fn drop(&mut self) {
        self.0.filters.end_partition();
    }
}

/// A partition that reads files.
struct Partition {
    _end: PartitionEnd,
    source: Arc<Source>,
    outputs: Option<Arc<[usize]>>,
    current: Option<RowGroupReader>,
    /// The next row groups, whose bytes are on their way.
    ahead: VecDeque<Opening>,
    /// Nothing is left for `ahead`.
    drained: bool,
    pool: Arc<dyn MemoryPool>,
    metrics: BaselineMetrics,
}

impl Partition {
    async fn next(&mut self) -> Result<Option<RecordBatch>, WireError> {
        loop {
            tokio::task::yield_now().await;
            if self.source.cancel.is_cancelled() {
                return Err(cancelled());
            }
            if self.current.is_none() {
                self.current = self.open_next().await?;
                if self.current.is_none() {
                    return Ok(None);
                }
            }
            let time = self.metrics.elapsed_compute().clone();
            let timer = time.timer();
            let batch = self.step()?;
            timer.done();
            if let Some(batch) = batch {
                self.metrics.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
        }
    }

    /// One batch's worth of work.
    fn step(&mut self) -> Result<Option<RecordBatch>, WireError> {
        let Some(reader) = &mut self.current else {
            return Ok(None);
        };
        let Some(batch) = reader.next_batch()? else {
            add(
                &self.source.counters.row_groups_read,
                usize::from(reader.is_row_group()),
            );
            self.current = None;
            return Ok(None);
        };
        let source = &self.source;
        source.counters.add_cold(source.number, batch.num_rows());
        passing(&self.source, self.outputs.as_deref(), batch)
    }

    async fn open_next(&mut self) -> Result<Option<RowGroupReader>, WireError> {
        self.look_ahead().await?;
        let Some(mut opening) = self.ahead.pop_front() else {
            return Ok(None);
        };
        opening.fetch_now(&self.source, &self.pool);
        // While this one is waited for and read, the next ones come. What isn't fetched stays for all.
        if opening.is_fetched() {
            self.look_ahead().await?;
        }
        opening.ready().await.map(Some)
    }

    fn bytes_ahead(&self) -> usize {
        let fetches = self
            .ahead
            .iter()
            .filter_map(|opening| opening.fetch.as_ref());
        fetches.map(|fetch| fetch.memory.size()).sum()
    }

    /// Has the next row groups fetched; one that need not be ends it.
    async fn look_ahead(&mut self) -> Result<(), WireError> {
        while !self.drained
            && self.ahead.len() < AHEAD
            && self.ahead.back().is_none_or(Opening::is_fetched)
        {
            let Some(morsel) = self.source.next_morsel().await? else {
                self.drained = true;
                continue;
            };
            if self.source.is_filtered_out(&morsel).await? {
                add(&self.source.counters.row_groups_pruned, 1);
                add(&self.source.counters.row_groups_filtered, 1);
                tokio::task::yield_now().await;
                continue;
            }
            let room = match self.ahead.is_empty() {
                true => None,
                false => Some(AHEAD_BYTES.saturating_sub(self.bytes_ahead())),
            };
            let opening = Opening::new(&self.source, morsel, &self.pool, room).await?;
            if opening.reader.is_left_out() {
                add(&self.source.counters.row_groups_pruned, 1);
            } else {
                self.ahead.push_back(opening);
            }
        }
        Ok(())
    }
}

/// Row groups that a partition has fetched before their turn, and bytes of them.
const AHEAD: usize = 3;
const AHEAD_BYTES: usize = 64 << 20;

/// A row group before it is read.
struct Opening {
    reader: RowGroupReader,
    fetch: Option<Fetching>,
}

impl Opening {
    async fn new(
        source: &Arc<Source>,
        morsel: Morsel,
        pool: &Arc<dyn MemoryPool>,
        room: Option<usize>,
    ) -> Result<Self, WireError> {
        let reservation = optional("LakeScan").register(pool);
        let mut reader = RowGroupReader::open(source.clone(), morsel, reservation)?;
        reader.choose_pages().await?;
        let mut opening = Opening {
            reader,
            fetch: None,
        };
        opening.fetch(source, pool, room);
        Ok(opening)
    }

    fn fetch(&mut self, source: &Arc<Source>, pool: &Arc<dyn MemoryPool>, room: Option<usize>) {
        self.fetch = self
            .reader
            .ranges()
            .and_then(|ranges| Fetching::start(source, ranges, pool, room));
    }

    /// Its turn has come: what had no room beside others is fetched after all.
    fn fetch_now(&mut self, source: &Arc<Source>, pool: &Arc<dyn MemoryPool>) {
        if self.fetch.is_none() {
            self.fetch(source, pool, None);
        }
    }

    fn is_fetched(&self) -> bool {
        self.fetch.is_some()
    }

    async fn ready(self) -> Result<RowGroupReader, WireError> {
        let Opening { mut reader, fetch } = self;
        let (parts, memory) = match fetch {
            None => (vec![], None),
            Some(fetch) => {
                let (parts, memory) = fetch.finish().await?;
                (parts, Some(memory))
            }
        };
        reader.begin(parts, memory)?;
        Ok(reader)
    }
}

/// Bytes on their way; dropped with whoever wanted them.
struct Fetching {
    task: JoinHandle<Result<Parts, WireError>>,
    memory: MemoryReservation,
}

impl Fetching {
    /// `None` if there is no memory for it, or it takes more than `room`, which what comes next in any case
    /// hasn't: the reader then asks for a page at a time.
    fn start(
        source: &Arc<Source>,
        (file, ranges): (usize, Vec<Range<u64>>),
        pool: &Arc<dyn MemoryPool>,
        room: Option<usize>,
    ) -> Option<Self> {
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let bytes = usize::try_from(bytes).ok()?;
        if room.is_some_and(|room| bytes > room) {
            return None;
        }
        let memory = optional("LakeFetch").register(pool);
        memory.try_grow(bytes).ok()?;
        let purpose = match room {
            None => Use::Scan,
            Some(_) => Use::Ahead,
        };
        let source = source.clone();
        let task = tokio::spawn(async move { source.fetch(file, ranges, purpose).await });
        Some(Fetching { task, memory })
    }

    async fn finish(mut self) -> Result<(Parts, MemoryReservation), WireError> {
        let parts = match (&mut self.task).await {
            Ok(parts) => parts?,
            Err(e) => return Err(internal(&e.to_string())),
        };
        Ok((parts, self.memory.take()))
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The partition of a feed.
struct Fed {
    _end: PartitionEnd,
    source: Arc<Source>,
    outputs: Option<Arc<[usize]>>,
    feed: Option<Feed>,
    metrics: BaselineMetrics,
}

impl Fed {
    async fn next(&mut self) -> Result<Option<RecordBatch>, WireError> {
        loop {
            tokio::task::yield_now().await;
            if self.source.cancel.is_cancelled() {
                return Err(cancelled());
            }
            let Some(feed) = &mut self.feed else {
                return Ok(None);
            };
            let Some(batch) = feed.next().await.transpose()? else {
                self.feed = None;
                return Ok(None);
            };
            add(&self.source.counters.rows_fed, batch.num_rows());
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let batch = RecordBatch::try_new_with_options(
                self.source.schema.clone(),
                batch.columns().to_vec(),
                &options,
            )
            .map_err(|e| {
                WireError::new(ErrorCode::Protocol, "malformed feed").detail(e.to_string())
            })?;
            if let Some(batch) = passing(&self.source, self.outputs.as_deref(), batch)? {
                self.metrics.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
        }
    }
}
