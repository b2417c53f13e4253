//! Which rows are in the frame of each row: `update_frameheadpos`, `update_frametailpos` and `row_is_in_frame` of
//! `nodeWindowAgg.c`.

use super::chunk::{Chunk, Partition};
use super::range::{Distance, Measure, Measured, Side};
use crate::engine::error::internal;
use pg_lake_plan::ir::{FrameExclusion, FrameUnit};
use pg_lake_plan::message::WireError;
use std::ops::Range;

/// A frame whose offsets are known.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) unit: FrameUnit,
    pub(super) start: Bound,
    pub(super) end: Bound,
    pub(super) exclude: FrameExclusion,
    /// Of a `Range` with offsets.
    pub(super) measure: Option<Measure>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    UnboundedPreceding,
    /// So many rows or groups.
    Preceding(usize),
    CurrentRow,
    Following(usize),
    UnboundedFollowing,
    /// Of a `Range`.
    At(Distance, Side),
}

impl Frame {
    /// The values that the offsets are measured by.
    pub(super) fn measured(&self, chunk: &Chunk) -> Result<Option<Measured>, WireError> {
        let offset = |bound| match bound {
            Bound::At(distance, _) => Some(distance),
            _ => None,
        };
        let offsets: Vec<Distance> = [self.start, self.end]
            .into_iter()
            .filter_map(offset)
            .collect();
        match self.measure {
            Some(measure) => Measured::new(measure, &offsets, chunk).map(Some),
            None => Ok(None),
        }
    }

    /// Whether it is what has been there of the partition, up to the current row or its peers.
    pub(super) fn starts_with_partition(&self) -> bool {
        (self.start, self.end) == (Bound::UnboundedPreceding, Bound::CurrentRow)
            && self.exclude == FrameExclusion::NoOthers
    }
}

