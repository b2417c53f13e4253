//! Rows as often as their sets have elements, in their order.
//!
//! What comes out of a batch is made as it is wanted: sets may be without end, for any practical purpose, and a row that is
//! repeated may be large.

use super::BATCH_ROWS;
use super::error::{cancelled, from_arrow, internal, protocol, wire};
use super::lower::{Lowering, Operator};
use super::steps::{Pass, Passed, Step, stepping};
use super::streams::evaluate;
use super::validate::{check, require};
use crate::arrow_types::arrow_type;
use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray, RecordBatch, UInt32Array,
    new_null_array,
};
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use datafusion_common::Result as DfResult;
use datafusion_execution::TaskContext;
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;
use pg_lake_plan::ir::{ProjectSet, SetCall, SetFunction};
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::types::LakeType;
use std::fmt;
use std::iter::repeat_n;
use std::ops::Range;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Repeated columns and elements of a batch shouldn't take more, if they are of variable length.
const BATCH_BYTES: usize = 16 << 20;

/// Checks a node over an input with columns of these types; returns those of its output.
pub(super) fn check_sets_of_rows(
    set: &ProjectSet,
    input: &[LakeType],
    params: usize,
) -> Result<Vec<LakeType>, WireError> {
    let is_set = |call: &SetCall| call.function != SetFunction::Ordinality;
    require(set.calls.iter().any(is_set), "no set to take elements from")?;
    let mut output = vec![];
    for at in &set.columns {
        let column = input.get(*at as usize);
        output.push(
            column
                .ok_or_else(|| protocol("a column is missing"))?
                .clone(),
        );
    }
    for call in &set.calls {
        for arg in &call.args {
            check(arg, input, params)?;
        }
        check_call(call)?;
        output.push(call.ty.lake.clone());
    }
    Ok(output)
}

fn check_call(call: &SetCall) -> Result<(), WireError> {
    let element = &call.ty.lake;
    let mut args = call.args.iter().map(|arg| &arg.ty.lake);
    let fits = match call.function {
        SetFunction::GenerateSeries => {
            matches!(call.args.len(), 2 | 3)
                && matches!(element, LakeType::Int4 | LakeType::Int8)
                && args.all(|arg| arg == element)
        }
        SetFunction::Unnest => match (args.next(), args.next()) {
            (Some(LakeType::List { element: own, .. }), None) => **own == *element,
            _ => false,
        },
        SetFunction::Each => !call.args.is_empty() && args.all(|arg| arg == element),
        SetFunction::Ordinality => call.args.is_empty() && *element == LakeType::Int8,
    };
    require(fits, "types of a set")
}

impl Lowering {
    pub(super) fn project_set(&mut self, set: &ProjectSet) -> Result<Operator, WireError> {
        let input = self.lower(&set.input)?;
        let schema = input.schema();
        let (mut fields, mut columns) = (vec![], vec![]);
        for at in &set.columns {
            let field = schema.fields().get(*at as usize);
            fields.push(
                field
                    .ok_or_else(|| internal("a column is missing"))?
                    .clone(),
            );
            columns.push(*at as usize);
        }
        let mut calls = vec![];
        for (i, call) in set.calls.iter().enumerate() {
            let args: Result<Vec<_>, WireError> = (call.args.iter())
                .map(|arg| self.operand(arg, &schema))
                .collect();
            let ty = arrow_type(&call.ty.lake);
            fields.push(Arc::new(Field::new(format!("s{i}"), ty, true)));
            calls.push(Call {
                function: call.function,
                args: args?,
            });
        }
        let step = Sets {
            schema: Arc::new(Schema::new(fields)),
            columns,
            calls,
            cancel: self.cancel.clone(),
        };
        Ok(stepping(input, Arc::new(step)))
    }
}

#[derive(Debug)]
struct Sets {
    schema: SchemaRef,
    /// Of the input.
    columns: Vec<usize>,
    calls: Vec<Call>,
    cancel: CancellationToken,
}

#[derive(Debug)]
struct Call {
    function: SetFunction,
    args: Vec<Arc<dyn PhysicalExpr>>,
}

impl Step for Sets {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = (self.calls.iter())
            .map(|call| call.function.name())
            .collect();
        write!(f, "ProjectSet: {}", names.join(", "))
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn start(self: Arc<Self>, _context: &TaskContext) -> DfResult<Box<dyn Pass>> {
        Ok(Box::new(Expanding { sets: self }))
    }
}

struct Expanding {
    sets: Arc<Sets>,
}

