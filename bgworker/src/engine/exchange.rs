//! Spreads rows over partitions by the hash of some columns.

use super::lower::{Operator, check, single};
use datafusion_physical_expr::{Partitioning, PhysicalExpr};
use datafusion_physical_plan::repartition::RepartitionExec;
use pg_lake_plan::message::WireError;
use std::sync::Arc;

/// With several inputs, `RepartitionExec` of DataFusion 54 can wait for itself when it spills: its
/// inputs write to one pool of files, of which the reader looks at the first only
/// (apache/datafusion#24883). A single input writes one file after another.
pub(super) fn exchange(
    input: Operator,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    partitions: usize,
) -> Result<Operator, WireError> {
    let partitioning = Partitioning::Hash(keys, partitions.max(1));
    let exec = check(RepartitionExec::try_new(single(input), partitioning))?;
    Ok(Arc::new(exec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion_execution::TaskContext;
    use datafusion_execution::config::SessionConfig;
    use datafusion_execution::memory_pool::GreedyMemoryPool;
    use datafusion_execution::runtime_env::RuntimeEnvBuilder;
    use datafusion_physical_expr::expressions::Column;
    use datafusion_physical_plan::test::TestMemoryExec;
    use futures::TryStreamExt;
    use std::time::Duration;

    const PARTITIONS: i32 = 4;
    const BATCHES: i32 = 400;
    const ROWS: i32 = 64;

    /// Each batch spills, while the inputs compete for the files of the same outputs.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn an_exchange_that_spills_ends() {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int32, false)]));
        let batch = |n: i32| {
            let keys = Int32Array::from_iter_values(n * ROWS..(n + 1) * ROWS);
            RecordBatch::try_new(schema.clone(), vec![Arc::new(keys)]).expect("one column")
        };
        let inputs: Vec<Vec<RecordBatch>> = (0..PARTITIONS)
            .map(|p| (p * BATCHES..(p + 1) * BATCHES).map(batch).collect())
            .collect();
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(1)))
            .build_arc()
            .expect("a runtime");
        let context = Arc::new(
            TaskContext::default()
                .with_session_config(SessionConfig::new().with_batch_size(ROWS as usize))
                .with_runtime(runtime),
        );
        for _ in 0..20 {
            let input =
                TestMemoryExec::try_new_exec(&inputs, schema.clone(), None).expect("a source");
            let keys: Vec<Arc<dyn PhysicalExpr>> = vec![Arc::new(Column::new("k", 0))];
            let plan = single(exchange(input, keys, 2).expect("an exchange"));
            let rows = plan.execute(0, context.clone()).expect("a stream");
            let batches: Vec<RecordBatch> =
                tokio::time::timeout(Duration::from_secs(20), rows.try_collect())
                    .await
                    .expect("it waits for itself")
                    .expect("rows");
            let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(total, (PARTITIONS * BATCHES * ROWS) as usize);
        }
    }
}
