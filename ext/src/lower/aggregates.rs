//! The whitelist of aggregate functions, and how each is put together from the engine's.
//!
//! `avg` becomes a sum and a count of the engine and the division that Postgres' own final
//! function does (`numeric_avg`, `int8_avg`, `numeric_poly_avg`). That of floats is in `moments`, variances are in `spread`,
//! functions of ordered values in `ordered`.

use super::Lowered;
use super::compare::{padded_length, trimmed};
use super::consts::{MAX_PRECISION, decimal};
use super::expr::{Exprs, boolean, operator_function};
use super::finals::{function, interval_quotient, joined, padded, quotient};
use super::functions::{self, Number};
use super::intervals::{has_average, interval_type};
use super::moments::{self, Finish};
use super::node::{self, Node, get, nodes};
use super::numeric::scale;
use super::order::{equality_key, group_key, is_c, is_ordered, is_printed};
use super::ordered;
use super::spread::{Spread, squares_call};
use super::table::sql_type;
use pg_lake_plan::ir::{Aggregate, AggregateFunction, Expr, ExprKind, SortKey};
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
pub enum Recipe {
    Plain(Output),
    Sum(Sum),
    /// Sum and count.
    Average(Sum, Output),
    /// Sum and count of intervals.
    IntervalAverage(Output, Output),
    /// Count, sum and sum of squares; the scale of what is added up.
    Spread(Spread, [Output; 3], i8),
    /// The state of floats.
    Moments(Finish, Output),
    /// The text of a `character` of so many characters, without its trailing blanks.
    Padded(Output, i32, pg_sys::Oid),
    /// A list of texts, what comes between two of them, and the collation of the result.
    Joined(Output, Node, pg_sys::Oid),
}

/// A sum, and the largest scale of what is added up, where that isn't the same for all.
pub struct Sum {
    sum: Output,
    scale: Option<Output>,
}

/// What the outputs of one call have in common.
pub struct Common {
    pub filter: Option<Expr>,
    pub distinct: bool,
}

impl Common {
    /// `aggref`: the Postgres aggregate that gives the same.
    pub fn output(
        &self,
        function: AggregateFunction,
        arg: Option<Expr>,
        ty: SqlType,
        aggref: Node,
    ) -> Output {
        Output {
            aggregate: Aggregate {
                function,
                arg: arg.map(|arg| filtered(&self.filter, arg)),
                filter: self.filter.clone(),
                distinct: self.distinct,
                ty,
                order: vec![],
            },
            aggref,
        }
    }

    fn count(&self, arg: Option<Expr>, aggref: Node) -> Output {
        let ty = sql_type(LakeType::Int8, pg_sys::INT8OID);
        self.output(AggregateFunction::Count, arg, ty, aggref)
    }
}

impl Output {
    /// The same of values in an order.
    pub fn ordered(mut self, order: Vec<SortKey>) -> Output {
        let filter = &self.aggregate.filter;
        let keys = order.into_iter().map(|key| SortKey {
            expr: filtered(filter, key.expr),
            ..key
        });
        self.aggregate.order = keys.collect();
        self
    }
}

/// What can fail is evaluated only for rows that the filter takes.
pub fn filtered(filter: &Option<Expr>, arg: Expr) -> Expr {
    match filter {
        Some(filter) if arg.can_fail() => Expr {
            ty: arg.ty.clone(),
            kind: ExprKind::Case {
                branches: vec![(filter.clone(), arg)],
                otherwise: None,
            },
        },
        _ => arg,
    }
}

/// Collects a fragment's aggregates, each once.
#[derive(Debug, Default)]
pub struct Aggregates {
    pub outputs: Vec<Output>,
    /// In what order Postgres' functions get the rows of a group: none, if that isn't known.
    pub given_order: Vec<SortKey>,
}

