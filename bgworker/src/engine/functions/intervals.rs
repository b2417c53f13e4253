//! Intervals (`timestamp.c`): texts, as Postgres prints them under `IntervalStyle = postgres`, which is how columns are
//! stored. Infinite ones are compared; all else of them is left to Postgres.

use super::argument;
use super::calendar::{DAY, HOUR, MINUTE, SECOND, days_of_month, j2date};
use super::dates::{self, split};
use super::rows::{Rows, Texts, f64s, i32s, i64s};
use super::zones::{near_the_end, plus_at};
use crate::arrow_types::arrow_type;
use crate::engine::error::{datetime_overflow, division_by_zero, not_exact, out_of_range};
use crate::engine::expr::Val;
use crate::engine::values::{from_i64, from_i128};
use arrow::array::{ArrayRef, Float64Array};
use pg_lake_plan::function::{Field, Interval};
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::types::LakeType;
use std::fmt::Write;
use std::sync::Arc;

const DAYS_PER_MONTH: i32 = 30;
const SECS_PER_DAY: f64 = 86_400.0;

/// `INTERVAL_NOEND`, `INTERVAL_NOBEGIN`: the infinite ones.
const NOEND: Interval = Interval {
    months: i32::MAX,
    days: i32::MAX,
    microseconds: i64::MAX,
};
const NOBEGIN: Interval = Interval {
    months: i32::MIN,
    days: i32::MIN,
    microseconds: i64::MIN,
};

/// Why there is no such interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Failure {
    OutOfRange,
    DivisionByZero,
    Infinite,
    /// A text isn't one that Postgres prints.
    Damaged,
}

impl Failure {
    pub(in crate::engine) fn error(self) -> WireError {
        match self {
            Failure::OutOfRange => datetime_overflow("interval out of range"),
            Failure::DivisionByZero => division_by_zero(),
            Failure::Infinite => not_exact("an interval is infinite"),
            Failure::Damaged => WireError::new(
                ErrorCode::DataCorrupted,
                "a value of type interval is damaged",
            ),
        }
    }
}

type Made<T> = Result<T, Failure>;

/// The interval that is printed so.
pub(in crate::engine) fn parse(text: &str) -> Made<Interval> {
    match text {
        "infinity" | "-infinity" => Err(Failure::Infinite),
        text => read(text).ok_or(Failure::Damaged),
    }
}

fn read(text: &str) -> Option<Interval> {
    let (mut months, mut days, mut microseconds) = (0_i64, 0_i64, 0_i128);
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        if word.contains(':') {
            microseconds = read_time(word)?;
            continue;
        }
        let number: i32 = word.parse().ok()?;
        match words.next()? {
            "year" | "years" => months += i64::from(number) * 12,
            "mon" | "mons" => months += i64::from(number),
            "day" | "days" => days = number.into(),
            _ => return None,
        }
    }
    Some(Interval {
        months: i32::try_from(months).ok()?,
        days: i32::try_from(days).ok()?,
        microseconds: i64::try_from(microseconds).ok()?,
    })
}

/// Hours, minutes and seconds with a fraction, and the sign of them all.
fn read_time(word: &str) -> Option<i128> {
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let mut parts = digits.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let missing = 6_usize.checked_sub(fraction.len())?;
    let rest = match fraction {
        "" => 0,
        fraction => number(fraction)? * 10_i128.pow(u32::try_from(missing).ok()?),
    };
    let whole = number(hours)? * i128::from(HOUR)
        + number(minutes)? * i128::from(MINUTE)
        + number(seconds)? * i128::from(SECOND);
    let time = whole + rest;
    let complete = parts.next().is_none();
    complete.then_some(if negative { -time } else { time })
}

fn number(digits: &str) -> Option<i128> {
    let number: u64 = digits.parse().ok()?;
    Some(number.into())
}

