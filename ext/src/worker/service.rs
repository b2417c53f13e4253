//! The main thread of the engine and of the I/O workers: passes doorbells to the service, serves
//! signals, and never blocks on anything but its latch.

use crate::guc;
use crate::pg;
use crate::ring::{ENGINE, region};
use crate::worker::log;
use pg_lake_bgworker::{Config, Kind, Service};
use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use std::time::Duration;

/// A server that stops waits for its workers; this stays below a second.
const STOP: Duration = Duration::from_millis(700);

/// Entry point; the argument is the worker slot.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn lake_service_main(argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    let slot = argument.value() as u32;
    log::init();
    let service = start(slot);
    loop {
        // SAFETY: the process latch; reset before looking for work, so that no wake-up is lost.
        unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
        if BackgroundWorker::sigterm_received() {
            break;
        }
        if BackgroundWorker::sighup_received() {
            // SAFETY: on the main thread, outside of any transaction.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
            service.set_limits(
                guc::worker_memory(),
                guc::memory_cache_size(),
                guc::queue(),
                &guc::io(),
            );
        }
        service.serve();
        log::write();
        // SAFETY: as above.
        let events = unsafe {
            pg_sys::WaitLatch(
                pg_sys::MyLatch,
                (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_POSTMASTER_DEATH) as i32,
                1000,
                pg_sys::PG_WAIT_EXTENSION,
            )
        };
        if events & pg_sys::WL_POSTMASTER_DEATH as i32 != 0 {
            // Nobody is left to clean up for: no exit handlers while other threads run.
            // SAFETY: ends the process.
            unsafe { libc::_exit(1) };
        }
    }
    service.stop(STOP);
    log::write();
    // Exit code 0 would mean never to be started again.
    // SAFETY: the runtime has stopped.
    unsafe { pg_sys::proc_exit(1) };
}

fn start(slot: u32) -> Service {
    let kind = if slot == ENGINE {
        Kind::Engine
    } else {
        Kind::Io
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let directory = pg::data_directory().join("base/pgsql_tmp/pgsql_tmp_lake");
    if slot == ENGINE {
        // What an engine has left that did not end in good order. As a rule there is nothing.
        let _ = std::fs::remove_dir_all(&directory);
    }
    let config = Config {
        slot,
        kind,
        threads: if slot == ENGINE { threads } else { 2 },
        memory: guc::worker_memory(),
        memory_cache: guc::memory_cache_size(),
        queue: guc::queue(),
        io: guc::io(),
        spill_directory: directory,
        pid: std::process::id(),
        proc: pg::my_proc(),
    };
    match with_signals_blocked(|| Service::start(region(), config, pg::latch::wake)) {
        Ok(service) => service,
        Err(e) => crate::error::raise(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            &format!("could not start the lake service: {}", e.message),
            e.detail.as_deref(),
            e.hint.as_deref(),
        ),
    }
}

/// Threads inherit the mask of the one that spawns them: signals are for the main thread alone.
fn with_signals_blocked<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: both masks are initialised before they are read.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        let result = f();
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
        result
    }
}
