//! `WITH RECURSIVE`: the rows of each step come from those of the last one, until a step has none.
//!
//! An operator can be executed once, so each step has new ones. A step begins when the rows of the one before have been
//! taken: a recursion may be without end, and a limit above it. Of equal rows the first one comes out, as in
//! nodeRecursiveunion.c. What must be kept for the steps goes to files where it doesn't fit (`aside`, `seen`).

use super::aside::{Aside, Keeping, Spills};
use super::cache::Cache;
use super::error::{cancelled, from_arrow, internal, raise, wire};
use super::join_input::compact;
use super::lower::{Lowering, Operator, single};
use super::remote::Remote;
use super::replay::Replay;
use super::seen::Seen;
use super::source::Files;
use super::stats::Counters;
use super::steps::{Pass, Passed, Step, stepping};
use super::streams::{Batches, stream_of};
use super::validate::{check_ordered, require};
use super::work_table::Work;
use crate::arrow_types::arrow_schema;
use arrow::array::AsArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_common::Result as DfResult;
use datafusion_execution::memory_pool::MemoryPool;
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion_physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion_physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, SpillMetrics,
};
use datafusion_physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;
use pg_lake_plan::ir::{Expr, ExprKind, Plan, RecursiveUnion};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::{LakeType, SqlType, Value};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

/// The rows of a step take at most this part of the query's memory, as do those of the one before.
const STEP_SHARE: usize = 8;

/// Checks that work tables are read within their recursion, and that no recursion is in a step of another one.
pub(super) fn check_work_tables(
    plan: &Plan,
    within: Option<&RecursiveUnion>,
) -> Result<(), WireError> {
    match plan {
        Plan::WorkTable(table) => {
            let fits = |union: &RecursiveUnion| {
                union.id == table.id && union.non_recursive.output() == table.output()
            };
            let fits = within.is_some_and(fits);
            require(fits, "a work table outside of its recursion")
        }
        Plan::RecursiveUnion(union) => {
            require(within.is_none(), "a recursion in a step of another one")?;
            check_work_tables(&union.non_recursive, None)?;
            check_work_tables(&union.recursive, Some(union))
        }
        other => {
            let mut inputs = other.inputs().into_iter();
            inputs.try_for_each(|input| check_work_tables(input, within))
        }
    }
}

/// Checks a recursion whose rows have columns of these types.
pub(super) fn check_recursion(
    union: &RecursiveUnion,
    columns: &[LakeType],
) -> Result<(), WireError> {
    require(!columns.is_empty(), "a recursion of rows without columns")?;
    let mut compared = columns.iter().filter(|_| union.distinct);
    compared.try_for_each(check_ordered)
}

impl Lowering {
    pub(super) fn recursive_union(
        &mut self,
        union: &RecursiveUnion,
    ) -> Result<Operator, WireError> {
        let first = single(self.lower(&union.non_recursive)?);
        let types = union.non_recursive.output();
        let names: Vec<String> = (0..types.len()).map(|at| format!("c{at}")).collect();
        let schema = arrow_schema(names.iter().map(String::as_str).zip(&types));
        let mut keys = vec![];
        for (at, lake) in types.iter().enumerate().filter(|_| union.distinct) {
            keys.push(self.key(&column_of(at, lake), &schema)?);
        }
        let steps = self.steps(union, schema);
        // What can't be lowered is found before a row has come out.
        steps.operator(None)?;
        Ok(Arc::new(RecursionExec::new(
            first,
            Arc::new(steps),
            keys.into(),
        )))
    }

    /// Takes the tables that the steps scan.
    fn steps(&mut self, union: &RecursiveUnion, schema: SchemaRef) -> Steps {
        let mut tables: Vec<Option<Files>> = self.tables.iter().map(|_| None).collect();
        let mut feeds: Vec<Option<Replay>> = self.feeds.iter().map(|_| None).collect();
        for scan in union.recursive.scans() {
            let at = scan.table as usize;
            if let (Some(own), Some(place)) = (self.tables.get_mut(at), tables.get_mut(at)) {
                *place = own.take();
            }
            if let (Some(own), Some(place)) = (self.feeds.get_mut(at), feeds.get_mut(at)) {
                *place = own.take().map(|feed| Replay::new(feed, &self.memory));
            }
        }
        Steps {
            plan: (*union.recursive).clone(),
            schema,
            tables,
            feeds,
            params: self.params.clone(),
            cache: self.cache.clone(),
            counters: self.counters.clone(),
            cancel: self.cancel.clone(),
            remote: self.remote.clone(),
            threads: self.threads,
            memory: self.memory.clone(),
        }
    }
}

