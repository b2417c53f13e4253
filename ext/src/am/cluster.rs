//! CLUSTER of a table with cold rows: they are written anew in the order of the index, with the hot rows that every
//! snapshot sees, so that a scan finds all of them in that order. VACUUM FULL writes those files anew that have deleted
//! rows, or that aren't as the table's options say; the rows' order stays, but for what the options say of it.
//!
//! Each snapshot sees a row once (I1): an older one in its old file, or at its old place in the heap, a newer one in
//! the new file. The indexes, which are built right after it, get entries for both (`Source` in
//! [`super::index_build`]). The table is locked against everybody else.

use crate::am::{dml, hot, replaced};
use crate::catalog::data_file::{self, DataFile, Origin};
use crate::catalog::replaced::{self as replaced_files, OldPlaces};
use crate::catalog::storage::{self, Storage};
use crate::catalog::{anchor, intent, layout, locate, mark, options, publication};
use crate::cold::FullScan;
use crate::pg::temp_file::TempFile;
use crate::pg::{published, xids};
use crate::sink::{self, Kind, Sink, Tid, Written};
use crate::{compact, error, indexes, merge, pg, relation};
use pg_lake_crash::{CrashPoint, crash_point};
use pgrx::{PgSqlErrorCode, pg_sys};

/// Which part of `maintenance_work_mem` may be used to remember where rows were, to the end of the transaction. Files that
/// are read beside that list as many rows at most, in as much memory.
const PLACES_PART: i32 = 8;

/// Sorts the cold rows of a table by a btree index, and settled hot rows with them. The next command sees it;
/// returns how many hot rows have become cold.
pub fn sort_cold(table: pg_sys::Relation, index: pg_sys::Relation) -> u64 {
    write_anew(table, Some(index))
}

/// Writes the cold rows anew whose files have deleted rows, or aren't as the table's options say. The next command
/// sees it.
pub fn renew_cold(table: pg_sys::Relation) {
    write_anew(table, None);
}

fn write_anew(table: pg_sys::Relation, index: Option<pg_sys::Relation>) -> u64 {
    let Some(storage) = storage::of_relation(table) else {
        return 0;
    };
    if !data_file::any(storage.id) || (index.is_none() && !has_outdated(table, &storage)) {
        return 0;
    }
    if !storage::is_own() {
        let kept = if index.is_some() { "order" } else { "files" };
        error::warn(
            &format!(
                "cold rows of table \"{}\" keep their {kept}",
                pg::relation_name(table)
            ),
            Some("Their files belong to the database that this one is a copy of."),
        );
        return 0;
    }
    // Who publishes a table holds a lock on it, too. A sweep that undoes a publication doesn't.
    publication::lock(storage.relid);
    // The active snapshot may be older than the lock on the table.
    // SAFETY: in a transaction; given back below, or with it.
    let snapshot = unsafe { pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()) };
    let mut files = data_file::list(storage.id, snapshot);
    if index.is_none() {
        retain_outdated(table, &storage, &mut files);
    }
    let moved = if files.iter().any(|file| file.live_rows() > 0) {
        rewrite(table, index, &storage, &files, snapshot)
    } else {
        0
    };
    // SAFETY: registered above; in a transaction.
    unsafe {
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::CommandCounterIncrement();
    }
    moved
}

/// Leaves those files of a table that have deleted rows or were written by other options than it has now. A merge drops
/// those without any other row.
fn retain_outdated(table: pg_sys::Relation, storage: &Storage, files: &mut Vec<DataFile>) {
    let info = relation::info(table);
    if info.codecs.is_empty() {
        return files.clear(); // no column is left that a file could have
    }
    let options = sink::options_of(storage, &info);
    let otherwise = data_file::written_otherwise(storage.id, &options);
    files.retain(|file| {
        let outdated = !file.deleted.is_empty() || otherwise.contains(&file.rows.start());
        outdated && file.live_rows() > 0
    });
}

