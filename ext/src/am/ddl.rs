//! Files of relations: creation, truncation, copying, vacuum and sizes.

use crate::am::{heap, hot};
use crate::catalog::{data_file, storage};
use crate::{error, guc, pg, relocate};
use pgrx::{pg_guard, pg_sys};

pub fn install(routine: &mut pg_sys::TableAmRoutine) {
    routine.relation_set_new_filelocator = Some(set_new_filelocator);
    routine.relation_nontransactional_truncate = Some(nontransactional_truncate);
    routine.relation_copy_data = Some(copy_data);
    routine.relation_copy_for_cluster = Some(copy_for_cluster);
    routine.relation_vacuum = Some(vacuum);
    routine.relation_estimate_size = Some(estimate_size);
    routine.relation_toast_am = Some(toast_am);
}

/// Whether any transaction, this one included, has registered a file. All rows of it may be deleted,
/// and still be seen by an older snapshot.
pub fn has_cold_rows(rel: pg_sys::Relation) -> bool {
    storage::of_relation(rel).is_some_and(|s| data_file::any(s.id))
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
    // SAFETY: a callback of heap with its arguments.
    unsafe {
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
    // Cold rows stay where they are, with their row numbers and in their order.
    storage::keep(old_table, new_table);
    // SAFETY: a callback of heap with its arguments.
    unsafe {
        // A scan of the index would lead heap's code to cold rows. Other access methods than btree
        // can't be sorted by.
        let sorted = !old_index.is_null() && (*(*old_index).rd_rel).relam == pg_sys::BTREE_AM_OID;
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
        )
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn vacuum(
    rel: pg_sys::Relation,
    params: *mut pg_sys::VacuumParams,
    bstrategy: pg_sys::BufferAccessStrategy,
) {
    // SAFETY: a callback of heap with its arguments.
    unsafe { (heap().relation_vacuum.unwrap_unchecked())(rel, params, bstrategy) }
    if has_cold_rows(rel) {
        hot::ensure_page(rel);
        // SAFETY: the relation is open and locked by VACUUM.
        unsafe { add_cold_statistics(rel) };
    }
}

/// After heap has counted the hot rows: `pg_class` is about all.
unsafe fn add_cold_statistics(rel: pg_sys::Relation) {
    let Some(storage) = storage::of_relation(rel) else {
        return;
    };
    let (rows, bytes) = data_file::totals(storage.id, std::ptr::null_mut());
    // SAFETY: by contract; the tuple is released at once.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from((*rel).rd_id),
        );
        if tuple.is_null() {
            return;
        }
        let class = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let hot = f64::from(class.reltuples).max(0.0);
        // Without a hot row the heap has at most the one page that ANALYZE wants.
        let hot_pages = if hot > 0.0 { class.relpages as u32 } else { 0 };
        let pages = hot_pages.saturating_add(pages_of(bytes));
        let tuples = hot + rows as f64;
        let (visible, indexed) = (class.relallvisible as u32, class.relhasindex);
        pg_sys::ReleaseSysCache(tuple);
        pg_sys::vac_update_relstats(
            rel,
            pages,
            tuples,
            visible,
            indexed,
            pg_sys::InvalidTransactionId,
            pg_sys::MultiXactId::from(0),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            false,
        );
    }
}

/// Blocks that so many rows would take in a heap, as `table_block_relation_estimate_size` (tableam.c)
/// has it.
unsafe fn pages_in_heap(rel: pg_sys::Relation, attr_widths: *mut i32, rows: u64) -> u32 {
    // SAFETY: the relation is open.
    let width = unsafe { pg_sys::get_rel_data_width(rel, attr_widths) };
    let width = f64::from(width) + HEAP_OVERHEAD;
    let density = (f64::from(pg_sys::BLCKSZ - PAGE_HEADER) / width)
        .floor()
        .max(1.0);
    (rows as f64 / density).ceil() as u32
}

/// Bytes of a page's header (`SizeOfPageHeaderData`), and of a row's with its line pointer.
const PAGE_HEADER: u32 = 24;
const HEAP_OVERHEAD: f64 = 28.0;

