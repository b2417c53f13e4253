//! One sequential scan of an iceberg table: projection, and the filters that can't fail.
//!
//! After planning nothing says any more which qual must come before which, for safety or for
//! security. A qual goes into the scan only if evaluating it can neither raise an error nor give
//! anything away; the others stay, in their order. Behind one that is known to raise errors, or has a volatile
//! function, all stay: it is evaluated for the rows that Postgres evaluates it for.

use super::custom_scan::{Parts, build};
use super::expr::Exprs;
use super::initplans::Params;
use super::node::{attnos, get, list, nodes};
use super::private::{Called, Input, Mode, Private, Source};
use super::statement::Statement;
use super::table::{CTID, Table};
use super::{Lowered, fragment_of};
use pg_lake_plan::ir::{Expr, Plan};
use pg_lake_plan::lateness::may_be_inexact;
use pgrx::pg_sys;

const TABLEOID: i16 = pg_sys::TableOidAttributeNumber as i16;

/// Who looks at a scan's rows.
pub struct Readers<'a> {
    /// The outputs that the parent uses, if not all.
    pub needed: Option<&'a [i16]>,
    /// Whether rows are fetched again by their `ctid`: to be updated, or locked.
    pub fetched: bool,
    pub statement: &'a Statement,
}

/// The node that replaces the scan. `notes` says why its ancestors weren't lowered.
pub fn lower(
    scan: *mut pg_sys::SeqScan,
    relid: pg_sys::Oid,
    readers: &Readers<'_>,
    notes: &[String],
) -> Lowered<*mut pg_sys::Plan> {
    // SAFETY: a plan node of the tree.
    let (plan, rtindex) = unsafe { ((*scan).scan.plan, (*scan).scan.scanrelid) };
    let mut table = Table::open(rtindex, relid);
    for attnum in needed_columns(&plan, rtindex, &table, readers) {
        table.column(attnum)?;
    }
    let mut params = Params::new(readers.statement.late.clone());
    let mut reasons = notes.to_vec();
    let (mut predicates, mut pushed, mut kept) = (vec![], vec![], vec![]);
    let mut behind: Option<&str> = None;
    for qual in nodes(plan.qual) {
        let used = params.uses.len();
        let lowered = Exprs::new(&mut table, &mut params).expression(qual);
        // SAFETY: an expression of the plan.
        let volatile = unsafe { pg_sys::contain_volatile_functions(qual) };
        // Of what isn't lowered nobody knows: nearly all of it could, and what is behind it would leave out no file.
        let raises = lowered.as_ref().is_ok_and(Expr::can_raise);
        match (lowered, behind) {
            // A leaf gives hot rows first: Postgres can't take its place.
            (Ok(expr), None) if !expr.can_fail() && !may_be_inexact(&expr) => {
                predicates.push(expr);
                pushed.push(qual);
                continue;
            }
            (Ok(_), None) => {
                reasons.push("a filter that can fail stays above the scan".to_owned());
            }
            (Ok(_), Some(before)) => {
                reasons.push(format!("a filter stays above the scan: behind {before}"));
            }
            (Err(reason), _) => reasons.push(format!("a filter stays above the scan: {reason}")),
        }
        params.uses.truncate(used);
        kept.push(qual);
        behind = match (volatile, raises) {
            (true, _) => Some("a volatile function"),
            (false, true) => behind.or(Some("one that could raise an error")),
            (false, false) => behind,
        };
    }
    let used = table.width();
    if readers.fetched {
        for attnum in std::iter::once(CTID).chain(table.live()) {
            table.column(attnum)?;
        }
    }
    let (scan_ir, attnums) = table.into_scan(0, predicates);
    let private = Private {
        mode: Mode::Leaf,
        fragment: fragment_of(Plan::Scan(scan_ir)),
        inputs: vec![Input {
            source: Source::Relation {
                rtindex,
                relid: relid.to_u32(),
            },
            columns: attnums,
        }],
        used,
        params: params.uses,
        reasons,
        restartable: false,
        called: Called::default(),
    };
    let parts = Parts {
        scanrelid: rtindex,
        targetlist: plan.targetlist,
        qual: list(kept),
        custom_exprs: list(pushed),
        custom_scan_tlist: std::ptr::null_mut(),
        absorbed: vec![scan.cast()],
        keep: false,
        feeds: vec![],
    };
    Ok(build(parts, &private))
}

/// Ascending; [`CTID`] first.
fn needed_columns(
    plan: &pg_sys::Plan,
    rtindex: u32,
    table: &Table,
    readers: &Readers<'_>,
) -> Vec<i16> {
    let mut found = attnos(plan.qual.cast(), rtindex as i32);
    let entries: Vec<&pg_sys::TargetEntry> = nodes(plan.targetlist)
        .into_iter()
        .filter_map(get::<pg_sys::TargetEntry>)
        .collect();
    // Only where leaving a column out can't be noticed: nothing is computed from it here.
    let plain = entries
        .iter()
        .all(|entry| get::<pg_sys::Var>(entry.expr.cast()).is_some());
    for entry in entries {
        let wanted = match readers.needed {
            Some(needed) if plain => needed.contains(&entry.resno),
            _ => true,
        };
        if wanted {
            found.extend(attnos(entry.expr.cast(), rtindex as i32));
        }
    }
    if readers.statement.positioned {
        found.push(CTID);
    }
    if found.contains(&0) {
        found.extend(table.live());
    }
    // The executor knows `tableoid` by itself, and makes whole rows.
    found.retain(|attnum| !matches!(*attnum, 0 | TABLEOID));
    found.sort_unstable();
    found.dedup();
    found
}
