//! What happens to the rows of one side before they are joined.
//!
//! Keys that aren't columns are computed. Rows that have no partner because a key is null are dropped where they
//! don't come out without one either: a hash join would compare each with every other such row. Where they do on
//! both sides, a further key tells the sides apart. Columns that are neither compared nor come out are dropped. Of a
//! side that is only asked for partners [`Lately`] drops most copies of what is left. Arrays of a side that stays in
//! memory hold no more than their rows.

use super::error::{from_arrow, internal};
use super::expr::{Frame, Node};
use super::lately::Lately;
use super::lower::{Lowering, Operator, column};
use super::steps::{Pass, Passed, Step, stepping};
use super::widths::used_bytes;
use crate::arrow_types::arrow_type;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, MutableArrayData, UInt8Array, make_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::Result as DfResult;
use datafusion_execution::TaskContext;
use datafusion_physical_expr::PhysicalExpr;
use pg_lake_plan::ir::{Expr, ExprKind};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use std::fmt;
use std::sync::Arc;

/// Bytes that an array may hold beyond twice those of its rows.
const SPARSE_BYTES: usize = 16 << 10;

/// A key of one side.
pub(super) struct Key<'a> {
    pub(super) expr: &'a Expr,
    /// The other side's decimals have another precision: both get the largest.
    pub(super) widened: bool,
}

/// What a join needs of one side.
pub(super) struct Wanted<'a> {
    pub(super) keys: Vec<Key<'a>>,
    /// Beside the keys.
    pub(super) columns: Vec<usize>,
    /// Rows with a null key are not.
    pub(super) not_null: bool,
    /// Copies of a row are not.
    pub(super) distinct: bool,
    /// A further key: this number for rows with a null key, 0 for others.
    pub(super) null_side: Option<u8>,
    /// It stays in memory.
    pub(super) kept: bool,
}

/// One side, ready to be joined.
pub(super) struct Side {
    pub(super) operator: Operator,
    /// For each of the plan's columns where it is.
    pub(super) columns: Vec<Option<usize>>,
    pub(super) keys: Vec<usize>,
}

impl Side {
    pub(super) fn width(&self) -> usize {
        self.operator.schema().fields().len()
    }

    pub(super) fn key_columns(&self) -> Result<Vec<Arc<dyn PhysicalExpr>>, WireError> {
        let schema = self.operator.schema();
        self.keys.iter().map(|&key| column(&schema, key)).collect()
    }
}

impl Lowering {
    pub(super) fn side(&self, input: Operator, wanted: Wanted<'_>) -> Result<Side, WireError> {
        let mut outputs = Outputs::new(input.schema());
        for &i in &wanted.columns {
            outputs.column(i)?;
        }
        let mut keys = vec![];
        for key in &wanted.keys {
            let place = match key.expr.kind {
                ExprKind::Column(i) if !key.expr.ty.lake.is_float() && !key.widened => {
                    outputs.column(i as usize)?
                }
                _ => {
                    let node = Node::compile(key.expr, &self.params)?.canonical();
                    let data_type = key_type(&key.expr.ty.lake, key.widened);
                    let field = Field::new(format!("k{}", keys.len()), data_type, true);
                    outputs.add(Output::Key(node), Arc::new(field))
                }
            };
            keys.push(place);
        }
        let not_null = wanted.not_null && !keys.is_empty();
        let own_keys = keys.clone();
        if let Some(side) = wanted.null_side {
            let field = Field::new("null_side", DataType::UInt8, false);
            keys.push(outputs.add(Output::NullSide(side), Arc::new(field)));
        }
        let unchanged = outputs.are_all() && !not_null && !wanted.distinct && !wanted.kept;
        let Outputs {
            list,
            fields,
            columns,
            ..
        } = outputs;
        let operator: Operator = if unchanged {
            input
        } else {
            let step = JoinInput {
                outputs: list,
                keys: own_keys,
                not_null,
                distinct: wanted.distinct,
                kept: wanted.kept,
                schema: Arc::new(Schema::new(fields)),
            };
            stepping(input, Arc::new(step))
        };
        Ok(Side {
            operator,
            columns,
            keys,
        })
    }
}

fn key_type(ty: &LakeType, widened: bool) -> DataType {
    match (arrow_type(ty), widened) {
        (DataType::Decimal128(_, scale), true) => DataType::Decimal128(38, scale),
        (other, _) => other,
    }
}

/// Where a column of the output comes from.
#[derive(Debug)]
enum Output {
    Column(usize),
    Key(Node),
    NullSide(u8),
}

