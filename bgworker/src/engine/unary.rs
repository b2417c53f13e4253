//! Operators of ours over one input: what DataFusion asks of each in the same way.

use super::lower::Operator;
use datafusion_common::Result;
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion_physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use std::fmt;
use std::sync::Arc;

/// What such an operator does.
pub(super) trait Unary: fmt::Debug + Send + Sync + Sized + 'static {
    /// The operator's name.
    const NAME: &'static str;

    /// For EXPLAIN.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// What is known of the rows that come out.
    fn properties(&self, input: &Operator) -> PlanProperties;

    /// The same over another input.
    fn over(&self, input: &Operator) -> Self;

    /// The rows of a partition.
    fn execute(
        &self,
        input: &Operator,
        partition: usize,
        context: Arc<TaskContext>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<SendableRecordBatchStream>;
}

#[derive(Debug)]
struct UnaryExec<T> {
    input: Operator,
    does: T,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// The operator.
pub(super) fn operator<T: Unary>(input: Operator, does: T) -> Operator {
    let properties = Arc::new(does.properties(&input));
    Arc::new(UnaryExec {
        input,
        does,
        properties,
        metrics: ExecutionPlanMetricsSet::new(),
    })
}

impl<T: Unary> DisplayAs for UnaryExec<T> {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.does.describe(f)
    }
}

impl<T: Unary> ExecutionPlan for UnaryExec<T> {
    fn name(&self) -> &str {
        T::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Operator> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Operator>) -> Result<Operator> {
        Ok(match children.into_iter().next() {
            Some(input) => {
                let does = self.does.over(&input);
                operator(input, does)
            }
            None => self,
        })
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.does
            .execute(&self.input, partition, context, &self.metrics)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
