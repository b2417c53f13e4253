//! Regions for tests, and a seeded generator of numbers.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use pg_lake_ring::{Consumer, Layout, Peek, Producer, Region, RingError, Stream};
use std::cell::UnsafeCell;

/// A region on the heap, which Miri understands.
pub struct HeapRegion {
    /// Not a box: moving one would end the region's right to its bytes (Miri says so).
    blocks: Vec<Block>,
    region: Region,
}

#[repr(C, align(64))]
struct Block(UnsafeCell<[u8; 64]>);

// SAFETY: the bytes are used through `Region` only, which is made for sharing; `corrupt` says so where it is not.
#[expect(unsafe_code, reason = "stands for shared memory")]
unsafe impl Sync for HeapRegion {}
// SAFETY: as for `Sync`.
#[expect(unsafe_code, reason = "stands for shared memory")]
unsafe impl Send for HeapRegion {}

impl HeapRegion {
    #[expect(unsafe_code, reason = "formats the bytes it owns")]
    pub fn new(layout: Layout) -> HeapRegion {
        let len = layout.size().expect("a valid layout");
        let blocks: Vec<Block> = (0..len.div_ceil(64))
            .map(|_| Block(UnsafeCell::new([0; 64])))
            .collect();
        let base = blocks.as_ptr().cast::<u8>().cast_mut();
        // SAFETY: 64-aligned, initialised, interior-mutable bytes, owned by the struct that also owns the handle.
        let region = unsafe { Region::init(base, blocks.len() * 64, &layout) }.expect("a region");
        HeapRegion { blocks, region }
    }

    pub fn region(&self) -> Region {
        self.region
    }

    pub fn base(&self) -> *mut u8 {
        self.blocks.as_ptr().cast::<u8>().cast_mut()
    }

    pub fn len(&self) -> usize {
        self.blocks.len() * 64
    }
}

/// One stream of proc 0 and worker 0, attached.
pub fn attached(region: Region) -> Stream {
    let worker = region.worker(0).expect("slot 0");
    let incarnation = if worker.is_up() {
        worker.incarnation()
    } else {
        worker.start(1, 9)
    };
    let reference = region.acquire(0, 1, 0).expect("a free stream")[0];
    let stream = region.stream(reference).expect("a fresh stream");
    stream.worker_attach(incarnation).expect("attached");
    stream
}

pub fn ends(stream: Stream) -> (Producer, Consumer) {
    (
        stream.producer().expect("a producer"),
        stream.consumer().expect("a consumer"),
    )
}

/// Reads a frame and gives it back: `None` if there is none.
pub fn read(consumer: &mut Consumer) -> Result<Option<(u16, bool, Vec<u8>)>, RingError> {
    let frame = match consumer.try_peek()? {
        Peek::Frame(frame) => (frame.kind, frame.more, frame.payload.to_vec()),
        Peek::Empty | Peek::End => return Ok(None),
    };
    let _ = consumer.release();
    Ok(Some(frame))
}

/// Marsaglia's xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// From the environment if set, else from the clock; printed, so that a failure can be repeated.
    pub fn from_env(variable: &str) -> (u64, Random) {
        let seed = std::env::var(variable)
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| {
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(1, |since| since.as_nanos() as u64)
            });
        println!("{variable}={seed}");
        (seed, Random::new(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit.max(1)
    }
}

/// Seconds to run a bounded test: from the environment, else `default`.
pub fn seconds(variable: &str, default: u64) -> std::time::Duration {
    let seconds = std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default);
    std::time::Duration::from_secs(seconds)
}
