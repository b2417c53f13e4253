//! Routes `tracing` events to the server log.
//!
//! Only the main thread may call Postgres, so other threads queue their events, bounded, and the
//! main thread writes them when it wakes.

use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Level, Metadata, Subscriber};

/// More events than that between two wake-ups are counted, not kept.
const QUEUE_MAX: usize = 1000;

static QUEUE: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());
static DROPPED: AtomicU64 = AtomicU64::new(0);

struct Forward;

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let result = if field.name() == "message" {
            write!(self.0, "{value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
        debug_assert!(result.is_ok(), "writing to a String can't fail");
    }
}

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        if let Ok(mut queue) = QUEUE.lock() {
            if queue.len() < QUEUE_MAX {
                queue.push((*event.metadata().level(), text.0));
            } else {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// Installs the subscriber, once in a process.
pub fn init() {
    drop(tracing::subscriber::set_global_default(Forward));
}

/// Writes what has been queued. On the main thread.
pub fn write() {
    let events = QUEUE
        .lock()
        .map(|mut queue| std::mem::take(&mut *queue))
        .unwrap_or_default();
    for (level, text) in events {
        let level = match level {
            Level::ERROR | Level::WARN => PgLogLevel::WARNING,
            Level::INFO => PgLogLevel::LOG,
            _ => PgLogLevel::DEBUG1,
        };
        pgrx::pg_sys::panic::ErrorReport::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            text,
            "pg_lake",
        )
        .report(level);
    }
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        crate::error::warn(&format!("{dropped} log messages were dropped"), None);
    }
}
