//! The feeds of a request: one that is written to its end, or several that are filled side by side.
//!
//! The worker takes feeds in an order of its own: whoever waited for one full ring while the worker waits
//! for rows on another would wait for ever. So a message goes out in as many pieces as there is room for
//! at the moment, and its sender looks at the other feeds, and at the reply, before it waits.

use super::{Call, wake_worker};
use crate::ring::region;
use pg_lake_plan::message::kind;
use pg_lake_ring::Wake;

/// A message on its way.
#[derive(Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The rest of it is out.
    Whole,
    /// Some more of it is out.
    Partly,
    /// The ring is full.
    Nothing,
    /// Nobody reads the feed any more, or the request has ended.
    Unwanted,
}

impl Outgoing {
    /// Where the next message goes. The last one must be out.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.sent = 0;
        &mut self.bytes
    }

    /// Whether nothing is left to be sent.
    pub fn is_sent(&self) -> bool {
        self.sent == self.bytes.len()
    }
}

impl Call {
    /// Sends a batch to a feed; false: the request has ended.
    pub fn feed(&mut self, feed: usize, batch: &[u8]) -> bool {
        self.write(Some(feed), kind::BATCH, batch)
    }

    /// Says which partition the batches that follow are of; false: the request has ended.
    pub fn begin_partition(&mut self, feed: usize, values: &[u8]) -> bool {
        self.write(Some(feed), kind::PARTITION, values)
    }

    /// Sends as much of a batch as a feed has room for now.
    pub fn try_feed(&mut self, feed: usize, batch: &mut Outgoing) -> Sent {
        let mut sent = Sent::Nothing;
        loop {
            let inner = self.inner();
            if inner.ended {
                return Sent::Unwanted;
            }
            match inner.try_frame(Some(feed), kind::BATCH, &batch.bytes[batch.sent..]) {
                Ok(Some(written)) => {
                    batch.sent += written;
                    if batch.is_sent() {
                        return Sent::Whole;
                    }
                    sent = Sent::Partly;
                }
                Ok(None) => return sent,
                Err(e) => {
                    self.left(Some(feed), e);
                    return Sent::Unwanted;
                }
            }
        }
    }

    /// Says that a feed is complete.
    pub fn finish_feed(&mut self, feed: usize) {
        let inner = self.inner();
        let Wake { peer } = inner.feed_ends[feed].finish();
        let reference = inner.held.feeds[feed].reference();
        if peer && region().ring_stream(reference).is_some() {
            wake_worker(&region(), inner.worker);
        }
    }
}
