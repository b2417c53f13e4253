//! The join that takes a subquery's place.
//!
//! The subquery returns its keys and aggregates, grouped by the keys; what it returned is computed from
//! the aggregates in the expression. A row of the query that finds no group is one for which the subquery
//! found no row. If the qual rejects it then, the join is an inner one. Otherwise it is a left join:
//! its nulls are what the aggregates are over no rows, but for `count`, which is 0.

use super::ranked::{group_rows, number_rows};
use super::sublink::{Correlated, Gives, Key};
use super::target::is_count;
use crate::lower::node::{self, Node, alloc, get, list, nodes, tag};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;
use std::ffi::CStr;

/// Where the grouped subquery is, seen from the query around it.
#[derive(Clone, Copy)]
pub struct Place {
    pub rtindex: i32,
    /// The left join that makes its columns null, in quals above it.
    pub nulled_by: Option<i32>,
}

/// Joins the subquery to the query. Returns what takes its place in the expression, and what WHERE has to say besides:
/// nothing if the join `keeps_rows` that find none.
///
/// # Safety
/// `found` is in an expression of the query that is evaluated for rows of its FROM, and nobody else knows these.
pub unsafe fn attach(
    query: &mut pg_sys::Query,
    found: &Correlated,
    keeps_rows: bool,
) -> (Node, Vec<Node>) {
    // SAFETY: by contract; a query with subqueries that fit has a join tree.
    unsafe {
        let (place, clauses, value) = enter(query, found, keeps_rows || !found.rejects_empty);
        let from = &mut *query.jointree;
        let reference = reference(place.rtindex);
        let Some(join) = place.nulled_by else {
            from.fromlist = pg_sys::lappend(from.fromlist, reference.cast());
            return (value, clauses);
        };
        let before = alloc::<pg_sys::FromExpr>();
        (*before).fromlist = from.fromlist;
        from.fromlist = list([left_join(before.cast(), reference, clauses, join)]);
        (value, vec![])
    }
}

/// Joins the subquery to a part of FROM, which it returns with what takes the subquery's place in conditions on that.
///
/// # Safety
/// As of [`attach`]; all that the subquery depends on is in that part.
pub unsafe fn attach_to(query: &mut pg_sys::Query, part: Node, found: &Correlated) -> (Node, Node) {
    // SAFETY: by contract.
    unsafe {
        let (place, clauses, value) = enter(query, found, true);
        let join = place.nulled_by.unwrap_or_default();
        let joined = left_join(part, reference(place.rtindex), clauses, join);
        (joined, value)
    }
}

/// Makes the subquery an entry, and what it is joined by.
unsafe fn enter(
    query: &mut pg_sys::Query,
    found: &Correlated,
    is_outer: bool,
) -> (Place, Vec<Node>, Node) {
    // SAFETY: the caller's.
    unsafe {
        let rtindex = pg_sys::list_length(query.rtable) + 1;
        let nulled_by = is_outer.then_some(rtindex + 1);
        let place = Place { rtindex, nulled_by };
        let (clauses, value) = match found.gives {
            Gives::Aggregates => {
                let columns = group(found);
                let keys = found.keys.iter();
                let clauses = keys.map(|key| columns.clause(key, rtindex));
                (clauses.collect(), columns.value(found.target, place))
            }
            Gives::Place(places) => {
                let inner = &mut *found.query;
                let numbered = number_rows(inner, &found.keys, &found.filters, places);
                let clauses = numbered.conditions(&found.keys, rtindex);
                (clauses, placed(place, 0, found.target))
            }
            Gives::ByKey => {
                let rows = group_rows(&mut *found.query, &found.keys, &found.filters);
                let clauses = rows.conditions(&found.keys, rtindex);
                (clauses, placed(place, 0, found.target))
            }
        };
        let entry = subquery_entry(found.query, c"grouped");
        query.rtable = pg_sys::lappend(query.rtable, entry.cast());
        if is_outer {
            query.rtable = pg_sys::lappend(query.rtable, join_entry().cast());
        }
        (place, clauses, value)
    }
}

pub fn reference(rtindex: i32) -> Node {
    let reference = alloc::<pg_sys::RangeTblRef>();
    // SAFETY: a new node.
    unsafe { (*reference).rtindex = rtindex };
    reference.cast()
}

