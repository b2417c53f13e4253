//! What a crash leaves behind, and what concurrency must not show.

use super::{must_be, wait_until};
use crate::Result;
use crate::cluster::{DATABASE, answer};
use crate::process::Running;
use crate::test::Run;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The loss that this prevents: a COPY dies with the server after its files were written; nothing
/// of it may be visible, and its files must not stay for ever.
pub fn crash_leftovers(run: &mut Run) -> Result<()> {
    let mut cluster = run.cluster("crash_leftovers", &[("lake.target_file_size", "1MB")])?;
    cluster.sql(
        "CREATE TABLE t (id int) USING iceberg;
         CREATE TABLE kept (id int) USING iceberg;
         INSERT INTO kept SELECT generate_series(1, 100000);",
    )?;
    let data = cluster.data();
    let before = parquet_files(&data);
    let busy = cluster
        .psql(DATABASE)
        .stdin("COPY t FROM PROGRAM 'seq 1 50000000';")
        .start()?;
    wait_until(
        Duration::from_secs(60),
        "a Parquet file of the COPY",
        || Ok(parquet_files(&data).len() > before.len()),
    )?;
    cluster.kill9()?;
    // It lost its connection.
    let _ = busy.wait();
    cluster.start()?;
    must_be(
        &cluster.sql("SELECT count(*) FROM t")?,
        "0",
        "rows of the COPY that crashed",
    )?;
    let mut left = Vec::new();
    let swept = wait_until(Duration::from_secs(60), "leftovers are swept", || {
        cluster.sql("SELECT lake.sweep()")?;
        left = parquet_files(&data);
        left.retain(|file| !before.contains(file));
        Ok(left.is_empty())
    });
    swept.map_err(|error| match left.first() {
        Some(file) => format!("{error}; {} files, one is {}", left.len(), file.display()),
        None => error,
    })?;
    must_be(
        &cluster.sql("SELECT count(*) FROM kept")?,
        "100000",
        "rows of the other table",
    )?;
    cluster.sql("INSERT INTO t SELECT generate_series(1, 100000)")?;
    must_be(
        &cluster.sql("SELECT count(*) FROM t")?,
        "100000",
        "rows of the next load",
    )
}

pub fn parquet_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        // Files come and go under a running server.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(path),
                Ok(_) if path.extension().is_some_and(|e| e == "parquet") => found.push(path),
                _ => {}
            }
        }
    }
    found
}

/// Readers count and sum while rows are inserted and flushed under them: every row exactly once.
pub fn flush_under_load(run: &mut Run) -> Result<()> {
    let cluster = run.cluster("flush_under_load", &[])?;
    cluster.sql("CREATE TABLE t (id int) USING iceberg; INSERT INTO t VALUES (0)")?;
    let rounds = if run.long { 300 } else { 40 };
    let mut writer = String::new();
    for n in 0..rounds {
        let from = n * 100 + 1;
        writer.push_str(&format!(
            "INSERT INTO t SELECT generate_series({from}, {});\n",
            from + 99
        ));
    }
    let flusher = "SELECT lake.flush('t');\n".repeat(rounds);
    // Rows 0..=n, each once: count = max + 1 and the sum is max * (max + 1) / 2.
    let reader = "DO $$ DECLARE r record; BEGIN
            SELECT count(*) c, max(id)::bigint m, sum(id) s, count(DISTINCT id) d INTO r FROM t;
            IF r.c <> r.m + 1 OR r.d <> r.c OR r.s <> r.m * (r.m + 1) / 2 THEN
              RAISE EXCEPTION 'rows lost or doubled: %', r;
            END IF;
          END $$;\n"
        .repeat(rounds * 2);
    let running = [
        ("writer", writer),
        ("flush", flusher),
        ("reader", format!("SET lake.engine = on;\n{reader}")),
        (
            "reader without engine",
            format!("SET lake.engine = off;\n{reader}"),
        ),
    ]
    .into_iter()
    .map(|(who, script)| -> Result<(&str, Running)> {
        Ok((who, cluster.psql(DATABASE).stdin(script).start()?))
    })
    .collect::<Result<Vec<_>>>()?;
    for (who, session) in running {
        answer(session.wait()?).map_err(|error| format!("{who}: {error}"))?;
    }
    let total = (rounds * 100 + 1).to_string();
    must_be(
        &cluster.sql("SELECT count(*) FROM t")?,
        &total,
        "rows in the end",
    )
}
