//! DELETE of whole files: one mark for a file in place of one for each of its rows.
//!
//! Before a DELETE scans its table, the files are marked of which it deletes every row and which
//! nobody else has touched; its scan leaves them out. Without a filter these are all files, with one
//! those of which the engine can tell by their statistics. All other rows, hot ones too, are deleted
//! one by one, so that whatever needs a look at the single row gets it: a row that somebody has changed
//! since the statement's snapshot, a trigger, RETURNING, and the conflicts of SERIALIZABLE (ADR 0016).

use crate::catalog::data_file::{self, DataFile};
use crate::catalog::storage::{self, Storage};
use crate::catalog::{file_mark, locate};
use crate::custom::{self, Returned};
use crate::{cold, merge, pg};
use pg_lake_plan::ir::{Expr, ExprKind, Fragment};
use pgrx::pg_sys;
use std::cell::RefCell;

/// The files of a table that a running DELETE has marked. Its snapshot doesn't show that: it sees what
/// earlier commands have done.
struct Deleted {
    relid: pg_sys::Oid,
    snapshot: pg_sys::Snapshot,
    subxact: pg_sys::SubTransactionId,
    /// The files' first rows, ascending.
    files: Vec<u64>,
}

thread_local! {
    static DELETED: RefCell<Vec<Deleted>> = const { RefCell::new(vec![]) };
}

/// Marks the files that a statement which is about to run deletes; returns how many rows that are.
///
/// # Safety
/// The executor has started the statement.
pub unsafe fn begin(desc: *mut pg_sys::QueryDesc) -> u64 {
    // SAFETY: by contract.
    unsafe {
        if (*desc).operation != pg_sys::CmdType::CMD_DELETE || (*desc).already_executed {
            return 0;
        }
        let estate = (*desc).estate;
        let mut rows = 0;
        for (scan, returned) in scans(desc) {
            let relation = (*scan).ss_currentRelation;
            if let Some(storage) = storage::of_relation(relation) {
                rows += delete_files(relation, &storage, &returned, estate);
            }
        }
        rows
    }
}

/// Counts the rows of marked files among those that the statement has deleted.
///
/// # Safety
/// The executor has run the statement.
pub unsafe fn end(desc: *mut pg_sys::QueryDesc, rows: u64) {
    // SAFETY: by contract.
    let estate = unsafe { &mut *(*desc).estate };
    estate.es_processed += rows;
    estate.es_total_processed += rows;
    DELETED.with_borrow_mut(|all| all.retain(|deleted| deleted.snapshot != estate.es_snapshot));
}

/// A subtransaction was rolled back, or (none) the transaction has ended.
pub fn forget(subxact: Option<pg_sys::SubTransactionId>) {
    DELETED.with_borrow_mut(|all| match subxact {
        Some(id) => all.retain(|deleted| deleted.subxact < id),
        None => all.clear(),
    });
}

/// Leaves out the files that the DELETE which runs this scan has marked. It has no other scan of the
/// table, and runs no other statement.
pub fn leave_out(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    files: &mut Vec<DataFile>,
) {
    // SAFETY: the relation is open.
    let relid = unsafe { (*relation).rd_id };
    DELETED.with_borrow(|all| {
        for deleted in all {
            if (deleted.relid, deleted.snapshot) == (relid, snapshot) {
                let marked = |file: &DataFile| deleted.files.binary_search(&file.rows.start());
                files.retain(|file| marked(file).is_err());
            }
        }
    });
}

/// The scans of a DELETE that removes whatever they return, and does nothing else.
unsafe fn scans(desc: *mut pg_sys::QueryDesc) -> Vec<(*mut pg_sys::ScanState, Returned)> {
    // SAFETY: a started statement; the tag says what a node is.
    unsafe {
        let (stmt, estate) = (&*(*desc).plannedstmt, &*(*desc).estate);
        let top = (*desc).planstate;
        // Whoever has read a row under SERIALIZABLE may have locked it in any of three ways: only a
        // look at each row finds them all.
        let by_row = pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32
            || stmt.hasReturning
            || stmt.hasModifyingCTE
            || !stmt.subplans.is_null()
            || !stmt.rowMarks.is_null()
            || !estate.es_epq_active.is_null()
            // A foreign key's action.
            || !estate.es_crosscheck_snapshot.is_null()
            || top.is_null()
            || (*top).type_ != pg_sys::NodeTag::T_ModifyTableState;
        if by_row {
            return vec![];
        }
        let modify = &*top.cast::<pg_sys::ModifyTableState>();
        let tables = std::slice::from_raw_parts(modify.resultRelInfo, modify.mt_nrels as usize);
        if modify.operation != pg_sys::CmdType::CMD_DELETE
            || !modify.canSetTag
            || !modify.mt_transition_capture.is_null()
            || has_triggers(&*modify.rootResultRelInfo)
            || tables.iter().any(has_triggers)
        {
            return vec![];
        }
        let is_target = |relation: pg_sys::Relation| {
            crate::am::is_iceberg_relation(relation)
                && tables
                    .iter()
                    .any(|table| (*table.ri_RelationDesc).rd_id == (*relation).rd_id)
        };
        let scan = |node: *mut pg_sys::PlanState| {
            let returned = returned(node)?;
            let scan = node.cast::<pg_sys::ScanState>();
            is_target((*scan).ss_currentRelation).then_some((scan, returned))
        };
        // A filter that stays in Postgres may call a function that looks at the tables with the statement's
        // snapshot.
        let scans: Option<Vec<_>> = children(modify.ps.lefttree).into_iter().map(scan).collect();
        scans.unwrap_or_default()
    }
}

