//! Requests to a store that a statement makes for certain, and the statement.

use super::rig::{BULK, Rig, TABLESPACE, load, transaction};
use super::session::{Outcome, attempt};
use crate::Result;
use crate::stores::proxy::{Action, Rule};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A data file's footer and columns.
    Read,
    /// The same, by a statement that changes rows.
    ReadToChange,
    /// A data file in one piece.
    Put,
    Part,
    Complete,
    Metadata,
    List,
    Delete,
}

pub const TARGETS: &[Target] = &[
    Target::Read,
    Target::ReadToChange,
    Target::Put,
    Target::Part,
    Target::Complete,
    Target::Metadata,
    Target::List,
    Target::Delete,
];

/// Rows of a file that is uploaded in one piece, and of one that isn't.
const FEW: u64 = 500;
const MANY: u64 = 250_000;

impl Target {
    /// Whether the requests have the content of an object, which must arrive as it was.
    pub fn writes_content(self) -> bool {
        matches!(self, Target::Put | Target::Part | Target::Metadata)
    }

    /// The action, for requests of this kind; every protocol but S3 has others.
    pub fn rules(self, action: Action) -> Vec<Rule> {
        let rule = Rule::new(action);
        match self {
            Target::Read | Target::ReadToChange => {
                vec![rule.method("GET").path("*.parquet").without("list-type=")]
            }
            Target::Put => vec![rule.method("PUT").path("*.parquet").without("partNumber=")],
            Target::Part => vec![rule.method("PUT").query("partNumber=")],
            Target::Complete => {
                vec![rule.method("POST").path("*.parquet").query("uploadId=")]
            }
            Target::Metadata => vec![rule.method("PUT").path("*/metadata/*")],
            Target::List => vec![rule.method("GET").query("list-type=")],
            // One by one, or many at once.
            Target::Delete => vec![
                rule.clone().method("DELETE").without("uploadId="),
                rule.method("POST").query("delete"),
            ],
        }
    }

    /// What has to be there before.
    pub fn prepare(self, rig: &Rig) -> Result<()> {
        match self {
            Target::Read | Target::ReadToChange => rig.evict(),
            Target::Put => Ok(()),
            Target::Part | Target::Complete => rig
                .sql(&format!(
                    "CREATE TABLE IF NOT EXISTS large (LIKE h) USING iceberg TABLESPACE {TABLESPACE}"
                ))
                .map(drop),
            Target::Metadata => rig.change(&["UPDATE {} SET n = n + 1 WHERE id = 1"]),
            // It leaves an intent, and files that somebody must remove.
            Target::List => rig
                .sql(&format!(
                    "{BULK}BEGIN; {}; ROLLBACK;",
                    load(900_001, 900_500).replace("{}", "t")
                ))
                .map(drop),
            Target::Delete => rig
                .sql(&format!(
                    "{BULK}CREATE TABLE gone (LIKE h) USING iceberg TABLESPACE {TABLESPACE};
                     {}; DROP TABLE gone;",
                    load(1, FEW).replace("{}", "gone")
                ))
                .map(drop),
        }
    }

    /// The statement. `n` is another number each time.
    pub fn script(self, n: u64) -> String {
        let first = 1_000_000 + n * 1000;
        match self {
            Target::Read => QUERY.replace("{}", "t"),
            Target::ReadToChange => {
                let change = format!("UPDATE {{}} SET n = n + {n} WHERE id % 1000 = {}", n % 1000);
                transaction(&[&change])
            }
            Target::Put => format!("{BULK}{}", transaction(&[&load(first, first + FEW)])),
            // All or nothing, in the store.
            Target::Part | Target::Complete => format!(
                "{BULK}{};
                 DO $$ BEGIN PERFORM lake.cache_evict('large'); END $$;
                 SELECT CASE count(*) WHEN 0 THEN 't' ELSE
                            (count(*), sum(id), sum(n), max(length(v)))
                            = ({MANY}, {MANY} * ({MANY}::bigint + 1) / 2, 7 * sum(id), 138) END FROM large;
                 TRUNCATE large;",
                load(1, MANY).replace("{}", "large")
            ),
            Target::Metadata => "SELECT lake.publish('t') IS NULL;".to_owned(),
            Target::List | Target::Delete => "SELECT lake.sweep() < 0;".to_owned(),
        }
    }

    /// The statement, as it may fail. If it succeeds it must be right.
    pub fn run(self, rig: &Rig, n: u64) -> Result<Outcome> {
        let outcome = attempt(rig, &self.script(n))?;
        if let Outcome::Done(found) = &outcome {
            let expected = match self {
                Target::Read => rig.sql(&QUERY.replace("{}", "h"))?,
                Target::Part | Target::Complete => "t".to_owned(),
                Target::Metadata | Target::List | Target::Delete => "f".to_owned(),
                Target::ReadToChange | Target::Put => String::new(),
            };
            if *found != expected {
                return Err(format!("a wrong answer: {found}, expected {expected}"));
            }
        }
        Ok(outcome)
    }
}

const QUERY: &str =
    "SELECT count(*), sum(id), sum(n), md5(string_agg(v, ',' ORDER BY id)) FROM {};";
