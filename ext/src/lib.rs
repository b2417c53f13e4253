//! pg_lake: Iceberg tables for PostgreSQL.
//!
//! `_PG_init` runs in the postmaster (the library is preloaded) and only calls each module's
//! `init`. See `docs/architecture.md` for the map of this crate.

#[allow(unsafe_code)] // calls Postgres
mod am;
#[allow(unsafe_code)] // calls Postgres
mod bulk;
#[allow(unsafe_code)] // calls Postgres
mod catalog;
#[allow(unsafe_code)] // calls Postgres
mod check;
#[allow(unsafe_code)] // datums of rows that come from the engine
mod cold;
#[allow(unsafe_code)] // calls Postgres
mod compact;
#[allow(unsafe_code)] // called as Postgres' input functions are
mod copy_input;
#[allow(unsafe_code)] // hooks of a setting
mod crash;
#[allow(unsafe_code)] // executor callbacks
mod custom;
#[allow(unsafe_code)] // rewrites queries of Postgres
mod decorrelate;
mod error;
mod files;
#[allow(unsafe_code)] // calls Postgres
mod flush;
mod guc;
#[allow(unsafe_code)] // hooks are chained through mutable statics of Postgres
mod hooks;
#[allow(unsafe_code)] // calls Postgres
mod indexes;
#[allow(unsafe_code)] // walks Postgres' plan trees
mod lower;
#[allow(unsafe_code)] // calls Postgres
mod merge;
#[allow(unsafe_code)] // the one place for raw Postgres resources
mod pg;
#[allow(unsafe_code)] // reads and writes status entries
mod progress;
#[allow(unsafe_code)] // calls Postgres
mod publish;
#[allow(unsafe_code)] // reads status entries
mod queries;
#[allow(unsafe_code)] // cached descriptions of relations
mod relation;
mod relocate;
#[allow(unsafe_code)] // queries and plans of Postgres
mod replan;
#[allow(unsafe_code)] // shared memory and latches
mod ring;
#[allow(unsafe_code)] // rows on their way to a worker
mod sink;
#[allow(unsafe_code)] // Postgres sorts
mod sorter;
#[allow(unsafe_code)] // calls Postgres
mod sql;
#[allow(unsafe_code)] // calls Postgres
mod sweep;
#[allow(unsafe_code)] // converts datums
mod types;
#[allow(unsafe_code)] // looks at the executor's nodes
mod whole;
#[allow(unsafe_code)] // entry points of background workers
mod worker;

pgrx::pg_module_magic!(name, version);

/// Called by Postgres when it loads the library.
#[allow(non_snake_case)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    if !pg::preloading() {
        error::raise(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "pg_lake must be loaded via \"shared_preload_libraries\"",
            None,
            Some(
                "Add pg_lake to shared_preload_libraries in postgresql.conf and restart the server.",
            ),
        );
    }
    guc::init();
    crash::init();
    ring::init();
    worker::init();
    custom::init();
    hooks::init();
}
