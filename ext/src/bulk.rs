//! The bulk path: past `lake.bulk_rows` rows of one statement, further rows go straight to Parquet.
//!
//! It is taken only where nothing can look at the rows before the statement ends: no index, no
//! trigger, no RETURNING, no volatile function (STORAGE section 3); and where no publication of logical
//! replication covers the table. Files are registered at the end of the statement with its command id,
//! so that the next command sees them and an abort doesn't. Rows from the engine may come in whole batches
//! ([`write_batch`]), if no more is to be done with them.

use crate::am::hot;
use crate::catalog::{data_file, storage};
use crate::error;
use crate::guc;
use crate::relation;
use crate::sink::{Kind, Sink};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::{Cell, RefCell};

/// Files that one statement writes at a time.
const SINKS_MAX: usize = 8;

/// A statement that writes.
struct Statement {
    /// Tells it from others; an address that is unique while it runs.
    key: usize,
    /// Whether its rows may go to Parquet.
    allowed: bool,
    /// A COPY. Only its batches of rows may: single ones have volatile code between them.
    copy: bool,
    /// Executors that ran when it began.
    depth: u32,
    subxact: pg_sys::SubTransactionId,
    tables: Vec<Table>,
}

struct Table {
    relid: pg_sys::Oid,
    rows: u64,
    state: State,
}

enum State {
    /// Fewer rows than `lake.bulk_rows` so far.
    Counting,
    /// This table's rows stay hot.
    Hot,
    Writing(Box<Sink>),
}

thread_local! {
    static ALLOWED: Cell<bool> = const { Cell::new(false) };
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static STATEMENTS: RefCell<Vec<Statement>> = const { RefCell::new(vec![]) };
}

/// A statement begins. While it is the innermost one, its rows may go the bulk path if `allowed`.
pub fn begin_statement(key: usize, allowed: bool, copy: bool) {
    drain();
    // SAFETY: in a transaction.
    let subxact = unsafe { pg_sys::GetCurrentSubTransactionId() };
    STATEMENTS.with_borrow_mut(|s| {
        s.push(Statement {
            key,
            allowed,
            copy,
            depth: DEPTH.get(),
            subxact,
            tables: vec![],
        })
    });
    ALLOWED.set(allowed && guc::bulk_rows().is_some());
}

/// An executor starts.
pub fn enter_executor() {
    DEPTH.set(DEPTH.get().saturating_add(1));
}

/// An executor has ended.
pub fn leave_executor() {
    DEPTH.set(DEPTH.get().saturating_sub(1));
}

/// Whether the innermost thing that runs is a COPY FROM, and no query inside it.
pub fn copy_runs() -> bool {
    ALLOWED.get()
        && STATEMENTS.with_borrow(|s| s.last().is_some_and(|s| s.copy && s.depth == DEPTH.get()))
}

/// The innermost statement that writes, if its rows may go the bulk path one by one.
pub fn allowed_statement() -> Option<usize> {
    if !ALLOWED.get() {
        return None;
    }
    STATEMENTS.with_borrow(|s| s.last().filter(|s| !s.copy).map(|s| s.key))
}

/// Whether rows of a statement are on their way to Parquet, and all go to one table.
pub fn is_writing(key: usize) -> bool {
    STATEMENTS.with_borrow(|s| {
        s.last().is_some_and(|s| {
            s.key == key
                && matches!(s.tables.as_slice(), [table] if matches!(table.state, State::Writing(_)))
        })
    })
}

/// Lets `write` send rows of a statement for which [`is_writing`] holds; says what it says.
pub fn write_batch(key: usize, write: impl FnOnce(&mut Sink) -> bool) -> bool {
    if !is_writing(key) {
        return false;
    }
    // SAFETY: in a transaction.
    let subxact = unsafe { pg_sys::GetCurrentSubTransactionId() };
    let found = STATEMENTS.with_borrow_mut(|s| {
        let statement = s.last_mut().filter(|s| s.subxact == subxact)?;
        let table = statement.tables.first_mut()?;
        Some((table.relid, take_sink(table)?))
    });
    let Some((relid, mut sink)) = found else {
        return false;
    };
    let written = write(sink.as_mut());
    put_back(relid, sink);
    written
}

