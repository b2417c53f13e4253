//! Aggregates whose result depends on the order of their values: percentiles, `mode`, `array_agg` and `string_agg`.
//!
//! Where a call has no order, Postgres takes the rows as they come, which may be the order of a subquery. The engine's rows come
//! otherwise: they are sorted by that.

use super::aggregates::{Common, Output, Recipe, filtered, renamed, values};
use super::expr::{Exprs, boolean, operator_function};
use super::finals::constant_text;
use super::functions::{self, Call, Number};
use super::moments::adds_floats;
use super::node::{self, Node, get, nodes};
use super::order::sort_key;
use super::tree::has_datum;
use super::{Lowered, refused};
use pg_lake_plan::ir::{AggregateFunction, CompareOp, Expr, ExprKind, Fraction, SortKey};
use pg_lake_plan::types::{LakeType, SqlType};
use pgrx::pg_sys;

/// Whether the aggregate is one of these.
pub fn is_ordered(function: u32) -> bool {
    matches!(
        function,
        pg_sys::F_PERCENTILE_DISC_FLOAT8_ANYELEMENT
            | pg_sys::F_PERCENTILE_CONT_FLOAT8_FLOAT8
            | pg_sys::F_MODE
            | pg_sys::F_ARRAY_AGG_ANYNONARRAY
            | pg_sys::F_STRING_AGG_TEXT_TEXT
    )
}

/// `given`: in what order Postgres gets the rows of a group, if that is known.
pub fn recipe(
    exprs: &mut Exprs<'_>,
    node: Node,
    common: Common,
    given: &[SortKey],
) -> Lowered<Recipe> {
    let aggref = get::<pg_sys::Aggref>(node).ok_or("a malformed aggregate")?;
    let name = functions::name(aggref.aggfnoid);
    match (aggref.aggfnoid.to_u32(), values(aggref).as_slice()) {
        (pg_sys::F_ARRAY_AGG_ANYNONARRAY, [arg]) => {
            let value = exprs.expression(*arg)?;
            let order = order_of_list(exprs, aggref, *arg, &value, given)?;
            list(node, common, value, order).map(Recipe::Plain)
        }
        (pg_sys::F_STRING_AGG_TEXT_TEXT, [arg, delimiter]) => {
            joined(exprs, node, common, [*arg, *delimiter], given)
        }
        _ if common.distinct => Err(format!("{name}() with DISTINCT is not lowered")),
        (function, [arg]) => {
            let value = exprs.expression(*arg)?;
            let order = order_by_value(aggref, *arg, &value)?;
            let (function, ty) = match function {
                pg_sys::F_MODE => (AggregateFunction::Mode, None),
                pg_sys::F_PERCENTILE_DISC_FLOAT8_ANYELEMENT => {
                    (AggregateFunction::PercentileDisc(fraction(aggref)?), None)
                }
                // Elsewhere compilers may fuse the steps of the interpolation.
                pg_sys::F_PERCENTILE_CONT_FLOAT8_FLOAT8 if cfg!(target_arch = "x86_64") => {
                    let function = AggregateFunction::PercentileCont(fraction(aggref)?);
                    (function, Some(Number::Float8.ty()))
                }
                _ => return Err(format!("aggregate {name}() is not lowered")),
            };
            let ty = ty.unwrap_or_else(|| SqlType {
                oid: aggref.aggtype.to_u32(),
                ..value.ty.clone()
            });
            let output = common.output(function, Some(value), ty, node);
            Ok(Recipe::Plain(output.ordered(vec![order])))
        }
        _ => Err(format!("aggregate {name}() is not lowered")),
    }
}