/// `EncodeInterval`
pub(in crate::engine) fn print(interval: Interval, text: &mut String) {
    // What is written to a string is taken.
    let parts = [
        (interval.months / 12, "year"),
        (interval.months % 12, "mon"),
        (interval.days, "day"),
    ];
    let mut before = false;
    for (value, unit) in parts {
        if value == 0 {
            continue;
        }
        let space = if text.is_empty() { "" } else { " " };
        let plus = if before && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        let _ = write!(text, "{space}{plus}{value} {unit}{plural}");
        before = value < 0;
    }
    if interval.microseconds == 0 && !text.is_empty() {
        return;
    }
    let space = if text.is_empty() { "" } else { " " };
    let sign = match (interval.microseconds < 0, before) {
        (true, _) => "-",
        (false, true) => "+",
        (false, false) => "",
    };
    let time = i128::from(interval.microseconds).abs();
    let part = |unit: i64, of: i64| time % i128::from(of) / i128::from(unit);
    let hours = time / i128::from(HOUR);
    let (minutes, seconds) = (part(MINUTE, HOUR), part(SECOND, MINUTE));
    let _ = write!(text, "{space}{sign}{hours:02}:{minutes:02}:{seconds:02}");
    let fraction = part(1, SECOND);
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        let _ = write!(text, ".{}", digits.trim_end_matches('0'));
    }
}

/// `interval_cmp_value`: in microseconds.
pub(in crate::engine) fn length(interval: Interval) -> i128 {
    let days = i128::from(interval.months) * i128::from(DAYS_PER_MONTH) + i128::from(interval.days);
    days * i128::from(DAY) + i128::from(interval.microseconds)
}

pub(super) fn lengths(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let compared = |row| -> Made<i128> {
        Ok(length(match text.at(row) {
            "infinity" => NOEND,
            "-infinity" => NOBEGIN,
            text => parse(text)?,
        }))
    };
    let values = rows.try_map(compared, Failure::error)?;
    from_i128(values, rows.nulls(), &arrow_type(ty))
}

/// `interval_part_common`, in units of the field's scale.
fn field_of(field: Field, of: Interval) -> i128 {
    let (years, months) = (of.months / 12, of.months % 12);
    let time = of.microseconds;
    match field {
        Field::Millennium => (years / 1000).into(),
        Field::Century => (years / 100).into(),
        Field::Decade => (years / 10).into(),
        Field::Year => years.into(),
        Field::Quarter => (months / 3 + 1).into(),
        Field::Month => months.into(),
        Field::Day => of.days.into(),
        Field::Hour => (time / HOUR).into(),
        Field::Minute => (time % HOUR / MINUTE).into(),
        Field::Epoch => {
            // Years have 365.25 days here.
            let quarters = i128::from(years) * 1461 + i128::from(months) * 120;
            let seconds = (quarters + i128::from(of.days) * 4) * 21_600;
            seconds * i128::from(SECOND) + i128::from(time)
        }
        _ => (time % MINUTE).into(),
    }
}

/// The same as `date_part` has it.
fn float_of(field: Field, of: Interval) -> f64 {
    let time = of.microseconds % MINUTE;
    let (seconds, rest) = ((time / SECOND) as f64, (time % SECOND) as f64);
    match field {
        Field::Second => seconds + rest / 1_000_000.0,
        Field::Millisecond => seconds * 1000.0 + rest / 1000.0,
        Field::Epoch => {
            let mut epoch = of.microseconds as f64 / 1_000_000.0;
            epoch += 365.25 * SECS_PER_DAY * f64::from(of.months / 12);
            epoch += f64::from(DAYS_PER_MONTH) * SECS_PER_DAY * f64::from(of.months % 12);
            epoch + SECS_PER_DAY * f64::from(of.days)
        }
        _ => field_of(field, of) as f64,
    }
}

pub(super) fn part(
    rows: &Rows,
    ty: &LakeType,
    field: Field,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    if *ty == LakeType::Float8 {
        let of_row = |row| parse(text.at(row)).map(|interval| float_of(field, interval));
        let values = rows.try_map(of_row, Failure::error)?;
        return Ok(Arc::new(Float64Array::new(values.into(), rows.nulls())));
    }
    let of_row = |row| parse(text.at(row)).map(|interval| field_of(field, interval));
    let values = rows.try_map(of_row, Failure::error)?;
    from_i128(values, rows.nulls(), &arrow_type(ty))
}

