//! Segment files, and the calls that they are read and written by.

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is done to open segment files. Tests have disks that fail.
pub(crate) trait Disk: Send + Sync {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills the buffer.
    fn read(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Fills the buffer from memory; `false`: that would have to wait for the medium.
    fn read_now(&self, file: &File, buffer: &mut [u8], offset: u64) -> bool;

    /// Gives the bytes back to the file system.
    fn discard(&self, file: &File, range: std::ops::Range<u64>) -> io::Result<()>;
}

/// The local file system.
#[derive(Debug, Default)]
pub(crate) struct LocalDisk {
    /// The file system can't tell whether a read would wait.
    always_waits: AtomicBool,
}

impl Disk for LocalDisk {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn read(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(buffer, offset)
    }

    fn read_now(&self, file: &File, buffer: &mut [u8], offset: u64) -> bool {
        if self.always_waits.load(Ordering::Relaxed) {
            return false;
        }
        let wanted = buffer.len();
        let mut buffers = [IoSliceMut::new(buffer)];
        match preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => read == wanted,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.always_waits.store(true, Ordering::Relaxed);
                false
            }
            Err(_) => false,
        }
    }

    fn discard(&self, file: &File, range: std::ops::Range<u64>) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let len = range.end.saturating_sub(range.start);
        fallocate(file, flags, range.start, len).map_err(io::Error::from)
    }
}

/// An open segment. Who has one goes on reading it after it was removed.
pub(crate) struct SegmentFile {
    pub(crate) number: u32,
    path: PathBuf,
    file: File,
    disk: Arc<dyn Disk>,
}

impl SegmentFile {
    pub(crate) fn create(directory: &Path, number: u32, disk: Arc<dyn Disk>) -> io::Result<Self> {
        let path = segment_path(directory, number);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(SegmentFile {
            number,
            path,
            file,
            disk,
        })
    }

    pub(crate) fn open(directory: &Path, number: u32, disk: Arc<dyn Disk>) -> io::Result<Self> {
        let path = segment_path(directory, number);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(SegmentFile {
            number,
            path,
            file,
            disk,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.write(&self.file, bytes, offset)
    }

    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read(&self.file, buffer, offset)
    }

    pub(crate) fn read_now(&self, buffer: &mut [u8], offset: u64) -> bool {
        self.disk.read_now(&self.file, buffer, offset)
    }

    pub(crate) fn discard(&self, range: std::ops::Range<u64>) -> io::Result<()> {
        self.disk.discard(&self.file, range)
    }

    pub(crate) fn unlink(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

impl fmt::Debug for SegmentFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

fn segment_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("segment-{number:08}"))
}

/// The number of a segment file, if it is the name of one.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("segment-")?.parse().ok()?;
    (format!("segment-{number:08}") == name).then_some(number)
}

/// Creates a directory, and those above it, for the server's user only: users' rows will be in it.
pub(crate) fn create_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments() {
        assert_eq!(segment_number("segment-00000012"), Some(12));
        assert_eq!(segment_number("segment-123456789"), Some(123_456_789));
        for other in ["segment-12", "segment-", "segment-+0000012", "index.redb"] {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }

    #[test]
    fn discarded_bytes_are_gone_and_the_file_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk: Arc<dyn Disk> = Arc::new(LocalDisk::default());
        let segment = SegmentFile::create(directory.path(), 1, disk).expect("a segment");
        segment.write(&[7; 8192], 0).expect("written");
        let mut read = [0; 8192];
        assert!(segment.read_now(&mut read, 0) || segment.read(&mut read, 0).is_ok());
        assert_eq!(read, [7; 8192]);
        assert!(!segment.read_now(&mut read, 4096), "beyond the end");
        segment.unlink().expect("removed");
        if segment.discard(0..4096).is_ok() {
            segment.read(&mut read, 0).expect("still readable");
            assert_eq!((read[0], read[4095], read[4096]), (0, 0, 7));
        }
    }
}