/// `string_agg`: Postgres joins the texts of a list. Nulls are left out; without any text the result is null.
fn joined(
    exprs: &mut Exprs<'_>,
    node: Node,
    mut common: Common,
    [arg, delimiter]: [Node; 2],
    given: &[SortKey],
) -> Lowered<Recipe> {
    let aggref = get::<pg_sys::Aggref>(node).ok_or("a malformed aggregate")?;
    let constant = get::<pg_sys::Const>(delimiter).filter(|c| c.consttype == pg_sys::TEXTOID);
    let Some(constant) = constant else {
        return refused("string_agg() is lowered with a constant delimiter only");
    };
    let delimiter = match constant.constisnull {
        true => constant_text(c""),
        false => delimiter,
    };
    let value = exprs.expression(arg)?;
    let order = order_of_list(exprs, aggref, arg, &value, given)?;
    // Postgres evaluates it also for nulls.
    if (order.iter()).any(|key| key.expr != value && key.expr.can_fail()) {
        return refused("string_agg() with ORDER BY of what can fail is not lowered");
    }
    let given = boolean(ExprKind::IsNotNull(Box::new(value.clone())));
    common.filter = Some(match common.filter {
        None => given,
        // AND goes on after a null, for which Postgres doesn't evaluate the argument.
        Some(filter) => {
            let given = filtered(&Some(filter.clone()), given);
            boolean(ExprKind::And(vec![filter, given]))
        }
    });
    let of = (
        pg_sys::F_ARRAY_AGG_ANYNONARRAY,
        pg_sys::TEXTOID,
        pg_sys::TEXTARRAYOID,
    );
    let list = list(without_delimiter(renamed(node, of))?, common, value, order)?;
    Ok(Recipe::Joined(list, delimiter, aggref.aggcollid))
}

/// The call with its first argument only, and what it is ordered by.
fn without_delimiter(call: Node) -> Lowered<Node> {
    let aggref = get::<pg_sys::Aggref>(call).ok_or("a malformed aggregate")?;
    let mut entries = nodes(aggref.args);
    let delimiter = entries
        .iter()
        .position(|entry| get::<pg_sys::TargetEntry>(*entry).is_some_and(|entry| entry.resno == 2));
    let delimiter = entries.remove(delimiter.ok_or("a malformed aggregate")?);
    let delimiter = get::<pg_sys::TargetEntry>(delimiter).ok_or("a malformed aggregate")?;
    let is_of_it = |clause: &Node| {
        get::<pg_sys::SortGroupClause>(*clause)
            .is_some_and(|clause| clause.tleSortGroupRef == delimiter.ressortgroupref)
    };
    if nodes(aggref.aggorder).iter().any(is_of_it) {
        return refused("string_agg() with ORDER BY of its delimiter is not lowered");
    }
    let distinct = nodes(aggref.aggdistinct).into_iter();
    let distinct = node::list(distinct.filter(|clause| !is_of_it(clause)));
    let call = call.cast::<pg_sys::Aggref>();
    // SAFETY: a copy of an Aggref that nobody else has yet.
    unsafe {
        (*call).args = node::list(entries);
        (*call).aggdistinct = distinct;
    }
    Ok(call.cast())
}

/// The list of the values, which is what `call` gives.
fn list(call: Node, common: Common, value: Expr, order: Vec<SortKey>) -> Lowered<Output> {
    let (typid, typmod, collation) = node::type_of(call);
    let ty = SqlType {
        lake: LakeType::List {
            element_id: 1,
            element: Box::new(value.ty.lake.clone()),
        },
        oid: typid.to_u32(),
        typmod,
        collation: collation.to_u32(),
    };
    if !has_datum(&ty, call) {
        return refused("lists of this type are not lowered");
    }
    let output = common.output(AggregateFunction::ArrayAgg, Some(value), ty, call);
    Ok(output.ordered(order))
}

/// A constant from 0 to 1: for another one Postgres raises an error, once it has a row.
fn fraction(aggref: &pg_sys::Aggref) -> Lowered<Fraction> {
    let direct = nodes(aggref.aggdirectargs);
    let [direct] = direct.as_slice() else {
        return refused("a malformed percentile");
    };
    get::<pg_sys::Const>(*direct)
        .filter(|constant| constant.consttype == pg_sys::FLOAT8OID && !constant.constisnull)
        .map(|constant| Fraction::new(f64::from_bits(constant.constvalue.value() as u64)))
        .filter(|fraction| fraction.is_valid())
        .ok_or_else(|| "percentiles are lowered for a constant fraction only".to_owned())
}

/// `WITHIN GROUP (ORDER BY …)`
fn order_by_value(aggref: &pg_sys::Aggref, arg: Node, value: &Expr) -> Lowered<SortKey> {
    let clauses = nodes(aggref.aggorder);
    let clause = match clauses.as_slice() {
        [clause] => get::<pg_sys::SortGroupClause>(*clause),
        _ => None,
    };
    let clause = clause.ok_or("an aggregate over several ordered values")?;
    let key = key(clause, value.clone(), node::type_of(arg).2)?;
    match key.expr == *value {
        true => Ok(key),
        false => refused("the order of this type is not lowered in an aggregate"),
    }
}

