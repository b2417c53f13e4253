//! Variances and standard deviations of integers and numerics.
//!
//! The engine gives the count, the sum and the sum of the squares. The rest is done above it by Postgres' functions, in the
//! steps of `numeric_stddev_internal`, so that the result has the same digits.

use super::aggregates::renamed;
use super::finals::{
    case, condition, constant_int4, constant_int8, function, numeric, numeric_cast,
};
use super::node::{self, Node};
use pgrx::pg_sys;
use pgrx::pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;

/// What is computed from the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Of a sample, not of all.
    sample: bool,
    /// The standard deviation.
    root: bool,
}

impl Spread {
    #[rustfmt::skip]
    pub fn of(function: u32) -> Option<Spread> {
        let (sample, root) = match function {
            pg_sys::F_VAR_POP_INT2 | pg_sys::F_VAR_POP_INT4
            | pg_sys::F_VAR_POP_INT8 | pg_sys::F_VAR_POP_NUMERIC => (false, false),
            pg_sys::F_VAR_SAMP_INT2 | pg_sys::F_VAR_SAMP_INT4
            | pg_sys::F_VAR_SAMP_INT8 | pg_sys::F_VAR_SAMP_NUMERIC
            | pg_sys::F_VARIANCE_INT2 | pg_sys::F_VARIANCE_INT4
            | pg_sys::F_VARIANCE_INT8 | pg_sys::F_VARIANCE_NUMERIC => (true, false),
            pg_sys::F_STDDEV_POP_INT2 | pg_sys::F_STDDEV_POP_INT4
            | pg_sys::F_STDDEV_POP_INT8 | pg_sys::F_STDDEV_POP_NUMERIC => (false, true),
            pg_sys::F_STDDEV_SAMP_INT2 | pg_sys::F_STDDEV_SAMP_INT4
            | pg_sys::F_STDDEV_SAMP_INT8 | pg_sys::F_STDDEV_SAMP_NUMERIC
            | pg_sys::F_STDDEV_INT2 | pg_sys::F_STDDEV_INT4
            | pg_sys::F_STDDEV_INT8 | pg_sys::F_STDDEV_NUMERIC => (true, true),
            _ => return None,
        };
        Some(Spread { sample, root })
    }

    /// `scale` is that of what is added up. Without rows the sums are null, and so is the result.
    pub fn node(self, count: Node, sum: Node, squares: Node, scale: i8) -> Node {
        let zero = || numeric_cast(pg_sys::F_NUMERIC_INT8, constant_int8(0));
        let n = || numeric_cast(pg_sys::F_NUMERIC_INT8, node::copy(count));
        let numerator = numeric(
            pg_sys::F_NUMERIC_SUB,
            &[
                numeric(pg_sys::F_NUMERIC_MUL, &[n(), squares]),
                numeric(pg_sys::F_NUMERIC_MUL, &[node::copy(sum), sum]),
            ],
        );
        let fewer = match self.sample {
            true => {
                let args = [node::copy(count), constant_int8(1)];
                let fewer = function(
                    pg_sys::F_INT8MI,
                    pg_sys::INT8OID,
                    &args,
                    COERCE_EXPLICIT_CALL,
                );
                numeric_cast(pg_sys::F_NUMERIC_INT8, fewer)
            }
            false => n(),
        };
        let divisor = numeric(pg_sys::F_NUMERIC_MUL, &[n(), fewer]);
        let variance = numeric(pg_sys::F_NUMERIC_DIV, &[node::copy(numerator), divisor]);
        let result = match self.root {
            true => root(variance, scale),
            false => variance,
        };
        let least = constant_int8(i64::from(self.sample));
        case(&[
            (
                condition(pg_sys::F_NUMERIC_GT, &[numerator, zero()]),
                result,
            ),
            // Even where the numerator has digits after the point, Postgres' zero has none.
            (condition(pg_sys::F_INT8GT, &[count, least]), zero()),
        ])
    }
}

/// The square root of a variance with as many digits after the point as that has.
///
/// `sqrt(numeric)` may round to more digits; what is rounded again could be another number then. With enough digits it
/// can't. Let `r` be the digits of the variance `v`, at most 59 plus twice the scale: it has 16 digits that count, and
/// the divisor is below 2^126. A tie `h` of `r` digits after the point is no root of `v`, and the distance of `4 * h * h` and
/// `4 * v`, both multiples of `10 ^ (-2 * r)`, is at least that. So the root is at least `10 ^ (-2 * r) / (8 * h)` away from
/// `h`, which is below `10 ^ 38`: it rounds to no tie with 40 digits more than `2 * r`.
fn root(variance: Node, scale: i8) -> Node {
    let digits = 2 * (59 + 2 * i32::from(scale)) + 40;
    let wide = numeric(
        pg_sys::F_ROUND_NUMERIC_INT4,
        &[node::copy(variance), constant_int4(digits)],
    );
    let root = numeric(pg_sys::F_SQRT_NUMERIC, &[wide]);
    let shown = function(
        pg_sys::F_SCALE,
        pg_sys::INT4OID,
        &[variance],
        COERCE_EXPLICIT_CALL,
    );
    numeric(pg_sys::F_ROUND_NUMERIC_INT4, &[root, shown])
}

/// `sum(arg * arg)` in the place of a call, for its type and for EXPLAIN.
pub fn squares_call(spread: Node, arg: Node) -> Node {
    let conversion = match node::type_of(arg).0 {
        pg_sys::INT2OID => Some(pg_sys::F_NUMERIC_INT2),
        pg_sys::INT4OID => Some(pg_sys::F_NUMERIC_INT4),
        pg_sys::INT8OID => Some(pg_sys::F_NUMERIC_INT8),
        _ => None,
    };
    let value = || match conversion {
        Some(conversion) => numeric_cast(conversion, node::copy(arg)),
        None => node::copy(arg),
    };
    let square = numeric(pg_sys::F_NUMERIC_MUL, &[value(), value()]);
    let of = (
        pg_sys::F_SUM_NUMERIC,
        pg_sys::NUMERICOID,
        pg_sys::NUMERICOID,
    );
    let call = renamed(spread, of).cast::<pg_sys::Aggref>();
    // SAFETY: a fresh copy of an Aggref, which gets another argument. What it was ordered by is gone with the others.
    unsafe {
        let entry = pg_sys::makeTargetEntry(square.cast(), 1, std::ptr::null_mut(), false);
        (*call).args = node::list([entry.cast()]);
        (*call).aggorder = std::ptr::null_mut();
    }
    call.cast()
}
