//! The parts of a join's two sides, joined pair by pair.

use super::error::{internal, raise};
use super::fair::gated;
use super::handed::locked;
use super::join_input::{compact, without_nulls};
use super::join_parts::{Part, Parts, SideFiles};
use super::join_table::{HashJoin, Kept};
use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;
use datafusion_common::{DataFusionError, JoinType, Result};
use datafusion_execution::memory_pool::MemoryLimit;
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_plan::metrics::SpillMetrics;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, future, stream};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// So often a side is divided, by another hash each time.
const LEVELS_MAX: usize = 3;

/// Into so many parts. Each is an open file.
const PARTS_MIN: usize = 4;
const PARTS_MAX: usize = 16;

/// Files of one side that are written at a time.
const FILES_MAX: usize = 128;

/// What is assured to all together is this part of the query's memory.
const ASSURED_SHARE: usize = 16;

/// What makes a join spill.
pub(super) struct Spilling {
    pub(super) join: Arc<HashJoin>,
    pub(super) context: Arc<TaskContext>,
    pub(super) metrics: SpillMetrics,
    /// So many at a time divide the whole sides.
    pub(super) first_at_once: usize,
    /// And so many their parts.
    pub(super) at_once: usize,
}

/// Rows of both sides with the same keys.
struct Pair {
    kept: Part,
    passing: Part,
    /// So often they have been divided.
    level: usize,
}

/// A pair of which some kept rows may have been joined already.
pub(super) struct Work {
    pair: Pair,
    join: Arc<HashJoin>,
    /// The other part's rows are kept.
    reversed: bool,
    /// Kept rows that are still to be joined, and those that were read before them.
    kept: SendableRecordBatchStream,
    first: Option<RecordBatch>,
}

/// Those that are waiting to be joined, by several tasks.
pub(super) struct Pairs {
    join: Arc<HashJoin>,
    context: Arc<TaskContext>,
    kept: Arc<SideFiles>,
    passing: Arc<SideFiles>,
    /// Parts of a part.
    count: usize,
    /// Kept rows with a null key don't come out: those of a null-aware join, if the other side has rows.
    drops_null_keys: bool,
    /// Kept rows of a pair may take so much even if memory is short: others may wait for this join with what they hold.
    assured: usize,
    waiting: Mutex<Vec<Pair>>,
}

impl Pairs {
    /// Divides both sides, `rows` and `rest` of the kept one first.
    pub(super) async fn new(
        spilling: Spilling,
        rows: Kept,
        rest: SendableRecordBatchStream,
        passing: impl FnOnce() -> Result<Vec<SendableRecordBatchStream>>,
    ) -> Result<Pairs> {
        let Spilling {
            join,
            context,
            metrics,
            first_at_once,
            at_once,
        } = spilling;
        let (kept_keys, passing_keys) = (join.kept_keys.clone(), join.passing_keys.clone());
        let kept = SideFiles::new(join.kept_schema(), kept_keys, &context, metrics.clone());
        let others = SideFiles::new(join.passing_schema(), passing_keys, &context, metrics);
        let mut pairs = Pairs {
            assured: assured(&context, at_once),
            join,
            context,
            kept: Arc::new(kept),
            passing: Arc::new(others),
            count: parts(at_once),
            drops_null_keys: false,
            waiting: Mutex::default(),
        };
        let count = parts(first_at_once);
        let kept = pairs.divide_kept(rows, rest, 1, count).await?;
        let (passing, nulls) = pairs.divide_passing(passing()?, 1, count).await?;
        if pairs.join.exec.null_aware {
            if nulls {
                return Ok(pairs);
            }
            pairs.drops_null_keys = passing.iter().any(|part| part.rows > 0);
        }
        pairs.add(kept, passing, 1);
        Ok(pairs)
    }

    /// The next rows that are joined. `rest` is what the caller has begun, and goes on with.
    pub(super) async fn next(
        &self,
        rest: &mut Option<Work>,
    ) -> Result<Option<SendableRecordBatchStream>> {
        loop {
            let begun = match rest.take() {
                Some(work) => Some(work),
                None => self.begin()?,
            };
            let Some(mut work) = begun else {
                return Ok(None);
            };
            let mut rows = Kept::new(&self.context, self.assured);
            let overflow = match work.first.take().and_then(|first| rows.add(first)) {
                Some(first) => Some(first),
                None => rows.fill(&mut work.kept).await?,
            };
            let Some(overflow) = overflow else {
                return self.look_up(rows, &work).map(Some);
            };
            work.first = Some(overflow);
            if work.pair.level < LEVELS_MAX {
                self.divide(work, rows).await?;
            } else if !work.join.is_by_kept_row() {
                drop(rows);
                *rest = Some(self.reversed(work)?);
            } else if rows.is_empty() {
                *rest = Some(halved(work)?);
            } else {
                let joined = self.look_up(rows, &work)?;
                *rest = Some(work);
                return Ok(Some(joined));
            }
        }
    }

    fn begin(&self) -> Result<Option<Work>> {
        let Some(pair) = locked(&self.waiting).pop() else {
            return Ok(None);
        };
        Ok(Some(Work {
            kept: self.read_kept(&pair.kept)?,
            pair,
            join: self.join.clone(),
            reversed: false,
            first: None,
        }))
    }

