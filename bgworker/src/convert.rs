//! Batches between the wire layout of `pg_lake_plan::batch` and Arrow.
//!
//! From the wire every buffer is copied once into aligned Arrow buffers (the peer may go on writing
//! to its ring) and checked: lengths and offsets by the reader, UTF-8 and the range of 4-byte signed
//! offsets here. To the wire the buffers of any array, sliced or not, are cut to their rows.

use crate::arrow_types::{UTC, arrow_type};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, GenericByteArray,
    ListArray, PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, ByteArrayType, DataType, Date32Type, Decimal128Type, Float32Type,
    Float64Type, Int32Type, Int64Type, SchemaRef, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use pg_lake_plan::batch::{self, BatchReader, ColumnReader};
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::types::LakeType;
use std::sync::Arc;

// Values are copied as they lie in memory, and the wire is little-endian.
const _: () = assert!(cfg!(target_endian = "little"));

/// Reads a batch message into Arrow arrays of `schema`, whose columns have the types `types`.
/// A column whose Arrow type is not that of [`arrow_type`] is cast.
pub fn batch_from_wire(
    bytes: &[u8],
    types: &[LakeType],
    schema: SchemaRef,
) -> Result<RecordBatch, WireError> {
    if types.len() != schema.fields().len() {
        return Err(internal("a batch's schema and its types differ in number"));
    }
    let reader = BatchReader::parse(bytes, types).map_err(|e| protocol(e.to_string()))?;
    let columns = reader
        .columns
        .iter()
        .zip(types)
        .zip(schema.fields())
        .map(|((column, ty), field)| read_column(column, ty, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(reader.rows));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(malformed)
}

fn read_column(
    column: &ColumnReader<'_>,
    ty: &LakeType,
    target: &DataType,
) -> Result<ArrayRef, WireError> {
    let nulls = read_nulls(column);
    let array: ArrayRef = match ty {
        LakeType::Bool => {
            let (_, _, values) = column.buffers();
            let bits = BooleanBuffer::collect_bool(column.rows, |i| values[i] != 0);
            Arc::new(BooleanArray::new(bits, nulls))
        }
        LakeType::Int2 | LakeType::Int4 => read_primitive::<Int32Type>(column, nulls)?,
        LakeType::Int8 => read_primitive::<Int64Type>(column, nulls)?,
        LakeType::Float4 => read_primitive::<Float32Type>(column, nulls)?,
        LakeType::Float8 => read_primitive::<Float64Type>(column, nulls)?,
        LakeType::Date => read_primitive::<Date32Type>(column, nulls)?,
        LakeType::Time => read_primitive::<Time64MicrosecondType>(column, nulls)?,
        LakeType::Timestamp => read_primitive::<TimestampMicrosecondType>(column, nulls)?,
        LakeType::Timestamptz => {
            Arc::new(primitive::<TimestampMicrosecondType>(column, nulls)?.with_timezone(UTC))
        }
        LakeType::Decimal { precision, scale } => Arc::new(
            primitive::<Decimal128Type>(column, nulls)?
                .with_precision_and_scale(*precision, *scale)
                .map_err(malformed)?,
        ),
        LakeType::Uuid => {
            let values = Buffer::from(fixed_values(column, 16));
            Arc::new(FixedSizeBinaryArray::try_new(16, values, nulls).map_err(malformed)?)
        }
        LakeType::Text => {
            let (offsets, values) = read_bytes(column)?;
            // Checks UTF-8, and that no offset is inside a character.
            Arc::new(StringArray::try_new(offsets, values, nulls).map_err(malformed)?)
        }
        LakeType::Bytes => {
            let (offsets, values) = read_bytes(column)?;
            Arc::new(BinaryArray::try_new(offsets, values, nulls).map_err(malformed)?)
        }
        LakeType::List { element, .. } => {
            let DataType::List(field) = target else {
                return Err(mismatch(ty, target));
            };
            let child = column
                .children
                .first()
                .ok_or_else(|| mismatch(ty, target))?;
            let values = read_column(child, element, field.data_type())?;
            let offsets = read_offsets(column)?;
            let list = ListArray::try_new(field.clone(), offsets, values, nulls);
            Arc::new(list.map_err(malformed)?)
        }
        LakeType::Struct(fields) => {
            let DataType::Struct(targets) = target else {
                return Err(mismatch(ty, target));
            };
            if targets.len() != fields.len() {
                return Err(mismatch(ty, target));
            }
            let children = column
                .children
                .iter()
                .zip(fields)
                .zip(targets)
                .map(|((child, f), target)| read_column(child, &f.ty, target.data_type()))
                .collect::<Result<Vec<_>, _>>()?;
            let array =
                StructArray::try_new_with_length(targets.clone(), children, nulls, column.rows);
            Arc::new(array.map_err(malformed)?)
        }
    };
    cast_to(array, target)
}

fn read_nulls(column: &ColumnReader<'_>) -> Option<NullBuffer> {
    let (validity, _, _) = column.buffers();
    let bytes = validity.get(..column.rows.div_ceil(8))?;
    if bytes.is_empty() {
        return None;
    }
    let nulls = NullBuffer::new(BooleanBuffer::new(Buffer::from(bytes), 0, column.rows));
    (nulls.null_count() > 0).then_some(nulls)
}

/// Exactly the rows' bytes: the buffer may be longer.
fn fixed_values<'a>(column: &ColumnReader<'a>, width: usize) -> &'a [u8] {
    let (_, _, values) = column.buffers();
    values.get(..column.rows * width).unwrap_or(&[])
}

