//! What nobody chose: faults by chance under several sessions, a store that is killed while files are
//! uploaded, and a server that is.

use super::rig::{BULK, IMPATIENT, PREFIX, Rig, load, rows, transaction};
use super::session::{Outcome, attempt, cancelled, outcome, start};
use super::settled::{Metadata, no_uploads, read_by};
use super::targets::Target;
use crate::cluster::{DATABASE, answer};
use crate::pg::random::Random;
use crate::pg::{same_server, started_at, wait_until};
use crate::process::Running;
use crate::stores::proxy::{Action, Proxy, Rule};
use crate::stores::{self, Kind};
use crate::test::Run;
use crate::tpch::READERS;
use crate::{Result, say};
use std::time::Duration;

const WRITERS: u64 = 3;
/// Ids of one writer's rows.
const RANGE: u64 = 1_000_000;
const SESSION: Duration = Duration::from_secs(400);

/// What a large load has, and a part of what its upload takes.
const LARGE: u64 = 600_000;

/// Writers, readers and maintenance, while any request may meet any fault.
pub fn random(run: &mut Run) -> Result<()> {
    let mut random = Random::from_environment();
    let store = stores::for_test(run, "fault_random", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), random.below(u64::MAX))?;
    let settings = [IMPATIENT, ("lake.keep_snapshots", "3")];
    let rig = Rig::start(run, "fault_random", &store, proxy.port(), &settings)?;
    rig.change(&[&load(1, 5000)])?;
    let server = started_at(&rig.cluster)?;
    let turns = if run.long { 400 } else { 60 };
    for round in 1..=if run.long { 5 } else { 2 } {
        proxy.set(rules());
        let mut sessions = Vec::new();
        for writer in 1..=WRITERS {
            // Ids of each round are its own.
            let first = (round * WRITERS + writer) * RANGE;
            sessions.push(("a writer", begin(&rig, &writes(&mut random, first, turns))?));
        }
        sessions.push(("maintenance", begin(&rig, &maintains(turns / 6))?));
        sessions.push(("a reader", begin(&rig, &reads(turns / 3))?));
        let mut failed = 0;
        for (who, session) in sessions {
            match outcome(session.wait()?).map_err(|error| format!("{who}: {error}"))? {
                Outcome::Done(_) => {}
                Outcome::Failed(errors) => failed += errors.lines().count(),
            }
        }
        let hits = proxy.hits();
        proxy.clear();
        say(&format!(
            "      round {round}: {hits} faults, {failed} errors"
        ));
        if hits == 0 {
            return Err("nothing has gone wrong".to_owned());
        }
        rig.same("after the faults")?;
        rig.sql("SELECT lake.flush('t'); SELECT lake.merge('t'); SELECT lake.compact('t');")?;
        rig.same("after maintenance")?;
    }
    same_server(&rig.cluster, &server)?;
    let location = rig.sql("SELECT lake.publish('t')")?;
    let python = run.python()?;
    for reader in READERS {
        read_by(reader, python, &rig.cluster, &store, &location)?;
    }
    rig.settled(&store, Metadata::Read(python))
}

/// Of a thousand requests, some fifteen meet each of them.
fn rules() -> Vec<Rule> {
    [
        Action::Latency(Duration::from_millis(100)),
        Action::Status(503, Some(1)),
        Action::Status(500, None),
        Action::Reset,
        Action::Truncate,
        Action::LostReply,
        Action::Flip,
    ]
    .map(Rule::new)
    .into_iter()
    .map(|rule| rule.chance(15))
    // The first requests have their luck, so that a round begins at all.
    .chain([Rule::new(Action::BlackHole).skip(50).chance(3)])
    .collect()
}

fn begin(rig: &Rig, script: &str) -> Result<Running> {
    start(rig, script).limit(SESSION).start()
}

