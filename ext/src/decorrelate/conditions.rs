//! Subqueries in ON. Of an inner join, they are terms of WHERE. Of an outer one, they are joined to the side that they
//! depend on, below it.

use super::join::or_false;
use super::lateral::depend_on;
use super::{becomes_join, conjuncts, join, replaced, sublink};
use crate::lower::node::{Node, list, nodes, tag};
use pgrx::pg_sys;
use pgrx::pg_sys::JoinType::{JOIN_FULL, JOIN_INNER, JOIN_LEFT, JOIN_RIGHT};
use pgrx::pg_sys::NodeTag;

/// Rewrites a query; returns whether there was something to do. `keeps_rows`: all rows must be read, whatever they are
/// joined with.
///
/// # Safety
/// As of `decorrelate`, for the query alone, whose conditions may be evaluated in any order.
pub unsafe fn rewrite(query: &mut pg_sys::Query, keeps_rows: bool) -> bool {
    // SAFETY: by contract; a SELECT has a join tree.
    unsafe {
        let from = query.jointree;
        let mut moved = vec![];
        let mut changed = false;
        for item in nodes((*from).fromlist) {
            changed |= rewrite_join(query, item, true, keeps_rows, &mut moved);
        }
        if !moved.is_empty() {
            (*from).quals = joined_by_and(conjuncts((*from).quals).into_iter().chain(moved));
        }
        changed
    }
}

/// Null for no terms.
fn joined_by_and(terms: impl IntoIterator<Item = Node>) -> Node {
    let terms = list(terms);
    if terms.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: a list of conditions.
    unsafe { pg_sys::make_ands_explicit(terms).cast() }
}

/// `is_top`: what doesn't pass its conditions is nowhere in the result. `moved` are terms for WHERE.
unsafe fn rewrite_join(
    query: &mut pg_sys::Query,
    node: Node,
    is_top: bool,
    keeps_rows: bool,
    moved: &mut Vec<Node>,
) -> bool {
    if tag(node) != NodeTag::T_JoinExpr {
        return false;
    }
    // SAFETY: raises an error if the stack is nearly used up; as its tag says, and nobody else holds a reference.
    unsafe {
        pg_sys::check_stack_depth();
        let found = node.cast::<pg_sys::JoinExpr>();
        let kind = (*found).jointype;
        let is_left_top = is_top && matches!(kind, JOIN_INNER | JOIN_LEFT);
        let is_right_top = is_top && matches!(kind, JOIN_INNER | JOIN_RIGHT);
        let mut changed = rewrite_join(query, (*found).larg, is_left_top, keeps_rows, moved);
        changed |= rewrite_join(query, (*found).rarg, is_right_top, keeps_rows, moved);
        if kind == JOIN_INNER && is_top {
            let terms = conjuncts((*found).quals).into_iter();
            let (above, kept): (Vec<Node>, Vec<Node>) = terms.partition(|term| becomes_join(*term));
            if !above.is_empty() {
                (*found).quals = joined_by_and(kept);
                moved.extend(above);
                changed = true;
            }
        } else if kind != JOIN_FULL {
            changed |= attach_below(query, &mut *found, keeps_rows);
        }
        changed
    }
}

/// Joins the subqueries in a join's conditions to its sides.
unsafe fn attach_below(
    query: &mut pg_sys::Query,
    join: &mut pg_sys::JoinExpr,
    keeps_rows: bool,
) -> bool {
    let (mut terms, mut changed) = (vec![], false);
    for term in conjuncts(join.quals) {
        let found = sublink::correlated(term);
        let sides: Option<Vec<bool>> = found.iter().map(|found| is_of_left(join, found)).collect();
        let Some(sides) = sides.filter(|sides| !sides.is_empty()) else {
            terms.push(term);
            continue;
        };
        let mut values = vec![];
        for (found, is_left) in found.iter().zip(sides) {
            let side = if is_left {
                &mut join.larg
            } else {
                &mut join.rarg
            };
            // SAFETY: by contract; the side has all that it depends on.
            let (joined, value) = unsafe { join::attach_to(query, *side, found) };
            *side = joined;
            values.push((found.sublink, value));
        }
        let term = replaced(term, &values);
        terms.push(if keeps_rows { or_false(term) } else { term });
        changed = true;
    }
    if changed {
        join.quals = joined_by_and(terms);
    }
    changed
}

/// Whether the subquery depends on a join's left side alone, or on the right one; `None` if on both, or others.
fn is_of_left(join: &pg_sys::JoinExpr, found: &sublink::Correlated) -> Option<bool> {
    let depends_on = |side: Node| depend_on(&found.keys, side);
    if depends_on(join.larg) {
        return Some(true);
    }
    depends_on(join.rarg).then_some(false)
}
