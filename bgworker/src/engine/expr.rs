//! Expressions with Postgres' semantics.
//!
//! An [`Expr`] is compiled once per query: parameters become constants, patterns and lists are
//! prepared. Constants stay single values up to the kernels. A value under a null may be anything,
//! and no kernel raises an error for it.

use super::error::{from_arrow, internal, protocol, raise};
use super::inlist::Set;
use super::like::Pattern;
use super::select::Connective;
use super::{arith, cast, compare, describe, functions, inlist, like, select, values};
use crate::arrow_types::arrow_type;
use arrow::array::{Array, ArrayRef, BooleanArray, NullArray, new_empty_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{self, FilterBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion_common::{Result as DfResult, ScalarValue};
use datafusion_execution::memory_pool::MemoryPool;
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;
use pg_lake_plan::function::Function;
use pg_lake_plan::ir::{ArithmeticOp, CompareOp, Expr, ExprKind};
use pg_lake_plan::message::WireError;
use pg_lake_plan::types::{LakeType, Value};
use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The result of an expression over a frame.
#[derive(Clone, Debug)]
pub(super) enum Val {
    /// As many values as the frame has rows.
    Array(ArrayRef),
    /// One value for all rows, as an array of length 1.
    Scalar(ArrayRef),
}

impl Val {
    pub(super) fn array(&self) -> &ArrayRef {
        match self {
            Val::Array(array) | Val::Scalar(array) => array,
        }
    }

    pub(super) fn is_scalar(&self) -> bool {
        matches!(self, Val::Scalar(_))
    }

    pub(super) fn is_null_scalar(&self) -> bool {
        matches!(self, Val::Scalar(array) if array.is_null(0))
    }

    /// A value for each row.
    pub(super) fn spread(self, rows: usize) -> Result<ArrayRef, WireError> {
        match self {
            Val::Array(array) => Ok(array),
            Val::Scalar(array) => values::repeat(&array, rows),
        }
    }

    /// The same kind of value as before, computed value by value.
    pub(super) fn map(
        self,
        f: impl FnOnce(&ArrayRef) -> Result<ArrayRef, WireError>,
    ) -> Result<Val, WireError> {
        Ok(match self {
            Val::Array(array) => Val::Array(f(&array)?),
            Val::Scalar(array) => Val::Scalar(f(&array)?),
        })
    }
}

/// The rows that an expression is evaluated over.
pub(super) struct Frame<'a> {
    columns: Cow<'a, [ArrayRef]>,
    pub(super) rows: usize,
    /// What results that may be long are accounted for with while they are made.
    memory: Option<Arc<dyn MemoryPool>>,
}

impl<'a> Frame<'a> {
    pub(super) fn new(batch: &'a RecordBatch) -> Self {
        Frame {
            columns: Cow::Borrowed(batch.columns()),
            rows: batch.num_rows(),
            memory: None,
        }
    }

    pub(super) fn within(self, memory: &Arc<dyn MemoryPool>) -> Self {
        Frame {
            memory: Some(memory.clone()),
            ..self
        }
    }

    /// A batch that holds only the columns of these numbers, which ascend. Others must not be used.
    pub(super) fn scattered(batch: &RecordBatch, numbers: &[usize]) -> Frame<'static> {
        let width = numbers.last().map_or(0, |last| last + 1);
        let missing: ArrayRef = Arc::new(NullArray::new(0));
        let mut columns = vec![missing; width];
        for (&number, column) in numbers.iter().zip(batch.columns()) {
            if let Some(place) = columns.get_mut(number) {
                *place = column.clone();
            }
        }
        Frame {
            columns: Cow::Owned(columns),
            rows: batch.num_rows(),
            memory: None,
        }
    }

    /// The rows for which `mask` is set. Columns other than `needed` must not be used any more.
    pub(super) fn filter(
        &self,
        mask: &BooleanBuffer,
        needed: &[usize],
    ) -> Result<Frame<'static>, WireError> {
        let predicate = FilterBuilder::new(&BooleanArray::new(mask.clone(), None))
            .optimize()
            .build();
        let mut columns = self.columns.to_vec();
        for &i in needed {
            if let Some(column) = columns.get_mut(i) {
                *column = predicate.filter(&*column).map_err(|e| from_arrow(&e))?;
            }
        }
        Ok(Frame {
            columns: Cow::Owned(columns),
            rows: predicate.count(),
            memory: self.memory.clone(),
        })
    }
}

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) ty: LakeType,
    pub(super) data_type: DataType,
    /// See [`Expr::can_fail`].
    pub(super) can_fail: bool,
    /// Ascending numbers of the columns that it reads.
    pub(super) columns: Vec<usize>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Column(usize),
    Const(ArrayRef),
    Compare(CompareOp, Box<Node>, Box<Node>),
    Arithmetic(ArithmeticOp, Box<Node>, Box<Node>),
    Negate(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    /// Conditions that a row has to pass one by one.
    Quals(Vec<Node>),
    Not(Box<Node>),
    IsNull(Box<Node>, bool),
    BoolTest(Box<Node>, bool, bool),
    InList(Box<Node>, Set, bool),
    Like(Box<Node>, Pattern, bool),
    Case(Vec<(Node, Node)>, Option<Box<Node>>),
    Extreme(bool, Vec<Node>),
    Cast(Box<Node>),
    Call(Function, Vec<Node>),
    Canonical(Box<Node>),
}

