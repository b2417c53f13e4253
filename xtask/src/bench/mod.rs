//! Benchmarks: medians of interleaved runs on throwaway clusters, as JSON lines on stdout.

mod remote;
mod rows;
mod tpch;

use crate::cluster::{Cluster, DATABASE};
use crate::postgres;
use crate::process;
use crate::python::Python;
use crate::timing::{median, ratio, report, statement, statements};
use crate::tpch::{TABLES, Table};
use crate::{Context, Result, cargo, install, os, paths, say, up};
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAMES: &[&str] = &[
    "ring",
    "copy",
    "insert",
    "insert.select",
    "q1q6",
    "count",
    "dml",
    "tpcb",
    "lookup",
    "flush",
    "tpch",
    "remote",
];

/// A server for one call of `bench`.
struct Bench {
    cluster: Cluster,
    python: Python,
}

impl Bench {
    /// The settings win over the usual ones.
    fn start(name: &str, settings: &[(&str, &str)]) -> Result<Bench> {
        let pg = postgres::find_or_build(None)?;
        let lib = install::build(&pg, None)?;
        install::install(&pg, &lib)?;
        let python = Python::set_up()?;
        let user = os::server_user()?;
        let dir = work_dir(name)?;
        let log = paths::target().join(format!("{name}-server.log"));
        let mut cluster = Cluster::at(&pg, user.as_ref(), &dir).into_throwaway(log);
        cluster.limit = Duration::from_secs(1800);
        let all: Vec<(&str, &str)> = up::SETTINGS.iter().chain(settings).copied().collect();
        cluster.init(&all)?;
        cluster.start()?;
        cluster.create_database(DATABASE)?;
        Ok(Bench { cluster, python })
    }

    fn csv(&self) -> Result<PathBuf> {
        crate::tpch::csv(&self.python, "1")
    }
}

/// A directory for the server's user. What a call that was killed leaves in it, the next test run removes.
fn work_dir(name: &str) -> Result<PathBuf> {
    let run = format!("run-{}", std::process::id());
    let dir = paths::state().join("test").join(run).join(name);
    os::make_dir(&dir, os::server_user()?.as_ref())?;
    Ok(dir)
}

fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
        || tpch::figure(name).is_some()
        || remote::FIGURES.iter().any(|figure| figure.name == name)
}

/// `scale` is of TPC-H; `memory` is a list of megabytes.
pub fn command(names: &[String], scale: Option<&str>, memory: Option<&str>) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        return Err(format!(
            "no benchmark {unknown}; there are {}",
            NAMES.join(", ")
        ));
    }
    if names.is_empty() {
        return Err(format!("which benchmark? {}", NAMES.join(", ")));
    }
    let options = scale.or(memory);
    if options.is_some() && !names.iter().any(|name| name == tpch::POWER) {
        return Err(format!("--scale and --memory are for {}", tpch::POWER));
    }
    let memory = memory.unwrap_or_default().split(',');
    let memories = memory
        .filter(|mb| !mb.is_empty())
        .map(|mb| mb.parse().context("--memory"))
        .collect::<Result<Vec<usize>>>()?;
    let mut bench = None;
    for name in names {
        say(&format!("bench {name}"));
        if name == "ring" {
            ring()?;
            continue;
        }
        if name.starts_with("remote") {
            remote::command(name)?;
            continue;
        }
        if name == tpch::POWER {
            tpch::power(scale.unwrap_or("1"), &memories)?;
            continue;
        }
        let bench = match &mut bench {
            Some(bench) => bench,
            none => none.insert(Bench::start("bench", &[])?),
        };
        if let Some(figure) = tpch::figure(name) {
            figure(bench)?;
            continue;
        }
        match name.as_str() {
            "copy" => copy(bench)?,
            "insert" => insert(bench)?,
            "insert.select" => rows::insert_select(bench)?,
            "q1q6" => q1q6(bench)?,
            "dml" => dml(bench)?,
            "tpcb" => rows::tpcb(bench)?,
            "lookup" => rows::lookup(bench)?,
            "flush" => rows::flush(bench)?,
            _ => count(bench)?,
        }
    }
    Ok(())
}

/// The crate's own benchmark prints its JSON lines.
fn ring() -> Result<()> {
    let pg = postgres::find_or_build(None)?;
    let text = cargo::command(&pg)
        .args(["bench", "-q", "-p", "pg_lake_ring", "--bench", "ring"])
        .limit(Duration::from_secs(1800))
        .progress("cargo bench")
        .ok()?;
    for line in text.lines() {
        if line.starts_with('{') {
            println!("{line}");
        } else {
            say(&format!("    {line}"));
        }
    }
    Ok(())
}

