//! Disks that fail, and an index that is lost.

use crate::disk::{Disk, LocalDisk};
use crate::{Admission, Cache, Config, Object, Origin, SHARDS, ShardStats, shard_of};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BLOCK: u64 = 100_000;

/// A disk that fails at what it is told to.
#[derive(Default)]
struct BadDisk {
    local: LocalDisk,
    full: AtomicBool,
    unreadable: AtomicBool,
    has_no_holes: AtomicBool,
    /// Writes don't come back.
    stuck: AtomicBool,
    /// What else happens during the next write.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    writes: AtomicU64,
}

impl Disk for BadDisk {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        while self.stuck.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(meanwhile) = crate::lock(&self.meanwhile).take() {
            meanwhile();
        }
        if self.full.load(Ordering::Relaxed) {
            // As a full disk does it: some bytes fit.
            self.local.write(file, &bytes[..4096], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.local.write(file, bytes, offset)
    }

    fn read(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.unreadable.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.local.read(file, buffer, offset)
    }

    fn read_now(&self, file: &File, buffer: &mut [u8], offset: u64) -> bool {
        !self.unreadable.load(Ordering::Relaxed) && self.local.read_now(file, buffer, offset)
    }

    fn discard(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        if self.has_no_holes.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.local.discard(file, range)
    }
}

struct Store(Bytes);

#[async_trait]
impl Origin for Store {
    type Error = String;

    async fn get(&self, range: Range<u64>) -> Result<Bytes, String> {
        Ok(self.0.slice(range.start as usize..range.end as usize))
    }
}

fn open(directory: &Path, blocks: u64, disk: &Arc<BadDisk>) -> Arc<Cache> {
    let config = Config {
        directory: directory.to_owned(),
        owned: vec![0],
        limit: blocks * BLOCK.next_multiple_of(4096) * u64::from(SHARDS),
        block_bytes: BLOCK,
    };
    Arc::new(Cache::open_on(config, disk.clone()))
}

fn object(name: &str, blocks: u64) -> (Object, Arc<Store>) {
    let bytes: Vec<u8> = (0..blocks * BLOCK)
        .map(|n| (n % 251) as u8 ^ name.as_bytes()[0])
        .collect();
    let location = (0..)
        .map(|n| format!("{name}{n}"))
        .find(|location| shard_of(location) == 0);
    let object = Object {
        location: location.expect("one of many").into(),
        size: bytes.len() as u64,
        checksums: bytes.chunks(BLOCK as usize).map(crc32fast::hash).collect(),
    };
    (object, Arc::new(Store(bytes.into())))
}

/// Reads all, compares it, waits until the writes are over, and returns how much was in the cache.
async fn read(cache: &Arc<Cache>, (object, store): &(Object, Arc<Store>)) -> u64 {
    let whole = 0..object.size;
    let read = cache
        .read(object, &[whole], Admission::Normal, store.clone())
        .await
        .expect("read");
    assert!(read.parts[0] == *store.0);
    let shard = cache.shard(&object.location);
    until(|| crate::lock(&shard.state).flights.len() == 0).await;
    read.from_cache
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, waiting).await.expect("in time");
}

fn stats(cache: &Cache) -> ShardStats {
    cache.stats().remove(0)
}

