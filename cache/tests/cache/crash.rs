//! A process that is killed while it writes: what its successor finds is right, and is found at once.

use crate::support::*;
use pg_lake_cache::{Cache, Config, SHARDS};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DIRECTORY: &str = "PG_LAKE_CACHE_TEST_DIRECTORY";
const ROUNDS: u64 = 6;
/// The cache holds half of what is written.
const LIMIT: u64 = 20 * BLOCK;
const OBJECTS: u64 = 20;

fn object(n: u64) -> Thing {
    thing(&format!("crash-{n}"), 2 * BLOCK - n)
}

fn open(directory: PathBuf) -> Arc<Cache> {
    Arc::new(Cache::open(Config {
        directory,
        owned: vec![0],
        limit: LIMIT * u64::from(SHARDS),
        block_bytes: BLOCK,
    }))
}

/// What the killed process does, without an end. It is no test of its own.
#[test]
fn write_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let cache = open(directory.into());
    runtime().block_on(async {
        for round in 0.. {
            for n in 0..OBJECTS {
                object(n * (round % 3 + 1) % OBJECTS).read_all(&cache).await;
            }
            cache.sync();
            println!("\nround {round}");
        }
    });
}

#[test]
fn a_killed_process_leaves_a_warm_cache() {
    let place = place(LIMIT);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::write_until_killed", "--nocapture"])
            .env(DIRECTORY, place.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = format!("round {}", round % 3 + 1);
        assert!(lines.any(|line| line.unwrap() == wanted));
        child.kill().unwrap();
        child.wait().unwrap();

        let opening = Instant::now();
        let cache = open(place.path().to_owned());
        assert!(opening.elapsed() < Duration::from_secs(10));
        let stats = stats(&cache);
        assert_eq!(stats.off, None);
        assert!(stats.blocks > 0, "it began anew: {stats:?}");
        assert!(stats.bytes <= LIMIT && place.bytes_on_disk() <= LIMIT);
        runtime().block_on(async {
            for n in 0..OBJECTS {
                object(n).read_all(&cache).await;
            }
        });
    }
}
