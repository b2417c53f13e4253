//! A worker process slot: its incarnations, and the doorbells by which backends call it.
//!
//! A doorbell is a bitmap with one bit a stream, so that it is idempotent, never full, and safe to lose half-way: a
//! stale bit finds a stream that has nothing to say.

use crate::bits;
use crate::control::{NO_PROC, WorkerControl, WorkerCounters};
use crate::memory::Memory;
use crate::pool;
use crate::stream::{Stream, StreamRef, generation_of};
use crate::sync::{Ordering, fence};

/// A handle of a worker process slot. Copies are the same slot.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSlot {
    memory: Memory,
    slot: u32,
}

impl WorkerSlot {
    pub(crate) fn new(memory: Memory, slot: u32) -> WorkerSlot {
        WorkerSlot { memory, slot }
    }

    fn control(&self) -> &WorkerControl {
        self.memory.worker(self.slot)
    }

    /// Which slot.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// A new incarnation begins, of which this returns the number. Streams of older ones fail with
    /// [`PEER_GONE`](crate::PEER_GONE) and lose the worker's hold; requests and events for older ones are forgotten. Those
    /// that older ones acquired themselves, and didn't give back, are given back.
    ///
    /// Only the slot's own process calls this, and only when no thread of an older incarnation runs any more. Then
    /// drain the stream waiters, and wake the backends that have streams of this worker.
    pub fn start(&self, pid: u32, proc: u32) -> u64 {
        let control = self.control();
        // Before the new number is visible: what is announced to the new incarnation comes after it.
        bits::drain(self.memory.requests(self.slot), 0, |_| ());
        bits::drain(self.memory.events(self.slot), 0, |_| ());
        control.pid.store(pid, Ordering::Relaxed);
        control.proc.store(proc, Ordering::Relaxed);
        let incarnation = control.incarnation.load(Ordering::Relaxed).wrapping_add(1);
        // Release pairs with the Acquire in `incarnation` and in `pool::acquire`.
        control.incarnation.store(incarnation, Ordering::Release);
        // Pairs with the fence in `pool::acquire`: either the scan sees a stream that was acquired for the older
        // incarnation, or who acquired it sees the new number.
        fence(Ordering::SeqCst);
        pool::reclaim(&self.memory, self.slot, incarnation);
        pool::give_back(&self.memory, self.slot, incarnation);
        // Release pairs with the Acquire in `is_up`.
        control.up.store(1, Ordering::Release);
        incarnation
    }

    /// The incarnation ends in good order, after its tasks: reclaims its streams as [`WorkerSlot::start`] does for
    /// older ones. Streams acquired from now on fail with the next start; look at [`WorkerSlot::is_up`] before waiting.
    pub fn stop(&self) {
        let control = self.control();
        control.up.store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        let incarnation = control.incarnation.load(Ordering::Relaxed);
        pool::reclaim(&self.memory, self.slot, incarnation.wrapping_add(1));
    }

    /// Counts the slot's processes; 0 before the first.
    pub fn incarnation(&self) -> u64 {
        self.control().incarnation.load(Ordering::Acquire)
    }

    /// The process id of the present or last incarnation; 0 before the first.
    pub fn pid(&self) -> u32 {
        self.control().pid.load(Ordering::Relaxed)
    }

    /// Its proc number, for waking it.
    pub fn proc(&self) -> Option<u32> {
        Some(self.control().proc.load(Ordering::Relaxed)).filter(|proc| *proc != NO_PROC)
    }

    /// Whether it started and did not stop in good order since. A killed process stays up until its next incarnation.
    pub fn is_up(&self) -> bool {
        self.control().up.load(Ordering::Acquire) != 0
    }

    /// Takes the announced requests, oldest first, and calls `f` with the backend's proc number and the stream. Those
    /// whose backend has released them meanwhile are skipped.
    pub fn take_requests(&self, mut f: impl FnMut(u32, StreamRef)) {
        let mut requests = Vec::new();
        bits::drain(
            self.memory.requests(self.slot),
            self.memory.layout().streams,
            |index| {
                // Acquire pairs with the Release in `announce`. The swap delivers each announcement once.
                let announced = self
                    .memory
                    .stream(index)
                    .announced
                    .swap(0, Ordering::AcqRel);
                let reference = StreamRef {
                    index,
                    generation: generation_of(announced),
                };
                if announced == 0 {
                    return;
                }
                if let Ok(stream) = Stream::open(self.memory, reference)
                    && stream.worker() == self.slot
                {
                    requests.push((announced as u32, stream.proc(), reference));
                }
            },
        );
        // Tickets wrap around: their age is the distance to the next one.
        let next = self.control().tickets.0.load(Ordering::Relaxed);
        requests.sort_by_key(|(ticket, _, _)| core::cmp::Reverse(next.wrapping_sub(*ticket)));
        for (_, proc, reference) in requests {
            f(proc, reference);
        }
    }

    /// Takes the stream events and calls `f` with the index of each stream on which a backend made progress (committed
    /// to a feed, gave result space back) or cancelled. Spurious calls are possible, and calls for streams freed since.
    pub fn take_stream_events(&self, f: impl FnMut(u32)) {
        bits::drain(
            self.memory.events(self.slot),
            self.memory.layout().streams,
            f,
        );
    }

    /// Whether a doorbell is set: the last look before sleeping.
    pub fn has_work(&self) -> bool {
        // Pairs with the fences in `announce` and `ring_stream`.
        fence(Ordering::SeqCst);
        bits::any(self.memory.requests(self.slot)) || bits::any(self.memory.events(self.slot))
    }

    /// Statistics of the slot, written by its process. They survive a restart.
    pub fn counters(&self) -> &WorkerCounters {
        &self.control().counters
    }
}
