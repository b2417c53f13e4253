//! The maintainer of one database: flushes, merges, compacts, publishes and sweeps in the background.
//!
//! It leaves when the database is needed by someone alone, and after an error it goes on with the
//! next table. Tables in a store that is out of reach wait, ever longer, so that the others don't.

use crate::catalog::{storage, tablespace};
use crate::compact::Eagerness;
use crate::guc;
use crate::pg::subtransaction::Failure;
use crate::ring::control::{DatabaseSlot, Incarnation, now, state};
use crate::ring::region::control;
use crate::sql::maintenance;
use crate::sweep::{self, Setbacks};
use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, Spi, pg_guard, pg_sys};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(1);
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
/// After that long a sweep lets other work go first.
const SWEEP_TIME: Duration = Duration::from_secs(5);
/// Fewer marks than this wait for `lake.flush_interval`.
const MARKS_MIN: i64 = 10_000;
/// A merge that had to leave marks is not tried again sooner.
const MERGE_PERIOD: Duration = Duration::from_secs(10);
const COMPACT_PERIOD: Duration = Duration::from_secs(10);
/// A table with many hot rows is not flushed again sooner.
const FLUSH_PERIOD: Duration = Duration::from_secs(5);

/// One table, as the statistics and the catalog show it.
struct Table {
    relid: pg_sys::Oid,
    /// Changes so far, cold files and relfilenumber: what is compared to see whether a table changed
    /// or moved.
    version: (i64, i64, i64),
    /// Whether an index over ranges of blocks keeps its rows hot.
    stays_hot: bool,
    /// Deletions of cold rows that wait for a merge.
    marks: i64,
    /// The number of files, and bytes of their lists of deleted rows.
    files: (i64, i64),
    /// The tablespace that its files are in, if that is in an object store.
    place: Option<String>,
}

impl Table {
    /// Whether its store was out of reach a moment ago.
    fn is_waiting(&self, stores: &Setbacks) -> bool {
        let place = self.place.as_deref();
        place.is_some_and(|place| stores.is_waiting(place, Instant::now()))
    }

    /// Its store has taken something.
    fn reached(&self, stores: &mut Setbacks) {
        if let Some(place) = &self.place {
            stores.succeeded(place);
        }
    }

    /// Logs an error about it, one of its store only once until the store is back.
    fn failed(&self, stores: &mut Setbacks, failure: &Failure) {
        match &self.place {
            Some(place) if sweep::is_of_place(failure) => {
                if stores.failed(place, true, Instant::now()) {
                    let message = &failure.message;
                    crate::error::warn(
                        &format!("lake maintainer: tables in \"{place}\" wait: {message}"),
                        failure.detail.as_deref(),
                    );
                }
            }
            _ => log(failure),
        }
    }
}

struct Seen {
    flushed: Instant,
    /// The hot rows when they were last counted, up to `lake.flush_rows`, and the changes that the statistics
    /// knew of before that.
    hot: Option<(i64, u64)>,
    merged: Option<Instant>,
    /// When it was compacted last, and the files that it had then, if nothing was left to do.
    compacted: Option<(Instant, Option<(i64, i64)>)>,
    published: Option<(i64, i64, i64)>,
}

impl Seen {
    fn now() -> Seen {
        Seen {
            flushed: Instant::now(),
            hot: None,
            merged: None,
            compacted: None,
            published: None,
        }
    }
}

/// Entry point; the argument is the database's OID.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn lake_maintainer_main(argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // Whatever it is doing, it leaves when told to, as a backend does.
    // SAFETY: the server's own handler.
    unsafe { pg_sys::pqsignal(pg_sys::SIGTERM as i32, Some(crate::pg::missing::die)) };
    let database = argument.value() as u32;
    let Some(slot) = control().and_then(|c| c.find(database)) else {
        return;
    };
    slot.pid.store(std::process::id(), Ordering::Release);
    slot.proc.store(crate::pg::my_proc() + 1, Ordering::Release);
    // SAFETY: clears the slot whichever way the process ends.
    unsafe {
        pg_sys::before_shmem_exit(Some(gone), argument);
    }
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(database)), None);
    let Some(incarnation) = guarded(installed_as).flatten() else {
        slot.state.store(state::NO_EXTENSION, Ordering::Release);
        slot.since.store(now(), Ordering::Relaxed);
        return;
    };
    slot.set_incarnation(incarnation);
    slot.state.store(state::RUNNING, Ordering::Release);
    run(slot);
}

/// What the database's objects are named by; `None`: it hasn't the extension.
fn installed_as() -> Option<Incarnation> {
    crate::pg::is_installed().then(|| {
        let own = storage::own_incarnation();
        let uuid = own.as_deref().and_then(storage::parse_uuid);
        uuid.map_or(Incarnation::Foreign, Incarnation::Own)
    })
}

