//! `WITH RECURSIVE`: one term gives the first rows, the other one those of each step from those of the last.
//!
//! Rows come to the next step by a work table, which the engine has to itself: Postgres can't feed what reads it. What else
//! is fed to the steps is computed once for all of them, if it does no harm that there may be none.

use super::expr::{cast, operator_function};
use super::forms::depends_on_forms;
use super::fragment::ENGINE_SPEED;
use super::node::{self, Node, array, get, inputs, nodes, plan_tag, string};
use super::order::{group_key, is_printed};
use super::statement::Statement;
use super::sub::{Column, Sub, column_expr};
use super::table::sql_type;
use super::tree::{Builder, has_datum, over};
use super::{Lowered, consts, refused};
use pg_lake_plan::ir::{Expr, ExprKind, Plan, RecursiveUnion, WorkColumn, WorkTable};
use pg_lake_plan::types::{LakeType, SqlType};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// What a step costs in the engine beside what it computes, in Postgres' units, of which a row costs 0.01 and takes about
/// 100 ns: operators are made anew for some 0.5 to 1 ms.
pub const STEP_COST: f64 = 75.0;

/// How many steps Postgres expects (`cost_recursive_union` in costsize.c).
pub const STEPS: f64 = 10.0;

/// A recursion whose recursive term is being lowered.
#[derive(Debug)]
pub struct Step {
    /// How Postgres' nodes know the work table.
    param: i32,
    columns: Vec<Column>,
    /// The columns as outputs.
    outputs: Vec<Node>,
    names: Vec<String>,
}

