//! Dynamic filters: what operators find out, while a query runs, about the rows of a scan below that they have a use for.
//!
//! A join knows the keys of its kept side before it asks for the first row of the other one (`told`); a sort of which only
//! the first rows are wanted knows how far these reach (`topmost`). Which scan that is, and that dropping its rows early
//! changes nothing else, is found in the plan (`origin`). A scan then leaves out files, row groups and rows.
//!
//! What a predicate can raise is raised with or without filters: where it can fail it sees all rows first, and no row group
//! is left out.

use super::handed::locked;
use super::members::Members;
use super::prune::{Key, Span};
use super::values::{Native, native};
use super::{BATCH_ROWS, stats};
use arrow::array::{Array, ArrayRef};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use parquet::file::metadata::RowGroupMetaData;
use pg_lake_plan::types::LakeType;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Rows are looked at as long as one in so many is dropped.
const WORTH: u64 = 3;

/// That is judged after so many rows.
const TRIAL_ROWS: u64 = 8 * BATCH_ROWS as u64;

/// What is known so far; it may become stricter.
#[derive(Debug, Default)]
pub(super) struct DynamicFilter {
    wanted: Mutex<Option<Arc<Wanted>>>,
    /// Scans that it is for and that haven't ended.
    scans: AtomicUsize,
}

impl DynamicFilter {
    pub(super) fn set(&self, wanted: Wanted) {
        let mut known = locked(&self.wanted);
        if self.scans.load(Ordering::Relaxed) > 0 {
            *known = Some(Arc::new(wanted));
        }
    }

    fn get(&self) -> Option<Arc<Wanted>> {
        locked(&self.wanted).clone()
    }

    /// One of its scans has ended. After the last one nothing is kept.
    fn end(&self) {
        let mut known = locked(&self.wanted);
        if self.scans.fetch_sub(1, Ordering::Relaxed) == 1 {
            *known = None;
        }
    }
}

/// The values of a column that somebody has a use for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) span: Span,
    /// They are among these.
    pub(super) members: Option<Members>,
    /// They are these, if they are few.
    pub(super) few: Option<Vec<Key>>,
}

impl Wanted {
    fn is_nothing(&self) -> bool {
        self.span.wants_nothing()
    }

    /// The rows of a column that are wanted. `None`: rows of its type aren't looked at.
    fn rows(&self, column: &ArrayRef) -> Option<BooleanBuffer> {
        let values = if self.span.empty {
            BooleanBuffer::new_unset(column.len())
        } else {
            self.values(column)?
        };
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        Some(match nulls {
            None => values,
            Some(nulls) if self.span.nulls => &values | &!nulls.inner(),
            Some(nulls) => &values & nulls.inner(),
        })
    }

    fn values(&self, column: &ArrayRef) -> Option<BooleanBuffer> {
        let least = number(self.span.least.as_ref(), i128::MIN)?;
        let largest = number(self.span.largest.as_ref(), i128::MAX)?;
        let range = narrow(least)..=narrow(largest);
        Some(match (native(column)?, &self.members) {
            (Native::I32(values), Some(members)) => {
                collect(values, |value| members.may_have(i64::from(value)))
            }
            (Native::I64(values), Some(members)) => {
                collect(values, |value| members.may_have(value))
            }
            (Native::I32(values), None) => {
                collect(values, |value| range.contains(&i64::from(value)))
            }
            (Native::I64(values), None) => collect(values, |value| range.contains(&value)),
            (Native::I128(values), _) => {
                collect(values, |value| (least..=largest).contains(&value))
            }
            (Native::F32(_) | Native::F64(_), _) => return None,
        })
    }
}

/// A bound; `open` if there is none. `None` if it isn't a number.
fn number(key: Option<&Key>, open: i128) -> Option<i128> {
    match key {
        None => Some(open),
        Some(Key::Number(number)) => Some(*number),
        Some(Key::Bytes(_)) => None,
    }
}

