//! Fed rows that are read more than once: each step of a recursion scans its tables anew, and a feed comes once.
//!
//! Rows are kept as they are first read, no further than somebody wants them.

use super::Feed;
use super::error::wire;
use super::join_table::own_bytes;
use arrow::record_batch::RecordBatch;
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::{StreamExt, stream};
use pg_lake_plan::message::WireError;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Mutex;

/// A feed, and what has been read of it.
pub(super) struct Replay(Arc<Mutex<Kept>>);

struct Kept {
    /// What is left.
    feed: Option<Feed>,
    batches: Vec<RecordBatch>,
    memory: MemoryReservation,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replay")
    }
}

impl Replay {
    pub(super) fn new(feed: Feed, pool: &Arc<dyn MemoryPool>) -> Self {
        Replay(Arc::new(Mutex::new(Kept {
            feed: Some(feed),
            batches: vec![],
            memory: MemoryConsumer::new("LakeRecursionFeed").register(pool),
        })))
    }

    /// All rows, from the first one on.
    pub(super) fn again(&self) -> Feed {
        let kept = self.0.clone();
        stream::try_unfold((kept, 0_usize), |(kept, at)| async move {
            let next = kept.lock().await.batch(at).await?;
            Ok::<_, WireError>(next.map(|batch| (batch, (kept, at + 1))))
        })
        .boxed()
    }
}

impl Kept {
    async fn batch(&mut self, at: usize) -> Result<Option<RecordBatch>, WireError> {
        if let Some(batch) = self.batches.get(at) {
            return Ok(Some(batch.clone()));
        }
        let Some(feed) = &mut self.feed else {
            return Ok(None);
        };
        let Some(batch) = feed.next().await.transpose()? else {
            self.feed = None;
            return Ok(None);
        };
        let grown = self.memory.try_grow(own_bytes(&batch));
        grown.map_err(|e| wire(&e))?;
        self.batches.push(batch.clone());
        Ok(Some(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use datafusion_execution::memory_pool::GreedyMemoryPool;
    use futures::TryStreamExt;
    use pg_lake_plan::message::ErrorCode;

    fn numbers(first: i32) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, true)]));
        let numbers = Int32Array::from_iter_values(first..first + 2);
        RecordBatch::try_new(schema, vec![Arc::new(numbers)]).expect("one column")
    }

    fn replay(limit: usize) -> Replay {
        let feed = stream::iter([Ok(numbers(0)), Ok(numbers(2))]).boxed();
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(limit));
        Replay::new(feed, &pool)
    }

    fn values(batches: &[RecordBatch]) -> Vec<i32> {
        let columns = batches.iter().map(|batch| batch.column(0));
        columns
            .flat_map(|column| column.as_primitive::<Int32Type>().values().to_vec())
            .collect()
    }

    #[tokio::test]
    async fn rows_come_again_also_after_a_reader_that_stopped() {
        let replay = replay(1 << 20);
        let first = replay.again().next().await.expect("a batch");
        assert_eq!(values(&[first.expect("rows")]), [0, 1]);
        for _ in 0..2 {
            let all: Vec<RecordBatch> = replay.again().try_collect().await.expect("rows");
            assert_eq!(values(&all), [0, 1, 2, 3]);
        }
    }

    #[tokio::test]
    async fn rows_that_do_not_fit_are_an_error() {
        let all: Result<Vec<RecordBatch>, WireError> = replay(1).again().try_collect().await;
        assert_eq!(all.expect_err("no memory").code, ErrorCode::OutOfMemory);
    }
}
