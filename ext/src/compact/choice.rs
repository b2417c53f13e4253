//! Which files of a table are worth writing again.
//!
//! Numbers only, no Postgres call, so that it can be tested without a server.
#![deny(unsafe_code)]

use std::ops::Range;

/// How much is worth it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Eagerness {
    /// Any two small neighbours.
    All,
    /// Several of like size, so that a row is written again only a few times while a table grows.
    Tiered,
}

/// Neighbours that are merged at least, of a table that nobody asked to compact.
const TIER: usize = 4;
/// Files below that size count as being of like size.
const TIER_BYTES: u64 = 1 << 20;
/// Files that become one: each takes a lock.
const FILES_MAX: usize = 256;
/// Rows of a new file: positions and lists of deleted rows have limits.
const ROWS_MAX: u64 = 100_000_000;
/// A file of which one row in so many is deleted is written again.
const SPARSE: u64 = 5;

/// What is looked at of a file.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// In bytes.
    pub size: u64,
    pub rows: u64,
    /// How many of its rows are deleted.
    pub deleted: u64,
    /// It has to stay.
    pub pinned: bool,
    /// The partition that its rows are in, encoded.
    pub partition: Vec<u8>,
    /// Between its rows and those of the file before it are others' that somebody may see.
    pub apart: bool,
}

impl Candidate {
    /// Bytes of the rows that aren't deleted.
    fn live_bytes(&self) -> u64 {
        let share = 1.0 - self.deleted as f64 / self.rows.max(1) as f64;
        (self.size as f64 * share) as u64
    }

    fn is_sparse(&self) -> bool {
        self.deleted * SPARSE >= self.rows
    }

    /// Whether it may be written again; a file without rows is dropped by a merge.
    fn may(&self, target: u64) -> bool {
        !self.pinned
            && self.deleted < self.rows
            && (self.live_bytes() < target / 2 || self.is_sparse())
    }
}

/// Groups of neighbours, each for one new file of at most `target` bytes, the last ones first.
pub fn choose(files: &[Candidate], target: u64, eagerness: Eagerness) -> Vec<Range<usize>> {
    let mut groups = vec![];
    let mut end = files.len();
    while end > 0 {
        // Backwards: the last ones are the smallest.
        let (mut start, mut bytes, mut rows) = (end, 0u64, 0u64);
        while let Some(before) = start.checked_sub(1).filter(|i| files[*i].may(target)) {
            let more = files[before].live_bytes();
            let alike = eagerness == Eagerness::All || more <= bytes.max(TIER_BYTES);
            rows += files[before].rows;
            let full = end - start == FILES_MAX || bytes + more > target || rows > ROWS_MAX;
            let apart = files[before].partition != files[end - 1].partition
                || files.get(start).is_some_and(|next| next.apart);
            if start < end && (full || !alike || apart) {
                break;
            }
            (start, bytes) = (before, bytes + more);
        }
        if start == end {
            end -= 1;
            continue;
        }
        let least = match eagerness {
            Eagerness::All => 2,
            Eagerness::Tiered => TIER,
        };
        if end - start >= least {
            groups.push(start..end);
        } else {
            let sparse = (start..end).filter(|i| files[*i].is_sparse());
            groups.extend(sparse.map(|i| i..i + 1));
        }
        end = start;
    }
    groups
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // groups
mod tests {
    use super::*;

    const KB: u64 = 1 << 10;
    const MB: u64 = 1 << 20;
    const NONE: [Range<usize>; 0] = [];

    fn file(size: u64, deleted: u64) -> Candidate {
        Candidate {
            size,
            rows: 100,
            deleted,
            pinned: false,
            partition: vec![],
            apart: false,
        }
    }

    fn files(sizes: &[u64]) -> Vec<Candidate> {
        sizes.iter().map(|size| file(*size, 0)).collect()
    }

    #[test]
    fn neighbours_of_like_size_are_merged() {
        let small = files(&[100 * MB, 9 * MB, 40 * KB, 50 * KB, 60 * KB, 700 * KB]);
        assert_eq!(choose(&small, 128 * MB, Eagerness::Tiered), [2..6]);
        assert_eq!(choose(&small, 128 * MB, Eagerness::All), [1..6]);
        assert_eq!(choose(&small[..5], 128 * MB, Eagerness::Tiered), NONE);
        let large = files(&[60 * MB, 60 * MB, 60 * MB, 60 * MB]);
        assert_eq!(choose(&large, 128 * MB, Eagerness::All), [2..4, 0..2]);
    }

    #[test]
    fn a_growing_table_is_written_again_a_few_times_only() {
        let (mut all, mut written) = (vec![], 0);
        for _ in 0..4096 {
            all.push(file(100 * KB, 0));
            while let Some(group) = choose(&all, 1 << 40, Eagerness::Tiered).first().cloned() {
                let size = all[group.clone()].iter().map(|f| f.size).sum();
                written += size;
                all.splice(group, [file(size, 0)]);
            }
        }
        assert!(all.len() < 32, "{} files", all.len());
        assert!(written < 10 * 4096 * 100 * KB, "{} MB", written / MB);
    }

    #[test]
    fn files_with_many_deleted_rows_are_written_again() {
        let mut all = files(&[100 * MB, 100 * MB, 100 * MB]);
        all[1] = file(100 * MB, 20);
        assert_eq!(choose(&all, 128 * MB, Eagerness::Tiered), [1..2]);
        all[1] = file(100 * MB, 19);
        assert_eq!(choose(&all, 128 * MB, Eagerness::All), NONE);
        all[1] = file(100 * MB, 100);
        assert_eq!(choose(&all, 128 * MB, Eagerness::All), NONE);
    }

    #[test]
    fn partitions_stay_apart() {
        let mut all = files(&[MB; 6]);
        all[0].partition = vec![1];
        all[1].partition = vec![1];
        all[4].partition = vec![2];
        assert_eq!(choose(&all, 128 * MB, Eagerness::All), [2..4, 0..2]);
    }

    #[test]
    fn no_group_reaches_over_rows_of_others() {
        let mut all = files(&[MB; 6]);
        all[0].apart = true;
        all[2].apart = true;
        all[5].apart = true;
        assert_eq!(choose(&all, 128 * MB, Eagerness::All), [2..5, 0..2]);
    }

    #[test]
    fn a_group_has_a_limit() {
        let all = files(&[KB; 600]);
        let groups = choose(&all, 128 * MB, Eagerness::All);
        assert_eq!(groups, [344..600, 88..344, 0..88]);
    }

    #[test]
    fn a_pinned_file_stays() {
        let mut all = files(&[MB, MB, MB, MB, MB]);
        all[2].pinned = true;
        assert_eq!(choose(&all, 128 * MB, Eagerness::All), [3..5, 0..2]);
    }
}
