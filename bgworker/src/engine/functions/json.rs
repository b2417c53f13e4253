//! `jsonb` (`jsonfuncs.c`, `jsonb_op.c`, `jsonb_util.c`): texts, as Postgres prints them, which is how columns are stored. A
//! part of a value is printed as it stands in the whole: keys are there once, and numbers have no exponent.

use super::argument;
use super::rows::{Output, Rows, Texts, i32s};
use crate::engine::error::not_exact;
use crate::engine::expr::Val;
use crate::engine::values::from_i32;
use arrow::array::{ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;
use pg_lake_plan::function::JSON_DEPTH;
use pg_lake_plan::message::{ErrorCode, WireError};
use std::sync::Arc;

/// What a value is, by its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

impl Kind {
    pub(super) fn of(value: &str) -> Kind {
        match value.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        }
    }

    fn is_scalar(self) -> bool {
        !matches!(self, Kind::Object | Kind::Array)
    }

    /// `JsonbTypeName`
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::Null => "null",
        }
    }
}

/// Behind the string that begins here.
fn string_end(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Behind the value that begins here.
fn value_end(text: &[u8], from: usize) -> Option<usize> {
    match text.get(from)? {
        b'"' => return string_end(text, from),
        b'{' | b'[' => {}
        _ => {
            let rest = text.get(from..)?;
            let end = rest.iter().position(|b| matches!(b, b',' | b']' | b'}'));
            return Some(from + end.unwrap_or(rest.len()));
        }
    }
    let (mut at, mut depth) = (from, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => {
                at = string_end(text, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The elements of an array, or the members of an object, whose keys are in quotes.
struct Items<'a> {
    text: &'a str,
    at: usize,
    keyed: bool,
}

fn items(container: &str) -> Items<'_> {
    Items {
        text: container,
        at: 1,
        keyed: Kind::of(container) == Kind::Object,
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.at)? {
            b',' => self.at += 2,
            b']' | b'}' => return None,
            _ => {}
        }
        let mut key = "";
        if self.keyed {
            let end = string_end(bytes, self.at)?;
            key = self.text.get(self.at..end)?;
            self.at = end + 2;
        }
        let end = value_end(bytes, self.at)?;
        let value = self.text.get(self.at..end)?;
        self.at = end;
        Some((key, value))
    }
}

/// `escape_json`
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The reverse, part by part.
fn unquoted(string: &str, out: &mut Output<'_>) -> Result<(), WireError> {
    let inner = string.strip_prefix('"').and_then(|s| s.strip_suffix('"'));
    let mut rest = inner.unwrap_or(string);
    while let Some(at) = rest.find('\\') {
        let (before, escaped) = rest.split_at(at);
        out.append(before)?;
        let mut chars = escaped.chars().skip(1);
        let c = match chars.next() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let code = escaped
                    .get(2..6)
                    .and_then(|d| u32::from_str_radix(d, 16).ok());
                let c = code.and_then(char::from_u32);
                out.append(c.unwrap_or('\u{fffd}').encode_utf8(&mut [0; 4]))?;
                rest = escaped.get(6..).unwrap_or("");
                continue;
            }
            Some(c) => c,
            None => return Ok(()),
        };
        out.append(c.encode_utf8(&mut [0; 4]))?;
        rest = escaped.get(1 + c_length(escaped)..).unwrap_or("");
    }
    out.append(rest)
}

/// Bytes of the character behind the escape character.
fn c_length(escaped: &str) -> usize {
    escaped.chars().nth(1).map_or(0, char::len_utf8)
}

/// A part of a value, if there is one, as `jsonb` or as a text, which there is none of null.
fn give(part: Option<&str>, as_text: bool, out: &mut Output<'_>) -> Result<bool, WireError> {
    let Some(part) = part else {
        return Ok(false);
    };
    match Kind::of(part) {
        Kind::Null if as_text => return Ok(false),
        Kind::String if as_text => unquoted(part, out)?,
        _ => out.append(part)?,
    }
    Ok(true)
}

/// The value of a key in quotes.
fn member<'a>(value: &'a str, key: &str) -> Option<&'a str> {
    if Kind::of(value) != Kind::Object {
        return None;
    }
    let mut members = items(value);
    members.find(|(k, _)| *k == key).map(|(_, value)| value)
}

/// Negative numbers count from the end.
fn element(array: &str, number: i32) -> Option<&str> {
    let number = match usize::try_from(number) {
        Ok(number) => number,
        Err(_) => {
            let from_end = usize::try_from(number.unsigned_abs()).ok()?;
            items(array).count().checked_sub(from_end)?
        }
    };
    items(array).nth(number).map(|(_, value)| value)
}

/// The quoted form of keys, which are often the same.
#[derive(Default)]
struct Keys {
    key: Option<String>,
    quoted: String,
}

impl Keys {
    fn quoted(&mut self, key: &str) -> &str {
        if self.key.as_deref() != Some(key) {
            self.quoted = quoted(key);
            self.key = Some(key.to_owned());
        }
        &self.quoted
    }
}

/// `jsonb_object_field`
pub(super) fn field(rows: &Rows, as_text: bool, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (value, key) = (
        Texts::of(argument(args, 0)?)?,
        Texts::of(argument(args, 1)?)?,
    );
    let mut keys = Keys::default();
    rows.some_texts(&[&value], |row, out| {
        let part = member(value.at(row), keys.quoted(key.at(row)));
        give(part, as_text, out)
    })
}

