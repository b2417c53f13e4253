//! Whether the bucket has the objects that the catalogs name, and nothing else.

use super::rig::Rig;
use crate::cluster::Cluster;
use crate::pg::wait_until;
use crate::python::Python;
use crate::stores::Store;
use crate::{Context, Result};
use std::collections::BTreeSet;
use std::time::Duration;

/// For a sweep: transactions that have just ended are in other's snapshots for a while.
const LIMIT: Duration = Duration::from_secs(60);
/// An object of somebody else, which no sweep may touch.
pub const STRANGER: &str = "some/stranger";

/// How metadata are checked.
#[derive(Clone, Copy)]
pub enum Metadata<'a> {
    /// A reader follows them to all of their files.
    Read(&'a Python),
    /// They are where metadata are, of some table.
    Any,
}

impl Rig {
    /// Sweeps until there is nothing to do; then the bucket has exactly what it should.
    pub fn settled(&self, store: &Store, metadata: Metadata<'_>) -> Result<()> {
        let mut wrong = String::new();
        let settled = wait_until(LIMIT, "the bucket is settled", || {
            self.sql("SELECT lake.sweep()")?;
            wrong = self.disagreement(store, metadata)?;
            Ok(wrong.is_empty())
        });
        settled.map_err(|error| format!("{error}\n{wrong}"))
    }

    /// What differs; empty if nothing does.
    fn disagreement(&self, store: &Store, metadata: Metadata<'_>) -> Result<String> {
        let waiting = self.sql(
            "SELECT count(*) FROM lake.intent WHERE prefix <> 'entries' AND swept IS NULL
             UNION ALL SELECT count(*) FROM lake.garbage WHERE publication IS NULL",
        )?;
        if waiting != "0\n0" {
            return Ok(format!("intents and garbage are left: {waiting}"));
        }
        let needed =
            self.keys("SELECT path FROM lake.data_file UNION SELECT path FROM lake.hot_image")?;
        let garbage = self.keys("SELECT path FROM lake.garbage")?;
        let referred = match metadata {
            Metadata::Read(python) => self.referred(store, python)?,
            Metadata::Any => BTreeSet::new(),
        };
        let of_metadata = |key: &str| match metadata {
            Metadata::Read(_) => key.ends_with("/version-hint.text") && !referred.is_empty(),
            Metadata::Any => key.contains("/metadata/") || key.contains("-deletes."),
        };
        let there: BTreeSet<String> = store
            .objects("")?
            .into_iter()
            .map(|object| object.key)
            .collect();
        let mut wrong = Vec::new();
        for key in &there {
            // A directory is as good as all of its files.
            let is_garbage = garbage.iter().any(|path| key.starts_with(path));
            let named = needed.contains(key) || referred.contains(key);
            if !named && !is_garbage && !of_metadata(key) && key != STRANGER {
                wrong.push(format!("nothing names {key}"));
            }
        }
        for key in needed.union(&referred) {
            if !there.contains(key) {
                wrong.push(format!("{key} is missing"));
            }
        }
        Ok(wrong.join("\n"))
    }

    /// Those of the catalog's paths that a query gives which are in the bucket, as keys.
    fn keys(&self, query: &str) -> Result<BTreeSet<String>> {
        Ok(self
            .sql(&format!(
                "SELECT lake.object_location(path) FROM ({query}) q WHERE lake.object_location(path) IS NOT NULL"
            ))?
            .lines()
            .filter_map(|path| path.strip_prefix(&self.root))
            .map(str::to_owned)
            .collect())
    }

    /// All files that the published metadata lead to.
    fn referred(&self, store: &Store, python: &Python) -> Result<BTreeSet<String>> {
        let published = self
            .sql("SELECT metadata_location FROM lake.tables WHERE metadata_location IS NOT NULL")?;
        let wanted: String = published
            .lines()
            .filter(|location| location.starts_with(&self.root))
            .map(|location| format!("{location}\tyes\n"))
            .collect();
        if wanted.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut script = python.script("published.py", &self.cluster).stdin(wanted);
        for (name, value) in store.reader_env() {
            script = script.env(name, value);
        }
        let text = script.ok().context("published metadata can't be read")?;
        Ok(text
            .lines()
            .filter_map(|line| line.strip_prefix("file\t"))
            .filter_map(|line| line.split_once('\t'))
            .filter_map(|(_, path)| path.strip_prefix(&self.root))
            .map(str::to_owned)
            .collect())
    }

    /// Sweeps until the tablespace has no object left.
    pub fn emptied(&self, store: &Store) -> Result<()> {
        let mut left = Vec::new();
        let emptied = wait_until(LIMIT, "no object is left", || {
            self.sql("SELECT lake.sweep()")?;
            left = store.objects(super::rig::PREFIX)?;
            Ok(left.is_empty())
        });
        emptied.map_err(|error| match left.first() {
            Some(object) => format!("{error}; {} are, one is {}", left.len(), object.key),
            None => error,
        })
    }
}

/// Waits until all multipart uploads have an end. One that had just begun when its worker, or the store, was killed
/// need not.
pub fn no_uploads(store: &Store) -> Result<()> {
    let mut left = Vec::new();
    let ended = wait_until(LIMIT, "uploads have an end", || {
        left = store.uploads()?;
        Ok(left.is_empty())
    });
    ended.map_err(|error| format!("{error}: {}", left.join(", ")))
}

/// A value by value comparison of what an outside reader finds in a published table.
pub fn read_by(
    reader: &str,
    python: &Python,
    cluster: &Cluster,
    store: &Store,
    location: &str,
) -> Result<()> {
    let mut script = python
        .script("rows.py", cluster)
        .args([reader, "public", "t", location]);
    for (name, value) in store.reader_env() {
        script = script.env(name, value);
    }
    script
        .ok()
        .map(drop)
        .map_err(|error| format!("read by {reader}: {error}"))
}
