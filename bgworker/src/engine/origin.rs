//! Which columns of scans a column of a plan comes from, so that rows of the scans can be dropped as soon as the column
//! shows that there is no use for them.
//!
//! That is so as long as a row below has no other effect than to come out, with its column, or with others that it is joined
//! with: nothing counts rows, except those of one group by the column itself, no row comes out because another one is
//! missing, and nothing that is evaluated can raise an error, except in the predicate of the scan, which the scan itself
//! looks after. A join that keeps no row doesn't look at the other side, whose errors count, too.

use pg_lake_plan::ir::{
    Aggregate, AggregateFunction, Expr, ExprKind, Join, JoinKind, Plan, ProjectSet,
};
use pg_lake_plan::types::LakeType;

/// A column of a scan.
#[derive(Debug, PartialEq)]
pub(super) struct Origin {
    /// Of the request's tables.
    pub(super) table: u32,
    pub(super) column: usize,
    pub(super) ty: LakeType,
}

/// Where an expression over a plan's output comes from.
pub(super) fn origins(plan: &Plan, expr: &Expr) -> Vec<Origin> {
    let mut found = vec![];
    if let Some(column) = plain(expr) {
        collect(plan, column, &mut found);
    }
    found
}

/// The column that has an expression's values, which may be whole numbers of another width.
pub(super) fn plain(expr: &Expr) -> Option<usize> {
    match &expr.kind {
        ExprKind::Column(column) => Some(*column as usize),
        ExprKind::Cast(arg) if expr.ty.lake.is_integer() && arg.ty.lake.is_integer() => plain(arg),
        _ => None,
    }
}

fn collect(plan: &Plan, column: usize, found: &mut Vec<Origin>) {
    match plan {
        Plan::Scan(scan) => {
            found.extend(scan.columns.get(column).map(|known| Origin {
                table: scan.table,
                column,
                ty: known.ty.lake.clone(),
            }));
        }
        Plan::Filter { input, predicate } => {
            if !predicate.can_fail() || is_scan(input) {
                collect(input, column, found);
            }
        }
        Plan::Project { input, exprs } => {
            let source = exprs.get(column).and_then(plain);
            if let Some(source) = source.filter(|_| !exprs.iter().any(Expr::can_fail)) {
                collect(input, source, found);
            }
        }
        Plan::Join(join) => through_join(join, column, found),
        Plan::Append { inputs } => {
            for input in inputs {
                collect(input, column, found);
            }
        }
        Plan::Aggregate {
            input,
            groups,
            aggregates,
            sets,
            ..
        } => {
            let source = groups.get(column).and_then(plain);
            if let Some(source) = source.filter(|_| sets.is_empty())
                && !aggregation_raises(groups, aggregates)
            {
                collect(input, source, found);
            }
        }
        Plan::ProjectSet(set) => {
            if let Some(source) = set.columns.get(column)
                && !sets_can_fail(set)
            {
                collect(&set.input, *source as usize, found);
            }
        }
        Plan::Window(_)
        | Plan::Sort { .. }
        | Plan::Limit { .. }
        | Plan::OneRow
        | Plan::RecursiveUnion(_)
        | Plan::WorkTable(_) => {}
    }
}

/// Filters right above a scan are part of its predicate.
fn is_scan(plan: &Plan) -> bool {
    match plan {
        Plan::Scan(_) => true,
        Plan::Filter { input, .. } => is_scan(input),
        _ => false,
    }
}

fn through_join(join: &Join, column: usize, found: &mut Vec<Origin>) {
    if raises(join) {
        return;
    }
    let (left, right) = (may_lose_rows(join, true), may_lose_rows(join, false));
    let keys = || join.keys.iter();
    let matches = matches!(join.kind, JoinKind::Inner | JoinKind::Semi);
    match column.checked_sub(join.left.output().len()) {
        None => {
            let by_row =
                matches!(join.kind, JoinKind::Left | JoinKind::Anti) || join.kind.is_mark();
            if left && (matches || by_row) {
                collect(&join.left, column, found);
            }
            // What is of no use for its key finds partners that aren't either.
            let other = right && matches;
            let same = keys().filter(|key| other && plain(&key.left) == Some(column));
            for other in same.filter_map(|key| plain(&key.right)) {
                collect(&join.right, other, found);
            }
        }
        Some(column) if join.kind == JoinKind::Inner => {
            if right {
                collect(&join.right, column, found);
            }
            let same = keys().filter(|key| left && plain(&key.right) == Some(column));
            for other in same.filter_map(|key| plain(&key.left)) {
                collect(&join.left, other, found);
            }
        }
        Some(_) => {}
    }
}

/// Whether a join itself can raise an error.
fn raises(join: &Join) -> bool {
    let mut keys = join.keys.iter();
    join.filter.as_ref().is_some_and(Expr::can_fail)
        || keys.any(|key| key.left.can_fail() || key.right.can_fail())
}

