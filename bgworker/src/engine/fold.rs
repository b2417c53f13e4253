//! What the states of groups have in common, whatever the function: rows that are taken, states that meet, results that
//! leave.

use super::aggregate::{States, only, taken, validity};
use super::error::{internal, raise};
use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{EmitTo, GroupsAccumulator};
use std::fmt::Debug;

/// The states of all groups. Unless a function says otherwise they are values like those that it takes, and like its results.
pub(super) trait Folded: Debug + Send + Sync + 'static {
    /// Whether there is a [`Folded::alone`].
    const ALONE: bool = true;

    fn ensure(&mut self, groups: usize);

    /// The rows that are taken: `None`, all of them.
    fn rows(&self, values: &ArrayRef, filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
        taken(values.nulls(), filter)
    }

    /// Takes the values of rows.
    fn take(&mut self, values: &ArrayRef, rows: Rows<'_>) -> Result<()>;

    /// The same of states.
    fn merge(&mut self, states: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        self.take(states, rows)
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef>;

    fn state(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.results(emit)
    }

    /// The state of each row as of a group of its own.
    fn alone(&self, values: &ArrayRef, filter: Option<&BooleanArray>) -> Result<ArrayRef> {
        filtered(values, filter)
    }

    fn size(&self) -> usize;
}

#[derive(Debug)]
pub(super) struct Fold<T>(pub(super) T);

impl<T: Folded> States for Fold<T> {
    fn ensure(&mut self, groups: usize) {
        self.0.ensure(groups);
    }
}

impl<T: Folded> GroupsAccumulator for Fold<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.0.ensure(total);
        let values = each_with_a_group(values, groups)?;
        let taken = self.0.rows(values, filter);
        let taken = taken.as_ref();
        self.0.take(values, Rows { groups, taken })
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.0.ensure(total);
        let states = each_with_a_group(values, groups)?;
        let taken = taken(states.nulls(), filter);
        let taken = taken.as_ref();
        self.0.merge(states, Rows { groups, taken })
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.0.results(emit)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.0.state(emit)?])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        match T::ALONE {
            true => Ok(vec![self.0.alone(only(values)?, filter)?]),
            false => Err(raise(internal("an aggregate without states of rows"))),
        }
    }

    fn supports_convert_to_state(&self) -> bool {
        T::ALONE
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

fn each_with_a_group<'a>(values: &'a [ArrayRef], groups: &[usize]) -> Result<&'a ArrayRef> {
    let values = only(values)?;
    match values.len() < groups.len() {
        true => Err(raise(internal("an aggregate of too few rows"))),
        false => Ok(values),
    }
}

/// Each value is the state of its row; those that a FILTER drops become null.
fn filtered(array: &ArrayRef, filter: Option<&BooleanArray>) -> Result<ArrayRef> {
    match filter {
        None => Ok(array.clone()),
        Some(filter) => {
            let dropped = BooleanArray::new(!&super::expr::definite(filter), None);
            compute::nullif(array, &dropped)
                .map_err(|e| DataFusionError::ArrowError(Box::new(e), None))
        }
    }
}

/// Rows of a batch.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// Of each row.
    pub(super) groups: &'a [usize],
    /// Which ones are taken: `None`, all of them.
    pub(super) taken: Option<&'a BooleanBuffer>,
}

impl Rows<'_> {
    /// Calls `f` with group and value of each row that is taken.
    #[inline]
    pub(super) fn each<T: Copy>(self, values: &[T], mut f: impl FnMut(usize, T)) {
        let groups = self.groups;
        match self.taken {
            None => groups.iter().zip(values).for_each(|(&g, &v)| f(g, v)),
            Some(rows) => {
                for row in rows.set_indices() {
                    if let (Some(&g), Some(&v)) = (groups.get(row), values.get(row)) {
                        f(g, v);
                    }
                }
            }
        }
    }
}

/// A value of each group, and whether it has one.
#[derive(Debug, Default)]
pub(super) struct Slots<T> {
    pub(super) values: Vec<T>,
    pub(super) seen: Vec<bool>,
}

impl<T: Copy> Slots<T> {
    /// New groups have no value, and this in its place.
    pub(super) fn ensure(&mut self, groups: usize, empty: T) {
        if self.values.len() < groups {
            self.values.resize(groups, empty);
            self.seen.resize(groups, false);
        }
    }

    /// Those of the groups that leave.
    pub(super) fn take(&mut self, emit: &EmitTo) -> (Vec<T>, Option<NullBuffer>) {
        let seen = emit.take_needed(&mut self.seen);
        (emit.take_needed(&mut self.values), validity(seen))
    }

    pub(super) fn size(&self) -> usize {
        self.values.capacity() * size_of::<T>() + self.seen.capacity()
    }
}