/// An interval that isn't one of the infinite ones.
pub(in crate::engine) fn finite(
    months: Option<i32>,
    days: Option<i32>,
    microseconds: Option<i64>,
) -> Made<Interval> {
    let (Some(months), Some(days), Some(microseconds)) = (months, days, microseconds) else {
        return Err(Failure::OutOfRange);
    };
    let interval = Interval {
        months,
        days,
        microseconds,
    };
    if interval == NOEND || interval == NOBEGIN {
        return Err(Failure::OutOfRange);
    }
    Ok(interval)
}

/// An interval for each row.
fn printed(
    rows: &Rows,
    inputs: &[&Texts<'_>],
    of_row: impl Fn(usize) -> Made<Interval>,
) -> Result<ArrayRef, WireError> {
    let mut text = String::new();
    rows.texts(inputs, |row, out| {
        let interval = of_row(row).map_err(Failure::error)?;
        text.clear();
        print(interval, &mut text);
        out.append(&text)
    })
}

/// `interval_pl`
pub(super) fn sum(left: Interval, right: Interval) -> Made<Interval> {
    finite(
        left.months.checked_add(right.months),
        left.days.checked_add(right.days),
        left.microseconds.checked_add(right.microseconds),
    )
}

/// `interval_mi`
pub(super) fn difference(left: Interval, right: Interval) -> Made<Interval> {
    finite(
        left.months.checked_sub(right.months),
        left.days.checked_sub(right.days),
        left.microseconds.checked_sub(right.microseconds),
    )
}

/// `interval_um`
pub(super) fn negative(of: Interval) -> Made<Interval> {
    finite(
        of.months.checked_neg(),
        of.days.checked_neg(),
        of.microseconds.checked_neg(),
    )
}

pub(super) fn combined(
    rows: &Rows,
    args: &[Val],
    f: impl Fn(Interval, Interval) -> Made<Interval>,
) -> Result<ArrayRef, WireError> {
    let (left, right) = (
        Texts::of(argument(args, 0)?)?,
        Texts::of(argument(args, 1)?)?,
    );
    printed(rows, &[&left, &right], |row| {
        f(parse(left.at(row))?, parse(right.at(row))?)
    })
}

pub(super) fn changed(
    rows: &Rows,
    args: &[Val],
    f: impl Fn(Interval) -> Made<Interval>,
) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    printed(rows, &[&text], |row| f(parse(text.at(row))?))
}

pub(super) fn scaled(
    rows: &Rows,
    args: &[Val],
    f: impl Fn(Interval, f64) -> Made<Interval>,
) -> Result<ArrayRef, WireError> {
    let (text, factor) = (Texts::of(argument(args, 0)?)?, f64s(argument(args, 1)?)?);
    printed(rows, &[&text], |row| {
        f(parse(text.at(row))?, factor.at(row))
    })
}

/// `interval_mul`
pub(super) fn product(of: Interval, factor: f64) -> Made<Interval> {
    if factor.is_nan() {
        return Err(Failure::OutOfRange);
    }
    if factor.is_infinite() {
        return Err(Failure::Infinite);
    }
    cascaded(of, |value| value * factor)
}

/// `interval_div`
pub(super) fn quotient(of: Interval, divisor: f64) -> Made<Interval> {
    if divisor == 0.0 {
        return Err(Failure::DivisionByZero);
    }
    if divisor.is_nan() {
        return Err(Failure::OutOfRange);
    }
    cascaded(of, |value| value / divisor)
}

