//! One sequential scan of an iceberg table: projection, and the filters that can't fail.
//!
//! After planning nothing says any more which qual must come before which, for safety or for
//! security. A qual goes into the scan only if evaluating it can neither raise an error nor give
//! anything away, so that its place doesn't matter; the others stay, in their order. Behind one with a
//! volatile function all stay: it is called for the rows that Postgres calls it for.

use super::custom_scan::{Parts, build};
use super::expr::Exprs;
use super::initplans::Params;
use super::node::{attnos, get, list, nodes};
use super::private::{Called, Input, Mode, Private, Source};
use super::table::{CTID, Table};
use super::{Lowered, fragment_of};
use pg_lake_plan::ir::Plan;
use pgrx::pg_sys;
use std::rc::Rc;

const TABLEOID: i16 = pg_sys::TableOidAttributeNumber as i16;

/// Who looks at a scan's rows.
pub struct Readers<'a> {
    /// The outputs that the parent uses, if not all.
    pub needed: Option<&'a [i16]>,
    /// Whether rows may be asked for their `ctid` from outside the plan (`WHERE CURRENT OF`).
    pub positioned: bool,
    /// Whether rows are fetched again by their `ctid`: to be updated, or locked.
    pub fetched: bool,
    /// Parameters for which nobody must ask before Postgres does.
    pub late: Rc<Vec<i32>>,
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
    let mut params = Params::new(readers.late.clone());
    let mut reasons = notes.to_vec();
    let (mut predicates, mut pushed, mut kept) = (vec![], vec![], vec![]);
    let mut volatile = false;
    for qual in nodes(plan.qual) {
        let used = params.uses.len();
        match Exprs::new(&mut table, &mut params).expression(qual) {
            Ok(expr) if !volatile && !expr.can_fail() => {
                predicates.push(expr);
                pushed.push(qual);
                continue;
            }
            Ok(_) if volatile => {
                reasons
                    .push("a filter stays above the scan: behind a volatile function".to_owned());
            }
            Ok(_) => reasons.push("a filter that can fail stays above the scan".to_owned()),
            Err(reason) => reasons.push(format!("a filter stays above the scan: {reason}")),
        }
        params.uses.truncate(used);
        kept.push(qual);
        // SAFETY: an expression of the plan.
        volatile |= unsafe { pg_sys::contain_volatile_functions(qual) };
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
    if readers.positioned {
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
