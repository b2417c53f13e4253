//! Scans under `SnapshotDirty`, by which logical replication finds the row that it has to change
//! (executor/execReplication.c).
//!
//! Such a snapshot tells for each row who is inserting or deleting it, so that the caller can wait, and is
//! not of one state. A row that a flush moves during the scan is deleted at its old place, and the new one
//! may be behind the scan. With heap, only a concurrent update of the same row can be missed like
//! that; a flush comes by itself, and a change that finds no row is left out without an error. So:
//!
//! * a sequential scan asks in the end for files that it has not read ([`Files`]);
//! * an index scan follows a hot row that was moved ([`moved`]).
//!
//! A row that comes twice does no harm: the caller takes the first. One that was changed meanwhile is
//! found out when the caller locks it.

use crate::am::heap;
use crate::catalog::{data_file, file_mark, locate, mark, storage};
use pg_lake_plan::message::FileRef;
use pgrx::pg_sys;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Whether a snapshot is one.
pub fn is_dirty(snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: a snapshot of the caller.
    !snapshot.is_null()
        && unsafe { (*snapshot).snapshot_type } == pg_sys::SnapshotType::SNAPSHOT_DIRTY
}

/// The cold files that a sequential scan has come to know.
pub struct Files {
    storage: i64,
    /// Their ranges of row numbers: a compacted one covers others.
    known: HashSet<Range<u64>>,
    /// Rows that a transaction in progress is inserting, or deleting.
    inserting: Vec<(Range<u64>, pg_sys::TransactionId)>,
    deleting: HashMap<u64, pg_sys::TransactionId>,
    /// The same of whole files.
    deleting_files: Vec<(Range<u64>, pg_sys::TransactionId)>,
    /// Whether all hot rows have been returned.
    pub hot_passed: bool,
}

impl Files {
    pub fn of(storage: i64) -> Files {
        Files {
            storage,
            known: HashSet::new(),
            inserting: vec![],
            deleting: HashMap::new(),
            deleting_files: vec![],
            hot_passed: false,
        }
    }

    /// Begins anew: all files.
    pub fn restart(&mut self) -> Vec<FileRef> {
        *self = Files::of(self.storage);
        self.more()
    }

    /// Those that have come since the last call.
    pub fn more(&mut self) -> Vec<FileRef> {
        // Marks first, as of `data_file::list`.
        let mut marked = vec![];
        mark::each_dirty(self.storage, |row, deleting| {
            if deleting == pg_sys::InvalidTransactionId {
                marked.push(row);
            } else {
                self.deleting.insert(row, deleting);
            }
        });
        let mut gone = HashSet::new();
        file_mark::each_dirty(self.storage, |rows, deleting| {
            if deleting == pg_sys::InvalidTransactionId {
                gone.insert(rows);
            } else {
                self.deleting_files.push((rows, deleting));
            }
        });
        let mut files = vec![];
        for (file, inserting) in data_file::list_dirty(self.storage) {
            let rows = file.rows.start()..file.rows.end();
            if gone.contains(&rows) || !self.known.insert(rows.clone()) {
                continue;
            }
            if inserting != pg_sys::InvalidTransactionId {
                self.inserting.push((rows, inserting));
            }
            files.push(file);
        }
        data_file::add_marked(&mut files, marked);
        files.iter().map(data_file::DataFile::file_ref).collect()
    }

    /// Says in the scan's snapshot who is inserting or deleting a row, as `HeapTupleSatisfiesDirty`.
    pub fn tell(&self, row: u64, snapshot: pg_sys::Snapshot) {
        let none = pg_sys::InvalidTransactionId;
        let inserting = self.inserting.iter().find(|(rows, _)| rows.contains(&row));
        // SAFETY: a snapshot of the caller, which wants these fields to be set.
        unsafe {
            (*snapshot).xmin = inserting.map_or(none, |(_, xid)| *xid);
            (*snapshot).xmax = match self.deleting.get(&row) {
                Some(xid) => *xid,
                None => {
                    let file = self
                        .deleting_files
                        .iter()
                        .find(|(rows, _)| rows.contains(&row));
                    file.map_or(none, |(_, xid)| *xid)
                }
            };
            (*snapshot).speculativeToken = 0;
        }
    }
}

