//! The errors for values that their Iceberg type can't hold: each names the column and the value,
//! says why and what to do. All cold.
//!
//! Unsafe code: prints datums.

use super::mapping::format_type;
use super::numeric::Refused;
use super::text::shown;
use super::{List, Node, ValueError};
use pgrx::{PgSqlErrorCode, pg_sys};

impl Node {
    #[cold]
    pub fn refuse_datetime(&self, datum: pg_sys::Datum, detail: &str) -> ValueError {
        // SAFETY: the types that call this are passed by value, and every value can be printed.
        let (name, value) = unsafe { (format_type(self.typid), shown(self.typid, datum)) };
        ValueError::new(
            PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
            format!(
                "cannot store {name} \"{value}\" in column \"{}\"",
                self.path
            ),
        )
        .detail(detail)
        .hint("Store null instead, or give the column type text.")
    }

    /// # Safety
    /// `datum` is a numeric.
    #[cold]
    pub unsafe fn refuse_numeric(
        &self,
        datum: pg_sys::Datum,
        precision: u8,
        scale: u8,
        refused: Refused,
    ) -> ValueError {
        if refused == Refused::Malformed {
            return ValueError::new(
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                format!("column \"{}\" holds an invalid numeric", self.path),
            );
        }
        // SAFETY: by contract.
        let value = unsafe { shown(self.typid, datum) };
        let why = match refused {
            Refused::NaN => "has no NaN",
            Refused::Infinity | Refused::NegativeInfinity => "has no infinity",
            Refused::Inexact => "has fewer digits after the point",
            Refused::OutOfRange | Refused::Malformed => "has fewer digits before the point",
        };
        ValueError::new(
            PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            format!(
                "cannot store numeric \"{value}\" in column \"{}\"",
                self.path
            ),
        )
        .detail(format!(
            "The column is an Iceberg decimal({precision},{scale}), which {why}."
        ))
        .hint("A column of type numeric without precision is stored as text and takes every value.")
    }

    /// # Safety
    /// `datum` is an array.
    #[cold]
    pub unsafe fn refuse_array(
        &self,
        list: &List,
        datum: pg_sys::Datum,
        ndim: i32,
        lower_bound: i32,
    ) -> ValueError {
        // SAFETY: by contract.
        let (value, element) = unsafe { (shown(self.typid, datum), format_type(list.typid)) };
        let what = if ndim > 1 {
            format!("{ndim} dimensions")
        } else {
            format!("lower bound {lower_bound}")
        };
        ValueError::new(
            PgSqlErrorCode::ERRCODE_ARRAY_ELEMENT_ERROR,
            format!(
                "cannot store array \"{value}\" of {what} in column \"{}\"",
                self.path
            ),
        )
        .detail("The column is an Iceberg list, which has one dimension that starts at 1.")
        .hint(format!(
            "A column declared as {element}[][] is stored as text and takes every array."
        ))
    }
}
