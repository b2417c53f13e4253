//! `+ − × ÷ %` and negation, with Postgres' errors (`int.c`, `int8.c`, `float.c`).
//!
//! Loops run over all rows and note whether anything went wrong; only then the rows are looked at
//! one by one, as a wrong value under a null is none.

use super::error::{division_by_zero, internal, not_exact, out_of_range};
use super::expr::Val;
use super::values::{Native, from_i32, from_i64, from_i128, native, power_of_ten};
use crate::arrow_types::arrow_type;
use arrow::array::{Array, ArrayRef, Float32Array, Float64Array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use pg_lake_plan::ir::ArithmeticOp;
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use std::borrow::Cow;
use std::sync::Arc;

/// One side of an operation: a value for each row, or one for all.
#[derive(Clone, Copy)]
struct Side<'a, T> {
    values: &'a [T],
    scalar: bool,
}

impl<T: Copy> Side<'_, T> {
    fn at(&self, row: usize) -> Option<T> {
        self.values.get(if self.scalar { 0 } else { row }).copied()
    }
}

/// Applies `f` to all rows; two scalars give one value.
fn map2<T: Copy, U>(l: Side<'_, T>, r: Side<'_, T>, mut f: impl FnMut(T, T) -> U) -> Vec<U> {
    match (l.scalar, r.scalar, l.values.first(), r.values.first()) {
        (false, true, _, Some(&b)) => l.values.iter().map(|&a| f(a, b)).collect(),
        (true, false, Some(&a), _) => r.values.iter().map(|&b| f(a, b)).collect(),
        _ => l
            .values
            .iter()
            .zip(r.values)
            .map(|(&a, &b)| f(a, b))
            .collect(),
    }
}

/// Applies `f`, whose second result says that the first is wrong, and raises `error` if that
/// happened for a row that isn't null.
fn checked<T: Copy>(
    l: Side<'_, T>,
    r: Side<'_, T>,
    nulls: Option<&NullBuffer>,
    f: impl Fn(T, T) -> (T, bool),
    error: impl Fn(T, T) -> WireError,
) -> Result<Vec<T>, WireError> {
    let mut wrong = false;
    let values = map2(l, r, |a, b| {
        let (value, bad) = f(a, b);
        wrong |= bad;
        value
    });
    if wrong {
        for row in (0..values.len()).filter(|&row| nulls.is_none_or(|n| n.is_valid(row))) {
            if let (Some(a), Some(b)) = (l.at(row), r.at(row))
                && f(a, b).1
            {
                return Err(error(a, b));
            }
        }
    }
    Ok(values)
}

/// Integers of one width; `$fits` is the type's own range.
macro_rules! integers {
    ($t:ty, $op:expr, $l:expr, $r:expr, $nulls:expr, $fits:expr, $message:expr) => {{
        let (l, r, nulls, fits) = ($l, $r, $nulls, $fits);
        let range = |_: $t, _: $t| out_of_range($message);
        let divide = |_: $t, b: $t| {
            if b == 0 {
                division_by_zero()
            } else {
                out_of_range($message)
            }
        };
        match $op {
            ArithmeticOp::Add => checked(
                l,
                r,
                nulls,
                |a, b| {
                    let (v, bad) = a.overflowing_add(b);
                    (v, bad | !fits(v))
                },
                range,
            ),
            ArithmeticOp::Subtract => checked(
                l,
                r,
                nulls,
                |a, b| {
                    let (v, bad) = a.overflowing_sub(b);
                    (v, bad | !fits(v))
                },
                range,
            ),
            ArithmeticOp::Multiply => checked(
                l,
                r,
                nulls,
                |a, b| {
                    let (v, bad) = a.overflowing_mul(b);
                    (v, bad | !fits(v))
                },
                range,
            ),
            ArithmeticOp::Divide => checked(
                l,
                r,
                nulls,
                |a, b| {
                    if b == 0 {
                        return (0, true);
                    }
                    let (v, bad) = a.overflowing_div(b);
                    (v, bad | !fits(v))
                },
                divide,
            ),
            ArithmeticOp::Modulo => checked(
                l,
                r,
                nulls,
                // The remainder of the smallest integer by −1 is 0 and no error.
                |a, b| {
                    if b == 0 {
                        (0, true)
                    } else {
                        (a.wrapping_rem(b), false)
                    }
                },
                divide,
            ),
        }
    }};
}

const OVERFLOW: &str = "value out of range: overflow";
const UNDERFLOW: &str = "value out of range: underflow";

