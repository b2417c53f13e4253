//! Aggregations with functions over the ordered values of a group: percentiles, `mode` and `array_agg`.
//!
//! As in Postgres, rows are sorted by their groups, and then by what the values are ordered by. The sort spills, and the
//! functions see a group's values one after the other. Functions of another order get copies of the rows, and so do the
//! other grouping sets.

use super::aggregate::LakeAggregate;
use super::copies::{Copies, Layout};
use super::error::internal;
use super::group::{ends_late, is_distinct};
use super::lower::{Lowering, Operator, column};
use super::ordered_exec::{Call, OrderedAggregateExec, Program};
use super::steps::StepExec;
use crate::arrow_types::arrow_type;
use arrow::compute::SortOptions;
use datafusion_physical_expr::{LexOrdering, PhysicalSortExpr};
use pg_lake_plan::ir::{Aggregate, Expr, SortKey};
use pg_lake_plan::message::WireError;
use std::sync::Arc;

/// One order of values, and what its functions need.
struct Order<'a> {
    keys: &'a [SortKey],
    columns: Vec<Column<'a>>,
    /// Columns to sort by.
    sort: Vec<(usize, SortOptions)>,
}

#[derive(Clone, Copy, PartialEq)]
struct Column<'a> {
    expr: &'a Expr,
    /// Equal floats are bitwise equal.
    canonical: bool,
}

impl<'a> Column<'a> {
    fn canonical(expr: &'a Expr) -> Self {
        Column {
            expr,
            canonical: expr.ty.lake.is_float(),
        }
    }
}

impl<'a> Order<'a> {
    fn new(keys: &'a [SortKey]) -> Self {
        let mut order = Order {
            keys,
            columns: vec![],
            sort: vec![],
        };
        for key in keys {
            let options = SortOptions {
                descending: key.descending,
                nulls_first: key.nulls_first,
            };
            let place = order.place(Column::canonical(&key.expr));
            order.sort.push((place, options));
        }
        order
    }

    /// Where a column is, which is added if it is missing.
    fn place(&mut self, column: Column<'a>) -> usize {
        let known = self.columns.iter().position(|known| *known == column);
        known.unwrap_or_else(|| {
            self.columns.push(column);
            self.columns.len() - 1
        })
    }
}

/// The orders of some aggregates. What depends on none goes with the first one.
fn orders(aggregates: &[Aggregate]) -> Vec<Order<'_>> {
    let mut orders: Vec<Order<'_>> = vec![];
    for aggregate in aggregates.iter().filter(|a| a.function.is_ordered()) {
        if orders.iter().all(|order| order.keys != aggregate.order) {
            orders.push(Order::new(&aggregate.order));
        }
    }
    orders
}

/// Where what an aggregate needs is among the columns of its order.
struct Places {
    order: usize,
    arg: Option<usize>,
    key: Option<usize>,
    filter: Option<usize>,
}

impl Places {
    fn of<'a>(aggregate: &'a Aggregate, orders: &mut [Order<'a>]) -> Option<Places> {
        let ordered = aggregate.function.is_ordered();
        let number = match ordered {
            true => orders
                .iter()
                .position(|order| order.keys == aggregate.order)?,
            false => 0,
        };
        let order = orders.get_mut(number)?;
        let column = |expr: &'a Expr| match is_distinct(aggregate) {
            true => Column::canonical(expr),
            false => Column {
                expr,
                canonical: false,
            },
        };
        Some(Places {
            order: number,
            arg: aggregate.arg.as_ref().map(|arg| order.place(column(arg))),
            key: (order.sort.first().filter(|_| ordered)).map(|(place, _)| *place),
            filter: (aggregate.filter.as_ref()).map(|filter| {
                order.place(Column {
                    expr: filter,
                    canonical: false,
                })
            }),
        })
    }
}

impl Lowering {
    /// Some of the functions are over ordered values.
    pub(super) fn aggregate_ordered(
        &self,
        input: Operator,
        groups: &[Expr],
        aggregates: &[Aggregate],
        sets: &[Vec<u32>],
    ) -> Result<Operator, WireError> {
        let schema = input.schema();
        let mut orders = orders(aggregates);
        let mut places = vec![];
        for aggregate in aggregates {
            let of = Places::of(aggregate, &mut orders);
            places.push(of.ok_or_else(|| internal("an aggregate without its order"))?);
        }
        let layout = Layout {
            numbered: !sets.is_empty(),
            groups: groups.len(),
            orders: orders.iter().map(|order| order.columns.len()).collect(),
        };
        let mut exprs = vec![];
        for order in &orders {
            let mut columns = vec![];
            for column in &order.columns {
                columns.push(match column.canonical {
                    true => self.key(column.expr, &schema)?,
                    false => self.operand(column.expr, &schema)?,
                });
            }
            exprs.push(columns);
        }
        let mut keys = vec![];
        for group in groups {
            keys.push(self.key(group, &schema)?);
        }
        let copies = Copies::new(
            &schema,
            layout.clone(),
            sets_of(sets, groups.len()),
            keys,
            exprs,
        )?;
        let copies: Operator = Arc::new(StepExec::new(input, Arc::new(copies)));
        let ordering = ordering(&layout, &orders, &copies)?;
        let sorted = self.sort_by(copies, ordering, None)?;
        let calls = aggregates.iter().zip(&places);
        let calls = calls.map(|(aggregate, places)| call(aggregate, places, &layout));
        let program = Program {
            calls: calls.collect(),
            empty_sets: (0..)
                .zip(sets)
                .filter_map(|(number, set)| set.is_empty().then_some(number))
                .collect(),
            ends_late: aggregates.iter().any(ends_late),
            cancel: self.cancel.clone(),
            layout,
        };
        Ok(Arc::new(OrderedAggregateExec::new(
            sorted,
            Arc::new(program),
        )))
    }
}

/// For each set, which of the groups it has.
fn sets_of(sets: &[Vec<u32>], groups: usize) -> Vec<Vec<bool>> {
    if sets.is_empty() {
        return vec![vec![true; groups]];
    }
    let has = |set: &Vec<u32>| {
        let groups = (0u32..).take(groups);
        groups.map(|group| set.contains(&group)).collect()
    };
    sets.iter().map(has).collect()
}

/// By sets, groups and orders, and then as each order says.
fn ordering(
    layout: &Layout,
    orders: &[Order<'_>],
    copies: &Operator,
) -> Result<LexOrdering, WireError> {
    let schema = copies.schema();
    let mut by = vec![];
    for at in (0..layout.keys()).chain(layout.order()) {
        let key = column(&schema, at)?;
        by.push(PhysicalSortExpr::new(key, SortOptions::default()));
    }
    for (number, order) in orders.iter().enumerate() {
        for (place, options) in &order.sort {
            let key = column(&schema, layout.place(number, *place))?;
            by.push(PhysicalSortExpr::new(key, *options));
        }
    }
    LexOrdering::new(by).ok_or_else(|| internal("ordered values without an order"))
}

fn call(aggregate: &Aggregate, places: &Places, layout: &Layout) -> Call {
    let place = |column: Option<usize>| column.map(|at| layout.place(places.order, at));
    Call {
        function: aggregate.function,
        plain: LakeAggregate::new(aggregate),
        result: arrow_type(&aggregate.ty.lake),
        order: places.order,
        arg: place(places.arg),
        key: place(places.key),
        filter: place(places.filter),
    }
}