impl Node {
    /// Compiles an expression that [`super::validate`] has accepted.
    pub(super) fn compile(expr: &Expr, params: &[Option<Value>]) -> Result<Node, WireError> {
        let one = |e: &Expr| Node::compile(e, params).map(Box::new);
        let all = |list: &[Expr]| {
            list.iter()
                .map(|e| Node::compile(e, params))
                .collect::<Result<Vec<_>, _>>()
        };
        let ty = &expr.ty.lake;
        let kind = match &expr.kind {
            ExprKind::Column(i) => Kind::Column(*i as usize),
            ExprKind::Const(value) => Kind::Const(values::constant(ty, value)?),
            ExprKind::Param(i) => {
                let value = params
                    .get(*i as usize)
                    .ok_or_else(|| protocol("a parameter is missing"))?;
                Kind::Const(values::constant(ty, value)?)
            }
            ExprKind::Compare { op, left, right } => Kind::Compare(*op, one(left)?, one(right)?),
            ExprKind::Arithmetic { op, left, right } => {
                Kind::Arithmetic(*op, one(left)?, one(right)?)
            }
            ExprKind::Negate(e) => Kind::Negate(one(e)?),
            ExprKind::And(list) => Kind::And(all(list)?),
            ExprKind::Or(list) => Kind::Or(all(list)?),
            ExprKind::Not(e) => Kind::Not(one(e)?),
            ExprKind::IsNull(e) => Kind::IsNull(one(e)?, false),
            ExprKind::IsNotNull(e) => Kind::IsNull(one(e)?, true),
            ExprKind::BoolTest {
                arg,
                value,
                negated,
            } => Kind::BoolTest(one(arg)?, *value, *negated),
            ExprKind::InList {
                arg,
                values,
                negated,
            } => Kind::InList(one(arg)?, Set::new(&arg.ty.lake, values)?, *negated),
            ExprKind::Like {
                arg,
                pattern,
                negated,
            } => Kind::Like(one(arg)?, Pattern::new(pattern)?, *negated),
            ExprKind::Case {
                branches,
                otherwise,
            } => Kind::Case(
                branches
                    .iter()
                    .map(|(when, then)| {
                        Ok((Node::compile(when, params)?, Node::compile(then, params)?))
                    })
                    .collect::<Result<_, WireError>>()?,
                otherwise.as_deref().map(one).transpose()?,
            ),
            ExprKind::Extreme { greatest, args } => Kind::Extreme(*greatest, all(args)?),
            ExprKind::Cast(e) => Kind::Cast(one(e)?),
            ExprKind::Call { function, args } => Kind::Call(*function, all(args)?),
            ExprKind::InParam { .. } => return Err(protocol("a list without values")),
        };
        Ok(Node::new(ty.clone(), kind, expr.raises()))
    }

