//! Conversions that can round or fail.

use super::argument;
use super::calendar::DAY;
use super::numbers::{decimals, rounded, unit};
use super::rows::{Rows, f64s, i32s, i64s};
use crate::arrow_types::arrow_type;
use crate::engine::error::{internal, out_of_range};
use crate::engine::expr::Val;
use crate::engine::values::{Native, from_i32, from_i64, from_i128, native};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use std::fmt::Write;
use std::sync::Arc;

/// Whether [`convert`] knows the conversion.
pub(super) fn supported(from: &LakeType, to: &LakeType) -> bool {
    use LakeType::{Bool, Date, Decimal, Float4, Float8, Int2, Int4, Int8, Time, Timestamp};
    matches!(
        (from, to),
        (Int4 | Int8, Int2)
            | (Int8, Int4)
            | (Float4 | Float8 | Decimal { .. }, Int2 | Int4 | Int8)
            | (Float8, Float4)
            | (Decimal { .. }, Float4 | Float8 | Decimal { .. })
            | (Timestamp, Date | Time)
            | (Bool, Int4)
            | (Int4, Bool)
    )
}

pub(super) fn convert(rows: &Rows, to: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let arg = argument(args, 0)?;
    let (data_type, nulls) = (arrow_type(to), rows.nulls());
    match (arg.array().data_type(), to) {
        (DataType::Boolean, _) => {
            let arg = arg.array().as_boolean().values();
            let values = arg.iter().map(i32::from).collect();
            Ok(from_i32(values, nulls, &data_type))
        }
        (_, LakeType::Bool) => {
            let arg = i32s(arg)?;
            let values = BooleanBuffer::collect_bool(rows.count, |row| arg.at(row) != 0);
            Ok(Arc::new(BooleanArray::new(values, nulls)))
        }
        (DataType::Timestamp(..), LakeType::Time) => {
            let arg = i64s(arg)?;
            let values = rows.map(|row| arg.at(row).rem_euclid(DAY));
            Ok(from_i64(values, nulls, &data_type))
        }
        (DataType::Timestamp(..), _) => {
            let arg = i64s(arg)?;
            let values = rows.map(|row| arg.at(row).div_euclid(DAY) as i32);
            Ok(from_i32(values, nulls, &data_type))
        }
        (DataType::Decimal128(..), LakeType::Decimal { precision, scale }) => {
            with_typmod(rows, arg, (*precision).into(), (*scale).into(), &data_type)
        }
        (DataType::Decimal128(..), LakeType::Float8) => {
            let (arg, scale) = decimals(arg)?;
            let mut text = String::new();
            let values = rows.map(|row| float8(arg.at(row), scale, &mut text));
            Ok(Arc::new(Float64Array::new(values.into(), nulls)))
        }
        (DataType::Decimal128(..), LakeType::Float4) => {
            let (arg, scale) = decimals(arg)?;
            let mut text = String::new();
            let values = rows.map(|row| float4(arg.at(row), scale, &mut text));
            Ok(Arc::new(Float32Array::new(values.into(), nulls)))
        }
        (DataType::Float64, LakeType::Float4) => {
            let arg = f64s(arg)?;
            let values = rows.try_map(|row| narrowed(arg.at(row)), out_of_range)?;
            Ok(Arc::new(Float32Array::new(values.into(), nulls)))
        }
        _ => to_integer(rows, to, arg),
    }
}

/// `dtof`
fn narrowed(value: f64) -> Result<f32, &'static str> {
    let narrow = value as f32;
    if narrow.is_infinite() && !value.is_infinite() {
        Err("value out of range: overflow")
    } else if narrow == 0.0 && value != 0.0 {
        Err("value out of range: underflow")
    } else {
        Ok(narrow)
    }
}

