//! Plan nodes to physical operators, directly: no logical plan, no optimizer rules.
//!
//! Rows keep Postgres' meaning by our own expressions ([`PgExpr`]) and aggregates
//! ([`LakeAggregate`]); DataFusion contributes the operators.

use super::Feed;
use super::aggregate::LakeAggregate;
use super::cache::Cache;
use super::describe::describe;
use super::error::{internal, protocol, wire};
use super::exchange::exchange;
use super::expr::{Node, PgExpr};
use super::prune;
use super::remote::Remote;
use super::scan::LakeScanExec;
use super::source::Source;
use super::stats::Counters;
use crate::arrow_types::scan_schema;
use arrow::compute::SortOptions;
use arrow::datatypes::Schema;
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::AggregateUDF;
use datafusion_physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion_physical_expr::expressions::{Column, Literal};
use datafusion_physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion_physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion_physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion_physical_plan::filter::FilterExec;
use datafusion_physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion_physical_plan::projection::ProjectionExec;
use datafusion_physical_plan::sorts::sort::SortExec;
use datafusion_physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion_physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use pg_lake_plan::ir::{Aggregate, Expr, ExprKind, Plan, Scan, SortKey};
use pg_lake_plan::message::{TableInput, WireError};
use pg_lake_plan::types::{LakeType, SqlType, Value};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// With fewer groups than this, partial results are merged by one thread.
const FEW_GROUPS: f64 = 5000.0;

pub(super) type Operator = Arc<dyn ExecutionPlan>;

/// What lowering takes from the request and the engine.
pub(super) struct Lowering {
    pub(super) tables: Vec<Option<TableInput>>,
    pub(super) feeds: Vec<Option<Feed>>,
    pub(super) params: Vec<Option<Value>>,
    pub(super) cache: Arc<Cache>,
    pub(super) counters: Arc<Counters>,
    pub(super) cancel: CancellationToken,
    pub(super) remote: Remote,
    pub(super) threads: usize,
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