    /// The other part's rows can be joined some at a time, if they come out for themselves.
    fn reversed(&self, work: Work) -> Result<Work> {
        let Work { pair, join, .. } = work;
        if *join.exec.join_type() == JoinType::Full {
            return Err(too_large());
        }
        Ok(Work {
            kept: self.passing.read(&pair.passing)?,
            pair,
            join: Arc::new(join.reversed()?),
            reversed: true,
            first: None,
        })
    }

    fn read_kept(&self, part: &Part) -> Result<SendableRecordBatchStream> {
        let rows = self.kept.read(part)?;
        if !self.drops_null_keys {
            return Ok(rows);
        }
        let schema = rows.schema();
        let files = self.kept.clone();
        let rows = rows.try_filter_map(move |batch| {
            let nulls = files.null_keys(&batch);
            future::ready(without_nulls(batch, nulls).map_err(raise))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn look_up(&self, rows: Kept, work: &Work) -> Result<SendableRecordBatchStream> {
        let table = rows.build(&work.join, 1, false, &self.context)?;
        let others = if work.reversed {
            self.read_kept(&work.pair.kept)?
        } else {
            self.passing.read(&work.pair.passing)?
        };
        table.look_up(0, others)
    }

    /// Divides a pair of which `rows` have been read.
    async fn divide(&self, work: Work, rows: Kept) -> Result<()> {
        let Work {
            pair, kept, first, ..
        } = work;
        let level = pair.level + 1;
        let rest = chained(first, kept);
        let kept = self.divide_kept(rows, rest, level, self.count).await?;
        let passing = vec![self.passing.read(&pair.passing)?];
        let (passing, _) = self.divide_passing(passing, level, self.count).await?;
        self.add(kept, passing, level);
        Ok(())
    }

    async fn divide_kept(
        &self,
        rows: Kept,
        rest: SendableRecordBatchStream,
        level: usize,
        count: usize,
    ) -> Result<Vec<Part>> {
        let parts = Parts::new(&self.kept, seed(level), count, &self.context);
        let (rows, memory) = rows.into_rows();
        parts.write_batches(rows).await?;
        drop(memory);
        parts.write_all(rest).await?;
        parts.finish()
    }

    /// The parts, and whether there was a null key.
    async fn divide_passing(
        &self,
        streams: Vec<SendableRecordBatchStream>,
        level: usize,
        count: usize,
    ) -> Result<(Vec<Part>, bool)> {
        let parts = Arc::new(Parts::new(&self.passing, seed(level), count, &self.context));
        let mut tasks = JoinSet::new();
        for rows in streams {
            let parts = parts.clone();
            tasks.spawn(gated(async move { parts.write_all(rows).await }));
        }
        while let Some(end) = tasks.join_next().await {
            match end {
                Ok(written) => written?,
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                Err(_) => return Err(raise(internal("a task of a join ended early"))),
            }
        }
        Ok((parts.finish()?, parts.has_nulls()))
    }

    fn add(&self, kept: Vec<Part>, passing: Vec<Part>, level: usize) {
        let total: usize = kept.iter().map(|part| part.rows).sum();
        let is_full = *self.join.exec.join_type() == JoinType::Full;
        let pairs = kept.into_iter().zip(passing);
        let pairs = pairs.filter(|(kept, passing)| kept.rows > 0 || passing.rows > 0);
        locked(&self.waiting).extend(pairs.map(|(kept, passing)| {
            // Another hash will hardly divide rows that this one hasn't.
            let is_last = kept.rows == total && !is_full;
            Pair {
                kept,
                passing,
                level: if is_last { LEVELS_MAX } else { level },
            }
        }));
    }
}

/// Half as many rows come first, where one batch is too large.
fn halved(work: Work) -> Result<Work> {
    let Some(batch) = work.first.filter(|batch| batch.num_rows() > 1) else {
        return Err(too_large());
    };
    let middle = batch.num_rows() / 2;
    let first = copied(&batch, 0, middle)?;
    let second = copied(&batch, middle, batch.num_rows())?;
    Ok(Work {
        first: Some(first),
        kept: chained(Some(second), work.kept),
        ..work
    })
}

/// These rows alone, without the memory of the others.
fn copied(batch: &RecordBatch, start: usize, end: usize) -> Result<RecordBatch> {
    let places = UInt32Array::from_iter_values(start as u32..end as u32);
    compact(take_record_batch(batch, &places)?).map_err(raise)
}

/// Rows that were read already, and the rest.
pub(super) fn chained(
    first: Option<RecordBatch>,
    rest: SendableRecordBatchStream,
) -> SendableRecordBatchStream {
    let schema = rest.schema();
    let rows = stream::iter(first.map(Ok)).chain(rest);
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// How many parts are written where so many are divided at a time.
fn parts(at_once: usize) -> usize {
    (FILES_MAX / at_once.max(1)).clamp(PARTS_MIN, PARTS_MAX)
}

/// Bytes for each of so many that join at a time.
fn assured(context: &TaskContext, at_once: usize) -> usize {
    match context.memory_pool().memory_limit() {
        MemoryLimit::Finite(limit) => limit / (ASSURED_SHARE * at_once.max(1)),
        MemoryLimit::Infinite | MemoryLimit::Unknown => 0,
    }
}

/// Neither that of an exchange, which is 0, nor that of a hash table.
fn seed(level: usize) -> u64 {
    0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(level as u64)
}

fn too_large() -> DataFusionError {
    DataFusionError::ResourcesExhausted(
        "A join keeps more rows with the same key than fit into memory.".to_owned(),
    )
}
