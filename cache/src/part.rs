//! A range of a read, in pieces: what each block has of it, as it was read or fetched. Nothing is put together: that would
//! cost more than all that is done with the bytes elsewhere.

use crate::checksum::cover;
use crate::object::Layout;
use bytes::Bytes;
use std::ops::Range;

/// The bytes of a range, one piece after another.
#[derive(Clone, Debug, Default)]
pub struct Pieces(Vec<Bytes>);

impl Pieces {
    pub fn as_slice(&self) -> &[Bytes] {
        &self.0
    }
}

impl PartialEq<[u8]> for Pieces {
    fn eq(&self, other: &[u8]) -> bool {
        let mut rest = other;
        let same = self.0.iter().all(|piece| {
            let begins = rest.strip_prefix(&**piece);
            rest = begins.unwrap_or_default();
            begins.is_some()
        });
        same && rest.is_empty()
    }
}

#[derive(Debug)]
pub(crate) struct Part {
    range: Range<u64>,
    /// Of the blocks from `first` on; empty until it is there.
    pieces: Vec<Bytes>,
    first: u32,
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
        let blocks = blocks(range, layout);
        Ok(Part {
            range: range.clone(),
            pieces: vec![Bytes::new(); blocks.len()],
            first: blocks.start,
        })
    }

    pub(crate) fn chunks(
        &self,
        part: usize,
        layout: Layout,
    ) -> impl Iterator<Item = Chunk> + use<> {
        let range = self.range.clone();
        blocks(&range, layout).map(move |block| {
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

    /// Takes the bytes of a chunk. `None`: they aren't, or the chunk isn't one of this part.
    #[must_use]
    pub(crate) fn put(&mut self, chunk: &Chunk, bytes: Bytes) -> Option<()> {
        let place = chunk.block.checked_sub(self.first)? as usize;
        if bytes.len() != chunk.within.len() {
            return None;
        }
        *self.pieces.get_mut(place)? = bytes;
        Some(())
    }

    /// The range's bytes.
    pub(crate) fn finish(self) -> Pieces {
        Pieces(self.pieces)
    }
}

/// The blocks that a range of the object touches.
pub(crate) fn blocks(range: &Range<u64>, layout: Layout) -> Range<u32> {
    match range.is_empty() {
        true => 0..0,
        false => layout.block_of(range.start)..layout.block_of(range.end - 1) + 1,
    }
}

/// The pieces that a chunk touches, as bytes of its block.
pub(crate) fn cover_in_block(chunk: &Chunk, layout: Layout) -> Range<usize> {
    cover(&chunk.within, layout.block_len(chunk.block))
}

/// A part of what was read. `None`: it has no such part.
pub(crate) fn cut(read: Bytes, range: Range<usize>) -> Option<Bytes> {
    let wanted = read.get(range.clone())?;
    // A page that is kept for long shouldn't keep its neighbours, too.
    if wanted.len() * 2 < read.len() {
        return Some(Bytes::copy_from_slice(wanted));
    }
    Some(read.slice(range))
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
    fn parts_are_put_together() {
        let layout = layout();
        let object: Vec<u8> = (0..layout.size).map(|n| (n % 251) as u8).collect();
        for range in [
            0..layout.size,
            5..5,
            1..PIECE * 4,
            3 * PIECE + 6..7 * PIECE,
            9 * PIECE..layout.size,
            layout.size..layout.size,
        ] {
            let mut part = Part::new(&range, layout).expect("in the object");
            for chunk in part.chunks(0, layout) {
                let start = layout.offset(chunk.block) as usize;
                let block = &object[start..start + layout.block_len(chunk.block)];
                let cover = cover_in_block(&chunk, layout);
                assert!(cover.start <= chunk.within.start && chunk.within.end <= cover.end);
                let bytes = cut(Bytes::copy_from_slice(block), chunk.within.clone());
                let bytes = bytes.expect("in the block");
                assert!(part.put(&chunk, bytes.slice(..bytes.len() - 1)).is_none());
                part.put(&chunk, bytes).expect("in the part");
            }
            let expected = &object[range.start as usize..range.end as usize];
            let pieces = part.finish();
            assert!(pieces == *expected, "{range:?}");
            assert!(pieces != *[expected, b"x"].concat());
        }
    }

    #[test]
    fn small_parts_of_what_was_read_keep_nothing_else() {
        let read = Bytes::from(vec![7; 100]);
        let kept = |range| cut(read.clone(), range).expect("a part").as_ptr().addr();
        let within = read.as_ptr().addr()..read.as_ptr().addr() + 100;
        assert!(within.contains(&kept(20..80)) && !within.contains(&kept(20..60)));
        assert_eq!(cut(read.clone(), 50..101), None);
    }

    #[test]
    fn ranges_outside_are_refused() {
        let layout = layout();
        for (start, end) in [(1, 0), (0, layout.size + 1), (u64::MAX, u64::MAX)] {
            assert!(Part::new(&(start..end), layout).is_err());
        }
    }
}