    /// Compiles the quals that a predicate of a scan or join consists of, in their order.
    pub(super) fn quals(
        predicate: &Expr,
        params: &[Option<Value>],
    ) -> Result<Vec<Node>, WireError> {
        let quals = predicate.quals().iter();
        quals.map(|qual| Node::compile(qual, params)).collect()
    }

    /// Whether a row passes all quals. Unlike an AND it ends at the first one that is null: `ExecQual`.
    pub(super) fn all(mut quals: Vec<Node>) -> Option<Node> {
        match quals.len() {
            0 | 1 => quals.pop(),
            _ => Some(Node::new(LakeType::Bool, Kind::Quals(quals), false)),
        }
    }

    /// For sorting and grouping: −0.0 becomes 0.0 and every NaN the same NaN.
    pub(super) fn canonical(self) -> Node {
        if self.ty.is_float() {
            Node::new(self.ty.clone(), Kind::Canonical(Box::new(self)), false)
        } else {
            self
        }
    }

    /// `raises`: see [`Expr::raises`].
    fn new(ty: LakeType, kind: Kind, raises: bool) -> Node {
        let mut columns = vec![];
        let mut can_fail = raises;
        if let Kind::Column(i) = &kind {
            columns.push(*i);
        }
        for child in kind.children() {
            can_fail |= child.can_fail;
            columns.extend_from_slice(&child.columns);
        }
        columns.sort_unstable();
        columns.dedup();
        Node {
            data_type: arrow_type(&ty),
            ty,
            can_fail,
            columns,
            kind,
        }
    }

    pub(super) fn eval(&self, frame: &Frame<'_>) -> Result<Val, WireError> {
        match &self.kind {
            Kind::Column(i) => match frame.columns.get(*i) {
                Some(column) => Ok(Val::Array(column.clone())),
                None => Err(internal("a column is missing")),
            },
            Kind::Const(value) => Ok(Val::Scalar(value.clone())),
            Kind::Compare(op, left, right) => {
                compare::compare(*op, &left.eval(frame)?, &right.eval(frame)?)
            }
            Kind::Arithmetic(op, left, right) => {
                let (l, r) = (left.eval(frame)?, right.eval(frame)?);
                arith::arithmetic(*op, &self.ty, &l, &r)
            }
            Kind::Negate(arg) => arg.eval(frame)?.map(|array| arith::negate(&self.ty, array)),
            Kind::And(args) => select::connect(Connective::And, args, &self.columns, frame),
            Kind::Or(args) => select::connect(Connective::Or, args, &self.columns, frame),
            Kind::Quals(args) => select::connect(Connective::Quals, args, &self.columns, frame),
            Kind::Not(arg) => arg.eval(frame)?.map(|array| {
                let not = compute::not(boolean(array)?).map_err(|e| from_arrow(&e))?;
                Ok(Arc::new(not))
            }),
            Kind::IsNull(arg, negated) => arg.eval(frame)?.map(|array| {
                let test = if *negated {
                    compute::is_not_null(array)
                } else {
                    compute::is_null(array)
                };
                Ok(Arc::new(test.map_err(|e| from_arrow(&e))?))
            }),
            Kind::BoolTest(arg, value, negated) => arg.eval(frame)?.map(|array| {
                Ok(Arc::new(select::bool_test(
                    boolean(array)?,
                    *value,
                    *negated,
                )))
            }),
            Kind::InList(arg, set, negated) => arg
                .eval(frame)?
                .map(|array| inlist::contains(set, array, *negated)),
            Kind::Like(arg, pattern, negated) => arg
                .eval(frame)?
                .map(|array| like::like(pattern, array, *negated)),
            Kind::Case(branches, otherwise) => {
                select::case(branches, otherwise.as_deref(), self, frame)
            }
            Kind::Extreme(greatest, args) => select::extreme(*greatest, args, self, frame),
            Kind::Cast(arg) => {
                let value = arg.eval(frame)?;
                value.map(|array| cast::cast(&arg.ty, &self.ty, array))
            }
            Kind::Call(function, args) => {
                let args: Result<Vec<Val>, WireError> =
                    args.iter().map(|arg| arg.eval(frame)).collect();
                functions::call(*function, &self.ty, &args?, frame.memory.as_ref())
            }
            Kind::Canonical(arg) => arg.eval(frame)?.map(|array| Ok(compare::canonical(array))),
        }
    }

