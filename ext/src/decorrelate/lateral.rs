//! `LATERAL (SELECT … FROM t WHERE t.a = o.a ORDER BY … LIMIT n)` in FROM, and `LATERAL` with aggregates, GROUP BY or
//! DISTINCT, as joins with subqueries that are run once: rows are numbered by key and those up to `n` joined, or grouped by key.
//!
//! Rows of the subquery meet what is above before they meet the rows that asked for them. So nothing that may be
//! evaluated there, as a part of this query or one around it, may be able to raise an error.

use super::join::{copied, join_entry, left_join};
use super::levels::Levels;
use super::one_row::OneRow;
use super::ranked::{group_rows, number_rows};
use super::sublink::{
    Key, Places, has_fit_tables, is_one_level, is_plain, is_simple, is_whole, key, shows_variants,
};
use super::{conjuncts, entries, errors, harm, is_open, one_row, sublink, target};
use crate::lower::node::{self, Node, alloc, each_query, get, list, nodes, tag};
use pgrx::FromDatum;
use pgrx::pg_sys;
use pgrx::pg_sys::JoinType::{JOIN_INNER, JOIN_LEFT};
use pgrx::pg_sys::NodeTag;

/// A subquery in FROM that depends on what stands before it, and can be computed for all values of its keys at once.
struct Lateral {
    keys: Vec<Key>,
    filters: Vec<Node>,
    gives: Gives,
}

/// What it gives for each value.
#[derive(Clone, Copy)]
enum Gives {
    /// The rows at these places of an order.
    Places(Places),
    /// A row for each group of its own, or different rows.
    Groups,
    /// One row, of aggregates.
    One { null_over_nothing: bool },
}

/// Rewrites a query and those in it, in place.
///
/// # Safety
/// As of `decorrelate`.
pub unsafe fn rewrite(top: *mut pg_sys::Query) {
    let (mut found, mut all_fit) = (false, true);
    let mut queries = vec![];
    each_query(top, &mut |query| {
        // SAFETY: by contract; nobody changes it during the call.
        let outer = unsafe { &*query };
        for entry in entries(outer).filter(|entry| entry.lateral) {
            found = true;
            all_fit &= Lateral::of(entry).is_some();
        }
        queries.push(query);
    });
    if !found || !all_fit {
        return;
    }
    let last = harm::evaluated_last(top);
    let fit = |query: &*mut pg_sys::Query| {
        // SAFETY: a part of the caller's query, which nobody changes meanwhile.
        let jointree = unsafe { (**query).jointree };
        // An inner join doesn't read one side if the other one is empty: an error would be lost there.
        !uses_wholes(*query)
            && errors::is_safe(jointree.cast(), &|_| false)
            && harm::is_harmless(*query, last.contains(query), &|_| false)
    };
    if !queries.iter().all(fit) {
        return;
    }
    // From the inside: one with values in other places is a copy.
    for query in queries.into_iter().rev() {
        // SAFETY: by contract; what is changed are parts of it.
        unsafe {
            if is_open(&*query) {
                rewrite_from(&mut *query);
            }
        }
    }
}

/// Whether an entry of a query is used as a whole.
fn uses_wholes(query: *mut pg_sys::Query) -> bool {
    let mut has_wholes = false;
    node::visit_query(query, &mut |node| {
        has_wholes |= get::<pg_sys::Var>(node).is_some_and(|var| var.varattno == 0);
        !has_wholes
    });
    has_wholes
}

/// What the parts of a FROM leave for the query.
#[derive(Default)]
struct Left {
    /// Terms for its WHERE.
    conditions: Vec<Node>,
    /// Entries whose columns have to be others.
    rows: Vec<OneRow>,
}

