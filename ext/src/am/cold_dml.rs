//! DELETE, UPDATE and row locks of cold rows.
//!
//! Every one of them locks the row's anchor by heap's own code, then looks whether the row is still
//! there. Whoever holds the anchor exclusively is alone with the row until it ends, so that what it
//! finds under `SnapshotSelf` is final (STORAGE section 4).

use crate::am::lockers::{self, Joined};
use crate::am::{chain, heap, held, replaced};
use crate::catalog::data_file::{FIRST_COLD_BLOCK, ROWS_PER_BLOCK};
use crate::catalog::mark::{self, Mark};
use crate::catalog::storage::{self, Storage};
use crate::catalog::{anchor, file_mark, locate};
use crate::pg::table;
use crate::{cold, error, pg};
use pgrx::pg_sys::{LockTupleMode, LockWaitPolicy, TM_Result};
use pgrx::{PgSqlErrorCode, pg_sys};

/// A cold row that a statement wants to change or lock.
pub struct ColdRow {
    pub relation: pg_sys::Relation,
    pub storage: Storage,
    pub row: u64,
    tid: pg_sys::ItemPointerData,
}

/// What became of a row before it could be locked.
pub struct Gone {
    pub result: TM_Result::Type,
    pub mark: Option<Mark>,
}

impl ColdRow {
    pub fn of(relation: pg_sys::Relation, row: u64) -> ColdRow {
        match storage::of_relation(relation) {
            Some(storage) => ColdRow {
                relation,
                storage,
                row,
                tid: super::dml::tid_of_row(row),
            },
            None => error::raise(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "a temporary or unlogged table has no cold rows",
                None,
                None,
            ),
        }
    }

    /// Keeps whatever rewrites files away from this row's file to the end of the transaction; false
    /// if that can't be had without waiting, and `policy` says not to.
    fn hold_file(&self, policy: LockWaitPolicy::Type) -> bool {
        let mut locked = None;
        while !held::has(self.storage.id, self.row) {
            let Some(file) = locate::holding(self.storage.id, self.row) else {
                return true;
            };
            let rows = file.rows.start()..file.rows.end();
            if locked.as_ref() == Some(&rows) {
                // It is still the one that was locked. Nobody else can delete it as a whole from now on.
                keep_catalogs_locked();
                let now = &raw mut pg::SNAPSHOT_SELF;
                if file_mark::find(self.storage.id, self.row, now).is_none() {
                    held::add(self.storage.id, rows);
                }
                return true;
            }
            let block = FIRST_COLD_BLOCK + (rows.start / ROWS_PER_BLOCK) as u32;
            let mode = pg_sys::ShareLock as i32;
            // SAFETY: a heavyweight lock of a tag that heaps don't use.
            let had = unsafe {
                if policy == LockWaitPolicy::LockWaitBlock {
                    pg_sys::LockPage(self.relation, block, mode);
                    true
                } else {
                    pg_sys::ConditionalLockPage(self.relation, block, mode)
                }
            };
            if !had {
                return false;
            }
            locked = Some(rows);
        }
        true
    }

    /// Locks the row and returns its anchor; `Err` if the row isn't there any more, or can't be
    /// locked without waiting.
    fn lock(
        &self,
        mode: LockTupleMode::Type,
        policy: LockWaitPolicy::Type,
        cid: pg_sys::CommandId,
    ) -> Result<pg_sys::ItemPointerData, Gone> {
        let refused = |result| Gone { result, mark: None };
        if !self.hold_file(policy) {
            return Err(refused(TM_Result::TM_WouldBlock));
        }
        let gone = |mark: Mark| Gone {
            result: self.fate(&mark, cid),
            mark: Some(mark),
        };
        // The rows of a file that is deleted as a whole need no anchors any more.
        if !held::has(self.storage.id, self.row)
            && let Some(mark) = mark::find_if_file_deleted(self.storage.id, self.row)
        {
            return Err(gone(mark));
        }
        // Those who see it where it was before a CLUSTER or VACUUM FULL can't be told where it is.
        if !held::has(self.storage.id, self.row)
            && locate::holding(self.storage.id, self.row).is_none()
        {
            refuse_replaced();
        }
        let anchor = anchor::lock(self.relation, self.storage.id, self.row, mode, policy)
            .map_err(refused)?;
        if anchor.is_new {
            return Ok(anchor.tid);
        }
        match mark::find_of_row(self.storage.id, self.row, &raw mut pg::SNAPSHOT_SELF) {
            None => Ok(anchor.tid),
            Some(mark) => Err(gone(mark)),
        }
    }

