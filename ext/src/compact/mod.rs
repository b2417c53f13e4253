//! Compaction: puts neighbouring small files into one, without rows that nobody can see any more.
//!
//! Every row keeps its number. So index entries, row locks and the marks of whoever is changing a row
//! right now stay right, and whoever finds a row's number in the old file finds the row in the new
//! one (ADR 0014). The batches go from the engine to a worker as they are.

mod choice;

use crate::catalog::data_file::{self, DataFile};
use crate::catalog::storage::{self, Storage};
use crate::catalog::{file_mark, locate, replaced};
use crate::cold::{self, Rows};
use crate::flush::Relation;
use crate::merge;
use crate::progress::{self, Command, Phase};
use crate::relation::{self, Info};
use crate::sink::Sink;
use crate::{error, pg};
pub use choice::Eagerness;
use choice::{Candidate, choose};
use pg_lake_crash::{CrashPoint, crash_point};
use pg_lake_plan::ir::{Fragment, Plan, Scan};
use pg_lake_plan::message::{TableInput, WrittenFile};
use pg_lake_plan::rows::RowNumbers;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ops::Range;
use std::rc::Rc;

/// New files of one call at most: the locks of what they replace are held to the end of the transaction.
pub const FILES_MAX: usize = 4;

/// What a compaction has done.
#[derive(Clone, Copy, Default)]
pub struct Done {
    /// Files that were replaced.
    pub replaced: u64,
    /// Whether there is more to do, now or when somebody's transaction has ended.
    pub left: bool,
}

/// Compacts a table, at most `limit` new files of it.
///
/// In a transaction that keeps its snapshot, a file that was registered or changed since then would be
/// replaced by one that the snapshot sees: a caller must not go on to read there.
pub fn compact(relid: pg_sys::Oid, eagerness: Eagerness, limit: usize) -> Done {
    let rel = Relation::for_maintenance(relid, pg_sys::ShareUpdateExclusiveLock as i32);
    let Some(storage) = storage::of_relation(rel.0) else {
        return Done::default();
    };
    storage::incarnation(); // an error in a copy of a database
    progress::report(Command::Compact, relid, || {
        compact_files(&rel, &storage, eagerness, limit)
    })
}

fn compact_files(rel: &Relation, storage: &Storage, eagerness: Eagerness, limit: usize) -> Done {
    data_file::settle_forwards(rel.0, storage.id);
    // SAFETY: in a transaction; what was just done is to be seen.
    unsafe { pg_sys::CommandCounterIncrement() };
    let info = relation::info(rel.0);
    let deleted = file_mark::list(storage.id, std::ptr::null_mut());
    let files = data_file::files(storage.id, std::ptr::null_mut());
    // Older snapshots see these, which are found by their ranges of rows: nobody else's may be around them.
    let seen = replaced::list(storage.id, &files);
    let target = crate::sink::target_file_size(storage);
    // Who looks for a row where it was before a flush finds it by the file of the flush. One that is
    // deleted as a whole is about to be dropped.
    let candidates: Vec<Candidate> = files
        .iter()
        .enumerate()
        .map(|(i, file)| Candidate {
            size: file.size,
            rows: file.rows.count(),
            deleted: file.deleted.len() as u64,
            pinned: file.forwards || file_mark::of_file(&deleted, file.rows.start()).is_some(),
            partition: file.partition.clone(),
            apart: i > 0 && replaced::any_between(&seen, &files[i - 1], file),
        })
        .collect();
    let groups = choose(&candidates, target, eagerness);
    let mut left = groups.len();
    // All of them are written before the first lock is taken.
    let written: Vec<_> = groups
        .into_iter()
        .filter(|group| could_replace(rel, storage, &files[group.clone()]))
        .take(limit)
        .map(|group| {
            let files = &files[group];
            (files, rewrite(rel, storage, &info, files))
        })
        .collect();
    let mut replaced = 0;
    for (files, (file, rows, options)) in written {
        if replace(rel, storage, files, &file, &rows, &options) {
            replaced += files.len() as u64;
            left -= 1;
        }
    }
    Done {
        replaced,
        left: left > 0,
    }
}

/// Whether it is worth beginning: nobody has a lock right now that will be in the way.
fn could_replace(rel: &Relation, storage: &Storage, files: &[DataFile]) -> bool {
    data_file::could_lock_registration(storage.relid)
        && files.iter().all(|file| merge::could_lock_file(rel.0, file))
}

