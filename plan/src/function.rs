//! The functions that an expression can call.

use crate::expr::{Expr, ExprKind};
use crate::types::{LakeType, Value};
use serde::{Deserialize, Serialize};

/// Strict functions. Which types they take is said here; `validate` of the engine checks it. Positions and
/// lengths are `Int4` and count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Function {
    /// `substring(text, from [, count])`
    Substring,
    /// `left(text, count)`, `right(text, count)`: of a negative count, all but so many.
    Left,
    Right,
    /// `btrim(text [, characters])` and its halves; without characters: blanks.
    Trim(Side),
    /// ASCII letters only: as under the collation C.
    Lower,
    Upper,
    Reverse,
    /// Characters, bytes.
    Length,
    OctetLength,
    /// `strpos(text, part)`
    Position,
    StartsWith,
    /// `replace(text, from, to)`
    Replace,
    /// `text || text`
    Concat,
    /// `lpad(text, length, fill)`, `rpad(text, length, fill)`
    PadLeft,
    PadRight,
    /// `repeat(text, count)`
    Repeat,
    /// Of a number; the type stays.
    Abs,
    /// Of a float or decimal, as a float or a decimal of scale 0.
    Sign,
    Ceil,
    Floor,
    /// A decimal, half away from zero, to so many digits after the point (negative: before it). The result's scale
    /// is that number, at least 0. A float to an integer, half to even: no digits.
    Round(i16),
    /// The same towards zero.
    Truncate(i16),
    /// Of a float.
    Sqrt,
    /// Of integers of one type.
    BitAnd,
    BitOr,
    BitXor,
    BitNot,
    /// An integer by an `Int4`. [`ErrorCode::NotExact`] where C doesn't define it.
    ///
    /// [`ErrorCode::NotExact`]: crate::message::ErrorCode::NotExact
    ShiftLeft,
    ShiftRight,
    /// The quotient of two decimals, rounded as Postgres rounds it (`select_div_scale` in `numeric.c`), but its
    /// trailing zeros are not those of Postgres: to compare by only. [`ErrorCode::NotExact`] where it has more digits
    /// than the result's scale.
    ///
    /// [`ErrorCode::NotExact`]: crate::message::ErrorCode::NotExact
    Quotient,
    /// A conversion that isn't an [`ExprKind::Cast`]: it may round, and fail.
    Convert,
    /// A field of a date, a time or a timestamp, as a decimal of [`Field::scale`].
    Extract(Field),
    /// The same as a `Float8`. Not of dates.
    DatePart(Field),
    /// `date_trunc(field, timestamp)`
    DateTrunc(Field),
    /// A date and an `Int4`
    AddDays,
    SubtractDays,
    /// `date - date`, an `Int4`.
    DaysBetween,
    /// To a timestamp.
    AddInterval(Interval),
    /// `make_date(year, month, day)` of `Int4`s
    MakeDate,
    /// `text LIKE pattern`: [`ExprKind::Like`] of a pattern that isn't known before, or isn't complete.
    Like,
    /// `split_part(text, delimiter, number)`
    SplitPart,
    /// `translate(text, from, to)`
    Translate,
    /// The first character's number.
    Ascii,
    Chr,
    /// Of a text or of bytes.
    Md5,
    /// Of an `Int4` or `Int8`.
    ToHex,
    /// Of floats.
    Power,
    Exp,
    Ln,
    Log10,
    /// Of integers of one type.
    Gcd,
    Lcm,
    /// `date_bin(stride, timestamp, origin)` of a stride in microseconds.
    DateBin(i64),
    /// A `Timestamptz`, and an offset from UTC in microseconds (an `Int8`): the timestamp that clocks show there.
    /// [`ErrorCode::NotExact`] where that is near the end of timestamps; so are the next three.
    ///
    /// [`ErrorCode::NotExact`]: crate::message::ErrorCode::NotExact
    ToLocal,
    /// The reverse.
    ToInstant,
    /// [`Function::DateTrunc`] and [`Function::AddInterval`] of a `Timestamptz`, as clocks with that offset show it.
    DateTruncAt(Field),
    AddIntervalAt(Interval),
    /// The seconds from the second of two timestamps of one type to the first, as a decimal of scale 6 or a `Float8`.
    SecondsBetween,
    /// `width_bucket(value, from, to, count)` of floats or decimals, and an `Int4`.
    WidthBucket,
    /// `overlay(text, new, from [, count])`
    Overlay,
    /// `div(left, right)`: the quotient of two decimals without its fraction.
    WholeQuotient,
    /// A boolean, an integer or a UUID as a text.
    Print,
    /// An interval is a text, as Postgres prints it under `IntervalStyle = postgres`. What it is compared by: its
    /// seconds as a decimal of scale 6, where days have 24 hours and months 30 days.
    IntervalLength,
    /// A field of an interval, as a decimal of [`Field::scale_of_interval`] or as a `Float8`.
    /// [`ErrorCode::NotExact`] of infinite intervals; so are the next ones.
    ///
    /// [`ErrorCode::NotExact`]: crate::message::ErrorCode::NotExact
    IntervalPart(Field),
    IntervalAdd,
    IntervalSubtract,
    IntervalNegate,
    /// By a `Float8`.
    IntervalMultiply,
    IntervalDivide,
    JustifyHours,
    JustifyDays,
    JustifyInterval,
    /// From the second of two timestamps of one type to the first, in days and less.
    TimestampsBetween,
    /// The same of timestamps without a zone, in years, months and less.
    Age,
    /// A timestamp, and an interval that isn't constant. Of a `Timestamptz`: also an offset from UTC before it, as of
    /// [`Function::AddIntervalAt`].
    AddIntervalOf {
        negated: bool,
    },
    /// `make_interval(years, months, weeks, days, hours, minutes, seconds)` of `Int4`s and a `Float8`
    MakeInterval,
    /// `jsonb` is a text, as Postgres prints it. `->` by a key, as `jsonb`, or as a text (`->>`).
    JsonField {
        as_text: bool,
    },
    /// The same by an `Int4`.
    JsonElement {
        as_text: bool,
    },
    /// One step of `#>`: by a key, or by a number that is a text.
    JsonStep {
        as_text: bool,
    },
    /// `jsonb_typeof`
    JsonKind,
    /// `jsonb_array_length`
    JsonLength,
    /// `jsonb ? text`
    JsonHasKey,
    /// `jsonb @> jsonb`. [`ErrorCode::NotExact`] of what is nested in more than [`JSON_DEPTH`] levels.
    ///
    /// [`ErrorCode::NotExact`]: crate::message::ErrorCode::NotExact
    JsonContains,
    /// A `jsonb` that is a boolean or a number, as such a type.
    JsonScalar,
    /// A text as a number. [`ErrorCode::NotExact`] of forms that are rare.
    ///
    /// [`ErrorCode::NotExact`]: crate::message::ErrorCode::NotExact
    Read,
    /// Two floats as the `Bytes` that [`AggregateFunction::PairMoments`] takes.
    ///
    /// [`AggregateFunction::PairMoments`]: crate::ir::AggregateFunction::PairMoments
    FloatPair,
    /// What a `jsonb` is compared by: a text whose bytes have the order of `compareJsonbContainers` under collation C, and
    /// that equal values have in common.
    JsonOrder,
    /// `numeric_sqrt`, with zeros after Postgres' digits. [`ErrorCode::NotExact`] where it has more than the result's scale.
    ///
    /// [`ErrorCode::NotExact`]: crate::message::ErrorCode::NotExact
    DecimalSqrt,
    /// How many digits after the point Postgres shows of that, as an `Int4`.
    DecimalSqrtScale,
    /// `numeric_power` of a decimal and a whole one that is not negative, and its scale: the same.
    DecimalPower,
    DecimalPowerScale,
    /// `min_scale`: how many digits after the point a decimal needs, as an `Int4`.
    MinScale,
    /// Of an `Int8`.
    Factorial,
}

