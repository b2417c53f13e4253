//! Sorts, limits, and the rows of several inputs after one another.
//!
//! A sort is done only where somebody sees its order: the top of the fragment, or a limit. Where
//! Postgres sorts for a merge join or an aggregation the engine has no use for it.

use super::expr::{Exprs, operator_function};
use super::forms::depends_on_forms;
use super::node::{self, Node, array, get, inputs, nodes, plan_tag};
use super::order::sort_key;
use super::sub::{Column, Sub};
use super::tree::{Builder, in_base};
use super::walk::takes_all;
use super::{Lowered, refused};
use pg_lake_plan::ir::{Aggregate, Expr, Plan, SortKey, WindowFunction};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// One key of a Sort.
struct Key {
    column: i16,
    operator: pg_sys::Oid,
    collation: pg_sys::Oid,
    nulls_first: bool,
}

fn keys(
    count: i32,
    columns: *const i16,
    operators: *const pg_sys::Oid,
    collations: *const pg_sys::Oid,
    nulls_first: *const bool,
) -> Vec<Key> {
    let operators = array(operators, count);
    let collations = array(collations, count);
    let nulls_first = array(nulls_first, count);
    array(columns, count)
        .into_iter()
        .zip(operators)
        .zip(collations)
        .zip(nulls_first)
        .map(|(((column, operator), collation), nulls_first)| Key {
            column,
            operator,
            collation,
            nulls_first,
        })
        .collect()
}

fn sort_keys(sort: &pg_sys::Sort) -> Vec<Key> {
    keys(
        sort.numCols,
        sort.sortColIdx,
        sort.sortOperators,
        sort.collations,
        sort.nullsFirst,
    )
}

/// Where an order has to be kept that isn't known.
pub const UNKNOWN_ORDER: &str =
    "rows whose order Postgres relies on, but isn't known here, are not lowered";

/// Where Postgres may not get to a row that raises an error.
pub const EARLY_END: &str = "a LIMIT of rows whose computation can fail is not lowered";

/// Rows of a held result, of which the engine would compute all for the first ones.
pub const LATE_ROWS: &str =
    "a LIMIT of rows that may need more digits than the engine has is not lowered";

/// Where Postgres may not come to the end of a recursion.
pub const READ_AHEAD: &str = "what is computed from a recursion is not lowered for a cursor";

