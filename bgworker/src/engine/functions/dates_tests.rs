//! Expected values are those of Postgres' regression tests (`date.out`, `timestamp.out`, `horology.out`), or were
//! worked out by hand.

use super::super::support::*;
use super::*;
use arrow::array::{AsArray, Date32Array, TimestampMicrosecondArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float64Type, Int32Type, TimestampMicrosecondType,
};
use pg_lake_plan::function::Function;
use pg_lake_plan::message::ErrorCode;

fn day(year: i64, month: i64, day: i64) -> i64 {
    date2j(Date { year, month, day }) - UNIX_EPOCH_JDATE
}

fn at(date: (i64, i64, i64), time: i64) -> i64 {
    day(date.0, date.1, date.2) * DAY + time
}

fn dates(values: &[i64]) -> Val {
    let values: Vec<i32> = values.iter().map(|value| *value as i32).collect();
    column(Date32Array::from(values))
}

fn timestamps(values: &[i64]) -> Val {
    column(TimestampMicrosecondArray::from(values.to_vec()))
}

fn extracted(field: Field, scale: i8, arg: Val) -> i128 {
    let result = result(Function::Extract(field), &decimal(scale), &[arg]);
    result.as_primitive::<Decimal128Type>().value(0)
}

#[test]
fn fields_of_a_date() {
    for (field, expected) in [
        (Field::Day, 11),
        (Field::Month, 8),
        (Field::Year, 2020),
        (Field::Decade, 202),
        (Field::Century, 21),
        (Field::Millennium, 3),
        (Field::IsoYear, 2020),
        (Field::Quarter, 3),
        (Field::Week, 33),
        (Field::Dow, 2),
        (Field::IsoDow, 2),
        (Field::Doy, 224),
        (Field::Epoch, 1_597_104_000),
        (Field::Julian, 2_459_073),
    ] {
        let value = extracted(field, 0, dates(&[day(2020, 8, 11)]));
        assert_eq!(value, expected, "{field:?}");
    }
    let sunday = || dates(&[day(2020, 8, 16)]);
    assert_eq!(extracted(Field::Dow, 0, sunday()), 0);
    assert_eq!(extracted(Field::IsoDow, 0, sunday()), 7);
}

#[test]
fn years_before_christ_and_their_centuries() {
    for (field, year, expected) in [
        (Field::Year, -2019, -2020),
        (Field::IsoYear, -2019, -2020),
        (Field::Century, -100, -2),
        (Field::Century, -99, -1),
        (Field::Century, 0, -1),
        (Field::Century, 1, 1),
        (Field::Century, 1900, 19),
        (Field::Century, 1901, 20),
        (Field::Millennium, 0, -1),
        (Field::Millennium, 1, 1),
        (Field::Millennium, 1000, 1),
        (Field::Millennium, 1001, 2),
        (Field::Decade, 1994, 199),
        (Field::Decade, 10, 1),
        (Field::Decade, 9, 0),
        (Field::Decade, 0, 0),
        (Field::Decade, -1, -1),
        (Field::Decade, -10, -1),
        (Field::Decade, -11, -2),
    ] {
        let value = extracted(field, 0, dates(&[day(year, 8, 11)]));
        assert_eq!(value, expected, "{field:?} of {year}");
    }
}

#[test]
fn fields_of_a_timestamp() {
    // 1997-02-10 17:32:01.6
    let seconds = 1_600_000;
    let time = 17 * HOUR + 32 * MINUTE + seconds;
    let value = || timestamps(&[at((1997, 2, 10), time)]);
    assert_eq!(extracted(Field::Hour, 0, value()), 17);
    assert_eq!(extracted(Field::Minute, 0, value()), 32);
    assert_eq!(extracted(Field::Second, 6, value()), seconds.into());
    assert_eq!(extracted(Field::Millisecond, 3, value()), seconds.into());
    assert_eq!(extracted(Field::Microsecond, 0, value()), seconds.into());
    assert_eq!(extracted(Field::Epoch, 6, value()), 855_595_921_600_000);
    assert_eq!(extracted(Field::Year, 0, value()), 1997);
    let part = |field| {
        let result = result(Function::DatePart(field), &LakeType::Float8, &[value()]);
        result.as_primitive::<Float64Type>().value(0)
    };
    assert_eq!(part(Field::Second), 1.6);
    assert_eq!(part(Field::Millisecond), 1600.0);
    assert_eq!(part(Field::Epoch), 855595921.6);
    assert_eq!(part(Field::Week), 7.0);
    // before the epoch
    let early = timestamps(&[-1]);
    assert_eq!(extracted(Field::Microsecond, 0, early), 59_999_999);
}

