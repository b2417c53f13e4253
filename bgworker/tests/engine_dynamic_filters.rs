//! What joins and sorts let scans leave out doesn't come out, and is not read where statistics show it.

mod engine_support;

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::Int32Type;
use engine_support::*;
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, FileRef, ScanStats, TableInput, WireError};
use pg_lake_plan::types::{LakeType, Value};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A key and the number of the row.
const TYPES: [LakeType; 2] = [LakeType::Int4, LakeType::Int4];

const GROUP: usize = 1000;

type Row = Vec<Option<i32>>;

/// The rows of a table, by their keys.
fn table(keys: impl IntoIterator<Item = Option<i32>>) -> Vec<Row> {
    let number = |(key, number): (Option<i32>, i32)| vec![key, Some(number)];
    keys.into_iter().zip(0..).map(number).collect()
}

fn keys(keys: impl IntoIterator<Item = i32>) -> Vec<Row> {
    table(keys.into_iter().map(Some))
}

fn file(directory: &Path, name: &str, rows: &[Row]) -> FileRef {
    let column =
        |i: usize| -> ArrayRef { Arc::new(Int32Array::from_iter(rows.iter().map(|r| r[i]))) };
    write(&directory.join(name), vec![column(0), column(1)], GROUP)
}

fn scan_of(table: u32, predicate: Option<Expr>) -> Plan {
    let mut plan = scan(&TYPES, predicate);
    if let Plan::Scan(scan) = &mut plan {
        scan.table = table;
    }
    plan
}

fn key(column: u32) -> Expr {
    col(column, LakeType::Int4)
}

/// By the first columns.
fn join(kind: JoinKind, left: Plan, right: Plan, keeps_left: bool) -> Plan {
    let (left_rows, right_rows) = if keeps_left { (1.0, 2.0) } else { (2.0, 1.0) };
    Plan::Join(Join {
        kind,
        left: Box::new(left),
        right: Box::new(right),
        keys: vec![JoinKey {
            left: key(0),
            right: key(0),
        }],
        filter: None,
        left_rows,
        right_rows,
    })
}

/// The rows in the engine's order.
async fn run_over(
    plan: Plan,
    tables: &[&[Row]],
    memory: u64,
) -> Result<(Vec<Row>, ScanStats), WireError> {
    let directory = tempfile::tempdir().unwrap();
    let engine = engine(directory.path());
    let mut request = request(plan, vec![]);
    request.memory_limit = memory;
    request.tables.clear();
    for (number, rows) in tables.iter().enumerate() {
        let file = file(directory.path(), &format!("{number}.parquet"), rows);
        let files = if rows.is_empty() { vec![] } else { vec![file] };
        request.tables.push(TableInput { files, feed: None });
    }
    let feeds = tables.iter().map(|_| None).collect();
    let mut running = engine
        .execute(request, vec![], feeds, CancellationToken::new())
        .await?;
    let mut rows = vec![];
    while let Some(batch) = running.next().await? {
        rows.extend((0..batch.num_rows()).map(|row| cells(&batch, row)));
    }
    Ok((rows, running.stats()))
}

fn cells(batch: &RecordBatch, row: usize) -> Row {
    let cell = |column: &ArrayRef| column.as_primitive::<Int32Type>().iter().nth(row).flatten();
    batch.columns().iter().map(cell).collect()
}

fn matches(left: &[Option<i32>], right: &[Option<i32>]) -> bool {
    left[0].is_some() && left[0] == right[0]
}

fn both(left: &[Option<i32>], right: &[Option<i32>]) -> Row {
    left.iter().chain(right).copied().collect()
}

