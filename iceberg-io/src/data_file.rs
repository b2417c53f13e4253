//! Manifest entries' data files: made from what the caller knows of a file, and copied with a row id. Those of delete
//! files are made in `deletes`.

use std::collections::HashMap;

use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, PrimitiveType, Schema,
};

use crate::error::{Error, ErrorKind, Result};
use crate::layout::Placement;
use crate::publish::PublishFile;
use crate::stats::ColumnStats;

/// The data file of a new manifest entry. Columns that the schema no longer has are left out.
pub(crate) fn new_data_file(
    file: &PublishFile,
    placement: &Placement,
    sort_order_id: Option<i32>,
) -> Result<DataFile> {
    let schema: &Schema = &placement.schema;
    let mut sizes = HashMap::new();
    let mut values = HashMap::new();
    let mut nulls = HashMap::new();
    let mut nans = HashMap::new();
    let mut lower_bounds = HashMap::new();
    let mut upper_bounds = HashMap::new();
    for column in &file.columns {
        let Some(field) = schema.field_by_id(column.field_id) else {
            continue;
        };
        sizes.insert(column.field_id, column.column_size);
        values.insert(column.field_id, column.value_count);
        nulls.insert(column.field_id, column.null_count);
        if let Some(count) = column.nan_count {
            nans.insert(column.field_id, count);
        }
        let Some(ty) = field.field_type.as_primitive_type() else {
            continue;
        };
        let (lower, upper) = published_bounds(column, ty);
        if let Some(bytes) = lower {
            lower_bounds.insert(column.field_id, datum(file, column.field_id, &bytes, ty)?);
        }
        if let Some(bytes) = upper {
            upper_bounds.insert(column.field_id, datum(file, column.field_id, &bytes, ty)?);
        }
    }
    let mut builder = DataFileBuilder::default();
    builder
        .content(DataContentType::Data)
        .file_path(file.path.clone())
        .file_format(DataFileFormat::Parquet)
        .partition(placement.partition.clone())
        .partition_spec_id(placement.spec.spec_id())
        .record_count(file.row_count)
        .file_size_in_bytes(file.size_bytes)
        .column_sizes(sizes)
        .value_counts(values)
        .null_value_counts(nulls)
        .nan_value_counts(nans)
        .lower_bounds(lower_bounds)
        .upper_bounds(upper_bounds)
        .split_offsets((!file.split_offsets.is_empty()).then(|| file.split_offsets.clone()));
    if let Some(order) = sort_order_id {
        builder.sort_order_id(order);
    }
    build(&builder)
}

/// A copy of a data file with its first row id written down, as an entry needs that is moved to another manifest.
pub(crate) fn with_first_row_id(file: &DataFile, first_row_id: i64) -> Result<DataFile> {
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_string())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes())
        .first_row_id(Some(first_row_id));
    if let Some(order) = file.sort_order_id() {
        builder.sort_order_id(order);
    }
    build(&builder)
}

pub(crate) fn build(builder: &DataFileBuilder) -> Result<DataFile> {
    builder.build().map_err(|e| {
        Error::new(
            ErrorKind::Internal,
            format!("could not build a manifest entry: {e}"),
        )
    })
}

fn datum(file: &PublishFile, field_id: i32, bytes: &[u8], ty: &PrimitiveType) -> Result<Datum> {
    Datum::try_from_bytes(bytes, ty.clone()).map_err(|e| {
        let message = format!(
            "a bound of column {field_id} of file \"{}\" is not a value of type {ty}",
            file.path
        );
        Error::new(ErrorKind::InvalidInput, message).with_source(e)
    })
}

/// The bounds to publish: those of the file, except for UUIDs.
fn published_bounds(
    column: &ColumnStats,
    ty: &PrimitiveType,
) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    match ty {
        PrimitiveType::Uuid => match widened_uuids(column) {
            Some((lower, upper)) => (Some(lower.to_vec()), Some(upper.to_vec())),
            None => (None, None),
        },
        _ => (column.lower.clone(), column.upper.clone()),
    }
}

/// UUID bounds that hold for readers of either habit. The spec compares UUIDs as unsigned bytes, but older Java readers
/// compare the two halves as signed numbers. Bounds whose upper halves have the same sign and lie strictly outside the
/// values' order both ways; where there are none, none are published.
fn widened_uuids(column: &ColumnStats) -> Option<([u8; 16], [u8; 16])> {
    let upper_half = |bytes: &Option<Vec<u8>>| -> Option<u64> {
        Some(u64::from_be_bytes(
            bytes.as_ref()?.get(..8)?.try_into().ok()?,
        ))
    };
    let lower = upper_half(&column.lower)?.checked_sub(1)?;
    let upper = upper_half(&column.upper)?.checked_add(1)?;
    let same_sign = (lower ^ upper) >> 63 == 0;
    same_sign.then(|| {
        (
            (u128::from(lower) << 64).to_be_bytes(),
            (u128::from(upper) << 64).to_be_bytes(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(lower: u128, upper: u128) -> ColumnStats {
        ColumnStats {
            field_id: 1,
            column_size: 0,
            value_count: 2,
            null_count: 0,
            nan_count: None,
            lower: Some(lower.to_be_bytes().to_vec()),
            upper: Some(upper.to_be_bytes().to_vec()),
        }
    }

    #[test]
    fn uuid_bounds_hold_in_both_orders() {
        let values = [
            0x0190_0000_0000_7000_8000_0000_0000_0001u128,
            0x0190_0000_0000_7000_0000_0000_0000_0005,
        ];
        let (lower, upper) = widened_uuids(&column(values[1], values[0])).unwrap();
        let (lower, upper) = (u128::from_be_bytes(lower), u128::from_be_bytes(upper));
        let java = |value: u128| ((value >> 64) as i64, value as i64);
        for value in values {
            assert!(lower <= value && value <= upper);
            assert!(java(lower) <= java(value) && java(value) <= java(upper));
        }
        assert_eq!(widened_uuids(&column(1 << 64, u128::MAX >> 1)), None);
        assert_eq!(widened_uuids(&column(0, 5)), None);
    }
}
