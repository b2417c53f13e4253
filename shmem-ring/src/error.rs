//! The crate's error: a kind to act on and a sentence to log.

use core::fmt;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The requested layout is impossible: a configuration error.
    BadLayout,
    /// The bytes are not a region of this version, or too small or misaligned.
    BadRegion,
    /// A peer wrote something that breaks the format: give up on the stream.
    Corrupt,
    /// The handle or reference belongs to an earlier use of the stream.
    Stale,
    /// The worker that served the stream is gone: the request may be sent again.
    PeerGone,
    /// A payload larger than a frame may be: continue it over several frames.
    TooLarge,
    /// The stream was cancelled, released or finished, or its end of the ring is already in use.
    Closed,
}

/// An error of this crate; see [`ErrorKind`] for what each kind asks of the caller.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RingError {
    kind: ErrorKind,
    context: &'static str,
}

impl RingError {
    pub(crate) const fn new(kind: ErrorKind, context: &'static str) -> Self {
        Self { kind, context }
    }

    /// The kind, for callers that act on it.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Debug for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingError({:?}: {})", self.kind, self.context)
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ErrorKind::BadLayout => "invalid ring layout",
            ErrorKind::BadRegion => "invalid ring region",
            ErrorKind::Corrupt => "corrupt stream",
            ErrorKind::Stale => "stale stream",
            ErrorKind::PeerGone => "worker process is gone",
            ErrorKind::TooLarge => "frame too large",
            ErrorKind::Closed => "stream closed",
        };
        write!(f, "{kind}: {}", self.context)
    }
}

impl std::error::Error for RingError {}
