//! A subquery that gives rows for one value of its keys as one that gives them for all values.

use super::join::{column, group_clause, key_clause, output};
use super::sublink::Key;
use crate::lower::node::{self, Node, alloc, get, list, nodes, tag};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// `int8 <= int8` in `pg_operator`.
const INT8_LESS_OR_EQUAL: u32 = 414;

/// Outputs of such a subquery: numbers, from 1, and what they are there.
pub struct Grouped {
    keys: Vec<(i16, Node)>,
    /// The place of a row among those of its group, and the last place that counts.
    place: Option<(i16, Node, i64)>,
}

/// Has the subquery say of its rows which keys they have and what their place in its order is, instead of giving the
/// first `count` ones.
///
/// # Safety
/// A query without windows that only the caller knows; `keys` and `filters` are all terms of its WHERE.
pub unsafe fn number_rows(
    query: &mut pg_sys::Query,
    keys: &[Key],
    filters: &[Node],
    count: i64,
) -> Grouped {
    // SAFETY: by contract; new nodes.
    unsafe {
        let (keys, groups) = add_keys(query, keys, filters);
        let window = alloc::<pg_sys::WindowClause>();
        (*window).partitionClause = groups;
        (*window).orderClause = query.sortClause;
        (*window).frameOptions = pg_sys::FRAMEOPTION_DEFAULTS as i32;
        (*window).winref = 1;
        query.windowClause = list([window.cast()]);
        query.hasWindowFuncs = true;
        query.sortClause = std::ptr::null_mut();
        query.limitCount = std::ptr::null_mut();

        let call = alloc::<pg_sys::WindowFunc>();
        (*call).winfnoid = pg_sys::Oid::from(pg_sys::F_ROW_NUMBER);
        (*call).wintype = pg_sys::INT8OID;
        (*call).winref = 1;
        (*call).location = -1;
        let number = add_output(query, call.cast(), c"place");
        Grouped {
            keys,
            place: Some((number, call.cast(), count)),
        }
    }
}

/// Has a subquery of aggregates give a row for each of its groups.
///
/// # Safety
/// As of [`number_rows`].
pub unsafe fn group_rows(query: &mut pg_sys::Query, keys: &[Key], filters: &[Node]) -> Grouped {
    // SAFETY: by contract.
    let (keys, groups) = unsafe { add_keys(query, keys, filters) };
    query.groupClause = groups;
    Grouped { keys, place: None }
}

impl Grouped {
    /// Which of its rows belong to a row of the query around it, where it is entry `rtindex`. `keys` are those that it
    /// was made with.
    pub fn conditions(&self, keys: &[Key], rtindex: i32) -> Vec<Node> {
        let mut conditions: Vec<Node> = (keys.iter().zip(&self.keys))
            .map(|(key, (number, like))| key_clause(key, column(rtindex, *number, *like)))
            .collect();
        if let Some((number, like, count)) = self.place {
            conditions.push(at_most(column(rtindex, number, like), count));
        }
        conditions
    }
}

/// Leaves only the filters in the query's WHERE, and has it return its keys. The clauses group by these.
unsafe fn add_keys(
    query: &mut pg_sys::Query,
    keys: &[Key],
    filters: &[Node],
) -> (Vec<(i16, Node)>, *mut pg_sys::List) {
    let (mut outputs, mut groups, mut references) = (vec![], vec![], vec![]);
    // SAFETY: the caller's; entries of its target list.
    unsafe {
        (*query.jointree).quals = match filters.is_empty() {
            true => std::ptr::null_mut(),
            false => pg_sys::make_ands_explicit(list(filters.iter().copied())).cast(),
        };
        // What it is only sorted by would have to come last.
        for entry in nodes(query.targetList) {
            if tag(entry) == NodeTag::T_TargetEntry {
                let entry = entry.cast::<pg_sys::TargetEntry>();
                (*entry).resjunk = false;
            }
        }
        for key in keys {
            let number = match number_of(query, key.inner) {
                Some(number) => number,
                None => add_output(query, key.inner, c"key"),
            };
            let at = number as i32 - 1;
            let entry = pg_sys::list_nth(query.targetList, at).cast::<pg_sys::TargetEntry>();
            if (*entry).ressortgroupref == 0 {
                (*entry).ressortgroupref = next_reference(query);
            }
            let reference = (*entry).ressortgroupref;
            if !references.contains(&reference) {
                references.push(reference);
                groups.push(group_clause(reference, key.inner).cast());
            }
            outputs.push((number, key.inner));
        }
    }
    (outputs, list(groups))
}

/// The output that is this expression.
fn number_of(query: &pg_sys::Query, expr: Node) -> Option<i16> {
    let outputs = node::target_exprs(query.targetList);
    (1..)
        .zip(outputs)
        // SAFETY: compares expressions.
        .find(|(_, output)| unsafe { pg_sys::equal(output.cast(), expr.cast()) })
        .map(|(number, _)| number)
}

fn next_reference(query: &pg_sys::Query) -> pg_sys::Index {
    let entries = nodes(query.targetList).into_iter();
    let references = entries.filter_map(get::<pg_sys::TargetEntry>);
    1 + references
        .map(|entry| entry.ressortgroupref)
        .max()
        .unwrap_or(0)
}

fn add_output(query: &mut pg_sys::Query, expr: Node, name: &std::ffi::CStr) -> i16 {
    let number = nodes(query.targetList).len() as i16 + 1;
    let entry = output(number, expr, name);
    // SAFETY: a list of entries, and a new one.
    query.targetList = unsafe { pg_sys::lappend(query.targetList, entry.cast()) };
    number
}

fn at_most(place: Node, count: i64) -> Node {
    // SAFETY: makes nodes.
    unsafe {
        let last = pg_sys::makeConst(
            pg_sys::INT8OID,
            -1,
            pg_sys::InvalidOid,
            size_of::<i64>() as i32,
            pg_sys::Datum::from(count),
            false,
            true,
        );
        pg_sys::make_opclause(
            pg_sys::Oid::from(INT8_LESS_OR_EQUAL),
            pg_sys::BOOLOID,
            false,
            place.cast(),
            last.cast(),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
        )
        .cast()
    }
}
