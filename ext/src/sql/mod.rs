//! Functions that SQL sees; `sql/pg_lake--0.1.0.sql` declares them.
//!
//! * `cache`: the disk cache
//! * [`check`]: comparing catalog, files and metadata
//! * [`maintenance`]: flush, publish, sweep
//! * [`stats`]: workers, streams, garbage, snapshots

mod cache;
mod check;
pub mod maintenance;
mod stats;
