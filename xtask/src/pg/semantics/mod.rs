//! `test semantics`: random queries on heap tables and on iceberg tables with the same rows give the same answers.
//!
//! The engine promises Postgres' values, types, order and errors. Each query runs on heap, and on iceberg with
//! `lake.engine` set to `on` and to `force`, which may refuse: what it took whole is told. Where an answer differs, the query is
//! made smaller as long as it still does.
//!
//! * `types`, `data`: values, and the tables with them
//! * `functions`, `catalog`: what there is to call
//! * `tree`, `sql`: queries
//! * `expressions`, `queries`, `sets`: random ones
//! * `sessions`, `judge`: who runs them, and what counts as the same
//! * `shrink`: smaller queries
//! * `coverage`: what the engine has run of all that
//! * `sweep`: beside random queries, each entry of the whitelist in every place where it can be
//!   * `signatures`: the entries; `arguments`, `cases`: calls of them
//!   * `ledger`: which of them the engine has run

mod arguments;
mod cases;
mod catalog;
mod coverage;
mod data;
mod expressions;
mod functions;
mod judge;
mod ledger;
mod queries;
mod sessions;
mod sets;
mod shrink;
mod signatures;
mod sql;
mod sweep;
mod tree;
mod types;

use super::random::{Random, seed_from_environment};
use crate::client::{Client, Reply};
use crate::cluster::Cluster;
use crate::test::{Run, Tally};
use crate::{Result, say};
use catalog::Catalog;
use coverage::Coverage;
use expressions::Generator;
use judge::{Freedom, Verdict};
use sessions::{Engine, Sessions};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use sweep::Sweep;
use tree::Query;

const DATABASE: &str = "semantics";
/// Queries of a round, which has tables of its own.
const QUERIES: usize = 1000;
const ROUNDS: u64 = 5;
/// Queries with the same settings of the planner.
const TURN: usize = 25;
/// After so many differences the others say nothing new.
const DIFFERENCES_MAX: usize = 10;
/// What making a query smaller may take.
const TRIES: usize = 300;
const PATIENCE: Duration = Duration::from_secs(20);
/// What the sweep over the whole whitelist may take, and the part of it that each run of all tests has.
const SWEEP: Duration = Duration::from_secs(180);
const PART_OF_SWEEP: Duration = Duration::from_secs(10);
/// Of a hundred queries, so many may be none: more, and the grammar is wrong.
const INVALID_MAX: u64 = 5;

/// Rows stay where they were put.
const SETTINGS: &[(&str, &str)] = &[
    ("autovacuum", "off"),
    ("lake.auto_compact", "off"),
    ("lake.flush_interval", "-1"),
    ("lake.flush_rows", "-1"),
    ("lake.publish_interval", "-1"),
];

const TIME_ZONES: &[&str] = &[
    "UTC",
    "Etc/GMT-5",
    "America/New_York",
    "Asia/Kolkata",
    "Europe/Berlin",
];

const PLANNERS: &[&str] = &[
    "",
    "",
    "SET enable_hashjoin = off;",
    "SET enable_mergejoin = off; SET enable_nestloop = off;",
    "SET enable_hashjoin = off; SET enable_mergejoin = off;",
    "SET enable_hashagg = off;",
];

/// `--rounds` rounds of 1000 queries, from `--seed` or `PG_LAKE_SEED`.
pub fn suite(run: &mut Run) -> Result<Tally> {
    let mut tally = Tally::default();
    let seed = run.seed.unwrap_or_else(seed_from_environment);
    let limit = Instant::now() + run.limit(30);
    let rounds = run.rounds.unwrap_or(ROUNDS);
    let cluster = cluster(run, "semantics")?;
    let catalog = catalog::catalog();
    let mut coverage = Coverage::new(&catalog);
    let mut found = Vec::new();
    let swept = sweep(run, &cluster, seed, SWEEP).and_then(complete);
    tally.check("every entry of the whitelist", swept);
    for round in 0..rounds {
        let name = format!("seed {}, {QUERIES} queries", seed.wrapping_add(round));
        if Instant::now() > limit {
            tally.skip(&name, "the suite's time is over");
            continue;
        }
        say(&format!("    {name}"));
        let before = found.len();
        let random = Random::new(scattered(seed.wrapping_add(round)));
        let mut fuzz = Fuzz::start(&cluster, &catalog, random)?;
        let ended = fuzz.round(QUERIES, &mut coverage, &mut found, limit);
        let new = found.get(before..).unwrap_or_default();
        tally.check(&name, verdict(new, ended));
        if found.len() >= DIFFERENCES_MAX {
            break;
        }
    }
    coverage.report(&run.log("semantics-coverage"))?;
    tally.check("the grammar", valid(&coverage));
    Ok(tally)
}

