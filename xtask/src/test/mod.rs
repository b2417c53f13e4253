//! The test suites: which there are, what they share, how their results are counted.
//!
//! `cargo.rs` runs what needs no server, `regress.rs` Postgres' drivers (`driver.rs`) on tests of
//! ours, `postgres/` on Postgres' own, `readers.rs` the outside readers; the end-to-end scenarios
//! are in `crate::pg`.

mod cargo;
mod driver;
mod layouts;
mod postgres;
mod readers;
mod regress;

use crate::cluster::Cluster;
use crate::os::{self, User};
use crate::postgres::{Postgres, find_or_build};
use crate::process::{self, Cmd};
use crate::python::Python;
use crate::{Context, Result, install, paths, pg, say, stores, tidy};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What a test cluster runs with, unless a scenario says otherwise.
const SETTINGS: &[(&str, &str)] = &[
    ("shared_preload_libraries", "pg_lake"),
    ("wal_level", "logical"),
    ("max_connections", "50"),
    ("shared_buffers", "128MB"),
    ("max_worker_processes", "24"),
    ("max_prepared_transactions", "10"),
    // Tests count files, and none has readers that need them longer.
    ("lake.garbage_retention", "0"),
];

/// All suites must end within this, whatever their own limits allow (`--long`: six times).
const ALL: Duration = Duration::from_secs(58 * 60);

type Suite = fn(&mut Run) -> Result<Tally>;

const SUITES: &[(&str, Suite)] = &[
    ("tidy", tidy::suite),
    ("unit", cargo::unit),
    ("loom", cargo::loom),
    ("miri", cargo::miri),
    ("regress", regress::regress),
    ("isolation", regress::isolation),
    ("pg", pg::suite),
    ("readers", readers::suite),
];

/// Suites that run only if they are named, or with `--long`.
const SUITES_BY_NAME: &[(&str, Suite)] = &[
    ("crash", pg::crashes::suite),
    ("tpch", pg::tpch::suite),
    ("semantics", pg::semantics::suite),
    ("sqlsmith", pg::sqlsmith::suite),
    ("stores", pg::remote::stores),
    ("faults", pg::remote::faults),
    ("postgres-regress", postgres::regress),
    ("postgres-isolation", postgres::isolation),
    ("postgres-regress-cold", postgres::regress_cold),
    ("postgres-isolation-cold", postgres::isolation_cold),
    ("postgres-regress-engine", postgres::regress_engine),
    ("postgres-isolation-engine", postgres::isolation_engine),
];

/// Suites of which `suite:scenario` runs a single scenario.
const WITH_SCENARIOS: &[&str] = &["pg", "stores", "faults"];

/// How many tests did what.
#[derive(Default, Clone, Copy, Debug, PartialEq)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// One check, reported.
    pub fn check(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                say(&format!("    ok      {name}"));
            }
            Err(error) => {
                self.failed += 1;
                say(&format!("    FAILED  {name}"));
                for line in error.lines() {
                    say(&format!("            {line}"));
                }
            }
        }
    }

    pub fn skip(&mut self, name: &str, reason: &str) {
        self.skipped += 1;
        say(&format!("    skipped {name}: {reason}"));
    }
}

/// The options of the test command.
#[derive(Clone, Copy)]
pub struct Wishes {
    pub long: bool,
    pub accept: bool,
    pub seed: Option<u64>,
    pub rounds: Option<u64>,
    pub seconds: Option<u64>,
}

/// One run of the test command.
pub struct Run {
    pub long: bool,
    pub accept: bool,
    /// Of the suites `semantics` and `sqlsmith`.
    pub seed: Option<u64>,
    /// Of the suite `semantics`.
    pub rounds: Option<u64>,
    /// Of the suite `sqlsmith`.
    pub seconds: Option<u64>,
    /// Suites and scenarios of theirs that were named.
    only: Vec<(String, String)>,
    pub logs: PathBuf,
    pub user: Option<User>,
    deadline: Instant,
    dir: PathBuf,
    postgres: Option<Result<Postgres>>,
    extension: Option<Result<()>>,
    python: Option<Result<()>>,
    environment: Option<Python>,
}

impl Run {
    fn new(wishes: Wishes) -> Result<Run> {
        let logs = paths::test_logs();
        let _ = fs::remove_dir_all(&logs);
        fs::create_dir_all(&logs).context(logs.display())?;
        let user = os::server_user()?;
        let state = paths::state();
        os::prepare_state(&state, user.as_ref())?;
        let dir = state
            .join("test")
            .join(format!("run-{}", std::process::id()));
        let all = if wishes.long { ALL * 6 } else { ALL };
        Ok(Run {
            long: wishes.long,
            accept: wishes.accept,
            seed: wishes.seed,
            rounds: wishes.rounds,
            seconds: wishes.seconds,
            only: Vec::new(),
            logs,
            user,
            deadline: Instant::now() + all,
            dir,
            postgres: None,
            extension: None,
            python: None,
            environment: None,
        })
    }

    /// A suite's time limit: its own, within what is left of the whole.
    pub fn limit(&self, minutes: u64) -> Duration {
        let own = Duration::from_secs(minutes * 60) * if self.long { 6 } else { 1 };
        let left = self.deadline.saturating_duration_since(Instant::now());
        own.min(left).max(Duration::from_secs(1))
    }

