//! Drops rows that were there before, as far as that pays.
//!
//! A side that is only asked whether it has a partner may hold the same few rows over and over, and a hash join looks
//! at every pair. What is dropped needn't be complete: few distinct rows are all remembered, and of many each has few
//! copies.

use super::error::{from_arrow, wire};
use super::memory::optional;
use arrow::array::BooleanArray;
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_common::Result;
use datafusion_execution::TaskContext;
use datafusion_execution::memory_pool::MemoryReservation;
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;
use pg_lake_plan::message::WireError;

/// Rows that are remembered.
const REMEMBERED_MAX: usize = 32_768;

/// Looking pays if that many rows had no more than [`REMEMBERED_MAX`] distinct ones among them.
const WORTH_ROWS: usize = 3 * REMEMBERED_MAX / 2;

/// Where it doesn't pay, that many rows pass before it is tried again.
const IDLE_ROWS: usize = 16 * REMEMBERED_MAX;

/// The rows of one partition that were there lately.
pub(super) struct Lately {
    schema: SchemaRef,
    rows: Box<dyn GroupValues>,
    memory: MemoryReservation,
    /// The number of each row of a batch.
    numbers: Vec<usize>,
    /// Rows looked at since it began anew.
    looked_at: usize,
    /// Rows that pass unlooked at from now on.
    idle: usize,
}

impl Lately {
    pub(super) fn new(schema: SchemaRef, context: &TaskContext) -> Result<Self> {
        Ok(Lately {
            rows: new_group_values(schema.clone(), &GroupOrdering::None)?,
            schema,
            memory: optional("LakeJoinInput").register(context.memory_pool()),
            numbers: vec![],
            looked_at: 0,
            idle: 0,
        })
    }

    /// The rows that weren't there; `None` if all were.
    pub(super) fn fresh(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, WireError> {
        let total = batch.num_rows();
        if self.idle > 0 {
            self.idle = self.idle.saturating_sub(total);
            return Ok(Some(batch));
        }
        let known = self.rows.len();
        self.rows
            .intern(batch.columns(), &mut self.numbers)
            .map_err(|e| wire(&e))?;
        self.looked_at += total;
        let mut seen = vec![false; self.rows.len().saturating_sub(known)];
        let fresh = BooleanBuffer::collect_bool(total, |row| {
            let Some(number) = self.numbers.get(row).and_then(|n| n.checked_sub(known)) else {
                return false;
            };
            match seen.get_mut(number) {
                Some(seen) => !std::mem::replace(seen, true),
                None => false,
            }
        });
        self.forget_in_time().map_err(|e| wire(&e))?;
        if seen.is_empty() {
            return Ok(None);
        }
        if seen.len() == total {
            return Ok(Some(batch));
        }
        filter_record_batch(&batch, &BooleanArray::new(fresh, None))
            .map(Some)
            .map_err(|e| from_arrow(&e))
    }

    /// Begins anew when it remembers enough rows, or memory is short.
    fn forget_in_time(&mut self) -> Result<()> {
        let full = self.rows.len() >= REMEMBERED_MAX;
        let short = self.memory.try_resize(self.rows.size()).is_err();
        if !full && !short {
            return Ok(());
        }
        if short || self.looked_at < WORTH_ROWS {
            self.idle = IDLE_ROWS;
        }
        self.rows = new_group_values(self.schema.clone(), &GroupOrdering::None)?;
        self.memory.free();
        self.looked_at = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use std::sync::Arc;

    fn batch(values: impl IntoIterator<Item = Option<i32>>) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("k", DataType::Int32, true)]);
        let column = Int32Array::from_iter(values);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(column)]).expect("one column")
    }

    fn lately() -> Lately {
        let schema = batch([]).schema();
        Lately::new(schema, &TaskContext::default()).expect("a state")
    }

    #[test]
    fn each_row_passes_once() {
        let mut lately = lately();
        let fresh = lately
            .fresh(batch([Some(1), None, Some(1), Some(2), None]))
            .expect("rows")
            .expect("some");
        assert_eq!(fresh.num_rows(), 3);
        let column = fresh.column(0).as_primitive::<Int32Type>();
        assert_eq!(column.iter().flatten().collect::<Vec<_>>(), [1, 2]);
        let again = lately.fresh(batch([Some(2), None])).expect("rows");
        assert!(again.is_none());
        let third = lately.fresh(batch([Some(3)])).expect("rows");
        assert_eq!(third.map(|b| b.num_rows()), Some(1));
    }

    #[test]
    fn it_gives_up_on_distinct_rows_for_a_while() {
        let mut lately = lately();
        let step = 16_384;
        let mut next = 0;
        while lately.idle == 0 {
            let rows = lately.fresh(batch((next..next + step).map(Some)));
            assert_eq!(rows.expect("rows").map(|b| b.num_rows()), Some(16_384));
            next += step;
            assert!(next < 1_000_000, "it never gives up");
        }
        let rows = lately.fresh(batch([Some(0), Some(0)])).expect("rows");
        assert_eq!(rows.map(|b| b.num_rows()), Some(2));
        assert_eq!(lately.memory.size(), 0);
    }

    #[test]
    fn few_distinct_rows_are_never_forgotten() {
        let mut lately = lately();
        let mut passed = 0;
        for _ in 0..100 {
            let rows = lately.fresh(batch((0..10_000).map(|i| Some(i % 1000))));
            passed += rows.expect("rows").map_or(0, |b| b.num_rows());
        }
        assert_eq!(passed, 1000);
    }
}
