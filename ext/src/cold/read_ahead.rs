//! How many rows are read at once for a caller that asks for one row after another.
//!
//! Numbers only, no Postgres call, so that it can be tested without a server.
#![deny(unsafe_code)]

use std::ops::Range;

/// Rows of the longest read.
const RUN_MAX: u64 = 4096;
/// A row that close behind the last read counts as going on.
const NEAR: u64 = 64;

/// Where a caller stands.
#[derive(Default)]
pub struct ReadAhead {
    last: Range<u64>,
}

impl ReadAhead {
    /// The end of the next read, which begins at `row` and is to reach `least`.
    pub fn end(&mut self, row: u64, least: u64) -> u64 {
        let length = self.last.end - self.last.start;
        let going_on = length > 0 && row >= self.last.start && row <= self.last.end + NEAR + length;
        let length = if going_on {
            (length * 2).min(RUN_MAX)
        } else {
            1
        };
        self.last = row..(row + length).max(least);
        self.last.end
    }
}

#[cfg(test)]
mod tests {
    use super::{NEAR, RUN_MAX, ReadAhead};

    #[test]
    fn reads_grow_while_they_go_on() {
        let mut ahead = ReadAhead::default();
        assert_eq!(ahead.end(100, 101), 101);
        assert_eq!(ahead.end(101, 102), 103);
        assert_eq!(ahead.end(103, 104), 107);
        assert_eq!(ahead.end(9000, 9001), 9001);
        assert_eq!(ahead.end(10, 300), 300);
    }

    #[test]
    fn a_read_has_a_limit_and_a_gap_ends_the_run() {
        let mut ahead = ReadAhead::default();
        let mut row = 0;
        for _ in 0..20 {
            row = ahead.end(row, row + 1);
        }
        assert_eq!(ahead.end(row, row + 1), row + RUN_MAX);
        let far = row + RUN_MAX + NEAR + RUN_MAX + 1;
        assert_eq!(ahead.end(far, far + 1), far + 1);
        // What is asked for is read, however much that is.
        assert_eq!(ahead.end(0, 2 * RUN_MAX), 2 * RUN_MAX);
    }
}
