//! What EXPLAIN shows of the node.

use crate::custom::private::Source;
use crate::custom::state::{Run, Work};
use pg_lake_plan::message::ScanStats;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// Shows the fragment, why parts were not lowered, and with ANALYZE what was done.
pub fn show(run: &Run, es: *mut pg_sys::ExplainState) {
    let lines = crate::lower::describe(&run.private.fragment);
    list(es, c"Engine", &lines);
    list(es, c"Not lowered", &run.private.reasons);
    let (stats, fallback) = match &run.work {
        Work::Leaf(leaf) => (&leaf.stats, None),
        Work::Fragment(fragment) => (&fragment.stats, fragment.why_postgres),
    };
    if let Some(why) = fallback {
        text(es, c"Run by Postgres", why);
    }
    if let Some(direct) = run.direct.as_ref().filter(|direct| direct.rows > 0) {
        number(es, c"Rows Written in Batches", direct.rows);
    }
    // SAFETY: the caller's state.
    if unsafe { (*es).analyze }
        && let Some(stats) = stats
    {
        let mut inputs = run.private.inputs.iter();
        let plans = inputs.any(|input| matches!(input.source, Source::Plan(_)));
        show_stats(stats, plans, es);
    }
}

/// `plans`: whether other rows than hot ones are fed.
fn show_stats(stats: &ScanStats, plans: bool, es: *mut pg_sys::ExplainState) {
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
    if stats.row_groups_filtered > 0 {
        number(
            es,
            c"Row Groups Pruned by Bloom Filters",
            stats.row_groups_filtered,
        );
    }
    if stats.pages_pruned > 0 {
        number(
            es,
            c"Pages Read",
            stats.pages.saturating_sub(stats.pages_pruned),
        );
        number(es, c"Pages Pruned", stats.pages_pruned);
    }
    number(es, c"Cold Rows Scanned", stats.rows_cold);
    let fed = if plans { c"Rows Fed" } else { c"Hot Rows Fed" };
    number(es, fed, stats.rows_fed);
    if stats.rows_skipped > 0 {
        number(es, c"Rows Skipped", stats.rows_skipped);
    }
    number(es, c"Column Chunks From Memory", stats.chunks_cached);
    number(es, c"Column Chunks Decoded", stats.chunks_decoded);
    number(es, c"Parquet Bytes Read", stats.bytes_read);
    if stats.bytes_disk_cache + stats.bytes_store > 0 {
        number(es, c"Bytes from Disk Cache", stats.bytes_disk_cache);
        number(es, c"Bytes from Store", stats.bytes_store);
    }
    // SAFETY: the caller's state.
    if unsafe { (*es).timing } {
        if stats.queued_us > 0 {
            text(es, c"Queue Time", &milliseconds(stats.queued_us));
        }
        text(es, c"Engine Time", &milliseconds(stats.elapsed_us));
    }
    // SAFETY: the caller's state.
    if unsafe { (*es).verbose } {
        list(es, c"Operator", &stats.operators);
    }
}

fn milliseconds(microseconds: u64) -> String {
    format!("{:.3} ms", microseconds as f64 / 1000.0)
}

/// Lines with one label: as text each has it, in other formats they are a list.
fn list(es: *mut pg_sys::ExplainState, label: &CStr, lines: &[String]) {
    // SAFETY: the caller's state.
    if unsafe { (*es).format } == pg_sys::ExplainFormat::EXPLAIN_FORMAT_TEXT {
        lines.iter().for_each(|line| text(es, label, line));
        return;
    }
    let mut strings = std::ptr::null_mut();
    for line in lines {
        let line = c_string(line);
        // SAFETY: a copy in the current memory context, which the list is in, too.
        strings = unsafe { pg_sys::lappend(strings, pg_sys::pstrdup(line.as_ptr()).cast()) };
    }
    if !strings.is_null() {
        // SAFETY: a list of strings.
        unsafe { pg_sys::ExplainPropertyList(label.as_ptr(), strings, es) };
    }
}

fn text(es: *mut pg_sys::ExplainState, label: &CStr, value: &str) {
    // SAFETY: both strings end with a zero and are copied.
    unsafe { pg_sys::ExplainPropertyText(label.as_ptr(), c_string(value).as_ptr(), es) }
}

fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

fn number(es: *mut pg_sys::ExplainState, label: &CStr, value: u64) {
    // SAFETY: as above.
    unsafe {
        pg_sys::ExplainPropertyUInteger(label.as_ptr(), std::ptr::null(), value, es);
    }
}
