//! The control structures of the region: atomics only, each with who writes and who reads it.
//!
//! Everything is valid as zero bytes. Under loom the same structs are built from loom's atomics and live in boxes.

use crate::sync::{AtomicU32, AtomicU64};

/// First 8 bytes of a formatted region: "PGLKRING" in memory order on little-endian machines.
#[cfg_attr(loom, allow(dead_code, reason = "no byte region under loom"))]
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"PGLKRING");
/// Changes with every change of the layout or of a protocol over it.
#[cfg_attr(loom, allow(dead_code, reason = "no byte region under loom"))]
pub(crate) const VERSION: u32 = 3;
/// `WorkerControl::proc` of a slot that no process has taken.
pub(crate) const NO_PROC: u32 = u32::MAX;

/// A value that has a cache line to itself.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Line<T>(pub(crate) T);

/// Written once by `Region::init` (magic last), read by `Region::attach`, which checks all of it.
#[derive(Debug, Default)]
#[repr(C, align(64))]
#[cfg_attr(loom, allow(dead_code, reason = "no byte region under loom"))]
pub(crate) struct RegionHeader {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) procs: AtomicU32,
    pub(crate) workers: AtomicU32,
    pub(crate) streams: AtomicU32,
    pub(crate) ring_bytes: AtomicU32,
}

/// The pool of free streams: a stack linked through `StreamControl::next_free`.
///
/// | field       | written by                            | read by                              |
/// |-------------|---------------------------------------|--------------------------------------|
/// | `free_head` | who acquires (pop), who frees (push)  | the same                             |
/// | `claiming`  | who acquires, around pop and claim    | a worker's start, to find lost ones  |
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct PoolControl {
    /// High half: a tag that every change increments (ABA); low half: index + 1 of the first free stream, 0 for none.
    pub(crate) free_head: AtomicU64,
    /// Processes between taking streams off the list and marking them as held.
    pub(crate) claiming: AtomicU32,
}

/// A worker process slot.
///
/// | field         | written by                 | read by                                          |
/// |---------------|----------------------------|--------------------------------------------------|
/// | `incarnation` | the slot's process: start  | backends: acquire, waits                         |
/// | `pid`, `proc` | the slot's process: start  | backends, to wake it and to look if it is alive  |
/// | `up`          | the slot's process         | backends                                         |
/// | `tickets`     | backends: announce         | the slot's process, to sort requests by age      |
/// | `counters`    | the slot's process         | anyone (statistics)                              |
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct WorkerControl {
    pub(crate) incarnation: AtomicU64,
    pub(crate) pid: AtomicU32,
    pub(crate) proc: AtomicU32,
    pub(crate) up: AtomicU32,
    pub(crate) tickets: Line<AtomicU32>,
    pub(crate) counters: WorkerCounters,
}

/// Statistics of a worker process, written by it alone and read by anyone, all `Relaxed`.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct WorkerCounters {
    /// Requests taken.
    pub requests: AtomicU64,
    /// Requests that ended in an error.
    pub errors: AtomicU64,
    /// Rows sent to backends.
    pub rows_out: AtomicU64,
    /// Payload bytes received from backends.
    pub bytes_in: AtomicU64,
    /// Payload bytes sent to backends.
    pub bytes_out: AtomicU64,
    /// Bytes of memory reserved now.
    pub memory_bytes: AtomicU64,
    /// Most bytes of memory reserved since the worker's start.
    pub memory_peak: AtomicU64,
    /// Tasks running now.
    pub tasks: AtomicU64,
}

