//! `lake.debug_crash`: tests see what a crash leaves behind (`pg_lake_crash`).
//!
//! The setting arms the process that has it. A backend's requests arm the worker that serves them.

use pg_lake_crash::{Crash, CrashPoint, crash_point};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::{pg_guard, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};

static DEBUG_CRASH: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

thread_local! {
    /// Whether this transaction has changed a table of schema `lake`.
    static CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Defines the setting; called by the postmaster.
pub fn init() {
    pg_lake_crash::this_is_the_postmaster();
    // SAFETY: both hooks are guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"lake.debug_crash",
            c"Kills the process, as kill -9 would, at a point between two steps.",
            c"For tests: point[:nth][:postmaster]. The point is that of the nth passage; the postmaster is killed, too, if that is asked for.",
            &DEBUG_CRASH,
            GucContext::Suset,
            GucFlags::NO_SHOW_ALL,
            Some(check),
            Some(assign),
            None,
        );
    }
}

/// # Safety
/// A string of the server's that stays while the result is used, or null.
unsafe fn text<'a>(raw: *const c_char) -> &'a str {
    if raw.is_null() {
        return "";
    }
    // SAFETY: by contract. What isn't UTF-8 is no name of a point either.
    unsafe { CStr::from_ptr(raw) }.to_str().unwrap_or("?")
}

#[pg_guard]
unsafe extern "C-unwind" fn check(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the new value.
    let text = unsafe { text(*value) };
    if text.is_empty() || Crash::parse(text).is_some() {
        return true;
    }
    let hint = format!(
        "It has to be point[:nth][:postmaster]. The points are {}.",
        pg_lake_crash::names()
    );
    if let Ok(hint) = CString::new(hint) {
        // SAFETY: read by the caller, who reports the error at once; the string is copied.
        unsafe { pg_sys::GUC_check_errhint_string = pg_sys::pstrdup(hint.as_ptr()) };
    }
    false
}

#[pg_guard]
unsafe extern "C-unwind" fn assign(value: *const c_char, _extra: *mut c_void) {
    // SAFETY: the value that was checked.
    pg_lake_crash::arm(Crash::parse(unsafe { text(value) }));
}

/// A table of schema `lake` is being changed.
pub fn catalog_changes() {
    CHANGED.set(true);
}

/// Called for each event of a transaction.
pub fn transaction(event: pg_sys::XactEvent::Type) {
    use pg_sys::XactEvent::{
        XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE,
        XACT_EVENT_PREPARE,
    };
    match event {
        XACT_EVENT_PRE_COMMIT if CHANGED.get() => crash_point(CrashPoint::CommitBegin),
        XACT_EVENT_COMMIT if CHANGED.replace(false) => crash_point(CrashPoint::CommitEnd),
        XACT_EVENT_PRE_PREPARE if CHANGED.get() => crash_point(CrashPoint::PrepareBegin),
        XACT_EVENT_PREPARE if CHANGED.replace(false) => crash_point(CrashPoint::PrepareEnd),
        XACT_EVENT_ABORT => CHANGED.set(false),
        _ => {}
    }
}
