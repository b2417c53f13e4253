//! The only place that names atomics for control structures, so that loom's can be swapped in.
//!
//! Frame headers are not control structures: they live in ring bytes and use `core` atomics directly (`frame.rs`).

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Tells the processor (or loom's scheduler) that we are in a bounded retry loop.
pub(crate) fn spin() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
