//! The region, byte for byte: sizes and offsets. No pointers are stored in it, so that it may be mapped anywhere.
//!
//! ```text
//!   0 +-------------------------------------------+
//!     | RegionHeader: magic, version, sizes       |  64 B, written once by `init`
//!  64 +-------------------------------------------+
//!     | PoolControl: free list head               |  64 B
//! 128 +-------------------------------------------+
//!     | waiters for a free stream: 1 bit a proc   |  whole cache lines
//!     +-------------------------------------------+
//!     | WorkerControl x workers                   |  192 B each
//!     +-------------------------------------------+
//!     | request doorbells x workers: 1 bit/stream |  whole cache lines each
//!     +-------------------------------------------+
//!     | stream events x workers: 1 bit/stream     |  whole cache lines each
//!     +-------------------------------------------+
//!     | StreamControl x streams                   |  256 B each
//!     +-------------------------------------------+
//!     | ProgressControl x streams                 |  128 B each
//!     +-------------------------------------------+  4096-aligned (relative to the base)
//!     | ring bytes x streams                      |  ring_bytes each
//!     +-------------------------------------------+
//! ```

use crate::bits;
use crate::control::{PoolControl, ProgressControl, RegionHeader, StreamControl, WorkerControl};
use crate::error::{ErrorKind, RingError};

/// The smallest ring. Shrunk under loom, so that wrapping around takes few steps.
pub const RING_BYTES_MIN: u32 = if cfg!(loom) { 256 } else { 4096 };
const RING_BYTES_MAX: u32 = 1 << 30;
const PROCS_MAX: u32 = 1 << 20;
const WORKERS_MAX: u32 = 1 << 10;
const STREAMS_MAX: u32 = 1 << 20;
const RINGS_ALIGN: usize = 4096;

/// Sizes of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Processes that may hold streams or wait for one (Postgres: proc numbers).
    pub procs: u32,
    /// Worker processes: slot 0 is the engine.
    pub workers: u32,
    /// Streams in the pool.
    pub streams: u32,
    /// Bytes of each stream's ring: a power of two, at least 4096.
    pub ring_bytes: u32,
}

impl Layout {
    /// Bytes the region needs. [`ErrorKind::BadLayout`] if a size is zero, out of range, or the sum overflows.
    pub fn size(&self) -> Result<usize, RingError> {
        Ok(self.offsets()?.size)
    }

    /// The largest payload of one frame: half a ring, so that a frame always fits into an empty one.
    pub(crate) const fn max_payload(&self) -> usize {
        self.ring_bytes as usize / 2 - crate::frame::FRAME_ALIGN
    }

    pub(crate) fn offsets(&self) -> Result<Offsets, RingError> {
        const fn bad(context: &'static str) -> RingError {
            RingError::new(ErrorKind::BadLayout, context)
        }
        if self.procs == 0 || self.procs > PROCS_MAX {
            return Err(bad("number of processes out of range"));
        }
        if self.workers == 0 || self.workers > WORKERS_MAX {
            return Err(bad("number of worker processes out of range"));
        }
        if self.streams == 0 || self.streams > STREAMS_MAX {
            return Err(bad("number of streams out of range"));
        }
        if !self.ring_bytes.is_power_of_two()
            || !(RING_BYTES_MIN..=RING_BYTES_MAX).contains(&self.ring_bytes)
        {
            return Err(bad("ring size is not a power of two in range"));
        }
        // The limits above keep everything before the rings below 2^48: only the rings can overflow.
        let bitmap = bits::words(self.streams) * 8;
        let pool = size_of::<RegionHeader>();
        let waiters = pool + size_of::<PoolControl>();
        let workers = waiters + bits::words(self.procs) * 8;
        let requests = workers + self.workers as usize * size_of::<WorkerControl>();
        let events = requests + self.workers as usize * bitmap;
        let streams = events + self.workers as usize * bitmap;
        let progress = streams + self.streams as usize * size_of::<StreamControl>();
        let rings = (progress + self.streams as usize * size_of::<ProgressControl>())
            .next_multiple_of(RINGS_ALIGN);
        let size = (self.streams as usize)
            .checked_mul(self.ring_bytes as usize)
            .and_then(|bytes| bytes.checked_add(rings))
            .filter(|size| *size <= isize::MAX as usize)
            .ok_or(bad("region too large"))?;
        Ok(Offsets {
            pool,
            waiters,
            workers,
            requests,
            events,
            streams,
            progress,
            rings,
            size,
        })
    }
}

/// Where each part begins, in bytes from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(loom, allow(dead_code, reason = "loom models find parts in boxes"))]
pub(crate) struct Offsets {
    pub(crate) pool: usize,
    pub(crate) waiters: usize,
    pub(crate) workers: usize,
    pub(crate) requests: usize,
    pub(crate) events: usize,
    pub(crate) streams: usize,
    pub(crate) progress: usize,
    pub(crate) rings: usize,
    pub(crate) size: usize,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const GOOD: Layout = Layout {
        procs: 100,
        workers: 3,
        streams: 65,
        ring_bytes: 8192,
    };

    #[test]
    fn parts_are_aligned_and_do_not_overlap() {
        let at = GOOD.offsets().expect("a good layout");
        assert_eq!((at.pool, at.waiters, at.workers), (64, 128, 192));
        assert_eq!(at.requests, 192 + 3 * 192);
        assert_eq!(at.events, at.requests + 3 * 64);
        assert_eq!(at.streams, at.events + 3 * 64);
        assert_eq!(at.progress, at.streams + 65 * 256);
        assert!(at.rings >= at.progress + 65 * 128 && at.rings.is_multiple_of(4096));
        assert_eq!(at.size, at.rings + 65 * 8192);
        assert_eq!(GOOD.size(), Ok(at.size));
    }

    #[test]
    fn impossible_layouts_are_refused() {
        for bad in [
            Layout { procs: 0, ..GOOD },
            Layout { workers: 0, ..GOOD },
            Layout { streams: 0, ..GOOD },
            Layout {
                streams: u32::MAX,
                ..GOOD
            },
            Layout {
                ring_bytes: 0,
                ..GOOD
            },
            Layout {
                ring_bytes: 2048,
                ..GOOD
            },
            Layout {
                ring_bytes: 5000,
                ..GOOD
            },
            Layout {
                ring_bytes: 1 << 31,
                ..GOOD
            },
        ] {
            assert_eq!(
                bad.size().map_err(|error| error.kind()),
                Err(ErrorKind::BadLayout),
                "{bad:?}"
            );
        }
    }
}
