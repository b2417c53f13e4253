//! Plans of which it may be found out late that they are not exact, and others.

use super::*;
use crate::function::Function;
use crate::ir::{
    ArithmeticOp, ColumnSource, CompareOp, ExprKind, Frame, FrameExclusion, FrameUnit, JoinKey,
    RecursiveUnion, Scan, ScanColumn, SortKey, WorkColumn, WorkTable,
};
use crate::types::SqlType;

/// Rows of each table.
const TABLES: [f64; 2] = [1e6, 1e6];

fn sql(lake: LakeType) -> SqlType {
    SqlType {
        lake,
        oid: 0,
        typmod: -1,
        collation: 0,
    }
}

fn decimal(precision: u8, scale: i8) -> LakeType {
    LakeType::Decimal { precision, scale }
}

fn expr(lake: LakeType, kind: ExprKind) -> Expr {
    Expr {
        ty: sql(lake),
        kind,
    }
}

fn column(number: u32, ty: LakeType) -> Expr {
    expr(ty, ExprKind::Column(number))
}

/// A table with a column of 15 digits, one of 38, and a float.
fn scan(table: u32) -> Plan {
    let types = [decimal(15, 2), decimal(38, 0), LakeType::Float8];
    let columns = types.into_iter().map(|ty| ScanColumn {
        name: "c".into(),
        source: ColumnSource::Field(1),
        ty: sql(ty),
        missing: None,
    });
    Plan::Scan(Scan {
        table,
        name: "t".into(),
        columns: columns.collect(),
        predicate: None,
    })
}

fn product(number: u32, ty: LakeType) -> Expr {
    let scale = match ty {
        LakeType::Decimal { scale, .. } => 2 * scale,
        _ => 0,
    };
    let factor = || Box::new(column(number, ty.clone()));
    expr(
        decimal(38, scale),
        ExprKind::Arithmetic {
            op: ArithmeticOp::Multiply,
            left: factor(),
            right: factor(),
        },
    )
}

/// Of at most 30 digits.
fn small() -> Expr {
    product(0, decimal(15, 2))
}

/// Of up to 76.
fn large() -> Expr {
    product(1, decimal(38, 0))
}

fn condition(value: Expr) -> Expr {
    let compare = ExprKind::Compare {
        op: CompareOp::Gt,
        left: Box::new(value.clone()),
        right: Box::new(value),
    };
    expr(LakeType::Bool, compare)
}

fn project(input: Plan, e: Expr) -> Plan {
    Plan::Project {
        input: Box::new(input),
        exprs: vec![e],
    }
}

fn filter(input: Plan, e: Expr) -> Plan {
    Plan::Filter {
        input: Box::new(input),
        predicate: condition(e),
    }
}

fn sort(input: Plan) -> Plan {
    Plan::Sort {
        input: Box::new(input),
        keys: vec![SortKey {
            expr: column(0, decimal(38, 0)),
            descending: false,
            nulls_first: false,
        }],
        fetch: None,
    }
}

fn limit(input: Plan, fetch: u64) -> Plan {
    Plan::Limit {
        input: Box::new(input),
        skip: 0,
        fetch: Some(fetch),
    }
}

fn aggregate(function: AggregateFunction, arg: Expr, ty: LakeType) -> Aggregate {
    Aggregate {
        function,
        arg: Some(arg),
        filter: None,
        distinct: false,
        ty: sql(ty),
        order: vec![],
    }
}

fn sum(arg: Expr) -> Aggregate {
    let ty = arg.ty.lake.clone();
    aggregate(AggregateFunction::Sum, arg, ty)
}

fn grouped(input: Plan, groups: Vec<Expr>, aggregates: Vec<Aggregate>) -> Plan {
    Plan::Aggregate {
        input: Box::new(input),
        groups,
        aggregates,
        sets: vec![],
        groups_estimate: 10.0,
    }
}

fn join(left: Plan, right: Plan, filter: Option<Expr>) -> Plan {
    Plan::Join(Join {
        kind: JoinKind::Inner,
        left: Box::new(left),
        right: Box::new(right),
        keys: vec![JoinKey {
            left: column(0, decimal(15, 2)),
            right: column(0, decimal(15, 2)),
        }],
        filter,
        left_rows: 1e6,
        right_rows: 1e6,
    })
}

fn append(inputs: Vec<Plan>) -> Plan {
    Plan::Append { inputs }
}

fn window(input: Plan, aggregate: Aggregate) -> Plan {
    Plan::Window(Box::new(Window {
        input: Box::new(input),
        partition_by: vec![],
        order_by: vec![],
        peers: vec![],
        frame: Frame {
            unit: FrameUnit::Rows,
            start: FrameBound::UnboundedPreceding,
            end: FrameBound::CurrentRow,
            exclude: FrameExclusion::NoOthers,
        },
        functions: vec![WindowFunction::Aggregate(aggregate)],
        measured: None,
    }))
}

fn is_late(plan: &Plan) -> bool {
    may_end_late(plan, &TABLES, &[])
}

fn key() -> Vec<Expr> {
    vec![column(0, decimal(15, 2))]
}

#[test]
fn rows_that_pass_are_followed_by_others() {
    assert!(!is_late(&scan(0)));
    for (e, expected) in [(small(), false), (large(), true)] {
        let plans = [
            project(scan(0), e.clone()),
            filter(scan(0), e.clone()),
            limit(project(scan(0), e.clone()), 2),
            append(vec![scan(0), project(scan(1), e.clone())]),
            join(filter(scan(0), e.clone()), scan(1), None),
            join(scan(0), scan(1), Some(condition(e.clone()))),
            window(scan(0), sum(e.clone())),
            project(sort(scan(0)), e.clone()),
        ];
        for plan in plans {
            assert_eq!(is_late(&plan), expected, "{plan:?}");
        }
    }
}

