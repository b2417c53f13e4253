//! `lake.debug_flush`: tests see cold rows wherever they can.
//!
//! Before a statement's snapshot is taken the maintainer flushes the tables of its plan, in a
//! transaction of its own, so that no lock of it is the session's.

use crate::guc;
use crate::ring::control::{DatabaseSlot, state};
use crate::ring::region::control;
use pgrx::pg_sys;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A flush may have to wait for this session.
const PATIENCE: Duration = Duration::from_secs(2);

fn slot() -> Option<&'static DatabaseSlot> {
    // SAFETY: a global of this backend.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    control()?.find(database)
}

/// Has the iceberg tables of a plan flushed.
///
/// # Safety
/// A finished plan.
pub unsafe fn before(stmt: *mut pg_sys::PlannedStmt) {
    if !guc::debug_flush() {
        return;
    }
    // SAFETY: by contract.
    let tables: Vec<u32> = unsafe {
        pgrx::PgList::<pg_sys::RangeTblEntry>::from_pg((*stmt).rtable)
            .iter_ptr()
            .filter(|rte| {
                (**rte).rtekind == pg_sys::RTEKind::RTE_RELATION
                    && crate::am::is_iceberg((**rte).relid)
            })
            .map(|rte| (*rte).relid.to_u32())
            .collect()
    };
    let Some(slot) = slot().filter(|slot| slot.state.load(Ordering::Acquire) == state::RUNNING)
    else {
        return;
    };
    if tables.is_empty() || slot.pid.load(Ordering::Acquire) == std::process::id() {
        return;
    }
    let asked = slot.ask(&tables);
    let proc = slot.proc.load(Ordering::Acquire);
    if proc > 0 {
        crate::pg::latch::wake(proc - 1);
    }
    let deadline = Instant::now() + PATIENCE;
    while !slot.is_served(asked) && Instant::now() < deadline {
        crate::pg::check_for_interrupts();
        std::thread::sleep(Duration::from_micros(200));
    }
}
