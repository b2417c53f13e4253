//! A stream: who holds it, whether it is cancelled or failed. Its ring is in `producer.rs` and `consumer.rs`.
//!
//! ```text
//!              acquire                 worker_attach
//!    FREE g  ----------->  BACKEND g  --------------->  BACKEND+WORKER g
//!     ^                       |                           |           |
//!     |     release_backend   |          release_backend  |           | release_worker, or reclaim by the
//!     |     <-----------------+                           v           v worker's next incarnation
//!     |        generation + 1                        WORKER g       BACKEND g
//!     |                                              (draining)       |
//!     +-------- release_worker ---------------------------+           |
//!     +-------- release_backend --------------------------------------+
//! ```
//!
//! Holds, flags and generation are one word, changed by compare-and-swap only: whoever clears the last hold knows it,
//! and a handle of an earlier use changes nothing. The two holds exist as a worker may be in the middle of a memcpy
//! into the ring when the backend lets go of it.

use crate::consumer::Consumer;
use crate::control::StreamControl;
use crate::error::{ErrorKind, RingError};
use crate::memory::Memory;
use crate::pool;
use crate::producer::Producer;
use crate::sync::{AtomicU32, Ordering, fence};

/// [`Stream::error`] of a stream whose worker went away, and what a stale handle reads.
pub const PEER_GONE: u32 = u32::MAX;

/// Bits of the low half of `StreamControl::state`.
pub(crate) mod flag {
    pub(crate) const BACKEND: u64 = 1;
    pub(crate) const WORKER: u64 = 2;
    /// A stream with neither is free.
    pub(crate) const HOLDS: u64 = BACKEND | WORKER;
    pub(crate) const CANCEL: u64 = 4;
    /// Free, and freed by its worker: should that die before it pushed the stream, its next incarnation does.
    pub(crate) const FREED_BY_WORKER: u64 = 8;
    /// Somebody has the writing end.
    pub(crate) const PRODUCER: u64 = 16;
    /// Somebody has the reading end.
    pub(crate) const CONSUMER: u64 = 32;
}

/// The generation in a `StreamControl::state` or `error` word.
pub(crate) const fn generation_of(word: u64) -> u32 {
    (word >> 32) as u32
}

/// A word with a generation and a low half.
pub(crate) const fn word(generation: u32, low: u32) -> u64 {
    (generation as u64) << 32 | low as u64
}

/// Sets the error of one use of a stream; the first one wins.
pub(crate) fn set_error(control: &StreamControl, generation: u32, code: u32) {
    // Fails if there is an error already, or another generation: both are fine.
    let _ = control.error.compare_exchange(
        word(generation, 0),
        word(generation, code),
        Ordering::AcqRel,
        Ordering::Relaxed,
    );
}

/// Names one use of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamRef {
    /// Which stream of the pool.
    pub index: u32,
    /// Which use of it; never 0.
    pub generation: u32,
}

impl StreamRef {
    /// For messages: the generation in the high half.
    pub const fn to_u64(self) -> u64 {
        word(self.generation, self.index)
    }

    /// The inverse of [`StreamRef::to_u64`]. Any number is a reference; `Region::stream` checks it.
    pub const fn from_u64(value: u64) -> StreamRef {
        StreamRef {
            index: value as u32,
            generation: generation_of(value),
        }
    }
}

/// Whether the other side asked to be woken.
#[must_use = "a peer that asked to be woken sleeps until it is"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// Wake it: a worker through `Region::ring_stream`, a backend through [`Stream::proc`].
    pub peer: bool,
}

impl Wake {
    pub(crate) const NONE: Wake = Wake { peer: false };

    /// The second half of a wake-up: what was published before this is either seen by the sleeper, or the sleeper's
    /// flag is seen here.
    ///
    /// Both sides swap the flag, so that the two swaps have an order: if ours is first, the sleeper's
    /// acquires what we published before it, and its second look sees it; if its swap is first, ours
    /// returns the flag. A locked instruction each, which is what a fence would cost.
    pub(crate) fn after_publishing(flag: &AtomicU32) -> Wake {
        // AcqRel pairs with the swap in `ask`.
        Wake {
            peer: flag.swap(0, Ordering::AcqRel) != 0,
        }
    }

    /// The first half, of the sleeper: call it, then look again, and only then sleep.
    pub(crate) fn ask(flag: &AtomicU32) {
        // AcqRel pairs with the swap in `after_publishing`.
        flag.swap(1, Ordering::AcqRel);
    }

    /// The second look found something after all. A wake-up already under way is spurious and harmless.
    ///
    /// A swap too: a plain store would come between the publisher's swap and our next one, which
    /// then wouldn't acquire what was published (found by the loom model of a transfer).
    pub(crate) fn withdraw(flag: &AtomicU32) {
        flag.swap(0, Ordering::AcqRel);
    }
}

/// A handle of one use of a stream. Copies are the same handle; dropping one releases nothing.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    memory: Memory,
    reference: StreamRef,
    proc: u32,
    worker: u32,
    incarnation: u64,
}

