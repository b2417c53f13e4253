//! The walk over a statement's plan trees, from the top: what can be lowered is replaced, what
//! can't is descended into.

use super::leaf::{self, Readers};
use super::node::{get, inputs, plan_tag, replace_plans};
use super::ordering::{EARLY_END, LATE_ROWS, READ_AHEAD};
use super::statement::Statement;
use super::windows::ends_with_condition;
use super::{fragment, needed, refused};
use pgrx::pg_sys;
use pgrx::pg_sys::AggStrategy::{AGG_HASHED, AGG_PLAIN};
use pgrx::pg_sys::{JoinType, NodeTag};
use std::rc::Rc;

/// What of its surroundings matters to a node.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    /// Runs in parallel workers.
    below_gather: bool,
    /// Its parent marks and restores positions, as planned for a node of this kind.
    marked: bool,
    /// A LIMIT above may not want all of its rows.
    limited: bool,
    /// So may whoever takes them from a cursor.
    paced: bool,
    /// The outputs that the parent uses, if not all.
    needed: Option<&'a [i16]>,
}

pub struct Walk {
    statement: Rc<Statement>,
    /// Why a part that touches an iceberg table was left to Postgres.
    pub reasons: Vec<String>,
}

impl Walk {
    pub fn new(statement: Statement) -> Walk {
        Walk {
            statement: Rc::new(statement),
            reasons: vec![],
        }
    }

    fn note(&mut self, reason: String) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// What takes the place of a whole plan tree. `limited`: not all of its rows may be wanted.
    pub fn tree(&mut self, plan: *mut pg_sys::Plan, limited: bool) -> *mut pg_sys::Plan {
        let place = Place {
            limited,
            paced: self.statement.positioned,
            ..Place::default()
        };
        self.walk(plan, place, &[])
    }