#[test]
fn truncation() {
    // 2004-02-29 15:44:17.71393
    let time = 15 * HOUR + 44 * MINUTE + 17 * SECOND + 713_930;
    let value = at((2004, 2, 29), time);
    for (field, expected) in [
        (Field::Week, at((2004, 2, 23), 0)),
        (Field::Day, at((2004, 2, 29), 0)),
        (Field::Hour, at((2004, 2, 29), 15 * HOUR)),
        (Field::Minute, value - 17 * SECOND - 713_930),
        (Field::Second, value - 713_930),
        (Field::Millisecond, value - 930),
        (Field::Microsecond, value),
        (Field::Month, at((2004, 2, 1), 0)),
        (Field::Quarter, at((2004, 1, 1), 0)),
        (Field::Year, at((2004, 1, 1), 0)),
        (Field::Decade, at((2000, 1, 1), 0)),
        (Field::Century, at((2001, 1, 1), 0)),
        (Field::Millennium, at((2001, 1, 1), 0)),
    ] {
        assert_eq!(truncated(field, value), Ok(expected), "{field:?}");
    }
    for (field, from, to) in [
        (Field::Millennium, (1970, 3, 20), (1001, 1, 1)),
        (Field::Century, (1970, 3, 20), (1901, 1, 1)),
        (Field::Century, (2, 2, 4), (1, 1, 1)),
        (Field::Century, (-54, 8, 10), (-99, 1, 1)),
        (Field::Decade, (4, 12, 25), (0, 1, 1)),
        (Field::Decade, (-1, 12, 31), (-10, 1, 1)),
        (Field::Week, (2005, 1, 1), (2004, 12, 27)),
        (Field::Week, (2008, 12, 30), (2008, 12, 29)),
    ] {
        assert_eq!(truncated(field, at(from, 1)), Ok(at(to, 0)), "{field:?}");
    }
    let ty = LakeType::Timestamp;
    let first = timestamps(&[at((-4713, 11, 24), 0)]);
    let error = error(Function::DateTrunc(Field::Month), &ty, &[first]);
    assert_eq!(error.code, ErrorCode::DatetimeOverflow);
    assert_eq!(error.message, "timestamp out of range");
}

#[test]
fn days_are_added() {
    let add = |value: i64, days| {
        let args = [dates(&[value]), int(days)];
        let result = call(Function::AddDays, &args);
        result.map(|array| i64::from(array.as_primitive::<Date32Type>().value(0)))
    };
    assert_eq!(add(day(2020, 2, 28), 2), Ok(day(2020, 3, 1)));
    assert_eq!(add(0, -1), Ok(-1));
    let last = DATE_END_JULIAN - 1 - UNIX_EPOCH_JDATE;
    assert_eq!(add(last - 1, 1), Ok(last));
    for (value, days) in [
        (last, 1),
        (-UNIX_EPOCH_JDATE, -1),
        (last, i32::MAX),
        (0, i32::MIN),
    ] {
        let error = add(value, days).expect_err("out of range");
        assert_eq!(error.code, ErrorCode::DatetimeOverflow);
        assert_eq!(error.message, "date out of range");
    }
    let args = [dates(&[0]), int(i32::MIN)];
    assert!(call(Function::SubtractDays, &args).is_err());
    let between = [dates(&[day(2020, 3, 1)]), dates(&[day(2020, 2, 1)])];
    let days = result(Function::DaysBetween, &LakeType::Int4, &between);
    assert_eq!(days.as_primitive::<Int32Type>().value(0), 29);
}

fn call(function: Function, args: &[Val]) -> Result<ArrayRef, WireError> {
    let value = super::super::call(function, &LakeType::Date, args, None)?;
    Ok(value.array().clone())
}

