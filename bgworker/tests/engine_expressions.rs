//! Expressions give what Postgres gives: values, nulls and errors. Expected values were worked out
//! by hand from Postgres' rules.

mod engine_support;

use arrow::array::*;
use engine_support::*;
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::types::{LakeType, Value};
use std::sync::Arc;

fn ints(values: Vec<Option<i32>>) -> ArrayRef {
    Arc::new(Int32Array::from(values))
}

fn x() -> Expr {
    col(0, LakeType::Int4)
}

#[tokio::test]
async fn integers_overflow_unless_null() {
    let plus = |columns| async move {
        let e = arith(LakeType::Int4, ArithmeticOp::Add, x(), int(1));
        evaluate(&[LakeType::Int4], columns, e).await
    };
    let ok = plus(vec![ints(vec![Some(1), None])]).await.unwrap();
    assert_eq!(ok.as_primitive::<arrow::datatypes::Int32Type>().value(0), 2);
    assert!(ok.is_null(1));
    let error = plus(vec![ints(vec![Some(i32::MAX)])]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::OutOfRange);
    assert_eq!(error.message, "integer out of range");
}

#[tokio::test]
async fn smallest_integer_divided_by_minus_one() {
    let by = |op| async move {
        let e = arith(LakeType::Int4, op, x(), int(-1));
        evaluate(&[LakeType::Int4], vec![ints(vec![Some(i32::MIN)])], e).await
    };
    let error = by(ArithmeticOp::Divide).await.unwrap_err();
    assert_eq!(error.message, "integer out of range");
    let rest = by(ArithmeticOp::Modulo).await.unwrap();
    assert_eq!(
        rest.as_primitive::<arrow::datatypes::Int32Type>().value(0),
        0
    );
}

#[tokio::test]
async fn smallints_have_their_own_range() {
    let ty = LakeType::Int2;
    let e = arith(
        ty.clone(),
        ArithmeticOp::Multiply,
        col(0, ty.clone()),
        constant(ty.clone(), Value::I32(200)),
    );
    let error = evaluate(&[ty], vec![ints(vec![Some(200)])], e)
        .await
        .unwrap_err();
    assert_eq!(error.message, "smallint out of range");
}

/// `x > 5 AND 10 / y > 1` for a row whose x is null and whose y is 0, as a scan's predicate, alone in another AND or not.
async fn filtered_by_a_null(nested: bool) -> Result<usize, WireError> {
    let guard = compare(CompareOp::Gt, x(), int(5));
    let ratio = arith(
        LakeType::Int4,
        ArithmeticOp::Divide,
        int(10),
        col(1, LakeType::Int4),
    );
    let test = compare(CompareOp::Gt, ratio, int(1));
    let mut predicate = expr(LakeType::Bool, ExprKind::And(vec![guard, test]));
    if nested {
        predicate = expr(LakeType::Bool, ExprKind::And(vec![predicate]));
    }
    let spill = tempfile::tempdir().unwrap();
    let plan = scan(&[LakeType::Int4, LakeType::Int4], Some(predicate));
    let columns = vec![
        ints(vec![None, Some(1), Some(7), Some(8)]),
        ints(vec![Some(0), Some(0), Some(3), Some(10)]),
    ];
    let (batches, _) = run(
        &engine(spill.path()),
        request(plan, vec![]),
        Some(feed(columns)),
    )
    .await?;
    Ok(batches.iter().map(|batch| batch.num_rows()).sum())
}

#[tokio::test]
async fn a_null_ends_quals_but_no_and() {
    assert_eq!(filtered_by_a_null(false).await.unwrap(), 1);
    let error = filtered_by_a_null(true).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DivisionByZero);
}

