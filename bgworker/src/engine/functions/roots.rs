//! Square roots of decimals, and their powers with whole exponents (`numeric_sqrt`, `numeric_power`).
//!
//! Postgres decides for each result how many digits it has after the point, and rounds the last of them half away from zero.
//! Here they are followed by zeros, up to the scale of the result; how many Postgres shows is a function of its own. Where it
//! rounds on the way to a power, the engine has none.

use super::argument;
use super::numbers::{decimals, rounded, unit};
use super::quotient::{
    DEC_DIGITS, END, NUMERIC_MAX_DISPLAY_SCALE, NUMERIC_MIN_DISPLAY_SCALE, NUMERIC_MIN_SIG_DIGITS,
    leading, with_scale,
};
use super::rows::Rows;
use crate::arrow_types::arrow_type;
use crate::engine::error::{internal, not_exact};
use crate::engine::expr::Val;
use crate::engine::values::{from_i32, from_i128};
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, i256};
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::types::LakeType;

/// More is no use: 2 to the power of that has more digits than decimals.
const EXPONENT_MAX: i128 = 1000;

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Negative,
    NotExact,
}

impl Failure {
    fn error(self) -> WireError {
        match self {
            Failure::Negative => WireError::new(
                ErrorCode::NegativeRoot,
                "cannot take square root of a negative number",
            ),
            Failure::NotExact => {
                not_exact("a root or a power has more digits than the engine's 128 bits")
            }
        }
    }
}

fn scale_of(ty: &LakeType) -> Result<i32, WireError> {
    match ty {
        LakeType::Decimal { scale, .. } => Ok(i32::from(*scale)),
        _ => Err(internal("a root or a power of another type")),
    }
}

pub(super) fn roots(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (arg, scale) = decimals(argument(args, 0)?)?;
    let to = scale_of(ty)?;
    let of_row = |row| root((arg.at(row), scale), to).and_then(fitting);
    let values = rows.try_map(of_row, Failure::error)?;
    from_i128(values, rows.nulls(), &arrow_type(ty))
}

/// A result, if it has no more digits than decimals have.
fn fitting(value: i128) -> Result<i128, Failure> {
    match value.unsigned_abs() < END {
        true => Ok(value),
        false => Err(Failure::NotExact),
    }
}

/// With how many digits after the point the root is shown.
pub(super) fn root_scales(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (arg, scale) = decimals(argument(args, 0)?)?;
    let values = rows.map(|row| root_scale((arg.at(row), scale)));
    Ok(from_i32(values, rows.nulls(), &DataType::Int32))
}

pub(super) fn powers(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (base, scale) = decimals(argument(args, 0)?)?;
    let (exponent, exponent_scale) = decimals(argument(args, 1)?)?;
    let to = scale_of(ty)?;
    let of_row = |row| {
        let exponent = Exponent::of(exponent.at(row), exponent_scale).ok_or(Failure::NotExact)?;
        let value = power((base.at(row), scale), exponent, to);
        value.ok_or(Failure::NotExact).and_then(fitting)
    };
    let values = rows.try_map(of_row, Failure::error)?;
    from_i128(values, rows.nulls(), &arrow_type(ty))
}

/// With how many digits after the point the power is shown; anything where there is no power.
pub(super) fn power_scales(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (base, scale) = decimals(argument(args, 0)?)?;
    let (exponent, exponent_scale) = decimals(argument(args, 1)?)?;
    let values = rows.map(|row| {
        let exponent = Exponent::of(exponent.at(row), exponent_scale);
        exponent.map_or(0, |exponent| power_scale((base.at(row), scale), exponent).1)
    });
    Ok(from_i32(values, rows.nulls(), &DataType::Int32))
}

/// `get_min_scale`
pub(super) fn min_scales(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (arg, scale) = decimals(argument(args, 0)?)?;
    let values = rows.map(|row| match arg.at(row) {
        0 => 0,
        value => shortened((value, scale)).scale,
    });
    Ok(from_i32(values, rows.nulls(), &DataType::Int32))
}

/// `numeric_sqrt`: at least 16 significant digits, and no fewer after the point than the argument has.
fn root_scale(of: (i128, i32)) -> i32 {
    let (weight, _) = leading(of);
    let sweight = weight * DEC_DIGITS / 2 + 1;
    (NUMERIC_MIN_SIG_DIGITS - sweight)
        .max(of.1)
        .clamp(NUMERIC_MIN_DISPLAY_SCALE, NUMERIC_MAX_DISPLAY_SCALE)
}