/// Each field by itself; fractions of months become days, and those of days become seconds.
fn cascaded(of: Interval, scale: impl Fn(f64) -> f64) -> Made<Interval> {
    let (of_months, of_days) = (scale(of.months.into()), scale(of.days.into()));
    let (months, mut days) = (whole(of_months)?, whole(of_days)?);
    let month_days = to_microseconds((of_months - f64::from(months)) * f64::from(DAYS_PER_MONTH));
    let whole_days = month_days as i32;
    let rest = of_days - f64::from(days) + month_days - f64::from(whole_days);
    let mut seconds = to_microseconds(rest * SECS_PER_DAY);
    let add = |days: i32, more: i32| days.checked_add(more).ok_or(Failure::OutOfRange);
    if seconds.abs() >= SECS_PER_DAY {
        let more = (seconds / SECS_PER_DAY) as i32;
        days = add(days, more)?;
        seconds -= f64::from(more) * SECS_PER_DAY;
    }
    days = add(days, whole_days)?;
    let time = scale(of.microseconds as f64) + seconds * SECOND as f64;
    finite(Some(months), Some(days), nearest(time))
}

/// Towards zero, where that is an integer.
fn whole(value: f64) -> Made<i32> {
    const END: f64 = 2_147_483_648.0;
    if (-END..END).contains(&value) {
        Ok(value as i32)
    } else {
        Err(Failure::OutOfRange)
    }
}

/// `TSROUND`
fn to_microseconds(value: f64) -> f64 {
    (value * 1_000_000.0).round_ties_even() / 1_000_000.0
}

fn nearest(value: f64) -> Option<i64> {
    const END: f64 = 9_223_372_036_854_775_808.0;
    let rounded = value.round_ties_even();
    (-END..END).contains(&rounded).then_some(rounded as i64)
}

/// `interval_justify_hours`
pub(super) fn justified_hours(of: Interval) -> Made<Interval> {
    let days = i64::from(of.days) + of.microseconds / DAY;
    let days = i32::try_from(days).map_err(|_| Failure::OutOfRange)?;
    Ok(hours_like_days(Interval {
        days,
        microseconds: of.microseconds % DAY,
        ..of
    }))
}

/// With one sign of days and time.
fn hours_like_days(mut of: Interval) -> Interval {
    if of.days > 0 && of.microseconds < 0 {
        of.microseconds += DAY;
        of.days -= 1;
    } else if of.days < 0 && of.microseconds > 0 {
        of.microseconds -= DAY;
        of.days += 1;
    }
    of
}

/// Full months of days as months.
fn whole_months(of: Interval) -> Made<Interval> {
    let months = of.months.checked_add(of.days / DAYS_PER_MONTH);
    Ok(Interval {
        months: months.ok_or(Failure::OutOfRange)?,
        days: of.days % DAYS_PER_MONTH,
        ..of
    })
}

/// `interval_justify_days`
pub(super) fn justified_days(of: Interval) -> Made<Interval> {
    let mut of = whole_months(of)?;
    if of.months > 0 && of.days < 0 {
        of.days += DAYS_PER_MONTH;
        of.months -= 1;
    } else if of.months < 0 && of.days > 0 {
        of.days -= DAYS_PER_MONTH;
        of.months += 1;
    }
    Ok(of)
}

/// `interval_justify_interval`
pub(super) fn justified(of: Interval) -> Made<Interval> {
    let mut of = of;
    let both = (of.days > 0 && of.microseconds > 0) || (of.days < 0 && of.microseconds < 0);
    if both {
        of = whole_months(of)?;
    }
    // At most 107 million days.
    of.days += (of.microseconds / DAY) as i32;
    of.microseconds %= DAY;
    of = whole_months(of)?;
    let (days, time) = (of.days, of.microseconds);
    if of.months > 0 && (days < 0 || (days == 0 && time < 0)) {
        of.days += DAYS_PER_MONTH;
        of.months -= 1;
    } else if of.months < 0 && (days > 0 || (days == 0 && time > 0)) {
        of.days -= DAYS_PER_MONTH;
        of.months += 1;
    }
    Ok(hours_like_days(of))
}

/// `timestamp_mi`
fn between(left: i64, right: i64) -> Made<Interval> {
    let microseconds = left.checked_sub(right).ok_or(Failure::OutOfRange)?;
    justified_hours(Interval {
        months: 0,
        days: 0,
        microseconds,
    })
}

