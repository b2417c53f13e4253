//! Functions with Postgres' results and errors.
//!
//! All are strict: where an argument is null the result is null, and the other arguments aren't looked at.
//!
//! * `check`: which types a function takes
//! * `rows`: the rows of a call: arguments, nulls, and results made from them
//! * `text`, `patterns`, `codes`; `numbers`, `powers`, `quotient`, `roots`, `buckets`, `convert`
//! * `calendar`: days and dates; `dates`: functions of dates and timestamps; `zones`: and of where clocks show them;
//!   `intervals`: of intervals
//! * `json`: `jsonb`; `json_order`: what it is compared by; `read`: what is read from it and from texts
//! * `pairs`: two arguments of an aggregate as one

mod buckets;
mod calendar;
mod check;
mod codes;
mod convert;
pub(super) mod dates;
pub(super) mod intervals;
mod json;
mod json_order;
mod numbers;
pub(super) mod pairs;
mod patterns;
mod powers;
mod quotient;
mod read;
mod roots;
pub(super) mod rows;
mod text;
mod zones;

pub(super) use check::check;

use super::error::internal;
use super::expr::Val;
use crate::arrow_types::arrow_type;
use arrow::array::new_null_array;
use datafusion_execution::memory_pool::MemoryPool;
use pg_lake_plan::function::Function;
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use rows::Rows;
use std::sync::Arc;

/// The result, of type `ty`, of a call that [`check`] has accepted. Long texts are accounted for with `memory` while they
/// are made.
pub(super) fn call(
    function: Function,
    ty: &LakeType,
    args: &[Val],
    memory: Option<&Arc<dyn MemoryPool>>,
) -> Result<Val, WireError> {
    let Some(rows) = Rows::of(args) else {
        return Ok(Val::Scalar(new_null_array(&arrow_type(ty), 1)));
    };
    let rows = rows.within(memory);
    let array = match function {
        Function::Substring => text::substring(&rows, args),
        Function::Left => text::left(&rows, args),
        Function::Right => text::right(&rows, args),
        Function::Trim(side) => text::trim(&rows, side, args),
        Function::Lower => text::rewritten(&rows, args, |text| text.make_ascii_lowercase()),
        Function::Upper => text::rewritten(&rows, args, |text| text.make_ascii_uppercase()),
        Function::Reverse => text::reverse(&rows, args),
        Function::Length => text::measured(&rows, args, |text| text.chars().count()),
        Function::OctetLength => codes::octet_length(&rows, args),
        Function::Position => text::position(&rows, args),
        Function::StartsWith => text::starts_with(&rows, args),
        Function::Replace => text::replace(&rows, args),
        Function::Concat => text::concat(&rows, args),
        Function::PadLeft => text::pad(&rows, args, true),
        Function::PadRight => text::pad(&rows, args, false),
        Function::Repeat => text::repeat(&rows, args),
        Function::Abs => numbers::abs(&rows, ty, args),
        Function::Sign => numbers::sign(&rows, ty, args),
        Function::Ceil => numbers::ceil(&rows, ty, args),
        Function::Floor => numbers::floor(&rows, ty, args),
        Function::Round(digits) => numbers::round(&rows, ty, digits, args),
        Function::Truncate(digits) => numbers::truncate(&rows, ty, digits, args),
        Function::Sqrt => numbers::sqrt(&rows, args),
        Function::BitAnd => numbers::bitwise(&rows, ty, args, |a, b| a & b),
        Function::BitOr => numbers::bitwise(&rows, ty, args, |a, b| a | b),
        Function::BitXor => numbers::bitwise(&rows, ty, args, |a, b| a ^ b),
        Function::BitNot => numbers::complement(&rows, ty, args),
        Function::ShiftLeft => numbers::shift(&rows, ty, args, true),
        Function::ShiftRight => numbers::shift(&rows, ty, args, false),
        Function::Quotient => quotient::quotient(&rows, ty, args),
        Function::Convert => convert::convert(&rows, ty, args),
        Function::Extract(field) => dates::extract(&rows, ty, field, args),
        Function::DatePart(field) => dates::date_part(&rows, field, args),
        Function::DateTrunc(field) => dates::date_trunc(&rows, ty, field, args),
        Function::AddDays => dates::add_days(&rows, ty, args, i64::wrapping_add),
        Function::SubtractDays => dates::add_days(&rows, ty, args, i64::wrapping_sub),
        Function::DaysBetween => dates::days_between(&rows, ty, args),
        Function::AddInterval(interval) => dates::add_interval(&rows, ty, interval, args),
        Function::MakeDate => dates::make_date(&rows, ty, args),
        Function::Like => patterns::like(&rows, args),
        Function::SplitPart => patterns::split_part(&rows, args),
        Function::Translate => patterns::translate(&rows, args),
        Function::Ascii => codes::ascii(&rows, args),
        Function::Chr => codes::chr(&rows, args),
        Function::Md5 => codes::md5(&rows, args),
        Function::ToHex => codes::to_hex(&rows, args),
        Function::Power => powers::powers(&rows, args),
        Function::Exp => powers::exponentials(&rows, args),
        Function::Ln => powers::natural_logarithms(&rows, args),
        Function::Log10 => powers::decimal_logarithms(&rows, args),
        Function::Gcd => powers::common(&rows, ty, args, false),
        Function::Lcm => powers::common(&rows, ty, args, true),
        Function::DateBin(stride) => zones::date_bin(&rows, ty, stride, args),
        Function::ToLocal => zones::moved_by(&rows, ty, args, |offset| offset),
        Function::ToInstant => zones::moved_by(&rows, ty, args, i64::wrapping_neg),
        Function::DateTruncAt(field) => zones::date_trunc(&rows, ty, field, args),
        Function::AddIntervalAt(interval) => zones::add_interval(&rows, ty, interval, args),
        Function::SecondsBetween => zones::seconds_between(&rows, ty, args),
        Function::WidthBucket => buckets::width_bucket(&rows, args),
        Function::Overlay => text::overlay(&rows, args),
        Function::WholeQuotient => quotient::whole(&rows, ty, args),
        Function::Print => codes::printed(&rows, args),
        Function::IntervalLength => intervals::lengths(&rows, ty, args),
        Function::IntervalPart(field) => intervals::part(&rows, ty, field, args),
        Function::IntervalAdd => intervals::combined(&rows, args, intervals::sum),
        Function::IntervalSubtract => intervals::combined(&rows, args, intervals::difference),
        Function::IntervalNegate => intervals::changed(&rows, args, intervals::negative),
        Function::IntervalMultiply => intervals::scaled(&rows, args, intervals::product),
        Function::IntervalDivide => intervals::scaled(&rows, args, intervals::quotient),
        Function::JustifyHours => intervals::changed(&rows, args, intervals::justified_hours),
        Function::JustifyDays => intervals::changed(&rows, args, intervals::justified_days),
        Function::JustifyInterval => intervals::changed(&rows, args, intervals::justified),
        Function::TimestampsBetween => intervals::distance(&rows, args, false),
        Function::Age => intervals::distance(&rows, args, true),
        Function::AddIntervalOf { negated } => intervals::moved(&rows, ty, negated, args),
        Function::MakeInterval => intervals::made(&rows, args),
        Function::JsonField { as_text } => json::field(&rows, as_text, args),
        Function::JsonElement { as_text } => json::at(&rows, as_text, args),
        Function::JsonStep { as_text } => json::step(&rows, as_text, args),
        Function::JsonKind => json::kind(&rows, args),
        Function::JsonLength => json::length(&rows, args),
        Function::JsonHasKey => json::has_key(&rows, args),
        Function::JsonContains => json::contains(&rows, args),
        Function::JsonScalar => read::scalar(&rows, ty, args),
        Function::Read => read::read(&rows, ty, args),
        Function::FloatPair => pairs::made(&rows, args),
        Function::JsonOrder => json_order::orders(&rows, args),
        Function::DecimalSqrt => roots::roots(&rows, ty, args),
        Function::DecimalSqrtScale => roots::root_scales(&rows, args),
        Function::DecimalPower => roots::powers(&rows, ty, args),
        Function::DecimalPowerScale => roots::power_scales(&rows, args),
        Function::MinScale => roots::min_scales(&rows, args),
        Function::Factorial => powers::factorials(&rows, ty, args),
    }?;
    Ok(rows.wrap(array))
}

