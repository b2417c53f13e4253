//! Rows of the sorted input that are computed at once: where partitions and groups of peers begin among them.

use crate::engine::aggregate;
use crate::engine::error::{cancelled, from_arrow, internal, wire};
use crate::engine::expr::boolean;
use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::compute;
use arrow::record_batch::RecordBatch;
use datafusion_execution::memory_pool::MemoryReservation;
use pg_lake_plan::message::WireError;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// After so many rows a loop looks whether the query was cancelled.
const CANCEL_ROWS: usize = 1 << 16;

/// The rows of a batch that begin something, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Starts {
    pub(in crate::engine) partitions: Vec<usize>,
    /// Groups of peers. A partition begins with one.
    pub(in crate::engine) groups: Vec<usize>,
}

impl Starts {
    /// What comes before a row, and what comes from there on.
    fn split(mut self, row: usize) -> (Starts, Starts) {
        let after = Starts {
            partitions: split(&mut self.partitions, row),
            groups: split(&mut self.groups, row),
        };
        (self, after)
    }
}

fn split(starts: &mut Vec<usize>, row: usize) -> Vec<usize> {
    let mut after = starts.split_off(starts.partition_point(|start| *start < row));
    for start in &mut after {
        *start -= row;
    }
    after
}

/// Finds where something begins, batch after batch.
pub(in crate::engine) struct Cutter {
    /// So many of the keys are those to partition by, the others make peers.
    partition_keys: usize,
    /// The keys of the last row.
    last: Option<Vec<ArrayRef>>,
}

impl Cutter {
    pub(in crate::engine) fn new(partition_keys: usize) -> Self {
        Cutter {
            partition_keys,
            last: None,
        }
    }

    /// `keys` are those of all rows of the next batch, which has some.
    pub(in crate::engine) fn starts(
        &mut self,
        keys: &[ArrayRef],
        rows: usize,
    ) -> Result<Starts, WireError> {
        let partitions = keys.get(..self.partition_keys).unwrap_or(keys);
        let last = self.last.as_deref();
        let last_partition = last.map(|last| last.get(..self.partition_keys).unwrap_or(last));
        let partitions = changes(partitions, last_partition)?;
        let groups = match keys.len() > self.partition_keys {
            true => changes(keys, last)?,
            false => partitions.clone(),
        };
        let starts = Starts { partitions, groups };
        let row = UInt64Array::from(vec![rows.saturating_sub(1) as u64]);
        let mut copies = vec![];
        for key in keys {
            copies.push(compute::take(key, &row, None).map_err(|e| from_arrow(&e))?);
        }
        self.last = Some(copies);
        Ok(starts)
    }
}

/// Rows whose keys aren't those of the row before, which is `last` for the first one.
fn changes(keys: &[ArrayRef], last: Option<&[ArrayRef]>) -> Result<Vec<usize>, WireError> {
    let first = match last {
        None => true,
        Some(last) => differ(keys, last)?,
    };
    let starts: Vec<usize> = match keys {
        [] => vec![0],
        keys => {
            let same = compute::partition(keys).map_err(|e| from_arrow(&e))?;
            same.ranges().into_iter().map(|range| range.start).collect()
        }
    };
    Ok(starts.into_iter().skip(usize::from(!first)).collect())
}

/// Whether the first row has other keys than `last`.
fn differ(keys: &[ArrayRef], last: &[ArrayRef]) -> Result<bool, WireError> {
    if keys.is_empty() {
        return Ok(false);
    }
    let mut pairs = vec![];
    for (key, last) in keys.iter().zip(last) {
        let first = key.slice(0, 1);
        let pair: [&dyn Array; 2] = [last.as_ref(), first.as_ref()];
        pairs.push(compute::concat(&pair).map_err(|e| from_arrow(&e))?);
    }
    let ranges = compute::partition(&pairs).map_err(|e| from_arrow(&e))?;
    Ok(ranges.len() > 1)
}

