//! All tables of the database, and what is of no table.

use super::listing::{Listing, is_at_or_below, table_of};
use super::problem::{Problem, Problems, Severity, confirmed};
use super::{is_garbage, table};
use crate::catalog::{garbage, intent, locate, storage};
use crate::flush::Relation;
use crate::pg::subtransaction::attempt;
use crate::pg::table::Table;
use crate::{error, pg};
use pgrx::{PgSqlErrorCode, Spi, pg_sys};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;

/// What is wrong, with the table that it is about.
pub fn database() -> Vec<(Option<pg_sys::Oid>, Problem)> {
    let mut found = vec![];
    for relid in tables() {
        pg::check_for_interrupts();
        found.extend(one(relid).into_iter().map(|problem| (Some(relid), problem)));
    }
    let others = confirmed(|| {
        let mut problems = Problems::default();
        storages(&mut problems);
        locate::latest(|snapshot| rows_of_none(snapshot, &mut problems));
        if storage::is_own() {
            directories(&mut problems);
        } else {
            problems.notice(
                "copied_database",
                "lake.control",
                "The files of this database's tables belong to the database that it was copied from.",
            );
        }
        problems
    });
    found.extend(others.into_iter().map(|problem| (None, problem)));
    found
}

fn one(relid: pg_sys::Oid) -> Vec<Problem> {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: closed with the value.
    let rel = unsafe { pg_sys::try_relation_open(relid, lock) };
    if rel.is_null() {
        return vec![]; // gone in the meantime
    }
    let rel = Relation(rel);
    let found = attempt(|| table(&rel)).unwrap_or_else(|failure| {
        vec![Problem {
            severity: Severity::Error,
            kind: "unreadable_table",
            object: pg::relation_name(rel.0),
            detail: format!("It can't be checked: {}.", failure.message),
        }]
    });
    drop(rel);
    // So many locks are not to be held to the end.
    // SAFETY: the lock that was taken here.
    unsafe { pg_sys::UnlockRelationOid(relid, lock) };
    found
}

/// The permanent iceberg tables.
fn tables() -> Vec<pg_sys::Oid> {
    let query = "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am a ON a.oid OPERATOR(pg_catalog.=) c.relam \
         WHERE a.amname OPERATOR(pg_catalog.=) 'iceberg' AND c.relkind IN ('r', 'm') \
         AND c.relpersistence OPERATOR(pg_catalog.=) 'p' ORDER BY c.oid";
    let mut found = vec![];
    select(query, |row| {
        found.extend(row.get::<pg_sys::Oid>(1).ok().flatten());
    });
    found
}