/// Whether the left side, or the right one, may get fewer rows, even none.
fn may_lose_rows(join: &Join, left: bool) -> bool {
    let keeps_left = join.left_rows < join.right_rows;
    let is_kept = join.keys.is_empty() || left == keeps_left;
    let other = if left { &join.right } else { &join.left };
    !is_kept || !can_fail(other)
}

/// Whether something in a plan can raise an error, or isn't known not to.
fn can_fail(plan: &Plan) -> bool {
    let own = match plan {
        Plan::Scan(scan) => scan.predicate.as_ref().is_some_and(Expr::can_fail),
        Plan::Filter { predicate, .. } => predicate.can_fail(),
        Plan::Project { exprs, .. } => exprs.iter().any(Expr::can_fail),
        Plan::Join(join) => raises(join),
        Plan::Sort { keys, .. } => keys.iter().any(|key| key.expr.can_fail()),
        Plan::ProjectSet(set) => sets_can_fail(set),
        Plan::Append { .. }
        | Plan::Limit { .. }
        | Plan::OneRow
        | Plan::RecursiveUnion(_)
        | Plan::WorkTable(_) => false,
        Plan::Aggregate {
            groups, aggregates, ..
        } => aggregation_raises(groups, aggregates),
        Plan::Window(_) => true,
    };
    own || plan.inputs().into_iter().any(can_fail)
}

fn sets_can_fail(set: &ProjectSet) -> bool {
    set.raises() || set.exprs().any(Expr::can_fail)
}