/// Transactions on rows of its own, each on both tables or on none.
fn writes(random: &mut Random, first: u64, turns: u64) -> String {
    // Some rows begin hot, most don't.
    let mut script = String::from("SET lake.bulk_rows = 100;\n");
    let mut next = first;
    for _ in 0..turns {
        let below = first + random.below(next - first + 1);
        let statement = match random.below(5) {
            0 | 1 => {
                let number = 1 + random.below(2000);
                next += number;
                load(next - number, next - 1)
            }
            2 => format!(
                "INSERT INTO {{}} {}",
                rows(next, next + 5).replace("'row '", "'few '")
            ),
            3 => format!(
                "UPDATE {{}} SET n = n + 1 WHERE id BETWEEN {below} AND {}",
                below + 50
            ),
            _ => format!(
                "DELETE FROM {{}} WHERE id BETWEEN {below} AND {}",
                below + 20
            ),
        };
        next += 6;
        let sql = transaction(&[&statement]);
        script.push_str(&if random.below(6) == 0 {
            sql.replace("COMMIT;", "ROLLBACK;")
        } else {
            sql
        });
    }
    script
}

fn maintains(turns: u64) -> String {
    "SELECT lake.flush('t');
     SELECT lake.merge('t');
     SELECT lake.compact('t');
     SELECT lake.publish('t');
     SELECT lake.cache_evict('t');
     SELECT lake.sweep();
    "
    .repeat(turns as usize)
}

fn reads(turns: u64) -> String {
    "SET lake.engine = on; CALL compare('on');
     CALL compare('off');
     SELECT lake.cache_evict('t');
    "
    .repeat(turns as usize)
}

/// `lake.target_file_size` of 32 MB and more rows than that: several parts of several files.
fn large_load() -> String {
    format!(
        "{BULK}{}",
        transaction(&[&load(10_000_001, 10_000_000 + LARGE)])
    )
}

/// The server can be hit between two requests.
fn slow() -> Vec<Rule> {
    let uploads = Rule::new(Action::Latency(Duration::from_millis(300)));
    let others = Rule::new(Action::Latency(Duration::from_millis(30)));
    vec![uploads.method("PUT").query("partNumber="), others]
}

/// Parts, or whole files, that the store has.
fn uploaded(proxy: &Proxy) -> usize {
    proxy
        .requests()
        .iter()
        .filter(|request| request.method == "PUT" && request.status == Some(200))
        .filter(|request| request.query.contains("partNumber=") || request.received > 1 << 20)
        .count()
}

/// The store dies in the middle of a load, and comes back later, or at once.
pub fn store_killed(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "store_killed", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    let rig = Rig::start(run, "store_killed", &store, proxy.port(), &[IMPATIENT])?;
    rig.change(&[&load(1, 10_000)])?;
    let server = started_at(&rig.cluster)?;
    for (at_once, parts) in [(false, 1), (true, 1), (false, 3)] {
        // Uploads take long enough to be hit.
        proxy.set(slow());
        proxy.forget();
        let mut session = begin(&rig, &large_load())?;
        wait_until(Duration::from_secs(120), "an upload", || {
            Ok(uploaded(&proxy) >= parts || session.has_ended())
        })?;
        if session.has_ended() {
            return Err("the load was too short to be hit".to_owned());
        }
        store.kill9();
        proxy.clear();
        if at_once {
            store.restart()?;
        }
        let result = outcome(session.wait()?)?;
        if let (false, Outcome::Done(_)) = (at_once, &result) {
            return Err("a load has succeeded without a store".to_owned());
        }
        if !at_once {
            // What needs no store works; what does has an error.
            rig.sql("INSERT INTO h SELECT WHERE false; SELECT 1;")?;
            rig.evict()?;
            if let Outcome::Done(_) = attempt(&rig, "SELECT sum(id), max(v) FROM t;")? {
                return Err("rows were read without a store".to_owned());
            }
            store.restart()?;
        }
        rig.same("after the store has died")?;
        rig.change(&["DELETE FROM {} WHERE id > 10000000"])?;
        rig.sql("VACUUM h, t")?;
        rig.change(&[&load(20_000_001, 20_001_000)])?;
        rig.change(&["DELETE FROM {} WHERE id > 20000000"])?;
        rig.same("after the next load")?;
        rig.settled(&store, Metadata::Any)?;
    }
    same_server(&rig.cluster, &server)
}

