//! Conditions beside what is known of row groups and pages.

use super::*;
use parquet::basic::Type;
use parquet::file::metadata::ColumnIndexBuilder;
use pg_lake_plan::ir::ArithmeticOp;
use pg_lake_plan::types::SqlType;

fn number_test(test: Test) -> Bound {
    Bound {
        column: 0,
        ty: LakeType::Int4,
        test,
    }
}

#[test]
fn what_is_certain_holds_for_the_whole_range() {
    let number = |n: i128| Key::Number(n);
    for op in [
        CompareOp::Eq,
        CompareOp::Ne,
        CompareOp::Lt,
        CompareOp::Le,
        CompareOp::Gt,
        CompareOp::Ge,
    ] {
        for (key, min, max) in (0..5i128)
            .flat_map(|key| (0..5).flat_map(move |min| (min..5).map(move |max| (key, min, max))))
        {
            let holds = |value: i128| match op {
                CompareOp::Eq => value == key,
                CompareOp::Ne => value != key,
                CompareOp::Lt => value < key,
                CompareOp::Le => value <= key,
                CompareOp::Gt => value > key,
                CompareOp::Ge => value >= key,
            };
            let bound = number_test(Test::Compare(op, number(key)));
            let (all, any) = ((min..=max).all(holds), (min..=max).any(holds));
            assert_eq!(bound.certain(&number(min), &number(max)), all);
            assert!(bound.possible(&number(min), &number(max)) || !any);
        }
    }
    let either = number_test(Test::In(vec![number(1), number(2)]));
    assert!(either.certain(&number(2), &number(2)));
    assert!(!either.certain(&number(1), &number(2)));
    assert!(!either.certain(&number(3), &number(3)));
    for (min, max, possible) in [(0, 0, false), (0, 1, true), (2, 9, true), (3, 9, false)] {
        assert_eq!(either.possible(&number(min), &number(max)), possible);
    }
    let none = number_test(Test::In(vec![]));
    assert!(!none.possible(&number(0), &number(9)));
    let text = number_test(Test::Compare(CompareOp::Lt, Key::Bytes(vec![9])));
    assert!(!text.certain(&number(1), &number(2)));
}

fn boolean(kind: ExprKind) -> Expr {
    let ty = SqlType {
        lake: LakeType::Bool,
        oid: 16,
        typmod: -1,
        collation: 0,
    };
    Expr { ty, kind }
}

/// `column > 5`, which can't raise an error, or `1 / column > 5`, which can.
fn greater(column: u32, divides: bool) -> Expr {
    let int = |kind: ExprKind| Expr {
        ty: SqlType {
            lake: LakeType::Int4,
            oid: 23,
            typmod: -1,
            collation: 0,
        },
        kind,
    };
    let number = |n: i32| Box::new(int(ExprKind::Const(Some(Value::I32(n)))));
    let mut left = Box::new(int(ExprKind::Column(column)));
    if divides {
        left = Box::new(int(ExprKind::Arithmetic {
            op: ArithmeticOp::Divide,
            left: number(1),
            right: left,
        }));
    }
    boolean(ExprKind::Compare {
        op: CompareOp::Gt,
        left,
        right: number(5),
    })
}

#[test]
fn nothing_behind_an_error_is_used() {
    let columns = |quals: &[Expr]| -> Vec<usize> {
        let found = bounds(quals, &[]);
        found.iter().map(|bound| bound.column).collect()
    };
    let and = |args: Vec<Expr>| boolean(ExprKind::And(args));
    let quals = [greater(0, false), greater(1, false)];
    assert_eq!(columns(&quals), [0, 1]);
    let nested = [and(quals.to_vec()), greater(2, false)];
    assert_eq!(columns(&nested), [0, 1, 2]);
    let divided = [greater(0, false), greater(1, true), greater(2, false)];
    assert_eq!(columns(&divided), [0]);
    // A null in column 1 leads to the division.
    let guarded = and(vec![greater(1, false), greater(2, true)]);
    assert_eq!(
        columns(&[greater(0, false), guarded, greater(3, false)]),
        [0]
    );
}

#[test]
fn pages_are_judged_as_row_groups_are() {
    let mut index = ColumnIndexBuilder::new(Type::INT32);
    let bytes = |n: i32| n.to_le_bytes().to_vec();
    index.append(false, bytes(-5), bytes(5), 2);
    index.append(true, vec![], vec![], 10);
    let index = index.build().expect("an index");
    let types = (&DataType::Int32, &LakeType::Int4);
    let page = |page: usize| Extent::of_page(&index, page, 10, types);
    let is = |n: i128| number_test(Test::Compare(CompareOp::Eq, Key::Number(n)));
    assert!(!is(5).excludes(&page(0)) && is(6).excludes(&page(0)));
    assert!(is(5).excludes(&page(1)));
    // Of this one nothing is known.
    assert!(!is(6).excludes(&page(2)));
    let other = (&DataType::Int64, &LakeType::Int4);
    assert!(!is(6).excludes(&Extent::of_page(&index, 0, 10, other)));
    let nulls = Span {
        empty: true,
        nulls: true,
        ..Span::default()
    };
    assert!(!nulls.excludes(&page(0)) && !nulls.excludes(&page(1)));
    let six = Span {
        least: Some(Key::Number(6)),
        ..Span::default()
    };
    assert!(six.excludes(&page(0)) && six.excludes(&page(1)));
    assert!(!six.excludes(&page(2)));
}

#[test]
fn big_endian_numbers_keep_their_sign() {
    assert_eq!(big_endian(&[0xFF, 0xFE]), Some(-2));
    assert_eq!(big_endian(&[0x01, 0x00]), Some(256));
    assert_eq!(big_endian(&[0; 17]), None);
}
