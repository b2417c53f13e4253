//! `lake.flush`, `lake.merge`, `lake.publish`, `lake.sweep` and what the maintainer shares with them.

use crate::catalog::{garbage, intent, publication, storage};
use crate::compact::{self, Eagerness};
use crate::error;
use crate::pg;
use crate::pg::table::{Table, relation_oid};
use crate::progress::{self, Command, Phase};
use crate::ring::call::ask;
use crate::ring::region::control;
use pg_lake_crash::{CrashPoint, crash_point};
use pg_lake_plan::message::{Reply, Request};
use pgrx::{PgSqlErrorCode, pg_extern, pg_sys};
use std::collections::HashSet;

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

/// Removes what ended transactions have left behind; returns the number of files.
#[pg_extern(sql = false)]
fn sweep() -> i64 {
    pg::refuse_if_read_only(c"lake.sweep()");
    sweep_now() as i64
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

fn files_below(directory: &str) -> Vec<String> {
    match ask(Request::ListFiles {
        directory: crate::pg::absolute(directory),
    }) {
        Reply::Files(files) => files.iter().map(|f| crate::pg::relative(f)).collect(),
        other => unexpected(&other),
    }
}

fn remove(paths: Vec<String>) -> u64 {
    if paths.is_empty() {
        return 0;
    }
    let paths = paths.iter().map(|p| crate::pg::absolute(p)).collect();
    match ask(Request::RemoveFiles { paths }) {
        Reply::Removed(n) => {
            progress::files_done(n, 0);
            n
        }
        other => unexpected(&other),
    }
}

/// What committed transactions have registered or published below a table's directory, the directory
/// itself if it is still a storage's, and all garbage: as of now, whatever the snapshot of the transaction
/// that asks.
fn registered(directory: &str) -> HashSet<String> {
    let prefix = format!("{directory}/");
    let mut found = HashSet::new();
    // SAFETY: registered and unregistered here; an error does so at abort.
    unsafe {
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        for (table, column) in [(c"data_file", 4), (c"hot_image", 2), (c"storage", 5)] {
            Table::read(table).scan(None, &[], snapshot, |row| {
                let path = row.text(column);
                found.extend(path.filter(|p| p.starts_with(&prefix) || p == directory));
                true
            });
        }
        pg_sys::UnregisterSnapshot(snapshot);
    }
    // Older snapshots may need these: they go when garbage does.
    found.extend(garbage::paths());
    found
}

/// What an ended intent has left unregistered; the table's directory, too, if no file is left in it.
fn orphans(intent: &intent::Ended) -> Vec<String> {
    let data = intent.directory.as_str();
    let directory = data.strip_suffix("/data").unwrap_or(data);
    let keep = registered(directory);
    // A directory that is garbage goes as a whole, once nobody needs what was registered in it.
    let is_around = |path: &String| path.ends_with('/') && data.starts_with(path);
    if keep.iter().any(is_around) {
        return vec![];
    }
    // The table was made, or moved here, by a transaction that was rolled back.
    let abandoned = !keep.contains(directory);
    let prefix = format!("{}-", intent.prefix);
    let files = files_below(directory);
    let mut orphans: Vec<String> = files
        .iter()
        .filter(|path| {
            let name = path.rsplit('/').next().unwrap_or(path);
            !keep.contains(*path) && (abandoned || name.starts_with(&prefix))
        })
        .cloned()
        .collect();
    if orphans.len() == files.len() {
        orphans.push(format!("{directory}/"));
    }
    orphans
}

/// Undoes a publication whose transaction was rolled back; returns the number of files. `None`: it was
/// not, or its table is being published again, which writes the same version hint.
fn undo_publication(intent: &intent::Ended, commit_id: &str) -> Option<u64> {
    let relation = storage::relation(intent.storage);
    if relation.is_some_and(|relid| !publication::try_lock(relid)) || !intent::is_left(intent) {
        return None;
    }
    let orphans = files_below(&intent.directory)
        .into_iter()
        .filter(|path| {
            let name = path.rsplit('/').next().unwrap_or(path);
            name.contains(commit_id)
        })
        .collect();
    let mut removed = remove(orphans);
    // Last, as it writes a file of the same name, too, before it renames it.
    match (
        publication::find(intent.storage),
        storage::parse_uuid(commit_id),
    ) {
        (Some(published), Some(commit_id)) => {
            let reply = ask(Request::SetHint {
                metadata_location: published.metadata_location,
                commit_id,
            });
            if reply != Reply::HintSet {
                unexpected(&reply);
            }
        }
        _ => {
            removed += remove(vec![format!(
                "{}/metadata/version-hint.text",
                intent.directory
            )])
        }
    }
    crash_point(CrashPoint::SweepPublication);
    Some(removed)
}

/// Removes files that ended intents have left unregistered, and garbage that no snapshot needs.
pub fn sweep_now() -> u64 {
    // In a copy of a database the files belong to the original.
    crate::catalog::storage::incarnation();
    let sweep = || crate::pg::as_extension_owner(remove_unneeded);
    progress::report(Command::Sweep, pg_sys::InvalidOid, sweep)
}

fn remove_unneeded() -> u64 {
    let mut removed = 0;
    // One sweep at a time: two would remove the same entries.
    // SAFETY: released at the end of the transaction; conflicts with no writer of the table.
    unsafe {
        pg_sys::LockRelationOid(
            relation_oid(c"garbage"),
            pg_sys::ShareUpdateExclusiveLock as i32,
        );
    }
    progress::phase(Phase::RemovingLeftovers, None);
    // An owner that has ended here has ended before `registered` takes its snapshot.
    for intent in intent::ended() {
        if let Some(commit_id) = intent.publication() {
            if let Some(files) = undo_publication(&intent, commit_id) {
                removed += files;
                intent::remove(&intent);
            }
            continue;
        }
        removed += remove(orphans(&intent));
        crash_point(CrashPoint::SweepIntent);
        intent::remove(&intent);
    }
    intent::forget_entries_without(crate::catalog::storage::exists);
    progress::phase(Phase::RemovingGarbage, None);
    for entry in garbage::removable() {
        let paths = match entry.path.strip_suffix('/') {
            Some(directory) => {
                let mut all = files_below(directory);
                all.push(entry.path.clone());
                if entry.dropped {
                    crate::catalog::storage::purge(entry.storage);
                }
                all
            }
            None => vec![entry.path.clone()],
        };
        removed += remove(paths);
        crash_point(CrashPoint::SweepGarbage);
        garbage::remove(&entry);
    }
    removed
}
