//! Plan nodes to physical operators, directly: no logical plan, no optimizer rules.
//!
//! Rows keep Postgres' meaning by our own expressions ([`PgExpr`]) and aggregates; DataFusion contributes the
//! operators. Joins, appends and aggregations have modules of their own.

use super::Feed;
use super::cache::Cache;
use super::dense::dense_until;
use super::describe::describe;
use super::dynamic::Sought;
use super::error::{internal, not_exact, protocol, wire};
use super::expr::{Node, PgExpr};
use super::prune;
use super::recursion::as_they_come;
use super::remote::Remote;
use super::scan::LakeScanExec;
use super::sorting::{merged, sorted};
use super::source::{Files, Source};
use super::stats::Counters;
use super::widths::Widths;
use super::work_table::Work;
use crate::arrow_types::scan_schema;
use arrow::compute::SortOptions;
use arrow::datatypes::Schema;
use datafusion_common::DataFusionError;
use datafusion_execution::memory_pool::{MemoryLimit, MemoryPool};
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion_physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion_physical_plan::empty::EmptyExec;
use datafusion_physical_plan::filter::FilterExec;
use datafusion_physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion_physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion_physical_plan::projection::ProjectionExec;
use datafusion_physical_plan::sorts::sort::SortExec;
use datafusion_physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion_physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use pg_lake_plan::ir::{Expr, ExprKind, Plan, Scan, SortKey};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::{LakeType, SqlType, Value};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// More than the first so many rows are taken from a sort, which spills: DataFusion's operator for the first ones doesn't.
const TOPMOST_MAX: usize = 1 << 17;

/// They are fewer if the query has less memory than that for each.
const TOPMOST_BYTES: usize = 4096;

/// Partitions that have less are sorted as one: where rows have a megabyte, the merge of each needs half of it, and the
/// merge of all of them as much again.
const SHARE_OF_A_SORT: usize = 64 << 20;

pub(super) type Operator = Arc<dyn ExecutionPlan>;

/// What lowering takes from the request and the engine.
pub(super) struct Lowering {
    pub(super) tables: Vec<Option<Files>>,
    pub(super) feeds: Vec<Option<Feed>>,
    pub(super) params: Vec<Option<Value>>,
    pub(super) cache: Arc<Cache>,
    pub(super) counters: Arc<Counters>,
    pub(super) cancel: CancellationToken,
    pub(super) remote: Remote,
    pub(super) threads: usize,
    /// The query's.
    pub(super) memory: Arc<dyn MemoryPool>,
    /// What operators above tell the scans of tables that are still to be lowered.
    pub(super) sought: HashMap<u32, Vec<Sought>>,
    /// The rows of a recursion's last step, for its next one.
    pub(super) work: Option<Work>,
}

pub(super) fn check<T>(result: Result<T, DataFusionError>) -> Result<T, WireError> {
    result.map_err(|e| wire(&e))
}

impl Lowering {
    /// The whole plan, with one output partition.
    pub(super) fn root(&mut self, plan: &Plan) -> Result<Operator, WireError> {
        let operator = self.lower(plan)?;
        Ok(single(operator))
    }

