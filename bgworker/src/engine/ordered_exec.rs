//! The operator that aggregates rows which are sorted by their groups, and within each by what its values are ordered by.

use super::BATCH_ROWS;
use super::aggregate::{LakeAggregate, taken};
use super::copies::Layout;
use super::error::{from_arrow, internal, raise};
use super::found::{Found, Lists, Modes, Percentiles, Values};
use super::join_input::{compact, compact_array};
use super::kept::Keeper;
use super::lower::Operator;
use super::streams::{Batches, next_rows, stream_of};
use super::unary::{self, Unary};
use super::window::Cutter;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, NullArray, UInt64Array, new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::Result;
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::{EquivalenceProperties, Partitioning};
use datafusion_physical_plan::PlanProperties;
use datafusion_physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion_physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, SpillMetrics};
use pg_lake_plan::ir::AggregateFunction;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Results of so many bytes are handed out, if they are those of a complete group.
const RESULT_BYTES: usize = 1 << 20;

/// A function, and where what it needs is among the columns of the sorted rows.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) function: AggregateFunction,
    /// Of a list: each value comes once.
    pub(super) distinct: bool,
    /// What computes it where the order makes no difference.
    pub(super) plain: LakeAggregate,
    pub(super) result: DataType,
    /// Its rows are the copies for this order.
    pub(super) order: usize,
    /// `None`: `count(*)`
    pub(super) arg: Option<usize>,
    pub(super) key: Option<usize>,
    pub(super) filter: Option<usize>,
}

/// An aggregation of sorted rows.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) layout: Layout,
    pub(super) calls: Vec<Call>,
    /// Grouping sets that have a row also if there are no others.
    pub(super) empty_sets: Vec<i32>,
    /// Nothing comes out before the last row has been seen.
    pub(super) ends_late: bool,
    pub(super) cancel: CancellationToken,
}

/// The operator; its input has one partition.
pub(super) fn ordered_aggregate(input: Operator, program: Program) -> Operator {
    let aggregation = OrderedAggregation::new(&input, Arc::new(program));
    unary::operator(input, aggregation)
}

#[derive(Debug)]
struct OrderedAggregation {
    program: Arc<Program>,
    schema: SchemaRef,
}

impl OrderedAggregation {
    fn new(input: &Operator, program: Arc<Program>) -> Self {
        let sorted = input.schema();
        let numbered = usize::from(program.layout.numbered);
        let groups = sorted.fields().iter().skip(numbered);
        let mut fields: Vec<Field> = groups
            .take(program.layout.groups)
            .map(|field| field.as_ref().clone())
            .collect();
        for (i, call) in program.calls.iter().enumerate() {
            fields.push(Field::new(format!("a{i}"), call.result.clone(), true));
        }
        if program.layout.numbered {
            fields.push(Field::new("set", DataType::Int32, false));
        }
        OrderedAggregation {
            program,
            schema: Arc::new(Schema::new(fields)),
        }
    }
}

impl Unary for OrderedAggregation {
    const NAME: &'static str = "OrderedAggregateExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (groups, functions) = (self.program.layout.groups, self.program.calls.len());
        write!(
            f,
            "OrderedAggregate: groups={groups}, functions={functions}"
        )
    }

    fn properties(&self, _input: &Operator) -> PlanProperties {
        PlanProperties::new(
            EquivalenceProperties::new(self.schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
    }

    fn over(&self, input: &Operator) -> Self {
        OrderedAggregation::new(input, self.program.clone())
    }

    fn execute(
        &self,
        input: &Operator,
        partition: usize,
        context: Arc<TaskContext>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<SendableRecordBatchStream> {
        let mut found = vec![];
        for call in &self.program.calls {
            let spilled = SpillMetrics::new(metrics, partition);
            found.push(self.found(call, &context, spilled)?);
        }
        let reader = Reader {
            input: input.execute(partition, context.clone())?,
            sorted: input.schema(),
            schema: self.schema.clone(),
            found,
            cutter: Cutter::new(self.program.layout.keys()),
            keys: vec![vec![]; self.program.layout.keys()],
            key_bytes: 0,
            groups: 0,
            missing: self.program.empty_sets.clone(),
            ready: VecDeque::new(),
            ended: false,
            memory: MemoryConsumer::new("LakeOrderedAggregate").register(context.memory_pool()),
            metrics: BaselineMetrics::new(metrics, partition),
            program: self.program.clone(),
        };
        Ok(stream_of(self.schema.clone(), reader))
    }
}

impl OrderedAggregation {
    fn found(&self, call: &Call, context: &TaskContext, spilled: SpillMetrics) -> Result<Found> {
        let result = call.result.clone();
        let (share, continuous) = match call.function {
            AggregateFunction::PercentileDisc(share) => (share, false),
            AggregateFunction::PercentileCont(share) => (share, true),
            AggregateFunction::Mode => return Ok(Found::Mode(Modes::new(result))),
            AggregateFunction::ArrayAgg => {
                return match result {
                    DataType::List(field) => Ok(Found::List(Lists::new(field, call.distinct))),
                    _ => Err(raise(internal("lists for another type"))),
                };
            }
            _ => return Ok(Found::Plain(call.plain.states()?)),
        };
        let cancel = self.program.cancel.clone();
        let keeper = Keeper::new(result.clone(), context, spilled, cancel);
        let percentiles = Percentiles::new(share, continuous, result, keeper);
        Ok(Found::Percentile(percentiles))
    }
}

struct Reader {
    input: SendableRecordBatchStream,
    sorted: SchemaRef,
    schema: SchemaRef,
    program: Arc<Program>,
    found: Vec<Found>,
    cutter: Cutter,
    /// What makes the groups whose results haven't been taken: pieces of each column.
    keys: Vec<Vec<ArrayRef>>,
    key_bytes: usize,
    /// The number of these groups, with the one that may go on.
    groups: usize,
    /// Sets that have a row in any case, and none yet.
    missing: Vec<i32>,
    ready: VecDeque<RecordBatch>,
    ended: bool,
    memory: MemoryReservation,
    metrics: BaselineMetrics,
}

impl Batches for Reader {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                self.metrics.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
            if self.ended {
                self.memory.free();
                return Ok(None);
            }
            match next_rows(&mut self.input, &self.program.cancel).await? {
                Some(batch) => {
                    self.take(compact(batch).map_err(raise)?).await?;
                    self.hand_out()?;
                }
                None => {
                    self.ended = true;
                    self.end().await?;
                }
            }
        }
    }
}

