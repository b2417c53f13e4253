//! Sorts that spill, and merges of what they give, with batches that are bounded by bytes.
//!
//! DataFusion's have as many rows in each batch as any operator. Where a row has a megabyte that is gigabytes, and a merge of
//! files reserves several times the largest batch of each. So this does by itself what comes before a merge: it cuts wide
//! batches, sorts each, and writes runs to files. Merges are DataFusion's, with so few rows at a time that it doesn't matter
//! which ones come together; `sized` makes batches of what they give. `memory` knows the reservations by the names that
//! DataFusion's sort has for them.

use super::BATCH_ROWS;
use super::error::raise;
use super::join_input::compact;
use super::lower::Operator;
use super::memory::MERGING_FILES;
use super::sized::sized;
use super::unary::{self, Unary};
use super::widths::{RowWidths, Widths, used_by_rows};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_common::{DataFusionError, Result};
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::LexOrdering;
use datafusion_physical_plan::common::spawn_buffered;
use datafusion_physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, SpillMetrics};
use datafusion_physical_plan::sorts::sort::{SortExec, sort_batch_chunked};
use datafusion_physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion_physical_plan::sorts::streaming_merge::{SortedSpillFile, StreamingMergeBuilder};
use datafusion_physical_plan::spill::get_record_batch_memory_size;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_physical_plan::{
    DisplayAs, DisplayFormatType, EmptyRecordBatchStream, ExecutionPlan, ExecutionPlanProperties,
    PlanProperties, SpillManager,
};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::fmt;
use std::sync::Arc;
use tokio::task::yield_now;

/// A partition's share of the query's memory is so many batches; each has so many bytes.
const BATCHES: usize = 16;
const BATCH_BYTES_MIN: usize = 256 << 10;
const BATCH_BYTES_MAX: usize = 4 << 20;

/// So many make what the widest rows may take if they meet in a merge: that is there once, until it is cut.
const BATCHES_MET: usize = BATCHES / 2;
const MET_BYTES_MAX: usize = 32 << 20;

/// Of each file a merge reserves so many of its largest batches: two, each with what is compared. (DataFusion's
/// multi_level_merge.rs)
const RESERVED_OF_FILE: usize = 4;

/// Rows sorted in each partition.
pub(super) fn sorted(input: Operator, ordering: LexOrdering, widths: Arc<Widths>) -> Operator {
    let sorting = Sorting::new(&input, ordering, widths);
    unary::operator(input, sorting)
}

/// One partition of rows that are sorted in each: of what [`sorted`] gives, which has added to these widths, or of others'.
pub(super) fn merged(
    input: Operator,
    ordering: LexOrdering,
    widths: Option<Arc<Widths>>,
) -> Operator {
    let merging = Merging::new(&input, ordering, widths);
    unary::operator(input, merging)
}

/// Bytes of batches.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// What one should have.
    batch: usize,
    /// What the widest rows may have that a merge puts together.
    met: usize,
    /// What all of a partition may have.
    share: usize,
}

impl Sizes {
    fn of(context: &TaskContext, partitions: usize) -> Self {
        let share = match context.memory_pool().memory_limit() {
            MemoryLimit::Finite(limit) => limit / partitions.max(1),
            MemoryLimit::Infinite | MemoryLimit::Unknown => usize::MAX,
        };
        let batch = (share / BATCHES).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX);
        let met = (share / BATCHES_MET).clamp(batch, MET_BYTES_MAX);
        Sizes { batch, met, share }
    }
}

#[derive(Debug)]
struct Sorting {
    /// Isn't executed: it knows what is known of its rows.
    like: SortExec,
    widths: Arc<Widths>,
}

impl Sorting {
    fn new(input: &Operator, ordering: LexOrdering, widths: Arc<Widths>) -> Self {
        let like = SortExec::new(ordering, input.clone()).with_preserve_partitioning(true);
        Sorting { like, widths }
    }
}