impl Aggregates {
    /// The expression for an aggregate call (over base columns) in terms of the fragment's outputs,
    /// of which `groups` come before the aggregates.
    pub fn lower(&mut self, exprs: &mut Exprs<'_>, aggref: Node, groups: usize) -> Lowered<Node> {
        Ok(match recipe(exprs, aggref, &self.given_order)? {
            Recipe::Plain(output) => self.output(output, groups),
            Recipe::Sum(sum) => self.sum(sum, groups),
            Recipe::Average(sum, count) => {
                let (sum, count) = (self.sum(sum, groups), self.output(count, groups));
                quotient(sum, count)
            }
            Recipe::IntervalAverage(sum, count) => {
                interval_quotient(self.output(sum, groups), self.output(count, groups))
            }
            Recipe::Spread(spread, outputs, scale) => {
                let [count, sum, squares] = outputs.map(|output| self.output(output, groups));
                spread.node(count, sum, squares, scale)
            }
            Recipe::Moments(finish, state) => finish.node(self.output(state, groups)),
            Recipe::Padded(output, length, collation) => {
                padded(self.output(output, groups), length, collation)
            }
            Recipe::Joined(list, delimiter, collation) => {
                joined(self.output(list, groups), delimiter, collation)
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

fn recipe(exprs: &mut Exprs<'_>, node: Node, given_order: &[SortKey]) -> Lowered<Recipe> {
    let aggref = get::<pg_sys::Aggref>(node).ok_or("a malformed aggregate")?;
    let name = || functions::name(aggref.aggfnoid);
    let function = aggref.aggfnoid.to_u32();
    let ordered = ordered::is_ordered(function);
    let plain = !aggref.aggvariadic
        && (ordered || (aggref.aggkind as u8 == b'n' && aggref.aggdirectargs.is_null()))
        && aggref.agglevelsup == 0
        && aggref.aggsplit == pg_sys::AggSplit::AGGSPLIT_SIMPLE;
    if !plain {
        return Err(format!("aggregate {}() is not lowered", name()));
    }
    let distinct = check_distinct(exprs, aggref)?;
    let filter = match aggref.aggfilter.is_null() {
        true => None,
        false => Some(exprs.expression(aggref.aggfilter.cast())?),
    };
    let common = Common { filter, distinct };
    if ordered {
        return ordered::recipe(exprs, node, common, given_order);
    }
    let args = values(aggref);
    let unknown = || format!("aggregate {}() is not lowered", name());
    let recipe = match (function, args.as_slice()) {
        (pg_sys::F_COUNT_, []) => Recipe::Plain(common.count(None, node)),
        (pg_sys::F_COUNT_ANY, [arg]) => {
            let mut arg = exprs.nullness(*arg)?;
            // Equal values may differ: what they have in common counts.
            if common.distinct && is_printed(&arg.ty) {
                arg = equality_key(arg, None, aggref.inputcollid)?;
            }
            Recipe::Plain(common.count(Some(arg), node))
        }
        (pg_sys::F_REGR_COUNT, [y, x]) => {
            let arg = both(exprs.nullness(*y)?, exprs.nullness(*x)?)?;
            Recipe::Plain(common.count(Some(arg), node))
        }
        (function, [arg]) => {
            let kind = known(function).ok_or_else(unknown)?;
            of_kind(exprs, node, kind, *arg, common)?
        }
        (function, [y, x]) => {
            let finish = Finish::of(function).filter(|finish| finish.pairs);
            let finish = finish.ok_or_else(unknown)?;
            let pair = moments::pair(exprs.expression(*y)?, exprs.expression(*x)?);
            of_floats(node, finish, pair, &common)?
        }
        _ => return Err(unknown()),
    };
    ordered::check_unused_order(exprs, aggref)?;
    Ok(recipe)
}

/// The call of one argument.
fn of_kind(
    exprs: &mut Exprs<'_>,
    node: Node,
    kind: Kind,
    arg: Node,
    common: Common,
) -> Lowered<Recipe> {
    let aggref = get::<pg_sys::Aggref>(node).ok_or("a malformed aggregate")?;
    match kind {
        Kind::Sum | Kind::Average => {
            let (arg, scale) = exprs.scaled(arg)?;
            if common.distinct && scale.is_some() {
                return Err("distinct numerics that differ in scale are not lowered".to_owned());
            }
            let scale = scale.map(|scale| {
                let ty = scale.ty.clone();
                let of = (pg_sys::F_MAX_INT4, pg_sys::INT4OID, pg_sys::INT4OID);
                let call = renamed(node, of);
                common.output(AggregateFunction::Max, Some(scale), ty, call)
            });
            if matches!(kind, Kind::Sum) {
                let ty = sum_type(&arg, aggref.aggtype)?;
                let sum = common.output(AggregateFunction::Sum, Some(arg), ty, node);
                return Ok(Recipe::Sum(Sum { sum, scale }));
            }
            let (sum, count) = sum_and_count(&common, node, arg)?;
            Ok(Recipe::Average(Sum { sum, scale }, count))
        }
        Kind::Spread(spread) => {
            let value = exprs.expression(arg)?;
            let digits = match value.ty.lake.is_decimal() {
                true => scale(&value)?,
                false => 0,
            };
            if i32::from(digits) * 2 > i32::from(MAX_PRECISION) {
                return Err("a square has more than 38 digits after the point".to_owned());
            }
            let squares = common.output(
                AggregateFunction::SumOfSquares,
                Some(value.clone()),
                decimal(digits * 2),
                squares_call(node, arg),
            );
            let (sum, count) = sum_and_count(&common, node, value)?;
            Ok(Recipe::Spread(spread, [count, sum, squares], digits))
        }
        Kind::Extreme(function) => {
            let arg = exprs.expression(arg)?;
            if arg.ty.oid == pg_sys::BPCHAROID.to_u32() {
                return extreme_of_padded(node, function, arg, &common);
            }
            if !is_ordered(&arg.ty, aggref.inputcollid) {
                return Err(format!(
                    "{}() of this type or collation is not lowered",
                    functions::name(aggref.aggfnoid)
                ));
            }
            Ok(Recipe::Plain(same_type(node, function, arg, &common)?))
        }
        Kind::Bits(function) | Kind::OfIntervals(function) => {
            let arg = exprs.expression(arg)?;
            Ok(Recipe::Plain(same_type(node, function, arg, &common)?))
        }
        Kind::IntervalAverage => interval_average(exprs, node, arg, &common),
        Kind::Moments(finish) => of_floats(node, finish, exprs.expression(arg)?, &common),
    }
}

/// The state that Postgres' final function takes.
fn of_floats(node: Node, finish: Finish, arg: Expr, common: &Common) -> Lowered<Recipe> {
    let ty = moments::state_type();
    let output = common.output(finish.moments(), Some(arg), ty, moments::partial(node)?);
    Ok(Recipe::Moments(finish, moments::checked(output)?))
}

/// The sum that Postgres divides (`interval_avg`).
fn interval_average(
    exprs: &mut Exprs<'_>,
    node: Node,
    arg: Node,
    common: &Common,
) -> Lowered<Recipe> {
    if !has_average() {
        return Err("an average of intervals is not lowered on this machine".to_owned());
    }
    let arg = exprs.expression(arg)?;
    let interval = pg_sys::INTERVALOID;
    let sum = common.output(
        AggregateFunction::IntervalSum,
        Some(arg.clone()),
        interval_type(),
        renamed(node, (pg_sys::F_SUM_INTERVAL, interval, interval)),
    );
    let of = (pg_sys::F_COUNT_ANY, interval, pg_sys::INT8OID);
    let count = common.count(Some(arg), renamed(node, of));
    Ok(Recipe::IntervalAverage(sum, count))
}

/// An output whose type is that of the argument.
fn same_type(
    node: Node,
    function: AggregateFunction,
    arg: Expr,
    common: &Common,
) -> Lowered<Output> {
    let aggref = get::<pg_sys::Aggref>(node).ok_or("a malformed aggregate")?;
    let ty = SqlType {
        oid: aggref.aggtype.to_u32(),
        ..arg.ty.clone()
    };
    Ok(common.output(function, Some(arg), ty, node))
}

/// `min` and `max` of `character(n)`, which is compared without its trailing blanks: values that are equal have as many
/// of them.
fn extreme_of_padded(
    node: Node,
    function: AggregateFunction,
    arg: Expr,
    common: &Common,
) -> Lowered<Recipe> {
    let aggref = get::<pg_sys::Aggref>(node).ok_or("a malformed aggregate")?;
    let length = padded_length(&arg).and_then(|length| i32::try_from(length).ok());
    let length = length.filter(|_| is_c(aggref.inputcollid));
    let Some(length) = length else {
        let name = functions::name(aggref.aggfnoid);
        return Err(format!("{name}() of this type or collation is not lowered"));
    };
    let mut text = trimmed(arg);
    text.ty = SqlType {
        oid: pg_sys::TEXTOID.to_u32(),
        typmod: -1,
        ..text.ty
    };
    let name = match function {
        AggregateFunction::Max => pg_sys::F_MAX_TEXT,
        _ => pg_sys::F_MIN_TEXT,
    };
    let call = renamed(node, (name, pg_sys::TEXTOID, pg_sys::TEXTOID));
    let ty = text.ty.clone();
    let output = common.output(function, Some(text), ty, call);
    Ok(Recipe::Padded(output, length, aggref.aggcollid))
}

/// Not null where both are not.
fn both(y: Expr, x: Expr) -> Lowered<Expr> {
    if y.can_fail() || x.can_fail() {
        return Err("regr_count() of an argument that can fail is not lowered".to_owned());
    }
    Ok(Expr {
        ty: x.ty.clone(),
        kind: ExprKind::Case {
            branches: vec![(boolean(ExprKind::IsNotNull(Box::new(y))), x)],
            otherwise: None,
        },
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Sum,
    Average,
    Spread(Spread),
    Extreme(AggregateFunction),
    Bits(AggregateFunction),
    OfIntervals(AggregateFunction),
    IntervalAverage,
    Moments(Finish),
}

fn known(function: u32) -> Option<Kind> {
    Some(match function {
        pg_sys::F_SUM_INT2
        | pg_sys::F_SUM_INT4
        | pg_sys::F_SUM_INT8
        | pg_sys::F_SUM_NUMERIC
        | pg_sys::F_SUM_FLOAT4
        | pg_sys::F_SUM_FLOAT8 => Kind::Sum,
        pg_sys::F_AVG_INT2 | pg_sys::F_AVG_INT4 | pg_sys::F_AVG_INT8 | pg_sys::F_AVG_NUMERIC => {
            Kind::Average
        }
        pg_sys::F_MIN_INT2
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
        | pg_sys::F_MIN_BPCHAR => Kind::Extreme(AggregateFunction::Min),
        pg_sys::F_MAX_INT2
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
        | pg_sys::F_MAX_BPCHAR => Kind::Extreme(AggregateFunction::Max),
        pg_sys::F_BOOL_AND | pg_sys::F_EVERY => Kind::Bits(AggregateFunction::BoolAnd),
        pg_sys::F_BOOL_OR => Kind::Bits(AggregateFunction::BoolOr),
        pg_sys::F_BIT_AND_INT2 | pg_sys::F_BIT_AND_INT4 | pg_sys::F_BIT_AND_INT8 => {
            Kind::Bits(AggregateFunction::BitAnd)
        }
        pg_sys::F_BIT_OR_INT2 | pg_sys::F_BIT_OR_INT4 | pg_sys::F_BIT_OR_INT8 => {
            Kind::Bits(AggregateFunction::BitOr)
        }
        pg_sys::F_BIT_XOR_INT2 | pg_sys::F_BIT_XOR_INT4 | pg_sys::F_BIT_XOR_INT8 => {
            Kind::Bits(AggregateFunction::BitXor)
        }
        pg_sys::F_SUM_INTERVAL => Kind::OfIntervals(AggregateFunction::IntervalSum),
        pg_sys::F_MIN_INTERVAL => Kind::OfIntervals(AggregateFunction::IntervalMin),
        pg_sys::F_MAX_INTERVAL => Kind::OfIntervals(AggregateFunction::IntervalMax),
        pg_sys::F_AVG_INTERVAL => Kind::IntervalAverage,
        other => match Finish::of(other) {
            Some(finish) if finish.pairs => return None,
            Some(finish) => Kind::Moments(finish),
            None => Kind::Spread(Spread::of(other)?),
        },
    })
}

/// Whether the engine has a function over groups, but not over the frames of a window.
pub fn needs_groups(function: pg_sys::Oid) -> bool {
    let function = function.to_u32();
    let unframed = matches!(
        function,
        pg_sys::F_MIN_FLOAT4
            | pg_sys::F_MIN_FLOAT8
            | pg_sys::F_MIN_BPCHAR
            | pg_sys::F_MAX_FLOAT4
            | pg_sys::F_MAX_FLOAT8
            | pg_sys::F_MAX_BPCHAR
    );
    let kind = known(function);
    let grouped = matches!(
        kind,
        Some(Kind::Spread(_) | Kind::Bits(_) | Kind::OfIntervals(_) | Kind::IntervalAverage)
    );
    unframed || grouped
}

/// The sum that is a numeric, and the count.
fn sum_and_count(common: &Common, node: Node, arg: Expr) -> Lowered<(Output, Output)> {
    let ty = sum_type(&arg, pg_sys::NUMERICOID)?;
    let of = match arg.ty.lake {
        LakeType::Decimal { .. } => (
            pg_sys::F_SUM_NUMERIC,
            pg_sys::NUMERICOID,
            pg_sys::NUMERICOID,
        ),
        // The one that adds up integers to a numeric.
        _ => (pg_sys::F_SUM_INT8, pg_sys::INT8OID, pg_sys::NUMERICOID),
    };
    let sum = common.output(
        AggregateFunction::Sum,
        Some(arg.clone()),
        ty,
        renamed(node, of),
    );
    let argument = pg_sys::Oid::from(arg.ty.oid);
    let of = (pg_sys::F_COUNT_ANY, argument, pg_sys::INT8OID);
    Ok((sum, common.count(Some(arg), renamed(node, of))))
}

/// The engine's type of a sum whose type in Postgres is `result`.
fn sum_type(arg: &Expr, result: pg_sys::Oid) -> Lowered<SqlType> {
    match result {
        pg_sys::INT8OID => Ok(Number::Int8.ty()),
        pg_sys::FLOAT4OID => Ok(Number::Float4.ty()),
        pg_sys::FLOAT8OID => Ok(Number::Float8.ty()),
        pg_sys::NUMERICOID if arg.ty.lake.is_integer() => Ok(decimal(0)),
        pg_sys::NUMERICOID => Ok(decimal(scale(arg)?)),
        _ => Err("a sum of this type is not lowered".to_owned()),
    }
}

/// The same call of another function, of which the argument's and the result's type are given, for EXPLAIN.
pub fn renamed(
    aggref: Node,
    (function, argument, result): (u32, pg_sys::Oid, pg_sys::Oid),
) -> Node {
    let call = node::copy(aggref).cast::<pg_sys::Aggref>();
    // SAFETY: a fresh copy of an Aggref.
    unsafe {
        (*call).aggfnoid = pg_sys::Oid::from(function);
        (*call).aggtype = result;
        (*call).aggargtypes = pg_sys::lappend_oid(std::ptr::null_mut(), argument);
    }
    call.cast()
}

/// Whether only distinct values are aggregated, and that the engine knows which are.
fn check_distinct(exprs: &mut Exprs<'_>, aggref: &pg_sys::Aggref) -> Lowered<bool> {
    let clauses = node::nodes(aggref.aggdistinct);
    let Some(clause) = clauses.first().copied() else {
        return Ok(false);
    };
    let equality = get::<pg_sys::SortGroupClause>(clause)
        .map(|clause| operator_function(pg_sys::InvalidOid, clause.eqop));
    let args = values(aggref);
    let arg = match args.as_slice() {
        [arg] => Some(*arg),
        // With a delimiter that is always the same.
        [arg, delimiter] if ordered::is_ordered(aggref.aggfnoid.to_u32()) => {
            get::<pg_sys::Const>(*delimiter).map(|_| *arg)
        }
        _ => None,
    };
    match arg {
        Some(arg) => {
            let arg = exprs.expression(arg)?;
            // Which of several equal ones it is makes no difference when they are counted.
            if is_printed(&arg.ty) && aggref.aggfnoid.to_u32() != pg_sys::F_COUNT_ANY {
                return Err(
                    "an aggregate over distinct values of this type is not lowered".to_owned(),
                );
            }
            group_key(arg, equality, aggref.inputcollid)?;
            Ok(true)
        }
        None => Err("an aggregate over distinct rows of values is not lowered".to_owned()),
    }
}

/// The arguments of a call, without what is there for its `ORDER BY` only.
pub fn values(aggref: &pg_sys::Aggref) -> Vec<Node> {
    nodes(aggref.args)
        .into_iter()
        .filter_map(get::<pg_sys::TargetEntry>)
        .filter(|entry| !entry.resjunk)
        .map(|entry| entry.expr.cast())
        .collect()
}
