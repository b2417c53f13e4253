//! Everything that SQL does with tables in an object store, in each kind of store: loads, changes,
//! maintenance, publication, moves to and from local disk, a restart, and no object left in the end.

use super::rig::{BULK, PREFIX, Rig, TABLESPACE, load, rows, transaction};
use super::session::{Outcome, attempt};
use super::settled::{Metadata, STRANGER, no_uploads, read_by};
use super::targets::Target;
use crate::cluster::DATABASE;
use crate::os;
use crate::pg::tablespace::drop_tablespace;
use crate::pg::{must_be, must_fail, same_server, started_at, wait_until};
use crate::python::Python;
use crate::stores::proxy::{Action, Proxy, Rule};
use crate::stores::{self, Kind, Store};
use crate::test::Run;
use crate::tpch::READERS;
use crate::{Context, Result};
use std::time::Duration;

/// Enough for files of several uploaded parts.
const LOADED: u64 = 300_000;
const COPIED: u64 = 20_000;
const ALL: u64 = LOADED + COPIED;

pub fn seaweedfs(run: &mut Run) -> Result<()> {
    with_store(run, "seaweedfs", Kind::SeaweedFs)
}

pub fn ministack(run: &mut Run) -> Result<()> {
    with_store(run, "ministack", Kind::MiniStack)
}

pub fn azurite(run: &mut Run) -> Result<()> {
    with_store(run, "azurite", Kind::Azurite)
}

pub fn fake_gcs(run: &mut Run) -> Result<()> {
    with_store(run, "fake_gcs", Kind::FakeGcs)
}

fn with_store(run: &mut Run, name: &str, kind: Kind) -> Result<()> {
    let store = stores::for_test(run, name, kind)?;
    let rig = Rig::start(run, name, &store, store.port(), &[])?;
    must_be(&rig.notices, "", "what CREATE TABLESPACE says")?;
    everything(run, rig, &store)
}

/// A store that ignores conditions: it is said so, and all goes well.
pub fn unconditional(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "unconditional", Kind::OpenSeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    proxy.set(vec![Rule::new(Action::StripConditional)]);
    let rig = Rig::start(run, "unconditional", &store, proxy.port(), &[])?;
    if !rig.notices.contains("WARNING:") {
        return Err(format!("no warning, but {:?}", rig.notices));
    }
    everything(run, rig, &store)
}

/// The main thing, once.
pub fn smoke(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "store_smoke", Kind::SeaweedFs)?;
    let rig = Rig::start(run, "store_smoke", &store, store.port(), &[])?;
    rig.change(&[&load(1, 20_000)])?;
    rig.change(&["UPDATE {} SET n = n + 1 WHERE id % 100 = 1"])?;
    rig.same("after an update")?;
    rolled_back(&rig)?;
    let location = rig.sql("SELECT lake.publish('t')")?;
    let python = run.python()?;
    for reader in READERS {
        read_by(reader, python, &rig.cluster, &store, &location)?;
    }
    rig.settled(&store, Metadata::Read(python))?;
    rig.evict()?;
    rig.same("after everything was fetched again")?;
    gone(&rig, &store)
}

/// What DROP DATABASE leaves in the store is told.
pub fn dropped_database(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "dropped_database", Kind::SeaweedFs)?;
    let rig = Rig::start(run, "dropped_database", &store, store.port(), &[])?;
    let cluster = &rig.cluster;
    cluster.create_database("short_lived")?;
    let made = format!(
        "{BULK}CREATE TABLE g (id, amount, note) USING iceberg TABLESPACE {TABLESPACE} AS {};",
        rows(1, 1000)
    );
    cluster.sql_in("short_lived", &made)?;
    let incarnation = cluster.sql_in("short_lived", "SELECT incarnation FROM lake.control")?;
    wait_until(Duration::from_secs(60), "a maintainer", || {
        let there = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle'
                     AND backend_type = 'lake maintainer' AND datname = 'short_lived'";
        Ok(rig.sql(there)? == "1")
    })?;
    let command = cluster.psql(DATABASE).stdin("DROP DATABASE short_lived;");
    let dropped = command.run()?;
    let place = format!("/{PREFIX}/{incarnation}\"");
    if dropped.success() && dropped.stderr.contains(&place) {
        Ok(())
    } else {
        Err(format!("no word of {place}: {}", dropped.stderr))
    }
}

