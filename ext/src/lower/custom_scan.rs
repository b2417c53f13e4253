//! Makes the `CustomScan` node that takes a subtree's place.

use super::node::{alloc, list};
use super::private::{self, Private, Source};
use pgrx::pg_sys;

/// What differs between a leaf and a fragment.
pub struct Parts {
    /// 0 for a fragment.
    pub scanrelid: u32,
    pub targetlist: *mut pg_sys::List,
    pub qual: *mut pg_sys::List,
    pub custom_exprs: *mut pg_sys::List,
    pub custom_scan_tlist: *mut pg_sys::List,
    /// The plan nodes that it stands for, from the top.
    pub absorbed: Vec<*mut pg_sys::Plan>,
    /// Whether the topmost of them is kept, to be run instead.
    pub keep: bool,
    /// The plans whose rows are fed.
    pub feeds: Vec<*mut pg_sys::Plan>,
}

/// The node, with costs, parameters and initplans of the subtree that it replaces.
pub fn build(parts: Parts, private: &Private) -> *mut pg_sys::Plan {
    let top = parts.absorbed[0];
    let scan = alloc::<pg_sys::CustomScan>();
    // SAFETY: `scan` is new; the absorbed nodes are plan nodes of the tree, changed by nobody else.
    unsafe {
        let mut init_plans: *mut pg_sys::List = std::ptr::null_mut();
        for plan in &parts.absorbed {
            init_plans = pg_sys::list_concat(init_plans, (**plan).initPlan);
            (**plan).initPlan = std::ptr::null_mut();
        }
        let plan = &mut (*scan).scan.plan;
        *plan = *top;
        plan.type_ = pg_sys::NodeTag::T_CustomScan;
        plan.parallel_aware = false;
        plan.parallel_safe = false;
        plan.async_capable = false;
        plan.targetlist = parts.targetlist;
        plan.qual = parts.qual;
        plan.lefttree = std::ptr::null_mut();
        plan.righttree = std::ptr::null_mut();
        plan.initPlan = init_plans;
        plan.extParam = pg_sys::bms_copy((*top).extParam);
        plan.allParam = pg_sys::bms_copy((*top).allParam);
        (*scan).scan.scanrelid = parts.scanrelid;
        (*scan).custom_exprs = parts.custom_exprs;
        (*scan).custom_scan_tlist = parts.custom_scan_tlist;
        (*scan).custom_private = private::encode(private);
        for input in &private.inputs {
            if let Source::Relation { rtindex, .. } = input.source {
                (*scan).custom_relids =
                    pg_sys::bms_add_member((*scan).custom_relids, rtindex as i32);
            }
        }
        if parts.keep {
            let plans = std::iter::once(top).chain(parts.feeds);
            (*scan).custom_plans = list(plans.map(|plan| plan.cast()));
        }
        (*scan).methods = crate::custom::methods();
    }
    scan.cast()
}
