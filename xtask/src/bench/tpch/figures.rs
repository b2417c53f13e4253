//! What surrounds a query: rows on their way to the client, planning and dispatch, an expression without end.

use crate::Result;
use crate::bench::{Bench, load};
use crate::client::{Client, Rows};
use crate::cluster::DATABASE;
use crate::timing::{median, report};
use crate::{compare, say};
use std::time::Instant;

const ROUNDS: usize = 5;

/// `COPY (SELECT …) TO STDOUT` of SF1 lineitem.
pub fn stream(bench: &Bench) -> Result<()> {
    load(bench)?;
    let mut client = Client::connect(&bench.cluster, DATABASE)?;
    for (name, columns) in [
        ("all_columns", "*"),
        (
            "five_columns",
            "l_orderkey, l_partkey, l_quantity, l_shipdate, l_comment",
        ),
    ] {
        let (mut heap, mut lake) = (Vec::new(), Vec::new());
        // The first round warms up.
        for round in 0..=ROUNDS {
            say(&format!("    COPY TO STDOUT, {name}, {round} of {ROUNDS}"));
            for (schema, rates) in [("bench_heap", &mut heap), ("bench", &mut lake)] {
                let copy = format!("COPY (SELECT {columns} FROM {schema}.lineitem) TO STDOUT");
                let (rows, milliseconds) = timed(&mut client, &copy)?;
                if rows.copied == 0 {
                    return Err(format!("{copy}: no rows"));
                }
                if round > 0 {
                    rates.push(rows.copied as f64 / milliseconds * 1000.0);
                }
            }
        }
        let (heap, lake) = (median(heap), median(lake));
        report(
            &format!("tpch.stream.{name}"),
            &[
                ("heap_rows_per_s", heap),
                ("iceberg_rows_per_s", lake),
                ("ratio", lake / heap),
            ],
        );
    }
    Ok(())
}

/// A lowered query that has next to nothing to do, beside heap's: planned each time, and as a plan that is there.
pub fn dispatch(bench: &Bench) -> Result<()> {
    const TIMES: usize = 2000;
    bench.cluster.sql(
        "CREATE SCHEMA dispatch;
         CREATE TABLE dispatch.heap (id int, n numeric(10,2));
         INSERT INTO dispatch.heap VALUES (1, 1);
         CREATE TABLE dispatch.iceberg (id int, n numeric(10,2)) USING iceberg;
         SET lake.bulk_rows = 0;
         INSERT INTO dispatch.iceberg VALUES (1, 1);
         SELECT lake.flush('dispatch.iceberg');
         ANALYZE dispatch.heap, dispatch.iceberg;",
    )?;
    let mut client = Client::connect(&bench.cluster, DATABASE)?;
    client.rows("SET lake.engine = force; SET plan_cache_mode = force_generic_plan")?;
    let query = |table: &str| format!("SELECT count(*) FROM dispatch.{table} WHERE id > 0");
    let plan = client.rows(&format!("EXPLAIN {}", query("iceberg")))?;
    if !plan.lines().iter().any(|line| line.contains("Engine: ")) {
        return Err(format!("not lowered:\n{}", plan.lines().join("\n")));
    }
    for table in ["heap", "iceberg"] {
        client.rows(&format!("PREPARE p_{table} AS {}", query(table)))?;
    }
    let planned = [query("heap"), query("iceberg")];
    let prepared = ["EXECUTE p_heap", "EXECUTE p_iceberg"].map(str::to_owned);
    let mut medians = Vec::new();
    for statements in [planned, prepared] {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..TIMES {
            for (statement, times) in statements.iter().zip(&mut times) {
                let (_, milliseconds) = timed(&mut client, statement)?;
                if round >= TIMES / 10 {
                    times.push(milliseconds);
                }
            }
        }
        medians.push(times.map(median));
    }
    bench.cluster.sql("DROP SCHEMA dispatch CASCADE")?;
    if let [[heap, lake], [heap_prepared, lake_prepared]] = medians.as_slice() {
        report(
            "tpch.dispatch",
            &[
                ("heap_p50_ms", *heap),
                ("iceberg_p50_ms", *lake),
                ("overhead_p50_ms", lake - heap),
                ("prepared_heap_p50_ms", *heap_prepared),
                ("prepared_iceberg_p50_ms", *lake_prepared),
                ("prepared_overhead_p50_ms", lake_prepared - heap_prepared),
            ],
        );
    }
    Ok(())
}

/// An OR of 20,000 arms is answered, by whomever, and the server lives on.
pub fn many_arms(bench: &Bench) -> Result<()> {
    const ARMS: usize = 20_000;
    bench.cluster.sql(
        "CREATE SCHEMA arms;
         CREATE TABLE arms.heap AS SELECT g AS id, g % 10 AS n FROM generate_series(1, 1000) g;
         SET lake.bulk_rows = 0;
         CREATE TABLE arms.iceberg USING iceberg AS TABLE arms.heap;
         SELECT lake.flush('arms.iceberg');
         ANALYZE arms.heap, arms.iceberg;",
    )?;
    // Every other arm is more than a comparison with a constant, which would make a list.
    let arms: Vec<String> = (0..ARMS)
        .map(|arm| match arm % 2 {
            0 => format!("id = {}", arm * 37),
            _ => format!("id < {} AND n = {}", arm % 700, arm % 23),
        })
        .collect();
    let condition = arms.join(" OR ");
    let query = |table: &str| {
        format!("SELECT count(*), sum(id), sum(n) FROM arms.{table} WHERE {condition}")
    };
    let mut client = Client::connect(&bench.cluster, DATABASE)?;
    let (expected, heap) = timed(&mut client, &query("heap"))?;
    let (found, lake) = timed(&mut client, &query("iceberg"))?;
    let order = compare::Order::Total;
    if let Some(what) = compare::difference(&expected, &found, order, compare::Tolerance::NONE) {
        return Err(format!("an OR of {ARMS} arms: {what}"));
    }
    client.rows("SET lake.engine = force")?;
    let forced = client.query(&query("iceberg"))?;
    if let Err(error) = &forced {
        say(&format!("    not lowered whole: {error}"));
    }
    // Whoever has crashed, has taken this session with it.
    client.rows("SELECT 1")?;
    bench.cluster.sql("DROP SCHEMA arms CASCADE")?;
    report(
        "tpch.or",
        &[
            ("arms", ARMS as f64),
            ("heap_ms", heap),
            ("iceberg_ms", lake),
            ("lowered", f64::from(forced.is_ok())),
        ],
    );
    Ok(())
}

/// A statement's rows, and the milliseconds that it took.
fn timed(client: &mut Client, sql: &str) -> Result<(Rows, f64)> {
    let begin = Instant::now();
    let rows = client.rows(sql)?;
    Ok((rows, begin.elapsed().as_secs_f64() * 1000.0))
}
