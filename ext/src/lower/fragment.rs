//! Aggregations: `[Limit] [Sort] Agg … SeqScan` as one fragment.
//!
//! The fragment computes the groups and aggregates; Postgres evaluates HAVING and the target list
//! over its rows. `shape` finds the nodes, this module translates them.

use super::aggregates::Aggregates;
use super::custom_scan::{Parts, build};
use super::expr::{Exprs, operator_function};
use super::node::{self, Node, array, get, nodes};
use super::order::{check_group, check_sort};
use super::private::{Mode, ParamUse, Private, RelationUse};
use super::shape::{Cut, Shape};
use super::table::Table;
use super::{Lowered, fragment_of};
use pg_lake_plan::ir::{Expr, ExprKind, Plan, SortKey};
use pg_lake_plan::types::SqlType;
use pgrx::pg_sys;

/// The node that replaces the shape's nodes. `notes` says why its ancestors weren't lowered.
pub fn lower(
    shape: &Shape<'_>,
    relid: pg_sys::Oid,
    notes: &[String],
) -> Lowered<*mut pg_sys::Plan> {
    let rtindex = shape.scan.scan.scanrelid;
    let mut table = Table::open(rtindex, relid);
    let mut params = vec![];
    let mut predicates = vec![];
    for qual in nodes(shape.scan.scan.plan.qual) {
        predicates.push(Exprs::new(&mut table, &mut params).expression(qual)?);
    }
    let aggregation = aggregation(shape, &mut table, &mut params)?;
    let outputs = aggregation.output_types();

    let (scan, attnums) = table.into_scan(predicates);
    let mut plan = Plan::Aggregate {
        input: Box::new(Plan::Scan(scan)),
        groups: aggregation.groups.iter().map(|g| g.expr.clone()).collect(),
        aggregates: aggregation
            .aggregates
            .outputs
            .iter()
            .map(|o| o.aggregate.clone())
            .collect(),
        groups_estimate: shape.agg.numGroups.max(1) as f64,
    };
    let mut targets = aggregation.targetlist;
    let cut = shape.cut()?;
    if let Some(sort) = shape.sort {
        let keys = output_sort_keys(sort, &node::target_exprs(targets), &outputs)?;
        targets = through(sort.plan.targetlist, targets);
        plan = Plan::Sort {
            input: Box::new(plan),
            keys,
            fetch: cut.and_then(Cut::rows),
        };
    } else {
        let keys = group_order(shape, &outputs)?;
        if !keys.is_empty() {
            plan = Plan::Sort {
                input: Box::new(plan),
                keys,
                fetch: None,
            };
        }
    }
    if let (Some(limit), Some(cut)) = (shape.limit, cut) {
        if !aggregation.having.is_null() {
            return Err("a LIMIT above HAVING is not lowered".to_owned());
        }
        targets = through(limit.plan.targetlist, targets);
        plan = Plan::Limit {
            input: Box::new(plan),
            skip: cut.skip,
            fetch: cut.fetch,
        };
    }
    let private = Private {
        mode: Mode::Fragment,
        fragment: fragment_of(plan),
        relations: vec![RelationUse {
            rtindex,
            relid: relid.to_u32(),
        }],
        feed_columns: vec![attnums],
        used: 0,
        params,
        reasons: notes.to_vec(),
        restartable: true,
    };
    let parts = Parts {
        scanrelid: 0,
        targetlist: targets,
        qual: aggregation.having,
        custom_exprs: std::ptr::null_mut(),
        custom_scan_tlist: aggregation.scan_targets,
        absorbed: shape.nodes.clone(),
        keep: true,
    };
    Ok(build(parts, &private))
}

struct Group {
    /// Over the scan.
    expr: Expr,
    /// The same for Postgres.
    node: Node,
}

