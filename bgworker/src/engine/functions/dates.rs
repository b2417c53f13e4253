//! Functions of dates, times and timestamps (`date.c`, `timestamp.c`). None of them is infinite: such values don't
//! reach the engine.

use super::argument;
use super::calendar::{
    DATE_END_JULIAN, DAY, Date, HOUR, MINUTE, SECOND, TIMESTAMP_END_JULIAN, UNIX_EPOCH_JDATE,
    date2j, days_of_month, is_valid_julian, isoweek, isoweek2j, j2date, j2day,
};
use super::rows::{Rows, i32s, i64s};
use crate::arrow_types::arrow_type;
use crate::engine::error::{datetime_overflow, internal, not_exact};
use crate::engine::expr::Val;
use crate::engine::values::{from_i32, from_i64, from_i128};
use arrow::array::{Array, ArrayRef, Float64Array};
use arrow::datatypes::DataType;
use pg_lake_plan::function::{Field, Interval};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use std::sync::Arc;

/// Why there is no such timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    OutOfRange,
    /// Later than microseconds since 1970 can count.
    TooLate,
}

impl Failure {
    pub(super) fn error(self) -> WireError {
        match self {
            Failure::OutOfRange => datetime_overflow("timestamp out of range"),
            Failure::TooLate => not_exact("a timestamp is too late for the engine"),
        }
    }
}

/// Julian day and microseconds of the day.
pub(super) fn split(at: i64) -> (i64, i64) {
    (at.div_euclid(DAY) + UNIX_EPOCH_JDATE, at.rem_euclid(DAY))
}

/// The reverse of [`split`] (`tm2timestamp`).
fn timestamp(julian: i64, time: i64) -> Result<i64, Failure> {
    if !(0..TIMESTAMP_END_JULIAN).contains(&julian) {
        return Err(Failure::OutOfRange);
    }
    (julian - UNIX_EPOCH_JDATE)
        .checked_mul(DAY)
        .and_then(|midnight| midnight.checked_add(time))
        .ok_or(Failure::TooLate)
}

/// The Julian day of a date that a timestamp may have.
fn julian_of(date: Date) -> Result<i64, Failure> {
    if is_valid_julian(date.year, date.month) {
        Ok(date2j(date))
    } else {
        Err(Failure::OutOfRange)
    }
}

/// `extract_date`, and the same of a timestamp's day.
fn of_day(field: Field, julian: i64) -> i64 {
    let Date { year, month, day } = j2date(julian);
    // There is no year 0, just 1 BC and 1 AD.
    let named = |year: i64| if year > 0 { year } else { year - 1 };
    match field {
        Field::Millennium if year > 0 => (year + 999) / 1000,
        Field::Millennium => -((999 - (year - 1)) / 1000),
        Field::Century if year > 0 => (year + 99) / 100,
        Field::Century => -((99 - (year - 1)) / 100),
        Field::Decade if year >= 0 => year / 10,
        Field::Decade => -((8 - (year - 1)) / 10),
        Field::Year => named(year),
        Field::IsoYear => named(isoweek(julian).0),
        Field::Quarter => (month - 1) / 3 + 1,
        Field::Month => month,
        Field::Week => isoweek(julian).1,
        Field::Day => day,
        Field::Dow => j2day(julian),
        Field::IsoDow => match j2day(julian) {
            0 => 7,
            day => day,
        },
        Field::Doy => {
            let first = Date {
                year,
                month: 1,
                day: 1,
            };
            julian - date2j(first) + 1
        }
        Field::Julian => julian,
        _ => 0,
    }
}

/// Of microseconds since midnight; seconds and milliseconds in microseconds.
fn of_time(field: Field, time: i64) -> Option<i64> {
    Some(match field {
        Field::Hour => time / HOUR,
        Field::Minute => time % HOUR / MINUTE,
        Field::Second | Field::Millisecond | Field::Microsecond => time % MINUTE,
        _ => return None,
    })
}

