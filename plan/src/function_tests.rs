//! Tests of what is known of functions.

use super::*;
use crate::expr_of::expr;

fn int(n: i32) -> Expr {
    expr(LakeType::Int4, ExprKind::Const(Some(Value::I32(n))))
}

fn call(function: Function, args: Vec<Expr>, result: LakeType) -> Expr {
    expr(result, ExprKind::Call { function, args })
}

#[test]
fn a_substring_of_constant_length_cannot_fail() {
    let text = || expr(LakeType::Text, ExprKind::Column(0));
    let substring = |args| call(Function::Substring, args, LakeType::Text);
    assert!(!substring(vec![text(), int(1), int(2)]).can_fail());
    assert!(!substring(vec![text(), int(-5)]).can_fail());
    assert!(substring(vec![text(), int(1), int(-2)]).can_fail());
    let from = expr(LakeType::Int4, ExprKind::Column(1));
    assert!(substring(vec![text(), from]).can_fail());
}

#[test]
fn a_complete_pattern_cannot_fail() {
    assert!(is_complete(""));
    assert!(is_complete("a\\\\"));
    assert!(!is_complete("\\"));
    assert!(!is_complete("a\\\\\\"));
    let text = |kind| expr(LakeType::Text, kind);
    let like = |pattern| {
        let args = vec![text(ExprKind::Column(0)), text(pattern)];
        call(Function::Like, args, LakeType::Bool)
    };
    let constant = |pattern: &str| ExprKind::Const(Some(Value::Text(pattern.to_owned())));
    assert!(!like(constant("a%")).can_fail());
    assert!(like(constant("a\\")).can_fail());
    assert!(like(ExprKind::Param(0)).can_fail());
}

#[test]
fn rounding_away_digits_cannot_fail() {
    let decimal = |scale| LakeType::Decimal {
        precision: 38,
        scale,
    };
    let round = |digits, scale| {
        let arg = expr(decimal(2), ExprKind::Column(0));
        call(Function::Round(digits), vec![arg], decimal(scale))
    };
    assert!(!round(1, 1).can_fail());
    assert!(round(3, 3).can_fail());
    assert!(round(-1, 0).can_fail());
}

#[test]
fn fields_have_the_scale_that_postgres_shows() {
    assert_eq!(Field::Year.scale(&LakeType::Date), Some(0));
    assert_eq!(Field::Epoch.scale(&LakeType::Date), Some(0));
    assert_eq!(Field::Epoch.scale(&LakeType::Timestamp), Some(6));
    assert_eq!(Field::Second.scale(&LakeType::Timestamp), Some(6));
    assert_eq!(Field::Millisecond.scale(&LakeType::Time), Some(3));
    assert_eq!(Field::Hour.scale(&LakeType::Date), None);
    assert_eq!(Field::Julian.scale(&LakeType::Timestamp), None);
    assert_eq!(Field::Year.scale(&LakeType::Time), None);
}

#[test]
fn containment_of_a_flat_constant_cannot_fail() {
    let contains = |part: String| {
        let part = expr(LakeType::Text, ExprKind::Const(Some(Value::Text(part))));
        let args = vec![expr(LakeType::Text, ExprKind::Column(0)), part];
        call(Function::JsonContains, args, LakeType::Bool)
    };
    assert!(!contains("{\"a\": [1]}".to_owned()).can_fail());
    assert!(contains("[".repeat(200) + &"]".repeat(200)).can_fail());
}

#[test]
fn intervals_have_no_weeks() {
    assert_eq!(Field::Epoch.scale_of_interval(), Some(6));
    assert_eq!(Field::Quarter.scale_of_interval(), Some(0));
    assert_eq!(Field::Week.scale_of_interval(), None);
}
