//! Correlated scalar subqueries as joins: `x < (SELECT avg(y) FROM t WHERE t.a = o.a)` in a WHERE or among
//! the results becomes a join with `SELECT a, avg(y) FROM t GROUP BY a`, and one with `ORDER BY … LIMIT 1` a join with the
//! first row of each `a`. So do subqueries in FROM that are LATERAL, and `<> ALL` and `NOT IN` become `NOT EXISTS`.
//!
//! Postgres runs such a subquery for each row, which is right where few rows ask and an index answers;
//! the engine wants to compute all groups at once. So this is done to queries that are planned for the
//! engine only, and `crate::replan` compares the plans.
//!
//! The join looks at rows and groups that nobody may have asked for, and in another order. So what it
//! evaluates must not be able to raise an error ([`errors`]), nor be volatile. Whatever isn't known to
//! fit stays as it was.
//!
//! * [`sublink`]: which subqueries fit
//! * [`target`]: what such a subquery returns
//! * [`join`]: what takes the place; [`ranked`]: a subquery for all values of its keys
//! * [`results`]: subqueries in results, aggregates and window functions; [`conditions`]: those in ON
//! * [`split`]: those in HAVING and results over groups
//! * [`lateral`]: subqueries in FROM; [`one_row`]: those that give a row in any case
//! * [`quantified`]: comparisons with all rows of a subquery
//! * [`harm`]: whether conditions may be evaluated in another order; [`errors`]: expressions that raise none
//! * [`levels`]: whose columns an expression uses

mod conditions;
mod errors;
mod harm;
mod join;
mod lateral;
mod levels;
mod one_row;
mod quantified;
mod ranked;
mod results;
mod split;
mod sublink;
mod target;

pub use errors::is_safe;
pub use target::raises_nothing;

use crate::lower::node::{self, Node, get, nodes};
use pgrx::pg_sys;

/// A statement with more subqueries that could become joins is left alone: the planner goes down as many joins, on a stack
/// that has an end, where it plans subqueries side by side.
const MOST_JOINS: usize = 100;

/// Rewrites a query and those in it, in place.
///
/// # Safety
/// An analysed and rewritten query that only the caller knows, in the current memory context, whose
/// relations are locked.
pub unsafe fn decorrelate(query: *mut pg_sys::Query) {
    if !(1..=MOST_JOINS).contains(&candidates(query)) {
        return;
    }
    // SAFETY: by contract.
    unsafe { lateral::rewrite(query) };
    // From the inside: what is split has copies of what was in it.
    for part in harm::parts(query).into_iter().rev() {
        for query in part.queries.iter().rev() {
            let comes_last = part.last.contains(query);
            // SAFETY: by contract; parts of the query.
            unsafe { rewrite(*query, part.harmless, comes_last) };
        }
    }
}

/// How many subqueries could become joins. If there are more than [`MOST_JOINS`], not all are counted.
fn candidates(top: *mut pg_sys::Query) -> usize {
    let mut count = 0;
    node::each_query(top, &mut |query| {
        // SAFETY: a part of the caller's query.
        let entries = entries(unsafe { &*query });
        count += entries.filter(|entry| entry.lateral).count();
        node::visit_query(query, &mut |node| {
            count += usize::from(count <= MOST_JOINS && harm::depends_on_rows(node));
            node::tag(node) != pg_sys::NodeTag::T_Query
        });
    });
    count
}

/// `may_come_later`: also terms of WHERE, instead of which others may be evaluated first then. `comes_last`: the query's
/// results are evaluated after all else.
unsafe fn rewrite(query: *mut pg_sys::Query, may_come_later: bool, comes_last: bool) {
    // SAFETY: by contract; no other reference to it is held meanwhile.
    unsafe {
        if !(*query).hasSubLinks || !is_open(&*query) {
            return;
        }
        let is_filter = may_come_later || comes_last;
        let inner = split::split(&mut *query, is_filter, comes_last);
        if let Some(inner) = inner {
            rewrite_level(inner, may_come_later);
            // Its only conditions are those that become joins.
            rewrite_level(query, is_filter);
        } else {
            rewrite_level(query, may_come_later);
        }
    }
}

