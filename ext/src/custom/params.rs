//! Values of a fragment's parameters at the time it starts.

use crate::custom::private::{ParamKind, ParamUse};
use crate::types::value_of;
use pg_lake_plan::types::Value;
use pgrx::pg_sys;

/// The values, or `None` if one can't be represented in the engine.
pub unsafe fn values(
    node: *mut pg_sys::CustomScanState,
    params: &[ParamUse],
) -> Option<Vec<Option<Value>>> {
    params
        .iter()
        .map(|param| {
            // SAFETY: the executor's own arrays, indexed by ids that the planner has assigned.
            let (datum, isnull) = unsafe {
                match param.kind {
                    ParamKind::Extern => external(node, param.id),
                    ParamKind::Exec => executor(node, param.id),
                }
            };
            if isnull {
                return Some(None);
            }
            // SAFETY: the datum is of the parameter's type.
            unsafe { value_of(&param.lake, pg_sys::Oid::from(param.typid), datum) }.map(Some)
        })
        .collect()
}

unsafe fn external(node: *mut pg_sys::CustomScanState, id: i32) -> (pg_sys::Datum, bool) {
    // SAFETY: as `ExecEvalParamExtern` does (execExprInterp.c).
    unsafe {
        let info = (*(*node).ss.ps.state).es_param_list_info;
        if info.is_null() || id <= 0 || id > (*info).numParams {
            return (pg_sys::Datum::null(), true);
        }
        let mut workspace = pg_sys::ParamExternData::default();
        let param = match (*info).paramFetch {
            Some(fetch) => &*fetch(info, id, false, &mut workspace),
            None => &*(*info).params.as_ptr().add(id as usize - 1),
        };
        (param.value, param.isnull)
    }
}

unsafe fn executor(node: *mut pg_sys::CustomScanState, id: i32) -> (pg_sys::Datum, bool) {
    // SAFETY: as `ExecEvalParamExec` does (execExprInterp.c).
    unsafe {
        let econtext = (*node).ss.ps.ps_ExprContext;
        let param = (*econtext).ecxt_param_exec_vals.add(id as usize);
        if !(*param).execPlan.is_null() {
            crate::pg::missing::set_param_plan((*param).execPlan.cast(), econtext);
        }
        ((*param).value, (*param).isnull)
    }
}