fn has_outdated(table: pg_sys::Relation, storage: &Storage) -> bool {
    let mut files = data_file::list(storage.id, &raw mut pg::SNAPSHOT_SELF);
    retain_outdated(table, storage, &mut files);
    !files.is_empty()
}

/// Raises an error in a transaction that keeps its snapshot, if that doesn't see the files of a table, and their deleted
/// rows, as they are now. A command that gives all of them other entries in the catalog would show them to its
/// transaction, whose own these are then: rows would be seen twice, at an old place and the new one, or come and go.
pub fn refuse_unseen(table: pg_sys::Relation) {
    let Some(storage) = storage::of_relation(table).filter(|_| replaced::keeps_snapshot()) else {
        return;
    };
    // SAFETY: in a transaction, of which it is the snapshot.
    let own = unsafe { pg_sys::GetTransactionSnapshot() };
    let now = &raw mut pg::SNAPSHOT_SELF;
    let deleted = |snapshot| {
        let files = data_file::list(storage.id, snapshot).into_iter();
        files.map(|file| file.deleted).collect::<Vec<_>>()
    };
    if locate::entries(storage.id, own) != locate::entries(storage.id, now)
        || deleted(own) != deleted(now)
    {
        error::raise(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            &format!(
                "could not serialize access due to concurrent changes of table \"{}\"",
                pg::relation_name(table)
            ),
            Some("Its cold rows aren't any more where the transaction's snapshot sees them."),
            Some("The transaction might succeed if retried."),
        );
    }
}

fn rewrite(
    table: pg_sys::Relation,
    index: Option<pg_sys::Relation>,
    storage: &Storage,
    files: &[DataFile],
    snapshot: pg_sys::Snapshot,
) -> u64 {
    // Rows that some snapshot doesn't see yet aren't mixed with others.
    let settled = is_settled(table, files);
    // SAFETY: a setting of this backend.
    let memory_kb = unsafe { pg_sys::maintenance_work_mem };
    let places_kb = memory_kb / PLACES_PART;
    let places_bytes = places_kb as usize * 1024;
    replaced_files::forget();
    let mut moved = Tids::new();
    let (written, places) = if let Some(index) = index {
        // The files' own order takes a second sort, which the rows go to from the first.
        let layout = layout::of(&options::of(storage.relid), &relation::info(table));
        let sort_kb = if layout.is_plain() {
            memory_kb - places_kb
        } else {
            memory_kb / 2
        };
        let mut sort = Sort::begin(table, index, sort_kb);
        sort.add_cold(table, files);
        if settled && !indexes::over_block_ranges(table) && !published::stays_hot(table) {
            sort.add_settled(table, snapshot, &mut moved);
        }
        sort.write(table, storage, files, places_bytes)
    } else {
        write_in_order(table, storage, files, places_bytes)
    };
    crash_point(CrashPoint::ClusterWritten);
    let hot_rows = moved.len;
    moved.take(|tid| {
        if !hot::delete_nowait(table, tid, snapshot) {
            error::raise(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "a row of a table that is clustered was changed meanwhile",
                None,
                None,
            );
        }
    });
    // Of rows that every snapshot sees, those who look for them at their old place are told that they have moved.
    // SAFETY: in a transaction.
    let origin = if settled {
        Origin::Flush(unsafe { pg_sys::GetCurrentTransactionId() }, &[])
    } else {
        Origin::Load
    };
    let starts = replace(storage, files, &written, &origin);
    if let Some(places) = places {
        let rows = written
            .files
            .iter()
            .zip(starts)
            .map(|(file, start)| start..start + file.rows);
        replaced_files::remember(storage.id, rows.collect(), places);
    }
    hot::count_left(table, hot_rows);
    hot_rows as u64
}

