//! Widening conversions.

use super::arith::{TOO_LARGE, scale_up};
use super::error::{internal, not_exact};
use super::values::{Native, from_i64, from_i128, native};
use crate::arrow_types::arrow_type;
use arrow::array::{Array, ArrayRef, Float32Array, Float64Array};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use std::sync::Arc;

const DAY_US: i64 = 86_400_000_000;

/// Whether [`cast`] knows the conversion.
pub(super) fn supported(from: &LakeType, to: &LakeType) -> bool {
    use LakeType::*;
    from == to
        || match (from, to) {
            (Int2, Int4 | Int8) | (Int4, Int8) | (Float4, Float8) | (Date, Timestamp) => true,
            (Int2 | Int4 | Int8, Float4 | Float8 | Decimal { .. }) => true,
            (Decimal { scale: from, .. }, Decimal { scale: to, .. }) => from <= to,
            _ => false,
        }
}

pub(super) fn cast(
    from: &LakeType,
    to: &LakeType,
    array: &ArrayRef,
) -> Result<ArrayRef, WireError> {
    if from == to {
        return Ok(array.clone());
    }
    let (data_type, nulls) = (arrow_type(to), array.nulls().cloned());
    let present = nulls.as_ref();
    Ok(match (native(array), to) {
        (Some(Native::I32(_)), LakeType::Int4) => array.clone(),
        (Some(Native::I32(v)), LakeType::Int8) => {
            from_i64(v.iter().map(|&v| i64::from(v)).collect(), nulls, &data_type)
        }
        (Some(Native::I32(days)), LakeType::Timestamp) => {
            let mut wrong = false;
            let values: Vec<i64> = days
                .iter()
                .enumerate()
                .map(|(row, &day)| {
                    let (us, bad) = i64::from(day).overflowing_mul(DAY_US);
                    wrong |= bad && present.is_none_or(|n| n.is_valid(row));
                    us
                })
                .collect();
            if wrong {
                return Err(not_exact("a date is outside the range of timestamps"));
            }
            from_i64(values, nulls, &data_type)
        }
        (Some(Native::I32(v)), LakeType::Float4) => {
            let values: Vec<f32> = v.iter().map(|&v| v as f32).collect();
            Arc::new(Float32Array::new(values.into(), nulls))
        }
        (Some(Native::I64(v)), LakeType::Float4) => {
            let values: Vec<f32> = v.iter().map(|&v| v as f32).collect();
            Arc::new(Float32Array::new(values.into(), nulls))
        }
        (Some(Native::I32(v)), LakeType::Float8) => {
            let values: Vec<f64> = v.iter().map(|&v| f64::from(v)).collect();
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        (Some(Native::I64(v)), LakeType::Float8) => {
            let values: Vec<f64> = v.iter().map(|&v| v as f64).collect();
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        (Some(Native::F32(v)), LakeType::Float8) => {
            let values: Vec<f64> = v.iter().map(|&v| f64::from(v)).collect();
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        (Some(values), LakeType::Decimal { precision, scale }) => {
            let (unscaled, had) = match (values, from) {
                (Native::I32(v), _) => (v.iter().map(|&v| i128::from(v)).collect(), 0),
                (Native::I64(v), _) => (v.iter().map(|&v| i128::from(v)).collect(), 0),
                (Native::I128(v), LakeType::Decimal { scale, .. }) => (v.to_vec(), *scale),
                _ => return Err(internal("a conversion without a rule")),
            };
            let unscaled: Vec<i128> = unscaled;
            let digits = i32::from(*scale) - i32::from(had);
            let unscaled = if digits == 0 {
                unscaled
            } else {
                scale_up(&unscaled, digits, present)?
            };
            let bound = 10u128.pow(u32::from((*precision).min(38)));
            let too_large = |(row, v): (usize, &i128)| {
                v.unsigned_abs() >= bound && present.is_none_or(|n| n.is_valid(row))
            };
            if unscaled.iter().enumerate().any(too_large) {
                return Err(not_exact(TOO_LARGE));
            }
            from_i128(unscaled, nulls, &data_type)?
        }
        _ => return Err(internal("a conversion without a rule")),
    })
}
