//! INTERSECT and EXCEPT.
//!
//! Postgres' node reads the rows of both sides from one input, with a flag that says which side a row is of: 0 or 1. It
//! counts each side's copies of a row. With ALL, copies of one side are numbered before, so that the first copies of both
//! sides meet, the second ones, and so on.

use super::aggregation::groups_in_order;
use super::compare::comparison;
use super::expr::{boolean, operator_function};
use super::forms::Forms;
use super::frames::DEFAULT_FRAME;
use super::node::{Node, array, get, nodes};
use super::sub::{Column, Sub, column_expr};
use super::table::sql_type;
use super::tree::Builder;
use super::{Lowered, refused};
use pg_lake_plan::ir::{
    Aggregate, AggregateFunction, CompareOp, Expr, ExprKind, Plan, SortKey, Window, WindowFunction,
};
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;
use pgrx::pg_sys::SetOpCmd::{
    SETOPCMD_EXCEPT, SETOPCMD_EXCEPT_ALL, SETOPCMD_INTERSECT, SETOPCMD_INTERSECT_ALL,
};

impl Builder<'_> {
    /// All columns are compared, whatever the parent uses of them.
    pub(super) fn set_operation(&mut self, plan: *mut pg_sys::Plan) -> Lowered<Sub> {
        let op = get::<pg_sys::SetOp>(plan.cast()).ok_or("a malformed set operation")?;
        let (intersect, all) = match op.cmd {
            SETOPCMD_INTERSECT => (true, false),
            SETOPCMD_INTERSECT_ALL => (true, true),
            SETOPCMD_EXCEPT => (false, false),
            SETOPCMD_EXCEPT_ALL => (false, true),
            _ => return refused("this set operation is not lowered"),
        };
        let columns = array(op.dupColIdx, op.numCols);
        let mut used = columns.clone();
        used.push(op.flagColIdx);
        let mut input = self.input(op.plan.lefttree, &used)?;
        let flag = self.expression(&input.columns, input.output(op.flagColIdx)?)?;
        let operators = array(op.dupOperators, op.numCols);
        let collations = array(op.dupCollations, op.numCols);
        let mut groups = vec![];
        for ((column, operator), collation) in columns.iter().zip(operators).zip(collations) {
            let equality = operator_function(pg_sys::InvalidOid, operator);
            groups.push(self.group(&input, *column, Some(equality), collation)?);
        }
        let order = match op.strategy {
            pg_sys::SetOpStrategy::SETOP_SORTED => groups_in_order(&input.order, &groups),
            _ => vec![],
        };
        // Postgres shows the first copy as often as there are some.
        if all && groups.iter().any(|group| group.form.is_some()) {
            return refused("INTERSECT ALL and EXCEPT ALL of this type are not lowered");
        }
        let sorted = op.strategy == pg_sys::SetOpStrategy::SETOP_SORTED;
        let unknown_order = sorted && input.loses_order(&order, groups.len());
        let forms = Forms::of(&groups, |_| true, &input, groups.len());
        let output = |number: i16| {
            if let Some(at) = columns.iter().position(|column| *column == number) {
                return forms.var(&groups, at);
            }
            match number == op.flagColIdx {
                // Nobody looks at the flag of what comes out.
                true => Ok(null_of(pg_sys::INT4OID)),
                false => refused("a column that isn't compared"),
            }
        };
        let outputs = (1..)
            .zip(nodes(op.plan.targetlist))
            .map(|(number, _)| output(number))
            .collect();
        let mut sub_columns: Vec<Column> =
            groups.iter().map(|group| group.column(&input)).collect();
        let mut keys: Vec<Expr> = groups.into_iter().map(|group| group.expr).collect();
        if all {
            let number = column_expr(input.columns.len(), &bigint());
            number_copies(&mut input, &keys, &flag);
            keys.push(number);
            sub_columns.push(counted());
        }
        sub_columns.extend(forms.columns);
        let first_count = sub_columns.len();
        sub_columns.extend([counted(), counted()]);
        let mut aggregates = forms.aggregates;
        aggregates.extend([count_where(&flag, 0), count_where(&flag, 1)]);
        let mut sub = Sub {
            plan: Plan::Aggregate {
                input: Box::new(input.plan),
                groups: keys,
                aggregates,
                sets: vec![],
                groups_estimate: (op.numGroups as f64).max(1.0),
            },
            columns: sub_columns,
            outputs,
            order,
            ordered: false,
            unknown_order,
            kept: vec![],
            rows: 0.0,
        };
        let count = |side| column_expr(first_count + side, &bigint());
        let right = match intersect {
            true => CompareOp::Gt,
            false => CompareOp::Eq,
        };
        let predicate = boolean(ExprKind::And(vec![
            comparison(CompareOp::Gt, count(0), constant(&bigint(), Value::I64(0))),
            comparison(right, count(1), constant(&bigint(), Value::I64(0))),
        ]));
        sub.wrap(|input, _| Plan::Filter { input, predicate });
        Ok(sub)
    }
}

/// Adds a column with the number of each row among its copies on the same side.
fn number_copies(input: &mut Sub, groups: &[Expr], flag: &Expr) {
    let partition_by: Vec<Expr> = groups.iter().chain([flag]).cloned().collect();
    let order_by = partition_by
        .iter()
        .map(|expr| SortKey {
            expr: expr.clone(),
            descending: false,
            nulls_first: false,
        })
        .collect();
    input.wrap(|input, _| {
        Plan::Window(Box::new(Window {
            input,
            partition_by,
            order_by,
            peers: vec![],
            frame: DEFAULT_FRAME,
            functions: vec![WindowFunction::RowNumber],
            measured: None,
        }))
    });
}

/// `count(*) FILTER (WHERE flag = side)`
fn count_where(flag: &Expr, side: i32) -> Aggregate {
    let side = constant(&flag.ty, Value::I32(side));
    Aggregate {
        function: AggregateFunction::Count,
        arg: None,
        filter: Some(comparison(CompareOp::Eq, flag.clone(), side)),
        distinct: false,
        ty: bigint(),
        order: vec![],
    }
}

pub fn constant(ty: &SqlType, value: Value) -> Expr {
    Expr {
        ty: ty.clone(),
        kind: ExprKind::Const(Some(value)),
    }
}

pub fn bigint() -> SqlType {
    sql_type(LakeType::Int8, pg_sys::INT8OID)
}

/// A column that Postgres' node doesn't have.
pub fn counted() -> Column {
    Column {
        ty: bigint(),
        node: null_of(pg_sys::INT8OID),
    }
}

fn null_of(typid: pg_sys::Oid) -> Node {
    // SAFETY: makes a node.
    unsafe { pg_sys::makeNullConst(typid, -1, pg_sys::InvalidOid).cast() }
}