/// The root of a number given with its scale, as one of scale `to`.
fn root((value, scale): (i128, i32), to: i32) -> Result<i128, Failure> {
    if value < 0 {
        return Err(Failure::Negative);
    }
    let rscale = root_scale((value, scale));
    // One more digit decides about the last one.
    let shift = u32::try_from(2 * (rscale + 1) - scale).ok();
    let root = shift.and_then(|shift| whole_root(value.unsigned_abs(), shift));
    let root = root.map(|root| (root + 5) / 10);
    root.and_then(|root| with_scale(root, rscale, to))
        .ok_or(Failure::NotExact)
}

/// The root of `value × 10^shift`, rounded down.
fn whole_root(value: u128, shift: u32) -> Option<i128> {
    let Some(log) = value.checked_ilog10() else {
        return Some(0);
    };
    let narrow = 10u128.checked_pow(shift);
    if let Some(radicand) = narrow.and_then(|unit| value.checked_mul(unit)) {
        return i128::try_from(radicand.isqrt()).ok();
    }
    let ten = i256::from_i128(10);
    let value = i256::from_i128(i128::try_from(value).ok()?);
    let radicand = value.checked_mul(ten.checked_pow(shift)?)?;
    // Newton's method, from above.
    let digits = log + 1 + shift;
    let mut root = ten.checked_pow(digits.div_ceil(2))?;
    let two = i256::from_i128(2);
    loop {
        let next = root
            .checked_add(radicand.checked_div(root)?)?
            .checked_div(two)?;
        if next >= root {
            return root.to_i128();
        }
        root = next;
    }
}

/// A whole number that is not negative, shown with some digits after the point.
#[derive(Clone, Copy, Debug)]
struct Exponent {
    times: u16,
    scale: i32,
}

impl Exponent {
    fn of(value: i128, scale: i32) -> Option<Exponent> {
        let unit = unit(scale)?;
        let times = value / unit;
        let whole = value % unit == 0 && (0..=EXPONENT_MAX).contains(&times);
        let times = u16::try_from(times).ok().filter(|_| whole)?;
        Some(Exponent { times, scale })
    }
}

/// `power_var_int`: about how many decimal digits the power has before the point, and how many Postgres gives it after that.
fn power_scale(base: (i128, i32), exponent: Exponent) -> (i32, i32) {
    let (f, p) = approximate(base);
    let f = match base.0 {
        0 => 0.0,
        _ => f64::from(exponent.times) * (f.log10() + f64::from(p)),
    };
    let weight = f as i32;
    let rscale = (NUMERIC_MIN_SIG_DIGITS - weight)
        .max(base.1)
        .max(exponent.scale)
        .clamp(NUMERIC_MIN_DISPLAY_SCALE, NUMERIC_MAX_DISPLAY_SCALE);
    (weight, rscale)
}

/// A number without its sign as about `f × 10^p`, by up to four of its digits in base 10000.
fn approximate((value, scale): (i128, i32)) -> (f64, i32) {
    let magnitude = value.unsigned_abs();
    let (weight, first) = leading((value, scale));
    let mut f = first as f64;
    let mut p = weight * DEC_DIGITS;
    for _ in 1..4 {
        // What is left has that many decimal digits.
        let left = scale + p;
        let rest = match u32::try_from(left)
            .ok()
            .map(|left| 10u128.checked_pow(left))
        {
            Some(Some(unit)) => magnitude % unit,
            _ => 0,
        };
        if rest == 0 {
            break;
        }
        let cut = left - DEC_DIGITS;
        let power = 10u128.pow(cut.unsigned_abs());
        let digit = match cut >= 0 {
            true => rest / power,
            // At most three digits, then.
            false => rest * power,
        };
        f = f * 10_000.0 + digit as f64;
        p -= DEC_DIGITS;
    }
    (f, p)
}

/// A number on the way to a power, exactly.
#[derive(Clone, Copy)]
struct Product {
    value: i128,
    scale: i32,
    /// Postgres' `dscale`.
    shown: i32,
}

impl Product {
    fn weight(&self) -> i32 {
        leading((self.value, self.scale)).0
    }

    /// The product to so many significant digits (`mul_var`), if Postgres doesn't round it.
    fn times(self, other: Product, sig_digits: i32) -> Option<Product> {
        let local_rscale = (sig_digits - (self.weight() + other.weight()) * DEC_DIGITS)
            .min(self.shown + other.shown)
            .max(NUMERIC_MIN_DISPLAY_SCALE);
        let scale = self.scale + other.scale;
        Some(Product {
            value: self
                .value
                .checked_mul(other.value)
                .filter(|_| scale <= local_rscale)?,
            scale,
            shown: local_rscale,
        })
    }
}

