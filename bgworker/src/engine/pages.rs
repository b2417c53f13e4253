//! Pages whose bounds show that no row of them is of use: the others of a row group are read.
//!
//! The index of a column's pages is read when there is a condition on the column, and kept with the decoded columns. What is
//! read by pages is no whole column, and isn't kept. So little is read this way only: see [`WORTH`] and
//! [`Cache::prefers_pages`](super::cache::Cache::prefers_pages). Of a file in a store the indexes come with the footer, if they
//! are near the file's end.

use super::cache::IndexKey;
use super::dynamic::Wanted;
use super::error::internal;
use super::prune::{Bound, Extent, page_count};
use super::remote::{Handle, Parts, Use, is_remote};
use super::source::Source;
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// One in so many rows has to be left out.
const WORTH: u64 = 4;

/// What is known of the values in a column's pages.
pub(super) type PageIndex = Arc<ColumnIndexMetaData>;

/// A condition on one column of the scan.
enum Condition<'a> {
    Bound(&'a Bound),
    Wanted(usize, &'a LakeType, Arc<Wanted>),
}

impl Condition<'_> {
    fn column(&self) -> (usize, &LakeType) {
        match self {
            Condition::Bound(bound) => (bound.column, &bound.ty),
            Condition::Wanted(column, ty, _) => (*column, *ty),
        }
    }

    fn excludes(&self, extent: &Extent) -> bool {
        match self {
            Condition::Bound(bound) => bound.excludes(extent),
            Condition::Wanted(_, _, wanted) => wanted.span.excludes(extent),
        }
    }
}

/// A condition, and the pages of its column in a row group.
struct Paged<'a> {
    condition: Condition<'a>,
    leaf: usize,
    /// The column's type in the file.
    file: &'a DataType,
    /// The rows of each page, from the row group's first row on.
    pages: Vec<Range<u64>>,
}

impl Paged<'_> {
    /// The rows of those pages that the condition doesn't exclude.
    fn useful(&self, index: &ColumnIndexMetaData) -> Vec<Range<u64>> {
        let (_, ty) = self.condition.column();
        let is_useful = |page: usize, rows: &Range<u64>| {
            let extent = Extent::of_page(index, page, rows.end - rows.start, (self.file, ty));
            !self.condition.excludes(&extent)
        };
        let pages = self.pages.iter().enumerate();
        joined(
            pages
                .filter(|(page, rows)| is_useful(*page, rows))
                .map(|(_, rows)| rows.clone()),
        )
    }
}

impl Source {
    /// The rows of a row group in whose pages some may be of use, as runs from its first row on. `None`: all of them, or
    /// so many that it is read whole.
    pub(super) async fn useful_runs(
        self: &Arc<Self>,
        file: usize,
        footer: &ArrowReaderMetadata,
        row_group: usize,
    ) -> Result<Option<Vec<Range<u64>>>, WireError> {
        let Some(group) = footer.metadata().row_groups().get(row_group) else {
            return Ok(None);
        };
        let Ok(rows) = u64::try_from(group.num_rows()) else {
            return Ok(None);
        };
        let paged = self.paged(footer, row_group, rows);
        if paged.is_empty() {
            return Ok(None);
        }
        let leaves = paged.iter().map(|paged| paged.leaf).collect();
        let indexes = self.page_indexes(file, group, row_group, leaves, footer);
        let indexes = indexes.await?;
        let all = 0..rows;
        let mut useful = vec![all];
        for paged in &paged {
            if let Some(index) = indexes.get(&paged.leaf)
                && page_count(index) == paged.pages.len()
            {
                useful = common(&useful, &paged.useful(index));
            }
        }
        let left: u64 = useful.iter().map(|run| run.end - run.start).sum();
        Ok((rows > 0 && left + rows.div_ceil(WORTH) <= rows).then_some(useful))
    }

