//! Expressions as text, for EXPLAIN.

use arrow::datatypes::Schema;
use pg_lake_plan::ir::{ArithmeticOp, CompareOp, Expr, ExprKind};
use pg_lake_plan::types::Value;

/// Longer texts are cut.
const MAX_CHARS: usize = 240;

/// An expression over columns of `schema`.
pub(super) fn describe(expr: &Expr, schema: &Schema) -> String {
    let mut out = String::new();
    write(expr, schema, &mut out);
    if out.len() > MAX_CHARS {
        let cut = (0..=MAX_CHARS)
            .rev()
            .find(|&i| out.is_char_boundary(i))
            .unwrap_or(0);
        out.truncate(cut);
        out.push('…');
    }
    out
}

fn write(expr: &Expr, schema: &Schema, out: &mut String) {
    if out.len() > MAX_CHARS {
        return;
    }
    let infix = |list: &[&Expr], op: &str, out: &mut String| {
        out.push('(');
        for (i, e) in list.iter().enumerate() {
            if out.len() > MAX_CHARS {
                break;
            }
            if i > 0 {
                out.push_str(op);
            }
            write(e, schema, out);
        }
        out.push(')');
    };
    match &expr.kind {
        ExprKind::Column(i) => match schema.fields().get(*i as usize) {
            Some(field) => out.push_str(field.name()),
            None => out.push('?'),
        },
        ExprKind::Const(value) => constant(value, out),
        ExprKind::Param(i) => out.push_str(&format!("${}", i + 1)),
        ExprKind::Compare { op, left, right } => {
            let op = match op {
                CompareOp::Eq => " = ",
                CompareOp::Ne => " <> ",
                CompareOp::Lt => " < ",
                CompareOp::Le => " <= ",
                CompareOp::Gt => " > ",
                CompareOp::Ge => " >= ",
            };
            infix(&[left.as_ref(), right.as_ref()], op, out);
        }
        ExprKind::Arithmetic { op, left, right } => {
            let op = match op {
                ArithmeticOp::Add => " + ",
                ArithmeticOp::Subtract => " - ",
                ArithmeticOp::Multiply => " * ",
                ArithmeticOp::Divide => " / ",
                ArithmeticOp::Modulo => " % ",
            };
            infix(&[left.as_ref(), right.as_ref()], op, out);
        }
        ExprKind::Negate(e) => around("-", e, "", schema, out),
        ExprKind::Not(e) => around("NOT ", e, "", schema, out),
        ExprKind::IsNull(e) => around("", e, " IS NULL", schema, out),
        ExprKind::IsNotNull(e) => around("", e, " IS NOT NULL", schema, out),
        ExprKind::And(list) => infix(&list.iter().collect::<Vec<_>>(), " AND ", out),
        ExprKind::Or(list) => infix(&list.iter().collect::<Vec<_>>(), " OR ", out),
        ExprKind::BoolTest {
            arg,
            value,
            negated,
        } => {
            let not = if *negated { " IS NOT" } else { " IS" };
            let value = if *value { "TRUE" } else { "FALSE" };
            around("", arg, &format!("{not} {value}"), schema, out);
        }
        ExprKind::InList {
            arg,
            values,
            negated,
        } => {
            let not = if *negated { " NOT" } else { "" };
            around(
                "",
                arg,
                &format!("{not} IN ({} values)", values.len()),
                schema,
                out,
            );
        }
        ExprKind::InParam {
            arg,
            param,
            negated,
        } => {
            let not = if *negated { " NOT" } else { "" };
            around("", arg, &format!("{not} IN (${})", param + 1), schema, out);
        }
        ExprKind::Like {
            arg,
            pattern,
            negated,
        } => {
            let not = if *negated { " NOT" } else { "" };
            around("", arg, &format!("{not} LIKE '{pattern}'"), schema, out);
        }
        ExprKind::Case { branches, .. } => {
            out.push_str("CASE");
            for (when, then) in branches {
                if out.len() > MAX_CHARS {
                    break;
                }
                around(" WHEN ", when, " THEN ", schema, out);
                write(then, schema, out);
            }
            out.push_str(" … END");
        }
        ExprKind::Extreme { greatest, args } => {
            out.push_str(if *greatest { "greatest" } else { "least" });
            infix(&args.iter().collect::<Vec<_>>(), ", ", out);
        }
        ExprKind::Cast(e) => around("", e, &format!("::{:?}", expr.ty.lake), schema, out),
        ExprKind::Call { function, args } => {
            out.push_str(function.name());
            if let Some(parameter) = function.parameter() {
                out.push_str(&format!("[{parameter}]"));
            }
            infix(&args.iter().collect::<Vec<_>>(), ", ", out);
        }
    }
}

fn around(before: &str, expr: &Expr, after: &str, schema: &Schema, out: &mut String) {
    out.push_str(before);
    write(expr, schema, out);
    out.push_str(after);
}

fn constant(value: &Option<Value>, out: &mut String) {
    match value {
        None => out.push_str("NULL"),
        Some(Value::Bool(v)) => out.push_str(&v.to_string()),
        Some(Value::I32(v)) => out.push_str(&v.to_string()),
        Some(Value::I64(v)) => out.push_str(&v.to_string()),
        Some(Value::F32(v)) => out.push_str(&v.to_string()),
        Some(Value::F64(v)) => out.push_str(&v.to_string()),
        Some(Value::I128(v)) => out.push_str(&v.to_string()),
        Some(Value::Text(v)) => {
            out.push('\'');
            out.extend(v.chars().take(40));
            out.push('\'');
        }
        Some(Value::Bytes(v)) => out.push_str(&format!("<{} bytes>", v.len())),
        Some(Value::Row(v)) => out.push_str(&format!("<row of {} bytes>", v.len())),
        Some(Value::Uuid(v)) => out.push_str(&format!("{:032x}", u128::from_be_bytes(*v))),
    }
}
