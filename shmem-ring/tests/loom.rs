//! Loom models: every interleaving (up to a bound) of the protocols between two or three parties.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p pg_lake_ring --release --test loom`
#![cfg(loom)]

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use pg_lake_ring::{Layout, ModelMemory, PEER_GONE, Peek, Region, Stream, StreamRef};
use std::sync::Arc;

const LAYOUT: Layout = Layout {
    procs: 3,
    workers: 1,
    streams: 2,
    ring_bytes: 256,
};

/// Loom explores all schedules with at most this many preemptions: bugs of this kind need few.
fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(preemptions));
    builder.max_branches = 10_000;
    builder.check(f);
}

fn memory(layout: Layout) -> (Arc<ModelMemory>, Region) {
    let memory: Arc<ModelMemory> = Arc::from(ModelMemory::new(layout));
    let region = memory.region();
    (memory, region)
}

fn attached(region: Region) -> Stream {
    let incarnation = region.worker(0).expect("slot 0").start(1, 1);
    let stream = open(region, region.acquire(0, 1, 0).expect("one")[0]);
    stream.worker_attach(incarnation).expect("attached");
    stream
}

fn open(region: Region, reference: StreamRef) -> Stream {
    region.stream(reference).expect("held")
}

/// Stands for a latch. A lost wake-up leaves a thread blocked for good, which loom reports.
#[derive(Default)]
struct Latch(Mutex<bool>, Condvar);

fn sleep(latch: &Latch) {
    let mut set = latch.0.lock().expect("not poisoned");
    while !*set {
        set = latch.1.wait(set).expect("not poisoned");
    }
    *set = false;
}

fn set(latch: &Latch) {
    *latch.0.lock().expect("not poisoned") = true;
    latch.1.notify_one();
}

/// Both directions at once: the ring holds two frames, so that the producer waits, the third wraps around (the second frame
/// is longer), and each side sleeps until woken. A missing Release or Acquire is a race on the ring bytes.
#[test]
fn a_transfer_wraps_and_loses_no_wake_up() {
    const LENGTHS: [usize; 3] = [1, 0, 64];
    model(2, || {
        let (memory, region) = memory(LAYOUT);
        let stream = attached(region);
        let latches = Arc::new((Latch::default(), Latch::default()));
        let writer = {
            let (memory, latches) = (memory.clone(), latches.clone());
            thread::spawn(move || {
                let mut producer = stream.producer().expect("a producer");
                for (kind, len) in LENGTHS.into_iter().enumerate() {
                    let wake = loop {
                        match producer
                            .try_write(kind as u16, &[kind as u8; 64][..len], false)
                            .expect("open")
                        {
                            Some(wake) => break wake,
                            None => sleep(&latches.0),
                        }
                    };
                    if wake.peer {
                        set(&latches.1);
                    }
                }
                if producer.finish().peer {
                    set(&latches.1);
                }
                drop(producer);
                drop(memory);
            })
        };
        let mut consumer = stream.consumer().expect("a consumer");
        let mut next = 0;
        loop {
            match consumer.try_peek().expect("valid") {
                Peek::Empty => sleep(&latches.1),
                Peek::End => break,
                Peek::Frame(frame) => {
                    assert_eq!(usize::from(frame.kind), next);
                    assert_eq!(frame.payload, &[next as u8; 64][..LENGTHS[next]]);
                    next += 1;
                    if consumer.release().peer {
                        set(&latches.0);
                    }
                }
            }
        }
        assert_eq!(next, LENGTHS.len());
        writer.join().expect("no panic");
        drop(consumer);
        drop(memory);
    });
}

/// Two backends announce while the worker takes: each request arrives exactly once, and one that was announced before the
/// wake-up is seen after it.
#[test]
fn announcements_arrive_exactly_once() {
    model(2, || {
        let (memory, region) = memory(LAYOUT);
        region.worker(0).expect("slot 0").start(1, 1);
        let references = region.acquire(0, 2, 0).expect("two");
        let announcers: Vec<_> = references
            .iter()
            .map(|reference| {
                let (memory, reference) = (memory.clone(), *reference);
                thread::spawn(move || {
                    memory.region().announce(0, 0, reference);
                })
            })
            .collect();
        let mut seen = Vec::new();
        let worker = region.worker(0).expect("slot 0");
        worker.take_requests(|_, reference| seen.push(reference));
        for announcer in announcers {
            announcer.join().expect("no panic");
        }
        assert_eq!(worker.has_work(), seen.len() < 2);
        worker.take_requests(|_, reference| seen.push(reference));
        seen.sort_by_key(|reference| reference.index);
        let mut expected = references;
        expected.sort_by_key(|reference| reference.index);
        assert_eq!(seen, expected);
    });
}