impl Unary for Sorting {
    const NAME: &'static str = "SortExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.like.fmt_as(DisplayFormatType::Default, f)
    }

    fn properties(&self, _input: &Operator) -> PlanProperties {
        PlanProperties::clone(self.like.properties())
    }

    fn over(&self, input: &Operator) -> Self {
        Sorting::new(input, self.like.expr().clone(), self.widths.clone())
    }

    fn execute(
        &self,
        input: &Operator,
        partition: usize,
        context: Arc<TaskContext>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<SendableRecordBatchStream> {
        let schema = input.schema();
        let mut rows = input.execute(partition, context.clone())?;
        let baseline = BaselineMetrics::new(metrics, partition);
        let merge_memory = format!("ExternalSorterMerge[{partition}]");
        let execution = &context.session_config().options().execution;
        let mut sorter = Sorter {
            schema: schema.clone(),
            ordering: self.like.expr().clone(),
            widths: self.widths.clone(),
            sizes: Sizes::of(&context, input.output_partitioning().partition_count()),
            batches: vec![],
            files: vec![],
            memory: MemoryConsumer::new(format!("ExternalSorter[{partition}]"))
                .with_can_spill(true)
                .register(context.memory_pool()),
            merge_memory: MemoryConsumer::new(merge_memory).register(context.memory_pool()),
            files_memory: MemoryConsumer::new(format!("{MERGING_FILES}[{partition}]"))
                .register(context.memory_pool()),
            for_merge: execution.sort_spill_reservation_bytes,
            in_place: execution.sort_in_place_threshold_bytes,
            spills: SpillManager::new(
                context.runtime_env(),
                SpillMetrics::new(metrics, partition),
                schema.clone(),
            )
            .with_compression_type(context.session_config().spill_compression()),
            metrics: baseline.intermediate(),
        };
        let stream = stream::once(async move {
            while let Some(batch) = rows.next().await.transpose()? {
                sorter.add(batch).await?;
            }
            drop(rows);
            sorter.finish().await
        });
        let stream = stream
            .try_flatten()
            .inspect_ok(move |batch| baseline.record_output(batch.num_rows()));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// One partition's sort.
struct Sorter {
    schema: SchemaRef,
    ordering: LexOrdering,
    /// Of all rows that were added.
    widths: Arc<Widths>,
    sizes: Sizes,
    batches: Vec<RecordBatch>,
    files: Vec<SortedSpillFile>,
    /// Of the batches, which are there twice while they are sorted.
    memory: MemoryReservation,
    /// So much of it is there before there is something to merge.
    merge_memory: MemoryReservation,
    files_memory: MemoryReservation,
    for_merge: usize,
    /// Less than that is sorted at once.
    in_place: usize,
    spills: SpillManager,
    metrics: BaselineMetrics,
}

impl Sorter {
    async fn add(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let widths = RowWidths::of(&batch);
        self.widths.add(&widths);
        for piece in widths.pieces(&batch, self.sizes.batch) {
            self.keep(compact(piece).map_err(raise)?).await?;
        }
        Ok(())
    }

    async fn keep(&mut self, batch: RecordBatch) -> Result<()> {
        self.reserve_for_merge()?;
        let bytes = reserved_bytes(&batch)?;
        if let Err(error) = self.memory.try_grow(bytes) {
            if self.batches.is_empty() {
                return Err(error);
            }
            self.spill().await?;
            self.memory.try_grow(bytes)?;
        }
        self.batches.push(batch);
        Ok(())
    }

    fn reserve_for_merge(&self) -> Result<()> {
        self.merge_memory.try_resize(self.for_merge)
    }

    /// Writes what there is to a file.
    async fn spill(&mut self) -> Result<()> {
        self.merge_memory.free();
        let sorted = self.sorted_batches()?;
        self.write(sorted).await?;
        self.memory.free();
        // What it has given back is in the file, and owed to no merge.
        let _ = self.memory.try_grow(0);
        self.reserve_for_merge()
    }

    async fn write(&mut self, sorted: SendableRecordBatchStream) -> Result<()> {
        let mut sorted = sized(sorted, self.sizes.batch);
        let mut file = self.spills.create_in_progress_file("Sorting")?;
        let mut largest = 0;
        while let Some(batch) = sorted.next().await.transpose()? {
            largest = largest.max(file.append_batch(&batch)?);
            // All may be ready: a poll ends with a batch, so that others get the core and the query can be cancelled.
            yield_now().await;
        }
        if let Some(file) = file.finish()? {
            self.files.push(SortedSpillFile {
                file,
                max_record_batch_memory: largest,
            });
        }
        Ok(())
    }

    /// How many files are merged into one because there are more than can be merged at once. DataFusion does that, too, but
    /// writes what its merge gives as it is: a few rows at a time, if some are wide.
    fn too_many(&self) -> Option<usize> {
        if self.widths.batch_rows(self.sizes.met) >= BATCH_ROWS {
            return None;
        }
        let largest = self.files.iter().map(|file| file.max_record_batch_memory);
        let each = largest.max()?.saturating_mul(RESERVED_OF_FILE).max(1);
        let most = (self.sizes.share / 2 / each).max(2);
        (self.files.len() > most).then_some(most)
    }

    /// All rows in their order.
    async fn finish(mut self) -> Result<SendableRecordBatchStream> {
        let sorted = if self.files.is_empty() {
            self.merge_memory.free();
            self.sorted_batches()?
        } else {
            if !self.batches.is_empty() {
                self.spill().await?;
            }
            while let Some(count) = self.too_many() {
                let merged = self.merge_files(count)?;
                self.write(merged).await?;
                self.reserve_for_merge()?;
            }
            self.merge_files(self.files.len())?
        };
        Ok(sized(sorted, self.sizes.batch))
    }

    /// So many. The one with the smallest batches comes first: then the memory of a merge tells whether it has two of them.
    fn merge_files(&mut self, count: usize) -> Result<SendableRecordBatchStream> {
        self.files.sort_by_key(|file| file.max_record_batch_memory);
        let files = self.files.drain(..count).collect();
        self.merge_memory.free();
        let memory = self.files_memory.new_empty();
        self.merge(memory)
            .with_sorted_spill_files(files)
            .with_spill_manager(self.spills.clone())
            .build()
    }

    fn merge(&self, memory: MemoryReservation) -> StreamingMergeBuilder<'_> {
        StreamingMergeBuilder::new()
            .with_schema(self.schema.clone())
            .with_expressions(&self.ordering)
            .with_metrics(self.metrics.intermediate())
            .with_batch_size(self.widths.batch_rows(self.sizes.met))
            .with_fetch(None)
            .with_reservation(memory)
    }

    /// The batches that are in memory, which go with their reservations.
    fn sorted_batches(&mut self) -> Result<SendableRecordBatchStream> {
        let mut batches = std::mem::take(&mut self.batches);
        if batches.len() > 1 && self.memory.size() < self.in_place {
            let batch = concat_batches(&self.schema, &batches)?;
            self.memory.try_resize(reserved_bytes(&batch)?)?;
            batches = vec![batch];
        }
        if batches.len() <= 1 {
            let memory = self.memory.take();
            return Ok(match batches.pop() {
                Some(batch) => self.sorted_batch(batch, memory),
                None => Box::pin(EmptyRecordBatchStream::new(self.schema.clone())),
            });
        }
        let mut streams = Vec::with_capacity(batches.len());
        for batch in batches {
            let bytes = reserved_bytes(&batch)?.min(self.memory.size());
            let memory = self.memory.split(bytes);
            streams.push(spawn_buffered(self.sorted_batch(batch, memory), 1));
        }
        let memory = self.merge_memory.new_empty();
        self.merge(memory).with_streams(streams).build()
    }

    /// The rows of a batch; what is handed out is no longer reserved.
    fn sorted_batch(
        &self,
        batch: RecordBatch,
        memory: MemoryReservation,
    ) -> SendableRecordBatchStream {
        let ordering = self.ordering.clone();
        let sorted = async move {
            // It isn't large: it would have been cut. Many parts of narrow rows would take more than they did.
            let sorted = sort_batch_chunked(&batch, &ordering, BATCH_ROWS)?;
            drop(batch);
            memory.try_resize(sorted.iter().map(get_record_batch_memory_size).sum())?;
            let sorted = sorted.into_iter().map(move |batch| {
                memory.try_shrink(get_record_batch_memory_size(&batch))?;
                Ok::<_, DataFusionError>(batch)
            });
            Ok::<_, DataFusionError>(stream::iter(sorted))
        };
        let sorted = stream::once(sorted).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), sorted))
    }
}

