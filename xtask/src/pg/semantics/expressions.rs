//! Random typed expressions.
//!
//! In most queries a call that can fail gets tame arguments: if every second query ended with an error, little
//! would be compared. In a `wild` one it may get any.

use super::catalog::Catalog;
use super::data::COLUMNS;
use super::tree::{Expr, Function, Kind, Param, Sort};
use super::types::{ALL, Type};
use crate::pg::random::Random;
use std::collections::BTreeMap;
use std::rc::Rc;

pub struct Generator<'a> {
    pub random: &'a mut Random,
    pub catalog: &'a Catalog,
    /// How often a function was called: rare ones are preferred.
    pub used: BTreeMap<String, u32>,
    /// Relations of the query so far.
    pub aliases: usize,
    pub wild: bool,
}

/// What an expression can be made of.
#[derive(Clone, Default)]
pub struct Scope {
    pub leaves: Vec<Leaf>,
    /// They tell its rows apart.
    pub keys: Vec<Expr>,
    /// Whether its values are rows' own, and don't stand for others that are equal to them.
    pub plain: bool,
}

#[derive(Clone)]
pub struct Leaf {
    pub expr: Expr,
    pub tame: bool,
}

/// What kind of expression is wanted.
#[derive(Clone, Copy)]
pub struct Wish {
    pub ty: Type,
    pub depth: u32,
    pub tame: bool,
    pub uniform: bool,
}

impl Wish {
    pub fn any(ty: Type, depth: u32) -> Wish {
        Wish {
            ty,
            depth,
            tame: false,
            uniform: false,
        }
    }

    pub fn uniform(ty: Type, depth: u32) -> Wish {
        Wish {
            uniform: true,
            ..Wish::any(ty, depth)
        }
    }

    pub fn tame(ty: Type, depth: u32) -> Wish {
        Wish {
            tame: true,
            ..Wish::any(ty, depth)
        }
    }
}

impl Scope {
    /// The columns of a table.
    pub fn of_table(alias: &str) -> Scope {
        let column = |column: &super::data::Column| Leaf {
            expr: Expr::column(format!("{alias}.{}", column.name), column.ty, true),
            tame: column.tame,
        };
        let columns = COLUMNS.iter().filter(|column| ALL.contains(&column.ty));
        let leaves: Vec<Leaf> = columns.map(column).collect();
        Scope {
            keys: leaves
                .first()
                .map(|id| id.expr.clone())
                .into_iter()
                .collect(),
            leaves,
            plain: true,
        }
    }

    pub fn add(&mut self, other: Scope) {
        self.leaves.extend(other.leaves);
        self.keys.extend(other.keys);
        self.plain &= other.plain;
    }
}

