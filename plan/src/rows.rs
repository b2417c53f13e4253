//! Which row numbers the rows of a file have.
//!
//! Those of a new file are consecutive. A compaction leaves out deleted rows and puts several files
//! into one, and every row keeps its number: then the numbers ascend with gaps.

use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// The numbers of a file's rows, ascending with their positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowNumbers {
    start: u64,
    end: u64,
    count: u64,
    /// Where consecutive numbers begin: number and position. Empty: all of them are, from `start`.
    #[serde(with = "steps")]
    runs: Arc<[(u64, u64)]>,
}

/// On the wire a run is what comes on top of the one before: a few bytes.
mod steps {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub fn serialize<S: Serializer>(runs: &[(u64, u64)], to: S) -> Result<S::Ok, S::Error> {
        let mut last = (0, 0);
        let steps: Vec<(u64, u64)> = runs
            .iter()
            .map(|run| {
                let step = (run.0.wrapping_sub(last.0), run.1.wrapping_sub(last.1));
                last = *run;
                step
            })
            .collect();
        steps.serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Arc<[(u64, u64)]>, D::Error> {
        let mut last = (0u64, 0u64);
        Vec::<(u64, u64)>::deserialize(from)?
            .into_iter()
            .map(|step| {
                let number = last.0.checked_add(step.0);
                let position = last.1.checked_add(step.1);
                last = number
                    .zip(position)
                    .ok_or_else(|| D::Error::custom("row numbers out of range"))?;
                Ok(last)
            })
            .collect()
    }
}

impl RowNumbers {
    /// `count` numbers from `start`.
    pub fn consecutive(start: u64, count: u64) -> Self {
        RowNumbers {
            start,
            end: start.saturating_add(count),
            count,
            runs: Arc::default(),
        }
    }

    /// The numbers of `runs`, ascending and disjoint, in a range that is the file's alone.
    ///
    /// ```
    /// # use pg_lake_plan::rows::RowNumbers;
    /// let rows = RowNumbers::with_gaps(10..30, [12..14, 20..25]);
    /// assert_eq!((rows.count(), rows.row(2), rows.position(21)), (7, 20, Some(3)));
    /// ```
    pub fn with_gaps(range: Range<u64>, runs: impl IntoIterator<Item = Range<u64>>) -> Self {
        let (mut count, mut after) = (0, None);
        let mut begins = vec![];
        for run in runs.into_iter().filter(|run| !run.is_empty()) {
            if after != Some(run.start) {
                begins.push((run.start, count));
            }
            after = Some(run.end);
            count += run.end - run.start;
        }
        RowNumbers {
            start: range.start,
            end: range.end,
            count,
            runs: begins.into(),
        }
    }

    /// What [`RowNumbers::encode`] made of numbers in a range; `None` if the bytes are damaged.
    pub fn decode(range: Range<u64>, bytes: &[u8]) -> Option<Self> {
        let steps: Vec<(u64, u64)> = crate::decode(bytes).ok()?;
        let mut at = range.start;
        let mut runs = Vec::with_capacity(steps.len());
        for (gap, count) in steps {
            let first = at.checked_add(gap)?;
            at = first.checked_add(count)?;
            runs.push(first..at);
        }
        (at <= range.end).then(|| RowNumbers::with_gaps(range, runs))
    }

    /// The runs in few bytes, `None` for consecutive numbers: postcard of the gap before each run and
    /// its length.
    pub fn encode(&self) -> Option<Vec<u8>> {
        if self.runs.is_empty() {
            return None;
        }
        let mut at = self.start;
        let mut steps = vec![];
        for run in self.runs(0..self.count) {
            steps.push((run.start - at, run.end - run.start));
            at = run.end;
        }
        crate::encode(&steps).ok()
    }

    /// The first number of the file's range.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The number after the file's range.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many rows there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of memory beside the value itself.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.runs)
    }

    /// Whether a number is in the file's range; there need not be such a row.
    pub fn covers(&self, row: u64) -> bool {
        (self.start..self.end).contains(&row)
    }

    /// How many rows have a smaller number.
    pub fn rank(&self, row: u64) -> u64 {
        if self.runs.is_empty() {
            return row.saturating_sub(self.start).min(self.count);
        }
        let after = self.runs.partition_point(|(number, _)| *number <= row);
        let Some((number, position)) = after.checked_sub(1).and_then(|i| self.runs.get(i)) else {
            return 0;
        };
        let next = self.runs.get(after).map_or(self.count, |(_, next)| *next);
        (position + (row - number)).min(next)
    }

    /// The position of a row, `None` if there is no such row.
    pub fn position(&self, row: u64) -> Option<u64> {
        let rank = self.rank(row);
        (rank < self.count && self.row(rank) == row).then_some(rank)
    }

