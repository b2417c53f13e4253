//! Functions that return sets: in a target list, and in FROM.
//!
//! Postgres' nodes go on with all sets in lockstep, until the longest one ends. What is computed beside them is computed for
//! each of the rows that come out, and once more for a row whose sets are empty: what could be noticed of that is computed
//! before.

use super::expr::Exprs;
use super::finals::constant_int8;
use super::functions::{self, Number};
use super::lateral::functions as functions_of;
use super::node::{self, Node, attnos, get, nodes};
use super::sub::{Column, Sub, column_expr, mark_columns, renumber, shift_vars};
use super::targets::is_noticed;
use super::tree::{Builder, has_datum, in_base, over};
use super::{Lowered, refused};
use pg_lake_plan::ir::{Expr, Plan, ProjectSet, SetCall, SetFunction};
use pg_lake_plan::types::{LakeType, SqlType};
use pgrx::pg_sys;

/// An output of a node with sets.
pub enum Output {
    /// Over the input's columns, followed by computed ones.
    Beside(Lowered<Node>),
    /// An element of that call's set.
    Element(usize),
}

impl Builder<'_> {
    /// All sets are computed, whatever the parent uses of them: they decide how many rows there are.
    pub(super) fn project_set(
        &mut self,
        plan: *mut pg_sys::Plan,
        needed: Option<&[i16]>,
    ) -> Lowered<Sub> {
        // SAFETY: a plan node of the tree.
        let node = unsafe { &*plan };
        let targets = node::target_exprs(node.targetlist);
        let mut used = Self::uses(node, needed, &[], pg_sys::OUTER_VAR);
        for target in targets.iter().filter(|target| returns_set(**target)) {
            used.extend(attnos(*target, pg_sys::OUTER_VAR));
        }
        let mut sub = match used.is_empty() && is_one_row(node.lefttree) {
            true => {
                self.absorbed.push(node.lefttree);
                over_one_row(vec![], vec![], vec![])
            }
            false => self.input(node.lefttree, &used)?,
        };
        sub.establish_order(None);
        let (mut outputs, mut calls, mut computed) = (vec![], vec![], vec![]);
        let wanted = Self::wanted(node, needed);
        for (target, wanted) in targets.iter().copied().zip(wanted) {
            if returns_set(target) {
                let resolved = over(target, pg_sys::OUTER_VAR, &sub)?;
                let call = self.set_call(&sub.columns, resolved)?;
                outputs.push(Output::Element(calls.len()));
                calls.push((call, target, in_base(resolved, &sub.columns)));
                continue;
            }
            if !wanted {
                let reason = "a column that its parent doesn't use";
                outputs.push(Output::Beside(refused(reason)));
                continue;
            }
            let resolved = over(target, pg_sys::OUTER_VAR, &sub);
            if !is_noticed(target) {
                outputs.push(Output::Beside(resolved));
                continue;
            }
            let resolved = resolved?;
            let expr = self.expression(&sub.columns, resolved)?;
            if !has_datum(&expr.ty, resolved) {
                return refused("a type that the engine computes differently");
            }
            let at = sub.columns.len() + computed.len() + 1;
            let output = node::output_var(pg_sys::INDEX_VAR, at, target);
            outputs.push(Output::Beside(Ok(output)));
            computed.push((expr, in_base(resolved, &sub.columns)));
        }
        if calls.is_empty() {
            return refused("a malformed target list of sets");
        }
        add_columns(&mut sub, computed);
        expand(&mut sub, outputs, calls);
        Ok(sub)
    }

    /// Functions of constants and parameters, whose rows the engine makes itself.
    pub(super) fn function_scan(
        &mut self,
        plan: *mut pg_sys::Plan,
        needed: Option<&[i16]>,
    ) -> Lowered<Sub> {
        let scan = get::<pg_sys::FunctionScan>(plan.cast()).ok_or("a malformed function scan")?;
        let varno = scan.scan.scanrelid as i32;
        let mut sets = vec![];
        for function in functions_of(scan)? {
            sets.push((self.set_call(&[], function)?, function));
        }
        sets.extend(scan.funcordinality.then(ordinality));
        let (mut calls, mut columns, mut outputs) = (vec![], vec![], vec![]);
        for (number, (call, like)) in (1..).zip(sets) {
            columns.push(Column {
                ty: call.ty.clone(),
                node: node::output_var(varno, number, like),
            });
            let output = node::output_var(pg_sys::INDEX_VAR, number, like);
            outputs.push(Ok(output));
            calls.push(call);
        }
        let mut sub = over_one_row(calls, columns, outputs);
        self.filter(&mut sub, scan.scan.plan.qual, varno)?;
        sub.outputs = Self::targets(&scan.scan.plan, needed, |target| over(target, varno, &sub));
        Ok(sub)
    }

    /// A function that returns a set, over some columns.
    pub(super) fn set_call(&mut self, columns: &[Column], node: Node) -> Lowered<SetCall> {
        let call = get::<pg_sys::FuncExpr>(node)
            .filter(|call| call.funcretset)
            .ok_or("a set that no function returns is not lowered")?;
        let mut function = match call.funcid.to_u32() {
            pg_sys::F_UNNEST_ANYARRAY => SetFunction::Unnest,
            pg_sys::F_GENERATE_SERIES_INT4_INT4
            | pg_sys::F_GENERATE_SERIES_INT4_INT4_INT4
            | pg_sys::F_GENERATE_SERIES_INT8_INT8
            | pg_sys::F_GENERATE_SERIES_INT8_INT8_INT8 => SetFunction::GenerateSeries,
            _ => {
                let name = functions::name(call.funcid);
                return Err(format!("function {name} is not lowered"));
            }
        };
        let mut exprs = Exprs::of(columns, &mut self.params);
        let mut args: Vec<Expr> = vec![];
        for arg in nodes(call.args) {
            if function == SetFunction::GenerateSeries {
                args.push(exprs.expression(arg)?);
            } else if let Some(listed) = exprs.listed(arg)? {
                function = SetFunction::Each;
                args = listed;
            } else {
                args.push(exprs.unnested(arg)?);
            }
        }
        let lake = match (function, args.first().map(|arg| &arg.ty.lake)) {
            (SetFunction::Unnest, Some(LakeType::List { element, .. })) => (**element).clone(),
            (SetFunction::GenerateSeries | SetFunction::Each, Some(lake))
                if args.iter().all(|arg| arg.ty.lake == *lake) =>
            {
                lake.clone()
            }
            (SetFunction::GenerateSeries, _) => {
                return refused("numbers of different types are not lowered here");
            }
            (SetFunction::Each, _) => {
                return refused("elements that are shown differently are not lowered");
            }
            _ => return refused("an array that is not stored as a list is not lowered here"),
        };
        let (typid, typmod, collation) = node::type_of(node);
        let ty = SqlType {
            lake,
            oid: typid.to_u32(),
            typmod,
            collation: collation.to_u32(),
        };
        match has_datum(&ty, node) {
            true => Ok(SetCall { function, args, ty }),
            false => refused("a type that the engine computes differently"),
        }
    }
}

