//! What of the grammar has been run by the engine, and why the rest wasn't.
//!
//! The grammar has more than the engine's whitelist, which `sweep` goes through. In a query that the engine has taken whole,
//! Postgres may still compute the outputs of the topmost node.

use super::catalog::Catalog;
use super::tree::{Join, Kind, Query, Select, Sets, Source};
use crate::client::{Reply, SqlError};
use crate::{Context, Result, say};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What isn't a function.
const CLAUSES: &[&str] = &[
    "INNER JOIN",
    "LEFT JOIN",
    "RIGHT JOIN",
    "FULL JOIN",
    "CROSS JOIN",
    "join without equality",
    "self-join",
    "subquery in FROM",
    "sets in FROM",
    "DISTINCT",
    "DISTINCT ON",
    "GROUP BY",
    "GROUP BY ROLLUP",
    "GROUP BY CUBE",
    "HAVING",
    "ORDER BY",
    "LIMIT",
    "WITH TIES",
    "OFFSET",
    "aggregate with DISTINCT",
    "aggregate with FILTER",
    "aggregate with ORDER BY",
    "correlated EXISTS",
    "UNION",
    "UNION ALL",
    "INTERSECT",
    "INTERSECT ALL",
    "EXCEPT",
    "EXCEPT ALL",
    "WITH RECURSIVE UNION",
    "WITH RECURSIVE UNION ALL",
];

/// Reasons that are shown.
const REASONS_MAX: usize = 12;

#[derive(Default)]
pub struct Coverage {
    /// Of each feature: queries that have it, and those of them that the engine ran whole.
    features: BTreeMap<String, (u64, u64)>,
    /// The engine's nodes in plans.
    nodes: BTreeMap<String, u64>,
    reasons: BTreeMap<String, u64>,
    pub queries: u64,
    pub whole: u64,
    pub in_part: u64,
    pub same_error: u64,
    pub at_liberty: u64,
    pub too_slow: u64,
    pub invalid: u64,
}

impl Coverage {
    /// Knows all of the grammar, seen or not.
    pub fn new(catalog: &Catalog) -> Coverage {
        let functions = catalog.functions.iter().map(|f| f.feature.clone());
        let aggregates = catalog.aggregates.iter().map(|f| f.feature.clone());
        let windows = catalog.windows.iter().map(|f| f.feature.clone());
        let clauses = CLAUSES.iter().map(|clause| (*clause).to_owned());
        let all = functions.chain(aggregates).chain(windows).chain(clauses);
        Coverage {
            features: all.map(|feature| (feature, (0, 0))).collect(),
            ..Coverage::default()
        }
    }

    /// A query, what `force` has said to it, and its plan with `on`.
    pub fn record(&mut self, query: &Query, forced: &Reply, plan: &Reply) {
        self.queries += 1;
        let lines = plan.as_ref().map(|rows| rows.lines()).unwrap_or_default();
        let engine: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.trim().strip_prefix("Engine: "))
            .collect();
        let lake = lines.iter().any(|line| line.contains("Custom Scan (Lake)"));
        let any = lake && !engine.is_empty();
        let refused = forced.as_ref().err().filter(|error| error.is_refusal());
        let whole = any && refused.is_none();
        self.whole += u64::from(whole);
        self.in_part += u64::from(any && !whole);
        for line in engine {
            let node = line.split([':', '(']).next().unwrap_or(line);
            let node = node.split(" on ").next().unwrap_or(node).trim();
            *self.nodes.entry(node.to_owned()).or_default() += 1;
        }
        if let Some(error) = refused {
            self.refusal(error);
        }
        for feature in features(query) {
            let counts = self.features.entry(feature).or_default();
            counts.0 += 1;
            counts.1 += u64::from(whole);
        }
    }

    fn refusal(&mut self, error: &SqlError) {
        let reasons: BTreeSet<&str> = error.detail.split("; ").collect();
        for reason in reasons {
            *self.reasons.entry(reason.to_owned()).or_default() += 1;
        }
    }

    /// Says the sums. The lists are long: they go into a file.
    pub fn report(&self, log: &Path) -> Result<()> {
        let alone = self.queries.saturating_sub(self.whole + self.in_part);
        say(&format!(
            "    {} queries: {} by the engine whole, {} in part, {alone} by Postgres",
            self.queries, self.whole, self.in_part
        ));
        say(&format!(
            "    errors: {} alike, {} not, as the order of evaluation allows; {} too slow on heap, {} refused by the \
             parser",
            self.same_error, self.at_liberty, self.too_slow, self.invalid
        ));
        let lowered = self.features.values().filter(|counts| counts.1 > 0);
        say(&format!(
            "    {} of {} functions, operators and clauses were in a query that the engine ran whole",
            lowered.count(),
            self.features.len()
        ));
        let nodes = self
            .nodes
            .iter()
            .map(|(node, count)| format!("{node} {count}"));
        let nodes: Vec<String> = nodes.collect();
        say(&format!("    the engine's nodes: {}", nodes.join(", ")));
        let reasons = self.reasons_by_count();
        for line in reasons.iter().take(REASONS_MAX) {
            say(&format!("    not lowered: {line}"));
        }
        say(&format!("    all of it: {}", log.display()));
        fs::write(log, self.lists(&reasons)).context(log.display())
    }

    fn reasons_by_count(&self) -> Vec<String> {
        let mut reasons: Vec<(&String, &u64)> = self.reasons.iter().collect();
        reasons.sort_by(|one, other| other.1.cmp(one.1));
        let lines = reasons
            .iter()
            .map(|(reason, count)| format!("{count} × {reason}"));
        lines.collect()
    }

    /// Every feature by what has become of it, and every reason.
    fn lists(&self, reasons: &[String]) -> String {
        let mut text = String::new();
        let mut part = |title: &str, wanted: &dyn Fn(&(u64, u64)) -> bool| {
            let features = self.features.iter().filter(|(_, counts)| wanted(counts));
            let lines: Vec<String> = features
                .map(|(feature, (seen, whole))| format!("{feature}: {whole} of {seen}\n"))
                .collect();
            text.push_str(&format!("{title}: {}\n{}\n", lines.len(), lines.concat()));
        };
        part("in queries that the engine ran whole", &|counts| {
            counts.1 > 0
        });
        part("never in one", &|counts| counts.0 > 0 && counts.1 == 0);
        part("never tried", &|counts| counts.0 == 0);
        text.push_str(&format!("not lowered:\n{}\n", reasons.join("\n")));
        text
    }
}

