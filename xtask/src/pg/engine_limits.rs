//! Each kind of operator of the engine: its answer with enough memory and with little, and how it ends when somebody
//! else wants it to.
//!
//! What is to be ended runs on views that have the rows of a table many times.

use super::{background, must_be, same_server, started_at, wait_until};
use crate::client::{Client, Reply, Rows};
use crate::cluster::{Cluster, DATABASE};
use crate::test::Run;
use crate::{Context, Result, say};
use std::fs;
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Enough for few threads to spread both sides of a join.
const ROWS: u32 = 2_100_000;
const WIDE_ROWS: u32 = 400;
/// How often the views have the rows.
const TIMES: usize = 60;
const TIMES_FED: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);

/// How soon a session is back that was told to cancel its query: the median of all operators, and each.
const BACK_MEDIAN: Duration = Duration::from_millis(100);
const BACK: Duration = Duration::from_secs(1);

/// `{t}` and `{f}` are the tables `big` and `fed`, or views with many times their rows; `{s}` is a few rows, or
/// `big`; `{n}` is most of the rows.
struct Operator {
    name: &'static str,
    sql: &'static str,
    /// With little memory it spills, and has no excuse.
    spills: bool,
}

const OPERATORS: &[Operator] = &[
    Operator {
        name: "scan",
        sql: "SELECT count(*), sum(id), count(note) FROM {t} WHERE grp <> 7",
        spills: false,
    },
    Operator {
        name: "hash join, one side kept whole",
        sql: "SELECT count(*), sum(a.amount), sum(d.v) FROM {t} a JOIN few d ON d.id = a.grp",
        spills: false,
    },
    Operator {
        name: "hash join, both sides spread",
        sql: "SELECT count(*), sum(a.amount), sum(b.grp) FROM {t} a JOIN big b ON b.id = a.id",
        spills: false,
    },
    Operator {
        name: "nested loop",
        sql: "SELECT count(*), sum(a.id) FROM {s} a JOIN few b ON a.id < b.id",
        spills: false,
    },
    Operator {
        name: "cross join",
        sql: "SELECT count(*), sum(a.id + b.v) FROM {s} a CROSS JOIN few b",
        spills: false,
    },
    Operator {
        name: "sort",
        sql: "SELECT id, note FROM {t} ORDER BY amount, id OFFSET {n}",
        spills: true,
    },
    Operator {
        name: "merge of sorts",
        sql: "SELECT id, note FROM \
              (SELECT id, amount, note FROM {t} UNION ALL SELECT id, amount, note FROM big WHERE id <= 5) u \
              ORDER BY amount DESC, id OFFSET {n}",
        spills: true,
    },
    Operator {
        name: "hash aggregation",
        sql: "SELECT count(*), sum(n) FROM \
              (SELECT id, note, sum(amount) AS n FROM {t} GROUP BY id, note) g",
        spills: true,
    },
    Operator {
        name: "ordered values of one group",
        sql: "SELECT percentile_disc(0.37) WITHIN GROUP (ORDER BY amount), mode() WITHIN GROUP (ORDER BY grp), \
              percentile_disc(0.9) WITHIN GROUP (ORDER BY id) FROM {t}",
        spills: true,
    },
    Operator {
        name: "lists of ordered values",
        sql: "SELECT grp, array_agg(id ORDER BY amount DESC, id) FROM {t} GROUP BY grp ORDER BY grp",
        spills: true,
    },
    Operator {
        name: "DISTINCT",
        sql: "SELECT count(*), sum(id) FROM (SELECT DISTINCT note, id FROM {t}) d",
        spills: true,
    },
    Operator {
        name: "grouping sets",
        sql: "SELECT count(*), sum(n) FROM \
              (SELECT grp, id, sum(amount) AS n FROM {t} GROUP BY ROLLUP (grp, id)) g",
        spills: false,
    },
    Operator {
        name: "TopK",
        sql: "SELECT id, note FROM {t} ORDER BY amount DESC, id LIMIT 10",
        spills: false,
    },
    Operator {
        name: "window",
        sql: "SELECT count(*), sum(r) FROM \
              (SELECT rank() OVER (PARTITION BY grp ORDER BY amount, id) AS r FROM {t}) w",
        spills: false,
    },
    Operator {
        name: "set operation",
        sql: "SELECT count(*), sum(id) FROM (SELECT id, grp FROM {t} EXCEPT SELECT id, v FROM few) e",
        spills: false,
    },
    Operator {
        name: "append",
        sql: "SELECT count(*), sum(id), count(note) FROM \
              (SELECT id, note FROM {t} UNION ALL SELECT id, 'few' FROM few) u",
        spills: false,
    },
    Operator {
        name: "feed of heap rows",
        sql: "SELECT count(*), sum(b.amount), sum(f.v) FROM {f} f JOIN big b ON b.id = f.id",
        spills: false,
    },
    Operator {
        name: "recursion",
        sql: "WITH RECURSIVE r AS (SELECT id, 0 AS step FROM few UNION \
              SELECT a.id + 1, r.step + 1 FROM r JOIN {t} a ON a.id = r.id WHERE r.step < 3) \
              SELECT count(*), sum(id) FROM r",
        spills: false,
    },
    Operator {
        name: "recursion of many rows",
        sql: "WITH RECURSIVE r AS (SELECT id, 0 AS step FROM {t} UNION \
              SELECT r.id + 1, r.step + 1 FROM r WHERE r.step < 2 AND r.id % 3 <> 0) \
              SELECT count(*), sum(id), sum(step) FROM r",
        spills: true,
    },
    Operator {
        name: "LIMIT",
        sql: "SELECT count(*), count(note) FROM (SELECT note FROM {t} LIMIT {n}) l",
        spills: false,
    },
];