    /// The conditions on columns that have several pages in a row group.
    fn paged<'a>(
        &'a self,
        footer: &'a ArrowReaderMetadata,
        row_group: usize,
        rows: u64,
    ) -> Vec<Paged<'a>> {
        let bounds = self.bounds.iter().map(Condition::Bound);
        let wanted = self.filters.wanted().into_iter();
        let wanted = wanted.map(|(column, ty, wanted)| Condition::Wanted(column, ty, wanted));
        bounds
            .chain(wanted)
            .filter_map(|condition| {
                let (leaf, root) = self.leaf(footer, condition.column().0)?;
                let pages = page_rows(locations(footer, row_group, leaf)?, rows)?;
                (pages.len() > 1).then_some(Paged {
                    condition,
                    leaf,
                    file: footer.schema().fields().get(root)?.data_type(),
                    pages,
                })
            })
            .collect()
    }

    /// The indexes of the pages of some columns, by leaves.
    async fn page_indexes(
        self: &Arc<Self>,
        file: usize,
        group: &RowGroupMetaData,
        row_group: usize,
        leaves: BTreeSet<usize>,
        footer: &ArrowReaderMetadata,
    ) -> Result<BTreeMap<usize, PageIndex>, WireError> {
        let Some((path, reference)) = self.files.get(file) else {
            return Err(internal("a file is missing"));
        };
        let key = |leaf: usize| IndexKey {
            path: path.clone(),
            size: reference.size,
            row_group,
            leaf,
        };
        let mut indexes = BTreeMap::new();
        let mut missing = BTreeMap::new();
        for leaf in leaves {
            if let Some(index) = self.cache.page_index(&key(leaf)) {
                indexes.insert(leaf, index);
            } else if let Some(range) = group.columns().get(leaf).and_then(index_range) {
                missing.insert(leaf, range);
            }
        }
        let start = missing.values().map(|range| range.start).min();
        let end = missing.values().map(|range| range.end).max();
        let (Some(start), Some(end)) = (start, end) else {
            return Ok(indexes);
        };
        let parts = if is_remote(reference) && start < reference.size {
            let range = start..end.min(reference.size);
            self.fetch(file, vec![range], Use::Lookup).await?
        } else {
            vec![]
        };
        let handle = self.open_file(file, parts)?;
        let read = read_indexes(footer.metadata(), group, &missing, &handle);
        let read = read.map_err(|e| self.parquet(&handle, path, &e))?;
        indexes.extend(self.keep_indexes(read, &missing, key));
        Ok(indexes)
    }

    /// Puts indexes of pages into the cache, and returns them by leaves.
    fn keep_indexes(
        &self,
        mut read: Vec<ColumnIndexMetaData>,
        ranges: &BTreeMap<usize, Range<u64>>,
        key: impl Fn(usize) -> IndexKey,
    ) -> BTreeMap<usize, PageIndex> {
        let mut indexes = BTreeMap::new();
        for (leaf, range) in ranges {
            let Some(index) = read.get_mut(*leaf) else {
                continue;
            };
            let index = Arc::new(std::mem::replace(index, ColumnIndexMetaData::NONE));
            let encoded = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let kept = index.clone();
            self.cache.put_page_index(key(*leaf), kept, encoded);
            indexes.insert(*leaf, index);
        }
        indexes
    }

    /// Keeps the indexes that came with a footer, of the pages of columns that conditions are about. A scan would have to
    /// ask for them before it knows which bytes of a row group it needs. `tail`: the end of the file.
    pub(super) fn keep_page_indexes(
        self: &Arc<Self>,
        file: usize,
        footer: &ArrowReaderMetadata,
        tail: Parts,
    ) {
        let columns = self.bounds.iter().map(|bound| bound.column);
        let columns = columns.chain(self.filters.columns());
        let leaves: BTreeSet<usize> = columns
            .filter_map(|column| Some(self.leaf(footer, column)?.0))
            .collect();
        let (Some((path, reference)), Some((start, bytes))) = (self.files.get(file), tail.first())
        else {
            return;
        };
        let at_hand = *start..start.saturating_add(bytes.len() as u64);
        let Ok(handle) = self.open_file(file, tail) else {
            return;
        };
        for (row_group, group) in footer.metadata().row_groups().iter().enumerate() {
            let range = |leaf: usize| {
                let pages = locations(footer, row_group, leaf)?.len();
                let range = group.columns().get(leaf).and_then(index_range)?;
                let is_at_hand = at_hand.start <= range.start && range.end <= at_hand.end;
                (pages > 1 && is_at_hand).then_some((leaf, range))
            };
            let ranges: BTreeMap<usize, Range<u64>> =
                leaves.iter().filter_map(|leaf| range(*leaf)).collect();
            if ranges.is_empty() {
                continue;
            }
            // What is wrong with one is said when it is used.
            if let Ok(read) = read_indexes(footer.metadata(), group, &ranges, &handle) {
                self.keep_indexes(read, &ranges, |leaf| IndexKey {
                    path: path.clone(),
                    size: reference.size,
                    row_group,
                    leaf,
                });
            }
        }
    }
}

