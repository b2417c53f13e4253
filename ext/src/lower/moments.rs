//! Averages, variances, covariances and regression of floats.
//!
//! The engine gives the state that Postgres would have, an array of floats, of a group or of the frame of a row; Postgres' own final
//! functions finish it.

use super::aggregates::Output;
use super::calls::call_of;
use super::finals::function;
use super::functions::Number;
use super::node::{self, Node, get};
use super::table::sql_type;
use super::tree::has_datum;
use super::{Lowered, refused};
use pg_lake_plan::function::Function;
use pg_lake_plan::ir::{AggregateFunction, Expr};
use pg_lake_plan::types::{LakeType, SqlType};
use pgrx::pg_sys;

/// Postgres' function of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    function: u32,
    /// Whether the aggregate has two arguments.
    pub pairs: bool,
}

impl Finish {
    #[rustfmt::skip]
    pub fn of(aggregate: u32) -> Option<Finish> {
        let (function, pairs) = match aggregate {
            pg_sys::F_AVG_FLOAT4 | pg_sys::F_AVG_FLOAT8 => (pg_sys::F_FLOAT8_AVG, false),
            pg_sys::F_VAR_POP_FLOAT4 | pg_sys::F_VAR_POP_FLOAT8 => (pg_sys::F_FLOAT8_VAR_POP, false),
            pg_sys::F_VAR_SAMP_FLOAT4 | pg_sys::F_VAR_SAMP_FLOAT8
            | pg_sys::F_VARIANCE_FLOAT4 | pg_sys::F_VARIANCE_FLOAT8 => (pg_sys::F_FLOAT8_VAR_SAMP, false),
            pg_sys::F_STDDEV_POP_FLOAT4 | pg_sys::F_STDDEV_POP_FLOAT8 => (pg_sys::F_FLOAT8_STDDEV_POP, false),
            pg_sys::F_STDDEV_SAMP_FLOAT4 | pg_sys::F_STDDEV_SAMP_FLOAT8
            | pg_sys::F_STDDEV_FLOAT4 | pg_sys::F_STDDEV_FLOAT8 => (pg_sys::F_FLOAT8_STDDEV_SAMP, false),
            pg_sys::F_CORR => (pg_sys::F_FLOAT8_CORR, true),
            pg_sys::F_COVAR_POP => (pg_sys::F_FLOAT8_COVAR_POP, true),
            pg_sys::F_COVAR_SAMP => (pg_sys::F_FLOAT8_COVAR_SAMP, true),
            pg_sys::F_REGR_AVGX => (pg_sys::F_FLOAT8_REGR_AVGX, true),
            pg_sys::F_REGR_AVGY => (pg_sys::F_FLOAT8_REGR_AVGY, true),
            pg_sys::F_REGR_INTERCEPT => (pg_sys::F_FLOAT8_REGR_INTERCEPT, true),
            pg_sys::F_REGR_R2 => (pg_sys::F_FLOAT8_REGR_R2, true),
            pg_sys::F_REGR_SLOPE => (pg_sys::F_FLOAT8_REGR_SLOPE, true),
            pg_sys::F_REGR_SXX => (pg_sys::F_FLOAT8_REGR_SXX, true),
            pg_sys::F_REGR_SXY => (pg_sys::F_FLOAT8_REGR_SXY, true),
            pg_sys::F_REGR_SYY => (pg_sys::F_FLOAT8_REGR_SYY, true),
            _ => return None,
        };
        Some(Finish { function, pairs })
    }

    /// The engine's function of the state.
    pub fn moments(self) -> AggregateFunction {
        match self.pairs {
            true => AggregateFunction::PairMoments,
            false => AggregateFunction::Moments,
        }
    }

    /// Null where there is no state, since all of these functions are strict.
    pub fn node(self, state: Node) -> Node {
        function(
            self.function,
            pg_sys::FLOAT8OID,
            &[state],
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        )
    }
}

/// Whether a sum or a state of floats depends on the order in which they are taken.
pub fn adds_floats(aggregate: u32) -> bool {
    let sum = matches!(aggregate, pg_sys::F_SUM_FLOAT4 | pg_sys::F_SUM_FLOAT8);
    sum || Finish::of(aggregate).is_some()
}

/// Both arguments as one; null where one of them is.
pub fn pair(y: Expr, x: Expr) -> Expr {
    let ty = sql_type(LakeType::Bytes, pg_sys::BYTEAOID);
    call_of(Function::FloatPair, vec![y, x], ty)
}

/// The type of a state.
pub fn state_type() -> SqlType {
    let list = LakeType::List {
        element_id: 1,
        element: Box::new(Number::Float8.ty().lake),
    };
    sql_type(list, pg_sys::FLOAT8ARRAYOID)
}

/// The call as one that gives its state, as in a plan with partial aggregates.
pub fn partial(aggref: Node) -> Lowered<Node> {
    get::<pg_sys::Aggref>(aggref).ok_or("a malformed aggregate")?;
    let call = node::copy(aggref).cast::<pg_sys::Aggref>();
    // SAFETY: a fresh copy of an Aggref.
    unsafe {
        (*call).aggsplit = pg_sys::AggSplit::AGGSPLIT_INITIAL_SERIAL;
        (*call).aggtype = pg_sys::FLOAT8ARRAYOID;
    }
    Ok(call.cast())
}

/// Checks that a state can come back from the engine.
pub fn checked(output: Output) -> Lowered<Output> {
    match has_datum(&output.aggregate.ty, output.aggref) {
        true => Ok(output),
        false => refused("states of floats are not lowered"),
    }
}