fn primitive<T: ArrowPrimitiveType>(
    column: &ColumnReader<'_>,
    nulls: Option<NullBuffer>,
) -> Result<PrimitiveArray<T>, WireError> {
    let values = Buffer::from(fixed_values(column, size_of::<T::Native>()));
    let values = ScalarBuffer::<T::Native>::new(values, 0, column.rows);
    PrimitiveArray::try_new(values, nulls).map_err(malformed)
}

fn read_primitive<T: ArrowPrimitiveType>(
    column: &ColumnReader<'_>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, WireError> {
    Ok(Arc::new(primitive::<T>(column, nulls)?))
}

/// The reader has checked that offsets ascend from 0; here that they fit 31 bits.
fn read_offsets(column: &ColumnReader<'_>) -> Result<OffsetBuffer<i32>, WireError> {
    let (_, raw, _) = column.buffers();
    let mut offsets = Vec::with_capacity(column.rows + 1);
    for le in raw.chunks_exact(4).take(column.rows + 1) {
        let offset = i32::from_le_bytes([le[0], le[1], le[2], le[3]]);
        if offset < 0 {
            return Err(protocol("malformed batch: more than 2 GiB in one column"));
        }
        offsets.push(offset);
    }
    Ok(OffsetBuffer::new(offsets.into()))
}

fn read_bytes(column: &ColumnReader<'_>) -> Result<(OffsetBuffer<i32>, Buffer), WireError> {
    let offsets = read_offsets(column)?;
    let end = offsets.last().copied().unwrap_or(0) as usize;
    let (_, _, values) = column.buffers();
    Ok((offsets, Buffer::from(values.get(..end).unwrap_or(&[]))))
}

/// A batch's buffers as they go into a message. Cheap to make (buffers are shared where they can
/// be), so that a sender can look at its length before it decides where to cut.
pub struct WireBatch {
    rows: usize,
    buffers: Vec<Buffer>,
}

impl WireBatch {
    /// Columns are cast to `types` where they must be.
    pub fn new(batch: &RecordBatch, types: &[LakeType]) -> Result<WireBatch, WireError> {
        if batch.num_columns() != types.len() {
            return Err(internal(format!(
                "a result has {} columns where {} are expected",
                batch.num_columns(),
                types.len()
            )));
        }
        let mut buffers = Vec::with_capacity(types.len() * 3);
        for (array, ty) in batch.columns().iter().zip(types) {
            write_column(array, ty, &mut buffers)?;
        }
        Ok(WireBatch {
            rows: batch.num_rows(),
            buffers,
        })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the message.
    pub fn message_len(&self) -> usize {
        let buffers = self.buffers.iter().map(|b| 8 + b.len().next_multiple_of(8));
        8 + buffers.sum::<usize>()
    }

    /// Replaces `out` by the message.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let slices: Vec<&[u8]> = self.buffers.iter().map(Buffer::as_slice).collect();
        batch::write_buffers(self.rows, &slices, out).map_err(|e| internal(e.to_string()))
    }
}

