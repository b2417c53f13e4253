//! What a window operator computes, and how many rows must be there at once for it.

use super::bests::Bests;
use super::chunk::{Chunk, Input};
use super::frames::Frame;
use super::moments::FrameMoments;
use super::ranks::{Numbered, Numbers, Shares, Tiles};
use super::totals::{Counts, ExactSums, FloatSums};
use super::values::{OfFrame, Place, Shifted};
use crate::engine::error::{internal, unsupported};
use crate::engine::moments::{OfPairs, OfValues};
use crate::engine::values::constant;
use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion_physical_expr::PhysicalExpr;
use pg_lake_plan::ir::{AggregateFunction, FrameUnit, WindowFunction};
use pg_lake_plan::message::WireError;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Memory that a function takes for a row, if it has no state in its results.
const ROW_BYTES: usize = 48;

/// A function within one partition of the operator.
pub(super) trait Evaluator: Send {
    /// The results for a chunk, an array for each piece. Chunks come one after another; what they consist of is what
    /// [`Call::span`] asks for.
    fn evaluate(&mut self, chunk: &Chunk) -> Result<Vec<ArrayRef>, WireError>;
}

/// What a chunk doesn't tear apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Span {
    Rows,
    Peers,
    Partition,
}

#[derive(Debug)]
pub(super) struct Program {
    /// Those to partition by, then those that make peers.
    pub(super) keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) partition_keys: usize,
    pub(super) args: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) calls: Vec<Call>,
    pub(super) cancel: CancellationToken,
}

/// One function.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) function: WindowFunction,
    pub(super) frame: Frame,
    /// Numbers of its expressions among the program's arguments.
    pub(super) args: Vec<usize>,
    /// Type of the first of them.
    pub(super) arg_type: DataType,
    /// Of the result.
    pub(super) ty: DataType,
}

impl Program {
    pub(super) fn span(&self) -> Span {
        let spans = self.calls.iter().map(Call::span);
        spans.max().unwrap_or(Span::Rows)
    }

    pub(super) fn evaluators(&self) -> Result<Vec<Box<dyn Evaluator>>, WireError> {
        self.calls.iter().map(Call::evaluator).collect()
    }
}

impl Call {
    /// Memory that is accounted for the result of a row, and for what it is computed from.
    pub(super) fn row_bytes(&self) -> usize {
        let aggregate = match &self.function {
            WindowFunction::Aggregate(aggregate) => Some(aggregate.function),
            _ => None,
        };
        match aggregate {
            Some(AggregateFunction::Moments) => 2 * ROW_BYTES,
            Some(AggregateFunction::PairMoments) => 3 * ROW_BYTES,
            _ => ROW_BYTES,
        }
    }

    fn span(&self) -> Span {
        match &self.function {
            WindowFunction::RowNumber | WindowFunction::Rank | WindowFunction::DenseRank => {
                Span::Rows
            }
            WindowFunction::PercentRank | WindowFunction::CumeDist | WindowFunction::Ntile(_) => {
                Span::Partition
            }
            WindowFunction::Shift { rows, .. } if Shifted::goes_on(*rows) => Span::Rows,
            WindowFunction::Shift { .. } => Span::Partition,
            WindowFunction::FirstValue(_) if self.frame.starts_with_partition() => Span::Rows,
            WindowFunction::Aggregate(_) if self.frame.starts_with_partition() => {
                match self.frame.unit {
                    FrameUnit::Rows => Span::Rows,
                    FrameUnit::Range | FrameUnit::Groups => Span::Peers,
                }
            }
            WindowFunction::Aggregate(_)
            | WindowFunction::FirstValue(_)
            | WindowFunction::LastValue(_)
            | WindowFunction::NthValue(..) => Span::Partition,
        }
    }

    fn evaluator(&self) -> Result<Box<dyn Evaluator>, WireError> {
        Ok(match &self.function {
            WindowFunction::RowNumber => Box::new(Numbers::new(Numbered::Rows)),
            WindowFunction::Rank => Box::new(Numbers::new(Numbered::Ranks)),
            WindowFunction::DenseRank => Box::new(Numbers::new(Numbered::DenseRanks)),
            WindowFunction::PercentRank => Box::new(Shares { cumulative: false }),
            WindowFunction::CumeDist => Box::new(Shares { cumulative: true }),
            WindowFunction::Ntile(buckets) => Box::new(Tiles { buckets: *buckets }),
            WindowFunction::Aggregate(aggregate) => {
                let has_arg = aggregate.arg.is_some();
                let input = Input {
                    arg: has_arg.then(|| self.arg(0)).transpose()?,
                    filter: match aggregate.filter {
                        Some(_) => Some(self.arg(usize::from(has_arg))?),
                        None => None,
                    },
                };
                self.aggregate(aggregate.function, input)?
            }
            WindowFunction::FirstValue(_) => self.of_frame(Place::FromStart(0))?,
            WindowFunction::LastValue(_) => self.of_frame(Place::Last)?,
            WindowFunction::NthValue(_, n) => {
                let n = usize::try_from(*n).unwrap_or(usize::MAX);
                self.of_frame(Place::FromStart(n.saturating_sub(1)))?
            }
            WindowFunction::Shift {
                arg,
                rows,
                otherwise,
            } => {
                let otherwise = constant(&arg.ty.lake, otherwise)?;
                Box::new(Shifted::new(self.arg(0)?, *rows, otherwise))
            }
        })
    }

    fn arg(&self, at: usize) -> Result<usize, WireError> {
        let arg = self.args.get(at).copied();
        arg.ok_or_else(|| internal("a window function without an argument"))
    }

    fn of_frame(&self, place: Place) -> Result<Box<dyn Evaluator>, WireError> {
        let frame = self.frame.clone();
        let evaluator = OfFrame::new(self.arg(0)?, place, frame, &self.arg_type);
        Ok(Box::new(evaluator))
    }

    fn aggregate(
        &self,
        function: AggregateFunction,
        input: Input,
    ) -> Result<Box<dyn Evaluator>, WireError> {
        let frame = self.frame.clone();
        let Some(arg) = input.arg else {
            return Ok(Box::new(Counts::new(input, frame)));
        };
        let filter = input.filter;
        Ok(match function {
            AggregateFunction::Count => Box::new(Counts::new(input, frame)),
            AggregateFunction::Sum if self.arg_type.is_floating() => {
                let single = self.ty == DataType::Float32;
                Box::new(FloatSums::new(arg, filter, frame, single))
            }
            AggregateFunction::Moments => {
                Box::new(FrameMoments::<OfValues>::new(arg, filter, frame, &self.ty))
            }
            AggregateFunction::PairMoments => {
                Box::new(FrameMoments::<OfPairs>::new(arg, filter, frame, &self.ty))
            }
            AggregateFunction::Sum => Box::new(ExactSums::new(arg, filter, frame, self.ty.clone())),
            AggregateFunction::Min | AggregateFunction::Max => {
                if self.arg_type.is_floating() {
                    return Err(unsupported("min or max of floats over a window"));
                }
                let max = function == AggregateFunction::Max;
                Box::new(Bests::new(max, arg, filter, frame, &self.arg_type))
            }
            _ => return Err(unsupported("this aggregate over a window")),
        })
    }
}
