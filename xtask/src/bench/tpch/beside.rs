//! A small query alone, and beside large ones of other sessions: what it waits for cores.

use crate::Result;
use crate::bench::Bench;
use crate::client::Client;
use crate::cluster::{Cluster, DATABASE};
use crate::pg::wait_until;
use crate::say;
use crate::timing::{median, report};
use crate::tpch::queries;
use crate::tpch::twins::{self, LAKE};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const RUNS: usize = 200;
const WARM_UP: usize = 20;

/// A scan with large groups, joins of six tables, and a large aggregation.
const LARGE: [usize; 3] = [1, 9, 18];

/// Of one row group.
const SMALL: &str = "SELECT grp, count(*), sum(n) FROM small GROUP BY grp ORDER BY grp";

/// Sessions that run [`LARGE`] in turn, each beginning with another one.
struct Busy {
    enough: Arc<AtomicBool>,
    sessions: Vec<JoinHandle<Result<()>>>,
}

impl Busy {
    fn start(cluster: &Cluster, queries: &[String], sessions: usize) -> Result<Busy> {
        let enough = Arc::new(AtomicBool::new(false));
        let mut busy = Busy {
            enough: enough.clone(),
            sessions: Vec::new(),
        };
        for first in 0..sessions {
            let mut client = Client::in_schema(cluster, DATABASE, LAKE, "on")?;
            let (enough, queries) = (enough.clone(), queries.to_vec());
            busy.sessions.push(thread::spawn(move || -> Result<()> {
                for sql in queries.iter().cycle().skip(first) {
                    if enough.load(Ordering::Relaxed) {
                        break;
                    }
                    client.rows(sql)?;
                }
                Ok(())
            }));
        }
        let running = format!("SELECT count(*) >= {sessions} FROM lake.stat_queries");
        wait_until(Duration::from_secs(60), "the large queries run", || {
            Ok(cluster.sql(&running)? == "t")
        })?;
        Ok(busy)
    }

    fn stop(self) -> Result<()> {
        self.enough.store(true, Ordering::Relaxed);
        for session in self.sessions {
            let ended = session.join();
            ended.map_err(|_| "a session's thread panicked".to_owned())??;
        }
        Ok(())
    }
}

/// Milliseconds that the small query takes, each time.
fn times(client: &mut Client) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for run in 0..WARM_UP + RUNS {
        let begin = Instant::now();
        client.rows(SMALL)?;
        if run >= WARM_UP {
            times.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
    }
    Ok(times)
}

/// Nine of ten are not above it.
fn ninth(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = values.len() * 9 / 10;
    values.get(place).copied().unwrap_or(f64::NAN)
}

pub fn beside(bench: &Bench) -> Result<()> {
    let cluster = &bench.cluster;
    let is_new = format!("SELECT to_regnamespace('{LAKE}') IS NULL");
    if cluster.sql(&is_new)? == "t" {
        twins::load(cluster, &bench.csv()?, &[(LAKE, "iceberg")])?;
    }
    cluster.sql(
        "CREATE SCHEMA beside;
         SET lake.bulk_rows = 0;
         CREATE TABLE beside.small (id int, grp int, n numeric(10,2)) USING iceberg;
         INSERT INTO beside.small SELECT g, g % 10, g FROM generate_series(1, 100000) g;
         SELECT lake.flush('beside.small');
         ANALYZE beside.small;",
    )?;
    let all = queries::all(&bench.python, cluster)?;
    let large = all
        .into_iter()
        .filter(|query| LARGE.contains(&query.number));
    let large: Vec<String> = large.map(|query| query.sql).collect();
    let mut client = Client::in_schema(cluster, DATABASE, "beside", "force")?;
    let alone = times(&mut client)?;
    let mut beside = Vec::new();
    for sessions in [1, 3] {
        say(&format!("    beside {sessions}"));
        let busy = Busy::start(cluster, &large, sessions)?;
        let times = times(&mut client);
        busy.stop()?;
        beside.push(times?);
    }
    cluster.sql("DROP SCHEMA beside CASCADE")?;
    if let [one, three] = beside.as_slice() {
        let middle = |values: &[f64]| median(values.to_vec());
        report(
            "tpch.beside",
            &[
                ("alone_p50_ms", middle(&alone)),
                ("alone_p90_ms", ninth(alone.clone())),
                ("beside_1_p50_ms", middle(one)),
                ("beside_1_p90_ms", ninth(one.clone())),
                ("beside_3_p50_ms", middle(three)),
                ("beside_3_p90_ms", ninth(three.clone())),
                ("ratio_1", middle(one) / middle(&alone)),
                ("ratio_3", middle(three) / middle(&alone)),
            ],
        );
    }
    Ok(())
}
