//! What a lowered plan costs, in Postgres' units: its estimates, but for what the engine does.

use crate::custom;
use crate::lower::node::{self, get, inputs, nodes, plan_tag, tag};
use crate::lower::{ENGINE_SPEED, STEP_COST, STEPS};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// What a part that the engine runs costs each time that it is run again, for another outer row, beside what it does
/// then: a request takes about 0.3 ms.
const AGAIN: f64 = 30.0;

/// The price of the `fraction` of the rows that is wanted.
pub fn of(stmt: &pg_sys::PlannedStmt, fraction: f64) -> f64 {
    let subplans: Vec<*mut pg_sys::Plan> = nodes(stmt.subplans)
        .into_iter()
        .map(|subplan| subplan.cast::<pg_sys::Plan>())
        .collect();
    // SAFETY: the plan's top.
    let (startup, total) = unsafe { ((*stmt.planTree).startup_cost, (*stmt.planTree).total_cost) };
    let wanted = startup + fraction * (total - startup);
    scaled(wanted, stmt.planTree, &subplans)
}

/// A part of a plan's cost, as much cheaper as the plan is.
fn scaled(cost: f64, plan: *mut pg_sys::Plan, subplans: &[*mut pg_sys::Plan]) -> f64 {
    if plan.is_null() {
        return cost;
    }
    // SAFETY: a plan node.
    let total = unsafe { (*plan).total_cost };
    if total > 0.0 {
        cost * price(plan, subplans) / total
    } else {
        cost
    }
}

fn price(plan: *mut pg_sys::Plan, subplans: &[*mut pg_sys::Plan]) -> f64 {
    // SAFETY: raises an error if the stack is nearly used up; a plan node; a setting.
    let (node, per_row) = unsafe {
        pg_sys::check_stack_depth();
        (&*plan, pg_sys::cpu_tuple_cost)
    };
    let (mut init_total, mut init_price) = (0.0, 0.0);
    let init_plans = nodes(node.initPlan).into_iter();
    for subplan in init_plans.filter_map(get::<pg_sys::SubPlan>) {
        // As the planner charges for it (`SS_compute_initplan_cost`).
        let charge = subplan.startup_cost + subplan.per_call_cost;
        let number = usize::try_from(subplan.plan_id - 1).unwrap_or(usize::MAX);
        init_total += charge;
        init_price += match subplans.get(number) {
            Some(tree) => scaled(charge, *tree, subplans),
            None => charge,
        };
    }
    let lowered = lowered(plan);
    let below = match lowered {
        Some(scan) => fed(scan),
        None => inputs(plan),
    };
    let (mut below_total, mut below_price) = (0.0, 0.0);
    for input in below {
        // SAFETY: a plan node.
        below_total += unsafe { (*input).total_cost };
        below_price += price(input, subplans);
    }
    let total = (node.total_cost - init_total).max(0.0);
    let own = total - below_total;
    init_price
        + AGAIN * runs_again(plan, subplans)
        + STEPS * STEP_COST * lowered.map_or(0.0, |scan| recursions(scan, subplans))
        + match lowered {
            // Subplans of such a node are run by the executor, once for each row that the engine gives.
            Some(_) if has_subplan(node) => below_price + own.max(0.0),
            // The executor takes the rows that it returns.
            Some(_) => below_price + own.max(0.0) / ENGINE_SPEED + node.plan_rows * per_row,
            None if own >= 0.0 => below_price + own,
            // Not all of the rows below are wanted.
            None => below_price * total / below_total,
        }
}

/// How many recursions are in a fragment, whose steps cost something beside what they compute.
fn recursions(scan: &pg_sys::CustomScan, subplans: &[*mut pg_sys::Plan]) -> f64 {
    let mut open: Vec<*mut pg_sys::Plan> = (nodes(scan.custom_plans).into_iter().take(1))
        .map(|plan| plan.cast())
        .collect();
    let mut taken = vec![false; subplans.len()];
    let mut count = 0.0;
    while let Some(plan) = open.pop() {
        if plan.is_null() {
            continue;
        }
        if plan_tag(plan) == NodeTag::T_RecursiveUnion {
            count += 1.0;
        }
        if let Some(scan) = get::<pg_sys::CteScan>(plan.cast()) {
            let number = usize::try_from(scan.ctePlanId - 1).unwrap_or(usize::MAX);
            // Once: CTEs that read each other twice would be so many more.
            if let (Some(plan), Some(taken)) = (subplans.get(number), taken.get_mut(number))
                && !std::mem::replace(taken, true)
            {
                open.push(*plan);
            }
        }
        open.extend(inputs(plan));
    }
    count
}

/// How often parts in the engine are run again for the rows of a node: by a nested loop with parameters, and by
/// subplans that depend on the row.
fn runs_again(plan: *mut pg_sys::Plan, subplans: &[*mut pg_sys::Plan]) -> f64 {
    // SAFETY: a plan node.
    let node = unsafe { &*plan };
    let rows = |plan: *mut pg_sys::Plan| {
        // SAFETY: a plan node.
        unsafe { (*plan).plan_rows }
    };
    let mut runs = 0.0;
    if let Some(nest) = get::<pg_sys::NestLoop>(plan.cast())
        && !nest.nestParams.is_null()
        && !node.lefttree.is_null()
    {
        runs += rows(node.lefttree) * in_engine(node.righttree);
    }
    let seen = (inputs(plan).into_iter().map(rows)).fold(node.plan_rows, f64::max);
    for list in [node.targetlist, node.qual] {
        node::visit(list.cast(), &mut |node| {
            if let Some(subplan) = get::<pg_sys::SubPlan>(node)
                && !subplan.parParam.is_null()
            {
                let number = usize::try_from(subplan.plan_id - 1).unwrap_or(usize::MAX);
                let tree = subplans.get(number).copied();
                runs += seen * tree.map_or(0.0, in_engine);
            }
            true
        });
    }
    runs
}

/// How many parts of a plan the engine runs.
fn in_engine(plan: *mut pg_sys::Plan) -> f64 {
    if plan.is_null() {
        return 0.0;
    }
    // SAFETY: raises an error if the stack is nearly used up.
    unsafe { pg_sys::check_stack_depth() };
    match lowered(plan) {
        Some(scan) => 1.0 + fed(scan).into_iter().map(in_engine).sum::<f64>(),
        // Its rows are kept for the next outer row with the same values.
        None if plan_tag(plan) == NodeTag::T_Memoize => 0.0,
        None => inputs(plan).into_iter().map(in_engine).sum(),
    }
}

fn lowered<'a>(plan: *mut pg_sys::Plan) -> Option<&'a pg_sys::CustomScan> {
    get::<pg_sys::CustomScan>(plan.cast())
        .filter(|scan| std::ptr::eq(scan.methods, custom::methods()))
}

/// Whether the node itself runs subplans.
fn has_subplan(plan: &pg_sys::Plan) -> bool {
    let mut found = false;
    for list in [plan.targetlist, plan.qual] {
        node::visit(list.cast(), &mut |node| {
            found |= matches!(
                tag(node),
                NodeTag::T_SubPlan | NodeTag::T_AlternativeSubPlan
            );
            !found
        });
    }
    found
}

/// The plans whose rows are fed to the engine; the first of a fragment's plans is what it stands for.
fn fed(scan: &pg_sys::CustomScan) -> Vec<*mut pg_sys::Plan> {
    let plans = nodes(scan.custom_plans).into_iter().skip(1);
    plans.map(|plan| plan.cast::<pg_sys::Plan>()).collect()
}
