//! Rows on their way into Parquet files: batched here, encoded by a worker.
//!
//! The files are durable when [`Sink::finish`] returns and announced by an intent before they are
//! begun; they belong to nobody until they are registered. Rows of a table that is partitioned or
//! sorted are all sorted first, and sent when there are no more.

use crate::catalog::layout::{self, Layout};
use crate::catalog::storage::Storage;
use crate::catalog::{intent, options};
use crate::error;
use crate::guc;
use crate::relation::Info;
use crate::ring::call::{Call, pick_worker};
use crate::sorter::Sorter;
use crate::types::{self, PinnedSettings};
use pg_lake_crash::{CrashPoint, crash_point};
use pg_lake_plan::batch::BatchBuilder;
use pg_lake_plan::layout::{Partition, SortField, partition_key};
use pg_lake_plan::message::{Compression, Reply, Request, TableColumn, Write, WrittenFile};
use pg_lake_plan::types::Value;
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
    Cluster,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Kind::Bulk => "bulk",
            Kind::Flush => "flush",
            Kind::HotImage => "hot",
            Kind::Compaction => "compact",
            Kind::Cluster => "cluster",
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
    layout: Layout,
    /// Holds the rows, if they must be sorted.
    sorter: Option<Sorter>,
    /// The key of the partition that is sent, or of the row that is sorted in.
    partition: Vec<u8>,
    /// Of a flush's rows, in the order in which they are sent.
    tids: Vec<Tid>,
    /// Of the batches sent so far.
    digest: DefaultHasher,
    /// What the files are written by ([`options_of`]).
    options: Vec<u8>,
}

/// Block and offset of a heap TID.
pub type Tid = (u32, u16);

/// What a sink has written.
#[derive(Default)]
pub struct Written {
    pub files: Vec<WrittenFile>,
    /// Of a flush: where the rows were, in the order of the files.
    pub tids: Vec<Tid>,
    /// What they were written by ([`options_of`]).
    pub options: Vec<u8>,
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

/// What the options of a table say now of how its rows are in files: to be compared with what files were written by.
pub fn options_of(storage: &Storage, info: &Info) -> Vec<u8> {
    let options = options::of(storage.relid);
    let layout = layout::of(&options, info);
    let compression = options.compression.unwrap_or_else(guc::compression);
    encoded(&layout, &layout.sort_by, compression)
}

fn encoded(layout: &Layout, sort_by: &[SortField], compression: Compression) -> Vec<u8> {
    let mut filters = layout.bloom_filters.clone();
    filters.sort_unstable();
    let all = (&layout.partition_by, sort_by, filters, compression);
    pg_lake_plan::encode(&all).unwrap_or_default()
}

impl Sink {
    /// Announces the files of an open relation and opens a stream to a worker.
    pub fn open(relation: pg_sys::Relation, storage: &Storage, info: Rc<Info>, kind: Kind) -> Sink {
        let layout = layout::of(&options::of(storage.relid), &info);
        let sort_order = layout.order_of_files(&info);
        // SAFETY: settings of this backend. A statement may write several tables, maintenance one.
        let memory_kb = unsafe {
            match kind {
                Kind::Bulk => pg_sys::work_mem,
                // A sort by the index has the other half.
                Kind::Cluster => pg_sys::maintenance_work_mem / 2,
                _ => pg_sys::maintenance_work_mem,
            }
        };
        let sorter =
            (!layout.is_plain()).then(|| Sorter::begin(relation, &info, &layout, memory_kb));
        Sink {
            sorter,
            ..Sink::start(storage, info, kind, layout, sort_order)
        }
    }

    /// The same for batches of rows of one partition, in some order, which become one file.
    pub fn for_batches(
        storage: &Storage,
        info: Rc<Info>,
        partition: &Partition,
        sort_order: Vec<SortField>,
    ) -> Sink {
        let layout = Layout {
            partition_by: partition.fields.clone(),
            sort_by: vec![],
            bloom_filters: layout::of(&options::of(storage.relid), &info).bloom_filters,
        };
        let mut sink = Sink::start(storage, info, Kind::Compaction, layout, sort_order);
        if !partition.fields.is_empty() {
            sink.begin_partition(&partition.values);
        }
        sink
    }

