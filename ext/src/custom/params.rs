//! Values of a fragment's parameters at the time it starts, and which ones initplans have yet to set.

use crate::custom::private::{ParamKind, ParamUse};
use crate::error;
use crate::lower::arrays::{array_for, list_value};
use crate::lower::node::string;
use crate::pg::time_zone;
use crate::types::{shown_numeric, value_of};
use pg_lake_plan::ir::{Expr, Fragment};
use pg_lake_plan::lists::{Array, is_array};
use pg_lake_plan::types::Value;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use std::ffi::CString;
use std::panic::AssertUnwindSafe;

/// The fragment with the types that numeric parameters have now, and the elements of arrays, and the values of all others;
/// `None` if one can't be represented in the engine.
pub unsafe fn bind(
    node: *mut pg_sys::CustomScanState,
    fragment: &Fragment,
    params: &[ParamUse],
) -> Option<(Fragment, Vec<Option<Value>>)> {
    let (mut scales, mut values, mut arrays) = (vec![], vec![], vec![]);
    for param in params {
        // SAFETY: the executor's own arrays, indexed by ids that the planner has assigned.
        let (datum, isnull) = unsafe {
            match &param.kind {
                ParamKind::Extern => external(node, param),
                ParamKind::Exec => executor(node, param.id),
                ParamKind::Computed(expression) => computed(node, expression)?,
                ParamKind::UtcOffset => (time_zone::offset_of_session()?.into(), false),
            }
        };
        if is_array(&param.lake) && !param.whole {
            arrays.push((!isnull).then_some(datum));
            scales.push(None);
            values.push(None);
            continue;
        }
        arrays.push(None);
        let typid = pg_sys::Oid::from(param.typid);
        // SAFETY: the datum is of the parameter's type.
        let (scale, value) = unsafe {
            match typid {
                _ if isnull => (None, None),
                pg_sys::NUMERICOID => {
                    let (scale, value) = shown_numeric(datum)?;
                    (Some(scale), Some(value))
                }
                _ if param.whole => (None, Some(list_value(&param.lake, typid, datum)?)),
                _ => (None, Some(value_of(&param.lake, typid, datum)?)),
            }
        };
        scales.push(scale);
        values.push(value);
    }
    let mut fragment = fragment.clone();
    let mut elements = |arg: &Expr, param: u32| match arrays.get(param as usize)? {
        None => Some(Array::Null),
        Some(array) => array_for(arg, *array),
    };
    // SAFETY: the node's context for one row, for copies of arrays.
    let possible = unsafe {
        let short_lived = (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
        let old = pg_sys::MemoryContextSwitchTo(short_lived);
        let possible = fragment.root.settle(&scales) && fragment.root.fill(&mut elements);
        pg_sys::MemoryContextSwitchTo(old);
        possible
    };
    possible.then_some((fragment, values))
}

/// The value of an expression without rows; `None` if it raises an error, which Postgres may not come to. A cancel, and a
/// panic, go on as errors do.
unsafe fn computed(
    node: *mut pg_sys::CustomScanState,
    expression: &str,
) -> Option<(pg_sys::Datum, bool)> {
    let expression = CString::new(expression).ok()?;
    let compute = || {
        let mut isnull = true;
        // SAFETY: an expression as `lower` has written it. All that is made of it goes when the next row comes: it isn't
        // the node's, for which machine code might be made that stays until the query ends.
        let value = unsafe {
            let econtext = (*node).ss.ps.ps_ExprContext;
            let expression = pg_sys::stringToNode(expression.as_ptr());
            let params = (*econtext).ecxt_param_list_info;
            let state = pg_sys::ExecInitExprWithParams(expression.cast(), params);
            pg_sys::ExecEvalExpr(state, econtext, &mut isnull)
        };
        Some((value, isnull))
    };
    // SAFETY: the node's context for one row. The functions of such expressions only compute, so that an error leaves
    // nothing to be cleaned up.
    unsafe {
        let short_lived = (*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
        let old = pg_sys::MemoryContextSwitchTo(short_lived);
        let value = PgTryBuilder::new(AssertUnwindSafe(compute))
            .catch_others(|error| match error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)
                    if report.sql_error_code() != PgSqlErrorCode::ERRCODE_QUERY_CANCELED =>
                {
                    None
                }
                error => error.rethrow(),
            })
            .execute();
        pg_sys::MemoryContextSwitchTo(old);
        value
    }
}

unsafe fn external(node: *mut pg_sys::CustomScanState, used: &ParamUse) -> (pg_sys::Datum, bool) {
    let id = used.id;
    // SAFETY: as `ExecEvalParamExtern` does (execExprInterp.c).
    unsafe {
        let info = (*(*node).ss.ps.state).es_param_list_info;
        if info.is_null() || id <= 0 || id > (*info).numParams {
            no_value(id);
        }
        let mut workspace = pg_sys::ParamExternData::default();
        let param = match (*info).paramFetch {
            Some(fetch) => &*fetch(info, id, false, &mut workspace),
            None => &*(*info).params.as_ptr().add(id as usize - 1),
        };
        if param.ptype == pg_sys::InvalidOid {
            no_value(id);
        }
        let expected = pg_sys::Oid::from(used.typid);
        if param.ptype != expected {
            let name = |typid| string(pg_sys::format_type_be(typid));
            error::raise(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                &format!(
                    "type of parameter {id} ({}) does not match that when preparing the plan ({})",
                    name(param.ptype),
                    name(expected)
                ),
                None,
                None,
            );
        }
        (param.value, param.isnull)
    }
}

fn no_value(id: i32) -> ! {
    error::raise(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        &format!("no value found for parameter {id}"),
        None,
        None,
    )
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

/// The executor's parameters that an initplan has yet to set, ascending.
///
/// # Safety
/// An executor that has been started.
pub unsafe fn pending(estate: *mut pg_sys::EState) -> Vec<usize> {
    // SAFETY: there is an entry for each of the statement's parameters.
    unsafe {
        let types = (*(*estate).es_plannedstmt).paramExecTypes;
        let count = types.as_ref().map_or(0, |types| types.length as usize);
        let values = (*estate).es_param_exec_vals;
        (0..count)
            .filter(|id| !(*values.add(*id)).execPlan.is_null())
            .collect()
    }
}

/// Says that some of them have been set.
///
/// # Safety
/// As of [`pending`], and that is so.
pub unsafe fn set_computed<'a>(
    estate: *mut pg_sys::EState,
    ids: impl IntoIterator<Item = &'a usize>,
) {
    for id in ids {
        // SAFETY: by contract.
        unsafe { (*(*estate).es_param_exec_vals.add(*id)).execPlan = std::ptr::null_mut() };
    }
}
