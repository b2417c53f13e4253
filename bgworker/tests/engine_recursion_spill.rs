//! Recursions over more rows than the memory of their query holds.

mod engine_support;

use arrow::array::{ArrayRef, AsArray, Int32Array, StringArray};
use arrow::datatypes::{Field, Int32Type, Schema};
use arrow::record_batch::RecordBatch;
use engine_support::*;
use futures::{StreamExt, stream};
use pg_lake_bgworker::engine::{Engine, Feed};
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, Execute, WireError};
use pg_lake_plan::types::LakeType;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const LITTLE_MEMORY: u64 = 4 << 20;

fn n() -> Expr {
    col(0, LakeType::Int4)
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

fn one() -> Plan {
    project(Plan::OneRow, vec![int(1)])
}

fn computed(op: ArithmeticOp, left: Expr, right: i32) -> Expr {
    arith(LakeType::Int4, op, left, int(right))
}

/// `SELECT n * factor + summand FROM r WHERE n < limit`
fn line(factor: i32, summand: i32, limit: i32) -> Plan {
    let below = Plan::Filter {
        input: Box::new(work_table(&[LakeType::Int4])),
        predicate: compare(CompareOp::Lt, n(), int(limit)),
    };
    let product = computed(ArithmeticOp::Multiply, n(), factor);
    project(below, vec![computed(ArithmeticOp::Add, product, summand)])
}

fn counted(rows: Plan) -> Plan {
    Plan::Aggregate {
        input: Box::new(rows),
        groups: vec![],
        aggregates: vec![aggregate(AggregateFunction::Count, None, LakeType::Int8)],
        sets: vec![],
        groups_estimate: 1.0,
    }
}

/// Each step has twice the rows of the one before, without end.
fn doubling() -> Plan {
    let same = || project(work_table(&[LakeType::Int4]), vec![n()]);
    let twice = Plan::Append {
        inputs: vec![same(), same()],
    };
    counted(recursion(one(), twice, false))
}

/// A plan that scans nothing.
fn alone(root: Plan) -> Execute {
    let mut request = with_little_memory(root);
    request.tables.clear();
    request
}

fn with_little_memory(root: Plan) -> Execute {
    Execute {
        memory_limit: LITTLE_MEMORY,
        ..request(root, vec![])
    }
}

/// The numbers of the first column, and the bytes that were spilled.
async fn rows(
    engine: &Engine,
    request: Execute,
    feeds: Vec<Option<Feed>>,
) -> Result<(Vec<i32>, u64), WireError> {
    let mut running = engine
        .execute(request, vec![], feeds, CancellationToken::new())
        .await?;
    let usage = running.usage();
    let mut found = vec![];
    while let Some(batch) = running.next().await? {
        let column = batch.column(0).as_primitive::<Int32Type>();
        found.extend_from_slice(column.values());
    }
    Ok((found, usage.progress().spilled_bytes))
}

fn sorted(mut rows: Vec<i32>) -> Vec<i32> {
    rows.sort_unstable();
    rows
}

async fn wait_for_no_files(directory: &std::path::Path) {
    let entries = || std::fs::read_dir(directory).unwrap().count();
    let deadline = Instant::now() + Duration::from_secs(20);
    while entries() > 0 {
        assert!(Instant::now() < deadline, "{} are left", entries());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A tree: the last step has half of all rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rows_of_a_step_are_spilled() {
    const LIMIT: i32 = 600_000;
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let children = Plan::Append {
        inputs: vec![line(2, 0, LIMIT), line(2, 1, LIMIT)],
    };
    let request = alone(recursion(one(), children, false));
    let (found, spilled) = rows(&engine, request, vec![]).await.unwrap();
    assert!(sorted(found).into_iter().eq(1..2 * LIMIT));
    assert!(spilled > 0);
    wait_for_no_files(spill.path()).await;
}

/// Many numbers are reached again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distinct_rows_are_spilled() {
    const MODULUS: i32 = 400_000;
    let lines = [(7, 1), (11, 3), (1, 13)];
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let inputs = lines.map(|(factor, summand)| {
        let rest = computed(ArithmeticOp::Modulo, n(), MODULUS);
        project(line(factor, summand, MODULUS), vec![rest])
    });
    let step = Plan::Append {
        inputs: inputs.into(),
    };
    let request = alone(recursion(one(), step, true));
    let (found, spilled) = rows(&engine, request, vec![]).await.unwrap();

    let mut expected = HashSet::from([1]);
    let mut open = vec![1];
    while let Some(number) = open.pop() {
        for (factor, summand) in lines {
            let next = (number * factor + summand) % MODULUS;
            if expected.insert(next) {
                open.push(next);
            }
        }
    }
    assert!(expected.len() > 100_000, "{} are few", expected.len());
    assert_eq!(sorted(found), sorted(expected.into_iter().collect()));
    assert!(spilled > 0);
    wait_for_no_files(spill.path()).await;
}

/// Texts are compared whole, and nulls are equal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distinct_rows_of_several_columns_are_spilled() {
    const ROWS: i32 = 60_000;
    let types = [LakeType::Int4, LakeType::Text];
    let batch = |again: i32| {
        let numbers: Int32Array = (0..ROWS).map(|i| (i % 5 != 4).then_some(i)).collect();
        let texts: StringArray = (0..ROWS)
            .map(|i| (i % 3 != 0).then(|| format!("a text of some length {}", i % (7 + again))))
            .collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(numbers), Arc::new(texts)];
        columns
    };
    let rows_of = |columns: &[ArrayRef]| {
        let numbers = columns[0].as_primitive::<Int32Type>().iter();
        let texts = columns[1].as_string::<i32>().iter();
        let texts = texts.map(|text| text.map(str::to_owned));
        numbers.zip(texts).collect::<Vec<_>>()
    };
    let fed = [batch(0), batch(1), batch(0)];
    let expected: HashSet<_> = fed.iter().flat_map(|columns| rows_of(columns)).collect();
    let batches: Vec<RecordBatch> = fed.into_iter().map(record).collect();
    let feed: Feed = stream::iter(batches.into_iter().map(Ok)).boxed();
    let columns = || vec![col(0, LakeType::Int4), col(1, LakeType::Text)];
    let plan = recursion(
        scan(&types, None),
        project(work_table(&types), columns()),
        true,
    );
    let spill = tempfile::tempdir().unwrap();
    let (batches, stats) = run(&engine(spill.path()), with_little_memory(plan), Some(feed))
        .await
        .unwrap();
    let spilled = |line: &String| line.contains("spill_count=") && !line.contains("spill_count=0");
    assert!(stats.operators.iter().any(spilled));
    let found: Vec<_> = (batches.iter())
        .flat_map(|batch| rows_of(batch.columns()))
        .collect();
    assert_eq!(found.len(), expected.len());
    assert!(found.into_iter().collect::<HashSet<_>>() == expected);
}

