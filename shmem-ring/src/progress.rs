//! How far a worker is with a request, for statistics.
//!
//! Each stream has a place for the request that it carries. So none is ever searched for or missing, and whoever ends
//! or dies, what is there is of interest only as long as the stream's backend holds it for the worker's present
//! incarnation.

use crate::control::ProgressControl;
use crate::memory::Memory;
use crate::stream::{Stream, StreamRef, flag, generation_of, word};
use crate::sync::{AtomicU64, Ordering, fence};

/// What a worker does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has it, but has not begun to compute.
    Queued = 1,
    /// It computes.
    Running = 2,
    /// It writes rows, or waits for the backend to take them.
    Delivering = 3,
}

impl Phase {
    /// Of the low half of `ProgressControl::state`; anything but a phase is none.
    fn of(state: u64) -> Option<Phase> {
        [Phase::Queued, Phase::Running, Phase::Delivering]
            .into_iter()
            .find(|phase| *phase as u32 == state as u32)
    }
}

/// Numbers of a request: each is right, but they may be of different moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows that came out of its scans, before their predicates.
    pub rows_read: u64,
    /// Rows that the backend was sent.
    pub rows_delivered: u64,
    /// Row groups of the files that were opened.
    pub row_groups: u64,
    /// Those of them that were read, or need not be.
    pub row_groups_done: u64,
    /// Reserved now.
    pub memory_bytes: u64,
    /// The most so far.
    pub memory_peak: u64,
    /// Written to temporary files so far.
    pub spilled_bytes: u64,
    /// Temporary files so far.
    pub spilled_files: u64,
    /// Those of the rows read that came from files.
    pub rows_cold: u64,
}

/// A request as [`Region::reported`](crate::Region::reported) finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The proc number of whose request it is.
    pub proc: u32,
    /// The slot of the worker that serves it.
    pub worker: u32,
    /// What the worker does.
    pub phase: Phase,
    /// How far it is.
    pub progress: Progress,
}

/// The writing end, of the worker that serves the request. Dropping it takes what it wrote back.
#[derive(Debug)]
pub struct Report {
    memory: Memory,
    reference: StreamRef,
}

impl Report {
    pub(crate) fn begin(memory: Memory, reference: StreamRef) -> Report {
        let report = Report { memory, reference };
        let control = report.control();
        control.state.store(0, Ordering::Relaxed);
        // Pairs with the Acquire fence in `reported`: who reads a number of this use sees that the state has changed.
        fence(Ordering::Release);
        report.store(&Progress::default());
        report.phase(Phase::Queued);
        report
    }

    fn control(&self) -> &ProgressControl {
        self.memory.progress(self.reference.index)
    }

    /// To be called only while the worker has its hold of the stream.
    pub fn phase(&self, phase: Phase) {
        // Release pairs with the Acquire in `reported`.
        self.control().state.store(
            word(self.reference.generation, phase as u32),
            Ordering::Release,
        );
    }

    /// To be called only while the worker has its hold of the stream.
    pub fn store(&self, progress: &Progress) {
        let control = self.control();
        for (place, value) in [
            (&control.rows_read, progress.rows_read),
            (&control.rows_delivered, progress.rows_delivered),
            (&control.row_groups, progress.row_groups),
            (&control.row_groups_done, progress.row_groups_done),
            (&control.memory_bytes, progress.memory_bytes),
            (&control.memory_peak, progress.memory_peak),
            (&control.spilled_bytes, progress.spilled_bytes),
            (&control.spilled_files, progress.spilled_files),
            (&control.rows_cold, progress.rows_cold),
        ] {
            place.store(value, Ordering::Relaxed);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let state = &self.control().state;
        let now = state.load(Ordering::Relaxed);
        // The stream may be in its next use already.
        if generation_of(now) == self.reference.generation {
            let _ = state.compare_exchange(now, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn load(control: &ProgressControl) -> Progress {
    let get = |place: &AtomicU64| place.load(Ordering::Relaxed);
    Progress {
        rows_read: get(&control.rows_read),
        rows_delivered: get(&control.rows_delivered),
        row_groups: get(&control.row_groups),
        row_groups_done: get(&control.row_groups_done),
        memory_bytes: get(&control.memory_bytes),
        memory_peak: get(&control.memory_peak),
        spilled_bytes: get(&control.spilled_bytes),
        spilled_files: get(&control.spilled_files),
        rows_cold: get(&control.rows_cold),
    }
}

/// What was reported last: a report that ends leaves its numbers there.
pub(crate) fn last_reported(memory: Memory, index: u32) -> Progress {
    load(memory.progress(index))
}

/// What is reported of the request that a stream carries, if its backend waits for it and the worker is there.
pub(crate) fn reported(memory: Memory, index: u32) -> Option<Reported> {
    let control = memory.progress(index);
    // Acquire pairs with the Release in `Report::phase`.
    let state = control.state.load(Ordering::Acquire);
    let phase = Phase::of(state)?;
    let generation = generation_of(state);
    let stream = Stream::open(memory, StreamRef { index, generation }).ok()?;
    let worker = memory.worker(stream.worker());
    let present = worker.up.load(Ordering::Acquire) != 0
        && worker.incarnation.load(Ordering::Acquire) == stream.incarnation();
    if !present || stream.check_generation().ok()? & flag::BACKEND == 0 {
        return None;
    }
    let progress = load(control);
    // Pairs with the Release fence in `Report::begin`.
    fence(Ordering::Acquire);
    let later = control.state.load(Ordering::Relaxed);
    (generation_of(later) == generation).then_some(Reported {
        proc: stream.proc(),
        worker: stream.worker(),
        phase,
        progress,
    })
}
