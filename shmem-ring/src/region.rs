//! The entry point: a handle of the whole region.

use crate::bits;
use crate::control::NO_PROC;
use crate::error::RingError;
use crate::layout::Layout;
use crate::memory::Memory;
use crate::pool::{self, Owner};
use crate::progress::{self, Progress, Report, Reported};
use crate::stream::{Stream, StreamRef, flag, generation_of, word};
use crate::sync::{Ordering, fence};
use crate::worker::WorkerSlot;

/// A handle of a region: copies are the same region.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    memory: Memory,
}

/// Who holds a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Nobody: in the pool.
    Free,
    /// A backend, and perhaps a worker.
    Active,
    /// A worker whose backend has let go: until its task ends.
    Draining,
}

/// A snapshot of a stream for statistics: each field is right, but they may be of different moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Who holds it.
    pub state: StreamState,
    /// The last owner's proc number.
    pub proc: Option<u32>,
    /// The last owner's worker slot.
    pub worker: u32,
    /// The worker's incarnation when the stream was acquired.
    pub incarnation: u64,
    /// Counts the uses of the stream.
    pub generation: u32,
    /// Ring bytes written in this use, headers and padding included.
    pub bytes_written: u64,
    /// Ring bytes read and given back in this use.
    pub bytes_read: u64,
    /// Ring bytes waiting to be read.
    pub queued_bytes: u64,
    /// Whether it is cancelled.
    pub cancelled: bool,
    /// The error code, 0 for none.
    pub error: u32,
}

impl Region {
    /// Formats a region.
    ///
    /// # Safety
    /// - `base..base + len` is valid for reads and writes, initialised (zeroed, say), and stays so while any handle
    ///   from this region lives.
    /// - Nobody else uses these bytes before this returns, and afterwards only through this crate. Peers that break
    ///   this get errors reported, as far as that can be told; payload bytes they change under a reader are the reader's
    ///   risk: what is read twice may differ.
    /// - Every owner of a hold stops using its `Producer`, `Consumer` and their slices before it drops the hold.
    /// - `WorkerSlot::start` and `stop` are called only when no thread of an older incarnation of that slot runs.
    #[cfg(not(loom))]
    #[expect(unsafe_code, reason = "takes over raw memory")]
    pub unsafe fn init(base: *mut u8, len: usize, layout: &Layout) -> Result<Region, RingError> {
        // SAFETY: the caller's contract.
        let memory = unsafe { Memory::format(base, len, layout) }?;
        pool::format(&memory);
        memory.publish();
        Ok(Region { memory })
    }

    /// Opens a region that another process formatted.
    ///
    /// # Safety
    /// As for [`Region::init`], but that others use the bytes already.
    #[cfg(not(loom))]
    #[expect(unsafe_code, reason = "takes over raw memory")]
    pub unsafe fn attach(base: *mut u8, len: usize) -> Result<Region, RingError> {
        // SAFETY: the caller's contract.
        let memory = unsafe { Memory::attach(base, len) }?;
        Ok(Region { memory })
    }

    #[cfg(loom)]
    pub(crate) fn of_model(memory: Memory) -> Region {
        Region { memory }
    }

    /// The sizes it was formatted with.
    pub fn layout(&self) -> Layout {
        self.memory.layout()
    }

    /// A worker process slot: 0 is the engine.
    pub fn worker(&self, slot: u32) -> Option<WorkerSlot> {
        (slot < self.layout().workers).then(|| WorkerSlot::new(self.memory, slot))
    }

    /// A handle of a stream, if the reference is of its present use; else [`Stale`](crate::ErrorKind::Stale).
    pub fn stream(&self, reference: StreamRef) -> Result<Stream, RingError> {
        Stream::open(self.memory, reference)
    }

    /// Takes `n` free streams for (proc, worker), all or none, with the backend's hold on each.
    ///
    /// `None` if there are fewer, or proc or worker is out of range. To wait: [`Region::wait_for_stream`], acquire
    /// again, sleep; when done, [`Region::stop_waiting`].
    pub fn acquire(&self, proc: u32, n: usize, worker: u32) -> Option<Vec<StreamRef>> {
        self.acquire_leaving(proc, n, 0, worker)
    }

    /// The same if `leave` streams stay free, for those who are in need of some to serve the others.
    pub fn acquire_leaving(
        &self,
        proc: u32,
        n: usize,
        leave: usize,
        worker: u32,
    ) -> Option<Vec<StreamRef>> {
        let owner = Owner {
            proc,
            worker,
            holder: None,
        };
        self.acquire_for(owner, n, leave)
    }

    /// As [`Region::acquire`], by the present process of the worker slot `holder`: what it doesn't give back itself, the
    /// slot's next process does.
    pub fn acquire_by(
        &self,
        holder: WorkerSlot,
        proc: u32,
        n: usize,
        worker: u32,
    ) -> Option<Vec<StreamRef>> {
        let owner = Owner {
            proc,
            worker,
            holder: Some((holder.slot(), holder.incarnation())),
        };
        self.acquire_for(owner, n, 0)
    }

