//! How the rows of a table are spread over its files and ordered in them, in Iceberg's terms, and the pure
//! functions behind it.
//!
//! A partition field is a transform of a column ([Iceberg spec, Partition Transforms]). Null becomes null. Hashes
//! are those of the spec's Appendix B, so that any reader finds the same bucket.
//!
//! [Iceberg spec, Partition Transforms]: https://iceberg.apache.org/spec/#partition-transforms

use crate::types::{LakeType, Value};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a partition value is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transform {
    Identity,
    /// The hash's remainder; the number of buckets.
    Bucket(u32),
    /// Numbers down to a multiple of the width, text and bytes to so many code points or bytes.
    Truncate(u32),
    /// Years, months, days and hours since 1970-01-01.
    Year,
    Month,
    Day,
    Hour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartitionField {
    /// Iceberg field id of the column.
    pub source_id: i32,
    pub transform: Transform,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SortField {
    /// Iceberg field id of the column.
    pub source_id: i32,
    pub descending: bool,
    pub nulls_first: bool,
}

/// The partition that a file's rows are in: a value a field. Without fields there is only one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    pub fields: Vec<PartitionField>,
    pub values: Vec<Option<Value>>,
}

/// As Iceberg metadata spell it.
impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transform::Identity => f.write_str("identity"),
            Transform::Bucket(buckets) => write!(f, "bucket[{buckets}]"),
            Transform::Truncate(width) => write!(f, "truncate[{width}]"),
            Transform::Year => f.write_str("year"),
            Transform::Month => f.write_str("month"),
            Transform::Day => f.write_str("day"),
            Transform::Hour => f.write_str("hour"),
        }
    }
}

impl Transform {
    /// Whether the spec has this transform for a type.
    pub fn accepts(&self, ty: &LakeType) -> bool {
        match self {
            Transform::Identity => !matches!(ty, LakeType::List { .. } | LakeType::Struct(_)),
            Transform::Bucket(_) => match ty {
                LakeType::Bool | LakeType::List { .. } | LakeType::Struct(_) => false,
                _ => !ty.is_float(),
            },
            Transform::Truncate(width) => match ty {
                LakeType::Decimal { precision, .. } => fits(*precision, *width),
                LakeType::Text | LakeType::Bytes => true,
                _ => ty.is_integer(),
            },
            Transform::Year | Transform::Month | Transform::Day => matches!(
                ty,
                LakeType::Date | LakeType::Timestamp | LakeType::Timestamptz
            ),
            Transform::Hour => matches!(ty, LakeType::Timestamp | LakeType::Timestamptz),
        }
    }

    /// Whether two transforms of one column say the same about it, or one includes what the other says: a
    /// partition spec has only one of them.
    pub fn is_redundant_with(&self, other: &Transform) -> bool {
        let of_time = |transform: &Transform| {
            matches!(
                transform,
                Transform::Year | Transform::Month | Transform::Day | Transform::Hour
            )
        };
        self == other || (of_time(self) && of_time(other))
    }

    /// The partition value of a value; `None` for a type that the transform doesn't [accept](Self::accepts).
    pub fn apply(&self, value: &Value) -> Option<Value> {
        match self {
            Transform::Identity => Some(value.clone()),
            Transform::Bucket(buckets) => {
                let buckets = i32::try_from(*buckets).ok().filter(|n| *n > 0)?;
                Some(Value::I32((hash(value)? & i32::MAX) % buckets))
            }
            Transform::Truncate(width) => truncate(value, *width),
            Transform::Year => Some(Value::I32(year_and_month(days(value)?).0 as i32)),
            Transform::Month => {
                let (year, month) = year_and_month(days(value)?);
                Some(Value::I32((year * 12 + month) as i32))
            }
            Transform::Day => Some(Value::I32(days(value)? as i32)),
            Transform::Hour => match value {
                // Past the year 246953 the number wraps, as it does in Iceberg's own libraries.
                Value::I64(micros) => Some(Value::I32(micros.div_euclid(MICROS_PER_HOUR) as i32)),
                _ => None,
            },
        }
    }
}

const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// Days since 1970-01-01 of a date or timestamp.
fn days(value: &Value) -> Option<i64> {
    match value {
        Value::I32(days) => Some(i64::from(*days)),
        Value::I64(micros) => Some(micros.div_euclid(24 * MICROS_PER_HOUR)),
        _ => None,
    }
}

/// Years since 1970 and months since January of a day, in the proleptic Gregorian calendar (Howard Hinnant's
/// `civil_from_days`).
fn year_and_month(days: i64) -> (i64, i64) {
    // Eras of 400 years that begin on a 1 March.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153; // March is 0
    let (month, carry) = if month < 10 {
        (month + 2, 0)
    } else {
        (month - 10, 1)
    };
    (era * 400 + year + carry - 1970, month)
}

