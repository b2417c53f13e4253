//! The fragment: a typed plan tree that a worker can run.
//!
//! `ext` makes it from a finished Postgres plan; every node stands for something that Postgres
//! would have computed with the same result. Columns are numbered from 0 in the input's output.

pub use crate::expr::{ArithmeticOp, CompareOp, Expr, ExprKind, Interval};
pub use crate::project_set::{ProjectSet, SetCall, SetFunction};
pub use crate::recursion::{RecursiveUnion, WorkColumn, WorkTable};
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
    /// Output: the columns of both sides, of [`JoinKind::Semi`] and the anti joins those of the left one, which the marks
    /// follow with a boolean.
    Join(Join),
    /// The rows of all inputs, whose columns have the same types; in no order.
    Append {
        inputs: Vec<Plan>,
    },
    /// Output: the input's columns, then the functions' results. In no order.
    Window(Box<Window>),
    /// Output: the groups, then the aggregates. Without groups: exactly one row.
    Aggregate {
        input: Box<Plan>,
        groups: Vec<Expr>,
        aggregates: Vec<Aggregate>,
        /// Grouping sets: numbers of the groups that each has, ascending; the others are null in its rows. A column
        /// of type `int4` with the number of the row's set comes last. A set without groups has one row, also of no
        /// input. None: all groups, and no such column.
        sets: Vec<Vec<u32>>,
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
    ProjectSet(ProjectSet),
    /// One row without columns.
    OneRow,
    RecursiveUnion(RecursiveUnion),
    WorkTable(WorkTable),
}

/// Pairs of rows for which all keys are equal (null is equal to nothing) and the filter is true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Join {
    pub kind: JoinKind,
    pub left: Box<Plan>,
    pub right: Box<Plan>,
    /// None: every pair is looked at. A side that can raise an error is not evaluated for a row without a partner
    /// in Postgres either, but for all rows here: such keys aren't made.
    pub keys: Vec<JoinKey>,
    /// Over the left columns, followed by the right ones. It can be evaluated for any pair. The arguments of an AND at its
    /// top are quals, as in [`Scan::predicate`].
    pub filter: Option<Expr>,
    /// Postgres' estimates.
    pub left_rows: f64,
    pub right_rows: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JoinKind {
    Inner,
    /// Rows of the left side without a partner come with nulls for the right one.
    Left,
    Full,
    /// Rows of the left side that have a partner, once.
    Semi,
    /// Rows of the left side that have none: `NOT EXISTS`.
    Anti,
    /// `left NOT IN (right)`, one key, no filter: a null on the right and nothing comes out; a null on the left
    /// comes out only if the right side is empty.
    NullAwareAnti,
    /// All rows of the left side, each with whether it has a partner. Keys, no filter.
    Mark,
    /// The same with what `left IN (right)` is: without a partner it is null if there is a null on the right, or one
    /// on the left and the right side isn't empty. One key, no filter.
    NullAwareMark,
}

impl JoinKind {
    /// Whether what comes out is the left side and a boolean.
    pub fn is_mark(self) -> bool {
        matches!(self, JoinKind::Mark | JoinKind::NullAwareMark)
    }
}

/// Both sides have the same [`LakeType`], decimals the same scale. Floats compare as Postgres compares them
/// (`-0 = 0`, NaN = NaN), text by bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinKey {
    /// Over the left columns.
    pub left: Expr,
    /// Over the right columns.
    pub right: Expr,
}

/// Window functions over one partitioning, order and frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    pub input: Box<Plan>,
    pub partition_by: Vec<Expr>,
    /// Brings the rows of a partition together, and peers within it; its first keys may be those to partition by.
    pub order_by: Vec<SortKey>,
    /// Rows of a partition that agree in these are peers. None: all of them are.
    pub peers: Vec<Expr>,
    pub frame: Frame,
    pub functions: Vec<WindowFunction>,
    /// The only key of the order, if the offsets of a `Range` are differences of its values.
    pub measured: Option<SortKey>,
}

/// `{ROWS | RANGE | GROUPS} BETWEEN start AND end EXCLUDE exclude`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    pub unit: FrameUnit,
    pub start: FrameBound,
    pub end: FrameBound,
    pub exclude: FrameExclusion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrameUnit {
    Rows,
    Range,
    Groups,
}

/// Seen from the current row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FrameBound {
    UnboundedPreceding,
    /// So many rows or groups of peers. Not of a `Range`.
    Preceding(u64),
    CurrentRow,
    Following(u64),
    UnboundedFollowing,
    PrecedingBy(FrameOffset),
    FollowingBy(FrameOffset),
}

