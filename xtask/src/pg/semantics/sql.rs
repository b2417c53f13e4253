//! Queries as SQL.

use super::tree::{
    Expr, Grouping, Join, Kind, OutputSort, Query, Relation, Select, Sets, Sort, Source,
};

pub fn query(query: &Query) -> String {
    match query {
        Query::Select(of) => select(of),
        Query::Set {
            operation,
            left,
            right,
            ordered,
            limit,
        } => {
            let mut text = format!(
                "({}) {operation} ({})",
                self::query(left),
                self::query(right)
            );
            if *ordered {
                let columns: Vec<String> = (1..=width(left)).map(|n| n.to_string()).collect();
                text.push_str(&format!(" ORDER BY {}", columns.join(", ")));
                text.push_str(&bound("LIMIT", *limit));
            }
            text
        }
        Query::Recursive {
            operation,
            left,
            right,
        } => recursion(operation, left, right),
    }
}

/// Copies multiply in each step.
fn recursion(operation: &str, left: &Select, right: &Select) -> String {
    let steps = if operation == "UNION" { 3 } else { 2 };
    format!(
        "WITH RECURSIVE w AS (SELECT q.*, 0 AS step FROM ({}) AS q {operation} \
         SELECT q.*, w.step + 1 FROM w JOIN ({}) AS q ON q.c1 = w.c1 WHERE w.step < {steps}) SELECT * FROM w",
        select(left),
        select(right)
    )
}

fn width(query: &Query) -> usize {
    match query {
        Query::Select(select) => select.outputs.len(),
        Query::Set { left, .. } => width(left),
        Query::Recursive { left, .. } => left.outputs.len() + 1,
    }
}

fn select(of: &Select) -> String {
    let outputs: Vec<String> = of
        .outputs
        .iter()
        .zip(1..)
        .map(|(output, number)| format!("{} AS c{number}", expr(output)))
        .collect();
    let distinct = match of.order.first() {
        _ if of.distinct => "DISTINCT ".to_owned(),
        Some(sort) if of.distinct_on => format!("DISTINCT ON ({}) ", sort.output + 1),
        _ => String::new(),
    };
    let mut text = format!("SELECT {distinct}{}", outputs.join(", "));
    for (at, relation) in of.from.iter().enumerate() {
        text.push_str(&from(relation, at == 0));
    }
    text.push_str(&conjunction("WHERE", &of.filter));
    if let Some(grouping) = &of.grouping {
        text.push_str(&group_by(grouping));
    }
    text.push_str(&conjunction("HAVING", &of.having));
    text.push_str(&order_by(of));
    match of.limit {
        Some(limit) if of.ties => {
            text.push_str(&format!(" FETCH FIRST {limit} ROWS WITH TIES"));
        }
        limit => text.push_str(&bound("LIMIT", limit)),
    }
    text.push_str(&bound("OFFSET", of.offset));
    text
}

fn from(relation: &Relation, first: bool) -> String {
    let source = match &relation.source {
        Source::Table(name) => (*name).to_owned(),
        Source::Derived(query) => format!("({})", select(query)),
        Source::Sets(calls) => format!("ROWS FROM ({}) WITH ORDINALITY", calls.join(", ")),
    };
    let alias = match &relation.source {
        Source::Sets(calls) => {
            let columns: Vec<String> = (0..=calls.len()).map(|at| format!("c{}", at + 1)).collect();
            format!("{}({})", relation.alias, columns.join(", "))
        }
        _ => relation.alias.clone(),
    };
    if first {
        return format!(" FROM {source} AS {alias}");
    }
    let join = match relation.join {
        Join::Inner => "JOIN",
        Join::Left => "LEFT JOIN",
        Join::Right => "RIGHT JOIN",
        Join::Full => "FULL JOIN",
        Join::Cross => return format!(" CROSS JOIN {source} AS {alias}"),
    };
    let on = match conjunction("ON", &relation.on) {
        empty if empty.is_empty() => " ON true".to_owned(),
        on => on,
    };
    format!(" {join} {source} AS {alias}{on}")
}

fn conjunction(word: &str, exprs: &[Expr]) -> String {
    if exprs.is_empty() {
        return String::new();
    }
    format!(" {word} {}", list(exprs, " AND "))
}

fn group_by(grouping: &Grouping) -> String {
    let keys = list(&grouping.keys, ", ");
    match grouping.sets {
        _ if grouping.keys.is_empty() => String::new(),
        None => format!(" GROUP BY {keys}"),
        Some(Sets::Rollup) => format!(" GROUP BY ROLLUP ({keys})"),
        Some(Sets::Cube) => format!(" GROUP BY CUBE ({keys})"),
    }
}

