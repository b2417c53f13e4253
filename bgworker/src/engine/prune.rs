//! Row groups whose statistics show that no row passes the predicate.
//!
//! Only conjuncts before the first one that can raise an error are used: a row group that is not
//! read can't raise what Postgres would have raised. Floats are left alone (NaN, −0.0).

use crate::arrow_types::arrow_type;
use arrow::datatypes::{DataType, Schema};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use pg_lake_plan::ir::{CompareOp, Expr, ExprKind};
use pg_lake_plan::types::{LakeType, Value};

/// A condition on one column of the scan.
#[derive(Debug)]
pub(super) struct Bound {
    /// Index into the scan's columns.
    pub(super) column: usize,
    ty: LakeType,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Compare(CompareOp, Key),
    In(Vec<Key>),
}

/// A value in an order that Postgres and Parquet agree on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i128),
    Bytes(Vec<u8>),
}

/// What the predicate says about single columns.
pub(super) fn bounds(predicate: Option<&Expr>, params: &[Option<Value>]) -> Vec<Bound> {
    let mut bounds = vec![];
    if let Some(predicate) = predicate {
        collect(predicate, params, &mut bounds);
    }
    bounds
}

/// Returns whether the conjuncts that follow may be used as well.
fn collect(expr: &Expr, params: &[Option<Value>], bounds: &mut Vec<Bound>) -> bool {
    match &expr.kind {
        ExprKind::And(args) => args.iter().all(|arg| collect(arg, params, bounds)),
        ExprKind::Compare { op, left, right } => {
            bounds.extend(match (&left.kind, &right.kind) {
                (ExprKind::Column(i), _) => bound(*i, left, *op, right, params),
                (_, ExprKind::Column(i)) => bound(*i, right, swapped(*op), left, params),
                _ => None,
            });
            !expr.can_fail()
        }
        ExprKind::InList {
            arg,
            values,
            negated: false,
        } => {
            if let ExprKind::Column(i) = &arg.kind {
                let ty = &arg.ty.lake;
                let keys: Option<Vec<Key>> =
                    values.iter().flatten().map(|v| key(ty, ty, v)).collect();
                bounds.extend(keys.map(|keys| Bound {
                    column: *i as usize,
                    ty: ty.clone(),
                    test: Test::In(keys),
                }));
            }
            !expr.can_fail()
        }
        _ => !expr.can_fail(),
    }
}

fn swapped(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Lt => CompareOp::Gt,
        CompareOp::Le => CompareOp::Ge,
        CompareOp::Gt => CompareOp::Lt,
        CompareOp::Ge => CompareOp::Le,
        same => same,
    }
}

fn bound(
    column: u32,
    column_expr: &Expr,
    op: CompareOp,
    other: &Expr,
    params: &[Option<Value>],
) -> Option<Bound> {
    let value = match &other.kind {
        ExprKind::Const(value) => value.as_ref()?,
        ExprKind::Param(i) => params.get(*i as usize)?.as_ref()?,
        _ => return None,
    };
    let ty = &column_expr.ty.lake;
    Some(Bound {
        column: column as usize,
        ty: ty.clone(),
        test: Test::Compare(op, key(ty, &other.ty.lake, value)?),
    })
}

/// A constant of type `ty` as a key for a column of type `column`.
fn key(column: &LakeType, ty: &LakeType, value: &Value) -> Option<Key> {
    Some(match (column, ty, value) {
        (LakeType::Float4 | LakeType::Float8, _, _) => return None,
        (LakeType::Decimal { scale, .. }, LakeType::Decimal { scale: own, .. }, Value::I128(v)) => {
            let digits = u32::try_from(i32::from(*scale) - i32::from(*own)).ok()?;
            Key::Number(v.checked_mul(10i128.checked_pow(digits)?)?)
        }
        (_, _, Value::I32(v)) => Key::Number(i128::from(*v)),
        (_, _, Value::I64(v)) => Key::Number(i128::from(*v)),
        (_, _, Value::Text(v)) => Key::Bytes(v.as_bytes().to_vec()),
        _ => return None,
    })
}

/// Whether a row group can be left out. `leaf` finds the Parquet column of a scan column: its
/// index among the leaves and its place among the file's fields.
pub(super) fn prunable(
    bounds: &[Bound],
    row_group: &RowGroupMetaData,
    schema: &Schema,
    leaf: impl Fn(usize) -> Option<(usize, usize)>,
) -> bool {
    bounds.iter().any(|bound| {
        let Some((leaf, root)) = leaf(bound.column) else {
            return false;
        };
        let (Some(column), Some(field)) =
            (row_group.columns().get(leaf), schema.fields().get(root))
        else {
            return false;
        };
        let Some(statistics) = column.statistics() else {
            return false;
        };
        if statistics.null_count_opt() == u64::try_from(row_group.num_rows()).ok() {
            return true;
        }
        match range(statistics, field.data_type(), &bound.ty) {
            Some((min, max)) => !bound.possible(&min, &max),
            None => false,
        }
    })
}

impl Bound {
    fn possible(&self, min: &Key, max: &Key) -> bool {
        match &self.test {
            Test::In(keys) => keys.iter().any(|key| min <= key && key <= max),
            Test::Compare(op, key) => match op {
                CompareOp::Eq => min <= key && key <= max,
                CompareOp::Ne => true,
                CompareOp::Lt => min < key,
                CompareOp::Le => min <= key,
                CompareOp::Gt => max > key,
                CompareOp::Ge => max >= key,
            },
        }
    }
}

/// Smallest and largest value (text: bounds of them), where the file's order is ours.
fn range(statistics: &Statistics, file: &DataType, ty: &LakeType) -> Option<(Key, Key)> {
    let comparable = match (file, ty) {
        (DataType::Int32, LakeType::Int8) => true,
        (DataType::Decimal128(_, had), LakeType::Decimal { scale, .. }) => had == scale,
        _ => *file == arrow_type(ty),
    };
    if !comparable {
        return None;
    }
    match statistics {
        Statistics::Int32(s) => Some((
            Key::Number((*s.min_opt()?).into()),
            Key::Number((*s.max_opt()?).into()),
        )),
        Statistics::Int64(s) => Some((
            Key::Number((*s.min_opt()?).into()),
            Key::Number((*s.max_opt()?).into()),
        )),
        // The deprecated statistics of byte arrays were compared as signed bytes.
        _ if statistics.is_min_max_deprecated() => None,
        Statistics::FixedLenByteArray(_) if ty.is_decimal() => {
            let min = Key::Number(big_endian(statistics.min_bytes_opt()?)?);
            Some((min, Key::Number(big_endian(statistics.max_bytes_opt()?)?)))
        }
        Statistics::ByteArray(_) if *ty == LakeType::Text => {
            let min = Key::Bytes(statistics.min_bytes_opt()?.to_vec());
            Some((min, Key::Bytes(statistics.max_bytes_opt()?.to_vec())))
        }
        _ => None,
    }
}

/// A signed big-endian number of up to 16 bytes.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first()? & 0x80 != 0 { 0xFF } else { 0 };
    let mut wide = [sign; 16];
    let start = 16usize.checked_sub(bytes.len())?;
    wide.get_mut(start..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn big_endian_numbers_keep_their_sign() {
        assert_eq!(big_endian(&[0xFF, 0xFE]), Some(-2));
        assert_eq!(big_endian(&[0x01, 0x00]), Some(256));
        assert_eq!(big_endian(&[0; 17]), None);
    }
}
