//! Logical replication into iceberg tables, with a subscriber of heap tables beside it: both have what
//! the publisher has, whatever is hot, cold or on its way. A change that finds no row is left out
//! without an error, so that nothing but the comparison tells.

use super::{must_be, wait_until};
use crate::cluster::{Cluster, DATABASE, answer};
use crate::test::Run;
use crate::{Result, say};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

const PUBLISHER: &str = "publisher";
const TWIN: &str = "twin";

/// The subscribing databases, and their slots.
const SUBSCRIBERS: [(&str, &str); 2] = [(DATABASE, "to_lake"), (TWIN, "to_twin")];

const TABLES: [&str; 3] = ["keyed", "plain", "parted"];

/// The iceberg tables.
const LEAVES: [&str; 4] = ["keyed", "plain", "parted_low", "parted_high"];

/// `plain` has no index anywhere: its rows are found by sequential scans.
const PUBLISHED: &str = "
    CREATE TABLE keyed (id int PRIMARY KEY, n bigint, v text);
    CREATE TABLE plain (a int, b text, c numeric(12,2));
    ALTER TABLE plain REPLICA IDENTITY FULL;
    CREATE TABLE parted (id int PRIMARY KEY, v text);
    INSERT INTO keyed SELECT g, g, 'v' || g FROM generate_series(1, 3000) g;
    INSERT INTO plain SELECT g, CASE WHEN g % 9 > 0 THEN 'b' || g END, g / 100.0 FROM generate_series(1, 3000) g;
    INSERT INTO parted SELECT g, 'p' || g FROM generate_series(1, 2000) g;
    CREATE PUBLICATION pub FOR TABLE keyed, plain, parted;";

