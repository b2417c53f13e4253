//! Whether two answers to one query are the same, and what the first difference is.

use crate::client::{Column, Rows, Value};
use std::cmp::Ordering;

/// What the rows' order promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// ORDER BY leaves no choice: row by row.
    Total,
    /// These columns (from 0) come in the same sequence; rows that are equal in them in any.
    Keys(&'static [usize]),
    None,
}

/// What may differ between values that count as the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// How far apart floats may be, as a part of the larger one.
    pub float: f64,
    /// Whether -0 may stand for 0: which of them a group or DISTINCT shows is nobody's promise.
    pub zeros: bool,
}

impl Tolerance {
    pub const NONE: Tolerance = Tolerance {
        float: 0.0,
        zeros: false,
    };

    fn same(self, column: &Column, one: &Value, other: &Value) -> bool {
        let (Some(one), Some(other)) = (one, other) else {
            return one == other;
        };
        one == other || (column.is_float() && self.near(number(one), number(other)))
    }

    fn near(self, one: f64, other: f64) -> bool {
        // Of what isn't finite the texts would have been equal.
        if !one.is_finite() || !other.is_finite() {
            return false;
        }
        if one == 0.0 && other == 0.0 {
            return self.zeros;
        }
        let larger = one.abs().max(other.abs());
        self.float > 0.0 && (one - other).abs() <= larger * self.float
    }
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}

/// What differs first, in words; `None` if nothing does.
pub fn difference(
    expected: &Rows,
    found: &Rows,
    order: Order,
    tolerance: Tolerance,
) -> Option<String> {
    if expected.columns != found.columns {
        return Some(format!(
            "the columns are {}, expected {}",
            described(&found.columns),
            described(&expected.columns)
        ));
    }
    let columns = &expected.columns;
    let count = (expected.rows.len() != found.rows.len()).then(|| {
        let (found, expected) = (found.rows.len(), expected.rows.len());
        format!("{found} rows, expected {expected}; ")
    });
    let of_rows = match order {
        Order::Total => first(columns, &in_place(expected), &in_place(found), tolerance),
        Order::Keys(keys) => {
            let sequence = first(
                &picked(columns, keys),
                &keys_of(expected, keys),
                &keys_of(found, keys),
                tolerance,
            );
            let sequence = sequence.map(|what| format!("the order: {what}"));
            // The same rows first: of those the order can be discussed.
            first(columns, &sorted(expected), &sorted(found), tolerance).or(sequence)
        }
        Order::None => first(columns, &sorted(expected), &sorted(found), tolerance),
    };
    match (count, of_rows) {
        (Some(count), what) => Some(count + what.as_deref().unwrap_or("no other difference")),
        (None, what) => what,
    }
}

fn described(columns: &[Column]) -> String {
    let each = columns
        .iter()
        .map(|column| format!("{} (type {}, {})", column.name, column.oid, column.typmod));
    each.collect::<Vec<_>>().join(", ")
}

fn in_place(rows: &Rows) -> Vec<Vec<&Value>> {
    rows.rows.iter().map(|row| row.iter().collect()).collect()
}

fn picked(columns: &[Column], keys: &[usize]) -> Vec<Column> {
    let picked = keys.iter().filter_map(|&key| columns.get(key).cloned());
    picked.collect()
}

fn keys_of<'a>(rows: &'a Rows, keys: &[usize]) -> Vec<Vec<&'a Value>> {
    let of_row = |row: &'a Vec<Value>| keys.iter().filter_map(|&key| row.get(key)).collect();
    rows.rows.iter().map(of_row).collect()
}

/// In an order that floats which are near each other hardly disturb: they come last, as numbers.
fn sorted(rows: &Rows) -> Vec<Vec<&Value>> {
    let float = |at: &usize| rows.columns.get(*at).is_some_and(Column::is_float);
    let (floats, others): (Vec<usize>, Vec<usize>) = (0..rows.columns.len()).partition(float);
    let mut all = in_place(rows);
    all.sort_by(|one, other| {
        let exact = others.iter().map(|&at| one.get(at).cmp(&other.get(at)));
        let near = floats
            .iter()
            .map(|&at| by_number(one.get(at), other.get(at)));
        // Rows that differ in the sign of zeros alone.
        let signs = floats.iter().map(|&at| one.get(at).cmp(&other.get(at)));
        exact
            .chain(near)
            .chain(signs)
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    });
    all
}

