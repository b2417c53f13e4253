//! Bloom filters of columns: how large they are, and so how much memory a writer needs for them.
//!
//! The writer has one filter a column while it writes a row group. It begins with room for as many values as the row group
//! can have, and is folded to what its values need when it is written, behind the row group.

use arrow::datatypes::Schema;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;

/// Of so many values that a row group hasn't, its filter says that it may.
const FALSE_POSITIVES: f64 = 0.01;

/// What a value takes at that rate: 9.7, rounded up.
const BITS_PER_VALUE: usize = 10;

/// The size of a filter is a power of two, and no less.
const FILTER_BYTES_MIN: usize = 32;

/// All filters take no more than this fraction of a row group's memory.
const SHARE: usize = 4;

/// The filters of a file's columns.
pub(crate) struct BloomFilters {
    columns: Vec<ColumnPath>,
    /// Of each.
    bytes: usize,
}

impl BloomFilters {
    /// Of those columns of a schema that have these field ids; `rows` and `memory` are the limits of a row group.
    pub(crate) fn new(schema: &Schema, ids: &[i32], rows: usize, memory: usize) -> Self {
        let has_filter = |field: &&arrow::datatypes::FieldRef| {
            let id = field.metadata().get(PARQUET_FIELD_ID_META_KEY);
            let id = id.and_then(|id| id.parse::<i32>().ok());
            id.is_some_and(|id| ids.contains(&id)) && !field.data_type().is_nested()
        };
        let fields = schema.fields().iter().filter(has_filter);
        let columns: Vec<ColumnPath> = fields
            .map(|field| ColumnPath::from(field.name().as_str()))
            .collect();
        let bytes = bytes_of_one(columns.len(), rows, memory);
        BloomFilters { columns, bytes }
    }

    /// All of them, in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.saturating_mul(self.columns.len())
    }

    pub(crate) fn add_to(self, mut builder: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
        let values = self.bytes.saturating_mul(8) / BITS_PER_VALUE;
        for column in self.columns {
            builder = builder
                .set_column_bloom_filter_enabled(column.clone(), true)
                .set_column_bloom_filter_fpp(column.clone(), FALSE_POSITIVES)
                .set_column_bloom_filter_ndv(column, values as u64);
        }
        builder
    }
}

/// Enough for a row group whose values are all different, or what fits into the share of its memory.
fn bytes_of_one(filters: usize, rows: usize, memory: usize) -> usize {
    let wanted = (rows.saturating_mul(BITS_PER_VALUE) / 8).next_power_of_two();
    let room = memory / SHARE / filters.max(1);
    let room = room.checked_ilog2().map_or(0, |power| 1 << power);
    wanted.min(room).max(FILTER_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::bloom_filter::Sbbf;

    #[test]
    fn filters_have_the_size_that_is_reckoned_with() {
        for (filters, rows, memory) in [
            (1, 262_144, 128 << 20),
            (8, 262_144, 8 << 20),
            (3, 100, 1 << 20),
            (1000, 262_144, 1 << 20),
            (1, usize::MAX, 1 << 20),
        ] {
            let bytes = bytes_of_one(filters, rows, memory);
            let values = bytes * 8 / BITS_PER_VALUE;
            let filter = Sbbf::new_with_ndv_fpp(values as u64, FALSE_POSITIVES).unwrap();
            assert_eq!(filter.num_blocks() * FILTER_BYTES_MIN, bytes, "{filters}");
            assert!(bytes * filters <= memory / SHARE || bytes == FILTER_BYTES_MIN);
        }
        assert_eq!(bytes_of_one(1, 262_144, 128 << 20), 512 << 10);
    }
}