/// Floats of one width.
macro_rules! floats {
    ($op:expr, $l:expr, $r:expr, $nulls:expr) => {{
        let (l, r, nulls) = ($l, $r, $nulls);
        match $op {
            ArithmeticOp::Add => checked(
                l,
                r,
                nulls,
                |a, b| {
                    let v = a + b;
                    (v, v.is_infinite() & !a.is_infinite() & !b.is_infinite())
                },
                |_, _| out_of_range(OVERFLOW),
            ),
            ArithmeticOp::Subtract => checked(
                l,
                r,
                nulls,
                |a, b| {
                    let v = a - b;
                    (v, v.is_infinite() & !a.is_infinite() & !b.is_infinite())
                },
                |_, _| out_of_range(OVERFLOW),
            ),
            ArithmeticOp::Multiply => checked(
                l,
                r,
                nulls,
                |a, b| {
                    let v = a * b;
                    let over = v.is_infinite() & !a.is_infinite() & !b.is_infinite();
                    (v, over | ((v == 0.0) & (a != 0.0) & (b != 0.0)))
                },
                |a, b| out_of_range(if a * b == 0.0 { UNDERFLOW } else { OVERFLOW }),
            ),
            ArithmeticOp::Divide => checked(
                l,
                r,
                nulls,
                |a, b| {
                    let v = a / b;
                    let zero = (b == 0.0) & !a.is_nan();
                    let over = v.is_infinite() & !a.is_infinite();
                    let under = (v == 0.0) & (a != 0.0) & !b.is_infinite();
                    (v, zero | over | under)
                },
                |a, b| {
                    if b == 0.0 {
                        division_by_zero()
                    } else {
                        out_of_range(if a / b == 0.0 { UNDERFLOW } else { OVERFLOW })
                    }
                },
            ),
            ArithmeticOp::Modulo => Err(internal("modulo of floats")),
        }
    }};
}

/// Both sides have the lake type `ty`, or all three are decimals.
pub(super) fn arithmetic(
    op: ArithmeticOp,
    ty: &LakeType,
    left: &Val,
    right: &Val,
) -> Result<Val, WireError> {
    let scalars = left.is_scalar() && right.is_scalar();
    let data_type = arrow_type(ty);
    if left.is_null_scalar() || right.is_null_scalar() {
        return Ok(Val::Scalar(new_null_array(&data_type, 1)));
    }
    let (l, r) = (left.array(), right.array());
    let of = |val: &Val| {
        if val.is_scalar() {
            None
        } else {
            val.array().nulls().cloned()
        }
    };
    let nulls = NullBuffer::union(of(left).as_ref(), of(right).as_ref());
    macro_rules! sides {
        ($a:expr, $b:expr) => {
            (
                Side {
                    values: $a,
                    scalar: left.is_scalar(),
                },
                Side {
                    values: $b,
                    scalar: right.is_scalar(),
                },
            )
        };
    }
    let present = nulls.as_ref();
    let array: ArrayRef = match (native(l), native(r)) {
        (Some(Native::I32(a)), Some(Native::I32(b))) => {
            let (a, b) = sides!(a, b);
            let values = if *ty == LakeType::Int2 {
                let fits = |v: i32| i32::from(v as i16) == v;
                integers!(i32, op, a, b, present, fits, "smallint out of range")?
            } else {
                integers!(
                    i32,
                    op,
                    a,
                    b,
                    present,
                    |_: i32| true,
                    "integer out of range"
                )?
            };
            from_i32(values, nulls, &data_type)
        }
        (Some(Native::I64(a)), Some(Native::I64(b))) => {
            let (a, b) = sides!(a, b);
            let values = integers!(i64, op, a, b, present, |_: i64| true, "bigint out of range")?;
            from_i64(values, nulls, &data_type)
        }
        (Some(Native::F32(a)), Some(Native::F32(b))) => {
            let (a, b) = sides!(a, b);
            Arc::new(Float32Array::new(floats!(op, a, b, present)?.into(), nulls))
        }
        (Some(Native::F64(a)), Some(Native::F64(b))) => {
            let (a, b) = sides!(a, b);
            Arc::new(Float64Array::new(floats!(op, a, b, present)?.into(), nulls))
        }
        (Some(Native::I128(a)), Some(Native::I128(b))) => {
            let (a, b) = sides!(a, b);
            let scales = (scale(l)?, scale(r)?, scale_of(&data_type)?);
            from_i128(decimals(op, a, b, present, scales)?, nulls, &data_type)?
        }
        _ => return Err(internal("arithmetic on other types")),
    };
    Ok(if scalars {
        Val::Scalar(array)
    } else {
        Val::Array(array)
    })
}

fn scale_of(data_type: &DataType) -> Result<i32, WireError> {
    match data_type {
        DataType::Decimal128(_, scale) => Ok(i32::from(*scale)),
        _ => Err(internal("not a decimal")),
    }
}

fn scale(array: &ArrayRef) -> Result<i32, WireError> {
    scale_of(array.data_type())
}

pub(super) const TOO_LARGE: &str = "a numeric value exceeds the engine's 128 bits";

