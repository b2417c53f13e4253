//! The operator: cuts the sorted input into chunks, and appends the functions' results.

use super::chunk::{Chunk, Cutter, Piece};
use super::program::{Call, Evaluator, Program, Span};
use crate::engine::error::{from_arrow, internal, raise};
use crate::engine::join_input::compact;
use crate::engine::lower::Operator;
use crate::engine::streams::{Batches, evaluate, next_rows, stream_of};
use crate::engine::unary::{self, Unary};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::Result;
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::EquivalenceProperties;
use datafusion_physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion_physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion_physical_plan::{ExecutionPlanProperties, PlanProperties};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// Memory that is accounted for a row besides the row itself, and what functions take.
const ROW_BYTES: usize = 32;
/// The same if frames are of values.
const MEASURE_BYTES: usize = 32;

/// The operator. Rows stay in the order of the input, and in its partitions.
pub(super) fn window(input: Operator, program: Program) -> Operator {
    let windowing = Windowing::new(&input, Arc::new(program));
    unary::operator(input, windowing)
}

#[derive(Debug)]
struct Windowing {
    program: Arc<Program>,
    schema: SchemaRef,
}

impl Windowing {
    fn new(input: &Operator, program: Arc<Program>) -> Self {
        let mut fields: Vec<Field> = vec![];
        for field in input.schema().fields() {
            fields.push(field.as_ref().clone());
        }
        for call in &program.calls {
            fields.push(Field::new(
                format!("w{}", fields.len()),
                call.ty.clone(),
                true,
            ));
        }
        Windowing {
            program,
            schema: Arc::new(Schema::new(fields)),
        }
    }
}

impl Unary for Windowing {
    const NAME: &'static str = "WindowExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keeps = match self.program.span() {
            Span::Rows => "no rows",
            Span::Peers => "peers",
            Span::Partition => "partitions",
        };
        write!(
            f,
            "Window: functions={}, keeps {keeps}",
            self.program.calls.len()
        )
    }

    fn properties(&self, input: &Operator) -> PlanProperties {
        // The input's columns keep their numbers.
        let ordering = input.output_ordering().cloned();
        PlanProperties::new(
            EquivalenceProperties::new_with_orderings(self.schema.clone(), ordering),
            input.output_partitioning().clone(),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
    }

    fn over(&self, input: &Operator) -> Self {
        Windowing::new(input, self.program.clone())
    }

    fn execute(
        &self,
        input: &Operator,
        partition: usize,
        context: Arc<TaskContext>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<SendableRecordBatchStream> {
        let memory = MemoryConsumer::new("LakeWindow").register(context.memory_pool());
        let memory = Arc::new(memory);
        let reader = Reader {
            span: self.program.span(),
            evaluators: self.program.evaluators().map_err(raise)?,
            cutter: Cutter::new(self.program.partition_keys),
            input: input.execute(partition, context)?,
            program: self.program.clone(),
            schema: self.schema.clone(),
            pending: vec![],
            rest: None,
            ready: VecDeque::new(),
            ended: false,
            memory,
            metrics: BaselineMetrics::new(metrics, partition),
        };
        Ok(stream_of(self.schema.clone(), reader))
    }
}

/// One partition of the operator.
struct Reader {
    input: SendableRecordBatchStream,
    program: Arc<Program>,
    span: Span,
    evaluators: Vec<Box<dyn Evaluator>>,
    cutter: Cutter,
    schema: SchemaRef,
    /// Rows that wait for the end of their partition, or of their peers.
    pending: Vec<Piece>,
    /// The rows after those, if they are to be computed first.
    rest: Option<Piece>,
    /// Results, and the memory that is accounted for each.
    ready: VecDeque<(RecordBatch, usize)>,
    ended: bool,
    memory: Arc<MemoryReservation>,
    metrics: BaselineMetrics,
}

impl Batches for Reader {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some((batch, bytes)) = self.ready.pop_front() {
                self.memory.shrink(bytes);
                self.metrics.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            match next_rows(&mut self.input, &self.program.cancel).await? {
                Some(batch) => {
                    let time = self.metrics.elapsed_compute().clone();
                    let timer = time.timer();
                    let is_complete = self.take(batch)?;
                    timer.done();
                    if is_complete {
                        self.compute().await?;
                        self.pending.extend(self.rest.take());
                    }
                }
                None => {
                    self.ended = true;
                    self.compute().await?;
                }
            }
        }
    }
}

impl Reader {
    /// Takes the next rows; whether those that wait are complete with them.
    fn take(&mut self, batch: RecordBatch) -> Result<bool> {
        let batch = compact(batch).map_err(raise)?;
        let rows = batch.num_rows();
        let keys = evaluate(&self.program.keys, &batch)?;
        let args = evaluate(&self.program.args, &batch)?;
        let bytes = batch.get_array_memory_size()
            + computed(&args, &batch)
            + rows * row_bytes(&self.program);
        self.memory.try_grow(bytes)?;
        let piece = Piece {
            starts: self.cutter.starts(&keys, rows).map_err(raise)?,
            batch,
            args,
            bytes,
        };
        let last = match self.span {
            Span::Rows => Some(rows),
            Span::Peers => piece.starts.groups.last().copied(),
            Span::Partition => piece.starts.partitions.last().copied(),
        };
        let Some(last) = last else {
            self.pending.push(piece);
            return Ok(false);
        };
        if last == rows {
            self.pending.push(piece);
            return Ok(true);
        }
        let (complete, rest) = piece.split(last);
        if complete.rows() > 0 {
            self.pending.push(complete);
        }
        self.rest = Some(rest);
        Ok(true)
    }

    /// Computes the functions for the rows that wait. Others may use the thread between two of them.
    async fn compute(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pieces = std::mem::take(&mut self.pending);
        let is_large = pieces.len() > 1;
        let chunk = Chunk::new(pieces, self.program.cancel.clone(), self.memory.clone());
        let time = self.metrics.elapsed_compute().clone();
        let mut results: Vec<std::vec::IntoIter<ArrayRef>> = vec![];
        for evaluator in &mut self.evaluators {
            let timer = time.timer();
            chunk.check_cancelled().map_err(raise)?;
            let arrays = evaluator.evaluate(&chunk).map_err(raise)?;
            results.push(arrays.into_iter());
            timer.done();
            if is_large {
                tokio::task::yield_now().await;
            }
        }
        for piece in chunk.into_pieces() {
            let options = RecordBatchOptions::new().with_row_count(Some(piece.rows()));
            let mut columns = piece.batch.columns().to_vec();
            for arrays in &mut results {
                let array = arrays.next();
                columns.push(array.ok_or_else(|| raise(internal("results are missing")))?);
            }
            let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
                .map_err(|e| raise(from_arrow(&e)))?;
            self.ready.push_back((batch, piece.bytes));
        }
        Ok(())
    }
}

fn row_bytes(program: &Program) -> usize {
    let is_measured = program
        .calls
        .iter()
        .any(|call| call.frame.measure.is_some());
    let measure = if is_measured { MEASURE_BYTES } else { 0 };
    let calls = program.calls.iter().map(Call::row_bytes);
    ROW_BYTES + calls.sum::<usize>() + measure
}

/// Bytes of the arguments that aren't columns of the batch.
fn computed(args: &[ArrayRef], batch: &RecordBatch) -> usize {
    let is_column = |arg: &ArrayRef| batch.columns().iter().any(|own| Arc::ptr_eq(own, arg));
    args.iter()
        .filter(|arg| !is_column(arg))
        .map(|arg| arg.get_array_memory_size())
        .sum()
}
