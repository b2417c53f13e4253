//! Hooks into planner, executor, utility commands and transactions.
//!
//! * [`planner`]: lowers finished plans, marks bulk inserts
//! * [`executor`]: brackets statements for the bulk path and for DELETE of whole files
//! * [`utility`]: COPY, CTAS, ALTER TABLE, databases; [`databases`]: what DROP DATABASE leaves in stores
//! * [`options`]: table options in CREATE and ALTER TABLE; [`columns`]: columns that they name;
//!   [`logical`]: publications of Postgres
//! * [`tablespaces`]: tablespaces in object stores; [`placement`]: what may be in them
//! * [`debug_flush`]: a developer's setting
//! * [`objects`]: relations that come and go
//!
//! Each hook calls the one that was there before it.

mod columns;
mod databases;
mod debug_flush;
pub mod executor;
mod logical;
mod objects;
mod options;
mod placement;
mod planner;
mod tablespaces;
mod utility;
mod vacuum;

use crate::bulk;
use pgrx::{pg_guard, pg_sys};

/// Installs all hooks.
pub fn init() {
    planner::init();
    executor::init();
    utility::init();
    objects::init();
    // SAFETY: called once by the postmaster; backends inherit the registrations.
    unsafe {
        pg_sys::RegisterXactCallback(Some(xact), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subxact), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn xact(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{
        XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PARALLEL_ABORT, XACT_EVENT_PREPARE,
    };
    crate::crash::transaction(event);
    if matches!(
        event,
        XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PARALLEL_ABORT | XACT_EVENT_PREPARE
    ) {
        bulk::abort(None);
        crate::whole::forget(None);
        crate::am::replaced::forget(None);
        options::abort(None);
        columns::abort(None);
        crate::cold::recent::forget();
        crate::catalog::locate::forget_details();
        crate::catalog::replaced::forget();
        crate::am::index::forget();
        crate::am::held::forget();
        crate::am::visible::forget();
        crate::am::lockers::forget();
        // What a committed transaction knows stays right until a relation changes.
        if event != XACT_EVENT_COMMIT {
            crate::catalog::storage::forget();
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn subxact(
    event: pg_sys::SubXactEvent::Type,
    subid: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        bulk::abort(Some(subid));
        crate::whole::forget(Some(subid));
        crate::am::replaced::forget(Some(subid));
        options::abort(Some(subid));
        columns::abort(Some(subid));
        crate::am::held::forget();
        crate::am::visible::forget();
        crate::am::lockers::forget();
        crate::catalog::storage::forget();
    }
}
