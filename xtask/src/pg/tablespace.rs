//! A table that goes to another tablespace: what a move leaves that didn't happen, who reads the old
//! files after one that did, and when they go.

use super::crash::parquet_files;
use super::disk::swept;
use super::{fill, must_be, must_fail, same_server, started_at, wait_until};
use crate::Result;
use crate::cluster::{Cluster, DATABASE, answer};
use crate::os;
use crate::test::Run;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROWS: &str =
    "SELECT count(*), sum(id), sum(amount), count(note), min(ctid), max(ctid) FROM t";

/// For a shell of psql: waits until there is a file of this name.
fn wait_for(file: &str) -> String {
    format!("timeout 60 sh -c 'until [ -e {file} ]; do sleep 0.1; done'")
}

pub fn set_tablespace(run: &mut Run) -> Result<()> {
    let away = run.work_dir("set_tablespace_away")?;
    // Postgres itself leaves a file of the heap there.
    let crashed = run.work_dir("set_tablespace_crashed")?;
    let mut cluster = run.cluster(
        "set_tablespace",
        &[
            ("lake.flush_interval", "-1"),
            ("lake.publish_interval", "-1"),
            ("lake.target_file_size", "1MB"),
        ],
    )?;
    for (name, dir) in [("away", &away), ("crashed", &crashed)] {
        cluster.sql(&format!(
            "CREATE TABLESPACE {name} LOCATION '{}'",
            dir.display()
        ))?;
    }
    fill(&cluster, "t", 1_000_000)?;
    cluster.sql("DELETE FROM t WHERE id % 100 = 0; INSERT INTO t VALUES (-1, 1, 1, 'hot')")?;
    let rows = cluster.sql(ROWS)?;
    let server = started_at(&cluster)?;
    given_up(&cluster, &away, &rows)?;
    same_server(&cluster, &server)?;
    killed(&mut cluster, &crashed, &rows)?;
    old_snapshot(run, &cluster, &rows)?;
    published(&cluster, &away, &rows)
}

/// A statement that runs out of time in any part of the move: the table is where it was, and the other
/// tablespace as empty as before.
fn given_up(cluster: &Cluster, away: &Path, rows: &str) -> Result<()> {
    for milliseconds in [1, 5, 20, 50, 100, 200] {
        let moved = cluster.sql(&format!(
            "SET statement_timeout = '{milliseconds}ms'; ALTER TABLE t SET TABLESPACE away;"
        ));
        match moved {
            Ok(_) => {
                cluster.sql("ALTER TABLE t SET TABLESPACE pg_default")?;
            }
            Err(error) if error.contains("statement timeout") => {}
            Err(error) => return Err(format!("after {milliseconds} ms: {error}")),
        }
        must_be(&cluster.sql(ROWS)?, rows, "rows after a move in vain")?;
    }
    // An intent that the maintainer sweeps at the moment is gone before its files are.
    wait_until(Duration::from_secs(30), "leftovers are swept", || {
        cluster.sql("SELECT lake.sweep()")?;
        Ok(parquet_files(away).is_empty())
    })?;
    swept(cluster, "intent")?;
    swept(cluster, "garbage")?;
    drop_tablespace(cluster, "away")?;
    cluster
        .sql(&format!(
            "CREATE TABLESPACE away LOCATION '{}'",
            away.display()
        ))
        .map(drop)
}

/// The server dies after everything was copied.
fn killed(cluster: &mut Cluster, crashed: &Path, rows: &str) -> Result<()> {
    let script = "BEGIN;
         ALTER TABLE t SET TABLESPACE crashed;
         SELECT lake.publish('t');
         \\! touch copied
         SELECT pg_sleep(120);\n";
    let busy = cluster.psql(DATABASE).stdin(script).start()?;
    let copied = cluster.dir.join("copied");
    wait_until(
        Duration::from_secs(60),
        "the copies",
        || Ok(copied.exists()),
    )?;
    if parquet_files(crashed).is_empty() {
        return Err("a move has copied nothing".to_owned());
    }
    cluster.kill9()?;
    // It lost its connection.
    let _ = busy.wait();
    cluster.start()?;
    must_be(&cluster.sql(ROWS)?, rows, "rows after a crash")?;
    wait_until(Duration::from_secs(60), "leftovers are swept", || {
        cluster.sql("SELECT lake.sweep()")?;
        Ok(!files_below(crashed).iter().any(|file| is_ours(file)))
    })
}

