//! Check: compares what the catalog says of a table, the files that there are, and what was published, and
//! reports what doesn't fit together. It changes nothing.
//!
//! Others go on meanwhile. A file is written after it was announced and before it is registered, and is
//! removed after it was forgotten and no snapshot needs it. So the files that are to be there are those that
//! a snapshot sees from before they are listed; and those that are there have to be known to one from after.
//!
//! * `database`: all tables, and what belongs to none
//! * `entries`, `rows`: `lake.data_file`, and what refers to rows
//! * `listing`: the files
//! * `published`: Iceberg metadata
//! * [`problem`]: what is reported

mod database;
mod entries;
mod listing;
pub mod problem;
mod published;
mod rows;

pub use database::database;

use crate::catalog::garbage::{self, Discarded};
use crate::catalog::intent::{self, Announced};
use crate::catalog::locate;
use crate::catalog::publication::{self, Publication};
use crate::catalog::storage::{self, Storage};
use crate::flush::Relation;
use crate::pg;
use entries::Entry;
use listing::{Listing, is_at_or_below};
use pgrx::pg_sys;
use problem::{Problem, Problems, confirmed};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What is wrong with a table, which the caller has open.
pub fn table(rel: &Relation) -> Vec<Problem> {
    // SAFETY: the relation is open.
    let (persistence, locator) =
        unsafe { ((*(*rel.0).rd_rel).relpersistence as u8, (*rel.0).rd_locator) };
    if persistence != pg_sys::RELPERSISTENCE_PERMANENT {
        return vec![]; // stays hot
    }
    confirmed(|| {
        let mut problems = Problems::default();
        match storage::find(locator.spcOid, locator.relNumber) {
            Some(storage) => look(&storage, &mut problems),
            None => problems.error(
                "table_without_storage",
                &pg::relation_name(rel.0),
                "Its file is not in lake.storage, so that its cold rows can't be found.",
            ),
        }
        problems
    })
}

/// What the catalog says of a storage, as of one snapshot.
struct Known {
    entries: Vec<Entry>,
    hot_images: Vec<String>,
    /// Of all storages.
    garbage: Vec<Discarded>,
    intents: Vec<Announced>,
    publication: Option<Publication>,
}

impl Known {
    fn of(storage: &Storage, snapshot: pg_sys::Snapshot) -> Known {
        Known {
            entries: entries::list(storage.id, snapshot),
            hot_images: publication::hot_images(storage.id, snapshot),
            garbage: garbage::list(snapshot),
            intents: intent::announced(snapshot),
            publication: publication::find_as_of(storage.id, snapshot),
        }
    }

    /// Whether a file waits to be removed.
    fn is_garbage(&self, path: &str) -> bool {
        is_garbage(&self.garbage, path)
    }

    fn is_announced(&self, path: &str) -> bool {
        self.intents.iter().any(|intent| intent.covers(path))
    }
}

fn is_garbage(garbage: &[Discarded], path: &str) -> bool {
    garbage
        .iter()
        .any(|garbage| match garbage.path.strip_suffix('/') {
            Some(directory) => is_at_or_below(path, directory),
            None => path == garbage.path,
        })
}

fn look(storage: &Storage, problems: &mut Problems) {
    locate::latest(|before| {
        // As long as this snapshot is registered, none of these files is removed.
        let registered = entries::list(storage.id, before);
        let mut listing = Listing::default();
        let listed = listing.add(&storage.directory);
        locate::latest(|snapshot| {
            let known = Known::of(storage, snapshot);
            rows::check(storage.id, &known.entries, snapshot, problems);
            in_use(storage, &known, problems);
            if let Err(failure) = listed {
                let detail = format!("It can't be listed: {}.", failure.message);
                problems.error("unreadable_directory", &storage.directory, detail);
                return;
            }
            presence(&registered, &listing, problems);
            let references = published::check(storage, &known, &listing, problems);
            // In a copy of a database the files are the original's, which has others by now.
            if let Some(references) = references.filter(|_| storage::is_own()) {
                unreferenced(
                    storage,
                    &registered,
                    &known,
                    &references,
                    &listing,
                    problems,
                );
            }
        });
    });
}

/// What is registered is there, each file once.
fn presence(registered: &[Entry], listing: &Listing, problems: &mut Problems) {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in registered {
        *times.entry(&entry.path).or_default() += 1;
        match listing.size(&entry.path) {
            None => problems.error(
                "missing_file",
                &entry.path,
                format!("It has {} rows, and is not there.", entry.row_count),
            ),
            Some(size) if size != entry.size => problems.error(
                "wrong_size",
                &entry.path,
                format!("It has {size} bytes instead of {}.", entry.size),
            ),
            Some(_) => {}
        }
    }
    for (path, times) in times.into_iter().filter(|(_, times)| *times > 1) {
        let detail = format!("It is registered {times} times.");
        problems.error("duplicate_file", path, detail);
    }
}

/// Nothing that the table needs is about to be removed.
fn in_use(storage: &Storage, known: &Known, problems: &mut Problems) {
    let entries = known.entries.iter();
    let paths: HashSet<&String> = entries.map(|entry| &entry.path).collect();
    for garbage in &known.garbage {
        let needed = match garbage.path.strip_suffix('/') {
            Some(directory) => {
                is_at_or_below(&storage.directory, directory)
                    || paths.iter().any(|path| is_at_or_below(path, directory))
            }
            None => paths.contains(&garbage.path),
        };
        if needed || (garbage.dropped && garbage.storage == storage.id) {
            problems.error(
                "garbage_in_use",
                &garbage.path,
                "It is about to be removed, and the table needs it.",
            );
        }
    }
}

/// Files of the table's directory that nobody will ask for, and nobody remove.
fn unreferenced(
    storage: &Storage,
    registered: &[Entry],
    known: &Known,
    references: &BTreeSet<String>,
    listing: &Listing,
    problems: &mut Problems,
) {
    let entries = registered.iter().chain(&known.entries);
    let paths: HashSet<&str> = entries
        .map(|entry| entry.path.as_str())
        .chain(known.hot_images.iter().map(String::as_str))
        .collect();
    let hint = format!("{}/metadata/version-hint.text", storage.directory);
    for (path, size) in listing.files() {
        let is_hint = known.publication.is_some() && path == hint;
        if !is_hint
            && !paths.contains(path)
            && !references.contains(path)
            && !known.is_announced(path)
            && !known.is_garbage(path)
        {
            let detail = format!("Nothing refers to it; it has {size} bytes.");
            problems.warning("unreferenced_file", path, detail);
        }
    }
}
