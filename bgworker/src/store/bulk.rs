//! Many objects: listing and removing them.

use super::failure::{Failure, Problem, is_missing};
use super::remote::Remote;
use super::tries::{Pace, Tries};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use object_store::GetOptions;
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use pg_lake_plan::message::{ErrorCode, Priority, WireError};
use std::ops::ControlFlow;

/// What Azure removes with one request; the others have a request for each.
const BATCH: usize = 256;

/// Objects that are looked for at the same time.
const LOOKED_FOR_AT_ONCE: usize = 8;

impl Remote {
    /// The locations of all objects below a directory, sorted, with their sizes in bytes. Each page of the
    /// store's answer has `lake.store_timeout`.
    pub async fn list(&self, directory: &str) -> Result<Vec<(String, u64)>, WireError> {
        let directory = directory.trim_end_matches('/');
        let prefix = if directory == self.store().root() {
            match self.store().prefix.as_str() {
                "" => None,
                prefix => Some(format!("{prefix}/")),
            }
        } else {
            Some(format!("{}/", self.path(directory)?))
        };
        self.list_prefix(prefix.as_deref(), directory).await
    }

    /// Those whose key begins like that. `place` is named in errors.
    pub(super) async fn list_prefix(
        &self,
        prefix: Option<&str>,
        place: &str,
    ) -> Result<Vec<(String, u64)>, WireError> {
        let failed = |failure: Failure| self.error("list", place, &failure);
        let mut objects = vec![];
        let mut next_page: Option<String> = None;
        loop {
            let list = || {
                let options = PaginatedListOptions {
                    page_token: next_page.clone(),
                    ..PaginatedListOptions::default()
                };
                self.backend().list_paginated(prefix, options)
            };
            let listed = self.retried(Priority::Interactive, Pace::Quick, list);
            let page = listed.await.map_err(failed)?;
            for object in page.result.objects {
                // A directory that somebody made in a console ends in `/`, which has been cut off.
                let marks_directory =
                    prefix.is_some_and(|p| p.len() > object.location.as_ref().len());
                if let Some(location) = self.store().location(object.location.as_ref())
                    && !marks_directory
                {
                    objects.push((location, object.size));
                }
            }
            match page.page_token {
                None => break,
                Some(token) if next_page.as_ref() == Some(&token) => {
                    let message = format!("listing \"{place}\" doesn't come to an end");
                    return Err(WireError::new(ErrorCode::Io, message)
                        .detail("The store gave the same page twice."));
                }
                token => next_page = token,
            }
        }
        objects.sort_unstable();
        objects.dedup();
        Ok(objects)
    }

    /// Removes objects; those that are missing are no error. Returns how many are gone now; a store that
    /// doesn't say what was missing has those counted, too. Each 256 of them have `lake.store_timeout`, and that again if
    /// some of them went in that time.
    ///
    /// That one is said to be missing is not enough, since its name may have been damaged on its way: it is looked for.
    pub async fn delete(&self, locations: &[String]) -> Result<u64, WireError> {
        let paths: Vec<Path> = locations
            .iter()
            .map(|location| self.path(location))
            .collect::<Result<_, _>>()?;
        let mut deleted = 0;
        for batch in paths.chunks(BATCH) {
            let mut left: Vec<Option<Path>> = batch.iter().cloned().map(Some).collect();
            let mut tries = Tries::new(self, Priority::Interactive);
            let mut left_before = left.len();
            loop {
                let attempt = self.delete_some(&mut left, &mut deleted);
                let ended = tries.attempt(Pace::Sending, attempt).await;
                let number = left.iter().flatten().count();
                match ended {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(Ok(())) => break,
                    // Unless the store wants to be left alone for longer.
                    ControlFlow::Break(Err(failure))
                        if failure.is_transient()
                            && failure.retry_after().is_none()
                            && number < left_before =>
                    {
                        left_before = number;
                        tries = Tries::new(self, Priority::Interactive);
                    }
                    ControlFlow::Break(Err(failure)) => {
                        let first = left.iter().flatten().next();
                        let first = first.map(Path::as_ref).unwrap_or_default();
                        let location = self.store().location(first).unwrap_or_default();
                        return Err(self.error("remove object", &location, &failure));
                    }
                }
            }
        }
        Ok(deleted)
    }

