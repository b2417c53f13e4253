//! The node `Custom Scan (Lake)`: runs a leaf or a fragment that `lower` has put into a plan.
//!
//! * [`state`]: executor callbacks
//! * [`leaf`]: one table's rows, hot ones by Postgres, cold ones by the engine
//! * [`fragment`]: a subtree in the engine
//! * [`feeds`]: the rows that it is fed with; [`encoding`]: as batches
//! * [`direct`]: batches that a bulk load takes whole, put together by [`assembly`]
//! * [`params`]: parameter values
//! * [`rights`]: to the functions that the engine runs
//! * [`explain`]: what EXPLAIN shows

mod assembly;
mod direct;
mod encoding;
mod explain;
mod feeds;
mod fragment;
mod leaf;
mod params;
mod rights;
mod state;

pub use direct::prepare as prepare_direct;
pub use state::{Returned, init, methods, returned};

/// The plan's private data, by the name under which `lower` expects it.
pub mod private {
    pub use crate::lower::private::{
        Called, Input, Mode, ParamKind, ParamUse, Private, Source, decode,
    };
}
