//! Every entry of the whitelist, called in all of its places, on heap and by the engine alone.
//!
//! Random queries get to most entries, to some seldom, and of what they call Postgres may compute a part. Here each entry has
//! its calls (`cases`), of which those count that the engine has run to the end: EXPLAIN ANALYZE says so. As many as can be
//! are outputs of one query. If that differs, or isn't run by the engine, its halves are looked at, down to a single call.
//!
//! A call that raises an error for some rows is compared for the others, then for single rows of each SQLSTATE.

use super::arguments::adds_floats;
use super::cases::{Case, Place, cases, query};
use super::data::{self, SWEPT};
use super::ledger::Ledger;
use super::sessions::{Engine, Sessions};
use super::signatures::{Signature, whitelist};
use super::{DATABASE, DIFFERENCES_MAX};
use crate::client::{Client, Reply};
use crate::cluster::Cluster;
use crate::compare::{Order, Tolerance, difference};
use crate::pg::random::Random;
use crate::{Result, say};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Entries whose calls share queries.
const TURN: usize = 8;
/// Calls of an entry in one place that raise errors, and rows of each SQLSTATE.
const RAISING_MAX: usize = 2;
const ROWS_MAX: usize = 2;

/// Their offsets from UTC are always the same: in others the engine leaves most of what depends on a time zone to Postgres.
const TIME_ZONES: &[&str] = &["UTC", "Etc/GMT-5", "Etc/GMT+3"];

/// Tells what a query ends with for one row: an SQLSTATE, or null.
const OUTCOME: &str = "
CREATE OR REPLACE FUNCTION public.outcome(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE query;
    RETURN NULL;
EXCEPTION WHEN others THEN
    RETURN SQLSTATE;
END $$";

pub struct Sweep<'a> {
    sessions: Sessions<'a>,
    pub entries: Vec<Signature>,
    pub ledger: Ledger,
    /// What differs.
    pub found: Vec<String>,
}

