//! Putting blocks into a shard, and taking them out. All of it does I/O, and may wait for the disk.

use super::{Failing, Shard};
use crate::checksum::Sums;
use crate::directory::{Block, NewBlock};
use crate::disk::SegmentFile;
use crate::flight::Key;
use crate::lock;
use crate::object::{Admission, Layout, Object};
use crate::space::{Slot, Taken};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// After a failure the disk isn't written to for that long: it might take long to fail again.
const PAUSE: Duration = Duration::from_secs(5);
/// Blocks that go at one time when the limit is lowered.
const SHRINK_BLOCKS: usize = 16_384;

impl Shard {
    /// Writes a block, and ends its flight if it has one. `false`: it isn't kept.
    pub(crate) fn keep(
        self: &Arc<Self>,
        object: &Object,
        block: u32,
        bytes: &[u8],
        sums: Sums,
        admission: Admission,
    ) -> bool {
        let writable = self.writable.read().unwrap_or_else(PoisonError::into_inner);
        let Ok(len) = u32::try_from(bytes.len()) else {
            return false;
        };
        if !*writable || lock(&self.state).directory.get(object, block).is_some() {
            return *writable;
        }
        let slot = match self.reserve(bytes.len()) {
            Ok(Some(slot)) => slot,
            Ok(None) => return false,
            Err(error) => {
                self.fails(&error);
                return false;
            }
        };
        let offset = slot.range(self.block_bytes).start;
        if let Err(error) = slot.file.write(bytes, offset) {
            self.release(vec![slot]);
            self.fails(&error);
            return false;
        }
        let new = NewBlock {
            block,
            slot,
            len,
            sums,
        };
        self.enter(object, new, admission)
    }

    /// Makes a written block known.
    fn enter(self: &Arc<Self>, object: &Object, new: NewBlock, admission: Admission) -> bool {
        let mut state = lock(&self.state);
        state.failing = None;
        if state.space.excess() > 0 {
            drop(state);
            self.release(vec![new.slot]);
            return false;
        }
        if state.directory.get(object, new.block).is_some() {
            drop(state);
            self.release(vec![new.slot]);
            return true;
        }
        let size = Some(object.size);
        let others = state.directory.remove_object(&object.location, size);
        let key = Key {
            location: object.location.clone(),
            size: object.size,
            block: new.block,
        };
        state.directory.insert(object, new, admission);
        state.flights.land(&key);
        drop(state);
        self.release(slots(others));
        self.changed();
        true
    }

    /// Finds a slot, for which others may have to go. `None`: there can't be one at present.
    fn reserve(&self, len: usize) -> io::Result<Option<Slot>> {
        loop {
            let mut state = lock(&self.state);
            let paused = |failing: &Failing| Instant::now() < failing.until;
            if state.off.is_some() || state.failing.as_ref().is_some_and(paused) {
                return Ok(None);
            }
            match state.space.take(len) {
                Taken::Slot(slot) => return Ok(Some(slot)),
                Taken::TooLarge => return Ok(None),
                Taken::NeedsSegment => {
                    let number = state.space.segment_number();
                    drop(state);
                    let file = SegmentFile::create(&self.path, number, self.disk.clone())?;
                    lock(&self.state).space.add_segment(file);
                }
                Taken::Full => {
                    let capacity = state.space.capacity();
                    let Some(block) = state.directory.evict(capacity) else {
                        return Ok(None);
                    };
                    drop(state);
                    self.counters.evictions.add(1);
                    self.release(vec![block.slot]);
                }
            }
        }
    }

    /// Gives slots back that no block has any more.
    pub(super) fn release(&self, slots: Vec<Slot>) {
        if slots.is_empty() {
            return;
        }
        let with_segment = lock(&self.state).space.goes_with_segment(&slots);
        for (slot, with_segment) in slots.into_iter().zip(with_segment) {
            let range = slot.range(self.block_bytes);
            let hole = !with_segment && slot.file.discard(range).is_ok();
            let retired = lock(&self.state).space.give_back(slot, hole);
            if let Some(segment) = retired {
                self.unlink(&segment.file);
                lock(&self.state).space.retired(segment);
            }
        }
    }

