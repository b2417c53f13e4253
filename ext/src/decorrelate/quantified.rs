//! `x <> ALL (SELECT y FROM t WHERE t.a = o.a)` and `x NOT IN (…)`, correlated, as `NOT EXISTS`: as a term of WHERE
//! they pass a row if there is none for which the comparison isn't true, or isn't false. Postgres joins by that.

use super::levels::Levels;
use super::sublink::{has_fit_tables, is_simple, is_whole, key};
use super::{conjuncts, errors};
use crate::lower::node::{self, Node, alloc, get, list, nodes, tag};
use pgrx::pg_sys;
use pgrx::pg_sys::BoolTestType::{IS_NOT_FALSE, IS_NOT_TRUE};
use pgrx::pg_sys::{NodeTag, SubLinkType};

/// What a term of a WHERE has to be instead, if it is one of these that fits.
pub fn as_not_exists(qual: Node) -> Option<Node> {
    let (node, fails) = quantified(qual)?;
    let link = get::<pg_sys::SubLink>(node)?;
    if tag(link.subselect) != NodeTag::T_Query || !is_fit(qual, node, link) {
        return None;
    }
    let query = node::copy(link.subselect).cast::<pg_sys::Query>();
    // SAFETY: a copy of a SELECT; new nodes.
    unsafe {
        let jointree = (*query).jointree;
        let failed = alloc::<pg_sys::BooleanTest>();
        (*failed).arg = comparison(link, &*query)?.cast();
        (*failed).booltesttype = fails;
        (*failed).location = -1;
        let terms = conjuncts((*jointree).quals).into_iter();
        let terms = list(terms.chain([failed.cast()]));
        (*jointree).quals = pg_sys::make_ands_explicit(terms).cast();
        let exists = alloc::<pg_sys::SubLink>();
        (*exists).subLinkType = SubLinkType::EXISTS_SUBLINK;
        (*exists).subselect = query.cast();
        (*exists).location = -1;
        let negation = pg_sys::BoolExprType::NOT_EXPR;
        Some(pg_sys::makeBoolExpr(negation, list([exists.cast()]), -1).cast())
    }
}

/// The sublink, and what the comparison is for a row by which the term isn't true.
fn quantified(qual: Node) -> Option<(Node, pg_sys::BoolTestType::Type)> {
    let kind = |node| get::<pg_sys::SubLink>(node).map(|link| link.subLinkType);
    if let Some(not) = get::<pg_sys::BoolExpr>(qual)
        && not.boolop == pg_sys::BoolExprType::NOT_EXPR
    {
        let node = nodes(not.args).first().copied()?;
        return (kind(node)? == SubLinkType::ANY_SUBLINK).then_some((node, IS_NOT_FALSE));
    }
    (kind(qual)? == SubLinkType::ALL_SUBLINK).then_some((qual, IS_NOT_TRUE))
}

/// Whether the rows can be looked for by an equality, and all that is evaluated raises no error.
fn is_fit(qual: Node, node: Node, link: &pg_sys::SubLink) -> bool {
    // SAFETY: as its tag says, and nobody changes it meanwhile; an expression.
    let (query, volatile) = unsafe {
        let query = &*link.subselect.cast::<pg_sys::Query>();
        (query, pg_sys::contain_volatile_functions(qual))
    };
    if volatile || query.hasAggs || !is_whole(query) || !is_simple(query) || !has_fit_tables(query)
    {
        return false;
    }
    let targets = query.targetList.cast();
    let compared = Levels::of(link.testexpr);
    // SAFETY: a SELECT has a join tree.
    let jointree = unsafe { &*query.jointree };
    let terms = conjuncts(jointree.quals);
    Levels::of(targets).is_closed()
        && !compared.outer
        && !compared.beyond
        && errors::is_safe(qual, &|inner| inner == node)
        && errors::is_safe(link.testexpr, &is_value)
        && errors::is_safe(targets, &|_| false)
        && errors::is_safe(query.jointree.cast(), &|_| false)
        && Levels::of(jointree.fromlist.cast()).is_closed()
        && terms.iter().all(|term| !Levels::of(*term).beyond)
        && terms.iter().any(|term| key(*term).is_some())
}

/// Whether it is what the subquery returns, in a comparison with that.
fn is_value(node: Node) -> bool {
    get::<pg_sys::Param>(node)
        .is_some_and(|param| param.paramkind == pg_sys::ParamKind::PARAM_SUBLINK)
}

/// The comparison, seen from the subquery.
fn comparison(link: &pg_sys::SubLink, query: &pg_sys::Query) -> Option<Node> {
    let test = node::copy(link.testexpr);
    // SAFETY: a copy, whose columns are of the query around the subquery.
    unsafe { pg_sys::IncrementVarSublevelsUp(test, 1, 0) };
    let values = node::target_exprs(query.targetList);
    let mut complete = true;
    let compared = node::rewrite(test, &mut |node| {
        let param = get::<pg_sys::Param>(node)
            .filter(|param| param.paramkind == pg_sys::ParamKind::PARAM_SUBLINK)?;
        let at = usize::try_from(param.paramid).ok()?.wrapping_sub(1);
        complete &= values.get(at).is_some();
        values.get(at).map(|value| node::copy(*value))
    });
    complete.then_some(compared)
}
