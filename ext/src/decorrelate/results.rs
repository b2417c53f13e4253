//! Subqueries in what is evaluated for each row that passes WHERE: results, arguments of aggregates and window functions,
//! and what is grouped by. Each becomes a left join.

use super::{join, replaced, sublink};
use crate::lower::node::{self, Node, get, nodes, tag};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// Rewrites a query; returns whether there was something to do.
///
/// # Safety
/// As of `decorrelate`, for the query alone.
pub unsafe fn rewrite(query: &mut pg_sys::Query) -> bool {
    if query.hasTargetSRFs || !query.setOperations.is_null() {
        return false;
    }
    let groups = groups_with_sublinks(query);
    let mut known = vec![];
    let mut changed = false;
    for entry in nodes(query.targetList) {
        if tag(entry) != NodeTag::T_TargetEntry {
            continue;
        }
        let entry = entry.cast::<pg_sys::TargetEntry>();
        // SAFETY: as its tag says; a part of the query.
        let (expr, reference): (Node, _) =
            unsafe { ((*entry).expr.cast(), (*entry).ressortgroupref) };
        let is_for_rows = !is_grouped(query) || groups.contains(&reference);
        let sites = match is_for_rows {
            true => vec![expr],
            false => aggregates(expr),
        };
        // SAFETY: by contract; a part of the query.
        if let Some(value) = unsafe { attached(query, expr, &sites, &mut known) } {
            // SAFETY: as above.
            unsafe { (*entry).expr = value.cast() };
            changed = true;
        }
    }
    let having = query.havingQual;
    // SAFETY: by contract.
    if let Some(value) = unsafe { attached(query, having, &aggregates(having), &mut known) } {
        query.havingQual = value;
        changed = true;
    }
    changed
}

/// The expression with joined values, if there are subqueries that fit at one of its sites. `known` are those that are
/// joined.
unsafe fn attached(
    query: &mut pg_sys::Query,
    expr: Node,
    sites: &[Node],
    known: &mut Vec<(Node, Node)>,
) -> Option<Node> {
    let mut values = vec![];
    for site in sites {
        for found in sublink::correlated_result(*site) {
            // SAFETY: compares expressions.
            let is_same = |node: Node| unsafe { pg_sys::equal(node.cast(), found.sublink.cast()) };
            let same = known.iter().find(|(other, _)| is_same(*other));
            let joined = same.map(|(_, value)| *value);
            let value = joined.unwrap_or_else(|| {
                // It is changed.
                let original = node::copy(found.sublink);
                // SAFETY: by contract; a left join leaves no conditions.
                let (value, _) = unsafe { join::attach(query, &found, true) };
                known.push((original, value));
                value
            });
            values.push((found.sublink, node::copy(value)));
        }
    }
    (!values.is_empty()).then(|| replaced(expr, &values))
}

pub fn is_grouped(query: &pg_sys::Query) -> bool {
    query.hasAggs
        || !query.groupClause.is_null()
        || !query.groupingSets.is_null()
        || !query.havingQual.is_null()
}

/// The query's own aggregates in an expression, but for those with arguments that are evaluated once for a group: what is
/// grouped by may be null there.
fn aggregates(expr: Node) -> Vec<Node> {
    let mut found = vec![];
    node::visit(expr, &mut |node| {
        let aggregate = get::<pg_sys::Aggref>(node);
        let is_own = aggregate.is_some_and(|aggregate| aggregate.agglevelsup == 0);
        let is_for_rows = aggregate.is_some_and(|aggregate| aggregate.aggdirectargs.is_null());
        if is_own && is_for_rows {
            found.push(node);
        }
        !is_own && tag(node) != NodeTag::T_SubLink
    });
    found
}

/// Whether an expression has subqueries elsewhere than in aggregates.
pub fn has_sublinks_over_groups(expr: Node) -> bool {
    let mut has = false;
    node::visit(expr, &mut |node| {
        has |= tag(node) == NodeTag::T_SubLink;
        let aggregate = get::<pg_sys::Aggref>(node);
        !has && aggregate.is_none_or(|aggregate| aggregate.agglevelsup > 0)
    });
    has
}

/// What is grouped by and may have subqueries: these are nowhere else, but in aggregates.
fn groups_with_sublinks(query: &pg_sys::Query) -> Vec<pg_sys::Index> {
    let references = group_references(query);
    let targets = nodes(query.targetList).into_iter();
    let elsewhere = targets
        .filter_map(get::<pg_sys::TargetEntry>)
        .filter(|target| !references.contains(&target.ressortgroupref))
        .any(|target| has_sublinks_over_groups(target.expr.cast()));
    // Grouping sets would make them null.
    if elsewhere || !query.groupingSets.is_null() || has_sublinks_over_groups(query.havingQual) {
        return vec![];
    }
    references
}

/// Which outputs the query is grouped by.
pub fn group_references(query: &pg_sys::Query) -> Vec<pg_sys::Index> {
    let clauses = nodes(query.groupClause).into_iter();
    clauses
        .filter_map(get::<pg_sys::SortGroupClause>)
        .map(|clause| clause.tleSortGroupRef)
        .collect()
}
