//! Files of relations: creation, truncation, copying and vacuum.

use crate::am::{cluster, heap, hot, sizes};
use crate::catalog::{data_file, storage};
use crate::{error, pg, relocate};
use pgrx::{pg_guard, pg_sys};

pub fn install(routine: &mut pg_sys::TableAmRoutine) {
    routine.relation_set_new_filelocator = Some(set_new_filelocator);
    routine.relation_nontransactional_truncate = Some(nontransactional_truncate);
    routine.relation_copy_data = Some(copy_data);
    routine.relation_copy_for_cluster = Some(copy_for_cluster);
    routine.relation_vacuum = Some(vacuum);
    routine.relation_toast_am = Some(toast_am);
}

/// Whether any transaction, this one included, has registered a file. All rows of it may be deleted,
/// and still be seen by an older snapshot.
pub fn has_cold_rows(rel: pg_sys::Relation) -> bool {
    storage::of_relation(rel).is_some_and(|s| data_file::any(s.id))
}

/// Whether a table that the caller has locked has no cold row.
pub fn is_all_hot(relid: pg_sys::Oid) -> bool {
    // SAFETY: opened and closed here, under the caller's lock.
    unsafe {
        let rel = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        let cold = has_cold_rows(rel);
        pg_sys::table_close(rel, pg_sys::NoLock as i32);
        !cold
    }
}

