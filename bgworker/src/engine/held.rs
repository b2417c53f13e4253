//! Rows that come out once all of them are there.
//!
//! What turns out only at the end to be Postgres' to compute must not have sent rows before. An aggregation does: groups that
//! are complete, if its input is ordered by some of them, and groups whose states it has merged, while others that it has
//! spilled aren't merged yet. So may a whole result ([`pg_lake_plan::lateness`]).

use super::error::raise;
use super::join_input::compact;
use super::join_table::own_bytes;
use super::lower::{Operator, single};
use super::streams::{Batches, next_rows, stream_of};
use super::unary::{self, Unary};
use arrow::record_batch::RecordBatch;
use datafusion_common::Result;
use datafusion_execution::disk_manager::RefCountedTempFile;
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_plan::execution_plan::EmissionType;
use datafusion_physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, SpillMetrics};
use datafusion_physical_plan::{ExecutionPlanProperties, PlanProperties, SpillManager};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// More than this part of the memory isn't taken: the input still merges what it has spilled.
const SHARE: usize = 4;

/// Of a batch in a file, about.
const PIECE_BYTES: usize = 4 << 20;

/// The same rows in the same order, in one partition.
pub(super) fn held(input: Operator, cancel: &CancellationToken) -> Operator {
    let holding = Holding {
        cancel: cancel.clone(),
    };
    unary::operator(single(input), holding)
}

#[derive(Debug)]
struct Holding {
    cancel: CancellationToken,
}

impl Unary for Holding {
    const NAME: &'static str = "HoldExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAME)
    }

    fn properties(&self, input: &Operator) -> PlanProperties {
        PlanProperties::new(
            input.equivalence_properties().clone(),
            input.output_partitioning().clone(),
            EmissionType::Final,
            input.boundedness(),
        )
    }

    fn over(&self, _input: &Operator) -> Self {
        Holding {
            cancel: self.cancel.clone(),
        }
    }

    fn execute(
        &self,
        input: &Operator,
        partition: usize,
        context: Arc<TaskContext>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<SendableRecordBatchStream> {
        let schema = input.schema();
        let spilled = SpillMetrics::new(metrics, partition);
        let spills = SpillManager::new(context.runtime_env(), spilled, schema.clone())
            .with_compression_type(context.session_config().spill_compression());
        let most = match context.memory_pool().memory_limit() {
            MemoryLimit::Finite(limit) => limit / SHARE,
            MemoryLimit::Infinite | MemoryLimit::Unknown => usize::MAX,
        };
        let held = Held {
            cancel: self.cancel.clone(),
            most,
            memory: MemoryConsumer::new("LakeHeldRows")
                .with_can_spill(true)
                .register(context.memory_pool()),
            input: Some(input.execute(partition, context)?),
            batches: VecDeque::new(),
            spills,
            file: None,
            written: None,
            metrics: BaselineMetrics::new(metrics, partition),
        };
        Ok(stream_of(schema, held))
    }
}

/// A file that is written: it is given rows, or nothing at its end. DataFusion's type for it has no public name.
type Writer = Box<dyn FnMut(Option<&RecordBatch>) -> Result<Option<RefCountedTempFile>> + Send>;

struct Held {
    cancel: CancellationToken,
    /// Bytes in memory.
    most: usize,
    memory: MemoryReservation,
    /// Until all rows are there.
    input: Option<SendableRecordBatchStream>,
    /// With their bytes; none, once there is a file.
    batches: VecDeque<(RecordBatch, usize)>,
    spills: SpillManager,
    file: Option<Writer>,
    /// What is in the file.
    written: Option<SendableRecordBatchStream>,
    metrics: BaselineMetrics,
}

impl Batches for Held {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(mut input) = self.input.take() {
            while let Some(batch) = next_rows(&mut input, &self.cancel).await? {
                self.hold(batch)?;
            }
            if let Some(mut file) = self.file.take()
                && let Some(file) = file(None)?
            {
                self.written = Some(self.spills.read_spill_as_stream(file, None)?);
            }
        }
        let next = match (self.batches.pop_front(), &mut self.written) {
            (Some((batch, bytes)), _) => {
                self.memory.shrink(bytes);
                Some(batch)
            }
            (None, Some(written)) => next_rows(written, &self.cancel).await?,
            (None, None) => None,
        };
        if let Some(batch) = &next {
            self.metrics.record_output(batch.num_rows());
        }
        Ok(next)
    }
}

