//! `FROM t, unnest(t.a)`: a nested loop over functions of its outer rows, which are sets of these rows.
//!
//! Rows and conditions are those of a join, in its order: the function scan's own conditions, then those of the loop.

use super::node::{
    Node, attnos, copy, get, nodes, output_var, plan_tag, rewrite, target_exprs, type_of,
};
use super::project_set::{Output, expand, ordinality};
use super::sub::Sub;
use super::targets::is_noticed;
use super::tree::{Builder, in_base, over};
use super::{Lowered, refused};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

const PARAMETERS: &str = "a nested loop with parameters is not lowered";

impl Builder<'_> {
    pub(super) fn lateral(
        &mut self,
        nest: &pg_sys::NestLoop,
        needed: Option<&[i16]>,
    ) -> Lowered<Sub> {
        let join = &nest.join;
        let (outer, inner) = (join.plan.lefttree, join.plan.righttree);
        let memoized = match plan_tag(inner) {
            // SAFETY: a plan node of the tree, whose outputs are its input's.
            NodeTag::T_Memoize => unsafe { (*inner).lefttree },
            _ => inner,
        };
        let scan = get::<pg_sys::FunctionScan>(memoized.cast()).ok_or(PARAMETERS)?;
        // With a partner that is known to be the only one Postgres doesn't look for another.
        let plain = join.jointype == pg_sys::JoinType::JOIN_INNER && !join.inner_unique;
        if !plain || outer.is_null() {
            return refused(PARAMETERS);
        }
        let given = |node: Node| of_outer_row(nest, node);
        let functions: Vec<Node> = functions(scan)?.into_iter().map(given).collect();
        let inner_targets: Vec<Node> = (target_exprs(scan.scan.plan.targetlist).into_iter())
            .map(given)
            .collect();
        if inner_targets.iter().any(|target| is_noticed(*target)) {
            return refused(PARAMETERS);
        }
        let inner_quals: Vec<Node> = nodes(scan.scan.plan.qual).into_iter().map(given).collect();

        let side = pg_sys::OUTER_VAR;
        let mut beside = Self::uses(&join.plan, needed, &[join.joinqual], side);
        let from_inner = inner_targets.iter().chain(&inner_quals);
        beside.extend(from_inner.flat_map(|node| attnos(*node, side)));
        let args = functions.iter().flat_map(|call| attnos(*call, side));
        let used: Vec<i16> = beside.iter().copied().chain(args).collect();
        let mut sub = self.input(outer, &used)?;
        // Rows that are equal in it are elements later, which have an order themselves.
        sub.establish_order(None);
        // SAFETY: a plan node of the tree.
        let width = nodes(unsafe { (*outer).targetlist }).len();
        let mut outputs: Vec<Output> = (1i16..)
            .take(width)
            .map(|number| match beside.contains(&number) {
                true => Output::Beside(sub.output(number)),
                false => Output::Beside(refused("a column that its parent doesn't use")),
            })
            .collect();
        let mut calls = vec![];
        for function in functions {
            let resolved = over(function, side, &sub)?;
            let call = self.set_call(&sub.columns, resolved)?;
            outputs.push(Output::Element(calls.len()));
            calls.push((call, resolved, in_base(resolved, &sub.columns)));
        }
        if scan.funcordinality {
            let (call, like) = ordinality();
            let number = calls.len() + 1;
            outputs.push(Output::Element(calls.len()));
            calls.push((
                call,
                like,
                output_var(scan.scan.scanrelid as i32, number, like),
            ));
        }
        expand(&mut sub, outputs, calls);
        self.absorbed.push(memoized);
        if memoized != inner {
            self.absorbed.push(inner);
        }

        // All columns are outputs of the outer side now, elements the last ones.
        let joined = |node: Node| {
            let inlined = inlined(node, &inner_targets);
            elements_after(inlined, scan.scan.scanrelid as i32, width)
        };
        let own = nodes(join.joinqual).into_iter();
        let quals = inner_quals.iter().copied().chain(own);
        for qual in quals.chain(nodes(join.plan.qual)) {
            let qual = over(joined(qual), side, &sub)?;
            self.qual(&mut sub, qual)?;
        }
        sub.outputs = Self::targets(&join.plan, needed, |target| {
            over(joined(target), side, &sub)
        });
        Ok(sub)
    }
}

/// The calls of a function scan, each of which has one column. That of a composite type is one of its fields.
pub fn functions(scan: &pg_sys::FunctionScan) -> Lowered<Vec<Node>> {
    let mut calls = vec![];
    for function in nodes(scan.functions) {
        let function = get::<pg_sys::RangeTblFunction>(function)
            .filter(|function| function.funccolcount == 1)
            .ok_or("a function of several columns is not lowered")?;
        // SAFETY: looks the type up.
        if unsafe { pg_sys::type_is_rowtype(type_of(function.funcexpr).0) } {
            return refused("a function of rows is not lowered");
        }
        calls.push(function.funcexpr);
    }
    match calls.is_empty() {
        true => refused("a malformed function scan"),
        false => Ok(calls),
    }
}

/// An expression of the inner side, over the outer one's outputs for the loop's parameters.
fn of_outer_row(nest: &pg_sys::NestLoop, node: Node) -> Node {
    let params = nodes(nest.nestParams).into_iter();
    let params: Vec<&pg_sys::NestLoopParam> =
        params.filter_map(get::<pg_sys::NestLoopParam>).collect();
    rewrite(node, &mut |node| {
        let param = get::<pg_sys::Param>(node)
            .filter(|param| param.paramkind == pg_sys::ParamKind::PARAM_EXEC)?;
        let given = params.iter().find(|given| given.paramno == param.paramid)?;
        Some(copy(given.paramval.cast()))
    })
}

/// An expression of a join without outputs of its inner side, but with what they are.
fn inlined(node: Node, inner_targets: &[Node]) -> Node {
    rewrite(node, &mut |node| {
        let var = get::<pg_sys::Var>(node).filter(|var| var.varno == pg_sys::INNER_VAR)?;
        let at = usize::try_from(var.varattno).ok()?.checked_sub(1)?;
        inner_targets.get(at).map(|target| copy(*target))
    })
}

/// An expression with the columns of a function scan as outputs of the outer side, after `width` other ones. There is none
/// for a whole row.
fn elements_after(node: Node, scan: i32, width: usize) -> Node {
    rewrite(node, &mut |node| {
        let var = get::<pg_sys::Var>(node).filter(|var| var.varno == scan)?;
        let at = match usize::try_from(var.varattno) {
            Ok(at) if at > 0 => width + at,
            _ => 0,
        };
        Some(output_var(pg_sys::OUTER_VAR, at, node))
    })
}
