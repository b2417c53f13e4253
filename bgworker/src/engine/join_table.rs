//! The side of a join that is kept: how its rows are collected, and the table of them that the other side looks up.
//!
//! DataFusion's operator makes the table and looks rows up. It gets rows whose memory is reserved already, for all that
//! it is going to do with them: they are copied into one batch while they are there, and have a hash table, or an array
//! of the places of numbers if there is memory for that. What is left over is given back when the table is there.

use super::error::{internal, raise};
use super::handed::{Handed, locked};
use super::lower::Operator;
use super::told::KeyFilter;
use super::widths::used_bytes;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::utils::memory::get_record_batch_memory_size;
use datafusion_common::{DataFusionError, JoinType, Result};
use datafusion_execution::config::SessionConfig;
use datafusion_execution::memory_pool::{
    MemoryConsumer, MemoryPool, MemoryReservation, UnboundedMemoryPool,
};
use datafusion_execution::runtime_env::RuntimeEnv;
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::joins::{HashJoinExec, HashJoinExecBuilder, PartitionMode};
use datafusion_physical_plan::metrics::MetricsSet;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Once};

/// Bytes of a row's place in a hash table, and of its link to the next row of the same hash.
const ENTRY_BYTES: usize = 17;
const LINK_BYTES: usize = 4;

/// A table leaves room for other operators: this part of its own size.
const ROOM: usize = 4;

/// A join of which several tables are made.
#[derive(Debug)]
pub(super) struct HashJoin {
    /// Of the whole inputs. It isn't executed.
    pub(super) exec: HashJoinExec,
    /// Places of the keys.
    pub(super) kept_keys: Vec<usize>,
    pub(super) passing_keys: Vec<usize>,
    /// Those of all tables.
    metrics: Arc<Mutex<Totals>>,
}

/// Metrics of a join's tables, of which a spilled join has many.
#[derive(Debug, Default)]
struct Totals {
    /// Sums of the streams that have gone.
    ended: MetricsSet,
    /// The others, which still count.
    running: HashMap<u64, MetricsSet>,
    /// How many there have been.
    streams: u64,
}

impl Totals {
    fn begin(&mut self, metrics: MetricsSet) -> u64 {
        let number = self.streams;
        self.streams += 1;
        self.running.insert(number, metrics);
        number
    }

    fn end(&mut self, number: u64) {
        let Some(metrics) = self.running.remove(&number) else {
            return;
        };
        for metric in metrics.iter() {
            self.ended.push(metric.clone());
        }
        self.ended = self.ended.aggregate_by_name();
    }
}

impl HashJoin {
    pub(super) fn new(exec: HashJoinExec, kept_keys: Vec<usize>, passing_keys: Vec<usize>) -> Self {
        HashJoin {
            exec,
            kept_keys,
            passing_keys,
            metrics: Arc::default(),
        }
    }

    /// The same join, with the passing side kept.
    pub(super) fn reversed(&self) -> Result<HashJoin> {
        let mut builder = HashJoinExecBuilder::from(&self.exec).reset_state();
        if self.exec.projection.is_none() {
            // Columns that are chosen keep their order.
            let width = self.exec.schema().fields().len();
            builder = builder.with_projection(Some((0..width).collect()));
        }
        let reversed = builder.build()?.swap_inputs(PartitionMode::CollectLeft)?;
        let exec = reversed.downcast_ref::<HashJoinExec>();
        let exec = exec.ok_or_else(|| raise(internal("a join can't be reversed")))?;
        Ok(HashJoin {
            exec: HashJoinExecBuilder::from(exec).build()?,
            kept_keys: self.passing_keys.clone(),
            passing_keys: self.kept_keys.clone(),
            metrics: self.metrics.clone(),
        })
    }

    pub(super) fn kept_schema(&self) -> SchemaRef {
        self.exec.left().schema()
    }

    pub(super) fn passing_schema(&self) -> SchemaRef {
        self.exec.right().schema()
    }