/// `+ − × %` of decimals; `scales` are those of the left side, the right side and the result.
fn decimals(
    op: ArithmeticOp,
    l: Side<'_, i128>,
    r: Side<'_, i128>,
    nulls: Option<&NullBuffer>,
    scales: (i32, i32, i32),
) -> Result<Vec<i128>, WireError> {
    let (left, right, result) = scales;
    let error = |_: i128, _: i128| not_exact(TOO_LARGE);
    match op {
        ArithmeticOp::Add | ArithmeticOp::Subtract | ArithmeticOp::Modulo => {
            let a = rescaled(l, result - left, nulls)?;
            let b = rescaled(r, result - right, nulls)?;
            let l = Side {
                values: &a,
                scalar: l.scalar,
            };
            let r = Side {
                values: &b,
                scalar: r.scalar,
            };
            match op {
                ArithmeticOp::Add => checked(l, r, nulls, i128::overflowing_add, error),
                ArithmeticOp::Subtract => checked(l, r, nulls, i128::overflowing_sub, error),
                _ => checked(l, r, nulls, remainder, |_, _| division_by_zero()),
            }
        }
        ArithmeticOp::Multiply => {
            let a = rescaled(l, result - left - right, nulls)?;
            let l = Side {
                values: &a,
                scalar: l.scalar,
            };
            checked(l, r, nulls, multiply, error)
        }
        ArithmeticOp::Divide => Err(internal("division of decimals")),
    }
}

/// Of numbers of one scale; its sign is that of `a` (`mod_var`).
fn remainder(a: i128, b: i128) -> (i128, bool) {
    match b {
        0 => (0, true),
        b => (a.wrapping_rem(b), false),
    }
}

/// One machine multiplication where both factors have 64 bits.
#[inline]
fn multiply(a: i128, b: i128) -> (i128, bool) {
    let (x, y) = (a as i64, b as i64);
    if i128::from(x) == a && i128::from(y) == b {
        (i128::from(x) * i128::from(y), false)
    } else {
        a.overflowing_mul(b)
    }
}

fn rescaled<'a>(
    side: Side<'a, i128>,
    digits: i32,
    nulls: Option<&NullBuffer>,
) -> Result<Cow<'a, [i128]>, WireError> {
    if digits == 0 {
        return Ok(Cow::Borrowed(side.values));
    }
    let nulls = if side.scalar { None } else { nulls };
    scale_up(side.values, digits, nulls).map(Cow::Owned)
}

/// Multiplies unscaled decimals by 10 to the power of `digits`.
pub(super) fn scale_up(
    values: &[i128],
    digits: i32,
    nulls: Option<&NullBuffer>,
) -> Result<Vec<i128>, WireError> {
    let factor = [power_of_ten(digits)?];
    let l = Side {
        values,
        scalar: false,
    };
    let r = Side {
        values: &factor,
        scalar: true,
    };
    checked(l, r, nulls, multiply, |_, _| not_exact(TOO_LARGE))
}

/// `−arg`
pub(super) fn negate(ty: &LakeType, array: &ArrayRef) -> Result<ArrayRef, WireError> {
    let (data_type, nulls) = (arrow_type(ty), array.nulls().cloned());
    let present = nulls.as_ref();
    Ok(match native(array) {
        Some(Native::I32(v)) => {
            let zero = Side {
                values: &[0],
                scalar: true,
            };
            let v = Side {
                values: v,
                scalar: false,
            };
            let values = if *ty == LakeType::Int2 {
                let fits = |v: i32| i32::from(v as i16) == v;
                integers!(
                    i32,
                    ArithmeticOp::Subtract,
                    zero,
                    v,
                    present,
                    fits,
                    "smallint out of range"
                )?
            } else {
                let fits = |_: i32| true;
                integers!(
                    i32,
                    ArithmeticOp::Subtract,
                    zero,
                    v,
                    present,
                    fits,
                    "integer out of range"
                )?
            };
            from_i32(values, nulls, &data_type)
        }
        Some(Native::I64(v)) => {
            let zero = Side {
                values: &[0],
                scalar: true,
            };
            let v = Side {
                values: v,
                scalar: false,
            };
            let fits = |_: i64| true;
            let values = integers!(
                i64,
                ArithmeticOp::Subtract,
                zero,
                v,
                present,
                fits,
                "bigint out of range"
            )?;
            from_i64(values, nulls, &data_type)
        }
        Some(Native::I128(v)) => {
            let zero = Side {
                values: &[0],
                scalar: true,
            };
            let v = Side {
                values: v,
                scalar: false,
            };
            let error = |_: i128, _: i128| not_exact(TOO_LARGE);
            let values = checked(zero, v, present, i128::overflowing_sub, error)?;
            from_i128(values, nulls, &data_type)?
        }
        Some(Native::F32(v)) => {
            let values: Vec<f32> = v.iter().map(|v| -v).collect();
            Arc::new(Float32Array::new(values.into(), nulls))
        }
        Some(Native::F64(v)) => {
            let values: Vec<f64> = v.iter().map(|v| -v).collect();
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        None => return Err(internal("negation of another type")),
    })
}
