//! Rows by their place in an order: `FETCH … WITH TIES` and `DISTINCT ON`. The engine numbers them, and leaves those with
//! the right numbers.
//!
//! Of rows that are equal in the whole order Postgres takes any. `DISTINCT ON` is lowered where that makes no difference.

use super::compare::comparison;
use super::control::conjunction;
use super::frames::DEFAULT_FRAME;
use super::node::{Node, array, attnos, get};
use super::ordering::{EARLY_END, UNKNOWN_ORDER, row_count};
use super::private::Source;
use super::setops::{bigint, constant, counted};
use super::sub::{Sub, column_expr};
use super::tree::Builder;
use super::windows::brought_together;
use super::{Lowered, refused};
use pg_lake_plan::ir::{CompareOp, Expr, ExprKind, Plan, Window, WindowFunction};
use pg_lake_plan::types::Value;
use pgrx::pg_sys;
use pgrx::pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY;

impl Builder<'_> {
    /// The rows up to a place, and those that are equal to the last of them.
    pub(super) fn with_ties(
        &mut self,
        plan: *mut pg_sys::Plan,
        needed: Option<&[i16]>,
    ) -> Lowered<Sub> {
        let limit = get::<pg_sys::Limit>(plan.cast()).ok_or("a malformed limit")?;
        let skip = row_count(limit.limitOffset)?.unwrap_or(0);
        let fetch = row_count(limit.limitCount)?.ok_or("FETCH of all rows is left to Postgres")?;
        let last = fetch.checked_add(skip).and_then(|n| i64::try_from(n).ok());
        let last = last.ok_or("FETCH of so many rows is left to Postgres")?;
        let columns = array(limit.uniqColIdx, limit.uniqNumCols);
        let operators = array(limit.uniqOperators, limit.uniqNumCols);
        let collations = array(limit.uniqCollations, limit.uniqNumCols);
        let mut sub = self.passed(plan, needed, &columns)?;
        let peers = self.keys(&sub, &columns, &operators, &collations)?;
        let input = limit.plan.lefttree;
        if sub.unknown_order || !(is_in_order(&peers, &sub) || self.is_sorted(input)) {
            return refused(UNKNOWN_ORDER);
        }
        if self.stops_early(input, &sub.plan) {
            return refused(EARLY_END);
        }
        if fetch == 0 {
            sub.wrap(|input, _| Plan::Limit {
                input,
                skip: 0,
                fetch: Some(0),
            });
            return Ok(sub);
        }
        let functions = vec![WindowFunction::Rank, WindowFunction::RowNumber];
        let rank = number(&mut sub, vec![], peers, functions);
        let mut terms = vec![numbered(CompareOp::Le, rank, last)];
        if skip > 0 {
            terms.push(numbered(CompareOp::Gt, rank + 1, last - fetch as i64));
        }
        if let Some(predicate) = conjunction(terms) {
            sub.wrap(|input, _| Plan::Filter { input, predicate });
        }
        Ok(sub)
    }

    /// The first row of each group in the order of `input`.
    pub(super) fn distinct_on(
        &mut self,
        unique: &pg_sys::Unique,
        mut input: Sub,
        needed: Option<&[i16]>,
    ) -> Lowered<Sub> {
        let columns = array(unique.uniqColIdx, unique.numCols);
        let operators = array(unique.uniqOperators, unique.numCols);
        let collations = array(unique.uniqCollations, unique.numCols);
        let partition_by = self.keys(&input, &columns, &operators, &collations)?;
        if input.unknown_order || !is_in_order(&partition_by, &input) {
            return refused(UNKNOWN_ORDER);
        }
        let wanted = (1i16..).zip(Self::wanted(&unique.plan, needed));
        let shown: Vec<Node> = wanted
            .filter(|(_, wanted)| *wanted)
            .map(|(number, _)| input.output(number))
            .collect::<Lowered<_>>()?;
        let told = told_apart(&input);
        let is_told = |output: &Node| {
            let mut used = attnos(*output, pg_sys::INDEX_VAR).into_iter();
            used.all(|attno| told.contains(&(attno as usize - 1)))
        };
        if !(shown.iter().all(is_told) || self.has_primary_key(&input, &told)) {
            return refused(
                "DISTINCT ON of rows that their order doesn't tell apart is not lowered",
            );
        }
        let functions = vec![WindowFunction::RowNumber];
        let place = number(&mut input, partition_by, vec![], functions);
        let predicate = numbered(CompareOp::Eq, place, 1);
        input.wrap(|input, _| Plan::Filter { input, predicate });
        Ok(input)
    }

    /// Whether these columns have a primary key of the only table that the rows are from.
    fn has_primary_key(&self, sub: &Sub, columns: &[usize]) -> bool {
        let scans = sub.plan.scans();
        let [scan] = scans.as_slice() else {
            return false;
        };
        let source = self.inputs.get(scan.table as usize);
        let Some(Source::Relation { rtindex, relid }) = source.map(|input| input.source) else {
            return false;
        };
        let is_column = |attnum: &i16| {
            let own = columns.iter().filter_map(|at| sub.columns.get(*at));
            own.filter_map(|column| get::<pg_sys::Var>(column.node))
                .any(|var| var.varno == rtindex as i32 && var.varattno == *attnum)
        };
        let key = primary_key(pg_sys::Oid::from(relid));
        keeps_rows(&sub.plan) && !key.is_empty() && key.iter().all(is_column)
    }
}

