//! `arg = ANY (constants)`.

use super::error::{internal, protocol};
use super::values::{Native, native};
use arrow::array::{Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, StringArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::{LakeType, Value};
use std::collections::HashSet;
use std::sync::Arc;

/// Up to this many values are compared one after the other.
const FEW: usize = 8;

/// The constants, prepared for their type.
#[derive(Debug)]
pub(super) struct Set {
    values: Values,
    has_null: bool,
}

#[derive(Debug)]
enum Values {
    /// Booleans too. Sorted.
    Integers(Vec<i64>),
    Decimals(Vec<i128>),
    /// Bits of canonical values. Sorted.
    Floats(Vec<u64>),
    Few(Vec<Box<[u8]>>),
    Many(HashSet<Box<[u8]>>),
}

fn float_key(v: f64) -> u64 {
    if v.is_nan() {
        f64::NAN.to_bits()
    } else {
        (v + 0.0).to_bits()
    }
}

impl Set {
    pub(super) fn new(ty: &LakeType, list: &[Option<Value>]) -> Result<Set, WireError> {
        let present = || list.iter().flatten();
        let wrong = || protocol("a value of a list doesn't have the list's type");
        let values = match ty {
            LakeType::Bool
            | LakeType::Int2
            | LakeType::Int4
            | LakeType::Int8
            | LakeType::Date
            | LakeType::Time
            | LakeType::Timestamp
            | LakeType::Timestamptz => Values::Integers(sorted(present(), |v| match (ty, v) {
                (LakeType::Bool, Value::Bool(v)) => Ok(i64::from(*v)),
                (LakeType::Int2 | LakeType::Int4 | LakeType::Date, Value::I32(v)) => {
                    Ok(i64::from(*v))
                }
                (
                    LakeType::Int8 | LakeType::Time | LakeType::Timestamp | LakeType::Timestamptz,
                    Value::I64(v),
                ) => Ok(*v),
                _ => Err(wrong()),
            })?),
            LakeType::Decimal { .. } => Values::Decimals(sorted(present(), |v| match v {
                Value::I128(v) => Ok(*v),
                _ => Err(wrong()),
            })?),
            LakeType::Float4 | LakeType::Float8 => {
                Values::Floats(sorted(present(), |v| match v {
                    Value::F32(v) if *ty == LakeType::Float4 => Ok(float_key(f64::from(*v))),
                    Value::F64(v) if *ty == LakeType::Float8 => Ok(float_key(*v)),
                    _ => Err(wrong()),
                })?)
            }
            LakeType::Text | LakeType::Bytes | LakeType::Uuid => {
                let bytes = present().map(|v| match (ty, v) {
                    (LakeType::Text, Value::Text(v)) => Ok(Box::<[u8]>::from(v.as_bytes())),
                    (LakeType::Bytes, Value::Bytes(v)) => Ok(Box::<[u8]>::from(v.as_slice())),
                    (LakeType::Uuid, Value::Uuid(v)) => Ok(Box::<[u8]>::from(v.as_slice())),
                    _ => Err(wrong()),
                });
                if list.len() <= FEW {
                    Values::Few(bytes.collect::<Result<Vec<_>, _>>()?)
                } else {
                    Values::Many(bytes.collect::<Result<HashSet<_>, _>>()?)
                }
            }
            LakeType::List { .. } | LakeType::Struct(_) => {
                return Err(protocol("a list of nested values"));
            }
        };
        Ok(Set {
            values,
            has_null: list.iter().any(Option::is_none),
        })
    }
}

fn sorted<'a, T: Ord>(
    values: impl Iterator<Item = &'a Value>,
    convert: impl Fn(&Value) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let mut sorted = values.map(convert).collect::<Result<Vec<T>, _>>()?;
    sorted.sort_unstable();
    sorted.dedup();
    Ok(sorted)
}

fn has<T: Ord>(sorted: &[T], value: T) -> bool {
    if sorted.len() <= FEW {
        sorted.contains(&value)
    } else {
        sorted.binary_search(&value).is_ok()
    }
}

impl Values {
    fn has_bytes(&self, value: &[u8]) -> bool {
        match self {
            Values::Few(list) => list.iter().any(|v| &v[..] == value),
            Values::Many(set) => set.contains(value),
            _ => false,
        }
    }
}

/// `array = ANY (set)`: null where nothing matches and the set has a null, or the value is null.
pub(super) fn contains(set: &Set, array: &ArrayRef, negated: bool) -> Result<ArrayRef, WireError> {
    let found = found(&set.values, array)?;
    let nulls = if set.has_null {
        NullBuffer::union(array.nulls(), Some(&NullBuffer::new(found.clone())))
    } else {
        array.nulls().cloned()
    };
    let values = if negated { !&found } else { found };
    Ok(Arc::new(BooleanArray::new(values, nulls)))
}

fn found(values: &Values, array: &ArrayRef) -> Result<BooleanBuffer, WireError> {
    let any = array.as_any();
    let found = match (values, native(array)) {
        (Values::Integers(s), Some(Native::I32(v))) => {
            v.iter().map(|&v| has(s, i64::from(v))).collect()
        }
        (Values::Integers(s), Some(Native::I64(v))) => v.iter().map(|&v| has(s, v)).collect(),
        (Values::Decimals(s), Some(Native::I128(v))) => v.iter().map(|&v| has(s, v)).collect(),
        (Values::Floats(s), Some(Native::F32(v))) => {
            v.iter().map(|&v| has(s, float_key(f64::from(v)))).collect()
        }
        (Values::Floats(s), Some(Native::F64(v))) => {
            v.iter().map(|&v| has(s, float_key(v))).collect()
        }
        (Values::Integers(s), None) => match any.downcast_ref::<BooleanArray>() {
            Some(v) => v.values().iter().map(|v| has(s, i64::from(v))).collect(),
            None => return Err(internal("a list of another type")),
        },
        (Values::Few(_) | Values::Many(_), None) => {
            if let Some(v) = any.downcast_ref::<StringArray>() {
                let get = |i| values.has_bytes(v.value(i).as_bytes());
                BooleanBuffer::collect_bool(v.len(), get)
            } else if let Some(v) = any.downcast_ref::<BinaryArray>() {
                BooleanBuffer::collect_bool(v.len(), |i| values.has_bytes(v.value(i)))
            } else if let Some(v) = any.downcast_ref::<FixedSizeBinaryArray>() {
                BooleanBuffer::collect_bool(v.len(), |i| values.has_bytes(v.value(i)))
            } else {
                return Err(internal("a list of another type"));
            }
        }
        _ => return Err(internal("a list of another type")),
    };
    Ok(found)
}
