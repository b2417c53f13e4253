//! Frames of window functions.
//!
//! An offset that Postgres would refuse raises its error in Postgres: a constant isn't lowered, and a parameter sends the
//! query back.

use super::dates::interval;
use super::expr::Exprs;
use super::node::Node;
use super::tree::Builder;
use super::{Lowered, refused};
use pg_lake_plan::ir::{
    Expr, ExprKind, Frame, FrameBound, FrameExclusion, FrameOffset, FrameUnit, Interval, SortKey,
};
use pg_lake_plan::types::{LakeType, Value};
use pgrx::pg_sys;

/// `RANGE UNBOUNDED PRECEDING`
pub const DEFAULT_FRAME: Frame = Frame {
    unit: FrameUnit::Range,
    start: FrameBound::UnboundedPreceding,
    end: FrameBound::CurrentRow,
    exclude: FrameExclusion::NoOthers,
};

const INVALID: &str = "a frame whose offset is null or negative is left to Postgres";

impl Builder<'_> {
    /// The frame of a window, and what its offsets are measured by, if it is of values. `peers` is what the window is
    /// ordered by.
    pub(super) fn frame(
        &mut self,
        agg: &pg_sys::WindowAgg,
        peers: &[Expr],
    ) -> Lowered<(Frame, Option<SortKey>)> {
        let has = |option: u32| agg.frameOptions as u32 & option != 0;
        let unit = if has(pg_sys::FRAMEOPTION_ROWS) {
            FrameUnit::Rows
        } else if has(pg_sys::FRAMEOPTION_GROUPS) {
            FrameUnit::Groups
        } else {
            FrameUnit::Range
        };
        let offsets = pg_sys::FRAMEOPTION_START_OFFSET | pg_sys::FRAMEOPTION_END_OFFSET;
        let measured = match unit == FrameUnit::Range && has(offsets) {
            true => Some(measured(agg, peers)?),
            false => None,
        };
        let key = measured.as_ref().map(|key| &key.expr.ty.lake);
        let start = if has(pg_sys::FRAMEOPTION_START_OFFSET_PRECEDING) {
            self.preceding(agg.startOffset, key, agg.startInRangeFunc)?
        } else if has(pg_sys::FRAMEOPTION_START_OFFSET_FOLLOWING) {
            self.following(agg.startOffset, key, agg.startInRangeFunc)?
        } else if has(pg_sys::FRAMEOPTION_START_CURRENT_ROW) {
            FrameBound::CurrentRow
        } else {
            FrameBound::UnboundedPreceding
        };
        let end = if has(pg_sys::FRAMEOPTION_END_OFFSET_PRECEDING) {
            self.preceding(agg.endOffset, key, agg.endInRangeFunc)?
        } else if has(pg_sys::FRAMEOPTION_END_OFFSET_FOLLOWING) {
            self.following(agg.endOffset, key, agg.endInRangeFunc)?
        } else if has(pg_sys::FRAMEOPTION_END_CURRENT_ROW) {
            FrameBound::CurrentRow
        } else {
            FrameBound::UnboundedFollowing
        };
        let exclude = if has(pg_sys::FRAMEOPTION_EXCLUDE_CURRENT_ROW) {
            FrameExclusion::CurrentRow
        } else if has(pg_sys::FRAMEOPTION_EXCLUDE_GROUP) {
            FrameExclusion::Group
        } else if has(pg_sys::FRAMEOPTION_EXCLUDE_TIES) {
            FrameExclusion::Ties
        } else {
            FrameExclusion::NoOthers
        };
        let frame = Frame {
            unit,
            start,
            end,
            exclude,
        };
        Ok((frame, measured))
    }

    fn preceding(
        &mut self,
        offset: Node,
        key: Option<&LakeType>,
        function: pg_sys::Oid,
    ) -> Lowered<FrameBound> {
        Ok(match self.offset(offset, key, function)? {
            Offset::Rows(rows) => FrameBound::Preceding(rows),
            Offset::By(by) => FrameBound::PrecedingBy(by),
        })
    }

    fn following(
        &mut self,
        offset: Node,
        key: Option<&LakeType>,
        function: pg_sys::Oid,
    ) -> Lowered<FrameBound> {
        Ok(match self.offset(offset, key, function)? {
            Offset::Rows(rows) => FrameBound::Following(rows),
            Offset::By(by) => FrameBound::FollowingBy(by),
        })
    }

    /// `key`: the type of what is measured, by this function of its operator family.
    fn offset(
        &mut self,
        offset: Node,
        key: Option<&LakeType>,
        function: pg_sys::Oid,
    ) -> Lowered<Offset> {
        if let Some(key) = key
            && measures(function)? == Measured::ByIntervals
        {
            let interval = interval(offset, false)?;
            check_interval(interval, key)?;
            return Ok(Offset::By(FrameOffset::Interval(interval)));
        }
        let number = Exprs::of(&[], &mut self.params).compared(offset)?;
        if !is_plain(&number) {
            return refused("a frame whose size is computed is not lowered");
        }
        let constant = match &number.kind {
            ExprKind::Const(value) if !is_valid(value.as_ref()) => return refused(INVALID),
            ExprKind::Const(Some(Value::I64(rows))) => Some(rows.unsigned_abs()),
            _ => None,
        };
        Ok(match constant {
            Some(rows) if key.is_none() => Offset::Rows(rows),
            _ => Offset::By(FrameOffset::Number(number)),
        })
    }
}

