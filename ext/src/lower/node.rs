//! Postgres' node trees seen from Rust: typed access, lists, copies, walks and rewrites.
//!
//! Every pointer that comes in here belongs to the finished plan that `lower_statement` was given, or
//! to the query that is about to be planned (or was made from them), which stays alive and unchanged by
//! others for that call: that is what makes the blocks below sound. Nothing here knows about the engine.

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;
use std::ffi::{CStr, c_char, c_void};

/// A node of a plan or expression tree, or a list of them, or null.
pub type Node = *mut pg_sys::Node;

/// A node struct and the tag that marks it.
pub trait Tagged {
    const TAG: NodeTag;
}

macro_rules! tagged {
    ($($name:ident = $tag:ident),* $(,)?) => {
        $(impl Tagged for pg_sys::$name { const TAG: NodeTag = NodeTag::$tag; })*
    };
}

tagged!(
    Agg = T_Agg,
    Aggref = T_Aggref,
    Append = T_Append,
    ArrayCoerceExpr = T_ArrayCoerceExpr,
    ArrayExpr = T_ArrayExpr,
    BitmapHeapScan = T_BitmapHeapScan,
    BoolExpr = T_BoolExpr,
    BooleanTest = T_BooleanTest,
    CaseExpr = T_CaseExpr,
    CaseTestExpr = T_CaseTestExpr,
    CaseWhen = T_CaseWhen,
    CoalesceExpr = T_CoalesceExpr,
    CoerceViaIO = T_CoerceViaIO,
    CommonTableExpr = T_CommonTableExpr,
    Const = T_Const,
    CteScan = T_CteScan,
    CustomScan = T_CustomScan,
    FromExpr = T_FromExpr,
    FuncExpr = T_FuncExpr,
    FunctionScan = T_FunctionScan,
    Group = T_Group,
    GroupingFunc = T_GroupingFunc,
    HashJoin = T_HashJoin,
    IncrementalSort = T_IncrementalSort,
    IndexOnlyScan = T_IndexOnlyScan,
    IndexScan = T_IndexScan,
    JoinExpr = T_JoinExpr,
    Limit = T_Limit,
    Memoize = T_Memoize,
    MergeAppend = T_MergeAppend,
    MergeJoin = T_MergeJoin,
    MinMaxExpr = T_MinMaxExpr,
    NestLoop = T_NestLoop,
    NestLoopParam = T_NestLoopParam,
    NullTest = T_NullTest,
    OpExpr = T_OpExpr,
    Param = T_Param,
    PlanRowMark = T_PlanRowMark,
    ProjectSet = T_ProjectSet,
    RangeTblEntry = T_RangeTblEntry,
    RangeTblFunction = T_RangeTblFunction,
    RangeTblRef = T_RangeTblRef,
    RecursiveUnion = T_RecursiveUnion,
    RelabelType = T_RelabelType,
    Result = T_Result,
    SQLValueFunction = T_SQLValueFunction,
    ScalarArrayOpExpr = T_ScalarArrayOpExpr,
    SeqScan = T_SeqScan,
    SetOp = T_SetOp,
    Sort = T_Sort,
    SortGroupClause = T_SortGroupClause,
    SubLink = T_SubLink,
    SubPlan = T_SubPlan,
    SubqueryScan = T_SubqueryScan,
    TargetEntry = T_TargetEntry,
    Unique = T_Unique,
    ValuesScan = T_ValuesScan,
    Var = T_Var,
    WindowAgg = T_WindowAgg,
    WindowClause = T_WindowClause,
    WindowFunc = T_WindowFunc,
    WorkTableScan = T_WorkTableScan,
);

/// `IS DISTINCT FROM`: an operator's call with another meaning, and another tag.
#[repr(transparent)]
pub struct Distinct(pub pg_sys::OpExpr);

impl Tagged for Distinct {
    const TAG: NodeTag = NodeTag::T_DistinctExpr;
}

/// `NULLIF`: the same.
#[repr(transparent)]
pub struct NullIf(pub pg_sys::OpExpr);