unsafe fn rewrite_from(outer: &mut pg_sys::Query) {
    let mut left = Left::default();
    // SAFETY: the caller's; a SELECT has a join tree.
    unsafe {
        let from = outer.jointree;
        let mut items = vec![];
        for item in nodes((*from).fromlist) {
            match get::<pg_sys::RangeTblRef>(item) {
                Some(reference) => {
                    let rtindex = reference.rtindex;
                    match single_row(outer, rtindex, None) {
                        Some(found) => {
                            let before = alloc::<pg_sys::FromExpr>();
                            (*before).fromlist = list(std::mem::take(&mut items));
                            let number = pg_sys::list_length(outer.rtable) + 1;
                            let entry = join_entry().cast();
                            outer.rtable = pg_sys::lappend(outer.rtable, entry);
                            let (row, clauses) = unnested_row(outer, rtindex, number, &found);
                            left.rows.push(row);
                            items.push(left_join(before.cast(), item, clauses, number));
                        }
                        None => {
                            left.conditions.extend(unnested(outer, rtindex, None));
                            items.push(item);
                        }
                    }
                }
                None => {
                    rewrite_join(outer, item, true, &mut left);
                    items.push(item);
                }
            }
        }
        (*from).fromlist = list(items);
        add_conditions(&mut (*from).quals, left.conditions);
        one_row::replace(outer, &left.rows);
    }
}

/// `is_top`: what doesn't pass its conditions is nowhere in the result.
unsafe fn rewrite_join(outer: &mut pg_sys::Query, node: Node, is_top: bool, left: &mut Left) {
    if tag(node) != NodeTag::T_JoinExpr {
        return;
    }
    let join = node.cast::<pg_sys::JoinExpr>();
    // SAFETY: raises an error if the stack is nearly used up; as its tag says.
    unsafe {
        pg_sys::check_stack_depth();
        let kind = (*join).jointype;
        let is_left_top = is_top && matches!(kind, JOIN_INNER | JOIN_LEFT);
        let is_right_top = is_top && kind == JOIN_INNER;
        rewrite_join(outer, (*join).larg, is_left_top, left);
        rewrite_join(outer, (*join).rarg, is_right_top, left);
        let Some(reference) = get::<pg_sys::RangeTblRef>((*join).rarg) else {
            return;
        };
        if !matches!(kind, JOIN_INNER | JOIN_LEFT) {
            return;
        }
        // One row is always there: the condition of a left join without one is true.
        let is_fit = match kind {
            JOIN_INNER => is_top && (*join).rtindex > 0,
            _ => is_true((*join).quals),
        };
        let found = single_row(outer, reference.rtindex, Some(&*join)).filter(|_| is_fit);
        let Some(found) = found else {
            let conditions = unnested(outer, reference.rtindex, Some(&*join));
            add_conditions(&mut (*join).quals, conditions);
            return;
        };
        if kind == JOIN_INNER {
            left.conditions.extend(conjuncts((*join).quals));
            (*join).jointype = JOIN_LEFT;
            let entry = pg_sys::list_nth(outer.rtable, (*join).rtindex - 1);
            (*entry.cast::<pg_sys::RangeTblEntry>()).jointype = JOIN_LEFT;
        }
        let (row, clauses) = unnested_row(outer, reference.rtindex, (*join).rtindex, &found);
        left.rows.push(row);
        (*join).quals = pg_sys::make_ands_explicit(list(clauses)).cast();
    }
}

fn is_true(condition: Node) -> bool {
    let is_true = |constant: &pg_sys::Const| {
        // SAFETY: a condition is a boolean.
        unsafe { bool::from_datum(constant.constvalue, constant.constisnull) == Some(true) }
    };
    condition.is_null() || get::<pg_sys::Const>(condition).is_some_and(is_true)
}

/// A subquery that gives one row in any case and can be joined by a left join instead of by `join`, or to what comes
/// before it in FROM.
fn single_row(
    outer: &mut pg_sys::Query,
    rtindex: i32,
    join: Option<&pg_sys::JoinExpr>,
) -> Option<Lateral> {
    let found = lateral_at(outer, rtindex)?;
    let is_left = join.is_some_and(|join| join.jointype == JOIN_LEFT);
    let is_one = match found.gives {
        // This is a left join's right side already.
        Gives::One { null_over_nothing } => !(is_left && null_over_nothing),
        _ => false,
    };
    let depends = join.is_none_or(|join| depend_on(&found.keys, join.larg));
    let number = join.map(|join| join.rtindex);
    (is_one && depends && one_row::is_replaceable(outer, rtindex, number)).then_some(found)
}

fn lateral_at(outer: &pg_sys::Query, rtindex: i32) -> Option<Lateral> {
    let at = usize::try_from(rtindex).ok()?.checked_sub(1)?;
    Lateral::of(entries(outer).nth(at)?)
}

