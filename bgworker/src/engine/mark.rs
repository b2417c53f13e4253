//! `x IN (SELECT …)` as a value: rows of the left side with a boolean, as nulls have it.
//!
//! DataFusion's join says for each row whether it has a partner. Rows of the right side with a null have none: of these is
//! noted on their way into the join that they were there. A row comes out after all of the right side has been seen,
//! also if both sides spill, and is then marked with true, false or null.

use super::error::{from_arrow, internal};
use super::join::{Pair, hash_join, keys};
use super::join_input::{Wanted, nulls, without_nulls};
use super::lower::{Lowering, Operator};
use super::right_side::RightSide;
use super::steps::{Pass, Passed, Step, stepping};
use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::Result as DfResult;
use datafusion_execution::TaskContext;
use pg_lake_plan::ir::{Join, JoinKind};
use pg_lake_plan::message::WireError;
use std::fmt;
use std::sync::Arc;

impl Lowering {
    /// `outputs`: the columns that come out; the mark's number follows those of the left side.
    pub(super) fn mark(
        &self,
        join: &Join,
        left: Operator,
        right: Operator,
        outputs: &[usize],
    ) -> Result<Operator, WireError> {
        let width = left.schema().fields().len();
        let null_aware = join.kind == JoinKind::NullAwareMark;
        let keeps_left = join.left_rows < join.right_rows;
        let spread = self.spreads(join.left_rows.min(join.right_rows));
        let columns = outputs.iter().copied().filter(|output| *output < width);
        let left = self.side(
            left,
            Wanted {
                keys: keys(&join.keys, |key| &key.left),
                columns: columns.collect(),
                not_null: false,
                distinct: false,
                null_side: None,
                kept: keeps_left && !spread,
            },
        )?;
        let right = self.side(
            right,
            Wanted {
                keys: keys(&join.keys, |key| &key.right),
                columns: vec![],
                not_null: !null_aware,
                distinct: true,
                null_side: None,
                kept: !keeps_left && !spread,
            },
        )?;
        let mut pair = Pair {
            left,
            right,
            keeps_left,
        };
        let found = null_aware.then(Arc::<RightSide>::default);
        if let Some(found) = &found {
            pair.right.operator = noting(pair.right.operator, &pair.right.keys, found);
        }
        let mark = pair.left.width();
        let mut places = Vec::with_capacity(outputs.len());
        for &output in outputs {
            let place = match pair.left.columns.get(output) {
                Some(place) => *place,
                None => (output == width).then_some(mark),
            };
            places.push(place.ok_or_else(|| internal("a column is missing"))?);
        }
        let keys = pair.left.keys.clone();
        let kind = pair.join_type(join.kind)?;
        let spread = spread.then_some(self.threads);
        let joined = hash_join(pair, kind, None, None, spread, false, vec![])?;
        Marking::over(joined, places, mark, keys, found)
    }
}

/// Rows of the right side; those without a key are only noted.
fn noting(input: Operator, keys: &[usize], found: &Arc<RightSide>) -> Operator {
    let step = Noting {
        keys: keys.to_vec(),
        found: found.clone(),
        schema: input.schema(),
    };
    stepping(input, Arc::new(step))
}

#[derive(Debug)]
struct Noting {
    keys: Vec<usize>,
    found: Arc<RightSide>,
    schema: SchemaRef,
}

impl Step for Noting {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark: right side")
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn start(self: Arc<Self>, _context: &TaskContext) -> DfResult<Box<dyn Pass>> {
        Ok(Box::new(NotingPass(self)))
    }
}

/// [`Noting`] in one partition.
struct NotingPass(Arc<Noting>);

impl Pass for NotingPass {
    fn pass(&mut self, batch: RecordBatch) -> Result<Passed, WireError> {
        let Noting { keys, found, .. } = self.0.as_ref();
        let nulls = nulls(batch.columns(), keys);
        found.note(batch.num_rows(), nulls.is_some());
        Ok(match without_nulls(batch, nulls)? {
            Some(batch) => Passed::Rows(batch),
            None => Passed::Nothing,
        })
    }
}

/// Makes what is wanted of a join's rows, with the mark as nulls have it.
#[derive(Debug)]
struct Marking {
    /// Of the join's columns, in the order of the output.
    places: Vec<usize>,
    /// Where the join says whether there is a partner.
    mark: usize,
    /// Where the left side's keys are.
    keys: Vec<usize>,
    /// `None`: what has no partner is false.
    found: Option<Arc<RightSide>>,
    schema: SchemaRef,
}

impl Marking {
    fn over(
        joined: Operator,
        places: Vec<usize>,
        mark: usize,
        keys: Vec<usize>,
        found: Option<Arc<RightSide>>,
    ) -> Result<Operator, WireError> {
        let input = joined.schema();
        let mut fields: Vec<FieldRef> = Vec::with_capacity(places.len());
        for &place in &places {
            fields.push(match input.fields().get(place) {
                Some(_) if place == mark => Arc::new(Field::new("mark", DataType::Boolean, true)),
                Some(field) => field.clone(),
                None => return Err(internal("a column is missing")),
            });
        }
        let step = Marking {
            places,
            mark,
            keys,
            found,
            schema: Arc::new(Schema::new(fields)),
        };
        Ok(stepping(joined, Arc::new(step)))
    }

    /// The mark of each row.
    fn marks(&self, batch: &RecordBatch) -> Result<ArrayRef, WireError> {
        let has_partner = batch
            .columns()
            .get(self.mark)
            .and_then(|column| column.as_boolean_opt())
            .ok_or_else(|| internal("a join without a mark"))?;
        let Some(found) = &self.found else {
            return Ok(Arc::new(has_partner.clone()));
        };
        let marks = has_partner.values();
        let known = if found.has_nulls() {
            Some(NullBuffer::new(marks.clone()))
        } else if found.has_rows() {
            // A null has no partner.
            nulls(batch.columns(), &self.keys)
        } else {
            None
        };
        Ok(Arc::new(BooleanArray::new(marks.clone(), known)))
    }
}

impl Step for Marking {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark")
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn start(self: Arc<Self>, _context: &TaskContext) -> DfResult<Box<dyn Pass>> {
        Ok(Box::new(MarkingPass(self)))
    }
}

/// [`Marking`] in one partition.
struct MarkingPass(Arc<Marking>);

impl Pass for MarkingPass {
    fn pass(&mut self, batch: RecordBatch) -> Result<Passed, WireError> {
        let step = self.0.as_ref();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(step.places.len());
        for &place in &step.places {
            columns.push(match batch.columns().get(place) {
                Some(_) if place == step.mark => step.marks(&batch)?,
                Some(column) => column.clone(),
                None => return Err(internal("a column is missing")),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(step.schema.clone(), columns, &options)
            .map_err(|e| from_arrow(&e))?;
        Ok(Passed::Rows(batch))
    }
}
