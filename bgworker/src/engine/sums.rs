//! States of `count` and `sum`, also of squares.

use super::aggregate::{States, only, raised, taken, validity};
use super::arith::TOO_LARGE;
use super::error::{internal, not_exact, out_of_range, raise};
use super::values::{Native, from_i64, from_i128, native};
use arrow::array::{Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use std::sync::Arc;

/// Calls `f` with group and value of each row that is taken.
pub(super) fn each<T: Copy>(
    groups: &[usize],
    values: &[T],
    rows: Option<&BooleanBuffer>,
    mut f: impl FnMut(usize, T),
) {
    match rows {
        None => groups.iter().zip(values).for_each(|(&g, &v)| f(g, v)),
        Some(rows) => {
            for row in rows.set_indices() {
                if let (Some(&g), Some(&v)) = (groups.get(row), values.get(row)) {
                    f(g, v);
                }
            }
        }
    }
}

/// `count(arg)`, `count(*)`
#[derive(Debug)]
pub(super) struct Count {
    star: bool,
    counts: Vec<i64>,
}

impl Count {
    pub(super) fn new(star: bool) -> Self {
        Count {
            star,
            counts: vec![],
        }
    }

    fn rows(&self, array: &ArrayRef, filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
        if self.star {
            taken(None, filter)
        } else {
            taken(array.logical_nulls().as_ref(), filter)
        }
    }
}

impl States for Count {
    fn ensure(&mut self, groups: usize) {
        if self.counts.len() < groups {
            self.counts.resize(groups, 0);
        }
    }
}

impl GroupsAccumulator for Count {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.ensure(total);
        let rows = self.rows(only(values)?, filter);
        let counts = &mut self.counts;
        match (rows, counts.as_mut_slice()) {
            (None, [one]) => *one += groups.len() as i64,
            (Some(rows), [one]) => *one += rows.count_set_bits() as i64,
            (rows, counts) => each(groups, groups, rows.as_ref(), |g, _| {
                if let Some(count) = counts.get_mut(g) {
                    *count += 1;
                }
            }),
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.ensure(total);
        let array = only(values)?;
        let Some(Native::I64(values)) = native(array) else {
            return Err(raise(internal("a state of another type")));
        };
        let rows = taken(array.nulls(), filter);
        each(groups, values, rows.as_ref(), |g, v| {
            if let Some(count) = self.counts.get_mut(g) {
                *count += v;
            }
        });
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(
            emit.take_needed(&mut self.counts),
        )))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit)?])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let array = only(values)?;
        let counts: Vec<i64> = match self.rows(array, filter) {
            None => vec![1; array.len()],
            Some(rows) => rows.iter().map(i64::from).collect(),
        };
        Ok(vec![Arc::new(Int64Array::from(counts))])
    }

    fn supports_convert_to_state(&self) -> bool {
        true
    }

    fn size(&self) -> usize {
        self.counts.capacity() * size_of::<i64>()
    }
}

/// `sum` of integers and decimals, in 128 bits.
#[derive(Debug)]
pub(super) struct SumExact {
    state: DataType,
    result: DataType,
    sums: Vec<i128>,
    seen: Vec<bool>,
}

impl SumExact {
    pub(super) fn new(state: DataType, result: DataType) -> Self {
        SumExact {
            state,
            result,
            sums: vec![],
            seen: vec![],
        }
    }

