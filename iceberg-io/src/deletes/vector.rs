//! The blob of a deletion vector, `deletion-vector-v1` of the Puffin spec.
//!
//! ```text
//! | length of the middle | D1 D3 39 64 | positions as a roaring bitmap | CRC-32 of the middle |
//! | u32, big-endian      | <------------- the middle ----------------> | u32, big-endian      |
//! ```
//!
//! The bitmap is the portable 64-bit format: the number of 32-bit bitmaps as a little-endian u64, then for each its
//! upper 32 bits, little-endian, and the bitmap of the lower ones. The positions of a file of ours fit the first of
//! them.

use roaring::{RoaringBitmap, RoaringTreemap};

use crate::error::{Error, ErrorKind, Result};

const MAGIC: [u8; 4] = [0xd1, 0xd3, 0x39, 0x64];

const LENGTH_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 4;

/// The blob that says that `positions`, which ascend, are deleted.
pub(super) fn encode(positions: &[u32]) -> Result<Vec<u8>> {
    let mut bitmap = RoaringBitmap::from_sorted_iter(positions.iter().copied()).map_err(|e| {
        Error::new(
            ErrorKind::InvalidInput,
            "the positions of deleted rows do not ascend",
        )
        .with_source(e)
    })?;
    bitmap.optimize();
    let failed = || Error::new(ErrorKind::Internal, "could not encode a deletion vector");
    let mut blob = vec![0; LENGTH_BYTES];
    blob.extend(MAGIC);
    RoaringTreemap::from_bitmaps([(0, bitmap)])
        .serialize_into(&mut blob)
        .map_err(|e| failed().with_source(e))?;
    let (length, middle) = blob.split_at_mut(LENGTH_BYTES);
    let size = u32::try_from(middle.len()).map_err(|e| failed().with_source(e))?;
    length.copy_from_slice(&size.to_be_bytes());
    let checksum = crc32fast::hash(middle);
    blob.extend(checksum.to_be_bytes());
    Ok(blob)
}

/// The positions in a blob.
pub(super) fn decode(blob: &[u8]) -> Result<RoaringTreemap> {
    let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, format!("a deletion vector {what}"));
    let (length, rest) = blob
        .split_first_chunk::<LENGTH_BYTES>()
        .ok_or_else(|| corrupt("is too short"))?;
    let (middle, checksum) = rest
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or_else(|| corrupt("is too short"))?;
    if usize::try_from(u32::from_be_bytes(*length)).ok() != Some(middle.len()) {
        return Err(corrupt("does not have the length that it says"));
    }
    if u32::from_be_bytes(*checksum) != crc32fast::hash(middle) {
        return Err(corrupt("does not match its checksum"));
    }
    let bitmap = middle
        .strip_prefix(&MAGIC)
        .ok_or_else(|| corrupt("begins with other bytes than it should"))?;
    RoaringTreemap::deserialize_from(bitmap)
        .map_err(|e| corrupt("holds no roaring bitmap").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(blob: &[u8]) -> String {
        blob.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The expected bytes were made with CRoaring and zlib.
    #[test]
    fn blobs_are_what_others_write() {
        let few = encode(&[1, 5, 9]).unwrap();
        assert_eq!(
            hex(&few),
            "00000026d1d339640100000000000000000000003a30000001000000000002001000000001000500\
             0900d3404de9"
        );
        let run: Vec<u32> = [3].into_iter().chain(65_536..75_536).collect();
        assert_eq!(
            hex(&encode(&run).unwrap()),
            "00000025d1d339640100000000000000000000003b300100020000000001000f2703000100000\
             00f27dfd51726"
        );
    }

    #[test]
    fn positions_survive() {
        let dense: Vec<u32> = (0..200_000).filter(|n| n % 3 != 1).collect();
        let wide = vec![0, 70_000, u32::MAX - 1, u32::MAX];
        for positions in [dense, wide, vec![0]] {
            let found = decode(&encode(&positions).unwrap()).unwrap();
            assert!(
                found
                    .iter()
                    .eq(positions.iter().map(|&position| u64::from(position)))
            );
        }
        assert!(encode(&[2, 2]).is_err());
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let blob = encode(&[1, 5, 9]).unwrap();
        for at in 0..blob.len() {
            let mut damaged = blob.clone();
            damaged[at] ^= 0x10;
            assert_eq!(decode(&damaged).unwrap_err().kind(), ErrorKind::Corrupt);
            assert!(decode(&blob[..at]).is_err());
        }
    }
}
