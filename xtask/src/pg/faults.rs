//! What must end in a clear error while the server stays up: no preload, dead workers, bad files.

use super::{fill, must_be, must_fail, same_server, started_at, wait_until};
use crate::cluster::{Cluster, DATABASE, answer};
use crate::test::Run;
use crate::{Context, Result, process};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

/// Without shared_preload_libraries, CREATE EXTENSION must say what to do.
pub fn not_preloaded(run: &mut Run) -> Result<()> {
    let mut cluster = run.stopped_cluster("not_preloaded", &[("shared_preload_libraries", "")])?;
    cluster.start()?;
    cluster.sql_in("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
    must_fail(
        &cluster,
        "CREATE EXTENSION pg_lake",
        &["shared_preload_libraries", "hint"],
    )?;
    must_be(&cluster.sql("SELECT 1")?, "1", "a query afterwards")
}

/// SIGTERM to the engine fails the query that it was serving, and nothing else.
pub fn worker_killed(run: &mut Run) -> Result<()> {
    let cluster = run.cluster("worker_killed", &[])?;
    fill(&cluster, "big", 2_000_000)?;
    let server = started_at(&cluster)?;
    let query =
        "SELECT grp, count(*), sum(amount) FROM big WHERE id > 10 GROUP BY grp ORDER BY grp";
    let expected = cluster.sql(query)?;
    let engine = || cluster.sql("SELECT pid FROM lake.stat_workers WHERE kind = 'engine'");
    for attempt in 0..5_u64 {
        let old = engine()?;
        let pid: u32 = old
            .parse()
            .map_err(|_| format!("the engine's pid is {old:?}"))?;
        // One query is too short to be hit for certain.
        let script = format!(
            "SET lake.engine = on;\n{}",
            format!("{query};\n").repeat(200)
        );
        let busy = cluster.psql(DATABASE).stdin(script).start()?;
        sleep(Duration::from_millis(400 + 37 * attempt));
        process::signal("TERM", &[pid])?;
        let result = answer(busy.wait()?);
        same_server(&cluster, &server)?;
        wait_until(Duration::from_secs(30), "the engine's restart", || {
            Ok(engine()? != old && cluster.sql(query)? == expected)
        })?;
        match result {
            // It fell between two queries.
            Ok(_) => continue,
            Err(error) if error.contains("server closed the connection") => {
                return Err(format!("the session died: {error}"));
            }
            Err(error) if error.contains("ERROR:") => return Ok(()),
            Err(error) => return Err(format!("not an error of the query: {error}")),
        }
    }
    Err("no query failed although its engine was killed five times".to_owned())
}

/// A damaged, a truncated and a missing data file: the error names it.
pub fn damaged_file(run: &mut Run) -> Result<()> {
    let mut cluster = run.cluster("damaged_file", &[])?;
    fill(&cluster, "t", 200_000)?;
    let path = cluster.sql("SELECT path FROM lake.data_files ORDER BY path LIMIT 1")?;
    let file = local_path(&cluster, &path);
    let good = fs::read(&file).context(file.display())?;
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
        .to_owned();
    // What was read before may be in memory: every case begins with a new server.
    let mut check = |what: &str| -> Result<()> {
        cluster.restart()?;
        let server = started_at(&cluster)?;
        for engine in ["on", "off"] {
            must_fail(
                &cluster,
                &format!("SET lake.engine = {engine}; SELECT sum(id), max(note) FROM t"),
                &[&name],
            )
            .map_err(|error| format!("{what} file, lake.engine = {engine}: {error}"))?;
        }
        same_server(&cluster, &server)?;
        must_be(&cluster.sql("SELECT 1")?, "1", "a query afterwards")
    };
    let half = good.len() / 2;
    let handle = OpenOptions::new()
        .write(true)
        .open(&file)
        .context(file.display())?;
    handle
        .write_all_at(&vec![0xa5; half.saturating_sub(4)], 4)
        .context(file.display())?;
    check("damaged")?;
    handle.set_len(half as u64).context(file.display())?;
    check("truncated")?;
    fs::remove_file(&file).context(file.display())?;
    check("missing")
}

/// Where a data file lies: locations may be URIs, or relative to the data directory.
fn local_path(cluster: &Cluster, location: &str) -> PathBuf {
    let plain = location.strip_prefix("file://").unwrap_or(location);
    cluster.data().join(plain)
}
