//! Relations that come and go: new ones get their options, dropped ones give up their storage; where they
//! are is checked, columns that change are noted.

use crate::catalog::storage;
use pgrx::{pg_guard, pg_sys};

static mut PREVIOUS: pg_sys::object_access_hook_type = None;

pub fn init() {
    // SAFETY: single-threaded postmaster.
    unsafe {
        PREVIOUS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(access);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn access(
    event: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub: i32,
    arg: *mut std::ffi::c_void,
) {
    // SAFETY: arguments of the hook.
    unsafe {
        if let Some(previous) = PREVIOUS {
            previous(event, class, object, sub, arg);
        }
        if class != pg_sys::RelationRelationId {
            return;
        }
        if sub != 0 {
            if matches!(
                event,
                pg_sys::ObjectAccessType::OAT_POST_ALTER | pg_sys::ObjectAccessType::OAT_DROP
            ) {
                super::columns::touched(object, sub);
            }
            return;
        }
        match event {
            pg_sys::ObjectAccessType::OAT_POST_CREATE => {
                super::placement::check(object);
                super::options::created(object);
            }
            pg_sys::ObjectAccessType::OAT_POST_ALTER => super::placement::check(object),
            pg_sys::ObjectAccessType::OAT_DROP if crate::am::is_iceberg(object) => dropped(object),
            _ => {}
        }
    }
}

/// The row of `pg_class` is still there: the hook runs before it goes.
unsafe fn dropped(relid: pg_sys::Oid) {
    // SAFETY: a syscache look-up, released at once.
    let (tablespace, number) = unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relid),
        );
        if tuple.is_null() {
            return;
        }
        let class = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let found = ((*class).reltablespace, (*class).relfilenode);
        pg_sys::ReleaseSysCache(tuple);
        found
    };
    let tablespace = if tablespace == pg_sys::InvalidOid {
        // SAFETY: a global of this backend.
        unsafe { pg_sys::MyDatabaseTableSpace }
    } else {
        tablespace
    };
    if storage::catalog_exists() {
        storage::drop_locator(tablespace, number);
    }
}