/// A batch, or a part of it, and what the functions need to know of its rows.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) batch: RecordBatch,
    /// Arguments and filters of the functions.
    pub(super) args: Vec<ArrayRef>,
    pub(super) starts: Starts,
    /// Memory that is accounted for it.
    pub(super) bytes: usize,
}

impl Piece {
    pub(super) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The rows before `row`, and the others; the memory stays with these.
    pub(super) fn split(self, row: usize) -> (Piece, Piece) {
        let rest = self.rows().saturating_sub(row);
        let (before, after) = self.starts.split(row);
        let slice = |from, rows| self.args.iter().map(|arg| arg.slice(from, rows)).collect();
        let first = Piece {
            batch: self.batch.slice(0, row),
            args: slice(0, row),
            starts: before,
            bytes: 0,
        };
        let second = Piece {
            batch: self.batch.slice(row, rest),
            args: slice(row, rest),
            starts: after,
            bytes: self.bytes,
        };
        (first, second)
    }
}

/// Where an aggregate finds its argument and its filter among those of a piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input {
    /// `None`: `count(*)`
    pub(super) arg: Option<usize>,
    pub(super) filter: Option<usize>,
}

/// Consecutive rows, numbered from 0.
pub(super) struct Chunk {
    pub(super) pieces: Vec<Piece>,
    starts: Starts,
    rows: usize,
    cancel: CancellationToken,
    memory: Arc<MemoryReservation>,
    /// What results have taken of it, for each piece.
    reserved: RefCell<Vec<usize>>,
}

/// The rows of one partition within a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Partition<'a> {
    pub(super) rows: Range<usize>,
    /// False: there were rows of it in earlier chunks.
    pub(super) begins: bool,
    /// Where groups of peers begin. The first one may have begun in an earlier chunk.
    pub(super) groups: &'a [usize],
}

impl Chunk {
    pub(super) fn new(
        pieces: Vec<Piece>,
        cancel: CancellationToken,
        memory: Arc<MemoryReservation>,
    ) -> Self {
        let (mut starts, mut rows) = (Starts::default(), 0);
        for piece in &pieces {
            let shift = |start: &usize| rows + start;
            let partitions = piece.starts.partitions.iter();
            starts.partitions.extend(partitions.map(shift));
            starts.groups.extend(piece.starts.groups.iter().map(shift));
            rows += piece.rows();
        }
        let reserved = RefCell::new(vec![0; pieces.len()]);
        Chunk {
            pieces,
            starts,
            rows,
            cancel,
            memory,
            reserved,
        }
    }

    /// Takes memory for a result that belongs to a piece.
    pub(super) fn reserve(&self, piece: usize, bytes: usize) -> Result<(), WireError> {
        if let Some(reserved) = self.reserved.borrow_mut().get_mut(piece) {
            self.memory.try_grow(bytes).map_err(|e| wire(&e))?;
            *reserved += bytes;
        }
        Ok(())
    }

    /// The pieces, which account for the results as well.
    pub(super) fn into_pieces(self) -> Vec<Piece> {
        let mut pieces = self.pieces;
        for (piece, reserved) in pieces.iter_mut().zip(self.reserved.into_inner()) {
            piece.bytes += reserved;
        }
        pieces
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = Partition<'_>> {
        let mut groups = self.starts.groups.as_slice();
        let mut starts = self.starts.partitions.iter().copied().peekable();
        let mut start = 0;
        std::iter::from_fn(move || {
            if start >= self.rows {
                return None;
            }
            let begins = starts.next_if_eq(&start).is_some();
            let end = starts.peek().copied().unwrap_or(self.rows);
            let (own, rest) = groups.split_at(groups.partition_point(|group| *group < end));
            groups = rest;
            let rows = start..end;
            start = end;
            Some(Partition {
                rows,
                begins,
                groups: own,
            })
        })
    }

    /// One array for each piece from one for all rows.
    pub(super) fn cut(&self, array: &ArrayRef) -> Vec<ArrayRef> {
        let mut start = 0;
        let parts = self.pieces.iter().map(|piece| {
            let part = array.slice(start, piece.rows());
            start += piece.rows();
            part
        });
        parts.collect()
    }

