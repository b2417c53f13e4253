//! Functions over ordered values that come in batches of any size, by their definition.

use super::super::error::wire;
use super::*;
use arrow::array::{AsArray, BooleanArray, Float64Array, Int32Array};
use arrow::datatypes::{Field, Float64Type, Int32Type};
use datafusion_execution::TaskContext;
use datafusion_physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use pg_lake_plan::message::ErrorCode;
use tokio_util::sync::CancellationToken;

/// Sorted values of five groups, of which the one in the middle has none.
fn groups() -> Vec<(usize, Vec<i32>)> {
    vec![
        (0, vec![1, 1, 3, 3, 5]),
        (1, vec![7]),
        (3, vec![2, 2, 4, 4, 4, 9, 9, 9, 9]),
        (4, vec![-1, 0]),
    ]
}

const COUNT: usize = 5;

/// The rows of all groups, in batches of so many.
fn batches(rows: usize) -> Vec<Vec<(usize, i32)>> {
    let all: Vec<(usize, i32)> = (groups().into_iter())
        .flat_map(|(group, values)| values.into_iter().map(move |value| (group, value)))
        .collect();
    all.chunks(rows).map(<[(usize, i32)]>::to_vec).collect()
}

fn values(rows: &[(usize, i32)], taken: usize, array: impl Fn(&[i32]) -> ArrayRef) -> Values {
    let numbers: Vec<i32> = rows.iter().map(|(_, value)| *value).collect();
    let values = array(&numbers);
    Values {
        groups: rows.iter().map(|(group, _)| group - taken).collect(),
        key: values.clone(),
        values,
    }
}

fn ints(values: &[i32]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

fn floats(values: &[i32]) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(
        values.iter().map(|value| f64::from(*value)),
    ))
}

/// The results of all groups; those of complete ones are taken after each batch.
async fn results(mut found: Found, rows: usize, array: fn(&[i32]) -> ArrayRef) -> Vec<ArrayRef> {
    let (mut taken, mut pieces) = (0, vec![]);
    for batch in batches(rows) {
        let last = batch.last().map_or(0, |(group, _)| group - taken);
        add(&mut found, &values(&batch, taken, array), last).await;
        pieces.push(found.emit(last, last + 1).expect("results"));
        taken += last;
    }
    let all = COUNT - taken;
    add(&mut found, &values(&[], taken, array), all).await;
    pieces.push(found.emit(all, all).expect("results"));
    pieces
}

async fn add(found: &mut Found, values: &Values, last: usize) {
    match found {
        Found::Mode(modes) => modes.add(values, last),
        Found::Percentile(percentiles) => percentiles.add(values, last).await,
        Found::List(lists) => lists.add(values, last),
        Found::Plain(_) => panic!("another function"),
    }
    .expect("values");
}

fn percentiles(share: f64, continuous: bool, ty: DataType) -> Percentiles {
    let metrics = ExecutionPlanMetricsSet::new();
    let keeper = Keeper::new(
        ty.clone(),
        &TaskContext::default(),
        SpillMetrics::new(&metrics, 0),
        CancellationToken::new(),
    );
    Percentiles::new(Fraction::new(share), continuous, ty, keeper)
}

fn numbers(pieces: &[ArrayRef]) -> Vec<Option<i32>> {
    let each = pieces.iter().map(|piece| piece.as_primitive::<Int32Type>());
    each.flat_map(|piece| piece.iter()).collect()
}

#[tokio::test]
async fn modes_are_the_first_of_the_most_frequent() {
    for rows in 1..=20 {
        let modes = Found::Mode(Modes::new(DataType::Int32));
        let found = numbers(&results(modes, rows, ints).await);
        assert_eq!(found, [Some(1), Some(7), None, Some(9), Some(-1)], "{rows}");
    }
}

#[tokio::test]
async fn discrete_percentiles() {
    for (share, expected) in [
        (0.0, [Some(1), Some(7), None, Some(2), Some(-1)]),
        (0.5, [Some(3), Some(7), None, Some(4), Some(-1)]),
        (0.6, [Some(3), Some(7), None, Some(9), Some(0)]),
        (1.0, [Some(5), Some(7), None, Some(9), Some(0)]),
    ] {
        for rows in 1..=20 {
            let found = Found::Percentile(percentiles(share, false, DataType::Int32));
            let found = numbers(&results(found, rows, ints).await);
            assert_eq!(found, expected, "{share} {rows}");
        }
    }
}