/// A column as an expression.
fn column_of(at: usize, lake: &LakeType) -> Expr {
    let ty = SqlType {
        lake: lake.clone(),
        oid: 0,
        typmod: -1,
        collation: 0,
    };
    let kind = ExprKind::Column(at as u32);
    Expr { ty, kind }
}

/// Makes the operators of each step.
struct Steps {
    plan: Plan,
    /// Of the recursion's rows.
    schema: SchemaRef,
    /// Those that are scanned, by their numbers.
    tables: Vec<Option<Files>>,
    feeds: Vec<Option<Replay>>,
    params: Vec<Option<Value>>,
    cache: Arc<Cache>,
    counters: Arc<Counters>,
    cancel: CancellationToken,
    remote: Remote,
    threads: usize,
    memory: Arc<dyn MemoryPool>,
}

impl Steps {
    /// Before they begin.
    fn spill_to(&self, spills: &Spills) {
        let feeds = self.feeds.iter().flatten();
        let count = feeds.clone().count();
        feeds.for_each(|feed| feed.spill_to(spills, count));
    }

    /// With one output partition.
    fn operator(&self, rows: Option<Arc<Aside>>) -> Result<Operator, WireError> {
        let again = |feed: &Option<Replay>| feed.as_ref().map(Replay::again);
        let mut lowering = Lowering {
            tables: self.tables.clone(),
            feeds: self.feeds.iter().map(again).collect(),
            params: self.params.clone(),
            cache: self.cache.clone(),
            counters: self.counters.clone(),
            cancel: self.cancel.clone(),
            remote: self.remote.clone(),
            threads: self.threads,
            memory: self.memory.clone(),
            sought: HashMap::new(),
            work: Some(Work {
                schema: self.schema.clone(),
                rows,
            }),
        };
        lowering.root(&self.plan)
    }

