//! Expressions, aggregates and constants in words. `columns` are the names of the input's columns.

use pg_lake_plan::function::Function;
use pg_lake_plan::ir::{
    Aggregate, AggregateFunction, ArithmeticOp, CompareOp, Expr, ExprKind, SortKey,
};
use pg_lake_plan::types::{LakeType, Value};

pub(super) fn list(exprs: &[Expr], columns: &[String]) -> String {
    let texts: Vec<String> = exprs.iter().map(|e| text(e, columns)).collect();
    texts.join(", ")
}

pub(super) fn call(aggregate: &Aggregate, columns: &[String]) -> String {
    let distinct = if aggregate.distinct { "DISTINCT " } else { "" };
    let arg = match &aggregate.arg {
        Some(arg) => text(arg, columns),
        None => "*".to_owned(),
    };
    let filter = match &aggregate.filter {
        Some(filter) => format!(" FILTER ({})", text(filter, columns)),
        None => String::new(),
    };
    let order = format!("ORDER BY {}", sort_keys(&aggregate.order, columns));
    let plain = |name: &str| format!("{name}({distinct}{arg}){filter}");
    let within =
        |name: &str, fraction: String| format!("{name}({fraction}) WITHIN GROUP ({order}){filter}");
    match aggregate.function {
        AggregateFunction::Count => plain("count"),
        AggregateFunction::Sum | AggregateFunction::IntervalSum => plain("sum"),
        AggregateFunction::Min | AggregateFunction::IntervalMin => plain("min"),
        AggregateFunction::Max | AggregateFunction::IntervalMax => plain("max"),
        AggregateFunction::SumOfSquares => plain("sum of squares"),
        AggregateFunction::Moments | AggregateFunction::PairMoments => plain("moments"),
        AggregateFunction::OneForm => plain("form"),
        AggregateFunction::BoolAnd => plain("bool_and"),
        AggregateFunction::BoolOr => plain("bool_or"),
        AggregateFunction::BitAnd => plain("bit_and"),
        AggregateFunction::BitOr => plain("bit_or"),
        AggregateFunction::BitXor => plain("bit_xor"),
        AggregateFunction::PercentileDisc(fraction) => {
            within("percentile_disc", fraction.value().to_string())
        }
        AggregateFunction::PercentileCont(fraction) => {
            within("percentile_cont", fraction.value().to_string())
        }
        AggregateFunction::Mode => within("mode", String::new()),
        AggregateFunction::ArrayAgg => format!("array_agg({distinct}{arg} {order}){filter}"),
    }
}

pub(super) fn sort_keys(keys: &[SortKey], columns: &[String]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| sort_key(key, columns)).collect();
    keys.join(", ")
}

fn sort_key(key: &SortKey, columns: &[String]) -> String {
    let direction = if key.descending { " DESC" } else { "" };
    let nulls = match (key.descending, key.nulls_first) {
        (false, true) => " NULLS FIRST",
        (true, false) => " NULLS LAST",
        _ => "",
    };
    format!("{}{direction}{nulls}", text(&key.expr, columns))
}

