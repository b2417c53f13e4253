//! Scans of lineitem: warm beside a local table, cold beside a plain client, and with a slow store.

use super::{LOCAL, REMOTE, ROUNDS, Remote, plain};
use crate::stores::proxy::{Action, Rule};
use crate::timing::{median, ratio, report, statements};
use crate::{Result, say, tpch};
use std::time::{Duration, Instant};

const TABLE: &str = "lineitem";
/// Timed in each turn, after one that warms up.
const REPEATS: usize = 3;
/// Of a request.
const LATENCY: Duration = Duration::from_millis(20);
const MEGABYTE: f64 = 1e6;
/// Bytes a second: a gigabit.
const NETWORK: u64 = 125_000_000;

fn q1() -> Result<String> {
    let queries = tpch::q1_q6()?;
    let q1 = queries.into_iter().find(|(name, _)| *name == "q1");
    q1.map(|(_, sql)| sql)
        .ok_or_else(|| "TPC-H has no Q1".to_owned())
}

/// Bytes that scans had from the disk cache and from the store since the statistics were reset.
fn traffic(remote: &Remote) -> Result<(f64, f64)> {
    let sums =
        remote.sql("SELECT sum(bytes_from_cache), sum(bytes_from_store) FROM lake.stat_cache")?;
    let (cache, store) = sums.split_once('\t').unwrap_or_default();
    match (cache.parse(), store.parse()) {
        (Ok(cache), Ok(store)) => Ok((cache, store)),
        _ => Err(format!("lake.stat_cache has {sums:?}")),
    }
}

/// Both tables from the cache of decoded columns; then without it, when the one in the store comes from the
/// disk cache and the other one from the operating system's.
pub(super) fn warm(remote: &mut Remote) -> Result<()> {
    let queries = [("q1", q1()?), ("wide", remote.wide(TABLE)?)];
    remote.connect_to(remote.store.port())?;
    for (cache, decoded) in [("memory", true), ("disk", false)] {
        remote.keep_decoded(decoded)?;
        for (name, sql) in &queries {
            let mut times = [Vec::new(), Vec::new()];
            for round in 1..=ROUNDS {
                say(&format!(
                    "    {name} from the {cache} cache, {round} of {ROUNDS}"
                ));
                for (schema, times) in [LOCAL, REMOTE].into_iter().zip(&mut times) {
                    let from_disk = !decoded && schema == REMOTE;
                    times.push(warm_run(remote, schema, sql, from_disk)?);
                }
            }
            let [local, remote] = times;
            let ratio = ratio(&local, &remote);
            report(
                &format!("remote.warm.{name}_from_{cache}"),
                &[
                    ("local_ms", median(local)),
                    ("remote_ms", median(remote)),
                    ("ratio", ratio),
                ],
            );
        }
    }
    Ok(())
}

fn warm_run(remote: &Remote, schema: &str, sql: &str, from_disk: bool) -> Result<f64> {
    let timed = format!("{sql};\n").repeat(REPEATS);
    let script =
        format!("SET search_path = {schema};\n{sql};\nSELECT lake.stat_cache_reset();\n{timed}");
    let times = statements(&remote.bench.cluster, &script)?;
    let (cache, store) = traffic(remote)?;
    if store > 0.0 || (cache > 0.0) != from_disk {
        return Err(format!(
            "a warm scan of {schema} had {cache} bytes from the disk cache and {store} from the store"
        ));
    }
    let first = times.len().saturating_sub(REPEATS);
    Ok(median(times.into_iter().skip(first).collect()))
}

/// What goes through when nothing of the table is cached: as fast as the store in this machine's memory answers, where
/// decoding is what takes time, and by a network of [`NETWORK`], which is slower than that.
pub(super) fn cold(remote: &mut Remote) -> Result<()> {
    remote.keep_decoded(false)?;
    cold_from(remote, remote.store.port(), "remote.cold")?;
    let network = Rule::new(Action::Network(NETWORK));
    remote.proxy.set(vec![network]);
    let measured = cold_from(remote, remote.proxy.port(), "remote.cold.network");
    remote.proxy.clear();
    measured
}

