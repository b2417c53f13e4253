//! Lock-free doorbells and byte streams between processes, over a region of shared memory.
//!
//! The crate knows a byte region and nothing else: no Postgres, no threads, no sleeping, no system calls. It says
//! *that* a peer wants to be woken ([`Wake`], [`Region::ring_stream`], [`Region::announce`]); how it is woken (a latch,
//! a futex) is the caller's business.
//!
//! ```text
//!    backend (proc p)                       region                              worker process (slot w)
//!    ----------------    ------------------------------------------------     -------------------------
//!    acquire        ---> pool: free list of streams, waiters bitmap       <--- release_worker (frees)
//!    announce       ---> requests[w]: one bit a stream (the doorbell)     ---> take_requests, worker_attach
//!    Producer       ---> stream: feed ring (SPSC)                         ---> Consumer
//!    Consumer       <--- stream: result ring (SPSC)                       <--- Producer
//!    ring_stream    ---> events[w]: one bit a stream                      ---> take_stream_events
//! ```
//!
//! Where to look:
//! - `layout`: what the region looks like, byte for byte; `control`: its structs, with who writes and who reads;
//!   `memory`: how they are found (pointers into the region; boxes under loom).
//! - `region`: the entry point; `pool`: claiming and freeing streams; `worker`: incarnations and doorbells.
//! - `progress`: how far a worker is with a request, for statistics.
//! - `stream`: ownership, cancel, error; `frame`: the frame format; `producer`, `consumer`: the two ends of a ring.
//!
//! Invariants:
//! - Peers may die at any instruction and write nonsense: every position, length and index read from the region is
//!   checked before use, and a violation is an [`ErrorKind::Corrupt`], never a panic or an access out of bounds.
//! - A stream is freed by the release of its last hold and by nothing else, exactly once a generation.
//! - Nobody ever waits inside this crate: an operation succeeds, fails, or says "nothing now" after having asked
//!   for a wake-up.

mod bits;
mod consumer;
mod control;
mod error;
mod frame;
mod layout;
mod memory;
mod pool;
mod producer;
mod progress;
mod region;
mod stream;
mod sync;
mod worker;

pub use consumer::{Consumer, Frame, Peek};
pub use control::WorkerCounters;
pub use error::{ErrorKind, RingError};
pub use frame::{FRAME_ALIGN, FrameHeader};
pub use layout::{Layout, RING_BYTES_MIN};
#[cfg(loom)]
pub use memory::ModelMemory;
pub use producer::Producer;
pub use progress::{Phase, Progress, Report, Reported};
pub use region::{Region, StreamInfo, StreamState};
pub use stream::{PEER_GONE, Stream, StreamRef, Wake};
pub use worker::WorkerSlot;