/// Registers what statements have written so far: a nested one must see it, as with heap.
///
/// Only what this very subtransaction wrote: a registration made in an inner one would vanish with
/// it (STORAGE section 3). What could look at an outer one's rows there, volatile code, keeps a
/// statement off the bulk path in the first place.
pub fn drain() {
    let writing = STATEMENTS.with_borrow(|s| {
        s.iter().any(|s| {
            s.tables
                .iter()
                .any(|t| matches!(t.state, State::Writing(_)))
        })
    });
    if writing {
        // SAFETY: in a transaction.
        let subxact = unsafe { pg_sys::GetCurrentSubTransactionId() };
        let sinks: Vec<_> = STATEMENTS.with_borrow_mut(|s| {
            s.iter_mut()
                .filter(|s| s.subxact == subxact)
                .flat_map(|s| s.tables.iter_mut().filter_map(take_sink))
                .collect()
        });
        sinks.into_iter().for_each(register);
    }
}

fn take_sink(table: &mut Table) -> Option<Box<Sink>> {
    match std::mem::replace(&mut table.state, State::Hot) {
        State::Writing(sink) => {
            table.state = State::Counting;
            Some(sink)
        }
        other => {
            table.state = other;
            None
        }
    }
}

/// Makes the rows of a statement visible to the next command, if it is the innermost one.
pub fn finish_statement(key: usize) {
    if STATEMENTS.with_borrow(|s| s.last().is_none_or(|s| s.key != key)) {
        return;
    }
    let sinks: Vec<_> = STATEMENTS.with_borrow_mut(|s| {
        s.last_mut().map_or(vec![], |s| {
            s.tables.iter_mut().filter_map(take_sink).collect()
        })
    });
    sinks.into_iter().for_each(register);
}

/// The same for one table, when the caller says that its bulk insert is over.
pub fn finish_table(relid: pg_sys::Oid) {
    let sink = STATEMENTS.with_borrow_mut(|s| {
        s.last_mut()
            .and_then(|s| s.tables.iter_mut().find(|t| t.relid == relid))
            .and_then(take_sink)
    });
    if let Some(sink) = sink {
        register(sink);
    }
}

/// A statement has ended.
pub fn end_statement(key: usize) {
    if STATEMENTS.with_borrow(|s| s.last().is_none_or(|s| s.key != key)) {
        return;
    }
    finish_statement(key);
    STATEMENTS.with_borrow_mut(|s| s.pop());
    let allowed = STATEMENTS.with_borrow(|s| s.last().is_some_and(|s| s.allowed));
    ALLOWED.set(allowed && guc::bulk_rows().is_some());
}

/// A (sub)transaction was aborted: forgets its statements. Their streams belong to resource owners.
pub fn abort(subxact: Option<pg_sys::SubTransactionId>) {
    STATEMENTS.with_borrow_mut(|s| match subxact {
        Some(id) => s.retain(|s| s.subxact < id),
        None => {
            DEPTH.set(0);
            s.clear();
        }
    });
    let allowed = STATEMENTS.with_borrow(|s| s.last().is_some_and(|s| s.allowed));
    ALLOWED.set(allowed);
}

#[allow(clippy::boxed_local)] // as the state holds it
fn register(sink: Box<Sink>) {
    let storage = sink.storage.clone();
    let rows = sink.rows;
    let written = sink.finish();
    let origin = data_file::Origin::Load;
    data_file::register(&storage, &written.files, &written.options, &origin);
    // SAFETY: the statement holds a lock on the relation that it writes.
    unsafe {
        let rel = pg_sys::try_relation_open(storage.relid, pg_sys::NoLock as i32);
        if !rel.is_null() {
            pg_sys::pgstat_count_heap_insert(rel, rows as i64);
            // As heap_insert: whoever has read the table has not seen these rows.
            crate::pg::missing::check_serializable_table(rel);
            hot::ensure_page(rel);
            pg_sys::relation_close(rel, pg_sys::NoLock as i32);
        }
    }
}

