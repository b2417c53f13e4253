//! `= <> < <= > >=`: Arrow's kernels, after decimals have got one scale and floats one NaN and zero.

use super::arith::scale_up;
use super::error::{from_arrow, internal};
use super::expr::Val;
use super::functions::rows::{Rows, i128s};
use super::values::from_i128;
use arrow::array::{Array, ArrayRef, BooleanArray, Datum, Decimal128Array, Scalar};
use arrow::array::{Float32Array, Float64Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, i256};
use arrow::error::ArrowError;
use pg_lake_plan::ir::CompareOp;
use pg_lake_plan::message::{ErrorCode, WireError};
use std::sync::Arc;

const MAX_PRECISION: u8 = 38;

type Kernel = fn(&dyn Datum, &dyn Datum) -> Result<BooleanArray, ArrowError>;

pub(super) fn compare(op: CompareOp, left: &Val, right: &Val) -> Result<Val, WireError> {
    let (l, r) = match aligned(left.array(), right.array()) {
        Err(error) if error.code == ErrorCode::NotExact => return wide(op, left, right),
        sides => sides?,
    };
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

/// Decimals that have no common scale within 128 bits.
fn wide(op: CompareOp, left: &Val, right: &Val) -> Result<Val, WireError> {
    let args = [left.clone(), right.clone()];
    let Some(rows) = Rows::of(&args) else {
        return Ok(Val::Scalar(new_null_array(&DataType::Boolean, 1)));
    };
    let (l, r) = (i128s(left)?, i128s(right)?);
    let (l_scale, r_scale) = (scale(left.array())?, scale(right.array())?);
    let scale = l_scale.max(r_scale);
    // Below 2^127 × 10^38, which is less than 2^254.
    let scaled = |value: i128, digits: i8| {
        let factor = i256::from_i128(10).wrapping_pow(digits.unsigned_abs().into());
        i256::from_i128(value).wrapping_mul(factor)
    };
    let test = |row| {
        let (l, r) = (l.at(row), r.at(row));
        let order = scaled(l, scale - l_scale).cmp(&scaled(r, scale - r_scale));
        match op {
            CompareOp::Eq => order.is_eq(),
            CompareOp::Ne => order.is_ne(),
            CompareOp::Lt => order.is_lt(),
            CompareOp::Le => order.is_le(),
            CompareOp::Gt => order.is_gt(),
            CompareOp::Ge => order.is_ge(),
        }
    };
    let values = BooleanBuffer::collect_bool(rows.count, test);
    Ok(rows.wrap(Arc::new(BooleanArray::new(values, rows.nulls()))))
}

fn scale(array: &ArrayRef) -> Result<i8, WireError> {
    match array.data_type() {
        DataType::Decimal128(_, scale) => Ok(*scale),
        _ => Err(internal("not a decimal")),
    }
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
    use arrow::array::AsArray;

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

    #[test]
    fn decimals_without_a_common_scale_compare() {
        let decimals = |values: Vec<Option<i128>>, scale| -> ArrayRef {
            let array = Decimal128Array::from(values).with_precision_and_scale(38, scale);
            Arc::new(array.expect("decimals"))
        };
        let large = 10i128.pow(30);
        let left = decimals(vec![Some(large), Some(-large), Some(0), None], 0);
        // 0.…01, with 30 digits after the point
        let right = Val::Scalar(decimals(vec![Some(1)], 30));
        let left = Val::Array(left);
        for (op, expected) in [
            (CompareOp::Gt, [Some(true), Some(false), Some(false), None]),
            (CompareOp::Le, [Some(false), Some(true), Some(true), None]),
            (CompareOp::Eq, [Some(false), Some(false), Some(false), None]),
        ] {
            let result = compare(op, &left, &right).expect("a comparison");
            let result: Vec<Option<bool>> = result.array().as_boolean().iter().collect();
            assert_eq!(result, expected);
        }
    }
}