/// A stream: its owner, and the two ends of its ring.
///
/// | field                                | written by                                   | read by             |
/// |--------------------------------------|----------------------------------------------|---------------------|
/// | `state`                              | both sides, by compare-and-swap (`stream.rs`)| anyone              |
/// | `error`                              | both sides, first one wins                   | both sides          |
/// | `incarnation`, `proc`, `worker`      | who acquires, before `state` says held       | anyone              |
/// | `holder`, `holder_incarnation`       | the same                                     | a worker's start    |
/// | `announced`                          | the backend; taken by the worker             | the worker          |
/// | `next_free`                          | who frees (push)                             | who acquires (pop)  |
/// | `head`, `finished`                   | the producer                                 | the consumer        |
/// | `producer_seq`                       | the producer                                 | its successor       |
/// | `tail`                               | the consumer                                 | the producer        |
/// | `consumer_seq`                       | the consumer                                 | its successor       |
/// | `consumer_waiting`                   | set by the consumer, taken by the producer   | the producer        |
/// | `producer_waiting`                   | set by the producer, taken by the consumer   | the consumer        |
///
/// Who acquires resets all of them but `state`'s generation while the stream is nobody's.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct StreamControl {
    /// High half: generation; low half: flags of `stream::flag`.
    pub(crate) state: AtomicU64,
    /// High half: generation; low half: code, 0 for none.
    pub(crate) error: AtomicU64,
    pub(crate) incarnation: AtomicU64,
    /// High half: generation; low half: ticket. 0 when not announced.
    pub(crate) announced: AtomicU64,
    /// Of the worker process that has the backend's hold, if it is one.
    pub(crate) holder_incarnation: AtomicU64,
    /// Its slot + 1, 0 for none.
    pub(crate) holder: AtomicU32,
    pub(crate) proc: AtomicU32,
    pub(crate) worker: AtomicU32,
    /// Index + 1 of the next free stream, 0 for none.
    pub(crate) next_free: AtomicU32,
    pub(crate) producer: ProducerLine,
    pub(crate) consumer: ConsumerLine,
    pub(crate) waiting: WaitingLine,
}

/// The producer's cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct ProducerLine {
    /// Bytes ever written: a multiple of 64 that only grows.
    pub(crate) head: AtomicU64,
    pub(crate) producer_seq: AtomicU32,
    pub(crate) finished: AtomicU32,
}

/// The consumer's cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct ConsumerLine {
    /// Bytes ever given back: a multiple of 64 that only grows, never past `head`.
    pub(crate) tail: AtomicU64,
    pub(crate) consumer_seq: AtomicU32,
}

/// The sleepers' flags: apart from the positions, as they are looked at with every frame but change seldom.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct WaitingLine {
    pub(crate) consumer_waiting: AtomicU32,
    pub(crate) producer_waiting: AtomicU32,
}

/// How far a worker is with the request that a stream carries, for statistics.
///
/// | field       | written by                                               | read by |
/// |-------------|----------------------------------------------------------|---------|
/// | `state`     | the worker: `Report`, which alone changes its generation | anyone  |
/// | the others  | the same, while `state` has its generation               | anyone  |
///
/// A new generation is written in the order `state` = 0, the others, `state`: who reads the others between two looks at
/// `state` that have one generation has them of that.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct ProgressControl {
    /// High half: generation of the stream; low half: `Phase`, 0 for none.
    pub(crate) state: AtomicU64,
    pub(crate) rows_read: AtomicU64,
    pub(crate) rows_delivered: AtomicU64,
    pub(crate) row_groups: AtomicU64,
    pub(crate) row_groups_done: AtomicU64,
    pub(crate) memory_bytes: AtomicU64,
    pub(crate) memory_peak: AtomicU64,
    pub(crate) spilled_bytes: AtomicU64,
    pub(crate) spilled_files: AtomicU64,
    pub(crate) rows_cold: AtomicU64,
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<RegionHeader>() == 64);
    assert!(size_of::<PoolControl>() == 64);
    assert!(size_of::<WorkerControl>() == 192);
    assert!(size_of::<WorkerCounters>() == 64);
    assert!(size_of::<StreamControl>() == 256);
    assert!(size_of::<ProgressControl>() == 128);
    assert!(core::mem::offset_of!(WorkerControl, tickets) == 64);
    assert!(core::mem::offset_of!(WorkerControl, counters) == 128);
    assert!(core::mem::offset_of!(StreamControl, producer) == 64);
    assert!(core::mem::offset_of!(StreamControl, consumer) == 128);
    assert!(core::mem::offset_of!(StreamControl, waiting) == 192);
};