unsafe fn rewrite_level(query: *mut pg_sys::Query, may_come_later: bool) {
    // SAFETY: by contract; no other reference to it is held meanwhile.
    let outer = unsafe { &mut *query };
    if !outer.hasSubLinks {
        return;
    }
    let mut changed = false;
    if may_come_later {
        let keeps_rows = !harm::reads_safely(outer);
        // SAFETY: by contract.
        changed |= unsafe { conditions::rewrite(outer, keeps_rows) };
        // SAFETY: a SELECT has a join tree.
        let quals = conjuncts(unsafe { (*outer.jointree).quals });
        let mut rewritten = vec![];
        for qual in quals {
            let found = sublink::correlated(qual);
            if !found.is_empty() {
                // SAFETY: they are parts of the query.
                let (qual, clauses) = unsafe { attached(outer, qual, &found, keeps_rows) };
                rewritten.extend(clauses);
                rewritten.push(qual);
                changed = true;
            } else if let Some(negation) = quantified::as_not_exists(qual) {
                rewritten.push(negation);
                changed = true;
            } else {
                rewritten.push(qual);
            }
        }
        if !rewritten.is_empty() {
            // SAFETY: as above.
            unsafe {
                (*outer.jointree).quals = pg_sys::make_ands_explicit(node::list(rewritten)).cast();
            }
        }
    }
    // SAFETY: by contract.
    changed |= unsafe { results::rewrite(outer) };
    if changed {
        // SAFETY: as above.
        unsafe {
            outer.hasSubLinks = pg_sys::checkExprHasSubLink(query.cast());
        }
    }
}

/// Whether a term of WHERE becomes one of joins.
fn becomes_join(term: Node) -> bool {
    !sublink::correlated(term).is_empty() || quantified::as_not_exists(term).is_some()
}

/// Joins subqueries of a term of the query's WHERE. Returns what is to be there instead. `keeps_rows`: all rows must be
/// read, whatever they are joined with.
///
/// # Safety
/// As of `join::attach`.
unsafe fn attached(
    outer: &mut pg_sys::Query,
    term: Node,
    found: &[sublink::Correlated],
    keeps_rows: bool,
) -> (Node, Vec<Node>) {
    let (mut values, mut clauses) = (vec![], vec![]);
    for found in found {
        // SAFETY: by contract.
        let (value, added) = unsafe { join::attach(outer, found, keeps_rows) };
        values.push((found.sublink, value));
        clauses.extend(added);
    }
    let term = replaced(term, &values);
    let term = if keeps_rows {
        join::or_false(term)
    } else {
        term
    };
    (term, clauses)
}

/// The expression, with values instead of its subqueries.
fn replaced(expr: Node, values: &[(Node, Node)]) -> Node {
    node::rewrite(expr, &mut |node| {
        let found = values.iter().find(|(sublink, _)| *sublink == node);
        found.map(|(_, value)| *value)
    })
}

/// Whether the query's own WHERE may be looked at. Quals of row security and of security barriers
/// must come before others, so that queries with these are left alone.
fn is_open(query: &pg_sys::Query) -> bool {
    query.commandType == pg_sys::CmdType::CMD_SELECT
        && !query.hasRowSecurity
        && query.rowMarks.is_null()
        && !query.jointree.is_null()
        && entries(query).all(|entry| entry.securityQuals.is_null() && !entry.security_barrier)
}

/// The query's range table.
fn entries(query: &pg_sys::Query) -> impl Iterator<Item = &pg_sys::RangeTblEntry> {
    nodes(query.rtable)
        .into_iter()
        .filter_map(get::<pg_sys::RangeTblEntry>)
}

/// The terms that are joined by AND at the top.
fn conjuncts(quals: Node) -> Vec<Node> {
    match get::<pg_sys::BoolExpr>(quals) {
        Some(and) if and.boolop == pg_sys::BoolExprType::AND_EXPR => {
            nodes(and.args).into_iter().flat_map(conjuncts).collect()
        }
        _ if quals.is_null() => vec![],
        _ => vec![quals],
    }
}
