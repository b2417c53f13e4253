//! A hash join whose kept side may be larger than the memory.
//!
//! The kept side is collected. If it fits, there is one table of it, as DataFusion makes it. If memory runs out, both
//! sides are written to files, in parts by a hash of the keys, and the parts of one side are joined with those of the
//! other, pair by pair. A kept part that is too large still is divided again. Then, of rows that have the same key
//! mostly, as many are joined at a time as fit, if the kind of join allows that; otherwise it is an error.
//!
//! Nothing is promised about the order of rows.

use super::error::{internal, raise};
use super::handed::locked;
use super::join_pairs::{Pairs, Spilling, Work, chained};
use super::join_table::{HashJoin, Kept, Table};
use super::lower::Operator;
use super::streams::{Batches, stream_of};
use super::told::KeyFilter;
use arrow::record_batch::RecordBatch;
use datafusion_common::{DataFusionError, Result};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::Partitioning;
use datafusion_physical_plan::joins::{HashJoinExec, HashJoinExecBuilder, PartitionMode};
use datafusion_physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet, SpillMetrics};
use datafusion_physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, Shared};
use std::fmt;
use std::sync::{Arc, Mutex};

#[derive(Debug)]
pub(super) struct JoinExec {
    join: Arc<HashJoin>,
    /// One if the kept side is collected as a whole, otherwise one for each partition.
    groups: Vec<Group>,
    /// What scans below the passing side are told.
    filters: Arc<[KeyFilter]>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl JoinExec {
    /// `join` is DataFusion's operator for this; the keys' places are those in its inputs.
    pub(super) fn new(join: HashJoinExec, kept_keys: Vec<usize>, passing_keys: Vec<usize>) -> Self {
        let passing = join.right();
        let partitions = passing.output_partitioning().partition_count();
        let collects = *join.partition_mode() == PartitionMode::CollectLeft;
        let group = |first, streams| Group::new(passing.clone(), first, streams);
        let (groups, partitioning) = if collects {
            // Pairs go to whichever partition is free.
            let partitioning = Partitioning::UnknownPartitioning(partitions);
            (vec![group(0, partitions)], partitioning)
        } else {
            let groups = (0..partitions).map(|partition| group(partition, 1));
            (groups.collect(), join.properties().partitioning.clone())
        };
        let own = join.properties();
        let mut known = own.eq_properties.clone();
        known.clear_orderings();
        let properties =
            PlanProperties::new(known, partitioning, own.emission_type, own.boundedness);
        JoinExec {
            groups,
            filters: Arc::default(),
            properties: Arc::new(properties),
            join: Arc::new(HashJoin::new(join, kept_keys, passing_keys)),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    pub(super) fn telling(self, filters: impl Into<Arc<[KeyFilter]>>) -> Self {
        let filters = filters.into();
        JoinExec { filters, ..self }
    }

    /// The group of a partition, its number, and the partition's place in it.
    fn group(&self, partition: usize) -> Result<(&Group, usize, usize)> {
        let (number, place) = match self.groups.as_slice() {
            [_] => (0, partition),
            _ => (partition, 0),
        };
        match self.groups.get(number) {
            Some(group) => Ok((group, number, place)),
            None => Err(raise(internal("a join has no such partition"))),
        }
    }
}

impl DisplayAs for JoinExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.join.exec.fmt_as(t, f)
    }
}

impl ExecutionPlan for JoinExec {
    fn name(&self) -> &str {
        "JoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.join.exec.left(), self.join.exec.right()]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Operator>) -> Result<Operator> {
        let exec = HashJoinExecBuilder::from(&self.join.exec)
            .with_new_children(children)?
            .build()?;
        let (kept_keys, passing_keys) = (&self.join.kept_keys, &self.join.passing_keys);
        let join = JoinExec::new(exec, kept_keys.clone(), passing_keys.clone());
        Ok(Arc::new(join.telling(self.filters.clone())))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let (group, number, place) = self.group(partition)?;
        let begin = || -> Result<SharedReady> {
            let kept = self.join.exec.left().execute(number, context.clone())?;
            let spilling = Spilling {
                join: self.join.clone(),
                context: context.clone(),
                metrics: SpillMetrics::new(&self.metrics, number),
                at_once: self.properties.output_partitioning().partition_count(),
                first_at_once: self.groups.len(),
            };
            let told = (self.filters.clone(), self.groups.len());
            let ready = prepare(spilling, kept, told, group.passing.clone(), context.clone());
            Ok(ready.map(|ready| ready.map_err(Arc::new)).boxed().shared())
        };
        let joining = Joining {
            ready: group.ready(place, begin)?,
            passing: group.passing.clone(),
            place,
            context: context.clone(),
            current: None,
            begun: false,
            rest: None,
        };
        // What the kept side tells has to be known before scans of the other one begin.
        if self.filters.is_empty() {
            group.passing.begin(place, context)?;
        }
        Ok(stream_of(self.schema(), joining))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut all = self.metrics.clone_inner();
        self.join.add_metrics(&mut all);
        Some(all)
    }
}

/// What the kept side has become.
enum Ready {
    Table(Table),
    Pairs(Pairs),
}

/// Whoever waits for it makes it go on.
type SharedReady =
    Shared<BoxFuture<'static, std::result::Result<Arc<Ready>, Arc<DataFusionError>>>>;

/// The partitions that have one kept side.
struct Group {
    passing: Arc<Passing>,
    begun: Mutex<Begun>,
}

struct Begun {
    ready: Option<SharedReady>,
    /// By place. The last to begin takes `ready` along: it goes with those who use it.
    places: Vec<bool>,
}

impl Group {
    /// Partitions of the passing side from the `first` on.
    fn new(passing: Operator, first: usize, streams: usize) -> Self {
        Group {
            passing: Arc::new(Passing {
                input: passing,
                first,
                streams: Mutex::new((0..streams).map(|_| Side::Idle).collect()),
            }),
            begun: Mutex::new(Begun {
                ready: None,
                places: vec![false; streams],
            }),
        }
    }

