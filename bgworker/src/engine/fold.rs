//! Functions whose states are values like those that they take: to merge states is to take values.

use super::aggregate::{States, only, taken};
use super::error::{internal, raise};
use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{EmitTo, GroupsAccumulator};
use std::fmt::Debug;

/// The values of all groups.
pub(super) trait Folded: Debug + Send + Sync + 'static {
    fn ensure(&mut self, groups: usize);

    /// Takes the values of some rows (`None`: all), of which each has its group.
    fn take(
        &mut self,
        values: &ArrayRef,
        rows: Option<&BooleanBuffer>,
        groups: &[usize],
    ) -> Result<()>;

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef>;

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
        let values = only(values)?;
        if values.len() < groups.len() {
            return Err(raise(internal("an aggregate of too few rows")));
        }
        let rows = taken(values.nulls(), filter);
        self.0.take(values, rows.as_ref(), groups)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.update_batch(values, groups, filter, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.0.results(emit)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.0.results(emit)?])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        Ok(vec![filtered(only(values)?, filter)?])
    }

    fn supports_convert_to_state(&self) -> bool {
        true
    }

    fn size(&self) -> usize {
        self.0.size()
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
