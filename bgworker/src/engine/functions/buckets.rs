//! `width_bucket` (`float.c`, `numeric.c`).

use super::argument;
use super::numbers::{decimals, unit};
use super::rows::{Rows, f64s, i32s};
use crate::engine::error::{not_exact, out_of_range};
use crate::engine::expr::Val;
use crate::engine::values::from_i32;
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use pg_lake_plan::message::{ErrorCode, WireError};

/// Why there is no such bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Invalid(&'static str),
    OutOfRange,
    NotExact,
}

impl Failure {
    fn error(self) -> WireError {
        match self {
            Failure::Invalid(message) => WireError::new(ErrorCode::WidthBucket, message),
            Failure::OutOfRange => out_of_range("integer out of range"),
            Failure::NotExact => not_exact("a bucket's bounds have too many digits"),
        }
    }
}

const COUNT: Failure = Failure::Invalid("count must be greater than zero");
const NAN: Failure = Failure::Invalid("operand, lower bound, and upper bound cannot be NaN");
const INFINITE: Failure = Failure::Invalid("lower and upper bounds must be finite");
const EQUAL: Failure = Failure::Invalid("lower bound cannot equal upper bound");

/// The bucket of a value that isn't between the bounds: one before, or one behind all others.
fn outside<T: PartialOrd>(value: T, from: T, to: T, count: i32) -> Result<Option<i32>, Failure> {
    let (before, behind) = if from < to {
        (value < from, value >= to)
    } else {
        (value > from, value <= to)
    };
    if before {
        return Ok(Some(0));
    }
    if behind {
        let last = count.checked_add(1).ok_or(Failure::OutOfRange)?;
        return Ok(Some(last));
    }
    Ok(None)
}

/// `width_bucket_float8`
fn of_floats(value: f64, from: f64, to: f64, count: i32) -> Result<i32, Failure> {
    if count <= 0 {
        return Err(COUNT);
    }
    if value.is_nan() || from.is_nan() || to.is_nan() {
        return Err(NAN);
    }
    if from.is_infinite() || to.is_infinite() {
        return Err(INFINITE);
    }
    if from == to {
        return Err(EQUAL);
    }
    if let Some(bucket) = outside(value, from, to, count)? {
        return Ok(bucket);
    }
    let ascending = from < to;
    let distance = |upper: f64, lower: f64| {
        if ascending {
            (upper - lower, upper / 2.0 - lower / 2.0)
        } else {
            (lower - upper, lower / 2.0 - upper / 2.0)
        }
    };
    let (whole, half) = distance(to, from);
    let (part, half_part) = distance(value, from);
    let share = if whole.is_infinite() {
        half_part / half
    } else {
        part / whole
    };
    let bucket = (f64::from(count) * share) as i32;
    Ok(bucket.min(count - 1) + 1)
}

/// `width_bucket_numeric`, of values of one scale. Postgres divides with at least 8 digits after the point, rounded.
fn of_decimals(value: i128, from: i128, to: i128, count: i32) -> Result<i32, Failure> {
    const ROUNDED: i128 = 10_000_000;
    if count <= 0 {
        return Err(COUNT);
    }
    if from == to {
        return Err(EQUAL);
    }
    if let Some(bucket) = outside(value, from, to, count)? {
        return Ok(bucket);
    }
    let distance = |other: i128| other.checked_sub(from).and_then(i128::checked_abs);
    let found = || {
        let whole = distance(to)?;
        let part = distance(value)?.checked_mul(count.into())?;
        let missing = whole - part % whole;
        let rounds_up = missing <= whole / ROUNDED;
        let bucket = i32::try_from(part / whole).ok()?.checked_add(1)?;
        (!rounds_up).then_some(bucket)
    };
    found().ok_or(Failure::NotExact)
}

