//! An operator that does one thing to each batch of its input, as the inputs of joins need it. Large batches are cut before.

use super::BATCH_ROWS;
use super::error::raise;
use super::lower::Operator;
use super::streams::{Batches, stream_of};
use super::unary::{self, Unary};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_common::{DataFusionError, Result};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::{EquivalenceProperties, Partitioning};
use datafusion_physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion_physical_plan::{ExecutionPlanProperties, PlanProperties};
use futures::StreamExt;
use pg_lake_plan::message::WireError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is done, in all partitions.
pub(super) trait Step: fmt::Debug + Send + Sync {
    /// For EXPLAIN.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    fn schema(&self) -> SchemaRef;

    /// Rows come out as they are, and in their order.
    fn keeps_rows(&self) -> bool {
        false
    }

    /// Begins with the rows of one partition.
    fn start(self: Arc<Self>, context: &TaskContext) -> Result<Box<dyn Pass>>;
}

/// A [`Step`] in one partition.
pub(super) trait Pass: Send {
    fn pass(&mut self, batch: RecordBatch) -> std::result::Result<Passed, WireError>;
}

/// What becomes of a batch.
pub(super) enum Passed {
    Rows(RecordBatch),
    /// One after the other, as they are wanted.
    Several(Several),
    /// Nothing of it is left.
    Nothing,
    /// Nothing of it is left, nor of what comes after it.
    End,
}

pub(super) type Several =
    Box<dyn Iterator<Item = std::result::Result<RecordBatch, WireError>> + Send>;

/// An operator that does this to the rows of its input.
pub(super) fn stepping(input: Operator, step: Arc<dyn Step>) -> Operator {
    let stepping = Stepping::new(&input, step);
    unary::operator(input, stepping)
}

/// Each partition can be executed once: scans hand out their rows once. DataFusion's nested loop join starts over
/// with its left input when that doesn't fit into memory, and would find nothing.
#[derive(Debug)]
struct Stepping {
    step: Arc<dyn Step>,
    started: Vec<AtomicBool>,
}

impl Stepping {
    fn new(input: &Operator, step: Arc<dyn Step>) -> Self {
        let partitions = input.output_partitioning().partition_count();
        Stepping {
            step,
            started: (0..partitions).map(|_| AtomicBool::new(false)).collect(),
        }
    }
}

impl Unary for Stepping {
    const NAME: &'static str = "StepExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.step.describe(f)
    }

    fn properties(&self, input: &Operator) -> PlanProperties {
        let (known, partitioning) = if self.step.keeps_rows() {
            let partitioning = input.output_partitioning().clone();
            (input.equivalence_properties().clone(), partitioning)
        } else {
            let known = EquivalenceProperties::new(self.step.schema());
            let partitions = self.started.len();
            (known, Partitioning::UnknownPartitioning(partitions))
        };
        PlanProperties::new(
            known,
            partitioning,
            input.pipeline_behavior(),
            input.boundedness(),
        )
    }

    fn over(&self, input: &Operator) -> Self {
        Stepping::new(input, self.step.clone())
    }

    fn execute(
        &self,
        input: &Operator,
        partition: usize,
        context: Arc<TaskContext>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<SendableRecordBatchStream> {
        let first = self
            .started
            .get(partition)
            .is_some_and(|started| !started.swap(true, Ordering::Relaxed));
        if !first {
            return Err(DataFusionError::ResourcesExhausted(
                "One side of a join without a key to look rows up by is too large.".to_owned(),
            ));
        }
        let running = Running {
            pass: self.step.clone().start(&context)?,
            input: input.execute(partition, context)?,
            rest: None,
            several: Box::new(std::iter::empty()),
            metrics: BaselineMetrics::new(metrics, partition),
        };
        Ok(stream_of(self.step.schema(), running))
    }
}

struct Running {
    pass: Box<dyn Pass>,
    input: SendableRecordBatchStream,
    /// What is left of a large batch.
    rest: Option<RecordBatch>,
    /// What is left of what became of a batch.
    several: Several,
    metrics: BaselineMetrics,
}

impl Batches for Running {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let time = self.metrics.elapsed_compute().clone();
            let timer = time.timer();
            let one = self.several.next().transpose().map_err(raise)?;
            timer.done();
            if let Some(batch) = one {
                self.metrics.record_output(batch.num_rows());
                // There may be no end to them.
                tokio::task::coop::consume_budget().await;
                return Ok(Some(batch));
            }
            let Some(batch) = self.piece().await? else {
                return Ok(None);
            };
            let timer = time.timer();
            let passed = self.pass.pass(batch).map_err(raise)?;
            timer.done();
            match passed {
                Passed::Rows(batch) => {
                    self.metrics.record_output(batch.num_rows());
                    return Ok(Some(batch));
                }
                Passed::Several(several) => self.several = several,
                Passed::Nothing => {}
                Passed::End => return Ok(None),
            }
        }
    }
}

impl Running {
    /// The next rows of the input, not more than a batch should have.
    async fn piece(&mut self) -> Result<Option<RecordBatch>> {
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.input.next().await.transpose()? {
                Some(batch) => batch,
                None => return Ok(None),
            },
        };
        let rows = batch.num_rows();
        if rows <= BATCH_ROWS {
            return Ok(Some(batch));
        }
        self.rest = Some(batch.slice(BATCH_ROWS, rows - BATCH_ROWS));
        Ok(Some(batch.slice(0, BATCH_ROWS)))
    }
}