    /// Locks the row for a change and returns its anchor; `Err`, with the failure's details, if it
    /// can't be changed.
    fn take(
        &self,
        mode: LockTupleMode::Type,
        cid: pg_sys::CommandId,
        crosscheck: pg_sys::Snapshot,
        wait: bool,
        failure: &mut pg_sys::TM_FailureData,
    ) -> Result<pg_sys::ItemPointerData, TM_Result::Type> {
        let anchor = self.lock(mode, policy(wait), cid).map_err(|gone| {
            self.describe(&gone, failure);
            busy(gone.result)
        })?;
        if !self.crosschecked(crosscheck) {
            self.describe(&untouched(), failure);
            return Err(TM_Result::TM_Updated);
        }
        if self.moved_since_snapshot() && self.origin().is_none() {
            // The row would stay visible to this transaction at its old place, which isn't known.
            self.describe(&untouched(), failure);
            return Err(TM_Result::TM_Updated);
        }
        self.check_serializable();
        hold_toast(self.relation);
        Ok(anchor)
    }

    /// Whether this transaction, which keeps its snapshot, sees the row where it was before a flush.
    fn moved_since_snapshot(&self) -> bool {
        // SAFETY: a global; with such an isolation level the snapshot is always the same.
        unsafe {
            replaced::keeps_snapshot()
                && locate::holding(self.storage.id, self.row).is_some_and(|at| at.flushed)
                && !locate::is_visible(self.storage.id, self.row, pg_sys::GetTransactionSnapshot())
        }
    }

    fn origin(&self) -> Option<(u32, u16)> {
        locate::origin(self.storage.id, self.row)
    }

    /// After the row was changed by a command: this transaction must not see it at its old place.
    fn hide_origin(&self, cid: pg_sys::CommandId) {
        if self.moved_since_snapshot()
            && let Some(origin) = self.origin()
        {
            // SAFETY: the relation is open.
            replaced::add(unsafe { (*self.relation).rd_id }, origin, cid);
        }
    }

    /// Before the row is changed: whoever has read it may have found it where it was before a flush.
    fn check_serializable(&self) {
        pg::missing::check_serializable(self.relation, self.tid);
        // SAFETY: a global of this backend.
        if unsafe { pg_sys::XactIsoLevel } != pg_sys::XACT_SERIALIZABLE as i32 {
            return;
        }
        if let Some((block, offset)) = self.origin() {
            let mut tid = pg_sys::ItemPointerData::default();
            // SAFETY: writes the fields.
            unsafe { pg_sys::ItemPointerSet(&mut tid, block, offset) };
            pg::missing::check_serializable(self.relation, tid);
        }
    }

    /// What heap would say of a row with such a deletion (`HeapTupleSatisfiesUpdate`).
    fn fate(&self, mark: &Mark, cid: pg_sys::CommandId) -> TM_Result::Type {
        // SAFETY: in a transaction.
        if unsafe { pg_sys::TransactionIdIsCurrentTransactionId(mark.xmin) } {
            if mark::cmin(self.storage.id, self.row, mark) >= cid {
                TM_Result::TM_SelfModified
            } else {
                TM_Result::TM_Invisible
            }
        } else if mark.successor.is_some() {
            TM_Result::TM_Updated
        } else {
            TM_Result::TM_Deleted
        }
    }

    fn describe(&self, gone: &Gone, failure: &mut pg_sys::TM_FailureData) {
        failure.ctid = self.tid;
        failure.traversed = false;
        failure.xmax = pg_sys::InvalidTransactionId;
        failure.cmax = pg_sys::InvalidCommandId;
        if let Some(mark) = &gone.mark {
            failure.xmax = mark.xmin;
            if let Some(successor) = mark.successor {
                failure.ctid = successor;
            }
            if gone.result == TM_Result::TM_SelfModified {
                failure.cmax = mark::cmin(self.storage.id, self.row, mark);
            }
        }
    }

