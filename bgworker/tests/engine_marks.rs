//! `x IN (SELECT …)` as a value is what nulls make of it, with memory and with little.

mod engine_support;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::Int32Type;
use engine_support::*;
use pg_lake_bgworker::engine::Engine;
use pg_lake_plan::ir::*;
use pg_lake_plan::message::TableInput;
use pg_lake_plan::types::LakeType;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const TYPES: [LakeType; 2] = [LakeType::Int4, LakeType::Int4];

/// Few rows are collected as a whole, many are spread.
const ESTIMATES: [f64; 2] = [1000.0, 1e8];

type Row = (Option<i32>, i32, Option<bool>);

/// The keys, and the number of each row.
fn side(keys: &[Option<i32>]) -> Vec<ArrayRef> {
    let numbers = Int32Array::from_iter_values(0..keys.len() as i32);
    vec![Arc::new(Int32Array::from(keys.to_vec())), Arc::new(numbers)]
}

fn scan_of(table: u32) -> Plan {
    let mut plan = scan(&TYPES, None);
    if let Plan::Scan(scan) = &mut plan {
        scan.table = table;
    }
    plan
}

fn mark(kind: JoinKind, keeps_left: bool, rows: f64) -> Plan {
    let (left_rows, right_rows) = match keeps_left {
        true => (rows, rows + 1.0),
        false => (rows + 1.0, rows),
    };
    Plan::Join(Join {
        kind,
        left: Box::new(scan_of(0)),
        right: Box::new(scan_of(1)),
        keys: vec![JoinKey {
            left: col(0, LakeType::Int4),
            right: col(0, LakeType::Int4),
        }],
        filter: None,
        left_rows,
        right_rows,
    })
}

/// What SQL says.
fn expected(kind: JoinKind, left: &[Option<i32>], right: &[Option<i32>]) -> Vec<Row> {
    let known: std::collections::HashSet<i32> = right.iter().copied().flatten().collect();
    let has_null = right.contains(&None);
    let value = |key: &Option<i32>| {
        let found = key.is_some_and(|key| known.contains(&key));
        let open = has_null || (key.is_none() && !right.is_empty());
        match found {
            true => Some(true),
            false if kind == JoinKind::NullAwareMark && open => None,
            false => Some(false),
        }
    };
    let rows = left.iter().zip(0..);
    let mut rows: Vec<Row> = rows.map(|(key, n)| (*key, n, value(key))).collect();
    rows.sort();
    rows
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let keys = batch.column(0).as_primitive::<Int32Type>();
    let numbers = batch.column(1).as_primitive::<Int32Type>();
    let marks = batch.column(2).as_boolean();
    let mark = |row: usize| marks.is_valid(row).then(|| marks.value(row));
    let key = |row: usize| keys.is_valid(row).then(|| keys.value(row));
    let row = |row| (key(row), numbers.value(row), mark(row));
    (0..batch.num_rows()).map(row).collect()
}

async fn batches(
    engine: &Engine,
    plan: Plan,
    sides: &[&[Option<i32>]],
    memory: u64,
) -> Vec<RecordBatch> {
    let mut request = request(plan, vec![]);
    let table = || TableInput {
        files: vec![],
        feed: None,
    };
    request.tables = sides.iter().map(|_| table()).collect();
    request.memory_limit = memory;
    let feeds = sides.iter().map(|keys| Some(feed(side(keys))));
    let mut running = engine
        .execute(request, vec![], feeds.collect(), CancellationToken::new())
        .await
        .unwrap();
    let mut batches = vec![];
    while let Some(batch) = running.next().await.unwrap() {
        batches.push(batch);
    }
    batches
}

