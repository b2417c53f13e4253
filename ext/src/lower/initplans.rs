//! Initplans whose results a fragment's parameters are. The engine needs these when the fragment starts, Postgres runs an
//! initplan when its result is first asked for, which may be never. So only one that can't raise an error, and does nothing
//! that could be noticed, is run for the engine.

use super::node::{Node, get, inputs, ints, nodes, plan_tag};
use super::private::ParamUse;
use super::single_row::{SingleRows, count};
use super::walk::limits;
use crate::decorrelate::{is_safe, raises_nothing};
use pgrx::pg_sys;
use pgrx::pg_sys::{NodeTag, SubLinkType};
use std::collections::HashMap;
use std::rc::Rc;

/// The parameters of a fragment.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// By their numbers.
    pub uses: Vec<ParamUse>,
    /// Those of the executor that must not be computed before they are asked for.
    late: Rc<Vec<i32>>,
}

impl Params {
    pub fn new(late: Rc<Vec<i32>>) -> Self {
        Params { uses: vec![], late }
    }

    pub fn is_late(&self, param: &pg_sys::Param) -> bool {
        param.paramkind == pg_sys::ParamKind::PARAM_EXEC && self.late.contains(&param.paramid)
    }
}

/// The parameters that are set by initplans which must not be run before Postgres would run them. `relations`: those of
/// the range table.
pub fn late(
    main: *mut pg_sys::Plan,
    subplans: &[*mut pg_sys::Plan],
    relations: &[Option<pg_sys::Oid>],
) -> Vec<i32> {
    let initplans = collected(main, subplans, relations);
    let set = initplans.by_param.iter();
    set.filter(|(_, subplan)| !initplans.is_safe(subplan))
        .map(|(id, _)| *id)
        .collect()
}

/// The plans of sublinks that can be run though Postgres might not, by their numbers, and whether they give one row at most.
pub fn safe(
    main: *mut pg_sys::Plan,
    subplans: &[*mut pg_sys::Plan],
    relations: &[Option<pg_sys::Oid>],
) -> HashMap<i32, bool> {
    let initplans = collected(main, subplans, relations);
    (1..)
        .zip(subplans)
        .filter(|(_, plan)| !plan.is_null() && initplans.is_safe_plan(**plan))
        .map(|(id, plan)| (id, initplans.rows.is_single(*plan)))
        .collect()
}

/// Whether a part of the plan can be run though Postgres might not.
pub fn is_safe_part(
    part: *mut pg_sys::Plan,
    main: *mut pg_sys::Plan,
    subplans: &[*mut pg_sys::Plan],
    relations: &[Option<pg_sys::Oid>],
) -> bool {
    collected(main, subplans, relations).is_safe_plan(part)
}

/// All initplans of a statement, by the parameters that they set.
fn collected<'a>(
    main: *mut pg_sys::Plan,
    subplans: &'a [*mut pg_sys::Plan],
    relations: &'a [Option<pg_sys::Oid>],
) -> Initplans<'a> {
    let mut open: Vec<*mut pg_sys::Plan> = subplans.to_vec();
    open.push(main);
    let mut initplans = Initplans {
        rows: SingleRows {
            relations,
            subplans,
        },
        by_param: HashMap::new(),
    };
    while let Some(plan) = open.pop() {
        if plan.is_null() {
            continue;
        }
        // SAFETY: a plan node of the tree.
        let own = unsafe { (*plan).initPlan };
        for subplan in nodes(own).into_iter().filter_map(get::<pg_sys::SubPlan>) {
            if subplan.subLinkType != SubLinkType::CTE_SUBLINK {
                let set = ints(subplan.setParam);
                initplans
                    .by_param
                    .extend(set.into_iter().map(|id| (id, subplan)));
            }
        }
        open.extend(inputs(plan));
    }
    initplans
}