/// The server dies in the middle of a load, of a publication and of a sweep.
pub fn server_killed(run: &mut Run) -> Result<()> {
    let mut random = Random::from_environment();
    let store = stores::for_test(run, "server_killed", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    let settings = [IMPATIENT, ("lake.keep_snapshots", "2")];
    let mut rig = Rig::start(run, "server_killed", &store, proxy.port(), &settings)?;
    rig.change(&[&load(1, 10_000)])?;
    for round in 0..if run.long { 12 } else { 4 } {
        proxy.set(slow());
        proxy.forget();
        let script = if round % 2 == 0 {
            large_load()
        } else {
            changes(&mut random, round)
        };
        let session = rig.cluster.psql(DATABASE).stdin(script).start()?;
        let wanted = 1 + random.below(6) as usize;
        wait_until(Duration::from_secs(120), "requests to the store", || {
            Ok(if round % 2 == 0 {
                uploaded(&proxy) >= wanted.min(3)
            } else {
                proxy.requests().len() >= wanted * 5
            })
        })?;
        rig.cluster.kill9()?;
        // It lost its connection, or had ended before.
        let _ = answer(session.wait()?);
        proxy.clear();
        rig.cluster.start()?;
        rig.same(&format!("after kill {}", round + 1))?;
        rig.evict()?;
        rig.same("after everything was fetched again")?;
        rig.settled(&store, Metadata::Read(run.python()?))?;
        rig.change(&["DELETE FROM {} WHERE id > 10000000"])?;
        rig.sql("VACUUM h, t")?;
    }
    Ok(())
}

/// The server dies while some parts of a file are in the store, and others on their way. The next one removes
/// them.
pub fn parts_left(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "parts_left", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    let mut rig = Rig::start(run, "parts_left", &store, proxy.port(), &[])?;
    rig.change(&[&load(1, 1000)])?;
    let rules = Target::Part.rules(Action::BlackHole).into_iter();
    proxy.set(rules.map(|rule| rule.skip(1)).collect());
    // One file of two parts.
    let script = format!("{BULK}{}", load(10_000_001, 10_180_000).replace("{}", "t"));
    let session = rig.cluster.psql(DATABASE).stdin(script).start()?;
    wait_until(Duration::from_secs(120), "a part on its way", || {
        Ok(uploaded(&proxy) > 0 && proxy.hits() > 0)
    })?;
    if store.uploads()?.is_empty() {
        return Err("the store knows of no upload".to_owned());
    }
    rig.cluster.kill9()?;
    // It lost its connection.
    let _ = answer(session.wait()?);
    proxy.clear();
    rig.cluster.start()?;
    no_uploads(&store)?;
    rig.same("after the server was killed")?;
    rig.settled(&store, Metadata::Any)
}

/// A request that was given up is served when the sweep has been there. Another one finds what has come of it.
pub fn late_write(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "late_write", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    let rig = Rig::start(run, "late_write", &store, proxy.port(), &[IMPATIENT])?;
    rig.change(&[&load(1, 1000)])?;
    let files = rig.files()?.len();
    // The sweep looks again after `lake.store_timeout`.
    let late = Action::Latency(Duration::from_secs(4));
    proxy.set(Target::Put.rules(late));
    cancelled(&rig, &Target::Put.script(1), || proxy.hits() > 0)?;
    rig.sql("SELECT lake.sweep()")?;
    wait_until(Duration::from_secs(30), "an object that came late", || {
        Ok(store.objects(PREFIX)?.len() > files)
    })?;
    proxy.clear();
    rig.same("after a load that was cancelled")?;
    rig.settled(&store, Metadata::Any)
}

/// Small loads, changes, publications and sweeps, more than it gets to.
fn changes(random: &mut Random, round: u64) -> String {
    let mut script = String::from(BULK);
    for n in 0..200 {
        let first = 30_000_000 + (round * 200 + n) * 1000;
        let id = random.below(9000);
        script.push_str(&transaction(&[
            &load(first, first + 300),
            &format!(
                "UPDATE {{}} SET n = n + 1 WHERE id BETWEEN {id} AND {}",
                id + 30
            ),
        ]));
        script.push_str("SELECT lake.publish('t');\n");
        let vain = load(first + 500, first + 600).replace("{}", "t");
        script.push_str(&format!("BEGIN; {vain}; ROLLBACK;\nSELECT lake.sweep();\n"));
    }
    script
}
