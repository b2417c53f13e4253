//! States of what Postgres computes of floats in one pass: averages, variances, covariances and regression.
//!
//! A state has the numbers of Postgres' own one (`float8_accum` and `float8_regr_accum` in `float.c`: the algorithm of Youngs
//! and Cramer), and the result is the state: Postgres' final functions do the rest. Partial states meet as they do
//! in Postgres' parallel aggregation.

use super::error::{internal, not_exact, out_of_range, raise};
use super::fold::{Fold, Folded, Rows};
use super::functions::pairs;
use super::values::{Native, native};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion_common::Result;
use datafusion_expr::EmitTo;
use std::fmt::Debug;
use std::sync::Arc;

/// The error of finite values whose result isn't (`float_overflow_error`).
pub(super) const OVERFLOW: &str = "value out of range: overflow";

/// The state of one group. Where finite values have a result that isn't finite there is none.
pub(super) trait Moments: Copy + Default + Debug + Send + Sync + 'static {
    type Value: Copy;

    const PARTS: usize;

    /// A value for each row, anything where it is null.
    fn values(array: &ArrayRef) -> Result<Vec<Self::Value>>;

    fn with(self, value: Self::Value) -> Option<Self>;

    fn merged(self, other: Self) -> Option<Self>;

    /// How many values there are, first.
    fn parts(&self) -> &[f64];

    fn of(parts: &[f64]) -> Option<Self>;
}

/// N, the sum, and the sum of the squares of the distances from the mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct OfValues([f64; 3]);

impl Moments for OfValues {
    type Value = f64;

    const PARTS: usize = 3;

    fn values(array: &ArrayRef) -> Result<Vec<f64>> {
        match native(array) {
            Some(Native::F32(values)) => Ok(values.iter().map(|&value| value.into()).collect()),
            Some(Native::F64(values)) => Ok(values.to_vec()),
            _ => Err(raise(internal("moments of another type"))),
        }
    }

    /// `float8_accum`
    fn with(self, value: f64) -> Option<Self> {
        let OfValues([count, sum, mut squares]) = self;
        let (n, next) = (count + 1.0, sum + value);
        if count > 0.0 {
            let distance = value * n - next;
            squares += distance * distance / (n * count);
            if next.is_infinite() || squares.is_infinite() {
                if !sum.is_infinite() && !value.is_infinite() {
                    return None;
                }
                squares = f64::NAN;
            }
        } else if !value.is_finite() {
            squares = f64::NAN;
        }
        Some(OfValues([n, next, squares]))
    }

    /// `float8_combine`
    fn merged(self, other: Self) -> Option<Self> {
        let (OfValues([n1, sum1, squares1]), OfValues([n2, sum2, squares2])) = (self, other);
        if n1 == 0.0 {
            return Some(other);
        }
        if n2 == 0.0 {
            return Some(self);
        }
        let n = n1 + n2;
        let distance = sum1 / n1 - sum2 / n2;
        let squares = squares1 + squares2 + n1 * n2 * distance * distance / n;
        let squares = finite_of(squares, squares1, squares2)?;
        Some(OfValues([n, finite_of(sum1 + sum2, sum1, sum2)?, squares]))
    }

    fn parts(&self) -> &[f64] {
        &self.0
    }

    fn of(parts: &[f64]) -> Option<Self> {
        parts.try_into().ok().map(OfValues)
    }
}

/// N; of x, then of y: the sum, and the sum of the squares of the distances from the mean; the sum of the products of
/// both distances.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct OfPairs([f64; 6]);

impl Moments for OfPairs {
    /// y and x, as SQL has them.
    type Value = [f64; 2];

    const PARTS: usize = 6;

    fn values(array: &ArrayRef) -> Result<Vec<[f64; 2]>> {
        pairs::read(array).map_err(raise)
    }

    /// `float8_regr_accum`
    fn with(self, [y, x]: [f64; 2]) -> Option<Self> {
        let OfPairs([count, sum_x, mut xx, sum_y, mut yy, mut xy]) = self;
        let (n, next_x, next_y) = (count + 1.0, sum_x + x, sum_y + y);
        if count > 0.0 {
            let (from_x, from_y) = (x * n - next_x, y * n - next_y);
            let scale = 1.0 / (n * count);
            xx += from_x * from_x * scale;
            yy += from_y * from_y * scale;
            xy += from_x * from_y * scale;
            let finite_x = !sum_x.is_infinite() && !x.is_infinite();
            let finite_y = !sum_y.is_infinite() && !y.is_infinite();
            let over_x = (next_x.is_infinite() || xx.is_infinite()) && finite_x;
            let over_y = (next_y.is_infinite() || yy.is_infinite()) && finite_y;
            if over_x || over_y || (xy.is_infinite() && finite_x && finite_y) {
                return None;
            }
            for part in [&mut xx, &mut yy, &mut xy] {
                if part.is_infinite() {
                    *part = f64::NAN;
                }
            }
        } else {
            if !x.is_finite() {
                (xx, xy) = (f64::NAN, f64::NAN);
            }
            if !y.is_finite() {
                (yy, xy) = (f64::NAN, f64::NAN);
            }
        }
        Some(OfPairs([n, next_x, xx, next_y, yy, xy]))
    }