/// Wraps at the lower end of a type, as Iceberg's own libraries do: a reader computes the same value.
fn truncate(value: &Value, width: u32) -> Option<Value> {
    if width == 0 {
        return None;
    }
    Some(match value {
        Value::I32(v) => {
            let width = i32::try_from(width).ok()?;
            Value::I32(v.wrapping_sub(v.rem_euclid(width)))
        }
        Value::I64(v) => Value::I64(v.wrapping_sub(v.rem_euclid(i64::from(width)))),
        Value::I128(v) => Value::I128(v.wrapping_sub(v.rem_euclid(i128::from(width)))),
        Value::Text(text) => Value::Text(text.chars().take(width as usize).collect()),
        Value::Bytes(bytes) => Value::Bytes(bytes.iter().take(width as usize).copied().collect()),
        _ => return None,
    })
}

/// Whether every decimal of a precision still fits, truncated, into the bytes that Iceberg has for one.
fn fits(precision: u8, width: u32) -> bool {
    let Some(power) = 10i128.checked_pow(u32::from(precision)) else {
        return false;
    };
    let least = -(power - 1);
    let bytes_of = |value: i128| minimal_bytes(value).len();
    width > 0 && bytes_of(least - least.rem_euclid(i128::from(width))) <= bytes_of(power - 1)
}

/// The spec's hash of a value; bool and floating point have none.
fn hash(value: &Value) -> Option<i32> {
    let hash = match value {
        Value::I32(v) => murmur3(&i64::from(*v).to_le_bytes()),
        Value::I64(v) => murmur3(&v.to_le_bytes()),
        Value::I128(v) => murmur3(&minimal_bytes(*v)),
        Value::Text(text) => murmur3(text.as_bytes()),
        Value::Bytes(bytes) => murmur3(bytes),
        Value::Uuid(bytes) => murmur3(bytes),
        Value::Bool(_) | Value::F32(_) | Value::F64(_) | Value::Row(_) => return None,
    };
    Some(hash as i32)
}

/// MurmurHash3, x86 variant, 32 bits, seed 0.
fn murmur3(bytes: &[u8]) -> u32 {
    let scramble = |k: u32| {
        k.wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593)
    };
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = 0u32;
    for block in blocks {
        hash ^= scramble(u32::from_le_bytes(*block));
        hash = hash
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    let rest = tail
        .iter()
        .rev()
        .fold(0u32, |rest, byte| (rest << 8) | u32::from(*byte));
    hash ^= scramble(rest);
    hash ^= bytes.len() as u32;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// An unscaled decimal: two's complement, big-endian, as few bytes as possible.
fn minimal_bytes(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let fill = if value < 0 { 0xff } else { 0x00 };
    // A leading byte is redundant if it only repeats the sign bit of the next one.
    let start = bytes
        .windows(2)
        .take_while(|pair| pair[0] == fill && (pair[1] ^ fill) & 0x80 == 0)
        .count();
    bytes[start..].to_vec()
}

/// Iceberg's binary form of a single value (spec, Appendix D).
pub fn single_value(value: &Value) -> Vec<u8> {
    match value {
        Value::Bool(v) => vec![u8::from(*v)],
        Value::I32(v) => v.to_le_bytes().to_vec(),
        Value::I64(v) => v.to_le_bytes().to_vec(),
        Value::F32(v) => v.to_le_bytes().to_vec(),
        Value::F64(v) => v.to_le_bytes().to_vec(),
        Value::I128(v) => minimal_bytes(*v),
        Value::Text(text) => text.as_bytes().to_vec(),
        Value::Bytes(bytes) | Value::Row(bytes) => bytes.clone(),
        Value::Uuid(bytes) => bytes.to_vec(),
    }
}

/// Replaces `out` by bytes that are the same for the same partition only, and that ascend as the values do, nulls
/// first.
pub fn partition_key(values: &[Option<Value>], out: &mut Vec<u8>) {
    out.clear();
    for value in values {
        let Some(value) = value else {
            out.push(0);
            continue;
        };
        out.push(1);
        match value {
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::I32(v) => out.extend(((*v as u32) ^ (1 << 31)).to_be_bytes()),
            Value::I64(v) => out.extend(((*v as u64) ^ (1 << 63)).to_be_bytes()),
            Value::I128(v) => out.extend(((*v as u128) ^ (1 << 127)).to_be_bytes()),
            Value::F32(v) => {
                let bits = v.to_bits();
                let flip = if bits >> 31 == 1 { u32::MAX } else { 1 << 31 };
                out.extend((bits ^ flip).to_be_bytes());
            }
            Value::F64(v) => {
                let bits = v.to_bits();
                let flip = if bits >> 63 == 1 { u64::MAX } else { 1 << 63 };
                out.extend((bits ^ flip).to_be_bytes());
            }
            Value::Text(text) => terminated(text.as_bytes(), out),
            Value::Bytes(bytes) | Value::Row(bytes) => terminated(bytes, out),
            Value::Uuid(bytes) => out.extend(bytes),
        }
    }
}

/// Bytes whose end can be told from a longer value's continuation.
fn terminated(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
    out.extend([0, 0]);
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
