//! Column types: what each Postgres type is stored as, and datums to and from wire batches.
//!
//! A [`Codec`] is made once per column and statement and converts values one by one. What a type
//! becomes, which values are refused and how nested field ids are numbered is written down in
//! `docs/types.md`.
//!
//! * [`mapping`]: Postgres type → [`LakeType`] and representation
//! * [`scalar`]: the same for built-in types that aren't nested; constants and expression types
//! * [`encode`]: datum → batch
//! * [`decode`]: batch → datum
//! * [`space`]: where values go that are passed by reference
//! * [`columns`]: whole columns of batches that are stored without becoming datums
//! * [`refuse`]: the errors for values that can't be stored
//! * [`text`]: types stored as the text that their output function prints; pinned settings
//! * [`numeric`]: the digits of a `numeric`, without Postgres
//!
//! Unsafe code: the module reads datums, which are untyped words and pointers. Its unsafe
//! functions ask that they be called on the main thread, in a transaction, with a datum that is a
//! valid value of the codec's type.
//!
//! No value is ever changed to make it fit: what its Iceberg type can't hold is a [`ValueError`].

mod columns;
mod decode;
mod encode;
mod mapping;
mod numeric;
mod refuse;
mod scalar;
mod space;
mod text;

pub(crate) use encode::with_payload;
pub use mapping::{codecs, has_codec, result_codec};
pub use scalar::{expression_type, shown_numeric, value_of};
pub use space::Space;
pub use text::PinnedSettings;

use crate::error;
use pg_lake_plan::batch::{BatchBuilder, BatchError};
use pg_lake_plan::types::{LakeType, Value};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::fmt;

/// Days from 1970-01-01 to 2000-01-01, Postgres' epoch
/// (`POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE`).
const EPOCH_SHIFT_DAYS: i32 = 10_957;
const USECS_PER_DAY: i64 = 86_400_000_000;
const EPOCH_SHIFT_USECS: i64 = EPOCH_SHIFT_DAYS as i64 * USECS_PER_DAY;
/// `DT_NOBEGIN`, `DT_NOEND`, `DATEVAL_NOBEGIN`, `DATEVAL_NOEND`: minus and plus infinity.
const DT_NOBEGIN: i64 = i64::MIN;
const DT_NOEND: i64 = i64::MAX;
const DATEVAL_NOBEGIN: i32 = i32::MIN;
const DATEVAL_NOEND: i32 = i32::MAX;

/// One live column of a table.
#[derive(Debug)]
pub struct Codec {
    /// `pg_attribute.attnum`, which is also the column's Iceberg field id.
    pub attnum: i16,
    pub name: String,
    /// As declared: of a domain, the domain.
    pub typid: pg_sys::Oid,
    pub typmod: i32,
    pub collation: pg_sys::Oid,
    pub lake: LakeType,
    node: Node,
}

/// A column, a list's element or a struct's field.
#[derive(Debug)]
struct Node {
    /// How errors name it: `column`, `column[]`, `column.field`.
    path: String,
    /// Never a domain.
    typid: pg_sys::Oid,
    repr: Repr,
}

/// How a datum of a type is laid out, and with it the only [`LakeType`] that it goes with.
#[derive(Debug)]
enum Repr {
    Bool,
    Int2,
    Int4,
    /// Also `money`.
    Int8,
    /// `oid` and its aliases: 4 bytes without a sign, as `Int8`.
    Oid,
    Float4,
    Float8,
    Date,
    Time,
    /// With or without time zone.
    Timestamp,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Uuid,
    /// A varlena whose payload is the value: `text`, `bytea`, …
    Varlena,
    Name,
    /// The bytes of a type of fixed length that is passed by reference.
    Image(usize),
    /// By the type's input and output functions.
    Printed(Box<text::Printed>),
    List(Box<List>),
    Struct(Box<Composite>),
}

#[derive(Debug)]
struct List {
    element: Node,
    /// As the array names it: of a domain, the domain.
    typid: pg_sys::Oid,
    typlen: i16,
    typbyval: bool,
    typalign: std::ffi::c_char,
}

#[derive(Debug)]
struct Composite {
    /// Holds `tupdesc`.
    _context: text::Context,
    tupdesc: pg_sys::TupleDesc,
    /// One per attribute, `None` for a dropped one.
    fields: Vec<Option<Node>>,
}

impl Codec {
    /// Whether some values of the type can't be stored, so that an INSERT must [`Codec::check`].
    pub fn has_unstorable_values(&self) -> bool {
        self.node.has_unstorable_values()
    }

    /// Whether [`PinnedSettings`] must be held around conversions.
    pub fn needs_pinned_settings(&self) -> bool {
        self.node.needs_pinned_settings()
    }

    /// A value of any type, not null, as a constant of the engine; `None` if it can't be stored.
    ///
    /// # Safety
    /// As of [`Codec::push`]; settings are pinned here.
    pub unsafe fn one_row(&self, datum: pg_sys::Datum) -> Option<Value> {
        let mut builder = BatchBuilder::new([&self.lake]);
        let column = builder.columns.first_mut()?;
        // SAFETY: by contract.
        unsafe {
            self.check(datum).ok()?;
            let pinned = self.needs_pinned_settings().then(PinnedSettings::new);
            let pushed = self.push(datum, false, column);
            drop(pinned);
            pushed.ok()?;
        }
        builder.end_row();
        let mut bytes = vec![];
        builder.finish(&mut bytes).ok()?;
        Some(Value::Row(bytes))
    }
}

impl Node {
    fn has_unstorable_values(&self) -> bool {
        match &self.repr {
            Repr::Date | Repr::Time | Repr::Timestamp | Repr::Decimal { .. } | Repr::List(_) => {
                true
            }
            Repr::Struct(row) => row.fields.iter().flatten().any(Node::has_unstorable_values),
            _ => false,
        }
    }

    fn needs_pinned_settings(&self) -> bool {
        match &self.repr {
            Repr::Printed(printed) => printed.needs_pinned_settings(),
            Repr::List(list) => list.element.needs_pinned_settings(),
            Repr::Struct(row) => row.fields.iter().flatten().any(Node::needs_pinned_settings),
            _ => false,
        }
    }
}

/// A type or a value that can't be stored, or a stored value that isn't one of its type.
#[derive(Debug)]
pub struct ValueError {
    pub code: PgSqlErrorCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl ValueError {
    #[cold]
    fn new(code: PgSqlErrorCode, message: String) -> Self {
        ValueError {
            code,
            message,
            detail: None,
            hint: None,
        }
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Raises it as an ERROR.
    pub fn raise(&self) -> ! {
        error::raise(
            self.code,
            &self.message,
            self.detail.as_deref(),
            self.hint.as_deref(),
        )
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ValueError {}

impl From<BatchError> for ValueError {
    fn from(e: BatchError) -> Self {
        ValueError::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("could not build a batch of rows: {e}"),
        )
    }
}
