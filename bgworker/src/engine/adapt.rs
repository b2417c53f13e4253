//! Columns of a file in the types that the query expects.
//!
//! A file keeps the type that a column had when it was written. Iceberg allows promotions (int to
//! long, float to double, wider decimals) and changes to nested fields, which are found by id.

use super::cast;
use super::error::from_arrow;
use crate::arrow_types::arrow_type;
use arrow::array::new_null_array;
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, ListArray, StructArray};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY as FIELD_ID;
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::types::LakeType;
use std::sync::Arc;

/// `array`, which the Parquet reader made, as `ty`.
pub(super) fn adapt(array: &ArrayRef, ty: &LakeType) -> Result<ArrayRef, WireError> {
    let target = arrow_type(ty);
    if *array.data_type() == target {
        return Ok(array.clone());
    }
    match (array.data_type(), ty) {
        (DataType::Int32, LakeType::Int8) => cast::cast(&LakeType::Int4, ty, array),
        (DataType::Float32, LakeType::Float8) => cast::cast(&LakeType::Float4, ty, array),
        (
            DataType::Decimal128(had, scale),
            LakeType::Decimal {
                precision,
                scale: wanted,
            },
        ) if scale == wanted && had <= precision => {
            let Some(decimals) = array.as_any().downcast_ref::<Decimal128Array>() else {
                return Err(mismatch(array, &target));
            };
            let wider = decimals
                .clone()
                .with_precision_and_scale(*precision, *scale)
                .map_err(|e| from_arrow(&e))?;
            Ok(Arc::new(wider))
        }
        (DataType::List(_), LakeType::List { element, .. }) => {
            let DataType::List(field) = &target else {
                return Err(mismatch(array, &target));
            };
            let list = array.as_list::<i32>();
            let values = adapt(list.values(), element)?;
            let nulls = list.nulls().cloned();
            ListArray::try_new(field.clone(), list.offsets().clone(), values, nulls)
                .map(|list| Arc::new(list) as ArrayRef)
                .map_err(|e| from_arrow(&e))
        }
        (DataType::Struct(had), LakeType::Struct(wanted)) => {
            let DataType::Struct(fields) = &target else {
                return Err(mismatch(array, &target));
            };
            let values = array.as_struct();
            let mut children = Vec::with_capacity(wanted.len());
            for field in wanted {
                let place = had.iter().position(|f| field_id(f) == Some(field.id));
                children.push(match place {
                    Some(i) => adapt(values.column(i), &field.ty)?,
                    None => new_null_array(&arrow_type(&field.ty), values.len()),
                });
            }
            let nulls = values.nulls().cloned();
            StructArray::try_new_with_length(fields.clone(), children, nulls, values.len())
                .map(|values| Arc::new(values) as ArrayRef)
                .map_err(|e| from_arrow(&e))
        }
        (had, _) if harmless(had, &target) => {
            arrow::compute::cast(array, &target).map_err(|e| from_arrow(&e))
        }
        _ => Err(mismatch(array, &target)),
    }
}

/// The same values in another layout, as other writers may have stored them.
fn harmless(had: &DataType, target: &DataType) -> bool {
    use DataType::*;
    match (had, target) {
        (Utf8View | LargeUtf8, Utf8) => true,
        (BinaryView | LargeBinary | FixedSizeBinary(_), Binary) => true,
        (Timestamp(had, had_zone), Timestamp(wanted, zone)) => {
            had == wanted && had_zone.is_some() == zone.is_some()
        }
        (Time32(_), Time64(_)) => true,
        _ => false,
    }
}

fn mismatch(array: &ArrayRef, target: &DataType) -> WireError {
    WireError::new(
        ErrorCode::DataCorrupted,
        format!(
            "a column of type {} can't be read as {target}",
            array.data_type()
        ),
    )
}

/// The Iceberg field id that Parquet's reader attached.
fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(FIELD_ID)?.parse().ok()
}
