//! How large a table is, for the planner and in `pg_class`: hot rows by their pages, cold ones by count.

use crate::am::{heap, hot};
use crate::catalog::{data_file, storage};
use crate::guc;
use pgrx::{pg_guard, pg_sys};

pub fn install(routine: &mut pg_sys::TableAmRoutine) {
    routine.relation_estimate_size = Some(estimate_size);
}

/// Before heap's VACUUM: what it doesn't scan it takes to be as `pg_class` says (`vac_estimate_reltuples`
/// in vacuum.c), which has the cold rows in. The relation's own copy gets the hot ones alone.
///
/// # Safety
/// The relation is open and locked by VACUUM.
pub unsafe fn show_hot_only(rel: pg_sys::Relation) {
    let Some(storage) = storage::of_relation(rel) else {
        return;
    };
    let (rows, _) = data_file::totals(storage.id, std::ptr::null_mut());
    if rows == 0 {
        return;
    }
    // SAFETY: by contract; a rebuild of the entry restores the fields.
    unsafe {
        let class = &mut *(*rel).rd_rel;
        if class.reltuples > 0.0 {
            class.reltuples = (class.reltuples - rows as f32).max(0.0);
            let main = pg_sys::ForkNumber::MAIN_FORKNUM;
            class.relpages = pg_sys::RelationGetNumberOfBlocksInFork(rel, main) as i32;
        }
    }
}