fn record(columns: Vec<ArrayRef>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(i, column)| Field::new(format!("c{i}"), column.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The edges of a tree, in batches.
fn edges(nodes: i32) -> Feed {
    const ROWS: i32 = 5000;
    let batches = (2..nodes).step_by(ROWS as usize).map(move |first| {
        let children = first..nodes.min(first + ROWS);
        let ends = Int32Array::from_iter_values(children.clone());
        let begins = Int32Array::from_iter_values(children.map(|child| child / 2));
        Ok(record(vec![Arc::new(begins), Arc::new(ends)]))
    });
    stream::iter(batches.collect::<Vec<_>>()).boxed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fed_rows_are_spilled() {
    const NODES: i32 = 300_000;
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    for (left_rows, right_rows) in [(1.0, 2.0), (2.0, 1.0)] {
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
        let reached = project(join, vec![col(2, LakeType::Int4)]);
        let request = with_little_memory(recursion(one(), reached, false));
        let feeds = vec![Some(edges(NODES))];
        let (found, spilled) = rows(&engine, request, feeds).await.unwrap();
        assert!(sorted(found).into_iter().eq(1..NODES));
        assert!(spilled > 0);
    }
    wait_for_no_files(spill.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_spilled_has_a_limit() {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let request = Execute {
        temp_file_limit: Some(1000),
        ..alone(doubling())
    };
    let error = rows(&engine, request, vec![]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TempFileLimit);
    assert_eq!(
        error.message,
        "temporary file size exceeds \"temp_file_limit\" (1000kB)"
    );
    wait_for_no_files(spill.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_spilled_can_be_cancelled() {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let cancel = CancellationToken::new();
    let mut running = engine
        .execute(alone(doubling()), vec![], vec![], cancel.clone())
        .await
        .unwrap();
    let usage = running.usage();
    let counting = tokio::spawn(async move { running.next().await.map(|_| ()) });
    let deadline = Instant::now() + Duration::from_secs(20);
    while usage.progress().spilled_bytes == 0 {
        assert!(Instant::now() < deadline, "nothing is spilled");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cancel.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), counting).await;
    let error = ended.expect("it goes on").unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::Cancelled);
    drop(usage);
    wait_for_no_files(spill.path()).await;
}

/// The limit ends a recursion without end, also if its steps are spilled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_step_by_step_where_steps_are_spilled() {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let inputs = vec![line(2, 0, i32::MAX), line(2, 1, i32::MAX)];
    let plan = recursion(one(), Plan::Append { inputs }, false);
    let limited = Plan::Limit {
        input: Box::new(plan),
        skip: 0,
        fetch: Some((1 << 19) - 1),
    };
    let (found, spilled) = rows(&engine, alone(limited), vec![]).await.unwrap();
    assert!(sorted(found).into_iter().eq(1..1 << 19));
    assert!(spilled > 0);
}