/// How far a bound is from the current row. Null and what is negative is [`ErrorCode::NotExact`]: Postgres raises its own
/// error.
///
/// [`ErrorCode::NotExact`]: crate::message::ErrorCode::NotExact
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FrameOffset {
    /// Of constants and parameters: an `Int8` of rows or groups. Of a `Range` the difference of values: an integer of
    /// integers, a decimal of decimals, a `Float8` of floats.
    Number(Expr),
    /// The difference of dates, times or timestamps; of timestamps with a zone without months and days.
    Interval(Interval),
}

/// What isn't in a frame though it lies between its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrameExclusion {
    NoOthers,
    CurrentRow,
    /// The current row and its peers.
    Group,
    /// Its peers.
    Ties,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WindowFunction {
    RowNumber,
    Rank,
    DenseRank,
    /// `float8`
    PercentRank,
    /// `float8`
    CumeDist,
    /// Of so many buckets, at least 1: `int4`
    Ntile(u32),
    /// Over the frame. Not of distinct values.
    Aggregate(Aggregate),
    /// Of the frame's first, last or n-th row (from 1).
    FirstValue(Expr),
    LastValue(Expr),
    NthValue(Expr, u64),
    /// Of the row so many after (`lead`) or, negative, before (`lag`) the current one in its partition.
    Shift {
        arg: Expr,
        rows: i64,
        /// Where there is no such row; of the argument's type.
        otherwise: Option<Value>,
    },
}

impl Window {
    /// All that is evaluated for each row of the input.
    pub fn exprs(&self) -> Vec<&Expr> {
        let mut exprs: Vec<&Expr> = self.partition_by.iter().chain(&self.peers).collect();
        exprs.extend(self.order_by.iter().map(|key| &key.expr));
        exprs.extend(self.functions.iter().flat_map(WindowFunction::exprs));
        exprs.extend(self.measured.iter().map(|key| &key.expr));
        exprs
    }
}

impl Frame {
    /// The offsets of both bounds that are computed.
    pub fn offsets(&self) -> Vec<&Expr> {
        ([&self.start, &self.end].into_iter())
            .filter_map(|bound| match bound {
                FrameBound::PrecedingBy(FrameOffset::Number(offset))
                | FrameBound::FollowingBy(FrameOffset::Number(offset)) => Some(offset),
                _ => None,
            })
            .collect()
    }

    /// The same, to be changed.
    pub fn offsets_mut(&mut self) -> Vec<&mut Expr> {
        ([&mut self.start, &mut self.end].into_iter())
            .filter_map(|bound| match bound {
                FrameBound::PrecedingBy(FrameOffset::Number(offset))
                | FrameBound::FollowingBy(FrameOffset::Number(offset)) => Some(offset),
                _ => None,
            })
            .collect()
    }
}

impl WindowFunction {
    /// Type of the result.
    pub fn ty(&self) -> LakeType {
        match self {
            WindowFunction::RowNumber | WindowFunction::Rank | WindowFunction::DenseRank => {
                LakeType::Int8
            }
            WindowFunction::PercentRank | WindowFunction::CumeDist => LakeType::Float8,
            WindowFunction::Ntile(_) => LakeType::Int4,
            WindowFunction::Aggregate(aggregate) => aggregate.ty.lake.clone(),
            WindowFunction::FirstValue(arg)
            | WindowFunction::LastValue(arg)
            | WindowFunction::NthValue(arg, _)
            | WindowFunction::Shift { arg, .. } => arg.ty.lake.clone(),
        }
    }

    /// Whether its result depends on the frame.
    pub fn is_framed(&self) -> bool {
        matches!(
            self,
            WindowFunction::Aggregate(_)
                | WindowFunction::FirstValue(_)
                | WindowFunction::LastValue(_)
                | WindowFunction::NthValue(..)
        )
    }

    /// As [`Aggregate::overflows`].
    pub fn overflows(&self) -> bool {
        matches!(self, WindowFunction::Aggregate(aggregate) if aggregate.overflows())
    }

    /// What is evaluated for each row of the input.
    pub fn exprs(&self) -> Vec<&Expr> {
        match self {
            WindowFunction::RowNumber
            | WindowFunction::Rank
            | WindowFunction::DenseRank
            | WindowFunction::PercentRank
            | WindowFunction::CumeDist
            | WindowFunction::Ntile(_) => vec![],
            WindowFunction::Aggregate(aggregate) => {
                aggregate.arg.iter().chain(&aggregate.filter).collect()
            }
            WindowFunction::FirstValue(arg)
            | WindowFunction::LastValue(arg)
            | WindowFunction::NthValue(arg, _)
            | WindowFunction::Shift { arg, .. } => vec![arg],
        }
    }
}