/// The power of a number given with its scale, as one of scale `to`; `None` if it isn't known to be Postgres' own.
fn power(base: (i128, i32), exponent: Exponent, to: i32) -> Option<i128> {
    let (weight, rscale) = power_scale(base, exponent);
    // Postgres gives up on what is smaller.
    if weight <= -NUMERIC_MAX_DISPLAY_SCALE {
        return None;
    }
    let base = shortened(base);
    match exponent.times {
        0 => return unit(to),
        1 => return with_scale(base.value, base.scale, to),
        _ if base.value == 0 => return Some(0),
        2 => {
            // Postgres leaves out what is behind two more digits in base 10000 than it rounds to.
            let digits = 2 * digits_after_point(base.scale);
            if digits > digits_after_point(rscale) + MUL_GUARD_DIGITS {
                return None;
            }
            let square = base.value.checked_mul(base.value)?;
            return settled(square, 2 * base.scale, rscale, to);
        }
        _ => {}
    }
    let times = f64::from(exponent.times);
    let sig_digits = 1 + rscale + weight + times.ln() as i32 + 8;
    let mut mask = exponent.times;
    let mut product = base;
    let mut result = match mask & 1 {
        1 => base,
        _ => Product {
            value: 1,
            scale: 0,
            shown: 0,
        },
    };
    loop {
        mask >>= 1;
        if mask == 0 {
            break;
        }
        product = product.times(product, sig_digits)?;
        if mask & 1 == 1 {
            result = product.times(result, sig_digits)?;
        }
    }
    settled(result.value, result.scale, rscale, to)
}

const MUL_GUARD_DIGITS: i32 = 2;

/// Digits in base 10000.
fn digits_after_point(scale: i32) -> i32 {
    (scale + DEC_DIGITS - 1) / DEC_DIGITS
}

/// Without zeros at the end of what is after the point, which is what Postgres stores.
fn shortened((value, shown): (i128, i32)) -> Product {
    let (mut value, mut scale) = (value, shown);
    while scale > 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    Product {
        value,
        scale,
        shown,
    }
}

