//! The quotient of decimals (`numeric_div`).
//!
//! Postgres decides for each quotient how many digits it has after the point, and rounds the last of them half away
//! from zero. Here they are followed by zeros, up to the scale of the result.

use super::argument;
use super::numbers::{decimals, rounded, unit};
use super::rows::Rows;
use crate::arrow_types::arrow_type;
use crate::engine::error::{division_by_zero, internal, not_exact};
use crate::engine::expr::Val;
use crate::engine::values::from_i128;
use arrow::array::ArrayRef;
use arrow::datatypes::i256;
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;

pub(super) const NUMERIC_MIN_SIG_DIGITS: i32 = 16;
pub(super) const NUMERIC_MIN_DISPLAY_SCALE: i32 = 0;
pub(super) const NUMERIC_MAX_DISPLAY_SCALE: i32 = 1000;
pub(super) const DEC_DIGITS: i32 = 4;

/// The least number of more digits than decimals have.
pub(super) const END: u128 = 10u128.pow(38);

/// Why there is no quotient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    DivisionByZero,
    NotExact,
}

impl Failure {
    fn error(self) -> WireError {
        match self {
            Failure::DivisionByZero => division_by_zero(),
            Failure::NotExact => not_exact("a quotient has more digits than the engine's 128 bits"),
        }
    }
}

pub(super) fn quotient(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (left, left_scale) = decimals(argument(args, 0)?)?;
    let (right, right_scale) = decimals(argument(args, 1)?)?;
    let LakeType::Decimal { scale, .. } = ty else {
        return Err(internal("a quotient of another type"));
    };
    let scale = i32::from(*scale);
    let quotient_of = |row| {
        let (left, right) = (left.at(row), right.at(row));
        divide((left, left_scale), (right, right_scale), scale)
    };
    let values = rows.try_map(quotient_of, Failure::error)?;
    from_i128(values, rows.nulls(), &arrow_type(ty))
}

/// `numeric_div_trunc`
pub(super) fn whole(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (left, left_scale) = decimals(argument(args, 0)?)?;
    let (right, right_scale) = decimals(argument(args, 1)?)?;
    let scale = left_scale.max(right_scale);
    let (left_unit, right_unit) = (unit(scale - left_scale), unit(scale - right_scale));
    let whole_of = |row| {
        let (left, right) = (left.at(row), right.at(row));
        if right == 0 {
            return Err(Failure::DivisionByZero);
        }
        let left = left_unit.and_then(|unit| left.checked_mul(unit));
        let right = right_unit.and_then(|unit| right.checked_mul(unit));
        let quotient = left.zip(right).and_then(|(l, r)| l.checked_div(r));
        let fits = |quotient: &i128| quotient.unsigned_abs() < END;
        quotient.filter(fits).ok_or(Failure::NotExact)
    };
    let values = rows.try_map(whole_of, Failure::error)?;
    from_i128(values, rows.nulls(), &arrow_type(ty))
}

/// The quotient of numbers given with their scale, as one of scale `scale`.
fn divide(left: (i128, i32), right: (i128, i32), scale: i32) -> Result<i128, Failure> {
    if right.0 == 0 {
        return Err(Failure::DivisionByZero);
    }
    let rscale = select_div_scale(left, right);
    let shift = rscale - left.1 + right.1;
    let narrow = unit(shift).and_then(|unit| left.0.checked_mul(unit));
    if let Some(dividend) = narrow
        && let Some(whole) = dividend.checked_div(right.0)
    {
        let rest = (dividend % right.0).unsigned_abs();
        let up = rest >= right.0.unsigned_abs() - rest;
        let sign = if (dividend < 0) == (right.0 < 0) {
            1
        } else {
            -1
        };
        let quotient = if up { whole + sign } else { whole };
        return with_scale(quotient, rscale, scale).ok_or(Failure::NotExact);
    }
    divide_wide(left.0, right.0, shift)
        .and_then(|quotient| with_scale(quotient, rscale, scale))
        .ok_or(Failure::NotExact)
}

