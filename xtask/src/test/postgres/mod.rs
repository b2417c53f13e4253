//! Postgres' own suites, `src/test/regress` and `src/test/isolation`, unmodified, on iceberg tables.
//!
//! `default_table_access_method` makes every table of theirs an iceberg one. What comes out must be
//! what heap gives, save for differences that somebody has looked at (`reviewed.rs`). Where the engine
//! runs, plans and the order of rows that have none may differ as well (`settled.rs`, which takes the
//! output apart by `output.rs` and `sql.rs`). The suites are those of the server's own version where its
//! source can be had (`files.rs`). Where it can't, they run on heap first, and what heap gives on this
//! server is right, too.

mod files;
mod output;
mod reviewed;
mod settled;
mod sql;

use super::driver::{Driver, Report};
use super::{Run, SETTINGS, Tally, driver};
use crate::cluster::Cluster;
use crate::postgres::{Postgres, source_of_server};
use crate::{Context, Result, say};
use files::Files;
use output::Style;
use reviewed::Reviewed;
use std::fs;
use std::path::{Path, PathBuf};

/// One of the suites.
struct Suite {
    /// As the folder below `src/test` is called.
    name: &'static str,
    program: &'static str,
    schedule: &'static str,
    /// As its makefile calls it.
    database: &'static str,
    inputs: &'static [&'static str],
    style: Style,
}

const REGRESS: Suite = Suite {
    name: "regress",
    program: "pg_regress",
    schedule: "parallel_schedule",
    database: "regression",
    inputs: &["sql", "expected", "data"],
    style: Style::Psql,
};

const ISOLATION: Suite = Suite {
    name: "isolation",
    program: "pg_isolation_regress",
    schedule: "isolation_schedule",
    database: "isolation_regression",
    inputs: &["specs", "expected"],
    style: Style::IsolationTester,
};

/// Where the rows of the suites' tables are, by settings, and who runs the plans.
struct Mode {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    engine: Engine,
    /// Of the driver.
    arguments: &'static [&'static str],
    /// The mode whose reviewed differences may come here, too.
    inherits: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Engine {
    /// Postgres' executor runs the plans that its planner made.
    Off,
    /// Plans differ, and so does the order of rows that have none.
    On,
}

impl Engine {
    fn setting(self) -> (&'static str, &'static str) {
        match self {
            Engine::Off => ("lake.engine", "off"),
            Engine::On => ("lake.engine", "on"),
        }
    }
}

/// All rows stay in the heap.
const HOT: Mode = Mode {
    name: "hot",
    settings: &[
        ("lake.bulk_rows", "-1"),
        ("lake.flush_rows", "-1"),
        ("lake.auto_compact", "off"),
        ("lake.flush_interval", "-1"),
        ("lake.vacuum_flush", "off"),
        ("lake.publish_interval", "-1"),
    ],
    engine: Engine::Off,
    arguments: &[],
    inherits: None,
};

/// Rows are cold as soon as every snapshot sees them. One test at a time, since the snapshots of others
/// would hold that off.
const COLD: Mode = Mode {
    name: "cold",
    settings: &[
        ("lake.bulk_rows", "0"),
        ("lake.flush_rows", "-1"),
        ("lake.auto_compact", "off"),
        ("lake.flush_interval", "-1"),
        ("lake.debug_flush", "on"),
        ("lake.publish_interval", "-1"),
    ],
    engine: Engine::Off,
    arguments: &["--max-connections=1"],
    inherits: None,
};

/// The same with the engine, which has the most to do where rows are cold.
const ENGINE: Mode = Mode {
    name: "engine",
    engine: Engine::On,
    inherits: Some(COLD.name),
    ..COLD
};

/// The suites count on Postgres' defaults in these.
const DEFAULTS: &[(&str, &str)] = &[("wal_level", "replica"), ("fsync", "off")];

const OPTIONS: &[&str] = &[
    "--use-existing",
    "--max-concurrent-tests=20",
    "--no-locale",
    "--encoding=UTF8",
];

