//! Aggregate functions with Postgres' types and errors: `sums`, `moments`, `extremes`, `bits`, `intervals` and `forms` have
//! the states of their groups (`fold`), `sets` those over distinct values. Functions over ordered values have none: see
//! `found`.
//!
//! DataFusion runs them in two phases: each partition accumulates, and the states meet in a second
//! aggregation. Sums of integers and decimals have an exact 128-bit state. A state can also be the result of one
//! aggregation and the argument of another one.

use super::bits::{BitOp, Bits};
use super::error::{internal, raise};
use super::extremes::{Extreme, ExtremeBytes};
use super::forms::OneForm;
use super::group::is_distinct;
use super::intervals::Intervals;
use super::moments::{AllMoments, OfPairs, OfValues};
use super::sets::{Sets, list_of};
use super::sums::{Count, SumExact, SumFloat};
use crate::arrow_types::arrow_type;
use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use pg_lake_plan::ir::{Aggregate, AggregateFunction};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use std::fmt::Debug;
use std::sync::Arc;

/// One aggregate of a fragment, after validation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LakeAggregate {
    function: AggregateFunction,
    /// `None`: `count(*)`
    arg: Option<LakeType>,
    result: LakeType,
    takes: Takes,
    signature: Signature,
}

/// What a function is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Takes {
    Values,
    /// Values of which each counts once in a group.
    Distinct,
    /// What [`LakeAggregate::state_of`] gives.
    States,
}

/// The states of all groups, of any aggregate.
pub(super) trait States: GroupsAccumulator + Debug + Sync {
    /// Makes sure that there are that many groups.
    fn ensure(&mut self, groups: usize);
}

impl LakeAggregate {
    pub(super) fn new(aggregate: &Aggregate) -> Self {
        let takes = if is_distinct(aggregate) {
            Takes::Distinct
        } else {
            Takes::Values
        };
        Self::taking(takes, aggregate)
    }

    /// Over values that are distinct already.
    pub(super) fn of_distinct(aggregate: &Aggregate) -> Self {
        Self::taking(Takes::Values, aggregate)
    }

    /// Its result is a state, which one that is [`LakeAggregate::merging`] takes.
    pub(super) fn state_of(aggregate: &Aggregate) -> Self {
        let function = Self::taking(Takes::Values, aggregate);
        LakeAggregate {
            result: function.state(),
            ..function
        }
    }

    pub(super) fn merging(aggregate: &Aggregate) -> Self {
        Self::taking(Takes::States, aggregate)
    }

    fn taking(takes: Takes, aggregate: &Aggregate) -> Self {
        LakeAggregate {
            function: aggregate.function,
            arg: aggregate.arg.as_ref().map(|e| e.ty.lake.clone()),
            result: aggregate.ty.lake.clone(),
            takes,
            signature: Signature::variadic_any(Volatility::Immutable),
        }
    }

    /// The state of a function over values that aren't ordered.
    fn state(&self) -> LakeType {
        let decimal = |scale| LakeType::Decimal {
            precision: 38,
            scale,
        };
        match (self.function, &self.arg) {
            (AggregateFunction::Count, _) | (_, None) => LakeType::Int8,
            (AggregateFunction::Sum, Some(LakeType::Decimal { scale, .. })) => decimal(*scale),
            (AggregateFunction::Sum, Some(arg)) if arg.is_float() => self.result.clone(),
            (AggregateFunction::Sum, Some(_)) => decimal(0),
            (
                AggregateFunction::SumOfSquares
                | AggregateFunction::Moments
                | AggregateFunction::PairMoments,
                Some(_),
            ) => self.result.clone(),
            (_, Some(arg)) => arg.clone(),
        }
    }

    fn state_types(&self) -> Vec<DataType> {
        match (self.takes, &self.arg) {
            (Takes::Distinct, Some(arg)) => vec![list_of(arrow_type(arg))],
            _ => vec![arrow_type(&self.state())],
        }
    }

    pub(super) fn states(&self) -> Result<Box<dyn States>> {
        Ok(match (self.takes, &self.arg) {
            (Takes::Values, _) => self.states_of_values()?,
            (Takes::States, _) => Box::new(Merged(self.states_of_values()?)),
            (Takes::Distinct, Some(arg)) => {
                let function = LakeAggregate {
                    takes: Takes::Values,
                    ..self.clone()
                };
                Box::new(Sets::new(function, arrow_type(arg))?)
            }
            (Takes::Distinct, None) => {
                return Err(raise(internal("distinct values of nothing")));
            }
        })
    }