/// Has the subquery give a row for each of its groups, which `join` joins by the clauses.
unsafe fn unnested_row(
    outer: &pg_sys::Query,
    rtindex: i32,
    join: i32,
    found: &Lateral,
) -> (OneRow, Vec<Node>) {
    // SAFETY: an entry that has such a subquery; nobody else holds a reference.
    unsafe {
        let entry = pg_sys::list_nth(outer.rtable, rtindex - 1).cast::<pg_sys::RangeTblEntry>();
        let row = OneRow::of(&*(*entry).subquery, rtindex, join);
        let clauses = grouped(&mut *entry, found, rtindex);
        let row = row.with_aggregates(&mut *(*entry).subquery);
        name_columns(&mut *entry);
        (row, clauses)
    }
}

fn add_conditions(quals: &mut Node, conditions: Vec<Node>) {
    if !conditions.is_empty() {
        let terms = list(conjuncts(*quals).into_iter().chain(conditions));
        // SAFETY: a list of conditions.
        *quals = unsafe { pg_sys::make_ands_explicit(terms).cast() };
    }
}

/// By what a subquery is joined that doesn't depend on other entries any more; nothing, if it stays as it is. `join`:
/// whose right side it is, if not one of those in FROM.
unsafe fn unnested(
    outer: &pg_sys::Query,
    rtindex: i32,
    join: Option<&pg_sys::JoinExpr>,
) -> Vec<Node> {
    let at = usize::try_from(rtindex).unwrap_or(0).wrapping_sub(1);
    let entry = nodes(outer.rtable).get(at).copied();
    let Some(entry) = entry.filter(|entry| tag(*entry) == NodeTag::T_RangeTblEntry) else {
        return vec![];
    };
    let entry = entry.cast::<pg_sys::RangeTblEntry>();
    // SAFETY: as its tag says.
    let Some(found) = (unsafe { Lateral::of(&*entry) }).filter(|found| found.is_joinable(join))
    else {
        return vec![];
    };
    // SAFETY: nobody else holds a reference to the entry; its query is a subquery, the caller's.
    unsafe {
        let clauses = grouped(&mut *entry, &found, rtindex);
        name_columns(&mut *entry);
        clauses
    }
}

/// Has the entry's subquery give its rows for all values of its keys; returns by what these are joined.
unsafe fn grouped(entry: &mut pg_sys::RangeTblEntry, found: &Lateral, rtindex: i32) -> Vec<Node> {
    entry.lateral = false;
    // SAFETY: by contract.
    unsafe {
        let query = &mut *entry.subquery;
        let grouped = match found.gives {
            Gives::Places(places) => number_rows(query, &found.keys, &found.filters, places),
            Gives::Groups | Gives::One { .. } => group_rows(query, &found.keys, &found.filters),
        };
        grouped.conditions(&found.keys, rtindex)
    }
}

/// Has a name for each of the columns.
unsafe fn name_columns(entry: &mut pg_sys::RangeTblEntry) {
    // SAFETY: a subquery's entry.
    unsafe {
        let names = &mut (*entry.eref).colnames;
        let outputs = pg_sys::list_length((*entry.subquery).targetList);
        for _ in pg_sys::list_length(*names)..outputs {
            *names = pg_sys::lappend(*names, pg_sys::makeString(copied(c"added")).cast());
        }
    }
}

impl Lateral {
    fn of(entry: &pg_sys::RangeTblEntry) -> Option<Lateral> {
        if entry.rtekind != pg_sys::RTEKind::RTE_SUBQUERY
            || !entry.lateral
            || entry.security_barrier
            || entry.subquery.is_null()
            || entry.eref.is_null()
        {
            return None;
        }
        // SAFETY: a subquery has one, and nobody changes it meanwhile.
        let query = unsafe { &*entry.subquery };
        let gives = gives(query)?;
        let (keys, filters) = correlation(query)?;
        if matches!(gives, Gives::Places(_)) && shows_variants(query, &keys) {
            return None;
        }
        Some(Lateral {
            keys,
            filters,
            gives,
        })
    }

    /// Whether the conditions can be those of the join.
    fn is_joinable(&self, join: Option<&pg_sys::JoinExpr>) -> bool {
        let is_left = join.is_some_and(|join| join.jointype == JOIN_LEFT);
        let fit = match self.gives {
            Gives::Places(_) | Gives::Groups => true,
            Gives::One { null_over_nothing } => is_left && null_over_nothing,
        };
        fit && join.is_none_or(|join| depend_on(&self.keys, join.larg))
    }
}

