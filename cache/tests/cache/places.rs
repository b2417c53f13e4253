//! Blocks that are read where the cache said that they are: the right bytes, or none.

use crate::support::*;
use pg_lake_cache::{Admission, Cache, Places};
use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

fn places(cache: &Cache, thing: &Thing, ranges: &[Range<u64>]) -> Option<Places> {
    cache.places(&thing.object, ranges, Admission::Normal)
}

fn one(range: Range<u64>) -> [Range<u64>; 1] {
    [range]
}

fn all_places(cache: &Cache, thing: &Thing) -> Places {
    places(cache, thing, &one(0..thing.object.size)).expect("it is in the cache")
}

/// Whether the bytes could be read. They are compared.
fn reads(places: &Places, thing: &Thing, ranges: &[Range<u64>]) -> bool {
    let Some(parts) = places.read(thing.object.size, BLOCK, ranges, || true) else {
        return false;
    };
    assert_eq!(parts.len(), ranges.len());
    for (part, range) in parts.iter().zip(ranges) {
        assert!(part == thing.slice(range), "wrong bytes in {range:?}");
    }
    true
}

fn reads_all(places: &Places, thing: &Thing) -> bool {
    reads(places, thing, &one(0..thing.object.size))
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_read_where_their_blocks_are() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 5 * BLOCK + 70 * KIB);
    let size = thing.object.size;
    thing.keep(&cache).await;
    for ranges in [
        vec![],
        one(5..5).to_vec(),
        one(0..size).to_vec(),
        vec![0..1, 1..2, 63 * KIB..65 * KIB],
        vec![64 * KIB..128 * KIB, 128 * KIB..BLOCK],
        vec![BLOCK - 1..BLOCK + 1, 7..3 * BLOCK + 5, size - 1..size],
        vec![size - 70 * KIB..size, 2 * BLOCK..3 * BLOCK, size..size],
    ] {
        let places = places(&cache, &thing, &ranges).expect("it is in the cache");
        assert!(reads(&places, &thing, &ranges), "{ranges:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_counts_as_a_hit() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 3 * BLOCK);
    thing.keep(&cache).await;
    cache.reset_stats();
    places(&cache, &thing, &[1..BLOCK + 1, 2 * BLOCK..3 * BLOCK]).expect("places");
    let stats = stats(&cache);
    assert_eq!((stats.hits, stats.bytes_from_cache), (3, 2 * BLOCK));
    assert_eq!((stats.misses, stats.bytes_from_store), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_all_there_has_no_places() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 3 * BLOCK);
    thing.read(&cache, 0..BLOCK).await;
    until(|| cache.contains(&thing.object) == BLOCK).await;
    cache.reset_stats();
    assert!(places(&cache, &thing, &one(0..BLOCK)).is_some());
    assert_eq!(places(&cache, &thing, &[0..1, BLOCK..BLOCK + 1]), None);
    // Not of the object.
    assert_eq!(places(&cache, &thing, &one(0..thing.object.size + 1)), None);
    let backwards = Range { start: 2, end: 1 };
    assert_eq!(places(&cache, &thing, &one(backwards)), None);
    let mut other = thing.object.clone();
    other.checksums = other.checksums.iter().map(|sum| sum ^ 1).collect();
    let admission = Admission::Normal;
    assert_eq!(cache.places(&other, &one(0..BLOCK), admission), None);
    assert_eq!(stats(&cache).hits, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_evicted_meanwhile_is_not_read() {
    let place = place(10 * BLOCK);
    let cache = place.open();
    let (gone, stays) = (thing("gone", 4 * BLOCK), thing("stays", BLOCK));
    gone.keep(&cache).await;
    stays.keep(&cache).await;
    let known = all_places(&cache, &gone);
    cache.evict(&gone.object.location);
    assert!(!reads_all(&known, &gone));
    assert!(reads_all(&all_places(&cache, &stays), &stays));
    // Its slots are other blocks'.
    let next = thing("next", 4 * BLOCK);
    next.keep(&cache).await;
    assert!(!reads_all(&known, &gone));
    assert!(reads_all(&all_places(&cache, &next), &next));
    assert_eq!(gone.read_all(&cache).await.from_cache, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_segment_took_along_is_not_read() {
    let place = place(10 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 2 * BLOCK);
    thing.keep(&cache).await;
    let known = all_places(&cache, &thing);
    cache.evict(&thing.object.location);
    until(|| place.segments().is_empty()).await;
    assert!(!reads_all(&known, &thing));
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_change_hands_under_a_reader() {
    let place = place(6 * BLOCK);
    let cache = place.open();
    let thing = Arc::new(thing("a", 3 * BLOCK));
    for round in 0..50 {
        thing.keep(&cache).await;
        let known = all_places(&cache, &thing);
        let reader = tokio::task::spawn_blocking({
            let thing = thing.clone();
            move || reads_all(&known, &thing)
        });
        cache.evict(&thing.object.location);
        let other = self::thing(&format!("b-{round}"), 3 * BLOCK);
        other.read_all(&cache).await;
        // It may have read all of it or not: no byte was wrong.
        within(reader).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_may_be_another_process_by_then() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 3 * BLOCK);
    thing.keep(&cache).await;
    let known = all_places(&cache, &thing);
    drop(cache);
    assert!(reads_all(&known, &thing), "nobody owns it");
    let cache = place.open();
    assert!(reads_all(&known, &thing));
    assert_eq!(all_places(&cache, &thing), known);
    cache.evict(&thing.object.location);
    let other = self::thing("b", 3 * BLOCK);
    other.keep(&cache).await;
    assert!(!reads_all(&known, &thing));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_reader_finds_is_fetched_again() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 3 * BLOCK);
    thing.keep(&cache).await;
    let known = all_places(&cache, &thing);
    let damaged = known.blocks[1].offset + 65 * KIB;
    let file = OpenOptions::new()
        .write(true)
        .open(&known.files[0])
        .unwrap();
    file.write_all_at(b"torn", damaged).unwrap();
    assert!(!reads_all(&known, &thing));
    // Other pieces are right.
    assert!(reads(&known, &thing, &one(0..BLOCK + 64 * KIB)));
    // The owner is asked for the bytes then.
    let read = thing.read_all(&cache).await;
    assert_eq!((read.from_cache, read.from_origin), (2 * BLOCK, BLOCK));
    assert_eq!(stats(&cache).corrupt_blocks, 1);
    thing.keep(&cache).await;
    assert!(reads_all(&all_places(&cache, &thing), &thing));
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_make_no_sense_give_no_bytes() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 2 * BLOCK);
    thing.keep(&cache).await;
    let right = all_places(&cache, &thing);
    let size = thing.object.size;
    let whole = 0..size;
    let read = |places: &Places| places.read(size, BLOCK, std::slice::from_ref(&whole), || true);
    assert!(read(&right).is_some());
    let wrong = |change: &dyn Fn(&mut Places)| {
        let mut places = right.clone();
        change(&mut places);
        read(&places)
    };
    assert_eq!(wrong(&|p| p.files[0] = place.path().join("missing")), None);
    assert_eq!(wrong(&|p| p.blocks[1].file = 7), None);
    assert_eq!(wrong(&|p| p.blocks[1].offset = u64::MAX), None);
    assert_eq!(wrong(&|p| p.blocks[0].sums = Arc::default()), None);
    assert_eq!(wrong(&|p| p.blocks.truncate(1)), None);
    assert_eq!(wrong(&|p| p.files.clear()), None);
    assert_eq!(right.read(size, 0, &one(0..1), || true), None);
    let beyond = one(size..size + 1);
    assert_eq!(right.read(size, BLOCK, &beyond, || true), None);
    assert_eq!(right.read(size, BLOCK, &one(0..size), || false), None);
    let segment = &right.files[0];
    fs::remove_file(segment).unwrap();
    assert_eq!(read(&right), None);
}
