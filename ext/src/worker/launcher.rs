//! The launcher: keeps one maintainer in each database that has the extension.

use crate::ring::control::{DatabaseSlot, now, state};
use crate::ring::region::control;
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, SignalWakeFlags};
use pgrx::{pg_guard, pg_sys};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the list of databases is read.
const PERIOD: Duration = Duration::from_secs(10);
/// A database that had no extension is looked at again after that time, unless it is told of.
const RETRY_SECONDS: i64 = 60;
/// A maintainer that failed is started again after that time.
const RESTART_SECONDS: i64 = 5;

/// Entry point.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn lake_launcher_main(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi(None, None);
    let Some(control) = control() else {
        return;
    };
    control
        .launcher_proc
        .store(crate::pg::my_proc() + 1, Ordering::Release);
    while BackgroundWorker::wait_latch(Some(PERIOD)) {
        if BackgroundWorker::sighup_received() {
            // SAFETY: on the main thread, outside of any transaction.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
        let databases = databases();
        control.forget_others(&databases);
        for database in databases {
            if let Some(slot) = control.claim(database) {
                look_after(slot);
            }
        }
    }
    control.launcher_proc.store(0, Ordering::Release);
    // SAFETY: exit code 1: started again unless the server stops.
    unsafe { pg_sys::proc_exit(1) };
}

/// The databases that accept connections.
fn databases() -> Vec<u32> {
    let mut found = vec![];
    // SAFETY: a scan of a shared catalog in a transaction of its own.
    unsafe {
        pg_sys::StartTransactionCommand();
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let rel = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan(rel, snapshot, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let database = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if (*database).datallowconn && !(*database).datistemplate {
                found.push((*database).oid.to_u32());
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(rel, pg_sys::AccessShareLock as i32);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::CommitTransactionCommand();
    }
    found
}

fn look_after(slot: &DatabaseSlot) {
    let now = now();
    if slot.away_until.load(Ordering::Acquire) > now {
        return;
    }
    let since = slot.since.load(Ordering::Relaxed);
    let due = match slot.state.load(Ordering::Acquire) {
        state::UNKNOWN => now - since >= RESTART_SECONDS || since == 0,
        state::NO_EXTENSION => now - since >= RETRY_SECONDS,
        // Started, but never came to life: no worker slot was free, or it failed early.
        state::STARTING => now - since >= 3 * RESTART_SECONDS,
        _ => false,
    };
    if !due {
        return;
    }
    slot.since.store(now, Ordering::Relaxed);
    slot.state.store(state::STARTING, Ordering::Release);
    let started = BackgroundWorkerBuilder::new("lake maintainer")
        .set_type("lake maintainer")
        .set_library("pg_lake")
        .set_function("lake_maintainer_main")
        .set_argument(Some(pg_sys::Datum::from(
            slot.database.load(Ordering::Relaxed),
        )))
        .enable_spi_access()
        .set_restart_time(None)
        .load_dynamic();
    if started.is_err() {
        slot.state.store(state::UNKNOWN, Ordering::Release);
        crate::error::warn(
            "could not start a lake maintainer",
            Some("No background worker slot is free: raise max_worker_processes."),
        );
    }
}
