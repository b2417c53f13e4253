//! Functions of a row's place in its partition: `windowfuncs.c`.

use super::chunk::{Chunk, Partition};
use super::program::Evaluator;
use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array};
use pg_lake_plan::message::WireError;
use std::sync::Arc;

/// `row_number`, `rank` and `dense_rank`: a partition may go on in the next chunk.
#[derive(Debug)]
pub(super) struct Numbers {
    kind: Numbered,
    /// Rows of the partition so far.
    rows: i64,
    value: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbered {
    Rows,
    Ranks,
    DenseRanks,
}

impl Numbers {
    pub(super) fn new(kind: Numbered) -> Self {
        Numbers {
            kind,
            rows: 0,
            value: 0,
        }
    }
}

impl Evaluator for Numbers {
    fn evaluate(&mut self, chunk: &Chunk) -> Result<Vec<ArrayRef>, WireError> {
        let mut values = Vec::with_capacity(chunk.rows());
        for partition in chunk.partitions() {
            if partition.begins {
                (self.rows, self.value) = (0, 0);
            }
            let mut groups = partition.groups.iter().copied().peekable();
            for row in partition.rows {
                chunk.check_at(row)?;
                self.rows += 1;
                let begins = groups.next_if_eq(&row).is_some();
                match self.kind {
                    Numbered::Rows => self.value = self.rows,
                    Numbered::Ranks if begins => self.value = self.rows,
                    Numbered::DenseRanks if begins => self.value += 1,
                    Numbered::Ranks | Numbered::DenseRanks => {}
                }
                values.push(self.value);
            }
        }
        let values: ArrayRef = Arc::new(Int64Array::from(values));
        Ok(chunk.cut(&values))
    }
}

/// `percent_rank` or `cume_dist`, of whole partitions.
#[derive(Debug)]
pub(super) struct Shares {
    /// Counts the rows up to the last peer, otherwise those before the first one.
    pub(super) cumulative: bool,
}

impl Shares {
    fn of_partition(&self, partition: &Partition<'_>, values: &mut Vec<f64>) {
        let rows = &partition.rows;
        let ends = partition.groups.iter().skip(1).copied().chain([rows.end]);
        for (start, end) in partition.groups.iter().copied().zip(ends) {
            let share = match self.cumulative {
                true => (end - rows.start) as f64 / rows.len() as f64,
                false if rows.len() == 1 => 0.0,
                false => (start - rows.start) as f64 / (rows.len() - 1) as f64,
            };
            values.resize(values.len() + (end - start), share);
        }
    }
}

impl Evaluator for Shares {
    fn evaluate(&mut self, chunk: &Chunk) -> Result<Vec<ArrayRef>, WireError> {
        let mut values = Vec::with_capacity(chunk.rows());
        for (number, partition) in chunk.partitions().enumerate() {
            chunk.check_at(number)?;
            self.of_partition(&partition, &mut values);
        }
        let values: ArrayRef = Arc::new(Float64Array::from(values));
        Ok(chunk.cut(&values))
    }
}

/// `ntile`, of whole partitions.
#[derive(Debug)]
pub(super) struct Tiles {
    pub(super) buckets: u32,
}

impl Evaluator for Tiles {
    fn evaluate(&mut self, chunk: &Chunk) -> Result<Vec<ArrayRef>, WireError> {
        let buckets = (self.buckets as usize).max(1);
        let mut values: Vec<i32> = Vec::with_capacity(chunk.rows());
        for (number, partition) in chunk.partitions().enumerate() {
            chunk.check_at(number)?;
            // The first buckets have one row more, as far as there are rows left over.
            let mut left = partition.rows.len();
            let (each, over) = (left / buckets, left % buckets);
            let mut bucket = 0;
            while left > 0 {
                let size = each + usize::from((bucket as usize) < over);
                bucket += 1;
                values.resize(values.len() + size, bucket);
                left = left.saturating_sub(size);
            }
        }
        let values: ArrayRef = Arc::new(Int32Array::from(values));
        Ok(chunk.cut(&values))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{chunk_of, int_piece, results};
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int32Type, Int64Type};

    fn numbers(kind: Numbered, chunks: Vec<Chunk>) -> Vec<i64> {
        let mut numbers = Numbers::new(kind);
        let arrays = chunks.iter().map(|chunk| results(&mut numbers, chunk));
        arrays
            .flat_map(|array| array.as_primitive::<Int64Type>().values().to_vec())
            .collect()
    }

    #[test]
    fn a_partition_is_numbered_across_chunks() {
        let chunks = || {
            vec![
                chunk_of(vec![int_piece(&[7, 7, 8], &[0], &[0, 2])]),
                chunk_of(vec![int_piece(&[8, 9, 1], &[2], &[1, 2])]),
            ]
        };
        assert_eq!(numbers(Numbered::Rows, chunks()), [1, 2, 3, 4, 5, 1]);
        assert_eq!(numbers(Numbered::Ranks, chunks()), [1, 1, 3, 3, 5, 1]);
        assert_eq!(numbers(Numbered::DenseRanks, chunks()), [1, 1, 2, 2, 3, 1]);
    }

    #[test]
    fn shares_of_a_partition() {
        let chunk = chunk_of(vec![int_piece(&[1, 1, 2, 3, 9], &[0, 4], &[0, 2, 3, 4])]);
        let of = |cumulative| {
            let array = results(&mut Shares { cumulative }, &chunk);
            array.as_primitive::<Float64Type>().values().to_vec()
        };
        assert_eq!(of(true), [0.5, 0.5, 0.75, 1.0, 1.0]);
        assert_eq!(of(false), [0.0, 0.0, 2.0 / 3.0, 1.0, 0.0]);
    }

    #[test]
    fn buckets_differ_by_one_row_at_most() {
        let chunk = chunk_of(vec![int_piece(&[0; 7], &[0], &[0])]);
        let of = |buckets| {
            let array = results(&mut Tiles { buckets }, &chunk);
            array.as_primitive::<Int32Type>().values().to_vec()
        };
        assert_eq!(of(3), [1, 1, 1, 2, 2, 3, 3]);
        assert_eq!(of(7), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(of(100), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(of(1), [1; 7]);
    }
}
