//! Joins and scans of which only some columns are asked for.

mod engine_support;

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::Int32Type;
use engine_support::*;
use pg_lake_plan::ir::*;
use pg_lake_plan::message::TableInput;
use pg_lake_plan::types::LakeType;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const TYPES: [LakeType; 3] = [LakeType::Int4, LakeType::Int4, LakeType::Int4];

/// Rows of a key, ten and a hundred times it.
fn table(keys: std::ops::Range<i32>) -> Vec<ArrayRef> {
    let times = |n: i32| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(keys.clone().map(|k| k * n)))
    };
    vec![times(1), times(10), times(100)]
}

fn scan_of(table: u32) -> Plan {
    let mut plan = scan(&TYPES, None);
    if let Plan::Scan(scan) = &mut plan {
        scan.table = table;
    }
    plan
}

fn project(input: Plan, columns: &[u32]) -> Plan {
    Plan::Project {
        input: Box::new(input),
        exprs: columns.iter().map(|&i| col(i, LakeType::Int4)).collect(),
    }
}

type Row = Vec<Option<i32>>;

fn empty(count: usize) -> Vec<Row> {
    vec![vec![]; count]
}

/// Rows in order, of the left table's keys 0 to 5 and the right one's 3 to 8.
async fn rows(plan: Plan) -> Vec<Row> {
    let spill = tempfile::tempdir().unwrap();
    let scans = plan.scans().len();
    let mut request = request(plan, vec![]);
    request.tables.resize(
        scans,
        TableInput {
            files: vec![],
            feed: None,
        },
    );
    let mut feeds = vec![Some(feed(table(0..6))), Some(feed(table(3..9)))];
    feeds.truncate(scans);
    let engine = engine(spill.path());
    let mut running = engine
        .execute(request, vec![], feeds, CancellationToken::new())
        .await
        .unwrap();
    let mut rows: Vec<Row> = vec![];
    while let Some(batch) = running.next().await.unwrap() {
        rows.extend((0..batch.num_rows()).map(|row| cells(&batch, row)));
    }
    rows.sort();
    rows
}

fn cells(batch: &RecordBatch, row: usize) -> Row {
    let cell = |column: &ArrayRef| column.as_primitive::<Int32Type>().iter().nth(row).flatten();
    batch.columns().iter().map(cell).collect()
}

/// By the first columns, where the left row's second one is not 40.
fn join(kind: JoinKind, keeps_left: bool) -> Plan {
    let filter = compare(CompareOp::Ne, col(1, LakeType::Int4), int(40));
    let (left_rows, right_rows) = if keeps_left { (1.0, 2.0) } else { (2.0, 1.0) };
    Plan::Join(Join {
        kind,
        left: Box::new(scan_of(0)),
        right: Box::new(scan_of(1)),
        keys: vec![JoinKey {
            left: col(0, LakeType::Int4),
            right: col(0, LakeType::Int4),
        }],
        filter: (kind != JoinKind::NullAwareAnti).then_some(filter),
        left_rows,
        right_rows,
    })
}

#[tokio::test]
async fn joins_give_the_columns_that_are_asked_for() {
    for keeps_left in [true, false] {
        let inner = join(JoinKind::Inner, keeps_left);
        let expected = [[300, 30, 300], [500, 50, 500]];
        let expected = expected.map(|row| row.map(Some).to_vec()).to_vec();
        assert_eq!(rows(project(inner, &[5, 1, 5])).await, expected);

        let left = join(JoinKind::Left, keeps_left);
        let expected: Vec<Row> = (0..6)
            .map(|k| vec![Some(k * 100), [3, 5].contains(&k).then_some(k * 10)])
            .collect();
        assert_eq!(rows(project(left, &[2, 4])).await, expected);

        for (kind, keys) in [
            (JoinKind::Semi, vec![3, 5]),
            (JoinKind::Anti, vec![0, 1, 2, 4]),
            (JoinKind::NullAwareAnti, vec![0, 1, 2]),
        ] {
            let only_left = join(kind, keeps_left);
            let expected: Vec<Row> = keys.iter().map(|k| vec![Some(k * 100)]).collect();
            assert_eq!(rows(project(only_left, &[2])).await, expected, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn joins_of_which_no_column_is_asked_for_are_counted() {
    for (kind, count) in [
        (JoinKind::Inner, 2),
        (JoinKind::Full, 10),
        (JoinKind::Semi, 2),
        (JoinKind::Anti, 4),
    ] {
        for keeps_left in [true, false] {
            let rows = rows(project(join(kind, keeps_left), &[])).await;
            assert_eq!(rows, empty(count), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn scans_drop_columns_that_only_their_predicate_reads() {
    let filtered = Plan::Filter {
        input: Box::new(scan_of(0)),
        predicate: compare(CompareOp::Ge, col(0, LakeType::Int4), int(4)),
    };
    let expected = [[400, 40], [500, 50]].map(|row| row.map(Some).to_vec());
    assert_eq!(rows(project(filtered.clone(), &[2, 1])).await, expected);
    assert_eq!(rows(project(filtered, &[])).await, empty(2));
}
