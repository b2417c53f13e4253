//! The 22 queries, warm: the engine on iceberg tables, and DuckDB on the Parquet files that these have published.
//!
//! Both have two cores and as much memory. A round runs all queries by one, then by the other. DuckDB is a
//! process of its own in each round, the engine goes on. Each query's first run of a round warms up and isn't counted.

use super::blanks;
use super::cores::{CORES, Pinned};
use crate::bench::Bench;
use crate::client::{Client, Rows};
use crate::cluster::{Cluster, DATABASE};
use crate::timing::{median, ratio, report};
use crate::tpch::queries::{self, Query};
use crate::tpch::twins::{self, LAKE};
use crate::tpch::{self, TABLES};
use crate::{Context, Result, process, say};
use std::fs;
use std::time::Instant;

const ROUNDS: usize = 5;
/// From scale 5 on, when a round takes minutes.
const FEW_ROUNDS: usize = 2;
/// Of each query in a round.
const RUNS: usize = 2;
/// What DuckDB's numbers may differ by: its averages are floats.
const NEAR: f64 = 1e-6;

/// Nothing happens in the background.
const SETTINGS: &[(&str, &str)] = &[
    ("autovacuum", "off"),
    ("lake.auto_compact", "off"),
    ("lake.flush_interval", "-1"),
    ("lake.flush_rows", "-1"),
    ("lake.publish_interval", "-1"),
];

/// One side's runs of a query, in milliseconds.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn median(&self) -> f64 {
        median(self.0.clone())
    }
}

/// What an answer comes to, to see that both sides have the same.
#[derive(Clone, Copy)]
struct Digest {
    rows: usize,
    /// Of all numbers in it.
    sum: f64,
}

impl Digest {
    fn of(answer: &Rows) -> Digest {
        let numbers = answer.rows.iter().flat_map(|row| {
            let cells = row.iter().zip(&answer.columns);
            cells.filter_map(|(value, column)| {
                let text = value.as_deref().filter(|_| column.is_number())?;
                text.parse::<f64>().ok()
            })
        });
        Digest {
            rows: answer.rows.len(),
            sum: numbers.sum(),
        }
    }

    fn agrees(self, other: Digest) -> bool {
        let larger = self.sum.abs().max(other.sum.abs());
        self.rows == other.rows && (self.sum - other.sum).abs() <= larger * NEAR
    }
}

/// One query and what became of it.
struct Measured {
    query: Query,
    /// Why it isn't run by the engine whole.
    why_not: Option<String>,
    engine: Times,
    duckdb: Times,
}

/// With each of `memories` in turn, in MB, or with what the scale needs.
pub fn power(scale: &str, memories: &[usize]) -> Result<()> {
    let memories = match memories {
        [] => vec![Memory::of(scale)?],
        some => some.iter().map(|mb| Memory { worker_mb: *mb }).collect(),
    };
    let mut bench = Bench::start("bench-tpch", SETTINGS)?;
    // The engine counts the cores when it starts.
    let _pinned = Pinned::new()?;
    let csv = tpch::csv(&bench.python, scale)?;
    twins::load(&bench.cluster, &csv, &[(LAKE, "iceberg")])?;
    let metadata = tpch::publish(&bench.cluster, LAKE)?;
    let mut failed = vec![];
    for memory in memories {
        memory.set(&mut bench.cluster)?;
        failed.extend(measure(&bench, scale, memory, &metadata)?);
    }
    match failed.as_slice() {
        [] => Ok(()),
        some => Err(some.join("\n")),
    }
}

/// The errors of queries that can't be run.
fn measure(bench: &Bench, scale: &str, memory: Memory, metadata: &[String]) -> Result<Vec<String>> {
    let mut client = Client::connect(&bench.cluster, DATABASE)?;
    client.rows(&format!("SET search_path = {LAKE}"))?;
    let mut all = Vec::new();
    let mut failed = vec![];
    for query in queries::all(&bench.python, &bench.cluster)? {
        let why_not = why_not(&mut client, &query)?;
        match client.query(&query.sql)? {
            Ok(_) => all.push(Measured {
                why_not,
                query,
                engine: Times::default(),
                duckdb: Times::default(),
            }),
            Err(error) => failed.push(format!(
                "Q{} with {} MB: {error}",
                query.number, memory.worker_mb
            )),
        }
    }
    let rounds = match scale.parse::<f64>().context("--scale")? {
        large if large >= 5.0 => FEW_ROUNDS,
        _ => ROUNDS,
    };
    for round in 1..=rounds {
        say(&format!("    the engine, {round} of {rounds}"));
        let mut digests = Vec::new();
        for measured in &mut all {
            digests.push(by_the_engine(&mut client, measured)?);
        }
        say(&format!("    DuckDB, {round} of {rounds}"));
        by_duckdb(bench, metadata, memory, &mut all, &digests)?;
    }
    report_all(scale, memory, &all);
    Ok(failed)
}

fn why_not(client: &mut Client, query: &Query) -> Result<Option<String>> {
    client.rows("SET lake.engine = force")?;
    let plan = client.query(&format!("EXPLAIN {}", query.sql))?;
    client.rows("SET lake.engine = on")?;
    match plan {
        Ok(_) => Ok(None),
        Err(error) if error.is_refusal() => Ok(Some(error.detail)),
        Err(error) => Err(format!("Q{}: {error}", query.number)),
    }
}

fn by_the_engine(client: &mut Client, measured: &mut Measured) -> Result<Digest> {
    let sql = &measured.query.sql;
    let answer = client.rows(sql)?;
    for _ in 0..RUNS {
        let begin = Instant::now();
        client.rows(sql)?;
        let taken = begin.elapsed().as_secs_f64();
        measured.engine.0.push(taken * 1000.0);
    }
    Ok(Digest::of(&answer))
}