/// The frames of a partition's rows, which are asked for in their order. Neither end of them ever moves back.
pub(super) struct Frames<'a> {
    frame: &'a Frame,
    partition: &'a Partition<'a>,
    measured: Option<&'a Measured>,
    /// The number of the current row's group among those of the partition.
    group: usize,
    /// Bounds of the last frame, as far as they are values.
    head: usize,
    tail: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn new(
        frame: &'a Frame,
        measured: Option<&'a Measured>,
        partition: &'a Partition<'a>,
    ) -> Self {
        Frames {
            frame,
            partition,
            measured,
            group: 0,
            head: partition.rows.start,
            tail: partition.rows.start,
        }
    }

    /// The frame of a row, and what is excluded from it; its end may lie before its start, then it is empty.
    pub(super) fn of(&mut self, row: usize) -> Result<Range<usize>, WireError> {
        let by_groups = self.frame.unit != FrameUnit::Rows;
        if by_groups || self.frame.exclude != FrameExclusion::NoOthers {
            while self.group_start(self.group + 1) <= row {
                self.group += 1;
            }
        }
        let start = match self.frame.start {
            Bound::At(distance, side) => {
                let end = self.partition.rows.end;
                let bound = (distance, side);
                self.head = self.measured()?.start(row, bound, self.head, end)?;
                self.head
            }
            _ if by_groups => self.first_group(),
            _ => self.first_row(row),
        };
        let end = match self.frame.end {
            Bound::At(distance, side) => {
                let end = self.partition.rows.end;
                let bound = (distance, side);
                self.tail = self.measured()?.end(row, bound, self.tail, end)?;
                self.tail
            }
            _ if by_groups => self.end_group(),
            _ => self.end_row(row),
        };
        Ok(start..end)
    }

    fn measured(&self) -> Result<&'a Measured, WireError> {
        self.measured
            .ok_or_else(|| internal("a frame that isn't measured"))
    }

    /// The rows that are excluded with a row, which was asked for before; in their order, some ranges are empty.
    fn excluded(&self, row: usize) -> [Range<usize>; 2] {
        let group = self.group_start(self.group)..self.group_start(self.group + 1);
        match self.frame.exclude {
            FrameExclusion::NoOthers => [row..row, row..row],
            FrameExclusion::CurrentRow => [row..row + 1, row + 1..row + 1],
            FrameExclusion::Group => [group.clone(), group.end..group.end],
            FrameExclusion::Ties => [group.start..row, row + 1..group.end],
        }
    }

    /// The rows between the bounds of a frame that aren't in it.
    pub(super) fn missing(&self, row: usize, frame: &Range<usize>) -> [Range<usize>; 2] {
        self.excluded(row).map(|part| within(part, frame))
    }

    /// The rows of a frame without those that are excluded.
    pub(super) fn rest(&self, row: usize, frame: &Range<usize>) -> [Range<usize>; 3] {
        let [first, second] = self.excluded(row);
        [
            frame.start..first.start,
            first.end..second.start,
            second.end..frame.end,
        ]
        .map(|part| within(part, frame))
    }

    /// The rows of a frame that functions pick from by their place (`WinGetFuncArgInFrame`): as [`Self::rest`], but where
    /// ties that are in the frame are excluded the current row has a place, even if it isn't in the frame itself.
    pub(super) fn places(&self, row: usize, frame: &Range<usize>) -> [Range<usize>; 3] {
        let [before, own, after] = self.rest(row, frame);
        let group = self.group_start(self.group)..self.group_start(self.group + 1);
        let has_group = group.start < frame.end && group.end > frame.start;
        match has_group && self.frame.exclude == FrameExclusion::Ties {
            true => [before, row..row + 1, after],
            false => [before, own, after],
        }
    }

    fn first_row(&self, row: usize) -> usize {
        let Range { start, end } = self.partition.rows;
        match self.frame.start {
            Bound::UnboundedPreceding => start,
            Bound::Preceding(n) => row.saturating_sub(n).max(start),
            Bound::CurrentRow => row,
            Bound::Following(n) => row.saturating_add(n).min(end),
            Bound::UnboundedFollowing | Bound::At(..) => end,
        }
    }

    fn end_row(&self, row: usize) -> usize {
        let Range { start, end } = self.partition.rows;
        match self.frame.end {
            Bound::UnboundedPreceding | Bound::At(..) => start,
            Bound::Preceding(n) => (row + 1).saturating_sub(n).max(start),
            Bound::CurrentRow => row + 1,
            Bound::Following(n) => (row + 1).saturating_add(n).min(end),
            Bound::UnboundedFollowing => end,
        }
    }

    /// Where a group begins; the end of the partition if there is none of that number.
    fn group_start(&self, group: usize) -> usize {
        let start = self.partition.groups.get(group).copied();
        start.unwrap_or(self.partition.rows.end)
    }

    fn first_group(&self) -> usize {
        match self.frame.start {
            Bound::UnboundedPreceding => self.partition.rows.start,
            Bound::Preceding(n) => self.group_start(self.group.saturating_sub(n)),
            Bound::CurrentRow => self.group_start(self.group),
            Bound::Following(n) => self.group_start(self.group.saturating_add(n)),
            Bound::UnboundedFollowing | Bound::At(..) => self.partition.rows.end,
        }
    }

    fn end_group(&self) -> usize {
        let next = self.group + 1;
        match self.frame.end {
            Bound::UnboundedPreceding | Bound::At(..) => self.partition.rows.start,
            Bound::Preceding(n) => self.group_start(next.saturating_sub(n)),
            Bound::CurrentRow => self.group_start(next),
            Bound::Following(n) => self.group_start(next.saturating_add(n)),
            Bound::UnboundedFollowing => self.partition.rows.end,
        }
    }
}

/// The part of a range that is in the frame.
fn within(part: Range<usize>, frame: &Range<usize>) -> Range<usize> {
    let start = part.start.max(frame.start);
    start..part.end.min(frame.end).max(start)
}

#[cfg(test)]
mod tests {
    use super::super::tests::frame;
    use super::*;

