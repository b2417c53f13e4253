//! What is read of a row group: which pages, and which bytes of the file.

use super::pages::locations;
use super::picked::{Picked, touched};
use super::remote::is_remote;
use super::rowgroup::{Reading, RowGroupReader};
use super::stats::add;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use pg_lake_plan::message::WireError;
use std::ops::Range;

/// Bytes between pages that are fetched along with them, rather than asking for one range more.
const GAP_BYTES: u64 = 64 << 10;

impl RowGroupReader {
    /// Leaves out pages that have no row of use, if it is worth that: before the bytes are fetched.
    pub(super) async fn choose_pages(&mut self) -> Result<(), WireError> {
        if self.picked.is_some() || !self.decodes() {
            return Ok(());
        }
        let Some((footer, row_group)) = self.row_group.clone() else {
            return Ok(());
        };
        let source = self.source.clone();
        let useful = source.useful_runs(self.file, &footer, row_group).await?;
        let Some(useful) = useful else {
            return Ok(());
        };
        let rows = self.window.end - self.window.start;
        let some: u64 = useful.iter().map(|run| run.end - run.start).sum();
        let (path, _) = self.file()?;
        let reading = self.reading.iter();
        let mut decoded = reading.map(|reading| self.sizes(&footer, row_group, reading).1);
        let is_kept = decoded.any(|bytes| source.cache.admits(bytes));
        if is_kept && !source.cache.prefers_pages(path, row_group, some, rows) {
            return Ok(());
        }
        for leaf in self.leaves(&footer) {
            if let Some(locations) = locations(&footer, row_group, leaf)
                && let Some(touched) = touched(locations, rows, &useful)
            {
                add(&source.counters.pages, locations.len());
                let pruned = locations.len() - touched.len();
                add(&source.counters.pages_pruned, pruned);
            }
        }
        self.picked = Some(Picked::pages(&useful, self.window.start));
        Ok(())
    }

    /// The Parquet columns that are decoded.
    fn leaves(&self, footer: &ArrowReaderMetadata) -> Vec<usize> {
        let descriptor = footer.parquet_schema();
        let is_read = |leaf: &usize| {
            let root = descriptor.get_column_root_idx(*leaf);
            self.reading.iter().any(|reading| reading.root == root)
        };
        (0..descriptor.num_columns()).filter(is_read).collect()
    }

    /// The file, and the ranges of it that are going to be read, if it is in a store. A read of few rows
    /// finds out itself.
    pub(super) fn ranges(&self) -> Option<(usize, Vec<Range<u64>>)> {
        let (_, file) = self.source.files.get(self.file)?;
        if !is_remote(file) || self.picked.as_ref().is_some_and(Picked::are_few) {
            return None;
        }
        let (footer, row_group) = self.row_group.as_ref()?;
        let columns = footer.metadata().row_groups().get(*row_group)?.columns();
        let mut ranges = vec![];
        for leaf in self.leaves(footer) {
            let chunk = columns.get(leaf)?;
            let some = self.picked.as_ref().and_then(|picked| {
                let locations = locations(footer, *row_group, leaf)?;
                picked.bytes(chunk, locations, &self.window)
            });
            let (start, length) = chunk.byte_range();
            let whole = start..start.saturating_add(length);
            ranges.extend(some.unwrap_or_else(|| vec![whole]));
        }
        for range in &mut ranges {
            range.end = range.end.min(file.size);
        }
        let gap = match self.picked {
            Some(_) => GAP_BYTES,
            None => 0,
        };
        let ranges = near(ranges, gap);
        (!ranges.is_empty()).then_some((self.file, ranges))
    }

    /// Bytes of a column in the file, and about how many they are decoded.
    pub(super) fn sizes(
        &self,
        footer: &ArrowReaderMetadata,
        row_group: usize,
        reading: &Reading,
    ) -> (usize, usize) {
        let descriptor = footer.parquet_schema();
        let group = footer.metadata().row_groups().get(row_group);
        let leaves = (0..descriptor.num_columns())
            .filter(|&leaf| descriptor.get_column_root_idx(leaf) == reading.root);
        let (mut compressed, mut decoded) = (0i64, 0i64);
        for chunk in leaves.filter_map(|leaf| group?.columns().get(leaf)) {
            compressed = compressed.saturating_add(chunk.compressed_size());
            // Values that a dictionary has once.
            let values = chunk.unencoded_byte_array_data_bytes().unwrap_or(0);
            decoded = decoded.saturating_add(chunk.uncompressed_size().max(values));
        }
        let rows = (self.window.end - self.window.start) as usize;
        let width = reading.ty.fixed_width().unwrap_or(0);
        let size = |bytes: i64| usize::try_from(bytes).unwrap_or(0);
        (size(compressed), size(decoded).max(width * rows))
    }
}

/// Ranges as one where there is no more than `gap` between them; without empty ones.
fn near(mut ranges: Vec<Range<u64>>, gap: u64) -> Vec<Range<u64>> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, range| {
        let is_near = next.start <= range.end.saturating_add(gap);
        if is_near {
            range.end = range.end.max(next.end);
        }
        is_near
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_one_range() {
        let ranges = vec![50..60, 0..10, 5..5, 10..20, 25..30, 12..18];
        assert_eq!(near(ranges.clone(), 0), [0..20, 25..30, 50..60]);
        assert_eq!(near(ranges.clone(), 5), [0..30, 50..60]);
        let (all, empty) = (0..60, 7..7);
        assert_eq!(near(ranges, u64::MAX), [all]);
        assert!(near(vec![empty], 5).is_empty());
    }
}
