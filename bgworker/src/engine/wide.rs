//! Wide rows, of which there are few in a batch: those of row groups that are decoded, and those of DataFusion's operators,
//! which collect as many rows as a batch may have.

use super::BATCH_ROWS;
use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use pg_lake_plan::ir::Scan;
use pg_lake_plan::message::{Execute, FileRef};

/// A batch that is decoded has about so many bytes at most, or one row.
const BATCH_BYTES: usize = 8 << 20;

/// Rows of a table whose files have less for each than this aren't wide.
const WIDE_BYTES: u64 = 1024;

/// Compressed values are taken for so many times their bytes.
const EXPANSION: u64 = 4;

/// It is a guess: narrow columns of wide rows aren't to be passed on one by one.
const LEAST_ROWS: usize = 256;

/// What a file may have beside its rows: its footer, indexes of pages, filters.
const OVERHEAD: u64 = 64 << 10;

/// Rows of a batch of DataFusion's operators, by the sizes of the files that are read, with columns that aren't. `BATCH_ROWS`
/// unless a table has wide rows.
pub(super) fn rows_of_batches(request: &Execute) -> usize {
    let scans = request.fragment.root.scans();
    let widths = scans.into_iter().map(|scan| {
        let table = request.tables.get(scan.table as usize);
        table.map_or(0, |table| width(scan, &table.files))
    });
    let width = widths.fold(0u64, u64::saturating_add);
    rows_of(usize::try_from(width).unwrap_or(usize::MAX)).max(LEAST_ROWS)
}

/// Bytes of a wide row of a table; 0 if its rows aren't wide.
fn width(scan: &Scan, files: &[FileRef]) -> u64 {
    let mut columns = scan.columns.iter();
    if columns.all(|column| column.ty.lake.fixed_width().is_some()) {
        return 0;
    }
    let (mut bytes, mut rows) = (0u64, 0u64);
    for file in files {
        bytes = bytes.saturating_add(file.size.saturating_sub(OVERHEAD));
        rows = rows.saturating_add(file.rows.count());
    }
    match bytes / rows.max(1) {
        narrow if narrow < WIDE_BYTES => 0,
        wide => wide.saturating_mul(EXPANSION),
    }
}

/// So many rows of this width fit into a batch: a power of two, as `BATCH_ROWS` is.
fn rows_of(width: usize) -> usize {
    let fit = BATCH_BYTES / width.max(1);
    let power = fit.max(1).ilog2();
    (1usize << power).min(BATCH_ROWS)
}

/// How many of the rows of a row group are decoded at a time, by the bytes that all take.
pub(super) fn rows_at_a_time(decoded: usize, rows: u64) -> usize {
    rows_of(decoded / usize::try_from(rows).unwrap_or(usize::MAX).max(1))
}

/// Chunks for the cache, of what was decoded so many rows at a time. `None`: a chunk would be too large.
pub(super) fn whole_chunks(pieces: Vec<ArrayRef>, step: usize) -> Option<Vec<ArrayRef>> {
    if step >= BATCH_ROWS {
        return Some(pieces);
    }
    let each = BATCH_ROWS / step.max(1);
    let mut chunks = Vec::with_capacity(pieces.len().div_ceil(each));
    let mut pieces = pieces.into_iter();
    // The pieces of a chunk go before the next one is made.
    loop {
        let of_chunk: Vec<ArrayRef> = pieces.by_ref().take(each).collect();
        if of_chunk.is_empty() {
            return Some(chunks);
        }
        let of_chunk: Vec<&dyn Array> = of_chunk.iter().map(|piece| piece.as_ref()).collect();
        chunks.push(concat(&of_chunk).ok()?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;
    use pg_lake_plan::ir::{ColumnSource, ScanColumn};
    use pg_lake_plan::rows::RowNumbers;
    use pg_lake_plan::types::{LakeType, SqlType};
    use std::sync::Arc;

    fn scan(types: &[LakeType]) -> Scan {
        let column = |ty: &LakeType| ScanColumn {
            name: String::new(),
            source: ColumnSource::Field(1),
            ty: SqlType {
                lake: ty.clone(),
                oid: 0,
                typmod: -1,
                collation: 0,
            },
            missing: None,
        };
        Scan {
            table: 0,
            name: String::new(),
            columns: types.iter().map(column).collect(),
            predicate: None,
        }
    }

    fn file(size: u64, rows: u64) -> FileRef {
        FileRef {
            path: String::new(),
            size,
            checksums: vec![],
            rows: RowNumbers::consecutive(0, rows),
            deleted: vec![],
            ranges: None,
        }
    }

    #[test]
    fn rows_are_wide_by_the_sizes_of_files() {
        let texts = scan(&[LakeType::Int4, LakeType::Text]);
        assert_eq!(width(&texts, &[]), 0);
        assert_eq!(width(&texts, &[file(200 << 20, 6_000_000)]), 0);
        // A few rows, and what every file has.
        assert_eq!(width(&texts, &[file(5000, 5), file(3000, 1)]), 0);
        let wide = [file(OVERHEAD + 100_000, 10), file(OVERHEAD + 300_000, 10)];
        assert_eq!(width(&texts, &wide), 20_000 * EXPANSION);
        assert_eq!(width(&scan(&[LakeType::Int4]), &wide), 0);
    }

    #[test]
    fn wide_rows_are_decoded_few_at_a_time() {
        assert_eq!(rows_at_a_time(0, 0), BATCH_ROWS);
        assert_eq!(rows_at_a_time(100 << 20, 1 << 20), BATCH_ROWS);
        assert_eq!(rows_at_a_time(128 << 20, 128), 8);
        assert_eq!(rows_at_a_time(128 << 20, 130), 8);
        assert_eq!(rows_at_a_time(128 << 20, 1), 1);
        assert_eq!(rows_at_a_time(usize::MAX, u64::MAX), BATCH_ROWS);
    }

    #[test]
    fn the_cache_gets_whole_chunks() {
        let rows = BATCH_ROWS + 100;
        let whole = StringArray::from_iter_values((0..rows).map(|n| n.to_string()));
        let step = BATCH_ROWS / 8;
        let pieces = (0..rows).step_by(step);
        let pieces =
            pieces.map(|from| Arc::new(whole.slice(from, step.min(rows - from))) as ArrayRef);
        let chunks = whole_chunks(pieces.collect(), step).expect("chunks");
        let lengths: Vec<usize> = chunks.iter().map(|chunk| chunk.len()).collect();
        assert_eq!(lengths, [BATCH_ROWS, 100]);
        let again: Vec<&dyn Array> = chunks.iter().map(|chunk| chunk.as_ref()).collect();
        let again = concat(&again).expect("an array");
        assert_eq!(again.as_ref(), &whole as &dyn Array);
    }
}
