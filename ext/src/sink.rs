//! Rows on their way into Parquet files: batched here, encoded by a worker.
//!
//! The files are durable when [`Sink::finish`] returns and announced by an intent before they are
//! begun; they belong to nobody until they are registered.

use crate::catalog::storage::Storage;
use crate::catalog::{intent, options};
use crate::error;
use crate::guc;
use crate::relation::Info;
use crate::ring::call::{Call, pick_worker};
use crate::types::PinnedSettings;
use pg_lake_crash::{CrashPoint, crash_point};
use pg_lake_plan::batch::BatchBuilder;
use pg_lake_plan::message::{Reply, Request, TableColumn, Write, WrittenFile};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::hash::{DefaultHasher, Hasher};
use std::rc::Rc;

const ROWS_PER_BATCH: usize = 8192;

/// What a sink's files are for; the first part of their names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bulk,
    Flush,
    HotImage,
    Compaction,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Kind::Bulk => "bulk",
            Kind::Flush => "flush",
            Kind::HotImage => "hot",
            Kind::Compaction => "compact",
        }
    }
}

/// An open writer of one table.
pub struct Sink {
    pub storage: Storage,
    kind: Kind,
    pub info: Rc<Info>,
    call: Call,
    builder: BatchBuilder,
    buffer: Vec<u8>,
    batch_bytes: usize,
    pub rows: u64,
    /// Of the batches sent so far.
    digest: DefaultHasher,
}

/// The table's columns as Iceberg has them.
pub fn table_columns(info: &Info) -> Vec<TableColumn> {
    info.codecs
        .iter()
        .map(|codec| TableColumn {
            id: i32::from(codec.attnum),
            name: codec.name.clone(),
            ty: codec.lake.clone(),
            required: false,
        })
        .collect()
}

/// How large a file of a table is to become, in bytes.
pub fn target_file_size(storage: &Storage) -> u64 {
    options::of(storage.relid)
        .target_file_size
        .unwrap_or_else(guc::target_file_size)
}

impl Sink {
    /// Announces the files and opens a stream to a worker.
    pub fn open(storage: &Storage, info: Rc<Info>, kind: Kind) -> Sink {
        crate::catalog::storage::incarnation(); // an error in a copy of a database
        let directory = storage.data_directory();
        let intent = intent::announce(storage.id, &directory, kind.prefix());
        let columns = table_columns(&info);
        let options = options::of(storage.relid);
        let target_file_size = match kind {
            // One file, whatever its size.
            Kind::HotImage | Kind::Compaction => u64::MAX,
            Kind::Bulk | Kind::Flush => target_file_size(storage),
        };
        let compression = options.compression.unwrap_or_else(guc::compression);
        let call = Call::start(pick_worker(), 1, |feeds| {
            Request::Write(Write {
                feed: feeds[0],
                columns,
                directory: crate::pg::absolute(&intent.directory),
                prefix: intent.prefix.clone(),
                target_file_size,
                compression: compression.into(),
            })
        });
        Sink {
            storage: storage.clone(),
            kind,
            builder: BatchBuilder::new(info.codecs.iter().map(|c| &c.lake)),
            info,
            call,
            buffer: vec![],
            batch_bytes: guc::ring_bytes() as usize / 4,
            rows: 0,
            digest: DefaultHasher::new(),
        }
    }

    /// Appends the row of a slot.
    pub fn push(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        let info = self.info.clone();
        // SAFETY: the slot holds a row of the table; its arrays have an entry for each attribute.
        unsafe {
            // A virtual slot has all its values; each call into Postgres costs some nanoseconds.
            let natts = (*(*slot).tts_tupleDescriptor).natts as i16;
            if (*slot).tts_nvalid < natts {
                pg_sys::slot_getallattrs(slot);
            }
            let values = (*slot).tts_values;
            let nulls = (*slot).tts_isnull;
            let pinned = info.pinned_settings.then(PinnedSettings::new);
            for (codec, column) in info.codecs.iter().zip(&mut self.builder.columns) {
                let i = codec.attnum as usize - 1;
                if let Err(e) = codec.push(*values.add(i), *nulls.add(i), column) {
                    error::raise(e.code, &e.message, e.detail.as_deref(), e.hint.as_deref())
                }
            }
            drop(pinned);
        }
        self.builder.end_row();
        self.rows += 1;
        if self.builder.rows() >= ROWS_PER_BATCH
            || (self.builder.rows() & 63 == 0 && self.builder.bytes() >= self.batch_bytes)
        {
            self.send();
        }
    }

    fn send(&mut self) {
        if self.builder.rows() == 0 {
            return;
        }
        if let Err(e) = self.builder.finish(&mut self.buffer) {
            error::raise(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                &e.to_string(),
                None,
                None,
            );
        }
        if self.kind == Kind::HotImage {
            self.digest.write(&self.buffer);
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.feed(&buffer);
        self.buffer = buffer;
    }

    fn feed(&mut self, batch: &[u8]) {
        if !self.call.feed(0, batch) {
            // The worker gave up: its reply says why.
            if let crate::ring::call::Message::Error(e) = self.call.next() {
                error::raise_wire(&e);
            }
        }
    }

    /// Appends rows as another stream has brought them, with the columns of the table.
    pub fn push_batch(&mut self, batch: &[u8], rows: u64) {
        self.rows += rows;
        self.feed(batch);
    }

    /// Of a hot image's rows, in their order, all of which must have been pushed.
    pub fn digest(&mut self) -> u64 {
        self.send();
        self.digest.finish()
    }

    /// Waits until the files are durable.
    pub fn finish(mut self) -> Vec<WrittenFile> {
        self.send();
        self.call.finish_feed(0);
        crash_point(CrashPoint::SinkSent);
        match self.call.reply() {
            Reply::Written(mut files) => {
                crash_point(CrashPoint::SinkWritten);
                for file in &mut files {
                    file.path = crate::pg::relative(&file.path);
                }
                files
            }
            other => error::raise(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                &format!("unexpected reply to a write: {other:?}"),
                None,
                None,
            ),
        }
    }
}