/// The number of the element, and an expression of its type.
pub fn ordinality() -> (SetCall, Node) {
    let call = SetCall {
        function: SetFunction::Ordinality,
        args: vec![],
        ty: Number::Int8.ty(),
    };
    (call, constant_int8(0))
}

/// Whether a plan is a single row of nothing that anybody looks at: a SELECT without FROM.
fn is_one_row(plan: *mut pg_sys::Plan) -> bool {
    get::<pg_sys::Result>(plan.cast()).is_some_and(|result| {
        let targets = node::target_exprs(result.plan.targetlist);
        result.plan.lefttree.is_null()
            && result.plan.qual.is_null()
            && result.resconstantqual.is_null()
            && !targets.into_iter().any(is_noticed)
    })
}

/// The sets of these calls, or a single row if there are none.
fn over_one_row(calls: Vec<SetCall>, columns: Vec<Column>, outputs: Vec<Lowered<Node>>) -> Sub {
    let plan = match calls.is_empty() {
        true => Plan::OneRow,
        false => Plan::ProjectSet(ProjectSet {
            input: Box::new(Plan::OneRow),
            columns: vec![],
            calls,
        }),
    };
    Sub {
        plan,
        columns,
        outputs,
        order: vec![],
        ordered: true,
        unknown_order: false,
        kept: vec![],
        rows: 1.0,
    }
}

/// Whether a target of a ProjectSet returns a set: no part of another one does.
fn returns_set(target: Node) -> bool {
    // SAFETY: an expression of the plan.
    unsafe { pg_sys::expression_returns_set(target) }
}

/// Adds computed columns to a subtree's.
fn add_columns(sub: &mut Sub, computed: Vec<(Expr, Node)>) {
    if computed.is_empty() {
        return;
    }
    let own = sub.columns.iter().enumerate();
    let mut exprs: Vec<Expr> = own
        .map(|(at, column)| column_expr(at, &column.ty))
        .collect();
    for (expr, node) in computed {
        sub.columns.push(Column {
            ty: expr.ty.clone(),
            node,
        });
        exprs.push(expr);
    }
    sub.wrap(|input, _| Plan::Project { input, exprs });
}

/// Puts the sets on top of their input, of which only those columns are left that outputs and order need: arrays
/// aren't repeated for each of their elements.
pub fn expand(sub: &mut Sub, outputs: Vec<Output>, calls: Vec<(SetCall, Node, Node)>) {
    let mut used = vec![false; sub.columns.len()];
    let beside = outputs.iter().filter_map(|output| match output {
        Output::Beside(Ok(node)) => Some(*node),
        _ => None,
    });
    for attno in beside.flat_map(|node| attnos(node, pg_sys::INDEX_VAR)) {
        if let Some(used) = used.get_mut(attno as usize - 1) {
            *used = true;
        }
    }
    for key in &sub.order {
        mark_columns(&key.expr, &mut used);
    }
    let kept: Vec<usize> = (0..used.len()).filter(|at| used[*at]).collect();
    let place = |at: usize| kept.iter().position(|kept| *kept == at).unwrap_or(0);
    for key in &mut sub.order {
        renumber(&mut key.expr, &place);
    }
    let element = |call: usize| {
        let like = calls
            .get(call)
            .map_or(std::ptr::null_mut(), |(_, target, _)| *target);
        node::output_var(pg_sys::INDEX_VAR, kept.len() + call + 1, like)
    };
    sub.outputs = outputs
        .into_iter()
        .map(|output| match output {
            Output::Beside(output) => output.map(|node| shift_vars(node, place)),
            Output::Element(call) => Ok(element(call)),
        })
        .collect();
    let mut columns: Vec<Column> = (kept.iter())
        .filter_map(|at| sub.columns.get(*at).cloned())
        .collect();
    let mut sets = vec![];
    for (call, _, node) in &calls {
        columns.push(Column {
            ty: call.ty.clone(),
            node: *node,
        });
        sets.push(call.clone());
    }
    sub.columns = columns;
    let kept = kept.into_iter().map(|at| at as u32).collect();
    sub.wrap(|input, _| {
        Plan::ProjectSet(ProjectSet {
            input,
            columns: kept,
            calls: sets,
        })
    });
}
