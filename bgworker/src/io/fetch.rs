//! Bytes of data files in stores, by way of the disk cache, and what else is asked of that.

use super::Io;
use super::places::Places;
use crate::runtime::blocking;
use crate::store::Remote;
use crate::transport::ResultWriter;
use async_trait::async_trait;
use bytes::Bytes;
use pg_lake_cache::{Admission, Buffers, Object, Origin};
use pg_lake_plan::message::{
    CacheShard, CachedObject, ErrorCode, Fetch, Fetched, Priority, Reply, WireError, kind,
};
use pg_lake_plan::store::Store;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Stores that have memory of their own.
const STORES_MAX: usize = 64;

/// An object in its store.
struct Stored {
    remote: Arc<Remote>,
    location: Arc<str>,
    priority: Priority,
    buffers: Buffers,
}

#[async_trait]
impl Origin for Stored {
    type Error = WireError;

    async fn get(&self, range: Range<u64>) -> Result<Bytes, WireError> {
        self.remote.get(&self.location, range, self.priority).await
    }

    fn buffers(&self) -> Option<Buffers> {
        Some(self.buffers.clone())
    }
}

/// The memory that reads of each store share.
#[derive(Default)]
pub(super) struct StoreBuffers(Mutex<HashMap<String, Buffers>>);

impl StoreBuffers {
    fn of(&self, remote: &Remote) -> Buffers {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let root = remote.store().root();
        if let Some(known) = all.get(&root) {
            return known.clone();
        }
        if all.len() >= STORES_MAX {
            // Reads under way keep what they have.
            all.clear();
        }
        all.entry(root).or_default().clone()
    }
}

impl Io {
    /// Sends the bytes of each range.
    pub async fn fetch(
        &self,
        stores: &[Store],
        request: Fetch,
        writer: &mut ResultWriter,
    ) -> Result<Reply, WireError> {
        let location: Arc<str> = request.location.as_str().into();
        let remote = self.stores.open(stores).find(&location)?;
        let origin = Stored {
            buffers: self.buffers.of(&remote),
            remote,
            location: location.clone(),
            priority: request.priority,
        };
        let admission = admission(&request);
        let object = Object {
            location,
            size: request.size,
            checksums: request.checksums.into(),
        };
        let ranges: Vec<Range<u64>> = request.ranges.iter().map(|(a, b)| *a..*b).collect();
        let read = self
            .cache
            .read(&object, &ranges, admission, Arc::new(origin))
            .await
            .map_err(|error| cache_error(error, &object))?;
        let fetched = Fetched {
            from_cache: read.from_cache,
            from_store: read.from_origin,
        };
        for part in read.parts {
            writer.send_pieces(kind::BYTES, part.as_slice()).await?;
        }
        Ok(Reply::Fetched(fetched))
    }
}

impl Io {
    /// Puts a file that was uploaded into the cache.
    pub(super) async fn adopt(&self, object: CachedObject, path: &str) -> bool {
        self.cache.adopt(&cached(object), Path::new(path)).await
    }

    /// Reads a file into the cache, and returns how many bytes of it are there.
    pub(super) async fn warm(
        &self,
        places: &Places,
        object: CachedObject,
    ) -> Result<u64, WireError> {
        let object = cached(object);
        let Some(remote) = places.remote(&object.location)? else {
            return Ok(0);
        };
        let origin = Arc::new(Stored {
            buffers: self.buffers.of(&remote),
            remote,
            location: object.location.clone(),
            priority: Priority::Ahead,
        });
        let filled = self.cache.fill(&object, origin).await;
        filled.map_err(|error| cache_error(error, &object))?;
        Ok(self.cache.contains(&object))
    }

    /// Takes files out of the cache; returns their bytes.
    pub(super) async fn evict(&self, locations: Vec<String>) -> Result<u64, WireError> {
        let cache = self.cache.clone();
        blocking("evicting files", move || {
            Ok(locations.iter().map(|location| cache.evict(location)).sum())
        })
        .await
    }

    pub(super) fn cache_stats(&self, reset: bool) -> Vec<CacheShard> {
        let stats = self.cache.stats().into_iter().map(|shard| CacheShard {
            shard: shard.shard,
            capacity: shard.capacity,
            bytes: shard.bytes,
            blocks: shard.blocks,
            hits: shard.hits,
            misses: shard.misses,
            bytes_from_cache: shard.bytes_from_cache,
            bytes_from_store: shard.bytes_from_store,
            evictions: shard.evictions,
            corrupt_blocks: shard.corrupt_blocks,
            in_flight: shard.in_flight,
            latency_p50_us: shard.latency_p50_us,
            latency_p99_us: shard.latency_p99_us,
            off: shard.off,
        });
        let stats = stats.collect();
        if reset {
            self.cache.reset_stats();
        }
        stats
    }
}

fn cached(object: CachedObject) -> Object {
    Object {
        location: object.location.into(),
        size: object.size,
        checksums: object.checksums.into(),
    }
}

fn admission(request: &Fetch) -> Admission {
    match (request.priority, request.scan) {
        // Files that are about to be replaced. Of small ones a footer's block has it all.
        (Priority::Background, true) => Admission::Bypass,
        (Priority::Background, false) | (_, true) => Admission::Scan,
        (_, false) => Admission::Normal,
    }
}

fn cache_error(error: pg_lake_cache::Error<WireError>, object: &Object) -> WireError {
    match error {
        pg_lake_cache::Error::Origin(error) => error,
        other => WireError::new(
            ErrorCode::DataCorrupted,
            format!("object \"{}\" is damaged: {other}", object.location),
        ),
    }
}