/// The nearest number of 64 bits.
fn narrow(number: i128) -> i64 {
    number.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn collect<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> BooleanBuffer {
    let test = |row: usize| values.get(row).is_some_and(|&value| test(value));
    BooleanBuffer::collect_bool(values.len(), test)
}

/// A filter on a column of a scan.
#[derive(Debug)]
pub(super) struct Sought {
    column: usize,
    ty: LakeType,
    filter: Arc<DynamicFilter>,
    /// Rows that were looked at, and those of them that were dropped.
    seen: AtomicU64,
    dropped: AtomicU64,
}

impl Sought {
    pub(super) fn new(column: usize, ty: LakeType, filter: Arc<DynamicFilter>) -> Self {
        filter.scans.fetch_add(1, Ordering::Relaxed);
        Sought {
            column,
            ty,
            filter,
            seen: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    fn rows(&self, batch: &RecordBatch) -> Option<BooleanBuffer> {
        let seen = self.seen.load(Ordering::Relaxed);
        if seen >= TRIAL_ROWS && self.dropped.load(Ordering::Relaxed) * WORTH < seen {
            return None;
        }
        self.filter.get()?.rows(batch.columns().get(self.column)?)
    }
}

/// All filters of a scan.
#[derive(Debug, Default)]
pub(super) struct Filters {
    list: Vec<Sought>,
    /// The scan's predicate has to see all rows.
    after_predicate: bool,
    /// Partitions of the scan that haven't ended.
    partitions: AtomicUsize,
}

impl Filters {
    pub(super) fn new(list: Vec<Sought>, after_predicate: bool) -> Self {
        Filters {
            list,
            after_predicate,
            partitions: AtomicUsize::new(0),
        }
    }

    pub(super) fn are_after_predicate(&self) -> bool {
        self.after_predicate
    }

    /// The scan has so many partitions.
    pub(super) fn begin(&self, partitions: usize) {
        self.partitions.store(partitions, Ordering::Relaxed);
    }

    /// One of them has ended, which each does once.
    pub(super) fn end_partition(&self) {
        let last = self.partitions.fetch_sub(1, Ordering::Relaxed) == 1;
        for sought in self.list.iter().filter(|_| last) {
            sought.filter.end();
        }
    }

    /// No row can be of use.
    pub(super) fn want_nothing(&self) -> bool {
        let nothing = |sought: &Sought| {
            sought
                .filter
                .get()
                .is_some_and(|wanted| wanted.is_nothing())
        };
        !self.after_predicate && self.list.iter().any(nothing)
    }

    /// No row of a row group can be of use; `leaf` as of [`prunable`](super::prune::prunable).
    pub(super) fn miss(
        &self,
        row_group: &RowGroupMetaData,
        schema: &Schema,
        leaf: impl Fn(usize) -> Option<(usize, usize)> + Copy,
    ) -> bool {
        let misses = |sought: &Sought| {
            let column = (sought.column, &sought.ty);
            let wanted = sought.filter.get();
            wanted.is_some_and(|wanted| wanted.span.misses(column, row_group, schema, leaf))
        };
        !self.after_predicate && self.list.iter().any(misses)
    }

    /// What is known of columns, by which pages may be left out.
    pub(super) fn wanted(&self) -> Vec<(usize, &LakeType, Arc<Wanted>)> {
        if self.after_predicate {
            return vec![];
        }
        let known = self.list.iter();
        known
            .filter_map(|sought| Some((sought.column, &sought.ty, sought.filter.get()?)))
            .collect()
    }

    /// The columns of which something is known, or will be.
    pub(super) fn columns(&self) -> impl Iterator<Item = usize> + '_ {
        let list = self.list.iter().filter(move |_| !self.after_predicate);
        list.map(|sought| sought.column)
    }

    /// Those rows of a batch that may be of use, of the ones that `pass`. `copied`: rows are going to be chosen in any
    /// case, otherwise only where enough are dropped.
    pub(super) fn rows(
        &self,
        batch: &RecordBatch,
        mut pass: Option<BooleanBuffer>,
        copied: bool,
        counters: &stats::Counters,
    ) -> Option<BooleanBuffer> {
        for sought in &self.list {
            let Some(wanted) = sought.rows(batch) else {
                continue;
            };
            let before = pass
                .as_ref()
                .map_or(batch.num_rows(), BooleanBuffer::count_set_bits);
            let left = match &pass {
                None => wanted,
                Some(pass) => pass & &wanted,
            };
            let dropped = before - left.count_set_bits();
            stats::add(&sought.seen, before);
            stats::add(&sought.dropped, dropped);
            let worth = (dropped as u64) * WORTH >= before as u64;
            if dropped > 0 && (worth || copied || pass.is_some()) {
                stats::add(&counters.rows_skipped, dropped);
                pass = Some(left);
            }
        }
        pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};

    fn between(least: i128, largest: i128, nulls: bool) -> Wanted {
        Wanted {
            span: Span {
                least: Some(Key::Number(least)),
                largest: Some(Key::Number(largest)),
                empty: false,
                nulls,
            },
            members: None,
            few: None,
        }
    }

    fn rows(wanted: &Wanted, column: ArrayRef) -> Option<Vec<usize>> {
        let rows = wanted.rows(&column)?;
        Some(rows.set_indices().collect())
    }

    #[test]
    fn rows_outside_of_the_range_are_dropped() {
        let numbers = || Arc::new(Int32Array::from(vec![Some(1), None, Some(5), Some(9)]));
        let some = between(2, 9, false);
        assert_eq!(rows(&some, numbers()), Some(vec![2, 3]));
        assert_eq!(rows(&between(2, 9, true), numbers()), Some(vec![1, 2, 3]));
        let far = between(i128::MIN, i128::from(i64::MAX) + 1, false);
        let ends = Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX]));
        assert_eq!(rows(&far, ends), Some(vec![0, 1]));
        let decimals = Arc::new(Decimal128Array::from(vec![1, 2, 10]));
        assert_eq!(rows(&some, decimals), Some(vec![1]));
        let texts = Arc::new(StringArray::from(vec!["x"]));
        assert_eq!(rows(&some, texts), None);
        assert_eq!(rows(&some, Arc::new(Float64Array::from(vec![3.0]))), None);
    }

    #[test]
    fn of_no_value_only_nulls_may_be_left() {
        let mut none = between(0, 9, true);
        none.span.empty = true;
        let numbers = || Arc::new(Int32Array::from(vec![Some(1), None]));
        assert_eq!(rows(&none, numbers()), Some(vec![1]));
        assert!(!none.is_nothing());
        none.span.nulls = false;
        assert_eq!(rows(&none, numbers()), Some(vec![]));
        assert!(none.is_nothing());
    }

    fn batch(rows: i32) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("n", DataType::Int32, true)]);
        let numbers = Arc::new(Int32Array::from_iter_values(0..rows));
        RecordBatch::try_new(Arc::new(schema), vec![numbers]).expect("a batch")
    }

    fn filters(wanted: Wanted) -> Filters {
        let filter = Arc::new(DynamicFilter::default());
        let sought = Sought::new(0, LakeType::Int4, filter.clone());
        filter.set(wanted);
        Filters::new(vec![sought], false)
    }

    #[test]
    fn nothing_is_kept_for_scans_that_have_ended() {
        let filter = Arc::new(DynamicFilter::default());
        let sought = || Sought::new(0, LakeType::Int4, filter.clone());
        let (one, other) = (
            Filters::new(vec![sought()], false),
            Filters::new(vec![sought()], false),
        );
        one.begin(2);
        other.begin(1);
        filter.set(between(1, 2, false));
        one.end_partition();
        other.end_partition();
        assert!(filter.get().is_some());
        one.end_partition();
        assert!(filter.get().is_none());
        filter.set(between(1, 1, false));
        assert!(filter.get().is_none());
    }

    #[test]
    fn a_filter_that_drops_little_is_left_alone() {
        let counters = stats::Counters::default();
        let filters = filters(between(100, 1 << 40, false));
        let batch = batch(BATCH_ROWS as i32);
        assert_eq!(filters.rows(&batch, None, false, &counters), None);
        for _ in 1..8 {
            let rows = filters.rows(&batch, None, true, &counters).expect("rows");
            assert_eq!(rows.count_set_bits(), BATCH_ROWS - 100);
        }
        assert_eq!(filters.rows(&batch, None, true, &counters), None);
        assert_eq!(counters.rows_skipped.load(Ordering::Relaxed), 700);
    }

    #[test]
    fn rows_that_do_not_pass_stay_out() {
        let counters = stats::Counters::default();
        let filters = filters(between(2, 6, false));
        let even = BooleanBuffer::collect_bool(10, |row| row % 2 == 0);
        let rows = filters.rows(&batch(10), Some(even), false, &counters);
        let rows: Vec<usize> = rows.expect("rows").set_indices().collect();
        assert_eq!(rows, [2, 4, 6]);
        assert_eq!(counters.rows_skipped.load(Ordering::Relaxed), 2);
    }
}
