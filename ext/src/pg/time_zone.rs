//! Time zones whose offset from UTC is always the same. Offsets are in microseconds, those in the east positive.

use pgrx::pg_sys;
use std::ffi::{CStr, CString};

const SECOND: i64 = 1_000_000;

/// The offset of the session's time zone.
pub fn offset_of_session() -> Option<i64> {
    // SAFETY: a global of this backend that always is a time zone.
    unsafe { offset(pg_sys::session_timezone) }
}

/// The session's time zone, for messages.
pub fn name_of_session() -> String {
    // SAFETY: as above; the name is a part of it.
    unsafe {
        let name = pg_sys::pg_get_timezone_name(pg_sys::session_timezone);
        if name.is_null() {
            return String::new();
        }
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

/// The offset of a time zone by its name or abbreviation, as AT TIME ZONE understands it. Abbreviations that aren't
/// names, too, are left out, and those of other offsets than UTC's: what they mean is up to `timezone_abbreviations`.
pub fn offset_of(name: &str) -> Option<i64> {
    if name.len() > pg_sys::TZ_STRLEN_MAX as usize {
        return None;
    }
    let name = CString::new(name).ok()?;
    let (mut seconds, mut zone) = (0, std::ptr::null_mut());
    // SAFETY: a string; it is looked up. An error is raised for no name that is known.
    unsafe {
        if pg_sys::pg_tzset(name.as_ptr()).is_null() {
            return None;
        }
        let kind = pg_sys::DecodeTimezoneName(name.as_ptr(), &mut seconds, &mut zone);
        match u32::try_from(kind).ok()? {
            pg_sys::TZNAME_FIXED_OFFSET => (seconds == 0).then_some(0),
            pg_sys::TZNAME_ZONE => offset(zone),
            _ => None,
        }
    }
}

/// # Safety
/// A time zone.
unsafe fn offset(zone: *const pg_sys::pg_tz) -> Option<i64> {
    let mut seconds = 0;
    // SAFETY: by contract.
    let always = unsafe { pg_sys::pg_get_timezone_offset(zone, &mut seconds) };
    if always {
        seconds.checked_mul(SECOND)
    } else {
        None
    }
}
