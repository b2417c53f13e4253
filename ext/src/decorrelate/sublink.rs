//! Which subqueries can become a join.

use super::levels::Levels;
use super::{conjuncts, entries, errors, harm, lateral, target};
use crate::am;
use crate::lower::node::{self, Node, get, nodes, tag};
use crate::lower::single_row::{self, Equality};
use pgrx::FromDatum;
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// `BTEQUALIMAGE_PROC` of `access/nbtree.h`.
const BTREE_EQUAL_IMAGE: i16 = 4;

/// A scalar subquery in an expression, which can be computed for all values of its keys at once.
pub struct Correlated {
    /// The node in the expression.
    pub sublink: Node,
    pub query: *mut pg_sys::Query,
    /// The expression that the subquery returns, over its aggregates, or its tables if it gives none.
    pub target: Node,
    pub gives: Gives,
    pub keys: Vec<Key>,
    /// The terms of the subquery's WHERE that are no keys.
    pub filters: Vec<Node>,
    /// Whether the expression is a qual that isn't true where the subquery finds no row.
    pub rejects_empty: bool,
}

/// What a subquery gives.
#[derive(Clone, Copy)]
pub enum Gives {
    /// One row, of aggregates.
    Aggregates,
    /// The row at this place of an order, if there is one.
    Place(Places),
    /// The row of its table that has the keys, if there is one.
    ByKey,
}

/// Which of the rows of an order a query gives.
#[derive(Clone, Copy)]
pub struct Places {
    /// How many are left out before them.
    pub after: i64,
    /// The last one's number, from 1; `None`: all others.
    pub last: Option<i64>,
}

impl Places {
    fn is_one(&self) -> bool {
        self.last == self.after.checked_add(1)
    }
}

/// `inner = outer` in the subquery's WHERE.
pub struct Key {
    pub clause: Node,
    pub inner: Node,
    pub outer: Node,
    pub inner_is_left: bool,
}

/// The subqueries in a qual that fit; none, if the qual can't be evaluated in another place.
pub fn correlated(qual: Node) -> Vec<Correlated> {
    let mut found = fitting(qual, errors::is_safe);
    if let [only] = found.as_mut_slice() {
        let over_nothing = match only.gives {
            Gives::Aggregates => only.target,
            // SAFETY: makes a node.
            Gives::Place(_) | Gives::ByKey => unsafe {
                pg_sys::makeNullConst(pg_sys::INT4OID, -1, pg_sys::InvalidOid).cast()
            },
        };
        only.rejects_empty = target::is_null_if_empty(qual, only.sublink, over_nothing);
    }
    found
}

/// The same in an expression whose value is a result, or in calls that see all rows: it is one for each row.
pub fn correlated_result(expr: Node) -> Vec<Correlated> {
    fitting(expr, errors::is_safe_around_calls)
}

fn fitting(expr: Node, is_safe: fn(Node, &dyn Fn(Node) -> bool) -> bool) -> Vec<Correlated> {
    let mut found: Vec<Correlated> = vec![];
    node::visit(expr, &mut |node| {
        let is_sublink = tag(node) == NodeTag::T_SubLink;
        if is_sublink {
            found.extend(correlated_sublink(node));
        }
        !is_sublink
    });
    let is_known = |node: Node| {
        found.iter().any(|found| found.sublink == node) || harm::is_harmless_sublink(node)
    };
    // SAFETY: an expression.
    let fit = !found.is_empty()
        && is_safe(expr, &is_known)
        && unsafe { !pg_sys::contain_volatile_functions(expr) };
    if fit { found } else { vec![] }
}

fn correlated_sublink(sublink: Node) -> Option<Correlated> {
    let link = get::<pg_sys::SubLink>(sublink)?;
    if link.subLinkType != pg_sys::SubLinkType::EXPR_SUBLINK
        || tag(link.subselect) != NodeTag::T_Query
    {
        return None;
    }
    let query = link.subselect.cast::<pg_sys::Query>();
    // SAFETY: as its tag says, and nobody changes it meanwhile.
    let inner = unsafe { &*query };
    let target = only_target(inner)?;
    let gives = gives(inner, target)?;
    let (keys, filters) = lateral::correlation(inner)?;
    if matches!(gives, Gives::Place(_)) && shows_variants(inner, &keys) {
        return None;
    }
    Some(Correlated {
        sublink,
        query,
        target,
        gives,
        keys,
        filters,
        rejects_empty: false,
    })
}

