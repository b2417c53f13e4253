//! The cache of one process: its shards, and what is asked of all of them.

use crate::disk::{Disk, LocalDisk};
use crate::object::{Buffers, Layout, Object};
use crate::shard::{Setup, Shard};
use crate::stats::ShardStats;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Into how many shards objects are divided. A changed number would leave what is in the others.
pub const SHARDS: u32 = 16;

/// Blocks are that large at most.
const BLOCK_BYTES_MAX: u64 = 256 << 20;

/// The shard that an object belongs to, in every process and for ever.
pub fn shard_of(location: &str) -> u32 {
    crc32fast::hash(location.as_bytes()) % SHARDS
}

/// How a cache is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// Created where it is missing. Processes share it.
    pub directory: PathBuf,
    /// The shards that are this process' own. No other live process may own one of them.
    pub owned: Vec<u32>,
    /// Bytes of all [`SHARDS`] shards, each of which has its part. What doesn't make one block of each keeps none.
    pub limit: u64,
    /// Objects are checked and kept in blocks of that many bytes, which have to be the same whenever a directory is opened;
    /// otherwise what is there goes.
    pub block_bytes: u64,
}

/// See the crate's documentation.
pub struct Cache {
    shards: Vec<Arc<Shard>>,
    owned: Vec<u32>,
    block_bytes: u64,
    calls: AtomicU64,
    buffers: Buffers,
}

impl Cache {
    /// Opens the process' shards, and waits for the disk meanwhile. A shard that can't be opened is off, and
    /// [`ShardStats::off`] says why.
    pub fn open(config: Config) -> Cache {
        Cache::open_on(config, Arc::new(LocalDisk::default()))
    }

    pub(crate) fn open_on(config: Config, disk: Arc<dyn Disk>) -> Cache {
        let setup = Setup {
            directory: config.directory,
            block_bytes: config.block_bytes.clamp(1, BLOCK_BYTES_MAX),
            capacity: config.limit / u64::from(SHARDS),
            disk,
        };
        let owned: Vec<u32> = (0..SHARDS)
            .filter(|shard| config.owned.contains(shard))
            .collect();
        Cache {
            shards: open_shards(&setup, &owned),
            owned,
            block_bytes: setup.block_bytes,
            calls: AtomicU64::new(0),
            buffers: Buffers::default(),
        }
    }

    /// Changes the limit ([`Config::limit`]). If it is lower, waits until what is above it has gone.
    pub fn set_limit(&self, limit: u64) {
        for shard in self.owned() {
            shard.set_capacity(limit / u64::from(SHARDS));
        }
    }

    /// Takes a local file that has the object's bytes in, block by block, so that its readers find it. The file
    /// stays the caller's. `false`: not all of it is in the cache.
    pub async fn adopt(&self, object: &Object, path: &Path) -> bool {
        let Ok(layout) = Layout::of(object, self.block_bytes) else {
            return false;
        };
        let shard = self.shard(&object.location).clone();
        let (object, path) = (object.clone(), path.to_owned());
        let adopted = tokio::task::spawn_blocking(move || shard.adopt(&object, layout, &path));
        adopted.await.unwrap_or(false)
    }

    /// Bytes of the object that are in the cache.
    pub fn contains(&self, object: &Object) -> u64 {
        self.shard(&object.location).bytes_of(object)
    }

    /// Whether ranges of an object are in the cache now, so that no origin is asked for them.
    pub fn has(&self, object: &Object, ranges: &[Range<u64>]) -> bool {
        let Ok(layout) = Layout::of(object, self.block_bytes) else {
            return false;
        };
        let ranges = ranges.iter().filter(|range| !range.is_empty());
        let blocks =
            ranges.flat_map(|range| layout.block_of(range.start)..=layout.block_of(range.end - 1));
        self.shard(&object.location).has(object, blocks)
    }

    /// Takes all of that location out of the cache, and returns how many bytes that were. Waits for the disk.
    pub fn evict(&self, location: &str) -> u64 {
        self.shard(location).evict(location)
    }

    /// The process' shards.
    pub fn stats(&self) -> Vec<ShardStats> {
        self.owned().map(|shard| shard.stats()).collect()
    }

    /// Counts from 0 again.
    pub fn reset_stats(&self) {
        for shard in self.owned() {
            shard.counters.reset();
        }
    }

    /// Makes durable what the cache has, which otherwise happens within a second or so. Waits for the disk.
    pub fn sync(&self) {
        for shard in self.owned() {
            shard.commit();
        }
    }

    pub(crate) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    pub(crate) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn shard(&self, location: &str) -> &Arc<Shard> {
        &self.shards[shard_of(location) as usize]
    }

    fn owned(&self) -> impl Iterator<Item = &Arc<Shard>> {
        let shards = self.owned.iter();
        shards.filter_map(|shard| self.shards.get(*shard as usize))
    }
}

/// Waits for the disk: what the cache has is made durable.
impl Drop for Cache {
    fn drop(&mut self) {
        for shard in self.owned() {
            shard.close();
        }
    }
}

/// All shards; the owned ones are opened at the same time.
fn open_shards(setup: &Setup, owned: &[u32]) -> Vec<Arc<Shard>> {
    thread::scope(|scope| {
        let opening: Vec<_> = (0..SHARDS)
            .map(|number| {
                let open = move || Shard::open(number, setup);
                owned.contains(&number).then(|| scope.spawn(open))
            })
            .collect();
        (0..)
            .zip(opening)
            .map(
                |(number, opening)| match opening.map(|thread| thread.join()) {
                    Some(Ok(shard)) => shard,
                    Some(Err(_)) => Shard::without(number, setup, "opening it panicked"),
                    None => Shard::without(number, setup, "another process has it"),
                },
            )
            .collect()
    })
}
