//! Single rows: TPC-B, look-ups by key; and what makes many of them cold.

use super::Bench;
use crate::cluster::Cluster;
use crate::process;
use crate::timing::{median, ratio, report, statement};
use crate::{Context, Result, os, say};

const ROUNDS: usize = 5;

/// pgbench's own transaction on tables that stay hot.
pub fn tpcb(bench: &Bench) -> Result<()> {
    let cluster = &bench.cluster;
    maintenance(cluster, false)?;
    for method in ["heap", "iceberg"] {
        say(&format!("    pgbench -i into {method}"));
        cluster.sql(&format!("CREATE SCHEMA tpcb_{method}"))?;
        pgbench(cluster, method, &["-i", "-q", "-s", "10"])?;
    }
    let (mut heap, mut lake) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        for (method, rates) in [("heap", &mut heap), ("iceberg", &mut lake)] {
            say(&format!("    TPC-B on {method}, {round} of {ROUNDS}"));
            let run = ["-n", "-c", "2", "-j", "2", "-T", "8", "-M", "prepared"];
            rates.push(figure(&pgbench(cluster, method, &run)?, "tps = ")?);
        }
    }
    cluster.sql("DROP SCHEMA tpcb_heap, tpcb_iceberg CASCADE")?;
    maintenance(cluster, true)?;
    let ratio = ratio(&heap, &lake);
    report(
        "tpcb.hot",
        &[
            ("heap_tps", median(heap)),
            ("iceberg_tps", median(lake)),
            ("ratio", ratio),
        ],
    );
    Ok(())
}

/// One row of a million by its primary key; the iceberg table's rows are cold and cached.
pub fn lookup(bench: &Bench) -> Result<()> {
    let cluster = &bench.cluster;
    for method in ["heap", "iceberg"] {
        cluster.sql(&format!(
            "CREATE SCHEMA lookup_{method};
             CREATE TABLE lookup_{method}.t (id bigint, k int, price numeric(15,2), qty numeric(15,2), d date, flag char(1), mode text, note text) USING {method};
             INSERT INTO lookup_{method}.t SELECT g, g % 1000, g * 1.01, g % 50, date '2020-01-01' + g % 1000, 'A', 'AIR' || g % 7, 'note ' || md5(g::text)
             FROM generate_series(1, 1000000) g;
             ALTER TABLE lookup_{method}.t ADD PRIMARY KEY (id);
             VACUUM ANALYZE lookup_{method}.t;"
        ))?;
    }
    let cold = cluster.sql(
        "SELECT lake.flush('lookup_iceberg.t') >= 0 AND count(*) FILTER (WHERE ctid < '(2147483648,0)') = 0 FROM lookup_iceberg.t",
    )?;
    if cold != "t" {
        return Err("the rows to look up are not cold".to_owned());
    }
    let script = cluster.dir.join("lookup.sql");
    let text = "\\set id random(1, 1000000)\nSELECT * FROM t WHERE id = :id;\n";
    os::write_file(&script, text, cluster.user.as_ref())?;
    let script = script.display().to_string();
    let (mut heap, mut lake) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for (method, times) in [("heap", &mut heap), ("iceberg", &mut lake)] {
            let run = ["-n", "-T", "5", "-M", "prepared", "-f", &script];
            let text = pgbench_in(cluster, &format!("lookup_{method}"), method, &run)?;
            // The first round warms up.
            if round > 0 {
                times.push(figure(&text, "latency average = ")? * 1000.0);
            }
        }
    }
    cluster.sql("DROP SCHEMA lookup_heap, lookup_iceberg CASCADE")?;
    let ratio = ratio(&heap, &lake);
    report(
        "lookup.primary_key",
        &[
            ("heap_us", median(heap)),
            ("iceberg_us", median(lake)),
            ("ratio", ratio),
        ],
    );
    Ok(())
}

