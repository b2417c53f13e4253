//! What outside readers make of published tables, value by value.
//!
//! The sums of TPC-H are `crate::pg`'s; here it is kinds of tables and kinds of values.

use super::{Run, Tally, layouts};
use crate::Result;
use crate::cluster::Cluster;
use crate::tpch::READERS;

/// Tables to be read whole: name, what creates it. All are in the schema `t`.
const TABLES: &[(&str, &str)] = &[
    (
        "basic",
        "CREATE TABLE t.basic (id int, b bool, i2 smallint, i8 bigint, f4 real, f8 float8,
           n numeric(20,4), s text, v varchar(20), c char(5), by bytea, d date, ti time,
           ts timestamp, tz timestamptz, u uuid) USING iceberg;
         INSERT INTO t.basic VALUES
           (1, true, 7, 1 << 40, 1.5, -0.25, 12345.6789, 'äöü', 'v', 'c', '\\x00ff', '2024-02-29',
            '12:34:56.789', '2024-02-29 12:34:56.789012', '2024-02-29 12:34:56+02',
            '6c2fa1e2-6f0c-4d3e-9d8f-0123456789ab'),
           (2, false, -32768, -9223372036854775808, 0, 1e300, -0.0001, '', '', '', '', '1969-12-31',
            '00:00', '1960-01-01', '1960-01-01 00:00+00', '00000000-0000-0000-0000-000000000000'),
           (3, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
            null);",
    ),
    (
        "mixed",
        "CREATE TABLE t.mixed (id int, s text, n numeric(15,2)) USING iceberg;
         INSERT INTO t.mixed SELECT g, 'row ' || g, g / 100.0 FROM generate_series(1, 50000) g;
         SELECT lake.flush('t.mixed');
         INSERT INTO t.mixed VALUES (50001, 'hot', 1.25), (50002, null, null);",
    ),
    (
        "nothing",
        "CREATE TABLE t.nothing (id int, s text) USING iceberg;",
    ),
    (
        "arrays",
        "CREATE TABLE t.arrays (id int, a int[], s text[]) USING iceberg;
         INSERT INTO t.arrays VALUES (1, '{1,2,null}', '{}'), (2, null, '{a,\"b c\"}');
         SELECT lake.flush('t.arrays');",
    ),
    (
        "third",
        "CREATE TABLE t.third (id int, s text) USING iceberg WITH (format_version = 3);
         INSERT INTO t.third SELECT g, 'row ' || g FROM generate_series(1, 1000) g;
         SELECT lake.flush('t.third');
         INSERT INTO t.third VALUES (1001, 'hot');",
    ),
    (
        "codecs",
        "CREATE TABLE t.codecs (id int, s text) USING iceberg WITH (compression = lz4);
         SET lake.bulk_rows = 0;
         INSERT INTO t.codecs SELECT g, 'row ' || g FROM generate_series(1, 10000) g;
         ALTER TABLE t.codecs SET (compression = gzip);
         INSERT INTO t.codecs SELECT g, 'row ' || g FROM generate_series(10001, 20000) g;
         ALTER TABLE t.codecs SET (compression = snappy);
         INSERT INTO t.codecs SELECT g, 'row ' || g FROM generate_series(20001, 30000) g;
         ALTER TABLE t.codecs SET (compression = none, format_version = 3);
         INSERT INTO t.codecs SELECT g, 'row ' || g FROM generate_series(30001, 40000) g;",
    ),
    (
        "deleted",
        "CREATE TABLE t.deleted (id int, s text) USING iceberg;
         SET lake.bulk_rows = 0;
         INSERT INTO t.deleted SELECT g, 'row ' || g FROM generate_series(1, 20000) g;
         INSERT INTO t.deleted SELECT g, 'row ' || g FROM generate_series(20001, 30000) g;
         DELETE FROM t.deleted WHERE id % 3 = 0;
         SELECT lake.publish('t.deleted');
         DELETE FROM t.deleted WHERE id BETWEEN 100 AND 5000;
         UPDATE t.deleted SET s = 'changed' WHERE id % 1000 = 1;
         SELECT lake.publish('t.deleted');
         DELETE FROM t.deleted WHERE id > 20000;
         SELECT lake.merge('t.deleted');
         UPDATE t.deleted SET s = null WHERE id % 1000 = 2;",
    ),
    (
        "vectors",
        "CREATE TABLE t.vectors (id int, s text) USING iceberg WITH (format_version = 3);
         SET lake.bulk_rows = 0;
         INSERT INTO t.vectors SELECT g, 'row ' || g FROM generate_series(1, 20000) g;
         INSERT INTO t.vectors SELECT g, 'row ' || g FROM generate_series(20001, 30000) g;
         DELETE FROM t.vectors WHERE id % 3 = 0;
         SELECT lake.publish('t.vectors');
         DELETE FROM t.vectors WHERE id BETWEEN 100 AND 5000;
         UPDATE t.vectors SET s = 'changed' WHERE id % 1000 = 1;
         SELECT lake.publish('t.vectors');
         DELETE FROM t.vectors WHERE id > 20000;
         SELECT lake.merge('t.vectors');
         UPDATE t.vectors SET s = null WHERE id % 1000 = 2;",
    ),
];

pub fn suite(run: &mut Run) -> Result<Tally> {
    let mut tally = Tally::default();
    let cluster = run.cluster("readers-server", &[])?;
    cluster.sql("CREATE SCHEMA t")?;
    run.python()?;
    for (name, script) in TABLES {
        let made = cluster
            .sql(script)
            .and_then(|_| cluster.sql(&format!("SELECT lake.publish('t.{name}')")));
        let location = match made {
            Ok(location) => location,
            Err(error) => {
                tally.check(&format!("{name}: create and publish"), Err(error));
                continue;
            }
        };
        read_by_all(run, &mut tally, &cluster, name, &location)?;
    }
    layouts::suite(run, &mut tally, &cluster)?;
    Ok(tally)
}

/// Compares what each reader finds in a published table with what Postgres has.
pub fn read_by_all(
    run: &mut Run,
    tally: &mut Tally,
    cluster: &Cluster,
    name: &str,
    location: &str,
) -> Result<()> {
    let limit = run.limit(3);
    for reader in READERS {
        let result = run.python()?.script("rows.py", cluster).limit(limit);
        let result = result.args([*reader, "t", name, location]).ok();
        tally.check(&format!("{name}, read by {reader}"), result.map(drop));
    }
    Ok(())
}
