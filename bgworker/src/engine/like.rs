//! `LIKE`: `%`, `_` and `\` as escape; everything else is equal byte by byte (`like_match.c`).

use super::error::internal;
use arrow::array::{Array, ArrayRef, BooleanArray, StringArray};
use arrow::buffer::BooleanBuffer;
use pg_lake_plan::message::{ErrorCode, WireError};
use std::sync::Arc;

/// A compiled pattern.
#[derive(Debug, PartialEq)]
pub(super) enum Pattern {
    Equals(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// Starts with the first, ends with the last, has the others in this order in between.
    Parts {
        first: String,
        middle: Vec<String>,
        last: String,
    },
    /// Has a `_`.
    General(Vec<Token>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token {
    Byte(u8),
    /// One character.
    One,
    /// Any number of characters.
    Many,
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Pattern, WireError> {
        let mut parts = vec![String::new()];
        let mut tokens = vec![];
        let mut chars = pattern.chars();
        let literal = |c: char, parts: &mut Vec<String>, tokens: &mut Vec<Token>| {
            if let Some(part) = parts.last_mut() {
                part.push(c);
            }
            let mut utf8 = [0; 4];
            tokens.extend(c.encode_utf8(&mut utf8).bytes().map(Token::Byte));
        };
        let mut any_one = false;
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some(c) => literal(c, &mut parts, &mut tokens),
                    None => return Err(incomplete()),
                },
                '%' => {
                    parts.push(String::new());
                    if tokens.last() != Some(&Token::Many) {
                        tokens.push(Token::Many);
                    }
                }
                '_' => {
                    any_one = true;
                    tokens.push(Token::One);
                }
                c => literal(c, &mut parts, &mut tokens),
            }
        }
        if any_one {
            return Ok(Pattern::General(tokens));
        }
        let last = parts.pop().unwrap_or_default();
        if parts.is_empty() {
            return Ok(Pattern::Equals(last));
        }
        let first = parts.remove(0);
        parts.retain(|part| !part.is_empty());
        Ok(match (first.is_empty(), parts.len(), last.is_empty()) {
            (_, 0, true) => Pattern::Prefix(first),
            (true, 0, false) => Pattern::Suffix(last),
            (true, 1, true) => Pattern::Contains(parts.remove(0)),
            _ => Pattern::Parts {
                first,
                middle: parts,
                last,
            },
        })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Equals(p) => text == p,
            Pattern::Prefix(p) => text.as_bytes().starts_with(p.as_bytes()),
            Pattern::Suffix(p) => text.as_bytes().ends_with(p.as_bytes()),
            Pattern::Contains(p) => text.contains(p.as_str()),
            Pattern::Parts {
                first,
                middle,
                last,
            } => {
                let Some(rest) = text.strip_prefix(first.as_str()) else {
                    return false;
                };
                let Some(mut rest) = rest.strip_suffix(last.as_str()) else {
                    return false;
                };
                middle.iter().all(|part| match find(rest, part) {
                    Some(end) => {
                        rest = rest.get(end..).unwrap_or("");
                        true
                    }
                    None => false,
                })
            }
            Pattern::General(tokens) => general(text.as_bytes(), tokens),
        }
    }
}

/// End of the first occurrence of `part`, which isn't empty.
fn find(text: &str, part: &str) -> Option<usize> {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    let first = *part.first()?;
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        at += rest.iter().position(|&b| b == first)?;
        if text.get(at..)?.starts_with(part) {
            return Some(at + part.len());
        }
        at += 1;
    }
    None
}

/// Goes back to the last `%` only: what an earlier one could match, the last can too.
fn general(text: &[u8], tokens: &[Token]) -> bool {
    let (mut t, mut p) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match tokens.get(p) {
            Some(Token::Many) => {
                p += 1;
                back = Some((t, p));
                continue;
            }
            Some(Token::One) => {
                t = next_char(text, t);
                p += 1;
                continue;
            }
            Some(Token::Byte(b)) if text.get(t) == Some(b) => {
                t += 1;
                p += 1;
                continue;
            }
            _ => {}
        }
        let Some((start, after)) = back else {
            return false;
        };
        let start = next_char(text, start);
        back = Some((start, after));
        (t, p) = (start, after);
    }
    tokens
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|t| *t == Token::Many))
}

