//! The slots of a shard's segments: which are taken, and what they take of the disk.
//!
//! A slot has room for one block. It is charged with the bytes that the block takes of the file system; the rest of it is a hole.
//! A slot that is given back is made a hole and costs nothing, unless the file system can't do that: such a slot stays
//! charged until it is taken again or its segment goes. A segment without a taken slot is removed.
//!
//! Nothing here does I/O. What the caller does between two calls is in the names: [`Space::take`], write;
//! discard, [`Space::give_back`]; unlink, [`Space::retired`].

use crate::disk::SegmentFile;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// What file systems allocate at least.
const PAGE_BYTES: u64 = 4096;
/// A shard's limit makes that many segments, so that the number of open files doesn't grow with it.
const SEGMENTS: u64 = 16;
const SEGMENT_SLOTS_MIN: u32 = 64;
const SEGMENT_SLOTS_MAX: u32 = 1 << 20;

/// A slot that belongs to a block, or to who is about to write one.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) number: u32,
    /// Bytes of the file system.
    pub(crate) charge: u64,
}

/// What [`Space::take`] came to.
#[derive(Debug)]
pub(crate) enum Taken {
    Slot(Slot),
    /// There is room, but in no segment.
    NeedsSegment,
    /// A block has to go first.
    Full,
    /// The block is larger than the limit.
    TooLarge,
}

impl Slot {
    /// Where it is in its file.
    pub(crate) fn range(&self, block_bytes: u64) -> Range<u64> {
        slot_range(block_bytes, self.number)
    }
}

/// Where the slot of that number is in its file.
pub(crate) fn slot_range(block_bytes: u64, number: u32) -> Range<u64> {
    let slot_bytes = slot_bytes(block_bytes);
    let start = u64::from(number).saturating_mul(slot_bytes);
    start..start.saturating_add(slot_bytes)
}

fn slot_bytes(block_bytes: u64) -> u64 {
    block_bytes.next_multiple_of(PAGE_BYTES)
}

/// A segment that is in use no more. It is charged until the caller has removed it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Retired {
    pub(crate) file: Arc<SegmentFile>,
    charge: u64,
}

#[derive(Debug)]
struct Segment {
    file: Arc<SegmentFile>,
    slots: u32,
    /// Slots from here on were never taken.
    high: u32,
    taken: u32,
    /// Slots below `high` that are holes.
    free: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct Space {
    slot_bytes: u64,
    capacity: u64,
    allocated: u64,
    segments: BTreeMap<u32, Segment>,
    /// Free slots that couldn't be made holes.
    charged: Vec<Slot>,
    next_segment: u32,
}

impl Space {
    pub(crate) fn new(block_bytes: u64, capacity: u64) -> Space {
        Space {
            slot_bytes: slot_bytes(block_bytes),
            capacity,
            allocated: 0,
            segments: BTreeMap::new(),
            charged: Vec::new(),
            next_segment: 0,
        }
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }

    /// Bytes that all slots take of the file system.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Bytes above the limit.
    pub(crate) fn excess(&self) -> u64 {
        self.allocated.saturating_sub(self.capacity)
    }

    /// A slot for a block of `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Taken {
        let need = charge(len);
        if need > self.capacity {
            return Taken::TooLarge;
        }
        if let Some(slot) = self.take_charged(need) {
            return Taken::Slot(slot);
        }
        if self.allocated + need > self.capacity {
            return Taken::Full;
        }
        for segment in self.segments.values_mut() {
            let number = match segment.free.pop() {
                Some(number) => number,
                None if segment.high < segment.slots => {
                    segment.high += 1;
                    segment.high - 1
                }
                None => continue,
            };
            segment.taken += 1;
            self.allocated += need;
            return Taken::Slot(Slot {
                file: segment.file.clone(),
                number,
                charge: need,
            });
        }
        Taken::NeedsSegment
    }

    fn take_charged(&mut self, need: u64) -> Option<Slot> {
        let mut slot = self.charged.pop()?;
        let more = need.saturating_sub(slot.charge);
        match self.segments.get_mut(&slot.file.number) {
            Some(segment) if self.allocated + more <= self.capacity => {
                segment.taken += 1;
                self.allocated += more;
                slot.charge += more;
                Some(slot)
            }
            _ => {
                self.charged.push(slot);
                None
            }
        }
    }