fn lineitem() -> Result<&'static Table> {
    TABLES
        .iter()
        .find(|table| table.name == "lineitem")
        .ok_or_else(|| "TPC-H has no lineitem".to_owned())
}

fn copy(bench: &Bench) -> Result<()> {
    let csv = bench.csv()?;
    let table = lineitem()?;
    let cluster = &bench.cluster;
    cluster.sql("CREATE SCHEMA copy")?;
    let mut times = (Vec::new(), Vec::new());
    for round in 1..=5 {
        for method in ["heap", "iceberg"] {
            say(&format!("    COPY lineitem into {method}, {round} of 5"));
            cluster.sql(&format!(
                "DROP TABLE IF EXISTS copy.lineitem; {} CHECKPOINT;",
                table.create("copy", method)
            ))?;
            let seconds = statement(cluster, &table.copy("copy", &csv))? / 1000.0;
            if method == "heap" {
                times.0.push(seconds);
            } else {
                times.1.push(seconds);
            }
        }
    }
    cluster.sql("DROP SCHEMA copy CASCADE")?;
    let ratio = ratio(&times.0, &times.1);
    report(
        "copy.lineitem",
        &[
            ("heap_s", median(times.0)),
            ("iceberg_s", median(times.1)),
            ("ratio", ratio),
        ],
    );
    Ok(())
}

fn insert(bench: &Bench) -> Result<()> {
    let cluster = &bench.cluster;
    cluster.sql("CREATE SCHEMA ins")?;
    let [heap, lake] = insert_rates(cluster, [("ins.heap", "heap"), ("ins.lake", "iceberg")], 3)?;
    cluster.sql("DROP SCHEMA ins CASCADE")?;
    let (heap, lake) = (median(heap), median(lake));
    report(
        "insert.single_row",
        &[
            ("heap_tps", heap),
            ("iceberg_tps", lake),
            ("ratio", lake / heap),
        ],
    );
    Ok(())
}

/// Transactions a second of one row each, into two tables in turns. They are created: a name, and what comes
/// after `USING`.
fn insert_rates(
    cluster: &Cluster,
    tables: [(&str, &str); 2],
    rounds: usize,
) -> Result<[Vec<f64>; 2]> {
    let script = |table: &str| cluster.dir.join(format!("insert-{table}.sql"));
    for (table, method) in tables {
        cluster.sql(&format!(
            "CREATE TABLE {table} (id bigint, at timestamptz, note text) USING {method}"
        ))?;
        let text = format!(
            "\\set id random(1, 1000000000)\n\
             INSERT INTO {table} VALUES (:id, now(), 'a note of some forty characters, say');\n"
        );
        os::write_file(&script(table), &text, cluster.user.as_ref())?;
    }
    let mut rates = [Vec::new(), Vec::new()];
    for round in 1..=rounds {
        for ((table, _), rates) in tables.iter().zip(&mut rates) {
            say(&format!(
                "    pgbench, single-row INSERT into {table}, {round} of {rounds}"
            ));
            rates.push(pgbench(cluster, &script(table))?);
        }
    }
    Ok(rates)
}

fn pgbench(cluster: &Cluster, script: &Path) -> Result<f64> {
    let mut command = cluster
        .tool("pgbench")
        .args(["-n", "-c", "1", "-t", "10000", "-M", "prepared", "-f"])
        .arg(script);
    for (name, value) in cluster.client_env() {
        command = command.env(name, value);
    }
    let text = command.ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("pgbench printed no rate:\n{}", process::tail(&text, 10)))
}

/// lineitem of SF1 in `bench_heap` and `bench`, loaded once.
fn load(bench: &Bench) -> Result<()> {
    let cluster = &bench.cluster;
    if cluster.sql("SELECT to_regnamespace('bench') IS NOT NULL")? == "t" {
        return Ok(());
    }
    let csv = bench.csv()?;
    let table = lineitem()?;
    cluster.sql("CREATE SCHEMA bench_heap; CREATE SCHEMA bench;")?;
    for (schema, method) in [("bench_heap", "heap"), ("bench", "iceberg")] {
        say(&format!("    loading lineitem into {method}"));
        cluster.sql(&format!(
            "{} {} VACUUM ANALYZE {schema}.lineitem;",
            table.create(schema, method),
            table.copy(schema, &csv)
        ))?;
    }
    Ok(())
}