/// `rtindex` is the join's own.
pub fn left_join(left: Node, right: Node, clauses: Vec<Node>, rtindex: i32) -> Node {
    let join = alloc::<pg_sys::JoinExpr>();
    // SAFETY: a new node; there is a clause.
    unsafe {
        (*join).jointype = pg_sys::JoinType::JOIN_LEFT;
        (*join).larg = left;
        (*join).rarg = right;
        (*join).quals = pg_sys::make_ands_explicit(list(clauses)).cast();
        (*join).rtindex = rtindex;
    }
    join.cast()
}

/// The outputs of a grouped subquery.
struct Columns {
    /// Expressions over its tables, each once.
    keys: Vec<Node>,
    /// Calls over its tables, each once; they come after the keys.
    aggregates: Vec<Node>,
}

/// Has the subquery return a row for each of its groups.
unsafe fn group(found: &Correlated) -> Columns {
    let mut keys = vec![];
    for key in &found.keys {
        add(&mut keys, key.inner);
    }
    let mut aggregates = vec![];
    node::visit(found.target, &mut |node| {
        let is_aggregate = tag(node) == NodeTag::T_Aggref;
        if is_aggregate {
            add(&mut aggregates, node);
        }
        !is_aggregate
    });
    let mut outputs: Vec<Node> = vec![];
    let mut groups: Vec<Node> = vec![];
    for (number, key) in (1..).zip(&keys) {
        let output = output(number, *key, c"key");
        // SAFETY: a new node.
        unsafe { (*output).ressortgroupref = number as pg_sys::Index };
        outputs.push(output.cast());
        groups.push(group_clause(number as pg_sys::Index, *key).cast());
    }
    for aggregate in &aggregates {
        let number = outputs.len() as i16 + 1;
        outputs.push(output(number, *aggregate, c"aggregate").cast());
    }
    let filters = found.filters.iter().copied();
    // SAFETY: the caller's.
    unsafe {
        let query = &mut *found.query;
        query.targetList = list(outputs);
        query.groupClause = list(groups);
        (*query.jointree).quals = match found.filters.is_empty() {
            true => std::ptr::null_mut(),
            false => pg_sys::make_ands_explicit(list(filters)).cast(),
        };
    }
    Columns { keys, aggregates }
}

pub fn output(number: i16, expr: Node, name: &CStr) -> *mut pg_sys::TargetEntry {
    let expr = node::copy(expr).cast();
    // SAFETY: makes a node.
    unsafe { pg_sys::makeTargetEntry(expr, number, copied(name), false) }
}

pub fn group_clause(reference: pg_sys::Index, key: Node) -> *mut pg_sys::SortGroupClause {
    let clause = alloc::<pg_sys::SortGroupClause>();
    // SAFETY: a new node; the type has these operators, since its default family has an equality.
    unsafe {
        (*clause).tleSortGroupRef = reference;
        pg_sys::get_sort_group_operators(
            node::type_of(key).0,
            false,
            true,
            false,
            &raw mut (*clause).sortop,
            &raw mut (*clause).eqop,
            std::ptr::null_mut(),
            &raw mut (*clause).hashable,
        );
    }
    clause
}

impl Columns {
    /// The key's equality, in the query around the subquery.
    fn clause(&self, key: &Key, rtindex: i32) -> Node {
        let place = Place {
            rtindex,
            nulled_by: None,
        };
        let inner = placed(place, position(&self.keys, key.inner), key.inner);
        key_clause(key, inner)
    }

    /// What the subquery returned, from its aggregates.
    fn value(&self, target: Node, place: Place) -> Node {
        node::rewrite(target, &mut |node| {
            let aggregate = get::<pg_sys::Aggref>(node)?;
            let number = self.keys.len() + position(&self.aggregates, node);
            Some(over_groups(place, number, aggregate))
        })
    }
}

/// A key's equality, in the query around the subquery, whose output `inner` is.
pub fn key_clause(key: &Key, inner: Node) -> Node {
    let outer = node::copy(key.outer);
    let clause = node::copy(key.clause).cast::<pg_sys::OpExpr>();
    // SAFETY: copies; all columns of `outer` are of the query around.
    unsafe {
        pg_sys::IncrementVarSublevelsUp(outer, -1, 1);
        (*clause).args = list(if key.inner_is_left {
            [inner, outer]
        } else {
            [outer, inner]
        });
    }
    clause.cast()
}

/// The aggregate, which is output `position` (from 0) of the subquery, for a row that may have no group.
pub fn over_groups(place: Place, position: usize, aggregate: &pg_sys::Aggref) -> Node {
    let like: *const pg_sys::Aggref = aggregate;
    let value = placed(place, position, like.cast_mut().cast());
    let counts = is_count(aggregate) && place.nulled_by.is_some();
    if counts { or_zero(value) } else { value }
}

