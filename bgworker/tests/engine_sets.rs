//! Sets give the rows of Postgres' ProjectSet: in lockstep, in order, and no more than are wanted.

mod engine_support;

use arrow::array::{ArrayRef, AsArray, Int32Array, ListArray, StringArray};
use arrow::datatypes::{Field, Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use engine_support::*;
use pg_lake_plan::batch::{BatchBuilder, BatchError};
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, Execute, WireError};
use pg_lake_plan::types::{LakeType, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn big(v: i64) -> Expr {
    constant(LakeType::Int8, Value::I64(v))
}

fn list_type() -> LakeType {
    LakeType::List {
        element_id: 2,
        element: Box::new(LakeType::Int4),
    }
}

fn call(function: SetFunction, args: Vec<Expr>, element: LakeType) -> SetCall {
    SetCall {
        function,
        args,
        ty: sql(element),
    }
}

fn unnest(column: u32) -> SetCall {
    let list = col(column, list_type());
    call(SetFunction::Unnest, vec![list], LakeType::Int4)
}

fn series(args: Vec<Expr>) -> SetCall {
    let ty = args[0].ty.lake.clone();
    call(SetFunction::GenerateSeries, args, ty)
}

fn sets(input: Plan, columns: Vec<u32>, calls: Vec<SetCall>) -> Plan {
    Plan::ProjectSet(ProjectSet {
        input: Box::new(input),
        columns,
        calls,
    })
}

/// A plan that scans nothing.
fn alone(root: Plan) -> Execute {
    let mut request = request(root, vec![]);
    request.tables.clear();
    request
}

async fn rows_of(plan: Plan, columns: Vec<ArrayRef>) -> Result<Vec<RecordBatch>, WireError> {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let (batches, _) = run(&engine, request(plan, vec![]), Some(feed(columns))).await?;
    Ok(batches)
}

async fn of_nothing(plan: Plan) -> Result<Vec<RecordBatch>, WireError> {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let mut running = engine
        .execute(alone(plan), vec![], vec![], CancellationToken::new())
        .await?;
    let mut batches = vec![];
    while let Some(batch) = running.next().await? {
        batches.push(batch);
    }
    Ok(batches)
}

fn ints(batches: &[RecordBatch], column: usize) -> Vec<Option<i32>> {
    let columns = batches.iter().map(|batch| batch.column(column));
    columns
        .flat_map(|column| column.as_primitive::<Int32Type>().iter())
        .collect()
}

fn bigs(batches: &[RecordBatch], column: usize) -> Vec<Option<i64>> {
    let columns = batches.iter().map(|batch| batch.column(column));
    columns
        .flat_map(|column| column.as_primitive::<Int64Type>().iter())
        .collect()
}

/// Three elements of which one is null, none, a null, two elements.
fn arrays() -> Vec<ArrayRef> {
    let numbers = Int32Array::from(vec![Some(1), Some(2), Some(3), None]);
    let lists: [Option<Vec<Option<i32>>>; 4] = [
        Some(vec![Some(10), None, Some(12)]),
        Some(vec![]),
        None,
        Some(vec![Some(40), Some(41)]),
    ];
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
    let (_, offsets, values, nulls) = list.into_parts();
    let element = Arc::new(Field::new("element", values.data_type().clone(), true));
    let list = ListArray::new(element, offsets, values, nulls);
    vec![Arc::new(numbers), Arc::new(list)]
}

#[tokio::test]
async fn elements_come_with_their_rows_and_in_their_order() {
    let input = scan(&[LakeType::Int4, list_type()], None);
    let plan = sets(input, vec![0], vec![unnest(1)]);
    let batches = rows_of(plan, arrays()).await.unwrap();
    assert_eq!(ints(&batches, 0), [Some(1), Some(1), Some(1), None, None]);
    let elements = [Some(10), None, Some(12), Some(40), Some(41)];
    assert_eq!(ints(&batches, 1), elements);
}

#[tokio::test]
async fn shorter_sets_go_on_with_nulls() {
    let input = scan(&[LakeType::Int4, list_type()], None);
    let to_number = series(vec![int(1), col(0, LakeType::Int4)]);
    let plan = sets(input, vec![0], vec![unnest(1), to_number]);
    let batches = rows_of(plan, arrays()).await.unwrap();
    let numbers = [1, 1, 1, 2, 2, 3, 3, 3].map(Some);
    assert_eq!(
        ints(&batches, 0),
        [numbers.as_slice(), &[None, None]].concat()
    );
    let elements = [Some(10), None, Some(12)];
    let none = [None; 5];
    let expected = [elements.as_slice(), &none, &[Some(40), Some(41)]].concat();
    assert_eq!(ints(&batches, 1), expected);
    let first = [Some(1), None, None];
    let others = [Some(1), Some(2), Some(1), Some(2), Some(3)];
    let expected = [first.as_slice(), &others, &[None, None]].concat();
    assert_eq!(ints(&batches, 2), expected);
}

#[tokio::test]
async fn elements_are_numbered_for_each_row() {
    let input = scan(&[LakeType::Int4, list_type()], None);
    let number = || call(SetFunction::Ordinality, vec![], LakeType::Int8);
    let plan = sets(input, vec![0], vec![number(), unnest(1)]);
    let batches = rows_of(plan, arrays()).await.unwrap();
    assert_eq!(bigs(&batches, 1), [1, 2, 3, 1, 2].map(Some));
    assert_eq!(ints(&batches, 0), [Some(1), Some(1), Some(1), None, None]);
    // It is as long as the longest set, and goes on from batch to batch.
    let calls = vec![
        series(vec![int(1), int(40_000)]),
        series(vec![int(1), int(3)]),
        number(),
    ];
    let batches = of_nothing(sets(Plan::OneRow, vec![], calls)).await.unwrap();
    let expected: Vec<Option<i64>> = (1..=40_000).map(Some).collect();
    assert_eq!(bigs(&batches, 2), expected);
}

#[tokio::test]
async fn a_list_may_be_a_constant_or_a_parameter() {
    let list = |values: &[Option<i32>]| {
        let mut builder = BatchBuilder::new([&list_type()]);
        let pushed = builder.columns[0].push_list::<BatchError>(|elements| {
            for value in values {
                match value {
                    Some(value) => elements.push_fixed(value.to_le_bytes()),
                    None => elements.push_null(),
                }
            }
            Ok(())
        });
        pushed.unwrap();
        builder.end_row();
        let mut bytes = vec![];
        builder.finish(&mut bytes).unwrap();
        Value::Row(bytes)
    };
    let of = |kind| {
        let arg = expr(list_type(), kind);
        let call = call(SetFunction::Unnest, vec![arg], LakeType::Int4);
        sets(Plan::OneRow, vec![], vec![call])
    };
    let values = [Some(5), None, Some(7)];
    let batches = of_nothing(of(ExprKind::Const(Some(list(&values))))).await;
    assert_eq!(ints(&batches.unwrap(), 0), values);
    for nothing in [None, Some(list(&[]))] {
        let batches = of_nothing(of(ExprKind::Const(nothing))).await;
        assert!(ints(&batches.unwrap(), 0).is_empty());
    }
    let mut request = alone(of(ExprKind::Param(0)));
    request.params = vec![Some(list(&values))];
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let mut running = engine
        .execute(request, vec![], vec![], CancellationToken::new())
        .await
        .unwrap();
    let batch = running.next().await.unwrap().unwrap();
    assert_eq!(ints(&[batch], 0), values);
}

#[tokio::test]
async fn arguments_are_elements_of_each_row() {
    let input = scan(&[LakeType::Int4, list_type()], None);
    let null = expr(LakeType::Int4, ExprKind::Const(None));
    let args = vec![int(7), col(0, LakeType::Int4), null];
    let each = call(SetFunction::Each, args, LakeType::Int4);
    let four = series(vec![int(1), int(4)]);
    let plan = sets(input, vec![], vec![each, four]);
    let batches = rows_of(plan, arrays()).await.unwrap();
    let of_row = |number: Option<i32>| [Some(7), number, None, None];
    let numbers = [Some(1), Some(2), Some(3), None];
    let expected: Vec<Option<i32>> = numbers.into_iter().flat_map(of_row).collect();
    assert_eq!(ints(&batches, 0), expected);
}

#[tokio::test]
async fn series_end_where_the_next_value_would_overflow() {
    let last = series(vec![int(i32::MAX - 3), int(i32::MAX), int(2)]);
    let batches = of_nothing(sets(Plan::OneRow, vec![], vec![last])).await;
    let expected = [i32::MAX - 3, i32::MAX - 1].map(Some);
    assert_eq!(ints(&batches.unwrap(), 0), expected);
    let down = series(vec![big(i64::MIN + 1), big(i64::MIN), big(-1)]);
    let empty = series(vec![big(2), big(1)]);
    let batches = of_nothing(sets(Plan::OneRow, vec![], vec![down, empty])).await;
    let batches = batches.unwrap();
    assert_eq!(bigs(&batches, 0), [i64::MIN + 1, i64::MIN].map(Some));
    assert_eq!(bigs(&batches, 1), [None, None]);
}

#[tokio::test]
async fn a_step_of_zero_is_an_error_unless_the_set_is_null() {
    let plan = |stop: Expr| {
        sets(
            Plan::OneRow,
            vec![],
            vec![series(vec![int(1), stop, int(0)])],
        )
    };
    let error = of_nothing(plan(int(2))).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidParameter);
    assert_eq!(error.message, "step size cannot equal zero");
    let null = expr(LakeType::Int4, ExprKind::Const(None));
    let batches = of_nothing(plan(null)).await.unwrap();
    assert!(ints(&batches, 0).is_empty());
}

