//! Files that CLUSTER or VACUUM FULL has replaced: in no list any more, but older snapshots see them, and their rows' index
//! entries stay as long as any does.
//!
//! The indexes that CLUSTER builds have entries for both places of a row. As long as its transaction knows which
//! belong together, a row is read once, and what an index computes of it is computed once.

use crate::catalog::data_file::{self, BY_STORAGE, DataFile, TABLE};
use crate::catalog::garbage;
use crate::pg::table::{Key, Table};
use std::cell::RefCell;
use std::ops::Range;

/// For a row that was in no file.
const NOWHERE: u32 = u32::MAX;

/// Where rows were that CLUSTER writes anew, in the order in which it does.
pub struct OldPlaces {
    /// The number of each row, less `base`, or [`NOWHERE`].
    rows: Vec<u32>,
    base: u64,
}

impl OldPlaces {
    /// Room for so many rows that come from some files, in the order of their numbers; `None` if that takes more than
    /// so many bytes, or if the numbers are too far apart.
    pub fn of(files: &[DataFile], rows: u64, bytes_max: usize) -> Option<OldPlaces> {
        let base = files.first()?.rows.start();
        let span = files.last()?.rows.end().checked_sub(base)?;
        let rows = usize::try_from(rows).ok()?;
        let fits = rows <= bytes_max / size_of::<u32>() && span < u64::from(NOWHERE);
        fits.then(|| OldPlaces {
            rows: Vec::with_capacity(rows),
            base,
        })
    }

    /// Adds the next row: its number, if it was in a file.
    pub fn push(&mut self, old: Option<u64>) {
        let offset = old.and_then(|old| u32::try_from(old.checked_sub(self.base)?).ok());
        self.rows.push(offset.unwrap_or(NOWHERE));
    }

    fn number(&self, offset: u32) -> Option<u64> {
        (offset != NOWHERE).then(|| self.base + u64::from(offset))
    }
}

/// What is remembered of a CLUSTER.
struct Moved {
    storage: i64,
    /// For each new file, ascending, the numbers of its rows and which of the places is that of its first one.
    files: Vec<(Range<u64>, usize)>,
    places: OldPlaces,
}

impl Moved {
    fn old_place(&self, new: u64) -> Option<u64> {
        let after = self.files.partition_point(|(rows, _)| rows.start <= new);
        let (rows, at) = self.files.get(after.checked_sub(1)?)?;
        let within = rows.contains(&new).then(|| new - rows.start)?;
        let place = at.checked_add(usize::try_from(within).ok()?)?;
        self.places.number(*self.places.rows.get(place)?)
    }

    /// All rows by their new and old numbers.
    fn pairs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.files.iter().flat_map(move |(rows, at)| {
            let places = self.places.rows.iter().skip(*at);
            let numbers = rows.clone().zip(places);
            numbers.filter_map(move |(new, offset)| Some((new, self.places.number(*offset)?)))
        })
    }
}

thread_local! {
    /// Of the last CLUSTER of this transaction. It stays right when that is rolled back: no row number comes again.
    static MOVED: RefCell<Option<Moved>> = const { RefCell::new(None) };
}

/// Notes where the rows of a storage were before; `files` are the numbers of the new files' rows, in the order of the
/// places.
pub fn remember(storage: i64, files: Vec<Range<u64>>, places: OldPlaces) {
    let mut at = 0;
    let mut files: Vec<(Range<u64>, usize)> = files
        .into_iter()
        .map(|rows| {
            let first = at;
            at += (rows.end - rows.start) as usize;
            (rows, first)
        })
        .collect();
    files.sort_unstable_by_key(|(rows, _)| rows.start);
    MOVED.set(Some(Moved {
        storage,
        files,
        places,
    }));
}

/// The transaction has ended, or another CLUSTER begins.
pub fn forget() {
    MOVED.set(None);
}

/// Where a row of the storage was before, if that is remembered.
pub fn old_place(storage: i64, new: u64) -> Option<u64> {
    MOVED.with_borrow(|moved| {
        let moved = moved.as_ref().filter(|moved| moved.storage == storage)?;
        moved.old_place(new)
    })
}

/// Whether one of some files, in the order of their numbers, has a row that isn't deleted.
pub fn is_live(files: &[DataFile], row: u64) -> bool {
    data_file::file_of(files, row).is_some_and(|file| file.live(row).is_some())
}

