//! The planner hook: lets Postgres plan, for the engine too where that may pay, then lowers what the
//! engine can run.

use crate::pg::missing;
use crate::{guc, replan};
use pgrx::{pg_guard, pg_sys};

static mut PREVIOUS: pg_sys::planner_hook_type = None;
static mut PREVIOUS_RELATION_INFO: pg_sys::get_relation_info_hook_type = None;

pub fn init() {
    // SAFETY: single-threaded postmaster.
    unsafe {
        PREVIOUS = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(plan);
        PREVIOUS_RELATION_INFO = pg_sys::get_relation_info_hook;
        pg_sys::get_relation_info_hook = Some(relation_info);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_info(
    root: *mut pg_sys::PlannerInfo,
    relid: pg_sys::Oid,
    inhparent: bool,
    rel: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: arguments of the hook.
    unsafe {
        if let Some(previous) = PREVIOUS_RELATION_INFO {
            previous(root, relid, inhparent, rel);
        }
        if crate::am::has_iceberg_am(relid) {
            // The engine is parallel by itself, and takes no part of a parallel plan.
            if guc::engine() != guc::Engine::Off {
                (*rel).rel_parallel_workers = 0;
                leave_block_ranges(relid, rel);
            }
            let unused = replan::is_for_engine(root) && replan::hides_indexes(relid);
            if unused || may_be_rechecked(root) {
                let indexes = pgrx::PgList::<pg_sys::IndexOptInfo>::from_pg((*rel).indexlist);
                for index in indexes.iter_ptr() {
                    (*index).amhasgettuple &= !unused;
                    (*index).amhasgetbitmap = false;
                }
            }
        }
    }
}

/// Leaves BRIN indexes of a table with cold rows out of a plan: a scan through one reads every cold row,
/// where the engine goes by the bounds in the files.
unsafe fn leave_block_ranges(relid: pg_sys::Oid, rel: *mut pg_sys::RelOptInfo) {
    // SAFETY: the planner's relation, which it has locked.
    unsafe {
        let over_blocks = |index: *mut pg_sys::IndexOptInfo| (*index).relam == pg_sys::BRIN_AM_OID;
        let indexes = pgrx::PgList::<pg_sys::IndexOptInfo>::from_pg((*rel).indexlist);
        if !indexes.iter_ptr().any(over_blocks) {
            return;
        }
        let table = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        let cold = crate::am::has_cold_rows(table);
        pg_sys::table_close(table, pg_sys::NoLock as i32);
        if cold {
            (*rel).indexlist = indexes
                .iter_ptr()
                .filter(|index| !over_blocks(*index))
                .fold(std::ptr::null_mut(), |list, index| {
                    pg_sys::lappend(list, index.cast())
                });
        }
    }
}

/// Whether a relation is scanned by a subplan of a query that locks rows. EvalPlanQual starts such
/// subplans again out of reach of `hooks::executor`, which has to fit bitmap scans to our tables.
///
/// Subqueries in FROM are not scanned again, but give the row that they gave. Those are planned when
/// their parent has its relations at hand, sublinks and CTEs before that.
unsafe fn may_be_rechecked(root: *mut pg_sys::PlannerInfo) -> bool {
    // SAFETY: the planner's own chain of queries.
    unsafe {
        let mut parent = (*root).parent_root;
        let mut subplan = false;
        while !parent.is_null() {
            subplan |= (*parent).simple_rel_array.is_null();
            let query = &*(*parent).parse;
            let reads = matches!(
                query.commandType,
                pg_sys::CmdType::CMD_SELECT | pg_sys::CmdType::CMD_INSERT
            );
            if subplan && (!reads || !query.rowMarks.is_null()) {
                return true;
            }
            parent = (*parent).parent_root;
        }
        false
    }
}

/// What the planner is asked for, but for the query.
#[derive(Clone, Copy)]
struct Request {
    query_string: *const std::ffi::c_char,
    cursor_options: i32,
    bound_params: pg_sys::ParamListInfo,
}

impl Request {
    unsafe fn plan(self, query: *mut pg_sys::Query) -> *mut pg_sys::PlannedStmt {
        let Request {
            query_string,
            cursor_options,
            bound_params,
        } = self;
        // SAFETY: arguments of the hook.
        unsafe {
            match PREVIOUS {
                Some(previous) => previous(query, query_string, cursor_options, bound_params),
                None => {
                    missing::standard_planner(query, query_string, cursor_options, bound_params)
                }
            }
        }
    }

    /// Without parallel workers, too: the engine takes no part of a parallel plan.
    unsafe fn plan_for_engine(self, query: *mut pg_sys::Query) -> *mut pg_sys::PlannedStmt {
        let alone = Request {
            cursor_options: self.cursor_options & !(pg_sys::CURSOR_OPT_PARALLEL_OK as i32),
            ..self
        };
        // SAFETY: a copy of the hook's query.
        unsafe {
            replan::prepare(query);
            alone.plan(query)
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn plan(
    parse: *mut pg_sys::Query,
    query_string: *const std::ffi::c_char,
    cursor_options: i32,
    bound_params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    let request = Request {
        query_string,
        cursor_options,
        bound_params,
    };
    // SAFETY: arguments of the hook; the planner may scribble on the query, so it is asked first.
    unsafe {
        let bulk = may_be_bulk(parse);
        let spare = replan::spare(parse);
        let forced = spare.filter(|_| guc::engine() == guc::Engine::Force);
        let mut stmt = match forced {
            Some(query) => request.plan_for_engine(query),
            None => request.plan(parse),
        };
        let touches = touches_iceberg(stmt);
        if touches {
            super::debug_flush::before(stmt);
        } else if forced.is_some() {
            stmt = request.plan(parse);
        }
        if touches && guc::engine() != guc::Engine::Off {
            stmt = lowered(stmt, spare.filter(|_| forced.is_none()), request);
        }
        if bulk && (touches || into_partitions(stmt)) {
            mark_bulk((*stmt).planTree);
        }
        stmt
    }
}

/// The plan, or a better one for the engine that `spare` gives, lowered.
unsafe fn lowered(
    stmt: *mut pg_sys::PlannedStmt,
    spare: Option<*mut pg_sys::Query>,
    request: Request,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: a finished plan of the hook's query, and a copy of that.
    unsafe {
        match spare.filter(|_| replan::is_worthwhile(stmt)) {
            Some(query) => {
                let second = request.plan_for_engine(query);
                replan::better(stmt, second, request.cursor_options)
            }
            None => {
                crate::lower::lower_statement(stmt, request.cursor_options);
                stmt
            }
        }
    }
}

unsafe fn touches_iceberg(stmt: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: the range table of a finished plan.
    unsafe {
        let rtable = pgrx::PgList::<pg_sys::RangeTblEntry>::from_pg((*stmt).rtable);
        rtable.iter_ptr().any(|rte| {
            (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION && crate::am::is_iceberg((*rte).relid)
        })
    }
}

/// Whether rows go to a partitioned table: only the executor finds out to which partitions.
unsafe fn into_partitions(stmt: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: the range table of a finished plan.
    unsafe {
        let rtable = pgrx::PgList::<pg_sys::RangeTblEntry>::from_pg((*stmt).rtable);
        rtable
            .iter_ptr()
            .any(|rte| (*rte).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE)
    }
}

/// INSERT … SELECT without anything that could look at the new rows before the statement ends.
unsafe fn may_be_bulk(parse: *mut pg_sys::Query) -> bool {
    // SAFETY: an analysed query.
    unsafe {
        let query = &*parse;
        query.commandType == pg_sys::CmdType::CMD_INSERT
            && query.returningList.is_null()
            && query.onConflict.is_null()
            && !query.hasModifyingCTE
            && !pg_sys::contain_volatile_functions(parse.cast())
    }
}

/// `ModifyTable` has no quals; a constant there marks a statement as fit for the bulk path, in a
/// place that `copyObject` and the plan cache keep.
unsafe fn mark_bulk(plan: *mut pg_sys::Plan) {
    // SAFETY: a finished plan.
    unsafe {
        if (*plan).type_ == pg_sys::NodeTag::T_ModifyTable {
            let constant = pg_sys::makeBoolConst(true, false);
            (*plan).qual = pg_sys::lappend(std::ptr::null_mut(), constant.cast());
        }
    }
}

/// Whether [`mark_bulk`] marked the statement.
pub unsafe fn is_bulk(stmt: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: a finished plan.
    unsafe {
        let plan = (*stmt).planTree;
        (*plan).type_ == pg_sys::NodeTag::T_ModifyTable && !(*plan).qual.is_null()
    }
}