    /// The scenarios to run of a suite; empty means all.
    pub fn named(&self, suite: &str) -> Vec<&str> {
        let named = self.only.iter().filter(|(of, _)| of == suite);
        named.map(|(_, scenario)| scenario.as_str()).collect()
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// PostgreSQL 17, found or built once.
    pub fn postgres(&mut self) -> Result<Postgres> {
        if let Some(known) = &self.postgres {
            return known.clone();
        }
        let found = find_or_build(None);
        self.postgres = Some(found.clone());
        found
    }

    /// The same with the extension built and installed.
    pub fn extension(&mut self) -> Result<Postgres> {
        let pg = self.postgres()?;
        if self.extension.is_none() {
            let log = self.log("build");
            self.extension =
                Some(install::build(&pg, Some(&log)).and_then(|lib| install::install(&pg, &lib)));
        }
        match &self.extension {
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(pg),
        }
    }

    pub fn python(&mut self) -> Result<&Python> {
        if self.python.is_none() {
            self.python = Some(Python::set_up().map(|python| self.environment = Some(python)));
        }
        match (&self.python, &self.environment) {
            (Some(Err(error)), _) => Err(error.clone()),
            (_, Some(python)) => Ok(python),
            _ => Err("no Python environment".to_owned()),
        }
    }

    /// A directory of this run for the server's user.
    pub fn work_dir(&self, name: &str) -> Result<PathBuf> {
        os::make_dir(&self.dir, self.user.as_ref())?;
        let dir = self.dir.join(name);
        let _ = fs::remove_dir_all(&dir);
        os::make_dir(&dir, self.user.as_ref())?;
        Ok(dir)
    }

    /// A throwaway cluster that is not running yet; the settings win over the usual ones.
    pub fn stopped_cluster(&mut self, name: &str, settings: &[(&str, &str)]) -> Result<Cluster> {
        let pg = self.extension()?;
        let user = self.user.clone();
        os::make_dir(&self.dir, user.as_ref())?;
        // initdb once, copies for everybody.
        let template = Cluster::at(&pg, user.as_ref(), &self.dir.join("template"));
        if !template.exists() {
            template.init(SETTINGS)?;
        }
        let dir = self.work_dir(name)?;
        os::make_dir(&dir.join("sock"), user.as_ref())?;
        Cmd::new("cp")
            .arg("-a")
            .arg(template.data())
            .arg(dir.join("data"))
            .ok()?;
        let log = self.logs.join(format!("{name}.server.log"));
        let cluster = Cluster::at(&pg, user.as_ref(), &dir).into_throwaway(log);
        let all: Vec<(&str, &str)> = SETTINGS.iter().chain(settings).copied().collect();
        cluster.configure(&all)?;
        Ok(cluster)
    }

    /// A throwaway cluster with the extension in the database `lake`.
    pub fn cluster(&mut self, name: &str, settings: &[(&str, &str)]) -> Result<Cluster> {
        let mut cluster = self.stopped_cluster(name, settings)?;
        cluster.start()?;
        cluster.create_database(crate::cluster::DATABASE)?;
        Ok(cluster)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Stop the servers of runs that were killed, and remove what they left.
fn sweep_dead_runs() {
    let Ok(entries) = fs::read_dir(paths::state().join("test")) else {
        return;
    };
    for run in entries.flatten().map(|entry| entry.path()) {
        let pid = run
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("run-"))
            .and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_none_or(process::alive) {
            continue;
        }
        for dir in fs::read_dir(&run).into_iter().flatten().flatten() {
            stop_left_over(&dir.path().join("data"));
            stores::kill_left_over(&dir.path());
        }
        let _ = fs::remove_dir_all(&run);
    }
}

/// SIGQUIT to the postmaster of this data directory, if it is one.
fn stop_left_over(data: &std::path::Path) {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    let Some(pid) = text
        .lines()
        .next()
        .and_then(|line| line.trim().parse::<u32>().ok())
    else {
        return;
    };
    // The id may be somebody else's by now: a postmaster works in its data directory.
    if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data) {
        let _ = process::signal("QUIT", &[pid]);
        std::thread::sleep(Duration::from_secs(1));
    }
}

pub fn command(names: &[String], wishes: Wishes) -> Result<ExitCode> {
    let mut wanted: Vec<&str> = Vec::new();
    let mut only = Vec::new();
    for name in names {
        let suite = match name.split_once(':') {
            Some((suite, scenario)) if WITH_SCENARIOS.contains(&suite) => {
                only.push((suite.to_owned(), scenario.to_owned()));
                suite
            }
            _ => name.as_str(),
        };
        let known: Vec<&str> = SUITES
            .iter()
            .chain(SUITES_BY_NAME)
            .map(|(known, _)| *known)
            .collect();
        if !known.contains(&suite) {
            return Err(format!("no suite {name:?}; there are {}", known.join(", ")));
        }
        wanted.push(suite);
    }
    sweep_dead_runs();
    let mut run = Run::new(wishes)?;
    run.only = only;
    let mut total = Tally::default();
    let mut lines = Vec::new();
    let by_name: &[(&str, Suite)] = if wishes.long || !wanted.is_empty() {
        SUITES_BY_NAME
    } else {
        &[]
    };
    for (name, suite) in SUITES.iter().chain(by_name) {
        if !wanted.is_empty() && !wanted.contains(name) {
            continue;
        }
        say(&format!("suite {name}"));
        let started = Instant::now();
        let tally = suite(&mut run).unwrap_or_else(|error| {
            let mut tally = Tally::default();
            tally.check(name, Err(error));
            tally
        });
        lines.push(format!(
            "    {name:<18} {:>5} passed {:>4} failed {:>4} skipped  {:>5} s",
            tally.passed,
            tally.failed,
            tally.skipped,
            started.elapsed().as_secs()
        ));
        total.add(tally);
    }
    say(&format!("logs are in {}", run.logs.display()));
    for line in lines {
        say(&line);
    }
    drop(run);
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