pub(super) fn width_bucket(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (value, from) = (argument(args, 0)?, argument(args, 1)?);
    let (to, count) = (argument(args, 2)?, i32s(argument(args, 3)?)?);
    let values = if *value.array().data_type() == DataType::Float64 {
        let (value, from, to) = (f64s(value)?, f64s(from)?, f64s(to)?);
        let bucket = |row| of_floats(value.at(row), from.at(row), to.at(row), count.at(row));
        rows.try_map(bucket, Failure::error)?
    } else {
        let (value, from, to) = (decimals(value)?, decimals(from)?, decimals(to)?);
        let scale = value.1.max(from.1).max(to.1);
        let units = [value.1, from.1, to.1].map(|had| unit(scale - had));
        let [value_unit, from_unit, to_unit] = units;
        let aligned = |value: i128, unit: Option<i128>| {
            let aligned = unit.and_then(|unit| value.checked_mul(unit));
            aligned.ok_or(Failure::NotExact)
        };
        let bucket = |row| {
            let value = aligned(value.0.at(row), value_unit)?;
            let from = aligned(from.0.at(row), from_unit)?;
            of_decimals(value, from, aligned(to.0.at(row), to_unit)?, count.at(row))
        };
        rows.try_map(bucket, Failure::error)?
    };
    Ok(from_i32(values, rows.nulls(), &DataType::Int32))
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;
    use pg_lake_plan::function::Function;
    use pg_lake_plan::types::LakeType;

    // numeric.out: width_bucket_test
    #[test]
    fn buckets() {
        for (value, expected) in [
            (-5.2, [0, 6, 0, 0]),
            (0.0, [1, 6, 0, 0]),
            (1.0, [1, 5, 0, 0]),
            (2.0, [2, 5, 1, 0]),
            (5.0, [3, 3, 3, 1]),
            (5.5, [3, 3, 3, 21]),
            (8.0, [5, 2, 5, 21]),
            (9.0, [5, 1, 5, 21]),
            (10.0, [6, 1, 5, 21]),
            (10.0000001, [6, 0, 5, 21]),
        ] {
            let bounds = [
                (0.0, 10.0, 5),
                (10.0, 0.0, 5),
                (2.0, 8.0, 4),
                (5.0, 5.5, 20),
            ];
            let floats = bounds.map(|(from, to, count)| of_floats(value, from, to, count));
            assert_eq!(floats, expected.map(Ok), "{value}");
            let decimal = |value: f64| (value * 1e7_f64).round() as i128;
            let decimals = bounds.map(|(from, to, count)| {
                of_decimals(decimal(value), decimal(from), decimal(to), count)
            });
            assert_eq!(decimals, expected.map(Ok), "{value}");
        }
    }

    #[test]
    fn what_has_no_bucket() {
        let (nan, infinity) = (f64::NAN, f64::INFINITY);
        assert_eq!(of_floats(5.0, 3.0, 4.0, 0), Err(COUNT));
        assert_eq!(of_floats(5.0, 3.0, 4.0, -5), Err(COUNT));
        assert_eq!(of_floats(5.0, 3.0, 3.0, 8), Err(EQUAL));
        assert_eq!(of_floats(nan, 0.0, 1.0, 2), Err(NAN));
        assert_eq!(of_floats(0.0, 0.0, infinity, 2), Err(INFINITE));
        assert_eq!(of_floats(infinity, 0.0, 1.0, 10), Ok(11));
        assert_eq!(of_floats(-infinity, 0.0, 1.0, 10), Ok(0));
        assert_eq!(of_floats(2.0, 0.0, 1.0, i32::MAX), Err(Failure::OutOfRange));
        assert_eq!(of_floats(0.0, -1e308, 1e308, 10), Ok(6));
        assert_eq!(of_decimals(5, 3, 4, 0), Err(COUNT));
        assert_eq!(of_decimals(5, 3, 3, 8), Err(EQUAL));
        assert_eq!(of_decimals(2, 0, 1, i32::MAX), Err(Failure::OutOfRange));
        let many = 10i128.pow(37);
        assert_eq!(of_decimals(many, 0, many * 2, 1000), Err(Failure::NotExact));
        // So near to the next bucket that a rounded quotient is in it.
        assert_eq!(
            of_decimals(many / 1000 - 1, 0, many / 500, 2),
            Err(Failure::NotExact)
        );
    }

    #[test]
    fn decimals_of_several_scales() {
        let args = [
            decimal_array(&[550, 199], 2),
            decimal_array(&[2, 2], 0),
            decimal_array(&[80, 80], 1),
            int(6),
        ];
        let buckets = result(Function::WidthBucket, &LakeType::Int4, &args);
        let buckets = buckets.as_primitive::<Int32Type>();
        assert_eq!(buckets.values().to_vec(), [4, 0]);
    }
}
