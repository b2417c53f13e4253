//! Joins: equalities of both sides become keys, the rest a filter of pairs.
//!
//! Which side is built is the engine's choice; Postgres' only says what order its rows have.

use super::compare::decimal_scale;
use super::control::conjunction;
use super::expr::cast;
use super::node::{Node, copy, get, nodes, output_var, plan_tag, rewrite};
use super::ordering::{EARLY_END, may_go_on};
use super::sub::{Column, Sub, mark_columns, renumber, shift_vars};
use super::tree::Builder;
use super::walk::takes_first;
use super::{Lowered, consts, refused};
use pg_lake_plan::ir::{CompareOp, Expr, ExprKind, Join, JoinKey, JoinKind, Plan};
use pg_lake_plan::types::LakeType;
use pgrx::pg_sys;
use pgrx::pg_sys::JoinType::{
    JOIN_ANTI, JOIN_FULL, JOIN_INNER, JOIN_LEFT, JOIN_RIGHT, JOIN_RIGHT_ANTI, JOIN_SEMI,
};
use pgrx::pg_sys::NodeTag;

/// Pairs that a join without keys may look at.
const MAX_PAIRS: f64 = 1e9;

/// Both inputs of a join as one row.
pub struct Pair {
    left: Sub,
    right: Sub,
    /// How Postgres calls them.
    left_var: i32,
    right_var: i32,
    columns: Vec<Column>,
}

impl Pair {
    /// An expression over the inputs as one over the columns of both.
    fn over(&self, node: Node) -> Lowered<Node> {
        let width = self.left.columns.len();
        let mut failed = None;
        let resolved = rewrite(node, &mut |node| {
            let var = get::<pg_sys::Var>(node)?;
            let output = match var.varno {
                varno if varno == self.left_var => self.left.output(var.varattno),
                varno if varno == self.right_var => (self.right.output(var.varattno))
                    .map(|output| shift_vars(output, |at| width + at)),
                _ => return None,
            };
            Some(match output {
                Ok(output) => copy(output),
                Err(reason) => {
                    failed.get_or_insert(reason);
                    copy(node)
                }
            })
        });
        failed.map_or(Ok(resolved), Err)
    }

    /// The sides of an equality between two inputs, over the columns of each. The first one has `width` of all
    /// columns.
    pub fn key_of(condition: &Expr, width: usize, columns: usize) -> Option<JoinKey> {
        let ExprKind::Compare {
            op: CompareOp::Eq,
            left,
            right,
        } = &condition.kind
        else {
            return None;
        };
        let side = |expr: &Expr| {
            let mut used = vec![false; columns];
            mark_columns(expr, &mut used);
            let (left, right) = used.split_at(width);
            match (left.contains(&true), right.contains(&true)) {
                (true, false) => Some(Side::Left),
                (false, true) => Some(Side::Right),
                _ => None,
            }
        };
        let (left, mut right) = match (side(left)?, side(right)?) {
            (Side::Left, Side::Right) => (Expr::clone(left), Expr::clone(right)),
            (Side::Right, Side::Left) => (Expr::clone(right), Expr::clone(left)),
            _ => return None,
        };
        renumber(&mut right, &|at| at - width);
        // The type of a numeric parameter isn't known yet.
        let is_settled = |expr: &Expr| !(expr.ty.lake.is_decimal() && has_param(expr));
        if left.can_raise() || right.can_raise() || !is_settled(&left) || !is_settled(&right) {
            return None;
        }
        same_type(left, right)
    }
}

enum Side {
    Left,
    Right,
}

/// An output of a join whose rows have no partner: what the other side would give is null.
fn without(target: Node, right_var: i32) -> Node {
    rewrite(target, &mut |node| {
        let var = get::<pg_sys::Var>(node).filter(|var| var.varno == right_var)?;
        // SAFETY: makes a node.
        Some(unsafe { pg_sys::makeNullConst(var.vartype, var.vartypmod, var.varcollid).cast() })
    })
}

