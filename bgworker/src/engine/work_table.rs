//! The rows of a recursion's last step, as an operator of the next one.

use super::BATCH_ROWS;
use super::aside::Aside;
use super::error::protocol;
use super::lower::{Lowering, Operator};
use super::streams::{Batches, next_rows, stream_of};
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
use tokio_util::sync::CancellationToken;

/// Rows that are worth a partition.
const PARTITION_ROWS: usize = 4 * BATCH_ROWS;

/// What is in a work table. Operators may scan it several times.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) schema: SchemaRef,
    /// None while a recursion is lowered.
    pub(super) rows: Option<Arc<Aside>>,
}

impl Lowering {
    pub(super) fn work_table(&self) -> Result<Operator, WireError> {
        match &self.work {
            Some(work) => Ok(Arc::new(WorkTableExec::new(
                work.clone(),
                self.cancel.clone(),
                self.threads,
            ))),
            None => Err(protocol("a work table outside of its recursion")),
        }
    }
}

#[derive(Debug)]
struct WorkTableExec {
    work: Work,
    cancel: CancellationToken,
    partitions: usize,
    properties: Arc<PlanProperties>,
}

impl WorkTableExec {
    fn new(work: Work, cancel: CancellationToken, threads: usize) -> Self {
        let partitions = work.rows.as_ref().map_or(1, |rows| {
            let most = match rows.file {
                Some(_) => threads,
                None => rows.batches.len().min(threads),
            };
            (rows.rows / PARTITION_ROWS).clamp(1, most.max(1))
        });
        let properties = PlanProperties::new(
            EquivalenceProperties::new(work.schema.clone()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        WorkTableExec {
            work,
            cancel,
            partitions,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for WorkTableExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.work.rows.as_ref().map_or(0, |rows| rows.rows);
        write!(f, "WorkTable: rows={rows}")
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
            rows: self.work.rows.clone(),
            file: None,
            cancel: self.cancel.clone(),
            at: 0,
            next: partition,
            step: self.partitions,
        };
        Ok(stream_of(self.work.schema.clone(), rows))
    }
}

/// Every `step`th batch. Each partition reads the file, and takes its own ones.
struct Rows {
    rows: Option<Arc<Aside>>,
    /// Once the rows in memory are out.
    file: Option<SendableRecordBatchStream>,
    cancel: CancellationToken,
    /// The number of the file's next batch, after those in memory.
    at: usize,
    next: usize,
    step: usize,
}

impl Batches for Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        // Rows that are at hand make no task wait.
        tokio::task::coop::consume_budget().await;
        let Some(rows) = &self.rows else {
            return Ok(None);
        };
        if let Some(batch) = rows.batches.get(self.next) {
            self.next = self.next.saturating_add(self.step);
            return Ok(Some(batch.clone()));
        }
        if self.file.is_none()
            && let Some(written) = &rows.file
        {
            self.at = rows.batches.len();
            self.file = Some(written.read()?);
        }
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        while let Some(batch) = next_rows(file, &self.cancel).await? {
            let at = self.at;
            self.at += 1;
            if at == self.next {
                self.next = self.next.saturating_add(self.step);
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}
