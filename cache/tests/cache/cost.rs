//! What a hit costs beside reading and checking its bytes, and opening a shard with many blocks. Run it with
//! `cargo test -p pg_lake_cache -- --ignored --nocapture cost`; `cargo xtask bench remote.hit` runs the former,
//! and takes over its JSON lines.

use crate::support::*;
use pg_lake_cache::Admission;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 5;
const READS: u32 = 20_000;

/// The time of one call, in the best of some rounds.
fn best(mut round: impl FnMut() -> Duration) -> Duration {
    let rounds = (0..ROUNDS).map(|_| round() / READS);
    rounds.min().unwrap()
}

/// `piece`: what is read and checked for a read of `len` bytes. Returns the times with and without the cache.
fn measure(block_bytes: u64, piece: u64, len: u64) -> (Duration, Duration) {
    let pieces = 128;
    let place = place(64 << 20);
    let cache = place.open_with(1 << 30, block_bytes);
    let thing = thing_with_blocks("a", pieces * piece, block_bytes);
    let offset = |n: u32| u64::from(n) % pieces * piece;
    let runtime = runtime();
    runtime.block_on(thing.keep(&cache));
    let hit = best(|| {
        runtime.block_on(async {
            let started = Instant::now();
            for n in 0..READS {
                let range = offset(n)..offset(n) + len;
                let store = thing.store.clone();
                let read = cache
                    .read(&thing.object, &[range], Admission::Normal, store)
                    .await;
                assert_eq!(black_box(read.unwrap()).from_origin, 0);
            }
            started.elapsed()
        })
    });
    let file = File::open(&place.segments()[0]).unwrap();
    let bare = best(|| {
        let started = Instant::now();
        for n in 0..READS {
            let mut buffer = vec![0; piece as usize];
            file.read_exact_at(&mut buffer, offset(n)).unwrap();
            black_box(crc32fast::hash(&buffer));
        }
        started.elapsed()
    });
    (hit, bare)
}

#[test]
#[ignore = "measures time"]
fn hit_cost() {
    for (block_bytes, piece, len) in [(4 * KIB, 4 * KIB, 4 * KIB), (1 << 20, 64 * KIB, 8 * KIB)] {
        let (hit, bare) = measure(block_bytes, piece, len);
        let bookkeeping = hit.saturating_sub(bare);
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        println!(
            "{{\"bench\":\"remote.hit\",\"bytes\":{len},\"hit_us\":{:.4},\"pread_and_crc_us\":{:.4},\"bookkeeping_us\":{:.4}}}",
            us(hit),
            us(bare),
            us(bookkeeping)
        );
        assert!(bookkeeping <= Duration::from_micros(5));
    }
}

#[test]
#[ignore = "measures time"]
fn open_cost() {
    let (block_bytes, blocks) = (4 * KIB, 65_536);
    let place = place(2 * blocks * block_bytes);
    let open = || place.open_with(2 * 16 * blocks * block_bytes, block_bytes);
    let thing = thing_with_blocks("a", blocks * block_bytes, block_bytes);
    let file = place.path().join("file");
    std::fs::write(&file, &thing.bytes).unwrap();
    let cache = open();
    let started = Instant::now();
    assert!(runtime().block_on(cache.adopt(&thing.object, &file)));
    println!("{blocks} blocks are adopted in {:?}", started.elapsed());
    let started = Instant::now();
    drop(cache);
    println!("closed in {:?}", started.elapsed());
    let started = Instant::now();
    let cache = open();
    println!("opened in {:?}", started.elapsed());
    assert_eq!(stats(&cache).blocks, blocks);
    let started = Instant::now();
    cache.set_limit(0);
    println!("emptied in {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(10));
}