/// A copy of an open relation that heap's own code takes for a heap.
///
/// Heap's index builds and CLUSTER insist on `rd_tableam` being heap's. Changing it in the relation
/// cache is undone by any rebuild of the entry in the middle, which a GRANT suffices to cause; the
/// copy isn't touched by one. It lives to the end of the transaction, since resource owners may
/// hold a reference to it.
pub fn as_heap(rel: pg_sys::Relation) -> pg_sys::Relation {
    // SAFETY: a plain copy of the struct; what its pointers lead to is kept by the relation cache
    // while the original is referenced and locked. Its statistics must know the original: an entry
    // that knew the copy would follow it after its end.
    unsafe {
        if (*rel).pgstat_enabled && (*rel).pgstat_info.is_null() {
            pg_sys::pgstat_assoc_relation(rel);
        }
        // The storage manager's entry is pinned for the relation that asks for it first.
        pg_sys::RelationGetSmgr(rel);
        let copy = pg_sys::MemoryContextAlloc(
            pg_sys::TopTransactionContext,
            size_of::<pg_sys::RelationData>(),
        )
        .cast::<pg_sys::RelationData>();
        std::ptr::copy_nonoverlapping(rel, copy, 1);
        (*copy).rd_tableam = heap();
        (*copy).rd_refcnt = 1;
        copy
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn set_new_filelocator(
    rel: pg_sys::Relation,
    newrlocator: *const pg_sys::RelFileLocator,
    persistence: std::ffi::c_char,
    freeze_xid: *mut pg_sys::TransactionId,
    minmulti: *mut pg_sys::MultiXactId,
) {
    // SAFETY: a callback of heap with its arguments.
    unsafe {
        // A sweep doesn't pull the tablespace's directory away.
        storage::hold_place(&*newrlocator);
        (heap().relation_set_new_filelocator.unwrap_unchecked())(
            rel,
            newrlocator,
            persistence,
            freeze_xid,
            minmulti,
        );
        let (old, new) = ((*rel).rd_locator, *newrlocator);
        let replaced = if old.relNumber != new.relNumber || old.spcOid != new.spcOid {
            // Temporary relfilenumbers have a name space of their own.
            let permanent =
                (*(*rel).rd_rel).relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT;
            permanent
                .then(|| storage::drop_locator(old.spcOid, old.relNumber))
                .flatten()
        } else {
            rewritten(rel)
        };
        if persistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT {
            refuse_encoding();
            let relid = replaces(rel).unwrap_or((*rel).rd_id);
            storage::create(&new, replaced.map(|s| s.format_version), relid);
        }
    }
}

/// The table that a transient one is going to replace: `make_new_heap` (commands/cluster.c) names it
/// after the table's OID.
fn replaces(rel: pg_sys::Relation) -> Option<pg_sys::Oid> {
    let name = pg::relation_name(rel);
    let relid: u32 = name.strip_prefix("pg_temp_")?.parse().ok()?;
    let relid = pg_sys::Oid::from(relid);
    // SAFETY: a catalog look-up.
    (!unsafe { pg_sys::get_rel_name(relid) }.is_null()).then_some(relid)
}

/// The storage of that table.
fn rewritten(rel: pg_sys::Relation) -> Option<storage::Storage> {
    let relid = replaces(rel)?;
    if !super::is_iceberg(relid) {
        return None;
    }
    // SAFETY: the command that rewrites the table has locked it.
    unsafe {
        let old = pg_sys::try_relation_open(relid, pg_sys::NoLock as i32);
        if old.is_null() {
            return None;
        }
        let locator = (*old).rd_locator;
        pg_sys::relation_close(old, pg_sys::NoLock as i32);
        storage::find(locator.spcOid, locator.relNumber)
    }
}

/// Iceberg's strings are UTF-8.
fn refuse_encoding() {
    // SAFETY: a global of this backend.
    if unsafe { pg_sys::GetDatabaseEncoding() } != pg_sys::pg_enc::PG_UTF8 as i32 {
        error::unsupported(
            "iceberg tables need a database with encoding UTF8",
            "Create the database with ENCODING 'UTF8'.",
        );
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn nontransactional_truncate(rel: pg_sys::Relation) {
    // SAFETY: a callback of heap with its arguments.
    unsafe { (heap().relation_nontransactional_truncate.unwrap_unchecked())(rel) }
    if let Some(old) = storage::of_relation(rel) {
        // Heap empties a file that this transaction has made. The storage may be an older one, which
        // the table has brought from another tablespace: it goes as with every TRUNCATE.
        // SAFETY: the relation is open; the old storage has gone, and the new one is there, for the
        // builds of indexes that follow.
        unsafe {
            let locator = (*rel).rd_locator;
            storage::drop_locator(locator.spcOid, locator.relNumber);
            pg_sys::CommandCounterIncrement();
            storage::create(&locator, Some(old.format_version), (*rel).rd_id);
            pg_sys::CommandCounterIncrement();
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn copy_data(
    rel: pg_sys::Relation,
    newrlocator: *const pg_sys::RelFileLocator,
) {
    cluster::refuse_unseen(rel);
    // SAFETY: a callback of heap with its arguments.
    unsafe {
        storage::hold_place(&*newrlocator);
        // Heap's comes first: with its file in the tablespace, DROP TABLESPACE doesn't pull the
        // directory away.
        (heap().relation_copy_data.unwrap_unchecked())(rel, newrlocator);
        relocate::relocate(rel, &*newrlocator);
    }
}

#[pg_guard]
#[allow(clippy::too_many_arguments)] // the callback's signature
unsafe extern "C-unwind" fn copy_for_cluster(
    old_table: pg_sys::Relation,
    new_table: pg_sys::Relation,
    old_index: pg_sys::Relation,
    use_sort: bool,
    oldest_xmin: pg_sys::TransactionId,
    xid_cutoff: *mut pg_sys::TransactionId,
    multi_cutoff: *mut pg_sys::MultiXactId,
    num_tuples: *mut f64,
    tups_vacuumed: *mut f64,
    tups_recently_dead: *mut f64,
) {
    // No query of its transaction comes after VACUUM FULL.
    if !old_index.is_null() {
        cluster::refuse_unseen(old_table);
    }
    // Other access methods than btree can't be sorted by.
    // SAFETY: null, or an open index.
    let sorted =
        !old_index.is_null() && unsafe { (*(*old_index).rd_rel).relam } == pg_sys::BTREE_AM_OID;
    let moved = if sorted {
        cluster::sort_cold(old_table, old_index)
    } else {
        // VACUUM FULL. By another kind of index cold rows stay where they are, with their row numbers and in their order.
        if old_index.is_null() {
            cluster::renew_cold(old_table);
        }
        0
    };
    storage::keep(old_table, new_table);
    // SAFETY: a callback of heap with its arguments.
    unsafe {
        // A scan of the index would lead heap's code to cold rows.
        let old_index = if sorted {
            old_index
        } else {
            std::ptr::null_mut()
        };
        let use_sort = use_sort || sorted;
        (heap().relation_copy_for_cluster.unwrap_unchecked())(
            as_heap(old_table),
            as_heap(new_table),
            old_index,
            use_sort,
            oldest_xmin,
            xid_cutoff,
            multi_cutoff,
            num_tuples,
            tups_vacuumed,
            tups_recently_dead,
        );
        // `pg_class` is about all rows; ANALYZE wants a page.
        if let Some(kept) = storage::of_relation(new_table)
            && data_file::any(kept.id)
        {
            let cold = data_file::totals(kept.id, std::ptr::null_mut()).0;
            // Heap has copied the rows that have become cold, for older snapshots.
            *num_tuples = (*num_tuples + cold as f64 - moved as f64).max(0.0);
            hot::ensure_page(new_table);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn vacuum(
    rel: pg_sys::Relation,
    params: *mut pg_sys::VacuumParams,
    bstrategy: pg_sys::BufferAccessStrategy,
) {
    // SAFETY: a callback of heap with its arguments.
    unsafe {
        sizes::show_hot_only(rel);
        (heap().relation_vacuum.unwrap_unchecked())(rel, params, bstrategy)
    }
    if has_cold_rows(rel) {
        hot::ensure_page(rel);
        hot::mark_empty_page(rel);
        // SAFETY: the relation is open and locked by VACUUM.
        unsafe { sizes::add_cold_statistics(rel) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn toast_am(_rel: pg_sys::Relation) -> pg_sys::Oid {
    pg_sys::HEAP_TABLE_AM_OID
}
