//! Functions that SQL sees; `sql/pg_lake--0.1.0.sql` declares them.
//!
//! * [`maintenance`]: flush, publish, sweep
//! * [`stats`]: workers, streams, snapshots

pub mod maintenance;
mod stats;
