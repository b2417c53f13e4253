//! Limits that must hold, and say which setting to raise: streams, time, cancellation.

use super::{fill, must_be, must_fail, wait_until};
use crate::Result;
use crate::cluster::{Cluster, DATABASE, answer};
use crate::test::Run;
use std::time::{Duration, Instant};

/// More open cursors than streams: an error that names the setting, and all is well after it.
pub fn streams_exhausted(run: &mut Run) -> Result<()> {
    let cluster = run.cluster("streams_exhausted", &[("lake.streams", "8")])?;
    fill(&cluster, "big", 1_000_000)?;
    // Cold rows only: hot ones need no stream.
    let mut script = String::from("BEGIN;\n");
    for n in 500_000..500_012 {
        script.push_str(&format!(
            "DECLARE c{n} NO SCROLL CURSOR FOR SELECT id, note FROM big WHERE id > {n};\nFETCH 1 FROM c{n};\n"
        ));
    }
    must_fail(&cluster, &script, &["lake.streams"])?;
    wait_until(Duration::from_secs(10), "streams are free again", || {
        Ok(cluster.sql("SELECT count(*) FROM big WHERE id > 0")? == "1000000")
    })
}

/// Statements that run for long in different places: the engine, the executor, a bulk load.
const LONG: &[(&str, &str)] = &[
    (
        "a join in the executor",
        "SELECT count(*) FROM big a, big b WHERE a.amount < b.amount + 1",
    ),
    (
        "scans in the engine",
        "SELECT sum(x) FROM generate_series(1, 100000) g,
           LATERAL (SELECT sum(amount) + g AS x FROM big WHERE id > g) s",
    ),
    (
        "a bulk load",
        "INSERT INTO big SELECT g, g, g, 'x' FROM generate_series(1, 50000000) g",
    ),
];

pub fn statement_timeout(run: &mut Run) -> Result<()> {
    let cluster = run.cluster("statement_timeout", &[])?;
    fill(&cluster, "big", 300_000)?;
    for (what, sql) in LONG {
        let mut best = Duration::MAX;
        for _ in 0..3 {
            best = best.min(time_to_error(&cluster, sql).map_err(|e| format!("{what}: {e}"))?);
        }
        // 50 ms of timeout, 100 ms to notice.
        if best > Duration::from_millis(150) {
            return Err(format!(
                "{what}: ended {} ms after its begin, with statement_timeout = 50ms",
                best.as_millis()
            ));
        }
    }
    must_be(
        &cluster.sql("SELECT count(*) FROM big")?,
        "300000",
        "rows afterwards",
    )
}

/// How long the server was busy with a statement until it gave up, by its own clock.
fn time_to_error(cluster: &Cluster, sql: &str) -> Result<Duration> {
    let script = format!(
        "\\set ON_ERROR_STOP 0\nSET statement_timeout = '50ms';\n\
         SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint;\n{sql};\n\
         SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint;\n"
    );
    let output = cluster.psql(DATABASE).stdin(script).run()?;
    if !output.stderr.contains("statement timeout") {
        return Err(format!("no statement timeout: {}", output.stderr.trim()));
    }
    let times: Vec<u64> = output
        .stdout
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect();
    match times[..] {
        [begin, end] => Ok(Duration::from_micros(end.saturating_sub(begin))),
        _ => Err(format!("expected two times: {}", output.stdout)),
    }
}

/// pg_cancel_backend gets through at once.
pub fn cancel(run: &mut Run) -> Result<()> {
    let cluster = run.cluster("cancel", &[])?;
    fill(&cluster, "big", 300_000)?;
    for (what, sql) in LONG {
        let busy = cluster
            .psql(DATABASE)
            .env("PGAPPNAME", "victim")
            .stdin(format!("{sql};"))
            .start()?;
        let active = "SELECT count(*) FROM pg_stat_activity
                      WHERE application_name = 'victim' AND state = 'active'
                        AND now() - query_start > interval '300 ms'";
        wait_until(Duration::from_secs(20), "the statement runs", || {
            Ok(cluster.sql(active)? == "1")
        })?;
        let asked = Instant::now();
        cluster.sql(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'",
        )?;
        let result = answer(busy.wait()?);
        let took = asked.elapsed();
        match result {
            Err(error) if error.contains("canceling statement due to user request") => {}
            Err(error) => return Err(format!("{what}: {error}")),
            Ok(_) => return Err(format!("{what}: it was not cancelled")),
        }
        // Two psql processes start and end within this, too.
        if took > Duration::from_millis(600) {
            return Err(format!("{what}: cancelled after {} ms", took.as_millis()));
        }
    }
    must_be(
        &cluster.sql("SELECT count(*) FROM big")?,
        "300000",
        "rows afterwards",
    )
}
