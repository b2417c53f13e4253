//! Smaller queries than one, each by a single step. Not all of them are valid: one that isn't fails alike everywhere,
//! and so isn't taken.

use super::tree::{Expr, Kind, Query, Select};

/// A step that makes one SELECT smaller.
#[derive(Clone, Copy)]
enum Cut {
    LastRelation,
    Limit,
    Offset,
    Order,
    Distinct,
    DistinctOn,
    Sets,
    Having(usize),
    Filter(usize),
    On(usize, usize),
    Key(usize),
    Output(usize),
}

/// The largest steps first.
pub fn smaller(query: &Query) -> Vec<Query> {
    let mut all = Vec::new();
    if let Query::Set {
        operation,
        left,
        right,
        ordered,
        ..
    } = query
    {
        all.extend([(**left).clone(), (**right).clone()]);
        if *ordered {
            all.push(Query::Set {
                operation,
                left: left.clone(),
                right: right.clone(),
                ordered: false,
                limit: None,
            });
        }
    }
    if let Query::Recursive { left, right, .. } = query {
        all.extend([Query::Select(left.clone()), Query::Select(right.clone())]);
    }
    let mut cuts = Vec::new();
    let mut number = 0;
    let alone = matches!(query, Query::Select(_));
    query.clone().selects_mut(&mut |select, nested| {
        let cut = |cut| (number, cut);
        cuts.extend(cuts_of(select, alone && !nested).into_iter().map(cut));
        number += 1;
    });
    all.extend(
        cuts.into_iter()
            .map(|(number, cut)| cut_at(query, number, cut)),
    );
    all.extend(simpler(query));
    all
}

/// Outputs of nested queries are referred to by their number: they stay.
fn cuts_of(select: &Select, outputs_too: bool) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let when = |condition: bool, cut: Cut| condition.then_some(cut);
    cuts.extend(when(select.from.len() > 1, Cut::LastRelation));
    cuts.extend(when(select.limit.is_some(), Cut::Limit));
    cuts.extend(when(select.offset.is_some(), Cut::Offset));
    cuts.extend(when(!select.order.is_empty(), Cut::Order));
    cuts.extend(when(select.distinct, Cut::Distinct));
    cuts.extend(when(select.distinct_on, Cut::DistinctOn));
    cuts.extend((0..select.filter.len()).map(Cut::Filter));
    cuts.extend((0..select.having.len()).map(Cut::Having));
    for (at, relation) in select.from.iter().enumerate() {
        cuts.extend((0..relation.on.len()).map(|on| Cut::On(at, on)));
    }
    if let Some(grouping) = &select.grouping {
        cuts.extend(when(grouping.sets.is_some(), Cut::Sets));
        cuts.extend((0..grouping.keys.len()).map(Cut::Key));
    }
    if outputs_too && select.outputs.len() > 1 {
        cuts.extend((0..select.outputs.len()).map(Cut::Output));
    }
    cuts
}

fn cut_at(query: &Query, number: usize, cut: Cut) -> Query {
    let mut query = query.clone();
    let mut seen = 0;
    query.selects_mut(&mut |select, _| {
        if seen == number {
            apply(select, cut);
        }
        seen += 1;
    });
    query
}

fn apply(select: &mut Select, cut: Cut) {
    match cut {
        Cut::LastRelation => drop(select.from.pop()),
        // What comes first depends on the order, so they go together.
        Cut::Limit => {
            select.limit = None;
            select.ties = false;
        }
        Cut::Offset => select.offset = None,
        Cut::Order => {
            select.order.clear();
            select.limit = None;
            select.offset = None;
            select.ties = false;
            select.distinct_on = false;
        }
        Cut::Distinct => select.distinct = false,
        Cut::DistinctOn => select.distinct_on = false,
        Cut::Sets => select.grouping.iter_mut().for_each(|g| g.sets = None),
        Cut::Having(at) => drop(select.having.remove(at)),
        Cut::Filter(at) => drop(select.filter.remove(at)),
        Cut::On(relation, at) => {
            if let Some(relation) = select.from.get_mut(relation) {
                relation.on.remove(at);
            }
        }
        Cut::Key(at) => select
            .grouping
            .iter_mut()
            .for_each(|g| drop(g.keys.remove(at))),
        Cut::Output(at) => {
            select.outputs.remove(at);
            let ordered = !select.order.is_empty();
            select.order.retain(|sort| sort.output != at);
            for sort in &mut select.order {
                sort.output -= usize::from(sort.output > at);
            }
            if ordered && select.order.is_empty() {
                apply(select, Cut::Order);
            }
        }
    }
}

/// A call is replaced by one of its arguments, or by a literal.
fn simpler(query: &Query) -> Vec<Query> {
    let mut found: Vec<(usize, Expr)> = Vec::new();
    let mut number = 0;
    query.clone().walk_mut(&mut |expr| {
        found.extend(replacements(expr).into_iter().map(|new| (number, new)));
        number += 1;
    });
    let replaced = |(number, new): (usize, Expr)| {
        let mut query = query.clone();
        let mut seen = 0;
        let mut new = Some(new);
        query.walk_mut(&mut |expr| {
            // What was put in is walked through as well.
            if seen == number
                && let Some(new) = new.take()
            {
                *expr = new;
            }
            seen += 1;
        });
        query
    };
    found.into_iter().map(replaced).collect()
}

fn replacements(expr: &Expr) -> Vec<Expr> {
    let same_type = |args: &[Expr]| -> Vec<Expr> {
        let args = args.iter().filter(|arg| arg.ty == expr.ty);
        args.cloned().collect()
    };
    match &expr.kind {
        Kind::Column(_) | Kind::Literal(_) => Vec::new(),
        Kind::Apply { args, .. } => {
            let mut all = same_type(args);
            all.push(Expr::literal(expr.ty, expr.ty.tame().first().copied()));
            all
        }
        Kind::Aggregate {
            filter, distinct, ..
        } => {
            let mut all = Vec::new();
            if filter.is_some() || *distinct {
                let mut plain = expr.clone();
                if let Kind::Aggregate {
                    filter, distinct, ..
                } = &mut plain.kind
                {
                    *filter = None;
                    *distinct = false;
                }
                all.push(plain);
            }
            all
        }
        Kind::Window { .. } => vec![Expr::literal(expr.ty, expr.ty.tame().first().copied())],
        Kind::Subquery { .. } => vec![Expr::literal(expr.ty, expr.ty.tame().first().copied())],
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::catalog;
    use super::super::expressions::Generator;
    use super::super::sql;
    use super::*;
    use crate::pg::random::Random;
    use std::collections::BTreeMap;

    /// Shrinking ends, whatever is taken.
    #[test]
    fn steps_lead_down() {
        let catalog = catalog();
        for seed in 1..40 {
            let mut random = Random::new(seed * 2 + 1);
            let mut generator = Generator {
                random: &mut random,
                catalog: &catalog,
                used: BTreeMap::new(),
                aliases: 0,
                wild: false,
            };
            let mut query = generator.query();
            let mut steps = 0;
            while let Some(next) = smaller(&query).into_iter().last() {
                query = next;
                steps += 1;
                assert!(steps < 1000, "seed {seed}: {}", sql::query(&query));
            }
        }
    }
}