/// Whether a table's rows can be cold at all while it is written. If so, nobody publishes it before the
/// end of the transaction.
fn eligible(relation: pg_sys::Relation) -> bool {
    // SAFETY: the relation is open.
    unsafe {
        let has_triggers = !(*relation).trigdesc.is_null() && {
            let t = &*(*relation).trigdesc;
            t.trig_insert_before_row
                || t.trig_insert_after_row
                || t.trig_insert_instead_row
                || t.trig_insert_before_statement
                || t.trig_insert_after_statement
        };
        !crate::pg::has_indexes(relation)
            && !has_triggers
            && !has_volatile_checks(relation)
            && !relation::info(relation).codecs.is_empty()
            && !crate::pg::published::stays_hot(relation)
    }
}

/// Whether storing a row may run code that looks at the table: volatile CHECK constraints, and
/// constraints of domains, whose expressions aren't at hand here.
unsafe fn has_volatile_checks(relation: pg_sys::Relation) -> bool {
    // SAFETY: the relation is open; constraint expressions are valid node strings.
    unsafe {
        let desc = (*relation).rd_att;
        let attributes = std::slice::from_raw_parts((*desc).attrs.as_ptr(), (*desc).natts as usize);
        if attributes
            .iter()
            .any(|a| !a.attisdropped && pg_sys::DomainHasConstraints(a.atttypid))
        {
            return true;
        }
        if (*desc).constr.is_null() {
            return false;
        }
        let constraints = &*(*desc).constr;
        (0..usize::from(constraints.num_check)).any(|i| {
            let expression = pg_sys::stringToNode((*constraints.check.add(i)).ccbin);
            pg_sys::contain_volatile_functions(expression.cast())
        })
    }
}

/// A load into many partitions must not wait for streams that it holds itself: the oldest writer
/// of the statement is finished first, and its table starts a new file later.
fn limit_sinks() {
    let oldest = STATEMENTS.with_borrow_mut(|s| {
        let tables = &mut s.last_mut()?.tables;
        let writing = |t: &Table| matches!(t.state, State::Writing(_));
        if tables.iter().filter(|t| writing(t)).count() < SINKS_MAX {
            return None;
        }
        let at = tables.iter().position(writing)?;
        // The table goes to the end, as the youngest from now on.
        let mut table = tables.remove(at);
        let sink = take_sink(&mut table);
        tables.push(table);
        sink
    });
    if let Some(sink) = oldest {
        register(sink);
    }
}

/// Offers a row to the bulk path; false: it goes to the heap.
#[inline]
pub fn take(relation: pg_sys::Relation, slot: *mut pg_sys::TupleTableSlot, in_batch: bool) -> bool {
    if !ALLOWED.get() {
        return false;
    }
    take_slowly(relation, slot, in_batch)
}

/// Takes the rows of a batch after one that went to Parquet, but for those that Iceberg can't hold,
/// which `keep` gets.
pub fn take_rest(
    relation: pg_sys::Relation,
    slots: &[*mut pg_sys::TupleTableSlot],
    mut keep: impl FnMut(*mut pg_sys::TupleTableSlot),
) {
    // SAFETY: the relation is open.
    let relid = unsafe { (*relation).rd_id };
    let sink = STATEMENTS.with_borrow_mut(|s| {
        let table = s.last_mut()?.tables.iter_mut().find(|t| t.relid == relid)?;
        table.rows += slots.len() as u64;
        take_sink(table)
    });
    let Some(mut sink) = sink else {
        error::raise(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "a bulk load has lost its writer",
            None,
            None,
        )
    };
    let mut ended = false;
    for slot in slots {
        if !ended && relation::is_storable(&sink.info, *slot) {
            store(&mut sink, *slot, relid);
        } else {
            ended |= guc::debug_flush();
            keep(*slot);
        }
    }
    if ended {
        end_in_order(relid, sink);
    } else {
        put_back(relid, sink);
    }
}

