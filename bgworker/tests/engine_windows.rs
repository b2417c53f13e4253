//! Window functions and grouping sets, from a fragment to its rows.

mod engine_support;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray,
};
use arrow::datatypes::{
    Decimal128Type, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema,
};
use engine_support::*;
use futures::StreamExt;
use pg_lake_bgworker::engine::Feed;
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::types::LakeType;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const ROWS: i64 = 60_000;
const PARTITIONS: i64 = 7;

const SUM: LakeType = LakeType::Decimal {
    precision: 38,
    scale: 0,
};

const DEFAULT: Frame = Frame {
    unit: FrameUnit::Range,
    start: FrameBound::UnboundedPreceding,
    end: FrameBound::CurrentRow,
    exclude: FrameExclusion::NoOthers,
};

fn key(at: u32, ty: LakeType) -> SortKey {
    SortKey {
        expr: col(at, ty),
        descending: false,
        nulls_first: false,
    }
}

fn keys(columns: u32) -> Vec<SortKey> {
    (0..columns).map(|at| key(at, LakeType::Int4)).collect()
}

fn whole(batches: &[RecordBatch]) -> RecordBatch {
    arrow::compute::concat_batches(&batches[0].schema(), batches).unwrap()
}

fn ints(batch: &RecordBatch, column: usize) -> Vec<Option<i32>> {
    let array = batch.column(column).as_primitive::<Int32Type>();
    array.iter().collect()
}

fn bigints(batch: &RecordBatch, column: usize) -> Vec<Option<i64>> {
    let array = batch.column(column).as_primitive::<Int64Type>();
    array.iter().collect()
}

/// Partition, order and value of a row; the rows of a file are in another order.
fn row(i: i64) -> (i32, i32, i64) {
    let place = (i * 7919) % ROWS;
    (
        (place % PARTITIONS) as i32,
        (place / PARTITIONS / 3) as i32,
        place % 101 - 50,
    )
}

fn columns(rows: std::ops::Range<i64>) -> Vec<ArrayRef> {
    vec![
        Arc::new(Int32Array::from_iter_values(rows.clone().map(|i| row(i).0))),
        Arc::new(Int32Array::from_iter_values(rows.clone().map(|i| row(i).1))),
        Arc::new(Int64Array::from_iter_values(rows.map(|i| row(i).2))),
    ]
}