struct Aggregation {
    groups: Vec<Group>,
    aggregates: Aggregates,
    /// The Agg's own, over the fragment's outputs.
    targetlist: *mut pg_sys::List,
    having: *mut pg_sys::List,
    /// The fragment's outputs.
    scan_targets: *mut pg_sys::List,
}

impl Aggregation {
    fn output_types(&self) -> Vec<SqlType> {
        let groups = self.groups.iter().map(|g| g.expr.ty.clone());
        let aggregates = self.aggregates.outputs.iter();
        groups
            .chain(aggregates.map(|o| o.aggregate.ty.clone()))
            .collect()
    }
}

fn aggregation(
    shape: &Shape<'_>,
    table: &mut Table,
    params: &mut Vec<ParamUse>,
) -> Lowered<Aggregation> {
    let agg = shape.agg;
    let mut groups = vec![];
    // Which of the child's outputs is which group.
    let mut columns = array(agg.grpColIdx, agg.numCols);
    let operators = array(agg.grpOperators, agg.numCols);
    let collations = array(agg.grpCollations, agg.numCols);
    for ((column, operator), collation) in columns.iter().zip(operators).zip(collations) {
        let node = shape.input(*column)?;
        let expr = Exprs::new(table, params).expression(node)?;
        let equality = operator_function(pg_sys::InvalidOid, operator);
        check_group(&expr, Some(equality), collation)?;
        groups.push(Group { expr, node });
    }
    // Columns that depend on the groups by a primary key: grouping by them too changes nothing.
    for column in ungrouped(agg, &columns) {
        let node = shape.input(column)?;
        let expr = Exprs::new(table, params).expression(node)?;
        check_group(&expr, None, node::type_of(node).2)?;
        groups.push(Group { expr, node });
        columns.push(column);
    }

    let mut aggregates = Aggregates::default();
    let mut refused = None;
    let mut rewrite = |list: *mut pg_sys::List| -> *mut pg_sys::List {
        node::rewrite(list.cast(), &mut |node| {
            let replaced = match node::tag(node) {
                pg_sys::NodeTag::T_Aggref => {
                    let call = node::resolve(node, &shape.base);
                    let mut exprs = Exprs::new(table, params);
                    aggregates.lower(&mut exprs, call, groups.len())
                }
                pg_sys::NodeTag::T_Var => group_var(node, &columns, &groups),
                pg_sys::NodeTag::T_GroupingFunc => Err("GROUPING() is not lowered".to_owned()),
                _ => return None,
            };
            Some(replaced.unwrap_or_else(|reason| {
                refused.get_or_insert(reason);
                node::copy(node)
            }))
        })
        .cast()
    };
    let targetlist = rewrite(agg.plan.targetlist);
    let having = rewrite(agg.plan.qual);
    if let Some(reason) = refused {
        return Err(reason);
    }
    // Without columns to group by (all are constant), Postgres' sorted aggregation still returns
    // no row for no input.
    let plain = agg.aggstrategy == pg_sys::AggStrategy::AGG_PLAIN;
    if plain != groups.is_empty() || (plain && aggregates.outputs.is_empty()) {
        return Err("an aggregation without groups or aggregates is not lowered".to_owned());
    }
    let outputs = groups
        .iter()
        .map(|g| node::copy(g.node))
        .chain(aggregates.outputs.iter().map(|o| o.aggref));
    let scan_targets = node::list((1..).zip(outputs).map(|(number, expr): (i16, Node)| {
        // SAFETY: makes a node.
        unsafe { pg_sys::makeTargetEntry(expr.cast(), number, std::ptr::null_mut(), false).cast() }
    }));
    Ok(Aggregation {
        groups,
        aggregates,
        targetlist,
        having,
        scan_targets,
    })
}

