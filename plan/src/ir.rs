//! The fragment: a typed plan tree that a worker can run.
//!
//! `ext` makes it from a finished Postgres plan; every node stands for something that Postgres
//! would have computed with the same result. Columns are numbered from 0 in the input's output.

use crate::types::{LakeType, SqlType, Value};
use serde::{Deserialize, Serialize};

/// The deepest nesting that the decoder of a plan or expression accepts.
pub const MAX_DEPTH: usize = 200;

/// A plan that one request runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fragment {
    /// [`crate::PROTOCOL_VERSION`] of its maker.
    pub version: u16,
    pub root: Plan,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Plan {
    Scan(Scan),
    Filter {
        input: Box<Plan>,
        predicate: Expr,
    },
    Project {
        input: Box<Plan>,
        exprs: Vec<Expr>,
    },
    /// Output: the groups, then the aggregates. Without groups: exactly one row.
    Aggregate {
        input: Box<Plan>,
        groups: Vec<Expr>,
        aggregates: Vec<Aggregate>,
        /// Postgres' estimate of the number of groups.
        groups_estimate: f64,
    },
    /// A stable order is not promised, as in Postgres.
    Sort {
        input: Box<Plan>,
        keys: Vec<SortKey>,
        /// Only that many first rows are needed.
        fetch: Option<u64>,
    },
    Limit {
        input: Box<Plan>,
        skip: u64,
        fetch: Option<u64>,
    },
}