/// An output of a join that returns rows of the left side. Postgres may ask for a column of the right side, too,
/// if it equals one of the left side.
fn left_only(output: Node, pair: &Pair, keys: &[JoinKey]) -> Lowered<Node> {
    let width = pair.left.columns.len();
    let equal = |at: usize| {
        let key = keys.iter().find(|key| {
            key.right.kind == ExprKind::Column((at - width) as u32) && !key.left.ty.lake.is_float()
        })?;
        match key.left.kind {
            ExprKind::Column(left) => Some(left as usize),
            _ => None,
        }
    };
    let mut failed = None;
    let resolved = rewrite(output, &mut |node| {
        let var = get::<pg_sys::Var>(node).filter(|var| var.varno == pg_sys::INDEX_VAR)?;
        let at = var.varattno as usize - 1;
        if at < width {
            return None;
        }
        match equal(at) {
            Some(left) => Some(output_var(pg_sys::INDEX_VAR, left + 1, node)),
            None => {
                failed.get_or_insert("a column of rows that are only looked for");
                None
            }
        }
    });
    failed.map_or(Ok(resolved), refused)
}

fn has_param(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Param(_)) || expr.children().into_iter().any(has_param)
}

/// Decimals of a key get the larger scale of both sides.
fn same_type(left: Expr, right: Expr) -> Option<JoinKey> {
    let (left, right) = match (decimal_scale(&left), decimal_scale(&right)) {
        (Some(l), Some(r)) if left.ty.lake != right.ty.lake => {
            let ty = consts::decimal(l.max(r));
            (cast(left, &ty), cast(right, &ty))
        }
        _ => (left, right),
    };
    (left.ty.lake == right.ty.lake).then_some(JoinKey { left, right })
}