#[tokio::test]
async fn a_guard_keeps_its_division() {
    // x <> 0 AND 10 / x > 1
    let guard = compare(CompareOp::Ne, x(), int(0));
    let ratio = arith(LakeType::Int4, ArithmeticOp::Divide, int(10), x());
    let test = compare(CompareOp::Gt, ratio.clone(), int(1));
    let e = expr(LakeType::Bool, ExprKind::And(vec![guard, test]));
    let column = vec![ints(vec![Some(0), Some(3), None, Some(10)])];
    let result = evaluate(&[LakeType::Int4], column.clone(), e)
        .await
        .unwrap();
    let result = result.as_boolean();
    let values: Vec<Option<bool>> = result.iter().collect();
    assert_eq!(values, [Some(false), Some(true), None, Some(false)]);
    let error = evaluate(&[LakeType::Int4], column, ratio)
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::DivisionByZero);
}

#[tokio::test]
async fn case_evaluates_only_its_rows() {
    let branch = (
        compare(CompareOp::Ne, x(), int(0)),
        arith(LakeType::Int4, ArithmeticOp::Divide, int(10), x()),
    );
    let e = expr(
        LakeType::Int4,
        ExprKind::Case {
            branches: vec![branch],
            otherwise: Some(Box::new(int(-1))),
        },
    );
    let column = vec![ints(vec![Some(0), Some(5), None])];
    let result = evaluate(&[LakeType::Int4], column, e).await.unwrap();
    let result = result.as_primitive::<arrow::datatypes::Int32Type>();
    assert_eq!(result.values().to_vec(), [-1, 2, -1]);
}

#[tokio::test]
async fn floats_compare_as_in_postgres() {
    let ty = LakeType::Float8;
    let column: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, -0.0, 1.0, f64::INFINITY]));
    let against = |op, v| compare(op, col(0, ty.clone()), constant(ty.clone(), Value::F64(v)));
    for (e, expected) in [
        (
            against(CompareOp::Eq, f64::NAN),
            [true, false, false, false],
        ),
        (
            against(CompareOp::Gt, f64::INFINITY),
            [true, false, false, false],
        ),
        (against(CompareOp::Eq, 0.0), [false, true, false, false]),
        (against(CompareOp::Lt, 0.0), [false, false, false, false]),
    ] {
        let result = evaluate(&[LakeType::Float8], vec![column.clone()], e)
            .await
            .unwrap();
        let result: Vec<bool> = result.as_boolean().values().iter().collect();
        assert_eq!(result, expected);
    }
}

#[tokio::test]
async fn floats_overflow_underflow_and_divide() {
    for (op, a, b, message) in [
        (
            ArithmeticOp::Multiply,
            1e300,
            1e300,
            "value out of range: overflow",
        ),
        (
            ArithmeticOp::Multiply,
            1e-300,
            1e-300,
            "value out of range: underflow",
        ),
        (ArithmeticOp::Divide, 1.0, 0.0, "division by zero"),
    ] {
        let ty = LakeType::Float8;
        let e = arith(
            ty.clone(),
            op,
            col(0, ty.clone()),
            constant(ty.clone(), Value::F64(b)),
        );
        let column: ArrayRef = Arc::new(Float64Array::from(vec![a]));
        let error = evaluate(&[ty], vec![column], e).await.unwrap_err();
        assert_eq!(error.message, message);
    }
    let ty = LakeType::Float8;
    let zero = constant(ty.clone(), Value::F64(0.0));
    let e = arith(ty.clone(), ArithmeticOp::Divide, col(0, ty.clone()), zero);
    let column: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
    let result = evaluate(&[ty], vec![column], e).await.unwrap();
    assert!(
        result
            .as_primitive::<arrow::datatypes::Float64Type>()
            .value(0)
            .is_nan()
    );
}

fn decimals(values: Vec<i128>, precision: u8, scale: i8) -> ArrayRef {
    let array = Decimal128Array::from(values).with_precision_and_scale(precision, scale);
    Arc::new(array.unwrap())
}