/// `MatchText`, for a pattern that is used once. Like there, it is an error only for some texts if the pattern ends
/// with an escape character.
pub(super) fn matches(text: &str, pattern: &str) -> Result<bool, WireError> {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (mut t, mut p) = (0, 0);
    // Where the rest after the last `%` was tried, and where it begins.
    let mut back: Option<(usize, usize)> = None;
    loop {
        let Some(byte) = text.get(t) else {
            let rest = pattern.get(p..).unwrap_or_default();
            return Ok(rest.iter().all(|b| *b == b'%'));
        };
        let expected = match pattern.get(p) {
            Some(b'%') => match after_wildcards(text, t, pattern, p) {
                None => return Ok(false),
                Some((_, rest)) if rest == pattern.len() => return Ok(true),
                Some((start, rest)) => {
                    if pattern.get(rest..) == Some(b"\\".as_slice()) {
                        return Err(incomplete());
                    }
                    back = Some((start, rest));
                    (t, p) = (start, rest);
                    continue;
                }
            },
            Some(b'_') => {
                t = next_char(text, t);
                p += 1;
                continue;
            }
            Some(b'\\') => {
                p += 1;
                Some(pattern.get(p).ok_or_else(incomplete)?)
            }
            other => other,
        };
        if expected == Some(byte) {
            t += 1;
            p += 1;
            continue;
        }
        let Some((start, rest)) = back else {
            return Ok(false);
        };
        let start = next_char(text, start);
        back = Some((start, rest));
        (t, p) = (start, rest);
    }
}

/// Goes past `%` and the wildcards that follow it; `None` if the text is too short for these.
fn after_wildcards(
    text: &[u8],
    mut t: usize,
    pattern: &[u8],
    mut p: usize,
) -> Option<(usize, usize)> {
    loop {
        match pattern.get(p) {
            Some(b'%') => {}
            Some(b'_') if t < text.len() => t = next_char(text, t),
            Some(b'_') => return None,
            _ => return Some((t, p)),
        }
        p += 1;
    }
}

fn incomplete() -> WireError {
    let message = "LIKE pattern must not end with escape character";
    WireError::new(ErrorCode::EscapeSequence, message)
}

fn next_char(text: &[u8], at: usize) -> usize {
    let continuation = |b: &&u8| **b & 0xC0 == 0x80;
    let rest = text.get(at + 1..).unwrap_or(&[]);
    at + 1 + rest.iter().take_while(continuation).count()
}

pub(super) fn like(
    pattern: &Pattern,
    array: &ArrayRef,
    negated: bool,
) -> Result<ArrayRef, WireError> {
    let text = array
        .as_any()
        .downcast_ref::<StringArray>()
        .ok_or_else(|| internal("LIKE of another type"))?;
    let test = |i| pattern.matches(text.value(i)) != negated;
    let values = BooleanBuffer::collect_bool(text.len(), test);
    Ok(Arc::new(BooleanArray::new(values, text.nulls().cloned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, pattern: &str) -> bool {
        Pattern::new(pattern).expect("a pattern").matches(text)
    }

    #[test]
    fn patterns_match_as_in_postgres() {
        for (text, pattern, expected) in [
            ("abc", "abc", true),
            ("abc", "ab", false),
            ("abc", "ab%", true),
            ("abc", "%bc", true),
            ("abc", "%b%", true),
            ("aXbXc", "a%b%c", true),
            ("ab", "ab%ab", false),
            ("abab", "ab%ab", true),
            ("special packages requests", "%special%requests%", true),
            ("requests special", "%special%requests%", false),
            ("", "", true),
            ("", "%", true),
            ("", "_", false),
            ("é", "_", true),
            ("éa", "_a", true),
            ("xéyz", "%_z", true),
            ("a%c", "a\\%c", true),
            ("abc", "a\\%c", false),
            ("a_c", "a\\_c", true),
            ("abcd", "a_%d", true),
            ("ad", "a_%d", false),
            ("mississippi", "m%_ss%p_", true),
            ("mississippi", "%iss%iss%iss%", false),
            ("aé", "%__", true),
            ("é", "%__", false),
            ("ab", "%_%_%", true),
            ("abcabd", "%ab_", true),
            ("a\\c", "a\\\\c", true),
            ("aab", "%ab", true),
            ("a", "a%%", true),
            ("", "%%", true),
            ("", "\\a", false),
        ] {
            assert_eq!(matches(text, pattern), expected, "{text} LIKE {pattern}");
            let once = super::matches(text, pattern).expect("a complete pattern");
            assert_eq!(once, expected, "{text} LIKE {pattern}");
        }
    }

    #[test]
    fn a_trailing_escape_is_refused() {
        assert!(Pattern::new("abc\\").is_err());
        for (text, pattern, fails) in [
            ("abc", "abc\\", false),
            ("abcd", "abc\\", true),
            ("x", "abc\\", false),
            ("abc", "%\\", true),
            ("", "%\\", false),
            ("abc", "%c\\", false),
            ("abcd", "%c\\", true),
            ("abc", "%____\\", false),
        ] {
            let result = super::matches(text, pattern);
            assert_eq!(result.is_err(), fails, "{text} LIKE {pattern}");
        }
    }
}