/// Columns in another order, and one more.
const SUBSCRIBED: &str = "
    CREATE TABLE keyed (v text, id int PRIMARY KEY, n bigint, at timestamptz DEFAULT '2000-01-01') USING iceberg;
    CREATE TABLE plain (a int, b text, c numeric(12,2)) USING iceberg;
    CREATE TABLE parted (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (MINVALUE) TO (1000) USING iceberg;
    CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (1000) TO (MAXVALUE) USING iceberg;";

/// Of rows that are cold: other values, other keys, another partition, rows that are gone or new.
const CHANGES: &[&str] = &[
    "UPDATE keyed SET n = n + 1, v = v || 'u' WHERE id % 7 = 0",
    "UPDATE keyed SET id = id + 100000 WHERE id < 100000 AND id % 11 = 0",
    "DELETE FROM keyed WHERE id % 13 = 0",
    "INSERT INTO keyed SELECT g, g, NULL FROM generate_series(3001, 3400) g ON CONFLICT DO NOTHING",
    "UPDATE plain SET c = c + 1 WHERE a % 50 = 0",
    "UPDATE plain SET b = NULL WHERE a % 70 = 3",
    "DELETE FROM plain WHERE a % 60 = 1",
    // Equal rows, of which one is changed and one goes.
    "INSERT INTO plain SELECT 7, 'same', 7 FROM generate_series(1, 4)",
    "UPDATE plain SET c = 8 WHERE ctid = (SELECT min(ctid) FROM plain WHERE b = 'same' AND c = 7)",
    "DELETE FROM plain WHERE ctid = (SELECT min(ctid) FROM plain WHERE b = 'same' AND c = 7)",
    "UPDATE parted SET v = v || 'u' WHERE id % 9 = 0",
    "UPDATE parted SET id = id + 5000 WHERE id BETWEEN 1 AND 60 AND id % 2 = 1",
    "DELETE FROM parted WHERE id % 17 = 0",
];

/// One transaction, larger than `logical_decoding_work_mem`, of which parts are rolled back.
const LARGE: &str = "
    BEGIN;
    INSERT INTO keyed SELECT g, g, repeat('x', 50) FROM generate_series({from}, {from} + 2999) g;
    SAVEPOINT a;
    UPDATE keyed SET v = 'never' WHERE id BETWEEN 1 AND 2000;
    DELETE FROM parted;
    ROLLBACK TO a;
    SAVEPOINT b;
    UPDATE keyed SET n = -n WHERE id % 5 = 0;
    DELETE FROM keyed WHERE id BETWEEN {from} AND {from} + 99;
    SAVEPOINT c;
    INSERT INTO plain VALUES (-1, 'never', 0);
    ROLLBACK TO b;
    UPDATE keyed SET n = n + 1 WHERE id % 5 = 1;
    RELEASE b;
    UPDATE plain SET c = c + 2 WHERE a % 90 = 0;
    COMMIT;
    BEGIN;
    INSERT INTO keyed SELECT g, g, repeat('y', 50) FROM generate_series({from} + 3000, {from} + 5999) g;
    DELETE FROM plain WHERE a % 20 = 0;
    ROLLBACK;";

pub fn subscription(run: &mut Run) -> Result<()> {
    let cluster = run.cluster(
        "subscription",
        &[
            ("lake.bulk_rows", "1000"),
            ("lake.flush_rows", "-1"),
            ("lake.flush_interval", "-1"),
            ("lake.publish_interval", "5"),
            ("logical_decoding_work_mem", "64kB"),
            ("max_worker_processes", "40"),
            ("max_logical_replication_workers", "16"),
            ("max_replication_slots", "20"),
            ("max_wal_senders", "20"),
            ("wal_receiver_status_interval", "1"),
        ],
    )?;
    subscribe(&cluster)?;
    compare(&cluster, "the initial copy")?;
    for round in 1..=2 {
        make_cold(&cluster)?;
        compare(&cluster, "a flush")?;
        for change in CHANGES {
            publish(&cluster, change)?;
        }
        compare(&cluster, &format!("changes of cold rows, round {round}"))?;
    }

    make_cold(&cluster)?;
    publish(&cluster, &LARGE.replace("{from}", "200000"))?;
    compare(&cluster, "a streamed transaction")?;
    make_cold(&cluster)?;
    on_subscribers(
        &cluster,
        "ALTER SUBSCRIPTION sub SET (streaming = parallel)",
    )?;
    publish(&cluster, &LARGE.replace("{from}", "300000"))?;
    compare(&cluster, "a transaction that is applied in parallel")?;
    must_be(
        &cluster.sql_in(
            PUBLISHER,
            "SELECT bool_and(stream_txns > 0) FROM pg_stat_replication_slots",
        )?,
        "t",
        "whether transactions were streamed",
    )?;

    missing_rows(&cluster)?;
    origins(&cluster)?;
    maintained_meanwhile(&cluster)?;

    make_cold(&cluster)?;
    publish(&cluster, "TRUNCATE plain, parted")?;
    publish(
        &cluster,
        "INSERT INTO plain SELECT g, 'new', g FROM generate_series(1, 50) g;
         INSERT INTO parted SELECT g, 'new' FROM generate_series(900, 1100) g;
         BEGIN; TRUNCATE keyed; INSERT INTO keyed VALUES (1, 1, 'new'); COMMIT;",
    )?;
    compare(&cluster, "TRUNCATE")?;
    make_cold(&cluster)?;
    for change in CHANGES {
        publish(&cluster, change)?;
    }
    compare(&cluster, "changes after TRUNCATE")?;
    cluster.sql("SELECT lake.sweep()")?;
    compare(&cluster, "a sweep")?;
    no_errors(&cluster)
}

/// A slot is made before its subscription: within one server CREATE SUBSCRIPTION would wait for itself.
fn subscribe(cluster: &Cluster) -> Result<()> {
    cluster.sql_in(
        "postgres",
        &format!("CREATE DATABASE {PUBLISHER}; CREATE DATABASE {TWIN};"),
    )?;
    cluster.sql_in(PUBLISHER, PUBLISHED)?;
    for (database, slot) in SUBSCRIBERS {
        cluster.sql_in(
            PUBLISHER,
            &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"),
        )?;
        let tables = if database == TWIN {
            SUBSCRIBED.replace("USING iceberg", "USING heap")
        } else {
            SUBSCRIBED.to_owned()
        };
        cluster.sql_in(database, &tables)?;
        cluster.sql_in(
            database,
            &format!(
                "CREATE SUBSCRIPTION sub
                     CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={PUBLISHER}'
                     PUBLICATION pub WITH (create_slot = false, slot_name = '{slot}', streaming = on)",
                cluster.port
            ),
        )?;
    }
    for (database, _) in SUBSCRIBERS {
        let ready = "SELECT count(*) FILTER (WHERE srsubstate = 'r') FROM pg_subscription_rel";
        wait_until(LIMIT, &format!("the initial copy of {database}"), || {
            Ok(cluster.sql_in(database, ready)? == "3")
        })?;
    }
    Ok(())
}

fn publish(cluster: &Cluster, sql: &str) -> Result<()> {
    cluster
        .sql_in(PUBLISHER, sql)
        .map(drop)
        .map_err(|error| format!("{error}\nin: {sql}"))
}

fn on_subscribers(cluster: &Cluster, sql: &str) -> Result<()> {
    for (database, _) in SUBSCRIBERS {
        cluster.sql_in(database, sql)?;
    }
    Ok(())
}

fn position(cluster: &Cluster) -> Result<String> {
    cluster.sql_in(PUBLISHER, "SELECT pg_current_wal_insert_lsn()")
}

/// Whether both subscribers have everything up to a position.
fn have(cluster: &Cluster, lsn: &str) -> Result<bool> {
    // It counts once a record behind it is on disk, which nobody writes in an idle server.
    let count = format!(
        "SELECT pg_log_standby_snapshot() IS NOT NULL, (
             SELECT count(*) FROM pg_replication_slots
             WHERE slot_name IN ('to_lake', 'to_twin') AND confirmed_flush_lsn >= '{lsn}')"
    );
    Ok(cluster.sql_in(PUBLISHER, &count)? == "t\t2")
}

