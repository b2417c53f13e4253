//! Patterns that aren't known before the rows are, and texts that are taken apart (`like_match.c`, `varlena.c`,
//! `oracle_compat.c`).

use super::argument;
use super::rows::{Rows, Texts, i32s};
use crate::engine::error::not_exact;
use crate::engine::expr::Val;
use crate::engine::like::{self, Pattern};
use arrow::array::{ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use pg_lake_plan::function::is_complete;
use pg_lake_plan::message::{ErrorCode, WireError};
use std::sync::Arc;

/// Bytes of a text for which Postgres might not get the memory that `translate` asks for.
const TRANSLATED_MAX: usize = 1 << 27;

pub(super) fn like(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (text, pattern) = (argument(args, 0)?, argument(args, 1)?);
    let (text, patterns) = (Texts::of(text)?, (pattern.is_scalar(), Texts::of(pattern)?));
    let values = match patterns {
        (true, pattern) if is_complete(pattern.at(0)) => {
            let pattern = Pattern::new(pattern.at(0))?;
            BooleanBuffer::collect_bool(rows.count, |row| pattern.matches(text.at(row)))
        }
        (_, pattern) => {
            let matches = |row| like::matches(text.at(row), pattern.at(row));
            let values: Vec<bool> = rows.try_map(matches, |error| error)?;
            BooleanBuffer::from(values)
        }
    };
    Ok(Arc::new(BooleanArray::new(values, rows.nulls())))
}

/// The field of this number, from 1, or from the end.
fn field<'a>(text: &'a str, delimiter: &str, number: i32) -> &'a str {
    if text.is_empty() {
        return "";
    }
    if delimiter.is_empty() {
        return if matches!(number, 1 | -1) { text } else { "" };
    }
    let before = if number > 0 {
        i64::from(number) - 1
    } else {
        text.split(delimiter).count() as i64 + i64::from(number)
    };
    usize::try_from(before)
        .ok()
        .and_then(|before| text.split(delimiter).nth(before))
        .unwrap_or_default()
}

pub(super) fn split_part(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let delimiter = Texts::of(argument(args, 1)?)?;
    let number = i32s(argument(args, 2)?)?;
    rows.texts(&[&text], |row, out| match number.at(row) {
        0 => Err(WireError::new(
            ErrorCode::InvalidParameter,
            "field position must not be zero",
        )),
        number => out.append(field(text.at(row), delimiter.at(row), number)),
    })
}

pub(super) fn translate(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let from = Texts::of(argument(args, 1)?)?;
    let to = Texts::of(argument(args, 2)?)?;
    let mut translated = String::new();
    rows.texts(&[&text], |row, out| {
        let (text, from, to) = (text.at(row), from.at(row), to.at(row));
        if text.len() > TRANSLATED_MAX {
            return Err(not_exact("a text is too long for the engine to translate"));
        }
        out.expect(text.len())?;
        translated.clear();
        for c in text.chars() {
            match from.chars().position(|other| other == c) {
                None => translated.push(c),
                // Without a counterpart it is left out.
                Some(at) => translated.extend(to.chars().nth(at)),
            }
        }
        out.append(&translated)
    })
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use arrow::array::AsArray;
    use pg_lake_plan::function::Function;
    use pg_lake_plan::types::LakeType;

    fn likes(args: &[Val]) -> Vec<Option<bool>> {
        let result = result(Function::Like, &LakeType::Bool, args);
        result.as_boolean().iter().collect()
    }

    #[test]
    fn each_row_has_its_pattern() {
        let args = [
            texts(&[Some("abc"), Some("abc"), None, Some("a%c"), Some("é")]),
            texts(&[Some("a%"), Some("_b"), Some("%"), Some("a\\%c"), Some("_")]),
        ];
        let expected = [Some(true), Some(false), None, Some(true), Some(true)];
        assert_eq!(likes(&args), expected);
        let args = [
            text("abc"),
            texts(&[Some("%c"), None, Some("abc%"), Some("")]),
        ];
        let expected = [Some(true), None, Some(true), Some(false)];
        assert_eq!(likes(&args), expected);
    }

    #[test]
    fn an_incomplete_pattern_is_an_error_where_postgres_gets_to_its_end() {
        let one = |value| [texts(&[Some(value)]), text("ab\\")];
        // The text ends before, or differs.
        assert_eq!(likes(&one("ab")), [Some(false)]);
        assert_eq!(likes(&one("xy")), [Some(false)]);
        let error = error(Function::Like, &LakeType::Bool, &one("abc"));
        assert_eq!(error.code, ErrorCode::EscapeSequence);
        let message = "LIKE pattern must not end with escape character";
        assert_eq!(error.message, message);
    }

    // strings.out
    #[test]
    fn fields() {
        let part = |text_: &str, delimiter: &str, number| {
            let args = [text(text_), text(delimiter), int(number)];
            let result = result(Function::SplitPart, &LakeType::Text, &args);
            result.as_string::<i32>().value(0).to_owned()
        };
        for (text, delimiter, number, expected) in [
            ("", "@", 1, ""),
            ("", "@", -1, ""),
            ("joeuser@mydatabase", "", 1, "joeuser@mydatabase"),
            ("joeuser@mydatabase", "", 2, ""),
            ("joeuser@mydatabase", "", -1, "joeuser@mydatabase"),
            ("joeuser@mydatabase", "", -2, ""),
            ("joeuser@mydatabase", "@", 1, "joeuser"),
            ("joeuser@mydatabase", "@", 2, "mydatabase"),
            ("joeuser@mydatabase", "@", 3, ""),
            ("@joeuser@mydatabase@", "@", 2, "joeuser"),
            ("joeuser@mydatabase", "@", -1, "mydatabase"),
            ("joeuser@mydatabase", "@", -2, "joeuser"),
            ("joeuser@mydatabase", "@", -3, ""),
            ("joeuser@mydatabase", "@", i32::MIN, ""),
            ("@joeuser@mydatabase@", "@", -2, "mydatabase"),
            ("abc~@~def~@~ghi", "~@~", 2, "def"),
            ("aaaa", "aa", 2, ""),
            ("xäöy", "ö", 1, "xä"),
        ] {
            assert_eq!(part(text, delimiter, number), expected, "{text} {number}");
        }
        let args = [texts(&[None, Some("a")]), text("a"), int(0)];
        let error = error(Function::SplitPart, &LakeType::Text, &args);
        assert_eq!(error.code, ErrorCode::InvalidParameter);
    }

    // strings.out
    #[test]
    fn translations() {
        let translate = |text_: &str, from: &str, to: &str| {
            let args = [text(text_), text(from), text(to)];
            let result = result(Function::Translate, &LakeType::Text, &args);
            result.as_string::<i32>().value(0).to_owned()
        };
        assert_eq!(translate("", "14", "ax"), "");
        assert_eq!(translate("12345", "14", "ax"), "a23x5");
        assert_eq!(translate("12345", "134", "a"), "a25");
        assert_eq!(translate("äbä", "äb", "€ö"), "€ö€");
        assert_eq!(translate("aa", "aa", "xy"), "xx");
    }
}
