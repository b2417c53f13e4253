//! The disk cache: blocks of immutable objects of a store, in local files.
//!
//! An object belongs to one of [`SHARDS`] shards by its location, and each shard to one process, which alone writes and
//! evicts in it. What a process doesn't own it reads from the origin, or where the owner says that it is ([`Places`]).
//!
//! # On disk
//!
//! ```text
//! directory/
//!   shard-07/
//!     index.redb          what is where (record.rs)
//!     segment-00000003    slots of one block each, most of a file may be holes
//!   staging/2/            files that I/O worker 2 is about to upload (staging.rs)
//! ```
//!
//! A block is written to a slot first, its entry reaches the index later, together with others. Nothing but the index is
//! ever synced. What may be found after a crash, and why no wrong byte comes of it:
//!
//! * A slot with bytes and no entry: the slot is free, and its bytes are given back when the shard is opened.
//! * An entry whose slot has other bytes, since they were never on the medium or since the slot was given to another
//!   block: the entry's checksums tell. The block is dropped and fetched again.
//! * Two entries with one slot: the newer one counts (its generation is higher).
//! * An index that redb would have to repair, or that is damaged: the shard begins anew. A value of it that doesn't match
//!   its own checksum is left out.
//!
//! # In memory
//!
//! All of the index, about 400 bytes a block, so that a hit asks no database. A shard's lock is held for look-ups and changes in
//! memory only, never during I/O.
//!
//! Blocks that are missing are fetched once however many ask: see `fetch.rs`. What is kept, and what goes, is decided
//! in `queues.rs`. Another process may read blocks from the files itself, if it checks them: see `place.rs`.
//!
//! What is deliberately absent: object stores and their credentials, Postgres, a runtime. Reads run on the caller's tokio
//! runtime, which must have its timer enabled.

#![deny(unsafe_code)]

mod cache;
mod checksum;
mod directory;
mod disk;
mod fetch;
mod fill;
mod flight;
mod index;
mod object;
mod part;
mod place;
mod queues;
mod read;
mod record;
mod shard;
mod space;
mod staging;
mod stats;

pub use cache::{Cache, Config, SHARDS, shard_of};
pub use object::{Admission, Buffers, Error, Object, Origin};
pub use part::Pieces;
pub use place::{Place, Places};
pub use read::Read;
pub use staging::Staging;
pub use stats::ShardStats;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is locked here is changed in steps that don't panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
