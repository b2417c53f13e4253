//! Files and directories in `lake.garbage` that nobody needs any more.

use super::{FILES_PER_ROUND, Round, is_of_place, setbacks};
use crate::catalog::garbage::{self, Garbage};
use crate::catalog::storage;
use crate::files;
use crate::pg::subtransaction::attempt;
use pg_lake_crash::{CrashPoint, crash_point};
use pgrx::pg_sys;
use std::collections::BTreeMap;

pub fn remove(round: &mut Round<'_>) {
    garbage::release(round.retention_us);
    if round.room == 0 {
        round.left = true;
        return;
    }
    let mut known = BTreeMap::new();
    let mut is_read = |storage: i64| {
        let builds = || builds_index(storage);
        *known.entry(storage).or_insert_with(builds)
    };
    let entries = garbage::removable(round.retention_us, FILES_PER_ROUND, |entry| {
        round.is_waiting(&entry.path) || (entry.clustered && is_read(entry.storage))
    });
    round.left |= entries.len() == FILES_PER_ROUND;
    let (directories, files): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|entry| entry.path.ends_with('/'));
    let mut places: BTreeMap<String, Vec<Garbage>> = BTreeMap::new();
    for file in files {
        let place = setbacks::place_of(&file.path).to_owned();
        places.entry(place).or_default().push(file);
    }
    for files in places.values() {
        remove_files(files, round);
    }
    for directory in &directories {
        if round.room == 0 {
            round.left = true;
            return;
        }
        remove_directory(directory, round);
    }
}

/// Whether an index of the table of a storage may be being built: it may have found, a moment ago, that some snapshot
/// saw rows of files that CLUSTER has replaced. One that begins from now on finds that none does, as this sweep has.
fn builds_index(storage: i64) -> bool {
    let Some(relid) = storage::relation(storage) else {
        return false;
    };
    let mode = pg_sys::RowExclusiveLock as i32;
    // SAFETY: a heavyweight lock, which is given back.
    unsafe {
        let free = pg_sys::ConditionalLockRelationOid(relid, mode);
        if free {
            pg_sys::UnlockRelationOid(relid, mode);
        }
        !free
    }
}

/// Removes files of one place. If some can't be, these are found by removing ever fewer at once.
fn remove_files(entries: &[Garbage], round: &mut Round<'_>) {
    let Some(first) = entries.first() else {
        return;
    };
    // Its place may be out of reach since a moment ago.
    if round.is_waiting(&first.path) {
        return;
    }
    let paths: Vec<String> = entries.iter().map(|entry| entry.path.clone()).collect();
    match attempt(|| files::remove(&paths)) {
        Ok(removed) => {
            round.took(entries.len(), removed);
            entries.iter().for_each(|entry| forget(entry, round));
        }
        Err(failure) if entries.len() == 1 || is_of_place(&failure) => {
            round.failed(&first.path, &failure);
        }
        Err(_) => {
            let (one, other) = entries.split_at(entries.len() / 2);
            remove_files(one, round);
            remove_files(other, round);
        }
    }
}

/// Removes a directory with all that is in it, as far as there is room.
fn remove_directory(entry: &Garbage, round: &mut Round<'_>) {
    if round.is_waiting(&entry.path) {
        return;
    }
    let room = round.room;
    let outcome = attempt(|| {
        let mut paths = files::below(entry.path.trim_end_matches('/'));
        let fits = paths.len() <= room;
        paths.truncate(room);
        let files = paths.len();
        if fits {
            paths.push(entry.path.clone());
        }
        (files, files::remove(&paths), fits)
    });
    match outcome {
        Ok((files, removed, fits)) => {
            round.took(files, removed);
            if fits {
                if entry.dropped {
                    storage::purge(entry.storage);
                }
                forget(entry, round);
            } else {
                round.left = true;
            }
        }
        Err(failure) => round.failed(&entry.path, &failure),
    }
}

/// What it was about is gone.
fn forget(entry: &Garbage, round: &mut Round<'_>) {
    crash_point(CrashPoint::SweepGarbage);
    garbage::remove(entry);
    round.setbacks.succeeded(&entry.path);
}
