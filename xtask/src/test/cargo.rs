//! Suites that are cargo runs without a server: unit tests, loom models, Miri.

use super::{Run, Tally};
use crate::process::{Cmd, tail};
use crate::{Context, Result, cargo, paths, postgres, say};
use std::fs;
use std::path::Path;
use std::time::Duration;

pub fn unit(run: &mut Run) -> Result<Tally> {
    let pg = run.postgres()?;
    postgres::ensure_bindgen()?;
    let log = run.log("unit");
    let mut command = cargo::command(&pg).args(["test", "--workspace", "--no-fail-fast"]);
    if run.long {
        command = command
            .env("PG_LAKE_LONG", "1")
            .env("PROPTEST_CASES", "4096");
    }
    count_tests(
        command.limit(run.limit(40)).progress("cargo test"),
        &log,
        "unit",
    )
}

pub fn loom(run: &mut Run) -> Result<Tally> {
    let pg = run.postgres()?;
    let mut command = cargo::command(&pg)
        .args([
            "test",
            "--no-fail-fast",
            "-p",
            "pg_lake_ring",
            "--lib",
            "--tests",
        ])
        .arg("--target-dir")
        .arg(paths::target().join("loom"))
        .env("RUSTFLAGS", "--cfg loom")
        .limit(run.limit(12))
        .progress("loom models");
    if !run.long && std::env::var_os("LOOM_MAX_PREEMPTIONS").is_none() {
        command = command.env("LOOM_MAX_PREEMPTIONS", "3");
    }
    count_tests(command, &run.log("loom"), "loom")
}

pub fn miri(run: &mut Run) -> Result<Tally> {
    let mut tally = Tally::default();
    let short = Duration::from_secs(60);
    if let Err(error) = cargo::toolchain("nightly")
        .args(["miri", "--version"])
        .limit(short)
        .ok()
    {
        let reason = error.lines().nth(1).unwrap_or("not installed");
        tally.skip("miri", &format!("no Miri in a nightly toolchain: {reason}"));
        return Ok(tally);
    }
    if let Err(error) = cargo::toolchain("nightly")
        .args(["miri", "setup"])
        .limit(run.limit(5))
        .progress("miri setup")
        .ok()
    {
        let reason = error.lines().last().unwrap_or("no reason given");
        tally.skip("miri", &format!("its library can't be built: {reason}"));
        return Ok(tally);
    }
    let command = cargo::toolchain("nightly")
        .args(["miri", "test", "--no-fail-fast", "-p", "pg_lake_ring"])
        .args(["--lib", "--tests"])
        .arg("--target-dir")
        .arg(paths::target().join("miri"))
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("PROPTEST_CASES", "4")
        .limit(run.limit(12))
        .progress("Miri");
    count_tests(command, &run.log("miri"), "miri")
}

/// Run `cargo test` into a log and count what it reports.
fn count_tests(command: Cmd, log: &Path, name: &str) -> Result<Tally> {
    let output = command.log(log).run()?;
    let bytes = fs::read(log).context(log.display())?;
    let text = String::from_utf8_lossy(&bytes);
    let mut tally = count(&text);
    for line in text.lines() {
        if line.starts_with("test ") && line.contains(" ... FAILED") {
            say(&format!("    FAILED  {}", line.trim_start_matches("test ")));
        } else if line.starts_with("test ") && line.contains(" ... ignored") {
            say(&format!("    skipped {}", line.trim_start_matches("test ")));
        }
    }
    if !output.success() {
        // It did not compile, was killed, or crashed before it could report.
        if tally.failed == 0 {
            tally.failed = 1;
        }
        if output.timed_out {
            say(&format!(
                "    {name}: stopped after {} s",
                output.elapsed.as_secs()
            ));
        }
        for line in tail(&text, 60).lines() {
            say(&format!("    | {line}"));
        }
    } else if tally == Tally::default() {
        return Err(format!("{name}: cargo ran no test ({})", log.display()));
    }
    Ok(tally)
}

/// Add up cargo's lines `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn count(text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("test result: ") else {
            continue;
        };
        let counts = rest.split_once(". ").map_or(rest, |(_, counts)| counts);
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(number), Some(kind)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<u32>() else {
                continue;
            };
            match kind {
                "passed" => tally.passed += number,
                "failed" => tally.failed += number,
                "ignored" => tally.skipped += number,
                _ => {}
            }
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let text = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                    test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured\n";
        let expected = Tally {
            passed: 4,
            failed: 2,
            skipped: 1,
        };
        assert_eq!(count(text), expected);
    }
}