    /// Whether a snapshot that a foreign key's action brings along sees the row's file. One that a
    /// flush made holds rows that were there before.
    fn crosschecked(&self, crosscheck: pg_sys::Snapshot) -> bool {
        if crosscheck.is_null() {
            return true;
        }
        locate::holding(self.storage.id, self.row).is_some_and(|at| at.flushed)
            || locate::is_visible(self.storage.id, self.row, crosscheck)
    }

    /// Puts the row into a slot; false if its file can't be found.
    pub fn fetch(&self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        cold::fetch(self.relation, &self.storage, self.row, slot)
    }
}

/// Who deletes toasted values of a heap holds the TOAST table to the end of the transaction, and whoever rebuilds its
/// indexes concurrently waits for that. A cold row's values are in its file: all of them count as toasted.
pub fn hold_toast(relation: pg_sys::Relation) {
    // SAFETY: the relation is open; a heavyweight lock, released at the end of the (sub)transaction.
    unsafe {
        let toast = (*(*relation).rd_rel).reltoastrelid;
        if held::is_new_toast(toast) {
            pg_sys::LockRelationOid(toast, pg_sys::RowExclusiveLock as i32);
        }
    }
}

/// To the end of the transaction: for each row these are opened several times.
fn keep_catalogs_locked() {
    for name in [c"row_mark", c"anchor"] {
        table::keep(name, pg_sys::RowExclusiveLock as i32);
    }
    for name in [c"row_mark_row_idx", c"file_mark", c"anchor_row_idx"] {
        table::keep(name, pg_sys::AccessShareLock as i32);
    }
}

fn policy(wait: bool) -> LockWaitPolicy::Type {
    if wait {
        LockWaitPolicy::LockWaitBlock
    } else {
        LockWaitPolicy::LockWaitSkip
    }
}

/// A row that an earlier command of this transaction has deleted can't be in its snapshot.
fn refuse_invisible(result: TM_Result::Type, what: &str) {
    if result == TM_Result::TM_Invisible {
        error::raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            &format!("attempted to {what} invisible tuple"),
            None,
            None,
        );
    }
}

/// A row of a file that is in no list any more, which an older snapshot sees.
fn refuse_replaced() -> ! {
    error::raise(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        "could not serialize access due to concurrent CLUSTER or VACUUM FULL",
        None,
        Some("The transaction might succeed if retried."),
    )
}

/// `heap_delete` of a cold row.
#[allow(clippy::too_many_arguments)] // the callback's
pub fn delete(
    row: &ColdRow,
    cid: pg_sys::CommandId,
    crosscheck: pg_sys::Snapshot,
    wait: bool,
    failure: &mut pg_sys::TM_FailureData,
    changing_part: bool,
) -> TM_Result::Type {
    let mode = LockTupleMode::LockTupleExclusive;
    if let Err(result) = row.take(mode, cid, crosscheck, wait, failure) {
        refuse_invisible(result, "delete");
        return result;
    }
    let moved = moved_partitions();
    mark::insert(
        row.storage.id,
        row.row,
        changing_part.then_some(&moved),
        true,
        cid,
    );
    row.hide_origin(cid);
    // SAFETY: the relation is open.
    unsafe { pg_sys::pgstat_count_heap_delete(row.relation) };
    TM_Result::TM_Ok
}

fn untouched() -> Gone {
    Gone {
        result: TM_Result::TM_Updated,
        mark: None,
    }
}

/// What a caller that doesn't wait hears of a locked row.
fn busy(result: TM_Result::Type) -> TM_Result::Type {
    if result == TM_Result::TM_WouldBlock {
        TM_Result::TM_BeingModified
    } else {
        result
    }
}

/// `ItemPointerSetMovedPartitions` (storage/itemptr.h).
fn moved_partitions() -> pg_sys::ItemPointerData {
    let mut tid = pg_sys::ItemPointerData::default();
    // SAFETY: writes the fields.
    unsafe {
        pg_sys::ItemPointerSet(
            &mut tid,
            pg_sys::InvalidBlockNumber,
            MOVED_PARTITIONS_OFFSET,
        )
    };
    tid
}