/// Two million hot rows to Parquet, without and with a primary key.
pub fn flush(bench: &Bench) -> Result<()> {
    const ROWS: f64 = 2_000_000.0;
    let cluster = &bench.cluster;
    maintenance(cluster, false)?;
    let (mut plain, mut keyed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (key, times) in [("", &mut plain), (" PRIMARY KEY", &mut keyed)] {
            cluster.sql(&format!(
                "SET lake.bulk_rows = -1;
                 CREATE TABLE flushed (id bigint{key}, n numeric(10,2), note text) USING iceberg;
                 INSERT INTO flushed SELECT g, g * 1.01, 'note ' || g FROM generate_series(1, {ROWS}) g;"
            ))?;
            times.push(statement(cluster, "SELECT lake.flush('flushed');")? / 1000.0);
            cluster.sql("DROP TABLE flushed")?;
        }
    }
    maintenance(cluster, true)?;
    report(
        "flush.rows",
        &[
            ("rows_per_s", ROWS / median(plain)),
            ("rows_per_s_with_key", ROWS / median(keyed)),
        ],
    );
    Ok(())
}

/// lineitem into another table: heap to heap, and cold rows to Parquet, one by one and by the batch.
pub fn insert_select(bench: &Bench) -> Result<()> {
    super::load(bench)?;
    let cluster = &bench.cluster;
    let rows = cluster.sql("SELECT count(*) FROM bench.lineitem")?;
    let rows: f64 = rows.parse().context("count(*) of lineitem")?;
    let ways = [
        ("bench_heap", "heap", "on"),
        ("bench", "iceberg", "off"),
        ("bench", "iceberg", "on"),
    ];
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for ((schema, method, engine), times) in ways.iter().zip(&mut times) {
            say(&format!(
                "    INSERT … SELECT into {method}, lake.engine = {engine}, {round} of {ROUNDS}"
            ));
            cluster.sql(&format!(
                "DROP TABLE IF EXISTS {schema}.copied; CREATE TABLE {schema}.copied (LIKE {schema}.lineitem) USING {method}"
            ))?;
            cluster.sql("CHECKPOINT")?;
            let seconds = statement(
                cluster,
                &format!(
                    "SET lake.engine = {engine};\nINSERT INTO {schema}.copied SELECT * FROM {schema}.lineitem;"
                ),
            )? / 1000.0;
            // The first round warms up.
            if round > 0 {
                times.push(seconds);
            }
        }
    }
    cluster.sql("DROP TABLE bench_heap.copied, bench.copied")?;
    let [heap, by_row, by_batch] = times;
    let (to_heap, to_rows) = (ratio(&heap, &by_batch), ratio(&by_row, &by_batch));
    report(
        "insert.select",
        &[
            ("heap_rows_per_s", rows / median(heap)),
            ("by_row_rows_per_s", rows / median(by_row)),
            ("by_batch_rows_per_s", rows / median(by_batch)),
            ("ratio", to_heap),
            ("ratio_by_row", to_rows),
        ],
    );
    Ok(())
}

/// Whether the maintainer makes rows cold.
fn maintenance(cluster: &Cluster, on: bool) -> Result<()> {
    for setting in ["lake.flush_rows", "lake.flush_interval"] {
        let how = if on { "RESET" } else { "SET" };
        let value = if on { "" } else { " = -1" };
        cluster.sql(&format!("ALTER SYSTEM {how} {setting}{value}"))?;
    }
    cluster.sql("SELECT pg_reload_conf()").map(drop)
}

fn pgbench(cluster: &Cluster, method: &str, arguments: &[&str]) -> Result<String> {
    pgbench_in(cluster, &format!("tpcb_{method}"), method, arguments)
}

fn pgbench_in(cluster: &Cluster, schema: &str, method: &str, arguments: &[&str]) -> Result<String> {
    let options = format!(
        "-c search_path={schema} -c default_table_access_method={method} -c lake.bulk_rows=-1 \
         -c lake.vacuum_flush=off"
    );
    let mut command = cluster.tool("pgbench").args(arguments);
    for (name, value) in cluster.client_env() {
        command = command.env(name, value);
    }
    command.env("PGOPTIONS", options).ok()
}

/// The number behind a label of pgbench's report.
fn figure(text: &str, label: &str) -> Result<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(label))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("pgbench printed no figure:\n{}", process::tail(text, 10)))
}
