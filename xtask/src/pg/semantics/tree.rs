//! Queries as trees, which are generated, walked, written as SQL and made smaller.

use super::types::Type;
use std::rc::Rc;

/// A function, operator, aggregate or window function of the grammar.
#[derive(Debug)]
pub struct Function {
    /// With its arguments' types, for coverage.
    pub feature: String,
    /// SQL with `$1`, `$2`, … for the arguments; of an aggregate, `$d` for DISTINCT and `$o` for ORDER BY.
    pub form: String,
    pub params: Vec<Param>,
    pub result: Type,
    /// SQLSTATEs that a call can end with.
    pub raises: Vec<String>,
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub ty: Type,
    /// Only a literal, and a tame one.
    pub literal: bool,
}

impl Function {
    pub fn has(&self, note: &str) -> bool {
        self.notes.iter().any(|known| known == note)
    }
}

#[derive(Clone, Debug)]
pub struct Expr {
    pub ty: Type,
    /// Whether equal values of it look the same, so that it doesn't matter which of them stands for a group.
    pub uniform: bool,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// With the relation's alias.
    Column(String),
    Literal(String),
    Apply {
        function: Rc<Function>,
        args: Vec<Expr>,
    },
    Aggregate {
        function: Rc<Function>,
        args: Vec<Expr>,
        distinct: bool,
        order: Vec<Expr>,
        filter: Option<Box<Expr>>,
    },
    Window {
        function: Rc<Function>,
        args: Vec<Expr>,
        partition: Vec<Expr>,
        order: Vec<Sort>,
        frame: Option<&'static str>,
    },
    Subquery {
        /// SQL with `$1` for the operand, and `$q` for the query.
        form: &'static str,
        operand: Option<Box<Expr>>,
        query: Box<Select>,
    },
}

#[derive(Clone, Debug)]
pub struct Sort {
    pub expr: Expr,
    pub descending: bool,
    /// `None`: as Postgres has it by default.
    pub nulls_first: Option<bool>,
}

#[derive(Clone, Debug)]
pub enum Query {
    Select(Box<Select>),
    Set {
        operation: &'static str,
        left: Box<Query>,
        right: Box<Query>,
        /// By all columns.
        ordered: bool,
        limit: Option<u64>,
    },
    /// Some steps of a recursion; by the first columns of both.
    Recursive {
        operation: &'static str,
        left: Box<Select>,
        right: Box<Select>,
    },
}

