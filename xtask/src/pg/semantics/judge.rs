//! Whether heap's answer and iceberg's are the same.
//!
//! Values are compared as text, exactly, and in their order where ORDER BY leaves no choice. Two things are allowed:
//! -0 for 0 where either stands for a group, and floats that differ by rounding where they were added up in another
//! order (`near`).
//!
//! A query that ends with an error must do so on both sides, with one SQLSTATE. Postgres leaves it open in which order
//! and for which rows some expressions are evaluated, so this is allowed as well, if the SQLSTATE is among those that
//! the query's own calls raise:
//!
//! * Two different errors. More than one call fails, and which one comes first depends on the order of rows.
//! * An error on one side only, if a call that can fail is
//!   * in WHERE, ON or HAVING of a query with more than one relation, or with a subquery: whether a row gets there
//!     depends on the joins' order and kind;
//!   * in a subquery: its rows, or its outputs, may not be needed;
//!   * in the outputs of a query with LIMIT: those of rows beyond it may be computed or not. With LIMIT 0: anywhere.
//! * An error on heap only, if a call that can fail is in WHERE of a single table, beside another condition: the engine
//!   checks what can't fail first. The other way round it would be a guard that was lost, and is a difference.

use super::queries::is_near;
use super::tree::{Expr, Kind, Query, Select, Source};
use crate::client::{Reply, SqlError};
use crate::compare::{Order, Tolerance, difference};
use std::collections::BTreeSet;

pub enum Verdict {
    Same,
    /// The same error.
    SameError,
    /// One of the allowed differences between errors.
    AtLiberty,
    /// Heap took too long: nothing to compare with.
    TooSlow,
    /// The parser doesn't take it.
    Invalid(SqlError),
    Different(String),
}

/// What a query's answers may differ in.
#[derive(Default)]
pub struct Freedom {
    ordered: bool,
    zeros: bool,
    near: bool,
    /// What its calls can raise.
    sqlstates: BTreeSet<String>,
    /// Iceberg alone may end with an error.
    may_raise: bool,
    /// Heap alone may.
    may_pass: bool,
}

impl Freedom {
    pub fn of(query: &Query) -> Freedom {
        let mut freedom = Freedom {
            ordered: query.is_ordered(),
            zeros: matches!(query, Query::Set { .. } | Query::Recursive { .. }),
            ..Freedom::default()
        };
        let mut query = query.clone();
        query.walk_mut(&mut |expr| freedom.expr(expr));
        query.selects_mut(&mut |select, nested| freedom.select(select, nested));
        freedom
    }

    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            Kind::Apply { function, .. } => self.sqlstates.extend(function.raises.iter().cloned()),
            Kind::Aggregate { .. } | Kind::Window { .. } => self.zeros = true,
            _ => {}
        }
        self.near |= is_near(expr);
    }

    fn select(&mut self, select: &mut Select, nested: bool) {
        self.zeros |= select.distinct || select.grouping.is_some();
        let derived =
            |relation: &super::tree::Relation| matches!(relation.source, Source::Derived(_));
        let mut several = select.from.len() > 1 || select.from.iter().any(derived);
        for expr in select.exprs_mut() {
            expr.walk_mut(&mut |part| several |= part.subquery_mut().is_some());
        }
        let on = select.from.iter().flat_map(|relation| &relation.on);
        let conditions: Vec<&Expr> = select
            .filter
            .iter()
            .chain(&select.having)
            .chain(on)
            .collect();
        let in_conditions = conditions.iter().any(|expr| can_fail(expr));
        let in_outputs = select.outputs.iter().any(can_fail);
        let keys = select.grouping.iter().flat_map(|grouping| &grouping.keys);
        let anywhere = in_conditions || in_outputs || keys.into_iter().any(can_fail);
        let both = (in_conditions && several)
            || (anywhere && (nested || select.limit == Some(0)))
            || (in_outputs && select.limit.is_some());
        self.may_raise |= both;
        self.may_pass |= both || (in_conditions && conditions.len() > 1);
    }

    pub fn judge(&self, heap: &Reply, found: &Reply) -> Verdict {
        let known = |error: &SqlError| self.sqlstates.contains(&error.sqlstate);
        match (heap, found) {
            (Err(heap), _) if heap.sqlstate == "57014" => Verdict::TooSlow,
            (Err(heap), Err(found)) if heap.sqlstate == found.sqlstate => {
                if heap.sqlstate.starts_with("42") {
                    Verdict::Invalid(heap.clone())
                } else {
                    Verdict::SameError
                }
            }
            (Err(heap), Err(found)) if known(heap) && known(found) => Verdict::AtLiberty,
            (Err(heap), Ok(_)) if self.may_pass && known(heap) => Verdict::AtLiberty,
            (Ok(_), Err(found)) if self.may_raise && known(found) => Verdict::AtLiberty,
            (Err(heap), Err(found)) => Verdict::Different(format!("{found}\n  heap: {heap}")),
            (Err(heap), Ok(found)) => {
                let count = found.rows.len();
                Verdict::Different(format!("{count} rows\n  heap: {heap}"))
            }
            (Ok(heap), Err(found)) => {
                let count = heap.rows.len();
                Verdict::Different(format!("{found}\n  heap: {count} rows"))
            }
            (Ok(heap), Ok(found)) => {
                let order = if self.ordered {
                    Order::Total
                } else {
                    Order::None
                };
                let tolerance = Tolerance {
                    float: if self.near { 1e-9 } else { 0.0 },
                    zeros: self.zeros,
                };
                match difference(heap, found, order, tolerance) {
                    None => Verdict::Same,
                    Some(what) => Verdict::Different(what),
                }
            }
        }
    }
}

