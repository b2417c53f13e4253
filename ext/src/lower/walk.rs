//! The walk over a statement's plan trees, from the top: what can be lowered is replaced, what
//! can't is descended into.

use super::leaf::{self, Readers};
use super::node::{get, ints, nodes, plan_tag, replace_plans};
use super::shape::Shape;
use super::{fragment, needed, table};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// Rows of input below which a fragment costs more than it saves.
const MIN_ROWS: f64 = 1000.0;

/// What of its surroundings matters to a node.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    /// Runs in parallel workers.
    below_gather: bool,
    /// Its parent marks and restores positions, as planned for a node of this kind.
    marked: bool,
    /// The outputs that the parent uses, if not all.
    needed: Option<&'a [i16]>,
}

pub struct Walk {
    range_table: Vec<Option<pg_sys::Oid>>,
    /// Range table entries that are written to, locked, or fetched again by EvalPlanQual.
    kept: Vec<u32>,
    /// Those of them whose rows are fetched as a whole for that.
    fetched: Vec<u32>,
    force: bool,
    /// Rows may be asked for their `ctid` from outside the plan.
    positioned: bool,
    /// Why a part that touches an iceberg table was left to Postgres.
    pub reasons: Vec<String>,
}

impl Walk {
    pub fn new(stmt: &pg_sys::PlannedStmt, force: bool, positioned: bool) -> Walk {
        let range_table = nodes(stmt.rtable)
            .into_iter()
            .map(|entry| {
                get::<pg_sys::RangeTblEntry>(entry)
                    .filter(|entry| {
                        entry.rtekind == pg_sys::RTEKind::RTE_RELATION
                            && crate::am::is_iceberg(entry.relid)
                    })
                    .map(|entry| entry.relid)
            })
            .collect();
        let range_table: Vec<Option<pg_sys::Oid>> = range_table;
        let marks: Vec<&pg_sys::PlanRowMark> = nodes(stmt.rowMarks)
            .into_iter()
            .filter_map(get::<pg_sys::PlanRowMark>)
            .collect();
        let targets: Vec<u32> = ints(stmt.resultRelations)
            .into_iter()
            .filter_map(|rti| u32::try_from(rti).ok())
            .collect();
        let deletes = stmt.commandType == pg_sys::CmdType::CMD_DELETE && !stmt.hasReturning;
        let fetched_target = |rti: &u32| {
            let relid = range_table.get(*rti as usize - 1).copied().flatten();
            !deletes || relid.is_some_and(has_triggers)
        };
        let locked = marks
            .iter()
            .filter(|mark| mark.markType <= pg_sys::RowMarkType::ROW_MARK_KEYSHARE)
            .map(|mark| mark.rti);
        Walk {
            kept: marks.iter().map(|m| m.rti).chain(targets.clone()).collect(),
            fetched: locked
                .chain(targets.iter().copied().filter(fetched_target))
                .collect(),
            range_table,
            force,
            positioned,
            reasons: vec![],
        }
    }

    /// Whether the statement names an iceberg table at all.
    pub fn concerns_us(&self) -> bool {
        self.range_table.iter().any(Option::is_some)
    }

    fn iceberg(&self, rtindex: u32) -> Option<pg_sys::Oid> {
        *self.range_table.get(rtindex.checked_sub(1)? as usize)?
    }

    fn note(&mut self, reason: String) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// What takes the place of a whole plan tree.
    pub fn tree(&mut self, plan: *mut pg_sys::Plan) -> *mut pg_sys::Plan {
        self.walk(plan, Place::default(), &[])
    }

