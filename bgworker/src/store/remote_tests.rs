//! Objects of a store that breaks off, loses answers, or has another writer.

use super::faulty::{self, Fault, Faulty, Op, Tags};
use super::probe::probe;
use super::registry::Settings;
use super::remote::Remote;
use bytes::Bytes;
use futures::FutureExt;
use pg_lake_plan::message::{ErrorCode, Priority};
use pg_lake_plan::store::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const KEY: &str = "t/data/1.parquet";
const LOCATION: &str = "s3://lake/t/data/1.parquet";

async fn with_object(content: &[u8]) -> (Arc<Faulty>, Remote) {
    let faulty = Arc::new(Faulty::default());
    faulty.write(KEY, content).await;
    let remote = faulty.remote(faulty::store(), &faulty::settings());
    (faulty, remote)
}

fn hasty() -> Settings {
    Settings {
        timeout: Duration::from_millis(300),
        ..faulty::settings()
    }
}

fn unconditional() -> Store {
    Store {
        conditional_put: false,
        ..faulty::store()
    }
}

#[tokio::test]
async fn what_was_damaged_on_its_way_is_received_again() {
    let content = Bytes::from_static(b"0123456789");
    let (faulty, remote) = with_object(&content).await;
    faulty.set_tags(Tags::Digests);
    faulty.fail(Op::Get, &[Fault::Flip]);
    assert_eq!(remote.get_all(LOCATION).await, Ok(content.clone()));
    assert_eq!(faulty.seen(Op::Get), 2);
    let seen = remote.look(LOCATION).await.map(|seen| seen.map(|it| it.0));
    assert_eq!(seen, Ok(Some(content.clone())));
    assert_eq!(faulty.seen(Op::Get), 3);
    // Tags that are no digests say nothing: what comes twice is what is there, and they aren't asked any more.
    faulty.set_tags(Tags::Opaque);
    for received in [2, 2, 2, 1] {
        let before = faulty.seen(Op::Get);
        assert_eq!(remote.get_all(LOCATION).await, Ok(content.clone()));
        assert_eq!(faulty.seen(Op::Get) - before, received);
    }
}

