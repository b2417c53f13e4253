//! Which rows are in the frame of each row: `update_frameheadpos` and `update_frametailpos` of `nodeWindowAgg.c`.

use super::chunk::Partition;
use pg_lake_plan::ir::{Frame, FrameBound, FrameUnit};
use std::ops::Range;

/// The frames of a partition's rows, which are asked for in their order. Neither end of them ever moves back.
pub(super) struct Frames<'a> {
    frame: &'a Frame,
    partition: &'a Partition<'a>,
    /// The number of the current row's group among those of the partition.
    group: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn new(frame: &'a Frame, partition: &'a Partition<'a>) -> Self {
        Frames {
            frame,
            partition,
            group: 0,
        }
    }

    /// The frame of a row; its end may lie before its start, then it is empty.
    pub(super) fn of(&mut self, row: usize) -> Range<usize> {
        match self.frame.unit {
            FrameUnit::Rows => self.first_row(row)..self.end_row(row),
            FrameUnit::Range | FrameUnit::Groups => {
                while self.group_start(self.group + 1) <= row {
                    self.group += 1;
                }
                self.first_group()..self.end_group()
            }
        }
    }

    fn first_row(&self, row: usize) -> usize {
        let Range { start, end } = self.partition.rows;
        match self.frame.start {
            FrameBound::UnboundedPreceding => start,
            FrameBound::Preceding(n) => row.saturating_sub(count(n)).max(start),
            FrameBound::CurrentRow => row,
            FrameBound::Following(n) => row.saturating_add(count(n)).min(end),
            FrameBound::UnboundedFollowing => end,
        }
    }

    fn end_row(&self, row: usize) -> usize {
        let Range { start, end } = self.partition.rows;
        match self.frame.end {
            FrameBound::UnboundedPreceding => start,
            FrameBound::Preceding(n) => (row + 1).saturating_sub(count(n)).max(start),
            FrameBound::CurrentRow => row + 1,
            FrameBound::Following(n) => (row + 1).saturating_add(count(n)).min(end),
            FrameBound::UnboundedFollowing => end,
        }
    }

    /// Where a group begins; the end of the partition if there is none of that number.
    fn group_start(&self, group: usize) -> usize {
        let start = self.partition.groups.get(group).copied();
        start.unwrap_or(self.partition.rows.end)
    }

    fn first_group(&self) -> usize {
        match self.frame.start {
            FrameBound::UnboundedPreceding => self.partition.rows.start,
            FrameBound::Preceding(n) => self.group_start(self.group.saturating_sub(count(n))),
            FrameBound::CurrentRow => self.group_start(self.group),
            FrameBound::Following(n) => self.group_start(self.group.saturating_add(count(n))),
            FrameBound::UnboundedFollowing => self.partition.rows.end,
        }
    }

    fn end_group(&self) -> usize {
        let next = self.group + 1;
        match self.frame.end {
            FrameBound::UnboundedPreceding => self.partition.rows.start,
            FrameBound::Preceding(n) => self.group_start(next.saturating_sub(count(n))),
            FrameBound::CurrentRow => self.group_start(next),
            FrameBound::Following(n) => self.group_start(next.saturating_add(count(n))),
            FrameBound::UnboundedFollowing => self.partition.rows.end,
        }
    }
}

fn count(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames of ten rows in groups that begin at rows 0, 3, 4 and 8.
    fn frames(unit: FrameUnit, start: FrameBound, end: FrameBound) -> Vec<Range<usize>> {
        let frame = Frame { unit, start, end };
        let partition = Partition {
            rows: 10..20,
            begins: true,
            groups: &[10, 13, 14, 18],
        };
        let mut frames = Frames::new(&frame, &partition);
        (10..20).map(|row| frames.of(row)).collect()
    }

    #[test]
    fn rows_are_counted_within_the_partition() {
        use FrameBound::{Following, Preceding, UnboundedFollowing};
        let around = frames(FrameUnit::Rows, Preceding(2), Following(1));
        assert_eq!(around[0], 10..12);
        assert_eq!(around[5], 13..17);
        assert_eq!(around[9], 17..20);
        let before = frames(FrameUnit::Rows, Preceding(3), Preceding(2));
        assert!(before[0].is_empty() && before[1].is_empty());
        assert_eq!(before[2], 10..11);
        assert_eq!(before[9], 16..18);
        let after = frames(FrameUnit::Rows, Following(u64::MAX), UnboundedFollowing);
        assert!(after.iter().all(Range::is_empty));
        let backwards = frames(FrameUnit::Rows, Following(2), Following(1));
        assert!(backwards.iter().all(Range::is_empty));
    }

    #[test]
    fn peers_share_a_frame() {
        use FrameBound::{CurrentRow, UnboundedFollowing, UnboundedPreceding};
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
        use FrameBound::{Following, Preceding};
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
}
