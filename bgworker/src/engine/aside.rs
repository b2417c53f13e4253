//! Rows that are put aside to be read several times: in memory up to a share of the query's, in a file beyond it.
//!
//! A file is removed with the last one who reads or keeps it, and `temp_file_limit` holds for it.

use super::BATCH_ROWS;
use super::error::{from_arrow, raise};
use super::join_table::own_bytes;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::Result;
use datafusion_common::config::SpillCompression;
use datafusion_execution::disk_manager::RefCountedTempFile;
use datafusion_execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion_execution::runtime_env::RuntimeEnv;
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_plan::SpillManager;
use datafusion_physical_plan::metrics::SpillMetrics;
use std::sync::Arc;

/// What a batch takes beside its values.
pub(super) const BATCH_BYTES: usize = 1 << 10;

/// Batches that are no larger together become one.
const FEW_BYTES: usize = 1 << 20;

/// Rows wait in memory until there are so many bytes for a file, or fewer if the query has little memory.
const CHUNK_BYTES_MAX: usize = 256 << 10;
const CHUNK_BYTES_MIN: usize = 4 << 10;

/// What waits for one file takes at most this part of the query's memory.
const CHUNK_SHARE: usize = 1024;

/// Of a batch in a file, about.
const PIECE_BYTES: usize = 1 << 20;

/// Where a query's rows go that don't fit.
#[derive(Clone, Debug)]
pub(super) struct Spills {
    runtime: Arc<RuntimeEnv>,
    compression: SpillCompression,
    metrics: SpillMetrics,
}

impl Spills {
    pub(super) fn new(context: &TaskContext, metrics: SpillMetrics) -> Self {
        Spills {
            runtime: context.runtime_env(),
            compression: context.session_config().spill_compression(),
            metrics,
        }
    }

    pub(super) fn pool(&self) -> &Arc<dyn MemoryPool> {
        &self.runtime.memory_pool
    }

    /// One `part`th of the query's memory, in bytes.
    pub(super) fn share(&self, part: usize) -> usize {
        match self.pool().memory_limit() {
            MemoryLimit::Finite(limit) => limit / part.max(1),
            MemoryLimit::Infinite | MemoryLimit::Unknown => usize::MAX,
        }
    }

    fn manager(&self, schema: SchemaRef) -> SpillManager {
        SpillManager::new(self.runtime.clone(), self.metrics.clone(), schema)
            .with_compression_type(self.compression)
    }
}

/// A file that is written: it takes rows, or gives what it has so far. DataFusion's type for it has no public name.
type Writer = Box<dyn FnMut(Option<&RecordBatch>) -> Result<Option<RefCountedTempFile>> + Send>;

/// A file that grows, and can be read in between. It isn't there without rows.
pub(super) struct RowFile {
    schema: SchemaRef,
    spills: SpillManager,
    writer: Option<Writer>,
    /// Small batches become larger ones.
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    memory: MemoryReservation,
    chunk_bytes: usize,
}

impl RowFile {
    pub(super) fn new(spills: &Spills, schema: SchemaRef) -> Self {
        let chunk_bytes = spills.share(CHUNK_SHARE);
        RowFile {
            spills: spills.manager(schema.clone()),
            schema,
            writer: None,
            waiting: vec![],
            waiting_rows: 0,
            memory: MemoryConsumer::new("LakeRowFile").register(spills.pool()),
            chunk_bytes: chunk_bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX),
        }
    }

    /// After the rows that it has. It is an error if they have other types.
    pub(super) fn add(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().to_vec();
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        let batch = batch.map_err(|e| raise(from_arrow(&e)))?;
        // What it takes to write rows is there in any case: without it the query would end.
        self.memory.grow(own_bytes(&batch));
        self.waiting_rows += batch.num_rows();
        self.waiting.push(batch);
        match self.memory.size() < self.chunk_bytes && self.waiting_rows < BATCH_ROWS {
            true => Ok(()),
            false => self.write(),
        }
    }

    /// What has been added so far, to be read before there are more; `None`: no rows.
    pub(super) fn written(&mut self) -> Result<Option<Written>> {
        self.write()?;
        let file = match &mut self.writer {
            Some(writer) => writer(None)?,
            None => None,
        };
        Ok(file.map(|file| Written {
            spills: self.spills.clone(),
            file,
        }))
    }

    fn write(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let batches = std::mem::take(&mut self.waiting);
        let rows = concat_batches(&self.schema, &batches).map_err(|e| raise(from_arrow(&e)))?;
        drop(batches);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(new_file(&self.spills)?),
        };
        // Batches are read as a whole.
        let number = rows.num_rows();
        let each = number.div_ceil(self.memory.size() / PIECE_BYTES + 1).max(1);
        for start in (0..number).step_by(each) {
            (*writer)(Some(&rows.slice(start, each.min(number - start))))?;
        }
        self.waiting_rows = 0;
        self.memory.free();
        Ok(())
    }
}

/// Rows that have been written can be read at once: Arrow's stream ends where its file does.
fn new_file(spills: &SpillManager) -> Result<Writer> {
    let mut file = spills.create_in_progress_file("rows of a recursion")?;
    let writer: Writer = Box::new(move |rows: Option<&RecordBatch>| match rows {
        Some(rows) => file.append_batch(rows).map(|_| None),
        None => file.flush().map(|()| file.file().cloned()),
    });
    Ok(writer)
}

/// The rows of a [`RowFile`].
#[derive(Clone, Debug)]
pub(super) struct Written {
    spills: SpillManager,
    file: RefCountedTempFile,
}

