//! Row groups whose statistics show that no row passes the predicate, or that every row does.
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
pub(super) enum Key {
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
        _ => {
            bounds.extend(condition(expr, params));
            !expr.can_fail()
        }
    }
}

/// An expression as a condition on one column; `None` if it is something else.
fn condition(expr: &Expr, params: &[Option<Value>]) -> Option<Bound> {
    match &expr.kind {
        ExprKind::Compare { op, left, right } => match (&left.kind, &right.kind) {
            (ExprKind::Column(i), _) => bound(*i, left, *op, right, params),
            (_, ExprKind::Column(i)) => bound(*i, right, swapped(*op), left, params),
            _ => None,
        },
        ExprKind::InList {
            arg,
            values,
            negated: false,
        } => {
            let ExprKind::Column(i) = &arg.kind else {
                return None;
            };
            let ty = &arg.ty.lake;
            let keys: Option<Vec<Key>> = values.iter().flatten().map(|v| key(ty, ty, v)).collect();
            Some(Bound {
                column: *i as usize,
                ty: ty.clone(),
                test: Test::In(keys?),
            })
        }
        _ => None,
    }
}

/// A predicate as conditions that all have to hold; `None` if it says more than that.
pub(super) fn proof(predicate: &Expr, params: &[Option<Value>]) -> Option<Vec<Bound>> {
    let ExprKind::And(args) = &predicate.kind else {
        return Some(vec![condition(predicate, params)?]);
    };
    let mut bounds = vec![];
    for arg in args {
        bounds.extend(proof(arg, params)?);
    }
    Some(bounds)
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
        let Some((statistics, file)) = statistics(bound.column, row_group, schema, &leaf) else {
            return false;
        };
        if statistics.null_count_opt() == u64::try_from(row_group.num_rows()).ok() {
            return true;
        }
        match range(statistics, file, &bound.ty) {
            Some((min, max)) => !bound.possible(&min, &max),
            None => false,
        }
    })
}

/// Whether every row of a row group meets all conditions of a [`proof`]; `leaf` as of [`prunable`].
pub(super) fn covers(
    proof: &[Bound],
    row_group: &RowGroupMetaData,
    schema: &Schema,
    leaf: impl Fn(usize) -> Option<(usize, usize)>,
) -> bool {
    proof.iter().all(|bound| {
        let Some((statistics, file)) = statistics(bound.column, row_group, schema, &leaf) else {
            return false;
        };
        // A condition on a null is not met.
        statistics.null_count_opt() == Some(0)
            && range(statistics, file, &bound.ty)
                .is_some_and(|(min, max)| bound.certain(&min, &max))
    })
}

/// The values of a column that are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    pub(super) least: Option<Key>,
    pub(super) largest: Option<Key>,
    /// None of the values.
    pub(super) empty: bool,
    /// Nulls, too.
    pub(super) nulls: bool,
}

impl Span {
    /// Whether a row group has nothing that is wanted, as far as its statistics say; `leaf` as of [`prunable`].
    pub(super) fn misses(
        &self,
        (column, ty): (usize, &LakeType),
        row_group: &RowGroupMetaData,
        schema: &Schema,
        leaf: impl Fn(usize) -> Option<(usize, usize)>,
    ) -> bool {
        if self.empty && !self.nulls {
            return true;
        }
        let Some((statistics, file)) = statistics(column, row_group, schema, &leaf) else {
            return false;
        };
        let nulls = statistics.null_count_opt();
        if self.nulls && nulls != Some(0) {
            return false;
        }
        if self.empty || nulls == u64::try_from(row_group.num_rows()).ok() {
            return true;
        }
        let below = |max: &Key| self.least.as_ref().is_some_and(|least| max < least);
        let above = |min: &Key| self.largest.as_ref().is_some_and(|largest| min > largest);
        range(statistics, file, ty).is_some_and(|(min, max)| below(&max) || above(&min))
    }
}

/// What a row group says about a column of the scan, and the column's type in the file.
fn statistics<'a>(
    column: usize,
    row_group: &'a RowGroupMetaData,
    schema: &'a Schema,
    leaf: &impl Fn(usize) -> Option<(usize, usize)>,
) -> Option<(&'a Statistics, &'a DataType)> {
    let (leaf, root) = leaf(column)?;
    let statistics = row_group.columns().get(leaf)?.statistics()?;
    Some((statistics, schema.fields().get(root)?.data_type()))
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

    /// Whether every value in a range meets the condition. Only numbers: the smallest and the largest
    /// are values of the file, and equal ones are one value.
    fn certain(&self, min: &Key, max: &Key) -> bool {
        let number = |key: &Key| matches!(key, Key::Number(_));
        match &self.test {
            Test::In(keys) => number(min) && min == max && keys.contains(min),
            Test::Compare(_, key) if !(number(key) && number(min) && number(max)) => false,
            Test::Compare(op, key) => match op {
                CompareOp::Eq => min == key && max == key,
                CompareOp::Ne => key < min || max < key,
                CompareOp::Lt => max < key,
                CompareOp::Le => max <= key,
                CompareOp::Gt => min > key,
                CompareOp::Ge => min >= key,
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

    fn number_test(test: Test) -> Bound {
        Bound {
            column: 0,
            ty: LakeType::Int4,
            test,
        }
    }

    #[test]
    fn what_is_certain_holds_for_the_whole_range() {
        let number = |n: i128| Key::Number(n);
        for op in [
            CompareOp::Eq,
            CompareOp::Ne,
            CompareOp::Lt,
            CompareOp::Le,
            CompareOp::Gt,
            CompareOp::Ge,
        ] {
            for (key, min, max) in (0..5i128).flat_map(|key| {
                (0..5).flat_map(move |min| (min..5).map(move |max| (key, min, max)))
            }) {
                let holds = |value: i128| match op {
                    CompareOp::Eq => value == key,
                    CompareOp::Ne => value != key,
                    CompareOp::Lt => value < key,
                    CompareOp::Le => value <= key,
                    CompareOp::Gt => value > key,
                    CompareOp::Ge => value >= key,
                };
                let bound = number_test(Test::Compare(op, number(key)));
                let (all, any) = ((min..=max).all(holds), (min..=max).any(holds));
                assert_eq!(bound.certain(&number(min), &number(max)), all);
                assert!(bound.possible(&number(min), &number(max)) || !any);
            }
        }
        let either = number_test(Test::In(vec![number(1), number(2)]));
        assert!(either.certain(&number(2), &number(2)));
        assert!(!either.certain(&number(1), &number(2)));
        assert!(!either.certain(&number(3), &number(3)));
        let text = number_test(Test::Compare(CompareOp::Lt, Key::Bytes(vec![9])));
        assert!(!text.certain(&number(1), &number(2)));
    }

    #[test]
    fn big_endian_numbers_keep_their_sign() {
        assert_eq!(big_endian(&[0xFF, 0xFE]), Some(-2));
        assert_eq!(big_endian(&[0x01, 0x00]), Some(256));
        assert_eq!(big_endian(&[0; 17]), None);
    }
}
