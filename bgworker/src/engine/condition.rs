//! The filter of a join, over those columns of both sides that it reads.
//!
//! A join without a row to return looks at pairs until it has found one: the filter notices a cancellation.

use super::describe::describe;
use super::error::{cancelled, internal, raise};
use super::expr::{Frame, Node, columnar};
use super::join_input::Side;
use arrow::array::new_empty_array;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion_common::{JoinSide, Result as DfResult};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use pg_lake_plan::ir::Expr;
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::Value;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// An operand whose batches hold only the columns that it reads.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    node: Arc<Node>,
    text: Arc<str>,
    cancel: CancellationToken,
}

impl Condition {
    /// `filter` is over the columns of `left`, followed by those of `right`.
    pub(super) fn new(
        filter: &Expr,
        params: &[Option<Value>],
        left: &Schema,
        right: &Schema,
        cancel: CancellationToken,
    ) -> Result<Self, WireError> {
        let both: Vec<FieldRef> = left
            .fields()
            .iter()
            .chain(right.fields())
            .cloned()
            .collect();
        let node = Node::all(Node::quals(filter, params)?);
        let node = node.ok_or_else(|| internal("a join's filter is empty"))?;
        Ok(Condition {
            node: Arc::new(node),
            text: describe(filter, &Schema::new(both)).into(),
            cancel,
        })
    }

    /// The columns that it reads, ascending.
    pub(super) fn reads(&self) -> &[usize] {
        &self.node.columns
    }

    /// For a join of two sides, of which the left one has `width` columns in the plan.
    pub(super) fn filter(
        self,
        left: (&Side, JoinSide),
        right: (&Side, JoinSide),
        width: usize,
    ) -> Result<JoinFilter, WireError> {
        let (mut indices, mut fields) = (vec![], vec![]);
        for &number in self.reads() {
            let ((side, which), own) = match number.checked_sub(width) {
                None => (left, number),
                Some(own) => (right, own),
            };
            let index = side.columns.get(own).copied().flatten();
            let schema = side.operator.schema();
            let field = index.and_then(|index| schema.fields().get(index));
            let (Some(index), Some(field)) = (index, field) else {
                return Err(internal("a column is missing"));
            };
            indices.push(ColumnIndex { index, side: which });
            fields.push(field.clone());
        }
        let schema = Arc::new(Schema::new(fields));
        Ok(JoinFilter::new(Arc::new(self), indices, schema))
    }
}

// As with `PgExpr`: never the same to DataFusion.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for Condition {}

impl Hash for Condition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.node).hash(state);
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PhysicalExpr for Condition {
    fn return_field(&self, _input: &Schema) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new(
            self.text.as_ref(),
            DataType::Boolean,
            true,
        )))
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        if self.cancel.is_cancelled() {
            return Err(raise(cancelled()));
        }
        // What is the same for all pairs may raise an error, too.
        if batch.num_rows() == 0 {
            return Ok(ColumnarValue::Array(new_empty_array(&DataType::Boolean)));
        }
        let frame = Frame::scattered(batch, self.reads());
        columnar(self.node.eval(&frame))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![]
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DfResult<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
