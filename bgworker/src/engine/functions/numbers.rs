//! Functions of numbers (`int.c`, `int8.c`, `float.c`, `numeric.c`).

use super::argument;
use super::rows::{Column, Rows, f64s, i32s, i64s, i128s};
use crate::arrow_types::arrow_type;
use crate::engine::arith::TOO_LARGE;
use crate::engine::error::{internal, not_exact, out_of_range};
use crate::engine::expr::Val;
use crate::engine::values::{Native, from_i32, from_i64, from_i128, native};
use arrow::array::{Array, ArrayRef, Float32Array, Float64Array};
use arrow::datatypes::DataType;
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::types::LakeType;
use std::sync::Arc;

const OTHER_TYPE: &str = "a function of another type of numbers";

/// An argument of decimals, and their scale.
pub(super) fn decimals(arg: &Val) -> Result<(Column<'_, i128>, i32), WireError> {
    match arg.array().data_type() {
        DataType::Decimal128(_, scale) => Ok((i128s(arg)?, i32::from(*scale))),
        _ => Err(internal(OTHER_TYPE)),
    }
}

/// 10 to the power of `digits`; `None` for more than any value has.
pub(super) fn unit(digits: i32) -> Option<i128> {
    10i128.checked_pow(u32::try_from(digits).ok()?)
}

/// `value` divided by `unit`, half away from zero (`round_var`). There is no unit beyond 38 digits, where all
/// digits are lost.
pub(super) fn rounded(value: i128, unit: Option<i128>) -> i128 {
    let Some(unit) = unit else {
        return 0;
    };
    let (whole, rest) = (value / unit, (value % unit).abs());
    if rest >= unit - rest {
        whole + value.signum()
    } else {
        whole
    }
}

fn float8(rows: &Rows, args: &[Val], f: impl Fn(f64) -> f64) -> Result<ArrayRef, WireError> {
    let arg = f64s(argument(args, 0)?)?;
    let values = rows.map(|row| f(arg.at(row)));
    Ok(Arc::new(Float64Array::new(values.into(), rows.nulls())))
}

/// Decimals that `f` makes of an argument and its unit.
fn whole(
    rows: &Rows,
    ty: &LakeType,
    args: &[Val],
    f: impl Fn(i128, i128) -> i128,
) -> Result<ArrayRef, WireError> {
    let (arg, scale) = decimals(argument(args, 0)?)?;
    let unit = unit(scale).ok_or_else(|| internal("a scale outside its range"))?;
    let values = rows.map(|row| f(arg.at(row), unit));
    from_i128(values, rows.nulls(), &arrow_type(ty))
}

pub(super) fn abs(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let arg = argument(args, 0)?;
    let (data_type, nulls) = (arrow_type(ty), rows.nulls());
    Ok(match native(arg.array()) {
        Some(Native::I32(_)) => {
            let (arg, small) = (i32s(arg)?, *ty == LakeType::Int2);
            let (smallest, message) = if small {
                (i32::from(i16::MIN), "smallint out of range")
            } else {
                (i32::MIN, "integer out of range")
            };
            let positive = |row| match arg.at(row) {
                value if value == smallest => Err(()),
                value => Ok(value.abs()),
            };
            let values = rows.try_map(positive, |()| out_of_range(message))?;
            from_i32(values, nulls, &data_type)
        }
        Some(Native::I64(_)) => {
            let arg = i64s(arg)?;
            let positive = |row| arg.at(row).checked_abs().ok_or(());
            let values = rows.try_map(positive, |()| out_of_range("bigint out of range"))?;
            from_i64(values, nulls, &data_type)
        }
        Some(Native::I128(_)) => {
            let arg = i128s(arg)?;
            let positive = |row| arg.at(row).checked_abs().ok_or(());
            let values = rows.try_map(positive, |()| not_exact(TOO_LARGE))?;
            from_i128(values, nulls, &data_type)?
        }
        Some(Native::F32(values)) => {
            let values: Vec<f32> = values.iter().map(|value| value.abs()).collect();
            Arc::new(Float32Array::new(values.into(), nulls))
        }
        Some(Native::F64(_)) => float8(rows, args, f64::abs)?,
        None => return Err(internal(OTHER_TYPE)),
    })
}

