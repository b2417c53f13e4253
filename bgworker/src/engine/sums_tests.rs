//! Sums as Postgres has them, and how their states meet.

use super::super::error::wire;
use super::*;
use arrow::array::{AsArray, Decimal128Array};
use arrow::datatypes::{Decimal128Type, Float32Type, Float64Type};
use datafusion_expr::GroupsAccumulator;
use pg_lake_plan::message::ErrorCode;

fn state() -> Fold<SumExact> {
    let ty = DataType::Decimal128(38, 4);
    SumExact::of_squares(ty.clone(), ty)
}

fn decimals(values: Vec<Option<i128>>) -> ArrayRef {
    let values = Decimal128Array::from(values).with_precision_and_scale(38, 2);
    Arc::new(values.expect("a decimal"))
}

#[test]
fn squares_are_added_up_and_merged() {
    let values = decimals(vec![Some(-150), None, Some(200), Some(i128::MAX)]);
    let filter = BooleanArray::from(vec![true, true, true, false]);
    let mut one = state();
    one.update_batch(
        std::slice::from_ref(&values),
        &[0, 0, 0, 1],
        Some(&filter),
        2,
    )
    .expect("update");
    let one = one.state(EmitTo::All).expect("a state");
    let converted = state()
        .convert_to_state(&[values], Some(&filter))
        .expect("a state");
    let mut whole = state();
    whole.merge_batch(&one, &[0, 1], None, 2).expect("merge");
    whole
        .merge_batch(&converted, &[0, 0, 0, 1], None, 2)
        .expect("merge");
    let sums = whole.evaluate(EmitTo::All).expect("sums");
    let sums: Vec<Option<i128>> = sums.as_primitive::<Decimal128Type>().iter().collect();
    assert_eq!(sums, [Some(2 * (22_500 + 40_000)), None]);
}

#[test]
fn what_is_too_large_is_not_exact() {
    let large = 1i128 << 64;
    for values in [vec![Some(large)], vec![Some(large / 2); 4]] {
        let groups = vec![0; values.len()];
        let error = state()
            .update_batch(&[decimals(values)], &groups, None, 1)
            .expect_err("too large");
        assert_eq!(wire(&error).code, ErrorCode::NotExact);
    }
}

fn floats(values: &[f64]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn reals(values: &[Option<f32>]) -> ArrayRef {
    Arc::new(Float32Array::from(values.to_vec()))
}

// float.c: float4pl, float8pl; the first value is the first sum.
#[test]
fn zeros_keep_their_sign() {
    let mut sums = SumFloat::states(false);
    sums.update_batch(&[floats(&[-0.0, -0.0, 0.0])], &[0, 1, 1], None, 3)
        .expect("update");
    let state = sums.state(EmitTo::All).expect("a state");
    let mut whole = SumFloat::states(false);
    whole
        .merge_batch(&state, &[0, 1, 2], None, 3)
        .expect("merge");
    let result = whole.evaluate(EmitTo::All).expect("sums");
    let result = result.as_primitive::<Float64Type>();
    let bits: Vec<Option<u64>> = result.iter().map(|sum| sum.map(f64::to_bits)).collect();
    let expected = [Some((-0.0f64).to_bits()), Some(0.0f64.to_bits()), None];
    assert_eq!(bits, expected);
}

#[test]
fn reals_are_added_up_as_reals() {
    let values = reals(&[Some(16_777_216.0), None, Some(1.0), Some(1.0), Some(-0.0)]);
    let filter = BooleanArray::from(vec![Some(true), None, Some(true), Some(true), None]);
    let groups = [0, 0, 0, 0, 1];
    let mut one = SumFloat::states(true);
    one.update_batch(std::slice::from_ref(&values), &groups, Some(&filter), 2)
        .expect("update");
    let state = one.state(EmitTo::All).expect("a state");
    assert_eq!(
        state.first().map(Array::data_type),
        Some(&DataType::Float32)
    );
    let converted = SumFloat::states(true)
        .convert_to_state(&[values], Some(&filter))
        .expect("states");
    let mut whole = SumFloat::states(true);
    whole.merge_batch(&state, &[0, 1], None, 2).expect("merge");
    whole
        .merge_batch(&converted, &groups, None, 2)
        .expect("merge");
    let sums = whole.evaluate(EmitTo::All).expect("sums");
    let sums: Vec<Option<f32>> = sums.as_primitive::<Float32Type>().iter().collect();
    // 2^24 + 1 is 2^24 in single precision.
    assert_eq!(sums, [Some(33_554_432.0), None]);
}

#[test]
fn sums_of_finite_floats_overflow_in_their_precision() {
    let code = |single, values: ArrayRef| {
        let groups = vec![0; values.len()];
        let taken = SumFloat::states(single).update_batch(&[values], &groups, None, 1);
        taken.map_err(|error| wire(&error).code)
    };
    let large = reals(&[Some(f32::MAX), Some(f32::MAX)]);
    assert_eq!(code(true, large.clone()), Err(ErrorCode::OutOfRange));
    assert_eq!(code(false, large), Ok(()));
    let infinite = reals(&[Some(f32::INFINITY), Some(f32::MAX), Some(f32::MAX)]);
    assert_eq!(code(true, infinite), Ok(()));
    let large = floats(&[f64::MAX, f64::MAX]);
    assert_eq!(code(false, large), Err(ErrorCode::OutOfRange));
}
