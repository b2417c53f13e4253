//! Expressions: leaves, calls and arithmetic. `control` has the boolean and conditional ones,
//! `compare` the comparisons.
//!
//! An expression comes over the base relation's own Vars. What isn't known to give exactly
//! Postgres' result is refused with a reason; nothing is approximated.

use super::Lowered;
use super::compare::{compare, compare_padded};
use super::consts::{self, adapt, constant, decimal, type_name};
use super::functions::{self, Call, Number};
use super::node::{self, Node, get, nodes};
use super::order::is_deterministic;
use super::private::{ParamKind, ParamUse};
use super::table::{Table, sql_type};
use crate::types::expression_type;
use pg_lake_plan::ir::{ArithmeticOp, Expr, ExprKind, MAX_DEPTH};
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;

/// Nesting that is left to the plan around an expression.
const PLAN_DEPTH: usize = 20;
/// Nodes of one expression: COALESCE and simple CASE repeat their argument.
const MAX_NODES: usize = 20_000;
const TOO_DEEP: &str = "an expression is nested too deeply";
const TOO_LARGE: &str = "an expression is too large";

/// Lowers expressions over one relation.
pub struct Exprs<'a> {
    pub table: &'a mut Table,
    pub params: &'a mut Vec<ParamUse>,
    /// The arguments of the simple CASEs around the current node.
    pub(super) case_values: Vec<Expr>,
    depth: usize,
    size: usize,
}

impl<'a> Exprs<'a> {
    pub fn new(table: &'a mut Table, params: &'a mut Vec<ParamUse>) -> Self {
        Exprs {
            table,
            params,
            case_values: vec![],
            depth: 0,
            size: 0,
        }
    }

    /// Lowers a whole expression.
    pub fn expression(&mut self, node: Node) -> Lowered<Expr> {
        self.whole(node, Self::lower)
    }

    /// Lowers a whole expression of which only the nullness matters: columns of any type will do.
    pub fn nullness(&mut self, node: Node) -> Lowered<Expr> {
        self.whole(node, Self::any)
    }

    fn whole(
        &mut self,
        node: Node,
        lower: impl FnOnce(&mut Self, Node) -> Lowered<Expr>,
    ) -> Lowered<Expr> {
        self.size = 0;
        let params = self.params.len();
        let lowered = lower(self, node).and_then(|expr| {
            if expr.depth() + PLAN_DEPTH > MAX_DEPTH {
                return Err(TOO_DEEP.to_owned());
            }
            Ok(expr)
        });
        if lowered.is_err() {
            self.params.truncate(params);
        }
        lowered
    }

    pub(super) fn lower(&mut self, node: Node) -> Lowered<Expr> {
        // SAFETY: raises an error if the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        self.grow(1)?;
        if self.depth + PLAN_DEPTH > MAX_DEPTH {
            return Err(TOO_DEEP.to_owned());
        }
        self.depth += 1;
        let lowered = self.dispatch(node);
        self.depth -= 1;
        lowered
    }

    /// Like `lower`, for an argument whose value isn't looked at.
    pub(super) fn any(&mut self, node: Node) -> Lowered<Expr> {
        match get::<pg_sys::Var>(node) {
            Some(var) => self.column(var),
            None => self.lower(node),
        }
    }

    /// Accounts for `nodes` more nodes of the result.
    pub(super) fn grow(&mut self, nodes: usize) -> Lowered<()> {
        self.size += nodes;
        if self.size > MAX_NODES {
            return Err(TOO_LARGE.to_owned());
        }
        Ok(())
    }

    fn dispatch(&mut self, node: Node) -> Lowered<Expr> {
        if let Some(var) = get::<pg_sys::Var>(node) {
            return self.var(var);
        }
        if let Some(value) = get::<pg_sys::Const>(node) {
            return constant(value);
        }
        if let Some(param) = get::<pg_sys::Param>(node) {
            return self.param(param);
        }
        if let Some(op) = get::<pg_sys::OpExpr>(node) {
            return self.call(
                operator_function(op.opfuncid, op.opno),
                op.args,
                op.inputcollid,
            );
        }
        if let Some(call) = get::<pg_sys::FuncExpr>(node) {
            return self.call(call.funcid, call.args, call.inputcollid);
        }
        if let Some(relabel) = get::<pg_sys::RelabelType>(node) {
            return self.relabel(relabel);
        }
        self.control(node)
    }

