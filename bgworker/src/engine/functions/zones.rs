//! Instants, and what clocks show of them at a distance from UTC that is always the same; what lies between two of them
//! (`timestamp.c`).
//!
//! Postgres looks at the range of instants, the engine also at that of what clocks show: near the ends of both Postgres
//! decides.

use super::argument;
use super::calendar::{DAY, SECOND, TIMESTAMP_END_JULIAN};
use super::dates::{Failure, plus, split, truncated};
use super::rows::{Rows, i64s};
use crate::arrow_types::arrow_type;
use crate::engine::error::{datetime_overflow, not_exact};
use crate::engine::expr::Val;
use crate::engine::values::{from_i64, from_i128};
use arrow::array::{ArrayRef, Float64Array};
use pg_lake_plan::function::{Field, Interval};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use std::sync::Arc;

const DAY_SECONDS: f64 = 86_400.0;

fn moved(at: i64, by: i64) -> Result<i64, Failure> {
    at.checked_add(by)
        .filter(|at| is_timestamp(*at))
        .ok_or(Failure::OutOfRange)
}

/// `IS_VALID_TIMESTAMP`
fn is_timestamp(at: i64) -> bool {
    (0..TIMESTAMP_END_JULIAN).contains(&split(at).0)
}

/// The instant that `f` makes of what clocks show at another one.
fn shown(
    at: i64,
    offset: i64,
    f: impl FnOnce(i64) -> Result<i64, Failure>,
) -> Result<i64, Failure> {
    moved(f(moved(at, offset)?)?, offset.wrapping_neg())
}

pub(super) fn near_the_end(_: Failure) -> WireError {
    not_exact("a timestamp is near the first or the last one")
}

/// A timestamp by which offset `of` makes of an argument.
pub(super) fn moved_by(
    rows: &Rows,
    ty: &LakeType,
    args: &[Val],
    of: impl Fn(i64) -> i64,
) -> Result<ArrayRef, WireError> {
    let (arg, offset) = (i64s(argument(args, 0)?)?, i64s(argument(args, 1)?)?);
    let values = rows.try_map(|row| moved(arg.at(row), of(offset.at(row))), near_the_end)?;
    Ok(from_i64(values, rows.nulls(), &arrow_type(ty)))
}

/// `timestamptz_trunc`
pub(super) fn date_trunc(
    rows: &Rows,
    ty: &LakeType,
    field: Field,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    let (arg, offset) = (i64s(argument(args, 0)?)?, i64s(argument(args, 1)?)?);
    let of_row = |row| shown(arg.at(row), offset.at(row), |at| truncated(field, at));
    let values = rows.try_map(of_row, near_the_end)?;
    Ok(from_i64(values, rows.nulls(), &arrow_type(ty)))
}

/// `timestamptz_pl_interval`: months, then days, then the rest, and an instant after each.
pub(super) fn plus_at(at: i64, offset: i64, by: Interval) -> Result<i64, Failure> {
    let nothing = Interval {
        months: 0,
        days: 0,
        microseconds: 0,
    };
    let (months, days) = (by.months, by.days);
    let at = shown(at, offset, |at| plus(at, Interval { months, ..nothing }))?;
    let at = shown(at, offset, |at| plus(at, Interval { days, ..nothing }))?;
    moved(at, by.microseconds)
}

pub(super) fn add_interval(
    rows: &Rows,
    ty: &LakeType,
    by: Interval,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    let (arg, offset) = (i64s(argument(args, 0)?)?, i64s(argument(args, 1)?)?);
    let of_row = |row| plus_at(arg.at(row), offset.at(row), by);
    let values = rows.try_map(of_row, near_the_end)?;
    Ok(from_i64(values, rows.nulls(), &arrow_type(ty)))
}

/// `timestamp_bin`
fn binned(at: i64, stride: i64, origin: i64) -> Result<i64, &'static str> {
    let distance = at.checked_sub(origin).ok_or("interval out of range")?;
    let rest = distance % stride;
    let start = origin.wrapping_add(distance - rest);
    if rest >= 0 {
        return Ok(start);
    }
    start
        .checked_sub(stride)
        .filter(|start| is_timestamp(*start))
        .ok_or("timestamp out of range")
}

pub(super) fn date_bin(
    rows: &Rows,
    ty: &LakeType,
    stride: i64,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    let (arg, origin) = (i64s(argument(args, 0)?)?, i64s(argument(args, 1)?)?);
    let of_row = |row| binned(arg.at(row), stride, origin.at(row));
    let values = rows.try_map(of_row, datetime_overflow)?;
    Ok(from_i64(values, rows.nulls(), &arrow_type(ty)))
}

/// The epoch of `timestamp_mi`, which has days of 24 hours.
pub(super) fn seconds_between(
    rows: &Rows,
    ty: &LakeType,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    let (left, right) = (i64s(argument(args, 0)?)?, i64s(argument(args, 1)?)?);
    let between = |row| left.at(row).checked_sub(right.at(row)).ok_or(());
    let values = rows.try_map(between, |()| datetime_overflow("interval out of range"))?;
    if ty.is_decimal() {
        let values = values.into_iter().map(i128::from).collect();
        return from_i128(values, rows.nulls(), &arrow_type(ty));
    }
    let seconds =
        |value: i64| (value % DAY) as f64 / SECOND as f64 + DAY_SECONDS * (value / DAY) as f64;
    let values: Vec<f64> = values.into_iter().map(seconds).collect();
    Ok(Arc::new(Float64Array::new(values.into(), rows.nulls())))
}

