//! Numbers and booleans that are read from texts and from `jsonb` (`numutils.c`, `float.c`, `numeric.c`, `jsonb.c`).

use super::argument;
use super::convert::field_overflow;
use super::json::Kind;
use super::rows::{Rows, Texts};
use crate::arrow_types::arrow_type;
use crate::engine::error::{internal, not_exact, out_of_range};
use crate::engine::expr::Val;
use crate::engine::values::{from_i32, from_i64, from_i128, power_of_ten};
use arrow::array::{ArrayRef, BooleanArray, Float32Array, Float64Array};
use arrow::buffer::BooleanBuffer;
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::types::LakeType;
use std::str::FromStr;
use std::sync::Arc;

/// Whether there are values of this type to be read from texts.
pub(super) fn is_read(ty: &LakeType) -> bool {
    ty.is_float() || ty.is_integer() || ty.is_decimal()
}

/// Whether there are such in `jsonb`.
pub(super) fn is_scalar(ty: &LakeType) -> bool {
    *ty == LakeType::Bool || (is_read(ty) && *ty != LakeType::Float4)
}

/// `isspace`
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

fn invalid(text: &str, ty: &str) -> WireError {
    let message = format!("invalid input syntax for type {ty}: \"{text}\"");
    WireError::new(ErrorCode::InvalidText, message)
}

/// The input function of the type.
pub(super) fn read(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let (data_type, nulls) = (arrow_type(ty), rows.nulls());
    let given = |error: WireError| error;
    // What is in its range is a value of the type.
    let narrow = |text: &str, ty: &str, least: i64| integer(text, ty, least).map(|n| n as i32);
    Ok(match ty {
        LakeType::Int2 => {
            let number = |row| narrow(text.at(row), "smallint", i16::MIN.into());
            from_i32(rows.try_map(number, given)?, nulls, &data_type)
        }
        LakeType::Int4 => {
            let number = |row| narrow(text.at(row), "integer", i32::MIN.into());
            from_i32(rows.try_map(number, given)?, nulls, &data_type)
        }
        LakeType::Int8 => {
            let number = |row| integer(text.at(row), "bigint", i64::MIN);
            from_i64(rows.try_map(number, given)?, nulls, &data_type)
        }
        LakeType::Float4 => {
            let number = |row| float::<f32>(text.at(row));
            let values = rows.try_map(number, given)?;
            Arc::new(Float32Array::new(values.into(), nulls))
        }
        LakeType::Float8 => {
            let number = |row| float::<f64>(text.at(row));
            let values = rows.try_map(number, given)?;
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        LakeType::Decimal { precision, scale } => {
            let number = |row| decimal(text.at(row), *precision, *scale);
            from_i128(rows.try_map(number, given)?, nulls, &data_type)?
        }
        _ => return Err(internal("a text without a rule")),
    })
}

/// `pg_strtoint32_safe` and the like: digits to base 10, 16, 8 or 2, with underscores between them.
fn integer(text: &str, ty: &str, least: i64) -> Result<i64, WireError> {
    let (negative, digits) = signed(text.trim_start_matches(is_blank));
    let base = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => 16,
        [b'0', b'o' | b'O', ..] => 8,
        [b'0', b'b' | b'B', ..] => 2,
        _ => 10,
    };
    let prefix = if base == 10 { 0 } else { 2 };
    let mut rest = digits.chars().skip(prefix).peekable();
    let most = least.unsigned_abs();
    let (mut value, mut any) = (0_u64, false);
    while let Some(&c) = rest.peek() {
        if c == '_' && (any || base != 10) {
            rest.next();
            if !rest.peek().is_some_and(|c| c.is_digit(base)) {
                return Err(invalid(text, ty));
            }
            continue;
        }
        let Some(digit) = c.to_digit(base) else {
            break;
        };
        if value > most / u64::from(base) {
            return Err(beyond(text, ty));
        }
        value = value * u64::from(base) + u64::from(digit);
        any = true;
        rest.next();
    }
    if !any || !rest.all(is_blank) {
        return Err(invalid(text, ty));
    }
    let value = i128::from(value);
    let value = if negative { -value } else { value };
    let in_range = (i128::from(least)..i128::from(most)).contains(&value);
    let value = i64::try_from(value).ok().filter(|_| in_range);
    value.ok_or_else(|| beyond(text, ty))
}

fn beyond(text: &str, ty: &str) -> WireError {
    out_of_range(&format!("value \"{text}\" is out of range for type {ty}"))
}