/// The output while it is put together.
struct Outputs {
    input: SchemaRef,
    list: Vec<Output>,
    fields: Vec<FieldRef>,
    /// For each input column its place.
    columns: Vec<Option<usize>>,
}

impl Outputs {
    fn new(input: SchemaRef) -> Self {
        Outputs {
            list: vec![],
            fields: vec![],
            columns: vec![None; input.fields().len()],
            input,
        }
    }

    fn add(&mut self, output: Output, field: FieldRef) -> usize {
        self.list.push(output);
        self.fields.push(field);
        self.list.len() - 1
    }

    /// The place of an input column, which is added if it is missing.
    fn column(&mut self, i: usize) -> Result<usize, WireError> {
        let field = self.input.fields().get(i).cloned();
        let (Some(field), Some(place)) = (field, self.columns.get(i).copied()) else {
            return Err(internal("a column is missing"));
        };
        if let Some(place) = place {
            return Ok(place);
        }
        let place = self.add(Output::Column(i), field);
        if let Some(slot) = self.columns.get_mut(i) {
            *slot = Some(place);
        }
        Ok(place)
    }

    /// Whether they are the input's columns, in their order.
    fn are_all(&self) -> bool {
        let in_place =
            |(i, output): (usize, &Output)| matches!(output, Output::Column(n) if *n == i);
        self.list.len() == self.input.fields().len() && self.list.iter().enumerate().all(in_place)
    }
}

#[derive(Debug)]
struct JoinInput {
    outputs: Vec<Output>,
    /// Places of the keys, without the one that tells the sides apart.
    keys: Vec<usize>,
    not_null: bool,
    distinct: bool,
    kept: bool,
    schema: SchemaRef,
}

impl Step for JoinInput {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinInput: columns={}", self.outputs.len())?;
        for (is, text) in [
            (self.not_null, ", not null"),
            (self.distinct, ", distinct"),
            (self.kept, ", kept"),
        ] {
            if is {
                f.write_str(text)?;
            }
        }
        Ok(())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn start(self: Arc<Self>, context: &TaskContext) -> DfResult<Box<dyn Pass>> {
        let lately = if self.distinct {
            Some(Lately::new(self.schema.clone(), context)?)
        } else {
            None
        };
        Ok(Box::new(Getting { step: self, lately }))
    }
}

/// [`JoinInput`] in one partition.
struct Getting {
    step: Arc<JoinInput>,
    lately: Option<Lately>,
}

impl Pass for Getting {
    fn pass(&mut self, batch: RecordBatch) -> Result<Passed, WireError> {
        let Some(mut batch) = self.step.rows(&batch)? else {
            return Ok(Passed::Nothing);
        };
        if let Some(lately) = &mut self.lately {
            batch = match lately.fresh(batch)? {
                Some(batch) => batch,
                None => return Ok(Passed::Nothing),
            };
        }
        if self.step.kept {
            batch = compact(batch)?;
        }
        Ok(Passed::Rows(batch))
    }
}

