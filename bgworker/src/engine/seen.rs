//! Which rows of a recursion have come out, for `UNION`: equal ones don't come out again.
//!
//! They are in a table in memory. When it is as large as it may be its rows go to files, in parts by their hash, and it
//! begins anew. From then on a row that isn't in the table waits until the files have been looked through, for many rows at
//! once: at the end of a step, or when no more may wait. Rows stay in their order.

use super::BATCH_ROWS;
use super::aside::{BATCH_BYTES, RowFile, Spills};
use super::error::{cancelled, from_arrow, raise};
use super::join_input::compact;
use super::join_table::own_bytes;
use super::streams::{evaluate, next_rows};
use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::Result;
use datafusion_common::hash_utils::{RandomState, create_hashes};
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion_expr::EmitTo;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The table takes at most this part of the query's memory, or [`LEAST_BYTES`].
const TABLE_SHARE: usize = 4;

/// What waits does so too.
const WAITING_SHARE: usize = 32;

/// Smaller tables are kept, whatever else takes memory: files of few rows would be read for few rows.
const LEAST_BYTES: usize = 256 << 10;

/// What is looked for at once is no more: all of it is hashed before the first row comes from a file.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// A table of texts is no larger: Arrow's arrays of them begin at 32-bit offsets, and DataFusion's tables panic beyond these.
const TEXT_BYTES_MAX: usize = 1 << 30;

/// Of the files only those are read whose parts have rows that wait.
const PARTS: usize = 16;

/// Of the hashes; a table's are others.
const SEED: u64 = 0x7265_6375_7273_6976;

/// The rows that have come out so far, and those that wait to.
pub(super) struct Seen {
    keys: Arc<[Arc<dyn PhysicalExpr>]>,
    schema: SchemaRef,
    spills: Spills,
    cancel: CancellationToken,
    /// Has the rows that wait, too.
    table: Table,
    /// For the table, or what it is written from.
    memory: MemoryReservation,
    most: usize,
    /// By hash; none while the table has all rows.
    parts: Vec<RowFile>,
    hash: RandomState,
    /// All are different.
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    waiting_most: usize,
    /// What comes out next, with its bytes.
    ready: VecDeque<(RecordBatch, usize)>,
    /// For what waits or is ready.
    rows_memory: MemoryReservation,
    /// For what is looked for in files.
    sought_memory: MemoryReservation,
}

/// Rows of a batch that may be in the files.
struct Waiting {
    rows: RecordBatch,
    /// Each one's in the table.
    numbers: Vec<usize>,
    bytes: usize,
}

impl Seen {
    /// `keys`: what rows of this schema are compared by, of the same types.
    pub(super) fn new(
        keys: Arc<[Arc<dyn PhysicalExpr>]>,
        schema: SchemaRef,
        spills: &Spills,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let memory = |name: &str| {
            MemoryConsumer::new(name)
                .with_can_spill(true)
                .register(spills.pool())
        };
        Ok(Seen {
            table: Table::new(&schema)?,
            memory: memory("LakeRecursionRows"),
            most: bytes_max(&schema).min(spills.share(TABLE_SHARE).max(LEAST_BYTES)),
            parts: vec![],
            hash: RandomState::with_seed(SEED),
            waiting: vec![],
            waiting_bytes: 0,
            waiting_most: spills
                .share(WAITING_SHARE)
                .clamp(LEAST_BYTES, WAITING_BYTES_MAX),
            ready: VecDeque::new(),
            rows_memory: memory("LakeRecursionWaiting"),
            sought_memory: memory("LakeRecursionSought"),
            spills: spills.clone(),
            cancel: cancel.clone(),
            keys,
            schema,
        })
    }

    /// Rows that come out, whose order is that in which they were added.
    pub(super) fn pop(&mut self) -> Option<RecordBatch> {
        let (batch, bytes) = self.ready.pop_front()?;
        self.rows_memory.shrink(bytes);
        Some(batch)
    }

