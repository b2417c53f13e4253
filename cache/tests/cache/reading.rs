//! What is read is right, wherever it comes from, and comes from the cache the next time.

use crate::support::*;
use pg_lake_cache::{Admission, Cache, Config, Error, Object, shard_of};
use proptest::prelude::*;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn the_second_read_is_a_hit_also_after_a_restart() {
    let place = place(64 * BLOCK);
    let thing = thing("a", 10 * BLOCK + 77);
    let cache = place.open();
    let cold = thing.read_all(&cache).await;
    assert_eq!((cold.from_cache, cold.from_origin), (0, thing.object.size));
    until(|| cache.contains(&thing.object) == thing.object.size).await;
    let warm = thing.read_all(&cache).await;
    assert_eq!((warm.from_cache, warm.from_origin), (thing.object.size, 0));

    let before = stats(&cache);
    assert_eq!((before.hits, before.misses, before.blocks), (11, 11, 11));
    assert_eq!(before.bytes_from_cache, thing.object.size);
    assert_eq!(before.bytes_from_store, thing.object.size);
    assert!(before.latency_p50_us <= before.latency_p99_us);
    assert_eq!(
        (before.in_flight, before.corrupt_blocks, before.off),
        (0, 0, None)
    );
    drop(cache);

    let cache = place.open();
    let after = stats(&cache);
    assert_eq!((after.blocks, after.bytes), (11, before.bytes));
    assert_eq!(cache.contains(&thing.object), thing.object.size);
    let warm = thing.read_all(&cache).await;
    assert_eq!(warm.from_origin, 0);
    assert_eq!(thing.store.bytes_asked(), thing.object.size);
    cache.reset_stats();
    assert_eq!(stats(&cache).hits, 0);
    assert_eq!(stats(&cache).blocks, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbouring_misses_are_one_request_of_eight_mebibytes_at_most() {
    let place = place(512 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 120 * BLOCK);
    let (from, to) = (4 * BLOCK, 5 * BLOCK);
    let block = from..to;
    thing.read(&cache, from + 10..to - 10).await;
    assert_eq!(thing.store.asked(), [block]);
    until(|| cache.contains(&thing.object) == BLOCK).await;
    thing.read_all(&cache).await;
    let run = 51 * BLOCK;
    assert_eq!(
        thing.store.asked(),
        [
            0..from,
            from..to,
            to..to + run,
            to + run..to + 2 * run,
            to + 2 * run..120 * BLOCK
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_has_at_most_eight_requests_under_way() {
    let place = place(1024 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 10 * 51 * BLOCK);
    thing.hold();
    let whole = 0..thing.object.size;
    let read = tokio::spawn({
        let (cache, object, store) = (cache.clone(), thing.object.clone(), thing.store.clone());
        async move {
            cache
                .read(&object, &[whole], Admission::Normal, store)
                .await
        }
    });
    thing.store.requested(8).await;
    assert_eq!(stats(&cache).in_flight, 8);
    for _ in 0..2 {
        thing.store.answers.add_permits(1);
        thing.store.requested(1).await;
    }
    assert_eq!(thing.store.asked().len(), 10);
    thing.let_go();
    let read = within(read).await.unwrap().unwrap();
    assert!(read.parts[0] == *thing.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 2 * BLOCK);
    for (start, end) in [(0, 2 * BLOCK + 1), (5, 4), (u64::MAX, u64::MAX)] {
        let read = thing
            .try_read(&cache, &[0..1, start..end], Admission::Normal)
            .await;
        assert!(matches!(read, Err(Error::Invalid(_))));
    }
    let wrong = Object {
        size: 2 * BLOCK + 1,
        ..thing.object.clone()
    };
    let first = 0..1;
    let read = cache
        .read(&wrong, &[first], Admission::Normal, thing.store.clone())
        .await;
    assert!(matches!(read, Err(Error::Invalid(_))));
    assert!(!cache.adopt(&wrong, place.path()).await);
    assert!(thing.store.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_owns_is_read_and_not_kept() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let mut thing = thing("a", 2 * BLOCK);
    thing.object.location = (0..)
        .map(|n| Arc::from(format!("s3://bucket/{n}")))
        .find(|location| shard_of(location) == 9)
        .unwrap();
    for _ in 0..2 {
        assert_eq!(thing.read_all(&cache).await.from_cache, 0);
    }
    assert_eq!(cache.contains(&thing.object), 0);
    assert!(!place.path().join("shard-09").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn bypass_uses_what_is_there_and_keeps_nothing() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 4 * BLOCK);
    thing.read(&cache, 0..BLOCK).await;
    until(|| cache.contains(&thing.object) == BLOCK).await;
    let whole = 0..thing.object.size;
    let read = thing.read_as(&cache, &[whole], Admission::Bypass).await;
    assert_eq!(read.from_cache, BLOCK);
    until(|| stats(&cache).in_flight == 0).await;
    assert_eq!(cache.contains(&thing.object), BLOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_read_into_the_cache_whole() {
    let place = place(1024 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 3 * 51 * BLOCK + 5);
    thing.read(&cache, 51 * BLOCK..51 * BLOCK + 1).await;
    until(|| cache.contains(&thing.object) == BLOCK).await;
    thing.hold();
    let filling = tokio::spawn({
        let (cache, object, store) = (cache.clone(), thing.object.clone(), thing.store.clone());
        async move { cache.fill(&object, store).await }
    });
    // All of them at once, without the block that is there.
    thing.store.requested(4).await;
    thing.let_go();
    within(filling).await.unwrap().unwrap();
    until(|| cache.contains(&thing.object) == thing.object.size).await;
    assert_eq!(thing.store.bytes_asked(), thing.object.size);
    assert_eq!(thing.read_all(&cache).await.from_origin, 0);

    let other = crate::support::thing("b", 2 * BLOCK);
    other.store.script(&[Act::Fail]);
    let filled = within(cache.fill(&other.object, other.store.clone())).await;
    assert_eq!(filled, Err(Error::Origin(Refused(1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_written_file_is_adopted() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 10 * BLOCK + 5);
    let file = place.path().join("file");
    std::fs::write(&file, &thing.bytes).unwrap();
    assert!(within(cache.adopt(&thing.object, &file)).await);
    assert!(file.exists());
    assert_eq!(thing.read_all(&cache).await.from_origin, 0);
    assert!(within(cache.adopt(&thing.object, &file)).await, "again");

    let other = crate::support::thing("b", 10 * BLOCK + 5);
    assert!(
        !within(cache.adopt(&other.object, &file)).await,
        "other bytes"
    );
    let longer = crate::support::thing("a", 10 * BLOCK + 6);
    assert!(!within(cache.adopt(&longer.object, &file)).await);
    let large = crate::support::thing("c", 65 * BLOCK);
    std::fs::write(&file, &large.bytes).unwrap();
    assert!(!within(cache.adopt(&large.object, &file)).await, "no room");
    assert_eq!(cache.contains(&thing.object), thing.object.size);
    assert!(!within(cache.adopt(&other.object, &place.path().join("none"))).await);
    assert!(thing.store.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_evicted_by_name() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let (a, b) = (thing("a", 5 * BLOCK), thing("b", 100));
    a.keep(&cache).await;
    b.keep(&cache).await;
    assert_eq!(cache.evict(&a.object.location), 5 * BLOCK);
    assert_eq!(cache.evict(&a.object.location), 0);
    assert_eq!(
        (cache.contains(&a.object), cache.contains(&b.object)),
        (0, 100)
    );
    assert_eq!(stats(&cache).bytes, 4096);
    assert!(place.bytes_on_disk() <= 4096);
    drop(cache);
    let cache = place.open();
    assert_eq!(
        (cache.contains(&a.object), cache.contains(&b.object)),
        (0, 100)
    );
}

#[test]
fn a_shard_that_cannot_be_opened_is_off() {
    let place = place(64 * BLOCK);
    std::fs::write(place.shard(), "in the way").unwrap();
    let thing = thing("a", BLOCK);
    runtime().block_on(async {
        let cache = place.open();
        assert!(stats(&cache).off.is_some());
        for _ in 0..2 {
            assert_eq!(thing.read_all(&cache).await.from_origin, BLOCK);
        }
        cache.set_limit(0);
        assert_eq!(cache.evict(&thing.object.location), 0);
    });
}

#[test]
fn a_shard_that_another_one_has_open_is_left_alone() {
    let place = place(64 * BLOCK);
    let thing = thing("a", 3 * BLOCK);
    runtime().block_on(async {
        let cache = place.open();
        thing.keep(&cache).await;
        let second = place.open();
        assert!(stats(&second).off.is_some());
        assert_eq!(thing.read_all(&second).await.from_cache, 0);
        drop(second);
        assert_eq!(thing.read_all(&cache).await.from_origin, 0);
        drop(cache);
        assert_eq!(place.open().contains(&thing.object), 3 * BLOCK);
    });
}

#[test]
fn an_unknown_shard_is_not_owned() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(Config {
        directory: directory.path().to_owned(),
        owned: vec![3, 3, 99],
        limit: 1 << 30,
        block_bytes: BLOCK,
    });
    let shards: Vec<u32> = cache.stats().iter().map(|stats| stats.shard).collect();
    assert_eq!(shards, [3]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Against the object itself, with a cache that has room for half of it, that is opened again between some reads.
    #[test]
    fn any_ranges_are_right(
        size in 1..12 * BLOCK,
        reads in prop::collection::vec(
            (prop::collection::vec((0..1000u64, 0..1000u64, 0..4u64), 0..5), 0..3u8, any::<bool>()),
            1..12,
        ),
    ) {
        let place = place(size.div_ceil(2) + BLOCK);
        let thing = thing("model", size);
        let runtime = runtime();
        let mut cache = place.open();
        for (ranges, admission, reopen) in reads {
            let ranges: Vec<_> = ranges
                .iter()
                .map(|(start, len, near)| {
                    // Beginnings and ends near those of blocks are the interesting ones.
                    let start = (start * size / 1000 / BLOCK * BLOCK + near * 3).min(size);
                    let end = match near {
                        0 => start + len * size / 1000,
                        _ => (start + len * size / 1000) / BLOCK * BLOCK + near,
                    };
                    start..end.clamp(start, size)
                })
                .collect();
            let admission = match admission {
                0 => Admission::Normal,
                1 => Admission::Scan,
                _ => Admission::Bypass,
            };
            runtime.block_on(thing.read_as(&cache, &ranges, admission));
            let stats = stats(&cache);
            prop_assert!(stats.bytes <= stats.capacity);
            if reopen {
                drop(cache);
                cache = place.open();
            }
        }
    }
}
