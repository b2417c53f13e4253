//! Bounds of a RANGE frame that are so far from the current row's value: the `in_range` functions of Postgres
//! (`int8.c`, `numeric.c`, `float.c`, `date.c`, `timestamp.c`), and how `nodeWindowAgg.c` calls them.

use super::chunk::Chunk;
use crate::engine::error::{internal, not_exact};
use crate::engine::functions::dates::moved;
use crate::engine::values::{Native, native};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use pg_lake_plan::expr::Interval;
use pg_lake_plan::message::WireError;

const DAY: i64 = 86_400_000_000;

/// Below ten to the power of it are all decimals.
const DIGITS: u32 = 38;

/// What the offsets of a frame are measured by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    /// The number of the order's key among the program's arguments.
    pub(super) arg: usize,
    pub(super) descending: bool,
    pub(super) nulls_first: bool,
    /// Decimals of the key have so many digits less after the point than the offsets.
    pub(super) missing_digits: u32,
}

/// A difference of values, not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Distance {
    /// Of integers, of decimals without their point, of times in microseconds.
    Exact(i128),
    Float(f64),
    Interval(Interval),
}

/// Which way a bound lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Preceding,
    Following,
}

/// Whether an interval of timestamps is one that Postgres refuses (`interval_sign`).
pub(super) fn is_negative(interval: Interval) -> bool {
    let days = i128::from(interval.months) * 30 + i128::from(interval.days);
    days * i128::from(DAY) + i128::from(interval.microseconds) < 0
}

/// The order's key in the rows of a chunk.
pub(super) struct Measured {
    measure: Measure,
    keys: Keys,
}

enum Keys {
    Exact(Vec<Option<i128>>),
    Float(Vec<Option<f64>>),
    /// Microseconds; of dates their midnights.
    Time(Vec<Option<i64>>),
}

/// What a value is compared with: the current one, moved.
enum Limit {
    Exact(i128),
    Float { base: f64, offset: f64, sub: bool },
    Time(i64),
}

impl Measured {
    /// `offsets`: those of the frame.
    pub(super) fn new(
        measure: Measure,
        offsets: &[Distance],
        chunk: &Chunk,
    ) -> Result<Self, WireError> {
        let arrays = chunk.arg(measure.arg)?;
        let keys = match offsets.first() {
            Some(Distance::Float(_)) => Keys::Float(floats(&arrays, chunk)?),
            Some(Distance::Interval(_)) => Keys::Time(times(&arrays, chunk)?),
            _ => Keys::Exact(exacts(&arrays, measure.missing_digits, chunk)?),
        };
        Ok(Measured { measure, keys })
    }

    /// Where the frame of a row begins: at `head` or later, at `end` if no row of the partition is in it
    /// (`update_frameheadpos`).
    pub(super) fn start(
        &self,
        row: usize,
        (offset, side): (Distance, Side),
        mut head: usize,
        end: usize,
    ) -> Result<usize, WireError> {
        let Measure {
            descending,
            nulls_first,
            ..
        } = self.measure;
        let sub = (side == Side::Preceding) != descending;
        let less = descending;
        let limit = self.limit(row, offset, sub)?;
        while head < end {
            let head_is_null = self.is_null(head);
            let found = match &limit {
                Some(limit) if !head_is_null => self.in_range(head, limit, less),
                limit if nulls_first => !head_is_null || limit.is_none(),
                limit => head_is_null || limit.is_some(),
            };
            if found {
                break;
            }
            head += 1;
        }
        Ok(head)
    }

    /// Where the frame of a row ends: at `tail` or later (`update_frametailpos`).
    pub(super) fn end(
        &self,
        row: usize,
        (offset, side): (Distance, Side),
        mut tail: usize,
        end: usize,
    ) -> Result<usize, WireError> {
        let Measure {
            descending,
            nulls_first,
            ..
        } = self.measure;
        let sub = (side == Side::Preceding) != descending;
        let less = !descending;
        let limit = self.limit(row, offset, sub)?;
        while tail < end {
            let tail_is_null = self.is_null(tail);
            let found = match &limit {
                Some(limit) if !tail_is_null => !self.in_range(tail, limit, less),
                limit if nulls_first => !tail_is_null && limit.is_none(),
                limit => tail_is_null && limit.is_some(),
            };
            if found {
                break;
            }
            tail += 1;
        }
        Ok(tail)
    }

    fn is_null(&self, row: usize) -> bool {
        match &self.keys {
            Keys::Exact(keys) => at(keys, row).is_none(),
            Keys::Float(keys) => at(keys, row).is_none(),
            Keys::Time(keys) => at(keys, row).is_none(),
        }
    }