/// `dsign`, `numeric_sign`
pub(super) fn sign(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    if ty.is_decimal() {
        return whole(rows, ty, args, |value, _| value.signum());
    }
    float8(rows, args, |value| {
        if value > 0.0 {
            1.0
        } else if value < 0.0 {
            -1.0
        } else {
            0.0
        }
    })
}

pub(super) fn ceil(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    if ty.is_float() {
        return float8(rows, args, f64::ceil);
    }
    whole(rows, ty, args, |value, unit| {
        value / unit + i128::from(value % unit > 0)
    })
}

pub(super) fn floor(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    if ty.is_float() {
        return float8(rows, args, f64::floor);
    }
    whole(rows, ty, args, |value, unit| {
        value / unit - i128::from(value % unit < 0)
    })
}

/// `dround`, `numeric_round`
pub(super) fn round(
    rows: &Rows,
    ty: &LakeType,
    digits: i16,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    if ty.is_float() {
        return float8(rows, args, f64::round_ties_even);
    }
    rescale(rows, ty, digits, args, rounded)
}

/// `dtrunc`, `numeric_trunc`
pub(super) fn truncate(
    rows: &Rows,
    ty: &LakeType,
    digits: i16,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    if ty.is_float() {
        return float8(rows, args, f64::trunc);
    }
    rescale(rows, ty, digits, args, |value, unit| {
        unit.map_or(0, |unit| value / unit)
    })
}

/// Cuts digits off, by `cut`, or adds zeros.
fn rescale(
    rows: &Rows,
    ty: &LakeType,
    digits: i16,
    args: &[Val],
    cut: impl Fn(i128, Option<i128>) -> i128,
) -> Result<ArrayRef, WireError> {
    let (arg, scale) = decimals(argument(args, 0)?)?;
    let digits = i32::from(digits);
    // What is left are tens, hundreds … where digits before the point are cut off.
    let (lost, added) = (
        (scale - digits).max(0),
        (digits - scale).max(-digits).max(0),
    );
    let (lost, added) = (unit(lost), unit(added));
    let rescaled = |row| match (cut(arg.at(row), lost), added) {
        (0, _) => Ok(0),
        (value, Some(added)) => value.checked_mul(added).ok_or(()),
        (_, None) => Err(()),
    };
    let values = rows.try_map(rescaled, |()| not_exact(TOO_LARGE))?;
    from_i128(values, rows.nulls(), &arrow_type(ty))
}

/// `dsqrt`
pub(super) fn sqrt(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let arg = f64s(argument(args, 0)?)?;
    let root = |row| match arg.at(row) {
        value if value < 0.0 => Err(()),
        value => Ok(value.sqrt()),
    };
    let values = rows.try_map(root, |()| {
        let message = "cannot take square root of a negative number";
        WireError::new(ErrorCode::NegativeRoot, message)
    })?;
    Ok(Arc::new(Float64Array::new(values.into(), rows.nulls())))
}

/// Integers that `f` makes of two; it works the same for all widths.
pub(super) fn bitwise(
    rows: &Rows,
    ty: &LakeType,
    args: &[Val],
    f: impl Fn(i64, i64) -> i64,
) -> Result<ArrayRef, WireError> {
    let (left, right) = (argument(args, 0)?, argument(args, 1)?);
    let (data_type, nulls) = (arrow_type(ty), rows.nulls());
    if *ty == LakeType::Int8 {
        let (left, right) = (i64s(left)?, i64s(right)?);
        let values = rows.map(|row| f(left.at(row), right.at(row)));
        return Ok(from_i64(values, nulls, &data_type));
    }
    let (left, right) = (i32s(left)?, i32s(right)?);
    let values = rows.map(|row| f(left.at(row).into(), right.at(row).into()) as i32);
    Ok(from_i32(values, nulls, &data_type))
}

/// `~ arg`
pub(super) fn complement(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let arg = argument(args, 0)?;
    let (data_type, nulls) = (arrow_type(ty), rows.nulls());
    if *ty == LakeType::Int8 {
        let arg = i64s(arg)?;
        return Ok(from_i64(rows.map(|row| !arg.at(row)), nulls, &data_type));
    }
    let arg = i32s(arg)?;
    Ok(from_i32(rows.map(|row| !arg.at(row)), nulls, &data_type))
}

