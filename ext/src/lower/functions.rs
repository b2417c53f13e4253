//! The whitelist of functions: which `pg_proc` entries the engine computes exactly as Postgres.
//!
//! Operators come here by their function. A function that is missing stays in Postgres.

use super::consts;
use super::node::string;
use super::table::sql_type;
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
    Cast(Number),
    Like {
        negated: bool,
    },
}

/// A result type of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Int4,
    Int8,
    Float8,
    /// Of a scale that the arguments decide.
    Decimal,
}

impl Number {
    /// The type; of a decimal, that of an integer.
    pub fn ty(self) -> SqlType {
        match self {
            Number::Int4 => sql_type(LakeType::Int4, pg_sys::INT4OID),
            Number::Int8 => sql_type(LakeType::Int8, pg_sys::INT8OID),
            Number::Float8 => sql_type(LakeType::Float8, pg_sys::FLOAT8OID),
            Number::Decimal => consts::decimal(0),
        }
    }
}

/// For messages.
pub fn name(function: pg_sys::Oid) -> String {
    // SAFETY: looks the name up; null if there is none.
    string(unsafe { pg_sys::get_func_name(function) })
}

/// What the function computes, if the engine can.
#[rustfmt::skip]
pub fn known(function: pg_sys::Oid) -> Option<Call> {
    Some(match function.to_u32() {
        pg::F_BOOLEQ
        | pg::F_INT2EQ
        | pg::F_INT4EQ
        | pg::F_INT8EQ
        | pg::F_INT24EQ
        | pg::F_INT42EQ
        | pg::F_INT28EQ
        | pg::F_INT82EQ
        | pg::F_INT48EQ
        | pg::F_INT84EQ
        | pg::F_FLOAT4EQ
        | pg::F_FLOAT8EQ
        | pg::F_FLOAT48EQ
        | pg::F_FLOAT84EQ
        | pg::F_NUMERIC_EQ
        | pg::F_DATE_EQ
        | pg::F_TIME_EQ
        | pg::F_TIMESTAMP_EQ
        | pg::F_TIMESTAMPTZ_EQ
        | pg::F_UUID_EQ
        | pg::F_BYTEAEQ
        | pg::F_TEXTEQ
        | pg::F_DATE_EQ_TIMESTAMP
        | pg::F_TIMESTAMP_EQ_DATE => Call::Compare(CompareOp::Eq),
        pg::F_BOOLNE
        | pg::F_INT2NE
        | pg::F_INT4NE
        | pg::F_INT8NE
        | pg::F_INT24NE
        | pg::F_INT42NE
        | pg::F_INT28NE
        | pg::F_INT82NE
        | pg::F_INT48NE
        | pg::F_INT84NE
        | pg::F_FLOAT4NE
        | pg::F_FLOAT8NE
        | pg::F_FLOAT48NE
        | pg::F_FLOAT84NE
        | pg::F_NUMERIC_NE
        | pg::F_DATE_NE
        | pg::F_TIME_NE
        | pg::F_TIMESTAMP_NE
        | pg::F_TIMESTAMPTZ_NE
        | pg::F_UUID_NE
        | pg::F_BYTEANE
        | pg::F_TEXTNE
        | pg::F_DATE_NE_TIMESTAMP
        | pg::F_TIMESTAMP_NE_DATE => Call::Compare(CompareOp::Ne),
        pg::F_BOOLLT
        | pg::F_INT2LT
        | pg::F_INT4LT
        | pg::F_INT8LT
        | pg::F_INT24LT
        | pg::F_INT42LT
        | pg::F_INT28LT
        | pg::F_INT82LT
        | pg::F_INT48LT
        | pg::F_INT84LT
        | pg::F_FLOAT4LT
        | pg::F_FLOAT8LT
        | pg::F_FLOAT48LT
        | pg::F_FLOAT84LT
        | pg::F_NUMERIC_LT
        | pg::F_DATE_LT
        | pg::F_TIME_LT
        | pg::F_TIMESTAMP_LT
        | pg::F_TIMESTAMPTZ_LT
        | pg::F_UUID_LT
        | pg::F_BYTEALT
        | pg::F_TEXT_LT
        | pg::F_DATE_LT_TIMESTAMP
        | pg::F_TIMESTAMP_LT_DATE => Call::Compare(CompareOp::Lt),
        pg::F_BOOLLE
        | pg::F_INT2LE
        | pg::F_INT4LE
        | pg::F_INT8LE
        | pg::F_INT24LE
        | pg::F_INT42LE
        | pg::F_INT28LE
        | pg::F_INT82LE
        | pg::F_INT48LE
        | pg::F_INT84LE
        | pg::F_FLOAT4LE
        | pg::F_FLOAT8LE
        | pg::F_FLOAT48LE
        | pg::F_FLOAT84LE
        | pg::F_NUMERIC_LE
        | pg::F_DATE_LE
        | pg::F_TIME_LE
        | pg::F_TIMESTAMP_LE
        | pg::F_TIMESTAMPTZ_LE
        | pg::F_UUID_LE
        | pg::F_BYTEALE
        | pg::F_TEXT_LE
        | pg::F_DATE_LE_TIMESTAMP
        | pg::F_TIMESTAMP_LE_DATE => Call::Compare(CompareOp::Le),
        pg::F_BOOLGT
        | pg::F_INT2GT
        | pg::F_INT4GT
        | pg::F_INT8GT
        | pg::F_INT24GT
        | pg::F_INT42GT
        | pg::F_INT28GT
        | pg::F_INT82GT
        | pg::F_INT48GT
        | pg::F_INT84GT
        | pg::F_FLOAT4GT
        | pg::F_FLOAT8GT
        | pg::F_FLOAT48GT
        | pg::F_FLOAT84GT
        | pg::F_NUMERIC_GT
        | pg::F_DATE_GT
        | pg::F_TIME_GT
        | pg::F_TIMESTAMP_GT
        | pg::F_TIMESTAMPTZ_GT
        | pg::F_UUID_GT
        | pg::F_BYTEAGT
        | pg::F_TEXT_GT
        | pg::F_DATE_GT_TIMESTAMP
        | pg::F_TIMESTAMP_GT_DATE => Call::Compare(CompareOp::Gt),
        pg::F_BOOLGE
        | pg::F_INT2GE
        | pg::F_INT4GE
        | pg::F_INT8GE
        | pg::F_INT24GE
        | pg::F_INT42GE
        | pg::F_INT28GE
        | pg::F_INT82GE
        | pg::F_INT48GE
        | pg::F_INT84GE
        | pg::F_FLOAT4GE
        | pg::F_FLOAT8GE
        | pg::F_FLOAT48GE
        | pg::F_FLOAT84GE
        | pg::F_NUMERIC_GE
        | pg::F_DATE_GE
        | pg::F_TIME_GE
        | pg::F_TIMESTAMP_GE
        | pg::F_TIMESTAMPTZ_GE
        | pg::F_UUID_GE
        | pg::F_BYTEAGE
        | pg::F_TEXT_GE
        | pg::F_DATE_GE_TIMESTAMP
        | pg::F_TIMESTAMP_GE_DATE => Call::Compare(CompareOp::Ge),
        pg::F_INT4PL | pg::F_INT24PL | pg::F_INT42PL => {
            Call::Arithmetic(ArithmeticOp::Add, Number::Int4)
        }
        pg::F_INT8PL | pg::F_INT48PL | pg::F_INT84PL | pg::F_INT28PL | pg::F_INT82PL => {
            Call::Arithmetic(ArithmeticOp::Add, Number::Int8)
        }
        pg::F_FLOAT8PL | pg::F_FLOAT48PL | pg::F_FLOAT84PL => {
            Call::Arithmetic(ArithmeticOp::Add, Number::Float8)
        }
        pg::F_NUMERIC_ADD => Call::Arithmetic(ArithmeticOp::Add, Number::Decimal),
        pg::F_INT4MI | pg::F_INT24MI | pg::F_INT42MI => {
            Call::Arithmetic(ArithmeticOp::Subtract, Number::Int4)
        }
        pg::F_INT8MI | pg::F_INT48MI | pg::F_INT84MI | pg::F_INT28MI | pg::F_INT82MI => {
            Call::Arithmetic(ArithmeticOp::Subtract, Number::Int8)
        }
        pg::F_FLOAT8MI | pg::F_FLOAT48MI | pg::F_FLOAT84MI => {
            Call::Arithmetic(ArithmeticOp::Subtract, Number::Float8)
        }
        pg::F_NUMERIC_SUB => Call::Arithmetic(ArithmeticOp::Subtract, Number::Decimal),
        pg::F_INT4MUL | pg::F_INT24MUL | pg::F_INT42MUL => {
            Call::Arithmetic(ArithmeticOp::Multiply, Number::Int4)
        }
        pg::F_INT8MUL | pg::F_INT48MUL | pg::F_INT84MUL | pg::F_INT28MUL | pg::F_INT82MUL => {
            Call::Arithmetic(ArithmeticOp::Multiply, Number::Int8)
        }
        pg::F_FLOAT8MUL | pg::F_FLOAT48MUL | pg::F_FLOAT84MUL => {
            Call::Arithmetic(ArithmeticOp::Multiply, Number::Float8)
        }
        pg::F_NUMERIC_MUL => Call::Arithmetic(ArithmeticOp::Multiply, Number::Decimal),
        pg::F_INT4DIV | pg::F_INT24DIV | pg::F_INT42DIV => {
            Call::Arithmetic(ArithmeticOp::Divide, Number::Int4)
        }
        pg::F_INT8DIV | pg::F_INT48DIV | pg::F_INT84DIV | pg::F_INT28DIV | pg::F_INT82DIV => {
            Call::Arithmetic(ArithmeticOp::Divide, Number::Int8)
        }
        pg::F_INT4MOD => Call::Arithmetic(ArithmeticOp::Modulo, Number::Int4),
        pg::F_INT8MOD => Call::Arithmetic(ArithmeticOp::Modulo, Number::Int8),
        pg::F_INT4UM => Call::Negate(Number::Int4),
        pg::F_INT8UM => Call::Negate(Number::Int8),
        pg::F_FLOAT8UM => Call::Negate(Number::Float8),
        pg::F_NUMERIC_UMINUS => Call::Negate(Number::Decimal),
        pg::F_INT4_INT2 => Call::Cast(Number::Int4),
        pg::F_INT8_INT2 | pg::F_INT8_INT4 => Call::Cast(Number::Int8),
        pg::F_FLOAT8_INT2 | pg::F_FLOAT8_INT4 | pg::F_FLOAT8_INT8 | pg::F_FLOAT8_FLOAT4 => {
            Call::Cast(Number::Float8)
        }
        pg::F_NUMERIC_INT2 | pg::F_NUMERIC_INT4 | pg::F_NUMERIC_INT8 => {
            Call::Cast(Number::Decimal)
        }
        pg::F_BPCHAREQ => Call::ComparePadded(CompareOp::Eq),
        pg::F_BPCHARNE => Call::ComparePadded(CompareOp::Ne),
        pg::F_TEXTLIKE | pg::F_LIKE_TEXT_TEXT => Call::Like { negated: false },
        pg::F_TEXTNLIKE | pg::F_NOTLIKE_TEXT_TEXT => Call::Like { negated: true },
        _ => return None,
    })
}
