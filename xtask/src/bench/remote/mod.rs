//! Tables in an object store on this machine, beside local ones of the same server.
//!
//! * `scans`: Q1 and a scan of all columns, warm, cold, and with a slow store
//! * `plain`: a client that only reads objects, which a cold scan is compared with
//! * `flight`: many sessions that read the same file at once
//!
//! What a figure is of is checked: a warm scan asks the store for nothing, a cold one for everything.

mod flight;
mod plain;
mod scans;

use super::{Bench, insert_rates, lineitem, work_dir};
use crate::pg::wait_until;
use crate::stores::proxy::Proxy;
use crate::stores::{Kind, Object, Programs, Store, Tablespace};
use crate::timing::{median, ratio, report};
use crate::{Result, cargo, paths, postgres, process, say};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const ROUNDS: usize = 5;
const TABLESPACE: &str = "bench_store";
const PREFIX: &str = "bench";
/// The schemas of the tables.
const LOCAL: &str = "on_disk";
const REMOTE: &str = "in_store";
/// For a setting, or the cache, to be as it was asked to be.
const LIMIT: Duration = Duration::from_secs(60);

/// Nothing happens in the background. All columns of one lineitem fit into the cache of decoded ones.
const SETTINGS: &[(&str, &str)] = &[
    ("autovacuum", "off"),
    ("lake.auto_compact", "off"),
    ("lake.flush_interval", "-1"),
    ("lake.flush_rows", "-1"),
    ("lake.publish_interval", "-1"),
    ("lake.worker_memory", "4GB"),
    ("lake.memory_cache_size", "3GB"),
];

pub struct Figure {
    pub name: &'static str,
    measure: Measure,
}

enum Measure {
    Alone(fn() -> Result<()>),
    WithServer(fn(&mut Remote) -> Result<()>),
}

pub const FIGURES: &[Figure] = &[
    Figure {
        name: "remote.hit",
        measure: Measure::Alone(hit),
    },
    Figure {
        name: "remote.warm",
        measure: Measure::WithServer(scans::warm),
    },
    Figure {
        name: "remote.cold",
        measure: Measure::WithServer(scans::cold),
    },
    Figure {
        name: "remote.latency",
        measure: Measure::WithServer(scans::latency),
    },
    Figure {
        name: "remote.commit",
        measure: Measure::WithServer(commit),
    },
    Figure {
        name: "remote.single_flight",
        measure: Measure::WithServer(flight::single_flight),
    },
];

/// One figure, or all of them.
pub fn command(name: &str) -> Result<()> {
    let mut remote = None;
    let wanted = |figure: &&Figure| name == "remote" || name == figure.name;
    for figure in FIGURES.iter().filter(wanted) {
        say(&format!("    {}", figure.name));
        match figure.measure {
            Measure::Alone(measure) => measure()?,
            Measure::WithServer(measure) => measure(match &mut remote {
                Some(remote) => remote,
                none => none.insert(Remote::start()?),
            })?,
        }
    }
    Ok(())
}

/// A directory that goes with this.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server with lineitem of SF1 on its disk and in a store.
struct Remote {
    bench: Bench,
    proxy: Proxy,
    store: Store,
    /// Last, since the others work in them.
    _scratch: [Scratch; 2],
}

impl Remote {
    fn start() -> Result<Remote> {
        let scratch = [
            Scratch(work_dir("bench-store")?),
            Scratch(work_dir("bench-tablespace")?),
        ];
        let [of_store, of_tablespace] = &scratch;
        let log = paths::target().join("bench-store.log");
        // One that checks no signatures, so that a plain client may read what the server has written.
        let store = Store::start(&Programs::set_up()?, Kind::OpenSeaweedFs, &of_store.0, &log)?;
        let proxy = Proxy::start(store.port(), 1)?;
        let tablespace =
            Tablespace::new(TABLESPACE, &store, store.port(), PREFIX, &of_tablespace.0)?;
        let credentials = tablespace.credentials.display().to_string();
        let ours = [("lake.credentials_file", credentials.as_str())];
        let settings: Vec<(&str, &str)> = SETTINGS.iter().chain(&ours).copied().collect();
        let bench = Bench::start("bench-remote", &settings)?;
        tablespace.create(&bench.cluster)?;
        let remote = Remote {
            bench,
            proxy,
            store,
            _scratch: scratch,
        };
        remote.load()?;
        Ok(remote)
    }

    fn load(&self) -> Result<()> {
        let csv = self.bench.csv()?;
        let table = lineitem()?;
        for (schema, tablespace) in [(LOCAL, "pg_default"), (REMOTE, TABLESPACE)] {
            say(&format!("    loading lineitem into {tablespace}"));
            self.sql(&format!(
                "SET lake.bulk_rows = 0; SET default_tablespace = {tablespace};
                 CREATE SCHEMA {schema}; {} {} ANALYZE {schema}.lineitem;",
                table.create(schema, "iceberg"),
                table.copy(schema, &csv)
            ))?;
        }
        Ok(())
    }