    pub(super) fn unlink(&self, file: &SegmentFile) {
        if let Err(error) = file.unlink() {
            tracing::warn!("could not remove {file:?} of the disk cache: {error}");
        }
    }

    /// The disk refused a block.
    fn fails(&self, error: &io::Error) {
        let failing = Failing {
            reason: error.to_string(),
            until: Instant::now() + PAUSE,
        };
        if lock(&self.state).failing.replace(failing).is_none() {
            let path = self.path.display();
            tracing::warn!("could not write to the disk cache in \"{path}\": {error}");
        }
    }

    pub(crate) fn set_capacity(self: &Arc<Self>, capacity: u64) {
        lock(&self.state).space.set_capacity(capacity);
        self.shrink();
    }

    /// Has blocks go until the limit is kept.
    pub(super) fn shrink(self: &Arc<Self>) {
        loop {
            let mut blocks = Vec::new();
            let mut state = lock(&self.state);
            let capacity = state.space.capacity();
            let mut excess = state.space.excess();
            while excess > 0
                && blocks.len() < SHRINK_BLOCKS
                && let Some(block) = state.directory.evict(capacity)
            {
                excess = excess.saturating_sub(block.slot.charge);
                blocks.push(block);
            }
            drop(state);
            if blocks.is_empty() {
                return;
            }
            self.counters.evictions.add(blocks.len() as u64);
            self.release(slots(blocks));
            self.changed();
        }
    }

    /// Takes all blocks of that name out. Returns their bytes.
    pub(crate) fn evict(self: &Arc<Self>, location: &str) -> u64 {
        let blocks = lock(&self.state).directory.remove_object(location, None);
        let bytes = blocks.iter().map(|block| u64::from(block.len)).sum();
        if !blocks.is_empty() {
            self.release(slots(blocks));
            self.changed();
        }
        bytes
    }

    /// A block couldn't be read as it was written. It goes, unless it has gone meanwhile and that was the reason.
    pub(crate) fn drop_damaged(self: &Arc<Self>, object: &Object, block: u32, generation: u64) {
        let mut state = lock(&self.state);
        match state.directory.get(object, block) {
            Some(held) if held.generation == generation => {}
            _ => return,
        }
        let removed = state.directory.remove(&object.location, block);
        drop(state);
        self.drop_wrong(object, removed.into_iter().collect());
    }

    /// Gives back blocks that don't have the object's bytes.
    pub(super) fn drop_wrong(self: &Arc<Self>, object: &Object, blocks: Vec<Block>) {
        self.counters.corrupt_blocks.add(blocks.len() as u64);
        let (path, location) = (self.path.display(), &object.location);
        tracing::warn!(
            "dropped a damaged block of \"{location}\" from the disk cache in \"{path}\""
        );
        self.release(slots(blocks));
        self.changed();
    }

    /// Takes all blocks of a local file in. `false`: some aren't there, or the file isn't the object.
    pub(crate) fn adopt(self: &Arc<Self>, object: &Object, layout: Layout, path: &Path) -> bool {
        let capacity = lock(&self.state).space.capacity();
        if object.size > capacity {
            return false;
        }
        let Ok(file) = File::open(path) else {
            return false;
        };
        if file.metadata().map(|file| file.len()).ok() != Some(object.size) {
            return false;
        }
        let mut buffer = Vec::new();
        for (block, sum) in (0..).zip(&*object.checksums) {
            buffer.resize(layout.block_len(block), 0);
            if file
                .read_exact_at(&mut buffer, layout.offset(block))
                .is_err()
            {
                return false;
            }
            let sums = Sums::of(&buffer);
            if sums.whole != *sum || !self.keep(object, block, &buffer, sums, Admission::Normal) {
                return false;
            }
        }
        // Its last blocks may have displaced its first ones.
        self.bytes_of(object) == object.size
    }
}

fn slots(blocks: Vec<Block>) -> Vec<Slot> {
    blocks.into_iter().map(|block| block.slot).collect()
}
