//! What a query keeps in temporary files: its own limit, what it says of them, and what is left.

mod engine_support;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use engine_support::*;
use futures::StreamExt;
use pg_lake_bgworker::engine::Feed;
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, Execute, WireError};
use pg_lake_plan::types::LakeType;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const BATCHES: i64 = 200;
const ROWS: i64 = 10_000;

/// 16 MB of numbers, in another order than theirs.
fn numbers() -> Feed {
    let schema = Arc::new(Schema::new(vec![Field::new("c0", DataType::Int64, true)]));
    let batch = move |n: i64| {
        let numbers = (0..ROWS).map(|i| (n * ROWS + i) * 7919 % (BATCHES * ROWS));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
        let batch = RecordBatch::try_new(schema.clone(), vec![values]).unwrap();
        Ok::<RecordBatch, WireError>(batch)
    };
    futures::stream::iter((0..BATCHES).map(batch)).boxed()
}

/// A sort of them in half of the memory that they take.
fn sorted(temp_file_limit: Option<u64>) -> Execute {
    first_sorted(None, temp_file_limit)
}

fn first_sorted(fetch: Option<u64>, temp_file_limit: Option<u64>) -> Execute {
    let plan = Plan::Sort {
        input: Box::new(scan(&[LakeType::Int8], None)),
        keys: vec![SortKey {
            expr: col(0, LakeType::Int8),
            descending: false,
            nulls_first: false,
        }],
        fetch,
    };
    Execute {
        memory_limit: 8 << 20,
        temp_file_limit,
        ..request(plan, vec![])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sort_spills_up_to_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (batches, stats) = run(&engine, sorted(Some(64 << 10)), Some(numbers()))
        .await
        .unwrap();
    let mut next = 0;
    for batch in &batches {
        for value in batch.column(0).as_primitive::<Int64Type>().values() {
            assert_eq!(*value, next);
            next += 1;
        }
    }
    assert_eq!(next, BATCHES * ROWS);
    let spilled = |line: &String| line.contains("spill_count=") && !line.contains("spill_count=0");
    assert!(stats.operators.iter().any(spilled));

    let error = run(&engine, sorted(Some(1000)), Some(numbers()))
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::TempFileLimit);
    assert_eq!(
        error.message,
        "temporary file size exceeds \"temp_file_limit\" (1000kB)"
    );
    // Another one isn't concerned.
    assert!(run(&engine, sorted(None), Some(numbers())).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_counted_and_go_with_the_query() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let entries = || std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(entries(), 0);
    let cancel = CancellationToken::new();
    let mut running = engine
        .execute(sorted(None), vec![], vec![Some(numbers())], cancel)
        .await
        .unwrap();
    let usage = running.usage();
    assert!(running.next().await.unwrap().is_some());
    let progress = usage.progress();
    assert_eq!(progress.rows_read, (BATCHES * ROWS) as u64);
    assert!(progress.spilled_files > 0 && progress.spilled_bytes > 0);
    assert!(progress.memory_peak >= progress.memory_bytes);

    // Nobody wants the other rows.
    drop(running);
    drop(usage);
    let deadline = Instant::now() + Duration::from_secs(20);
    while entries() > 0 || engine.memory_used() > 0 {
        assert!(Instant::now() < deadline, "{} are left", entries());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Few of them are kept in memory, many are sorted like all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_first_rows_are_sorted_with_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    for fetch in [100, 1_500_000, 3_000_000] {
        let request = first_sorted(Some(fetch), None);
        let (batches, _) = run(&engine, request, Some(numbers())).await.unwrap();
        let column = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().clone();
        let columns: Vec<Int64Array> = batches.iter().map(column).collect();
        let found = columns.iter().flat_map(|column| column.values().iter());
        let expected = 0..(BATCHES * ROWS).min(fetch as i64);
        assert!(found.copied().eq(expected), "the first {fetch}");
    }
}

/// Wide rows that nobody takes are memory of the query, and there aren't many of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_wait_for_the_session_are_counted() {
    const TEXTS: usize = 6;
    const BYTES: usize = TEXTS << 20;
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let schema = Arc::new(Schema::new(vec![Field::new("c0", DataType::Utf8, true)]));
    let batch = move |_: usize| {
        let texts = std::iter::repeat_n("x".repeat(1 << 20), TEXTS);
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        Ok::<RecordBatch, WireError>(RecordBatch::try_new(schema.clone(), vec![texts]).unwrap())
    };
    let feed: Feed = futures::stream::iter((0..20).map(batch)).boxed();
    let request = request(scan(&[LakeType::Text], None), vec![]);
    let cancel = CancellationToken::new();
    let mut running = engine
        .execute(request, vec![], vec![Some(feed)], cancel)
        .await
        .unwrap();
    let usage = running.usage();
    assert!(running.next().await.unwrap().is_some());
    let deadline = Instant::now() + Duration::from_secs(20);
    // What was taken, and what comes next.
    while usage.progress().memory_bytes < 2 * BYTES as u64 {
        assert!(Instant::now() < deadline, "{:?}", usage.progress());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while running.next().await.unwrap().is_some() {}
    let progress = usage.progress();
    assert_eq!(progress.memory_bytes, 0);
    assert!(progress.memory_peak <= 4 * BYTES as u64, "{progress:?}");
}
