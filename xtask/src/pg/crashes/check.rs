//! What must hold when the server is back.

use super::model::{Heard, PUBLISHED, Writer};
use crate::cluster::Cluster;
use crate::pg::random::Random;
use crate::pg::wait_until;
use crate::python::Python;
use crate::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tables with their rows by heap and index, in the engine and without it.
pub fn twins(cluster: &Cluster) -> Result<()> {
    cluster
        .sql("CALL compare_all('on'); CALL compare_all('off');")
        .map(drop)
}

/// Every transaction that a session has heard the preparation of is still prepared, unless the session may have
/// ended it. Ends those that are, one way or the other, and returns whether there were any.
pub fn prepared(
    cluster: &Cluster,
    heard: &mut Heard,
    writers: &[Writer],
    random: &mut Random,
) -> Result<bool> {
    let mut there = BTreeSet::new();
    for gid in cluster.sql("SELECT gid FROM pg_prepared_xacts")?.lines() {
        let txn: u64 = gid.parse().map_err(|_| format!("not a number: {gid}"))?;
        if !writers.iter().any(|writer| writer.has_sent(txn)) {
            return Err(format!("nobody has prepared transaction {txn}"));
        }
        if heard.has_ended(txn) {
            return Err(format!("transaction {txn} has ended and is prepared"));
        }
        there.insert(txn);
    }
    // Of the others the ledger has to have what their session wanted.
    for (txn, commit) in heard.prepared.clone() {
        if !there.contains(&txn) && !heard.has_ended(txn) {
            heard.end(txn, commit);
        }
    }
    for txn in &there {
        let commit = random.below(2) == 0;
        let end = if commit { "COMMIT" } else { "ROLLBACK" };
        cluster.sql(&format!("{end} PREPARED '{txn}'"))?;
        heard.end(*txn, commit);
    }
    Ok(!there.is_empty())
}

/// Every transaction that a session has heard the commit of is there, none that it has rolled back,
/// and none that nobody has sent.
pub fn ledger(cluster: &Cluster, heard: &Heard, writers: &[Writer]) -> Result<()> {
    let rows = cluster.sql("SELECT txn FROM l")?;
    let mut there = BTreeSet::new();
    for line in rows.lines() {
        let txn: u64 = line.parse().map_err(|_| format!("not a number: {line}"))?;
        if !writers.iter().any(|writer| writer.has_sent(txn)) {
            return Err(format!("nobody has sent transaction {txn}, which is there"));
        }
        if !there.insert(txn) {
            return Err(format!("transaction {txn} is there twice"));
        }
    }
    let lost = heard.committed.iter().find(|txn| !there.contains(txn));
    if let Some(txn) = lost {
        return Err(format!("transaction {txn} was committed and is lost"));
    }
    match heard.undone.iter().find(|txn| there.contains(txn)) {
        Some(txn) => Err(format!("transaction {txn} was rolled back and is there")),
        None => Ok(()),
    }
}

/// The published tables and where their metadata are; a table that was just truncated has none.
fn pointers(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let names: Vec<String> = PUBLISHED
        .iter()
        .map(|(_, table)| format!("'{table}'"))
        .collect();
    let rows = cluster.sql(&format!(
        "SELECT table_name, metadata_location FROM lake.tables
         WHERE table_name IN ({}) AND metadata_location IS NOT NULL",
        names.join(", ")
    ))?;
    Ok(rows
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, location)| (name.to_owned(), location.to_owned()))
        .collect())
}

/// What publishing transactions have recorded, by location.
fn recorded(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let rows = cluster.sql("SELECT * FROM published")?;
    Ok(rows
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(location, sums)| (location.to_owned(), sums.to_owned()))
        .collect())
}

/// The metadata that the pointers name are those of committed publications and have what the heap
/// tables had in their transactions; with `anew`, also of new ones now that nobody writes. After a
/// sweep there is no other file than those that the catalogs or these metadata name, and all of them
/// are there.
pub fn published(cluster: &Cluster, python: &Python, anew: bool) -> Result<()> {
    let before = pointers(cluster)?;
    let mut after = before.clone();
    if anew {
        cluster.sql("CALL publish_twins()")?;
        after = pointers(cluster)?;
        if after.len() != PUBLISHED.len() {
            return Err(format!("{} tables are published", after.len()));
        }
        present(cluster, &after)?;
    }
    // Snapshots that only the earlier metadata refer to may be swept at any time.
    let mut locations: BTreeMap<&String, bool> = BTreeMap::new();
    locations.extend(before.values().map(|location| (location, false)));
    locations.extend(after.values().map(|location| (location, true)));
    let read = Read::by(python, cluster, &locations)?;
    let recorded = recorded(cluster)?;
    for location in locations.into_keys() {
        match (recorded.get(location), read.states.get(location)) {
            (Some(recorded), Some(found)) if recorded == found => {}
            (recorded, found) => {
                return Err(format!(
                    "{location}: pyiceberg finds {found:?}, published was {recorded:?}"
                ));
            }
        }
    }
    let referred: BTreeSet<PathBuf> = after
        .values()
        .flat_map(|location| read.files.get(location))
        .flatten()
        .map(|file| local(file))
        .collect();
    cluster.sql(VACUUM)?;
    files(cluster, &referred)?;
    after.values().try_for_each(|location| hint(location))
}

