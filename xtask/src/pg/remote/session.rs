//! Statements that may fail: whether they failed as they may, and how fast they can be cancelled.

use super::rig::Rig;
use crate::Result;
use crate::cluster::DATABASE;
use crate::pg::wait_until;
use crate::process::Output;
use std::time::Duration;

/// What a session says in the end, if it has survived.
const ALIVE: &str = "alive";
/// SQLSTATEs of an unreachable or failing store, and of data that aren't what was written.
const CLEAN: &[&str] = &["08", "58", "53", "XX001"];

/// What a script of statements came to.
pub enum Outcome {
    /// What it has written.
    Done(String),
    /// The errors, one a line, all of which are clean.
    Failed(String),
}

/// Runs statements, whatever fails. An error that nothing in the network explains, or a session that
/// can't be used after one, is an error of the test.
pub fn attempt(rig: &Rig, script: &str) -> Result<Outcome> {
    outcome(start(rig, script).run()?)
}

/// The same for a script that runs in the background.
pub fn start(rig: &Rig, script: &str) -> crate::process::Cmd {
    rig.cluster
        .psql(DATABASE)
        .env("PGAPPNAME", "session")
        .stdin(format!(
            "\\set ON_ERROR_STOP 0\n\\set VERBOSITY verbose\n{script}\nROLLBACK;\nSELECT '{ALIVE}';\n"
        ))
}

pub fn outcome(output: Output) -> Result<Outcome> {
    if output.timed_out {
        return Err(format!(
            "no end after {} s\n{}",
            output.elapsed.as_secs(),
            output.stderr
        ));
    }
    let mut lines: Vec<&str> = output.stdout.lines().collect();
    if lines.pop() != Some(ALIVE) {
        return Err(format!("the session is lost: {}", output.stderr.trim()));
    }
    let errors: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| line.contains("ERROR:") || line.contains("FATAL:"))
        .collect();
    if let Some(error) = errors.iter().find(|error| !is_clean(error)) {
        return Err(format!(
            "not an error of the store: {error}\n{}",
            output.stderr
        ));
    }
    if errors.is_empty() {
        Ok(Outcome::Done(lines.join("\n")))
    } else {
        Ok(Outcome::Failed(errors.join("\n")))
    }
}

/// `ERROR:  08006: …`. What follows an error in its transaction fails, too.
fn is_clean(line: &str) -> bool {
    let state = line
        .split_once("ERROR:")
        .map_or("", |(_, rest)| rest.trim_start());
    state.starts_with("25P02") || CLEAN.iter().any(|clean| state.starts_with(clean))
}

/// Starts statements, waits until `arrived`, and cancels: the time from `pg_cancel_backend` to the error,
/// by the server's clock.
pub fn cancelled(rig: &Rig, script: &str, mut arrived: impl FnMut() -> bool) -> Result<Duration> {
    const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1e6)::bigint";
    let script = format!("{script}\nROLLBACK;\nSELECT {NOW};");
    let session = start(rig, &script).start()?;
    wait_until(
        Duration::from_secs(60),
        "the request to be cancelled",
        || Ok(arrived()),
    )?;
    let asked = rig.sql(&format!(
        "SELECT {NOW} FROM (SELECT pid FROM pg_stat_activity
                            WHERE application_name = 'session' AND state = 'active' OFFSET 0) s
         WHERE pg_cancel_backend(s.pid)"
    ))?;
    let output = session.wait()?;
    let said = output.stderr.trim().to_owned();
    if !said.contains("57014:") {
        return Err(format!("not cancelled: {said}"));
    }
    let mut lines = output.stdout.lines().rev();
    if lines.next() != Some(ALIVE) {
        return Err(format!("the session is lost: {said}"));
    }
    let ended = lines.next().unwrap_or_default();
    match (asked.parse::<u64>(), ended.parse::<u64>()) {
        (Ok(asked), Ok(ended)) => Ok(Duration::from_micros(ended.saturating_sub(asked))),
        _ => Err(format!("not two times: {asked:?}, {ended:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(stdout: &str, stderr: &str) -> Output {
        Output {
            code: Some(0),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            timed_out: false,
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn outcomes_are_told_apart() {
        let done = outcome(output("5\nalive\n", "WARNING:  there is no transaction\n"));
        assert!(matches!(done, Ok(Outcome::Done(text)) if text == "5"));
        let failed = outcome(output(
            "alive\n",
            "psql:<stdin>:4: ERROR:  08006: the store can't be reached\n\
             ERROR:  25P02: current transaction is aborted\n",
        ));
        assert!(matches!(failed, Ok(Outcome::Failed(_))));
        assert!(outcome(output("alive\n", "ERROR:  XX000: a bug\n")).is_err());
        assert!(outcome(output("5\n", "server closed the connection\n")).is_err());
    }
}
