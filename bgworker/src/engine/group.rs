//! Aggregations as operators.
//!
//! Several partitions each group their rows, and what they have meets: in one thread if there are few groups, otherwise
//! spread by the groups. Functions over distinct values of one argument are computed on two levels, of which each can
//! spill: the lower one groups by the argument, too. There the other functions give their states, which the upper
//! level merges. With several such arguments the functions keep the values themselves. Functions over ordered values are in
//! `ordered`.

use super::aggregate::LakeAggregate;
use super::exchange::exchange;
use super::held::held;
use super::lower::{Lowering, Operator, check, column, single};
use arrow::datatypes::SchemaRef;
use datafusion_common::ScalarValue;
use datafusion_expr::AggregateUDF;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion_physical_expr::expressions::Literal;
use datafusion_physical_plan::ExecutionPlanProperties;
use datafusion_physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use pg_lake_plan::ir::{Aggregate, AggregateFunction, Expr, ExprKind};
use pg_lake_plan::lateness::{ends_late, picks_floats};
use pg_lake_plan::message::WireError;
use std::sync::Arc;

/// With fewer groups than this, partial results are merged by one thread.
const FEW_GROUPS: f64 = 5000.0;

/// Expressions to group by, with their names.
type Keys = Vec<(Arc<dyn PhysicalExpr>, String)>;

impl Lowering {
    pub(super) fn aggregate(
        &self,
        input: Operator,
        groups: &[Expr],
        aggregates: &[Aggregate],
        sets: &[Vec<u32>],
        estimate: f64,
    ) -> Result<Operator, WireError> {
        if aggregates.iter().any(|a| a.function.is_ordered()) {
            return self.aggregate_ordered(input, groups, aggregates, sets);
        }
        let many = !groups.is_empty() && estimate >= FEW_GROUPS;
        if !sets.is_empty() {
            return self.aggregate_sets(input, groups, aggregates, sets, many);
        }
        let schema = input.schema();
        let mut keys = vec![];
        for (i, group) in groups.iter().enumerate() {
            keys.push((self.key(group, &schema)?, format!("g{i}")));
        }
        if let Some(arg) = distinct_argument(aggregates) {
            return self.two_levels(input, keys, aggregates, &arg, many);
        }
        let mut functions = Functions::new(schema);
        for aggregate in aggregates {
            functions.add(self, LakeAggregate::new(aggregate), aggregate)?;
        }
        let spread = many.then_some(keys.len());
        self.grouped(input, group_by(keys), &functions, spread)
    }

    /// `spread`: by so many of the first keys, what partitions have meets in several threads.
    pub(super) fn grouped(
        &self,
        input: Operator,
        group_by: PhysicalGroupBy,
        functions: &Functions,
        spread: Option<usize>,
    ) -> Result<Operator, WireError> {
        let last = if input.output_partitioning().partition_count() == 1 {
            functions.build(AggregateMode::Single, group_by, input)?
        } else {
            self.met(input, group_by, functions, spread)?
        };
        Ok(self.at_once(last, functions))
    }

    /// The same of several partitions.
    fn met(
        &self,
        input: Operator,
        group_by: PhysicalGroupBy,
        functions: &Functions,
        spread: Option<usize>,
    ) -> Result<Operator, WireError> {
        let last = group_by.as_final();
        let partial = functions.build(AggregateMode::Partial, group_by, input)?;
        let Some(spread) = spread else {
            return functions.build(AggregateMode::Final, last, single(partial));
        };
        let mut hashed = vec![];
        for i in 0..spread {
            hashed.push(column(&partial.schema(), i)?);
        }
        let repartitioned = exchange(partial, hashed, self.threads)?;
        functions.build(AggregateMode::FinalPartitioned, last, repartitioned)
    }

    /// Groups, of which none comes out before the last one is complete if that may fail.
    fn at_once(&self, groups: Operator, functions: &Functions) -> Operator {
        match functions.ends_late {
            true => held(groups, &self.cancel),
            false => groups,
        }
    }

