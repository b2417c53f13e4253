//! Trying out a store, before a tablespace relies on it.

use super::remote::{Created, NotCreated, Remote};
use bytes::Bytes;
use object_store::PutMode;
use pg_lake_plan::message::{ErrorCode, Priority, Probed, WireError};
use tokio::time::timeout;
use uuid::Uuid;

const CONTENT: &[u8] = b"pg_lake tries out this store; remove me";

/// What another writer of the same object would have written.
const OTHER: &[u8] = b"not this";

/// Writes, reads, lists and removes an object `.pg_lake-probe-…` in the store's root, all within
/// `lake.store_timeout`, and tells whether conditional writes work. The error names the step that
/// failed.
pub async fn probe(remote: &Remote) -> Result<Probed, WireError> {
    let location = format!(
        "{}/.pg_lake-probe-{}",
        remote.store().root(),
        Uuid::new_v4()
    );
    let mut step = Step::Write;
    let to_remove = remote.timeout() / 4;
    let limit = remote.timeout() - to_remove;
    let tried = timeout(limit, steps(remote, &location, &mut step)).await;
    let result = tried.unwrap_or_else(|_| {
        let message = format!("gave up after {limit:?}");
        Err(WireError::new(ErrorCode::StoreUnavailable, message)
            .hint("Check that the store can be reached, or raise lake.store_timeout."))
    });
    if result.is_err() {
        // As far as possible. What is left is found by its name.
        let delete = remote.delete(std::slice::from_ref(&location));
        let _ = timeout(to_remove, delete).await;
    }
    result.map_err(|error| explain(remote, step, error))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Write,
    Read,
    ReadRange,
    List,
    WriteAgain,
    Remove,
}

async fn steps(remote: &Remote, location: &str, step: &mut Step) -> Result<Probed, WireError> {
    let created = create(remote, location, CONTENT).await?;
    if created == Conditional::Unknown {
        remote
            .replace(location, Bytes::from_static(CONTENT))
            .await?;
    }
    *step = Step::Read;
    let content = remote.get_all(location).await?;
    same(&content, CONTENT)?;
    *step = Step::ReadRange;
    let range = 8..CONTENT.len() as u64 - 1;
    let part = remote.get(location, range, Priority::Interactive).await?;
    same(&part, CONTENT.get(8..CONTENT.len() - 1).unwrap_or_default())?;
    *step = Step::List;
    let key = remote.path(location)?;
    // object_store leaves out what is named exactly like the prefix, in Azure.
    let name: &str = key.as_ref();
    let shorter = name.get(..name.len().saturating_sub(1));
    let listed = remote.list_prefix(shorter, location).await?;
    if listed != [(location.to_owned(), CONTENT.len() as u64)] {
        let message = format!("object \"{location}\" is not listed");
        return Err(WireError::new(ErrorCode::Unsupported, message)
            .detail("The store has to list objects as soon as they are written."));
    }
    *step = Step::WriteAgain;
    let conditional_put = match created {
        Conditional::Unknown => false,
        _ => create(remote, location, OTHER).await? == Conditional::Refused,
    };
    *step = Step::Remove;
    remote.delete(&[location.to_owned()]).await?;
    if remote.size(location).await?.is_some() {
        let message = format!("object \"{location}\" is still there");
        return Err(WireError::new(ErrorCode::Unsupported, message));
    }
    Ok(Probed { conditional_put })
}

/// What the store made of a conditional write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conditional {
    Written,
    /// There is such an object.
    Refused,
    /// It can't do that.
    Unknown,
}

async fn create(
    remote: &Remote,
    location: &str,
    content: &'static [u8],
) -> Result<Conditional, WireError> {
    let content = Bytes::from_static(content).into();
    match remote.create_with(location, content, PutMode::Create).await {
        Ok(Created::Done) => Ok(Conditional::Written),
        Ok(Created::NameTaken) => Ok(Conditional::Refused),
        Err(NotCreated::Unclear(failure)) if failure.is_of_unsupported() => {
            Ok(Conditional::Unknown)
        }
        Err(error) => Err(remote.not_created(location, error)),
    }
}

fn same(found: &[u8], expected: &[u8]) -> Result<(), WireError> {
    if found == expected {
        return Ok(());
    }
    Err(WireError::new(
        ErrorCode::Unsupported,
        "another content was read than was written",
    ))
}

fn explain(remote: &Remote, step: Step, error: WireError) -> WireError {
    let what = match step {
        Step::Write => "an object could not be written",
        Step::Read => "an object could not be read",
        Step::ReadRange => "a part of an object could not be read",
        Step::List => "objects could not be listed",
        Step::WriteAgain => "an object could not be written a second time",
        Step::Remove => "an object could not be removed",
    };
    let message = format!("store \"{}\" is not usable: {what}", remote.store().root());
    let detail = match error.detail {
        Some(detail) => format!("{}: {detail}", error.message),
        None => error.message,
    };
    WireError {
        code: error.code,
        message,
        detail: Some(detail),
        hint: error.hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::{self, Fault, Faulty, Op};
    use pg_lake_plan::store::Store;
    use std::sync::Arc;

    fn remote(faulty: &Arc<Faulty>) -> Remote {
        let store = Store {
            prefix: "a/b".into(),
            conditional_put: false,
            ..faulty::store()
        };
        faulty.remote(store, &faulty::settings())
    }

    async fn objects(remote: &Remote) -> usize {
        remote.list("s3://lake/a/b").await.expect("a list").len()
    }

    #[tokio::test]
    async fn conditional_writes_are_found_out() {
        let faulty = Arc::new(Faulty::default());
        faulty.fail(Op::Put, &[Fault::LostReply, Fault::Reset]);
        let probed = probe(&remote(&faulty)).await.expect("a store");
        assert!(probed.conditional_put);
        assert_eq!(objects(&remote(&faulty)).await, 0);
        let ignoring = Arc::new(Faulty::ignoring_conditions());
        let probed = probe(&remote(&ignoring)).await.expect("a store");
        assert!(!probed.conditional_put);
        let refusing = Arc::new(Faulty::default());
        refusing.fail(Op::Put, &[Fault::Unsupported]);
        let probed = probe(&remote(&refusing)).await.expect("a store");
        assert!(!probed.conditional_put);
        assert_eq!(objects(&remote(&refusing)).await, 0);
    }

    #[tokio::test]
    async fn the_step_that_fails_is_told_and_nothing_is_left() {
        for (op, text) in [
            (Op::Put, "an object could not be written"),
            (Op::Get, "an object could not be read"),
            (Op::List, "objects could not be listed"),
        ] {
            let faulty = Arc::new(Faulty::default());
            faulty.fail(op, &[Fault::Denied]);
            let remote = remote(&faulty);
            let error = probe(&remote).await.expect_err("denied");
            assert_eq!(error.code, ErrorCode::StoreDenied);
            assert_eq!(
                error.message,
                format!("store \"s3://lake/a/b\" is not usable: {text}")
            );
            assert!(error.detail.is_some() && error.hint.is_some());
            assert_eq!(objects(&remote).await, 0);
        }
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_ends_the_probe() {
        let faulty = Arc::new(Faulty::default());
        faulty.fail(Op::Put, &[Fault::Hang; 20]);
        let start = tokio::time::Instant::now();
        let error = probe(&remote(&faulty)).await.expect_err("no answer");
        assert_eq!(error.code, ErrorCode::StoreUnavailable);
        assert!(start.elapsed() <= faulty::settings().timeout * 3 / 2);
    }
}