    fn column(&mut self, var: &pg_sys::Var) -> Lowered<Expr> {
        if var.varno != self.table.rtindex as i32 || var.varlevelsup != 0 {
            return Err("a column of another relation".to_owned());
        }
        if var.varattno <= 0 {
            return Err("system columns and whole rows are not lowered".to_owned());
        }
        self.table.expr(var.varattno)
    }

    fn var(&mut self, var: &pg_sys::Var) -> Lowered<Expr> {
        // SAFETY: a type of the plan.
        let expected = unsafe { expression_type(var.vartype, var.vartypmod) };
        if expected.is_none() {
            return Err(format!("type {} is not lowered", type_name(var.vartype)));
        }
        let expr = self.column(var)?;
        if Some(&expr.ty.lake) != expected.as_ref() {
            return Err(format!(
                "type {} is not stored as the engine computes with it",
                type_name(var.vartype)
            ));
        }
        Ok(expr)
    }

    fn param(&mut self, param: &pg_sys::Param) -> Lowered<Expr> {
        let kind = match param.paramkind {
            pg_sys::ParamKind::PARAM_EXTERN => ParamKind::Extern,
            pg_sys::ParamKind::PARAM_EXEC => ParamKind::Exec,
            _ => return Err("this kind of parameter is not lowered".to_owned()),
        };
        let refused = matches!(param.paramtype, pg_sys::NUMERICOID | pg_sys::BPCHAROID);
        // SAFETY: a type of the plan.
        let lake = unsafe { expression_type(param.paramtype, param.paramtypmod) }
            .filter(|_| !refused)
            .ok_or_else(|| {
                format!(
                    "parameters of type {} are not lowered",
                    type_name(param.paramtype)
                )
            })?;
        let used = ParamUse {
            kind,
            id: param.paramid,
            typid: param.paramtype.to_u32(),
            lake: lake.clone(),
        };
        let at = match self.params.iter().position(|p| *p == used) {
            Some(at) => at,
            None => {
                self.params.push(used);
                self.params.len() - 1
            }
        };
        Ok(Expr {
            ty: SqlType {
                lake,
                oid: param.paramtype.to_u32(),
                typmod: param.paramtypmod,
                collation: param.paramcollid.to_u32(),
            },
            kind: ExprKind::Param(at as u32),
        })
    }

    /// Binary-compatible types. Only those whose operators then mean the same.
    fn relabel(&mut self, relabel: &pg_sys::RelabelType) -> Lowered<Expr> {
        let (from, typmod, _) = node::type_of(relabel.arg.cast());
        let is_text = |typid| matches!(typid, pg_sys::TEXTOID | pg_sys::VARCHAROID);
        let same = from == relabel.resulttype && typmod == relabel.resulttypmod;
        let both_text = is_text(from) && is_text(relabel.resulttype);
        if !(same || both_text) {
            return Err(format!(
                "{} as {} is not lowered",
                type_name(from),
                type_name(relabel.resulttype)
            ));
        }
        let mut expr = self.lower(relabel.arg.cast())?;
        expr.ty.oid = relabel.resulttype.to_u32();
        expr.ty.typmod = relabel.resulttypmod;
        expr.ty.collation = relabel.resultcollid.to_u32();
        Ok(expr)
    }