pub(super) fn text(expr: &Expr, columns: &[String]) -> String {
    let inner = |e: &Expr| text(e, columns);
    let infix = |list: &[Expr], word: &str| {
        let terms: Vec<String> = list.iter().map(inner).collect();
        format!("({})", terms.join(word))
    };
    match &expr.kind {
        ExprKind::Column(at) => match columns.get(*at as usize) {
            Some(name) => name.clone(),
            None => format!("column {at}"),
        },
        ExprKind::Const(value) => literal(value.as_ref(), &expr.ty.lake),
        ExprKind::Param(at) => format!("param {at}"),
        ExprKind::Compare { op, left, right } => {
            let op = match op {
                CompareOp::Eq => "=",
                CompareOp::Ne => "<>",
                CompareOp::Lt => "<",
                CompareOp::Le => "<=",
                CompareOp::Gt => ">",
                CompareOp::Ge => ">=",
            };
            format!("({} {op} {})", inner(left), inner(right))
        }
        ExprKind::Arithmetic { op, left, right } => {
            let op = match op {
                ArithmeticOp::Add => '+',
                ArithmeticOp::Subtract => '-',
                ArithmeticOp::Multiply => '*',
                ArithmeticOp::Divide => '/',
                ArithmeticOp::Modulo => '%',
            };
            format!("({} {op} {})", inner(left), inner(right))
        }
        ExprKind::Negate(arg) => format!("(- {})", inner(arg)),
        ExprKind::And(list) => infix(list, " AND "),
        ExprKind::Or(list) => infix(list, " OR "),
        ExprKind::Not(arg) => format!("(NOT {})", inner(arg)),
        ExprKind::IsNull(arg) => format!("({} IS NULL)", inner(arg)),
        ExprKind::IsNotNull(arg) => format!("({} IS NOT NULL)", inner(arg)),
        ExprKind::BoolTest {
            arg,
            value,
            negated,
        } => {
            let not = if *negated { "NOT " } else { "" };
            let value = if *value { "TRUE" } else { "FALSE" };
            format!("({} IS {not}{value})", inner(arg))
        }
        ExprKind::InList {
            arg,
            values,
            negated,
        } => {
            let not = if *negated { "NOT " } else { "" };
            let values: Vec<String> = values
                .iter()
                .map(|value| literal(value.as_ref(), &arg.ty.lake))
                .collect();
            format!("({} {not}IN ({}))", inner(arg), values.join(", "))
        }
        ExprKind::InParam {
            arg,
            param,
            negated,
        } => {
            let not = if *negated { "NOT " } else { "" };
            format!("({} {not}IN (param {param}))", inner(arg))
        }
        ExprKind::Like {
            arg,
            pattern,
            negated,
        } => {
            let not = if *negated { "NOT " } else { "" };
            format!("({} {not}LIKE {})", inner(arg), quoted(pattern))
        }
        ExprKind::Case {
            branches,
            otherwise,
        } => {
            let mut line = "CASE".to_owned();
            for (when, then) in branches {
                line.push_str(&format!(" WHEN {} THEN {}", inner(when), inner(then)));
            }
            if let Some(otherwise) = otherwise {
                line.push_str(&format!(" ELSE {}", inner(otherwise)));
            }
            line + " END"
        }
        ExprKind::Extreme { greatest, args } => {
            let name = if *greatest { "greatest" } else { "least" };
            format!("{name}{}", infix(args, ", "))
        }
        ExprKind::Cast(arg) => format!("{}::{}", inner(arg), type_name(&expr.ty.lake)),
        ExprKind::Call { function, args } => match (function, args.as_slice()) {
            (Function::Convert, [arg]) => {
                format!("{}::{}", inner(arg), type_name(&expr.ty.lake))
            }
            (Function::Quotient, [left, right]) => format!("({} / {})", inner(left), inner(right)),
            _ => {
                let parameter = function.parameter().map(|text| format!("[{text}]"));
                let args: Vec<String> = args.iter().map(inner).collect();
                let parameter = parameter.unwrap_or_default();
                format!("{}{parameter}({})", function.name(), args.join(", "))
            }
        },
    }
}

fn type_name(ty: &LakeType) -> String {
    match ty {
        LakeType::Bool => "boolean".to_owned(),
        LakeType::Int2 => "smallint".to_owned(),
        LakeType::Int4 => "integer".to_owned(),
        LakeType::Int8 => "bigint".to_owned(),
        LakeType::Float4 => "real".to_owned(),
        LakeType::Float8 => "double precision".to_owned(),
        LakeType::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) fn literal(value: Option<&Value>, ty: &LakeType) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(Value::Bool(v)) => v.to_string(),
        Some(Value::I32(v)) if *ty == LakeType::Date => format!("'{}'", date((*v).into())),
        Some(Value::I32(v)) => v.to_string(),
        Some(Value::I64(v)) => match ty {
            LakeType::Time => format!("'{}'", time(*v)),
            LakeType::Timestamp | LakeType::Timestamptz => {
                let zone = if *ty == LakeType::Timestamptz {
                    "+00"
                } else {
                    ""
                };
                let (day, rest) = (v.div_euclid(DAY), v.rem_euclid(DAY));
                format!("'{} {}{zone}'", date(day), time(rest))
            }
            _ => v.to_string(),
        },
        Some(Value::F32(v)) => v.to_string(),
        Some(Value::F64(v)) => v.to_string(),
        Some(Value::I128(v)) => {
            let scale = match ty {
                LakeType::Decimal { scale, .. } => usize::try_from(*scale).unwrap_or(0),
                _ => 0,
            };
            let sign = if *v < 0 { "-" } else { "" };
            let digits = format!("{:0>width$}", v.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let point = if scale > 0 { "." } else { "" };
            format!("{sign}{whole}{point}{fraction}")
        }
        Some(Value::Text(v)) => quoted(v),
        Some(Value::Bytes(v)) => format!("{} bytes", v.len()),
        Some(Value::Row(_)) => "a value".to_owned(),
        Some(Value::Uuid(v)) => {
            let digits: String = v.iter().map(|b| format!("{b:02x}")).collect();
            format!("'{digits}'")
        }
    }
}

const DAY: i64 = 86_400_000_000;

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
fn date(days: i64) -> String {
    let shifted = days + 719_468; // since 0000-03-01
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

/// Microseconds since midnight.
fn time(of_day: i64) -> String {
    let (seconds, micros) = (of_day / 1_000_000, of_day % 1_000_000);
    let clock = format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    match micros {
        0 => clock,
        _ => format!("{clock}.{micros:06}"),
    }
}