/// What a join of two tables gives, sorted.
fn joined(kind: JoinKind, left: &[Row], right: &[Row]) -> Vec<Row> {
    let nothing = vec![None, None];
    let mut rows = vec![];
    for row in left {
        let partners: Vec<&Row> = right.iter().filter(|other| matches(row, other)).collect();
        match kind {
            JoinKind::Semi if !partners.is_empty() => rows.push(row.clone()),
            JoinKind::Anti if partners.is_empty() => rows.push(row.clone()),
            JoinKind::Left | JoinKind::Full if partners.is_empty() => {
                rows.push(both(row, &nothing));
            }
            JoinKind::Inner | JoinKind::Left | JoinKind::Full => {
                rows.extend(partners.into_iter().map(|partner| both(row, partner)));
            }
            _ => {}
        }
    }
    if kind == JoinKind::Full {
        let alone = |row: &&Row| !left.iter().any(|other| matches(other, row));
        rows.extend(right.iter().filter(alone).map(|row| both(&nothing, row)));
    }
    rows.sort();
    rows
}

const KINDS: [JoinKind; 5] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Full,
    JoinKind::Semi,
    JoinKind::Anti,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_give_the_rows_that_they_should() {
    let large = table((0..5000).map(|i| (i % 7 > 0).then_some(i / 2)));
    let smalls = [
        keys([1000, 1001, 3, 3, 2400, 99_999]),
        keys([-5, 1_000_000]),
        table([None, Some(7), None]),
        table([None, None]),
        vec![],
    ];
    for (number, small) in smalls.iter().enumerate() {
        for kind in KINDS {
            for small_left in [true, false] {
                for keeps_left in [true, false] {
                    let what = format!("{kind:?} {number} {small_left} {keeps_left}");
                    let (left, right) = if small_left {
                        (small, &large)
                    } else {
                        (&large, small)
                    };
                    let plan = join(kind, scan_of(0, None), scan_of(1, None), keeps_left);
                    let (mut rows, _) = run_over(plan, &[left, right], 0).await.expect(&what);
                    rows.sort();
                    assert!(rows == joined(kind, left, right), "{what}");
                }
            }
        }
    }
}