    /// Leaves in `left` what is not gone, also if it is dropped.
    async fn delete_some(
        &self,
        left: &mut [Option<Path>],
        deleted: &mut u64,
    ) -> object_store::Result<()> {
        let asked: Vec<Path> = left.iter().flatten().cloned().collect();
        let expected = asked.len();
        let slots: Vec<&mut Option<Path>> = left.iter_mut().filter(|slot| slot.is_some()).collect();
        let mut slots = slots.into_iter();
        let asked = stream::iter(asked).map(Ok).boxed();
        let mut results = self.backend().delete_stream(asked);
        let mut answers = 0;
        let mut missing = vec![];
        let mut failed = None;
        // One result for each, in their order; or one error for all.
        while let Some(result) = results.next().await {
            answers += 1;
            match (result, slots.next()) {
                (Ok(_), Some(slot)) => {
                    *slot = None;
                    *deleted += 1;
                }
                (Ok(_), None) => {}
                (Err(error), Some(slot)) if is_missing(&error) => missing.push((slot, error)),
                (Err(error), _) => {
                    failed.get_or_insert(error);
                }
            }
        }
        if answers == expected {
            let looks: Vec<BoxFuture<'_, object_store::Result<()>>> = missing
                .into_iter()
                .map(|(slot, _)| self.look_for(slot).boxed())
                .collect();
            let looks = stream::iter(looks).buffer_unordered(LOOKED_FOR_AT_ONCE);
            let found: Vec<object_store::Result<()>> = looks.collect().await;
            failed = failed.or(found.into_iter().find_map(Result::err));
        } else {
            failed = failed.or(missing.pop().map(|(_, error)| error));
        }
        failed.map_or(Ok(()), Err)
    }