/// The child's outputs that are used outside of aggregates without being grouped by.
fn ungrouped(agg: &pg_sys::Agg, grouped: &[i16]) -> Vec<i16> {
    let mut found = vec![];
    for list in [agg.plan.targetlist, agg.plan.qual] {
        node::visit(list.cast(), &mut |node| {
            if let Some(var) = get::<pg_sys::Var>(node) {
                let known = grouped.contains(&var.varattno) || found.contains(&var.varattno);
                if var.varno == pg_sys::OUTER_VAR && !known {
                    found.push(var.varattno);
                }
            }
            node::tag(node) != pg_sys::NodeTag::T_Aggref
        });
    }
    found
}

fn group_var(node: Node, columns: &[i16], groups: &[Group]) -> Lowered<Node> {
    let var = get::<pg_sys::Var>(node).ok_or("a malformed column")?;
    let at = columns
        .iter()
        .position(|column| *column == var.varattno && var.varno == pg_sys::OUTER_VAR)
        .ok_or("a column that is not grouped by")?;
    Ok(node::output_var(pg_sys::INDEX_VAR, at + 1, groups[at].node))
}

/// The target list of a node that passes its child's outputs on, over the fragment's outputs.
fn through(targetlist: *mut pg_sys::List, child: *mut pg_sys::List) -> *mut pg_sys::List {
    let child = node::target_exprs(child);
    node::resolve(targetlist.cast(), &child).cast()
}

/// One key of a Sort.
struct Key {
    column: i16,
    operator: pg_sys::Oid,
    collation: pg_sys::Oid,
    nulls_first: bool,
}

fn keys(sort: &pg_sys::Sort) -> impl Iterator<Item = Key> {
    let operators = array(sort.sortOperators, sort.numCols);
    let collations = array(sort.collations, sort.numCols);
    let nulls_first = array(sort.nullsFirst, sort.numCols);
    array(sort.sortColIdx, sort.numCols)
        .into_iter()
        .zip(operators)
        .zip(collations)
        .zip(nulls_first)
        .map(|(((column, operator), collation), nulls_first)| Key {
            column,
            operator,
            collation,
            nulls_first,
        })
}

impl Key {
    fn lower(&self, output: usize, ty: &SqlType) -> Lowered<SortKey> {
        let function = operator_function(pg_sys::InvalidOid, self.operator);
        let descending = check_sort(ty, function, self.collation)?;
        Ok(SortKey {
            expr: Expr {
                ty: ty.clone(),
                kind: ExprKind::Column(output as u32),
            },
            descending,
            nulls_first: self.nulls_first,
        })
    }
}

/// The keys of a Sort above the aggregation, each of which must be an output as it is.
fn output_sort_keys(
    sort: &pg_sys::Sort,
    targets: &[Node],
    outputs: &[SqlType],
) -> Lowered<Vec<SortKey>> {
    keys(sort)
        .map(|key| {
            let output = usize::try_from(key.column)
                .ok()
                .and_then(|column| targets.get(column.checked_sub(1)?))
                .and_then(|target| get::<pg_sys::Var>(*target))
                .filter(|var| var.varno == pg_sys::INDEX_VAR)
                .map(|var| var.varattno as usize - 1)
                .ok_or("a sort by something else than a group or an aggregate is not lowered")?;
            key.lower(output, &outputs[output])
        })
        .collect()
}

/// The order that a sorted aggregation has in Postgres: a parent may rely on it.
fn group_order(shape: &Shape<'_>, outputs: &[SqlType]) -> Lowered<Vec<SortKey>> {
    let agg = shape.agg;
    if agg.aggstrategy != pg_sys::AggStrategy::AGG_SORTED || shape.order_unused {
        return Ok(vec![]);
    }
    let Some(sort) = shape.input_sort else {
        return Ok(vec![]);
    };
    let columns = array(agg.grpColIdx, agg.numCols);
    let mut order = vec![];
    for key in keys(sort) {
        let Some(group) = columns.iter().position(|c| *c == key.column) else {
            break; // of an ordered aggregate's input
        };
        order.push(key.lower(group, &outputs[group])?);
    }
    Ok(order)
}
