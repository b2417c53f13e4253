//! Where blocks are in the cache's files, for another process that reads them there: its copy is the only one.
//!
//! Nothing keeps a block where it is until it is read. Its slot may be given to another block, its file may be removed,
//! and the owner may end; the medium may have damaged it as well. The reader need not know which it was: it compares
//! each piece with its checksum, as the owner does with what it reads itself. If one is different, or a file can't be
//! opened, the reader asks the owner for the bytes, who drops what is damaged and fetches what isn't there any more.
//!
//! Files are opened for one read and closed after it, so that a reader keeps no removed file's bytes from being given
//! back to the file system.

use crate::cache::Cache;
use crate::checksum::{PIECE_BYTES, match_pieces};
use crate::object::{Admission, Layout, Object};
use crate::part::blocks;
use bytes::Bytes;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is read and checked at a time: it is still in the processor's cache when it is checked.
const STEP_BYTES: usize = 4 * PIECE_BYTES;

/// Where blocks of an object were when the cache was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Those that the blocks are in.
    pub files: Vec<PathBuf>,
    /// In the order of the blocks.
    pub blocks: Vec<Place>,
}

/// Where one block was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the block in its object.
    pub block: u32,
    /// Index into [`Places::files`].
    pub file: u32,
    /// Where the block begins in the file.
    pub offset: u64,
    /// CRC-32 of each 64 KiB of the block, the last of which may be short.
    pub sums: Arc<[u32]>,
}

impl Cache {
    /// Where the blocks of these ranges are, if all of them are in the cache. It counts as a read of them.
    pub fn places(
        &self,
        object: &Object,
        ranges: &[Range<u64>],
        admission: Admission,
    ) -> Option<Places> {
        let layout = Layout::of(object, self.block_bytes()).ok()?;
        let mut wanted = Vec::new();
        let mut bytes = 0;
        for range in ranges {
            bytes += length(range, layout)? as u64;
            wanted.extend(blocks(range, layout));
        }
        let chunks = wanted.len() as u64;
        wanted.sort_unstable();
        wanted.dedup();
        let shard = self.shard(&object.location);
        let hits = shard.hits(object, &wanted, admission == Admission::Normal)?;
        shard.counters.hits.add(chunks);
        shard.counters.bytes_from_cache.add(bytes);
        let mut places = Places::default();
        for (block, hit) in wanted.into_iter().zip(hits) {
            let place = Place {
                block,
                file: places.number(hit.file.path())?,
                offset: hit.offset,
                sums: hit.sums.pieces,
            };
            places.blocks.push(place);
        }
        Some(places)
    }
}

impl Places {
    /// The number of a file, which is added if it isn't there. They are few.
    fn number(&mut self, path: &Path) -> Option<u32> {
        let known = self.files.iter().rposition(|file| file == path);
        let number = known.unwrap_or(self.files.len());
        if known.is_none() {
            self.files.push(path.to_owned());
        }
        u32::try_from(number).ok()
    }

    /// Reads ranges of an object of `size` bytes that is kept in blocks of `block_bytes`. Waits for the disk.
    ///
    /// `None`: the bytes aren't there any more, or `goes_on` says no, which is asked every now and then.
    pub fn read(
        &self,
        size: u64,
        block_bytes: u64,
        ranges: &[Range<u64>],
        goes_on: impl Fn() -> bool,
    ) -> Option<Vec<Bytes>> {
        if block_bytes == 0 {
            return None;
        }
        let files: Option<Vec<File>> = self
            .files
            .iter()
            .map(|file| File::open(file).ok())
            .collect();
        let mut reader = Reader {
            places: self,
            layout: Layout { size, block_bytes },
            files: files?,
            edge: None,
            edge_bytes: Vec::new(),
        };
        let ranges = ranges.iter();
        ranges
            .map(|range| reader.read(range, &goes_on).map(Bytes::from))
            .collect()
    }
}

/// The length of a range, if the object has it.
fn length(range: &Range<u64>, layout: Layout) -> Option<usize> {
    if range.end > layout.size {
        return None;
    }
    usize::try_from(range.end.checked_sub(range.start)?).ok()
}

struct Reader<'a> {
    places: &'a Places,
    layout: Layout,
    files: Vec<File>,
    /// The piece of which `edge_bytes` are, by its block and where it begins in it: one of which a range has a part
    /// only. Small ranges beside each other are often in the same one.
    edge: Option<(u32, usize)>,
    edge_bytes: Vec<u8>,
}

impl Reader<'_> {
    fn read(&mut self, range: &Range<u64>, goes_on: impl Fn() -> bool) -> Option<Vec<u8>> {
        let length = length(range, self.layout)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).ok()?;
        for block in blocks(range, self.layout) {
            let (begins, block_len) = (self.layout.offset(block), self.layout.block_len(block));
            let mut at = range.start.saturating_sub(begins) as usize;
            let end = (range.end - begins).min(block_len as u64) as usize;
            while at < end {
                if !goes_on() {
                    return None;
                }
                let whole_end = match end == block_len {
                    true => end,
                    false => end / PIECE_BYTES * PIECE_BYTES,
                };
                let next = if at.is_multiple_of(PIECE_BYTES) && at < whole_end {
                    let next = whole_end.min(at + STEP_BYTES);
                    self.read_pieces(block, at..next, &mut bytes)?;
                    next
                } else {
                    let start = at / PIECE_BYTES * PIECE_BYTES;
                    let piece = start..block_len.min(start + PIECE_BYTES);
                    let next = end.min(piece.end);
                    self.read_edge(block, piece)?;
                    bytes.extend_from_slice(self.edge_bytes.get(at - start..next - start)?);
                    next
                };
                at = next;
            }
        }
        (bytes.len() == length).then_some(bytes)
    }

    /// Appends whole pieces of a block.
    fn read_pieces(&self, block: u32, within: Range<usize>, bytes: &mut Vec<u8>) -> Option<()> {
        let places = &self.places.blocks;
        let place = places
            .binary_search_by_key(&block, |place| place.block)
            .ok()?;
        let place = places.get(place)?;
        let file = self.files.get(place.file as usize)?;
        let begins = bytes.len();
        bytes.resize(begins + within.len(), 0);
        let read = bytes.get_mut(begins..)?;
        let offset = place.offset.checked_add(within.start as u64)?;
        file.read_exact_at(read, offset).ok()?;
        match_pieces(&place.sums, within.start / PIECE_BYTES, read).then_some(())
    }

    fn read_edge(&mut self, block: u32, piece: Range<usize>) -> Option<()> {
        let wanted = Some((block, piece.start));
        if self.edge == wanted {
            return Some(());
        }
        self.edge = None;
        let mut bytes = std::mem::take(&mut self.edge_bytes);
        bytes.clear();
        self.read_pieces(block, piece, &mut bytes)?;
        self.edge_bytes = bytes;
        self.edge = wanted;
        Some(())
    }
}
