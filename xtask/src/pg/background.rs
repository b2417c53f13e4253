//! What the workers do by themselves, and within which bounds.

use super::{fill, must_be, same_server, started_at, wait_until};
use crate::cluster::{Cluster, DATABASE, answer};
use crate::process;
use crate::test::Run;
use crate::{Context, Result};
use std::fs;
use std::time::Duration;

/// Nobody calls `lake.flush` or `lake.publish`: the maintainer does.
pub fn maintainer(run: &mut Run) -> Result<()> {
    let cluster = run.cluster(
        "maintainer",
        &[
            ("lake.flush_rows", "1000"),
            ("lake.publish_interval", "1"),
            ("lake.bulk_rows", "-1"),
        ],
    )?;
    cluster.sql(
        "CREATE TABLE t (id int) USING iceberg;
         INSERT INTO t SELECT generate_series(1, 5000);",
    )?;
    wait_until(
        Duration::from_secs(60),
        "a flush and a publication in the background",
        || {
            let state = cluster.sql(
                "SELECT cold_rows = 5000 AND metadata_location IS NOT NULL
                 FROM lake.tables WHERE table_name = 't'",
            )?;
            Ok(state == "t")
        },
    )?;
    must_be(
        &cluster.sql("SELECT count(*), sum(id) FROM t")?,
        "5000\t12502500",
        "the rows after the flush",
    )?;
    // It gives a database up at once for a command that needs it alone.
    cluster.create_database("short_lived")?;
    wait_until(Duration::from_secs(60), "a maintainer", || {
        let there = "SELECT count(*) FROM pg_stat_activity
                     WHERE backend_type = 'lake maintainer' AND datname = 'short_lived'";
        Ok(cluster.sql(there)? == "1")
    })?;
    cluster.sql("DROP DATABASE short_lived").map(drop)
}

/// What the engine takes beside its budget: code, stacks, what the allocator keeps, bytes that are being decoded.
pub const BESIDE_BUDGET_KB: u64 = 256 * 1024;

/// Aggregates and sorts that need far more than the engine may take: they spill, and its memory
/// stays within the setting and what it takes beside it.
pub fn memory_bound(run: &mut Run) -> Result<()> {
    let cluster = run.cluster(
        "memory_bound",
        &[
            ("lake.worker_memory", "128MB"),
            ("lake.memory_cache_size", "32MB"),
        ],
    )?;
    fill(&cluster, "big", 3_000_000)?;
    let engine = pids(&cluster, "engine")?;
    let engine = engine.first().ok_or("no engine")?;
    let server = started_at(&cluster)?;
    let queries = "SELECT count(*), sum(n) FROM (SELECT note, count(*) n FROM big GROUP BY note) s;
         SELECT count(*), sum(n) FROM (SELECT id, sum(amount) n FROM big GROUP BY id) s;
         SELECT count(*) FROM (SELECT * FROM big ORDER BY amount LIMIT 100000) s;";
    let busy = cluster
        .psql(DATABASE)
        .stdin(queries.repeat(2))
        .limit(run.limit(1))
        .start()?;
    let waiter = std::thread::spawn(move || answer(busy.wait()?));
    let mut most = 0;
    while !waiter.is_finished() {
        most = most.max(anonymous_kb(*engine)?);
        std::thread::sleep(Duration::from_millis(20));
    }
    let rows = waiter.join().map_err(|_| "the waiting thread panicked")??;
    let expected = "3000000\t3000000\n3000000\t45000015000.00\n100000\n".repeat(2);
    must_be(rows.trim(), expected.trim(), "the answers")?;
    same_server(&cluster, &server)?;
    let limit = 128 * 1024 + BESIDE_BUDGET_KB;
    if most > limit {
        return Err(format!("the engine took {most} kB, more than {limit}"));
    }
    Ok(())
}

pub fn pids(cluster: &Cluster, kind: &str) -> Result<Vec<u32>> {
    cluster
        .sql(&format!(
            "SELECT pid FROM lake.stat_workers WHERE kind = '{kind}' AND pid IS NOT NULL"
        ))?
        .lines()
        .map(|line| line.parse().map_err(|_| format!("a pid is {line:?}")))
        .collect()
}

/// Memory of a process that is neither shared nor a file's.
pub fn anonymous_kb(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).context(&path)?;
    process::status_field(&status, "RssAnon").ok_or_else(|| format!("{path} has no RssAnon"))
}