/// What the values of a list are ordered by: themselves, if each comes once; or by `ORDER BY` of the call, or as the rows
/// are given.
fn order_of_list(
    exprs: &mut Exprs<'_>,
    aggref: &pg_sys::Aggref,
    arg: Node,
    value: &Expr,
    given: &[SortKey],
) -> Lowered<Vec<SortKey>> {
    if !aggref.aggdistinct.is_null() {
        return order_of_distinct(aggref, arg, value);
    }
    if !aggref.aggorder.is_null() {
        return order(exprs, aggref);
    }
    if given.is_empty() {
        let name = functions::name(aggref.aggfnoid);
        return Err(format!("{name}() without ORDER BY is not lowered"));
    }
    Ok(given.to_vec())
}

/// Postgres sorts by what is to be distinct, in the directions of an `ORDER BY`, which can have nothing else.
fn order_of_distinct(aggref: &pg_sys::Aggref, arg: Node, value: &Expr) -> Lowered<Vec<SortKey>> {
    for clause in nodes(aggref.aggdistinct) {
        let (clause, entry) = sorted_by(aggref, clause)?;
        let own: Node = entry.expr.cast();
        if own != arg {
            continue;
        }
        let key = key(clause, value.clone(), node::type_of(arg).2)?;
        return match key.expr == *value {
            true => Ok(vec![key]),
            false => refused("the order of this type is not lowered in an aggregate"),
        };
    }
    refused("a malformed aggregate")
}

/// `ORDER BY` of the call.
fn order(exprs: &mut Exprs<'_>, aggref: &pg_sys::Aggref) -> Lowered<Vec<SortKey>> {
    let mut keys = vec![];
    for clause in nodes(aggref.aggorder) {
        let (clause, entry) = sorted_by(aggref, clause)?;
        let node: Node = entry.expr.cast();
        let expr = exprs.value(node)?;
        keys.push(key(clause, expr, node::type_of(node).2)?);
    }
    Ok(keys)
}

fn key(clause: &pg_sys::SortGroupClause, expr: Expr, collation: pg_sys::Oid) -> Lowered<SortKey> {
    let function = operator_function(pg_sys::InvalidOid, clause.sortop);
    let (expr, descending) = sort_key(expr, function, collation)?;
    Ok(SortKey {
        expr,
        descending,
        nulls_first: clause.nulls_first,
    })
}

/// A clause of the call's `ORDER BY`, and the argument that it names.
fn sorted_by(
    aggref: &pg_sys::Aggref,
    clause: Node,
) -> Lowered<(&pg_sys::SortGroupClause, &pg_sys::TargetEntry)> {
    let clause = get::<pg_sys::SortGroupClause>(clause).ok_or("a malformed aggregate")?;
    let entry = nodes(aggref.args)
        .into_iter()
        .filter_map(get::<pg_sys::TargetEntry>)
        .find(|entry| entry.ressortgroupref == clause.tleSortGroupRef);
    Ok((clause, entry.ok_or("a malformed aggregate")?))
}

/// Checks that the call's `ORDER BY` can be left out: it changes nothing of the result, and must raise no error.
pub fn check_unused_order(exprs: &mut Exprs<'_>, aggref: &pg_sys::Aggref) -> Lowered<()> {
    if !aggref.aggorder.is_null() && adds_floats(aggref.aggfnoid.to_u32()) {
        return refused("a sum of floats with ORDER BY is not lowered");
    }
    for clause in nodes(aggref.aggorder) {
        let (clause, entry) = sorted_by(aggref, clause)?;
        let node: Node = entry.expr.cast();
        let expr = exprs.value(node)?;
        let compared = functions::known(operator_function(pg_sys::InvalidOid, clause.sortop));
        let known = matches!(
            compared,
            Some(
                Call::Compare(CompareOp::Lt | CompareOp::Gt)
                    | Call::ComparePadded(CompareOp::Lt | CompareOp::Gt)
            )
        );
        if !known {
            return refused("an aggregate with ORDER BY by another operator is not lowered");
        }
        // An argument is evaluated anyway.
        if entry.resjunk && expr.can_fail() {
            return refused("an aggregate with ORDER BY of what can fail is not lowered");
        }
    }
    Ok(())
}
