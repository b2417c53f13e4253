//! Functions of the server that pgrx's bindings leave out.

use pgrx::pg_sys;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;

unsafe extern "C-unwind" {
    // src/include/commands/sequence.h
    #[link_name = "nextval_internal"]
    fn raw_nextval(relid: pg_sys::Oid, check_permissions: bool) -> i64;
    // src/include/executor/nodeSubplan.h
    #[link_name = "ExecSetParamPlan"]
    fn raw_set_param_plan(node: *mut pg_sys::SubPlanState, econtext: *mut pg_sys::ExprContext);
}

/// The next value of a sequence, without a permission check.
pub fn nextval(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: raises an error if the relation isn't a sequence.
    unsafe { pg_guard_ffi_boundary(|| raw_nextval(sequence, false)) }
}

/// Runs an initplan whose result a parameter waits for.
///
/// # Safety
/// As `ExecSetParamPlan` (nodeSubplan.c): both belong to the running executor.
pub unsafe fn set_param_plan(
    node: *mut pg_sys::SubPlanState,
    econtext: *mut pg_sys::ExprContext,
) {
    // SAFETY: by contract.
    unsafe { pg_guard_ffi_boundary(|| raw_set_param_plan(node, econtext)) }
}
