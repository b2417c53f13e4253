//! What is left of a test's differences when plans and the order of rows are not looked at.
//!
//! The engine may show another plan than heap's, and give rows in another order where the statement says
//! none. Results that differ by no more are replaced by the expected ones; everything else is
//! compared as the drivers do.

use super::output::{Item, Style, items, squeezed};
use super::reviewed::read_lossy;
use crate::process::Cmd;
use crate::test::driver::Report;
use crate::{Context, Result, say};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Looks at the tests that have failed once more. Those without a difference have passed; the others'
/// are returned, in the drivers' format.
pub fn differences(dir: &Path, style: Style, report: &mut Report) -> Result<String> {
    let mut left = String::new();
    let mut settled = Vec::new();
    for (name, passed) in report.tests.iter_mut().filter(|(_, passed)| !passed) {
        let difference = of_test(dir, name, style)?;
        if difference.is_empty() && !report.died.contains(name) {
            *passed = true;
            settled.push(name.as_str());
        }
        left.push_str(&difference);
    }
    if !settled.is_empty() {
        say(&format!(
            "    {} tests differ only in plans and in the order of rows: {}",
            settled.len(),
            settled.join(", ")
        ));
    }
    Ok(left)
}

/// The smallest difference from one of the expected outputs.
fn of_test(dir: &Path, name: &str, style: Style) -> Result<String> {
    let found = read_lossy(&dir.join("results").join(format!("{name}.out")))?;
    let mut smallest: Option<String> = None;
    for file in expected(dir, name) {
        let expected = read_lossy(&file)?;
        let difference = difference(dir, name, &expected, &settle(&expected, &found, style))?;
        let size = |text: &String| text.lines().count();
        if smallest
            .as_ref()
            .is_none_or(|known| size(&difference) < size(known))
        {
            smallest = Some(difference);
        }
    }
    smallest.ok_or_else(|| format!("test {name} has no expected output"))
}

/// The outputs that count as right.
fn expected(dir: &Path, name: &str) -> Vec<PathBuf> {
    let dir = dir.join("expected");
    let alternatives = (0..=9).map(|n| dir.join(format!("{name}_{n}.out")));
    [dir.join(format!("{name}.out"))]
        .into_iter()
        .chain(alternatives)
        .filter(|file| file.is_file())
        .collect()
}

/// As the drivers call `diff`, and write down what it says.
fn difference(dir: &Path, name: &str, expected: &str, found: &str) -> Result<String> {
    let write = |folder: &str, text: &str| -> Result<PathBuf> {
        let folder = dir.join("settled").join(folder);
        fs::create_dir_all(&folder).context(folder.display())?;
        let file = folder.join(format!("{name}.out"));
        fs::write(&file, text).context(file.display())?;
        Ok(file)
    };
    let (expected, found) = (write("expected", expected)?, write("results", found)?);
    let output = Cmd::new("diff")
        .args(["-w", "-U3"])
        .arg(&expected)
        .arg(&found)
        .run()?;
    match output.code {
        Some(0) => Ok(String::new()),
        Some(1) => Ok(format!(
            "diff -w -U3 {} {}\n{}",
            expected.display(),
            found.display(),
            output.stdout
        )),
        _ => Err(format!("diff: {}", output.stderr.trim_end())),
    }
}

/// What was found, with the expected results in place of equivalent ones.
fn settle(expected: &str, found: &str, style: Style) -> String {
    let (expected, found) = (items(expected, style), items(found, style));
    let mut numbers = HashMap::new();
    let pairs = pairs(&keys(&expected, &mut numbers), &keys(&found, &mut numbers));
    let mut partners = vec![None; found.len()];
    for (e, f) in pairs {
        partners[f] = Some(&expected[e]);
    }
    let mut text = String::new();
    for (item, partner) in found.iter().zip(partners) {
        match (item, partner) {
            (Item::Table(table), Some(Item::Table(right))) if table.is_equivalent(right) => {
                add(&mut text, &right.lines);
            }
            (Item::Table(table), _) => add(&mut text, &table.lines),
            (Item::Line(line), _) => add(&mut text, &[*line]),
        }
    }
    text
}

fn add(text: &mut String, lines: &[&str]) {
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
}

