//! Uploads that lose parts, answers, bits, or their backend.

use super::faulty::{self, Fault, Faulty, Op, Tags};
use super::remote::Remote;
use bytes::Bytes;
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::store::{Checksums, Store};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

const KEY: &str = "t/data/1.parquet";
const LOCATION: &str = "s3://lake/t/data/1.parquet";

/// Three parts.
const LARGE: usize = (20 << 20) + 5;

fn content(length: usize) -> Bytes {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn checksums(content: &[u8]) -> Vec<u32> {
    let mut sums = Checksums::default();
    sums.update(content);
    sums.finish()
}

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(content).expect("written");
    file
}

fn set_up() -> (Arc<Faulty>, Arc<Remote>) {
    set_up_with(Tags::default())
}

fn set_up_with(tags: Tags) -> (Arc<Faulty>, Arc<Remote>) {
    let faulty = Arc::new(Faulty::with_tags(tags));
    let remote = faulty.remote(faulty::store(), &faulty::settings());
    (faulty, Arc::new(remote))
}

async fn put(remote: &Remote, content: &[u8], size: usize) -> Result<Vec<u32>, WireError> {
    let file = file(content);
    let cancel = CancellationToken::new();
    remote
        .put_file(LOCATION, file.path(), size as u64, &cancel)
        .await
}

