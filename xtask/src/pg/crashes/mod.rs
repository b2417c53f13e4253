//! `test crash`: kill -9 at every crash point, of the process that comes by, and of the postmaster with
//! it.
//!
//! The loss that this prevents: a row that was committed and is gone, one that was not and is there, a
//! file that stays for ever or goes too soon, metadata that lead nowhere, a prepared transaction that is
//! lost or has taken effect. A round arms one session (`lake.debug_crash`) and lets it work beside others
//! until the server has crashed; when it is back, everything is compared.
//!
//! * `points`: what brings a session by each point
//! * `model`: the tables, what sessions do to them, and what they have heard of it
//! * `check`: what must hold afterwards

mod check;
mod model;
mod points;

use super::random::Random;
use super::twins::LOST;
use super::wait_until;
use crate::cluster::{Cluster, DATABASE, answer};
use crate::process::{self, Output, Running};
use crate::python::Python;
use crate::test::{Run, Tally};
use crate::{Context, Result, os, say};
use model::{BULK_ROWS, Heard, Writer};
use points::{CASES, Case, Driver};
use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Sessions beside the armed one.
const WRITERS: u64 = 2;
/// Transactions of a writer: more than it gets to.
const TRANSACTIONS: usize = 400;
/// Turns of the armed session within which it must have come by its point.
const TURNS: usize = 60;
/// For the crash, and for what comes after it.
const PATIENCE: Duration = Duration::from_secs(90);
/// What a point says in the server's log.
const MARK: &str = "lake.debug_crash: ";
/// What the postmaster says when it begins anew.
const REINITIALIZING: &str = "all server processes terminated; reinitializing";
/// After so many failures the others say nothing new.
const FAILURES_MAX: u32 = 5;

/// Who dies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The process that comes by, alone.
    Process,
    /// The postmaster, too. All others have to notice.
    Postmaster,
}

/// Every point with both victims; `--long`: all drivers, three times.
pub fn suite(run: &mut Run) -> Result<Tally> {
    let mut tally = Tally::default();
    run.python()?;
    let mut harness = Harness::start(run, "crash")?;
    tally.check("the list of points", points::check_list(&harness.cluster));
    let started = Instant::now();
    let limit = run.limit(20);
    let mut rounds = Vec::new();
    for _ in 0..if run.long { 3 } else { 1 } {
        for case in CASES {
            for victim in [Victim::Process, Victim::Postmaster] {
                if run.long {
                    rounds.extend(case.drivers.iter().map(|driver| (case, *driver, victim)));
                } else {
                    rounds.push((case, *harness.random.one_of(case.drivers), victim));
                }
            }
        }
    }
    for (case, driver, victim) in rounds {
        let name = describe(case, driver, victim);
        if started.elapsed() > limit || tally.failed >= FAILURES_MAX {
            tally.skip(&name, "the suite's time is over, or too much has failed");
            continue;
        }
        let result = harness.round(run.python()?, case, driver, victim);
        let failed = result.is_err();
        tally.check(&name, result);
        if failed {
            // What is wrong now would be wrong in each further round.
            harness.renew(run)?;
        }
    }
    let result = harness.maintainer(run.python()?);
    tally.check("flush_encoded, in the maintainer", result);
    if started.elapsed() > limit {
        tally.check("time", Err("the suite's time is over".to_owned()));
    }
    Ok(tally)
}

/// A few points, in the suite of scenarios.
pub fn smoke(run: &mut Run) -> Result<()> {
    const FEW: &[(&str, Driver, Victim)] = &[
        ("register_end", Driver::Load, Victim::Process),
        ("entries_inserting", Driver::Flush, Victim::Postmaster),
        ("prepare_end", Driver::Prepare, Victim::Postmaster),
        ("metadata_synced", Driver::Publish, Victim::Process),
        ("sweep_publication", Driver::Sweep, Victim::Postmaster),
    ];
    run.python()?;
    let mut harness = Harness::start(run, "crash_points")?;
    points::check_list(&harness.cluster)?;
    for (point, driver, victim) in FEW {
        let case = CASES
            .iter()
            .find(|case| case.point == *point)
            .ok_or_else(|| format!("no point {point}"))?;
        harness
            .round(run.python()?, case, *driver, *victim)
            .map_err(|error| format!("{}: {error}", describe(case, *driver, *victim)))?;
    }
    Ok(())
}

