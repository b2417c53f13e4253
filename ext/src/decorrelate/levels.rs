//! Whose columns an expression uses, seen from the query that it is in.

use crate::lower::node::{self, Node, get};
use pgrx::pg_sys;

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
