//! How wide rows are, and so how many of them fit into a batch whichever come together.

use super::BATCH_ROWS;
use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Widths are told apart by powers of two; wider ones than the last are none that a batch can have.
const CLASSES: usize = 41;

/// What a value takes beside its bytes.
const OFFSET_BYTES: usize = 4;

/// A batch is cut if it has more than so many times the bytes that it should: parts are copies.
const CUT_FROM: usize = 4;

/// Rows that were seen, by their widths.
#[derive(Debug)]
pub(super) struct Widths([AtomicUsize; CLASSES]);

impl Default for Widths {
    fn default() -> Self {
        Widths(std::array::from_fn(|_| AtomicUsize::new(0)))
    }
}

impl Widths {
    pub(super) fn add(&self, rows: &RowWidths) {
        let mut counts = [0; CLASSES];
        if rows.varying.is_empty() {
            count(&mut counts, rows.same, rows.count);
        }
        for varying in &rows.varying {
            count(&mut counts, rows.same + varying, 1);
        }
        for (class, count) in self.0.iter().zip(counts) {
            if count > 0 {
                class.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// How many rows a batch may have so that it has not more than so many bytes, or one row, if they are the widest ones
    /// that were seen.
    pub(super) fn batch_rows(&self, bytes: usize) -> usize {
        let (mut rows, mut left) = (0usize, bytes);
        for (class, count) in self.0.iter().enumerate().rev() {
            let count = count.load(Ordering::Relaxed);
            let width = 1usize << class;
            let fit = left / width;
            if fit < count {
                return rows.saturating_add(fit).clamp(1, BATCH_ROWS);
            }
            rows = rows.saturating_add(count);
            left -= count * width;
        }
        BATCH_ROWS
    }
}

/// A row counts as wide as the widest of its class.
fn count(counts: &mut [usize; CLASSES], width: usize, rows: usize) {
    let class = (usize::BITS - width.leading_zeros()) as usize;
    if let Some(count) = counts.get_mut(class.min(CLASSES - 1)) {
        *count += rows;
    }
}

/// The widths of a batch's rows, in bytes.
pub(super) struct RowWidths {
    count: usize,
    /// Of the columns whose values are all as wide.
    same: usize,
    /// Of the others, for each row; empty if there are none.
    varying: Vec<usize>,
}

impl RowWidths {
    pub(super) fn of(batch: &RecordBatch) -> Self {
        let mut widths = RowWidths {
            count: batch.num_rows(),
            same: 0,
            varying: vec![],
        };
        for column in batch.columns() {
            match column.data_type() {
                DataType::Utf8 => {
                    widths.vary(column.as_string::<i32>().value_offsets(), 1);
                }
                DataType::Binary => {
                    widths.vary(column.as_binary::<i32>().value_offsets(), 1);
                }
                DataType::List(_) => {
                    let list = column.as_list::<i32>();
                    widths.vary(list.value_offsets(), average(list.values()));
                }
                _ => widths.same += average(column),
            }
        }
        widths
    }

    fn vary<O: OffsetSizeTrait>(&mut self, offsets: &[O], each: usize) {
        self.same += OFFSET_BYTES;
        self.varying.resize(self.count, 0);
        let ends = offsets.iter().skip(1);
        for ((start, end), width) in offsets.iter().zip(ends).zip(&mut self.varying) {
            *width += end.as_usize().saturating_sub(start.as_usize()) * each;
        }
    }

    /// In pieces of not more than so many bytes, or one row, how many rows each has. A batch that isn't much larger stays
    /// as it is.
    pub(super) fn cut(&self, bytes: usize) -> Vec<usize> {
        let total = self.count * self.same + self.varying.iter().sum::<usize>();
        if total <= bytes.saturating_mul(CUT_FROM) {
            return vec![self.count];
        }
        let (mut pieces, mut rows, mut taken) = (vec![], 0, 0usize);
        for row in 0..self.count {
            let width = self.same + self.varying.get(row).copied().unwrap_or(0);
            if rows > 0 && taken + width > bytes {
                pieces.push(rows);
                (rows, taken) = (0, 0);
            }
            rows += 1;
            taken += width;
        }
        pieces.push(rows);
        pieces
    }
}

/// Bytes of a value.
fn average(column: &ArrayRef) -> usize {
    let bytes = column.to_data().get_slice_memory_size();
    let bytes = bytes.unwrap_or_else(|_| column.get_buffer_memory_size());
    bytes.div_ceil(column.len().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use std::sync::Arc;

    fn batch(lengths: &[usize]) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("t", DataType::Utf8, false),
        ]);
        let numbers = Int64Array::from_iter_values((0..lengths.len()).map(|n| n as i64));
        let texts = lengths.iter().map(|length| "x".repeat(*length));
        let texts = StringArray::from_iter_values(texts);
        let columns: Vec<ArrayRef> = vec![Arc::new(numbers), Arc::new(texts)];
        RecordBatch::try_new(Arc::new(schema), columns).expect("two columns")
    }

    fn rows_of(lengths: &[usize], bytes: usize) -> usize {
        let widths = Widths::default();
        widths.add(&RowWidths::of(&batch(lengths)));
        widths.batch_rows(bytes)
    }

    #[test]
    fn narrow_rows_fill_batches() {
        assert_eq!(Widths::default().batch_rows(1), BATCH_ROWS);
        assert_eq!(rows_of(&[100; 50_000], 4 << 20), BATCH_ROWS);
        // One that is wide changes little.
        let mut lengths = vec![100; 50_000];
        lengths.push(1 << 20);
        assert_eq!(rows_of(&lengths, 4 << 20), BATCH_ROWS);
    }

    #[test]
    fn the_widest_rows_fit_into_a_batch() {
        for (lengths, bytes) in [
            (vec![1000; 50_000], 1 << 20),
            ((0..5000).collect(), 1 << 20),
            (vec![100_000, 1 << 20, 5, 300_000], 1 << 20),
        ] {
            let rows = rows_of(&lengths, bytes);
            let mut widest = lengths.clone();
            widest.sort_unstable_by(|a, b| b.cmp(a));
            let most: usize = widest.iter().take(rows).map(|length| length + 12).sum();
            assert!(rows == 1 || most <= bytes, "{rows} rows of {most} bytes");
            // Not less than half of it is used, unless the next one doesn't fit.
            let more: usize = widest.iter().take(4 * rows).map(|length| length + 12).sum();
            assert!(more > bytes || rows == BATCH_ROWS, "{rows} rows");
        }
    }

    #[test]
    fn wide_batches_are_cut() {
        let widths = RowWidths::of(&batch(&[100; 1000]));
        assert_eq!(widths.cut(100_000), [1000]);
        assert_eq!(widths.cut(1120 * 10), [100; 10]);
        let widths = RowWidths::of(&batch(&[10, 90_000, 10, 10, 20_000, 1]));
        assert_eq!(widths.cut(1000), [1, 1, 2, 1, 1]);
        assert_eq!(widths.cut(1 << 20), [6]);
        assert_eq!(RowWidths::of(&batch(&[])).cut(1), [0]);
    }
}