#[tokio::test]
async fn what_is_always_damaged_is_an_error() {
    let (faulty, remote) = with_object(b"0123456789").await;
    faulty.set_tags(Tags::Opaque);
    let always = [Fault::Flip, Fault::FlipFirst].repeat(3);
    faulty.fail(Op::Get, &always);
    let error = remote.get_all(LOCATION).await.expect_err("damaged");
    assert_eq!(error.code, ErrorCode::StoreUnavailable);
    assert_eq!(faulty.seen(Op::Get), 5);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_resumed() {
    let (faulty, remote) = with_object(b"0123456789").await;
    let breaks = [
        Fault::Reset,
        Fault::BreakAfter(3),
        Fault::EndAfter(2),
        Fault::StallAfter(1),
    ];
    faulty.fail(Op::Get, &breaks);
    let read = remote.get(LOCATION, 1..9, Priority::Background).await;
    assert_eq!(read, Ok(Bytes::from_static(b"12345678")));
    assert_eq!(faulty.seen(Op::Get), 5);
    faulty.fail(Op::Get, &[Fault::EndAfter(4)]);
    let read = remote.get_all(LOCATION).await;
    assert_eq!(read, Ok(Bytes::from_static(b"0123456789")));
    assert_eq!(faulty.seen(Op::Get), 7);
    let nothing = remote.get(LOCATION, 4..4, Priority::Ahead).await;
    assert_eq!(nothing, Ok(Bytes::new()));
    assert_eq!(faulty.seen(Op::Get), 7);
}

#[tokio::test]
async fn an_object_that_is_too_short_is_corrupted() {
    let (faulty, remote) = with_object(b"0123456789").await;
    let error = remote.get(LOCATION, 5..11, Priority::Interactive).await;
    let error = error.expect_err("too short");
    assert_eq!(error.code, ErrorCode::DataCorrupted);
    assert!(error.message.contains(LOCATION), "{error}");
    assert_eq!(faulty.seen(Op::Get), 1);
}

#[tokio::test]
async fn missing_and_denied_are_told_at_once() {
    let (faulty, remote) = with_object(b"x").await;
    let missing = remote.get_all("s3://lake/t/2").await.expect_err("missing");
    assert_eq!(missing.code, ErrorCode::MissingFile);
    assert_eq!(remote.size("s3://lake/t/2").await, Ok(None));
    assert_eq!(remote.size(LOCATION).await, Ok(Some(1)));
    faulty.fail(Op::Get, &[Fault::Denied]);
    let denied = remote.get_all(LOCATION).await.expect_err("denied");
    assert_eq!(denied.code, ErrorCode::StoreDenied);
    assert!(denied.hint.is_some_and(|hint| hint.contains("s3://lake")));
    assert_eq!(faulty.seen(Op::Get), 2);
    let directory = remote
        .size("s3://lake/t/data/")
        .await
        .expect_err("no object's name");
    assert_eq!(directory.code, ErrorCode::Internal);
    let elsewhere = remote
        .get_all("s3://other/t/2")
        .await
        .expect_err("another bucket");
    assert_eq!(elsewhere.code, ErrorCode::Internal);
}

#[tokio::test]
async fn a_store_that_stays_away_is_given_up_in_time() {
    for fault in [Fault::Reset, Fault::Hang, Fault::StallAfter(0)] {
        let faulty = Arc::new(Faulty::default());
        faulty.write(KEY, b"0123456789").await;
        faulty.fail(Op::Get, &[fault; 100]);
        let remote = faulty.remote(faulty::store(), &hasty());
        let start = Instant::now();
        let error = remote.get(LOCATION, 0..10, Priority::Interactive).await;
        let error = error.expect_err("given up");
        assert_eq!(error.code, ErrorCode::StoreUnavailable);
        assert!(
            error
                .hint
                .is_some_and(|hint| hint.contains("lake.store_timeout"))
        );
        assert!(start.elapsed() < hasty().timeout * 3);
        assert!(faulty.seen(Op::Get) > 1);
    }
}

#[tokio::test]
async fn a_lost_answer_to_a_write_is_found_to_be_a_success() {
    let faulty = Arc::new(Faulty::default());
    let remote = faulty.remote(faulty::store(), &faulty::settings());
    faulty.fail(Op::Put, &[Fault::LostReply]);
    let content = Bytes::from_static(b"content");
    assert_eq!(remote.put(LOCATION, content.clone()).await, Ok(()));
    assert_eq!(faulty.seen(Op::Put), 2);
    assert_eq!(faulty.content(KEY).await, Some(content.clone()));
    // Without conditions it is just written again.
    let remote = faulty.remote(unconditional(), &faulty::settings());
    faulty.fail(Op::Put, &[Fault::LostReply]);
    assert_eq!(remote.put(LOCATION, content.clone()).await, Ok(()));
    assert_eq!(faulty.seen(Op::Get), 1);
    assert_eq!(faulty.content(KEY).await, Some(content));
}

#[tokio::test]
async fn what_another_writer_wrote_stays() {
    let (faulty, remote) = with_object(b"theirs!").await;
    for content in ["ours", "ours too"] {
        let error = remote
            .put(LOCATION, content.into())
            .await
            .expect_err("taken");
        assert_eq!(error.code, ErrorCode::NameTaken);
        assert!(error.message.ends_with("already exists"), "{error}");
        assert!(error.hint.is_some());
    }
    assert_eq!(
        faulty.content(KEY).await,
        Some(Bytes::from_static(b"theirs!"))
    );
    assert_eq!(remote.replace(LOCATION, "ours".into()).await, Ok(()));
    assert_eq!(faulty.content(KEY).await, Some(Bytes::from_static(b"ours")));
}

#[tokio::test]
async fn what_was_damaged_on_its_way_is_written_again() {
    for store in [faulty::store(), unconditional()] {
        let faulty = Arc::new(Faulty::with_tags(Tags::Digests));
        let remote = faulty.remote(store, &faulty::settings());
        // The look at it fails, too.
        faulty.fail(Op::Put, &[Fault::Flip]);
        faulty.fail(Op::Get, &[Fault::Reset]);
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
        assert_eq!(remote.put(LOCATION, first.clone()).await, Ok(()));
        assert_eq!(faulty.seen(Op::Put), 2);
        assert_eq!(faulty.content(KEY).await, Some(first));
        faulty.fail(Op::Put, &[Fault::Flip, Fault::LostReply]);
        assert_eq!(remote.replace(LOCATION, second.clone()).await, Ok(()));
        assert_eq!(faulty.seen(Op::Put), 5);
        assert_eq!(faulty.content(KEY).await, Some(second));
    }
}

#[tokio::test]
async fn a_conflict_with_nothing_there_is_tried_again() {
    let faulty = Arc::new(Faulty::default());
    let remote = faulty.remote(faulty::store(), &faulty::settings());
    faulty.fail(Op::Put, &[Fault::Conflict, Fault::Conflict]);
    assert_eq!(remote.put(LOCATION, "content".into()).await, Ok(()));
    assert_eq!(faulty.seen(Op::Put), 3);
}

#[tokio::test]
async fn an_empty_object_is_an_object() {
    let faulty = Arc::new(Faulty::default());
    let remote = faulty.remote(faulty::store(), &faulty::settings());
    faulty.fail(Op::Put, &[Fault::LostReply]);
    assert_eq!(remote.put(LOCATION, Bytes::new()).await, Ok(()));
    assert_eq!(remote.get_all(LOCATION).await, Ok(Bytes::new()));
}

#[tokio::test]
async fn waiting_for_a_place_does_not_count() {
    let (faulty, _) = with_object(b"0123456789").await;
    let settings = Settings {
        connections: 1,
        ..hasty()
    };
    let remote = Arc::new(faulty.remote(faulty::store(), &settings));
    // Together they take longer than the limit.
    faulty.fail(Op::Head, &[Fault::Slow(Duration::from_millis(60)); 8]);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let remote = remote.clone();
            tokio::spawn(async move { remote.size(LOCATION).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), Ok(Some(10)));
    }
}

#[tokio::test]
async fn a_dropped_request_gives_its_place_back() {
    let (faulty, _) = with_object(b"0123456789").await;
    let settings = Settings {
        connections: 1,
        ..faulty::settings()
    };
    let remote = faulty.remote(faulty::store(), &settings);
    faulty.fail(Op::Get, &[Fault::Hang]);
    let hanging = remote.get(LOCATION, 0..1, Priority::Interactive);
    assert!(hanging.now_or_never().is_none());
    let read = remote.get(LOCATION, 0..1, Priority::Background).await;
    assert_eq!(read, Ok(Bytes::from_static(b"0")));
}

/// Requests are served on any thread.
#[tokio::test]
async fn operations_can_move_between_threads() {
    fn sendable<T: Send>(_: T) {}
    let (_, remote) = with_object(b"x").await;
    let cancel = CancellationToken::new();
    sendable(remote.get(LOCATION, 0..1, Priority::Ahead));
    sendable(remote.list("s3://lake"));
    sendable(remote.copy_from(&remote, LOCATION, LOCATION, 1, &cancel));
    sendable(probe(&remote));
}
