//! How far the first rows of a sort reach, as scans below get to know it while the sort goes on.
//!
//! Each partition keeps the first key of its best rows. Once it has as many as are wanted, no row is of use that is worse
//! than the worst of them. Those that are as good may be: other keys decide.

use super::BATCH_ROWS;
use super::dynamic::{DynamicFilter, Wanted};
use super::error::internal;
use super::handed::locked;
use super::lower::{Lowering, Operator};
use super::origin::plain;
use super::prune::{Key, Span};
use super::steps::{Pass, Passed, Step, stepping};
use super::told::is_number;
use super::values::{Native, native};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_common::Result as DfResult;
use datafusion_execution::TaskContext;
use pg_lake_plan::ir::{Plan, SortKey};
use pg_lake_plan::message::WireError;
use std::fmt;
use std::sync::{Arc, Mutex};

/// More rows than a batch has are not kept an eye on.
const FETCH_MAX: usize = BATCH_ROWS;

/// Places before and after all values: no whole number, and no decimal, is that small or large.
const FIRST: i128 = i128::MIN;
const LAST: i128 = i128::MAX;

/// What a sort looks at.
#[derive(Debug)]
pub(super) struct Topmost {
    column: usize,
    descending: bool,
    nulls_first: bool,
    fetch: usize,
    filter: Arc<DynamicFilter>,
    /// The place of the worst row that may be of use.
    worst: Mutex<i128>,
}

impl Lowering {
    /// Has the scans below a sort sought for, before its input is lowered. `None`: there is nothing to tell them.
    pub(super) fn topmost(
        &mut self,
        input: &Plan,
        keys: &[SortKey],
        fetch: Option<u64>,
    ) -> Option<Topmost> {
        let fetch = usize::try_from(fetch?).ok()?;
        let first = keys.first()?;
        let fits = (1..=FETCH_MAX).contains(&fetch) && is_number(&first.expr.ty.lake);
        if !fits || keys.iter().any(|key| key.expr.can_fail()) {
            return None;
        }
        let column = plain(&first.expr)?;
        let filter = Arc::new(DynamicFilter::default());
        self.seek(input, &first.expr, &filter).then_some(Topmost {
            column,
            descending: first.descending,
            nulls_first: first.nulls_first,
            fetch,
            filter,
            worst: Mutex::new(LAST),
        })
    }
}

impl Topmost {
    /// The same rows.
    pub(super) fn watching(self, input: Operator) -> Operator {
        let step = Watch {
            schema: input.schema(),
            topmost: Arc::new(self),
        };
        stepping(input, Arc::new(step))
    }

    /// Where a value comes; `None` is a null.
    fn place(&self, value: Option<i128>) -> i128 {
        match value {
            None if self.nulls_first => FIRST,
            None => LAST,
            Some(value) if self.descending => !value,
            Some(value) => value,
        }
    }

    /// Nothing that comes after a place is of use.
    fn tell(&self, place: i128) {
        let mut worst = locked(&self.worst);
        if place >= *worst {
            return;
        }
        *worst = place;
        let end = |value: i128| Some(Key::Number(value));
        let (least, largest) = match (place, self.descending) {
            (FIRST, _) => (None, None),
            (_, true) => (end(!place), None),
            (_, false) => (None, end(place)),
        };
        self.filter.set(Wanted {
            span: Span {
                least,
                largest,
                empty: place == FIRST,
                nulls: self.nulls_first,
            },
            members: None,
            few: None,
        });
    }
}

#[derive(Debug)]
struct Watch {
    schema: SchemaRef,
    topmost: Arc<Topmost>,
}

impl Step for Watch {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topmost: rows={}", self.topmost.fetch)
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn keeps_rows(&self) -> bool {
        true
    }

    fn start(self: Arc<Self>, _context: &TaskContext) -> DfResult<Box<dyn Pass>> {
        Ok(Box::new(Watching {
            topmost: self.topmost.clone(),
            best: vec![],
        }))
    }
}

/// [`Watch`] in one partition.
struct Watching {
    topmost: Arc<Topmost>,
    /// The best places so far, not more than are wanted between two batches.
    best: Vec<i128>,
}

impl Pass for Watching {
    fn pass(&mut self, batch: RecordBatch) -> Result<Passed, WireError> {
        let key = batch.columns().get(self.topmost.column);
        self.look_at(key.ok_or_else(|| internal("a column is missing"))?);
        Ok(Passed::Rows(batch))
    }
}

impl Watching {
    fn look_at(&mut self, key: &ArrayRef) {
        match native(key) {
            Some(Native::I32(values)) => self.add(key, values),
            Some(Native::I64(values)) => self.add(key, values),
            Some(Native::I128(values)) => self.add(key, values),
            Some(Native::F32(_) | Native::F64(_)) | None => return,
        }
        let last = self.topmost.fetch - 1;
        if self.best.len() > last {
            let (_, worst, _) = self.best.select_nth_unstable(last);
            self.topmost.tell(*worst);
            self.best.truncate(self.topmost.fetch);
        }
    }

    fn add<T: Copy + Into<i128>>(&mut self, key: &ArrayRef, values: &[T]) {
        let worst = *locked(&self.topmost.worst);
        let nulls = key.nulls().filter(|nulls| nulls.null_count() > 0);
        for (row, &value) in values.iter().enumerate() {
            let is_valid = nulls.is_none_or(|nulls| nulls.is_valid(row));
            let place = self.topmost.place(is_valid.then(|| value.into()));
            if place < worst {
                self.best.push(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, Int64Array};

    fn watching(descending: bool, nulls_first: bool, fetch: usize) -> Watching {
        Watching {
            topmost: Arc::new(Topmost {
                column: 0,
                descending,
                nulls_first,
                fetch,
                filter: Arc::default(),
                worst: Mutex::new(LAST),
            }),
            best: vec![],
        }
    }

    fn worst(watching: &Watching) -> i128 {
        *locked(&watching.topmost.worst)
    }

    fn numbers(values: &[Option<i32>]) -> ArrayRef {
        Arc::new(Int32Array::from(values.to_vec()))
    }

    #[test]
    fn the_worst_of_the_best_is_told() {
        let mut least = watching(false, false, 3);
        least.look_at(&numbers(&[Some(5), None]));
        assert_eq!(worst(&least), LAST);
        least.look_at(&numbers(&[Some(7), Some(9), None]));
        assert_eq!(worst(&least), 9);
        least.look_at(&numbers(&[Some(7), Some(100)]));
        assert_eq!(worst(&least), 7);
        let mut largest = watching(true, false, 2);
        let numbers = Int64Array::from(vec![i64::MIN, 3, i64::MAX]);
        largest.look_at(&(Arc::new(numbers) as ArrayRef));
        assert_eq!(worst(&largest), !3);
    }

    #[test]
    fn nulls_have_their_place() {
        let mut last = watching(true, false, 2);
        last.look_at(&numbers(&[None, Some(1), None, None]));
        assert_eq!(worst(&last), LAST);
        let mut first = watching(true, true, 2);
        first.look_at(&numbers(&[None, Some(1)]));
        assert_eq!(worst(&first), !1);
        first.look_at(&numbers(&[None]));
        assert_eq!(worst(&first), FIRST);
    }

    #[test]
    fn partitions_share_what_they_know() {
        let mut one = watching(false, false, 1);
        let mut other = Watching {
            topmost: one.topmost.clone(),
            best: vec![],
        };
        one.look_at(&numbers(&[Some(4)]));
        other.look_at(&numbers(&[Some(9)]));
        assert_eq!(worst(&one), 4);
        assert!(other.best.is_empty());
    }
}
