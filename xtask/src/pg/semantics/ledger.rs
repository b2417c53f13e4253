//! Which entries of the whitelist the engine has run, in which places, and which it need not.

use super::cases::{Case, Place, places};
use super::signatures::Signature;
use crate::{Context, Result, say};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What the engine leaves to Postgres though the entry is on the whitelist: names, which may end with a `*`, places, and why
/// that is right.
const REVIEWED: &[(&str, &[Place], &str)] = &[
    (
        "float4eq",
        &[Place::GroupKey],
        "0 and -0 are equal, and Postgres shows the first one of a group",
    ),
    (
        "float8eq",
        &[Place::GroupKey],
        "0 and -0 are equal, and Postgres shows the first one of a group",
    ),
    (
        "jsonb_l*",
        EVERYWHERE,
        "strings in jsonb have the order of the database's collation, which isn't C here",
    ),
    (
        "jsonb_g*",
        EVERYWHERE,
        "strings in jsonb have the order of the database's collation, which isn't C here",
    ),
    (
        "bool_jsonb",
        &[Place::Filter],
        "values that aren't boolean end the query, on heap, too; as an output each value is compared",
    ),
    #[cfg(not(target_arch = "x86_64"))]
    (
        "percentile_cont_float8_float8",
        &[Place::Aggregate],
        "elsewhere than on x86-64 compilers may fuse the steps of the interpolation",
    ),
];

/// Of operators that order values.
const EVERYWHERE: &[Place] = &[Place::Output, Place::Filter, Place::Join, Place::SortKey];

#[derive(Default)]
pub struct Ledger {
    covered: BTreeSet<(usize, Place)>,
    /// Why calls weren't run by the engine, and how many.
    refused: BTreeMap<(usize, Place), BTreeMap<String, u64>>,
    /// Entries that were looked at.
    pub done: BTreeSet<usize>,
    pub queries: u64,
    pub same_errors: u64,
}

/// A place of an entry in which no call was run by the engine.
struct Gap<'a> {
    entry: &'a str,
    place: Place,
    reviewed: Option<&'static str>,
    reasons: Vec<&'a str>,
}

impl Ledger {
    pub fn cover(&mut self, case: &Case) {
        self.covered.insert((case.entry, case.place));
    }

    pub fn is_covered(&self, entry: usize, place: Place) -> bool {
        self.covered.contains(&(entry, place))
    }

    pub fn refuse(&mut self, case: &Case, why: String) {
        let reasons = self.refused.entry((case.entry, case.place)).or_default();
        *reasons.entry(why).or_default() += 1;
    }

    /// Of the entries that were looked at.
    fn gaps<'a>(&'a self, entries: &'a [Signature]) -> Vec<Gap<'a>> {
        let mut gaps = Vec::new();
        for (number, signature) in self.looked_at(entries) {
            let missing = places(signature).into_iter();
            for place in missing.filter(|place| !self.is_covered(number, *place)) {
                let reasons = self.refused.get(&(number, place));
                gaps.push(Gap {
                    entry: &signature.entry,
                    place,
                    reviewed: reviewed(&signature.entry, place),
                    reasons: reasons
                        .into_iter()
                        .flat_map(BTreeMap::keys)
                        .map(String::as_str)
                        .collect(),
                });
            }
        }
        gaps
    }