/// Levels of a `jsonb` that containment looks at.
pub const JSON_DEPTH: usize = 100;

/// An end of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    Start,
    End,
    Both,
}

/// A finite `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub microseconds: i64,
}

/// What is extracted from a date, a time or a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Field {
    Millennium,
    Century,
    Decade,
    Year,
    IsoYear,
    Quarter,
    Month,
    Week,
    Day,
    /// Sunday is 0.
    Dow,
    /// Sunday is 7.
    IsoDow,
    Doy,
    /// Of dates only.
    Julian,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Epoch,
}

impl Field {
    /// Digits after the point that Postgres shows of this field of a value of the type; `None` if there is no such
    /// field, or if their number depends on the value.
    pub fn scale(self, of: &LakeType) -> Option<i8> {
        let scale = match self {
            Field::Second => 6,
            Field::Millisecond => 3,
            Field::Epoch if *of != LakeType::Date => 6,
            _ => 0,
        };
        let of_day = matches!(
            self,
            Field::Hour | Field::Minute | Field::Second | Field::Millisecond | Field::Microsecond
        );
        let exists = match of {
            LakeType::Date => !of_day,
            LakeType::Time => of_day || self == Field::Epoch,
            LakeType::Timestamp => self != Field::Julian,
            _ => false,
        };
        exists.then_some(scale)
    }

