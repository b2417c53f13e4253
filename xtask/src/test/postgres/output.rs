//! A test's output in parts: the results of queries, and the lines between them.
//!
//! A result is taken for one only if its header, rule, rows and footer agree with each other. What
//! doesn't, or is printed in another format, is lines.

use super::sql;

/// Who has printed it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// With the script's lines; a blank at both sides of each value, and `+` after one that goes on in
    /// the next line.
    Psql,
    /// After `step name: statement`; without blanks.
    IsolationTester,
}

pub enum Item<'a> {
    Line(&'a str),
    Table(Table<'a>),
}

/// One result.
pub struct Table<'a> {
    /// Without white space; empty if it can't be told.
    pub statement: String,
    /// All lines, as they are.
    pub lines: Vec<&'a str>,
    /// Without white space.
    header: String,
    rows: Vec<String>,
    is_plan: bool,
    is_ordered: bool,
}

impl Table<'_> {
    /// Whether the two are of one statement and differ in nothing but the text of a plan, or the order
    /// of rows of which the statement says none.
    pub fn is_equivalent(&self, other: &Table<'_>) -> bool {
        let sorted = |table: &Table<'_>| {
            let mut rows = table.rows.clone();
            rows.sort_unstable();
            rows
        };
        self.statement == other.statement
            && ((self.is_plan && other.is_plan)
                || (!self.is_ordered
                    && !other.is_ordered
                    && self.header == other.header
                    && sorted(self) == sorted(other)))
    }
}

/// The parts of a text, which together are all of it.
pub fn items(text: &str, style: Style) -> Vec<Item<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let mut items = Vec::new();
    let mut at = 0;
    // The end of the last result.
    let mut since = 0;
    while let Some(line) = lines.get(at) {
        let Some(shape) = Shape::of(&lines[at..], style) else {
            items.push(Item::Line(line));
            at += 1;
            continue;
        };
        let statement = style.statement(&lines, since, at);
        items.push(Item::Table(Table {
            is_plan: line.trim() == "QUERY PLAN" || sql::is_plan(&statement),
            is_ordered: sql::is_ordered(&statement, &lines[..at]),
            statement: squeezed(&statement),
            lines: lines[at..at + shape.lines].to_vec(),
            header: squeezed(&lines[at..at + 2].concat()),
            rows: shape.rows,
        }));
        at += shape.lines;
        since = at;
    }
    items
}

/// Without white space, which is not compared.
pub fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

/// What the lines of a result say about it.
struct Shape {
    lines: usize,
    rows: Vec<String>,
}

impl Shape {
    /// Of the result whose header is the first line, if there is one.
    fn of(lines: &[&str], style: Style) -> Option<Shape> {
        let [header, rule, rest @ ..] = lines else {
            return None;
        };
        let rule = Rule::parse(rule)?;
        let is_header = style.is_row(header, &rule)
            && Rule::parse(header).is_none()
            && (!header.is_ascii() || header.len() == rule.length);
        if !is_header {
            return None;
        }
        let mut rows: Vec<String> = Vec::new();
        let mut goes_on = false;
        for (n, line) in rest.iter().enumerate() {
            if let Some(count) = footer(line) {
                let lines = n + 3;
                return (rows.len() == count).then_some(Shape { lines, rows });
            }
            if !style.is_row(line, &rule) {
                return None;
            }
            let text = squeezed(line);
            match rows.last_mut() {
                Some(row) if goes_on => {
                    row.push('\n');
                    row.push_str(&text);
                }
                _ => rows.push(text),
            }
            goes_on = style == Style::Psql && rule.goes_on(line);
        }
        None
    }
}

/// The line below a header.
struct Rule {
    length: usize,
    /// Where one column ends and the next one begins.
    edges: Vec<usize>,
}

impl Rule {
    fn parse(line: &str) -> Option<Rule> {
        let line = line.trim_end();
        let is_rule = line.starts_with('-')
            && line.ends_with('-')
            && line.bytes().all(|b| b == b'-' || b == b'+')
            && !line.contains("++");
        is_rule.then(|| Rule {
            length: line.len(),
            edges: line.match_indices('+').map(|(at, _)| at).collect(),
        })
    }

    /// Whether a value of the line goes on in the next one. Columns of lines with other than ASCII
    /// characters can't be counted: these rather go on than not.
    fn goes_on(&self, line: &str) -> bool {
        if !line.is_ascii() {
            return line.contains("+|") || line.ends_with('+');
        }
        let bytes = line.as_bytes();
        let mut ends = self.edges.iter().copied().chain([self.length]);
        ends.any(|end| bytes.get(end - 1) == Some(&b'+'))
    }
}

/// The number of rows in `(2 rows)`.
fn footer(line: &str) -> Option<usize> {
    let (number, rest) = line.strip_prefix('(')?.split_once(' ')?;
    matches!(rest, "row)" | "rows)").then(|| number.parse().ok())?
}