    fn call(
        &mut self,
        function: pg_sys::Oid,
        args: *mut pg_sys::List,
        collation: pg_sys::Oid,
    ) -> Lowered<Expr> {
        let unknown = || format!("function {} is not lowered", functions::name(function));
        let call = functions::known(function).ok_or_else(unknown)?;
        let args = nodes(args);
        match (call, args.as_slice()) {
            (Call::Compare(op), [left, right]) => {
                let (left, right) = (self.lower(*left)?, self.lower(*right)?);
                compare(op, left, right, collation)
            }
            (Call::ComparePadded(op), [left, right]) => {
                let (left, right) = (self.lower(*left)?, self.lower(*right)?);
                compare_padded(op, left, right, collation)
            }
            (Call::Arithmetic(op, number), [left, right]) => {
                let (left, right) = (self.lower(*left)?, self.lower(*right)?);
                arithmetic(op, number, left, right)
            }
            (Call::Negate(number), [arg]) => {
                let arg = self.lower(*arg)?;
                let ty = match number {
                    Number::Decimal => decimal(scale(&arg)?),
                    _ => number.ty(),
                };
                Ok(Expr {
                    ty,
                    kind: ExprKind::Negate(Box::new(arg)),
                })
            }
            (Call::Cast(number), [arg]) => Ok(cast(self.lower(*arg)?, &number.ty())),
            (Call::Like { negated }, [arg, pattern]) => {
                self.like(*arg, *pattern, collation, negated)
            }
            _ => Err(unknown()),
        }
    }

    fn like(
        &mut self,
        arg: Node,
        pattern: Node,
        collation: pg_sys::Oid,
        negated: bool,
    ) -> Lowered<Expr> {
        if !is_deterministic(collation) {
            return Err("LIKE under a nondeterministic collation is not lowered".to_owned());
        }
        let pattern = self.lower(pattern)?;
        let ExprKind::Const(Some(Value::Text(pattern))) = pattern.kind else {
            return Err("LIKE is lowered for constant patterns only".to_owned());
        };
        // Postgres raises an error, but only for rows where it gets there.
        if pattern.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1 {
            return Err("a LIKE pattern ends with an escape character".to_owned());
        }
        let arg = Box::new(self.lower(arg)?);
        Ok(boolean(ExprKind::Like {
            arg,
            pattern,
            negated,
        }))
    }
}

/// The function behind an operator.
pub fn operator_function(function: pg_sys::Oid, operator: pg_sys::Oid) -> pg_sys::Oid {
    if function != pg_sys::InvalidOid {
        return function;
    }
    // SAFETY: looks the operator up.
    unsafe { pg_sys::get_opcode(operator) }
}

/// A boolean expression.
pub fn boolean(kind: ExprKind) -> Expr {
    Expr {
        ty: sql_type(LakeType::Bool, pg_sys::BOOLOID),
        kind,
    }
}

/// A widening conversion; of a constant, its value.
pub fn cast(expr: Expr, to: &SqlType) -> Expr {
    if expr.ty.lake == to.lake {
        return expr;
    }
    if let Some(converted) = adapt(&expr, to) {
        return converted;
    }
    Expr {
        ty: to.clone(),
        kind: ExprKind::Cast(Box::new(expr)),
    }
}

/// Scale of a decimal expression: Postgres' display scale of every value of it.
pub fn scale(expr: &Expr) -> Lowered<i8> {
    match expr.ty.lake {
        LakeType::Decimal { scale, .. } => Ok(scale),
        _ => Err("a numeric of unknown scale is not lowered".to_owned()),
    }
}

fn arithmetic(op: ArithmeticOp, number: Number, left: Expr, right: Expr) -> Lowered<Expr> {
    let (left, right, ty) = if number == Number::Decimal {
        let (l, r) = (scale(&left)?, scale(&right)?);
        let scale = match op {
            ArithmeticOp::Add | ArithmeticOp::Subtract => l.max(r),
            ArithmeticOp::Multiply => l + r,
            ArithmeticOp::Divide | ArithmeticOp::Modulo => {
                return Err("division of numerics is not lowered".to_owned());
            }
        };
        if scale > consts::MAX_PRECISION as i8 {
            return Err("a numeric expression has more than 38 digits after the point".to_owned());
        }
        (left, right, decimal(scale))
    } else {
        let ty = number.ty();
        (cast(left, &ty), cast(right, &ty), ty)
    };
    Ok(Expr {
        ty,
        kind: ExprKind::Arithmetic {
            op,
            left: Box::new(left),
            right: Box::new(right),
        },
    })
}
