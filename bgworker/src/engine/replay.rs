//! Fed rows that are read more than once: each step of a recursion scans its tables anew, and a feed comes once.
//!
//! Rows are kept as they are first read, no further than somebody wants them. Once they don't fit the rest is written to a
//! file, as a whole: then readers needn't know of each other.

use super::Feed;
use super::aside::{RowFile, Spills, Written};
use super::error::wire;
use super::join_table::own_bytes;
use arrow::record_batch::RecordBatch;
use datafusion_execution::SendableRecordBatchStream;
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::{StreamExt, stream};
use pg_lake_plan::message::WireError;
use std::fmt;
use std::sync::{Arc, OnceLock};
use tokio::sync::Mutex;

/// What all feeds of a recursion keep in memory takes at most this part of the query's.
const SHARE: usize = 4;

/// A feed, and what has been read of it.
pub(super) struct Replay {
    kept: Arc<Mutex<Kept>>,
    room: Arc<OnceLock<Room>>,
}

/// Where rows are kept.
struct Room {
    /// Bytes in memory.
    most: usize,
    spills: Spills,
}

struct Kept {
    /// What is left.
    feed: Option<Feed>,
    batches: Vec<RecordBatch>,
    memory: MemoryReservation,
    /// What comes after them.
    file: Option<RowFile>,
    /// Rows are missing: nobody may take what is there for all.
    failed: Option<WireError>,
}

/// What a reader goes on with.
enum Next {
    Batch(RecordBatch),
    File(Written),
    End,
}

enum Place {
    /// The number of the next batch.
    Batch(usize),
    File(SendableRecordBatchStream),
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replay")
    }
}

impl Replay {
    pub(super) fn new(feed: Feed, pool: &Arc<dyn MemoryPool>) -> Self {
        let kept = Kept {
            feed: Some(feed),
            batches: vec![],
            memory: MemoryConsumer::new("LakeRecursionFeed")
                .with_can_spill(true)
                .register(pool),
            file: None,
            failed: None,
        };
        Replay {
            kept: Arc::new(Mutex::new(kept)),
            room: Arc::default(),
        }
    }

    /// Before it is read: where its rows go that don't fit, being one of so many feeds.
    pub(super) fn spill_to(&self, spills: &Spills, feeds: usize) {
        self.room.get_or_init(|| Room {
            most: spills.share(SHARE.saturating_mul(feeds)),
            spills: spills.clone(),
        });
    }

    /// All rows, from the first one on.
    pub(super) fn again(&self) -> Feed {
        let (kept, room) = (self.kept.clone(), self.room.clone());
        stream::try_unfold(Place::Batch(0), move |place| {
            let (kept, room) = (kept.clone(), room.clone());
            async move {
                let mut file = match place {
                    Place::File(file) => file,
                    Place::Batch(at) => match kept.lock().await.next(at, room.get()).await? {
                        Next::Batch(batch) => return Ok(Some((batch, Place::Batch(at + 1)))),
                        Next::File(written) => written.read().map_err(|e| wire(&e))?,
                        Next::End => return Ok(None),
                    },
                };
                let next = file.next().await.transpose().map_err(|e| wire(&e))?;
                Ok::<_, WireError>(next.map(|batch| (batch, Place::File(file))))
            }
        })
        .boxed()
    }
}