    fn acquire_for(&self, owner: Owner, n: usize, leave: usize) -> Option<Vec<StreamRef>> {
        let layout = self.layout();
        let wanted = n.saturating_add(leave);
        let exists = owner.proc < layout.procs && owner.worker < layout.workers;
        if !exists || wanted > layout.streams as usize {
            return None;
        }
        if n == 0 {
            return Some(Vec::new());
        }
        pool::acquire(&self.memory, owner, n, leave)
    }

    /// Announces a request to a worker: the stream that carries it, acquired for this proc and worker. Never full, as
    /// every stream has its own place in the doorbell. Then wake the worker. A stale reference does nothing.
    pub fn announce(&self, proc: u32, worker: u32, request: StreamRef) {
        let Ok(stream) = self.stream(request) else {
            return;
        };
        if stream.proc() != proc || stream.worker() != worker {
            return;
        }
        let ticket = self
            .memory
            .worker(worker)
            .tickets
            .0
            .fetch_add(1, Ordering::Relaxed);
        // Release pairs with the Acquire in `WorkerSlot::take_requests`.
        stream
            .control()
            .announced
            .store(word(request.generation, ticket), Ordering::Release);
        bits::set(self.memory.requests(worker), request.index);
        // Pairs with the fence in `WorkerSlot::has_work`, for wake-ups that are not barriers themselves.
        fence(Ordering::SeqCst);
    }

    /// Tells the stream's worker that something happened on the stream: after a [`Wake`](crate::Wake) with `peer`, a
    /// cancel or a release. Returns the slot of the worker to wake; `None` if the stream was freed, which nobody waits for.
    pub fn ring_stream(&self, reference: StreamRef) -> Option<u32> {
        let worker = self.stream(reference).ok()?.worker();
        bits::set(self.memory.events(worker), reference.index);
        // As in `announce`.
        fence(Ordering::SeqCst);
        Some(worker)
    }

    /// Streams in the pool now.
    pub fn free_streams(&self) -> u32 {
        pool::free_streams(&self.memory)
    }

    /// For statistics; `None` for an index out of range.
    pub fn stream_info(&self, index: u32) -> Option<StreamInfo> {
        if index >= self.layout().streams {
            return None;
        }
        let control = self.memory.stream(index);
        let state = control.state.load(Ordering::Acquire);
        let written = control.producer.head.load(Ordering::Relaxed);
        let read = control.consumer.tail.load(Ordering::Relaxed);
        Some(StreamInfo {
            state: match state & flag::HOLDS {
                0 => StreamState::Free,
                flag::WORKER => StreamState::Draining,
                _ => StreamState::Active,
            },
            proc: Some(control.proc.load(Ordering::Relaxed)).filter(|proc| *proc != NO_PROC),
            worker: control.worker.load(Ordering::Relaxed),
            incarnation: control.incarnation.load(Ordering::Relaxed),
            generation: generation_of(state),
            bytes_written: written,
            bytes_read: read,
            queued_bytes: written.saturating_sub(read),
            cancelled: state & flag::CANCEL != 0,
            error: control.error.load(Ordering::Relaxed) as u32,
        })
    }

    /// Begins to say how far its worker is with the request that a stream carries, which is queued. Only the worker
    /// that took the request calls this, once, before it gives its hold back; `None` for a stale reference.
    pub fn report(&self, request: StreamRef) -> Option<Report> {
        self.stream(request).ok()?;
        Some(Report::begin(self.memory, request))
    }

    /// What is reported of the request that a stream carries. `None` if there is none, if its backend has let go of
    /// it, if its worker is gone, or for an index out of range.
    pub fn reported(&self, index: u32) -> Option<Reported> {
        if index >= self.layout().streams {
            return None;
        }
        progress::reported(self.memory, index)
    }

    /// What was reported last of the request that a stream carries, whether or not the worker is done with it. For
    /// the backend that holds the stream, once it has read something of the reply: it finds what the worker stored
    /// before it wrote that, or later numbers. `None` for a stale reference.
    pub fn last_reported(&self, request: StreamRef) -> Option<Progress> {
        self.stream(request).ok()?;
        Some(progress::last_reported(self.memory, request.index))
    }

    /// Asks to be called by [`Region::drain_stream_waiters`] of whoever frees streams. Then acquire again, as one may
    /// have been freed before, and only then sleep.
    pub fn wait_for_stream(&self, proc: u32) {
        pool::wait_for_stream(&self.memory, proc);
    }

    /// Takes the request back.
    pub fn stop_waiting(&self, proc: u32) {
        bits::clear(self.memory.waiters(), proc);
    }

    /// Calls `f` for every proc that waits for a free stream, once: whoever freed streams wakes them all, and those
    /// that still find too few wait again.
    pub fn drain_stream_waiters(&self, f: impl FnMut(u32)) {
        pool::drain_waiters(&self.memory, f);
    }
}
