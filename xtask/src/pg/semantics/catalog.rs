//! The grammar's functions: those that are listed, and what exists for many types.

use super::functions::{AGGREGATES, FUNCTIONS, WINDOW_FUNCTIONS};
use super::tree::{Function, Param};
use super::types::{ALL, Type};
use std::rc::Rc;

/// `min` and `max` are there for these.
const ORDERED: &[Type] = &[
    Type::Int2,
    Type::Int4,
    Type::Int8,
    Type::Float4,
    Type::Float8,
    Type::Numeric,
    Type::Text,
    Type::TextC,
    Type::Char,
    Type::Date,
    Type::Time,
    Type::Timestamp,
    Type::Timestamptz,
];

/// Arithmetic: the operands, and the result.
const ARITHMETIC: &[(Type, Type, Type)] = &[
    (Type::Int2, Type::Int2, Type::Int2),
    (Type::Int4, Type::Int4, Type::Int4),
    (Type::Int8, Type::Int8, Type::Int8),
    (Type::Int2, Type::Int4, Type::Int4),
    (Type::Int4, Type::Int2, Type::Int4),
    (Type::Int2, Type::Int8, Type::Int8),
    (Type::Int4, Type::Int8, Type::Int8),
    (Type::Int8, Type::Int4, Type::Int8),
    (Type::Float4, Type::Float4, Type::Float4),
    (Type::Float8, Type::Float8, Type::Float8),
    (Type::Float4, Type::Float8, Type::Float8),
    (Type::Int4, Type::Float8, Type::Float8),
    (Type::Numeric, Type::Numeric, Type::Numeric),
    (Type::Int4, Type::Numeric, Type::Numeric),
    (Type::Numeric, Type::Int8, Type::Numeric),
    (Type::Numeric, Type::Float8, Type::Float8),
];

/// Pairs of different types that are compared without a cast.
pub const COMPARABLE: &[(Type, Type)] = &[
    (Type::Int2, Type::Int4),
    (Type::Int4, Type::Int8),
    (Type::Int8, Type::Int2),
    (Type::Int4, Type::Numeric),
    (Type::Numeric, Type::Int8),
    (Type::Float4, Type::Float8),
    (Type::Int4, Type::Float8),
    (Type::Numeric, Type::Float8),
    (Type::Date, Type::Timestamp),
    (Type::Date, Type::Timestamptz),
    (Type::Timestamp, Type::Timestamptz),
    (Type::Text, Type::Varchar),
    (Type::Char, Type::Text),
];

/// Types of text, and patterns to look for in it.
const TEXTS: &[Type] = &[Type::Text, Type::TextC, Type::Varchar, Type::Char];
const PATTERNS: &[&str] = &["a%", "%b", "%a%", "_", "a\\_b", "", "ä%", "A", "%"];

pub struct Catalog {
    pub functions: Vec<Rc<Function>>,
    pub aggregates: Vec<Rc<Function>>,
    pub windows: Vec<Rc<Function>>,
}

pub fn catalog() -> Catalog {
    let mut functions = FUNCTIONS.to_owned();
    let mut aggregates = AGGREGATES.to_owned();
    let mut windows = WINDOW_FUNCTIONS.to_owned();
    arithmetic(&mut functions);
    for ty in ALL {
        let t = ty.name();
        comparisons(&mut functions, t, t);
        conditions(&mut functions, t);
        aggregates.push_str(&format!("int8 ; count($d$1) ; {t}\n"));
        if !ty.varies() {
            shifts(&mut windows, t);
        }
    }
    for (left, right) in COMPARABLE {
        comparisons(&mut functions, left.name(), right.name());
        comparisons(&mut functions, right.name(), left.name());
    }
    for ty in TEXTS {
        patterns(&mut functions, ty.name());
    }
    for ty in ORDERED {
        for function in ["min", "max"] {
            let t = ty.name();
            aggregates.push_str(&format!("{t} ; {function}($1) ; {t} ; ; same\n"));
        }
    }
    Catalog {
        functions: parsed(&functions, ""),
        aggregates: parsed(&aggregates, ""),
        windows: parsed(&windows, " OVER"),
    }
}

fn arithmetic(lines: &mut String) {
    for (left, right, result) in ARITHMETIC {
        let (l, r, t) = (left.name(), right.name(), result.name());
        let (overflow, same) = match result {
            Type::Numeric => ("", "same"),
            _ => ("22003", ""),
        };
        for op in ["+", "-", "*"] {
            lines.push_str(&format!(
                "{t} ; $1 {op} $2 ; {l} {r} ; {overflow} ; {same}\n"
            ));
        }
        lines.push_str(&format!("{t} ; $1 / $2 ; {l} {r}' ; {overflow}\n"));
        lines.push_str(&format!(
            "{t} ; $1 / $2 ; {l} {r} ; 22012 {overflow} ; wild\n"
        ));
        if !result.is_float() {
            lines.push_str(&format!("{t} ; $1 % $2 ; {l} {r}' ; ; {same}\n"));
            lines.push_str(&format!("{t} ; $1 % $2 ; {l} {r} ; 22012 ; wild {same}\n"));
        }
    }
}

fn comparisons(lines: &mut String, l: &str, r: &str) {
    for op in ["=", "<>", "<", "<=", ">", ">="] {
        lines.push_str(&format!("bool ; $1 {op} $2 ; {l} {r}\n"));
    }
    for op in ["IS DISTINCT FROM", "IS NOT DISTINCT FROM"] {
        lines.push_str(&format!("bool ; $1 {op} $2 ; {l} {r}\n"));
    }
}