fn select(query: &str, mut f: impl FnMut(&pgrx::spi::SpiHeapTupleData<'_>)) {
    Spi::connect(|client| match client.select(query, None, &[]) {
        Ok(rows) => rows.for_each(|row| f(&row)),
        Err(e) => error::raise(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            &format!("could not read the catalogs: {e}"),
            None,
            None,
        ),
    });
}

/// Each storage is that of a table.
fn storages(problems: &mut Problems) {
    let query = "SELECT s.storage_id, s.directory FROM lake.storage s WHERE NOT EXISTS ( \
         SELECT FROM pg_catalog.pg_class c WHERE c.relfilenode OPERATOR(pg_catalog.=) s.relfilenumber \
         AND COALESCE(NULLIF(c.reltablespace, 0::pg_catalog.oid), (SELECT d.dattablespace FROM pg_catalog.pg_database d \
         WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())) OPERATOR(pg_catalog.=) s.tablespace) \
         ORDER BY s.storage_id";
    select(query, |row| {
        let directory = row.get::<String>(2).ok().flatten().unwrap_or_default();
        let id = row.get::<i64>(1).ok().flatten().unwrap_or_default();
        let detail = format!("Storage {id} is of no table.");
        problems.warning("storage_without_table", &directory, detail);
    });
}

/// Rows of storages that aren't there and don't wait to be removed.
fn rows_of_none(snapshot: pg_sys::Snapshot, problems: &mut Problems) {
    let mut known: BTreeSet<i64> = BTreeSet::new();
    Table::read(c"storage").scan(None, &[], snapshot, |row| {
        known.insert(row.int8(1));
        true
    });
    let garbage = garbage::list(snapshot);
    known.extend(garbage.iter().filter(|g| g.dropped).map(|g| g.storage));
    // An anchor survives an abort, also that of the transaction that has made the table.
    let catalogs: [(&'static CStr, Severity); 7] = [
        (c"data_file", Severity::Error),
        (c"publication", Severity::Error),
        (c"hot_image", Severity::Warning),
        (c"row_mark", Severity::Warning),
        (c"file_mark", Severity::Warning),
        (c"missing_value", Severity::Warning),
        (c"anchor", Severity::Notice),
    ];
    for (name, severity) in catalogs {
        let mut strays: BTreeMap<i64, u64> = BTreeMap::new();
        Table::read(name).scan(None, &[], snapshot, |row| {
            let id = row.int8(1);
            if !known.contains(&id) {
                *strays.entry(id).or_default() += 1;
            }
            true
        });
        for (id, rows) in strays {
            let object = format!("lake.{} of storage {id}", name.to_string_lossy());
            let detail = format!("Rows of a storage that is not there: {rows}.");
            problems.add(severity, "rows_without_storage", object, detail);
        }
    }
}

/// The directories of all tables of this database, as far as something tells of them.
fn roots() -> BTreeSet<String> {
    // SAFETY: globals of this backend; the path is copied at once.
    let database = unsafe {
        let path = pg_sys::GetDatabasePath(pg_sys::MyDatabaseId, pg_sys::MyDatabaseTableSpace);
        let directory = CStr::from_ptr(path).to_string_lossy().into_owned();
        pg_sys::pfree(path.cast());
        directory
    };
    let mut directories = table_directories(std::ptr::null_mut());
    directories.insert(format!("{database}/lake/{}/0", storage::incarnation()));
    let above = |directory: &String| Some(directory.rsplit_once('/')?.0.to_owned());
    directories.iter().filter_map(above).collect()
}

/// The directories of storages, of those that were dropped or have moved, and of intents.
fn table_directories(snapshot: pg_sys::Snapshot) -> BTreeSet<String> {
    let mut directories = BTreeSet::new();
    Table::read(c"storage").scan(None, &[], snapshot, |row| {
        directories.extend(row.text(5));
        true
    });
    let garbage = garbage::list(snapshot).into_iter();
    directories.extend(garbage.filter_map(|g| Some(g.path.strip_suffix('/')?.to_owned())));
    let intents = intent::announced(snapshot).into_iter();
    directories.extend(
        intents.map(|intent| match intent.directory.strip_suffix("/data") {
            Some(directory) => directory.to_owned(),
            None => intent.directory,
        }),
    );
    directories
}

/// Directories below the roots that belong to nothing.
fn directories(problems: &mut Problems) {
    let mut listing = Listing::default();
    for root in roots() {
        if let Err(failure) = listing.add(&root) {
            let detail = format!("It can't be listed: {}.", failure.message);
            problems.error("unreadable_directory", &root, detail);
        }
    }
    locate::latest(|snapshot| {
        let known = table_directories(snapshot);
        let garbage = garbage::list(snapshot);
        let mut strays: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (path, size) in listing.files() {
            let directory = table_of(path);
            if !known.contains(directory) && !is_garbage(&garbage, path) {
                let (files, bytes) = strays.entry(directory).or_default();
                *files += 1;
                *bytes += size;
            }
        }
        for (directory, (files, bytes)) in strays {
            let is_known = known.iter().any(|known| is_at_or_below(directory, known));
            if !is_known {
                problems.warning(
                    "unreferenced_directory",
                    directory,
                    format!("Nothing refers to its {files} files of {bytes} bytes."),
                );
            }
        }
    });
}