/// Of rows between 100 kB and 1 MB, which are several times the least memory together, and together with their keys more.
const WIDE: &[Operator] = &[
    Operator {
        name: "sort of wide rows",
        sql: "SELECT id, length(note), right(note, 10) FROM \
              (SELECT id, key, note FROM wide ORDER BY key DESC, id OFFSET 0) w",
        spills: true,
    },
    Operator {
        name: "sort by wide keys",
        sql: "SELECT id, length(note) FROM (SELECT id, note FROM wide ORDER BY note DESC, id OFFSET 0) w",
        spills: true,
    },
    Operator {
        name: "merge of sorts of wide rows",
        sql: "SELECT id, length(note) FROM \
              (SELECT id, key, note FROM wide UNION ALL SELECT -id, key, note FROM wide ORDER BY key, id OFFSET 0) w",
        spills: true,
    },
];

impl Operator {
    fn short(&self) -> String {
        let most = (ROWS - 10).to_string();
        let names = [
            ("{t}", "big"),
            ("{f}", "fed"),
            ("{s}", "few"),
            ("{n}", most.as_str()),
        ];
        self.on(&names)
    }

    fn long(&self) -> String {
        let most = (ROWS as usize * TIMES - 10).to_string();
        let names = [
            ("{t}", "many_big"),
            ("{f}", "many_fed"),
            ("{s}", "(SELECT * FROM big WHERE id <= 400000)"),
            ("{n}", most.as_str()),
        ];
        self.on(&names)
    }

    fn on(&self, names: &[(&str, &str)]) -> String {
        names
            .iter()
            .fold(self.sql.to_owned(), |sql, (name, table)| {
                sql.replace(name, table)
            })
    }
}

pub fn engine_limits(run: &mut Run) -> Result<()> {
    let mut cluster = run.cluster(
        "engine_limits",
        &[
            ("autovacuum", "off"),
            ("lake.auto_compact", "off"),
            ("lake.flush_interval", "-1"),
            ("lake.flush_rows", "-1"),
            ("lake.publish_interval", "-1"),
            // What is left of a query's memory can be seen then.
            ("lake.memory_cache_size", "0"),
            ("max_wal_size", "4GB"),
        ],
    )?;
    load(&cluster)?;
    let server = started_at(&cluster)?;
    let answers = answers(&cluster)?;
    beside_large_ones(&cluster)?;
    cancelled(&cluster)?;
    terminated(&cluster)?;
    same_server(&cluster, &server)?;

    cluster.sql("ALTER SYSTEM SET lake.worker_memory = '64MB'")?;
    cluster.restart()?;
    let server = started_at(&cluster)?;
    with_little_memory(&cluster, &answers)?;
    with_wide_rows(&cluster)?;
    within_temp_file_limit(&cluster)?;
    nothing_left(&cluster)?;
    same_server(&cluster, &server)
}