/// A scan of one table: its cold files, and its hot rows as a feed. Rows pass `predicate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    /// Index into [`crate::message::Execute::tables`].
    pub table: u32,
    /// For messages and EXPLAIN: the table's qualified name.
    pub name: String,
    pub columns: Vec<ScanColumn>,
    /// Over `columns`. Rows for which it is false or null are not returned. The arguments of an AND at its top are quals:
    /// one that is false or null decides, and none after it that can raise an error is evaluated for the row.
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
pub struct Aggregate {
    pub function: AggregateFunction,
    /// `None` for `count(*)` only.
    pub arg: Option<Expr>,
    pub filter: Option<Expr>,
    pub distinct: bool,
    /// Type of the result. `Sum` of integers: `Int8` or `Decimal {38, 0}`, as Postgres' result is
    /// `bigint` or `numeric`; of decimals: `Decimal {38, scale of the argument}`; of `Float4` also that, which then is what is
    /// added up in.
    pub ty: SqlType,
    /// What the values are ordered by, where that makes a difference: [`AggregateFunction::is_ordered`].
    pub order: Vec<SortKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AggregateFunction {
    /// `count(*)` without an argument.
    Count,
    Sum,
    /// Of floats: [`ErrorCode::NotExact`] where it is 0 and -0.
    ///
    /// [`ErrorCode::NotExact`]: crate::message::ErrorCode::NotExact
    Min,
    Max,
    /// `sum(arg * arg)` of integers and decimals: `Decimal {38, twice the scale of the argument}`.
    SumOfSquares,
    /// Of booleans.
    BoolAnd,
    BoolOr,
    /// Of integers.
    BitAnd,
    BitOr,
    BitXor,
    /// The first of the ordered values up to which there are that many of them. Nulls don't count.
    PercentileDisc(Fraction),
    /// The same of `Float8`, between the two values that are next to it.
    PercentileCont(Fraction),
    /// The value that is there most often; of several ones the first in order.
    Mode,
    /// A list of the values in their order, with nulls; null if there are no values. If it is of distinct ones, no floats, they
    /// are ordered by themselves.
    ArrayAgg,
    /// Of intervals ([`Function::IntervalLength`]). [`ErrorCode::NotExact`] where one is infinite, where a sum could leave
    /// the range of intervals on the way, and where the least or the largest one is there in several forms.
    ///
    /// [`ErrorCode::NotExact`]: crate::message::ErrorCode::NotExact
    /// [`Function::IntervalLength`]: crate::function::Function::IntervalLength
    IntervalSum,
    IntervalMin,
    IntervalMax,
    /// Of floats: the state of `float8_accum`, a list of three `Float8`; null if there are no values.
    Moments,
    /// Of pairs ([`Function::FloatPair`]) of y and x: the state of `float8_regr_accum`, a list of six.
    ///
    /// [`Function::FloatPair`]: crate::function::Function::FloatPair
    PairMoments,
    /// The text that all values of the group have. [`ErrorCode::NotExact`] where there are several: they are equal in
    /// Postgres' type, which shows the first one.
    ///
    /// [`ErrorCode::NotExact`]: crate::message::ErrorCode::NotExact
    OneForm,
}

impl Aggregate {
    /// What is evaluated for each row of the input.
    fn exprs(&self) -> Vec<&Expr> {
        let order = self.order.iter().map(|key| &key.expr);
        self.arg.iter().chain(&self.filter).chain(order).collect()
    }

    /// Whether finite floats that it adds up may have a sum that isn't, which is an error: see [`Expr::can_raise`].
    pub fn overflows(&self) -> bool {
        match self.function {
            AggregateFunction::Sum => self.ty.lake.is_float(),
            AggregateFunction::Moments | AggregateFunction::PairMoments => true,
            _ => false,
        }
    }
}

impl AggregateFunction {
    /// Whether the result depends on the order of the values.
    pub fn is_ordered(self) -> bool {
        matches!(
            self,
            AggregateFunction::PercentileDisc(_)
                | AggregateFunction::PercentileCont(_)
                | AggregateFunction::Mode
                | AggregateFunction::ArrayAgg
        )
    }

    /// Whether it takes intervals only.
    pub fn is_of_intervals(self) -> bool {
        matches!(
            self,
            AggregateFunction::IntervalSum
                | AggregateFunction::IntervalMin
                | AggregateFunction::IntervalMax
        )
    }
}

/// A number from 0 to 1, by its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fraction(u64);

impl Fraction {
    /// Any number: [`Fraction::is_valid`] says whether it is one.
    pub fn new(value: f64) -> Fraction {
        Fraction(value.to_bits())
    }