/// Writes files again as one: that, its rows, and what it was written by.
fn rewrite(
    rel: &Relation,
    storage: &Storage,
    info: &Rc<Info>,
    files: &[DataFile],
) -> (WrittenFile, RowNumbers, Vec<u8>) {
    pg::check_for_interrupts();
    let rows = row_numbers(files);
    progress::phase(Phase::WritingRows, Some(rows.count()));
    let (written, options) = write(rel, storage, info, files);
    crash_point(CrashPoint::CompactWritten);
    if written.rows != rows.count() {
        error::raise(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            &format!(
                "{} rows of iceberg table \"{}\" were read instead of {}",
                written.rows,
                pg::relation_name(rel.0),
                rows.count()
            ),
            None,
            None,
        );
    }
    (written, rows, options)
}

/// Puts a new file in the place of others, unless somebody has changed or locked a row of them, or is
/// loading: then the sweeper takes what was written.
fn replace(
    rel: &Relation,
    storage: &Storage,
    files: &[DataFile],
    written: &WrittenFile,
    rows: &RowNumbers,
    options: &[u8],
) -> bool {
    // From here on changes of these rows wait, to the end of the transaction.
    let locked = data_file::lock_registration(storage.relid)
        && files.iter().all(|file| merge::lock_file(rel.0, file))
        && merge::lock_publication(rel);
    if !locked || !are_left(storage, rows, files.len()) {
        return false;
    }
    crash_point(CrashPoint::CompactLocked);
    progress::phase(Phase::RegisteringFiles, None);
    data_file::replace(storage.id, files, written, rows, options);
    for file in files {
        merge::discard(storage, file, "compacted");
    }
    crash_point(CrashPoint::CompactReplaced);
    true
}

/// Whether the files are still neighbours, none of which is deleted as a whole: no load may have
/// registered a file among them in the meantime, since the ranges of a table's files are disjoint.
fn are_left(storage: &Storage, rows: &RowNumbers, files: usize) -> bool {
    let (deleted, now) = locate::latest(|snapshot| {
        let deleted = file_mark::list(storage.id, snapshot);
        (deleted, data_file::files(storage.id, snapshot))
    });
    let among = |file: &&DataFile| rows.covers(file.rows.start());
    now.iter().filter(among).count() == files
        && !deleted.iter().any(|mark| rows.covers(mark.rows.start))
}

/// The numbers of the rows of some files that aren't deleted.
fn row_numbers(files: &[DataFile]) -> RowNumbers {
    let runs = files.iter().flat_map(|file| {
        live_positions(file)
            .into_iter()
            .flat_map(|positions| file.rows.runs(positions).collect::<Vec<_>>())
    });
    let (first, last) = (&files[0], &files[files.len() - 1]);
    RowNumbers::with_gaps(first.rows.start()..last.rows.end(), runs)
}

/// Runs of positions that aren't deleted.
pub fn live_positions(file: &DataFile) -> Vec<Range<u64>> {
    let mut runs = vec![];
    let mut start = 0;
    for deleted in file.deleted.iter().map(|at| u64::from(*at)) {
        runs.push(start..deleted);
        start = deleted + 1;
    }
    runs.push(start..file.rows.count());
    runs.retain(|run| !run.is_empty());
    runs
}

/// Reads the rows of files that aren't deleted, in their order. In the background: nobody waits for them.
pub fn read(relation: pg_sys::Relation, info: &Info, files: &[DataFile], background: bool) -> Rows {
    // SAFETY: the relation is open.
    let desc = unsafe { (*relation).rd_att };
    let missing = cold::MissingValues::of(relation, desc);
    let columns = info
        .codecs
        .iter()
        .map(|codec| cold::scan_column(codec, missing.get(codec)))
        .collect();
    let fragment = Fragment {
        version: pg_lake_plan::PROTOCOL_VERSION,
        root: Plan::Scan(Scan {
            table: 0,
            name: pg::relation_name(relation),
            columns,
            predicate: None,
        }),
    };
    let files = files.iter().map(DataFile::file_ref).collect();
    Rows::to_rewrite(fragment, vec![TableInput { files, feed: None }], background)
}

fn write(
    rel: &Relation,
    storage: &Storage,
    info: &Rc<Info>,
    files: &[DataFile],
) -> (WrittenFile, Vec<u8>) {
    // Of several sorted files the rows come one after another.
    let (partition, mut sort_order) = data_file::layout_of(storage.id, files[0].rows.start());
    if files.len() > 1 {
        sort_order.clear();
    }
    let mut rows = read(rel.0, info, files, true);
    let mut sink = Sink::for_batches(storage, info.clone(), &partition, sort_order);
    while let Some(batch) = rows.next_batch() {
        sink.push_batch(batch.bytes(), batch.reader().rows as u64);
        progress::rows_done(sink.rows);
    }
    rows.stop();
    let mut written = sink.finish();
    progress::files_written(&written.files);
    match (written.files.pop(), written.files.is_empty()) {
        (Some(file), true) => (file, written.options),
        _ => error::raise(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "a compaction wrote something else than one file",
            None,
            None,
        ),
    }
}