/// By the outputs that were chosen, then by what tells the rows apart.
fn order_by(of: &Select) -> String {
    if of.order.is_empty() {
        return String::new();
    }
    let mut keys: Vec<String> = of.order.iter().map(output_sort).collect();
    match &of.grouping {
        _ if of.ties => {}
        _ if of.distinct => keys.extend((1..=of.outputs.len()).map(|n| n.to_string())),
        Some(grouping) => keys.extend(grouping.keys.iter().map(expr)),
        None => keys.extend(of.from.iter().flat_map(|r| &r.keys).map(expr)),
    }
    format!(" ORDER BY {}", keys.join(", "))
}

fn output_sort(sort: &OutputSort) -> String {
    let number = sort.output + 1;
    format!("{number}{}", direction(sort.descending, sort.nulls_first))
}

fn direction(descending: bool, nulls_first: Option<bool>) -> String {
    let nulls = match nulls_first {
        None => "",
        Some(true) => " NULLS FIRST",
        Some(false) => " NULLS LAST",
    };
    format!("{}{nulls}", if descending { " DESC" } else { "" })
}

fn bound(word: &str, number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| format!(" {word} {number}"))
}

pub fn expr(of: &Expr) -> String {
    match &of.kind {
        Kind::Column(name) => name.clone(),
        Kind::Literal(text) => text.clone(),
        Kind::Apply { function, args } => enclosed(filled(&function.form, args)),
        Kind::Aggregate {
            function,
            args,
            distinct,
            order,
            filter,
        } => {
            let order = match order.as_slice() {
                [] => String::new(),
                keys => format!(" ORDER BY {}", list(keys, ", ")),
            };
            let call = filled(&function.form, args)
                .replace("$d", if *distinct { "DISTINCT " } else { "" })
                .replace("$o", &order);
            match filter {
                Some(filter) => format!("{call} FILTER (WHERE {})", expr(filter)),
                None => call,
            }
        }
        Kind::Window {
            function,
            args,
            partition,
            order,
            frame,
        } => {
            let window = over(partition, order, *frame);
            format!("{} OVER ({window})", filled(&function.form, args))
        }
        Kind::Subquery {
            form,
            operand,
            query,
        } => {
            let operand = operand.as_deref().map(expr).unwrap_or_default();
            let text = form.replace("$1", &operand).replace("$q", &select(query));
            enclosed(text)
        }
    }
}

fn over(partition: &[Expr], order: &[Sort], frame: Option<&'static str>) -> String {
    let mut parts = Vec::new();
    if !partition.is_empty() {
        parts.push(format!("PARTITION BY {}", list(partition, ", ")));
    }
    if !order.is_empty() {
        let keys: Vec<String> = order
            .iter()
            .map(|sort| {
                let direction = direction(sort.descending, sort.nulls_first);
                format!("{}{direction}", expr(&sort.expr))
            })
            .collect();
        parts.push(format!("ORDER BY {}", keys.join(", ")));
    }
    parts.extend(frame.map(str::to_owned));
    parts.join(" ")
}

fn list(exprs: &[Expr], separator: &str) -> String {
    let all: Vec<String> = exprs.iter().map(expr).collect();
    all.join(separator)
}

/// A form with its arguments. They may have a `$` of their own: nothing is replaced twice.
fn filled(form: &str, args: &[Expr]) -> String {
    let mut text = String::new();
    let mut rest = form;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let number = from
            .chars()
            .nth(1)
            .and_then(|c| c.to_digit(10))
            .map(|n| n as usize);
        match number.and_then(|n| args.get(n.checked_sub(1)?)) {
            Some(arg) => {
                text.push_str(&expr(arg));
                rest = &from[2..];
            }
            None => {
                text.push('$');
                rest = &from[1..];
            }
        }
    }
    text + rest
}

/// In parentheses, unless it is a single call.
fn enclosed(text: String) -> String {
    let name = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let closes = |open: usize| {
        let mut depth = 0;
        let mut quoted = false;
        for (at, c) in text.char_indices().skip_while(|(at, _)| *at < open) {
            match c {
                '\'' => quoted = !quoted,
                '(' if !quoted => depth += 1,
                ')' if !quoted => {
                    depth -= 1;
                    if depth == 0 {
                        return at + 1 == text.len();
                    }
                }
                _ => {}
            }
        }
        false
    };
    match name {
        Some(open) if text[open..].starts_with('(') && closes(open) => text,
        _ => format!("({text})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_call_is_enclosed() {
        assert_eq!(enclosed("f(a, ')')".to_owned()), "f(a, ')')");
        assert_eq!(enclosed("f(a) + g(b)".to_owned()), "(f(a) + g(b))");
        assert_eq!(enclosed("(a)".to_owned()), "(a)");
        assert_eq!(enclosed("a IS NULL".to_owned()), "(a IS NULL)");
    }
}