impl Builder<'_> {
    pub(super) fn sort(&mut self, plan: *mut pg_sys::Plan, needed: Option<&[i16]>) -> Lowered<Sub> {
        let sort = match get::<pg_sys::IncrementalSort>(plan.cast()) {
            Some(incremental) => &incremental.sort,
            None => get::<pg_sys::Sort>(plan.cast()).ok_or("a malformed sort")?,
        };
        let keys = sort_keys(sort);
        let columns: Vec<i16> = keys.iter().map(|key| key.column).collect();
        let mut sub = self.passed(plan, needed, &columns)?;
        let mut order = vec![];
        for key in keys {
            order.push(self.key(&key, &sub)?);
        }
        sub.order = order;
        sub.unknown_order = false;
        sub.ordered = false;
        Ok(sub)
    }

    fn key(&mut self, key: &Key, sub: &Sub) -> Lowered<SortKey> {
        let output = sub.output(key.column)?;
        let expr = Exprs::of(&sub.columns, &mut self.params).value(output)?;
        let function = operator_function(pg_sys::InvalidOid, key.operator);
        let (expr, descending) = sort_key(expr, function, key.collation)?;
        Ok(SortKey {
            expr,
            descending,
            nulls_first: key.nulls_first,
        })
    }

    pub(super) fn limit(
        &mut self,
        plan: *mut pg_sys::Plan,
        needed: Option<&[i16]>,
    ) -> Lowered<Sub> {
        let limit = get::<pg_sys::Limit>(plan.cast()).ok_or("a malformed limit")?;
        if limit.limitOption != pg_sys::LimitOption::LIMIT_OPTION_COUNT {
            return self.with_ties(plan, needed);
        }
        let skip = row_count(limit.limitOffset)?.unwrap_or(0);
        let fetch = row_count(limit.limitCount)?;
        let mut sub = self.passed(plan, needed, &[])?;
        if sub.unknown_order {
            return refused(UNKNOWN_ORDER);
        }
        if fetch.is_some() && self.stops_early(limit.plan.lefttree, &sub.plan) {
            return refused(EARLY_END);
        }
        let first = fetch.and_then(|fetch| fetch.checked_add(skip));
        sub.establish_order(first.filter(|rows| *rows > 0));
        sub.wrap(|input, _| Plan::Limit { input, skip, fetch });
        Ok(sub)
    }

    /// All rows of several inputs: UNION ALL, partitions, inheritance.
    pub(super) fn append(
        &mut self,
        plan: *mut pg_sys::Plan,
        needed: Option<&[i16]>,
    ) -> Lowered<Sub> {
        let (node, children, keys) = match get::<pg_sys::MergeAppend>(plan.cast()) {
            Some(merge) => (
                &merge.plan,
                merge.mergeplans,
                keys(
                    merge.numCols,
                    merge.sortColIdx,
                    merge.sortOperators,
                    merge.collations,
                    merge.nullsFirst,
                ),
            ),
            None => {
                let append = get::<pg_sys::Append>(plan.cast()).ok_or("a malformed append")?;
                (&append.plan, append.appendplans, vec![])
            }
        };
        let mut wanted = Self::wanted(node, needed);
        for key in &keys {
            if let Some(wanted) = wanted.get_mut(key.column as usize - 1) {
                *wanted = true;
            }
        }
        let numbers: Vec<i16> = (1..)
            .zip(&wanted)
            .filter_map(|(number, wanted)| wanted.then_some(number))
            .collect();
        let mut inputs = vec![];
        let mut columns: Vec<Column> = vec![];
        let mut ordered = false;
        for child in nodes(children) {
            let sub = self.input(child.cast(), &numbers)?;
            let (exprs, own) = self.columns_of(&sub, &numbers)?;
            let own_typmods: Vec<i32> = own.iter().map(|column| column.ty.typmod).collect();
            if columns.is_empty() {
                columns = own;
            } else if (columns.iter().zip(&own)).any(|(a, b)| a.ty.lake != b.ty.lake) {
                return refused("inputs of UNION ALL differ in how they are stored");
            }
            for (column, own) in columns.iter_mut().zip(&own_typmods) {
                // Values of character(n) are padded differently then.
                if column.ty.typmod != *own {
                    column.ty.typmod = -1;
                }
            }
            ordered |= sub.unknown_order || !sub.order.is_empty();
            inputs.push(Plan::Project {
                input: Box::new(sub.plan),
                exprs,
            });
        }
        if inputs.is_empty() {
            return refused("an append of nothing");
        }
        // Rows of one would be out before another one turns out to be Postgres' to run.
        if inputs.len() > 1 && inputs.iter().any(depends_on_forms) {
            return refused("groups that may have several forms are not lowered among other rows");
        }
        // Postgres' node says what they are: inputs may differ in their type modifiers.
        let outputs = (1i16..)
            .zip(node::target_exprs(node.targetlist))
            .map(
                |(number, target)| match numbers.iter().position(|n| *n == number) {
                    Some(at) => Ok(node::output_var(pg_sys::INDEX_VAR, at + 1, target)),
                    None => refused("a column that its parent doesn't use"),
                },
            )
            .collect();
        let mut sub = Sub {
            plan: Plan::Append { inputs },
            columns,
            outputs,
            order: vec![],
            ordered: false,
            unknown_order: ordered && keys.is_empty(),
            kept: vec![],
            rows: 0.0,
        };
        for key in keys {
            let key = self.key(&key, &sub)?;
            sub.order.push(key);
        }
        Ok(sub)
    }

    /// Some outputs of a subtree, as its columns are to be.
    pub(super) fn columns_of(
        &mut self,
        sub: &Sub,
        numbers: &[i16],
    ) -> Lowered<(Vec<Expr>, Vec<Column>)> {
        let (mut exprs, mut columns) = (vec![], vec![]);
        for number in numbers {
            let output = sub.output(*number)?;
            let mut exprs_of = Exprs::of(&sub.columns, &mut self.params);
            let expr = match get::<pg_sys::Var>(output) {
                Some(_) => exprs_of.nullness(output)?,
                None => exprs_of.expression(output)?,
            };
            columns.push(Column {
                ty: expr.ty.clone(),
                node: in_base(output, &sub.columns),
            });
            exprs.push(expr);
        }
        Ok((exprs, columns))
    }
}

