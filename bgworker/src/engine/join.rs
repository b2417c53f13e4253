//! Joins as operators.
//!
//! DataFusion's joins keep their left input in memory and let the right one pass by. The side that Postgres expects to be
//! smaller is made the left one, whatever the kind of join: that is mirrored, and the columns come out in the plan's
//! order. A small one is collected once, and all partitions of the other side use it; rows without a partner on the
//! collected side come from the partition that is the last to end. A large one is spread, with the other side, by the keys.
//! What doesn't fit into memory spills (`join_exec`). Without a key to look rows up by it has to fit.

use super::condition::Condition;
use super::dense::dense;
use super::error::internal;
use super::exchange::exchange;
use super::join_exec::JoinExec;
use super::join_input::{Key, Side, Wanted};
use super::lower::{Lowering, Operator, check, single};
use super::told::KeyFilter;
use datafusion_common::{JoinSide, JoinType, NullEquality};
use datafusion_physical_plan::coop::CooperativeExec;
use datafusion_physical_plan::joins::utils::JoinFilter;
use datafusion_physical_plan::joins::{
    HashJoinExecBuilder, NestedLoopJoinExecBuilder, PartitionMode,
};
use datafusion_physical_plan::limit::GlobalLimitExec;
use pg_lake_plan::ir::{Expr, Join, JoinKey, JoinKind};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::LakeType;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A kept side of that many rows is spread over partitions. An exchange has one task for the rows of a whole side, the
/// one that passes by too: few threads gain less by building their parts together than they lose by waiting for it.
const LARGE: f64 = 150_000.0;
const LARGE_FOR_FEW_THREADS: f64 = 2_000_000.0;
const FEW_THREADS: usize = 4;

/// Numbers for rows with a null key, by the side of a full join that they are on.
const NULL_LEFT: u8 = 1;
const NULL_RIGHT: u8 = 2;

impl Lowering {
    /// `outputs`: the columns that come out. `None`: all.
    pub(super) fn join(
        &mut self,
        join: &Join,
        outputs: Option<Vec<usize>>,
    ) -> Result<Operator, WireError> {
        let filters = self.key_filters(join);
        let left = self.lower(&join.left)?;
        let right = self.lower(&join.right)?;
        let outputs = outputs.unwrap_or_else(|| {
            let mut width = left.schema().fields().len();
            if gives_both(join.kind) {
                width += right.schema().fields().len();
            }
            if join.kind.is_mark() {
                width += 1;
            }
            (0..width).collect()
        });
        match join.kind {
            JoinKind::NullAwareAnti => self.not_in(join, left, right, &outputs),
            JoinKind::Mark | JoinKind::NullAwareMark => self.mark(join, left, right, &outputs),
            _ => self.partners(join, left, right, &outputs, filters),
        }
    }

    /// Whether a kept side of that many rows is spread over partitions.
    pub(super) fn spreads(&self, kept_rows: f64) -> bool {
        self.threads > 1 && kept_rows >= large(self.threads)
    }

