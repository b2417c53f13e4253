//! States of `min` and `max`.

use super::aggregate::{raised, validity};
use super::error::{internal, not_exact, raise};
use super::fold::{Fold, Folded, Rows};
use super::values::{Native, from_i32, from_i64, from_i128, native};
use arrow::array::{Array, ArrayRef, BinaryArray, Float32Array, Float64Array, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::EmitTo;
use pg_lake_plan::message::WireError;
use std::fmt::Debug;
use std::sync::Arc;

/// A native value with Postgres' order: NaN is equal to itself and larger than all others.
pub(super) trait Ordered: Copy + Default + Debug + Send + Sync + 'static {
    fn less(a: Self, b: Self) -> bool;
    /// Whether they are equal and look different.
    fn differ(a: Self, b: Self) -> bool;
    fn slice(array: &dyn Array) -> Option<&[Self]>;
    fn array(
        values: Vec<Self>,
        nulls: Option<NullBuffer>,
        ty: &DataType,
    ) -> std::result::Result<ArrayRef, WireError>;
}

macro_rules! ordered {
    ($t:ty, $variant:ident, |$a:ident, $b:ident| $less:expr, $differ:path, |$v:ident, $n:ident, $ty:ident| $array:expr) => {
        impl Ordered for $t {
            #[inline]
            fn less($a: Self, $b: Self) -> bool {
                $less
            }

            #[inline]
            fn differ(a: Self, b: Self) -> bool {
                $differ(a, b)
            }

            fn slice(array: &dyn Array) -> Option<&[Self]> {
                match native(array) {
                    Some(Native::$variant(values)) => Some(values),
                    _ => None,
                }
            }

            fn array(
                $v: Vec<Self>,
                $n: Option<NullBuffer>,
                $ty: &DataType,
            ) -> std::result::Result<ArrayRef, WireError> {
                $array
            }
        }
    };
}

fn never<T>(_a: T, _b: T) -> bool {
    false
}

/// Whether they are 0 and -0.
pub(super) fn are_zeros(a: impl Into<f64>, b: impl Into<f64>) -> bool {
    let (a, b): (f64, f64) = (a.into(), b.into());
    a == b && a.is_sign_negative() != b.is_sign_negative()
}

/// Postgres gives the one that comes first, or last.
pub(super) const ZEROS: &str =
    "0 and -0 are equal, and which of them is shown depends on the order of rows";

ordered!(i32, I32, |a, b| a < b, never, |v, n, ty| Ok(from_i32(
    v, n, ty
)));
ordered!(i64, I64, |a, b| a < b, never, |v, n, ty| Ok(from_i64(
    v, n, ty
)));
ordered!(i128, I128, |a, b| a < b, never, |v, n, ty| from_i128(
    v, n, ty
));
ordered!(
    f32,
    F32,
    |a, b| a < b || (b.is_nan() && !a.is_nan()),
    are_zeros,
    |v, n, _ty| Ok(Arc::new(Float32Array::new(v.into(), n)))
);
ordered!(
    f64,
    F64,
    |a, b| a < b || (b.is_nan() && !a.is_nan()),
    are_zeros,
    |v, n, _ty| Ok(Arc::new(Float64Array::new(v.into(), n)))
);

/// What a group has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Nothing,
    Value,
    /// Equal values that look different are its best ones.
    Several,
}

/// `min` or `max` of fixed-width values.
#[derive(Debug)]
pub(super) struct Extreme<T> {
    max: bool,
    ty: DataType,
    values: Vec<T>,
    seen: Vec<Seen>,
}

impl<T: Ordered> Extreme<T> {
    pub(super) fn states(max: bool, ty: DataType) -> Fold<Self> {
        Fold(Extreme {
            max,
            ty,
            values: vec![],
            seen: vec![],
        })
    }

    fn offer(&mut self, group: usize, value: T) {
        if let (Some(best), Some(seen)) = (self.values.get_mut(group), self.seen.get_mut(group)) {
            let better = if self.max {
                T::less(*best, value)
            } else {
                T::less(value, *best)
            };
            if better || *seen == Seen::Nothing {
                *best = value;
                *seen = Seen::Value;
            } else if T::differ(*best, value) {
                *seen = Seen::Several;
            }
        }
    }
}

impl<T: Ordered> Folded for Extreme<T> {
    fn ensure(&mut self, groups: usize) {
        if self.values.len() < groups {
            self.values.resize(groups, T::default());
            self.seen.resize(groups, Seen::Nothing);
        }
    }

