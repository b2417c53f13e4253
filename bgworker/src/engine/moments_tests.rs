//! States as Postgres has them, of values and of pairs.

use super::super::error::wire;
use super::*;
use arrow::array::Float32Array;
use datafusion_expr::GroupsAccumulator;
use pg_lake_plan::message::ErrorCode;

fn list() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Float64, true)))
}

fn floats(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn of(values: &[f64]) -> Option<OfValues> {
    let mut states = values.iter();
    states.try_fold(OfValues::default(), |state, value| state.with(*value))
}

fn of_pairs(pairs: &[[f64; 2]]) -> Option<OfPairs> {
    let mut states = pairs.iter();
    states.try_fold(OfPairs::default(), |state, pair| state.with(*pair))
}

/// To twelve digits.
fn assert_near(left: &[f64], right: &[f64]) {
    assert_eq!(left.len(), right.len());
    for (l, r) in left.iter().zip(right) {
        assert!((l - r).abs() <= 1e-12 * r.abs(), "{left:?} {right:?}");
    }
}

#[test]
fn states_have_sums_and_squares() {
    // 1, 2, 3, 4: the mean is 2.5.
    let state = of(&[1.0, 2.0, 3.0, 4.0]).expect("a state");
    assert_near(state.parts(), &[4.0, 10.0, 5.0]);
    // Differences that are small beside the values aren't lost.
    let state = of(&[100000003.0, 100000004.0, 100000006.0, 100000007.0]).expect("a state");
    assert_near(state.parts(), &[4.0, 400000020.0, 10.0]);
}

#[test]
fn pairs_have_products() {
    // Of `float8_regr_accum('{4,140,2900,1290,83075,15050}', 200, 100)` in Postgres' tests of aggregates.
    let before = OfPairs([4.0, 140.0, 2900.0, 1290.0, 83075.0, 15050.0]);
    let state = before.with([200.0, 100.0]).expect("a state");
    assert_near(
        state.parts(),
        &[5.0, 240.0, 6280.0, 1490.0, 95080.0, 8680.0],
    );
    // Of `float8_regr_combine` there.
    let other = OfPairs([2.0, 180.0, 200.0, 740.0, 57800.0, -3400.0]);
    let three = OfPairs([3.0, 60.0, 200.0, 750.0, 20000.0, 2000.0]);
    let state = three.merged(other).expect("a state");
    assert_near(
        state.parts(),
        &[5.0, 240.0, 6280.0, 1490.0, 95080.0, 8680.0],
    );
    assert_eq!(three.merged(OfPairs::default()), Some(three));
    assert_eq!(OfPairs::default().merged(three), Some(three));
}

#[test]
fn partial_states_are_those_of_all_values() {
    let values: Vec<f64> = (0..100).map(|n| f64::from(n * 37 % 101) / 8.0).collect();
    let whole = of(&values).expect("a state");
    let (left, right) = values.split_at(30);
    let merged = of(left)
        .expect("a state")
        .merged(of(right).expect("a state"));
    assert_near(merged.expect("a state").parts(), whole.parts());
}

#[test]
fn no_variance_of_what_is_infinite() {
    for first in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        for values in [vec![first], vec![first, 1.0], vec![1.0, first]] {
            let OfValues([_, _, squares]) = of(&values).expect("a state");
            assert!(squares.is_nan());
        }
    }
    let one = of_pairs(&[[1.0, f64::INFINITY], [2.0, 3.0]]).expect("a state");
    let OfPairs([n, x, xx, y, yy, xy]) = one;
    assert_eq!((n, x, y, yy), (2.0, f64::INFINITY, 3.0, 0.5));
    assert!(xx.is_nan() && xy.is_nan());
}

#[test]
fn finite_values_overflow() {
    assert_eq!(of(&[1e200, -1e200]), None);
    assert_eq!(of(&[f64::MAX, f64::MAX]), None);
    assert_eq!(of_pairs(&[[1.0, 1e200], [1.0, -1e200]]), None);
    let (left, right) = (of(&[1e200]).expect("a state"), of(&[-1e200]));
    assert_eq!(left.merged(right.expect("a state")), None);
    let mut states = AllMoments::<OfValues>::states(&list());
    let error = states
        .update_batch(&[floats(&[Some(1e200), Some(-1e200)])], &[0, 0], None, 1)
        .expect_err("an overflow");
    assert_eq!(wire(&error).code, ErrorCode::OutOfRange);
}

#[test]
fn groups_are_kept_and_merged() {
    let values = floats(&[Some(1.0), None, Some(3.0), Some(1e300)]);
    let filter = BooleanArray::from(vec![true, true, true, false]);
    let (groups, total) = ([0, 1, 0, 2], 3);
    let mut one = AllMoments::<OfValues>::states(&list());
    one.update_batch(std::slice::from_ref(&values), &groups, Some(&filter), total)
        .expect("update");
    let one = one.state(EmitTo::All).expect("a state");
    let converted = AllMoments::<OfValues>::states(&list())
        .convert_to_state(&[values], Some(&filter))
        .expect("states");
    let mut whole = AllMoments::<OfValues>::states(&list());
    whole
        .merge_batch(&one, &[0, 1, 2], None, total)
        .expect("merge");
    whole
        .merge_batch(&converted, &groups, None, total)
        .expect("merge");
    assert!(whole.size() >= 3 * size_of::<OfValues>());
    let first = whole.evaluate(EmitTo::First(1)).expect("states");
    let first = read::<OfValues>(&first).expect("states");
    assert_eq!(first.len(), 1);
    assert_near(first[0].parts(), &[4.0, 8.0, 4.0]);
    let rest = whole.evaluate(EmitTo::All).expect("states");
    assert_eq!((rest.len(), rest.null_count()), (2, 2));
}

#[test]
fn small_floats_are_taken_as_large_ones() {
    let values: ArrayRef = Arc::new(Float32Array::from(vec![0.1f32]));
    assert_eq!(
        OfValues::values(&values).expect("values"),
        [f64::from(0.1f32)]
    );
}
