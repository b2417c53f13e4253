//! Differences that somebody has looked at: `ext/tests/postgres/<mode>/<suite>/<test>.diff`.
//!
//! Such a file begins with the reason, in lines with `#`, and goes on with the difference. A test
//! passes if its output differs by exactly that. A test that is listed and doesn't differ has
//! failed: the list must not be longer than it has to be. A mode may inherit another one's list: such a
//! test may differ as it says there, but need not.

use crate::test::Tally;
use crate::{Context, Result, paths, say};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

const LINES_SHOWN: usize = 40;

/// The reviewed differences of one suite in one mode, by test.
pub struct Reviewed {
    dir: PathBuf,
    tests: Tests,
    inherited: Tests,
}

type Tests = BTreeMap<String, Difference>;

#[derive(Debug, PartialEq)]
struct Difference {
    reason: String,
    text: String,
}

impl Reviewed {
    pub fn read(mode: &str, inherits: Option<&str>, suite: &str) -> Result<Reviewed> {
        let dir = |mode: &str| {
            ["ext", "tests", "postgres", mode, suite]
                .iter()
                .fold(paths::repo(), |dir, part| dir.join(part))
        };
        let inherited = match inherits {
            Some(other) => read_tests(&dir(other))?,
            None => Tests::new(),
        };
        let dir = dir(mode);
        let tests = read_tests(&dir)?;
        Ok(Reviewed {
            dir,
            tests,
            inherited,
        })
    }

    fn file(&self, test: &str) -> PathBuf {
        self.dir.join(format!("{test}.diff"))
    }

    /// How a test may differ.
    fn reviewed(&self, test: &str) -> Option<&Difference> {
        self.tests.get(test).or_else(|| self.inherited.get(test))
    }

    /// Counts each test of a run.
    pub fn judge(&self, tests: &[(String, bool)], differences: &str, tally: &mut Tally) {
        let found = split(differences);
        let mut expected = 0;
        for (name, passed) in tests {
            let listed = self.tests.contains_key(name);
            let reviewed = self.reviewed(name).map(|difference| &difference.text);
            let result = match (listed, *passed) {
                (false, true) => {
                    tally.passed += 1;
                    continue;
                }
                (_, false) if reviewed.is_some() && found.get(name) == reviewed => {
                    say(&format!("    differs as reviewed: {name}"));
                    expected += 1;
                    tally.passed += 1;
                    continue;
                }
                (false, false) => Err(shown(found.get(name))),
                (true, true) => Err(format!(
                    "it differs no longer: remove {}",
                    self.file(name).display()
                )),
                (true, false) => Err(format!(
                    "it differs otherwise than {} says:\n{}",
                    self.file(name).display(),
                    shown(found.get(name))
                )),
            };
            tally.check(name, result);
        }
        for name in self.tests.keys() {
            if !tests.iter().any(|(test, _)| test == name) {
                let gone = format!("no such test ran: {}", self.file(name).display());
                tally.check(name, Err(gone));
            }
        }
        say(&format!(
            "    {} tests, {expected} differ as reviewed",
            tests.len()
        ));
    }

    /// Takes over how the listed tests differ now. Whoever adds a test to the list writes the file
    /// with the reason.
    pub fn accept(&self, tests: &[(String, bool)], differences: &str) -> Result<()> {
        let found = split(differences);
        for (name, _) in tests.iter().filter(|(_, passed)| !passed) {
            if let (Some(reviewed), Some(text)) = (self.reviewed(name), found.get(name))
                && reviewed.text != *text
            {
                fs::create_dir_all(&self.dir).context(self.dir.display())?;
                let file = self.file(name);
                let all = format!("{}{text}", reviewed.reason);
                fs::write(&file, all).context(file.display())?;
            }
        }
        say(&format!("    accepted into {}", self.dir.display()));
        Ok(())
    }
}

/// The files of a folder, which may be missing.
fn read_tests(dir: &Path) -> Result<Tests> {
    let mut tests = Tests::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.context(dir.display())?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let is_diff = path
            .extension()
            .is_some_and(|extension| extension == "diff");
        if let Some(name) = name.filter(|_| is_diff) {
            let text = read_lossy(&path)?;
            let difference = Difference::parse(&text).context(path.display())?;
            tests.insert(name.to_owned(), difference);
        }
    }
    Ok(tests)
}

impl Difference {
    fn parse(text: &str) -> Result<Difference> {
        let mut reason = String::new();
        let mut rest = String::new();
        // No line of a difference begins with this sign.
        for line in text.lines() {
            let part = if line.starts_with('#') {
                &mut reason
            } else {
                &mut rest
            };
            part.push_str(&without_blocks(line));
            part.push('\n');
        }
        if reason.is_empty() {
            return Err("it doesn't begin with a reason, in lines with #".to_owned());
        }
        Ok(Difference { reason, text: rest })
    }
}

