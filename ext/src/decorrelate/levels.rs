//! Whose columns an expression uses, seen from the query that it is in.

use crate::lower::node::{self, Node, get, tag};
use pgrx::pg_sys;

/// Whether a query, with those in it, depends on no row from outside.
pub fn is_closed_query(query: *mut pg_sys::Query) -> bool {
    stays_within(query, 0)
}

fn stays_within(query: *mut pg_sys::Query, depth: pg_sys::Index) -> bool {
    let mut closed = true;
    // SAFETY: raises an error if the stack is nearly used up.
    unsafe { pg_sys::check_stack_depth() };
    node::visit_query(query, &mut |node| {
        let level = match get::<pg_sys::Var>(node) {
            Some(var) => Some(var.varlevelsup),
            None => get::<pg_sys::Aggref>(node).map(|aggregate| aggregate.agglevelsup),
        };
        closed &= level.is_none_or(|level| level <= depth);
        if tag(node) == pg_sys::NodeTag::T_Query {
            closed = closed && stays_within(node.cast(), depth + 1);
            return false;
        }
        closed
    });
    closed
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// The query's own.
    pub own: bool,
    /// Those of the query around it.
    pub outer: bool,
    /// Those of queries further out.
    pub beyond: bool,
}

impl Levels {
    /// Of an expression, or a list of them, without subqueries.
    pub fn of(node: Node) -> Levels {
        let mut levels = Levels::default();
        node::visit(node, &mut |node| {
            if let Some(var) = get::<pg_sys::Var>(node) {
                match var.varlevelsup {
                    0 => levels.own = true,
                    1 => levels.outer = true,
                    _ => levels.beyond = true,
                }
            }
            true
        });
        levels
    }

    /// Uses columns of the query, and no others.
    pub fn is_own(self) -> bool {
        self.own && !self.outer && !self.beyond
    }

    /// Uses columns of the query around it, and no others.
    pub fn is_outer(self) -> bool {
        self.outer && !self.own && !self.beyond
    }

    /// Uses no columns from outside.
    pub fn is_closed(self) -> bool {
        !self.outer && !self.beyond
    }
}
