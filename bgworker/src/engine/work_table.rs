//! The rows of a recursion's last step, as an operator of the next one.

use super::BATCH_ROWS;
use super::error::protocol;
use super::lower::{Lowering, Operator};
use super::streams::{Batches, stream_of};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_common::Result;
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::{EquivalenceProperties, Partitioning};
use datafusion_physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion_physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use pg_lake_plan::message::WireError;
use std::fmt;
use std::sync::Arc;

/// Rows that are worth a partition.
const PARTITION_ROWS: usize = 4 * BATCH_ROWS;

/// What is in a work table. Its memory is accounted for by the recursion.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) schema: SchemaRef,
    pub(super) batches: Arc<[RecordBatch]>,
}

impl Lowering {
    pub(super) fn work_table(&self) -> Result<Operator, WireError> {
        match &self.work {
            Some(work) => Ok(Arc::new(WorkTableExec::new(work.clone(), self.threads))),
            None => Err(protocol("a work table outside of its recursion")),
        }
    }
}

#[derive(Debug)]
struct WorkTableExec {
    work: Work,
    partitions: usize,
    properties: Arc<PlanProperties>,
}

impl WorkTableExec {
    fn new(work: Work, threads: usize) -> Self {
        let rows: usize = work.batches.iter().map(RecordBatch::num_rows).sum();
        let partitions = (rows / PARTITION_ROWS)
            .min(work.batches.len())
            .clamp(1, threads.max(1));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(work.schema.clone()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        WorkTableExec {
            work,
            partitions,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for WorkTableExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkTable: batches={}", self.work.batches.len())
    }
}

impl ExecutionPlan for WorkTableExec {
    fn name(&self) -> &str {
        "WorkTableExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Operator>) -> Result<Operator> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows = Rows {
            batches: self.work.batches.clone(),
            next: partition,
            step: self.partitions,
        };
        Ok(stream_of(self.work.schema.clone(), rows))
    }
}

/// Every `step`th batch.
struct Rows {
    batches: Arc<[RecordBatch]>,
    next: usize,
    step: usize,
}

impl Batches for Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        // Rows that are at hand make no task wait.
        tokio::task::coop::consume_budget().await;
        let batch = self.batches.get(self.next).cloned();
        self.next = self.next.saturating_add(self.step);
        Ok(batch)
    }
}
