//! Uploads that lose parts, answers, or their backend.

use super::faulty::{self, Fault, Faulty, Op};
use super::remote::Remote;
use bytes::Bytes;
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::store::Checksums;
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
    let faulty = Arc::new(Faulty::default());
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
    let error = remote
        .copy("s3://lake/t/other", LOCATION, 6, &CancellationToken::new())
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
    faulty.fail(Op::Copy, &[Fault::LostReply]);
    let copied = remote.copy(LOCATION, "s3://lake/t/2", size, &cancel).await;
    assert_eq!(copied, Ok(()));
    assert_eq!(faulty.seen(Op::Get), 0);
    faulty.fail(Op::Copy, &[Fault::Unsupported]);
    let copied = remote.copy(LOCATION, "s3://lake/t/3", size, &cancel).await;
    assert_eq!(copied, Ok(()));
    assert_eq!(faulty.seen(Op::Get), 3);
    for key in ["t/2", "t/3"] {
        assert!(faulty.content(key).await.as_ref() == Some(&content));
    }
    let other = remote
        .copy(LOCATION, "s3://lake/t/4", size - 1, &cancel)
        .await;
    assert_eq!(
        other.expect_err("another size").code,
        ErrorCode::DataCorrupted
    );
    assert_eq!(faulty.content("t/4").await, None);
}

#[tokio::test]
async fn objects_go_from_store_to_store() {
    let ((from, source), (to, target)) = (set_up(), set_up());
    let content = content(LARGE);
    from.write("x", &content).await;
    from.fail(Op::Get, &[Fault::BreakAfter(1000)]);
    let cancel = CancellationToken::new();
    let copied = target
        .copy_from(&source, "s3://lake/x", LOCATION, LARGE as u64, &cancel)
        .await;
    assert_eq!(copied, Ok(checksums(&content)));
    assert!(to.content(KEY).await == Some(content));
}