/// The place of a tablespace's objects doesn't change while another database may have some there, whose catalog can't be
/// read: tables that it has dropped are seen by what they leave.
pub fn other_database(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "other_database", Kind::SeaweedFs)?;
    let rig = Rig::start(run, "other_database", &store, store.port(), &[])?;
    let cluster = &rig.cluster;
    cluster.create_database("other")?;
    // What was published stays for its readers, whoever sweeps.
    let made = format!(
        "{BULK}CREATE TABLE g (id, amount, note) USING iceberg TABLESPACE {TABLESPACE} AS {};
         SELECT lake.publish('g'); DROP TABLE g;",
        rows(1, 1000)
    );
    cluster.sql_in("other", &made)?;
    rig.sql("DROP TABLE t")?;
    let limit = Duration::from_secs(60);
    wait_until(limit, "own objects are gone", || {
        rig.sql("CHECKPOINT; SELECT lake.sweep('0');")?;
        let left =
            "SELECT (SELECT count(*) FROM lake.garbage) + (SELECT count(*) FROM lake.intent)";
        Ok(rig.sql(left)? == "0")
    })?;
    let elsewhere = format!("ALTER TABLESPACE {TABLESPACE} SET (prefix = 'elsewhere')");
    must_fail(
        cluster,
        &elsewhere,
        &["database \"other\" may have objects"],
    )?;
    let drop = format!("DROP TABLESPACE {TABLESPACE}");
    must_fail(cluster, &drop, &["is not empty"])?;
    wait_until(limit, "the other database has nothing left", || {
        cluster.sql_in("other", "CHECKPOINT; SELECT lake.sweep('0');")?;
        let left =
            "SELECT (SELECT count(*) FROM lake.garbage) + (SELECT count(*) FROM lake.intent)";
        Ok(cluster.sql_in("other", left)? == "0")
    })?;
    cluster.sql_in("other", "CHECKPOINT; SELECT lake.sweep('0');")?;
    rig.sql(&elsewhere)?;
    drop_tablespace(cluster, TABLESPACE)
}

/// Loads that a sweep finds rolled back, all at once.
const ROLLED_BACK: usize = 20;

/// However many loads have left something in a table's directory, a sweep lists it once.
pub fn listed_once(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "listed_once", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    let rig = Rig::start(run, "listed_once", &store, proxy.port(), &[])?;
    rig.change(&[&load(1, 1000)])?;
    let again = load(1001, 1100).replace("{}", "t");
    let tries = format!("SAVEPOINT s; {again}; ROLLBACK TO s;\n").repeat(ROLLED_BACK);
    let script = format!("{BULK}BEGIN;\n{tries}SELECT count(*) FROM lake.intent;\nCOMMIT;");
    proxy.set(Target::List.rules(Action::Latency(Duration::from_millis(1))));
    let announced = rig.sql(&script)?.trim().parse::<usize>();
    let announced = announced.context("intents")?;
    if announced < ROLLED_BACK {
        return Err(format!("{announced} loads were announced"));
    }
    rig.sql("SELECT lake.sweep()")?;
    let lists = proxy.hits();
    proxy.clear();
    // The maintainer may have been there, too.
    if !(1..=4).contains(&lists) {
        return Err(format!("{lists} lists for {announced} loads"));
    }
    rig.same("after a sweep")?;
    rig.settled(&store, Metadata::Any)
}

fn everything(run: &mut Run, mut rig: Rig, store: &Store) -> Result<()> {
    let server = started_at(&rig.cluster)?;
    store.put(STRANGER, "not ours")?;
    loads(&rig, store)?;
    let python = run.python()?;
    let metadata = Metadata::Read(python);
    rig.settled(store, metadata)?;
    changes(&rig)?;
    rolled_back(&rig)?;
    rig.settled(store, metadata)?;
    maintenance(&rig)?;
    rig.settled(store, metadata)?;
    published(&rig, store, python)?;
    other_tables(&rig)?;
    rig.settled(store, metadata)?;
    same_server(&rig.cluster, &server)?;

    rig.cluster.restart()?;
    rig.same("after a restart")?;
    rig.evict()?;
    rig.same("after everything was fetched again")?;
    moves(&rig)?;
    rig.settled(store, metadata)?;
    gone(&rig, store)?;
    let left = store.objects(STRANGER)?;
    must_be(&left.len().to_string(), "1", "objects of somebody else")
}