/// `timestamp_age`: in the order of the calendar's fields, of which a later one lends to an earlier one.
fn age(left: i64, right: i64) -> Made<Interval> {
    let negated = left < right;
    let (later, earlier) = if negated {
        (right, left)
    } else {
        (left, right)
    };
    let ((late_day, late_time), (early_day, early_time)) = (split(later), split(earlier));
    let (late, early) = (j2date(late_day), j2date(early_day));
    let mut time = late_time - early_time;
    let mut days = late.day - early.day;
    let mut months = (late.year - early.year) * 12 + late.month - early.month;
    if time < 0 {
        time += DAY;
        days -= 1;
    }
    while days < 0 {
        // Of the month that the earlier one is in.
        days += days_of_month(early.year, early.month);
        months -= 1;
    }
    let sign = if negated { -1 } else { 1 };
    finite(
        i32::try_from(sign * months).ok(),
        i32::try_from(sign * days).ok(),
        Some(sign * time),
    )
}

/// From the second to the first.
pub(super) fn distance(rows: &Rows, args: &[Val], calendar: bool) -> Result<ArrayRef, WireError> {
    let (left, right) = (i64s(argument(args, 0)?)?, i64s(argument(args, 1)?)?);
    let measure: fn(i64, i64) -> Made<Interval> = if calendar { age } else { between };
    printed(rows, &[], |row| measure(left.at(row), right.at(row)))
}

/// `timestamp_pl_interval`, `timestamptz_pl_interval` and their reverse.
pub(super) fn moved(
    rows: &Rows,
    ty: &LakeType,
    negated: bool,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    let at = i64s(argument(args, 0)?)?;
    let by = |text: &str| -> Made<Interval> {
        let by = parse(text)?;
        if negated { negative(by) } else { Ok(by) }
    };
    let values = if *ty == LakeType::Timestamptz {
        let (offset, text) = (i64s(argument(args, 1)?)?, Texts::of(argument(args, 2)?)?);
        let of_row = |row| -> Result<i64, WireError> {
            let by = by(text.at(row)).map_err(Failure::error)?;
            plus_at(at.at(row), offset.at(row), by).map_err(near_the_end)
        };
        rows.try_map(of_row, |error| error)?
    } else {
        let text = Texts::of(argument(args, 1)?)?;
        let of_row = |row| -> Result<i64, WireError> {
            let by = by(text.at(row)).map_err(Failure::error)?;
            dates::plus(at.at(row), by).map_err(dates::Failure::error)
        };
        rows.try_map(of_row, |error| error)?
    };
    Ok(from_i64(values, rows.nulls(), &arrow_type(ty)))
}

/// `make_interval`
pub(super) fn made(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let int = |number| i32s(argument(args, number)?);
    let (years, months, weeks, days) = (int(0)?, int(1)?, int(2)?, int(3)?);
    let (hours, minutes) = (int(4)?, int(5)?);
    let seconds = f64s(argument(args, 6)?)?;
    let mut text = String::new();
    rows.texts(&[], |row, out| {
        let of_years = years.at(row).checked_mul(12);
        let months = of_years.and_then(|of_years| of_years.checked_add(months.at(row)));
        let of_weeks = weeks.at(row).checked_mul(7);
        let days = of_weeks.and_then(|of_weeks| of_weeks.checked_add(days.at(row)));
        let scaled = seconds.at(row) * SECOND as f64;
        let overflows = seconds.at(row).is_finite() && scaled.is_infinite();
        if overflows && months.is_some() && days.is_some() {
            return Err(out_of_range("value out of range: overflow"));
        }
        let time = i64::from(hours.at(row)) * HOUR + i64::from(minutes.at(row)) * MINUTE;
        let time = nearest(scaled).and_then(|seconds| seconds.checked_add(time));
        let interval = finite(months, days, time).map_err(Failure::error)?;
        text.clear();
        print(interval, &mut text);
        out.append(&text)
    })
}

#[cfg(test)]
#[path = "intervals_tests.rs"]
mod tests;
