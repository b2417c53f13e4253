//! Aggregations with functions over the ordered values of a group: percentiles, `mode` and `array_agg`.
//!
//! As in Postgres, rows are sorted by their groups, and then by what the values are ordered by. The sort spills, and the
//! functions see a group's values one after the other. Functions of another order get copies of the rows, and so do the
//! other grouping sets.

use super::aggregate::LakeAggregate;
use super::copies::{Copies, Layout};
use super::error::internal;
use super::group::is_distinct;
use super::lower::{Lowering, Operator, column, single};
use super::ordered_exec::{Call, Program, ordered_aggregate};
use super::steps::stepping;
use crate::arrow_types::arrow_type;
use arrow::compute::SortOptions;
use datafusion_physical_expr::{LexOrdering, PhysicalSortExpr};
use pg_lake_plan::ir::{Aggregate, Expr, SortKey};
use pg_lake_plan::lateness::ends_late;
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
        if place_of(aggregate, &orders).is_none() {
            orders.retain(|order| !aggregate.order.starts_with(order.keys));
            orders.push(Order::new(&aggregate.order));
        }
    }
    orders
}

/// An order that is the aggregate's, or a finer one: it doesn't matter which of its peers comes first.
fn place_of(aggregate: &Aggregate, orders: &[Order<'_>]) -> Option<usize> {
    orders
        .iter()
        .position(|order| order.keys.starts_with(&aggregate.order))
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
            true => place_of(aggregate, orders)?,
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
        let copies = stepping(input, Arc::new(copies));
        let ordering = ordering(&layout, &orders, &copies)?;
        // One sort: DataFusion's sorts take from each other what their merges need, and then fail.
        let sorted = self.sort_by(single(copies), ordering, None)?;
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
        Ok(ordered_aggregate(sorted, program))
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
        distinct: aggregate.distinct,
        plain: LakeAggregate::new(aggregate),
        result: arrow_type(&aggregate.ty.lake),
        order: places.order,
        arg: place(places.arg),
        key: place(places.key),
        filter: place(places.filter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_lake_plan::ir::{AggregateFunction, ExprKind};
    use pg_lake_plan::types::{LakeType, SqlType};

    fn column(number: u32) -> Expr {
        Expr {
            ty: SqlType {
                lake: LakeType::Int4,
                oid: 0,
                typmod: -1,
                collation: 0,
            },
            kind: ExprKind::Column(number),
        }
    }

    fn list(order: &[(u32, bool)]) -> Aggregate {
        let key = |(number, descending): &(u32, bool)| SortKey {
            expr: column(*number),
            descending: *descending,
            nulls_first: false,
        };
        Aggregate {
            function: AggregateFunction::ArrayAgg,
            arg: Some(column(9)),
            filter: None,
            distinct: false,
            ty: column(9).ty,
            order: order.iter().map(key).collect(),
        }
    }

    #[test]
    fn rows_are_sorted_once_for_orders_that_begin_alike() {
        let aggregates = [
            list(&[(0, false)]),
            list(&[(0, true)]),
            list(&[(0, false), (1, false), (2, false)]),
            list(&[(0, false), (1, false)]),
            list(&[(0, false), (1, true)]),
        ];
        let mut orders = orders(&aggregates);
        let lengths: Vec<usize> = orders.iter().map(|order| order.keys.len()).collect();
        assert_eq!(lengths, [1, 3, 2]);
        let places: Vec<usize> = aggregates
            .iter()
            .map(|aggregate| Places::of(aggregate, &mut orders).expect("an order").order)
            .collect();
        assert_eq!(places, [1, 0, 1, 1, 2]);
    }
}