#[test]
fn what_takes_all_rows_first_has_no_late_errors() {
    let wide = || project(scan(0), large());
    assert!(!is_late(&sort(wide())));
    assert!(!is_late(&limit(sort(wide()), 10)));
    assert!(!is_late(&limit(wide(), 1)));
    let counted = || aggregate(AggregateFunction::Count, large(), LakeType::Int8);
    assert!(!is_late(&grouped(scan(0), key(), vec![counted()])));
    assert!(!is_late(&grouped(scan(0), vec![], vec![sum(large())])));
    // A sum of all rows is a single one.
    let total = || grouped(scan(0), vec![], vec![sum(small())]);
    assert!(!is_late(&project(total(), product(0, decimal(38, 0)))));
    // It groups what is sorted as it comes.
    assert!(is_late(&grouped(
        sort(filter(scan(0), small())),
        vec![large()],
        vec![]
    )));
}

#[test]
fn sums_of_few_rows_are_exact() {
    let sums = |rows: f64| {
        let plan = grouped(scan(0), key(), vec![sum(small())]);
        may_end_late(&plan, &[rows], &[])
    };
    assert!(!sums(1e6));
    assert!(!sums(1e8));
    assert!(sums(1e9));
    let plain = grouped(scan(0), key(), vec![sum(column(0, decimal(15, 2)))]);
    assert!(!may_end_late(&plain, &[FED_ROWS_MAX], &[]));
}

#[test]
fn one_input_may_be_done_before_another_one() {
    let least = || {
        let arg = column(2, LakeType::Float8);
        let least = aggregate(AggregateFunction::Min, arg, LakeType::Float8);
        grouped(scan(0), vec![], vec![least])
    };
    assert!(!is_late(&least()));
    assert!(!is_late(&append(vec![least()])));
    assert!(is_late(&append(vec![least(), least()])));
    assert!(!is_late(&sort(append(vec![least(), least()]))));
    // It holds its groups itself.
    let by_key = {
        let arg = column(2, LakeType::Float8);
        let least = aggregate(AggregateFunction::Min, arg, LakeType::Float8);
        grouped(sort(scan(0)), key(), vec![least, sum(large())])
    };
    assert!(!is_late(&by_key));
}

#[test]
fn what_may_have_no_end_is_not_held() {
    let recursion = || {
        let table = WorkTable {
            id: 1,
            columns: vec![],
        };
        Plan::RecursiveUnion(RecursiveUnion {
            non_recursive: Box::new(scan(0)),
            recursive: Box::new(Plan::WorkTable(table)),
            distinct: false,
            id: 1,
        })
    };
    assert!(!is_late(&project(recursion(), large())));
    assert!(is_late(&limit(project(recursion(), large()), 10)));
}

#[test]
fn steps_add_to_what_steps_have_added_to() {
    // Of one row each time.
    let limited = |ty: LakeType| {
        let columns = vec![WorkColumn {
            name: "n".into(),
            ty: sql(ty.clone()),
        }];
        let added = ExprKind::Arithmetic {
            op: ArithmeticOp::Add,
            left: Box::new(column(0, ty.clone())),
            right: Box::new(expr(ty.clone(), ExprKind::Const(Some(Value::I128(1))))),
        };
        let step = Plan::Project {
            input: Box::new(Plan::WorkTable(WorkTable { id: 1, columns })),
            exprs: vec![expr(decimal(38, 0), added)],
        };
        let start = project(Plan::OneRow, expr(ty, ExprKind::Const(None)));
        let union = Plan::RecursiveUnion(RecursiveUnion {
            non_recursive: Box::new(start),
            recursive: Box::new(step),
            distinct: false,
            id: 1,
        });
        is_late(&limit(union, 10))
    };
    assert!(limited(decimal(38, 0)));
    assert!(!limited(decimal(37, 0)));
}

#[test]
fn who_wants_the_first_rows_gets_them_where_they_are_there() {
    assert!(delays_rows(&project(scan(0), large())));
    assert!(delays_rows(&join(
        scan(0),
        scan(1),
        Some(condition(large()))
    )));
    assert!(!delays_rows(&project(scan(0), small())));
    assert!(!delays_rows(&project(sort(scan(0)), large())));
    assert!(!delays_rows(&limit(project(scan(0), large()), 10)));
    assert!(!delays_rows(&grouped(scan(0), key(), vec![sum(large())])));
}

#[test]
fn what_cannot_fail_may_be_inexact() {
    let call = |function, arg: LakeType, ty: LakeType| {
        let args = vec![column(0, arg)];
        expr(ty, ExprKind::Call { function, args })
    };
    let order = call(Function::JsonOrder, LakeType::Text, LakeType::Text);
    assert!(!order.can_fail());
    assert!(may_be_inexact(&order));
    let rounded = call(Function::Round(2), decimal(38, 2), decimal(38, 2));
    assert!(!rounded.can_fail());
    assert!(!may_be_inexact(&rounded));
}

#[test]
fn squares_of_large_numbers_are_added_up_before_a_row_comes_out() {
    for (arg, expected) in [
        (LakeType::Int4, false),
        (LakeType::Int8, true),
        (decimal(12, 0), false),
        (decimal(38, 0), true),
    ] {
        let squares = aggregate(
            AggregateFunction::SumOfSquares,
            column(0, arg),
            decimal(38, 0),
        );
        assert_eq!(ends_late(&squares), expected, "{:?}", squares.arg);
    }
}