    /// `float8_regr_combine`
    fn merged(self, other: Self) -> Option<Self> {
        let OfPairs([n1, sum_x1, xx1, sum_y1, yy1, xy1]) = self;
        let OfPairs([n2, sum_x2, xx2, sum_y2, yy2, xy2]) = other;
        if n1 == 0.0 {
            return Some(other);
        }
        if n2 == 0.0 {
            return Some(self);
        }
        let n = n1 + n2;
        let x = sum_x1 / n1 - sum_x2 / n2;
        let y = sum_y1 / n1 - sum_y2 / n2;
        let xx = xx1 + xx2 + n1 * n2 * x * x / n;
        let yy = yy1 + yy2 + n1 * n2 * y * y / n;
        let xy = xy1 + xy2 + n1 * n2 * x * y / n;
        Some(OfPairs([
            n,
            finite_of(sum_x1 + sum_x2, sum_x1, sum_x2)?,
            finite_of(xx, xx1, xx2)?,
            finite_of(sum_y1 + sum_y2, sum_y1, sum_y2)?,
            finite_of(yy, yy1, yy2)?,
            finite_of(xy, xy1, xy2)?,
        ]))
    }

    fn parts(&self) -> &[f64] {
        &self.0
    }

    fn of(parts: &[f64]) -> Option<Self> {
        parts.try_into().ok().map(OfPairs)
    }
}

/// None if it became infinite.
fn finite_of(result: f64, left: f64, right: f64) -> Option<f64> {
    let overflow = result.is_infinite() && !left.is_infinite() && !right.is_infinite();
    (!overflow).then_some(result)
}

/// The states of all groups.
#[derive(Debug)]
pub(super) struct AllMoments<T> {
    /// An element of a state on its way.
    element: FieldRef,
    states: Vec<T>,
}

impl<T: Moments> AllMoments<T> {
    /// `ty`: the list that is state and result.
    pub(super) fn states(ty: &DataType) -> Fold<Self> {
        Fold(AllMoments {
            element: element_of(ty),
            states: vec![],
        })
    }

    fn change<V: Copy>(
        &mut self,
        values: &[V],
        rows: Rows<'_>,
        f: impl Fn(T, V) -> Option<T>,
    ) -> Result<()> {
        let mut overflow = false;
        rows.each(values, |group, value| {
            if let Some(state) = self.states.get_mut(group) {
                match f(*state, value) {
                    Some(next) => *state = next,
                    None => overflow = true,
                }
            }
        });
        if overflow {
            return Err(raise(out_of_range(OVERFLOW)));
        }
        Ok(())
    }
}

/// What the elements of states are, of which the lists have this type.
pub(super) fn element_of(ty: &DataType) -> FieldRef {
    match ty {
        DataType::List(element) => element.clone(),
        _ => Arc::new(Field::new("element", DataType::Float64, true)),
    }
}

/// Each state as a list; null for one without values.
pub(super) fn lists<T: Moments>(element: &FieldRef, states: &[T]) -> Result<ArrayRef> {
    if states.len() > i32::MAX as usize / T::PARTS {
        return Err(raise(not_exact("there are too many groups for the engine")));
    }
    let filled = |state: &T| state.parts().first().is_some_and(|count| *count > 0.0);
    let lengths = states
        .iter()
        .map(|state| if filled(state) { T::PARTS } else { 0 });
    let offsets = OffsetBuffer::from_lengths(lengths);
    let valid: Vec<bool> = states.iter().map(filled).collect();
    let parts: Vec<f64> = states
        .iter()
        .filter(|state| filled(state))
        .flat_map(|state| state.parts().iter().copied())
        .collect();
    let lists = ListArray::try_new(
        element.clone(),
        offsets,
        Arc::new(Float64Array::from(parts)),
        Some(NullBuffer::from(valid)),
    )?;
    Ok(Arc::new(lists))
}

/// The state in each row, that of no values where it is null.
fn read<T: Moments>(array: &ArrayRef) -> Result<Vec<T>> {
    let malformed = || raise(internal("a state of another type"));
    let lists = array.as_list_opt::<i32>().ok_or_else(malformed)?;
    let parts = lists.values().as_primitive_opt::<Float64Type>();
    let parts: &[f64] = parts.ok_or_else(malformed)?.values();
    let mut states = Vec::with_capacity(lists.len());
    for (row, ends) in lists.offsets().windows(2).enumerate() {
        if lists.is_null(row) {
            states.push(T::default());
            continue;
        }
        let &[start, end] = ends else {
            return Err(malformed());
        };
        let state = parts.get(start as usize..end as usize).and_then(T::of);
        states.push(state.ok_or_else(malformed)?);
    }
    Ok(states)
}

impl<T: Moments> Folded for AllMoments<T> {
    fn ensure(&mut self, groups: usize) {
        if self.states.len() < groups {
            self.states.resize(groups, T::default());
        }
    }

    fn take(&mut self, values: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        self.change(&T::values(values)?, rows, T::with)
    }

    fn merge(&mut self, states: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        self.change(&read::<T>(states)?, rows, T::merged)
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let states = emit.take_needed(&mut self.states);
        lists(&self.element, &states)
    }

    fn alone(&self, values: &ArrayRef, filter: Option<&BooleanArray>) -> Result<ArrayRef> {
        let mut single = AllMoments {
            element: self.element.clone(),
            states: vec![T::default(); values.len()],
        };
        let groups: Vec<usize> = (0..values.len()).collect();
        let taken = self.rows(values, filter);
        let rows = Rows {
            groups: &groups,
            taken: taken.as_ref(),
        };
        single.take(values, rows)?;
        single.results(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.states.capacity() * size_of::<T>()
    }
}

#[cfg(test)]
#[path = "moments_tests.rs"]
mod tests;
