//! `LATERAL (SELECT … FROM t WHERE t.a = o.a ORDER BY … LIMIT n)` in FROM, and `LEFT JOIN LATERAL` of aggregates, as joins with
//! subqueries that are run once: rows are numbered by key and those up to `n` joined, or grouped by key.
//!
//! Rows of the subquery meet what is above before they meet the rows that asked for them. So nothing that may be
//! evaluated there, as a part of this query or one around it, may be able to raise an error.

use super::join::copied;
use super::levels::Levels;
use super::ranked::{group_rows, number_rows};
use super::sublink::{Key, has_fit_tables, is_plain, is_simple, key, limit, shows_variants};
use super::{conjuncts, entries, errors, is_open, target};
use crate::lower::node::{self, Node, each_query, get, list, nodes, tag};
use pgrx::pg_sys;
use pgrx::pg_sys::JoinType::{JOIN_INNER, JOIN_LEFT};
use pgrx::pg_sys::NodeTag;

/// A subquery in FROM that depends on what stands before it, and can be computed for all values of its keys at once.
struct Lateral {
    keys: Vec<Key>,
    filters: Vec<Node>,
    /// How many rows it gives for each; `None`: one, of aggregates that are null over no rows.
    count: Option<i64>,
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
    let fit = |query: &*mut pg_sys::Query| {
        !uses_wholes(*query) && is_harmless(*query, *query == top, &|_| false)
    };
    if !queries.iter().all(fit) {
        return;
    }
    for query in queries {
        // SAFETY: by contract; what is changed are parts of it.
        unsafe {
            if is_open(&*query) {
                rewrite_from(&*query);
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

/// Whether nothing that a query evaluates for its rows before it gives them could raise an error, as far as it isn't
/// about nodes that `elsewhere` knows.
pub fn is_harmless(
    query: *mut pg_sys::Query,
    is_top: bool,
    elsewhere: &dyn Fn(Node) -> bool,
) -> bool {
    // SAFETY: the caller's query.
    let query = unsafe { &*query };
    let is_above = |node: Node| {
        elsewhere(node) || matches!(tag(node), NodeTag::T_Aggref | NodeTag::T_WindowFunc)
    };
    errors::is_safe(query.jointree.cast(), elsewhere)
        && errors::is_safe(query.havingQual, &is_above)
        && (is_top || errors::is_safe(query.targetList.cast(), &is_above))
}

unsafe fn rewrite_from(outer: &pg_sys::Query) {
    // SAFETY: the caller's; a SELECT has a join tree.
    unsafe {
        let from = &mut *outer.jointree;
        let mut conditions = vec![];
        for item in nodes(from.fromlist) {
            match get::<pg_sys::RangeTblRef>(item) {
                Some(reference) => conditions.extend(unnested(outer, reference.rtindex, None)),
                None => rewrite_join(outer, item),
            }
        }
        add_conditions(&mut from.quals, conditions);
    }
}

unsafe fn rewrite_join(outer: &pg_sys::Query, node: Node) {
    if tag(node) != NodeTag::T_JoinExpr {
        return;
    }
    let join = node.cast::<pg_sys::JoinExpr>();
    // SAFETY: raises an error if the stack is nearly used up; as its tag says.
    unsafe {
        pg_sys::check_stack_depth();
        rewrite_join(outer, (*join).larg);
        rewrite_join(outer, (*join).rarg);
        if let Some(reference) = get::<pg_sys::RangeTblRef>((*join).rarg)
            && matches!((*join).jointype, JOIN_INNER | JOIN_LEFT)
        {
            let conditions = unnested(outer, reference.rtindex, Some(&*join));
            add_conditions(&mut (*join).quals, conditions);
        }
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
        let query = &mut *(*entry).subquery;
        let grouped = match found.count {
            Some(count) => number_rows(query, &found.keys, &found.filters, count),
            None => group_rows(query, &found.keys, &found.filters),
        };
        let names = &mut (*(*entry).eref).colnames;
        for _ in pg_sys::list_length(*names)..pg_sys::list_length(query.targetList) {
            *names = pg_sys::lappend(*names, pg_sys::makeString(copied(c"added")).cast());
        }
        (*entry).lateral = false;
        grouped.conditions(&found.keys, rtindex)
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
        let count = first_rows(query);
        if count.is_none() && !is_null_over_nothing(query) {
            return None;
        }
        let (keys, filters) = correlation(query)?;
        if count.is_some() && shows_variants(query, &keys) {
            return None;
        }
        Some(Lateral {
            keys,
            filters,
            count,
        })
    }

    /// Whether the conditions can be those of the join.
    fn is_joinable(&self, join: Option<&pg_sys::JoinExpr>) -> bool {
        let Some(join) = join else {
            return self.count.is_some();
        };
        let mut left = vec![];
        relations(join.larg, &mut left);
        let is_left = |node: Node| {
            let var = get::<pg_sys::Var>(node).filter(|var| var.varlevelsup == 1);
            var.is_none_or(|var| left.contains(&var.varno))
        };
        let mut fit = self.count.is_some() || join.jointype == JOIN_LEFT;
        for key in &self.keys {
            node::visit(key.outer, &mut |node| {
                fit &= is_left(node);
                fit
            });
        }
        fit
    }
}

/// The number of rows, if the query gives the first ones of its tables' in an order.
pub fn first_rows(query: &pg_sys::Query) -> Option<i64> {
    let plain = is_simple(query) && !query.hasAggs && !query.sortClause.is_null();
    let fit = |target: Node| Levels::of(target).is_closed() && errors::is_safe(target, &|_| false);
    let count = limit(query).filter(|_| plain)?;
    (all_targets(query, fit) && sorts_safely(query)).then_some(count)
}

fn sorts_safely(query: &pg_sys::Query) -> bool {
    let clauses = nodes(query.sortClause).into_iter();
    clauses
        .filter_map(get::<pg_sys::SortGroupClause>)
        .all(|clause| errors::sorts_safely(clause.sortop))
}

/// Whether the query gives a row of aggregates, which are null if there are no rows.
fn is_null_over_nothing(query: &pg_sys::Query) -> bool {
    let fit = |target: Node| {
        let no_sublink = std::ptr::null_mut();
        target::is_fit(target) && target::is_null_if_empty(target, no_sublink, target)
    };
    is_plain(query) && all_targets(query, fit)
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
    if let Some(join) = get::<pg_sys::JoinExpr>(node) {
        // SAFETY: raises an error if the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        found.push(join.rtindex);
        relations(join.larg, found);
        relations(join.rarg, found);
    }
}