    pub(super) async fn add(&mut self, batch: RecordBatch) -> Result<()> {
        let keys = evaluate(&self.keys, &batch)?;
        let (batch, numbers) = self.table.add(&keys, batch)?;
        if batch.num_rows() > 0 && self.parts.is_empty() {
            self.ready.push_back((batch, 0));
        } else if batch.num_rows() > 0 {
            let rows = compact(batch).map_err(raise)?;
            let bytes = own_bytes(&rows) + numbers.len() * size_of::<usize>() + BATCH_BYTES;
            // There are never many; without room for them the query would end.
            self.rows_memory.grow(bytes);
            self.waiting_bytes += bytes;
            self.waiting.push(Waiting {
                rows,
                numbers,
                bytes,
            });
        }
        if self.is_full() {
            self.settle().await?;
            return self.write().await;
        }
        if self.waiting_bytes > self.waiting_most {
            self.settle().await?;
        }
        Ok(())
    }

    /// Lets those rows come out that wait and aren't in the files; whether there is something to come out.
    pub(super) async fn settle(&mut self) -> Result<bool> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        if !waiting.is_empty() {
            let found = self.found(&waiting).await?;
            self.sought_memory.free();
            self.come_out(waiting, &found).await?;
        }
        Ok(!self.ready.is_empty())
    }

    /// Which of the rows, one after the other, are in the files.
    async fn found(&mut self, waiting: &[Waiting]) -> Result<Vec<bool>> {
        let mut keys = Vec::with_capacity(waiting.len());
        let mut wanted = vec![false; PARTS];
        for batch in waiting {
            let columns = evaluate(&self.keys, &batch.rows)?;
            for (wanted, rows) in wanted.iter_mut().zip(self.places(&columns)?) {
                *wanted |= !rows.is_empty();
            }
            keys.push(columns);
            tokio::task::yield_now().await;
        }
        let mut sought = Sought::new(keys, &self.schema, self.waiting_most).await?;
        self.sought_memory.resize(sought.size());
        for (part, wanted) in self.parts.iter_mut().zip(wanted) {
            if !wanted {
                continue;
            }
            let Some(written) = part.written()? else {
                continue;
            };
            let mut rows = written.read()?;
            while let Some(batch) = next_rows(&mut rows, &self.cancel).await? {
                sought.find(batch.columns()).await?;
                // It can't be less; more begins anew.
                self.sought_memory.resize(sought.size());
                tokio::task::yield_now().await;
            }
        }
        Ok(sought.found)
    }

    async fn come_out(&mut self, waiting: Vec<Waiting>, found: &[bool]) -> Result<()> {
        let mut found = found.iter();
        for batch in waiting {
            let mut new = Vec::with_capacity(batch.numbers.len());
            for (number, found) in batch.numbers.into_iter().zip(found.by_ref()) {
                if *found {
                    self.table.is_written(number);
                }
                new.push(!found);
            }
            let new = BooleanArray::from(new);
            let rows = filter_record_batch(&batch.rows, &new);
            let rows = rows.map_err(|e| raise(from_arrow(&e)))?;
            self.rows_memory.shrink(batch.bytes);
            if rows.num_rows() > 0 {
                let rows = compact(rows).map_err(raise)?;
                let bytes = own_bytes(&rows) + BATCH_BYTES;
                self.rows_memory.grow(bytes);
                self.ready.push_back((rows, bytes));
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Whether the table is to be written.
    fn is_full(&self) -> bool {
        let size = self.table.size();
        if size <= LEAST_BYTES {
            self.memory.resize(size);
            return false;
        }
        size > self.most || self.memory.try_resize(size).is_err()
    }

    /// The table's rows to the files. None of them waits.
    async fn write(&mut self) -> Result<()> {
        // It is there, if only for now.
        self.memory.resize(self.table.size());
        let (rows, written) = self.table.take(&self.schema)?;
        self.memory.grow(own_bytes(&rows));
        if self.parts.is_empty() {
            let part = |_| RowFile::new(&self.spills, self.schema.clone());
            self.parts = (0..PARTS).map(part).collect();
        }
        for start in (0..rows.num_rows()).step_by(BATCH_ROWS) {
            let some = rows.slice(start, BATCH_ROWS.min(rows.num_rows() - start));
            let places = self.places(some.columns())?;
            for (mut rows, part) in places.into_iter().zip(&mut self.parts) {
                rows.retain(|row| written.get(start + *row as usize).is_none_or(|is| !*is));
                if rows.is_empty() {
                    continue;
                }
                let rows = take_record_batch(&some, &UInt32Array::from(rows))?;
                part.add(compact(rows).map_err(raise)?)?;
            }
            if self.cancel.is_cancelled() {
                return Err(raise(cancelled()));
            }
            tokio::task::yield_now().await;
        }
        drop(rows);
        self.memory.resize(self.table.size());
        Ok(())
    }

    /// For each part the numbers of its rows.
    fn places(&self, keys: &[ArrayRef]) -> Result<Vec<Vec<u32>>> {
        let rows = keys.first().map_or(0, |column| column.len());
        let mut hashes = vec![0u64; rows];
        create_hashes(keys, &self.hash, &mut hashes)?;
        let mut places = vec![vec![]; PARTS];
        for (row, hash) in (0u32..).zip(hashes) {
            // Less than the count.
            let part = (hash % PARTS as u64) as usize;
            if let Some(rows) = places.get_mut(part) {
                rows.push(row);
            }
        }
        Ok(places)
    }
}

/// How large a table of such rows may become.
fn bytes_max(schema: &SchemaRef) -> usize {
    let mut fields = schema.fields().iter();
    match fields.any(|field| matches!(field.data_type(), DataType::Utf8 | DataType::Binary)) {
        true => TEXT_BYTES_MAX,
        false => usize::MAX,
    }
}

/// Different rows in memory.
struct Table {
    rows: Box<dyn GroupValues>,
    /// The number of each row of a batch.
    numbers: Vec<usize>,
    /// By number, which rows are in the files; those beyond the end aren't.
    written: Vec<bool>,
}

impl Table {
    fn new(schema: &SchemaRef) -> Result<Self> {
        Ok(Table {
            rows: new_group_values(schema.clone(), &GroupOrdering::None)?,
            numbers: vec![],
            written: vec![],
        })
    }

    fn size(&self) -> usize {
        let own = self.numbers.capacity() * size_of::<usize>() + self.written.capacity();
        self.rows.size().saturating_add(own)
    }

    fn is_written(&mut self, number: usize) {
        if self.written.len() <= number {
            self.written.resize(self.rows.len().max(number + 1), false);
        }
        if let Some(is) = self.written.get_mut(number) {
            *is = true;
        }
    }

    /// The rows of a batch that equal no earlier one, and their numbers; `keys` are compared.
    fn add(&mut self, keys: &[ArrayRef], batch: RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
        let before = self.rows.len();
        self.rows.intern(keys, &mut self.numbers)?;
        let mut found = vec![false; self.rows.len().saturating_sub(before)];
        if found.len() == batch.num_rows() {
            return Ok((batch, self.numbers.clone()));
        }
        // New numbers needn't be in the order of the rows.
        let is_first = |number: &usize| {
            let place = number.checked_sub(before).and_then(|at| found.get_mut(at));
            place.is_some_and(|found| !std::mem::replace(found, true))
        };
        let first: Vec<bool> = self.numbers.iter().map(is_first).collect();
        let numbers = self.numbers.iter().zip(&first);
        let numbers = numbers.filter_map(|(number, first)| first.then_some(*number));
        let numbers = numbers.collect();
        let batch = filter_record_batch(&batch, &BooleanArray::from(first));
        Ok((batch.map_err(|e| raise(from_arrow(&e)))?, numbers))
    }

    /// All rows by their numbers, and which of them are in the files; it has none then.
    fn take(&mut self, schema: &SchemaRef) -> Result<(RecordBatch, Vec<bool>)> {
        let mut full = std::mem::replace(self, Table::new(schema)?);
        if full.rows.is_empty() {
            return Ok((RecordBatch::new_empty(schema.clone()), vec![]));
        }
        let columns = full.rows.emit(EmitTo::All)?;
        let rows = RecordBatch::try_new(schema.clone(), columns);
        Ok((rows.map_err(|e| raise(from_arrow(&e)))?, full.written))
    }
}

/// Rows that are looked for among others. The table takes these in, too, and begins anew when it has become large.
struct Sought {
    /// Of different rows.
    keys: Vec<Vec<ArrayRef>>,
    schema: SchemaRef,
    table: Table,
    /// The rows by their numbers in the table; others have larger ones.
    rows: Vec<usize>,
    found: Vec<bool>,
    most: usize,
}

impl Sought {
    async fn new(keys: Vec<Vec<ArrayRef>>, schema: &SchemaRef, most: usize) -> Result<Self> {
        let columns = keys.iter().filter_map(|keys| keys.first());
        let count = columns.map(|column| column.len()).sum();
        let mut sought = Sought {
            keys,
            schema: schema.clone(),
            table: Table::new(schema)?,
            rows: vec![],
            found: vec![false; count],
            most,
        };
        sought.begin().await?;
        // The rows themselves may be as many as that.
        sought.most = most.max(sought.table.size().saturating_mul(2));
        Ok(sought)
    }

    async fn begin(&mut self) -> Result<()> {
        self.table = Table::new(&self.schema)?;
        self.rows = vec![usize::MAX; self.found.len()];
        let mut row = 0;
        for keys in &self.keys {
            self.table.rows.intern(keys, &mut self.table.numbers)?;
            for number in &self.table.numbers {
                if let Some(place) = self.rows.get_mut(*number) {
                    *place = row;
                }
                row += 1;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn find(&mut self, keys: &[ArrayRef]) -> Result<()> {
        if self.table.size() > self.most {
            self.begin().await?;
        }
        self.table.rows.intern(keys, &mut self.table.numbers)?;
        for number in &self.table.numbers {
            let row = self.rows.get(*number);
            if let Some(found) = row.and_then(|row| self.found.get_mut(*row)) {
                *found = true;
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let own = self.rows.len() * size_of::<usize>() + self.found.len();
        self.table.size().saturating_add(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion_execution::TaskContext;
    use datafusion_execution::memory_pool::GreedyMemoryPool;
    use datafusion_execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
    use datafusion_physical_expr::expressions::Column;
    use datafusion_physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
    use std::collections::HashSet;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
    }

    fn batch(numbers: impl IntoIterator<Item = Option<i64>>) -> RecordBatch {
        let numbers: Int64Array = numbers.into_iter().collect();
        RecordBatch::try_new(schema(), vec![Arc::new(numbers)]).expect("one column")
    }

    fn seen(memory: usize) -> (Seen, Arc<RuntimeEnv>) {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)))
            .build_arc()
            .expect("a runtime");
        let context = TaskContext::default().with_runtime(runtime.clone());
        let metrics = ExecutionPlanMetricsSet::new();
        let spills = Spills::new(&context, SpillMetrics::new(&metrics, 0));
        let keys: Vec<Arc<dyn PhysicalExpr>> = vec![Arc::new(Column::new("n", 0))];
        let seen = Seen::new(keys.into(), schema(), &spills, &CancellationToken::new());
        (seen.expect("a table"), runtime)
    }

    fn popped(seen: &mut Seen, into: &mut Vec<Option<i64>>) {
        while let Some(batch) = seen.pop() {
            into.extend(batch.column(0).as_primitive::<Int64Type>().iter());
        }
    }

    /// Steps of many rows, of which most have been there, and nulls.
    fn step(number: i64) -> Vec<Option<i64>> {
        let value = |i: i64| (i % 1000 != 7).then_some((i * 7919 + number * 3001) % 100_000);
        (0..20_000).map(value).collect()
    }

    #[tokio::test]
    async fn the_first_of_equal_rows_comes_out_in_memory_and_of_files() {
        for (memory, in_files) in [(1 << 30, false), (2 << 20, true), (1, true)] {
            let (mut seen, runtime) = seen(memory);
            let mut expected = HashSet::new();
            for number in 0..12 {
                let values = step(number);
                let mut found = vec![];
                for some in values.chunks(3000) {
                    seen.add(batch(some.iter().copied())).await.expect("room");
                    popped(&mut seen, &mut found);
                }
                seen.settle().await.expect("files");
                popped(&mut seen, &mut found);
                let new: Vec<Option<i64>> = (values.into_iter())
                    .filter(|value| expected.insert(*value))
                    .collect();
                assert_eq!(found, new, "step {number} in {memory} bytes");
            }
            assert_eq!(runtime.disk_manager.used_disk_space() > 0, in_files);
            drop(seen);
            assert_eq!(runtime.memory_pool.reserved(), 0);
            assert_eq!(runtime.disk_manager.used_disk_space(), 0);
        }
    }

    #[tokio::test]
    async fn a_cancelled_query_looks_through_no_file() {
        let (mut seen, _runtime) = seen(1);
        seen.add(batch((0..40_000).map(Some))).await.expect("room");
        let mut out = vec![];
        popped(&mut seen, &mut out);
        assert_eq!(out.len(), 40_000);
        seen.add(batch((0..10).map(Some))).await.expect("room");
        seen.cancel.cancel();
        assert!(seen.settle().await.is_err());
    }

    /// Rows that come again and again are in the files once.
    #[tokio::test]
    async fn no_row_is_written_twice() {
        const ROWS: i64 = 40_000;
        let (mut seen, _runtime) = seen(1);
        let mut out = vec![];
        for number in 0..8 {
            let values: Vec<i64> = (0..ROWS)
                .map(|i| (i * 7919 + number * 3001) % ROWS)
                .collect();
            for some in values.chunks(3000) {
                let some = some.iter().copied().map(Some);
                seen.add(batch(some)).await.expect("room");
                popped(&mut seen, &mut out);
            }
            seen.settle().await.expect("files");
            popped(&mut seen, &mut out);
        }
        assert_eq!(out.len(), ROWS as usize);
        let mut written = vec![];
        for part in &mut seen.parts {
            let Some(part) = part.written().expect("no error") else {
                continue;
            };
            let mut rows = part.read().expect("a stream");
            while let Some(rows) = next_rows(&mut rows, &seen.cancel).await.expect("rows") {
                written.extend(rows.column(0).as_primitive::<Int64Type>().iter());
            }
        }
        let count = written.len();
        assert!(count > 0);
        assert_eq!(written.into_iter().collect::<HashSet<_>>().len(), count);
    }

    #[tokio::test]
    async fn what_is_looked_for_is_found_also_when_the_table_begins_anew() {
        let columns = |numbers: std::ops::Range<i64>| batch(numbers.map(Some)).columns().to_vec();
        let keys = vec![columns(0..10), columns(90_000..90_010)];
        let mut sought = Sought::new(keys, &schema(), 1).await.expect("a table");
        for start in (0..90_005).step_by(5000) {
            let end = 90_005.min(start + 5000);
            let rows = columns(start..end);
            sought.find(&rows).await.expect("rows");
        }
        let expected: Vec<bool> = (0..20).map(|row| row < 15).collect();
        assert_eq!(sought.found, expected);
    }
}
