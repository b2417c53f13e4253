//! `LATERAL (SELECT count(*), … FROM t WHERE t.a = o.a)`: a row for each row of what stands before it, in any case. It
//! becomes a left join with all groups, and its columns expressions over their aggregates: those of a row without a group
//! are what the subquery gave over no rows.

use super::join::{Place, over_groups, placed};
use super::ranked::{add_output, number_of};
use super::{entries, target};
use crate::lower::node::{self, Node, get, tag};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// The values of such an entry's columns.
pub struct OneRow {
    place: Place,
    columns: Vec<Node>,
}

impl OneRow {
    /// The subquery's own; `join` is the left join's entry.
    pub fn of(query: &pg_sys::Query, rtindex: i32, join: i32) -> OneRow {
        let place = Place {
            rtindex,
            nulled_by: Some(join),
        };
        OneRow {
            place,
            columns: node::target_exprs(query.targetList),
        }
    }

    /// Seen from the query around, once the subquery, which returns more then, gives its groups.
    pub fn with_aggregates(self, query: &mut pg_sys::Query) -> OneRow {
        let place = self.place;
        let mut seen = |(at, column): (usize, Node)| {
            if target::is_null_over_no_rows(column) {
                return placed(place, at, column);
            }
            node::rewrite(column, &mut |node| {
                let aggregate = get::<pg_sys::Aggref>(node)?;
                let number = match number_of(query, node) {
                    Some(number) => number,
                    None => add_output(query, node, c"aggregate"),
                };
                Some(over_groups(place, number as usize - 1, aggregate))
            })
        };
        let columns = self.columns.into_iter().enumerate();
        let columns = columns.map(&mut seen).collect();
        OneRow { place, columns }
    }
}

/// Whether the columns of an entry may be expressions: no other join than `join` makes them null, and nothing looks at
/// columns of a join.
pub fn is_replaceable(query: *mut pg_sys::Query, rtindex: i32, join: Option<i32>) -> bool {
    // SAFETY: the caller's query; makes a set.
    let (kinds, nulling) = unsafe {
        let kinds: Vec<_> = entries(&*query).map(|entry| entry.rtekind).collect();
        let nulling = join.map_or(std::ptr::null_mut(), |join| {
            pg_sys::bms_make_singleton(join)
        });
        (kinds, nulling)
    };
    let is_fit = |var: &pg_sys::Var| {
        if var.varno == rtindex {
            // SAFETY: sets.
            let nulled = unsafe { !pg_sys::bms_is_subset(var.varnullingrels, nulling) };
            return var.varattno > 0 && !nulled;
        }
        let at = usize::try_from(var.varno).unwrap_or(0).wrapping_sub(1);
        kinds.get(at) != Some(&pg_sys::RTEKind::RTE_JOIN)
    };
    let mut fit = true;
    each_var(query, 0, &mut |var| fit &= is_fit(var));
    fit
}

/// Calls `f` for the columns of the query `depth` levels out.
fn each_var(query: *mut pg_sys::Query, depth: pg_sys::Index, f: &mut dyn FnMut(&pg_sys::Var)) {
    // SAFETY: raises an error if the stack is nearly used up.
    unsafe { pg_sys::check_stack_depth() };
    node::visit_query(query, &mut |node| {
        if let Some(var) = get::<pg_sys::Var>(node).filter(|var| var.varlevelsup == depth) {
            f(var);
        }
        let is_query = tag(node) == NodeTag::T_Query;
        if is_query {
            each_var(node.cast(), depth + 1, f);
        }
        !is_query
    });
}

/// Puts the values in place of the columns.
///
/// # Safety
/// A query that only the caller knows, with the joins.
pub unsafe fn replace(query: &mut pg_sys::Query, rows: &[OneRow]) {
    if rows.is_empty() {
        return;
    }
    let copy = node::rewrite_query(query, &mut |node| value(node, 0, rows));
    // SAFETY: another query.
    unsafe { std::ptr::copy_nonoverlapping(copy, query, 1) };
}

fn value(node: Node, depth: pg_sys::Index, rows: &[OneRow]) -> Option<Node> {
    if tag(node) == NodeTag::T_Query {
        let copy = node::rewrite_query(node.cast(), &mut |node| value(node, depth + 1, rows));
        return Some(copy.cast());
    }
    let var = get::<pg_sys::Var>(node).filter(|var| var.varlevelsup == depth)?;
    let row = rows.iter().find(|row| row.place.rtindex == var.varno)?;
    let at = usize::try_from(var.varattno).ok()?.checked_sub(1)?;
    let value = node::copy(*row.columns.get(at)?);
    // SAFETY: a copy, whose columns are of the query.
    unsafe { pg_sys::IncrementVarSublevelsUp(value, depth as i32, 0) };
    Some(value)
}
