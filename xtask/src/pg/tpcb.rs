//! pgbench's TPC-B on iceberg tables whose rows keep becoming cold: the sums agree at every moment,
//! and after the server was killed.

use super::{must_be, wait_until};
use crate::cluster::{Cluster, DATABASE, answer};
use crate::process::Running;
use crate::test::Run;
use crate::{Result, say};
use std::time::Duration;

const CLIENTS: u32 = 4;
/// Transactions between two looks.
const STEP: u64 = 300;

/// What differs, if anything, between the balances and the history, in one snapshot.
const SUMS: &str = "
    SELECT count(DISTINCT sum) FROM (
        SELECT sum(abalance) FROM pgbench_accounts
        UNION ALL SELECT sum(tbalance) FROM pgbench_tellers
        UNION ALL SELECT sum(bbalance) FROM pgbench_branches
        UNION ALL SELECT COALESCE(sum(delta), 0) FROM pgbench_history) s;
    SELECT count(*), count(DISTINCT aid) FROM pgbench_accounts;
    SELECT count(*), count(DISTINCT tid) FROM pgbench_tellers;";
const RIGHT: &str = "1\n100000\t100000\n10\t10";

/// Every account is found by its key, and only once.
const BY_KEY: &str = "
    SET lake.engine = off; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SELECT count(*) FROM generate_series(1, 100000, 37) g JOIN pgbench_accounts a ON a.aid = g;
    SELECT count(bt_index_check(indexrelid, heapallindexed => true)) FROM pg_index
    WHERE indrelid IN ('pgbench_accounts'::regclass, 'pgbench_tellers'::regclass, 'pgbench_branches'::regclass);";

pub fn tpcb(run: &mut Run) -> Result<()> {
    let mut cluster = run.cluster(
        "tpcb",
        &[
            ("lake.flush_rows", "100"),
            ("default_table_access_method", "iceberg"),
        ],
    )?;
    cluster.sql("CREATE EXTENSION amcheck")?;
    pgbench(&cluster, &["-i", "-q", "-s", "1"])?.wait()?;
    check(&cluster, "loaded")?;
    // The accounts begin as cold rows.
    wait_until(Duration::from_secs(60), "cold accounts", || {
        let cold = "SELECT lake.flush('pgbench_accounts') >= 0 AND sum(cold_rows) >= 100000
                    FROM lake.tables WHERE table_name = 'pgbench_accounts'";
        Ok(cluster.sql(cold)? == "t")
    })?;
    for round in 1..=if run.long { 8 } else { 2 } {
        let sessions = [load(&cluster)?, maintenance(&cluster)?];
        for _ in 0..3 {
            let until = history(&cluster)? + STEP;
            wait_until(Duration::from_secs(120), "transactions", || {
                Ok(history(&cluster)? >= until)
            })?;
            must_be(&cluster.sql(SUMS)?, RIGHT, "sums, under load")?;
        }
        cluster.kill9()?;
        for session in sessions {
            // They lost their connections.
            let _ = session.wait();
        }
        cluster.start()?;
        check(&cluster, &format!("after kill {round}"))?;
    }
    let last = pgbench(&cluster, &["-n", "-c", "2", "-t", "200"])?.wait()?;
    answer(last)?;
    cluster.sql(
        "SELECT lake.flush(t), lake.merge(t)
         FROM unnest('{pgbench_accounts,pgbench_tellers,pgbench_branches,pgbench_history}'::regclass[]) t",
    )?;
    check(&cluster, "in the end")?;
    say(&format!("      {} transactions", history(&cluster)?));
    Ok(())
}

fn check(cluster: &Cluster, when: &str) -> Result<()> {
    must_be(&cluster.sql(SUMS)?, RIGHT, &format!("sums, {when}"))?;
    let by_key = cluster.sql(BY_KEY)?;
    must_be(&by_key, "2703\n3", &format!("rows by key, {when}"))
}

fn history(cluster: &Cluster) -> Result<u64> {
    let text = cluster.sql("SELECT count(*) FROM pgbench_history")?;
    text.parse().map_err(|_| format!("not a number: {text:?}"))
}

fn pgbench(cluster: &Cluster, arguments: &[&str]) -> Result<Running> {
    cluster
        .tool("pgbench")
        .args(["-h", "127.0.0.1", "-p"])
        .arg(cluster.port.to_string())
        .args(["-U", crate::cluster::SUPERUSER])
        .args(arguments)
        .arg(DATABASE)
        .start()
}

/// Transactions that don't come to their end.
fn load(cluster: &Cluster) -> Result<Running> {
    let clients = CLIENTS.to_string();
    pgbench(cluster, &["-n", "-c", &clients, "-t", "1000000"])
}

fn maintenance(cluster: &Cluster) -> Result<Running> {
    let round = "SELECT lake.flush('pgbench_accounts');\nSELECT lake.flush('pgbench_tellers');\n\
                 SELECT lake.flush('pgbench_branches');\nSELECT lake.flush('pgbench_history');\n\
                 SELECT lake.merge('pgbench_accounts');\nSELECT lake.merge('pgbench_tellers');\n\
                 VACUUM pgbench_branches, pgbench_tellers, lake.row_mark, lake.file_mark, lake.anchor;\n";
    cluster.psql(DATABASE).stdin(round.repeat(20_000)).start()
}
