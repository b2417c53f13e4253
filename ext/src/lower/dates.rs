//! Dates and timestamps: comparisons with each other, their fields, intervals.

use super::Lowered;
use super::calls::call_of;
use super::compare::comparison;
use super::consts::decimal;
use super::expr::cast;
use super::functions::{Call, Number};
use super::node::{Node, get};
use super::table::sql_type;
use pg_lake_plan::expr::{Expr, ExprKind, Field, Function, Interval};
use pg_lake_plan::ir::CompareOp;
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;

const MICROSECONDS: i64 = 86_400_000_000;

fn timestamp() -> SqlType {
    sql_type(LakeType::Timestamp, pg_sys::TIMESTAMPOID)
}

/// `date op timestamp`, as Postgres does it: the date is its midnight. With a constant it becomes a comparison of
/// dates, which can't fail and which statistics of the column can decide.
pub fn compare(op: CompareOp, date: Expr, timestamp: Expr) -> Expr {
    if let Some((op, day)) = as_date(op, &timestamp) {
        let day = Expr {
            ty: date.ty.clone(),
            kind: ExprKind::Const(day.map(Value::I32)),
        };
        return comparison(op, date, day);
    }
    let midnight = cast(date, &self::timestamp());
    comparison(op, midnight, timestamp)
}

/// The operator and day that a date is compared with instead.
fn as_date(op: CompareOp, timestamp: &Expr) -> Option<(CompareOp, Option<i32>)> {
    let at = match &timestamp.kind {
        ExprKind::Const(None) => return Some((op, None)),
        ExprKind::Const(Some(Value::I64(at))) => *at,
        _ => return None,
    };
    let day = i32::try_from(at.div_euclid(MICROSECONDS)).ok()?;
    let midnight = at.rem_euclid(MICROSECONDS) == 0;
    let op = match op {
        _ if midnight => op,
        // Later than midnight of `day` and before the next: no date is equal.
        CompareOp::Lt | CompareOp::Le => CompareOp::Le,
        CompareOp::Gt | CompareOp::Ge => CompareOp::Gt,
        CompareOp::Eq | CompareOp::Ne => return None,
    };
    Some((op, Some(day)))
}

/// A constant's field (`deltatktbl` in `datetime.c`).
pub fn field(name: &Expr) -> Lowered<Field> {
    let ExprKind::Const(Some(Value::Text(name))) = &name.kind else {
        return Err("a field that is not constant is not lowered".to_owned());
    };
    Ok(match name.to_ascii_lowercase().as_str() {
        "millennium" | "millennia" | "mil" | "mils" => Field::Millennium,
        "century" | "centuries" | "cent" | "c" => Field::Century,
        "decade" | "decades" | "dec" | "decs" => Field::Decade,
        "year" | "years" | "y" | "yr" | "yrs" => Field::Year,
        "isoyear" => Field::IsoYear,
        "quarter" | "qtr" => Field::Quarter,
        "month" | "months" | "mon" | "mons" => Field::Month,
        "week" | "weeks" | "w" => Field::Week,
        "day" | "days" | "d" => Field::Day,
        "dow" => Field::Dow,
        "isodow" => Field::IsoDow,
        "doy" => Field::Doy,
        "julian" => Field::Julian,
        "hour" | "hours" | "h" | "hr" | "hrs" => Field::Hour,
        "minute" | "minutes" | "m" | "min" | "mins" => Field::Minute,
        "second" | "seconds" | "s" | "sec" | "secs" => Field::Second,
        "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" => Field::Millisecond,
        "microsecond" | "microseconds" | "us" | "usec" | "usecs" => Field::Microsecond,
        "epoch" => Field::Epoch,
        name => return Err(format!("field \"{name}\" is not lowered")),
    })
}

/// `extract`, `date_part` or `date_trunc`.
pub fn of_field(call: Call, field: Field, arg: Expr) -> Lowered<Expr> {
    let scale = field
        .scale(&arg.ty.lake)
        .ok_or("this field of this type is not lowered")?;
    let (function, ty) = match call {
        Call::Extract => (Function::Extract(field), decimal(scale)),
        Call::DatePart => (Function::DatePart(field), Number::Float8.ty()),
        _ if field.truncates() => (Function::DateTrunc(field), timestamp()),
        _ => return Err("this field of this type is not lowered".to_owned()),
    };
    Ok(call_of(function, vec![arg], ty))
}

/// A constant interval, or the one that undoes it.
pub fn interval(node: Node, negated: bool) -> Lowered<Interval> {
    let constant = get::<pg_sys::Const>(node)
        .filter(|constant| !constant.constisnull && constant.consttype == pg_sys::INTERVALOID)
        .ok_or("intervals are lowered where they are constant only")?;
    // SAFETY: an interval is passed by reference.
    let interval = unsafe { *constant.constvalue.cast_mut_ptr::<pg_sys::Interval>() };
    let infinite =
        |month, day, time| (interval.month, interval.day, interval.time) == (month, day, time);
    if infinite(i32::MAX, i32::MAX, i64::MAX) || infinite(i32::MIN, i32::MIN, i64::MIN) {
        return Err("an infinite interval is not lowered".to_owned());
    }
    let interval = Interval {
        months: interval.month,
        days: interval.day,
        microseconds: interval.time,
    };
    if !negated {
        return Ok(interval);
    }
    let out_of_range = "an interval is out of range";
    Ok(Interval {
        months: interval.months.checked_neg().ok_or(out_of_range)?,
        days: interval.days.checked_neg().ok_or(out_of_range)?,
        microseconds: interval.microseconds.checked_neg().ok_or(out_of_range)?,
    })
}

/// Of a date or a timestamp.
pub fn add_interval(arg: Expr, interval: Interval) -> Expr {
    let at = cast(arg, &timestamp());
    call_of(Function::AddInterval(interval), vec![at], timestamp())
}