impl Builder<'_> {
    /// All columns are computed, whatever the parent uses of them: steps may use others.
    pub(super) fn recursive_union(&mut self, plan: *mut pg_sys::Plan) -> Lowered<Sub> {
        let union = get::<pg_sys::RecursiveUnion>(plan.cast()).ok_or("a malformed recursion")?;
        self.is_worth_lowering(union)?;
        let targets = node::target_exprs(union.plan.targetlist);
        let numbers: Vec<i16> = (1..).zip(&targets).map(|(number, _)| number).collect();
        let beginning = self.input(union.plan.lefttree, &numbers)?;
        let (exprs, own) = self.columns_of(&beginning, &numbers)?;
        let mut columns = vec![];
        for (column, target) in own.into_iter().zip(&targets) {
            columns.push(Column {
                ty: declared(&column.ty, *target)?,
                node: column.node,
            });
        }
        check_distinct(union, &columns)?;
        let non_recursive = projected(beginning.plan, exprs, &columns)?;
        let outputs: Vec<Node> = (1..)
            .zip(&targets)
            .map(|(at, target)| node::output_var(pg_sys::INDEX_VAR, at, *target))
            .collect();
        self.step = Some(Step {
            param: union.wtParam,
            columns: columns.clone(),
            outputs: outputs.clone(),
            names: names(union),
        });
        let recursive = self.recursive_term(union.plan.righttree, &numbers, &columns);
        self.step = None;
        let union = RecursiveUnion {
            non_recursive: Box::new(non_recursive),
            recursive: Box::new(recursive?),
            distinct: union.numCols > 0,
            id: union.wtParam as u32,
        };
        Ok(Sub {
            plan: Plan::RecursiveUnion(union),
            columns,
            outputs: outputs.into_iter().map(Ok).collect(),
            order: vec![],
            ordered: true,
            unknown_order: false,
            kept: vec![],
            rows: 0.0,
        })
    }

    fn is_worth_lowering(&self, union: &pg_sys::RecursiveUnion) -> Lowered<()> {
        if self.step.is_some() {
            return refused("a recursion within the steps of another one is not lowered");
        }
        if union.plan.targetlist.is_null() {
            return refused("a recursion of rows without columns is not lowered");
        }
        let (first, term) = (union.plan.lefttree, union.plan.righttree);
        let reads = |plan| self.statement.reads_iceberg(plan);
        if self.statement.force && reads(first) {
            return Ok(());
        }
        if !reads(term) {
            return refused("the steps of a recursion scan no iceberg table");
        }
        if !self.statement.force && self.keeps_rows(term) {
            return refused("Postgres keeps the rows of a table for all steps of a recursion");
        }
        // SAFETY: a plan node: it reads a table.
        let cost = unsafe { (*term).total_cost };
        if !self.statement.force && STEP_COST + cost / ENGINE_SPEED >= cost {
            return refused("the steps of a recursion cost less in Postgres");
        }
        Ok(())
    }

    /// Whether Postgres looks the rows of an iceberg table up in each step, by an index or because it has kept them, where the
    /// engine would scan the table.
    fn keeps_rows(&self, plan: *mut pg_sys::Plan) -> bool {
        // SAFETY: raises an error if the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        match Statement::is_step(plan) {
            true => (inputs(plan).into_iter()).any(|input| self.keeps_rows(input)),
            false => plan_tag(plan) != NodeTag::T_SeqScan && self.statement.reads_iceberg(plan),
        }
    }

    /// Over the work table, as [`Builder::step`] has it.
    fn recursive_term(
        &mut self,
        plan: *mut pg_sys::Plan,
        numbers: &[i16],
        columns: &[Column],
    ) -> Lowered<Plan> {
        let sub = self.settled(plan, numbers)?;
        let (exprs, _) = self.columns_of(&sub, numbers)?;
        let term = projected(sub.plan, exprs, columns)?;
        // Once rows have come out Postgres can't take over.
        if depends_on_forms(&term) {
            return refused("groups that may have several forms, in the steps of a recursion");
        }
        // Values grow from step to step.
        match computes_numeric(&term) {
            true => refused("a numeric that is computed in the steps of a recursion"),
            false => Ok(term),
        }
    }

    /// What doesn't read the work table has the same rows in each step: Postgres computes them once, if it is a CTE or what
    /// a node keeps. The engine computes them for each step.
    pub(super) fn is_same_in_steps(&self, plan: *mut pg_sys::Plan) -> Lowered<()> {
        let repeated = self.step.is_some() && !Statement::is_step(plan);
        match repeated && self.statement.is_indefinite(plan) {
            true => refused("rows that may be others in each step of a recursion"),
            false => Ok(()),
        }
    }

    /// The rows of the last step.
    pub(super) fn work_table_scan(
        &mut self,
        plan: *mut pg_sys::Plan,
        needed: Option<&[i16]>,
    ) -> Lowered<Sub> {
        let scan = get::<pg_sys::WorkTableScan>(plan.cast()).ok_or("a malformed recursion")?;
        let step = (self.step.as_ref())
            .filter(|step| step.param == scan.wtParam)
            .ok_or("a step of a recursion is not lowered without the others")?;
        let columns = step.columns.iter().zip(&step.names);
        let columns = columns.map(|(column, name)| WorkColumn {
            name: name.clone(),
            ty: column.ty.clone(),
        });
        let mut sub = Sub {
            plan: Plan::WorkTable(WorkTable {
                id: step.param as u32,
                columns: columns.collect(),
            }),
            columns: step.columns.clone(),
            outputs: step.outputs.iter().copied().map(Ok).collect(),
            order: vec![],
            ordered: true,
            unknown_order: false,
            kept: vec![],
            rows: 0.0,
        };
        let varno = scan.scan.scanrelid as i32;
        self.filter(&mut sub, scan.scan.plan.qual, varno)?;
        sub.outputs = Self::targets(&scan.scan.plan, needed, |target| over(target, varno, &sub));
        Ok(sub)
    }

    /// Whether a part that isn't lowered can be run by Postgres.
    pub(super) fn can_feed(&self, plan: *mut pg_sys::Plan) -> bool {
        let harmless = || !Statement::is_step(plan) && !self.statement.plan_may_raise(plan);
        self.step.is_none() || plan.is_null() || harmless()
    }

    /// Whether the plan of a CTE is too expensive to be a part of each of its readers.
    pub(super) fn runs_once(&self, plan: *mut pg_sys::Plan) -> bool {
        !self.statement.force && self.statement.has_recursion(plan)
    }
}

fn names(union: &pg_sys::RecursiveUnion) -> Vec<String> {
    let entries = nodes(union.plan.targetlist).into_iter();
    let names = entries.map(|entry| match get::<pg_sys::TargetEntry>(entry) {
        Some(entry) => string(entry.resname),
        None => String::new(),
    });
    names.collect()
}

