//! Copies of a database: by `pg_dump` into another one, and by `pg_basebackup`.

use super::must_be;
use crate::Result;
use crate::cluster::{Cluster, DATABASE, SUPERUSER, answer};
use crate::process::Cmd;
use crate::test::Run;

/// Nothing becomes cold by itself: a base backup is complete only then.
const SETTINGS: &[(&str, &str)] = &[
    ("lake.flush_rows", "-1"),
    ("lake.flush_interval", "-1"),
    ("lake.publish_interval", "-1"),
];

/// Each option, with rows that are hot, cold, changed and gone.
const TABLES: &str = "
    CREATE SCHEMA other;
    SET lake.bulk_rows = 0;
    CREATE TABLE plain (id int, t text) USING iceberg;
    INSERT INTO plain SELECT g, 'row ' || g FROM generate_series(1, 30000) g;
    CREATE TABLE other.optioned (id int, t text, n numeric(12,2) DEFAULT 0)
        USING iceberg WITH (format_version = 3, compression = gzip, target_file_size = '1MB',
                            bloom_filter_columns = 'id, n', fillfactor = 70, toast.autovacuum_enabled = off);
    INSERT INTO other.optioned SELECT g, md5(g::text) || md5((-g)::text), g / 100.0
        FROM generate_series(1, 100000) g;
    CREATE TABLE parted (id int, t text) PARTITION BY RANGE (id);
    CREATE TABLE part_lake PARTITION OF parted FOR VALUES FROM (0) TO (1000)
        USING iceberg WITH (compression = lz4);
    CREATE TABLE part_heap PARTITION OF parted FOR VALUES FROM (1000) TO (2000)
        WITH (fillfactor = 80);
    INSERT INTO parted SELECT g, 'p' || g FROM generate_series(0, 1999) g;
    CREATE UNLOGGED TABLE hot_only (id int, t text) USING iceberg WITH (format_version = 3);
    INSERT INTO hot_only VALUES (1, 'a');
    CREATE TABLE nothing (id int, t text) USING iceberg WITH (compression = snappy);
    SET lake.bulk_rows = -1;
    DELETE FROM plain WHERE id % 7 = 0;
    UPDATE other.optioned SET t = 'changed' WHERE id % 1000 = 3;
    INSERT INTO plain SELECT g, 'hot ' || g FROM generate_series(40001, 40100) g;
    INSERT INTO other.optioned VALUES (200000, NULL, NULL);
    SET lake.bulk_rows = 0;
    CREATE MATERIALIZED VIEW seen USING iceberg WITH (compression = none)
        AS SELECT id, t FROM plain WHERE id % 2 = 0;";

/// A number and a digest of the rows of each table.
const ROWS: &str = "
    SELECT 'plain', count(*), md5(string_agg(x::text, ',' ORDER BY id)) FROM plain x;
    SELECT 'optioned', count(*), md5(string_agg(x::text, ',' ORDER BY id)) FROM other.optioned x;
    SELECT 'parted', count(*), md5(string_agg(x::text, ',' ORDER BY id)) FROM parted x;
    SELECT 'nothing', count(*) FROM nothing x;
    SELECT 'seen', count(*), md5(string_agg(x::text, ',' ORDER BY id)) FROM seen x;";

