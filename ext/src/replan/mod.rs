//! A second plan, for the engine, of a statement that is expensive for Postgres' own executor.
//!
//! Postgres takes indexes, parallel workers and correlated subqueries where they save its executor
//! work; the engine can use none of them. Planned again without them (`crate::decorrelate`), a
//! statement may read more and be done sooner. The second plan is taken if it is cheaper once both
//! are lowered.
//!
//! What is planned for the engine is a copy of the query: planning scribbles on it.
//!
//! * [`reading`]: how a finished plan reads our tables
//! * [`price`]: what a lowered plan costs

mod price;
mod reading;

use crate::guc::{self, Engine};
use crate::lower::node::{self, get, nodes};
use crate::{am, decorrelate, lower};
use pgrx::pg_sys;

/// Cost of a plan from which on there is a second one. A row costs 0.01 and takes about 100 ns, so that
/// this is 10 ms, where planning again takes 0.3 ms and a request to the engine as long. What an index
/// looks up is below it.
const MIN_COST: f64 = 1000.0;

/// How many times cheaper a plan has to be that looks rows up in indexes of tables with cold rows. If more rows ask than
/// Postgres expects, each costs a look-up, of some 50 to 100 µs where the row is cold; a scan costs what was expected.
/// TPC-H's Q9 joins by two columns, Postgres expects 100 rows and 300,000 come: 30 s, where the engine takes 0.2 s.
const RISK: f64 = 4.0;

/// A copy of a query that may have to be planned for the engine.
///
/// Only what reads is: a row that is locked or changed may have to be looked at again, alone.
///
/// # Safety
/// `parse` is an analysed and rewritten query that nobody changes during the call.
pub unsafe fn spare(parse: *mut pg_sys::Query) -> Option<*mut pg_sys::Query> {
    // SAFETY: by contract; reads a global.
    let (query, encoding) = unsafe { (&*parse, pg_sys::GetDatabaseEncoding()) };
    let reads = match query.commandType {
        pg_sys::CmdType::CMD_SELECT => true,
        pg_sys::CmdType::CMD_INSERT => query.onConflict.is_null(),
        _ => false,
    };
    if !reads || guc::engine() == Engine::Off || encoding != pg_sys::pg_enc::PG_UTF8 as i32 {
        return None;
    }
    let (mut concerns_us, mut changes) = (false, false);
    node::each_query(parse, &mut |query| {
        // SAFETY: part of `parse`.
        let query = unsafe { &*query };
        concerns_us |= names_iceberg(query);
        changes |= query.hasModifyingCTE || !query.rowMarks.is_null();
    });
    (concerns_us && !changes).then(|| node::copy(parse.cast()).cast())
}

/// Whether the query itself reads a relation that may lead to a table of ours.
fn names_iceberg(query: &pg_sys::Query) -> bool {
    (1..)
        .zip(nodes(query.rtable))
        .filter(|(rtindex, _)| *rtindex != query.resultRelation)
        .filter_map(|(_, entry)| get::<pg_sys::RangeTblEntry>(entry))
        .any(|entry| {
            entry.rtekind == pg_sys::RTEKind::RTE_RELATION && am::may_lead_to_iceberg(entry.relid)
        })
}

/// Makes a query one that is planned for the engine.
///
/// Its correlated subqueries become joins. The mark is in the query, where neither nested plannings nor
/// errors have to be thought of. Nothing reads this field after the rewriter, and no query comes from
/// there with this value.
///
/// # Safety
/// `query` is a copy that only the caller knows, in the current memory context, whose relations are
/// locked.
pub unsafe fn prepare(query: *mut pg_sys::Query) {
    // SAFETY: by contract.
    unsafe {
        decorrelate::decorrelate(query);
        (*query).querySource = pg_sys::QuerySource::QSRC_PARSER;
    }
}

/// Whether the planner is at a query, or a part of one, that [`prepare`] has made.
///
/// # Safety
/// The planner's own.
pub unsafe fn is_for_engine(root: *const pg_sys::PlannerInfo) -> bool {
    // SAFETY: the planner's own chain of queries.
    unsafe {
        let mut top = root;
        while !(*top).parent_root.is_null() {
            top = (*top).parent_root;
        }
        (*(*top).parse).querySource == pg_sys::QuerySource::QSRC_PARSER
    }
}

/// Whether a plan for the engine doesn't use a table's indexes: if its scan would be lowered.
pub fn hides_indexes(relid: pg_sys::Oid) -> bool {
    am::is_iceberg(relid) && (guc::engine() == Engine::Force || !am::is_all_hot(relid))
}

/// Whether a plan is expensive by means that a plan for the engine would do without.
///
/// # Safety
/// A finished plan that isn't lowered, whose relations are locked.
pub unsafe fn is_worthwhile(stmt: *const pg_sys::PlannedStmt) -> bool {
    // SAFETY: by contract.
    let (stmt, cost) = unsafe { (&*stmt, (*(*stmt).planTree).total_cost) };
    cost >= MIN_COST && reading::is_by_own_means(stmt) && reading::tables(stmt).any(hides_indexes)
}

/// The better one of a statement's own plan and one for the engine, lowered.
///
/// # Safety
/// Both are finished plans in the current memory context, which hold locks on their relations, and
/// nobody else uses them. `cursor_options` are those of the statement.
pub unsafe fn better(
    own: *mut pg_sys::PlannedStmt,
    for_engine: *mut pg_sys::PlannedStmt,
    cursor_options: i32,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: by contract.
    unsafe {
        let turns_back = pg_sys::ExecSupportsBackwardScan((*for_engine).planTree);
        let loses = lower::may_scroll(&*own, cursor_options) && !turns_back;
        let risk = if reading::is_by_index(&*own) {
            RISK
        } else {
            1.0
        };
        lower::lower_statement(own, cursor_options);
        if loses {
            return own;
        }
        lower::lower_statement(for_engine, cursor_options);
        let fraction = match cursor_options & pg_sys::CURSOR_OPT_FAST_PLAN as i32 {
            0 => 1.0,
            _ => pg_sys::cursor_tuple_fraction,
        };
        if price::of(&*for_engine, fraction) < risk * price::of(&*own, fraction) {
            for_engine
        } else {
            own
        }
    }
}