    /// Terms agree on types, not on names.
    fn named(&self, batch: &RecordBatch) -> DfResult<RecordBatch> {
        let columns = batch.columns().to_vec();
        let batch = RecordBatch::try_new(self.schema.clone(), columns);
        batch.map_err(|e| raise(from_arrow(&e)))
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct RecursionExec {
    first: Operator,
    steps: Arc<Steps>,
    /// What rows are compared by; none if all come out.
    keys: Arc<[Arc<dyn PhysicalExpr>]>,
    begun: AtomicBool,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RecursionExec {
    fn new(first: Operator, steps: Arc<Steps>, keys: Arc<[Arc<dyn PhysicalExpr>]>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(steps.schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        RecursionExec {
            first,
            steps,
            keys,
            begun: AtomicBool::new(false),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    fn seen(&self, spills: &Spills) -> DfResult<Option<Seen>> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let (keys, steps) = (self.keys.clone(), &self.steps);
        Seen::new(keys, steps.schema.clone(), spills, &steps.cancel).map(Some)
    }
}

impl DisplayAs for RecursionExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let distinct = !self.keys.is_empty();
        write!(f, "RecursiveUnion: distinct={distinct}")
    }
}

impl ExecutionPlan for RecursionExec {
    fn name(&self) -> &str {
        "RecursionExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.first]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Operator>) -> DfResult<Operator> {
        let first = children.into_iter().next();
        let first = first.ok_or_else(|| raise(internal("a recursion without a beginning")))?;
        let (steps, keys) = (self.steps.clone(), self.keys.clone());
        Ok(Arc::new(RecursionExec::new(first, steps, keys)))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        if self.begun.swap(true, Ordering::Relaxed) {
            return Err(raise(internal("a recursion was to begin twice")));
        }
        let metrics = SpillMetrics::new(&self.metrics, partition);
        let spills = Spills::new(&context, metrics.clone());
        self.steps.spill_to(&spills);
        let rows = Rows {
            seen: self.seen(&spills)?,
            new: keeping(&self.steps, &spills),
            current: Some(self.first.execute(0, context.clone())?),
            step: None,
            steps: self.steps.clone(),
            context,
            begun: false,
            count: MetricBuilder::new(&self.metrics).counter("steps", partition),
            spills,
            spilled: metrics,
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        Ok(stream_of(self.steps.schema.clone(), rows))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Where the rows of a step go.
fn keeping(steps: &Steps, spills: &Spills) -> Keeping {
    Keeping::new("LakeRecursion", steps.schema.clone(), spills, STEP_SHARE)
}

/// A recursion while it runs.
struct Rows {
    seen: Option<Seen>,
    /// Of the step under way, or the beginning.
    current: Option<SendableRecordBatchStream>,
    step: Option<Operator>,
    steps: Arc<Steps>,
    context: Arc<TaskContext>,
    /// There has been a step.
    begun: bool,
    /// What came out of it.
    new: Keeping,
    count: Count,
    spills: Spills,
    spilled: SpillMetrics,
    metrics: BaselineMetrics,
}

impl Batches for Rows {
    async fn next(&mut self) -> DfResult<Option<RecordBatch>> {
        loop {
            tokio::task::coop::consume_budget().await;
            if self.steps.cancel.is_cancelled() {
                return Err(raise(cancelled()));
            }
            if let Some(batch) = self.seen.as_mut().and_then(Seen::pop) {
                return self.come_out(batch).map(Some);
            }
            let next = match &mut self.current {
                Some(current) => current.next().await.transpose()?,
                None => None,
            };
            let Some(batch) = next else {
                self.current = None;
                let has_rows = match &mut self.seen {
                    Some(seen) => seen.settle().await?,
                    None => false,
                };
                if !has_rows && !self.begin_step()? {
                    return Ok(None);
                }
                continue;
            };
            if batch.num_rows() == 0 {
                continue;
            }
            let batch = self.steps.named(&batch)?;
            match &mut self.seen {
                Some(seen) => {
                    seen.add(batch).await?;
                    // There may be many batches without a new row.
                    tokio::task::yield_now().await;
                }
                None => return self.come_out(batch).map(Some),
            }
        }
    }
}

impl Rows {
    /// Rows are kept for the next step.
    fn come_out(&mut self, batch: RecordBatch) -> DfResult<RecordBatch> {
        let batch = compact(batch).map_err(raise)?;
        self.new.add(batch.clone())?;
        self.metrics.record_output(batch.num_rows());
        Ok(batch)
    }

    /// Goes on with the rows that came out last; false if there are none. As in nodeRecursiveunion.c there is a first step
    /// even so: what counts rows may give one over none.
    fn begin_step(&mut self) -> DfResult<bool> {
        if let Some(step) = self.step.take() {
            add_spills(step.as_ref(), &self.spilled);
        }
        if self.new.is_empty() && self.begun {
            return Ok(false);
        }
        self.begun = true;
        let next = keeping(&self.steps, &self.spills);
        let rows = std::mem::replace(&mut self.new, next).finish()?;
        let step = self.steps.operator(Some(Arc::new(rows))).map_err(raise)?;
        self.current = Some(step.execute(0, self.context.clone())?);
        self.step = Some(step);
        self.count.add(1);
        Ok(true)
    }
}

/// Adds what the operators of a step have written to temporary files.
fn add_spills(plan: &dyn ExecutionPlan, spills: &SpillMetrics) {
    if let Some(metrics) = plan.metrics() {
        spills
            .spilled_bytes
            .add(metrics.spilled_bytes().unwrap_or(0));
        spills
            .spill_file_count
            .add(metrics.spill_count().unwrap_or(0));
    }
    for input in plan.children() {
        add_spills(input.as_ref(), spills);
    }
}

/// Filters the rows of a recursion as they come: DataFusion's operator waits for a batch full of them, for which there
/// may have to be a step each.
pub(super) fn as_they_come(input: Operator, predicate: Arc<dyn PhysicalExpr>) -> Operator {
    let schema = input.schema();
    stepping(input, Arc::new(Passing { predicate, schema }))
}

#[derive(Debug)]
struct Passing {
    predicate: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
}

impl Step for Passing {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter: {}", self.predicate)
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn keeps_rows(&self) -> bool {
        true
    }

    fn start(self: Arc<Self>, _context: &TaskContext) -> DfResult<Box<dyn Pass>> {
        Ok(Box::new(Filtering(self)))
    }
}

struct Filtering(Arc<Passing>);

impl Pass for Filtering {
    fn pass(&mut self, batch: RecordBatch) -> Result<Passed, WireError> {
        let test = self.0.predicate.evaluate(&batch);
        let test = test.and_then(|test| test.into_array(batch.num_rows()));
        let test = test.map_err(|e| wire(&e))?;
        let Some(test) = test.as_boolean_opt() else {
            return Err(internal("a condition that isn't boolean"));
        };
        let batch = filter_record_batch(&batch, test).map_err(|e| from_arrow(&e))?;
        Ok(match batch.num_rows() {
            0 => Passed::Nothing,
            _ => Passed::Rows(batch),
        })
    }
}
