//! `min` and `max` over frames: the rows that can still become the best one are in a queue, the best first.

use super::chunk::{Chunk, Input};
use super::frames::Frame;
use super::program::Evaluator;
use super::slide::{State, slide};
use super::sources::Sources;
use crate::engine::error::internal;
use crate::engine::values::{Native, native};
use arrow::array::{Array, ArrayRef, BinaryArray, StringArray, new_null_array};
use arrow::datatypes::DataType;
use pg_lake_plan::message::WireError;
use std::collections::VecDeque;

/// Of everything but floats.
#[derive(Debug)]
pub(super) struct Bests {
    max: bool,
    arg: usize,
    filter: Option<usize>,
    frame: Frame,
    null: ArrayRef,
    /// The best value of the partition so far: an array of one value, or of none.
    best: Option<ArrayRef>,
}

impl Bests {
    pub(super) fn new(
        max: bool,
        arg: usize,
        filter: Option<usize>,
        frame: Frame,
        ty: &DataType,
    ) -> Self {
        Bests {
            max,
            arg,
            filter,
            frame,
            null: new_null_array(ty, 1),
            best: None,
        }
    }
}

/// Numbers are those of [`Sources`].
struct Queue<K> {
    max: bool,
    /// `None` where the row isn't taken.
    keys: Vec<Option<K>>,
    /// The number of the chunk's first row.
    first: usize,
    queue: VecDeque<usize>,
    results: Vec<Option<usize>>,
}

impl<K: Ord + Copy> Queue<K> {
    fn key(&self, number: usize) -> Option<K> {
        self.keys.get(number).copied().flatten()
    }

    /// Whether a later value makes an earlier one useless.
    fn beats(&self, later: K, earlier: usize) -> bool {
        match self.key(earlier) {
            None => true,
            Some(earlier) if self.max => later >= earlier,
            Some(earlier) => later <= earlier,
        }
    }
}

impl<K: Ord + Copy> State for Queue<K> {
    fn reset(&mut self) {
        self.queue.clear();
    }

    fn add(&mut self, row: usize) -> Result<(), WireError> {
        let number = self.first + row;
        let Some(key) = self.key(number) else {
            return Ok(());
        };
        while let Some(&back) = self.queue.back()
            && self.beats(key, back)
        {
            self.queue.pop_back();
        }
        self.queue.push_back(number);
        Ok(())
    }

    fn remove(&mut self, row: usize) -> bool {
        if self.queue.front() == Some(&(self.first + row)) {
            self.queue.pop_front();
        }
        true
    }

    fn give(&mut self) -> Result<(), WireError> {
        self.results.push(self.queue.front().copied());
        Ok(())
    }
}

impl Bests {
    /// The number of the best row for each row, and the best one at the end.
    fn search<K: Ord + Copy>(
        &self,
        mut keys: Vec<Option<K>>,
        chunk: &Chunk,
        first: usize,
    ) -> Result<(Vec<Option<usize>>, Option<usize>), WireError> {
        let taken = chunk.taken(Input {
            arg: Some(self.arg),
            filter: self.filter,
        })?;
        for (key, taken) in keys.iter_mut().skip(first).zip(taken) {
            if !taken {
                *key = None;
            }
        }
        let mut queue = Queue {
            max: self.max,
            keys,
            first,
            queue: (0..first).collect(),
            results: Vec::with_capacity(chunk.rows()),
        };
        slide(&mut queue, chunk, &self.frame)?;
        let last = queue.queue.front().copied();
        Ok((queue.results, last))
    }
}

impl Evaluator for Bests {
    fn evaluate(&mut self, chunk: &Chunk) -> Result<Vec<ArrayRef>, WireError> {
        let sources = Sources::new(self.best.as_ref(), chunk, self.arg)?;
        let bytes = matches!(self.null.data_type(), DataType::Utf8 | DataType::Binary);
        let (picks, last) = if bytes {
            self.search(texts(&sources, chunk)?, chunk, sources.kept())?
        } else {
            self.search(numbers(&sources, chunk)?, chunk, sources.kept())?
        };
        let arrays = sources.pick_all(chunk, &self.null, &picks)?;
        let last: Vec<Option<usize>> = last.map(Some).into_iter().collect();
        let best = sources.pick(&self.null, &last)?;
        self.best = Some(best);
        Ok(arrays)
    }
}

