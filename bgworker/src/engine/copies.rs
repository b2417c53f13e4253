//! Rows as functions over ordered values need them sorted: a copy for each grouping set and each order.

use super::error::{from_arrow, wire};
use super::lower::check;
use super::steps::{Pass, Passed, Step};
use super::streams::evaluate;
use arrow::array::{ArrayRef, Int32Array, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::Result as DfResult;
use datafusion_execution::TaskContext;
use datafusion_physical_expr::PhysicalExpr;
use pg_lake_plan::message::WireError;
use std::fmt;
use std::sync::Arc;

/// Where the columns of the copies are: the set's number if there are sets, the groups, the order's number if there are
/// several, and what each order needs, which is null in the copies for the others.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) numbered: bool,
    pub(super) groups: usize,
    /// For each order the number of its columns.
    pub(super) orders: Vec<usize>,
}

impl Layout {
    /// Before what the orders need.
    fn first(&self) -> usize {
        self.keys() + usize::from(self.orders.len() > 1)
    }

    /// The columns that make a group: the first ones.
    pub(super) fn keys(&self) -> usize {
        usize::from(self.numbered) + self.groups
    }

    /// The column with the order's number.
    pub(super) fn order(&self) -> Option<usize> {
        (self.orders.len() > 1).then_some(self.keys())
    }

    /// A column that an order needs.
    pub(super) fn place(&self, order: usize, column: usize) -> usize {
        let before: usize = self.orders.iter().take(order).sum();
        self.first() + before + column
    }
}

/// Makes the copies.
#[derive(Debug)]
pub(super) struct Copies {
    /// For each grouping set, which of the groups it has.
    sets: Vec<Vec<bool>>,
    groups: Vec<Arc<dyn PhysicalExpr>>,
    /// What each order needs.
    orders: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    layout: Layout,
    schema: SchemaRef,
}

impl Copies {
    /// Of rows of the schema `input`. Without grouping sets there is one that has all groups.
    pub(super) fn new(
        input: &Schema,
        layout: Layout,
        sets: Vec<Vec<bool>>,
        groups: Vec<Arc<dyn PhysicalExpr>>,
        orders: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    ) -> Result<Self, WireError> {
        let mut fields = vec![];
        if layout.numbered {
            fields.push(Field::new("set", DataType::Int32, false));
        }
        for (i, group) in groups.iter().enumerate() {
            let ty = check(group.data_type(input))?;
            fields.push(Field::new(format!("g{i}"), ty, true));
        }
        if layout.order().is_some() {
            fields.push(Field::new("order", DataType::Int32, false));
        }
        for (i, expr) in orders.iter().flatten().enumerate() {
            let ty = check(expr.data_type(input))?;
            fields.push(Field::new(format!("v{i}"), ty, true));
        }
        Ok(Copies {
            sets,
            groups,
            orders,
            layout,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    fn count(&self) -> usize {
        self.sets.len() * self.orders.len()
    }

    /// One of the copies of rows whose groups, and whose columns for each order, are these.
    fn copy(
        &self,
        number: usize,
        rows: usize,
        groups: &[ArrayRef],
        orders: &[Vec<ArrayRef>],
    ) -> Result<RecordBatch, WireError> {
        let (set, order) = (number / orders.len().max(1), number % orders.len().max(1));
        // There are at most as many sets, and orders, as Postgres has places in a list.
        let numbers = |number: usize| -> ArrayRef {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            Arc::new(Int32Array::from_value(number, rows))
        };
        let only = |array: &ArrayRef, wanted: bool| match wanted {
            true => array.clone(),
            false => new_null_array(array.data_type(), rows),
        };
        let mut columns = vec![];
        if self.layout.numbered {
            columns.push(numbers(set));
        }
        for (group, has) in groups.iter().zip(self.sets.get(set).into_iter().flatten()) {
            columns.push(only(group, *has));
        }
        if self.layout.order().is_some() {
            columns.push(numbers(order));
        }
        for (at, arrays) in orders.iter().enumerate() {
            columns.extend(arrays.iter().map(|array| only(array, at == order)));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|e| from_arrow(&e))
    }
}

impl Step for Copies {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sets, orders) = (self.sets.len(), self.orders.len());
        write!(f, "Copies: sets={sets}, orders={orders}")
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn start(self: Arc<Self>, _context: &TaskContext) -> DfResult<Box<dyn Pass>> {
        Ok(Box::new(Copying(self)))
    }
}

struct Copying(Arc<Copies>);

impl Pass for Copying {
    fn pass(&mut self, batch: RecordBatch) -> Result<Passed, WireError> {
        let evaluated =
            |exprs: &[Arc<dyn PhysicalExpr>]| evaluate(exprs, &batch).map_err(|error| wire(&error));
        let groups = evaluated(&self.0.groups)?;
        let mut orders = vec![];
        for exprs in &self.0.orders {
            orders.push(evaluated(exprs)?);
        }
        let (copies, rows) = (self.0.clone(), batch.num_rows());
        let numbers = 0..copies.count();
        let several = numbers.map(move |number| copies.copy(number, rows, &groups, &orders));
        Ok(Passed::Several(Box::new(several)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int32Type;
    use datafusion_physical_expr::expressions::Column;

    #[test]
    fn each_set_and_order_has_a_copy() {
        let input = Schema::new(vec![
            Field::new("a", DataType::Int32, true),
            Field::new("b", DataType::Int32, true),
        ]);
        let ints = |values: [i32; 2]| -> ArrayRef { Arc::new(Int32Array::from(values.to_vec())) };
        let batch = RecordBatch::try_new(Arc::new(input.clone()), vec![ints([1, 2]), ints([3, 4])]);
        let column = |name: &str, at| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(name, at)) };
        let (a, b) = (column("a", 0), column("b", 1));
        let layout = Layout {
            numbered: true,
            groups: 1,
            orders: vec![1, 2],
        };
        assert_eq!(layout.place(1, 1), 5);
        let sets = vec![vec![true], vec![false]];
        let orders = vec![vec![a.clone()], vec![b.clone(), a.clone()]];
        let copies = Copies::new(&input, layout, sets, vec![b], orders).expect("copies");
        let passed = Copying(Arc::new(copies)).pass(batch.expect("a batch"));
        let Ok(Passed::Several(several)) = passed else {
            panic!("no copies");
        };
        let batches: Vec<RecordBatch> = several.map(|batch| batch.expect("a copy")).collect();
        assert_eq!(batches.len(), 4);
        let first = |batch: &RecordBatch, at: usize| {
            let column = batch.column(at).as_primitive::<Int32Type>();
            column.is_valid(0).then(|| column.value(0))
        };
        let rows: Vec<Vec<Option<i32>>> = (batches.iter())
            .map(|batch| (0..6).map(|at| first(batch, at)).collect())
            .collect();
        let expected = [
            [Some(0), Some(3), Some(0), Some(1), None, None],
            [Some(0), Some(3), Some(1), None, Some(3), Some(1)],
            [Some(1), None, Some(0), Some(1), None, None],
            [Some(1), None, Some(1), None, Some(3), Some(1)],
        ];
        assert_eq!(rows, expected);
    }
}