impl Tagged for NullIf {
    const TAG: NodeTag = NodeTag::T_NullIfExpr;
}

/// The node's tag; `T_Invalid` for null.
pub fn tag(node: Node) -> NodeTag {
    if node.is_null() {
        NodeTag::T_Invalid
    } else {
        // SAFETY: every node begins with its tag.
        unsafe { (*node).type_ }
    }
}

/// The node as a `T`, if it is one.
pub fn get<'a, T: Tagged>(node: Node) -> Option<&'a T> {
    // SAFETY: the tag says that the node is a `T`.
    (tag(node) == T::TAG).then(|| unsafe { &*node.cast::<T>() })
}

/// The plan node's tag.
pub fn plan_tag(plan: *mut pg_sys::Plan) -> NodeTag {
    tag(plan.cast())
}

/// The plans from which a plan takes its rows.
pub fn inputs(plan: *mut pg_sys::Plan) -> Vec<*mut pg_sys::Plan> {
    let node = plan.cast();
    // SAFETY: a plan node of the tree.
    let mut found = unsafe { vec![(*plan).lefttree, (*plan).righttree] };
    found.extend(get::<pg_sys::SubqueryScan>(node).map(|scan| scan.subplan));
    let lists = [
        get::<pg_sys::Append>(node).map(|append| append.appendplans),
        get::<pg_sys::MergeAppend>(node).map(|append| append.mergeplans),
        get::<pg_sys::CustomScan>(node).map(|custom| custom.custom_plans),
    ];
    for list in lists.into_iter().flatten() {
        found.extend(
            nodes(list)
                .into_iter()
                .map(|input| input.cast::<pg_sys::Plan>()),
        );
    }
    found.retain(|input| !input.is_null());
    found
}

/// The nodes of a list, which may be `NIL`.
pub fn nodes(list: *mut pg_sys::List) -> Vec<Node> {
    cells(list)
        // SAFETY: a list of this tag holds pointers.
        .map(|cell| unsafe { (*cell).ptr_value.cast() })
        .collect()
}

/// The numbers of an integer list.
pub fn ints(list: *mut pg_sys::List) -> Vec<i32> {
    // SAFETY: the caller has an integer list.
    cells(list)
        .map(|cell| unsafe { (*cell).int_value })
        .collect()
}

/// Replaces each plan of a list by what `f` makes of it.
pub fn replace_plans(
    list: *mut pg_sys::List,
    mut f: impl FnMut(usize, *mut pg_sys::Plan) -> *mut pg_sys::Plan,
) {
    for (i, cell) in cells(list).enumerate() {
        // SAFETY: a list of plans, not resized meanwhile.
        unsafe {
            let plan = (*cell).ptr_value.cast();
            (*cell).ptr_value = f(i, plan).cast();
        }
    }
}

fn cells(list: *mut pg_sys::List) -> impl Iterator<Item = *mut pg_sys::ListCell> {
    let (first, length) = if list.is_null() {
        (std::ptr::null_mut(), 0)
    } else {
        // SAFETY: a list has `length` cells at `elements`.
        unsafe { ((*list).elements, (*list).length as usize) }
    };
    (0..length).map(move |i| {
        // SAFETY: below the length.
        unsafe { first.add(i) }
    })
}

/// A new list in the current memory context.
pub fn list(items: impl IntoIterator<Item = Node>) -> *mut pg_sys::List {
    items.into_iter().fold(std::ptr::null_mut(), |list, item| {
        // SAFETY: `lappend` takes NIL or a list of pointers.
        unsafe { pg_sys::lappend(list, item.cast()) }
    })
}

/// The first `length` elements of a C array, which may be null if there are none.
pub fn array<T: Copy>(first: *const T, length: i32) -> Vec<T> {
    (0..usize::try_from(length).unwrap_or(0))
        // SAFETY: the node that holds the array holds its length.
        .map(|i| unsafe { *first.add(i) })
        .collect()
}

