//! TPC-H by the engine: each query on iceberg tables gives what it gives on heap, and is run by the engine whole.
//!
//! All rows are cold first; then some are hot, changed or deleted; then one of the tables is a heap table. All
//! queries are tried in each state, whatever fails.

use super::wait_until;
use crate::client::{Client, Reply, Rows};
use crate::cluster::{Cluster, DATABASE};
use crate::compare::{Tolerance, difference};
use crate::test::{Run, Tally};
use crate::tpch;
use crate::tpch::queries::{self, Query};
use crate::tpch::twins::{self, HEAP, HEAP_TABLE, LAKE};
use crate::{Result, say};
use std::time::{Duration, Instant};

/// The engine adds floats up in another order.
const TOLERANCE: Tolerance = Tolerance {
    float: 1e-12,
    zeros: false,
};

/// Rows stay hot, or cold, as they are.
const SETTINGS: &[(&str, &str)] = &[
    ("autovacuum", "off"),
    ("lake.auto_compact", "off"),
    ("lake.flush_interval", "-1"),
    ("lake.flush_rows", "-1"),
    ("lake.publish_interval", "-1"),
    ("max_wal_size", "4GB"),
];

/// `test tpch`: at scale 1.
pub fn suite(run: &mut Run) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut check = |name: &str, result: Result<()>| tally.check(name, result);
    proof(run, "tpch", "1", Duration::from_secs(120), &mut check)?;
    Ok(tally)
}

/// The same with few rows, for each run of all tests.
pub fn smoke(run: &mut Run) -> Result<()> {
    let mut failed = Vec::new();
    let mut check = |name: &str, result: Result<()>| match result {
        Ok(()) => say(&format!("      {name}")),
        Err(error) => {
            say(&format!("      {name}: FAILED"));
            failed.push(format!("{name}: {error}"));
        }
    };
    proof(
        run,
        "tpch_smoke",
        "0.05",
        Duration::from_secs(20),
        &mut check,
    )?;
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed.join("\n"))
    }
}

/// All states and queries. Each statement may take as long as `limit`.
fn proof(
    run: &mut Run,
    name: &str,
    scale: &str,
    limit: Duration,
    check: &mut dyn FnMut(&str, Result<()>),
) -> Result<()> {
    let csv = tpch::csv(run.python()?, scale)?;
    let mut cluster = run.cluster(name, SETTINGS)?;
    cluster.limit = cluster.limit.max(limit * 2);
    let queries = queries::all(run.python()?, &cluster)?;
    twins::load(&cluster, &csv, &[(HEAP, "heap"), (LAKE, "iceberg")])?;
    let mut sessions = Sessions::open(&cluster, limit)?;

    let expected = sessions.on_heap(&queries)?;
    sessions.state("all rows cold", &queries, &expected, check)?;
    twins::change(&cluster)?;
    let expected = sessions.on_heap(&queries)?;
    sessions.state("hot rows and deleted ones", &queries, &expected, check)?;
    twins::one_heap_table(&cluster)?;
    // Postgres would look into its index row by row for some of the queries, which is its own work.
    sessions.lake.rows("SET enable_nestloop = off")?;
    let name = format!("{HEAP_TABLE} in heap");
    sessions.state(&name, &queries, &expected, check)
}

/// A session on heap, and one on iceberg.
struct Sessions<'a> {
    cluster: &'a Cluster,
    limit: Duration,
    heap: Client,
    lake: Client,
}

/// An answer, and the milliseconds that it took.
struct Timed {
    reply: Reply,
    milliseconds: f64,
}

