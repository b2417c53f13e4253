//! The rows of several inputs.
//!
//! No more partitions of them run at a time than there are threads: there may be hundreds, each of which would fetch and
//! decode ahead.

use super::error::{from_arrow, raise};
use super::lower::{Lowering, Operator};
use super::streams::{Batches, stream_of};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::Result;
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::{EquivalenceProperties, Partitioning};
use datafusion_physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion_physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion_physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::StreamExt;
use pg_lake_plan::ir::Plan;
use pg_lake_plan::message::WireError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

impl Lowering {
    pub(super) fn append(&mut self, inputs: &[Plan]) -> Result<Operator, WireError> {
        let mut operators = vec![];
        for input in inputs {
            operators.push(self.lower(input)?);
        }
        Ok(Arc::new(AppendExec::new(operators, self.threads)))
    }
}

#[derive(Debug)]
struct AppendExec {
    inputs: Vec<Operator>,
    queue: Arc<Queue>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// The partitions of all inputs, of which each is handed out once.
#[derive(Debug)]
struct Queue {
    partitions: Vec<(Operator, usize)>,
    next: AtomicUsize,
}

impl AppendExec {
    fn new(inputs: Vec<Operator>, threads: usize) -> Self {
        // Inputs agree on types, not on names.
        let fields = inputs.first().map(|input| input.schema().fields().clone());
        let fields: Vec<Field> = fields
            .iter()
            .flatten()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let mut partitions = vec![];
        for input in &inputs {
            let count = input.output_partitioning().partition_count();
            partitions.extend((0..count).map(|partition| (input.clone(), partition)));
        }
        let running = partitions.len().min(threads).max(1);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(running),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        AppendExec {
            inputs,
            queue: Arc::new(Queue {
                partitions,
                next: AtomicUsize::new(0),
            }),
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for AppendExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Append: partitions={}", self.queue.partitions.len())
    }
}

impl ExecutionPlan for AppendExec {
    fn name(&self) -> &str {
        "AppendExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let running = self.properties.output_partitioning().partition_count();
        Ok(Arc::new(AppendExec::new(children, running)))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let reader = Reader {
            queue: self.queue.clone(),
            current: None,
            context,
            schema: self.schema.clone(),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        Ok(stream_of(self.schema.clone(), reader))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// One of the partitions that run at a time.
struct Reader {
    queue: Arc<Queue>,
    current: Option<SendableRecordBatchStream>,
    context: Arc<TaskContext>,
    schema: SchemaRef,
    metrics: BaselineMetrics,
}

impl Batches for Reader {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(current) = &mut self.current else {
                let place = self.queue.next.fetch_add(1, Ordering::Relaxed);
                let Some((input, partition)) = self.queue.partitions.get(place) else {
                    return Ok(None);
                };
                self.current = Some(input.execute(*partition, self.context.clone())?);
                continue;
            };
            match current.next().await.transpose()? {
                None => self.current = None,
                Some(batch) => {
                    let batch = self.renamed(&batch)?;
                    self.metrics.record_output(batch.num_rows());
                    return Ok(Some(batch));
                }
            }
        }
    }
}

impl Reader {
    fn renamed(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().to_vec();
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|e| raise(from_arrow(&e)))
    }
}
