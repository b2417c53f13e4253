//! The tokio runtime of a worker process, and how panics in its threads become errors.
//!
//! Threads start with the signal mask of the thread that builds the runtime: the caller has blocked
//! all signals. No thread here may call Postgres.

use pg_lake_plan::message::{ErrorCode, WireError};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::Once;
use tokio::runtime::{Builder, Runtime};

/// Deeply nested expressions are evaluated recursively; an overflow would take the server down.
const STACK_BYTES: usize = 16 << 20;

/// Encoders keep a thread each while their backend feeds them: more of them than there can be
/// backends, or a feed could wait for a thread that another one of the same backend has.
const BLOCKING_THREADS_MAX: usize = 16_384;

thread_local! {
    static OURS: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Builds the runtime. `name` is cut to 15 bytes by the system.
pub(crate) fn build(name: &str, threads: usize) -> Result<Runtime, WireError> {
    install_panic_hook();
    Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name(name)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .on_thread_start(|| OURS.set(true))
        .build()
        .map_err(|e| {
            WireError::new(
                ErrorCode::Internal,
                "could not start the threads of a lake worker",
            )
            .detail(e.to_string())
        })
}

/// Panics in the runtime's threads are logged and remembered; those of other threads are left to
/// the hook that was there before (the process that runs us may need its own on the main thread, and that one writes raw stderr).
fn install_panic_hook() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !OURS.get() {
                previous(info);
                return;
            }
            let text = payload_text(info.payload());
            let message = match info.location() {
                Some(at) => format!("{text} ({}:{})", at.file(), at.line()),
                None => text.to_owned(),
            };
            tracing::error!(target: "pg_lake", "panic in a lake worker: {message}");
            LAST_PANIC.set(Some(message));
        }));
    });
}

/// The error that a caught panic becomes. Call it on the thread that panicked, if that is known, so
/// that it tells where.
pub(crate) fn panic_error(doing: &str, payload: &(dyn Any + Send)) -> WireError {
    let text = payload_text(payload);
    let message = LAST_PANIC
        .take()
        .filter(|remembered| remembered.starts_with(text))
        .unwrap_or_else(|| text.to_owned());
    WireError::new(
        ErrorCode::Internal,
        format!("internal error in {doing}: {message}"),
    )
}

fn payload_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "panic"
    }
}

/// Starts blocking work on a thread that may block. `doing` names it in the error for a panic.
/// Dropping the future doesn't stop the work.
pub(crate) fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, WireError> + Send + 'static,
) -> impl Future<Output = Result<T, WireError>> + Send {
    let handle = tokio::task::spawn_blocking(work);
    async move {
        match handle.await {
            Ok(result) => result,
            Err(e) => Err(match e.try_into_panic() {
                Ok(payload) => panic_error(doing, &*payload),
                Err(_) => WireError::new(ErrorCode::Cancelled, "the lake worker is shutting down"),
            }),
        }
    }
}
