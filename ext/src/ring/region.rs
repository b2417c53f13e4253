//! Reserves the region in the postmaster and lays it out once, before any other process exists.

use crate::guc;
use crate::ring::control::Control;
use pg_lake_ring::{Layout, Region};
use pgrx::pg_sys;
use std::sync::OnceLock;

static REGION: OnceLock<Region> = OnceLock::new();
static CONTROL: OnceLock<&'static Control> = OnceLock::new();

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Proc numbers past `MaxBackends` belong to auxiliary processes, which send no requests.
fn layout() -> Layout {
    // SAFETY: set before the request hooks run.
    let backends = unsafe { pg_sys::MaxBackends } as u32;
    Layout {
        procs: backends + 8,
        workers: guc::workers() + 1,
        streams: guc::streams(),
        ring_bytes: guc::ring_bytes(),
    }
}

fn size() -> usize {
    match layout().size() {
        Ok(size) => size,
        Err(e) => crate::error::raise(
            pgrx::PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            &format!("could not lay out the rings: {e}"),
            None,
            Some("Lower lake.streams or lake.ring_size."),
        ),
    }
}

/// The region. Only called in processes of a server that has loaded the library at its start.
pub fn region() -> Region {
    match REGION.get() {
        Some(region) => *region,
        None => crate::error::raise(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "pg_lake must be loaded via \"shared_preload_libraries\"",
            None,
            Some(
                "Add pg_lake to shared_preload_libraries in postgresql.conf and restart the server.",
            ),
        ),
    }
}

/// The shared control block.
pub fn control() -> Option<&'static Control> {
    CONTROL.get().copied()
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: called by the postmaster in the phase for such requests.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(size() + 64 + size_of::<Control>());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: called by the postmaster, alone; the segment is kept for the server's life.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        let len = size();
        let mut found = false;
        let base = pg_sys::ShmemInitStruct(c"pg_lake rings".as_ptr(), len + 64, &mut found);
        let base = base.cast::<u8>();
        let base = base.add(base.align_offset(64));
        let region = if found {
            Region::attach(base, len)
        } else {
            Region::init(base, len, &layout())
        };
        match region {
            // A second start in the same process follows a crash: the old handle points to the
            // same address with the same layout.
            Ok(region) => {
                REGION.get_or_init(|| region);
            }
            Err(e) => crate::error::raise(
                pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                &format!("could not initialise the rings: {e}"),
                None,
                None,
            ),
        }
        let control = pg_sys::ShmemInitStruct(
            c"pg_lake control".as_ptr(),
            size_of::<Control>(),
            &mut found,
        )
        .cast::<Control>();
        if !found {
            control.write_bytes(0, 1);
        }
        CONTROL.get_or_init(|| &*control);
    }
}

/// Installs the hooks.
pub fn init() {
    // SAFETY: single-threaded postmaster.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}
