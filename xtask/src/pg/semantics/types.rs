//! The types of the grammar, and values of theirs: nasty ones, and tame ones that arithmetic can be done with.

/// A Postgres type. [`Type::TextC`] is `text` of collation C: mixed with the default one, Postgres refuses to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    TextC,
    Varchar,
    Char,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Bytea,
    /// Columns only: see `ALL`.
    Jsonb,
}

/// Those that random expressions are made of.
pub const ALL: &[Type] = &[
    Type::Bool,
    Type::Int2,
    Type::Int4,
    Type::Int8,
    Type::Float4,
    Type::Float8,
    Type::Numeric,
    Type::Text,
    Type::TextC,
    Type::Varchar,
    Type::Char,
    Type::Date,
    Type::Time,
    Type::Timestamp,
    Type::Timestamptz,
    Type::Interval,
    Type::Uuid,
    Type::Bytea,
];

impl Type {
    /// In the lists of functions, and in what is said of coverage.
    pub fn name(self) -> &'static str {
        match self {
            Type::Bool => "bool",
            Type::Int2 => "int2",
            Type::Int4 => "int4",
            Type::Int8 => "int8",
            Type::Float4 => "float4",
            Type::Float8 => "float8",
            Type::Numeric => "numeric",
            Type::Text => "text",
            Type::TextC => "textc",
            Type::Varchar => "varchar",
            Type::Char => "char",
            Type::Date => "date",
            Type::Time => "time",
            Type::Timestamp => "timestamp",
            Type::Timestamptz => "timestamptz",
            Type::Interval => "interval",
            Type::Uuid => "uuid",
            Type::Bytea => "bytea",
            Type::Jsonb => "jsonb",
        }
    }

    pub fn named(name: &str) -> Option<Type> {
        ALL.iter().copied().find(|ty| ty.name() == name)
    }

    pub fn is_float(self) -> bool {
        matches!(self, Type::Float4 | Type::Float8)
    }

    /// Whether equal values of one column may look different. -0 and 0 do as well, which the comparison of
    /// results knows.
    pub fn varies(self) -> bool {
        matches!(self, Type::Numeric | Type::Interval)
    }

    /// A value of the type in SQL; `None` is null.
    pub fn literal(self, value: Option<&str>) -> String {
        let value = match value {
            Some(text) => format!("'{}'", text.replace('\'', "''")),
            None => "NULL".to_owned(),
        };
        match self {
            Type::TextC => format!("({value}::text COLLATE \"C\")"),
            Type::Char => format!("{value}::char(5)"),
            _ => format!("{value}::{}", self.name()),
        }
    }

    /// Values that break what wasn't made for them.
    pub fn nasty(self) -> &'static [&'static str] {
        match self {
            Type::Bool => &["true", "false"],
            Type::Int2 => &["0", "1", "-1", "32767", "-32768", "7", "100"],
            Type::Int4 => &[
                "0",
                "1",
                "-1",
                "2147483647",
                "-2147483648",
                "42",
                "1000",
                "-5",
            ],
            Type::Int8 => &[
                "0",
                "1",
                "-1",
                "9223372036854775807",
                "-9223372036854775808",
                "4294967296",
                "42",
            ],
            Type::Float4 => &[
                "0",
                "-0",
                "1",
                "-1.5",
                "0.1",
                "1e-40",
                "3.4028235e38",
                "16777216",
                "NaN",
                "Infinity",
                "-Infinity",
            ],
            Type::Float8 => &[
                "0",
                "-0",
                "1",
                "-1.5",
                "0.1",
                "2.5",
                "5e-324",
                "1.7976931348623157e308",
                "9007199254740993",
                "NaN",
                "Infinity",
                "-Infinity",
            ],
            Type::Numeric => &[
                "0",
                "1",
                "-1.50",
                "0.005",
                "-0.005",
                "99999.99",
                "NaN",
                "123456789012345.6789",
            ],
            Type::Text | Type::TextC => &[
                "",
                " ",
                "a",
                "A",
                "b",
                "ab",
                "AB",
                "aB ",
                "a b",
                "ä",
                "Ä",
                "ß",
                "éa",
                "日本",
                "😀",
                "a%",
                "a_b",
                "\\",
                "'",
                "10",
                " 42 ",
                "NaN",
                "zz",
                "Zz",
                "a\tb",
                "a\nb",
                "e\u{301}a",
            ],
            Type::Varchar => &[
                "", " ", "a", "A", "ab ", "ä", "ß", "日本", "10", "zz", "a_b",
            ],
            Type::Char => &["", "a", "A", "ab   ", "ä", "b", "ab c", "zzzzz", " a"],
            Type::Date => &[
                "1970-01-01",
                "2000-02-29",
                "1999-12-31",
                "0001-01-01",
                "9999-12-31",
                "4713-01-01 BC",
                "5874897-12-31",
                "infinity",
                "-infinity",
            ],
            Type::Time => &[
                "00:00:00",
                "23:59:59.999999",
                "24:00:00",
                "12:30:45.5",
                "04:05:06",
            ],
            Type::Timestamp => &[
                "1970-01-01 00:00:00",
                "2000-02-29 23:59:59.999999",
                "1999-12-31 12:00:00.5",
                "1969-12-31 23:59:59.999999",
                "2024-03-10 02:30:00",
                "0001-01-01 00:00:00",
                "4713-01-01 00:00:00 BC",
                "294276-12-31 23:59:59.999999",
                "infinity",
                "-infinity",
            ],
            Type::Timestamptz => &[
                "1970-01-01 00:00:00+00",
                "2000-02-29 23:59:59.999999+00",
                "1999-12-31 12:00:00.5+05:30",
                "2024-03-10 07:30:00+00",
                "2024-11-03 05:30:00+00",
                "0001-01-01 00:00:00+00",
                "infinity",
                "-infinity",
            ],
            Type::Interval => &[
                "0",
                "1 day",
                "25:00:00",
                "-1 month",
                "30 days",
                "1 year 2 mons 3 days 04:05:06.789",
                "00:00:00.000001",
            ],
            Type::Uuid => &[
                "00000000-0000-0000-0000-000000000000",
                "ffffffff-ffff-ffff-ffff-ffffffffffff",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "00000000-0000-0000-0000-000000000001",
                "80000000-0000-0000-0000-000000000000",
            ],
            Type::Bytea => &[
                "\\x",
                "\\x00",
                "\\xff",
                "\\x00ff",
                "\\x61",
                "\\x6162",
                "\\x616263",
            ],
            Type::Jsonb => &[
                "null",
                "true",
                "false",
                "0",
                "12.50",
                "-1e3",
                "99999999999999999999.5",
                "-0.005",
                "\"a\"",
                "\"\"",
                "\"\\u0001\"",
                "[]",
                "[[]]",
                "[null]",
                "{\"b\": 1}",
                "[1, \"a\", null, {\"a\": [true]}, [2, 2]]",
                "{}",
                "{\"a\": 1}",
                "{\"a\": {\"b\": [1.0, \"x\"]}, \"b\": null, \"\": \"\"}",
                "{\"a\": \"\\u00e4\\n\\\"\", \"x\": [{\"a\": 2}], \"1\": -7}",
            ],
        }
    }

    /// Values with which arithmetic goes well. No number is zero; floats add up exactly, in any order.
    pub fn tame(self) -> &'static [&'static str] {
        match self {
            Type::Int2 | Type::Int4 | Type::Int8 => &["1", "2", "3", "5", "7", "10", "-2"],
            Type::Float4 | Type::Float8 => &["0.25", "1", "2.5", "-3", "10"],
            Type::Numeric => &["1.00", "2.50", "-3.25", "10", "0.07"],
            Type::Date => &["1994-01-01", "1995-03-15", "1996-12-31"],
            Type::Timestamp => &["1994-01-01 12:00:00", "1996-02-29 23:59:59.5"],
            Type::Timestamptz => &["1994-01-01 12:00:00+00", "1996-02-29 23:59:59.5+00"],
            Type::Interval => &["1 day", "02:00:00", "1 month", "-3 days"],
            other => other.nasty(),
        }
    }
}
