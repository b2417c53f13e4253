//! Random queries.

use super::catalog::COMPARABLE;
use super::data::{EMPTY, LARGE, SMALL};
use super::expressions::{Generator, Leaf, Scope, Wish};
use super::tree::{Expr, Grouping, Join, Kind, OutputSort, Query, Relation, Select, Sets, Source};
use super::types::Type;

const SET_OPERATIONS: &[&str] = &[
    "UNION",
    "UNION ALL",
    "INTERSECT",
    "INTERSECT ALL",
    "EXCEPT",
    "EXCEPT ALL",
];

impl Generator<'_> {
    pub fn query(&mut self) -> Query {
        self.aliases = 0;
        self.wild = self.random.chance(20);
        if self.random.chance(12) {
            return self.set_operation();
        }
        if self.random.chance(4) {
            return self.recursion();
        }
        Query::Select(Box::new(self.select()))
    }

    fn set_operation(&mut self) -> Query {
        let operation = *self.random.one_of(SET_OPERATIONS);
        let all = operation == "UNION ALL";
        let count = self.random.below(3) + 1;
        let types: Vec<Type> = (0..count)
            .map(|_| match self.any_type() {
                // What is equal must look the same.
                ty if ty.varies() && !all => Type::Int4,
                ty => ty,
            })
            .collect();
        let left = self.select_of(&types, !all);
        let mut right = self.select_of(&types, !all);
        if self.random.chance(15) {
            let third = self.select_of(&types, !all);
            right = set(operation, right, third);
        }
        let mut query = set(operation, left, right);
        if let Query::Set { ordered, limit, .. } = &mut query {
            // Ties of values that vary would be no ties to see.
            *ordered = !types.iter().any(|ty| ty.varies()) && self.random.chance(50);
            *limit = (*ordered && self.random.chance(40)).then(|| self.few());
        }
        query
    }

    /// Of small tables: each row of a step has many in the next one.
    fn recursion(&mut self) -> Query {
        let operation = *self.random.one_of(&["UNION", "UNION ALL"]);
        let all = operation == "UNION ALL";
        let mut types = vec![Type::Int4];
        for _ in 0..self.random.below(3) {
            types.push(match self.any_type() {
                // What is equal must look the same.
                ty if ty.varies() && !all => Type::Int4,
                ty => ty,
            });
        }
        Query::Recursive {
            operation,
            left: Box::new(self.select_at(2, &types, !all)),
            right: Box::new(self.select_at(2, &types, !all)),
        }
    }

    fn select_of(&mut self, types: &[Type], uniform: bool) -> Query {
        Query::Select(Box::new(self.select_at(0, types, uniform)))
    }

    /// Outputs of these types, from one table.
    fn select_at(&mut self, at: usize, types: &[Type], uniform: bool) -> Select {
        let (relation, scope) = self.table(at);
        let outputs = types
            .iter()
            .map(|&ty| {
                let depth = if self.random.chance(70) { 0 } else { 1 };
                let wish = Wish {
                    uniform,
                    ..Wish::any(ty, depth)
                };
                self.expr(&scope, wish)
            })
            .collect();
        let filter = self.conditions(&scope, false);
        Select {
            outputs,
            filter,
            from: vec![relation],
            ..Select::default()
        }
    }

    fn select(&mut self) -> Select {
        let (from, scope) = self.from(false);
        let filter = self.conditions(&scope, true);
        let mut select = Select {
            from,
            filter,
            ..Select::default()
        };
        if self.random.chance(42) {
            self.group(&mut select, &scope);
        } else {
            self.outputs(&mut select, &scope);
        }
        self.order(&mut select);
        select
    }

    fn outputs(&mut self, select: &mut Select, scope: &Scope) {
        select.distinct = self.random.chance(12);
        for _ in 0..=self.random.below(4) {
            let ty = self.any_type();
            let depth = *self.random.one_of(&[0, 1, 2, 3]);
            let output = if select.distinct {
                let ty = if ty == Type::Interval { Type::Int4 } else { ty };
                self.expr(scope, Wish::uniform(ty, depth.min(1)))
            } else if self.random.chance(8) {
                self.scalar_subquery(scope)
            } else {
                self.expr(scope, Wish::any(ty, depth))
            };
            select.outputs.push(output);
        }
        if !select.distinct && self.random.chance(22) {
            for _ in 0..=self.random.below(2) {
                let window = self.window(scope);
                select.outputs.extend(window);
            }
        }
    }

    /// GROUP BY, aggregates, HAVING.
    fn group(&mut self, select: &mut Select, scope: &Scope) {
        let keys = self.group_keys(scope);
        let mut grouped = Scope {
            leaves: keys.clone(),
            keys: Vec::new(),
            plain: false,
        };
        let keys: Vec<Expr> = keys.into_iter().map(|leaf| leaf.expr).collect();
        for _ in 0..=self.random.below(3) {
            let Some(aggregate) = self.aggregate(scope, None) else {
                continue;
            };
            if is_near(&aggregate) {
                select.outputs.push(aggregate);
            } else {
                grouped.leaves.push(Leaf {
                    expr: aggregate,
                    tame: false,
                });
            }
        }
        for leaf in grouped.leaves.clone() {
            let output = match self.random.below(10) {
                0 => continue,
                1 | 2 => self.expr(&grouped, Wish::any(leaf.expr.ty, 2)),
                _ => leaf.expr,
            };
            select.outputs.push(output);
        }
        if select.outputs.is_empty() {
            select.outputs.push(Expr::literal(Type::Int4, Some("1")));
        }
        if self.random.chance(25) {
            let having = match self.random.chance(70) {
                true => self.comparison(&grouped),
                false => self.expr(&grouped, Wish::any(Type::Bool, 2)),
            };
            select.having.push(having);
        }
        let sets = (!keys.is_empty() && self.random.chance(8))
            .then(|| *self.random.one_of(&[Sets::Rollup, Sets::Cube]));
        select.grouping = Some(Grouping { keys, sets });
    }

    fn group_keys(&mut self, scope: &Scope) -> Vec<Leaf> {
        let count = *self.random.one_of(&[0, 1, 1, 1, 2, 2, 3]);
        (0..count)
            .map(|_| {
                let leaves = scope.leaves.iter().filter(|leaf| leaf.expr.uniform);
                let leaves: Vec<&Leaf> = leaves.collect();
                if !leaves.is_empty() && self.random.chance(75) {
                    return (*self.random.one_of(&leaves)).clone();
                }
                let ty = match self.any_type() {
                    Type::Interval => Type::Int4,
                    ty => ty,
                };
                Leaf {
                    expr: self.expr(scope, Wish::uniform(ty, 1)),
                    tame: false,
                }
            })
            .collect()
    }

    fn order(&mut self, select: &mut Select) {
        let grouping_sets = select.grouping.as_ref().is_some_and(|g| g.sets.is_some());
        let outputs = select.outputs.iter().enumerate();
        let sortable: Vec<usize> = outputs
            .filter(|(_, output)| !is_near(output))
            .map(|(at, _)| at)
            .collect();
        // The rows of different grouping sets may have the same keys.
        if grouping_sets || sortable.is_empty() || self.random.chance(45) {
            return;
        }
        for _ in 0..=self.random.below(2) {
            let sort = OutputSort {
                output: *self.random.one_of(&sortable),
                descending: self.random.chance(40),
                nulls_first: self.nulls(),
            };
            select.order.push(sort);
        }
        select.distinct_on = !select.distinct && self.random.chance(8);
        if self.random.chance(45) {
            select.limit = Some(self.few());
            select.ties = !select.distinct_on && self.random.chance(20);
            select.offset = (!select.ties && self.random.chance(25)).then(|| self.few());
        }
    }

    fn few(&mut self) -> u64 {
        *self.random.one_of(&[0, 1, 3, 10, 50])
    }

    /// The relations, and what they give.
    fn from(&mut self, nested: bool) -> (Vec<Relation>, Scope) {
        let count = match (nested, self.random.below(20)) {
            (true, 0..17) | (false, 0..9) => 1,
            (true, _) | (false, 9..17) => 2,
            _ => 3,
        };
        let mut relations: Vec<Relation> = Vec::new();
        let mut scope = Scope::default();
        for at in 0..count {
            let (mut relation, right) = if !nested && at < 2 && self.random.chance(15) {
                self.derived()
            } else if at > 0 && self.random.chance(5) {
                self.sets()
            } else {
                self.table(at)
            };
            if at == 0 {
                scope = right;
            } else {
                self.join(&mut relation, &scope, &right, count == 2);
                scope.add(right);
            }
            relations.push(relation);
        }
        (relations, scope)
    }

    /// The third one of a query is small.
    fn table(&mut self, at: usize) -> (Relation, Scope) {
        let all: &[&[&str]] = match at {
            0 | 1 => &[LARGE, LARGE, LARGE, LARGE, SMALL],
            _ => &[SMALL],
        };
        let name = if self.random.chance(3) {
            EMPTY
        } else {
            let names = *self.random.one_of(all);
            *self.random.one_of(names)
        };
        let alias = self.alias();
        let scope = Scope::of_table(&alias);
        let relation = Relation {
            source: Source::Table(name),
            alias,
            join: Join::Inner,
            on: Vec::new(),
            keys: scope.keys.clone(),
        };
        (relation, scope)
    }

    pub(super) fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("r{}", self.aliases)
    }

    /// A subquery in FROM.
    fn derived(&mut self) -> (Relation, Scope) {
        let (from, inner) = self.from(true);
        let filter = self.conditions(&inner, false);
        let mut select = Select {
            from,
            filter,
            ..Select::default()
        };
        let mut plain = inner.plain;
        let keys = if self.random.chance(45) {
            plain = false;
            self.group_derived(&mut select, &inner)
        } else {
            select.outputs.clone_from(&inner.keys);
            for _ in 0..4 {
                let ty = self.any_type();
                let depth = if self.random.chance(70) { 0 } else { 1 };
                let output = self.expr(&inner, Wish::any(ty, depth));
                select.outputs.push(output);
            }
            inner.keys.len()
        };
        if self.random.chance(15) {
            select.order.push(OutputSort {
                output: 0,
                descending: self.random.chance(50),
                nulls_first: None,
            });
            select.limit = Some(self.few());
        }
        let alias = self.alias();
        let outputs = select.outputs.iter().zip(1..);
        let leaves: Vec<Leaf> = outputs
            .map(|(output, number)| Leaf {
                expr: Expr::column(format!("{alias}.c{number}"), output.ty, output.uniform),
                tame: inner
                    .leaves
                    .iter()
                    .any(|leaf| leaf.tame && same_column(leaf, output)),
            })
            .collect();
        let keys: Vec<Expr> = leaves
            .iter()
            .take(keys)
            .map(|leaf| leaf.expr.clone())
            .collect();
        let relation = Relation {
            source: Source::Derived(Box::new(select)),
            alias,
            join: Join::Inner,
            on: Vec::new(),
            keys: keys.clone(),
        };
        let scope = Scope {
            leaves,
            keys,
            plain,
        };
        (relation, scope)
    }

    /// Groups first, then aggregates; the number of the former.
    fn group_derived(&mut self, select: &mut Select, inner: &Scope) -> usize {
        let keys: Vec<Expr> = self
            .group_keys(inner)
            .into_iter()
            .map(|leaf| leaf.expr)
            .collect();
        select.outputs.clone_from(&keys);
        for ty in [Some(Type::Int8), None] {
            let aggregate = self.aggregate(inner, ty);
            select
                .outputs
                .extend(aggregate.filter(|expr| !is_near(expr)));
        }
        let count = keys.len();
        select.grouping = Some(Grouping { keys, sets: None });
        count
    }

    fn join(&mut self, relation: &mut Relation, left: &Scope, right: &Scope, only: bool) {
        let small = matches!(relation.source, Source::Table(name) if !LARGE.contains(&name));
        relation.join = match self.random.below(20) {
            0..9 => Join::Inner,
            9..14 => Join::Left,
            14..16 => Join::Right,
            16..18 => Join::Full,
            _ if small && only => Join::Cross,
            _ => Join::Inner,
        };
        if relation.join == Join::Cross {
            return;
        }
        let full = relation.join == Join::Full;
        if only && !full && self.random.chance(10) {
            let condition = self.pair(left, right, "<");
            relation.on.extend(condition);
            return;
        }
        for _ in 0..=self.random.below(10) / 7 {
            let condition = self.pair(left, right, "=");
            relation.on.extend(condition);
        }
        // FULL JOIN takes nothing but equality.
        if !full && self.random.chance(25) {
            let mut both = left.clone();
            both.add(right.clone());
            let condition = match self.random.chance(50) {
                true => self.comparison(&both),
                false => self.expr(&both, Wish::any(Type::Bool, 1)),
            };
            relation.on.push(condition);
        }
        if relation.on.is_empty() {
            relation.join = Join::Inner;
            relation.on.push(self.comparison(right));
        }
    }

    /// A comparison of a left and a right column.
    fn pair(&mut self, left: &Scope, right: &Scope, op: &str) -> Option<Expr> {
        // A few numbers on either side have the most partners.
        let easy = self.random.chance(45);
        let fits = |leaf: &&Leaf| {
            let ty = leaf.expr.ty;
            match easy {
                true => leaf.tame && matches!(ty, Type::Int4 | Type::Int8),
                false => !matches!(ty, Type::Bool | Type::Interval),
            }
        };
        let rights: Vec<&Leaf> = right.leaves.iter().filter(fits).collect();
        if rights.is_empty() {
            return None;
        }
        let right = self.random.one_of(&rights).expr.clone();
        let comparable = |leaf: &&Leaf| {
            let pair = (leaf.expr.ty, right.ty);
            pair.0 == pair.1 || COMPARABLE.contains(&pair) || COMPARABLE.contains(&(pair.1, pair.0))
        };
        let lefts: Vec<&Leaf> = left.leaves.iter().filter(fits).filter(comparable).collect();
        if lefts.is_empty() {
            return None;
        }
        let left = self.random.one_of(&lefts).expr.clone();
        Some(self.compared(op, left, right))
    }

    fn conditions(&mut self, scope: &Scope, subqueries: bool) -> Vec<Expr> {
        let count = *self.random.one_of(&[0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
        (0..count)
            .map(|_| {
                if subqueries && self.random.chance(22) {
                    return self.condition_on_subquery(scope);
                }
                if self.random.chance(50) {
                    self.comparison(scope)
                } else {
                    self.expr(scope, Wish::any(Type::Bool, 3))
                }
            })
            .collect()
    }

    fn condition_on_subquery(&mut self, scope: &Scope) -> Expr {
        let (relation, inner) = self.table(1);
        let mut query = Select {
            from: vec![relation],
            ..Select::default()
        };
        if self.random.chance(50) {
            query.filter.push(self.comparison(&inner));
        }
        if self.random.chance(45) {
            let correlation = self.pair(scope, &inner, "=");
            query.filter.extend(correlation);
            if self.random.chance(20) {
                let another = self.pair(scope, &inner, "<>");
                query.filter.extend(another);
            }
            query.outputs.push(Expr::literal(Type::Int4, Some("1")));
            let form = *self.random.one_of(&["EXISTS ($q)", "NOT EXISTS ($q)"]);
            return subquery(form, None, query, Type::Bool);
        }
        if self.random.chance(25) {
            let correlation = self.pair(scope, &inner, "=");
            query.filter.extend(correlation);
        }
        if self.random.chance(30) {
            return self.compared_with_aggregate(scope, &inner, query);
        }
        self.membership(scope, &inner, query)
    }

    /// `x < (SELECT aggregate …)`
    fn compared_with_aggregate(&mut self, scope: &Scope, inner: &Scope, mut query: Select) -> Expr {
        let result = *self.random.one_of(&[
            Type::Int8,
            Type::Numeric,
            Type::Int4,
            Type::Date,
            Type::Text,
            Type::Float8,
        ]);
        query.outputs.extend(self.aggregate(inner, Some(result)));
        query.grouping = Some(Grouping {
            keys: Vec::new(),
            sets: None,
        });
        let operand = self.expr(scope, Wish::any(result, 1));
        let form = *self
            .random
            .one_of(&["$1 < ($q)", "$1 = ($q)", "$1 >= ($q)", "$1 <> ($q)"]);
        subquery(form, Some(operand), query, Type::Bool)
    }

    /// `IN`, `NOT IN`, `ANY`, `ALL`
    fn membership(&mut self, scope: &Scope, inner: &Scope, mut query: Select) -> Expr {
        let fits = |leaf: &&Leaf| leaf.expr.ty != Type::Interval;
        let outputs: Vec<&Leaf> = inner.leaves.iter().filter(fits).collect();
        let output = self.random.one_of(&outputs).expr.clone();
        let operand = self.leaf(scope, Wish::any(output.ty, 0));
        query.outputs.push(output);
        let form = *self.random.one_of(&[
            "$1 IN ($q)",
            "$1 NOT IN ($q)",
            "$1 NOT IN ($q)",
            "$1 > ALL ($q)",
            "$1 <= ANY ($q)",
            "$1 <> ALL ($q)",
        ]);
        subquery(form, Some(operand), query, Type::Bool)
    }

    /// In the list of outputs: an aggregate, or a value of the one row that has some number.
    fn scalar_subquery(&mut self, scope: &Scope) -> Expr {
        let (relation, inner) = self.table(1);
        let mut query = Select {
            from: vec![relation],
            ..Select::default()
        };
        if self.random.chance(40) {
            let key = inner.keys.first().cloned();
            let number = self.leaf(scope, Wish::tame(Type::Int4, 0));
            let row = key.map(|key| self.compared("=", key, number));
            query.filter.extend(row);
            let ty = self.any_type();
            let output = self.leaf(&inner, Wish::any(ty, 0));
            query.outputs.push(output);
        } else {
            let correlation = self.pair(scope, &inner, "=");
            query.filter.extend(correlation);
            query
                .outputs
                .extend(self.aggregate(&inner, Some(Type::Int8)));
            query.grouping = Some(Grouping {
                keys: Vec::new(),
                sets: None,
            });
        }
        let ty = query.outputs.first().map_or(Type::Int8, |output| output.ty);
        subquery("($q)", None, query, ty)
    }
}

fn set(operation: &'static str, left: Query, right: Query) -> Query {
    Query::Set {
        operation,
        left: Box::new(left),
        right: Box::new(right),
        ordered: false,
        limit: None,
    }
}

fn subquery(form: &'static str, operand: Option<Expr>, query: Select, ty: Type) -> Expr {
    Expr {
        ty,
        uniform: !ty.varies() || query.outputs.iter().all(|output| output.uniform),
        kind: Kind::Subquery {
            form,
            operand: operand.map(Box::new),
            query: Box::new(query),
        },
    }
}

fn same_column(leaf: &Leaf, output: &Expr) -> bool {
    match (&leaf.expr.kind, &output.kind) {
        (Kind::Column(one), Kind::Column(other)) => one == other,
        _ => false,
    }
}

/// Whether it is the same only up to rounding.
pub fn is_near(expr: &Expr) -> bool {
    matches!(&expr.kind, Kind::Aggregate { function, .. } if function.has("near"))
}
