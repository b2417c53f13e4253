//! What `jsonb` is compared by (`compareJsonbContainers`, `jsonb_util.c`): a text whose bytes have that order.
//!
//! Postgres goes through both values at once, and the first difference decides. So each thing that it meets is written in
//! its turn, none being the beginning of another one: of a container its kind and how many items it has, then the items,
//! keys first. A scalar is an array of one element that counts as less than a true array of one. The empty array thus comes
//! before all scalars, as in Postgres.

use super::argument;
use super::json::{Damaged, Kind, is_number, string_end, unescaped, value_end};
use super::rows::{Rows, Texts};
use crate::engine::error::not_exact;
use crate::engine::expr::Val;
use arrow::array::ArrayRef;
use pg_lake_plan::message::WireError;

// Kinds in their order (`enum jbvType`, but for strings and numbers, which `jsonb.h` has in this one, too).
const NULL: char = 'a';
const STRING: char = 'b';
const NUMBER: char = 'c';
const BOOLEAN: char = 'd';
const ARRAY: char = 'e';
const OBJECT: char = 'f';

/// After the count of an array: whether it stands for a scalar.
const RAW: char = 'a';
const ELEMENTS: char = 'b';

/// Ends a string: less than all characters in one. Those that aren't more than [`ESCAPE`] come after one.
const END: char = '\u{1}';
const ESCAPE: char = '\u{2}';

/// Digits, of 6 bits each, of the number of items in a container.
const COUNT: usize = 6;

/// The same of an exponent.
const EXPONENT: usize = 4;
const EXPONENT_MAX: i64 = 1 << 23;

/// Levels at once: Postgres' stack has room for less. They take some bytes each.
const DEPTH: usize = 1 << 20;

/// What is kept from one row to the next.
const KEPT: usize = 1 << 20;

/// A container whose end wasn't seen yet.
struct Open {
    /// Where its count is.
    at: usize,
    count: u64,
    keyed: bool,
}

/// `jsonb_cmp`, `jsonb_eq` … are comparisons of these.
pub(super) fn orders(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let value = Texts::of(argument(args, 0)?)?;
    let (mut order, mut open) = (String::new(), vec![]);
    rows.texts(&[&value], |row, out| {
        let value = value.at(row);
        // What is made beside the result is about as long.
        out.expect(value.len())?;
        order.clear();
        open.clear();
        write(value, &mut order, &mut open)?;
        out.append(&order)?;
        if order.capacity() > KEPT {
            order = String::new();
        }
        if open.capacity() * size_of::<Open>() > KEPT {
            open = vec![];
        }
        Ok(())
    })
}

fn write(value: &str, order: &mut String, open: &mut Vec<Open>) -> Result<(), WireError> {
    if !value.starts_with(['{', '[']) {
        order.push(ARRAY);
        push_digits(1, COUNT, order);
        order.push(RAW);
        return Ok(scalar(value, order)?);
    }
    let bytes = value.as_bytes();
    let mut at = 0;
    loop {
        // A value begins here.
        if let Some(b'{' | b'[') = bytes.get(at) {
            if open.len() == DEPTH {
                return Err(not_exact("a jsonb is nested too deeply for the engine"));
            }
            let keyed = bytes.get(at) == Some(&b'{');
            order.push(if keyed { OBJECT } else { ARRAY });
            let count_at = order.len();
            push_digits(0, COUNT, order);
            if !keyed {
                order.push(ELEMENTS);
            }
            at += 1;
            let empty = ends(bytes, at, keyed);
            open.push(Open {
                at: count_at,
                count: u64::from(!empty),
                keyed,
            });
            if !empty {
                at = key(value, at, keyed, order)?;
                continue;
            }
        } else {
            let end = value_end(bytes, at).ok_or(Damaged)?;
            scalar(value.get(at..end).ok_or(Damaged)?, order)?;
            at = end;
        }
        // And has ended here, perhaps with what it is in.
        loop {
            let Some(container) = open.last_mut() else {
                return if at == bytes.len() {
                    Ok(())
                } else {
                    Err(Damaged.into())
                };
            };
            if ends(bytes, at, container.keyed) {
                let mut count = String::with_capacity(COUNT);
                push_digits(container.count, COUNT, &mut count);
                order.replace_range(container.at..container.at + COUNT, &count);
                open.pop();
                at += 1;
                continue;
            }
            if bytes.get(at..at + 2) != Some(b", ".as_slice()) {
                return Err(Damaged.into());
            }
            container.count += 1;
            at = key(value, at + 2, container.keyed, order)?;
            break;
        }
    }
}