fn q1q6(bench: &Bench) -> Result<()> {
    load(bench)?;
    let cluster = &bench.cluster;
    let location = cluster.sql("SELECT lake.publish('bench.lineitem')")?;
    for (name, sql) in crate::tpch::q1_q6()? {
        let mut all = (Vec::new(), Vec::new(), Vec::new());
        // Interleaved; what comes first in each turn warms up and is dropped.
        for _ in 0..5 {
            all.0.push(second_run(cluster, "bench_heap", &sql)?);
            all.1.push(second_run(cluster, "bench", &sql)?);
            let text = bench
                .python
                .script("duckdb_query.py", cluster)
                .arg(&location)
                .stdin(sql.as_str())
                .ok()?;
            let time: f64 = text
                .trim()
                .parse()
                .map_err(|_| format!("duckdb_query.py printed {text:?}"))?;
            all.2.push(time);
        }
        let (heap, lake, duck) = (median(all.0), median(all.1), median(all.2));
        report(
            &format!("tpch.{name}"),
            &[
                ("heap_ms", heap),
                ("iceberg_ms", lake),
                ("duckdb_ms", duck),
                ("ratio_heap", lake / heap),
                ("ratio_duckdb", lake / duck),
            ],
        );
    }
    Ok(())
}

/// UPDATE and DELETE of one row in a hundred, rolled back.
fn dml(bench: &Bench) -> Result<()> {
    load(bench)?;
    for (name, change) in [
        ("delete", "DELETE FROM lineitem WHERE l_orderkey % 100 = 7"),
        (
            "update",
            "UPDATE lineitem SET l_tax = l_tax + 1 WHERE l_orderkey % 100 = 7",
        ),
    ] {
        let mut times = (Vec::new(), Vec::new());
        for _ in 0..5 {
            for (schema, times) in [("bench_heap", &mut times.0), ("bench", &mut times.1)] {
                // The first statement warms up; the second one is timed.
                let warm = "SELECT count(*) FROM lineitem WHERE l_orderkey % 100 = 7";
                times.push(statement(
                    &bench.cluster,
                    &format!("SET search_path = {schema};\n{warm};\nBEGIN;\n{change};"),
                )?);
            }
        }
        let ratio = ratio(&times.0, &times.1);
        report(
            &format!("dml.{name}_1_percent"),
            &[
                ("heap_ms", median(times.0)),
                ("iceberg_ms", median(times.1)),
                ("ratio", ratio),
            ],
        );
    }
    delete_all(bench)
}

/// All rows of lineitem, and those of the first years of a table that is partitioned by them, each taken
/// back.
fn delete_all(bench: &Bench) -> Result<()> {
    for (schema, options) in [
        ("bench_heap", "USING heap"),
        (
            "bench",
            "USING iceberg WITH (partition_by = 'year(l_shipdate)')",
        ),
    ] {
        bench.cluster.sql(&format!(
            "CREATE TABLE {schema}.by_year (LIKE {schema}.lineitem) {options};
             INSERT INTO {schema}.by_year SELECT * FROM {schema}.lineitem;
             VACUUM ANALYZE {schema}.by_year"
        ))?;
    }
    for (name, change) in [
        ("delete_all", "DELETE FROM lineitem"),
        (
            "delete_range",
            "DELETE FROM by_year WHERE l_shipdate < '1995-01-01'",
        ),
    ] {
        let mut times = (Vec::new(), Vec::new());
        for round in 1..=3 {
            for (schema, times) in [("bench_heap", &mut times.0), ("bench", &mut times.1)] {
                say(&format!("    {change}, {schema}, {round} of 3"));
                times.push(statement(
                    &bench.cluster,
                    &format!("SET search_path = {schema};\nBEGIN;\n{change};"),
                )?);
            }
        }
        let ratio = ratio(&times.0, &times.1);
        report(
            &format!("dml.{name}"),
            &[
                ("heap_ms", median(times.0)),
                ("iceberg_ms", median(times.1)),
                ("ratio", ratio),
            ],
        );
    }
    bench
        .cluster
        .sql("DROP TABLE bench_heap.by_year, bench.by_year")?;
    Ok(())
}

fn second_run(cluster: &Cluster, schema: &str, sql: &str) -> Result<f64> {
    statement(
        cluster,
        &format!("SET search_path = {schema};\n{sql};\n{sql};"),
    )
}

fn count(bench: &Bench) -> Result<()> {
    load(bench)?;
    let cluster = &bench.cluster;
    let mut medians = Vec::new();
    for schema in ["bench_heap", "bench"] {
        let script = format!("SELECT count(*) FROM {schema}.lineitem;\n").repeat(12);
        let times = statements(cluster, &script)?;
        // The first one pays for the session's start.
        medians.push(median(times.into_iter().skip(1).collect()));
    }
    report(
        "count.lineitem",
        &[("heap_ms", medians[0]), ("iceberg_ms", medians[1])],
    );
    Ok(())
}
