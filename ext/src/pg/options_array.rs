//! Options in a row of a catalog, which Postgres validates when it changes them, and not when it reads them.

use crate::error;
use pgrx::pg_sys::SysCacheIdentifier;
use pgrx::{PgSqlErrorCode, pg_sys};

/// A catalog whose rows have an array of options.
pub struct OptionsColumn {
    pub catalog: pg_sys::Oid,
    /// By OID.
    pub cache: SysCacheIdentifier::Type,
    pub attnum: i16,
    /// What a row is about, for an error.
    pub object: &'static str,
}

/// One step of a change: SET or RESET.
#[derive(Clone, Copy)]
pub struct Change {
    pub list: *mut pg_sys::List,
    pub reset: bool,
}

impl OptionsColumn {
    /// The array in a row, null if there is none.
    ///
    /// # Safety
    /// A tuple of the catalog.
    pub unsafe fn of(&self, tuple: pg_sys::HeapTuple) -> pg_sys::Datum {
        let mut isnull = false;
        // SAFETY: by contract.
        let array =
            unsafe { pg_sys::SysCacheGetAttr(self.cache as i32, tuple, self.attnum, &mut isnull) };
        if isnull { pg_sys::Datum::null() } else { array }
    }

    /// Changes the array in the row of an object; the next command sees it.
    ///
    /// # Safety
    /// Lists of options. The caller holds a lock that keeps others from changing the row.
    pub unsafe fn change(&self, oid: pg_sys::Oid, changes: &[Change]) {
        // SAFETY: by contract; the arrays have an entry a column.
        unsafe {
            let rel = pg_sys::table_open(self.catalog, pg_sys::RowExclusiveLock as i32);
            let old = pg_sys::SearchSysCacheCopy(
                self.cache as i32,
                pg_sys::Datum::from(oid),
                pg_sys::Datum::null(),
                pg_sys::Datum::null(),
                pg_sys::Datum::null(),
            );
            if old.is_null() {
                error::raise(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    &format!("cache lookup failed for {} {}", self.object, oid.to_u32()),
                    None,
                    None,
                );
            }
            let mut array = self.of(old);
            for change in changes {
                array = pg_sys::transformRelOptions(
                    array,
                    change.list,
                    std::ptr::null(),
                    std::ptr::null_mut(),
                    false,
                    change.reset,
                );
            }
            let columns = (*(*rel).rd_att).natts as usize;
            let column = self.attnum as usize - 1;
            let mut values = vec![pg_sys::Datum::null(); columns];
            let mut nulls = vec![false; columns];
            let mut replaced = vec![false; columns];
            values[column] = array;
            nulls[column] = array.is_null();
            replaced[column] = true;
            let new = pg_sys::heap_modify_tuple(
                old,
                (*rel).rd_att,
                values.as_ptr(),
                nulls.as_ptr(),
                replaced.as_ptr(),
            );
            pg_sys::CatalogTupleUpdate(rel, &mut (*old).t_self, new);
            pg_sys::heap_freetuple(new);
            pg_sys::table_close(rel, pg_sys::NoLock as i32);
        }
    }
}