fn gives(query: &pg_sys::Query, target: Node) -> Option<Gives> {
    if let Some(places) = lateral::first_rows(query).filter(Places::is_one) {
        return Some(Gives::Place(places));
    }
    if is_plain(query) {
        return target::is_fit(target).then_some(Gives::Aggregates);
    }
    let is_fit = Levels::of(target).is_closed() && errors::is_safe(target, &|_| false);
    (is_fit && gives_row_by_key(query)).then_some(Gives::ByKey)
}

/// Whether the query gives at most one row, since a unique index of its only table has all that it looks for.
pub fn gives_row_by_key(query: &pg_sys::Query) -> bool {
    if query.hasAggs || !is_simple(query) || !is_whole(query) {
        return false;
    }
    let items: Vec<_> = entries(query).collect();
    let [table] = items.as_slice() else {
        return false;
    };
    if table.rtekind != pg_sys::RTEKind::RTE_RELATION {
        return false;
    }
    // SAFETY: a SELECT has a join tree.
    let quals = unsafe { (*query.jointree).quals };
    let equalities: Vec<Equality> = conjuncts(quals).into_iter().filter_map(equality).collect();
    !equalities.is_empty() && single_row::is_found_by(table.relid, &equalities)
}

/// The condition, if the term compares a column with something that is the same for all rows of the query.
fn equality(term: Node) -> Option<Equality> {
    let op = get::<pg_sys::OpExpr>(term)?;
    let args = nodes(op.args);
    let &[left, right] = args.as_slice() else {
        return None;
    };
    let attnum = match (Levels::of(left).own, Levels::of(right).own) {
        (true, false) => column(left)?,
        (false, true) => column(right)?,
        _ => return None,
    };
    Some(Equality {
        attnum,
        operator: op.opno,
        collation: op.inputcollid,
    })
}

/// The number of the query's column that an operand is.
fn column(operand: Node) -> Option<i16> {
    let mut operand = operand;
    if let Some(relabel) = get::<pg_sys::RelabelType>(operand) {
        // Arrays of another type are compared by that type's equality.
        // SAFETY: looks the type up.
        let element = unsafe { pg_sys::get_element_type(relabel.resulttype) };
        if element != pg_sys::InvalidOid {
            return None;
        }
        operand = relabel.arg.cast();
    }
    let var = get::<pg_sys::Var>(operand).filter(|var| var.varlevelsup == 0)?;
    (var.varattno > 0).then_some(var.varattno)
}

/// Whether the query has nothing but FROM, WHERE and aggregates.
pub fn is_plain(query: &pg_sys::Query) -> bool {
    query.hasAggs && is_simple(query) && is_whole(query)
}

/// Whether the query gives all of its rows, in no order.
pub fn is_whole(query: &pg_sys::Query) -> bool {
    query.sortClause.is_null() && query.limitCount.is_null() && query.limitOffset.is_null()
}

/// Whether the query has nothing but FROM, WHERE, aggregates of all rows, ORDER BY, LIMIT and OFFSET.
pub fn is_simple(query: &pg_sys::Query) -> bool {
    is_one_level(query)
        && query.groupClause.is_null()
        && query.havingQual.is_null()
        && query.distinctClause.is_null()
}

/// The same, but it may have groups and DISTINCT.
pub fn is_one_level(query: &pg_sys::Query) -> bool {
    query.commandType == pg_sys::CmdType::CMD_SELECT
        && !query.hasWindowFuncs
        && !query.hasTargetSRFs
        && !query.hasSubLinks
        && !query.hasDistinctOn
        && !query.hasModifyingCTE
        && !query.hasRowSecurity
        && query.cteList.is_null()
        && query.groupingSets.is_null()
        && query.windowClause.is_null()
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
    constant_count(query.limitCount)
}

/// The rows that a query with LIMIT or OFFSET gives, if these are constant.
pub fn places(query: &pg_sys::Query) -> Option<Places> {
    let after = match query.limitOffset.is_null() {
        true => 0,
        false => constant_count(query.limitOffset)?,
    };
    let last = match query.limitCount.is_null() {
        true => None,
        false => Some(limit(query)?.saturating_add(after)),
    };
    let is_some = after > 0 || last.is_some();
    is_some.then_some(Places { after, last })
}

fn constant_count(count: Node) -> Option<i64> {
    let count = match get::<pg_sys::FuncExpr>(count) {
        Some(call) if call.funcid == pg_sys::Oid::from(pg_sys::F_INT8_INT4) => {
            nodes(call.args).first().copied()?
        }
        _ => count,
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
