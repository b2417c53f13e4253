//! The whitelist of aggregate functions, and how each is put together from the engine's.
//!
//! `avg` becomes a sum and a count of the engine and the division that Postgres' own final
//! function does (`numeric_avg`, `int8_avg`, `numeric_poly_avg`). That of floats is left to Postgres,
//! which raises an error where their squares overflow.

use super::Lowered;
use super::consts::decimal;
use super::expr::{Exprs, operator_function};
use super::functions::{self, Number};
use super::node::{self, Node, get};
use super::numeric::scale;
use super::order::{check_group, is_ordered};
use super::table::sql_type;
use pg_lake_plan::ir::{Aggregate, AggregateFunction, Expr};
use pg_lake_plan::types::{LakeType, SqlType};
use pgrx::pg_sys;

/// An engine aggregate and the Postgres aggregate call that it stands for.
#[derive(Debug)]
pub struct Output {
    pub aggregate: Aggregate,
    pub aggref: Node,
}

/// How Postgres' result comes from the engine's outputs. Lives for one call only.
#[allow(clippy::large_enum_variant)]
enum Recipe {
    Plain(Output),
    Sum(Sum),
    /// Sum and count.
    Average(Sum, Output),
}

/// A sum, and the largest scale of what is added up, where that isn't the same for all.
struct Sum {
    sum: Output,
    scale: Option<Output>,
}

/// Collects a fragment's aggregates, each once.
#[derive(Debug, Default)]
pub struct Aggregates {
    pub outputs: Vec<Output>,
}

impl Aggregates {
    /// The expression for an aggregate call (over base columns) in terms of the fragment's outputs,
    /// of which `groups` come before the aggregates.
    pub fn lower(&mut self, exprs: &mut Exprs<'_>, aggref: Node, groups: usize) -> Lowered<Node> {
        Ok(match recipe(exprs, aggref)? {
            Recipe::Plain(output) => self.output(output, groups),
            Recipe::Sum(sum) => self.sum(sum, groups),
            Recipe::Average(sum, count) => {
                let (sum, count) = (self.sum(sum, groups), self.output(count, groups));
                quotient(sum, count)
            }
        })
    }

    fn sum(&mut self, sum: Sum, groups: usize) -> Node {
        let value = self.output(sum.sum, groups);
        match sum.scale {
            None => value,
            Some(scale) => {
                let scale = self.output(scale, groups);
                function(
                    pg_sys::F_ROUND_NUMERIC_INT4,
                    pg_sys::NUMERICOID,
                    &[value, scale],
                    pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
                )
            }
        }
    }

    fn output(&mut self, output: Output, groups: usize) -> Node {
        let same = |o: &Output| o.aggregate == output.aggregate;
        let at = match self.outputs.iter().position(same) {
            Some(at) => at,
            None => {
                self.outputs.push(output);
                self.outputs.len() - 1
            }
        };
        node::output_var(pg_sys::INDEX_VAR, groups + at + 1, self.outputs[at].aggref)
    }
}