/// A REPEATABLE READ transaction opens the table for the first time after the move: it finds the files
/// where they were. They go after it.
fn old_snapshot(run: &Run, cluster: &Cluster, rows: &str) -> Result<()> {
    let old = data_files(cluster)?;
    let script = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ;
         SELECT count(*) > 0 FROM pg_class;
         \\! touch taken
         \\! {}
         SET lake.engine = on;
         {ROWS};
         SET lake.engine = off;
         {ROWS};
         COMMIT;\n",
        wait_for("moved")
    );
    let session = cluster.psql(DATABASE).stdin(script).start()?;
    let taken = cluster.dir.join("taken");
    wait_until(Duration::from_secs(60), "the old snapshot", || {
        Ok(taken.exists())
    })?;
    // What it doesn't see: it has the table as it was.
    cluster.sql(
        "ALTER TABLE t SET TABLESPACE away;
         INSERT INTO t SELECT g, g, g, 'new' FROM generate_series(2000001, 2020000) g;
         DELETE FROM t WHERE id % 100 = 1;
         SELECT lake.sweep();",
    )?;
    let gone = old.iter().filter(|file| !file.exists()).count();
    must_be(&gone.to_string(), "0", "files that an old snapshot needs")?;
    os::write_file(&cluster.dir.join("moved"), "", run.user.as_ref())?;
    must_be(
        &answer(session.wait()?)?,
        &format!("t\n{rows}\n{rows}"),
        "rows of an old snapshot",
    )?;
    swept(cluster, "garbage")?;
    match old.iter().find(|file| file.exists()) {
        Some(file) => Err(format!("{} is left", file.display())),
        None => Ok(()),
    }
}

/// What was published in a tablespace stays readable there after the table has left, until these
/// snapshots expire. Then the tablespace can be dropped.
fn published(cluster: &Cluster, away: &Path, before: &str) -> Result<()> {
    let rows = cluster.sql(ROWS)?;
    if rows == before {
        return Err("the table should have changed".to_owned());
    }
    let metadata = cluster.sql("SELECT lake.publish('t')")?;
    let files = data_files(cluster)?;
    cluster.sql("ALTER TABLE t SET TABLESPACE pg_default; SELECT lake.sweep();")?;
    must_be(&cluster.sql(ROWS)?, &rows, "rows after the way back")?;
    let moved = cluster.sql("SELECT lake.publish('t')")?;
    if !moved.contains("/base/") || metadata.contains("/base/") {
        return Err(format!(
            "published as {metadata}, after the move as {moved}"
        ));
    }
    must_be(
        &cluster.sql(
            "SELECT count(*), count(DISTINCT snapshot_id) FROM lake.snapshots WHERE table_name = 't'",
        )?,
        "2\t2",
        "snapshots of the table that was moved",
    )?;
    cluster.sql("SELECT lake.sweep()")?;
    must_be(
        &cluster.sql(&format!(
            "SELECT count(*) FROM lake.metadata_snapshots('{metadata}')"
        ))?,
        "1",
        "snapshots at the old place",
    )?;
    let gone = files.iter().filter(|file| !file.exists()).count();
    must_be(&gone.to_string(), "0", "files of published snapshots")?;
    must_fail(cluster, "DROP TABLESPACE away", &["is not empty"])?;

    cluster.sql("ALTER SYSTEM SET lake.keep_snapshots = 1; SELECT pg_reload_conf();")?;
    wait_until(Duration::from_secs(10), "the setting is read", || {
        Ok(cluster.sql("SHOW lake.keep_snapshots")? == "1")
    })?;
    // Nothing has changed in the table but that its snapshots expire.
    cluster.sql("SELECT lake.publish('t')")?;
    must_be(
        &cluster.sql("SELECT count(*) FROM lake.snapshots WHERE table_name = 't'")?,
        "1",
        "snapshots that are kept",
    )?;
    swept(cluster, "garbage")?;
    drop_tablespace(cluster, "away")?;
    must_be(
        &files_below(away).len().to_string(),
        "0",
        "files in a tablespace that was dropped",
    )?;
    must_be(&cluster.sql(ROWS)?, &rows, "rows in the end")
}

/// A transaction that has just ended may still be in somebody's snapshot.
pub fn drop_tablespace(cluster: &Cluster, name: &str) -> Result<()> {
    let mut last = String::new();
    wait_until(Duration::from_secs(30), "the tablespace is empty", || {
        cluster.sql("SELECT lake.sweep()")?;
        match cluster.sql(&format!("DROP TABLESPACE {name}")) {
            Ok(_) => Ok(true),
            Err(error) => {
                last = error;
                Ok(false)
            }
        }
    })
    .map_err(|error| format!("{error}: {last}"))
}

fn data_files(cluster: &Cluster) -> Result<Vec<PathBuf>> {
    let paths = cluster.sql("SELECT path FROM lake.data_files WHERE table_name = 't'")?;
    let paths: Vec<PathBuf> = paths.lines().map(PathBuf::from).collect();
    if paths.is_empty() {
        return Err("the table has no files".to_owned());
    }
    Ok(paths)
}

/// The files below a tablespace's directory, relative to it.
fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(path),
                _ => found.extend(path.strip_prefix(root).map(Path::to_owned)),
            }
        }
    }
    found
}

fn is_ours(file: &Path) -> bool {
    file.iter().any(|part| part == "lake")
}
