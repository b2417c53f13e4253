//! Arrays as slices of native values, and arrays made from those and from constants.

use super::error::{from_arrow, internal, protocol, wire};
use crate::arrow_types::arrow_type;
use crate::convert::batch_from_wire;
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int32Array, Int64Array, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion_common::ScalarValue;
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::{LakeType, Value};
use std::sync::Arc;

/// The values of a fixed-width array, whatever they mean.
#[derive(Clone, Copy)]
pub(super) enum Native<'a> {
    I32(&'a [i32]),
    I64(&'a [i64]),
    I128(&'a [i128]),
    F32(&'a [f32]),
    F64(&'a [f64]),
}

/// `None` for types without native values.
pub(super) fn native(array: &dyn Array) -> Option<Native<'_>> {
    let any = array.as_any();
    Some(match array.data_type() {
        DataType::Int32 => Native::I32(any.downcast_ref::<Int32Array>()?.values()),
        DataType::Date32 => Native::I32(any.downcast_ref::<Date32Array>()?.values()),
        DataType::Int64 => Native::I64(any.downcast_ref::<Int64Array>()?.values()),
        DataType::Time64(TimeUnit::Microsecond) => {
            Native::I64(any.downcast_ref::<Time64MicrosecondArray>()?.values())
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Native::I64(any.downcast_ref::<TimestampMicrosecondArray>()?.values())
        }
        DataType::Decimal128(..) => Native::I128(any.downcast_ref::<Decimal128Array>()?.values()),
        DataType::Float32 => Native::F32(any.downcast_ref::<Float32Array>()?.values()),
        DataType::Float64 => Native::F64(any.downcast_ref::<Float64Array>()?.values()),
        _ => return None,
    })
}

/// An `Int32` or `Date32` array.
pub(super) fn from_i32(values: Vec<i32>, nulls: Option<NullBuffer>, ty: &DataType) -> ArrayRef {
    match ty {
        DataType::Date32 => Arc::new(Date32Array::new(values.into(), nulls)),
        _ => Arc::new(Int32Array::new(values.into(), nulls)),
    }
}

/// An `Int64`, `Time64` or `Timestamp` array.
pub(super) fn from_i64(values: Vec<i64>, nulls: Option<NullBuffer>, ty: &DataType) -> ArrayRef {
    match ty {
        DataType::Time64(_) => Arc::new(Time64MicrosecondArray::new(values.into(), nulls)),
        DataType::Timestamp(_, zone) => Arc::new(
            TimestampMicrosecondArray::new(values.into(), nulls).with_timezone_opt(zone.clone()),
        ),
        _ => Arc::new(Int64Array::new(values.into(), nulls)),
    }
}

/// A decimal array; `ty` must be a `Decimal128`.
pub(super) fn from_i128(
    values: Vec<i128>,
    nulls: Option<NullBuffer>,
    ty: &DataType,
) -> Result<ArrayRef, WireError> {
    let DataType::Decimal128(precision, scale) = ty else {
        return Err(internal("decimal values for another type"));
    };
    let array = Decimal128Array::new(values.into(), nulls)
        .with_precision_and_scale(*precision, *scale)
        .map_err(|e| from_arrow(&e))?;
    Ok(Arc::new(array))
}

/// A constant as an array of one row.
pub(super) fn constant(ty: &LakeType, value: &Option<Value>) -> Result<ArrayRef, WireError> {
    let data_type = arrow_type(ty);
    let Some(value) = value else {
        return Ok(new_null_array(&data_type, 1));
    };
    if let Value::Row(bytes) = value {
        let schema = Schema::new(vec![Field::new("value", data_type, true)]);
        let batch = batch_from_wire(bytes, std::slice::from_ref(ty), Arc::new(schema))?;
        return match batch.num_rows() {
            1 => Ok(batch.column(0).clone()),
            _ => Err(protocol("a constant doesn't have one row")),
        };
    }
    Ok(match (ty, value) {
        (LakeType::Bool, Value::Bool(v)) => Arc::new(BooleanArray::from(vec![*v])),
        (LakeType::Int2 | LakeType::Int4 | LakeType::Date, Value::I32(v)) => {
            from_i32(vec![*v], None, &data_type)
        }
        (
            LakeType::Int8 | LakeType::Time | LakeType::Timestamp | LakeType::Timestamptz,
            Value::I64(v),
        ) => from_i64(vec![*v], None, &data_type),
        (LakeType::Float4, Value::F32(v)) => Arc::new(Float32Array::from(vec![*v])),
        (LakeType::Float8, Value::F64(v)) => Arc::new(Float64Array::from(vec![*v])),
        (LakeType::Decimal { .. }, Value::I128(v)) => from_i128(vec![*v], None, &data_type)?,
        (LakeType::Text, Value::Text(v)) => Arc::new(StringArray::from(vec![v.as_str()])),
        (LakeType::Bytes, Value::Bytes(v)) => Arc::new(BinaryArray::from_vec(vec![v.as_slice()])),
        (LakeType::Uuid, Value::Uuid(v)) => Arc::new(
            FixedSizeBinaryArray::try_from_iter(std::iter::once(v.as_slice()))
                .map_err(|e| from_arrow(&e))?,
        ),
        _ => return Err(protocol("a constant doesn't have its type")),
    })
}

/// An array of one row, `rows` times.
pub(super) fn repeat(one: &ArrayRef, rows: usize) -> Result<ArrayRef, WireError> {
    if rows == 1 {
        return Ok(one.clone());
    }
    if one.is_null(0) {
        return Ok(new_null_array(one.data_type(), rows));
    }
    ScalarValue::try_from_array(one, 0)
        .and_then(|scalar| scalar.to_array_of_size(rows))
        .map_err(|e| wire(&e))
}

/// 10 to the power of `n`, which types keep within 0..=38.
pub(super) fn power_of_ten(n: i32) -> Result<i128, WireError> {
    u32::try_from(n)
        .ok()
        .and_then(|n| 10i128.checked_pow(n))
        .ok_or_else(|| internal("a scale outside its range"))
}