/// Writes the rows of files to new ones, in their order but for the table's `partition_by` and `sort_by`. Returns also
/// where they were, if that is their order and it doesn't take more than so many bytes.
fn write_in_order(
    table: pg_sys::Relation,
    storage: &Storage,
    files: &[DataFile],
    places_bytes: usize,
) -> (Written, Option<OldPlaces>) {
    let info = relation::info(table);
    let mut sink = Sink::open(table, storage, info.clone(), Kind::Cluster);
    let rows: u64 = files.iter().map(DataFile::live_rows).sum();
    let mut places = None;
    if sink.takes_batches() {
        // The table is locked: whoever uses it waits.
        let mut read = compact::read(table, &info, files, false);
        while let Some(batch) = read.next_batch() {
            pg::check_for_interrupts();
            sink.push_batch(batch.bytes(), batch.reader().rows as u64);
        }
        read.stop();
        places = OldPlaces::of(files, rows, places_bytes);
        if let Some(places) = &mut places {
            for file in files {
                let positions = compact::live_positions(file).into_iter().flatten();
                positions.for_each(|position| places.push(Some(file.rows.row(position))));
            }
        }
    } else {
        each_cold(table, files, |slot| sink.push(slot));
    }
    if sink.rows != rows {
        error::raise(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            &format!(
                "{} rows of iceberg table \"{}\" were read instead of {rows}",
                sink.rows,
                pg::relation_name(table)
            ),
            None,
            None,
        );
    }
    (sink.finish(), places)
}

/// Calls `f` with a slot for each row of files, in whichever order. It holds a heap tuple.
fn each_cold(
    table: pg_sys::Relation,
    files: &[DataFile],
    mut f: impl FnMut(*mut pg_sys::TupleTableSlot),
) {
    let refs: Vec<_> = files.iter().map(DataFile::file_ref).collect();
    // SAFETY: the table is open; what is made here is dropped here, or with the current context.
    unsafe {
        let slot =
            pg_sys::MakeSingleTupleTableSlot((*table).rd_att, &raw const pg_sys::TTSOpsHeapTuple);
        let mut scan = FullScan::start(table, (*table).rd_att, &refs);
        let values = dml::row_context();
        while scan.next(table, slot, values) {
            pg::check_for_interrupts();
            f(slot);
        }
        scan.stop();
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::MemoryContextDelete(values);
    }
}

/// TIDs of hot rows, in a temporary file.
struct Tids {
    file: TempFile,
    len: usize,
}

impl Tids {
    const BYTES: usize = 6;

    fn new() -> Tids {
        Tids {
            file: TempFile::create(),
            len: 0,
        }
    }

    fn push(&mut self, (block, offset): Tid) {
        self.file.write(&block.to_ne_bytes());
        self.file.write(&offset.to_ne_bytes());
        self.len += 1;
    }

    /// Calls `f` for each, in their order.
    fn take(mut self, mut f: impl FnMut(Tid)) {
        self.file.rewind();
        let mut left = self.len;
        while left > 0 {
            pg::check_for_interrupts();
            let some = left.min(1024);
            for tid in self.file.read(some * Self::BYTES).chunks_exact(Self::BYTES) {
                f((
                    u32::from_ne_bytes([tid[0], tid[1], tid[2], tid[3]]),
                    u16::from_ne_bytes([tid[4], tid[5]]),
                ));
            }
            left -= some;
        }
        self.file.close();
    }
}

/// Whether every snapshot sees all rows of some files.
fn is_settled(table: pg_sys::Relation, files: &[DataFile]) -> bool {
    let horizon = xids::horizon(table);
    files
        .iter()
        .flat_map(|file| &file.inserted)
        .all(|(_, by)| xids::full(pg_sys::TransactionId::from_inner(*by)) < horizon)
}

/// Puts new files in the place of old ones, which older snapshots go on to see with their marks. Returns the first
/// row number of each new one.
fn replace(storage: &Storage, old: &[DataFile], new: &Written, origin: &Origin<'_>) -> Vec<u64> {
    let starts = data_file::register(storage, &new.files, &new.options, origin);
    for file in old {
        let rows = file.rows.start()..file.rows.end();
        data_file::remove(storage.id, rows.start);
        mark::remove_between(storage.id, &rows);
        anchor::remove_between(storage.id, &rows);
        merge::discard(storage, file, replaced_files::REASON);
    }
    // The old rows' entries go with the first merge that finds that no snapshot sees the rows.
    intent::announce_entries(storage.id);
    crash_point(CrashPoint::ClusterReplaced);
    starts
}

