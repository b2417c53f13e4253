//! Bounds of numbers, as expressions of their types have them.

use super::*;
use crate::function::Interval;
use crate::types::SqlType;

fn expr(lake: LakeType, kind: ExprKind) -> Expr {
    Expr {
        ty: SqlType {
            lake,
            oid: 0,
            typmod: -1,
            collation: 0,
        },
        kind,
    }
}

fn decimal_type(precision: u8, scale: i8) -> LakeType {
    LakeType::Decimal { precision, scale }
}

fn column(number: u32, ty: &LakeType) -> Expr {
    expr(ty.clone(), ExprKind::Column(number))
}

/// A constant of that scale.
fn number(unscaled: i128, scale: i8) -> Expr {
    let value = ExprKind::Const(Some(Value::I128(unscaled)));
    expr(decimal_type(38, scale), value)
}

fn of_scale(e: &Expr) -> i8 {
    match e.ty.lake {
        LakeType::Decimal { scale, .. } => scale,
        _ => 0,
    }
}

/// As the backend makes it: of 38 digits.
fn arith(op: ArithmeticOp, left: Expr, right: Expr) -> Expr {
    let scale = match op {
        ArithmeticOp::Multiply => of_scale(&left) + of_scale(&right),
        _ => of_scale(&left).max(of_scale(&right)),
    };
    let (left, right) = (Box::new(left), Box::new(right));
    expr(
        decimal_type(38, scale),
        ExprKind::Arithmetic { op, left, right },
    )
}

fn call(function: Function, ty: LakeType, args: Vec<Expr>) -> Expr {
    expr(ty, ExprKind::Call { function, args })
}

fn is_inexact(e: &Expr, columns: &[LakeType]) -> bool {
    known(e, columns).inexact
}

fn known(e: &Expr, columns: &[LakeType]) -> Known {
    let columns: Vec<f64> = columns.iter().map(most_of).collect();
    let bounds = Bounds {
        columns: &columns,
        params: &[Some(Value::I128(200)), None],
    };
    bounds.of(e)
}

#[test]
fn sums_and_products_need_digits_by_those_of_their_operands() {
    use ArithmeticOp::{Add, Divide, Modulo, Multiply, Subtract};
    for (op, left, right, expected) in [
        (Multiply, (12, 2), (12, 2), false),
        (Multiply, (15, 2), (15, 2), false),
        (Multiply, (19, 0), (19, 0), false),
        (Multiply, (20, 0), (19, 0), true),
        (Multiply, (38, 10), (1, 0), true),
        (Add, (37, 2), (37, 2), false),
        (Subtract, (38, 2), (38, 2), true),
        // The left side gets ten more digits after the point.
        (Add, (28, 0), (12, 10), false),
        (Add, (30, 0), (12, 10), true),
        (Modulo, (30, 0), (12, 10), true),
        (Modulo, (38, 0), (38, 0), false),
        (Divide, (5, 0), (5, 0), true),
    ] {
        let types = [left, right].map(|(precision, scale)| decimal_type(precision, scale));
        let e = arith(op, column(0, &types[0]), column(1, &types[1]));
        assert_eq!(
            is_inexact(&e, &types),
            expected,
            "{op:?} {left:?} {right:?}"
        );
    }
}

#[test]
fn what_tpc_h_computes_of_one_line_is_exact_but_for_the_charge() {
    let price = decimal_type(15, 2);
    let types = [price.clone(), price.clone(), price.clone()];
    let one = || number(100, 2);
    let discounted = arith(
        ArithmeticOp::Multiply,
        column(0, &price),
        arith(ArithmeticOp::Subtract, one(), column(1, &price)),
    );
    assert!(!is_inexact(&discounted, &types));
    assert!(known(&discounted, &types).most < 1.01e30);
    let taxed = arith(ArithmeticOp::Add, one(), column(2, &price));
    let charge = arith(ArithmeticOp::Multiply, discounted, taxed);
    assert!(is_inexact(&charge, &types));
}

#[test]
fn constants_and_parameters_have_the_digits_that_they_have() {
    let wide = decimal_type(36, 2);
    let param = |number| expr(decimal_type(38, 2), ExprKind::Param(number));
    let times = |factor| arith(ArithmeticOp::Multiply, column(0, &wide), factor);
    let types = [wide.clone()];
    assert!(!is_inexact(&times(number(150, 0)), &types));
    assert!(is_inexact(&times(number(200, 0)), &types));
    // 2.00 times 10^36
    assert!(is_inexact(&times(param(0)), &types));
    // A null.
    assert!(!is_inexact(&times(param(1)), &types));
    assert!(!is_inexact(&param(7), &types));
}