    /// Lowers what is below nodes that keep the rows they have got. The plan can still be run
    /// backward then, and the row of a scan at the top be found by `WHERE CURRENT OF`.
    pub fn below_kept_rows(&mut self, plan: *mut pg_sys::Plan) {
        use NodeTag::{
            T_Append, T_Limit, T_LockRows, T_Material, T_Result, T_Sort, T_SubqueryScan,
        };
        // SAFETY: raises an error if the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        match plan_tag(plan) {
            T_Sort | T_Material => self.children(plan, Place::default(), &[]),
            T_Append | T_Limit | T_LockRows | T_Result | T_SubqueryScan => {
                for input in inputs(plan) {
                    self.below_kept_rows(input);
                }
            }
            _ => {}
        }
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
        let is_ours = |scan: &pg_sys::CustomScan| scan.methods == crate::custom::methods();
        if get::<pg_sys::CustomScan>(plan.cast()).is_some_and(is_ours) {
            return plan; // it was lowered as a part of something else
        }
        let mut notes = notes.to_vec();
        match self.fragment(plan, place, &notes) {
            Some(Ok(lowered)) => return lowered,
            Some(Err(reason)) => {
                self.note(reason.clone());
                if !notes.contains(&reason) {
                    notes.push(reason);
                }
            }
            None => {}
        }
        if let Some(relid) = self.statement.scanned(plan) {
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

    /// Tries the subtree as a fragment; `None` if there is nothing in it for the engine.
    fn fragment(
        &mut self,
        plan: *mut pg_sys::Plan,
        place: Place<'_>,
        notes: &[String],
    ) -> Option<Result<*mut pg_sys::Plan, String>> {
        if !is_worth_a_fragment(plan_tag(plan)) || !self.statement.scans_iceberg(plan) {
            return None;
        }
        if place.marked {
            return None; // a sort can be restored, a fragment can't
        }
        if place.below_gather {
            return Some(refused("a parallel plan is not lowered"));
        }
        let statement = self.statement.clone();
        let candidate = match fragment::lower(&statement, plan, place.needed) {
            Ok(candidate) => candidate,
            Err(reason) => return Some(Err(reason)),
        };
        if place.limited && candidate.stops_early {
            return Some(refused(EARLY_END));
        }
        // It costs time only.
        if place.limited && candidate.delays_rows && !statement.force {
            return Some(refused(LATE_ROWS));
        }
        if place.paced && candidate.reads_ahead {
            return Some(refused(READ_AHEAD));
        }
        let feeds: Vec<*mut pg_sys::Plan> = (candidate.feeds().into_iter())
            .map(|feed| self.walk(feed, Place::default(), &[]))
            .collect();
        for reason in candidate.reasons() {
            self.note(reason.clone());
        }
        Some(Ok(candidate.finish(&feeds, notes)))
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
        if !self.statement.force && crate::am::is_all_hot(relid) {
            return Err("all rows of the table are hot".to_owned());
        }
        let readers = Readers {
            needed: place.needed,
            fetched: self.statement.fetched.contains(&scan.scan.scanrelid),
            statement: &self.statement,
        };
        leaf::lower(plan.cast(), relid, &readers, notes)
    }

    fn not_parallel(&self, scan: &pg_sys::Plan, place: Place<'_>) -> Result<(), String> {
        if place.below_gather || scan.parallel_aware {
            return Err("a parallel plan is not lowered".to_owned());
        }
        Ok(())
    }

    fn children(&mut self, plan: *mut pg_sys::Plan, place: Place<'_>, notes: &[String]) {
        use NodeTag::{T_Gather, T_GatherMerge, T_MergeJoin, T_NestLoop, T_Result};
        let tag = plan_tag(plan);
        let below_gather = place.below_gather || matches!(tag, T_Gather | T_GatherMerge);
        let (limited, inner_limited) = limits(plan, place.limited);
        let plain = Place {
            below_gather,
            limited,
            paced: place.paced && !takes_all(plan),
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
            limited: inner_limited,
            ..plain
        };
        // SAFETY: a plan node of the tree; each child is replaced in place.
        unsafe {
            (*plan).lefttree = self.walk((*plan).lefttree, outer, notes);
            let inner_plan = (*plan).righttree;
            (*plan).righttree = self.walk(inner_plan, inner, notes);
            if tag == T_NestLoop {
                (*plan).righttree = rescannable(inner_plan, (*plan).righttree);
            }
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
}

/// What replaced a plan that is run again and again: a fragment keeps its rows, as most of what it stands for did.
///
/// # Safety
/// Both are plans of the tree.
pub unsafe fn rescannable(
    before: *mut pg_sys::Plan,
    after: *mut pg_sys::Plan,
) -> *mut pg_sys::Plan {
    let replaced = before != after
        && get::<pg_sys::CustomScan>(after.cast()).is_some_and(|scan| scan.scan.scanrelid == 0);
    match replaced {
        // SAFETY: by contract.
        true => unsafe { super::materialized(after) },
        false => after,
    }
}

/// Whether not all rows of a node's inputs may be wanted: of the inner one it is the second. `limited`: so it is of the
/// node's own.
pub fn limits(plan: *mut pg_sys::Plan, limited: bool) -> (bool, bool) {
    // A merge join asks neither side for what comes after the end of the other one.
    let ends = matches!(plan_tag(plan), NodeTag::T_Limit | NodeTag::T_MergeJoin)
        || get::<pg_sys::WindowAgg>(plan.cast()).is_some_and(ends_with_condition);
    let outer = ends || (limited && !takes_all(plan));
    (outer, outer || takes_first(plan))
}

/// Whether a join asks its inner side for no more rows once there is a partner.
pub fn takes_first(plan: *mut pg_sys::Plan) -> bool {
    get::<pg_sys::NestLoop>(plan.cast()).is_some_and(|nest| {
        let kind = nest.join.jointype;
        let asks_whether = kind == JoinType::JOIN_SEMI || kind == JoinType::JOIN_ANTI;
        asks_whether || nest.join.inner_unique
    })
}

/// Whether a node takes all rows of its input before it gives one.
pub fn takes_all(plan: *mut pg_sys::Plan) -> bool {
    match plan_tag(plan) {
        NodeTag::T_Sort | NodeTag::T_Hash => true,
        NodeTag::T_Agg => get::<pg_sys::Agg>(plan.cast())
            .is_some_and(|agg| matches!(agg.aggstrategy, AGG_PLAIN | AGG_HASHED)),
        NodeTag::T_SetOp => get::<pg_sys::SetOp>(plan.cast())
            .is_some_and(|op| op.strategy == pg_sys::SetOpStrategy::SETOP_HASHED),
        _ => false,
    }
}

/// Whether a fragment begins at a node of this kind. Single scans, and what passes their rows on, do without.
fn is_worth_a_fragment(tag: NodeTag) -> bool {
    matches!(
        tag,
        NodeTag::T_Agg
            | NodeTag::T_Group
            | NodeTag::T_Sort
            | NodeTag::T_IncrementalSort
            | NodeTag::T_Limit
            | NodeTag::T_NestLoop
            | NodeTag::T_MergeJoin
            | NodeTag::T_HashJoin
            | NodeTag::T_Unique
            | NodeTag::T_SetOp
            | NodeTag::T_WindowAgg
            | NodeTag::T_ProjectSet
            | NodeTag::T_RecursiveUnion
    )
}