    fn sql(&self, sql: &str) -> Result<String> {
        self.bench.cluster.sql(sql)
    }

    /// Where the server finds the store: its own port, or that of the proxy.
    fn connect_to(&self, port: u16) -> Result<()> {
        self.sql(&format!(
            "ALTER TABLESPACE {TABLESPACE} SET (endpoint = '{}')",
            self.store.endpoint(port)
        ))
        .map(drop)
    }

    /// Whether decoded columns are kept, from now on. The engine says only after a query what it keeps.
    fn keep_decoded(&self, keep: bool) -> Result<()> {
        let how = if keep { "RESET" } else { "SET" };
        let value = if keep { "" } else { " = 0" };
        self.sql(&format!(
            "ALTER SYSTEM {how} lake.memory_cache_size{value}; SELECT pg_reload_conf();"
        ))?;
        wait_until(LIMIT, "lake.memory_cache_size takes effect", || {
            self.sql(&format!("SELECT count(l_orderkey) FROM {LOCAL}.lineitem"))?;
            let kept =
                self.sql("SELECT memory_bytes > 0 FROM lake.stat_workers WHERE kind = 'engine'")?;
            Ok((kept == "t") == keep)
        })
    }

    /// Takes a table's files out of the disk cache. A block that was on its way there when its reader had
    /// it already may come late.
    fn evict(&self, table: &str) -> Result<()> {
        wait_until(LIMIT, "the disk cache is without the table", || {
            let evicted = self.sql(&format!("SELECT lake.cache_evict('{table}')"))?;
            Ok(evicted == "0")
        })
    }

    /// The table's files in the store.
    fn files(&self, table: &str) -> Result<Vec<Object>> {
        let listed = self.sql(&format!(
            "SELECT size, path FROM lake.data_files WHERE \"table\" = '{table}'::regclass"
        ))?;
        let root = self.store.root();
        listed
            .lines()
            .map(|line| {
                let (size, path) = line.split_once('\t').unwrap_or_default();
                match (size.parse(), path.strip_prefix(&root)) {
                    (Ok(size), Some(key)) => Ok(Object {
                        key: key.to_owned(),
                        size,
                    }),
                    _ => Err(format!("not a file in {root}: {line}")),
                }
            })
            .collect()
    }

    /// A query that decodes every column of a table, and does next to nothing with them.
    fn wide(&self, table: &str) -> Result<String> {
        self.sql(&format!(
            "SELECT 'SELECT ' || string_agg(format('count(%I)', attname), ', ' ORDER BY attnum)
             FROM pg_attribute
             WHERE attrelid = '{REMOTE}.{table}'::regclass AND attnum > 0 AND NOT attisdropped"
        ))
        .map(|counts| format!("{counts} FROM {table}"))
    }
}

/// What a hit costs: the cache's own test measures it, and prints the JSON lines.
fn hit() -> Result<()> {
    let pg = postgres::find_or_build(None)?;
    let output = cargo::command(&pg)
        .args(["test", "-q", "-p", "pg_lake_cache", "--test", "cache", "--"])
        .args(["--ignored", "--nocapture", "hit_cost"])
        .limit(Duration::from_secs(1800))
        .progress("cargo test")
        .run()?;
    let mut found = false;
    for line in output.stdout.lines() {
        // The test's name may be before it.
        if let Some(at) = line.find('{') {
            println!("{}", &line[at..]);
            found = true;
        }
    }
    if output.success() && found {
        Ok(())
    } else {
        let said = format!("{}\n{}", output.stdout, output.stderr);
        Err(format!("cargo test:\n{}", process::tail(&said, 30)))
    }
}

/// Commits of single hot rows: no object store is part of them.
fn commit(remote: &mut Remote) -> Result<()> {
    let on_disk = format!("{LOCAL}.hot");
    let in_store = format!("{REMOTE}.hot");
    let method = format!("iceberg TABLESPACE {TABLESPACE}");
    let tables = [
        (on_disk.as_str(), "iceberg"),
        (in_store.as_str(), method.as_str()),
    ];
    let [local, remote] = insert_rates(&remote.bench.cluster, tables, ROUNDS)?;
    // Of latencies, which are the rates' inverses.
    let ratio = ratio(&remote, &local);
    report(
        "remote.commit",
        &[
            ("local_us", 1e6 / median(local)),
            ("remote_us", 1e6 / median(remote)),
            ("ratio", ratio),
        ],
    );
    Ok(())
}