#[tokio::test]
async fn percentiles_between_two_values() {
    for rows in 1..=20 {
        let found = Found::Percentile(percentiles(0.25, true, DataType::Float64));
        let pieces = results(found, rows, floats).await;
        let each = (pieces.iter()).map(|piece| piece.as_primitive::<Float64Type>());
        let found: Vec<Option<f64>> = each.flat_map(|piece| piece.iter()).collect();
        let expected = [Some(1.0), Some(7.0), None, Some(4.0), Some(-0.75)];
        assert_eq!(found, expected, "{rows}");
    }
}

#[tokio::test]
async fn lists_have_all_values_in_their_order_or_each_once() {
    for (rows, distinct) in (1..=20).flat_map(|rows| [(rows, false), (rows, true)]) {
        let field = Field::new("element", DataType::Int32, true);
        let lists = Lists::new(Arc::new(field), distinct);
        let pieces = results(Found::List(lists), rows, ints).await;
        let mut found = vec![];
        for piece in &pieces {
            for list in piece.as_list::<i32>().iter() {
                found.push(list.map(|list| list.as_primitive::<Int32Type>().values().to_vec()));
            }
        }
        let mut expected = vec![None; COUNT];
        for (group, mut values) in groups() {
            if distinct {
                values.dedup();
            }
            expected[group] = Some(values);
        }
        assert_eq!(found, expected, "{rows}, {distinct}");
    }
}

#[test]
fn a_null_of_a_list_comes_once() {
    let field = Field::new("element", DataType::Int32, true);
    let mut lists = Lists::new(Arc::new(field), true);
    let mut add = |groups: &[usize], added: &[Option<i32>], last| {
        let added: ArrayRef = Arc::new(Int32Array::from(added.to_vec()));
        let added = Values {
            groups: groups.to_vec(),
            key: added.clone(),
            values: added,
        };
        lists.add(&added, last).expect("values");
    };
    add(&[0, 0, 0], &[Some(1), None, None], 0);
    add(&[0, 1, 1], &[None, None, None], 1);
    add(&[1, 2], &[None, Some(1)], 2);
    let lists = lists.take(3).expect("lists");
    let lists = lists.as_list::<i32>();
    let lengths: Vec<usize> = lists.offsets().lengths().collect();
    assert_eq!(lengths, [2, 1, 1]);
    let values: Vec<Option<i32>> = lists.values().as_primitive::<Int32Type>().iter().collect();
    assert_eq!(values, [Some(1), None, None, Some(1)]);
}

#[tokio::test]
async fn zeros_of_both_signs_are_not_exact() {
    let key: ArrayRef = Arc::new(Float64Array::from(vec![0.0, 0.0, 2.0]));
    let zeros = |values: Vec<f64>| Values {
        groups: vec![0; 3],
        values: Arc::new(Float64Array::from(values)),
        key: key.clone(),
    };
    let both = zeros(vec![-0.0, 0.0, 2.0]);
    let mut modes = Modes::new(DataType::Float64);
    let error = modes.add(&both, 1).expect_err("two zeros");
    assert_eq!(wire(&error).code, ErrorCode::NotExact);
    let mut first = percentiles(0.0, false, DataType::Float64);
    first.add(&both, 0).await.expect("values");
    let end = Values {
        groups: vec![],
        values: both.values.slice(0, 0),
        key: key.slice(0, 0),
    };
    let error = first.add(&end, 1).await.expect_err("two zeros");
    assert_eq!(wire(&error).code, ErrorCode::NotExact);
    let mut last = percentiles(1.0, false, DataType::Float64);
    assert!(last.add(&both, 1).await.is_ok());
    let mut modes = Modes::new(DataType::Float64);
    assert!(modes.add(&zeros(vec![-0.0, -0.0, 2.0]), 1).is_ok());
}

#[test]
fn a_list_that_is_too_large_is_left_to_postgres() {
    let field = Field::new("element", DataType::Int32, true);
    let mut lists = Lists::new(Arc::new(field), false);
    lists.open_bytes = LIST_BYTES_MAX;
    lists.lengths = vec![0];
    let error = lists.add(&values(&[(0, 1)], 0, ints), 0);
    assert_eq!(
        wire(&error.expect_err("too large")).code,
        ErrorCode::NotExact
    );
}

#[test]
fn a_list_of_too_many_small_values_is_left_to_postgres() {
    let bits = |values: &[i32]| -> ArrayRef {
        let values = values.iter().map(|value| Some(*value > 0));
        Arc::new(values.collect::<BooleanArray>())
    };
    let field = Field::new("element", DataType::Boolean, true);
    let mut lists = Lists::new(Arc::new(field), false);
    lists.open_bytes = LIST_BYTES_MAX - VALUE_BYTES_LEAST;
    lists.lengths = vec![0];
    let one = || values(&[(0, 1)], 0, bits);
    assert!(lists.add(&one(), 0).is_ok());
    assert!(lists.add(&one(), 0).is_err());
}