impl<'a> Sweep<'a> {
    pub fn start(cluster: &'a Cluster, random: &mut Random) -> Result<Sweep<'a>> {
        let mut client = Client::connect(cluster, DATABASE)?;
        data::make_swept(&mut client, random)?;
        client.rows(OUTCOME)?;
        let time_zone = *random.one_of(TIME_ZONES);
        Ok(Sweep {
            sessions: Sessions::open(cluster, DATABASE, time_zone)?,
            entries: whitelist(&mut client)?,
            ledger: Ledger::default(),
            found: Vec::new(),
        })
    }

    /// From the entry with this number on, and then those before it, until the time is over: whether all were looked at.
    pub fn run(&mut self, first: usize, until: Instant) -> Result<bool> {
        let count = self.entries.len();
        let all: Vec<usize> = (0..count).map(|at| (first + at) % count).collect();
        for entries in all.chunks(TURN) {
            if Instant::now() > until || self.found.len() >= DIFFERENCES_MAX {
                return Ok(false);
            }
            if let Err(lost) = self.turn(entries) {
                let names: Vec<&str> = (entries.iter())
                    .filter_map(|&at| self.entries.get(at))
                    .map(|signature| signature.entry.as_str())
                    .collect();
                self.found
                    .push(format!("{lost}, with {}", names.join(", ")));
                self.sessions.open_again()?;
            }
            self.ledger.done.extend(entries);
        }
        Ok(true)
    }

    /// An `Err` is a connection that is lost.
    fn turn(&mut self, entries: &[usize]) -> Result<()> {
        let mut calm: BTreeMap<Place, Vec<Case>> = BTreeMap::new();
        let mut raising = Vec::new();
        for &entry in entries {
            let Some(signature) = self.entries.get(entry) else {
                continue;
            };
            let mut taken: BTreeMap<Place, usize> = BTreeMap::new();
            let mut failing: BTreeMap<Place, usize> = BTreeMap::new();
            for case in cases(entry, signature) {
                let place = case.place;
                let so_far = taken.entry(place).or_default();
                if *so_far >= place.most() || !self.is_taken(&case)? {
                    continue;
                }
                if place != Place::Output || self.is_calm(&case)? {
                    *so_far += 1;
                    calm.entry(place).or_default().push(case);
                    continue;
                }
                let so_far = failing.entry(place).or_default();
                if *so_far < RAISING_MAX {
                    *so_far += 1;
                    raising.push(case);
                }
            }
        }
        for (place, cases) in &calm {
            for pack in cases.chunks(place.pack()) {
                self.pack(pack)?;
            }
        }
        for case in &raising {
            self.raising(case)?;
        }
        Ok(())
    }

    /// Whether the engine takes the call; otherwise it is noted why not.
    fn is_taken(&mut self, case: &Case) -> Result<bool> {
        let sql = query(std::slice::from_ref(case), None);
        let explain = format!("EXPLAIN (COSTS OFF) {sql}");
        match self.sessions.on_lake(Engine::Force, &explain)? {
            Ok(_) => Ok(true),
            Err(error) => {
                let why = match error.is_refusal() {
                    true => error.detail,
                    false => error.to_string(),
                };
                self.ledger.refuse(case, why);
                Ok(false)
            }
        }
    }

    /// Whether it raises no error on heap.
    fn is_calm(&mut self, case: &Case) -> Result<bool> {
        let sql = query(std::slice::from_ref(case), None);
        Ok(self.sessions.on_heap(&sql)?.is_ok())
    }

    /// Calls of one kind of place, in one query if nothing is wrong with it.
    fn pack(&mut self, cases: &[Case]) -> Result<()> {
        if let [] | [_] = cases {
            return match cases.first() {
                Some(case) => self.compare(case, &query(cases, None)),
                None => Ok(()),
            };
        }
        let sql = query(cases, None);
        let heap = self.sessions.on_heap(&sql)?;
        let engine = self.sessions.on_lake(Engine::Force, &sql)?;
        let same = match (&heap, &engine) {
            (Ok(heap), Ok(engine)) => {
                let order = order(cases);
                difference(heap, engine, order, tolerance(cases)).is_none()
            }
            _ => false,
        };
        self.ledger.queries += 1;
        if same && self.is_run_by_engine(cases, &sql)? {
            return Ok(());
        }
        let (some, others) = cases.split_at(cases.len() / 2);
        self.pack(some)?;
        self.pack(others)
    }

    /// A single call, in a query that may have fewer rows.
    fn compare(&mut self, case: &Case, sql: &str) -> Result<()> {
        let heap = self.sessions.on_heap(sql)?;
        let engine = self.sessions.on_lake(Engine::Force, sql)?;
        self.ledger.queries += 1;
        let cases = std::slice::from_ref(case);
        match (&heap, &engine) {
            (Err(error), _) if error.sqlstate == "57014" => {
                self.ledger
                    .refuse(case, "it takes too long on heap".to_owned());
            }
            (Err(heap), Err(engine)) if heap.sqlstate == engine.sqlstate => {
                self.ledger.same_errors += 1;
            }
            (Ok(expected), Ok(found)) => {
                match difference(expected, found, order(cases), tolerance(cases)) {
                    None => {
                        self.is_run_by_engine(cases, sql)?;
                    }
                    Some(what) => self.differs(&what, sql),
                }
            }
            _ => self.differs(&errors(&heap, &engine), sql),
        }
        Ok(())
    }

    /// A call that raises an error for some rows.
    fn raising(&mut self, case: &Case) -> Result<()> {
        let cases = std::slice::from_ref(case);
        let outcomes = self.outcomes(case)?;
        let mut raised: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (id, state) in &outcomes {
            if let Some(state) = state {
                raised.entry(state).or_default().push(id);
            }
        }
        let states: BTreeSet<&str> = raised.keys().copied().collect();
        let sql = query(cases, None);
        if states.is_empty() {
            return self.compare(case, &sql);
        }
        let engine = self.sessions.on_lake(Engine::Force, &sql)?;
        match &engine {
            // Of several errors either comes first.
            Err(error) if states.contains(error.sqlstate.as_str()) => self.ledger.same_errors += 1,
            _ => {
                let heap = self.sessions.on_heap(&sql)?;
                self.differs(&errors(&heap, &engine), &sql);
            }
        }
        let without: Vec<&str> = raised.values().flatten().copied().collect();
        if without.len() < outcomes.len() {
            let rest = format!("id <> ALL ('{{{}}}'::int4[])", without.join(","));
            self.compare(case, &query(cases, Some(&rest)))?;
        }
        for ids in raised.values() {
            for id in ids.iter().take(ROWS_MAX) {
                // After an equality there would be nothing to sort, and Postgres computed the output.
                let row = format!("id BETWEEN {id} AND {id}");
                self.compare(case, &query(cases, Some(&row)))?;
            }
        }
        Ok(())
    }

    /// On heap, of each row: its number, and the SQLSTATE of its error.
    fn outcomes(&mut self, case: &Case) -> Result<Vec<(String, Option<String>)>> {
        let text = &case.text;
        let outcomes = self.sessions.on_heap(&format!(
            "SELECT id, public.outcome($q$SELECT {text} FROM {SWEPT} WHERE id = $q$ || id) FROM {SWEPT} ORDER BY id"
        ))?;
        let rows = outcomes.map(|outcomes| outcomes.rows).unwrap_or_default();
        let of_row = |row: Vec<Option<String>>| {
            let mut values = row.into_iter();
            Some((values.next()??, values.next()?))
        };
        Ok(rows.into_iter().filter_map(of_row).collect())
    }

    /// Whether the engine ran the calls to the end. What has been run already isn't looked at again.
    fn is_run_by_engine(&mut self, cases: &[Case], sql: &str) -> Result<bool> {
        let known = |case: &Case| self.ledger.is_covered(case.entry, case.place);
        if cases.iter().all(known) {
            return Ok(true);
        }
        let explain = format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {sql}");
        let plan = self.sessions.on_lake(Engine::Force, &explain)?;
        let place = cases.first().map(|case| case.place);
        let why = match (&plan, place) {
            (Ok(plan), Some(place)) => not_by_engine(&plan.lines(), place),
            (Err(error), _) => Some(error.to_string()),
            (Ok(_), None) => None,
        };
        match (why, cases) {
            (None, _) => {
                cases.iter().for_each(|case| self.ledger.cover(case));
                return Ok(true);
            }
            (Some(why), [case]) => self.ledger.refuse(case, why),
            (Some(_), _) => {}
        }
        Ok(false)
    }

    fn differs(&mut self, what: &str, sql: &str) {
        let settings = self.sessions.described(Engine::Force);
        say(&format!("    {what}\n    {sql}"));
        self.found.push(format!("{what}\n{settings}\n{sql};"));
    }
}

fn order(cases: &[Case]) -> Order {
    match cases.first().is_none_or(|case| case.place.is_ordered()) {
        true => Order::Total,
        false => Order::None,
    }
}

/// Which one of equal values an aggregate or a window gives may depend on the order of rows, and so may the last digits of
/// what adds floats up.
fn tolerance(cases: &[Case]) -> Tolerance {
    let zeros = |case: &Case| matches!(case.place, Place::Aggregate | Place::Window);
    let rounded = |case: &Case| case.place == Place::Aggregate && adds_floats(&case.text);
    Tolerance {
        zeros: cases.iter().any(zeros),
        float: match cases.iter().any(rounded) {
            true => 1e-12,
            false => 0.0,
        },
    }
}

/// Two replies of which not both are rows.
fn errors(heap: &Reply, engine: &Reply) -> String {
    let said = |reply: &Reply| match reply {
        Ok(rows) => format!("{} rows", rows.rows.len()),
        Err(error) => error.to_string(),
    };
    format!("{}\n  heap: {}", said(engine), said(heap))
}

/// Why a plan that was run doesn't show that the engine evaluated calls in this place.
fn not_by_engine(plan: &[&str], place: Place) -> Option<String> {
    let starting = |label: &str| {
        let lines = plan.iter().map(|line| line.trim());
        let found = lines.filter_map(|line| line.strip_prefix(label));
        found.map(str::to_owned).collect::<Vec<String>>()
    };
    if let Some(why) = starting("Run by Postgres: ").into_iter().next() {
        return Some(format!("run by Postgres: {why}"));
    }
    if let Some(why) = starting("Not lowered: ").into_iter().next() {
        return Some(why);
    }
    let lines = starting("Engine: ");
    match lines.iter().any(|line| line.contains(place.mark())) {
        true => None,
        false => Some(format!("no {:?} in the plan", place.mark().trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_shows_who_has_run_it() {
        let plan = [
            "Custom Scan (Lake) (actual rows=3 loops=1)",
            "  Engine: Sort: id",
            "  Engine:   Project: id, abs(k)",
            "  Engine:     Scan on t.s: columns id, k",
        ];
        assert_eq!(not_by_engine(&plan, Place::Output), None);
        assert_eq!(not_by_engine(&plan, Place::SortKey), None);
        assert!(not_by_engine(&plan, Place::Filter).is_some());
        let again = [&plan[..], &["  Run by Postgres: a value"]].concat();
        let why = not_by_engine(&again, Place::Output);
        assert_eq!(why.as_deref(), Some("run by Postgres: a value"));
        assert!(not_by_engine(&["Seq Scan on s"], Place::Output).is_some());
    }

    #[test]
    fn groups_come_in_any_order() {
        let case = |place| Case {
            entry: 0,
            place,
            text: "k".to_owned(),
        };
        assert_eq!(order(&[case(Place::GroupKey)]), Order::None);
        assert_eq!(order(&[case(Place::Join)]), Order::Total);
    }
}
