//! Fuzzing by corruption: a peer writes random bytes into a stream's control structures and ring, and the other end reads.
//!
//! Whatever happens is an `Ok` or an `Err`: no panic, no access out of bounds (run it under Miri or a sanitizer to be
//! sure of the second). `PG_LAKE_FUZZ_SECONDS` lengthens it, `PG_LAKE_FUZZ_SEED` repeats a run.
#![cfg(not(loom))]

mod support;

use pg_lake_ring::{Layout, Peek, Stream};
use support::{HeapRegion, Random, attached, ends};

const LAYOUT: Layout = Layout {
    procs: 2,
    workers: 2,
    streams: 3,
    ring_bytes: 4096,
};
const HEADER_BYTES: usize = 64;

#[test]
fn a_corrupt_stream_is_an_error() {
    let (seed, mut random) = Random::from_env("PG_LAKE_FUZZ_SEED");
    let until = std::time::Instant::now() + support::seconds("PG_LAKE_FUZZ_SECONDS", 3);
    let (mut rounds, mut errors, mut frames) = (0_u64, 0_u64, 0_u64);
    while std::time::Instant::now() < until {
        let heap = HeapRegion::new(LAYOUT);
        let stream = attached(heap.region());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            round(&heap, stream, &mut random)
        }));
        let (seen, failed) = outcome
            .unwrap_or_else(|_| panic!("panic in round {rounds} of PG_LAKE_FUZZ_SEED={seed}"));
        rounds += 1;
        frames += seen;
        errors += u64::from(failed);
        if cfg!(miri) && rounds == 20 {
            break;
        }
    }
    println!("{rounds} rounds, {frames} frames read, {errors} ended in an error");
    assert!(rounds > 0 && errors > 0, "corruption is noticed");
}

/// Writes frames, reads some, corrupts, and goes on with both ends until an error or a bound. Returns the frames read and
/// whether there was an error.
fn round(heap: &HeapRegion, stream: Stream, random: &mut Random) -> (u64, bool) {
    let (mut producer, mut consumer) = ends(stream);
    let mut frames = 0;
    for turn in 0..40 {
        for _ in 0..random.below(4) {
            let len = random.below(2_200) as usize;
            let payload = vec![turn; len];
            if len <= producer.max_payload()
                && producer.try_write(turn.into(), &payload, false).is_err()
            {
                return (frames, true);
            }
        }
        if random.below(3) == 0 {
            corrupt(heap, random);
        }
        for _ in 0..random.below(4) {
            match consumer.try_peek() {
                Ok(Peek::Frame(frame)) => {
                    frames += 1;
                    // Touch every byte: a slice out of bounds would fault, or Miri would say so.
                    std::hint::black_box(
                        frame
                            .payload
                            .iter()
                            .map(|byte| u64::from(*byte))
                            .sum::<u64>(),
                    );
                    let _ = consumer.release();
                }
                Ok(Peek::Empty | Peek::End) => break,
                Err(_) => return (frames, true),
            }
        }
        if random.below(8) == 0 {
            drop(producer);
            drop(consumer);
            let ends = stream
                .producer()
                .and_then(|producer| Ok((producer, stream.consumer()?)));
            match ends {
                Ok(both) => (producer, consumer) = both,
                Err(_) => return (frames, true),
            }
        }
        exercise(heap, random);
    }
    (frames, false)
}

/// The rest of the crate, over whatever the region holds now.
fn exercise(heap: &HeapRegion, random: &mut Random) {
    let region = heap.region();
    for index in 0..LAYOUT.streams {
        std::hint::black_box(region.stream_info(index));
    }
    match random.below(8) {
        0 => {
            if let Some(streams) = region.acquire(0, random.below(4) as usize, 1) {
                for reference in streams {
                    region.announce(0, 1, reference);
                    region.ring_stream(reference);
                    if let Ok(stream) = region.stream(reference) {
                        stream.release_backend();
                    }
                }
            }
        }
        1 => {
            if let Some(worker) = region.worker(1) {
                worker.take_requests(|_, reference| {
                    let _ = std::hint::black_box(region.stream(reference));
                });
                worker.take_stream_events(|index| assert!(index < LAYOUT.streams));
            }
        }
        2 => {
            if let Some(worker) = region.worker(1) {
                worker.start(1, 1);
            }
        }
        3 => region.drain_stream_waiters(|proc| assert!(proc < LAYOUT.procs)),
        4 => {
            for index in 0..=LAYOUT.streams {
                std::hint::black_box(region.reported(index));
            }
        }
        _ => {}
    }
}

/// Overwrites one to three words somewhere after the region's header, half of the time with something plausible.
#[expect(unsafe_code, reason = "plays a peer that breaks the protocol")]
fn corrupt(heap: &HeapRegion, random: &mut Random) {
    let rings = heap.len() - (LAYOUT.streams * LAYOUT.ring_bytes) as usize;
    for _ in 0..=random.below(3) {
        let offset = match random.below(3) {
            0 => HEADER_BYTES + random.below((rings - HEADER_BYTES) as u64) as usize,
            // A frame header of the first ring, most likely.
            1 => {
                rings
                    + random.below(u64::from(LAYOUT.ring_bytes) / 64) as usize * 64
                    + random.below(20) as usize
            }
            _ => rings + random.below((heap.len() - rings) as u64) as usize,
        } & !7;
        let value = match random.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => random.below(8192),
            3 => random.below(64) * 64,
            _ => random.next(),
        };
        // SAFETY: 8-aligned and within the heap region (its length is a multiple of 64); this thread is its only user.
        unsafe { heap.base().add(offset).cast::<u64>().write(value) };
    }
}