impl Style {
    fn is_row(self, line: &str, rule: &Rule) -> bool {
        if line.is_empty() || (self == Style::Psql && !line.starts_with(' ')) {
            return false;
        }
        let bytes = line.as_bytes();
        !line.is_ascii()
            || rule
                .edges
                .iter()
                .all(|&edge| bytes.get(edge) == Some(&b'|'))
    }

    /// What the result at a line is of; `since` is the end of the one before.
    fn statement(self, lines: &[&str], since: usize, at: usize) -> String {
        match self {
            Style::Psql => sql::last_statement(&lines[since..at]),
            Style::IsolationTester => step(&lines[..at]).unwrap_or_default(),
        }
    }
}

const WAITING: &str = " <waiting ...>";
const COMPLETED: &str = "<... completed>";

/// The text of the last step.
fn step(lines: &[&str]) -> Option<String> {
    let begins =
        |line: &&str| line.starts_with("step ") || line.starts_with("starting permutation:");
    let at = lines.iter().rposition(begins)?;
    let (_, said) = split_step(lines[at])?;
    if said != COMPLETED {
        let mut text = vec![said];
        text.extend(&lines[at + 1..]);
        return Some(text.join("\n"));
    }
    // The text is where it began to wait.
    let name = split_step(lines[at])?.0;
    let began = lines[..at].iter().rposition(|line| {
        split_step(line).is_some_and(|(own, said)| own == name && said != COMPLETED)
    })?;
    let mut text = vec![split_step(lines[began])?.1];
    if !text[0].ends_with(WAITING) {
        let more = lines[began + 1..at].iter();
        let end = more.clone().position(|line| line.ends_with(WAITING))?;
        text.extend(more.take(end + 1));
    }
    let text = text.join("\n");
    Some(text.trim_end_matches(WAITING).to_owned())
}

/// The name of a step, and what comes behind it.
fn split_step(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("step ")?.split_once(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(text: &str, style: Style) -> Vec<Table<'_>> {
        let all = items(text, style).into_iter();
        all.filter_map(|item| match item {
            Item::Table(table) => Some(table),
            Item::Line(_) => None,
        })
        .collect()
    }

    const PSQL: &str = "\
-- A comment
------------
SELECT a, b FROM t;
NOTICE:  looked at
 a |  b   
---+------
 1 | one +
   | two
 2 | a+ 
(2 rows)

SELECT b FROM t ORDER BY a;
 b 
---
 x
(1 row)

\\d t
 c | d 
---+---
(0 rows)

EXPLAIN SELECT 1;
 QUERY PLAN 
------------
 Result
(1 row)

SELECT 'no result';
 ?column?  
-----------
 (3 rows)
(2 rows)
";

    #[test]
    fn results_of_psql_are_told_from_lines() {
        let found = tables(PSQL, Style::Psql);
        let statements: Vec<&str> = found.iter().map(|table| table.statement.as_str()).collect();
        assert_eq!(
            statements,
            [
                // With the comments before it: it is the same in both outputs.
                "--Acomment------------SELECTa,bFROMt;",
                "SELECTbFROMtORDERBYa;",
                "\\dt",
                "EXPLAINSELECT1;"
            ]
        );
        assert_eq!(found[0].rows, ["1|one+\n|two", "2|a+"]);
        assert_eq!(found[0].lines.len(), 6);
        let ordered: Vec<bool> = found.iter().map(|table| table.is_ordered).collect();
        assert_eq!(ordered, [false, true, true, false]);
        let plans: Vec<bool> = found.iter().map(|table| table.is_plan).collect();
        assert_eq!(plans, [false, false, false, true]);
        let again: Vec<&str> = items(PSQL, Style::Psql)
            .into_iter()
            .flat_map(|item| match item {
                Item::Line(line) => vec![line],
                Item::Table(table) => table.lines,
            })
            .collect();
        assert_eq!(again, PSQL.lines().collect::<Vec<_>>());
    }

    const ISOLATION: &str = "\
Parsed test spec with 2 sessions

starting permutation: r w c
a
-
0
(1 row)

step r: SELECT * FROM t;
a |b
--+-
10|x
9+|y
(2 rows)

step w: 
    UPDATE t SET a = 1
    RETURNING a;
 <waiting ...>
step c: SELECT 1 ORDER BY 1; COMMIT;
?column?
--------
       1
(1 row)

step w: <... completed>
a
-
1
(1 row)

";

    #[test]
    fn results_of_steps_know_their_statements() {
        let found = tables(ISOLATION, Style::IsolationTester);
        let statements: Vec<&str> = found.iter().map(|table| table.statement.as_str()).collect();
        assert_eq!(
            statements,
            [
                "",
                "SELECT*FROMt;",
                "SELECT1ORDERBY1;COMMIT;",
                "UPDATEtSETa=1RETURNINGa;"
            ]
        );
        let ordered: Vec<bool> = found.iter().map(|table| table.is_ordered).collect();
        assert_eq!(ordered, [true, false, true, false]);
        assert_eq!(found[1].rows, ["10|x", "9+|y"]);
    }
}