    pub(super) fn lower(&mut self, plan: &Plan) -> Result<Operator, WireError> {
        match plan {
            Plan::Scan(scan) => self.scan(scan, &[], None),
            Plan::Filter { .. } => self.filter(plan),
            Plan::Project { input, exprs } => self.project(input, exprs),
            Plan::Join(join) => self.join(join, None),
            Plan::Append { inputs } => self.append(inputs),
            Plan::Window(window) => self.window(window),
            Plan::Aggregate {
                input,
                groups,
                aggregates,
                sets,
                groups_estimate,
            } => {
                let input = self.lower(input)?;
                self.aggregate(input, groups, aggregates, sets, *groups_estimate)
            }
            // Nothing is computed of it, which might fail (`ExecLimit` in nodeLimit.c).
            Plan::Sort {
                input,
                fetch: Some(0),
                ..
            }
            | Plan::Limit {
                input,
                fetch: Some(0),
                ..
            } => Ok(Arc::new(EmptyExec::new(self.lower(input)?.schema()))),
            Plan::Sort { input, keys, fetch } => {
                let topmost = self.topmost(input, keys, *fetch);
                let mut input = self.lower(input)?;
                if let Some(topmost) = topmost {
                    input = topmost.watching(input);
                }
                self.sort(input, keys, fetch.map(rows))
            }
            Plan::Limit { input, skip, fetch } => {
                let input = self.lower(input)?;
                let (skip, fetch) = (rows(*skip), fetch.map(rows));
                let input: Operator = match fetch {
                    Some(fetch) if input.output_partitioning().partition_count() > 1 => {
                        Arc::new(LocalLimitExec::new(input, skip.saturating_add(fetch)))
                    }
                    _ => input,
                };
                Ok(Arc::new(GlobalLimitExec::new(single(input), skip, fetch)))
            }
            Plan::ProjectSet(set) => self.project_set(set),
            Plan::OneRow => Ok(Arc::new(PlaceholderRowExec::new(Arc::new(Schema::empty())))),
            Plan::RecursiveUnion(union) => self.recursive_union(union),
            Plan::WorkTable(_) => self.work_table(),
        }
    }

    /// Joins and scans leave out columns themselves.
    fn project(&mut self, input: &Plan, exprs: &[Expr]) -> Result<Operator, WireError> {
        if let Some(columns) = columns(exprs) {
            match below_filters(input) {
                (Plan::Scan(scan), filters) => return self.scan(scan, &filters, Some(columns)),
                (Plan::Join(join), filters) if filters.is_empty() => {
                    return self.join(join, Some(columns));
                }
                _ => {}
            }
        }
        let input = self.lower(input)?;
        let schema = input.schema();
        let mut outputs = vec![];
        for (i, expr) in exprs.iter().enumerate() {
            outputs.push((self.operand(expr, &schema)?, format!("e{i}")));
        }
        Ok(Arc::new(check(ProjectionExec::try_new(outputs, input))?))
    }

    /// Filters right above a scan become part of its predicate, in their order.
    fn filter(&mut self, plan: &Plan) -> Result<Operator, WireError> {
        let (node, predicates) = below_filters(plan);
        if let Plan::Scan(scan) = node {
            return self.scan(scan, &predicates, None);
        }
        let mut operator = self.lower(node)?;
        for predicate in predicates {
            let test = self.operand(predicate, &operator.schema())?;
            operator = match node.follows_recursion() {
                true => as_they_come(operator, test),
                false => Arc::new(check(FilterExec::try_new(test, operator))?),
            };
        }
        Ok(operator)
    }

    /// `outputs`: the columns that come out. `None`: all.
    fn scan(
        &mut self,
        scan: &Scan,
        filters: &[&Expr],
        outputs: Option<Vec<usize>>,
    ) -> Result<Operator, WireError> {
        let index = scan.table as usize;
        let files = self
            .tables
            .get_mut(index)
            .and_then(Option::take)
            .ok_or_else(|| protocol("a scanned table is missing"))?;
        let feed = self.feeds.get_mut(index).and_then(Option::take);
        let sought = self.sought.remove(&scan.table).unwrap_or_default();
        let schema = scan_schema(&scan.columns);
        let conjuncts: Vec<&Expr> = scan
            .predicate
            .iter()
            .chain(filters.iter().copied())
            .collect();
        let mut quals = match &scan.predicate {
            Some(predicate) => Node::quals(predicate, &self.params)?,
            None => vec![],
        };
        for filter in filters {
            quals.push(Node::compile(filter, &self.params)?);
        }
        let own = scan.predicate.iter().flat_map(Expr::quals);
        let bounds = prune::bounds(own.chain(filters.iter().copied()), &self.params);
        let predicate = conjunction(&conjuncts);
        let text = predicate.map_or_else(String::new, |p| describe(&p, &schema));
        let source = Source::new(
            scan,
            schema,
            Node::all(quals),
            bounds,
            files,
            self.cache.clone(),
            self.counters.clone(),
            self.cancel.clone(),
            self.remote.clone(),
        )?
        .with_filters(sought);
        let exec = LakeScanExec::new(Arc::new(source), feed, self.threads, text, outputs)?;
        Ok(Arc::new(exec))
    }