/// With `lake.debug_flush` scans return rows in the order in which they came, so that tests can be
/// compared with heap: cold rows come first, and none follows a hot one. The rows so far are
/// registered, the rest of the statement's stay hot.
fn end_in_order(relid: pg_sys::Oid, sink: Box<Sink>) {
    register(sink);
    STATEMENTS.with_borrow_mut(|s| {
        if let Some(table) = s
            .last_mut()
            .and_then(|s| s.tables.iter_mut().find(|t| t.relid == relid))
        {
            table.state = State::Hot;
        }
    });
}

fn store(sink: &mut Sink, slot: *mut pg_sys::TupleTableSlot, relid: pg_sys::Oid) {
    sink.push(slot);
    // SAFETY: the slot is the caller's; the row has no TID before its file is registered.
    unsafe {
        (*slot).tts_tid = pg_sys::ItemPointerData::default();
        (*slot).tts_tableOid = relid;
    }
}

fn put_back(relid: pg_sys::Oid, sink: Box<Sink>) {
    STATEMENTS.with_borrow_mut(|s| {
        if let Some(table) = s
            .last_mut()
            .and_then(|s| s.tables.iter_mut().find(|t| t.relid == relid))
        {
            table.state = State::Writing(sink);
        }
    });
}

fn take_slowly(
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    in_batch: bool,
) -> bool {
    let Some(threshold) = guc::bulk_rows() else {
        return false;
    };
    // SAFETY: the relation is open.
    let relid = unsafe { (*relation).rd_id };
    // Nothing below calls back into this module while the statements are borrowed: rows are
    // counted first, the sink is taken out while it works.
    let sink = STATEMENTS.with_borrow_mut(|s| {
        let statement = s.last_mut()?;
        // What runs in an inner subtransaction isn't this statement, and may be rolled back alone.
        // SAFETY: in a transaction.
        let subxact = unsafe { pg_sys::GetCurrentSubTransactionId() };
        if (statement.copy && !in_batch) || statement.subxact != subxact {
            return None;
        }
        let table = match statement.tables.iter().position(|t| t.relid == relid) {
            Some(i) => &mut statement.tables[i],
            None => {
                statement.tables.push(Table {
                    relid,
                    rows: 0,
                    state: State::Counting,
                });
                statement.tables.last_mut()?
            }
        };
        table.rows += 1;
        if table.rows <= threshold {
            return None;
        }
        match std::mem::replace(&mut table.state, State::Hot) {
            State::Counting => Some(None),
            State::Hot => None,
            State::Writing(sink) => Some(Some(sink)),
        }
    });
    let mut sink = match sink {
        None => return false,
        Some(Some(sink)) => sink,
        Some(None) => {
            // Row numbers come from a sequence, which a parallel query mustn't move.
            // SAFETY: a global of this backend.
            if unsafe { pg_sys::IsInParallelMode() }
                || !eligible(relation)
                || (guc::debug_flush() && hot::any(relation))
            {
                return false;
            }
            let Some(storage) = storage::of_relation(relation) else {
                return false;
            };
            limit_sinks();
            let info = relation::info(relation);
            Box::new(Sink::open(relation, &storage, info, Kind::Bulk))
        }
    };
    let storable = relation::is_storable(&sink.info, slot);
    if storable {
        store(&mut sink, slot, relid);
    } else if guc::debug_flush() {
        end_in_order(relid, sink);
        return false;
    }
    put_back(relid, sink);
    storable
}