#[tokio::test]
async fn decimals_are_exact_or_say_so() {
    // price * (1 - discount)
    let one = constant(
        LakeType::Decimal {
            precision: 1,
            scale: 0,
        },
        Value::I128(1),
    );
    let rest = arith(NUMERIC, ArithmeticOp::Subtract, one, col(1, NUMERIC));
    let product = LakeType::Decimal {
        precision: 24,
        scale: 4,
    };
    let e = arith(product, ArithmeticOp::Multiply, col(0, NUMERIC), rest);
    let columns = vec![
        decimals(vec![10_000, 333], 12, 2),
        decimals(vec![5, 100], 12, 2),
    ];
    let result = evaluate(&[NUMERIC, NUMERIC], columns, e).await.unwrap();
    let result = result.as_primitive::<arrow::datatypes::Decimal128Type>();
    assert_eq!(result.values().to_vec(), [950_000, 0]);

    let wide = LakeType::Decimal {
        precision: 38,
        scale: 0,
    };
    let big = vec![decimals(vec![i128::MAX / 2], 38, 0)];
    let two = constant(wide.clone(), Value::I128(3));
    let e = arith(
        wide.clone(),
        ArithmeticOp::Multiply,
        col(0, wide.clone()),
        two,
    );
    let error = evaluate(&[wide], big, e).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotExact);
}

#[tokio::test]
async fn decimals_of_different_scales_compare() {
    let other = LakeType::Decimal {
        precision: 10,
        scale: 4,
    };
    let e = compare(
        CompareOp::Eq,
        col(0, NUMERIC),
        constant(other, Value::I128(12_300)),
    );
    let columns = vec![decimals(vec![123, 124], 12, 2)];
    let result = evaluate(&[NUMERIC], columns, e).await.unwrap();
    let result: Vec<bool> = result.as_boolean().values().iter().collect();
    assert_eq!(result, [true, false]);
}

#[tokio::test]
async fn in_lists_know_three_values() {
    let list = |values: Vec<Option<Value>>, negated| {
        let arg = Box::new(x());
        let kind = ExprKind::InList {
            arg,
            values,
            negated,
        };
        expr(LakeType::Bool, kind)
    };
    let column = vec![ints(vec![Some(1), Some(2), None])];
    for (e, expected) in [
        (
            list(vec![Some(Value::I32(1))], false),
            [Some(true), Some(false), None],
        ),
        (
            list(vec![Some(Value::I32(1)), None], false),
            [Some(true), None, None],
        ),
        (
            list(vec![Some(Value::I32(1)), None], true),
            [Some(false), None, None],
        ),
        (
            list(
                (0..2)
                    .map(|v| Some(Value::I32(v)))
                    .chain((10..40).map(|v| Some(Value::I32(v))))
                    .collect(),
                true,
            ),
            [Some(false), Some(true), None],
        ),
    ] {
        let result = evaluate(&[LakeType::Int4], column.clone(), e)
            .await
            .unwrap();
        let result: Vec<Option<bool>> = result.as_boolean().iter().collect();
        assert_eq!(result, expected);
    }
}

#[tokio::test]
async fn an_or_of_many_arms_is_flat() {
    let arms = (0..20_000)
        .map(|i| compare(CompareOp::Eq, x(), int(i * 2)))
        .collect();
    let e = expr(LakeType::Bool, ExprKind::Or(arms));
    let column = vec![ints(vec![Some(39_998), Some(1), None])];
    let result = evaluate(&[LakeType::Int4], column, e).await.unwrap();
    let result: Vec<Option<bool>> = result.as_boolean().iter().collect();
    assert_eq!(result, [Some(true), Some(false), None]);
}

#[test]
fn a_deep_sum_is_refused() {
    // Building and dropping it recurses, which is the decoder's matter; checking it must not.
    let test = || {
        let mut sum = x();
        for _ in 0..10_000 {
            sum = arith(LakeType::Int4, ArithmeticOp::Add, sum, int(1));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let column = vec![ints(vec![Some(1)])];
        let error = runtime
            .block_on(evaluate(&[LakeType::Int4], column, sum))
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::Protocol);
    };
    let thread = std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(test)
        .unwrap();
    thread.join().unwrap();
}

#[tokio::test]
async fn a_wrong_column_type_is_malformed() {
    let e = col(0, LakeType::Text);
    let error = evaluate(&[LakeType::Int4], vec![ints(vec![Some(1)])], e)
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::Protocol);
}
