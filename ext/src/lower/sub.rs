//! A lowered subtree: a plan of the engine, and how Postgres' outputs come from its columns.

use super::node::{self, Node, get};
use super::{Lowered, refused};
use pg_lake_plan::ir::{Expr, ExprKind, Plan, SortKey};
use pg_lake_plan::types::SqlType;
use pgrx::pg_sys;

/// One column of a subtree's plan.
#[derive(Clone, Debug)]
pub struct Column {
    pub ty: SqlType,
    /// What it is in Postgres' plan, for its type there and for EXPLAIN.
    pub node: Node,
}

/// A subtree in the engine. Postgres' expressions over it see its columns as Vars of `INDEX_VAR`.
#[derive(Debug)]
pub struct Sub {
    pub plan: Plan,
    pub columns: Vec<Column>,
    /// The target list of Postgres' node over the columns, or why an entry can't be had.
    pub outputs: Vec<Lowered<Node>>,
    /// What Postgres' rows are ordered by.
    pub order: Vec<SortKey>,
    /// Whether the plan's rows are, too.
    pub ordered: bool,
    /// Whether Postgres' rows may have an order that isn't known here.
    pub unknown_order: bool,
    /// Quals over the columns that are left to Postgres.
    pub kept: Vec<Node>,
    /// Postgres' estimate of its rows.
    pub rows: f64,
}

impl Sub {
    /// Output `number` (from 1) of Postgres' node.
    pub fn output(&self, number: i16) -> Lowered<Node> {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.outputs.get(number.checked_sub(1)?))
            .cloned()
            .unwrap_or_else(|| refused("a column that the input doesn't return"))
    }

    /// Whether its order goes on in groups of its rows in a way that isn't known: `order` is what is.
    pub fn loses_order(&self, order: &[SortKey], groups: usize) -> bool {
        self.unknown_order || order.len() < self.order.len().min(groups)
    }

    /// Makes the plan's rows come in Postgres' order, of which only so many rows are needed.
    pub fn establish_order(&mut self, fetch: Option<u64>) {
        if self.ordered || self.order.is_empty() {
            return;
        }
        self.wrap(|input, sub| Plan::Sort {
            input,
            keys: sub.order.clone(),
            fetch,
        });
        self.ordered = true;
    }

    /// Puts a node on top of the plan that has the same columns.
    pub fn wrap(&mut self, make: impl FnOnce(Box<Plan>, &Sub) -> Plan) {
        let empty = Plan::Append { inputs: vec![] };
        let input = Box::new(std::mem::replace(&mut self.plan, empty));
        self.plan = make(input, self);
    }

    /// Leaves only the columns that outputs, kept quals and order need, followed by `computed` ones, which outputs already
    /// name by the numbers after those of the columns.
    pub fn project(&mut self, computed: Vec<(Expr, Node)>) {
        let before = self.columns.len();
        let mut used = vec![false; before];
        for output in self.outputs.iter().flatten().chain(&self.kept) {
            for attno in node::attnos(*output, pg_sys::INDEX_VAR) {
                if let Some(used) = used.get_mut(attno as usize - 1) {
                    *used = true;
                }
            }
        }
        for key in &self.order {
            mark_columns(&key.expr, &mut used);
        }
        if computed.is_empty() && used.iter().all(|used| *used) {
            return;
        }
        let mut places = vec![0; before];
        let (mut exprs, mut columns) = (vec![], vec![]);
        for (at, column) in self.columns.iter().enumerate().filter(|(at, _)| used[*at]) {
            places[at] = exprs.len();
            exprs.push(column_expr(at, &column.ty));
            columns.push(column.clone());
        }
        let kept = exprs.len();
        for (expr, node) in computed {
            columns.push(Column {
                ty: expr.ty.clone(),
                node,
            });
            exprs.push(expr);
        }
        let place = |at: usize| {
            places
                .get(at)
                .copied()
                .unwrap_or_else(|| kept + at - before)
        };
        for key in &mut self.order {
            renumber(&mut key.expr, &place);
        }
        let outputs = std::mem::take(&mut self.outputs).into_iter();
        self.outputs = outputs
            .map(|output| output.map(|node| shift_vars(node, place)))
            .collect();
        for qual in &mut self.kept {
            *qual = shift_vars(*qual, place);
        }
        self.columns = columns;
        self.wrap(|input, _| Plan::Project { input, exprs });
    }
}

/// Column `at` as an expression.
pub fn column_expr(at: usize, ty: &SqlType) -> Expr {
    Expr {
        ty: ty.clone(),
        kind: ExprKind::Column(at as u32),
    }
}

/// A copy of an expression whose Vars of `INDEX_VAR` are numbered otherwise (from 0).
pub fn shift_vars(node: Node, place: impl Fn(usize) -> usize) -> Node {
    node::rewrite(node, &mut |node| {
        let var = get::<pg_sys::Var>(node).filter(|var| var.varno == pg_sys::INDEX_VAR)?;
        let at = place(var.varattno as usize - 1);
        Some(node::output_var(pg_sys::INDEX_VAR, at + 1, node))
    })
}

/// Numbers the columns of an expression otherwise.
pub fn renumber(expr: &mut Expr, place: &dyn Fn(usize) -> usize) {
    if let ExprKind::Column(at) = &mut expr.kind {
        *at = place(*at as usize) as u32;
    }
    for child in expr.children_mut() {
        renumber(child, place);
    }
}

/// Notes which columns an expression reads.
pub fn mark_columns(expr: &Expr, used: &mut [bool]) {
    if let ExprKind::Column(at) = expr.kind
        && let Some(used) = used.get_mut(at as usize)
    {
        *used = true;
    }
    for child in expr.children() {
        mark_columns(child, used);
    }
}