/// What an index is built from besides files that are listed: those of the replaced ones, and of their rows, of which
/// [`old_place`] doesn't tell when their new place in `files` is read.
pub fn left(storage: i64, files: &[DataFile], replaced: &[DataFile]) -> Vec<DataFile> {
    MOVED.with_borrow(|moved| {
        let moved = moved.as_ref().filter(|moved| moved.storage == storage);
        // Which replaced file a row was in that is in one of `files`, and at which position.
        let told = || {
            let pairs = moved.into_iter().flat_map(Moved::pairs);
            pairs.filter_map(move |(new, old)| {
                let after = replaced.partition_point(|file| file.rows.start() <= old);
                let at = after.checked_sub(1)?;
                let position = replaced[at].live(old)?;
                is_live(files, new).then_some((at, position as u32))
            })
        };
        let mut rows_told = vec![0; replaced.len()];
        told().for_each(|(at, _)| rows_told[at] += 1);
        let mut left: Vec<Option<DataFile>> = replaced
            .iter()
            .zip(rows_told)
            .map(|(file, rows)| (rows < file.live_rows()).then(|| file.clone()))
            .collect();
        for (at, position) in told() {
            if let Some(file) = &mut left[at] {
                file.deleted.push(position);
            }
        }
        let mut left: Vec<DataFile> = left.into_iter().flatten().collect();
        for file in &mut left {
            file.deleted.sort_unstable();
            file.deleted.dedup();
        }
        left
    })
}

/// Why they are garbage.
pub const REASON: &str = "clustered";

/// Files that are in no list any more, but that an older snapshot may see: CLUSTER has written the rows anew.
/// `files` are those that are listed now. Whoever reads the rows holds a lock on the table that writers wait for, as
/// index builds do: a sweep leaves the files alone then (`sweep::waste`).
pub fn list(storage: i64, files: &[DataFile]) -> Vec<DataFile> {
    let table = Table::read(TABLE);
    let mut snapshot = crate::pg::non_vacuumable_snapshot(table.relation());
    let mut found: Vec<DataFile> = vec![];
    table.scan(
        Some(BY_STORAGE),
        &[Key::int8(1, storage)],
        &raw mut snapshot,
        |row| {
            found.push(DataFile::of(row));
            true
        },
    );
    // Other versions of a file that is listed have its rows, and so have those that were compacted.
    found.retain(|file| {
        let before = files.partition_point(|listed| listed.rows.start() < file.rows.end());
        let last = before.checked_sub(1).and_then(|at| files.get(at));
        last.is_none_or(|listed| listed.rows.end() <= file.rows.start())
    });
    if found.is_empty() {
        return found;
    }
    // A merge drops files without a row that anybody sees.
    let clustered = garbage::paths_because(storage, REASON);
    found.retain(|file| clustered.contains(&file.path));
    // Of its versions the one from before it was merged, or the one after it was compacted: it has all rows.
    found.sort_by_key(|file| {
        (
            std::cmp::Reverse(file.rows.end() - file.rows.start()),
            file.deleted.len(),
        )
    });
    let mut kept: Vec<DataFile> = vec![];
    for file in found {
        let overlaps = |other: &DataFile| {
            other.rows.start() < file.rows.end() && file.rows.start() < other.rows.end()
        };
        if !kept.iter().any(overlaps) {
            kept.push(file);
        }
    }
    kept.sort_by_key(|file| file.rows.start());
    kept
}

/// Whether one of some files of [`list`] has its rows between those of two neighbours. Compaction doesn't put these into
/// one then, whose range would have the numbers of rows that an older snapshot sees elsewhere.
pub fn any_between(replaced: &[DataFile], before: &DataFile, after: &DataFile) -> bool {
    let first = replaced.partition_point(|file| file.rows.start() < before.rows.end());
    let next = replaced.get(first);
    next.is_some_and(|file| file.rows.start() < after.rows.start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_lake_plan::rows::RowNumbers;

    fn file(start: u64, rows: u64) -> DataFile {
        DataFile {
            rows: RowNumbers::consecutive(start, rows).into(),
            path: String::new(),
            size: 0,
            checksums: [].into(),
            deleted: vec![],
            flushed: false,
            forwards: false,
            partition: vec![],
            inserted: vec![],
        }
    }

    #[test]
    fn files_between_others_are_found() {
        let (before, after) = (file(100, 10), file(300, 10));
        let any = |replaced: &[DataFile]| any_between(replaced, &before, &after);
        assert!(any(&[file(200, 10)]));
        assert!(any(&[file(0, 10), file(110, 1), file(400, 10)]));
        assert!(!any(&[file(0, 10), file(400, 10)]));
        assert!(!any(&[]));
    }

    #[test]
    fn rows_are_found_by_their_new_numbers() {
        let mut places = OldPlaces {
            rows: vec![],
            base: 100,
        };
        for old in [Some(104), None, Some(100), Some(102)] {
            places.push(old);
        }
        // The second file has lower numbers.
        remember(7, vec![500..503, 400..401], places);
        assert_eq!(old_place(7, 500), Some(104));
        assert_eq!(old_place(7, 501), None);
        assert_eq!(old_place(7, 502), Some(100));
        assert_eq!(old_place(7, 503), None);
        assert_eq!(old_place(7, 400), Some(102));
        assert_eq!(old_place(7, 399), None);
        assert_eq!(old_place(8, 500), None);
        let mut pairs = MOVED.with_borrow(|moved| {
            let moved = moved.iter().flat_map(Moved::pairs);
            moved.collect::<Vec<_>>()
        });
        pairs.sort_unstable();
        assert_eq!(pairs, [(400, 102), (500, 104), (502, 100)]);
        forget();
        assert_eq!(old_place(7, 500), None);
    }
}