unsafe extern "C-unwind" fn gone(_code: i32, argument: pg_sys::Datum) {
    if let Some(slot) = control().and_then(|c| c.find(argument.value() as u32)) {
        slot.proc.store(0, Ordering::Release);
        slot.pid.store(0, Ordering::Release);
        if slot.state.load(Ordering::Acquire) != state::NO_EXTENSION {
            slot.since.store(now(), Ordering::Relaxed);
            slot.state.store(state::UNKNOWN, Ordering::Release);
        }
    }
}

fn run(slot: &DatabaseSlot) {
    let mut seen: HashMap<pg_sys::Oid, Seen> = HashMap::new();
    let mut published = Instant::now();
    let mut swept = Instant::now();
    let mut setbacks = Setbacks::default();
    // Not those of the sweep: a store may refuse to remove objects, and take new ones.
    let mut stores = Setbacks::default();
    // A request wakes it sooner.
    let mut periodic = Instant::now();
    while BackgroundWorker::wait_latch(Some(PERIOD)) {
        if slot.away_until.load(Ordering::Acquire) > now() {
            return;
        }
        let (asked, wanted) = slot.take();
        for relid in wanted {
            unless_locked(pg_sys::Oid::from(relid), flush_wanted);
        }
        slot.done(asked);
        if periodic.elapsed() + PERIOD / 10 < PERIOD {
            continue;
        }
        periodic = Instant::now();
        if BackgroundWorker::sighup_received() {
            // SAFETY: on the main thread, outside of any transaction.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
        match guarded(installed_as) {
            Some(Some(incarnation)) => slot.set_incarnation(incarnation),
            Some(None) => {
                slot.state.store(state::NO_EXTENSION, Ordering::Release);
                slot.since.store(now(), Ordering::Relaxed);
                return;
            }
            None => continue,
        }
        let tables = guarded(tables).unwrap_or_default();
        flush_due(&tables, &mut seen, &mut stores);
        merge_due(&tables, &mut seen, &mut stores);
        if guc::auto_compact() {
            compact_due(&tables, &mut seen, &mut stores);
        }
        if guc::publish_interval().is_some_and(|s| published.elapsed().as_secs() >= s) {
            publish_due(&tables, &mut seen, &mut stores);
            published = Instant::now();
        }
        if swept.elapsed() >= SWEEP_PERIOD && !sweep(slot, &mut setbacks) {
            swept = Instant::now();
        }
    }
}

/// Tables with so many hot rows, or that were flushed so long ago. Hot rows are counted when the changes
/// since the last count could have made them so many.
fn flush_due(tables: &[Table], seen: &mut HashMap<pg_sys::Oid, Seen>, stores: &mut Setbacks) {
    let limit = guc::flush_rows().map(|n| n.max(1));
    for table in tables.iter().filter(|t| !t.stays_hot) {
        if table.is_waiting(stores) {
            continue;
        }
        let entry = seen.entry(table.relid).or_insert_with(Seen::now);
        let changes = table.version.0;
        // Counters that were reset say nothing.
        let at_most = match entry.hot {
            Some((then, hot)) if changes >= then => hot + (changes - then) as u64,
            _ => (changes.max(0) as u64).max(1),
        };
        let elapsed = entry.flushed.elapsed();
        let long = guc::flush_interval().is_some_and(|s| elapsed.as_secs() >= s);
        let many = elapsed >= FLUSH_PERIOD && limit.is_some_and(|n| at_most >= n);
        if at_most == 0 || !(many || long) {
            continue;
        }
        let count = |relid| crate::flush::hot_rows(relid, limit.unwrap_or(1));
        let Some(hot) = unless_locked(table.relid, count) else {
            continue;
        };
        entry.hot = Some((changes, hot));
        if hot > 0 && (long || limit.is_some_and(|n| hot >= n)) {
            entry.flushed = Instant::now();
            report("flush", table.relid);
            let flushed = maintain(table, stores, |relid| {
                (crate::flush::flush_if_possible(relid), count(relid))
            });
            if flushed.is_some_and(|(rows, _)| rows > 0) {
                table.reached(stores);
            }
            entry.hot = flushed.map(|(_, left)| (changes, left));
        }
    }
}

fn merge_due(tables: &[Table], seen: &mut HashMap<pg_sys::Oid, Seen>, stores: &mut Setbacks) {
    for table in tables.iter().filter(|t| t.marks > 0) {
        if table.is_waiting(stores) {
            continue;
        }
        let entry = seen.entry(table.relid).or_insert_with(Seen::now);
        let many =
            table.marks >= MARKS_MIN && entry.merged.is_none_or(|at| at.elapsed() >= MERGE_PERIOD);
        let since = entry.merged.unwrap_or(entry.flushed);
        let long = guc::flush_interval().is_some_and(|s| since.elapsed().as_secs() >= s);
        if many || long {
            entry.merged = Some(Instant::now());
            report("merge", table.relid);
            maintain(table, stores, crate::merge::merge);
        }
    }
}

/// Tables whose files have changed, or have lost rows to a merge, and those that are not done.
fn compact_due(tables: &[Table], seen: &mut HashMap<pg_sys::Oid, Seen>, stores: &mut Setbacks) {
    for table in tables.iter().filter(|t| t.files.0 > 0) {
        if table.is_waiting(stores) {
            continue;
        }
        let entry = seen.entry(table.relid).or_insert_with(Seen::now);
        let due = match entry.compacted {
            None => true,
            Some((at, files)) => at.elapsed() >= COMPACT_PERIOD && files != Some(table.files),
        };
        if due {
            report("compact", table.relid);
            let compact = |relid| crate::compact::compact(relid, Eagerness::Tiered, 1);
            let done = maintain(table, stores, compact);
            if done.as_ref().is_some_and(|done| done.replaced > 0) {
                table.reached(stores);
            }
            let finished = done.is_some_and(|done| !done.left);
            entry.compacted = Some((Instant::now(), finished.then_some(table.files)));
        }
    }
}

/// Of a table that a session with `lake.debug_flush` is about to look at. It may be gone by now.
fn flush_wanted(relid: pg_sys::Oid) -> u64 {
    // SAFETY: a catalog look-up.
    if unsafe { pg_sys::get_rel_name(relid) }.is_null() {
        return 0;
    }
    crate::flush::flush_if_possible(relid);
    0
}

/// Maintains a table unless somebody else does; what fails about its store keeps the tables there waiting.
fn maintain<R>(
    table: &Table,
    stores: &mut Setbacks,
    work: impl FnOnce(pg_sys::Oid) -> R,
) -> Option<R> {
    let part = || if_not_locked(table.relid, work);
    guarded_or(part, |failure| table.failed(stores, failure)).flatten()
}

fn unless_locked<R>(relid: pg_sys::Oid, work: impl FnOnce(pg_sys::Oid) -> R) -> Option<R> {
    guarded(|| if_not_locked(relid, work)).flatten()
}

/// Works on a table unless somebody else does: CREATE INDEX CONCURRENTLY, which keeps the lock for
/// long, waits in the end for everyone with a snapshot, and so would wait for who waits for it.
fn if_not_locked<R>(relid: pg_sys::Oid, work: impl FnOnce(pg_sys::Oid) -> R) -> Option<R> {
    // SAFETY: a heavyweight lock, released at the end of the transaction.
    let locked = unsafe {
        pg_sys::ConditionalLockRelationOid(relid, pg_sys::ShareUpdateExclusiveLock as i32)
    };
    locked.then(|| maintenance::as_owner(relid, || work(relid)))
}

/// Sweeps in transactions that are short, so that what is done stays done; whether there is more than could
/// be done in some seconds.
fn sweep(slot: &DatabaseSlot, setbacks: &mut Setbacks) -> bool {
    let began = Instant::now();
    while began.elapsed() < SWEEP_TIME && slot.away_until.load(Ordering::Acquire) <= now() {
        let part = || {
            sweep::part(
                guc::garbage_retention_us(),
                guc::store_timeout_us(),
                setbacks,
            )
        };
        if !guarded(part).unwrap_or(false) {
            return false;
        }
    }
    true
}

fn publish_due(tables: &[Table], seen: &mut HashMap<pg_sys::Oid, Seen>, stores: &mut Setbacks) {
    let changed: Vec<&Table> = tables
        .iter()
        .filter(|t| seen.get(&t.relid).and_then(|s| s.published) != Some(t.version))
        .filter(|t| !t.is_waiting(stores))
        .collect();
    if changed.is_empty() {
        return;
    }
    let relids: Vec<pg_sys::Oid> = changed.iter().map(|t| t.relid).collect();
    // One round, one snapshot. If a table makes it fail, the others are published one by one.
    let any_store = changed.iter().any(|table| table.place.is_some());
    let round = || crate::publish::publish(&relids);
    let all_done = guarded_or(round, |failure| {
        // Which table's store it is shows one by one.
        if !(any_store && sweep::is_of_place(failure)) {
            log(failure);
        }
    })
    .is_some();
    for table in changed {
        report("publish", table.relid);
        if all_done || publish_alone(table, stores) {
            table.reached(stores);
            seen.entry(table.relid).or_insert_with(Seen::now).published = Some(table.version);
        }
    }
}

fn publish_alone(table: &Table, stores: &mut Setbacks) -> bool {
    // One before it in the same store may have failed.
    if table.is_waiting(stores) {
        return false;
    }
    let publish = || crate::publish::publish(&[table.relid]);
    guarded_or(publish, |failure| table.failed(stores, failure)).is_some()
}

/// The tables with a storage that are still there.
fn tables() -> Vec<Table> {
    let query = "SELECT c.oid, pg_catalog.pg_stat_get_tuples_inserted(c.oid) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_tuples_updated(c.oid) \
         OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_tuples_deleted(c.oid), \
         (SELECT pg_catalog.count(*) FROM lake.data_file f WHERE f.storage_id OPERATOR(pg_catalog.=) s.storage_id), \
         EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid OPERATOR(pg_catalog.=) i.indexrelid \
         JOIN pg_catalog.pg_am m ON m.oid OPERATOR(pg_catalog.=) x.relam \
         WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND m.amname OPERATOR(pg_catalog.=) 'brin'), \
         (SELECT pg_catalog.count(*) FROM lake.row_mark m WHERE m.storage_id OPERATOR(pg_catalog.=) s.storage_id) \
         OPERATOR(pg_catalog.+) COALESCE((SELECT pg_catalog.sum(k.row_end OPERATOR(pg_catalog.-) k.row_start)::bigint \
         FROM lake.file_mark k WHERE k.storage_id OPERATOR(pg_catalog.=) s.storage_id), 0), \
         s.relfilenumber::pg_catalog.int8 OPERATOR(pg_catalog.+) c.xmin::pg_catalog.text::pg_catalog.int8, \
         (SELECT pg_catalog.sum(pg_catalog.octet_length(f.deleted)) FROM lake.data_file f WHERE f.storage_id OPERATOR(pg_catalog.=) s.storage_id), \
         s.tablespace \
         FROM lake.storage s JOIN pg_catalog.pg_class c ON c.relfilenode OPERATOR(pg_catalog.=) s.relfilenumber \
         AND COALESCE(NULLIF(c.reltablespace, 0::oid), (SELECT d.dattablespace FROM pg_catalog.pg_database d \
         WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())) OPERATOR(pg_catalog.=) s.tablespace \
         WHERE c.relam OPERATOR(pg_catalog.=) (SELECT a.oid FROM pg_catalog.pg_am a WHERE a.amname OPERATOR(pg_catalog.=) 'iceberg')";
    Spi::connect(|client| {
        let mut found = vec![];
        if let Ok(rows) = client.select(query, None, &[]) {
            for row in rows {
                let number = |i| row.get::<i64>(i).ok().flatten().unwrap_or(0);
                let Some(relid) = row.get::<pg_sys::Oid>(1).ok().flatten() else {
                    continue;
                };
                let place = row.get::<pg_sys::Oid>(8).ok().flatten();
                let store = place.filter(|oid| tablespace::is_store(*oid));
                found.push(Table {
                    relid,
                    version: (number(2), number(3), number(6)),
                    stays_hot: row.get::<bool>(4).ok().flatten().unwrap_or(false),
                    marks: number(5),
                    files: (number(3), number(7)),
                    place: store.map(|oid| format!("pg_tblspc/{}", oid.to_u32())),
                });
            }
        }
        found
    })
}

fn report(what: &str, relid: pg_sys::Oid) {
    let text = std::ffi::CString::new(format!("lake: {what} {}", relid.to_u32()));
    if let Ok(text) = text {
        // SAFETY: the string is copied.
        unsafe {
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr())
        };
    }
}