/// The places in the list of those subplans of which Postgres may not want all rows.
pub fn read_in_part(main: *mut pg_sys::Plan, subplans: *mut pg_sys::List) -> Vec<usize> {
    let subplans: Vec<*mut pg_sys::Plan> =
        (nodes(subplans).into_iter().map(|node| node.cast())).collect();
    let mut found = ctes_read_in_part(main, &subplans);
    // Of EXISTS that isn't an initplan the planner has dropped what it selects.
    for (place, plan) in subplans.iter().enumerate() {
        // SAFETY: null, or a plan.
        if !plan.is_null() && unsafe { (**plan).targetlist.is_null() } {
            found.push(place);
        }
    }
    let mut open = [subplans.as_slice(), &[main]].concat();
    while let Some(plan) = open.pop() {
        if plan.is_null() {
            continue;
        }
        // SAFETY: a plan node of the tree.
        let own = unsafe { (*plan).initPlan };
        for subplan in nodes(own).into_iter().filter_map(get::<pg_sys::SubPlan>) {
            if subplan.subLinkType == SubLinkType::EXISTS_SUBLINK {
                found.extend(place(subplan.plan_id));
            }
        }
        open.extend(inputs(plan));
    }
    found
}

/// Where the plan of a sublink or CTE is in the list.
fn place(id: i32) -> Option<usize> {
    usize::try_from(id).ok()?.checked_sub(1)
}

/// The places of CTEs, whose rows are computed as they are asked for.
fn ctes_read_in_part(main: *mut pg_sys::Plan, subplans: &[*mut pg_sys::Plan]) -> Vec<usize> {
    // A sublink may be left before its end.
    let sublinks = subplans.iter().map(|plan| (*plan, true));
    let mut open: Vec<(*mut pg_sys::Plan, bool)> = sublinks.chain([(main, false)]).collect();
    let mut found = vec![];
    while let Some((plan, limited)) = open.pop() {
        if plan.is_null() {
            continue;
        }
        if let Some(scan) = get::<pg_sys::CteScan>(plan.cast()).filter(|_| limited) {
            found.extend(place(scan.ctePlanId));
        }
        // SAFETY: a plan node of the tree.
        let inner = unsafe { (*plan).righttree };
        let (outer_limited, inner_limited) = limits(plan, limited);
        open.extend(inputs(plan).into_iter().map(|input| match input == inner {
            true => (input, inner_limited),
            false => (input, outer_limited),
        }));
    }
    found
}

struct Initplans<'a> {
    rows: SingleRows<'a>,
    by_param: HashMap<i32, &'a pg_sys::SubPlan>,
}

impl Initplans<'_> {
    fn is_safe(&self, subplan: &pg_sys::SubPlan) -> bool {
        let Some(plan) = self.rows.subplan(subplan.plan_id) else {
            return false;
        };
        let fits = match subplan.subLinkType {
            SubLinkType::EXISTS_SUBLINK | SubLinkType::ARRAY_SUBLINK | SubLinkType::ANY_SUBLINK => {
                true
            }
            // Of more than one row Postgres makes an error.
            SubLinkType::EXPR_SUBLINK | SubLinkType::ROWCOMPARE_SUBLINK => {
                self.rows.is_single(plan)
            }
            _ => false,
        };
        fits && self.is_safe_plan(plan)
    }

    fn is_safe_plan(&self, plan: *mut pg_sys::Plan) -> bool {
        // SAFETY: raises an error if the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        let Some(lists) = expressions(plan) else {
            return false;
        };
        let mut below = match plan_tag(plan) {
            NodeTag::T_BitmapHeapScan => vec![], // they make bitmaps of conditions that the node has, too
            _ => inputs(plan),
        };
        if let Some(scan) = get::<pg_sys::CteScan>(plan.cast()) {
            match self.rows.subplan(scan.ctePlanId) {
                Some(cte) => below.push(cte),
                None => return false,
            }
        }
        (lists.into_iter()).all(|list| self.is_safe_expression(list.cast()))
            && below.into_iter().all(|input| self.is_safe_plan(input))
    }

    /// Of an expression, or a list of them, or null.
    fn is_safe_expression(&self, node: Node) -> bool {
        // SAFETY: an expression of the plan.
        let volatile = unsafe { pg_sys::contain_volatile_functions(node) };
        !volatile && is_safe(node, &|node| self.is_known(node))
    }

    /// Whether a node, with what is below it, is one of those that only plans have, and is safe.
    fn is_known(&self, node: Node) -> bool {
        if let Some(call) = get::<pg_sys::Aggref>(node) {
            return call.aggkind as u8 == b'n'
                && raises_nothing(call)
                && self.is_safe_expression(call.args.cast())
                && self.is_safe_expression(call.aggfilter.cast());
        }
        if let Some(subplan) = get::<pg_sys::SubPlan>(node) {
            return self.is_safe(subplan)
                && self.is_safe_expression(subplan.args.cast())
                && self.is_safe_expression(subplan.testexpr);
        }
        let Some(param) = get::<pg_sys::Param>(node) else {
            return false;
        };
        // Those that aren't results of initplans are values of outer rows.
        param.paramkind == pg_sys::ParamKind::PARAM_EXEC
            && (self.by_param.get(&param.paramid)).is_none_or(|subplan| self.is_safe(subplan))
    }
}