/// A `smallint` is shifted as an `int` and cut off.
pub(super) fn shift(
    rows: &Rows,
    ty: &LakeType,
    args: &[Val],
    left: bool,
) -> Result<ArrayRef, WireError> {
    let (arg, count) = (argument(args, 0)?, i32s(argument(args, 1)?)?);
    let (data_type, nulls) = (arrow_type(ty), rows.nulls());
    let by = |row, width: u32| match u32::try_from(count.at(row)) {
        Ok(count) if count < width => Ok(count),
        _ => Err(()),
    };
    let undefined = |()| not_exact("a shift by a negative number of bits, or by all");
    if *ty == LakeType::Int8 {
        let arg = i64s(arg)?;
        let shifted = |row| -> Result<i64, ()> {
            let (value, by) = (arg.at(row), by(row, 64)?);
            Ok(if left { value << by } else { value >> by })
        };
        return Ok(from_i64(
            rows.try_map(shifted, undefined)?,
            nulls,
            &data_type,
        ));
    }
    let (arg, small) = (i32s(arg)?, *ty == LakeType::Int2);
    let shifted = |row| -> Result<i32, ()> {
        let (value, by) = (arg.at(row), by(row, 32)?);
        let value = if left { value << by } else { value >> by };
        Ok(if small {
            i32::from(value as i16)
        } else {
            value
        })
    };
    Ok(from_i32(
        rows.try_map(shifted, undefined)?,
        nulls,
        &data_type,
    ))
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{Decimal128Type, Float64Type, Int32Type, Int64Type};
    use pg_lake_plan::function::Function;

    fn decimal_values(function: Function, scale: i8, arg: Val) -> Vec<i128> {
        let result = result(function, &decimal(scale), &[arg]);
        result.as_primitive::<Decimal128Type>().values().to_vec()
    }

    fn floats(function: Function, values: &[f64]) -> Vec<f64> {
        let args = [column(Float64Array::from(values.to_vec()))];
        let result = result(function, &LakeType::Float8, &args);
        result.as_primitive::<Float64Type>().values().to_vec()
    }

    #[test]
    fn absolute_values() {
        let args = [ints(&[Some(-5), None, Some(i32::MAX)])];
        let values = result(Function::Abs, &LakeType::Int4, &args);
        let values: Vec<Option<i32>> = values.as_primitive::<Int32Type>().iter().collect();
        assert_eq!(values, [Some(5), None, Some(i32::MAX)]);
        for (ty, value, message) in [
            (LakeType::Int4, i32::MIN, "integer out of range"),
            (LakeType::Int2, -32_768, "smallint out of range"),
        ] {
            let error = error(Function::Abs, &ty, &[ints(&[Some(value)])]);
            assert_eq!(error.code, ErrorCode::OutOfRange);
            assert_eq!(error.message, message);
        }
        let args = [column(Int64Array::from(vec![i64::MIN]))];
        let error = error(Function::Abs, &LakeType::Int8, &args);
        assert_eq!(error.message, "bigint out of range");
        assert_eq!(
            decimal_values(Function::Abs, 2, decimal_array(&[-5, 7], 2)),
            [5, 7]
        );
        assert_eq!(floats(Function::Abs, &[-0.0, -1.5]), [0.0, 1.5]);
    }

    // numeric.out: ceil, floor and round of values from -5.5 to 5.499999
    #[test]
    fn decimals_to_integers() {
        let values = || decimal_array(&[-5_500_000, -5_499_999, -500_000, 0, 499_999, 500_000], 6);
        let of = |function| decimal_values(function, 0, values());
        assert_eq!(of(Function::Ceil), [-5, -5, 0, 0, 1, 1]);
        assert_eq!(of(Function::Floor), [-6, -6, -1, 0, 0, 0]);
        assert_eq!(of(Function::Round(0)), [-6, -5, -1, 0, 0, 1]);
        assert_eq!(of(Function::Truncate(0)), [-5, -5, 0, 0, 0, 0]);
        assert_eq!(of(Function::Sign), [-1, -1, -1, 0, 1, 1]);
        assert_eq!(
            decimal_values(Function::Ceil, 0, decimal_array(&[i128::MAX], 0)),
            [i128::MAX]
        );
    }

    #[test]
    fn decimals_to_other_scales() {
        let value = || decimal_array(&[12_345_678, -12_345_678], 4);
        let round = |digits: i16| {
            let scale = digits.max(0) as i8;
            decimal_values(Function::Round(digits), scale, value())
        };
        assert_eq!(round(2), [123_457, -123_457]);
        assert_eq!(round(6), [1_234_567_800, -1_234_567_800]);
        assert_eq!(round(-2), [1_200, -1_200]);
        assert_eq!(round(-4), [0, 0]);
        assert_eq!(round(-39), [0, 0]);
        let truncate =
            |digits: i16, scale| decimal_values(Function::Truncate(digits), scale, value());
        assert_eq!(truncate(2, 2), [123_456, -123_456]);
        assert_eq!(truncate(-3, 0), [1_000, -1_000]);
        assert_eq!(truncate(5, 5), [123_456_780, -123_456_780]);
        // 10 to the power of 38, of which nothing is left but a carry
        let nines = 99_999_999_999_999_999_999_999_999_999_999_999_999;
        let carried = decimal_values(Function::Round(-38), 0, decimal_array(&[nines], 0));
        assert_eq!(carried, [nines + 1]);
        let args = [decimal_array(&[nines], 0)];
        let error = error(Function::Round(1), &decimal(1), &args);
        assert_eq!(error.code, ErrorCode::NotExact);
    }

    #[test]
    fn floats_to_integers() {
        let values = [-2.5, -0.4, 0.5, 1.5, 2.5, f64::INFINITY];
        let rounded = floats(Function::Round(0), &values);
        assert_eq!(rounded, [-2.0, 0.0, 0.0, 2.0, 2.0, f64::INFINITY]);
        assert!(rounded[1].is_sign_negative());
        assert_eq!(floats(Function::Ceil, &values)[..3], [-2.0, 0.0, 1.0]);
        assert_eq!(floats(Function::Floor, &values)[..3], [-3.0, -1.0, 0.0]);
        assert_eq!(
            floats(Function::Truncate(0), &values)[..4],
            [-2.0, 0.0, 0.0, 1.0]
        );
        assert_eq!(
            floats(Function::Sign, &[-3.0, 0.0, 0.1, f64::NAN]),
            [-1.0, 0.0, 1.0, 0.0]
        );
    }

    #[test]
    fn square_roots() {
        assert_eq!(floats(Function::Sqrt, &[4.0, 0.0]), [2.0, 0.0]);
        assert!(floats(Function::Sqrt, &[f64::NAN])[0].is_nan());
        let args = [column(Float64Array::from(vec![None, Some(-1.0)]))];
        let error = error(Function::Sqrt, &LakeType::Float8, &args);
        assert_eq!(error.code, ErrorCode::NegativeRoot);
    }

    #[test]
    fn bits() {
        let of = |function, a, b| {
            let result = result(function, &LakeType::Int4, &[ints(&[Some(a)]), int(b)]);
            result.as_primitive::<Int32Type>().value(0)
        };
        assert_eq!(of(Function::BitAnd, 91, 15), 11);
        assert_eq!(of(Function::BitOr, 32, 3), 35);
        assert_eq!(of(Function::BitXor, 17, -5), -22);
        assert_eq!(of(Function::ShiftLeft, 1, 4), 16);
        assert_eq!(of(Function::ShiftLeft, 1, 31), i32::MIN);
        assert_eq!(of(Function::ShiftRight, -8, 2), -2);
        let flipped = result(Function::BitNot, &LakeType::Int4, &[int(1)]);
        assert_eq!(flipped.as_primitive::<Int32Type>().value(0), -2);
        let args = [ints(&[Some(20_000)]), int(1)];
        let small = result(Function::ShiftLeft, &LakeType::Int2, &args);
        assert_eq!(small.as_primitive::<Int32Type>().value(0), -25_536);
        let args = [column(Int64Array::from(vec![1])), int(63)];
        let wide = result(Function::ShiftLeft, &LakeType::Int8, &args);
        assert_eq!(wide.as_primitive::<Int64Type>().value(0), i64::MIN);
        for count in [-1, 32] {
            let args = [ints(&[Some(1)]), int(count)];
            let error = error(Function::ShiftLeft, &LakeType::Int4, &args);
            assert_eq!(error.code, ErrorCode::NotExact);
        }
    }
}