/// Both sides are spread, and the parts of the kept one tell their keys together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spread_joins_give_the_rows_that_they_should() {
    let large = table((0..5000).map(|i| (i % 7 > 0).then_some(i / 2)));
    let smalls = [
        keys([1000, 1001, 3, 3, 2400, 99_999]),
        table([None, Some(7), None]),
        table([None]),
        vec![],
    ];
    for (number, small) in smalls.iter().enumerate() {
        for kind in KINDS {
            for keeps_left in [true, false] {
                let what = format!("{kind:?} {number} {keeps_left}");
                let mut plan = join(kind, scan_of(0, None), scan_of(1, None), keeps_left);
                if let Plan::Join(join) = &mut plan {
                    join.left_rows *= 1e7;
                    join.right_rows *= 1e7;
                }
                let (left, right) = if keeps_left {
                    (small, &large)
                } else {
                    (&large, small)
                };
                let (mut rows, _) = run_over(plan, &[left, right], 0).await.expect(&what);
                rows.sort();
                assert!(rows == joined(kind, left, right), "{what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_groups_without_a_key_are_not_read() {
    let (few, many) = (keys(2000..2010), keys(0..10_000));
    let (left, right) = (scan_of(0, None), scan_of(1, None));
    let plan = |kind| join(kind, left.clone(), right.clone(), true);
    for kind in [
        JoinKind::Inner,
        JoinKind::Left,
        JoinKind::Semi,
        JoinKind::Anti,
    ] {
        let (rows, stats) = run_over(plan(kind), &[&few, &many], 0).await.unwrap();
        assert_eq!(rows.len(), if kind == JoinKind::Anti { 0 } else { 10 });
        assert_eq!((stats.row_groups, stats.row_groups_pruned), (11, 9));
        assert_eq!((stats.rows_cold, stats.rows_skipped), (1010, 990));
    }
    // The rows of the side that passes come out.
    let full = run_over(plan(JoinKind::Full), &[&few, &many], 0).await;
    let (rows, stats) = full.unwrap();
    assert_eq!((rows.len(), stats.row_groups_pruned), (10_000, 0));
    let plan = join(JoinKind::Anti, right, left, false);
    let (rows, stats) = run_over(plan, &[&few, &many], 0).await.unwrap();
    assert_eq!((rows.len(), stats.row_groups_pruned), (9990, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_between_the_bounds_drop_rows() {
    let few = keys((0..10).map(|i| i * 1000 + 7));
    let many = keys(0..10_000);
    let plan = join(JoinKind::Inner, scan_of(0, None), scan_of(1, None), true);
    let (rows, stats) = run_over(plan, &[&few, &many], 0).await.unwrap();
    assert_eq!((rows.len(), stats.row_groups_pruned), (10, 0));
    assert_eq!(stats.rows_skipped, 9990);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_for_no_key() {
    let many = keys(0..10_000);
    let none = compare(CompareOp::Lt, key(0), int(0));
    let left = scan_of(0, Some(none));
    let plan = join(JoinKind::Inner, left, scan_of(1, None), true);
    let (rows, stats) = run_over(plan, &[&many, &many], 0).await.unwrap();
    assert!(rows.is_empty());
    assert_eq!(stats.rows_cold, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_predicate_raises_is_raised() {
    let (few, many) = (keys(2000..2010), keys(0..10_000));
    // The row that fails is in a row group without a key.
    let ratio = arith(LakeType::Int4, ArithmeticOp::Divide, int(1), key(1));
    let fails = compare(CompareOp::Ge, ratio, int(0));
    let passing = scan_of(1, Some(fails));
    let plan = join(JoinKind::Inner, scan_of(0, None), passing, true);
    let error = run_over(plan, &[&few, &many], 0).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DivisionByZero);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_pass_through_joins() {
    let (few, some, many) = (keys(2000..2010), keys(0..5000), keys(0..10_000));
    let below = join(JoinKind::Inner, scan_of(1, None), scan_of(2, None), true);
    let plan = join(JoinKind::Inner, scan_of(0, None), below, true);
    let (rows, stats) = run_over(plan, &[&few, &some, &many], 0).await.unwrap();
    let mut found: Vec<i32> = rows.iter().filter_map(|row| row[4]).collect();
    found.sort_unstable();
    assert_eq!(found, (2000..2010).collect::<Vec<_>>());
    assert_eq!((stats.row_groups, stats.row_groups_pruned), (16, 13));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_pass_through_groups() {
    let few = keys(2000..2010);
    let many = keys((0..10_000).map(|i| i / 2));
    let count = aggregate(AggregateFunction::Count, None, LakeType::Int8);
    let counts = Plan::Aggregate {
        input: Box::new(scan_of(1, None)),
        groups: vec![key(0)],
        aggregates: vec![count],
        sets: vec![],
        groups_estimate: 5000.0,
    };
    let two = constant(LakeType::Int8, Value::I64(2));
    let counted = Plan::Filter {
        input: Box::new(counts),
        predicate: compare(CompareOp::Eq, col(1, LakeType::Int8), two),
    };
    let keys_only = Plan::Project {
        input: Box::new(counted),
        exprs: vec![key(0)],
    };
    let plan = join(JoinKind::Inner, scan_of(0, None), keys_only, true);
    let (rows, stats) = run_over(plan, &[&few, &many], 0).await.unwrap();
    assert_eq!(rows.len(), 10);
    assert_eq!((stats.row_groups, stats.row_groups_pruned), (11, 9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spilled_join_tells_nothing() {
    let (kept, passing) = (keys(60_000..120_000), keys(0..120_000));
    let plan = join(JoinKind::Inner, scan_of(0, None), scan_of(1, None), true);
    let tables = [kept.as_slice(), passing.as_slice()];
    let (rows, stats) = run_over(plan.clone(), &tables, 0).await.unwrap();
    assert_eq!((rows.len(), stats.row_groups_pruned), (60_000, 60));
    let (rows, stats) = run_over(plan, &tables, 1 << 20).await.unwrap();
    assert_eq!((rows.len(), stats.row_groups_pruned), (60_000, 0));
    assert_eq!(stats.rows_skipped, 0);
}

fn sort_key(column: u32, descending: bool, nulls_first: bool) -> SortKey {
    SortKey {
        expr: key(column),
        descending,
        nulls_first,
    }
}

/// By the key, then by the number.
fn first(table: u32, fetch: u64, descending: bool, nulls_first: bool) -> Plan {
    Plan::Sort {
        input: Box::new(scan_of(table, None)),
        keys: vec![
            sort_key(0, descending, nulls_first),
            sort_key(1, true, false),
        ],
        fetch: Some(fetch),
    }
}

fn sorted(rows: &[Row], descending: bool, nulls_first: bool) -> Vec<Row> {
    let mut rows = rows.to_vec();
    let place = |key: Option<i32>| {
        let key = key.map(i64::from);
        let null = if nulls_first { i64::MIN } else { i64::MAX };
        key.map_or(null, |key| if descending { -key } else { key })
    };
    rows.sort_by_key(|row| (place(row[0]), row[1].map(|number| -number)));
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_rows_are_the_right_ones() {
    let tables = [
        table((0..5000).map(|i| (i % 11 > 0).then_some(i / 50))),
        table((0..5000).map(|i| (i % 11 > 0).then_some(i * 7919 % 100))),
        table((0..5000).map(|i| (i < 4000).then_some(-i))),
    ];
    for rows in &tables {
        for descending in [true, false] {
            for nulls_first in [true, false] {
                for fetch in [1, 30, 600, 4999] {
                    let plan = first(0, fetch, descending, nulls_first);
                    let (found, _) = run_over(plan, &[rows], 0).await.unwrap();
                    let expected = sorted(rows, descending, nulls_first);
                    let what = format!("{descending} {nulls_first} {fetch}");
                    assert!(found == expected[..fetch as usize], "{what}");
                }
            }
        }
    }
}

/// By a column of either side, which an outer join may fill with nulls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_rows_of_joins_are_the_right_ones() {
    let left = table((0..2000).map(|i| (i % 7 > 0).then_some(i * 7919 % 1000)));
    let right = table((0..2000).map(|i| (i % 5 > 0).then_some(i * 31 % 1500)));
    let by = |rows: &[Row], column: usize| -> Vec<Row> {
        rows.iter().map(|row| vec![row[column], None]).collect()
    };
    for kind in KINDS {
        let all = joined(kind, &left, &right);
        for column in 0..all[0].len() {
            for (descending, nulls_first) in [(false, false), (false, true), (true, true)] {
                for keeps_left in [true, false] {
                    let plan = Plan::Sort {
                        input: Box::new(join(kind, scan_of(0, None), scan_of(1, None), keeps_left)),
                        keys: vec![sort_key(column as u32, descending, nulls_first)],
                        fetch: Some(20),
                    };
                    let (found, _) = run_over(plan, &[&left, &right], 0).await.unwrap();
                    let expected = sorted(&by(&all, column), descending, nulls_first);
                    let what = format!("{kind:?} {column} {descending} {nulls_first} {keeps_left}");
                    assert!(by(&found, column) == expected[..20], "{what}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_groups_after_the_first_rows_are_not_read() {
    let ascending = keys(0..10_000);
    let (rows, stats) = run_over(first(0, 5, false, false), &[&ascending], 0)
        .await
        .unwrap();
    assert_eq!(rows.len(), 5);
    assert_eq!((stats.row_groups, stats.row_groups_pruned), (10, 9));
    assert_eq!(stats.rows_cold, GROUP as u64);
    let (_, stats) = run_over(first(0, 5, true, false), &[&ascending], 0)
        .await
        .unwrap();
    assert_eq!(stats.row_groups_pruned, 0);

    // A null may still come, and be the first.
    let nulls = table((0..10_000).map(|i| (i < 9500).then_some(i)));
    let (rows, stats) = run_over(first(0, 5, false, true), &[&nulls], 0)
        .await
        .unwrap();
    assert!(rows.iter().all(|row| row[0].is_none()));
    assert_eq!(stats.row_groups_pruned, 8);
}
