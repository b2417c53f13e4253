//! Processes that are told to end do so at once, in good order, and come back if they should.

use super::{fill, must_be, same_server, started_at, wait_until};
use crate::cluster::{Cluster, DATABASE, answer};
use crate::process::{self, Running};
use crate::test::Run;
use crate::{Context, Result};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Within this a lake process is gone.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Within this a server is whose sessions do nothing.
const SERVER: Duration = Duration::from_secs(5);

const QUERY: &str = "SELECT count(*), sum(id) FROM big WHERE id > 10";
const LOAD: &str = "SET lake.bulk_rows = 0; INSERT INTO loaded SELECT generate_series(1, 1000)";

/// What keeps a process busy: an aggregate with as many groups as rows, and a load without end.
const BUSY: &[(&str, &str, usize)] = &[
    (
        "the engine at work",
        "SELECT count(*), sum(n) FROM (SELECT id, sum(amount) AS n FROM big GROUP BY id) s;\n",
        20,
    ),
    (
        "a worker that writes",
        "SET lake.bulk_rows = 0;
         INSERT INTO loaded SELECT generate_series(1001, 50000000);\n",
        1,
    ),
];

/// Sessions that stay where they are: their last statement, and what came before it.
const NOTHING: (&str, &str) = (QUERY, "");
/// The engine has more rows than the ring takes; the first ones of the table are hot.
const OPEN_CURSOR: (&str, &str) = (
    "FETCH 1 FROM c",
    "BEGIN;\nDECLARE c NO SCROLL CURSOR FOR SELECT id, note FROM big WHERE id > 20000;\n",
);

/// SIGTERM to the engine and to each worker, idle and busy; then a fast stop of the server.
pub fn graceful_stop(run: &mut Run) -> Result<()> {
    let mut cluster = run.cluster(
        "graceful_stop",
        &[
            ("lake.workers", "2"),
            ("lake.flush_interval", "-1"),
            ("lake.publish_interval", "-1"),
        ],
    )?;
    fill(&cluster, "big", 2_000_000)?;
    cluster.sql("CREATE TABLE loaded (id int) USING iceberg")?;
    let server = started_at(&cluster)?;
    let expected = cluster.sql(QUERY)?;
    let mut idle = Vec::new();
    wait_until(Duration::from_secs(30), "all workers run", || {
        idle = workers(&cluster, "true")?;
        Ok(idle.len() == 3)
    })?;
    for worker in &idle {
        terminate(&cluster, worker).map_err(|error| format!("idle: {error}"))?;
        works(&cluster, &expected)?;
    }
    for (what, statement, times) in BUSY {
        interrupt(&cluster, &statement.repeat(*times))
            .map_err(|error| format!("{what}: {error}"))?;
        works(&cluster, &expected)?;
    }
    must_be(
        &cluster.sql("SELECT count(*) FROM loaded WHERE id > 1000")?,
        "0",
        "rows of the load that was interrupted",
    )?;
    // Nobody takes the rows: the engine can't even say that it leaves.
    let session = open_session(&cluster, OPEN_CURSOR)?;
    for worker in served(&cluster)? {
        terminate(&cluster, &worker).map_err(|error| format!("an open cursor: {error}"))?;
    }
    drop(session);
    works(&cluster, &expected)?;
    same_server(&cluster, &server)?;

    for (what, session) in [("idle sessions", NOTHING), ("an open cursor", OPEN_CURSOR)] {
        let session = open_session(&cluster, session)?;
        stop_fast(&cluster).map_err(|error| format!("a fast stop, {what}: {error}"))?;
        drop(session);
        cluster.start()?;
        works(&cluster, &expected)?;
    }
    no_alarm(&cluster)
}

/// The engine, in slot 0, or an I/O worker.
struct Worker {
    slot: u32,
    pid: u32,
}

/// The running ones of `lake.stat_workers w` that satisfy a condition.
fn workers(cluster: &Cluster, condition: &str) -> Result<Vec<Worker>> {
    let rows = cluster.sql(&format!(
        "SELECT w.slot, w.pid FROM lake.stat_workers w
         WHERE w.pid IS NOT NULL AND {condition} ORDER BY w.slot"
    ))?;
    rows.lines()
        .map(|row| {
            let (slot, pid) = row.split_once('\t').unwrap_or_default();
            match (slot.parse(), pid.parse()) {
                (Ok(slot), Ok(pid)) => Ok(Worker { slot, pid }),
                _ => Err(format!("not a slot and a pid: {row:?}")),
            }
        })
        .collect()
}