/// `MovedPartitionsOffsetNumber` (storage/itemptr.h).
const MOVED_PARTITIONS_OFFSET: pg_sys::OffsetNumber = 0xfffd;

/// `ItemPointerIndicatesMovedPartitions` (storage/itemptr.h).
pub fn is_moved_partitions(tid: &pg_sys::ItemPointerData) -> bool {
    tid.ip_posid == MOVED_PARTITIONS_OFFSET
}

/// `heap_update` of a cold row: the new version is hot.
#[allow(clippy::too_many_arguments)] // the callback's
pub fn update(
    row: &ColdRow,
    slot: *mut pg_sys::TupleTableSlot,
    cid: pg_sys::CommandId,
    crosscheck: pg_sys::Snapshot,
    wait: bool,
    failure: &mut pg_sys::TM_FailureData,
    mode: &mut LockTupleMode::Type,
) -> TM_Result::Type {
    *mode = if super::keys::change(row, slot) {
        LockTupleMode::LockTupleExclusive
    } else {
        LockTupleMode::LockTupleNoKeyExclusive
    };
    let anchor = match row.take(*mode, cid, crosscheck, wait, failure) {
        Ok(anchor) => anchor,
        Err(result) => {
            refuse_invisible(result, "update");
            return result;
        }
    };
    // SAFETY: heap's own insertion of a row of this table.
    unsafe {
        (heap().tuple_insert.unwrap_unchecked())(row.relation, slot, cid, 0, std::ptr::null_mut());
        let successor = (*slot).tts_tid;
        let key_changed = *mode == LockTupleMode::LockTupleExclusive;
        mark::insert(row.storage.id, row.row, Some(&successor), key_changed, cid);
        row.hide_origin(cid);
        let locked_before = lockers::is_remembered(row.storage.id, row.row);
        lockers::inherit(row.relation, anchor, successor, locked_before);
        if locked_before {
            lockers::show_own(slot);
        }
        count_update(row.relation);
    }
    TM_Result::TM_Ok
}

/// An update is not an insertion in the statistics.
unsafe fn count_update(relation: pg_sys::Relation) {
    // SAFETY: the insertion has just been counted in the same place.
    unsafe {
        let info = (*relation).pgstat_info;
        if !info.is_null() && !(*info).trans.is_null() {
            (*(*info).trans).tuples_inserted -= 1;
        }
        pg_sys::pgstat_count_heap_update(relation, false, true);
    }
}

/// Puts this transaction's FOR KEY SHARE on the new version that an update in progress has made, if
/// there is one. `Ok(false)`: that version is gone, and the row's deletion has become final.
fn join_update(row: &ColdRow, policy: LockWaitPolicy::Type) -> Result<bool, Gone> {
    loop {
        match lockers::join_update(row.relation, row.storage.id, row.row) {
            Joined::Done => return Ok(true),
            Joined::Gone => return Ok(false),
            Joined::Wait(xid) if policy == LockWaitPolicy::LockWaitBlock => {
                let mut tid = row.tid;
                let why = pg_sys::XLTW_Oper::XLTW_Lock;
                // SAFETY: waits for a transaction in progress, as heap does.
                unsafe { pg_sys::XactLockTableWait(xid, row.relation, &mut tid, why) };
            }
            Joined::Wait(_) => {
                return Err(Gone {
                    result: TM_Result::TM_WouldBlock,
                    mark: None,
                });
            }
        }
    }
}

/// Locks the later versions of an updated row against deletion and change of its key, as heap does for
/// FOR KEY SHARE of an old version; false if that has happened.
///
/// # Safety
/// As of `dml::lock`.
unsafe fn share_key(
    row: &ColdRow,
    mut tid: pg_sys::ItemPointerData,
    snapshot: pg_sys::Snapshot,
    cid: pg_sys::CommandId,
    policy: LockWaitPolicy::Type,
) -> bool {
    // SAFETY: by contract; a slot of our own is dropped again.
    unsafe {
        let kind = &raw const pg_sys::TTSOpsBufferHeapTuple;
        let slot = pg_sys::MakeSingleTupleTableSlot((*row.relation).rd_att, kind);
        let shared = loop {
            if is_moved_partitions(&tid) {
                break false;
            }
            let mut failure = pg_sys::TM_FailureData::default();
            let result = super::dml::lock(
                row.relation,
                &mut tid,
                snapshot,
                slot,
                cid,
                LockTupleMode::LockTupleKeyShare,
                policy,
                pg_sys::TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS as u8,
                &mut failure,
            );
            let moved = super::dml::cold_row(&mut failure.ctid).is_some();
            if result != TM_Result::TM_Updated || !moved || same_tid(&tid, &failure.ctid) {
                break result == TM_Result::TM_Ok;
            }
            tid = failure.ctid; // a flush has moved this version
        };
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        shared
    }
}

