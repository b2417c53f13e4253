//! `= <> < <= > >=`: Arrow's kernels, after decimals have got one scale and floats one NaN and zero.

use super::arith::scale_up;
use super::error::{from_arrow, internal};
use super::expr::Val;
use super::values::from_i128;
use arrow::array::{Array, ArrayRef, BooleanArray, Datum, Decimal128Array, Scalar};
use arrow::array::{Float32Array, Float64Array};
use arrow::compute::kernels::cmp;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use pg_lake_plan::ir::CompareOp;
use pg_lake_plan::message::WireError;
use std::sync::Arc;

const MAX_PRECISION: u8 = 38;

type Kernel = fn(&dyn Datum, &dyn Datum) -> Result<BooleanArray, ArrowError>;

pub(super) fn compare(op: CompareOp, left: &Val, right: &Val) -> Result<Val, WireError> {
    let (l, r) = aligned(left.array(), right.array())?;
    let kernel: Kernel = match op {
        CompareOp::Eq => cmp::eq,
        CompareOp::Ne => cmp::neq,
        CompareOp::Lt => cmp::lt,
        CompareOp::Le => cmp::lt_eq,
        CompareOp::Gt => cmp::gt,
        CompareOp::Ge => cmp::gt_eq,
    };
    let result = kernel(
        datum(l, left.is_scalar()).as_ref(),
        datum(r, right.is_scalar()).as_ref(),
    )
    .map_err(|e| from_arrow(&e))?;
    Ok(if left.is_scalar() && right.is_scalar() {
        Val::Scalar(Arc::new(result))
    } else {
        Val::Array(Arc::new(result))
    })
}

/// A scalar is an array of one row, as [`Val`] promises.
fn datum(array: ArrayRef, scalar: bool) -> Box<dyn Datum> {
    if scalar && array.len() == 1 {
        Box::new(Scalar::new(array))
    } else {
        Box::new(array)
    }
}

/// Both sides in one Arrow type whose order is Postgres'.
fn aligned(left: &ArrayRef, right: &ArrayRef) -> Result<(ArrayRef, ArrayRef), WireError> {
    match (left.data_type(), right.data_type()) {
        (DataType::Decimal128(lp, ls), DataType::Decimal128(rp, rs)) => {
            if (lp, ls) == (rp, rs) {
                return Ok((left.clone(), right.clone()));
            }
            let scale = *ls.max(rs);
            Ok((
                decimal(left, scale - ls, scale)?,
                decimal(right, scale - rs, scale)?,
            ))
        }
        (DataType::Float32 | DataType::Float64, _) => Ok((canonical(left), canonical(right))),
        _ => Ok((left.clone(), right.clone())),
    }
}

fn decimal(array: &ArrayRef, digits: i8, scale: i8) -> Result<ArrayRef, WireError> {
    let data_type = DataType::Decimal128(MAX_PRECISION, scale);
    let decimals = array
        .as_any()
        .downcast_ref::<Decimal128Array>()
        .ok_or_else(|| internal("not a decimal"))?;
    if digits == 0 {
        let retyped = decimals
            .clone()
            .with_precision_and_scale(MAX_PRECISION, scale)
            .map_err(|e| from_arrow(&e))?;
        return Ok(Arc::new(retyped));
    }
    let values = scale_up(decimals.values(), i32::from(digits), decimals.nulls())?;
    from_i128(values, decimals.nulls().cloned(), &data_type)
}

/// Floats with one zero and one NaN, which Arrow's total order puts last. Other arrays as they are.
pub(super) fn canonical(array: &ArrayRef) -> ArrayRef {
    if let Some(floats) = array.as_any().downcast_ref::<Float64Array>() {
        let odd = |v: f64| v.is_nan() | (v.to_bits() == (-0.0f64).to_bits());
        if floats.values().iter().fold(false, |any, &v| any | odd(v)) {
            let clean = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            return Arc::new(floats.unary::<_, arrow::datatypes::Float64Type>(clean));
        }
    } else if let Some(floats) = array.as_any().downcast_ref::<Float32Array>() {
        let odd = |v: f32| v.is_nan() | (v.to_bits() == (-0.0f32).to_bits());
        if floats.values().iter().fold(false, |any, &v| any | odd(v)) {
            let clean = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            return Arc::new(floats.unary::<_, arrow::datatypes::Float32Type>(clean));
        }
    }
    array.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_become_canonical() {
        let array: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, -f64::NAN, 1.5]));
        let clean = canonical(&array);
        let clean = clean
            .as_any()
            .downcast_ref::<Float64Array>()
            .expect("floats");
        assert!(clean.value(0).is_sign_positive());
        assert!(clean.value(1).is_nan() && clean.value(1).is_sign_positive());
        assert_eq!(clean.value(2), 1.5);
    }
}
