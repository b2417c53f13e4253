//! The tables: the same rows in heap and in iceberg, where some are hot, some cold, and some deleted or changed.

use super::types::Type;
use crate::client::Client;
use crate::compare::{Order, Tolerance, difference};
use crate::pg::random::Random;
use crate::{Result, say};

/// The schemas.
pub const HEAP: &str = "h";
pub const LAKE: &str = "t";

pub struct Column {
    pub name: &'static str,
    pub ty: Type,
    declared: &'static str,
    values: Values,
    /// Whether arithmetic with its values goes well.
    pub tame: bool,
}

#[derive(Clone, Copy)]
enum Values {
    /// Another one for each row.
    Number,
    /// Whole numbers.
    Range(i64, i64),
    /// Multiples of a quarter up to these, with NaN and the infinities now and then.
    Quarters(i64),
    /// With two digits after the point.
    Cents,
    /// Days of some years; with a time of day.
    Days(bool),
    Nasty,
    These(&'static [&'static str]),
}

const fn column(
    name: &'static str,
    ty: Type,
    declared: &'static str,
    values: Values,
    tame: bool,
) -> Column {
    Column {
        name,
        ty,
        declared,
        values,
        tame,
    }
}

/// Every table has them. The first one tells the rows apart.
#[rustfmt::skip]
pub const COLUMNS: &[Column] = &[
    column("id", Type::Int4, "int NOT NULL", Values::Number, true),
    column("k", Type::Int4, "int", Values::Range(-3, 12), true),
    column("kn", Type::Int4, "int NOT NULL", Values::Range(0, 9), true),
    column("k8", Type::Int8, "bigint", Values::Range(-3, 12), true),
    column("k2", Type::Int2, "smallint", Values::Range(-3, 12), true),
    column("b", Type::Bool, "boolean", Values::Nasty, false),
    column("i2", Type::Int2, "smallint", Values::Nasty, false),
    column("i4", Type::Int4, "int", Values::Nasty, false),
    column("i8", Type::Int8, "bigint", Values::Nasty, false),
    column("f4", Type::Float4, "real", Values::Nasty, false),
    column("f8", Type::Float8, "double precision", Values::Nasty, false),
    column("g4", Type::Float4, "real", Values::Quarters(16), true),
    column("g8", Type::Float8, "double precision", Values::Quarters(1000), true),
    column("n2", Type::Numeric, "numeric(12,2)", Values::Cents, true),
    column("n0", Type::Numeric, "numeric(5,0)", Values::These(&["0", "1", "-1", "99999", "-99999", "NaN", "7"]), false),
    column("n10", Type::Numeric, "numeric(38,10)", Values::These(WIDE), false),
    column("t", Type::Text, "text", Values::Nasty, false),
    column("tc", Type::TextC, "text COLLATE \"C\"", Values::Nasty, false),
    column("v", Type::Varchar, "varchar(20)", Values::Nasty, false),
    column("ch", Type::Char, "char(5)", Values::Nasty, false),
    column("d", Type::Date, "date", Values::Nasty, false),
    column("dn", Type::Date, "date NOT NULL", Values::Days(false), true),
    column("ts", Type::Timestamp, "timestamp", Values::Nasty, false),
    column("tn", Type::Timestamp, "timestamp", Values::Days(true), true),
    column("tz", Type::Timestamptz, "timestamptz", Values::Nasty, false),
    column("zn", Type::Timestamptz, "timestamptz", Values::Days(true), true),
    column("ti", Type::Time, "time", Values::Nasty, false),
    column("u", Type::Uuid, "uuid", Values::Nasty, false),
    column("iv", Type::Interval, "interval", Values::Nasty, false),
    column("x", Type::Bytea, "bytea", Values::Nasty, false),
    column("j", Type::Jsonb, "jsonb", Values::Nasty, false),
];

const WIDE: &[&str] = &[
    "0",
    "1",
    "-1",
    "2.5",
    "0.0000000001",
    "9999999999999999999999999999.9999999999",
    "-9999999999999999999999999999.9999999999",
    "12345678901234567890.0123456789",
    "NaN",
];