fn to_integer(rows: &Rows, to: &LakeType, arg: &Val) -> Result<ArrayRef, WireError> {
    match native(arg.array()) {
        Some(Native::I32(_)) => {
            let arg = i32s(arg)?;
            integers(rows, to, |row| Some(arg.at(row).into()))
        }
        Some(Native::I64(_)) => {
            let arg = i64s(arg)?;
            integers(rows, to, |row| Some(arg.at(row)))
        }
        Some(Native::I128(_)) => {
            let (arg, scale) = decimals(arg)?;
            let unit = unit(scale);
            integers(rows, to, |row| {
                i64::try_from(rounded(arg.at(row), unit)).ok()
            })
        }
        Some(Native::F64(_)) => {
            let arg = f64s(arg)?;
            integers(rows, to, |row| nearest(arg.at(row)))
        }
        Some(Native::F32(values)) => integers(rows, to, |row| {
            nearest(values.get(row).copied().unwrap_or_default().into())
        }),
        None => Err(internal("a conversion without a rule")),
    }
}

/// `rint`, where that fits (`FLOAT8_FITS_IN_INT64`).
fn nearest(value: f64) -> Option<i64> {
    const END: f64 = 9_223_372_036_854_775_808.0;
    let rounded = value.round_ties_even();
    (-END..END).contains(&rounded).then_some(rounded as i64)
}

/// Integers that must fit their type.
fn integers(
    rows: &Rows,
    to: &LakeType,
    value: impl Fn(usize) -> Option<i64>,
) -> Result<ArrayRef, WireError> {
    let (data_type, nulls) = (arrow_type(to), rows.nulls());
    let narrow = |row, from: i32, upto: i32| -> Result<i32, ()> {
        let value = i32::try_from(value(row).ok_or(())?).map_err(drop)?;
        (from..=upto).contains(&value).then_some(value).ok_or(())
    };
    Ok(match to {
        LakeType::Int2 => {
            let small = |row| narrow(row, i16::MIN.into(), i16::MAX.into());
            let values = rows.try_map(small, |()| out_of_range("smallint out of range"))?;
            from_i32(values, nulls, &data_type)
        }
        LakeType::Int4 => {
            let integer = |row| narrow(row, i32::MIN, i32::MAX);
            let values = rows.try_map(integer, |()| out_of_range("integer out of range"))?;
            from_i32(values, nulls, &data_type)
        }
        LakeType::Int8 => {
            let big = |row| value(row).ok_or(());
            let values = rows.try_map(big, |()| out_of_range("bigint out of range"))?;
            from_i64(values, nulls, &data_type)
        }
        _ => return Err(internal("a conversion without a rule")),
    })
}

/// `numeric(precision, scale)` (`apply_typmod`)
fn with_typmod(
    rows: &Rows,
    arg: &Val,
    precision: i32,
    scale: i32,
    data_type: &DataType,
) -> Result<ArrayRef, WireError> {
    let (arg, had) = decimals(arg)?;
    let lost = unit((had - scale).max(0));
    let added = unit((scale - had).max(0)).unwrap_or(i128::MAX);
    // There is one for each precision that a type has.
    let bound = unit(precision).unwrap_or(i128::MAX);
    let coerced = |row| {
        rounded(arg.at(row), lost)
            .checked_mul(added)
            .filter(|value| (-bound < *value) && (*value < bound))
            .ok_or(())
    };
    let values = rows.try_map(coerced, |()| field_overflow(precision, scale))?;
    from_i128(values, rows.nulls(), data_type)
}

/// A value has more digits than its type.
pub(super) fn field_overflow(precision: i32, scale: i32) -> WireError {
    let less_than = match precision - scale {
        0 => "1".to_owned(),
        digits => format!("10^{digits}"),
    };
    out_of_range("numeric field overflow").detail(format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less than {less_than}."
    ))
}

/// Powers of ten that a `f64` holds exactly.
const POWERS8: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Powers of ten that a `f32` holds exactly.
const POWERS4: [f32; 11] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// The power, if `value` has at most `bits` bits.
fn exact<T: Copy>(value: i128, bits: u32, scale: i32, powers: &[T]) -> Option<T> {
    let power = powers.get(usize::try_from(scale).ok()?)?;
    (value.unsigned_abs() <= 1 << bits).then_some(*power)
}

