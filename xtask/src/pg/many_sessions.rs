//! Many sessions on few workers: everybody gets the right answer, and the engine stays within its memory.

use super::{background, same_server, started_at};
use crate::client::{Client, Value};
use crate::cluster::{Cluster, DATABASE};
use crate::test::Run;
use crate::{Result, say};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

const SESSIONS: usize = 64;
const ROUNDS: usize = 2;
const MEMORY_MB: u64 = 1024;

/// Joins, aggregates, sorts, window functions and feeds. `big` has hot rows, too; `fed` is a heap table.
const QUERIES: &[&str] = &[
    "SELECT count(*), sum(a.amount), sum(d.v) FROM big a JOIN small d ON d.id = a.grp",
    "SELECT count(*), sum(a.v), sum(b.amount) FROM small a LEFT JOIN big b ON b.id = a.id AND b.grp < 700",
    "SELECT grp, count(*), sum(amount) FROM big GROUP BY grp ORDER BY grp",
    "SELECT count(*), sum(n) FROM (SELECT id, sum(amount) AS n FROM big GROUP BY id) g",
    "SELECT id, amount, note FROM big ORDER BY amount, id OFFSET 149000",
    "SELECT id, amount FROM big ORDER BY amount DESC, id LIMIT 100",
    "SELECT count(*), sum(r) FROM (SELECT rank() OVER (PARTITION BY grp ORDER BY amount, id) AS r FROM big) w",
    "SELECT count(*), sum(b.amount), sum(f.v) FROM fed f JOIN big b ON b.id = f.id",
    "SELECT count(*), sum(id) FROM (SELECT id, grp FROM big EXCEPT SELECT id, v FROM small) e",
    "SELECT count(*) FROM (SELECT DISTINCT note FROM big) d",
];

type Answer = Vec<Vec<Value>>;

pub fn many_sessions(run: &mut Run) -> Result<()> {
    let memory = format!("{MEMORY_MB}MB");
    let cluster = run.cluster(
        "many_sessions",
        &[
            ("autovacuum", "off"),
            ("max_connections", "100"),
            ("lake.workers", "2"),
            ("lake.streams", "512"),
            ("lake.ring_size", "256kB"),
            ("lake.worker_memory", memory.as_str()),
            ("lake.memory_cache_size", "64MB"),
            ("lake.auto_compact", "off"),
            ("lake.flush_interval", "-1"),
            ("lake.flush_rows", "-1"),
            ("lake.publish_interval", "-1"),
        ],
    )?;
    load(&cluster)?;
    let server = started_at(&cluster)?;
    let engine = background::pids(&cluster, "engine")?;
    let engine = *engine.first().ok_or("no engine")?;
    let answers = Arc::new(answers(&cluster)?);
    let sessions = start(&cluster, &answers)?;
    let mut most_kb = 0;
    while sessions.iter().any(|session| !session.is_finished()) {
        most_kb = most_kb.max(background::anonymous_kb(engine)?);
        // Between two looks at its memory.
        sleep(Duration::from_millis(20));
    }
    for (n, session) in sessions.into_iter().enumerate() {
        session
            .join()
            .map_err(|_| format!("the thread of session {n} panicked"))?
            .map_err(|error| format!("session {n}: {error}"))?;
    }
    same_server(&cluster, &server)?;
    within_budget(&cluster, most_kb)
}

/// The same rows in heap and in iceberg. The last ones are hot.
fn load(cluster: &Cluster) -> Result<()> {
    cluster
        .sql(
            "CREATE SCHEMA h;
             CREATE SCHEMA t;
             CREATE TABLE h.big AS
                 SELECT g AS id, g % 1000 AS grp, (g::bigint * 7919 % 100003 / 100.0)::numeric(15,2) AS amount,
                        'note ' || g % 50000 AS note
                 FROM generate_series(1, 150000) g;
             CREATE TABLE h.small AS SELECT g AS id, g % 1000 AS v FROM generate_series(1, 5000) g;
             CREATE TABLE h.fed AS SELECT g AS id, g % 1000 AS v FROM generate_series(1, 10000) g;
             CREATE TABLE t.fed AS TABLE h.fed;
             CREATE TABLE t.big (id int, grp int, amount numeric(15,2), note text) USING iceberg;
             CREATE TABLE t.small (id int, v int) USING iceberg;
             SET lake.bulk_rows = 0;
             INSERT INTO t.big SELECT * FROM h.big WHERE id <= 145000;
             INSERT INTO t.small TABLE h.small;
             SET lake.bulk_rows = -1;
             INSERT INTO t.big SELECT * FROM h.big WHERE id > 145000;
             ANALYZE h.big, h.small, h.fed, t.big, t.small, t.fed;",
        )
        .map(drop)
}

fn answers(cluster: &Cluster) -> Result<Vec<Answer>> {
    let mut heap = Client::in_schema(cluster, DATABASE, "h", "off")?;
    let all = QUERIES
        .iter()
        .map(|query| heap.rows(query).map(|rows| rows.rows));
    all.collect()
}

/// Sessions that begin together, each with another query.
fn start(cluster: &Cluster, answers: &Arc<Vec<Answer>>) -> Result<Vec<JoinHandle<Result<()>>>> {
    let clients = (0..SESSIONS)
        .map(|_| Client::in_schema(cluster, DATABASE, "t", "force"))
        .collect::<Result<Vec<Client>>>()?;
    let together = Arc::new(Barrier::new(SESSIONS));
    let start = |(n, mut client): (usize, Client)| {
        let (answers, together) = (Arc::clone(answers), Arc::clone(&together));
        thread::spawn(move || {
            together.wait();
            session(&mut client, n, &answers)
        })
    };
    Ok(clients.into_iter().enumerate().map(start).collect())
}

fn session(client: &mut Client, n: usize, answers: &[Answer]) -> Result<()> {
    for step in 0..ROUNDS * QUERIES.len() {
        let at = (n + step) % QUERIES.len();
        let (Some(query), Some(expected)) = (QUERIES.get(at), answers.get(at)) else {
            continue;
        };
        let found = client.rows(query)?.rows;
        if found != *expected {
            return Err(format!(
                "{} rows that differ from heap's {}: {query}",
                found.len(),
                expected.len()
            ));
        }
    }
    Ok(())
}

/// By the engine's own account, and by the system's.
fn within_budget(cluster: &Cluster, most_kb: u64) -> Result<()> {
    let peak =
        cluster.sql("SELECT memory_peak / 1024 FROM lake.stat_workers WHERE kind = 'engine'")?;
    let peak_kb: u64 = peak.parse().map_err(|_| format!("a peak is {peak:?}"))?;
    say(&format!(
        "      the engine's peak: {} MB by its account, {} MB by the system's",
        peak_kb / 1024,
        most_kb / 1024
    ));
    let budget_kb = MEMORY_MB * 1024;
    if peak_kb > budget_kb {
        return Err(format!(
            "the engine counted {peak_kb} kB, more than lake.worker_memory"
        ));
    }
    if most_kb > budget_kb + background::BESIDE_BUDGET_KB {
        return Err(format!(
            "the engine took {most_kb} kB, more than lake.worker_memory and what it takes beside"
        ));
    }
    Ok(())
}