fn ends(text: &[u8], at: usize, keyed: bool) -> bool {
    text.get(at) == Some(if keyed { &b'}' } else { &b']' })
}

/// Where an item's value begins: in an object behind its key.
fn key(text: &str, at: usize, keyed: bool, order: &mut String) -> Result<usize, Damaged> {
    if !keyed {
        return Ok(at);
    }
    let end = string_end(text.as_bytes(), at).ok_or(Damaged)?;
    string(text.get(at..end).ok_or(Damaged)?, order)?;
    match text.as_bytes().get(end..end + 2) {
        Some(b": ") => Ok(end + 2),
        _ => Err(Damaged),
    }
}

/// `compareJsonbScalarValue`
fn scalar(value: &str, order: &mut String) -> Result<(), Damaged> {
    match Kind::of(value)? {
        Kind::Null => order.push(NULL),
        Kind::Boolean => {
            order.push(BOOLEAN);
            order.push(if value == "true" { 'b' } else { 'a' });
        }
        Kind::Number => {
            order.push(NUMBER);
            number(value, order)?;
        }
        Kind::String => {
            order.push(STRING);
            string(value, order)?;
        }
        Kind::Object | Kind::Array => return Err(Damaged),
    }
    Ok(())
}

/// A string in quotes. It must be one: what ends with a quote may have another one before.
fn string(quoted: &str, order: &mut String) -> Result<(), Damaged> {
    let inner = quoted.strip_prefix('"').and_then(|s| s.strip_suffix('"'));
    let mut rest = inner.ok_or(Damaged)?;
    while let Some(at) = rest.find(['\\', '"']) {
        let (before, escaped) = rest.split_at(at);
        characters(before, order);
        let (c, length) = unescaped(escaped).ok_or(Damaged)?;
        characters(c.encode_utf8(&mut [0; 4]), order);
        rest = escaped.get(length..).ok_or(Damaged)?;
    }
    characters(rest, order);
    order.push(END);
    Ok(())
}

fn characters(text: &str, order: &mut String) {
    if text.chars().all(|c| c > ESCAPE) {
        order.push_str(text);
        return;
    }
    for c in text.chars() {
        if c <= ESCAPE {
            order.push(ESCAPE);
        }
        order.push(c);
    }
}

