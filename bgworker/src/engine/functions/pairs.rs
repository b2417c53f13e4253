//! Two floats as one value, for aggregates of two arguments.

use super::argument;
use super::rows::{Rows, f64s};
use crate::engine::error::internal;
use crate::engine::expr::Val;
use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder};
use pg_lake_plan::message::WireError;
use std::sync::Arc;

const HALF: usize = size_of::<f64>();

/// The bytes of the first one, then those of the second.
pub(super) fn made(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (first, second) = (f64s(argument(args, 0)?)?, f64s(argument(args, 1)?)?);
    let nulls = rows.nulls();
    let mut pairs = BinaryBuilder::with_capacity(rows.count, rows.count * 2 * HALF);
    for row in 0..rows.count {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            pairs.append_null();
            continue;
        }
        let pair = [first.at(row), second.at(row)].map(f64::to_le_bytes);
        pairs.append_value(pair.as_flattened());
    }
    Ok(Arc::new(pairs.finish()))
}

/// The floats of each pair; anything where it is null.
pub(in crate::engine) fn read(array: &ArrayRef) -> Result<Vec<[f64; 2]>, WireError> {
    let malformed = || internal("a pair of another type");
    let pairs = array.as_binary_opt::<i32>().ok_or_else(malformed)?;
    let pair = |row: usize| {
        if pairs.is_null(row) {
            return Some([0.0; 2]);
        }
        let (first, second) = pairs.value(row).split_first_chunk::<HALF>()?;
        let second = second.try_into().ok()?;
        Some([f64::from_le_bytes(*first), f64::from_le_bytes(second)])
    };
    (0..pairs.len())
        .map(|row| pair(row).ok_or_else(malformed))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int32Array};

    #[test]
    fn pairs_are_read_as_they_were_made() {
        let first = Val::Array(Arc::new(Float64Array::from(vec![
            Some(1.5),
            None,
            Some(f64::INFINITY),
        ])));
        let second = Val::Scalar(Arc::new(Float64Array::from(vec![-2.0])));
        let args = [first, second];
        let rows = Rows::of(&args).expect("rows");
        let pairs = made(&rows, &args).expect("pairs");
        assert!(pairs.is_null(1));
        let read_again = read(&pairs).expect("floats");
        assert_eq!(read_again, [[1.5, -2.0], [0.0, 0.0], [f64::INFINITY, -2.0]]);
        let other: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        assert!(read(&other).is_err());
    }
}
