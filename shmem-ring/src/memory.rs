//! How the parts of a region are found: by offset from its base, or, under loom, in boxes.
//!
//! The rest of the crate sees [`Memory`]'s methods only. Loom's atomics are larger than the real ones and need
//! construction, so that its models cannot run over bytes; they run over the same structs and the same code.

use crate::layout::Layout;

#[cfg(not(loom))]
pub(crate) use region::Memory;

#[cfg(loom)]
pub(crate) use model::Memory;
#[cfg(loom)]
pub use model::ModelMemory;

/// Panics are programming errors here: indices are checked where they enter the crate.
fn assert_below(index: u32, limit: u32) {
    assert!(index < limit, "index {index} out of range {limit}");
}

#[cfg(not(loom))]
mod region {
    use super::{Layout, assert_below};
    use crate::bits;
    use crate::control::{
        MAGIC, PoolControl, ProgressControl, RegionHeader, StreamControl, VERSION, WorkerControl,
    };
    use crate::error::{ErrorKind, RingError};
    use crate::layout::Offsets;
    use crate::sync::{AtomicU64, Ordering};
    use core::ptr::NonNull;

    /// A checked region: its base, and where its parts are.
    ///
    /// Invariant, which every `unsafe` below relies on: `base` is 64-aligned and `at.size` bytes from it are valid
    /// for reads and writes for as long as this or a copy is used (the contract of `Region::init` and `attach`),
    /// and `at` are the offsets of `layout`.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Memory {
        base: NonNull<u8>,
        layout: Layout,
        at: Offsets,
    }

    // SAFETY: the region is shared between processes by nature: all access to its control structures is atomic, and
    // ring bytes are handed over by the Release/Acquire pairs of head and tail.
    #[expect(
        unsafe_code,
        reason = "a raw pointer into shared memory, used from any thread"
    )]
    unsafe impl Send for Memory {}
    // SAFETY: as for `Send`.
    #[expect(
        unsafe_code,
        reason = "a raw pointer into shared memory, used from any thread"
    )]
    unsafe impl Sync for Memory {}

    impl Memory {
        /// Zeroes the control structures and writes the header but for the magic, which [`Memory::publish`] does.
        ///
        /// # Safety
        /// - `base..base + len` is valid for reads and writes, initialised, and stays so while any copy is used.
        /// - Nobody else uses these bytes before `publish`.
        #[expect(unsafe_code, reason = "formats raw memory")]
        pub(crate) unsafe fn format(
            base: *mut u8,
            len: usize,
            layout: &Layout,
        ) -> Result<Memory, RingError> {
            let at = layout.offsets()?;
            let base = aligned(base)?;
            if len < at.size {
                return Err(RingError::new(
                    ErrorKind::BadRegion,
                    "region smaller than its layout",
                ));
            }
            // SAFETY: `at.rings <= at.size <= len` bytes are writable by the caller's contract.
            unsafe { base.as_ptr().write_bytes(0, at.rings) };
            let memory = Memory {
                base,
                layout: *layout,
                at,
            };
            let header = memory.header();
            header.version.store(VERSION, Ordering::Relaxed);
            header.procs.store(layout.procs, Ordering::Relaxed);
            header.workers.store(layout.workers, Ordering::Relaxed);
            header.streams.store(layout.streams, Ordering::Relaxed);
            header
                .ring_bytes
                .store(layout.ring_bytes, Ordering::Relaxed);
            Ok(memory)
        }

        /// Makes the region attachable.
        pub(crate) fn publish(&self) {
            // Release pairs with the Acquire in `attach`: who sees the magic sees a formatted region.
            self.header().magic.store(MAGIC, Ordering::Release);
        }

        /// Checks the header and takes the layout from it.
        ///
        /// # Safety
        /// - `base..base + len` is valid for reads and writes, initialised, and stays so while any copy is used.
        #[expect(unsafe_code, reason = "reads raw memory")]
        pub(crate) unsafe fn attach(base: *mut u8, len: usize) -> Result<Memory, RingError> {
            let base = aligned(base)?;
            if len < size_of::<RegionHeader>() {
                return Err(RingError::new(
                    ErrorKind::BadRegion,
                    "region smaller than its header",
                ));
            }
            // SAFETY: `len` covers the header, `base` is aligned for it, and it consists of atomics.
            let header = unsafe { base.cast::<RegionHeader>().as_ref() };
            // Acquire pairs with the Release in `publish`.
            if header.magic.load(Ordering::Acquire) != MAGIC {
                return Err(RingError::new(
                    ErrorKind::BadRegion,
                    "no magic: not a region, or not formatted yet",
                ));
            }
            if header.version.load(Ordering::Relaxed) != VERSION {
                return Err(RingError::new(
                    ErrorKind::BadRegion,
                    "region of another version",
                ));
            }
            let layout = Layout {
                procs: header.procs.load(Ordering::Relaxed),
                workers: header.workers.load(Ordering::Relaxed),
                streams: header.streams.load(Ordering::Relaxed),
                ring_bytes: header.ring_bytes.load(Ordering::Relaxed),
            };
            let at = layout.offsets().map_err(|_| {
                RingError::new(ErrorKind::BadRegion, "impossible layout in the header")
            })?;
            if len < at.size {
                return Err(RingError::new(
                    ErrorKind::BadRegion,
                    "region smaller than its header says",
                ));
            }
            Ok(Memory { base, layout, at })
        }

        pub(crate) fn layout(&self) -> Layout {
            self.layout
        }

        fn header(&self) -> &RegionHeader {
            self.part(0)
        }

        pub(crate) fn pool(&self) -> &PoolControl {
            self.part(self.at.pool)
        }

        /// One bit a proc: waits for a free stream.
        pub(crate) fn waiters(&self) -> &[AtomicU64] {
            self.words(self.at.waiters, self.layout.procs)
        }

        pub(crate) fn worker(&self, slot: u32) -> &WorkerControl {
            assert_below(slot, self.layout.workers);
            self.part(self.at.workers + slot as usize * size_of::<WorkerControl>())
        }

        /// One bit a stream: was announced to this worker.
        pub(crate) fn requests(&self, slot: u32) -> &[AtomicU64] {
            self.worker_bitmap(self.at.requests, slot)
        }

        /// One bit a stream: something happened on it that this worker wants to know.
        pub(crate) fn events(&self, slot: u32) -> &[AtomicU64] {
            self.worker_bitmap(self.at.events, slot)
        }

        pub(crate) fn stream(&self, index: u32) -> &StreamControl {
            assert_below(index, self.layout.streams);
            self.part(self.at.streams + index as usize * size_of::<StreamControl>())
        }

        pub(crate) fn progress(&self, index: u32) -> &ProgressControl {
            assert_below(index, self.layout.streams);
            self.part(self.at.progress + index as usize * size_of::<ProgressControl>())
        }

        /// The first byte of a stream's ring of `layout.ring_bytes` bytes.
        #[expect(unsafe_code, reason = "pointer arithmetic inside the region")]
        pub(crate) fn ring(&self, index: u32) -> *mut u8 {
            assert_below(index, self.layout.streams);
            let offset = self.at.rings + index as usize * self.layout.ring_bytes as usize;
            // SAFETY: the index is below `streams`, so that the ring lies within `at.size`.
            unsafe { self.base.as_ptr().add(offset) }
        }

        /// Loom models look for races on ring bytes here; nothing to do for real.
        #[inline(always)]
        pub(crate) fn will_read(&self, _index: u32, _offset: usize, _len: usize) {}

        /// See [`Memory::will_read`].
        #[inline(always)]
        pub(crate) fn will_write(&self, _index: u32, _offset: usize, _len: usize) {}

        fn worker_bitmap(&self, start: usize, slot: u32) -> &[AtomicU64] {
            assert_below(slot, self.layout.workers);
            self.words(
                start + slot as usize * bits::words(self.layout.streams) * 8,
                self.layout.streams,
            )
        }

        /// `T` is one of the structs of `control.rs`, `offset` one of `Offsets`, plus whole structs.
        #[expect(unsafe_code, reason = "a typed view of the region")]
        fn part<T>(&self, offset: usize) -> &T {
            debug_assert!(
                offset + size_of::<T>() <= self.at.rings && offset.is_multiple_of(align_of::<T>())
            );
            // SAFETY: in bounds and aligned, as `Offsets` lays the parts out (`base` is 64-aligned); the structs
            // consist of atomics, for which any bytes are valid and shared references may alias.
            unsafe { self.base.add(offset).cast::<T>().as_ref() }
        }

        #[expect(unsafe_code, reason = "a typed view of the region")]
        fn words(&self, offset: usize, bits: u32) -> &[AtomicU64] {
            let len = bits::words(bits);
            debug_assert!(offset + len * 8 <= self.at.rings && offset.is_multiple_of(8));
            // SAFETY: as in `part`; `Offsets` reserves `bits::words` words for each bitmap.
            unsafe {
                core::slice::from_raw_parts(self.base.add(offset).cast::<AtomicU64>().as_ptr(), len)
            }
        }
    }

    fn aligned(base: *mut u8) -> Result<NonNull<u8>, RingError> {
        NonNull::new(base)
            .filter(|base| base.addr().get().is_multiple_of(64))
            .ok_or(RingError::new(
                ErrorKind::BadRegion,
                "region is null or not 64-aligned",
            ))
    }
}

