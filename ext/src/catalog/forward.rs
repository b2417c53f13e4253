//! Where a flush's rows were: their old TIDs, in the order of the file.
//!
//! Rows leave the heap in the order of their TIDs, so that blocks come one after another. Where files
//! are partitioned or sorted, a block comes again for each run of its rows:
//!
//! ```text
//! ├ block u32 ┼ n u16 ┼ offset u16 × n ┤ …        little-endian
//! ```
//!
//! Bytes only, no Postgres call, so that it can be tested without a server.
#![deny(unsafe_code)]

/// Block and offset of a heap TID.
pub type Tid = (u32, u16);

pub fn encode(tids: &[Tid]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tids.len() * 2 + 64);
    for block in tids.chunk_by(|a, b| a.0 == b.0) {
        bytes.extend_from_slice(&block[0].0.to_le_bytes());
        bytes.extend_from_slice(&(block.len() as u16).to_le_bytes());
        for (_, offset) in block {
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
    }
    bytes
}

/// The position in the file of the row that was at `tid`.
pub fn find(bytes: &[u8], tid: Tid) -> Option<u64> {
    let mut rest = bytes;
    let mut before = 0;
    while let Some((head, tail)) = rest.split_first_chunk::<6>() {
        let block = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let n = usize::from(u16::from_le_bytes([head[4], head[5]]));
        let offsets = tail.get(..2 * n)?;
        if block == tid.0 {
            let at = offsets
                .chunks_exact(2)
                .position(|o| u16::from_le_bytes([o[0], o[1]]) == tid.1);
            if let Some(at) = at {
                return Some(before + at as u64);
            }
        }
        before += n as u64;
        rest = &tail[2 * n..];
    }
    None
}

/// Where the row at a position of the file was.
pub fn origin(bytes: &[u8], position: u64) -> Option<Tid> {
    let mut rest = bytes;
    let mut left = usize::try_from(position).ok()?;
    while let Some((head, tail)) = rest.split_first_chunk::<6>() {
        let block = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let n = usize::from(u16::from_le_bytes([head[4], head[5]]));
        if left < n {
            let offset = tail.get(2 * left..2 * left + 2)?;
            return Some((block, u16::from_le_bytes([offset[0], offset[1]])));
        }
        left -= n;
        rest = tail.get(2 * n..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_may_come_again() {
        let tids: Vec<Tid> = (0..600u32)
            .map(|i| i * 7 % 600)
            .map(|i| (i / 100, (i % 100) as u16 + 1))
            .collect();
        let bytes = encode(&tids);
        for (at, tid) in tids.iter().enumerate() {
            assert_eq!(find(&bytes, *tid), Some(at as u64), "{tid:?}");
            assert_eq!(origin(&bytes, at as u64), Some(*tid));
        }
        assert_eq!(find(&bytes, (6, 1)), None);
    }

    #[test]
    fn every_row_is_found_where_it_went() {
        let tids: Vec<Tid> = (0..5000u32)
            .filter(|i| i % 7 != 0)
            .map(|i| (i / 200 * 3, (i % 200) as u16 + 1))
            .collect();
        let bytes = encode(&tids);
        for (at, tid) in tids.iter().enumerate() {
            assert_eq!(find(&bytes, *tid), Some(at as u64), "{tid:?}");
            assert_eq!(origin(&bytes, at as u64), Some(*tid));
        }
        for tid in [(0, 1), (0, 201), (1, 5), (76, 1)] {
            assert_eq!(find(&bytes, tid), None, "{tid:?}");
        }
        assert_eq!(find(&[], (0, 1)), None);
        assert_eq!(origin(&bytes, tids.len() as u64), None);
        assert_eq!(
            find(&bytes[..bytes.len() - 1], *tids.last().expect("rows")),
            None
        );
    }
}
