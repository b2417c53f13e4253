//! Outputs of Postgres' nodes: which are computed whether or not somebody looks at them, and which may be computed elsewhere.

use super::expr::operator_function;
use super::node::{self, Node, get};
use crate::decorrelate::is_safe;
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// Whether it could be noticed that an output isn't computed: it may raise an error, or is volatile. Functions over several
/// rows, and what comes from elsewhere, aren't looked at.
pub fn is_noticed(target: Node) -> bool {
    let plain = get::<pg_sys::Var>(target).is_some() || get::<pg_sys::Const>(target).is_some();
    let elsewhere = |node: Node| {
        matches!(
            node::tag(node),
            NodeTag::T_Aggref | NodeTag::T_WindowFunc | NodeTag::T_GroupingFunc | NodeTag::T_Param
        )
    };
    // SAFETY: an expression of the plan.
    !plain
        && (!is_safe(target, &elsewhere) || unsafe { pg_sys::contain_volatile_functions(target) })
}

/// Whether Postgres may compute an output at another place, with other rows around it: it has nothing but
/// aggregates, and arithmetic of numerics on them that raises no error.
pub fn is_deferrable(target: Node) -> bool {
    let mut safe = true;
    node::visit(target, &mut |node| {
        if let Some(op) = get::<pg_sys::OpExpr>(node) {
            let function = operator_function(op.opfuncid, op.opno);
            safe &= matches!(
                function.to_u32(),
                pg_sys::F_NUMERIC_ADD | pg_sys::F_NUMERIC_SUB | pg_sys::F_NUMERIC_MUL
            );
            return safe;
        }
        safe &= matches!(
            node::tag(node),
            NodeTag::T_Aggref
                | NodeTag::T_WindowFunc
                | NodeTag::T_Var
                | NodeTag::T_Const
                | NodeTag::T_List
        );
        safe && node::tag(node) == NodeTag::T_List
    });
    safe
}