#[cfg(test)]
mod tests {
    use super::super::calendar::{Date, HOUR, MINUTE, UNIX_EPOCH_JDATE, date2j};
    use super::super::support::*;
    use super::*;
    use arrow::array::{AsArray, Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{Decimal128Type, Float64Type, TimestampMicrosecondType};
    use pg_lake_plan::function::Function;
    use pg_lake_plan::message::ErrorCode;

    fn at(year: i64, month: i64, day: i64, time: i64) -> i64 {
        (date2j(Date { year, month, day }) - UNIX_EPOCH_JDATE) * DAY + time
    }

    fn timestamps(values: &[i64]) -> Val {
        column(TimestampMicrosecondArray::from(values.to_vec()))
    }

    fn instants(values: &[i64]) -> Val {
        column(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"))
    }

    fn offset(hours: i64) -> Val {
        Val::Scalar(Arc::new(Int64Array::from(vec![hours * HOUR])))
    }

    fn one(function: Function, ty: LakeType, args: &[Val]) -> i64 {
        let result = result(function, &ty, args);
        result.as_primitive::<TimestampMicrosecondType>().value(0)
    }

    #[test]
    fn clocks_east_and_west() {
        let noon = at(2024, 2, 29, 12 * HOUR);
        let local = |hours| {
            let args = [instants(&[noon]), offset(hours)];
            one(Function::ToLocal, LakeType::Timestamp, &args)
        };
        assert_eq!(local(0), noon);
        assert_eq!(local(2), noon + 2 * HOUR);
        assert_eq!(local(-13), at(2024, 2, 28, 23 * HOUR));
        let args = [timestamps(&[noon]), offset(2)];
        let instant = one(Function::ToInstant, LakeType::Timestamptz, &args);
        assert_eq!(instant, noon - 2 * HOUR);
        let first = at(-4713, 11, 24, 0);
        let args = [instants(&[first]), offset(-1)];
        let error = error(Function::ToLocal, &LakeType::Timestamp, &args);
        assert_eq!(error.code, ErrorCode::NotExact);
    }

    #[test]
    fn days_and_months_are_those_of_clocks() {
        // 23:30 of the 31st in UTC is the 1st at 00:30 one hour east.
        let late = at(2024, 1, 31, 23 * HOUR + 30 * MINUTE);
        let truncated = |field, hours| {
            let args = [instants(&[late]), offset(hours)];
            one(Function::DateTruncAt(field), LakeType::Timestamptz, &args)
        };
        assert_eq!(truncated(Field::Day, 0), at(2024, 1, 31, 0));
        assert_eq!(truncated(Field::Day, 1), at(2024, 1, 31, 23 * HOUR));
        assert_eq!(truncated(Field::Month, 0), at(2024, 1, 1, 0));
        assert_eq!(truncated(Field::Month, 1), at(2024, 1, 31, 23 * HOUR));
        let moved = |months, days, hours| {
            let by = Interval {
                months,
                days,
                microseconds: MINUTE,
            };
            let args = [instants(&[late]), offset(hours)];
            one(Function::AddIntervalAt(by), LakeType::Timestamptz, &args)
        };
        let half_past = |hour| hour * HOUR + 31 * MINUTE;
        assert_eq!(moved(1, 0, 0), at(2024, 2, 29, half_past(23)));
        assert_eq!(moved(1, 0, 1), at(2024, 2, 29, half_past(23)));
        assert_eq!(moved(-2, 0, 0), at(2023, 11, 30, half_past(23)));
        assert_eq!(moved(-2, 0, 1), at(2023, 11, 30, half_past(23)));
        assert_eq!(moved(0, 1, 1), at(2024, 2, 1, half_past(23)));
        assert_eq!(moved(13, 1, 0), at(2025, 3, 1, half_past(23)));
    }

    // timestamp.out: date_bin
    #[test]
    fn bins() {
        let quarter = 15 * MINUTE;
        let value = at(2020, 2, 11, 15 * HOUR + 44 * MINUTE + 17_713_930);
        let origin = at(2001, 1, 1, 0);
        let bin = |value, stride, origin| {
            let args = [timestamps(&[value]), timestamps(&[origin])];
            one(Function::DateBin(stride), LakeType::Timestamp, &args)
        };
        let expected = at(2020, 2, 11, 15 * HOUR + 30 * MINUTE);
        assert_eq!(bin(value, quarter, origin), expected);
        assert_eq!(
            bin(at(2000, 12, 31, 0) - 1, DAY, origin),
            at(2000, 12, 30, 0)
        );
        assert_eq!(bin(origin, DAY, origin), origin);
        assert_eq!(bin(origin - DAY, DAY, origin), origin - DAY);
        let first = at(-4713, 11, 24, 1);
        assert_eq!(
            binned(first, DAY * 365, origin),
            Err("timestamp out of range")
        );
        assert_eq!(binned(i64::MAX, DAY, -2), Err("interval out of range"));
    }

    #[test]
    fn seconds_between_timestamps() {
        let (late, early) = (at(2024, 3, 1, HOUR), at(2024, 2, 28, 1));
        let ty = decimal(6);
        let args = [timestamps(&[late, early]), timestamps(&[early, late])];
        let between = result(Function::SecondsBetween, &ty, &args);
        let between = between.as_primitive::<Decimal128Type>();
        let expected = i128::from(2 * DAY + HOUR - 1);
        assert_eq!(between.values().to_vec(), [expected, -expected]);
        let between = result(Function::SecondsBetween, &LakeType::Float8, &args);
        let between = between.as_primitive::<Float64Type>();
        assert_eq!(between.value(0), 3_599.999_999 + 172_800.0);
        let args = [timestamps(&[i64::MAX]), timestamps(&[-1])];
        let error = error(Function::SecondsBetween, &ty, &args);
        assert_eq!(error.code, ErrorCode::DatetimeOverflow);
    }
}