const TYPES: [LakeType; 3] = [LakeType::Int4, LakeType::Int4, LakeType::Int8];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_numbered_and_summed_up() {
    let dir = tempfile::tempdir().unwrap();
    let sum = aggregate(AggregateFunction::Sum, Some(col(2, LakeType::Int8)), SUM);
    let window = Plan::Window(Box::new(Window {
        input: Box::new(scan(&TYPES, None)),
        partition_by: vec![col(0, LakeType::Int4)],
        order_by: keys(2),
        peers: vec![col(1, LakeType::Int4)],
        frame: DEFAULT,
        functions: vec![
            WindowFunction::RowNumber,
            WindowFunction::Rank,
            WindowFunction::Aggregate(sum),
        ],
        measured: None,
    }));
    let plan = Plan::Sort {
        input: Box::new(window),
        keys: keys(2),
        fetch: None,
    };
    let half = ROWS / 2;
    let file = write(&dir.path().join("f"), columns(0..half), 5000);
    let fed = Some(feed(columns(half..ROWS)));
    let engine = engine(dir.path());
    let (batches, _) = run(&engine, request(plan, vec![file]), fed).await.unwrap();
    let batch = whole(&batches);
    assert_eq!(batch.num_rows(), ROWS as usize);

    let mut rows: Vec<(i32, i32, i64)> = (0..ROWS).map(row).collect();
    rows.sort_unstable();
    let (partitions, orders) = (ints(&batch, 0), ints(&batch, 1));
    let (numbers, ranks) = (bigints(&batch, 3), bigints(&batch, 4));
    let sums = batch.column(5).as_primitive::<Decimal128Type>().values();
    let mut start = 0;
    for (at, expected) in rows.iter().enumerate() {
        if rows[start].0 != expected.0 {
            start = at;
        }
        let of_peer = |r: &&(i32, i32, i64)| (r.0, r.1) == (expected.0, expected.1);
        let before = rows[start..at].iter().rev().take_while(of_peer).count();
        let peers = rows[at..].iter().take_while(of_peer).count();
        let sum: i64 = rows[start..at + peers].iter().map(|row| row.2).sum();
        assert_eq!(
            (partitions[at], orders[at]),
            (Some(expected.0), Some(expected.1))
        );
        assert_eq!(numbers[at], Some((at - start + 1) as i64));
        assert_eq!(ranks[at], Some((at - before - start + 1) as i64));
        assert_eq!(sums[at], i128::from(sum));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_over_a_window_of_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    let window = |input, functions| {
        Plan::Window(Box::new(Window {
            input: Box::new(input),
            partition_by: vec![col(0, LakeType::Int4)],
            order_by: keys(2),
            peers: vec![col(1, LakeType::Int4)],
            frame: DEFAULT,
            functions,
            measured: None,
        }))
    };
    let numbered = window(scan(&TYPES, None), vec![WindowFunction::RowNumber]);
    let lag = WindowFunction::Shift {
        arg: col(3, LakeType::Int8),
        rows: -1,
        otherwise: None,
    };
    let plan = window(numbered, vec![lag, WindowFunction::Ntile(4)]);
    let file = write(&dir.path().join("f"), columns(0..ROWS), 5000);
    let engine = engine(dir.path());
    let (batches, stats) = run(&engine, request(plan, vec![file]), None).await.unwrap();
    let batch = whole(&batches);
    let (numbers, before) = (bigints(&batch, 3), bigints(&batch, 4));
    for (number, before) in numbers.iter().zip(before) {
        assert_eq!(*number, Some(before.unwrap_or(0) + 1));
    }
    let size = ROWS / PARTITIONS + 1;
    let last = numbers
        .iter()
        .zip(ints(&batch, 5))
        .filter(|(_, tile)| *tile == Some(4));
    assert!(
        last.clone()
            .all(|(number, _)| *number >= Some(size * 3 / 4))
    );
    assert!(last.count() > 0);
    let sorts = stats
        .operators
        .iter()
        .filter(|line| line.contains("SortExec"));
    assert_eq!(sorts.count(), 1, "{:?}", stats.operators);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_all_rows_are_one_partition() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::Window(Box::new(Window {
        input: Box::new(scan(&TYPES, None)),
        partition_by: vec![],
        order_by: vec![],
        peers: vec![],
        frame: DEFAULT,
        functions: vec![WindowFunction::RowNumber],
        measured: None,
    }));
    let half = ROWS / 2;
    let file = write(&dir.path().join("f"), columns(0..half), 5000);
    let fed = Some(feed(columns(half..ROWS)));
    let engine = engine(dir.path());
    let (batches, _) = run(&engine, request(plan, vec![file]), fed).await.unwrap();
    let numbers = bigints(&whole(&batches), 3);
    assert_eq!(numbers, (1..=ROWS).map(Some).collect::<Vec<_>>());
}

/// Batches of one partition, as a feed.
fn one_partition(batches: usize) -> Feed {
    let schema = Arc::new(Schema::new(vec![Field::new(
        "c0",
        arrow::datatypes::DataType::Int32,
        true,
    )]));
    let batch = move |_| {
        let values: ArrayRef = Arc::new(Int32Array::from(vec![1; 10_000]));
        let batch = RecordBatch::try_new(schema.clone(), vec![values]).unwrap();
        Ok::<RecordBatch, WireError>(batch)
    };
    futures::stream::iter((0..batches).map(batch)).boxed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_bounds_a_partition_that_is_needed_whole() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let plan = |function| {
        Plan::Window(Box::new(Window {
            input: Box::new(scan(&[LakeType::Int4], None)),
            partition_by: vec![],
            order_by: vec![],
            peers: vec![],
            frame: DEFAULT,
            functions: vec![function],
            measured: None,
        }))
    };
    let mut number = request(plan(WindowFunction::RowNumber), vec![]);
    number.memory_limit = 8 << 20;
    let (batches, _) = run(&engine, number, Some(one_partition(60))).await.unwrap();
    let numbers = bigints(&whole(&batches), 1);
    assert_eq!(numbers.last(), Some(&Some(600_000)));
    let mut tiles = request(plan(WindowFunction::Ntile(3)), vec![]);
    tiles.memory_limit = 8 << 20;
    let error = run(&engine, tiles, Some(one_partition(60)))
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::OutOfMemory);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_values_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sum = aggregate(AggregateFunction::Sum, Some(col(2, LakeType::Int8)), SUM);
    let plan = Plan::Window(Box::new(Window {
        input: Box::new(scan(&TYPES, None)),
        partition_by: vec![],
        order_by: keys(1),
        peers: vec![col(0, LakeType::Int4)],
        frame: Frame {
            start: FrameBound::Preceding(1),
            ..DEFAULT
        },
        functions: vec![WindowFunction::Aggregate(sum)],
        measured: None,
    }));
    let engine = engine(dir.path());
    let fed = Some(feed(columns(0..10)));
    let error = run(&engine, request(plan, vec![]), fed).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reals_have_sums_and_states() {
    let dir = tempfile::tempdir().unwrap();
    let real = || col(0, LakeType::Float4);
    let list = LakeType::List {
        element_id: 1,
        element: Box::new(LakeType::Float8),
    };
    let sum = aggregate(AggregateFunction::Sum, Some(real()), LakeType::Float4);
    let state = aggregate(AggregateFunction::Moments, Some(real()), list);
    let plan = Plan::Window(Box::new(Window {
        input: Box::new(scan(&[LakeType::Float4], None)),
        partition_by: vec![],
        order_by: vec![],
        peers: vec![],
        frame: DEFAULT,
        functions: vec![
            WindowFunction::Aggregate(sum),
            WindowFunction::Aggregate(state),
        ],
        measured: None,
    }));
    let values: ArrayRef = Arc::new(Float32Array::from(vec![Some(1.5), None, Some(2.5)]));
    let fed = Some(feed(vec![values]));
    let engine = engine(dir.path());
    let (batches, _) = run(&engine, request(plan, vec![]), fed).await.unwrap();
    let batch = whole(&batches);
    let sums = batch.column(1).as_primitive::<Float32Type>();
    let sums: Vec<Option<f32>> = sums.iter().collect();
    assert_eq!(sums, [Some(4.0); 3]);
    let states = batch.column(2).as_list::<i32>();
    for row in 0..3 {
        let state = states.value(row);
        let state = state.as_primitive::<Float64Type>().values();
        assert_eq!(state.to_vec(), [2.0, 4.0, 0.5]);
    }
}

/// Sums over the rows whose order differs by two at most before, and by `$0` after the current one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_near_the_current_one_are_summed_up() {
    let dir = tempfile::tempdir().unwrap();
    let sum = aggregate(AggregateFunction::Sum, Some(col(2, LakeType::Int8)), SUM);
    let parameter = expr(LakeType::Int4, ExprKind::Param(0));
    let plan = |exclude| {
        Plan::Window(Box::new(Window {
            input: Box::new(scan(&TYPES, None)),
            partition_by: vec![col(0, LakeType::Int4)],
            order_by: keys(2),
            peers: vec![col(1, LakeType::Int4)],
            frame: Frame {
                unit: FrameUnit::Range,
                start: FrameBound::PrecedingBy(FrameOffset::Number(int(2))),
                end: FrameBound::FollowingBy(FrameOffset::Number(parameter.clone())),
                exclude,
            },
            functions: vec![WindowFunction::Aggregate(sum.clone())],
            measured: Some(key(1, LakeType::Int4)),
        }))
    };
    const FEW: i64 = 600;
    let engine = engine(dir.path());
    for exclude in [FrameExclusion::NoOthers, FrameExclusion::Ties] {
        let mut request = request(plan(exclude), vec![]);
        request.params = vec![Some(pg_lake_plan::types::Value::I32(700))];
        let fed = Some(feed(columns(0..FEW)));
        let (batches, _) = run(&engine, request, fed).await.unwrap();
        let batch = whole(&batches);
        let rows: Vec<(i32, i32, i64)> = (0..FEW).map(row).collect();
        let (partitions, orders) = (ints(&batch, 0), ints(&batch, 1));
        let values = bigints(&batch, 2);
        let sums = batch.column(3).as_primitive::<Decimal128Type>().values();
        assert_eq!(batch.num_rows(), rows.len());
        for (at, sum) in sums.iter().enumerate() {
            let (partition, order) = (partitions[at].unwrap(), orders[at].unwrap());
            let near = rows.iter().filter(|row| {
                let peer = row.1 == order && exclude == FrameExclusion::Ties;
                row.0 == partition && (order - 2..=order + 700).contains(&row.1) && !peer
            });
            let own = match exclude {
                FrameExclusion::Ties => values[at].unwrap(),
                _ => 0,
            };
            let expected: i64 = near.map(|row| row.2).sum();
            assert_eq!(*sum, i128::from(expected + own));
        }
    }
    let mut negative = request(plan(FrameExclusion::NoOthers), vec![]);
    negative.params = vec![Some(pg_lake_plan::types::Value::I32(-1))];
    let fed = Some(feed(columns(0..FEW)));
    let error = run(&engine, negative, fed).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotExact);
}

