//! Batches of sorted rows, with about as many bytes as they should have.
//!
//! How many rows a merge puts together is known before it begins: so few that the widest ones that there are may meet in a
//! batch. Where most rows are narrow, most of its batches are small, and what each one costs, in a file as well as in the operators
//! above, would be most of the work. So small ones become one; and one in which wide rows have met becomes several.

use super::BATCH_ROWS;
use super::error::raise;
use super::join_input::compact;
use super::streams::{Batches, stream_of};
use super::widths::{CUT_FROM, RowWidths};
use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use datafusion_common::Result;
use datafusion_execution::SendableRecordBatchStream;
use datafusion_physical_plan::spill::get_record_batch_memory_size;
use futures::StreamExt;
use std::collections::VecDeque;

/// The same rows in the same order.
pub(super) fn sized(rows: SendableRecordBatchStream, bytes: usize) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let sizing = Sizing {
        rows,
        bytes,
        small: vec![],
        small_rows: 0,
        small_bytes: 0,
        ready: VecDeque::new(),
        is_over: false,
    };
    stream_of(schema, sizing)
}

struct Sizing {
    rows: SendableRecordBatchStream,
    bytes: usize,
    /// What is going to be one batch.
    small: Vec<RecordBatch>,
    small_rows: usize,
    small_bytes: usize,
    /// What comes out before anything else.
    ready: VecDeque<RecordBatch>,
    is_over: bool,
}

impl Batches for Sizing {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if self.is_over {
                return Ok(None);
            }
            match self.rows.next().await.transpose()? {
                Some(batch) => self.add(batch)?,
                None => {
                    self.is_over = true;
                    self.join()?;
                }
            }
        }
    }
}

impl Sizing {
    fn add(&mut self, batch: RecordBatch) -> Result<()> {
        let (rows, bytes) = (batch.num_rows(), get_record_batch_memory_size(&batch));
        if self.small_rows + rows > BATCH_ROWS || self.small_bytes + bytes > self.bytes {
            self.join()?;
        }
        if bytes > self.bytes.saturating_mul(CUT_FROM) {
            return self.cut(&batch);
        }
        self.small.push(batch);
        self.small_rows += rows;
        self.small_bytes += bytes;
        // Large enough not to be copied.
        if self.small_rows >= BATCH_ROWS / 2 || self.small_bytes >= self.bytes / 2 {
            self.join()?;
        }
        Ok(())
    }

    fn join(&mut self) -> Result<()> {
        (self.small_rows, self.small_bytes) = (0, 0);
        let mut small = std::mem::take(&mut self.small);
        if small.len() > 1 {
            let schema = self.rows.schema();
            self.ready.push_back(concat_batches(&schema, &small)?);
        } else {
            self.ready.extend(small.pop());
        }
        Ok(())
    }

    fn cut(&mut self, batch: &RecordBatch) -> Result<()> {
        for piece in RowWidths::of(batch).pieces(batch, self.bytes) {
            self.ready.push_back(compact(piece).map_err(raise)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion_common::DataFusionError;
    use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
    use futures::{TryStreamExt, stream};
    use std::sync::Arc;

    const BYTES: usize = 256 << 10;

    fn batch(first: usize, lengths: &[usize]) -> RecordBatch {
        let texts = lengths.iter().zip(first..);
        let texts = texts.map(|(length, n)| format!("{n} {}", "x".repeat(*length)));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let schema = Schema::new(vec![Field::new("t", DataType::Utf8, false)]);
        RecordBatch::try_new(Arc::new(schema), vec![texts]).expect("a column")
    }

    fn texts(batches: &[RecordBatch]) -> Vec<String> {
        let texts = batches
            .iter()
            .flat_map(|batch| batch.column(0).as_string::<i32>().iter());
        texts
            .map(|text| text.unwrap_or_default().to_owned())
            .collect()
    }

    async fn resized(batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
        let schema = batch(0, &[]).schema();
        let rows = stream::iter(batches.into_iter().map(Ok::<_, DataFusionError>));
        let rows = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
        sized(rows, BYTES).try_collect().await.expect("batches")
    }

    #[tokio::test]
    async fn small_batches_become_one() {
        let given: Vec<RecordBatch> = (0..30_000).map(|n| batch(n, &[10])).collect();
        let found = resized(given.clone()).await;
        assert_eq!(texts(&found), texts(&given));
        assert!(found.len() < 100, "{} batches", found.len());
    }

    #[tokio::test]
    async fn large_batches_become_several() {
        let lengths = [10, 400_000, 20, 30, 500_000, 600_000, 10, 10];
        let given = vec![batch(0, &[5]), batch(1, &lengths), batch(9, &[7])];
        let found = resized(given.clone()).await;
        assert_eq!(texts(&found), texts(&given));
        assert!(found.len() > 5, "{} batches", found.len());
        let largest = found.iter().map(get_record_batch_memory_size).max();
        assert!(largest.is_some_and(|bytes| bytes <= 1 << 20), "{largest:?}");
    }

    #[tokio::test]
    async fn what_is_large_enough_is_not_copied() {
        let given = vec![batch(0, &[20; BATCH_ROWS]), batch(0, &[3; 5])];
        let found = resized(given.clone()).await;
        assert_eq!(texts(&found), texts(&given));
        let [first, _] = found.as_slice() else {
            panic!("{} batches", found.len());
        };
        assert!(Arc::ptr_eq(first.column(0), given[0].column(0)));
        assert!(resized(vec![]).await.is_empty());
    }
}
