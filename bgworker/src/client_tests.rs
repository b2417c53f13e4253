//! A client before an I/O worker that has a disk cache, both in this process. One thread is the main thread of both, and
//! looks all the time. There is no store: what isn't in the cache can't be had.

use super::*;
use crate::io::IoConfig;
use crate::service::{Config, Kind, Service};
use crate::store::Settings;
use pg_lake_plan::message::{CachedObject, Priority};
use pg_lake_plan::store::{BLOCK_BYTES, Protocol, checksum};
use pg_lake_ring::Layout;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use tempfile::{NamedTempFile, TempDir};

const LIMIT: Duration = Duration::from_secs(60);
const LOCATION: &str = "s3://lake/1.parquet";
const WORKER: u32 = 1;
const LAYOUT: Layout = Layout {
    procs: 8,
    workers: 2,
    streams: 32,
    ring_bytes: 16 << 10,
};

#[derive(Clone)]
#[repr(C, align(4096))]
#[allow(dead_code)] // only its bytes matter
struct Page([u8; 4096]);

struct Rig {
    region: Region,
    client: Arc<Client>,
    stopping: Arc<AtomicBool>,
    main: Option<JoinHandle<()>>,
    cache: TempDir,
}

impl Rig {
    #[expect(unsafe_code, reason = "formats a region")]
    fn start() -> Rig {
        let size = LAYOUT.size().expect("a good layout");
        let pages = vec![Page([0; 4096]); size.div_ceil(4096)].into_boxed_slice();
        let base = Box::leak(pages).as_mut_ptr().cast::<u8>();
        // SAFETY: the bytes are ours alone, zeroed, aligned, and never freed.
        let region = unsafe { Region::init(base, size, &LAYOUT) }.expect("a region");
        let engine = region.worker(0).expect("the engine's slot");
        engine.start(std::process::id(), 0);
        let client = Arc::new(Client::new(region, engine, 0, |_| ()));
        let cache = tempfile::tempdir().expect("a directory");
        let config = config(cache.path().to_owned());
        let stopping = Arc::new(AtomicBool::new(false));
        let main = thread::spawn({
            let (client, stopping) = (client.clone(), stopping.clone());
            move || {
                let service = Service::start(region, config, |_| ()).expect("a service");
                while !stopping.load(Ordering::Relaxed) {
                    service.serve();
                    client.on_wake();
                    thread::sleep(Duration::from_millis(1));
                }
                service.stop(Duration::from_secs(5));
            }
        });
        Rig {
            region,
            client,
            stopping,
            main: Some(main),
            cache,
        }
    }

    async fn ask(&self, request: Request) -> Reply {
        let call = self.client.call(WORKER, &[], request, &[], |_, _| ());
        let reply = tokio::time::timeout(LIMIT, call).await;
        reply.expect("in time").expect("a reply")
    }

    /// Puts the object into the disk cache.
    async fn adopt(&self, bytes: &[u8]) {
        // It waits for the worker, which adopting doesn't.
        assert_eq!(self.ask(Request::Ping).await, Reply::Pong);
        let file = NamedTempFile::new().expect("a file");
        fs::write(file.path(), bytes).expect("written");
        let request = Request::Adopt {
            object: CachedObject {
                location: LOCATION.into(),
                size: bytes.len() as u64,
                checksums: checksums(bytes),
            },
            path: file.path().to_string_lossy().into_owned(),
        };
        assert_eq!(self.ask(request).await, Reply::Adopted(true));
    }

    /// The bytes of the ranges are compared.
    async fn fetch(&self, bytes: &[u8], ranges: &[(u64, u64)], places: bool) {
        let stores = [store()];
        let fetch = self.client.fetch(&stores, request(bytes, ranges, places));
        let fetched = tokio::time::timeout(LIMIT, fetch).await.expect("in time");
        let (parts, fetched) = fetched.expect("fetched");
        let wanted: Vec<&[u8]> = ranges
            .iter()
            .map(|(start, end)| &bytes[*start as usize..*end as usize])
            .collect();
        assert!(parts == wanted, "wrong bytes in {ranges:?}");
        let from_cache = wanted.iter().map(|part| part.len() as u64).sum();
        let from_store = 0;
        assert_eq!(
            fetched,
            Fetched {
                from_cache,
                from_store
            }
        );
    }

