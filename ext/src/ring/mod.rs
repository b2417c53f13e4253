//! The rings in Postgres' shared memory, and a backend's side of a request.
//!
//! * [`region`]: reserves and initialises the shared memory
//! * [`control`]: what launcher, maintainers and backends tell each other
//! * [`call`]: one request from a backend and its reply

pub mod call;
pub mod control;
pub mod region;

pub use region::{init, region};

/// Worker slot of the engine. I/O workers follow.
pub const ENGINE: u32 = 0;
