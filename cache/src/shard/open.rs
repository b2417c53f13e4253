//! Opening a shard: what its index says is checked against its files, and becomes the state in memory.

use super::{Shard, State};
use crate::checksum::piece_count;
use crate::directory::{self, Directory};
use crate::disk::{Disk, SegmentFile, create_private_directory, segment_number};
use crate::flight::Flights;
use crate::index::{Index, OpenError, Row};
use crate::lock;
use crate::object::Layout;
use crate::record::{BlockRow, decode_object};
use crate::shard::journal::Journal;
use crate::space::{Space, slot_range};
use crate::stats::Counters;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

pub(super) const INDEX: &str = "index.redb";

/// What every shard of a cache is opened with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) directory: PathBuf,
    pub(crate) block_bytes: u64,
    /// Bytes, of each shard.
    pub(crate) capacity: u64,
    pub(crate) disk: Arc<dyn Disk>,
}

/// The valid rows of an index, and the others.
#[derive(Default)]
struct Rows {
    objects: HashMap<u64, (u64, Arc<str>)>,
    blocks: Vec<((u64, u32), BlockRow)>,
    bad_objects: Vec<u64>,
    bad_blocks: Vec<(u64, u32)>,
}

impl Shard {
    /// Opens a shard that the process owns. If that can't be done it is off.
    pub(crate) fn open(number: u32, setup: &Setup) -> Arc<Shard> {
        let shard = Arc::new(Shard::new(number, setup));
        if let Err(reason) = shard.load() {
            let path = shard.path.display();
            tracing::warn!("the disk cache in \"{path}\" is off: {reason}");
            let mut state = lock(&shard.state);
            state.directory = Directory::default();
            state.space = Space::new(setup.block_bytes, setup.capacity);
            state.off = Some(reason);
        }
        shard
    }

    /// A shard in which nothing is kept.
    pub(crate) fn without(number: u32, setup: &Setup, reason: &str) -> Arc<Shard> {
        let shard = Shard::new(number, setup);
        lock(&shard.state).off = Some(reason.to_owned());
        Arc::new(shard)
    }

    fn new(number: u32, setup: &Setup) -> Shard {
        Shard {
            number,
            block_bytes: setup.block_bytes,
            path: setup.directory.join(format!("shard-{number:02}")),
            disk: setup.disk.clone(),
            state: Mutex::new(State {
                directory: Directory::default(),
                space: Space::new(setup.block_bytes, setup.capacity),
                flights: Flights::default(),
                off: None,
                failing: None,
            }),
            counters: Counters::default(),
            journal: Mutex::new(Journal::Closed),
            commit_is_due: AtomicBool::new(false),
            writable: RwLock::new(true),
        }
    }

    fn load(self: &Arc<Self>) -> Result<(), String> {
        create_private_directory(&self.path).map_err(|error| error.to_string())?;
        let path = self.index_path();
        let (index, rows) = match self.read_index(&path) {
            Ok(read) => read,
            Err(OpenError::Busy) => return Err("another process has it open".into()),
            Err(OpenError::Failed(error)) => return Err(error),
            Err(OpenError::Damaged(error)) => {
                tracing::warn!(
                    "\"{}\" is damaged, its shard begins anew: {error}",
                    path.display()
                );
                self.counters.corrupt_blocks.add(1);
                fs::remove_file(&path).map_err(|error| error.to_string())?;
                match self.read_index(&path) {
                    Ok(read) => read,
                    Err(error) => return Err(format!("{error:?}")),
                }
            }
        };
        self.restore(rows).map_err(|error| error.to_string())?;
        *lock(&self.journal) = Journal::Open(index);
        self.shrink();
        Ok(())
    }

    fn read_index(&self, path: &Path) -> Result<(Index, Rows), OpenError> {
        let index = Index::open(path, self.block_bytes)?;
        let mut rows = Rows::default();
        index
            .visit(|row| rows.add(row))
            .map_err(OpenError::Damaged)?;
        Ok((index, rows))
    }