fn signed(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// `float4in_internal`, `float8in_internal`: the longest number at the start is looked at first.
fn float<T: Float>(text: &str) -> Result<T, WireError> {
    let name = T::NAME;
    let start = text.trim_start_matches(is_blank);
    let length = number_length(start)?;
    let (number, rest) = start.split_at_checked(length).unwrap_or_default();
    let value: T = number.parse().map_err(|_| invalid(text, name))?;
    let mantissa = number.split(['e', 'E']).next().unwrap_or(number);
    let has_digits = number.bytes().any(|b| b.is_ascii_digit());
    let is_zero = !mantissa.bytes().any(|b| matches!(b, b'1'..=b'9'));
    let double: f64 = value.into();
    if (double.is_infinite() && has_digits) || (double == 0.0 && !is_zero) {
        let message = format!("\"{number}\" is out of range for type {name}");
        return Err(out_of_range(&message));
    }
    if !rest.chars().all(is_blank) {
        return Err(invalid(text, name));
    }
    Ok(value)
}

trait Float: FromStr + Into<f64> + Copy {
    const NAME: &'static str;
}

impl Float for f32 {
    const NAME: &'static str = "real";
}

impl Float for f64 {
    const NAME: &'static str = "double precision";
}

/// How much of a text `strtod` takes; 0 if there is no number.
fn number_length(text: &str) -> Result<usize, WireError> {
    let (_, unsigned) = signed(text);
    let sign = text.len() - unsigned.len();
    let is = |word: &str| {
        let start = unsigned.get(..word.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    if is("0x") || is("nan(") {
        return Err(not_exact("a text may be a number in hexadecimal digits"));
    }
    for word in ["infinity", "inf", "nan"] {
        if is(word) {
            return Ok(sign + word.len());
        }
    }
    let bytes = unsigned.as_bytes();
    let digits = |from: usize| {
        let rest = bytes.get(from..).unwrap_or_default();
        rest.iter().take_while(|b| b.is_ascii_digit()).count()
    };
    let whole = digits(0);
    let mut end = whole;
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if whole + fraction > 0 {
            end += 1 + fraction;
        }
    }
    if end == 0 {
        return Ok(0);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let signs = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + signs);
        if exponent > 0 {
            end += 1 + signs + exponent;
        }
    }
    Ok(sign + end)
}

/// `numeric_in`
fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, WireError> {
    let number = text.trim_matches(is_blank);
    let (_, digits) = signed(number);
    let has_digits = digits.bytes().any(|b| b.is_ascii_digit());
    let is_plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let points = digits.bytes().filter(|b| *b == b'.').count();
    if has_digits && is_plain && points < 2 {
        return fitted(number, precision, scale);
    }
    // An exponent, another base, or NaN and the like.
    if has_digits || digits.starts_with(['n', 'N', 'i', 'I']) {
        return Err(not_exact("a text isn't the plain form of a number"));
    }
    Err(invalid(text, "numeric"))
}

/// Digits and a point as a `numeric(precision, scale)`.
fn fitted(number: &str, precision: u8, scale: i8) -> Result<i128, WireError> {
    let bound = power_of_ten(precision.into())?;
    let value = rounded(number, scale.unsigned_abs().into());
    let value = value.filter(|value| value.abs() < bound);
    value.ok_or_else(|| field_overflow(precision.into(), scale.into()))
}

/// A number of digits and a point as a decimal of this scale, half away from zero; `None` if that is too large.
fn rounded(number: &str, scale: usize) -> Option<i128> {
    let (negative, digits) = signed(number);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let kept = fraction.get(..scale.min(fraction.len()))?;
    let up = fraction.as_bytes().get(scale).is_some_and(|b| *b >= b'5');
    let mut value: i128 = 0;
    let missing = scale - kept.len();
    let zeros = std::iter::repeat_n(b'0', missing);
    for digit in whole.bytes().chain(kept.bytes()).chain(zeros) {
        value = value
            .checked_mul(10)?
            .checked_add(digit.saturating_sub(b'0').into())?;
    }
    let value = value.checked_add(i128::from(up))?;
    Some(if negative { -value } else { value })
}

/// `jsonb_int4` and the like.
pub(super) fn scalar(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let value = Texts::of(argument(args, 0)?)?;
    let (data_type, nulls) = (arrow_type(ty), rows.nulls());
    let given = |error: WireError| error;
    let (name, wide) = match ty {
        LakeType::Bool => ("boolean", ""),
        LakeType::Int2 => ("smallint", "smallint out of range"),
        LakeType::Int4 => ("integer", "integer out of range"),
        LakeType::Int8 => ("bigint", "bigint out of range"),
        LakeType::Float8 => ("double precision", ""),
        _ => ("numeric", ""),
    };
    let number = |row| -> Result<&str, WireError> {
        match Kind::of(value.at(row))? {
            Kind::Number => Ok(value.at(row)),
            kind => Err(refused(kind, name)),
        }
    };
    let integer = |row| -> Result<i64, WireError> {
        let number = rounded(number(row)?, 0).and_then(|number| i64::try_from(number).ok());
        number.ok_or_else(|| out_of_range(wide))
    };
    let narrow = |row, from: i32, upto: i32| -> Result<i32, WireError> {
        let number = i32::try_from(integer(row)?).ok();
        let number = number.filter(|number| (from..=upto).contains(number));
        number.ok_or_else(|| out_of_range(wide))
    };
    Ok(match ty {
        LakeType::Bool => {
            let truth = |row| -> Result<bool, WireError> {
                match Kind::of(value.at(row))? {
                    Kind::Boolean => Ok(value.at(row) == "true"),
                    kind => Err(refused(kind, name)),
                }
            };
            let values = BooleanBuffer::from(rows.try_map(truth, given)?);
            Arc::new(BooleanArray::new(values, nulls))
        }
        LakeType::Int2 => {
            let small = |row| narrow(row, i16::MIN.into(), i16::MAX.into());
            from_i32(rows.try_map(small, given)?, nulls, &data_type)
        }
        LakeType::Int4 => {
            let plain = |row| narrow(row, i32::MIN, i32::MAX);
            from_i32(rows.try_map(plain, given)?, nulls, &data_type)
        }
        LakeType::Int8 => from_i64(rows.try_map(integer, given)?, nulls, &data_type),
        LakeType::Float8 => {
            let float = |row| -> Result<f64, WireError> { float(number(row)?) };
            let values = rows.try_map(float, given)?;
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        LakeType::Decimal { precision, scale } => {
            let decimal =
                |row| -> Result<i128, WireError> { fitted(number(row)?, *precision, *scale) };
            from_i128(rows.try_map(decimal, given)?, nulls, &data_type)?
        }
        _ => return Err(internal("a jsonb without a rule")),
    })
}

/// `cannotCastJsonbValue`
fn refused(kind: Kind, ty: &str) -> WireError {
    let kind = match kind {
        Kind::Number => "numeric",
        kind => kind.name(),
    };
    let message = format!("cannot cast jsonb {kind} to type {ty}");
    WireError::new(ErrorCode::InvalidParameter, message)
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Decimal128Type, Float32Type, Float64Type, Int32Type};
    use pg_lake_plan::function::Function;

    fn int4(function: Function, value: &str) -> Result<i32, (ErrorCode, String)> {
        super::super::call(function, &LakeType::Int4, &[text(value)], None)
            .map(|read| read.array().as_primitive::<Int32Type>().value(0))
            .map_err(|error| (error.code, error.message))
    }

    #[test]
    fn integers_are_read() {
        let read = |text| int4(Function::Read, text);
        for (text, expected) in [
            ("42", 42),
            (" \t-42\n", -42),
            ("-2147483648", i32::MIN),
            ("2147483647", i32::MAX),
            ("+0x1F", 31),
            ("0o17", 15),
            ("-0b1_0", -2),
            ("0x_10", 16),
            ("1_000", 1000),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        for text in [
            "", " ", "a", "1.0", "1_", "_1", "1__0", "0x", "- 1", "1 2", "٣",
        ] {
            let message = format!("invalid input syntax for type integer: \"{text}\"");
            assert_eq!(read(text), Err((ErrorCode::InvalidText, message)));
        }
        for text in ["2147483648", "-2147483649", "99999999999x", "0x80000000"] {
            let message = format!("value \"{text}\" is out of range for type integer");
            assert_eq!(read(text), Err((ErrorCode::OutOfRange, message)));
        }
        let nulls = result(
            Function::Read,
            &LakeType::Int4,
            &[texts(&[None, Some("1")])],
        );
        assert_eq!(nulls.null_count(), 1);
    }

    #[test]
    fn floats_are_read() {
        let float = |value| {
            super::super::call(Function::Read, &LakeType::Float8, &[text(value)], None)
                .map(|read| read.array().as_primitive::<Float64Type>().value(0))
                .map_err(|error| error.code)
        };
        assert_eq!(float("1.5e3"), Ok(1500.0));
        assert_eq!(float("0e5"), Ok(0.0));
        assert_eq!(float("5e-324"), Ok(5e-324));
        assert_eq!(float(" -Infinity "), Ok(f64::NEG_INFINITY));
        assert!(float("NaN").is_ok_and(f64::is_nan));
        for (other, code) in [
            ("1e400", ErrorCode::OutOfRange),
            ("1e-400", ErrorCode::OutOfRange),
            ("", ErrorCode::InvalidText),
            ("1e", ErrorCode::InvalidText),
            ("1 2", ErrorCode::InvalidText),
            (".", ErrorCode::InvalidText),
            ("+-1", ErrorCode::InvalidText),
            ("infinit", ErrorCode::InvalidText),
            ("1x", ErrorCode::InvalidText),
            ("0x10", ErrorCode::NotExact),
            ("-0X", ErrorCode::NotExact),
            ("nan(1)", ErrorCode::NotExact),
        ] {
            assert_eq!(float(other), Err(code), "{other}");
        }
    }

    // float.c: the range of the number is checked before what comes behind it.
    #[test]
    fn numbers_out_of_range_come_before_other_texts() {
        let message = |ty: &LakeType, value: &str| {
            let refused = error(Function::Read, ty, &[text(value)]);
            (refused.code, refused.message)
        };
        let beyond = |number: &str, ty: &str| {
            let message = format!("\"{number}\" is out of range for type {ty}");
            (ErrorCode::OutOfRange, message)
        };
        let invalid = |text: &str, ty: &str| {
            let message = format!("invalid input syntax for type {ty}: \"{text}\"");
            (ErrorCode::InvalidText, message)
        };
        for (value, number) in [
            ("1e400x", "1e400"),
            (" -1e400e", "-1e400"),
            ("1e-400 1", "1e-400"),
            ("1e400.5", "1e400"),
            (".1e-999999999999 ", ".1e-999999999999"),
        ] {
            let double = message(&LakeType::Float8, value);
            assert_eq!(double, beyond(number, "double precision"));
            let single = message(&LakeType::Float4, value);
            assert_eq!(single, beyond(number, "real"));
        }
        assert_eq!(message(&LakeType::Float4, "1e40x"), beyond("1e40", "real"));
        let double = message(&LakeType::Float8, " 1e40x");
        assert_eq!(double, invalid(" 1e40x", "double precision"));
        assert_eq!(message(&LakeType::Float4, "1f"), invalid("1f", "real"));
        assert_eq!(message(&LakeType::Float4, " "), invalid(" ", "real"));
    }

    #[test]
    fn reals_are_rounded_once() {
        let real = |value| {
            let read = result(Function::Read, &LakeType::Float4, &[text(value)]);
            read.as_primitive::<Float32Type>().value(0)
        };
        assert_eq!(real(" 0.1\t"), 0.1);
        assert_eq!(real("1e-45"), f32::from_bits(1));
        assert_eq!(real("7.038531e-26"), f32::from_bits(0x15AE_43FD));
        assert_eq!(real("+inf"), f32::INFINITY);
        assert!(real("-nan").is_nan());
    }

    #[test]
    fn decimals_are_read() {
        let ty = LakeType::Decimal {
            precision: 5,
            scale: 2,
        };
        let read = |value| {
            super::super::call(Function::Read, &ty, &[text(value)], None)
                .map(|read| read.array().as_primitive::<Decimal128Type>().value(0))
                .map_err(|error| error.code)
        };
        for (value, expected) in [
            ("1", 100),
            ("-1.005", -101),
            ("1.0049", 100),
            ("999.99", 99_999),
            ("0.1", 10),
            (" +.5 ", 50),
            ("7.", 700),
        ] {
            assert_eq!(read(value), Ok(expected), "{value}");
        }
        for (other, code) in [
            ("999.995", ErrorCode::OutOfRange),
            ("1e2", ErrorCode::NotExact),
            ("NaN", ErrorCode::NotExact),
            ("1.2.3", ErrorCode::NotExact),
            (".", ErrorCode::InvalidText),
            ("", ErrorCode::InvalidText),
            ("abc", ErrorCode::InvalidText),
        ] {
            assert_eq!(read(other), Err(code), "{other}");
        }
    }

    // jsonb.out
    #[test]
    fn scalars_of_jsonb() {
        let cast = |value| int4(Function::JsonScalar, value);
        assert_eq!(cast("12345"), Ok(12345));
        assert_eq!(cast("12345.5"), Ok(12346));
        assert_eq!(cast("-0.5"), Ok(-1));
        let large = Err((ErrorCode::OutOfRange, "integer out of range".to_owned()));
        assert_eq!(cast("2147483648"), large);
        assert_eq!(cast("1000000000000000000000000000000000000000000"), large);
        for (value, kind) in [
            ("\"1\"", "string"),
            ("true", "boolean"),
            ("null", "null"),
            ("[]", "array"),
            ("{}", "object"),
        ] {
            let message = format!("cannot cast jsonb {kind} to type integer");
            assert_eq!(cast(value), Err((ErrorCode::InvalidParameter, message)));
        }
        let bools = [texts(&[Some("true"), Some("false"), None])];
        let bools = result(Function::JsonScalar, &LakeType::Bool, &bools);
        let bools: Vec<Option<bool>> = bools.as_boolean().iter().collect();
        assert_eq!(bools, [Some(true), Some(false), None]);
        let refused = error(Function::JsonScalar, &LakeType::Bool, &[text("1")]);
        assert_eq!(refused.message, "cannot cast jsonb numeric to type boolean");
    }
}