    fn take(&mut self, values: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        let Some(values) = T::slice(values) else {
            return Err(raise(internal("min or max of another type")));
        };
        rows.each(values, |group, value| self.offer(group, value));
        Ok(())
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let seen = emit.take_needed(&mut self.seen);
        if seen.contains(&Seen::Several) {
            return Err(raise(not_exact(ZEROS)));
        }
        let nulls = validity(seen.iter().map(|seen| *seen == Seen::Value).collect());
        raised(T::array(
            emit.take_needed(&mut self.values),
            nulls,
            &self.ty,
        ))
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<T>() + self.seen.capacity()
    }
}

/// `min` or `max` of text and bytes, byte by byte.
#[derive(Debug)]
pub(super) struct ExtremeBytes {
    max: bool,
    ty: DataType,
    values: Vec<Option<Box<[u8]>>>,
    heap: usize,
}

impl ExtremeBytes {
    pub(super) fn states(max: bool, ty: DataType) -> Fold<Self> {
        Fold(ExtremeBytes {
            max,
            ty,
            values: vec![],
            heap: 0,
        })
    }

    fn offer(&mut self, group: usize, value: &[u8]) {
        let Some(best) = self.values.get_mut(group) else {
            return;
        };
        let before = match best {
            Some(best) if self.max && value <= &best[..] => return,
            Some(best) if !self.max && value >= &best[..] => return,
            Some(best) => best.len(),
            None => 0,
        };
        self.heap = (self.heap + value.len()).saturating_sub(before);
        *best = Some(value.into());
    }

    fn offer_all<'a>(&mut self, rows: Rows<'_>, value: impl Fn(usize) -> &'a [u8]) {
        for (row, &group) in rows.groups.iter().enumerate() {
            if rows.taken.is_none_or(|taken| taken.value(row)) {
                self.offer(group, value(row));
            }
        }
    }
}

impl Folded for ExtremeBytes {
    fn ensure(&mut self, groups: usize) {
        if self.values.len() < groups {
            self.values.resize(groups, None);
        }
    }

    fn take(&mut self, values: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        if let Some(text) = values.as_any().downcast_ref::<StringArray>() {
            self.offer_all(rows, |row| text.value(row).as_bytes());
        } else if let Some(bytes) = values.as_any().downcast_ref::<BinaryArray>() {
            self.offer_all(rows, |row| bytes.value(row));
        } else {
            return Err(raise(internal("min or max of another type")));
        }
        Ok(())
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let values = emit.take_needed(&mut self.values);
        let emitted: usize = values.iter().flatten().map(|v| v.len()).sum();
        self.heap = self.heap.saturating_sub(emitted);
        if self.ty != DataType::Utf8 {
            return Ok(Arc::new(
                values.iter().map(Option::as_deref).collect::<BinaryArray>(),
            ));
        }
        let text = values
            .iter()
            .map(|v| v.as_deref().map(std::str::from_utf8).transpose())
            .collect::<std::result::Result<StringArray, _>>()
            .map_err(|_| raise(internal("text isn't UTF-8")))?;
        Ok(Arc::new(text))
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<Option<Box<[u8]>>>() + self.heap
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::wire;
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Float64Type;
    use datafusion_expr::GroupsAccumulator;
    use pg_lake_plan::message::ErrorCode;

    fn smallest(values: Vec<f64>) -> Result<Vec<Option<f64>>> {
        let groups = vec![0; values.len()];
        let values: ArrayRef = Arc::new(Float64Array::from(values));
        let mut states = Extreme::<f64>::states(false, DataType::Float64);
        states.update_batch(&[values], &groups, None, 1)?;
        let result = states.evaluate(EmitTo::All)?;
        Ok(result.as_primitive::<Float64Type>().iter().collect())
    }

    #[test]
    fn zeros_of_both_signs_are_not_exact() {
        let error = smallest(vec![0.0, 1.0, -0.0]).expect_err("two zeros");
        assert_eq!(wire(&error).code, ErrorCode::NotExact);
        let below = smallest(vec![0.0, -0.0, -1.0, f64::NAN]).expect("a value");
        assert_eq!(below, [Some(-1.0)]);
        let zero = smallest(vec![-0.0, 2.0, -0.0]).expect("a value");
        assert!(zero[0].is_some_and(|zero| zero == 0.0 && zero.is_sign_negative()));
    }

    #[test]
    fn nan_is_the_largest() {
        let nan = smallest(vec![f64::NAN, f64::INFINITY]).expect("a value");
        assert_eq!(nan, [Some(f64::INFINITY)]);
        let nan = smallest(vec![f64::NAN]).expect("a value");
        assert!(nan[0].is_some_and(f64::is_nan));
    }
}