/// `jsonb_array_element`: a scalar is its own first element.
pub(super) fn at(rows: &Rows, as_text: bool, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (value, number) = (Texts::of(argument(args, 0)?)?, i32s(argument(args, 1)?)?);
    rows.some_texts(&[&value], |row, out| {
        let (value, number) = (value.at(row), number.at(row));
        let part = match Kind::of(value) {
            Kind::Object => None,
            Kind::Array => element(value, number),
            _ => matches!(number, 0 | -1).then_some(value),
        };
        give(part, as_text, out)
    })
}

/// One step of `jsonb_get_element`: by a key, or by a number that is a text.
pub(super) fn step(rows: &Rows, as_text: bool, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (value, key) = (
        Texts::of(argument(args, 0)?)?,
        Texts::of(argument(args, 1)?)?,
    );
    let mut keys = Keys::default();
    rows.some_texts(&[&value], |row, out| {
        let (value, key) = (value.at(row), key.at(row));
        let part = match Kind::of(value) {
            Kind::Object => member(value, keys.quoted(key)),
            Kind::Array => subscript(key).and_then(|number| element(value, number)),
            _ => None,
        };
        give(part, as_text, out)
    })
}

/// `strtoint` of all of a text.
fn subscript(text: &str) -> Option<i32> {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r');
    text.trim_start_matches(blank).parse().ok()
}

/// `jsonb_typeof`
pub(super) fn kind(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let value = Texts::of(argument(args, 0)?)?;
    rows.texts(&[], |row, out| out.append(Kind::of(value.at(row)).name()))
}

/// `jsonb_array_length`
pub(super) fn length(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let value = Texts::of(argument(args, 0)?)?;
    let of_row = |row| match Kind::of(value.at(row)) {
        Kind::Array => {
            let count = items(value.at(row)).count();
            Ok(i32::try_from(count).unwrap_or(i32::MAX))
        }
        Kind::Object => Err("cannot get array length of a non-array"),
        _ => Err("cannot get array length of a scalar"),
    };
    let refused = |message: &str| WireError::new(ErrorCode::InvalidParameter, message);
    let values = rows.try_map(of_row, refused)?;
    Ok(from_i32(values, rows.nulls(), &DataType::Int32))
}

/// `jsonb_exists`: a key, or a string in an array.
pub(super) fn has_key(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (value, key) = (
        Texts::of(argument(args, 0)?)?,
        Texts::of(argument(args, 1)?)?,
    );
    let mut keys = Keys::default();
    let of_row = |row| {
        let (value, key) = (value.at(row), keys.quoted(key.at(row)));
        Ok::<bool, WireError>(match Kind::of(value) {
            Kind::Object => member(value, key).is_some(),
            Kind::Array => items(value).any(|(_, element)| element == key),
            _ => value == key,
        })
    };
    let values = rows.try_map(of_row, |error| error)?;
    let values = BooleanBuffer::from(values);
    Ok(Arc::new(BooleanArray::new(values, rows.nulls())))
}

/// `jsonb_contains`
pub(super) fn contains(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (value, part) = (
        Texts::of(argument(args, 0)?)?,
        Texts::of(argument(args, 1)?)?,
    );
    let of_row = |row| -> Result<bool, ()> {
        let (value, part) = (value.at(row), part.at(row));
        let (has, wants) = (Kind::of(value), Kind::of(part));
        // A scalar contains no array, but an array a scalar.
        if has.is_scalar() && wants.is_scalar() {
            return Ok(is_same(value, part));
        }
        if has == Kind::Array && wants.is_scalar() {
            return Ok(items(value).any(|(_, element)| is_same(element, part)));
        }
        deep_contains(value, part, 0)
    };
    let too_deep = |()| not_exact("a jsonb is nested too deeply for the engine");
    let values = BooleanBuffer::from(rows.try_map(of_row, too_deep)?);
    Ok(Arc::new(BooleanArray::new(values, rows.nulls())))
}

/// `JsonbDeepContains`
fn deep_contains(value: &str, part: &str, depth: usize) -> Result<bool, ()> {
    let kind = Kind::of(value);
    if kind != Kind::of(part) || kind.is_scalar() {
        return Ok(false);
    }
    if depth > JSON_DEPTH {
        return Err(());
    }
    for (key, wanted) in items(part) {
        let scalar = Kind::of(wanted).is_scalar();
        let found = match (kind, scalar) {
            (Kind::Object, true) => member(value, key).is_some_and(|v| is_same(v, wanted)),
            (Kind::Object, false) => match member(value, key) {
                Some(value) => deep_contains(value, wanted, depth + 1)?,
                None => false,
            },
            (_, true) => items(value).any(|(_, element)| is_same(element, wanted)),
            (_, false) => any_contains(value, wanted, depth + 1)?,
        };
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether one of the elements does.
fn any_contains(array: &str, part: &str, depth: usize) -> Result<bool, ()> {
    for (_, element) in items(array) {
        if deep_contains(element, part, depth)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Scalars that are equal: numbers by their value.
fn is_same(left: &str, right: &str) -> bool {
    let numbers = Kind::of(left) == Kind::Number && Kind::of(right) == Kind::Number;
    if numbers {
        shortest(left) == shortest(right)
    } else {
        left == right
    }
}

/// A number without zeros at its end.
fn shortest(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