impl Stream {
    pub(crate) fn open(memory: Memory, reference: StreamRef) -> Result<Stream, RingError> {
        const STALE: RingError =
            RingError::new(ErrorKind::Stale, "the stream was freed or never held");
        if reference.index >= memory.layout().streams {
            return Err(RingError::new(
                ErrorKind::Stale,
                "no stream with this index",
            ));
        }
        let control = memory.stream(reference.index);
        // Acquire pairs with the Release in `pool::claim`, so that the owner's fields are of this use or a later one ...
        let state = control.state.load(Ordering::Acquire);
        if generation_of(state) != reference.generation || state & flag::HOLDS == 0 {
            return Err(STALE);
        }
        let proc = control.proc.load(Ordering::Relaxed);
        let worker = control.worker.load(Ordering::Relaxed);
        let incarnation = control.incarnation.load(Ordering::Relaxed);
        // ... and the second look says that they are not of a later one (fence pairs with the one in `pool::claim`).
        fence(Ordering::Acquire);
        if generation_of(control.state.load(Ordering::Relaxed)) != reference.generation {
            return Err(STALE);
        }
        if worker >= memory.layout().workers {
            return Err(RingError::new(
                ErrorKind::Corrupt,
                "stream of a worker that does not exist",
            ));
        }
        Ok(Stream {
            memory,
            reference,
            proc,
            worker,
            incarnation,
        })
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn control(&self) -> &StreamControl {
        self.memory.stream(self.reference.index)
    }

    /// What names this use in messages.
    pub fn reference(&self) -> StreamRef {
        self.reference
    }

    /// The backend's proc number.
    pub fn proc(&self) -> u32 {
        self.proc
    }

    /// The worker's slot.
    pub fn worker(&self) -> u32 {
        self.worker
    }

    /// The worker's incarnation when the stream was acquired; 0 if it had never started.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The worker takes its hold, after it took the announcement. A cancelled stream may be attached: the worker then
    /// finds the flag. [`ErrorKind::Stale`] if the stream was freed meanwhile or acquired for another incarnation
    /// (which also sets the stream's error to [`PEER_GONE`], so that the backend knows).
    pub fn worker_attach(&self, incarnation: u64) -> Result<(), RingError> {
        if incarnation != self.incarnation {
            set_error(self.control(), self.reference.generation, PEER_GONE);
            return Err(RingError::new(
                ErrorKind::Stale,
                "stream of another incarnation of the worker",
            ));
        }
        self.change(|state| Some(state | flag::WORKER))
            .map(|_| ())
            .ok_or(RingError::new(
                ErrorKind::Stale,
                "the stream was freed before the worker attached",
            ))
    }

    /// Cancels and drops the backend's hold; true if the stream is free now: then drain the stream waiters.
    /// The caller's [`Producer`] or [`Consumer`] must be unused from here on. Then ring the worker.
    pub fn release_backend(&self) -> bool {
        pool::release(&self.memory, self.reference, flag::BACKEND, flag::CANCEL)
    }

    /// Drops the worker's hold, after its last access to the ring; true if the stream is free now: then drain the
    /// stream waiters. The caller's [`Producer`] or [`Consumer`] must be unused from here on.
    pub fn release_worker(&self) -> bool {
        pool::release(&self.memory, self.reference, flag::WORKER, 0)
    }

    /// Asks the other side to stop. Then wake it: this doesn't look at waiting flags.
    pub fn cancel(&self) {
        let _ = self.change(|state| Some(state | flag::CANCEL));
    }

    /// Whether either side cancelled, the backend released, or the handle is stale.
    pub fn is_cancelled(&self) -> bool {
        let state = self.control().state.load(Ordering::Acquire);
        generation_of(state) != self.reference.generation || state & flag::CANCEL != 0
    }

    /// Sets the stream's error code (not 0); the first one wins. Then wake the peer.
    pub fn fail(&self, code: u32) {
        set_error(self.control(), self.reference.generation, code);
    }

    /// The error code, 0 for none, [`PEER_GONE`] if the worker died or the handle is stale.
    pub fn error(&self) -> u32 {
        // The error word keeps its generation until the stream's next use; the state is ahead of it.
        let state = self.control().state.load(Ordering::Acquire);
        let error = self.control().error.load(Ordering::Acquire);
        let current = [state, error].map(generation_of) == [self.reference.generation; 2];
        if current { error as u32 } else { PEER_GONE }
    }

    /// The writing end. [`ErrorKind::Closed`] if somebody has it.
    pub fn producer(&self) -> Result<Producer, RingError> {
        self.claim(flag::PRODUCER)?;
        Producer::new(*self)
    }

    /// The reading end. [`ErrorKind::Closed`] if somebody has it.
    pub fn consumer(&self) -> Result<Consumer, RingError> {
        self.claim(flag::CONSUMER)?;
        Consumer::new(*self)
    }

    fn claim(&self, end: u64) -> Result<(), RingError> {
        self.check_generation()?;
        self.change(|state| {
            if state & end == 0 {
                Some(state | end)
            } else {
                None
            }
        })
        .map(|_| ())
        .ok_or(RingError::new(
            ErrorKind::Closed,
            "this end of the stream is in use",
        ))
    }

    /// Gives an end back; a stale one is gone already.
    pub(crate) fn unclaim(&self, end: u64) {
        let _ = self.change(|state| Some(state & !end));
    }

    /// The state, if it is still of this use.
    pub(crate) fn check_generation(&self) -> Result<u64, RingError> {
        let state = self.control().state.load(Ordering::Acquire);
        if generation_of(state) == self.reference.generation && state & flag::HOLDS != 0 {
            Ok(state)
        } else {
            Err(RingError::new(ErrorKind::Stale, "the stream was freed"))
        }
    }

    /// Changes the state of this use; `None` if the handle is stale or `next` declines.
    fn change(&self, next: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let control = self.control();
        let mut state = control.state.load(Ordering::Acquire);
        loop {
            if generation_of(state) != self.reference.generation || state & flag::HOLDS == 0 {
                return None;
            }
            // AcqRel: who takes an end or a hold sees what the one before it did with the ring.
            let wanted = next(state)?;
            match control.state.compare_exchange_weak(
                state,
                wanted,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(wanted),
                Err(now) => state = now,
            }
        }
    }
}
