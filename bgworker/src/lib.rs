//! The engine and the I/O workers: everything that a lake process does besides being a Postgres
//! background worker.
//!
//! `ext` starts a [`Service`] on its main thread and calls [`Service::serve`] whenever its latch is
//! set. The rest happens on the threads of a tokio runtime:
//!
//! * [`service`]: the process: start, doorbell, limits, stop
//! * `runtime`: the threads, and what becomes of a panic
//! * [`transport`]: streams of the rings for async tasks: holds, messages, batches
//! * `request`: one request from its announcement to its last frame
//! * `client`: requests of a lake process to the I/O workers; `turns`: how many at the same time; `placed`: what it reads
//!   of the disk cache itself
//! * [`engine`]: `Execute`: fragments as DataFusion's physical operators
//! * [`store`]: object stores: credentials, retries, limits
//! * [`io`]: `Write`, `Publish` and the other requests to an I/O worker
//! * [`arrow_types`], [`convert`]: wire types and batches as Arrow's
//!
//! What is deliberately absent: Postgres. Waking a backend is a function that `ext` passes in.

pub mod arrow_types;
mod client;
pub mod convert;
pub mod engine;
pub mod io;
mod placed;
mod request;
mod runtime;
pub mod service;
pub mod store;
pub mod transport;
mod turns;

pub use client::owner_of;
pub use engine::QueueConfig;
pub use io::IoConfig;
pub use service::{Config, Kind, Service};
pub use transport::{WakeProc, ring_code};
