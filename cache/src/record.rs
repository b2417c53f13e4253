//! The rows of a shard's index.
//!
//! ```text
//! objects   key: id (u64)
//!           value: size (u64), location (UTF-8), checksum (u32)
//! blocks    key: id of the object (u64), number of the block (u32)
//!           value: segment (u32), slot (u32), bytes (u32), 1 if in the main queue (u32), generation (u64),
//!                  checksum of the block (u32), of each piece (u32), checksum of key and value (u32)
//! ```
//!
//! Integers are little-endian. Each value ends with a CRC-32 of its key and what is before; ids aren't used again. A row that doesn't
//! match its checksum is as good as missing.

use crate::checksum::Sums;

const BLOCK_HEAD: usize = 28;

/// A key, and its new value, or none any more.
pub(crate) type Change<K> = (K, Option<Vec<u8>>);

#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) objects: Vec<Change<u64>>,
    pub(crate) blocks: Vec<Change<(u64, u32)>>,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.objects.len() + self.blocks.len()
    }
}

/// A block's row. Where it says the block is remains to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockRow {
    pub(crate) segment: u32,
    pub(crate) slot: u32,
    pub(crate) len: u32,
    pub(crate) main: bool,
    pub(crate) generation: u64,
    pub(crate) sums: Sums,
}

impl BlockRow {
    pub(crate) fn encode(&self, key: (u64, u32)) -> Vec<u8> {
        let mut value = Vec::with_capacity(BLOCK_HEAD + 4 * self.sums.pieces.len() + 4);
        for number in [self.segment, self.slot, self.len, u32::from(self.main)] {
            value.extend(number.to_le_bytes());
        }
        value.extend(self.generation.to_le_bytes());
        value.extend(self.sums.whole.to_le_bytes());
        for piece in &*self.sums.pieces {
            value.extend(piece.to_le_bytes());
        }
        seal(&block_key(key), value)
    }

    pub(crate) fn decode(key: (u64, u32), value: &[u8]) -> Option<BlockRow> {
        let value = unseal(&block_key(key), value)?;
        let (head, pieces) = value.split_at_checked(BLOCK_HEAD)?;
        let (pieces, []) = pieces.as_chunks() else {
            return None;
        };
        let word = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
        Some(BlockRow {
            segment: word(0)?,
            slot: word(4)?,
            len: word(8)?,
            main: word(12)? == 1,
            generation: u64::from_le_bytes(*head.get(16..)?.first_chunk()?),
            sums: Sums {
                whole: word(24)?,
                pieces: pieces.iter().map(|p| u32::from_le_bytes(*p)).collect(),
            },
        })
    }
}

pub(crate) fn encode_object(id: u64, size: u64, location: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(location.len() + 12);
    value.extend(size.to_le_bytes());
    value.extend(location.as_bytes());
    seal(&id.to_le_bytes(), value)
}

/// Size and location.
pub(crate) fn decode_object(id: u64, value: &[u8]) -> Option<(u64, &str)> {
    let value = unseal(&id.to_le_bytes(), value)?;
    let (size, location) = value.split_first_chunk()?;
    let location = std::str::from_utf8(location).ok()?;
    Some((u64::from_le_bytes(*size), location))
}

fn block_key((id, block): (u64, u32)) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&id.to_le_bytes());
    key[8..].copy_from_slice(&block.to_le_bytes());
    key
}

fn seal(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let sum = checksum(key, &value);
    value.extend(sum.to_le_bytes());
    value
}

fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (value, sum) = value.split_last_chunk()?;
    (checksum(key, value) == u32::from_le_bytes(*sum)).then_some(value)
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(pieces: Vec<u32>) -> BlockRow {
        BlockRow {
            segment: 3,
            slot: 9,
            len: 1 << 20,
            main: true,
            generation: 1 << 40,
            sums: Sums {
                whole: 77,
                pieces: pieces.into(),
            },
        }
    }

    proptest! {
        #[test]
        fn rows_survive_and_damage_is_seen(
            pieces in prop::collection::vec(any::<u32>(), 0..20),
            id in any::<u64>(),
            block in any::<u32>(),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let row = row(pieces);
            let mut value = row.encode((id, block));
            prop_assert_eq!(BlockRow::decode((id, block), &value), Some(row));
            prop_assert_eq!(BlockRow::decode((id, block ^ 1), &value), None);
            prop_assert_eq!(BlockRow::decode((id, block), &value[..at.index(value.len())]), None);
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
            prop_assert_eq!(BlockRow::decode((id, block), &value), None);
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(BlockRow::decode((1, 1), &bytes), None);
            prop_assert_eq!(decode_object(1, &bytes), None);
            let sealed = seal(&block_key((1, 1)), bytes.clone());
            let _ = BlockRow::decode((1, 1), &sealed);
            let _ = decode_object(1, &seal(&1u64.to_le_bytes(), bytes));
        }

        #[test]
        fn objects_survive(id in any::<u64>(), size in any::<u64>(), location in ".*") {
            let value = encode_object(id, size, &location);
            prop_assert_eq!(decode_object(id, &value), Some((size, &*location)));
            prop_assert_eq!(decode_object(id ^ 1, &value), None);
        }
    }
}