#[cfg(loom)]
mod model {
    use super::{Layout, assert_below};
    use crate::control::{PoolControl, ProgressControl, StreamControl, WorkerControl};
    use crate::frame::FRAME_ALIGN;
    use crate::pool;
    use crate::region::Region;
    use crate::sync::AtomicU64;
    use loom::cell::UnsafeCell;

    /// 64 ring bytes. The tracker has no content: loom checks that accesses to it never race.
    #[repr(align(64))]
    struct Block(core::cell::UnsafeCell<[u8; FRAME_ALIGN]>);

    /// The parts of a region, for one iteration of a model. Keep it (in an `Arc`) while any [`Region`] of it is used.
    pub struct ModelMemory {
        layout: Layout,
        pool: PoolControl,
        waiters: Vec<AtomicU64>,
        workers: Vec<WorkerControl>,
        requests: Vec<Vec<AtomicU64>>,
        events: Vec<Vec<AtomicU64>>,
        streams: Vec<StreamControl>,
        progress: Vec<ProgressControl>,
        rings: Vec<Vec<Block>>,
        trackers: Vec<Vec<UnsafeCell<()>>>,
    }

    // SAFETY: control structures are atomics; ring bytes are handed over by head and tail, which `trackers` proves.
    #[expect(
        unsafe_code,
        reason = "ring bytes are shared between the model's threads"
    )]
    unsafe impl Send for ModelMemory {}
    // SAFETY: as for `Send`.
    #[expect(
        unsafe_code,
        reason = "ring bytes are shared between the model's threads"
    )]
    unsafe impl Sync for ModelMemory {}

    impl ModelMemory {
        /// A formatted region. Call it inside the model. Bitmaps have one word only: at most 64 procs and streams.
        pub fn new(layout: Layout) -> Box<ModelMemory> {
            layout.size().expect("a valid layout");
            assert!(
                layout.procs <= 64 && layout.streams <= 64,
                "models are small"
            );
            let bitmap = || vec![AtomicU64::new(0)];
            let blocks = layout.ring_bytes as usize / FRAME_ALIGN;
            let model = Box::new(ModelMemory {
                layout,
                pool: PoolControl::default(),
                waiters: bitmap(),
                workers: (0..layout.workers)
                    .map(|_| WorkerControl::default())
                    .collect(),
                requests: (0..layout.workers).map(|_| bitmap()).collect(),
                events: (0..layout.workers).map(|_| bitmap()).collect(),
                streams: (0..layout.streams)
                    .map(|_| StreamControl::default())
                    .collect(),
                progress: (0..layout.streams)
                    .map(|_| ProgressControl::default())
                    .collect(),
                rings: (0..layout.streams)
                    .map(|_| {
                        (0..blocks)
                            .map(|_| Block(core::cell::UnsafeCell::new([0; FRAME_ALIGN])))
                            .collect()
                    })
                    .collect(),
                trackers: (0..layout.streams)
                    .map(|_| (0..blocks).map(|_| UnsafeCell::new(())).collect())
                    .collect(),
            });
            pool::format(&Memory(&raw const *model));
            model
        }

        /// A handle, valid while `self` lives.
        pub fn region(&self) -> Region {
            Region::of_model(Memory(&raw const *self))
        }
    }

    /// Invariant: the pointed-to `ModelMemory` outlives it (its tests keep an `Arc`).
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Memory(*const ModelMemory);

    // SAFETY: see `ModelMemory`.
    #[expect(unsafe_code, reason = "a raw pointer, used from any thread")]
    unsafe impl Send for Memory {}
    // SAFETY: see `ModelMemory`.
    #[expect(unsafe_code, reason = "a raw pointer, used from any thread")]
    unsafe impl Sync for Memory {}

    impl Memory {
        #[expect(unsafe_code, reason = "follows the pointer to the boxed parts")]
        fn model(&self) -> &ModelMemory {
            // SAFETY: the invariant of this struct.
            unsafe { &*self.0 }
        }

        pub(crate) fn layout(&self) -> Layout {
            self.model().layout
        }

        pub(crate) fn pool(&self) -> &PoolControl {
            &self.model().pool
        }

        pub(crate) fn waiters(&self) -> &[AtomicU64] {
            &self.model().waiters
        }

        pub(crate) fn worker(&self, slot: u32) -> &WorkerControl {
            &self.model().workers[slot as usize]
        }

        pub(crate) fn requests(&self, slot: u32) -> &[AtomicU64] {
            &self.model().requests[slot as usize]
        }

        pub(crate) fn events(&self, slot: u32) -> &[AtomicU64] {
            &self.model().events[slot as usize]
        }

        pub(crate) fn stream(&self, index: u32) -> &StreamControl {
            &self.model().streams[index as usize]
        }

        pub(crate) fn progress(&self, index: u32) -> &ProgressControl {
            &self.model().progress[index as usize]
        }

        pub(crate) fn ring(&self, index: u32) -> *mut u8 {
            assert_below(index, self.layout().streams);
            self.model().rings[index as usize]
                .as_ptr()
                .cast::<u8>()
                .cast_mut()
        }

        pub(crate) fn will_read(&self, index: u32, offset: usize, len: usize) {
            for tracker in self.trackers(index, offset, len) {
                tracker.with(|_| ());
            }
        }

        pub(crate) fn will_write(&self, index: u32, offset: usize, len: usize) {
            for tracker in self.trackers(index, offset, len) {
                tracker.with_mut(|_| ());
            }
        }

        fn trackers(&self, index: u32, offset: usize, len: usize) -> &[UnsafeCell<()>] {
            &self.model().trackers[index as usize]
                [offset / FRAME_ALIGN..(offset + len).div_ceil(FRAME_ALIGN)]
        }
    }
}
