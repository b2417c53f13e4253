//! Bytes of data files in stores, by way of the disk cache, and what else is asked of that.

use super::places::Places;
use super::{Io, cancelled};
use crate::placed;
use crate::runtime::blocking;
use crate::store::Remote;
use crate::transport::ResultWriter;
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use pg_lake_cache::{Admission, Buffers, Object, Origin, Read};
use pg_lake_plan::message::{
    CacheShard, CachedObject, ErrorCode, Fetch, Fetched, Priority, Reply, WireError, kind,
};
use pg_lake_plan::store::{BLOCK_BYTES, Store};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Stores that have memory of their own.
const STORES_MAX: usize = 64;

/// What the cache is asked for at a time, in bytes of whole blocks: as much as a request to a store is for.
const STEP_BYTES: u64 = 8 << 20;
/// Steps of one read that are under way while another one is sent.
const STEPS: usize = 8;
/// What a read holds at most.
const READ_BYTES_MAX: u64 = (STEPS as u64 + 1) * STEP_BYTES;
/// And one that is large, in any case.
const READ_BYTES_MIN: u64 = 2 * STEP_BYTES;

/// In place of a store's root.
const IN_CACHE: &str = "";

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
    /// Sends the bytes of each range, when there is memory for them: what has come while the rest is on its way. Who can
    /// read the cache's files is told where the bytes are, if the cache has them all.
    pub async fn fetch(
        &self,
        stores: &[Store],
        request: Fetch,
        writer: &mut ResultWriter,
    ) -> Result<Reply, WireError> {
        let location: Arc<str> = request.location.as_str().into();
        let remote = self.stores.open(stores).find(&location)?;
        let (admission, steps, wanted) = (admission(&request), steps(&request), bytes_of(&request));
        let priority = request.priority;
        let object = Object {
            location: location.clone(),
            size: request.size,
            checksums: request.checksums.into(),
        };
        if request.places {
            let ranges: Vec<Range<u64>> = request.ranges.iter().map(|(a, b)| *a..*b).collect();
            let places = self.cache.places(&object, &ranges, admission);
            if let Some(places) = places.and_then(placed::to_message) {
                return Ok(Reply::Placed(places));
            }
        }
        // A store that doesn't answer has its part of the memory. What is in the cache doesn't need it.
        let place = match steps.iter().all(|ranges| self.cache.has(&object, ranges)) {
            true => IN_CACHE.to_owned(),
            false => remote.store().root(),
        };
        let asked = wanted.min(self.memory.of_one().max(READ_BYTES_MIN));
        let share = self.memory.take(&place, asked, priority);
        // Until all is sent.
        let share = share.await.ok_or_else(cancelled)?;
        let at_once = steps_at_once(wanted, share.bytes());
        let origin = Arc::new(Stored {
            buffers: self.buffers.of(&remote),
            remote,
            location,
            priority,
        });
        let mut reads = stream::iter(steps)
            .map(|ranges| {
                self.read(&object, ranges, admission, origin.clone())
                    .boxed()
            })
            .buffered(at_once);
        let mut fetched = Fetched::default();
        while let Some(read) = reads.next().await {
            let read = read?;
            fetched.from_cache += read.from_cache;
            fetched.from_store += read.from_origin;
            for part in read.parts {
                writer.send_pieces(kind::BYTES, part.as_slice()).await?;
            }
        }
        Ok(Reply::Fetched(fetched))
    }

    async fn read(
        &self,
        object: &Object,
        ranges: Vec<Range<u64>>,
        admission: Admission,
        origin: Arc<Stored>,
    ) -> Result<Read, WireError> {
        let read = self.cache.read(object, &ranges, admission, origin).await;
        read.map_err(|error| cache_error(error, object))
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

/// What a request holds in memory at most.
fn bytes_of(request: &Fetch) -> u64 {
    let mut bytes = 0u64;
    let mut before = None;
    for (start, end) in &request.ranges {
        let range = *start..*end;
        bytes = bytes.saturating_add(more_block_bytes(before.as_ref(), &range));
        before = Some(range);
    }
    bytes.min(READ_BYTES_MAX)
}

/// How many steps are under way while another one is sent, of a read that has got so much of what it wants.
fn steps_at_once(wanted: u64, has: u64) -> usize {
    if has >= wanted {
        return STEPS;
    }
    let steps = (has / STEP_BYTES).saturating_sub(1).max(1);
    usize::try_from(steps).map_or(STEPS, |steps| steps.min(STEPS))
}

/// Bytes of the blocks that a range is in.
fn block_bytes(range: &Range<u64>) -> u64 {
    let after = range.end.div_ceil(BLOCK_BYTES);
    let blocks = after.saturating_sub(range.start / BLOCK_BYTES);
    blocks.saturating_mul(BLOCK_BYTES)
}

/// The same without a block that the range before it is in, too: small ranges of one block are one request to the store.
fn more_block_bytes(before: Option<&Range<u64>>, range: &Range<u64>) -> u64 {
    let last = before.filter(|before| before.start < before.end);
    let last = last.map(|before| (before.end - 1) / BLOCK_BYTES);
    let is_shared = range.start < range.end && last == Some(range.start / BLOCK_BYTES);
    let shared = if is_shared { BLOCK_BYTES } else { 0 };
    block_bytes(range).saturating_sub(shared)
}

/// The ranges of a request in steps, in their order. Large ones are cut where requests to the store are.
fn steps(request: &Fetch) -> Vec<Vec<Range<u64>>> {
    let ranges = request.ranges.iter().map(|(a, b)| *a..*b);
    let is_sound = request.size.div_ceil(BLOCK_BYTES) == request.checksums.len() as u64
        && ranges
            .clone()
            .all(|range| range.start <= range.end && range.end <= request.size);
    if !is_sound {
        // The cache says what is wrong.
        return vec![ranges.collect()];
    }
    let mut steps = vec![];
    let mut step = vec![];
    let mut room = STEP_BYTES;
    for piece in ranges.flat_map(pieces) {
        let mut bytes = more_block_bytes(step.last(), &piece);
        if bytes > room && !step.is_empty() {
            steps.push(std::mem::take(&mut step));
            room = STEP_BYTES;
            bytes = block_bytes(&piece);
        }
        room = room.saturating_sub(bytes);
        step.push(piece);
    }
    steps.push(step);
    steps
}

/// At least one, which may be empty.
fn pieces(range: Range<u64>) -> Vec<Range<u64>> {
    let mut pieces = vec![];
    let mut start = range.start;
    loop {
        let next = (start / STEP_BYTES + 1).saturating_mul(STEP_BYTES);
        let end = next.min(range.end);
        pieces.push(start..end);
        if end >= range.end {
            return pieces;
        }
        start = end;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request(ranges: &[(u64, u64)], size: u64) -> Fetch {
        Fetch {
            location: "s3://lake/1".into(),
            size,
            checksums: vec![0; size.div_ceil(BLOCK_BYTES) as usize],
            ranges: ranges.to_vec(),
            priority: Priority::Ahead,
            scan: true,
            places: false,
        }
    }

    #[test]
    fn a_request_takes_whole_blocks_up_to_a_limit() {
        let size = 100 * BLOCK_BYTES;
        let bytes = |ranges: &[(u64, u64)]| bytes_of(&request(ranges, size));
        assert_eq!(bytes(&[]), 0);
        assert_eq!(bytes(&[(7, 8)]), BLOCK_BYTES);
        let two = [(0, BLOCK_BYTES), (3 * BLOCK_BYTES - 1, 3 * BLOCK_BYTES + 1)];
        assert_eq!(bytes(&two), 3 * BLOCK_BYTES);
        assert_eq!(bytes(&[(5, 4)]), BLOCK_BYTES);
        assert_eq!(bytes(&[(0, size)]), READ_BYTES_MAX);
        assert_eq!(bytes(&[(0, u64::MAX)]), READ_BYTES_MAX);
    }

    #[test]
    fn a_read_keeps_to_what_it_has_got() {
        assert_eq!(steps_at_once(BLOCK_BYTES, BLOCK_BYTES), STEPS);
        assert_eq!(steps_at_once(READ_BYTES_MAX, READ_BYTES_MAX), STEPS);
        assert_eq!(steps_at_once(READ_BYTES_MAX, 4 * STEP_BYTES), 3);
        assert_eq!(steps_at_once(READ_BYTES_MAX, STEP_BYTES), 1);
        assert_eq!(steps_at_once(READ_BYTES_MAX, 0), 1);
    }

    #[test]
    fn steps_have_all_ranges_in_their_order() {
        let size = 50 * BLOCK_BYTES + 5;
        let columns: Vec<(u64, u64)> = (0..20)
            .map(|n| (n * 2 * BLOCK_BYTES + 10, (n * 2 + 1) * BLOCK_BYTES - 10))
            .collect();
        for ranges in [
            vec![],
            vec![(5, 5)],
            vec![(0, size)],
            vec![(BLOCK_BYTES + 1, 9 * BLOCK_BYTES), (size, size), (3, 4)],
            columns,
        ] {
            let steps = steps(&request(&ranges, size));
            let mut pieces = steps.iter().flatten();
            for (start, end) in ranges {
                let mut at = start;
                loop {
                    let piece = pieces.next().expect("a piece");
                    assert_eq!(piece.start, at);
                    at = piece.end;
                    if at == end {
                        break;
                    }
                    assert_eq!(at % STEP_BYTES, 0);
                }
            }
            assert_eq!(pieces.next(), None);
            let bytes = |step: &Vec<Range<u64>>| step.iter().map(block_bytes).sum::<u64>();
            assert!(steps.iter().all(|step| bytes(step) <= STEP_BYTES));
        }
    }

    #[test]
    fn small_ranges_take_their_blocks_once() {
        let size = 100 * BLOCK_BYTES;
        let small: Vec<(u64, u64)> = (0..100).map(|n| (n * 50_000, n * 50_000 + 1000)).collect();
        let small = request(&small, size);
        assert_eq!(bytes_of(&small), 5 * BLOCK_BYTES);
        assert_eq!(steps(&small).len(), 1);
        // Not beside each other.
        let far = [(0, 1), (9 * BLOCK_BYTES, 9 * BLOCK_BYTES + 1), (0, 1)];
        assert_eq!(bytes_of(&request(&far, size)), 3 * BLOCK_BYTES);
    }

    #[test]
    fn what_makes_no_sense_is_left_to_the_cache() {
        let ranges = [(0, u64::MAX), (7, 3)];
        let steps = steps(&request(&ranges, 10));
        let as_asked = ranges.map(|(start, end)| Range { start, end });
        assert_eq!(steps, [as_asked.to_vec()]);
    }
}
