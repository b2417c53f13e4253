//! Functions of the server that pgrx's bindings leave out.

use pgrx::pg_sys;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;

unsafe extern "C-unwind" {
    // src/include/commands/sequence.h
    #[link_name = "nextval_internal"]
    fn raw_nextval(relid: pg_sys::Oid, check_permissions: bool) -> i64;
    // src/include/catalog/pg_inherits.h
    #[link_name = "find_all_inheritors"]
    fn raw_find_all_inheritors(
        parent: pg_sys::Oid,
        lockmode: pg_sys::LOCKMODE,
        numparents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
    // src/include/executor/nodeSubplan.h
    #[link_name = "ExecSetParamPlan"]
    fn raw_set_param_plan(node: *mut pg_sys::SubPlanState, econtext: *mut pg_sys::ExprContext);
}

/// The next value of a sequence, without a permission check.
pub fn nextval(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: raises an error if the relation isn't a sequence.
    unsafe { pg_guard_ffi_boundary(|| raw_nextval(sequence, false)) }
}

/// A table with its partitions and children, at any depth, unlocked.
pub fn find_all_inheritors(parent: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: a catalog look-up; the list is a plain list of OIDs.
    unsafe {
        let list = pg_guard_ffi_boundary(|| {
            raw_find_all_inheritors(parent, pg_sys::NoLock as i32, std::ptr::null_mut())
        });
        pgrx::PgList::<pg_sys::Oid>::from_pg(list)
            .iter_oid()
            .collect()
    }
}

/// Runs an initplan whose result a parameter waits for.
///
/// # Safety
/// As `ExecSetParamPlan` (nodeSubplan.c): both belong to the running executor.
pub unsafe fn set_param_plan(node: *mut pg_sys::SubPlanState, econtext: *mut pg_sys::ExprContext) {
    // SAFETY: by contract.
    unsafe { pg_guard_ffi_boundary(|| raw_set_param_plan(node, econtext)) }
}