/// The nearest float: one division is rounded once; where it can't be exact, the digits are read (`float8in`).
fn float8(value: i128, scale: i32, text: &mut String) -> f64 {
    match exact(value, f64::MANTISSA_DIGITS, scale, &POWERS8) {
        Some(power) => value as f64 / power,
        None => digits(value, scale, text).parse().unwrap_or(f64::NAN),
    }
}

/// The same of `float4in`.
fn float4(value: i128, scale: i32, text: &mut String) -> f32 {
    match exact(value, f32::MANTISSA_DIGITS, scale, &POWERS4) {
        Some(power) => value as f32 / power,
        None => digits(value, scale, text).parse().unwrap_or(f32::NAN),
    }
}

fn digits(value: i128, scale: i32, text: &mut String) -> &str {
    text.clear();
    // A string takes everything.
    let _ = write!(text, "{value}e-{scale}");
    text
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use arrow::array::{Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{
        Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    };
    use pg_lake_plan::function::Function;
    use pg_lake_plan::message::ErrorCode;

    fn converted(to: &LakeType, arg: Val) -> ArrayRef {
        result(Function::Convert, to, &[arg])
    }

    fn message(to: &LakeType, arg: Val) -> String {
        let error = error(Function::Convert, to, &[arg]);
        assert_eq!(error.code, ErrorCode::OutOfRange);
        error.message
    }

    #[test]
    fn integers_have_to_fit() {
        let wide = |n| column(Int64Array::from(vec![n]));
        let max = i64::from(i32::MAX);
        let fits = converted(&LakeType::Int4, wide(max));
        assert_eq!(fits.as_primitive::<Int32Type>().value(0), i32::MAX);
        assert_eq!(
            message(&LakeType::Int4, wide(max + 1)),
            "integer out of range"
        );
        assert_eq!(
            message(&LakeType::Int2, wide(32_768)),
            "smallint out of range"
        );
        let small = ints(&[Some(-32_769)]);
        assert_eq!(message(&LakeType::Int2, small), "smallint out of range");
        let null = ints(&[None, Some(7)]);
        assert_eq!(converted(&LakeType::Int2, null).null_count(), 1);
    }

    // float8.out, int8.out
    #[test]
    fn floats_are_rounded_to_even() {
        let floats = |values: &[f64]| column(Float64Array::from(values.to_vec()));
        let rounded = converted(&LakeType::Int4, floats(&[2.5, 3.5, -2.5, 32767.6]));
        let rounded = rounded.as_primitive::<Int32Type>().values().to_vec();
        assert_eq!(rounded, [2, 4, -2, 32768]);
        let fits = converted(&LakeType::Int8, floats(&[i64::MIN as f64]));
        assert_eq!(fits.as_primitive::<Int64Type>().value(0), i64::MIN);
        for (to, value, expected) in [
            (LakeType::Int2, 32767.6, "smallint out of range"),
            (LakeType::Int2, -32768.6, "smallint out of range"),
            (LakeType::Int4, 2147483647.6, "integer out of range"),
            (LakeType::Int8, i64::MAX as f64, "bigint out of range"),
            (LakeType::Int4, f64::NAN, "integer out of range"),
            (LakeType::Int8, f64::INFINITY, "bigint out of range"),
        ] {
            assert_eq!(message(&to, floats(&[value])), expected, "{value}");
        }
        let narrow = column(Float32Array::from(vec![0.5f32, 1.5]));
        let narrow = converted(&LakeType::Int4, narrow);
        assert_eq!(narrow.as_primitive::<Int32Type>().values().to_vec(), [0, 2]);
    }

    #[test]
    fn doubles_to_reals() {
        let of = |value| column(Float64Array::from(vec![value]));
        let real = converted(&LakeType::Float4, of(0.1));
        assert_eq!(real.as_primitive::<Float32Type>().value(0), 0.1f32);
        let infinite = converted(&LakeType::Float4, of(f64::INFINITY));
        assert!(
            infinite
                .as_primitive::<Float32Type>()
                .value(0)
                .is_infinite()
        );
        let overflow = "value out of range: overflow";
        assert_eq!(message(&LakeType::Float4, of(1e40)), overflow);
        let underflow = "value out of range: underflow";
        assert_eq!(message(&LakeType::Float4, of(1e-60)), underflow);
    }

    #[test]
    fn decimals_are_rounded_away_from_zero() {
        let rounded = converted(&LakeType::Int4, decimal_array(&[25, -25, 24, -1], 1));
        let rounded = rounded.as_primitive::<Int32Type>().values().to_vec();
        assert_eq!(rounded, [3, -3, 2, 0]);
        let limit = decimal_array(
            &[92_233_720_368_547_758_074, -92_233_720_368_547_758_084],
            1,
        );
        let limit = converted(&LakeType::Int8, limit);
        let limit = limit.as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(limit, [i64::MAX, i64::MIN]);
        let beyond = decimal_array(&[92_233_720_368_547_758_075], 1);
        assert_eq!(message(&LakeType::Int8, beyond), "bigint out of range");
        let beyond = decimal_array(&[327_675], 1);
        assert_eq!(message(&LakeType::Int2, beyond), "smallint out of range");
    }

    #[test]
    fn typmods() {
        let to = LakeType::Decimal {
            precision: 4,
            scale: 2,
        };
        let coerced = converted(&to, decimal_array(&[12_345, -12_345, 5], 3));
        let coerced = coerced.as_primitive::<Decimal128Type>().values().to_vec();
        assert_eq!(coerced, [1_235, -1_235, 1]);
        let longer = converted(&to, decimal_array(&[99], 0));
        assert_eq!(longer.as_primitive::<Decimal128Type>().value(0), 9_900);
        for value in [99_995, 1_000_000, -99_995] {
            let error = error(Function::Convert, &to, &[decimal_array(&[value], 3)]);
            assert_eq!(error.message, "numeric field overflow");
            assert_eq!(
                error.detail.as_deref(),
                Some(
                    "A field with precision 4, scale 2 must round to an absolute value less than 10^2."
                )
            );
        }
        let fraction = LakeType::Decimal {
            precision: 2,
            scale: 2,
        };
        let error = error(Function::Convert, &fraction, &[decimal_array(&[1], 0)]);
        let detail = error.detail.unwrap_or_default();
        assert!(detail.ends_with("less than 1."), "{detail}");
    }

    #[test]
    fn decimals_become_the_nearest_float() {
        for (value, scale, expected) in [
            (1, 1, 0.1),
            (123_456_789, 4, 12345.6789),
            (-3, 0, -3.0),
            (0, 30, 0.0),
            (9_007_199_254_740_993, 0, 9007199254740992.0),
            (90_071_992_547_409_930_000_000_001, 10, 9007199254740994.0),
            (1, 38, 1e-38),
            (
                170_141_183_460_469_231_731_687_303_715_884_105_727,
                38,
                1.7014118346046923,
            ),
        ] {
            let float = converted(&LakeType::Float8, decimal_array(&[value], scale));
            assert_eq!(float.as_primitive::<Float64Type>().value(0), expected);
        }
        let real = converted(&LakeType::Float4, decimal_array(&[16_777_217, 1], 0));
        let real = real.as_primitive::<Float32Type>().values().to_vec();
        assert_eq!(real, [16_777_216.0, 1.0]);
    }

    #[test]
    fn dates_and_booleans() {
        let at = column(TimestampMicrosecondArray::from(vec![-1, 0, DAY]));
        let dates = converted(&LakeType::Date, at);
        assert_eq!(
            dates.as_primitive::<Date32Type>().values().to_vec(),
            [-1, 0, 1]
        );
        let number = converted(
            &LakeType::Int4,
            column(BooleanArray::from(vec![true, false])),
        );
        assert_eq!(number.as_primitive::<Int32Type>().values().to_vec(), [1, 0]);
        let truth = converted(&LakeType::Bool, ints(&[Some(0), Some(-3), None]));
        let truth: Vec<Option<bool>> = truth.as_boolean().iter().collect();
        assert_eq!(truth, [Some(false), Some(true), None]);
    }
}