impl Kept {
    /// A reader that stops here leaves all that others need to go on.
    async fn next(&mut self, at: usize, room: Option<&Room>) -> Result<Next, WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = self.go_on(at, room).await;
        if let Err(error) = &next {
            self.failed = Some(error.clone());
        }
        next
    }

    async fn go_on(&mut self, at: usize, room: Option<&Room>) -> Result<Next, WireError> {
        if let Some(batch) = self.batches.get(at) {
            return Ok(Next::Batch(batch.clone()));
        }
        if self.file.is_none() {
            let Some(batch) = self.read().await? else {
                return Ok(Next::End);
            };
            if self.keep(&batch, room)? {
                return Ok(Next::Batch(batch));
            }
        }
        while let Some(batch) = self.read().await? {
            if let Some(file) = &mut self.file {
                file.add(batch).map_err(|e| wire(&e))?;
            }
            // Batches are written at once. Who isn't wanted any more ends here.
            tokio::task::yield_now().await;
        }
        let written = match &mut self.file {
            Some(file) => file.written().map_err(|e| wire(&e))?,
            None => None,
        };
        Ok(written.map_or(Next::End, Next::File))
    }

    async fn read(&mut self) -> Result<Option<RecordBatch>, WireError> {
        let Some(feed) = &mut self.feed else {
            return Ok(None);
        };
        let next = feed.next().await.transpose()?;
        if next.is_none() {
            self.feed = None;
        }
        Ok(next)
    }

    /// Whether a batch stays in memory; otherwise it begins the file.
    fn keep(&mut self, batch: &RecordBatch, room: Option<&Room>) -> Result<bool, WireError> {
        let bytes = own_bytes(batch);
        let total = self.memory.size().saturating_add(bytes);
        let fits = room.is_none_or(|room| total <= room.most);
        let grown = match fits {
            true => self.memory.try_grow(bytes),
            false => Ok(()),
        };
        match (grown, room) {
            (Ok(()), _) if fits => {
                self.batches.push(batch.clone());
                Ok(true)
            }
            (Err(error), None) => Err(wire(&error)),
            (_, Some(room)) => {
                let mut file = RowFile::new(&room.spills, batch.schema());
                file.add(batch.clone()).map_err(|e| wire(&e))?;
                self.file = Some(file);
                Ok(false)
            }
            // It fits where there is no room to be measured.
            (Ok(()), None) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use datafusion_execution::TaskContext;
    use datafusion_execution::memory_pool::GreedyMemoryPool;
    use datafusion_execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
    use datafusion_physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
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

    fn room(limit: usize) -> (Spills, Arc<RuntimeEnv>) {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(limit)))
            .build_arc()
            .expect("a runtime");
        let context = TaskContext::default().with_runtime(runtime.clone());
        let metrics = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        (Spills::new(&context, metrics), runtime)
    }

    /// Some stop early, also while the file is written.
    #[tokio::test]
    async fn rows_that_do_not_fit_come_from_a_file() {
        for (limit, in_file) in [(1 << 20, false), (40, true), (1, true)] {
            let (spills, runtime) = room(limit);
            let batches = (0..10).map(|number| Ok(numbers(2 * number)));
            // A batch is there when it is asked for the second time.
            let feed = stream::iter(batches).then(|batch| async move {
                tokio::task::yield_now().await;
                batch
            });
            let replay = Replay::new(feed.boxed(), &runtime.memory_pool);
            replay.spill_to(&spills, 1);
            for _ in 0..5 {
                let mut reader = replay.again();
                let _ = futures::poll!(reader.next());
            }
            // In a file there are larger ones.
            let first = replay.again().next().await.expect("a batch");
            assert!(values(&[first.expect("rows")]).starts_with(&[0, 1]));
            for _ in 0..2 {
                let all: Vec<RecordBatch> = replay.again().try_collect().await.expect("rows");
                assert!(values(&all).into_iter().eq(0..20), "{limit}");
            }
            assert_eq!(runtime.disk_manager.used_disk_space() > 0, in_file);
            drop(replay);
            assert_eq!(runtime.disk_manager.used_disk_space(), 0);
            assert_eq!(runtime.memory_pool.reserved(), 0);
        }
    }

    #[tokio::test]
    async fn all_readers_see_that_rows_are_missing() {
        let error = WireError::new(ErrorCode::Internal, "a test");
        let feed = stream::iter([Ok(numbers(0)), Err(error.clone())]).boxed();
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
        let replay = Replay::new(feed, &pool);
        for _ in 0..2 {
            let all: Result<Vec<RecordBatch>, WireError> = replay.again().try_collect().await;
            assert_eq!(all.expect_err("no end"), error);
        }
    }

    #[tokio::test]
    async fn without_files_rows_that_do_not_fit_are_an_error() {
        let all: Result<Vec<RecordBatch>, WireError> = replay(1).again().try_collect().await;
        assert_eq!(all.expect_err("no memory").code, ErrorCode::OutOfMemory);
    }
}
