//! Functions that return sets, as a node of a plan: `unnest` and `generate_series`.

use crate::expr::{Expr, ExprKind};
use crate::ir::Plan;
use crate::types::{LakeType, SqlType, Value};
use serde::{Deserialize, Serialize};

/// Each row of the input as often as the largest of its sets has elements. Output: some of the input's columns, then an
/// element of each set, and null where that one has no more. Rows keep their order, as elements do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectSet {
    pub input: Box<Plan>,
    /// Numbers of the input's columns that come out.
    pub columns: Vec<u32>,
    /// At least one that isn't an ordinality.
    pub calls: Vec<SetCall>,
}

/// A set for each row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetCall {
    pub function: SetFunction,
    pub args: Vec<Expr>,
    /// Type of an element.
    pub ty: SqlType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SetFunction {
    /// `generate_series(start, stop [, step])` of `Int4` or `Int8`, as all arguments are. Empty if one is null.
    GenerateSeries,
    /// The elements of a list; none of null.
    Unnest,
    /// The arguments themselves, one or more: `unnest(ARRAY[…])`.
    Each,
    /// The number of the element, from 1: `WITH ORDINALITY`. An `Int8` without arguments. It goes on as long as another set
    /// does, of which there is at least one.
    Ordinality,
}

impl ProjectSet {
    /// Types of the output's columns.
    pub fn output(&self) -> Vec<LakeType> {
        let input = self.input.output();
        let kept = self.columns.iter();
        let kept = kept.filter_map(|at| input.get(*at as usize).cloned());
        let elements = self.calls.iter().map(|call| call.ty.lake.clone());
        kept.chain(elements).collect()
    }

    /// What is evaluated for each row of the input.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.calls.iter().flat_map(|call| &call.args)
    }

    /// Whether a call could raise an error, whatever its arguments do.
    pub fn raises(&self) -> bool {
        self.calls.iter().any(SetCall::raises)
    }
}

impl SetCall {
    /// A step may be zero, if it isn't known.
    fn raises(&self) -> bool {
        let known = |step: &Expr| match &step.kind {
            ExprKind::Const(Some(Value::I32(step))) => *step != 0,
            ExprKind::Const(Some(Value::I64(step))) => *step != 0,
            ExprKind::Const(None) => true,
            _ => false,
        };
        match self.function {
            SetFunction::GenerateSeries => self.args.get(2).is_some_and(|step| !known(step)),
            SetFunction::Unnest | SetFunction::Each | SetFunction::Ordinality => false,
        }
    }
}

impl SetFunction {
    /// For messages and EXPLAIN.
    pub fn name(self) -> &'static str {
        match self {
            SetFunction::GenerateSeries => "generate_series",
            SetFunction::Unnest | SetFunction::Each => "unnest",
            SetFunction::Ordinality => "ordinality",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: Option<i32>) -> Expr {
        Expr {
            ty: SqlType {
                lake: LakeType::Int4,
                oid: 23,
                typmod: -1,
                collation: 0,
            },
            kind: ExprKind::Const(value.map(Value::I32)),
        }
    }

    fn series(args: Vec<Expr>) -> ProjectSet {
        let call = SetCall {
            function: SetFunction::GenerateSeries,
            ty: int(None).ty,
            args,
        };
        ProjectSet {
            input: Box::new(Plan::OneRow),
            columns: vec![],
            calls: vec![call],
        }
    }

    #[test]
    fn only_a_step_that_may_be_zero_raises() {
        let ends = || vec![int(Some(1)), int(Some(2))];
        let with = |step: Expr| series([ends(), vec![step]].concat());
        assert!(!series(ends()).raises());
        assert!(!with(int(Some(-1))).raises());
        assert!(!with(int(None)).raises());
        assert!(with(int(Some(0))).raises());
        let mut param = int(None);
        param.kind = ExprKind::Param(0);
        assert!(with(param).raises());
    }

    #[test]
    fn elements_come_after_the_columns() {
        let mut set = series(vec![int(Some(1)), int(Some(2))]);
        *set.input = Plan::Project {
            input: Box::new(Plan::OneRow),
            exprs: vec![int(Some(7))],
        };
        assert_eq!(set.output(), [LakeType::Int4]);
        set.columns = vec![0];
        assert_eq!(set.output(), [LakeType::Int4, LakeType::Int4]);
    }
}