/// The doorbell and the worker's last look before it sleeps: one of them sees the other.
#[test]
fn a_doorbell_is_not_slept_over() {
    model(3, || {
        let (memory, region) = memory(LAYOUT);
        let stream = attached(region);
        let asleep = Arc::new(AtomicU32::new(0));
        let backend = {
            let (memory, asleep) = (memory.clone(), asleep.clone());
            thread::spawn(move || {
                memory.region().ring_stream(stream.reference());
                asleep.load(Ordering::Relaxed) != 0
            })
        };
        asleep.store(1, Ordering::Relaxed);
        let sleeps = !region.worker(0).expect("slot 0").has_work();
        let woken = backend.join().expect("no panic");
        assert!(!sleeps || woken, "the worker sleeps and nobody wakes it");
    });
}

/// Backend and worker let go at the same time: one of them frees, exactly once.
#[test]
fn the_last_hold_frees_once() {
    model(3, || {
        let (memory, region) = memory(LAYOUT);
        let stream = attached(region);
        let worker = {
            let memory = memory.clone();
            thread::spawn(move || {
                let freed = stream.release_worker();
                drop(memory);
                freed
            })
        };
        let by_backend = stream.release_backend();
        let by_worker = worker.join().expect("no panic");
        assert!(by_backend ^ by_worker);
        assert_eq!(region.free_streams(), 2);
        let again = region.acquire(1, 2, 0).expect("both are in the list, once");
        assert_ne!(again[0].index, again[1].index);
        assert!(
            again
                .iter()
                .all(|reference| *reference != stream.reference())
        );
        assert_eq!(region.acquire(1, 1, 0), None);
    });
}

/// A worker restarts while one backend lets go of a stream of the old incarnation and another acquires. Nothing is
/// freed twice or lost, and a stream acquired for the old incarnation knows that it is gone.
#[test]
fn a_restart_races_with_release_and_acquire() {
    model(2, || {
        let (memory, region) = memory(LAYOUT);
        let stream = attached(region);
        let releasing = {
            let memory = memory.clone();
            thread::spawn(move || {
                stream.release_backend();
                drop(memory);
            })
        };
        let acquiring = {
            let memory = memory.clone();
            thread::spawn(move || memory.region().acquire(2, 1, 0))
        };
        let incarnation = region.worker(0).expect("slot 0").start(2, 2);
        releasing.join().expect("no panic");
        let acquired = acquiring
            .join()
            .expect("no panic")
            .expect("one of two was free all the time");
        let held = open(region, acquired[0]);
        assert!(held.incarnation() == incarnation || held.error() == PEER_GONE);
        assert_eq!(region.free_streams(), 1);
        assert!(held.release_backend());
        let all = region.acquire(1, 2, 0).expect("all are in the list");
        assert_ne!(all[0].index, all[1].index);
        assert_eq!(region.acquire(1, 1, 0), None);
    });
}

/// Two acquires of two streams each, of which only one can succeed: never both, never neither.
#[test]
fn acquire_is_all_or_none() {
    model(3, || {
        let (memory, region) = memory(LAYOUT);
        let other = {
            let memory = memory.clone();
            thread::spawn(move || memory.region().acquire(0, 2, 0).is_some())
        };
        let mine = region.acquire(1, 2, 0).is_some();
        assert!(mine ^ other.join().expect("no panic"));
        assert_eq!(region.free_streams(), 0);
    });
}

/// A backend waits for a free stream while another frees one: it gets it, or is called.
#[test]
fn a_freed_stream_is_not_slept_over() {
    model(3, || {
        let (memory, region) = memory(Layout {
            streams: 1,
            ..LAYOUT
        });
        let stream = open(region, region.acquire(0, 1, 0).expect("one")[0]);
        let releasing = {
            let memory = memory.clone();
            thread::spawn(move || {
                assert!(stream.release_backend());
                let mut called = false;
                memory
                    .region()
                    .drain_stream_waiters(|proc| called |= proc == 1);
                called
            })
        };
        region.wait_for_stream(1);
        let acquired = region.acquire(1, 1, 0).is_some();
        let called = releasing.join().expect("no panic");
        assert!(acquired || called, "the backend sleeps and nobody wakes it");
    });
}

/// A push and a multi-pop of the free list at the same time: no stream is lost or doubled (ABA).
#[test]
fn the_free_list_survives_pops_and_pushes() {
    model(2, || {
        let (memory, region) = memory(Layout {
            streams: 3,
            ..LAYOUT
        });
        let other = {
            let memory = memory.clone();
            thread::spawn(move || {
                let region = memory.region();
                let first = region.acquire(0, 1, 0).expect("at most two are taken");
                open(region, first[0]).release_backend();
            })
        };
        let two = region.acquire(1, 2, 0).expect("at most one is taken");
        other.join().expect("no panic");
        assert_ne!(two[0].index, two[1].index);
        let last = region.acquire(1, 1, 0).expect("one is left");
        assert!(two.iter().all(|reference| reference.index != last[0].index));
        assert_eq!(region.acquire(1, 1, 0), None);
    });
}
