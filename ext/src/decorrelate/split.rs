//! Queries with groups as two: one that groups, and one around it with what is evaluated over the groups. In that, terms of
//! HAVING are terms of WHERE, and results are those of rows, so that subqueries there become joins like others.

use super::join::{output, reference, subquery_entry};
use super::results::{group_references, has_sublinks_over_groups, is_grouped};
use super::{becomes_join, conjuncts, errors, harm, sublink};
use crate::lower::node::{self, Node, alloc, get, list, nodes, tag};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// How many columns a row has at most.
const MOST_COLUMNS: usize = pg_sys::MaxTupleAttributeNumber as usize;

/// What the query that groups returns.
struct Pieces {
    /// What is grouped by comes first.
    outputs: Vec<Node>,
    groups: usize,
    fit: bool,
}

/// Makes the query one around another one that groups, if a subquery becomes a join by that; returns the latter.
/// `may_filter`: also if it is in HAVING. `comes_last`: the results are evaluated after all else.
///
/// # Safety
/// As of `decorrelate`, for the query alone.
pub unsafe fn split(
    query: &mut pg_sys::Query,
    may_filter: bool,
    comes_last: bool,
) -> Option<*mut pg_sys::Query> {
    if !is_fit(query) {
        return None;
    }
    let references = group_references(query);
    let mut pieces = Pieces::of(query, &references)?;
    let targets: Vec<Node> = (nodes(query.targetList).into_iter())
        .map(|entry| pieces.lift(entry))
        .collect();
    let (mut passed, mut kept) = (vec![], vec![]);
    for term in conjuncts(query.havingQual) {
        let lifted = (may_filter && has_sublinks_over_groups(term)).then(|| pieces.lift(term));
        match lifted.filter(|lifted| becomes_join(*lifted)) {
            Some(lifted) => passed.push(lifted),
            None => kept.push(term),
        }
    }
    if !pieces.fit || !pieces.see_groups() || !kept.iter().all(|term| may_come_first(*term)) {
        return None;
    }
    let exprs = node::target_exprs(list(targets.iter().copied()));
    // The query around may be made one with the one that it is in.
    let is_safe = |expr: &Node| errors::is_safe_around_calls(*expr, &harm::is_harmless_sublink);
    if !comes_last && !exprs.iter().all(is_safe) {
        return None;
    }
    let groups = pieces.outputs.iter().take(pieces.groups);
    let joins = |expr: &Node| !sublink::correlated_result(*expr).is_empty();
    if passed.is_empty() && !exprs.iter().chain(groups).any(joins) {
        return None;
    }
    // SAFETY: by contract.
    unsafe {
        let inner = grouping(query, &pieces, &references, kept);
        surround(query, inner, targets, passed);
        Some(inner)
    }
}

fn is_fit(query: &pg_sys::Query) -> bool {
    let targets = node::target_exprs(query.targetList);
    let references = group_references(query);
    let over_groups = nodes(query.targetList)
        .into_iter()
        .filter_map(get::<pg_sys::TargetEntry>)
        .filter(|target| !references.contains(&target.ressortgroupref))
        .any(|target| has_sublinks_over_groups(target.expr.cast()));
    is_grouped(query)
        // What is grouped by is null in some of the sets.
        && query.groupingSets.is_null()
        && !query.hasTargetSRFs
        && query.setOperations.is_null()
        && (over_groups || has_sublinks_over_groups(query.havingQual))
        // SAFETY: expressions.
        && unsafe {
            !pg_sys::contain_volatile_functions(query.havingQual)
                && targets
                    .into_iter()
                    .all(|target| !pg_sys::contain_volatile_functions(target))
        }
}

/// Whether a term of HAVING may be evaluated before others that have subqueries. Those that cost less are.
fn may_come_first(term: Node) -> bool {
    let mut costs_less = !has_sublinks_over_groups(term);
    node::visit(term, &mut |node| {
        costs_less &= !harm::is_costly(node);
        costs_less
    });
    costs_less || errors::is_safe_around_calls(term, &harm::is_harmless_sublink)
}

impl Pieces {
    fn of(query: &pg_sys::Query, references: &[pg_sys::Index]) -> Option<Pieces> {
        let targets = nodes(query.targetList).into_iter();
        let targets: Vec<&pg_sys::TargetEntry> =
            targets.filter_map(get::<pg_sys::TargetEntry>).collect();
        let mut outputs = vec![];
        for reference in references {
            let mut all = targets.iter();
            let target = all.find(|target| target.ressortgroupref == *reference)?;
            outputs.push(node::copy(target.expr.cast()));
        }
        Some(Pieces {
            groups: outputs.len(),
            outputs,
            fit: true,
        })
    }

    /// Whether the query that returns them surely groups.
    fn see_groups(&self) -> bool {
        let is_aggregate = |node: &Node| tag(*node) == NodeTag::T_Aggref;
        self.groups > 0 || self.outputs.iter().any(is_aggregate)
    }

    /// An expression of the query as one over what is returned.
    fn lift(&mut self, expr: Node) -> Node {
        node::rewrite(expr, &mut |node| self.replace(node, 0))
    }

