//! Functions behind the `lake.stat_…` views, `lake.snapshots`, `lake.tables` and `lake.data_files`.

use crate::catalog::{garbage, tablespace};
use crate::guc;
use crate::progress;
use crate::queries;
use crate::ring::call::ask;
use crate::ring::region;
use pg_lake_plan::message::{Reply, Request};
use pg_lake_ring::Progress;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::{JsonB, name, pg_extern, pg_sys};
use std::sync::atomic::Ordering::Relaxed;

/// One row for each lake process.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn stat_workers() -> TableIterator<
    'static,
    (
        name!(slot, i32),
        name!(kind, String),
        name!(pid, Option<i32>),
        name!(incarnation, i64),
        name!(tasks, i64),
        name!(requests, i64),
        name!(errors, i64),
        name!(rows_out, i64),
        name!(bytes_in, i64),
        name!(bytes_out, i64),
        name!(memory_bytes, i64),
        name!(memory_peak, i64),
    ),
> {
    let region = region();
    let rows: Vec<_> = (0..region.layout().workers)
        .filter_map(|i| region.worker(i).map(|slot| (i, slot)))
        .map(|(i, slot)| {
            let c = slot.counters();
            let get = |a: &std::sync::atomic::AtomicU64| a.load(Relaxed) as i64;
            (
                i as i32,
                if i == crate::ring::ENGINE {
                    "engine"
                } else {
                    "worker"
                }
                .to_owned(),
                slot.is_up().then(|| slot.pid() as i32),
                slot.incarnation() as i64,
                get(&c.tasks),
                get(&c.requests),
                get(&c.errors),
                get(&c.rows_out),
                get(&c.bytes_in),
                get(&c.bytes_out),
                get(&c.memory_bytes),
                get(&c.memory_peak),
            )
        })
        .collect();
    TableIterator::new(rows)
}

/// One row for each stream.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn stat_streams() -> TableIterator<
    'static,
    (
        name!(stream, i32),
        name!(state, String),
        name!(pid, Option<i32>),
        name!(worker, Option<i32>),
        name!(generation, i64),
        name!(bytes_written, i64),
        name!(bytes_read, i64),
        name!(queued_bytes, i64),
        name!(cancelled, bool),
    ),
> {
    let region = region();
    let rows: Vec<_> = (0..region.layout().streams)
        .filter_map(|i| region.stream_info(i).map(|info| (i, info)))
        .map(|(i, info)| {
            let state = format!("{:?}", info.state).to_lowercase();
            let used = state != "free";
            (
                i as i32,
                state,
                info.proc.filter(|_| used).and_then(pid_of),
                used.then_some(info.worker as i32),
                i64::from(info.generation),
                info.bytes_written as i64,
                info.bytes_read as i64,
                info.queued_bytes as i64,
                info.cancelled,
            )
        })
        .collect();
    TableIterator::new(rows)
}

/// The process of a proc number.
fn pid_of(proc: u32) -> Option<i32> {
    // SAFETY: the array is fixed; a pid that changes meanwhile is a matter of statistics.
    unsafe {
        let global = pg_sys::ProcGlobal;
        (proc < (*global).allProcCount).then(|| (*(*global).allProcs.add(proc as usize)).pid)
    }
}

/// One row for each maintenance command that runs.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn stat_progress() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(datid, pg_sys::Oid),
        name!(relid, Option<pg_sys::Oid>),
        name!(command, Option<String>),
        name!(phase, Option<String>),
        name!(rows_total, Option<i64>),
        name!(rows_done, Option<i64>),
        name!(files_done, Option<i64>),
        name!(bytes_done, Option<i64>),
        name!(started, Option<TimestampWithTimeZone>),
    ),
