//! The pool of streams: a lock-free stack of the free ones, from which n are taken at once or none.
//!
//! Taking n walks n links from the head and swings the head past them: the head's tag changes with every push and
//! pop, so that an unchanged head word proves that the walk saw one list. A counter beside claim flags would be
//! simpler, but not atomic for n > 1: two halves could wait for each other.
//!
//! A worker may be killed after it freed a stream (`state`) and before it pushed it (`free_head`). Its next incarnation
//! finds such a stream: [`recover_unlisted`].

use crate::bits;
use crate::control::{NO_PROC, PoolControl, StreamControl};
use crate::memory::Memory;
use crate::stream::{PEER_GONE, StreamRef, flag, generation_of, set_error, word};
use crate::sync::{Ordering, fence, spin};

/// How often a worker's start looks again for lost streams while backends are in the middle of taking some.
const RECOVER_ATTEMPTS: u32 = if cfg!(loom) { 2 } else { 10_000 };

/// 0 is no generation, so that a zero word is never an announcement.
const fn next_generation(generation: u32) -> u32 {
    match generation.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

/// Puts all streams into the pool. Nobody else may use the region yet; the structs are zero.
pub(crate) fn format(memory: &Memory) {
    let layout = memory.layout();
    for slot in 0..layout.workers {
        memory.worker(slot).proc.store(NO_PROC, Ordering::Relaxed);
    }
    for index in 0..layout.streams {
        let control = memory.stream(index);
        control.state.store(word(1, 0), Ordering::Relaxed);
        control.proc.store(NO_PROC, Ordering::Relaxed);
        let next = if index + 1 < layout.streams {
            index + 2
        } else {
            0
        };
        control.next_free.store(next, Ordering::Relaxed);
    }
    memory.pool().free_head.store(word(0, 1), Ordering::Release);
}

/// Whose streams are: those that are acquired at one time.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) proc: u32,
    pub(crate) worker: u32,
    /// Slot and incarnation of the process, if it is a worker's.
    pub(crate) holder: Option<(u32, u64)>,
}

/// See `Region::acquire`.
pub(crate) fn acquire(
    memory: &Memory,
    owner: Owner,
    n: usize,
    leave: usize,
) -> Option<Vec<StreamRef>> {
    let worker = owner.worker;
    let pool = memory.pool();
    let slot = memory.worker(worker);
    // Acquire pairs with the Release in `WorkerSlot::start`.
    let incarnation = slot.incarnation.load(Ordering::Acquire);
    // `recover_unlisted` must not mistake a stream that is off the list, but not yet marked as held, for a lost one.
    pool.claiming.fetch_add(1, Ordering::AcqRel);
    let claimed = pop(memory, n, leave).map(|indexes| {
        indexes
            .into_iter()
            .map(|index| claim(memory, index, owner, incarnation))
            .collect()
    });
    // Release pairs with the Acquire in `recover_unlisted`: 0 means that all claims before are visible.
    pool.claiming.fetch_sub(1, Ordering::AcqRel);
    let claimed: Vec<StreamRef> = claimed?;

    // A new incarnation fails the streams of older ones. Either its scan saw ours, or we see the new number: pairs
    // with the fence in `WorkerSlot::start`, which is between storing the number and scanning.
    fence(Ordering::SeqCst);
    if slot.incarnation.load(Ordering::Relaxed) != incarnation {
        for reference in &claimed {
            set_error(
                memory.stream(reference.index),
                reference.generation,
                PEER_GONE,
            );
        }
    }
    Some(claimed)
}

/// Marks a stream that was just popped as the backend's.
fn claim(memory: &Memory, index: u32, owner: Owner, incarnation: u64) -> StreamRef {
    let control = memory.stream(index);
    let generation = generation_of(control.state.load(Ordering::Acquire));
    // Pairs with the Acquire fence in `Stream::open`: who reads a field written below sees that the generation before
    // has ended.
    fence(Ordering::Release);
    control.proc.store(owner.proc, Ordering::Relaxed);
    control.worker.store(owner.worker, Ordering::Relaxed);
    control.incarnation.store(incarnation, Ordering::Relaxed);
    let (holder, holder_incarnation) = match owner.holder {
        Some((slot, incarnation)) => (slot + 1, incarnation),
        None => (0, 0),
    };
    control.holder.store(holder, Ordering::Relaxed);
    control
        .holder_incarnation
        .store(holder_incarnation, Ordering::Relaxed);
    control.error.store(word(generation, 0), Ordering::Relaxed);
    control.announced.store(0, Ordering::Relaxed);
    control.producer.head.store(0, Ordering::Relaxed);
    control.producer.producer_seq.store(0, Ordering::Relaxed);
    control.producer.finished.store(0, Ordering::Relaxed);
    control.consumer.tail.store(0, Ordering::Relaxed);
    control.consumer.consumer_seq.store(0, Ordering::Relaxed);
    control.waiting.consumer_waiting.store(0, Ordering::Relaxed);
    control.waiting.producer_waiting.store(0, Ordering::Relaxed);
    // Release pairs with the Acquire in `Stream::open`. A plain store: nobody else changes a stream without holds.
    control
        .state
        .store(word(generation, flag::BACKEND as u32), Ordering::Release);
    StreamRef { index, generation }
}

