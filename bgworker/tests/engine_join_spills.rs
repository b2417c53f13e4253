//! Joins whose kept side doesn't fit into memory give what they give with memory, and keep it no longer than they need it.

mod engine_support;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use engine_support::*;
use futures::{StreamExt, stream};
use pg_lake_bgworker::engine::{Engine, Feed};
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, Execute, ScanStats, TableInput, WireError};
use pg_lake_plan::types::LakeType;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A number, a text that says it, and a payload. The first two are null together.
const TYPES: [LakeType; 3] = [LakeType::Int4, LakeType::Text, NUMERIC];

const ROWS: i32 = 24_000;

/// Less than a side takes, more than one of its parts.
const LITTLE: u64 = 1 << 20;

/// For whatever has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Few rows are collected as a whole, many are spread.
const FEW: f64 = 1000.0;
const MANY: f64 = 1e8;

type Cells = Vec<Option<String>>;

/// `ROWS` rows from key `first` on, of which each key has two, and every 17th has none.
fn side(first: i32) -> Vec<ArrayRef> {
    columns((0..ROWS).map(|i| (i % 17 > 0).then_some(first + i / 2)))
}

/// The same without nulls.
fn side_without_nulls(first: i32) -> Vec<ArrayRef> {
    columns((0..ROWS).map(|i| Some(first + i / 2)))
}

fn columns(keys: impl Iterator<Item = Option<i32>>) -> Vec<ArrayRef> {
    let keys: Vec<Option<i32>> = keys.collect();
    let text = |key: i32| format!("a key that doesn't fit into a view: {key:08}");
    let texts = StringArray::from_iter(keys.iter().map(|key| key.map(text)));
    let payload = Decimal128Array::from_iter_values((0..keys.len()).map(|i| (i % 3) as i128));
    let payload = payload.with_precision_and_scale(12, 2).unwrap();
    vec![
        Arc::new(Int32Array::from(keys)),
        Arc::new(texts),
        Arc::new(payload),
    ]
}

fn no_rows() -> Vec<ArrayRef> {
    columns(std::iter::empty())
}

fn scan_of(table: u32) -> Plan {
    let mut plan = scan(&TYPES, None);
    if let Plan::Scan(scan) = &mut plan {
        scan.table = table;
    }
    plan
}

fn key(column: u32) -> JoinKey {
    let column = col(column, TYPES[column as usize].clone());
    JoinKey {
        left: column.clone(),
        right: column,
    }
}

/// With a filter where there may be one. One of the sides is expected to have `rows`, the other one more than that.
fn join(kind: JoinKind, keeps_left: bool, rows: f64) -> Plan {
    let null_aware = kind == JoinKind::NullAwareAnti;
    let filter = compare(CompareOp::Ne, col(2, NUMERIC), col(5, NUMERIC));
    let (left_rows, right_rows) = if keeps_left {
        (rows, rows * 2.0)
    } else {
        (rows * 2.0, rows)
    };
    Plan::Join(Join {
        kind,
        left: Box::new(scan_of(0)),
        right: Box::new(scan_of(1)),
        keys: if null_aware {
            vec![key(1)]
        } else {
            vec![key(0), key(1)]
        },
        filter: (!null_aware).then_some(filter),
        left_rows,
        right_rows,
    })
}

fn request_of(root: Plan, memory: u64) -> Execute {
    let mut request = request(root, vec![]);
    let table = || TableInput {
        files: vec![],
        feed: None,
    };
    request.tables = vec![table(), table()];
    request.memory_limit = memory;
    request
}

/// All rows, sorted.
async fn run_in(
    engine: &Engine,
    plan: &Plan,
    sides: [&[ArrayRef]; 2],
    memory: u64,
) -> Result<(Vec<Cells>, ScanStats), WireError> {
    let feeds = sides.map(|side| Some(feed(side.to_vec())));
    let request = request_of(plan.clone(), memory);
    let mut running = engine
        .execute(request, vec![], feeds.into(), CancellationToken::new())
        .await?;
    let mut rows = vec![];
    while let Some(batch) = running.next().await? {
        rows.extend(cells(&batch));
    }
    rows.sort();
    Ok((rows, running.stats()))
}

