//! What the engine is at for whom, for `lake.stat_queries`.
//!
//! The engine says in the rings how far it is with a request ([`Region::reported`](pg_lake_ring::Region::reported)); whose
//! request it is, Postgres' own list of sessions says.

use crate::ring::{ENGINE, region};
use pg_lake_ring::{Phase, Reported};
use pgrx::pg_sys;

/// A request that the engine serves.
pub struct Query {
    pub pid: i32,
    pub database: pg_sys::Oid,
    /// What only some may see.
    pub details: Option<Details>,
}

pub struct Details {
    /// Of the session's statement.
    pub started: Option<pg_sys::TimestampTz>,
    pub state: &'static str,
    pub progress: pg_lake_ring::Progress,
}

/// Those that run on the server.
pub fn running() -> Vec<Query> {
    let region = region();
    (0..region.layout().streams)
        .filter_map(|stream| region.reported(stream))
        .filter(|reported| reported.worker == ENGINE)
        .filter_map(|reported| of(&reported))
        .collect()
}

/// `None` if the session has just ended.
fn of(reported: &Reported) -> Option<Query> {
    let proc = i32::try_from(reported.proc).ok()?;
    // SAFETY: a copy of the list, which lives to the end of the transaction.
    let entry = unsafe {
        let entry = pg_sys::pgstat_get_local_beentry_by_proc_number(proc);
        &entry.as_ref()?.backendStatus
    };
    Some(Query {
        pid: entry.st_procpid,
        database: entry.st_databaseid,
        details: may_see(entry).then(|| Details {
            started: Some(entry.st_activity_start_timestamp).filter(|at| *at != 0),
            state: name(reported.phase),
            progress: reported.progress,
        }),
    })
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Queued => "queued",
        Phase::Running => "running",
        Phase::Delivering => "delivering",
    }
}

/// `HAS_PGSTAT_PERMISSIONS` (utils/acl.h)
fn may_see(entry: &pg_sys::PgBackendStatus) -> bool {
    // SAFETY: catalog look-ups.
    unsafe {
        let user = pg_sys::GetUserId();
        pg_sys::has_privs_of_role(user, pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_STATS))
            || pg_sys::has_privs_of_role(user, entry.st_userid)
    }
}