/// Until both subscribers have everything that the publisher has committed so far.
fn catch_up(cluster: &Cluster) -> Result<()> {
    let lsn = position(cluster)?;
    let result = wait_until(LIMIT, "the subscribers", || have(cluster, &lsn));
    match (result, no_errors(cluster)) {
        (Err(error), Err(why)) => Err(format!("{error}; {why}")),
        (result, _) => result,
    }
}

/// An error of a worker is no end: it is started again, and tries again.
fn no_errors(cluster: &Cluster) -> Result<()> {
    for (database, _) in SUBSCRIBERS {
        let errors = cluster.sql_in(
            database,
            "SELECT s.apply_error_count, s.sync_error_count FROM pg_stat_subscription_stats s
             JOIN pg_subscription p ON p.oid = s.subid
             WHERE p.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )?;
        must_be(&errors, "0\t0", &format!("errors of workers in {database}"))?;
    }
    Ok(())
}

fn compare(cluster: &Cluster, after: &str) -> Result<()> {
    catch_up(cluster).map_err(|error| format!("after {after}: {error}"))?;
    for table in TABLES {
        let columns = match table {
            "keyed" => "id, n, v",
            "plain" => "a, b, c",
            _ => "id, v",
        };
        let rows = |database: &str, settings: &str| {
            cluster.sql_in(
                database,
                &format!(
                    "{settings} SELECT r FROM (SELECT ({columns})::text AS r FROM {table}) s
                     ORDER BY r COLLATE \"C\""
                ),
            )
        };
        let expected = rows(PUBLISHER, "")?;
        for (database, settings) in [
            (TWIN, ""),
            (DATABASE, "SET lake.engine = on;"),
            (DATABASE, "SET lake.engine = off;"),
        ] {
            let found = rows(database, settings)?;
            if found != expected {
                return Err(format!(
                    "after {after}, {table} in {database} {settings} has other rows than the publisher: {}",
                    difference(&expected, &found)
                ));
            }
        }
    }
    Ok(())
}

/// The first row of two sorted lists that only one has.
fn difference(expected: &str, found: &str) -> String {
    let counts = format!(
        "{} and {} rows",
        expected.lines().count(),
        found.lines().count()
    );
    let mut pairs = expected.lines().zip(found.lines());
    match pairs.find(|(expected, found)| expected != found) {
        Some((expected, found)) => format!("{counts}, {expected} and {found}"),
        None => format!("{counts}, equal as far as both go"),
    }
}

