//! What the cache is asked for, where it gets it, and how that fails.

use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// An object of a store. It never changes, and its location is never used for another one.
#[derive(Clone, Debug)]
pub struct Object {
    pub location: Arc<str>,
    /// Bytes.
    pub size: u64,
    /// CRC-32 (as in ISO 3309) of each block, the last of which may be short.
    pub checksums: Arc<[u32]>,
}

/// Where an object's bytes come from. Retries and time-outs are its own business.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// All who wait for a block get the error of the one request for it.
    type Error: Clone + Send + Sync + 'static;

    /// These bytes, neither fewer nor more.
    async fn get(&self, range: Range<u64>) -> Result<Bytes, Self::Error>;

    /// What this origin's requests may hold of memory, if not a part of what all others may: those of one
    /// that doesn't answer keep no others waiting.
    fn buffers(&self) -> Option<Buffers> {
        None
    }
}

/// Memory of requests whose bytes aren't in the cache yet: 128 MiB, shared by all clones.
#[derive(Clone, Debug)]
pub struct Buffers(pub(crate) Arc<Semaphore>);

impl Default for Buffers {
    fn default() -> Self {
        Buffers(crate::fetch::buffers())
    }
}

/// How a read may change what the cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admission {
    /// What is read is kept, and counts as used.
    Normal,
    /// What is read is kept and doesn't count as used. Of what others use again and again it displaces little: a tenth
    /// of the limit at most, over all scans.
    Scan,
    /// What is missing isn't kept.
    Bypass,
}

impl Admission {
    pub(crate) fn from_code(code: u8) -> Admission {
        match code {
            0 => Admission::Normal,
            1 => Admission::Scan,
            _ => Admission::Bypass,
        }
    }
}

/// Why a read failed. A failure of the local disk is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error<E> {
    Origin(E),
    /// The origin's bytes don't match the block's checksum, though it was asked twice.
    Corrupt {
        location: Arc<str>,
        /// Where the block begins.
        offset: u64,
    },
    /// A range outside the object, or checksums that aren't those of its size: a bug of the caller.
    Invalid(String),
    /// The task that did the work panicked, or the runtime is being shut down.
    Aborted,
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Origin(error) => error.fmt(f),
            Error::Corrupt { location, offset } => write!(
                f,
                "bytes from {offset} of \"{location}\" don't match their checksum"
            ),
            Error::Invalid(message) => f.write_str(message),
            Error::Aborted => f.write_str("a read through the disk cache was aborted"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for Error<E> {}

/// How an object of some size is divided into blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) size: u64,
    pub(crate) block_bytes: u64,
}

impl Layout {
    /// `Err` says what is wrong with the object.
    pub(crate) fn of(object: &Object, block_bytes: u64) -> Result<Layout, String> {
        let layout = Layout {
            size: object.size,
            block_bytes,
        };
        if layout.blocks() != object.checksums.len() as u64 {
            return Err(format!(
                "\"{}\" of {} bytes has {} blocks, not {}",
                object.location,
                object.size,
                layout.blocks(),
                object.checksums.len()
            ));
        }
        if u32::try_from(layout.blocks()).is_err() {
            return Err(format!("\"{}\" has too many blocks", object.location));
        }
        Ok(layout)
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.size.div_ceil(self.block_bytes)
    }

    /// Where a block begins.
    pub(crate) fn offset(&self, block: u32) -> u64 {
        u64::from(block).saturating_mul(self.block_bytes)
    }

    /// Bytes of a block, 0 if there is none. A block's bytes fit into memory.
    pub(crate) fn block_len(&self, block: u32) -> usize {
        let rest = self.size.saturating_sub(self.offset(block));
        rest.min(self.block_bytes) as usize
    }

    pub(crate) fn block_of(&self, offset: u64) -> u32 {
        (offset / self.block_bytes) as u32
    }
}
