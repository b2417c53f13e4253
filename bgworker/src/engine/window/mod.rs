//! Window functions.
//!
//! The rows are spread by what they are partitioned by and sorted; then one operator computes all functions of a window.
//! It keeps no more rows than a function needs at once: those of a partition, those of a group of peers, or none. Of a
//! partition that is needed as a whole all rows must fit into memory.
//!
//! * `program`: the functions, and what they need; `exec`: the operator
//! * `chunk`: rows that are computed at once; `frames`: which of them are in a row's frame; `range`: by their values;
//!   `resolve`: offsets from constants and parameters
//! * `ranks`, `values`: window functions; `slide`, `totals`, `moments`, `bests`: aggregates over frames
//! * `sources`: values of other rows

mod bests;
mod chunk;
mod exec;
mod frames;
mod moments;
mod program;
mod range;
mod ranks;
mod resolve;
mod slide;
mod sources;
#[cfg(test)]
mod tests;
mod totals;
mod values;

pub(super) use chunk::Cutter;

use super::error::{protocol, unsupported};
use super::exchange::exchange;
use super::lower::{Lowering, Operator, check, single};
use super::validate;
use arrow::datatypes::DataType;
use datafusion_physical_expr::{Distribution, PhysicalExpr};
use datafusion_physical_plan::ExecutionPlanProperties;
use pg_lake_plan::ir::{AggregateFunction, Expr, Window, WindowFunction};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use program::{Call, Program};
use std::sync::Arc;

impl Lowering {
    pub(super) fn window(&mut self, window: &Window) -> Result<Operator, WireError> {
        let input = self.lower(&window.input)?;
        let schema = input.schema();
        let mut keys = vec![];
        for expr in &window.partition_by {
            keys.push(self.key(expr, &schema)?);
        }
        let input = self.brought_together(input, &keys, window)?;
        for expr in &window.peers {
            keys.push(self.key(expr, &schema)?);
        }
        let (mut exprs, mut args): (Vec<&Expr>, Vec<Arc<dyn PhysicalExpr>>) = (vec![], vec![]);
        let mut calls = vec![];
        let measured = match &window.measured {
            Some(key) => {
                exprs.push(&key.expr);
                args.push(self.operand(&key.expr, &schema)?);
                Some(0)
            }
            None => None,
        };
        let frame = self.frame(window, measured)?;
        for function in &window.functions {
            let mut places = vec![];
            for expr in function.exprs() {
                let known = exprs.iter().position(|known| *known == expr);
                let place = known.unwrap_or(exprs.len());
                if known.is_none() {
                    exprs.push(expr);
                    args.push(self.operand(expr, &schema)?);
                }
                places.push(place);
            }
            let arg_type = match places.first().and_then(|place| args.get(*place)) {
                Some(arg) => check(arg.data_type(&schema))?,
                None => DataType::Null,
            };
            calls.push(Call {
                ty: result_type(function, &arg_type),
                function: function.clone(),
                frame: frame.clone(),
                args: places,
                arg_type,
            });
        }
        let program = Program {
            keys,
            partition_keys: window.partition_by.len(),
            args,
            calls,
            cancel: self.cancel.clone(),
        };
        Ok(exec::window(input, program))
    }

    /// The rows with those of a partition after one another, and peers within it.
    fn brought_together(
        &self,
        input: Operator,
        keys: &[Arc<dyn PhysicalExpr>],
        window: &Window,
    ) -> Result<Operator, WireError> {
        if keys.is_empty() {
            return Ok(single(self.sort(input, &window.order_by, None)?));
        }
        let wanted = Distribution::HashPartitioned(keys.to_vec());
        let together = input
            .output_partitioning()
            .satisfaction(&wanted, input.equivalence_properties(), false)
            .is_satisfied();
        let input = match together {
            true => input,
            false => exchange(input, keys.to_vec(), self.threads)?,
        };
        self.sort_each(input, &window.order_by)
    }
}

fn result_type(function: &WindowFunction, arg_type: &DataType) -> DataType {
    match function {
        WindowFunction::FirstValue(_)
        | WindowFunction::LastValue(_)
        | WindowFunction::NthValue(..)
        | WindowFunction::Shift { .. } => arg_type.clone(),
        other => crate::arrow_types::arrow_type(&other.ty()),
    }
}

/// Checks a window over columns of these types.
pub(super) fn check_window(
    window: &Window,
    input: &[LakeType],
    params: usize,
) -> Result<(), WireError> {
    let keys = window.order_by.iter().map(|key| &key.expr);
    for expr in window.partition_by.iter().chain(keys).chain(&window.peers) {
        validate::check(expr, input, params)?;
        validate::check_ordered(&expr.ty.lake)?;
    }
    let apart = !(window.partition_by.is_empty() && window.peers.is_empty());
    if apart && window.order_by.is_empty() {
        return Err(protocol("nothing brings the rows of a window together"));
    }
    resolve::check_frame(window, input, params)?;
    for function in &window.functions {
        for expr in function.exprs() {
            validate::check(expr, input, params)?;
        }
        check_function(function, input, params)?;
    }
    Ok(())
}

fn check_function(
    function: &WindowFunction,
    input: &[LakeType],
    params: usize,
) -> Result<(), WireError> {
    match function {
        WindowFunction::Aggregate(aggregate) => {
            validate::check_aggregate(aggregate, input, params)?;
            let best = matches!(
                aggregate.function,
                AggregateFunction::Min | AggregateFunction::Max
            );
            let of_floats = |arg: &Expr| arg.ty.lake.is_float();
            if best && aggregate.arg.as_ref().is_some_and(of_floats) {
                return Err(unsupported("min or max of floats over a window"));
            }
            let slides = matches!(
                aggregate.function,
                AggregateFunction::Count
                    | AggregateFunction::Sum
                    | AggregateFunction::Moments
                    | AggregateFunction::PairMoments
            );
            if !(slides || best) {
                return Err(unsupported("this aggregate over a window"));
            }
            match aggregate.distinct {
                true => Err(unsupported("DISTINCT in a window function")),
                false => Ok(()),
            }
        }
        WindowFunction::Ntile(0) | WindowFunction::NthValue(_, 0) => {
            Err(protocol("a window function counts from 1"))
        }
        _ => Ok(()),
    }
}
