//! The scan as an operator of DataFusion.
//!
//! Its partitions share one queue of row groups; a feed is a partition of its own. Every batch is
//! a point where the task yields and cancellation is noticed.

use super::error::{cancelled, from_arrow, raise};
use super::rowgroup::RowGroupReader;
use super::source::Source;
use super::stats::add;
use super::{BATCH_ROWS, Feed};
use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::Result;
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryPool};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::{EquivalenceProperties, Partitioning};
use datafusion_physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion_physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;
use futures::stream;
use pg_lake_plan::message::{ErrorCode, WireError};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

pub(super) struct LakeScanExec {
    source: Arc<Source>,
    feed: Mutex<Option<Feed>>,
    /// Partitions that read files; a feed's partition comes after them.
    readers: usize,
    predicate: String,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LakeScanExec {
    /// `predicate` is the text for EXPLAIN.
    pub(super) fn new(
        source: Arc<Source>,
        feed: Option<Feed>,
        threads: usize,
        predicate: String,
    ) -> Self {
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
        let properties = PlanProperties::new(
            EquivalenceProperties::new(source.schema.clone()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        LakeScanExec {
            source,
            feed: Mutex::new(feed),
            readers,
            predicate,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
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
        let schema = self.source.schema.clone();
        if partition < self.readers {
            let partition = Partition {
                source: self.source.clone(),
                current: None,
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
            source: self.source.clone(),
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

/// Applies the predicate; `None` if no row passes.
fn passing(source: &Source, batch: RecordBatch) -> Result<Option<RecordBatch>, WireError> {
    let batch = match &source.predicate {
        None => batch,
        Some(predicate) => match predicate.passing(&batch)? {
            None => batch,
            Some(pass) if pass.count_set_bits() == 0 => return Ok(None),
            Some(pass) => filter_record_batch(&batch, &BooleanArray::new(pass, None))
                .map_err(|e| from_arrow(&e))?,
        },
    };
    if batch.num_rows() == 0 {
        return Ok(None);
    }
    add(&source.counters.rows_out, batch.num_rows());
    Ok(Some(batch))
}

/// A partition that reads files.
struct Partition {
    source: Arc<Source>,
    current: Option<RowGroupReader>,
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
            let time = self.metrics.elapsed_compute().clone();
            let timer = time.timer();
            let batch = self.step()?;
            timer.done();
            match batch {
                Step::Batch(batch) => {
                    self.metrics.record_output(batch.num_rows());
                    return Ok(Some(batch));
                }
                Step::Again => {}
                Step::End => return Ok(None),
            }
        }
    }

    /// One batch's worth of work.
    fn step(&mut self) -> Result<Step, WireError> {
        let Some(reader) = &mut self.current else {
            let Some(morsel) = self.source.next_morsel()? else {
                return Ok(Step::End);
            };
            let reservation = MemoryConsumer::new("LakeScan").register(&self.pool);
            self.current = Some(RowGroupReader::open(
                self.source.clone(),
                morsel,
                reservation,
            )?);
            return Ok(Step::Again);
        };
        let Some(batch) = reader.next_batch()? else {
            self.current = None;
            return Ok(Step::Again);
        };
        add(&self.source.counters.rows_cold, batch.num_rows());
        Ok(match passing(&self.source, batch)? {
            Some(batch) => Step::Batch(batch),
            None => Step::Again,
        })
    }
}

enum Step {
    Batch(RecordBatch),
    Again,
    End,
}

/// The partition of a feed.
struct Fed {
    source: Arc<Source>,
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
            if let Some(batch) = passing(&self.source, batch)? {
                self.metrics.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
        }
    }
}
