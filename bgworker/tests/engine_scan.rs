//! Scans see exactly the visible rows of Parquet files and feeds, and aggregate and sort them.

mod engine_support;

use arrow::array::*;
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use async_trait::async_trait;
use bytes::Bytes;
use engine_support::*;
use futures::StreamExt;
use pg_lake_bgworker::engine::{Engine, Fetcher};
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, Fetch, Fetched, Priority, WireError};
use pg_lake_plan::rows::RowNumbers;
use pg_lake_plan::store::Store;
use pg_lake_plan::types::{LakeType, Value};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const TYPES: [LakeType; 2] = [LakeType::Int4, LakeType::Text];

/// `n` rows: the row's number and its text.
fn columns(n: i32) -> Vec<ArrayRef> {
    let numbers = Int32Array::from_iter_values(0..n);
    let texts = StringArray::from_iter_values((0..n).map(|i| format!("t{}", i % 3)));
    vec![Arc::new(numbers), Arc::new(texts)]
}

fn file(dir: &Path, n: i32, row_group: usize) -> pg_lake_plan::message::FileRef {
    write(
        &dir.join(format!("{n}-{row_group}.parquet")),
        columns(n),
        row_group,
    )
}

fn first_ints(batches: &[arrow::record_batch::RecordBatch]) -> Vec<i32> {
    let mut values: Vec<i32> = batches
        .iter()
        .flat_map(|b| b.column(0).as_primitive::<Int32Type>().values().to_vec())
        .collect();
    values.sort_unstable();
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_rows_and_ranges_are_applied() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let mut f = file(dir.path(), 100_000, 40_000);
    f.deleted = vec![0, 50_000, 99_999];
    for _ in 0..2 {
        let (batches, stats) = run(&engine, request(scan(&TYPES, None), vec![f.clone()]), None)
            .await
            .unwrap();
        let values = first_ints(&batches);
        assert_eq!(values.len(), 99_997);
        assert!(!values.contains(&50_000));
        assert_eq!(
            (stats.files, stats.row_groups, stats.rows_cold),
            (1, 3, 99_997)
        );
        assert_eq!(stats.chunks_cached + stats.chunks_decoded, 6);
    }
    f.ranges = Some(vec![(10, 12), (49_999, 50_002)]);
    for fresh in [false, true] {
        let fresh_engine;
        let engine = if fresh {
            fresh_engine = engine_support::engine(dir.path());
            &fresh_engine
        } else {
            &engine
        };
        let (batches, _) = run(engine, request(scan(&TYPES, None), vec![f.clone()]), None)
            .await
            .unwrap();
        assert_eq!(first_ints(&batches), [10, 11, 49_999, 50_001]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_scan_comes_from_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let f = file(dir.path(), 50_000, 50_000);
    let go = || run(&engine, request(scan(&TYPES, None), vec![f.clone()]), None);
    let (_, cold) = go().await.unwrap();
    let (_, warm) = go().await.unwrap();
    assert_eq!((cold.chunks_decoded, cold.chunks_cached), (2, 0));
    assert_eq!(
        (warm.chunks_decoded, warm.chunks_cached, warm.bytes_read),
        (0, 2, 0)
    );
    assert!(cold.bytes_read > 0);
    assert!(engine.memory_used() > 0);
    engine.set_limits(1 << 20, 0);
    assert_eq!(engine.memory_used(), 0);
}

/// As they do when they are decoded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wide_rows_come_few_at_a_time_from_the_cache() {
    const ROWS: i32 = 1200;
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(512 << 20, 256 << 20, dir.path().to_owned(), 2, None).unwrap();
    let numbers = Int32Array::from_iter_values(0..ROWS);
    let wide = |i: i32| format!("{i} {}", "x".repeat(20_000));
    let texts = StringArray::from_iter_values((0..ROWS).map(wide));
    let path = dir.path().join("wide.parquet");
    let f = write(&path, vec![Arc::new(numbers), Arc::new(texts)], 2000);
    for cached in [0, 2] {
        let request = request(scan(&TYPES, None), vec![f.clone()]);
        let (batches, stats) = run(&engine, request, None).await.unwrap();
        assert_eq!(stats.chunks_cached, cached);
        assert_eq!(first_ints(&batches), (0..ROWS).collect::<Vec<i32>>());
        for batch in &batches {
            assert!(batch.num_rows() <= 512, "{} rows", batch.num_rows());
            let numbers = batch.column(0).as_primitive::<Int32Type>().values();
            let texts = batch.column(1).as_string::<i32>();
            let all = numbers.iter().zip(texts.iter());
            for (number, text) in all {
                assert_eq!(text, Some(wide(*number).as_str()));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_numbers_defaults_and_bare_counts() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let mut f = file(dir.path(), 1000, 300);
    f.rows = RowNumbers::with_gaps(5000..7000, [5000..5999, 6500..6501]);
    f.ranges = Some(vec![(998, 1000)]);
    let Plan::Scan(mut s) = scan(&TYPES, None) else {
        unreachable!()
    };
    s.columns[0].source = ColumnSource::RowNumber;
    s.columns[0].ty = sql(LakeType::Int8);
    s.columns[1].source = ColumnSource::Field(77);
    s.columns[1].missing = Some(Value::Text("new".into()));
    let plan = Plan::Scan(s);
    let (batches, _) = run(&engine, request(plan, vec![f.clone()]), None)
        .await
        .unwrap();
    assert_eq!(
        batches[0]
            .column(0)
            .as_primitive::<Int64Type>()
            .values()
            .to_vec(),
        [5998, 6500]
    );
    assert_eq!(batches[0].column(1).as_string::<i32>().value(1), "new");

    f.path = "/nowhere".into();
    let count = Plan::Aggregate {
        input: Box::new(scan(&[], None)),
        groups: vec![],
        aggregates: vec![aggregate(AggregateFunction::Count, None, LakeType::Int8)],
        sets: vec![],
        groups_estimate: 1.0,
    };
    let (batches, _) = run(&engine, request(count, vec![f.clone()]), None)
        .await
        .unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 2);
    let error = run(&engine, request(scan(&TYPES, None), vec![f]), None)
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::MissingFile);
    assert!(
        error.message.contains("\"/nowhere\" of table \"public.t\""),
        "{}",
        error.message
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_prune_row_groups() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let f = file(dir.path(), 1000, 100);
    let x = || col(0, LakeType::Int4);
    let predicate = expr(
        LakeType::Bool,
        ExprKind::And(vec![
            compare(CompareOp::Ge, x(), int(250)),
            compare(CompareOp::Gt, int(310), x()),
        ]),
    );
    let plan = scan(&TYPES, Some(predicate));
    let (batches, stats) = run(&engine, request(plan, vec![f.clone()]), None)
        .await
        .unwrap();
    assert_eq!(first_ints(&batches), (250..310).collect::<Vec<_>>());
    assert_eq!((stats.row_groups, stats.row_groups_pruned), (10, 8));
    assert_eq!((stats.rows_cold, stats.rows_out), (200, 60));

    // A conjunct that can fail comes first: its error must not depend on the statistics.
    let ratio = arith(LakeType::Int4, ArithmeticOp::Divide, int(1), x());
    let predicate = expr(
        LakeType::Bool,
        ExprKind::And(vec![
            compare(CompareOp::Ge, ratio, int(0)),
            compare(CompareOp::Gt, x(), int(900)),
        ]),
    );
    let plan = scan(&TYPES, Some(predicate));
    let error = run(&engine, request(plan, vec![f]), None)
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::DivisionByZero);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_which_every_row_passes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (small, large) = (file(dir.path(), 100, 30), file(dir.path(), 1000, 100));
    let nulls: ArrayRef = Arc::new(Int32Array::from_iter(
        (0..50).map(|i| (i != 7).then_some(i)),
    ));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..50).map(|i| i.to_string()),
    ));
    let nulls = write(&dir.path().join("nulls.parquet"), vec![nulls, texts], 20);
    let x = || col(0, LakeType::Int4);
    let all = |args| expr(LakeType::Bool, ExprKind::And(args));
    let param = expr(LakeType::Int4, ExprKind::Param(0));
    let odd = arith(LakeType::Int4, ArithmeticOp::Modulo, x(), int(2));
    let text = constant(LakeType::Text, Value::Text("z".to_owned()));
    for (predicate, expected) in [
        (
            Some(compare(CompareOp::Lt, x(), int(100))),
            [true, false, false],
        ),
        (
            Some(compare(CompareOp::Ge, int(999), x())),
            [true, true, false],
        ),
        (
            Some(compare(CompareOp::Lt, x(), param)),
            [true, false, false],
        ),
        (
            Some(all(vec![
                compare(CompareOp::Ge, x(), int(0)),
                compare(CompareOp::Ne, x(), int(100)),
            ])),
            [true, false, false],
        ),
        // What says more than bounds is left to whoever reads the rows, and so is text.
        (Some(compare(CompareOp::Lt, odd, int(2))), [false; 3]),
        (
            Some(compare(CompareOp::Lt, col(1, LakeType::Text), text)),
            [false; 3],
        ),
        (None, [false; 3]),
    ] {
        let files = vec![small.clone(), large.clone(), nulls.clone()];
        let mut request = request(scan(&TYPES, predicate), files);
        request.params = vec![Some(Value::I32(100))];
        let covered = engine
            .covered(&request, vec![], &CancellationToken::new())
            .await;
        assert_eq!(covered.unwrap(), expected, "{:?}", request.fragment);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_over_files_and_feed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    for estimate in [3.0, 1e6] {
        let plan = Plan::Sort {
            input: Box::new(Plan::Aggregate {
                input: Box::new(scan(&TYPES, None)),
                groups: vec![col(1, LakeType::Text)],
                aggregates: vec![
                    aggregate(AggregateFunction::Count, None, LakeType::Int8),
                    aggregate(
                        AggregateFunction::Sum,
                        Some(col(0, LakeType::Int4)),
                        LakeType::Int8,
                    ),
                    aggregate(
                        AggregateFunction::Max,
                        Some(col(0, LakeType::Int4)),
                        LakeType::Int4,
                    ),
                ],
                sets: vec![],
                groups_estimate: estimate,
            }),
            keys: vec![SortKey {
                expr: col(0, LakeType::Text),
                descending: true,
                nulls_first: false,
            }],
            fetch: None,
        };
        let f = file(dir.path(), 300_000, 50_000);
        let fed = Some(feed(columns(3)));
        let (batches, stats) = run(&engine, request(plan, vec![f]), fed).await.unwrap();
        assert_eq!(stats.rows_fed, 3);
        let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
        let keys: Vec<_> = batch
            .column(0)
            .as_string::<i32>()
            .iter()
            .flatten()
            .collect();
        assert_eq!(keys, ["t2", "t1", "t0"]);
        assert_eq!(
            batch
                .column(1)
                .as_primitive::<Int64Type>()
                .values()
                .to_vec(),
            [100_001; 3]
        );
        let sum: i64 = batch
            .column(2)
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .sum();
        assert_eq!(sum, 299_999 * 150_000 + 3);
        assert_eq!(
            batch.column(3).as_primitive::<Int32Type>().value(0),
            299_999
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregates_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let x = || Some(col(0, LakeType::Int4));
    let plan = Plan::Aggregate {
        input: Box::new(scan(&TYPES, None)),
        groups: vec![],
        aggregates: vec![
            aggregate(AggregateFunction::Count, x(), LakeType::Int8),
            aggregate(AggregateFunction::Sum, x(), LakeType::Int8),
            aggregate(AggregateFunction::Min, x(), LakeType::Int4),
        ],
        sets: vec![],
        groups_estimate: 1.0,
    };
    let (batches, _) = run(&engine(dir.path()), request(plan, vec![]), None)
        .await
        .unwrap();
    assert_eq!(batches[0].num_rows(), 1);
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 0);
    assert!(batches[0].column(1).is_null(0));
    assert!(batches[0].column(2).is_null(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn float_groups_and_order() {
    let dir = tempfile::tempdir().unwrap();
    let ty = [LakeType::Float8];
    let values = vec![f64::NAN, -0.0, 0.0, -f64::NAN, 5.0, f64::NEG_INFINITY];
    let column: ArrayRef = Arc::new(Float64Array::from(values));
    let plan = Plan::Limit {
        input: Box::new(Plan::Sort {
            input: Box::new(Plan::Aggregate {
                input: Box::new(scan(&ty, None)),
                groups: vec![col(0, LakeType::Float8)],
                aggregates: vec![aggregate(AggregateFunction::Count, None, LakeType::Int8)],
                sets: vec![],
                groups_estimate: 10.0,
            }),
            keys: vec![SortKey {
                expr: col(0, LakeType::Float8),
                descending: true,
                nulls_first: true,
            }],
            fetch: Some(3),
        }),
        skip: 0,
        fetch: Some(3),
    };
    let fed = Some(feed(vec![column]));
    let (batches, _) = run(&engine(dir.path()), request(plan, vec![]), fed)
        .await
        .unwrap();
    let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let keys = batch.column(0).as_primitive::<Float64Type>();
    assert!(keys.value(0).is_nan());
    assert_eq!((keys.value(1), keys.value(2)), (5.0, 0.0));
    assert_eq!(
        batch
            .column(1)
            .as_primitive::<Int64Type>()
            .values()
            .to_vec(),
        [2, 1, 2]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_skip_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let f = file(dir.path(), 300_000, 50_000);
    let plan = Plan::Limit {
        input: Box::new(scan(&TYPES, None)),
        skip: 10,
        fetch: Some(7),
    };
    let (batches, _) = run(&engine, request(plan, vec![f]), None).await.unwrap();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_without_columns_have_no_order() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let f = file(dir.path(), 1000, 300);
    for (fetch, rows) in [(Some(3), 3), (None, 1000)] {
        let plan = Plan::Sort {
            input: Box::new(scan(&[], None)),
            keys: vec![SortKey {
                expr: int(1),
                descending: false,
                nulls_first: false,
            }],
            fetch,
        };
        let (batches, _) = run(&engine, request(plan, vec![f.clone()]), None)
            .await
            .unwrap();
        assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), rows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_query_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let cancel = CancellationToken::new();
    let feed = futures::stream::pending().boxed();
    let request = request(scan(&TYPES, None), vec![]);
    let mut running = engine
        .execute(request, vec![], vec![Some(feed)], cancel.clone())
        .await
        .unwrap();
    let started = Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cancel.cancel();
    });
    assert_eq!(running.next().await.unwrap_err().code, ErrorCode::Cancelled);
    assert!(started.elapsed() < Duration::from_millis(120));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut f = file(dir.path(), 100, 100);
    f.size += 1;
    let run = run(
        &engine(dir.path()),
        request(scan(&TYPES, None), vec![f]),
        None,
    )
    .await;
    let error = run.unwrap_err();
    assert_eq!(error.code, ErrorCode::DataCorrupted);
    assert!(error.message.starts_with("could not read data file"));
}

/// A directory as a store. One file's bytes never come.
#[derive(Debug)]
struct Stuck {
    directory: PathBuf,
    file: &'static str,
    asked: Mutex<Vec<Priority>>,
}

#[async_trait]
impl Fetcher for Stuck {
    async fn fetch(
        &self,
        _stores: &[Store],
        request: Fetch,
    ) -> Result<(Vec<Bytes>, Fetched), WireError> {
        self.asked.lock().unwrap().push(request.priority);
        let name = request.location.strip_prefix("s3://lake/").unwrap();
        if name == self.file {
            std::future::pending::<()>().await;
        }
        let content = Bytes::from(std::fs::read(self.directory.join(name)).unwrap());
        let part = |(start, end): &(u64, u64)| content.slice(*start as usize..*end as usize);
        let parts = request.ranges.iter().map(part).collect();
        Ok((parts, Fetched::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_footer_that_does_not_come_holds_up_no_file_before_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<_> = (1..=12)
        .map(|n| pg_lake_plan::message::FileRef {
            path: format!("s3://lake/{n}-100.parquet"),
            ..file(dir.path(), n, 100)
        })
        .collect();
    for background in [false, true] {
        let stuck = Arc::new(Stuck {
            directory: dir.path().to_owned(),
            file: "8-100.parquet",
            asked: Mutex::default(),
        });
        let engine = Engine::new(
            256 << 20,
            64 << 20,
            dir.path().to_owned(),
            2,
            Some(stuck.clone()),
        );
        let request = pg_lake_plan::message::Execute {
            in_order: true,
            background,
            ..request(scan(&TYPES, None), files.clone())
        };
        let engine = engine.unwrap();
        let cancel = CancellationToken::new();
        let running = engine.execute(request, vec![], vec![None], cancel).await;
        let mut running = running.unwrap();
        let limit = Duration::from_secs(60);
        let first = tokio::time::timeout(limit, running.next()).await;
        let first = first.expect("in time").unwrap().expect("a batch");
        assert_eq!(first.num_rows(), 1);
        let asked = stuck.asked.lock().unwrap();
        let background_only = asked.iter().all(|p| *p == Priority::Background);
        assert_eq!(background_only, background, "{asked:?}");
    }
}
