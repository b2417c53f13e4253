//! From a fragment's frame to one whose offsets are known: constants and parameters have their values.

use super::frames::{Bound, Frame};
use super::range::{Distance, Measure, Side, is_negative, scaled_up};
use crate::engine::error::{from_arrow, internal, not_exact, protocol, unsupported};
use crate::engine::expr::{Frame as Rows, Node};
use crate::engine::lower::Lowering;
use crate::engine::validate;
use crate::engine::values::{Native, native, power_of_ten};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::Schema;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use pg_lake_plan::ir::{Expr, FrameBound, FrameOffset, FrameUnit, SortKey, Window};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use std::sync::Arc;

impl Lowering {
    /// `measured`: the number of what offsets are measured by among the program's arguments.
    pub(super) fn frame(
        &self,
        window: &Window,
        measured: Option<usize>,
    ) -> Result<Frame, WireError> {
        let frame = &window.frame;
        let by_value = window.measured.as_ref().zip(measured);
        let missing_digits = match by_value {
            Some((key, _)) => self.missing_digits(window, key)?,
            None => 0,
        };
        let bound = |bound: &FrameBound| -> Result<Bound, WireError> {
            Ok(match bound {
                FrameBound::UnboundedPreceding => Bound::UnboundedPreceding,
                FrameBound::Preceding(n) => Bound::Preceding(count(*n)),
                FrameBound::CurrentRow => Bound::CurrentRow,
                FrameBound::Following(n) => Bound::Following(count(*n)),
                FrameBound::UnboundedFollowing => Bound::UnboundedFollowing,
                FrameBound::PrecedingBy(offset) if by_value.is_some() => {
                    Bound::At(self.distance(window, offset)?, Side::Preceding)
                }
                FrameBound::FollowingBy(offset) if by_value.is_some() => {
                    Bound::At(self.distance(window, offset)?, Side::Following)
                }
                FrameBound::PrecedingBy(offset) => Bound::Preceding(self.row_count(offset)?),
                FrameBound::FollowingBy(offset) => Bound::Following(self.row_count(offset)?),
            })
        };
        Ok(Frame {
            unit: frame.unit,
            start: bound(&frame.start)?,
            end: bound(&frame.end)?,
            exclude: frame.exclude,
            measure: by_value.map(|(key, arg)| Measure {
                arg,
                descending: key.descending,
                nulls_first: key.nulls_first,
                missing_digits,
            }),
        })
    }

    /// Rows or groups.
    fn row_count(&self, offset: &FrameOffset) -> Result<usize, WireError> {
        let FrameOffset::Number(offset) = offset else {
            return Err(internal("an interval of rows"));
        };
        match native(&self.value(offset)?) {
            Some(Native::I64([rows])) => u64::try_from(*rows).map(count).map_err(|_| refused()),
            _ => Err(internal("a number of rows of another type")),
        }
    }

    /// The difference of values.
    fn distance(&self, window: &Window, offset: &FrameOffset) -> Result<Distance, WireError> {
        let key = window.measured.as_ref().map(|key| &key.expr.ty.lake);
        let offset = match offset {
            // Only the time of the day counts.
            FrameOffset::Interval(interval) if key == Some(&LakeType::Time) => {
                return match interval.microseconds {
                    ..0 => Err(refused()),
                    time => Ok(Distance::Exact(time.into())),
                };
            }
            FrameOffset::Interval(interval) if is_negative(*interval) => return Err(refused()),
            FrameOffset::Interval(interval) => return Ok(Distance::Interval(*interval)),
            FrameOffset::Number(offset) => offset,
        };
        let value = self.value(offset)?;
        let exact = match native(&value) {
            Some(Native::F64([offset])) if offset.is_nan() || *offset < 0.0 => {
                return Err(refused());
            }
            Some(Native::F64([offset])) => return Ok(Distance::Float(*offset)),
            Some(Native::I32([offset])) => i128::from(*offset),
            Some(Native::I64([offset])) => i128::from(*offset),
            Some(Native::I128([offset])) => *offset,
            _ => return Err(internal("an offset of another type")),
        };
        if exact < 0 {
            return Err(refused());
        }
        let digits = self.scale(window)? - digits(&offset.ty.lake);
        Ok(Distance::Exact(scaled_up(exact, power_of_ten(digits)?)?))
    }

