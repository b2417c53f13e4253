//! An input of an operator whose rows are handed to it once they are there, a stream for each partition.

use super::error::{internal, raise};
use super::lower::Operator;
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::{EquivalenceProperties, Partitioning};
use datafusion_physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion_physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) struct Handed {
    /// Each is taken once.
    streams: Vec<Mutex<Option<SendableRecordBatchStream>>>,
    properties: Arc<PlanProperties>,
}

impl Handed {
    pub(super) fn new(schema: SchemaRef, partitions: usize) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Handed {
            streams: (0..partitions).map(|_| Mutex::new(None)).collect(),
            properties: Arc::new(properties),
        }
    }

    /// Before the partition is executed.
    pub(super) fn hand(&self, partition: usize, rows: SendableRecordBatchStream) {
        if let Some(stream) = self.streams.get(partition) {
            *locked(stream) = Some(rows);
        }
    }
}

/// What a mutex has, also after a panic of another thread: that ends the query.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed")
            .field("partitions", &self.streams.len())
            .finish_non_exhaustive()
    }
}

impl DisplayAs for Handed {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handed")
    }
}

impl ExecutionPlan for Handed {
    fn name(&self) -> &str {
        "Handed"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Operator>) -> Result<Operator> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let stream = self.streams.get(partition);
        stream
            .and_then(|stream| locked(stream).take())
            .ok_or_else(|| raise(internal("no rows were handed on")))
    }
}