    fn walk(
        &mut self,
        plan: *mut pg_sys::Plan,
        place: Place<'_>,
        notes: &[String],
    ) -> *mut pg_sys::Plan {
        if plan.is_null() {
            return plan;
        }
        // SAFETY: raises an error if the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        let mut notes = notes.to_vec();
        match self.fragment(plan, place, &notes) {
            Some(Ok(lowered)) => return lowered,
            Some(Err(reason)) => {
                self.note(reason.clone());
                if !notes.contains(&reason) {
                    notes.push(reason);
                }
            }
            None if self.force => {
                if let Some(name) = wanted(plan_tag(plan)).filter(|_| self.is_all_iceberg(plan)) {
                    self.note(format!("{name} over this input is not lowered"));
                }
            }
            None => {}
        }
        if let Some(relid) = self.scanned(plan) {
            return match self.leaf(plan, relid, place, &notes) {
                Ok(lowered) => lowered,
                Err(reason) => {
                    self.note(reason);
                    plan
                }
            };
        }
        self.children(plan, place, &notes);
        plan
    }

    /// Tries the subtree as a fragment; `None` if it doesn't look like one.
    fn fragment(
        &mut self,
        plan: *mut pg_sys::Plan,
        place: Place<'_>,
        notes: &[String],
    ) -> Option<Result<*mut pg_sys::Plan, String>> {
        let shape = Shape::find(plan)?;
        let shape = match shape {
            Ok(shape) => shape,
            Err(reason) => return Some(Err(reason)),
        };
        let relid = self.iceberg(shape.scan.scan.scanrelid)?;
        if place.marked && shape.limit.is_none() && shape.sort.is_some() {
            return None; // the sort can be restored, a fragment can't
        }
        Some(
            self.not_parallel(&shape.scan.scan.plan, place)
                .and_then(|()| self.not_kept(shape.scan.scan.scanrelid))
                .and_then(|()| {
                    if !self.force && table::estimated_rows(relid) < MIN_ROWS {
                        return Err(format!("fewer than {MIN_ROWS} rows are expected"));
                    }
                    fragment::lower(&shape, relid, notes)
                }),
        )
    }

    fn leaf(
        &mut self,
        plan: *mut pg_sys::Plan,
        relid: pg_sys::Oid,
        place: Place<'_>,
        notes: &[String],
    ) -> Result<*mut pg_sys::Plan, String> {
        let scan = get::<pg_sys::SeqScan>(plan.cast())
            .ok_or("an iceberg table is accessed through an index, by TID or by sampling")?;
        self.not_parallel(&scan.scan.plan, place)?;
        // The first cold row invalidates the plan.
        if !self.force && crate::am::is_all_hot(relid) {
            return Err("all rows of the table are hot".to_owned());
        }
        let readers = Readers {
            needed: place.needed,
            positioned: self.positioned,
            fetched: self.fetched.contains(&scan.scan.scanrelid),
        };
        leaf::lower(plan.cast(), relid, &readers, notes)
    }

    fn not_parallel(&self, scan: &pg_sys::Plan, place: Place<'_>) -> Result<(), String> {
        if place.below_gather || scan.parallel_aware {
            return Err("a parallel plan is not lowered".to_owned());
        }
        Ok(())
    }

    /// A fragment can't run again over a row that EvalPlanQual puts in a scan's place.
    fn not_kept(&self, rtindex: u32) -> Result<(), String> {
        if self.kept.contains(&rtindex) {
            return Err(
                "only a scan is lowered of a table whose rows are locked or written".to_owned(),
            );
        }
        Ok(())
    }

    /// The iceberg table that the node itself scans.
    fn scanned(&self, plan: *mut pg_sys::Plan) -> Option<pg_sys::Oid> {
        use NodeTag::{
            T_BitmapHeapScan, T_IndexOnlyScan, T_IndexScan, T_SampleScan, T_SeqScan,
            T_TidRangeScan, T_TidScan,
        };
        match plan_tag(plan) {
            T_SeqScan | T_SampleScan | T_IndexScan | T_IndexOnlyScan | T_BitmapHeapScan
            | T_TidScan | T_TidRangeScan => {
                // SAFETY: these nodes begin with a Scan.
                self.iceberg(unsafe { (*plan.cast::<pg_sys::Scan>()).scanrelid })
            }
            _ => None,
        }
    }