/// Where a flush has put the hot row of an index entry since the caller's transaction has its snapshot,
/// after heap has found nothing there. The index had no entry of the new place when the scan read it, or
/// has one: then the row comes again.
///
/// # Safety
/// `fetch` is heap's state of a fetch from the relation, and stands nowhere within a chain of versions.
pub unsafe fn moved(
    fetch: *mut pg_sys::IndexFetchTableData,
    relation: pg_sys::Relation,
    mut tid: pg_sys::ItemPointerData,
    snapshot: pg_sys::Snapshot,
) -> Option<u64> {
    // Under a lock on an index page a flush can't have made its entry behind the reader's back.
    // SAFETY: a global of this backend.
    if !is_dirty(snapshot) || unsafe { pg_sys::InterruptHoldoffCount } > 0 {
        return None;
    }
    let storage = storage::of_relation(relation)?.id;
    let mut row = None;
    // SAFETY: heap's callback with its own state; a slot of our own is dropped again.
    unsafe {
        let next = heap().index_fetch_tuple.unwrap_unchecked();
        let kind = &raw const pg_sys::TTSOpsBufferHeapTuple;
        let slot = pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, kind);
        let any = &raw mut pg_sys::SnapshotAnyData;
        let mut again = false;
        let none = std::ptr::null_mut();
        while row.is_none() && next(fetch, &mut tid, any, slot, &mut again, none) {
            row = deleter(slot).and_then(|(xid, at)| locate::moved_to(storage, xid, at));
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
    }
    row
}

/// Who has deleted the version in a slot, and where it is, unless that was so when the transaction took
/// its snapshot: an index scan has begun later, and finds what was made of it by itself.
///
/// # Safety
/// Heap has stored a row of a buffer.
unsafe fn deleter(slot: *mut pg_sys::TupleTableSlot) -> Option<(u32, (u32, u16))> {
    // SAFETY: by contract; globals of this backend.
    unsafe {
        let header = (*(*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple).t_data;
        let infomask = u32::from((*header).t_infomask);
        let xmax = (*header).t_choice.t_heap.t_xmax;
        let other =
            pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_LOCK_ONLY | pg_sys::HEAP_XMAX_IS_MULTI;
        if infomask & other != 0
            || pg_sys::TransactionIdPrecedes(xmax, pg_sys::TransactionXmin)
            // A flush that checks its own entries.
            || pg_sys::TransactionIdIsCurrentTransactionId(xmax)
        {
            return None;
        }
        let tid = (*slot).tts_tid;
        let at = (
            pg_sys::ItemPointerGetBlockNumberNoCheck(&tid),
            pg_sys::ItemPointerGetOffsetNumberNoCheck(&tid),
        );
        Some((u32::from(xmax), at))
    }
}

/// `RelationFindReplTupleSeq` copies the row that it has found to another slot, whose TID it locks. Postgres
/// copies the TID along with rows that are in a buffer only; a cold one has it in its header.
///
/// # Safety
/// As of `dml::lock`: `tid` may be the slot's own.
pub unsafe fn complete_tid(tid: pg_sys::ItemPointer, slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: by contract; a slot of this kind has a tuple, or none.
    unsafe {
        if (*tid).ip_posid != 0
            || !std::ptr::eq(tid, &raw const (*slot).tts_tid)
            || !std::ptr::eq((*slot).tts_ops, &raw const pg_sys::TTSOpsBufferHeapTuple)
        {
            return;
        }
        let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
        if !tuple.is_null() {
            *tid = (*tuple).t_self;
        }
    }
}