/// Where the rows of an iceberg table are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// In two files and in the heap; some are deleted or changed.
    Mixed,
    /// The same, but no value is one that Iceberg can't hold: the engine never leaves its rows to Postgres.
    Storable,
    Cold,
    Hot,
}

/// Name, number of rows, and where they are.
const TABLES: &[(&str, u64, Rows)] = &[
    ("a", 240, Rows::Mixed),
    ("b", 90, Rows::Mixed),
    ("c", 24, Rows::Cold),
    ("d", 30, Rows::Hot),
    ("e", 0, Rows::Cold),
];

/// The tables by their size: more than one of the first two makes many pairs.
pub const LARGE: &[&str] = &["a", "b"];
pub const SMALL: &[&str] = &["c", "d"];
pub const EMPTY: &str = "e";

/// The tables of calls that are made of everything there is, one by one: a larger one, and one to join it with.
pub const SWEPT: &str = "s";
pub const PARTNER: &str = "c";
const SWEPT_TABLES: &[(&str, u64, Rows)] =
    &[(SWEPT, 200, Rows::Storable), (PARTNER, 24, Rows::Cold)];

/// Makes all tables of random queries anew.
pub fn make(client: &mut Client, random: &mut Random) -> Result<()> {
    make_tables(client, random, TABLES)
}

/// Makes [`SWEPT`] and [`PARTNER`] in the place of all other tables.
pub fn make_swept(client: &mut Client, random: &mut Random) -> Result<()> {
    make_tables(client, random, SWEPT_TABLES)
}

fn make_tables(
    client: &mut Client,
    random: &mut Random,
    tables: &[(&str, u64, Rows)],
) -> Result<()> {
    client.rows(&format!(
        "SET lake.engine = off;
         DROP SCHEMA IF EXISTS {HEAP} CASCADE; DROP SCHEMA IF EXISTS {LAKE} CASCADE;
         CREATE SCHEMA {HEAP}; CREATE SCHEMA {LAKE};"
    ))?;
    for (name, count, rows) in tables {
        let columns: Vec<String> = COLUMNS
            .iter()
            .map(|column| format!("{} {}", column.name, column.declared))
            .collect();
        let columns = columns.join(", ");
        client.rows(&format!(
            "CREATE TABLE {HEAP}.{name} ({columns}) USING heap;
             CREATE TABLE {LAKE}.{name} ({columns}) USING iceberg;"
        ))?;
        if *count > 0 {
            let values: Vec<String> = (1..=*count)
                .map(|id| {
                    let storable = matches!(rows, Rows::Cold | Rows::Storable) || random.chance(70);
                    row(random, id, storable)
                })
                .collect();
            client.rows(&format!(
                "INSERT INTO {HEAP}.{name} VALUES {}",
                values.join(",\n")
            ))?;
        }
        fill(client, name, *rows)?;
        for schema in [HEAP, LAKE] {
            client.rows(&format!("ANALYZE {schema}.{name}"))?;
        }
        equal(client, name)?;
    }
    Ok(())
}