/// What a batch takes until it is sorted: the memory that it holds, and that of its rows once more.
fn reserved_bytes(batch: &RecordBatch) -> Result<usize> {
    Ok(get_record_batch_memory_size(batch) + used_by_rows(batch)?)
}

#[derive(Debug)]
struct Merging {
    /// Isn't executed: it knows what is known of its rows.
    like: SortPreservingMergeExec,
    /// Of all rows, once there is one of each partition.
    widths: Option<Arc<Widths>>,
}

impl Merging {
    fn new(input: &Operator, ordering: LexOrdering, widths: Option<Arc<Widths>>) -> Self {
        let like = SortPreservingMergeExec::new(ordering, input.clone());
        Merging { like, widths }
    }
}

impl Unary for Merging {
    const NAME: &'static str = "SortPreservingMergeExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.like.fmt_as(DisplayFormatType::Default, f)
    }

    fn properties(&self, _input: &Operator) -> PlanProperties {
        PlanProperties::clone(self.like.properties())
    }

    fn over(&self, input: &Operator) -> Self {
        Merging::new(input, self.like.expr().clone(), self.widths.clone())
    }

    fn execute(
        &self,
        input: &Operator,
        partition: usize,
        context: Arc<TaskContext>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<SendableRecordBatchStream> {
        let schema = input.schema();
        let ordering = self.like.expr().clone();
        let partitions = input.output_partitioning().partition_count();
        let sizes = Sizes::of(&context, partitions);
        let memory = MemoryConsumer::new(format!("SortPreservingMergeExec[{partition}]"))
            .register(context.memory_pool());
        let baseline = BaselineMetrics::new(metrics, partition);
        let widths = self.widths.clone();
        let mut sorted = Vec::with_capacity(partitions);
        for partition in 0..partitions {
            let rows = input.execute(partition, context.clone())?;
            sorted.push(spawn_buffered(rows, 1));
        }
        let of_rows = schema.clone();
        let stream = stream::once(async move {
            // Who has sorted rows to give has seen all. The first error is everybody's.
            let firsts = sorted.into_iter().map(|mut rows| async move {
                let first = rows.next().await.transpose()?;
                Ok::<_, DataFusionError>((first, rows))
            });
            let firsts = try_join_all(firsts).await?;
            let batch_rows = match widths {
                Some(widths) => widths.batch_rows(sizes.met),
                None => {
                    let seen = Widths::default();
                    let batches = firsts.iter().filter_map(|(first, _)| first.as_ref());
                    batches.for_each(|batch| seen.add(&RowWidths::of(batch)));
                    seen.batch_rows_of_more(sizes.met)
                }
            };
            let streams = firsts.into_iter().map(|(first, rows)| {
                let rows = stream::iter(first.map(Ok)).chain(rows);
                let rows = RecordBatchStreamAdapter::new(of_rows.clone(), rows);
                Box::pin(rows) as SendableRecordBatchStream
            });
            let merged = StreamingMergeBuilder::new()
                .with_streams(streams.collect())
                .with_schema(of_rows.clone())
                .with_expressions(&ordering)
                .with_metrics(baseline)
                .with_batch_size(batch_rows)
                .with_fetch(None)
                .with_reservation(memory)
                .build()?;
            Ok::<_, DataFusionError>(sized(merged, sizes.batch))
        });
        let stream = stream.try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

#[cfg(test)]
#[path = "sorting_tests.rs"]
mod tests;