/// The differences of each test, without what isn't about the output: paths, times, line numbers and the
/// numbers of cold blocks.
fn split(all: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    let mut header = true;
    for line in all.lines() {
        let hunk = line.starts_with("@@ ");
        if line.starts_with("diff ") {
            // The last word is the file with the output.
            let stem = Path::new(line).file_stem().and_then(|stem| stem.to_str());
            name = stem.unwrap_or_default().to_owned();
            header = true;
            continue;
        }
        header &= !hunk;
        if header {
            continue;
        }
        let text = found.entry(name.clone()).or_default();
        if hunk {
            text.push_str("@@");
        } else {
            text.push_str(&without_blocks(line));
        }
        text.push('\n');
    }
    found
}

/// Block numbers of cold rows, which depend on all that has been flushed before.
const COLD_BLOCKS: Range<u64> = 1 << 31..(1 << 31) + (1 << 24);

/// A line with one word in place of each such number. All of them have ten digits.
fn without_blocks(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let end = from
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(from.len());
        let (digits, after) = from.split_at(end);
        out.push_str(before);
        let is_block = digits.len() == 10
            && digits
                .parse()
                .is_ok_and(|number: u64| COLD_BLOCKS.contains(&number));
        out.push_str(if is_block { "coldblock#" } else { digits });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A file of Postgres': not all of its tests' output is UTF-8.
pub fn read_lossy(file: &Path) -> Result<String> {
    let bytes = fs::read(file).context(file.display())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shown(text: Option<&String>) -> String {
    let Some(text) = text else {
        return "the driver gave no difference".to_owned();
    };
    let lines: Vec<&str> = text.lines().collect();
    let mut part = lines[..lines.len().min(LINES_SHOWN)].join("\n");
    if lines.len() > LINES_SHOWN {
        part.push_str(&format!("\n… {} lines", lines.len()));
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFFS: &str = "diff -U3 /a/expected/one.out /a/results/one.out\n\
        --- /a/expected/one.out\t2026-01-01\n+++ /a/results/one.out\t2026-01-01\n\
        @@ -1,2 +1,2 @@\n same\n--- a comment\n++ 2\n\
        diff -U3 /a/expected/two.out /a/results/two.out\n\
        --- /a/expected/two.out\t2026-01-01\n+++ /a/results/two.out\t2026-01-01\n\
        @@ -9 +9 @@\n-1\n+2\n";

    #[test]
    fn differences_are_split_by_test() {
        let found = split(DIFFS);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["one", "two"]);
        assert_eq!(found["one"], "@@\n same\n--- a comment\n++ 2\n");
        assert_eq!(found["two"], "@@\n-1\n+2\n");
    }

    #[test]
    fn numbers_of_cold_blocks_are_no_difference() {
        assert_eq!(
            without_blocks("-(0,1) | (2147488719,12) | 4294967295 | 21474887190"),
            "-(0,1) | (coldblock#,12) | 4294967295 | 21474887190"
        );
    }

    #[test]
    fn the_list_is_neither_too_short_nor_too_long() {
        let listed = |text: &str| Difference {
            reason: "# why\n".to_owned(),
            text: text.to_owned(),
        };
        let reviewed = Reviewed {
            dir: PathBuf::from("/list"),
            tests: BTreeMap::from([
                ("changed".to_owned(), listed("@@\n-1\n+3\n")),
                ("gone".to_owned(), listed("@@\n")),
                ("right".to_owned(), listed("@@\n")),
                ("two".to_owned(), listed("@@\n-1\n+2\n")),
            ]),
            inherited: Tests::new(),
        };
        let mut tally = Tally::default();
        let ran = [
            ("one", false),
            ("two", false),
            ("three", true),
            ("right", true),
            ("changed", false),
        ];
        let ran = ran.map(|(name, passed)| (name.to_owned(), passed));
        reviewed.judge(&ran, DIFFS, &mut tally);
        assert_eq!((tally.passed, tally.failed), (2, 4));
    }

    #[test]
    fn an_inherited_difference_need_not_be_there() {
        let listed = |text: &str| Difference {
            reason: "# why\n".to_owned(),
            text: text.to_owned(),
        };
        let one = "@@\n same\n--- a comment\n++ 2\n";
        let reviewed = Reviewed {
            dir: PathBuf::from("/list"),
            tests: BTreeMap::from([("two".to_owned(), listed("@@\n-1\n+2\n"))]),
            inherited: BTreeMap::from([
                ("one".to_owned(), listed(one)),
                ("two".to_owned(), listed("@@\n-1\n+3\n")),
                ("right".to_owned(), listed("@@\n")),
                ("elsewhere".to_owned(), listed("@@\n")),
            ]),
        };
        let mut tally = Tally::default();
        let ran = [("one", false), ("two", false), ("right", true)];
        let ran = ran.map(|(name, passed)| (name.to_owned(), passed));
        reviewed.judge(&ran, DIFFS, &mut tally);
        assert_eq!((tally.passed, tally.failed), (3, 0));
        let other = DIFFS.replace("++ 2", "++ 3");
        reviewed.judge(&ran, &other, &mut tally);
        assert_eq!((tally.passed, tally.failed), (5, 1));
    }

    #[test]
    fn a_reason_is_asked_for() {
        let difference = Difference::parse("# why\n#\n@@\n-1\n+2\n").expect("has a reason");
        assert_eq!(difference.reason, "# why\n#\n");
        assert_eq!(difference.text, "@@\n-1\n+2\n");
        assert!(Difference::parse("@@\n-1\n+2\n").is_err());
    }
}
