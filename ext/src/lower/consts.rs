//! Constants: datums as values, and values as another type of the engine where nothing is lost.

use super::Lowered;
use super::node::string;
use super::table::sql_type;
use crate::types::{expression_type, value_of};
use pg_lake_plan::ir::{Expr, ExprKind};
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;

/// Digits of a decimal of the engine.
pub const MAX_PRECISION: u8 = 38;

/// `numeric` with a known scale.
pub fn decimal(scale: i8) -> SqlType {
    sql_type(
        LakeType::Decimal {
            precision: MAX_PRECISION,
            scale,
        },
        pg_sys::NUMERICOID,
    )
}

pub fn constant(constant: &pg_sys::Const) -> Lowered<Expr> {
    let value = (!constant.constisnull).then_some(constant.constvalue);
    literal(
        constant.consttype,
        constant.consttypmod,
        constant.constcollid,
        value,
    )
}

/// A datum of a type, or a typed null.
pub fn literal(
    typid: pg_sys::Oid,
    typmod: i32,
    collation: pg_sys::Oid,
    datum: Option<pg_sys::Datum>,
) -> Lowered<Expr> {
    let (lake, value) = if typid == pg_sys::NUMERICOID {
        match datum {
            Some(datum) => {
                let (lake, value) =
                    numeric(datum).ok_or("a numeric constant is out of the engine's range")?;
                (lake, Some(value))
            }
            None => (decimal(0).lake, None),
        }
    } else {
        // SAFETY: a type of the plan.
        let lake = unsafe { expression_type(typid, typmod) }
            .ok_or_else(|| format!("constants of type {} are not lowered", type_name(typid)))?;
        let value = match datum {
            // SAFETY: the constant's datum is of its type.
            Some(datum) => Some(unsafe { value_of(&lake, typid, datum) }.ok_or_else(|| {
                format!(
                    "a constant of type {} is out of the engine's range",
                    type_name(typid)
                )
            })?),
            None => None,
        };
        (lake, value)
    };
    Ok(Expr {
        ty: SqlType {
            lake,
            oid: typid.to_u32(),
            typmod,
            collation: collation.to_u32(),
        },
        kind: ExprKind::Const(value),
    })
}

/// A numeric with the scale that it is displayed with, which decides that of results.
fn numeric(datum: pg_sys::Datum) -> Option<(LakeType, Value)> {
    // SAFETY: the datum is a numeric.
    let text = string(unsafe {
        pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_NUMERIC_OUT), datum)
    });
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.as_str()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let joined = format!("{whole}{fraction}");
    if joined.is_empty() || !joined.bytes().all(|b| b.is_ascii_digit()) {
        return None; // NaN, Infinity
    }
    let significant = joined.trim_start_matches('0').len();
    let precision = significant.max(fraction.len()).max(1);
    if precision > MAX_PRECISION as usize {
        return None;
    }
    let magnitude: i128 = joined.parse().ok()?;
    let lake = LakeType::Decimal {
        precision: precision as u8,
        scale: fraction.len() as i8,
    };
    Some((
        lake,
        Value::I128(if negative { -magnitude } else { magnitude }),
    ))
}

/// The expression as a `to`, if it is a constant that has exactly that value there.
pub fn adapt(expr: &Expr, to: &SqlType) -> Option<Expr> {
    let ExprKind::Const(value) = &expr.kind else {
        return None;
    };
    let value = match value {
        None => None,
        Some(value) if expr.ty.lake == to.lake => Some(value.clone()),
        Some(value) => Some(convert(value, &expr.ty.lake, &to.lake)?),
    };
    Some(Expr {
        ty: to.clone(),
        kind: ExprKind::Const(value),
    })
}

fn convert(value: &Value, from: &LakeType, to: &LakeType) -> Option<Value> {
    Some(match (value, to) {
        (Value::I32(_) | Value::I64(_), _) if from.is_integer() => {
            let number = match value {
                Value::I32(v) => i64::from(*v),
                Value::I64(v) => *v,
                _ => return None,
            };
            match to {
                LakeType::Int2 => Value::I32(i16::try_from(number).ok()?.into()),
                LakeType::Int4 => Value::I32(i32::try_from(number).ok()?),
                LakeType::Int8 => Value::I64(number),
                LakeType::Decimal { precision, scale } => {
                    Value::I128(rescale(number.into(), 0, *precision, *scale)?)
                }
                _ => return None,
            }
        }
        (Value::I128(v), LakeType::Decimal { precision, scale }) => {
            let LakeType::Decimal { scale: old, .. } = from else {
                return None;
            };
            Value::I128(rescale(*v, *old, *precision, *scale)?)
        }
        (Value::F32(v), LakeType::Float8) => Value::F64(f64::from(*v)),
        (Value::F64(v), LakeType::Float4) => {
            let narrow = *v as f32;
            if f64::from(narrow).to_bits() != v.to_bits() {
                return None;
            }
            Value::F32(narrow)
        }
        _ => return None,
    })
}

fn rescale(value: i128, from: i8, precision: u8, to: i8) -> Option<i128> {
    let factor = 10i128.checked_pow(u32::from(from.abs_diff(to)))?;
    let scaled = if to >= from {
        value.checked_mul(factor)?
    } else if value % factor == 0 {
        value / factor
    } else {
        return None;
    };
    let limit = 10i128.checked_pow(precision.into())?;
    (scaled.checked_abs()? < limit).then_some(scaled)
}

/// For messages.
pub fn type_name(typid: pg_sys::Oid) -> String {
    // SAFETY: looks the name up; never null.
    string(unsafe { pg_sys::format_type_be(typid) })
}
