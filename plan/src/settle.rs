//! Numeric parameters: with which scale Postgres shows a value is known only when the value is.
//!
//! Where only values matter, a plan is made with a parameter of some scale, and gets the right one before it is sent.

use crate::expr::{ArithmeticOp, Expr, ExprKind, Function};
use crate::ir::{Aggregate, Plan, WindowFunction};
use crate::types::LakeType;

/// Digits of a decimal.
const MAX_PRECISION: u8 = 38;

impl Plan {
    /// Gives numeric parameters their scales, by their number, and with them the decimals that are computed from
    /// them. False if one of those would have more digits than there are.
    pub fn settle(&mut self, scales: &[Option<i8>]) -> bool {
        let mut possible = true;
        self.for_each_expr(&mut |expr: &mut Expr| possible &= settle(expr, scales));
        possible
    }

    /// Calls `f` with each whole expression of this node and those below.
    pub(crate) fn for_each_expr(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        match self {
            Plan::Scan(scan) => scan.predicate.iter_mut().for_each(f),
            Plan::Filter { input, predicate } => {
                f(predicate);
                input.for_each_expr(f);
            }
            Plan::Project { input, exprs } => {
                exprs.iter_mut().for_each(&mut *f);
                input.for_each_expr(f);
            }
            Plan::Join(join) => {
                for on in &mut join.keys {
                    f(&mut on.left);
                    f(&mut on.right);
                }
                join.filter.iter_mut().for_each(&mut *f);
                join.left.for_each_expr(f);
                join.right.for_each_expr(f);
            }
            Plan::Append { inputs } => inputs.iter_mut().for_each(|plan| plan.for_each_expr(f)),
            Plan::Window(window) => {
                window.partition_by.iter_mut().for_each(&mut *f);
                window.peers.iter_mut().for_each(&mut *f);
                window.order_by.iter_mut().for_each(|key| f(&mut key.expr));
                let measured = window.measured.iter_mut();
                measured.for_each(|key| f(&mut key.expr));
                let offsets = window.frame.offsets_mut().into_iter();
                offsets.for_each(&mut *f);
                for function in &mut window.functions {
                    match function {
                        WindowFunction::RowNumber
                        | WindowFunction::Rank
                        | WindowFunction::DenseRank
                        | WindowFunction::PercentRank
                        | WindowFunction::CumeDist
                        | WindowFunction::Ntile(_) => {}
                        WindowFunction::Aggregate(call) => in_aggregate(call, f),
                        WindowFunction::FirstValue(arg)
                        | WindowFunction::LastValue(arg)
                        | WindowFunction::NthValue(arg, _)
                        | WindowFunction::Shift { arg, .. } => f(arg),
                    }
                }
                window.input.for_each_expr(f);
            }
            Plan::Aggregate {
                input,
                groups,
                aggregates,
                ..
            } => {
                groups.iter_mut().for_each(&mut *f);
                aggregates.iter_mut().for_each(|call| in_aggregate(call, f));
                input.for_each_expr(f);
            }
            Plan::Sort { input, keys, .. } => {
                keys.iter_mut().for_each(|key| f(&mut key.expr));
                input.for_each_expr(f);
            }
            Plan::Limit { input, .. } => input.for_each_expr(f),
            Plan::ProjectSet(set) => {
                let args = set.calls.iter_mut().flat_map(|call| &mut call.args);
                args.for_each(&mut *f);
                set.input.for_each_expr(f);
            }
            Plan::RecursiveUnion(union) => {
                union.non_recursive.for_each_expr(f);
                union.recursive.for_each_expr(f);
            }
            Plan::OneRow | Plan::WorkTable(_) => {}
        }
    }
}

fn in_aggregate(call: &mut Aggregate, f: &mut dyn FnMut(&mut Expr)) {
    call.arg.iter_mut().for_each(&mut *f);
    call.order.iter_mut().for_each(|key| f(&mut key.expr));
    call.filter.iter_mut().for_each(f);
}