    /// Every kind that is neither null-aware nor a mark.
    fn partners(
        &self,
        join: &Join,
        left: Operator,
        right: Operator,
        outputs: &[usize],
        filters: Vec<KeyFilter>,
    ) -> Result<Operator, WireError> {
        let width = left.schema().fields().len();
        let condition = match &join.filter {
            None => None,
            Some(filter) => Some(Condition::new(
                filter,
                &self.params,
                &left.schema(),
                &right.schema(),
                self.cancel.clone(),
            )?),
        };
        let full = join.kind == JoinKind::Full;
        let only_left = !gives_both(join.kind);
        let read = condition.iter().flat_map(|condition| condition.reads());
        let needed: BTreeSet<usize> = read.chain(outputs).copied().collect();
        let (left_needed, right_needed) = split(needed, width);
        // Where nothing of the right side is looked at, one row of it says what all do.
        let any = only_left && join.keys.is_empty() && right_needed.is_empty();
        let (right, right_rows): (Operator, f64) = if any {
            let first = GlobalLimitExec::new(single(right), 0, Some(1));
            (Arc::new(first), 1.0)
        } else {
            (right, join.right_rows)
        };
        let keeps_left = join.left_rows < right_rows;
        let kept_rows = join.left_rows.min(right_rows);
        let spread = !join.keys.is_empty() && self.spreads(kept_rows);
        let left = self.side(
            left,
            Wanted {
                keys: keys(&join.keys, |key| &key.left),
                columns: left_needed,
                not_null: matches!(join.kind, JoinKind::Inner | JoinKind::Semi),
                distinct: false,
                null_side: full.then_some(NULL_LEFT),
                kept: keeps_left && !spread,
            },
        )?;
        let right = self.side(
            right,
            Wanted {
                keys: keys(&join.keys, |key| &key.right),
                columns: right_needed,
                not_null: !full,
                distinct: only_left && !any,
                null_side: full.then_some(NULL_RIGHT),
                kept: !keeps_left && !spread,
            },
        )?;
        let pair = Pair {
            left,
            right,
            keeps_left,
        };
        let filter = condition
            .map(|condition| pair.filter(condition, width))
            .transpose()?;
        let kind = pair.join_type(join.kind)?;
        let projection = pair.projection(outputs, !only_left)?;
        if join.keys.is_empty() {
            let (kept, passing) = pair.inputs();
            let exec =
                NestedLoopJoinExecBuilder::new(single(kept.operator), passing.operator, kind)
                    .with_filter(filter)
                    .with_projection(projection)
                    .build();
            return Ok(in_pieces(cooperative(Arc::new(check(exec)?)), kind));
        }
        let spread = spread.then_some(self.threads);
        hash_join(pair, kind, filter, projection, spread, false, filters)
    }
}

/// Whether the columns of both sides come out, not just the left one's.
fn gives_both(kind: JoinKind) -> bool {
    matches!(kind, JoinKind::Inner | JoinKind::Left | JoinKind::Full)
}

/// Columns of both sides to those of each; the left one has `width`.
fn split(columns: BTreeSet<usize>, width: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut left, mut right) = (vec![], vec![]);
    for column in columns {
        match column.checked_sub(width) {
            None => left.push(column),
            Some(own) => right.push(own),
        }
    }
    (left, right)
}

/// From how many rows on a kept side is spread.
fn large(threads: usize) -> f64 {
    if threads <= FEW_THREADS {
        LARGE_FOR_FEW_THREADS
    } else {
        LARGE
    }
}

/// The keys of one side.
pub(super) fn keys<'a>(
    keys: &'a [JoinKey],
    side: impl Fn(&'a JoinKey) -> &'a Expr,
) -> Vec<Key<'a>> {
    let key = |key: &'a JoinKey| Key {
        expr: side(key),
        widened: differ(&key.left.ty.lake, &key.right.ty.lake),
    };
    keys.iter().map(key).collect()
}

/// Whether decimals have different precisions.
fn differ(left: &LakeType, right: &LakeType) -> bool {
    left.is_decimal() && left != right
}

/// Both sides of a join.
pub(super) struct Pair {
    pub(super) left: Side,
    pub(super) right: Side,
    /// The left one stays in memory, otherwise the right one.
    pub(super) keeps_left: bool,
}

impl Pair {
    /// The side that is kept, then the other one.
    fn inputs(self) -> (Side, Side) {
        if self.keeps_left {
            (self.left, self.right)
        } else {
            (self.right, self.left)
        }
    }

    fn filter(&self, condition: Condition, width: usize) -> Result<JoinFilter, WireError> {
        let (left, right) = if self.keeps_left {
            (JoinSide::Left, JoinSide::Right)
        } else {
            (JoinSide::Right, JoinSide::Left)
        };
        condition.filter((&self.left, left), (&self.right, right), width)
    }

