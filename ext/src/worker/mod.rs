//! Background workers: their registration and entry points.
//!
//! * [`service`]: `lake engine` and `lake worker n`: the main thread of a `bgworker` service
//! * [`launcher`]: one maintainer for each database with the extension
//! * [`maintainer`]: flush, publication and sweeping in one database
//! * [`log`]: what other threads trace, on its way to the server log

mod launcher;
mod log;
mod maintainer;
mod service;

use crate::guc;
use crate::ring::control::now;
use crate::ring::region::control;
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::pg_sys;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a database stays without a maintainer after one was asked to leave.
const AWAY_SECONDS: i64 = 10;

/// Registers the workers that start with the server.
pub fn init() {
    let register = |name: &str, function: &str, argument: u32| {
        BackgroundWorkerBuilder::new(name)
            .set_type(name)
            .set_library("pg_lake")
            .set_function(function)
            .set_argument(Some(pg_sys::Datum::from(argument)))
            .enable_shmem_access(None)
            .set_start_time(BgWorkerStartTime::PostmasterStart)
            .set_restart_time(Some(Duration::from_secs(1)))
            .load();
    };
    register("lake engine", "lake_service_main", crate::ring::ENGINE);
    for slot in 1..=guc::workers() {
        register(&format!("lake worker {slot}"), "lake_service_main", slot);
    }
    BackgroundWorkerBuilder::new("lake launcher")
        .set_type("lake launcher")
        .set_library("pg_lake")
        .set_function("lake_launcher_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(5)))
        .load();
}

/// Asks a database's maintainer to leave and waits for it, within bounds: the database is about to
/// be dropped, renamed, moved or copied.
pub fn leave_database(database: pg_sys::Oid) {
    let Some(slot) = control().and_then(|c| c.find(database.to_u32())) else {
        return;
    };
    slot.away_until
        .store(now() + AWAY_SECONDS, Ordering::Release);
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        // Read once: a pid that turns into 0 between two reads would mean this process' own group.
        let pid = slot.pid.load(Ordering::Acquire) as i32;
        if pid <= 1 {
            return;
        }
        // SAFETY: the pid of a worker of this server, which clears it before it ends.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        // SAFETY: waits on the process latch; the maintainer has no latch to set for us.
        unsafe {
            pg_sys::WaitLatch(
                pg_sys::MyLatch,
                (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
                10,
                pg_sys::PG_WAIT_EXTENSION,
            );
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
        crate::pg::check_for_interrupts();
    }
}
