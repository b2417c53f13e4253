//! Functions that return the argument of another row.

use super::chunk::Chunk;
use super::frames::{Frame, Frames};
use super::program::Evaluator;
use super::sources::Sources;
use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::DataType;
use pg_lake_plan::ir::FrameExclusion;
use pg_lake_plan::message::WireError;
use std::ops::Range;

/// Values that `lag` keeps of earlier chunks.
const KEPT_MAX: i64 = 1024;

/// Which row of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// From 0.
    FromStart(usize),
    Last,
}

impl Place {
    /// The row among those of the parts of a frame.
    fn within(self, parts: &[Range<usize>]) -> Option<usize> {
        match self {
            Place::Last => {
                let last = parts.iter().rev().find(|part| !part.is_empty());
                last.map(|part| part.end - 1)
            }
            Place::FromStart(mut n) => {
                for part in parts {
                    if n < part.len() {
                        return Some(part.start + n);
                    }
                    n -= part.len();
                }
                None
            }
        }
    }
}

/// `first_value`, `last_value` and `nth_value`. A partition may go on in the next chunk, if all frames begin with its
/// first row and that is what is asked for.
#[derive(Debug)]
pub(super) struct OfFrame {
    arg: usize,
    place: Place,
    frame: Frame,
    null: ArrayRef,
    /// The value of the partition's first row.
    first: Option<ArrayRef>,
}

impl OfFrame {
    pub(super) fn new(arg: usize, place: Place, frame: Frame, ty: &DataType) -> Self {
        OfFrame {
            arg,
            place,
            frame,
            null: new_null_array(ty, 1),
            first: None,
        }
    }
}

impl Evaluator for OfFrame {
    fn evaluate(&mut self, chunk: &Chunk) -> Result<Vec<ArrayRef>, WireError> {
        let sources = Sources::new(self.first.as_ref(), chunk, self.arg)?;
        let measured = self.frame.measured(chunk)?;
        let mut picks = Vec::with_capacity(chunk.rows());
        let mut first = None;
        for partition in chunk.partitions() {
            if !partition.begins {
                // Number 0 is the value that was kept.
                first = Some(0);
                picks.resize(partition.rows.end, Some(0));
                continue;
            }
            first = Some(sources.kept() + partition.rows.start);
            let mut frames = Frames::new(&self.frame, measured.as_ref(), &partition);
            for row in partition.rows.clone() {
                chunk.check_at(row)?;
                let frame = frames.of(row)?;
                let found = match self.frame.exclude {
                    FrameExclusion::NoOthers => self.place.within(&[frame]),
                    _ => (self.place.within(&frames.places(row, &frame)))
                        .filter(|found| frame.contains(found)),
                };
                picks.push(found.map(|row| sources.kept() + row));
            }
        }
        let arrays = sources.pick_all(chunk, &self.null, &picks)?;
        let kept = sources.pick(&self.null, &[first])?;
        self.first = Some(kept);
        Ok(arrays)
    }
}

/// `lag` and `lead`.
#[derive(Debug)]
pub(super) struct Shifted {
    arg: usize,
    rows: i64,
    /// One value.
    otherwise: ArrayRef,
    /// The last values of the partition that the next chunk may need.
    before: Option<ArrayRef>,
}

impl Shifted {
    pub(super) fn new(arg: usize, rows: i64, otherwise: ArrayRef) -> Self {
        Shifted {
            arg,
            rows,
            otherwise,
            before: None,
        }
    }

    /// Whether a partition may go on in the next chunk.
    pub(super) fn goes_on(rows: i64) -> bool {
        (-KEPT_MAX..=0).contains(&rows)
    }

    /// How many values may be asked for later.
    fn wanted(&self) -> usize {
        match Self::goes_on(self.rows) {
            true => usize::try_from(self.rows.unsigned_abs()).unwrap_or(0),
            false => 0,
        }
    }
}