/// A number for each item. Those that may be each other's partners have the same: equal lines, and
/// results of the same statement.
fn keys(items: &[Item<'_>], numbers: &mut HashMap<(bool, String), usize>) -> Vec<usize> {
    items
        .iter()
        .map(|item| {
            let key = match item {
                Item::Line(line) => (false, squeezed(line)),
                Item::Table(table) => (true, table.statement.clone()),
            };
            let next = numbers.len();
            *numbers.entry(key).or_insert(next)
        })
        .collect()
}

/// The places of a longest common subsequence.
fn pairs(a: &[usize], b: &[usize]) -> Vec<(usize, usize)> {
    let equal = |(x, y): &(&usize, &usize)| x == y;
    let head = a.iter().zip(b).take_while(equal).count();
    let (a_rest, b_rest) = (&a[head..], &b[head..]);
    let backwards = a_rest.iter().rev().zip(b_rest.iter().rev());
    let tail = backwards.take_while(equal).count();
    let middle = common(
        &a_rest[..a_rest.len() - tail],
        &b_rest[..b_rest.len() - tail],
    );
    let mut pairs: Vec<(usize, usize)> = (0..head).map(|n| (n, n)).collect();
    pairs.extend(middle.into_iter().map(|(x, y)| (head + x, head + y)));
    pairs.extend((1..=tail).rev().map(|n| (a.len() - n, b.len() - n)));
    pairs
}

/// Beyond this, what is between the equal beginnings and ends of two outputs has no partners.
const CELLS_MAX: usize = 40_000_000;

/// The same, by a table of lengths.
fn common(a: &[usize], b: &[usize]) -> Vec<(usize, usize)> {
    let width = b.len() + 1;
    if a.len() * width > CELLS_MAX {
        return Vec::new();
    }
    // Of what follows from each pair of places on.
    let mut longest = vec![0_u32; (a.len() + 1) * width];
    for x in (0..a.len()).rev() {
        for y in (0..b.len()).rev() {
            let at = x * width + y;
            longest[at] = if a[x] == b[y] {
                longest[at + width + 1] + 1
            } else {
                longest[at + width].max(longest[at + 1])
            };
        }
    }
    let mut pairs = Vec::new();
    let (mut x, mut y) = (0, 0);
    while x < a.len() && y < b.len() {
        let at = x * width + y;
        if a[x] == b[y] {
            pairs.push((x, y));
            x += 1;
            y += 1;
        } else if longest[at + width] >= longest[at + 1] {
            x += 1;
        } else {
            y += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script with three queries, and their rows.
    fn output(free: &[&str], plan: &[&str], ordered: &[&str]) -> String {
        let result = |statement: &str, header: &str, rows: &[&str]| {
            let rows: String = rows.iter().map(|row| format!(" {row}\n")).collect();
            let count = rows.lines().count();
            format!(
                "{statement}\n {header} \n{}\n{rows}({count} rows)\n\n",
                "-".repeat(header.len() + 2)
            )
        };
        [
            "CREATE TABLE t (a int);\n".to_owned(),
            result("SELECT a FROM t;", "a", free),
            result("EXPLAIN SELECT a FROM t;", "QUERY PLAN", plan),
            "INSERT INTO t VALUES (1);\n".to_owned(),
            result("SELECT a FROM t ORDER BY a;", "a", ordered),
        ]
        .concat()
    }

    fn settled(expected: &str, found: &str) -> bool {
        settle(expected, found, Style::Psql) == expected
    }

    #[test]
    fn plans_and_the_order_of_rows_are_settled() {
        let expected = output(&["1", "2", "2"], &["Seq Scan on t"], &["1", "2"]);
        let same = |free: &[&str], plan: &[&str], ordered: &[&str]| {
            settled(&expected, &output(free, plan, ordered))
        };
        assert!(same(&["1", "2", "2"], &["Seq Scan on t"], &["1", "2"]));
        assert!(same(
            &["2", "1", "2"],
            &["Custom Scan (Lake)", "  why"],
            &["1", "2"]
        ));
        // Another row, one that comes too often, one too few, another order.
        assert!(!same(&["3", "2", "2"], &["Seq Scan on t"], &["1", "2"]));
        assert!(!same(&["1", "1", "2"], &["Seq Scan on t"], &["1", "2"]));
        assert!(!same(&["1", "2"], &["Seq Scan on t"], &["1", "2"]));
        assert!(!same(&["1", "2", "2"], &["Seq Scan on t"], &["2", "1"]));
    }

    #[test]
    fn what_differs_otherwise_stays() {
        let expected = output(&["1", "2"], &["Seq Scan on t"], &["1"]);
        let found = output(&["2", "1"], &["Lake"], &["1"]);
        let found = found.replace("VALUES (1);\n", "VALUES (1);\nERROR:  it is full\n");
        let right = expected.replace("VALUES (1);\n", "VALUES (1);\nERROR:  it is full\n");
        assert_eq!(settle(&expected, &found, Style::Psql), right);
        // An error in place of a plan.
        let failed = "EXPLAIN SELECT a FROM t;\nERROR:  no\n";
        let start = found.find("EXPLAIN").expect("a plan");
        let end = found.find("INSERT").expect("what follows");
        let found = [&found[..start], failed, &found[end..]].concat();
        let settled = settle(&expected, &found, Style::Psql);
        assert!(settled.contains("(2 rows)\n\nEXPLAIN SELECT a FROM t;\nERROR:  no\nINSERT"));
        assert!(settled.contains(" 1\n 2\n(2 rows)"));
    }

    #[test]
    fn partners_are_a_longest_common_subsequence() {
        assert_eq!(pairs(&[1, 2, 3], &[1, 2, 3]), [(0, 0), (1, 1), (2, 2)]);
        assert_eq!(
            pairs(&[1, 7, 2, 3, 9], &[1, 2, 8, 8, 3, 9]),
            [(0, 0), (2, 1), (3, 4), (4, 5)]
        );
        assert!(pairs(&[], &[1]).is_empty());
        assert_eq!(pairs(&[5, 5], &[5]), [(0, 0)]);
    }
}
