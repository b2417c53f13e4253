//! What an aggregation groups by: with ROLLUP, CUBE and GROUPING SETS several sets of columns. GROUPING().

use super::Lowered;
use super::compare::comparison;
use super::node::{self, Node, array, get, ints, nodes};
use super::sub::{Column, Sub, column_expr};
use super::table::sql_type;
use super::tree::{in_base, over};
use pg_lake_plan::ir::{CompareOp, Expr, ExprKind, Plan};
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;
use pgrx::pg_sys::AggStrategy::{AGG_HASHED, AGG_MIXED};

#[derive(Default)]
pub struct Keys {
    /// Outputs of the input, from 1.
    pub columns: Vec<i16>,
    pub operators: Vec<pg_sys::Oid>,
    pub collations: Vec<pg_sys::Oid>,
    /// Which of the columns each set has. None: one set with all of them.
    pub sets: Vec<Vec<u32>>,
}

impl Keys {
    pub fn of(agg: &pg_sys::Agg) -> Keys {
        let mut keys = Keys {
            columns: array(agg.grpColIdx, agg.numCols),
            operators: array(agg.grpOperators, agg.numCols),
            collations: array(agg.grpCollations, agg.numCols),
            sets: vec![],
        };
        if !agg.groupingSets.is_null() || !agg.chain.is_null() {
            keys.add(agg);
            for chained in nodes(agg.chain).into_iter().filter_map(get::<pg_sys::Agg>) {
                keys.add(chained);
            }
        }
        keys
    }

    /// A node hashes by all of its columns, or sorts by them: then its sets are their first ones.
    fn add(&mut self, agg: &pg_sys::Agg) {
        let operators = array(agg.grpOperators, agg.numCols);
        let collations = array(agg.grpCollations, agg.numCols);
        let columns = array(agg.grpColIdx, agg.numCols).into_iter();
        let mut places = vec![];
        for ((column, operator), collation) in columns.zip(operators).zip(collations) {
            let known = self.columns.iter().position(|known| *known == column);
            places.push(known.unwrap_or(self.columns.len()) as u32);
            if known.is_none() {
                self.columns.push(column);
                self.operators.push(operator);
                self.collations.push(collation);
            }
        }
        let hashed = matches!(agg.aggstrategy, AGG_HASHED | AGG_MIXED);
        let lengths: Vec<usize> = match hashed || agg.groupingSets.is_null() {
            true => vec![places.len()],
            false => nodes(agg.groupingSets)
                .into_iter()
                .map(|set| ints(set.cast()).len())
                .collect(),
        };
        for length in lengths {
            let mut set: Vec<u32> = places.iter().take(length).copied().collect();
            set.sort_unstable();
            set.dedup();
            self.sets.push(set);
        }
    }
}

/// The calls of GROUPING(), each once.
pub struct Groupings {
    calls: Vec<Grouping>,
}

struct Grouping {
    call: Node,
    /// By set.
    values: Vec<i32>,
}

impl Groupings {
    /// Those within expressions over the outputs of the input.
    pub fn within(exprs: impl IntoIterator<Item = Node>, keys: &Keys) -> Groupings {
        let mut groupings = Groupings { calls: vec![] };
        if keys.sets.is_empty() {
            return groupings;
        }
        for expr in exprs {
            node::visit(expr, &mut |node| {
                let Some(call) = get::<pg_sys::GroupingFunc>(node) else {
                    return true;
                };
                let values = values(call, keys);
                if groupings.place(&values).is_none() {
                    groupings.calls.push(Grouping { call: node, values });
                }
                false
            });
        }
        groupings
    }

    pub fn count(&self) -> usize {
        self.calls.len()
    }

    fn place(&self, values: &[i32]) -> Option<usize> {
        self.calls.iter().position(|known| known.values == values)
    }

    /// The column of a call; the first one has this number (from 1).
    pub fn var(&self, call: Node, keys: &Keys, first: usize) -> Lowered<Node> {
        if keys.sets.is_empty() {
            return Ok(zero());
        }
        let place =
            get::<pg_sys::GroupingFunc>(call).and_then(|call| self.place(&values(call, keys)));
        let place = place.ok_or("a malformed GROUPING()")?;
        Ok(node::output_var(pg_sys::INDEX_VAR, first + place, call))
    }

    pub fn columns(&self, input: &Sub) -> Lowered<Vec<Column>> {
        let mut columns = vec![];
        for grouping in &self.calls {
            let call = over(grouping.call, pg_sys::OUTER_VAR, input)?;
            columns.push(Column {
                ty: int(),
                node: in_base(call, &input.columns),
            });
        }
        Ok(columns)
    }

    /// Puts the columns after those of the groups. `columns` are what comes out then, the number of the set last.
    pub fn project(&self, plan: Plan, groups: usize, columns: &[Column]) -> Plan {
        if self.calls.is_empty() {
            return plan;
        }
        let added = self.calls.len();
        let set = column_expr(columns.len() - added - 1, &int());
        let exprs = columns.iter().enumerate().map(|(at, column)| {
            if at < groups {
                return column_expr(at, &column.ty);
            }
            match self.calls.get(at - groups) {
                Some(grouping) => grouping.of(&set),
                None => column_expr(at - added, &column.ty),
            }
        });
        Plan::Project {
            exprs: exprs.collect(),
            input: Box::new(plan),
        }
    }
}

impl Grouping {
    /// The value in a set.
    fn of(&self, set: &Expr) -> Expr {
        let branches = (0..).zip(&self.values).map(|(number, value)| {
            let test = comparison(CompareOp::Eq, set.clone(), constant(number));
            (test, constant(*value))
        });
        Expr {
            ty: int(),
            kind: ExprKind::Case {
                branches: branches.collect(),
                otherwise: None,
            },
        }
    }
}

/// A bit for each argument, the last one's is the lowest: set where the set doesn't have that column.
fn values(call: &pg_sys::GroupingFunc, keys: &Keys) -> Vec<i32> {
    let args = ints(call.cols);
    let of = |set: &Vec<u32>| {
        args.iter().fold(0, |value, arg| {
            let place = (keys.columns.iter()).position(|column| i32::from(*column) == *arg);
            let has = place.is_some_and(|place| set.contains(&(place as u32)));
            (value << 1) | i32::from(!has)
        })
    };
    keys.sets.iter().map(of).collect()
}

/// What GROUPING() is without grouping sets.
fn zero() -> Node {
    let datum = pg_sys::Datum::from(0);
    // SAFETY: makes a node.
    unsafe {
        pg_sys::makeConst(
            pg_sys::INT4OID,
            -1,
            pg_sys::InvalidOid,
            size_of::<i32>() as i32,
            datum,
            false,
            true,
        )
        .cast()
    }
}

/// The number of the set that a row is of.
pub fn set_column() -> Column {
    Column {
        ty: int(),
        // SAFETY: makes a node.
        node: unsafe { pg_sys::makeNullConst(pg_sys::INT4OID, -1, pg_sys::InvalidOid).cast() },
    }
}

fn int() -> SqlType {
    sql_type(LakeType::Int4, pg_sys::INT4OID)
}

fn constant(value: i32) -> Expr {
    Expr {
        ty: int(),
        kind: ExprKind::Const(Some(Value::I32(value))),
    }
}
