//! sqlsmith's random statements on the tables of TPC-H, in heap and in iceberg with hot, cold, changed and deleted rows.
//!
//! * `program`: where sqlsmith comes from
//! * `log`: what the server's log says
//!
//! Answers aren't compared, that is what `semantics` does. Nothing may crash or panic, and a statement may end with an
//! internal error only if it does on heap, too. sqlsmith rolls back what it changes: the rows are the same afterwards.

mod log;
mod program;

use super::random::seed_from_environment;
use super::{same_server, started_at};
use crate::client::Client;
use crate::cluster::{Cluster, DATABASE};
use crate::test::{Run, Tally};
use crate::tpch::twins::{self, HEAP, LAKE};
use crate::tpch::{self, TABLES};
use crate::{Context, Result, say};
use log::InternalError;
use program::Program;
use std::fs;
use std::time::{Duration, Instant};

const SCALE: &str = "0.01";
const SECONDS: u64 = 300;

/// Rows stay hot, or cold, as they are. Random joins are large.
const SETTINGS: &[(&str, &str)] = &[
    ("autovacuum", "off"),
    ("lake.auto_compact", "off"),
    ("lake.flush_interval", "-1"),
    ("lake.flush_rows", "-1"),
    ("lake.publish_interval", "-1"),
    ("lake.engine", "on"),
    ("lake.worker_memory", "512MB"),
    ("lake.memory_cache_size", "64MB"),
    ("temp_file_limit", "1GB"),
    ("log_line_prefix", log::PREFIX),
];

/// It is no superuser: random calls of functions could end the server, or read and write its files.
const ROLE: &str = "smith";

pub fn suite(run: &mut Run) -> Result<Tally> {
    let mut tally = Tally::default();
    match program::find() {
        Ok(program) => tally.check("random statements", statements(run, &program)),
        Err(reason) => tally.skip("random statements", &reason),
    }
    Ok(tally)
}

fn statements(run: &mut Run, program: &Program) -> Result<()> {
    let csv = tpch::csv(run.python()?, SCALE)?;
    let cluster = run.cluster("sqlsmith", SETTINGS)?;
    twins::load(&cluster, &csv, &[(HEAP, "heap"), (LAKE, "iceberg")])?;
    twins::change(&cluster)?;
    cluster.sql(&format!(
        "CREATE ROLE {ROLE} LOGIN;
         GRANT USAGE ON SCHEMA {HEAP}, {LAKE} TO {ROLE};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {HEAP}, {LAKE} TO {ROLE};"
    ))?;
    let server = started_at(&cluster)?;
    let before = tpch::sums(&cluster, LAKE, "")?;
    smith(run, &cluster, program)?;

    let bytes = fs::read(cluster.log()).context(cluster.log().display())?;
    let text = String::from_utf8_lossy(&bytes);
    if let Some(line) = log::crash(&text) {
        return Err(format!("the log says: {line}"));
    }
    same_server(&cluster, &server)?;
    let changed = tpch::differences(&before, &tpch::sums(&cluster, LAKE, "")?);
    if !changed.is_empty() {
        return Err(format!(
            "what was rolled back has changed rows: {}",
            changed.join("\n")
        ));
    }
    judge(&cluster, &log::internal_errors(&text))
}

/// Runs it until its time is over.
fn smith(run: &Run, cluster: &Cluster, program: &Program) -> Result<()> {
    let seconds = run.seconds.unwrap_or(SECONDS);
    // What it reads is an int.
    let seed = run.seed.unwrap_or_else(seed_from_environment) % (1 << 31);
    say(&format!("      --seed {seed} --seconds {seconds}"));
    let output = program
        .command()
        .arg(format!(
            "--target=host=127.0.0.1 port={} user={ROLE} dbname={DATABASE}",
            cluster.port
        ))
        .arg(format!("--seed={seed}"))
        .args(["--exclude-catalog", "--verbose"])
        .limit(Duration::from_secs(seconds))
        .log(run.log("sqlsmith.statements"))
        .run()?;
    if output.timed_out {
        return Ok(());
    }
    Err(format!(
        "sqlsmith ended by itself; see {}",
        run.log("sqlsmith.statements").display()
    ))
}

/// Which internal errors heap has, too: these are Postgres' own.
fn judge(cluster: &Cluster, errors: &[InternalError]) -> Result<()> {
    let mut ours = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    for error in errors {
        if Instant::now() < deadline && on_heap_too(cluster, &error.statement)? {
            say(&format!("      Postgres' own: {}", error.message));
        } else {
            ours.push(format!("{}\n{}", error.message, error.statement));
        }
    }
    if ours.is_empty() {
        return Ok(());
    }
    Err(format!("internal errors:\n{}", ours.join("\n\n")))
}

/// Whether a statement has an internal error with heap tables in the place of iceberg ones.
fn on_heap_too(cluster: &Cluster, statement: &str) -> Result<bool> {
    if statement.is_empty() {
        return Ok(false);
    }
    let on_heap = TABLES.iter().fold(statement.to_owned(), |sql, table| {
        let (lake, heap) = (
            format!("{LAKE}.{}", table.name),
            format!("{HEAP}.{}", table.name),
        );
        sql.replace(&lake, &heap)
    });
    let mut client = Client::connect(cluster, DATABASE)?;
    client.rows(&format!(
        "SET SESSION AUTHORIZATION {ROLE}; SET lake.engine = off; SET statement_timeout = '10s'; BEGIN"
    ))?;
    let reply = client.query(&on_heap)?;
    Ok(reply.is_err_and(|error| error.sqlstate == "XX000"))
}
