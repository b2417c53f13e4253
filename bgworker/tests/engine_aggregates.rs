//! Aggregates over several row groups and a feed: what partitions have of a group meets, in one thread or in several.

mod engine_support;

use arrow::array::*;
use arrow::compute::concat_batches;
use arrow::datatypes::{Decimal128Type, Float64Type, Int32Type, Int64Type};
use engine_support::*;
use pg_lake_plan::function::Function;
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::types::{LakeType, Value};
use std::path::Path;
use std::sync::Arc;

/// Group, number, the same as a float, and whether it is even.
const TYPES: [LakeType; 4] = [
    LakeType::Int4,
    LakeType::Int4,
    LakeType::Float8,
    LakeType::Bool,
];

const SQUARES: LakeType = LakeType::Decimal {
    precision: 38,
    scale: 0,
};

/// Numbers in groups of those that are the same modulo 3; none is in group 3.
fn columns(numbers: std::ops::Range<i32>) -> Vec<ArrayRef> {
    let group = numbers.clone().map(|n| n % 3);
    let floats = numbers.clone().map(f64::from);
    let even: BooleanArray = numbers.clone().map(|n| Some(n % 2 == 0)).collect();
    vec![
        Arc::new(Int32Array::from_iter_values(group)),
        Arc::new(Int32Array::from_iter_values(numbers)),
        Arc::new(Float64Array::from_iter_values(floats)),
        Arc::new(even),
    ]
}

fn number() -> Expr {
    col(1, LakeType::Int4)
}

fn ordered(function: AggregateFunction, arg: Expr, ty: LakeType, descending: bool) -> Aggregate {
    Aggregate {
        order: vec![SortKey {
            expr: arg.clone(),
            descending,
            nulls_first: descending,
        }],
        ..aggregate(function, Some(arg), ty)
    }
}

/// Over a file with the first 90,000 numbers and a feed with the next three.
async fn results(
    dir: &Path,
    groups: Vec<Expr>,
    aggregates: Vec<Aggregate>,
    groups_estimate: f64,
) -> Result<RecordBatch, WireError> {
    let keys = groups.iter().take(1).map(|_| SortKey {
        expr: col(0, LakeType::Int4),
        descending: false,
        nulls_first: false,
    });
    let keys: Vec<SortKey> = keys.collect();
    let mut plan = Plan::Aggregate {
        input: Box::new(scan(&TYPES, None)),
        groups,
        aggregates,
        sets: vec![],
        groups_estimate,
    };
    if !keys.is_empty() {
        plan = Plan::Sort {
            input: Box::new(plan),
            keys,
            fetch: None,
        };
    }
    let file = write(&dir.join("numbers.parquet"), columns(0..90_000), 30_000);
    let fed = Some(feed(columns(90_000..90_003)));
    let (batches, _) = run(&engine(dir), request(plan, vec![file]), fed).await?;
    Ok(concat_batches(&batches[0].schema(), &batches).unwrap())
}

fn aggregates() -> Vec<Aggregate> {
    let even = || Some(col(3, LakeType::Bool));
    let half = Fraction::new(0.5);
    vec![
        aggregate(AggregateFunction::SumOfSquares, Some(number()), SQUARES),
        aggregate(AggregateFunction::BoolAnd, even(), LakeType::Bool),
        aggregate(AggregateFunction::BoolOr, even(), LakeType::Bool),
        aggregate(AggregateFunction::BitXor, Some(number()), LakeType::Int4),
        ordered(
            AggregateFunction::PercentileDisc(half),
            number(),
            LakeType::Int4,
            true,
        ),
        ordered(
            AggregateFunction::PercentileCont(half),
            col(2, LakeType::Float8),
            LakeType::Float8,
            false,
        ),
        ordered(AggregateFunction::Mode, number(), LakeType::Int4, false),
    ]
}

