//! `jsonb`: in the engine, as in the files, the text that Postgres prints of it. And numbers that are read from texts.

use super::Lowered;
use super::calls::call_of;
use super::compare::comparison;
use super::consts::type_name;
use super::expr::Exprs;
use super::functions::Number;
use super::node::{Node, get, nodes, type_of};
use super::order::is_c;
use super::table::sql_type;
use pg_lake_plan::expr::{Expr, ExprKind, Function};
use pg_lake_plan::ir::CompareOp;
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;

impl Exprs<'_> {
    /// `#>` and `#>>`: step by step.
    pub(super) fn json_path(&mut self, value: Node, path: Node, as_text: bool) -> Lowered<Expr> {
        if get::<pg_sys::Const>(path).is_none() {
            return Err("a path that is not constant is not lowered".to_owned());
        }
        let steps = self.elements(path)?;
        let last = steps
            .len()
            .checked_sub(1)
            .ok_or("an empty path is not lowered")?;
        let mut value = self.lower(value)?;
        self.grow(steps.len())?;
        for (number, step) in steps.into_iter().enumerate() {
            if !matches!(step.kind, ExprKind::Const(Some(Value::Text(_)))) {
                return Err("a path with nulls is not lowered".to_owned());
            }
            let as_text = as_text && number == last;
            let ty = match as_text {
                true => sql_type(LakeType::Text, pg_sys::TEXTOID),
                false => jsonb(),
            };
            value = call_of(Function::JsonStep { as_text }, vec![value, step], ty);
        }
        Ok(value)
    }

    /// A text as a number.
    pub(super) fn read(&mut self, conversion: &pg_sys::CoerceViaIO) -> Lowered<Expr> {
        let to = conversion.resulttype;
        let number = match to {
            pg_sys::INT2OID => Number::Int2,
            pg_sys::INT4OID => Number::Int4,
            pg_sys::INT8OID => Number::Int8,
            pg_sys::FLOAT4OID => Number::Float4,
            pg_sys::FLOAT8OID => Number::Float8,
            _ => {
                let name = type_name(to);
                return Err(format!("a text as {name} is not lowered"));
            }
        };
        let arg = self.lower(conversion.arg.cast())?;
        Ok(call_of(Function::Read, vec![arg], number.ty()))
    }

    /// A text or a `jsonb` as a numeric of this precision and scale; `None` if it is something else.
    pub(super) fn read_numeric(&mut self, node: Node, ty: &SqlType) -> Option<Lowered<Expr>> {
        let (function, arg) = if let Some(conversion) = get::<pg_sys::CoerceViaIO>(node) {
            let arg: Node = conversion.arg.cast();
            if !is_text(type_of(arg).0) {
                return None;
            }
            (Function::Read, arg)
        } else {
            let call = get::<pg_sys::FuncExpr>(node)?;
            if call.funcid.to_u32() != pg_sys::F_NUMERIC_JSONB {
                return None;
            }
            (Function::JsonScalar, nodes(call.args).first().copied()?)
        };
        let read = self.lower(arg);
        Some(read.map(|arg| call_of(function, vec![arg], ty.clone())))
    }
}

/// Compares `jsonb`.
pub fn compare_json(op: CompareOp, left: Expr, right: Expr) -> Lowered<Expr> {
    if !matches!(op, CompareOp::Eq | CompareOp::Ne) {
        check_json_order()?;
    }
    Ok(comparison(op, json_order(left), json_order(right)))
}

/// Strings in `jsonb` are compared under the database's collation, which is deterministic.
pub fn check_json_order() -> Lowered<()> {
    match is_c(pg_sys::DEFAULT_COLLATION_OID) {
        true => Ok(()),
        false => Err("jsonb is ordered by the engine in databases of collation C only".to_owned()),
    }
}

/// What a `jsonb` is compared by.
pub fn json_order(value: Expr) -> Expr {
    let ty = sql_type(LakeType::Text, pg_sys::TEXTOID);
    call_of(Function::JsonOrder, vec![value], ty)
}

pub fn is_jsonb(ty: &SqlType) -> bool {
    ty.oid == pg_sys::JSONBOID.to_u32()
}

pub fn is_text(typid: pg_sys::Oid) -> bool {
    matches!(typid, pg_sys::TEXTOID | pg_sys::VARCHAROID)
}

pub fn jsonb() -> SqlType {
    sql_type(LakeType::Text, pg_sys::JSONBOID)
}