/// Triggers of DELETE, foreign keys that refer to the table among them.
fn has_triggers(table: &pg_sys::ResultRelInfo) -> bool {
    // SAFETY: null or a description that the executor has.
    unsafe { table.ri_TrigDesc.as_ref() }.is_some_and(|triggers| {
        triggers.trig_delete_before_row
            || triggers.trig_delete_after_row
            || triggers.trig_delete_instead_row
            || triggers.trig_delete_before_statement
            || triggers.trig_delete_after_statement
            || triggers.trig_delete_old_table
    })
}

/// The node, or those that it appends: partitions, all of which are scanned.
unsafe fn children(node: *mut pg_sys::PlanState) -> Vec<*mut pg_sys::PlanState> {
    // SAFETY: null or a node of a started plan.
    unsafe {
        if node.is_null() {
            return vec![];
        }
        if (*node).type_ != pg_sys::NodeTag::T_AppendState {
            return vec![node];
        }
        let append = &*node.cast::<pg_sys::AppendState>();
        if !append.as_prune_state.is_null() {
            return vec![];
        }
        std::slice::from_raw_parts(append.appendplans, append.as_nplans as usize).to_vec()
    }
}

/// What a node returns, if it is a scan of a table of which that can be said.
unsafe fn returned(node: *mut pg_sys::PlanState) -> Option<Returned> {
    // SAFETY: a node of a started plan.
    unsafe {
        if node.is_null() || !(*(*node).plan).qual.is_null() {
            return None;
        }
        match (*node).type_ {
            pg_sys::NodeTag::T_SeqScanState => Some(Returned::All),
            pg_sys::NodeTag::T_CustomScanState => custom::returned(node.cast()),
            _ => None,
        }
    }
}

/// Whether a predicate is made of what the engine may find to hold for all rows of a file; of others
/// it need not be asked.
fn is_about_ranges(predicate: &Expr) -> bool {
    let is_column = |expr: &Expr| matches!(expr.kind, ExprKind::Column(_));
    let is_value = |expr: &Expr| matches!(expr.kind, ExprKind::Const(_) | ExprKind::Param(_));
    match &predicate.kind {
        ExprKind::And(args) => args.iter().all(is_about_ranges),
        ExprKind::Compare { left, right, .. } => {
            (is_column(left) && is_value(right)) || (is_value(left) && is_column(right))
        }
        ExprKind::InList { arg, negated, .. } => is_column(arg) && !negated,
        _ => false,
    }
}

/// Leaves those among some files of which a scan returns every row.
fn keep_returned(files: &mut Vec<DataFile>, returned: &Returned) {
    let Returned::Passing(fragment, params) = returned else {
        return;
    };
    let scan = fragment.root.as_scan();
    let predicate = scan.and_then(|scan| scan.predicate.as_ref());
    if files.is_empty() || !predicate.is_some_and(is_about_ranges) {
        files.clear();
        return;
    }
    let asked = files.iter().map(DataFile::file_ref);
    let covered = cold::covered(Fragment::clone(fragment), params.clone(), asked);
    let mut covered = covered.into_iter();
    files.retain(|_| covered.next() == Some(true));
}

/// Marks the files of a table of which a statement deletes all rows; returns how many these are.
unsafe fn delete_files(
    relation: pg_sys::Relation,
    storage: &Storage,
    returned: &Returned,
    estate: *mut pg_sys::EState,
) -> u64 {
    // SAFETY: the relation is open, the statement has been started.
    let (relid, snapshot, cid) = unsafe {
        (
            (*relation).rd_id,
            (*estate).es_snapshot,
            (*estate).es_output_cid,
        )
    };
    let mut files = data_file::list(storage.id, snapshot);
    files.retain(|file| file.live_rows() > 0);
    keep_returned(&mut files, returned);
    // Others may be waiting for a row, or for a merge: who waits row by row waits for as little as in
    // a heap table, and in its order.
    files.retain(|file| merge::lock_file(relation, file));
    if files.is_empty() {
        return 0;
    }
    // Nobody has changed or locked a row of these and is still in progress. Of a row that was changed
    // since the statement's snapshot the new version counts, or there is a serialization failure.
    let now = locate::latest(|latest| data_file::list(storage.id, latest));
    files.retain(|file| {
        let untouched = data_file::file_of(&now, file.rows.start())
            .is_some_and(|now| now.rows == file.rows && now.deleted == file.deleted);
        if !untouched {
            merge::unlock_file(relation, file);
        }
        untouched
    });
    if files.is_empty() {
        return 0;
    }
    crate::am::hold_toast(relation);
    for file in &files {
        file_mark::insert(storage.id, file.rows.start()..file.rows.end(), cid);
        pg::check_for_interrupts();
    }
    crate::am::held::forget();
    let rows: u64 = files.iter().map(DataFile::live_rows).sum();
    count_deleted(relation, rows);
    let deleted = Deleted {
        relid,
        snapshot,
        // SAFETY: in a transaction.
        subxact: unsafe { pg_sys::GetCurrentSubTransactionId() },
        files: files.iter().map(|file| file.rows.start()).collect(),
    };
    DELETED.with_borrow_mut(|all| all.push(deleted));
    rows
}

/// As so many calls of `pgstat_count_heap_delete`.
fn count_deleted(relation: pg_sys::Relation, rows: u64) {
    // SAFETY: the relation is open; the first call has made the transaction's counters.
    unsafe {
        pg_sys::pgstat_count_heap_delete(relation);
        let info = (*relation).pgstat_info;
        if !info.is_null() && !(*info).trans.is_null() {
            (*(*info).trans).tuples_deleted += rows as i64 - 1;
        }
    }
}
