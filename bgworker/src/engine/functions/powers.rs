//! Powers and logarithms of floats, by the C library that Postgres calls, too (`float.c`); divisors of integers and decimals
//! (`int.c`, `int8.c`, `numeric.c`).
//!
//! Rust's own library has a `cbrt`, which is linked instead of the C library's and rounds otherwise: cube roots stay in
//! Postgres.

use super::argument;
use super::numbers::{decimals, unit};
use super::rows::{Rows, f64s, i32s, i64s};
use crate::arrow_types::arrow_type;
use crate::engine::arith::TOO_LARGE;
use crate::engine::error::{not_exact, out_of_range};
use crate::engine::expr::Val;
use crate::engine::values::{from_i32, from_i64, from_i128};
use arrow::array::{ArrayRef, Float64Array};
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::types::LakeType;
use std::ops::Rem;
use std::sync::Arc;

/// Why there is no such float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Overflow,
    Underflow,
    LogarithmOfZero,
    LogarithmOfNegative,
    ZeroToNegative,
    Complex,
    /// Whether Postgres raises an error is up to the C library.
    Unknown,
}

impl Failure {
    fn error(self) -> WireError {
        let power = |message| WireError::new(ErrorCode::NegativeRoot, message);
        let logarithm = |message| WireError::new(ErrorCode::Logarithm, message);
        match self {
            Failure::Overflow => out_of_range("value out of range: overflow"),
            Failure::Underflow => out_of_range("value out of range: underflow"),
            Failure::LogarithmOfZero => logarithm("cannot take logarithm of zero"),
            Failure::LogarithmOfNegative => logarithm("cannot take logarithm of a negative number"),
            Failure::ZeroToNegative => power("zero raised to a negative power is undefined"),
            Failure::Complex => {
                power("a negative number raised to a non-integer power yields a complex result")
            }
            Failure::Unknown => not_exact("a power is too small for the engine"),
        }
    }
}

/// A result of finite arguments, which can't be zero unless `zero`.
fn checked(result: f64, zero: bool) -> Result<f64, Failure> {
    if result.is_nan() || result.is_subnormal() {
        Err(Failure::Unknown)
    } else if result.is_infinite() {
        Err(Failure::Overflow)
    } else if result == 0.0 && !zero {
        Err(Failure::Underflow)
    } else {
        Ok(result)
    }
}

/// `dpow`
fn power(base: f64, exponent: f64) -> Result<f64, Failure> {
    if base.is_nan() || exponent.is_nan() {
        return Ok(if exponent == 0.0 || base == 1.0 {
            1.0
        } else {
            f64::NAN
        });
    }
    if base == 0.0 && exponent < 0.0 {
        return Err(Failure::ZeroToNegative);
    }
    if base < 0.0 && exponent.floor() != exponent {
        return Err(Failure::Complex);
    }
    if exponent.is_infinite() {
        let size = base.abs();
        return Ok(if size == 1.0 {
            1.0
        } else if (size > 1.0) == (exponent > 0.0) {
            f64::INFINITY
        } else {
            0.0
        });
    }
    if base.is_infinite() {
        return Ok(infinite_base(base, exponent));
    }
    checked(base.powf(exponent), base == 0.0)
}

fn infinite_base(base: f64, exponent: f64) -> f64 {
    let half = exponent / 2.0;
    let odd = half.floor() != half;
    match (exponent > 0.0, base > 0.0) {
        _ if exponent == 0.0 => 1.0,
        (true, true) => base,
        (false, true) => 0.0,
        (true, false) if odd => base,
        (true, false) => -base,
        (false, false) if odd => -0.0,
        (false, false) => 0.0,
    }
}

/// `dexp`
fn exp(value: f64) -> Result<f64, Failure> {
    if value.is_nan() {
        Ok(value)
    } else if value.is_infinite() {
        Ok(value.max(0.0))
    } else {
        checked(value.exp(), false)
    }
}

/// `dlog1`, `dlog10`
fn logarithm(value: f64, of: impl Fn(f64) -> f64) -> Result<f64, Failure> {
    if value == 0.0 {
        Err(Failure::LogarithmOfZero)
    } else if value < 0.0 {
        Err(Failure::LogarithmOfNegative)
    } else if value.is_finite() {
        checked(of(value), value == 1.0)
    } else {
        Ok(value)
    }
}