/// A few queries, always the same ones, for each run of all tests.
pub fn smoke(run: &mut Run) -> Result<()> {
    const SEED: u64 = 5;
    const FEW: usize = 300;
    let cluster = cluster(run, "semantics_smoke")?;
    let catalog = catalog::catalog();
    let mut coverage = Coverage::new(&catalog);
    let mut found = Vec::new();
    let limit = Instant::now() + Duration::from_secs(120);
    let mut fuzz = Fuzz::start(&cluster, &catalog, Random::new(scattered(SEED)))?;
    let ended = fuzz.round(FEW, &mut coverage, &mut found, limit);
    coverage.report(&run.log("semantics_smoke-coverage"))?;
    verdict(&found, ended)?;
    valid(&coverage)?;
    drop(fuzz);
    // Other entries each time.
    let seed = run.seed.unwrap_or_else(seed_from_environment);
    say(&format!("      PG_LAKE_SEED={seed}"));
    sweep(run, &cluster, seed, PART_OF_SWEEP).map(drop)
}

/// Goes through the whitelist's entries, from one that the seed chooses on, until the time is over: whether that were all.
fn sweep(run: &Run, cluster: &Cluster, seed: u64, time: Duration) -> Result<bool> {
    let started = Instant::now();
    let mut random = Random::new(scattered(seed));
    let mut sweep = Sweep::start(cluster, &mut random)?;
    let first = random.below(sweep.entries.len().max(1) as u64) as usize;
    let all = sweep.run(first, started + time);
    say(&format!(
        "    swept in {:.0} s",
        started.elapsed().as_secs_f64()
    ));
    sweep
        .ledger
        .report(&sweep.entries, &run.log("semantics-sweep"))?;
    let covered = sweep.ledger.verdict(&sweep.entries);
    let ended = all.clone().map(drop).and(covered);
    verdict(&sweep.found, ended)?;
    all
}

fn complete(all: bool) -> Result<()> {
    match all {
        true => Ok(()),
        false => Err("the time is over before the last entry of the whitelist".to_owned()),
    }
}

/// What has differed, and why a round came to no end.
fn verdict(found: &[String], ended: Result<()>) -> Result<()> {
    let mut all = found.to_vec();
    all.extend(ended.err());
    if all.is_empty() {
        Ok(())
    } else {
        Err(all.join("\n\n"))
    }
}

fn valid(coverage: &Coverage) -> Result<()> {
    if coverage.invalid * 100 > coverage.queries * INVALID_MAX {
        return Err(format!(
            "{} of {} queries are none that Postgres takes",
            coverage.invalid, coverage.queries
        ));
    }
    Ok(())
}

/// Neighbouring seeds shall have nothing in common.
fn scattered(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 31)
}

/// With a database whose order of text isn't that of its bytes.
fn cluster(run: &mut Run, name: &str) -> Result<Cluster> {
    let cluster = run.cluster(name, SETTINGS)?;
    let create = format!("CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'");
    let icu = format!("{create} LOCALE 'C.UTF-8' LOCALE_PROVIDER icu ICU_LOCALE 'en'");
    if let Err(error) = cluster.sql_in("postgres", &icu) {
        if !error.contains("ICU is not supported") {
            return Err(error);
        }
        say("    without ICU: the default collation is that of the server's locale");
        cluster.sql_in("postgres", &create)?;
    }
    cluster.sql_in(DATABASE, "CREATE EXTENSION pg_lake")?;
    Ok(cluster)
}

struct Fuzz<'a> {
    sessions: Sessions<'a>,
    catalog: &'a Catalog,
    random: Random,
}

