//! Some rows of a row group, which are all that is decoded of it: few that were asked for by number, or those of the pages
//! that may have some of use.

use super::BATCH_ROWS;
use super::error::{from_arrow, internal};
use super::pages::page_rows;
use super::selection::{self, Selection};
use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use parquet::arrow::arrow_reader::RowSelection;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use pg_lake_plan::message::{FileRef, WireError};
use std::collections::VecDeque;
use std::ops::Range;

#[derive(Debug)]
pub(super) struct Picked {
    /// Positions in the file, ascending: what is still to be read.
    runs: VecDeque<Range<u64>>,
    /// They were asked for by number, and are visible.
    few: bool,
}

impl Picked {
    /// Visible rows, at some positions of the file.
    pub(super) fn few(runs: Vec<Range<u64>>) -> Self {
        Picked {
            runs: runs.into(),
            few: true,
        }
    }

    /// Rows of pages, visible or not; the runs are from the row group's first row on.
    pub(super) fn pages(runs: &[Range<u64>], first: u64) -> Self {
        let runs = runs.iter();
        Picked {
            runs: runs.map(|run| first + run.start..first + run.end).collect(),
            few: false,
        }
    }

    pub(super) fn are_few(&self) -> bool {
        self.few
    }

    /// Nothing is left to be read.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn rows(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// What the Parquet reader is to yield of a row group at these positions.
    pub(super) fn selection(&self, window: &Range<u64>) -> RowSelection {
        let runs = from(window.start, self.runs.iter());
        let rows = (window.end - window.start) as usize;
        RowSelection::from_consecutive_ranges(
            runs.map(|run| run.start as usize..run.end as usize),
            rows,
        )
    }

    /// The positions of the next rows; `None` if there aren't so many.
    pub(super) fn take(&mut self, rows: usize) -> Option<Vec<Range<u64>>> {
        let mut left = rows as u64;
        let mut taken = vec![];
        while left > 0 {
            let run = self.runs.front_mut()?;
            let end = run.end.min(run.start.saturating_add(left));
            left -= end - run.start;
            taken.push(run.start..end);
            run.start = end;
            if run.start >= run.end {
                self.runs.pop_front();
            }
        }
        Some(taken)
    }

    /// Those of the rows at some positions that are visible.
    pub(super) fn visible(&self, file: &FileRef, runs: &[Range<u64>]) -> Selection {
        if self.few {
            return Selection::All;
        }
        selection::select_runs(file, runs)
    }

    /// The bytes of a column that hold rows of a row group at these positions, its dictionary included. `None` if it isn't
    /// known where they are.
    pub(super) fn bytes(
        &self,
        chunk: &ColumnChunkMetaData,
        locations: &[PageLocation],
        window: &Range<u64>,
    ) -> Option<Vec<Range<u64>>> {
        let runs: Vec<Range<u64>> = from(window.start, self.runs.iter()).collect();
        let touched = touched(locations, window.end - window.start, &runs)?;
        let mut ranges = vec![];
        for page in &touched {
            let start = u64::try_from(page.offset).ok()?;
            let length = u64::try_from(page.compressed_page_size).ok()?;
            ranges.push(start..start.checked_add(length)?);
        }
        let (start, _) = chunk.byte_range();
        let first = u64::try_from(locations.first()?.offset).ok()?;
        if !ranges.is_empty() && start < first {
            ranges.push(start..first);
        }
        Some(ranges)
    }
}

fn from<'a>(
    first: u64,
    runs: impl Iterator<Item = &'a Range<u64>>,
) -> impl Iterator<Item = Range<u64>> {
    runs.map(move |run| run.start - first..run.end - first)
}

/// The pages of a column that hold rows of some runs, which count from the row group's first row.
pub(super) fn touched<'a>(
    locations: &'a [PageLocation],
    rows: u64,
    runs: &[Range<u64>],
) -> Option<Vec<&'a PageLocation>> {
    let pages = page_rows(locations, rows)?;
    let is_touched = |page: &Range<u64>| {
        let next = runs.partition_point(|run| run.end <= page.start);
        runs.get(next).is_some_and(|run| run.start < page.end)
    };
    let pages = locations.iter().zip(pages);
    Some(
        pages
            .filter(|(_, rows)| is_touched(rows))
            .map(|(page, _)| page)
            .collect(),
    )
}

