//! Table options of iceberg tables: kept in `pg_class.reloptions` beside those of heap, where
//! `pg_dump` and psql look for them.
//!
//! Postgres validates that array against a list of its own whenever it changes it, but not when it
//! reads it. `hooks/options.rs` keeps ours out of its sight while it does, and checks them instead.

use super::option_text::{FORMAT_VERSION, NAMES};
use crate::error;
use crate::pg::options_array::{Change, OptionsColumn};
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::ffi::CStr;

pub use super::option_text::{BLOOM_FILTER_COLUMNS, Options, PARTITION_BY, SORT_BY};

/// The options of a relation, as its row in `pg_class` has them now.
pub fn of(relid: pg_sys::Oid) -> Options {
    let mut options = Options::default();
    // SAFETY: a list of options that is ours.
    unsafe {
        for option in PgList::<pg_sys::DefElem>::from_pg(list(relid)).iter_ptr() {
            // They were checked when they were set. One that somebody has written into pg_class by
            // hand doesn't keep anybody from writing files.
            let _ = options.set(CStr::from_ptr((*option).defname), &value(option));
        }
    }
    options
}

/// Our options of a relation, as elements of an options list.
pub fn list(relid: pg_sys::Oid) -> *mut pg_sys::List {
    // SAFETY: a syscache look-up, released once the array has been copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relid),
        );
        if tuple.is_null() {
            return std::ptr::null_mut();
        }
        let all = pg_sys::untransformRelOptions(RELOPTIONS.of(tuple));
        pg_sys::ReleaseSysCache(tuple);
        split(all).ours
    }
}

/// Where they are.
const RELOPTIONS: OptionsColumn = OptionsColumn {
    catalog: pg_sys::RelationRelationId,
    cache: pg_sys::SysCacheIdentifier::RELOID,
    attnum: pg_sys::Anum_pg_class_reloptions as i16,
    object: "relation",
};

/// The text of an option's value, as Postgres stores it.
unsafe fn value(option: *mut pg_sys::DefElem) -> String {
    // SAFETY: an element of an options list.
    unsafe {
        if (*option).arg.is_null() {
            return "true".to_owned();
        }
        CStr::from_ptr(pg_sys::defGetString(option))
            .to_string_lossy()
            .into_owned()
    }
}

/// A list of options in two.
pub struct Split {
    pub ours: *mut pg_sys::List,
    pub others: *mut pg_sys::List,
}

/// Tells our options in a list from others. Their elements are the list's own.
///
/// # Safety
/// A list of options as parsed.
pub unsafe fn split(list: *mut pg_sys::List) -> Split {
    let mut split = Split {
        ours: std::ptr::null_mut(),
        others: std::ptr::null_mut(),
    };
    // SAFETY: by contract.
    unsafe {
        for option in PgList::<pg_sys::DefElem>::from_pg(list).iter_ptr() {
            let name = CStr::from_ptr((*option).defname);
            let part = if NAMES.contains(&name) && (*option).defnamespace.is_null() {
                &mut split.ours
            } else {
                &mut split.others
            };
            *part = pg_sys::lappend(*part, option.cast());
        }
    }
    split
}

/// Raises an error if one of our options can't be set as a statement says.
///
/// # Safety
/// `ours` of a [`Split`].
pub unsafe fn check(ours: *mut pg_sys::List) {
    let mut seen: Vec<&CStr> = vec![];
    let mut options = Options::default();
    // SAFETY: by contract.
    unsafe {
        for option in PgList::<pg_sys::DefElem>::from_pg(ours).iter_ptr() {
            let name = CStr::from_ptr((*option).defname);
            let shown = name.to_string_lossy();
            if seen.contains(&name) {
                error::raise(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    &format!("parameter \"{shown}\" specified more than once"),
                    None,
                    None,
                );
            }
            seen.push(name);
            let value = value(option);
            if let Err(invalid) = options.set(name, &value) {
                error::raise(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    &format!("invalid value for option \"{shown}\": {value}"),
                    Some(&invalid.detail),
                    Some(invalid.hint),
                );
            }
        }
    }
}

/// Whether a list names the Iceberg format version.
///
/// # Safety
/// A list of options as parsed.
pub unsafe fn has_format_version(list: *mut pg_sys::List) -> bool {
    // SAFETY: by contract.
    unsafe {
        PgList::<pg_sys::DefElem>::from_pg(list)
            .iter_ptr()
            .any(|option| CStr::from_ptr((*option).defname) == FORMAT_VERSION)
    }
}

/// A list that names all options, for RESET.
pub fn all() -> *mut pg_sys::List {
    NAMES.iter().fold(std::ptr::null_mut(), |list, name| {
        // SAFETY: the name is never written to nor freed.
        unsafe {
            let option = pg_sys::makeDefElem(name.as_ptr().cast_mut(), std::ptr::null_mut(), -1);
            pg_sys::lappend(list, option.cast())
        }
    })
}

/// Changes the options in the row of `pg_class`; the next command sees them.
///
/// # Safety
/// The lists are `ours` of [`Split`]s. The caller holds a lock on the relation in whose presence
/// Postgres updates no row of `pg_class` in place: SHARE UPDATE EXCLUSIVE or a stronger one.
pub unsafe fn change(relid: pg_sys::Oid, changes: &[Change]) {
    if changes.iter().all(|change| change.list.is_null()) {
        return;
    }
    // SAFETY: by contract.
    unsafe { RELOPTIONS.change(relid, changes) }
}