fn recipe(exprs: &mut Exprs<'_>, node: Node) -> Lowered<Recipe> {
    let aggref = get::<pg_sys::Aggref>(node).ok_or("a malformed aggregate")?;
    let name = || functions::name(aggref.aggfnoid);
    let plain = aggref.aggorder.is_null()
        && aggref.aggdirectargs.is_null()
        && !aggref.aggvariadic
        && aggref.aggkind as u8 == b'n'
        && aggref.agglevelsup == 0
        && aggref.aggsplit == pg_sys::AggSplit::AGGSPLIT_SIMPLE;
    if !plain {
        return Err(format!("{}() with ORDER BY is not lowered", name()));
    }
    let distinct = check_distinct(exprs, aggref)?;
    let filter = match aggref.aggfilter.is_null() {
        true => None,
        false => Some(exprs.expression(aggref.aggfilter.cast())?),
    };
    let make = |function, arg, ty, aggref| Output {
        aggregate: Aggregate {
            function,
            arg,
            filter: filter.clone(),
            distinct,
            ty,
        },
        aggref,
    };
    let count = |arg, aggref| {
        let ty = sql_type(LakeType::Int8, pg_sys::INT8OID);
        make(AggregateFunction::Count, arg, ty, aggref)
    };
    let args = node::target_exprs(aggref.args);
    match (aggref.aggfnoid.to_u32(), args.as_slice()) {
        (pg_sys::F_COUNT_, []) => Ok(Recipe::Plain(count(None, node))),
        (pg_sys::F_COUNT_ANY, [arg]) => {
            let arg = exprs.nullness(*arg)?;
            Ok(Recipe::Plain(count(Some(arg), node)))
        }
        (function, [arg]) => {
            let kind =
                known(function).ok_or_else(|| format!("aggregate {}() is not lowered", name()))?;
            let (arg, scale) = match kind {
                Kind::Sum | Kind::Average => exprs.scaled(*arg)?,
                Kind::Extreme(_) => (exprs.expression(*arg)?, None),
            };
            if distinct && scale.is_some() {
                return Err("distinct numerics that differ in scale are not lowered".to_owned());
            }
            let scale = scale.map(|scale| {
                let ty = scale.ty.clone();
                make(AggregateFunction::Max, Some(scale), ty, scale_call(node))
            });
            match kind {
                Kind::Sum => {
                    let ty = sum_type(&arg, aggref.aggtype)?;
                    let sum = make(AggregateFunction::Sum, Some(arg), ty, node);
                    Ok(Recipe::Sum(Sum { sum, scale }))
                }
                Kind::Extreme(function) => {
                    if !is_ordered(&arg.ty, aggref.inputcollid) {
                        return Err(format!(
                            "{}() of this type or collation is not lowered",
                            name()
                        ));
                    }
                    let ty = SqlType {
                        oid: aggref.aggtype.to_u32(),
                        ..arg.ty.clone()
                    };
                    Ok(Recipe::Plain(make(function, Some(arg), ty, node)))
                }
                Kind::Average => {
                    let ty = sum_type(&arg, pg_sys::NUMERICOID)?;
                    let (sum_ref, count_ref) = average_parts(node, &arg.ty.lake);
                    let sum = make(AggregateFunction::Sum, Some(arg.clone()), ty, sum_ref);
                    let sum = Sum { sum, scale };
                    Ok(Recipe::Average(sum, count(Some(arg), count_ref)))
                }
            }
        }
        _ => Err(format!("aggregate {}() is not lowered", name())),
    }
}

enum Kind {
    Sum,
    Average,
    Extreme(AggregateFunction),
}

fn known(function: u32) -> Option<Kind> {
    Some(match function {
        pg_sys::F_SUM_INT2
        | pg_sys::F_SUM_INT4
        | pg_sys::F_SUM_INT8
        | pg_sys::F_SUM_NUMERIC
        | pg_sys::F_SUM_FLOAT8 => Kind::Sum,
        pg_sys::F_AVG_INT2 | pg_sys::F_AVG_INT4 | pg_sys::F_AVG_INT8 | pg_sys::F_AVG_NUMERIC => {
            Kind::Average
        }
        pg_sys::F_MIN_INT2
        | pg_sys::F_MIN_INT4
        | pg_sys::F_MIN_INT8
        | pg_sys::F_MIN_NUMERIC
        | pg_sys::F_MIN_DATE
        | pg_sys::F_MIN_TIME
        | pg_sys::F_MIN_TIMESTAMP
        | pg_sys::F_MIN_TIMESTAMPTZ
        | pg_sys::F_MIN_TEXT => Kind::Extreme(AggregateFunction::Min),
        pg_sys::F_MAX_INT2
        | pg_sys::F_MAX_INT4
        | pg_sys::F_MAX_INT8
        | pg_sys::F_MAX_NUMERIC
        | pg_sys::F_MAX_DATE
        | pg_sys::F_MAX_TIME
        | pg_sys::F_MAX_TIMESTAMP
        | pg_sys::F_MAX_TIMESTAMPTZ
        | pg_sys::F_MAX_TEXT => Kind::Extreme(AggregateFunction::Max),
        _ => return None,
    })
}