fn settle(expr: &mut Expr, scales: &[Option<i8>]) -> bool {
    let mut possible = true;
    for child in expr.children_mut() {
        possible &= settle(child, scales);
    }
    if expr.ty.lake.is_decimal()
        && let Some(scale) = scale(expr, scales)
    {
        possible &= (0..=MAX_PRECISION as i8).contains(&scale);
        expr.ty.lake = LakeType::Decimal {
            precision: MAX_PRECISION,
            scale,
        };
    }
    possible
}

/// The scale of what follows from a parameter; `None` for everything else, which keeps its type.
fn scale(expr: &Expr, scales: &[Option<i8>]) -> Option<i8> {
    if let ExprKind::Param(i) = &expr.kind {
        return scales.get(*i as usize).copied().flatten();
    }
    let of = |expr: &Expr| match expr.ty.lake {
        LakeType::Decimal { scale, .. } => Some(scale),
        _ => None,
    };
    if !depends(expr, scales) {
        return None;
    }
    match &expr.kind {
        ExprKind::Arithmetic { op, left, right } => {
            let (left, right) = (of(left)?, of(right)?);
            Some(match op {
                ArithmeticOp::Multiply => left.saturating_add(right),
                _ => left.max(right),
            })
        }
        ExprKind::Negate(arg) => of(arg),
        ExprKind::Call {
            function: Function::Abs,
            args,
        } => args.first().and_then(of),
        _ => None,
    }
}

/// Whether the type follows from that of a parameter with a scale of its own.
fn depends(expr: &Expr, scales: &[Option<i8>]) -> bool {
    match &expr.kind {
        ExprKind::Param(i) => scales.get(*i as usize).copied().flatten().is_some(),
        ExprKind::Arithmetic { left, right, .. } => depends(left, scales) || depends(right, scales),
        ExprKind::Negate(arg) => depends(arg, scales),
        ExprKind::Call {
            function: Function::Abs,
            args,
        } => args.iter().any(|arg| depends(arg, scales)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::CompareOp;
    use crate::expr_of::expr;
    use crate::ir::{ColumnSource, Scan, ScanColumn};

    fn decimal(scale: i8) -> LakeType {
        LakeType::Decimal {
            precision: 38,
            scale,
        }
    }

    /// `n > n * $1`
    fn filter() -> Plan {
        let column = || Box::new(expr(decimal(2), ExprKind::Column(0)));
        let product = expr(
            decimal(2),
            ExprKind::Arithmetic {
                op: ArithmeticOp::Multiply,
                left: column(),
                right: Box::new(expr(decimal(0), ExprKind::Param(0))),
            },
        );
        let predicate = expr(
            LakeType::Bool,
            ExprKind::Compare {
                op: CompareOp::Gt,
                left: column(),
                right: Box::new(product),
            },
        );
        let scan = Scan {
            table: 0,
            name: "t".to_owned(),
            columns: vec![ScanColumn {
                name: "n".to_owned(),
                source: ColumnSource::Field(1),
                ty: predicate.children()[0].ty.clone(),
                missing: None,
            }],
            predicate: None,
        };
        Plan::Filter {
            input: Box::new(Plan::Scan(scan)),
            predicate,
        }
    }

    #[test]
    fn a_parameter_gives_its_scale_to_what_is_computed_from_it() {
        let mut plan = filter();
        assert!(plan.settle(&[Some(5)]));
        let Plan::Filter { predicate, .. } = &plan else {
            panic!("no filter");
        };
        let product = predicate.children()[1];
        assert_eq!(product.ty.lake, decimal(7));
        assert_eq!(product.children()[0].ty.lake, decimal(2));
        assert_eq!(product.children()[1].ty.lake, decimal(5));
    }

    #[test]
    fn more_digits_than_there_are_is_not_possible() {
        assert!(!filter().settle(&[Some(37)]));
    }

    #[test]
    fn other_parameters_change_nothing() {
        let mut plan = filter();
        assert!(plan.settle(&[None]));
        assert_eq!(plan, filter());
    }
}
