//! `lake.missing_value`: the values of columns that were added with a default, for files from before.
//!
//! Postgres keeps such a value in `pg_attribute` until a rewrite has put it into every row
//! (`RelationClearMissing` in catalog/heap.c). VACUUM FULL and CLUSTER may leave files as they
//! are; what these go on to need is kept here then.

use crate::catalog::data_file;
use crate::cold;
use crate::pg::table::{Key, Table, bytea_datum};
use crate::relation;
use pg_lake_plan::types::Value;
use pgrx::pg_sys;
use std::ffi::CStr;

const TABLE: &CStr = c"missing_value";
const BY_COLUMN: &CStr = c"missing_value_pkey";

/// Keeps what `pg_attribute` has for a relation whose hot rows are being rewritten.
pub fn keep(relation: pg_sys::Relation, storage: i64) {
    if !data_file::any(storage) {
        return;
    }
    // SAFETY: the relation is open.
    let desc = unsafe { (*relation).rd_att };
    for codec in &relation::info(relation).codecs {
        if let Some(value) = cold::default_of_column(desc, codec)
            && let Ok(value) = pg_lake_plan::encode(&value)
        {
            Table::write(TABLE).insert(&[
                Some(storage.into()),
                Some(codec.attnum.into()),
                Some(bytea_datum(&value)),
            ]);
        }
    }
}

/// The values of columns in files that don't have these.
pub fn list(storage: i64) -> Vec<(i16, Value)> {
    let table = Table::read(TABLE);
    // SAFETY: the relation is open. Most databases have no such value, and every scan asks.
    let blocks = unsafe {
        pg_sys::RelationGetNumberOfBlocksInFork(table.relation(), pg_sys::ForkNumber::MAIN_FORKNUM)
    };
    if blocks == 0 {
        return vec![];
    }
    let mut found = vec![];
    table.scan(
        Some(BY_COLUMN),
        &[Key::int8(1, storage)],
        std::ptr::null_mut(),
        |row| {
            let attnum = row.get(2).map(|d| d.value() as i16);
            let bytes = row.bytes(3).unwrap_or_default();
            found.extend(attnum.zip(pg_lake_plan::decode(&bytes).ok()));
            true
        },
    );
    found
}