/// Drops a hold and sets flags, if the state is still of this use and has the hold; frees the stream with the last
/// one. True if freed.
pub(crate) fn release(memory: &Memory, reference: StreamRef, hold: u64, set: u64) -> bool {
    let control = memory.stream(reference.index);
    let mut state = control.state.load(Ordering::Acquire);
    loop {
        if generation_of(state) != reference.generation || state & hold == 0 {
            return false;
        }
        let left = (state & !hold) | set;
        let freed = left & flag::HOLDS == 0;
        let next = if freed {
            let mark = if hold == flag::WORKER {
                flag::FREED_BY_WORKER
            } else {
                0
            };
            word(next_generation(reference.generation), mark as u32)
        } else {
            left
        };
        // AcqRel: the next user of the ring sees that both sides are done with it.
        match control
            .state
            .compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {
                if freed {
                    push(memory.pool(), control, reference.index);
                }
                return freed;
            }
            Err(now) => state = now,
        }
    }
}

fn push(pool: &PoolControl, control: &StreamControl, index: u32) {
    let mut head = pool.free_head.load(Ordering::Relaxed);
    loop {
        // Release pairs with the Acquire in `walk`: who reads this link sees the pop that preceded it, and so a head
        // with another tag than before.
        control.next_free.store(head as u32, Ordering::Release);
        let next = word(generation_of(head).wrapping_add(1), index + 1);
        // Release pairs with the Acquire of the head in `pop`.
        match pool
            .free_head
            .compare_exchange_weak(head, next, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => return,
            Err(now) => head = now,
        }
    }
}

/// Takes `n` streams off the list, or none if fewer than `leave` would be left.
fn pop(memory: &Memory, n: usize, leave: usize) -> Option<Vec<u32>> {
    let pool = memory.pool();
    let mut head = pool.free_head.load(Ordering::Acquire);
    loop {
        let (mut taken, after) = walk(memory, head, n + leave);
        let enough = taken.len() == n + leave;
        let rest = taken.get(n).map_or(after, |index| index + 1);
        taken.truncate(n);
        if enough && taken.iter().all(|index| is_free(memory, *index)) {
            let next = word(generation_of(head).wrapping_add(1), rest);
            match pool
                .free_head
                .compare_exchange(head, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(taken),
                Err(now) => head = now,
            }
        } else {
            // Too few, or the list changed under the walk.
            let now = pool.free_head.load(Ordering::Acquire);
            if now == head {
                return None;
            }
            head = now;
        }
    }
}

/// Up to `n` streams from the head on, and the link after them. What it saw is one list only if the head is unchanged
/// afterwards. Links that lead nowhere (a corrupt region) end the walk; it never takes more than `n` steps.
fn walk(memory: &Memory, head: u64, n: usize) -> (Vec<u32>, u32) {
    let streams = memory.layout().streams;
    let mut taken = Vec::with_capacity(n.min(streams as usize));
    let mut link = head as u32;
    while taken.len() < n && (1..=streams).contains(&link) {
        taken.push(link - 1);
        // Acquire pairs with the Release in `push`.
        link = memory.stream(link - 1).next_free.load(Ordering::Acquire);
    }
    (taken, link)
}

fn is_free(memory: &Memory, index: u32) -> bool {
    memory.stream(index).state.load(Ordering::Acquire) & flag::HOLDS == 0
}

/// Streams without holds.
pub(crate) fn free_streams(memory: &Memory) -> u32 {
    (0..memory.layout().streams)
        .filter(|index| is_free(memory, *index))
        .count() as u32
}

