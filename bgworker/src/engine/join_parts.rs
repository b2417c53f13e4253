//! The rows of one side of a join in files, in parts by the hash of their keys.
//!
//! Rows with equal keys are in the same part. Those with a null key have no partner: they are spread evenly, so that
//! many of them are no obstacle. A file is removed when its part is dropped.

use super::BATCH_ROWS;
use super::error::{from_arrow, internal, raise};
use super::handed::locked;
use super::join_input::{compact, nulls};
use arrow::array::{ArrayRef, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_common::Result;
use datafusion_common::hash_utils::{RandomState, create_hashes};
use datafusion_common::utils::memory::get_record_batch_memory_size;
use datafusion_execution::disk_manager::RefCountedTempFile;
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_plan::metrics::SpillMetrics;
use datafusion_physical_plan::{EmptyRecordBatchStream, SpillManager};
use futures::StreamExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Rows wait in memory until there are so many bytes of a part, or fewer if the query has little memory.
const CHUNK_BYTES_MAX: usize = 256 << 10;
const CHUNK_BYTES_MIN: usize = 4 << 10;

/// A batch in a file is read as a whole, and has to fit: a large one is cut to about so many bytes, or to what may wait.
const PIECE_BYTES: usize = 64 << 10;

/// What waits of all parts takes at most this part of the query's memory.
const CHUNKS_SHARE: usize = 64;

/// A part in its file, which isn't there without rows.
pub(super) struct Part {
    file: Option<RefCountedTempFile>,
    pub(super) rows: usize,
}

/// Where the rows of one side are written to and read from.
pub(super) struct SideFiles {
    spills: SpillManager,
    schema: SchemaRef,
    /// Places of the keys.
    keys: Vec<usize>,
}

impl SideFiles {
    pub(super) fn new(
        schema: SchemaRef,
        keys: Vec<usize>,
        context: &TaskContext,
        metrics: SpillMetrics,
    ) -> Self {
        let spills = SpillManager::new(context.runtime_env(), metrics, schema.clone())
            .with_compression_type(context.session_config().spill_compression());
        SideFiles {
            spills,
            schema,
            keys,
        }
    }

    pub(super) fn read(&self, part: &Part) -> Result<SendableRecordBatchStream> {
        match &part.file {
            Some(file) => self.spills.read_spill_as_stream(file.clone(), None),
            None => Ok(Box::pin(EmptyRecordBatchStream::new(self.schema.clone()))),
        }
    }

    /// Where a key is null.
    pub(super) fn null_keys(&self, batch: &RecordBatch) -> Option<NullBuffer> {
        nulls(batch.columns(), &self.keys)
    }

    fn key_columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = |key: &usize| batch.columns().get(*key).cloned();
        let columns: Option<Vec<ArrayRef>> = self.keys.iter().map(column).collect();
        columns.ok_or_else(|| raise(internal("a column is missing")))
    }
}

/// A file that is written: it is given rows, or nothing at its end. DataFusion's type for it has no public name.
type Writer = Box<dyn FnMut(Option<&RecordBatch>) -> Result<Option<RefCountedTempFile>> + Send>;

/// A part while it is written.
#[derive(Default)]
struct Writing {
    writer: Option<Writer>,
    rows: usize,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
}

/// The parts of one side while they are written, by several tasks.
pub(super) struct Parts {
    files: Arc<SideFiles>,
    hash: RandomState,
    parts: Vec<Mutex<Writing>>,
    memory: MemoryReservation,
    chunk_bytes: usize,
    nulls: AtomicBool,
}