    /// Whether a kept row's partners and nothing else decide what comes out: then the kept rows can be joined some at a
    /// time.
    pub(super) fn is_by_kept_row(&self) -> bool {
        matches!(
            self.exec.join_type(),
            JoinType::Inner
                | JoinType::Left
                | JoinType::LeftSemi
                | JoinType::LeftAnti
                | JoinType::LeftMark
        )
    }

    /// Adds the metrics of its tables.
    pub(super) fn add_metrics(&self, all: &mut MetricsSet) {
        let totals = locked(&self.metrics);
        let running = totals.running.values().flat_map(MetricsSet::iter);
        for metric in totals.ended.iter().chain(running) {
            all.push(metric.clone());
        }
    }

    /// The key that may be looked up in an array: DataFusion does so with a single whole number.
    fn array_key(&self) -> Option<usize> {
        let schema = self.kept_schema();
        let [key] = *self.kept_keys.as_slice() else {
            return None;
        };
        let field = schema.fields().get(key)?;
        field.data_type().is_integer().then_some(key)
    }

    fn over(&self, kept: Operator, passing: Operator, null_aware: bool) -> Result<Operator> {
        HashJoinExecBuilder::from(&self.exec)
            .reset_state()
            .with_partition_mode(PartitionMode::CollectLeft)
            .with_null_aware(null_aware)
            .with_new_children(vec![kept, passing])?
            .build_exec()
    }
}

/// Kept rows, before there is a table of them.
pub(super) struct Kept {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    memory: MemoryReservation,
    /// So much is taken even if memory is short.
    assured: usize,
}