    /// Empties the slot if there is no such object.
    async fn look_for(&self, slot: &mut Option<Path>) -> object_store::Result<()> {
        let Some(path) = slot.as_ref() else {
            return Ok(());
        };
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let found = self.backend().get_opts(path, options).await;
        match found {
            Ok(_) => Err(Problem::Altered.into()),
            Err(error) if is_missing(&error) => {
                *slot = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::Settings;
    use crate::store::faulty::{self, Fault, Faulty, Op};
    use crate::store::remote::Remote;
    use pg_lake_plan::message::ErrorCode;
    use pg_lake_plan::store::Store;
    use std::sync::Arc;
    use std::time::Duration;

    fn remote(faulty: &Arc<Faulty>, prefix: &str) -> Remote {
        let store = Store {
            prefix: prefix.into(),
            ..faulty::store()
        };
        faulty.remote(store, &faulty::settings())
    }

    async fn names(remote: &Remote, directory: &str) -> Vec<String> {
        let listed = remote.list(directory).await.expect("a list");
        listed.into_iter().map(|(location, _)| location).collect()
    }

    #[tokio::test]
    async fn pages_of_a_list_are_put_together() {
        let faulty = Arc::new(Faulty::default());
        for key in ["p/1", "p/a/2", "p/a/3", "p/ab/4", "q/5"] {
            faulty.write(key, key.as_bytes()).await;
        }
        faulty.fail(Op::List, &[Fault::Reset, Fault::LostReply]);
        let remote = remote(&faulty, "p");
        let all = [
            "s3://lake/p/1",
            "s3://lake/p/a/2",
            "s3://lake/p/a/3",
            "s3://lake/p/ab/4",
        ];
        assert_eq!(names(&remote, "s3://lake/p").await, all);
        assert_eq!(names(&remote, "s3://lake/p/").await, all);
        let below = remote.list("s3://lake/p/a").await.expect("a list");
        assert_eq!(below, [(all[1].into(), 5), (all[2].into(), 5)]);
        assert_eq!(names(&remote, "s3://lake/p/missing/").await, [""; 0]);
        let error = remote
            .list("s3://lake/q")
            .await
            .expect_err("not in the store");
        assert_eq!(error.code, ErrorCode::Internal);
    }

    #[tokio::test]
    async fn a_bucket_as_a_whole_can_be_listed() {
        let faulty = Arc::new(Faulty::default());
        for key in ["1", "a/2", "a/3"] {
            faulty.write(key, b"x").await;
        }
        let listed = names(&remote(&faulty, ""), "s3://lake").await;
        assert_eq!(listed, ["s3://lake/1", "s3://lake/a/2", "s3://lake/a/3"]);
    }

    #[tokio::test]
    async fn objects_are_removed_and_missing_ones_are_no_error() {
        let faulty = Arc::new(Faulty::default());
        let keys: Vec<String> = (0..300).map(|n| format!("p/{n}")).collect();
        for key in &keys {
            faulty.write(key, b"x").await;
        }
        faulty.fail(Op::Delete, &[Fault::Reset, Fault::Reset]);
        let remote = remote(&faulty, "p");
        let mut locations: Vec<String> =
            keys.iter().map(|key| format!("s3://lake/{key}")).collect();
        locations.insert(1, "s3://lake/p/missing".into());
        assert_eq!(remote.delete(&locations).await, Ok(300));
        assert_eq!(names(&remote, "s3://lake/p").await, [""; 0]);
        assert_eq!(remote.delete(&locations).await, Ok(0));
        assert_eq!(remote.delete(&[]).await, Ok(0));
        // Two batches, the first one a second time for what was left.
        assert_eq!(faulty.seen(Op::Delete), 5);
    }

    /// They would be asked for from the first one on the next time, and the last ones never.
    #[tokio::test]
    async fn a_slow_store_has_the_time_that_it_needs_for_all() {
        let faulty = Arc::new(Faulty::removing_in(Duration::from_millis(20)));
        let keys: Vec<String> = (0..40).map(|n| format!("p/{n}")).collect();
        for key in &keys {
            faulty.write(key, b"x").await;
        }
        let settings = Settings {
            timeout: Duration::from_millis(400),
            ..faulty::settings()
        };
        let remote = faulty.remote(faulty::store(), &settings);
        let locations: Vec<String> = keys.iter().map(|key| format!("s3://lake/{key}")).collect();
        assert_eq!(remote.delete(&locations).await, Ok(40));
        assert_eq!(names(&remote, "s3://lake/p").await, [""; 0]);
    }

    #[tokio::test]
    async fn a_name_that_was_damaged_on_its_way_is_asked_for_again() {
        let faulty = Arc::new(Faulty::default());
        let locations: Vec<String> = (0..3).map(|n| format!("s3://lake/p/{n}")).collect();
        for key in ["p/0", "p/1", "p/2"] {
            faulty.write(key, b"x").await;
        }
        let remote = remote(&faulty, "p");
        // "Missing" is the answer to each of them, and to the first one even if it is right.
        faulty.fail(Op::Delete, &[Fault::Flip, Fault::Flip]);
        faulty.fail(Op::Head, &[Fault::Reset]);
        assert_eq!(remote.delete(&locations).await, Ok(3));
        assert_eq!(names(&remote, "s3://lake/p").await, [""; 0]);
        assert_eq!((faulty.seen(Op::Delete), faulty.seen(Op::Head)), (2, 2));
    }

    #[tokio::test]
    async fn what_arrives_damaged_without_end_is_not_removed() {
        let faulty = Arc::new(Faulty::damaging_names());
        faulty.write("p/0", b"x").await;
        let remote = remote(&faulty, "p");
        let error = remote.delete(&["s3://lake/p/0".into()]).await;
        let error = error.expect_err("still there");
        assert_eq!(error.code, ErrorCode::StoreUnavailable);
        assert!(error.message.contains("s3://lake/p/0"), "{error}");
        assert_eq!(names(&remote, "s3://lake/p").await, ["s3://lake/p/0"]);
    }
}
