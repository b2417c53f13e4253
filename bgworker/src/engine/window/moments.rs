//! States of floats over frames: averages, variances, covariances and regression.
//!
//! Postgres' functions have no inverse: where a frame loses a value its state is computed anew, from its first row on
//! (`eval_windowaggregates` in `nodeWindowAgg.c`), and so is it here. All results are Postgres' to the last bit.

use super::chunk::Chunk;
use super::frames::Frame;
use super::program::Evaluator;
use super::slide::{State, slide};
use super::totals::masked;
use crate::engine::error::{out_of_range, wire};
use crate::engine::moments::{Moments, OVERFLOW, element_of, lists};
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use pg_lake_plan::message::WireError;

#[derive(Debug)]
pub(super) struct FrameMoments<T> {
    arg: usize,
    filter: Option<usize>,
    frame: Frame,
    /// An element of a result.
    element: FieldRef,
    state: T,
}

impl<T: Moments> FrameMoments<T> {
    /// `ty`: the list that a result is.
    pub(super) fn new(arg: usize, filter: Option<usize>, frame: Frame, ty: &DataType) -> Self {
        FrameMoments {
            arg,
            filter,
            frame,
            element: element_of(ty),
            state: T::default(),
        }
    }
}

struct Gathering<T: Moments> {
    values: Vec<Option<T::Value>>,
    state: T,
    results: Vec<T>,
}

impl<T: Moments> Gathering<T> {
    fn of(&self, row: usize) -> Option<T::Value> {
        self.values.get(row).copied().flatten()
    }
}

impl<T: Moments> State for Gathering<T> {
    fn reset(&mut self) {
        self.state = T::default();
    }

    fn add(&mut self, row: usize) -> Result<(), WireError> {
        if let Some(value) = self.of(row) {
            let next = self.state.with(value);
            self.state = next.ok_or_else(|| out_of_range(OVERFLOW))?;
        }
        Ok(())
    }

    /// A row that wasn't taken makes no difference.
    fn remove(&mut self, row: usize) -> bool {
        self.of(row).is_none()
    }

    fn give(&mut self) -> Result<(), WireError> {
        self.results.push(self.state);
        Ok(())
    }
}