impl Pass for Expanding {
    fn pass(&mut self, batch: RecordBatch) -> Result<Passed, WireError> {
        let mut kept = vec![];
        for at in &self.sets.columns {
            let column = batch.columns().get(*at);
            kept.push(
                column
                    .ok_or_else(|| internal("a column is missing"))?
                    .clone(),
            );
        }
        let mut elements = vec![];
        for call in &self.sets.calls {
            elements.push(call.elements(&batch)?);
        }
        Ok(Passed::Several(Box::new(Expanded {
            sets: self.sets.clone(),
            kept,
            repeated: elements.iter().map(Elements::repeated).sum(),
            elements,
            rows: batch.num_rows(),
            row: 0,
            done: 0,
        })))
    }
}

impl Call {
    /// Its sets for the rows of a batch.
    fn elements(&self, batch: &RecordBatch) -> Result<Elements, WireError> {
        match self.function {
            SetFunction::Each => return self.each(batch).map_err(|e| wire(&e)),
            SetFunction::Unnest => return self.unnest(batch),
            SetFunction::GenerateSeries | SetFunction::Ordinality => {}
        }
        let args = evaluate(&self.args, batch).map_err(|e| wire(&e))?;
        match (self.function, args.as_slice()) {
            (SetFunction::Ordinality, []) => Ok(Elements::Numbers),
            (SetFunction::GenerateSeries, [start, stop]) => series(start, stop, None),
            (SetFunction::GenerateSeries, [start, stop, step]) => series(start, stop, Some(step)),
            _ => Err(internal("a set with other arguments")),
        }
    }

    /// A list that is the same for all rows isn't repeated.
    fn unnest(&self, batch: &RecordBatch) -> Result<Elements, WireError> {
        let [list] = self.args.as_slice() else {
            return Err(internal("a set with other arguments"));
        };
        let list = list.evaluate(batch).map_err(|e| wire(&e))?;
        let single = matches!(list, ColumnarValue::Scalar(_));
        let list = list.into_array(1).map_err(|e| wire(&e))?;
        match list.as_list_opt::<i32>().cloned() {
            Some(list) => Ok(Elements::List { list, single }),
            None => Err(internal("a list of another type")),
        }
    }

    /// What is the same for all rows isn't repeated.
    fn each(&self, batch: &RecordBatch) -> DfResult<Elements> {
        let mut arrays: Vec<ArrayRef> = vec![];
        let mut single = vec![];
        for arg in &self.args {
            let value = arg.evaluate(batch)?;
            single.push(matches!(value, ColumnarValue::Scalar(_)));
            arrays.push(match value {
                ColumnarValue::Array(array) => array,
                ColumnarValue::Scalar(value) => value.to_array()?,
            });
        }
        let null = arrays
            .first()
            .map(|first| new_null_array(first.data_type(), 1));
        arrays.extend(null);
        Ok(Elements::Each { arrays, single })
    }
}

/// The sets of one call, one for each row.
enum Elements {
    Series {
        rows: Vec<Series>,
        narrow: bool,
    },
    /// All of them are the first one, if it is `single`.
    List {
        list: ListArray,
        single: bool,
    },
    /// The arguments, whether each has a single value, and after them a null.
    Each {
        arrays: Vec<ArrayRef>,
        single: Vec<bool>,
    },
    /// Of the elements of the others.
    Numbers,
}

#[derive(Clone, Copy, Default)]
struct Series {
    start: i64,
    step: i64,
    count: u128,
}

/// As `generate_series_step_int4` in int.c and its like in int8.c: a value that would overflow is past the end.
fn series(
    start: &ArrayRef,
    stop: &ArrayRef,
    step: Option<&ArrayRef>,
) -> Result<Elements, WireError> {
    let narrow = *start.data_type() == DataType::Int32;
    let (start, stop) = (wide(start)?, wide(stop)?);
    let step = step.map(wide).transpose()?;
    let steps = (0..start.len()).map(|row| match &step {
        Some(step) => step.is_valid(row).then(|| step.value(row)),
        None => Some(1),
    });
    let mut rows = vec![];
    for ((start, stop), step) in start.iter().zip(stop.iter()).zip(steps) {
        rows.push(match (start, stop, step) {
            (Some(_), Some(_), Some(0)) => {
                let message = "step size cannot equal zero";
                return Err(WireError::new(ErrorCode::InvalidParameter, message));
            }
            (Some(start), Some(stop), Some(step)) => Series {
                start,
                step,
                count: count(start, stop, step),
            },
            _ => Series::default(),
        });
    }
    Ok(Elements::Series { rows, narrow })
}

