//! How the rows that a table is fed with become batches of the columns of its scan.

use crate::error;
use crate::relation::Info;
use crate::types::{Codec, PinnedSettings, ValueError, result_codec};
use pg_lake_plan::batch::BatchBuilder;
use pg_lake_plan::ir::ScanColumn;
use pg_lake_plan::types::LakeType;
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::rc::Rc;

pub struct Encoding {
    codecs: Codecs,
    /// For each of the scan's columns; `None` is null in all rows.
    columns: Vec<Option<Value>>,
    /// Of the scan's columns.
    types: Vec<LakeType>,
    /// Attributes up to this one are read.
    attributes: i32,
    /// Whether [`PinnedSettings`] must be held around [`Encoding::push`].
    pub needs_pinned_settings: bool,
    /// Whether some values of the columns' types can't be fed.
    pub has_unstorable_values: bool,
}

enum Codecs {
    Relation(Rc<Info>),
    Plan(Vec<Codec>),
}

/// Where the values of a column are.
struct Value {
    /// Index into the slot's values.
    attribute: usize,
    /// Index into [`Codecs::all`].
    codec: usize,
}

impl Codecs {
    fn all(&self) -> &[Codec] {
        match self {
            Codecs::Relation(info) => &info.codecs,
            Codecs::Plan(codecs) => codecs,
        }
    }
}

impl Encoding {
    /// Of the rows of an iceberg table. `attnums` are the attributes behind the scan's columns.
    pub fn of_relation(info: Rc<Info>, attnums: &[i16], scanned: &[ScanColumn]) -> Encoding {
        let columns = attnums
            .iter()
            .map(|attnum| {
                let codec = info.codecs.iter().position(|c| c.attnum == *attnum)?;
                let attribute = usize::try_from(*attnum).ok()?.checked_sub(1)?;
                Some(Value { attribute, codec })
            })
            .collect();
        Encoding::new(Codecs::Relation(info), columns, scanned)
    }

    /// Of the rows of a plan. `outputs` are those behind the scan's columns.
    ///
    /// # Safety
    /// A finished plan; on the main thread, in a transaction.
    pub unsafe fn of_plan(
        plan: *mut pg_sys::Plan,
        outputs: &[i16],
        scanned: &[ScanColumn],
    ) -> Encoding {
        let (mut codecs, mut columns) = (vec![], vec![]);
        for (output, column) in outputs.iter().zip(scanned) {
            // SAFETY: by contract.
            let Some((attribute, typid)) = (unsafe { output_of(plan, *output) }) else {
                error::raise(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    "a plan that feeds the lake engine has no such output",
                    None,
                    None,
                );
            };
            columns.push(Some(Value {
                attribute,
                codec: codecs.len(),
            }));
            // SAFETY: the type of an expression.
            codecs.push(unsafe { result_codec(&column.ty.lake, typid) });
        }
        Encoding::new(Codecs::Plan(codecs), columns, scanned)
    }

    fn new(codecs: Codecs, columns: Vec<Option<Value>>, scanned: &[ScanColumn]) -> Encoding {
        let used = || columns.iter().flatten();
        let codec = |value: &Value| &codecs.all()[value.codec];
        let attributes = used().map(|value| value.attribute + 1).max().unwrap_or(0);
        let needs_pinned_settings = used().any(|value| codec(value).needs_pinned_settings());
        let has_unstorable_values = used().any(|value| codec(value).has_unstorable_values());
        Encoding {
            codecs,
            columns,
            types: scanned.iter().map(|c| c.ty.lake.clone()).collect(),
            attributes: attributes as i32,
            needs_pinned_settings,
            has_unstorable_values,
        }
    }

    pub fn builder(&self) -> BatchBuilder {
        BatchBuilder::new(&self.types)
    }

    /// Appends a row. After an error the builder is of no use any more.
    ///
    /// # Safety
    /// On the main thread, in a transaction. The slot holds a row of the relation or the plan, of
    /// whatever kind. Leftovers of the conversion go to the current memory context.
    pub unsafe fn push(
        &self,
        row: *mut pg_sys::TupleTableSlot,
        builder: &mut BatchBuilder,
    ) -> Result<(), ValueError> {
        let codecs = self.codecs.all();
        // SAFETY: by contract; the slot's arrays have an entry for each of its attributes.
        unsafe {
            // Each call into Postgres costs some nanoseconds.
            if i32::from((*row).tts_nvalid) < self.attributes {
                pg_sys::slot_getsomeattrs(row, self.attributes);
            }
            let (values, nulls) = ((*row).tts_values, (*row).tts_isnull);
            for (value, column) in self.columns.iter().zip(&mut builder.columns) {
                match value {
                    None => column.push_null(),
                    Some(Value { attribute, codec }) => {
                        let (datum, null) = (*values.add(*attribute), *nulls.add(*attribute));
                        codecs[*codec].push(datum, null, column)?;
                    }
                }
            }
        }
        builder.end_row();
        Ok(())
    }

    /// The same with settings pinned, where that is needed.
    ///
    /// # Safety
    /// As of [`Encoding::push`].
    pub unsafe fn push_pinned(
        &self,
        row: *mut pg_sys::TupleTableSlot,
        builder: &mut BatchBuilder,
    ) -> Result<(), ValueError> {
        let pinned = self.needs_pinned_settings.then(PinnedSettings::new);
        // SAFETY: by contract.
        let pushed = unsafe { self.push(row, builder) };
        drop(pinned);
        pushed
    }
}

/// An output of a plan, counted from 1: its place in the slot, and its type.
unsafe fn output_of(plan: *mut pg_sys::Plan, output: i16) -> Option<(usize, pg_sys::Oid)> {
    let at = usize::try_from(output).ok()?.checked_sub(1)?;
    // SAFETY: a finished plan's target list is in the order of its outputs.
    unsafe {
        let targets = PgList::<pg_sys::TargetEntry>::from_pg((*plan).targetlist);
        let target = targets.get_ptr(at)?;
        Some((at, pg_sys::exprType((*target).expr.cast())))
    }
}
