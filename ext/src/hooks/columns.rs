//! Columns that the options `partition_by`, `sort_by` and `bloom_filter_columns` name. When one is renamed, the options
//! follow. It can't be dropped while they name it, nor change its type while files are partitioned by it, nor get one, or a
//! collation, that doesn't go with them.
//!
//! Columns change in many ways: ALTER TABLE, also of a parent, ALTER TYPE of a typed table, DROP … CASCADE of a type.
//! All of them pass the object-access hook, which notes what the column was. What it has become is looked at when the
//! statement is over: by then it is known whether the table is still there.

use crate::am;
use crate::catalog::options::{self, Options};
use crate::catalog::{data_file, layout, publication, storage};
use crate::error;
use crate::pg;
use crate::pg::options_array::Change;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString};

/// A column before a change.
struct Touched {
    subid: pg_sys::SubTransactionId,
    relid: pg_sys::Oid,
    attnum: i16,
    name: String,
    ty: (pg_sys::Oid, i32),
    collation: pg_sys::Oid,
    /// Whether files are partitioned by it, or were in what is published.
    partitions: bool,
}

thread_local! {
    static TOUCHED: RefCell<Vec<Touched>> = const { RefCell::new(Vec::new()) };
}

/// Notes a column that is being altered or dropped.
///
/// # Safety
/// Called from the object-access hook: the change is not visible yet.
pub unsafe fn touched(relid: pg_sys::Oid, attnum: i32) {
    if !is_ours(relid) {
        return;
    }
    let Ok(attnum) = i16::try_from(attnum) else {
        return;
    };
    let partitions = partitions_files(relid, attnum);
    if !partitions && !options::of(relid).has_layout() {
        return;
    }
    let Some(name) = name_of(relid, attnum) else {
        return;
    };
    // SAFETY: by contract.
    let subid = unsafe { pg_sys::GetCurrentSubTransactionId() };
    let (ty, collation) = type_of(relid, attnum);
    TOUCHED.with_borrow_mut(|all| {
        all.push(Touched {
            subid,
            relid,
            attnum,
            name,
            ty,
            collation,
            partitions,
        })
    });
}

/// Looks at what became of the columns that were touched.
///
/// # Safety
/// A statement has just run.
pub unsafe fn after() {
    let all = TOUCHED.with_borrow_mut(std::mem::take);
    if all.is_empty() {
        return;
    }
    // SAFETY: in a transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
    for column in all {
        if !is_ours(column.relid) {
            continue;
        }
        let options = options::of(column.relid);
        match name_of(column.relid, column.attnum) {
            None => {
                layout::refuse_drop(column.relid, &options, &column.name);
                if column.partitions {
                    layout::refuse_drop_of_source(column.relid, &column.name);
                }
            }
            // SAFETY: by contract; who renames a column holds the strongest lock.
            Some(name) if name != column.name => unsafe { rename(&column, &options, &name) },
            Some(name) => check_type(&column, &options, &name),
        }
    }
}

/// Forgets the statements of a subtransaction that is rolled back, or all.
pub fn abort(subid: Option<pg_sys::SubTransactionId>) {
    TOUCHED.with_borrow_mut(|all| all.retain(|one| subid.is_some_and(|subid| one.subid < subid)));
}

/// Whether a relation is still there, and has options of ours.
fn is_ours(relid: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up; zero for one that is gone.
    let kind = unsafe { pg_sys::get_rel_relkind(relid) } as u8;
    matches!(kind, pg_sys::RELKIND_RELATION | pg_sys::RELKIND_MATVIEW) && am::has_iceberg_am(relid)
}

/// Whether a partition spec names a column, of a file or in the published metadata: it stays there, and readers
/// look for the column.
fn partitions_files(relid: pg_sys::Oid, attnum: i16) -> bool {
    // SAFETY: opened and closed here; the statement has locked the relation.
    let storage = unsafe {
        let relation = pg_sys::try_relation_open(relid, pg_sys::NoLock as i32);
        if relation.is_null() {
            return false;
        }
        let storage = storage::of_relation(relation);
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        storage
    };
    storage.is_some_and(|storage| {
        let named = publication::find(storage.id).map(|published| published.partitioned_by);
        let mut named = named.unwrap_or_default();
        named.extend(data_file::partitioned_by(storage.id));
        named.contains(&i32::from(attnum))
    })
}

/// The name of a column that isn't dropped.
fn name_of(relid: pg_sys::Oid, attnum: i16) -> Option<String> {
    // SAFETY: catalog look-ups; the name is copied. A dropped column can't be found by its name.
    unsafe {
        let name = pg_sys::get_attname(relid, attnum, true);
        if name.is_null() || pg_sys::get_attnum(relid, name) != attnum {
            return None;
        }
        Some(CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// Type, modifier and collation of a column.
fn type_of(relid: pg_sys::Oid, attnum: i16) -> ((pg_sys::Oid, i32), pg_sys::Oid) {
    let (mut ty, mut typmod, mut collation) = (pg_sys::InvalidOid, -1, pg_sys::InvalidOid);
    // SAFETY: the column exists.
    unsafe {
        pg_sys::get_atttypetypmodcoll(relid, attnum, &mut ty, &mut typmod, &mut collation);
    }
    ((ty, typmod), collation)
}

unsafe fn rename(column: &Touched, options: &Options, name: &str) {
    let mut list = std::ptr::null_mut();
    for (option, text) in layout::renamed(options, &column.name, name) {
        // An option's text has no zero byte.
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: the option's name is never written to nor freed, the text is copied.
        unsafe {
            let value = pg_sys::makeString(pg_sys::pstrdup(text.as_ptr()));
            let element = pg_sys::makeDefElem(option.as_ptr().cast_mut(), value.cast(), -1);
            list = pg_sys::lappend(list, element.cast());
        }
    }
    if list.is_null() {
        return;
    }
    // SAFETY: by contract; the list has options of ours only.
    unsafe {
        options::change(column.relid, &[Change { list, reset: false }]);
        pg_sys::CommandCounterIncrement();
    }
}

fn check_type(column: &Touched, options: &Options, name: &str) {
    let (ty, collation) = type_of(column.relid, column.attnum);
    if (ty, collation) == (column.ty, column.collation) {
        return;
    }
    let partition_keys = options.partition_keys();
    let is_partitioned_by_it = partition_keys.iter().any(|key| key.column.name == name);
    if ty != column.ty && is_partitioned_by_it {
        error::unsupported(
            &format!(
                "cannot change the type of column \"{name}\" of iceberg table {}, which is partitioned by it",
                pg::qualified_name(column.relid)
            ),
            "Use ALTER TABLE … RESET (partition_by) first.",
        );
    }
    // SAFETY: the statement has locked the relation.
    unsafe {
        let rel = pg_sys::table_open(column.relid, pg_sys::NoLock as i32);
        layout::check(rel, options);
        pg_sys::table_close(rel, pg_sys::NoLock as i32);
    }
}
