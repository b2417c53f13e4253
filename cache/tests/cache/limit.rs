//! The limit is kept, and what was used again stays.

use crate::support::*;
use pg_lake_cache::{Admission, Cache, SHARDS};
use std::sync::Arc;

fn set_limit(cache: &Cache, shard_limit: u64) {
    cache.set_limit(shard_limit * u64::from(SHARDS));
}

/// Reads objects of one block until the cache has let some go.
async fn fill(cache: &Arc<Cache>, name: &str, blocks: u64, admission: Admission) {
    for n in 0..blocks {
        let thing = thing(&format!("{name}-{n}"), BLOCK);
        let whole = 0..BLOCK;
        thing.read_as(cache, &[whole], admission).await;
        until(|| cache.contains(&thing.object) == BLOCK).await;
        let stats = stats(cache);
        assert!(stats.bytes <= stats.capacity);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_keeps_the_limit() {
    let place = place(10 * BLOCK);
    let cache = place.open();
    for n in 0..8 {
        let thing = thing(&format!("large-{n}"), 5 * BLOCK + 1);
        thing.read_all(&cache).await;
        until(|| stats(&cache).in_flight == 0).await;
        let stats = stats(&cache);
        assert!(stats.bytes <= 10 * BLOCK, "{stats:?}");
    }
    fill(&cache, "small", 30, Admission::Normal).await;
    let stats = stats(&cache);
    assert!(stats.evictions > 0);
    assert!(stats.bytes > 5 * BLOCK, "{stats:?}");
    assert!(place.bytes_on_disk() <= 10 * BLOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_takes_what_it_has() {
    let place = place(10 * BLOCK);
    let cache = place.open();
    for n in 0..100 {
        thing(&format!("tiny-{n}"), 1000).keep(&cache).await;
    }
    let stats = stats(&cache);
    assert_eq!(
        (stats.blocks, stats.bytes, stats.evictions),
        (100, 100 * 4096, 0)
    );
    assert!(place.bytes_on_disk() <= 100 * 4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_leaves_what_was_used_again() {
    for admission in [Admission::Scan, Admission::Normal] {
        let place = place(50 * BLOCK);
        let cache = place.open();
        let hot = thing("hot", 30 * BLOCK);
        hot.keep(&cache).await;
        hot.read_all(&cache).await;
        fill(&cache, "scan", 120, admission).await;
        let left = cache.contains(&hot.object);
        assert_eq!(left, 30 * BLOCK, "after {admission:?}");
        assert!(stats(&cache).evictions >= 100);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_do_not_count_as_use() {
    let place = place(20 * BLOCK);
    let cache = place.open();
    let scanned = thing("scanned", 10 * BLOCK);
    scanned.keep(&cache).await;
    for _ in 0..3 {
        let whole = 0..scanned.object.size;
        let read = scanned.read_as(&cache, &[whole], Admission::Scan).await;
        assert_eq!(read.from_origin, 0);
    }
    fill(&cache, "other", 20, Admission::Normal).await;
    assert_eq!(cache.contains(&scanned.object), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_again_stays_after_a_restart() {
    let place = place(50 * BLOCK);
    let hot = thing("hot", 30 * BLOCK);
    let cache = place.open();
    hot.keep(&cache).await;
    hot.read_all(&cache).await;
    fill(&cache, "before", 60, Admission::Scan).await;
    drop(cache);
    let cache = place.open();
    fill(&cache, "after", 60, Admission::Scan).await;
    assert!(cache.contains(&hot.object) >= 25 * BLOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_is_changed_live() {
    let place = place(40 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 30 * BLOCK);
    thing.keep(&cache).await;
    set_limit(&cache, 10 * BLOCK);
    let smaller = stats(&cache);
    assert_eq!(smaller.capacity, 10 * BLOCK);
    assert_eq!((smaller.bytes, smaller.blocks), (10 * BLOCK, 10));
    assert!(place.bytes_on_disk() <= 10 * BLOCK);
    thing.read_all(&cache).await;
    until(|| stats(&cache).in_flight == 0).await;
    assert!(stats(&cache).bytes <= 10 * BLOCK);

    set_limit(&cache, 0);
    // What the reader has fetched may still be on its way to the disk.
    until(|| (stats(&cache).bytes, stats(&cache).blocks) == (0, 0)).await;
    until(|| place.segments().is_empty()).await;
    let read = thing.read_all(&cache).await;
    assert_eq!(read.from_cache, 0);

    set_limit(&cache, 40 * BLOCK);
    thing.keep(&cache).await;
    assert_eq!(thing.read_all(&cache).await.from_origin, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_limit_is_changed_under_readers() {
    let place = place(40 * BLOCK);
    let cache = place.open();
    let readers: Vec<_> = (0..4)
        .map(|n| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let thing = thing(&format!("{n}"), 20 * BLOCK);
                for round in 0..30u64 {
                    let start = round * 7 % 18 * BLOCK;
                    thing.read(&cache, start + 5..start + BLOCK + 6).await;
                }
            })
        })
        .collect();
    for limit in [30, 5, 0, 40, 1, 10].into_iter().cycle().take(60) {
        let cache = cache.clone();
        let set = tokio::task::spawn_blocking(move || set_limit(&cache, limit * BLOCK));
        within(set).await.unwrap();
    }
    for reader in readers {
        within(reader).await.unwrap();
    }
    set_limit(&cache, 10 * BLOCK);
    until(|| stats(&cache).bytes <= 10 * BLOCK).await;
    assert!(place.bytes_on_disk() <= 10 * BLOCK);
    assert_eq!(stats(&cache).corrupt_blocks, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_limit_at_start_is_kept() {
    let place = place(40 * BLOCK);
    let thing = thing("a", 30 * BLOCK);
    let cache = place.open();
    thing.keep(&cache).await;
    drop(cache);
    let cache = place.open_with(10 * BLOCK * u64::from(SHARDS), BLOCK);
    assert_eq!(stats(&cache).bytes, 10 * BLOCK);
    assert!(place.bytes_on_disk() <= 10 * BLOCK);
    thing.read_all(&cache).await;
}
