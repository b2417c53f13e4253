//! `lake.cache_warm`, `lake.cache_evict`, `lake.stat_cache` and its reset.
//!
//! Each shard of the disk cache is one I/O worker's: a table's files are sent to those who have them.

use crate::catalog::data_file;
use crate::catalog::storage;
use crate::flush::Relation;
use crate::ring::call::{Call, ask_worker};
use crate::ring::region;
use crate::sql::maintenance::unexpected;
use pg_lake_bgworker::owner_of;
use pg_lake_plan::message::{CacheShard, CachedObject, Reply, Request};
use pg_lake_plan::store::is_remote;
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern, pg_sys};
use std::collections::{BTreeMap, VecDeque};

/// Files that are read into the cache at the same time, so that the end of one keeps no connection idle.
const WARMED_AT_ONCE: usize = 2;

/// The files of a table that are in a store, as its owner may see them now.
fn objects(table: pg_sys::Oid) -> Vec<CachedObject> {
    let rel = Relation::for_maintenance(table, pg_sys::AccessShareLock as i32);
    let Some(storage) = storage::of_relation(rel.0) else {
        return vec![];
    };
    // SAFETY: in a transaction with a snapshot.
    let snapshot = unsafe { pg_sys::GetActiveSnapshot() };
    data_file::files(storage.id, snapshot)
        .into_iter()
        .map(|file| CachedObject {
            location: crate::pg::absolute(&file.path),
            size: file.size,
            checksums: file.checksums.to_vec(),
        })
        .filter(|object| is_remote(&object.location))
        .collect()
}

fn workers() -> u32 {
    region().layout().workers.saturating_sub(1)
}

/// Reads the files of a table into the disk cache; returns how many bytes of them are there.
#[pg_extern(sql = false)]
fn cache_warm(table: pg_sys::Oid) -> i64 {
    let warmed = |call: Call| match call.reply() {
        Reply::Warmed(bytes) => bytes,
        other => unexpected(&other),
    };
    let mut bytes = 0;
    let mut running = VecDeque::new();
    for object in objects(table) {
        crate::pg::check_for_interrupts();
        if running.len() >= WARMED_AT_ONCE {
            bytes += running.pop_front().map_or(0, warmed);
        }
        let worker = owner_of(&object.location, workers());
        running.push_back(Call::start(worker, 0, |_| Request::Warm(object)));
    }
    bytes += running.into_iter().map(warmed).sum::<u64>();
    bytes as i64
}

/// Takes the files of a table out of the disk cache; returns how many bytes that were.
#[pg_extern(sql = false)]
fn cache_evict(table: pg_sys::Oid) -> i64 {
    let mut by_worker: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for object in objects(table) {
        let worker = owner_of(&object.location, workers());
        by_worker.entry(worker).or_default().push(object.location);
    }
    let mut bytes = 0;
    for (worker, locations) in by_worker {
        bytes += match ask_worker(worker, Request::Evict { locations }) {
            Reply::Evicted(bytes) => bytes,
            other => unexpected(&other),
        };
    }
    bytes as i64
}

fn shards(reset: bool) -> Vec<CacheShard> {
    let mut shards = vec![];
    for worker in 1..=workers() {
        match ask_worker(worker, Request::CacheStats { reset }) {
            Reply::CacheStats(stats) => shards.extend(stats),
            other => unexpected(&other),
        }
    }
    shards.sort_by_key(|shard| shard.shard);
    shards
}

/// One row for each shard of the disk cache.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn stat_cache() -> TableIterator<
    'static,
    (
        name!(shard, i32),
        name!(worker, i32),
        name!(capacity, i64),
        name!(bytes, i64),
        name!(blocks, i64),
        name!(hits, i64),
        name!(misses, i64),
        name!(bytes_from_cache, i64),
        name!(bytes_from_store, i64),
        name!(evictions, i64),
        name!(corrupt_blocks, i64),
        name!(in_flight, i64),
        name!(latency_p50_us, i64),
        name!(latency_p99_us, i64),
        name!(off, Option<String>),
    ),
> {
    let workers = workers().max(1);
    let rows: Vec<_> = shards(false)
        .into_iter()
        .map(|s| {
            (
                s.shard as i32,
                (1 + s.shard % workers) as i32,
                s.capacity as i64,
                s.bytes as i64,
                s.blocks as i64,
                s.hits as i64,
                s.misses as i64,
                s.bytes_from_cache as i64,
                s.bytes_from_store as i64,
                s.evictions as i64,
                s.corrupt_blocks as i64,
                s.in_flight as i64,
                s.latency_p50_us as i64,
                s.latency_p99_us as i64,
                s.off,
            )
        })
        .collect();
    TableIterator::new(rows)
}

/// Counts from 0 again.
#[pg_extern(sql = false)]
fn stat_cache_reset() {
    shards(true);
}
