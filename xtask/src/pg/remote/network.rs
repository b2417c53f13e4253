//! Who has connections to the store: workers, and nobody else. And how fast a cancel gets through while the
//! store says nothing.

use super::rig::{BULK, Rig, load};
use super::session::cancelled;
use super::targets::Target;
use crate::cluster::{Cluster, DATABASE};
use crate::process::{self, Running};
use crate::stores::proxy::{Action, Proxy, Rule};
use crate::stores::{self, Kind};
use crate::test::Run;
use crate::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// From `pg_cancel_backend` to the error.
const CANCEL: Duration = Duration::from_millis(100);
/// Of looking at sockets.
const WATCH: Duration = Duration::from_secs(8);
/// Repeated by each session: more than it gets to.
const TURNS: usize = 500;

/// I4: no object-store client in a backend, and none in the engine.
pub fn no_network(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "no_network", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    let rig = Rig::start(run, "no_network", &store, proxy.port(), &[])?;
    rig.change(&[&load(1, 50_000)])?;
    watch(&rig, &proxy)?;
    for target in [Target::Read, Target::Put, Target::Metadata] {
        let mut best = Duration::MAX;
        for attempt in 0..3 {
            target.prepare(&rig)?;
            proxy.set(target.rules(Action::BlackHole));
            let took = cancelled(&rig, &target.script(attempt), || proxy.hits() > 0);
            proxy.clear();
            best = best.min(took.map_err(|error| format!("{target:?}: {error}"))?);
        }
        if best > CANCEL {
            return Err(format!(
                "{target:?}: cancelled after {} ms",
                best.as_millis()
            ));
        }
    }
    rig.same("after requests that nobody answered")
}

/// Sessions load, read, publish and sweep; meanwhile every process of the server is looked at.
fn watch(rig: &Rig, proxy: &Proxy) -> Result<()> {
    // A connection lasts long enough to be seen.
    proxy.set(vec![Rule::new(Action::Latency(Duration::from_millis(20)))]);
    let sessions = [
        format!(
            "{BULK}BEGIN; {}; ROLLBACK;\n",
            load(100_001, 102_000).replace("{}", "t")
        ),
        "SET lake.engine = on;\nSELECT lake.cache_evict('t');\nSELECT sum(id), max(v) FROM t;\n".to_owned(),
        "SET lake.engine = off;\nSELECT sum(id), max(v) FROM t;\n".to_owned(),
        "UPDATE t SET n = n WHERE id = 1;\nSELECT lake.publish('t') IS NULL;\nSELECT lake.sweep();\n"
            .to_owned(),
    ]
    .into_iter()
    .map(|script| {
        rig.cluster
            .psql(DATABASE)
            .stdin(script.repeat(TURNS))
            .start()
    })
    .collect::<Result<Vec<Running>>>()?;
    let mut seen = false;
    let deadline = Instant::now() + WATCH;
    while Instant::now() < deadline {
        let connected = connected(&rig.cluster, proxy.port())?;
        let workers = workers(&rig.cluster)?;
        for (pid, command) in &connected {
            if !workers.contains(pid) {
                return Err(format!(
                    "process {pid} has a connection to the store: {command}"
                ));
            }
            seen = true;
        }
        sleep(Duration::from_millis(20));
    }
    let requests = proxy.requests().len();
    proxy.clear();
    drop(sessions);
    if seen && requests > 100 {
        Ok(())
    } else {
        Err(format!(
            "no worker was seen with a connection, {requests} requests were made"
        ))
    }
}

/// Processes that may have a connection.
fn workers(cluster: &Cluster) -> Result<BTreeSet<u32>> {
    let pids = cluster
        .sql("SELECT pid FROM lake.stat_workers WHERE kind <> 'engine' AND pid IS NOT NULL")?;
    Ok(pids.lines().filter_map(|pid| pid.parse().ok()).collect())
}

/// The server's processes with a connection to this port, and their titles.
fn connected(cluster: &Cluster, port: u16) -> Result<BTreeMap<u32, String>> {
    let (postmaster, _) = cluster.postmaster()?;
    let mut pids = process::descendants(postmaster);
    pids.push(postmaster);
    // Sockets first: one that is opened later can't be taken for another.
    let mut sockets = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // There may be no IPv6.
        let text = fs::read_to_string(table).unwrap_or_default();
        sockets.extend(inodes(&text, port));
    }
    let mut found = BTreeMap::new();
    for pid in pids {
        // It may have ended meanwhile.
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let has_one = entries.flatten().any(|entry| {
            fs::read_link(entry.path())
                .ok()
                .and_then(|target| socket(&target.to_string_lossy()))
                .is_some_and(|inode| sockets.contains(&inode))
        });
        if has_one {
            let title = fs::read(format!("/proc/{pid}/cmdline")).context(pid)?;
            found.insert(pid, String::from_utf8_lossy(&title).replace('\0', " "));
        }
    }
    Ok(found)
}

/// Inodes of the sockets that are connected to a port, from `/proc/net/tcp`.
fn inodes(table: &str, port: u16) -> Vec<u64> {
    let ending = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let remote = fields.get(2)?;
            let inode = fields.get(9)?.parse().ok()?;
            remote.ends_with(&ending).then_some(inode)
        })
        // Of a connection that is being closed.
        .filter(|inode| *inode != 0)
        .collect()
}

/// `socket:[12345]`
fn socket(target: &str) -> Option<u64> {
    target
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_are_found() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let of_port = || {
            let table = fs::read_to_string("/proc/net/tcp").expect("a table of sockets");
            inodes(&table, port)
        };
        // Listening is no connection.
        assert_eq!(of_port(), Vec::<u64>::new());
        let _client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let found = of_port();
        assert_eq!(found.len(), 1);
        let ours = fs::read_dir("/proc/self/fd")
            .expect("our files")
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter_map(|target| socket(&target.to_string_lossy()))
            .filter(|inode| *inode == found[0])
            .count();
        assert_eq!(ours, 1);
        assert_eq!(socket("/dev/null"), None);
    }
}
