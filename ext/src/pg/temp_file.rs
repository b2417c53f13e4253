//! Bytes that are written first and read afterwards, in a temporary file of Postgres: in its temporary
//! tablespaces, and within `temp_file_limit`.

use crate::error;
use pgrx::{PgSqlErrorCode, pg_sys};

/// A temporary file. Dropped without [`TempFile::close`] it is left to its resource owner and its memory
/// context: after an error neither is in a state to be used.
pub struct TempFile(*mut pg_sys::BufFile);

impl TempFile {
    /// Of the current resource owner, with its buffer in the current memory context.
    pub fn create() -> TempFile {
        // SAFETY: in a transaction; raises an error if there is no room.
        TempFile(unsafe { pg_sys::BufFileCreateTemp(false) })
    }

    pub fn write(&mut self, bytes: &[u8]) {
        // SAFETY: the file is open, the bytes are copied.
        unsafe { pg_sys::BufFileWrite(self.0, bytes.as_ptr().cast(), bytes.len()) }
    }

    /// Goes back to the beginning, to read.
    pub fn rewind(&mut self) {
        // SAFETY: the file is open.
        if unsafe { pg_sys::BufFileSeek(self.0, 0, 0, libc::SEEK_SET) } != 0 {
            error::raise(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "could not rewind a temporary file",
                None,
                None,
            );
        }
    }

    /// The next so many bytes, which were written.
    pub fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        // SAFETY: the file is open, and the buffer as long.
        unsafe { pg_sys::BufFileReadExact(self.0, bytes.as_mut_ptr().cast(), length) };
        bytes
    }

    pub fn close(self) {
        // SAFETY: the file is open.
        unsafe { pg_sys::BufFileClose(self.0) }
    }
}
