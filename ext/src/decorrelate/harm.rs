//! Whether an error could tell that a condition is evaluated later than it was.
//!
//! Postgres evaluates a subquery in a WHERE where the rows are read that it depends on, after all else that is about these
//! alone. As a join it may come after conditions of other joins, which then see rows that the subquery would have kept
//! from them. So none of those may be able to raise an error. What is about one table alone is evaluated where that is
//! read, before and after, if the join reads all of its rows.

use super::levels::is_closed_query;
use super::{conjuncts, entries, errors, lateral, sublink, target};
use crate::lower::node::{self, Node, get, nodes, tag};
use crate::lower::operator_function;
use pgrx::pg_sys;
use pgrx::pg_sys::CTEMaterialize;
use pgrx::pg_sys::{NodeTag, RTEKind, SubLinkType};

/// Queries that Postgres may make one of.
pub struct Part {
    pub queries: Vec<*mut pg_sys::Query>,
    /// Those whose results are evaluated after all else.
    pub last: Vec<*mut pg_sys::Query>,
    /// Whether any of their conditions may be evaluated after others.
    pub harmless: bool,
}

/// A statement's queries, from the outside. CTEs that are read more than once are parts of their own. So are scalar subqueries
/// that depend on nothing outside and stand in a condition on one table: they are run when the first row of that is read.
pub fn parts(top: *mut pg_sys::Query) -> Vec<Part> {
    let (mut found, mut tops) = (vec![], vec![top]);
    while let Some(top) = tops.pop() {
        let mut queries = vec![];
        collect(top, &mut tops, &mut queries);
        let last = evaluated_last(top);
        let harmless = (queries.iter())
            .all(|query| is_harmless(*query, last.contains(query), &is_harmless_sublink));
        found.push(Part {
            queries,
            last,
            harmless,
        });
    }
    found
}

fn collect(
    query: *mut pg_sys::Query,
    apart: &mut Vec<*mut pg_sys::Query>,
    found: &mut Vec<*mut pg_sys::Query>,
) {
    // SAFETY: raises an error if the stack is nearly used up; a part of the caller's query.
    let alone = unsafe {
        pg_sys::check_stack_depth();
        standing_alone(&*query)
    };
    found.push(query);
    node::visit_query(query, &mut |node| {
        if let Some(cte) = get::<pg_sys::CommonTableExpr>(node).filter(|cte| is_run_alone(cte)) {
            apart.push(cte.ctequery.cast());
            return false;
        }
        if tag(node) != NodeTag::T_Query {
            return true;
        }
        let inner = node.cast::<pg_sys::Query>();
        if alone.contains(&inner) {
            apart.push(inner);
        } else {
            collect(inner, apart, found);
        }
        false
    });
}

/// Whether a CTE surely doesn't become a subquery in FROM.
fn is_run_alone(cte: &pg_sys::CommonTableExpr) -> bool {
    tag(cte.ctequery) == NodeTag::T_Query
        && match cte.ctematerialized {
            CTEMaterialize::CTEMaterializeAlways => true,
            CTEMaterialize::CTEMaterializeDefault => cte.cterefcount > 1,
            _ => false,
        }
}

/// The query and those in its FROM whose results nobody looks at but those who get the query's.
pub fn evaluated_last(top: *mut pg_sys::Query) -> Vec<*mut pg_sys::Query> {
    let (mut found, mut open) = (vec![], vec![top]);
    while let Some(query) = open.pop() {
        found.push(query);
        // SAFETY: a part of the caller's query.
        open.extend(inputs(unsafe { &*query }));
    }
    found
}

/// The subqueries that are all that a query reads, if it has no conditions.
fn inputs(query: &pg_sys::Query) -> Vec<*mut pg_sys::Query> {
    // SAFETY: a part of the caller's query.
    let Some(from) = (unsafe { query.jointree.as_ref() }) else {
        return vec![];
    };
    if !from.quals.is_null() || !query.havingQual.is_null() {
        return vec![];
    }
    let items = nodes(from.fromlist);
    let read: Vec<_> = match items.as_slice() {
        [] if !query.setOperations.is_null() => entries(query).collect(),
        [item] => get::<pg_sys::RangeTblRef>(*item)
            .and_then(|reference| entry(query, reference.rtindex))
            .into_iter()
            .collect(),
        _ => vec![],
    };
    read.into_iter()
        .filter(|entry| entry.rtekind == RTEKind::RTE_SUBQUERY && !entry.subquery.is_null())
        .map(|entry| entry.subquery)
        .collect()
}

fn entry(query: &pg_sys::Query, rtindex: i32) -> Option<&pg_sys::RangeTblEntry> {
    let at = usize::try_from(rtindex).ok()?.checked_sub(1)?;
    entries(query).nth(at)
}

/// The queries of uncorrelated scalar subqueries in conditions that come first.
fn standing_alone(query: &pg_sys::Query) -> Vec<*mut pg_sys::Query> {
    // SAFETY: the caller's query.
    let Some(from) = (unsafe { query.jointree.as_ref() }) else {
        return vec![];
    };
    let mut found = vec![];
    for term in conjuncts(from.quals) {
        if !comes_first(query, term) {
            continue;
        }
        node::visit(term, &mut |node| {
            let link = get::<pg_sys::SubLink>(node);
            found.extend(link.and_then(alone));
            link.is_none()
        });
    }
    found
}

