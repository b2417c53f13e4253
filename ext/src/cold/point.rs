//! Rows that are fetched one by one, by their numbers.
//!
//! A caller that goes on right behind the last row gets more of them with each request: they are
//! kept in [`super::recent`]. One that jumps gets single rows.

use super::{FullScan, recent};
use crate::error;
use pg_lake_plan::message::FileRef;
use pg_lake_plan::rows::RowNumbers;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::rc::Rc;

pub use super::read_ahead::ReadAhead;

/// A file that rows are read of.
pub struct Holder<'a> {
    /// A location.
    pub path: String,
    pub size: u64,
    pub checksums: Rc<[u32]>,
    pub rows: &'a RowNumbers,
}

impl Holder<'_> {
    pub fn of(file: &FileRef) -> Holder<'_> {
        Holder {
            path: file.path.clone(),
            size: file.size,
            checksums: file.checksums.as_slice().into(),
            rows: &file.rows,
        }
    }
}

impl ReadAhead {
    /// Puts a row of a file into a slot, whether it is deleted or not. The caller is going to ask for
    /// rows up to `least` as well.
    pub fn fetch(
        &mut self,
        relation: pg_sys::Relation,
        file: &Holder<'_>,
        row: u64,
        least: u64,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool {
        if recent::fetch(relation, row, slot) {
            return true;
        }
        let end = self.end(row, least);
        let positions = file.rows.rank(row)..file.rows.rank(end);
        let wanted = FileRef {
            path: file.path.clone(),
            size: file.size,
            checksums: file.checksums.to_vec(),
            rows: file.rows.narrowed(positions.clone()),
            deleted: vec![],
            ranges: Some(vec![(positions.start, positions.end)]),
        };
        // SAFETY: the context is deleted below, or with its parent after an error.
        unsafe {
            let context = crate::am::dml::row_context();
            let mut scan = FullScan::start(relation, (*slot).tts_tupleDescriptor, &[wanted]);
            // The first batch begins with the row; it is remembered whole.
            let found = scan.next(relation, slot, context);
            scan.stop();
            if !found {
                error::raise(
                    PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                    &format!(
                        "row {} of iceberg table \"{}\" is not in its file",
                        row,
                        crate::pg::relation_name(relation)
                    ),
                    Some(&format!("The file is \"{}\".", file.path)),
                    None,
                );
            }
            pg_sys::ExecMaterializeSlot(slot);
            pg_sys::MemoryContextDelete(context);
            found
        }
    }
}
