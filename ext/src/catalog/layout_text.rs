//! The text of the options `partition_by`, `sort_by` and `bloom_filter_columns`.
//!
//! ```text
//! partition_by = field [, …]     field = column | transform(column) | bucket(n, column) | truncate(width, column)
//! sort_by = key [, …]            key   = column [ASC | DESC] [NULLS FIRST | NULLS LAST]
//! bloom_filter_columns = column [, …]
//! ```
//!
//! Columns are identifiers as in SQL. Their places in the text are kept, so that a renamed one is renamed there and the
//! rest stays as it was written.
//!
//! Text only, no Postgres call, so that it can be tested without a server.
#![deny(unsafe_code)]

use pg_lake_plan::layout::Transform;
use std::ops::Range;

/// A column's name, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub place: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionKey {
    pub column: Column,
    pub transform: Transform,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    pub column: Column,
    pub descending: bool,
    pub nulls_first: bool,
}

/// Why a text isn't one: what is wrong with it.
type Parsed<T> = Result<T, String>;

/// Reads `partition_by`.
pub fn partition_by(text: &str) -> Parsed<Vec<PartitionKey>> {
    list(text, |parser| {
        let name = parser.word("a column or a transform")?;
        if !parser.takes('(') {
            return Ok(PartitionKey {
                column: name.column(),
                transform: Transform::Identity,
            });
        }
        let transform = transform(parser, &name)?;
        let column = parser.word("a column")?.column();
        parser.expect(')')?;
        Ok(PartitionKey { column, transform })
    })
}

fn transform(parser: &mut Parser<'_>, name: &Word) -> Parsed<Transform> {
    let known = match (name.quoted, name.name.as_str()) {
        (true, _) => None,
        (false, "bucket" | "truncate") => {
            let number = parser.number()?;
            parser.expect(',')?;
            if name.name == "bucket" {
                Some(Transform::Bucket(number))
            } else {
                Some(Transform::Truncate(number))
            }
        }
        (false, "identity") => Some(Transform::Identity),
        (false, "year" | "years") => Some(Transform::Year),
        (false, "month" | "months") => Some(Transform::Month),
        (false, "day" | "days") => Some(Transform::Day),
        (false, "hour" | "hours") => Some(Transform::Hour),
        _ => None,
    };
    known.ok_or_else(|| format!("There is no transform \"{}\".", name.name))
}

/// Reads `sort_by`.
pub fn sort_by(text: &str) -> Parsed<Vec<SortKey>> {
    list(text, |parser| {
        let column = parser.word("a column")?.column();
        let descending = parser.takes_word("desc");
        if !descending {
            parser.takes_word("asc");
        }
        // Nulls are larger than everything else, as in ORDER BY.
        let mut nulls_first = descending;
        if parser.takes_word("nulls") {
            nulls_first = parser.takes_word("first");
            if !nulls_first && !parser.takes_word("last") {
                return Err("NULLS must be followed by FIRST or LAST.".to_owned());
            }
        }
        Ok(SortKey {
            column,
            descending,
            nulls_first,
        })
    })
}

/// Reads `bloom_filter_columns`.
pub fn columns(text: &str) -> Parsed<Vec<Column>> {
    list(text, |parser| Ok(parser.word("a column")?.column()))
}

/// A text in which other identifiers are in some places.
pub fn with_names(text: &str, mut places: Vec<Range<usize>>, name: &str) -> String {
    let mut text = text.to_owned();
    places.sort_by_key(|place| std::cmp::Reverse(place.start));
    for place in places {
        text.replace_range(place, &quoted(name));
    }
    text
}

/// An identifier as this module reads it back.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