/// The abort is a task of its own.
async fn aborted(faulty: &Faulty) {
    for _ in 0..1000 {
        if faulty.uploads() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the upload is still there");
}

#[tokio::test]
async fn a_large_file_goes_in_parts() {
    let (faulty, remote) = set_up();
    faulty.fail(Op::Part, &[Fault::Reset, Fault::LostReply]);
    faulty.fail(Op::Begin, &[Fault::Reset]);
    let content = content(LARGE);
    assert_eq!(put(&remote, &content, LARGE).await, Ok(checksums(&content)));
    assert_eq!(faulty.seen(Op::Part), 5);
    assert_eq!(faulty.uploads(), 0);
    assert!(faulty.content(KEY).await == Some(content));
}

#[tokio::test]
async fn a_small_file_goes_at_once() {
    let (faulty, remote) = set_up();
    let content = content((1 << 20) + 1);
    let put_small = put(&remote, &content, content.len()).await;
    assert_eq!(put_small, Ok(checksums(&content)));
    assert_eq!((faulty.seen(Op::Put), faulty.seen(Op::Begin)), (1, 0));
    assert!(faulty.content(KEY).await == Some(content));
}

#[tokio::test]
async fn a_lost_answer_to_the_last_request_is_found_to_be_a_success() {
    let (faulty, remote) = set_up();
    faulty.fail(Op::Finish, &[Fault::LostReply]);
    let content = content(LARGE);
    assert!(put(&remote, &content, LARGE).await.is_ok());
    assert_eq!((faulty.seen(Op::Finish), faulty.seen(Op::Abort)), (2, 0));
    assert!(faulty.content(KEY).await == Some(content));
}

#[tokio::test]
async fn a_failed_upload_leaves_nothing() {
    for op in [Op::Part, Op::Finish] {
        let (faulty, remote) = set_up();
        faulty.fail(op, &[Fault::Denied]);
        let error = put(&remote, &content(LARGE), LARGE)
            .await
            .expect_err("denied");
        assert_eq!(error.code, ErrorCode::StoreDenied);
        assert!(error.message.contains(LOCATION), "{error}");
        aborted(&faulty).await;
        assert_eq!(faulty.content(KEY).await, None);
    }
    let (faulty, remote) = set_up();
    let short = put(&remote, &content(LARGE), LARGE + 1)
        .await
        .expect_err("short");
    assert_eq!(short.code, ErrorCode::DataCorrupted);
    aborted(&faulty).await;
}

#[tokio::test]
async fn a_cancelled_upload_leaves_nothing() {
    let (faulty, remote) = set_up();
    faulty.fail(Op::Part, &[Fault::Hang; 3]);
    let cancel = CancellationToken::new();
    let task = {
        let (remote, cancel) = (remote.clone(), cancel.clone());
        tokio::spawn(async move {
            let file = file(&content(LARGE));
            remote
                .put_file(LOCATION, file.path(), LARGE as u64, &cancel)
                .await
        })
    };
    while faulty.seen(Op::Part) == 0 {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    let error = task.await.expect("no panic").expect_err("cancelled");
    assert_eq!(error.code, ErrorCode::Cancelled);
    aborted(&faulty).await;
}

#[tokio::test]
async fn a_taken_name_is_not_overwritten() {
    let (faulty, remote) = set_up();
    faulty.write(KEY, b"theirs").await;
    let error = put(&remote, &content(LARGE), LARGE)
        .await
        .expect_err("taken");
    assert_eq!(error.code, ErrorCode::NameTaken);
    assert_eq!(faulty.seen(Op::Begin), 0);
    let cancel = CancellationToken::new();
    let error = remote
        .copy_from(&remote, "s3://lake/t/other", LOCATION, 6, &cancel)
        .await
        .expect_err("taken");
    assert_eq!(error.code, ErrorCode::NameTaken);
    assert_eq!(
        faulty.content(KEY).await,
        Some(Bytes::from_static(b"theirs"))
    );
}

#[tokio::test]
async fn a_store_copies_by_itself_if_it_can() {
    let (faulty, remote) = set_up();
    let content = content(LARGE);
    faulty.write(KEY, &content).await;
    let cancel = CancellationToken::new();
    let size = LARGE as u64;
    // Another tablespace of the same bucket.
    let store = Store {
        prefix: "u".into(),
        ..faulty::store()
    };
    let target = faulty.remote(store, &faulty::settings());
    let copy = |to: &'static str, size| target.copy_from(&remote, LOCATION, to, size, &cancel);
    faulty.fail(Op::Copy, &[Fault::LostReply]);
    assert_eq!(copy("s3://lake/u/2", size).await, Ok(None));
    assert_eq!(faulty.seen(Op::Get), 0);
    for (fault, to) in [
        (Fault::Unsupported, "s3://lake/u/3"),
        (Fault::Denied, "s3://lake/u/4"),
    ] {
        faulty.fail(Op::Copy, &[fault]);
        assert_eq!(copy(to, size).await, Ok(Some(checksums(&content))));
    }
    assert_eq!(faulty.seen(Op::Get), 6);
    for key in ["u/2", "u/3", "u/4"] {
        assert!(faulty.content(key).await.as_ref() == Some(&content));
    }
    let other = copy("s3://lake/u/5", size - 1).await;
    assert_eq!(
        other.expect_err("another size").code,
        ErrorCode::DataCorrupted
    );
    assert_eq!(faulty.content("u/5").await, None);
}

#[tokio::test]
async fn objects_go_from_store_to_store() {
    let (from, source) = set_up();
    let to = Arc::new(Faulty::default());
    let elsewhere = Store {
        region: Some("elsewhere".into()),
        ..faulty::store()
    };
    let target = to.remote(elsewhere, &faulty::settings());
    let content = content(LARGE);
    from.write("x", &content).await;
    from.fail(Op::Get, &[Fault::BreakAfter(1000)]);
    let cancel = CancellationToken::new();
    let copied = target
        .copy_from(&source, "s3://lake/x", LOCATION, LARGE as u64, &cancel)
        .await;
    assert_eq!(copied, Ok(Some(checksums(&content))));
    assert_eq!(to.seen(Op::Copy), 0);
    assert!(to.content(KEY).await == Some(content));
}

#[tokio::test]
async fn a_small_file_that_was_damaged_on_its_way_is_sent_again() {
    let (faulty, remote) = set_up_with(Tags::Digests);
    let content = content(1 << 20);
    faulty.fail(Op::Put, &[Fault::Flip, Fault::Flip]);
    let sums = put(&remote, &content, content.len()).await;
    assert_eq!(sums, Ok(checksums(&content)));
    assert!(faulty.content(KEY).await == Some(content));
    // Each time it was looked whether the tag is to be believed.
    assert_eq!((faulty.seen(Op::Put), faulty.seen(Op::Get)), (3, 2));
}

#[tokio::test]
async fn a_part_that_was_damaged_on_its_way_is_sent_again() {
    let (faulty, remote) = set_up_with(Tags::Digests);
    let content = content(LARGE);
    for flips in 1..=2 {
        faulty.fail(Op::Part, &[Fault::Flip; 2][..flips]);
        assert_eq!(put(&remote, &content, LARGE).await, Ok(checksums(&content)));
        assert!(faulty.content(KEY).await.as_ref() == Some(&content));
        let deleted = remote.delete(&[LOCATION.to_owned()]).await;
        assert_eq!(deleted, Ok(1));
    }
    assert_eq!(
        (faulty.seen(Op::Part), faulty.seen(Op::Get)),
        (3 + 1 + 3 + 2, 0)
    );
}

#[tokio::test]
async fn damage_without_end_is_an_error() {
    for (op, length) in [(Op::Put, 1000), (Op::Part, LARGE)] {
        for tags in [Tags::Digests, Tags::Opaque] {
            let (faulty, remote) = set_up_with(tags);
            faulty.fail(op, &[Fault::Flip; 1000]);
            let error = put(&remote, &content(length), length)
                .await
                .expect_err("damaged");
            assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error:?}");
            assert!(error.message.contains(LOCATION), "{error}");
            let detail = error.detail.unwrap_or_default();
            assert!(detail.contains("something else than was sent"), "{detail}");
            assert!(error.hint.is_some_and(|hint| hint.contains("proxies")));
            aborted(&faulty).await;
        }
    }
}

#[tokio::test]
async fn an_object_that_lacks_a_part_is_no_success() {
    for tags in [Tags::Numbers, Tags::Digests, Tags::Opaque] {
        let (faulty, remote) = set_up_with(tags);
        faulty.fail(Op::Finish, &[Fault::Flip]);
        let error = put(&remote, &content(LARGE), LARGE)
            .await
            .expect_err("a part is missing");
        assert_eq!(error.code, ErrorCode::StoreUnavailable, "{tags:?}");
    }
}

#[tokio::test]
async fn tags_that_are_no_digests_are_found_out_once() {
    let (faulty, remote) = set_up_with(Tags::Opaque);
    let small = content(1000);
    let mut gets = vec![];
    for location in ["s3://lake/t/1", "s3://lake/t/2"] {
        assert_eq!(remote.put(location, small.clone()).await, Ok(()));
        gets.push(faulty.seen(Op::Get));
    }
    assert_eq!((faulty.seen(Op::Put), gets), (2, vec![1, 1]));

    // A store that gets its first large file.
    let (faulty, remote) = set_up_with(Tags::Opaque);
    let large = content(LARGE);
    assert_eq!(put(&remote, &large, LARGE).await, Ok(checksums(&large)));
    assert!(faulty.content(KEY).await.as_ref() == Some(&large));
    let (parts, gets) = (faulty.seen(Op::Part), faulty.seen(Op::Get));
    assert!((4..=6).contains(&parts), "{parts}");
    assert_eq!(gets, 3);
    let (file, cancel) = (file(&large), CancellationToken::new());
    let next = remote
        .put_file("s3://lake/t/3", file.path(), LARGE as u64, &cancel)
        .await;
    assert_eq!(next, Ok(checksums(&large)));
    assert!(faulty.content("t/3").await == Some(large));
    assert_eq!(faulty.seen(Op::Part), parts + 3);
    assert_eq!(faulty.seen(Op::Get), gets);
}

#[tokio::test]
async fn tags_that_are_digests_no_more_are_found_out() {
    let (faulty, remote) = set_up_with(Tags::Digests);
    let large = content(LARGE);
    assert_eq!(put(&remote, &large, LARGE).await, Ok(checksums(&large)));
    assert_eq!(faulty.seen(Op::Get), 0);
    // From now on the bucket is encrypted.
    faulty.set_tags(Tags::Opaque);
    let (file, cancel) = (file(&large), CancellationToken::new());
    let mut gets = vec![];
    for n in 0..4 {
        let location = format!("s3://lake/t/{n}");
        let uploaded = remote.put_file(&location, file.path(), LARGE as u64, &cancel);
        assert_eq!(uploaded.await, Ok(checksums(&large)));
        let key = format!("t/{n}");
        assert!(faulty.content(&key).await.as_ref() == Some(&large));
        gets.push(faulty.seen(Op::Get));
    }
    assert_eq!(gets, [3, 6, 9, 9], "read back until it is known");
    // And from now on it isn't.
    faulty.set_tags(Tags::Digests);
    for n in 4..6 {
        let location = format!("s3://lake/t/{n}");
        let uploaded = remote.put_file(&location, file.path(), LARGE as u64, &cancel);
        assert_eq!(uploaded.await, Ok(checksums(&large)));
        let key = format!("t/{n}");
        assert!(faulty.content(&key).await.as_ref() == Some(&large));
        faulty.fail(Op::Part, &[Fault::Flip]);
    }
    assert_eq!(faulty.seen(Op::Get), 9);
}