/// A number by its sign, by how many digits it has before the point (less than none: zeros after it), and by its digits. Zeros
/// at its end don't count.
fn number(text: &str, order: &mut String) -> Result<(), Damaged> {
    if !is_number(text) {
        return Err(Damaged);
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut whole = whole.trim_start_matches('0');
    let mut fraction = fraction.trim_end_matches('0');
    let mut exponent = length(whole);
    if whole.is_empty() {
        let digits = fraction.trim_start_matches('0');
        exponent = length(digits) - length(fraction);
        fraction = digits;
    }
    if fraction.is_empty() {
        whole = whole.trim_end_matches('0');
        if whole.is_empty() {
            order.push('b');
            return Ok(());
        }
    }
    if exponent.abs() >= EXPONENT_MAX {
        return Err(Damaged);
    }
    let biased = (exponent + EXPONENT_MAX) as u64;
    let digits = whole.bytes().chain(fraction.bytes());
    if negative {
        // The larger, the less.
        order.push('a');
        push_digits((1 << (6 * EXPONENT)) - 1 - biased, EXPONENT, order);
        order.extend(digits.map(|digit| char::from(b'0' + b'9' - digit)));
        order.push('~');
    } else {
        order.push('c');
        push_digits(biased, EXPONENT, order);
        order.extend(digits.map(char::from));
        order.push(' ');
    }
    Ok(())
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

/// So many digits of 6 bits, the highest first. What is above them is left out.
fn push_digits(number: u64, count: usize, order: &mut String) {
    for place in (0..count).rev() {
        let digit = (number >> (6 * place)) & 63;
        order.push(char::from(b'0' + digit as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use arrow::array::{Array, AsArray};
    use pg_lake_plan::function::Function;
    use pg_lake_plan::message::ErrorCode;
    use pg_lake_plan::types::LakeType;
    use std::cmp::Ordering;

    fn order(value: &str) -> String {
        let result = result(Function::JsonOrder, &LakeType::Text, &[text(value)]);
        result.as_string::<i32>().value(0).to_owned()
    }

    fn compared(left: &str, right: &str) -> Ordering {
        order(left).as_bytes().cmp(order(right).as_bytes())
    }

    // jsonb.h, and the comments of compareJsonbContainers. Each is less than all that follow.
    #[test]
    fn kinds_and_sizes_come_first() {
        let ascending = [
            "[]",
            "null",
            r#""""#,
            r#""\u0001""#,
            r#""\u0001a""#,
            r#""\u0002""#,
            r#""\u0003""#,
            r#"" ""#,
            r#""A""#,
            r#""a""#,
            r#""a\"""#,
            r#""aa""#,
            r#""b""#,
            r#""ä""#,
            r#""日""#,
            r#""😀""#,
            "-99999999999999999999999999999999999999999",
            "-1000",
            "-100.5",
            "-100",
            "-12.51",
            "-12.5",
            "-12",
            "-1.01",
            "-1",
            "-0.5",
            "-0.05",
            "-0.005",
            "0",
            "0.0000000000000000000000000000000000000000000001",
            "0.005",
            "0.0051",
            "0.05",
            "0.5",
            "1",
            "1.01",
            "2",
            "10",
            "11",
            "100",
            "1000.5",
            "99999999999999999999999999999999999999999",
            "false",
            "true",
            "[null]",
            r#"[""]"#,
            r#"["a"]"#,
            "[1]",
            "[1.5]",
            "[true]",
            "[[]]",
            "[[null]]",
            "[[1]]",
            "[[1, 2]]",
            "[{}]",
            r#"[{"a": 1}]"#,
            "[null, null]",
            "[1, 2]",
            "[1, 2, 3]",
            "{}",
            r#"{"": 0}"#,
            r#"{"a": null}"#,
            r#"{"a": 1}"#,
            r#"{"a": 2}"#,
            r#"{"a": []}"#,
            r#"{"a": {}}"#,
            r#"{"aa": null}"#,
            r#"{"b": null}"#,
            r#"{"a": 1, "b": 1}"#,
            r#"{"a": 1, "c": 0}"#,
            r#"{"a": 1, "b": 0, "aa": 0}"#,
        ];
        for (at, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                assert_eq!(compared(left, right), at.cmp(&other), "{left} and {right}");
            }
        }
    }

    #[test]
    fn zeros_at_the_end_make_no_difference() {
        for (left, right) in [
            ("1", "1.0"),
            ("1.5", "1.500"),
            ("0", "0.000"),
            ("-10", "-10.00"),
            ("0.10", "0.1"),
            ("[1, {\"a\": 12.50}]", "[1.0, {\"a\": 12.5}]"),
        ] {
            assert_eq!(compared(left, right), Ordering::Equal, "{left} and {right}");
        }
        assert_ne!(compared("1", "10"), Ordering::Equal);
        assert_ne!(compared("[1, 0]", "[10]"), Ordering::Equal);
    }

    #[test]
    fn nulls_and_counts_of_many_items() {
        let many = |count: usize| format!("[{}]", vec!["1"; count].join(", "));
        assert_eq!(compared(&many(63), &many(64)), Ordering::Less);
        assert_eq!(compared(&many(5000), &many(4999)), Ordering::Greater);
        let args = [texts(&[Some("[]"), None])];
        let orders = result(Function::JsonOrder, &LakeType::Text, &args);
        assert!(orders.is_valid(0) && orders.is_null(1));
    }

    #[test]
    fn depth_is_no_limit() {
        let deep = |inner: &str| "[".repeat(20_000) + inner + &"]".repeat(20_000);
        assert_eq!(compared(&deep("1"), &deep("1.0")), Ordering::Equal);
        assert_eq!(compared(&deep("1"), &deep("2")), Ordering::Less);
        let args = [text(&"[".repeat(DEPTH + 1))];
        let refused = error(Function::JsonOrder, &LakeType::Text, &args);
        assert_eq!(refused.code, ErrorCode::NotExact);
    }

    #[test]
    fn damage_is_an_error() {
        for damaged in [
            "",
            "[",
            "[1",
            "[1,2]",
            "[1, ]",
            "[1}",
            "[1] ",
            "{\"a\":1}",
            "{\"a\": }",
            "{\"a\"}",
            "{1: 1}",
            "{\"a\": 1, }",
            "\"",
            "\"a\"b\"",
            "\"\\x\"",
            "1e5",
            "1.2.3",
            "-",
            ".5",
            "nul",
            "[[1]",
            "[1]]",
        ] {
            let refused = error(Function::JsonOrder, &LakeType::Text, &[text(damaged)]);
            assert_eq!(refused.code, ErrorCode::DataCorrupted, "{damaged}");
        }
    }
}