    const ROWS: Partition<'static> = Partition {
        rows: 10..20,
        begins: true,
        groups: &[10, 13, 14, 18],
    };

    /// The frames of ten rows in groups that begin at rows 0, 3, 4 and 8.
    fn frames(unit: FrameUnit, start: Bound, end: Bound) -> Vec<Range<usize>> {
        let (frame, partition) = (frame(unit, start, end), ROWS);
        let mut frames = Frames::new(&frame, None, &partition);
        (10..20)
            .map(|row| frames.of(row).expect("a frame"))
            .collect()
    }

    /// What is left of the frames from the row before to the one after.
    fn rest(exclude: FrameExclusion) -> Vec<Vec<usize>> {
        let (start, end) = (Bound::Preceding(1), Bound::Following(1));
        let frame = Frame {
            exclude,
            ..frame(FrameUnit::Rows, start, end)
        };
        let partition = ROWS;
        let mut frames = Frames::new(&frame, None, &partition);
        (10..20)
            .map(|row| {
                let frame = frames.of(row).expect("a frame");
                frames.rest(row, &frame).into_iter().flatten().collect()
            })
            .collect()
    }

    #[test]
    fn rows_are_counted_within_the_partition() {
        use Bound::{Following, Preceding, UnboundedFollowing};
        let around = frames(FrameUnit::Rows, Preceding(2), Following(1));
        assert_eq!(around[0], 10..12);
        assert_eq!(around[5], 13..17);
        assert_eq!(around[9], 17..20);
        let before = frames(FrameUnit::Rows, Preceding(3), Preceding(2));
        assert!(before[0].is_empty() && before[1].is_empty());
        assert_eq!(before[2], 10..11);
        assert_eq!(before[9], 16..18);
        let after = frames(FrameUnit::Rows, Following(usize::MAX), UnboundedFollowing);
        assert!(after.iter().all(Range::is_empty));
        let backwards = frames(FrameUnit::Rows, Following(2), Following(1));
        assert!(backwards.iter().all(Range::is_empty));
    }

    #[test]
    fn peers_share_a_frame() {
        use Bound::{CurrentRow, UnboundedFollowing, UnboundedPreceding};
        let until = frames(FrameUnit::Range, UnboundedPreceding, CurrentRow);
        assert_eq!(until[0], 10..13);
        assert_eq!(until[2], 10..13);
        assert_eq!(until[3], 10..14);
        assert_eq!(until[9], 10..20);
        let from = frames(FrameUnit::Range, CurrentRow, UnboundedFollowing);
        assert_eq!(from[1], 10..20);
        assert_eq!(from[4], 14..20);
    }

    #[test]
    fn groups_are_counted_as_rows_are() {
        use Bound::{Following, Preceding};
        let around = frames(FrameUnit::Groups, Preceding(1), Following(1));
        assert_eq!(around[0], 10..14);
        assert_eq!(around[3], 10..18);
        assert_eq!(around[9], 14..20);
        let before = frames(FrameUnit::Groups, Preceding(2), Preceding(2));
        assert!(before[3].is_empty());
        assert_eq!(before[4], 10..13);
        let after = frames(FrameUnit::Groups, Following(1), Following(2));
        assert_eq!(after[0], 13..18);
        assert_eq!(after[4], 18..20);
        assert!(after[9].is_empty());
    }

    #[test]
    fn rows_are_excluded() {
        let none = rest(FrameExclusion::NoOthers);
        assert_eq!(none[0], [10, 11]);
        assert_eq!(none[4], [13, 14, 15]);
        let current = rest(FrameExclusion::CurrentRow);
        assert_eq!(current[0], [11]);
        assert_eq!(current[4], [13, 15]);
        let group = rest(FrameExclusion::Group);
        assert!(group[0].is_empty());
        assert_eq!(group[2], [13]);
        assert_eq!(group[3], [12, 14]);
        assert_eq!(group[4], [13]);
        let ties = rest(FrameExclusion::Ties);
        assert_eq!(ties[0], [10]);
        assert_eq!(ties[2], [12, 13]);
        assert_eq!(ties[3], [12, 13, 14]);
        assert_eq!(ties[9], [19]);
    }

    #[test]
    fn nothing_is_left_of_a_frame_of_other_rows() {
        let frame = Frame {
            exclude: FrameExclusion::Ties,
            ..frame(FrameUnit::Rows, Bound::Following(2), Bound::Following(1))
        };
        let partition = ROWS;
        let mut frames = Frames::new(&frame, None, &partition);
        let empty = frames.of(10).expect("a frame");
        assert_eq!(frames.rest(10, &empty).into_iter().flatten().count(), 0);
    }
}