impl Kept {
    pub(super) fn new(context: &TaskContext, assured: usize) -> Self {
        let consumer = MemoryConsumer::new("LakeHashJoin").with_can_spill(true);
        Kept {
            batches: vec![],
            rows: 0,
            bytes: 0,
            memory: consumer.register(context.memory_pool()),
            assured,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Takes rows in. They come back if memory is short.
    pub(super) fn add(&mut self, batch: RecordBatch) -> Option<RecordBatch> {
        let rows = self.rows.saturating_add(batch.num_rows());
        let bytes = self.bytes.saturating_add(own_bytes(&batch));
        let needed = needed(bytes, rows, hash_table(rows));
        let with_room = needed.saturating_add(needed / ROOM);
        if needed > self.assured && self.memory.try_resize(with_room).is_err() {
            return Some(batch);
        }
        self.memory.resize(needed);
        self.rows = rows;
        self.bytes = bytes;
        self.batches.push(batch);
        None
    }

    /// Takes all rows in, or all that fit: then the first that don't come back.
    pub(super) async fn fill(
        &mut self,
        input: &mut SendableRecordBatchStream,
    ) -> Result<Option<RecordBatch>> {
        while let Some(batch) = input.next().await.transpose()? {
            if let Some(batch) = self.add(batch) {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Tells the keys, if these are all rows of one of so many parts.
    pub(super) fn tell(
        &self,
        filter: &KeyFilter,
        join: &HashJoin,
        parts: usize,
        context: &TaskContext,
    ) {
        if let Some(&column) = join.kept_keys.get(filter.key) {
            filter.add(&self.batches, column, parts, context.memory_pool());
        }
    }

    /// The rows, with the memory that they take.
    pub(super) fn into_rows(self) -> (Vec<RecordBatch>, MemoryReservation) {
        self.memory.resize(self.bytes.min(self.memory.size()));
        (self.batches, self.memory)
    }

    /// The table of the rows. So many streams look rows up in it.
    pub(super) fn build(
        self,
        join: &Arc<HashJoin>,
        streams: usize,
        null_aware: bool,
        context: &TaskContext,
    ) -> Result<Table> {
        let mut config = context.session_config().clone();
        if let Some(key) = join.array_key()
            && !self.reserve_array(key, &config)
        {
            let options = &mut config.options_mut().execution;
            options.perfect_hash_join_small_build_threshold = 0;
            options.perfect_hash_join_min_key_density = f64::INFINITY;
        }
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let runtime = RuntimeEnv {
            memory_pool: pool.clone(),
            ..(*context.runtime_env()).clone()
        };
        let own_context = TaskContext::new(
            None,
            context.session_id(),
            config,
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            Arc::new(runtime),
        );
        let kept = Handed::new(join.kept_schema(), 1);
        let rows = self.batches.into_iter().map(Ok::<_, DataFusionError>);
        let rows = RecordBatchStreamAdapter::new(join.kept_schema(), stream::iter(rows));
        kept.hand(0, Box::pin(rows));
        let passing = Arc::new(Handed::new(join.passing_schema(), streams));
        let memory = Arc::new(TableMemory {
            reserved: self.memory,
            pool,
            links: self.rows.saturating_mul(LINK_BYTES),
            last: match join.exec.join_type() {
                JoinType::LeftMark => self.bytes,
                _ => 0,
            },
            settled: Once::new(),
        });
        Ok(Table {
            exec: join.over(Arc::new(kept), passing.clone(), null_aware)?,
            join: join.clone(),
            passing,
            context: Arc::new(own_context),
            memory,
        })
    }

    /// Whether there is memory for the array that DataFusion would make instead of a hash table, if it would.
    fn reserve_array(&self, key: usize, config: &SessionConfig) -> bool {
        let options = &config.options().execution;
        // Saturates.
        let most = (self.rows as f64 / options.perfect_hash_join_min_key_density) as usize;
        let most = most.max(options.perfect_hash_join_small_build_threshold);
        let places = places(&self.batches, key).unwrap_or(most);
        if places > most {
            return true;
        }
        let array = places.saturating_add(self.rows).saturating_mul(LINK_BYTES);
        let finder = array.max(hash_table(self.rows));
        self.memory
            .try_resize(needed(self.bytes, self.rows, finder))
            .is_ok()
    }
}

/// What a batch takes. Of arrays that are slices only their part is counted: the others are kept, too, and share its buffers.
pub(super) fn own_bytes(batch: &RecordBatch) -> usize {
    let own = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8View | DataType::BinaryView => column.get_array_memory_size(),
        _ => used_bytes(column).unwrap_or_else(|_| column.get_array_memory_size()),
    };
    let bytes: usize = batch.columns().iter().map(own).sum();
    bytes.min(get_record_batch_memory_size(batch))
}

/// How many numbers there are from a key's least to its largest one, where that is simple.
fn places(batches: &[RecordBatch], key: usize) -> Option<usize> {
    let (mut least, mut largest) = (i64::MAX, i64::MIN);
    for batch in batches {
        let column = batch.columns().get(key)?;
        let (low, high) = if let Some(numbers) = column.as_primitive_opt::<Int32Type>() {
            (min(numbers).map(i64::from), max(numbers).map(i64::from))
        } else {
            let numbers = column.as_primitive_opt::<Int64Type>()?;
            (min(numbers), max(numbers))
        };
        least = least.min(low.unwrap_or(least));
        largest = largest.max(high.unwrap_or(largest));
    }
    let span = i128::from(largest) - i128::from(least);
    usize::try_from(span.saturating_add(1)).ok()
}

/// What it takes to make a table: the rows twice, a bit for each, and what finds them.
fn needed(bytes: usize, rows: usize, finder: usize) -> usize {
    bytes
        .saturating_mul(2)
        .saturating_add(rows.div_ceil(8))
        .saturating_add(finder)
}

fn hash_table(rows: usize) -> usize {
    let places = (rows.saturating_mul(8) / 7).next_power_of_two();
    places
        .saturating_mul(ENTRY_BYTES)
        .saturating_add(rows.saturating_mul(LINK_BYTES))
}

/// A table of kept rows, made when the first stream looks something up.
pub(super) struct Table {
    exec: Operator,
    join: Arc<HashJoin>,
    passing: Arc<Handed>,
    context: Arc<TaskContext>,
    memory: Arc<TableMemory>,
}

impl Table {
    /// Joins rows of the other side. Each of the streams has a number of its own.
    pub(super) fn look_up(
        &self,
        stream: usize,
        rows: SendableRecordBatchStream,
    ) -> Result<SendableRecordBatchStream> {
        self.passing
            .hand(stream, after_table(rows, self.memory.clone()));
        let joined = self.exec.execute(stream, self.context.clone())?;
        let mut metrics = MetricsSet::new();
        let own = self.exec.metrics().unwrap_or_default();
        for metric in own.iter().filter(|m| m.partition() == Some(stream)) {
            metrics.push(metric.clone());
        }
        let lookup = Lookup {
            number: locked(&self.join.metrics).begin(metrics),
            join: self.join.clone(),
            _memory: self.memory.clone(),
        };
        let schema = joined.schema();
        let joined = joined.inspect(move |_| {
            let _held = &lookup;
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, joined)))
    }
}

/// What goes with a stream that looks rows up: the table's memory is reserved until then, and its metrics are final.
struct Lookup {
    number: u64,
    join: Arc<HashJoin>,
    _memory: Arc<TableMemory>,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        locked(&self.join.metrics).end(self.number);
    }
}

/// The same rows; the first is asked for when the table is there.
fn after_table(
    rows: SendableRecordBatchStream,
    memory: Arc<TableMemory>,
) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let rows = stream::once(async move {
        memory.settle();
        rows
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows.flatten()))
}

/// What is reserved for a table.
struct TableMemory {
    reserved: MemoryReservation,
    /// What the operator says that it has taken. It bounds nothing.
    pool: Arc<dyn MemoryPool>,
    /// What it doesn't say.
    links: usize,
    /// All rows come out at the end, as one batch.
    last: usize,
    settled: Once,
}

impl TableMemory {
    /// The table is there: the rows are no longer there twice, unless they will be again.
    fn settle(&self) {
        self.settled.call_once(|| {
            let taken = self.pool.reserved().saturating_add(self.links);
            self.reserved.resize(taken.saturating_add(self.last));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use datafusion_execution::memory_pool::GreedyMemoryPool;
    use datafusion_execution::runtime_env::RuntimeEnvBuilder;
    use datafusion_physical_expr::PhysicalExpr;
    use datafusion_physical_expr::expressions::Column;
    use datafusion_physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder};

    fn batch(column: ArrayRef) -> RecordBatch {
        let field = Field::new("k", column.data_type().clone(), true);
        RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).expect("a column")
    }

    fn numbers(count: i32) -> RecordBatch {
        batch(Arc::new(Int32Array::from_iter_values(0..count)))
    }

    fn context(memory: usize) -> TaskContext {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)))
            .build_arc()
            .expect("a runtime");
        TaskContext::default().with_runtime(runtime)
    }

    #[test]
    fn places_are_counted_over_all_rows() {
        let first = batch(Arc::new(Int64Array::from(vec![Some(-5), None])));
        let second = batch(Arc::new(Int64Array::from(vec![4])));
        assert_eq!(places(&[first.clone(), second], 0), Some(10));
        assert_eq!(places(&[first], 1), None);
        let all = Int64Array::from(vec![i64::MIN, i64::MAX]);
        assert_eq!(places(&[batch(Arc::new(all))], 0), None);
        assert_eq!(places(&[batch(Arc::new(Int32Array::new_null(3)))], 0), None);
        assert_eq!(
            places(&[batch(Arc::new(StringArray::from(vec!["x"])))], 0),
            None
        );
    }

    #[test]
    fn rows_are_reserved_twice_and_with_what_finds_them() {
        let context = context(1 << 30);
        let mut kept = Kept::new(&context, 0);
        let rows = numbers(10_000);
        let bytes = own_bytes(&rows);
        assert!(kept.add(rows).is_none());
        let reserved = context.memory_pool().reserved();
        assert!(reserved >= 2 * bytes + 16_384 * ENTRY_BYTES, "{reserved}");
        let (_rows, memory) = kept.into_rows();
        assert_eq!(context.memory_pool().reserved(), bytes);
        drop(memory);
        assert_eq!(context.memory_pool().reserved(), 0);
    }

    #[test]
    fn slices_of_a_batch_are_counted_as_it_is() {
        let context = context(1 << 30);
        let whole = numbers(16_384);
        let mut kept = Kept::new(&context, 0);
        for start in [0, 8192] {
            assert!(kept.add(whole.slice(start, 8192)).is_none());
        }
        assert_eq!(kept.bytes, own_bytes(&whole));
        assert!(kept.bytes <= get_record_batch_memory_size(&whole));
    }

    #[test]
    fn rows_that_do_not_fit_come_back_unless_they_are_assured() {
        let context = context(100_000);
        let mut kept = Kept::new(&context, 0);
        assert_eq!(kept.add(numbers(10_000)), Some(numbers(10_000)));
        assert!(kept.is_empty());
        let mut kept = Kept::new(&context, 1_000_000);
        assert!(kept.add(numbers(10_000)).is_none());
    }

    fn join_of(kind: JoinType) -> HashJoin {
        let side = || -> Operator { Arc::new(Handed::new(numbers(0).schema(), 1)) };
        let key = || -> Arc<dyn PhysicalExpr> { Arc::new(Column::new("k", 0)) };
        let exec = HashJoinExecBuilder::new(side(), side(), vec![(key(), key())], kind)
            .with_partition_mode(PartitionMode::CollectLeft)
            .build()
            .expect("a join");
        HashJoin::new(exec, vec![0], vec![0])
    }

    #[test]
    fn a_mark_keeps_memory_for_the_rows_at_its_end() {
        let settled = |kind| {
            let context = context(1 << 30);
            let mut kept = Kept::new(&context, 0);
            assert!(kept.add(numbers(10_000)).is_none());
            let bytes = kept.bytes;
            let join = Arc::new(join_of(kind));
            let table = kept.build(&join, 1, false, &context).expect("a table");
            table.memory.settle();
            (context.memory_pool().reserved(), bytes)
        };
        let (reserved, bytes) = settled(JoinType::LeftSemi);
        assert!(bytes > 0);
        assert_eq!(settled(JoinType::LeftMark), (reserved + bytes, bytes));
    }

    #[test]
    fn metrics_of_many_tables_are_added_up() {
        let mut totals = Totals::default();
        for rows in 1..=100 {
            let set = ExecutionPlanMetricsSet::new();
            MetricBuilder::new(&set).output_rows(0).add(rows);
            let number = totals.begin(set.clone_inner());
            totals.end(number);
        }
        assert!(totals.running.is_empty());
        assert_eq!(totals.ended.iter().count(), 1);
        assert_eq!(totals.ended.output_rows(), Some(5050));
    }

    /// The hash table is reserved already.
    #[test]
    fn an_array_for_which_there_is_no_memory_is_not_made() {
        let memory = 1_000_000;
        let context = context(memory);
        let mut config = SessionConfig::new();
        config
            .options_mut()
            .execution
            .perfect_hash_join_min_key_density = 0.05;
        let mut kept = Kept::new(&context, 0);
        let apart = Int32Array::from_iter_values((0..10_000).map(|n| n * 19));
        assert!(kept.add(batch(Arc::new(apart))).is_none());
        let before = kept.memory.size();
        let others = MemoryConsumer::new("others").register(context.memory_pool());
        others.grow(memory - context.memory_pool().reserved());
        assert!(!kept.reserve_array(0, &config));
        assert_eq!(kept.memory.size(), before);
        drop(others);
        assert!(kept.reserve_array(0, &config));
        assert!(kept.memory.size() > before);
    }
}