fn by_duckdb(
    bench: &Bench,
    metadata: &[String],
    memory: Memory,
    all: &mut [Measured],
    digests: &[Digest],
) -> Result<()> {
    let mut input = String::new();
    for (table, location) in TABLES.iter().zip(metadata) {
        input.push_str(&format!("table\t{}\t{location}\n", table.name));
    }
    for measured in all.iter() {
        let text = blanks::with_blanks(&measured.query.sql);
        input.push_str(&format!("query\t{}\t{text}\n", measured.query.number));
    }
    let script = bench.python.script("duckdb_tpch.py", &bench.cluster);
    let text = script
        .args([CORES, memory.worker_mb, RUNS].map(|number| number.to_string()))
        .stdin(input)
        .ok()?;
    let mut lines = text.lines();
    for (measured, digest) in all.iter_mut().zip(digests) {
        let line = lines.next().unwrap_or("nothing");
        let (found, times) = parsed(line, measured.query.number)
            .ok_or_else(|| format!("duckdb_tpch.py printed {line:?}"))?;
        if !digest.agrees(found) {
            return Err(format!(
                "Q{}: DuckDB has {} rows with a sum of {}, Postgres {} with {}",
                measured.query.number, found.rows, found.sum, digest.rows, digest.sum
            ));
        }
        measured.duckdb.0.extend(times);
    }
    Ok(())
}

/// A line of `duckdb_tpch.py`.
fn parsed(line: &str, number: usize) -> Option<(Digest, Vec<f64>)> {
    let mut fields = line.split('\t');
    let named: usize = fields.next()?.parse().ok()?;
    let digest = Digest {
        rows: fields.next()?.parse().ok()?,
        sum: fields.next()?.parse().ok()?,
    };
    let times: Option<Vec<f64>> = fields
        .next()?
        .split(',')
        .map(|time| time.parse().ok())
        .collect();
    times
        .filter(|times| named == number && times.len() == RUNS)
        .map(|times| (digest, times))
}

/// A line for each query, and one for all together: the sums of the best times, and of the medians.
fn report_all(scale: &str, memory: Memory, all: &[Measured]) {
    let (mut best, mut middle) = ((0.0, 0.0), (0.0, 0.0));
    for measured in all {
        let (engine, duckdb) = (&measured.engine, &measured.duckdb);
        best = (best.0 + engine.best(), best.1 + duckdb.best());
        middle = (middle.0 + engine.median(), middle.1 + duckdb.median());
        report(
            &format!("tpch.sf{scale}.q{}", measured.query.number),
            &[
                ("engine_best_ms", engine.best()),
                ("engine_median_ms", engine.median()),
                ("duckdb_best_ms", duckdb.best()),
                ("duckdb_median_ms", duckdb.median()),
                ("ratio_best", engine.best() / duckdb.best()),
                ("ratio_median", ratio(&duckdb.0, &engine.0)),
                ("lowered", f64::from(measured.why_not.is_none())),
            ],
        );
    }
    let lowered = all.iter().filter(|measured| measured.why_not.is_none());
    report(
        &format!("tpch.sf{scale}.sum"),
        &[
            ("engine_best_ms", best.0),
            ("engine_median_ms", middle.0),
            ("duckdb_best_ms", best.1),
            ("duckdb_median_ms", middle.1),
            ("ratio_best", best.0 / best.1),
            ("ratio_median", middle.0 / middle.1),
            ("lowered", lowered.count() as f64),
            ("threads", CORES as f64),
            ("memory_mb", memory.worker_mb as f64),
        ],
    );
    for measured in all {
        if let Some(reason) = &measured.why_not {
            say(&format!(
                "    Q{} is not lowered whole: {reason}",
                measured.query.number
            ));
        }
    }
}

/// What the engine may have, and DuckDB as well.
#[derive(Clone, Copy)]
struct Memory {
    worker_mb: usize,
}

impl Memory {
    /// 4 GB for each unit of the scale, within 60 % of the machine's.
    fn of(scale: &str) -> Result<Memory> {
        let scale: f64 = scale.parse().context("--scale")?;
        let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let total =
            process::status_field(&text, "MemTotal:").ok_or("/proc/meminfo has no total")?;
        let most = total as f64 / 1024.0 * 0.6;
        Ok(Memory {
            worker_mb: (4096.0 * scale.max(1.0)).min(most) as usize,
        })
    }

    /// Two thirds are for decoded columns.
    fn set(self, cluster: &mut Cluster) -> Result<()> {
        for (setting, mb) in [
            ("lake.worker_memory", self.worker_mb),
            ("lake.memory_cache_size", self.worker_mb / 3 * 2),
        ] {
            cluster.sql(&format!("ALTER SYSTEM SET {setting} = '{mb}MB'"))?;
        }
        cluster.restart()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_duckdb_are_read() {
        let (digest, times) = parsed("3\t10\t12.5\t1.5,2.5", 3).unwrap();
        assert_eq!((digest.rows, digest.sum), (10, 12.5));
        assert_eq!(times, [1.5, 2.5]);
        assert!(parsed("4\t10\t12.5\t1.5,2.5", 3).is_none());
        assert!(parsed("3\t10\t12.5\t1.5", 3).is_none());
        let near = Digest {
            rows: 10,
            sum: 12.500_000_1,
        };
        assert!(digest.agrees(near));
        assert!(!digest.agrees(Digest { rows: 9, ..near }));
        assert!(!digest.agrees(Digest { sum: 12.6, ..near }));
    }
}