/// Whether what the keys are compared with is of that part of FROM alone.
pub fn depend_on(keys: &[Key], part: Node) -> bool {
    let mut found = vec![];
    relations(part, &mut found);
    let mut fit = true;
    for key in keys {
        node::visit(key.outer, &mut |node| {
            let var = get::<pg_sys::Var>(node);
            fit &= var.is_none_or(|var| found.contains(&var.varno));
            fit
        });
    }
    fit
}

fn gives(query: &pg_sys::Query) -> Option<Gives> {
    if let Some(places) = first_rows(query) {
        return Some(Gives::Places(places));
    }
    if is_plain(query) && all_targets(query, target::is_fit) {
        let null_over_nothing = all_targets(query, target::is_null_over_no_rows);
        return Some(Gives::One { null_over_nothing });
    }
    gives_groups(query).then_some(Gives::Groups)
}

/// Whether the query gives its groups, or the rows of its tables that differ.
fn gives_groups(query: &pg_sys::Query) -> bool {
    let is_distinct = !query.distinctClause.is_null();
    let is_grouped = !query.groupClause.is_null();
    let is_one = is_distinct && !is_grouped && !query.hasAggs && query.havingQual.is_null()
        || is_grouped && !is_distinct;
    is_one
        && is_one_level(query)
        && is_whole(query)
        && sorts_safely(query.distinctClause)
        && sorts_safely(query.groupClause)
        && all_targets(query, target::is_fit_over_groups)
        && target::is_fit_over_groups(query.havingQual)
}

/// The rows that the query gives of its tables', in an order.
pub fn first_rows(query: &pg_sys::Query) -> Option<Places> {
    let plain = is_simple(query) && !query.hasAggs && !query.sortClause.is_null();
    let fit = |target: Node| Levels::of(target).is_closed() && errors::is_safe(target, &|_| false);
    let places = sublink::places(query).filter(|_| plain)?;
    (all_targets(query, fit) && sorts_safely(query.sortClause)).then_some(places)
}

/// Whether rows are compared by these clauses without an error.
pub fn sorts_safely(clauses: *mut pg_sys::List) -> bool {
    let clauses = nodes(clauses).into_iter();
    clauses
        .filter_map(get::<pg_sys::SortGroupClause>)
        .all(|clause| errors::sorts_safely(clause.sortop))
}

fn all_targets(query: &pg_sys::Query, fit: impl Fn(Node) -> bool) -> bool {
    node::target_exprs(query.targetList).into_iter().all(fit)
}

/// The terms of a query's WHERE, as keys and those that depend on nothing outside, if all is either.
pub fn correlation(query: &pg_sys::Query) -> Option<(Vec<Key>, Vec<Node>)> {
    // SAFETY: an expression; a SELECT has a join tree.
    let jointree = unsafe {
        let whole: *const pg_sys::Query = query;
        if pg_sys::contain_volatile_functions(whole.cast_mut().cast()) {
            return None;
        }
        &*query.jointree
    };
    if !has_fit_tables(query)
        || !Levels::of(jointree.fromlist.cast()).is_closed()
        || !errors::is_safe(query.jointree.cast(), &|_| false)
    {
        return None;
    }
    let (mut keys, mut filters) = (vec![], vec![]);
    for term in conjuncts(jointree.quals) {
        if Levels::of(term).is_closed() {
            filters.push(term);
        } else {
            keys.push(key(term)?);
        }
    }
    (!keys.is_empty()).then_some((keys, filters))
}

/// The entries of a part of FROM.
fn relations(node: Node, found: &mut Vec<i32>) {
    if let Some(reference) = get::<pg_sys::RangeTblRef>(node) {
        found.push(reference.rtindex);
    }
    // SAFETY: raises an error if the stack is nearly used up.
    unsafe { pg_sys::check_stack_depth() };
    if let Some(from) = get::<pg_sys::FromExpr>(node) {
        for item in nodes(from.fromlist) {
            relations(item, found);
        }
    }
    if let Some(join) = get::<pg_sys::JoinExpr>(node) {
        found.push(join.rtindex);
        relations(join.larg, found);
        relations(join.rarg, found);
    }
}
