//! Row groups and pages whose statistics show that no row passes the predicate, or that every row does.
//!
//! What either says becomes an [`Extent`], which conditions are compared with. Only conjuncts before
//! the first one that can raise an error are used: a row that is not read can't raise what Postgres
//! would have raised. Floats are left alone (NaN, −0.0).

use crate::arrow_types::arrow_type;
use arrow::datatypes::{DataType, Schema};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::page_index::column_index::{ByteArrayColumnIndex, ColumnIndexMetaData};
use parquet::file::statistics::Statistics;
use pg_lake_plan::ir::{CompareOp, Expr, ExprKind};
use pg_lake_plan::types::{LakeType, Value};

/// A condition on one column of the scan.
#[derive(Debug)]
pub(super) struct Bound {
    /// Index into the scan's columns.
    pub(super) column: usize,
    pub(super) ty: LakeType,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Compare(CompareOp, Key),
    /// Ascending: each of many pages is compared with them.
    In(Vec<Key>),
}

/// A value in an order that Postgres and Parquet agree on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Number(i128),
    Bytes(Vec<u8>),
}

/// What a scan's quals say about single columns.
pub(super) fn bounds<'a>(
    quals: impl IntoIterator<Item = &'a Expr>,
    params: &[Option<Value>],
) -> Vec<Bound> {
    let mut bounds = vec![];
    for qual in quals {
        collect(qual, params, &mut bounds);
        if qual.can_fail() {
            break;
        }
    }
    bounds
}

fn collect(expr: &Expr, params: &[Option<Value>], bounds: &mut Vec<Bound>) {
    match &expr.kind {
        // Unlike a qual, an argument that is null doesn't keep the next one from raising an error.
        ExprKind::And(_) if expr.can_fail() => {}
        ExprKind::And(args) => args.iter().for_each(|arg| collect(arg, params, bounds)),
        _ => bounds.extend(condition(expr, params)),
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
            let mut keys = keys?;
            keys.sort_unstable();
            Some(Bound {
                column: *i as usize,
                ty: ty.clone(),
                test: Test::In(keys),
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
        (_, _, Value::Bytes(v)) => Key::Bytes(v.clone()),
        (_, _, Value::Uuid(v)) => Key::Bytes(v.to_vec()),
        _ => return None,
    })
}

/// What is known of a column in a row group or a page.
#[derive(Debug)]
pub(super) struct Extent {
    rows: u64,
    nulls: Option<u64>,
    /// Smallest and largest value (text: bounds of them), where the file's order is ours.
    range: Option<(Key, Key)>,
}

impl Extent {
    fn has_only_nulls(&self) -> bool {
        self.nulls == Some(self.rows)
    }

    /// Of a page with so many rows; `file` is the column's type in the file, `ty` the one in the scan.
    pub(super) fn of_page(
        index: &ColumnIndexMetaData,
        page: usize,
        rows: u64,
        (file, ty): (&DataType, &LakeType),
    ) -> Extent {
        let nulls = index.null_counts().and_then(|counts| counts.get(page));
        let nulls = nulls.and_then(|nulls| u64::try_from(*nulls).ok());
        match page_ends(index, page) {
            PageEnds::Unknown => Extent {
                rows,
                nulls,
                range: None,
            },
            PageEnds::Nulls => Extent {
                rows,
                nulls: Some(rows),
                range: None,
            },
            PageEnds::Known(ends) => Extent {
                rows,
                nulls,
                range: range(ends, file, ty),
            },
        }
    }
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
        let extent = extent((bound.column, &bound.ty), row_group, schema, &leaf);
        extent.is_some_and(|extent| bound.excludes(&extent))
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
        let Some(extent) = extent((bound.column, &bound.ty), row_group, schema, &leaf) else {
            return false;
        };
        // A condition on a null is not met.
        extent.nulls == Some(0)
            && extent
                .range
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
        self.wants_nothing()
            || extent((column, ty), row_group, schema, &leaf)
                .is_some_and(|extent| self.excludes(&extent))
    }

    pub(super) fn wants_nothing(&self) -> bool {
        self.empty && !self.nulls
    }

    /// Whether none of what is wanted is there.
    pub(super) fn excludes(&self, extent: &Extent) -> bool {
        if self.wants_nothing() {
            return true;
        }
        if self.nulls && extent.nulls != Some(0) {
            return false;
        }
        if self.empty || extent.has_only_nulls() {
            return true;
        }
        let below = |max: &Key| self.least.as_ref().is_some_and(|least| max < least);
        let above = |min: &Key| self.largest.as_ref().is_some_and(|largest| min > largest);
        let range = extent.range.as_ref();
        range.is_some_and(|(min, max)| below(max) || above(min))
    }
}

/// What a row group says about a column of the scan; `None` if the column isn't there or says nothing.
fn extent(
    (column, ty): (usize, &LakeType),
    row_group: &RowGroupMetaData,
    schema: &Schema,
    leaf: &impl Fn(usize) -> Option<(usize, usize)>,
) -> Option<Extent> {
    let (leaf, root) = leaf(column)?;
    let statistics = row_group.columns().get(leaf)?.statistics()?;
    let file = schema.fields().get(root)?.data_type();
    Some(Extent {
        rows: u64::try_from(row_group.num_rows()).ok()?,
        nulls: statistics.null_count_opt(),
        range: ends(statistics).and_then(|ends| range(ends, file, ty)),
    })
}