impl Reader {
    /// Takes the next rows.
    async fn take(&mut self, batch: RecordBatch) -> Result<()> {
        let time = self.metrics.elapsed_compute().clone();
        let _timer = time.timer();
        let rows = batch.num_rows();
        let keys: Vec<ArrayRef> = (batch.columns().iter())
            .take(self.program.layout.keys())
            .cloned()
            .collect();
        let starts = self.cutter.starts(&keys, rows).map_err(raise)?.partitions;
        let mut numbers = Vec::with_capacity(rows);
        let mut begun = starts.iter().copied().peekable();
        for row in 0..rows {
            if begun.next_if_eq(&row).is_some() {
                self.groups += 1;
            }
            numbers.push(self.groups.saturating_sub(1));
        }
        self.add_keys(&keys, &starts)?;
        self.add(&batch, &numbers, self.groups.saturating_sub(1))
            .await
    }

    fn add_keys(&mut self, keys: &[ArrayRef], starts: &[usize]) -> Result<()> {
        if starts.is_empty() {
            return Ok(());
        }
        let places = starts.iter().map(|start| *start as u64);
        let places = UInt64Array::from_iter_values(places);
        for (key, pieces) in keys.iter().zip(&mut self.keys) {
            let piece = compute::take(key, &places, None)?;
            self.key_bytes += piece.get_array_memory_size();
            pieces.push(piece);
        }
        if self.program.layout.numbered
            && !self.missing.is_empty()
            && let Some(sets) = keys
                .first()
                .and_then(|set| set.as_primitive_opt::<Int32Type>())
        {
            self.missing.retain(|set| !sets.values().contains(set));
        }
        Ok(())
    }

    /// Has the functions take rows of these groups. Groups before `last` are complete then.
    async fn add(&mut self, batch: &RecordBatch, numbers: &[usize], last: usize) -> Result<()> {
        let order = self.program.layout.order();
        let order = order.and_then(|column| batch.columns().get(column));
        for (call, found) in self.program.calls.iter().zip(&mut self.found) {
            let own = order.and_then(|order| rows_of(order, call.order));
            match found {
                Found::Plain(states) => {
                    let arg: ArrayRef = match call.arg {
                        Some(arg) => column(batch, arg)?,
                        None => Arc::new(NullArray::new(batch.num_rows())),
                    };
                    let rows = both(passing(call, batch)?, own);
                    let rows = rows.map(|rows| BooleanArray::new(rows, None));
                    states.update_batch(&[arg], numbers, rows.as_ref(), self.groups)?;
                }
                Found::Mode(modes) => modes.add(&values(call, batch, numbers, own)?, last)?,
                Found::List(lists) => lists.add(&values(call, batch, numbers, own)?, last)?,
                Found::Percentile(percentiles) => {
                    let values = values(call, batch, numbers, own)?;
                    percentiles.add(&values, last).await?;
                }
            }
        }
        self.memory.try_resize(self.size())
    }

    fn size(&self) -> usize {
        let found: usize = self.found.iter().map(Found::size).sum();
        let ready = self.ready.iter().map(RecordBatch::get_array_memory_size);
        found + self.key_bytes + ready.max().unwrap_or(0)
    }

    /// Hands results of complete groups out, if there are enough.
    fn hand_out(&mut self) -> Result<()> {
        let complete = self.groups.saturating_sub(1);
        let enough = complete >= BATCH_ROWS || (complete > 0 && self.size() >= RESULT_BYTES);
        if !enough || self.program.ends_late {
            return Ok(());
        }
        self.emit(complete)?;
        self.memory.try_resize(self.size())
    }

