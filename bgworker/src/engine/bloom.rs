//! Row groups whose Bloom filters show that no row has a value that is sought. They are asked when the bounds have left a
//! row group in, and before any of it is read.
//!
//! A filter is read when there is a condition on its column that few values meet, and kept with the decoded columns. Of a
//! file in a store those of the row groups that come next are fetched with it: otherwise a scan that finds nothing would wait
//! for each of them. One that can't be parsed is an error, as it is with the indexes of pages. One that has lost bits would
//! leave out rows in silence: where it looks so, the row group is read.

use super::cache::IndexKey;
use super::dynamic::Wanted;
use super::error::internal;
use super::prune::{Key, is_comparable, prunable};
use super::remote::{Handle, Use, is_remote};
use super::source::{Morsel, Source};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::basic::Type;
use parquet::bloom_filter::{BITSET_MIN_LENGTH, Sbbf};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnDescriptor;
use pg_lake_plan::message::{FileRef, WireError};
use pg_lake_plan::types::LakeType;
use std::ops::Range;
use std::sync::Arc;

/// Of more values one is likely to look as if it were there: the filters err once in a hundred.
pub(super) const VALUES_MAX: usize = 64;

/// Larger than any that is written.
const FILTER_BYTES_MAX: u64 = 1 << 20;

/// Of filters that are fetched together.
const TOGETHER_BYTES: u64 = 4 << 20;

/// A filter is folded until a good part of its bits is set: 13 values or more are in each 32 bytes, on average. So many
/// bytes without any are damage, or the values were chosen by their hashes. A sector of a disk is large enough to have
/// some of these parts whole, wherever the filter begins in it.
const BLANK_BYTES: usize = 128;

/// The filter of a column of a row group; `None` if it looks as if it had lost bits.
pub(super) type Filter = Option<Arc<Sbbf>>;

/// How values are in a file, and thus in its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Int32,
    Int64,
    Bytes,
    Fixed(usize),
}

/// The values of a column of which a row must have one.
struct Sought<'a> {
    leaf: usize,
    form: Form,
    values: &'a [Key],
}

impl Sought<'_> {
    fn may_be_in(&self, filter: &Sbbf) -> bool {
        let mut values = self.values.iter();
        values.any(|value| self.form.may_have(filter, value))
    }
}

impl Form {
    fn of(file: &DataType, ty: &LakeType, column: &ColumnDescriptor) -> Option<Form> {
        use LakeType::{Bytes, Decimal, Text, Uuid};
        if !is_comparable(file, ty) {
            return None;
        }
        match (column.physical_type(), ty) {
            (Type::INT32, _) => Some(Form::Int32),
            (Type::INT64, _) => Some(Form::Int64),
            (Type::BYTE_ARRAY, Text | Bytes) => Some(Form::Bytes),
            (Type::FIXED_LEN_BYTE_ARRAY, Uuid | Decimal { .. }) => {
                let length = usize::try_from(column.type_length()).ok()?;
                Some(Form::Fixed(length))
            }
            _ => None,
        }
    }

    fn may_have(self, filter: &Sbbf, value: &Key) -> bool {
        match (self, value) {
            (Form::Int32, Key::Number(number)) => {
                i32::try_from(*number).is_ok_and(|number| filter.check(&number))
            }
            (Form::Int64, Key::Number(number)) => {
                i64::try_from(*number).is_ok_and(|number| filter.check(&number))
            }
            (Form::Fixed(length), Key::Number(number)) => {
                let bytes = number.to_be_bytes();
                let skipped = bytes.len().checked_sub(length);
                let bytes = skipped.and_then(|skipped| bytes.get(skipped..));
                bytes.is_none_or(|bytes| filter.check(bytes))
            }
            (Form::Bytes | Form::Fixed(_), Key::Bytes(bytes)) => filter.check(bytes.as_slice()),
            (Form::Bytes, Key::Number(_)) | (Form::Int32 | Form::Int64, Key::Bytes(_)) => true,
        }
    }
}