impl Held {
    fn hold(&mut self, batch: RecordBatch) -> Result<()> {
        let bytes = own_bytes(&batch);
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                let fits = self.memory.size().saturating_add(bytes) <= self.most;
                if fits && self.memory.try_grow(bytes).is_ok() {
                    // It may be a part of a row group.
                    let batch = compact(batch).map_err(raise)?;
                    self.batches.push_back((batch, bytes));
                    return Ok(());
                }
                self.new_file()?
            }
        };
        for (batch, bytes) in std::mem::take(&mut self.batches) {
            write(&mut file, &batch, bytes)?;
        }
        self.memory.free();
        write(&mut file, &batch, bytes)?;
        self.file = Some(file);
        Ok(())
    }

    fn new_file(&self) -> Result<Writer> {
        let mut file = self.spills.create_in_progress_file("held rows")?;
        let writer: Writer = Box::new(move |rows: Option<&RecordBatch>| match rows {
            Some(rows) => file.append_batch(rows).map(|_| None),
            None => file.finish(),
        });
        Ok(writer)
    }
}

/// Writes rows of so many bytes, in batches that are read one by one.
fn write(file: &mut Writer, rows: &RecordBatch, bytes: usize) -> Result<()> {
    let number = rows.num_rows();
    let each = number.div_ceil(bytes / PIECE_BYTES + 1).max(1);
    for start in (0..number).step_by(each) {
        file(Some(&rows.slice(start, each.min(number - start))))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::error::{not_exact, wire};
    use super::super::handed::Handed;
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
    use datafusion_execution::memory_pool::GreedyMemoryPool;
    use datafusion_execution::runtime_env::RuntimeEnvBuilder;
    use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
    use futures::{StreamExt, TryStreamExt, stream};
    use pg_lake_plan::message::ErrorCode;

    const ROWS: i64 = 1000;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
    }

    fn batch(number: i64) -> Result<RecordBatch> {
        let numbers = Int64Array::from_iter_values(number * ROWS..(number + 1) * ROWS);
        Ok(RecordBatch::try_new(schema(), vec![Arc::new(numbers)])?)
    }

    /// The operator over these batches, in so many bytes of memory.
    fn over(batches: Vec<Result<RecordBatch>>, memory: usize) -> (Operator, Arc<TaskContext>) {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)))
            .build_arc()
            .expect("a runtime");
        let handed = Handed::new(schema(), 1);
        let rows = RecordBatchStreamAdapter::new(schema(), stream::iter(batches));
        handed.hand(0, Box::pin(rows));
        let context = TaskContext::default().with_runtime(runtime);
        let operator = held(Arc::new(handed), &CancellationToken::new());
        (operator, Arc::new(context))
    }

    #[tokio::test]
    async fn rows_are_held_in_memory_or_in_a_file() {
        for (memory, spills) in [(1 << 20, 0), (100_000, 1), (1, 1)] {
            let (operator, context) = over((0..20).map(batch).collect(), memory);
            let rows = operator.execute(0, context.clone()).expect("a stream");
            let batches: Vec<RecordBatch> = rows.try_collect().await.expect("rows");
            let numbers: Vec<i64> = (batches.iter())
                .flat_map(|batch| {
                    batch
                        .column(0)
                        .as_primitive::<Int64Type>()
                        .values()
                        .to_vec()
                })
                .collect();
            assert!(numbers.into_iter().eq(0..20 * ROWS), "{memory}");
            let metrics = operator.metrics().expect("metrics");
            assert_eq!(metrics.spill_count(), Some(spills), "{memory}");
            assert_eq!(context.memory_pool().reserved(), 0, "{memory}");
        }
    }

    #[tokio::test]
    async fn no_row_comes_before_an_error_at_the_end() {
        for memory in [1 << 20, 1] {
            let late = Err(raise(not_exact("at the end")));
            let batches = (0..20).map(batch).chain([late]).collect();
            let (operator, context) = over(batches, memory);
            let mut rows = operator.execute(0, context).expect("a stream");
            let first = rows.next().await.expect("an item");
            let error = first.expect_err("no rows");
            assert_eq!(wire(&error).code, ErrorCode::NotExact, "{memory}");
        }
    }

    #[test]
    fn large_batches_are_written_in_pieces() {
        let sizes = Arc::new(std::sync::Mutex::new(vec![]));
        let seen = sizes.clone();
        let mut file: Writer = Box::new(move |rows: Option<&RecordBatch>| {
            let rows = rows.map_or(0, RecordBatch::num_rows);
            seen.lock().expect("a lock").push(rows);
            Ok(None)
        });
        let rows = batch(0).expect("rows");
        write(&mut file, &rows, 3 * PIECE_BYTES).expect("pieces");
        write(&mut file, &rows.slice(0, 1), 3 * PIECE_BYTES).expect("a piece");
        write(&mut file, &rows, 100).expect("a piece");
        assert_eq!(
            *sizes.lock().expect("a lock"),
            [250, 250, 250, 250, 1, 1000]
        );
    }
}