    /// `depth`: how many subqueries of the query the node is in.
    fn replace(&mut self, node: Node, depth: pg_sys::Index) -> Option<Node> {
        if let Some(aggregate) = get::<pg_sys::Aggref>(node) {
            return (aggregate.agglevelsup == depth).then(|| self.output(node, depth));
        }
        if let Some(var) = get::<pg_sys::Var>(node) {
            let is_own = var.varlevelsup == depth;
            // Rows as a whole have no such place.
            self.fit &= !is_own || var.varattno > 0;
            return is_own.then(|| self.output(node, depth));
        }
        match tag(node) {
            NodeTag::T_Query => {
                let query = node.cast::<pg_sys::Query>();
                let copy = node::rewrite_query(query, &mut |node| self.replace(node, depth + 1));
                Some(copy.cast())
            }
            NodeTag::T_GroupingFunc => {
                self.fit = false;
                Some(node)
            }
            // Postgres doesn't look for these among what is grouped by.
            NodeTag::T_Const | NodeTag::T_Param | NodeTag::T_TargetEntry | NodeTag::T_List => None,
            _ => {
                let is_group = depth == 0 && self.position(node) < self.groups;
                is_group.then(|| self.output(node, depth))
            }
        }
    }

    fn position(&self, node: Node) -> usize {
        // SAFETY: compares expressions.
        let is_same = |other: &Node| unsafe { pg_sys::equal(other.cast(), node.cast()) };
        let found = self.outputs.iter().position(is_same);
        found.unwrap_or(self.outputs.len())
    }

    /// What stands for an expression over the query's rows.
    fn output(&mut self, node: Node, depth: pg_sys::Index) -> Node {
        let own = node::copy(node);
        // SAFETY: a copy, all of whose columns are of the query or beyond it.
        unsafe { pg_sys::IncrementVarSublevelsUp(own, -(depth as i32), depth as i32) };
        let at = self.position(own);
        if at >= MOST_COLUMNS {
            self.fit = false;
            return own;
        }
        if at == self.outputs.len() {
            self.outputs.push(own);
        }
        let (typid, typmod, collation) = node::type_of(own);
        // SAFETY: makes a node.
        unsafe { pg_sys::makeVar(1, at as i16 + 1, typid, typmod, collation, depth).cast() }
    }
}

/// The query that groups.
unsafe fn grouping(
    query: &pg_sys::Query,
    pieces: &Pieces,
    references: &[pg_sys::Index],
    kept: Vec<Node>,
) -> *mut pg_sys::Query {
    let outputs = (1..).zip(&pieces.outputs).map(|(number, expr)| {
        let entry = output(number, *expr, c"piece");
        if let Some(reference) = references.get(number as usize - 1) {
            // SAFETY: a new node.
            unsafe { (*entry).ressortgroupref = *reference };
        }
        entry.cast::<pg_sys::Node>()
    });
    // SAFETY: a copy of the query, whose parts the caller leaves to it.
    unsafe {
        let inner = pg_sys::palloc(size_of::<pg_sys::Query>()).cast::<pg_sys::Query>();
        std::ptr::copy_nonoverlapping(query, inner, 1);
        (*inner).targetList = list(outputs);
        (*inner).havingQual = match kept.is_empty() {
            true => std::ptr::null_mut(),
            false => pg_sys::make_ands_explicit(list(kept)).cast(),
        };
        (*inner).hasWindowFuncs = false;
        (*inner).hasDistinctOn = false;
        (*inner).windowClause = std::ptr::null_mut();
        (*inner).distinctClause = std::ptr::null_mut();
        (*inner).sortClause = std::ptr::null_mut();
        (*inner).limitCount = std::ptr::null_mut();
        (*inner).limitOffset = std::ptr::null_mut();
        (*inner).limitOption = pg_sys::LimitOption::LIMIT_OPTION_COUNT;
        // The query around keeps them.
        (*inner).cteList = std::ptr::null_mut();
        (*inner).hasRecursive = false;
        // It is one level further in.
        pg_sys::IncrementVarSublevelsUp(inner.cast(), 1, 1);
        move_ctes_out(inner, 0);
        (*inner).hasSubLinks = pg_sys::checkExprHasSubLink(inner.cast());
        inner
    }
}

/// Has what reads CTEs of the query `depth` levels out read those of the one around that.
unsafe fn move_ctes_out(query: *mut pg_sys::Query, depth: pg_sys::Index) {
    // SAFETY: a part of the caller's query; raises an error if the stack is nearly used up.
    unsafe {
        pg_sys::check_stack_depth();
        for entry in nodes((*query).rtable) {
            let is_read = get::<pg_sys::RangeTblEntry>(entry).is_some_and(|entry| {
                entry.rtekind == pg_sys::RTEKind::RTE_CTE && entry.ctelevelsup == depth
            });
            if is_read {
                (*entry.cast::<pg_sys::RangeTblEntry>()).ctelevelsup += 1;
            }
        }
    }
    node::visit_query(query, &mut |node| {
        let is_query = tag(node) == NodeTag::T_Query;
        if is_query {
            // SAFETY: as above.
            unsafe { move_ctes_out(node.cast(), depth + 1) };
        }
        !is_query
    });
}

/// Makes the query one that reads the groups.
unsafe fn surround(
    query: &mut pg_sys::Query,
    inner: *mut pg_sys::Query,
    targets: Vec<Node>,
    passed: Vec<Node>,
) {
    // SAFETY: by contract of `split`; new nodes.
    unsafe {
        let from = alloc::<pg_sys::FromExpr>();
        (*from).fromlist = list([reference(1)]);
        if !passed.is_empty() {
            (*from).quals = pg_sys::make_ands_explicit(list(passed)).cast();
        }
        query.jointree = from;
        query.rtable = list([subquery_entry(inner, c"groups").cast()]);
        query.rteperminfos = std::ptr::null_mut();
        query.targetList = list(targets);
        query.groupClause = std::ptr::null_mut();
        query.groupDistinct = false;
        query.havingQual = std::ptr::null_mut();
        query.hasAggs = false;
    }
}
