//! Objects, an origin that does what a test tells it, and a cache in a directory of its own.

use async_trait::async_trait;
use bytes::Bytes;
use pg_lake_cache::{
    Admission, Cache, Config, Error, Object, Origin, Read, SHARDS, ShardStats, shard_of,
};
use std::collections::VecDeque;
use std::fs;
use std::future::Future;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Semaphore;

pub const KIB: u64 = 1 << 10;
/// What tests use, so that blocks have several pieces and the last one is short.
pub const BLOCK: u64 = 160 * KIB;

/// What the origin does at its next requests; afterwards it answers.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Answer,
    /// One byte of the first block is wrong.
    Damage,
    Short,
    Fail,
    Panic,
}

pub struct Store {
    bytes: Bytes,
    script: Mutex<VecDeque<Act>>,
    asked: Mutex<Vec<Range<u64>>>,
    /// A request needs a permit to be answered, which it uses up.
    pub answers: Semaphore,
    /// Gets a permit for each request.
    pub requests: Semaphore,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub usize);

#[async_trait]
impl Origin for Store {
    type Error = Refused;

    async fn get(&self, range: Range<u64>) -> Result<Bytes, Refused> {
        let asked = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(range.clone());
            asked.len()
        };
        let act = self.script.lock().unwrap().pop_front();
        self.requests.add_permits(1);
        self.answers.acquire().await.unwrap().forget();
        let bytes = self.bytes.slice(range.start as usize..range.end as usize);
        match act.unwrap_or(Act::Answer) {
            Act::Answer => Ok(bytes),
            Act::Damage => {
                let mut damaged = bytes.to_vec();
                damaged[100] ^= 1;
                Ok(damaged.into())
            }
            Act::Short => Ok(bytes.slice(..bytes.len() - 1)),
            Act::Fail => Err(Refused(asked)),
            Act::Panic => panic!("the origin panics, as the test wants"),
        }
    }
}

impl Store {
    pub fn asked(&self) -> Vec<Range<u64>> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort_by_key(|range| range.start);
        asked
    }

    pub fn bytes_asked(&self) -> u64 {
        self.asked()
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    pub fn script(&self, acts: &[Act]) {
        self.script.lock().unwrap().extend(acts);
    }

    /// Waits until so many requests have come that nobody has waited for.
    pub async fn requested(&self, requests: u32) {
        within(self.requests.acquire_many(requests))
            .await
            .unwrap()
            .forget();
    }
}

pub struct Thing {
    pub object: Object,
    pub bytes: Bytes,
    pub store: Arc<Store>,
}

/// An object of that name in shard 0, with bytes that depend on name and position.
pub fn thing(name: &str, size: u64) -> Thing {
    thing_with_blocks(name, size, BLOCK)
}

pub fn thing_with_blocks(name: &str, size: u64, block_bytes: u64) -> Thing {
    let location: Arc<str> = (0..)
        .map(|n| format!("s3://bucket/{name}-{n}.parquet"))
        .find(|location| shard_of(location) == 0)
        .unwrap()
        .into();
    let mut word = u64::from(crc(name.as_bytes())) + 1;
    let bytes: Vec<u8> = (0..size)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word as u8
        })
        .collect();
    let bytes = Bytes::from(bytes);
    let store = Store {
        bytes: bytes.clone(),
        script: Mutex::default(),
        asked: Mutex::default(),
        answers: Semaphore::new(1 << 20),
        requests: Semaphore::new(0),
    };
    Thing {
        object: Object {
            location,
            size,
            checksums: bytes.chunks(block_bytes as usize).map(crc).collect(),
        },
        bytes,
        store: Arc::new(store),
    }
}

fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

impl Thing {
    pub fn slice(&self, range: &Range<u64>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// From now on the origin answers only what it is permitted to.
    pub fn hold(&self) {
        self.store.answers.forget_permits(usize::MAX);
    }

    pub fn let_go(&self) {
        self.store.answers.add_permits(1 << 20);
    }

    /// A range for which the cache's bytes are compared.
    pub async fn read(&self, cache: &Arc<Cache>, range: Range<u64>) -> Read {
        self.read_as(cache, &[range], Admission::Normal).await
    }

    pub async fn read_all(&self, cache: &Arc<Cache>) -> Read {
        self.read(cache, 0..self.object.size).await
    }

    pub async fn read_as(
        &self,
        cache: &Arc<Cache>,
        ranges: &[Range<u64>],
        admission: Admission,
    ) -> Read {
        let read = self.try_read(cache, ranges, admission).await.unwrap();
        assert_eq!(read.parts.len(), ranges.len());
        for (part, range) in read.parts.iter().zip(ranges) {
            assert!(part == self.slice(range), "wrong bytes in {range:?}");
        }
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        assert_eq!(read.from_cache + read.from_origin, bytes);
        read
    }

    pub async fn try_read(
        &self,
        cache: &Arc<Cache>,
        ranges: &[Range<u64>],
        admission: Admission,
    ) -> Result<Read, Error<Refused>> {
        within(cache.read(&self.object, ranges, admission, self.store.clone())).await
    }

    /// Reads it until all of it is in the cache: a fetch that is under way may have begun when it wasn't to be kept.
    pub async fn keep(&self, cache: &Arc<Cache>) {
        self.read_all(cache).await;
        within(async {
            while cache.contains(&self.object) < self.object.size {
                let whole = 0..self.object.size;
                self.read_as(cache, &[whole], Admission::Scan).await;
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// A cache's directory, and how it is opened.
pub struct Place {
    directory: TempDir,
    limit: u64,
}

/// A cache that owns shard 0 and has so many bytes for it.
pub fn place(shard_limit: u64) -> Place {
    Place {
        directory: tempfile::tempdir().unwrap(),
        limit: shard_limit * u64::from(SHARDS),
    }
}

impl Place {
    pub fn open(&self) -> Arc<Cache> {
        self.open_with(self.limit, BLOCK)
    }

    pub fn open_with(&self, limit: u64, block_bytes: u64) -> Arc<Cache> {
        Arc::new(Cache::open(Config {
            directory: self.directory.path().to_owned(),
            owned: vec![0],
            limit,
            block_bytes,
        }))
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn shard(&self) -> PathBuf {
        self.directory.path().join("shard-00")
    }

    pub fn index(&self) -> PathBuf {
        self.shard().join("index.redb")
    }

    pub fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = fs::read_dir(self.shard())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name() != self.index().file_name())
            .collect();
        paths.sort();
        paths
    }

    /// What the segments take of the disk.
    pub fn bytes_on_disk(&self) -> u64 {
        let blocks = |path: &PathBuf| fs::metadata(path).map_or(0, |file| file.blocks());
        self.segments().iter().map(|path| blocks(path) * 512).sum()
    }
}

pub fn stats(cache: &Cache) -> ShardStats {
    let mut stats = cache.stats();
    assert_eq!(stats.len(), 1);
    stats.remove(0)
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, future).await.expect("in time")
}

pub async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
