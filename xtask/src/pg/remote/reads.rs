//! What is read from a store: only what is needed, once, and nothing that isn't what was written.

use super::rig::{PREFIX, Rig, load};
use super::session::{Outcome, attempt};
use super::settled::read_by;
use crate::Result;
use crate::cluster::{DATABASE, answer};
use crate::pg::{must_be, must_fail, same_server, started_at};
use crate::stores::proxy::Proxy;
use crate::stores::{self, Kind, Tablespace};
use crate::test::Run;
use crate::tpch::READERS;

const ROWS: u64 = 200_000;
/// Most of the table's bytes are in its column `v`.
const NARROW: &str = "SELECT count(*), sum(id) FROM t WHERE id > 10";
const WIDE: &str = "SELECT count(*), max(v), sum(length(v)) FROM t WHERE id > 10";

/// Bytes of data files that were read since the last look.
fn fetched(proxy: &Proxy) -> u64 {
    let bytes = proxy
        .read()
        .into_iter()
        .filter(|(path, _)| path.ends_with(".parquet"))
        .map(|(_, bytes)| bytes)
        .sum();
    proxy.forget();
    bytes
}

/// Columns that aren't asked for aren't read; nothing is read twice, not by two sessions at once nor after a
/// restart.
pub fn cached_reads(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "cached_reads", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    let mut rig = Rig::start(run, "cached_reads", &store, proxy.port(), &[])?;
    rig.change(&[&load(1, ROWS)])?;
    let narrow = rig.sql(&NARROW.replace("FROM t", "FROM h"))?;
    let wide = rig.sql(&WIDE.replace("FROM t", "FROM h"))?;
    let size: u64 = store
        .objects(PREFIX)?
        .iter()
        .map(|object| object.size)
        .sum();
    proxy.forget();
    let read = |rig: &Rig, query: &str, expected: &str, what: &str, limit: u64| {
        must_be(&rig.sql(query)?, expected, what)?;
        match fetched(&proxy) {
            bytes if bytes > limit => Err(format!(
                "{what}: {bytes} bytes were read, {limit} would do; the files have {size}"
            )),
            bytes => Ok(bytes),
        }
    };
    read(&rig, WIDE, &wide, "what was just written", 0)?;
    rig.evict()?;
    if read(&rig, NARROW, &narrow, "one column", size / 2)? == 0 {
        return Err("an evicted table was read from nowhere".to_owned());
    }
    read(&rig, NARROW, &narrow, "the same column again", 0)?;
    read(&rig, WIDE, &wide, "the other columns", size + size / 10)?;
    read(&rig, WIDE, &wide, "all columns again", 0)?;
    rig.cluster.restart()?;
    read(&rig, WIDE, &wide, "all columns after a restart", 0)?;

    rig.evict()?;
    let sessions = (0..4)
        .map(|_| rig.cluster.psql(DATABASE).stdin(format!("{WIDE};")).start())
        .collect::<Result<Vec<_>>>()?;
    for session in sessions {
        must_be(&answer(session.wait()?)?, &wide, "four sessions at once")?;
    }
    match fetched(&proxy) {
        bytes if bytes > size + size / 10 => Err(format!(
            "four sessions at once have read {bytes} bytes of files that have {size}"
        )),
        _ => Ok(()),
    }
}

/// A table moves to another tablespace of its bucket: the store copies its files, and no worker sees their bytes.
pub fn copied_within(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "copied_within", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    let rig = Rig::start(run, "copied_within", &store, proxy.port(), &[])?;
    let dir = run.work_dir("copied_within-other")?;
    let other = Tablespace::new("lake_other", &store, proxy.port(), "other/prefix", &dir)?;
    other.create(&rig.cluster)?;
    rig.change(&[&load(1, ROWS)])?;
    proxy.forget();
    rig.sql("ALTER TABLE t SET TABLESPACE lake_other")?;
    let uploaded: u64 = proxy
        .requests()
        .iter()
        .filter(|request| request.method != "GET" && request.path.ends_with(".parquet"))
        .map(|request| request.received)
        .sum();
    must_be(&uploaded.to_string(), "0", "bytes that were uploaded")?;
    must_be(&fetched(&proxy).to_string(), "0", "bytes that were fetched")?;
    let copies = store.objects("other/prefix")?;
    if copies.is_empty() {
        return Err("nothing was copied".to_owned());
    }
    rig.evict()?;
    rig.same("after the store has copied")
}

/// An object that was changed or removed behind the server's back is an error that names it, whoever reads;
/// when it is as before, so is everything else.
pub fn damaged_object(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "damaged_object", Kind::SeaweedFs)?;
    let rig = Rig::start(run, "damaged_object", &store, store.port(), &[])?;
    rig.change(&[&load(1, 20_000)])?;
    let server = started_at(&rig.cluster)?;
    let files = rig.files()?;
    let file = files.first().ok_or("no file was written")?;
    let key = rig.key(file)?;
    let name = key.rsplit('/').next().unwrap_or_default();
    // In the data, in the footer, in the magic number at the end.
    for offset in [1000, -100, -1] {
        store.flip(key, offset)?;
        for engine in ["on", "off"] {
            rig.evict()?;
            let query = format!(
                "\\set VERBOSITY verbose\nSET lake.engine = {engine};\nSELECT sum(id), max(v) FROM t;\n"
            );
            must_fail(&rig.cluster, &query, &["XX001:", name])
                .map_err(|error| format!("byte {offset}, lake.engine = {engine}: {error}"))?;
        }
        store.flip(key, offset)?;
        rig.same("when the object is as before")?;
    }
    store.delete(key)?;
    rig.evict()?;
    must_fail(&rig.cluster, "SELECT sum(id), max(v) FROM t", &[name])?;
    if let Outcome::Done(_) = attempt(&rig, "UPDATE t SET n = 0 WHERE id = 5;")? {
        return Err("a row of a file that is gone was changed".to_owned());
    }
    must_be(&rig.sql("SELECT 1")?, "1", "a query afterwards")?;
    same_server(&rig.cluster, &server)
}

/// Published metadata that were damaged behind the server's back don't keep the table from being published.
pub fn damaged_metadata(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "damaged_metadata", Kind::SeaweedFs)?;
    let rig = Rig::start(run, "damaged_metadata", &store, store.port(), &[])?;
    rig.change(&[&load(1, 5000)])?;
    for (round, damaged) in ["/metadata/snap-", "-m0.avro", ".metadata.json"]
        .iter()
        .enumerate()
    {
        rig.sql("SELECT lake.publish('t')")?;
        for object in store.objects(PREFIX)? {
            if object.key.contains(damaged) {
                store.put(&object.key, "something else")?;
            }
        }
        rig.change(&["UPDATE {} SET n = n + 1 WHERE id < 100"])?;
        let location = rig.sql("SELECT lake.publish('t')")?;
        let unreadable = "SELECT count(*) FROM lake.check('t') WHERE kind = 'unreadable_metadata'";
        must_be(&rig.sql(unreadable)?, "0", damaged)?;
        let python = run.python()?;
        for reader in READERS {
            read_by(reader, python, &rig.cluster, &store, &location)
                .map_err(|error| format!("round {}, {damaged}: {error}", round + 1))?;
        }
    }
    rig.same("after all")
}
