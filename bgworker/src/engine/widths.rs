//! How wide rows are, and so how many of them fit into a batch whichever come together.

use super::BATCH_ROWS;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Widths are told apart by powers of two; wider ones than the last are none that a batch can have.
const CLASSES: usize = 41;

/// What a value takes beside its bytes.
const OFFSET_BYTES: usize = 4;

/// A batch is cut if it has more than so many times the bytes that it should: parts are copies.
pub(super) const CUT_FROM: usize = 4;

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

    /// The same if there are more rows than were seen, as wide as the widest of these.
    pub(super) fn batch_rows_of_more(&self, bytes: usize) -> usize {
        let seen = |count: &AtomicUsize| count.load(Ordering::Relaxed) > 0;
        match self.0.iter().rposition(seen) {
            Some(class) => (bytes >> class).clamp(1, BATCH_ROWS),
            None => BATCH_ROWS,
        }
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
            widths.add(column);
        }
        widths
    }

    fn add(&mut self, column: &ArrayRef) {
        match column.data_type() {
            DataType::Utf8 => self.vary(column.as_string::<i32>().value_offsets(), 1),
            DataType::Binary => self.vary(column.as_binary::<i32>().value_offsets(), 1),
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                let elements = list.value_offsets();
                let ends = match list.values().data_type() {
                    DataType::Utf8 => list.values().as_string::<i32>().value_offsets(),
                    DataType::Binary => list.values().as_binary::<i32>().value_offsets(),
                    _ => return self.vary(elements, average(list.values())),
                };
                // Where in the bytes of all elements a list begins.
                let place = |element: &i32| ends.get(*element as usize).copied();
                let places: Vec<i32> = elements.iter().filter_map(place).collect();
                self.vary(&places, 1);
                self.vary(elements, OFFSET_BYTES);
            }
            DataType::Struct(_) => {
                for field in column.as_struct().columns() {
                    self.add(field);
                }
            }
            _ => self.same += average(column),
        }
    }

    fn vary(&mut self, offsets: &[i32], each: usize) {
        self.same += OFFSET_BYTES;
        self.varying.resize(self.count, 0);
        let ends = offsets.iter().skip(1);
        for ((start, end), width) in offsets.iter().zip(ends).zip(&mut self.varying) {
            *width += usize::try_from(end - start).unwrap_or(0) * each;
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

    /// These pieces, which share the batch's arrays.
    pub(super) fn pieces(
        &self,
        batch: &RecordBatch,
        bytes: usize,
    ) -> impl Iterator<Item = RecordBatch> {
        let mut start = 0;
        self.cut(bytes).into_iter().map(move |rows| {
            let from = start;
            start += rows;
            batch.slice(from, rows)
        })
    }
}

/// Bytes of a value.
fn average(column: &ArrayRef) -> usize {
    let bytes = used_bytes(column).unwrap_or_else(|_| column.get_buffer_memory_size());
    bytes.div_ceil(column.len().max(1))
}

/// Bytes of an array's values: of a part of a larger one, without those of the rest. (Arrow's count has all elements of a list's
/// array, whichever part of it that is.)
///
/// # Errors
///
/// As `ArrayData::get_slice_memory_size`: the type has no sizes.
pub(super) fn used_bytes(array: &ArrayRef) -> Result<usize, ArrowError> {
    let mut bytes = array.nulls().map_or(0, |nulls| nulls.len().div_ceil(8));
    match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            let place = |offset: Option<&i32>| offset.map_or(0, |offset| *offset as usize);
            let (first, end) = (place(offsets.first()), place(offsets.last()));
            bytes += offsets.len() * OFFSET_BYTES;
            bytes += used_bytes(&list.values().slice(first, end.saturating_sub(first)))?;
            Ok(bytes)
        }
        DataType::Struct(_) => {
            for field in array.as_struct().columns() {
                bytes += used_bytes(field)?;
            }
            Ok(bytes)
        }
        _ => array.to_data().get_slice_memory_size(),
    }
}

/// The same of all columns.
pub(super) fn used_by_rows(batch: &RecordBatch) -> Result<usize, ArrowError> {
    batch.columns().iter().map(used_bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, ListBuilder, StringArray, StringBuilder, StructArray};
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
        assert_eq!(Widths::default().batch_rows_of_more(1), BATCH_ROWS);
        let few = Widths::default();
        few.add(&RowWidths::of(&batch(&[10, 90_000])));
        assert_eq!(few.batch_rows(1 << 20), BATCH_ROWS);
        assert_eq!(few.batch_rows_of_more(1 << 20), 8);
        assert_eq!(few.batch_rows_of_more(1), 1);
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

    /// Lists with one text each, of so many bytes, beside numbers in structs.
    fn nested(lengths: &[usize]) -> RecordBatch {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for length in lengths {
            lists.values().append_value("x".repeat(*length));
            lists.append(true);
        }
        let lists: ArrayRef = Arc::new(lists.finish());
        let texts = lengths.iter().map(|length| "x".repeat(*length));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let field = Arc::new(Field::new("t", DataType::Utf8, false));
        let structs: ArrayRef = Arc::new(StructArray::from(vec![(field, texts)]));
        RecordBatch::try_from_iter([("l", lists), ("s", structs)]).expect("two columns")
    }

    #[test]
    fn values_in_values_have_widths() {
        let lengths = [10, 90_000, 10, 0, 20_000, 1];
        let widths = RowWidths::of(&nested(&lengths));
        for (length, width) in lengths.iter().zip(&widths.varying) {
            assert!((2 * length..2 * length + 10).contains(width), "{width}");
        }
        assert_eq!(widths.cut(1000), [1, 1, 2, 1, 1]);
        let part = nested(&lengths).slice(1, 2);
        let widths = RowWidths::of(&part);
        for (length, width) in lengths.iter().skip(1).zip(&widths.varying) {
            assert!((2 * length..2 * length + 10).contains(width), "{width}");
        }
    }

    #[test]
    fn parts_use_what_their_rows_do() {
        let batch = nested(&[50_000, 10, 50_000, 10]);
        let whole = used_by_rows(&batch).expect("sizes");
        assert!((200_040..200_400).contains(&whole), "{whole}");
        let part = used_by_rows(&batch.slice(1, 1)).expect("sizes");
        assert!((20..200).contains(&part), "{part}");
        let widths = RowWidths::of(&batch);
        let pieces = widths.pieces(&batch, 20_000);
        let rows: Vec<usize> = pieces.map(|piece| piece.num_rows()).collect();
        assert_eq!(rows, [1, 1, 1, 1]);
    }
}
