//! Values of one group of which some are wanted once their number is known: in memory, or in a file where they don't fit.

use super::error::{cancelled, internal, raise};
use super::join_input::compact_array;
use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::Result;
use datafusion_execution::TaskContext;
use datafusion_execution::disk_manager::RefCountedTempFile;
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion_physical_plan::SpillManager;
use datafusion_physical_plan::metrics::SpillMetrics;
use futures::StreamExt;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Where the values of any group are kept.
pub(super) struct Keeper {
    spills: SpillManager,
    schema: SchemaRef,
    memory: MemoryReservation,
    cancel: CancellationToken,
}

impl Keeper {
    /// Of values of this type.
    pub(super) fn new(
        value: DataType,
        context: &TaskContext,
        metrics: SpillMetrics,
        cancel: CancellationToken,
    ) -> Self {
        let schema = Arc::new(Schema::new(vec![Field::new("value", value, true)]));
        let spills = SpillManager::new(context.runtime_env(), metrics, schema.clone())
            .with_compression_type(context.session_config().spill_compression());
        let memory = MemoryConsumer::new("LakeOrderedValues")
            .with_can_spill(true)
            .register(context.memory_pool());
        Keeper {
            spills,
            schema,
            memory,
            cancel,
        }
    }

    fn new_file(&self) -> Result<Writer> {
        let mut file = self.spills.create_in_progress_file("ordered values")?;
        let writer: Writer = Box::new(move |rows: Option<&RecordBatch>| match rows {
            Some(rows) => file.append_batch(rows).map(|_| None),
            None => file.finish(),
        });
        Ok(writer)
    }
}

/// A file that is written: it is given rows, or nothing at its end. DataFusion's type for it has no public name.
type Writer = Box<dyn FnMut(Option<&RecordBatch>) -> Result<Option<RefCountedTempFile>> + Send>;

/// The values of a group, in their order.
#[derive(Default)]
pub(super) struct Kept {
    /// All that have been added.
    count: usize,
    /// The first ones, which nobody asks for any more.
    dropped: usize,
    pieces: VecDeque<ArrayRef>,
    bytes: usize,
    file: Option<Writer>,
}

impl Kept {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Adds values. Those before `first` won't be asked for.
    pub(super) fn add(&mut self, keeper: &Keeper, values: ArrayRef, first: usize) -> Result<()> {
        let values = compact_array(values).map_err(raise)?;
        self.count += values.len();
        if self.file.is_some() {
            return self.write(keeper, values);
        }
        self.drop_before(keeper, first);
        let bytes = values.get_array_memory_size();
        if keeper.memory.try_grow(bytes).is_ok() {
            self.bytes += bytes;
            self.pieces.push_back(values);
            return Ok(());
        }
        self.file = Some(keeper.new_file()?);
        for piece in std::mem::take(&mut self.pieces) {
            self.write(keeper, piece)?;
        }
        keeper.memory.shrink(std::mem::take(&mut self.bytes));
        self.write(keeper, values)
    }

    fn drop_before(&mut self, keeper: &Keeper, first: usize) {
        while let Some(piece) = self.pieces.front() {
            if self.dropped + piece.len() > first {
                return;
            }
            let bytes = piece.get_array_memory_size().min(self.bytes);
            self.dropped += piece.len();
            self.bytes -= bytes;
            keeper.memory.shrink(bytes);
            self.pieces.pop_front();
        }
    }

    fn write(&mut self, keeper: &Keeper, values: ArrayRef) -> Result<()> {
        let batch = RecordBatch::try_new(keeper.schema.clone(), vec![values])?;
        match &mut self.file {
            Some(writer) => writer(Some(&batch)).map(drop),
            None => Err(raise(internal("a file of values is missing"))),
        }
    }

