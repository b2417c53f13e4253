//! What EXPLAIN shows of the node.

use crate::custom::state::{Run, Work};
use pg_lake_plan::message::ScanStats;
use pgrx::pg_sys;
use std::ffi::CString;

/// Shows the fragment, why parts were not lowered, and with ANALYZE what was done.
pub fn show(run: &Run, es: *mut pg_sys::ExplainState) {
    for line in crate::lower::describe(&run.private.fragment) {
        text(es, c"Engine", &line);
    }
    for reason in &run.private.reasons {
        text(es, c"Not lowered", reason);
    }
    let (stats, fallback) = match &run.work {
        Work::Leaf(leaf) => (&leaf.stats, None),
        Work::Fragment(fragment) => (&fragment.stats, fragment.why_postgres),
    };
    if let Some(why) = fallback {
        text(es, c"Run by Postgres", why);
    }
    // SAFETY: the caller's state.
    if unsafe { (*es).analyze }
        && let Some(stats) = stats
    {
        show_stats(stats, es);
    }
}

fn show_stats(stats: &ScanStats, es: *mut pg_sys::ExplainState) {
    number(
        es,
        c"Files Read",
        stats.files.saturating_sub(stats.files_pruned),
    );
    number(es, c"Files Pruned", stats.files_pruned);
    number(
        es,
        c"Row Groups Read",
        stats.row_groups.saturating_sub(stats.row_groups_pruned),
    );
    number(es, c"Row Groups Pruned", stats.row_groups_pruned);
    number(es, c"Cold Rows Scanned", stats.rows_cold);
    number(es, c"Hot Rows Fed", stats.rows_fed);
    number(es, c"Column Chunks From Memory", stats.chunks_cached);
    number(es, c"Column Chunks Decoded", stats.chunks_decoded);
    number(es, c"Parquet Bytes Read", stats.bytes_read);
    if stats.bytes_disk_cache + stats.bytes_store > 0 {
        number(es, c"Bytes from Disk Cache", stats.bytes_disk_cache);
        number(es, c"Bytes from Store", stats.bytes_store);
    }
    // SAFETY: the caller's state.
    if unsafe { (*es).timing } {
        text(
            es,
            c"Engine Time",
            &format!("{:.3} ms", stats.elapsed_us as f64 / 1000.0),
        );
    }
    // SAFETY: the caller's state.
    if unsafe { (*es).verbose } {
        for line in &stats.operators {
            text(es, c"Operator", line);
        }
    }
}

fn text(es: *mut pg_sys::ExplainState, label: &std::ffi::CStr, value: &str) {
    let value = CString::new(value.replace('\0', "")).unwrap_or_default();
    // SAFETY: both strings end with a zero and are copied.
    unsafe { pg_sys::ExplainPropertyText(label.as_ptr(), value.as_ptr(), es) }
}

fn number(es: *mut pg_sys::ExplainState, label: &std::ffi::CStr, value: u64) {
    // SAFETY: as above.
    unsafe {
        pg_sys::ExplainPropertyUInteger(label.as_ptr(), std::ptr::null(), value, es);
    }
}
