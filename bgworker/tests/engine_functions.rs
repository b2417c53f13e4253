//! Functions within expressions: what guards them, what they are compared with, and calls that are malformed. What each
//! function gives is tested beside it.

mod engine_support;

use arrow::array::*;
use arrow::datatypes::{Decimal128Type, Int32Type};
use engine_support::*;
use pg_lake_plan::expr::{Field, Function, Side};
use pg_lake_plan::ir::*;
use pg_lake_plan::message::ErrorCode;
use pg_lake_plan::types::{LakeType, Value};
use std::sync::Arc;

fn call(function: Function, args: Vec<Expr>, ty: LakeType) -> Expr {
    expr(ty, ExprKind::Call { function, args })
}

fn decimal(scale: i8) -> LakeType {
    LakeType::Decimal {
        precision: 38,
        scale,
    }
}

fn decimals(values: Vec<Option<i128>>, scale: i8) -> ArrayRef {
    let array = Decimal128Array::from(values).with_precision_and_scale(38, scale);
    Arc::new(array.unwrap())
}

fn texts(values: Vec<Option<&str>>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

fn quotient() -> Expr {
    let args = vec![col(0, decimal(2)), col(1, decimal(0))];
    call(Function::Quotient, args, decimal(20))
}

#[tokio::test]
async fn a_guard_keeps_its_quotient() {
    // y <> 0 AND x / y > 1.5
    let zero = constant(decimal(0), Value::I128(0));
    let limit = constant(decimal(1), Value::I128(15));
    let guard = compare(CompareOp::Ne, col(1, decimal(0)), zero);
    let test = compare(CompareOp::Gt, quotient(), limit);
    let guarded = expr(LakeType::Bool, ExprKind::And(vec![guard, test]));
    let types = [decimal(2), decimal(0)];
    let columns = vec![
        decimals(vec![Some(100), Some(500), Some(450), None], 2),
        decimals(vec![Some(0), Some(3), Some(3), Some(1)], 0),
    ];
    let result = evaluate(&types, columns.clone(), guarded).await.unwrap();
    let result: Vec<Option<bool>> = result.as_boolean().iter().collect();
    assert_eq!(result, [Some(false), Some(true), Some(false), None]);
    let error = evaluate(&types, columns, quotient()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DivisionByZero);
}

#[tokio::test]
async fn a_guard_keeps_its_pattern() {
    // y <> 'a\' AND x LIKE y
    let incomplete = constant(LakeType::Text, Value::Text("a\\".to_owned()));
    let guard = compare(CompareOp::Ne, col(1, LakeType::Text), incomplete);
    let args = vec![col(0, LakeType::Text), col(1, LakeType::Text)];
    let like = call(Function::Like, args, LakeType::Bool);
    let guarded = expr(LakeType::Bool, ExprKind::And(vec![guard, like.clone()]));
    let types = [LakeType::Text, LakeType::Text];
    let columns = vec![
        texts(vec![Some("abc"), Some("abc"), None, Some("ab")]),
        texts(vec![Some("a%"), Some("b%"), Some("%"), Some("a\\")]),
    ];
    let result = evaluate(&types, columns.clone(), guarded).await.unwrap();
    let result: Vec<Option<bool>> = result.as_boolean().iter().collect();
    assert_eq!(result, [Some(true), Some(false), None, Some(false)]);
    let error = evaluate(&types, columns, like).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::EscapeSequence);
}

#[tokio::test]
async fn without_rows_nothing_is_evaluated() {
    // x = chr(0)
    let character = call(Function::Chr, vec![int(0)], LakeType::Text);
    let test = compare(CompareOp::Eq, col(0, LakeType::Text), character);
    let spill = tempfile::tempdir().unwrap();
    let engine = engine(spill.path());
    for (rows, fails) in [(vec![], false), (vec![Some("a")], true)] {
        let plan = scan(&[LakeType::Text], Some(test.clone()));
        let feed = feed(vec![texts(rows)]);
        let result = run(&engine, request(plan, vec![]), Some(feed)).await;
        assert_eq!(result.is_err(), fails);
    }
}

#[tokio::test]
async fn a_call_over_constants_is_a_constant() {
    let text = constant(LakeType::Text, Value::Text("13-715-945".to_owned()));
    let e = call(
        Function::Substring,
        vec![text, int(1), int(2)],
        LakeType::Text,
    );
    let columns = vec![texts(vec![Some("a"), None, Some("b")])];
    let result = evaluate(&[LakeType::Text], columns, e).await.unwrap();
    let result: Vec<Option<&str>> = result.as_string::<i32>().iter().collect();
    assert_eq!(result, [Some("13"); 3]);
}