/// Flushes, merges and vacuums until no row is hot.
fn make_cold(cluster: &Cluster) -> Result<()> {
    wait_until(LIMIT, "all rows are cold", || {
        let mut hot = 0;
        for leaf in LEAVES {
            cluster.sql(&format!(
                "SELECT lake.flush('{leaf}'); SELECT lake.merge('{leaf}'); VACUUM {leaf};"
            ))?;
            let count = cluster.sql(&format!(
                "SELECT count(*) FROM {leaf} WHERE ctid < '(2147483648,0)'"
            ))?;
            hot += count
                .parse::<u64>()
                .map_err(|_| format!("a count is {count:?}"))?;
        }
        Ok(hot == 0)
    })
}

/// Changes of rows that a subscriber doesn't have are left out, as with heap.
fn missing_rows(cluster: &Cluster) -> Result<()> {
    make_cold(cluster)?;
    on_subscribers(
        cluster,
        "DELETE FROM keyed WHERE id IN (2, 4); DELETE FROM plain WHERE a IN (2, 4); DELETE FROM parted WHERE id = 1200;",
    )?;
    publish(
        cluster,
        "UPDATE keyed SET n = 0 WHERE id = 2;
         UPDATE plain SET c = 0 WHERE a = 2;
         UPDATE parted SET v = 'gone' WHERE id = 1200;
         DELETE FROM keyed WHERE id IN (2, 4);
         DELETE FROM plain WHERE a IN (2, 4);
         DELETE FROM parted WHERE id = 1200;",
    )?;
    compare(cluster, "changes of missing rows")
}

/// What came to the publisher from elsewhere is left out with `origin = none`.
fn origins(cluster: &Cluster) -> Result<()> {
    on_subscribers(cluster, "ALTER SUBSCRIPTION sub SET (origin = none)")?;
    // The apply workers start again with the new option, each at its own time.
    catch_up(cluster)?;
    publish(
        cluster,
        "SELECT pg_replication_origin_create('elsewhere');
         SELECT pg_replication_origin_session_setup('elsewhere');
         INSERT INTO keyed VALUES (500000, 0, 'from elsewhere');
         SELECT pg_replication_origin_session_reset();
         INSERT INTO keyed VALUES (500001, 1, 'from here');",
    )?;
    catch_up(cluster)?;
    for (database, _) in SUBSCRIBERS {
        let rows = "SELECT id FROM keyed WHERE id >= 500000";
        must_be(
            &cluster.sql_in(database, rows)?,
            "500001",
            &format!("rows by origin in {database}"),
        )?;
    }
    publish(cluster, "DELETE FROM keyed WHERE id = 500000")?;
    compare(cluster, "changes with an origin")
}

/// Maintenance that never stops, while rows are changed that it moves.
fn maintained_meanwhile(cluster: &Cluster) -> Result<()> {
    let mut script = String::new();
    for i in 0..400 {
        let (row, other) = (1 + i * 37 % 2900, 1 + i * 61 % 900);
        script.push_str(&format!(
            "UPDATE keyed SET n = n + 1 WHERE id BETWEEN {row} AND {row} + 5;\n\
             UPDATE plain SET c = c + 1 WHERE a = {other};\n\
             UPDATE parted SET v = v || '.' WHERE id = {row};\n\
             INSERT INTO plain VALUES ({other}, 'more', {i});\n"
        ));
    }
    let writer = cluster.psql(PUBLISHER).stdin(script).start()?;
    let waiter = std::thread::spawn(move || answer(writer.wait()?));
    let mut rounds = 0;
    let mut end = None;
    // Until the last change has arrived.
    wait_until(LIMIT, "changes under maintenance", || {
        for leaf in LEAVES {
            cluster.sql(&format!(
                "SELECT lake.flush('{leaf}'); SELECT lake.merge('{leaf}');"
            ))?;
        }
        rounds += 1;
        if !waiter.is_finished() {
            return Ok(false);
        }
        if end.is_none() {
            end = Some(position(cluster)?);
        }
        end.as_ref().map_or(Ok(false), |end| have(cluster, end))
    })?;
    waiter.join().map_err(|_| "the waiting thread panicked")??;
    say(&format!("      {rounds} rounds of maintenance"));
    compare(cluster, "changes under maintenance")
}