/// Both kinds, with either side kept, collected and spread.
async fn check(left: &[Option<i32>], right: &[Option<i32>], memory: u64) {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    for kind in [JoinKind::Mark, JoinKind::NullAwareMark] {
        for keeps_left in [true, false] {
            for rows in ESTIMATES {
                let plan = mark(kind, keeps_left, rows);
                let batches = batches(&engine, plan, &[left, right], memory).await;
                let mut marked: Vec<Row> = batches.iter().flat_map(rows_of).collect();
                marked.sort();
                let what = format!("{kind:?}, keeps left: {keeps_left}, {rows} rows");
                assert!(marked == expected(kind, left, right), "{what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_are_what_nulls_make_of_them() {
    let left = [Some(1), None, Some(2), Some(2), Some(7)];
    let sides: [&[Option<i32>]; 5] = [
        &[],
        &[Some(2), Some(1), Some(2)],
        &[Some(2), None, Some(3)],
        &[None, None],
        &[Some(9)],
    ];
    for right in sides {
        check(&left, right, 0).await;
        check(&[], right, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_of_sides_that_do_not_fit() {
    const LITTLE: u64 = 1 << 20;
    let left: Vec<Option<i32>> = (0..60_000).map(|n| (n % 17 > 0).then_some(n / 2)).collect();
    let right: Vec<Option<i32>> = (10_000..70_000).map(Some).collect();
    let mut with_null = right.clone();
    with_null.push(None);
    check(&left, &right, LITTLE).await;
    check(&left, &with_null, LITTLE).await;
}

/// The left side may lose rows that the join above drops, the right side none: its nulls make marks null.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_join_above_drops_does_not_change_marks() {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let left = [Some(1), None, Some(2), Some(3), Some(7), Some(1)];
    let above = [Some(1), Some(2), Some(9)];
    let sides: [&[Option<i32>]; 3] = [&[], &[Some(2), Some(9), None], &[Some(3)]];
    for kind in [JoinKind::Mark, JoinKind::NullAwareMark] {
        for keeps_left in [true, false] {
            for right in sides {
                let plan = Plan::Join(Join {
                    kind: JoinKind::Inner,
                    left: Box::new(mark(kind, keeps_left, 1000.0)),
                    right: Box::new(scan_of(2)),
                    keys: vec![JoinKey {
                        left: col(0, LakeType::Int4),
                        right: col(0, LakeType::Int4),
                    }],
                    filter: None,
                    left_rows: 1000.0,
                    right_rows: 3.0,
                });
                let batches = batches(&engine, plan, &[&left, right, &above], 0).await;
                let mut marked: Vec<Row> = batches.iter().flat_map(rows_of).collect();
                marked.sort();
                let mut wanted = expected(kind, &left, right);
                wanted.retain(|(key, _, _)| key.is_some() && above.contains(key));
                assert_eq!(marked, wanted, "{kind:?}, keeps left: {keeps_left}");
            }
        }
    }
}

#[tokio::test]
async fn only_what_is_asked_for_comes_out() {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let project = |exprs: Vec<Expr>| Plan::Project {
        input: Box::new(mark(JoinKind::NullAwareMark, false, 10.0)),
        exprs,
    };
    let (left, right) = ([Some(1), None, Some(3)], [Some(3)]);
    let only_mark = project(vec![col(2, LakeType::Bool)]);
    let marks = batches(&engine, only_mark, &[&left, &right], 0).await;
    let mut marks: Vec<Option<bool>> = marks
        .iter()
        .flat_map(|batch| batch.column(0).as_boolean().iter().collect::<Vec<_>>())
        .collect();
    marks.sort();
    assert_eq!(marks, [None, Some(false), Some(true)]);
    let mixed = project(vec![
        col(2, LakeType::Bool),
        col(1, LakeType::Int4),
        col(2, LakeType::Bool),
    ]);
    let rows = batches(&engine, mixed, &[&left, &right], 0).await;
    assert!(rows.iter().all(|batch| batch.num_columns() == 3));
    let nothing = batches(&engine, project(vec![]), &[&left, &right], 0).await;
    assert_eq!(nothing.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
}