/// By INSERT, by COPY, and row by row.
fn loads(rig: &Rig, store: &Store) -> Result<()> {
    rig.change(&[&load(1, LOADED)])?;
    let files = rig.files()?;
    if files.is_empty() {
        return Err("a load has left no file".to_owned());
    }
    let objects = store.objects(PREFIX)?;
    must_be(
        &objects.len().to_string(),
        &files.len().to_string(),
        "objects of a load",
    )?;
    for file in &files {
        let key = rig.key(file)?;
        let size = rig.sql(&format!(
            "SELECT size FROM lake.data_files WHERE path = '{file}'"
        ))?;
        let object = objects.iter().find(|object| object.key == key);
        let there = object.map(|object| object.size.to_string());
        must_be(&there.unwrap_or_default(), &size, "an object's size")?;
    }
    let copy = rig.cluster.dir.join("copied");
    os::write_file(&copy, "", rig.cluster.user.as_ref())?;
    let copy = copy.display();
    rig.sql(&format!(
        "COPY ({}) TO '{copy}'",
        rows(LOADED + 1, LOADED + COPIED)
    ))?;
    rig.change(&[&format!("COPY {{}} FROM '{copy}'")])?;
    rig.same("after COPY")?;
    rig.count(ALL, "rows that were loaded")?;

    rig.sql(&format!(
        "SET lake.bulk_rows = -1;\n{}",
        transaction(&["INSERT INTO {} SELECT -g, g, 'hot' FROM generate_series(1, 500) g"])
    ))?;
    let before = rig.files()?.len();
    let mut flushed = 0;
    // Some snapshot may not see them all yet.
    wait_until(Duration::from_secs(30), "hot rows become cold", || {
        flushed += rig.sql("SELECT lake.flush('t')")?.parse().unwrap_or(0);
        Ok(flushed == 500)
    })?;
    if rig.files()?.len() == before {
        return Err("a flush has made no file".to_owned());
    }
    rig.same("after a flush")
}

/// Of cold rows, and by an index.
fn changes(rig: &Rig) -> Result<()> {
    rig.change(&[
        "UPDATE {} SET n = n + 1, v = 'changed ' || id WHERE id % 1000 = 7",
        "DELETE FROM {} WHERE id % 1000 = 8",
        "DELETE FROM {} WHERE id BETWEEN 5000 AND 9000",
    ])?;
    rig.same("after changes")?;
    let lines = |table: &str| {
        format!(
            "SELECT count(*), count(DISTINCT id), sum(n), min(v), max(v) FROM {table} WHERE id % 7 = 3"
        )
    };
    must_be(&rig.sql(&lines("t"))?, &rig.sql(&lines("h"))?, "a query")?;
    rig.change(&["INSERT INTO {} VALUES (2000000, 1, 'a') RETURNING id"])?;
    rig.sql("ALTER TABLE t ADD PRIMARY KEY (id); ALTER TABLE h ADD PRIMARY KEY (id);")?;
    let point = |table: &str| {
        format!(
            "SET enable_seqscan = off;
             SELECT id, n, v FROM {table} WHERE id IN (7, 77, 777, 100007, 310000, 2000000) ORDER BY id"
        )
    };
    must_be(
        &rig.sql(&point("t"))?,
        &rig.sql(&point("h"))?,
        "rows by key",
    )?;
    let known = "SET lake.bulk_rows = -1; INSERT INTO t VALUES (77, 0, 'twice')";
    must_fail(&rig.cluster, known, &["duplicate key"])?;
    rig.sql("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE h DROP CONSTRAINT h_pkey;")?;
    rig.same("after an index")
}

/// Loads that never were: by ROLLBACK, by a savepoint, by an error.
fn rolled_back(rig: &Rig) -> Result<()> {
    let again = load(3_000_001, 3_030_000).replace("{}", "t");
    rig.sql(&format!("{BULK}BEGIN; {again}; ROLLBACK;"))?;
    rig.sql(&format!(
        "{BULK}BEGIN; SAVEPOINT s; {again}; DELETE FROM t WHERE id < 100; ROLLBACK TO SAVEPOINT s;
         INSERT INTO t VALUES (2000001, 2, 'kept'); INSERT INTO h VALUES (2000001, 2, 'kept'); COMMIT;"
    ))?;
    must_fail(
        &rig.cluster,
        &format!(
            "{BULK}INSERT INTO t SELECT g, 1 / (20000 - g), 'x' FROM generate_series(1, 30000) g"
        ),
        &["division by zero"],
    )?;
    rig.same("after loads that never were")
}

