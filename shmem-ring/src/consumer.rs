//! The reading end of a stream.
//!
//! The producer is not trusted: positions and headers are copied out of shared memory, checked, and only the copy is
//! used. What remains is that a peer which breaks the protocol can change a payload while it is read: a reader must not
//! take two looks at a byte and rely on them agreeing.

use crate::error::{ErrorKind, RingError};
use crate::frame::{FRAME_ALIGN, FrameHeader, flag as frame_flag};
use crate::stream::{PEER_GONE, Stream, Wake, flag};
use crate::sync::Ordering;

/// What the reading end finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Peek<'a> {
    /// Nothing yet; the producer will be told to wake us.
    Empty,
    /// The next frame. It stays until [`Consumer::release`].
    Frame(Frame<'a>),
    /// The producer finished, and everything was read.
    End,
}

/// A frame, read in place.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The caller's kind of message.
    pub kind: u16,
    /// The message continues in the next frame.
    pub more: bool,
    /// 64-aligned.
    pub payload: &'a [u8],
}

/// The reading end of a stream: one at a time. Dropping it makes the end free to take again; frames that were not
/// released are read again then.
#[derive(Debug)]
pub struct Consumer {
    stream: Stream,
    /// Our own copy: what a peer writes to the shared one doesn't reach us.
    tail: u64,
    /// The last head seen: at most `ring_bytes` ahead of `tail`.
    head: u64,
    seq: u32,
    /// Bytes of the frame last peeked at; 0 for none.
    peeked: u64,
}

impl Consumer {
    pub(crate) fn new(stream: Stream) -> Result<Consumer, RingError> {
        let line = &stream.control().consumer;
        // Relaxed: the claim of this end (AcqRel) ordered us after our predecessor.
        let tail = line.tail.load(Ordering::Relaxed);
        let seq = line.consumer_seq.load(Ordering::Relaxed);
        // From here on an error drops it, which gives the end back.
        let consumer = Consumer {
            stream,
            tail,
            head: tail,
            seq,
            peeked: 0,
        };
        if !tail.is_multiple_of(FRAME_ALIGN as u64) {
            return Err(corrupt("tail position is not a multiple of 64"));
        }
        Ok(consumer)
    }

    /// The stream it reads from.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// Whether there is a frame or the end to peek at. Asks for no wake-up: for a short spin, as it doesn't see a cancel
    /// or a dead worker.
    pub fn is_ready(&self) -> bool {
        let line = &self.stream.control().producer;
        line.head.load(Ordering::Relaxed) != self.tail || line.finished.load(Ordering::Relaxed) != 0
    }

