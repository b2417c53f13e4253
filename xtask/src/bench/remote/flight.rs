//! Many sessions that read the same file at once, of which the store must see one.

use super::{LIMIT, LOCAL, REMOTE, ROUNDS, Remote, TABLESPACE};
use crate::cluster::{DATABASE, answer};
use crate::pg::wait_until;
use crate::process::Running;
use crate::stores::Object;
use crate::stores::proxy::{Action, Rule};
use crate::timing::{median, report};
use crate::{Result, say};
use std::time::Duration;

const SESSIONS: usize = 16;
/// A quarter of lineitem.
const TABLE: &str = "one_file";
/// Of an advisory lock.
const GATE: u32 = 16;
/// Of a request: long enough for all sessions to ask for a block while the first one waits for it.
const LATENCY: Duration = Duration::from_millis(20);

/// Bytes of the bodies that GET requests for the file got, over its size.
///
/// The footer is part of the file: each round begins with a new server, which has none in memory, and it is
/// in the last block, which the columns before it are in, too. So exactly every byte is needed once.
pub(super) fn single_flight(remote: &mut Remote) -> Result<()> {
    let file = make_file(remote)?;
    let query = remote.wide(TABLE)?;
    remote.connect_to(remote.proxy.port())?;
    remote.keep_decoded(false)?;
    let (mut ratios, mut requests) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        say(&format!(
            "    {SESSIONS} sessions at once, {round} of {ROUNDS}"
        ));
        remote.bench.cluster.restart()?;
        remote.evict(&format!("{REMOTE}.{TABLE}"))?;
        remote.proxy.set(vec![Rule::new(Action::Latency(LATENCY))]);
        remote.proxy.forget();
        at_once(remote, &format!("SET search_path = {REMOTE};\n{query};\n"))?;
        remote.proxy.clear();
        let of_file = |path: &str| path.ends_with(&file.key);
        let read = remote.proxy.read();
        let bytes = read.iter().filter(|(path, _)| of_file(path));
        let bytes: u64 = bytes.map(|(_, bytes)| bytes).sum();
        if bytes < file.size {
            return Err(format!("{bytes} bytes were read, of {}", file.size));
        }
        ratios.push(bytes as f64 / file.size as f64);
        let made = remote.proxy.requests();
        let made = made.iter().filter(|request| of_file(&request.path));
        requests.push(made.count() as f64);
    }
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    report(
        "remote.single_flight",
        &[
            ("file_mb", file.size as f64 / 1e6),
            ("requests", median(requests)),
            ("ratio", median(ratios)),
            ("ratio_max", worst),
        ],
    );
    Ok(())
}

fn make_file(remote: &Remote) -> Result<Object> {
    remote.connect_to(remote.store.port())?;
    remote.sql(&format!(
        "SET lake.bulk_rows = 0;
         CREATE TABLE {REMOTE}.{TABLE} USING iceberg TABLESPACE {TABLESPACE} AS
         SELECT * FROM {LOCAL}.lineitem WHERE l_orderkey <= 1500000"
    ))?;
    let mut files = remote.files(&format!("{REMOTE}.{TABLE}"))?;
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (_, others) => Err(format!("{TABLE} has not one file, but {others} more")),
    }
}

/// Runs the same script in all sessions, which wait for each other before. It begins with a setting and has
/// one query.
fn at_once(remote: &Remote, script: &str) -> Result<()> {
    let cluster = &remote.bench.cluster;
    let locks = |which: &str| {
        remote.sql(&format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND {which}"
        ))
    };
    // It is ended before that.
    let gate = format!("SELECT pg_advisory_lock({GATE});\nSELECT pg_sleep(600);\n");
    let _gate = cluster.psql(DATABASE).stdin(gate).start()?;
    wait_until(LIMIT, "the gate is closed", || Ok(locks("granted")? == "1"))?;
    let script = format!("SELECT pg_advisory_lock_shared({GATE});\n{script}");
    let sessions = (0..SESSIONS)
        .map(|_| cluster.psql(DATABASE).stdin(script.as_str()).start())
        .collect::<Result<Vec<Running>>>()?;
    wait_until(LIMIT, "all sessions are at the gate", || {
        Ok(locks("NOT granted")? == SESSIONS.to_string())
    })?;
    remote.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted",
    )?;
    let mut answers = Vec::new();
    for session in sessions {
        answers.push(answer(session.wait()?)?);
    }
    answers.dedup();
    match answers.as_slice() {
        [_] => Ok(()),
        _ => Err(format!("the sessions disagree: {}", answers.join("\n"))),
    }
}
