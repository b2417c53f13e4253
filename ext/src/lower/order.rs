//! Collations, and where the engine's equality and order are those of Postgres.

use super::Lowered;
use super::compare::padded_length;
use super::functions::{self, Call};
use pg_lake_plan::ir::{CompareOp, Expr};
use pg_lake_plan::types::{LakeType, SqlType};
use pgrx::pg_sys;

// SAFETY: declared in Postgres' utils/pg_locale.h, which pgrx's bindings leave out.
unsafe extern "C-unwind" {
    fn lc_collate_is_c(collation: pg_sys::Oid) -> bool;
}

/// Whether the collation orders by bytes.
pub fn is_c(collation: pg_sys::Oid) -> bool {
    // SAFETY: called on the main thread, its errors are caught at the boundary.
    collation != pg_sys::InvalidOid
        && unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| lc_collate_is_c(collation)) }
}

/// Whether strings that the collation holds equal have the same bytes.
pub fn is_deterministic(collation: pg_sys::Oid) -> bool {
    // SAFETY: looks the collation up.
    collation != pg_sys::InvalidOid && unsafe { pg_sys::get_collation_isdeterministic(collation) }
}

/// Checks that the engine groups values of this expression as Postgres does. `equality` is the
/// function that Postgres groups by, if one is known.
pub fn check_group(
    expr: &Expr,
    equality: Option<pg_sys::Oid>,
    collation: pg_sys::Oid,
) -> Lowered<()> {
    let refused = Err("grouping by this type is not lowered".to_owned());
    let known = match equality.map(functions::known) {
        None => true,
        Some(call) => matches!(
            call,
            Some(Call::Compare(CompareOp::Eq) | Call::ComparePadded(CompareOp::Eq))
        ),
    };
    match expr.ty.lake {
        LakeType::List { .. } | LakeType::Struct(_) => return refused,
        // Postgres shows the first of several equal keys, which may be −0.
        LakeType::Float4 | LakeType::Float8 => return refused,
        LakeType::Text => {
            if !is_deterministic(collation) {
                return Err("grouping under a nondeterministic collation is not lowered".to_owned());
            }
            if is_bpchar(&expr.ty) && padded_length(expr).is_none() {
                return refused;
            }
        }
        _ => {}
    }
    if known { Ok(()) } else { refused }
}

/// Whether an order by this function (`<` or `>` of a type) over values of this type is the
/// engine's, and if so whether it is descending.
///
/// `character(n)` never is: Postgres compares without the trailing blanks, which differs for
/// characters before the blank.
pub fn check_sort(ty: &SqlType, function: pg_sys::Oid, collation: pg_sys::Oid) -> Lowered<bool> {
    if !is_ordered(ty, collation) {
        return Err("sorting by this type or collation is not lowered".to_owned());
    }
    match functions::known(function) {
        Some(Call::Compare(CompareOp::Lt)) => Ok(false),
        Some(Call::Compare(CompareOp::Gt)) => Ok(true),
        _ => Err("sorting by this operator is not lowered".to_owned()),
    }
}

/// Whether the engine's default order of a type is that of Postgres.
pub fn is_ordered(ty: &SqlType, collation: pg_sys::Oid) -> bool {
    match ty.lake {
        LakeType::List { .. } | LakeType::Struct(_) => false,
        LakeType::Text => !is_bpchar(ty) && is_c(collation),
        _ => true,
    }
}

fn is_bpchar(ty: &SqlType) -> bool {
    ty.oid == pg_sys::BPCHAROID.to_u32()
}
