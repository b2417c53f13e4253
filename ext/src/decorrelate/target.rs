//! What a subquery returns: an expression over aggregates.

use super::errors;
use super::levels::Levels;
use crate::lower::node::{self, Node, get, nodes, tag};
use crate::lower::operator_function;
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// Whether it is an expression over aggregates that can be computed for all groups.
pub fn is_fit(target: Node) -> bool {
    let (mut aggregates, mut fit) = (0, true);
    node::visit(target, &mut |node| match tag(node) {
        NodeTag::T_Aggref => {
            aggregates += 1;
            fit &= get::<pg_sys::Aggref>(node).is_some_and(is_fit_aggregate);
            false
        }
        NodeTag::T_Var => {
            fit = false;
            false
        }
        _ => true,
    });
    fit && aggregates > 0 && errors::is_safe(target, &|node| tag(node) == NodeTag::T_Aggref)
}

/// Whether it is an expression over groups that can be computed for all of them.
pub fn is_fit_over_groups(expr: Node) -> bool {
    let mut fit = Levels::of(expr).is_closed();
    node::visit(expr, &mut |node| {
        let aggregate = get::<pg_sys::Aggref>(node);
        fit &= aggregate.is_none_or(is_fit_aggregate);
        aggregate.is_none()
    });
    fit && errors::is_safe(expr, &|node| tag(node) == NodeTag::T_Aggref)
}

fn is_fit_aggregate(aggregate: &pg_sys::Aggref) -> bool {
    let is_closed_and_safe =
        |node: Node| Levels::of(node).is_closed() && errors::is_safe(node, &|_| false);
    aggregate.agglevelsup == 0
        && aggregate.aggkind as u8 == b'n'
        && aggregate.aggdistinct.is_null()
        && aggregate.aggorder.is_null()
        && aggregate.aggdirectargs.is_null()
        && !aggregate.aggvariadic
        && raises_nothing(aggregate)
        && is_closed_and_safe(aggregate.args.cast())
        && is_closed_and_safe(aggregate.aggfilter.cast())
}

/// Whether it is known to raise no error, whatever the values are.
pub fn raises_nothing(aggregate: &pg_sys::Aggref) -> bool {
    is_count(aggregate) || is_null_over_nothing(aggregate.aggfnoid)
}

/// Whether it is 0 over no rows.
pub fn is_count(aggregate: &pg_sys::Aggref) -> bool {
    matches!(
        aggregate.aggfnoid.to_u32(),
        pg_sys::F_COUNT_ | pg_sys::F_COUNT_ANY
    )
}

/// Aggregates that raise no error for any rows, and are null over none: sums that don't fit into their
/// type are out of reach.
#[rustfmt::skip]
fn is_null_over_nothing(function: pg_sys::Oid) -> bool {
    matches!(
        function.to_u32(),
        pg_sys::F_SUM_INT2
        | pg_sys::F_SUM_INT4
        | pg_sys::F_SUM_INT8
        | pg_sys::F_SUM_NUMERIC
        | pg_sys::F_AVG_INT2
        | pg_sys::F_AVG_INT4
        | pg_sys::F_AVG_INT8
        | pg_sys::F_AVG_NUMERIC
        | pg_sys::F_MIN_INT2
        | pg_sys::F_MIN_INT4
        | pg_sys::F_MIN_INT8
        | pg_sys::F_MIN_FLOAT4
        | pg_sys::F_MIN_FLOAT8
        | pg_sys::F_MIN_NUMERIC
        | pg_sys::F_MIN_DATE
        | pg_sys::F_MIN_TIME
        | pg_sys::F_MIN_TIMESTAMP
        | pg_sys::F_MIN_TIMESTAMPTZ
        | pg_sys::F_MIN_TEXT
        | pg_sys::F_MAX_INT2
        | pg_sys::F_MAX_INT4
        | pg_sys::F_MAX_INT8
        | pg_sys::F_MAX_FLOAT4
        | pg_sys::F_MAX_FLOAT8
        | pg_sys::F_MAX_NUMERIC
        | pg_sys::F_MAX_DATE
        | pg_sys::F_MAX_TIME
        | pg_sys::F_MAX_TIMESTAMP
        | pg_sys::F_MAX_TIMESTAMPTZ
        | pg_sys::F_MAX_TEXT
        | pg_sys::F_BOOL_AND
        | pg_sys::F_BOOL_OR
        | pg_sys::F_EVERY
        | pg_sys::F_BIT_AND_INT2
        | pg_sys::F_BIT_AND_INT4
        | pg_sys::F_BIT_AND_INT8
        | pg_sys::F_BIT_OR_INT2
        | pg_sys::F_BIT_OR_INT4
        | pg_sys::F_BIT_OR_INT8
        | pg_sys::F_BIT_XOR_INT2
        | pg_sys::F_BIT_XOR_INT4
        | pg_sys::F_BIT_XOR_INT8
    )
}

/// Whether an expression over aggregates is null if they see no rows.
pub fn is_null_over_no_rows(target: Node) -> bool {
    is_null_if_empty(target, std::ptr::null_mut(), target)
}

/// Whether an expression is surely null where the subquery of `sublink`, whose target is given, finds
/// no row.
pub fn is_null_if_empty(node: Node, sublink: Node, target: Node) -> bool {
    let is_null = |node: Node| is_null_if_empty(node, sublink, target);
    // SAFETY: looks the function up.
    let is_strict_over = |function: pg_sys::Oid, args: *mut pg_sys::List| {
        nodes(args).into_iter().any(is_null) && unsafe { pg_sys::func_strict(function) }
    };
    if node == sublink {
        return is_null(target);
    }
    if let Some(aggregate) = get::<pg_sys::Aggref>(node) {
        return !is_count(aggregate);
    }
    if let Some(constant) = get::<pg_sys::Const>(node) {
        return constant.constisnull;
    }
    if let Some(op) = get::<pg_sys::OpExpr>(node) {
        return is_strict_over(operator_function(op.opfuncid, op.opno), op.args);
    }
    if let Some(call) = get::<pg_sys::FuncExpr>(node) {
        return is_strict_over(call.funcid, call.args);
    }
    if let Some(relabel) = get::<pg_sys::RelabelType>(node) {
        return is_null(relabel.arg.cast());
    }
    get::<pg_sys::CoalesceExpr>(node).is_some_and(|call| nodes(call.args).into_iter().all(is_null))
}