fn describe(case: &Case, driver: Driver, victim: Victim) -> String {
    let who = match victim {
        Victim::Process => "the process",
        Victim::Postmaster => "the postmaster",
    };
    format!("{}, {driver:?}, {who}", case.point)
}

struct Harness {
    name: &'static str,
    clusters: u32,
    cluster: Cluster,
    random: Random,
}

impl Harness {
    fn start(run: &mut Run, name: &'static str) -> Result<Harness> {
        let random = Random::from_environment();
        Ok(Harness {
            name,
            clusters: 1,
            cluster: start_cluster(run, name)?,
            random,
        })
    }

    /// Goes on with another server.
    fn renew(&mut self, run: &mut Run) -> Result<()> {
        self.clusters += 1;
        self.cluster = start_cluster(run, &format!("{}_{}", self.name, self.clusters))?;
        Ok(())
    }

    fn round(
        &mut self,
        python: &Python,
        case: &Case,
        driver: Driver,
        victim: Victim,
    ) -> Result<()> {
        self.cluster.sql(model::BEGIN_ROUND)?;
        let mut writers = self.writers(WRITERS + 1);
        let nth = 1 + self.random.below(case.passages);
        let with = if victim == Victim::Postmaster {
            ":postmaster"
        } else {
            ""
        };
        let setting = format!("{}:{nth}{with}", case.point);
        let mut script = String::new();
        if let Some(armed) = writers.last_mut() {
            // The others get a start.
            for _ in 0..2 {
                script.push_str(&points::turn(driver, armed));
            }
            script.push_str(&format!("SET lake.debug_crash = '{setting}';\n"));
            for _ in 0..TURNS {
                script.push_str(&points::turn(driver, armed));
            }
        }
        let log = Log::from_here(&self.cluster);
        let mut sessions = self.start_writers(&mut writers)?;
        sessions.push(self.start_session(&script)?);
        let crash = self.await_crash(&log, case.point, &mut sessions, victim);
        let heard = crash.and_then(|others| {
            let heard = self.hear(sessions)?;
            self.come_back(&log, victim, &others)?;
            Ok(heard)
        });
        let heard = heard.map_err(|error| format!("{setting}: {error}"))?;
        self.check(python, heard, &writers)
            .map_err(|error| format!("after {setting}: {error}"))
    }

    /// The same by the configuration file, which arms the maintainer.
    fn maintainer(&mut self, python: &Python) -> Result<()> {
        self.cluster.sql(model::BEGIN_ROUND)?;
        let mut writers = self.writers(WRITERS);
        let log = Log::from_here(&self.cluster);
        self.cluster.sql(
            "ALTER SYSTEM SET lake.debug_crash = 'flush_encoded';
             ALTER SYSTEM SET lake.flush_rows = 20;
             SELECT pg_reload_conf();",
        )?;
        let sessions = self.start_writers(&mut writers)?;
        wait_until(PATIENCE, "the maintainer's crash", || {
            Ok(log.since(&self.cluster)?.contains(REINITIALIZING))
        })?;
        // Others would follow it as long as they have the setting.
        self.cluster.kill9()?;
        let heard = self.hear(sessions)?;
        let file = self.cluster.data().join("postgresql.auto.conf");
        os::write_file(&file, "", self.cluster.user.as_ref())?;
        self.cluster.start()?;
        if !log.since(&self.cluster)?.contains(MARK) {
            return Err("the server has crashed for another reason".to_owned());
        }
        self.check(python, heard, &writers)
    }

    fn writers(&mut self, number: u64) -> Vec<Writer> {
        (0..number)
            .map(|n| Writer::new(n, Random::new(self.random.below(u64::MAX))))
            .collect()
    }

    fn start_session(&self, script: &str) -> Result<Running> {
        let script = format!("SET lake.bulk_rows = {BULK_ROWS};\n{script}");
        self.cluster.psql(DATABASE).stdin(script).start()
    }

    fn start_writers(&self, writers: &mut [Writer]) -> Result<Vec<Running>> {
        writers
            .iter_mut()
            .take(WRITERS as usize)
            .map(|writer| {
                let script: String = (0..TRANSACTIONS).map(|_| writer.any()).collect();
                self.start_session(&script)
            })
            .collect()
    }