/// The same rows in the schemas `h`, in heap, and `t`. `fed` is a heap table in both.
fn load(cluster: &Cluster) -> Result<()> {
    cluster.sql(&format!(
        "CREATE SCHEMA h;
         CREATE SCHEMA t;
         CREATE TABLE h.big AS
             SELECT g AS id, g % 1000 AS grp, (g::bigint * 7919 % 1000003 / 100.0)::numeric(15,2) AS amount,
                    'note ' || g::bigint * 31 % 2100001 AS note
             FROM generate_series(1, {ROWS}) g;
         CREATE TABLE h.few AS SELECT g AS id, g % 1000 AS v FROM generate_series(1, 1500) g;
         CREATE TABLE h.fed AS SELECT g AS id, g % 1000 AS v FROM generate_series(1, 300000) g;
         CREATE TABLE t.fed AS TABLE h.fed;
         CREATE TABLE h.wide (id int, key int, note text COLLATE \"C\");
         INSERT INTO h.wide SELECT g, g * 7919 % 101, repeat(md5(g::text), 3200 * (1 + g * 31 % 10))
             FROM generate_series(1, {WIDE_ROWS}) g;
         SET lake.bulk_rows = 0;
         CREATE TABLE t.big (id int, grp int, amount numeric(15,2), note text) USING iceberg;
         INSERT INTO t.big TABLE h.big;
         CREATE TABLE t.wide (id int, key int, note text COLLATE \"C\") USING iceberg;
         INSERT INTO t.wide TABLE h.wide;
         CREATE TABLE t.few (id int, v int) USING iceberg;
         INSERT INTO t.few TABLE h.few;"
    ))?;
    for (table, times) in [("big", TIMES), ("fed", TIMES_FED)] {
        let rows = vec![format!("SELECT * FROM t.{table}"); times].join(" UNION ALL ");
        cluster.sql(&format!("CREATE VIEW t.many_{table} AS {rows}"))?;
    }
    cluster
        .sql("ANALYZE h.big, h.few, h.fed, h.wide, t.big, t.few, t.fed, t.wide")
        .map(drop)
}

/// What heap says to each query; the engine says the same.
fn answers(cluster: &Cluster) -> Result<Vec<Rows>> {
    let mut heap = Client::in_schema(cluster, DATABASE, "h", "off")?;
    heap.rows("SET work_mem = '512MB'")?;
    let mut lake = Client::in_schema(cluster, DATABASE, "t", "force")?;
    let mut answers = Vec::new();
    for operator in OPERATORS {
        let expected = heap.rows(&operator.short())?;
        let found = lake
            .rows(&operator.short())
            .context(format!("{}, with enough memory", operator.name))?;
        same(operator, &expected, &found)?;
        answers.push(expected);
    }
    Ok(answers)
}

/// Sums are exact, and what is ordered is so by all columns.
fn same(operator: &Operator, expected: &Rows, found: &Rows) -> Result<()> {
    if expected.rows == found.rows {
        return Ok(());
    }
    Err(format!(
        "{}: {:?}, expected {:?}",
        operator.name, found.rows, expected.rows
    ))
}

/// A session that runs a long query; the thread says when it ended, and how.
struct Victim {
    pid: String,
    session: JoinHandle<(Instant, Result<Reply>)>,
}

impl Victim {
    /// Starts a query, and waits until the engine has computed some of it.
    fn start(cluster: &Cluster, watch: &mut Client, sql: String) -> Result<Victim> {
        let mut client = Client::in_schema(cluster, DATABASE, "t", "force")?;
        let pid = one(&mut client, "SELECT pg_backend_pid()")?;
        let session = thread::spawn(move || {
            let reply = client.query(&sql);
            (Instant::now(), reply)
        });
        let victim = Victim { pid, session };
        let runs = format!(
            "SELECT count(*) FROM lake.stat_queries WHERE pid = {} AND state <> 'queued' AND rows_read > 0",
            victim.pid
        );
        let deadline = Instant::now() + LIMIT;
        while one(watch, &runs)? == "0" {
            if victim.session.is_finished() {
                let (_, reply) = victim.end()?;
                return Err(format!(
                    "it ended before anybody saw it run: {}",
                    described(&reply)
                ));
            }
            if Instant::now() > deadline {
                return Err("it is not in lake.stat_queries".to_owned());
            }
            // Its condition is looked at again.
            sleep(Duration::from_millis(2));
        }
        Ok(victim)
    }

    fn end(self) -> Result<(Instant, Result<Reply>)> {
        self.session
            .join()
            .map_err(|_| "the session's thread panicked".to_owned())
    }
}

fn one(client: &mut Client, sql: &str) -> Result<String> {
    let rows = client.rows(sql)?;
    let first = rows.lines().first().map(|line| (*line).to_owned());
    first.ok_or_else(|| format!("no row from {sql}"))
}

fn must_be_cancelled(reply: &Result<Reply>) -> Result<()> {
    match reply {
        Ok(Err(error)) if error.sqlstate == "57014" => Ok(()),
        other => Err(described(other)),
    }
}

fn described(reply: &Result<Reply>) -> String {
    match reply {
        Ok(Ok(rows)) => format!("{} rows", rows.rows.len()),
        Ok(Err(error)) => error.to_string(),
        Err(lost) => lost.clone(),
    }
}

/// Small queries come to their end while large ones go on, which have more tasks than there are cores.
fn beside_large_ones(cluster: &Cluster) -> Result<()> {
    let mut watch = Client::in_schema(cluster, DATABASE, "t", "off")?;
    let mut small = Client::in_schema(cluster, DATABASE, "t", "force")?;
    let mut large = Vec::new();
    for name in ["hash join, both sides spread", "sort", "hash aggregation"] {
        let operator = OPERATORS.iter().find(|operator| operator.name == name);
        let sql = operator.ok_or(format!("no operator {name}"))?.long();
        let victim = Victim::start(cluster, &mut watch, sql).context(name)?;
        large.push((name, victim));
    }
    for _ in 0..20 {
        let sum = one(&mut small, "SELECT sum(id) FROM few WHERE v <> 0")?;
        must_be(&sum, "1124750", "the small query")?;
    }
    for (name, victim) in large {
        if victim.session.is_finished() {
            let (_, reply) = victim.end()?;
            return Err(format!(
                "{name} ended before small queries had: {}",
                described(&reply)
            ));
        }
        watch.rows(&format!("SELECT pg_cancel_backend({})", victim.pid))?;
        must_be_cancelled(&victim.end()?.1).context(name)?;
    }
    Ok(())
}

/// pg_cancel_backend gets through at once, whatever the engine is at.
fn cancelled(cluster: &Cluster) -> Result<()> {
    let mut watch = Client::in_schema(cluster, DATABASE, "t", "off")?;
    let mut times = Vec::new();
    for operator in OPERATORS {
        let took = cancel(cluster, &mut watch, operator)
            .map_err(|error| format!("{}, cancelled: {error}", operator.name))?;
        if took > BACK {
            return Err(format!(
                "{}: back {} ms after its cancellation",
                operator.name,
                took.as_millis()
            ));
        }
        times.push((took, operator.name));
    }
    times.sort();
    let said: Vec<String> = times
        .iter()
        .map(|(took, name)| format!("{name} {} ms", took.as_millis()))
        .collect();
    say(&format!("      cancelled: {}", said.join(", ")));
    match times.get(times.len() / 2) {
        Some((median, _)) if *median > BACK_MEDIAN => Err(format!(
            "the median of the times until sessions are back is {} ms",
            median.as_millis()
        )),
        _ => Ok(()),
    }
}

fn cancel(cluster: &Cluster, watch: &mut Client, operator: &Operator) -> Result<Duration> {
    let victim = Victim::start(cluster, watch, operator.long())?;
    let asked = Instant::now();
    watch.rows(&format!("SELECT pg_cancel_backend({})", victim.pid))?;
    let (ended, reply) = victim.end()?;
    must_be_cancelled(&reply)?;
    Ok(ended.duration_since(asked))
}

/// After pg_terminate_backend nothing is left of a query.
fn terminated(cluster: &Cluster) -> Result<()> {
    let mut watch = Client::in_schema(cluster, DATABASE, "t", "off")?;
    for operator in OPERATORS {
        terminate(cluster, &mut watch, operator)
            .map_err(|error| format!("{}, terminated: {error}", operator.name))?;
    }
    nothing_left(cluster)
}

fn terminate(cluster: &Cluster, watch: &mut Client, operator: &Operator) -> Result<()> {
    let victim = Victim::start(cluster, watch, operator.long())?;
    watch.rows(&format!("SELECT pg_terminate_backend({})", victim.pid))?;
    let (_, reply) = victim.end()?;
    match &reply {
        // The server says why, and closes the connection.
        Err(lost) if lost.contains("57P01") => {}
        other => return Err(described(other)),
    }
    wait_until(LIMIT, "its streams are free", || {
        Ok(one(watch, IN_USE)? == "0")
    })
}

/// Streams, requests and tasks.
const IN_USE: &str = "
    SELECT (SELECT count(*) FROM lake.stat_streams WHERE state <> 'free')
         + (SELECT count(*) FROM lake.stat_queries) + (SELECT sum(tasks) FROM lake.stat_workers)";

fn nothing_left(cluster: &Cluster) -> Result<()> {
    wait_until(LIMIT, "no stream is taken, and no task runs", || {
        Ok(cluster.sql(IN_USE)? == "0")
    })?;
    wait_until(LIMIT, "the engine's memory is free", || {
        let used = "SELECT memory_bytes FROM lake.stat_workers WHERE kind = 'engine'";
        Ok(cluster.sql(used)? == "0")
    })?;
    wait_until(LIMIT, "no temporary file is left", || {
        let spilled = cluster.data().join("base/pgsql_tmp/pgsql_tmp_lake");
        let entries = fs::read_dir(&spilled).context(spilled.display())?;
        Ok(entries.count() == 0)
    })
}

/// The same rows with the least memory that can be set, or an error that says what to do.
fn with_little_memory(cluster: &Cluster, answers: &[Rows]) -> Result<()> {
    let mut lake = Client::in_schema(cluster, DATABASE, "t", "force")?;
    let mut refused = Vec::new();
    for (operator, expected) in OPERATORS.iter().zip(answers) {
        match lake.query(&operator.short())? {
            Ok(found) => same(operator, expected, &found)?,
            Err(error) => {
                let clear = matches!(error.sqlstate.as_str(), "53200" | "53400");
                if operator.spills || !clear || error.hint.is_empty() {
                    return Err(format!("{}, with little memory: {error}", operator.name));
                }
                refused.push(operator.name);
                continue;
            }
        }
        if operator.spills {
            spills(&mut lake, operator)?;
        }
    }
    say(&format!("      not in 64 MB: {}", refused.join(", ")));
    let engine = background::pids(cluster, "engine")?;
    let engine = engine.first().ok_or("no engine")?;
    let most = 64 * 1024 + background::BESIDE_BUDGET_KB;
    let took = background::anonymous_kb(*engine)?;
    say(&format!("      the engine takes {took} kB"));
    match took {
        took if took > most => Err(format!("the engine takes {took} kB, more than {most}")),
        _ => Ok(()),
    }
}

/// A batch of them, or of their keys, is no reason to fail.
fn with_wide_rows(cluster: &Cluster) -> Result<()> {
    let mut heap = Client::in_schema(cluster, DATABASE, "h", "off")?;
    let mut lake = Client::in_schema(cluster, DATABASE, "t", "force")?;
    for operator in WIDE {
        let expected = heap.rows(operator.sql)?;
        let found = lake
            .rows(operator.sql)
            .context(format!("{}, with little memory", operator.name))?;
        same(operator, &expected, &found)?;
        spills(&mut lake, operator)?;
    }
    Ok(())
}

fn spills(lake: &mut Client, operator: &Operator) -> Result<()> {
    let plan = lake.rows(&format!(
        "EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF) {}",
        operator.short()
    ))?;
    let lines = plan.lines();
    let spilled = |line: &&str| {
        let count = line.split("spill_count=").nth(1);
        count.is_some_and(|count| count.starts_with(|c: char| ('1'..='9').contains(&c)))
    };
    if lines.iter().any(spilled) {
        return Ok(());
    }
    Err(format!(
        "{} does not spill with little memory:\n{}",
        operator.name,
        lines.join("\n")
    ))
}

/// What is spilled stays within the session's limit, as in Postgres.
fn within_temp_file_limit(cluster: &Cluster) -> Result<()> {
    let mut lake = Client::in_schema(cluster, DATABASE, "t", "force")?;
    lake.rows("SET temp_file_limit = '1MB'")?;
    for operator in OPERATORS.iter().filter(|operator| operator.spills) {
        let message = match lake.query(&operator.short())? {
            Ok(_) => "no error".to_owned(),
            Err(error) => error.to_string(),
        };
        must_be(
            &message,
            "53400: temporary file size exceeds \"temp_file_limit\" (1024kB)",
            &format!("{}, with temp_file_limit = 1MB", operator.name),
        )?;
    }
    Ok(())
}