fn can_fail(expr: &Expr) -> bool {
    let mut expr = expr.clone();
    let mut found = false;
    expr.walk_mut(&mut |part| {
        if let Kind::Apply { function, .. } = &part.kind {
            found |= !function.raises.is_empty();
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::super::catalog::catalog;
    use super::super::expressions::applied;
    use super::super::tree::{Join, OutputSort, Relation};
    use super::super::types::Type;
    use super::*;
    use crate::client::Rows;
    use std::rc::Rc;

    fn error(sqlstate: &str) -> Reply {
        Err(SqlError {
            sqlstate: sqlstate.to_owned(),
            ..SqlError::default()
        })
    }

    fn quotient() -> Expr {
        let catalog = catalog();
        let mut functions = catalog.functions.iter();
        let divide = functions.find(|f| f.feature == "int4 / int4" && f.has("wild"));
        let column = Expr::column("a.k".to_owned(), Type::Int4, true);
        applied(Rc::clone(divide.unwrap()), vec![column.clone(), column])
    }

    fn from(alias: &str) -> Relation {
        Relation {
            source: Source::Table("a"),
            alias: alias.to_owned(),
            join: Join::Inner,
            on: Vec::new(),
            keys: Vec::new(),
        }
    }

    fn verdict(select: &Select, heap: &Reply, found: &Reply) -> Verdict {
        Freedom::of(&Query::Select(Box::new(select.clone()))).judge(heap, found)
    }

    #[test]
    fn errors_of_one_side_are_seldom_allowed() {
        let rows: Reply = Ok(Rows::default());
        let division = error("22012");
        let mut select = Select {
            outputs: vec![quotient()],
            from: vec![from("a")],
            ..Select::default()
        };
        let different = |verdict| matches!(verdict, Verdict::Different(_));
        let at_liberty = |verdict| matches!(verdict, Verdict::AtLiberty);
        assert!(different(verdict(&select, &rows, &division)));
        assert!(different(verdict(&select, &division, &rows)));
        assert!(at_liberty(verdict(&select, &division, &error("22003"))));
        assert!(different(verdict(&select, &division, &error("XX000"))));
        let same = verdict(&select, &division, &division);
        assert!(matches!(same, Verdict::SameError));

        select.order.push(OutputSort {
            output: 0,
            descending: false,
            nulls_first: None,
        });
        select.limit = Some(3);
        assert!(at_liberty(verdict(&select, &division, &rows)));
        assert!(different(verdict(&select, &rows, &error("53200"))));

        let mut select = Select {
            filter: vec![quotient(), Expr::literal(Type::Bool, Some("true"))],
            from: vec![from("a")],
            ..Select::default()
        };
        assert!(at_liberty(verdict(&select, &division, &rows)));
        assert!(different(verdict(&select, &rows, &division)));
        select.from.push(from("b"));
        assert!(at_liberty(verdict(&select, &rows, &division)));
    }
}
