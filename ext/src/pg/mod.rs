//! Raw Postgres resources behind small safe types. Only this folder and the modules that
//! `lib.rs` names as unsafe touch `pg_sys` freely.
//!
//! * [`collation`]: names of locales
//! * [`copy_state`]: what COPY FROM calls input functions by
//! * [`options_array`]: options in rows of Postgres' own catalogs
//! * [`table`]: catalog tables of the extension: insert, scan, delete
//! * [`latch`]: the one call that is allowed off the main thread
//! * [`seen`]: catalog reads of SERIALIZABLE transactions
//! * [`published`]: which tables logical replication keeps hot
//! * [`settings`]: small questions to the server
//! * [`slots`]: slots of rows that are values only
//! * [`subtransaction`]: work that may fail
//! * [`temp_file`]: bytes in a temporary file
//! * [`time_zone`]: time zones with one offset
//! * [`xids`]: transaction ids in 64 bits; `epoch` has the arithmetic

pub mod collation;
pub mod copy_state;
mod epoch;
pub mod latch;
pub mod missing;
pub mod options_array;
pub mod published;
mod seen;
pub mod settings;
pub mod slots;
pub mod subtransaction;
pub mod table;
pub mod temp_file;
pub mod time_zone;
pub mod xids;

pub use settings::*;