fn each(
    rows: &Rows,
    args: &[Val],
    f: impl Fn(f64) -> Result<f64, Failure>,
) -> Result<ArrayRef, WireError> {
    let arg = f64s(argument(args, 0)?)?;
    let values: Vec<f64> = rows.try_map(|row| f(arg.at(row)), Failure::error)?;
    Ok(Arc::new(Float64Array::new(values.into(), rows.nulls())))
}

pub(super) fn powers(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (base, exponent) = (f64s(argument(args, 0)?)?, f64s(argument(args, 1)?)?);
    let of_row = |row| power(base.at(row), exponent.at(row));
    let values: Vec<f64> = rows.try_map(of_row, Failure::error)?;
    Ok(Arc::new(Float64Array::new(values.into(), rows.nulls())))
}

pub(super) fn exponentials(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    each(rows, args, exp)
}

pub(super) fn natural_logarithms(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    each(rows, args, |value| logarithm(value, f64::ln))
}

pub(super) fn decimal_logarithms(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    each(rows, args, |value| logarithm(value, f64::log10))
}

/// `numeric_fac`
pub(super) fn factorials(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let arg = i64s(argument(args, 0)?)?;
    let of_row = |row| {
        let n = arg.at(row);
        if n < 0 {
            return Err(out_of_range("factorial of a negative number is undefined"));
        }
        // More have more digits than decimals, or Postgres raises an error.
        if n > 33 {
            return Err(not_exact(TOO_LARGE));
        }
        Ok((2..=i128::from(n)).product::<i128>())
    };
    let values = rows.try_map(of_row, |error| error)?;
    from_i128(values, rows.nulls(), &arrow_type(ty))
}

/// The greatest common divisor; that of zeros is 0.
fn divisor<T: Copy + Default + PartialEq + Rem<Output = T>>(mut a: T, mut b: T) -> T {
    while b != T::default() {
        (a, b) = (b, a % b);
    }
    a
}

/// That of decimals, or their least common multiple: of whole numbers of their smallest unit.
fn common_decimals(
    rows: &Rows,
    ty: &LakeType,
    args: &[Val],
    of_multiples: bool,
) -> Result<ArrayRef, WireError> {
    let (left, left_scale) = decimals(argument(args, 0)?)?;
    let (right, right_scale) = decimals(argument(args, 1)?)?;
    let scale = left_scale.max(right_scale);
    let units = |value: i128, own: i32| {
        let value = unit(scale - own).and_then(|unit| value.checked_mul(unit));
        value.map(i128::unsigned_abs)
    };
    let of_row = |row| {
        let a = units(left.at(row), left_scale).ok_or(())?;
        let b = units(right.at(row), right_scale).ok_or(())?;
        let divisor = divisor(a, b);
        let found = match of_multiples {
            false => Some(divisor),
            true if divisor == 0 => Some(0),
            true => (a / divisor).checked_mul(b),
        };
        let found = found.and_then(|found| i128::try_from(found).ok());
        found.filter(|found| *found < DECIMAL_END).ok_or(())
    };
    let values = rows.try_map(of_row, |()| not_exact(TOO_LARGE))?;
    from_i128(values, rows.nulls(), &arrow_type(ty))
}

/// The least number of more digits than decimals have.
const DECIMAL_END: i128 = 10i128.pow(38);

/// The least common multiple; that of a zero is 0.
fn multiple(a: u64, b: u64) -> Option<u64> {
    match divisor(a, b) {
        0 => Some(0),
        common => (a / common).checked_mul(b),
    }
}