fn argument(args: &[Val], number: usize) -> Result<&Val, WireError> {
    args.get(number)
        .ok_or_else(|| internal("an argument is missing"))
}

#[cfg(test)]
mod support {
    use super::*;
    use arrow::array::{Array, ArrayRef, Decimal128Array, Int32Array, StringArray};

    pub(super) fn decimal(scale: i8) -> LakeType {
        LakeType::Decimal {
            precision: 38,
            scale,
        }
    }

    pub(super) fn column(array: impl Array + 'static) -> Val {
        Val::Array(Arc::new(array))
    }

    pub(super) fn texts(values: &[Option<&str>]) -> Val {
        column(StringArray::from(values.to_vec()))
    }

    pub(super) fn text(value: &str) -> Val {
        Val::Scalar(Arc::new(StringArray::from(vec![value])))
    }

    pub(super) fn ints(values: &[Option<i32>]) -> Val {
        column(Int32Array::from(values.to_vec()))
    }

    pub(super) fn int(value: i32) -> Val {
        Val::Scalar(Arc::new(Int32Array::from(vec![value])))
    }

    pub(super) fn decimal_array(values: &[i128], scale: i8) -> Val {
        let values = Decimal128Array::from(values.to_vec());
        let values = values.with_precision_and_scale(38, scale);
        column(values.expect("decimals"))
    }

    pub(super) fn result(function: Function, ty: &LakeType, args: &[Val]) -> ArrayRef {
        let result = call(function, ty, args, None).expect("a result");
        result.array().clone()
    }

    pub(super) fn error(function: Function, ty: &LakeType, args: &[Val]) -> WireError {
        call(function, ty, args, None).expect_err("an error")
    }
}