    fn looked_at<'a>(
        &'a self,
        entries: &'a [Signature],
    ) -> impl Iterator<Item = (usize, &'a Signature)> + 'a {
        let all = entries.iter().enumerate();
        all.filter(move |(number, _)| self.done.contains(number))
    }

    /// Says the sums, and writes which entries were run where.
    pub fn report(&self, entries: &[Signature], log: &Path) -> Result<()> {
        let gaps = self.gaps(entries);
        let reviewed = gaps.iter().filter(|gap| gap.reviewed.is_some()).count();
        let wanted = self.looked_at(entries);
        let wanted: usize = wanted.map(|(_, signature)| places(signature).len()).sum();
        say(&format!(
            "    {} of {} entries of the whitelist, in {wanted} places: the engine ran {}, {reviewed} are left to Postgres \
             with a reason, {} aren't covered",
            self.done.len(),
            entries.len(),
            wanted - gaps.len(),
            gaps.len() - reviewed,
        ));
        say(&format!(
            "    {} queries, {} of them with the same error; all of it: {}",
            self.queries,
            self.same_errors,
            log.display()
        ));
        fs::write(log, self.lists(entries, &gaps)).context(log.display())
    }

    fn lists(&self, entries: &[Signature], gaps: &[Gap<'_>]) -> String {
        let mut text = String::from("run by the engine:\n");
        for (number, signature) in self.looked_at(entries) {
            let places = self.covered.range((number, Place::Output)..);
            let places: Vec<&str> = places
                .take_while(|(entry, _)| *entry == number)
                .map(|(_, place)| place.name())
                .collect();
            text.push_str(&format!("{}: {}\n", signature.entry, places.join(", ")));
        }
        text.push_str("\nnot covered:\n");
        for gap in gaps {
            text.push_str(&format!("{}\n", gap.described()));
        }
        text.push_str("\ncalls that weren't run by the engine:\n");
        for ((number, place), reasons) in &self.refused {
            let entry = entries.get(*number).map_or("", |s| s.entry.as_str());
            for (reason, count) in reasons {
                text.push_str(&format!("{entry}, {}: {count} × {reason}\n", place.name()));
            }
        }
        text
    }

    /// Whether all that was looked at is covered, or need not be.
    pub fn verdict(&self, entries: &[Signature]) -> Result<()> {
        let gaps = self.gaps(entries);
        let open = gaps.iter().filter(|gap| gap.reviewed.is_none());
        let open: Vec<String> = open.map(Gap::described).collect();
        match open.is_empty() {
            true => Ok(()),
            false => Err(format!("not run by the engine:\n{}", open.join("\n"))),
        }
    }
}

impl Gap<'_> {
    fn described(&self) -> String {
        let reasons = match (self.reviewed, self.reasons.as_slice()) {
            (Some(why), _) => format!("reviewed: {why}"),
            (None, []) => "no call could be made".to_owned(),
            (None, reasons) => reasons.join("; "),
        };
        format!("{}, {}: {reasons}", self.entry, self.place.name())
    }
}

/// Why the engine need not run the entry in this place.
fn reviewed(entry: &str, place: Place) -> Option<&'static str> {
    let named = |name: &str| match name.strip_suffix('*') {
        Some(start) => entry.starts_with(start),
        None => entry == name,
    };
    let mut all = REVIEWED.iter();
    let found = all.find(|(name, places, _)| named(name) && places.contains(&place));
    found.map(|(_, _, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::super::signatures::Kind;
    use super::*;
    use crate::functions::{AGGREGATES, FUNCTIONS, named_in};

    fn signature(entry: &str) -> Signature {
        Signature {
            entry: entry.to_owned(),
            function: entry.to_owned(),
            kind: Kind::Function,
            params: vec!["float8".to_owned(); 2],
            variadic: false,
            result: "bool".to_owned(),
            operator: Some("=".to_owned()),
            direct: None,
        }
    }

    fn case(place: Place) -> Case {
        Case {
            entry: 0,
            place,
            text: String::new(),
        }
    }

    #[test]
    fn what_is_not_run_is_named() {
        let entries = [signature("f8eq"), signature("other")];
        let mut ledger = Ledger::default();
        assert_eq!(ledger.verdict(&entries), Ok(()));
        ledger.done.insert(0);
        for place in [Place::Output, Place::Filter, Place::GroupKey] {
            ledger.cover(&case(place));
        }
        ledger.refuse(&case(Place::Join), "a reason".to_owned());
        let said = ledger.verdict(&entries).unwrap_err();
        assert_eq!(said, "not run by the engine:\nf8eq, join: a reason");
        ledger.cover(&case(Place::Join));
        assert_eq!(ledger.verdict(&entries), Ok(()));
        let lists = ledger.lists(&entries, &[]);
        assert!(lists.contains("f8eq: output, filter, join, group key\n"));
        assert!(!lists.contains("other"));
    }

    #[test]
    fn reviewed_gaps_are_none() {
        let entries = [signature("float8eq")];
        let mut ledger = Ledger::default();
        ledger.done.insert(0);
        for place in [Place::Output, Place::Filter, Place::Join] {
            ledger.cover(&case(place));
        }
        assert_eq!(ledger.verdict(&entries), Ok(()));
        assert!(reviewed("float8eq", Place::GroupKey).is_some());
        assert!(reviewed("float8eq", Place::Output).is_none());
        assert!(reviewed("jsonb_le", Place::SortKey).is_some());
        assert!(reviewed("jsonb_eq", Place::GroupKey).is_none());
        assert!(reviewed("float8eqs", Place::GroupKey).is_none());
    }

    #[test]
    fn only_entries_are_reviewed() {
        let mut names = named_in(FUNCTIONS).unwrap();
        for file in AGGREGATES {
            names.extend(named_in(file).unwrap());
        }
        for (name, _, why) in REVIEWED {
            let start = name.trim_end_matches('*');
            assert!(names.iter().any(|entry| entry.starts_with(start)), "{name}");
            assert!(!why.is_empty());
        }
    }
}