impl JoinInput {
    fn rows(&self, batch: &RecordBatch) -> Result<Option<RecordBatch>, WireError> {
        let rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.outputs.len());
        for (output, field) in self.outputs.iter().zip(self.schema.fields()) {
            columns.push(match output {
                Output::Column(i) => match batch.columns().get(*i) {
                    Some(column) => column.clone(),
                    None => return Err(internal("a column is missing")),
                },
                Output::Key(node) => {
                    let key = node.eval(&Frame::new(batch))?.spread(rows)?;
                    widened(key, field.data_type())?
                }
                Output::NullSide(side) => {
                    null_side(nulls(&columns, &self.keys).as_ref(), *side, rows)
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let nulls = nulls(&columns, &self.keys).filter(|_| self.not_null);
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|e| from_arrow(&e))?;
        without_nulls(batch, nulls)
    }
}

/// Where a key is null.
pub(super) fn nulls(columns: &[ArrayRef], keys: &[usize]) -> Option<NullBuffer> {
    let keys = keys.iter().filter_map(|&key| columns.get(key));
    NullBuffer::union_many(keys.map(|key| key.nulls().filter(|nulls| nulls.null_count() > 0)))
}

/// The other rows; `None` if there are none.
pub(super) fn without_nulls(
    batch: RecordBatch,
    nulls: Option<NullBuffer>,
) -> Result<Option<RecordBatch>, WireError> {
    let batch = match nulls {
        None => batch,
        Some(nulls) if nulls.null_count() == nulls.len() => return Ok(None),
        Some(nulls) => {
            let valid = BooleanArray::new(nulls.into_inner(), None);
            filter_record_batch(&batch, &valid).map_err(|e| from_arrow(&e))?
        }
    };
    Ok((batch.num_rows() > 0).then_some(batch))
}

fn null_side(nulls: Option<&NullBuffer>, side: u8, rows: usize) -> ArrayRef {
    let values: Vec<u8> = match nulls {
        None => vec![0; rows],
        Some(nulls) => nulls
            .iter()
            .map(|valid| if valid { 0 } else { side })
            .collect(),
    };
    Arc::new(UInt8Array::from(values))
}

fn widened(array: ArrayRef, data_type: &DataType) -> Result<ArrayRef, WireError> {
    let DataType::Decimal128(precision, scale) = data_type else {
        return Ok(array);
    };
    let decimals = array
        .as_primitive_opt::<Decimal128Type>()
        .ok_or_else(|| internal("not a decimal"))?;
    let decimals = decimals
        .clone()
        .with_precision_and_scale(*precision, *scale)
        .map_err(|e| from_arrow(&e))?;
    Ok(Arc::new(decimals))
}

/// A batch in memory of its own, where its arrays are parts of larger ones: what stays in memory is counted by its
/// buffers, each time that one is met, and views of strings are copied with all that they could point to.
pub(super) fn compact(batch: RecordBatch) -> Result<RecordBatch, WireError> {
    let mut columns = batch.columns().to_vec();
    let mut changed = false;
    for column in &mut columns {
        if is_sparse(column)? {
            *column = copied(column);
            changed = true;
        }
    }
    if !changed {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).map_err(|e| from_arrow(&e))
}

/// The same of one array.
pub(super) fn compact_array(array: ArrayRef) -> Result<ArrayRef, WireError> {
    Ok(match is_sparse(&array)? {
        true => copied(&array),
        false => array,
    })
}

fn is_sparse(array: &ArrayRef) -> Result<bool, WireError> {
    let held = array.get_buffer_memory_size();
    if held <= SPARSE_BYTES {
        return Ok(false);
    }
    let used = used_bytes(array).map_err(|e| from_arrow(&e))?;
    Ok(held > 2 * used + SPARSE_BYTES)
}

fn copied(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        _ => {
            let data = array.to_data();
            let mut copy = MutableArrayData::new(vec![&data], false, data.len());
            copy.extend(0, 0, data.len());
            make_array(copy.freeze())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray, StringViewArray};
    use arrow::compute::concat_batches;

    const ROWS: usize = 100_000;

    fn long(i: usize) -> String {
        format!("a string that doesn't fit into its view {i}")
    }

    fn batch(column: ArrayRef) -> RecordBatch {
        let field = Field::new("c", column.data_type().clone(), true);
        RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).expect("a column")
    }

    fn held(batch: &RecordBatch) -> usize {
        batch.column(0).get_buffer_memory_size()
    }

    /// Each part holds the buffers of the whole: a build side of all of them would take, and count, their product.
    #[test]
    fn parts_of_large_arrays_are_copied() {
        let texts = StringArray::from_iter_values((0..ROWS).map(long));
        let views = StringViewArray::from_iter_values((0..ROWS).map(long));
        let numbers = Int64Array::from_iter((0..ROWS).map(|i| (i % 7 > 0).then_some(i as i64)));
        let arrays: [ArrayRef; 3] = [Arc::new(texts), Arc::new(views), Arc::new(numbers)];
        for array in arrays {
            let whole = batch(array);
            let parts: Vec<RecordBatch> = (0..100)
                .map(|n| compact(whole.slice(n * 1000, 1000)).expect("a part"))
                .collect();
            let total: usize = parts.iter().map(held).sum();
            assert!(total <= 3 * held(&whole), "{:?}: {total}", whole.schema());
            let together = concat_batches(&whole.schema(), &parts).expect("a batch");
            assert_eq!(together, whole);
        }
    }

    #[test]
    fn what_is_dense_is_not_copied() {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(long)));
        let dense = compact(batch(texts.clone())).expect("a batch");
        assert!(Arc::ptr_eq(dense.column(0), &texts));
        let small = texts.slice(7, 1);
        let few: ArrayRef = Arc::new(StringArray::from(vec!["x"; 10]));
        assert!(is_sparse(&small).expect("sizes"));
        assert!(!is_sparse(&few.slice(3, 1)).expect("sizes"));
    }
}
