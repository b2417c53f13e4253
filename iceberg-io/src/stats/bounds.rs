//! Minimum and maximum of a primitive column, accumulated batch by batch with Arrow's kernels.
//!
//! Long values are kept whole while they are compared and shortened only when they are encoded.

use arrow::array::{Array, AsArray, PrimitiveArray};
use arrow::compute::{
    self, max_binary, max_binary_view, max_boolean, max_fixed_size_binary, max_string,
    max_string_view, min_binary, min_binary_view, min_boolean, min_fixed_size_binary, min_string,
    min_string_view,
};
use arrow::datatypes::{
    ArrowNumericType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use super::single_value;

/// The least and the greatest value so far.
type Range<T> = Option<(T, T)>;

/// The bounds of one column, by the representation of its type.
#[derive(Debug)]
pub(super) enum Bounds {
    Boolean(Range<bool>),
    Int(Range<i32>),
    Long(Range<i64>),
    /// Both widths: every `f32` is an `f64`. NaNs are counted and otherwise left out.
    Float {
        range: Range<f64>,
        nan_count: u64,
        single: bool,
    },
    Decimal(Range<i128>),
    String(Range<Vec<u8>>),
    Binary(Range<Vec<u8>>),
    Fixed(Range<Vec<u8>>),
}

impl Bounds {
    /// `None` for a type that no Iceberg primitive maps to.
    pub(super) fn for_type(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Boolean(None),
            DataType::Int32 | DataType::Date32 => Self::Int(None),
            DataType::Int64
            | DataType::Time64(TimeUnit::Microsecond)
            | DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Long(None),
            DataType::Float32 => Self::Float {
                range: None,
                nan_count: 0,
                single: true,
            },
            DataType::Float64 => Self::Float {
                range: None,
                nan_count: 0,
                single: false,
            },
            DataType::Decimal128(_, _) => Self::Decimal(None),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::String(None),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Self::Binary(None),
            DataType::FixedSizeBinary(_) => Self::Fixed(None),
            _ => return None,
        })
    }

    /// Takes an array in; `None` if it isn't of the column's type.
    pub(super) fn update(&mut self, array: &dyn Array) -> Option<()> {
        match self {
            Self::Boolean(range) => {
                let array = array.as_boolean_opt()?;
                widen(range, min_boolean(array).zip(max_boolean(array)));
            }
            Self::Int(range) => match array.data_type() {
                DataType::Date32 => widen(range, extremes::<Date32Type>(array)?),
                _ => widen(range, extremes::<Int32Type>(array)?),
            },
            Self::Long(range) => match array.data_type() {
                DataType::Timestamp(TimeUnit::Microsecond, _) => {
                    widen(range, extremes::<TimestampMicrosecondType>(array)?)
                }
                DataType::Time64(TimeUnit::Microsecond) => {
                    widen(range, extremes::<Time64MicrosecondType>(array)?)
                }
                _ => widen(range, extremes::<Int64Type>(array)?),
            },
            Self::Float {
                range,
                nan_count,
                single: true,
            } => {
                let array: &PrimitiveArray<Float32Type> = array.as_primitive_opt()?;
                scan_floats(range, nan_count, array.iter().flatten().map(f64::from));
            }
            Self::Float {
                range,
                nan_count,
                single: false,
            } => {
                let array: &PrimitiveArray<Float64Type> = array.as_primitive_opt()?;
                scan_floats(range, nan_count, array.iter().flatten());
            }
            Self::Decimal(range) => widen(range, extremes::<Decimal128Type>(array)?),
            Self::String(range) => {
                let found = match array.data_type() {
                    DataType::LargeUtf8 => {
                        let array = array.as_string_opt::<i64>()?;
                        min_string(array).zip(max_string(array))
                    }
                    DataType::Utf8View => {
                        let array = array.as_string_view_opt()?;
                        min_string_view(array).zip(max_string_view(array))
                    }
                    _ => {
                        let array = array.as_string_opt::<i32>()?;
                        min_string(array).zip(max_string(array))
                    }
                };
                // The order of UTF-8 bytes is the order of code points.
                widen_bytes(
                    range,
                    found.map(|(lower, upper)| (lower.as_bytes(), upper.as_bytes())),
                );
            }
            Self::Binary(range) => {
                let found = match array.data_type() {
                    DataType::LargeBinary => {
                        let array = array.as_binary_opt::<i64>()?;
                        min_binary(array).zip(max_binary(array))
                    }
                    DataType::BinaryView => {
                        let array = array.as_binary_view_opt()?;
                        min_binary_view(array).zip(max_binary_view(array))
                    }
                    _ => {
                        let array = array.as_binary_opt::<i32>()?;
                        min_binary(array).zip(max_binary(array))
                    }
                };
                widen_bytes(range, found);
            }
            Self::Fixed(range) => {
                let array = array.as_fixed_size_binary_opt()?;
                widen_bytes(
                    range,
                    min_fixed_size_binary(array).zip(max_fixed_size_binary(array)),
                );
            }
        }
        Some(())
    }

    pub(super) fn nan_count(&self) -> Option<u64> {
        match self {
            Self::Float { nan_count, .. } => Some(*nan_count),
            _ => None,
        }
    }

    /// Lower and upper bound in Iceberg's binary form.
    pub(super) fn encode(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        match self {
            Self::Boolean(range) => encode_both(range, |v| vec![u8::from(*v)]),
            Self::Int(range) => encode_both(range, |v| v.to_le_bytes().to_vec()),
            Self::Long(range) => encode_both(range, |v| v.to_le_bytes().to_vec()),
            Self::Float { range, single, .. } => {
                // Iceberg orders -0.0 before 0.0, which compare equal here: each bound takes the outer one.
                let range = range.map(|(lower, upper)| {
                    (
                        if lower == 0.0 { -0.0 } else { lower },
                        if upper == 0.0 { 0.0 } else { upper },
                    )
                });
                match single {
                    // Exact: the value came from an f32.
                    true => encode_both(&range, |v: &f64| (*v as f32).to_le_bytes().to_vec()),
                    false => encode_both(&range, |v: &f64| v.to_le_bytes().to_vec()),
                }
            }
            Self::Decimal(range) => encode_both(range, |v| single_value::decimal(*v)),
            Self::String(range) => match range {
                Some((lower, upper)) => (
                    single_value::string_lower(lower),
                    single_value::string_upper(upper),
                ),
                None => (None, None),
            },
            Self::Binary(range) => match range {
                Some((lower, upper)) => (
                    single_value::binary_lower(lower),
                    single_value::binary_upper(upper),
                ),
                None => (None, None),
            },
            // Fixed values may not be shortened, so long ones have no bounds.
            Self::Fixed(range) => match range {
                Some((lower, upper)) if lower.len() <= single_value::LONG_BYTES => {
                    (Some(lower.clone()), Some(upper.clone()))
                }
                _ => (None, None),
            },
        }
    }
}

