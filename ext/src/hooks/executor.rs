//! Brackets statements that write, for the bulk path and for DELETE of whole files, and fits
//! Postgres' nodes to our tables.

use crate::bulk;
use crate::pg::missing;
use crate::whole;
use pgrx::{pg_guard, pg_sys};

static mut PREVIOUS_START: pg_sys::ExecutorStart_hook_type = None;
static mut PREVIOUS_RUN: pg_sys::ExecutorRun_hook_type = None;
static mut PREVIOUS_FINISH: pg_sys::ExecutorFinish_hook_type = None;
static mut PREVIOUS_END: pg_sys::ExecutorEnd_hook_type = None;

pub fn init() {
    // SAFETY: single-threaded postmaster.
    unsafe {
        PREVIOUS_START = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(start);
        PREVIOUS_RUN = pg_sys::ExecutorRun_hook;
        pg_sys::ExecutorRun_hook = Some(run);
        PREVIOUS_FINISH = pg_sys::ExecutorFinish_hook;
        pg_sys::ExecutorFinish_hook = Some(finish);
        PREVIOUS_END = pg_sys::ExecutorEnd_hook;
        pg_sys::ExecutorEnd_hook = Some(end);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn start(desc: *mut pg_sys::QueryDesc, eflags: i32) {
    bulk::drain();
    bulk::enter_executor();
    // SAFETY: arguments of the hook.
    unsafe {
        let writes = (*desc).operation != pg_sys::CmdType::CMD_SELECT
            || (*(*desc).plannedstmt).hasModifyingCTE;
        if writes {
            let allowed = (*desc).operation == pg_sys::CmdType::CMD_INSERT
                && super::planner::is_bulk((*desc).plannedstmt);
            bulk::begin_statement(desc as usize, allowed, false);
        }
        if crate::am::replaced::any() && (*(*desc).plannedstmt).parallelModeNeeded {
            // Other processes don't know which rows this transaction must not see.
            let alone =
                pg_sys::palloc(size_of::<pg_sys::PlannedStmt>()).cast::<pg_sys::PlannedStmt>();
            *alone = *(*desc).plannedstmt;
            (*alone).parallelModeNeeded = false;
            (*desc).plannedstmt = alone;
        }
        match PREVIOUS_START {
            Some(previous) => previous(desc, eflags),
            None => missing::standard_ExecutorStart(desc, eflags),
        }
        fit((*desc).planstate, std::ptr::null_mut());
        if let Some(statement) = bulk::allowed_statement() {
            crate::custom::prepare_direct(desc, statement);
        }
    }
}

/// Fits Postgres' own nodes to tables with cold rows.
pub unsafe extern "C-unwind" fn fit(
    node: *mut pg_sys::PlanState,
    context: *mut std::ffi::c_void,
) -> bool {
    // SAFETY: a plan that was just initialized; the tag says what a node is.
    unsafe {
        if node.is_null() {
            return false;
        }
        match (*node).type_ {
            pg_sys::NodeTag::T_BitmapHeapScanState => {
                let scan = &mut *node.cast::<pg_sys::BitmapHeapScanState>();
                if crate::am::is_iceberg_relation(scan.ss.ss_currentRelation) {
                    // The heap's file has no block of a cold row.
                    scan.prefetch_maximum = 0;
                }
            }
            pg_sys::NodeTag::T_BitmapIndexScanState => {
                let index = (*node.cast::<pg_sys::BitmapIndexScanState>()).biss_RelationDesc;
                // Plain EXPLAIN opens none.
                if !index.is_null() {
                    crate::am::block_ranges::fit(index);
                }
            }
            pg_sys::NodeTag::T_IndexOnlyScanState => {
                let scan = &mut *node.cast::<pg_sys::IndexOnlyScanState>();
                if crate::am::is_iceberg_relation(scan.ss.ss_currentRelation) {
                    (*scan.ioss_TableSlot).tts_flags |= crate::am::index::VISIBILITY_ONLY;
                }
            }
            _ => {}
        }
        pg_sys::planstate_tree_walker_impl(node, Some(fit), context)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn run(
    desc: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    execute_once: bool,
) {
    // SAFETY: arguments of the hook. What is noted here is forgotten if an error passes.
    unsafe {
        let deleted = whole::begin(desc);
        match PREVIOUS_RUN {
            Some(previous) => previous(desc, direction, count, execute_once),
            None => missing::standard_ExecutorRun(desc, direction, count, execute_once),
        }
        if deleted > 0 {
            whole::end(desc, deleted);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn finish(desc: *mut pg_sys::QueryDesc) {
    // AFTER triggers of the statement run in the executor's own part and must see its rows.
    bulk::finish_statement(desc as usize);
    // SAFETY: arguments of the hook.
    unsafe {
        match PREVIOUS_FINISH {
            Some(previous) => previous(desc),
            None => missing::standard_ExecutorFinish(desc),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end(desc: *mut pg_sys::QueryDesc) {
    bulk::end_statement(desc as usize);
    bulk::leave_executor();
    // SAFETY: arguments of the hook.
    unsafe {
        match PREVIOUS_END {
            Some(previous) => previous(desc),
            None => missing::standard_ExecutorEnd(desc),
        }
    }
}