fn maintenance(rig: &Rig) -> Result<()> {
    rig.sql("SELECT lake.merge('t')")?;
    rig.same("after a merge")?;
    rig.change(&["DELETE FROM {} WHERE id % 3 = 0"])?;
    rig.sql("VACUUM t")?;
    rig.same("after VACUUM")?;
    rig.sql("SELECT lake.compact('t')")?;
    rig.same("after a compaction")?;
    rig.sql("VACUUM FULL t; ANALYZE t;")?;
    rig.same("after VACUUM FULL")
}

/// The published table is the table, also when it has changed, whoever reads it.
fn published(rig: &Rig, store: &Store, python: &Python) -> Result<()> {
    for change in [
        "UPDATE {} SET v = 'published ' || id WHERE id % 500 = 1",
        "DELETE FROM {} WHERE id % 500 = 2",
    ] {
        rig.change(&[change])?;
        let location = rig.sql("SELECT lake.publish('t')")?;
        rig.key(&location)?;
        rig.same("after a publication")?;
        for reader in READERS.iter().filter(|reader| store.is_known_to(reader)) {
            read_by(reader, python, &rig.cluster, store, &location)?;
        }
    }
    must_be(
        &rig.sql("SELECT count(*) FROM lake.snapshots WHERE table_name = 't'")?,
        "2",
        "snapshots",
    )
}

/// Tables that begin in the tablespace in another way.
fn other_tables(rig: &Rig) -> Result<()> {
    rig.sql(&format!(
        "{BULK}CREATE TABLE made USING iceberg TABLESPACE {TABLESPACE} AS TABLE h;
         CREATE MATERIALIZED VIEW seen USING iceberg TABLESPACE {TABLESPACE} AS SELECT id, n FROM t WHERE id % 2 = 0;
         BEGIN; CREATE TABLE never USING iceberg TABLESPACE {TABLESPACE} AS TABLE h; ROLLBACK;"
    ))?;
    let differs = "SELECT count(*) FROM ((TABLE h EXCEPT ALL TABLE made) UNION ALL (TABLE made EXCEPT ALL TABLE h)) x";
    must_be(&rig.sql(differs)?, "0", "rows of CREATE TABLE AS")?;
    must_be(
        &rig.sql("SELECT count(*), sum(id), sum(n) FROM seen")?,
        &rig.sql("SELECT count(*), sum(id), sum(n) FROM h WHERE id % 2 = 0")?,
        "rows of a materialized view",
    )?;
    rig.sql(&format!(
        "{BULK}TRUNCATE made; INSERT INTO made SELECT * FROM h WHERE id < 1000; REFRESH MATERIALIZED VIEW seen;"
    ))?;
    must_be(
        &rig.sql("SELECT count(*), sum(n) FROM made")?,
        &rig.sql("SELECT count(*), sum(n) FROM h WHERE id < 1000")?,
        "rows after TRUNCATE",
    )?;
    rig.sql("DROP TABLE made; DROP MATERIALIZED VIEW seen;")
        .map(drop)
}

/// To local disk and back, also in a transaction that is rolled back.
fn moves(rig: &Rig) -> Result<()> {
    let away = "ALTER TABLE t SET TABLESPACE pg_default";
    let back = format!("ALTER TABLE t SET TABLESPACE {TABLESPACE}");
    rig.sql(&format!("BEGIN; {away}; ROLLBACK;"))?;
    rig.same("after a move that was rolled back")?;
    rig.files()?;
    rig.sql(away)?;
    rig.same("on local disk")?;
    if let Ok(files) = rig.files()
        && let Some(file) = files.first()
    {
        return Err(format!("{file} is not local"));
    }
    rig.change(&[&load(4_000_001, 4_010_000)])?;
    rig.sql(&format!("BEGIN; {back}; ROLLBACK;"))?;
    rig.same("after a move back that was rolled back")?;
    rig.sql(&back)?;
    rig.files()?;
    rig.same("after the way back")?;
    rig.sql("SELECT lake.publish('t')")?;
    rig.same("after the first publication after a move")
}

/// The tablespace can be dropped once its tables are; nothing stays in the bucket.
fn gone(rig: &Rig, store: &Store) -> Result<()> {
    must_fail(
        &rig.cluster,
        &format!("DROP TABLESPACE {TABLESPACE}"),
        &["not empty"],
    )?;
    rig.sql("DROP TABLE t")?;
    rig.emptied(store)?;
    no_uploads(store)?;
    drop_tablespace(&rig.cluster, TABLESPACE)?;
    // A statement that needs no store doesn't ask for one.
    match attempt(rig, "SELECT count(*) > 0 FROM h;")? {
        Outcome::Done(text) => must_be(&text, "t", "a query in the end"),
        Outcome::Failed(error) => Err(error),
    }
}