    pub fn value(self) -> f64 {
        f64::from_bits(self.0)
    }

    pub fn is_valid(self) -> bool {
        (0.0..=1.0).contains(&self.value())
    }
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
            Plan::Join(join) => {
                let mut columns = join.left.output();
                if matches!(join.kind, JoinKind::Inner | JoinKind::Left | JoinKind::Full) {
                    columns.extend(join.right.output());
                }
                if join.kind.is_mark() {
                    columns.push(LakeType::Bool);
                }
                columns
            }
            Plan::Append { inputs } => inputs.first().map(Plan::output).unwrap_or_default(),
            Plan::Window(window) => {
                let mut columns = window.input.output();
                columns.extend(window.functions.iter().map(WindowFunction::ty));
                columns
            }
            Plan::Aggregate {
                groups,
                aggregates,
                sets,
                ..
            } => groups
                .iter()
                .map(|e| e.ty.lake.clone())
                .chain(aggregates.iter().map(|a| a.ty.lake.clone()))
                .chain((!sets.is_empty()).then_some(LakeType::Int4))
                .collect(),
            Plan::ProjectSet(set) => set.output(),
            Plan::OneRow => vec![],
            Plan::RecursiveUnion(union) => union.non_recursive.output(),
            Plan::WorkTable(table) => table.output(),
        }
    }

    /// Whether a scan of it yields row numbers.
    pub fn reads_row_numbers(&self) -> bool {
        match self {
            Plan::Scan(scan) => scan
                .columns
                .iter()
                .any(|column| column.source == ColumnSource::RowNumber),
            other => other.inputs().into_iter().any(Plan::reads_row_numbers),
        }
    }

    /// Whether running it could raise an error that Postgres would raise too: see [`Expr::can_raise`].
    pub fn can_raise(&self) -> bool {
        let own = match self {
            Plan::ProjectSet(set) => set.raises(),
            Plan::Aggregate { aggregates, .. } => aggregates.iter().any(Aggregate::overflows),
            Plan::Window(window) => window.functions.iter().any(WindowFunction::overflows),
            _ => false,
        };
        own || self.exprs().into_iter().any(Expr::can_raise)
            || self.inputs().into_iter().any(Plan::can_raise)
    }

    /// What the node itself evaluates, for the rows of its inputs.
    pub fn exprs(&self) -> Vec<&Expr> {
        match self {
            Plan::Scan(scan) => scan.predicate.iter().collect(),
            Plan::Filter { predicate, .. } => vec![predicate],
            Plan::Project { exprs, .. } => exprs.iter().collect(),
            Plan::Join(join) => {
                let keys = join.keys.iter().flat_map(|key| [&key.left, &key.right]);
                keys.chain(&join.filter).collect()
            }
            Plan::Window(window) => window.exprs(),
            Plan::Aggregate {
                groups, aggregates, ..
            } => {
                let calls = aggregates.iter().flat_map(Aggregate::exprs);
                groups.iter().chain(calls).collect()
            }
            Plan::Sort { keys, .. } => keys.iter().map(|key| &key.expr).collect(),
            Plan::ProjectSet(set) => set.exprs().collect(),
            Plan::Append { .. }
            | Plan::Limit { .. }
            | Plan::OneRow
            | Plan::RecursiveUnion(_)
            | Plan::WorkTable(_) => vec![],
        }
    }

    /// The inputs of this node.
    pub fn inputs(&self) -> Vec<&Plan> {
        match self {
            Plan::Scan(_) | Plan::OneRow | Plan::WorkTable(_) => vec![],
            Plan::ProjectSet(set) => vec![&set.input],
            Plan::Filter { input, .. }
            | Plan::Project { input, .. }
            | Plan::Aggregate { input, .. }
            | Plan::Sort { input, .. }
            | Plan::Limit { input, .. } => vec![input],
            Plan::Window(window) => vec![&window.input],
            Plan::Join(join) => vec![&join.left, &join.right],
            Plan::Append { inputs } => inputs.iter().collect(),
            Plan::RecursiveUnion(union) => vec![&union.non_recursive, &union.recursive],
        }
    }

    /// The scans of it, from the left.
    pub fn scans(&self) -> Vec<&Scan> {
        let (mut found, mut open) = (vec![], vec![self]);
        while let Some(node) = open.pop() {
            match node {
                Plan::Scan(scan) => found.push(scan),
                other => open.extend(other.inputs().into_iter().rev()),
            }
        }
        found
    }

    /// The scan, if that is all there is.
    pub fn as_scan(&self) -> Option<&Scan> {
        match self {
            Plan::Scan(scan) => Some(scan),
            _ => None,
        }
    }
}