    /// An expression over an operator's output.
    pub(super) fn operand(
        &self,
        expr: &Expr,
        schema: &Schema,
    ) -> Result<Arc<dyn PhysicalExpr>, WireError> {
        if let ExprKind::Column(i) = expr.kind {
            return column(schema, i as usize);
        }
        let node = Node::compile(expr, &self.params)?;
        Ok(Arc::new(PgExpr::new(node, expr, schema, &self.memory)))
    }

    /// An expression to group or sort by: equal values are bitwise equal.
    pub(super) fn key(
        &self,
        expr: &Expr,
        schema: &Schema,
    ) -> Result<Arc<dyn PhysicalExpr>, WireError> {
        if !expr.ty.lake.is_float() {
            return self.operand(expr, schema);
        }
        let node = Node::compile(expr, &self.params)?.canonical();
        Ok(Arc::new(PgExpr::new(node, expr, schema, &self.memory)))
    }

    pub(super) fn sort(
        &self,
        input: Operator,
        keys: &[SortKey],
        fetch: Option<usize>,
    ) -> Result<Operator, WireError> {
        let Some(ordering) = self.ordering(keys, &input.schema())? else {
            return Ok(match fetch {
                Some(_) => Arc::new(GlobalLimitExec::new(single(input), 0, fetch)),
                None => input,
            });
        };
        self.sort_by(input, ordering, fetch)
    }

    /// With one output partition.
    pub(super) fn sort_by(
        &self,
        input: Operator,
        ordering: LexOrdering,
        fetch: Option<usize>,
    ) -> Result<Operator, WireError> {
        let limited = |rows: Operator| -> Operator {
            match fetch {
                Some(_) => Arc::new(GlobalLimitExec::new(rows, 0, fetch)),
                None => rows,
            }
        };
        let input = self.in_few_partitions(input, &ordering)?;
        let partitions = input.output_partitioning().partition_count();
        if partitions == 1 && is_sorted(&input, &ordering)? {
            return Ok(limited(input));
        }
        if let Some(rows) = fetch.filter(|rows| *rows <= self.topmost_max()) {
            let topmost = self.topmost_rows(input, &ordering, rows)?;
            if partitions == 1 {
                return Ok(topmost);
            }
            let merged = SortPreservingMergeExec::new(ordering, topmost).with_fetch(fetch);
            return Ok(Arc::new(merged));
        }
        let widths = Arc::<Widths>::default();
        let are_seen = !is_sorted(&input, &ordering)?;
        let sorted = self.sort_partitions(input, &ordering, &widths)?;
        Ok(limited(match partitions {
            1 => sorted,
            _ => merged(sorted, ordering, are_seen.then_some(widths)),
        }))
    }

    /// How many of the first rows are kept in memory.
    fn topmost_max(&self) -> usize {
        match self.memory.memory_limit() {
            MemoryLimit::Finite(limit) => TOPMOST_MAX.min(limit / TOPMOST_BYTES),
            MemoryLimit::Infinite | MemoryLimit::Unknown => TOPMOST_MAX,
        }
    }

    /// With little memory rows are sorted in one partition: each one takes a share of its own, of which its merges make
    /// use one after the other.
    fn in_few_partitions(
        &self,
        input: Operator,
        ordering: &LexOrdering,
    ) -> Result<Operator, WireError> {
        let partitions = input.output_partitioning().partition_count();
        let is_little = match self.memory.memory_limit() {
            MemoryLimit::Finite(limit) => limit / partitions.max(1) < SHARE_OF_A_SORT,
            MemoryLimit::Infinite | MemoryLimit::Unknown => false,
        };
        Ok(match is_little && !is_sorted(&input, ordering)? {
            true => single(input),
            false => input,
        })
    }

