//! Tests of interval functions.

use super::super::support::*;
use super::*;
use arrow::array::{Array, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{Decimal128Type, Float64Type, TimestampMicrosecondType};
use pg_lake_plan::function::Function;
use pg_lake_plan::message::ErrorCode;

fn shown(interval: Interval) -> String {
    let mut text = String::new();
    print(interval, &mut text);
    text
}

fn of(months: i32, days: i32, microseconds: i64) -> Interval {
    Interval {
        months,
        days,
        microseconds,
    }
}

fn one(function: Function, args: &[Val]) -> String {
    let result = result(function, &LakeType::Text, args);
    result.as_string::<i32>().value(0).to_owned()
}

fn refused(function: Function, args: &[Val]) -> ErrorCode {
    error(function, &LakeType::Text, args).code
}

fn float(value: f64) -> Val {
    column(Float64Array::from(vec![value]))
}

// interval.out, with IntervalStyle = postgres
#[test]
fn texts_are_read_and_printed() {
    for (interval, text) in [
        (of(0, 0, 0), "00:00:00"),
        (of(0, 1, 0), "1 day"),
        (of(0, -1, 0), "-1 days"),
        (of(-1, 0, 0), "-1 mons"),
        (
            of(14, 3, 14_706_789_000),
            "1 year 2 mons 3 days 04:05:06.789",
        ),
        (of(-14, 3, 0), "-1 years -2 mons +3 days"),
        (
            of(-14, -3, 14_706_000_000),
            "-1 years -2 mons -3 days +04:05:06",
        ),
        (of(0, 1, -1), "1 day -00:00:00.000001"),
        (of(24, 0, HOUR * 100), "2 years 100:00:00"),
        (of(0, 0, i64::MIN), "-2562047788:00:54.775808"),
        (
            of(i32::MIN, i32::MIN, 0),
            "-178956970 years -8 mons -2147483648 days",
        ),
    ] {
        assert_eq!(shown(interval), text);
        assert_eq!(parse(text), Ok(interval), "{text}");
    }
    for text in ["infinity", "-infinity"] {
        assert_eq!(parse(text), Err(Failure::Infinite), "{text}");
    }
    for text in ["", "1 week", "1:2", "00:00:00.1234567", "Infinity"] {
        assert_eq!(parse(text), Err(Failure::Damaged), "{text}");
    }
}

#[test]
fn months_of_thirty_days_are_compared() {
    let ty = decimal(6);
    let args = [texts(&[
        Some("1 mon"),
        Some("30 days"),
        Some("720:00:00"),
        None,
        Some("-infinity"),
        Some("infinity"),
    ])];
    let lengths = result(Function::IntervalLength, &ty, &args);
    let lengths = lengths.as_primitive::<Decimal128Type>();
    let month = 30 * i128::from(DAY);
    assert_eq!(lengths.values()[..3], [month, month, month]);
    assert!(lengths.is_null(3));
    assert!(lengths.value(4) < length(of(i32::MIN, 0, 0)));
    assert!(lengths.value(5) > length(of(i32::MAX, 0, 0)));
}

// timestamp.c: interval_cmp_value has 128 bits.
#[test]
fn every_interval_has_a_length() {
    let ty = decimal(6);
    for interval in [
        of(i32::MIN, i32::MIN, i64::MIN + 1),
        of(i32::MAX, i32::MAX, i64::MAX - 1),
        of(i32::MIN, i32::MAX, 0),
    ] {
        let args = [text(&shown(interval))];
        let compared = result(Function::IntervalLength, &ty, &args);
        let compared = compared.as_primitive::<Decimal128Type>();
        assert_eq!(compared.value(0), length(interval));
    }
    let refused = error(Function::IntervalLength, &ty, &[text("1 week")]);
    assert_eq!(refused.code, ErrorCode::DataCorrupted);
}

// interval.out
#[test]
fn fields() {
    let field = |field: Field, text_: &str| {
        let ty = decimal(field.scale_of_interval().unwrap_or(0));
        let result = result(Function::IntervalPart(field), &ty, &[text(text_)]);
        result.as_primitive::<Decimal128Type>().value(0)
    };
    let long = "12 years 5 mons 6 days 07:08:09.5";
    for (name, expected) in [
        (Field::Year, 12),
        (Field::Decade, 1),
        (Field::Century, 0),
        (Field::Month, 5),
        (Field::Quarter, 2),
        (Field::Day, 6),
        (Field::Hour, 7),
        (Field::Minute, 8),
        (Field::Second, 9_500_000),
        (Field::Millisecond, 9_500_000),
        (Field::Microsecond, 9_500_000),
        (Field::Epoch, 392_195_289_500_000),
    ] {
        assert_eq!(field(name, long), expected, "{name:?}");
    }
    assert_eq!(field(Field::Minute, "-00:01:30"), -1);
    let epoch = Function::IntervalPart(Field::Epoch);
    let epoch = result(epoch, &LakeType::Float8, &[text("1 mon 00:00:00.5")]);
    assert_eq!(epoch.as_primitive::<Float64Type>().value(0), 2_592_000.5);
    let code = error(
        Function::IntervalPart(Field::Day),
        &decimal(0),
        &[text("infinity")],
    )
    .code;
    assert_eq!(code, ErrorCode::NotExact);
}

// interval.out
#[test]
fn arithmetic() {
    let args = [text("1 mon -1 days"), text("2 days 01:00:00")];
    assert_eq!(one(Function::IntervalAdd, &args), "1 mon 1 day 01:00:00");
    assert_eq!(
        one(Function::IntervalSubtract, &args),
        "1 mon -3 days -01:00:00"
    );
    assert_eq!(one(Function::IntervalNegate, &args[..1]), "-1 mons +1 day");
    let largest = [text("2147483647 days"), text("1 day")];
    assert_eq!(
        refused(Function::IntervalAdd, &largest),
        ErrorCode::DatetimeOverflow
    );
    let by = |factor, of| one(Function::IntervalMultiply, &[text(of), float(factor)]);
    assert_eq!(by(1.5, "1 mon"), "1 mon 15 days");
    assert_eq!(by(0.3, "1 mon"), "9 days");
    assert_eq!(
        by(8.2, "5 mons 6 days 00:10:10"),
        "3 years 5 mons 49 days 06:11:22"
    );
    let over = |divisor, of| one(Function::IntervalDivide, &[text(of), float(divisor)]);
    assert_eq!(over(2.0, "1 mon"), "15 days");
    assert_eq!(
        over(10.0, "41 mons -12 days -360:00:00"),
        "4 mons 2 days -40:48:00"
    );
    let none = [text("1 day"), float(0.0)];
    assert_eq!(
        refused(Function::IntervalDivide, &none),
        ErrorCode::DivisionByZero
    );
    let nan = [text("1 day"), float(f64::NAN)];
    assert_eq!(
        refused(Function::IntervalMultiply, &nan),
        ErrorCode::DatetimeOverflow
    );
    let infinite = [text("1 day"), float(f64::INFINITY)];
    assert_eq!(
        refused(Function::IntervalMultiply, &infinite),
        ErrorCode::NotExact
    );
    assert_eq!(over(f64::INFINITY, "1 mon 1 day"), "00:00:00");
}

// interval.out
#[test]
fn justified_intervals() {
    let hours = |of| one(Function::JustifyHours, &[text(of)]);
    assert_eq!(hours("6 mons 3 days 52:03:02"), "6 mons 5 days 04:03:02");
    assert_eq!(hours("1 day -00:00:01"), "23:59:59");
    let days = |of| one(Function::JustifyDays, &[text(of)]);
    assert_eq!(days("6 mons 36 days 05:04:03"), "7 mons 6 days 05:04:03");
    let both = |of| one(Function::JustifyInterval, &[text(of)]);
    assert_eq!(both("1 mon -01:00:00"), "29 days 23:00:00");
    assert_eq!(
        both("2147483647 days 24:00:00"),
        "5965232 years 4 mons 8 days"
    );
    assert_eq!(
        both("-2147483648 days -24:00:00"),
        "-5965232 years -4 mons -9 days"
    );
}

// timestamp.out, interval.out
#[test]
fn what_lies_between_timestamps() {
    let at = |day: i64, time: i64| column(TimestampMicrosecondArray::from(vec![day * DAY + time]));
    let between = |left, right| one(Function::TimestampsBetween, &[left, right]);
    assert_eq!(between(at(3, HOUR), at(1, 0)), "2 days 01:00:00");
    assert_eq!(between(at(1, 0), at(2, HOUR)), "-1 days -01:00:00");
    assert_eq!(between(at(1, 0), at(1, 0)), "00:00:00");
    let age = |left, right| one(Function::Age, &[left, right]);
    // 1970-03-31, 1970-02-28
    assert_eq!(age(at(89, 0), at(58, 0)), "1 mon 3 days");
    assert_eq!(age(at(58, 0), at(89, 0)), "-1 mons -3 days");
    // 1970-03-01, 1970-01-31 12:00
    assert_eq!(age(at(59, 0), at(30, 12 * HOUR)), "1 mon 12:00:00");
    assert_eq!(age(at(365, 0), at(0, 0)), "1 year");
}

#[test]
fn timestamps_are_moved() {
    let at = || column(TimestampMicrosecondArray::from(vec![0, 0, DAY * 30]));
    let by = || texts(&[Some("1 mon 1 day"), None, Some("1 mon 00:00:01")]);
    let moved = |negated| {
        let function = Function::AddIntervalOf { negated };
        let moved = result(function, &LakeType::Timestamp, &[at(), by()]);
        let moved = moved.as_primitive::<TimestampMicrosecondType>();
        assert!(moved.is_null(1));
        (moved.value(0), moved.value(2))
    };
    assert_eq!(moved(false), (32 * DAY, 58 * DAY + SECOND));
    assert_eq!(moved(true), (-32 * DAY, -DAY - SECOND));
    let far = [at(), text("300000 years")];
    let function = Function::AddIntervalOf { negated: false };
    let code = error(function, &LakeType::Timestamp, &far).code;
    assert_eq!(code, ErrorCode::DatetimeOverflow);
}

#[test]
fn intervals_are_made_of_numbers() {
    let made = |numbers: [i32; 6], seconds| {
        let mut args: Vec<Val> = numbers.into_iter().map(int).collect();
        args.push(float(seconds));
        call_made(&args)
    };
    assert_eq!(
        made([1, 2, 1, 3, 4, 5], 6.789),
        Ok("1 year 2 mons 10 days 04:05:06.789".to_owned())
    );
    let out_of_range = Err(ErrorCode::DatetimeOverflow);
    assert_eq!(made([178_956_971, 0, 0, 0, 0, 0], 0.0), out_of_range);
    assert_eq!(made([0; 6], f64::NAN), out_of_range);
    assert_eq!(made([0; 6], 1e308), Err(ErrorCode::OutOfRange));
}

fn call_made(args: &[Val]) -> Result<String, ErrorCode> {
    super::super::call(Function::MakeInterval, &LakeType::Text, args, None)
        .map(|made| made.array().as_string::<i32>().value(0).to_owned())
        .map_err(|error| error.code)
}