/// As if the pause after a failure were over.
fn end_pause(cache: &Cache, object: &Object) {
    let mut state = crate::lock(&cache.shard(&object.location).state);
    let failing = state.failing.as_mut().expect("a failure");
    failing.until = Instant::now();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_blocks_and_no_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(BadDisk::default());
    let cache = open(directory.path(), 20, &disk);
    let (a, b) = (object("a", 3), object("b", 8));
    assert_eq!(read(&cache, &a).await, 0);
    disk.full.store(true, Ordering::Relaxed);
    let writes = disk.writes.load(Ordering::Relaxed);
    assert_eq!(read(&cache, &b).await, 0);
    let full = stats(&cache);
    assert_eq!(
        (full.blocks, full.bytes),
        (3, 3 * BLOCK.next_multiple_of(4096))
    );
    assert!(full.off.is_some());
    assert_eq!(read(&cache, &b).await, 0);
    // The disk is left alone for a while, and what is there is used.
    assert_eq!(disk.writes.load(Ordering::Relaxed), writes + 1);
    assert_eq!(read(&cache, &a).await, 3 * BLOCK);

    disk.full.store(false, Ordering::Relaxed);
    end_pause(&cache, &b.0);
    assert_eq!(read(&cache, &b).await, 0);
    assert_eq!(read(&cache, &b).await, 8 * BLOCK);
    assert_eq!((stats(&cache).off, stats(&cache).blocks), (None, 11));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_known_what_needs_no_origin() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = open(directory.path(), 20, &Arc::new(BadDisk::default()));
    let (object, store) = object("a", 3);
    let first = [0..1, BLOCK - 1..BLOCK];
    assert!(!cache.has(&object, &first));
    let read = cache.read(&object, &first, Admission::Normal, store);
    read.await.expect("read");
    until(|| cache.has(&object, &first)).await;
    let has = |start: u64, end: u64| cache.has(&object, &[Range { start, end }]);
    assert!(has(0, BLOCK) && has(5, 5) && has(2 * BLOCK, 2 * BLOCK));
    assert!(!has(0, BLOCK + 1) && !has(2 * BLOCK, 3 * BLOCK) && !has(0, u64::MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_holds_up_no_request() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(BadDisk::default());
    let cache = open(directory.path(), 40, &disk);
    let (object, store) = object("a", 20);
    // Every second block has a request of its own.
    let ranges: Vec<Range<u64>> = (0..20)
        .step_by(2)
        .map(|block| block * BLOCK..(block + 1) * BLOCK)
        .collect();
    disk.stuck.store(true, Ordering::Relaxed);
    let reading = cache.read(&object, &ranges, Admission::Normal, store.clone());
    let read = tokio::time::timeout(Duration::from_secs(60), reading).await;
    disk.stuck.store(false, Ordering::Relaxed);
    let read = read.expect("in time").expect("read");
    assert_eq!(read.from_origin, 10 * BLOCK);
    let shard = cache.shard(&object.location);
    until(|| crate::lock(&shard.state).flights.len() == 0).await;
    assert_eq!(stats(&cache).blocks, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_cannot_be_created_costs_no_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(BadDisk::default());
    let cache = open(directory.path(), 20, &disk);
    std::fs::remove_dir_all(directory.path().join("shard-00")).expect("removed");
    let a = object("a", 3);
    assert_eq!(read(&cache, &a).await, 0);
    assert_eq!(read(&cache, &a).await, 0);
    assert!(stats(&cache).off.is_some());
    assert_eq!(stats(&cache).bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_comes_from_the_origin() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(BadDisk::default());
    let cache = open(directory.path(), 20, &disk);
    let a = object("a", 3);
    read(&cache, &a).await;
    disk.unreadable.store(true, Ordering::Relaxed);
    assert_eq!(read(&cache, &a).await, 0);
    assert_eq!(stats(&cache).corrupt_blocks, 3);
    disk.unreadable.store(false, Ordering::Relaxed);
    assert_eq!(read(&cache, &a).await, 3 * BLOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_is_kept_where_files_have_no_holes() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(BadDisk::default());
    disk.has_no_holes.store(true, Ordering::Relaxed);
    let cache = open(directory.path(), 10, &disk);
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        read(&cache, &object(name, 7)).await;
        let stats = stats(&cache);
        assert!(stats.bytes <= stats.capacity, "{stats:?}");
    }
    assert_eq!(stats(&cache).blocks, 10);
    drop(cache);

    let cache = open(directory.path(), 10, &disk);
    assert_eq!(stats(&cache).blocks, 10);
    read(&cache, &object("f", 7)).await;
    // Space comes back with whole segments only.
    cache.set_limit(5 * BLOCK.next_multiple_of(4096) * u64::from(SHARDS));
    let smaller = stats(&cache);
    assert!(smaller.bytes <= smaller.capacity, "{smaller:?}");
    let g = object("g", 4);
    read(&cache, &g).await;
    assert_eq!(read(&cache, &g).await, 4 * BLOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_lowered_during_a_write_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(BadDisk::default());
    let cache = open(directory.path(), 20, &disk);
    let other = cache.clone();
    *crate::lock(&disk.meanwhile) = Some(Box::new(move || other.set_limit(0)));
    read(&cache, &object("a", 3)).await;
    assert_eq!(disk.writes.load(Ordering::Relaxed), 1);
    assert_eq!((stats(&cache).bytes, stats(&cache).blocks), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_is_written_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(BadDisk::default());
    let cache = open(directory.path(), 20, &disk);
    let (a, b) = (object("a", 3), object("b", 2));
    read(&cache, &a).await;
    cache.sync();
    cache.shard(&a.0.location).break_index();
    read(&cache, &b).await;
    assert_eq!(read(&cache, &a).await, 3 * BLOCK);
    drop(cache);

    let cache = open(directory.path(), 20, &disk);
    assert_eq!(read(&cache, &a).await, 3 * BLOCK);
    assert_eq!(read(&cache, &b).await, 2 * BLOCK);
    assert_eq!(stats(&cache).corrupt_blocks, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_committed_without_being_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(BadDisk::default());
    let cache = open(directory.path(), 20, &disk);
    let a = object("a", 3);
    read(&cache, &a).await;
    let shard = cache.shard(&a.0.location);
    assert!(crate::lock(&shard.state).directory.has_changes());
    until(|| !crate::lock(&shard.state).directory.has_changes()).await;
}

#[test]
fn nothing_is_written_to_a_closed_cache() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(BadDisk::default());
    let cache = open(directory.path(), 20, &disk);
    let (object, store) = object("a", 1);
    let shard = cache.shard(&object.location).clone();
    drop(cache);
    let sums = crate::checksum::Sums::of(&store.0);
    assert!(!shard.keep(&object, 0, &store.0, sums, Admission::Normal));
    assert_eq!(disk.writes.load(Ordering::Relaxed), 0);
}
