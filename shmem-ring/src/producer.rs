//! The writing end of a stream.
//!
//! ```text
//!    |<------------------- ring_bytes -------------------->|
//!    +---------+--------+--------+-------------+-----------+
//!    |  free   | frame  | frame  |  reserved   |   free    |
//!    +---------+--------+--------+-------------+-----------+
//!              ^ tail            ^ head        ^ head after commit
//! ```

use crate::error::{ErrorKind, RingError};
use crate::frame::{FRAME_ALIGN, FrameHeader, flag as frame_flag, frame_bytes};
use crate::stream::{PEER_GONE, Stream, Wake, flag};
use crate::sync::Ordering;

/// The writing end of a stream: one at a time. Dropping it makes the end free to take again, where it was left.
#[derive(Debug)]
pub struct Producer {
    stream: Stream,
    /// Our own copy: what a peer writes to the shared one doesn't reach us.
    head: u64,
    /// The last tail seen: at most `ring_bytes` behind `head`.
    tail: u64,
    seq: u32,
    reserved: Option<Reserved>,
}

#[derive(Clone, Copy, Debug)]
struct Reserved {
    /// Position of the frame, after the wrap marker if there is one.
    start: u64,
    wrapped: bool,
    len: usize,
}

impl Producer {
    pub(crate) fn new(stream: Stream) -> Result<Producer, RingError> {
        let line = &stream.control().producer;
        // Relaxed: the claim of this end (AcqRel) ordered us after our predecessor.
        let head = line.head.load(Ordering::Relaxed);
        let seq = line.producer_seq.load(Ordering::Relaxed);
        // From here on an error drops it, which gives the end back.
        let producer = Producer {
            stream,
            head,
            tail: head.wrapping_sub(ring_bytes(&stream)),
            seq,
            reserved: None,
        };
        if !head.is_multiple_of(FRAME_ALIGN as u64) {
            return Err(RingError::new(
                ErrorKind::Corrupt,
                "head position is not a multiple of 64",
            ));
        }
        Ok(producer)
    }

    /// The stream it writes to.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// Bytes the largest frame carries.
    pub fn max_payload(&self) -> usize {
        self.stream.memory().layout().max_payload()
    }

    /// Whether a frame of `len` bytes would fit now, or reserving it would fail. Asks for no wake-up: for a short spin,
    /// as it doesn't see a cancel.
    pub fn has_room(&mut self, len: usize) -> bool {
        len > self.max_payload() || self.room(self.wanted(len).1).unwrap_or(true)
    }

    /// Room for a payload of `len` bytes, contiguous and 64-aligned; what is in it is left from earlier frames.
    ///
    /// `None`: the ring is full; the consumer will ask us to be woken when it gives space back. Reserving again without
    /// a commit drops the first reservation. Errors: `TooLarge`, `Closed` (cancelled, or finished), `PeerGone`, `Stale`,
    /// `Corrupt`.
    pub fn try_reserve(&mut self, len: usize) -> Result<Option<&mut [u8]>, RingError> {
        self.reserved = None;
        self.check_open()?;
        if len > self.max_payload() {
            return Err(RingError::new(
                ErrorKind::TooLarge,
                "payload larger than half the ring",
            ));
        }
        let (skip, wanted) = self.wanted(len);
        if !self.room(wanted)? {
            let stream = self.stream;
            let waiting = &stream.control().waiting.producer_waiting;
            Wake::ask(waiting);
            if !self.room(wanted)? {
                return Ok(None);
            }
            Wake::withdraw(waiting);
        }
        if skip > 0 {
            let marker = FrameHeader::new(
                (skip - FRAME_ALIGN as u64) as u32,
                0,
                frame_flag::WRAP,
                self.seq,
                self.stream.reference().generation,
            );
            self.store_header(self.head, &marker);
        }
        let start = self.head.wrapping_add(skip);
        self.reserved = Some(Reserved {
            start,
            wrapped: skip > 0,
            len,
        });
        Ok(Some(self.payload(start, len)))
    }

    /// Publishes the first `len` bytes of the reservation as a frame; `more`: the message continues in the next one.
    ///
    /// Without a reservation it does nothing; more than was reserved is cut to that.
    pub fn commit(&mut self, len: usize, kind: u16, more: bool) -> Wake {
        debug_assert!(
            self.reserved.is_some_and(|reserved| len <= reserved.len),
            "commit without its reservation"
        );
        let Some(reserved) = self.reserved.take() else {
            return Wake::NONE;
        };
        let len = len.min(reserved.len);
        let seq = self.seq.wrapping_add(u32::from(reserved.wrapped));
        let flags = if more { frame_flag::MORE } else { 0 };
        let header = FrameHeader::new(
            len as u32,
            kind,
            flags,
            seq,
            self.stream.reference().generation,
        );
        self.store_header(reserved.start, &header);
        self.seq = seq.wrapping_add(1);
        self.head = reserved.start.wrapping_add(frame_bytes(len));
        let control = self.stream.control();
        control
            .producer
            .producer_seq
            .store(self.seq, Ordering::Relaxed);
        // Release pairs with the Acquire in `Consumer::available`: who sees the head sees the frame.
        control.producer.head.store(self.head, Ordering::Release);
        Wake::after_publishing(&control.waiting.consumer_waiting)
    }

