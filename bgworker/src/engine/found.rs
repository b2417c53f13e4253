//! The results of aggregate functions over rows that are sorted by their groups, while these pass by.
//!
//! Groups are numbered from the first one whose results haven't been taken. After each batch there are results of all
//! groups but the last, which may go on.

use super::aggregate::States;
use super::error::{from_arrow, internal, not_exact, raise};
use super::join_input::compact_array;
use super::kept::{Keeper, Kept};
use super::picks::{Pick, Zeros, between, between_two, bytes_of, continuous, discrete, picked};
use super::window::Cutter;
use arrow::array::{Array, ArrayRef, BooleanArray, ListArray, UInt64Array, new_empty_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute;
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::Result;
use datafusion_expr::EmitTo;
use pg_lake_plan::ir::Fraction;
use std::ops::Range;
use std::sync::Arc;

/// A list of more bytes is left to Postgres, where it may be too large for a datum.
const LIST_BYTES_MAX: usize = 256 << 20;

/// A value of a list counts for so many bytes at least: Postgres' `array_agg` takes no more than 64 Mi of them.
const VALUE_BYTES_LEAST: usize = 4;

/// The values of a batch that a function takes, in their order, and the group of each.
pub(super) struct Values {
    pub(super) groups: Vec<usize>,
    pub(super) values: ArrayRef,
    /// What they are ordered by.
    pub(super) key: ArrayRef,
}

/// What a function has found so far.
pub(super) enum Found {
    /// It doesn't depend on the order.
    Plain(Box<dyn States>),
    Mode(Modes),
    Percentile(Percentiles),
    List(Lists),
}

impl Found {
    /// The results of the first groups, of so many.
    pub(super) fn emit(&mut self, first: usize, all: usize) -> Result<ArrayRef> {
        match self {
            Found::Plain(states) => {
                states.ensure(all);
                states.evaluate(match first == all {
                    true => EmitTo::All,
                    false => EmitTo::First(first),
                })
            }
            Found::Mode(modes) => {
                if let Some(open) = &mut modes.open {
                    open.group -= first;
                }
                modes.results.take(first)
            }
            Found::Percentile(percentiles) => {
                if let Some(open) = &mut percentiles.open {
                    open.group -= first;
                }
                percentiles.results.take(first)
            }
            Found::List(lists) => lists.take(first),
        }
    }

    pub(super) fn size(&self) -> usize {
        match self {
            Found::Plain(states) => states.size(),
            Found::Mode(modes) => modes.results.bytes,
            Found::Percentile(percentiles) => percentiles.results.bytes,
            // They are copied when they become a list.
            Found::List(lists) => lists.bytes.saturating_mul(2),
        }
    }
}

/// Results of the first groups.
pub(super) struct Results {
    ty: DataType,
    pieces: Vec<ArrayRef>,
    count: usize,
    bytes: usize,
}

impl Results {
    fn new(ty: DataType) -> Self {
        Results {
            ty,
            pieces: vec![],
            count: 0,
            bytes: 0,
        }
    }

    fn add(&mut self, piece: ArrayRef) {
        if !piece.is_empty() {
            self.count += piece.len();
            self.bytes += piece.get_array_memory_size();
            self.pieces.push(piece);
        }
    }

    fn take(&mut self, first: usize) -> Result<ArrayRef> {
        let all = whole(&std::mem::take(&mut self.pieces), &self.ty)?;
        if all.len() < first {
            return Err(raise(internal("a group without a result")));
        }
        (self.count, self.bytes) = (0, 0);
        self.add(compact_array(all.slice(first, all.len() - first)).map_err(raise)?);
        Ok(all.slice(0, first))
    }
}

/// Arrays after one another.
fn whole(pieces: &[ArrayRef], ty: &DataType) -> Result<ArrayRef> {
    if pieces.is_empty() {
        return Ok(new_empty_array(ty));
    }
    let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece.as_ref()).collect();
    compute::concat(&pieces).map_err(|e| raise(from_arrow(&e)))
}

