//! Window functions.
//!
//! Postgres' node takes its rows as they come, sorted by a node below it: partitions and peers are where columns change.
//! The engine brings rows of a partition together and sorts them by what Postgres sorted by.

use super::aggregates::{Aggregates, needs_groups};
use super::expr::{Exprs, operator_function};
use super::frames::DEFAULT_FRAME;
use super::functions;
use super::node::{self, Node, array, get, nodes, plan_tag};
use super::order::equality_key;
use super::ordering::EARLY_END;
use super::sub::{Column, Sub};
use super::tree::{Builder, has_datum, in_base, over};
use super::{Lowered, refused};
use pg_lake_plan::ir::{
    Expr, ExprKind, Frame, FrameBound, FrameExclusion, FrameUnit, Plan, SortKey, Window,
    WindowFunction,
};
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// A window function that isn't an aggregate.
struct Ranked {
    /// Postgres' call, over the outputs of the input.
    call: Node,
    function: WindowFunction,
    ty: SqlType,
}

/// What a node computes.
struct Calls {
    /// With the columns that they become, after those of the input.
    functions: Vec<(WindowFunction, Column)>,
    /// Over those columns, as the conditions are that rows have to pass.
    outputs: Vec<Lowered<Node>>,
    conditions: Vec<Node>,
}

