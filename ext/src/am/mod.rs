//! The table access method `iceberg`: heap's own code for hot rows, the engine for cold ones.
//!
//! Callbacks are grouped as Postgres groups them in `access/tableam.h`:
//!
//! * [`scan`]: sequential, TID-range and sample scans, [`cold_scan`]: their cold half; [`parallel`]: several processes in one;
//!   [`bitmap`]: bitmap scans
//! * [`dml`]: single rows: fetch, insert, update, delete, lock
//! * [`cold_dml`]: the same for cold rows; [`lockers`]: their row locks;
//!   [`held`]: their files; [`chain`]: new versions; [`keys`]: what foreign keys refer to
//! * [`index`]: rows that an index leads to; [`visible`]: whether a snapshot sees them
//! * [`index_build`]: entries for the rows that are there when an index is made; [`validate`]: and
//!   for those that came in between
//! * [`ddl`]: files of relations, vacuum; [`cluster`]: cold rows in the order of an index; [`sizes`]: what the planner is told
//! * [`block_ranges`]: scans through BRIN indexes
//! * [`analyze`]: samples for ANALYZE
//! * [`dirty`]: rows that logical replication looks for
//! * [`hot`]: direct access to the heap half; [`replaced`]: hot rows that the transaction must not see

mod analyze;
mod bitmap;
pub mod block_ranges;
mod chain;
mod cluster;
mod cold_dml;
mod cold_scan;
mod ddl;
mod dirty;
pub mod dml;
pub mod held;
pub mod hot;
pub mod index;
pub mod index_build;
mod keys;
pub mod lockers;
mod parallel;
pub mod replaced;
mod scan;
mod sizes;
mod validate;
pub mod visible;

pub use cold_dml::hold_toast;
pub use cold_scan::count_returned;
pub use ddl::{has_cold_rows, is_all_hot};
pub use sizes::estimate_hot_rows;

use crate::pg::missing;
use pgrx::pg_sys;
use std::sync::OnceLock;

struct Routine(pg_sys::TableAmRoutine);
// SAFETY: a table of function pointers that is never written after it was made.
unsafe impl Send for Routine {}
// SAFETY: as above.
unsafe impl Sync for Routine {}

static ROUTINE: OnceLock<Routine> = OnceLock::new();

/// Heap's callbacks.
pub fn heap() -> &'static pg_sys::TableAmRoutine {
    // SAFETY: returns a pointer to a constant of the server.
    unsafe { &*pg_sys::GetHeapamTableAmRoutine() }
}

fn routine() -> &'static pg_sys::TableAmRoutine {
    &ROUTINE
        .get_or_init(|| {
            let mut routine = *heap();
            scan::install(&mut routine);
            bitmap::install(&mut routine);
            parallel::install(&mut routine);
            dml::install(&mut routine);
            index::install(&mut routine);
            index_build::install(&mut routine);
            ddl::install(&mut routine);
            sizes::install(&mut routine);
            analyze::install(&mut routine);
            Routine(routine)
        })
        .0
}

/// Whether an open relation is a table of this access method.
pub fn is_iceberg_relation(relation: pg_sys::Relation) -> bool {
    // SAFETY: the relation is open.
    unsafe { std::ptr::eq((*relation).rd_tableam, routine()) }
}

/// Whether a relation, by its OID, has this access method.
pub fn has_iceberg_am(relid: pg_sys::Oid) -> bool {
    // SAFETY: a catalog lookup.
    let am = unsafe { pg_sys::get_rel_relam(relid) };
    am != pg_sys::InvalidOid && am == crate::pg::iceberg_am()
}

/// Whether a relation, by its OID, is a permanent table of this access method.
pub fn is_iceberg(relid: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookups.
    unsafe {
        // Zero for one that is gone; the others raise an error.
        matches!(
            pg_sys::get_rel_relkind(relid) as u8,
            pg_sys::RELKIND_RELATION | pg_sys::RELKIND_MATVIEW
        ) && has_iceberg_am(relid)
            && pg_sys::get_rel_persistence(relid) as u8 == pg_sys::RELPERSISTENCE_PERMANENT
    }
}

/// Whether a query that names a relation may come to a permanent table of this access method by it:
/// it is one, or may have one among its partitions or children.
pub fn may_lead_to_iceberg(relid: pg_sys::Oid) -> bool {
    is_iceberg(relid) || missing::has_subclass(relid)
}

/// V1 calling convention record of [`iceberg_am_handler`].
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_iceberg_am_handler() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// The handler that `CREATE ACCESS METHOD` names.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn iceberg_am_handler(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    pg_sys::Datum::from(std::ptr::from_ref(routine()))
}