    /// The same of an interval.
    pub fn scale_of_interval(self) -> Option<i8> {
        match self {
            Field::Second | Field::Epoch => Some(6),
            Field::Millisecond => Some(3),
            Field::IsoYear
            | Field::Week
            | Field::Dow
            | Field::IsoDow
            | Field::Doy
            | Field::Julian => None,
            _ => Some(0),
        }
    }

    /// Whether timestamps can be cut off at this field.
    pub fn truncates(self) -> bool {
        !matches!(
            self,
            Field::IsoYear | Field::Dow | Field::IsoDow | Field::Doy | Field::Julian | Field::Epoch
        )
    }
}

impl Function {
    /// Whether a call can raise an error that its arguments don't.
    pub(crate) fn can_fail(self, args: &[Expr], result: &LakeType) -> bool {
        let constant = |arg: &Expr| match &arg.kind {
            ExprKind::Const(Some(Value::I32(n))) => Some(*n),
            _ => None,
        };
        let is_constant = |arg: &Expr| matches!(arg.kind, ExprKind::Const(_));
        // One text that is made longer by none of the rows.
        let fixed = args.iter().skip(1).all(is_constant);
        let of = args.first().map(|arg| &arg.ty.lake);
        match self {
            Function::Left | Function::Right | Function::Trim(_) => !fixed,
            Function::Substring => {
                let count = args.get(2).map(constant);
                !fixed || count.is_some_and(|count| count.is_none_or(|n| n < 0))
            }
            Function::Concat
            | Function::Replace
            | Function::PadLeft
            | Function::PadRight
            | Function::Repeat => true,
            Function::Lower
            | Function::Upper
            | Function::Reverse
            | Function::Length
            | Function::OctetLength
            | Function::Position
            | Function::StartsWith => false,
            Function::Abs => !result.is_float(),
            Function::Sign | Function::Ceil | Function::Floor => false,
            Function::Round(digits) | Function::Truncate(digits) => match of {
                Some(LakeType::Decimal { scale, .. }) => digits > i16::from(*scale) || digits < 0,
                _ => false,
            },
            Function::Sqrt
            | Function::Quotient
            | Function::DecimalSqrt
            | Function::DecimalPower
            | Function::Factorial => true,
            Function::BitAnd | Function::BitOr | Function::BitXor | Function::BitNot => false,
            Function::ShiftLeft | Function::ShiftRight => {
                let count = args.get(1).and_then(constant);
                count.is_none_or(|n| !(0..32).contains(&n))
            }
            Function::Convert => !matches!(
                (of, result),
                (
                    Some(LakeType::Decimal { .. }),
                    LakeType::Float4 | LakeType::Float8
                ) | (Some(LakeType::Timestamp), LakeType::Date | LakeType::Time)
                    | (Some(LakeType::Bool), LakeType::Int4)
                    | (Some(LakeType::Int4), LakeType::Bool)
            ),
            Function::Extract(_) | Function::DatePart(_) | Function::DaysBetween => false,
            // The first week, month … of timestamps begins before them.
            Function::DateTrunc(field) => !matches!(
                field,
                Field::Day
                    | Field::Hour
                    | Field::Minute
                    | Field::Second
                    | Field::Millisecond
                    | Field::Microsecond
            ),
            Function::AddDays
            | Function::SubtractDays
            | Function::AddInterval(_)
            | Function::MakeDate => true,
            Function::Like => !matches!(
                args.get(1).map(|pattern| &pattern.kind),
                Some(ExprKind::Const(Some(Value::Text(pattern)))) if is_complete(pattern)
            ),
            Function::SplitPart => {
                let number = args.get(2).and_then(constant);
                !fixed || number.is_none_or(|number| number == 0)
            }
            Function::Ascii
            | Function::Md5
            | Function::ToHex
            | Function::Print
            | Function::IntervalLength
            | Function::JsonField { .. }
            | Function::JsonElement { .. }
            | Function::JsonStep { .. }
            | Function::JsonKind
            | Function::JsonHasKey
            | Function::FloatPair
            | Function::JsonOrder
            | Function::DecimalSqrtScale
            | Function::DecimalPowerScale
            | Function::MinScale => false,
            Function::JsonContains => !matches!(
                args.get(1).map(|part| &part.kind),
                Some(ExprKind::Const(Some(Value::Text(part)))) if is_shallow(part)
            ),
            Function::Translate
            | Function::Chr
            | Function::Power
            | Function::Exp
            | Function::Ln
            | Function::Log10
            | Function::Gcd
            | Function::Lcm
            | Function::DateBin(_)
            | Function::ToLocal
            | Function::ToInstant
            | Function::DateTruncAt(_)
            | Function::AddIntervalAt(_)
            | Function::SecondsBetween
            | Function::WidthBucket
            | Function::Overlay
            | Function::WholeQuotient
            | Function::IntervalPart(_)
            | Function::IntervalAdd
            | Function::IntervalSubtract
            | Function::IntervalNegate
            | Function::IntervalMultiply
            | Function::IntervalDivide
            | Function::JustifyHours
            | Function::JustifyDays
            | Function::JustifyInterval
            | Function::TimestampsBetween
            | Function::Age
            | Function::AddIntervalOf { .. }
            | Function::MakeInterval
            | Function::JsonLength
            | Function::JsonScalar
            | Function::Read => true,
        }
    }

