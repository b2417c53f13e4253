//! Expressions for tests.

use crate::expr::{Expr, ExprKind};
use crate::types::{LakeType, SqlType};

/// Of a type whose SQL side doesn't matter.
pub fn expr(lake: LakeType, kind: ExprKind) -> Expr {
    let ty = SqlType {
        lake,
        oid: 0,
        typmod: -1,
        collation: 0,
    };
    Expr { ty, kind }
}
