//! Which subqueries can become a join.

use super::levels::Levels;
use super::{entries, errors, lateral, target};
use crate::am;
use crate::lower::node::{self, Node, get, nodes, tag};
use pgrx::FromDatum;
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// `BTEQUALIMAGE_PROC` of `access/nbtree.h`.
const BTREE_EQUAL_IMAGE: i16 = 4;

/// A scalar subquery in a qual, which can be computed for all values of its keys at once.
pub struct Correlated {
    /// The node in the qual.
    pub sublink: Node,
    pub query: *mut pg_sys::Query,
    /// The expression that the subquery returns, over its aggregates, or its tables if it gives its first row.
    pub target: Node,
    /// Whether it gives the first row of an order, not aggregates.
    pub gives_first_row: bool,
    pub keys: Vec<Key>,
    /// The terms of the subquery's WHERE that are no keys.
    pub filters: Vec<Node>,
    /// Whether the qual isn't true where the subquery finds no row.
    pub rejects_empty: bool,
}

/// `inner = outer` in the subquery's WHERE.
pub struct Key {
    pub clause: Node,
    pub inner: Node,
    pub outer: Node,
    pub inner_is_left: bool,
}

/// The subquery in a qual, if there is exactly one and it fits.
pub fn correlated(qual: Node) -> Option<Correlated> {
    let sublink = only_sublink(qual)?;
    let link = get::<pg_sys::SubLink>(sublink)?;
    if link.subLinkType != pg_sys::SubLinkType::EXPR_SUBLINK
        || tag(link.subselect) != NodeTag::T_Query
        || !errors::is_safe(qual, &|node| node == sublink)
    {
        return None;
    }
    let query = link.subselect.cast::<pg_sys::Query>();
    // SAFETY: as its tag says, and nobody changes it meanwhile; an expression.
    let (inner, volatile) = unsafe { (&*query, pg_sys::contain_volatile_functions(qual)) };
    let gives_first_row = lateral::first_rows(inner) == Some(1);
    if volatile || !(gives_first_row || is_plain(inner)) {
        return None;
    }
    let target = only_target(inner)?;
    if !(gives_first_row || target::is_fit(target)) {
        return None;
    }
    let (keys, filters) = lateral::correlation(inner)?;
    if gives_first_row && shows_variants(inner, &keys) {
        return None;
    }
    let over_nothing = match gives_first_row {
        // SAFETY: makes a node.
        true => unsafe { pg_sys::makeNullConst(pg_sys::INT4OID, -1, pg_sys::InvalidOid).cast() },
        false => target,
    };
    Some(Correlated {
        sublink,
        query,
        target,
        gives_first_row,
        keys,
        filters,
        rejects_empty: target::is_null_if_empty(qual, sublink, over_nothing),
    })
}

/// The same in an expression whose value is a result: it is one for each row.
pub fn correlated_result(expr: Node) -> Option<Correlated> {
    correlated(expr).map(|found| Correlated {
        rejects_empty: false,
        ..found
    })
}

/// The one sublink of an expression, which may ask for it or not.
fn only_sublink(expr: Node) -> Option<Node> {
    let (mut found, mut fit) = (None, true);
    node::visit(expr, &mut |node| {
        let is_sublink = tag(node) == NodeTag::T_SubLink;
        if is_sublink {
            fit &= found.replace(node).is_none();
        }
        !is_sublink
    });
    found.filter(|_| fit)
}

/// Whether the query has nothing but FROM, WHERE and aggregates.
pub fn is_plain(query: &pg_sys::Query) -> bool {
    query.hasAggs && is_simple(query) && query.sortClause.is_null() && query.limitCount.is_null()
}

/// Whether the query has nothing but FROM, WHERE, aggregates of all rows, ORDER BY and LIMIT.
pub fn is_simple(query: &pg_sys::Query) -> bool {
    query.commandType == pg_sys::CmdType::CMD_SELECT
        && !query.hasWindowFuncs
        && !query.hasTargetSRFs
        && !query.hasSubLinks
        && !query.hasDistinctOn
        && !query.hasModifyingCTE
        && !query.hasRowSecurity
        && query.cteList.is_null()
        && query.groupClause.is_null()
        && query.groupingSets.is_null()
        && query.havingQual.is_null()
        && query.windowClause.is_null()
        && query.distinctClause.is_null()
        && query.limitOffset.is_null()
        && query.limitOption == pg_sys::LimitOption::LIMIT_OPTION_COUNT
        && query.rowMarks.is_null()
        && query.setOperations.is_null()
        && !query.jointree.is_null()
}

/// Whether the query reads tables only, one of ours among them.
pub fn has_fit_tables(query: &pg_sys::Query) -> bool {
    let is_fit = |entry: &pg_sys::RangeTblEntry| match entry.rtekind {
        pg_sys::RTEKind::RTE_RELATION => {
            // What is asked of another server can raise any error.
            let is_foreign = entry.relkind as u8 == pg_sys::RELKIND_FOREIGN_TABLE;
            !is_foreign && entry.tablesample.is_null() && entry.securityQuals.is_null()
        }
        pg_sys::RTEKind::RTE_JOIN => {
            let columns = entry.joinaliasvars.cast();
            Levels::of(columns).is_closed() && errors::is_safe(columns, &|_| false)
        }
        _ => false,
    };
    let is_ours = |entry: &pg_sys::RangeTblEntry| {
        entry.rtekind == pg_sys::RTEKind::RTE_RELATION && am::may_lead_to_iceberg(entry.relid)
    };
    entries(query).all(is_fit) && entries(query).any(is_ours)
}

