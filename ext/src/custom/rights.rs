//! Rights to the functions that the engine runs instead of Postgres. A plan may be executed by another user than the one
//! that it was made for.

use crate::custom::private::Called;
use pgrx::pg_sys;
use pgrx::pg_sys::{AclResult, ObjectType};

/// Raises the executor's error if the user may not call one of them.
///
/// # Safety
/// In a transaction, on the main thread.
pub unsafe fn check(called: &Called) {
    for function in &called.functions {
        // SAFETY: by contract.
        unsafe { check_function(pg_sys::Oid::from(*function), ObjectType::OBJECT_FUNCTION) };
    }
    for aggregate in &called.aggregates {
        // SAFETY: by contract.
        unsafe { check_function(pg_sys::Oid::from(*aggregate), ObjectType::OBJECT_AGGREGATE) };
    }
}

/// As `ExecInitFunc` does (execExpr.c).
unsafe fn check_function(function: pg_sys::Oid, kind: ObjectType::Type) {
    // SAFETY: catalog look-ups; the hook is null or a function.
    unsafe {
        let result = pg_sys::object_aclcheck(
            pg_sys::ProcedureRelationId,
            function,
            pg_sys::GetUserId(),
            pg_sys::ACL_EXECUTE.into(),
        );
        if result != AclResult::ACLCHECK_OK {
            pg_sys::aclcheck_error(result, kind, pg_sys::get_func_name(function));
        }
        let hook = pg_sys::object_access_hook;
        if hook.is_some() {
            pg_sys::RunFunctionExecuteHook(function);
        }
    }
}