    fn add<T: Copy + Into<i128>>(
        &mut self,
        groups: &[usize],
        values: &[T],
        rows: Option<&BooleanBuffer>,
    ) -> Result<()> {
        let mut overflow = false;
        match (rows, self.sums.as_mut_slice(), self.seen.as_mut_slice()) {
            (None, [sum], [seen]) => {
                for &v in values {
                    let (next, over) = sum.overflowing_add(v.into());
                    *sum = next;
                    overflow |= over;
                }
                *seen |= !values.is_empty();
            }
            (rows, sums, seen) => each(groups, values, rows, |g, v| {
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

    fn take(&mut self, emit: &EmitTo) -> (Vec<i128>, Option<NullBuffer>) {
        let seen = emit.take_needed(&mut self.seen);
        (emit.take_needed(&mut self.sums), validity(seen))
    }
}

impl States for SumExact {
    fn ensure(&mut self, groups: usize) {
        if self.sums.len() < groups {
            self.sums.resize(groups, 0);
            self.seen.resize(groups, false);
        }
    }
}

impl GroupsAccumulator for SumExact {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.ensure(total);
        let array = only(values)?;
        let rows = taken(array.nulls(), filter);
        match native(array) {
            Some(Native::I32(values)) => self.add(groups, values, rows.as_ref()),
            Some(Native::I64(values)) => self.add(groups, values, rows.as_ref()),
            Some(Native::I128(values)) => self.add(groups, values, rows.as_ref()),
            _ => Err(raise(internal("a sum of another type"))),
        }
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.update_batch(values, groups, filter, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (sums, nulls) = self.take(&emit);
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

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, nulls) = self.take(&emit);
        Ok(vec![raised(from_i128(sums, nulls, &self.state))?])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let array = only(values)?;
        let sums: Vec<i128> = match native(array) {
            Some(Native::I32(values)) => values.iter().map(|&v| v.into()).collect(),
            Some(Native::I64(values)) => values.iter().map(|&v| v.into()).collect(),
            Some(Native::I128(values)) => values.to_vec(),
            _ => return Err(raise(internal("a sum of another type"))),
        };
        let nulls = taken(array.nulls(), filter).map(NullBuffer::new);
        Ok(vec![raised(from_i128(sums, nulls, &self.state))?])
    }

    fn supports_convert_to_state(&self) -> bool {
        true
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.seen.capacity()
    }
}

/// The sum of the squares of integers and decimals, in 128 bits: what is not exact there is an error.
#[derive(Debug)]
pub(super) struct SumOfSquares(SumExact);

impl SumOfSquares {
    pub(super) fn new(state: DataType, result: DataType) -> Self {
        SumOfSquares(SumExact::new(state, result))
    }
}

impl States for SumOfSquares {
    fn ensure(&mut self, groups: usize) {
        self.0.ensure(groups);
    }
}

impl GroupsAccumulator for SumOfSquares {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.ensure(total);
        let array = only(values)?;
        let rows = taken(array.nulls(), filter);
        let squares = squares(array, rows.as_ref())?;
        self.0.add(groups, &squares, rows.as_ref())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.0.merge_batch(values, groups, filter, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.0.evaluate(emit)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.0.state(emit)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let array = only(values)?;
        let rows = taken(array.nulls(), filter);
        let squares = squares(array, rows.as_ref())?;
        let nulls = rows.map(NullBuffer::new);
        Ok(vec![raised(from_i128(squares, nulls, &self.0.state))?])
    }

    fn supports_convert_to_state(&self) -> bool {
        true
    }

    fn size(&self) -> usize {
        self.0.size()
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

/// `sum` of floats, in the precision of its result.
#[derive(Debug)]
pub(super) struct SumFloat {
    /// Single precision: each sum is that of a `Float4`.
    single: bool,
    sums: Vec<f64>,
    seen: Vec<bool>,
}

impl SumFloat {
    pub(super) fn new(single: bool) -> Self {
        SumFloat {
            single,
            sums: vec![],
            seen: vec![],
        }
    }

    fn array(&self, sums: Vec<f64>, nulls: Option<NullBuffer>) -> ArrayRef {
        if self.single {
            let sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
            Arc::new(Float32Array::new(sums.into(), nulls))
        } else {
            Arc::new(Float64Array::new(sums.into(), nulls))
        }
    }

    fn add<T: Copy + Into<f64>>(
        &mut self,
        groups: &[usize],
        values: &[T],
        rows: Option<&BooleanBuffer>,
    ) -> Result<()> {
        let mut overflow = false;
        let single = self.single;
        let (sums, seen) = (&mut self.sums, &mut self.seen);
        each(groups, values, rows, |g, v| {
            if let (Some(sum), Some(seen)) = (sums.get_mut(g), seen.get_mut(g)) {
                let value: f64 = v.into();
                let next = match single {
                    true => f64::from(*sum as f32 + value as f32),
                    false => *sum + value,
                };
                overflow |= next.is_infinite() & !sum.is_infinite() & !value.is_infinite();
                *sum = next;
                *seen = true;
            }
        });
        if overflow {
            return Err(raise(out_of_range("value out of range: overflow")));
        }
        Ok(())
    }
}

impl States for SumFloat {
    fn ensure(&mut self, groups: usize) {
        if self.sums.len() < groups {
            // As in Postgres, whose first sum is the first value, that of `-0` alone is `-0`.
            self.sums.resize(groups, -0.0);
            self.seen.resize(groups, false);
        }
    }
}

impl GroupsAccumulator for SumFloat {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.ensure(total);
        let array = only(values)?;
        let rows = taken(array.nulls(), filter);
        match native(array) {
            Some(Native::F32(values)) => self.add(groups, values, rows.as_ref()),
            Some(Native::F64(values)) => self.add(groups, values, rows.as_ref()),
            _ => Err(raise(internal("a sum of another type"))),
        }
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.update_batch(values, groups, filter, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let nulls = validity(emit.take_needed(&mut self.seen));
        let sums = emit.take_needed(&mut self.sums);
        Ok(self.array(sums, nulls))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit)?])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let array = only(values)?;
        let sums: Vec<f64> = match native(array) {
            Some(Native::F32(values)) => values.iter().map(|&v| v.into()).collect(),
            Some(Native::F64(values)) => values.to_vec(),
            _ => return Err(raise(internal("a sum of another type"))),
        };
        let nulls = taken(array.nulls(), filter).map(NullBuffer::new);
        Ok(vec![self.array(sums, nulls)])
    }

    fn supports_convert_to_state(&self) -> bool {
        true
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<f64>() + self.seen.capacity()
    }
}

#[cfg(test)]
#[path = "sums_tests.rs"]
mod tests;