    /// Bytes that came through rings.
    fn bytes_of_rings(&self) -> u64 {
        let worker = self.region.worker(WORKER).expect("the worker's slot");
        worker.counters().bytes_out.load(Ordering::Relaxed)
    }

    async fn corrupt_blocks(&self) -> u64 {
        match self.ask(Request::CacheStats { reset: false }).await {
            Reply::CacheStats(shards) => shards.iter().map(|shard| shard.corrupt_blocks).sum(),
            other => panic!("{other:?}"),
        }
    }

    /// The one file that has the blocks.
    fn segment(&self) -> PathBuf {
        let shard = pg_lake_cache::shard_of(LOCATION);
        let directory = self.cache.path().join(format!("shard-{shard:02}"));
        directory.join("segment-00000000")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(main) = self.main.take() {
            let _ = main.join();
        }
    }
}

fn config(cache_directory: PathBuf) -> Config {
    Config {
        slot: WORKER,
        kind: Kind::Io,
        threads: 2,
        memory: 256 << 20,
        memory_cache: 0,
        queue: crate::QueueConfig::default(),
        io: IoConfig {
            stores: Settings {
                credentials_file: None,
                timeout: Duration::from_secs(1),
                connections: 1,
                bandwidth: None,
            },
            cache_directory,
            cache_size: 1 << 30,
        },
        spill_directory: std::env::temp_dir(),
        pid: std::process::id(),
        proc: 1,
    }
}

/// Nobody listens there.
fn store() -> Store {
    Store {
        protocol: Protocol::S3,
        bucket: "lake".into(),
        prefix: String::new(),
        account: None,
        region: Some("us-east-1".into()),
        endpoint: Some("http://127.0.0.1:1".into()),
        credential: None,
        conditional_put: true,
    }
}

fn object() -> Vec<u8> {
    (0..3 * BLOCK_BYTES + 70_000)
        .map(|n| (n % 251) as u8)
        .collect()
}

fn checksums(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(BLOCK_BYTES as usize).map(checksum).collect()
}

fn request(bytes: &[u8], ranges: &[(u64, u64)], places: bool) -> Fetch {
    Fetch {
        location: LOCATION.into(),
        size: bytes.len() as u64,
        checksums: checksums(bytes),
        ranges: ranges.to_vec(),
        priority: Priority::Interactive,
        scan: true,
        places,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_is_read_from_its_file() {
    let rig = Rig::start();
    let bytes = object();
    let size = bytes.len() as u64;
    rig.adopt(&bytes).await;
    let several = [(5, 5), (7, 2 * BLOCK_BYTES + 9), (size - 1, size)];
    let before = rig.bytes_of_rings();
    rig.fetch(&bytes, &[(0, size)], true).await;
    rig.fetch(&bytes, &several, true).await;
    assert!(rig.bytes_of_rings() - before < 10_000);
    let before = rig.bytes_of_rings();
    rig.fetch(&bytes, &[(0, size)], false).await;
    rig.fetch(&bytes, &several, false).await;
    assert!(rig.bytes_of_rings() - before > size);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_hears_of_a_damaged_block() {
    let rig = Rig::start();
    let bytes = object();
    rig.adopt(&bytes).await;
    let segment = OpenOptions::new().write(true).open(rig.segment());
    let segment = segment.expect("the segment");
    segment.write_all_at(b"torn", 10).expect("torn");
    // Other blocks are right.
    let second = [(BLOCK_BYTES, 2 * BLOCK_BYTES)];
    rig.fetch(&bytes, &second, true).await;
    assert_eq!(rig.corrupt_blocks().await, 0);
    let damaged = tokio::spawn({
        let (client, request) = (rig.client.clone(), request(&bytes, &[(0, 100)], true));
        async move { client.fetch(&[store()], request).await }
    });
    let deadline = Instant::now() + LIMIT;
    while rig.corrupt_blocks().await == 0 {
        assert!(Instant::now() < deadline, "nobody has told the owner");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The store that it is fetched from isn't there.
    damaged.abort();
    assert!(!matches!(damaged.await, Ok(Ok(_))));
    assert_eq!(rig.corrupt_blocks().await, 1);
    rig.fetch(&bytes, &second, true).await;
}