fn write_column(array: &ArrayRef, ty: &LakeType, out: &mut Vec<Buffer>) -> Result<(), WireError> {
    let array = &if has_layout_of(array.data_type(), ty) {
        array.clone()
    } else {
        cast_to(array.clone(), &arrow_type(ty))?
    };
    out.push(match array.nulls() {
        Some(nulls) if nulls.null_count() > 0 => nulls.inner().sliced(),
        _ => empty(),
    });
    match ty {
        LakeType::Bool => {
            let values = array
                .as_boolean_opt()
                .ok_or_else(|| wrong(array, ty))?
                .values();
            out.push(Buffer::from_vec(
                values.iter().map(u8::from).collect::<Vec<u8>>(),
            ));
        }
        LakeType::Int2 | LakeType::Int4 => write_primitive::<Int32Type>(array, ty, out)?,
        LakeType::Int8 => write_primitive::<Int64Type>(array, ty, out)?,
        LakeType::Float4 => write_primitive::<Float32Type>(array, ty, out)?,
        LakeType::Float8 => write_primitive::<Float64Type>(array, ty, out)?,
        LakeType::Date => write_primitive::<Date32Type>(array, ty, out)?,
        LakeType::Time => write_primitive::<Time64MicrosecondType>(array, ty, out)?,
        LakeType::Timestamp | LakeType::Timestamptz => {
            write_primitive::<TimestampMicrosecondType>(array, ty, out)?;
        }
        LakeType::Decimal { .. } => write_primitive::<Decimal128Type>(array, ty, out)?,
        LakeType::Uuid => {
            let uuids = array
                .as_fixed_size_binary_opt()
                .ok_or_else(|| wrong(array, ty))?;
            out.push(uuids.values().slice_with_length(0, uuids.len() * 16));
        }
        LakeType::Text => {
            let strings = array
                .as_string_opt::<i32>()
                .ok_or_else(|| wrong(array, ty))?;
            write_bytes(strings, out);
        }
        LakeType::Bytes => {
            let bytes = array
                .as_binary_opt::<i32>()
                .ok_or_else(|| wrong(array, ty))?;
            write_bytes(bytes, out);
        }
        LakeType::List { element, .. } => {
            let list = array.as_list_opt::<i32>().ok_or_else(|| wrong(array, ty))?;
            let (start, len) = write_offsets(list.offsets(), out);
            write_column(&list.values().slice(start, len), element, out)?;
        }
        LakeType::Struct(fields) => {
            let columns = array
                .as_struct_opt()
                .ok_or_else(|| wrong(array, ty))?
                .columns();
            if columns.len() != fields.len() {
                return Err(wrong(array, ty));
            }
            for (column, field) in columns.iter().zip(fields) {
                write_column(column, &field.ty, out)?;
            }
        }
    }
    Ok(())
}

fn empty() -> Buffer {
    Buffer::from_vec(Vec::<u8>::new())
}

fn write_primitive<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    ty: &LakeType,
    out: &mut Vec<Buffer>,
) -> Result<(), WireError> {
    let array = array
        .as_primitive_opt::<T>()
        .ok_or_else(|| wrong(array, ty))?;
    out.push(array.values().inner().clone());
    Ok(())
}

/// Pushes the offsets counted from 0; returns where the first row starts and how far all reach.
fn write_offsets(offsets: &OffsetBuffer<i32>, out: &mut Vec<Buffer>) -> (usize, usize) {
    let first = offsets.first().copied().unwrap_or(0);
    let last = offsets.last().copied().unwrap_or(first);
    out.push(if first == 0 {
        // An offset is never negative: its bytes are the same as a u32.
        offsets.inner().inner().clone()
    } else {
        Buffer::from_vec(offsets.iter().map(|o| o - first).collect::<Vec<i32>>())
    });
    (first as usize, (last - first) as usize)
}

fn write_bytes<T: ByteArrayType<Offset = i32>>(array: &GenericByteArray<T>, out: &mut Vec<Buffer>) {
    let (start, len) = write_offsets(array.offsets(), out);
    out.push(array.values().slice_with_length(start, len));
}

/// Whether an array of that type has the buffers that `ty` has on the wire. Nested fields are
/// looked at when they are written.
fn has_layout_of(data_type: &DataType, ty: &LakeType) -> bool {
    match (data_type, ty) {
        (DataType::Decimal128(_, have), LakeType::Decimal { scale, .. }) => have == scale,
        (DataType::Timestamp(TimeUnit::Microsecond, _), LakeType::Timestamp) => true,
        (DataType::Timestamp(TimeUnit::Microsecond, _), LakeType::Timestamptz) => true,
        (DataType::List(_), LakeType::List { .. }) => true,
        (DataType::Struct(have), LakeType::Struct(fields)) => have.len() == fields.len(),
        (DataType::List(_) | DataType::Struct(_), _) => false,
        (have, ty) => *have == arrow_type(ty),
    }
}

fn cast_to(array: ArrayRef, target: &DataType) -> Result<ArrayRef, WireError> {
    if array.data_type() == target {
        return Ok(array);
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(&array, target, &options)
        .map_err(|e| internal(format!("conversion of a column failed: {e}")))
}

fn protocol(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::Protocol, message)
}

fn internal(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::Internal, message)
}

fn malformed(error: ArrowError) -> WireError {
    protocol("malformed batch").detail(error.to_string())
}

fn mismatch(ty: &LakeType, target: &DataType) -> WireError {
    internal(format!(
        "a column of type {ty:?} cannot be read as {target}"
    ))
}

fn wrong(array: &ArrayRef, ty: &LakeType) -> WireError {
    internal(format!(
        "an array of type {} cannot be sent as {ty:?}",
        array.data_type()
    ))
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