    /// The kind of join of the kept side with the other one.
    pub(super) fn join_type(&self, kind: JoinKind) -> Result<JoinType, WireError> {
        let as_written = match kind {
            JoinKind::Inner => JoinType::Inner,
            JoinKind::Left => JoinType::Left,
            JoinKind::Full => JoinType::Full,
            JoinKind::Semi => JoinType::LeftSemi,
            JoinKind::Anti => JoinType::LeftAnti,
            JoinKind::Mark | JoinKind::NullAwareMark => JoinType::LeftMark,
            JoinKind::NullAwareAnti => return Err(internal("a null-aware join")),
        };
        Ok(if self.keeps_left {
            as_written
        } else {
            as_written.swap()
        })
    }

    /// Where the plan's `outputs` are in the join's columns: those of both sides, or of the left one.
    pub(super) fn projection(
        &self,
        outputs: &[usize],
        both: bool,
    ) -> Result<Option<Vec<usize>>, WireError> {
        let (left_from, right_from) = match (both, self.keeps_left) {
            (false, _) => (0, 0),
            (true, true) => (0, self.left.width()),
            (true, false) => (self.right.width(), 0),
        };
        let mut projection = Vec::with_capacity(outputs.len());
        for &output in outputs {
            let (side, own, from) = match output.checked_sub(self.left.columns.len()) {
                None => (&self.left, output, left_from),
                Some(own) => (&self.right, own, right_from),
            };
            let place = side.columns.get(own).copied().flatten();
            projection.push(from + place.ok_or_else(|| internal("a column is missing"))?);
        }
        let mut width = self.left.width();
        if both {
            width += self.right.width();
        }
        let all = projection.iter().copied().eq(0..width);
        Ok((!all).then_some(projection))
    }
}

/// `spread`: into that many partitions by the keys; otherwise the kept side is collected.
pub(super) fn hash_join(
    pair: Pair,
    kind: JoinType,
    filter: Option<JoinFilter>,
    projection: Option<Vec<usize>>,
    spread: Option<usize>,
    null_aware: bool,
    filters: Vec<KeyFilter>,
) -> Result<Operator, WireError> {
    let (kept, passing) = pair.inputs();
    let places = (kept.keys.clone(), passing.keys.clone());
    let (kept_keys, passing_keys) = (kept.key_columns()?, passing.key_columns()?);
    let on = kept_keys.iter().cloned().zip(passing_keys.iter().cloned());
    let on = on.collect();
    let (kept, passing, mode) = match spread {
        None => (
            single(kept.operator),
            passing.operator,
            PartitionMode::CollectLeft,
        ),
        Some(partitions) => (
            exchange(kept.operator, kept_keys, partitions)?,
            exchange(passing.operator, passing_keys, partitions)?,
            PartitionMode::Partitioned,
        ),
    };
    let exec = HashJoinExecBuilder::new(kept, passing, on, kind)
        .with_filter(filter)
        .with_projection(projection)
        .with_partition_mode(mode)
        .with_null_equality(NullEquality::NullEqualsNothing)
        .with_null_aware(null_aware)
        .build();
    let join = JoinExec::new(check(exec)?, places.0, places.1).telling(filters);
    Ok(in_pieces(cooperative(Arc::new(join)), kind))
}

/// Rows that the kept side has for the end come as one batch.
fn in_pieces(join: Operator, kind: JoinType) -> Operator {
    match kind {
        JoinType::Left
        | JoinType::Full
        | JoinType::LeftSemi
        | JoinType::LeftAnti
        | JoinType::LeftMark => dense(join),
        _ => join,
    }
}

/// One row can have so many partners that a task would be busy for long without waiting for anything.
fn cooperative(join: Operator) -> Operator {
    Arc::new(CooperativeExec::new(join))
}