#[tokio::test]
async fn a_limit_ends_a_series_without_end() {
    let plan = Plan::Limit {
        input: Box::new(sets(
            Plan::OneRow,
            vec![],
            vec![series(vec![big(1), big(1_000_000_000_000_000)])],
        )),
        skip: 100_000,
        fetch: Some(3),
    };
    let bound = Duration::from_secs(20);
    let batches = tokio::time::timeout(bound, of_nothing(plan)).await;
    let batches = batches.expect("it goes on").unwrap();
    assert_eq!(bigs(&batches, 0), [100_001, 100_002, 100_003].map(Some));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_without_end_can_be_cancelled() {
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    let rows = sets(
        Plan::OneRow,
        vec![],
        vec![series(vec![big(1), big(i64::MAX)])],
    );
    let plan = Plan::Aggregate {
        input: Box::new(rows),
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

#[tokio::test]
async fn many_elements_come_in_batches() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let input = scan(&[LakeType::Text], None);
    let plan = sets(input, vec![0], vec![series(vec![int(1), int(50_000)])]);
    let batches = rows_of(plan, vec![text]).await.unwrap();
    assert!(batches.iter().all(|batch| batch.num_rows() <= 16_384));
    let texts: Vec<&str> = (batches.iter())
        .flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten())
        .collect();
    assert_eq!(texts.len(), 100_000);
    assert!(texts[..50_000].iter().all(|text| *text == "a"));
    assert!(texts[50_000..].iter().all(|text| *text == "b"));
    let numbers: Vec<Option<i32>> = (1..=50_000).chain(1..=50_000).map(Some).collect();
    assert_eq!(ints(&batches, 1), numbers);
}

#[tokio::test]
async fn large_elements_come_a_few_at_a_time() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1 << 20)]));
    let args = vec![col(0, LakeType::Text); 40];
    let each = call(SetFunction::Each, args, LakeType::Text);
    let plan = sets(scan(&[LakeType::Text], None), vec![], vec![each]);
    let batches = rows_of(plan, vec![text]).await.unwrap();
    let sizes: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 40);
    assert!(sizes.iter().all(|rows| *rows <= 16), "{sizes:?}");
}

