//! `lake.flush`, `lake.merge`, `lake.publish`, `lake.sweep` and what the maintainer shares with them.

use crate::compact::{self, Eagerness};
use crate::error;
use crate::guc;
use crate::pg;
use crate::ring::region::control;
use pg_lake_plan::message::Reply;
use pgrx::datum::Interval;
use pgrx::{PgSqlErrorCode, pg_extern, pg_sys};

/// Moves settled hot rows of a table to Parquet; returns their number.
#[pg_extern(sql = false)]
fn flush(table: pg_sys::Oid) -> i64 {
    pg::refuse_if_read_only(c"lake.flush()");
    crate::flush::flush(table) as i64
}

/// Merges the marks of deleted cold rows; returns their number.
#[pg_extern(sql = false)]
fn merge(table: pg_sys::Oid) -> i64 {
    pg::refuse_if_read_only(c"lake.merge()");
    refuse_if_snapshot_is_kept("lake.merge()");
    crate::merge::merge(table) as i64
}

/// What is merged or replaced may be newer than the snapshot, which would see it twice, as a change of
/// its own transaction.
fn refuse_if_snapshot_is_kept(function: &str) {
    if crate::am::replaced::keeps_snapshot() {
        error::raise(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            &format!(
                "{function} cannot run in a transaction of isolation level REPEATABLE READ or SERIALIZABLE"
            ),
            None,
            Some(
                "Call it in a READ COMMITTED transaction, or leave it to VACUUM or the maintainer.",
            ),
        );
    }
}

/// Compacts the files of a table; returns how many were replaced.
#[pg_extern(sql = false)]
fn compact(table: pg_sys::Oid) -> i64 {
    pg::refuse_if_read_only(c"lake.compact()");
    refuse_if_snapshot_is_kept("lake.compact()");
    crate::compact::compact(table, Eagerness::All, compact::FILES_MAX).replaced as i64
}

/// Publishes a table; returns the location of its metadata.
#[pg_extern(sql = false)]
fn publish(table: pg_sys::Oid) -> Option<String> {
    pg::refuse_if_read_only(c"lake.publish()");
    crate::publish::publish(&[table]).pop().flatten()
}

/// Removes what ended transactions have left behind, and garbage; returns the number of files.
#[pg_extern(sql = false)]
fn sweep(retention: Option<Interval>) -> i64 {
    pg::refuse_if_read_only(c"lake.sweep()");
    let retention_us = match retention.map(|interval| interval.as_micros()) {
        None => return sweep_now() as i64,
        Some(..0) => error::raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "retention must not be negative",
            None,
            None,
        ),
        Some(micros) => i64::try_from(micros).unwrap_or(i64::MAX),
    };
    crate::sweep::all(retention_us, guc::store_timeout_us().min(retention_us)) as i64
}

/// Tells the launcher that this database has the extension now.
#[pg_extern(sql = false)]
fn announce_database() {
    if let Some(control) = control() {
        // SAFETY: a global of this backend.
        let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
        if let Some(slot) = control.find(database) {
            slot.since.store(0, std::sync::atomic::Ordering::Relaxed);
            slot.state.store(
                crate::ring::control::state::UNKNOWN,
                std::sync::atomic::Ordering::Release,
            );
        }
        control.wake_launcher();
    }
}

/// Runs `f` with the rights of the table's owner, as VACUUM runs index expressions.
pub fn as_owner<R>(relid: pg_sys::Oid, f: impl FnOnce() -> R) -> R {
    let Some(owner) = pg::owner_of(relid) else {
        error::raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            "the table is gone",
            None,
            None,
        )
    };
    // SAFETY: restored on the way out; an error restores them at abort.
    unsafe {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(
            owner,
            context | pg_sys::SECURITY_RESTRICTED_OPERATION as i32,
        );
        let result = crate::pg::with_safe_search_path(f);
        pg_sys::SetUserIdAndSecContext(user, context);
        result
    }
}

/// Taking another reply for "nothing there" would forget files for good.
pub fn unexpected(reply: &Reply) -> ! {
    error::raise(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        &format!("unexpected reply of a lake worker: {reply:?}"),
        None,
        None,
    )
}

/// Sweeps as the settings say.
pub fn sweep_now() -> u64 {
    crate::sweep::all(guc::garbage_retention_us(), guc::store_timeout_us())
}
