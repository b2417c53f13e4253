//! Expressions: leaves, and where the others are lowered: `calls` has functions and operators, `control` the boolean
//! and conditional ones, `arrays` those over arrays, `zones` what depends on the time and the time zone.
//!
//! An expression comes over the base relation's own Vars, or over the columns of a subtree. What isn't known to give exactly
//! Postgres' result is refused with a reason; nothing is approximated.

use super::Lowered;
use super::consts::{self, adapt, constant, type_name};
use super::initplans::Params;
use super::node::{self, Node, get};
use super::numeric::Numerics;
use super::private::{ParamKind, ParamUse};
use super::roots::root_call;
use super::sub::{Column, column_expr};
use super::table::{Table, sql_type};
use crate::types::expression_type;
use pg_lake_plan::ir::{Expr, ExprKind, MAX_DEPTH};
use pg_lake_plan::types::{LakeType, SqlType};
use pgrx::pg_sys;

/// Nesting that is left to the plan around an expression.
const PLAN_DEPTH: usize = 20;
/// Nodes of one expression: COALESCE and simple CASE repeat their argument.
const MAX_NODES: usize = 20_000;
const TOO_DEEP: &str = "an expression is nested too deeply";
const TOO_LARGE: &str = "an expression is too large";
const LATE: &str = "the result of a subquery that could raise an error is left to Postgres";

/// What the Vars of an expression refer to.
pub enum Scope<'a> {
    /// A scanned table, whose scan gets the columns that are asked for.
    Table(&'a mut Table),
    /// Vars of `INDEX_VAR`: a subtree's columns.
    Columns(&'a [Column]),
}

/// Lowers expressions over one input.
pub struct Exprs<'a> {
    scope: Scope<'a>,
    pub params: &'a mut Params,
    /// The arguments of the simple CASEs around the current node.
    pub(super) case_values: Vec<Expr>,
    depth: usize,
    size: usize,
}

impl<'a> Exprs<'a> {
    pub fn new(table: &'a mut Table, params: &'a mut Params) -> Self {
        Exprs::over(Scope::Table(table), params)
    }

    /// Over the columns of a subtree.
    pub fn of(columns: &'a [Column], params: &'a mut Params) -> Self {
        Exprs::over(Scope::Columns(columns), params)
    }

