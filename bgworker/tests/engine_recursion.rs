//! Recursions give the rows of Postgres' RecursiveUnion, step by step, and take no step that nobody wants.

mod engine_support;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array};
use arrow::datatypes::{Float64Type, Int32Type};
use arrow::record_batch::RecordBatch;
use engine_support::*;
use futures::{StreamExt, stream};
use pg_lake_bgworker::engine::{Engine, Feed};
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, Execute, TableInput, WireError};
use pg_lake_plan::types::{LakeType, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn ints(values: impl IntoIterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

fn work_table(types: &[LakeType]) -> Plan {
    let columns = types.iter().enumerate().map(|(at, ty)| WorkColumn {
        name: format!("w{at}"),
        ty: sql(ty.clone()),
    });
    Plan::WorkTable(WorkTable {
        id: 7,
        columns: columns.collect(),
    })
}

fn recursion(non_recursive: Plan, recursive: Plan, distinct: bool) -> Plan {
    Plan::RecursiveUnion(RecursiveUnion {
        non_recursive: Box::new(non_recursive),
        recursive: Box::new(recursive),
        distinct,
        id: 7,
    })
}

fn project(input: Plan, exprs: Vec<Expr>) -> Plan {
    let input = Box::new(input);
    Plan::Project { input, exprs }
}

fn filter(input: Plan, predicate: Expr) -> Plan {
    let input = Box::new(input);
    Plan::Filter { input, predicate }
}

fn limit(input: Plan, rows: u64) -> Plan {
    Plan::Limit {
        input: Box::new(input),
        skip: 0,
        fetch: Some(rows),
    }
}

fn n() -> Expr {
    col(0, LakeType::Int4)
}

fn one() -> Plan {
    project(Plan::OneRow, vec![int(1)])
}

/// `SELECT n + 1 FROM r`
fn successors() -> Plan {
    let next = arith(LakeType::Int4, ArithmeticOp::Add, n(), int(1));
    project(work_table(&[LakeType::Int4]), vec![next])
}

/// The edges' ends from the rows of the last step, by a join that keeps one side or the other.
fn reached(keeps_left: bool) -> Plan {
    let (left_rows, right_rows) = if keeps_left { (1.0, 2.0) } else { (2.0, 1.0) };
    let join = Plan::Join(Join {
        kind: JoinKind::Inner,
        left: Box::new(work_table(&[LakeType::Int4])),
        right: Box::new(scan(&[LakeType::Int4, LakeType::Int4], None)),
        keys: vec![JoinKey {
            left: n(),
            right: n(),
        }],
        filter: None,
        left_rows,
        right_rows,
    });
    project(join, vec![col(2, LakeType::Int4)])
}

async fn rows(
    engine: &Engine,
    request: Execute,
    feed: Option<Feed>,
) -> Result<Vec<i32>, WireError> {
    let mut feeds: Vec<Option<Feed>> = request.tables.iter().map(|_| None).collect();
    if let Some(first) = feeds.first_mut() {
        *first = feed;
    }
    let mut running = engine
        .execute(request, vec![], feeds, CancellationToken::new())
        .await?;
    let mut found = vec![];
    while let Some(batch) = running.next().await? {
        found.extend(first_column(&batch));
    }
    Ok(found)
}

fn first_column(batch: &RecordBatch) -> Vec<i32> {
    let column = batch.column(0).as_primitive::<Int32Type>();
    column.values().to_vec()
}

/// A plan that scans nothing.
fn alone(root: Plan) -> Execute {
    let mut request = request(root, vec![]);
    request.tables.clear();
    request
}

async fn of_nothing(root: Plan) -> Result<Vec<i32>, WireError> {
    let spill = tempfile::tempdir().unwrap();
    rows(&engine(spill.path()), alone(root), None).await
}

/// 1 → 2 → 3 → 4 → 2, and 2 → 5
fn edges() -> Vec<ArrayRef> {
    vec![ints([1, 2, 3, 4, 2]), ints([2, 3, 4, 2, 5])]
}

fn sorted(mut rows: Vec<i32>) -> Vec<i32> {
    rows.sort_unstable();
    rows
}

#[tokio::test]
async fn a_circle_ends_where_rows_are_distinct() {
    let directory = tempfile::tempdir().unwrap();
    let engine = engine(directory.path());
    let file = write(&directory.path().join("edges.parquet"), edges(), 2);
    for keeps_left in [true, false] {
        let plan = recursion(one(), reached(keeps_left), true);
        let found = rows(&engine, request(plan, vec![file.clone()]), None).await;
        assert_eq!(sorted(found.unwrap()), [1, 2, 3, 4, 5]);
    }
}

#[tokio::test]
async fn fed_rows_are_there_in_each_step() {
    let directory = tempfile::tempdir().unwrap();
    let engine = engine(directory.path());
    let file = write(
        &directory.path().join("edges.parquet"),
        vec![ints([1, 3]), ints([2, 4])],
        2,
    );
    for keeps_left in [true, false] {
        let fed = feed(vec![ints([2, 4, 2]), ints([3, 2, 5])]);
        let plan = recursion(one(), reached(keeps_left), true);
        let found = rows(&engine, request(plan, vec![file.clone()]), Some(fed)).await;
        assert_eq!(sorted(found.unwrap()), [1, 2, 3, 4, 5]);
    }
}

#[tokio::test]
async fn rows_come_step_by_step() {
    let less = compare(CompareOp::Lt, n(), int(200));
    let plan = recursion(one(), filter(successors(), less), false);
    let expected: Vec<i32> = (1..200).collect();
    assert_eq!(of_nothing(plan).await.unwrap(), expected);
}

#[tokio::test]
async fn nothing_follows_from_nothing() {
    let plan = recursion(limit(one(), 0), successors(), false);
    assert!(of_nothing(plan).await.unwrap().is_empty());
}

/// `SELECT 7 FROM (SELECT count(*) AS c FROM (SELECT n FROM r) x) y WHERE c < 1`
#[tokio::test]
async fn rows_are_counted_in_a_first_step_over_none() {
    let counted = Plan::Aggregate {
        input: Box::new(work_table(&[LakeType::Int4])),
        groups: vec![],
        aggregates: vec![aggregate(AggregateFunction::Count, None, LakeType::Int8)],
        sets: vec![],
        groups_estimate: 1.0,
    };
    let one_row = constant(LakeType::Int8, Value::I64(1));
    let none = compare(CompareOp::Lt, col(0, LakeType::Int8), one_row);
    let step = project(filter(counted, none), vec![int(7)]);
    let over_none = recursion(limit(one(), 0), step.clone(), false);
    assert_eq!(of_nothing(over_none).await.unwrap(), [7]);
    let over_one = recursion(one(), step, false);
    assert_eq!(of_nothing(over_one).await.unwrap(), [1]);
}

/// A step that nobody wants would raise an error, and a filter that collects rows would get to it.
#[tokio::test]
async fn a_limit_ends_a_recursion_without_end() {
    let begin = i32::MAX - 20;
    let plan = recursion(project(Plan::OneRow, vec![int(begin)]), successors(), false);
    let found = of_nothing(limit(plan.clone(), 5)).await.unwrap();
    assert_eq!(found, (begin..begin + 5).collect::<Vec<i32>>());
    let rest = arith(LakeType::Int4, ArithmeticOp::Modulo, n(), int(2));
    let odd = filter(plan.clone(), compare(CompareOp::Ne, rest, int(0)));
    assert_eq!(of_nothing(limit(odd, 5)).await.unwrap().len(), 5);
    let error = of_nothing(plan).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::OutOfRange);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recursion_without_end_can_be_cancelled() {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let same = project(work_table(&[LakeType::Int4]), vec![n()]);
    let plan = Plan::Aggregate {
        input: Box::new(recursion(one(), same, false)),
        groups: vec![],
        aggregates: vec![aggregate(AggregateFunction::Count, None, LakeType::Int8)],
        sets: vec![],
        groups_estimate: 1.0,
    };
    let cancel = CancellationToken::new();
    let mut running = engine
        .execute(alone(plan), vec![], vec![], cancel.clone())
        .await
        .unwrap();
    let counting = tokio::spawn(async move { running.next().await.map(|_| ()) });
    cancel.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), counting).await;
    let error = ended.expect("it goes on").unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::Cancelled);
}

