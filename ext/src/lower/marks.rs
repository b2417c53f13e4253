//! `x IN (SELECT …)` whose value is looked at, under OR, NOT or CASE or as a result: a column that a join with the
//! subquery's rows adds. An EXISTS that Postgres hashes is one, too.
//!
//! Postgres runs the subquery when the value is first asked for, and computes what is compared with its rows for those
//! rows that ask, if it has any. The engine does both in any case: only what can't raise an error is lowered.

use super::membership::{self, Membership};
use super::node::{self, Node, get};
use super::sub::{Column, Sub};
use super::table::sql_type;
use super::tree::{Builder, in_base, over};
use super::{Lowered, refused};
use pg_lake_plan::ir::{JoinKey, JoinKind, MAX_DEPTH, Plan};
use pg_lake_plan::types::LakeType;
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// The deepest plan that gets a mark: the engine takes [`MAX_DEPTH`] nodes.
const MARKED_DEPTH: usize = MAX_DEPTH / 2;

/// A sublink, over the columns of a subtree, and the column that it has become.
pub struct Marked {
    sublink: Node,
    column: Node,
}

/// An expression with columns in the place of sublinks.
pub fn with_marks(node: Node, marks: &[Marked]) -> Node {
    if marks.is_empty() {
        return node;
    }
    node::rewrite(node, &mut |node| {
        let mark = marks.iter().find(|mark| same(mark.sublink, node))?;
        Some(node::copy(mark.column))
    })
}

/// Whether there is a sublink in an expression.
pub fn has_sublink(node: Node) -> bool {
    let mut found = false;
    node::visit(node, &mut |node| {
        found |= node::tag(node) == NodeTag::T_SubPlan;
        !found
    });
    found
}

fn depth(plan: &Plan) -> usize {
    1 + plan.inputs().into_iter().map(depth).max().unwrap_or(0)
}

fn same(left: Node, right: Node) -> bool {
    // SAFETY: compares expressions.
    node::tag(right) == NodeTag::T_SubPlan && unsafe { pg_sys::equal(left.cast(), right.cast()) }
}

impl Builder<'_> {
    /// Leaves the rows of a subtree that pass a qual, which is over its columns.
    pub(super) fn qual(&mut self, sub: &mut Sub, qual: Node) -> Lowered<()> {
        if let Some(member) = Membership::of(qual) {
            return self.membership(sub, &member);
        }
        let qual = self.marked(sub, qual)?;
        let predicate = self.expression(&sub.columns, qual)?;
        sub.wrap(|input, _| Plan::Filter { input, predicate });
        Ok(())
    }

    /// Marks what the outputs of a subtree ask for, as far as the engine can compute them then.
    pub(super) fn mark_outputs(&mut self, sub: &mut Sub) {
        let mut outputs = std::mem::take(&mut sub.outputs);
        for output in outputs.iter_mut() {
            if let Ok(node) = output
                && has_sublink(*node)
                && let Ok(marked) = self.marked(sub, *node)
            {
                *node = marked;
            }
        }
        sub.outputs = outputs;
    }

    /// Marks what the arguments of aggregates ask for, in expressions over the outputs of a subtree.
    pub(super) fn marks_within(&mut self, sub: &mut Sub, exprs: &[Node]) -> Vec<Marked> {
        let mut calls = vec![];
        for expr in exprs {
            node::visit(*expr, &mut |node| {
                let is_call = node::tag(node) == NodeTag::T_Aggref;
                if is_call && has_sublink(node) {
                    calls.push(node);
                }
                !is_call
            });
        }
        let mut marks = vec![];
        for call in calls {
            if let Ok(call) = over(call, pg_sys::OUTER_VAR, sub) {
                // What isn't marked is refused where the call is lowered.
                let _ = self.add_marks(sub, call, &mut marks);
            }
        }
        marks
    }

    /// An expression over a subtree's columns with columns in the place of its sublinks, or why the engine can't
    /// compute it: then the subtree is as before.
    fn marked(&mut self, sub: &mut Sub, node: Node) -> Lowered<Node> {
        if !has_sublink(node) {
            return Ok(node);
        }
        let begun = self.mark();
        let (plan, width, ordered) = (sub.plan.clone(), sub.columns.len(), sub.ordered);
        let mut marks = vec![];
        let marked = self
            .add_marks(sub, node, &mut marks)
            .map(|()| with_marks(node, &marks))
            .and_then(|marked| self.expression(&sub.columns, marked).map(|_| marked));
        if marked.is_err() {
            self.back_to(begun);
            sub.plan = plan;
            sub.columns.truncate(width);
            sub.ordered = ordered;
        }
        marked
    }

    /// A column for each sublink of an expression that has none yet.
    fn add_marks(&mut self, sub: &mut Sub, node: Node, marks: &mut Vec<Marked>) -> Lowered<()> {
        let mut sublinks = vec![];
        node::visit(node, &mut |node| {
            let is_sublink = node::tag(node) == NodeTag::T_SubPlan;
            if is_sublink && !sublinks.iter().any(|known| same(*known, node)) {
                sublinks.push(node);
            }
            !is_sublink
        });
        for sublink in sublinks {
            if marks.iter().any(|mark| same(mark.sublink, sublink)) {
                continue;
            }
            let column = self.add_mark(sub, sublink)?;
            marks.push(Marked { sublink, column });
        }
        Ok(())
    }

    fn add_mark(&mut self, sub: &mut Sub, node: Node) -> Lowered<Node> {
        let sublink = get::<pg_sys::SubPlan>(node)
            .filter(|sublink| Membership::is_fit(sublink))
            .ok_or("a sublink that depends on the row is not lowered")?;
        if !self.statement.raises_nothing(sublink.plan_id) {
            return refused("a sublink that could raise an error is left to Postgres");
        }
        if depth(&sub.plan) > MARKED_DEPTH {
            return refused("so many sublinks are not lowered");
        }
        let (right, keys) = self.partners(sub, sublink)?;
        let is_nested = |key: &JoinKey| {
            matches!(
                key.left.ty.lake,
                LakeType::List { .. } | LakeType::Struct(_)
            )
        };
        if keys.iter().any(is_nested) {
            return refused("a join by nested types is not lowered");
        }
        // Where null counts as false nobody tells them apart.
        let kind = match sublink.unknownEqFalse {
            true => JoinKind::Mark,
            false if keys.len() == 1 => JoinKind::NullAwareMark,
            false => return refused("IN of several columns is lowered where null counts as false"),
        };
        membership::join(sub, kind, right, keys);
        let shown = in_base(node, &sub.columns);
        sub.columns.push(Column {
            ty: sql_type(LakeType::Bool, pg_sys::BOOLOID),
            node: shown,
        });
        Ok(node::output_var(pg_sys::INDEX_VAR, sub.columns.len(), node))
    }
}
