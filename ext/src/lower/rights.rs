//! Which functions the executor of Postgres would have asked for the right to, in the nodes that a fragment stands for.

use super::expr::operator_function;
use super::node::{self, Node, array, get, nodes};
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

/// Functions that the user needs the right to execute, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    pub functions: Vec<u32>,
    pub aggregates: Vec<u32>,
}

impl Called {
    /// What plan nodes call themselves, without their inputs (`ExecInitFunc`, `ExecBuildGroupingEqual` and
    /// `ExecBuildParamSetEqual` in execExpr.c, execSRF.c, nodeAgg.c, nodeWindowAgg.c).
    pub fn by(plans: &[*mut pg_sys::Plan]) -> Called {
        let mut called = Called::default();
        for plan in plans {
            for list in expressions(*plan) {
                node::visit(list, &mut |node| {
                    called.expression(node);
                    true
                });
            }
            for operator in equality_operators((*plan).cast()) {
                called.function(operator_function(pg_sys::InvalidOid, operator));
            }
        }
        called
    }

    fn function(&mut self, function: pg_sys::Oid) {
        add(&mut self.functions, function);
    }

    fn expression(&mut self, node: Node) {
        let operator = get::<pg_sys::OpExpr>(node)
            .or_else(|| get::<node::Distinct>(node).map(|distinct| &distinct.0))
            .or_else(|| get::<node::NullIf>(node).map(|null_if| &null_if.0));
        if let Some(call) = operator {
            self.function(operator_function(call.opfuncid, call.opno));
        } else if let Some(call) = get::<pg_sys::ScalarArrayOpExpr>(node) {
            self.function(operator_function(call.opfuncid, call.opno));
            if call.hashfuncid != pg_sys::InvalidOid {
                self.function(call.hashfuncid);
            }
        } else if let Some(call) = get::<pg_sys::FuncExpr>(node) {
            self.function(call.funcid);
        } else if let Some(call) = get::<pg_sys::WindowFunc>(node) {
            self.function(call.winfnoid);
        } else if let Some(call) = get::<pg_sys::Aggref>(node) {
            add(&mut self.aggregates, call.aggfnoid);
        }
    }
}

fn add(list: &mut Vec<u32>, function: pg_sys::Oid) {
    let function = function.to_u32();
    if !list.contains(&function) {
        list.push(function);
    }
}

/// The expressions of nodes that are lowered.
fn expressions(plan: *mut pg_sys::Plan) -> Vec<Node> {
    let node: Node = plan.cast();
    // SAFETY: a plan node of the tree.
    let mut found: Vec<Node> = unsafe { vec![(*plan).targetlist.cast(), (*plan).qual.cast()] };
    if let Some(join) = get::<pg_sys::NestLoop>(node) {
        found.push(join.join.joinqual.cast());
    } else if let Some(join) = get::<pg_sys::HashJoin>(node) {
        found.push(join.join.joinqual.cast());
        found.push(join.hashclauses.cast());
    } else if let Some(join) = get::<pg_sys::MergeJoin>(node) {
        found.push(join.join.joinqual.cast());
        // Of its clauses only the sides are initialized.
        for clause in nodes(join.mergeclauses) {
            if let Some(clause) = get::<pg_sys::OpExpr>(clause) {
                found.push(clause.args.cast());
            }
        }
    } else if let Some(window) = get::<pg_sys::WindowAgg>(node) {
        found.extend([window.startOffset, window.endOffset]);
    } else if let Some(limit) = get::<pg_sys::Limit>(node) {
        found.extend([limit.limitOffset, limit.limitCount]);
    } else if let Some(result) = get::<pg_sys::Result>(node) {
        found.push(result.resconstantqual);
    } else if let Some(scan) = get::<pg_sys::FunctionScan>(node) {
        found.push(scan.functions.cast());
    }
    found
}

/// The operators by which a node tells groups, or keys.
fn equality_operators(node: Node) -> Vec<pg_sys::Oid> {
    if let Some(agg) = get::<pg_sys::Agg>(node) {
        let chained = nodes(agg.chain)
            .into_iter()
            .filter_map(get::<pg_sys::Agg>)
            .flat_map(|agg| array(agg.grpOperators, agg.numCols));
        return array(agg.grpOperators, agg.numCols)
            .into_iter()
            .chain(chained)
            .collect();
    }
    if let Some(group) = get::<pg_sys::Group>(node) {
        return array(group.grpOperators, group.numCols);
    }
    if let Some(unique) = get::<pg_sys::Unique>(node) {
        return array(unique.uniqOperators, unique.numCols);
    }
    if let Some(operation) = get::<pg_sys::SetOp>(node) {
        return array(operation.dupOperators, operation.numCols);
    }
    if let Some(union) = get::<pg_sys::RecursiveUnion>(node) {
        return array(union.dupOperators, union.numCols);
    }
    if let Some(memoize) = get::<pg_sys::Memoize>(node) {
        return array(memoize.hashOperators, memoize.numKeys);
    }
    get::<pg_sys::WindowAgg>(node).map_or(vec![], |window| {
        let mut operators = array(window.partOperators, window.partNumCols);
        operators.extend(array(window.ordOperators, window.ordNumCols));
        operators
    })
}