/// How Postgres comes to the rows of a plan.
#[derive(Clone, Copy, Debug, Default)]
struct Streams {
    /// Groups, or distinct rows, one after the other.
    groups: bool,
    /// Groups or windows of rows that weren't sorted right before.
    unsorted: bool,
    /// An input of a limit, or of sets, that has its order otherwise than by a sort right before.
    merged: bool,
}

impl Streams {
    fn of(plan: *mut pg_sys::Plan) -> Self {
        use NodeTag::{
            T_Agg, T_CteScan, T_Group, T_Limit, T_ProjectSet, T_RecursiveUnion, T_SetOp, T_Sort,
            T_Unique, T_WindowAgg,
        };
        let mut streams = Streams::default();
        let mut open = vec![plan];
        while let Some(plan) = open.pop() {
            if plan.is_null() || takes_all(plan) {
                continue;
            }
            let tag = plan_tag(plan);
            let groups = matches!(tag, T_Agg | T_Group | T_SetOp | T_Unique);
            let below = inputs(plan);
            let unsorted = below.iter().any(|input| plan_tag(*input) != T_Sort);
            streams.groups |= groups;
            streams.unsorted |= unsorted && (groups || tag == T_WindowAgg);
            let lateral =
                get::<pg_sys::NestLoop>(plan.cast()).is_some_and(|nest| !nest.nestParams.is_null());
            if lateral || matches!(tag, T_Limit | T_ProjectSet) {
                let outer = below.first();
                streams.merged |= outer.is_some_and(|input| plan_tag(*input) != T_Sort);
            }
            // Its plan is elsewhere, and gives a row when one is asked for. So does a recursion, step by step.
            if matches!(tag, T_CteScan | T_RecursiveUnion) {
                streams = Streams {
                    groups: true,
                    unsorted: true,
                    merged: true,
                };
            }
            open.extend(below);
        }
        streams
    }
}

impl Builder<'_> {
    /// Whether Postgres, by its plan, may stop before a row whose computation fails, if not all rows are wanted. `lowered`
    /// is that plan for the engine, which computes all of them, and wants all that are fed.
    pub fn stops_early(&self, plan: *mut pg_sys::Plan, lowered: &Plan) -> bool {
        let mut fed = self.feeds.iter().filter(|feed| is_streamed(plan, **feed));
        stops_early(plan, lowered)
            || reads_ahead(plan, lowered)
            || fed.any(|feed| self.statement.plan_may_raise(*feed))
    }
}

/// Whether the engine may go on with a recursion, which may have no end, where Postgres takes its rows as they are wanted.
pub fn reads_ahead(plan: *mut pg_sys::Plan, lowered: &Plan) -> bool {
    !lowered.follows_recursion() && may_go_on(plan, lowered)
}

/// Whether there may be no end to the rows of a recursion which Postgres takes as they are wanted.
pub fn may_go_on(plan: *mut pg_sys::Plan, lowered: &Plan) -> bool {
    lowered.has_recursion() && !takes_all(below_material(plan))
}