/// What the query returns; what it is only sorted by comes after that.
fn only_target(query: &pg_sys::Query) -> Option<Node> {
    let targets = nodes(query.targetList).into_iter();
    let mut targets = targets.filter_map(get::<pg_sys::TargetEntry>);
    let first = targets.next().filter(|target| !target.resjunk)?;
    (targets.all(|target| target.resjunk)).then(|| first.expr.cast())
}

/// The constant number of rows that the query is limited to.
pub fn limit(query: &pg_sys::Query) -> Option<i64> {
    let count = match get::<pg_sys::FuncExpr>(query.limitCount) {
        Some(call) if call.funcid == pg_sys::Oid::from(pg_sys::F_INT8_INT4) => {
            nodes(call.args).first().copied()?
        }
        _ => query.limitCount,
    };
    let constant = get::<pg_sys::Const>(count)?;
    let (datum, isnull) = (constant.constvalue, constant.constisnull);
    // SAFETY: of these types.
    let count = unsafe {
        match constant.consttype {
            pg_sys::INT4OID => i32::from_datum(datum, isnull).map(i64::from),
            pg_sys::INT8OID => i64::from_datum(datum, isnull),
            _ => None,
        }
    };
    count.filter(|count| *count >= 0)
}

/// The term as a key: an equality of a column of the subquery and one of the query around it, by which
/// values that are equal to the same one are equal to each other, and grouped together.
pub fn key(clause: Node) -> Option<Key> {
    let op = get::<pg_sys::OpExpr>(clause)?;
    let args = nodes(op.args);
    let &[left, right] = args.as_slice() else {
        return None;
    };
    let inner_is_left = Levels::of(left).is_own() && Levels::of(right).is_outer();
    let inner_is_right = Levels::of(left).is_outer() && Levels::of(right).is_own();
    let (inner, outer) = match (inner_is_left, inner_is_right) {
        (true, _) => (left, right),
        (_, true) => (right, left),
        _ => return None,
    };
    let (typid, _, collation) = node::type_of(inner);
    // SAFETY: looks the type up.
    let is_undecided =
        collation == pg_sys::InvalidOid && unsafe { pg_sys::type_is_collatable(typid) };
    let groups = op.inputcollid == collation && is_default_equality(op.opno, typid);
    (groups && !is_undecided).then_some(Key {
        clause,
        inner,
        outer,
        inner_is_left,
    })
}

/// Whether the operator is an equality of the operator family that groups values of the type.
fn is_default_equality(operator: pg_sys::Oid, typid: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups.
    unsafe {
        let class = pg_sys::GetDefaultOpClass(typid, pg_sys::BTREE_AM_OID);
        class != pg_sys::InvalidOid
            && pg_sys::get_op_opfamily_strategy(operator, pg_sys::get_opclass_family(class))
                == pg_sys::BTEqualStrategyNumber as i32
    }
}

/// Whether the query returns a key whose values may be equal but not the same.
///
/// Postgres evaluates conditions on what rows are numbered by before it numbers them: all rows of a group are
/// equal. If such a condition can tell them apart, another row would become the first one.
pub fn shows_variants(query: &pg_sys::Query, keys: &[Key]) -> bool {
    let targets = nodes(query.targetList).into_iter();
    let mut shown = targets
        .filter_map(get::<pg_sys::TargetEntry>)
        .filter(|target| !target.resjunk);
    shown.any(|target| {
        // SAFETY: compares expressions.
        let is_target = |key: &&Key| unsafe { pg_sys::equal(target.expr.cast(), key.inner.cast()) };
        let mut same = keys.iter().filter(is_target);
        same.any(|key| !is_same_if_equal(key.inner))
    })
}

/// Whether values that are equal are the same, as btrees know that may merge equal keys.
fn is_same_if_equal(key: Node) -> bool {
    let (typid, _, collation) = node::type_of(key);
    // Its class says so, though trailing blanks don't count.
    if typid == pg_sys::BPCHAROID {
        return false;
    }
    // SAFETY: catalog look-ups; the function takes the type of a class. Keys have one, and a collation where it needs one.
    unsafe {
        let class = pg_sys::GetDefaultOpClass(typid, pg_sys::BTREE_AM_OID);
        if class == pg_sys::InvalidOid {
            return false;
        }
        let input = pg_sys::get_opclass_input_type(class);
        let family = pg_sys::get_opclass_family(class);
        let function = pg_sys::get_opfamily_proc(family, input, input, BTREE_EQUAL_IMAGE);
        let ask = || pg_sys::OidFunctionCall1Coll(function, collation, pg_sys::Datum::from(input));
        function != pg_sys::InvalidOid && bool::from_datum(ask(), false) == Some(true)
    }
}