/// Those that serve a request of our session; waits for the request.
fn served(cluster: &Cluster) -> Result<Vec<Worker>> {
    let mut found = Vec::new();
    wait_until(Duration::from_secs(30), "a request is served", || {
        found = workers(
            cluster,
            "w.tasks > 0 AND w.slot IN (
               SELECT s.worker FROM lake.stat_streams s JOIN pg_stat_activity a ON a.pid = s.pid
               WHERE s.state = 'active' AND a.application_name = 'session')",
        )?;
        Ok(!found.is_empty())
    })?;
    Ok(found)
}

/// It ends at once, and is started again.
fn terminate(cluster: &Cluster, worker: &Worker) -> Result<()> {
    let Worker { slot, pid } = worker;
    let told = Instant::now();
    process::signal("TERM", &[*pid])?;
    gone(&[*pid], told).map_err(|error| format!("slot {slot}: {error}"))?;
    wait_until(Duration::from_secs(30), "its restart", || {
        let now = workers(cluster, &format!("w.slot = {slot}"))?;
        Ok(now.iter().any(|worker| worker.pid != *pid))
    })
}

/// Wait until none of the processes is left: an error if that takes too long.
fn gone(pids: &[u32], told: Instant) -> Result<()> {
    while pids.iter().any(|&pid| process::alive(pid)) {
        if told.elapsed() > AT_ONCE * 20 {
            return Err(format!("still there after {} s", told.elapsed().as_secs()));
        }
        sleep(Duration::from_millis(5));
    }
    let took = told.elapsed();
    if took > AT_ONCE {
        return Err(format!("gone only after {} ms", took.as_millis()));
    }
    Ok(())
}

/// The next statements, of the engine and of a worker, know nothing of what happened.
fn works(cluster: &Cluster, expected: &str) -> Result<()> {
    must_be(&cluster.sql(QUERY)?, expected, "the next query")?;
    cluster.sql(LOAD).map(drop).context("the next load")
}

/// SIGTERM to the process that serves a statement: an error of the statement.
fn interrupt(cluster: &Cluster, script: &str) -> Result<()> {
    for _ in 0..5 {
        let busy = cluster
            .psql(DATABASE)
            .env("PGAPPNAME", "session")
            .stdin(script)
            .start()?;
        for worker in served(cluster)? {
            terminate(cluster, &worker)?;
        }
        match answer(busy.wait()?) {
            // It fell between two queries.
            Ok(_) => continue,
            Err(error)
                if error.contains("the lake worker is shutting down")
                    || error.contains("exited while it served this query") =>
            {
                return Ok(());
            }
            Err(error) => return Err(format!("not an error of the statement: {error}")),
        }
    }
    Err("no statement failed although its process was ended five times".to_owned())
}

/// A session that has run its statements and stays. Dropping it ends the client.
fn open_session(cluster: &Cluster, (last, before): (&str, &str)) -> Result<Running> {
    let session = cluster
        .psql(DATABASE)
        .env("PGAPPNAME", "session")
        // The client is held up, not the session.
        .stdin(format!("{before}{last};\n\\! sleep 600\n"))
        .start()?;
    let resting = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE application_name = 'session' AND state LIKE 'idle%' AND query LIKE '{last}%'"
    );
    wait_until(Duration::from_secs(30), "a session that rests", || {
        Ok(cluster.sql(&resting)? == "1")
    })?;
    Ok(session)
}

/// A fast stop of the server: our processes don't make it wait.
fn stop_fast(cluster: &Cluster) -> Result<()> {
    // What the server itself has to write is not the matter here.
    let lake = cluster.sql(
        "CHECKPOINT;
         SELECT pid FROM lake.stat_workers WHERE pid IS NOT NULL
         UNION SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'lake %'",
    )?;
    let pids = lake
        .lines()
        .map(|line| line.parse().map_err(|_| format!("a pid is {line:?}")))
        .collect::<Result<Vec<u32>>>()?;
    let told = Instant::now();
    let stopping = cluster
        .tool("pg_ctl")
        .args(["stop", "-w", "-t", "60", "-s", "-m", "fast", "-D"])
        .arg(cluster.data())
        .start()?;
    gone(&pids, told).map_err(|error| format!("its {} lake processes: {error}", pids.len()))?;
    answer(stopping.wait()?).context("pg_ctl")?;
    let took = told.elapsed();
    if took > SERVER {
        return Err(format!("it took {} ms", took.as_millis()));
    }
    no_alarm(cluster)
}

/// The log has nothing worse than sessions that an administrator ended.
fn no_alarm(cluster: &Cluster) -> Result<()> {
    let log = cluster.log();
    let bytes = fs::read(&log).context(log.display())?;
    let text = String::from_utf8_lossy(&bytes);
    let alarm = text.lines().find(|line| {
        line.contains("PANIC:")
            || line.contains("was terminated by signal")
            || (line.contains("FATAL:") && !line.contains("due to administrator command"))
    });
    match alarm {
        Some(line) => Err(format!("the log says: {line}")),
        None => Ok(()),
    }
}