impl Parts {
    /// `count` parts by hashes of this seed.
    pub(super) fn new(
        files: &Arc<SideFiles>,
        seed: u64,
        count: usize,
        context: &TaskContext,
    ) -> Self {
        let chunk_bytes = match context.memory_pool().memory_limit() {
            MemoryLimit::Finite(limit) => limit / (CHUNKS_SHARE * count.max(1)),
            MemoryLimit::Infinite | MemoryLimit::Unknown => CHUNK_BYTES_MAX,
        };
        Parts {
            files: files.clone(),
            hash: RandomState::with_seed(seed),
            parts: (0..count).map(|_| Mutex::default()).collect(),
            memory: MemoryConsumer::new("LakeHashJoinSpill").register(context.memory_pool()),
            chunk_bytes: chunk_bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX),
            nulls: AtomicBool::new(false),
        }
    }

    /// Writes rows. Others may do so meanwhile.
    pub(super) async fn write_batches(&self, batches: Vec<RecordBatch>) -> Result<()> {
        for batch in batches {
            self.write(&batch)?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// As [`Self::write_batches`].
    pub(super) async fn write_all(&self, mut rows: SendableRecordBatchStream) -> Result<()> {
        while let Some(batch) = rows.next().await.transpose()? {
            self.write(&batch)?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Whether a row that was written has a null key.
    pub(super) fn has_nulls(&self) -> bool {
        self.nulls.load(Ordering::Relaxed)
    }

    /// What has been written.
    pub(super) fn finish(&self) -> Result<Vec<Part>> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut part = locked(part);
            self.write_waiting(&mut part)?;
            let file = match part.writer.take() {
                Some(mut writer) => writer(None)?,
                None => None,
            };
            parts.push(Part {
                file,
                rows: part.rows,
            });
        }
        Ok(parts)
    }

    fn write(&self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        for (rows, part) in self.places(batch)?.into_iter().zip(&self.parts) {
            if rows.is_empty() {
                continue;
            }
            let rows = take_record_batch(batch, &UInt32Array::from(rows))?;
            let rows = compact(rows).map_err(raise)?;
            self.write_part(part, rows)?;
        }
        Ok(())
    }

    /// For each part the numbers of its rows.
    fn places(&self, batch: &RecordBatch) -> Result<Vec<Vec<u32>>> {
        let keys = self.files.key_columns(batch)?;
        let mut hashes = vec![0u64; batch.num_rows()];
        create_hashes(&keys, &self.hash, &mut hashes)?;
        let nulls = self.files.null_keys(batch);
        if nulls.is_some() {
            self.nulls.store(true, Ordering::Relaxed);
        }
        let count = self.parts.len().max(1);
        let mut places = vec![vec![]; count];
        for (row, (number, hash)) in (0u32..).zip(hashes).enumerate() {
            let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
            let part = if is_null {
                row % count
            } else {
                // Less than the count.
                (hash % count as u64) as usize
            };
            if let Some(rows) = places.get_mut(part) {
                rows.push(number);
            }
        }
        Ok(places)
    }

    fn write_part(&self, part: &Mutex<Writing>, rows: RecordBatch) -> Result<()> {
        let bytes = get_record_batch_memory_size(&rows);
        self.memory.grow(bytes);
        let mut part = locked(part);
        part.rows += rows.num_rows();
        part.waiting_rows += rows.num_rows();
        part.waiting_bytes += bytes;
        part.waiting.push(rows);
        if part.waiting_bytes < self.chunk_bytes && part.waiting_rows < BATCH_ROWS {
            return Ok(());
        }
        self.write_waiting(&mut part)
    }

    fn write_waiting(&self, part: &mut Writing) -> Result<()> {
        if part.waiting.is_empty() {
            return Ok(());
        }
        let batches = std::mem::take(&mut part.waiting);
        let rows =
            concat_batches(&self.files.schema, &batches).map_err(|e| raise(from_arrow(&e)))?;
        drop(batches);
        let writer = match &mut part.writer {
            Some(writer) => writer,
            none => none.insert(self.new_file()?),
        };
        let most = self.chunk_bytes.max(PIECE_BYTES);
        for piece in pieces(&rows, part.waiting_bytes, most) {
            (*writer)(Some(&piece))?;
        }
        part.waiting_rows = 0;
        self.memory.shrink(std::mem::take(&mut part.waiting_bytes));
        Ok(())
    }

    fn new_file(&self) -> Result<Writer> {
        let mut file = self.files.spills.create_in_progress_file("a join")?;
        let writer: Writer = Box::new(move |rows: Option<&RecordBatch>| match rows {
            Some(rows) => file.append_batch(rows).map(|_| None),
            None => file.finish(),
        });
        Ok(writer)
    }
}

/// Rows of so many bytes, in batches of about `most` where they have several times that.
fn pieces(rows: &RecordBatch, bytes: usize, most: usize) -> impl Iterator<Item = RecordBatch> {
    let number = rows.num_rows();
    let each = match bytes / most.max(1) {
        0..=2 => number,
        count => number.div_ceil(count),
    };
    let starts = (0..number).step_by(each.max(1));
    starts.map(move |start| rows.slice(start, each.min(number - start)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray, Int32Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use datafusion_execution::memory_pool::GreedyMemoryPool;
    use datafusion_execution::runtime_env::RuntimeEnvBuilder;
    use datafusion_physical_plan::metrics::ExecutionPlanMetricsSet;
    use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
    use futures::{TryStreamExt, stream};
    use std::collections::BTreeSet;

    const COUNT: usize = 4;
    const NULLS: usize = 400;

    fn batches() -> Vec<RecordBatch> {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int32, true)]));
        let batch = |keys: Int32Array| {
            RecordBatch::try_new(schema.clone(), vec![Arc::new(keys)]).expect("one column")
        };
        let keys = Int32Array::from_iter_values((0..30_000).map(|i| i % 1000));
        vec![batch(keys), batch(Int32Array::new_null(NULLS))]
    }

    #[tokio::test]
    async fn a_key_is_in_one_part_and_nulls_are_in_all() {
        let context = TaskContext::default();
        let metrics = ExecutionPlanMetricsSet::new();
        let schema = batches()[0].schema();
        let files = Arc::new(SideFiles::new(
            schema.clone(),
            vec![0],
            &context,
            SpillMetrics::new(&metrics, 0),
        ));
        let parts = Parts::new(&files, 7, COUNT, &context);
        let [first, second] = <[RecordBatch; 2]>::try_from(batches()).expect("two");
        let others = RecordBatchStreamAdapter::new(schema, stream::iter([Ok(second)]));
        parts.write_batches(vec![first]).await.expect("rows");
        parts.write_all(Box::pin(others)).await.expect("rows");
        assert!(parts.has_nulls());
        let parts = parts.finish().expect("files");
        assert_eq!(parts.iter().map(|part| part.rows).sum::<usize>(), 30_400);
        let mut seen = BTreeSet::new();
        for part in &parts {
            let rows = files.read(part).expect("a stream");
            let batches: Vec<RecordBatch> = rows.try_collect().await.expect("rows");
            let mut keys = BTreeSet::new();
            let mut nulls = 0;
            for batch in &batches {
                let column = batch.column(0).as_primitive::<Int32Type>();
                keys.extend(column.iter().flatten());
                nulls += column.null_count();
            }
            assert_eq!(nulls, NULLS / COUNT);
            assert!(keys.len() > 100, "a part has {} keys", keys.len());
            assert!(
                keys.iter().all(|key| seen.insert(*key)),
                "a key is in two parts"
            );
        }
        assert_eq!(seen.len(), 1000);
        let spilled = metrics.clone_inner();
        assert_eq!(spilled.spill_count(), Some(COUNT));
        assert_eq!(spilled.spilled_rows(), Some(30_400));
        let runtime = context.runtime_env();
        let manager = &runtime.disk_manager;
        assert!(manager.used_disk_space() > 0);
        drop(parts);
        assert_eq!(manager.used_disk_space(), 0);
    }

    /// Rows of one key can be joined some at a time only if they are read so.
    #[tokio::test]
    async fn a_large_batch_is_read_in_pieces() {
        const ROWS: usize = 2000;
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(16 << 20)))
            .build_arc()
            .expect("a runtime");
        let context = TaskContext::default().with_runtime(runtime);
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int32, true),
            Field::new("wide", DataType::Utf8, true),
        ]));
        let keys = Int32Array::from(vec![7; ROWS]);
        let wide = StringArray::from_iter_values((0..ROWS).map(|i| format!("{i:01000}")));
        let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(wide)];
        let whole = RecordBatch::try_new(schema.clone(), columns).expect("two columns");
        let metrics = ExecutionPlanMetricsSet::new();
        let files = Arc::new(SideFiles::new(
            schema.clone(),
            vec![0],
            &context,
            SpillMetrics::new(&metrics, 0),
        ));
        let parts = Parts::new(&files, 7, COUNT, &context);
        let written = parts.write_batches(vec![whole.clone()]).await;
        written.expect("rows");
        let parts = parts.finish().expect("files");
        let part = parts.iter().find(|part| part.rows > 0).expect("a part");
        let rows = files.read(part).expect("a stream");
        let batches: Vec<RecordBatch> = rows.try_collect().await.expect("rows");
        for batch in &batches {
            let bytes = get_record_batch_memory_size(batch);
            assert!(bytes <= 2 * PIECE_BYTES, "{bytes}");
        }
        assert_eq!(concat_batches(&schema, &batches).expect("a batch"), whole);
    }
}