/// Each row gets a copy of the first row's text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_a_text_take_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut texts = vec![String::new(); 10_000];
    texts[0] = "x".repeat(1000);
    let texts: ArrayRef = Arc::new(StringArray::from(texts));
    let plan = Plan::Window(Box::new(Window {
        input: Box::new(scan(&[LakeType::Text], None)),
        partition_by: vec![],
        order_by: vec![],
        peers: vec![],
        frame: DEFAULT,
        functions: vec![WindowFunction::FirstValue(col(0, LakeType::Text))],
        measured: None,
    }));
    let engine = engine(dir.path());
    let mut request = request(plan, vec![]);
    request.memory_limit = 8 << 20;
    let error = run(&engine, request, Some(feed(vec![texts]))).await;
    assert_eq!(error.unwrap_err().code, ErrorCode::OutOfMemory);
}

/// Each sum is computed anew, of all rows that follow: without an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_partition_can_be_cancelled() {
    const MANY: usize = 400_000;
    let dir = tempfile::tempdir().unwrap();
    let ty = LakeType::Float8;
    let sum = aggregate(AggregateFunction::Sum, Some(col(0, ty.clone())), ty.clone());
    let plan = Plan::Window(Box::new(Window {
        input: Box::new(scan(&[ty], None)),
        partition_by: vec![],
        order_by: vec![],
        peers: vec![],
        frame: Frame {
            unit: FrameUnit::Rows,
            start: FrameBound::CurrentRow,
            end: FrameBound::UnboundedFollowing,
            exclude: FrameExclusion::NoOthers,
        },
        functions: vec![WindowFunction::Aggregate(sum)],
        measured: None,
    }));
    let values: ArrayRef = Arc::new(Float64Array::from(vec![1.5; MANY]));
    let engine = engine(dir.path());
    let cancel = CancellationToken::new();
    let feeds = vec![Some(feed(vec![values]))];
    let running = engine.execute(request(plan, vec![]), vec![], feeds, cancel.clone());
    let mut running = running.await.unwrap();
    let limit = std::time::Duration::from_secs(20);
    // All rows wait for their end.
    let taken = async {
        while engine.memory_used() < (MANY * 80) as u64 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(limit, taken).await.unwrap();
    cancel.cancel();
    let error = tokio::time::timeout(limit, running.next()).await.unwrap();
    assert_eq!(error.unwrap_err().code, ErrorCode::Cancelled);
    drop(running);
    let freed = async {
        while engine.memory_used() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(limit, freed).await.unwrap();
}

fn rollup(sets: Vec<Vec<u32>>, groups_estimate: f64) -> Plan {
    let sum = aggregate(AggregateFunction::Sum, Some(col(2, LakeType::Int8)), SUM);
    let count = aggregate(AggregateFunction::Count, None, LakeType::Int8);
    Plan::Sort {
        input: Box::new(Plan::Aggregate {
            input: Box::new(scan(&TYPES, None)),
            groups: vec![col(0, LakeType::Int4), col(1, LakeType::Int4)],
            aggregates: vec![count, sum],
            sets,
            groups_estimate,
        }),
        keys: [4, 0, 1].map(|at| key(at, LakeType::Int4)).to_vec(),
        fetch: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_set_groups_all_rows() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let file = write(&dir.path().join("f"), columns(0..ROWS - 10), 5000);
    for estimate in [10.0, 1e6] {
        let plan = rollup(vec![vec![0, 1], vec![0], vec![], vec![0]], estimate);
        let fed = Some(feed(columns(ROWS - 10..ROWS)));
        let (batches, _) = run(&engine, request(plan, vec![file.clone()]), fed)
            .await
            .unwrap();
        let batch = whole(&batches);
        let (sets, counts) = (ints(&batch, 4), bigints(&batch, 2));
        for set in 0..4 {
            let rows = sets.iter().zip(&counts).filter(|(of, _)| **of == Some(set));
            let counted: i64 = rows.map(|(_, count)| count.unwrap()).sum();
            assert_eq!(counted, ROWS);
        }
        let singles = sets.iter().filter(|of| **of == Some(3)).count();
        assert_eq!(singles, PARTITIONS as usize);
        let total = sets.iter().position(|of| *of == Some(2)).unwrap();
        assert_eq!(
            (ints(&batch, 0)[total], ints(&batch, 1)[total]),
            (None, None)
        );
        let sums = batch.column(3).as_primitive::<Decimal128Type>();
        let sum: i64 = (0..ROWS).map(|i| row(i).2).sum();
        assert_eq!(sums.value(total), i128::from(sum));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_of_nothing_has_a_row_without_input() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let plan = rollup(vec![vec![0, 1], vec![], vec![0], vec![]], 10.0);
    let (batches, _) = run(&engine, request(plan, vec![]), None).await.unwrap();
    let batch = whole(&batches);
    assert_eq!(ints(&batch, 4), [Some(1), Some(3)]);
    assert_eq!(bigints(&batch, 2), [Some(0), Some(0)]);
    assert_eq!(batch.column(3).null_count(), 2);
    let plan = rollup(vec![vec![0, 1], vec![0]], 10.0);
    let (batches, _) = run(&engine, request(plan, vec![]), None).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}