/// What the drivers set for a database that they create themselves.
const DATABASE_SETTINGS: &[(&str, &str)] = &[
    ("lc_messages", "C"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("bytea_output", "hex"),
    ("timezone_abbreviations", "Default"),
];

/// Each on heap or in a mode: many times what an idle machine needs.
const MINUTES: u64 = 15;

pub fn regress(run: &mut Run) -> Result<Tally> {
    compared_with_heap(run, &REGRESS, &HOT)
}

pub fn isolation(run: &mut Run) -> Result<Tally> {
    compared_with_heap(run, &ISOLATION, &HOT)
}

pub fn regress_cold(run: &mut Run) -> Result<Tally> {
    compared_with_heap(run, &REGRESS, &COLD)
}

pub fn isolation_cold(run: &mut Run) -> Result<Tally> {
    compared_with_heap(run, &ISOLATION, &COLD)
}

pub fn regress_engine(run: &mut Run) -> Result<Tally> {
    compared_with_heap(run, &REGRESS, &ENGINE)
}

pub fn isolation_engine(run: &mut Run) -> Result<Tally> {
    compared_with_heap(run, &ISOLATION, &ENGINE)
}

fn compared_with_heap(run: &mut Run, suite: &'static Suite, mode: &Mode) -> Result<Tally> {
    let mut tally = Tally::default();
    let pg = run.extension()?;
    if let Err(reason) = driver::tool(&pg, suite.program) {
        tally.skip(suite.name, &reason);
        return Ok(tally);
    }
    let server = pg.version.split_whitespace().next().unwrap_or_default();
    let source = source_of_server(server)?;
    let files = Files::unpack(&source, suite, run)?;
    say(&format!(
        "    the suite of PostgreSQL {} on PostgreSQL {server}",
        source.version
    ));
    let heap = if source.version == server {
        Vec::new()
    } else {
        on_heap(run, &pg, suite, &files, &mut tally)?
    };
    in_mode(run, &pg, suite, mode, &files, &heap, &mut tally)?;
    Ok(tally)
}

/// A test, and its output on heap.
type Outcome = (String, PathBuf);

/// The tests whose output on heap isn't one that this version of the suite expects.
fn on_heap(
    run: &mut Run,
    pg: &Postgres,
    suite: &Suite,
    files: &Files,
    tally: &mut Tally,
) -> Result<Vec<Outcome>> {
    let label = format!("postgres-{}-heap", suite.name);
    let settings: Vec<(&str, &str)> = DEFAULTS
        .iter()
        .copied()
        .chain([("shared_preload_libraries", "")])
        .collect();
    let mut cluster = run.stopped_cluster(&format!("{label}-server"), &settings)?;
    cluster.start()?;
    create_database(&cluster, suite)?;
    let dir = files.copy(&run.work_dir(&label)?, pg, run)?;
    let (report, _) = drive(run, &cluster, suite, &dir, &label, HOT.arguments)?;
    report.check(&format!("{} on heap", suite.program), tally);
    let differing: Vec<Outcome> = report
        .tests
        .into_iter()
        .filter(|(_, passed)| !passed)
        .map(|(name, _)| {
            let output = dir.join("results").join(format!("{name}.out"));
            (name, output)
        })
        .collect();
    if !differing.is_empty() {
        let names: Vec<&str> = differing.iter().map(|(name, _)| name.as_str()).collect();
        say(&format!(
            "    on heap, this server differs in {}: its output counts as expected",
            names.join(", ")
        ));
    }
    Ok(differing)
}

fn in_mode(
    run: &mut Run,
    pg: &Postgres,
    suite: &Suite,
    mode: &Mode,
    files: &Files,
    heap: &[Outcome],
    tally: &mut Tally,
) -> Result<()> {
    let label = format!("postgres-{}-{}", suite.name, mode.name);
    let settings: Vec<(&str, &str)> = DEFAULTS
        .iter()
        .chain(mode.settings)
        .copied()
        .chain([mode.engine.setting()])
        .collect();
    let mut cluster = run.stopped_cluster(&format!("{label}-server"), &settings)?;
    cluster.start()?;
    create_database(&cluster, suite)?;
    cluster.sql_in(suite.database, "CREATE EXTENSION pg_lake")?;
    // Only now, since the extension's own catalogs are heaps.
    let all: Vec<(&str, &str)> = SETTINGS
        .iter()
        .chain(&settings)
        .copied()
        .chain([("default_table_access_method", "iceberg")])
        .collect();
    cluster.configure(&all)?;
    cluster.restart()?;
    let dir = files.copy(&run.work_dir(&label)?, pg, run)?;
    for (name, output) in heap {
        files::add_alternative(&dir, name, output, run.user.as_ref())?;
    }
    let (mut report, mut differences) = drive(run, &cluster, suite, &dir, &label, mode.arguments)?;
    if mode.engine == Engine::On {
        differences = settled::differences(&dir, suite.style, &mut report)?;
        keep(run, &format!("{label}.settled"), &differences)?;
    }
    let reviewed = || Reviewed::read(mode.name, mode.inherits, suite.name);
    if run.accept {
        reviewed()?.accept(&report.tests, &differences)?;
    }
    reviewed()?.judge(&report.tests, &differences, tally);
    report.check(suite.program, tally);
    let log = reviewed::read_lossy(&cluster.log())?;
    tally.check("no process has crashed", no_crash(&log));
    Ok(())
}

/// An error with what the server's log says of crashes.
fn no_crash(log: &str) -> Result<()> {
    let crashes: Vec<&str> = log
        .lines()
        .filter(|line| {
            line.contains(" PANIC:  ")
                || (line.contains(" LOG:  ") && line.contains(" was terminated by signal "))
        })
        .collect();
    if crashes.is_empty() {
        Ok(())
    } else {
        Err(crashes.join("\n"))
    }
}

fn create_database(cluster: &Cluster, suite: &Suite) -> Result<()> {
    let name = suite.database;
    cluster.sql_in(
        "postgres",
        &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"),
    )?;
    let settings: String = DATABASE_SETTINGS
        .iter()
        .map(|(setting, value)| format!("ALTER DATABASE {name} SET {setting} = '{value}';\n"))
        .collect();
    cluster.sql_in("postgres", &settings).map(drop)
}

/// Run the driver; the second part is what differs, as the driver wrote it.
fn drive(
    run: &Run,
    cluster: &Cluster,
    suite: &Suite,
    dir: &Path,
    label: &str,
    arguments: &[&str],
) -> Result<(Report, String)> {
    let log = run.log(label);
    let options: Vec<&str> = OPTIONS.iter().chain(arguments).copied().collect();
    let driver = Driver {
        program: suite.program,
        cluster,
        dir,
        schedule: suite.schedule,
        libraries: &dir.join(files::LIBRARIES),
        database: suite.database,
        options: &options,
        log: &log,
        limit: run.limit(MINUTES),
    };
    let report = driver.run()?;
    let mut text = String::new();
    if let Some(file) = driver.differences() {
        text = reviewed::read_lossy(&file)?;
        keep(run, label, &text)?;
    }
    Ok((report, text))
}

/// Differences, beside the run's logs.
fn keep(run: &Run, label: &str, differences: &str) -> Result<()> {
    let kept = run.logs.join(format!("{label}.diffs"));
    fs::write(&kept, differences).context(kept.display())?;
    say(&format!("    all differences: {}", kept.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::no_crash;

    #[test]
    fn crashes_are_found_in_a_log() {
        let quiet = "2026-01-01 10:00:00.000 UTC [7] ERROR:  it was terminated by signal 11\n\
            2026-01-01 10:00:00.000 UTC [7] LOG:  terminating any other active server processes\n";
        assert_eq!(no_crash(quiet), Ok(()));
        for line in [
            "2026-01-01 10:00:00.000 UTC [7] PANIC:  stuck spinlock",
            "2026-01-01 10:00:00.000 UTC [1] LOG:  server process (PID 7) was terminated by signal 11: Segmentation fault",
            "2026-01-01 10:00:00.000 UTC [1] LOG:  background worker \"lake engine\" (PID 8) was terminated by signal 9: Killed",
        ] {
            assert_eq!(no_crash(&format!("{quiet}{line}\n")), Err(line.to_owned()));
        }
    }
}
