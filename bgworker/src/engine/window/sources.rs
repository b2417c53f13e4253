//! Values of an argument, picked by their row.

use super::chunk::Chunk;
use crate::engine::error::from_arrow;
use arrow::array::{Array, ArrayRef};
use arrow::compute;
use pg_lake_plan::message::WireError;

/// The values of one argument: first those that were kept of earlier chunks, then those of a chunk. They are numbered
/// through from 0.
pub(super) struct Sources<'a> {
    arrays: Vec<&'a dyn Array>,
    /// The numbers after the last value of each array.
    ends: Vec<usize>,
    kept: usize,
}

impl<'a> Sources<'a> {
    pub(super) fn new(
        kept: Option<&'a ArrayRef>,
        chunk: &'a Chunk,
        arg: usize,
    ) -> Result<Self, WireError> {
        let mut sources = Sources {
            arrays: vec![],
            ends: vec![],
            kept: kept.map_or(0, |kept| kept.len()),
        };
        let mut end = 0;
        for array in kept.into_iter().chain(chunk.arg(arg)?) {
            end += array.len();
            sources.arrays.push(array.as_ref());
            sources.ends.push(end);
        }
        Ok(sources)
    }

    /// The number of the chunk's first value.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    pub(super) fn arrays(&self) -> &[&'a dyn Array] {
        &self.arrays
    }

    /// The values of these numbers; `otherwise`, an array of one value, where there is none.
    pub(super) fn pick(
        &self,
        otherwise: &ArrayRef,
        picks: &[Option<usize>],
    ) -> Result<ArrayRef, WireError> {
        let mut arrays: Vec<&dyn Array> = vec![otherwise.as_ref()];
        arrays.extend(self.arrays.iter().copied());
        let places: Vec<(usize, usize)> = picks
            .iter()
            .map(|pick| pick.map_or((0, 0), |number| self.place(number)))
            .collect();
        compute::interleave(&arrays, &places).map_err(|e| from_arrow(&e))
    }

    /// An array, counted from 1, and a place in it.
    fn place(&self, number: usize) -> (usize, usize) {
        let at = self.ends.partition_point(|end| *end <= number);
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before));
        (at + 1, number - start.copied().unwrap_or(0))
    }

    /// The same, an array for each piece of the chunk.
    pub(super) fn pick_all(
        &self,
        chunk: &Chunk,
        otherwise: &ArrayRef,
        picks: &[Option<usize>],
    ) -> Result<Vec<ArrayRef>, WireError> {
        let (mut arrays, mut rest) = (vec![], picks);
        for piece in &chunk.pieces {
            let (own, after) = rest.split_at(piece.rows().min(rest.len()));
            arrays.push(self.pick(otherwise, own)?);
            rest = after;
        }
        Ok(arrays)
    }
}