/// Not null, not negative, and a number.
fn is_valid(value: Option<&Value>) -> bool {
    match value {
        Some(Value::I32(n)) => *n >= 0,
        Some(Value::I64(n)) => *n >= 0,
        Some(Value::I128(n)) => *n >= 0,
        Some(Value::F32(n)) => *n >= 0.0,
        Some(Value::F64(n)) => *n >= 0.0,
        _ => false,
    }
}

enum Offset {
    /// Or groups.
    Rows(u64),
    By(FrameOffset),
}

/// What a window is ordered by.
fn measured(agg: &pg_sys::WindowAgg, peers: &[Expr]) -> Lowered<SortKey> {
    match (agg.ordNumCols, peers) {
        (1, [key]) => Ok(SortKey {
            expr: key.clone(),
            descending: !agg.inRangeAsc,
            nulls_first: agg.inRangeNullsFirst,
        }),
        _ => refused("a frame of values that are all the same is not lowered"),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Measured {
    ByNumbers,
    ByIntervals,
}

/// What a function takes as a difference of values.
fn measures(function: pg_sys::Oid) -> Lowered<Measured> {
    match function.to_u32() {
        pg_sys::F_IN_RANGE_INT2_INT2_INT2_BOOL_BOOL
        | pg_sys::F_IN_RANGE_INT2_INT2_INT4_BOOL_BOOL
        | pg_sys::F_IN_RANGE_INT2_INT2_INT8_BOOL_BOOL
        | pg_sys::F_IN_RANGE_INT4_INT4_INT2_BOOL_BOOL
        | pg_sys::F_IN_RANGE_INT4_INT4_INT4_BOOL_BOOL
        | pg_sys::F_IN_RANGE_INT4_INT4_INT8_BOOL_BOOL
        | pg_sys::F_IN_RANGE_INT8_INT8_INT8_BOOL_BOOL
        | pg_sys::F_IN_RANGE_FLOAT4_FLOAT4_FLOAT8_BOOL_BOOL
        | pg_sys::F_IN_RANGE_FLOAT8_FLOAT8_FLOAT8_BOOL_BOOL
        | pg_sys::F_IN_RANGE_NUMERIC_NUMERIC_NUMERIC_BOOL_BOOL => Ok(Measured::ByNumbers),
        pg_sys::F_IN_RANGE_DATE_DATE_INTERVAL_BOOL_BOOL
        | pg_sys::F_IN_RANGE_TIME_TIME_INTERVAL_BOOL_BOOL
        | pg_sys::F_IN_RANGE_TIMESTAMP_TIMESTAMP_INTERVAL_BOOL_BOOL
        | pg_sys::F_IN_RANGE_TIMESTAMPTZ_TIMESTAMPTZ_INTERVAL_BOOL_BOOL => {
            Ok(Measured::ByIntervals)
        }
        _ => refused("a frame of values of this type is not lowered"),
    }
}

/// How long months and days of a zone are depends on the zone.
fn check_interval(interval: Interval, key: &LakeType) -> Lowered<()> {
    let whole = interval.months != 0 || interval.days != 0;
    match key {
        LakeType::Timestamptz if whole => {
            refused("a frame of days or months of timestamps with a zone is not lowered")
        }
        _ => Ok(()),
    }
}

/// Whether it is a constant or a parameter, maybe of another type.
fn is_plain(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Const(_) | ExprKind::Param(_) => true,
        ExprKind::Cast(arg) => is_plain(arg),
        _ => false,
    }
}