impl<T: Moments> Evaluator for FrameMoments<T> {
    fn evaluate(&mut self, chunk: &Chunk) -> Result<Vec<ArrayRef>, WireError> {
        let mut values = Vec::with_capacity(chunk.rows());
        for array in chunk.arg(self.arg)? {
            chunk.check_cancelled()?;
            values.extend(T::values(array).map_err(|e| wire(&e))?);
        }
        let mut gathering = Gathering {
            values: masked(values, chunk, self.arg, self.filter)?,
            state: self.state,
            results: Vec::with_capacity(chunk.rows()),
        };
        slide(&mut gathering, chunk, &self.frame)?;
        self.state = gathering.state;
        let states = lists(&self.element, &gathering.results).map_err(|e| wire(&e))?;
        Ok(chunk.cut(&states))
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::Bound::{CurrentRow, Following, Preceding, UnboundedPreceding};
    use super::super::tests::{chunk_of, frame, piece_of, results};
    use super::*;
    use crate::engine::moments::OfValues;
    use arrow::array::{AsArray, BooleanArray, Float32Array, Float64Array};
    use arrow::datatypes::{Field, Float64Type};
    use pg_lake_plan::ir::FrameExclusion;
    use pg_lake_plan::ir::FrameUnit::{Range, Rows};
    use pg_lake_plan::message::ErrorCode;
    use std::sync::Arc;

    fn list() -> DataType {
        DataType::List(Arc::new(Field::new("element", DataType::Float64, true)))
    }

    /// The parts of each state.
    fn states(evaluator: &mut dyn Evaluator, chunk: &Chunk) -> Vec<Option<Vec<f64>>> {
        let array = results(evaluator, chunk);
        let lists = array.as_list::<i32>();
        let parts = lists.iter();
        parts
            .map(|parts| parts.map(|parts| parts.as_primitive::<Float64Type>().values().to_vec()))
            .collect()
    }

    fn of(frame: Frame, chunk: &Chunk) -> Vec<Option<Vec<f64>>> {
        let mut evaluator = FrameMoments::<OfValues>::new(0, None, frame, &list());
        states(&mut evaluator, chunk)
    }

    /// As Postgres computes a state of these values.
    fn state(values: &[f64]) -> Option<Vec<f64>> {
        let mut all = values.iter();
        let state = all.try_fold(OfValues::default(), |state, value| state.with(*value));
        let state = state.expect("a state");
        (!values.is_empty()).then(|| state.parts().to_vec())
    }

    #[test]
    fn a_frame_that_moves_is_computed_from_its_start() {
        let values = [0.1, 1e9, 0.3, -1e9, 0.7, 0.1];
        let arg: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let groups: Vec<usize> = (0..values.len()).collect();
        let chunk = chunk_of(vec![piece_of(vec![arg], &[0], &groups)]);
        let found = of(frame(Rows, Preceding(2), CurrentRow), &chunk);
        for (row, found) in found.iter().enumerate() {
            assert_eq!(*found, state(&values[row.saturating_sub(2)..=row]));
        }
        let found = of(frame(Rows, Following(1), Following(3)), &chunk);
        for (row, found) in found.iter().enumerate() {
            let end = (row + 4).min(values.len());
            assert_eq!(*found, state(&values[(row + 1).min(end)..end]));
        }
        let others = Frame {
            exclude: FrameExclusion::CurrentRow,
            ..frame(Rows, Preceding(1), Following(1))
        };
        let found = of(others, &chunk);
        assert_eq!(found[0], state(&[1e9]));
        assert_eq!(found[3], state(&[0.3, 0.7]));
    }

    #[test]
    fn nulls_and_what_is_filtered_out_are_passed_over() {
        let arg: ArrayRef = Arc::new(Float32Array::from(vec![
            None,
            Some(1.5),
            Some(2.5),
            None,
            Some(4.0),
        ]));
        let filter: ArrayRef = Arc::new(BooleanArray::from(vec![true, true, false, true, true]));
        let chunk = chunk_of(vec![piece_of(vec![arg, filter], &[0], &[0, 1, 2, 3, 4])]);
        let two = || frame(Rows, Preceding(1), CurrentRow);
        let found = of(two(), &chunk);
        let expected: [&[f64]; 5] = [&[], &[1.5], &[1.5, 2.5], &[2.5], &[4.0]];
        assert_eq!(found, expected.map(state));
        let mut some = FrameMoments::<OfValues>::new(0, Some(1), two(), &list());
        let expected: [&[f64]; 5] = [&[], &[1.5], &[1.5], &[], &[4.0]];
        assert_eq!(states(&mut some, &chunk), expected.map(state));
    }

    #[test]
    fn running_states_go_on_in_the_next_chunk() {
        let until = frame(Range, UnboundedPreceding, CurrentRow);
        let mut running = FrameMoments::<OfValues>::new(0, None, until, &list());
        let mut next = |values: &[f64], partitions: &[usize], groups: &[usize]| {
            let arg: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
            let chunk = chunk_of(vec![piece_of(vec![arg], partitions, groups)]);
            states(&mut running, &chunk)
        };
        let first = next(&[0.1, 0.2, 0.3], &[0], &[0, 2]);
        assert_eq!(first[0], state(&[0.1, 0.2]));
        assert_eq!(first[1], first[0]);
        assert_eq!(first[2], state(&[0.1, 0.2, 0.3]));
        let second = next(&[0.7, 0.5], &[1], &[0, 1]);
        assert_eq!(second[0], state(&[0.1, 0.2, 0.3, 0.7]));
        assert_eq!(second[1], state(&[0.5]));
    }

    #[test]
    fn only_frames_that_overflow_raise() {
        let arg: ArrayRef = Arc::new(Float64Array::from(vec![1e200, 1.0, -1e200]));
        let chunk = chunk_of(vec![piece_of(vec![arg], &[0], &[0, 1, 2])]);
        assert_eq!(of(frame(Rows, CurrentRow, CurrentRow), &chunk).len(), 3);
        let around = frame(Rows, Preceding(1), CurrentRow);
        let error = FrameMoments::<OfValues>::new(0, None, around, &list())
            .evaluate(&chunk)
            .expect_err("too large");
        assert_eq!(error.code, ErrorCode::OutOfRange);
    }
}
