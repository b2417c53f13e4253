//! Values in print, and `concat` and `concat_ws` of texts, which leave nulls out.

use super::Lowered;
use super::calls::call_of;
use super::consts::type_name;
use super::control::count;
use super::expr::{Exprs, boolean};
use super::functions::Number;
use super::json::is_text;
use super::node::{Node, get, string, type_of};
use super::order::is_printed;
use super::table::sql_type;
use pg_lake_plan::expr::{Expr, ExprKind, Function};
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;
use std::ffi::c_char;

impl Exprs<'_> {
    pub(super) fn concat(&mut self, args: &[Node], collation: pg_sys::Oid) -> Lowered<Expr> {
        let mut parts = vec![];
        for arg in args {
            let part = self.text(*arg)?;
            self.grow(count(&part))?;
            parts.push(or_empty(part.clone(), part));
        }
        Ok(joined(parts, collation))
    }

    /// Each text with the separator before it; then the first separator is cut off.
    pub(super) fn concat_ws(&mut self, args: &[Node], collation: pg_sys::Oid) -> Lowered<Expr> {
        let Some((separator, args)) = args.split_first() else {
            return Err("concat_ws of nothing is not lowered".to_owned());
        };
        let separator = self.text(*separator)?;
        let ExprKind::Const(Some(Value::Text(text))) = &separator.kind else {
            return Err("concat_ws is lowered with a constant separator only".to_owned());
        };
        let characters = i32::try_from(text.chars().count())
            .map_err(|_| "a separator is too long".to_owned())?;
        let mut parts = vec![];
        for arg in args {
            let part = self.text(*arg)?;
            self.grow(count(&part) + 1)?;
            let both = vec![separator.clone(), part.clone()];
            parts.push(or_empty(part, call_of(Function::Concat, both, text_type())));
        }
        let from = Expr {
            ty: Number::Int4.ty(),
            kind: ExprKind::Const(Some(Value::I32(characters.saturating_add(1)))),
        };
        let args = vec![joined(parts, collation), from];
        Ok(call_of(Function::Substring, args, typed(collation)))
    }

    /// A value as the output function of its type prints it, or as the input function of another one reads it.
    pub(super) fn printed(&mut self, conversion: &pg_sys::CoerceViaIO) -> Lowered<Expr> {
        let (from, to) = (type_of(conversion.arg.cast()).0, conversion.resulttype);
        let is_printed = matches!(
            from,
            pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID | pg_sys::UUIDOID
        );
        if is_text(from) {
            return self.read(conversion);
        }
        if from == pg_sys::JSONBOID && is_text(to) {
            // The engine has it in print.
            return Ok(Expr {
                ty: SqlType {
                    oid: to.to_u32(),
                    ..typed(conversion.resultcollid)
                },
                kind: self.lower(conversion.arg.cast())?.kind,
            });
        }
        if !is_printed || !is_text(to) {
            let (from, to) = (type_name(from), type_name(to));
            return Err(format!("{from} as {to} is not lowered"));
        }
        let arg = self.lower(conversion.arg.cast())?;
        let ty = SqlType {
            oid: to.to_u32(),
            ..typed(conversion.resultcollid)
        };
        Ok(call_of(Function::Print, vec![arg], ty))
    }

    /// An argument of a function that takes any type: a text, or a literal that has none.
    fn text(&mut self, arg: Node) -> Lowered<Expr> {
        if let Some(literal) = get::<pg_sys::Const>(arg)
            && literal.consttype == pg_sys::UNKNOWNOID
        {
            let value = (!literal.constisnull)
                .then(|| Value::Text(string(literal.constvalue.cast_mut_ptr::<c_char>())));
            return Ok(Expr {
                ty: text_type(),
                kind: ExprKind::Const(value),
            });
        }
        let arg = self.lower(arg)?;
        if arg.ty.lake != LakeType::Text || is_printed(&arg.ty) {
            return Err("concat is lowered of texts only".to_owned());
        }
        Ok(arg)
    }
}

fn text_type() -> SqlType {
    sql_type(LakeType::Text, pg_sys::TEXTOID)
}

fn typed(collation: pg_sys::Oid) -> SqlType {
    SqlType {
        collation: collation.to_u32(),
        ..text_type()
    }
}

fn empty() -> Expr {
    Expr {
        ty: text_type(),
        kind: ExprKind::Const(Some(Value::Text(String::new()))),
    }
}

/// The text, or an empty one where the value is null.
fn or_empty(value: Expr, text: Expr) -> Expr {
    match value.kind {
        ExprKind::Const(None) => empty(),
        ExprKind::Const(Some(_)) => text,
        _ => {
            let given = boolean(ExprKind::IsNotNull(Box::new(value)));
            Expr {
                ty: text_type(),
                kind: ExprKind::Case {
                    branches: vec![(given, text)],
                    otherwise: Some(Box::new(empty())),
                },
            }
        }
    }
}

fn joined(parts: Vec<Expr>, collation: pg_sys::Oid) -> Expr {
    let join = |left, right| call_of(Function::Concat, vec![left, right], text_type());
    let whole = parts.into_iter().reduce(join).unwrap_or_else(empty);
    Expr {
        ty: typed(collation),
        kind: whole.kind,
    }
}
