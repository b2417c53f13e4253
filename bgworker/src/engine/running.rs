//! A fragment under way.
//!
//! A task of its own drives the plan, so that [`Running::next`] can answer a cancellation while
//! an operator computes. Dropping [`Running`] aborts that task and with it all others.

use super::error::{cancelled, internal, wire};
use super::fair::Member;
use super::memory::QueryPool;
use super::stats::Counters;
use super::widths::used_bytes;
use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use datafusion_common::DataFusionError;
use datafusion_execution::TaskContext;
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::display::DisplayableExecutionPlan;
use futures::{FutureExt, StreamExt};
use pg_lake_plan::message::{ErrorCode, ScanStats, WireError};
use pg_lake_plan::types::LakeType;
use pg_lake_ring::Progress;
use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// Batches that wait for the receiver.
const QUEUE: usize = 2;

/// One that has more bytes waits until none is before it.
const LARGE_BYTES: usize = 4 << 20;

/// What a query has read, and takes of what it shares with others.
#[derive(Clone, Debug)]
pub struct Usage {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) pool: Arc<QueryPool>,
    pub(super) counters: Arc<Counters>,
}

impl Usage {
    /// All but the rows that were delivered.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress {
            memory_bytes: self.pool.reserved() as u64,
            memory_peak: self.pool.peak(),
            ..self.counters.progress()
        };
        add_spills(self.plan.as_ref(), &mut progress);
        progress
    }
}

/// Adds what the operators have written to temporary files. (The files themselves go when they are opened to be read.)
fn add_spills(plan: &dyn ExecutionPlan, progress: &mut Progress) {
    if let Some(metrics) = plan.metrics() {
        progress.spilled_bytes += metrics.spilled_bytes().unwrap_or(0) as u64;
        progress.spilled_files += metrics.spill_count().unwrap_or(0) as u64;
    }
    for input in plan.children() {
        add_spills(input.as_ref(), progress);
    }
}

/// Rows on their way to the receiver, and their memory, which is counted until these have been sent.
struct Delivery {
    batch: RecordBatch,
    memory: MemoryReservation,
}

/// `Ok(None)` is the end; a channel that closes without it broke off.
type Item = Result<Option<Delivery>, WireError>;

/// One execution of a fragment.
pub struct Running {
    /// Types of the result's columns.
    pub types: Vec<LakeType>,
    batches: mpsc::Receiver<Item>,
    /// Of the rows that were handed out last.
    handed_out: Option<MemoryReservation>,
    driver: AbortHandle,
    usage: Usage,
    /// It has a share of the cores.
    _member: Member,
    cancel: CancellationToken,
    started: Instant,
    elapsed_us: Option<u64>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("types", &self.types)
            .finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Running {
    pub(super) fn start(
        types: Vec<LakeType>,
        context: Arc<TaskContext>,
        usage: Usage,
        member: Member,
        cancel: CancellationToken,
    ) -> Self {
        let (sender, batches) = mpsc::channel(QUEUE);
        let task = member.gated(drive(usage.plan.clone(), context, sender));
        let driver = tokio::spawn(task).abort_handle();
        Running {
            types,
            batches,
            handed_out: None,
            driver,
            usage,
            _member: member,
            cancel,
            started: Instant::now(),
            elapsed_us: None,
        }
    }

    /// The next rows; `None` at the end. After the end or an error it isn't called again. The rows of the last call aren't
    /// needed any more.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, WireError> {
        self.handed_out = None;
        let item = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(cancelled()),
            item = self.batches.recv() => {
                item.unwrap_or_else(|| Err(internal("the query's task ended early")))
            }
        };
        match item {
            Ok(Some(Delivery { batch, memory })) => {
                self.handed_out = Some(memory);
                Ok(Some(batch))
            }
            Ok(None) => {
                self.stop();
                Ok(None)
            }
            Err(error) => {
                self.stop();
                Err(error)
            }
        }
    }

    /// What it takes, now and later, while it runs.
    pub fn usage(&self) -> Usage {
        self.usage.clone()
    }

    fn stop(&mut self) {
        self.driver.abort();
        self.elapsed_us = Some(self.elapsed());
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// What has been done so far.
    pub fn stats(&self) -> ScanStats {
        let text = DisplayableExecutionPlan::with_metrics(self.usage.plan.as_ref())
            .indent(false)
            .to_string();
        ScanStats {
            elapsed_us: self.elapsed_us.unwrap_or_else(|| self.elapsed()),
            memory_peak: self.usage.pool.peak(),
            operators: text.lines().map(str::to_owned).collect(),
            ..self.usage.counters.snapshot()
        }
    }
}

async fn drive(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    sender: mpsc::Sender<Item>,
) {
    let run = AssertUnwindSafe(run(plan, context, &sender)).catch_unwind();
    let end = match run.await {
        Ok(Ok(())) => Ok(None),
        Ok(Err(error)) => Err(error),
        Err(panic) => Err(panicked(panic.as_ref())),
    };
    // Nobody listens any more: nothing is left to tell.
    let _ = sender.send(end).await;
}

async fn run(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    sender: &mpsc::Sender<Item>,
) -> Result<(), WireError> {
    let limit = context.runtime_env().disk_manager.max_temp_directory_size();
    let results = MemoryConsumer::new("LakeResult").register(context.memory_pool());
    let failed = |error: DataFusionError| with_limit(wire(&error), limit);
    let mut stream = plan.execute(0, context).map_err(failed)?;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(failed)?;
        // They are there, whatever the limits: others get less.
        let memory = results.new_empty();
        memory.grow(bytes(&batch));
        let places = match memory.size() > LARGE_BYTES {
            true => QUEUE,
            false => 1,
        };
        let Ok(mut places) = sender.reserve_many(places).await else {
            return Ok(());
        };
        if let Some(place) = places.next() {
            place.send(Ok(Some(Delivery { batch, memory })));
        }
    }
    Ok(())
}

/// What the rows take: they may be parts of arrays that somebody else has reserved.
fn bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    let bytes = columns
        .map(|column| used_bytes(column).unwrap_or_else(|_| column.get_buffer_memory_size()));
    bytes.sum()
}

/// Says what the limit was, in bytes here, as Postgres does in `FileWrite` (fd.c).
fn with_limit(error: WireError, limit: u64) -> WireError {
    if error.code != ErrorCode::TempFileLimit {
        return error;
    }
    let message = format!("{} ({}kB)", error.message, limit / 1024);
    WireError { message, ..error }
}

fn panicked(panic: &(dyn Any + Send)) -> WireError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    internal(&format!(
        "panic: {}",
        text.unwrap_or_else(|| "without a message".to_owned())
    ))
}