/// The values of a cached column at some positions; `first` is that of the row group's first row.
pub(super) fn gather(
    chunks: &[ArrayRef],
    runs: &[Range<u64>],
    first: u64,
) -> Result<ArrayRef, WireError> {
    let mut slices = vec![];
    for run in from(first, runs.iter()) {
        let mut at = run.start as usize;
        let end = run.end as usize;
        while at < end {
            let (chunk, offset) = (at / BATCH_ROWS, at % BATCH_ROWS);
            let rows = (end - at).min(BATCH_ROWS - offset);
            let chunk = chunks.get(chunk);
            let chunk = chunk.filter(|chunk| offset + rows <= chunk.len());
            let Some(chunk) = chunk else {
                return Err(internal("a column's chunk is missing"));
            };
            slices.push(chunk.slice(offset, rows));
            at += rows;
        }
    }
    if let [slice] = slices.as_slice() {
        return Ok(slice.clone());
    }
    let slices: Vec<&dyn Array> = slices.iter().map(|slice| slice.as_ref()).collect();
    concat(&slices).map_err(|e| from_arrow(&e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::Int32Type;
    use std::sync::Arc;

    #[test]
    fn positions_are_taken_in_their_order() {
        let mut picked = Picked::pages(&[0..3, 5..9], 100);
        assert_eq!((picked.rows(), picked.are_few()), (7, false));
        let first = 100..102;
        assert_eq!(picked.take(2), Some(vec![first]));
        assert_eq!(picked.take(3), Some(vec![102..103, 105..107]));
        assert_eq!(picked.take(0), Some(vec![]));
        assert!(!picked.is_empty());
        assert_eq!(picked.take(3), None);
        assert!(picked.is_empty());
    }

    #[test]
    fn the_reader_yields_the_rows_of_the_runs() {
        let picked = Picked::few(vec![12..14, 19..20]);
        let selection = picked.selection(&(10..20));
        let runs: Vec<_> = selection.iter().map(|s| (s.skip, s.row_count)).collect();
        assert_eq!(runs, [(true, 2), (false, 2), (true, 5), (false, 1)]);
    }

    #[test]
    fn cached_rows_are_found_across_chunks() {
        let chunk = |from: i32, rows: i32| -> ArrayRef {
            Arc::new(Int32Array::from_iter_values(from..from + rows))
        };
        let size = BATCH_ROWS as i32;
        let chunks = [chunk(0, size), chunk(size, 10)];
        let end = BATCH_ROWS as u64;
        let runs = [1000..1001, 1000 + end - 1..1000 + end + 2];
        let rows = gather(&chunks, &runs, 1000).expect("rows");
        let rows = rows.as_primitive::<Int32Type>().values().to_vec();
        assert_eq!(rows, [0, size - 1, size, size + 1]);
        let beyond = 1000 + end + 5..1000 + end + 11;
        assert!(gather(&chunks, &[beyond], 1000).is_err());
    }

    #[test]
    fn only_touched_pages_are_read() {
        let page = |n: i64| PageLocation {
            offset: 100 + n * 50,
            compressed_page_size: 50,
            first_row_index: n * 10,
        };
        let pages = [page(0), page(1), page(2)];
        let offsets = |runs: &[Range<u64>]| -> Option<Vec<i64>> {
            let pages = touched(&pages, 30, runs)?;
            Some(pages.iter().map(|page| page.offset).collect())
        };
        assert_eq!(offsets(&[0..1, 9..10]), Some(vec![100]));
        assert_eq!(offsets(&[9..10, 10..11]), Some(vec![100, 150]));
        assert_eq!(offsets(&[29..30, 30..31]), Some(vec![200]));
        assert_eq!(offsets(&[]), Some(vec![]));
    }
}
