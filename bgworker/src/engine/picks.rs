//! What is found among the ordered values of a group, as `orderedsetaggs.c` does.

use super::error::{internal, not_exact, raise};
use super::extremes::ZEROS;
use super::widths::used_bytes;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, UInt64Array, new_null_array};
use arrow::compute;
use arrow::datatypes::{Float32Type, Float64Type};
use datafusion_common::Result;
use pg_lake_plan::ir::Fraction;
use std::ops::Range;
use std::sync::Arc;

/// The places of the values that make a result, and how far it is from the one to the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pick {
    pub(super) low: usize,
    pub(super) high: usize,
    part: f64,
}

impl Pick {
    pub(super) fn one(at: usize) -> Self {
        Pick {
            low: at,
            high: at,
            part: 0.0,
        }
    }

    /// The same of values that begin later.
    pub(super) fn from(self, start: usize) -> Self {
        Pick {
            low: self.low + start,
            high: self.high + start,
            ..self
        }
    }

    /// The same of the two values at its places, which may be one place.
    pub(super) fn of_two(self) -> Self {
        Pick {
            low: 0,
            high: usize::from(self.low < self.high),
            ..self
        }
    }
}

/// The value up to which there is a share of so many: `percentile_disc_final`.
pub(super) fn discrete(share: Fraction, count: usize) -> Pick {
    let number = (share.value() * count as f64).ceil() as usize;
    Pick::one(number.clamp(1, count.max(1)) - 1)
}

/// `percentile_cont_final_common`
pub(super) fn continuous(share: Fraction, count: usize) -> Pick {
    let last = count.saturating_sub(1);
    let place = share.value() * last as f64;
    let low = (place.floor() as usize).min(last);
    Pick {
        low,
        high: (place.ceil() as usize).min(last),
        part: place - low as f64,
    }
}

/// The values at the picks.
pub(super) fn picked(values: &ArrayRef, picks: &[Option<Pick>]) -> Result<ArrayRef> {
    if values.is_empty() {
        return Ok(new_null_array(values.data_type(), picks.len()));
    }
    let places = picks.iter().map(|pick| pick.map(|pick| pick.low as u64));
    let places: UInt64Array = places.collect();
    Ok(compute::take(values, &places, None)?)
}

/// What lies between the values at the picks.
pub(super) fn between(values: &ArrayRef, picks: &[Option<Pick>]) -> Result<ArrayRef> {
    let mut results = vec![];
    for pick in picks {
        results.push(match pick {
            Some(pick) => Some(between_two(values, *pick)?),
            None => None,
        });
    }
    Ok(Arc::new(Float64Array::from(results)))
}

/// `float8_lerp`
pub(super) fn between_two(values: &ArrayRef, pick: Pick) -> Result<f64> {
    let Some(floats) = values.as_primitive_opt::<Float64Type>() else {
        return Err(raise(internal("a percentile of another type")));
    };
    let (low, high) = (
        floats.values().get(pick.low),
        floats.values().get(pick.high),
    );
    let (Some(&low), Some(&high)) = (low, high) else {
        return Err(raise(internal("a percentile of too few values")));
    };
    Ok(match pick.low == pick.high {
        true => low,
        false => low + pick.part * (high - low),
    })
}

/// The zeros that are among some floats. Postgres shows the one that comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Zeros {
    positive: bool,
    negative: bool,
}

impl Zeros {
    pub(super) fn among(values: &ArrayRef, rows: Range<usize>) -> Self {
        let mut zeros = Zeros::default();
        if let Some(floats) = values.as_primitive_opt::<Float64Type>() {
            zeros.look_at(floats.values().get(rows).unwrap_or_default());
        } else if let Some(floats) = values.as_primitive_opt::<Float32Type>() {
            zeros.look_at(floats.values().get(rows).unwrap_or_default());
        }
        zeros
    }

    fn look_at<T: Copy + Into<f64>>(&mut self, values: &[T]) {
        for value in values {
            let value: f64 = (*value).into();
            if value == 0.0 {
                self.negative |= value.is_sign_negative();
                self.positive |= value.is_sign_positive();
            }
        }
    }

    pub(super) fn add(&mut self, others: Zeros) {
        self.positive |= others.positive;
        self.negative |= others.negative;
    }

    /// Makes sure that a value is none of several zeros that look different.
    pub(super) fn check(self, values: &ArrayRef, at: usize) -> Result<()> {
        let shown = Zeros::among(values, at..at.saturating_add(1));
        match self.positive && self.negative && shown != Zeros::default() {
            true => Err(raise(not_exact(ZEROS))),
            false => Ok(()),
        }
    }
}

/// What the values of a range take.
pub(super) fn bytes_of(values: &ArrayRef, range: Range<usize>) -> Result<usize> {
    let slice = values.slice(range.start, range.len());
    Ok(used_bytes(&slice)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_shares() {
        let share = Fraction::new;
        for (part, count, place) in [(0.0, 4, 0), (0.5, 4, 1), (0.51, 4, 2), (1.0, 4, 3)] {
            assert_eq!(discrete(share(part), count), Pick::one(place), "{part}");
        }
        let half = continuous(share(0.5), 4);
        assert_eq!((half.low, half.high, half.part), (1, 2, 0.5));
        assert_eq!(continuous(share(0.5), 3), Pick::one(1));
        assert_eq!(continuous(share(0.7), 1), Pick::one(0));
        // Nothing is computed of one value: it may be infinite, or a negative zero.
        assert_eq!(continuous(share(0.5), 3).of_two(), Pick::one(0));
        let values: ArrayRef = Arc::new(Float64Array::from(vec![0.0, 1.0, 4.0, 9.0]));
        assert_eq!(between_two(&values, half).expect("a value"), 2.5);
    }

    #[test]
    fn zeros_of_both_signs_are_told() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![-1.0, -0.0, 0.0, 2.0]));
        let both = Zeros::among(&values, 0..4);
        assert!(both.check(&values, 1).is_err() && both.check(&values, 2).is_err());
        assert!(both.check(&values, 3).is_ok());
        assert!(Zeros::among(&values, 0..2).check(&values, 1).is_ok());
    }
}
