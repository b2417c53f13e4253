//! Names of libc's locales, and its version.

use pgrx::pg_sys;
use std::ffi::CStr;

const LIBC: u8 = b'c';

/// The locale of libc that the database collates by, if it does by one.
pub fn of_database() -> Option<String> {
    // SAFETY: on the main thread, in a transaction; the tuple is held until it is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::DATABASEOID as i32,
            pg_sys::Datum::from(pg_sys::MyDatabaseId),
        );
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
        let name = ((*form).datlocprovider as u8 == LIBC)
            .then(|| {
                text(
                    pg_sys::SysCacheIdentifier::DATABASEOID,
                    tuple,
                    pg_sys::Anum_pg_database_datcollate,
                )
            })
            .flatten();
        pg_sys::ReleaseSysCache(tuple);
        name
    }
}

/// The locale of libc that a collation stands for, if it does for one.
pub fn libc_name(collation: pg_sys::Oid) -> Option<String> {
    // SAFETY: as above.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::COLLOID as i32,
            pg_sys::Datum::from(collation),
        );
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_collation>();
        let name = ((*form).collprovider as u8 == LIBC)
            .then(|| {
                text(
                    pg_sys::SysCacheIdentifier::COLLOID,
                    tuple,
                    pg_sys::Anum_pg_collation_collcollate,
                )
            })
            .flatten();
        pg_sys::ReleaseSysCache(tuple);
        name
    }
}

/// # Safety
/// A tuple of the cache, and one of its columns of type `text`.
unsafe fn text(
    cache: pg_sys::SysCacheIdentifier::Type,
    tuple: pg_sys::HeapTuple,
    column: u32,
) -> Option<String> {
    let mut null = false;
    // SAFETY: by contract.
    unsafe {
        let datum = pg_sys::SysCacheGetAttr(cache as i32, tuple, column as i16, &mut null);
        if null {
            return None;
        }
        let value = pg_sys::text_to_cstring(datum.cast_mut_ptr());
        Some(CStr::from_ptr(value).to_string_lossy().into_owned())
    }
}

/// Major and minor version of glibc.
pub fn glibc_version() -> Option<(u32, u32)> {
    // SAFETY: a constant string.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    let mut parts = version.to_str().ok()?.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}