    /// The next frame, which stays the next one until released. `Empty` asks the producer to wake us.
    ///
    /// Frames written before a cancel or an error are still delivered; look at `Stream::error` when it is `Empty`, where
    /// this reports only a dead worker, as `PeerGone`. Other errors: `Stale`, `Corrupt`.
    pub fn try_peek(&mut self) -> Result<Peek<'_>, RingError> {
        self.peeked = 0;
        self.stream.check_generation()?;
        if self.available()? == 0 {
            if self.ended()? {
                return Ok(Peek::End);
            }
            let stream = self.stream;
            let waiting = &stream.control().waiting.consumer_waiting;
            Wake::ask(waiting);
            if self.available()? == 0 {
                if self.ended()? {
                    return Ok(Peek::End);
                }
                if self.stream.error() == PEER_GONE {
                    return Err(RingError::new(
                        ErrorKind::PeerGone,
                        "nobody writes this stream any more",
                    ));
                }
                return Ok(Peek::Empty);
            }
            Wake::withdraw(waiting);
        }
        let mut header = self.header()?;
        if header.is_wrap() {
            if header.frame_bytes() != self.contiguous() {
                return Err(corrupt(
                    "wrap marker that does not lead to the beginning of the ring",
                ));
            }
            self.tail = self.tail.wrapping_add(header.frame_bytes());
            self.seq = self.seq.wrapping_add(1);
            // A marker is published together with the frame after it.
            if self.available()? == 0 {
                return Err(corrupt("wrap marker without a frame after it"));
            }
            header = self.header()?;
            if header.is_wrap() {
                return Err(corrupt("two wrap markers in a row"));
            }
        }
        self.peeked = header.frame_bytes();
        Ok(Peek::Frame(Frame {
            kind: header.kind,
            more: header.flags & frame_flag::MORE != 0,
            payload: self.payload(header.len as usize),
        }))
    }

    /// Gives back the frame last peeked at; without one it does nothing.
    pub fn release(&mut self) -> Wake {
        if self.peeked == 0 {
            return Wake::NONE;
        }
        self.tail = self.tail.wrapping_add(self.peeked);
        self.seq = self.seq.wrapping_add(1);
        self.peeked = 0;
        let control = self.stream.control();
        control
            .consumer
            .consumer_seq
            .store(self.seq, Ordering::Relaxed);
        // Release pairs with the Acquire in `Producer::room`: we are done reading.
        control.consumer.tail.store(self.tail, Ordering::Release);
        Wake::after_publishing(&control.waiting.producer_waiting)
    }

    /// Bytes between tail and head; looks at the shared head only when all seen before was read.
    fn available(&mut self) -> Result<u64, RingError> {
        if self.head == self.tail {
            // Acquire pairs with the Release in `Producer::commit`: the frames up to it are complete.
            let head = self.stream.control().producer.head.load(Ordering::Acquire);
            let queued = head.wrapping_sub(self.tail);
            if queued > self.ring_bytes() || !queued.is_multiple_of(FRAME_ALIGN as u64) {
                return Err(corrupt("head position out of range"));
            }
            self.head = head;
        }
        Ok(self.head.wrapping_sub(self.tail))
    }

    /// Whether the producer finished and nothing is left. False if frames came with the end.
    fn ended(&mut self) -> Result<bool, RingError> {
        // Acquire pairs with the Release in `Producer::finish`: `available` then sees the last head.
        Ok(self
            .stream
            .control()
            .producer
            .finished
            .load(Ordering::Acquire)
            != 0
            && self.available()? == 0)
    }

    /// The checked header at `tail`. There are bytes available, so at least one header.
    #[expect(unsafe_code, reason = "reads the ring")]
    fn header(&self) -> Result<FrameHeader, RingError> {
        let offset = self.offset();
        let reference = self.stream.reference();
        let memory = self.stream.memory();
        memory.will_read(reference.index, offset, FRAME_ALIGN);
        // SAFETY: `offset` is a multiple of 64 below `ring_bytes`, itself a multiple of 64, so that 64 bytes from it are in
        // the ring.
        let header = unsafe { FrameHeader::load(memory.ring(reference.index).add(offset)) };
        header.verify(self.seq, reference.generation)?;
        let frame = header.frame_bytes();
        if frame > self.head.wrapping_sub(self.tail) || frame > self.contiguous() {
            return Err(corrupt("frame longer than what was published"));
        }
        Ok(header)
    }

    /// `len` is from a header that `header` checked, and is not a wrap marker's.
    #[expect(unsafe_code, reason = "hands out ring bytes")]
    fn payload(&self, len: usize) -> &[u8] {
        let offset = self.offset() + FRAME_ALIGN;
        let index = self.stream.reference().index;
        self.stream.memory().will_read(index, offset, len);
        // SAFETY: `header` checked that the frame ends before the end of the ring and lies between tail and head, where the
        // producer doesn't write until `release`, which needs this borrow to have ended.
        unsafe { core::slice::from_raw_parts(self.stream.memory().ring(index).add(offset), len) }
    }

    /// A multiple of 64 below `ring_bytes`, whatever the position.
    fn offset(&self) -> usize {
        (self.tail & (self.ring_bytes() - FRAME_ALIGN as u64)) as usize
    }

    /// Bytes to the end of the ring.
    fn contiguous(&self) -> u64 {
        self.ring_bytes() - self.offset() as u64
    }

    fn ring_bytes(&self) -> u64 {
        u64::from(self.stream.memory().layout().ring_bytes)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stream.unclaim(flag::CONSUMER);
    }
}

const fn corrupt(context: &'static str) -> RingError {
    RingError::new(ErrorKind::Corrupt, context)
}