/// After VACUUM has had heap count the hot rows: `pg_class` is about all. Pages are those of the heap, as ANALYZE and
/// CREATE INDEX count them, too: statistics don't depend on which came last.
///
/// # Safety
/// The relation is open and locked by VACUUM.
pub unsafe fn add_cold_statistics(rel: pg_sys::Relation) {
    let Some(storage) = storage::of_relation(rel) else {
        return;
    };
    let (rows, _) = data_file::totals(storage.id, std::ptr::null_mut());
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
        let tuples = hot + rows as f64;
        // Of both there may have come a page since heap has counted.
        let main = pg_sys::ForkNumber::MAIN_FORKNUM;
        let pages = pg_sys::RelationGetNumberOfBlocksInFork(rel, main);
        let mut visible = 0;
        pg_sys::visibilitymap_count(rel, &mut visible, std::ptr::null_mut());
        // At least one page says that VACUUM has been there.
        let visible = visible.max(1).min(pages);
        let indexed = class.relhasindex;
        // What heap has just reported replaced the count of all live rows.
        if let Some(info) = (*rel).pgstat_info.as_mut() {
            info.counts.delta_live_tuples += rows as i64;
        }
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

/// Rows of a page as `table_block_relation_estimate_size` (tableam.c) has it.
unsafe fn rows_of_page(rel: pg_sys::Relation, attr_widths: *mut i32) -> f64 {
    // SAFETY: the relation is open.
    let width = unsafe { pg_sys::get_rel_data_width(rel, attr_widths) };
    (PAGE_BYTES / (f64::from(width) + ROW_OVERHEAD))
        .floor()
        .max(1.0)
}

/// Pages that so many rows would take in a heap, which aligns them.
unsafe fn pages_in_heap(rel: pg_sys::Relation, attr_widths: *mut i32, rows: u64) -> u32 {
    // SAFETY: the relation is open.
    let width = unsafe { pg_sys::get_rel_data_width(rel, attr_widths) };
    let aligned = (width.max(0) as u32).next_multiple_of(pg_sys::MAXIMUM_ALIGNOF);
    let density = (PAGE_BYTES / (f64::from(aligned) + ROW_OVERHEAD))
        .floor()
        .max(1.0);
    (rows as f64 / density).ceil() as u32
}

/// A page without its header (`SizeOfPageHeaderData`).
const PAGE_BYTES: f64 = (pg_sys::BLCKSZ - 24) as f64;
/// A row's header, and its line pointer.
const ROW_OVERHEAD: f64 = 28.0;

/// Pages that so many bytes of files count as.
fn pages_of(bytes: u64) -> u32 {
    bytes
        .div_ceil(u64::from(pg_sys::BLCKSZ))
        .try_into()
        .unwrap_or(u32::MAX)
}

#[pg_guard]
unsafe extern "C-unwind" fn estimate_size(
    rel: pg_sys::Relation,
    attr_widths: *mut i32,
    pages: *mut pg_sys::BlockNumber,
    tuples: *mut f64,
    allvisfrac: *mut f64,
) {
    let cold = storage::of_relation(rel).map(|s| data_file::totals(s.id, std::ptr::null_mut()));
    // SAFETY: a callback of heap with its arguments; the results are the caller's.
    unsafe {
        match cold {
            Some((rows, bytes)) if rows > 0 => {
                let size = if guc::engine() == guc::Engine::Off {
                    as_heap(rel, attr_widths, rows)
                } else {
                    hot_and_cold(rel, attr_widths, rows, bytes)
                };
                *pages = size.pages;
                *tuples = size.tuples;
                *allvisfrac = size.allvisfrac;
            }
            _ => (heap().relation_estimate_size.unwrap_unchecked())(
                rel,
                attr_widths,
                pages,
                tuples,
                allvisfrac,
            ),
        }
    }
}

/// Cold rows of a table whose count is believed rather than statistics that know of less than half of
/// them.
const LOAD_ROWS: u64 = 100_000;

/// What the planner is told.
#[derive(Default)]
struct Size {
    pages: pg_sys::BlockNumber,
    tuples: f64,
    allvisfrac: f64,
}

/// Heap's own estimate, of the main fork.
unsafe fn of_heap(rel: pg_sys::Relation, attr_widths: *mut i32) -> Size {
    let mut size = Size::default();
    // SAFETY: a callback of heap with its arguments.
    unsafe {
        (heap().relation_estimate_size.unwrap_unchecked())(
            rel,
            attr_widths,
            &mut size.pages,
            &mut size.tuples,
            &mut size.allvisfrac,
        );
    }
    size
}

impl Size {
    /// An index-only scan looks up whether a cold row is visible, and doesn't read it.
    fn with_visible(hot: &Size, cold: u32) -> f64 {
        let all = f64::from(hot.pages) + f64::from(cold);
        if all > 0.0 {
            (f64::from(hot.pages) * hot.allvisfrac + f64::from(cold)) / all
        } else {
            0.0
        }
    }
}

/// The pages of hot rows, and about how many there are: statistics are about all rows.
unsafe fn of_hot(rel: pg_sys::Relation, attr_widths: *mut i32) -> Size {
    // SAFETY: the relation is open; the copies live in the current context.
    unsafe {
        let copy = super::ddl::as_heap(rel);
        let mut class = *(*rel).rd_rel;
        class.reltuples = -1.0;
        class.relpages = 0;
        class.relhassubclass = true; // an empty heap stays empty
        (*copy).rd_rel = &mut class;
        let mut hot = of_heap(copy, attr_widths);
        pg_sys::pfree(copy.cast());
        hot.tuples = hot::estimate_rows(rel, hot.pages);
        hot
    }
}

/// About how many hot rows an open relation has.
pub fn estimate_hot_rows(rel: pg_sys::Relation) -> u64 {
    // SAFETY: the relation is open; without an array for them the widths of columns are only added up.
    unsafe { of_hot(rel, std::ptr::null_mut()).tuples as u64 }
}

/// Hot rows by a look at some of them, cold ones by count. `reltuples` covers both, so that heap's density of
/// tuples per page can't be used once there are cold rows.
unsafe fn hot_and_cold(
    rel: pg_sys::Relation,
    attr_widths: *mut i32,
    rows: u64,
    bytes: u64,
) -> Size {
    // SAFETY: the relation is open; the copies live in the current context.
    unsafe {
        // Of a table without statistics heap assumes that it has grown: plans of small ones are heap's.
        let least = if (*(*rel).rd_rel).reltuples < 0.0 {
            of_heap(rel, attr_widths)
        } else {
            Size::default()
        };
        let cold = pages_of(bytes);
        let hot = of_hot(rel, attr_widths);
        Size {
            pages: hot.pages.saturating_add(cold).max(least.pages),
            tuples: (hot.tuples + rows as f64).max(least.tuples),
            allvisfrac: Size::with_visible(&hot, cold),
        }
    }
}

/// With `lake.engine = off` Postgres' executor takes a row of a file much as one of the heap, and its
/// planner chooses the plans that it would choose for a heap with the same rows, by the statistics of
/// the last VACUUM or ANALYZE.
///
/// A flush leaves the pages of the rows that it has moved to VACUUM, so that the heap is as large as
/// if they were there. Pages that have come since ANALYZE have the rows of a heap's page, at most as
/// many as then.
unsafe fn as_heap(rel: pg_sys::Relation, attr_widths: *mut i32, rows: u64) -> Size {
    // SAFETY: the relation is open.
    unsafe {
        let class = &*(*rel).rd_rel;
        let hot = of_heap(rel, attr_widths);
        let cold = pages_in_heap(rel, attr_widths, rows);
        let known = f64::from(class.reltuples);
        let tuples = if known > 0.0 && class.relpages > 0 {
            let density = (known / f64::from(class.relpages)).min(rows_of_page(rel, attr_widths));
            let grown = f64::from(hot.pages.saturating_sub(class.relpages as u32));
            let tuples = known + density * grown;
            // A bulk load adds no page to the heap.
            if rows > LOAD_ROWS && rows as f64 > 2.0 * tuples {
                rows as f64
            } else {
                tuples
            }
        } else {
            hot.tuples.max(rows as f64)
        };
        // Cold rows are in the visibility map, so to speak, once VACUUM has been there.
        let allvisfrac = if class.relallvisible > 0 {
            Size::with_visible(&hot, cold)
        } else {
            0.0
        };
        Size {
            pages: hot.pages.max(cold),
            tuples: tuples.round(),
            allvisfrac,
        }
    }
}