impl Evaluator for Shifted {
    fn evaluate(&mut self, chunk: &Chunk) -> Result<Vec<ArrayRef>, WireError> {
        let sources = Sources::new(self.before.as_ref(), chunk, self.arg)?;
        let offset = isize::try_from(self.rows).unwrap_or(isize::MAX);
        let mut picks = Vec::with_capacity(chunk.rows());
        let mut last = 0..0;
        for partition in chunk.partitions() {
            let start = match partition.begins {
                true => sources.kept() + partition.rows.start,
                false => 0,
            };
            last = start..sources.kept() + partition.rows.end;
            for row in partition.rows {
                chunk.check_at(row)?;
                let number = (sources.kept() + row).checked_add_signed(offset);
                picks.push(number.filter(|number| last.contains(number)));
            }
        }
        let arrays = sources.pick_all(chunk, &self.otherwise, &picks)?;
        let from = last.end.saturating_sub(self.wanted()).max(last.start);
        let kept: Vec<Option<usize>> = (from..last.end).map(Some).collect();
        let kept = sources.pick(&self.otherwise, &kept)?;
        self.before = Some(kept);
        Ok(arrays)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::Bound;
    use super::super::tests::{chunk_of, frame, int_piece, int_results, ints};
    use super::*;
    use pg_lake_plan::ir::FrameUnit;

    fn until_now() -> Frame {
        frame(
            FrameUnit::Rows,
            Bound::UnboundedPreceding,
            Bound::CurrentRow,
        )
    }

    fn of_frame(place: Place, frame: Frame) -> OfFrame {
        OfFrame::new(0, place, frame, &DataType::Int32)
    }

    #[test]
    fn rows_of_the_frame() {
        let pieces = || {
            vec![
                int_piece(&[3, 5], &[0], &[0, 1]),
                int_piece(&[8, 9], &[1], &[0, 1]),
            ]
        };
        let chunk = chunk_of(pieces());
        let first = int_results(&mut of_frame(Place::FromStart(0), until_now()), &chunk);
        assert_eq!(first, [Some(3), Some(3), Some(3), Some(9)]);
        let second = int_results(&mut of_frame(Place::FromStart(1), until_now()), &chunk);
        assert_eq!(second, [None, Some(5), Some(5), None]);
        let around = Frame {
            start: Bound::Preceding(1),
            end: Bound::Following(1),
            ..until_now()
        };
        let last = int_results(&mut of_frame(Place::Last, around.clone()), &chunk);
        assert_eq!(last, [Some(5), Some(8), Some(8), Some(9)]);
        let before = Frame {
            end: Bound::Preceding(1),
            ..around.clone()
        };
        let last = int_results(&mut of_frame(Place::Last, before), &chunk);
        assert_eq!(last, [None, Some(3), Some(5), None]);
        let others = Frame {
            exclude: FrameExclusion::CurrentRow,
            ..around
        };
        let first = int_results(&mut of_frame(Place::FromStart(0), others.clone()), &chunk);
        assert_eq!(first, [Some(5), Some(3), Some(5), None]);
        let second = int_results(&mut of_frame(Place::FromStart(1), others.clone()), &chunk);
        assert_eq!(second, [None, Some(8), None, None]);
        let last = int_results(&mut of_frame(Place::Last, others), &chunk);
        assert_eq!(last, [Some(5), Some(8), Some(5), None]);
    }

    /// What Postgres 17 answers.
    #[test]
    fn excluded_ties_leave_a_place_for_the_current_row() {
        let pieces = || vec![int_piece(&[1, 2, 3, 4, 5], &[0], &[0, 2, 3])];
        let chunk = chunk_of(pieces());
        let ties = |start, end| Frame {
            exclude: FrameExclusion::Ties,
            ..frame(FrameUnit::Rows, start, end)
        };
        let ahead = || ties(Bound::Following(1), Bound::Following(3));
        let first = int_results(&mut of_frame(Place::FromStart(0), ahead()), &chunk);
        assert_eq!(first, [None, Some(3), Some(4), None, None]);
        let second = int_results(&mut of_frame(Place::FromStart(1), ahead()), &chunk);
        assert_eq!(second, [Some(3), Some(4), Some(5), None, None]);
        let behind = || ties(Bound::Preceding(3), Bound::Preceding(1));
        let last = int_results(&mut of_frame(Place::Last, behind()), &chunk);
        assert_eq!(last, [None, None, Some(2), Some(3), None]);
        let first = int_results(&mut of_frame(Place::FromStart(0), behind()), &chunk);
        assert_eq!(first, [None, None, Some(1), Some(1), Some(2)]);
        let around = || ties(Bound::Preceding(1), Bound::Following(1));
        let last = int_results(&mut of_frame(Place::Last, around()), &chunk);
        assert_eq!(last, [1, 3, 4, 4, 5].map(Some));
    }

    #[test]
    fn the_first_value_is_kept() {
        let mut first = of_frame(Place::FromStart(0), until_now());
        let one = chunk_of(vec![int_piece(&[1, 2], &[0, 1], &[0, 1])]);
        assert_eq!(int_results(&mut first, &one), [Some(1), Some(2)]);
        let two = chunk_of(vec![int_piece(&[3], &[], &[0])]);
        assert_eq!(int_results(&mut first, &two), [Some(2)]);
        let three = chunk_of(vec![int_piece(&[4, 5], &[1], &[0, 1])]);
        assert_eq!(int_results(&mut first, &three), [Some(2), Some(5)]);
    }

    #[test]
    fn rows_before_are_kept() {
        let mut lag = Shifted::new(0, -2, ints(&[Some(-1)]));
        let one = chunk_of(vec![int_piece(&[1, 2], &[0], &[0, 1])]);
        assert_eq!(int_results(&mut lag, &one), [Some(-1), Some(-1)]);
        let two = chunk_of(vec![int_piece(&[3], &[], &[0])]);
        assert_eq!(int_results(&mut lag, &two), [Some(1)]);
        let three = chunk_of(vec![int_piece(&[4, 5, 6, 7], &[1], &[0, 1])]);
        let values = [Some(2), Some(-1), Some(-1), Some(5)];
        assert_eq!(int_results(&mut lag, &three), values);
    }

    #[test]
    fn rows_after_end_with_the_partition() {
        let chunk = chunk_of(vec![int_piece(&[1, 2, 3], &[0, 2], &[0, 1, 2])]);
        let mut lead = Shifted::new(0, 1, ints(&[None]));
        assert_eq!(int_results(&mut lead, &chunk), [Some(2), None, None]);
        let mut none = Shifted::new(0, i64::MIN, ints(&[None]));
        assert_eq!(int_results(&mut none, &chunk), [None, None, None]);
    }
}
