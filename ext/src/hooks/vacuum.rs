//! `VACUUM`: flushes, merges and compacts the iceberg tables among its targets before Postgres takes its lock.
//!
//! Not inside of `relation_vacuum`: a vacuuming backend's own transaction is hidden from horizons
//! (STORAGE section 7).

use crate::catalog::storage;
use crate::compact::{self, Eagerness};
use crate::pg::missing;
use crate::{am, flush, guc, pg};
use pgrx::{PgList, pg_sys};
use std::ffi::CStr;

/// Does the work for a VACUUM that stands alone; anything else is left to Postgres, which refuses
/// what isn't allowed.
///
/// # Safety
/// `statement` is the statement of a utility command that is about to run.
pub unsafe fn before(statement: *mut pg_sys::Node, context: pg_sys::ProcessUtilityContext::Type) {
    // SAFETY: by contract; the tag says what the node is.
    unsafe {
        if (*statement).type_ != pg_sys::NodeTag::T_VacuumStmt
            || context != pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL
            || pg_sys::IsTransactionBlock()
            || pg_sys::RecoveryInProgress()
            || !pg::is_installed()
        {
            return;
        }
        let vacuum = &*statement.cast::<pg_sys::VacuumStmt>();
        if !vacuum.is_vacuumcmd || !guc::vacuum_flush() || has_option(vacuum) || !storage::is_own()
        {
            return;
        }
        let context = pg_sys::CurrentMemoryContext;
        for relid in targets(vacuum) {
            if am::is_iceberg(relid) && flush::is_allowed(relid) {
                // Whoever holds the lock, CREATE INDEX CONCURRENTLY say, is not waited for here: it may wait
                // for this transaction's snapshot. The portal's own goes as VACUUM itself does it.
                if pg_sys::ActiveSnapshotSet() {
                    pg_sys::PopActiveSnapshot();
                }
                step(relid, context, || flush::flush_if_possible(relid));
                // A transaction for each new file: changes of its rows wait for no other one.
                let one_file = || compact::compact(relid, Eagerness::All, 1).replaced;
                let mut files = 0;
                while files < NEW_FILES_MAX && step(relid, context, one_file) > 0 {
                    files += 1;
                }
            }
        }
    }
}

/// Files that a VACUUM writes of a table at most: loads may give it more work all the time.
const NEW_FILES_MAX: u32 = 64;

/// A transaction of its own, unless somebody else maintains the table: one table's locks don't wait for
/// another's pages.
unsafe fn step(
    relid: pg_sys::Oid,
    context: pg_sys::MemoryContext,
    maintain: impl FnOnce() -> u64,
) -> u64 {
    // SAFETY: between the transactions of a command that commits in the middle; pushed and popped in
    // pairs.
    unsafe {
        let lock = pg_sys::ShareUpdateExclusiveLock as i32;
        let mut done = 0;
        if pg_sys::ConditionalLockRelationOid(relid, lock) && am::is_iceberg(relid) {
            pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            done = maintain();
            pg_sys::PopActiveSnapshot();
        }
        pg_sys::CommitTransactionCommand();
        pg_sys::StartTransactionCommand();
        pg_sys::MemoryContextSwitchTo(context);
        done
    }
}

/// Options under which it is not this command's business, or might have to wait.
unsafe fn has_option(vacuum: &pg_sys::VacuumStmt) -> bool {
    const OTHERS: [&CStr; 3] = [c"full", c"skip_locked", c"only_database_stats"];
    // SAFETY: a list of options as parsed.
    unsafe {
        PgList::<pg_sys::DefElem>::from_pg(vacuum.options)
            .iter_ptr()
            .any(|option| {
                OTHERS.contains(&CStr::from_ptr((*option).defname)) && pg_sys::defGetBoolean(option)
            })
    }
}

unsafe fn targets(vacuum: &pg_sys::VacuumStmt) -> Vec<pg_sys::Oid> {
    // SAFETY: a list of parsed names.
    let named: Vec<pg_sys::Oid> = unsafe {
        PgList::<pg_sys::VacuumRelation>::from_pg(vacuum.rels)
            .iter_ptr()
            .map(|rel| {
                if (*rel).oid != pg_sys::InvalidOid {
                    return (*rel).oid;
                }
                pg_sys::RangeVarGetRelidExtended(
                    (*rel).relation,
                    pg_sys::NoLock as i32,
                    pg_sys::RVROption::RVR_MISSING_OK,
                    None,
                    std::ptr::null_mut(),
                )
            })
            .filter(|relid| *relid != pg_sys::InvalidOid)
            .collect()
    };
    if vacuum.rels.is_null() {
        return storage::relations();
    }
    named
        .into_iter()
        .flat_map(missing::find_all_inheritors)
        .collect()
}