impl<'a> Sessions<'a> {
    fn open(cluster: &'a Cluster, limit: Duration) -> Result<Sessions<'a>> {
        let heap = connect(cluster, HEAP, limit)?;
        let lake = connect(cluster, LAKE, limit)?;
        Ok(Sessions {
            cluster,
            limit,
            heap,
            lake,
        })
    }

    /// What Postgres alone answers.
    fn on_heap(&mut self, queries: &[Query]) -> Result<Vec<Timed>> {
        say("    the queries on heap");
        self.heap.rows("SET lake.engine = off")?;
        let answers = queries
            .iter()
            .map(|query| timed(&mut self.heap, &query.sql));
        answers.collect()
    }

    fn state(
        &mut self,
        state: &str,
        queries: &[Query],
        expected: &[Timed],
        check: &mut dyn FnMut(&str, Result<()>),
    ) -> Result<()> {
        for (query, expected) in queries.iter().zip(expected) {
            let verdict = self.query(query, expected).or_else(|lost| {
                self.reconnect()?;
                Ok::<_, String>(Verdict {
                    how: "no answer".to_owned(),
                    result: Err(lost),
                })
            })?;
            let name = format!("{state}, Q{}: {}", query.number, verdict.how);
            check(&name, verdict.result);
        }
        Ok(())
    }

    /// The server may be recovering from a crash.
    fn reconnect(&mut self) -> Result<()> {
        wait_until(Duration::from_secs(60), "a connection", || {
            self.heap = connect(self.cluster, HEAP, self.limit)?;
            self.lake = connect(self.cluster, LAKE, self.limit)?;
            Ok(true)
        })
    }

    fn query(&mut self, query: &Query, expected: &Timed) -> Result<Verdict> {
        let heap = match &expected.reply {
            Ok(rows) => rows,
            Err(error) => return Ok(Verdict::failed("heap", format!("on heap: {error}"))),
        };
        self.lake.rows("SET lake.engine = force")?;
        let forced = timed(&mut self.lake, &query.sql)?;
        let (times, order) = (
            |engine: f64| {
                format!(
                    "heap {:.0} ms, iceberg {engine:.0} ms",
                    expected.milliseconds
                )
            },
            query.order_in_words(),
        );
        match &forced.reply {
            Ok(rows) => Ok(Verdict {
                how: format!("lowered, {}, {order}", times(forced.milliseconds)),
                result: same(heap, rows, query).and_then(|()| self.by_the_engine(query)),
            }),
            Err(error) if error.is_refusal() => {
                // What the rest of it does may still be wrong.
                self.lake.rows("SET lake.engine = on")?;
                let partly = timed(&mut self.lake, &query.sql)?;
                let answer = match &partly.reply {
                    Ok(rows) => same(heap, rows, query),
                    Err(error) => Err(error.to_string()),
                };
                let also = answer
                    .err()
                    .map(|what| format!("\nlake.engine = on: {what}"));
                Ok(Verdict {
                    how: format!("not lowered, {}", times(partly.milliseconds)),
                    result: Err(format!(
                        "not lowered: {}{}",
                        error.detail,
                        also.unwrap_or_default()
                    )),
                })
            }
            Err(error) => Ok(Verdict::failed("lowered", error.to_string())),
        }
    }

    /// The engine may give a fragment back when it meets a value for which it can't be exact.
    fn by_the_engine(&mut self, query: &Query) -> Result<()> {
        let explain = format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {}", query.sql);
        let plan = self.lake.rows(&explain)?;
        let lines = plan.lines();
        let has = |what: &str| lines.iter().any(|line| line.contains(what));
        if has("Custom Scan (Lake)") && has("Engine: ") && !has("Run by Postgres") {
            return Ok(());
        }
        Err(format!("not run by the engine:\n{}", lines.join("\n")))
    }
}

/// What has become of a query.
struct Verdict {
    how: String,
    result: Result<()>,
}

impl Verdict {
    fn failed(how: &str, error: String) -> Verdict {
        Verdict {
            how: how.to_owned(),
            result: Err(error),
        }
    }
}

fn connect(cluster: &Cluster, schema: &str, limit: Duration) -> Result<Client> {
    let mut client = Client::connect(cluster, DATABASE)?;
    client.rows(&format!(
        "SET search_path = {schema}; SET statement_timeout = '{} s'",
        limit.as_secs()
    ))?;
    Ok(client)
}

fn timed(client: &mut Client, sql: &str) -> Result<Timed> {
    let begin = Instant::now();
    let reply = client.query(sql)?;
    let milliseconds = begin.elapsed().as_secs_f64() * 1000.0;
    Ok(Timed {
        reply,
        milliseconds,
    })
}

fn same(heap: &Rows, found: &Rows, query: &Query) -> Result<()> {
    match difference(heap, found, query.order, TOLERANCE) {
        None => Ok(()),
        Some(what) => Err(what),
    }
}
