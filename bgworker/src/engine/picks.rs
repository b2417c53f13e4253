//! What is found among the ordered values of groups, as `orderedsetaggs.c` does.

use super::error::{internal, not_exact, raise};
use super::extremes::{ZEROS, are_zeros};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, UInt32Array};
use arrow::compute;
use arrow::datatypes::{Float32Type, Float64Type, UInt64Type};
use datafusion_common::Result;
use pg_lake_plan::ir::Fraction;
use std::ops::Range;
use std::sync::Arc;

/// Values by group, and in order within each.
pub(super) struct Sorted {
    /// Where the values of each group begin, and the end.
    pub(super) starts: Vec<usize>,
    pub(super) groups: ArrayRef,
    pub(super) columns: Vec<ArrayRef>,
}

impl Sorted {
    pub(super) fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        let ends = self.starts.iter().skip(1);
        let pairs = self.starts.iter().zip(ends);
        pairs.map(|(start, end)| *start..*end)
    }

    pub(super) fn values(&self) -> Result<&ArrayRef> {
        let values = self.columns.first();
        values.ok_or_else(|| raise(internal("an ordered aggregate without values")))
    }
}

/// The value up to which there is a share of a group's values: `percentile_disc_final`.
pub(super) fn discrete(share: Fraction, group: &Range<usize>) -> Option<usize> {
    if group.is_empty() {
        return None;
    }
    let number = (share.value() * group.len() as f64).ceil() as usize;
    Some(group.start + number.clamp(1, group.len()) - 1)
}

/// `percentile_cont_final_common` and `float8_lerp`
pub(super) fn continuous(share: Fraction, sorted: &Sorted) -> Result<ArrayRef> {
    let values = sorted.values()?;
    let Some(floats) = values.as_primitive_opt::<Float64Type>() else {
        return Err(raise(internal("a percentile of another type")));
    };
    let mut results = vec![];
    for group in sorted.groups() {
        if group.is_empty() {
            results.push(None);
            continue;
        }
        let last = group.len() - 1;
        let place = share.value() * last as f64;
        let below = (place.floor() as usize).min(last);
        let above = (place.ceil() as usize).min(last);
        let (low, high) = (group.start + below, group.start + above);
        let (Some(&first), Some(&second)) = (floats.values().get(low), floats.values().get(high))
        else {
            return Err(raise(internal("a percentile of too few values")));
        };
        let result = if below == above {
            first
        } else {
            first + (place - below as f64) * (second - first)
        };
        if result == 0.0 {
            check_zeros(values, &group, low)?;
            check_zeros(values, &group, high)?;
        }
        results.push(Some(result));
    }
    Ok(Arc::new(Float64Array::from(results)))
}

/// The first value of the longest run of equal ones, for each group.
pub(super) fn most_frequent(sorted: &Sorted, key: &ArrayRef) -> Result<Vec<Option<usize>>> {
    let mut best: Vec<Option<Range<usize>>> = vec![None; sorted.starts.len() - 1];
    if key.is_empty() {
        return Ok(vec![None; best.len()]);
    }
    let runs = compute::partition(&[sorted.groups.clone(), key.clone()])?;
    let Some(groups) = sorted.groups.as_primitive_opt::<UInt64Type>() else {
        return Err(raise(internal("a group isn't a number")));
    };
    for run in runs.ranges() {
        let group = groups.values().get(run.start);
        let Some(best) = group.and_then(|group| best.get_mut(*group as usize)) else {
            return Err(raise(internal("a value of another group")));
        };
        if best.as_ref().is_none_or(|best| run.len() > best.len()) {
            *best = Some(run);
        }
    }
    let firsts = best.into_iter().map(|run| run.map(|run| run.start));
    Ok(firsts.collect())
}

/// One of the values of each group.
pub(super) fn pick(sorted: &Sorted, picks: Vec<Option<usize>>) -> Result<ArrayRef> {
    let values = sorted.values()?;
    for (group, pick) in sorted.groups().zip(&picks) {
        if let Some(pick) = pick {
            check_zeros(values, &group, *pick)?;
        }
    }
    // There are fewer than 2^32: `sort` has checked that.
    let picks: UInt32Array = (picks.into_iter())
        .map(|pick| pick.map(|pick| pick as u32))
        .collect();
    Ok(compute::take(values, &picks, None)?)
}

/// Makes sure that a value is no zero beside which there is one of the other sign in its group.
fn check_zeros(values: &ArrayRef, group: &Range<usize>, at: usize) -> Result<()> {
    if let Some(floats) = values.as_primitive_opt::<Float64Type>() {
        check_signs::<f64>(floats.values(), group, at)
    } else if let Some(floats) = values.as_primitive_opt::<Float32Type>() {
        check_signs::<f32>(floats.values(), group, at)
    } else {
        Ok(())
    }
}

fn check_signs<T: Copy + Into<f64>>(values: &[T], group: &Range<usize>, at: usize) -> Result<()> {
    let (Some(&zero), Some(values)) = (values.get(at), values.get(group.clone())) else {
        return Err(raise(internal("a value of another group")));
    };
    let at = at - group.start;
    if !is_zero(&&zero) {
        return Ok(());
    }
    let (before, after) = values.split_at(at);
    let before = before.iter().rev().take_while(is_zero);
    let mut zeros = before.chain(after.iter().take_while(is_zero));
    if zeros.any(|other| are_zeros(zero, *other)) {
        return Err(raise(not_exact(ZEROS)));
    }
    Ok(())
}

fn is_zero<T: Copy + Into<f64>>(value: &&T) -> bool {
    let value: f64 = (**value).into();
    value == 0.0
}

/// What the values of a range take.
pub(super) fn bytes_of(values: &ArrayRef, range: Range<usize>) -> Result<usize> {
    let slice = values.slice(range.start, range.len());
    Ok(slice.to_data().get_slice_memory_size()?)
}
