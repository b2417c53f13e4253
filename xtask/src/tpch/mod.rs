//! TPC-H: the data, the tables, and the sums that every reader must agree on.
//!
//! * `queries`: the 22 queries, and what their ORDER BY promises
//! * `twins`: the tables with their keys, in heap and in iceberg

pub mod queries;
pub mod twins;

use crate::cluster::Cluster;
use crate::os;
use crate::python::Python;
use crate::{Context, Result, paths, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One of the eight tables.
pub struct Table {
    pub name: &'static str,
    columns: &'static str,
    /// The columns of its primary key.
    key: &'static str,
    /// Its numeric columns, which are summed.
    pub numeric: &'static [&'static str],
}

/// As clause 1.4 of the TPC-H specification has them, without the constraints.
pub const TABLES: &[Table] = &[
    Table {
        name: "region",
        columns: "r_regionkey integer NOT NULL, r_name char(25) NOT NULL, r_comment varchar(152)",
        key: "r_regionkey",
        numeric: &["r_regionkey"],
    },
    Table {
        name: "nation",
        columns: "n_nationkey integer NOT NULL, n_name char(25) NOT NULL, \
                  n_regionkey integer NOT NULL, n_comment varchar(152)",
        key: "n_nationkey",
        numeric: &["n_nationkey", "n_regionkey"],
    },
    Table {
        name: "supplier",
        columns: "s_suppkey integer NOT NULL, s_name char(25) NOT NULL, \
                  s_address varchar(40) NOT NULL, s_nationkey integer NOT NULL, \
                  s_phone char(15) NOT NULL, s_acctbal numeric(15,2) NOT NULL, \
                  s_comment varchar(101) NOT NULL",
        key: "s_suppkey",
        numeric: &["s_suppkey", "s_nationkey", "s_acctbal"],
    },
    Table {
        name: "customer",
        columns: "c_custkey integer NOT NULL, c_name varchar(25) NOT NULL, \
                  c_address varchar(40) NOT NULL, c_nationkey integer NOT NULL, \
                  c_phone char(15) NOT NULL, c_acctbal numeric(15,2) NOT NULL, \
                  c_mktsegment char(10) NOT NULL, c_comment varchar(117) NOT NULL",
        key: "c_custkey",
        numeric: &["c_custkey", "c_nationkey", "c_acctbal"],
    },
    Table {
        name: "part",
        columns: "p_partkey integer NOT NULL, p_name varchar(55) NOT NULL, \
                  p_mfgr char(25) NOT NULL, p_brand char(10) NOT NULL, \
                  p_type varchar(25) NOT NULL, p_size integer NOT NULL, \
                  p_container char(10) NOT NULL, p_retailprice numeric(15,2) NOT NULL, \
                  p_comment varchar(23) NOT NULL",
        key: "p_partkey",
        numeric: &["p_partkey", "p_size", "p_retailprice"],
    },
    Table {
        name: "partsupp",
        columns: "ps_partkey integer NOT NULL, ps_suppkey integer NOT NULL, \
                  ps_availqty integer NOT NULL, ps_supplycost numeric(15,2) NOT NULL, \
                  ps_comment varchar(199) NOT NULL",
        key: "ps_partkey, ps_suppkey",
        numeric: &["ps_partkey", "ps_suppkey", "ps_availqty", "ps_supplycost"],
    },
    Table {
        name: "orders",
        columns: "o_orderkey bigint NOT NULL, o_custkey integer NOT NULL, \
                  o_orderstatus char(1) NOT NULL, o_totalprice numeric(15,2) NOT NULL, \
                  o_orderdate date NOT NULL, o_orderpriority char(15) NOT NULL, \
                  o_clerk char(15) NOT NULL, o_shippriority integer NOT NULL, \
                  o_comment varchar(79) NOT NULL",
        key: "o_orderkey",
        numeric: &["o_orderkey", "o_custkey", "o_totalprice", "o_shippriority"],
    },
    Table {
        name: "lineitem",
        columns: "l_orderkey bigint NOT NULL, l_partkey integer NOT NULL, \
                  l_suppkey integer NOT NULL, l_linenumber integer NOT NULL, \
                  l_quantity numeric(15,2) NOT NULL, l_extendedprice numeric(15,2) NOT NULL, \
                  l_discount numeric(15,2) NOT NULL, l_tax numeric(15,2) NOT NULL, \
                  l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL, \
                  l_shipdate date NOT NULL, l_commitdate date NOT NULL, \
                  l_receiptdate date NOT NULL, l_shipinstruct char(25) NOT NULL, \
                  l_shipmode char(10) NOT NULL, l_comment varchar(44) NOT NULL",
        key: "l_orderkey, l_linenumber",
        numeric: &[
            "l_orderkey",
            "l_partkey",
            "l_suppkey",
            "l_linenumber",
            "l_quantity",
            "l_extendedprice",
            "l_discount",
            "l_tax",
        ],
    },
];

impl Table {
    /// CREATE TABLE in a schema, by an access method.
    pub fn create(&self, schema: &str, method: &str) -> String {
        format!(
            "CREATE TABLE {schema}.{} ({}) USING {method};",
            self.name, self.columns
        )
    }