/// Adds picks without a value until there are so many.
fn pad(picks: &mut Vec<Option<Pick>>, count: usize) {
    if picks.len() < count {
        picks.resize(count, None);
    }
}

/// `mode`: the first value of the longest run of equal ones, for each group.
pub(super) struct Modes {
    open: Option<OpenMode>,
    /// The values of the open group's best and present runs, and what these are ordered by.
    carried: Option<(ArrayRef, ArrayRef)>,
    results: Results,
}

struct OpenMode {
    group: usize,
    best: Run,
    present: Run,
}

/// Equal values.
#[derive(Clone, Copy)]
struct Run {
    /// The first one.
    at: usize,
    count: usize,
    zeros: Zeros,
}

impl OpenMode {
    fn pick(&self, values: &ArrayRef) -> Result<Pick> {
        self.best.zeros.check(values, self.best.at)?;
        Ok(Pick::one(self.best.at))
    }
}

impl Modes {
    pub(super) fn new(ty: DataType) -> Self {
        Modes {
            open: None,
            carried: None,
            results: Results::new(ty),
        }
    }

    /// Takes values. Groups before `last` are complete then.
    pub(super) fn add(&mut self, added: &Values, last: usize) -> Result<()> {
        let (values, keys, offset) = match self.carried.take() {
            Some((values, keys)) => (
                whole(&[values, added.values.clone()], &self.results.ty)?,
                whole(&[keys, added.key.clone()], added.key.data_type())?,
                2,
            ),
            None => (added.values.clone(), added.key.clone(), 0),
        };
        let done = self.results.count;
        let mut picks: Vec<Option<Pick>> = vec![];
        for rows in runs(added)? {
            let Some(&group) = added.groups.get(rows.start) else {
                return Err(raise(internal("a value without a group")));
            };
            let run = Run {
                at: offset + rows.start,
                count: rows.len(),
                zeros: Zeros::among(&added.values, rows.clone()),
            };
            match &mut self.open {
                Some(open) if open.group == group => {
                    // Runs of a batch differ from one another.
                    if rows.start == 0 && is_same(&keys, open.present.at, run.at)? {
                        open.present.count += run.count;
                        open.present.zeros.add(run.zeros);
                    } else {
                        open.present = run;
                    }
                    if open.present.count > open.best.count {
                        open.best = open.present;
                    }
                }
                _ => {
                    let open = OpenMode {
                        group,
                        best: run,
                        present: run,
                    };
                    if let Some(complete) = self.open.replace(open) {
                        pad(&mut picks, complete.group.saturating_sub(done));
                        picks.push(Some(complete.pick(&values)?));
                    }
                }
            }
        }
        if let Some(complete) = self.open.take_if(|open| open.group < last) {
            pad(&mut picks, complete.group.saturating_sub(done));
            picks.push(Some(complete.pick(&values)?));
        }
        pad(&mut picks, last.saturating_sub(done));
        self.results.add(picked(&values, &picks)?);
        if let Some(open) = &mut self.open {
            let places = [open.best.at, open.present.at].map(|at| at as u64);
            let places = UInt64Array::from(places.to_vec());
            let values = compute::take(&values, &places, None)?;
            self.carried = Some((values, compute::take(&keys, &places, None)?));
            (open.best.at, open.present.at) = (0, 1);
        }
        Ok(())
    }
}

/// Rows of one group with equal keys.
fn runs(added: &Values) -> Result<Vec<Range<usize>>> {
    if added.groups.is_empty() {
        return Ok(vec![]);
    }
    let groups = added.groups.iter().map(|group| *group as u64);
    let groups = UInt64Array::from_iter_values(groups);
    let runs = compute::partition(&[Arc::new(groups), added.key.clone()])?;
    Ok(runs.ranges())
}

fn is_same(keys: &ArrayRef, one: usize, other: usize) -> Result<bool> {
    let places = UInt64Array::from(vec![one as u64, other as u64]);
    let two = compute::take(keys, &places, None)?;
    Ok(compute::partition(&[two])?.len() == 1)
}

