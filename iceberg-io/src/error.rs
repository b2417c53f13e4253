//! The crate's error type: a kind that callers can act on, a message in Postgres' style, and the cause.

use std::error::Error as StdError;
use std::{fmt, io};

use parquet::errors::ParquetError;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in terms of what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request contradicts itself or the table; the caller has a bug.
    InvalidInput,
    /// Valid Iceberg or Parquet that this crate doesn't handle.
    Unsupported,
    /// A file doesn't hold what it should.
    Corrupt,
    /// A file that should exist doesn't.
    NotFound,
    /// A file that must be new exists already.
    AlreadyExists,
    /// The operating system or the store refused.
    Io,
    /// A library failed in a way that input can't explain.
    Internal,
}

/// An error: `kind` for code, `Display` for people.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    retryable: bool,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            retryable: false,
        }
    }

    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// An operating-system error; `message` says what was attempted, on which file.
    pub fn io(message: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            _ => ErrorKind::Io,
        };
        let retryable = matches!(
            source.kind(),
            io::ErrorKind::Interrupted
                | io::ErrorKind::TimedOut
                | io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::ResourceBusy
                | io::ErrorKind::OutOfMemory
        ) || source.raw_os_error().is_some_and(is_of_too_many_files);
        Self::new(kind, message)
            .with_source(source)
            .with_retryable(retryable)
    }

    /// An error of the Parquet writer; what its sink reported is an I/O error.
    pub fn parquet(message: impl Into<String>, source: ParquetError) -> Self {
        let kind = match &source {
            ParquetError::External(_) => ErrorKind::Io,
            ParquetError::NYI(_) => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, message).with_source(source)
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        self.retryable
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}

/// `ENFILE` and `EMFILE`, which have no kind of their own; on Linux and BSD, macOS included.
fn is_of_too_many_files(code: i32) -> bool {
    matches!(code, 23 | 24)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<iceberg::Error> for Error {
    fn from(source: iceberg::Error) -> Self {
        let kind = match source.kind() {
            iceberg::ErrorKind::DataInvalid => ErrorKind::Corrupt,
            iceberg::ErrorKind::FeatureUnsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        };
        let retryable = source.retryable();
        Self::new(kind, "invalid Iceberg metadata")
            .with_source(source)
            .with_retryable(retryable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scarce_for_a_while_is_retryable() {
        let retryable = |code| Error::io("", io::Error::from_raw_os_error(code)).retryable();
        // ENOMEM, ENFILE, EMFILE, ENOSPC
        assert!([12, 23, 24, 28].into_iter().all(retryable));
        // ENOENT, EIO, EACCES
        assert!(![2, 5, 13].into_iter().any(retryable));
    }
}