fn numbers(sources: &Sources<'_>, chunk: &Chunk) -> Result<Vec<Option<i128>>, WireError> {
    let mut keys = vec![];
    for array in sources.arrays() {
        chunk.check_cancelled()?;
        match native(*array) {
            Some(Native::I32(own)) => keys.extend(own.iter().map(|v| Some(i128::from(*v)))),
            Some(Native::I64(own)) => keys.extend(own.iter().map(|v| Some(i128::from(*v)))),
            Some(Native::I128(own)) => keys.extend(own.iter().map(|v| Some(*v))),
            _ => return Err(internal("min or max of another type")),
        }
    }
    Ok(keys)
}

fn texts<'a>(sources: &Sources<'a>, chunk: &Chunk) -> Result<Vec<Option<&'a [u8]>>, WireError> {
    let mut keys = vec![];
    for array in sources.arrays() {
        chunk.check_cancelled()?;
        let array: &'a dyn Array = *array;
        if let Some(own) = array.as_any().downcast_ref::<StringArray>() {
            keys.extend(own.iter().map(|text| text.map(str::as_bytes)));
        } else if let Some(own) = array.as_any().downcast_ref::<BinaryArray>() {
            keys.extend(own.iter());
        } else {
            return Err(internal("min or max of another type"));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::super::frames::Bound::{CurrentRow, Following, Preceding, UnboundedPreceding};
    use super::super::tests::{chunk_of, frame, int_piece, int_results, piece_of, results};
    use super::*;
    use arrow::array::{AsArray, BooleanArray};
    use pg_lake_plan::ir::FrameUnit::{Range, Rows};
    use std::sync::Arc;

    fn bests(max: bool, frame: Frame) -> Bests {
        Bests::new(max, 0, None, frame, &DataType::Int32)
    }

    #[test]
    fn the_best_of_a_sliding_frame() {
        let values = [5, 3, 8, 1, 1, 9];
        let groups = [0, 1, 2, 3, 4, 5];
        let chunk = chunk_of(vec![int_piece(&values, &[0], &groups)]);
        let around = || frame(Rows, Preceding(1), Following(1));
        let max = int_results(&mut bests(true, around()), &chunk);
        assert_eq!(max, [5, 8, 8, 8, 9, 9].map(Some));
        let min = int_results(&mut bests(false, around()), &chunk);
        assert_eq!(min, [3, 3, 1, 1, 1, 1].map(Some));
        let gap = frame(Rows, Following(2), Following(3));
        let ahead = int_results(&mut bests(false, gap), &chunk);
        assert_eq!(ahead, [Some(1), Some(1), Some(1), Some(9), None, None]);
    }

    #[test]
    fn the_best_so_far_is_kept() {
        let mut max = bests(true, frame(Range, UnboundedPreceding, CurrentRow));
        let one = chunk_of(vec![int_piece(&[9, 2, 7], &[0, 1], &[0, 1, 2])]);
        assert_eq!(int_results(&mut max, &one), [9, 2, 7].map(Some));
        let two = chunk_of(vec![int_piece(&[6, 8, 1], &[2], &[0, 1, 2])]);
        assert_eq!(int_results(&mut max, &two), [7, 8, 1].map(Some));
    }

    #[test]
    fn texts_are_compared_by_bytes_and_filtered() {
        let texts = [Some("b"), None, Some("a"), Some("Z")];
        let arg: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let filter: ArrayRef = Arc::new(BooleanArray::from(vec![true, true, true, false]));
        let chunk = chunk_of(vec![piece_of(vec![arg, filter], &[0], &[0, 1, 2, 3])]);
        let until = frame(Rows, UnboundedPreceding, CurrentRow);
        let mut min = Bests::new(false, 0, Some(1), until, &DataType::Utf8);
        let array = results(&mut min, &chunk);
        let found: Vec<Option<&str>> = array.as_string::<i32>().iter().collect();
        assert_eq!(found, [Some("b"), Some("b"), Some("a"), Some("a")]);
    }
}
