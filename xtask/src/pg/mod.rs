//! End-to-end scenarios on throwaway clusters: crashes, faults, limits, copies, documentation.
//!
//! A scenario is a function that makes its own cluster; it must bound every wait.

mod admission;
mod background;
mod crash;
pub mod crashes;
mod disk;
mod docs;
mod dump;
mod engine_limits;
mod faults;
mod limits;
mod many_sessions;
mod progress;
mod queries;
pub mod random;
pub mod remote;
pub mod semantics;
pub mod sqlsmith;
mod stop;
mod subscription;
mod sums;
mod tablespace;
mod tpcb;
pub mod tpch;
mod twins;
mod two_phase;

use crate::Result;
use crate::cluster::Cluster;
use crate::process::tail_of;
use crate::say;
use crate::test::{Run, Tally};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

type Scenario = fn(&mut Run) -> Result<()>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("not_preloaded", faults::not_preloaded),
    ("sums_everywhere", sums::sums_everywhere),
    ("worker_killed", faults::worker_killed),
    ("graceful_stop", stop::graceful_stop),
    ("damaged_file", faults::damaged_file),
    ("disk_full", disk::disk_full),
    ("set_tablespace", tablespace::set_tablespace),
    ("maintainer", background::maintainer),
    ("progress", progress::progress),
    ("memory_bound", background::memory_bound),
    ("streams_exhausted", limits::streams_exhausted),
    ("statement_timeout", limits::statement_timeout),
    ("cancel", limits::cancel),
    ("stat_queries", queries::stat_queries),
    ("engine_limits", engine_limits::engine_limits),
    ("admission", admission::admission),
    ("many_sessions", many_sessions::many_sessions),
    ("crash_leftovers", crash::crash_leftovers),
    ("crash_points", crashes::smoke),
    ("store_smoke", remote::surface::smoke),
    ("fault_smoke", remote::matrix::smoke),
    ("flush_under_load", crash::flush_under_load),
    ("twins", twins::twins),
    ("prepared_deletes", two_phase::prepared_deletes),
    ("tpcb", tpcb::tpcb),
    ("tpch_smoke", tpch::smoke),
    ("semantics_smoke", semantics::smoke),
    ("subscription", subscription::subscription),
    ("dump_and_restore", dump::dump_and_restore),
    ("base_backup", dump::base_backup),
    ("settings_documented", docs::settings_documented),
    ("documentation_examples", docs::documentation_examples),
];

/// What a scenario needs of the machine: the reason to skip it, if that is missing.
type Lack = fn(&Run) -> Option<String>;

const NEEDS: &[(&str, Lack)] = &[("disk_full", disk::cannot_mount)];

/// Not in a run of everything, unless it is a long one.
const LONG: &[&str] = &["memory_bound"];

pub fn suite(run: &mut Run) -> Result<Tally> {
    run.extension()?;
    let limit = run.limit(25);
    scenarios(run, "pg", SCENARIOS, limit)
}

/// Run a suite's scenarios, or those of them that were named.
fn scenarios(
    run: &mut Run,
    suite: &str,
    all: &[(&str, Scenario)],
    limit: Duration,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let named: Vec<String> = run.named(suite).into_iter().map(str::to_owned).collect();
    let known: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = named.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!(
            "no scenario {unknown}; there are {}",
            known.join(", ")
        ));
    }
    let started = Instant::now();
    for (name, scenario) in all {
        if !named.is_empty() && !named.iter().any(|wanted| wanted == name) {
            continue;
        }
        if LONG.contains(name) && named.is_empty() && !run.long {
            tally.skip(name, "a longer soak: with --long, or by its name");
            continue;
        }
        let lack = NEEDS
            .iter()
            .find(|(needy, _)| needy == name)
            .and_then(|&(_, lack)| lack(run));
        if let Some(reason) = lack {
            tally.skip(name, &reason);
            continue;
        }
        if started.elapsed() > limit {
            tally.check(name, Err("not run: the suite's time is over".to_owned()));
            continue;
        }
        let result = scenario(run);
        let failed = result.is_err();
        tally.check(name, result);
        if failed {
            show_server_log(run, name);
        }
    }
    Ok(tally)
}

/// Scenarios name their clusters after themselves.
fn show_server_log(run: &Run, scenario: &str) {
    let Ok(entries) = fs::read_dir(&run.logs) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if name.starts_with(scenario) && name.ends_with(".server.log") {
            say(&format!("    the server's log ({}):", path.display()));
            for line in tail_of(&path, 25).lines() {
                say(&format!("    | {line}"));
            }
        }
    }
}

/// `table` with `rows` rows of an integer key, a group, an amount and a text; loaded in bulk.
fn fill(cluster: &Cluster, table: &str, rows: u32) -> Result<()> {
    cluster
        .sql(&format!(
            "CREATE TABLE {table} (id int, grp int, amount numeric(15,2), note text) USING iceberg;
             INSERT INTO {table}
               SELECT g, g % 1000, g / 100.0, 'note ' || g FROM generate_series(1, {rows}) g;
             ANALYZE {table};"
        ))
        .map(drop)
}

/// The server must be the one that was running before, not one that recovered from a crash.
fn same_server(cluster: &Cluster, before: &str) -> Result<()> {
    let now = started_at(cluster)?;
    if now != before {
        return Err(format!(
            "the server restarted: it started {before}, now {now}"
        ));
    }
    let log = fs::read(cluster.log()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    match log.lines().find(|line| {
        line.contains("all server processes terminated")
            || line.contains("was terminated by signal 11")
    }) {
        Some(line) => Err(format!("the server crashed: {line}")),
        None => Ok(()),
    }
}

fn started_at(cluster: &Cluster) -> Result<String> {
    cluster.sql("SELECT pg_postmaster_start_time()")
}

/// SQL that must fail, with an error that mentions all of `words` (in any case).
fn must_fail(cluster: &Cluster, sql: &str, words: &[&str]) -> Result<String> {
    match cluster.sql(sql) {
        Ok(rows) => Err(format!(
            "no error (wanted one that mentions {}), but {} rows from: {sql}",
            words.join(", "),
            rows.lines().count()
        )),
        Err(error) => {
            let lower = error.to_lowercase();
            match words
                .iter()
                .find(|word| !lower.contains(&word.to_lowercase()))
            {
                Some(word) => Err(format!("the error does not mention {word}: {error}")),
                None => Ok(error),
            }
        }
    }
}

fn must_be(found: &str, expected: &str, what: &str) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what}: {found}, expected {expected}"))
    }
}

/// Ask until the answer is `Ok(true)`; the last error, or `what`, when time is over.
pub fn wait_until(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let result = condition();
        if result == Ok(true) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return match result {
                Err(error) => Err(format!("{what}: {error}")),
                Ok(_) => Err(format!("{what}: not within {} s", limit.as_secs())),
            };
        }
        sleep(Duration::from_millis(100));
    }
}