/// The expressions that a node evaluates; `None` if it might raise an error by itself, or isn't known.
fn expressions(plan: *mut pg_sys::Plan) -> Option<Vec<*mut pg_sys::List>> {
    use NodeTag::{
        T_Agg, T_Append, T_CteScan, T_Gather, T_GatherMerge, T_Group, T_Hash, T_IncrementalSort,
        T_Material, T_Memoize, T_MergeAppend, T_SeqScan, T_SetOp, T_Sort, T_SubqueryScan, T_Unique,
    };
    let node: Node = plan.cast();
    // SAFETY: a plan node of the tree.
    let mut lists = unsafe { vec![(*plan).targetlist, (*plan).qual] };
    if let Some(scan) = get::<pg_sys::IndexScan>(node) {
        lists.extend([scan.indexqualorig, scan.indexorderbyorig]);
    } else if let Some(scan) = get::<pg_sys::IndexOnlyScan>(node) {
        lists.extend([scan.indexqual, scan.recheckqual, scan.indexorderby]);
    } else if let Some(scan) = get::<pg_sys::BitmapHeapScan>(node) {
        lists.push(scan.bitmapqualorig);
    } else if let Some(scan) = get::<pg_sys::ValuesScan>(node) {
        lists.push(scan.values_lists);
    } else if let Some(join) = get::<pg_sys::NestLoop>(node) {
        lists.push(join.join.joinqual);
    } else if let Some(join) = get::<pg_sys::HashJoin>(node) {
        lists.extend([join.join.joinqual, join.hashclauses]);
    } else if let Some(join) = get::<pg_sys::MergeJoin>(node) {
        lists.extend([join.join.joinqual, join.mergeclauses]);
    } else if let Some(result) = get::<pg_sys::Result>(node) {
        lists.push(result.resconstantqual.cast());
    } else if let Some(limit) = get::<pg_sys::Limit>(node) {
        let constant = |bound: Node| bound.is_null() || count(bound).is_some();
        if !(constant(limit.limitCount) && constant(limit.limitOffset)) {
            return None;
        }
    } else {
        let plain = matches!(
            plan_tag(plan),
            T_Agg
                | T_Append
                | T_CteScan
                | T_Gather
                | T_GatherMerge
                | T_Group
                | T_Hash
                | T_IncrementalSort
                | T_Material
                | T_Memoize
                | T_MergeAppend
                | T_SeqScan
                | T_SetOp
                | T_Sort
                | T_SubqueryScan
                | T_Unique
        );
        if !plain {
            return None;
        }
    }
    Some(lists)
}
