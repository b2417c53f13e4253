//! `jsonb` (`jsonfuncs.c`, `jsonb_op.c`, `jsonb_util.c`): texts, as Postgres prints them, which is how columns are stored. A
//! part of a value is printed as it stands in the whole: keys are there once, and numbers have no exponent. A text that isn't
//! such a one is damaged, which is an error where the damage is in the way.

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

/// A text isn't what Postgres prints of a `jsonb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

impl From<Damaged> for WireError {
    fn from(_: Damaged) -> WireError {
        WireError::new(ErrorCode::DataCorrupted, "a value of type jsonb is damaged")
    }
}

/// What a value is.
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
    /// Containers and strings by their ends: what is between these is looked at when it is taken apart.
    pub(super) fn of(value: &str) -> Result<Kind, Damaged> {
        match value.as_bytes() {
            [b'{', .., b'}'] => Ok(Kind::Object),
            [b'[', .., b']'] => Ok(Kind::Array),
            [b'"', .., b'"'] => Ok(Kind::String),
            b"true" | b"false" => Ok(Kind::Boolean),
            b"null" => Ok(Kind::Null),
            _ if is_number(value) => Ok(Kind::Number),
            _ => Err(Damaged),
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

/// Digits, with a point between them or without.
pub(super) fn is_number(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    is_digits(whole) && is_digits(fraction)
}

/// Behind the string that begins here; `None` if none does, or if it has no end.
pub(super) fn string_end(text: &[u8], from: usize) -> Option<usize> {
    if text.get(from) != Some(&b'"') {
        return None;
    }
    let mut at = from + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The same of a value.
pub(super) fn value_end(text: &[u8], from: usize) -> Option<usize> {
    match text.get(from)? {
        b'"' => return string_end(text, from),
        b'{' | b'[' => {}
        _ => {
            let rest = text.get(from..)?;
            let is_part =
                |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(b);
            let length = rest.iter().take_while(|b| is_part(b)).count();
            return (length > 0).then_some(from + length);
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

/// The elements of an array, or the members of an object, whose keys are in quotes. Whoever finds damage stops there.
struct Items<'a> {
    text: &'a str,
    /// Where the next one begins; the text's end if there is none.
    at: usize,
    keyed: bool,
}

fn items(container: &str) -> Items<'_> {
    Items {
        text: container,
        at: if container.len() == 2 { 2 } else { 1 },
        keyed: container.starts_with('{'),
    }
}

impl<'a> Items<'a> {
    fn item(&mut self) -> Result<Option<(&'a str, &'a str)>, Damaged> {
        let bytes = self.text.as_bytes();
        if self.at == bytes.len() {
            return Ok(None);
        }
        let mut key = "";
        if self.keyed {
            let end = string_end(bytes, self.at).ok_or(Damaged)?;
            key = self.text.get(self.at..end).ok_or(Damaged)?;
            self.at = end + 2;
            if bytes.get(end..self.at) != Some(b": ".as_slice()) {
                return Err(Damaged);
            }
        }
        let end = value_end(bytes, self.at).ok_or(Damaged)?;
        let value = self.text.get(self.at..end).ok_or(Damaged)?;
        self.at = match bytes.get(end..) {
            Some([b',', b' ', ..]) => end + 2,
            Some([b'}']) if self.keyed => end + 1,
            Some([b']']) if !self.keyed => end + 1,
            _ => return Err(Damaged),
        };
        Ok(Some((key, value)))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<(&'a str, &'a str), Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        self.item().transpose()
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
    let mut rest = inner.ok_or(Damaged)?;
    while let Some(at) = rest.find(['\\', '"']) {
        let (before, escaped) = rest.split_at(at);
        out.append(before)?;
        let (c, length) = unescaped(escaped).ok_or(Damaged)?;
        out.append(c.encode_utf8(&mut [0; 4]))?;
        rest = escaped.get(length..).ok_or(Damaged)?;
    }
    out.append(rest)
}

/// The character that the first of these mean, and how many bytes they have.
pub(super) fn unescaped(text: &str) -> Option<(char, usize)> {
    let c = match text.as_bytes() {
        [b'\\', b'b', ..] => '\u{8}',
        [b'\\', b'f', ..] => '\u{c}',
        [b'\\', b'n', ..] => '\n',
        [b'\\', b'r', ..] => '\r',
        [b'\\', b't', ..] => '\t',
        [b'\\', c @ (b'"' | b'\\'), ..] => char::from(*c),
        [b'\\', b'u', ..] => {
            let code = u32::from_str_radix(text.get(2..6)?, 16).ok()?;
            return Some((char::from_u32(code)?, 6));
        }
        _ => return None,
    };
    Some((c, 2))
}

/// A part of a value, if there is one, as `jsonb` or as a text, which there is none of null.
fn give(part: Option<&str>, as_text: bool, out: &mut Output<'_>) -> Result<bool, WireError> {
    let Some(part) = part else {
        return Ok(false);
    };
    match Kind::of(part)? {
        Kind::Null if as_text => return Ok(false),
        Kind::String if as_text => unquoted(part, out)?,
        _ => out.append(part)?,
    }
    Ok(true)
}

/// The value of a key in quotes.
fn member<'a>(object: &'a str, key: &str) -> Result<Option<&'a str>, Damaged> {
    for item in items(object) {
        let (found, value) = item?;
        if found == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Negative numbers count from the end.
fn element(array: &str, number: i32) -> Result<Option<&str>, Damaged> {
    let from_start = match usize::try_from(number) {
        Ok(number) => Some(number),
        Err(_) => count(array)?.checked_sub(number.unsigned_abs() as usize),
    };
    let Some(mut left) = from_start else {
        return Ok(None);
    };
    for item in items(array) {
        let (_, value) = item?;
        if left == 0 {
            return Ok(Some(value));
        }
        left -= 1;
    }
    Ok(None)
}

fn count(array: &str) -> Result<usize, Damaged> {
    items(array).try_fold(0, |count, item| item.map(|_| count + 1))
}

/// Whether `test` is true of an element.
fn any(
    array: &str,
    mut test: impl FnMut(&str) -> Result<bool, WireError>,
) -> Result<bool, WireError> {
    for item in items(array) {
        let (_, element) = item?;
        if test(element)? {
            return Ok(true);
        }
    }
    Ok(false)
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
        let value = value.at(row);
        let part = match Kind::of(value)? {
            Kind::Object => member(value, keys.quoted(key.at(row)))?,
            _ => None,
        };
        give(part, as_text, out)
    })
}

/// `jsonb_array_element`: a scalar is its own first element.
pub(super) fn at(rows: &Rows, as_text: bool, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (value, number) = (Texts::of(argument(args, 0)?)?, i32s(argument(args, 1)?)?);
    rows.some_texts(&[&value], |row, out| {
        let (value, number) = (value.at(row), number.at(row));
        let part = match Kind::of(value)? {
            Kind::Object => None,
            Kind::Array => element(value, number)?,
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
        let part = match Kind::of(value)? {
            Kind::Object => member(value, keys.quoted(key))?,
            Kind::Array => match subscript(key) {
                Some(number) => element(value, number)?,
                None => None,
            },
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
    rows.texts(&[], |row, out| out.append(Kind::of(value.at(row))?.name()))
}

/// `jsonb_array_length`
pub(super) fn length(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let value = Texts::of(argument(args, 0)?)?;
    let refused = |message: &str| Err(WireError::new(ErrorCode::InvalidParameter, message));
    let of_row = |row| -> Result<i32, WireError> {
        let value = value.at(row);
        match Kind::of(value)? {
            Kind::Array => Ok(i32::try_from(count(value)?).unwrap_or(i32::MAX)),
            Kind::Object => refused("cannot get array length of a non-array"),
            _ => refused("cannot get array length of a scalar"),
        }
    };
    let values = rows.try_map(of_row, |error| error)?;
    Ok(from_i32(values, rows.nulls(), &DataType::Int32))
}

/// `jsonb_exists`: a key, or a string in an array.
pub(super) fn has_key(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (value, key) = (
        Texts::of(argument(args, 0)?)?,
        Texts::of(argument(args, 1)?)?,
    );
    let mut keys = Keys::default();
    let of_row = |row| -> Result<bool, WireError> {
        let (value, key) = (value.at(row), keys.quoted(key.at(row)));
        Ok(match Kind::of(value)? {
            Kind::Object => member(value, key)?.is_some(),
            Kind::Array => any(value, |element| Ok(element == key))?,
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
    let of_row = |row| -> Result<bool, WireError> {
        let (value, part) = (value.at(row), part.at(row));
        let (has, wants) = (Kind::of(value)?, Kind::of(part)?);
        // A scalar contains no array, but an array a scalar.
        if has.is_scalar() && wants.is_scalar() {
            return Ok(is_same(value, part)?);
        }
        if has == Kind::Array && wants.is_scalar() {
            return any(value, |element| Ok(is_same(element, part)?));
        }
        deep_contains(value, part, 0)
    };
    let values = BooleanBuffer::from(rows.try_map(of_row, |error| error)?);
    Ok(Arc::new(BooleanArray::new(values, rows.nulls())))
}

/// `JsonbDeepContains`
fn deep_contains(value: &str, part: &str, depth: usize) -> Result<bool, WireError> {
    let kind = Kind::of(value)?;
    if kind != Kind::of(part)? || kind.is_scalar() {
        return Ok(false);
    }
    if depth > JSON_DEPTH {
        return Err(not_exact("a jsonb is nested too deeply for the engine"));
    }
    for item in items(part) {
        let (key, wanted) = item?;
        let scalar = Kind::of(wanted)?.is_scalar();
        let contains = |value: &str| -> Result<bool, WireError> {
            match scalar {
                true => Ok(is_same(value, wanted)?),
                false => deep_contains(value, wanted, depth + 1),
            }
        };
        let found = match kind {
            Kind::Object => match member(value, key)? {
                Some(value) => contains(value)?,
                None => false,
            },
            _ => any(value, contains)?,
        };
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Scalars that are equal: numbers by their value.
fn is_same(left: &str, right: &str) -> Result<bool, Damaged> {
    let numbers = Kind::of(left)? == Kind::Number && Kind::of(right)? == Kind::Number;
    Ok(if numbers {
        shortest(left) == shortest(right)
    } else {
        left == right
    })
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
