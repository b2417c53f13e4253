//! A result of which the engine may find out late that it isn't exact is sent once it is known to be.

mod engine_support;

use arrow::array::{ArrayRef, Decimal128Array};
use arrow::record_batch::RecordBatch;
use engine_support::*;
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, ScanStats};
use pg_lake_plan::types::{LakeType, Value};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const ROWS: i128 = 100_000;

const WIDE: LakeType = LakeType::Decimal {
    precision: 30,
    scale: 0,
};

/// A column of many row groups, whose last value is another one.
fn numbers(ty: &LakeType, last: i128) -> ArrayRef {
    let LakeType::Decimal { precision, scale } = *ty else {
        panic!("a decimal is wanted");
    };
    let values = Decimal128Array::from_iter_values((1..ROWS).chain([last]));
    Arc::new(values.with_precision_and_scale(precision, scale).unwrap())
}

fn squared(ty: LakeType, scale: i8) -> Expr {
    let result = LakeType::Decimal {
        precision: 38,
        scale,
    };
    arith(
        result,
        ArithmeticOp::Multiply,
        col(0, ty.clone()),
        col(0, ty),
    )
}

fn projected(ty: LakeType, scale: i8) -> Plan {
    Plan::Project {
        input: Box::new(scan(std::slice::from_ref(&ty), None)),
        exprs: vec![squared(ty, scale)],
    }
}

fn filtered() -> Plan {
    let least = constant(WIDE, Value::I128(0));
    let is_more = compare(CompareOp::Gt, squared(WIDE, 0), least);
    scan(&[WIDE], Some(is_more))
}

async fn rows_of(plan: Plan, column: ArrayRef) -> (usize, ScanStats) {
    let (files, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = write(&files.path().join("a.parquet"), vec![column], 10_000);
    let request = request(plan, vec![file]);
    let (batches, stats) = run(&engine(spill.path()), request, None).await.unwrap();
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    (rows, stats)
}

fn holds(stats: &ScanStats) -> bool {
    stats.operators.iter().any(|line| line.contains("HoldExec"))
}

#[tokio::test]
async fn no_row_comes_before_the_last_one_is_known_to_be_exact() {
    for plan in [projected(WIDE, 0), filtered()] {
        let (files, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let column = numbers(&WIDE, 10i128.pow(29));
        let file = write(&files.path().join("a.parquet"), vec![column], 10_000);
        let engine = engine(spill.path());
        let request = request(plan, vec![file]);
        let cancel = CancellationToken::new();
        let mut running = engine
            .execute(request, vec![], vec![None], cancel)
            .await
            .unwrap();
        let error = running.next().await.expect_err("no rows");
        assert_eq!(error.code, ErrorCode::NotExact);
    }
}

#[tokio::test]
async fn what_was_held_comes_whole() {
    for plan in [projected(WIDE, 0), filtered()] {
        let (rows, stats) = rows_of(plan, numbers(&WIDE, 7)).await;
        assert_eq!(rows as i128, ROWS);
        assert!(holds(&stats));
    }
}

#[tokio::test]
async fn what_is_surely_exact_is_not_held() {
    let (rows, stats) = rows_of(projected(NUMERIC, 4), numbers(&NUMERIC, 7)).await;
    assert_eq!(rows as i128, ROWS);
    assert!(!holds(&stats));
}