    /// The number of the row at a position, which is less than `count`.
    pub fn row(&self, position: u64) -> u64 {
        let after = self.runs.partition_point(|(_, first)| *first <= position);
        match after.checked_sub(1).and_then(|i| self.runs.get(i)) {
            Some((number, first)) => number + (position - first),
            None => self.start.saturating_add(position),
        }
    }

    /// The numbers of the rows at some positions, as runs of consecutive ones.
    pub fn runs(&self, positions: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = positions.start;
        let end = positions.end.min(self.count);
        let mut next = self.runs.partition_point(|(_, first)| *first <= at);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let until = self
                .runs
                .get(next)
                .map_or(end, |(_, first)| *first)
                .min(end);
            next += 1;
            let first = self.row(at);
            let run = first..first + (until - at);
            at = until;
            Some(run)
        })
    }

    /// The same file for a reader of these positions only, without what is known about others.
    pub fn narrowed(&self, positions: Range<u64>) -> Self {
        let first = self.runs.partition_point(|(_, p)| *p <= positions.start);
        let after = self.runs.partition_point(|(_, p)| *p < positions.end);
        let runs = self.runs.get(first.saturating_sub(1)..after);
        RowNumbers {
            runs: runs.unwrap_or_default().into(),
            ..*self
        }
    }

    /// Whether the numbers ascend, are in the range and fit `bigint`.
    pub fn is_valid(&self) -> bool {
        let ascend = |pair: &[(u64, u64)]| match pair {
            [(a, p), (b, q)] => p < q && b.checked_sub(*a).is_some_and(|n| n >= q - p),
            _ => true,
        };
        let last = match self.runs.last() {
            None => self.start.checked_add(self.count),
            Some((number, position)) => self
                .count
                .checked_sub(*position)
                .and_then(|rest| number.checked_add(rest)),
        };
        self.runs.windows(2).all(ascend)
            && self.runs.first().is_none_or(|(n, _)| *n >= self.start)
            && last.is_some_and(|last| last <= self.end)
            && i64::try_from(self.end).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_gaps() -> (RowNumbers, Vec<u64>) {
        let runs = [5..6, 10..13, 13..15, 40..41, 99..100];
        let numbers = runs.iter().cloned().flatten().collect();
        (RowNumbers::with_gaps(3..120, runs), numbers)
    }

    #[test]
    fn numbers_and_positions_belong_together() {
        let (rows, numbers) = with_gaps();
        assert!(rows.is_valid());
        assert_eq!(rows.count(), numbers.len() as u64);
        for (position, number) in numbers.iter().enumerate() {
            assert_eq!(rows.row(position as u64), *number);
        }
        for row in 0..130 {
            let position = numbers.iter().position(|n| *n == row).map(|p| p as u64);
            assert_eq!(rows.position(row), position, "{row}");
            let rank = numbers.iter().filter(|n| **n < row).count() as u64;
            assert_eq!(rows.rank(row), rank, "{row}");
        }
    }

    #[test]
    fn consecutive_numbers_need_no_runs() {
        let rows = RowNumbers::consecutive(291, 10);
        assert_eq!(rows.encode(), None);
        assert_eq!(
            (rows.row(9), rows.position(300), rows.position(301)),
            (300, Some(9), None)
        );
        assert_eq!((rows.rank(0), rows.rank(295), rows.rank(999)), (0, 4, 10));
        assert_eq!(rows.runs(2..5).collect::<Vec<_>>(), vec![293..296]);
        assert!(rows.is_valid());
    }

    #[test]
    fn bytes_come_back() {
        let (rows, _) = with_gaps();
        let bytes = rows.encode().expect("gaps");
        assert_eq!(RowNumbers::decode(3..120, &bytes), Some(rows.clone()));
        assert_eq!(RowNumbers::decode(3..50, &bytes), None);
        assert_eq!(RowNumbers::decode(3..120, &bytes[..bytes.len() - 1]), None);
        let sent = crate::encode(&rows).expect("a message");
        assert_eq!(crate::decode(&sent), Ok(rows.clone()));
        let runs: Vec<_> = rows.runs(1..6).collect();
        assert_eq!(runs, vec![10..15]);
    }

    #[test]
    fn a_narrowed_file_knows_the_positions_it_was_narrowed_to() {
        let (rows, numbers) = with_gaps();
        for start in 0..rows.count() {
            for end in start + 1..=rows.count() {
                let narrowed = rows.narrowed(start..end);
                assert!(narrowed.is_valid());
                for position in start..end {
                    assert_eq!(narrowed.row(position), numbers[position as usize]);
                }
            }
        }
    }
}
