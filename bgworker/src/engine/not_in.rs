//! `NOT IN (SELECT …)`, as nulls have it.
//!
//! With a null on the right nothing comes out. A null on the left comes out if the right side is empty. If the right
//! side is the one that is kept, it notes on its way into memory what it has, and the left one looks at that before its
//! first row. Otherwise DataFusion's own null-aware join does this. The kept side is collected in both cases: whether there was
//! a null concerns all partitions. `join_pairs` does it again for sides that don't fit.

use super::error::internal;
use super::join::{Pair, hash_join, keys};
use super::join_input::{Wanted, without_nulls};
use super::lower::{Lowering, Operator};
use super::right_side::RightSide;
use super::steps::{Pass, Passed, Step, stepping};
use arrow::array::Array;
use arrow::buffer::NullBuffer;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_common::{JoinType, Result as DfResult};
use datafusion_execution::TaskContext;
use pg_lake_plan::ir::Join;
use pg_lake_plan::message::WireError;
use std::fmt;
use std::sync::Arc;

impl Lowering {
    pub(super) fn not_in(
        &self,
        join: &Join,
        left: Operator,
        right: Operator,
        outputs: &[usize],
    ) -> Result<Operator, WireError> {
        let keeps_left = join.left_rows < join.right_rows;
        let left = self.side(
            left,
            Wanted {
                keys: keys(&join.keys, |key| &key.left),
                columns: outputs.to_vec(),
                not_null: false,
                distinct: false,
                null_side: None,
                kept: keeps_left,
            },
        )?;
        let right = self.side(
            right,
            Wanted {
                keys: keys(&join.keys, |key| &key.right),
                columns: vec![],
                not_null: false,
                distinct: true,
                null_side: None,
                kept: !keeps_left,
            },
        )?;
        let mut pair = Pair {
            left,
            right,
            keeps_left,
        };
        let projection = pair.projection(outputs, false)?;
        if keeps_left {
            return hash_join(
                pair,
                JoinType::LeftAnti,
                None,
                projection,
                None,
                true,
                vec![],
            );
        }
        let (Some(&left_key), Some(&right_key)) = (pair.left.keys.first(), pair.right.keys.first())
        else {
            return Err(internal("a null-aware join without a key"));
        };
        let found = Arc::new(RightSide::default());
        pair.right.operator = noting(pair.right.operator, right_key, &found);
        pair.left.operator = heeding(pair.left.operator, left_key, &found);
        hash_join(
            pair,
            JoinType::RightAnti,
            None,
            projection,
            None,
            false,
            vec![],
        )
    }
}

/// Rows of the right side; those without a key are only noted.
fn noting(input: Operator, key: usize, found: &Arc<RightSide>) -> Operator {
    let step = NotIn {
        key,
        found: found.clone(),
        schema: input.schema(),
        right: true,
    };
    stepping(input, Arc::new(step))
}

/// Those rows of the left side that can come out, for all that is noted.
fn heeding(input: Operator, key: usize, found: &Arc<RightSide>) -> Operator {
    let step = NotIn {
        key,
        found: found.clone(),
        schema: input.schema(),
        right: false,
    };
    stepping(input, Arc::new(step))
}

#[derive(Debug)]
struct NotIn {
    key: usize,
    found: Arc<RightSide>,
    schema: SchemaRef,
    right: bool,
}

impl Step for NotIn {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.right {
            "NotIn: right side"
        } else {
            "NotIn: left side"
        })
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn start(self: Arc<Self>, _context: &TaskContext) -> DfResult<Box<dyn Pass>> {
        Ok(Box::new(Passing { step: self }))
    }
}

/// [`NotIn`] in one partition.
struct Passing {
    step: Arc<NotIn>,
}

impl Pass for Passing {
    fn pass(&mut self, batch: RecordBatch) -> Result<Passed, WireError> {
        let key = batch.columns().get(self.step.key);
        let key = key.ok_or_else(|| internal("a column is missing"))?;
        let nulls = key.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
        if self.step.right {
            self.note(batch, nulls)
        } else {
            self.heed(batch, nulls)
        }
    }
}

impl Passing {
    fn note(&self, batch: RecordBatch, nulls: Option<NullBuffer>) -> Result<Passed, WireError> {
        let found = &self.step.found;
        found.note(batch.num_rows(), nulls.is_some());
        // After a null there is nothing to look up.
        if found.has_nulls() {
            return Ok(Passed::End);
        }
        Ok(Passed::Rows(batch))
    }

    fn heed(&self, batch: RecordBatch, nulls: Option<NullBuffer>) -> Result<Passed, WireError> {
        let found = &self.step.found;
        if found.has_nulls() {
            return Ok(Passed::End);
        }
        if !found.has_rows() {
            return Ok(Passed::Rows(batch));
        }
        Ok(match without_nulls(batch, nulls)? {
            Some(batch) => Passed::Rows(batch),
            None => Passed::Nothing,
        })
    }
}