/// What is there for every type.
fn conditions(lines: &mut String, t: &str) {
    let booleans = [
        "$1 IS NULL",
        "$1 IS NOT NULL",
        "$1 BETWEEN $2 AND $3",
        "$1 NOT BETWEEN $2 AND $3",
        "$1 BETWEEN SYMMETRIC $2 AND $3",
        "$1 IN ($2, $3)",
        "$1 NOT IN ($2, $3)",
    ];
    for form in booleans {
        let mut params = vec![t.to_owned()];
        let more = (2..=3).filter(|n| form.contains(&format!("${n}")));
        params.extend(more.map(|_| format!("{t}'")));
        lines.push_str(&format!("bool ; {form} ; {}\n", params.join(" ")));
    }
    for form in [
        "$1 IN ($2, NULL)",
        "$1 NOT IN ($2, NULL)",
        "$1 = ANY (ARRAY[$2, $2])",
    ] {
        lines.push_str(&format!("bool ; {form} ; {t} {t}'\n"));
    }
    let same = [
        ("coalesce($1, $2)", "", ""),
        ("nullif($1, $2)", "", "same"),
        ("greatest($1, $2)", "", ""),
        ("least($1, $2)", "", ""),
        ("CASE WHEN $1 THEN $2 ELSE $3 END", "bool ", ""),
        ("CASE WHEN $1 THEN $2 END", "bool ", "same"),
        ("CASE $1 WHEN $2 THEN $3 ELSE $4 END", "int4 int4' ", ""),
    ];
    for (form, before, note) in same {
        let taken = before.split_whitespace().count();
        let more = (taken + 1..=4).filter(|n| form.contains(&format!("${n}")));
        let params = format!("{t} ").repeat(more.count());
        lines.push_str(&format!("{t} ; {form} ; {before}{params} ; ; {note}\n"));
    }
}

fn patterns(lines: &mut String, t: &str) {
    for pattern in PATTERNS {
        for op in ["LIKE", "NOT LIKE", "ILIKE"] {
            lines.push_str(&format!("bool ; $1 {op} '{pattern}' ; {t}\n"));
        }
    }
    lines.push_str(&format!("bool ; $1 ~ '^[ab]' ; {t}\n"));
    lines.push_str(&format!("bool ; $1 !~* 'B$' ; {t}\n"));
}

/// Window functions that give another row's value.
fn shifts(lines: &mut String, t: &str) {
    for form in [
        "lag($1)",
        "lead($1, 2)",
        "first_value($1)",
        "last_value($1)",
        "nth_value($1, 2)",
    ] {
        lines.push_str(&format!("{t} ; {form} ; {t} ; ; total same\n"));
    }
    lines.push_str(&format!("{t} ; lag($1, 1, $2) ; {t} {t} ; ; total\n"));
}

/// The functions of some lines. What they are called in coverage ends with `suffix`.
fn parsed(lines: &str, suffix: &str) -> Vec<Rc<Function>> {
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    let functions = lines.filter_map(line).map(|mut function| {
        function.feature.push_str(suffix);
        Rc::new(function)
    });
    functions.collect()
}

fn line(line: &str) -> Option<Function> {
    let mut fields = line.split(" ;").map(str::trim);
    let result = Type::named(fields.next()?)?;
    let form = fields.next()?.to_owned();
    let params: Option<Vec<Param>> = words(fields.next()).map(param).collect();
    let params = params?;
    let mut feature = form.replace("$d", "").replace("$o", "");
    for (param, number) in params.iter().zip(1..) {
        feature = feature.replace(&format!("${number}"), param.ty.name());
    }
    Some(Function {
        feature,
        form,
        params,
        result,
        raises: words(fields.next()).map(str::to_owned).collect(),
        notes: words(fields.next()).map(str::to_owned).collect(),
    })
}

fn words(field: Option<&str>) -> impl Iterator<Item = &str> {
    field.unwrap_or_default().split_whitespace()
}

fn param(word: &str) -> Option<Param> {
    let name = word.strip_suffix('\'');
    Some(Param {
        ty: Type::named(name.unwrap_or(word))?,
        literal: name.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_understood() {
        for text in [FUNCTIONS, AGGREGATES, WINDOW_FUNCTIONS] {
            let lines = text.lines().filter(|line| !line.is_empty());
            for text in lines {
                let function = line(text).unwrap_or_else(|| panic!("{text}"));
                let used = (1..=4).filter(|n| function.form.contains(&format!("${n}")));
                assert_eq!(used.count(), function.params.len(), "{text}");
                assert!(function.raises.iter().all(|code| code.len() == 5), "{text}");
            }
        }
    }

    #[test]
    fn functions_for_many_types_are_there() {
        let catalog = catalog();
        let has = |all: &[Rc<Function>], feature: &str| {
            let found = all.iter().find(|function| function.feature == feature);
            found.unwrap_or_else(|| panic!("{feature}")).clone()
        };
        let divide = has(&catalog.functions, "int4 / int8");
        assert!(divide.params[1].literal);
        assert_eq!(has(&catalog.functions, "numeric + numeric").notes, ["same"]);
        let case = has(
            &catalog.functions,
            "CASE int4 WHEN int4 THEN date ELSE date END",
        );
        assert_eq!(case.params.len(), 4);
        has(&catalog.functions, "uuid NOT IN (uuid, uuid)");
        assert_eq!(has(&catalog.aggregates, "max(char)").result, Type::Char);
        has(&catalog.aggregates, "count(bytea)");
        has(&catalog.windows, "lag(text, 1, text) OVER");
    }
}