    /// Waits until a process has come by the point. Returns the server's other processes.
    fn await_crash(
        &self,
        log: &Log,
        point: &str,
        sessions: &mut [Running],
        victim: Victim,
    ) -> Result<BTreeSet<u32>> {
        let mark = format!("{MARK}{point}\n");
        let (postmaster, _) = self.cluster.postmaster()?;
        let mut others = BTreeSet::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = sessions.last_mut().is_none_or(Running::has_ended);
            others.extend(process::descendants(postmaster));
            if log.since(&self.cluster)?.contains(&mark) {
                break;
            }
            if ended || Instant::now() > deadline {
                return Err(format!("nobody came by {point}"));
            }
            sleep(Duration::from_millis(20));
        }
        if victim == Victim::Postmaster {
            wait_until(PATIENCE, "the postmaster's end", || {
                Ok(!process::alive(postmaster))
            })?;
        }
        Ok(others)
    }

    /// What sessions have heard; they must have ended by the crash and by nothing else.
    fn hear(&self, sessions: Vec<Running>) -> Result<Heard> {
        let mut heard = Heard::default();
        for session in sessions {
            let output = session.wait()?;
            heard.add(&output.stdout);
            lost_connection(output)?;
        }
        Ok(heard)
    }

    /// Waits until the server has recovered, or starts it.
    fn come_back(&mut self, log: &Log, victim: Victim, others: &BTreeSet<u32>) -> Result<()> {
        if victim == Victim::Process {
            wait_until(PATIENCE, "the server's new beginning", || {
                Ok(log.since(&self.cluster)?.contains(REINITIALIZING))
            })?;
            return wait_until(PATIENCE, "recovery", || {
                Ok(self.cluster.sql("SELECT 1")? == "1")
            });
        }
        wait_until(PATIENCE, "processes without a postmaster", || {
            Ok(!others.iter().any(|&pid| process::alive(pid)))
        })?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.cluster.start() {
                // One that was forked just before is still on its way out.
                Err(error)
                    if error.contains("shared memory block") && Instant::now() < deadline =>
                {
                    sleep(Duration::from_millis(200));
                }
                result => return result,
            }
        }
    }

    fn check(&mut self, python: &Python, mut heard: Heard, writers: &[Writer]) -> Result<()> {
        check::twins(&self.cluster)?;
        if check::prepared(&self.cluster, &mut heard, writers, &mut self.random)? {
            check::twins(&self.cluster)
                .map_err(|error| format!("after the end of prepared transactions: {error}"))?;
        }
        check::ledger(&self.cluster, &heard, writers)?;
        check::published(&self.cluster, python, self.random.below(3) > 0)?;
        check::twins(&self.cluster).map_err(|error| format!("after VACUUM and sweep: {error}"))
    }
}

/// Nothing happens in the background but a sweep now and then.
fn start_cluster(run: &mut Run, name: &str) -> Result<Cluster> {
    let cluster = run.cluster(
        name,
        &[
            ("lake.flush_rows", "-1"),
            ("lake.flush_interval", "-1"),
            ("lake.publish_interval", "-1"),
            // Enough for metadata to expire in each round.
            ("lake.keep_snapshots", "3"),
        ],
    )?;
    cluster.sql(&model::tables())?;
    say(&format!("      server {name}"));
    Ok(cluster)
}

fn lost_connection(output: Output) -> Result<()> {
    let Err(error) = answer(output) else {
        return Ok(());
    };
    let lost = LOST.iter().any(|lost| error.contains(lost));
    let unexpected = error
        .lines()
        .find(|line| line.contains("ERROR:") && !line.contains("exited while it served"));
    match unexpected {
        Some(line) => Err(format!("a session failed: {line}\n{error}")),
        None if lost || error.contains("no end after") => Err(format!("a session failed: {error}")),
        None => Ok(()),
    }
}

/// The server's log from some moment on.
struct Log {
    from: usize,
}

impl Log {
    fn from_here(cluster: &Cluster) -> Log {
        let length = fs::metadata(cluster.log()).map_or(0, |file| file.len());
        Log {
            from: usize::try_from(length).unwrap_or(usize::MAX),
        }
    }

    fn since(&self, cluster: &Cluster) -> Result<String> {
        let file = cluster.log();
        let bytes = fs::read(&file).context(file.display())?;
        let new = bytes.get(self.from..).unwrap_or_default();
        Ok(String::from_utf8_lossy(new).into_owned())
    }
}