    fn ready(
        &self,
        place: usize,
        begin: impl FnOnce() -> Result<SharedReady>,
    ) -> Result<SharedReady> {
        let mut begun = locked(&self.begun);
        match begun.places.get_mut(place) {
            Some(known) if !*known => *known = true,
            _ => return Err(raise(internal("a join was to begin twice"))),
        }
        let ready = match begun.ready.take() {
            Some(ready) => ready,
            None => begin()?,
        };
        if begun.places.contains(&false) {
            begun.ready = Some(ready.clone());
        }
        Ok(ready)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

/// The passing side of a group.
struct Passing {
    input: Operator,
    first: usize,
    streams: Mutex<Vec<Side>>,
}

enum Side {
    Idle,
    Begun(SendableRecordBatchStream),
    Taken,
}

impl Passing {
    /// Begins as soon as the join does: an input may fetch ahead.
    fn begin(&self, place: usize, context: Arc<TaskContext>) -> Result<()> {
        let mut streams = locked(&self.streams);
        if let Some(side) = streams.get_mut(place)
            && matches!(side, Side::Idle)
        {
            *side = Side::Begun(self.input.execute(self.first + place, context)?);
        }
        Ok(())
    }

    /// `None` if it was taken before.
    fn take(
        &self,
        place: usize,
        context: &Arc<TaskContext>,
    ) -> Result<Option<SendableRecordBatchStream>> {
        let mut streams = locked(&self.streams);
        let Some(side) = streams.get_mut(place) else {
            return Ok(None);
        };
        Ok(match std::mem::replace(side, Side::Taken) {
            Side::Idle => Some(self.input.execute(self.first + place, context.clone())?),
            Side::Begun(stream) => Some(stream),
            Side::Taken => None,
        })
    }

    fn take_all(&self, context: &Arc<TaskContext>) -> Result<Vec<SendableRecordBatchStream>> {
        let count = locked(&self.streams).len();
        let mut all = Vec::with_capacity(count);
        for place in 0..count {
            all.extend(self.take(place, context)?);
        }
        Ok(all)
    }
}

async fn prepare(
    spilling: Spilling,
    mut kept: SendableRecordBatchStream,
    (filters, parts): (Arc<[KeyFilter]>, usize),
    passing: Arc<Passing>,
    context: Arc<TaskContext>,
) -> Result<Arc<Ready>> {
    let mut rows = Kept::new(&context, 0);
    let ready = match rows.fill(&mut kept).await? {
        None => {
            let join = &spilling.join;
            for filter in filters.iter() {
                rows.tell(filter, join, parts, &context);
            }
            let streams = locked(&passing.streams).len();
            Ready::Table(rows.build(join, streams, join.exec.null_aware, &context)?)
        }
        Some(overflow) => {
            let rest = chained(Some(overflow), kept);
            let passing = || passing.take_all(&context);
            Ready::Pairs(Pairs::new(spilling, rows, rest, passing).await?)
        }
    };
    Ok(Arc::new(ready))
}

/// One partition.
struct Joining {
    ready: SharedReady,
    passing: Arc<Passing>,
    place: usize,
    context: Arc<TaskContext>,
    current: Option<SendableRecordBatchStream>,
    /// The table has been asked.
    begun: bool,
    /// What is left of a pair whose kept rows don't fit.
    rest: Option<Work>,
}

impl Batches for Joining {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(batch) = current.next().await.transpose()? {
                    return Ok(Some(batch));
                }
                self.current = None;
            }
            match self.following().await? {
                Some(rows) => self.current = Some(rows),
                None => return Ok(None),
            }
        }
    }
}

impl Joining {
    /// The next rows that are joined.
    async fn following(&mut self) -> Result<Option<SendableRecordBatchStream>> {
        let ready = self.ready.clone().await.map_err(DataFusionError::Shared)?;
        match ready.as_ref() {
            Ready::Table(_) if self.begun => Ok(None),
            Ready::Table(table) => {
                self.begun = true;
                let rows = self.passing.take(self.place, &self.context)?;
                let rows = rows.ok_or_else(|| raise(internal("rows of a join are missing")))?;
                table.look_up(self.place, rows).map(Some)
            }
            Ready::Pairs(pairs) => pairs.next(&mut self.rest).await,
        }
    }
}