impl<'a> Fuzz<'a> {
    fn start(cluster: &'a Cluster, catalog: &'a Catalog, mut random: Random) -> Result<Fuzz<'a>> {
        let mut client = Client::connect(cluster, DATABASE)?;
        data::make(&mut client, &mut random)?;
        let time_zone = *random.one_of(TIME_ZONES);
        Ok(Fuzz {
            sessions: Sessions::open(cluster, DATABASE, time_zone)?,
            catalog,
            random,
        })
    }

    /// Adds what differs to `found`.
    fn round(
        &mut self,
        queries: usize,
        coverage: &mut Coverage,
        found: &mut Vec<String>,
        limit: Instant,
    ) -> Result<()> {
        let mut used = BTreeMap::new();
        for number in 0..queries {
            if Instant::now() > limit {
                return Err(format!("the time is over after {number} queries"));
            }
            if number % TURN == 0 {
                let planner = *self.random.one_of(PLANNERS);
                self.sessions.set_planner(planner)?;
            }
            let mut generator = Generator {
                random: &mut self.random,
                catalog: self.catalog,
                used: std::mem::take(&mut used),
                aliases: 0,
                wild: false,
            };
            let query = generator.query();
            used = generator.used;
            let ran = self.run(&query, coverage);
            let lost = ran.is_err();
            let finding =
                ran.unwrap_or_else(|lost| Some(format!("{lost}\n{};", sql::query(&query))));
            if let Some(finding) = finding {
                say(&format!("    query {} differs", number + 1));
                found.push(format!("query {}: {finding}", number + 1));
            }
            if lost {
                self.sessions.open_again()?;
            }
            if found.len() >= DIFFERENCES_MAX {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Runs a query everywhere: what differs, if anything. An `Err` is a connection that is lost.
    fn run(&mut self, query: &Query, coverage: &mut Coverage) -> Result<Option<String>> {
        let text = sql::query(query);
        let heap = self.sessions.on_heap(&text)?;
        let on = self.sessions.on_lake(Engine::On, &text)?;
        let forced = self.sessions.on_lake(Engine::Force, &text)?;
        let plan = self.sessions.plan(&text)?;
        coverage.record(query, &forced, &plan);
        let freedom = Freedom::of(query);
        let mut answers = vec![(Engine::On, on)];
        if !is_refusal(&forced) {
            answers.push((Engine::Force, forced));
        }
        for (engine, answer) in answers {
            let count = match freedom.judge(&heap, &answer) {
                Verdict::Same => continue,
                Verdict::SameError => &mut coverage.same_error,
                Verdict::AtLiberty => &mut coverage.at_liberty,
                Verdict::TooSlow => &mut coverage.too_slow,
                Verdict::Invalid(error) => {
                    if coverage.invalid == 0 {
                        say(&format!("    not a query: {error}\n{text}"));
                    }
                    &mut coverage.invalid
                }
                Verdict::Different(what) => return self.describe(query, engine, &what).map(Some),
            };
            // Of the two, `on` counts.
            *count += u64::from(engine == Engine::On);
        }
        Ok(None)
    }

    fn describe(&mut self, query: &Query, engine: Engine, what: &str) -> Result<String> {
        let settings = self.sessions.described(engine);
        let text = sql::query(query);
        let small = match self.smaller(query, engine) {
            Ok(small) => small,
            Err(lost) => {
                self.sessions.open_again()?;
                return Ok(format!("{what}\nmade smaller: {lost}\n{settings}\n{text};"));
            }
        };
        let (query, of_small) = small.unwrap_or_else(|| (query.clone(), what.to_owned()));
        let text = if of_small == what {
            String::new()
        } else {
            format!("\nat first: {text};\n{what}")
        };
        let small = sql::query(&query);
        Ok(format!("{of_small}\n{settings}\n{small};{text}"))
    }

    /// The smallest query that was found to differ still, and how it does.
    fn smaller(&mut self, query: &Query, engine: Engine) -> Result<Option<(Query, String)>> {
        let until = Instant::now() + PATIENCE;
        let mut best = None;
        let mut tries = 0;
        loop {
            let from = best.as_ref().map_or(query, |(query, _)| query);
            let mut next = None;
            for candidate in shrink::smaller(from) {
                if tries >= TRIES || Instant::now() > until {
                    return Ok(best);
                }
                tries += 1;
                if let Some(what) = self.differs(&candidate, engine)? {
                    next = Some((candidate, what));
                    break;
                }
            }
            match next {
                Some(next) => best = Some(next),
                None => return Ok(best),
            }
        }
    }

    fn differs(&mut self, query: &Query, engine: Engine) -> Result<Option<String>> {
        let text = sql::query(query);
        let heap = self.sessions.on_heap(&text)?;
        let answer = self.sessions.on_lake(engine, &text)?;
        if is_refusal(&answer) {
            return Ok(None);
        }
        match Freedom::of(query).judge(&heap, &answer) {
            Verdict::Different(what) => Ok(Some(what)),
            _ => Ok(None),
        }
    }
}

fn is_refusal(reply: &Reply) -> bool {
    reply.as_ref().is_err_and(|error| error.is_refusal())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_brings_its_queries_back() {
        let catalog = catalog::catalog();
        let queries = |seed| {
            let mut random = Random::new(scattered(seed));
            let mut generator = Generator {
                random: &mut random,
                catalog: &catalog,
                used: BTreeMap::new(),
                aliases: 0,
                wild: false,
            };
            let queries: Vec<String> = (0..50).map(|_| sql::query(&generator.query())).collect();
            queries
        };
        assert_eq!(queries(1), queries(1));
        assert_ne!(queries(1), queries(2));
        let left = ["$1", "$2", "$3", "$d", "$o", "$q"];
        let filled = |query: &String| !left.iter().any(|mark| query.contains(mark));
        assert!(queries(3).iter().all(filled));
    }
}
