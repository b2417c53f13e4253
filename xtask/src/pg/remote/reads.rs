//! What is read from a store: only what is needed, once, and nothing that isn't what was written.

use super::rig::{Rig, load};
use super::session::{Outcome, attempt};
use crate::Result;
use crate::cluster::{DATABASE, answer};
use crate::pg::{must_be, must_fail, same_server, started_at};
use crate::stores::proxy::Proxy;
use crate::stores::{self, Kind};
use crate::test::Run;

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
        .objects(super::rig::PREFIX)?
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
