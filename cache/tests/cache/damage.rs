//! What happens to the cache's files costs time, never a wrong byte, and never a panic.

use crate::support::*;
use pg_lake_cache::SHARDS;
use proptest::prelude::*;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A closed cache that has the object.
fn closed(thing: &Thing) -> Place {
    let place = place(64 * BLOCK);
    runtime().block_on(async {
        let cache = place.open();
        thing.keep(&cache).await;
    });
    place
}

fn overwrite(path: &std::path::Path, bytes: &[u8], offset: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_is_dropped_and_fetched_again() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 6 * BLOCK);
    thing.keep(&cache).await;
    // Torn in the second piece of each of three slots.
    let slot = BLOCK.next_multiple_of(4096);
    for n in [1, 2, 4] {
        overwrite(&place.segments()[0], b"torn", n * slot + 65 * KIB);
    }
    // Who doesn't read that piece needn't care.
    let read = thing.read(&cache, BLOCK..BLOCK + 100).await;
    assert_eq!(read.from_origin, 0);
    let read = thing.read_all(&cache).await;
    assert_eq!((read.from_cache, read.from_origin), (3 * BLOCK, 3 * BLOCK));
    assert_eq!(stats(&cache).corrupt_blocks, 3);
    until(|| cache.contains(&thing.object) == thing.object.size).await;
    assert_eq!(thing.read_all(&cache).await.from_origin, 0);
    // A small read finds damage as well.
    overwrite(&place.segments()[0], b"torn", 10);
    let damaged = thing.read(&cache, 0..thing.object.size).await;
    assert_eq!(damaged.from_origin, BLOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_readers_of_a_damaged_block_fetch_it_once() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = Arc::new(thing("a", 2 * BLOCK));
    thing.keep(&cache).await;
    for path in place.segments() {
        overwrite(&path, b"torn", 0);
    }
    let readers: Vec<_> = (0..16)
        .map(|_| {
            let (thing, cache) = (thing.clone(), cache.clone());
            tokio::spawn(async move { thing.read(&cache, 0..BLOCK).await })
        })
        .collect();
    for reader in readers {
        within(reader).await.unwrap();
    }
    assert_eq!(stats(&cache).corrupt_blocks, 1);
    assert_eq!(thing.store.bytes_asked(), 3 * BLOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_used_before_gives_no_old_bytes() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let old = thing("a", 3 * BLOCK);
    old.keep(&cache).await;
    let mut others = [thing("b", 3 * BLOCK), thing("c", 2 * BLOCK)];
    for other in &mut others {
        other.object.location = old.object.location.clone();
        assert_eq!(other.read_all(&cache).await.from_cache, 0);
        other.keep(&cache).await;
        assert_eq!(other.read_all(&cache).await.from_origin, 0);
    }
    assert_eq!(cache.contains(&old.object), 0);
    assert_eq!(stats(&cache).blocks, 2);
}

#[test]
fn lost_segments_are_misses() {
    let thing = thing("a", 6 * BLOCK);
    for truncated in [false, true] {
        let place = closed(&thing);
        let segment = place.segments().remove(0);
        let blocks_left = if truncated {
            let file = OpenOptions::new().write(true).open(&segment).unwrap();
            file.set_len(BLOCK.next_multiple_of(4096) * 2 + 10).unwrap();
            2
        } else {
            fs::remove_file(&segment).unwrap();
            0
        };
        runtime().block_on(async {
            let cache = place.open();
            assert_eq!(cache.contains(&thing.object), blocks_left * BLOCK);
            assert_eq!(stats(&cache).corrupt_blocks, 6 - blocks_left);
            assert_eq!(thing.read_all(&cache).await.from_cache, blocks_left * BLOCK);
            until(|| cache.contains(&thing.object) == thing.object.size).await;
        });
        let cache = place.open();
        assert_eq!(stats(&cache).corrupt_blocks, 0, "they are forgotten");
        assert_eq!(cache.contains(&thing.object), thing.object.size);
    }
}

#[test]
fn files_that_the_index_does_not_know_are_removed() {
    let thing = thing("a", 3 * BLOCK);
    let place = closed(&thing);
    fs::write(place.shard().join("segment-00000077"), "x").unwrap();
    // As if blocks had been written behind the known ones before a crash.
    let known = place.segments().remove(0);
    overwrite(&known, &[1; 1 << 20], 40 * BLOCK);
    let cache = place.open();
    assert_eq!(place.segments(), [known]);
    assert!(place.bytes_on_disk() <= stats(&cache).bytes);
    assert_eq!(cache.contains(&thing.object), 3 * BLOCK);
}

#[test]
fn another_block_size_begins_anew() {
    let thing = thing("a", 3 * BLOCK);
    let place = closed(&thing);
    let cache = place.open_with(64 * BLOCK * u64::from(SHARDS), 2 * BLOCK);
    assert_eq!((stats(&cache).blocks, stats(&cache).off), (0, None));
    assert!(place.segments().is_empty());
    let larger = thing_with_blocks("a", 3 * BLOCK, 2 * BLOCK);
    runtime().block_on(larger.keep(&cache));
}

#[test]
fn an_index_that_is_none_begins_anew() {
    let thing = thing("a", 3 * BLOCK);
    let contents: [&[u8]; 4] = [b"", b"x", b"no database", &[0; 1 << 20]];
    for content in contents {
        let place = closed(&thing);
        fs::write(place.index(), content).unwrap();
        let cache = place.open();
        assert_eq!((stats(&cache).blocks, stats(&cache).off), (0, None));
        assert!(place.segments().is_empty());
        runtime().block_on(thing.keep(&cache));
        drop(cache);
        assert_eq!(place.open().contains(&thing.object), 3 * BLOCK);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The index with some bytes changed, or cut off, or both.
    #[test]
    fn a_damaged_index_gives_no_wrong_bytes(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1..200usize), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (a, b) = (thing("a", 5 * BLOCK + 3), thing("b", 3 * BLOCK));
        let place = closed(&a);
        let runtime = runtime();
        runtime.block_on(async { b.keep(&place.open()).await });
        let mut index = fs::read(place.index()).unwrap();
        // Most of the file is free pages: the places are those that have something.
        let used: Vec<usize> = (0..index.len()).filter(|at| index[*at] != 0).collect();
        for (at, byte, len) in hits {
            let at = *at.get(&used);
            let end = (at + len).min(index.len());
            index[at..end].fill(byte);
        }
        if let Some(cut) = cut {
            index.truncate(cut.index(index.len()));
        }
        fs::write(place.index(), index).unwrap();
        let cache = place.open();
        runtime.block_on(async {
            for thing in [&a, &b, &a, &b] {
                thing.read_all(&cache).await;
            }
            until(|| stats(&cache).in_flight == 0).await;
        });
        cache.sync();
        prop_assert_eq!(stats(&cache).off, None);
        drop(cache);
        let cache = place.open();
        runtime.block_on(async {
            a.read_all(&cache).await;
            b.read_all(&cache).await;
        });
        prop_assert_eq!(stats(&cache).off, None);
    }
}