/// Whether an aggregation itself can raise an error. Where the engine only isn't exact Postgres doesn't.
fn aggregation_raises(groups: &[Expr], aggregates: &[Aggregate]) -> bool {
    let raises = |aggregate: &Aggregate| {
        let order = aggregate.order.iter().map(|key| &key.expr);
        let mut exprs = aggregate.arg.iter().chain(&aggregate.filter).chain(order);
        let mut arg = aggregate.arg.iter();
        let own = match aggregate.function {
            AggregateFunction::Count
            | AggregateFunction::Min
            | AggregateFunction::Max
            | AggregateFunction::BoolAnd
            | AggregateFunction::BoolOr
            | AggregateFunction::BitAnd
            | AggregateFunction::BitOr
            | AggregateFunction::BitXor
            | AggregateFunction::IntervalSum
            | AggregateFunction::IntervalMin
            | AggregateFunction::IntervalMax
            | AggregateFunction::OneForm => false,
            // Floats can overflow.
            AggregateFunction::Sum | AggregateFunction::SumOfSquares => {
                arg.any(|arg| arg.ty.lake.is_float())
            }
            AggregateFunction::PercentileDisc(_)
            | AggregateFunction::PercentileCont(_)
            | AggregateFunction::Mode
            | AggregateFunction::ArrayAgg
            | AggregateFunction::Moments
            | AggregateFunction::PairMoments => true,
        };
        own || exprs.any(Expr::can_fail)
    };
    groups.iter().any(Expr::can_fail) || aggregates.iter().any(raises)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_lake_plan::ir::{ArithmeticOp, ColumnSource, CompareOp, JoinKey, Scan, ScanColumn};
    use pg_lake_plan::types::SqlType;

    fn expr(lake: LakeType, kind: ExprKind) -> Expr {
        let ty = SqlType {
            lake,
            oid: 0,
            typmod: -1,
            collation: 0,
        };
        Expr { ty, kind }
    }

    fn column(number: u32) -> Expr {
        expr(LakeType::Int4, ExprKind::Column(number))
    }

    /// column / column = column
    fn fallible(number: u32) -> Expr {
        let right = Box::new(column(number));
        let division = ExprKind::Arithmetic {
            op: ArithmeticOp::Divide,
            left: right.clone(),
            right: right.clone(),
        };
        let left = Box::new(expr(LakeType::Int4, division));
        let op = CompareOp::Eq;
        expr(LakeType::Bool, ExprKind::Compare { op, left, right })
    }

    /// Of two columns.
    fn scan(table: u32) -> Plan {
        let field = |id: i32| ScanColumn {
            name: format!("c{id}"),
            source: ColumnSource::Field(id),
            ty: column(0).ty,
            missing: None,
        };
        Plan::Scan(Scan {
            table,
            name: "t".into(),
            columns: vec![field(1), field(2)],
            predicate: None,
        })
    }

    fn filter(input: Plan, predicate: Expr) -> Plan {
        let input = Box::new(input);
        Plan::Filter { input, predicate }
    }

    fn project(input: Plan, exprs: Vec<Expr>) -> Plan {
        let input = Box::new(input);
        Plan::Project { input, exprs }
    }

    /// Of the first columns of two scans.
    fn join(kind: JoinKind) -> Join {
        Join {
            kind,
            left: Box::new(scan(0)),
            right: Box::new(scan(1)),
            keys: vec![JoinKey {
                left: column(0),
                right: column(0),
            }],
            filter: None,
            left_rows: 1.0,
            right_rows: 1.0,
        }
    }

    /// Tables and columns.
    fn found(plan: &Plan, number: u32) -> Vec<(u32, usize)> {
        let found = origins(plan, &column(number));
        found.iter().map(|o| (o.table, o.column)).collect()
    }

    #[test]
    fn columns_are_followed_through_projections_and_filters() {
        let is_null = |e: Expr| expr(LakeType::Bool, ExprKind::IsNull(Box::new(e)));
        let swapped = project(scan(3), vec![column(1), column(0)]);
        assert_eq!(
            found(&filter(swapped.clone(), is_null(column(0))), 0),
            [(3, 1)]
        );
        assert!(found(&filter(swapped, fallible(0)), 0).is_empty());
        assert_eq!(found(&filter(scan(3), fallible(0)), 1), [(3, 1)]);
        let computed = project(scan(3), vec![column(1), fallible(0)]);
        assert!(found(&computed, 0).is_empty());
        let wide = expr(LakeType::Int8, ExprKind::Cast(Box::new(column(1))));
        assert_eq!(origins(&scan(3), &wide).len(), 1);
        assert!(found(&scan(3), 9).is_empty());
    }

    #[test]
    fn nothing_is_dropped_before_rows_are_counted() {
        let limit = Plan::Limit {
            input: Box::new(scan(0)),
            skip: 0,
            fetch: Some(1),
        };
        assert!(found(&limit, 0).is_empty());
        let sort = Plan::Sort {
            input: Box::new(scan(0)),
            keys: vec![],
            fetch: Some(1),
        };
        assert!(found(&sort, 0).is_empty());
        let both = vec![scan(0), limit, scan(1)];
        assert_eq!(found(&Plan::Append { inputs: both }, 1), [(0, 1), (1, 1)]);
    }

    #[test]
    fn groups_are_dropped_as_a_whole() {
        let sum = |arg: Expr| Aggregate {
            function: AggregateFunction::Sum,
            arg: Some(arg),
            filter: None,
            distinct: false,
            ty: column(0).ty,
            order: vec![],
        };
        let grouped = |aggregates: Vec<Aggregate>, sets: Vec<Vec<u32>>| Plan::Aggregate {
            input: Box::new(scan(0)),
            groups: vec![column(1)],
            aggregates,
            sets,
            groups_estimate: 1.0,
        };
        assert_eq!(found(&grouped(vec![sum(column(0))], vec![]), 0), [(0, 1)]);
        assert!(found(&grouped(vec![sum(column(0))], vec![]), 1).is_empty());
        assert!(found(&grouped(vec![sum(fallible(0))], vec![]), 0).is_empty());
        let float = expr(LakeType::Float8, ExprKind::Const(None));
        assert!(found(&grouped(vec![sum(float)], vec![]), 0).is_empty());
        let sets = vec![vec![0], vec![]];
        assert!(found(&grouped(vec![], sets), 0).is_empty());
    }

    #[test]
    fn joins_let_filters_through_that_change_no_other_row() {
        let of = |kind, number| found(&Plan::Join(join(kind)), number);
        assert_eq!(of(JoinKind::Inner, 0), [(0, 0), (1, 0)]);
        assert_eq!(of(JoinKind::Inner, 1), [(0, 1)]);
        assert_eq!(of(JoinKind::Inner, 2), [(1, 0), (0, 0)]);
        assert_eq!(of(JoinKind::Inner, 3), [(1, 1)]);
        assert_eq!(of(JoinKind::Left, 0), [(0, 0)]);
        assert!(of(JoinKind::Left, 2).is_empty());
        assert!(of(JoinKind::Full, 0).is_empty());
        assert_eq!(of(JoinKind::Semi, 0), [(0, 0), (1, 0)]);
        assert_eq!(of(JoinKind::Anti, 0), [(0, 0)]);
        assert!(of(JoinKind::NullAwareAnti, 0).is_empty());
        for mark in [JoinKind::Mark, JoinKind::NullAwareMark] {
            assert_eq!(of(mark, 0), [(0, 0)]);
            assert!(of(mark, 2).is_empty());
        }
        let mut raising = join(JoinKind::Inner);
        raising.left = Box::new(filter(scan(0), fallible(1)));
        assert_eq!(found(&Plan::Join(raising.clone()), 0), [(0, 0)]);
        raising.right_rows = 2.0;
        assert_eq!(found(&Plan::Join(raising), 0), [(0, 0), (1, 0)]);
        let mut checked = join(JoinKind::Inner);
        checked.filter = Some(fallible(1));
        assert!(found(&Plan::Join(checked), 0).is_empty());
    }
}