/// `left × 10^shift ÷ right`, rounded, where that takes more than 128 bits on the way.
fn divide_wide(left: i128, right: i128, shift: i32) -> Option<i128> {
    let power = i256::from_i128(10).checked_pow(u32::try_from(shift).ok()?)?;
    let dividend = i256::from_i128(left).checked_mul(power)?;
    let divisor = i256::from_i128(right);
    let whole = dividend.checked_div(divisor)?;
    let rest = dividend.checked_rem(divisor)?.checked_abs()?;
    let whole = whole.to_i128()?;
    if rest < divisor.checked_abs()?.checked_sub(rest)? {
        return Some(whole);
    }
    whole.checked_add(if (left < 0) == (right < 0) { 1 } else { -1 })
}

/// A number of scale `from` as one of scale `to`, if it doesn't lose digits.
pub(super) fn with_scale(value: i128, from: i32, to: i32) -> Option<i128> {
    if value == 0 {
        return Some(0);
    }
    let unit_of = unit((to - from).abs())?;
    if to >= from {
        return value.checked_mul(unit_of);
    }
    let shorter = rounded(value, Some(unit_of));
    (shorter.checked_mul(unit_of) == Some(value)).then_some(shorter)
}

/// How many digits after the point Postgres gives to a quotient.
fn select_div_scale(left: (i128, i32), right: (i128, i32)) -> i32 {
    let ((weight1, firstdigit1), (weight2, firstdigit2)) = (leading(left), leading(right));
    let mut qweight = weight1 - weight2;
    if firstdigit1 <= firstdigit2 {
        qweight -= 1;
    }
    (NUMERIC_MIN_SIG_DIGITS - qweight * DEC_DIGITS)
        .max(left.1)
        .max(right.1)
        .clamp(NUMERIC_MIN_DISPLAY_SCALE, NUMERIC_MAX_DISPLAY_SCALE)
}