fn log(failure: &Failure) {
    crate::error::warn(
        &format!("lake maintainer: {}", failure.message),
        failure.detail.as_deref(),
    );
}

/// Runs `f` in a transaction with a snapshot; an error is logged and aborts it.
fn guarded<R>(f: impl FnOnce() -> R) -> Option<R> {
    guarded_or(f, log)
}

/// Runs `f` in a transaction with a snapshot; an error is given to `failed` and aborts it.
#[allow(clippy::result_large_err)] // pgrx's, and dealt with at once
fn guarded_or<R>(f: impl FnOnce() -> R, failed: impl FnOnce(&Failure)) -> Option<R> {
    let result: Result<R, CaughtError> = PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: a transaction of this process' own; pushed and popped in pairs.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let result = crate::pg::with_safe_search_path(f);
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
            pg_sys::pgstat_report_stat(true);
            Ok(result)
        }
    }))
    .catch_others(Err)
    .execute();
    if let Err(error) = &result {
        // SAFETY: `failed` reports the error to the log; then the failed transaction ends, as in autovacuum.
        unsafe {
            pg_sys::CritSectionCount = 0;
        }
        if let CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) = error {
            failed(&Failure::of(report));
        }
        // SAFETY: as above.
        unsafe {
            pg_sys::AbortCurrentTransaction();
            pg_sys::pgstat_report_stat(true);
        };
    }
    // SAFETY: shows that nothing runs.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null()) };
    result.ok()
}
