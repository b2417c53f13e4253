//! Sweep: removes what ended transactions have left behind, and garbage that nobody needs any more.
//!
//! It can end anywhere and be begun again: who announced or discarded files is forgotten in the transaction that
//! finds them gone. What can't be removed, since its store is down say, doesn't keep the rest from going.
//!
//! * `leftovers`: what ended transactions have announced and not registered
//! * `waste`: what is in `lake.garbage`
//! * `directories`: what is left of tablespaces in stores when both have gone
//! * [`setbacks`]: what could not be removed, and when it is tried again

mod directories;
mod leftovers;
mod setbacks;
mod waste;

pub use setbacks::Setbacks;

use crate::catalog::storage;
use crate::pg::subtransaction::Failure;
use crate::pg::table::relation_oid;
use crate::progress::{self, Command, Phase};
use crate::{error, pg};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::time::Instant;

/// Files that one transaction of the maintainer removes, and entries of garbage that it looks at, at most.
const FILES_PER_ROUND: usize = 1000;

/// What one transaction does of a sweep.
struct Round<'a> {
    /// How long readers of what was published have, in microseconds.
    retention_us: i64,
    /// How long after it was given up a request may still be served, in microseconds.
    late_us: i64,
    setbacks: &'a mut Setbacks,
    began: Instant,
    /// Files that it may still remove.
    room: usize,
    /// Those that it has.
    removed: u64,
    /// Whether it had no room for all that there is.
    left: bool,
}

impl Round<'_> {
    fn is_waiting(&self, path: &str) -> bool {
        self.setbacks.is_waiting(path, self.began)
    }

    /// So many files are gone, or were before.
    fn took(&mut self, files: usize, removed: u64) {
        self.room = self.room.saturating_sub(files);
        self.removed += removed;
    }

    fn failed(&mut self, path: &str, failure: &Failure) {
        let whole_place = is_of_place(failure);
        if self.setbacks.failed(path, whole_place, self.began) {
            let what = if whole_place {
                setbacks::place_of(path)
            } else {
                path
            };
            error::warn(
                &format!("\"{what}\" is swept later: {}", failure.message),
                failure.detail.as_deref(),
            );
        }
    }
}

/// Whether something is in the way of all files of a tablespace.
pub fn is_of_place(failure: &Failure) -> bool {
    matches!(
        failure.code,
        PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE
            | PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW
            | PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES
            | PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION
            | PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR
    )
}

/// Sweeps all that there is, in the calling transaction; returns how many files it has removed. Times are in microseconds.
pub fn all(retention_us: i64, late_us: i64) -> u64 {
    let mut setbacks = Setbacks::default();
    // What fails isn't tried again.
    let began = Instant::now();
    let mut removed = 0;
    loop {
        let (files, left) = round(retention_us, late_us, &mut setbacks, began);
        removed += files;
        if !left {
            return removed;
        }
    }
}

/// Sweeps a part that is done soon; whether there is more.
pub fn part(retention_us: i64, late_us: i64, setbacks: &mut Setbacks) -> bool {
    round(retention_us, late_us, setbacks, Instant::now()).1
}

fn round(retention_us: i64, late_us: i64, setbacks: &mut Setbacks, began: Instant) -> (u64, bool) {
    storage::incarnation(); // in a copy of a database the files belong to the original
    let mut round = Round {
        retention_us,
        late_us,
        setbacks,
        began,
        room: FILES_PER_ROUND,
        removed: 0,
        left: false,
    };
    progress::report(Command::Sweep, pg_sys::InvalidOid, || {
        pg::as_extension_owner(|| run(&mut round))
    });
    (round.removed, round.left)
}

fn run(round: &mut Round<'_>) {
    // One sweep at a time: two would remove the same entries.
    // SAFETY: released at the end of the transaction; conflicts with no writer of the table.
    unsafe {
        pg_sys::LockRelationOid(
            relation_oid(c"garbage"),
            pg_sys::ShareUpdateExclusiveLock as i32,
        );
    }
    progress::phase(Phase::RemovingLeftovers, None);
    leftovers::remove(round);
    progress::phase(Phase::RemovingGarbage, None);
    waste::remove(round);
    directories::remove();
    // What is gone now is not to be found again.
    // SAFETY: in a transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}
