//! `lake.stat_queries` shows what the engine is at, to whom it may, and nothing after the end of either side.

use super::{fill, must_be, wait_until};
use crate::Result;
use crate::cluster::{Cluster, DATABASE};
use crate::process::{self, Running};
use crate::test::Run;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The engine has more rows than the ring takes.
const OPEN_CURSOR: &str = "BEGIN;\n\
    DECLARE c NO SCROLL CURSOR FOR SELECT id, note FROM big WHERE id > 20000;\n\
    FETCH 1 FROM c;\n\
    \\! sleep 600\n";

/// What is so of a request whose rows nobody takes.
const WAITING: &str = "
    SELECT state = 'delivering' AND datname = 'lake' AND query_start < clock_timestamp()
           AND rows_delivered > 0 AND rows_read >= rows_delivered AND row_groups_total > 0
           AND row_groups_done BETWEEN 0 AND row_groups_total AND memory_peak >= memory_bytes
           AND spilled_bytes = 0 AND spilled_files = 0
    FROM lake.stat_queries";

/// What a role sees: rows, and columns that are not null.
const COUNTS: &str =
    "SELECT count(*), count(pid), count(datname), count(query_start), count(state),
                             count(rows_read), count(spilled_files) FROM lake.stat_queries";

pub fn stat_queries(run: &mut Run) -> Result<()> {
    let cluster = run.cluster(
        "stat_queries",
        &[
            ("lake.flush_rows", "-1"),
            ("lake.flush_interval", "-1"),
            ("lake.publish_interval", "-1"),
            ("lake.auto_compact", "off"),
            ("autovacuum", "off"),
        ],
    )?;
    fill(&cluster, "big", 1_000_000)?;
    cluster.sql(
        "CREATE ROLE keeper LOGIN; CREATE ROLE stranger; CREATE ROLE reader IN ROLE pg_read_all_stats;
         GRANT SELECT ON big TO keeper;",
    )?;
    let session = open_cursor(&cluster)?;
    for (role, counts) in [
        ("postgres", "1\t1\t1\t1\t1\t1\t1"),
        ("reader", "1\t1\t1\t1\t1\t1\t1"),
        ("keeper", "1\t1\t1\t1\t1\t1\t1"),
        ("stranger", "1\t1\t1\t0\t0\t0\t0"),
    ] {
        let seen = cluster.sql(&format!("SET ROLE {role}; {COUNTS}"))?;
        must_be(&seen, counts, &format!("what {role} sees"))?;
    }
    must_be(
        &cluster.sql(
            "SELECT a.usename FROM lake.stat_queries q JOIN pg_stat_activity a ON a.pid = q.pid",
        )?,
        "keeper",
        "whose query it is",
    )?;
    drop(session);
    cluster
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keeper'")?;
    nothing(&cluster, "after the session's end")?;

    // The session waits for nothing, so that it doesn't hear of the engine's end.
    let session = open_cursor(&cluster)?;
    let engine = cluster.sql("SELECT pid FROM lake.stat_workers WHERE kind = 'engine'")?;
    let pid = engine.parse().map_err(|_| format!("a pid is {engine:?}"))?;
    process::signal("TERM", &[pid])?;
    nothing(&cluster, "after the engine's end")?;
    drop(session);
    Ok(())
}

/// A session of its own role with a cursor whose rows it doesn't take. Dropping it ends the client.
fn open_cursor(cluster: &Cluster) -> Result<Running> {
    let session = cluster
        .psql(DATABASE)
        .args(["-U", "keeper"])
        .stdin(OPEN_CURSOR)
        .start()?;
    wait_until(LIMIT, "a request that waits for the session", || {
        Ok(cluster.sql(WAITING)? == "t")
    })?;
    Ok(session)
}

fn nothing(cluster: &Cluster, when: &str) -> Result<()> {
    let what = format!("no row of lake.stat_queries {when}");
    wait_until(LIMIT, &what, || {
        Ok(cluster.sql("SELECT count(*) FROM lake.stat_queries")? == "0")
    })
}
