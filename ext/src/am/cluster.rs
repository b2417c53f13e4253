//! CLUSTER of a table with cold rows: they are written anew in the order of the index, with the hot rows that every
//! snapshot sees, so that a scan finds all of them in that order.
//!
//! Each snapshot sees a row once (I1): an older one in its old file, or at its old place in the heap, a newer one in
//! the new file. The indexes, which are built right after it, get entries for both (`Source` in
//! [`super::index_build`]). The table is locked against everybody else.

use crate::am::{dml, hot, replaced};
use crate::catalog::data_file::{self, DataFile, Origin};
use crate::catalog::replaced::{self as replaced_files, Moved};
use crate::catalog::storage::{self, Storage};
use crate::catalog::{anchor, intent, mark, publication};
use crate::cold::FullScan;
use crate::pg::{published, xids};
use crate::sink::{Kind, Sink, Tid};
use crate::{error, indexes, merge, pg, relation};
use pg_lake_crash::{CrashPoint, crash_point};
use pg_lake_plan::message::WrittenFile;
use pgrx::{PgSqlErrorCode, pg_sys};

/// Hot rows that become cold, which bounds the memory for their TIDs. Others are sorted behind them.
const HOT_ROWS_MAX: usize = 4_000_000;

/// Sorts the cold rows of a table by a btree index, and settled hot rows with them. The next command sees it;
/// returns how many hot rows have become cold.
pub fn sort_cold(table: pg_sys::Relation, index: pg_sys::Relation) -> u64 {
    let Some(storage) = storage::of_relation(table) else {
        return 0;
    };
    if !data_file::any(storage.id) {
        return 0;
    }
    if let Some(obstacle) = obstacle() {
        error::warn(
            &format!(
                "cold rows of table \"{}\" keep their order",
                pg::relation_name(table)
            ),
            Some(obstacle),
        );
        return 0;
    }
    // Who publishes a table holds a lock on it, too. A sweep that undoes a publication doesn't.
    publication::lock(storage.relid);
    // The active snapshot may be older than the lock on the table.
    // SAFETY: in a transaction; given back below, or with it.
    let snapshot = unsafe { pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()) };
    let files = data_file::list(storage.id, snapshot);
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

/// Why cold rows can't be written anew, if they can't.
fn obstacle() -> Option<&'static str> {
    if !storage::is_own() {
        Some("Their files belong to the database that this one is a copy of.")
    } else if replaced::any() {
        Some("The transaction has changed rows that were flushed since its snapshot.")
    } else {
        None
    }
}

fn rewrite(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    storage: &Storage,
    files: &[DataFile],
    snapshot: pg_sys::Snapshot,
) -> u64 {
    // Rows that some snapshot doesn't see yet aren't mixed with others.
    let settled = is_settled(table, files);
    let mut sort = Sort::begin(table, index);
    sort.add_cold(table, files);
    let moved = if settled && !indexes::over_block_ranges(table) && !published::stays_hot(table) {
        sort.add_settled(table, snapshot)
    } else {
        vec![]
    };
    let (written, origins) = sort.write(table, storage);
    crash_point(CrashPoint::ClusterWritten);
    for (i, tid) in moved.iter().enumerate() {
        if i % 1024 == 0 {
            pg::check_for_interrupts();
        }
        if !hot::delete_nowait(table, *tid, snapshot) {
            error::raise(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "a row of a table that is clustered was changed meanwhile",
                None,
                None,
            );
        }
    }
    // Of rows that every snapshot sees, those who look for them at their old place are told that they have moved.
    // SAFETY: in a transaction.
    let origin = if settled {
        Origin::Flush(unsafe { pg_sys::GetCurrentTransactionId() }, &[])
    } else {
        Origin::Load
    };
    let starts = replace(storage, files, &written, &origin);
    let rows = written
        .iter()
        .zip(starts)
        .flat_map(|(file, start)| start..start + file.rows);
    let known = rows
        .zip(origins)
        .filter_map(|(new, old)| old.map(|old| Moved { old, new }));
    replaced_files::remember(storage.id, known.collect());
    hot::count_left(table, moved.len());
    moved.len() as u64
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
fn replace(
    storage: &Storage,
    old: &[DataFile],
    new: &[WrittenFile],
    origin: &Origin<'_>,
) -> Vec<u64> {
    let starts = data_file::register(storage, new, origin);
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
}

impl Sort {
    fn begin(table: pg_sys::Relation, index: pg_sys::Relation) -> Sort {
        // SAFETY: table and index are open; the sort belongs to the current context.
        let state = unsafe {
            pg_sys::tuplesort_begin_cluster(
                (*table).rd_att,
                index,
                pg_sys::maintenance_work_mem,
                std::ptr::null_mut(),
                pg_sys::TUPLESORT_NONE as i32,
            )
        };
        Sort { state }
    }

    /// Takes a copy of the row of a slot, which holds a heap tuple, with its TID.
    fn add(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: by contract; such a slot gives its own tuple.
        unsafe {
            let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, std::ptr::null_mut());
            pg_sys::tuplesort_putheaptuple(self.state, tuple);
        }
    }

    fn add_cold(&mut self, table: pg_sys::Relation, files: &[DataFile]) {
        let refs: Vec<_> = files.iter().map(DataFile::file_ref).collect();
        // SAFETY: the table is open; what is made here is dropped here, or with the current context.
        unsafe {
            let slot = pg_sys::MakeSingleTupleTableSlot(
                (*table).rd_att,
                &raw const pg_sys::TTSOpsHeapTuple,
            );
            let mut scan = FullScan::start(table, (*table).rd_att, &refs);
            let values = dml::row_context();
            while scan.next(table, slot, values) {
                pg::check_for_interrupts();
                self.add(slot);
            }
            scan.stop();
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::MemoryContextDelete(values);
        }
    }

    /// Takes the hot rows that every snapshot sees and that a file can hold; returns where they are.
    fn add_settled(&mut self, table: pg_sys::Relation, snapshot: pg_sys::Snapshot) -> Vec<Tid> {
        let info = relation::info(table);
        // SAFETY: the table is open.
        let horizon = unsafe { pg_sys::GetOldestNonRemovableTransactionId(table) };
        let mut taken = vec![];
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
            taken.len() < HOT_ROWS_MAX
        });
        taken
    }

    /// Writes the rows to files; a table's own `partition_by` and `sort_by` come before the index. Returns the
    /// numbers of those that were cold as well, in the order of the files, if it is that of the index and they
    /// aren't too many.
    fn write(
        self,
        table: pg_sys::Relation,
        storage: &Storage,
    ) -> (Vec<WrittenFile>, Vec<Option<u64>>) {
        let mut sink = Sink::open(table, storage, relation::info(table), Kind::Cluster);
        let mut known = sink.takes_batches();
        let mut origins = vec![];
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
                known &= origins.len() < replaced_files::REMEMBERED_MAX;
                if known {
                    origins.push(dml::cold_row(&raw mut (*slot).tts_tid));
                } else {
                    origins = vec![];
                }
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::tuplesort_end(self.state);
        }
        (sink.finish().files, origins)
    }
}
