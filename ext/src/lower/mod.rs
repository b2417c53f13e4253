//! From a finished Postgres plan to the engine's: subtrees that the engine runs exactly as
//! Postgres would are replaced by `CustomScan` nodes.
//!
//! Permissions, row security, views, parameters and partition pruning are already in the plan;
//! nothing here looks at the query. Whatever isn't known to be exact stays where it is.
//!
//! * [`walk`]: finds what to replace, and says why the rest stays; [`statement`]: what it knows of the whole
//! * [`leaf`]: one scan; [`needed`]: which of its columns its parent looks at
//! * [`fragment`]: a subtree; [`tree`]: its nodes, bottom-up; [`sub`]: what comes out of each
//! * [`joins`], [`membership`], [`marks`], [`aggregation`] with [`grouping_sets`] and [`forms`], [`windows`] with [`frames`],
//!   [`setops`], [`ordering`], [`ties`], [`recursion`]: kinds of nodes
//! * [`aggregates`]: the whitelist of aggregates, with [`spread`] and [`ordered`]; [`finals`]: their last steps
//! * [`expr`], [`control`], [`arrays`], [`compare`], [`calls`], [`numeric`], [`roots`], [`dates`], [`zones`],
//!   [`intervals`], [`texts`], [`json`]: expressions; [`functions`]: the whitelist; [`consts`]: constants
//! * [`initplans`]: parameters, and which must not be computed early; [`single_row`]: subqueries of one row
//! * [`order`]: where equality and order agree, and what stands for values in them
//! * [`table`]: the columns of a relation; [`targets`]: outputs of a node
//! * [`custom_scan`], [`private`]: the node that takes the place, and what it carries; [`rights`]: whose functions it runs
//! * [`explain`]: a fragment in words
//! * [`node`]: Postgres' node trees

mod aggregates;
mod aggregation;
pub mod arrays;
mod calls;
mod compare;
mod consts;
mod control;
mod custom_scan;
mod dates;
mod explain;
mod expr;
mod finals;
mod forms;
mod fragment;
mod frames;
pub mod functions;
mod grouping_sets;
mod initplans;
mod intervals;
mod joins;
mod json;
mod lateral;
mod leaf;
mod marks;
mod membership;
mod moments;
mod needed;
pub mod node;
mod numeric;
mod order;
mod ordered;
mod ordering;
pub mod private;
mod project_set;
mod recursion;
mod rights;
mod roots;
mod setops;
pub mod single_row;
mod spread;
mod statement;
mod sub;
mod table;
mod targets;
mod texts;
mod ties;
mod tree;
mod walk;
mod windows;
mod zones;

pub use explain::describe;
pub use expr::operator_function;
pub use fragment::ENGINE_SPEED;
pub use order::{is_c, is_deterministic};
pub use recursion::{STEP_COST, STEPS};

use crate::guc::Engine;
use pg_lake_plan::PROTOCOL_VERSION;
use pg_lake_plan::ir::{Fragment, Plan};
use pgrx::{PgSqlErrorCode, pg_sys};

/// A translation, or why there is none.
type Lowered<T> = Result<T, String>;

fn refused<T>(reason: &str) -> Lowered<T> {
    Err(reason.to_owned())
}

fn fragment_of(root: Plan) -> Fragment {
    Fragment {
        version: PROTOCOL_VERSION,
        root,
    }
}

