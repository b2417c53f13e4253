//! `lake.stat_progress` shows a command that runs, to whom it may, and nothing after it.

use super::{must_be, wait_until};
use crate::cluster::{Cluster, DATABASE, answer};
use crate::test::Run;
use crate::{Result, process::Running};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The index's expression waits for an advisory lock: a flush does, while it makes index entries.
const TABLE: &str = "
    CREATE ROLE keeper;
    CREATE ROLE stranger;
    CREATE FUNCTION gated(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_catalog.pg_advisory_lock_shared(7), pg_catalog.pg_advisory_unlock_shared(7);
        RETURN i;
    END $$;
    CREATE TABLE t (id int) USING iceberg;
    CREATE INDEX ON t (gated(id));
    INSERT INTO t SELECT generate_series(1, 3000);
    ALTER TABLE t OWNER TO keeper;";

const SEEN: &str = "
    SELECT command, phase, rows_total, rows_done, files_done, bytes_done > 0, datname, relid = 't'::regclass,
           started < clock_timestamp()
    FROM lake.stat_progress";

/// What a role sees: rows, and columns that are not null.
const COUNTS: &str = "SELECT count(*), count(datname), count(relid), count(command), count(phase),
                             count(rows_done), count(started) FROM lake.stat_progress";

/// Postgres' own views.
const OTHERS: &str = "
    SELECT (SELECT count(*) FROM pg_stat_progress_vacuum) + (SELECT count(*) FROM pg_stat_progress_analyze)
         + (SELECT count(*) FROM pg_stat_progress_cluster) + (SELECT count(*) FROM pg_stat_progress_create_index)
         + (SELECT count(*) FROM pg_stat_progress_basebackup) + (SELECT count(*) FROM pg_stat_progress_copy)";

pub fn progress(run: &mut Run) -> Result<()> {
    let cluster = run.cluster(
        "progress",
        &[
            ("lake.flush_rows", "-1"),
            ("lake.flush_interval", "-1"),
            ("lake.publish_interval", "-1"),
            ("autovacuum", "off"),
        ],
    )?;
    cluster.sql(TABLE)?;
    let gate = close_gate(&cluster)?;
    // The session outlives the error of its flush.
    let session = cluster
        .psql(DATABASE)
        .stdin(
            "\\set ON_ERROR_STOP 0\n\
             SELECT lake.flush('t');\n\
             SELECT 'then', count(*) FROM lake.stat_progress;\n",
        )
        .start()?;
    wait_until(LIMIT, "a flush that makes index entries", || {
        Ok(cluster.sql(SEEN)? == "flush\tinserting index entries\t3000\t0\t1\tt\tlake\tt\tt")
    })?;
    for (role, counts) in [
        ("postgres", "1\t1\t1\t1\t1\t1\t1"),
        ("keeper", "1\t1\t1\t1\t1\t1\t1"),
        ("stranger", "1\t1\t0\t0\t0\t0\t0"),
    ] {
        let seen = cluster.sql(&format!("SET ROLE {role}; {COUNTS}"))?;
        must_be(&seen, counts, &format!("what {role} sees"))?;
    }
    must_be(&cluster.sql(OTHERS)?, "0", "rows of Postgres' views")?;
    cluster.sql("SELECT pg_cancel_backend(pid) FROM lake.stat_progress")?;
    let output = session.wait()?;
    if !output.stderr.contains("canceling statement") {
        return Err(format!("the flush was not cancelled: {}", output.stderr));
    }
    must_be(output.stdout.trim(), "then\t0", "after a cancelled flush")?;

    // An error that is caught: the subtransaction ends, the transaction goes on.
    let caught = "
        SET lock_timeout = '100ms';
        BEGIN;
        DO $$ BEGIN
            PERFORM lake.flush('t');
        EXCEPTION WHEN lock_not_available THEN
            RAISE NOTICE 'caught';
        END $$;
        SELECT count(*) FROM lake.stat_progress;
        COMMIT;";
    must_be(&cluster.sql(caught)?, "0", "after an error that is caught")?;
    open_gate(&cluster, gate)?;
    must_be(
        &cluster.sql("SELECT lake.flush('t'); SELECT count(*) FROM lake.stat_progress;")?,
        "3000\n0",
        "rows of a flush, and commands after it",
    )
}

/// A session that holds the advisory lock until it is terminated.
fn close_gate(cluster: &Cluster) -> Result<Running> {
    let gate = cluster
        .psql(DATABASE)
        .env("PGAPPNAME", "gate")
        .stdin("SELECT pg_advisory_lock(7); SELECT pg_sleep(170);")
        .start()?;
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
    wait_until(LIMIT, "the gate", || Ok(cluster.sql(held)? == "1"))?;
    Ok(gate)
}

fn open_gate(cluster: &Cluster, gate: Running) -> Result<()> {
    cluster.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gate'",
    )?;
    match answer(gate.wait()?) {
        Err(_) => Ok(()),
        Ok(_) => Err("the gate was not terminated".to_owned()),
    }
}
