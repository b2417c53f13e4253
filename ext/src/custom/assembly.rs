//! Batches of a table's rows that are put together from the engine's, column by column.

use crate::cold::OwnedBatch;
use crate::relation::Info;
use crate::sink::Sink;
use crate::types::{Codec, PinnedSettings};
use pg_lake_plan::batch::{BatchBuilder, ColumnReader};
use pg_lake_plan::columns::write_columns;
use pg_lake_plan::types::LakeType;
use pgrx::pg_sys;
use std::rc::Rc;

/// Bytes that the columns which have the same value in all rows may take in a batch.
const CONSTANT_BYTES_MAX: usize = 4 << 20;

/// What a column of the table gets.
#[derive(Clone, Copy)]
pub struct Origin {
    pub value: Value,
    /// Its type in the plan.
    pub typid: pg_sys::Oid,
    pub not_null: bool,
}

#[derive(Clone, Copy)]
pub enum Value {
    /// A column of the engine's batches.
    Column(usize),
    /// The same in all rows; `None`: null.
    Constant(Option<pg_sys::Datum>),
}

/// How a batch is put together.
pub struct Assembly {
    info: Rc<Info>,
    /// By `info.codecs`.
    parts: Vec<Part>,
    constants: Constants,
    /// The engine's batches are the table's.
    unchanged: bool,
    buffer: Vec<u8>,
}

enum Part {
    Column { index: usize, not_null: bool },
    Constant(usize),
}

impl Assembly {
    /// `origins`: by attribute number, from 1; `types`: of the engine's columns. `None`: some values have
    /// to be converted or checked one by one. `read`: as of [`Codec::stores`].
    pub fn new(
        info: &Rc<Info>,
        origins: &[Origin],
        types: &[LakeType],
        read: bool,
    ) -> Option<Assembly> {
        let mut parts = vec![];
        let mut constants = Constants::default();
        for (number, codec) in info.codecs.iter().enumerate() {
            let attribute = usize::try_from(codec.attnum).ok()?.checked_sub(1)?;
            let origin = origins.get(attribute)?;
            parts.push(match origin.value {
                Value::Column(index) => {
                    if !codec.stores(types.get(index)?, origin.typid, read) {
                        return None;
                    }
                    Part::Column {
                        index,
                        not_null: origin.not_null,
                    }
                }
                Value::Constant(value) => {
                    if !is_storable(codec, value, origin) {
                        return None;
                    }
                    constants.values.push((number, value));
                    Part::Constant(constants.values.len() - 1)
                }
            });
        }
        let in_place =
            |(at, part): (usize, &Part)| matches!(part, Part::Column { index, .. } if *index == at);
        let unchanged = parts.len() == types.len() && parts.iter().enumerate().all(in_place);
        Some(Assembly {
            info: info.clone(),
            parts,
            constants,
            unchanged,
            buffer: vec![],
        })
    }

    /// Whether it makes batches of these columns.
    pub fn is_for(&self, info: &Rc<Info>) -> bool {
        Rc::ptr_eq(&self.info, info)
    }

    /// Sends a batch. False if it doesn't: one of the rows can't be stored, or breaks a constraint.
    pub fn send(&mut self, batch: &OwnedBatch, sink: &mut Sink) -> bool {
        let reader = batch.reader();
        let holds = |codec: &Codec, index: usize, not_null: bool| {
            (reader.columns.get(index))
                .is_some_and(|column| !(not_null && column.has_nulls()) && codec.holds(column))
        };
        let mut columns = self.info.codecs.iter().zip(&self.parts);
        let storable = columns.all(|(codec, part)| match part {
            Part::Column { index, not_null } => holds(codec, *index, *not_null),
            Part::Constant(_) => true,
        });
        if !storable {
            return false;
        }
        if self.unchanged {
            sink.push_batch(batch.bytes(), reader.rows as u64);
            return true;
        }
        if !self.constants.repeat(&self.info, reader.rows) {
            return false;
        }
        let constants = self.constants.columns();
        let columns: Option<Vec<&ColumnReader<'_>>> = (self.parts.iter())
            .map(|part| match part {
                Part::Column { index, .. } => reader.columns.get(*index),
                Part::Constant(at) => constants.get(*at),
            })
            .collect();
        let Some(columns) = columns else {
            return false;
        };
        if write_columns(reader.rows, &columns, &mut self.buffer).is_err() {
            return false;
        }
        sink.push_batch(&self.buffer, reader.rows as u64);
        true
    }
}

fn is_storable(codec: &Codec, value: Option<pg_sys::Datum>, origin: &Origin) -> bool {
    codec.is_like(origin.typid)
        && match value {
            None => !origin.not_null,
            // SAFETY: a value of the column's type.
            Some(value) => !codec.has_unstorable_values() || unsafe { codec.check(value) }.is_ok(),
        }
}

/// Columns with the same value in all rows.
#[derive(Default)]
struct Constants {
    /// Index into `Info::codecs`, and the value.
    values: Vec<(usize, Option<pg_sys::Datum>)>,
    /// For as many rows as the last batch had.
    batch: Option<OwnedBatch>,
}

impl Constants {
    /// Makes the columns that long; false if they would be too large.
    fn repeat(&mut self, info: &Info, rows: usize) -> bool {
        let ready = self
            .batch
            .as_ref()
            .is_some_and(|batch| batch.reader().rows == rows);
        if !ready && !self.values.is_empty() {
            self.batch = self.make(info, rows);
            return self.batch.is_some();
        }
        true
    }

    fn make(&self, info: &Info, rows: usize) -> Option<OwnedBatch> {
        let codecs: Vec<&Codec> = (self.values.iter())
            .map(|(number, _)| info.codecs.get(*number))
            .collect::<Option<_>>()?;
        let types: Vec<LakeType> = codecs.iter().map(|codec| codec.lake.clone()).collect();
        let mut builder = BatchBuilder::new(&types);
        let pinned = info.pinned_settings.then(PinnedSettings::new);
        for _ in 0..rows {
            for ((codec, (_, value)), column) in
                codecs.iter().zip(&self.values).zip(&mut builder.columns)
            {
                let datum = value.unwrap_or(pg_sys::Datum::null());
                // SAFETY: a value of the column's type, or null.
                unsafe { codec.push(datum, value.is_none(), column) }.ok()?;
            }
            builder.end_row();
            if builder.bytes() > CONSTANT_BYTES_MAX {
                return None;
            }
        }
        drop(pinned);
        let mut bytes = vec![];
        builder.finish(&mut bytes).ok()?;
        Some(OwnedBatch::new(bytes, &types))
    }

    fn columns(&self) -> &[ColumnReader<'_>] {
        match &self.batch {
            Some(batch) => &batch.reader().columns,
            None => &[],
        }
    }
}