/// The new metadata are of the present state.
fn present(cluster: &Cluster, pointers: &BTreeMap<String, String>) -> Result<()> {
    for (heap, table) in PUBLISHED {
        let location = pointers.get(*table).map_or("", String::as_str);
        let differs = cluster.sql(&format!(
            "SELECT format('SELECT count(*) FROM (%s) s (a, b, c, d), published p WHERE p.location = %L
                            AND (p.rows, p.ids, p.ns, p.chars) = (s.a, s.b, s.c, s.d)', sums('{heap}'), '{location}')
             \\gexec"
        ))?;
        if differs != "1" {
            return Err(format!(
                "table {table} was published anew and differs from {heap}: {location}"
            ));
        }
    }
    Ok(())
}

const VACUUM: &str =
    "VACUUM t, b, c, p, l, lake.row_mark, lake.file_mark, lake.anchor, lake.intent, lake.garbage;";

/// What an outside reader makes of metadata, by location.
struct Read {
    states: BTreeMap<String, String>,
    files: BTreeMap<String, Vec<String>>,
}

impl Read {
    /// `locations`: with whether the files that they refer to are wanted.
    fn by(python: &Python, cluster: &Cluster, locations: &BTreeMap<&String, bool>) -> Result<Read> {
        let wanted: String = locations
            .iter()
            .map(|(location, files)| format!("{location}\t{}\n", if *files { "yes" } else { "no" }))
            .collect();
        let text = python
            .script("published.py", cluster)
            .stdin(wanted)
            .ok()
            .context("published metadata can't be read")?;
        let mut read = Read {
            states: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        for line in text.lines() {
            let mut fields = line.splitn(3, '\t');
            match (fields.next(), fields.next(), fields.next()) {
                (Some("state"), Some(location), Some(sums)) => {
                    read.states.insert(location.to_owned(), sums.to_owned());
                }
                (Some("file"), Some(location), Some(path)) => {
                    let files = read.files.entry(location.to_owned()).or_default();
                    files.push(path.to_owned());
                }
                _ => return Err(format!("unexpected line of published.py: {line:?}")),
            }
        }
        Ok(read)
    }
}

fn local(location: &str) -> PathBuf {
    PathBuf::from(location.strip_prefix("file://").unwrap_or(location))
}

/// The version hint names the metadata that the pointer does.
fn hint(location: &str) -> Result<()> {
    let metadata = local(location);
    let file = metadata.with_file_name("version-hint.text");
    let hint = fs::read_to_string(&file).context(file.display())?;
    let name = metadata.file_name().and_then(|name| name.to_str());
    if name == Some(&format!("{hint}.metadata.json")) {
        Ok(())
    } else {
        Err(format!(
            "{} is {hint:?}, published is {location}",
            file.display()
        ))
    }
}

/// Sweep until no file is left that nothing names: a snapshot may have been in the way.
fn files(cluster: &Cluster, referred: &BTreeSet<PathBuf>) -> Result<()> {
    let data = cluster.data();
    let data = data.canonicalize().context(data.display())?;
    let mut wrong = String::new();
    let settled = wait_until(Duration::from_secs(30), "files", || {
        cluster.sql("SELECT lake.sweep()")?;
        wrong = disagreement(cluster, &data, referred)?;
        Ok(wrong.is_empty())
    });
    settled.map_err(|error| format!("{error}\n{wrong}"))
}

/// What differs between the files that there are and those that are named; empty if nothing does.
fn disagreement(cluster: &Cluster, data: &Path, referred: &BTreeSet<PathBuf>) -> Result<String> {
    let intents = cluster.sql("SELECT count(*) FROM lake.intent WHERE prefix <> 'entries'")?;
    if intents != "0" {
        return Ok(format!("{intents} intents are left"));
    }
    let absolute =
        |rows: String| -> Vec<PathBuf> { rows.lines().map(|path| data.join(path)).collect() };
    let needed = absolute(
        cluster.sql("SELECT path FROM lake.data_file UNION SELECT path FROM lake.hot_image")?,
    );
    // A directory is as good as all of its files.
    let garbage = absolute(cluster.sql("SELECT path FROM lake.garbage")?);
    let there = files_below(&data.join("base"));
    let mut wrong = Vec::new();
    for file in &there {
        let hint = file.ends_with("version-hint.text")
            && referred.iter().any(|path| path.parent() == file.parent());
        if !hint
            && !referred.contains(file)
            && !needed.contains(file)
            && !garbage.iter().any(|path| file.starts_with(path))
        {
            wrong.push(format!("nothing names {}", file.display()));
        }
    }
    for file in needed.iter().chain(referred) {
        if !there.contains(file) {
            wrong.push(format!("{} is missing", file.display()));
        }
    }
    Ok(wrong.join("\n"))
}

/// All files in the directories `lake` of the databases.
fn files_below(base: &Path) -> BTreeSet<PathBuf> {
    let mut pending: Vec<PathBuf> = fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        .map(|database| database.path().join("lake"))
        .collect();
    let mut found = BTreeSet::new();
    while let Some(directory) = pending.pop() {
        // Directories come and go, and most databases have none.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(_) => {
                    found.insert(entry.path());
                }
                Err(_) => {}
            }
        }
    }
    found
}
