//! Comparison of a date with a timestamp, as Postgres does it: the date is its midnight.

use super::compare::comparison;
use super::expr::cast;
use super::table::sql_type;
use pg_lake_plan::ir::{CompareOp, Expr, ExprKind};
use pg_lake_plan::types::{LakeType, Value};
use pgrx::pg_sys;

const MICROSECONDS: i64 = 86_400_000_000;

/// `date op timestamp`. With a constant it becomes a comparison of dates, which can't fail and
/// which statistics of the column can decide.
pub fn compare(op: CompareOp, date: Expr, timestamp: Expr) -> Expr {
    if let Some((op, day)) = as_date(op, &timestamp) {
        let day = Expr {
            ty: date.ty.clone(),
            kind: ExprKind::Const(day.map(Value::I32)),
        };
        return comparison(op, date, day);
    }
    let ty = sql_type(LakeType::Timestamp, pg_sys::TIMESTAMPOID);
    comparison(op, cast(date, &ty), timestamp)
}

/// The operator and day that a date is compared with instead.
fn as_date(op: CompareOp, timestamp: &Expr) -> Option<(CompareOp, Option<i32>)> {
    let at = match &timestamp.kind {
        ExprKind::Const(None) => return Some((op, None)),
        ExprKind::Const(Some(Value::I64(at))) => *at,
        _ => return None,
    };
    let day = i32::try_from(at.div_euclid(MICROSECONDS)).ok()?;
    let midnight = at.rem_euclid(MICROSECONDS) == 0;
    let op = match op {
        _ if midnight => op,
        // Later than midnight of `day` and before the next: no date is equal.
        CompareOp::Lt | CompareOp::Le => CompareOp::Le,
        CompareOp::Gt | CompareOp::Ge => CompareOp::Gt,
        CompareOp::Eq | CompareOp::Ne => return None,
    };
    Some((op, Some(day)))
}