    /// The largest scale of the key and the offsets.
    fn scale(&self, window: &Window) -> Result<i32, WireError> {
        let key = window.measured.iter().map(|key| &key.expr);
        let all = key.chain(window.frame.offsets());
        let scales = all.map(|expr| digits(&expr.ty.lake));
        scales
            .max()
            .ok_or_else(|| internal("a frame that isn't measured"))
    }

    fn missing_digits(&self, window: &Window, key: &SortKey) -> Result<u32, WireError> {
        let missing = self.scale(window)? - digits(&key.expr.ty.lake);
        u32::try_from(missing).map_err(|_| internal("a scale outside its range"))
    }

    /// Of an expression without columns: an array of one value, which isn't null.
    fn value(&self, expr: &Expr) -> Result<ArrayRef, WireError> {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)
            .map_err(|e| from_arrow(&e))?;
        let value = Node::compile(expr, &self.params)?.eval(&Rows::new(&row))?;
        let value = value.array().clone();
        match value.len() == 1 && value.is_valid(0) {
            true => Ok(value),
            false => Err(refused()),
        }
    }
}

/// Postgres raises its own error, if it comes so far.
fn refused() -> WireError {
    not_exact("an offset of a frame is null or negative")
}

fn count(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Digits after the point.
fn digits(ty: &LakeType) -> i32 {
    match ty {
        LakeType::Decimal { scale, .. } => i32::from(*scale),
        _ => 0,
    }
}

/// Checks a frame over columns of these types.
pub(super) fn check_frame(
    window: &Window,
    input: &[LakeType],
    params: usize,
) -> Result<(), WireError> {
    let frame = &window.frame;
    let impossible = frame.start == FrameBound::UnboundedFollowing
        || frame.end == FrameBound::UnboundedPreceding;
    if impossible {
        return Err(protocol("a frame that isn't one"));
    }
    if let Some(key) = &window.measured {
        validate::check(&key.expr, input, params)?;
        let is_offset = |bound: &FrameBound| {
            matches!(
                bound,
                FrameBound::PrecedingBy(_) | FrameBound::FollowingBy(_)
            )
        };
        if !(is_offset(&frame.start) || is_offset(&frame.end)) {
            return Err(protocol("a frame that is measured without an offset"));
        }
    }
    for offset in frame.offsets() {
        validate::check_depth(offset)?;
        validate::check(offset, &[], params)?;
    }
    for bound in [&frame.start, &frame.end] {
        check_bound(bound, frame.unit, window.measured.as_ref())?;
    }
    Ok(())
}

fn check_bound(
    bound: &FrameBound,
    unit: FrameUnit,
    measured: Option<&SortKey>,
) -> Result<(), WireError> {
    let by_value = unit == FrameUnit::Range;
    let offset = match bound {
        FrameBound::Preceding(_) | FrameBound::Following(_) if by_value => {
            return Err(unsupported("a frame of values in a range"));
        }
        FrameBound::PrecedingBy(offset) | FrameBound::FollowingBy(offset) => offset,
        _ => return Ok(()),
    };
    let key = measured.map(|key| &key.expr.ty.lake);
    let fits = match (offset, key) {
        (FrameOffset::Number(offset), None) => !by_value && offset.ty.lake == LakeType::Int8,
        (FrameOffset::Interval(_), None) => false,
        _ if !by_value => false,
        (FrameOffset::Number(offset), Some(key)) => {
            let offset = &offset.ty.lake;
            (key.is_integer() && offset.is_integer())
                || (key.is_decimal() && offset.is_decimal())
                || (key.is_float() && *offset == LakeType::Float8)
        }
        (FrameOffset::Interval(interval), Some(LakeType::Timestamptz)) => {
            (interval.months, interval.days) == (0, 0)
        }
        (FrameOffset::Interval(_), Some(key)) => {
            matches!(key, LakeType::Date | LakeType::Time | LakeType::Timestamp)
        }
    };
    match fits {
        true => Ok(()),
        false => Err(protocol("an offset of a frame has another type")),
    }
}