    fn lower(&mut self, plan: &Plan) -> Result<Operator, WireError> {
        match plan {
            Plan::Scan(scan) => self.scan(scan, &[]),
            Plan::Filter { .. } => self.filter(plan),
            Plan::Project { input, exprs } => {
                let input = self.lower(input)?;
                let schema = input.schema();
                let mut columns = vec![];
                for (i, expr) in exprs.iter().enumerate() {
                    columns.push((self.operand(expr, &schema)?, format!("e{i}")));
                }
                Ok(Arc::new(check(ProjectionExec::try_new(columns, input))?))
            }
            Plan::Aggregate {
                input,
                groups,
                aggregates,
                groups_estimate,
            } => {
                let input = self.lower(input)?;
                self.aggregate(input, groups, aggregates, *groups_estimate)
            }
            Plan::Sort { input, keys, fetch } => {
                let input = self.lower(input)?;
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
        }
    }

    /// Filters right above a scan become part of its predicate, in their order.
    fn filter(&mut self, plan: &Plan) -> Result<Operator, WireError> {
        let mut predicates = vec![];
        let mut node = plan;
        while let Plan::Filter { input, predicate } = node {
            predicates.push(predicate);
            node = input;
        }
        predicates.reverse();
        if let Plan::Scan(scan) = node {
            return self.scan(scan, &predicates);
        }
        let mut operator = self.lower(node)?;
        for predicate in predicates {
            let test = self.operand(predicate, &operator.schema())?;
            operator = Arc::new(check(FilterExec::try_new(test, operator))?);
        }
        Ok(operator)
    }

    fn scan(&mut self, scan: &Scan, filters: &[&Expr]) -> Result<Operator, WireError> {
        let index = scan.table as usize;
        let table = self
            .tables
            .get_mut(index)
            .and_then(Option::take)
            .ok_or_else(|| protocol("a scanned table is missing"))?;
        let feed = self.feeds.get_mut(index).and_then(Option::take);
        let schema = scan_schema(&scan.columns);
        let conjuncts: Vec<&Expr> = scan
            .predicate
            .iter()
            .chain(filters.iter().copied())
            .collect();
        let mut nodes = vec![];
        for conjunct in &conjuncts {
            nodes.push(Node::compile(conjunct, &self.params)?);
        }
        let predicate = conjunction(&conjuncts);
        let bounds = prune::bounds(predicate.as_ref(), &self.params);
        let text = predicate.map_or_else(String::new, |p| describe(&p, &schema));
        let source = Source::new(
            scan,
            schema,
            Node::and(nodes),
            bounds,
            table.files,
            self.cache.clone(),
            self.counters.clone(),
            self.cancel.clone(),
            self.remote.clone(),
        )?;
        Ok(Arc::new(LakeScanExec::new(
            Arc::new(source),
            feed,
            self.threads,
            text,
        )))
    }

    /// An expression over an operator's output.
    fn operand(&self, expr: &Expr, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>, WireError> {
        if let ExprKind::Column(i) = expr.kind {
            return column(schema, i as usize);
        }
        let node = Node::compile(expr, &self.params)?;
        Ok(Arc::new(PgExpr::new(node, expr, schema)))
    }

    /// An expression to group or sort by: equal values are bitwise equal.
    fn key(&self, expr: &Expr, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>, WireError> {
        if !expr.ty.lake.is_float() {
            return self.operand(expr, schema);
        }
        let node = Node::compile(expr, &self.params)?.canonical();
        Ok(Arc::new(PgExpr::new(node, expr, schema)))
    }

    fn aggregate(
        &self,
        input: Operator,
        groups: &[Expr],
        aggregates: &[Aggregate],
        estimate: f64,
    ) -> Result<Operator, WireError> {
        let schema = input.schema();
        let mut keys = vec![];
        for (i, group) in groups.iter().enumerate() {
            keys.push((self.key(group, &schema)?, format!("g{i}")));
        }
        let group_by = if keys.is_empty() {
            PhysicalGroupBy::default()
        } else {
            PhysicalGroupBy::new_single(keys)
        };
        let mut functions: Vec<Arc<AggregateFunctionExpr>> = vec![];
        let mut filters = vec![];
        for (i, aggregate) in aggregates.iter().enumerate() {
            // count(*) counts the rows of a column that takes no memory.
            let arg: Arc<dyn PhysicalExpr> = match &aggregate.arg {
                Some(arg) => self.operand(arg, &schema)?,
                None => Arc::new(Literal::new(ScalarValue::Null)),
            };
            let function = Arc::new(AggregateUDF::new_from_impl(LakeAggregate::new(aggregate)));
            let function = AggregateExprBuilder::new(function, vec![arg])
                .schema(schema.clone())
                .alias(format!("a{i}"))
                .build();
            functions.push(Arc::new(check(function)?));
            let filter = aggregate.filter.as_ref();
            filters.push(filter.map(|f| self.operand(f, &schema)).transpose()?);
        }
        let build = |mode, group_by: PhysicalGroupBy, input: Operator| {
            let (functions, filters) = (functions.clone(), filters.clone());
            let schema = schema.clone();
            check(AggregateExec::try_new(
                mode, group_by, functions, filters, input, schema,
            ))
            .map(|exec| Arc::new(exec) as Operator)
        };
        if input.output_partitioning().partition_count() == 1 {
            return build(AggregateMode::Single, group_by, input);
        }
        let last = group_by.as_final();
        let partial = build(AggregateMode::Partial, group_by, input)?;
        if groups.is_empty() || estimate < FEW_GROUPS {
            return build(AggregateMode::Final, last, single(partial));
        }
        let mut hashed = vec![];
        for i in 0..groups.len() {
            hashed.push(column(&partial.schema(), i)?);
        }
        let repartitioned = exchange(partial, hashed, self.threads)?;
        build(AggregateMode::FinalPartitioned, last, repartitioned)
    }

    fn sort(
        &self,
        input: Operator,
        keys: &[SortKey],
        fetch: Option<usize>,
    ) -> Result<Operator, WireError> {
        let schema = input.schema();
        let mut exprs = vec![];
        for key in keys {
            let options = SortOptions {
                descending: key.descending,
                nulls_first: key.nulls_first,
            };
            exprs.push(PhysicalSortExpr::new(
                self.key(&key.expr, &schema)?,
                options,
            ));
        }
        let Some(ordering) = LexOrdering::new(exprs) else {
            return Ok(match fetch {
                Some(_) => Arc::new(GlobalLimitExec::new(single(input), 0, fetch)),
                None => input,
            });
        };
        if input.output_partitioning().partition_count() == 1 {
            return Ok(Arc::new(SortExec::new(ordering, input).with_fetch(fetch)));
        }
        let sorted = SortExec::new(ordering.clone(), input)
            .with_preserve_partitioning(true)
            .with_fetch(fetch);
        let merged = SortPreservingMergeExec::new(ordering, Arc::new(sorted)).with_fetch(fetch);
        Ok(Arc::new(merged))
    }
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

fn column(schema: &Schema, index: usize) -> Result<Arc<dyn PhysicalExpr>, WireError> {
    match schema.fields().get(index) {
        Some(field) => Ok(Arc::new(Column::new(field.name(), index))),
        None => Err(internal("a column is missing")),
    }
}

/// For pruning and EXPLAIN.
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