    async fn end(&mut self) -> Result<()> {
        // Without groups there is one, also of no rows.
        if self.program.layout.keys() == 0 {
            self.groups = self.groups.max(1);
        }
        for set in std::mem::take(&mut self.missing) {
            self.add_empty_set(set);
        }
        let none = RecordBatch::new_empty(self.sorted.clone());
        if self.groups > 0 {
            self.add(&none, &[], self.groups).await?;
            self.emit(self.groups)?;
        }
        Ok(())
    }

    fn add_empty_set(&mut self, set: i32) {
        let types = self.sorted.fields().iter().map(|field| field.data_type());
        for (at, (pieces, ty)) in self.keys.iter_mut().zip(types).enumerate() {
            pieces.push(match at {
                0 => Arc::new(Int32Array::from(vec![set])),
                _ => new_null_array(ty, 1),
            });
        }
        self.groups += 1;
    }

    /// Takes the results of the first groups.
    fn emit(&mut self, first: usize) -> Result<()> {
        let mut keys = vec![];
        self.key_bytes = 0;
        for pieces in &mut self.keys {
            let all: Vec<&dyn Array> = pieces.iter().map(|piece| piece.as_ref()).collect();
            let all = compute::concat(&all)?;
            let later = all.len().saturating_sub(first);
            let later = compact_array(all.slice(all.len() - later, later)).map_err(raise)?;
            self.key_bytes += later.get_array_memory_size();
            *pieces = vec![later];
            keys.push(all.slice(0, first.min(all.len())));
        }
        let set = match self.program.layout.numbered {
            true => Some(keys.remove(0)),
            false => None,
        };
        let mut columns = keys;
        for found in &mut self.found {
            columns.push(found.emit(first, self.groups)?);
        }
        columns.extend(set);
        self.groups -= first;
        let batch = RecordBatch::try_new(self.schema.clone(), columns);
        let batch = batch.map_err(|e| raise(from_arrow(&e)))?;
        let starts = (0..first).step_by(BATCH_ROWS);
        let pieces = starts.map(|start| batch.slice(start, BATCH_ROWS.min(first - start)));
        self.ready.extend(pieces);
        Ok(())
    }
}

fn column(batch: &RecordBatch, at: usize) -> Result<ArrayRef> {
    let column = batch.columns().get(at).cloned();
    column.ok_or_else(|| raise(internal("a column of sorted rows is missing")))
}

/// The rows that are copies for an order.
fn rows_of(orders: &ArrayRef, order: usize) -> Option<BooleanBuffer> {
    let orders = orders.as_primitive_opt::<Int32Type>()?.values();
    let is_own = |row: usize| orders.get(row).is_some_and(|own| *own as usize == order);
    Some(BooleanBuffer::collect_bool(orders.len(), is_own))
}

fn both(one: Option<BooleanBuffer>, other: Option<BooleanBuffer>) -> Option<BooleanBuffer> {
    match (one, other) {
        (Some(one), Some(other)) => Some(&one & &other),
        (one, other) => one.or(other),
    }
}

/// The rows that pass a function's filter.
fn passing(call: &Call, batch: &RecordBatch) -> Result<Option<BooleanBuffer>> {
    let Some(filter) = call.filter else {
        return Ok(None);
    };
    let filter = column(batch, filter)?;
    let filter = filter.as_boolean_opt();
    let filter = filter.ok_or_else(|| raise(internal("a filter isn't true or false")))?;
    Ok(taken(None, Some(filter)))
}

/// What a function of ordered values takes of some rows.
fn values(
    call: &Call,
    batch: &RecordBatch,
    numbers: &[usize],
    own: Option<BooleanBuffer>,
) -> Result<Values> {
    let arg = call.arg;
    let arg = arg.ok_or_else(|| raise(internal("an ordered aggregate without values")))?;
    let values = column(batch, arg)?;
    // Only runs of equal values need what they are ordered by.
    let of_runs = call.function == AggregateFunction::Mode;
    let key = call.key.filter(|key| of_runs && *key != arg);
    let key = key.map(|key| column(batch, key)).transpose()?;
    let with_nulls = call.function == AggregateFunction::ArrayAgg;
    let nulls = values.nulls().filter(|_| !with_nulls);
    let rows = both(both(taken(nulls, None), passing(call, batch)?), own);
    Ok(match rows {
        None => Values {
            groups: numbers.to_vec(),
            key: key.unwrap_or_else(|| values.clone()),
            values,
        },
        Some(rows) => {
            let groups = rows.set_indices().filter_map(|row| numbers.get(row));
            let groups = groups.copied().collect();
            let rows = BooleanArray::new(rows, None);
            let values = compute::filter(&values, &rows)?;
            let key = key.map(|key| compute::filter(&key, &rows)).transpose()?;
            Values {
                groups,
                key: key.unwrap_or_else(|| values.clone()),
                values,
            }
        }
    })
}
