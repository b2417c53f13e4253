//! What the catalog says of rows: their numbers, and which are deleted or have been locked.

use super::entries::{self, Entry};
use super::problem::{Problems, Severity};
use crate::catalog::{anchor, file_mark, mark};
use pg_lake_plan::rows::RowNumbers;
use pgrx::pg_sys;
use std::ops::Range;

/// Looks at the entries of a storage, and at what refers to their rows, as of one snapshot.
pub fn check(storage: i64, entries: &[Entry], snapshot: pg_sys::Snapshot, problems: &mut Problems) {
    for entry in entries {
        for column in &entry.damaged {
            problems.error(
                "damaged_entry",
                &entry.path,
                format!("Its {column} can't be read."),
            );
        }
        deletion_list(entry, problems);
    }
    let mut ranges: Vec<(&Entry, &RowNumbers)> = entries
        .iter()
        .filter_map(|entry| Some((entry, entry.rows.as_ref()?)))
        .collect();
    ranges.sort_by_key(|(_, rows)| rows.start());
    overlaps(&ranges, problems);
    // Rows of an entry that can't be read may be any.
    if ranges.len() == entries.len() {
        marks(storage, &ranges, snapshot, problems);
        file_marks(storage, &ranges, snapshot, problems);
        anchors(storage, snapshot, problems);
    }
}

/// Positions, ascending, of the file.
fn deletion_list(entry: &Entry, problems: &mut Problems) {
    let (positions, rest) = entry.deleted.as_chunks::<4>();
    let positions: Vec<u32> = positions.iter().map(|p| u32::from_le_bytes(*p)).collect();
    let mut wrong = |what: String| problems.error("bad_deletion_list", &entry.path, what);
    if !rest.is_empty() {
        wrong(format!(
            "Its list of deleted rows has {} bytes, which is no multiple of 4.",
            entry.deleted.len()
        ));
    }
    if !positions.is_sorted_by(|a, b| a < b) {
        wrong("The positions in its list of deleted rows don't ascend.".to_owned());
    }
    let beyond = |position: &&u32| u64::from(**position) >= entry.row_count;
    let outside = positions.iter().filter(beyond).count();
    if outside > 0 {
        wrong(format!(
            "{outside} positions in its list of deleted rows are beyond its {} rows.",
            entry.row_count
        ));
    }
}

fn overlaps(ranges: &[(&Entry, &RowNumbers)], problems: &mut Problems) {
    let mut widest: Option<&(&Entry, &RowNumbers)> = None;
    for range in ranges {
        let (entry, rows) = range;
        if let Some((other, others)) = widest
            && rows.start() < others.end()
        {
            problems.error(
                "overlapping_rows",
                &entry.path,
                format!(
                    "Its row numbers, {} to {}, overlap those of \"{}\", {} to {}.",
                    rows.start(),
                    rows.end().saturating_sub(1),
                    other.path,
                    others.start(),
                    others.end().saturating_sub(1)
                ),
            );
        }
        if widest.is_none_or(|(_, others)| others.end() < rows.end()) {
            widest = Some(range);
        }
    }
}

/// The rows of the last file that begins at or before a row, and how many files do.
fn file_before<'a>(
    ranges: &[(&Entry, &'a RowNumbers)],
    row: u64,
) -> (usize, Option<&'a RowNumbers>) {
    let after = ranges.partition_point(|(_, rows)| rows.start() <= row);
    let rows = after.checked_sub(1).and_then(|at| ranges.get(at));
    (after, rows.map(|(_, rows)| *rows))
}

fn marks(
    storage: i64,
    ranges: &[(&Entry, &RowNumbers)],
    snapshot: pg_sys::Snapshot,
    problems: &mut Problems,
) {
    let strays = mark::list(storage, snapshot).into_iter().filter_map(|row| {
        let (gap, rows) = file_before(ranges, row);
        let is_there = rows.is_some_and(|rows| rows.position(row).is_some());
        (!is_there).then_some((gap, row))
    });
    for (rows, number) in gathered(strays.collect()) {
        let detail = format!("Rows that no file has are marked as deleted: {number}.");
        problems.add(Severity::Error, "stray_mark", rows, detail);
    }
}

fn file_marks(
    storage: i64,
    ranges: &[(&Entry, &RowNumbers)],
    snapshot: pg_sys::Snapshot,
    problems: &mut Problems,
) {
    for mark in file_mark::list(storage, snapshot) {
        let (_, rows) = file_before(ranges, mark.rows.start);
        let same = |rows: &RowNumbers| (rows.start()..rows.end()) == mark.rows;
        if !rows.is_some_and(same) {
            let detail = "A file is marked as deleted whose rows no file has.";
            let object = range_of(mark.rows.start, mark.rows.end.saturating_sub(1));
            problems.add(Severity::Error, "stray_file_mark", object, detail);
        }
    }
}

/// An anchor survives an abort, also of the transaction that has registered its row's file, and is seen
/// before that is.
fn anchors(storage: i64, snapshot: pg_sys::Snapshot, problems: &mut Problems) {
    let anchors = anchor::list(storage, snapshot);
    if anchors.is_empty() {
        return;
    }
    let known = joined(entries::ranges_of_any(storage));
    let strays = anchors.into_iter().filter_map(|row| {
        let after = known.partition_point(|range| range.start <= row);
        let range = after.checked_sub(1).and_then(|at| known.get(at));
        let covered = range.is_some_and(|range| row < range.end);
        (!covered).then_some((after, row))
    });
    for (rows, number) in gathered(strays.collect()) {
        let detail = format!("Rows that are in no file have a place for locks: {number}.");
        problems.add(Severity::Notice, "stray_anchor", rows, detail);
    }
}

/// Disjoint ranges of the same rows, ascending.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = vec![];
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Rows that are in the same gap between files, as a range, with their number.
fn gathered(mut strays: Vec<(usize, u64)>) -> Vec<(String, usize)> {
    strays.sort_unstable();
    strays
        .chunk_by(|a, b| a.0 == b.0)
        .filter_map(|rows| {
            let (first, last) = (rows.first()?.1, rows.last()?.1);
            Some((range_of(first, last), rows.len()))
        })
        .collect()
}

fn range_of(first: u64, last: u64) -> String {
    if first == last {
        format!("row {first}")
    } else {
        format!("rows {first} to {last}")
    }
}
