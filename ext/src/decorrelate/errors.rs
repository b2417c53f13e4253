//! Expressions that can't raise an error, whatever the columns hold.

use crate::lower::functions::{self, Call, Number};
use crate::lower::node::{self, Node, get, nodes, tag};
use crate::lower::operator_function;
use pg_lake_plan::expr::Function;
use pg_lake_plan::ir::ArithmeticOp;
use pgrx::FromDatum;
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// Functions that look into a `jsonb`.
const JSON: [u32; 11] = [
    pg_sys::F_JSONB_ARRAY_ELEMENT,
    pg_sys::F_JSONB_ARRAY_ELEMENT_TEXT,
    pg_sys::F_JSONB_CONTAINED,
    pg_sys::F_JSONB_CONTAINS,
    pg_sys::F_JSONB_EXISTS,
    pg_sys::F_JSONB_EXISTS_ALL,
    pg_sys::F_JSONB_EXISTS_ANY,
    pg_sys::F_JSONB_EXTRACT_PATH,
    pg_sys::F_JSONB_EXTRACT_PATH_TEXT,
    pg_sys::F_JSONB_OBJECT_FIELD,
    pg_sys::F_JSONB_OBJECT_FIELD_TEXT,
];

/// Whether evaluating an expression, a list of them or the quals of a join tree raises no error, as far
/// as it isn't about nodes that `elsewhere` knows.
pub fn is_safe(node: Node, elsewhere: &dyn Fn(Node) -> bool) -> bool {
    let mut safe = true;
    node::visit(node, &mut |node| {
        if !safe || elsewhere(node) || is_folded(node) {
            return false;
        }
        safe = is_safe_node(node);
        safe
    });
    safe
}

/// The same but for calls of aggregates and window functions, of which only the arguments are looked at.
pub fn is_safe_around_calls(node: Node, elsewhere: &dyn Fn(Node) -> bool) -> bool {
    let mut safe = true;
    node::visit(node, &mut |node| {
        if !safe || elsewhere(node) || is_folded(node) {
            return false;
        }
        let is_call = matches!(
            tag(node),
            NodeTag::T_Aggref | NodeTag::T_WindowFunc | NodeTag::T_SortGroupClause
        );
        safe = is_call || is_safe_node(node);
        safe
    });
    safe
}

/// As far as it is about the node itself.
fn is_safe_node(node: Node) -> bool {
    match tag(node) {
        NodeTag::T_List
        | NodeTag::T_TargetEntry
        | NodeTag::T_FromExpr
        | NodeTag::T_JoinExpr
        | NodeTag::T_RangeTblRef
        | NodeTag::T_Var
        | NodeTag::T_Const
        | NodeTag::T_RelabelType
        | NodeTag::T_BoolExpr
        | NodeTag::T_NullTest
        | NodeTag::T_BooleanTest
        | NodeTag::T_CoalesceExpr
        | NodeTag::T_CaseExpr
        | NodeTag::T_CaseWhen
        | NodeTag::T_CaseTestExpr
        | NodeTag::T_SQLValueFunction => true,
        _ => is_safe_call(node).unwrap_or(false),
    }
}

/// Whether rows can be sorted by an operator without an error; not known if there is none, of a type that is only hashed.
pub fn sorts_safely(operator: pg_sys::Oid) -> bool {
    if operator == pg_sys::InvalidOid {
        return false;
    }
    let function = operator_function(pg_sys::InvalidOid, operator);
    never_fails(function, std::ptr::null_mut())
}

/// `None` if it is something else than a call or a value.
fn is_safe_call(node: Node) -> Option<bool> {
    if let Some(op) = get::<pg_sys::OpExpr>(node) {
        let function = operator_function(op.opfuncid, op.opno);
        return Some(!op.opretset && never_fails(function, op.args));
    }
    if let Some(call) = get::<pg_sys::FuncExpr>(node) {
        return Some(!call.funcretset && never_fails(call.funcid, call.args));
    }
    if let Some(list) = get::<pg_sys::ScalarArrayOpExpr>(node) {
        let function = operator_function(list.opfuncid, list.opno);
        // One of the patterns may be incomplete.
        let is_like = matches!(functions::known(function), Some(Call::Like { .. }));
        return Some(!is_like && never_fails(function, list.args));
    }
    if let Some(array) = get::<pg_sys::ArrayExpr>(node) {
        return Some(!array.multidims);
    }
    let param = get::<pg_sys::Param>(node)?;
    Some(param.paramkind == pg_sys::ParamKind::PARAM_EXTERN)
}

fn never_fails(function: pg_sys::Oid, args: *mut pg_sys::List) -> bool {
    match functions::known(function) {
        Some(Call::Compare(_) | Call::ComparePadded(_) | Call::CompareJson(_) | Call::Cast(_)) => {
            true
        }
        Some(Call::Arithmetic(op, Number::Decimal)) => matches!(
            op,
            ArithmeticOp::Add | ArithmeticOp::Subtract | ArithmeticOp::Multiply
        ),
        Some(Call::Negate(Number::Decimal)) => true,
        Some(Call::Like { .. }) => nodes(args).last().is_some_and(|last| is_pattern(*last)),
        Some(Call::Plain(Function::Substring, _)) => takes_no_negative_count(args),
        // Blanks, as of `character(n)` that becomes a text.
        Some(Call::Plain(Function::Trim(_), _)) => nodes(args).len() == 1,
        _ if JSON.contains(&function.to_u32()) => true,
        // A function that raises an error for some arguments isn't leakproof.
        // SAFETY: looks the function up.
        _ => unsafe { pg_sys::get_func_leakproof(function) },
    }
}

/// Whether a substring's place is constant, and its length, if it has one, not negative.
fn takes_no_negative_count(args: *mut pg_sys::List) -> bool {
    let args = nodes(args);
    let mut bounds = args.iter().skip(1).map(|bound| {
        let constant = get::<pg_sys::Const>(*bound).filter(|c| c.consttype == pg_sys::INT4OID)?;
        // SAFETY: of this type.
        unsafe { i32::from_datum(constant.constvalue, constant.constisnull) }
    });
    let (from, count) = (bounds.next().flatten(), bounds.next());
    from.is_some() && count.is_none_or(|count| count.is_some_and(|count| count >= 0))
}

/// Whether it is a constant pattern that doesn't end with an escape character.
fn is_pattern(node: Node) -> bool {
    let Some(pattern) = get::<pg_sys::Const>(node) else {
        return false;
    };
    // SAFETY: LIKE's functions that are known take a text.
    let text = unsafe { String::from_datum(pattern.constvalue, pattern.constisnull) };
    text.is_none_or(|text| text.chars().rev().take_while(|c| *c == '\\').count() % 2 == 0)
}

/// Whether it is a call that the planner evaluates, wherever the call is.
fn is_folded(node: Node) -> bool {
    let is_call = matches!(tag(node), NodeTag::T_OpExpr | NodeTag::T_FuncExpr);
    let mut constant = is_call;
    if is_call {
        node::visit(node, &mut |node| {
            constant &= matches!(
                tag(node),
                NodeTag::T_List
                    | NodeTag::T_Const
                    | NodeTag::T_OpExpr
                    | NodeTag::T_FuncExpr
                    | NodeTag::T_RelabelType
            );
            constant
        });
    }
    // SAFETY: an expression.
    constant && unsafe { !pg_sys::contain_mutable_functions(node) }
}