/// Copies a heap table's rows into its twin, and changes both.
fn fill(client: &mut Client, name: &str, rows: Rows) -> Result<()> {
    let copy = |bulk: i32, which: &str| {
        format!(
            "SET lake.bulk_rows = {bulk};
             INSERT INTO {LAKE}.{name} SELECT * FROM {HEAP}.{name} WHERE {which};"
        )
    };
    match rows {
        Rows::Hot => drop(client.rows(&copy(-1, "true"))?),
        Rows::Cold => drop(client.rows(&copy(0, "true"))?),
        Rows::Mixed | Rows::Storable => {
            client.rows(&copy(0, "id % 5 < 2"))?;
            client.rows(&copy(0, "id % 5 = 2"))?;
            client.rows(&copy(-1, "id % 5 > 2"))?;
            for schema in [HEAP, LAKE] {
                client.rows(&format!(
                    "DELETE FROM {schema}.{name} WHERE id % 17 = 3;
                     UPDATE {schema}.{name} SET k = k + 1, t = t || 'c' WHERE id % 13 = 5;"
                ))?;
            }
        }
    }
    let places = client.rows(&format!(
        "SELECT cold_rows, (SELECT count(*) FROM {LAKE}.{name}) - cold_rows,
                (SELECT COALESCE(sum(deleted_rows), 0) FROM lake.data_files f WHERE f.\"table\" = t.\"table\")
         FROM lake.tables t WHERE \"table\" = '{LAKE}.{name}'::regclass"
    ))?;
    let place = |at: usize| {
        let row = places.rows.first();
        let value = row.and_then(|row| row.get(at)).and_then(|v| v.as_deref());
        value.is_some_and(|value| value != "0")
    };
    let (cold, hot, deleted) = (place(0), place(1), place(2));
    let right = match rows {
        Rows::Mixed | Rows::Storable => cold && hot && deleted,
        Rows::Cold => !hot,
        Rows::Hot => !cold,
    };
    if right {
        return Ok(());
    }
    Err(format!(
        "{name}: cold rows {cold}, hot ones {hot}, deleted cold ones {deleted}"
    ))
}

/// Nothing can be said of answers if the tables aren't the same.
fn equal(client: &mut Client, name: &str) -> Result<()> {
    let all = |schema: &str| format!("SELECT * FROM {schema}.{name} ORDER BY id");
    let heap = client.rows(&all(HEAP))?;
    let lake = client.rows(&all(LAKE))?;
    match difference(&heap, &lake, Order::Total, Tolerance::NONE) {
        None => Ok(()),
        Some(what) => {
            say(&format!("    the tables {name} are not the same"));
            Err(format!("{name}: {what}"))
        }
    }
}

/// One that isn't `storable` may have values that Iceberg can't hold: it stays hot.
fn row(random: &mut Random, id: u64, storable: bool) -> String {
    let values: Vec<String> = COLUMNS
        .iter()
        .map(|column| {
            let nullable = !column.declared.ends_with("NOT NULL");
            if nullable && random.chance(12) {
                return "NULL".to_owned();
            }
            let mut text = value(random, column, id);
            while storable && !is_storable(column.ty, &text) {
                text = value(random, column, id);
            }
            format!("'{}'", text.replace('\'', "''"))
        })
        .collect();
    format!("({})", values.join(", "))
}

fn value(random: &mut Random, column: &Column, id: u64) -> String {
    let between = |random: &mut Random, from: i64, to: i64| {
        let width = to.abs_diff(from) + 1;
        from + random.below(width).cast_signed()
    };
    match column.values {
        Values::Number => id.to_string(),
        Values::Range(from, to) => between(random, from, to).to_string(),
        Values::Quarters(most) => match random.below(60) {
            0 => "NaN".to_owned(),
            1 => "Infinity".to_owned(),
            2 => "-Infinity".to_owned(),
            _ => (between(random, -most * 4, most * 4) as f64 / 4.0).to_string(),
        },
        Values::Cents => {
            let cents = between(random, -99_999, 99_999);
            let sign = if cents < 0 { "-" } else { "" };
            format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
        }
        Values::Days(with_time) => {
            let day = format!(
                "{}-{:02}-{:02}",
                between(random, 1993, 1998),
                between(random, 1, 12),
                between(random, 1, 28)
            );
            let hour = between(random, 0, 23);
            let second = between(random, 0, 59);
            if with_time {
                format!("{day} {hour:02}:30:{second:02}.25")
            } else {
                day
            }
        }
        Values::Nasty => (*random.one_of(column.ty.nasty())).to_owned(),
        Values::These(values) => (*random.one_of(values)).to_owned(),
    }
}

/// What `docs/types.md` says of the columns' types.
fn is_storable(ty: Type, value: &str) -> bool {
    match ty {
        Type::Numeric => value != "NaN",
        Type::Date | Type::Timestamp | Type::Timestamptz => {
            !value.ends_with("infinity") && !value.starts_with("294276")
        }
        Type::Time => value != "24:00:00",
        _ => true,
    }
}