    fn over(scope: Scope<'a>, params: &'a mut Params) -> Self {
        Exprs {
            scope,
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

    /// Lowers a whole expression of which only the value matters, not with how many digits a numeric is shown.
    pub fn value(&mut self, node: Node) -> Lowered<Expr> {
        self.whole(node, |exprs, node| {
            exprs.lower_as(node, Numerics::VALUE.early())
        })
    }

    /// The same, if its type isn't looked at before the query runs.
    pub fn compared(&mut self, node: Node) -> Lowered<Expr> {
        self.whole(node, |exprs, node| exprs.lower_as(node, Numerics::VALUE))
    }

    /// Lowers a whole expression of which only the nullness matters: columns of any type will do.
    pub fn nullness(&mut self, node: Node) -> Lowered<Expr> {
        self.whole(node, Self::any)
    }

    /// Lowers a whole expression of type `numeric`, and the scale of its values, where rows differ in that.
    pub fn scaled(&mut self, node: Node) -> Lowered<(Expr, Option<Expr>)> {
        let refused = match self.expression(node) {
            Ok(expr) => return Ok((expr, None)),
            Err(reason) => reason,
        };
        let mut scale = None;
        let value = self.whole(node, |exprs, node| {
            let (value, own) = match root_call(node) {
                Some((call, args)) => exprs.root(call, &args)?,
                None => exprs.scaled_case(node).map_err(|_| refused)?,
            };
            scale = Some(own);
            Ok(value)
        })?;
        Ok((value, scale))
    }

    fn whole(
        &mut self,
        node: Node,
        lower: impl FnOnce(&mut Self, Node) -> Lowered<Expr>,
    ) -> Lowered<Expr> {
        self.size = 0;
        let params = self.params.uses.len();
        let lowered = lower(self, node).and_then(|expr| {
            if expr.depth() + PLAN_DEPTH > MAX_DEPTH {
                return Err(TOO_DEEP.to_owned());
            }
            Ok(expr)
        });
        if lowered.is_err() {
            self.params.uses.truncate(params);
        }
        lowered
    }

    /// Lowers an expression whose value is shown.
    pub(super) fn lower(&mut self, node: Node) -> Lowered<Expr> {
        self.lower_as(node, Numerics::SHOWN)
    }

    pub(super) fn lower_as(&mut self, node: Node, numerics: Numerics) -> Lowered<Expr> {
        // SAFETY: raises an error if the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        self.grow(1)?;
        if self.depth + PLAN_DEPTH > MAX_DEPTH {
            return Err(TOO_DEEP.to_owned());
        }
        self.depth += 1;
        let lowered = self.dispatch(node, numerics);
        self.depth -= 1;
        lowered
    }

    /// Like `lower`, for an argument whose value isn't looked at.
    pub(super) fn any(&mut self, node: Node) -> Lowered<Expr> {
        match get::<pg_sys::Var>(node) {
            Some(var) => self.column(var),
            None => self.lower_as(node, Numerics::VALUE),
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

    fn dispatch(&mut self, node: Node, numerics: Numerics) -> Lowered<Expr> {
        if let Some(var) = get::<pg_sys::Var>(node) {
            return self.var(var);
        }
        if let Some(value) = get::<pg_sys::Const>(node) {
            return constant(value);
        }
        if let Some(param) = get::<pg_sys::Param>(node) {
            return self.param(param, numerics);
        }
        if let Some(time) = self.given_time(node) {
            return Ok(time);
        }
        if let Some(op) = get::<pg_sys::OpExpr>(node) {
            return self.call(
                operator_function(op.opfuncid, op.opno),
                op.args,
                op.inputcollid,
                numerics,
            );
        }
        if let Some(call) = get::<pg_sys::FuncExpr>(node) {
            return self.call(call.funcid, call.args, call.inputcollid, numerics);
        }
        if let Some(relabel) = get::<pg_sys::RelabelType>(node) {
            return self.relabel(relabel, numerics);
        }
        self.control(node, numerics)
    }

    fn column(&mut self, var: &pg_sys::Var) -> Lowered<Expr> {
        let elsewhere = || Err("a column of another relation".to_owned());
        if var.varlevelsup != 0 {
            return elsewhere();
        }
        match &mut self.scope {
            Scope::Table(table) => {
                if var.varno != table.rtindex as i32 {
                    return elsewhere();
                }
                if var.varattno <= 0 {
                    return Err("system columns and whole rows are not lowered".to_owned());
                }
                table.expr(var.varattno)
            }
            Scope::Columns(columns) => {
                let at = usize::try_from(var.varattno).unwrap_or(0);
                match columns.get(at.wrapping_sub(1)) {
                    Some(column) if var.varno == pg_sys::INDEX_VAR => {
                        Ok(column_expr(at - 1, &column.ty))
                    }
                    _ => elsewhere(),
                }
            }
        }
    }

    fn var(&mut self, var: &pg_sys::Var) -> Lowered<Expr> {
        let expr = self.column(var)?;
        // What is computed has a scale, though Postgres' type doesn't say which.
        let computed = matches!(self.scope, Scope::Columns(_))
            && var.vartype == pg_sys::NUMERICOID
            && expr.ty.lake.is_decimal();
        // SAFETY: a type of the plan.
        let expected = unsafe { expression_type(var.vartype, var.vartypmod) };
        if computed || expected.as_ref() == Some(&expr.ty.lake) {
            return Ok(expr);
        }
        let name = type_name(var.vartype);
        Err(match expected {
            None => format!("type {name} is not lowered"),
            Some(_) => format!("type {name} is not stored as the engine computes with it"),
        })
    }

    /// A parameter. With what scale a numeric is shown is known when its value is: until then it has none here.
    fn param(&mut self, param: &pg_sys::Param, numerics: Numerics) -> Lowered<Expr> {
        let kind = self.param_kind(param)?;
        let lake = match param.paramtype {
            pg_sys::NUMERICOID if !numerics.late => {
                return Err("a numeric parameter is lowered only where it is compared".to_owned());
            }
            pg_sys::NUMERICOID => consts::decimal(0).lake,
            // SAFETY: a type of the plan.
            typid => unsafe { expression_type(typid, param.paramtypmod) }.ok_or_else(|| {
                format!("parameters of type {} are not lowered", type_name(typid))
            })?,
        };
        let used = ParamUse {
            kind,
            id: param.paramid,
            typid: param.paramtype.to_u32(),
            lake: lake.clone(),
            whole: false,
        };
        let number = self.param_number(used);
        Ok(Expr {
            ty: SqlType {
                lake,
                oid: param.paramtype.to_u32(),
                typmod: param.paramtypmod,
                collation: param.paramcollid.to_u32(),
            },
            kind: ExprKind::Param(number),
        })
    }

    /// Where a parameter of the plan comes from.
    pub(super) fn param_kind(&self, param: &pg_sys::Param) -> Lowered<ParamKind> {
        match param.paramkind {
            pg_sys::ParamKind::PARAM_EXTERN => Ok(ParamKind::Extern),
            _ if self.params.is_late(param) => Err(LATE.to_owned()),
            pg_sys::ParamKind::PARAM_EXEC => Ok(ParamKind::Exec),
            _ => Err("this kind of parameter is not lowered".to_owned()),
        }
    }

    /// The fragment's number of a parameter.
    pub(super) fn param_number(&mut self, used: ParamUse) -> u32 {
        let at = match self.params.uses.iter().position(|p| *p == used) {
            Some(at) => at,
            None => {
                self.params.uses.push(used);
                self.params.uses.len() - 1
            }
        };
        at as u32
    }

    /// Binary-compatible types. Only those whose operators then mean the same.
    fn relabel(&mut self, relabel: &pg_sys::RelabelType, numerics: Numerics) -> Lowered<Expr> {
        let (from, typmod, _) = node::type_of(relabel.arg.cast());
        let is_text = |typid| matches!(typid, pg_sys::TEXTOID | pg_sys::VARCHAROID);
        // A type modifier that is only dropped, or loosened, changes no value.
        let loosened = from != pg_sys::BPCHAROID || relabel.resulttypmod == -1;
        let same = from == relabel.resulttype && (typmod == relabel.resulttypmod || loosened);
        let both_text = is_text(from) && is_text(relabel.resulttype);
        // Without a length it is compared as if it had no trailing blanks.
        let unpadded =
            is_text(from) && relabel.resulttype == pg_sys::BPCHAROID && relabel.resulttypmod == -1;
        if !(same || both_text || unpadded) {
            return Err(format!(
                "{} as {} is not lowered",
                type_name(from),
                type_name(relabel.resulttype)
            ));
        }
        let mut expr = self.lower_as(relabel.arg.cast(), numerics)?;
        expr.ty.oid = relabel.resulttype.to_u32();
        expr.ty.typmod = relabel.resulttypmod;
        expr.ty.collation = relabel.resultcollid.to_u32();
        Ok(expr)
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