    /// The values at two places.
    pub(super) async fn finish(
        mut self,
        keeper: &Keeper,
        low: usize,
        high: usize,
    ) -> Result<ArrayRef> {
        let wanted = [low, high];
        let mut found = [None, None];
        let mut start = self.dropped;
        for piece in std::mem::take(&mut self.pieces) {
            start = look(&piece, start, wanted, &mut found)?;
        }
        keeper.memory.shrink(std::mem::take(&mut self.bytes));
        let file = match self.file.take() {
            Some(mut writer) => writer(None)?,
            None => None,
        };
        if let Some(file) = file {
            let mut rows = keeper.spills.read_spill_as_stream(file, None)?;
            while found.iter().any(Option::is_none)
                && let Some(batch) = rows.next().await.transpose()?
            {
                if keeper.cancel.is_cancelled() {
                    return Err(raise(cancelled()));
                }
                if let Some(values) = batch.columns().first() {
                    start = look(values, start, wanted, &mut found)?;
                }
            }
        }
        match found {
            [Some(low), Some(high)] => Ok(compute::concat(&[low.as_ref(), high.as_ref()])?),
            _ => Err(raise(internal("a value of a group is missing"))),
        }
    }
}

/// Takes the values that are wanted of those that begin at a place. Returns where the next ones do.
fn look(
    values: &ArrayRef,
    start: usize,
    wanted: [usize; 2],
    found: &mut [Option<ArrayRef>; 2],
) -> Result<usize> {
    let end = start + values.len();
    for (place, found) in wanted.into_iter().zip(found) {
        if (start..end).contains(&place) {
            let place = UInt64Array::from(vec![(place - start) as u64]);
            *found = Some(compute::take(values, &place, None)?);
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use datafusion_execution::memory_pool::GreedyMemoryPool;
    use datafusion_execution::runtime_env::RuntimeEnvBuilder;
    use datafusion_physical_plan::metrics::ExecutionPlanMetricsSet;

    fn context(memory: usize) -> TaskContext {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)))
            .build_arc()
            .expect("a runtime");
        TaskContext::default().with_runtime(runtime)
    }

    #[tokio::test]
    async fn values_are_found_in_memory_and_in_a_file() {
        for (memory, spills) in [(1 << 20, 0), (100_000, 1)] {
            let (context, metrics) = (context(memory), ExecutionPlanMetricsSet::new());
            let keeper = Keeper::new(
                DataType::Int64,
                &context,
                SpillMetrics::new(&metrics, 0),
                CancellationToken::new(),
            );
            let mut kept = Kept::default();
            for batch in 0..20 {
                let values = Int64Array::from_iter_values(batch * 1000..(batch + 1) * 1000);
                kept.add(&keeper, Arc::new(values), 0).expect("room");
            }
            assert_eq!(kept.count(), 20_000);
            let two = kept.finish(&keeper, 999, 10_000).await.expect("values");
            let two = two.as_primitive::<Int64Type>().values().to_vec();
            assert_eq!(two, [999, 10_000]);
            assert_eq!(
                metrics.clone_inner().spill_count(),
                Some(spills),
                "{memory}"
            );
            assert_eq!(context.memory_pool().reserved(), 0);
        }
    }

    #[tokio::test]
    async fn what_nobody_asks_for_any_more_is_dropped() {
        let (context, metrics) = (context(40_000), ExecutionPlanMetricsSet::new());
        let keeper = Keeper::new(
            DataType::Int64,
            &context,
            SpillMetrics::new(&metrics, 0),
            CancellationToken::new(),
        );
        let mut kept = Kept::default();
        for batch in 0..20 {
            let values = Int64Array::from_iter_values(batch * 1000..(batch + 1) * 1000);
            let first = kept.count();
            kept.add(&keeper, Arc::new(values), first).expect("room");
        }
        let last = kept.finish(&keeper, 19_500, 19_500).await;
        let last = last.expect("values").as_primitive::<Int64Type>().value(1);
        assert_eq!(last, 19_500);
        assert_eq!(metrics.clone_inner().spill_count(), Some(0));
    }
}
