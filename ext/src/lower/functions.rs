//! The whitelist of functions: which `pg_proc` entries the engine computes exactly as Postgres.
//!
//! Operators come here by their function. A function that is missing stays in Postgres. `docs/functions.md` lists
//! what is here.

use super::consts;
use super::intervals::interval_type;
use super::json::jsonb;
use super::node::string;
use super::table::sql_type;
use pg_lake_plan::function::{Function, Side};
use pg_lake_plan::ir::{ArithmeticOp, CompareOp};
use pg_lake_plan::types::{LakeType, SqlType};
use pgrx::pg_sys;
use pgrx::pg_sys as pg;

/// What a function computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Both sides may still have to be brought to one type.
    Compare(CompareOp),
    /// Of `character(n)`: trailing blanks don't count.
    ComparePadded(CompareOp),
    Arithmetic(ArithmeticOp, Number),
    Negate(Number),
    /// A widening conversion.
    Cast(Number),
    Like {
        negated: bool,
    },
    /// Without regard to upper and lower case.
    ILike {
        negated: bool,
    },
    /// The engine's function of the same arguments.
    Plain(Function, Returns),
    /// The same where texts that are equal have the same bytes.
    Search(Function, Returns),
    /// The same for a text where the collation knows ASCII letters only.
    Letters(Function),
    /// Characters of a `character(n)`, without trailing blanks.
    PaddedLength,
    /// `round` and `trunc` of a numeric, to a constant number of digits or to an integer.
    Digits {
        round: bool,
    },
    /// `gcd` and `lcm` of numerics.
    Common(Function),
    /// `sqrt` of a numeric.
    Root,
    /// `power` of a numeric, to a whole constant.
    WholePower,
    /// A numeric without zeros at its end.
    TrimScale,
    /// How many digits after the point are shown of a numeric.
    ScaleOf,
    /// A numeric as one of a constant precision and scale.
    Typmod,
    /// A date as a timestamp.
    Midnight,
    /// Of a constant field.
    Extract,
    DatePart,
    DateTrunc,
    /// An interval, of a date or a timestamp.
    AddInterval {
        negated: bool,
    },
    /// Of a `timestamptz` with a date or a timestamp.
    CompareInstants(CompareOp),
    CompareIntervals(CompareOp),
    CompareJson(CompareOp),
    /// An interval and a number, or the other way round.
    ScaleInterval {
        function: Function,
        flipped: bool,
    },
    /// From one `timestamptz` to another.
    Age,
    /// By a constant path.
    JsonPath {
        as_text: bool,
    },
    /// A `timestamptz` as a timestamp of the session's time zone, or a part of that.
    Local {
        part: Option<Returns>,
    },
    /// The reverse.
    Instant,
    AtTimeZone,
    /// Of a constant stride.
    DateBin,
    /// Of a time: those of the engine are finite.
    IsFinite,
    /// Texts, of which nulls are left out.
    Concat,
    ConcatWs,
}

/// A result type of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Of a scale that the arguments decide.
    Decimal,
}

impl Number {
    /// The type; of a decimal, that of an integer.
    pub fn ty(self) -> SqlType {
        match self {
            Number::Int2 => sql_type(LakeType::Int2, pg_sys::INT2OID),
            Number::Int4 => sql_type(LakeType::Int4, pg_sys::INT4OID),
            Number::Int8 => sql_type(LakeType::Int8, pg_sys::INT8OID),
            Number::Float4 => sql_type(LakeType::Float4, pg_sys::FLOAT4OID),
            Number::Float8 => sql_type(LakeType::Float8, pg_sys::FLOAT8OID),
            Number::Decimal => consts::decimal(0),
        }
    }
}

/// A function's result type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// A numeric without digits after the point.
    Whole,
    Text,
    Date,
    Time,
    Interval,
    Jsonb,
    /// That of the first argument.
    Argument,
}

impl Returns {
    /// The type; `None` if it is an argument's.
    pub fn ty(self) -> Option<SqlType> {
        Some(match self {
            Returns::Bool => sql_type(LakeType::Bool, pg_sys::BOOLOID),
            Returns::Int2 => Number::Int2.ty(),
            Returns::Int4 => Number::Int4.ty(),
            Returns::Int8 => Number::Int8.ty(),
            Returns::Float4 => Number::Float4.ty(),
            Returns::Float8 => Number::Float8.ty(),
            Returns::Whole => Number::Decimal.ty(),
            Returns::Text => sql_type(LakeType::Text, pg_sys::TEXTOID),
            Returns::Date => sql_type(LakeType::Date, pg_sys::DATEOID),
            Returns::Time => sql_type(LakeType::Time, pg_sys::TIMEOID),
            Returns::Interval => interval_type(),
            Returns::Jsonb => jsonb(),
            Returns::Argument => return None,
        })
    }
}