/// What `aggregates` give for these numbers, which are different and ascending.
fn check(batch: &RecordBatch, first: usize, row: usize, numbers: &[i32]) {
    let column = |at: usize| batch.column(first + at);
    let squares: i128 = numbers.iter().map(|n| i128::from(*n).pow(2)).sum();
    let (sum, xor) = (column(0), column(3));
    assert_eq!(sum.as_primitive::<Decimal128Type>().value(row), squares);
    assert!(!column(1).as_boolean().value(row));
    assert!(column(2).as_boolean().value(row));
    let expected = numbers.iter().fold(0, |all, n| all ^ n);
    assert_eq!(xor.as_primitive::<Int32Type>().value(row), expected);
    let (count, middle) = (numbers.len(), numbers.len() / 2);
    let discrete = column(4).as_primitive::<Int32Type>().value(row);
    assert_eq!(discrete, numbers[middle]);
    let between = match count % 2 {
        0 => (f64::from(numbers[middle - 1]) + f64::from(numbers[middle])) / 2.0,
        _ => f64::from(numbers[middle]),
    };
    let continuous = column(5).as_primitive::<Float64Type>().value(row);
    assert_eq!(continuous, between);
    let mode = column(6).as_primitive::<Int32Type>().value(row);
    assert_eq!(mode, numbers[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_groups_meet() {
    let dir = tempfile::tempdir().unwrap();
    let groups = || vec![col(0, LakeType::Int4)];
    for estimate in [3.0, 1e6] {
        let batch = results(dir.path(), groups(), aggregates(), estimate).await;
        let batch = batch.unwrap();
        assert_eq!(batch.num_rows(), 3);
        for group in 0..3 {
            let numbers: Vec<i32> = (0..90_003).filter(|n| n % 3 == group).collect();
            check(&batch, 1, group as usize, &numbers);
        }
    }
    let batch = results(dir.path(), vec![], aggregates(), 1.0)
        .await
        .unwrap();
    assert_eq!(batch.num_rows(), 1);
    check(&batch, 0, 0, &(0..90_003).collect::<Vec<i32>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let ty = LakeType::List {
        element_id: 1,
        element: Box::new(LakeType::Int4),
    };
    let mut list = aggregate(AggregateFunction::ArrayAgg, Some(number()), ty);
    list.order = vec![SortKey {
        expr: col(2, LakeType::Float8),
        descending: true,
        nulls_first: true,
    }];
    let count = aggregate(
        AggregateFunction::Count,
        Some(col(0, LakeType::Int4)),
        LakeType::Int8,
    );
    let count = Aggregate {
        distinct: true,
        ..count
    };
    for groups in [vec![], vec![col(0, LakeType::Int4)]] {
        let grouped = groups.len();
        let aggregates = vec![list.clone(), count.clone()];
        let batch = results(dir.path(), groups, aggregates, 3.0).await.unwrap();
        let step = if grouped == 0 { 1 } else { 3 };
        for row in 0..batch.num_rows() {
            let list = batch.column(grouped).as_list::<i32>().value(row);
            let found = list.as_primitive::<Int32Type>().values().to_vec();
            let mut expected: Vec<i32> = (row as i32..90_003).step_by(step).collect();
            expected.reverse();
            assert_eq!(found, expected);
            let counts = batch.column(grouped + 1).as_primitive::<Int64Type>();
            assert_eq!(counts.value(row), if grouped == 0 { 3 } else { 1 });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_a_group_that_do_not_fit_are_spilled() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::Aggregate {
        input: Box::new(scan(&TYPES, None)),
        groups: vec![],
        aggregates: aggregates(),
        sets: vec![],
        groups_estimate: 1.0,
    };
    let file = write(
        &dir.path().join("numbers.parquet"),
        columns(0..900_000),
        300_000,
    );
    let mut request = request(plan, vec![file]);
    request.memory_limit = 16 << 20;
    let (batches, stats) = run(&engine(dir.path()), request, None).await.unwrap();
    let batch = concat_batches(&batches[0].schema(), &batches).unwrap();
    check(&batch, 0, 0, &(0..900_000).collect::<Vec<i32>>());
    let spilled = |line: &String| line.contains("SortExec") && !line.contains("spill_count=0");
    assert!(stats.operators.iter().any(spilled));
}

/// The row of a grouping set is there without rows, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_values_of_grouping_sets() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(
        &dir.path().join("numbers.parquet"),
        columns(0..9_000),
        3_000,
    );
    let none = compare(CompareOp::Ge, number(), int(9_000));
    for (predicate, rows) in [(None, 4), (Some(none), 1)] {
        let plan = Plan::Aggregate {
            input: Box::new(scan(&TYPES, predicate)),
            groups: vec![col(0, LakeType::Int4)],
            aggregates: aggregates(),
            sets: vec![vec![0], vec![]],
            groups_estimate: 4.0,
        };
        let request = request(plan, vec![file.clone()]);
        let (batches, _) = run(&engine(dir.path()), request, None).await.unwrap();
        let batch = concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(batch.num_rows(), rows);
        let sets = batch.column(8).as_primitive::<Int32Type>();
        let groups = batch.column(0).as_primitive::<Int32Type>();
        for row in 0..rows {
            if rows == 1 {
                assert_eq!((sets.value(row), groups.is_null(row)), (1, true));
                assert!(batch.column(5).is_null(row) && batch.column(7).is_null(row));
                continue;
            }
            let all = sets.value(row) == 1;
            assert_eq!(groups.is_null(row), all);
            let numbers = (0..9_000).filter(|n| all || n % 3 == groups.value(row));
            check(&batch, 1, row, &numbers.collect::<Vec<i32>>());
        }
    }
}

/// Lists of one group in orders of which some begin alike, and one that only takes some rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_in_several_orders() {
    let dir = tempfile::tempdir().unwrap();
    let ty = LakeType::List {
        element_id: 1,
        element: Box::new(LakeType::Int4),
    };
    let list = |order: Vec<(Expr, bool)>, filter: Option<Expr>| Aggregate {
        order: (order.into_iter())
            .map(|(expr, descending)| SortKey {
                expr,
                descending,
                nulls_first: descending,
            })
            .collect(),
        filter,
        ..aggregate(AggregateFunction::ArrayAgg, Some(number()), ty.clone())
    };
    let even = || col(3, LakeType::Bool);
    let aggregates = vec![
        list(vec![(even(), false)], None),
        list(vec![(even(), false), (number(), true)], None),
        list(vec![(number(), false)], Some(even())),
        aggregate(AggregateFunction::Count, None, LakeType::Int8),
    ];
    let groups = vec![col(0, LakeType::Int4)];
    let batch = results(dir.path(), groups, aggregates, 3.0).await.unwrap();
    assert_eq!(batch.num_rows(), 3);
    for group in 0..3 {
        let values = |at: usize| -> Vec<i32> {
            let list = batch.column(at).as_list::<i32>().value(group as usize);
            list.as_primitive::<Int32Type>().values().to_vec()
        };
        let numbers = || (0..90_003).filter(move |n| n % 3 == group);
        let (odd, mut all): (Vec<i32>, Vec<i32>) = numbers().rev().partition(|n| n % 2 == 1);
        all.splice(0..0, odd);
        assert_eq!(values(2), all);
        let mut coarse = values(1);
        assert!(coarse.is_sorted_by_key(|n| n % 2 == 0));
        coarse.sort_unstable();
        assert_eq!(coarse, numbers().collect::<Vec<i32>>());
        let taken = numbers().filter(|n| n % 2 == 0);
        assert_eq!(values(3), taken.collect::<Vec<i32>>());
        let counts = batch.column(4).as_primitive::<Int64Type>();
        assert_eq!(counts.value(group as usize), 30_001);
    }
}

/// The state of floats, and that of pairs: the float as y, and 2 as x.
fn moments() -> Vec<Aggregate> {
    let list = || LakeType::List {
        element_id: 1,
        element: Box::new(LakeType::Float8),
    };
    let float = || col(2, LakeType::Float8);
    let two = constant(LakeType::Float8, Value::F64(2.0));
    let pair = Expr {
        ty: sql(LakeType::Bytes),
        kind: ExprKind::Call {
            function: Function::FloatPair,
            args: vec![float(), two],
        },
    };
    vec![
        aggregate(AggregateFunction::Moments, Some(float()), list()),
        aggregate(AggregateFunction::PairMoments, Some(pair), list()),
    ]
}

/// With functions over distinct values there are two levels, with those of ordered values the rows are sorted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_of_floats_meet() {
    let dir = tempfile::tempdir().unwrap();
    let distinct = Aggregate {
        distinct: true,
        ..aggregate(AggregateFunction::Count, Some(number()), LakeType::Int8)
    };
    let mode = ordered(AggregateFunction::Mode, number(), LakeType::Int4, false);
    for beside in [None, Some(distinct), Some(mode)] {
        for estimate in [3.0, 1e6] {
            let aggregates = moments().into_iter().chain(beside.clone()).collect();
            let groups = vec![col(0, LakeType::Int4)];
            let batch = results(dir.path(), groups, aggregates, estimate).await;
            let batch = batch.unwrap();
            for group in 0..3i32 {
                let state = |column: usize| {
                    let states = batch.column(column).as_list::<i32>();
                    let state = states.value(group as usize);
                    state.as_primitive::<Float64Type>().values().to_vec()
                };
                // Numbers that are 3 apart.
                let n = 30_001.0;
                let sum = n * (f64::from(group) + 45_000.0);
                let squares = 9.0 * n * (n * n - 1.0) / 12.0;
                near(&state(1), &[n, sum, squares]);
                near(&state(2), &[n, 2.0 * n, 0.0, sum, squares, 0.0]);
            }
        }
    }
}

/// To nine digits.
fn near(state: &[f64], expected: &[f64]) {
    assert_eq!(state.len(), expected.len());
    for (part, expected) in state.iter().zip(expected) {
        let distance = (part - expected).abs();
        assert!(distance <= 1e-9 * expected.abs(), "{state:?}");
    }
}

/// Without groups there is a row of nulls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_values_of_no_rows() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(&dir.path().join("numbers.parquet"), columns(0..9), 9);
    let none = compare(CompareOp::Ge, number(), int(9));
    for (groups, rows) in [(vec![], 1), (vec![col(0, LakeType::Int4)], 0)] {
        let plan = Plan::Aggregate {
            input: Box::new(scan(&TYPES, Some(none.clone()))),
            groups,
            aggregates: aggregates().into_iter().chain(moments()).collect(),
            sets: vec![],
            groups_estimate: 1.0,
        };
        let request = request(plan, vec![file.clone()]);
        let (batches, _) = run(&engine(dir.path()), request, None).await.unwrap();
        let found: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(found, rows);
        for batch in &batches {
            assert!(
                (0..batch.num_rows()).all(|row| batch.columns().iter().all(|c| c.is_null(row)))
            );
        }
    }
}

/// Rows of so many groups in one form each, of which the last one may have another form, too.
fn forms(groups: i32, several: bool) -> Vec<ArrayRef> {
    let keys = (0..groups).chain([groups - 1]);
    let last = if several { "another form" } else { "a form" };
    let texts = (0..groups).map(|_| "a form").chain([last]);
    vec![
        Arc::new(Int32Array::from_iter_values(keys)),
        Arc::new(StringArray::from_iter_values(texts)),
    ]
}

/// Groups that are complete early, as the input is sorted, and groups that were spilled and meet at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_group_comes_out_before_all_are_known_to_have_one_form() {
    const GROUPS: i32 = 600_000;
    const TYPES: [LakeType; 2] = [LakeType::Int4, LakeType::Text];
    let dir = tempfile::tempdir().unwrap();
    let key = || col(0, LakeType::Int4);
    for (sorted, estimate, memory) in [(true, 1.0, 0), (false, 1.0, 8 << 20), (false, 1e6, 8 << 20)]
    {
        for several in [false, true] {
            let file = write(
                &dir.path().join("forms.parquet"),
                forms(GROUPS, several),
                200_000,
            );
            let mut input = scan(&TYPES, None);
            if sorted {
                input = Plan::Sort {
                    input: Box::new(input),
                    keys: vec![SortKey {
                        expr: key(),
                        descending: false,
                        nulls_first: false,
                    }],
                    fetch: None,
                };
            }
            let form = Some(col(1, LakeType::Text));
            let plan = Plan::Aggregate {
                input: Box::new(input),
                groups: vec![key()],
                aggregates: vec![aggregate(AggregateFunction::OneForm, form, LakeType::Text)],
                sets: vec![],
                groups_estimate: estimate,
            };
            let mut request = request(plan, vec![file]);
            request.memory_limit = memory;
            // With a cache of its own: it is another file of the same name.
            let found = run(&engine(dir.path()), request, None).await;
            if several {
                let error = found.map(|_| ()).expect_err("several forms");
                assert_eq!(error.code, ErrorCode::NotExact, "{sorted} {estimate}");
                continue;
            }
            let (batches, stats) = found.unwrap();
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(rows, GROUPS as usize, "{sorted} {estimate}");
            let spilled =
                |line: &String| line.contains("spill_count=") && !line.contains("spill_count=0");
            assert!(sorted || stats.operators.iter().any(spilled));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_aggregates_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let beyond = AggregateFunction::PercentileDisc(Fraction::new(1.5));
    let no_order = aggregate(AggregateFunction::Mode, Some(number()), LakeType::Int4);
    let narrow = LakeType::Decimal {
        precision: 38,
        scale: 2,
    };
    for malformed in [
        ordered(beyond, number(), LakeType::Int4, false),
        no_order,
        ordered(AggregateFunction::Sum, number(), LakeType::Int8, false),
        aggregate(AggregateFunction::SumOfSquares, Some(number()), narrow),
        aggregate(AggregateFunction::BoolAnd, Some(number()), LakeType::Bool),
        aggregate(
            AggregateFunction::BitOr,
            Some(col(2, LakeType::Float8)),
            LakeType::Float8,
        ),
    ] {
        let error = results(dir.path(), vec![], vec![malformed], 1.0).await;
        let error = error.map(|_| ()).expect_err("malformed");
        assert_eq!(error.code, ErrorCode::Protocol);
    }
}