/// Weight and value of the first of the digits in base 10000, as a `NumericVar` has them.
pub(super) fn leading((value, scale): (i128, i32)) -> (i32, u128) {
    let magnitude = value.unsigned_abs();
    let Some(log) = magnitude.checked_ilog10() else {
        return (0, 0);
    };
    // The first decimal digit counts 10^exponent.
    let exponent = log as i32 - scale;
    let weight = exponent.div_euclid(DEC_DIGITS);
    let cut = scale + weight * DEC_DIGITS;
    let power = |n: i32| 10u128.pow(n.unsigned_abs());
    let first = if cut >= 0 {
        magnitude / power(cut)
    } else {
        magnitude * power(cut)
    };
    (weight, first)
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Decimal128Type;
    use pg_lake_plan::function::Function;
    use pg_lake_plan::message::ErrorCode;

    #[test]
    fn scales_are_those_that_postgres_selects() {
        for (left, right, scale) in [
            // 1/3 = 0.33333333333333333333
            ((1, 0), (3, 0), 20),
            // 7/2 = 3.5000000000000000
            ((7, 0), (2, 0), 16),
            // 20000/3 = 6666.6666666666666667
            ((20_000, 0), (3, 0), 16),
            // 40000/3 = 13333.333333333333
            ((40_000, 0), (3, 0), 12),
            // 0/5 = 0.00000000000000000000
            ((0, 0), (5, 0), 20),
            // equal first digits count as a quotient below 1
            ((1, 0), (1, 0), 20),
            ((100, 2), (100, 2), 20),
            // 0.0001/2: digits 1 of weight -1, and 2
            ((1, 4), (2, 0), 24),
            // 0.5/2: digits 5000 of weight -1, and 2
            ((5, 1), (2, 0), 20),
            // an operand's scale is kept
            ((1, 30), (1, 30), 30),
        ] {
            assert_eq!(select_div_scale(left, right), scale, "{left:?} / {right:?}");
        }
    }

    #[test]
    fn leading_digits_in_base_10000() {
        assert_eq!(leading((0, 3)), (0, 0));
        assert_eq!(leading((5, 3)), (-1, 50));
        assert_eq!(leading((12_345, 0)), (1, 1));
        assert_eq!(leading((-99_999_999, 0)), (1, 9_999));
        assert_eq!(leading((12_345_678, 2)), (1, 12));
        assert_eq!(leading((1, 38)), (-10, 100));
        assert_eq!(leading((i128::MAX, 0)), (9, 170));
    }

    #[test]
    fn quotients_are_rounded_half_away_from_zero() {
        let at_20 = |left, right| divide(left, right, 20);
        assert_eq!(at_20((1, 0), (3, 0)), Ok(33_333_333_333_333_333_333));
        assert_eq!(at_20((2, 0), (3, 0)), Ok(66_666_666_666_666_666_667));
        assert_eq!(at_20((-2, 0), (3, 0)), Ok(-66_666_666_666_666_666_667));
        assert_eq!(at_20((2, 0), (-3, 0)), Ok(-66_666_666_666_666_666_667));
        assert_eq!(at_20((-7, 0), (-2, 0)), Ok(350_000_000_000_000_000_000));
        // 13333.333333333333, with zeros after it
        assert_eq!(
            at_20((40_000, 0), (3, 0)),
            Ok(1_333_333_333_333_333_300_000_000)
        );
        // 1234.56 / 7.8 = 158.2769230769230769
        assert_eq!(
            at_20((123_456, 2), (78, 1)),
            Ok(15_827_692_307_692_307_690_000)
        );
        assert_eq!(at_20((1, 0), (0, 2)), Err(Failure::DivisionByZero));
        assert_eq!(at_20((0, 0), (40_000, 0)), Ok(0));
    }

    #[test]
    fn more_digits_than_the_result_has_are_said() {
        // 0.0001/3 has 24 digits, 0.0001/2 as many, but the last are zeros.
        assert_eq!(divide((1, 4), (3, 0), 20), Err(Failure::NotExact));
        assert_eq!(divide((1, 4), (2, 0), 20), Ok(5_000_000_000_000_000));
        assert_eq!(divide((i128::MAX, 0), (1, 0), 20), Err(Failure::NotExact));
    }

    #[test]
    fn whole_quotients_are_cut_off() {
        let args = [
            decimal_array(&[725, -725, 725, 0], 2),
            decimal_array(&[20, 20, -20, 1], 1),
        ];
        let quotients = result(Function::WholeQuotient, &decimal(0), &args);
        let quotients = quotients.as_primitive::<Decimal128Type>();
        assert_eq!(quotients.values().to_vec(), [3, -3, -3, 0]);
        let args = [decimal_array(&[1], 0), decimal_array(&[0], 5)];
        let refused = error(Function::WholeQuotient, &decimal(0), &args);
        assert_eq!(refused.code, ErrorCode::DivisionByZero);
        // 39 digits
        let args = [
            decimal_array(&[15 * 10i128.pow(36)], 0),
            decimal_array(&[1], 1),
        ];
        let refused = error(Function::WholeQuotient, &decimal(0), &args);
        assert_eq!(refused.code, ErrorCode::NotExact);
    }

    #[test]
    fn wide_dividends() {
        // 10^37 / 3 = 3333…333 (37 digits) and no digit after the point
        let tens = 10i128.pow(37);
        assert_eq!(divide((tens, 0), (3, 0), 0), Ok(tens / 3));
        // (10^37 + 0.5) / 10^37, both of scale 1: 1.00000000000000000000
        assert_eq!(
            divide((tens * 10 + 5, 1), (tens, 0), 20),
            Ok(100_000_000_000_000_000_000)
        );
        assert_eq!(divide_wide(tens, 3, 20), None);
        assert_eq!(
            divide_wide(tens, -tens * 7, 20),
            Some(-14_285_714_285_714_285_714)
        );
        assert_eq!(divide_wide(5 * tens, 10 * tens, 0), Some(1));
        assert_eq!(divide_wide(-5 * tens, 10 * tens, 0), Some(-1));
    }

    #[test]
    fn a_division_by_zero_beside_a_null_is_none() {
        let zero = column(
            arrow::array::Decimal128Array::from(vec![None, Some(3)])
                .with_precision_and_scale(38, 0)
                .expect("decimals"),
        );
        let args = [decimal_array(&[1, 1], 0), zero];
        let quotients = result(Function::Quotient, &decimal(20), &args);
        let quotients = quotients.as_primitive::<Decimal128Type>();
        assert!(quotients.iter().next().flatten().is_none());
        assert_eq!(quotients.value(1), 33_333_333_333_333_333_333);
        let args = [decimal_array(&[1], 0), decimal_array(&[0], 5)];
        let error = error(Function::Quotient, &decimal(20), &args);
        assert_eq!(error.code, ErrorCode::DivisionByZero);
    }
}