impl Builder<'_> {
    pub(super) fn window(
        &mut self,
        plan: *mut pg_sys::Plan,
        needed: Option<&[i16]>,
    ) -> Lowered<Sub> {
        let agg = get::<pg_sys::WindowAgg>(plan.cast()).ok_or("a malformed window")?;
        let partition_columns = array(agg.partColIdx, agg.partNumCols);
        let peer_columns = array(agg.ordColIdx, agg.ordNumCols);
        let mut conditions = run_conditions(agg)?;
        let run = node::list(conditions.iter().copied());
        let mut used = Self::uses(&agg.plan, needed, &[run], pg_sys::OUTER_VAR);
        used.extend(partition_columns.iter().chain(&peer_columns));
        let mut input = self.input(agg.plan.lefttree, &used)?;
        if ends_with_condition(agg) && self.stops_early(agg.plan.lefttree, &input.plan) {
            return refused(EARLY_END);
        }

        let operators = array(agg.partOperators, agg.partNumCols);
        let collations = array(agg.partCollations, agg.partNumCols);
        let partition_by = self.keys(&input, &partition_columns, &operators, &collations)?;
        let operators = array(agg.ordOperators, agg.ordNumCols);
        let collations = array(agg.ordCollations, agg.ordNumCols);
        let peers = self.keys(&input, &peer_columns, &operators, &collations)?;
        let found = |peer: &Expr| input.order.iter().any(|key| key.expr == *peer);
        if !(peers.iter().all(found) || self.is_sorted(agg.plan.lefttree)) {
            return refused("a window over rows whose order isn't known is not lowered");
        }

        conditions.extend(nodes(agg.plan.qual));
        let calls = self.calls(agg, needed, &input, conditions)?;
        let mut columns = std::mem::take(&mut input.columns);
        let mut functions = vec![];
        for (function, column) in calls.functions {
            columns.push(column);
            functions.push(function);
        }
        let (frame, measured) = match functions.iter().any(WindowFunction::is_framed) {
            true => self.frame(agg, &peers)?,
            false => (DEFAULT_FRAME, None),
        };
        check_errors(agg, &frame, &functions)?;
        // The window itself may say less than the order of its rows, as of a subquery.
        let says_all = (input.order.iter())
            .all(|key| peers.contains(&key.expr) || partition_by.contains(&key.expr));
        if !(says_all || self.is_whole_order(agg.plan.lefttree))
            && functions
                .iter()
                .any(|function| sees_order(function, &frame))
        {
            return refused("a window over rows whose order isn't known is not lowered");
        }
        let mut sub = Sub {
            plan: input.plan,
            columns,
            outputs: calls.outputs,
            order: input.order,
            ordered: functions.is_empty() && input.ordered,
            unknown_order: input.unknown_order,
            kept: vec![],
            rows: 0.0,
        };
        if !functions.is_empty() {
            let order_by = brought_together(&sub.order, &partition_by);
            sub.wrap(|input, _| {
                Plan::Window(Box::new(Window {
                    input,
                    partition_by,
                    order_by,
                    peers,
                    frame,
                    functions,
                    measured,
                }))
            });
        }
        self.having(&mut sub, calls.conditions);
        Ok(sub)
    }

    fn calls(
        &mut self,
        agg: &pg_sys::WindowAgg,
        needed: Option<&[i16]>,
        input: &Sub,
        conditions: Vec<Node>,
    ) -> Lowered<Calls> {
        let width = input.columns.len();
        let mut exprs = Exprs::of(&input.columns, &mut self.params);
        let targets = Self::wanted(&agg.plan, needed)
            .into_iter()
            .zip(node::target_exprs(agg.plan.targetlist))
            .filter_map(|(wanted, target)| wanted.then_some(target));
        let mut ranked = vec![];
        for expr in targets.chain(conditions.iter().copied()) {
            rank(expr, input, &mut exprs, &mut ranked)?;
        }
        let mut aggregates = Aggregates::default();
        let mut rewrite = |node: Node| {
            let mut failed = None;
            let rewritten = node::rewrite(node, &mut |node| {
                let replaced = match get::<pg_sys::WindowFunc>(node) {
                    Some(call) if call.winagg && needs_groups(call.winfnoid) => {
                        let name = functions::name(call.winfnoid);
                        Err(format!("{name}() over a window is not lowered"))
                    }
                    Some(call) if call.winagg => over(node, pg_sys::OUTER_VAR, input)
                        .map(as_aggregate)
                        .and_then(|call| aggregates.lower(&mut exprs, call, width + ranked.len())),
                    Some(_) => (ranked.iter().position(|known| same(known.call, node)))
                        .map(|at| node::output_var(pg_sys::INDEX_VAR, width + at + 1, node))
                        .ok_or_else(|| "a malformed window function".to_owned()),
                    None if node::tag(node) == NodeTag::T_Var => {
                        over(node, pg_sys::OUTER_VAR, input)
                    }
                    None => return None,
                };
                Some(replaced.unwrap_or_else(|reason| {
                    failed.get_or_insert(reason);
                    node::copy(node)
                }))
            });
            failed.map_or(Ok(rewritten), Err)
        };
        let outputs = Self::targets(&agg.plan, needed, &mut rewrite);
        let conditions = conditions
            .into_iter()
            .map(rewrite)
            .collect::<Lowered<Vec<Node>>>()?;
        // A window function that can't be had might have raised an error.
        Self::check_wanted(&agg.plan, needed, &outputs)?;

        let mut functions = vec![];
        for ranked in ranked {
            let call = over(ranked.call, pg_sys::OUTER_VAR, input)?;
            let column = Column {
                ty: ranked.ty,
                node: in_base(call, &input.columns),
            };
            functions.push((ranked.function, column));
        }
        for output in aggregates.outputs {
            let call = as_window(output.aggref, agg.winref);
            let column = Column {
                ty: output.aggregate.ty.clone(),
                node: in_base(call, &input.columns),
            };
            functions.push((WindowFunction::Aggregate(output.aggregate), column));
        }
        Ok(Calls {
            functions,
            outputs,
            conditions,
        })
    }

    /// What tells partitions or peers apart; constants don't.
    pub(super) fn keys(
        &mut self,
        input: &Sub,
        columns: &[i16],
        operators: &[pg_sys::Oid],
        collations: &[pg_sys::Oid],
    ) -> Lowered<Vec<Expr>> {
        let mut keys = vec![];
        for ((column, operator), collation) in columns.iter().zip(operators).zip(collations) {
            let key = self.expression(&input.columns, input.output(*column)?)?;
            let equality = operator_function(pg_sys::InvalidOid, *operator);
            let fixed = matches!(key.kind, ExprKind::Const(_) | ExprKind::Param(_));
            let key = equality_key(key, Some(equality), *collation)?;
            if !fixed {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// Whether the order that a lowered subtree says Postgres has is all of it: what a window is ordered by and doesn't
    /// appear there is the same in all rows of a partition, or follows from what does.
    pub(super) fn is_sorted(&self, mut plan: *mut pg_sys::Plan) -> bool {
        loop {
            // A feed has lost its order.
            if plan.is_null() || self.feeds.contains(&plan) {
                return false;
            }
            match plan_tag(plan) {
                NodeTag::T_Sort | NodeTag::T_IncrementalSort => return true,
                // SAFETY: a plan node of the tree.
                NodeTag::T_WindowAgg | NodeTag::T_Limit => unsafe { plan = (*plan).lefttree },
                _ => return false,
            }
        }
    }
}

/// Postgres stops a partition at the first row that fails these. The values that they look at only ever rise or only ever
/// fall, so that later rows fail as well: they filter. A window below another one leaves that to it.
fn run_conditions(agg: &pg_sys::WindowAgg) -> Lowered<Vec<Node>> {
    if !agg.topWindow {
        return Ok(vec![]);
    }
    let targets = node::target_exprs(agg.plan.targetlist);
    let mut conditions = vec![];
    for condition in nodes(agg.runCondition) {
        let mut complete = true;
        // Their Vars are outputs of the node itself.
        conditions.push(node::rewrite(condition, &mut |node| {
            let var = get::<pg_sys::Var>(node)?;
            let number = usize::try_from(var.varattno).unwrap_or(0);
            let target = targets.get(number.wrapping_sub(1)).copied();
            complete &= target.is_some();
            Some(node::copy(target.unwrap_or(node)))
        }));
        if !complete {
            return refused("a malformed window");
        }
    }
    Ok(conditions)
}

/// Whether Postgres reads no more rows after the first one that fails its run conditions: those of another partition might pass
/// them, and a window above has to get all (`use_pass_through` in `nodeWindowAgg.c`).
pub fn ends_with_condition(agg: &pg_sys::WindowAgg) -> bool {
    !agg.runCondition.is_null() && agg.topWindow && agg.partNumCols == 0
}

/// Rows of a partition after one another, and within it in their order.
pub fn brought_together(order: &[SortKey], partition_by: &[Expr]) -> Vec<SortKey> {
    let (mut keys, rest): (Vec<SortKey>, Vec<SortKey>) =
        (order.iter().cloned()).partition(|key| partition_by.contains(&key.expr));
    for expr in partition_by {
        if keys.iter().all(|key| key.expr != *expr) {
            keys.push(SortKey {
                expr: expr.clone(),
                descending: false,
                nulls_first: false,
            });
        }
    }
    keys.extend(rest);
    keys
}

/// Lowers the calls in an expression that aren't aggregates.
fn rank(expr: Node, input: &Sub, exprs: &mut Exprs<'_>, ranked: &mut Vec<Ranked>) -> Lowered<()> {
    let mut calls = vec![];
    node::visit(expr, &mut |node| {
        if get::<pg_sys::WindowFunc>(node).is_some_and(|call| !call.winagg) {
            calls.push(node);
        }
        true
    });
    for call in calls {
        if ranked.iter().any(|known| same(known.call, call)) {
            continue;
        }
        let resolved = over(call, pg_sys::OUTER_VAR, input)?;
        let resolved = get::<pg_sys::WindowFunc>(resolved).ok_or("a malformed window function")?;
        let function = window_function(exprs, resolved)?;
        let ty = SqlType {
            lake: function.ty(),
            oid: resolved.wintype.to_u32(),
            typmod: -1,
            collation: resolved.wincollid.to_u32(),
        };
        if !has_datum(&ty, call) {
            return refused("a type that the engine computes differently");
        }
        ranked.push(Ranked { call, function, ty });
    }
    Ok(())
}

fn same(left: Node, right: Node) -> bool {
    // SAFETY: two nodes.
    unsafe { pg_sys::equal(left.cast_const().cast(), right.cast_const().cast()) }
}

/// The call of a function that isn't an aggregate, over the columns of the input.
fn window_function(exprs: &mut Exprs<'_>, call: &pg_sys::WindowFunc) -> Lowered<WindowFunction> {
    let args = nodes(call.args);
    Ok(match (call.winfnoid.to_u32(), args.as_slice()) {
        (pg_sys::F_ROW_NUMBER, []) => WindowFunction::RowNumber,
        (pg_sys::F_RANK_, []) => WindowFunction::Rank,
        (pg_sys::F_DENSE_RANK_, []) => WindowFunction::DenseRank,
        (pg_sys::F_PERCENT_RANK_, []) => WindowFunction::PercentRank,
        (pg_sys::F_CUME_DIST_, []) => WindowFunction::CumeDist,
        (pg_sys::F_NTILE, [buckets]) => WindowFunction::Ntile(positive(*buckets)?),
        (pg_sys::F_FIRST_VALUE, [arg]) => WindowFunction::FirstValue(exprs.expression(*arg)?),
        (pg_sys::F_LAST_VALUE, [arg]) => WindowFunction::LastValue(exprs.expression(*arg)?),
        (pg_sys::F_NTH_VALUE, [arg, n]) => {
            WindowFunction::NthValue(exprs.expression(*arg)?, positive(*n)?.into())
        }
        (pg_sys::F_LAG_ANYELEMENT, [arg]) => shift(exprs, *arg, -1, None)?,
        (pg_sys::F_LEAD_ANYELEMENT, [arg]) => shift(exprs, *arg, 1, None)?,
        (pg_sys::F_LAG_ANYELEMENT_INT4, [arg, rows]) => shift(exprs, *arg, -integer(*rows)?, None)?,
        (pg_sys::F_LEAD_ANYELEMENT_INT4, [arg, rows]) => shift(exprs, *arg, integer(*rows)?, None)?,
        (pg_sys::F_LAG_ANYCOMPATIBLE_INT4_ANYCOMPATIBLE, [arg, rows, otherwise]) => {
            shift(exprs, *arg, -integer(*rows)?, Some(*otherwise))?
        }
        (pg_sys::F_LEAD_ANYCOMPATIBLE_INT4_ANYCOMPATIBLE, [arg, rows, otherwise]) => {
            shift(exprs, *arg, integer(*rows)?, Some(*otherwise))?
        }
        _ => {
            let name = functions::name(call.winfnoid);
            return Err(format!("window function {name}() is not lowered"));
        }
    })
}

fn shift(
    exprs: &mut Exprs<'_>,
    arg: Node,
    rows: i64,
    otherwise: Option<Node>,
) -> Lowered<WindowFunction> {
    let arg = exprs.expression(arg)?;
    let otherwise = match otherwise {
        Some(otherwise) => value_like(exprs.expression(otherwise)?, &arg)?,
        None => None,
    };
    Ok(WindowFunction::Shift {
        arg,
        rows,
        otherwise,
    })
}

/// The value of a constant that is stored, and shown, as values of `like` are.
fn value_like(constant: Expr, like: &Expr) -> Lowered<Option<Value>> {
    let alike = match (&constant.ty.lake, &like.ty.lake) {
        (LakeType::Decimal { scale: own, .. }, LakeType::Decimal { scale, .. }) => own == scale,
        (own, lake) => own == lake,
    };
    match constant.kind {
        ExprKind::Const(None) => Ok(None),
        ExprKind::Const(Some(value)) if alike => Ok(Some(value)),
        _ => refused("lag() and lead() are lowered for constant defaults of the same type only"),
    }
}

fn integer(node: Node) -> Lowered<i64> {
    get::<pg_sys::Const>(node)
        .filter(|constant| constant.consttype == pg_sys::INT4OID && !constant.constisnull)
        .map(|constant| i64::from(constant.constvalue.value() as i32))
        .ok_or_else(|| "a window function with a number that varies is not lowered".to_owned())
}

/// Postgres raises an error for others, once it has a row.
fn positive(node: Node) -> Lowered<u32> {
    match u32::try_from(integer(node)?) {
        Ok(n) if n > 0 => Ok(n),
        _ => refused("a window function with a number below 1 is left to Postgres"),
    }
}

/// The call of an aggregate function as one outside of windows.
fn as_aggregate(call: Node) -> Node {
    let Some(window) = get::<pg_sys::WindowFunc>(call) else {
        return call;
    };
    let args = (1..).zip(nodes(window.args)).map(|(number, arg)| {
        // SAFETY: makes a node.
        unsafe { pg_sys::makeTargetEntry(arg.cast(), number, std::ptr::null_mut(), false).cast() }
    });
    let types = nodes(window.args)
        .into_iter()
        .fold(std::ptr::null_mut(), |list, arg| {
            // SAFETY: makes a list of types.
            unsafe { pg_sys::lappend_oid(list, node::type_of(arg).0) }
        });
    let aggref = node::alloc::<pg_sys::Aggref>();
    // SAFETY: a new node.
    unsafe {
        (*aggref).aggfnoid = window.winfnoid;
        (*aggref).aggtype = window.wintype;
        (*aggref).aggcollid = window.wincollid;
        (*aggref).inputcollid = window.inputcollid;
        (*aggref).aggargtypes = types;
        (*aggref).args = node::list(args);
        (*aggref).aggfilter = window.aggfilter;
        (*aggref).aggstar = window.winstar;
        (*aggref).aggkind = b'n' as std::ffi::c_char;
        (*aggref).aggsplit = pg_sys::AggSplit::AGGSPLIT_SIMPLE;
        (*aggref).aggno = -1;
        (*aggref).aggtransno = -1;
        (*aggref).location = -1;
    }
    aggref.cast()
}

/// The reverse, for EXPLAIN.
fn as_window(call: Node, winref: pg_sys::Index) -> Node {
    let Some(aggref) = get::<pg_sys::Aggref>(call) else {
        return call;
    };
    let window = node::alloc::<pg_sys::WindowFunc>();
    // SAFETY: a new node.
    unsafe {
        (*window).winfnoid = aggref.aggfnoid;
        (*window).wintype = aggref.aggtype;
        (*window).wincollid = aggref.aggcollid;
        (*window).inputcollid = aggref.inputcollid;
        (*window).args = node::list(node::target_exprs(aggref.args));
        (*window).aggfilter = aggref.aggfilter;
        (*window).winref = winref;
        (*window).winstar = aggref.aggstar;
        (*window).winagg = true;
        (*window).location = -1;
    }
    window.cast()
}

/// Whether the result depends on the order of peers.
fn sees_order(function: &WindowFunction, frame: &Frame) -> bool {
    match function {
        WindowFunction::Rank
        | WindowFunction::DenseRank
        | WindowFunction::PercentRank
        | WindowFunction::CumeDist => false,
        // It adds floats up.
        WindowFunction::Aggregate(aggregate) => {
            frame.unit == FrameUnit::Rows || aggregate.overflows()
        }
        WindowFunction::RowNumber
        | WindowFunction::Ntile(_)
        | WindowFunction::FirstValue(_)
        | WindowFunction::LastValue(_)
        | WindowFunction::NthValue(..)
        | WindowFunction::Shift { .. } => true,
    }
}

/// Refuses what can raise an error for rows that Postgres may not look at.
fn check_errors(
    agg: &pg_sys::WindowAgg,
    frame: &Frame,
    functions: &[WindowFunction],
) -> Lowered<()> {
    use FrameBound::{Following, FollowingBy, UnboundedFollowing};
    use FrameBound::{Preceding, PrecedingBy, UnboundedPreceding};
    let starts_later = matches!(
        frame.start,
        Following(_) | FollowingBy(_) | UnboundedFollowing
    );
    let ends_before = matches!(
        frame.end,
        Preceding(_) | PrecedingBy(_) | UnboundedPreceding
    );
    let keeps_current = matches!(
        frame.exclude,
        FrameExclusion::NoOthers | FrameExclusion::Ties
    );
    let has_current = keeps_current && !starts_later && !ends_before;
    let evaluates_all = has_current && agg.runCondition.is_null();
    for function in functions {
        let all = match function {
            WindowFunction::Aggregate(aggregate) => evaluates_all && aggregate.filter.is_none(),
            _ => false,
        };
        if !all && function.exprs().into_iter().any(Expr::can_raise) {
            return refused("a window function of an argument that can fail is not lowered");
        }
        // It isn't computed for rows that fail them.
        if function.overflows() && !agg.runCondition.is_null() {
            return refused("a sum of floats beside a condition that ends a window is not lowered");
        }
    }
    Ok(())
}