#[tokio::test]
async fn a_null_argument_makes_a_call_null() {
    let null = expr(LakeType::Text, ExprKind::Const(None));
    let e = call(
        Function::Concat,
        vec![col(0, LakeType::Text), null],
        LakeType::Text,
    );
    let columns = vec![texts(vec![Some("a"), None])];
    let result = evaluate(&[LakeType::Text], columns, e).await.unwrap();
    assert_eq!(result.null_count(), 2);
}

#[tokio::test]
async fn calls_of_calls() {
    // length(rtrim(c)) of a character(5)
    let trimmed = call(
        Function::Trim(Side::End),
        vec![col(0, LakeType::Text)],
        LakeType::Text,
    );
    let e = call(Function::Length, vec![trimmed], LakeType::Int4);
    let columns = vec![texts(vec![Some("ab   "), Some("     "), None])];
    let result = evaluate(&[LakeType::Text], columns, e).await.unwrap();
    let result: Vec<Option<i32>> = result.as_primitive::<Int32Type>().iter().collect();
    assert_eq!(result, [Some(2), Some(0), None]);
}

#[tokio::test]
async fn remainders_of_decimals() {
    let by = |value: i128| {
        let (left, right) = (col(0, decimal(2)), constant(decimal(1), Value::I128(value)));
        arith(decimal(2), ArithmeticOp::Modulo, left, right)
    };
    let columns = vec![decimals(vec![Some(725), Some(-725), None, Some(70)], 2)];
    // 7.25 % 0.7 = 0.25
    let result = evaluate(&[decimal(2)], columns.clone(), by(7))
        .await
        .unwrap();
    let result: Vec<Option<i128>> = result.as_primitive::<Decimal128Type>().iter().collect();
    assert_eq!(result, [Some(25), Some(-25), None, Some(0)]);
    let error = evaluate(&[decimal(2)], columns, by(0)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DivisionByZero);
}

#[tokio::test]
async fn the_greatest_and_the_least_leave_nulls_out() {
    let columns = vec![
        Arc::new(Int32Array::from(vec![Some(1), None, None, Some(5)])) as ArrayRef,
        Arc::new(Int32Array::from(vec![Some(2), Some(3), None, Some(-5)])),
    ];
    for (greatest, expected) in [
        (true, [Some(2), Some(3), Some(0), Some(5)]),
        (false, [Some(0), Some(0), Some(0), Some(-5)]),
    ] {
        let args = vec![col(0, LakeType::Int4), col(1, LakeType::Int4), int(0)];
        let e = expr(LakeType::Int4, ExprKind::Extreme { greatest, args });
        let types = [LakeType::Int4, LakeType::Int4];
        let result = evaluate(&types, columns.clone(), e).await.unwrap();
        let result: Vec<Option<i32>> = result.as_primitive::<Int32Type>().iter().collect();
        assert_eq!(result, expected);
    }
    let args = vec![col(0, LakeType::Int4), col(1, LakeType::Int4)];
    let greatest = true;
    let e = expr(LakeType::Int4, ExprKind::Extreme { greatest, args });
    let types = [LakeType::Int4, LakeType::Int4];
    let result = evaluate(&types, columns, e).await.unwrap();
    assert!(result.is_null(2));
}

#[tokio::test]
async fn malformed_calls_are_refused() {
    let column = || col(0, LakeType::Text);
    for e in [
        call(Function::Length, vec![], LakeType::Int4),
        call(Function::Length, vec![column()], LakeType::Int8),
        call(Function::Abs, vec![column()], LakeType::Text),
        call(
            Function::Extract(Field::Year),
            vec![column()],
            LakeType::Int4,
        ),
        expr(
            LakeType::Text,
            ExprKind::Extreme {
                greatest: true,
                args: vec![],
            },
        ),
        call(Function::DateBin(0), vec![], LakeType::Timestamp),
        call(Function::Gcd, vec![column(), column()], LakeType::Text),
        call(Function::ToLocal, vec![column()], LakeType::Timestamp),
        call(Function::Like, vec![column()], LakeType::Bool),
        // A list that nobody has filled.
        expr(
            LakeType::Bool,
            ExprKind::InParam {
                arg: Box::new(column()),
                param: 0,
                negated: false,
            },
        ),
    ] {
        let columns = vec![texts(vec![Some("a")])];
        let error = evaluate(&[LakeType::Text], columns, e).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Protocol);
    }
}