impl Bound {
    /// Whether no row meets the condition.
    pub(super) fn excludes(&self, extent: &Extent) -> bool {
        extent.has_only_nulls()
            || extent
                .range
                .as_ref()
                .is_some_and(|(min, max)| !self.possible(min, max))
    }

    /// The values of which a row must have one, ascending; `None` if the condition is another one.
    pub(super) fn values(&self) -> Option<&[Key]> {
        match &self.test {
            Test::In(keys) => Some(keys),
            Test::Compare(CompareOp::Eq, key) => Some(std::slice::from_ref(key)),
            Test::Compare(..) => None,
        }
    }

    fn possible(&self, min: &Key, max: &Key) -> bool {
        match &self.test {
            Test::In(keys) => {
                let first = keys.partition_point(|key| key < min);
                keys.get(first).is_some_and(|key| key <= max)
            }
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

/// The smallest and the largest value in the form in which the file has them.
enum Ends<'a> {
    Number(i128, i128),
    Fixed(&'a [u8], &'a [u8]),
    Bytes(&'a [u8], &'a [u8]),
}

fn ends(statistics: &Statistics) -> Option<Ends<'_>> {
    Some(match statistics {
        Statistics::Int32(s) => Ends::Number((*s.min_opt()?).into(), (*s.max_opt()?).into()),
        Statistics::Int64(s) => Ends::Number((*s.min_opt()?).into(), (*s.max_opt()?).into()),
        // The deprecated statistics of byte arrays were compared as signed bytes.
        _ if statistics.is_min_max_deprecated() => return None,
        Statistics::FixedLenByteArray(_) => {
            Ends::Fixed(statistics.min_bytes_opt()?, statistics.max_bytes_opt()?)
        }
        Statistics::ByteArray(_) => {
            Ends::Bytes(statistics.min_bytes_opt()?, statistics.max_bytes_opt()?)
        }
        _ => return None,
    })
}

/// Of how many pages an index knows.
pub(super) fn page_count(index: &ColumnIndexMetaData) -> usize {
    match index {
        ColumnIndexMetaData::NONE => 0,
        index => usize::try_from(index.num_pages()).unwrap_or(usize::MAX),
    }
}

/// What the index of a column's pages says about one.
enum PageEnds<'a> {
    Unknown,
    Nulls,
    Known(Ends<'a>),
}

fn page_ends(index: &ColumnIndexMetaData, page: usize) -> PageEnds<'_> {
    fn bytes<'a>(
        index: &'a ByteArrayColumnIndex,
        page: usize,
        ends: impl Fn(&'a [u8], &'a [u8]) -> Ends<'a>,
    ) -> PageEnds<'a> {
        match (index.min_value(page), index.max_value(page)) {
            (Some(min), Some(max)) => PageEnds::Known(ends(min, max)),
            _ => PageEnds::Nulls,
        }
    }
    fn number<T: Copy + Into<i128>>(min: Option<&T>, max: Option<&T>) -> PageEnds<'static> {
        match (min, max) {
            (Some(min), Some(max)) => PageEnds::Known(Ends::Number((*min).into(), (*max).into())),
            _ => PageEnds::Nulls,
        }
    }
    match index {
        _ if page >= page_count(index) => PageEnds::Unknown,
        ColumnIndexMetaData::INT32(index) => number(index.min_value(page), index.max_value(page)),
        ColumnIndexMetaData::INT64(index) => number(index.min_value(page), index.max_value(page)),
        ColumnIndexMetaData::FIXED_LEN_BYTE_ARRAY(index) => bytes(index, page, Ends::Fixed),
        ColumnIndexMetaData::BYTE_ARRAY(index) => bytes(index, page, Ends::Bytes),
        index if index.is_null_page(page) => PageEnds::Nulls,
        _ => PageEnds::Unknown,
    }
}

/// Whether values of a column that a file has as one type, and the scan as another one, are compared as they are.
pub(super) fn is_comparable(file: &DataType, ty: &LakeType) -> bool {
    match (file, ty) {
        (DataType::Int32, LakeType::Int8) => true,
        (DataType::Decimal128(_, had), LakeType::Decimal { scale, .. }) => had == scale,
        _ => *file == arrow_type(ty),
    }
}

/// Smallest and largest value (text and bytes: bounds of them), where the file's order is ours.
fn range(ends: Ends<'_>, file: &DataType, ty: &LakeType) -> Option<(Key, Key)> {
    if !is_comparable(file, ty) {
        return None;
    }
    match ends {
        Ends::Number(min, max) => Some((Key::Number(min), Key::Number(max))),
        Ends::Fixed(min, max) if ty.is_decimal() => {
            Some((Key::Number(big_endian(min)?), Key::Number(big_endian(max)?)))
        }
        Ends::Bytes(min, max) if matches!(ty, LakeType::Text | LakeType::Bytes) => {
            Some((Key::Bytes(min.to_vec()), Key::Bytes(max.to_vec())))
        }
        Ends::Fixed(min, max) if *ty == LakeType::Uuid => {
            Some((Key::Bytes(min.to_vec()), Key::Bytes(max.to_vec())))
        }
        Ends::Fixed(..) | Ends::Bytes(..) => None,
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
#[path = "prune_tests.rs"]
mod tests;