#[test]
fn conversions_have_the_digits_of_their_type() {
    let cast = |from: &LakeType, to: LakeType| {
        let e = expr(to, ExprKind::Cast(Box::new(column(0, from))));
        is_inexact(&e, std::slice::from_ref(from))
    };
    assert!(!cast(&LakeType::Int4, decimal_type(38, 0)));
    assert!(!cast(&LakeType::Int8, decimal_type(38, 10)));
    assert!(cast(&LakeType::Int8, decimal_type(38, 20)));
    assert!(cast(&LakeType::Int4, decimal_type(9, 0)));
    assert!(!cast(&decimal_type(28, 0), decimal_type(38, 10)));
    assert!(cast(&decimal_type(29, 0), decimal_type(38, 10)));
    // The year 294250.
    assert!(cast(&LakeType::Date, LakeType::Timestamp));
    assert!(!cast(&LakeType::Float4, LakeType::Float8));
    // One more than the type has room for.
    let ty = decimal_type(37, 0);
    let more = arith(ArithmeticOp::Add, column(0, &ty), number(1, 0));
    let e = expr(ty.clone(), ExprKind::Cast(Box::new(more)));
    assert!(is_inexact(&e, &[ty]));
}

#[test]
fn functions_give_no_more_digits_than_they_can() {
    let price = decimal_type(15, 2);
    let of = |function, ty: LakeType| call(function, ty, vec![column(0, &price)]);
    let types = [price.clone(), LakeType::Int8, LakeType::Timestamp];
    for (function, scale, expected) in [
        (Function::Abs, 2, false),
        (Function::Ceil, 0, false),
        (Function::Round(1), 1, false),
        (Function::Round(24), 24, false),
        (Function::Round(26), 26, true),
        (Function::Truncate(-3), 0, false),
        (Function::DecimalSqrt, 20, true),
    ] {
        let e = of(function, decimal_type(38, scale));
        assert_eq!(is_inexact(&e, &types), expected, "{function:?}");
    }
    assert_eq!(
        known(&of(Function::Sign, decimal_type(38, 0)), &types).most,
        1.0
    );
    let factorial = |arg| call(Function::Factorial, decimal_type(38, 0), vec![arg]);
    let n = |n| expr(LakeType::Int8, ExprKind::Const(Some(Value::I64(n))));
    assert!(is_inexact(&factorial(column(1, &LakeType::Int8)), &types));
    assert!(!is_inexact(&factorial(n(33)), &types));
    assert!(is_inexact(&factorial(n(34)), &types));
    let part = |field| {
        let arg = column(2, &LakeType::Timestamp);
        call(Function::Extract(field), decimal_type(38, 6), vec![arg])
    };
    assert!(is_inexact(&part(Field::Epoch), &types));
    assert!(!is_inexact(&part(Field::Second), &types));
}

#[test]
fn what_is_rounded_up_may_have_a_digit_more() {
    let most = decimal_type(38, 2);
    let types = [most.clone()];
    for (function, scale, expected) in [
        (Function::Round(0), 0, true),
        (Function::Ceil, 0, true),
        (Function::Round(2), 2, false),
    ] {
        // 10^36, of which a numeric(38,2) has no room for the two digits after the point.
        let whole = call(function, decimal_type(38, scale), vec![column(0, &most)]);
        assert!(!is_inexact(&whole, &types), "{function:?}");
        let e = expr(most.clone(), ExprKind::Cast(Box::new(whole)));
        assert_eq!(is_inexact(&e, &types), expected, "{function:?}");
    }
}

#[test]
fn timestamps_that_get_no_later_are_exact() {
    let added = |months, days, microseconds| {
        let by = Interval {
            months,
            days,
            microseconds,
        };
        let args = vec![column(0, &LakeType::Timestamp)];
        let e = call(Function::AddInterval(by), LakeType::Timestamp, args);
        is_inexact(&e, &[LakeType::Timestamp])
    };
    assert!(!added(-1, 0, -1));
    assert!(!added(0, 0, 0));
    assert!(added(1, 0, 0));
    assert!(added(-1, 40, 0));
    assert!(added(0, 0, 1));
}

#[test]
fn quotients_that_are_not_small_have_few_digits() {
    let price = decimal_type(12, 2);
    let types = [price.clone(), price.clone()];
    let by = |right| {
        let args = vec![column(0, &price), right];
        call(Function::Quotient, decimal_type(38, 20), args)
    };
    assert!(!is_inexact(&by(number(2, 0)), &types));
    assert!(is_inexact(&by(number(2000, 0)), &types));
    assert!(is_inexact(&by(column(1, &price)), &types));
}

#[test]
fn what_is_nested_deeply_is_looked_at_once() {
    let ty = decimal_type(38, 0);
    let test = || expr(LakeType::Bool, ExprKind::Const(Some(Value::Bool(true))));
    let nested = |inner: Expr| {
        (0..150).fold(inner, |inner, _| {
            expr(
                ty.clone(),
                ExprKind::Case {
                    branches: vec![(test(), number(1, 0))],
                    otherwise: Some(Box::new(inner)),
                },
            )
        })
    };
    let types = [ty.clone()];
    assert!(!is_inexact(&nested(column(0, &ty)), &types));
    let sum = arith(ArithmeticOp::Add, column(0, &ty), column(0, &ty));
    assert!(is_inexact(&nested(sum), &types));
}