/// For messages.
pub fn name(function: pg_sys::Oid) -> String {
    // SAFETY: looks the name up; null if there is none.
    string(unsafe { pg_sys::get_func_name(function) })
}

/// What the function computes, if the engine can.
pub fn known(function: pg_sys::Oid) -> Option<Call> {
    let function = function.to_u32();
    let entry = TABLE
        .iter()
        .find(|(_, entries)| entries.contains(&function));
    entry.map(|(call, _)| *call)
}

/// The whitelist: what is computed, and by which entries of `pg_proc`.
#[rustfmt::skip]
static TABLE: &[(Call, &[u32])] = &[
    (Call::Compare(CompareOp::Eq), &[
        pg::F_BOOLEQ, pg::F_INT2EQ, pg::F_INT4EQ, pg::F_INT8EQ, pg::F_INT24EQ, pg::F_INT42EQ, pg::F_INT28EQ,
        pg::F_INT82EQ, pg::F_INT48EQ, pg::F_INT84EQ, pg::F_FLOAT4EQ, pg::F_FLOAT8EQ, pg::F_FLOAT48EQ, pg::F_FLOAT84EQ,
        pg::F_NUMERIC_EQ, pg::F_DATE_EQ, pg::F_TIME_EQ, pg::F_TIMESTAMP_EQ, pg::F_TIMESTAMPTZ_EQ, pg::F_UUID_EQ,
        pg::F_BYTEAEQ, pg::F_TEXTEQ, pg::F_DATE_EQ_TIMESTAMP, pg::F_TIMESTAMP_EQ_DATE,
    ]),
    (Call::Compare(CompareOp::Ne), &[
        pg::F_BOOLNE, pg::F_INT2NE, pg::F_INT4NE, pg::F_INT8NE, pg::F_INT24NE, pg::F_INT42NE, pg::F_INT28NE,
        pg::F_INT82NE, pg::F_INT48NE, pg::F_INT84NE, pg::F_FLOAT4NE, pg::F_FLOAT8NE, pg::F_FLOAT48NE, pg::F_FLOAT84NE,
        pg::F_NUMERIC_NE, pg::F_DATE_NE, pg::F_TIME_NE, pg::F_TIMESTAMP_NE, pg::F_TIMESTAMPTZ_NE, pg::F_UUID_NE,
        pg::F_BYTEANE, pg::F_TEXTNE, pg::F_DATE_NE_TIMESTAMP, pg::F_TIMESTAMP_NE_DATE,
    ]),
    (Call::Compare(CompareOp::Lt), &[
        pg::F_BOOLLT, pg::F_INT2LT, pg::F_INT4LT, pg::F_INT8LT, pg::F_INT24LT, pg::F_INT42LT, pg::F_INT28LT,
        pg::F_INT82LT, pg::F_INT48LT, pg::F_INT84LT, pg::F_FLOAT4LT, pg::F_FLOAT8LT, pg::F_FLOAT48LT, pg::F_FLOAT84LT,
        pg::F_NUMERIC_LT, pg::F_DATE_LT, pg::F_TIME_LT, pg::F_TIMESTAMP_LT, pg::F_TIMESTAMPTZ_LT, pg::F_UUID_LT,
        pg::F_BYTEALT, pg::F_TEXT_LT, pg::F_DATE_LT_TIMESTAMP, pg::F_TIMESTAMP_LT_DATE,
    ]),
    (Call::Compare(CompareOp::Le), &[
        pg::F_BOOLLE, pg::F_INT2LE, pg::F_INT4LE, pg::F_INT8LE, pg::F_INT24LE, pg::F_INT42LE, pg::F_INT28LE,
        pg::F_INT82LE, pg::F_INT48LE, pg::F_INT84LE, pg::F_FLOAT4LE, pg::F_FLOAT8LE, pg::F_FLOAT48LE, pg::F_FLOAT84LE,
        pg::F_NUMERIC_LE, pg::F_DATE_LE, pg::F_TIME_LE, pg::F_TIMESTAMP_LE, pg::F_TIMESTAMPTZ_LE, pg::F_UUID_LE,
        pg::F_BYTEALE, pg::F_TEXT_LE, pg::F_DATE_LE_TIMESTAMP, pg::F_TIMESTAMP_LE_DATE,
    ]),
    (Call::Compare(CompareOp::Gt), &[
        pg::F_BOOLGT, pg::F_INT2GT, pg::F_INT4GT, pg::F_INT8GT, pg::F_INT24GT, pg::F_INT42GT, pg::F_INT28GT,
        pg::F_INT82GT, pg::F_INT48GT, pg::F_INT84GT, pg::F_FLOAT4GT, pg::F_FLOAT8GT, pg::F_FLOAT48GT, pg::F_FLOAT84GT,
        pg::F_NUMERIC_GT, pg::F_DATE_GT, pg::F_TIME_GT, pg::F_TIMESTAMP_GT, pg::F_TIMESTAMPTZ_GT, pg::F_UUID_GT,
        pg::F_BYTEAGT, pg::F_TEXT_GT, pg::F_DATE_GT_TIMESTAMP, pg::F_TIMESTAMP_GT_DATE,
    ]),
    (Call::Compare(CompareOp::Ge), &[
        pg::F_BOOLGE, pg::F_INT2GE, pg::F_INT4GE, pg::F_INT8GE, pg::F_INT24GE, pg::F_INT42GE, pg::F_INT28GE,
        pg::F_INT82GE, pg::F_INT48GE, pg::F_INT84GE, pg::F_FLOAT4GE, pg::F_FLOAT8GE, pg::F_FLOAT48GE, pg::F_FLOAT84GE,
        pg::F_NUMERIC_GE, pg::F_DATE_GE, pg::F_TIME_GE, pg::F_TIMESTAMP_GE, pg::F_TIMESTAMPTZ_GE, pg::F_UUID_GE,
        pg::F_BYTEAGE, pg::F_TEXT_GE, pg::F_DATE_GE_TIMESTAMP, pg::F_TIMESTAMP_GE_DATE,
    ]),
    (Call::Arithmetic(ArithmeticOp::Add, Number::Int4), &[pg::F_INT4PL, pg::F_INT24PL, pg::F_INT42PL]),
    (Call::Arithmetic(ArithmeticOp::Add, Number::Int8), &[
        pg::F_INT8PL, pg::F_INT48PL, pg::F_INT84PL, pg::F_INT28PL, pg::F_INT82PL,
    ]),
    (Call::Arithmetic(ArithmeticOp::Add, Number::Float8), &[pg::F_FLOAT8PL, pg::F_FLOAT48PL, pg::F_FLOAT84PL]),
    (Call::Arithmetic(ArithmeticOp::Add, Number::Decimal), &[pg::F_NUMERIC_ADD]),
    (Call::Arithmetic(ArithmeticOp::Add, Number::Int2), &[pg::F_INT2PL]),
    (Call::Arithmetic(ArithmeticOp::Add, Number::Float4), &[pg::F_FLOAT4PL]),
    (Call::Arithmetic(ArithmeticOp::Subtract, Number::Int4), &[pg::F_INT4MI, pg::F_INT24MI, pg::F_INT42MI]),
    (Call::Arithmetic(ArithmeticOp::Subtract, Number::Int8), &[
        pg::F_INT8MI, pg::F_INT48MI, pg::F_INT84MI, pg::F_INT28MI, pg::F_INT82MI,
    ]),
    (Call::Arithmetic(ArithmeticOp::Subtract, Number::Float8), &[pg::F_FLOAT8MI, pg::F_FLOAT48MI, pg::F_FLOAT84MI]),
    (Call::Arithmetic(ArithmeticOp::Subtract, Number::Decimal), &[pg::F_NUMERIC_SUB]),
    (Call::Arithmetic(ArithmeticOp::Subtract, Number::Int2), &[pg::F_INT2MI]),
    (Call::Arithmetic(ArithmeticOp::Subtract, Number::Float4), &[pg::F_FLOAT4MI]),
    (Call::Arithmetic(ArithmeticOp::Multiply, Number::Int4), &[pg::F_INT4MUL, pg::F_INT24MUL, pg::F_INT42MUL]),
    (Call::Arithmetic(ArithmeticOp::Multiply, Number::Int8), &[
        pg::F_INT8MUL, pg::F_INT48MUL, pg::F_INT84MUL, pg::F_INT28MUL, pg::F_INT82MUL,
    ]),
    (Call::Arithmetic(ArithmeticOp::Multiply, Number::Float8), &[
        pg::F_FLOAT8MUL, pg::F_FLOAT48MUL, pg::F_FLOAT84MUL,
    ]),
    (Call::Arithmetic(ArithmeticOp::Multiply, Number::Decimal), &[pg::F_NUMERIC_MUL]),
    (Call::Arithmetic(ArithmeticOp::Multiply, Number::Int2), &[pg::F_INT2MUL]),
    (Call::Arithmetic(ArithmeticOp::Multiply, Number::Float4), &[pg::F_FLOAT4MUL]),
    (Call::Arithmetic(ArithmeticOp::Divide, Number::Int4), &[pg::F_INT4DIV, pg::F_INT24DIV, pg::F_INT42DIV]),
    (Call::Arithmetic(ArithmeticOp::Divide, Number::Int8), &[
        pg::F_INT8DIV, pg::F_INT48DIV, pg::F_INT84DIV, pg::F_INT28DIV, pg::F_INT82DIV,
    ]),
    (Call::Arithmetic(ArithmeticOp::Divide, Number::Float8), &[pg::F_FLOAT8DIV, pg::F_FLOAT48DIV, pg::F_FLOAT84DIV]),
    (Call::Arithmetic(ArithmeticOp::Divide, Number::Decimal), &[pg::F_NUMERIC_DIV]),
    (Call::Arithmetic(ArithmeticOp::Divide, Number::Int2), &[pg::F_INT2DIV]),
    (Call::Arithmetic(ArithmeticOp::Divide, Number::Float4), &[pg::F_FLOAT4DIV]),
    (Call::Arithmetic(ArithmeticOp::Modulo, Number::Int4), &[pg::F_INT4MOD, pg::F_MOD_INT4_INT4]),
    (Call::Arithmetic(ArithmeticOp::Modulo, Number::Int8), &[pg::F_INT8MOD, pg::F_MOD_INT8_INT8]),
    (Call::Arithmetic(ArithmeticOp::Modulo, Number::Decimal), &[pg::F_NUMERIC_MOD, pg::F_MOD_NUMERIC_NUMERIC]),
    (Call::Arithmetic(ArithmeticOp::Modulo, Number::Int2), &[pg::F_INT2MOD, pg::F_MOD_INT2_INT2]),
    (Call::Negate(Number::Int4), &[pg::F_INT4UM]),
    (Call::Negate(Number::Int8), &[pg::F_INT8UM]),
    (Call::Negate(Number::Float8), &[pg::F_FLOAT8UM]),
    (Call::Negate(Number::Decimal), &[pg::F_NUMERIC_UMINUS]),
    (Call::Negate(Number::Int2), &[pg::F_INT2UM]),
    (Call::Negate(Number::Float4), &[pg::F_FLOAT4UM]),
    (Call::Cast(Number::Int4), &[pg::F_INT4_INT2]),
    (Call::Cast(Number::Int8), &[pg::F_INT8_INT2, pg::F_INT8_INT4]),
    (Call::Cast(Number::Float8), &[pg::F_FLOAT8_INT2, pg::F_FLOAT8_INT4, pg::F_FLOAT8_INT8, pg::F_FLOAT8_FLOAT4]),
    (Call::Cast(Number::Float4), &[pg::F_FLOAT4_INT2, pg::F_FLOAT4_INT4, pg::F_FLOAT4_INT8]),
    (Call::Cast(Number::Decimal), &[pg::F_NUMERIC_INT2, pg::F_NUMERIC_INT4, pg::F_NUMERIC_INT8]),
    (Call::ComparePadded(CompareOp::Eq), &[pg::F_BPCHAREQ]),
    (Call::ComparePadded(CompareOp::Ne), &[pg::F_BPCHARNE]),
    (Call::ComparePadded(CompareOp::Lt), &[pg::F_BPCHARLT]),
    (Call::ComparePadded(CompareOp::Le), &[pg::F_BPCHARLE]),
    (Call::ComparePadded(CompareOp::Gt), &[pg::F_BPCHARGT]),
    (Call::ComparePadded(CompareOp::Ge), &[pg::F_BPCHARGE]),
    (Call::Like { negated: false }, &[pg::F_TEXTLIKE, pg::F_LIKE_TEXT_TEXT, pg::F_BPCHARLIKE]),
    (Call::Like { negated: true }, &[pg::F_TEXTNLIKE, pg::F_NOTLIKE_TEXT_TEXT, pg::F_BPCHARNLIKE]),
    (Call::ILike { negated: false }, &[pg::F_TEXTICLIKE, pg::F_BPCHARICLIKE]),
    (Call::ILike { negated: true }, &[pg::F_TEXTICNLIKE, pg::F_BPCHARICNLIKE]),
    (Call::Plain(Function::Substring, Returns::Text), &[
        pg::F_SUBSTRING_TEXT_INT4, pg::F_SUBSTRING_TEXT_INT4_INT4, pg::F_SUBSTR_TEXT_INT4,
        pg::F_SUBSTR_TEXT_INT4_INT4,
    ]),
    (Call::Plain(Function::Left, Returns::Text), &[pg::F_LEFT]),
    (Call::Plain(Function::Right, Returns::Text), &[pg::F_RIGHT]),
    (Call::Plain(Function::Trim(Side::Start), Returns::Text), &[pg::F_LTRIM_TEXT, pg::F_LTRIM_TEXT_TEXT]),
    (Call::Plain(Function::Trim(Side::End), Returns::Text), &[
        pg::F_RTRIM_TEXT, pg::F_RTRIM_TEXT_TEXT, pg::F_TEXT_BPCHAR,
    ]),
    (Call::Plain(Function::Trim(Side::Both), Returns::Text), &[pg::F_BTRIM_TEXT, pg::F_BTRIM_TEXT_TEXT]),
    (Call::Plain(Function::Reverse, Returns::Text), &[pg::F_REVERSE]),
    (Call::Plain(Function::Concat, Returns::Text), &[pg::F_TEXTCAT]),
    (Call::Plain(Function::PadLeft, Returns::Text), &[pg::F_LPAD_TEXT_INT4_TEXT]),
    (Call::Plain(Function::PadRight, Returns::Text), &[pg::F_RPAD_TEXT_INT4_TEXT]),
    (Call::Plain(Function::Repeat, Returns::Text), &[pg::F_REPEAT]),
    (Call::Plain(Function::Length, Returns::Int4), &[
        pg::F_LENGTH_TEXT, pg::F_TEXTLEN, pg::F_CHAR_LENGTH_TEXT, pg::F_CHARACTER_LENGTH_TEXT,
    ]),
    (Call::Plain(Function::OctetLength, Returns::Int4), &[
        pg::F_OCTET_LENGTH_TEXT, pg::F_OCTET_LENGTH_BPCHAR, pg::F_OCTET_LENGTH_BYTEA, pg::F_LENGTH_BYTEA,
    ]),
    (Call::PaddedLength, &[pg::F_LENGTH_BPCHAR, pg::F_CHAR_LENGTH_BPCHAR, pg::F_CHARACTER_LENGTH_BPCHAR]),
    (Call::Letters(Function::Lower), &[pg::F_LOWER_TEXT]),
    (Call::Letters(Function::Upper), &[pg::F_UPPER_TEXT]),
    (Call::Search(Function::Position, Returns::Int4), &[pg::F_STRPOS, pg::F_POSITION_TEXT_TEXT]),
    (Call::Search(Function::StartsWith, Returns::Bool), &[pg::F_STARTS_WITH]),
    (Call::Search(Function::Replace, Returns::Text), &[pg::F_REPLACE]),
    (Call::Plain(Function::Abs, Returns::Argument), &[
        pg::F_ABS_INT2, pg::F_ABS_INT4, pg::F_ABS_INT8, pg::F_ABS_FLOAT4, pg::F_ABS_FLOAT8, pg::F_ABS_NUMERIC,
        pg::F_INT2ABS, pg::F_INT4ABS, pg::F_INT8ABS, pg::F_FLOAT4ABS, pg::F_FLOAT8ABS, pg::F_NUMERIC_ABS,
    ]),
    (Call::Plain(Function::Sign, Returns::Float8), &[pg::F_SIGN_FLOAT8]),
    (Call::Plain(Function::Sign, Returns::Whole), &[pg::F_SIGN_NUMERIC]),
    (Call::Plain(Function::Ceil, Returns::Float8), &[pg::F_CEIL_FLOAT8, pg::F_CEILING_FLOAT8]),
    (Call::Plain(Function::Ceil, Returns::Whole), &[pg::F_CEIL_NUMERIC, pg::F_CEILING_NUMERIC]),
    (Call::Plain(Function::Floor, Returns::Float8), &[pg::F_FLOOR_FLOAT8]),
    (Call::Plain(Function::Floor, Returns::Whole), &[pg::F_FLOOR_NUMERIC]),
    (Call::Plain(Function::Round(0), Returns::Float8), &[pg::F_ROUND_FLOAT8, pg::F_DROUND]),
    (Call::Plain(Function::Truncate(0), Returns::Float8), &[pg::F_TRUNC_FLOAT8, pg::F_DTRUNC]),
    (Call::Digits { round: true }, &[pg::F_ROUND_NUMERIC, pg::F_ROUND_NUMERIC_INT4]),
    (Call::Digits { round: false }, &[pg::F_TRUNC_NUMERIC, pg::F_TRUNC_NUMERIC_INT4]),
    (Call::Plain(Function::Sqrt, Returns::Float8), &[pg::F_SQRT_FLOAT8, pg::F_DSQRT]),
    (Call::Root, &[pg::F_SQRT_NUMERIC, pg::F_NUMERIC_SQRT]),
    (Call::TrimScale, &[pg::F_TRIM_SCALE]),
    (Call::ScaleOf, &[pg::F_SCALE]),
    (Call::Plain(Function::MinScale, Returns::Int4), &[pg::F_MIN_SCALE]),
    (Call::Plain(Function::Factorial, Returns::Whole), &[pg::F_FACTORIAL]),
    (Call::WholePower, &[pg::F_NUMERIC_POWER, pg::F_POW_NUMERIC_NUMERIC, pg::F_POWER_NUMERIC_NUMERIC]),
    (Call::Plain(Function::BitAnd, Returns::Argument), &[pg::F_INT2AND, pg::F_INT4AND, pg::F_INT8AND]),
    (Call::Plain(Function::BitOr, Returns::Argument), &[pg::F_INT2OR, pg::F_INT4OR, pg::F_INT8OR]),
    (Call::Plain(Function::BitXor, Returns::Argument), &[pg::F_INT2XOR, pg::F_INT4XOR, pg::F_INT8XOR]),
    (Call::Plain(Function::BitNot, Returns::Argument), &[pg::F_INT2NOT, pg::F_INT4NOT, pg::F_INT8NOT]),
    (Call::Plain(Function::ShiftLeft, Returns::Argument), &[pg::F_INT2SHL, pg::F_INT4SHL, pg::F_INT8SHL]),
    (Call::Plain(Function::ShiftRight, Returns::Argument), &[pg::F_INT2SHR, pg::F_INT4SHR, pg::F_INT8SHR]),
    (Call::Plain(Function::Convert, Returns::Bool), &[pg::F_BOOL_INT4]),
    (Call::Plain(Function::Convert, Returns::Int2), &[
        pg::F_INT2_INT4, pg::F_INT2_INT8, pg::F_INT2_FLOAT4, pg::F_INT2_FLOAT8, pg::F_INT2_NUMERIC,
    ]),
    (Call::Plain(Function::Convert, Returns::Int4), &[
        pg::F_INT4_BOOL, pg::F_INT4_INT8, pg::F_INT4_FLOAT4, pg::F_INT4_FLOAT8, pg::F_INT4_NUMERIC,
    ]),
    (Call::Plain(Function::Convert, Returns::Int8), &[pg::F_INT8_FLOAT4, pg::F_INT8_FLOAT8, pg::F_INT8_NUMERIC]),
    (Call::Plain(Function::Convert, Returns::Float4), &[pg::F_FLOAT4_FLOAT8, pg::F_FLOAT4_NUMERIC]),
    (Call::Plain(Function::Convert, Returns::Float8), &[pg::F_FLOAT8_NUMERIC]),
    (Call::Plain(Function::Convert, Returns::Date), &[pg::F_DATE_TIMESTAMP]),
    (Call::Plain(Function::Convert, Returns::Time), &[pg::F_TIME_TIMESTAMP]),
    (Call::Typmod, &[pg::F_NUMERIC_NUMERIC_INT4]),
    (Call::Midnight, &[pg::F_TIMESTAMP_DATE]),
    (Call::Extract, &[
        pg::F_EXTRACT_TEXT_DATE, pg::F_EXTRACT_TEXT_TIME, pg::F_EXTRACT_TEXT_TIMESTAMP, pg::F_EXTRACT_TEXT_TIMESTAMPTZ,
        pg::F_EXTRACT_TEXT_INTERVAL,
    ]),
    (Call::DatePart, &[
        pg::F_DATE_PART_TEXT_TIME, pg::F_DATE_PART_TEXT_TIMESTAMP, pg::F_DATE_PART_TEXT_TIMESTAMPTZ,
        pg::F_DATE_PART_TEXT_INTERVAL,
    ]),
    (Call::DateTrunc, &[pg::F_DATE_TRUNC_TEXT_TIMESTAMP, pg::F_DATE_TRUNC_TEXT_TIMESTAMPTZ]),
    (Call::Plain(Function::AddDays, Returns::Date), &[pg::F_DATE_PLI]),
    (Call::Plain(Function::SubtractDays, Returns::Date), &[pg::F_DATE_MII]),
    (Call::Plain(Function::DaysBetween, Returns::Int4), &[pg::F_DATE_MI]),
    (Call::Plain(Function::MakeDate, Returns::Date), &[pg::F_MAKE_DATE]),
    (Call::AddInterval { negated: false }, &[
        pg::F_DATE_PL_INTERVAL, pg::F_TIMESTAMP_PL_INTERVAL, pg::F_TIMESTAMPTZ_PL_INTERVAL,
    ]),
    (Call::AddInterval { negated: true }, &[
        pg::F_DATE_MI_INTERVAL, pg::F_TIMESTAMP_MI_INTERVAL, pg::F_TIMESTAMPTZ_MI_INTERVAL,
    ]),
    (Call::Local { part: None }, &[pg::F_TIMESTAMP_TIMESTAMPTZ]),
    (Call::Local { part: Some(Returns::Date) }, &[pg::F_DATE_TIMESTAMPTZ]),
    (Call::Local { part: Some(Returns::Time) }, &[pg::F_TIME_TIMESTAMPTZ]),
    (Call::Instant, &[pg::F_TIMESTAMPTZ_TIMESTAMP, pg::F_TIMESTAMPTZ_DATE]),
    (Call::AtTimeZone, &[pg::F_TIMEZONE_TEXT_TIMESTAMPTZ, pg::F_TIMEZONE_TEXT_TIMESTAMP]),
    (Call::DateBin, &[pg::F_DATE_BIN_INTERVAL_TIMESTAMP_TIMESTAMP, pg::F_DATE_BIN_INTERVAL_TIMESTAMPTZ_TIMESTAMPTZ]),
    (Call::CompareInstants(CompareOp::Eq), &[
        pg::F_DATE_EQ_TIMESTAMPTZ, pg::F_TIMESTAMPTZ_EQ_DATE, pg::F_TIMESTAMP_EQ_TIMESTAMPTZ,
        pg::F_TIMESTAMPTZ_EQ_TIMESTAMP,
    ]),
    (Call::CompareIntervals(CompareOp::Eq), &[pg::F_INTERVAL_EQ]),
    (Call::CompareInstants(CompareOp::Ne), &[
        pg::F_DATE_NE_TIMESTAMPTZ, pg::F_TIMESTAMPTZ_NE_DATE, pg::F_TIMESTAMP_NE_TIMESTAMPTZ,
        pg::F_TIMESTAMPTZ_NE_TIMESTAMP,
    ]),
    (Call::CompareIntervals(CompareOp::Ne), &[pg::F_INTERVAL_NE]),
    (Call::CompareInstants(CompareOp::Lt), &[
        pg::F_DATE_LT_TIMESTAMPTZ, pg::F_TIMESTAMPTZ_LT_DATE, pg::F_TIMESTAMP_LT_TIMESTAMPTZ,
        pg::F_TIMESTAMPTZ_LT_TIMESTAMP,
    ]),
    (Call::CompareIntervals(CompareOp::Lt), &[pg::F_INTERVAL_LT]),
    (Call::CompareInstants(CompareOp::Le), &[
        pg::F_DATE_LE_TIMESTAMPTZ, pg::F_TIMESTAMPTZ_LE_DATE, pg::F_TIMESTAMP_LE_TIMESTAMPTZ,
        pg::F_TIMESTAMPTZ_LE_TIMESTAMP,
    ]),
    (Call::CompareIntervals(CompareOp::Le), &[pg::F_INTERVAL_LE]),
    (Call::CompareInstants(CompareOp::Gt), &[
        pg::F_DATE_GT_TIMESTAMPTZ, pg::F_TIMESTAMPTZ_GT_DATE, pg::F_TIMESTAMP_GT_TIMESTAMPTZ,
        pg::F_TIMESTAMPTZ_GT_TIMESTAMP,
    ]),
    (Call::CompareIntervals(CompareOp::Gt), &[pg::F_INTERVAL_GT]),
    (Call::CompareInstants(CompareOp::Ge), &[
        pg::F_DATE_GE_TIMESTAMPTZ, pg::F_TIMESTAMPTZ_GE_DATE, pg::F_TIMESTAMP_GE_TIMESTAMPTZ,
        pg::F_TIMESTAMPTZ_GE_TIMESTAMP,
    ]),
    (Call::CompareIntervals(CompareOp::Ge), &[pg::F_INTERVAL_GE]),
    (Call::Plain(Function::IntervalAdd, Returns::Interval), &[pg::F_INTERVAL_PL]),
    (Call::Plain(Function::IntervalSubtract, Returns::Interval), &[pg::F_INTERVAL_MI]),
    (Call::Plain(Function::IntervalNegate, Returns::Interval), &[pg::F_INTERVAL_UM]),
    (Call::ScaleInterval { function: Function::IntervalMultiply, flipped: false }, &[pg::F_INTERVAL_MUL]),
    (Call::ScaleInterval { function: Function::IntervalMultiply, flipped: true }, &[pg::F_MUL_D_INTERVAL]),
    (Call::ScaleInterval { function: Function::IntervalDivide, flipped: false }, &[pg::F_INTERVAL_DIV]),
    (Call::Plain(Function::JustifyHours, Returns::Interval), &[pg::F_JUSTIFY_HOURS]),
    (Call::Plain(Function::JustifyDays, Returns::Interval), &[pg::F_JUSTIFY_DAYS]),
    (Call::Plain(Function::JustifyInterval, Returns::Interval), &[pg::F_JUSTIFY_INTERVAL]),
    (Call::Plain(Function::TimestampsBetween, Returns::Interval), &[pg::F_TIMESTAMP_MI, pg::F_TIMESTAMPTZ_MI]),
    (Call::Plain(Function::Age, Returns::Interval), &[pg::F_AGE_TIMESTAMP_TIMESTAMP]),
    (Call::Age, &[pg::F_AGE_TIMESTAMPTZ_TIMESTAMPTZ]),
    (Call::Plain(Function::MakeInterval, Returns::Interval), &[pg::F_MAKE_INTERVAL]),
    (Call::Plain(Function::JsonField { as_text: false }, Returns::Jsonb), &[pg::F_JSONB_OBJECT_FIELD]),
    (Call::Plain(Function::JsonField { as_text: true }, Returns::Text), &[pg::F_JSONB_OBJECT_FIELD_TEXT]),
    (Call::Plain(Function::JsonElement { as_text: false }, Returns::Jsonb), &[pg::F_JSONB_ARRAY_ELEMENT]),
    (Call::Plain(Function::JsonElement { as_text: true }, Returns::Text), &[pg::F_JSONB_ARRAY_ELEMENT_TEXT]),
    (Call::JsonPath { as_text: false }, &[pg::F_JSONB_EXTRACT_PATH]),
    (Call::JsonPath { as_text: true }, &[pg::F_JSONB_EXTRACT_PATH_TEXT]),
    (Call::Plain(Function::JsonKind, Returns::Text), &[pg::F_JSONB_TYPEOF]),
    (Call::Plain(Function::JsonLength, Returns::Int4), &[pg::F_JSONB_ARRAY_LENGTH]),
    (Call::Plain(Function::JsonHasKey, Returns::Bool), &[pg::F_JSONB_EXISTS]),
    (Call::Plain(Function::JsonContains, Returns::Bool), &[pg::F_JSONB_CONTAINS]),
    (Call::CompareJson(CompareOp::Eq), &[pg::F_JSONB_EQ]),
    (Call::CompareJson(CompareOp::Ne), &[pg::F_JSONB_NE]),
    (Call::CompareJson(CompareOp::Lt), &[pg::F_JSONB_LT]),
    (Call::CompareJson(CompareOp::Le), &[pg::F_JSONB_LE]),
    (Call::CompareJson(CompareOp::Gt), &[pg::F_JSONB_GT]),
    (Call::CompareJson(CompareOp::Ge), &[pg::F_JSONB_GE]),
    (Call::Plain(Function::JsonScalar, Returns::Bool), &[pg::F_BOOL_JSONB]),
    (Call::Plain(Function::JsonScalar, Returns::Int2), &[pg::F_INT2_JSONB]),
    (Call::Plain(Function::JsonScalar, Returns::Int4), &[pg::F_INT4_JSONB]),
    (Call::Plain(Function::JsonScalar, Returns::Int8), &[pg::F_INT8_JSONB]),
    (Call::Plain(Function::JsonScalar, Returns::Float8), &[pg::F_FLOAT8_JSONB]),
    (Call::IsFinite, &[pg::F_ISFINITE_DATE, pg::F_ISFINITE_TIMESTAMP, pg::F_ISFINITE_TIMESTAMPTZ]),
    (Call::Plain(Function::Print, Returns::Text), &[pg::F_TEXT_BOOL]),
    (Call::Concat, &[pg::F_CONCAT]),
    (Call::ConcatWs, &[pg::F_CONCAT_WS]),
    (Call::Search(Function::SplitPart, Returns::Text), &[pg::F_SPLIT_PART]),
    (Call::Plain(Function::Translate, Returns::Text), &[pg::F_TRANSLATE]),
    (Call::Plain(Function::Ascii, Returns::Int4), &[pg::F_ASCII]),
    (Call::Plain(Function::Chr, Returns::Text), &[pg::F_CHR]),
    (Call::Plain(Function::Md5, Returns::Text), &[pg::F_MD5_TEXT, pg::F_MD5_BYTEA]),
    (Call::Plain(Function::ToHex, Returns::Text), &[pg::F_TO_HEX_INT4, pg::F_TO_HEX_INT8]),
    (Call::Plain(Function::Power, Returns::Float8), &[
        pg::F_DPOW, pg::F_POW_FLOAT8_FLOAT8, pg::F_POWER_FLOAT8_FLOAT8,
    ]),
    (Call::Plain(Function::Exp, Returns::Float8), &[pg::F_DEXP, pg::F_EXP_FLOAT8]),
    (Call::Plain(Function::Ln, Returns::Float8), &[pg::F_DLOG1, pg::F_LN_FLOAT8]),
    (Call::Plain(Function::Log10, Returns::Float8), &[pg::F_DLOG10, pg::F_LOG_FLOAT8, pg::F_LOG10_FLOAT8]),
    (Call::Plain(Function::Overlay, Returns::Text), &[pg::F_OVERLAY_TEXT_TEXT_INT4, pg::F_OVERLAY_TEXT_TEXT_INT4_INT4]),
    (Call::Plain(Function::WholeQuotient, Returns::Whole), &[pg::F_DIV, pg::F_NUMERIC_DIV_TRUNC]),
    (Call::Plain(Function::WidthBucket, Returns::Int4), &[
        pg::F_WIDTH_BUCKET_FLOAT8_FLOAT8_FLOAT8_INT4, pg::F_WIDTH_BUCKET_NUMERIC_NUMERIC_NUMERIC_INT4,
    ]),
    (Call::Plain(Function::Gcd, Returns::Argument), &[pg::F_GCD_INT4_INT4, pg::F_GCD_INT8_INT8]),
    (Call::Plain(Function::Lcm, Returns::Argument), &[pg::F_LCM_INT4_INT4, pg::F_LCM_INT8_INT8]),
    (Call::Common(Function::Gcd), &[pg::F_GCD_NUMERIC_NUMERIC]),
    (Call::Common(Function::Lcm), &[pg::F_LCM_NUMERIC_NUMERIC]),
];
