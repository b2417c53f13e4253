//! What a table has published last, against the files and against what the catalog says.

use super::Known;
use super::listing::{Listing, table_of};
use super::problem::Problems;
use crate::catalog::publication::{self, Content, Publication};
use crate::catalog::storage::Storage;
use crate::pg;
use crate::pg::subtransaction::attempt;
use crate::ring::call::ask;
use crate::sql::maintenance::unexpected;
use pg_lake_plan::message::{CheckedTable, Reply, Request};
use std::collections::{BTreeSet, HashSet};

/// The path in the catalog of a location in metadata.
fn in_catalog(location: &str) -> String {
    pg::relative(local(location))
}

/// A location as the catalog's paths become when they are made absolute.
fn local(location: &str) -> &str {
    location.strip_prefix("file://").unwrap_or(location)
}

/// Looks at the published metadata of a storage: the paths of all files that they name, if they could be
/// read. `listing` is from before the catalog was read.
pub fn check(
    storage: &Storage,
    known: &Known,
    listing: &Listing,
    problems: &mut Problems,
) -> Option<BTreeSet<String>> {
    let Some(publication) = &known.publication else {
        return Some(BTreeSet::new());
    };
    let metadata = in_catalog(&publication.metadata_location);
    let metadata_location = publication.metadata_location.clone();
    let reply = match attempt(|| ask(Request::CheckTable { metadata_location })) {
        Ok(reply) => reply,
        Err(failure) => {
            let detail = format!("The published metadata can't be read: {}.", failure.message);
            problems.error("unreadable_metadata", &metadata, detail);
            return None;
        }
    };
    let Reply::Checked(found) = reply else {
        unexpected(&reply)
    };
    for (path, reason) in &found.unreadable {
        let detail = format!("The published metadata refer to it, and it can't be read: {reason}.");
        problems.error("unreadable_metadata", &in_catalog(path), detail);
    }
    let is_whole = found.unreadable.is_empty();
    identity(storage, publication, &metadata, &found, problems);
    if is_whole {
        contents(publication, &metadata, &found, problems);
    }
    hint(publication, &metadata, &found, problems);
    let references: BTreeSet<String> = found.references.iter().map(|r| in_catalog(r)).collect();
    presence(&references, &found, listing, problems);
    data_files(known, &found, problems);
    discarded(known, &references, problems);
    is_whole.then_some(references)
}

fn identity(
    storage: &Storage,
    publication: &Publication,
    metadata: &str,
    found: &CheckedTable,
    problems: &mut Problems,
) {
    if found.table_uuid != storage.uuid {
        problems.error(
            "wrong_metadata",
            metadata,
            "The published metadata are of another Iceberg table.",
        );
    }
    if found.current_snapshot_id != Some(publication.snapshot_id) {
        let id = |id: Option<i64>| id.map_or("none".to_owned(), |id| id.to_string());
        problems.error(
            "wrong_snapshot",
            metadata,
            format!(
                "The current snapshot is {}, the last publication made {}.",
                id(found.current_snapshot_id),
                publication.snapshot_id
            ),
        );
    }
}

/// The data files of the current snapshot are those that the publication has had written.
fn contents(
    publication: &Publication,
    metadata: &str,
    found: &CheckedTable,
    problems: &mut Problems,
) {
    let files = found.data_files.iter().map(|file| Content {
        path: local(&file.path),
        size: file.size,
        rows: file.rows,
        deleted: file.deleted,
    });
    if publication::contents(files.collect()) != publication.contents {
        problems.error(
            "wrong_contents",
            metadata,
            format!(
                "The current snapshot has {} data files; they or their deletions are not the ones of the last publication, \
                 which had {} data files.",
                found.data_files.len(),
                publication.contents >> 32
            ),
        );
    }
}

fn hint(publication: &Publication, metadata: &str, found: &CheckedTable, problems: &mut Problems) {
    let says = |hint: &String| {
        let name = format!("/{hint}.metadata.json");
        publication.metadata_location.ends_with(&name)
    };
    let object = format!("{}/metadata/version-hint.text", table_of(metadata));
    match &found.hint {
        None => problems.warning("version_hint", &object, "There is no version hint."),
        Some(hint) if !says(hint) => {
            let detail = format!("The version hint names \"{hint}\", not the published metadata.");
            problems.warning("version_hint", &object, detail);
        }
        Some(_) => {}
    }
}

/// All files that the metadata name are there, and as large as they say.
fn presence(
    references: &BTreeSet<String>,
    found: &CheckedTable,
    listing: &Listing,
    problems: &mut Problems,
) {
    // What is newer than that listing, or in a directory that the table has left.
    let mut now = Listing::default();
    let mut size_of = |path: &str| {
        if let Some(size) = listing.size(path) {
            return Ok(Some(size));
        }
        now.add(table_of(path)).map(|()| now.size(path))
    };
    let mut unlisted: HashSet<String> = HashSet::new();
    for path in references {
        let directory = table_of(path);
        if unlisted.contains(directory) {
            continue;
        }
        match size_of(path) {
            Ok(Some(_)) => {}
            Ok(None) => problems.error(
                "missing_published_file",
                path,
                "The published metadata refer to it, and it is not there.",
            ),
            Err(failure) => {
                let detail = format!("It can't be listed: {}.", failure.message);
                problems.error("unreadable_directory", directory, detail);
                unlisted.insert(directory.to_owned());
            }
        }
    }
    for file in &found.data_files {
        let path = in_catalog(&file.path);
        if !unlisted.contains(table_of(&path))
            && let Ok(Some(size)) = size_of(&path)
            && size != file.size
        {
            let detail = format!("It has {size} bytes, and was published with {}.", file.size);
            problems.error("wrong_size", &path, detail);
        }
    }
}

/// The current snapshot has no other data files than those that the catalog knows, or knew.
fn data_files(known: &Known, found: &CheckedTable, problems: &mut Problems) {
    let entries: HashSet<&str> = known.entries.iter().map(|e| e.path.as_str()).collect();
    let images: HashSet<&str> = known.hot_images.iter().map(String::as_str).collect();
    for file in &found.data_files {
        let path = in_catalog(&file.path);
        if !entries.contains(path.as_str())
            && !images.contains(path.as_str())
            && !known.is_garbage(&path)
        {
            problems.error(
                "unknown_published_file",
                &path,
                "The current snapshot refers to it, and the catalog doesn't know it.",
            );
        }
    }
}

/// What the metadata name is not about to be removed.
fn discarded(known: &Known, references: &BTreeSet<String>, problems: &mut Problems) {
    for garbage in known.garbage.iter().filter(|garbage| !garbage.published) {
        let named = match garbage.path.strip_suffix('/') {
            None => references.contains(&garbage.path),
            Some(_) => references
                .range(garbage.path.clone()..)
                .next()
                .is_some_and(|path| path.starts_with(&garbage.path)),
        };
        if named {
            problems.error(
                "published_garbage",
                &garbage.path,
                "It is about to be removed, and the published metadata refer to it.",
            );
        }
    }
}