/// Rows in the order of an index, by Postgres' own sort.
struct Sort {
    state: *mut pg_sys::Tuplesortstate,
    rows: u64,
}

impl Sort {
    fn begin(table: pg_sys::Relation, index: pg_sys::Relation, memory_kb: i32) -> Sort {
        // SAFETY: table and index are open; the sort belongs to the current context.
        let state = unsafe {
            pg_sys::tuplesort_begin_cluster(
                (*table).rd_att,
                index,
                memory_kb,
                std::ptr::null_mut(),
                pg_sys::TUPLESORT_NONE as i32,
            )
        };
        Sort { state, rows: 0 }
    }

    /// Takes a copy of the row of a slot, which holds a heap tuple, with its TID.
    fn add(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: by contract; such a slot gives its own tuple.
        unsafe {
            let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, std::ptr::null_mut());
            pg_sys::tuplesort_putheaptuple(self.state, tuple);
        }
        self.rows += 1;
    }

    fn add_cold(&mut self, table: pg_sys::Relation, files: &[DataFile]) {
        each_cold(table, files, |slot| self.add(slot));
    }

    /// Takes the hot rows that every snapshot sees and that a file can hold, and notes where they are.
    fn add_settled(
        &mut self,
        table: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        taken: &mut Tids,
    ) {
        let info = relation::info(table);
        // SAFETY: the table is open.
        let horizon = unsafe { pg_sys::GetOldestNonRemovableTransactionId(table) };
        hot::scan(table, snapshot, |slot| {
            // SAFETY: heap's slots hold a buffer heap tuple while a scan is on it.
            let (tid, settled) = unsafe {
                let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
                let xmin = pg_sys::htup::HeapTupleHeaderGetXmin((*tuple).t_data);
                let tid = (*slot).tts_tid;
                (
                    (
                        pg_sys::ItemPointerGetBlockNumber(&tid),
                        pg_sys::ItemPointerGetOffsetNumber(&tid),
                    ),
                    pg_sys::TransactionIdPrecedes(xmin, horizon),
                )
            };
            if settled && relation::is_storable(&info, slot) {
                self.add(slot);
                taken.push(tid);
            }
            true
        });
    }

    /// Writes the rows to files; a table's own `partition_by` and `sort_by` come before the index. Returns also where
    /// they were in the old files, if the order is that of the index and it doesn't take more than so many bytes.
    fn write(
        self,
        table: pg_sys::Relation,
        storage: &Storage,
        old: &[DataFile],
        places_bytes: usize,
    ) -> (Written, Option<OldPlaces>) {
        let mut sink = Sink::open(table, storage, relation::info(table), Kind::Cluster);
        let mut places = if sink.takes_batches() {
            OldPlaces::of(old, self.rows, places_bytes)
        } else {
            None
        };
        // SAFETY: the sort was begun with the table's descriptor; its tuples stay until the next call, and are taken
        // out of the slot before the sort ends.
        unsafe {
            pg_sys::tuplesort_performsort(self.state);
            let slot = pg_sys::MakeSingleTupleTableSlot(
                (*table).rd_att,
                &raw const pg_sys::TTSOpsHeapTuple,
            );
            loop {
                let tuple = pg_sys::tuplesort_getheaptuple(self.state, true);
                if tuple.is_null() {
                    break;
                }
                pg::check_for_interrupts();
                pg_sys::ExecStoreHeapTuple(tuple, slot, false);
                sink.push(slot);
                if let Some(places) = &mut places {
                    places.push(dml::cold_row(&raw mut (*slot).tts_tid));
                }
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::tuplesort_end(self.state);
        }
        (sink.finish(), places)
    }
}