/// Lowers what can be lowered of a plan that `standard_planner` (or another hook) returned, in
/// place. `cursor_options` are those that it was planned with.
///
/// # Safety
/// On the main thread; `stmt` is a finished plan in the current memory context, which holds locks
/// on its relations, and nobody else uses it during the call.
pub unsafe fn lower_statement(stmt: *mut pg_sys::PlannedStmt, cursor_options: i32) {
    let engine = crate::guc::engine();
    // SAFETY: by contract.
    let planned = unsafe { *stmt };
    if engine == Engine::Off || planned.planTree.is_null() {
        return;
    }
    let force = engine == Engine::Force && planned.commandType == pg_sys::CmdType::CMD_SELECT;
    let has = |option: u32| cursor_options & option as i32 != 0;
    let statement = statement::Statement::new(&planned, force, has(pg_sys::CURSOR_OPT_FAST_PLAN));
    if !statement.concerns_us() {
        return;
    }
    let mut walk = walk::Walk::new(statement);
    // SAFETY: reads a global.
    if unsafe { pg_sys::GetDatabaseEncoding() } != pg_sys::pg_enc::PG_UTF8 as i32 {
        if force {
            refuse(&["the database's encoding is not UTF8".to_owned()]);
        }
        return;
    }
    if !force && may_scroll(&planned, cursor_options) {
        walk.below_kept_rows(planned.planTree);
    } else {
        // SAFETY: by contract.
        unsafe {
            let top = walk.tree(planned.planTree, false);
            // The planner has seen to plans that it knew not to run backward.
            let materialize =
                has(pg_sys::CURSOR_OPT_SCROLL) && !pg_sys::ExecSupportsBackwardScan(top);
            (*stmt).planTree = if materialize { materialized(top) } else { top };
        }
    }
    let read_in_part = initplans::read_in_part(planned.planTree, planned.subplans);
    node::replace_plans(planned.subplans, |i, subplan| {
        // A parallel worker gets the subplans that are parallel-safe, and must find them so.
        // SAFETY: null, or a plan.
        let shared =
            planned.parallelModeNeeded && !subplan.is_null() && unsafe { (*subplan).parallel_safe };
        if shared {
            walk.reasons
                .push("a parallel plan is not lowered".to_owned());
            return subplan;
        }
        let sorted = node::plan_tag(subplan) == pg_sys::NodeTag::T_Sort;
        let lowered = walk.tree(subplan, read_in_part.contains(&i));
        match sorted {
            // SAFETY: plans of the statement.
            true => unsafe { walk::rescannable(subplan, lowered) },
            false => lowered,
        }
    });
    if force && !walk.reasons.is_empty() {
        refuse(&walk.reasons);
    }
}

/// Whether a cursor may turn back in the statement's rows: it is to be able to, or it is not said
/// that it isn't and Postgres finds that the plan can (`PerformCursorOpen` and `SPI_cursor_open`).
pub fn may_scroll(stmt: &pg_sys::PlannedStmt, cursor_options: i32) -> bool {
    let has = |option: u32| cursor_options & option as i32 != 0;
    let implied = has(pg_sys::CURSOR_OPT_FAST_PLAN)
        && !has(pg_sys::CURSOR_OPT_NO_SCROLL)
        && stmt.rowMarks.is_null();
    // SAFETY: looks at a finished plan.
    (implied || has(pg_sys::CURSOR_OPT_SCROLL))
        && unsafe { pg_sys::ExecSupportsBackwardScan(stmt.planTree) }
}

/// The plan below a Material, for cursors that scroll and have to run in the engine: the planner put
/// none on a plan that could scroll before it was lowered.
///
/// # Safety
/// `plan` is the finished top of a statement.
unsafe fn materialized(plan: *mut pg_sys::Plan) -> *mut pg_sys::Plan {
    // SAFETY: by contract; the target list is that of a finished Material.
    unsafe {
        let material = pg_sys::materialize_finished_plan(plan);
        let entries = node::nodes((*plan).targetlist);
        let outputs = (1..).zip(entries).map(|(number, entry)| {
            let new = node::copy(entry).cast::<pg_sys::TargetEntry>();
            (*new).expr = node::output_var(pg_sys::OUTER_VAR, number, (*new).expr.cast()).cast();
            new.cast()
        });
        (*material).targetlist = node::list(outputs);
        (*material).plan_node_id = (*plan).plan_node_id;
        (*material).extParam = pg_sys::bms_copy((*plan).extParam);
        (*material).allParam = pg_sys::bms_copy((*plan).allParam);
        material
    }
}

fn refuse(reasons: &[String]) -> ! {
    crate::error::raise(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "query can't be run wholly by the lake engine",
        Some(&reasons.join("; ")),
        Some("Set lake.engine to \"on\" to let Postgres run the rest."),
    )
}