#[test]
fn intervals_are_added() {
    let by = |months, days, microseconds| Interval {
        months,
        days,
        microseconds,
    };
    for (from, interval, expected) in [
        (at((1991, 2, 3), 0), by(24, 0, 0), at((1993, 2, 3), 0)),
        (at((2001, 12, 13), 0), by(-24, 0, 0), at((1999, 12, 13), 0)),
        (
            at((1996, 3, 1), 0),
            by(0, 0, -SECOND),
            at((1996, 3, 1), -SECOND),
        ),
        (
            at((1999, 12, 1), 0),
            by(1, 0, -SECOND),
            at((2000, 1, 1), -SECOND),
        ),
        (at((2024, 1, 31), 7), by(1, 0, 0), at((2024, 2, 29), 7)),
        (at((2023, 1, 31), 7), by(1, 0, 0), at((2023, 2, 28), 7)),
        (at((2024, 2, 29), 0), by(12, 0, 0), at((2025, 2, 28), 0)),
        (at((2024, 3, 31), 0), by(-1, 0, 0), at((2024, 2, 29), 0)),
        (at((2024, 1, 15), 0), by(-1, 0, 0), at((2023, 12, 15), 0)),
        (at((2024, 1, 15), 0), by(-13, 0, 0), at((2022, 12, 15), 0)),
        (at((2024, 12, 15), 0), by(1, 0, 0), at((2025, 1, 15), 0)),
        // months first, then days
        (at((2024, 1, 31), 0), by(1, 1, 0), at((2024, 3, 1), 0)),
        // 4713 BC + 106000000 days
        (
            at((-4712, 1, 1), 0),
            by(0, 106_000_000, 0),
            at((285_506, 2, 23), 0),
        ),
    ] {
        assert_eq!(plus(from, interval), Ok(expected), "{from} + {interval:?}");
    }
    let now = at((2000, 1, 1), 0);
    for (from, interval, failure) in [
        (now, by(0, -2_483_590, 0), Failure::OutOfRange),
        (now, by(0, 0, i64::MAX), Failure::OutOfRange),
        (now, by(i32::MAX, 0, 0), Failure::OutOfRange),
        (now, by(i32::MIN, 0, 0), Failure::OutOfRange),
        (now, by(0, i32::MAX, 0), Failure::OutOfRange),
        // a timestamp of Postgres, but after 294247-01-10
        (now, by(292_260 * 12, 0, 0), Failure::TooLate),
    ] {
        assert_eq!(plus(from, interval), Err(failure), "{interval:?}");
    }
    // what is out of range on the way is an error, also if it would come back
    let far = by(300_000 * 12, -300_000 * 366, 0);
    assert_eq!(plus(now, far), Err(Failure::OutOfRange));
    let values = column(TimestampMicrosecondArray::from(vec![None, Some(0)]));
    let function = Function::AddInterval(by(0, 1, 0));
    let moved = result(function, &LakeType::Timestamp, &[values]);
    let moved = moved.as_primitive::<TimestampMicrosecondType>();
    assert_eq!(moved.iter().collect::<Vec<_>>(), [None, Some(DAY)]);
}

#[test]
fn dates_are_made() {
    let good = |date, expected: i64| assert_eq!(made(date).map(i64::from), Ok(expected));
    good((2013, 7, 15), day(2013, 7, 15));
    good((-44, 3, 15), day(-43, 3, 15));
    good((2024, 2, 29), day(2024, 2, 29));
    for (date, message) in [
        ((0, 7, 15), "date field value out of range: 0-07-15"),
        ((2013, 2, 30), "date field value out of range: 2013-02-30"),
        ((2013, 13, 1), "date field value out of range: 2013-13-01"),
        ((2013, 11, -1), "date field value out of range: 2013-11--1"),
        ((-44, 13, 1), "date field value out of range: -43-13-01"),
        ((5_874_898, 1, 1), "date out of range: 5874898-01-01"),
        ((-4714, 1, 1), "date out of range: -4713-01-01"),
        (
            (i32::MIN, 1, 1),
            "date field value out of range: -2147483648-01-01",
        ),
    ] {
        assert_eq!(made(date), Err(message.to_owned()));
    }
    let args = [ints(&[Some(2013), None]), int(7), int(15)];
    let made = result(Function::MakeDate, &LakeType::Date, &args);
    assert_eq!(made.null_count(), 1);
    let args = [ints(&[Some(0)]), int(7), int(15)];
    let error = error(Function::MakeDate, &LakeType::Date, &args);
    assert_eq!(error.code, ErrorCode::DatetimeOverflow);
}
