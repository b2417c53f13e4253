//! How a finished plan that isn't lowered yet reads our tables.

use crate::am;
use crate::lower::node::{get, inputs, nodes, plan_tag};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// Of one plan tree.
#[derive(Default)]
struct Reading {
    /// Reads one of our tables at all.
    scans: bool,
    by_index: bool,
    /// Does so in the steps of a recursion.
    steps_by_index: bool,
    /// Reads one of them again for each row of a nested loop.
    repeats: bool,
    /// Has parallel workers.
    gathers: bool,
    /// Subplans that are run once, or as a CTE.
    init_plans: Vec<i32>,
}

/// Whether a plan reads our tables by an index, in or beside parallel workers, or by a subplan or the inner side of a
/// nested loop that is run for each row.
pub fn is_by_own_means(stmt: &pg_sys::PlannedStmt) -> bool {
    let trees = readings(stmt);
    // How many steps there will be isn't known: a look-up costs each of them less than a scan.
    if trees.iter().any(|tree| tree.steps_by_index) {
        return false;
    }
    let is_init = |number: i32| trees.iter().any(|tree| tree.init_plans.contains(&number));
    let scans = trees.iter().any(|tree| tree.scans);
    let per_row = |(number, tree): (i32, &Reading)| number > 0 && tree.scans && !is_init(number);
    (trees.iter()).any(|tree| tree.by_index || tree.repeats)
        || (scans && trees.iter().any(|tree| tree.gathers))
        || (0..).zip(&trees).any(per_row)
}

/// Whether a plan reads our tables by an index.
pub fn is_by_index(stmt: &pg_sys::PlannedStmt) -> bool {
    readings(stmt).iter().any(|tree| tree.by_index)
}

/// Of the plan, and of each of its subplans.
fn readings(stmt: &pg_sys::PlannedStmt) -> Vec<Reading> {
    let ours: Vec<bool> = entries(stmt).map(|entry| entry.is_some()).collect();
    let trees = std::iter::once(stmt.planTree.cast::<pg_sys::Node>()).chain(nodes(stmt.subplans));
    trees.map(|tree| Reading::of(tree.cast(), &ours)).collect()
}

/// The iceberg tables of a plan's range table.
pub fn tables(stmt: &pg_sys::PlannedStmt) -> impl Iterator<Item = pg_sys::Oid> {
    entries(stmt).flatten()
}

/// By range table index, from 1.
fn entries(stmt: &pg_sys::PlannedStmt) -> impl Iterator<Item = Option<pg_sys::Oid>> {
    nodes(stmt.rtable).into_iter().map(|entry| {
        get::<pg_sys::RangeTblEntry>(entry)
            .filter(|entry| {
                entry.rtekind == pg_sys::RTEKind::RTE_RELATION && am::is_iceberg(entry.relid)
            })
            .map(|entry| entry.relid)
    })
}

impl Reading {
    fn of(tree: *mut pg_sys::Plan, ours: &[bool]) -> Reading {
        let mut reading = Reading::default();
        reading.add(tree, ours);
        reading
    }

    fn add(&mut self, plan: *mut pg_sys::Plan, ours: &[bool]) {
        use NodeTag::{
            T_BitmapHeapScan, T_Gather, T_GatherMerge, T_IndexOnlyScan, T_IndexScan, T_SampleScan,
            T_SeqScan, T_TidRangeScan, T_TidScan,
        };
        if plan.is_null() {
            return;
        }
        // SAFETY: raises an error if the stack is nearly used up; a plan node of the tree.
        let init_plans = unsafe {
            pg_sys::check_stack_depth();
            (*plan).initPlan
        };
        match plan_tag(plan) {
            tag @ (T_IndexScan | T_IndexOnlyScan | T_BitmapHeapScan | T_SeqScan | T_SampleScan
            | T_TidScan | T_TidRangeScan) => {
                // SAFETY: these nodes begin with a Scan.
                let rtindex = unsafe { (*plan.cast::<pg_sys::Scan>()).scanrelid } as usize;
                let is_ours = ours.get(rtindex.wrapping_sub(1)).copied() == Some(true);
                self.scans |= is_ours;
                self.by_index |=
                    is_ours && matches!(tag, T_IndexScan | T_IndexOnlyScan | T_BitmapHeapScan);
            }
            T_Gather | T_GatherMerge => self.gathers = true,
            _ => {}
        }
        let init_plans = nodes(init_plans).into_iter();
        self.init_plans.extend(
            init_plans
                .filter_map(get::<pg_sys::SubPlan>)
                .map(|subplan| subplan.plan_id),
        );
        let nest = get::<pg_sys::NestLoop>(plan.cast());
        let nest = nest.filter(|nest| !nest.nestParams.is_null());
        let union = get::<pg_sys::RecursiveUnion>(plan.cast());
        for input in inputs(plan) {
            let scans = std::mem::take(&mut self.scans);
            let by_index = std::mem::take(&mut self.by_index);
            self.add(input, ours);
            let is_step = union.is_some_and(|union| union.plan.righttree == input);
            self.steps_by_index |= is_step && self.by_index;
            self.by_index |= by_index;
            let is_inner = nest.is_some_and(|nest| nest.join.plan.righttree == input);
            self.repeats |= is_inner && self.scans;
            self.scans |= scans;
        }
    }
}