/// The type of a work table's column, as Postgres declares it. Both terms have the scale of the first one's values.
fn declared(own: &SqlType, target: Node) -> Lowered<SqlType> {
    let (typid, typmod, collation) = node::type_of(target);
    let lake = match &own.lake {
        LakeType::Decimal { scale, .. } => consts::decimal(*scale).lake,
        other => other.clone(),
    };
    let mut ty = sql_type(lake, typid);
    ty.typmod = typmod;
    ty.collation = collation.to_u32();
    match has_datum(&ty, target) {
        true => Ok(ty),
        false => refused("a type that the engine computes differently"),
    }
}

/// Of the rows of a UNION all columns are compared. Equal ones look the same, so that it doesn't matter which comes first.
fn check_distinct(union: &pg_sys::RecursiveUnion, columns: &[Column]) -> Lowered<()> {
    if union.numCols == 0 {
        return Ok(());
    }
    let compared = array(union.dupColIdx, union.numCols);
    let operators = array(union.dupOperators, union.numCols);
    let collations = array(union.dupCollations, union.numCols);
    if compared.len() != columns.len() {
        return refused("a recursion of rows that are distinct in some columns");
    }
    for ((number, operator), collation) in compared.into_iter().zip(operators).zip(collations) {
        let at = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
        let column = at.and_then(|at| Some(column_expr(at, &columns.get(at)?.ty)));
        let equality = operator_function(pg_sys::InvalidOid, operator);
        let column = column.ok_or("a malformed recursion")?;
        if is_printed(&column.ty) {
            return refused(
                "a recursion of distinct values of a type whose equal values may look different",
            );
        }
        group_key(column, Some(equality), collation)?;
    }
    Ok(())
}

/// A term's rows as those of the work table.
fn projected(plan: Plan, exprs: Vec<Expr>, columns: &[Column]) -> Lowered<Plan> {
    let exprs = exprs.into_iter().zip(columns);
    let exprs: Lowered<Vec<Expr>> = exprs
        .map(|(expr, column)| stored(expr, &column.ty))
        .collect();
    Ok(Plan::Project {
        input: Box::new(plan),
        exprs: exprs?,
    })
}

fn stored(expr: Expr, ty: &SqlType) -> Lowered<Expr> {
    let padded = pg_sys::BPCHAROID.to_u32();
    let is_padded = [expr.ty.oid, ty.oid].contains(&padded);
    let same_length = expr.ty.oid == ty.oid && expr.ty.typmod == ty.typmod;
    let same_scale = match (&expr.ty.lake, &ty.lake) {
        (LakeType::Decimal { scale: own, .. }, LakeType::Decimal { scale, .. }) => own == scale,
        (own, other) => own == other,
    };
    match same_scale && (same_length || !is_padded) {
        true => Ok(cast(expr, ty)),
        false => refused("the terms of a recursion differ in how their columns are stored"),
    }
}

/// Whether numerics are computed, or added up in the rows of the last step: they may come to more digits than the engine has.
fn computes_numeric(plan: &Plan) -> bool {
    let mut exprs = plan.exprs().into_iter();
    exprs.any(is_computed)
        || (gives_numeric(plan) && reads_work_table(plan))
        || plan.inputs().into_iter().any(computes_numeric)
}

fn is_computed(expr: &Expr) -> bool {
    let computed = matches!(
        expr.kind,
        ExprKind::Arithmetic { .. } | ExprKind::Negate(_) | ExprKind::Call { .. }
    );
    (computed && expr.ty.lake.is_decimal()) || expr.children().into_iter().any(is_computed)
}

/// Whether a node has aggregates or window functions of that type.
fn gives_numeric(plan: &Plan) -> bool {
    match plan {
        Plan::Aggregate { aggregates, .. } => {
            (aggregates.iter()).any(|aggregate| aggregate.ty.lake.is_decimal())
        }
        Plan::Window(window) => (window.functions.iter()).any(|call| call.ty().is_decimal()),
        _ => false,
    }
}

fn reads_work_table(plan: &Plan) -> bool {
    matches!(plan, Plan::WorkTable(_)) || plan.inputs().into_iter().any(reads_work_table)
}