    /// `None` if the row's value is null.
    fn limit(&self, row: usize, offset: Distance, sub: bool) -> Result<Option<Limit>, WireError> {
        Ok(match (&self.keys, offset) {
            (Keys::Exact(keys), Distance::Exact(offset)) => at(keys, row).map(|base| {
                // Values have fewer digits than what doesn't fit.
                Limit::Exact(match sub {
                    true => base.saturating_sub(offset),
                    false => base.saturating_add(offset),
                })
            }),
            (Keys::Float(keys), Distance::Float(offset)) => {
                at(keys, row).map(|base| Limit::Float { base, offset, sub })
            }
            (Keys::Time(keys), Distance::Interval(offset)) => match at(keys, row) {
                Some(base) => Some(Limit::Time(shifted(base, offset, sub)?)),
                None => None,
            },
            _ => return Err(internal("an offset of another type")),
        })
    }

    /// Whether the row's value isn't larger (`less`) or isn't smaller than the limit.
    fn in_range(&self, row: usize, limit: &Limit, less: bool) -> bool {
        match (&self.keys, limit) {
            (Keys::Exact(keys), Limit::Exact(limit)) => {
                at(keys, row).is_some_and(|value| within(&value, limit, less))
            }
            (Keys::Time(keys), Limit::Time(limit)) => {
                at(keys, row).is_some_and(|value| within(&value, limit, less))
            }
            (Keys::Float(keys), Limit::Float { base, offset, sub }) => {
                at(keys, row).is_some_and(|value| float_in_range(value, *base, *offset, *sub, less))
            }
            _ => false,
        }
    }
}

fn at<T: Copy>(keys: &[Option<T>], row: usize) -> Option<T> {
    keys.get(row).copied().flatten()
}

fn within<T: PartialOrd>(value: &T, limit: &T, less: bool) -> bool {
    match less {
        true => value <= limit,
        false => value >= limit,
    }
}

/// `in_range_float8_float8`
fn float_in_range(value: f64, base: f64, offset: f64, sub: bool, less: bool) -> bool {
    if value.is_nan() {
        return base.is_nan() || !less;
    }
    if base.is_nan() {
        return less;
    }
    // Their difference would be no number: all values are in such a frame.
    if offset.is_infinite() && base.is_infinite() && (base > 0.0) == sub {
        return true;
    }
    let limit = if sub { base - offset } else { base + offset };
    within(&value, &limit, less)
}

fn shifted(base: i64, by: Interval, sub: bool) -> Result<i64, WireError> {
    let by = match sub {
        false => Some(by),
        true => negated(by),
    };
    by.and_then(|by| moved(base, by)).ok_or_else(out_of_range)
}

/// Postgres may raise an error.
fn out_of_range() -> WireError {
    not_exact("a bound of a frame is out of the range of timestamps")
}

fn negated(interval: Interval) -> Option<Interval> {
    Some(Interval {
        months: interval.months.checked_neg()?,
        days: interval.days.checked_neg()?,
        microseconds: interval.microseconds.checked_neg()?,
    })
}

/// The values of all arrays, with nulls.
fn collected<T>(
    arrays: &[&ArrayRef],
    chunk: &Chunk,
    values: impl Fn(&dyn Array) -> Result<Vec<T>, WireError>,
) -> Result<Vec<Option<T>>, WireError> {
    let mut keys = Vec::with_capacity(chunk.rows());
    for &array in arrays {
        chunk.check_cancelled()?;
        let own = values(array)?.into_iter().enumerate();
        keys.extend(own.map(|(row, value)| array.is_valid(row).then_some(value)));
    }
    Ok(keys)
}

fn exacts(
    arrays: &[&ArrayRef],
    missing_digits: u32,
    chunk: &Chunk,
) -> Result<Vec<Option<i128>>, WireError> {
    let factor = 10i128.checked_pow(missing_digits);
    let factor = factor.ok_or_else(|| internal("a scale outside its range"))?;
    let keys = collected(arrays, chunk, |array| {
        Ok(match native(array) {
            Some(Native::I32(own)) => own.iter().map(|v| i128::from(*v)).collect(),
            Some(Native::I64(own)) => own.iter().map(|v| i128::from(*v)).collect(),
            Some(Native::I128(own)) => own.to_vec(),
            _ => return Err(internal("a frame measured by another type")),
        })
    })?;
    if factor == 1 {
        return Ok(keys);
    }
    let mut scaled = Vec::with_capacity(keys.len());
    for key in keys {
        scaled.push(match key {
            Some(key) => Some(scaled_up(key, factor)?),
            None => None,
        });
    }
    Ok(scaled)
}

/// A decimal with more digits after the point.
pub(super) fn scaled_up(value: i128, factor: i128) -> Result<i128, WireError> {
    value
        .checked_mul(factor)
        .filter(|scaled| scaled.unsigned_abs() < 10u128.pow(DIGITS))
        .ok_or_else(|| not_exact("a value of a frame's order has too many digits"))
}