    /// A number for a new segment.
    pub(crate) fn segment_number(&mut self) -> u32 {
        let number = self.next_segment;
        self.next_segment = number.saturating_add(1);
        number
    }

    /// Numbers of segments are at least that.
    pub(crate) fn number_from(&mut self, least: u32) {
        self.next_segment = self.next_segment.max(least);
    }

    pub(crate) fn add_segment(&mut self, file: SegmentFile) {
        let number = file.number;
        let segment = Segment {
            file: Arc::new(file),
            slots: self.slots_of_a_segment(),
            high: 0,
            taken: 0,
            free: Vec::new(),
        };
        self.segments.insert(number, segment);
        self.number_from(number.saturating_add(1));
    }

    fn slots_of_a_segment(&self) -> u32 {
        let slots = self.capacity / self.slot_bytes / SEGMENTS;
        u32::try_from(slots)
            .unwrap_or(SEGMENT_SLOTS_MAX)
            .clamp(SEGMENT_SLOTS_MIN, SEGMENT_SLOTS_MAX)
    }

    /// Takes a slot that a block was found in when the shard was opened. `None`: it can't be.
    pub(crate) fn take_found(&mut self, segment: u32, number: u32, len: usize) -> Option<Slot> {
        if number >= SEGMENT_SLOTS_MAX || len as u64 > self.slot_bytes {
            return None;
        }
        let segment = self.segments.get_mut(&segment)?;
        if number < segment.high {
            let at = segment.free.iter().position(|free| *free == number)?;
            segment.free.swap_remove(at);
        } else {
            segment.free.extend(segment.high..number);
            segment.high = number + 1;
            segment.slots = segment.slots.max(segment.high);
        }
        segment.taken += 1;
        self.allocated += charge(len);
        Some(Slot {
            file: segment.file.clone(),
            number,
            charge: charge(len),
        })
    }

    /// Of each segment the free slots below the last taken one, and the number behind that one.
    pub(crate) fn holes(&self) -> Vec<(Arc<SegmentFile>, Vec<u32>, u32)> {
        self.segments
            .values()
            .map(|segment| {
                let mut free = segment.free.clone();
                free.sort_unstable();
                (segment.file.clone(), free, segment.high)
            })
            .collect()
    }

    /// Charges a free slot that has bytes and can't be made a hole.
    pub(crate) fn charge_free(&mut self, segment: u32, number: u32) {
        let slot_bytes = self.slot_bytes;
        let Some(segment) = self.segments.get_mut(&segment) else {
            return;
        };
        let Some(at) = segment.free.iter().position(|free| *free == number) else {
            return;
        };
        segment.free.swap_remove(at);
        self.allocated += slot_bytes;
        self.charged.push(Slot {
            file: segment.file.clone(),
            number,
            charge: slot_bytes,
        });
    }

    /// Which of the slots are all that is taken of their segments: these needn't be made holes.
    pub(crate) fn goes_with_segment(&self, slots: &[Slot]) -> Vec<bool> {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for slot in slots {
            *counts.entry(slot.file.number).or_default() += 1;
        }
        let all_of = |number: &u32| {
            let taken = self.segments.get(number).map(|segment| segment.taken);
            taken == counts.get(number).copied()
        };
        slots.iter().map(|slot| all_of(&slot.file.number)).collect()
    }

    /// Takes a slot back. `hole`: its bytes were given back to the file system.
    pub(crate) fn give_back(&mut self, slot: Slot, hole: bool) -> Option<Retired> {
        let number = slot.file.number;
        let segment = self.segments.get_mut(&number)?;
        segment.taken = segment.taken.saturating_sub(1);
        if hole {
            self.allocated = self.allocated.saturating_sub(slot.charge);
            segment.free.push(slot.number);
        } else {
            self.charged.push(slot);
        }
        if segment.taken > 0 {
            return None;
        }
        self.retire(number)
    }

    /// Retires the segments in which nothing was found.
    pub(crate) fn retire_empty(&mut self) -> Vec<Retired> {
        let empty: Vec<u32> = self
            .segments
            .iter()
            .filter(|(_, segment)| segment.taken == 0)
            .map(|(number, _)| *number)
            .collect();
        empty
            .into_iter()
            .filter_map(|number| self.retire(number))
            .collect()
    }

