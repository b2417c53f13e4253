//! Comparisons: both sides brought to one type, and the collations that the engine can do.

use super::calls::call_of;
use super::consts::adapt;
use super::expr::{boolean, cast};
use super::order::{is_c, is_deterministic};
use super::{Lowered, dates};
use pg_lake_plan::function::{Function, Side};
use pg_lake_plan::ir::{CompareOp, Expr, ExprKind};
use pg_lake_plan::types::{LakeType, Value};
use pgrx::pg_sys;

fn is_constant(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Const(_))
}

/// Brings both sides of a comparison to one type. A constant takes the other side's type where it
/// can, so that statistics apply and decimals are compared as they are stored.
pub fn unify(left: Expr, right: Expr) -> Lowered<(Expr, Expr)> {
    use LakeType::{Float4, Float8, Int2, Int4, Int8};
    if left.ty.lake == right.ty.lake {
        return Ok((left, right));
    }
    if let Some(right) = adapt(&right, &left.ty) {
        return Ok((left, right));
    }
    if let Some(left) = adapt(&left, &right.ty) {
        return Ok((left, right));
    }
    let rank = |ty: &LakeType| {
        [Int2, Int4, Int8, Float4, Float8]
            .iter()
            .position(|t| t == ty)
    };
    let (l, r) = (&left.ty, &right.ty);
    if l.lake.is_decimal() && r.lake.is_decimal() {
        return Ok((left, right));
    }
    let compatible =
        (l.lake.is_integer() && r.lake.is_integer()) || (l.lake.is_float() && r.lake.is_float());
    if !compatible {
        return Err("a comparison of different types is not lowered".to_owned());
    }
    if rank(&l.lake) < rank(&r.lake) {
        let to = r.clone();
        Ok((cast(left, &to), right))
    } else {
        let to = l.clone();
        Ok((left, cast(right, &to)))
    }
}

/// Compares under Postgres' rules for the (common) type of both sides.
pub fn compare(op: CompareOp, left: Expr, right: Expr, collation: pg_sys::Oid) -> Lowered<Expr> {
    match (&left.ty.lake, &right.ty.lake) {
        (LakeType::Date, LakeType::Timestamp) => return Ok(dates::compare(op, left, right)),
        (LakeType::Timestamp, LakeType::Date) => {
            return Ok(dates::compare(commute(op), right, left));
        }
        _ => {}
    }
    let (left, right) = unify(left, right)?;
    match left.ty.lake {
        LakeType::Text => {
            let equality = matches!(op, CompareOp::Eq | CompareOp::Ne);
            if equality && !is_deterministic(collation) {
                return Err("a nondeterministic collation is not lowered".to_owned());
            }
            if !equality && !is_c(collation) {
                return Err("text is ordered by the engine under collation C only".to_owned());
            }
        }
        LakeType::List { .. } | LakeType::Struct(_) => {
            return Err("nested types are not compared by the engine".to_owned());
        }
        _ => {}
    }
    Ok(comparison(op, left, right))
}

pub fn comparison(op: CompareOp, left: Expr, right: Expr) -> Expr {
    boolean(ExprKind::Compare {
        op,
        left: Box::new(left),
        right: Box::new(right),
    })
}

fn commute(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Lt => CompareOp::Gt,
        CompareOp::Le => CompareOp::Ge,
        CompareOp::Gt => CompareOp::Lt,
        CompareOp::Ge => CompareOp::Le,
        CompareOp::Eq | CompareOp::Ne => op,
    }
}

/// Scale of a decimal.
pub fn decimal_scale(expr: &Expr) -> Option<i8> {
    match expr.ty.lake {
        LakeType::Decimal { scale, .. } => Some(scale),
        _ => None,
    }
}

/// Length of a `character(n)` column, whose values are stored padded to it.
pub fn padded_length(expr: &Expr) -> Option<usize> {
    let is_column = matches!(expr.kind, ExprKind::Column(_));
    if !is_column || expr.ty.oid != pg_sys::BPCHAROID.to_u32() {
        return None;
    }
    usize::try_from(expr.ty.typmod.checked_sub(4)?)
        .ok()
        .filter(|n| *n > 0)
}

/// A constant as a `character(length)` column would hold it; one that is longer equals none.
pub fn padded(expr: Expr, length: usize) -> Expr {
    match expr.kind {
        ExprKind::Const(Some(Value::Text(text))) => {
            let text = text.trim_end_matches(' ');
            let blanks = length.saturating_sub(text.chars().count());
            Expr {
                ty: expr.ty,
                kind: ExprKind::Const(Some(Value::Text(text.to_owned() + &" ".repeat(blanks)))),
            }
        }
        _ => expr,
    }
}

/// A `character(n)` without its trailing blanks, as Postgres compares it.
pub fn trimmed(expr: Expr) -> Expr {
    match expr.kind {
        ExprKind::Const(Some(Value::Text(text))) => Expr {
            ty: expr.ty,
            kind: ExprKind::Const(Some(Value::Text(text.trim_end_matches(' ').to_owned()))),
        },
        ExprKind::Const(None) => expr,
        _ => {
            let ty = expr.ty.clone();
            call_of(Function::Trim(Side::End), vec![expr], ty)
        }
    }
}

/// Compares `character(n)`: Postgres ignores trailing blanks, the engine sees them. Of equally long columns it may:
/// both sides have them.
pub fn compare_padded(
    op: CompareOp,
    left: Expr,
    right: Expr,
    collation: pg_sys::Oid,
) -> Lowered<Expr> {
    let equality = matches!(op, CompareOp::Eq | CompareOp::Ne);
    let (left, right) = match (padded_length(&left), padded_length(&right)) {
        (Some(l), Some(r)) if equality && l == r => (left, right),
        (Some(length), None) if equality && is_constant(&right) => (left, padded(right, length)),
        (None, Some(length)) if equality && is_constant(&left) => (padded(left, length), right),
        _ => (trimmed(left), trimmed(right)),
    };
    compare(op, left, right, collation)
}