fn cells(batch: &RecordBatch) -> Vec<Cells> {
    let texts: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .map(|column| cast(column, &DataType::Utf8).unwrap())
        .collect();
    let cell = |column: &ArrayRef, row: usize| {
        let texts = column.as_string::<i32>();
        texts.is_valid(row).then(|| texts.value(row).to_owned())
    };
    let row = |row| texts.iter().map(|column| cell(column, row)).collect();
    (0..batch.num_rows()).map(row).collect()
}

/// What the join's line of the statistics says about files.
fn files_written(stats: &ScanStats) -> u64 {
    let line = stats
        .operators
        .iter()
        .find(|line| line.contains("HashJoinExec"))
        .expect("a line for the join");
    let (_, count) = line.split_once("spill_count=").expect("a count of files");
    let digits: String = count.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

fn spill_files(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { spill_files(&path) } else { 1 }
        })
        .sum()
}

/// Waits until there are files, or none.
async fn wait_for_files(directory: &Path, wanted: bool) {
    let started = Instant::now();
    while (spill_files(directory) > 0) != wanted {
        assert!(started.elapsed() < PATIENCE, "files: {}", !wanted);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Both sides with little memory and with enough. Says how many rows came out.
async fn compare_runs(plan: &Plan, sides: [&[ArrayRef]; 2], what: &str) -> usize {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let (expected, stats) = run_in(&engine, plan, sides, 0).await.expect(what);
    assert_eq!(files_written(&stats), 0, "{what}");
    let (rows, stats) = run_in(&engine, plan, sides, LITTLE).await.expect(what);
    assert!(files_written(&stats) > 0, "{what}: {:#?}", stats.operators);
    assert_eq!(rows.len(), expected.len(), "{what}");
    assert!(rows == expected, "{what}: other rows");
    wait_for_files(spill.path(), false).await;
    let started = Instant::now();
    while engine.memory_used() > 0 {
        assert!(started.elapsed() < PATIENCE, "{what}: memory is left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    expected.len()
}

const KINDS: [JoinKind; 5] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Full,
    JoinKind::Semi,
    JoinKind::Anti,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spilled_joins_give_the_same_rows() {
    let (left, right) = (side(0), side(ROWS / 4));
    for kind in KINDS {
        for keeps_left in [true, false] {
            for rows in [FEW, MANY] {
                let what = format!("{kind:?}, keeps left: {keeps_left}, {rows} rows");
                let plan = join(kind, keeps_left, rows);
                let count = compare_runs(&plan, [&left, &right], &what).await;
                assert!(count > 0, "{what}");
            }
        }
    }
}

/// Only sides that are empty as a whole leave the other one to itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_side_may_be_empty() {
    let (full, empty) = (side(0), no_rows());
    for kind in KINDS {
        let what = format!("{kind:?}");
        let plan = join(kind, true, FEW);
        let count = compare_runs(&plan, [&full, &empty], &what).await;
        let all = matches!(kind, JoinKind::Left | JoinKind::Full | JoinKind::Anti);
        assert_eq!(count, if all { ROWS as usize } else { 0 }, "{what}");
    }
    for (kind, all) in [(JoinKind::Inner, false), (JoinKind::Full, true)] {
        let plan = join(kind, false, FEW);
        let count = compare_runs(&plan, [&empty, &full], &format!("{kind:?}")).await;
        assert_eq!(count, if all { ROWS as usize } else { 0 }, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_in_that_spills_has_its_way_with_nulls() {
    let (left, without_nulls) = (side(0), side_without_nulls(ROWS / 4));
    let (with_nulls, empty) = (side(ROWS / 4), no_rows());
    let keeps_left = join(JoinKind::NullAwareAnti, true, FEW);
    let some = compare_runs(&keeps_left, [&left, &without_nulls], "no nulls").await;
    assert!(some > 0 && some < ROWS as usize);
    let none = compare_runs(&keeps_left, [&left, &with_nulls], "nulls").await;
    assert_eq!(none, 0);
    let all = compare_runs(&keeps_left, [&left, &empty], "nothing on the right").await;
    assert_eq!(all, ROWS as usize);
    let keeps_right = join(JoinKind::NullAwareAnti, false, FEW);
    let same = compare_runs(&keeps_right, [&left, &without_nulls], "the right side").await;
    assert_eq!(same, some);
}

/// No hash divides them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_one_key_are_joined_some_at_a_time_or_are_too_many() {
    let same = columns((0..ROWS).map(|_| Some(7)));
    let few = columns([Some(7), Some(8), None].into_iter());
    for kind in [
        JoinKind::Inner,
        JoinKind::Left,
        JoinKind::Semi,
        JoinKind::Anti,
    ] {
        let plan = join(kind, true, FEW);
        compare_runs(&plan, [&same, &few], &format!("{kind:?}")).await;
    }
    let right = join(JoinKind::Left, false, FEW);
    compare_runs(&right, [&few, &same], "Left, from the right").await;
    let spill = tempfile::tempdir().unwrap();
    let plan = join(JoinKind::Full, true, FEW);
    let engine = engine(spill.path());
    let run = run_in(&engine, &plan, [&same, &few], LITTLE);
    let result = tokio::time::timeout(PATIENCE, run).await.expect("an end");
    let error = result.expect_err("too many rows of a key");
    assert_eq!(error.code, ErrorCode::OutOfMemory);
    assert_eq!(error.hint.as_deref(), Some("Raise lake.worker_memory."));
    wait_for_files(spill.path(), false).await;
}

/// Rows that have no partner anyway are divided all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_without_keys_is_divided() {
    let nulls = columns((0..4 * ROWS).map(|_| None));
    let few = side(0);
    for (kind, count) in [
        (JoinKind::Left, 4 * ROWS as usize),
        (JoinKind::Anti, 4 * ROWS as usize),
    ] {
        let plan = join(kind, true, FEW);
        let rows = compare_runs(&plan, [&nulls, &few], &format!("{kind:?}")).await;
        assert_eq!(rows, count);
    }
}

/// No more of them than there are threads are there at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_sides_of_joins_that_have_ended_are_dropped() {
    let one = peak_of(1).await;
    let many = peak_of(12).await;
    assert!(many < 3 * one, "{many} bytes, {one} for one join");
}

/// The memory that so many joins after one another take.
async fn peak_of(count: u32) -> u64 {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let inputs = (0..count).map(|n| {
        let mut plan = join(JoinKind::Inner, true, FEW);
        if let Plan::Join(join) = &mut plan {
            *join.left = scan_of(2 * n);
            *join.right = scan_of(2 * n + 1);
        }
        plan
    });
    let plan = Plan::Append {
        inputs: inputs.collect(),
    };
    let tables = 2 * count as usize;
    let mut request = request(plan, vec![]);
    request.tables.resize(
        tables,
        TableInput {
            files: vec![],
            feed: None,
        },
    );
    let feeds = (0..tables).map(|_| Some(feed(side(0)))).collect();
    let mut running = engine
        .execute(request, vec![], feeds, CancellationToken::new())
        .await
        .unwrap();
    while running.next().await.unwrap().is_some() {}
    running.stats().memory_peak
}

/// While it divides the kept side, of which more is to come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_join_leaves_no_file() {
    for rows in [FEW, MANY] {
        let spill = tempfile::tempdir().unwrap();
        let engine = engine(spill.path());
        let cancel = CancellationToken::new();
        let feeds = vec![Some(endless(side(0))), Some(feed(side(0)))];
        let request = request_of(join(JoinKind::Inner, true, rows), LITTLE);
        let mut running = engine
            .execute(request, vec![], feeds, cancel.clone())
            .await
            .unwrap();
        wait_for_files(spill.path(), true).await;
        cancel.cancel();
        let started = Instant::now();
        let error = running.next().await.expect_err("a cancellation");
        assert_eq!(error.code, ErrorCode::Cancelled);
        assert!(started.elapsed() < Duration::from_millis(100));
        drop(running);
        wait_for_files(spill.path(), false).await;
    }
}

/// A feed that isn't closed after its rows, which come several times.
fn endless(columns: Vec<ArrayRef>) -> Feed {
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true))
        .collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    stream::iter(vec![batch; 4])
        .map(Ok)
        .chain(stream::pending())
        .boxed()
}
