//! Attempts: each has a place among the store's requests, all together have `lake.store_timeout`.
//!
//! object_store's own retries are off. They know neither `Retry-After` nor what of our requests may
//! be repeated, which is all of them: no name is used twice.

use super::failure::Failure;
use super::http::observe;
use super::remote::Remote;
use pg_lake_plan::message::Priority;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A token that can't be had in so many attempts is not to be had.
const LOGINS_MAX: u32 = 3;

/// How long one attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// There is little to send or to receive.
    Quick,
    /// The request has a body, and no answer before the end of it.
    Sending,
    /// The attempt itself sees to it that bytes come in.
    Watched,
}

impl Pace {
    fn limit(self, timeout: Duration) -> Duration {
        match self {
            Pace::Quick => timeout / 4,
            Pace::Sending => timeout / 2,
            Pace::Watched => timeout,
        }
    }
}

/// The attempts at one operation. Time spent in waiting for a place doesn't count.
pub(super) struct Tries<'a> {
    remote: &'a Remote,
    priority: Priority,
    left: Duration,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub fn new(remote: &'a Remote, priority: Priority) -> Tries<'a> {
        Tries {
            remote,
            priority,
            left: remote.timeout(),
            failed: 0,
        }
    }

    /// Makes one attempt. `Continue` means that another one is due, now.
    pub async fn attempt<T>(
        &mut self,
        pace: Pace,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> ControlFlow<Result<T, Failure>> {
        let place = self.remote.place(self.priority).await;
        let start = Instant::now();
        let limit = self.left.min(pace.limit(self.remote.timeout()));
        let (result, answer) = observe(timeout(limit, work)).await;
        drop(place);
        self.left = self.left.saturating_sub(start.elapsed());
        let failure = match result {
            Ok(Ok(done)) => return ControlFlow::Break(Ok(done)),
            Ok(Err(error)) => Failure::new(error, answer),
            Err(_) => Failure::late(limit, answer),
        };
        if !failure.is_transient() {
            return ControlFlow::Break(Err(failure));
        }
        self.pause(failure).await.map_break(Err)
    }

    /// How long a look at what came of the attempts may take: what is left, or a part of the limit.
    pub fn left_to_look(&self) -> Duration {
        self.left.max(Pace::Quick.limit(self.remote.timeout()))
    }

    /// Waits before the next attempt, as long as the store asks for. `Break` means that the time is up.
    pub async fn pause(&mut self, failure: Failure) -> ControlFlow<Failure> {
        self.failed += 1;
        if failure.is_of_login() && self.failed >= LOGINS_MAX {
            return ControlFlow::Break(failure);
        }
        let pause = self
            .backoff()
            .max(failure.retry_after().unwrap_or_default());
        if pause >= self.left {
            return ControlFlow::Break(failure);
        }
        sleep(pause).await;
        self.left -= pause;
        ControlFlow::Continue(())
    }

    /// Twice as long each time, up to a part of the limit; half of it is chance.
    fn backoff(&self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failed.saturating_sub(1).min(10));
        let longest = doubled.min(self.remote.timeout() / 8);
        let chance = (Uuid::new_v4().as_u128() & 0xffff) as f64 / f64::from(0xffff);
        longest.mul_f64(0.5 + chance / 2.0)
    }
}
