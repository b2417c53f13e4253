//! Intervals: in the engine, as in the files, the text that Postgres prints of them under `IntervalStyle = postgres`.
//!
//! They are compared by their length, which equal ones have in common that don't look the same: see `forms`.

use super::Lowered;
use super::calls::call_of;
use super::compare::comparison;
use super::consts::decimal;
use super::expr::{Exprs, cast, operator_function};
use super::functions::{Call, Number};
use super::node::{Node, get, nodes};
use super::table::sql_type;
use super::zones::to_local;
use pg_lake_plan::expr::{Expr, ExprKind, Field, Function};
use pg_lake_plan::ir::CompareOp;
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;

const DAY: i128 = 86_400_000_000;

/// Elsewhere compilers may fuse the steps of a multiplication or division.
const IS_SCALED: bool = cfg!(target_arch = "x86_64");

impl Exprs<'_> {
    /// Compares intervals.
    pub(super) fn compare_intervals(
        &mut self,
        op: CompareOp,
        left: Node,
        right: Node,
    ) -> Lowered<Expr> {
        let (left, right) = (self.length(left)?, self.length(right)?);
        Ok(comparison(op, left, right))
    }

    /// What an interval is compared by.
    fn length(&mut self, node: Node) -> Lowered<Expr> {
        if let Some(constant) = get::<pg_sys::Const>(node) {
            return Ok(constant_length(constant));
        }
        match difference(node) {
            Some(ends) => self.duration(ends, decimal(6)),
            None => Ok(length(self.lower(node)?)),
        }
    }

    /// What lies between two timestamps, in seconds.
    fn duration(&mut self, ends: [Node; 2], ty: SqlType) -> Lowered<Expr> {
        let [left, right] = ends;
        let args = vec![self.lower(left)?, self.lower(right)?];
        Ok(call_of(Function::SecondsBetween, args, ty))
    }

    /// `extract` or `date_part`
    pub(super) fn field_of_interval(
        &mut self,
        call: Call,
        field: Field,
        arg: Node,
    ) -> Lowered<Expr> {
        let scale = (field.scale_of_interval()).ok_or("this field of this type is not lowered")?;
        let ty = match call {
            Call::Extract => decimal(scale),
            Call::DatePart => Number::Float8.ty(),
            _ => return Err("this function of an interval is not lowered".to_owned()),
        };
        if field == Field::Epoch
            && let Some(ends) = difference(arg)
        {
            return self.duration(ends, ty);
        }
        let arg = self.lower(arg)?;
        Ok(call_of(Function::IntervalPart(field), vec![arg], ty))
    }

    /// A date, a timestamp or a `timestamptz`, and an interval that isn't constant.
    pub(super) fn plus_any_interval(
        &mut self,
        arg: Node,
        by: Node,
        negated: bool,
    ) -> Lowered<Expr> {
        let (arg, by) = (self.lower(arg)?, self.lower(by)?);
        let function = Function::AddIntervalOf { negated };
        if arg.ty.lake == LakeType::Timestamptz {
            let ty = arg.ty.clone();
            let args = vec![arg, self.offset()?, by];
            return Ok(call_of(function, args, ty));
        }
        let ty = sql_type(LakeType::Timestamp, pg_sys::TIMESTAMPOID);
        Ok(call_of(function, vec![cast(arg, &ty), by], ty))
    }

    /// An interval times a number, or divided by it.
    pub(super) fn scaled_interval(
        &mut self,
        function: Function,
        interval: Node,
        by: Node,
    ) -> Lowered<Expr> {
        if !IS_SCALED {
            return Err("multiples of intervals are not lowered on this machine".to_owned());
        }
        let args = vec![self.lower(interval)?, self.lower(by)?];
        Ok(call_of(function, args, interval_type()))
    }

    /// `age` of two instants, as clocks of the session's time zone show them.
    pub(super) fn age(&mut self, left: Node, right: Node) -> Lowered<Expr> {
        let left = to_local(self.lower(left)?, self.offset()?);
        let right = to_local(self.lower(right)?, self.offset()?);
        Ok(call_of(Function::Age, vec![left, right], interval_type()))
    }
}

pub fn interval_type() -> SqlType {
    sql_type(LakeType::Text, pg_sys::INTERVALOID)
}

pub fn is_interval(ty: &SqlType) -> bool {
    ty.oid == pg_sys::INTERVALOID.to_u32()
}

/// Whether an average is what Postgres divides.
pub fn has_average() -> bool {
    IS_SCALED
}

/// What an interval of the engine is compared by.
pub fn length(interval: Expr) -> Expr {
    call_of(Function::IntervalLength, vec![interval], decimal(6))
}

/// The same of a constant (`interval_cmp_value`). An infinite one is longer, or shorter, than all others.
fn constant_length(constant: &pg_sys::Const) -> Expr {
    let value = (!constant.constisnull).then(|| {
        // SAFETY: an interval, which is passed by reference.
        let interval = unsafe { *constant.constvalue.cast_mut_ptr::<pg_sys::Interval>() };
        let days = i128::from(interval.month) * 30 + i128::from(interval.day);
        Value::I128(days * DAY + i128::from(interval.time))
    });
    Expr {
        ty: decimal(6),
        kind: ExprKind::Const(value),
    }
}

/// The two timestamps that something lies between.
fn difference(node: Node) -> Option<[Node; 2]> {
    let difference = get::<pg_sys::OpExpr>(node)?;
    let function = operator_function(difference.opfuncid, difference.opno).to_u32();
    let timestamps = matches!(function, pg_sys::F_TIMESTAMP_MI | pg_sys::F_TIMESTAMPTZ_MI);
    match nodes(difference.args).as_slice() {
        &[left, right] if timestamps => Some([left, right]),
        _ => None,
    }
}
