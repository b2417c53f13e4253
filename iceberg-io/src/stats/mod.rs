//! Per-column statistics of a data file: counts, sizes and bounds, as Iceberg manifests hold them.
//!
//! - `bounds`: minimum and maximum of a column, accumulated batch by batch.
//! - `single_value`: Iceberg's binary form of a value, and the shortening of long ones.
//!
//! Bounds are computed here and not taken from Parquet: readers prune files by them, so a bound that is off by anything
//! loses rows. Top-level primitive columns get bounds and exact counts; the leaves of structs and lists get the counts
//! that Parquet keeps for them.

mod bounds;
mod single_value;

use std::collections::HashMap;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::file::metadata::ParquetMetaData;
use serde::{Deserialize, Serialize};

use self::bounds::Bounds;
use crate::error::{Error, ErrorKind, Result};

/// What a file holds of one column. `lower` and `upper` are in Iceberg's single-value binary form (spec, appendix D):
/// every value that is neither null nor NaN lies between them; absent means unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnStats {
    pub field_id: i32,
    /// Bytes of the file that store the column.
    pub column_size: u64,
    /// All values, nulls and NaNs included.
    pub value_count: u64,
    pub null_count: u64,
    /// For floating-point columns only.
    pub nan_count: Option<u64>,
    pub lower: Option<Vec<u8>>,
    pub upper: Option<Vec<u8>>,
}

/// Accumulates the statistics of one file.
#[derive(Default)]
pub(crate) struct StatsCollector {
    columns: Vec<Column>,
}

/// A top-level column; `bounds` is absent for structs and lists.
struct Column {
    field_id: i32,
    name: String,
    value_count: u64,
    null_count: u64,
    bounds: Option<Bounds>,
}

impl StatsCollector {
    /// Fails if a field carries no id or has a type that no Iceberg type maps to.
    pub(crate) fn new(schema: &Schema) -> Result<Self> {
        let columns = schema
            .fields()
            .iter()
            .map(|field| {
                let bounds = match field.data_type() {
                    DataType::Struct(_) | DataType::List(_) | DataType::LargeList(_) => None,
                    primitive => Some(Bounds::for_type(primitive).ok_or_else(|| {
                        let message = format!(
                            "column \"{}\" has type {primitive}, which Iceberg lacks",
                            field.name()
                        );
                        Error::new(ErrorKind::Unsupported, message)
                    })?),
                };
                let name = field.name().clone();
                Ok(Column {
                    field_id: field_id(field)?,
                    name,
                    value_count: 0,
                    null_count: 0,
                    bounds,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { columns })
    }

    /// Takes a batch in. The batch's columns are those of the schema, in its order.
    pub(crate) fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        for (column, array) in self.columns.iter_mut().zip(batch.columns()) {
            let Some(bounds) = &mut column.bounds else {
                continue;
            };
            bounds.update(array.as_ref()).ok_or_else(|| {
                let message = format!(
                    "column \"{}\" arrived as {}",
                    column.name,
                    array.data_type()
                );
                Error::new(ErrorKind::InvalidInput, message)
            })?;
            column.value_count += array.len() as u64;
            column.null_count += array.null_count() as u64;
        }
        Ok(())
    }

    /// The statistics, once the file's metadata are known.
    pub(crate) fn finish(self, metadata: &ParquetMetaData) -> Result<Vec<ColumnStats>> {
        let mut top_level: HashMap<i32, Column> = self
            .columns
            .into_iter()
            .filter(|c| c.bounds.is_some())
            .map(|c| (c.field_id, c))
            .collect();
        let mut stats = Vec::new();
        for leaf in leaves(metadata)? {
            if let Some(column) = top_level.remove(&leaf.field_id) {
                let (lower, upper) = column
                    .bounds
                    .as_ref()
                    .map(Bounds::encode)
                    .unwrap_or_default();
                stats.push(ColumnStats {
                    field_id: column.field_id,
                    column_size: leaf.size,
                    value_count: column.value_count,
                    null_count: column.null_count,
                    nan_count: column.bounds.as_ref().and_then(Bounds::nan_count),
                    lower,
                    upper,
                });
            } else if let Some(null_count) = leaf.null_count {
                stats.push(ColumnStats {
                    field_id: leaf.field_id,
                    column_size: leaf.size,
                    value_count: leaf.value_count,
                    null_count,
                    nan_count: None,
                    lower: None,
                    upper: None,
                });
            }
        }
        Ok(stats)
    }
}

/// What Parquet's own metadata say about a leaf column, over all row groups.
struct Leaf {
    field_id: i32,
    size: u64,
    value_count: u64,
    /// Absent if a row group lacks it: a wrong count would be worse than none.
    null_count: Option<u64>,
}

fn leaves(metadata: &ParquetMetaData) -> Result<Vec<Leaf>> {
    let mut leaves = Vec::new();
    for (ordinal, column) in metadata
        .file_metadata()
        .schema_descr()
        .columns()
        .iter()
        .enumerate()
    {
        let info = column.self_type().get_basic_info();
        if !info.has_id() {
            let message = format!(
                "Parquet column \"{}\" has no field id",
                column.path().string()
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let mut leaf = Leaf {
            field_id: info.id(),
            size: 0,
            value_count: 0,
            null_count: Some(0),
        };
        for row_group in metadata.row_groups() {
            let chunk = row_group.column(ordinal);
            leaf.size += chunk.compressed_size().max(0).unsigned_abs();
            leaf.value_count += chunk.num_values().max(0).unsigned_abs();
            let nulls = chunk.statistics().and_then(|s| s.null_count_opt());
            leaf.null_count = leaf.null_count.zip(nulls).map(|(sum, n)| sum + n);
        }
        leaves.push(leaf);
    }
    Ok(leaves)
}

fn field_id(field: &Field) -> Result<i32> {
    field
        .metadata()
        .get(PARQUET_FIELD_ID_META_KEY)
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| {
            let message = format!(
                "column \"{}\" has no {PARQUET_FIELD_ID_META_KEY}",
                field.name()
            );
            Error::new(ErrorKind::InvalidInput, message)
        })
}