/// The engine's type of a sum whose type in Postgres is `result`.
fn sum_type(arg: &Expr, result: pg_sys::Oid) -> Lowered<SqlType> {
    match result {
        pg_sys::INT8OID => Ok(Number::Int8.ty()),
        pg_sys::FLOAT8OID => Ok(Number::Float8.ty()),
        pg_sys::NUMERICOID if arg.ty.lake.is_integer() => Ok(decimal(0)),
        pg_sys::NUMERICOID => Ok(decimal(scale(arg)?)),
        _ => Err("a sum of this type is not lowered".to_owned()),
    }
}

/// The calls of `sum` and `count` that an average is made of, for EXPLAIN.
fn average_parts(average: Node, arg: &LakeType) -> (Node, Node) {
    let (function, argument, result) = match arg {
        LakeType::Decimal { .. } => (
            pg_sys::F_SUM_NUMERIC,
            pg_sys::NUMERICOID,
            pg_sys::NUMERICOID,
        ),
        // The one that adds up integers to a numeric.
        _ => (pg_sys::F_SUM_INT8, pg_sys::INT8OID, pg_sys::NUMERICOID),
    };
    let (sum, count) = (node::copy(average), node::copy(average));
    // SAFETY: both are fresh copies of an Aggref.
    unsafe {
        let sum = sum.cast::<pg_sys::Aggref>();
        (*sum).aggfnoid = pg_sys::Oid::from(function);
        (*sum).aggtype = result;
        (*sum).aggargtypes = pg_sys::lappend_oid(std::ptr::null_mut(), argument);
        let count = count.cast::<pg_sys::Aggref>();
        (*count).aggfnoid = pg_sys::Oid::from(pg_sys::F_COUNT_ANY);
        (*count).aggtype = pg_sys::INT8OID;
    }
    (sum, count)
}

/// `sum / count`; null where the sum is, since all of these functions are strict.
fn quotient(sum: Node, count: Node) -> Node {
    let count = function(
        pg_sys::F_NUMERIC_INT8,
        pg_sys::NUMERICOID,
        &[count],
        pg_sys::CoercionForm::COERCE_EXPLICIT_CAST,
    );
    function(
        pg_sys::F_NUMERIC_DIV,
        pg_sys::NUMERICOID,
        &[sum, count],
        pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
    )
}

/// A call of an immutable built-in function with the arguments it takes.
fn function(
    function: u32,
    ty: pg_sys::Oid,
    args: &[Node],
    format: pg_sys::CoercionForm::Type,
) -> Node {
    // SAFETY: makes a node.
    unsafe {
        pg_sys::makeFuncExpr(
            pg_sys::Oid::from(function),
            ty,
            node::list(args.iter().copied()),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            format,
        )
        .cast()
    }
}

/// Whether only distinct values are aggregated, and that the engine knows which are.
fn check_distinct(exprs: &mut Exprs<'_>, aggref: &pg_sys::Aggref) -> Lowered<bool> {
    let clauses = node::nodes(aggref.aggdistinct);
    let Some(clause) = clauses.first().copied() else {
        return Ok(false);
    };
    let equality = get::<pg_sys::SortGroupClause>(clause)
        .map(|clause| operator_function(pg_sys::InvalidOid, clause.eqop));
    let args = node::target_exprs(aggref.args);
    match args.as_slice() {
        [arg] => {
            let arg = exprs.expression(*arg)?;
            check_group(&arg, equality, aggref.inputcollid)?;
            Ok(true)
        }
        _ => Err("an aggregate over distinct rows of values is not lowered".to_owned()),
    }
}

/// The call that stands for the scale of a sum, for its type and for EXPLAIN.
fn scale_call(sum: Node) -> Node {
    let call = node::copy(sum).cast::<pg_sys::Aggref>();
    // SAFETY: a fresh copy of an Aggref.
    unsafe {
        (*call).aggfnoid = pg_sys::Oid::from(pg_sys::F_MAX_INT4);
        (*call).aggtype = pg_sys::INT4OID;
        (*call).aggargtypes = pg_sys::lappend_oid(std::ptr::null_mut(), pg_sys::INT4OID);
    }
    call.cast()
}