/// Whether it is a subquery for a value, or for those of a comparison, that depends on something outside.
pub fn depends_on_rows(node: Node) -> bool {
    get::<pg_sys::SubLink>(node).is_some_and(|link| {
        let gives_values = matches!(
            link.subLinkType,
            SubLinkType::EXPR_SUBLINK | SubLinkType::ANY_SUBLINK | SubLinkType::ALL_SUBLINK
        );
        gives_values
            && tag(link.subselect) == NodeTag::T_Query
            && !is_closed_query(link.subselect.cast())
    })
}

/// The query of a scalar subquery that depends on nothing outside.
fn alone(link: &pg_sys::SubLink) -> Option<*mut pg_sys::Query> {
    let is_query = tag(link.subselect) == NodeTag::T_Query;
    let query = link.subselect.cast::<pg_sys::Query>();
    let is_value = link.subLinkType == SubLinkType::EXPR_SUBLINK;
    (is_value && is_query && is_closed_query(query)).then_some(query)
}

/// Whether nothing that a query evaluates for its rows before it gives them could raise an error for more rows, if others
/// than those that were to be joined or filtered first come to it; as far as it isn't about nodes that `elsewhere` knows.
/// `comes_last`: its results are evaluated for the rows that are left.
pub fn is_harmless(
    query: *mut pg_sys::Query,
    comes_last: bool,
    elsewhere: &dyn Fn(Node) -> bool,
) -> bool {
    // SAFETY: the caller's query.
    let query = unsafe { &*query };
    let is_fit = |term: Node| errors::is_safe(term, elsewhere);
    is_harmless_from(query, query.jointree.cast(), elsewhere)
        && entries(query).all(is_harmless_entry)
        // Those without aggregates may be evaluated as terms of WHERE.
        && conjuncts(query.havingQual)
            .into_iter()
            .all(|term| sees_groups(term) || is_fit(term))
        && (comes_last
            || node::target_exprs(query.targetList)
                .into_iter()
                .all(|target| is_fit(target) || is_kept_behind(query, target)))
}

/// Whether the conditions in a part of FROM are such, or come first.
fn is_harmless_from(query: &pg_sys::Query, node: Node, elsewhere: &dyn Fn(Node) -> bool) -> bool {
    let is_fit = |term: &Node| errors::is_safe(*term, elsewhere) || comes_first(query, *term);
    // SAFETY: raises an error if the stack is nearly used up.
    unsafe { pg_sys::check_stack_depth() };
    if let Some(from) = get::<pg_sys::FromExpr>(node) {
        return conjuncts(from.quals).iter().all(is_fit)
            && nodes(from.fromlist)
                .into_iter()
                .all(|item| is_harmless_from(query, item, elsewhere));
    }
    let Some(join) = get::<pg_sys::JoinExpr>(node) else {
        return true;
    };
    let conditions = match join.jointype {
        pg_sys::JoinType::JOIN_INNER => conjuncts(join.quals).iter().all(is_fit),
        _ => errors::is_safe(join.quals, elsewhere),
    };
    conditions
        && is_harmless_from(query, join.larg, elsewhere)
        && is_harmless_from(query, join.rarg, elsewhere)
}

/// Whether an entry isn't computed for each row of others, or can't fail then.
fn is_harmless_entry(entry: &pg_sys::RangeTblEntry) -> bool {
    match entry.rtekind {
        RTEKind::RTE_FUNCTION | RTEKind::RTE_TABLEFUNC | RTEKind::RTE_VALUES => !entry.lateral,
        // SAFETY: a part of the caller's query.
        RTEKind::RTE_SUBQUERY => unsafe { entry.subquery.as_ref() }
            .is_none_or(|query| !entry.lateral || never_fails(query)),
        _ => true,
    }
}

/// Whether a term is about one table alone, which is read by it before the table is joined.
fn comes_first(query: &pg_sys::Query, term: Node) -> bool {
    let (mut table, mut fit) = (None, true);
    node::visit(term, &mut |node| {
        if let Some(var) = get::<pg_sys::Var>(node) {
            let others = table.replace(var.varno).is_some_and(|it| it != var.varno);
            // An outer join makes it null later.
            fit &= !others && var.varlevelsup == 0 && var.varnullingrels.is_null();
        }
        if let Some(link) = get::<pg_sys::SubLink>(node) {
            fit &= alone(link).is_some();
            return false;
        }
        fit &= !is_costly(node) && !is_of_rows(node);
        fit
    });
    let table = table.and_then(|rtindex| entry(query, rtindex));
    fit && table.is_some_and(|entry| entry.rtekind == RTEKind::RTE_RELATION)
}

/// Whether it is a call that may be said to cost more than a subquery, and be evaluated after that.
pub fn is_costly(node: Node) -> bool {
    let function = match get::<pg_sys::FuncExpr>(node) {
        Some(call) => Some(call.funcid),
        None => get::<pg_sys::OpExpr>(node).map(|op| operator_function(op.opfuncid, op.opno)),
    };
    function.is_some_and(|function| function.to_u32() >= pg_sys::FirstNormalObjectId)
}

