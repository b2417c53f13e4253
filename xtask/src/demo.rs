//! `demo`: the main job on real data, beside heap, for somebody who sees the project first.

use crate::cluster::{Cluster, DATABASE};
use crate::process::Cmd;
use crate::python::Python;
use crate::tpch::{self, READERS, TABLES};
use crate::{Result, say, timing, up};

const HEAP: &str = "demo_heap";
const LAKE: &str = "demo";

pub fn command(scale: &str) -> Result<()> {
    let cluster = up::up(None, false)?;
    if up::is_outdated(&cluster)? {
        return Err("the dev server is of an earlier state of the SQL scripts".to_owned());
    }
    let python = Python::set_up()?;
    let csv = tpch::csv(&python, scale)?;

    title(&format!(
        "TPC-H at scale {scale}: COPY into heap and into iceberg"
    ));
    cluster.sql(&format!(
        "DROP SCHEMA IF EXISTS {LAKE} CASCADE; DROP SCHEMA IF EXISTS {HEAP} CASCADE;
         CREATE SCHEMA {LAKE}; CREATE SCHEMA {HEAP};"
    ))?;
    println!(
        "{:<10} {:>12} {:>12} {:>8}",
        "table", "heap ms", "iceberg ms", "ratio"
    );
    let mut total = (0.0, 0.0);
    for table in TABLES {
        say(&format!("    loading {}", table.name));
        let heap = load(&cluster, table, HEAP, "heap", &csv)?;
        let lake = load(&cluster, table, LAKE, "iceberg", &csv)?;
        total = (total.0 + heap, total.1 + lake);
        println!(
            "{:<10} {heap:>12.1} {lake:>12.1} {:>8.2}",
            table.name,
            lake / heap
        );
    }
    println!(
        "{:<10} {:>12.1} {:>12.1} {:>8.2}",
        "all",
        total.0,
        total.1,
        total.1 / total.0
    );
    say("    analyzing");
    cluster.sql("ANALYZE")?;

    for (name, sql) in tpch::q1_q6()? {
        title(&format!("{}, in an iceberg table", name.to_uppercase()));
        println!(
            "{}",
            in_schema(
                &cluster,
                LAKE,
                &format!("EXPLAIN (ANALYZE, COSTS OFF) {sql}")
            )?
        );
        let heap = query_ms(&cluster, HEAP, &sql)?;
        let lake = query_ms(&cluster, LAKE, &sql)?;
        println!(
            "\nheap {heap:.1} ms, iceberg {lake:.1} ms: ratio {:.2}",
            lake / heap
        );
    }

    title("The worker pool, its streams, the tables");
    show(&cluster, "SELECT * FROM lake.stat_workers")?;
    show(
        &cluster,
        "SELECT count(*) AS streams FROM lake.stat_streams",
    )?;
    show(&cluster, "SELECT * FROM lake.tables")?;

    title("Published, and read by others");
    let metadata = tpch::publish(&cluster, LAKE)?;
    for location in &metadata {
        println!("{location}");
    }
    let expected = tpch::sums(&cluster, HEAP, "")?;
    let mut mismatches = 0;
    let mut verdict = |who: &str, found: Result<Vec<String>>| {
        let different = match found {
            Ok(found) => tpch::differences(&expected, &found),
            Err(error) => vec![error],
        };
        println!(
            "{who:<20} {}",
            if different.is_empty() {
                "OK"
            } else {
                "MISMATCH"
            }
        );
        for line in &different {
            println!("{line}");
        }
        mismatches += different.len();
    };
    println!("\ncounts and sums of all numeric columns, compared with heap:");
    for engine in ["on", "off"] {
        let found = tpch::sums(&cluster, LAKE, &format!("SET lake.engine = {engine};"));
        verdict(&format!("lake.engine = {engine}"), found);
    }
    for reader in READERS {
        say(&format!("    reading with {reader}"));
        let found = tpch::outside_sums(&python, &cluster, reader, LAKE, &metadata);
        verdict(reader, found);
    }
    if mismatches > 0 {
        return Err(format!("{mismatches} differences"));
    }
    println!("\nThe server keeps running: `cargo xtask psql`, `cargo xtask down`.");
    Ok(())
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn load(
    cluster: &Cluster,
    table: &tpch::Table,
    schema: &str,
    method: &str,
    csv: &std::path::Path,
) -> Result<f64> {
    cluster.sql(&table.create(schema, method))?;
    timing::statement(cluster, &table.copy(schema, csv))
}

fn in_schema(cluster: &Cluster, schema: &str, sql: &str) -> Result<String> {
    cluster.sql(&format!("SET search_path = {schema};\n{sql};"))
}

/// The better of the second and third run: the first one warms caches.
fn query_ms(cluster: &Cluster, schema: &str, sql: &str) -> Result<f64> {
    let script = format!("SET search_path = {schema};\n{sql};\n{sql};\n{sql};");
    let times = timing::statements(cluster, &script)?;
    Ok(times
        .iter()
        .rev()
        .take(2)
        .copied()
        .fold(f64::INFINITY, f64::min))
}

/// A result as psql shows it to people.
fn show(cluster: &Cluster, sql: &str) -> Result<()> {
    let mut command: Cmd = cluster.tool("psql").args([
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-P",
        "pager=off",
        "-c",
        sql,
    ]);
    for (name, value) in cluster.client_env() {
        command = command.env(name, value);
    }
    println!("{DATABASE}=# {sql}\n{}", command.ok()?.trim_end());
    println!();
    Ok(())
}
