//! Collations, and where the engine's equality and order are those of Postgres.

use super::Lowered;
use super::compare::{padded_length, trimmed};
use super::functions::{self, Call};
use super::intervals::{is_interval, length};
use super::json::{check_json_order, is_jsonb, json_order};
use pg_lake_plan::ir::{CompareOp, Expr};
use pg_lake_plan::types::{LakeType, SqlType};
use pgrx::pg_sys;

// SAFETY: declared in Postgres' utils/pg_locale.h, which pgrx's bindings leave out.
unsafe extern "C-unwind" {
    fn lc_collate_is_c(collation: pg_sys::Oid) -> bool;
    fn lc_ctype_is_c(collation: pg_sys::Oid) -> bool;
}

/// Whether the collation orders by bytes: `C`, and `C.UTF-8` of every provider, whose code points have the order
/// of their bytes.
pub fn is_c(collation: pg_sys::Oid) -> bool {
    if collation == pg_sys::InvalidOid {
        return false;
    }
    // SAFETY: called on the main thread, its errors are caught at the boundary.
    let plain = unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| lc_collate_is_c(collation)) };
    plain || is_c_utf8(collation)
}

/// Whether it is libc's `C.UTF-8`. Since version 2.35 `strcoll` of glibc is `strcmp` there.
fn is_c_utf8(collation: pg_sys::Oid) -> bool {
    let named = match collation {
        pg_sys::DEFAULT_COLLATION_OID => crate::pg::collation::of_database(),
        other => crate::pg::collation::libc_name(other),
    };
    named.is_some_and(|name| matches!(name.as_str(), "C.UTF-8" | "C.utf8"))
        && crate::pg::collation::glibc_version().is_some_and(|version| version >= (2, 35))
}

/// Whether the collation knows upper and lower case of ASCII letters only.
pub fn has_c_letters(collation: pg_sys::Oid) -> bool {
    // SAFETY: as above.
    collation != pg_sys::InvalidOid
        && unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| lc_ctype_is_c(collation)) }
}

/// Whether strings that the collation holds equal have the same bytes.
pub fn is_deterministic(collation: pg_sys::Oid) -> bool {
    // SAFETY: looks the collation up.
    collation != pg_sys::InvalidOid && unsafe { pg_sys::get_collation_isdeterministic(collation) }
}

/// What the engine groups values of this expression by where Postgres shows one of the group. `equality` is the function
/// that Postgres groups by, if one is known. Of a type that [`is_printed`], equal values may differ.
pub fn group_key(
    expr: Expr,
    equality: Option<pg_sys::Oid>,
    collation: pg_sys::Oid,
) -> Lowered<Expr> {
    // Postgres shows the first of several equal keys, which may be −0.
    if expr.ty.lake.is_float() {
        return Err(GROUPING.to_owned());
    }
    equality_key(expr, equality, collation)
}

const GROUPING: &str = "grouping by this type is not lowered";

/// The same where it only matters which values are equal.
pub fn equality_key(
    expr: Expr,
    equality: Option<pg_sys::Oid>,
    collation: pg_sys::Oid,
) -> Lowered<Expr> {
    if !is_printed(&expr.ty) {
        check_equality(&expr, equality, collation)?;
        return Ok(expr);
    }
    // Equal ones may have different texts.
    let (key, own) = match is_interval(&expr.ty) {
        true => (length(expr), Call::CompareIntervals(CompareOp::Eq)),
        false => (json_order(expr), Call::CompareJson(CompareOp::Eq)),
    };
    match equality.map(functions::known) {
        None => Ok(key),
        Some(call) if call == Some(own) => Ok(key),
        Some(_) => Err(GROUPING.to_owned()),
    }
}

fn check_equality(
    expr: &Expr,
    equality: Option<pg_sys::Oid>,
    collation: pg_sys::Oid,
) -> Lowered<()> {
    let refused = Err(GROUPING.to_owned());
    let known = match equality.map(functions::known) {
        None => true,
        Some(call) => matches!(
            call,
            Some(Call::Compare(CompareOp::Eq) | Call::ComparePadded(CompareOp::Eq))
        ),
    };
    match expr.ty.lake {
        LakeType::List { .. } | LakeType::Struct(_) => return refused,
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

/// What the engine sorts by where Postgres sorts by this function (`<` or `>` of a type) of an expression, and
/// whether that is descending. `character(n)` is compared without its trailing blanks.
pub fn sort_key(
    expr: Expr,
    function: pg_sys::Oid,
    collation: pg_sys::Oid,
) -> Lowered<(Expr, bool)> {
    if is_interval(&expr.ty) {
        return match functions::known(function) {
            Some(Call::CompareIntervals(CompareOp::Lt)) => Ok((length(expr), false)),
            Some(Call::CompareIntervals(CompareOp::Gt)) => Ok((length(expr), true)),
            _ => Err(OPERATOR.to_owned()),
        };
    }
    if is_jsonb(&expr.ty) {
        let descending = match functions::known(function) {
            Some(Call::CompareJson(CompareOp::Lt)) => false,
            Some(Call::CompareJson(CompareOp::Gt)) => true,
            _ => return Err(OPERATOR.to_owned()),
        };
        check_json_order()?;
        return Ok((json_order(expr), descending));
    }
    let padded = is_bpchar(&expr.ty);
    let ordered = is_ordered(&expr.ty, collation) || (padded && is_c(collation));
    if !ordered {
        return Err("sorting by this type or collation is not lowered".to_owned());
    }
    let expr = if padded { trimmed(expr) } else { expr };
    match functions::known(function) {
        Some(Call::Compare(CompareOp::Lt) | Call::ComparePadded(CompareOp::Lt)) => {
            Ok((expr, false))
        }
        Some(Call::Compare(CompareOp::Gt) | Call::ComparePadded(CompareOp::Gt)) => Ok((expr, true)),
        _ => Err(OPERATOR.to_owned()),
    }
}

const OPERATOR: &str = "sorting by this operator is not lowered";

/// Whether the engine's default order of a type is that of Postgres.
pub fn is_ordered(ty: &SqlType, collation: pg_sys::Oid) -> bool {
    match ty.lake {
        LakeType::List { .. } | LakeType::Struct(_) => false,
        LakeType::Text => !is_bpchar(ty) && !is_printed(ty) && is_c(collation),
        _ => true,
    }
}

/// Whether it is another type than a text, whose values are texts in the engine.
pub fn is_printed(ty: &SqlType) -> bool {
    is_interval(ty) || is_jsonb(ty)
}

fn is_bpchar(ty: &SqlType) -> bool {
    ty.oid == pg_sys::BPCHAROID.to_u32()
}