    pub fn add_key(&self, schema: &str) -> String {
        format!(
            "ALTER TABLE {schema}.{} ADD PRIMARY KEY ({});",
            self.name, self.key
        )
    }

    /// The columns of type `char(n)`, and n.
    pub fn padded(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.columns.split(", ").filter_map(|column| {
            let (name, rest) = column.trim().split_once(' ')?;
            let (width, _) = rest.strip_prefix("char(")?.split_once(')')?;
            Some((name, width.parse().ok()?))
        })
    }

    pub fn copy(&self, schema: &str, csv: &Path) -> String {
        format!(
            "COPY {schema}.{} FROM '{}' WITH (FORMAT csv, HEADER);",
            self.name,
            csv.join(format!("{}.csv", self.name)).display()
        )
    }

    /// The row count and the numeric columns' sums, in one row.
    pub fn sums(&self, schema: &str) -> String {
        let sums: Vec<String> = self.numeric.iter().map(|c| format!("sum({c})")).collect();
        format!(
            "SELECT count(*), {} FROM {schema}.{};",
            sums.join(", "),
            self.name
        )
    }
}

/// The names of Q1 and Q6, and their text on the tables of the search path.
pub fn q1_q6() -> Result<Vec<(&'static str, String)>> {
    let dir = paths::repo().join("bench").join("queries");
    ["q1", "q6"]
        .into_iter()
        .map(|name| -> Result<(&'static str, String)> {
            let file = dir.join(format!("{name}.sql"));
            let text = fs::read_to_string(&file).context(file.display())?;
            Ok((name, text))
        })
        .collect()
}

/// The directory with the eight CSV files of a scale, generated if need be.
pub fn csv(python: &Python, scale: &str) -> Result<PathBuf> {
    match scale.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => {}
        _ => return Err(format!("scale {scale:?} is not a positive number")),
    }
    let data = paths::state().join("data");
    let dir = data.join(format!("tpch-{scale}"));
    if dir.is_dir() {
        return Ok(dir);
    }
    say(&format!(
        "generating TPC-H at scale {scale} in {}",
        dir.display()
    ));
    let part = data.join(format!("tpch-{scale}.part-{}", std::process::id()));
    let _ = fs::remove_dir_all(&part);
    fs::create_dir_all(&part).context(part.display())?;
    python
        .program("tpchgen-cli")
        .args(["csv", "-s", scale, "--output-dir"])
        .arg(&part)
        .limit(Duration::from_secs(3600))
        .progress("tpchgen-cli")
        .ok()?;
    match fs::rename(&part, &dir) {
        Ok(()) => {}
        // Somebody else was faster.
        Err(_) if dir.is_dir() => {
            let _ = fs::remove_dir_all(&part);
        }
        Err(error) => return Err(format!("{}: {error}", dir.display())),
    }
    os::give(&dir, os::server_user()?.as_ref())?;
    Ok(dir)
}

/// A line per table: name, row count, sums. By Postgres, with some settings before.
pub fn sums(cluster: &Cluster, schema: &str, settings: &str) -> Result<Vec<String>> {
    let mut script = String::from(settings);
    script.push('\n');
    for table in TABLES {
        script.push_str(&table.sums(schema));
        script.push('\n');
    }
    let rows = cluster.sql(&script)?;
    let rows: Vec<&str> = rows.lines().collect();
    if rows.len() != TABLES.len() {
        return Err(format!("{} rows for {} tables", rows.len(), TABLES.len()));
    }
    Ok(TABLES
        .iter()
        .zip(rows)
        .map(|(table, row)| format!("{}\t{row}", table.name))
        .collect())
}

/// Publish the tables of a schema; where each one's metadata is.
pub fn publish(cluster: &Cluster, schema: &str) -> Result<Vec<String>> {
    TABLES
        .iter()
        .map(|table| cluster.sql(&format!("SELECT lake.publish('{schema}.{}')", table.name)))
        .collect()
}

/// How an outside reader finds the published tables.
pub const READERS: &[&str] = &["duckdb", "pyiceberg-file", "pyiceberg-catalog"];

/// The same lines as `sums`, by an outside reader of the published tables.
pub fn outside_sums(
    python: &Python,
    cluster: &Cluster,
    reader: &str,
    schema: &str,
    metadata: &[String],
) -> Result<Vec<String>> {
    let mut wanted = String::new();
    for (table, location) in TABLES.iter().zip(metadata) {
        wanted.push_str(&format!(
            "{}\t{location}\t{}\n",
            table.name,
            table.numeric.join(",")
        ));
    }
    let text = python
        .script("sums.py", cluster)
        .args([reader, schema])
        .stdin(wanted)
        .ok()?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// What differs between two answers; empty if nothing does.
pub fn differences(expected: &[String], found: &[String]) -> Vec<String> {
    let mut different = Vec::new();
    for (at, line) in expected.iter().enumerate() {
        match found.get(at) {
            Some(other) if other == line => {}
            Some(other) => different.push(format!("expected {line}\n   found {other}")),
            None => different.push(format!("expected {line}\n   found nothing")),
        }
    }
    different
}