/// A zeroed node in the current memory context.
pub fn alloc<T: Tagged>() -> *mut T {
    // SAFETY: all node structs are valid when zeroed but for the tag, which is set.
    unsafe {
        let node = pg_sys::palloc0(size_of::<T>()).cast::<T>();
        (*node.cast::<pg_sys::Node>()).type_ = T::TAG;
        node
    }
}

/// A deep copy.
pub fn copy(node: Node) -> Node {
    // SAFETY: a node, or null.
    unsafe { pg_sys::copyObjectImpl(node.cast_const().cast()).cast() }
}

/// Type, typmod and collation of an expression.
pub fn type_of(node: Node) -> (pg_sys::Oid, i32, pg_sys::Oid) {
    // SAFETY: an expression.
    unsafe {
        (
            pg_sys::exprType(node),
            pg_sys::exprTypmod(node),
            pg_sys::exprCollation(node),
        )
    }
}

/// A Var that stands for `like`, output `attno` (from 1) of `varno`.
pub fn output_var(varno: i32, attno: usize, like: Node) -> Node {
    let (typid, typmod, collation) = type_of(like);
    // SAFETY: makes a node.
    unsafe {
        let var = pg_sys::makeVar(varno, attno as i16, typid, typmod, collation, 0);
        (*var).varnosyn = 0;
        (*var).varattnosyn = 0;
        var.cast()
    }
}

/// An expression that stands for another one of its type, with the type modifier and collation that Postgres reports
/// for that. The expression is changed.
pub fn reported_as(node: Node, original: Node) -> Node {
    let (typid, typmod, collation) = type_of(original);
    let own = type_of(node);
    if own.0 != typid || own == (typid, typmod, collation) {
        return node;
    }
    // SAFETY: nodes as their tags say; the caller's own.
    unsafe {
        match tag(node) {
            NodeTag::T_Var => {
                let var = node.cast::<pg_sys::Var>();
                (*var).vartypmod = typmod;
                (*var).varcollid = collation;
                node
            }
            NodeTag::T_Const => {
                let constant = node.cast::<pg_sys::Const>();
                (*constant).consttypmod = typmod;
                (*constant).constcollid = collation;
                node
            }
            _ => {
                let form = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
                pg_sys::makeRelabelType(node.cast(), typid, typmod, collation, form).cast()
            }
        }
    }
}

/// The expressions of a target list, in order.
pub fn target_exprs(list: *mut pg_sys::List) -> Vec<Node> {
    nodes(list)
        .into_iter()
        .map(|entry| match get::<pg_sys::TargetEntry>(entry) {
            Some(entry) => entry.expr.cast(),
            None => entry,
        })
        .collect()
}

/// Attribute numbers of the Vars of `varno` in an expression or list, ascending.
pub fn attnos(node: Node, varno: i32) -> Vec<i16> {
    let mut set: *mut pg_sys::Bitmapset = std::ptr::null_mut();
    let mut found = vec![];
    // SAFETY: an expression or a list of them; the set is made here.
    unsafe {
        pg_sys::pull_varattnos(node, varno as pg_sys::Index, &mut set);
        let mut member = pg_sys::bms_next_member(set, -1);
        while member >= 0 {
            found.push((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16);
            member = pg_sys::bms_next_member(set, member);
        }
    }
    found
}

struct Rewrite<'a> {
    f: &'a mut dyn FnMut(Node) -> Option<Node>,
}

/// A copy of an expression or list in which `f` may replace nodes; where it returns `None`, the
/// node is copied and its children are rewritten.
pub fn rewrite(node: Node, f: &mut dyn FnMut(Node) -> Option<Node>) -> Node {
    if node.is_null() {
        return node;
    }
    if let Some(new) = f(node) {
        return new;
    }
    let mut context = Rewrite { f };
    // SAFETY: the callback gets the context that outlives this call; the stack is checked there.
    unsafe {
        pg_sys::expression_tree_mutator_impl(
            node,
            Some(rewrite_callback),
            (&raw mut context).cast::<c_void>(),
        )
    }
}

