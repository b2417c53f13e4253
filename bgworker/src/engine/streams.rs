//! Operators of ours as streams: what one of their partitions gives, batch after batch.

use super::error::{cancelled, raise};
use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_common::Result;
use datafusion_execution::SendableRecordBatchStream;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// One partition of an operator while it runs.
pub(super) trait Batches: Send + 'static {
    /// `None` at the end. After it, or an error, it isn't called again.
    fn next(&mut self) -> impl Future<Output = Result<Option<RecordBatch>>> + Send;
}

pub(super) fn stream_of(schema: SchemaRef, batches: impl Batches) -> SendableRecordBatchStream {
    let stream = stream::try_unfold(batches, |mut batches| async move {
        let next = batches.next().await?;
        Ok(next.map(|batch| (batch, batches)))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}

/// The next rows of an input, some at least. An input that was sorted may have all its rows ready: here it is seen that the
/// query was cancelled.
pub(super) async fn next_rows(
    input: &mut SendableRecordBatchStream,
    cancel: &CancellationToken,
) -> Result<Option<RecordBatch>> {
    loop {
        let batch = input.next().await.transpose()?;
        if cancel.is_cancelled() {
            return Err(raise(cancelled()));
        }
        match batch {
            Some(batch) if batch.num_rows() == 0 => {}
            other => return Ok(other),
        }
    }
}

/// The values of expressions, each for all rows.
pub(super) fn evaluate(
    exprs: &[Arc<dyn PhysicalExpr>],
    batch: &RecordBatch,
) -> Result<Vec<ArrayRef>> {
    let rows = batch.num_rows();
    exprs
        .iter()
        .map(|expr| expr.evaluate(batch)?.into_array(rows))
        .collect()
}