> {
    let rows: Vec<_> = progress::running()
        .into_iter()
        .map(|running| {
            let details = running.details.as_ref();
            (
                running.pid,
                running.database,
                details.and_then(|d| d.relid),
                details.and_then(|d| d.command).map(str::to_owned),
                details.and_then(|d| d.phase).map(str::to_owned),
                details.and_then(|d| d.rows_total),
                details.map(|d| d.rows_done),
                details.map(|d| d.files_done),
                details.map(|d| d.bytes_done),
                details.and_then(|d| TimestampWithTimeZone::try_from(d.started).ok()),
            )
        })
        .collect();
    TableIterator::new(rows)
}

/// One row for each request that the engine serves.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn stat_queries() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(datid, pg_sys::Oid),
        name!(query_start, Option<TimestampWithTimeZone>),
        name!(state, Option<String>),
        name!(rows_read, Option<i64>),
        name!(rows_delivered, Option<i64>),
        name!(row_groups_done, Option<i64>),
        name!(row_groups_total, Option<i64>),
        name!(memory_bytes, Option<i64>),
        name!(memory_peak, Option<i64>),
        name!(spilled_bytes, Option<i64>),
        name!(spilled_files, Option<i64>),
    ),
> {
    let rows: Vec<_> = queries::running()
        .into_iter()
        .map(|query| {
            let details = query.details.as_ref();
            let get = |value: fn(&Progress) -> u64| details.map(|d| value(&d.progress) as i64);
            (
                query.pid,
                query.database,
                details
                    .and_then(|d| d.started)
                    .and_then(|at| TimestampWithTimeZone::try_from(at).ok()),
                details.map(|d| d.state.to_owned()),
                get(|p| p.rows_read),
                get(|p| p.rows_delivered),
                get(|p| p.row_groups_done),
                get(|p| p.row_groups),
                get(|p| p.memory_bytes),
                get(|p| p.memory_peak),
                get(|p| p.spilled_bytes),
                get(|p| p.spilled_files),
            )
        })
        .collect();
    TableIterator::new(rows)
}

/// The URL of a path of the catalog, if it is one in an object store.
#[pg_extern(sql = false)]
fn object_location(path: &str) -> Option<String> {
    tablespace::location(path)
}

/// One row for each reason why files are garbage.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn stat_garbage() -> TableIterator<
    'static,
    (
        name!(reason, String),
        name!(entries, i64),
        name!(since, Option<TimestampWithTimeZone>),
        name!(removable, i64),
        name!(removable_from, Option<TimestampWithTimeZone>),
    ),
> {
    let time = |at: Option<i64>| at.and_then(|at| TimestampWithTimeZone::try_from(at).ok());
    let rows: Vec<_> = garbage::summary(guc::garbage_retention_us())
        .into_iter()
        .map(|(reason, found)| {
            (
                reason,
                found.entries,
                time(found.since),
                found.removable,
                time(found.removable_from),
            )
        })
        .collect();
    TableIterator::new(rows)
}

/// The Iceberg snapshots in a metadata file.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn metadata_snapshots(
    metadata_location: &str,
) -> TableIterator<
    'static,
    (
        name!(snapshot_id, i64),
        name!(parent_id, Option<i64>),
        name!(sequence_number, i64),
        name!(committed_at, TimestampWithTimeZone),
        name!(operation, String),
        name!(summary, JsonB),
    ),
> {
    let reply = ask(Request::Inspect {
        metadata_location: metadata_location.to_owned(),
    });
    let Reply::Snapshots(snapshots) = reply else {
        super::maintenance::unexpected(&reply)
    };
    let rows: Vec<_> = snapshots
        .into_iter()
        .map(|s| {
            let summary: serde_json::Map<String, serde_json::Value> = s
                .summary
                .into_iter()
                .map(|(k, v)| (k, serde_json::Value::String(v)))
                .collect();
            (
                s.id,
                s.parent,
                s.sequence_number,
                pgrx::datum::to_timestamp(s.timestamp_ms as f64 / 1000.0),
                s.operation,
                JsonB(serde_json::Value::Object(summary)),
            )
        })
        .collect();
    TableIterator::new(rows)
}
