//! A subtree as one fragment: the node that takes its place.
//!
//! The engine computes the columns of the subtree, Postgres the target list over them, and quals that
//! are left to it.

use super::custom_scan::{Parts, build};
use super::node::{self, Node, get, nodes};
use super::ordering::{UNKNOWN_ORDER, reads_ahead};
use super::private::{Called, Mode, Private};
use super::statement::Statement;
use super::sub::Sub;
use super::tree::Builder;
use super::{Lowered, fragment_of, refused};
use pg_lake_plan::lateness::delays_rows;
use pgrx::pg_sys;

/// Rows of input below which a fragment costs more than it saves.
const MIN_ROWS: f64 = 1000.0;

/// How much faster than Postgres' executor the engine scans, joins and aggregates: about that over the
/// queries of TPC-H. It only decides between plans of which the engine runs different parts.
pub const ENGINE_SPEED: f64 = 10.0;

/// A fragment that can take a subtree's place.
pub struct Candidate<'a> {
    top: *mut pg_sys::Plan,
    sub: Sub,
    builder: Builder<'a>,
    /// Whether Postgres may stop before a row whose computation fails, if not all rows are wanted.
    pub stops_early: bool,
    /// Whether the engine goes on with a recursion, which may have no end, before its rows are wanted.
    pub reads_ahead: bool,
    /// Whether the engine gives its first row at its end, as it may not be exact until then, though it has rows before.
    pub delays_rows: bool,
}

/// The subtree as a fragment. `needed`: the outputs that its parent uses, if not all.
pub fn lower<'a>(
    statement: &'a Statement,
    top: *mut pg_sys::Plan,
    needed: Option<&[i16]>,
) -> Lowered<Candidate<'a>> {
    let mut builder = Builder::new(statement);
    let mut sub = builder.node(top, needed)?;
    if builder.rows_scanned == 0.0 && builder.inputs.len() == builder.feeds.len() {
        let reason = builder.reasons.into_iter().next();
        return Err(reason.unwrap_or_else(|| "no iceberg table is scanned".to_owned()));
    }
    if !statement.force {
        // Postgres keeps what it has hashed for the next step.
        if Statement::is_step(top) {
            return refused("a join with the rows of a recursion's last step is not lowered");
        }
        if builder.rows_scanned < MIN_ROWS {
            return Err(format!("fewer than {MIN_ROWS} rows are expected"));
        }
        if builder.rows_fed > builder.rows_scanned {
            return refused("more rows would be fed than scanned");
        }
    }
    Builder::check_wanted(plan_of(top), needed, &sub.outputs)?;
    if sub.unknown_order {
        return refused(UNKNOWN_ORDER);
    }
    sub.project(vec![]);
    // Postgres may come to the order without a sort of all rows.
    let stops_early = builder.stops_early(top, &sub.plan);
    let reads_ahead = reads_ahead(top, &sub.plan);
    sub.establish_order(None);
    let delays_rows = delays_rows(&sub.plan);
    Ok(Candidate {
        top,
        sub,
        builder,
        stops_early,
        reads_ahead,
        delays_rows,
    })
}

fn plan_of<'a>(plan: *mut pg_sys::Plan) -> &'a pg_sys::Plan {
    // SAFETY: a plan node of the tree.
    unsafe { &*plan }
}

impl Candidate<'_> {
    /// The plans that are fed; each may be replaced by what it is lowered to.
    pub fn feeds(&self) -> Vec<*mut pg_sys::Plan> {
        self.builder.feeds.clone()
    }

    /// Why they are.
    pub fn reasons(&self) -> &[String] {
        &self.builder.reasons
    }

    /// The node that replaces the subtree. `notes` says why its ancestors weren't lowered.
    pub fn finish(self, feeds: &[*mut pg_sys::Plan], notes: &[String]) -> *mut pg_sys::Plan {
        let Candidate {
            top, sub, builder, ..
        } = self;
        let reasons = [notes, builder.reasons.as_slice()].concat();
        let targets = nodes(plan_of(top).targetlist)
            .into_iter()
            .zip(&sub.outputs)
            .map(|(entry, output)| target(entry, output.as_ref().ok()));
        let scan_targets = (1..).zip(&sub.columns).map(|(number, column): (i16, _)| {
            // SAFETY: makes a node.
            unsafe {
                let expr = node::copy(column.node).cast();
                pg_sys::makeTargetEntry(expr, number, std::ptr::null_mut(), false).cast()
            }
        });
        let (targetlist, custom_scan_tlist) = (node::list(targets), node::list(scan_targets));
        let qual = node::list(sub.kept.iter().copied());
        let called = Called::by(&builder.absorbed);
        // The top was visited last.
        let mut absorbed = builder.absorbed;
        absorbed.reverse();
        let private = Private {
            mode: Mode::Fragment,
            fragment: fragment_of(sub.plan),
            inputs: builder.inputs,
            used: 0,
            params: builder.params.uses,
            reasons,
            restartable: true,
            called,
        };
        let parts = Parts {
            scanrelid: 0,
            targetlist,
            qual,
            custom_exprs: std::ptr::null_mut(),
            custom_scan_tlist,
            absorbed,
            keep: true,
            feeds: feeds.to_vec(),
        };
        build(parts, &private)
    }
}

/// An entry of the target list over the fragment's columns; null if nobody looks at it. What it is reported to be doesn't
/// follow from its columns: an Append has those of its first input, but no type modifier where its inputs differ.
fn target(entry: Node, output: Option<&Node>) -> Node {
    let new = node::copy(entry).cast::<pg_sys::TargetEntry>();
    let Some(old) = get::<pg_sys::TargetEntry>(entry) else {
        return entry;
    };
    // SAFETY: `new` is a fresh copy of a target entry.
    unsafe {
        (*new).expr = match output {
            Some(output) => node::reported_as(node::copy(*output), old.expr.cast()).cast(),
            None => {
                let (typid, typmod, collation) = node::type_of(old.expr.cast());
                pg_sys::makeNullConst(typid, typmod, collation).cast()
            }
        };
    }
    new.cast()
}
