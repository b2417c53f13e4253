//! Values of an argument, picked by their row.

use super::chunk::Chunk;
use crate::engine::error::from_arrow;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute;
use arrow::datatypes::DataType;
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
        let arrays = self.with(otherwise);
        compute::interleave(&arrays, &self.places(picks)).map_err(|e| from_arrow(&e))
    }

    /// The same, an array for each piece of the chunk. Memory is taken for them: one text may come many times.
    pub(super) fn pick_all(
        &self,
        chunk: &Chunk,
        otherwise: &ArrayRef,
        picks: &[Option<usize>],
    ) -> Result<Vec<ArrayRef>, WireError> {
        let all = self.with(otherwise);
        let lengths: Vec<Lengths<'_>> = all.iter().map(|array| Lengths::of(*array)).collect();
        let (mut arrays, mut rest) = (vec![], picks);
        for (number, piece) in chunk.pieces.iter().enumerate() {
            chunk.check_cancelled()?;
            let (own, after) = rest.split_at(piece.rows().min(rest.len()));
            let places = self.places(own);
            let length = |(array, at): &(usize, usize)| {
                let lengths = lengths.get(*array);
                lengths.map_or(0, |lengths| lengths.at(*at))
            };
            chunk.reserve(number, places.iter().map(length).sum())?;
            arrays.push(compute::interleave(&all, &places).map_err(|e| from_arrow(&e))?);
            rest = after;
        }
        Ok(arrays)
    }

    fn with<'b>(&'b self, otherwise: &'b ArrayRef) -> Vec<&'b dyn Array> {
        let mut arrays: Vec<&dyn Array> = vec![otherwise.as_ref()];
        arrays.extend(self.arrays.iter().copied());
        arrays
    }

    fn places(&self, picks: &[Option<usize>]) -> Vec<(usize, usize)> {
        let place = |pick: &Option<usize>| pick.map_or((0, 0), |number| self.place(number));
        picks.iter().map(place).collect()
    }

    /// An array, counted from 1, and a place in it.
    fn place(&self, number: usize) -> (usize, usize) {
        let at = self.ends.partition_point(|end| *end <= number);
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before));
        (at + 1, number - start.copied().unwrap_or(0))
    }
}

/// Bytes of an array's values beyond what is accounted for each row anyway.
enum Lengths<'a> {
    Fixed,
    Offsets(&'a [i32]),
    /// Of nested values: those of the whole array, evenly.
    Mean(usize),
}

impl<'a> Lengths<'a> {
    fn of(array: &'a dyn Array) -> Self {
        match array.data_type() {
            DataType::Utf8 => (array.as_string_opt::<i32>())
                .map_or(Lengths::Fixed, |own| Lengths::Offsets(own.value_offsets())),
            DataType::Binary => (array.as_binary_opt::<i32>())
                .map_or(Lengths::Fixed, |own| Lengths::Offsets(own.value_offsets())),
            DataType::List(_) | DataType::Struct(_) => {
                Lengths::Mean(array.get_array_memory_size() / array.len().max(1))
            }
            _ => Lengths::Fixed,
        }
    }

    fn at(&self, row: usize) -> usize {
        match self {
            Lengths::Fixed => 0,
            Lengths::Offsets(offsets) => match (offsets.get(row), offsets.get(row + 1)) {
                (Some(start), Some(end)) => usize::try_from(end - start).unwrap_or(0),
                _ => 0,
            },
            Lengths::Mean(bytes) => *bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{memory, piece_of};
    use super::*;
    use arrow::array::{StringArray, new_null_array};
    use pg_lake_plan::message::ErrorCode;
    use std::sync::Arc;
    use tokio_util::sync::CancellationToken;

    const LENGTH: usize = 1000;
    const ROWS: usize = 50;

    /// All rows get the long text of the first one.
    fn copied(limit: usize) -> Result<Vec<usize>, WireError> {
        let mut texts = vec![String::new(); ROWS];
        texts[0] = "x".repeat(LENGTH);
        let texts: ArrayRef = Arc::new(StringArray::from(texts));
        let pieces = vec![piece_of(vec![texts], &[0], &[0])];
        let chunk = Chunk::new(pieces, CancellationToken::new(), memory(limit));
        let sources = Sources::new(None, &chunk, 0)?;
        let null = new_null_array(&DataType::Utf8, 1);
        let arrays = sources.pick_all(&chunk, &null, &[Some(0); ROWS])?;
        assert_eq!(arrays[0].len(), ROWS);
        drop(sources);
        let pieces = chunk.into_pieces().into_iter();
        Ok(pieces.map(|piece| piece.bytes).collect())
    }

    #[test]
    fn copies_of_a_text_are_accounted_for() {
        assert_eq!(copied(usize::MAX).expect("copies"), [ROWS * LENGTH]);
        let error = copied(ROWS * LENGTH - 1).expect_err("too large");
        assert_eq!(error.code, ErrorCode::OutOfMemory);
    }
}
