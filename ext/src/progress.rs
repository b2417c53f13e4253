//! What maintenance is at, for `lake.stat_progress`.
//!
//! It is kept where Postgres keeps the progress of its own commands, in the backend's status entry, under
//! a number that isn't one of Postgres'. Its views ask for their commands by number, so that they
//! don't see ours. In return the entry is read without tearing, and cleared by Postgres at the abort of
//! a transaction or subtransaction and at the end of the process: slots of our own would need all of
//! that again. The price is that a backend shows one command at a time: one that begins inside of
//! another, Postgres' COPY or CREATE INDEX say, is not shown.

use crate::pg;
use pg_lake_plan::message::WrittenFile;
use pgrx::pg_sys;

/// The `ProgressCommandType` of all our commands: "lake".
const OURS: pg_sys::ProgressCommandType::Type = 0x6c61_6b65;

/// Rows between two reports.
const ROWS_PER_REPORT: u64 = 1024;

/// Indexes of `st_progress_param`.
mod param {
    pub const COMMAND: i32 = 0;
    pub const PHASE: i32 = 1;
    /// Of the phase; −1: not known.
    pub const ROWS_TOTAL: i32 = 2;
    pub const ROWS_DONE: i32 = 3;
    /// Of the whole command.
    pub const FILES_DONE: i32 = 4;
    pub const BYTES_DONE: i32 = 5;
    /// A `TimestampTz`.
    pub const STARTED: i32 = 6;
}

/// What runs.
#[derive(Clone, Copy)]
pub enum Command {
    Flush,
    Merge,
    Compact,
    Publish,
    Sweep,
}

impl Command {
    const ALL: [Command; 5] = [
        Command::Flush,
        Command::Merge,
        Command::Compact,
        Command::Publish,
        Command::Sweep,
    ];

    fn name(self) -> &'static str {
        match self {
            Command::Flush => "flush",
            Command::Merge => "merge",
            Command::Compact => "compact",
            Command::Publish => "publish",
            Command::Sweep => "sweep",
        }
    }
}

/// What it is doing. Commands share the names of phases that do the same.
#[derive(Clone, Copy)]
pub enum Phase {
    Initializing,
    RemovingIndexEntries,
    WritingRows,
    DeletingHotRows,
    RegisteringFiles,
    InsertingIndexEntries,
    MergingDeletions,
    WritingHotRows,
    WritingMetadata,
    RemovingLeftovers,
    RemovingGarbage,
}

impl Phase {
    const ALL: [Phase; 11] = [
        Phase::Initializing,
        Phase::RemovingIndexEntries,
        Phase::WritingRows,
        Phase::DeletingHotRows,
        Phase::RegisteringFiles,
        Phase::InsertingIndexEntries,
        Phase::MergingDeletions,
        Phase::WritingHotRows,
        Phase::WritingMetadata,
        Phase::RemovingLeftovers,
        Phase::RemovingGarbage,
    ];

    fn name(self) -> &'static str {
        match self {
            Phase::Initializing => "initializing",
            Phase::RemovingIndexEntries => "removing index entries",
            Phase::WritingRows => "writing rows",
            Phase::DeletingHotRows => "deleting hot rows",
            Phase::RegisteringFiles => "registering files",
            Phase::InsertingIndexEntries => "inserting index entries",
            Phase::MergingDeletions => "merging deletions",
            Phase::WritingHotRows => "writing hot rows",
            Phase::WritingMetadata => "writing metadata",
            Phase::RemovingLeftovers => "removing left-over files",
            Phase::RemovingGarbage => "removing garbage",
        }
    }
}

/// The command that this backend's entry shows.
fn shown() -> pg_sys::ProgressCommandType::Type {
    // SAFETY: this process' own entry, which nobody else writes; null in a process without one.
    unsafe {
        let entry = pg_sys::MyBEEntry;
        if entry.is_null() {
            pg_sys::ProgressCommandType::PROGRESS_COMMAND_INVALID
        } else {
            (*entry).st_progress_command
        }
    }
}

fn set(values: &[(i32, i64)]) {
    let (indexes, values): (Vec<i32>, Vec<i64>) = values.iter().copied().unzip();
    // SAFETY: both arrays have that length.
    unsafe {
        pg_sys::pgstat_progress_update_multi_param(
            indexes.len() as i32,
            indexes.as_ptr(),
            values.as_ptr(),
        );
    }
}

