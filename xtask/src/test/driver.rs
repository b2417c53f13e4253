//! Running `pg_regress` or `pg_isolation_regress` on a cluster, and reading what it says.

use super::Tally;
use crate::cluster::{Cluster, SUPERUSER};
use crate::postgres::Postgres;
use crate::process::tail;
use crate::{Context, Result, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One run of a driver.
pub struct Driver<'a> {
    pub program: &'a str,
    pub cluster: &'a Cluster,
    /// Has the inputs and `expected`; the results come here.
    pub dir: &'a Path,
    /// A file of `dir`.
    pub schedule: &'a str,
    /// Where tests that load libraries find them.
    pub libraries: &'a Path,
    pub database: &'a str,
    pub options: &'a [&'a str],
    /// Takes what the driver prints.
    pub log: &'a Path,
    pub limit: Duration,
}

/// What a run came to.
pub struct Report {
    /// Each test that ran, and whether its output was one that is expected.
    pub tests: Vec<(String, bool)>,
    /// Tests whose client has failed, whatever its output.
    pub died: Vec<String>,
    /// Why the run as a whole failed, where that isn't the failure of a test.
    pub broken: Option<String>,
}

/// The driver, or why a suite that needs it has to be skipped.
pub fn tool(pg: &Postgres, program: &str) -> Result<PathBuf> {
    pg.test_tool(program).ok_or_else(|| {
        format!(
            "{program} does not come with the Postgres of {}",
            pg.bindir.display()
        )
    })
}

impl Driver<'_> {
    pub fn run(&self) -> Result<Report> {
        let pg = &self.cluster.pg;
        let dir = self.dir;
        let output = self
            .cluster
            .tool(tool(pg, self.program)?)
            .arg(format!("--bindir={}", pg.bindir.display()))
            .arg(format!("--dlpath={}", self.libraries.display()))
            .arg(format!("--inputdir={}", dir.display()))
            .arg(format!("--expecteddir={}", dir.display()))
            .arg(format!("--outputdir={}", dir.display()))
            .arg(format!("--schedule={}", dir.join(self.schedule).display()))
            .arg("--host=127.0.0.1")
            .arg(format!("--port={}", self.cluster.port))
            .arg(format!("--user={SUPERUSER}"))
            .arg(format!("--dbname={}", self.database))
            .args(self.options)
            .cwd(dir)
            .log(self.log)
            .limit(self.limit)
            .progress(self.program)
            .run()?;
        let bytes = fs::read(self.log).context(self.log.display())?;
        let text = String::from_utf8_lossy(&bytes);
        let tests = verdicts(&text);
        let died = deaths(&text);
        let broken = if output.timed_out {
            Some(format!("stopped after {} s", output.elapsed.as_secs()))
        } else if !output.success() && tests.iter().all(|(_, passed)| *passed) {
            Some(tail(&text, 20))
        } else {
            None
        };
        Ok(Report {
            tests,
            died,
            broken,
        })
    }

    /// All differences of the last run, as `diff` wrote them; none if everything passed.
    pub fn differences(&self) -> Option<PathBuf> {
        Some(self.dir.join("regression.diffs")).filter(|file| file.is_file())
    }
}

impl Report {
    /// Counts the tests; those that failed are named.
    pub fn count(&self, program: &str, tally: &mut Tally) {
        for (name, passed) in &self.tests {
            if *passed {
                tally.passed += 1;
            } else {
                tally.failed += 1;
                say(&format!("    FAILED  {name}"));
            }
        }
        self.check(program, tally);
    }

    /// Counts a run that failed as a whole.
    pub fn check(&self, program: &str, tally: &mut Tally) {
        if let Some(why) = &self.broken {
            tally.check(program, Err(why.clone()));
        }
    }
}

/// The tests of a driver's output.
fn verdicts(text: &str) -> Vec<(String, bool)> {
    text.lines().filter_map(verdict).collect()
}

/// A line as `not ok 12    + name    34 ms`.
fn verdict(line: &str) -> Option<(String, bool)> {
    let (rest, passed) = match line.strip_prefix("not ok ") {
        Some(rest) => (rest, false),
        None => (line.strip_prefix("ok ")?, true),
    };
    let name = rest.split_whitespace().nth(2)?;
    Some((name.to_owned(), passed))
}

/// The tests below whose line the driver says how their client has ended.
fn deaths(text: &str) -> Vec<String> {
    let lines = text.lines().zip(text.lines().skip(1));
    lines
        .filter(|(_, next)| next.starts_with("# (test process "))
        .filter_map(|(line, _)| verdict(line))
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read() {
        let text = "# parallel group (2 tests):  a b\nok 1         + a      12 ms\n\
                    not ok 2     - b      3 ms\n# (test process exited with exit code 2)\n1..2\n";
        let expected = vec![("a".to_owned(), true), ("b".to_owned(), false)];
        assert_eq!(verdicts(text), expected);
        assert_eq!(deaths(text), ["b"]);
    }
}
