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
//! * [`lateral`]: subqueries in FROM; [`quantified`]: comparisons with all rows of a subquery
//! * [`errors`]: expressions that raise none
//! * [`levels`]: whose columns an expression uses

mod errors;
mod join;
mod lateral;
mod levels;
mod quantified;
mod ranked;
mod sublink;
mod target;

pub use errors::is_safe;
pub use target::raises_nothing;

use crate::lower::node::{self, Node, get, nodes};
use pgrx::pg_sys;

/// Rewrites a query and those in it, in place.
///
/// # Safety
/// An analysed and rewritten query that only the caller knows, in the current memory context, whose
/// relations are locked.
pub unsafe fn decorrelate(query: *mut pg_sys::Query) {
    // SAFETY: by contract.
    unsafe { lateral::rewrite(query) };
    let harmless = quantified::may_come_later(query);
    node::each_query(query, &mut |part| {
        // SAFETY: by contract; parts of the query.
        unsafe {
            let filters = part == query && quantified::filters_one_table(&*part);
            rewrite(part, harmless || filters);
        }
    });
}

/// `may_come_later`: also comparisons with all rows of a subquery, or its first one, instead of which others may be
/// evaluated first then.
unsafe fn rewrite(query: *mut pg_sys::Query, may_come_later: bool) {
    // SAFETY: by contract; no other reference to it is held meanwhile.
    let outer = unsafe { &mut *query };
    if !outer.hasSubLinks || !is_open(outer) {
        return;
    }
    // SAFETY: a SELECT has a join tree.
    let quals = conjuncts(unsafe { (*outer.jointree).quals });
    let mut rewritten = vec![];
    let mut changed = false;
    for qual in quals {
        let found =
            sublink::correlated(qual).filter(|found| may_come_later || !found.gives_first_row);
        if let Some(found) = found {
            // SAFETY: both are parts of the query.
            rewritten.extend(unsafe { join::attach(outer, qual, &found) });
            changed = true;
        } else if may_come_later && let Some(negation) = quantified::as_not_exists(qual) {
            rewritten.push(negation);
            changed = true;
        } else {
            rewritten.push(qual);
        }
    }
    if changed {
        // SAFETY: as above; there is at least one qual.
        unsafe {
            (*outer.jointree).quals = pg_sys::make_ands_explicit(node::list(rewritten)).cast();
        }
    }
    // SAFETY: by contract.
    changed |= unsafe { rewrite_results(outer) };
    if changed {
        // SAFETY: as above.
        unsafe {
            outer.hasSubLinks = pg_sys::checkExprHasSubLink(query.cast());
        }
    }
}

/// The same for the target list, where each row is a result. Returns whether there was something to do.
///
/// # Safety
/// As for `rewrite`.
unsafe fn rewrite_results(outer: &mut pg_sys::Query) -> bool {
    if !gives_its_rows(outer) {
        return false;
    }
    let mut changed = false;
    for entry in nodes(outer.targetList) {
        if node::tag(entry) != pg_sys::NodeTag::T_TargetEntry {
            continue;
        }
        let entry = entry.cast::<pg_sys::TargetEntry>();
        // SAFETY: as its tag says; a part of the query.
        let expr: Node = unsafe { (*entry).expr.cast() };
        let Some(found) = sublink::correlated_result(expr) else {
            continue;
        };
        // SAFETY: both are parts of the query; a left join leaves one expression.
        let value = unsafe { join::attach(outer, expr, &found) };
        if let &[value] = value.as_slice() {
            // SAFETY: as above.
            unsafe { (*entry).expr = value.cast() };
            changed = true;
        }
    }
    changed
}

/// Whether the target list is computed for each row that passes WHERE, once.
fn gives_its_rows(query: &pg_sys::Query) -> bool {
    !query.hasAggs
        && !query.hasWindowFuncs
        && !query.hasTargetSRFs
        && query.groupClause.is_null()
        && query.groupingSets.is_null()
        && query.havingQual.is_null()
        && query.distinctClause.is_null()
        && query.setOperations.is_null()
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