    /// Takes over the blocks that can be there, and gives back what else the files have.
    fn restore(&self, mut rows: Rows) -> io::Result<()> {
        let mut state = lock(&self.state);
        let lengths = self.open_segments(&mut state.space, &rows)?;
        rows.one_object_a_name();
        // Of two blocks with one slot the newer one has it.
        rows.blocks
            .sort_by_key(|(_, row)| (row.segment, row.slot, Reverse(row.generation)));
        let mut found = Vec::with_capacity(rows.blocks.len());
        for (key, row) in std::mem::take(&mut rows.blocks) {
            match self.place(&mut state.space, &rows.objects, &lengths, key, row) {
                Some(block) => found.push(block),
                None => rows.bad_blocks.push(key),
            }
        }
        // Those that were written first are to go first.
        found.sort_by_key(|block| block.generation);
        for block in found {
            rows.objects.remove(&block.id);
            state.directory.restore(block);
        }
        // What is left has no blocks.
        rows.bad_objects.extend(rows.objects.keys());
        for id in rows.bad_objects {
            state.directory.forget_row(id, None);
        }
        self.counters
            .corrupt_blocks
            .add(rows.bad_blocks.len() as u64);
        for (id, block) in rows.bad_blocks {
            state.directory.forget_row(id, Some(block));
        }
        self.trim(&mut state.space);
        Ok(())
    }

    /// Opens the segments that rows name and removes the others. Returns their lengths.
    fn open_segments(&self, space: &mut Space, rows: &Rows) -> io::Result<HashMap<u32, u64>> {
        let named: BTreeSet<u32> = rows.blocks.iter().map(|(_, row)| row.segment).collect();
        let mut lengths = HashMap::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(segment_number) else {
                continue;
            };
            space.number_from(number.saturating_add(1));
            let file = SegmentFile::open(&self.path, number, self.disk.clone())?;
            if named.contains(&number) {
                lengths.insert(number, file.len()?);
                space.add_segment(file);
            } else {
                self.unlink(&file);
            }
        }
        Ok(lengths)
    }

    /// The block of a row, if it can be where the row says.
    fn place(
        &self,
        space: &mut Space,
        objects: &HashMap<u64, (u64, Arc<str>)>,
        lengths: &HashMap<u32, u64>,
        (id, block): (u64, u32),
        row: BlockRow,
    ) -> Option<directory::Found> {
        let (size, location) = objects.get(&id)?;
        let layout = Layout {
            size: *size,
            block_bytes: self.block_bytes,
        };
        let len = layout.block_len(block);
        let end = slot_range(self.block_bytes, row.slot).start + len as u64;
        let fits = len > 0
            && len as u64 == u64::from(row.len)
            && row.sums.pieces.len() == piece_count(len)
            && end <= *lengths.get(&row.segment)?;
        if !fits {
            return None;
        }
        Some(directory::Found {
            id,
            location: location.clone(),
            size: *size,
            block,
            slot: space.take_found(row.segment, row.slot, len)?,
            len: row.len,
            sums: row.sums,
            generation: row.generation,
            main: row.main,
        })
    }

    /// Gives back the bytes of free slots: blocks may have been written there that the index didn't hear of any more.
    fn trim(&self, space: &mut Space) {
        for segment in space.retire_empty() {
            self.unlink(&segment.file);
            space.retired(segment);
        }
        for (file, free, high) in space.holes() {
            let end = slot_range(self.block_bytes, high).start;
            let cut = match file.len() {
                Ok(len) if len > end => file.set_len(end),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = cut {
                tracing::warn!("could not truncate {file:?} of the disk cache: {error}");
            }
            for run in free.chunk_by(|a, b| a + 1 == *b) {
                let (Some(first), Some(last)) = (run.first(), run.last()) else {
                    continue;
                };
                let start = slot_range(self.block_bytes, *first).start;
                let range = start..slot_range(self.block_bytes, *last).end;
                if file.discard(range).is_err() {
                    for number in run {
                        space.charge_free(file.number, *number);
                    }
                }
            }
        }
    }
}

impl Rows {
    fn add(&mut self, row: Row<'_>) {
        match row {
            Row::Object(id, value) => match decode_object(id, value) {
                Some((size, location)) => {
                    self.objects.insert(id, (size, location.into()));
                }
                None => self.bad_objects.push(id),
            },
            Row::Block(key, value) => match BlockRow::decode(key, value) {
                Some(row) => self.blocks.push((key, row)),
                None => self.bad_blocks.push(key),
            },
        }
    }

    /// Of two objects with one name the newer one has it.
    fn one_object_a_name(&mut self) {
        let mut newest: HashMap<Arc<str>, u64> = HashMap::new();
        for (id, (_, location)) in &self.objects {
            let known = newest.entry(location.clone()).or_insert(*id);
            *known = (*known).max(*id);
        }
        let bad = &mut self.bad_objects;
        self.objects.retain(|id, (_, location)| {
            let keeps = newest.get(location) == Some(id);
            if !keeps {
                bad.push(*id);
            }
            keeps
        });
    }
}
