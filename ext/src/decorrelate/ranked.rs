//! A subquery that gives rows for one value of its keys as one that gives them for all values.

use super::join::{column, group_clause, key_clause, output};
use super::sublink::{Key, Places};
use crate::lower::node::{self, Node, alloc, get, list, nodes, tag};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// `int8 <= int8` in `pg_operator`.
const INT8_LESS_OR_EQUAL: u32 = 414;
/// `int8 > int8`.
const INT8_GREATER: u32 = 413;

/// Outputs of such a subquery: numbers, from 1, and what they are there.
pub struct Grouped {
    keys: Vec<(i16, Node)>,
    /// The place of a row among those of its group, and those that count.
    place: Option<(i16, Node, Places)>,
}

/// Has the subquery say of its rows which keys they have and what their place in its order is, instead of giving those
/// at certain places.
///
/// # Safety
/// A query without windows that only the caller knows; `keys` and `filters` are all terms of its WHERE.
pub unsafe fn number_rows(
    query: &mut pg_sys::Query,
    keys: &[Key],
    filters: &[Node],
    places: Places,
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
        query.limitOffset = std::ptr::null_mut();

        let call = alloc::<pg_sys::WindowFunc>();
        (*call).winfnoid = pg_sys::Oid::from(pg_sys::F_ROW_NUMBER);
        (*call).wintype = pg_sys::INT8OID;
        (*call).winref = 1;
        (*call).location = -1;
        let number = add_output(query, call.cast(), c"place");
        Grouped {
            keys,
            place: Some((number, call.cast(), places)),
        }
    }
}

/// Has a subquery give its rows for each value of the keys: those of its tables, of its groups, or those that differ.
///
/// # Safety
/// As of [`number_rows`].
pub unsafe fn group_rows(query: &mut pg_sys::Query, keys: &[Key], filters: &[Node]) -> Grouped {
    // SAFETY: by contract.
    let (keys, groups) = unsafe { add_keys(query, keys, filters) };
    if query.hasAggs || !query.groupClause.is_null() {
        query.groupClause = added(query.groupClause, groups);
    }
    if !query.distinctClause.is_null() {
        query.distinctClause = added(query.distinctClause, groups);
    }
    Grouped { keys, place: None }
}

/// The clauses, and those of others that are about other outputs.
fn added(clauses: *mut pg_sys::List, others: *mut pg_sys::List) -> *mut pg_sys::List {
    let reference =
        |node: &Node| get::<pg_sys::SortGroupClause>(*node).map(|clause| clause.tleSortGroupRef);
    let clauses = nodes(clauses);
    let known: Vec<_> = clauses.iter().map(reference).collect();
    let others = nodes(others).into_iter();
    let others = others.filter(|other| !known.contains(&reference(other)));
    // Each list has its own clauses.
    list(clauses.into_iter().chain(others.map(node::copy)))
}

impl Grouped {
    /// Which of its rows belong to a row of the query around it, where it is entry `rtindex`. `keys` are those that it
    /// was made with.
    pub fn conditions(&self, keys: &[Key], rtindex: i32) -> Vec<Node> {
        let mut conditions: Vec<Node> = (keys.iter().zip(&self.keys))
            .map(|(key, (number, like))| key_clause(key, column(rtindex, *number, *like)))
            .collect();
        if let Some((number, like, places)) = self.place {
            let place = || column(rtindex, number, like);
            let bound = |operator, value| compared(place(), operator, value);
            conditions.extend(places.last.map(|last| bound(INT8_LESS_OR_EQUAL, last)));
            let after = (places.after > 0).then_some(places.after);
            conditions.extend(after.map(|after| bound(INT8_GREATER, after)));
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
pub fn number_of(query: &pg_sys::Query, expr: Node) -> Option<i16> {
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

/// Returns its number, from 1.
pub fn add_output(query: &mut pg_sys::Query, expr: Node, name: &std::ffi::CStr) -> i16 {
    let number = nodes(query.targetList).len() as i16 + 1;
    let entry = output(number, expr, name);
    // SAFETY: a list of entries, and a new one.
    query.targetList = unsafe { pg_sys::lappend(query.targetList, entry.cast()) };
    number
}

fn compared(place: Node, operator: u32, value: i64) -> Node {
    // SAFETY: makes nodes.
    unsafe {
        let value = pg_sys::makeConst(
            pg_sys::INT8OID,
            -1,
            pg_sys::InvalidOid,
            size_of::<i64>() as i32,
            pg_sys::Datum::from(value),
            false,
            true,
        );
        pg_sys::make_opclause(
            pg_sys::Oid::from(operator),
            pg_sys::BOOLOID,
            false,
            place.cast(),
            value.cast(),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
        )
        .cast()
    }
}