    fn retire(&mut self, number: u32) -> Option<Retired> {
        let segment = self.segments.remove(&number)?;
        let mut charge = 0;
        self.charged.retain(|slot| {
            let goes = slot.file.number == number;
            charge += if goes { slot.charge } else { 0 };
            !goes
        });
        Some(Retired {
            file: segment.file,
            charge,
        })
    }

    /// The segment's file was removed.
    pub(crate) fn retired(&mut self, segment: Retired) {
        self.allocated = self.allocated.saturating_sub(segment.charge);
    }
}

/// What a block takes of the file system.
fn charge(len: usize) -> u64 {
    (len as u64).next_multiple_of(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, LocalDisk};
    use std::path::Path;

    const BLOCK: usize = 16 << 10;

    fn add_segment(space: &mut Space, directory: &Path) {
        let disk: Arc<dyn Disk> = Arc::new(LocalDisk::default());
        let number = space.segment_number();
        space.add_segment(SegmentFile::create(directory, number, disk).expect("created"));
    }

    fn take(space: &mut Space, len: usize) -> Slot {
        match space.take(len) {
            Taken::Slot(slot) => slot,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn slots_are_charged_with_what_they_take() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut space = Space::new(BLOCK as u64, 2 * BLOCK as u64);
        assert!(matches!(space.take(BLOCK), Taken::NeedsSegment));
        add_segment(&mut space, directory.path());
        let first = take(&mut space, BLOCK);
        let small = take(&mut space, 100);
        assert_eq!(space.allocated(), BLOCK as u64 + PAGE_BYTES);
        assert!(matches!(space.take(BLOCK), Taken::Full));
        assert!(space.give_back(small, true).is_none());
        let second = take(&mut space, BLOCK);
        assert_eq!((first.number, second.number), (0, 1));
        assert!(space.give_back(first, true).is_none());
        let retired = space.give_back(second, true).expect("the segment is empty");
        space.retired(retired);
        assert_eq!(space.allocated(), 0);
        assert!(matches!(space.take(BLOCK), Taken::NeedsSegment));
    }

    #[test]
    fn a_slot_that_is_no_hole_stays_charged() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut space = Space::new(BLOCK as u64, 2 * BLOCK as u64);
        add_segment(&mut space, directory.path());
        let (first, second) = (take(&mut space, BLOCK), take(&mut space, BLOCK));
        assert!(space.give_back(first, false).is_none());
        assert_eq!(space.allocated(), 2 * BLOCK as u64);
        let again = take(&mut space, 100);
        assert_eq!((again.number, again.charge), (0, BLOCK as u64));
        assert_eq!(space.allocated(), 2 * BLOCK as u64);

        let both = [again.clone(), second.clone()];
        assert_eq!(space.goes_with_segment(&both), [true, true]);
        assert_eq!(space.goes_with_segment(&both[..1]), [false]);
        assert!(space.give_back(again, false).is_none());
        let retired = space.give_back(second, false).expect("empty");
        assert_eq!(space.allocated(), 2 * BLOCK as u64);
        space.retired(retired);
        assert_eq!(space.allocated(), 0);
    }

    #[test]
    fn found_slots_leave_holes_between_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut space = Space::new(BLOCK as u64, 100 * BLOCK as u64);
        add_segment(&mut space, directory.path());
        for number in [7, 2] {
            space.take_found(0, number, BLOCK).expect("taken");
        }
        assert!(space.take_found(0, 2, BLOCK).is_none(), "taken twice");
        assert!(space.take_found(0, SEGMENT_SLOTS_MAX, BLOCK).is_none());
        assert!(space.take_found(0, 3, BLOCK + 1).is_none());
        assert!(space.take_found(1, 0, BLOCK).is_none(), "no such segment");
        let holes = space.holes();
        assert_eq!(holes.len(), 1);
        assert_eq!((&holes[0].1[..], holes[0].2), (&[0, 1, 3, 4, 5, 6][..], 8));
        space.charge_free(0, 4);
        assert_eq!(space.allocated(), 3 * BLOCK as u64);
        assert_eq!(take(&mut space, BLOCK).number, 4);
    }
}
