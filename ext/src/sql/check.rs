//! `lake.check` and `lake.check_database`.

use crate::check::problem::Problem;
use crate::flush::{self, Relation};
use crate::pg;
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern, pg_sys};

/// One row for each difference between what the catalog, the files and the published metadata of a table
/// say.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn check(
    table: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(severity, String),
        name!(kind, String),
        name!(object, String),
        name!(detail, String),
    ),
> {
    if !is_monitor() {
        flush::check_right(table);
    }
    let rel = Relation::open(table, pg_sys::AccessShareLock as i32);
    let rows: Vec<_> = pg::as_extension_owner(|| crate::check::table(&rel))
        .into_iter()
        .map(columns)
        .collect();
    TableIterator::new(rows)
}

/// The same for all tables, and for what is of no table.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn check_database() -> TableIterator<
    'static,
    (
        name!(table, Option<pg_sys::Oid>),
        name!(severity, String),
        name!(kind, String),
        name!(object, String),
        name!(detail, String),
    ),
> {
    let rows: Vec<_> = pg::as_extension_owner(crate::check::database)
        .into_iter()
        .map(|(table, problem)| {
            let (severity, kind, object, detail) = columns(problem);
            (table, severity, kind, object, detail)
        })
        .collect();
    TableIterator::new(rows)
}

fn columns(problem: Problem) -> (String, String, String, String) {
    (
        problem.severity.name().to_owned(),
        problem.kind.to_owned(),
        problem.object,
        problem.detail,
    )
}

/// Whether the user may look at everything in the server.
fn is_monitor() -> bool {
    // SAFETY: a catalog look-up.
    unsafe {
        let monitor = pg_sys::Oid::from(pg_sys::ROLE_PG_MONITOR);
        pg_sys::has_privs_of_role(pg_sys::GetUserId(), monitor)
    }
}