/// Whether rows that are equal in these come after one another.
fn is_in_order(exprs: &[Expr], sub: &Sub) -> bool {
    let found = |expr: &Expr| sub.order.iter().any(|key| key.expr == *expr);
    exprs.iter().all(found)
}

/// Columns that look the same in rows that are equal in the order. That isn't so of floats: `-0 = 0`.
fn told_apart(sub: &Sub) -> Vec<usize> {
    let column = |expr: &Expr| match expr.kind {
        ExprKind::Column(at) if !expr.ty.lake.is_float() => Some(at as usize),
        _ => None,
    };
    (sub.order.iter())
        .filter_map(|key| column(&key.expr))
        .collect()
}

/// Whether no row of the only scan comes out twice.
fn keeps_rows(plan: &Plan) -> bool {
    match plan {
        Plan::Scan(_) => true,
        Plan::Filter { input, .. }
        | Plan::Project { input, .. }
        | Plan::Sort { input, .. }
        | Plan::Limit { input, .. } => keeps_rows(input),
        Plan::Window(window) => keeps_rows(&window.input),
        Plan::OneRow => true,
        Plan::Join(_)
        | Plan::Append { .. }
        | Plan::Aggregate { .. }
        | Plan::ProjectSet(_)
        | Plan::RecursiveUnion(_)
        | Plan::WorkTable(_) => false,
    }
}

/// The columns of a table's primary key; none of one whose rows may be equal until the transaction ends.
fn primary_key(relid: pg_sys::Oid) -> Vec<i16> {
    let mut found = vec![];
    // SAFETY: the relation is locked by the query; the set is a copy.
    unsafe {
        let rel = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        if pg_sys::RelationGetPrimaryKeyIndex(rel) != pg_sys::InvalidOid {
            let set = pg_sys::RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_PRIMARY_KEY);
            let mut member = pg_sys::bms_next_member(set, -1);
            while member >= 0 {
                found.push((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16);
                member = pg_sys::bms_next_member(set, member);
            }
        }
        pg_sys::table_close(rel, pg_sys::NoLock as i32);
    }
    found
}

/// Adds columns with numbers of the rows in their order; the first one's place.
fn number(
    sub: &mut Sub,
    partition_by: Vec<Expr>,
    peers: Vec<Expr>,
    functions: Vec<WindowFunction>,
) -> usize {
    let first = sub.columns.len();
    let order_by = brought_together(&sub.order, &partition_by);
    sub.columns.extend(functions.iter().map(|_| counted()));
    sub.wrap(|input, _| {
        Plan::Window(Box::new(Window {
            input,
            partition_by,
            order_by,
            peers,
            frame: DEFAULT_FRAME,
            functions,
            measured: None,
        }))
    });
    sub.ordered = sub.order.is_empty();
    first
}

fn numbered(op: CompareOp, column: usize, number: i64) -> Expr {
    let number = constant(&bigint(), Value::I64(number));
    comparison(op, column_expr(column, &bigint()), number)
}