fn by_number(one: Option<&&Value>, other: Option<&&Value>) -> Ordering {
    match (one, other) {
        (Some(Some(one)), Some(Some(other))) => {
            // -0 with 0
            let (one, other) = (number(one) + 0.0, number(other) + 0.0);
            one.total_cmp(&other)
        }
        (one, other) => one.cmp(&other),
    }
}

/// The first row that differs.
fn first(
    columns: &[Column],
    expected: &[Vec<&Value>],
    found: &[Vec<&Value>],
    tolerance: Tolerance,
) -> Option<String> {
    for (at, row) in expected.iter().enumerate() {
        let Some(other) = found.get(at) else {
            return Some(format!("row {}, {}, is not there", at + 1, shown(row)));
        };
        let mut pairs = columns.iter().zip(row.iter().zip(other));
        let differs = pairs.find(|(column, (one, other))| !tolerance.same(column, one, other));
        if let Some((column, (wanted, found))) = differs {
            return Some(format!(
                "row {}, column {}: {}, expected {}\n  expected {}\n  found    {}",
                at + 1,
                column.name,
                value(found),
                value(wanted),
                shown(row),
                shown(other)
            ));
        }
    }
    let more = found.get(expected.len())?;
    Some(format!(
        "row {} is unexpected: {}",
        expected.len() + 1,
        shown(more)
    ))
}

fn value(value: &Value) -> String {
    match value {
        Some(text) => format!("{text:?}"),
        None => "null".to_owned(),
    }
}

fn shown(row: &[&Value]) -> String {
    let each: Vec<String> = row.iter().map(|one| value(one)).collect();
    format!("({})", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(types: &[u32], rows: &[&[&str]]) -> Rows {
        let column = |&oid: &u32| Column {
            name: "c".to_owned(),
            oid,
            typmod: -1,
        };
        let value = |text: &&str| (*text != "null").then(|| (*text).to_owned());
        Rows {
            columns: types.iter().map(column).collect(),
            rows: rows
                .iter()
                .map(|row| row.iter().map(value).collect())
                .collect(),
            copied: 0,
        }
    }

    #[test]
    fn rows_in_any_order() {
        let one = rows(&[23, 25], &[&["1", "a"], &["2", "null"]]);
        let other = rows(&[23, 25], &[&["2", "null"], &["1", "a"]]);
        let compare = |order| difference(&one, &other, order, Tolerance::NONE);
        assert_eq!(compare(Order::None), None);
        assert!(compare(Order::Total).unwrap().starts_with("row 1, column"));
        assert!(compare(Order::Keys(&[0])).unwrap().contains("the order"));
        let empty = rows(&[23, 25], &[]);
        let less = difference(&one, &empty, Order::None, Tolerance::NONE).unwrap();
        assert!(less.starts_with("0 rows, expected 2; row 1,"), "{less}");
        let types = rows(&[23, 1043], &[]);
        assert!(difference(&empty, &types, Order::None, Tolerance::NONE).is_some());
    }

    #[test]
    fn keys_that_are_equal_leave_the_order_open() {
        let one = rows(&[23, 25], &[&["2", "a"], &["2", "b"], &["1", "c"]]);
        let other = rows(&[23, 25], &[&["2", "b"], &["2", "a"], &["1", "c"]]);
        let by_key = difference(&one, &other, Order::Keys(&[0]), Tolerance::NONE);
        assert_eq!(by_key, None);
    }

    #[test]
    fn zeros_of_either_sign_have_a_place() {
        let one = rows(&[701], &[&["0"], &["-0"], &["1"]]);
        let other = rows(&[701], &[&["-0"], &["1"], &["0"]]);
        let compare = |other: &Rows| difference(&one, other, Order::None, Tolerance::NONE);
        assert_eq!(compare(&other), None);
        assert!(compare(&rows(&[701], &[&["0"], &["0"], &["1"]])).is_some());
    }

    #[test]
    fn floats_may_be_near() {
        let one = rows(&[701, 1700], &[&["1", "1.0"], &["-0", "2"], &["NaN", "3"]]);
        let other = rows(
            &[701, 1700],
            &[&["NaN", "3"], &["1.0000000000000002", "1.0"], &["0", "2"]],
        );
        let compare = |float, zeros| {
            let tolerance = Tolerance { float, zeros };
            difference(&one, &other, Order::None, tolerance)
        };
        assert_eq!(compare(1e-12, true), None);
        assert!(compare(1e-12, false).is_some());
        assert!(compare(0.0, true).is_some());
        let scale = rows(&[1700], &[&["1.0"]]);
        let other = rows(&[1700], &[&["1.00"]]);
        assert!(difference(&scale, &other, Order::None, Tolerance::NONE).is_some());
    }
}