fn features(query: &Query) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    set_operations(query, &mut found);
    let mut query = query.clone();
    query.walk_mut(&mut |expr| match &expr.kind {
        Kind::Column(_) | Kind::Literal(_) => {}
        Kind::Apply { function, .. } => drop(found.insert(function.feature.clone())),
        Kind::Aggregate {
            function,
            distinct,
            order,
            filter,
            ..
        } => {
            found.insert(function.feature.clone());
            if !order.is_empty() {
                found.insert("aggregate with ORDER BY".to_owned());
            }
            if *distinct {
                found.insert("aggregate with DISTINCT".to_owned());
            }
            if filter.is_some() {
                found.insert("aggregate with FILTER".to_owned());
            }
        }
        Kind::Window {
            function, frame, ..
        } => {
            found.insert(function.feature.clone());
            found.extend(frame.map(|frame| format!("OVER ({frame})")));
        }
        Kind::Subquery { form, query, .. } => {
            found.insert(form.replace("$1", "x").replace("$q", "query"));
            if form.contains("EXISTS") && !query.filter.is_empty() {
                found.insert("correlated EXISTS".to_owned());
            }
        }
    });
    query.selects_mut(&mut |select, _| clauses(select, &mut found));
    found
}

fn set_operations(query: &Query, found: &mut BTreeSet<String>) {
    if let Query::Recursive { operation, .. } = query {
        found.insert(format!("WITH RECURSIVE {operation}"));
    }
    if let Query::Set {
        operation,
        left,
        right,
        ..
    } = query
    {
        found.insert((*operation).to_owned());
        set_operations(left, found);
        set_operations(right, found);
    }
}

fn clauses(select: &Select, found: &mut BTreeSet<String>) {
    let mut add = |condition: bool, name: &str| {
        if condition {
            found.insert(name.to_owned());
        }
    };
    let mut tables = BTreeSet::new();
    for (at, relation) in select.from.iter().enumerate() {
        match &relation.source {
            Source::Table(name) => add(!tables.insert(*name), "self-join"),
            Source::Derived(_) => add(true, "subquery in FROM"),
            Source::Sets(_) => add(true, "sets in FROM"),
        }
        if at == 0 {
            continue;
        }
        let join = match relation.join {
            Join::Inner => "INNER JOIN",
            Join::Left => "LEFT JOIN",
            Join::Right => "RIGHT JOIN",
            Join::Full => "FULL JOIN",
            Join::Cross => "CROSS JOIN",
        };
        add(true, join);
        let equality = relation.on.iter().any(
            |on| matches!(&on.kind, Kind::Apply { function, .. } if function.form == "$1 = $2"),
        );
        add(
            relation.join != Join::Cross && !equality,
            "join without equality",
        );
    }
    add(select.distinct, "DISTINCT");
    add(select.distinct_on, "DISTINCT ON");
    add(!select.having.is_empty(), "HAVING");
    add(!select.order.is_empty(), "ORDER BY");
    add(select.limit.is_some(), "LIMIT");
    add(select.ties, "WITH TIES");
    add(select.offset.is_some(), "OFFSET");
    if let Some(grouping) = &select.grouping {
        let name = match grouping.sets {
            None => "GROUP BY",
            Some(Sets::Rollup) => "GROUP BY ROLLUP",
            Some(Sets::Cube) => "GROUP BY CUBE",
        };
        add(!grouping.keys.is_empty(), name);
    }
}
