//! Frames: what the bytes of a ring look like.
//!
//! ```text
//!  position (multiple of 64)
//!  |
//!  v 0       4     6     8     12           16      20                64                     64 + len
//!    +-------+-----+-----+-----+------------+-------+-----------------+----------------------+---------+
//!    | len   |kind |flags| seq | generation | check | reserved        | payload              | padding |
//!    +-------+-----+-----+-----+------------+-------+-----------------+----------------------+---------+
//!                                                                                   to a multiple of 64 ^
//! ```
//!
//! A frame is contiguous. One that does not fit before the end of the ring is preceded by a *wrap marker*: a frame
//! with `flag::WRAP` whose payload is the rest of the ring. Numbers are in the machine's byte order: the region never
//! leaves it.

use crate::error::{ErrorKind, RingError};
use core::sync::atomic::{AtomicU32, Ordering};

/// Frames and payloads begin at multiples of this.
pub const FRAME_ALIGN: usize = 64;

/// Values of [`FrameHeader::flags`].
pub(crate) mod flag {
    /// The message continues in the next frame.
    pub(crate) const MORE: u16 = 1;
    /// Not a message: skip to the beginning of the ring.
    pub(crate) const WRAP: u16 = 2;
}

/// The first 64 bytes of a frame. Written by the producer before it publishes `head`, read by the consumer after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct FrameHeader {
    /// Payload bytes.
    pub len: u32,
    /// The caller's kind of message.
    pub kind: u16,
    /// Bit 0: more frames follow for this message; bit 1: wrap marker.
    pub flags: u16,
    /// Number of the frame in its stream, wrap markers included, wrapping around.
    pub seq: u32,
    /// The stream's generation.
    pub generation: u32,
    /// A hash of the fields above: tells a torn or overwritten header, not an attacker.
    pub check: u32,
    reserved: [u32; 11],
}

const _: () = assert!(size_of::<FrameHeader>() == FRAME_ALIGN);
const _: () = assert!(core::mem::offset_of!(FrameHeader, check) == 16);

impl FrameHeader {
    pub(crate) fn new(len: u32, kind: u16, flags: u16, seq: u32, generation: u32) -> FrameHeader {
        let mut header = FrameHeader {
            len,
            kind,
            flags,
            seq,
            generation,
            check: 0,
            reserved: [0; 11],
        };
        header.check = header.hash();
        header
    }

    pub(crate) fn is_wrap(&self) -> bool {
        self.flags & flag::WRAP != 0
    }

    /// Bytes of the whole frame in the ring.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.len as usize)
    }

    /// Checks everything that does not depend on where the frame lies.
    pub(crate) fn verify(&self, seq: u32, generation: u32) -> Result<(), RingError> {
        let corrupt = |context| Err(RingError::new(ErrorKind::Corrupt, context));
        if self.check != self.hash() {
            return corrupt("frame header with a wrong check word");
        }
        if self.generation != generation {
            return corrupt("frame of another generation");
        }
        if self.seq != seq {
            return corrupt("frame out of sequence");
        }
        if self.flags & !(flag::MORE | flag::WRAP) != 0 {
            return corrupt("frame with unknown flags");
        }
        Ok(())
    }

    fn hash(&self) -> u32 {
        let first = u64::from(self.len) | u64::from(self.kind) << 32 | u64::from(self.flags) << 48;
        let second = u64::from(self.seq) | u64::from(self.generation) << 32;
        let mut hash = (first ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 32;
        hash = (hash ^ second).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        (hash >> 32) as u32
    }

    fn words(&self) -> [u32; 5] {
        let [k0, k1] = self.kind.to_ne_bytes();
        let [f0, f1] = self.flags.to_ne_bytes();
        [
            self.len,
            u32::from_ne_bytes([k0, k1, f0, f1]),
            self.seq,
            self.generation,
            self.check,
        ]
    }

    /// Writes the header; the reserved bytes stay as they are.
    ///
    /// # Safety
    /// - `at` is 64-aligned and 64 bytes from it are valid for writes.
    #[expect(unsafe_code, reason = "writes into ring bytes")]
    pub(crate) unsafe fn store(&self, at: *mut u8) {
        for (word, value) in self.words().into_iter().enumerate() {
            // SAFETY: in bounds and aligned by the caller's contract. Atomic, as a peer that broke the protocol
            // could read or write at the same time.
            unsafe { AtomicU32::from_ptr(at.cast::<u32>().add(word)) }
                .store(value, Ordering::Relaxed);
        }
    }

    /// Reads each field once: a peer that changes them later changes nothing that was checked.
    ///
    /// # Safety
    /// - `at` is 64-aligned and 64 bytes from it are valid for reads and writes.
    #[expect(unsafe_code, reason = "reads ring bytes")]
    pub(crate) unsafe fn load(at: *mut u8) -> FrameHeader {
        let mut words = [0; 5];
        for (word, value) in words.iter_mut().enumerate() {
            // SAFETY: as in `store`.
            *value =
                unsafe { AtomicU32::from_ptr(at.cast::<u32>().add(word)) }.load(Ordering::Relaxed);
        }
        let [len, packed, seq, generation, check] = words;
        let [k0, k1, f0, f1] = packed.to_ne_bytes();
        FrameHeader {
            len,
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            seq,
            generation,
            check,
            reserved: [0; 11],
        }
    }
}

/// Bytes a frame of `len` payload bytes takes in the ring.
pub(crate) fn frame_bytes(len: usize) -> u64 {
    (len as u64).next_multiple_of(FRAME_ALIGN as u64) + FRAME_ALIGN as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "headers live in raw bytes")]
    fn headers_survive_a_round_trip_and_changes_are_seen() {
        let header = FrameHeader::new(1_000, 7, flag::MORE, 42, 3);
        let mut bytes = FrameHeader::new(0, 0, 0, 0, 0);
        let at = (&raw mut bytes).cast::<u8>();
        // SAFETY: `bytes` is 64 aligned bytes.
        unsafe { header.store(at) };
        // SAFETY: as above.
        assert_eq!(unsafe { FrameHeader::load(at) }, header);
        assert_eq!(header.verify(42, 3), Ok(()));
        assert_eq!(header.frame_bytes(), 64 + 1_024);
        for bad in [
            FrameHeader {
                len: 1_001,
                ..header
            },
            FrameHeader { kind: 8, ..header },
            FrameHeader { flags: 0, ..header },
            FrameHeader { seq: 43, ..header },
            FrameHeader {
                generation: 4,
                ..header
            },
            FrameHeader {
                check: !header.check,
                ..header
            },
            FrameHeader::new(1_000, 7, 4, 42, 3),
            FrameHeader::new(1_000, 7, 0, 41, 3),
            FrameHeader::new(1_000, 7, 0, 42, 2),
        ] {
            assert!(bad.verify(42, 3).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_whole_blocks() {
        assert_eq!([0, 1, 64, 65].map(frame_bytes), [64, 128, 128, 192]);
    }
}