/// A copy of a query in whose own expressions, and queries right in it, `f` may replace nodes; it has to replace these
/// queries if it isn't to share them.
pub fn rewrite_query(
    query: *mut pg_sys::Query,
    f: &mut dyn FnMut(Node) -> Option<Node>,
) -> *mut pg_sys::Query {
    let mut context = Rewrite { f };
    // SAFETY: raises an error if the stack is nearly used up; as in `rewrite`.
    unsafe {
        pg_sys::check_stack_depth();
        pg_sys::query_tree_mutator_impl(
            query,
            Some(rewrite_callback),
            (&raw mut context).cast::<c_void>(),
            0,
        )
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn rewrite_callback(
    node: *mut pg_sys::Node,
    context: *mut c_void,
) -> *mut pg_sys::Node {
    // SAFETY: `rewrite` passed it.
    let context = unsafe { &mut *context.cast::<Rewrite<'_>>() };
    rewrite(node, &mut *context.f)
}

struct Visit<'a> {
    f: &'a mut dyn FnMut(Node) -> bool,
}

/// Calls `f` for a query and for each one in it (subqueries, CTEs, sublinks), from the outside. What
/// it makes of a query is what is looked at further.
pub fn each_query(query: *mut pg_sys::Query, f: &mut dyn FnMut(*mut pg_sys::Query)) {
    f(query);
    let mut inner = |node: Node| {
        let is_query = tag(node) == NodeTag::T_Query;
        if is_query {
            each_query(node.cast(), f);
        }
        !is_query
    };
    let mut context = Visit { f: &mut inner };
    // SAFETY: as in `rewrite`.
    unsafe {
        pg_sys::query_tree_walker_impl(
            query,
            Some(visit_callback),
            (&raw mut context).cast::<c_void>(),
            0,
        );
    }
}

/// Calls `f` for each node of a query's own expressions, from the top; it says whether to descend.
pub fn visit_query(query: *mut pg_sys::Query, f: &mut dyn FnMut(Node) -> bool) {
    let mut context = Visit { f };
    // SAFETY: as in `rewrite`.
    unsafe {
        pg_sys::query_tree_walker_impl(
            query,
            Some(visit_callback),
            (&raw mut context).cast::<c_void>(),
            0,
        );
    }
}

/// Calls `f` for each node of an expression or list, from the top; it says whether to descend.
pub fn visit(node: Node, f: &mut dyn FnMut(Node) -> bool) {
    if node.is_null() || !f(node) {
        return;
    }
    let mut context = Visit { f };
    // SAFETY: as in `rewrite`.
    unsafe {
        pg_sys::expression_tree_walker_impl(
            node,
            Some(visit_callback),
            (&raw mut context).cast::<c_void>(),
        );
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn visit_callback(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: `visit` passed it.
    let context = unsafe { &mut *context.cast::<Visit<'_>>() };
    visit(node, &mut *context.f);
    false
}

/// An expression over the inputs of a plan node in terms of what the scans below return; for EXPLAIN.
pub fn base_expr(plan: *mut pg_sys::Plan, node: Node) -> Node {
    rewrite(node, &mut |node| {
        let var = get::<pg_sys::Var>(node)?;
        // SAFETY: a plan node of the tree.
        let input = match var.varno {
            pg_sys::OUTER_VAR => unsafe { (*plan).lefttree },
            pg_sys::INNER_VAR => unsafe { (*plan).righttree },
            varno if varno > 0 => return None,
            _ => std::ptr::null_mut(),
        };
        let target = match input.is_null() {
            true => None,
            // SAFETY: as above.
            false => usize::try_from(var.varattno).ok().and_then(|number| {
                let targets = target_exprs(unsafe { (*input).targetlist });
                targets.get(number.checked_sub(1)?).copied()
            }),
        };
        Some(match target {
            Some(target) => base_expr(input, target),
            // SAFETY: makes a node.
            None => unsafe {
                pg_sys::makeNullConst(var.vartype, var.vartypmod, var.varcollid).cast()
            },
        })
    })
}

/// A C string that Postgres allocated, or `""` for null.
pub fn string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: a terminated string.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
