//! The cold half of a scan: a stream of the files' rows that can be turned back.
//!
//! The engine reads forward only, and may read several places of the files at once. What it has
//! delivered is remembered batch by batch, as the rows where each begins and ends; a scan that turns
//! back fetches rows by their numbers, and goes on with the stream where it left it.

use crate::am::{dirty, dml};
use crate::cold::FullScan;
use crate::cold::point::{Holder, ReadAhead};
use pg_lake_plan::message::FileRef;
use pgrx::pg_sys;

pub struct Cold {
    pub files: Vec<FileRef>,
    /// All of them, while `files` are chosen ones.
    all: Option<Vec<FileRef>>,
    running: Option<FullScan>,
    /// The first and the last row of each batch of the stream.
    batches: Vec<(u64, u64)>,
    /// The row that the stream delivered last.
    frontier: u64,
    place: Place,
    ahead: ReadAhead,
    /// Whether the first row has been asked for.
    pub begun: bool,
    context: pg_sys::MemoryContext,
    /// Of a scan under a dirty snapshot.
    pub dirty: Option<dirty::Files>,
    pub sample: super::scan::Sample,
    pub analyze: super::analyze::State,
    pub bitmap: super::bitmap::State,
}

/// Where the scan stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Before,
    /// On a row of a batch.
    At(usize, u64),
    After,
}

impl Cold {
    pub fn new(files: Vec<FileRef>) -> Cold {
        Cold {
            files,
            all: None,
            running: None,
            batches: vec![],
            frontier: 0,
            place: Place::Before,
            ahead: ReadAhead::default(),
            begun: false,
            context: dml::row_context(),
            dirty: None,
            sample: super::scan::Sample::default(),
            analyze: super::analyze::State::default(),
            bitmap: super::bitmap::State::default(),
        }
    }

    /// Under a dirty snapshot, which may see files that come during the scan.
    pub fn dirty(storage: i64) -> Cold {
        let mut dirty = dirty::Files::of(storage);
        let mut cold = Cold::new(dirty.restart());
        cold.dirty = Some(dirty);
        cold
    }

    fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.stop();
        }
        self.batches.clear();
        self.place = Place::Before;
    }

    /// Back to the start, with all files.
    pub fn rescan(&mut self) {
        self.stop();
        if let Some(all) = self.all.take() {
            self.files = all;
        }
        self.begun = false;
        self.sample = super::scan::Sample::default();
        if let Some(dirty) = &mut self.dirty {
            self.files = dirty.restart();
        }
    }

    pub fn end(mut self) {
        self.stop();
        // SAFETY: made by `new`.
        unsafe { pg_sys::MemoryContextDelete(self.context) }
    }

    /// Replaces the files until the next rescan, for scans that look at chosen rows only.
    pub fn choose(&mut self, files: Vec<FileRef>) {
        self.stop();
        let before = std::mem::replace(&mut self.files, files);
        self.all.get_or_insert(before);
    }

    /// Restricts a TID-range scan.
    pub fn restrict(&mut self, first: u64, last: u64) {
        for file in &mut self.files {
            let start = file.rows.rank(first);
            let end = file.rows.rank(last.saturating_add(1));
            file.ranges = Some(if start < end {
                vec![(start, end)]
            } else {
                vec![]
            });
        }
        self.files
            .retain(|f| f.ranges.as_ref().is_none_or(|r| !r.is_empty()));
    }

    /// Whether all rows have been passed in the forward direction.
    pub fn is_behind(&self) -> bool {
        self.place == Place::After
    }

    /// The next row.
    pub fn next(&mut self, rel: pg_sys::Relation, slot: *mut pg_sys::TupleTableSlot) -> bool {
        match self.place {
            Place::After => false,
            Place::Before => match self.batches.first() {
                None => self.stream(rel, slot),
                Some((first, _)) => self.go(rel, 0, *first, slot),
            },
            Place::At(_, row) if row == self.frontier => self.stream(rel, slot),
            Place::At(batch, row) => {
                let next = self.visible_after(row, self.batches[batch].1);
                match (next, self.batches.get(batch + 1)) {
                    (Some(next), _) => self.go(rel, batch, next, slot),
                    (None, Some((first, _))) => self.go(rel, batch + 1, *first, slot),
                    (None, None) => self.stream(rel, slot),
                }
            }
        }
    }

    /// The row before.
    pub fn previous(&mut self, rel: pg_sys::Relation, slot: *mut pg_sys::TupleTableSlot) -> bool {
        let before = match self.place {
            Place::Before => None,
            Place::After if self.batches.is_empty() => None,
            Place::After => Some((self.batches.len() - 1, self.frontier)),
            Place::At(batch, row) => {
                let first = self.batches[batch].0;
                match self.visible_before(row, first) {
                    Some(row) => Some((batch, row)),
                    None => batch.checked_sub(1).map(|b| (b, self.batches[b].1)),
                }
            }
        };
        match before {
            Some((batch, row)) => self.go(rel, batch, row, slot),
            None => {
                self.place = Place::Before;
                false
            }
        }
    }

    fn stream(&mut self, rel: pg_sys::Relation, slot: *mut pg_sys::TupleTableSlot) -> bool {
        if self.files.is_empty() {
            self.place = Place::After;
            return false;
        }
        let files = &self.files;
        // SAFETY: the slot is the caller's.
        let desc = unsafe { (*slot).tts_tupleDescriptor };
        let running = self
            .running
            .get_or_insert_with(|| FullScan::start(rel, desc, files));
        if !running.next(rel, slot, self.context) {
            running.stop();
            self.place = Place::After;
            return false;
        }
        if let Some(span) = running.fresh_span() {
            self.batches.push(span);
        }
        // SAFETY: the slot holds a cold row.
        self.frontier = unsafe { dml::cold_row(&raw mut (*slot).tts_tid) }.unwrap_or_default();
        self.place = Place::At(self.batches.len().saturating_sub(1), self.frontier);
        count_returned(rel, 1);
        true
    }

    fn go(
        &mut self,
        rel: pg_sys::Relation,
        batch: usize,
        row: u64,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool {
        let Some(file) = file_of(&self.files, row) else {
            return false;
        };
        self.place = Place::At(batch, row);
        count_returned(rel, 1);
        self.ahead.fetch(rel, &Holder::of(file), row, row + 1, slot)
    }

    /// The next row that the scan returns, up to the last one of the same batch.
    fn visible_after(&self, row: u64, last: u64) -> Option<u64> {
        let file = file_of(&self.files, row)?;
        let mut positions = file.rows.rank(row + 1)..file.rows.rank(last + 1);
        Some(file.rows.row(positions.find(|at| sees(file, *at))?))
    }

    /// The one before, down to the first one of the batch.
    fn visible_before(&self, row: u64, first: u64) -> Option<u64> {
        let file = file_of(&self.files, row)?;
        let mut positions = (file.rows.rank(first)..file.rows.rank(row)).rev();
        let position = positions.find(|at| sees(file, *at))?;
        Some(file.rows.row(position))
    }
}

/// Whether a scan of the file returns the row at a position.
fn sees(file: &FileRef, position: u64) -> bool {
    let wanted = |ranges: &Vec<(u64, u64)>| {
        ranges
            .iter()
            .any(|(start, end)| (*start..*end).contains(&position))
    };
    file.ranges.as_ref().is_none_or(wanted)
        && file.deleted.binary_search(&(position as u32)).is_err()
}

fn file_of(files: &[FileRef], row: u64) -> Option<&FileRef> {
    let after = files.partition_point(|f| f.rows.start() <= row);
    let file = files.get(after.checked_sub(1)?)?;
    file.rows.covers(row).then_some(file)
}

/// As so many calls of `pgstat_count_heap_getnext` (pgstat.h).
pub fn count_returned(rel: pg_sys::Relation, rows: u64) {
    // SAFETY: the relation is open.
    unsafe {
        if let Some(info) = (*rel).pgstat_info.as_mut() {
            info.counts.tuples_returned += rows as i64;
        }
    }
}