    fn children(&mut self, plan: *mut pg_sys::Plan, place: Place<'_>, notes: &[String]) {
        use NodeTag::{T_Gather, T_GatherMerge, T_MergeJoin, T_Result};
        let tag = plan_tag(plan);
        let below_gather = place.below_gather || matches!(tag, T_Gather | T_GatherMerge);
        let plain = Place {
            below_gather,
            ..Place::default()
        };
        let outer_needed = needed::outputs(plan, pg_sys::OUTER_VAR);
        let outer = Place {
            needed: outer_needed.as_deref(),
            marked: place.marked && tag == T_Result,
            ..plain
        };
        let inner_needed = needed::outputs(plan, pg_sys::INNER_VAR);
        let inner = Place {
            needed: inner_needed.as_deref(),
            marked: tag == T_MergeJoin,
            ..plain
        };
        // SAFETY: a plan node of the tree; each child is replaced in place.
        unsafe {
            (*plan).lefttree = self.walk((*plan).lefttree, outer, notes);
            (*plan).righttree = self.walk((*plan).righttree, inner, notes);
        }
        let node = plan.cast();
        let lists = [
            get::<pg_sys::Append>(node).map(|append| append.appendplans),
            get::<pg_sys::MergeAppend>(node).map(|append| append.mergeplans),
            get::<pg_sys::CustomScan>(node).map(|custom| custom.custom_plans),
        ];
        for list in lists.into_iter().flatten() {
            replace_plans(list, |_, child| self.walk(child, plain, notes));
        }
        if plan_tag(plan) == NodeTag::T_SubqueryScan {
            // SAFETY: as its tag says.
            unsafe {
                let scan = plan.cast::<pg_sys::SubqueryScan>();
                (*scan).subplan = self.walk((*scan).subplan, plain, notes);
            }
        }
    }

    /// Whether all rows below come from iceberg tables.
    fn is_all_iceberg(&self, plan: *mut pg_sys::Plan) -> bool {
        if plan.is_null() {
            return true;
        }
        // SAFETY: raises an error if the stack is nearly used up; a plan node of the tree.
        let (left, right) = unsafe {
            pg_sys::check_stack_depth();
            ((*plan).lefttree, (*plan).righttree)
        };
        if let Some(append) = get::<pg_sys::Append>(plan.cast()) {
            let mut children = nodes(append.appendplans).into_iter();
            return children.all(|child| self.is_all_iceberg(child.cast()));
        }
        if let Some(scan) = get::<pg_sys::SubqueryScan>(plan.cast()) {
            return self.is_all_iceberg(scan.subplan);
        }
        if left.is_null() && right.is_null() {
            return self.scanned(plan).is_some();
        }
        self.is_all_iceberg(left) && self.is_all_iceberg(right)
    }
}

/// Whether rows that are deleted are fetched for triggers.
fn has_triggers(relid: pg_sys::Oid) -> bool {
    // SAFETY: the relation is locked by the query.
    unsafe {
        let rel = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        let has = !(*rel).trigdesc.is_null();
        pg_sys::table_close(rel, pg_sys::NoLock as i32);
        has
    }
}

/// The name of a node that `lake.engine = force` doesn't leave to Postgres.
fn wanted(tag: NodeTag) -> Option<&'static str> {
    Some(match tag {
        NodeTag::T_Agg | NodeTag::T_Group => "an aggregation",
        NodeTag::T_Sort | NodeTag::T_IncrementalSort => "a sort",
        NodeTag::T_Limit => "a limit",
        NodeTag::T_NestLoop | NodeTag::T_MergeJoin | NodeTag::T_HashJoin => "a join",
        NodeTag::T_Unique | NodeTag::T_SetOp => "a set operation",
        NodeTag::T_WindowAgg => "a window function",
        _ => return None,
    })
}