    /// An argument, piece by piece.
    pub(super) fn arg(&self, at: usize) -> Result<Vec<&ArrayRef>, WireError> {
        let args = self.pieces.iter().map(|piece| piece.args.get(at));
        let args: Option<Vec<&ArrayRef>> = args.collect();
        args.ok_or_else(|| internal("an argument of a window function is missing"))
    }

    /// Which rows an aggregate takes: the argument isn't null, and the filter is true.
    pub(super) fn taken(&self, input: Input) -> Result<Vec<bool>, WireError> {
        let args = input.arg.map(|at| self.arg(at)).transpose()?;
        let filters = input.filter.map(|at| self.arg(at)).transpose()?;
        let mut taken = Vec::with_capacity(self.rows);
        for (at, piece) in self.pieces.iter().enumerate() {
            self.check_cancelled()?;
            let arg = args.as_ref().and_then(|args| args.get(at));
            let filter = filters.as_ref().and_then(|filters| filters.get(at));
            let filter = filter.map(|filter| boolean(filter)).transpose()?;
            let nulls = arg.and_then(|arg| arg.logical_nulls());
            match aggregate::taken(nulls.as_ref(), filter) {
                None => taken.resize(taken.len() + piece.rows(), true),
                Some(rows) => taken.extend(rows.iter()),
            }
        }
        Ok(taken)
    }

    /// An error if the query was cancelled.
    pub(super) fn check_cancelled(&self) -> Result<(), WireError> {
        match self.cancel.is_cancelled() {
            true => Err(cancelled()),
            false => Ok(()),
        }
    }

    /// The same once in many steps: for loops that may take long.
    pub(super) fn check_at(&self, step: usize) -> Result<(), WireError> {
        match step % CANCEL_ROWS {
            0 => self.check_cancelled(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{chunk_of, int_piece, ints};
    use super::*;

    #[test]
    fn what_begins_is_found_across_batches() {
        let mut cutter = Cutter::new(1);
        let keys = [
            ints(&[Some(1), Some(1), None]),
            ints(&[Some(5), None, None]),
        ];
        let first = cutter.starts(&keys, 3).expect("starts");
        assert_eq!(first.partitions, [0, 2]);
        assert_eq!(first.groups, [0, 1, 2]);
        let keys = [
            ints(&[None, None, Some(2)]),
            ints(&[None, Some(1), Some(1)]),
        ];
        let second = cutter.starts(&keys, 3).expect("starts");
        assert_eq!(second.partitions, [2]);
        assert_eq!(second.groups, [1, 2]);
    }

    #[test]
    fn without_keys_only_the_first_row_begins_something() {
        let mut cutter = Cutter::new(0);
        assert_eq!(cutter.starts(&[], 3).expect("starts").groups, [0]);
        let second = cutter.starts(&[], 3).expect("starts");
        assert_eq!(second, Starts::default());
    }

    #[test]
    fn partitions_of_pieces_join() {
        let first = int_piece(&[1, 2, 3], &[0, 2], &[0, 1, 2]);
        let (first, second) = first.split(1);
        assert_eq!(second.starts.groups, [0, 1]);
        let third = int_piece(&[4, 5], &[1], &[1]);
        let pieces = vec![first, second, third];
        let chunk = chunk_of(pieces);
        let partitions: Vec<Partition<'_>> = chunk.partitions().collect();
        let partition = |rows, groups| Partition {
            rows,
            begins: true,
            groups,
        };
        assert_eq!(
            partitions,
            [
                partition(0..2, &[0, 1][..]),
                partition(2..4, &[2]),
                partition(4..5, &[4]),
            ]
        );
    }

    #[test]
    fn a_partition_that_goes_on_says_so() {
        let pieces = vec![int_piece(&[1, 2, 3], &[2], &[1, 2])];
        let chunk = chunk_of(pieces);
        let begins: Vec<(bool, usize)> = chunk
            .partitions()
            .map(|partition| (partition.begins, partition.groups.len()))
            .collect();
        assert_eq!(begins, [(false, 1), (true, 1)]);
    }
}