fn same_tid(a: &pg_sys::ItemPointerData, b: &pg_sys::ItemPointerData) -> bool {
    (a.ip_blkid.bi_hi, a.ip_blkid.bi_lo, a.ip_posid)
        == (b.ip_blkid.bi_hi, b.ip_blkid.bi_lo, b.ip_posid)
}

/// `heapam_tuple_lock` of a cold row. `tid` follows the row to where it was locked.
#[allow(clippy::too_many_arguments)] // the callback's
pub unsafe fn lock(
    row: &ColdRow,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
    cid: pg_sys::CommandId,
    mode: LockTupleMode::Type,
    wait_policy: LockWaitPolicy::Type,
    flags: u8,
    failure: &mut pg_sys::TM_FailureData,
) -> TM_Result::Type {
    failure.traversed = false;
    let quiet = if wait_policy == LockWaitPolicy::LockWaitError {
        LockWaitPolicy::LockWaitSkip
    } else {
        wait_policy
    };
    let gone = loop {
        if let Err(gone) = row.lock(mode, quiet, cid) {
            let same_key = gone.mark.filter(|mark| {
                mode == LockTupleMode::LockTupleKeyShare
                    && gone.result == TM_Result::TM_Updated
                    && !mark.key_changed
            });
            let successor = same_key.and_then(|mark| mark.successor);
            // SAFETY: a version of the row, and the arguments of the callback.
            let shared = successor.is_some_and(|successor| unsafe {
                share_key(row, successor, snapshot, cid, wait_policy)
            });
            if shared && row.fetch(slot) {
                return TM_Result::TM_Ok;
            }
            break gone;
        }
        // An update that lets this lock pass may be under way.
        if mode == LockTupleMode::LockTupleKeyShare {
            match join_update(row, quiet) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(gone) => break gone,
            }
        }
        lockers::remember(row.storage.id, row.row);
        return if row.fetch(slot) {
            TM_Result::TM_Ok
        } else {
            TM_Result::TM_Invisible
        };
    };
    if gone.result == TM_Result::TM_WouldBlock && wait_policy == LockWaitPolicy::LockWaitError {
        error::raise(
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            &format!(
                "could not obtain lock on row in relation \"{}\"",
                pg::relation_name(row.relation)
            ),
            None,
            None,
        );
    }
    row.describe(&gone, failure);
    let last_version = u32::from(flags) & pg_sys::TUPLE_LOCK_FLAG_FIND_LAST_VERSION != 0;
    let successor = gone.mark.and_then(|m| m.successor);
    match successor {
        Some(mut successor) if gone.result == TM_Result::TM_Updated && last_version => {
            if is_moved_partitions(&successor) {
                error::raise(
                    PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                    "tuple to be locked was already moved to another partition due to concurrent update",
                    None,
                    None,
                );
            }
            // SAFETY: the arguments of the callback; the successor is a hot row of this table.
            unsafe {
                let result = super::dml::lock(
                    row.relation,
                    &mut successor,
                    snapshot,
                    slot,
                    cid,
                    mode,
                    wait_policy,
                    flags,
                    failure,
                );
                // As heap, which looks at the newest version: a command that a trigger or function of this
                // one ran may have made it.
                if result == TM_Result::TM_SelfModified
                    && let Some(made) = chain::newest_own(row.relation, successor)
                    && made >= cid
                {
                    failure.cmax = made;
                }
                *tid = successor;
                failure.traversed = true;
                result
            }
        }
        _ => gone.result,
    }
}