fn is_of_rows(node: Node) -> bool {
    matches!(
        tag(node),
        NodeTag::T_Aggref | NodeTag::T_WindowFunc | NodeTag::T_GroupingFunc
    )
}

/// Whether an expression has an aggregate or a window function.
fn sees_groups(expr: Node) -> bool {
    let mut sees = false;
    node::visit(expr, &mut |node| {
        sees |= is_of_rows(node);
        !sees && tag(node) != NodeTag::T_SubLink
    });
    sees
}

/// Whether a result can't be evaluated before the query's own conditions: neither does the query become one with the one
/// around it, nor is a condition of that one pushed behind such results.
fn is_kept_behind(query: &pg_sys::Query, target: Node) -> bool {
    let is_limited = !query.limitCount.is_null() || !query.limitOffset.is_null();
    let is_fenced = is_limited
        || query.hasAggs
        || query.hasWindowFuncs
        || !query.groupClause.is_null()
        || !query.groupingSets.is_null()
        || !query.sortClause.is_null()
        || !query.distinctClause.is_null()
        || !query.cteList.is_null();
    is_fenced && (is_limited || sees_groups(target) || comes_first(query, target))
}

/// Whether a subquery in an expression raises no error, for whatever row.
pub fn is_harmless_sublink(node: Node) -> bool {
    let is_value = |node: Node| {
        get::<pg_sys::Param>(node)
            .is_some_and(|param| param.paramkind == pg_sys::ParamKind::PARAM_SUBLINK)
    };
    let Some(link) = get::<pg_sys::SubLink>(node) else {
        return false;
    };
    if tag(link.subselect) != NodeTag::T_Query || !errors::is_safe(link.testexpr, &is_value) {
        return false;
    }
    // SAFETY: as its tag says; a part of the caller's query.
    let query = unsafe { &*link.subselect.cast::<pg_sys::Query>() };
    let gives_few = match link.subLinkType {
        SubLinkType::EXISTS_SUBLINK
        | SubLinkType::ANY_SUBLINK
        | SubLinkType::ALL_SUBLINK
        | SubLinkType::ARRAY_SUBLINK => true,
        SubLinkType::EXPR_SUBLINK => {
            let is_one_group =
                query.hasAggs && query.groupClause.is_null() && query.groupingSets.is_null();
            let is_limited = query.limitOption == pg_sys::LimitOption::LIMIT_OPTION_COUNT
                && sublink::limit(query).is_some_and(|count| count <= 1);
            is_one_group || is_limited || sublink::gives_row_by_key(query)
        }
        _ => false,
    };
    gives_few && never_fails(query)
}

/// Whether reading the rows that a query's results are of raises no error, with all its conditions.
///
/// An inner join doesn't read one side if the other one is empty. A subquery that is asked for each row doesn't keep these
/// from being read: an error would be lost.
pub fn reads_safely(query: &pg_sys::Query) -> bool {
    errors::is_safe(query.jointree.cast(), &is_harmless_sublink)
        && entries(query).all(is_read_safely)
}

fn is_read_safely(entry: &pg_sys::RangeTblEntry) -> bool {
    match entry.rtekind {
        RTEKind::RTE_RELATION => {
            entry.relkind as u8 != pg_sys::RELKIND_FOREIGN_TABLE && entry.tablesample.is_null()
        }
        RTEKind::RTE_JOIN | RTEKind::RTE_RESULT => true,
        RTEKind::RTE_VALUES => errors::is_safe(entry.values_lists.cast(), &|_| false),
        // SAFETY: a part of the caller's query.
        RTEKind::RTE_SUBQUERY => unsafe { entry.subquery.as_ref() }.is_some_and(never_fails),
        _ => false,
    }
}

/// Whether running a query raises no error.
fn never_fails(query: &pg_sys::Query) -> bool {
    let known = |node: Node| match get::<pg_sys::Aggref>(node) {
        Some(aggregate) => {
            target::raises_nothing(aggregate)
                && errors::is_safe(aggregate.args.cast(), &|_| false)
                && errors::is_safe(aggregate.aggfilter.cast(), &|_| false)
        }
        None => is_harmless_sublink(node),
    };
    // SAFETY: raises an error if the stack is nearly used up.
    unsafe { pg_sys::check_stack_depth() };
    query.commandType == pg_sys::CmdType::CMD_SELECT
        && !query.hasTargetSRFs
        && !query.hasWindowFuncs
        && query.cteList.is_null()
        && (query.limitCount.is_null() && query.limitOffset.is_null()
            || sublink::places(query).is_some())
        && entries(query).all(is_read_safely)
        && errors::is_safe(query.jointree.cast(), &known)
        && errors::is_safe(query.havingQual, &known)
        && errors::is_safe(query.targetList.cast(), &known)
        && [query.groupClause, query.distinctClause, query.sortClause]
            .into_iter()
            .all(lateral::sorts_safely)
}