const OPTIONS: &str = "
    SELECT c.oid::regclass, a.amname,
           (SELECT string_agg(o, ' ' ORDER BY o) FROM unnest(c.reloptions) o),
           (SELECT string_agg(o, ' ' ORDER BY o) FROM pg_class t, unnest(t.reloptions) o
            WHERE t.oid = c.reltoastrelid),
           (SELECT t.format_version FROM lake.tables t WHERE t.\"table\" = c.oid::regclass)
    FROM pg_class c JOIN pg_am a ON a.oid = c.relam
    WHERE c.relnamespace IN ('public'::regnamespace, 'other'::regnamespace) AND c.relkind IN ('r', 'm')
    ORDER BY c.oid::regclass::text;";

const OPTIONED: &str = "other.optioned\ticeberg\tbloom_filter_columns=id, n compression=gzip \
                        fillfactor=70 format_version=3 target_file_size=1MB\tautovacuum_enabled=off\t3";

/// A dump has everything: a restored database is equal in rows, options and in what it is dumped as.
pub fn dump_and_restore(run: &mut Run) -> Result<()> {
    let cluster = run.cluster("dump_and_restore", SETTINGS)?;
    cluster.sql(TABLES)?;
    let options = cluster.sql(OPTIONS)?;
    if !options.lines().any(|line| line == OPTIONED) {
        return Err(format!("no line {OPTIONED:?} in:\n{options}"));
    }
    let rows = cluster.sql(ROWS)?;
    let dump = pg_dump(&cluster, DATABASE).ok()?;
    cluster.sql_in("postgres", "CREATE DATABASE restored")?;
    answer(cluster.psql("restored").stdin(dump).run()?).map_err(|e| format!("the restore: {e}"))?;
    must_be(&cluster.sql_in("restored", ROWS)?, &rows, "restored rows")?;
    must_be(
        &cluster.sql_in("restored", OPTIONS)?,
        &options,
        "restored options",
    )?;
    must_be(
        &definitions(&cluster, "restored")?,
        &definitions(&cluster, DATABASE)?,
        "the dump of the restored definitions",
    )?;
    // The restored tables are tables of their own.
    cluster.sql_in(
        "restored",
        "DELETE FROM plain; DELETE FROM other.optioned WHERE id > 10; SELECT lake.sweep();",
    )?;
    must_be(&cluster.sql(ROWS)?, &rows, "the original's rows")
}

/// A base backup of a server that writes no cold rows has all files, and starts.
pub fn base_backup(run: &mut Run) -> Result<()> {
    let cluster = run.cluster("base_backup", SETTINGS)?;
    cluster.sql(TABLES)?;
    let rows = cluster.sql(ROWS)?;
    let options = cluster.sql(OPTIONS)?;
    let dir = run.work_dir("base_backup_copy")?;
    let log = run.logs.join("base_backup_copy.server.log");
    let mut copy = Cluster::at(&cluster.pg, run.user.as_ref(), &dir).into_throwaway(log);
    connected(&cluster, "pg_basebackup")
        .args(["--checkpoint=fast", "--wal-method=stream", "-D"])
        .arg(copy.data())
        .ok()?;
    copy.start()?;
    must_be(&copy.sql(ROWS)?, &rows, "rows of the copy")?;
    must_be(&copy.sql(OPTIONS)?, &options, "options of the copy")?;
    copy.sql(
        "SET lake.bulk_rows = 0;
         INSERT INTO plain SELECT g, 'new' FROM generate_series(50001, 60000) g;
         DELETE FROM other.optioned;
         SELECT lake.sweep();",
    )?;
    must_be(
        &copy.sql("SELECT count(*) FROM plain WHERE id > 50000")?,
        "10000",
        "new rows of the copy",
    )?;
    must_be(&cluster.sql(ROWS)?, &rows, "the original's rows")
}

/// A client program of Postgres', with the options that name the server.
fn connected(cluster: &Cluster, program: &str) -> Cmd {
    cluster
        .tool(program)
        .args(["-h", "127.0.0.1", "-p"])
        .arg(cluster.port.to_string())
        .args(["-U", SUPERUSER])
}

fn pg_dump(cluster: &Cluster, database: &str) -> Cmd {
    connected(cluster, "pg_dump").args(["-d", database])
}

/// What makes the tables, without the random key that `pg_dump` gives to psql.
fn definitions(cluster: &Cluster, database: &str) -> Result<String> {
    let text = pg_dump(cluster, database).arg("--schema-only").ok()?;
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect();
    Ok(lines.join("\n"))
}
