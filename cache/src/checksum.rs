//! Checksums of blocks and of their pieces.
//!
//! The caller knows one CRC-32 of each block, from when the object was written. The cache keeps one of each piece as well, so
//! that a read of a page needn't read and check all of its block.

use std::ops::Range;
use std::sync::Arc;

/// What a read from the cache is rounded to.
pub(crate) const PIECE_BYTES: usize = 64 << 10;

/// The checksums of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) whole: u32,
    pub(crate) pieces: Arc<[u32]>,
}

impl Sums {
    pub(crate) fn of(block: &[u8]) -> Sums {
        let mut whole = crc32fast::Hasher::new();
        let pieces = block
            .chunks(PIECE_BYTES)
            .map(|piece| {
                let mut hasher = crc32fast::Hasher::new();
                hasher.update(piece);
                whole.combine(&hasher);
                hasher.finalize()
            })
            .collect();
        Sums {
            whole: whole.finalize(),
            pieces,
        }
    }

    /// Whether `bytes` are those of the pieces from `first` on.
    pub(crate) fn match_pieces(&self, first: usize, bytes: &[u8]) -> bool {
        match_pieces(&self.pieces, first, bytes)
    }
}

/// Whether `bytes` are those of a block's pieces from `first` on, which have these checksums.
pub(crate) fn match_pieces(sums: &[u32], first: usize, bytes: &[u8]) -> bool {
    let pieces = bytes.chunks(PIECE_BYTES);
    let known = sums.get(first..).unwrap_or_default();
    pieces.len() <= known.len() && pieces.zip(known).all(|(p, sum)| crc32fast::hash(p) == *sum)
}

/// How many pieces a block of that many bytes has.
pub(crate) fn piece_count(block_len: usize) -> usize {
    block_len.div_ceil(PIECE_BYTES)
}

/// The pieces that `within` of a block touches, as bytes of the block.
pub(crate) fn cover(within: &Range<usize>, block_len: usize) -> Range<usize> {
    let start = within.start / PIECE_BYTES * PIECE_BYTES;
    let end = within.end.next_multiple_of(PIECE_BYTES).min(block_len);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up_to_the_block() {
        for len in [1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7] {
            let block: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            let sums = Sums::of(&block);
            assert_eq!(sums.whole, crc32fast::hash(&block));
            assert_eq!(sums.pieces.len(), piece_count(len));
            assert!(sums.match_pieces(0, &block));
            let last = sums.pieces.len() - 1;
            assert!(sums.match_pieces(last, &block[last * PIECE_BYTES..]));
            let mut damaged = block.clone();
            damaged[len - 1] ^= 1;
            assert!(!sums.match_pieces(0, &damaged));
            assert!(!sums.match_pieces(last + 1, &block[..1]));
        }
    }

    #[test]
    fn a_cover_is_whole_pieces() {
        let len = 2 * PIECE_BYTES + 10;
        assert_eq!(cover(&(0..1), len), 0..PIECE_BYTES);
        assert_eq!(
            cover(&(PIECE_BYTES..PIECE_BYTES + 1), len),
            PIECE_BYTES..2 * PIECE_BYTES
        );
        assert_eq!(cover(&(PIECE_BYTES - 1..len), len), 0..len);
    }
}
