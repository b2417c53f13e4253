//! `count` and `sum` over frames.
//!
//! Integers and decimals are added up in 128 bits, and subtracted again as the frame leaves them. A sum of floats
//! depends on the order of its additions: where Postgres computes it anew, so do we.

use super::chunk::{Chunk, Input};
use super::frames::Frame;
use super::program::Evaluator;
use super::slide::{State, slide};
use crate::engine::arith::TOO_LARGE;
use crate::engine::error::{internal, not_exact, out_of_range};
use crate::engine::moments::OVERFLOW;
use crate::engine::sums::float_sum;
use crate::engine::values::{Native, from_i64, from_i128, native};
use arrow::array::{ArrayRef, Float32Array, Float64Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use pg_lake_plan::message::WireError;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Counts {
    input: Input,
    frame: Frame,
    count: i64,
}

impl Counts {
    pub(super) fn new(input: Input, frame: Frame) -> Self {
        Counts {
            input,
            frame,
            count: 0,
        }
    }
}

struct Counting {
    taken: Vec<bool>,
    count: i64,
    results: Vec<i64>,
}

impl Counting {
    fn of(&self, row: usize) -> i64 {
        i64::from(self.taken.get(row).copied().unwrap_or(false))
    }
}

impl State for Counting {
    fn reset(&mut self) {
        self.count = 0;
    }

    fn add(&mut self, row: usize) -> Result<(), WireError> {
        self.count += self.of(row);
        Ok(())
    }

    fn remove(&mut self, row: usize) -> bool {
        self.count -= self.of(row);
        true
    }

    fn is_orderless(&self) -> bool {
        true
    }

    fn give(&mut self) -> Result<(), WireError> {
        self.results.push(self.count);
        Ok(())
    }
}

impl Evaluator for Counts {
    fn evaluate(&mut self, chunk: &Chunk) -> Result<Vec<ArrayRef>, WireError> {
        let mut state = Counting {
            taken: chunk.taken(self.input)?,
            count: self.count,
            results: Vec::with_capacity(chunk.rows()),
        };
        slide(&mut state, chunk, &self.frame)?;
        self.count = state.count;
        let results: ArrayRef = Arc::new(Int64Array::from(state.results));
        Ok(chunk.cut(&results))
    }
}

/// Of integers and decimals.
#[derive(Debug)]
pub(super) struct ExactSums {
    arg: usize,
    filter: Option<usize>,
    frame: Frame,
    /// `Int64`, or a decimal of the argument's scale.
    result: DataType,
    sum: Exact,
}

#[derive(Clone, Copy, Debug, Default)]
struct Exact {
    sum: i128,
    /// Values in it.
    count: u64,
}

impl ExactSums {
    pub(super) fn new(arg: usize, filter: Option<usize>, frame: Frame, result: DataType) -> Self {
        ExactSums {
            arg,
            filter,
            frame,
            result,
            sum: Exact::default(),
        }
    }
}

struct ExactSumming {
    values: Vec<Option<i128>>,
    sum: Exact,
    results: Vec<i128>,
    valid: Vec<bool>,
}

impl ExactSumming {
    fn of(&self, row: usize) -> Option<i128> {
        self.values.get(row).copied().flatten()
    }
}

impl State for ExactSumming {
    fn reset(&mut self) {
        self.sum = Exact::default();
    }

    fn add(&mut self, row: usize) -> Result<(), WireError> {
        if let Some(value) = self.of(row) {
            let sum = self.sum.sum.checked_add(value);
            self.sum = Exact {
                sum: sum.ok_or_else(|| not_exact(TOO_LARGE))?,
                count: self.sum.count + 1,
            };
        }
        Ok(())
    }

    fn remove(&mut self, row: usize) -> bool {
        let Some(value) = self.of(row) else {
            return true;
        };
        let without = self.sum.sum.checked_sub(value);
        let count = self.sum.count.checked_sub(1);
        match (without, count) {
            (Some(sum), Some(count)) => {
                self.sum = Exact { sum, count };
                true
            }
            _ => false,
        }
    }

    fn is_orderless(&self) -> bool {
        true
    }

    fn give(&mut self) -> Result<(), WireError> {
        self.results.push(self.sum.sum);
        self.valid.push(self.sum.count > 0);
        Ok(())
    }
}

impl Evaluator for ExactSums {
    fn evaluate(&mut self, chunk: &Chunk) -> Result<Vec<ArrayRef>, WireError> {
        let mut values = Vec::with_capacity(chunk.rows());
        for array in chunk.arg(self.arg)? {
            chunk.check_cancelled()?;
            match native(array) {
                Some(Native::I32(own)) => values.extend(own.iter().map(|v| i128::from(*v))),
                Some(Native::I64(own)) => values.extend(own.iter().map(|v| i128::from(*v))),
                Some(Native::I128(own)) => values.extend_from_slice(own),
                _ => return Err(internal("a sum of another type")),
            }
        }
        let mut state = ExactSumming {
            values: masked(values, chunk, self.arg, self.filter)?,
            sum: self.sum,
            results: Vec::with_capacity(chunk.rows()),
            valid: Vec::with_capacity(chunk.rows()),
        };
        slide(&mut state, chunk, &self.frame)?;
        self.sum = state.sum;
        let nulls = Some(NullBuffer::from(state.valid));
        let sums = match &self.result {
            DataType::Int64 => {
                let narrow: Result<Vec<i64>, _> =
                    state.results.into_iter().map(i64::try_from).collect();
                let narrow = narrow.map_err(|_| out_of_range("bigint out of range"))?;
                from_i64(narrow, nulls, &self.result)
            }
            _ => from_i128(state.results, nulls, &self.result)?,
        };
        Ok(chunk.cut(&sums))
    }
}

/// Of floats, in the precision of the result.
#[derive(Debug)]
pub(super) struct FloatSums {
    arg: usize,
    filter: Option<usize>,
    frame: Frame,
    /// Each sum is that of a `Float4`.
    single: bool,
    sum: Option<f64>,
}

impl FloatSums {
    pub(super) fn new(arg: usize, filter: Option<usize>, frame: Frame, single: bool) -> Self {
        FloatSums {
            arg,
            filter,
            frame,
            single,
            sum: None,
        }
    }
}

struct FloatSumming {
    values: Vec<Option<f64>>,
    single: bool,
    /// The first value is the first sum: that of `-0` alone is `-0`.
    sum: Option<f64>,
    results: Vec<Option<f64>>,
}

impl FloatSumming {
    fn of(&self, row: usize) -> Option<f64> {
        self.values.get(row).copied().flatten()
    }
}

impl State for FloatSumming {
    fn reset(&mut self) {
        self.sum = None;
    }

    fn add(&mut self, row: usize) -> Result<(), WireError> {
        self.sum = match (self.sum, self.of(row)) {
            (sum, None) => sum,
            (None, value) => value,
            (Some(sum), Some(value)) => {
                let (next, overflow) = float_sum(sum, value, self.single);
                if overflow {
                    return Err(out_of_range(OVERFLOW));
                }
                Some(next)
            }
        };
        Ok(())
    }

    /// A row that wasn't taken makes no difference.
    fn remove(&mut self, row: usize) -> bool {
        self.of(row).is_none()
    }

    fn give(&mut self) -> Result<(), WireError> {
        self.results.push(self.sum);
        Ok(())
    }
}

impl Evaluator for FloatSums {
    fn evaluate(&mut self, chunk: &Chunk) -> Result<Vec<ArrayRef>, WireError> {
        let mut values = Vec::with_capacity(chunk.rows());
        for array in chunk.arg(self.arg)? {
            chunk.check_cancelled()?;
            match native(array) {
                Some(Native::F32(own)) => values.extend(own.iter().map(|v| f64::from(*v))),
                Some(Native::F64(own)) => values.extend_from_slice(own),
                _ => return Err(internal("a sum of another type")),
            }
        }
        let mut state = FloatSumming {
            values: masked(values, chunk, self.arg, self.filter)?,
            single: self.single,
            sum: self.sum,
            results: Vec::with_capacity(chunk.rows()),
        };
        slide(&mut state, chunk, &self.frame)?;
        self.sum = state.sum;
        let sums: ArrayRef = match self.single {
            true => {
                let sums = state.results.into_iter();
                let sums = sums.map(|sum| sum.map(|sum| sum as f32));
                Arc::new(sums.collect::<Float32Array>())
            }
            false => Arc::new(Float64Array::from(state.results)),
        };
        Ok(chunk.cut(&sums))
    }
}

/// The values of the rows that an aggregate takes.
pub(super) fn masked<T>(
    values: Vec<T>,
    chunk: &Chunk,
    arg: usize,
    filter: Option<usize>,
) -> Result<Vec<Option<T>>, WireError> {
    let input = Input {
        arg: Some(arg),
        filter,
    };
    let taken = chunk.taken(input)?;
    chunk.check_cancelled()?;
    let values = taken.into_iter().zip(values);
    Ok(values
        .map(|(taken, value)| taken.then_some(value))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::super::frames::Bound::{CurrentRow, Following, Preceding, UnboundedPreceding};
    use super::super::tests::{chunk_of, frame, piece_of, results};
    use super::*;
    use arrow::array::{AsArray, BooleanArray, Int32Array};
    use arrow::datatypes::{Decimal128Type, Float32Type, Float64Type, Int64Type};
    use pg_lake_plan::ir::FrameUnit::{Range, Rows};
    use pg_lake_plan::message::ErrorCode;

    fn ints(evaluator: &mut dyn Evaluator, chunk: &Chunk) -> Vec<Option<i64>> {
        let array = results(evaluator, chunk);
        array.as_primitive::<Int64Type>().iter().collect()
    }

    fn floats(values: &[f64]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    #[test]
    fn counts_and_sums_slide() {
        let arg: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(4), Some(8)]));
        let filter: ArrayRef = Arc::new(BooleanArray::from(vec![
            Some(true),
            Some(true),
            None,
            Some(true),
        ]));
        let chunk = chunk_of(vec![piece_of(vec![arg, filter], &[0], &[0, 1, 2, 3])]);
        let around = || frame(Rows, Preceding(1), Following(1));
        let input = |arg, filter| Input { arg, filter };
        let mut all = Counts::new(input(None, None), around());
        assert_eq!(ints(&mut all, &chunk), [Some(2), Some(3), Some(3), Some(2)]);
        let mut some = Counts::new(input(Some(0), Some(1)), around());
        assert_eq!(
            ints(&mut some, &chunk),
            [Some(1), Some(1), Some(1), Some(1)]
        );
        let mut sums = ExactSums::new(0, None, around(), DataType::Int64);
        assert_eq!(
            ints(&mut sums, &chunk),
            [Some(1), Some(5), Some(12), Some(12)]
        );
        let mut filtered = ExactSums::new(0, Some(1), around(), DataType::Int64);
        assert_eq!(
            ints(&mut filtered, &chunk),
            [Some(1), Some(1), Some(8), Some(8)]
        );
        let behind = frame(Rows, Preceding(2), Preceding(2));
        let mut sums = ExactSums::new(0, None, behind, DataType::Int64);
        assert_eq!(ints(&mut sums, &chunk), [None, None, Some(1), None]);
    }

    #[test]
    fn running_sums_go_on_in_the_next_chunk() {
        let until = || frame(Range, UnboundedPreceding, CurrentRow);
        let piece = |values: &[i32], partitions: &[usize], groups: &[usize]| {
            let arg: ArrayRef = Arc::new(Int32Array::from(values.to_vec()));
            chunk_of(vec![piece_of(vec![arg], partitions, groups)])
        };
        let mut sums = ExactSums::new(0, None, until(), DataType::Decimal128(38, 0));
        let mut sum = |chunk: Chunk| {
            let array = results(&mut sums, &chunk);
            array.as_primitive::<Decimal128Type>().values().to_vec()
        };
        assert_eq!(sum(piece(&[1, 2, 3], &[0], &[0, 2])), [3, 3, 6]);
        assert_eq!(sum(piece(&[4, 5], &[1], &[0, 1])), [10, 5]);
        assert_eq!(sum(piece(&[6], &[0], &[0])), [6]);
    }

    #[test]
    fn sums_of_floats_are_added_up_in_order() {
        let values = [1e300, 1.0, -1e300, 1.0, 2.0];
        let groups = [0, 1, 2, 3, 4];
        let chunk = chunk_of(vec![piece_of(vec![floats(&values)], &[0], &groups)]);
        let of = |frame: Frame| {
            let array = results(&mut FloatSums::new(0, None, frame, false), &chunk);
            array.as_primitive::<Float64Type>().values().to_vec()
        };
        let running = of(frame(Rows, UnboundedPreceding, CurrentRow));
        assert_eq!(running, [1e300, 1e300, 0.0, 1.0, 3.0]);
        let sliding = of(frame(Rows, Preceding(1), CurrentRow));
        assert_eq!(sliding, [1e300, 1e300, -1e300, -1e300, 3.0]);
        let last = of(frame(Rows, Preceding(2), CurrentRow));
        assert_eq!(last[4], (-1e300 + 1.0) + 2.0);
    }

    #[test]
    fn sums_of_reals_are_rounded_at_each_step() {
        let values = [16_777_216.0, 1.0, 1.0, 0.1];
        let arg: ArrayRef = Arc::new(Float32Array::from(values.to_vec()));
        let chunk = chunk_of(vec![piece_of(vec![arg], &[0], &[0, 1, 2, 3])]);
        let until = || frame(Rows, UnboundedPreceding, CurrentRow);
        let sums = results(&mut FloatSums::new(0, None, until(), true), &chunk);
        let mut sum = -0.0f32;
        let expected: Vec<f32> = (values.iter())
            .map(|value| {
                sum += value;
                sum
            })
            .collect();
        assert_eq!(sums.as_primitive::<Float32Type>().values(), &expected[..]);
        assert_eq!(expected[2], 16_777_216.0);
        let arg: ArrayRef = Arc::new(Float32Array::from(vec![f32::MAX, f32::MAX]));
        let chunk = chunk_of(vec![piece_of(vec![arg], &[0], &[0, 1])]);
        let error = FloatSums::new(0, None, until(), true)
            .evaluate(&chunk)
            .expect_err("too large");
        assert_eq!(error.code, ErrorCode::OutOfRange);
    }

    #[test]
    fn a_sum_keeps_its_sign_and_its_range() {
        let until = || frame(Rows, UnboundedPreceding, CurrentRow);
        let chunk = chunk_of(vec![piece_of(vec![floats(&[-0.0])], &[0], &[0])]);
        let zero = results(&mut FloatSums::new(0, None, until(), false), &chunk);
        assert!(
            zero.as_primitive::<Float64Type>()
                .value(0)
                .is_sign_negative()
        );
        let large = [f64::MAX, f64::MAX];
        let chunk = chunk_of(vec![piece_of(vec![floats(&large)], &[0], &[0, 1])]);
        let error = FloatSums::new(0, None, until(), false)
            .evaluate(&chunk)
            .expect_err("too large");
        assert_eq!(error.code, ErrorCode::OutOfRange);
        let arg: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1]));
        let chunk = chunk_of(vec![piece_of(vec![arg], &[0], &[0, 1])]);
        let error = ExactSums::new(0, None, until(), DataType::Int64)
            .evaluate(&chunk)
            .expect_err("too large");
        assert_eq!(error.code, ErrorCode::OutOfRange);
    }
}