/// Fails the streams of a worker whose incarnation is below `below`, and drops the hold that it had on them.
///
/// No thread of those incarnations may be running.
pub(crate) fn reclaim(memory: &Memory, worker: u32, below: u64) {
    recover_unlisted(memory, worker);
    for index in 0..memory.layout().streams {
        let control = memory.stream(index);
        let state = control.state.load(Ordering::Acquire);
        let generation = generation_of(state);
        if state & flag::HOLDS == 0
            || control.worker.load(Ordering::Relaxed) != worker
            || control.incarnation.load(Ordering::Relaxed) >= below
        {
            continue;
        }
        // The fields are of this use if the generation is still the same (as in `Stream::open`). If it is not, this use
        // ended, and who acquired the next one compares incarnations itself.
        fence(Ordering::Acquire);
        if generation_of(control.state.load(Ordering::Relaxed)) != generation {
            continue;
        }
        set_error(control, generation, PEER_GONE);
        let _ = release(memory, StreamRef { index, generation }, flag::WORKER, 0);
    }
}

/// Drops the backend's hold on the streams that a worker's incarnation below `below` acquired and didn't give back. Whoever
/// serves such a stream finds it cancelled.
///
/// No thread of those incarnations may be running.
pub(crate) fn give_back(memory: &Memory, slot: u32, below: u64) {
    let layout = memory.layout();
    for index in 0..layout.streams {
        let control = memory.stream(index);
        // Acquire pairs with the Release in `claim`.
        let state = control.state.load(Ordering::Acquire);
        let generation = generation_of(state);
        if state & flag::BACKEND == 0
            || control.holder.load(Ordering::Relaxed) != slot + 1
            || control.holder_incarnation.load(Ordering::Relaxed) >= below
        {
            continue;
        }
        let worker = control.worker.load(Ordering::Relaxed);
        // As in `reclaim`: if this use has ended, the next one is somebody else's.
        fence(Ordering::Acquire);
        if generation_of(control.state.load(Ordering::Relaxed)) != generation {
            continue;
        }
        let reference = StreamRef { index, generation };
        let freed = release(memory, reference, flag::BACKEND, flag::CANCEL);
        if !freed && worker < layout.workers {
            bits::set(memory.events(worker), index);
        }
    }
}

/// Pushes the streams that an earlier incarnation of the worker freed but was killed before it pushed.
///
/// Such a stream is marked as freed by this worker, is not in the list, and nobody is about to mark it as held. For the
/// last, look in this order: the list (unchanged during the walk), then `claiming` is 0, then the state is unchanged. Who
/// took it off the list before the walk had incremented `claiming` before; that it is 0 now means that it is done, and
/// its claim visible.
fn recover_unlisted(memory: &Memory, worker: u32) {
    let pool = memory.pool();
    let streams = memory.layout().streams;
    let suspects: Vec<(u32, u64)> = (0..streams)
        .map(|index| (index, memory.stream(index).state.load(Ordering::Acquire)))
        .filter(|(_, state)| state & flag::HOLDS == 0 && state & flag::FREED_BY_WORKER != 0)
        .filter(|(index, _)| memory.stream(*index).worker.load(Ordering::Relaxed) == worker)
        .collect();
    if suspects.is_empty() {
        return;
    }
    for _ in 0..RECOVER_ATTEMPTS {
        let head = pool.free_head.load(Ordering::Acquire);
        let (listed, _) = walk(memory, head, streams as usize);
        let one_list = pool.free_head.load(Ordering::Acquire) == head;
        // Acquire pairs with the Release of the decrement in `acquire`.
        if !one_list || pool.claiming.load(Ordering::Acquire) != 0 {
            spin();
            continue;
        }
        let mut is_listed = vec![false; streams as usize];
        for index in listed {
            is_listed[index as usize] = true;
        }
        for (index, state) in suspects {
            let control = memory.stream(index);
            if !is_listed[index as usize] && control.state.load(Ordering::Acquire) == state {
                push(pool, control, index);
            }
        }
        return;
    }
}

/// See `Region::wait_for_stream`.
pub(crate) fn wait_for_stream(memory: &Memory, proc: u32) {
    bits::set(memory.waiters(), proc);
    // Pairs with the fence in `drain_waiters`: either the acquire that follows sees the freed stream, or who freed it
    // sees the bit.
    fence(Ordering::SeqCst);
}

/// See `Region::drain_stream_waiters`.
pub(crate) fn drain_waiters(memory: &Memory, f: impl FnMut(u32)) {
    // Pairs with the fence in `wait_for_stream`.
    fence(Ordering::SeqCst);
    bits::drain(memory.waiters(), memory.layout().procs, f);
}