/// Blocks that so many bytes of files count as.
fn pages_of(bytes: u64) -> u32 {
    bytes
        .div_ceil(u64::from(pg_sys::BLCKSZ))
        .try_into()
        .unwrap_or(u32::MAX)
}

/// Hot rows by heap's rule for a table without statistics: `reltuples` covers cold rows as well, so that
/// its density of tuples per page can't be used once there are any.
unsafe fn estimate_hot(
    rel: pg_sys::Relation,
    attr_widths: *mut i32,
    pages: *mut pg_sys::BlockNumber,
    tuples: *mut f64,
    allvisfrac: *mut f64,
) {
    // SAFETY: a callback of heap with arguments of ours; the copies live until it returns.
    unsafe {
        let copy = as_heap(rel);
        let mut class = *(*rel).rd_rel;
        class.reltuples = -1.0;
        class.relpages = 0;
        class.relhassubclass = true; // an empty heap stays empty
        (*copy).rd_rel = &mut class;
        (heap().relation_estimate_size.unwrap_unchecked())(
            copy,
            attr_widths,
            pages,
            tuples,
            allvisfrac,
        );
        pg_sys::pfree(copy.cast());
        if *pages == 1 {
            // A table that was loaded cold has one empty page.
            *tuples = f64::from(hot::rows_of_first_page(rel));
        }
    }
}

/// About how many hot rows an open relation has, dead ones included.
pub fn estimate_hot_rows(rel: pg_sys::Relation) -> u64 {
    let (mut pages, mut tuples, mut visible) = (0, 0.0, 0.0);
    // SAFETY: the relation is open; without an array for them the widths of columns are only added up.
    unsafe {
        estimate_hot(
            rel,
            std::ptr::null_mut(),
            &mut pages,
            &mut tuples,
            &mut visible,
        )
    };
    tuples as u64
}

/// Hot rows by heap's rule, cold ones by count.
#[pg_guard]
unsafe extern "C-unwind" fn estimate_size(
    rel: pg_sys::Relation,
    attr_widths: *mut i32,
    pages: *mut pg_sys::BlockNumber,
    tuples: *mut f64,
    allvisfrac: *mut f64,
) {
    let cold = storage::of_relation(rel).map(|s| data_file::totals(s.id, std::ptr::null_mut()));
    // SAFETY: a callback of heap with its arguments; the copies live in the current context.
    unsafe {
        let (rows, bytes) = match cold {
            Some((rows, bytes)) if rows > 0 => (rows, bytes),
            _ => {
                return (heap().relation_estimate_size.unwrap_unchecked())(
                    rel,
                    attr_widths,
                    pages,
                    tuples,
                    allvisfrac,
                );
            }
        };
        // Of a table without statistics heap assumes that it has grown: plans of small ones are heap's.
        let (mut least_pages, mut least_tuples) = (0, 0.0);
        if (*(*rel).rd_rel).reltuples < 0.0 {
            (heap().relation_estimate_size.unwrap_unchecked())(
                rel,
                attr_widths,
                &mut least_pages,
                &mut least_tuples,
                allvisfrac,
            );
        }
        estimate_hot(rel, attr_widths, pages, tuples, allvisfrac);
        let hot = *pages;
        let cold = if guc::engine() == guc::Engine::Off {
            // Postgres' executor takes a row of a file much as one of the heap.
            pages_in_heap(rel, attr_widths, rows)
        } else {
            pages_of(bytes)
        };
        *tuples = (*tuples + rows as f64).max(least_tuples);
        *pages = hot.saturating_add(cold).max(least_pages);
        if *pages > 0 {
            // An index-only scan looks up whether a cold row is visible, and doesn't read it.
            *allvisfrac = (f64::from(hot) * *allvisfrac + f64::from(cold)) / f64::from(*pages);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn toast_am(_rel: pg_sys::Relation) -> pg_sys::Oid {
    pg_sys::HEAP_TABLE_AM_OID
}