    /// For EXPLAIN: Postgres' name, where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Function::Substring => "substring",
            Function::Left => "left",
            Function::Right => "right",
            Function::Trim(Side::Start) => "ltrim",
            Function::Trim(Side::End) => "rtrim",
            Function::Trim(Side::Both) => "btrim",
            Function::Lower => "lower",
            Function::Upper => "upper",
            Function::Reverse => "reverse",
            Function::Length => "length",
            Function::OctetLength => "octet_length",
            Function::Position => "strpos",
            Function::StartsWith => "starts_with",
            Function::Replace => "replace",
            Function::Concat => "textcat",
            Function::PadLeft => "lpad",
            Function::PadRight => "rpad",
            Function::Repeat => "repeat",
            Function::Abs => "abs",
            Function::Sign => "sign",
            Function::Ceil => "ceil",
            Function::Floor => "floor",
            Function::Round(_) => "round",
            Function::Truncate(_) => "trunc",
            Function::Sqrt => "sqrt",
            Function::BitAnd => "bitand",
            Function::BitOr => "bitor",
            Function::BitXor => "bitxor",
            Function::BitNot => "bitnot",
            Function::ShiftLeft => "shl",
            Function::ShiftRight => "shr",
            Function::Quotient => "numeric_div",
            Function::Convert => "convert",
            Function::Extract(_) => "extract",
            Function::DatePart(_) => "date_part",
            Function::DateTrunc(_) => "date_trunc",
            Function::AddDays => "date_pli",
            Function::SubtractDays => "date_mii",
            Function::DaysBetween => "date_mi",
            Function::AddInterval(_) => "timestamp_pl_interval",
            Function::MakeDate => "make_date",
            Function::Like => "like",
            Function::SplitPart => "split_part",
            Function::Translate => "translate",
            Function::Ascii => "ascii",
            Function::Chr => "chr",
            Function::Md5 => "md5",
            Function::ToHex => "to_hex",
            Function::Power => "power",
            Function::Exp => "exp",
            Function::Ln => "ln",
            Function::Log10 => "log10",
            Function::Gcd => "gcd",
            Function::Lcm => "lcm",
            Function::DateBin(_) => "date_bin",
            Function::ToLocal => "to_local",
            Function::ToInstant => "to_instant",
            Function::DateTruncAt(_) => "date_trunc",
            Function::AddIntervalAt(_) => "timestamptz_pl_interval",
            Function::SecondsBetween => "seconds_between",
            Function::WidthBucket => "width_bucket",
            Function::Overlay => "overlay",
            Function::WholeQuotient => "div",
            Function::Print => "text",
            Function::IntervalLength => "interval_cmp_value",
            Function::IntervalPart(_) => "extract",
            Function::IntervalAdd => "interval_pl",
            Function::IntervalSubtract => "interval_mi",
            Function::IntervalNegate => "interval_um",
            Function::IntervalMultiply => "interval_mul",
            Function::IntervalDivide => "interval_div",
            Function::JustifyHours => "justify_hours",
            Function::JustifyDays => "justify_days",
            Function::JustifyInterval => "justify_interval",
            Function::TimestampsBetween => "timestamp_mi",
            Function::Age => "age",
            Function::AddIntervalOf { negated: false } => "timestamp_pl_interval",
            Function::AddIntervalOf { negated: true } => "timestamp_mi_interval",
            Function::MakeInterval => "make_interval",
            Function::JsonField { as_text: false } => "jsonb_object_field",
            Function::JsonField { as_text: true } => "jsonb_object_field_text",
            Function::JsonElement { as_text: false } => "jsonb_array_element",
            Function::JsonElement { as_text: true } => "jsonb_array_element_text",
            Function::JsonStep { as_text: false } => "jsonb_extract_path",
            Function::JsonStep { as_text: true } => "jsonb_extract_path_text",
            Function::JsonKind => "jsonb_typeof",
            Function::JsonLength => "jsonb_array_length",
            Function::JsonHasKey => "jsonb_exists",
            Function::JsonContains => "jsonb_contains",
            Function::JsonScalar => "jsonb_scalar",
            Function::Read => "read",
            Function::FloatPair => "pair",
            Function::JsonOrder => "jsonb_cmp",
            Function::DecimalSqrt => "sqrt",
            Function::DecimalSqrtScale => "sqrt_scale",
            Function::DecimalPower => "power",
            Function::DecimalPowerScale => "power_scale",
            Function::MinScale => "min_scale",
            Function::Factorial => "factorial",
        }
    }

    /// What the function is parametrised by, for EXPLAIN.
    pub fn parameter(self) -> Option<String> {
        match self {
            Function::Round(digits) | Function::Truncate(digits) => Some(digits.to_string()),
            Function::Extract(field)
            | Function::DatePart(field)
            | Function::DateTrunc(field)
            | Function::DateTruncAt(field)
            | Function::IntervalPart(field) => Some(format!("{field:?}").to_lowercase()),
            Function::AddInterval(by) | Function::AddIntervalAt(by) => Some(format!(
                "{} mons {} days {} us",
                by.months, by.days, by.microseconds
            )),
            Function::DateBin(stride) => Some(format!("{stride} us")),
            _ => None,
        }
    }
}

/// Whether a `jsonb` can't have more than [`JSON_DEPTH`] levels.
fn is_shallow(value: &str) -> bool {
    let opens = |byte: &u8| matches!(byte, b'{' | b'[');
    value.as_bytes().iter().filter(|byte| opens(byte)).count() <= JSON_DEPTH
}

/// Whether a pattern doesn't end with an escape character that escapes nothing.
pub fn is_complete(pattern: &str) -> bool {
    let escapes = pattern.bytes().rev().take_while(|byte| *byte == b'\\');
    escapes.count().is_multiple_of(2)
}

#[cfg(test)]
#[path = "function_tests.rs"]
mod tests;