/// How many values there are. The step isn't 0.
fn count(start: i64, stop: i64, step: i64) -> u128 {
    let (from, to) = if step > 0 {
        (start, stop)
    } else {
        (stop, start)
    };
    match u128::try_from(i128::from(to) - i128::from(from)) {
        Ok(distance) => distance / u128::from(step.unsigned_abs()) + 1,
        Err(_) => 0,
    }
}

fn wide(array: &ArrayRef) -> Result<Int64Array, WireError> {
    if let Some(narrow) = array.as_primitive_opt::<Int32Type>() {
        return Ok(narrow.unary::<_, Int64Type>(i64::from));
    }
    (array.as_primitive_opt::<Int64Type>().cloned())
        .ok_or_else(|| internal("a series of another type"))
}

impl Elements {
    /// Of a row's set.
    fn count(&self, row: usize) -> u128 {
        match self {
            Elements::Series { rows, .. } => rows.get(row).map_or(0, |series| series.count),
            Elements::List { list, single } => elements_of(list, *single, row).len() as u128,
            Elements::Each { single, .. } => single.len() as u128,
            Elements::Numbers => 0,
        }
    }

    /// Bytes of the largest element that is the same for all rows.
    fn repeated(&self) -> usize {
        match self {
            Elements::Series { .. } | Elements::List { .. } | Elements::Numbers => 0,
            Elements::Each { arrays, single } => {
                let alike = arrays.iter().zip(single).filter(|(_, single)| **single);
                let sizes = alike.map(|(array, _)| bytes(array, 0..1));
                sizes.max().unwrap_or(0)
            }
        }
    }

    /// About how many bytes of variable length an element of a row's set has that isn't the same for all rows.
    fn width(&self, row: usize) -> usize {
        match self {
            Elements::Series { .. } | Elements::Numbers => 0,
            Elements::List { list, single } => {
                let own = elements_of(list, *single, row);
                let elements = own.len().max(1);
                bytes(list.values(), own) / elements
            }
            Elements::Each { arrays, single } => {
                let own = arrays.iter().zip(single).filter(|(_, single)| !**single);
                let sizes = own.map(|(array, _)| bytes(array, row..row + 1));
                sizes.max().unwrap_or(0)
            }
        }
    }

    /// The elements of these places, in order.
    fn at(&self, runs: &[Run]) -> Result<ArrayRef, WireError> {
        let total: usize = runs.iter().map(|run| run.count).sum();
        match self {
            Elements::Series { rows, narrow } => {
                let mut values: Vec<Option<i64>> = Vec::with_capacity(total);
                for run in runs {
                    let series = rows.get(run.row).copied().unwrap_or_default();
                    let there = run.there(series.count);
                    // The values of the run are in the range, though what comes after them may not be.
                    let passed = i128::from(series.step).wrapping_mul(run.first as i128);
                    let mut value = i128::from(series.start).wrapping_add(passed) as i64;
                    for _ in 0..there {
                        values.push(Some(value));
                        value = value.wrapping_add(series.step);
                    }
                    values.extend(repeat_n(None, run.count - there));
                }
                Ok(match narrow {
                    true => {
                        let values = values.into_iter();
                        let values = values.map(|value| value.map(|value| value as i32));
                        Arc::new(Int32Array::from_iter(values))
                    }
                    false => Arc::new(Int64Array::from(values)),
                })
            }
            Elements::List { list, single } => {
                let mut places: Vec<Option<u32>> = Vec::with_capacity(total);
                for run in runs {
                    let own = elements_of(list, *single, run.row);
                    let there = run.there(own.len() as u128);
                    let first = own.start + usize::try_from(run.first).unwrap_or(0);
                    places.extend((first..first + there).map(|place| Some(place as u32)));
                    places.extend(repeat_n(None, run.count - there));
                }
                let places = UInt32Array::from(places);
                take(list.values(), &places, None).map_err(|e| from_arrow(&e))
            }
            Elements::Each { arrays, single } => {
                let mut places: Vec<(usize, usize)> = Vec::with_capacity(total);
                for run in runs {
                    let first = usize::try_from(run.first).unwrap_or(single.len());
                    let own = (first..).take(run.count);
                    places.extend(own.map(|arg| match single.get(arg) {
                        Some(true) => (arg, 0),
                        Some(false) => (arg, run.row),
                        None => (single.len(), 0),
                    }));
                }
                let arrays: Vec<&dyn Array> = arrays.iter().map(|array| &**array).collect();
                interleave(&arrays, &places).map_err(|e| from_arrow(&e))
            }
            Elements::Numbers => {
                let numbers = runs.iter().flat_map(|run| (run.first..).take(run.count));
                let numbers = numbers.map(|number| number.saturating_add(1) as i64);
                Ok(Arc::new(Int64Array::from_iter_values(numbers)))
            }
        }
    }
}