/// A scan of one table: its cold files, and its hot rows as a feed. Rows pass `predicate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    /// Index into [`crate::message::Execute::tables`].
    pub table: u32,
    /// For messages and EXPLAIN: the table's qualified name.
    pub name: String,
    pub columns: Vec<ScanColumn>,
    /// Over `columns`. Rows for which it is false or null are not returned.
    pub predicate: Option<Expr>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanColumn {
    pub name: String,
    pub source: ColumnSource,
    pub ty: SqlType,
    /// The value where a file has no such column (`ALTER TABLE ADD COLUMN … DEFAULT`); null otherwise.
    pub missing: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnSource {
    /// The Iceberg field id, which is the column's `attnum`.
    Field(i32),
    /// The row's number: the file's first row number plus its position. Type `Int8`; null for fed rows.
    RowNumber,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expr {
    pub ty: SqlType,
    pub kind: ExprKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ExprKind {
    Column(u32),
    /// `None` is a typed null.
    Const(Option<Value>),
    /// Index into [`crate::message::Execute::params`].
    Param(u32),
    /// Both sides have the same [`LakeType`], decimals of any precision and scale.
    /// Text is compared by bytes: only for equality, or where the collation is C.
    Compare {
        op: CompareOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// Both sides have the same [`LakeType`], which is that of the result; decimals: any.
    Arithmetic {
        op: ArithmeticOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Negate(Box<Expr>),
    /// Evaluated left to right; a later argument is evaluated only for rows where it can matter,
    /// if it can raise an error.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    IsNotNull(Box<Expr>),
    /// `IS [NOT] {TRUE | FALSE}`: never null.
    BoolTest {
        arg: Box<Expr>,
        value: bool,
        negated: bool,
    },
    /// `arg = ANY (values)`, with SQL's treatment of nulls.
    InList {
        arg: Box<Expr>,
        values: Vec<Option<Value>>,
        negated: bool,
    },
    /// `arg LIKE pattern`: `%`, `_` and `\` as escape; bytewise equality of other characters.
    Like {
        arg: Box<Expr>,
        pattern: String,
        negated: bool,
    },
    /// `CASE WHEN … THEN … ELSE … END`; each branch is evaluated only for its rows.
    Case {
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    /// Widening conversions that can't fail, except to a decimal whose precision overflows.
    Cast(Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ArithmeticOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// `None` for `count(*)` only.
    pub arg: Option<Expr>,
    pub filter: Option<Expr>,
    pub distinct: bool,
    /// Type of the result. `Sum` of integers: `Int8` or `Decimal {38, 0}`, as Postgres' result is
    /// `bigint` or `numeric`; of decimals: `Decimal {38, scale of the argument}`.
    pub ty: SqlType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AggregateFunction {
    /// `count(*)` without an argument.
    Count,
    Sum,
    Min,
    Max,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SortKey {
    pub expr: Expr,
    pub descending: bool,
    pub nulls_first: bool,
}

impl Plan {
    /// Types of the output's columns.
    pub fn output(&self) -> Vec<LakeType> {
        match self {
            Plan::Scan(scan) => scan.columns.iter().map(|c| c.ty.lake.clone()).collect(),
            Plan::Filter { input, .. } | Plan::Sort { input, .. } | Plan::Limit { input, .. } => {
                input.output()
            }
            Plan::Project { exprs, .. } => exprs.iter().map(|e| e.ty.lake.clone()).collect(),
            Plan::Aggregate {
                groups, aggregates, ..
            } => groups
                .iter()
                .map(|e| e.ty.lake.clone())
                .chain(aggregates.iter().map(|a| a.ty.lake.clone()))
                .collect(),
        }
    }

    /// Whether a scan of it yields row numbers.
    pub fn reads_row_numbers(&self) -> bool {
        match self {
            Plan::Scan(scan) => scan
                .columns
                .iter()
                .any(|column| column.source == ColumnSource::RowNumber),
            other => other.inputs().is_some_and(Plan::reads_row_numbers),
        }
    }

    /// The inputs of this node.
    pub fn inputs(&self) -> Option<&Plan> {
        match self {
            Plan::Scan(_) => None,
            Plan::Filter { input, .. }
            | Plan::Project { input, .. }
            | Plan::Aggregate { input, .. }
            | Plan::Sort { input, .. }
            | Plan::Limit { input, .. } => Some(input),
        }
    }

    /// The scan at the bottom.
    pub fn scan(&self) -> &Scan {
        let mut node = self;
        loop {
            match node {
                Plan::Scan(scan) => return scan,
                Plan::Filter { input, .. }
                | Plan::Project { input, .. }
                | Plan::Aggregate { input, .. }
                | Plan::Sort { input, .. }
                | Plan::Limit { input, .. } => node = input,
            }
        }
    }
}

impl Expr {
    /// The direct sub-expressions.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Column(_) | ExprKind::Const(_) | ExprKind::Param(_) => vec![],
            ExprKind::Compare { left, right, .. } | ExprKind::Arithmetic { left, right, .. } => {
                vec![left, right]
            }
            ExprKind::Negate(e)
            | ExprKind::Not(e)
            | ExprKind::IsNull(e)
            | ExprKind::IsNotNull(e)
            | ExprKind::Cast(e)
            | ExprKind::BoolTest { arg: e, .. }
            | ExprKind::InList { arg: e, .. }
            | ExprKind::Like { arg: e, .. } => vec![e],
            ExprKind::And(list) | ExprKind::Or(list) => list.iter().collect(),
            ExprKind::Case {
                branches,
                otherwise,
            } => branches
                .iter()
                .flat_map(|(when, then)| [when, then])
                .chain(otherwise.as_deref())
                .collect(),
        }
    }

    /// Nesting, 1 for a leaf.
    pub fn depth(&self) -> usize {
        1 + self
            .children()
            .into_iter()
            .map(Expr::depth)
            .max()
            .unwrap_or(0)
    }

    /// Whether evaluating it for some row could raise an error that Postgres would raise too, or
    /// leave the range in which the engine is exact.
    pub fn can_fail(&self) -> bool {
        let own = match &self.kind {
            ExprKind::Arithmetic { op, right, .. } => {
                !(*op == ArithmeticOp::Modulo && right.is_divisor())
            }
            ExprKind::Negate(_) => true,
            ExprKind::Compare { left, right, .. } => {
                left.ty.lake.is_decimal() && left.ty.lake != right.ty.lake
            }
            ExprKind::Cast(_) => self.ty.lake.is_decimal(),
            _ => false,
        };
        own || self.children().into_iter().any(Expr::can_fail)
    }

    /// Whether it is an integer constant that every integer can be divided by.
    fn is_divisor(&self) -> bool {
        match &self.kind {
            ExprKind::Const(Some(Value::I32(n))) => !matches!(n, 0 | -1),
            ExprKind::Const(Some(Value::I64(n))) => !matches!(n, 0 | -1),
            _ => false,
        }
    }
}