fn floats(arrays: &[&ArrayRef], chunk: &Chunk) -> Result<Vec<Option<f64>>, WireError> {
    collected(arrays, chunk, |array| {
        Ok(match native(array) {
            Some(Native::F32(own)) => own.iter().map(|v| f64::from(*v)).collect(),
            Some(Native::F64(own)) => own.to_vec(),
            _ => return Err(internal("a frame measured by another type")),
        })
    })
}

fn times(arrays: &[&ArrayRef], chunk: &Chunk) -> Result<Vec<Option<i64>>, WireError> {
    collected(arrays, chunk, |array| {
        Ok(match (array.data_type(), native(array)) {
            (DataType::Date32, Some(Native::I32(own))) => {
                // What is under a null may be anything.
                let midnight = |(row, day): (usize, &i32)| match array.is_valid(row) {
                    true => i64::from(*day).checked_mul(DAY).ok_or_else(out_of_range),
                    false => Ok(0),
                };
                let midnights: Result<Vec<i64>, WireError> =
                    own.iter().enumerate().map(midnight).collect();
                midnights?
            }
            (DataType::Timestamp(..), Some(Native::I64(own))) => own.to_vec(),
            _ => return Err(internal("a frame measured by another type")),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{chunk_of, piece_of};
    use super::*;
    use arrow::array::{Date32Array, Float64Array, Int32Array};
    use std::ops::Range;
    use std::sync::Arc;

    /// The frames of all rows, from `start` to `end` of their value.
    fn frames(
        keys: ArrayRef,
        (descending, nulls_first): (bool, bool),
        start: (Distance, Side),
        end: (Distance, Side),
    ) -> Vec<Range<usize>> {
        let rows = keys.len();
        let chunk = chunk_of(vec![piece_of(vec![keys], &[0], &[0])]);
        let measure = Measure {
            arg: 0,
            descending,
            nulls_first,
            missing_digits: 0,
        };
        let measured = Measured::new(measure, &[start.0, end.0], &chunk).expect("keys");
        let (mut head, mut tail) = (0, 0);
        (0..rows)
            .map(|row| {
                head = measured.start(row, start, head, rows).expect("a start");
                tail = measured.end(row, end, tail, rows).expect("an end");
                head..tail
            })
            .collect()
    }

    #[test]
    fn values_near_the_current_one() {
        let near = |n| (Distance::Exact(n), Side::Preceding);
        let after = |n| (Distance::Exact(n), Side::Following);
        let keys: ArrayRef = Arc::new(Int32Array::from(vec![
            Some(1),
            Some(2),
            Some(2),
            Some(5),
            Some(i32::MAX),
            None,
            None,
        ]));
        let around = frames(keys, (false, false), near(1), after(3));
        assert_eq!(around, [0..3, 0..4, 0..4, 3..4, 4..5, 5..7, 5..7]);
        let keys: ArrayRef = Arc::new(Int32Array::from(vec![None, Some(9), Some(7), Some(1)]));
        let down = frames(keys, (true, true), near(2), after(6));
        assert_eq!(down, [0..1, 1..3, 1..4, 3..4]);
    }

    #[test]
    fn no_number_is_near_to_a_number() {
        let offset = |n, side| (Distance::Float(n), side);
        let keys = || -> ArrayRef {
            let values = vec![f64::NEG_INFINITY, -1.0, 0.0, f64::INFINITY, f64::NAN];
            Arc::new(Float64Array::from(values))
        };
        let one = frames(
            keys(),
            (false, false),
            offset(1.0, Side::Preceding),
            offset(1.0, Side::Following),
        );
        assert_eq!(one, [0..1, 1..3, 1..3, 3..4, 4..5]);
        let all = frames(
            keys(),
            (false, false),
            offset(f64::INFINITY, Side::Preceding),
            offset(f64::INFINITY, Side::Following),
        );
        assert_eq!(all, [0..4, 0..4, 0..4, 0..4, 4..5]);
    }

    #[test]
    fn months_of_dates_have_their_own_lengths() {
        let month = Distance::Interval(Interval {
            months: 1,
            days: 0,
            microseconds: 0,
        });
        // The 30th and 31st of January, the 28th of February and the 1st of March 2023.
        let keys: ArrayRef = Arc::new(Date32Array::from(vec![19387, 19388, 19416, 19417]));
        let ahead = frames(
            keys,
            (false, false),
            (month, Side::Following),
            (month, Side::Following),
        );
        assert_eq!(ahead, [2..3, 2..3, 4..4, 4..4]);
    }

    #[test]
    fn a_negative_interval_is_known() {
        let interval = |months, days, microseconds| Interval {
            months,
            days,
            microseconds,
        };
        assert!(is_negative(interval(1, -31, 0)));
        assert!(is_negative(interval(0, 0, -1)));
        assert!(!is_negative(interval(1, -30, 0)));
    }
}
