//! Logical types of columns and expressions.
//!
//! A [`LakeType`] is what the Iceberg type of a column is, seen from Postgres. Dates and times
//! count from the Unix epoch, as Arrow, Parquet and Iceberg do; `ext` shifts from Postgres' epoch.

use serde::{Deserialize, Serialize};

/// The storage type of a column or the type of an expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LakeType {
    Bool,
    /// `smallint`: an Iceberg `int`; 4 bytes on the wire.
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Unscaled `i128`, 16 bytes little-endian; 1 ≤ precision ≤ 38, 0 ≤ scale ≤ precision.
    Decimal {
        precision: u8,
        scale: i8,
    },
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since midnight.
    Time,
    /// Microseconds since 1970-01-01 00:00:00, without a zone.
    Timestamp,
    /// Microseconds since 1970-01-01 00:00:00 UTC.
    Timestamptz,
    /// UTF-8.
    Text,
    Bytes,
    /// 16 bytes, big-endian.
    Uuid,
    /// Elements carry the Iceberg field id of the list's element.
    List {
        element_id: i32,
        element: Box<LakeType>,
    },
    Struct(Vec<StructField>),
}

/// One field of a [`LakeType::Struct`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StructField {
    pub id: i32,
    pub name: String,
    pub ty: LakeType,
}

impl LakeType {
    /// Bytes of one value on the wire, or `None` for types of variable length and nested types.
    pub fn fixed_width(&self) -> Option<usize> {
        Some(match self {
            LakeType::Bool => 1,
            LakeType::Int2 | LakeType::Int4 | LakeType::Float4 | LakeType::Date => 4,
            LakeType::Int8
            | LakeType::Float8
            | LakeType::Time
            | LakeType::Timestamp
            | LakeType::Timestamptz => 8,
            LakeType::Decimal { .. } | LakeType::Uuid => 16,
            LakeType::Text | LakeType::Bytes | LakeType::List { .. } | LakeType::Struct(_) => {
                return None;
            }
        })
    }

    pub fn is_integer(&self) -> bool {
        matches!(self, LakeType::Int2 | LakeType::Int4 | LakeType::Int8)
    }

    pub fn is_float(&self) -> bool {
        matches!(self, LakeType::Float4 | LakeType::Float8)
    }

    pub fn is_decimal(&self) -> bool {
        matches!(self, LakeType::Decimal { .. })
    }
}

/// Type of an expression as Postgres sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SqlType {
    pub lake: LakeType,
    /// `pg_type.oid`
    pub oid: u32,
    pub typmod: i32,
    /// `pg_collation.oid`, 0 where the type has none.
    pub collation: u32,
}

/// A constant. Its type stands beside it, in the expression or the column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Bool(bool),
    /// `Int2`, `Int4`, `Date`
    I32(i32),
    /// `Int8`, `Time`, `Timestamp`, `Timestamptz`
    I64(i64),
    F32(f32),
    F64(f64),
    /// `Decimal`: unscaled
    I128(i128),
    Text(String),
    Bytes(Vec<u8>),
    Uuid([u8; 16]),
    /// A value of any type, as a batch of one row with this column alone ([`crate::batch`]). Only
    /// columns have it, for rows from before they were added.
    Row(Vec<u8>),
}
