//! States of `count` and `sum`, also of squares.

use super::aggregate::{raised, taken};
use super::arith::TOO_LARGE;
use super::error::{internal, not_exact, out_of_range, raise};
use super::fold::{Fold, Folded, Rows, Slots};
use super::moments::OVERFLOW;
use super::values::{Native, from_i64, from_i128, native};
use arrow::array::{Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::EmitTo;
use std::sync::Arc;

/// `count(arg)`, `count(*)`
#[derive(Debug)]
pub(super) struct Count {
    star: bool,
    counts: Vec<i64>,
}

impl Count {
    pub(super) fn states(star: bool) -> Fold<Self> {
        Fold(Count {
            star,
            counts: vec![],
        })
    }
}

impl Folded for Count {
    fn ensure(&mut self, groups: usize) {
        if self.counts.len() < groups {
            self.counts.resize(groups, 0);
        }
    }

    fn rows(&self, values: &ArrayRef, filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
        match self.star {
            true => taken(None, filter),
            false => taken(values.logical_nulls().as_ref(), filter),
        }
    }

    fn take(&mut self, _values: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        match (rows.taken, self.counts.as_mut_slice()) {
            (None, [one]) => *one += rows.groups.len() as i64,
            (Some(taken), [one]) => *one += taken.count_set_bits() as i64,
            (_, counts) => rows.each(rows.groups, |g, _| {
                if let Some(count) = counts.get_mut(g) {
                    *count += 1;
                }
            }),
        }
        Ok(())
    }

    fn merge(&mut self, states: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        let Some(Native::I64(counts)) = native(states) else {
            return Err(raise(internal("a state of another type")));
        };
        rows.each(counts, |g, v| {
            if let Some(count) = self.counts.get_mut(g) {
                *count += v;
            }
        });
        Ok(())
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let counts = emit.take_needed(&mut self.counts);
        Ok(Arc::new(Int64Array::from(counts)))
    }

    fn alone(&self, values: &ArrayRef, filter: Option<&BooleanArray>) -> Result<ArrayRef> {
        let counts: Vec<i64> = match self.rows(values, filter) {
            None => vec![1; values.len()],
            Some(rows) => rows.iter().map(i64::from).collect(),
        };
        Ok(Arc::new(Int64Array::from(counts)))
    }

    fn size(&self) -> usize {
        self.counts.capacity() * size_of::<i64>()
    }
}

/// `sum` of integers and decimals, or of their squares, in 128 bits.
#[derive(Debug)]
pub(super) struct SumExact {
    state: DataType,
    result: DataType,
    /// Squares are added up: what is not exact in 128 bits is an error.
    squares: bool,
    sums: Slots<i128>,
}

impl SumExact {
    pub(super) fn states(state: DataType, result: DataType) -> Fold<Self> {
        Fold(SumExact {
            state,
            result,
            squares: false,
            sums: Slots::default(),
        })
    }

    pub(super) fn of_squares(state: DataType, result: DataType) -> Fold<Self> {
        let Fold(sums) = SumExact::states(state, result);
        Fold(SumExact {
            squares: true,
            ..sums
        })
    }

    fn add<T: Copy + Into<i128>>(&mut self, values: &[T], rows: Rows<'_>) -> Result<()> {
        let mut overflow = false;
        let Slots { values: sums, seen } = &mut self.sums;
        match (rows.taken, sums.as_mut_slice(), seen.as_mut_slice()) {
            (None, [sum], [seen]) => {
                for &v in values {
                    let (next, over) = sum.overflowing_add(v.into());
                    *sum = next;
                    overflow |= over;
                }
                *seen |= !values.is_empty();
            }
            (_, sums, seen) => rows.each(values, |g, v| {
                if let (Some(sum), Some(seen)) = (sums.get_mut(g), seen.get_mut(g)) {
                    let (next, over) = sum.overflowing_add(v.into());
                    *sum = next;
                    *seen = true;
                    overflow |= over;
                }
            }),
        }
        if overflow {
            return Err(raise(not_exact(TOO_LARGE)));
        }
        Ok(())
    }
}

impl Folded for SumExact {
    fn ensure(&mut self, groups: usize) {
        self.sums.ensure(groups, 0);
    }

    fn take(&mut self, values: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        match self.squares {
            true => self.add(&squares(values, rows.taken)?, rows),
            false => self.merge(values, rows),
        }
    }

    fn merge(&mut self, states: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        match native(states) {
            Some(Native::I32(values)) => self.add(values, rows),
            Some(Native::I64(values)) => self.add(values, rows),
            Some(Native::I128(values)) => self.add(values, rows),
            _ => Err(raise(internal("a sum of another type"))),
        }
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (sums, nulls) = self.sums.take(&emit);
        if self.result != DataType::Int64 {
            return raised(from_i128(sums, nulls, &self.result));
        }
        let narrow: std::result::Result<Vec<i64>, _> =
            sums.into_iter().map(i64::try_from).collect();
        match narrow {
            Ok(sums) => Ok(from_i64(sums, nulls, &self.result)),
            Err(_) => Err(raise(out_of_range("bigint out of range"))),
        }
    }

    fn state(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (sums, nulls) = self.sums.take(&emit);
        raised(from_i128(sums, nulls, &self.state))
    }

    fn alone(&self, values: &ArrayRef, filter: Option<&BooleanArray>) -> Result<ArrayRef> {
        let rows = self.rows(values, filter);
        let sums: Vec<i128> = match native(values) {
            _ if self.squares => squares(values, rows.as_ref())?,
            Some(Native::I32(values)) => values.iter().map(|&v| v.into()).collect(),
            Some(Native::I64(values)) => values.iter().map(|&v| v.into()).collect(),
            Some(Native::I128(values)) => values.to_vec(),
            _ => return Err(raise(internal("a sum of another type"))),
        };
        raised(from_i128(sums, rows.map(NullBuffer::new), &self.state))
    }

    fn size(&self) -> usize {
        self.sums.size()
    }
}

/// The square of each row that is taken, anything for the others.
fn squares(array: &ArrayRef, rows: Option<&BooleanBuffer>) -> Result<Vec<i128>> {
    match native(array) {
        Some(Native::I32(values)) => squares_of(values, rows),
        Some(Native::I64(values)) => squares_of(values, rows),
        Some(Native::I128(values)) => squares_of(values, rows),
        _ => Err(raise(internal("squares of another type"))),
    }
}

fn squares_of<T: Copy + Into<i128>>(
    values: &[T],
    rows: Option<&BooleanBuffer>,
) -> Result<Vec<i128>> {
    let mut squares = Vec::with_capacity(values.len());
    for (row, &value) in values.iter().enumerate() {
        let value: i128 = value.into();
        squares.push(match value.checked_mul(value) {
            Some(square) => square,
            None if rows.is_some_and(|rows| !rows.value(row)) => 0,
            None => return Err(raise(not_exact(TOO_LARGE))),
        });
    }
    Ok(squares)
}

/// A sum of finite values may be too large (`float8_pl`, `float4_pl` in single precision).
#[inline]
pub(super) fn float_sum(sum: f64, value: f64, single: bool) -> (f64, bool) {
    let next = match single {
        true => f64::from(sum as f32 + value as f32),
        false => sum + value,
    };
    let over = next.is_infinite() & !sum.is_infinite() & !value.is_infinite();
    (next, over)
}

/// `sum` of floats, in the precision of its result.
#[derive(Debug)]
pub(super) struct SumFloat {
    /// Single precision: each sum is that of a `Float4`.
    single: bool,
    sums: Slots<f64>,
}

impl SumFloat {
    pub(super) fn states(single: bool) -> Fold<Self> {
        Fold(SumFloat {
            single,
            sums: Slots::default(),
        })
    }

    fn array(&self, sums: Vec<f64>, nulls: Option<NullBuffer>) -> ArrayRef {
        if self.single {
            let sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
            Arc::new(Float32Array::new(sums.into(), nulls))
        } else {
            Arc::new(Float64Array::new(sums.into(), nulls))
        }
    }

    fn add<T: Copy + Into<f64>>(&mut self, values: &[T], rows: Rows<'_>) -> Result<()> {
        let mut overflow = false;
        let single = self.single;
        let Slots { values: sums, seen } = &mut self.sums;
        rows.each(values, |g, v| {
            if let (Some(sum), Some(seen)) = (sums.get_mut(g), seen.get_mut(g)) {
                let (next, over) = float_sum(*sum, v.into(), single);
                overflow |= over;
                *sum = next;
                *seen = true;
            }
        });
        if overflow {
            return Err(raise(out_of_range(OVERFLOW)));
        }
        Ok(())
    }
}

impl Folded for SumFloat {
    fn ensure(&mut self, groups: usize) {
        // As in Postgres, whose first sum is the first value, that of `-0` alone is `-0`.
        self.sums.ensure(groups, -0.0);
    }

    fn take(&mut self, values: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        match native(values) {
            Some(Native::F32(values)) => self.add(values, rows),
            Some(Native::F64(values)) => self.add(values, rows),
            _ => Err(raise(internal("a sum of another type"))),
        }
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (sums, nulls) = self.sums.take(&emit);
        Ok(self.array(sums, nulls))
    }

    fn alone(&self, values: &ArrayRef, filter: Option<&BooleanArray>) -> Result<ArrayRef> {
        let sums: Vec<f64> = match native(values) {
            Some(Native::F32(values)) => values.iter().map(|&v| v.into()).collect(),
            Some(Native::F64(values)) => values.to_vec(),
            _ => return Err(raise(internal("a sum of another type"))),
        };
        let nulls = self.rows(values, filter).map(NullBuffer::new);
        Ok(self.array(sums, nulls))
    }

    fn size(&self) -> usize {
        self.sums.size()
    }
}

#[cfg(test)]
#[path = "sums_tests.rs"]
mod tests;