/// A scan that decodes all columns, and `lake.cache_warm`, which decodes nothing, of the store on a port, beside a plain
/// client. `cached` is the same scan from the disk cache: what decoding alone lets through.
///
/// Footers that the engine has decoded stay in its memory; the blocks that they are in are fetched all the
/// same, for the columns before them.
fn cold_from(remote: &Remote, port: u16, figure: &str) -> Result<()> {
    let table = format!("{REMOTE}.{TABLE}");
    let scan = format!("SET search_path = {REMOTE};\n{}", remote.wide(TABLE)?);
    let warm = format!("SELECT lake.cache_warm('{table}')");
    let files = remote.files(&table)?;
    let size: u64 = files.iter().map(|file| file.size).sum();
    remote.connect_to(port)?;
    let (mut plain, mut scanned) = (Vec::new(), Vec::new());
    let (mut warmed, mut cached) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        say(&format!("    {figure}: {size} bytes, {round} of {ROUNDS}"));
        let started = Instant::now();
        let read = plain::read(port, &files)?;
        plain.push(started.elapsed().as_secs_f64());
        if read != size {
            return Err(format!("the plain client has read {read} bytes of {size}"));
        }
        scanned.push(cold_run(remote, &table, &scan, size)?);
        // Nothing has taken it out of the disk cache.
        let again = statements(&remote.bench.cluster, &format!("{scan};\n"))?;
        cached.extend(again.last().map(|time| time / 1000.0));
        warmed.push(cold_run(remote, &table, &warm, size)?);
    }
    // Of throughputs, which are the times' inverses.
    let (scan_ratio, warm_ratio) = (ratio(&scanned, &plain), ratio(&warmed, &plain));
    let rate = |times: Vec<f64>| size as f64 / MEGABYTE / median(times);
    report(
        figure,
        &[
            ("file_mb", size as f64 / MEGABYTE),
            ("cached_mb_per_s", rate(cached)),
            ("scan_mb_per_s", rate(scanned)),
            ("cache_warm_mb_per_s", rate(warmed)),
            ("plain_mb_per_s", rate(plain)),
            ("scan_ratio", scan_ratio),
            ("cache_warm_ratio", warm_ratio),
        ],
    );
    Ok(())
}

/// Seconds of the script's last statement, which has to fetch all files.
fn cold_run(remote: &Remote, table: &str, script: &str, size: u64) -> Result<f64> {
    remote.evict(table)?;
    remote.sql("SELECT lake.stat_cache_reset()")?;
    let times = statements(&remote.bench.cluster, &format!("{script};\n"))?;
    let (_, store) = traffic(remote)?;
    if store < 0.99 * size as f64 {
        return Err(format!(
            "{store} bytes came from the store, of files that have {size}"
        ));
    }
    let time = times.last().ok_or("psql printed no time")?;
    Ok(time / 1000.0)
}

/// Cold Q1 through a proxy that holds each request up, and through one that doesn't. The server is a new one
/// each time, so that the footer is fetched, too; Q1 of the local table precedes it in the same session.
pub(super) fn latency(remote: &mut Remote) -> Result<()> {
    let q1 = q1()?;
    let script = [LOCAL, REMOTE].map(|schema| format!("SET search_path = {schema};\n{q1};\n"));
    let script = script.concat();
    remote.connect_to(remote.proxy.port())?;
    remote.keep_decoded(false)?;
    let mut times = [Vec::new(), Vec::new()];
    let mut requests = Vec::new();
    for round in 1..=ROUNDS {
        for (latency, times) in [Duration::ZERO, LATENCY].into_iter().zip(&mut times) {
            say(&format!(
                "    cold Q1 with {} ms a request, {round} of {ROUNDS}",
                latency.as_millis()
            ));
            remote.bench.cluster.restart()?;
            remote.evict(&format!("{REMOTE}.{TABLE}"))?;
            remote.proxy.set(vec![Rule::new(Action::Latency(latency))]);
            remote.proxy.forget();
            let all = statements(&remote.bench.cluster, &script)?;
            remote.proxy.clear();
            let made = remote.proxy.requests().len();
            match all.last() {
                Some(time) if made > 0 => times.push(*time),
                _ => return Err(format!("cold Q1 made {made} requests")),
            }
            requests.push(made as f64);
        }
    }
    let [at_once, late] = times;
    let ratio = ratio(&at_once, &late);
    report(
        "remote.latency",
        &[
            ("requests", median(requests)),
            ("ms_at_0_ms", median(at_once)),
            ("ms_at_20_ms", median(late)),
            ("ratio", ratio),
        ],
    );
    Ok(())
}