/// The field's values in units of its scale.
fn fields(rows: &Rows, field: Field, args: &[Val]) -> Result<Vec<i64>, WireError> {
    let arg = argument(args, 0)?;
    Ok(match arg.array().data_type() {
        DataType::Date32 => {
            let arg = i32s(arg)?;
            rows.map(|row| match (field, i64::from(arg.at(row))) {
                (Field::Epoch, day) => day * (DAY / SECOND),
                (_, day) => of_day(field, day + UNIX_EPOCH_JDATE),
            })
        }
        DataType::Time64(_) => {
            let arg = i64s(arg)?;
            // The other field is the epoch.
            rows.map(|row| of_time(field, arg.at(row)).unwrap_or(arg.at(row)))
        }
        DataType::Timestamp(..) => {
            let arg = i64s(arg)?;
            if field == Field::Epoch && rows.map(|row| arg.at(row) == i64::MAX).contains(&true) {
                let what = "the last microsecond that has an epoch is shown with other digits";
                return Err(not_exact(what));
            }
            rows.map(|row| {
                let (julian, time) = split(arg.at(row));
                match field {
                    Field::Epoch => arg.at(row),
                    _ => of_time(field, time).unwrap_or_else(|| of_day(field, julian)),
                }
            })
        }
        _ => return Err(internal("a field of another type")),
    })
}

pub(super) fn extract(
    rows: &Rows,
    ty: &LakeType,
    field: Field,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    let values = fields(rows, field, args)?.into_iter().map(i128::from);
    from_i128(values.collect(), rows.nulls(), &arrow_type(ty))
}

/// `timestamp_part_common`, with its rounding.
pub(super) fn date_part(rows: &Rows, field: Field, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (million, thousand) = (1_000_000.0, 1000.0);
    let part = |value: i64| {
        let (seconds, rest) = ((value / SECOND) as f64, (value % SECOND) as f64);
        match field {
            Field::Second => seconds + rest / million,
            Field::Millisecond => seconds * thousand + rest / thousand,
            Field::Epoch => value as f64 / million,
            _ => value as f64,
        }
    };
    let values: Vec<f64> = fields(rows, field, args)?.into_iter().map(part).collect();
    Ok(Arc::new(Float64Array::new(values.into(), rows.nulls())))
}

/// `timestamp_trunc`
pub(super) fn truncated(field: Field, at: i64) -> Result<i64, Failure> {
    let (julian, time) = split(at);
    let unit = match field {
        Field::Microsecond => 1,
        Field::Millisecond => 1000,
        Field::Second => SECOND,
        Field::Minute => MINUTE,
        Field::Hour => HOUR,
        Field::Day => DAY,
        Field::Week => {
            let (year, week) = isoweek(julian);
            return timestamp(isoweek2j(year, week), 0);
        }
        _ => {
            let first = first_day(field, j2date(julian));
            return timestamp(julian_of(first)?, 0);
        }
    };
    Ok(at.wrapping_sub(time % unit))
}

/// Of the month, quarter … that the date is in.
fn first_day(field: Field, date: Date) -> Date {
    let year = date.year;
    let year = match field {
        Field::Millennium if year > 0 => (year + 999) / 1000 * 1000 - 999,
        Field::Millennium => -((999 - (year - 1)) / 1000) * 1000 + 1,
        Field::Century if year > 0 => (year + 99) / 100 * 100 - 99,
        Field::Century => -((99 - (year - 1)) / 100) * 100 + 1,
        Field::Decade if year > 0 => year / 10 * 10,
        Field::Decade => -((8 - (year - 1)) / 10) * 10,
        _ => year,
    };
    let month = match field {
        Field::Month => date.month,
        Field::Quarter => 3 * ((date.month - 1) / 3) + 1,
        _ => 1,
    };
    Date {
        year,
        month,
        day: 1,
    }
}

pub(super) fn date_trunc(
    rows: &Rows,
    ty: &LakeType,
    field: Field,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    let arg = i64s(argument(args, 0)?)?;
    let values = rows.try_map(|row| truncated(field, arg.at(row)), Failure::error)?;
    Ok(from_i64(values, rows.nulls(), &arrow_type(ty)))
}

/// `date_pli`, `date_mii`
pub(super) fn add_days(
    rows: &Rows,
    ty: &LakeType,
    args: &[Val],
    add: impl Fn(i64, i64) -> i64,
) -> Result<ArrayRef, WireError> {
    let (date, days) = (i32s(argument(args, 0)?)?, i32s(argument(args, 1)?)?);
    let moved = |row| {
        let day = add(date.at(row).into(), days.at(row).into());
        let valid = (0..DATE_END_JULIAN).contains(&(day + UNIX_EPOCH_JDATE));
        i32::try_from(day).ok().filter(|_| valid).ok_or(())
    };
    let values = rows.try_map(moved, |()| datetime_overflow("date out of range"))?;
    Ok(from_i32(values, rows.nulls(), &arrow_type(ty)))
}