/// `gcd`, or `lcm` if `of_multiples`.
pub(super) fn common(
    rows: &Rows,
    ty: &LakeType,
    args: &[Val],
    of_multiples: bool,
) -> Result<ArrayRef, WireError> {
    let of = |a: u64, b: u64| {
        if of_multiples {
            multiple(a, b)
        } else {
            Some(divisor(a, b))
        }
    };
    if ty.is_decimal() {
        return common_decimals(rows, ty, args, of_multiples);
    }
    let (left, right) = (argument(args, 0)?, argument(args, 1)?);
    let (data_type, nulls) = (arrow_type(ty), rows.nulls());
    if *ty == LakeType::Int8 {
        let (left, right) = (i64s(left)?, i64s(right)?);
        let of_row = |row| {
            let found = of(left.at(row).unsigned_abs(), right.at(row).unsigned_abs());
            found.and_then(|n| i64::try_from(n).ok()).ok_or(())
        };
        let values = rows.try_map(of_row, |()| out_of_range("bigint out of range"))?;
        return Ok(from_i64(values, nulls, &data_type));
    }
    let (left, right) = (i32s(left)?, i32s(right)?);
    let of_row = |row| {
        let (left, right) = (left.at(row).unsigned_abs(), right.at(row).unsigned_abs());
        let found = of(left.into(), right.into());
        found.and_then(|n| i32::try_from(n).ok()).ok_or(())
    };
    let values = rows.try_map(of_row, |()| out_of_range("integer out of range"))?;
    Ok(from_i32(values, nulls, &data_type))
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{Decimal128Type, Float64Type, Int32Type, Int64Type};
    use pg_lake_plan::function::Function;

    // float8.out
    #[test]
    fn powers_of_what_is_not_finite() {
        let (nan, infinity) = (f64::NAN, f64::INFINITY);
        for (base, exponent, expected) in [
            (nan, 0.0, 1.0),
            (1.0, nan, 1.0),
            (infinity, 3.5, infinity),
            (infinity, -3.5, 0.0),
            (-infinity, 2.0, infinity),
            (-infinity, 3.0, -infinity),
            (-infinity, -3.0, -0.0),
            (-infinity, -2.0, 0.0),
            (0.1, infinity, 0.0),
            (-0.1, infinity, 0.0),
            (1.1, infinity, infinity),
            (0.1, -infinity, infinity),
            (1.1, -infinity, 0.0),
            (-1.0, infinity, 1.0),
            (infinity, 0.0, 1.0),
            (0.0, 0.0, 1.0),
            (0.0, infinity, 0.0),
            (144.0, 0.5, 12.0),
            (-2.0, 3.0, -8.0),
        ] {
            let result = power(base, exponent).map(f64::to_bits);
            assert_eq!(result, Ok(expected.to_bits()), "{base} ^ {exponent}");
        }
        assert!(power(nan, nan).is_ok_and(f64::is_nan));
        assert!(power(nan, 2.0).is_ok_and(f64::is_nan));
        assert!(power(2.0, nan).is_ok_and(f64::is_nan));
    }

    #[test]
    fn powers_that_there_are_not() {
        assert_eq!(power(0.0, -1.0), Err(Failure::ZeroToNegative));
        assert_eq!(power(0.0, f64::NEG_INFINITY), Err(Failure::ZeroToNegative));
        assert_eq!(power(-2.0, 0.5), Err(Failure::Complex));
        assert_eq!(power(1e200, 2.0), Err(Failure::Overflow));
        assert_eq!(power(1e-200, 2.0), Err(Failure::Underflow));
        assert_eq!(power(1e-155, 2.0), Err(Failure::Unknown));
        assert_eq!(exp(1000.0), Err(Failure::Overflow));
        assert_eq!(exp(-1000.0), Err(Failure::Underflow));
        assert_eq!(exp(f64::NEG_INFINITY), Ok(0.0));
        assert_eq!(exp(f64::INFINITY), Ok(f64::INFINITY));
        let ln = |value| logarithm(value, f64::ln);
        assert_eq!(ln(0.0), Err(Failure::LogarithmOfZero));
        assert_eq!(ln(-1.0), Err(Failure::LogarithmOfNegative));
        assert_eq!(ln(1.0), Ok(0.0));
        assert_eq!(ln(f64::INFINITY), Ok(f64::INFINITY));
        assert_eq!(logarithm(1000.0, f64::log10), Ok(3.0));
    }

    #[test]
    fn errors_have_their_codes() {
        let float = |value| column(Float64Array::from(vec![value]));
        let code = |function, args: &[Val]| error(function, &LakeType::Float8, args).code;
        assert_eq!(code(Function::Ln, &[float(0.0)]), ErrorCode::Logarithm);
        assert_eq!(code(Function::Log10, &[float(-1.0)]), ErrorCode::Logarithm);
        assert_eq!(code(Function::Exp, &[float(1e5)]), ErrorCode::OutOfRange);
        let args = [float(-1.0), float(0.5)];
        assert_eq!(code(Function::Power, &args), ErrorCode::NegativeRoot);
        let one = result(Function::Exp, &LakeType::Float8, &[float(0.0)]);
        assert_eq!(one.as_primitive::<Float64Type>().value(0), 1.0);
    }

    // int4.out, int8.out
    #[test]
    fn divisors_and_multiples() {
        let of = |function, a, b| {
            let args = [int(a), int(b)];
            let result = result(function, &LakeType::Int4, &args);
            result.as_primitive::<Int32Type>().value(0)
        };
        for (a, b, gcd) in [
            (0, 0, 0),
            (0, 6_410_818, 6_410_818),
            (61_866_666, 6_410_818, 1466),
            (-61_866_666, 6_410_818, 1466),
            (i32::MIN, 1, 1),
            (i32::MIN, i32::MAX, 1),
            (i32::MIN, 1_073_741_824, 1_073_741_824),
            (i32::MIN, -1, 1),
        ] {
            assert_eq!(of(Function::Gcd, a, b), gcd);
            assert_eq!(of(Function::Gcd, b, a), gcd);
        }
        for (a, b, lcm) in [(0, 42, 0), (42, 42, 42), (330, 462, 2310), (i32::MIN, 0, 0)] {
            assert_eq!(of(Function::Lcm, a, b), lcm);
        }
        for (function, a, b) in [
            (Function::Gcd, i32::MIN, 0),
            (Function::Gcd, i32::MIN, i32::MIN),
            (Function::Lcm, i32::MIN, 1),
            (Function::Lcm, i32::MAX, i32::MAX - 1),
        ] {
            let error = error(function, &LakeType::Int4, &[int(a), int(b)]);
            assert_eq!(error.message, "integer out of range");
        }
        let wide = |value| column(Int64Array::from(vec![value]));
        let args = [wide(288_484_263_558), wide(29_893_644_334)];
        let gcd = result(Function::Gcd, &LakeType::Int8, &args);
        assert_eq!(gcd.as_primitive::<Int64Type>().value(0), 6_835_958);
        let args = [wide(i64::MIN), wide(0)];
        let error = error(Function::Gcd, &LakeType::Int8, &args);
        assert_eq!(error.message, "bigint out of range");
    }

    // numeric.out
    #[test]
    fn factorials_have_their_range() {
        let wide = |value| [column(Int64Array::from(vec![value]))];
        let of = |value| {
            let found = result(Function::Factorial, &decimal(0), &wide(value));
            found.as_primitive::<Decimal128Type>().value(0)
        };
        assert_eq!([of(0), of(1), of(4)], [1, 1, 24]);
        assert_eq!(of(15), 1_307_674_368_000);
        assert_eq!(of(33), 8_683_317_618_811_886_495_518_194_401_280_000_000);
        let code = |value| error(Function::Factorial, &decimal(0), &wide(value)).code;
        assert_eq!(code(34), ErrorCode::NotExact);
        assert_eq!(code(-4), ErrorCode::OutOfRange);
    }

    // numeric.out
    #[test]
    fn divisors_and_multiples_of_decimals() {
        let of = |function, (a, a_scale), (b, b_scale)| {
            let ty = decimal(std::cmp::max(a_scale, b_scale));
            let args = [decimal_array(&[a], a_scale), decimal_array(&[b], b_scale)];
            let result = result(function, &ty, &args);
            result.as_primitive::<Decimal128Type>().value(0)
        };
        for (a, b, gcd) in [
            ((0, 0), (0, 0), 0),
            ((0, 0), (46_375, 0), 46_375),
            ((0, 0), (46_375, 2), 46_375),
            ((433_125, 2), (46_375, 2), 875),
            ((43_312_500, 2), (46_375, 0), 87_500),
            ((-433_125, 2), (46_375, 2), 875),
        ] {
            assert_eq!(of(Function::Gcd, a, b), gcd, "{a:?} and {b:?}");
            assert_eq!(of(Function::Gcd, b, a), gcd, "{b:?} and {a:?}");
        }
        for (a, b, lcm) in [
            ((0, 0), (0, 0), 0),
            ((0, 0), (13_272, 0), 0),
            ((13_272, 0), (13_272, 0), 13_272),
            ((423_282, 0), (13_272, 0), 11_851_896),
            ((423_282, 1), (13_272, 1), 11_851_896),
            ((-5, 1), (25, 2), 50),
        ] {
            assert_eq!(of(Function::Lcm, a, b), lcm, "{a:?} and {b:?}");
            assert_eq!(of(Function::Lcm, b, a), lcm, "{b:?} and {a:?}");
        }
        let large = 10i128.pow(37);
        let args = [decimal_array(&[large], 0), decimal_array(&[large - 1], 0)];
        let error = error(Function::Lcm, &decimal(0), &args);
        assert_eq!(error.code, ErrorCode::NotExact);
    }
}
