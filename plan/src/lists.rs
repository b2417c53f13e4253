//! Arrays that are parameters: their elements are known only when a plan starts.
//!
//! Before the plan is sent, `x = ANY ($1)` becomes a list of values, so that the engine knows lists only.

use crate::expr::{Expr, ExprKind};
use crate::ir::Plan;
use crate::types::{LakeType, Value};

/// The value of a parameter that is an array.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    Null,
    /// Without elements.
    Empty,
    /// Those that the expression can be equal to, and nulls.
    Elements(Vec<Option<Value>>),
}

impl Plan {
    /// Replaces each [`ExprKind::InParam`]. `array` finds what a parameter's elements are to the expression that is
    /// compared with them. False if there is one that it doesn't know.
    pub fn fill(&mut self, array: &mut dyn FnMut(&Expr, u32) -> Option<Array>) -> bool {
        let mut possible = true;
        self.for_each_expr(&mut |expr: &mut Expr| possible &= fill(expr, array));
        possible
    }
}

fn fill(expr: &mut Expr, array: &mut dyn FnMut(&Expr, u32) -> Option<Array>) -> bool {
    let mut possible = true;
    for child in expr.children_mut() {
        possible &= fill(child, array);
    }
    let ExprKind::InParam {
        arg,
        param,
        negated,
    } = &expr.kind
    else {
        return possible;
    };
    let arg: &Expr = arg;
    let Some(elements) = array(arg, *param) else {
        return false;
    };
    let kind = condition(arg, elements, *negated, expr);
    expr.kind = kind;
    possible
}

/// `arg = ANY (elements)`, `arg <> ALL (elements)`. What can raise an error is evaluated in any case.
fn condition(arg: &Expr, elements: Array, negated: bool, whole: &Expr) -> ExprKind {
    let boolean = |kind| {
        Box::new(Expr {
            ty: whole.ty.clone(),
            kind,
        })
    };
    let arg = || Box::new(arg.clone());
    let evaluated = arg().can_fail();
    match elements {
        Array::Elements(values) => ExprKind::InList {
            arg: arg(),
            values,
            negated,
        },
        Array::Empty if !evaluated => ExprKind::Const(Some(Value::Bool(negated))),
        // A test is never null.
        Array::Empty if negated => ExprKind::IsNotNull(boolean(ExprKind::IsNull(arg()))),
        Array::Empty => ExprKind::IsNull(boolean(ExprKind::IsNull(arg()))),
        Array::Null if !evaluated => ExprKind::Const(None),
        Array::Null => ExprKind::Case {
            branches: vec![(
                *boolean(ExprKind::IsNull(arg())),
                *boolean(ExprKind::Const(None)),
            )],
            otherwise: None,
        },
    }
}

/// Whether a parameter of this type is an array. It has a value of its own in
/// [`crate::message::Execute::params`] only where it is the argument of a [`crate::ir::SetFunction::Unnest`].
pub fn is_array(lake: &LakeType) -> bool {
    matches!(lake, LakeType::List { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr_of::expr;
    use crate::function::Function;
    use crate::ir::{ColumnSource, Scan, ScanColumn};

    fn column() -> Expr {
        expr(LakeType::Int4, ExprKind::Column(0))
    }

    fn filled(arg: Expr, negated: bool, array: Option<Array>) -> (bool, ExprKind) {
        let predicate = expr(
            LakeType::Bool,
            ExprKind::Not(Box::new(expr(
                LakeType::Bool,
                ExprKind::InParam {
                    arg: Box::new(arg),
                    param: 3,
                    negated,
                },
            ))),
        );
        let mut plan = Plan::Scan(Scan {
            table: 0,
            name: "t".to_owned(),
            columns: vec![ScanColumn {
                name: "n".to_owned(),
                source: ColumnSource::Field(1),
                ty: column().ty,
                missing: None,
            }],
            predicate: Some(predicate),
        });
        let possible = plan.fill(&mut |_: &Expr, param| {
            assert_eq!(param, 3);
            array.clone()
        });
        let Plan::Scan(scan) = plan else {
            panic!("no scan");
        };
        let kind = scan.predicate.as_ref().expect("a predicate").children()[0]
            .kind
            .clone();
        (possible, kind)
    }

    #[test]
    fn elements_become_a_list() {
        let values = vec![Some(Value::I32(1)), None];
        let (possible, kind) = filled(column(), true, Some(Array::Elements(values.clone())));
        assert!(possible);
        let arg = Box::new(column());
        let expected = ExprKind::InList {
            arg,
            values,
            negated: true,
        };
        assert_eq!(kind, expected);
    }

    #[test]
    fn empty_and_missing_arrays_are_constants() {
        let constant = |negated, array| filled(column(), negated, Some(array)).1;
        let holds = |value| ExprKind::Const(Some(Value::Bool(value)));
        assert_eq!(constant(false, Array::Empty), holds(false));
        assert_eq!(constant(true, Array::Empty), holds(true));
        assert_eq!(constant(true, Array::Null), ExprKind::Const(None));
        assert!(!filled(column(), false, None).0);
    }

    #[test]
    fn what_can_fail_is_still_evaluated() {
        let args = vec![column()];
        let call = ExprKind::Call {
            function: Function::Abs,
            args,
        };
        let arg = || expr(LakeType::Int4, call.clone());
        for array in [Array::Null, Array::Empty] {
            for negated in [true, false] {
                let (_, kind) = filled(arg(), negated, Some(array.clone()));
                assert!(expr(LakeType::Bool, kind).can_fail());
            }
        }
    }
}