/// What a plan keeps the rows of.
fn below_material(plan: *mut pg_sys::Plan) -> *mut pg_sys::Plan {
    let mut top = plan;
    while plan_tag(top) == NodeTag::T_Material {
        // SAFETY: a plan node of the tree.
        top = unsafe { (*top).lefttree };
    }
    top
}

/// Whether a plan, which is a part of another one, is asked for its rows only as they are wanted.
fn is_streamed(plan: *mut pg_sys::Plan, part: *mut pg_sys::Plan) -> bool {
    let mut open = vec![plan];
    while let Some(plan) = open.pop() {
        if plan.is_null() || takes_all(plan) {
            continue;
        }
        // It may be a part of the plan of a CTE.
        if plan == part || plan_tag(plan) == NodeTag::T_CteScan {
            return true;
        }
        open.extend(inputs(plan));
    }
    false
}

fn stops_early(plan: *mut pg_sys::Plan, lowered: &Plan) -> bool {
    let top = below_material(plan);
    !top.is_null() && plan_tag(top) != NodeTag::T_Sort && fails_late(lowered, Streams::of(top))
}

fn fails_late(plan: &Plan, streams: Streams) -> bool {
    let below = |input: &Plan| fails_late(input, streams);
    match plan {
        // It was made for a limit or for sets, of which Postgres may have sorted the rows otherwise.
        Plan::Sort { input, .. } => streams.merged && below(input),
        // What is grouped by was computed, and sorted, before.
        Plan::Aggregate {
            input,
            groups,
            aggregates,
            ..
        } => {
            let own = aggregates.iter().any(can_raise);
            let before = || groups.iter().any(Expr::can_raise) || below(input);
            streams.groups && (own || (streams.unsorted && before()))
        }
        // What it is ordered by was sorted before.
        Plan::Window(window) => {
            let mut exprs = window.functions.iter().flat_map(WindowFunction::exprs);
            let sorted = !(window.order_by.is_empty() || streams.unsorted);
            let overflows = window.functions.iter().any(WindowFunction::overflows);
            overflows || exprs.any(Expr::can_raise) || (!sorted && below(&window.input))
        }
        Plan::Scan(scan) => scan.predicate.as_ref().is_some_and(Expr::can_raise),
        Plan::Filter { input, predicate } => predicate.can_raise() || below(input),
        Plan::Project { input, exprs } => exprs.iter().any(Expr::can_raise) || below(input),
        Plan::Join(join) => {
            join.filter.as_ref().is_some_and(Expr::can_raise)
                || below(&join.left)
                || below(&join.right)
        }
        Plan::Append { inputs } => inputs.iter().any(below),
        Plan::RecursiveUnion(union) => below(&union.non_recursive) || below(&union.recursive),
        Plan::Limit { input, .. } => below(input),
        Plan::ProjectSet(set) => {
            set.raises() || set.exprs().any(Expr::can_raise) || below(&set.input)
        }
        Plan::OneRow | Plan::WorkTable(_) => false,
    }
}

fn can_raise(aggregate: &Aggregate) -> bool {
    let keys = aggregate.order.iter().map(|key| &key.expr);
    let mut exprs = aggregate.arg.iter().chain(&aggregate.filter).chain(keys);
    aggregate.overflows() || exprs.any(Expr::can_raise)
}

/// A constant number of rows; `None` for null, which is no limit.
pub fn row_count(node: Node) -> Lowered<Option<u64>> {
    if node.is_null() {
        return Ok(None);
    }
    let constant = get::<pg_sys::Const>(node)
        .filter(|constant| constant.consttype == pg_sys::INT8OID)
        .ok_or("LIMIT and OFFSET are lowered for constants only")?;
    if constant.constisnull {
        return Ok(None);
    }
    match u64::try_from(constant.constvalue.value() as i64) {
        Ok(rows) => Ok(Some(rows)),
        Err(_) => refused("a negative LIMIT or OFFSET is left to Postgres"),
    }
}