/// An exact value of scale `scale`, rounded to `rscale` digits after the point, as one of scale `to`.
fn settled(value: i128, scale: i32, rscale: i32, to: i32) -> Option<i128> {
    if rscale >= scale {
        return with_scale(value, scale, to);
    }
    with_scale(rounded(value, unit(scale - rscale)), rscale, to)
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Decimal128Type, Int32Type};
    use pg_lake_plan::function::Function;

    /// A number as Postgres prints it, with its scale.
    fn number(text: &str) -> (i128, i32) {
        let scale = text.split_once('.').map_or(0, |(_, after)| after.len());
        let digits = text.replace('.', "");
        (digits.parse().expect("digits"), scale as i32)
    }

    /// The value and the scale of what Postgres prints.
    fn root_of(text: &str) -> (Result<i128, Failure>, i32) {
        (root(number(text), 20), root_scale(number(text)))
    }

    fn power_of(base: &str, exponent: &str, to: i32) -> (Option<i128>, i32) {
        let (value, scale) = number(exponent);
        let exponent = Exponent::of(value, scale).expect("an exponent");
        let base = number(base);
        (power(base, exponent, to), power_scale(base, exponent).1)
    }

    #[test]
    fn roots_have_sixteen_significant_digits() {
        for (of, expected) in [
            ("2", "1.414213562373095"),
            ("0", "0.000000000000000"),
            ("1", "1.000000000000000"),
            ("4.00", "2.000000000000000"),
            ("9999", "99.994999874993750"),
            ("10000", "100.0000000000000"),
            ("0.5", "0.70710678118654752"),
            ("1.00000000000000000001", "1.00000000000000000000"),
        ] {
            let (value, scale) = number(expected);
            let expected = with_scale(value, scale, 20).expect("a number");
            assert_eq!(root_of(of), (Ok(expected), scale), "{of}");
        }
        assert_eq!(root_of("-1").0, Err(Failure::Negative));
    }

    #[test]
    fn roots_are_rounded_by_the_next_digit() {
        // Wide radicands: 10^30 with ten digits after the point.
        let large = format!("1{}.0000000000", "0".repeat(26));
        assert_eq!(root_of(&large).0, Ok(10i128.pow(13 + 20)));
        let near = whole_root(99_999_999_999_999_999_999_999_999_999_999_999_999, 30);
        let near = near.expect("a root");
        let wide = |n: i128| i256::from_i128(n);
        let radicand = wide(99_999_999_999_999_999_999_999_999_999_999_999_999)
            .wrapping_mul(wide(10).wrapping_pow(30));
        assert!(wide(near).wrapping_mul(wide(near)) <= radicand);
        assert!(wide(near + 1).wrapping_mul(wide(near + 1)) > radicand);
        assert_eq!(whole_root(0, 5), Some(0));
        assert_eq!(whole_root(16, 0), Some(4));
        assert_eq!(whole_root(15, 0), Some(3));
        // More digits after the point than the result has.
        assert_eq!(root_of("0.000000000002").0, Err(Failure::NotExact));
    }

    // numeric.out
    #[test]
    fn whole_powers() {
        for (base, exponent, expected) in [
            ("0.0", "0", "1.0000000000000000"),
            ("-12.34", "0.0", "1.0000000000000000"),
            ("12.34", "0.0", "1.0000000000000000"),
            ("12.34", "1", "12.340000000000000"),
            ("12.34", "2", "152.27560000000000"),
            ("-3", "2", "9.0000000000000000"),
            ("-3", "3", "-27.000000000000000"),
            ("2", "10", "1024.0000000000000"),
            ("0", "2", "0.0000000000000000"),
            ("0.0", "3", "0.0000000000000000"),
            ("100000", "2", "10000000000.000000"),
            ("0.1", "3", "0.0010000000000000000"),
        ] {
            let (value, scale) = number(expected);
            let expected = with_scale(value, scale, 12).expect("a number");
            assert_eq!(
                power_of(base, exponent, 12),
                (Some(expected), scale),
                "{base} ^ {exponent}"
            );
        }
    }

    #[test]
    fn squares_are_rounded_to_what_postgres_shows() {
        // 152415787532275580095.5129: as many digits after the point as the base has, for want of others.
        let (square, scale) = power_of("12345678901.23", "2", 4);
        assert_eq!(scale, 2);
        let exact = 1_234_567_890_123i128 * 1_234_567_890_123;
        assert_eq!(square, Some(rounded(exact, Some(100)) * 100));
        // Ten digits after the point are three in base 10000. The square has six, but Postgres looks at five.
        assert_eq!(power_of("12345.1234567891", "2", 20), (None, 10));
        assert!(power_of("1.1234567891", "2", 20).0.is_some());
        assert_eq!(power_of("9999999999999999999999", "2", 0).0, None);
        assert!(Exponent::of(25, 1).is_none());
        assert!(Exponent::of(-1, 0).is_none());
        assert!(Exponent::of(1001, 0).is_none());
    }

    #[test]
    fn digits_are_taken_from_the_start() {
        assert_eq!(approximate((12, 0)), (12.0, 0));
        assert_eq!(approximate((123_456, 0)), (123_456.0, 0));
        assert_eq!(approximate((120_000, 0)), (12.0, 4));
        assert_eq!(approximate((1234, 2)), (123_400.0, -4));
        assert_eq!(approximate((5, 3)), (50.0, -4));
        assert_eq!(approximate((12_345_678, 5)), (12_345_678_000.0, -8));
        let long = 123_456_789_012_345_678_901i128;
        assert_eq!(approximate((long, 0)), (1_234_567_890_123.0, 8));
    }

    // numeric.out
    #[test]
    fn digits_that_are_needed() {
        let args = [decimal_array(&[0, 1, 10_000, -12_300, 5], 4)];
        let scales = result(Function::MinScale, &LakeType::Int4, &args);
        let scales = scales.as_primitive::<Int32Type>();
        assert_eq!(scales.values()[..], [0, 4, 0, 2, 4]);
    }

    #[test]
    fn columns_of_roots_and_powers() {
        let args = [decimal_array(&[400, 900], 2)];
        let found = result(Function::DecimalSqrt, &decimal(20), &args);
        let found = found.as_primitive::<Decimal128Type>();
        assert_eq!(found.values()[..], [2 * 10i128.pow(20), 3 * 10i128.pow(20)]);
        let scales = result(Function::DecimalSqrtScale, &LakeType::Int4, &args);
        assert_eq!(scales.as_primitive::<Int32Type>().values()[..], [15, 15]);
        let args = [decimal_array(&[400, 900], 2), decimal_array(&[2, 2], 0)];
        let found = result(Function::DecimalPower, &decimal(4), &args);
        let found = found.as_primitive::<Decimal128Type>();
        assert_eq!(found.values()[..], [160_000, 810_000]);
        let scales = result(Function::DecimalPowerScale, &LakeType::Int4, &args);
        assert_eq!(scales.as_primitive::<Int32Type>().values()[..], [15, 15]);
        // 144 and 36 zeros are 39 digits.
        let args = [
            decimal_array(&[12 * 10i128.pow(18)], 0),
            decimal_array(&[2], 0),
        ];
        let refused = error(Function::DecimalPower, &decimal(0), &args);
        assert_eq!(refused.code, ErrorCode::NotExact);
        let negative = [decimal_array(&[-1], 0)];
        let refused = error(Function::DecimalSqrt, &decimal(20), &negative);
        assert_eq!(refused.code, ErrorCode::NegativeRoot);
    }
}
