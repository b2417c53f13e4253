//! What a shard counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One shard, as `lake.stat_cache` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    pub shard: u32,
    /// The shard's part of the limit, in bytes.
    pub capacity: u64,
    /// What its blocks take of the disk, never more than `capacity` but while that is being lowered. The index comes on top.
    pub bytes: u64,
    pub blocks: u64,
    /// Blocks that a read found, and that it didn't find.
    pub hits: u64,
    pub misses: u64,
    /// Bytes that readers got from the cache.
    pub bytes_from_cache: u64,
    /// Bytes that the origin was asked for and gave.
    pub bytes_from_store: u64,
    /// Blocks that went since room was needed.
    pub evictions: u64,
    /// Blocks and index entries that were damaged, and dropped.
    pub corrupt_blocks: u64,
    /// Requests that the origin hasn't answered yet.
    pub in_flight: u64,
    /// How long the origin took, in microseconds, up to an eighth too high; 0 if it wasn't asked.
    pub latency_p50_us: u64,
    pub latency_p99_us: u64,
    /// Why nothing is kept at present.
    pub off: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Count,
    pub(crate) misses: Count,
    pub(crate) bytes_from_cache: Count,
    pub(crate) bytes_from_store: Count,
    pub(crate) evictions: Count,
    pub(crate) corrupt_blocks: Count,
    in_flight: AtomicU64,
    latency: Histogram,
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Counters {
    pub(crate) fn fill(&self, stats: &mut ShardStats) {
        stats.hits = self.hits.get();
        stats.misses = self.misses.get();
        stats.bytes_from_cache = self.bytes_from_cache.get();
        stats.bytes_from_store = self.bytes_from_store.get();
        stats.evictions = self.evictions.get();
        stats.corrupt_blocks = self.corrupt_blocks.get();
        stats.in_flight = self.in_flight.load(Ordering::Relaxed);
        let [p50, p99] = self.latency.quantiles([50, 99]);
        stats.latency_p50_us = p50;
        stats.latency_p99_us = p99;
    }

    /// All but what is a state.
    pub(crate) fn reset(&self) {
        for count in [
            &self.hits,
            &self.misses,
            &self.bytes_from_cache,
            &self.bytes_from_store,
            &self.evictions,
            &self.corrupt_blocks,
        ] {
            count.reset();
        }
        self.latency.reset();
    }

    /// Counts a request that is in flight until what is returned is dropped.
    pub(crate) fn in_flight(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    pub(crate) fn answered(&self, after: Duration) {
        self.latency
            .add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
    }
}

pub(crate) struct InFlight<'a>(&'a Counters);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Buckets between two powers of two.
const STEPS: usize = 8;
/// The last bucket has everything above 2^40 µs.
const BUCKETS: usize = 38 * STEPS;

#[derive(Debug)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl Histogram {
    fn add(&self, value: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(value)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reset(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    /// `percents` in ascending order.
    fn quantiles<const N: usize>(&self, percents: [u64; N]) -> [u64; N] {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let total: u64 = counts.iter().sum();
        percents.map(|percent| {
            let rank = (total * percent).div_ceil(100);
            let mut seen = 0;
            let bucket = counts.iter().position(|count| {
                seen += count;
                total > 0 && seen >= rank
            });
            bucket.map_or(0, highest_of)
        })
    }
}

/// Values up to 7 have a bucket each, then each power of two has eight.
fn bucket_of(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let shift = 60 - value.leading_zeros() as usize;
    let step = (value >> shift) as usize - STEPS;
    ((shift + 1) * STEPS + step).min(BUCKETS - 1)
}

/// The highest value of a bucket.
fn highest_of(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    let step = (bucket % STEPS + STEPS + 1) as u64;
    (step << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        let mut next = 0;
        for bucket in 0..BUCKETS - 1 {
            assert_eq!(bucket_of(next), bucket, "of {next}");
            let highest = highest_of(bucket);
            assert_eq!(bucket_of(highest), bucket, "of {highest}");
            assert!(highest - next <= next / 8);
            next = highest + 1;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_what_was_added() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantiles([50, 99]), [0, 0]);
        for value in 1..=1000 {
            histogram.add(value);
        }
        let [p50, p99] = histogram.quantiles([50, 99]);
        assert!((500..=563).contains(&p50), "{p50}");
        assert!((990..=1114).contains(&p99), "{p99}");
        histogram.reset();
        assert_eq!(histogram.quantiles([50, 99]), [0, 0]);
    }
}
