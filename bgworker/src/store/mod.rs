//! Object stores.
//!
//! ```text
//! Stores ── open(envelope's stores) ──► Opened ── find(location) ──► Remote ──► object_store
//! ```
//!
//! * `registry`: the stores of a process: settings, credentials, connections
//! * `remote`: the objects of one store: reading, creating, replacing
//! * `upload`: large objects, from a file or another object; `unfinished`: those that have no end yet
//! * `bulk`: listing and removing
//! * `probe`: what a store is like
//! * `metadata`: a store as `iceberg-io` sees it
//! * `tries`, `failure`: attempts, whether to make another one, what the user is told
//! * `places`, `bandwidth`: who goes first, and how much of the network there is
//! * `backend`, `http`, `s3`: object_store's clients, what they leave out, and what they should
//! * `digest`: whether a store has what was sent
//! * `credentials`, `credentials_file`: `lake.credentials_file`
//! * `redact`: texts of errors without secrets
//!
//! Nothing here knows Parquet, Iceberg's files or the cache, and nothing waits longer than
//! `lake.store_timeout` for a store.

mod backend;
mod bandwidth;
mod bulk;
mod credentials;
mod credentials_file;
mod digest;
mod failure;
#[cfg(test)]
mod faulty;
mod http;
#[cfg(test)]
mod http_tests;
mod metadata;
mod places;
mod probe;
mod redact;
mod registry;
mod remote;
#[cfg(test)]
mod remote_tests;
mod s3;
mod tries;
mod unfinished;
mod upload;
#[cfg(test)]
mod upload_tests;

pub use metadata::{RemoteMetadata, to_iceberg, wire_error};
pub use probe::probe;
pub use registry::{Opened, Settings, Stores};
pub use remote::Remote;
pub use unfinished::Unfinished;
