//! Functions of the server that pgrx's bindings leave out.

use pgrx::pg_sys;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;

#[allow(non_snake_case)]
unsafe extern "C-unwind" {
    // src/include/commands/sequence.h
    #[link_name = "nextval_internal"]
    fn raw_nextval(relid: pg_sys::Oid, check_permissions: bool) -> i64;
    // src/include/executor/executor.h, tcop/utility.h, optimizer/planner.h. pgrx's bindings of these
    // rebuild every error that passes from its message, detail and hint, and lose its context and
    // the names of constraint, table and column. Our hooks own nothing that an error would have to
    // drop, so that errors may pass as they are.
    pub fn standard_ExecutorStart(desc: *mut pg_sys::QueryDesc, eflags: i32);
    pub fn standard_ExecutorRun(
        desc: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        execute_once: bool,
    );
    pub fn standard_ExecutorFinish(desc: *mut pg_sys::QueryDesc);
    pub fn standard_ExecutorEnd(desc: *mut pg_sys::QueryDesc);
    pub fn ExecScan(
        node: *mut pg_sys::ScanState,
        access: pg_sys::ExecScanAccessMtd,
        recheck: pg_sys::ExecScanRecheckMtd,
    ) -> *mut pg_sys::TupleTableSlot;
    pub fn standard_ProcessUtility(
        pstmt: *mut pg_sys::PlannedStmt,
        query_string: *const std::ffi::c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        query_env: *mut pg_sys::QueryEnvironment,
        dest: *mut pg_sys::DestReceiver,
        qc: *mut pg_sys::QueryCompletion,
    );
    pub fn standard_planner(
        parse: *mut pg_sys::Query,
        query_string: *const std::ffi::c_char,
        cursor_options: i32,
        bound_params: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
    // src/include/tcop/tcopprot.h: a signal handler.
    pub fn die(signal: std::ffi::c_int);
    // src/include/catalog/pg_inherits.h
    #[link_name = "find_all_inheritors"]
    fn raw_find_all_inheritors(
        parent: pg_sys::Oid,
        lockmode: pg_sys::LOCKMODE,
        numparents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
    #[link_name = "has_subclass"]
    fn raw_has_subclass(relation: pg_sys::Oid) -> bool;
    // src/include/catalog/partition.h
    #[link_name = "get_partition_ancestors"]
    fn raw_get_partition_ancestors(relid: pg_sys::Oid) -> *mut pg_sys::List;
    // src/include/storage/predicate.h
    #[link_name = "CheckForSerializableConflictIn"]
    fn raw_check_serializable(
        relation: pg_sys::Relation,
        tid: pg_sys::ItemPointer,
        block: pg_sys::BlockNumber,
    );
    #[link_name = "TransferPredicateLocksToHeapRelation"]
    fn raw_transfer_predicate_locks(relation: pg_sys::Relation);
    // src/include/access/heapam.h
    #[link_name = "HeapCheckForSerializableConflictOut"]
    fn raw_conflict_out(
        visible: bool,
        relation: pg_sys::Relation,
        tuple: pg_sys::HeapTuple,
        buffer: pg_sys::Buffer,
        snapshot: pg_sys::Snapshot,
    );
    // src/include/storage/predicate.h
    #[link_name = "PredicateLockTID"]
    fn raw_predicate_lock_tid(
        relation: pg_sys::Relation,
        tid: pg_sys::ItemPointer,
        snapshot: pg_sys::Snapshot,
        tuple_xid: pg_sys::TransactionId,
    );
    #[link_name = "PredicateLockRelation"]
    fn raw_predicate_lock_relation(relation: pg_sys::Relation, snapshot: pg_sys::Snapshot);
    // src/include/utils/datum.h
    #[link_name = "datum_image_eq"]
    fn raw_datum_image_eq(
        a: pg_sys::Datum,
        b: pg_sys::Datum,
        by_value: bool,
        length: std::ffi::c_int,
    ) -> bool;
    // src/include/postmaster/bgwriter.h
    #[link_name = "RequestCheckpoint"]
    fn raw_request_checkpoint(flags: std::ffi::c_int);
    // src/include/executor/nodeSubplan.h
    #[link_name = "ExecSetParamPlan"]
    fn raw_set_param_plan(node: *mut pg_sys::SubPlanState, econtext: *mut pg_sys::ExprContext);
}

/// The next value of a sequence, without a permission check.
pub fn nextval(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: raises an error if the relation isn't a sequence.
    unsafe { pg_guard_ffi_boundary(|| raw_nextval(sequence, false)) }
}

/// Waits for a checkpoint that begins now.
pub fn checkpoint() {
    let flags = pg_sys::CHECKPOINT_IMMEDIATE | pg_sys::CHECKPOINT_FORCE | pg_sys::CHECKPOINT_WAIT;
    // SAFETY: in a backend outside of critical sections.
    unsafe { pg_guard_ffi_boundary(|| raw_request_checkpoint(flags as i32)) }
}

/// SSI's check that a writer makes before it changes a row.
pub fn check_serializable(relation: pg_sys::Relation, mut tid: pg_sys::ItemPointerData) {
    // SAFETY: the relation is open; a TID is compared only.
    unsafe {
        let block = pg_sys::ItemPointerGetBlockNumberNoCheck(&tid);
        pg_guard_ffi_boundary(|| raw_check_serializable(relation, &mut tid, block));
    }
}

/// Makes SSI's notes about rows of a relation ones about all its rows.
pub fn coarsen_predicate_locks(relation: pg_sys::Relation) {
    // SAFETY: the relation is open.
    unsafe { pg_guard_ffi_boundary(|| raw_transfer_predicate_locks(relation)) }
}

/// SSI's check that a reader makes when it meets a row, seen or not.
///
/// # Safety
/// The tuple is on the buffer's page, which is locked.
pub unsafe fn conflict_out(
    visible: bool,
    relation: pg_sys::Relation,
    tuple: pg_sys::HeapTuple,
    buffer: pg_sys::Buffer,
    snapshot: pg_sys::Snapshot,
) {
    // SAFETY: by contract.
    unsafe {
        pg_guard_ffi_boundary(|| raw_conflict_out(visible, relation, tuple, buffer, snapshot));
    }
}

/// The same before rows are inserted that nobody can have read.
pub fn check_serializable_table(relation: pg_sys::Relation) {
    // SAFETY: the relation is open.
    unsafe {
        pg_guard_ffi_boundary(|| {
            raw_check_serializable(relation, std::ptr::null_mut(), pg_sys::InvalidBlockNumber)
        });
    }
}

/// SSI's note that a snapshot has read a row that it did not write.
pub fn predicate_lock(
    relation: pg_sys::Relation,
    mut tid: pg_sys::ItemPointerData,
    snapshot: pg_sys::Snapshot,
) {
    // SAFETY: the relation is open; does nothing unless the snapshot is a serializable one.
    unsafe {
        pg_guard_ffi_boundary(|| {
            raw_predicate_lock_tid(relation, &mut tid, snapshot, pg_sys::InvalidTransactionId)
        });
    }
}

/// SSI's note that a snapshot has read any rows of a relation.
pub fn predicate_lock_relation(relation: pg_sys::Relation, snapshot: pg_sys::Snapshot) {
    // SAFETY: as above.
    unsafe { pg_guard_ffi_boundary(|| raw_predicate_lock_relation(relation, snapshot)) }
}

/// A table with its partitions and children, at any depth, unlocked.
pub fn find_all_inheritors(parent: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: a catalog look-up; the list is a plain list of OIDs.
    unsafe {
        let list = pg_guard_ffi_boundary(|| {
            raw_find_all_inheritors(parent, pg_sys::NoLock as i32, std::ptr::null_mut())
        });
        pgrx::PgList::<pg_sys::Oid>::from_pg(list)
            .iter_oid()
            .collect()
    }
}

/// Whether a table has partitions or children, or had some.
pub fn has_subclass(relation: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up.
    unsafe { pg_guard_ffi_boundary(|| raw_has_subclass(relation)) }
}

/// The partitioned tables that a table is a partition of, at any depth.
pub fn partition_ancestors(relid: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: a catalog look-up; the list is a plain list of OIDs.
    unsafe {
        let list = pg_guard_ffi_boundary(|| raw_get_partition_ancestors(relid));
        pgrx::PgList::<pg_sys::Oid>::from_pg(list)
            .iter_oid()
            .collect()
    }
}

/// Takes `count` values of a sequence at once: the first. Not transactional, logged at once.
///
/// The caller has the right to change the sequence.
pub fn take_values(sequence: pg_sys::Oid, count: i64) -> i64 {
    // The lock makes taking and setting one step; it conflicts with itself only.
    // SAFETY: lock and unlock of the same relation; an error in between releases it.
    unsafe {
        pg_sys::LockRelationOid(sequence, pg_sys::ShareUpdateExclusiveLock as i32);
        let first = nextval(sequence);
        if count > 1 {
            let _: Option<i64> = pgrx::direct_function_call(
                pg_sys::setval_oid,
                &[Some(sequence.into()), Some((first + count - 1).into())],
            );
        }
        pg_sys::UnlockRelationOid(sequence, pg_sys::ShareUpdateExclusiveLock as i32);
        first
    }
}

/// Whether two values that aren't null have the same bytes, detoasted.
///
/// # Safety
/// Both are of a type with this length (`typlen`) and this way of passing.
pub unsafe fn datum_image_eq(
    a: pg_sys::Datum,
    b: pg_sys::Datum,
    by_value: bool,
    length: i32,
) -> bool {
    // SAFETY: by contract.
    unsafe { pg_guard_ffi_boundary(|| raw_datum_image_eq(a, b, by_value, length)) }
}

/// Runs an initplan whose result a parameter waits for.
///
/// # Safety
/// As `ExecSetParamPlan` (nodeSubplan.c): both belong to the running executor.
pub unsafe fn set_param_plan(node: *mut pg_sys::SubPlanState, econtext: *mut pg_sys::ExprContext) {
    // SAFETY: by contract.
    unsafe { pg_guard_ffi_boundary(|| raw_set_param_plan(node, econtext)) }
}

/// The next row of a plan, as `ExecProcNode` (executor.h) has it; null at the end, after which it isn't
/// called again. Errors of the plan pass as they are.
///
/// # Safety
/// A node of the running executor, in its query's memory context. The caller, and its callers up to
/// Postgres, own nothing that an error would have to drop.
pub unsafe fn exec_proc_node(node: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: by contract.
    unsafe {
        if !(*node).chgParam.is_null() {
            pg_sys::ExecReScan(node);
        }
        let slot = match (*node).ExecProcNode {
            Some(next) => next(node),
            None => std::ptr::null_mut(),
        };
        if slot.is_null() || (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 {
            return std::ptr::null_mut();
        }
        slot
    }
}