    /// Some of the functions are over the distinct values of `arg`.
    fn two_levels(
        &self,
        input: Operator,
        mut keys: Keys,
        aggregates: &[Aggregate],
        arg: &Expr,
        many: bool,
    ) -> Result<Operator, WireError> {
        let schema = input.schema();
        let groups = keys.len();
        keys.push((self.key(arg, &schema)?, "distinct".to_owned()));
        let mut lower = Functions::new(schema);
        for aggregate in aggregates.iter().filter(|a| !is_distinct(a)) {
            lower.add(self, LakeAggregate::state_of(aggregate), aggregate)?;
        }
        // Rows of the upper level come out at once.
        lower.ends_late = false;
        // If there are many groups, all rows of one are in one partition from then on.
        let spread = if many { groups } else { groups + 1 };
        let values = self.grouped(input, group_by(keys), &lower, Some(spread))?;

        let schema = values.schema();
        let mut keys = vec![];
        for i in 0..groups {
            keys.push((column(&schema, i)?, format!("g{i}")));
        }
        let mut upper = Functions::new(schema.clone());
        let mut state = groups;
        for aggregate in aggregates {
            upper.ends_late |= ends_late(aggregate);
            if is_distinct(aggregate) {
                let once = LakeAggregate::of_distinct(aggregate);
                upper.push(once, column(&schema, groups)?, None)?;
            } else {
                state += 1;
                let merged = LakeAggregate::merging(aggregate);
                upper.push(merged, column(&schema, state)?, None)?;
            }
        }
        if many && values.output_partitioning().partition_count() > 1 {
            let mode = AggregateMode::SinglePartitioned;
            let last = upper.build(mode, group_by(keys), values)?;
            return Ok(self.at_once(last, &upper));
        }
        self.grouped(values, group_by(keys), &upper, None)
    }
}

fn group_by(keys: Keys) -> PhysicalGroupBy {
    if keys.is_empty() {
        PhysicalGroupBy::default()
    } else {
        PhysicalGroupBy::new_single(keys)
    }
}

/// Whether it makes a difference that its values are distinct.
pub(super) fn is_distinct(aggregate: &Aggregate) -> bool {
    let counts = matches!(
        aggregate.function,
        AggregateFunction::Count
            | AggregateFunction::Sum
            | AggregateFunction::SumOfSquares
            | AggregateFunction::BitXor
            | AggregateFunction::Moments
    );
    aggregate.distinct && counts
}

/// The argument of all functions over distinct values, if it is the same: null for rows that their filter drops. None if
/// there is a function whose states aren't merged on two levels.
fn distinct_argument(aggregates: &[Aggregate]) -> Option<Expr> {
    let unmerged = |a: &Aggregate| a.function.is_of_intervals() || picks_floats(a);
    if aggregates.iter().any(unmerged) {
        return None;
    }
    let mut distinct = aggregates.iter().filter(|a| is_distinct(a));
    let first = distinct.next()?;
    let arg = first.arg.as_ref()?;
    if !distinct.all(|other| other.arg == first.arg && other.filter == first.filter) {
        return None;
    }
    Some(match &first.filter {
        None => arg.clone(),
        Some(filter) => Expr {
            ty: arg.ty.clone(),
            kind: ExprKind::Case {
                branches: vec![(filter.clone(), arg.clone())],
                otherwise: None,
            },
        },
    })
}

/// The functions of one aggregation.
pub(super) struct Functions {
    schema: SchemaRef,
    functions: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// See [`ends_late`].
    ends_late: bool,
}

impl Functions {
    /// Over rows of this schema.
    pub(super) fn new(schema: SchemaRef) -> Self {
        Functions {
            schema,
            functions: vec![],
            filters: vec![],
            ends_late: false,
        }
    }

    /// Adds a function with the argument and the filter of `aggregate`.
    pub(super) fn add(
        &mut self,
        lowering: &Lowering,
        function: LakeAggregate,
        aggregate: &Aggregate,
    ) -> Result<(), WireError> {
        let arg: Arc<dyn PhysicalExpr> = match &aggregate.arg {
            // Equal values must be bitwise equal.
            Some(arg) if is_distinct(aggregate) => lowering.key(arg, &self.schema)?,
            Some(arg) => lowering.operand(arg, &self.schema)?,
            // count(*) counts the rows of a column that takes no memory.
            None => Arc::new(Literal::new(ScalarValue::Null)),
        };
        let filter = match &aggregate.filter {
            Some(filter) => Some(lowering.operand(filter, &self.schema)?),
            None => None,
        };
        self.ends_late |= ends_late(aggregate);
        self.push(function, arg, filter)
    }

    fn push(
        &mut self,
        function: LakeAggregate,
        arg: Arc<dyn PhysicalExpr>,
        filter: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<(), WireError> {
        let function = Arc::new(AggregateUDF::new_from_impl(function));
        let function = AggregateExprBuilder::new(function, vec![arg])
            .schema(self.schema.clone())
            .alias(format!("a{}", self.functions.len()))
            .build();
        self.functions.push(Arc::new(check(function)?));
        self.filters.push(filter);
        Ok(())
    }

    fn build(
        &self,
        mode: AggregateMode,
        group_by: PhysicalGroupBy,
        input: Operator,
    ) -> Result<Operator, WireError> {
        let (functions, filters) = (self.functions.clone(), self.filters.clone());
        let schema = self.schema.clone();
        let exec = AggregateExec::try_new(mode, group_by, functions, filters, input, schema);
        Ok(Arc::new(check(exec)?))
    }
}