impl Written {
    /// From the first one on, in their order.
    pub(super) fn read(&self) -> Result<SendableRecordBatchStream> {
        self.spills.read_spill_as_stream(self.file.clone(), None)
    }
}

/// Rows while they are put aside.
pub(super) struct Keeping {
    schema: SchemaRef,
    spills: Spills,
    /// Bytes in memory.
    most: usize,
    memory: MemoryReservation,
    batches: Vec<RecordBatch>,
    rows: usize,
    file: Option<RowFile>,
}

impl Keeping {
    /// One `part`th of the query's memory may be taken.
    pub(super) fn new(name: &str, schema: SchemaRef, spills: &Spills, part: usize) -> Self {
        Keeping {
            schema,
            spills: spills.clone(),
            most: spills.share(part),
            memory: MemoryConsumer::new(name)
                .with_can_spill(true)
                .register(spills.pool()),
            batches: vec![],
            rows: 0,
            file: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) fn add(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        if let Some(file) = &mut self.file {
            return file.add(batch);
        }
        let bytes = own_bytes(&batch).saturating_add(BATCH_BYTES);
        let fits = self.memory.size().saturating_add(bytes) <= self.most;
        if fits && self.memory.try_grow(bytes).is_ok() {
            self.batches.push(batch);
            return Ok(());
        }
        let file = RowFile::new(&self.spills, self.schema.clone());
        self.file.insert(file).add(batch)
    }

    pub(super) fn finish(self) -> Result<Aside> {
        let mut batches = self.batches;
        // The next step has as many batches as this one, or more.
        if batches.len() > 1 && self.memory.size() <= FEW_BYTES {
            let whole = concat_batches(&self.schema, &batches);
            batches = vec![whole.map_err(|e| raise(from_arrow(&e)))?];
        }
        let file = match self.file {
            Some(mut file) => file.written()?,
            None => None,
        };
        Ok(Aside {
            batches,
            file,
            rows: self.rows,
            _memory: self.memory,
        })
    }
}

/// Rows that have been put aside, in the order in which they came.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) batches: Vec<RecordBatch>,
    /// After them.
    pub(super) file: Option<Written>,
    pub(super) rows: usize,
    /// For the batches.
    _memory: MemoryReservation,
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion_execution::memory_pool::GreedyMemoryPool;
    use datafusion_execution::runtime_env::RuntimeEnvBuilder;
    use datafusion_physical_plan::metrics::ExecutionPlanMetricsSet;
    use futures::TryStreamExt;

    const ROWS: i64 = 1000;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
    }

    fn batch(number: i64) -> RecordBatch {
        let numbers = Int64Array::from_iter_values(number * ROWS..(number + 1) * ROWS);
        RecordBatch::try_new(schema(), vec![Arc::new(numbers)]).expect("one column")
    }

    fn spills(memory: usize) -> (Spills, Arc<RuntimeEnv>, ExecutionPlanMetricsSet) {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)))
            .build_arc()
            .expect("a runtime");
        let context = TaskContext::default().with_runtime(runtime.clone());
        let metrics = ExecutionPlanMetricsSet::new();
        let spills = Spills::new(&context, SpillMetrics::new(&metrics, 0));
        (spills, runtime, metrics)
    }

    fn values(batches: &[RecordBatch]) -> Vec<i64> {
        let columns = batches.iter().map(|batch| batch.column(0));
        columns
            .flat_map(|column| column.as_primitive::<Int64Type>().values().to_vec())
            .collect()
    }

    async fn all(file: &Written) -> Vec<RecordBatch> {
        let rows = file.read().expect("a stream");
        rows.try_collect().await.expect("rows")
    }

    #[tokio::test]
    async fn rows_are_put_aside_in_memory_and_in_a_file() {
        for (memory, files) in [(8 << 20, 0), (320_000, 1), (1, 1)] {
            let (spills, runtime, metrics) = spills(memory);
            let mut keeping = Keeping::new("a test", schema(), &spills, 4);
            assert!(keeping.is_empty());
            for number in 0..20 {
                keeping.add(batch(number)).expect("room");
            }
            let aside = keeping.finish().expect("rows");
            assert_eq!(aside.rows, 20 * ROWS as usize);
            assert!(runtime.memory_pool.reserved() <= memory / 4);
            // Each reader has all of them.
            for _ in 0..2 {
                let mut batches = aside.batches.clone();
                if let Some(file) = &aside.file {
                    batches.extend(all(file).await);
                }
                assert!(values(&batches).into_iter().eq(0..20 * ROWS), "{memory}");
            }
            let spilled = metrics.clone_inner().spill_count();
            assert_eq!(spilled.unwrap_or(0), files, "{memory}");
            assert_eq!(runtime.disk_manager.used_disk_space() > 0, files > 0);
            drop(aside);
            assert_eq!(runtime.memory_pool.reserved(), 0);
            assert_eq!(runtime.disk_manager.used_disk_space(), 0);
        }
    }

    #[tokio::test]
    async fn a_file_is_read_while_it_grows() {
        let (spills, _, _) = spills(1 << 20);
        let mut file = RowFile::new(&spills, schema());
        assert!(file.written().expect("no error").is_none());
        for number in 0..3 {
            file.add(batch(number)).expect("room");
            let written = file.written().expect("no error").expect("rows");
            let found = values(&all(&written).await);
            assert!(found.into_iter().eq(0..(number + 1) * ROWS));
        }
    }
}