/// Zeros are equal whatever their sign, and so are all NaNs; nulls are, too.
#[tokio::test]
async fn the_first_of_equal_rows_comes_out() {
    let values = [
        Some(-0.0),
        Some(0.0),
        None,
        Some(f64::NAN),
        None,
        Some(-f64::NAN),
        Some(1.0),
    ];
    let column: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
    let x = || col(0, LakeType::Float8);
    let negated = expr(LakeType::Float8, ExprKind::Negate(Box::new(x())));
    let plan = recursion(
        scan(&[LakeType::Float8], None),
        project(work_table(&[LakeType::Float8]), vec![negated]),
        true,
    );
    let spill = tempfile::tempdir().unwrap();
    let request = request(plan, vec![]);
    let (batches, _) = run(&engine(spill.path()), request, Some(feed(vec![column])))
        .await
        .unwrap();
    let columns = batches.iter().map(|batch| batch.column(0));
    let found: Vec<Option<f64>> = columns
        .flat_map(|column| column.as_primitive::<Float64Type>().iter())
        .collect();
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found[0].is_some_and(|zero| zero == 0.0 && zero.is_sign_negative()));
    assert_eq!(found[1], None);
    assert!(found[2].is_some_and(f64::is_nan));
    assert_eq!(found[3..], [Some(1.0), Some(-1.0)]);
}