/// `date_mi`
pub(super) fn days_between(
    rows: &Rows,
    ty: &LakeType,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    let (left, right) = (i32s(argument(args, 0)?)?, i32s(argument(args, 1)?)?);
    let values = rows.map(|row| left.at(row).wrapping_sub(right.at(row)));
    Ok(from_i32(values, rows.nulls(), &arrow_type(ty)))
}

/// `timestamp_pl_interval`: months, then days, then the rest, and a timestamp after each.
pub(super) fn plus(at: i64, by: Interval) -> Result<i64, Failure> {
    let (mut julian, time) = split(at);
    if by.months != 0 {
        let mut date = j2date(julian);
        date.month += i64::from(by.months);
        if date.month > 12 {
            date.year += (date.month - 1) / 12;
            date.month = (date.month - 1) % 12 + 1;
        } else if date.month < 1 {
            date.year += date.month / 12 - 1;
            date.month = date.month % 12 + 12;
        }
        date.day = date.day.min(days_of_month(date.year, date.month));
        julian = julian_of(date)?;
        in_range(julian)?;
    }
    if by.days != 0 {
        julian += i64::from(by.days);
        in_range(julian)?;
    }
    let total = i128::from(julian) * i128::from(DAY)
        + i128::from(time + by.microseconds % DAY)
        + i128::from(by.microseconds / DAY) * i128::from(DAY);
    let (julian, time) = (
        total.div_euclid(DAY.into()) as i64,
        total.rem_euclid(DAY.into()) as i64,
    );
    timestamp(julian, time)
}

/// A timestamp and an interval; `None` if there is no such timestamp.
pub(in crate::engine) fn moved(at: i64, by: Interval) -> Option<i64> {
    plus(at, by).ok()
}

fn in_range(julian: i64) -> Result<(), Failure> {
    if (0..TIMESTAMP_END_JULIAN).contains(&julian) {
        Ok(())
    } else {
        Err(Failure::OutOfRange)
    }
}

pub(super) fn add_interval(
    rows: &Rows,
    ty: &LakeType,
    by: Interval,
    args: &[Val],
) -> Result<ArrayRef, WireError> {
    let arg = i64s(argument(args, 0)?)?;
    let values = rows.try_map(|row| plus(arg.at(row), by), Failure::error)?;
    Ok(from_i64(values, rows.nulls(), &arrow_type(ty)))
}

/// `make_date` and its `ValidateDate`; negative years are BC.
fn made((year, month, day): (i32, i32, i32)) -> Result<i32, String> {
    let printed = |what: &str, year: i64| format!("{what}: {year}-{month:02}-{day:02}");
    let field_error = |year: i64| printed("date field value out of range", year);
    let before_christ = year < 0;
    // The smallest integer stays negative.
    let given = i64::from(if before_christ {
        year.wrapping_neg()
    } else {
        year
    });
    if given <= 0 {
        return Err(field_error(given));
    }
    let year = if before_christ { 1 - given } else { given };
    let (month, day) = (i64::from(month), i64::from(day));
    if !(1..=12).contains(&month) || day < 1 || day > days_of_month(year, month) {
        return Err(field_error(year));
    }
    let out_of_range = || printed("date out of range", year);
    if !is_valid_julian(year, month) {
        return Err(out_of_range());
    }
    let julian = date2j(Date { year, month, day });
    if !(0..DATE_END_JULIAN).contains(&julian) {
        return Err(out_of_range());
    }
    i32::try_from(julian - UNIX_EPOCH_JDATE).map_err(|_| out_of_range())
}

pub(super) fn make_date(rows: &Rows, ty: &LakeType, args: &[Val]) -> Result<ArrayRef, WireError> {
    let year = i32s(argument(args, 0)?)?;
    let (month, day) = (i32s(argument(args, 1)?)?, i32s(argument(args, 2)?)?);
    let values = rows.try_map(
        |row| made((year.at(row), month.at(row), day.at(row))),
        datetime_overflow,
    )?;
    Ok(from_i32(values, rows.nulls(), &arrow_type(ty)))
}

#[cfg(test)]
#[path = "dates_tests.rs"]
mod tests;
