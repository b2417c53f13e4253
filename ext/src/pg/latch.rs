//! Setting another process' latch.

use pgrx::pg_sys;

unsafe extern "C" {
    // Not pgrx's binding: that one refuses to be called off the main thread, and `SetLatch` is
    // safe there (it writes flags in shared memory and sends a signal; src/backend/storage/ipc/latch.c).
    #[link_name = "SetLatch"]
    fn raw_set_latch(latch: *mut pg_sys::Latch);
}

/// Wakes the process with that proc number, if there is one. Callable from any thread: the only
/// exception to the rule that one thread calls Postgres.
pub fn wake(proc: u32) {
    // SAFETY: ProcGlobal and its array are set up before any process that calls this is forked and
    // never move; the index is checked. A stale process' latch is still valid shared memory and
    // setting it is harmless.
    unsafe {
        let global = pg_sys::ProcGlobal;
        if !global.is_null() && proc < (*global).allProcCount {
            raw_set_latch(&raw mut (*(*global).allProcs.add(proc as usize)).procLatch);
        }
    }
}