/// The least and the greatest value of an array; the outer `None` says that it isn't of type `T`.
fn extremes<T: ArrowNumericType>(array: &dyn Array) -> Option<Range<T::Native>> {
    let array: &PrimitiveArray<T> = array.as_primitive_opt()?;
    Some(compute::min(array).zip(compute::max(array)))
}

fn scan_floats(range: &mut Range<f64>, nan_count: &mut u64, values: impl Iterator<Item = f64>) {
    for value in values {
        if value.is_nan() {
            *nan_count += 1;
        } else {
            widen(range, Some((value, value)));
        }
    }
}

fn widen<T: PartialOrd>(range: &mut Range<T>, found: Range<T>) {
    let Some((lower, upper)) = found else { return };
    match range {
        Some((least, greatest)) => {
            if lower < *least {
                *least = lower;
            }
            if upper > *greatest {
                *greatest = upper;
            }
        }
        None => *range = Some((lower, upper)),
    }
}

/// [`widen`] that copies only what moves a bound.
fn widen_bytes(range: &mut Range<Vec<u8>>, found: Option<(&[u8], &[u8])>) {
    let Some((lower, upper)) = found else { return };
    match range {
        Some((least, greatest)) => {
            if lower < least.as_slice() {
                *least = lower.to_vec();
            }
            if upper > greatest.as_slice() {
                *greatest = upper.to_vec();
            }
        }
        None => *range = Some((lower.to_vec(), upper.to_vec())),
    }
}

fn encode_both<T>(
    range: &Range<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    match range {
        Some((lower, upper)) => (Some(encode(lower)), Some(encode(upper))),
        None => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Decimal128Array, Float32Array, Float64Array, Int32Array};

    use super::*;

    fn encoded(batches: &[ArrayRef]) -> (Option<Vec<u8>>, Option<Vec<u8>>, Option<u64>) {
        let mut bounds = Bounds::for_type(batches[0].data_type()).unwrap();
        for batch in batches {
            bounds.update(batch.as_ref()).unwrap();
        }
        let (lower, upper) = bounds.encode();
        (lower, upper, bounds.nan_count())
    }

    #[test]
    fn ranges_span_batches_and_skip_nulls() {
        let batches: [ArrayRef; 3] = [
            Arc::new(Int32Array::from(vec![None, Some(5)])),
            Arc::new(Int32Array::from(vec![None::<i32>])),
            Arc::new(Int32Array::from(vec![-3, 4])),
        ];
        let (lower, upper, nans) = encoded(&batches);
        assert_eq!(lower, Some((-3i32).to_le_bytes().to_vec()));
        assert_eq!(upper, Some(5i32.to_le_bytes().to_vec()));
        assert_eq!(nans, None);
    }

    #[test]
    fn zeros_take_the_outer_sign_and_nans_are_only_counted() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![0.0, f64::NAN, -f64::NAN]));
        let (lower, upper, nans) = encoded(&[values]);
        assert_eq!(lower, Some((-0.0f64).to_le_bytes().to_vec()));
        assert_eq!(upper, Some(0.0f64.to_le_bytes().to_vec()));
        assert_eq!(nans, Some(2));

        let nothing: ArrayRef = Arc::new(Float32Array::from(vec![f32::NAN]));
        assert_eq!(encoded(&[nothing]), (None, None, Some(1)));

        let single: ArrayRef = Arc::new(Float32Array::from(vec![0.1f32, f32::NEG_INFINITY]));
        let (lower, upper, _) = encoded(&[single]);
        assert_eq!(lower, Some(f32::NEG_INFINITY.to_le_bytes().to_vec()));
        assert_eq!(upper, Some(0.1f32.to_le_bytes().to_vec()));
    }

    #[test]
    fn decimals_are_unscaled_and_minimal() {
        let values = Decimal128Array::from(vec![-129i128, 128])
            .with_precision_and_scale(10, 2)
            .unwrap();
        let (lower, upper, _) = encoded(&[Arc::new(values) as ArrayRef]);
        assert_eq!(lower, Some(vec![0xff, 0x7f]));
        assert_eq!(upper, Some(vec![0x00, 0x80]));
    }

    #[test]
    fn a_wrong_array_is_noticed() {
        let mut bounds = Bounds::for_type(&DataType::Int64).unwrap();
        assert!(bounds.update(&Int32Array::from(vec![1])).is_none());
    }
}