    /// Marks the end: the consumer reads what is there, then `Peek::End`. Takes no space, so that it never has to wait.
    pub fn finish(&mut self) -> Wake {
        self.reserved = None;
        let control = self.stream.control();
        // Release pairs with the Acquire in `Consumer::ended`: who sees the end sees the last head.
        control.producer.finished.store(1, Ordering::Release);
        Wake::after_publishing(&control.waiting.consumer_waiting)
    }

    /// Reserve, copy, commit. `None`: the ring is full, as in [`Producer::try_reserve`].
    pub fn try_write(
        &mut self,
        kind: u16,
        payload: &[u8],
        more: bool,
    ) -> Result<Option<Wake>, RingError> {
        match self.try_reserve(payload.len())? {
            None => Ok(None),
            Some(room) => {
                room.copy_from_slice(payload);
                Ok(Some(self.commit(payload.len(), kind, more)))
            }
        }
    }

    fn check_open(&self) -> Result<(), RingError> {
        let state = self.stream.check_generation()?;
        if self.stream.error() == PEER_GONE {
            return Err(RingError::new(
                ErrorKind::PeerGone,
                "nobody reads this stream any more",
            ));
        }
        if state & flag::CANCEL != 0 {
            return Err(RingError::new(
                ErrorKind::Closed,
                "the stream was cancelled",
            ));
        }
        // Relaxed: written by this end only.
        if self
            .stream
            .control()
            .producer
            .finished
            .load(Ordering::Relaxed)
            != 0
        {
            return Err(RingError::new(ErrorKind::Closed, "the stream was finished"));
        }
        Ok(())
    }

    /// Bytes to skip to the ring's beginning, and bytes to find free, for a payload of `len`. At most a whole ring: what is
    /// skipped is smaller than the frame that didn't fit, which is at most half a ring.
    fn wanted(&self, len: usize) -> (u64, u64) {
        let frame = frame_bytes(len);
        let ring = ring_bytes(&self.stream);
        let contiguous = ring - (self.head & (ring - 1));
        let skip = if contiguous < frame { contiguous } else { 0 };
        (skip, skip + frame)
    }

    /// Whether `wanted` bytes are free; looks at the shared tail only if the last one seen doesn't do.
    fn room(&mut self, wanted: u64) -> Result<bool, RingError> {
        let ring = ring_bytes(&self.stream);
        if ring - self.head.wrapping_sub(self.tail) >= wanted {
            return Ok(true);
        }
        // Acquire pairs with the Release in `Consumer::release`: the consumer is done reading what it gave back.
        let tail = self.stream.control().consumer.tail.load(Ordering::Acquire);
        let used = self.head.wrapping_sub(tail);
        if used > ring || !tail.is_multiple_of(FRAME_ALIGN as u64) {
            return Err(RingError::new(
                ErrorKind::Corrupt,
                "tail position out of range",
            ));
        }
        self.tail = tail;
        Ok(ring - used >= wanted)
    }

    #[expect(unsafe_code, reason = "writes into the ring")]
    fn store_header(&self, position: u64, header: &FrameHeader) {
        let offset = self.offset(position);
        let index = self.stream.reference().index;
        self.stream.memory().will_write(index, offset, FRAME_ALIGN);
        // SAFETY: `offset` is a multiple of 64 below `ring_bytes`, itself a multiple of 64, so that 64 bytes from it are in
        // the ring.
        unsafe { header.store(self.stream.memory().ring(index).add(offset)) };
    }

    #[expect(unsafe_code, reason = "hands out ring bytes")]
    fn payload(&mut self, start: u64, len: usize) -> &mut [u8] {
        let offset = self.offset(start) + FRAME_ALIGN;
        let index = self.stream.reference().index;
        self.stream.memory().will_write(index, offset, len);
        // SAFETY: `wanted` made sure that the frame is contiguous from `start`, and `room` that these bytes lie between head
        // and tail, where the consumer doesn't read. The borrow of `self` keeps other slices of this end away.
        unsafe {
            core::slice::from_raw_parts_mut(self.stream.memory().ring(index).add(offset), len)
        }
    }

    /// A multiple of 64 below `ring_bytes`, whatever the position.
    fn offset(&self, position: u64) -> usize {
        (position & (ring_bytes(&self.stream) - FRAME_ALIGN as u64)) as usize
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stream.unclaim(flag::PRODUCER);
    }
}

fn ring_bytes(stream: &Stream) -> u64 {
    u64::from(stream.memory().layout().ring_bytes)
}