impl Builder<'_> {
    pub(super) fn join(&mut self, plan: *mut pg_sys::Plan, needed: Option<&[i16]>) -> Lowered<Sub> {
        // SAFETY: the nodes of the three kinds of joins begin with a Join.
        let join = unsafe { &*plan.cast::<pg_sys::Join>() };
        let mut conditions = clauses(plan);
        let found_by = conditions.len();
        let hashed = found_by > 0;
        if let Some(nest) = get::<pg_sys::NestLoop>(plan.cast())
            && !nest.nestParams.is_null()
        {
            return self.lateral(nest, needed);
        }
        conditions.extend(nodes(join.joinqual));

        let (kind, swapped) = match join.jointype {
            JOIN_INNER => (JoinKind::Inner, false),
            JOIN_LEFT => (JoinKind::Left, false),
            JOIN_RIGHT => (JoinKind::Left, true),
            JOIN_FULL => (JoinKind::Full, false),
            JOIN_SEMI => (JoinKind::Semi, false),
            JOIN_ANTI => (JoinKind::Anti, false),
            JOIN_RIGHT_ANTI => (JoinKind::Anti, true),
            _ => return refused("this kind of join is not lowered"),
        };
        let mut pair = self.pair(join, needed, kind, swapped)?;
        let (mut keys, mut filters) = (vec![], vec![]);
        for (at, condition) in conditions.into_iter().enumerate() {
            let condition = self.expression(&pair.columns, pair.over(condition)?)?;
            match Pair::key_of(&condition, pair.left.columns.len(), pair.columns.len()) {
                Some(_) if filters.iter().any(Expr::can_raise) => {
                    return refused("a condition of a join that can fail comes before another one");
                }
                Some(key) => keys.push(key),
                // Postgres evaluates it for rows that have no partner by the others.
                None if at < found_by && condition.can_raise() => {
                    return refused("a join by an expression that can fail is not lowered");
                }
                None => filters.push(condition),
            }
        }
        self.check_conditions(&pair, kind, hashed, &keys, &filters)?;
        let one_side = matches!(kind, JoinKind::Semi | JoinKind::Anti);
        let outputs = Self::targets(&join.plan, needed, |target| match kind {
            JoinKind::Semi => left_only(pair.over(target)?, &pair, &keys),
            JoinKind::Anti => pair.over(without(target, pair.right_var)),
            _ => pair.over(target),
        });
        if one_side {
            pair.columns.truncate(pair.left.columns.len());
        }
        let tag = plan_tag(plan);
        let (order, unknown_order) = match tag {
            NodeTag::T_HashJoin => (vec![], false),
            _ if swapped || kind == JoinKind::Full => (vec![], false),
            _ => {
                let order = std::mem::take(&mut pair.left.order);
                let unnamed = tag == NodeTag::T_MergeJoin && order.is_empty();
                (order, unnamed || pair.left.unknown_order)
            }
        };
        let quals = nodes(join.plan.qual)
            .into_iter()
            .map(|qual| match kind {
                JoinKind::Anti => pair.over(without(qual, pair.right_var)),
                _ => pair.over(qual),
            })
            .collect::<Lowered<Vec<Node>>>()?;
        let mut sub = Sub {
            plan: Plan::Join(Join {
                kind,
                left: Box::new(pair.left.plan),
                right: Box::new(pair.right.plan),
                keys,
                filter: conjunction(filters),
                left_rows: pair.left.rows,
                right_rows: pair.right.rows,
            }),
            columns: pair.columns,
            outputs,
            order,
            ordered: false,
            unknown_order,
            kept: vec![],
            rows: 0.0,
        };
        for qual in quals {
            self.qual(&mut sub, qual)?;
        }
        Ok(sub)
    }

    /// Both inputs; a side whose rows may come as nulls computes all of its columns itself.
    fn pair(
        &mut self,
        join: &pg_sys::Join,
        needed: Option<&[i16]>,
        kind: JoinKind,
        swapped: bool,
    ) -> Lowered<Pair> {
        let plan = (&raw const join.plan).cast_mut();
        let mut lists = vec![join.joinqual];
        if let Some(hash) = get::<pg_sys::HashJoin>(plan.cast()) {
            lists.push(hash.hashclauses);
        }
        if let Some(merge) = get::<pg_sys::MergeJoin>(plan.cast()) {
            lists.push(merge.mergeclauses);
        }
        let mut input = |child, side, nullable| {
            let used = Self::uses(&join.plan, needed, &lists, side);
            let sub = self.input(child, &used)?;
            match nullable {
                true => self.settle(sub, child, true),
                false => Ok(sub),
            }
        };
        let full = kind == JoinKind::Full;
        let left_kind = kind == JoinKind::Left;
        let outer = input(
            join.plan.lefttree,
            pg_sys::OUTER_VAR,
            full || (left_kind && swapped),
        )?;
        let inner = input(
            join.plan.righttree,
            pg_sys::INNER_VAR,
            full || (left_kind && !swapped),
        )?;
        // A merge join ends with the end of one side.
        let merges = plan_tag(plan) == NodeTag::T_MergeJoin;
        let ends =
            |side, sub: &Sub| may_go_on(side, &sub.plan) || self.stops_early(side, &sub.plan);
        let outer_ends = merges && ends(join.plan.lefttree, &outer);
        let inner_ends = (merges || takes_first(plan)) && ends(join.plan.righttree, &inner);
        if outer_ends || inner_ends {
            return refused(EARLY_END);
        }
        let (left, right, left_var, right_var) = match swapped {
            false => (outer, inner, pg_sys::OUTER_VAR, pg_sys::INNER_VAR),
            true => (inner, outer, pg_sys::INNER_VAR, pg_sys::OUTER_VAR),
        };
        let columns = [left.columns.as_slice(), right.columns.as_slice()].concat();
        Ok(Pair {
            left,
            right,
            left_var,
            right_var,
            columns,
        })
    }

    fn check_conditions(
        &self,
        pair: &Pair,
        kind: JoinKind,
        hashed: bool,
        keys: &[JoinKey],
        filters: &[Expr],
    ) -> Lowered<()> {
        if keys.is_empty() && hashed {
            return refused("a join by these expressions is not lowered");
        }
        if keys.is_empty() && pair.left.rows * pair.right.rows > MAX_PAIRS {
            return refused("a join of every row with every row is not lowered");
        }
        // Postgres looks at the pairs of a row until one matches, the engine at more of them.
        let stops = kind != JoinKind::Inner || keys.is_empty();
        if stops && filters.iter().any(Expr::can_raise) {
            return refused("a condition of a join that can fail is not lowered");
        }
        let nested = |key: &JoinKey| {
            matches!(
                key.left.ty.lake,
                LakeType::List { .. } | LakeType::Struct(_)
            )
        };
        match keys.iter().any(nested) {
            true => refused("a join by nested types is not lowered"),
            false => Ok(()),
        }
    }
}

/// The conditions by which the node finds pairs.
fn clauses(plan: *mut pg_sys::Plan) -> Vec<Node> {
    if let Some(hash) = get::<pg_sys::HashJoin>(plan.cast()) {
        return nodes(hash.hashclauses);
    }
    get::<pg_sys::MergeJoin>(plan.cast()).map_or(vec![], |merge| nodes(merge.mergeclauses))
}