fn list<T>(text: &str, item: impl Fn(&mut Parser<'_>) -> Parsed<T>) -> Parsed<Vec<T>> {
    let mut parser = Parser { text, at: 0 };
    let mut items = vec![item(&mut parser)?];
    while parser.takes(',') {
        items.push(item(&mut parser)?);
    }
    if parser.peek().is_some() {
        return Err(format!("\"{}\" is not expected.", parser.rest()));
    }
    Ok(items)
}

/// An identifier.
struct Word {
    name: String,
    quoted: bool,
    place: Range<usize>,
}

impl Word {
    fn column(self) -> Column {
        Column {
            name: self.name,
            place: self.place,
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// The next character after white space.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        let blank = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_whitespace())
                .len();
        self.at += blank;
        self.rest().chars().next()
    }

    fn takes(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Parsed<()> {
        if self.takes(wanted) {
            return Ok(());
        }
        Err(format!("\"{wanted}\" is missing {}.", self.whereabouts()))
    }

    fn whereabouts(&mut self) -> String {
        match self.peek() {
            None => "at the end".to_owned(),
            Some(_) => format!("before \"{}\"", self.rest()),
        }
    }

    fn number(&mut self) -> Parsed<u32> {
        self.peek();
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let text = &self.text[self.at..self.at + digits];
        let number = text.parse::<u32>().ok();
        // Iceberg's numbers of buckets and widths are Java's integers.
        let number = number.filter(|n| (1..=i32::MAX as u32).contains(n));
        let number = number.ok_or_else(|| {
            format!(
                "A number from 1 to 2147483647 is missing {}.",
                self.whereabouts()
            )
        })?;
        self.at += digits;
        Ok(number)
    }

    /// Whether the next word is this keyword.
    fn takes_word(&mut self, keyword: &str) -> bool {
        self.peek();
        let before = self.at;
        let found = self.plain_word().is_some_and(|word| word.name == keyword);
        if !found {
            self.at = before;
        }
        found
    }

    fn word(&mut self, wanted: &str) -> Parsed<Word> {
        let start = match self.peek() {
            Some('"') => self.at,
            _ => {
                return match self.plain_word() {
                    Some(word) => Ok(word),
                    None => Err(format!(
                        "The name of {wanted} is missing {}.",
                        self.whereabouts()
                    )),
                };
            }
        };
        let mut name = String::new();
        let mut chars = self.text[start + 1..].char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c != '"' {
                name.push(c);
            } else if chars.next_if(|(_, next)| *next == '"').is_some() {
                name.push('"');
            } else if name.is_empty() {
                break;
            } else {
                self.at = start + 1 + at + 1;
                return Ok(Word {
                    name,
                    quoted: true,
                    place: start..self.at,
                });
            }
        }
        Err("A quoted name is empty or has no end.".to_owned())
    }

    /// An identifier without quotes, in lower case as Postgres makes it.
    fn plain_word(&mut self) -> Option<Word> {
        let begins = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
        let rest = self.rest();
        if !rest.starts_with(begins) {
            return None;
        }
        let end = rest
            .find(|c: char| !(begins(c) || c.is_ascii_digit() || c == '$'))
            .unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        let place = self.at..self.at + end;
        self.at = place.end;
        Some(Word {
            name,
            quoted: false,
            place,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(text: &str) -> Vec<(String, Transform)> {
        let keys = partition_by(text).expect(text);
        keys.into_iter()
            .map(|key| (key.column.name, key.transform))
            .collect()
    }

    #[test]
    fn partition_keys_are_read() {
        let read =
            partitions("Region, BUCKET ( 16 ,id),day(ts), truncate(4, \"Co,\"\"de\"),years(d)");
        let expected = [
            ("region", Transform::Identity),
            ("id", Transform::Bucket(16)),
            ("ts", Transform::Day),
            ("Co,\"de", Transform::Truncate(4)),
            ("d", Transform::Year),
        ];
        let expected = expected.map(|(name, transform)| (name.to_owned(), transform));
        assert_eq!(read, expected);
        assert_eq!(
            partitions("identity(größe), hour"),
            [
                ("größe".to_owned(), Transform::Identity),
                ("hour".to_owned(), Transform::Identity)
            ]
        );
    }

    #[test]
    fn sort_keys_are_read() {
        let keys = sort_by("ts DESC NULLS LAST, id,\"Desc\" desc, nulls nulls first, a asc")
            .expect("keys");
        let read: Vec<_> = keys
            .iter()
            .map(|key| (key.column.name.as_str(), key.descending, key.nulls_first))
            .collect();
        let expected = [
            ("ts", true, false),
            ("id", false, false),
            ("Desc", true, true),
            ("nulls", false, true),
            ("a", false, false),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for wrong in [
            "",
            " ",
            ",",
            "a,",
            "a b",
            "bucket(id)",
            "bucket(0, id)",
            "bucket(4294967296, id)",
            "bucket(16 id)",
            "truncate(-1, id)",
            "day(ts",
            "day()",
            "void(a)",
            "\"day\"(ts)",
            "\"a",
            "\"\"",
            "1a",
            "a)",
            "lower(a)",
        ] {
            assert!(partition_by(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "",
            "a nulls",
            "a first",
            "a asc desc",
            "day(ts)",
            "a nulls last x",
        ] {
            assert!(sort_by(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "a,", "a desc", "a b", "bucket(4, a)"] {
            assert!(columns(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn columns_are_read() {
        let read = columns("Id, \"Odd, one\" ,größe").expect("columns");
        let names: Vec<&str> = read.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["id", "Odd, one", "größe"]);
    }

    #[test]
    fn names_are_replaced_in_place() {
        let text = "bucket(16, id),  ID , truncate(4,\"id\")";
        let places = partition_by(text)
            .expect("keys")
            .into_iter()
            .map(|key| key.column.place)
            .collect::<Vec<_>>();
        assert_eq!(
            with_names(text, places.clone(), "key"),
            "bucket(16, key),  key , truncate(4,key)"
        );
        let odd = with_names(text, places, "Odd \"one\"");
        assert_eq!(
            odd,
            "bucket(16, \"Odd \"\"one\"\"\"),  \"Odd \"\"one\"\"\" , truncate(4,\"Odd \"\"one\"\"\")"
        );
        let names = partition_by(&odd).expect("keys");
        assert!(names.iter().all(|key| key.column.name == "Odd \"one\""));
    }
}