    /// Sorts each partition by itself.
    pub(super) fn sort_each(
        &self,
        input: Operator,
        keys: &[SortKey],
    ) -> Result<Operator, WireError> {
        match self.ordering(keys, &input.schema())? {
            Some(ordering) => self.sort_partitions(input, &ordering, &Arc::default()),
            None => Ok(input),
        }
    }

    fn sort_partitions(
        &self,
        input: Operator,
        ordering: &LexOrdering,
        widths: &Arc<Widths>,
    ) -> Result<Operator, WireError> {
        if is_sorted(&input, ordering)? {
            return Ok(input);
        }
        let input = dense_until(input, &self.cancel);
        Ok(sorted(input, ordering.clone(), widths.clone()))
    }

    /// The first rows of each partition.
    fn topmost_rows(
        &self,
        input: Operator,
        ordering: &LexOrdering,
        rows: usize,
    ) -> Result<Operator, WireError> {
        if is_sorted(&input, ordering)? {
            return Ok(input);
        }
        let sorted = SortExec::new(ordering.clone(), dense_until(input, &self.cancel))
            .with_preserve_partitioning(true)
            .with_fetch(Some(rows));
        Ok(Arc::new(sorted))
    }

    fn ordering(
        &self,
        keys: &[SortKey],
        schema: &Schema,
    ) -> Result<Option<LexOrdering>, WireError> {
        if schema.fields().is_empty() {
            return no_order(keys).map(|()| None);
        }
        let mut exprs = vec![];
        for key in keys {
            let options = SortOptions {
                descending: key.descending,
                nulls_first: key.nulls_first,
            };
            exprs.push(PhysicalSortExpr::new(self.key(&key.expr, schema)?, options));
        }
        Ok(LexOrdering::new(exprs))
    }
}

/// Of rows without columns, which DataFusion's sort by constants can't hold.
fn no_order(keys: &[SortKey]) -> Result<(), WireError> {
    let is_known = |key: &SortKey| matches!(key.expr.kind, ExprKind::Const(_) | ExprKind::Param(_));
    if keys.iter().all(is_known) {
        Ok(())
    } else {
        Err(not_exact("rows without columns are sorted"))
    }
}

/// The numbers of columns, if there is nothing else.
fn columns(exprs: &[Expr]) -> Option<Vec<usize>> {
    let column = |expr: &Expr| match expr.kind {
        ExprKind::Column(i) => Some(i as usize),
        _ => None,
    };
    exprs.iter().map(column).collect()
}

/// What filters are above, and they, the lowest first.
fn below_filters(plan: &Plan) -> (&Plan, Vec<&Expr>) {
    let mut predicates = vec![];
    let mut node = plan;
    while let Plan::Filter { input, predicate } = node {
        predicates.push(predicate);
        node = input;
    }
    predicates.reverse();
    (node, predicates)
}

/// Whether each partition has that order already: window functions keep the one that they need.
fn is_sorted(input: &Operator, ordering: &LexOrdering) -> Result<bool, WireError> {
    let known = input.equivalence_properties();
    check(known.ordering_satisfy(ordering.clone()))
}

pub(super) fn single(input: Operator) -> Operator {
    if input.output_partitioning().partition_count() > 1 {
        Arc::new(CoalescePartitionsExec::new(input))
    } else {
        input
    }
}

fn rows(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

pub(super) fn column(schema: &Schema, index: usize) -> Result<Arc<dyn PhysicalExpr>, WireError> {
    match schema.fields().get(index) {
        Some(field) => Ok(Arc::new(Column::new(field.name(), index))),
        None => Err(internal("a column is missing")),
    }
}

/// For EXPLAIN.
fn conjunction(conjuncts: &[&Expr]) -> Option<Expr> {
    match conjuncts {
        [] => None,
        [one] => Some((*one).clone()),
        list => Some(Expr {
            ty: SqlType {
                lake: LakeType::Bool,
                oid: 16,
                typmod: -1,
                collation: 0,
            },
            kind: ExprKind::And(list.iter().map(|e| (*e).clone()).collect()),
        }),
    }
}