#[tokio::test]
async fn a_feed_that_is_not_wanted_is_left_alone() {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let never: Feed = stream::pending().boxed();
    let plan = limit(recursion(one(), reached(true), false), 1);
    let found = rows(&engine, request(plan, vec![]), Some(never));
    let found = tokio::time::timeout(Duration::from_secs(20), found).await;
    assert_eq!(found.expect("it waits for the feed").unwrap(), [1]);
}

#[tokio::test]
async fn malformed_recursions_are_refused() {
    let text = constant(LakeType::Text, Value::Text("a".into()));
    let plans = [
        work_table(&[LakeType::Int4]),
        recursion(successors(), one(), false),
        recursion(one(), work_table(&[LakeType::Int8]), false),
        recursion(one(), project(Plan::OneRow, vec![text]), false),
        recursion(one(), recursion(one(), successors(), false), false),
        recursion(Plan::OneRow, work_table(&[]), true),
    ];
    for plan in plans {
        let error = of_nothing(plan).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Protocol);
    }
}

#[tokio::test]
async fn several_tables_are_scanned_in_each_step() {
    let directory = tempfile::tempdir().unwrap();
    let engine = engine(directory.path());
    let file = write(&directory.path().join("edges.parquet"), edges(), 5);
    let mut beginning = scan(&[LakeType::Int4, LakeType::Int4], None);
    if let Plan::Scan(scan) = &mut beginning {
        scan.table = 1;
    }
    let first = compare(CompareOp::Eq, n(), int(1));
    let plan = recursion(
        project(filter(beginning, first), vec![n()]),
        reached(false),
        true,
    );
    let mut request = request(plan, vec![file.clone()]);
    request.tables.push(TableInput {
        files: vec![file],
        feed: None,
    });
    let found = rows(&engine, request, None).await;
    assert_eq!(sorted(found.unwrap()), [1, 2, 3, 4, 5]);
}