    /// Which rows pass: neither false nor null. `None`: all.
    pub(super) fn passing(&self, batch: &RecordBatch) -> Result<Option<BooleanBuffer>, WireError> {
        let rows = batch.num_rows();
        // What is the same for all rows may raise an error, too.
        if rows == 0 {
            return Ok(None);
        }
        let array = match self.eval(&Frame::new(batch))? {
            Val::Scalar(array) => {
                let test = boolean(&array)?;
                let pass = test.is_valid(0) && test.value(0);
                return Ok((!pass).then(|| BooleanBuffer::new_unset(rows)));
            }
            Val::Array(array) => array,
        };
        let test = boolean(&array)?;
        Ok((test.true_count() != rows).then(|| definite(test)))
    }
}

impl Kind {
    fn children(&self) -> Vec<&Node> {
        match self {
            Kind::Column(_) | Kind::Const(_) => vec![],
            Kind::Compare(_, left, right) | Kind::Arithmetic(_, left, right) => {
                vec![left.as_ref(), right.as_ref()]
            }
            Kind::Negate(e)
            | Kind::Not(e)
            | Kind::IsNull(e, _)
            | Kind::BoolTest(e, _, _)
            | Kind::InList(e, _, _)
            | Kind::Like(e, _, _)
            | Kind::Cast(e)
            | Kind::Canonical(e) => vec![e.as_ref()],
            Kind::And(list)
            | Kind::Or(list)
            | Kind::Quals(list)
            | Kind::Extreme(_, list)
            | Kind::Call(_, list) => list.iter().collect(),
            Kind::Case(branches, otherwise) => branches
                .iter()
                .flat_map(|(when, then)| [when, then])
                .chain(otherwise.as_deref())
                .collect(),
        }
    }
}

pub(super) fn boolean(array: &ArrayRef) -> Result<&BooleanArray, WireError> {
    array
        .as_any()
        .downcast_ref()
        .ok_or_else(|| internal("a condition isn't boolean"))
}

/// Set where the value is true, clear where it is false or null.
pub(super) fn definite(array: &BooleanArray) -> BooleanBuffer {
    match array.nulls() {
        Some(nulls) => array.values() & nulls.inner(),
        None => array.values().clone(),
    }
}

/// A result as DataFusion's operators take it.
pub(super) fn columnar(value: Result<Val, WireError>) -> DfResult<ColumnarValue> {
    match value.map_err(raise)? {
        Val::Array(array) => Ok(ColumnarValue::Array(array)),
        Val::Scalar(array) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
            &array, 0,
        )?)),
    }
}

/// A compiled expression as an operand of DataFusion's operators.
#[derive(Clone, Debug)]
pub(super) struct PgExpr {
    node: Arc<Node>,
    text: Arc<str>,
    memory: Arc<dyn MemoryPool>,
}

impl PgExpr {
    pub(super) fn new(
        node: Node,
        source: &Expr,
        schema: &Schema,
        memory: &Arc<dyn MemoryPool>,
    ) -> Self {
        PgExpr {
            node: Arc::new(node),
            text: describe::describe(source, schema).into(),
            memory: memory.clone(),
        }
    }
}

// Two compilations are never the same expression to DataFusion: it only loses optimisations.
impl PartialEq for PgExpr {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for PgExpr {}

impl Hash for PgExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.node).hash(state);
    }
}

impl fmt::Display for PgExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PhysicalExpr for PgExpr {
    fn return_field(&self, _input: &Schema) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new(
            self.text.as_ref(),
            self.node.data_type.clone(),
            true,
        )))
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        if batch.num_rows() == 0 {
            return Ok(ColumnarValue::Array(new_empty_array(&self.node.data_type)));
        }
        columnar(self.node.eval(&Frame::new(batch).within(&self.memory)))
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
