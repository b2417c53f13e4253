//! One request for a block, whatever happens to those who want it.

use crate::support::*;
use pg_lake_cache::{Admission, Cache, Error, Read};
use std::sync::Arc;
use tokio::task::JoinHandle;

type Reading = JoinHandle<Result<Read, Error<Refused>>>;

/// A reader of all of the object, in a task of its own.
fn reader(thing: &Thing, cache: &Arc<Cache>) -> Reading {
    let (object, store, cache) = (thing.object.clone(), thing.store.clone(), cache.clone());
    tokio::spawn(async move {
        let whole = 0..object.size;
        cache
            .read(&object, &[whole], Admission::Normal, store)
            .await
    })
}

/// Lets tasks come as far as they can: the test's runtime has one thread.
async fn others() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_readers_of_a_cold_object_fetch_it_once() {
    let place = place(400 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 200 * BLOCK + 9);
    let readers: Vec<Reading> = (0..16).map(|_| reader(&thing, &cache)).collect();
    for reader in readers {
        let read = within(reader).await.unwrap().unwrap();
        assert!(read.parts[0] == *thing.bytes);
    }
    assert_eq!(thing.store.bytes_asked(), thing.object.size);
    assert_eq!(stats(&cache).bytes_from_store, thing.object.size);
}

#[tokio::test]
async fn a_reader_that_goes_away_leaves_the_fetch_to_the_others() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 5 * BLOCK);
    thing.hold();
    let leader = reader(&thing, &cache);
    thing.store.requested(1).await;
    let follower = reader(&thing, &cache);
    others().await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    thing.let_go();
    let read = within(follower).await.unwrap().unwrap();
    assert!(read.parts[0] == *thing.bytes);
    assert_eq!(thing.store.bytes_asked(), thing.object.size);
}

#[tokio::test]
async fn what_nobody_wants_any_more_is_not_asked_for() {
    let place = place(1024 * BLOCK);
    let cache = place.open();
    // Ten requests, of which eight are under way.
    let thing = thing("a", 10 * 51 * BLOCK);
    thing.hold();
    let leader = reader(&thing, &cache);
    thing.store.requested(8).await;
    // Somebody else wants a block of the last one.
    let last = 10 * 51 * BLOCK - 1..10 * 51 * BLOCK;
    let (object, store, other) = (thing.object.clone(), thing.store.clone(), cache.clone());
    let range = last.clone();
    let follower = tokio::spawn(async move {
        other
            .read(&object, &[range], Admission::Normal, store)
            .await
    });
    others().await;
    leader.abort();
    assert!(leader.await.is_err());
    thing.let_go();
    let read = within(follower).await.unwrap().unwrap();
    assert!(read.parts[0] == *thing.slice(&last));
    let asked = thing.store.asked();
    assert_eq!(asked.len(), 9, "{asked:?}");
    assert_eq!(asked[8], 10 * 51 * BLOCK - BLOCK..10 * 51 * BLOCK);
    assert!(thing.read_all(&cache).await.parts[0] == *thing.bytes);
}

#[tokio::test]
async fn an_error_is_shared_and_not_kept() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 3 * BLOCK);
    thing.hold();
    thing.store.script(&[Act::Fail]);
    let first = reader(&thing, &cache);
    thing.store.requested(1).await;
    let second = reader(&thing, &cache);
    others().await;
    thing.let_go();
    for reader in [first, second] {
        let error = within(reader).await.unwrap().unwrap_err();
        assert_eq!(error, Error::Origin(Refused(1)));
    }
    assert_eq!(thing.read_all(&cache).await.from_origin, 3 * BLOCK);
    assert_eq!(thing.store.asked().len(), 2);
}

#[tokio::test]
async fn an_error_of_one_request_keeps_the_blocks_of_the_others() {
    let place = place(1024 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 2 * 51 * BLOCK);
    thing.store.script(&[Act::Fail]);
    let whole = 0..thing.object.size;
    let read = thing.try_read(&cache, &[whole], Admission::Normal).await;
    assert_eq!(read.unwrap_err(), Error::Origin(Refused(1)));
    until(|| cache.contains(&thing.object) == 51 * BLOCK).await;
    let read = thing.read_all(&cache).await;
    assert_eq!(
        (read.from_cache, read.from_origin),
        (51 * BLOCK, 51 * BLOCK)
    );
}

#[tokio::test]
async fn a_panic_of_the_leader_is_the_leaders_only() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 3 * BLOCK);
    thing.hold();
    thing.store.script(&[Act::Panic]);
    let leader = reader(&thing, &cache);
    thing.store.requested(1).await;
    let follower = reader(&thing, &cache);
    others().await;
    thing.let_go();
    assert_eq!(within(leader).await.unwrap().unwrap_err(), Error::Aborted);
    let read = within(follower).await.unwrap().unwrap();
    assert!(read.parts[0] == *thing.bytes);
    assert_eq!(stats(&cache).in_flight, 0);
}

#[tokio::test]
async fn wrong_bytes_are_fetched_once_more() {
    let place = place(64 * BLOCK);
    for act in [Act::Damage, Act::Short] {
        let cache = place.open();
        let thing = thing(&format!("{act:?}"), 3 * BLOCK);
        thing.store.script(&[act]);
        thing.keep(&cache).await;
        let block = match act {
            Act::Short => 2 * BLOCK..3 * BLOCK,
            _ => 0..BLOCK,
        };
        let asked = thing.store.asked();
        assert_eq!(asked.len(), 2);
        assert!(asked.contains(&(0..3 * BLOCK)) && asked.contains(&block));
        assert_eq!(thing.read_all(&cache).await.from_origin, 0);
    }
}

#[tokio::test]
async fn bytes_that_stay_wrong_are_an_error() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 3 * BLOCK);
    thing.store.script(&[Act::Damage, Act::Damage]);
    let range = BLOCK + 5..BLOCK + 6;
    let read = thing.try_read(&cache, &[range], Admission::Normal).await;
    let corrupt = Error::Corrupt {
        location: thing.object.location.clone(),
        offset: BLOCK,
    };
    assert_eq!(read.unwrap_err(), corrupt);
    assert_eq!(thing.store.asked().len(), 2);
    assert_eq!(cache.contains(&thing.object), 0);
    thing.read_all(&cache).await;
}

#[tokio::test]
async fn who_wants_it_kept_prevails() {
    let place = place(64 * BLOCK);
    let cache = place.open();
    let thing = thing("a", 2 * BLOCK);
    thing.hold();
    let (object, store, other) = (thing.object.clone(), thing.store.clone(), cache.clone());
    let whole = 0..thing.object.size;
    let bypass = tokio::spawn(async move {
        other
            .read(&object, &[whole], Admission::Bypass, store)
            .await
    });
    thing.store.requested(1).await;
    let normal = reader(&thing, &cache);
    others().await;
    thing.let_go();
    within(bypass).await.unwrap().unwrap();
    within(normal).await.unwrap().unwrap();
    until(|| cache.contains(&thing.object) == thing.object.size).await;
    assert_eq!(thing.store.asked().len(), 1);
}
