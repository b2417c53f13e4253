//! Files that transactions have announced and not registered, as they were rolled back, or have registered,
//! so that the announcement is of no use any more.

use super::Round;
use crate::catalog::intent::{self, Ended};
use crate::catalog::{garbage, publication, storage, tablespace};
use crate::files;
use crate::pg::subtransaction::attempt;
use crate::pg::table::Table;
use crate::ring::call::ask;
use crate::sql::maintenance::unexpected;
use pg_lake_crash::{CrashPoint, crash_point};
use pg_lake_plan::message::{Reply, Request};
use pgrx::pg_sys;
use std::collections::HashSet;

/// What became of an intent.
enum Outcome {
    /// It stays as it is, for a later sweep.
    Stays,
    /// So many files are gone, so many of them just now. It is dealt with unless there are more, or more may come to be
    /// there: a store may serve requests that were given up.
    Removed {
        files: usize,
        removed: u64,
        more: bool,
        may_come: bool,
    },
}

/// A table's directory, looked at once for all intents about it.
struct Looked {
    directory: String,
    /// `None`: that failed.
    content: Option<Content>,
}

/// What is in a table's directory.
struct Content {
    /// What [`registered`] has found.
    keep: HashSet<String>,
    /// All of its files that this sweep has not removed.
    files: Vec<String>,
}

impl Content {
    fn of(directory: &str) -> Content {
        Content {
            keep: registered(directory),
            files: files::below(directory),
        }
    }

    /// These are gone.
    fn forget(&mut self, paths: &[String]) {
        if paths.is_empty() {
            return;
        }
        let gone: HashSet<&String> = paths.iter().collect();
        self.files.retain(|path| !gone.contains(path));
    }
}

pub fn remove(round: &mut Round<'_>) {
    // An owner that has ended here writes nothing after a directory is looked at, and has ended before `registered`
    // takes its snapshot.
    let mut intents = intent::ended();
    // One that comes due after its directory was looked at would be forgotten with what has come in between.
    intents.retain(|intent| intent.is_due(round.late_us));
    // Those of one directory follow each other.
    intents.sort_by(|a, b| table_directory(a).cmp(table_directory(b)));
    let mut looked: Option<Looked> = None;
    for intent in intents {
        if round.room == 0 {
            round.left = true;
            return;
        }
        let path = format!("{}/{}", intent.directory, intent.prefix);
        if round.is_waiting(&path) {
            continue;
        }
        let directory = table_directory(&intent);
        let is_known = looked.as_ref().is_some_and(|it| it.directory == directory);
        if !is_known {
            let content = attempt(|| Content::of(directory));
            if let Err(failure) = &content {
                round.failed(&path, failure);
            }
            looked = Some(Looked {
                directory: directory.to_owned(),
                content: content.ok(),
            });
        }
        let content = looked.as_mut().and_then(|it| it.content.as_mut());
        let Some(content) = content else {
            continue;
        };
        let room = round.room;
        match attempt(|| undo(&intent, content, room)) {
            Ok(Outcome::Stays) => {}
            Ok(Outcome::Removed {
                files,
                removed,
                more,
                may_come,
            }) => {
                round.took(files, removed);
                if more {
                    round.left = true;
                    continue;
                }
                if may_come && !intent.was_swept() && round.late_us > 0 {
                    intent::note_swept(&intent);
                } else {
                    intent::remove(&intent);
                }
                round.setbacks.succeeded(&path);
            }
            Err(failure) => round.failed(&path, &failure),
        }
    }
    intent::forget_entries_without(storage::exists);
}

/// The directory of the table that an intent is about.
fn table_directory(intent: &Ended) -> &str {
    let directory = intent.directory.as_str();
    match intent.publication() {
        Some(_) => directory,
        None => directory.strip_suffix("/data").unwrap_or(directory),
    }
}

fn undo(intent: &Ended, content: &mut Content, room: usize) -> Outcome {
    if let Some(commit_id) = intent.publication() {
        return undo_publication(intent, content, commit_id);
    }
    let mut paths = orphans(intent, content);
    let more = paths.len() > room;
    paths.truncate(room);
    let removed = files::remove(&paths);
    content.forget(&paths);
    crash_point(CrashPoint::SweepIntent);
    // Who has registered its files had an answer to all of its requests.
    let prefix = format!("{}/{}-", intent.directory, intent.prefix);
    let is_registered = content.keep.iter().any(|path| path.starts_with(&prefix));
    Outcome::Removed {
        files: paths.len(),
        removed,
        more,
        may_come: !is_registered && is_in_store(intent),
    }
}

fn is_in_store(intent: &Ended) -> bool {
    tablespace::location(&intent.directory).is_some()
}

/// What an ended intent has left unregistered below a table's directory; that, too, if no file is left in it.
fn orphans(intent: &Ended, content: &Content) -> Vec<String> {
    let (keep, files) = (&content.keep, &content.files);
    // A directory that is garbage goes as a whole, once nobody needs what was registered in it.
    let is_around = |path: &String| path.ends_with('/') && intent.directory.starts_with(path);
    if keep.iter().any(is_around) {
        return vec![];
    }
    let directory = table_directory(intent);
    // The table was made, or moved here, by a transaction that was rolled back.
    let abandoned = !keep.contains(directory);
    let prefix = format!("{}-", intent.prefix);
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

/// Undoes a publication whose transaction was rolled back, unless it was not, or its table is being
/// published again, which writes the same version hint.
fn undo_publication(intent: &Ended, content: &mut Content, commit_id: &str) -> Outcome {
    let relation = storage::relation(intent.storage);
    if relation.is_some_and(|relid| !publication::try_lock(relid)) || !intent::is_left(intent) {
        return Outcome::Stays;
    }
    let is_of_it = |path: &&String| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.contains(commit_id)
    };
    let paths: Vec<String> = content.files.iter().filter(is_of_it).cloned().collect();
    let mut removed = files::remove(&paths);
    content.forget(&paths);
    // Last, as it writes a file of the same name, too, before it renames it.
    match (
        publication::find(intent.storage),
        storage::parse_uuid(commit_id),
    ) {
        (Some(published), Some(commit_id)) => {
            let reply = ask(Request::SetHint {
                metadata_location: published.metadata_location,
                commit_id,
                provisional: false,
            });
            if reply != Reply::HintSet {
                unexpected(&reply);
            }
        }
        _ => {
            let hint = format!("{}/metadata/version-hint.text", intent.directory);
            removed += files::remove(&[hint]);
        }
    }
    crash_point(CrashPoint::SweepPublication);
    Outcome::Removed {
        files: paths.len(),
        removed,
        more: false,
        may_come: is_in_store(intent),
    }
}
