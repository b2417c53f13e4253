//! Typed expressions of a fragment.

pub use crate::function::{Field, Function, Interval, Side};
use crate::types::{LakeType, SqlType, Value};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expr {
    pub ty: SqlType,
    pub kind: ExprKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ExprKind {
    Column(u32),
    /// `None` is a typed null.
    Const(Option<Value>),
    /// Index into [`crate::message::Execute::params`].
    Param(u32),
    /// Both sides have the same [`LakeType`], decimals of any precision and scale.
    /// Text is compared by bytes: only for equality, or where the collation is C.
    Compare {
        op: CompareOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// Both sides have the same [`LakeType`], which is that of the result; decimals: any.
    Arithmetic {
        op: ArithmeticOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Negate(Box<Expr>),
    /// Evaluated left to right; a later argument is evaluated only for rows where it can matter,
    /// if it can raise an error.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    IsNotNull(Box<Expr>),
    /// `IS [NOT] {TRUE | FALSE}`: never null.
    BoolTest {
        arg: Box<Expr>,
        value: bool,
        negated: bool,
    },
    /// `arg = ANY (values)`, with SQL's treatment of nulls.
    InList {
        arg: Box<Expr>,
        values: Vec<Option<Value>>,
        negated: bool,
    },
    /// `arg LIKE pattern`: `%`, `_` and `\` as escape; bytewise equality of other characters.
    Like {
        arg: Box<Expr>,
        pattern: String,
        negated: bool,
    },
    /// `CASE WHEN … THEN … ELSE … END`; each branch is evaluated only for its rows.
    Case {
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    /// The first of the largest (or smallest) arguments that aren't null. All have the result's type.
    Extreme {
        greatest: bool,
        args: Vec<Expr>,
    },
    /// Widening conversions that can't fail, except to a decimal whose precision overflows, and of a date that
    /// no timestamp can be.
    Cast(Box<Expr>),
    /// A null argument makes the result null.
    Call {
        function: Function,
        args: Vec<Expr>,
    },
    /// `arg = ANY (param)` of an array, which is known when the plan starts: by then it is an
    /// [`ExprKind::InList`] ([`crate::ir::Plan::fill`]). The engine doesn't take it.
    InParam {
        arg: Box<Expr>,
        param: u32,
        negated: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ArithmeticOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Expr {
    /// The direct sub-expressions.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Column(_) | ExprKind::Const(_) | ExprKind::Param(_) => vec![],
            ExprKind::Compare { left, right, .. } | ExprKind::Arithmetic { left, right, .. } => {
                vec![left, right]
            }
            ExprKind::Negate(e)
            | ExprKind::Not(e)
            | ExprKind::IsNull(e)
            | ExprKind::IsNotNull(e)
            | ExprKind::Cast(e)
            | ExprKind::BoolTest { arg: e, .. }
            | ExprKind::InList { arg: e, .. }
            | ExprKind::InParam { arg: e, .. }
            | ExprKind::Like { arg: e, .. } => vec![e],
            ExprKind::And(list) | ExprKind::Or(list) => list.iter().collect(),
            ExprKind::Case {
                branches,
                otherwise,
            } => branches
                .iter()
                .flat_map(|(when, then)| [when, then])
                .chain(otherwise.as_deref())
                .collect(),
            ExprKind::Extreme { args, .. } | ExprKind::Call { args, .. } => args.iter().collect(),
        }
    }

    /// The direct sub-expressions, to be changed.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match &mut self.kind {
            ExprKind::Column(_) | ExprKind::Const(_) | ExprKind::Param(_) => vec![],
            ExprKind::Compare { left, right, .. } | ExprKind::Arithmetic { left, right, .. } => {
                vec![left.as_mut(), right.as_mut()]
            }
            ExprKind::Negate(e)
            | ExprKind::Not(e)
            | ExprKind::IsNull(e)
            | ExprKind::IsNotNull(e)
            | ExprKind::Cast(e)
            | ExprKind::BoolTest { arg: e, .. }
            | ExprKind::InList { arg: e, .. }
            | ExprKind::InParam { arg: e, .. }
            | ExprKind::Like { arg: e, .. } => vec![e.as_mut()],
            ExprKind::And(list) | ExprKind::Or(list) => list.iter_mut().collect(),
            ExprKind::Case {
                branches,
                otherwise,
            } => branches
                .iter_mut()
                .flat_map(|(when, then)| [when, then])
                .chain(otherwise.as_deref_mut())
                .collect(),
            ExprKind::Extreme { args, .. } | ExprKind::Call { args, .. } => {
                args.iter_mut().collect()
            }
        }
    }

    /// Nesting, 1 for a leaf.
    pub fn depth(&self) -> usize {
        1 + self
            .children()
            .into_iter()
            .map(Expr::depth)
            .max()
            .unwrap_or(0)
    }

    /// The conditions that a predicate of a scan or a join consists of: see [`Scan::predicate`](crate::ir::Scan::predicate).
    pub fn quals(&self) -> &[Expr] {
        match &self.kind {
            ExprKind::And(quals) => quals,
            _ => std::slice::from_ref(self),
        }
    }

    /// Whether evaluating it for some row could raise an error that Postgres would raise too, or
    /// leave the range in which the engine is exact.
    pub fn can_fail(&self) -> bool {
        self.raises() || self.children().into_iter().any(Expr::can_fail)
    }

    /// The same of this node alone, whatever its arguments do.
    pub fn raises(&self) -> bool {
        match &self.kind {
            ExprKind::Arithmetic { op, right, .. } => {
                !(*op == ArithmeticOp::Modulo && right.is_divisor())
            }
            ExprKind::Negate(_) => true,
            ExprKind::Cast(arg) => self.ty.lake.is_decimal() || arg.ty.lake == LakeType::Date,
            ExprKind::Call { function, args } => function.can_fail(args, &self.ty.lake),
            _ => false,
        }
    }

    /// Whether evaluating it for some row could raise an error that Postgres would raise too. Where the engine
    /// only isn't exact Postgres runs the query instead, so that rows which Postgres doesn't look at do no harm.
    pub fn can_raise(&self) -> bool {
        let own = match &self.kind {
            ExprKind::Arithmetic { op, right, .. } => {
                let rounds = matches!(op, ArithmeticOp::Divide | ArithmeticOp::Modulo);
                let divides = rounds && !right.is_divisor();
                divides || !(self.ty.lake.is_decimal() || rounds)
            }
            ExprKind::Negate(_) => !self.ty.lake.is_decimal(),
            ExprKind::Call { function, args } => function.can_fail(args, &self.ty.lake),
            _ => false,
        };
        own || self.children().into_iter().any(Expr::can_raise)
    }

    /// Whether it is an integer constant that every integer can be divided by.
    fn is_divisor(&self) -> bool {
        match &self.kind {
            ExprKind::Const(Some(Value::I32(n))) => !matches!(n, 0 | -1),
            ExprKind::Const(Some(Value::I64(n))) => !matches!(n, 0 | -1),
            _ => false,
        }
    }
}