    fn states_of_values(&self) -> Result<Box<dyn States>> {
        let max = self.function == AggregateFunction::Max;
        let state = arrow_type(&self.state());
        Ok(match (self.function, &self.arg) {
            (AggregateFunction::Count, arg) => Box::new(Count::states(arg.is_none())),
            (_, None) => return Err(raise(internal("an aggregate without argument"))),
            (AggregateFunction::Sum, Some(arg)) if arg.is_float() => {
                Box::new(SumFloat::states(self.result == LakeType::Float4))
            }
            (AggregateFunction::Moments, Some(_)) => {
                Box::new(AllMoments::<OfValues>::states(&state))
            }
            (AggregateFunction::PairMoments, Some(_)) => {
                Box::new(AllMoments::<OfPairs>::states(&state))
            }
            (AggregateFunction::Sum, Some(_)) => {
                Box::new(SumExact::states(state, arrow_type(&self.result)))
            }
            (AggregateFunction::SumOfSquares, Some(_)) => {
                Box::new(SumExact::of_squares(state, arrow_type(&self.result)))
            }
            (AggregateFunction::BoolAnd | AggregateFunction::BitAnd, Some(_)) => {
                Box::new(Bits::states(BitOp::And, state))
            }
            (AggregateFunction::BoolOr | AggregateFunction::BitOr, Some(_)) => {
                Box::new(Bits::states(BitOp::Or, state))
            }
            (AggregateFunction::BitXor, Some(_)) => Box::new(Bits::states(BitOp::Xor, state)),
            (
                AggregateFunction::IntervalSum
                | AggregateFunction::IntervalMin
                | AggregateFunction::IntervalMax,
                Some(_),
            ) => Box::new(Intervals::states(self.function)),
            (AggregateFunction::OneForm, Some(_)) => Box::new(OneForm::states()),
            (
                AggregateFunction::PercentileDisc(_)
                | AggregateFunction::PercentileCont(_)
                | AggregateFunction::Mode
                | AggregateFunction::ArrayAgg,
                Some(_),
            ) => return Err(raise(internal("ordered values as a state"))),
            (AggregateFunction::Min | AggregateFunction::Max, Some(arg)) => match arg {
                LakeType::Int2 | LakeType::Int4 | LakeType::Date => {
                    Box::new(Extreme::<i32>::states(max, state))
                }
                LakeType::Int8 | LakeType::Time | LakeType::Timestamp | LakeType::Timestamptz => {
                    Box::new(Extreme::<i64>::states(max, state))
                }
                LakeType::Decimal { .. } => Box::new(Extreme::<i128>::states(max, state)),
                LakeType::Float4 => Box::new(Extreme::<f32>::states(max, state)),
                LakeType::Float8 => Box::new(Extreme::<f64>::states(max, state)),
                LakeType::Text | LakeType::Bytes => Box::new(ExtremeBytes::states(max, state)),
                _ => return Err(raise(internal("min or max of another type"))),
            },
        })
    }
}

impl AggregateUDFImpl for LakeAggregate {
    // Not DataFusion's own names: it attaches rules to some of them.
    fn name(&self) -> &str {
        match self.function {
            AggregateFunction::Count => "lake_count",
            AggregateFunction::Sum => "lake_sum",
            AggregateFunction::Min => "lake_min",
            AggregateFunction::Max => "lake_max",
            AggregateFunction::SumOfSquares => "lake_sum_of_squares",
            AggregateFunction::BoolAnd => "lake_bool_and",
            AggregateFunction::BoolOr => "lake_bool_or",
            AggregateFunction::BitAnd => "lake_bit_and",
            AggregateFunction::BitOr => "lake_bit_or",
            AggregateFunction::BitXor => "lake_bit_xor",
            AggregateFunction::PercentileDisc(_) => "lake_percentile_disc",
            AggregateFunction::PercentileCont(_) => "lake_percentile_cont",
            AggregateFunction::Mode => "lake_mode",
            AggregateFunction::ArrayAgg => "lake_array_agg",
            AggregateFunction::IntervalSum => "lake_interval_sum",
            AggregateFunction::IntervalMin => "lake_interval_min",
            AggregateFunction::IntervalMax => "lake_interval_max",
            AggregateFunction::Moments => "lake_moments",
            AggregateFunction::PairMoments => "lake_pair_moments",
            AggregateFunction::OneForm => "lake_one_form",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(&self.result))
    }