/// Percentiles: values at places that follow from their number.
pub(super) struct Percentiles {
    share: Fraction,
    /// Between two values.
    continuous: bool,
    keeper: Keeper,
    open: Option<OpenValues>,
    results: Results,
}

#[derive(Default)]
struct OpenValues {
    group: usize,
    kept: Kept,
    zeros: Zeros,
}

impl Percentiles {
    pub(super) fn new(share: Fraction, continuous: bool, ty: DataType, keeper: Keeper) -> Self {
        Percentiles {
            share,
            continuous,
            keeper,
            open: None,
            results: Results::new(ty),
        }
    }

    fn place(&self, count: usize) -> Pick {
        match self.continuous {
            true => continuous(self.share, count),
            false => discrete(self.share, count),
        }
    }

    fn check(&self, zeros: Zeros, values: &ArrayRef, pick: Pick) -> Result<()> {
        if !self.continuous {
            return zeros.check(values, pick.low);
        }
        if between_two(values, pick)? == 0.0 {
            zeros.check(values, pick.low)?;
            zeros.check(values, pick.high)?;
        }
        Ok(())
    }

    fn give(&mut self, values: &ArrayRef, picks: &[Option<Pick>]) -> Result<()> {
        let results = match self.continuous {
            true => between(values, picks)?,
            false => picked(values, picks)?,
        };
        self.results.add(results);
        Ok(())
    }

    /// Takes values. Groups before `last` are complete then.
    pub(super) async fn add(&mut self, added: &Values, last: usize) -> Result<()> {
        let mut groups = segments(&added.groups).into_iter().peekable();
        if let Some(open) = &self.open {
            let goes_on = |rows: &Range<usize>| added.groups.get(rows.start) == Some(&open.group);
            if let Some(rows) = groups.next_if(goes_on) {
                let mut open = self.open.take().unwrap_or_default();
                self.keep(&mut open, &added.values, rows)?;
                self.open = Some(open);
            }
        }
        if groups.peek().is_some() || self.open.as_ref().is_some_and(|open| open.group < last) {
            self.close().await?;
        }
        let done = self.results.count;
        let mut picks = vec![];
        for rows in groups {
            let Some(&group) = added.groups.get(rows.start) else {
                return Err(raise(internal("a value without a group")));
            };
            if group >= last {
                let mut open = OpenValues {
                    group,
                    ..OpenValues::default()
                };
                self.keep(&mut open, &added.values, rows)?;
                self.open = Some(open);
                break;
            }
            let pick = self.place(rows.len()).from(rows.start);
            self.check(Zeros::among(&added.values, rows), &added.values, pick)?;
            pad(&mut picks, group.saturating_sub(done));
            picks.push(Some(pick));
        }
        pad(&mut picks, last.saturating_sub(done));
        self.give(&added.values, &picks)
    }

    fn keep(&self, open: &mut OpenValues, values: &ArrayRef, rows: Range<usize>) -> Result<()> {
        open.zeros.add(Zeros::among(values, rows.clone()));
        // With more values the place is a later one.
        let first = self.place(open.kept.count() + rows.len()).low;
        let values = values.slice(rows.start, rows.len());
        open.kept.add(&self.keeper, values, first)
    }

    async fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let pick = self.place(open.kept.count());
        let kept = open.kept.finish(&self.keeper, pick.low, pick.high).await;
        let (values, pick) = (kept?, pick.of_two());
        self.check(open.zeros, &values, pick)?;
        self.give(&values, &[Some(pick)])
    }
}

/// Rows of the same group after one another.
fn segments(groups: &[usize]) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut segments = vec![];
    for same in groups.chunk_by(|a, b| a == b) {
        segments.push(start..start + same.len());
        start += same.len();
    }
    segments
}

/// `array_agg`
pub(super) struct Lists {
    field: FieldRef,
    /// Tells equal values apart, if each comes once: they are ordered by themselves.
    distinct: Option<Cutter>,
    pieces: Vec<ArrayRef>,
    /// Values of each group, of the open one, too.
    lengths: Vec<usize>,
    bytes: usize,
    /// Of the open group.
    open_bytes: usize,
}

