//! Batches that hold no more memory than their rows.
//!
//! An aggregation hands out all groups as parts of one large batch, and some joins give the rows without a partner as
//! one. Whoever keeps rows counts the buffers of each batch: of each part those of the whole.
//!
//! A sort takes rows for long without giving the thread away: it ends between two batches if the query was cancelled.

use super::error::cancelled;
use super::join_input::compact;
use super::lower::Operator;
use super::steps::{Pass, Passed, Step, stepping};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_common::Result as DfResult;
use datafusion_execution::TaskContext;
use pg_lake_plan::message::WireError;
use std::fmt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The same rows, in the same partitions and order.
pub(super) fn dense(input: Operator) -> Operator {
    with_cancel(input, CancellationToken::new())
}

/// The same, and an error once the query is cancelled.
pub(super) fn dense_until(input: Operator, cancel: &CancellationToken) -> Operator {
    with_cancel(input, cancel.clone())
}

fn with_cancel(input: Operator, cancel: CancellationToken) -> Operator {
    let step = Dense {
        schema: input.schema(),
        cancel,
    };
    stepping(input, Arc::new(step))
}

#[derive(Debug)]
struct Dense {
    schema: SchemaRef,
    cancel: CancellationToken,
}

impl Step for Dense {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dense")
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn keeps_rows(&self) -> bool {
        true
    }

    fn start(self: Arc<Self>, _context: &TaskContext) -> DfResult<Box<dyn Pass>> {
        Ok(Box::new(Compacting {
            cancel: self.cancel.clone(),
        }))
    }
}

struct Compacting {
    cancel: CancellationToken,
}

impl Pass for Compacting {
    fn pass(&mut self, batch: RecordBatch) -> Result<Passed, WireError> {
        match self.cancel.is_cancelled() {
            true => Err(cancelled()),
            false => compact(batch).map(Passed::Rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::BATCH_ROWS;
    use arrow::array::Int64Array;
    use arrow::compute::concat_batches;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion_physical_expr::Partitioning;
    use datafusion_physical_expr::expressions::Column;
    use datafusion_physical_plan::ExecutionPlanProperties;
    use datafusion_physical_plan::repartition::RepartitionExec;
    use datafusion_physical_plan::test::TestMemoryExec;
    use futures::TryStreamExt;

    fn numbers(count: usize) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
        let numbers = Int64Array::from_iter_values((0..count).map(|n| n as i64));
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers)]).expect("one column")
    }

    #[tokio::test]
    async fn a_huge_batch_is_cut_into_pieces_of_their_own() {
        let whole = numbers(3 * BATCH_ROWS + 1);
        let schema = whole.schema();
        let input = TestMemoryExec::try_new_exec(&[vec![whole.clone()]], schema.clone(), None);
        let rows = dense(input.expect("a source")).execute(0, Arc::default());
        let pieces: Vec<RecordBatch> = rows.expect("a stream").try_collect().await.expect("rows");
        let counts: Vec<usize> = pieces.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(counts, [BATCH_ROWS, BATCH_ROWS, BATCH_ROWS, 1]);
        let held: usize = pieces
            .iter()
            .map(|piece| piece.column(0).get_buffer_memory_size())
            .sum();
        assert!(held <= 2 * whole.column(0).get_buffer_memory_size());
        assert_eq!(concat_batches(&schema, &pieces).expect("a batch"), whole);
    }

    #[test]
    fn the_partitioning_is_kept() {
        let rows = numbers(1);
        let schema = rows.schema();
        let input = TestMemoryExec::try_new_exec(&[vec![rows]], schema, None).expect("a source");
        let hash = Partitioning::Hash(vec![Arc::new(Column::new("n", 0))], 3);
        let spread: Operator =
            Arc::new(RepartitionExec::try_new(input, hash.clone()).expect("an exchange"));
        assert_eq!(dense(spread).output_partitioning(), &hash);
    }

    #[tokio::test]
    async fn a_cancelled_query_gets_no_more_rows() {
        let whole = numbers(2 * BATCH_ROWS);
        let schema = whole.schema();
        let input = TestMemoryExec::try_new_exec(&[vec![whole]], schema, None);
        let cancel = CancellationToken::new();
        let rows = dense_until(input.expect("a source"), &cancel);
        let mut rows = rows.execute(0, Arc::default()).expect("a stream");
        assert!(rows.try_next().await.expect("rows").is_some());
        cancel.cancel();
        assert!(rows.try_next().await.is_err());
    }
}