    fn order_sensitivity(&self) -> datafusion_expr::utils::AggregateOrderSensitivity {
        datafusion_expr::utils::AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let types = self.state_types().into_iter().enumerate();
        let fields = types.map(|(number, ty)| {
            let name = format!("{}[state {number}]", args.name);
            Arc::new(Field::new(name, ty, true))
        });
        Ok(fields.collect())
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let mut states = self.states()?;
        states.ensure(1);
        Ok(Box::new(OneGroup {
            states,
            zeros: vec![],
        }))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        _args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let states: Box<dyn GroupsAccumulator> = self.states()?;
        Ok(states)
    }
}

/// Values are states.
#[derive(Debug)]
struct Merged(Box<dyn States>);

impl States for Merged {
    fn ensure(&mut self, groups: usize) {
        self.0.ensure(groups);
    }
}

impl GroupsAccumulator for Merged {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.merge_batch(values, groups, filter, total)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.0.merge_batch(values, groups, filter, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.0.evaluate(emit)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.0.state(emit)
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

/// Aggregation without groups: all rows belong to group 0.
#[derive(Debug)]
struct OneGroup {
    states: Box<dyn States>,
    zeros: Vec<usize>,
}

impl OneGroup {
    fn zeros(&mut self, values: &[ArrayRef]) -> usize {
        let rows = values.first().map_or(0, |v| v.len());
        if self.zeros.len() < rows {
            self.zeros.resize(rows, 0);
        }
        rows
    }

    fn one(arrays: ArrayRef) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&arrays, 0)
    }
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = self.zeros(values);
        let groups = self.zeros.get(..rows).unwrap_or(&[]);
        self.states.update_batch(values, groups, None, 1)
    }

    fn merge_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = self.zeros(values);
        let groups = self.zeros.get(..rows).unwrap_or(&[]);
        self.states.merge_batch(values, groups, None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = Self::one(self.states.evaluate(EmitTo::All)?);
        self.states.ensure(1);
        value
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = self.states.state(EmitTo::All)?;
        self.states.ensure(1);
        state.into_iter().map(Self::one).collect()
    }

    fn size(&self) -> usize {
        self.states.size() + self.zeros.capacity() * size_of::<usize>()
    }
}

/// The rows that an aggregate takes: not null and passing its FILTER. `None`: all.
pub(super) fn taken(
    nulls: Option<&NullBuffer>,
    filter: Option<&BooleanArray>,
) -> Option<BooleanBuffer> {
    let nulls = nulls.filter(|n| n.null_count() > 0).map(NullBuffer::inner);
    match (nulls, filter.map(super::expr::definite)) {
        (None, None) => None,
        (Some(valid), None) => Some(valid.clone()),
        (None, Some(pass)) => Some(pass),
        (Some(valid), Some(pass)) => Some(valid & &pass),
    }
}

/// Which of the groups have a value, as validity.
pub(super) fn validity(seen: Vec<bool>) -> Option<NullBuffer> {
    if seen.iter().all(|s| *s) {
        None
    } else {
        Some(NullBuffer::from(seen))
    }
}

/// The single argument or state column.
pub(super) fn only(values: &[ArrayRef]) -> Result<&ArrayRef> {
    values
        .first()
        .ok_or_else(|| raise(internal("an aggregate without input")))
}

/// Keeps DataFusion's own error type at its interface.
pub(super) fn raised<T>(result: std::result::Result<T, WireError>) -> Result<T> {
    result.map_err(raise)
}

#[cfg(test)]
mod tests {
    use super::super::error::wire;
    use super::*;
    use arrow::array::Int64Array;
    use pg_lake_plan::ir::{Expr, ExprKind};
    use pg_lake_plan::message::ErrorCode;
    use pg_lake_plan::types::SqlType;

    #[test]
    fn a_sum_beyond_bigint_is_an_error() {
        let sql = |lake| SqlType {
            lake,
            oid: 0,
            typmod: -1,
            collation: 0,
        };
        let aggregate = LakeAggregate::new(&Aggregate {
            function: AggregateFunction::Sum,
            arg: Some(Expr {
                ty: sql(LakeType::Int8),
                kind: ExprKind::Column(0),
            }),
            filter: None,
            distinct: false,
            ty: sql(LakeType::Int8),
            order: vec![],
        });
        let mut states = aggregate.states().expect("states");
        let values: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1]));
        states
            .update_batch(&[values], &[0, 0], None, 1)
            .expect("update");
        let error = wire(&states.evaluate(EmitTo::All).expect_err("too large"));
        assert_eq!(error.code, ErrorCode::OutOfRange);
    }
}
