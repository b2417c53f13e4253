//! A range of a read, and the bytes of it that are already there.
//!
//! The buffer has all pieces that the range touches: pieces are read from the cache right to where they belong, and can be
//! checked there.

use crate::checksum::cover;
use crate::object::Layout;
use bytes::Bytes;
use std::ops::Range;

#[derive(Debug)]
pub(crate) struct Part {
    range: Range<u64>,
    /// Where the buffer begins in the object.
    start: u64,
    pub(crate) buffer: Vec<u8>,
}

/// What of one block a part needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) part: usize,
    pub(crate) block: u32,
    /// Bytes of the block.
    pub(crate) within: Range<usize>,
}

impl Part {
    /// `Err`: the object has no such range.
    pub(crate) fn new(range: &Range<u64>, layout: Layout) -> Result<Part, String> {
        if range.start > range.end || range.end > layout.size {
            return Err(format!(
                "an object of {} bytes has no range from {} to {}",
                layout.size, range.start, range.end
            ));
        }
        let mut part = Part {
            range: range.clone(),
            start: range.start,
            buffer: Vec::new(),
        };
        let mut chunks = part.chunks(0, layout);
        if let Some(first) = chunks.next() {
            let last = chunks.last().unwrap_or_else(|| first.clone());
            part.start = cover_in_object(&first, layout).start;
            let end = cover_in_object(&last, layout).end;
            let len = usize::try_from(end - part.start)
                .map_err(|_| format!("a range of {} bytes is too large", end - part.start))?;
            part.buffer = vec![0; len];
        }
        Ok(part)
    }

    pub(crate) fn chunks(
        &self,
        part: usize,
        layout: Layout,
    ) -> impl Iterator<Item = Chunk> + use<> {
        let range = self.range.clone();
        let blocks = match range.is_empty() {
            true => 0..0,
            false => layout.block_of(range.start)..layout.block_of(range.end - 1) + 1,
        };
        blocks.map(move |block| {
            let start = layout.offset(block);
            let end = start + layout.block_len(block) as u64;
            let within = range.start.max(start) - start..range.end.min(end) - start;
            Chunk {
                part,
                block,
                within: within.start as usize..within.end as usize,
            }
        })
    }

    /// Where the block's bytes from `within.start` on belong.
    pub(crate) fn place(&self, block: u32, within: &Range<usize>, layout: Layout) -> Range<usize> {
        let start = (layout.offset(block) + within.start as u64 - self.start) as usize;
        start..start + within.len()
    }

    /// Takes what it needs of a block. `None`: the block is too short, or the chunk isn't one of this part.
    #[must_use]
    pub(crate) fn fill(&mut self, chunk: &Chunk, block: &[u8], layout: Layout) -> Option<()> {
        let place = self.place(chunk.block, &chunk.within, layout);
        let from = block.get(chunk.within.clone())?;
        self.buffer.get_mut(place)?.copy_from_slice(from);
        Some(())
    }

    /// The range's bytes.
    pub(crate) fn finish(self) -> Bytes {
        let start = (self.range.start - self.start) as usize;
        let len = (self.range.end - self.range.start) as usize;
        let buffered = self.buffer.len();
        let bytes = Bytes::from(self.buffer).slice(start..start + len);
        // A page that is kept for long shouldn't keep its neighbours, too.
        if len * 2 < buffered {
            return Bytes::copy_from_slice(&bytes);
        }
        bytes
    }
}

/// The pieces that a chunk touches, as bytes of its block.
pub(crate) fn cover_in_block(chunk: &Chunk, layout: Layout) -> Range<usize> {
    cover(&chunk.within, layout.block_len(chunk.block))
}

fn cover_in_object(chunk: &Chunk, layout: Layout) -> Range<u64> {
    let cover = cover_in_block(chunk, layout);
    let offset = layout.offset(chunk.block);
    offset + cover.start as u64..offset + cover.end as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::PIECE_BYTES;

    const PIECE: u64 = PIECE_BYTES as u64;

    fn layout() -> Layout {
        Layout {
            size: 10 * PIECE + 5,
            block_bytes: 3 * PIECE + 7,
        }
    }

    #[test]
    fn covers_of_chunks_are_the_buffer() {
        let layout = layout();
        for range in [
            0..1,
            5..3 * PIECE,
            3 * PIECE + 6..7 * PIECE,
            9 * PIECE..layout.size,
        ] {
            let part = Part::new(&range, layout).expect("in the object");
            let mut next = 0;
            for chunk in part.chunks(0, layout) {
                let cover = cover_in_block(&chunk, layout);
                let place = part.place(chunk.block, &cover, layout);
                assert_eq!(place.start, next, "{range:?}");
                next = place.end;
            }
            assert_eq!(next, part.buffer.len(), "{range:?}");
        }
    }

    #[test]
    fn parts_are_put_together() {
        let layout = layout();
        let object: Vec<u8> = (0..layout.size).map(|n| (n % 251) as u8).collect();
        for range in [0..layout.size, 5..5, 1..PIECE * 4, layout.size..layout.size] {
            let mut part = Part::new(&range, layout).expect("in the object");
            for chunk in part.chunks(0, layout) {
                let start = layout.offset(chunk.block) as usize;
                let block = &object[start..start + layout.block_len(chunk.block)];
                part.fill(&chunk, block, layout).expect("in the part");
            }
            let expected = &object[range.start as usize..range.end as usize];
            assert_eq!(part.finish(), expected, "{range:?}");
        }
    }

    #[test]
    fn ranges_outside_are_refused() {
        let layout = layout();
        for (start, end) in [(1, 0), (0, layout.size + 1), (u64::MAX, u64::MAX)] {
            assert!(Part::new(&(start..end), layout).is_err());
        }
    }
}