#[tokio::test]
async fn malformed_sets_are_refused() {
    let plans = [
        sets(Plan::OneRow, vec![], vec![]),
        sets(
            Plan::OneRow,
            vec![],
            vec![call(SetFunction::Ordinality, vec![], LakeType::Int8)],
        ),
        sets(
            Plan::OneRow,
            vec![],
            vec![
                series(vec![int(1), int(2)]),
                call(SetFunction::Ordinality, vec![], LakeType::Int4),
            ],
        ),
        sets(Plan::OneRow, vec![0], vec![series(vec![int(1), int(2)])]),
        sets(Plan::OneRow, vec![], vec![series(vec![int(1)])]),
        sets(Plan::OneRow, vec![], vec![series(vec![int(1), big(2)])]),
        sets(
            Plan::OneRow,
            vec![],
            vec![call(SetFunction::Unnest, vec![int(1)], LakeType::Int4)],
        ),
        sets(
            Plan::OneRow,
            vec![],
            vec![call(SetFunction::Each, vec![], LakeType::Int4)],
        ),
        sets(
            Plan::OneRow,
            vec![],
            vec![call(
                SetFunction::Each,
                vec![int(1), big(2)],
                LakeType::Int4,
            )],
        ),
    ];
    for plan in plans {
        let error = of_nothing(plan).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Protocol);
    }
}