impl Source {
    /// Whether no row of a row group can be of use, by its filters.
    pub(super) async fn is_filtered_out(
        self: &Arc<Self>,
        morsel: &Morsel,
    ) -> Result<bool, WireError> {
        let Some((footer, row_group)) = &morsel.row_group else {
            return Ok(false);
        };
        // An index has found its rows.
        let by_number = self.files.get(morsel.file);
        if by_number.is_some_and(|(_, file)| file.ranges.is_some()) {
            return Ok(false);
        }
        let wanted = self.filters.wanted();
        for sought in self.sought(footer, &wanted) {
            let filter = self.bloom_filter(morsel.file, footer, *row_group, sought.leaf);
            let filter = filter.await?;
            if filter.is_some_and(|filter| !sought.may_be_in(&filter)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What filters can be asked for.
    fn sought<'a>(
        &'a self,
        footer: &ArrowReaderMetadata,
        wanted: &'a [(usize, &'a LakeType, Arc<Wanted>)],
    ) -> Vec<Sought<'a>> {
        let bounds = self.bounds.iter();
        let bounds = bounds.filter_map(|bound| Some((bound.column, &bound.ty, bound.values()?)));
        let wanted = wanted.iter().filter_map(|(column, ty, wanted)| {
            let few = wanted.few.as_deref().filter(|_| !wanted.span.nulls)?;
            Some((*column, *ty, few))
        });
        let all = bounds.chain(wanted);
        all.filter(|(_, _, values)| values.len() <= VALUES_MAX)
            .filter_map(|(column, ty, values)| {
                let (leaf, root) = self.leaf(footer, column)?;
                let file = footer.schema().fields().get(root)?.data_type();
                let form = Form::of(file, ty, &footer.parquet_schema().column(leaf))?;
                Some(Sought { leaf, form, values })
            })
            .collect()
    }

    /// The filter of a column of a row group, if it has one that can be relied on.
    async fn bloom_filter(
        self: &Arc<Self>,
        file: usize,
        footer: &ArrowReaderMetadata,
        row_group: usize,
        leaf: usize,
    ) -> Result<Filter, WireError> {
        let Some((path, reference)) = self.files.get(file) else {
            return Err(internal("a file is missing"));
        };
        let Some(range) = filter_range(footer, row_group, leaf, reference) else {
            return Ok(None);
        };
        let key = |row_group: usize| IndexKey {
            path: path.clone(),
            size: reference.size,
            row_group,
            leaf,
        };
        if let Some(filter) = self.cache.filter(&key(row_group)) {
            return Ok(filter);
        }
        if !is_remote(reference) {
            let handle = self.open_file(file, vec![])?;
            let filter = read(&handle, &range, has_values(footer, row_group, leaf));
            let filter = filter.map_err(|e| self.parquet(&handle, path, &e))?;
            self.cache
                .put_filter(key(row_group), filter.clone(), length(&range));
            return Ok(filter);
        }
        let _asking = self.asking.lock().await;
        if let Some(filter) = self.cache.filter(&key(row_group)) {
            return Ok(filter);
        }
        let mut filters = vec![(row_group, range)];
        filters.extend(self.next_filters(footer, row_group, leaf, reference, key));
        let ranges = filters.iter().map(|(_, range)| range.clone()).collect();
        let parts = self.fetch(file, ranges, Use::Lookup).await?;
        let handle = self.open_file(file, parts)?;
        let mut found = None;
        for (number, range) in filters {
            let filter = match read(&handle, &range, has_values(footer, number, leaf)) {
                Ok(filter) => filter,
                Err(e) if number == row_group => return Err(self.parquet(&handle, path, &e)),
                // What is wrong with another one is said when it is used.
                Err(_) => continue,
            };
            if number == row_group {
                found = filter.clone();
            }
            self.cache.put_filter(key(number), filter, length(&range));
        }
        Ok(found)
    }

    /// Where the filters of later row groups are that will be asked for, as far as they can be kept.
    fn next_filters(
        &self,
        footer: &ArrowReaderMetadata,
        row_group: usize,
        leaf: usize,
        file: &FileRef,
        key: impl Fn(usize) -> IndexKey,
    ) -> Vec<(usize, Range<u64>)> {
        if !self.cache.admits(TOGETHER_BYTES as usize) {
            return vec![];
        }
        let root = |column: usize| self.leaf(footer, column);
        let groups = footer.metadata().row_groups().iter().enumerate();
        let is_asked = |number: usize, group: &RowGroupMetaData| {
            self.cache.filter(&key(number)).is_none()
                && !prunable(&self.bounds, group, footer.schema(), root)
                && !self.filters.miss(group, footer.schema(), root)
        };
        let mut bytes = 0;
        groups
            .skip(row_group.saturating_add(1))
            .filter(|&(number, group)| is_asked(number, group))
            .filter_map(|(number, _)| Some((number, filter_range(footer, number, leaf, file)?)))
            .take_while(|(_, range)| {
                bytes += range.end - range.start;
                bytes <= TOGETHER_BYTES
            })
            .collect()
    }
}

/// Reads a filter; `has_values`: some of the column's are known not to be null.
fn read(handle: &Handle, range: &Range<u64>, has_values: bool) -> Result<Filter, ParquetError> {
    let bytes = handle.get_bytes(range.start, length(range))?;
    let filter = Sbbf::from_bytes(&bytes)?;
    // They are the last ones, behind a header.
    let bits = filter.num_blocks().saturating_mul(BITSET_MIN_LENGTH);
    let bits = bytes.get(bytes.len().saturating_sub(bits)..);
    let is_whole = bits.is_some_and(|bits| is_whole(bits, has_values));
    Ok(is_whole.then(|| Arc::new(filter)))
}

