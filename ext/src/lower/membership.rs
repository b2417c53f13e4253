//! `x [NOT] IN (SELECT …)` that Postgres left as a sublink: a join with the rows of its plan.

use super::joins::Pair;
use super::node::{self, Node, get, ints, nodes};
use super::sub::Sub;
use super::tree::Builder;
use super::{Lowered, refused};
use pg_lake_plan::ir::{Join, JoinKey, JoinKind, Plan};
use pgrx::pg_sys;

/// A qual of that form.
pub struct Membership<'a> {
    sublink: &'a pg_sys::SubPlan,
    negated: bool,
}

impl<'a> Membership<'a> {
    /// The qual, if it is one whose sublink doesn't depend on the row.
    pub fn of(qual: Node) -> Option<Membership<'a>> {
        let (sublink, negated) = match get::<pg_sys::BoolExpr>(qual) {
            Some(expr) if expr.boolop == pg_sys::BoolExprType::NOT_EXPR => {
                (nodes(expr.args).first().copied()?, true)
            }
            _ => (qual, false),
        };
        let sublink = get::<pg_sys::SubPlan>(sublink)?;
        // Where null counts as false, its negation would be true.
        let plain = !(negated && sublink.unknownEqFalse);
        (Self::is_fit(sublink) && plain).then_some(Membership { sublink, negated })
    }

    /// Whether it is of the form `x IN (SELECT …)` and doesn't depend on the row.
    pub fn is_fit(sublink: &pg_sys::SubPlan) -> bool {
        let independent = sublink.parParam.is_null() && sublink.args.is_null();
        independent && sublink.subLinkType == pg_sys::SubLinkType::ANY_SUBLINK
    }
}

/// Joins a subtree with the rows of a sublink, of which no columns come out.
pub fn join(sub: &mut Sub, kind: JoinKind, right: Sub, keys: Vec<JoinKey>) {
    let (left_rows, right_rows) = (sub.rows, right.rows);
    sub.wrap(|left, _| {
        Plan::Join(Join {
            kind,
            left,
            right: Box::new(right.plan),
            keys,
            filter: None,
            left_rows,
            right_rows,
        })
    });
    sub.ordered = sub.order.is_empty();
}

impl Builder<'_> {
    /// Leaves the rows of a subtree that pass the qual, which is over its columns.
    pub(super) fn membership(&mut self, sub: &mut Sub, member: &Membership<'_>) -> Lowered<()> {
        let (right, keys) = self.partners(sub, member.sublink)?;
        let kind = match member.negated {
            false => JoinKind::Semi,
            true if keys.len() == 1 => JoinKind::NullAwareAnti,
            true => return refused("NOT IN of several columns is not lowered"),
        };
        join(sub, kind, right, keys);
        Ok(())
    }

    /// The rows of a sublink, and what of the subtree's columns is compared with theirs.
    pub(super) fn partners(
        &mut self,
        sub: &Sub,
        sublink: &pg_sys::SubPlan,
    ) -> Lowered<(Sub, Vec<JoinKey>)> {
        let plan = (self.statement.subplan(sublink.plan_id)).ok_or("a sublink without a plan")?;
        let params = ints(sublink.paramIds);
        let needed: Vec<i16> = (1..).take(params.len()).collect();
        let feeds = self.feeds.len();
        let right = self.input(plan, &needed)?;
        // Postgres runs it when the first row comes to it, if one does.
        let fed = self.feeds.len() > feeds;
        if right.plan.can_raise() || (fed && !self.statement.raises_nothing(sublink.plan_id)) {
            return refused("a sublink whose rows could raise an error is left to Postgres");
        }

        let width = sub.columns.len();
        let comparisons = match get::<pg_sys::BoolExpr>(sublink.testexpr) {
            Some(expr) if expr.boolop == pg_sys::BoolExprType::AND_EXPR => nodes(expr.args),
            _ => vec![sublink.testexpr],
        };
        let mut conditions = vec![];
        for comparison in comparisons {
            let mut failed = None;
            conditions.push(node::rewrite(comparison, &mut |node| {
                let param = get::<pg_sys::Param>(node)?;
                let at = params.iter().position(|id| *id == param.paramid)?;
                Some(match right.output(at as i16 + 1) {
                    Ok(output) => super::sub::shift_vars(output, |at| width + at),
                    Err(reason) => {
                        failed.get_or_insert(reason);
                        node::copy(node)
                    }
                })
            }));
            if let Some(reason) = failed {
                return Err(reason);
            }
        }
        let columns = [sub.columns.as_slice(), right.columns.as_slice()].concat();
        let mut keys = vec![];
        for condition in conditions {
            let condition = self.expression(&columns, condition)?;
            let key = Pair::key_of(&condition, width, columns.len());
            let key = key.ok_or("a sublink that compares otherwise than by =")?;
            // Without rows to compare with Postgres computes nothing.
            if key.left.can_raise() || key.right.can_raise() {
                return refused("a sublink that compares what could fail is left to Postgres");
            }
            keys.push(key);
        }
        Ok((right, keys))
    }
}