impl Generator<'_> {
    pub fn expr(&mut self, scope: &Scope, wish: Wish) -> Expr {
        if wish.depth == 0 || self.random.chance(30) {
            return self.leaf(scope, wish);
        }
        match self.function(scope, wish) {
            Some(function) => self.call(scope, function, wish),
            None => self.leaf(scope, wish),
        }
    }

    /// A column or a literal.
    pub fn leaf(&mut self, scope: &Scope, wish: Wish) -> Expr {
        let fits = |leaf: &&Leaf| {
            leaf.expr.ty == wish.ty
                && (leaf.tame || !wish.tame)
                && (leaf.expr.uniform || !wish.uniform)
        };
        let fitting: Vec<&Leaf> = scope.leaves.iter().filter(fits).collect();
        if !fitting.is_empty() && self.random.chance(85) {
            return self.random.one_of(&fitting).expr.clone();
        }
        self.literal(wish.ty, wish.tame)
    }

    pub fn literal(&mut self, ty: Type, tame: bool) -> Expr {
        if !tame && self.random.chance(6) {
            return Expr::literal(ty, None);
        }
        let values = if tame { ty.tame() } else { ty.nasty() };
        let value = *self.random.one_of(values);
        Expr::literal(ty, Some(value))
    }

    fn function(&mut self, scope: &Scope, wish: Wish) -> Option<Rc<Function>> {
        let catalog = self.catalog;
        let logical = wish.ty == Type::Bool && self.random.chance(20);
        let fits = |function: &&Rc<Function>| {
            function.result == wish.ty
                && (scope.plain || !function.has("shows"))
                && (self.wild || !function.has("wild"))
                && (!logical || function.params.iter().all(|p| p.ty == Type::Bool))
                && (!wish.tame || keeps_tame(function))
                && (!wish.uniform || !wish.ty.varies() || keeps_uniform(function))
        };
        let fitting: Vec<&Rc<Function>> = catalog.functions.iter().filter(fits).collect();
        self.rare(&fitting)
    }

    /// One of some that has been used least.
    pub fn rare(&mut self, functions: &[&Rc<Function>]) -> Option<Rc<Function>> {
        const SOME: usize = 6;
        if functions.is_empty() {
            return None;
        }
        let uses = |function: &Function| self.used.get(&function.feature).copied().unwrap_or(0);
        let mut chosen = *self.random.one_of(functions);
        for _ in 1..SOME {
            let other = *self.random.one_of(functions);
            if uses(other) < uses(chosen) {
                chosen = other;
            }
        }
        *self.used.entry(chosen.feature.clone()).or_default() += 1;
        Some(Rc::clone(chosen))
    }

    fn call(&mut self, scope: &Scope, function: Rc<Function>, wish: Wish) -> Expr {
        let careless = self.wild && self.random.chance(50);
        let careful = !careless && !function.raises.is_empty();
        let args: Vec<Expr> = function
            .params
            .iter()
            .map(|param| {
                let wish = Wish {
                    ty: param.ty,
                    depth: wish.depth - 1,
                    tame: wish.tame || careful,
                    uniform: wish.uniform,
                };
                self.arg(scope, *param, wish)
            })
            .collect();
        applied(function, args)
    }

    fn arg(&mut self, scope: &Scope, param: Param, wish: Wish) -> Expr {
        if param.literal {
            self.literal(param.ty, true)
        } else {
            self.expr(scope, wish)
        }
    }

    /// A column, or what stands for one, beside a value of its type.
    pub fn comparison(&mut self, scope: &Scope) -> Expr {
        let fits = |leaf: &&Leaf| leaf.expr.ty != Type::Bool;
        let leaves: Vec<&Leaf> = scope.leaves.iter().filter(fits).collect();
        if leaves.is_empty() {
            return self.expr(scope, Wish::any(Type::Bool, 1));
        }
        let leaf = (*self.random.one_of(&leaves)).clone();
        let ty = leaf.expr.ty;
        let op = *self.random.one_of(&["=", "<>", "<", "<=", ">", ">="]);
        let value = self.literal(ty, leaf.tame);
        self.compared(op, leaf.expr, value)
    }

    /// Two expressions of one type, or of types that are comparable, by an operator of the catalog.
    pub fn compared(&mut self, op: &str, left: Expr, right: Expr) -> Expr {
        let form = format!("$1 {op} $2");
        let mut functions = self.catalog.functions.iter();
        let function = functions.find(|function| {
            let [one, other] = function.params.as_slice() else {
                return false;
            };
            function.form == form && one.ty == left.ty && other.ty == right.ty
        });
        match function {
            Some(function) => applied(Rc::clone(function), vec![left, right]),
            None => Expr::literal(Type::Bool, Some("true")),
        }
    }

    /// An aggregate over rows of the scope; of a certain type, if one is asked for.
    pub fn aggregate(&mut self, scope: &Scope, result: Option<Type>) -> Option<Expr> {
        let catalog = self.catalog;
        let fits = |function: &&Rc<Function>| match result {
            Some(ty) => function.result == ty && !function.has("near"),
            None => true,
        };
        let fitting: Vec<&Rc<Function>> = catalog.aggregates.iter().filter(fits).collect();
        let function = self.rare(&fitting)?;
        let args = self.arguments(scope, &function);
        let distinct = function.form.contains("$d") && !args.is_empty() && self.random.chance(25);
        let order = match function.has("ordered") {
            true => scope.keys.clone(),
            false => Vec::new(),
        };
        let filtered = !function.has("enclosed") && self.random.chance(20);
        let filter = filtered.then(|| {
            let filter = if self.random.chance(50) {
                self.comparison(scope)
            } else {
                self.expr(scope, Wish::any(Type::Bool, 1))
            };
            Box::new(filter)
        });
        Some(Expr {
            ty: function.result,
            uniform: is_uniform(&function, &args),
            kind: Kind::Aggregate {
                function,
                args,
                distinct,
                order,
                filter,
            },
        })
    }

    /// Of an aggregate or a window function: what is added up must be exact, and what may stand for equal values
    /// must look like them.
    fn arguments(&mut self, scope: &Scope, function: &Function) -> Vec<Expr> {
        let exact = function.has("exact");
        let stands = function.has("same");
        let wish = |ty: Type, depth: u32| match (exact, stands) {
            (true, _) => Wish::tame(ty, 0),
            (false, true) => Wish::uniform(ty, depth),
            (false, false) => Wish::any(ty, depth),
        };
        let depth = if self.random.chance(60) { 0 } else { 2 };
        let params = function.params.iter();
        params
            .map(|param| self.arg(scope, *param, wish(param.ty, depth)))
            .collect()
    }

    pub fn window(&mut self, scope: &Scope) -> Option<Expr> {
        const PEERS: &[&str] = &[
            "RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
            "RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
            "GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
            "GROUPS BETWEEN 2 PRECEDING AND 1 FOLLOWING EXCLUDE GROUP",
            "GROUPS BETWEEN 1 PRECEDING AND 2 FOLLOWING EXCLUDE TIES",
            "RANGE BETWEEN CURRENT ROW AND CURRENT ROW EXCLUDE CURRENT ROW",
        ];
        const ROWS: &[&str] = &[
            "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
            "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
            "ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING",
            "ROWS UNBOUNDED PRECEDING",
            "ROWS BETWEEN 2 PRECEDING AND 2 FOLLOWING EXCLUDE CURRENT ROW",
            "ROWS BETWEEN 3 PRECEDING AND 1 FOLLOWING EXCLUDE GROUP",
        ];
        let catalog = self.catalog;
        let all: Vec<&Rc<Function>> = catalog.windows.iter().collect();
        let function = self.rare(&all)?;
        let args = self.arguments(scope, &function);
        let partition = self.some_leaves(scope, 2);
        let keys = self.some_leaves(scope, 2);
        let mut order: Vec<Sort> = keys.into_iter().map(|key| self.sort(key)).collect();
        let mut frame = None;
        let mut total = function.has("total");
        if function.has("frame")
            && !total
            && self.random.chance(25)
            && let Some((key, by_value)) = self.measured(scope)
        {
            order = vec![self.sort(key)];
            frame = Some(by_value);
        } else if function.has("frame") && !order.is_empty() && self.random.chance(60) {
            total |= self.random.chance(50);
            frame = Some(*self.random.one_of(if total { ROWS } else { PEERS }));
        }
        if total {
            let keys = scope.keys.iter().cloned();
            order.extend(keys.map(|expr| Sort {
                expr,
                descending: false,
                nulls_first: None,
            }));
        }
        Some(Expr {
            ty: function.result,
            uniform: is_uniform(&function, &args),
            kind: Kind::Window {
                function,
                args,
                partition,
                order,
                frame,
            },
        })
    }

    /// What a window can be ordered by to have a frame of values, and such a frame.
    fn measured(&mut self, scope: &Scope) -> Option<(Expr, &'static str)> {
        const NUMBERS: &[&str] = &[
            "RANGE BETWEEN 2 PRECEDING AND 3 FOLLOWING",
            "RANGE BETWEEN 4 PRECEDING AND 1 PRECEDING",
            "RANGE BETWEEN CURRENT ROW AND 1 FOLLOWING EXCLUDE CURRENT ROW",
            "RANGE BETWEEN UNBOUNDED PRECEDING AND 0 FOLLOWING EXCLUDE TIES",
        ];
        const FRACTIONS: &[&str] = &[
            "RANGE BETWEEN 1.5 PRECEDING AND 0.25 FOLLOWING",
            "RANGE BETWEEN 10.125 FOLLOWING AND 20 FOLLOWING",
        ];
        const TIMES: &[&str] = &[
            "RANGE BETWEEN '1 month 2 days' PRECEDING AND '36 hours' FOLLOWING",
            "RANGE BETWEEN '10 days' FOLLOWING AND '1 year' FOLLOWING EXCLUDE GROUP",
            "RANGE BETWEEN '02:00:00' PRECEDING AND UNBOUNDED FOLLOWING",
        ];
        let frames = |ty: Type| match ty {
            Type::Int2 | Type::Int4 | Type::Int8 => Some(NUMBERS),
            Type::Float4 | Type::Float8 | Type::Numeric => Some(FRACTIONS),
            Type::Date | Type::Timestamp | Type::Timestamptz => Some(TIMES),
            _ => None,
        };
        let tame = scope.leaves.iter().filter(|leaf| leaf.tame);
        let keys: Vec<(&Expr, &[&'static str])> = tame
            .filter_map(|leaf| Some((&leaf.expr, frames(leaf.expr.ty)?)))
            .collect();
        if keys.is_empty() {
            return None;
        }
        let (key, frames) = *self.random.one_of(&keys);
        Some((key.clone(), *self.random.one_of(frames)))
    }

    /// Fewer than `most` + 1.
    fn some_leaves(&mut self, scope: &Scope, most: u64) -> Vec<Expr> {
        if scope.leaves.is_empty() {
            return Vec::new();
        }
        let count = self.random.below(most + 1);
        (0..count)
            .map(|_| self.random.one_of(&scope.leaves).expr.clone())
            .collect()
    }

    fn sort(&mut self, expr: Expr) -> Sort {
        Sort {
            expr,
            descending: self.random.chance(40),
            nulls_first: self.nulls(),
        }
    }

    pub fn nulls(&mut self) -> Option<bool> {
        *self.random.one_of(&[None, None, Some(true), Some(false)])
    }

    pub fn any_type(&mut self) -> Type {
        *self.random.one_of(ALL)
    }
}

pub fn applied(function: Rc<Function>, args: Vec<Expr>) -> Expr {
    Expr {
        ty: function.result,
        uniform: is_uniform(&function, &args),
        kind: Kind::Apply { function, args },
    }
}

fn is_uniform(function: &Function, args: &[Expr]) -> bool {
    let result = function.result;
    !result.varies()
        || (result == Type::Numeric
            && (function.has("fixed")
                || (function.has("same") && args.iter().all(|arg| arg.uniform))))
}

fn keeps_uniform(function: &Function) -> bool {
    function.has("fixed") || function.has("same")
}

/// Sums, differences and products of few tame numbers are tame.
fn keeps_tame(function: &Function) -> bool {
    let number = |param: &Param| {
        let ty = param.ty;
        ty.is_float() || matches!(ty, Type::Int2 | Type::Int4 | Type::Int8 | Type::Numeric)
    };
    ["$1 + $2", "$1 - $2", "$1 * $2"].contains(&function.form.as_str())
        && function.params.iter().all(number)
}