/// Elements of a row's sets that come out one after the other.
struct Run {
    row: usize,
    first: u128,
    count: usize,
}

impl Run {
    /// How many of them a set with so many elements has.
    fn there(&self, elements: u128) -> usize {
        let left = elements.saturating_sub(self.first);
        usize::try_from(left).map_or(self.count, |left| left.min(self.count))
    }
}

/// What becomes of a batch.
struct Expanded {
    sets: Arc<Sets>,
    kept: Vec<ArrayRef>,
    /// Bytes that the elements of any row may have from constants.
    repeated: usize,
    elements: Vec<Elements>,
    rows: usize,
    /// The next one, and how many elements of it came out.
    row: usize,
    done: u128,
}

impl Iterator for Expanded {
    type Item = Result<RecordBatch, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.sets.cancel.is_cancelled() {
            return Some(Err(cancelled()));
        }
        let runs = self.runs();
        (!runs.is_empty()).then(|| self.batch(&runs))
    }
}

impl Expanded {
    /// What the next batch consists of; nothing at the end.
    fn runs(&mut self) -> Vec<Run> {
        let (mut runs, mut rows, mut bytes) = (vec![], BATCH_ROWS, BATCH_BYTES);
        while rows > 0 && self.row < self.rows {
            let counts = self.elements.iter().map(|set| set.count(self.row));
            let left = counts.max().unwrap_or(0).saturating_sub(self.done);
            if left == 0 {
                self.row += 1;
                self.done = 0;
                continue;
            }
            let width = self.width(self.row);
            let fitting = match bytes.checked_div(width) {
                Some(0) if runs.is_empty() => 1,
                Some(0) => break,
                Some(fitting) => fitting.min(rows),
                None => rows,
            };
            let count = usize::try_from(left).map_or(fitting, |left| left.min(fitting));
            runs.push(Run {
                row: self.row,
                first: self.done,
                count,
            });
            self.done += count as u128;
            rows -= count;
            bytes = bytes.saturating_sub(count.saturating_mul(width));
        }
        runs
    }

    /// About how many bytes of variable length come out with each element of a row's sets.
    fn width(&self, row: usize) -> usize {
        let kept = self.kept.iter().map(|column| bytes(column, row..row + 1));
        let elements = self.elements.iter().map(|set| set.width(row));
        kept.chain(elements)
            .fold(self.repeated, usize::saturating_add)
    }

    fn batch(&self, runs: &[Run]) -> Result<RecordBatch, WireError> {
        let places = runs
            .iter()
            .flat_map(|run| repeat_n(run.row as u32, run.count));
        let places = UInt32Array::from_iter_values(places);
        let mut columns = vec![];
        for column in &self.kept {
            columns.push(take(column, &places, None).map_err(|e| from_arrow(&e))?);
        }
        for set in &self.elements {
            columns.push(set.at(runs)?);
        }
        RecordBatch::try_new(self.sets.schema.clone(), columns).map_err(|e| from_arrow(&e))
    }
}

/// About how many bytes the values of some rows take, if they are of variable length.
fn bytes(array: &dyn Array, rows: Range<usize>) -> usize {
    match array.data_type() {
        DataType::Utf8 => span(array.as_string::<i32>().value_offsets(), &rows).len(),
        DataType::Binary => span(array.as_binary::<i32>().value_offsets(), &rows).len(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let own = span(list.value_offsets(), &rows);
            own.len() * size_of::<i128>() + bytes(list.values(), own)
        }
        DataType::Struct(_) => {
            let fields = array.as_struct().columns().iter();
            fields.map(|field| bytes(field, rows.clone())).sum()
        }
        _ => 0,
    }
}

/// Where the elements of a row's list are. A null may have some below it.
fn elements_of(list: &ListArray, single: bool, row: usize) -> Range<usize> {
    let row = if single { 0 } else { row };
    match row < list.len() && list.is_valid(row) {
        true => span(list.value_offsets(), &(row..row + 1)),
        false => 0..0,
    }
}

/// What lies between the offsets of some rows.
fn span(offsets: &[i32], rows: &Range<usize>) -> Range<usize> {
    let at = |row: usize| offsets.get(row).map_or(0, |offset| *offset as usize);
    at(rows.start)..at(rows.end)
}

#[cfg(test)]
#[path = "project_set_tests.rs"]
mod tests;