    fn start(
        storage: &Storage,
        info: Rc<Info>,
        kind: Kind,
        layout: Layout,
        sort_order: Vec<SortField>,
    ) -> Sink {
        crate::catalog::storage::incarnation(); // an error in a copy of a database
        let directory = storage.data_directory();
        let intent = intent::announce(storage.id, &directory, kind.prefix());
        let columns = table_columns(&info);
        let options = options::of(storage.relid);
        let target_file_size = match kind {
            // One file a partition, whatever its size.
            Kind::HotImage | Kind::Compaction => u64::MAX,
            Kind::Bulk | Kind::Flush | Kind::Cluster => target_file_size(storage),
        };
        let compression = options.compression.unwrap_or_else(guc::compression);
        let sort_by = match kind {
            Kind::Compaction => &sort_order,
            _ => &layout.sort_by,
        };
        let written_by = encoded(&layout, sort_by, compression);
        let call = Call::start(pick_worker(), 1, |feeds| {
            Request::Write(Write {
                feed: feeds[0],
                columns,
                directory: crate::pg::absolute(&intent.directory),
                prefix: intent.prefix.clone(),
                target_file_size,
                compression,
                partition_by: layout.partition_by.clone(),
                sort_order: sort_order.clone(),
                bloom_filters: layout.bloom_filters.clone(),
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
            layout,
            sorter: None,
            partition: vec![],
            tids: vec![],
            digest: DefaultHasher::new(),
            options: written_by,
        }
    }

    /// Appends the row of a slot.
    pub fn push(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: the slot holds a row of the table. A virtual one has all its values; each call into
        // Postgres costs some nanoseconds.
        unsafe {
            let natts = (*(*slot).tts_tupleDescriptor).natts as i16;
            if (*slot).tts_nvalid < natts {
                pg_sys::slot_getallattrs(slot);
            }
        }
        let place = match self.kind {
            // SAFETY: the slot's TID is that of a hot row.
            Kind::Flush => unsafe {
                let tid = (*slot).tts_tid;
                place_of((
                    pg_sys::ItemPointerGetBlockNumber(&tid),
                    pg_sys::ItemPointerGetOffsetNumber(&tid),
                ))
            },
            _ => self.rows as i64,
        };
        self.rows += 1;
        if self.sorter.is_some() {
            let values = self.partition_values(slot);
            partition_key(&values, &mut self.partition);
        }
        match &mut self.sorter {
            Some(sorter) => sorter.push(slot, place, &self.partition),
            None => self.add(slot, place),
        }
    }

    /// The values of the partition that the row of a slot is in.
    fn partition_values(&self, slot: *mut pg_sys::TupleTableSlot) -> Vec<Option<Value>> {
        let fields = self.layout.partition_by.iter();
        let values = fields.map(|field| {
            let codec = layout::codec(&self.info, field.source_id)?;
            let i = codec.attnum as usize - 1;
            // SAFETY: the slot holds a row of the table, whose values have been read.
            let (value, checked) = unsafe {
                if *(*slot).tts_isnull.add(i) {
                    return None;
                }
                let datum = *(*slot).tts_values.add(i);
                match types::value_of(&codec.lake, codec.typid, datum) {
                    Some(value) => (field.transform.apply(&value), Ok(())),
                    None => (None, codec.check(datum)),
                }
            };
            if let Err(e) = checked {
                e.raise();
            }
            Some(value.unwrap_or_else(|| {
                error::raise(
                    PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                    &format!("a value of column \"{}\" is in no partition", codec.name),
                    Some("It can't be stored in an Iceberg table."),
                    Some("Change the value, or partition by another column."),
                )
            }))
        });
        values.collect()
    }

    /// Sends what has been sorted, partition by partition.
    fn send_sorted(&mut self) {
        let Some(mut sorter) = self.sorter.take() else {
            return;
        };
        sorter.perform();
        self.partition.clear();
        while let Some((slot, place)) = sorter.next() {
            if sorter.changes_partition(&mut self.partition) {
                self.send();
                let values = self.partition_values(slot);
                self.begin_partition(&values);
            }
            self.add(slot, place);
        }
        sorter.end();
    }

    fn begin_partition(&mut self, values: &[Option<Value>]) {
        let values = pg_lake_plan::encode(&values).unwrap_or_default();
        let sent = self.call.begin_partition(0, &values);
        self.check(sent);
    }

    /// Puts a row, whose values have been read, into the batch.
    fn add(&mut self, slot: *mut pg_sys::TupleTableSlot, place: i64) {
        if self.kind == Kind::Flush {
            self.tids.push(tid_at(place));
        }
        let info = self.info.clone();
        // SAFETY: the slot holds a row of the table; its arrays have an entry for each attribute.
        unsafe {
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
        let sent = self.call.feed(0, &self.buffer);
        self.check(sent);
    }

    fn check(&mut self, sent: bool) {
        if !sent {
            // The worker gave up: its reply says why.
            if let crate::ring::call::Message::Error(e) = self.call.next() {
                error::raise_wire(&e);
            }
        }
    }

    /// Whether rows are sent as they come, so that they may come by the batch.
    pub fn takes_batches(&self) -> bool {
        self.sorter.is_none()
    }

    /// Appends rows as another stream has brought them, with the columns of the table.
    pub fn push_batch(&mut self, batch: &[u8], rows: u64) {
        self.send();
        self.rows += rows;
        let sent = self.call.feed(0, batch);
        self.check(sent);
    }

    /// Of a hot image's rows, in their order, all of which must have been pushed.
    pub fn digest(&mut self) -> u64 {
        self.send_sorted();
        self.send();
        self.digest.finish()
    }

    /// Waits until the files are durable.
    pub fn finish(mut self) -> Written {
        self.send_sorted();
        self.send();
        self.call.finish_feed(0);
        crash_point(CrashPoint::SinkSent);
        match self.call.reply() {
            Reply::Written(mut files) => {
                crash_point(CrashPoint::SinkWritten);
                for file in &mut files {
                    file.path = crate::pg::relative(&file.path);
                }
                Written {
                    files,
                    tids: std::mem::take(&mut self.tids),
                    options: self.options,
                }
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

/// A TID as a number that ascends with it.
fn place_of((block, offset): Tid) -> i64 {
    i64::from(block) << 16 | i64::from(offset)
}

fn tid_at(place: i64) -> Tid {
    ((place >> 16) as u32, place as u16)
}