/// Shows a command on a table, or on none, while `f` runs. An error ends it with the (sub)transaction.
pub fn report<R>(command: Command, relid: pg_sys::Oid, f: impl FnOnce() -> R) -> R {
    if shown() != pg_sys::ProgressCommandType::PROGRESS_COMMAND_INVALID {
        return f();
    }
    // SAFETY: writes this process' own entry.
    unsafe {
        pg_sys::pgstat_progress_start_command(OURS, relid);
        set(&[
            (param::COMMAND, command as i64),
            (param::PHASE, Phase::Initializing as i64),
            (param::ROWS_TOTAL, -1),
            (param::STARTED, pg_sys::GetCurrentTimestamp()),
        ]);
    }
    let result = f();
    if shown() == OURS {
        // SAFETY: as above.
        unsafe { pg_sys::pgstat_progress_end_command() };
    }
    result
}

/// The command goes on with another phase, of that many rows if one can say.
pub fn phase(phase: Phase, rows_total: Option<u64>) {
    if shown() == OURS {
        set(&[
            (param::PHASE, phase as i64),
            (param::ROWS_TOTAL, rows_total.map_or(-1, |rows| rows as i64)),
            (param::ROWS_DONE, 0),
        ]);
    }
}

/// So many rows of the phase are done. Called for each row.
#[inline]
pub fn rows_done(rows: u64) {
    if rows.is_multiple_of(ROWS_PER_REPORT) && shown() == OURS {
        // SAFETY: writes this process' own entry.
        unsafe { pg_sys::pgstat_progress_update_param(param::ROWS_DONE, rows as i64) };
    }
}

/// Files were written, or removed.
pub fn files_done(files: u64, bytes: u64) {
    if files > 0 && shown() == OURS {
        // SAFETY: writes this process' own entry.
        unsafe {
            pg_sys::pgstat_progress_incr_param(param::FILES_DONE, files as i64);
            pg_sys::pgstat_progress_incr_param(param::BYTES_DONE, bytes as i64);
        }
    }
}

/// The same for files that a worker has written.
pub fn files_written(files: &[WrittenFile]) {
    files_done(files.len() as u64, files.iter().map(|f| f.size).sum());
}

/// One running command.
pub struct Running {
    pub pid: i32,
    pub database: pg_sys::Oid,
    /// What only some may see.
    pub details: Option<Details>,
}

pub struct Details {
    pub relid: Option<pg_sys::Oid>,
    pub command: Option<&'static str>,
    pub phase: Option<&'static str>,
    pub rows_total: Option<i64>,
    pub rows_done: i64,
    pub files_done: i64,
    pub bytes_done: i64,
    pub started: pg_sys::TimestampTz,
}

/// The commands that run on the server, as `pg_stat_get_progress_info` (pgstatfuncs.c) lists those of
/// Postgres.
pub fn running() -> Vec<Running> {
    // SAFETY: reads a copy of all entries, which lives to the end of the transaction.
    let entries: Vec<*const pg_sys::PgBackendStatus> = unsafe {
        (1..=pg_sys::pgstat_fetch_stat_numbackends())
            .map(|i| pg_sys::pgstat_get_local_beentry_by_index(i))
            .filter(|entry| !entry.is_null())
            .map(|entry| &raw const (*entry).backendStatus)
            .collect()
    };
    entries
        .into_iter()
        // SAFETY: as above.
        .map(|entry| unsafe { &*entry })
        .filter(|entry| entry.st_progress_command == OURS)
        .map(|entry| Running {
            pid: entry.st_procpid,
            database: entry.st_databaseid,
            details: may_see(entry).then(|| details(entry)),
        })
        .collect()
}

fn details(entry: &pg_sys::PgBackendStatus) -> Details {
    let value = |index: i32| entry.st_progress_param[index as usize];
    let relid = entry.st_progress_command_target;
    Details {
        relid: (relid != pg_sys::InvalidOid).then_some(relid),
        command: Command::ALL
            .iter()
            .find(|c| **c as i64 == value(param::COMMAND))
            .map(|c| c.name()),
        phase: Phase::ALL
            .iter()
            .find(|p| **p as i64 == value(param::PHASE))
            .map(|p| p.name()),
        rows_total: Some(value(param::ROWS_TOTAL)).filter(|rows| *rows >= 0),
        rows_done: value(param::ROWS_DONE),
        files_done: value(param::FILES_DONE),
        bytes_done: value(param::BYTES_DONE),
        started: value(param::STARTED),
    }
}

/// `HAS_PGSTAT_PERMISSIONS` (utils/acl.h); and what a maintainer does with a table is its owner's
/// business, too.
fn may_see(entry: &pg_sys::PgBackendStatus) -> bool {
    // SAFETY: catalog look-ups.
    unsafe {
        let user = pg_sys::GetUserId();
        pg_sys::has_privs_of_role(user, pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_STATS))
            || pg_sys::has_privs_of_role(user, entry.st_userid)
            || (entry.st_databaseid == pg_sys::MyDatabaseId
                && pg::owner_of(entry.st_progress_command_target)
                    .is_some_and(|owner| pg_sys::has_privs_of_role(user, owner)))
    }
}