/// Whether a filter has all bits that it once had, as far as one can see.
fn is_whole(bits: &[u8], has_values: bool) -> bool {
    let is_blank = |part: &[u8]| part.iter().all(|byte| *byte == 0);
    let has_gap = bits.chunks_exact(BLANK_BYTES).any(is_blank);
    let is_unused = has_values && is_blank(bits);
    !(bits.is_empty() || has_gap || is_unused)
}

/// Whether some values of a column of a row group are known not to be null.
fn has_values(footer: &ArrowReaderMetadata, row_group: usize, leaf: usize) -> bool {
    let Some(group) = footer.metadata().row_groups().get(row_group) else {
        return false;
    };
    let statistics = group
        .columns()
        .get(leaf)
        .and_then(|chunk| chunk.statistics());
    let nulls = statistics.and_then(|statistics| statistics.null_count_opt());
    let rows = u64::try_from(group.num_rows()).unwrap_or(0);
    nulls.is_some_and(|nulls| nulls < rows)
}

/// Where the filter of a column is; `None` if there is none, or none that was written here.
fn filter_range(
    footer: &ArrowReaderMetadata,
    row_group: usize,
    leaf: usize,
    file: &FileRef,
) -> Option<Range<u64>> {
    let group = footer.metadata().row_groups().get(row_group)?;
    let chunk = group.columns().get(leaf)?;
    let start = u64::try_from(chunk.bloom_filter_offset()?).ok()?;
    let length = u64::try_from(chunk.bloom_filter_length()?).ok()?;
    let end = start.checked_add(length)?;
    (0 < length && length <= FILTER_BYTES_MAX && end <= file.size).then_some(start..end)
}

/// At most [`FILTER_BYTES_MAX`].
fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::data_type::AsBytes;

    fn filter_of<T: AsBytes + ?Sized>(value: &T) -> Sbbf {
        let mut filter = Sbbf::new_with_num_of_bytes(1024);
        filter.insert(value);
        filter
    }

    #[test]
    fn numbers_are_looked_for_as_the_file_has_them() {
        let has =
            |form: Form, filter: &Sbbf, number: i128| form.may_have(filter, &Key::Number(number));
        for number in [0i32, -1, i32::MIN, i32::MAX, 77] {
            let narrow = filter_of(&number);
            assert!(has(Form::Int32, &narrow, number.into()));
            assert!(!has(Form::Int32, &narrow, i128::from(number) + (1 << 32)));
            let wide = filter_of(&i64::from(number));
            assert!(has(Form::Int64, &wide, number.into()));
            assert!(!has(Form::Int64, &wide, i128::from(number) + 1));
            let bytes = i128::from(number).to_be_bytes();
            for length in [5, 9, 16] {
                let fixed = filter_of(&bytes[16 - length..]);
                assert!(has(Form::Fixed(length), &fixed, number.into()));
                assert!(!has(Form::Fixed(length), &fixed, i128::from(number) + 1));
            }
        }
        // Nothing is known of these.
        assert!(has(Form::Bytes, &filter_of("1"), 1));
        assert!(has(Form::Fixed(17), &filter_of("1"), 1));
    }

    #[test]
    fn lost_bits_are_seen() {
        let all = [0x10u8; 1024];
        assert!(is_whole(&all, true));
        // A sector that is zero, wherever the filter begins in it.
        for start in 0..=512 {
            let mut some = all;
            some[start..start + 512].fill(0);
            assert!(!is_whole(&some, true), "{start}");
        }
        let mut few = [0u8; 64];
        assert!(!is_whole(&few, true));
        assert!(is_whole(&few, false), "of nulls only");
        few[63] = 1;
        assert!(is_whole(&few, true));
        assert!(!is_whole(&[], false));
    }

    #[test]
    fn bytes_are_looked_for_as_they_are() {
        let has = |form: Form, filter: &Sbbf, value: &[u8]| {
            form.may_have(filter, &Key::Bytes(value.to_vec()))
        };
        for value in ["", "a", "größe"] {
            let filter = filter_of(value);
            assert!(has(Form::Bytes, &filter, value.as_bytes()));
            assert!(!has(Form::Bytes, &filter, b"another"));
        }
        let id = [7u8; 16];
        assert!(has(Form::Fixed(16), &filter_of(&id[..]), &id));
        assert!(!has(Form::Fixed(16), &filter_of(&id[..]), &[8; 16]));
    }
}