/// Reads the indexes of some columns' pages, and of no others.
fn read_indexes(
    metadata: &ParquetMetaData,
    group: &RowGroupMetaData,
    wanted: &BTreeMap<usize, Range<u64>>,
    handle: &Handle,
) -> Result<Vec<ColumnIndexMetaData>, ParquetError> {
    let mut columns = Vec::with_capacity(group.columns().len());
    for (leaf, chunk) in group.columns().iter().enumerate() {
        columns.push(if wanted.contains_key(&leaf) {
            chunk.clone()
        } else {
            ColumnChunkMetaData::builder(chunk.column_descr_ptr()).build()?
        });
    }
    let group = RowGroupMetaData::builder(group.schema_descr_ptr())
        .set_num_rows(group.num_rows())
        .set_column_metadata(columns)
        .build()?;
    let some = ParquetMetaData::new(metadata.file_metadata().clone(), vec![group]);
    let mut reader = ParquetMetaDataReader::new_with_metadata(some)
        .with_column_index_policy(PageIndexPolicy::Optional)
        .with_offset_index_policy(PageIndexPolicy::Skip);
    reader.read_page_indexes(handle)?;
    let groups = reader.finish()?.into_builder().take_column_index();
    Ok(groups
        .and_then(|groups| groups.into_iter().next())
        .unwrap_or_default())
}

/// Where the index of a column's pages is.
fn index_range(chunk: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let start = u64::try_from(chunk.column_index_offset()?).ok()?;
    let length = u64::try_from(chunk.column_index_length()?).ok()?;
    Some(start..start.checked_add(length)?)
}

/// Where the pages of a column are.
pub(super) fn locations(
    footer: &ArrowReaderMetadata,
    row_group: usize,
    leaf: usize,
) -> Option<&[PageLocation]> {
    let index = footer.metadata().offset_index()?.get(row_group)?;
    Some(index.get(leaf)?.page_locations())
}

/// The rows of each page, from the row group's first row on.
pub(super) fn page_rows(locations: &[PageLocation], rows: u64) -> Option<Vec<Range<u64>>> {
    let first = locations.iter();
    let first = first.map(|page| u64::try_from(page.first_row_index).ok());
    let mut edges: Vec<u64> = first.collect::<Option<_>>()?;
    edges.push(rows);
    if locations.is_empty() || edges.first() != Some(&0) || !edges.is_sorted() {
        return None;
    }
    let pages = edges.iter().zip(edges.iter().skip(1));
    Some(pages.map(|(start, end)| *start..*end).collect())
}

/// Ascending runs, those that touch as one.
fn joined(runs: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = vec![];
    for run in runs {
        match all.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => all.push(run),
        }
    }
    all
}

/// What ascending runs have in common.
fn common(one: &[Range<u64>], other: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut runs = vec![];
    let (mut ones, mut others) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (ones.peek(), others.peek()) {
        let run = a.start.max(b.start)..a.end.min(b.end);
        if run.start < run.end {
            runs.push(run);
        }
        if a.end <= b.end {
            ones.next();
        } else {
            others.next();
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(first_row_index: i64) -> PageLocation {
        PageLocation {
            offset: 0,
            compressed_page_size: 1,
            first_row_index,
        }
    }

    #[test]
    fn pages_have_the_rows_up_to_the_next_one() {
        let pages = [page(0), page(10), page(25)];
        assert_eq!(page_rows(&pages, 30), Some(vec![0..10, 10..25, 25..30]));
        assert_eq!(page_rows(&pages, 20), None);
        assert_eq!(page_rows(&pages[1..], 30), None);
        assert_eq!(page_rows(&[page(-1)], 30), None);
        assert_eq!(page_rows(&[], 30), None);
    }

    #[test]
    fn runs_are_joined_and_intersected() {
        let runs = joined([0..10, 10..20, 30..40].into_iter());
        assert_eq!(runs, [0..20, 30..40]);
        let (one, gap) = (5..35, 20..30);
        assert_eq!(common(&runs, std::slice::from_ref(&one)), [5..20, 30..35]);
        assert_eq!(common(std::slice::from_ref(&one), &runs), [5..20, 30..35]);
        assert!(common(&runs, &[gap]).is_empty());
        assert!(common(&runs, &[]).is_empty());
        assert_eq!(common(&runs, &[0..1, 2..3, 39..50]), [0..1, 2..3, 39..40]);
    }
}