impl Lists {
    pub(super) fn new(field: FieldRef, distinct: bool) -> Self {
        Lists {
            field,
            distinct: distinct.then(|| Cutter::new(1)),
            pieces: vec![],
            lengths: vec![],
            bytes: 0,
            open_bytes: 0,
        }
    }

    /// Takes values. Groups before `last` are complete then.
    pub(super) fn add(&mut self, added: &Values, last: usize) -> Result<()> {
        let once = self.each_once(added)?;
        let added = once.as_ref().unwrap_or(added);
        if self.lengths.len() <= last {
            self.lengths.resize(last + 1, 0);
            self.open_bytes = 0;
        }
        for group in &added.groups {
            if let Some(length) = self.lengths.get_mut(*group) {
                *length += 1;
            }
        }
        let before = added.groups.partition_point(|group| *group < last);
        let least = (added.values.len() - before).saturating_mul(VALUE_BYTES_LEAST);
        self.open_bytes += bytes_of(&added.values, before..added.values.len())?.max(least);
        if self.open_bytes > LIST_BYTES_MAX {
            return Err(raise(not_exact("a list is too large")));
        }
        if !added.values.is_empty() {
            let piece = compact_array(added.values.clone()).map_err(raise)?;
            self.bytes += piece.get_array_memory_size();
            self.pieces.push(piece);
        }
        Ok(())
    }

    /// Without values that are equal to the one before, in its group; `None` if all are kept anyway.
    fn each_once(&mut self, added: &Values) -> Result<Option<Values>> {
        let rows = added.values.len();
        let Some(cutter) = self.distinct.as_mut().filter(|_| rows > 0) else {
            return Ok(None);
        };
        let starts = cutter.starts(std::slice::from_ref(&added.values), rows);
        let mut others = starts.map_err(raise)?.partitions.into_iter().peekable();
        // The last value so far is of the open group, if that has any.
        let open = self.lengths.len().checked_sub(1);
        let mut group = open.filter(|_| self.lengths.last().is_some_and(|length| *length > 0));
        let mut kept = Vec::with_capacity(rows);
        let mut groups = vec![];
        for (row, own) in added.groups.iter().enumerate() {
            let is_other = others.next_if_eq(&row).is_some();
            let begins = group.replace(*own) != Some(*own);
            kept.push(is_other || begins);
            if is_other || begins {
                groups.push(*own);
            }
        }
        let values = compute::filter(&added.values, &BooleanArray::from(kept))
            .map_err(|e| raise(from_arrow(&e)))?;
        Ok(Some(Values {
            groups,
            key: values.clone(),
            values,
        }))
    }

    fn take(&mut self, first: usize) -> Result<ArrayRef> {
        let all = whole(&std::mem::take(&mut self.pieces), self.field.data_type())?;
        if self.lengths.len() < first {
            self.lengths.resize(first, 0);
        }
        let later = self.lengths.split_off(first);
        let lengths = std::mem::replace(&mut self.lengths, later);
        let total: usize = lengths.iter().sum();
        if i32::try_from(total).is_err() {
            return Err(raise(not_exact("too many values for lists")));
        }
        if total > all.len() {
            return Err(raise(internal("values of a list are missing")));
        }
        let rest = compact_array(all.slice(total, all.len() - total)).map_err(raise)?;
        self.bytes = 0;
        if !rest.is_empty() {
            self.bytes = rest.get_array_memory_size();
            self.pieces.push(rest);
        }
        let filled: Vec<bool> = lengths.iter().map(|length| *length > 0).collect();
        let lists = ListArray::try_new(
            self.field.clone(),
            OffsetBuffer::from_lengths(lengths),
            all.slice(0, total),
            Some(NullBuffer::from(filled)),
        )?;
        Ok(Arc::new(lists))
    }
}

#[cfg(test)]
#[path = "found_tests.rs"]
mod tests;