#[derive(Clone, Debug, Default)]
pub struct Select {
    pub distinct: bool,
    /// Only the first row of those with the same value of the first key of the order.
    pub distinct_on: bool,
    /// They are called `c1`, `c2`, …
    pub outputs: Vec<Expr>,
    pub from: Vec<Relation>,
    pub filter: Vec<Expr>,
    pub grouping: Option<Grouping>,
    pub having: Vec<Expr>,
    /// By outputs, and then, unless `ties` are wanted, by what leaves no choice. Empty: in no order.
    pub order: Vec<OutputSort>,
    pub limit: Option<u64>,
    /// Rows that are equal to the last one within the limit come as well.
    pub ties: bool,
    pub offset: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct OutputSort {
    /// From 0.
    pub output: usize,
    pub descending: bool,
    pub nulls_first: Option<bool>,
}

#[derive(Clone, Debug)]
pub struct Grouping {
    pub keys: Vec<Expr>,
    pub sets: Option<Sets>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sets {
    Rollup,
    Cube,
}

#[derive(Clone, Debug)]
pub struct Relation {
    pub source: Source,
    pub alias: String,
    /// How it is joined to those before it; the first one isn't.
    pub join: Join,
    pub on: Vec<Expr>,
    /// Columns that tell its rows apart.
    pub keys: Vec<Expr>,
}

#[derive(Clone, Debug)]
pub enum Source {
    Table(&'static str),
    Derived(Box<Select>),
    /// Functions in lockstep, each with a column; then the number of the row.
    Sets(Vec<&'static str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    Inner,
    Left,
    Right,
    Full,
    Cross,
}

impl Expr {
    pub fn column(name: String, ty: Type, uniform: bool) -> Expr {
        Expr {
            ty,
            uniform,
            kind: Kind::Column(name),
        }
    }

    pub fn literal(ty: Type, value: Option<&str>) -> Expr {
        Expr {
            ty,
            uniform: !ty.varies(),
            kind: Kind::Literal(ty.literal(value)),
        }
    }

    /// The direct parts, without those of a subquery's.
    fn parts_mut(&mut self) -> Vec<&mut Expr> {
        match &mut self.kind {
            Kind::Column(_) | Kind::Literal(_) => Vec::new(),
            Kind::Apply { args, .. } => args.iter_mut().collect(),
            Kind::Aggregate {
                args,
                order,
                filter,
                ..
            } => {
                let filter = filter.as_deref_mut();
                args.iter_mut().chain(order).chain(filter).collect()
            }
            Kind::Window {
                args,
                partition,
                order,
                ..
            } => {
                let order = order.iter_mut().map(|sort| &mut sort.expr);
                args.iter_mut().chain(partition).chain(order).collect()
            }
            Kind::Subquery { operand, .. } => operand.as_deref_mut().into_iter().collect(),
        }
    }

    /// This one and all below it, those of subqueries included, from the top.
    pub fn walk_mut(&mut self, visit: &mut dyn FnMut(&mut Expr)) {
        visit(self);
        for part in self.parts_mut() {
            part.walk_mut(visit);
        }
        if let Kind::Subquery { query, .. } = &mut self.kind {
            query.walk_mut(visit);
        }
    }

    /// The subquery in this very expression.
    pub fn subquery_mut(&mut self) -> Option<&mut Select> {
        match &mut self.kind {
            Kind::Subquery { query, .. } => Some(query),
            _ => None,
        }
    }
}

impl Select {
    /// All expressions that stand in it itself.
    pub fn exprs_mut(&mut self) -> Vec<&mut Expr> {
        let keys = self.grouping.iter_mut().flat_map(|g| &mut g.keys);
        let on = self.from.iter_mut().flat_map(|r| &mut r.on);
        let outputs = self.outputs.iter_mut();
        outputs
            .chain(on)
            .chain(&mut self.filter)
            .chain(keys)
            .chain(&mut self.having)
            .collect()
    }

    pub fn walk_mut(&mut self, visit: &mut dyn FnMut(&mut Expr)) {
        for expr in self.exprs_mut() {
            expr.walk_mut(visit);
        }
        for relation in &mut self.from {
            if let Source::Derived(query) = &mut relation.source {
                query.walk_mut(visit);
            }
        }
    }

    /// Visits this one and those nested in it, from the top; `nested` is false for the top.
    pub fn selects_mut(&mut self, nested: bool, visit: &mut dyn FnMut(&mut Select, bool)) {
        visit(self, nested);
        for relation in &mut self.from {
            if let Source::Derived(query) = &mut relation.source {
                query.selects_mut(true, visit);
            }
        }
        for expr in self.exprs_mut() {
            subqueries_mut(expr, visit);
        }
    }
}

fn subqueries_mut(expr: &mut Expr, visit: &mut dyn FnMut(&mut Select, bool)) {
    if let Some(query) = expr.subquery_mut() {
        query.selects_mut(true, visit);
    }
    for part in expr.parts_mut() {
        subqueries_mut(part, visit);
    }
}

impl Query {
    pub fn walk_mut(&mut self, visit: &mut dyn FnMut(&mut Expr)) {
        match self {
            Query::Select(select) => select.walk_mut(visit),
            Query::Set { left, right, .. } => {
                left.walk_mut(visit);
                right.walk_mut(visit);
            }
            Query::Recursive { left, right, .. } => {
                left.walk_mut(visit);
                right.walk_mut(visit);
            }
        }
    }

    pub fn selects_mut(&mut self, visit: &mut dyn FnMut(&mut Select, bool)) {
        match self {
            Query::Select(select) => select.selects_mut(false, visit),
            Query::Set { left, right, .. } => {
                left.selects_mut(visit);
                right.selects_mut(visit);
            }
            Query::Recursive { left, right, .. } => {
                left.selects_mut(true, visit);
                right.selects_mut(true, visit);
            }
        }
    }

    /// Whether its ORDER BY leaves no choice.
    pub fn is_ordered(&self) -> bool {
        match self {
            Query::Select(select) => !select.order.is_empty() && !select.ties,
            Query::Set { ordered, .. } => *ordered,
            Query::Recursive { .. } => false,
        }
    }
}