/// Output `position` (from 0) of the subquery.
pub fn placed(place: Place, position: usize, like: Node) -> Node {
    let var = column(place.rtindex, position as i16 + 1, like);
    if let Some(join) = place.nulled_by {
        // SAFETY: a new Var.
        unsafe {
            let var = var.cast::<pg_sys::Var>();
            (*var).varnullingrels = pg_sys::bms_make_singleton(join);
        }
    }
    var
}

/// Output `number` (from 1) of a subquery.
pub fn column(rtindex: i32, number: i16, like: Node) -> Node {
    let (typid, typmod, collation) = node::type_of(like);
    // SAFETY: makes a node.
    unsafe { pg_sys::makeVar(rtindex, number, typid, typmod, collation, 0).cast() }
}

/// `COALESCE(count, 0)`.
fn or_zero(count: Node) -> Node {
    let call = alloc::<pg_sys::CoalesceExpr>();
    // SAFETY: new nodes; `count` returns int8.
    unsafe {
        let zero = pg_sys::makeConst(
            pg_sys::INT8OID,
            -1,
            pg_sys::InvalidOid,
            size_of::<i64>() as i32,
            pg_sys::Datum::from(0i64),
            false,
            true,
        );
        (*call).coalescetype = pg_sys::INT8OID;
        (*call).args = list([count, zero.cast()]);
        (*call).location = -1;
    }
    call.cast()
}

/// `CASE WHEN condition THEN true ELSE false END`: a condition of which the planner doesn't know that it rejects what a left
/// join finds no partner for. It would make an inner join of that.
pub fn or_false(condition: Node) -> Node {
    let when = alloc::<pg_sys::CaseWhen>();
    let case = alloc::<pg_sys::CaseExpr>();
    // SAFETY: new nodes.
    unsafe {
        (*when).expr = condition.cast();
        (*when).result = pg_sys::makeBoolConst(true, false).cast();
        (*when).location = -1;
        (*case).casetype = pg_sys::BOOLOID;
        (*case).args = list([when.cast()]);
        (*case).defresult = pg_sys::makeBoolConst(false, false).cast();
        (*case).location = -1;
    }
    case.cast()
}

/// The subquery's range table entry. Its tables keep the entry's own permissions.
pub fn subquery_entry(query: *mut pg_sys::Query, name: &CStr) -> *mut pg_sys::RangeTblEntry {
    let entry = alloc::<pg_sys::RangeTblEntry>();
    // SAFETY: new nodes; the caller's query, whose outputs have names.
    unsafe {
        let outputs = nodes((*query).targetList).into_iter();
        let outputs = outputs.filter_map(get::<pg_sys::TargetEntry>);
        let names = outputs.map(|output| match output.resname.is_null() {
            true => copied(c"column"),
            false => pg_sys::pstrdup(output.resname),
        });
        let names = list(names.map(|name| pg_sys::makeString(name).cast()));
        (*entry).rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
        (*entry).subquery = query;
        (*entry).eref = pg_sys::makeAlias(name.as_ptr(), names);
        (*entry).inFromCl = true;
    }
    entry
}

/// The left join's: nobody names its columns.
pub fn join_entry() -> *mut pg_sys::RangeTblEntry {
    let entry = alloc::<pg_sys::RangeTblEntry>();
    // SAFETY: new nodes.
    unsafe {
        (*entry).rtekind = pg_sys::RTEKind::RTE_JOIN;
        (*entry).jointype = pg_sys::JoinType::JOIN_LEFT;
        (*entry).eref = pg_sys::makeAlias(c"unnamed_join".as_ptr(), std::ptr::null_mut());
        (*entry).inFromCl = true;
    }
    entry
}

pub fn copied(name: &CStr) -> *mut std::ffi::c_char {
    // SAFETY: a terminated string.
    unsafe { pg_sys::pstrdup(name.as_ptr()) }
}

/// Adds an expression unless it is there.
fn add(nodes: &mut Vec<Node>, node: Node) {
    if position(nodes, node) == nodes.len() {
        nodes.push(node);
    }
}

/// Where the expression is; at the end if it isn't.
fn position(nodes: &[Node], node: Node) -> usize {
    // SAFETY: compares expressions.
    let same = |other: &Node| unsafe { pg_sys::equal(other.cast(), node.cast()) };
    nodes.iter().position(same).unwrap_or(nodes.len())
}
